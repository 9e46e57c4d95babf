//go:build !race

package main

// slowness is how much longer, and with how much more memory, a daemon of this
// test binary works than the product.
const slowness = 1
