package jsonrpc

// What the tests, which are outside the package, reach inside for.
var (
	Disassemble        = disassemble
	ScriptType         = scriptType
	DescriptorChecksum = descriptorChecksum
	Difficulty         = difficulty
)

// Amount is what amounts are in answers and arguments.
type Amount = amount
