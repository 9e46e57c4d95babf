package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"dunlin/config"
	"dunlin/internal/api"
)

// completionPatience is how long a completion waits for a node: whoever pressed Tab waits with it.
const completionPatience = 300 * time.Millisecond

func newCompletion() *cobra.Command {
	shell := func(name, install string, write func(*cobra.Command) error) *cobra.Command {
		return &cobra.Command{
			Use: name, Short: "Print the completion script of " + name, Long: "Install it with:\n\n" + install, Args: args(cobra.NoArgs),
			RunE: func(cmd *cobra.Command, _ []string) error {
				if err := write(cmd); err != nil {
					return fmt.Errorf("write the script: %w", err)
				}
				return nil
			},
		}
	}
	return group("completion", "Print a script that lets a shell complete commands, flags, networks and peers",
		shell("bash", `  dunlin completion bash > /etc/bash_completion.d/dunlin         for everybody; the package bash-completion is needed
  source <(dunlin completion bash)                               for this shell`,
			func(cmd *cobra.Command) error { return cmd.Root().GenBashCompletionV2(cmd.OutOrStdout(), true) }),
		shell("zsh", `  dunlin completion zsh > "${fpath[1]}/_dunlin"                   with "autoload -U compinit; compinit" in ~/.zshrc
  source <(dunlin completion zsh)                                for this shell`,
			func(cmd *cobra.Command) error { return cmd.Root().GenZshCompletion(cmd.OutOrStdout()) }),
		shell("fish", `  dunlin completion fish > ~/.config/fish/completions/dunlin.fish
  dunlin completion fish | source                                for this shell`,
			func(cmd *cobra.Command) error { return cmd.Root().GenFishCompletion(cmd.OutOrStdout(), true) }),
		shell("powershell", `  dunlin completion powershell | Out-String | Invoke-Expression   in the profile, or for this shell`,
			func(cmd *cobra.Command) error {
				return cmd.Root().GenPowerShellCompletionWithDesc(cmd.OutOrStdout())
			}),
	)
}

// oneOf completes with fixed words.
func oneOf(words ...string) cobra.CompletionFunc {
	return cobra.FixedCompletions(words, cobra.ShellCompDirectiveNoFileComp)
}

// completions tells every command of root how its flags and arguments are completed. What only a node knows is asked of the running one, and
// left out if it does not answer at once.
func (g *global) completions(root *cobra.Command) {
	fixed := map[string][]string{
		"network": config.PresetNames(), "output": outputs, "log-format": {"text", "json"}, "log-level": {"debug", "info", "warn", "error"},
		"log-color": {"auto", "always", "never"}, "format": {"jsonl", "text"}, "engine": {"pow"},
	}
	argument := map[string]cobra.CompletionFunc{
		"dunlin log level":          oneOf("debug", "info", "warn", "error", "default"),
		"dunlin peers ban":          g.fromNode(peerIDs),
		"dunlin peers unban":        g.fromNode(bannedTargets),
		"dunlin peers remove":       g.fromNode(addedPeers),
		"dunlin chain block":        g.fromNode(lastHashes),
		"dunlin chain invalidate":   g.fromNode(lastHashes),
		"dunlin chain reconsider":   g.fromNode(lastHashes),
		"dunlin chain accept-reorg": g.fromNode(refusedTips),
		"dunlin chain import":       cobra.FixedCompletions([]string{"dat", "zst", "blk"}, cobra.ShellCompDirectiveFilterFileExt),
		"dunlin network show":       cobra.FixedCompletions([]string{"toml"}, cobra.ShellCompDirectiveFilterFileExt),
		"dunlin peers import":       nil, // a file
		"dunlin peers export":       nil,
		"dunlin chain export":       nil,
		"dunlin network join":       nil,
		"dunlin debug bundle":       nil,
		"dunlin man":                cobra.FixedCompletions(nil, cobra.ShellCompDirectiveFilterDirs),
		"dunlin bootstrap remove":   g.configured,
	}
	var walk func(*cobra.Command)
	walk = func(cmd *cobra.Command) {
		for name, words := range fixed {
			if f := cmd.LocalFlags().Lookup(name); f != nil && (cmd == root || cmd.PersistentFlags().Lookup(name) != nil || cmd.NonInheritedFlags().Lookup(name) != nil) {
				_ = cmd.RegisterFlagCompletionFunc(name, oneOf(words...)) // the flag is there, and registered once
			}
		}
		if f, listed := argument[cmd.CommandPath()]; listed {
			cmd.ValidArgsFunction = f
		} else if !cmd.HasSubCommands() && cmd.ValidArgsFunction == nil {
			cmd.ValidArgsFunction = cobra.NoFileCompletions
		}
		for _, child := range cmd.Commands() {
			walk(child)
		}
	}
	walk(root)
}

// fromNode completes one argument with what the running node knows.
func (g *global) fromNode(list func(context.Context, *api.Client) ([]string, error)) cobra.CompletionFunc {
	return func(cmd *cobra.Command, given []string, start string) ([]string, cobra.ShellCompDirective) {
		if len(given) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		c, err := g.client(cmd)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp // a completion has nobody to tell
		}
		ctx, cancel := context.WithTimeout(cmd.Context(), completionPatience)
		defer cancel()
		words, err := list(ctx, c)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return slices.DeleteFunc(words, func(w string) bool { return !strings.HasPrefix(w, start) }), cobra.ShellCompDirectiveNoFileComp
	}
}

func peerIDs(ctx context.Context, c *api.Client) (words []string, err error) {
	peers, err := c.Peers(ctx)
	for _, p := range peers {
		words = append(words, cobra.CompletionWithDesc(p.ID, p.Addr))
	}
	return words, err
}

func bannedTargets(ctx context.Context, c *api.Client) (words []string, err error) {
	bans, err := c.Bans(ctx)
	for _, b := range bans {
		words = append(words, cobra.CompletionWithDesc(b.Target, printable(b.Reason)))
	}
	return words, err
}

func addedPeers(ctx context.Context, c *api.Client) ([]string, error) { return c.AddedPeers(ctx) }

// completedBlocks is how many blocks are offered.
const completedBlocks = 10

// refusedTips are the branches that dunlin chain accept-reorg is for.
func refusedTips(ctx context.Context, c *api.Client) (words []string, err error) {
	tips, err := c.Tips(ctx)
	for _, t := range tips {
		if t.Status == "refused" {
			words = append(words, cobra.CompletionWithDesc(t.Hash, fmt.Sprintf("height %d, %d blocks", t.Height, t.Branch)))
		}
	}
	return words, err
}

func lastHashes(ctx context.Context, c *api.Client) (words []string, err error) {
	blocks, err := c.LastBlocks(ctx, completedBlocks)
	for _, b := range slices.Backward(blocks) {
		words = append(words, cobra.CompletionWithDesc(b.Hash, fmt.Sprintf("height %d", b.Height)))
	}
	return words, err
}
