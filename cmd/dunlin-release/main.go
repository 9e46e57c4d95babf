// Command dunlin-release makes what is published of a version: for each platform one archive with a static binary, manual pages, shell completions,
// documents and the licences of everything in the binary, a bill of materials beside it, and one file of checksums over all. docs/release.md is the
// playbook around it.
//
// It is a tool of developers, not a part of the node, and reads nothing but a commit: what is not committed is not in a release, and the same commit
// gives the same bytes, in any folder, on any day, on any machine with the same Go. It proves that rather than believing it: with --twice
// everything is built again from another folder with an empty build cache, and compared.
//
// One file holds one matter: the builds (build.go), archives (archive.go), bills of materials (sbom.go), licences (licences.go), and the look at a
// finished release (verify.go), which trusts nothing that the builder said.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // the second signal ends it at once
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// Exit codes, as those of dunlin where they mean the same.
const (
	exitOK    = 0
	exitError = 1
	exitUsage = 2
)

// usageError is wrong usage: nothing was done.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// run executes one command line and returns the exit code.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := newRoot()
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	for line := range strings.SplitSeq(strings.TrimRight(err.Error(), "\n"), "\n") {
		fmt.Fprintf(stderr, "dunlin-release: %s\n", line)
	}
	if _, wrong := errors.AsType[usageError](err); wrong {
		return exitUsage
	}
	return exitError
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "dunlin-release",
		Short: "Make and check the files of a release",
		Long: `dunlin-release makes the archives, bills of materials and checksums of a release from a commit, and checks finished ones.

  dunlin-release build --twice     everything for the tag that HEAD has, into dist/
  dunlin-release verify dist       checksums, binaries, bills of materials, licences

docs/release.md is the playbook.`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usageError{fmt.Errorf("unknown command %q: see dunlin-release --help", args[0])}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.CompletionOptions.DisableDefaultCmd = true
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usageError{fmt.Errorf("%w: see %s --help", err, cmd.CommandPath())}
	})
	root.AddCommand(newBuild(), newVerify())
	return root
}

func newBuild() *cobra.Command {
	var o options
	cmd := &cobra.Command{
		Use:   "build",
		Short: "Build the archives of a commit",
		Long: `build exports the commit into a folder of its own, builds dunlin for every platform there, and writes archives, bills of materials and
SHA256SUMS. The version is the commit's tag vX.Y.Z; a commit without one is refused unless --snapshot names it after itself.`,
		Example: "  dunlin-release build --twice\n  dunlin-release build --snapshot --targets linux/amd64 --out /tmp/dist",
		Args: func(cmd *cobra.Command, a []string) error {
			if err := cobra.NoArgs(cmd, a); err != nil {
				return usageError{err}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			o.progress = cmd.ErrOrStderr()
			return build(cmd.Context(), o)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.repo, "repo", ".", "folder of the repository")
	f.StringVar(&o.commit, "commit", "HEAD", "what to build")
	f.StringVar(&o.out, "out", "dist", "folder for the results, empty or new")
	f.StringSliceVar(&o.targets, "targets", allTargets, "platforms")
	f.BoolVar(&o.snapshot, "snapshot", false, "allow a commit without a tag; its version is v0.0.0-TIME-COMMIT")
	f.BoolVar(&o.twice, "twice", false, "build all a second time, in another folder with an empty build cache, and compare")
	return cmd
}

func newVerify() *cobra.Command {
	return &cobra.Command{
		Use:   "verify DIR",
		Short: "Check the files of a release: checksums, binaries, bills of materials, licences",
		Long: `verify reads a folder as build wrote it, or as it was downloaded: each file must be the one of SHA256SUMS, each binary one for its platform, static
and without paths of the machine that built it, each bill of materials that of its binary, and no licence may be missing. It needs no
network and runs nothing of the release.`,
		Args: func(cmd *cobra.Command, a []string) error {
			if err := cobra.ExactArgs(1)(cmd, a); err != nil {
				return usageError{err}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, a []string) error {
			found, err := verify(a[0])
			for _, f := range found {
				fmt.Fprintln(cmd.OutOrStdout(), f)
			}
			return err
		},
	}
}
