package spend

// An Info is what a PSBT says of an output, spent or made, besides its value and
// script.
type Info struct{}
