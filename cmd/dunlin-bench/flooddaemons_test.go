package main

import (
	"strings"
	"testing"

	"dunlin/internal/command"
)

// What cannot be measured is refused before anything starts, every fault at once.
func TestDaemonsUsage(t *testing.T) {
	var out, errs strings.Builder
	code := run(t.Context(), []string{"flood", "--daemons", "3", "--txs", "9", "--runs", "2", "--only", "warm4"}, &out, &errs)
	for _, want := range []string{"--daemons 3", "--txs 9", "--runs 2", `"warm4"`} {
		if code != command.Misuse || !strings.Contains(errs.String(), want) {
			t.Errorf("exit %d, no %s in\n%s", code, want, errs.String())
		}
	}
	if code := run(t.Context(), []string{"flood", "--daemons", "4", "--seed", "2"}, &out, &errs); code != command.Misuse {
		t.Errorf("--seed: exit %d", code)
	}
}
