//go:build slow

package main

// slow says that the long suites were asked for.
const slow = true
