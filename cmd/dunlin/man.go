package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"dunlin/config"
)

func newMan() *cobra.Command {
	var markdown string
	cmd := &cobra.Command{
		Use: "man DIR", Short: "Write the manual pages of all commands, and of config.toml, into a folder",
		Long: `man writes a page for each command (dunlin.1, dunlin-chain-import.1 …) and one for the config file (dunlin-config.toml.5). --markdown
writes the reference of all commands into one file instead: docs/cli.md is made so.`,
		Example: "  dunlin man /usr/local/share/man && man dunlin-start\n  dunlin man --markdown docs/cli.md",
		Args: args(func(cmd *cobra.Command, a []string) error {
			if (len(a) == 1) == (markdown != "") {
				return errors.New("a folder is wanted, or --markdown FILE")
			}
			return cobra.MaximumNArgs(1)(cmd, a)
		}),
		RunE: func(cmd *cobra.Command, a []string) error {
			root := cmd.Root()
			if markdown != "" {
				return replaceFile(markdown, cliReference(root))
			}
			pages := manPages(root)
			for name, page := range pages {
				dir := filepath.Join(a[0], "man"+name[len(name)-1:])
				if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // manuals are for everybody
					return err
				}
				if err := os.WriteFile(filepath.Join(dir, name), page, 0o644); err != nil { //nolint:gosec // as above
					return err
				}
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%d pages written below %s; MANPATH must have that folder\n", len(pages), a[0])
			return nil
		},
	}
	cmd.Flags().StringVar(&markdown, "markdown", "", "write one reference in Markdown to this file")
	return cmd
}

// commands lists root and all below it that are shown, parents first.
func commands(root *cobra.Command) []*cobra.Command {
	all := []*cobra.Command{root}
	for _, child := range root.Commands() {
		if child.IsAvailableCommand() {
			all = append(all, commands(child)...)
		}
	}
	return all
}

// A flagDoc is a flag as documents show it.
type flagDoc struct{ name, usage string }

func flagDocs(flags *pflag.FlagSet) (out []flagDoc) {
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Hidden || f.Name == "help" {
			return
		}
		kind, usage := pflag.UnquoteUsage(f)
		name := "--" + f.Name
		if f.Shorthand != "" {
			name = "-" + f.Shorthand + ", " + name
		}
		if kind != "" {
			name += " " + kind
		}
		if f.DefValue != "" && f.DefValue != "[]" && f.DefValue != "false" && f.DefValue != "0" && f.DefValue != "0s" {
			usage += " (default " + f.DefValue + ")"
		}
		out = append(out, flagDoc{name, usage})
	})
	return out
}

// cliReference is docs/cli.md.
func cliReference(root *cobra.Command) []byte {
	var b bytes.Buffer
	b.WriteString("# The command line\n\nMade from the code by `dunlin man --markdown docs/cli.md`; a test compares. `dunlin COMMAND --help` says the same, and `dunlin man DIR` writes\nmanual pages.\n")
	b.WriteString("\nRarely used settings are flags too (`dunlin config show` lists every key, its flag and its environment variable).\n")
	for _, cmd := range commands(root) {
		fmt.Fprintf(&b, "\n## %s\n\n%s.\n", cmd.CommandPath(), cmd.Short)
		if cmd.Long != "" && cmd != root {
			fmt.Fprintf(&b, "\n%s\n", escapeMarkdown(cmd.Long))
		}
		fmt.Fprintf(&b, "\n```\n%s\n", cmd.UseLine())
		if cmd.Example != "" {
			fmt.Fprintf(&b, "\n%s\n", strings.TrimRight(cmd.Example, "\n"))
		}
		b.WriteString("```\n")
		if children := commands(cmd)[1:]; len(children) > 0 {
			b.WriteString("\n| command | |\n|---|---|\n")
			for _, child := range cmd.Commands() {
				if child.IsAvailableCommand() {
					fmt.Fprintf(&b, "| `%s` | %s |\n", child.Name(), escapeCell(child.Short))
				}
			}
		}
		flags := cmd.NonInheritedFlags()
		if docs := flagDocs(flags); len(docs) > 0 {
			b.WriteString("\n| flag | |\n|---|---|\n")
			for _, f := range docs {
				fmt.Fprintf(&b, "| `%s` | %s |\n", strings.ReplaceAll(f.name, "|", "\\|"), escapeCell(f.usage))
			}
		}
	}
	b.WriteString("\n## Exit codes\n\n| code | |\n|---|---|\n")
	for _, c := range exitCodes {
		fmt.Fprintf(&b, "| %d | %s |\n", c.code, c.means)
	}
	return b.Bytes()
}

// exitCodes is what the codes mean, for documents.
var exitCodes = []struct {
	code  int
	means string
}{
	{exitOK, "done"},
	{exitError, "an error; the line on standard error says which"},
	{exitUsage, "wrong usage or settings: nothing was done"},
	{exitNotReady, "the node answers but is not ready: not synced, starting, or not there within the timeout"},
	{exitUnreachable, "no node answers"},
}

// escapeMarkdown keeps a long help text from being taken for markup.
func escapeMarkdown(s string) string {
	return strings.NewReplacer("<", "&lt;", "*", "\\*", "_", "\\_").Replace(s)
}

func escapeCell(s string) string { return strings.ReplaceAll(escapeMarkdown(s), "|", "\\|") }

// manPages are the pages in roff (man(7)), by file name.
func manPages(root *cobra.Command) map[string][]byte {
	pages := map[string][]byte{}
	for _, cmd := range commands(root) {
		name := strings.ReplaceAll(cmd.CommandPath(), " ", "-")
		pages[name+".1"] = manPage(name, cmd)
	}
	pages["dunlin-config.toml.5"] = manConfig()
	return pages
}

func manPage(name string, cmd *cobra.Command) []byte {
	var b bytes.Buffer
	manHead(&b, name, 1, cmd.Short)
	fmt.Fprintf(&b, ".SH SYNOPSIS\n.B %s\n", roff(cmd.UseLine()))
	b.WriteString(".SH DESCRIPTION\n")
	text := cmd.Long
	if text == "" {
		text = cmd.Short + "."
	}
	paragraphs(&b, text)
	var also []string
	if cmd.HasParent() {
		also = append(also, strings.ReplaceAll(cmd.Parent().CommandPath(), " ", "-"))
	}
	if cmd.HasAvailableSubCommands() {
		b.WriteString(".SH COMMANDS\n")
		for _, child := range cmd.Commands() {
			if child.IsAvailableCommand() {
				fmt.Fprintf(&b, ".TP\n.B %s\n%s\n", roff(child.Name()), roff(child.Short))
				also = append(also, strings.ReplaceAll(child.CommandPath(), " ", "-"))
			}
		}
	}
	for _, part := range []struct {
		title string
		flags *pflag.FlagSet
	}{{"OPTIONS", cmd.NonInheritedFlags()}, {"GLOBAL OPTIONS", cmd.InheritedFlags()}} {
		docs := flagDocs(part.flags)
		if len(docs) == 0 {
			continue
		}
		fmt.Fprintf(&b, ".SH %s\n", part.title)
		for _, f := range docs {
			fmt.Fprintf(&b, ".TP\n.B %s\n%s\n", roff(f.name), roff(f.usage))
		}
	}
	if cmd.Example != "" {
		b.WriteString(".SH EXAMPLES\n.nf\n")
		for line := range strings.Lines(strings.TrimRight(cmd.Example, "\n")) {
			b.WriteString(roff(strings.TrimRight(line, "\n")) + "\n")
		}
		b.WriteString(".fi\n")
	}
	b.WriteString(".SH EXIT STATUS\n")
	for _, c := range exitCodes {
		fmt.Fprintf(&b, ".TP\n.B %d\n%s\n", c.code, roff(c.means))
	}
	if len(also) > 0 {
		b.WriteString(".SH SEE ALSO\n")
		for i, a := range also {
			end := ","
			if i == len(also)-1 {
				end = ""
			}
			fmt.Fprintf(&b, ".BR %s (1)%s\n", roff(a), end)
		}
	}
	return b.Bytes()
}

// manConfig describes the keys of config.toml.
func manConfig() []byte {
	var b bytes.Buffer
	manHead(&b, "dunlin-config.toml", 5, "Settings of a dunlin node")
	b.WriteString(".SH DESCRIPTION\n")
	paragraphs(&b, `The file config.toml in the home of a node. What is set later wins: defaults, this file, environment variables, flags. A key that nobody knows is an error.

The defaults shown are those of the test network; dunlin config show prints what holds and where it came from.`)
	b.WriteString(".SH KEYS\n")
	n, err := config.Preset(config.DefaultNetwork)
	if err != nil {
		panic(err) // it is one of ours
	}
	for _, e := range config.Default(n).Entries() {
		kind := e.Type
		if e.Unit != "" {
			kind += ", " + e.Unit
		}
		fmt.Fprintf(&b, ".TP\n.B %s\n%s\n.br\n%s\n", roff(e.Key), roff(e.Doc), roff(fmt.Sprintf("Type: %s. Default: %s. Environment: %s. Flag: %s.", kind, e.Value, e.Env, e.Flag)))
	}
	b.WriteString(".SH SEE ALSO\n.BR dunlin\\-config (1)\n")
	return b.Bytes()
}

func manHead(w io.Writer, name string, section int, short string) {
	fmt.Fprintf(w, ".TH \"%s\" %d \"\" \"dunlin\" \"dunlin manual\"\n.SH NAME\n%s \\- %s\n", roff(strings.ToUpper(name)), section, roff(name), roff(short)) //nolint:gocritic // not Go's quotes
}

// paragraphs writes a text whose paragraphs are parted by empty lines and whose indented lines stand as they are.
func paragraphs(b *bytes.Buffer, text string) {
	literal := false
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\n")
		indented := strings.HasPrefix(line, "  ")
		switch {
		case indented && !literal:
			b.WriteString(".nf\n")
		case !indented && literal:
			b.WriteString(".fi\n")
		}
		literal = indented
		if line == "" {
			b.WriteString(".PP\n")
			continue
		}
		b.WriteString(roff(line) + "\n")
	}
	if literal {
		b.WriteString(".fi\n")
	}
}

// roff escapes what roff would take for its own.
func roff(s string) string {
	s = strings.NewReplacer(`\`, `\e`, "-", `\-`).Replace(strings.ReplaceAll(s, "\n", " "))
	if strings.HasPrefix(s, ".") || strings.HasPrefix(s, "'") {
		s = `\&` + s
	}
	return s
}
