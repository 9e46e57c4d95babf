package chain

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"dunlin/chain/consensus"
)

// An undo record holds the coins that a block spent, in the order of its
// inputs: a uvarint count, then for each coin uvarint(height·2 + coinbase),
// uvarint(value), uvarint(script length), script. Which input spent which coin
// follows from the block; the store adds a checksum.

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

// decodeUndo decodes an undo record that must hold exactly want coins. The
// scripts share raw.
func decodeUndo(raw []byte, want int) ([]consensus.Coin, error) {
	next := func(limit uint64, what string) (uint64, error) {
		v, n := binary.Uvarint(raw)
		if n <= 0 {
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
	if int(count) != want {
		return nil, fmt.Errorf("%w: it holds %d coins, its block spends %d", errUndo, count, want)
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
