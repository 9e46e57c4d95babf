package config

import (
	"bufio"
	"fmt"
	"io"
	"strings"
)

// WriteTemplate writes a config file with every key in a comment: meaning, type,
// limits, unit, default, environment variable and flag. Only the network that c
// names is set, so that a home stays on its network without a flag; all else
// follows the defaults of the version that reads it. c's other values are not used.
func WriteTemplate(w io.Writer, c *Config) error {
	b := bufio.NewWriter(w)
	// bufio keeps the first error and returns it from Flush.
	fmt.Fprintf(b, "# Settings of a dunlin node on %s.\n#\n", c.Chain.ChainID())
	fmt.Fprintf(b, "# Order, the later wins: defaults, this file, environment variables, flags.\n")
	fmt.Fprintf(b, "# Commented lines show the defaults. Unknown keys are errors.\n")
	fmt.Fprintf(b, "# `dunlin config show` prints what holds and where it came from.\n\n")
	section := ""
	for _, f := range Default(c.Chain).fields() {
		if name, _, ok := strings.Cut(f.key, "."); ok && name != section {
			section = name
			fmt.Fprintf(b, "[%s]\n\n", section)
		}
		writeField(b, f, (f.key == "network" && c.Chain.File == "") || (f.key == "network_file" && c.Chain.File != ""))
	}
	if err := b.Flush(); err != nil {
		return fmt.Errorf("config template: %w", err)
	}
	return nil
}

func writeField(w io.Writer, f field, set bool) {
	name := f.key[strings.LastIndexByte(f.key, '.')+1:]
	fmt.Fprintf(w, "# %s\n", f.doc)
	fmt.Fprintf(w, "# type: %s; %s\n", f.typeName(), f.want)
	if f.unit != "" {
		fmt.Fprintf(w, "# unit: %s\n", f.unit)
	}
	fmt.Fprintf(w, "# default: %s\n", f.format())
	fmt.Fprintf(w, "# environment: %s; flag: --%s\n", f.env(), f.flagName())
	comment := "# "
	if set {
		comment = ""
	}
	fmt.Fprintf(w, "%s%s = %s\n\n", comment, name, f.format())
}
