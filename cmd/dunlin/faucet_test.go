package main

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var faucetURL = regexp.MustCompile(`faucet url=(http://\S+)`)

// TestE2EFaucet: a faucet pays from the wallet of its node; while that is locked, who asked waits and is told why.
func TestE2EFaucet(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, "rich", "--network", "regtest")
	pass := filepath.Join(t.TempDir(), "pass")
	if err := os.WriteFile(pass, []byte("correct horse battery\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	do := func(args ...string) string {
		t.Helper()
		out, errs, code := dunlin(t, nil, append(args, "--home", d.home)...)
		if code != 0 {
			t.Fatalf("%v: exit %d: %s", args, code, errs)
		}
		return strings.TrimSpace(out)
	}
	do("wallet", "create", "--passphrase-file", pass)
	own := do("wallet", "receive")
	do("miner", "gbt", "--address", own, "--blocks", "101")
	eventually(t, patience, "the wallet has coins", func() error {
		if out := do("wallet", "balance"); !strings.Contains(out, "spendable  100.0") {
			return errors.New(out)
		}
		return nil
	})

	w := onPipe(t, "faucet", "--home", d.home, "--listen", "127.0.0.1:0", "--amount", "0.5", "--interval", "100ms")
	var url string
	eventually(t, patience, "it serves", func() error {
		m := faucetURL.FindStringSubmatch(w.errs.String())
		if m == nil {
			return fmt.Errorf("log: %s", w.errs)
		}
		url = m[1]
		return nil
	})
	ask := func(method, path, body string) string {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, url+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/json")
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		raw, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return string(raw)
	}
	shows := func(path string, want ...string) {
		t.Helper()
		eventually(t, patience, fmt.Sprint(want), func() error {
			got := ask(http.MethodGet, path, "")
			for _, s := range want {
				if !strings.Contains(got, s) {
					return errors.New(got)
				}
			}
			return nil
		})
	}
	const to = `{"address":"mipcBbFg9gMiCh81Kj8tqqdgoZub1ZJRfn"}`
	if got := ask(http.MethodPost, "claims", to); !strings.Contains(got, `"state":"queued"`) {
		t.Fatal(got)
	}
	if got := ask(http.MethodPost, "claims", to); !strings.Contains(got, "was served: again in") {
		t.Error(got)
	}
	shows("info", `"reason":"not paid: `, "locked", `"queue":1`)
	do("wallet", "unlock", "--passphrase-file", pass, "--for", "1h")
	shows("info", `"queue":0`, `"left":950000000`)
	if s := d.mustStatus(); s.Mempool.Count != 1 {
		t.Errorf("%d transactions wait", s.Mempool.Count)
	}
	if got := ask(http.MethodGet, "", ""); !strings.Contains(got, "<title>Faucet</title>") {
		t.Errorf("page: %.200s", got)
	}
	w.interrupt()
	w.ends(exitOK)
}
