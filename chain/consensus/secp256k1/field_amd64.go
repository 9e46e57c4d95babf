package secp256k1

import "golang.org/x/sys/cpu"

// hasADX says whether the processor has the instructions of field_amd64.s (Intel's since
// 2014, AMD's since 2017). Tests change it.
var hasADX = cpu.X86.HasADX && cpu.X86.HasBMI2

// mulField sets z to x·y.
//
//go:noescape
func mulField(z, x, y *field)

// squareField sets z to x·x.
//
//go:noescape
func squareField(z, x *field)
