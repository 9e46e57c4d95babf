package spend

import (
	"fmt"
	"math"
	"math/bits"

	"github.com/btcsuite/btcd/txscript/v2"
	"github.com/btcsuite/btcd/wire/v2"

	"dunlin/chain/consensus"
)

// A Rate is a fee rate in satoshi per 1000 virtual bytes.
type Rate int64

// Rates.
const (
	// DustRate decides what an output is worth at least (Bitcoin Core's
	// DUST_RELAY_TX_FEE, and the mempool's).
	DustRate Rate = 3000
	// DefaultLongTermRate is what spending an output is expected to cost some day
	// (Bitcoin Core's -consolidatefeerate).
	DefaultLongTermRate Rate = 10_000
	// DefaultMaxRate and DefaultMaxFee are above what anybody pays on purpose
	// (Bitcoin Core's -maxfeerate and -maxtxfee: 0.1 coin each).
	DefaultMaxRate Rate  = 10_000_000
	DefaultMaxFee  int64 = 10_000_000
	// rateLimit is the largest rate that calculations take: no coin can pay it.
	rateLimit Rate = 1e12
)

// String is the rate in satoshi per virtual byte, as people say it.
func (r Rate) String() string {
	return fmt.Sprintf("%d.%03d sat/vB", int64(r)/1000, int64(r)%1000)
}

// Fee is the least fee in satoshi that pays the rate for a weight: that of whole
// virtual bytes, rounded up, as the mempool asks it.
func (r Rate) Fee(weight int64) int64 { return mulDivUp(int64(r), virtualBytes(weight), 1000) }

// part is what a weight adds to the fee of a transaction, in satoshi, rounded up:
// the sum of parts is never below the fee of the sum.
func (r Rate) part(weight int64) int64 { return mulDivUp(int64(r), weight, 4000) }

// rateOf is the rate that a fee pays for a weight, rounded down.
func rateOf(fee, weight int64) Rate {
	size := virtualBytes(weight)
	if size <= 0 || fee <= 0 {
		return 0
	}
	hi, lo := bits.Mul64(uint64(fee), 1000)
	if hi >= uint64(size) {
		return math.MaxInt64
	}
	q, _ := bits.Div64(hi, lo, uint64(size))
	return Rate(min(q, math.MaxInt64))
}

// mulDivUp is a×b/c rounded up; neither is negative. It saturates.
func mulDivUp(a, b, c int64) int64 {
	hi, lo := bits.Mul64(uint64(a), uint64(b))
	lo, carry := bits.Add64(lo, uint64(c-1), 0)
	if hi += carry; hi >= uint64(c) {
		return math.MaxInt64
	}
	q, _ := bits.Div64(hi, lo, uint64(c))
	return int64(min(q, math.MaxInt64))
}

// virtualBytes is BIP141's virtual size.
func virtualBytes(weight int64) int64 { return (weight + 3) / 4 }

// Sizes, in bytes or weight units.
const (
	// MaxWeight is the largest transaction that is relayed
	// (MAX_STANDARD_TX_WEIGHT).
	MaxWeight = 400_000
	// maxSigOpCost is MAX_STANDARD_TX_SIGOPS_COST.
	maxSigOpCost = 16_000
	// sigOpWeight is what a signature operation weighs at least for fees
	// (DEFAULT_BYTES_PER_SIGOP).
	sigOpWeight  = 20
	witnessScale = 4
	// emptyInputWeight is that of an input that is not signed: outpoint, empty
	// script and sequence.
	emptyInputWeight = (36 + 1 + 4) * witnessScale
	markerWeight     = 2 // of BIP144's marker and flag
)

// DustLimit is the least value in satoshi that an output with this script may
// have: below it the mempool refuses it, as spending it costs too much. It is 0 of
// scripts that nobody can spend.
func DustLimit(script []byte) int64 {
	if txscript.IsUnspendable(script) {
		return 0
	}
	size := int64(8 + wire.VarIntSerializeSize(uint64(len(script))) + len(script))
	// What an input takes that spends it: a signature and a public key.
	const keyBytes = 107
	if txscript.IsWitnessProgram(script) {
		size += 41 + keyBytes/witnessScale
	} else {
		size += 41 + keyBytes
	}
	return DustRate.Fee(size * witnessScale)
}

// outputWeight is the weight of an output with this script.
func outputWeight(script []byte) int64 {
	return witnessScale * int64(8+wire.VarIntSerializeSize(uint64(len(script)))+len(script))
}

// outputSigOps is what an output adds to the cost of signature operations (BIP141),
// before it is spent.
func outputSigOps(script []byte) int { return witnessScale * txscript.GetSigOpCount(script) }

// feeWeight is the weight that fee rates go by.
func feeWeight(weight int64, sigOpCost int) int64 {
	return max(weight, sigOpWeight*int64(sigOpCost))
}

// weightOf is the weight of a transaction as it is.
func weightOf(tx *wire.MsgTx) int64 {
	return int64(tx.SerializeSizeStripped())*(witnessScale-1) + int64(tx.SerializeSize())
}

// FeeWeight is the weight of a signed transaction, which spends coins in the order
// of its inputs, that fee rates go by: more than its own if there are many
// signature operations.
func FeeWeight(tx *wire.MsgTx, coins []consensus.Coin) (int64, error) {
	cost, err := consensus.SigOpCost(tx, coins, uint32(txscript.StandardVerifyFlags))
	if err != nil {
		return 0, err
	}
	return feeWeight(weightOf(tx), cost), nil
}
