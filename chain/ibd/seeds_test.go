//go:build !slow

package ibd

// seeds is how many random runs the tests make; 10,000 with -tags slow.
const seeds = 1000
