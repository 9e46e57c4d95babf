package command_test

import (
	"bytes"
	"errors"
	"fmt"
	"testing"

	"github.com/spf13/cobra"

	"dunlin/internal/command"
)

func TestRun(t *testing.T) {
	barred := errors.New("barred")
	for name, c := range map[string]struct {
		args []string
		code int
		errs string
	}{
		"help":         {nil, command.OK, ""},
		"works":        {[]string{"work"}, command.OK, ""},
		"unknown":      {[]string{"play"}, command.Misuse, "tool: unknown command \"play\": see tool --help\n"},
		"unknown flag": {[]string{"work", "--x"}, command.Misuse, "tool: unknown flag: --x: see tool work --help\n"},
		"arguments":    {[]string{"work", "hard"}, command.Misuse, "tool: arguments [\"hard\"]: want tool work\n"},
		"own check":    {[]string{"choose", "c"}, command.Misuse, "tool: tool choose: a or b\n"},
		"no arguments": {[]string{"need"}, command.Misuse, "tool: an argument is missing: want tool need FILE\n"},
		"fails":        {[]string{"fail"}, command.Failed, "tool: one\n      two\n"},
		"code":         {[]string{"bar"}, 3, "tool: not met: barred\n"},
	} {
		t.Run(name, func(t *testing.T) {
			run := func(use string, err error) *cobra.Command {
				return &cobra.Command{Use: use, Args: command.Args(cobra.NoArgs), RunE: func(*cobra.Command, []string) error { return err }}
			}
			need := run("need FILE", nil)
			need.Args = command.Args(cobra.ExactArgs(1))
			choose := run("choose", nil)
			choose.Args = command.Args(func(*cobra.Command, []string) error { return errors.New("a or b") })
			root := command.Tool(&cobra.Command{Use: "tool", Short: "A tool"}, run("work", nil), need, choose, run("fail", errors.Join(errors.New("one"), errors.New("two"))),
				run("bar", fmt.Errorf("not met: %w", command.Exit(3, barred))))
			var out, errs bytes.Buffer
			if code := command.Run(t.Context(), root, c.args, &out, &errs); code != c.code || errs.String() != c.errs {
				t.Errorf("exit code %d, want %d; %q, want %q", code, c.code, &errs, c.errs)
			}
			if (out.Len() > 0) != (c.args == nil) {
				t.Errorf("prints %q", &out)
			}
		})
	}
	if !errors.Is(command.Exit(3, barred), barred) {
		t.Error("what is wrapped is lost")
	}
}
