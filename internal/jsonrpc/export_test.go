package jsonrpc

import (
	"dunlin/chain/consensus"
	"dunlin/internal/address"
)

// What the tests, which are outside the package, reach inside for.
var (
	Disassemble        = disassemble
	ScriptType         = address.Kind
	DescriptorChecksum = descriptorChecksum
	Difficulty         = consensus.Difficulty
)

// Amount is what amounts are in answers and arguments.
type Amount = amount
