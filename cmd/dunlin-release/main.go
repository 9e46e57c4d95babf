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
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"dunlin/internal/command"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // the second signal ends it at once
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// run executes one command line and returns the exit code.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	return command.Run(ctx, newRoot(), args, stdout, stderr)
}

func newRoot() *cobra.Command {
	return command.Tool(&cobra.Command{
		Use:   "dunlin-release",
		Short: "Make and check the files of a release",
		Long: `dunlin-release makes the archives, bills of materials and checksums of a release from a commit, and checks finished ones.

  dunlin-release build --twice     everything for the tag that HEAD has, into dist/
  dunlin-release verify dist       checksums, binaries, bills of materials, licences

docs/release.md is the playbook.`,
	}, newBuild(), newVerify())
}

func newBuild() *cobra.Command {
	var o options
	cmd := &cobra.Command{
		Use:   "build",
		Short: "Build the archives of a commit",
		Long: `build exports the commit into a folder of its own, builds dunlin for every platform there, and writes archives, bills of materials and
SHA256SUMS. The version is the commit's tag vX.Y.Z; a commit without one is refused unless --snapshot names it after itself.`,
		Example: "  dunlin-release build --twice\n  dunlin-release build --snapshot --targets linux/amd64 --out /tmp/dist",
		Args:    command.Args(cobra.NoArgs),
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
		Args: command.Args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, a []string) error {
			found, err := verify(a[0])
			for _, f := range found {
				fmt.Fprintln(cmd.OutOrStdout(), f)
			}
			return err
		},
	}
}
