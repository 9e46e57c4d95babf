// Package command is what the programs of this repository have in common as commands: errors that say how the process
// ends, faults of usage, and a root that does nothing by itself. It knows nothing of what they do, and never ends the process.
package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
)

// Exit codes that all programs share; each may have more, from 3.
const (
	OK     = 0
	Failed = 1
	Misuse = 2 // nothing was done
)

// An Error is an error with the exit code that it leads to.
type Error struct {
	Code int
	Err  error
}

// Error implements error; it is the text of Err.
func (e *Error) Error() string { return e.Err.Error() }

// Unwrap gives Err.
func (e *Error) Unwrap() error { return e.Err }

// Exit is err with an exit code.
func Exit(code int, err error) error { return &Error{Code: code, Err: err} }

// Usage is a fault of usage.
func Usage(err error) error { return Exit(Misuse, err) }

// Report prints err, if any, behind the program's name, further lines below the first, and says how the process ends.
func Report(stderr io.Writer, program string, err error) int {
	if err == nil {
		return OK
	}
	indent := strings.Repeat(" ", len(program)+2)
	text := strings.ReplaceAll(strings.TrimRight(err.Error(), "\n"), "\n", "\n"+indent)
	fmt.Fprintf(stderr, "%s: %s\n", program, text)
	if coded, ok := errors.AsType[*Error](err); ok {
		return coded.Code
	}
	return Failed
}

// Args wraps a check so that its fault is one of usage. Where cobra only counts arguments it shows what is wanted.
func Args(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, a []string) error {
		err := check(cmd, a)
		if err == nil {
			return nil
		}
		if text := err.Error(); !strings.HasPrefix(text, "accepts ") && !strings.HasPrefix(text, "requires ") && !strings.HasPrefix(text, "unknown command ") {
			return Usage(fmt.Errorf("%s: %w", cmd.CommandPath(), err))
		}
		wanted := strings.TrimSuffix(cmd.UseLine(), " [flags]")
		if len(a) == 0 {
			return Usage(fmt.Errorf("an argument is missing: want %s", wanted))
		}
		return Usage(fmt.Errorf("arguments %q: want %s", a, wanted))
	}
}

// Tool makes root that of a developers' tool: alone it shows its help, what is not one of its commands or flags is a fault of usage, and
// nothing is printed of faults but by Report.
func Tool(root *cobra.Command, commands ...*cobra.Command) *cobra.Command {
	root.SilenceErrors, root.SilenceUsage = true, true
	root.Args = func(cmd *cobra.Command, a []string) error {
		if len(a) > 0 {
			return Usage(fmt.Errorf("unknown command %q: see %s --help", a[0], cmd.CommandPath()))
		}
		return nil
	}
	root.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
	root.CompletionOptions.DisableDefaultCmd = true
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return Usage(fmt.Errorf("%w: see %s --help", err, cmd.CommandPath()))
	})
	root.AddCommand(commands...)
	return root
}

// Run executes one command line of a tool and returns the exit code.
func Run(ctx context.Context, root *cobra.Command, args []string, stdout, stderr io.Writer) int {
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	return Report(stderr, root.Name(), root.ExecuteContext(ctx))
}
