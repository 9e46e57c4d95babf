//go:build slow

package main

import "os"

// slow says that the long suites were asked for.
const slow = true

// long says that runs of minutes were asked for (.ci/run does); without it they are shorter, not
// left out.
func long() bool { return os.Getenv("DUNLIN_LONG") != "" }
