package mining

// What tests of this package look at from outside.
var (
	Choose = choose
)

// What is set aside for the coinbase.
const (
	CoinbaseWeight = coinbaseWeight
	CoinbaseSigOps = coinbaseSigOps
	MaxPayToBytes  = maxPayToBytes
)
