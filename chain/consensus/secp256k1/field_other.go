//go:build !amd64

package secp256k1

// mulField sets z to x·y.
func mulField(z, x, y *field) { mulFieldGeneric(z, x, y) }

// squareField sets z to x·x.
func squareField(z, x *field) { squareFieldGeneric(z, x) }
