package chain

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/btcsuite/btcd/wire/v2"

	"dunlin/chain/consensus"
)

// An undo record holds the coins that a block spent, in the order of its
// inputs: a uvarint count, then for each coin uvarint(height·2 + coinbase),
// uvarint(value), uvarint(script length), script. Which input spent which coin
// follows from the block; the store adds a checksum.
//
// The coinbase of a block that may repeat an older one's id (mainnet's two) takes
// the place of the older coins. If any of them was unspent, the record starts with
// one coin for each spendable output of the coinbase: what was there, or, where
// nothing was, 0, 0 and no script. In memory those are the coins that the coinbase
// spent.

// minUndoCoin is the least number of bytes that a coin takes in an undo record.
const minUndoCoin = 3

// maxCoinValue bounds what a decoded coin may claim: 21 million coins of 10^8.
// Networks with other subsidies stay below it, for consensus caps every output there.
const maxCoinValue = 21_000_000 * 100_000_000

// errUndo is wrapped by every fault that decodeUndo finds: our own trouble.
var errUndo = errors.New("undo record is damaged")

// appendUndo appends the undo record of a block to dst.
func appendUndo(dst []byte, txs []consensus.SpentTx) []byte {
	n := 0
	for i := range txs {
		n += len(txs[i].Coins)
	}
	dst = binary.AppendUvarint(dst, uint64(n))
	for i := range txs {
		for j := range txs[i].Coins {
			c := &txs[i].Coins[j]
			code := uint64(c.Height) << 1
			if c.Coinbase {
				code |= 1
			}
			dst = binary.AppendUvarint(dst, code)
			dst = binary.AppendUvarint(dst, uint64(c.Value))
			dst = binary.AppendUvarint(dst, uint64(len(c.Script)))
			dst = append(dst, c.Script...)
		}
	}
	return dst
}

// decodeUndo decodes an undo record that must hold as many coins as one of want
// says. The scripts share raw.
func decodeUndo(raw []byte, want ...int) ([]consensus.Coin, error) {
	next := func(limit uint64, what string) (uint64, error) {
		v, n := binary.Uvarint(raw)
		if n <= 0 || n > 1 && raw[n-1] == 0 { // one value has one encoding
			return 0, fmt.Errorf("%w: %s is cut off or overlong", errUndo, what)
		}
		if v > limit {
			return 0, fmt.Errorf("%w: %s is %d, the most is %d", errUndo, what, v, limit)
		}
		raw = raw[n:]
		return v, nil
	}
	count, err := next(uint64(len(raw)/minUndoCoin)+1, "coin count")
	if err != nil {
		return nil, err
	}
	if !slices.Contains(want, int(count)) {
		return nil, fmt.Errorf("%w: it holds %d coins, its block spends %d", errUndo, count, want[0])
	}
	coins := make([]consensus.Coin, count)
	for i := range coins {
		code, err := next(math.MaxInt32<<1|1, "height")
		if err != nil {
			return nil, err
		}
		value, err := next(maxCoinValue, "value")
		if err != nil {
			return nil, err
		}
		size, err := next(uint64(len(raw)), "script length")
		if err != nil {
			return nil, err
		}
		if size > uint64(len(raw)) { // the length's own bytes are gone from raw by now
			return nil, fmt.Errorf("%w: script of %d bytes, %d left", errUndo, size, len(raw))
		}
		coins[i] = consensus.Coin{
			Value:    int64(value),
			Script:   raw[:size:size],
			Height:   int32(code >> 1),
			Coinbase: code&1 == 1,
		}
		raw = raw[size:]
	}
	if len(raw) != 0 {
		return nil, fmt.Errorf("%w: %d bytes follow the last coin", errUndo, len(raw))
	}
	return coins, nil
}

// nothing says whether c stands in an undo record for an output that was no coin.
// Genesis' coinbase never is one, so no coin has height 0 and is worth nothing.
func nothing(c *consensus.Coin) bool { return c.Height == 0 && c.Value == 0 && len(c.Script) == 0 }

// spendables counts the outputs of tx that become coins.
func spendables(tx *wire.MsgTx) (n int) {
	for _, out := range tx.TxOut {
		if spendable(out.PkScript) {
			n++
		}
	}
	return n
}

// undoCounts returns the numbers of coins that the undo record of a block with as
// many inputs may hold.
func undoCounts(p *consensus.Params, b *consensus.Block, height int32, inputs int) []int {
	if !consensus.RepeatsCoinbase(p, height, b.Hash) {
		return []int{inputs}
	}
	return []int{inputs, inputs + spendables(b.Txs[0].MsgTx())}
}
