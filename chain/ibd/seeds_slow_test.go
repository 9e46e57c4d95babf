//go:build slow

package ibd

// seeds is how many random runs the tests make.
const seeds = 10_000
