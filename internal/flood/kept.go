package flood

import (
	"fmt"
	"slices"
	"sync"

	"github.com/btcsuite/btcd/chainhash/v2"

	"dunlin/chain/consensus"
)

// maxKept is how many completed blocks are kept in memory. The chain takes
// tens to hundreds of milliseconds for one, and a fork brings two at a time.
const maxKept = 4

// kept are the last completed blocks, for neighbours who ask for parts of them
// before they are on disk.
type kept struct {
	params *consensus.Params

	mu     sync.Mutex // guards what follows, held for copying slices
	blocks []keptBlock
}

type keptBlock struct {
	hash chainhash.Hash
	raw  []byte
	at   []uint32 // where its transactions begin, and where the last ends
}

// put keeps a block whose encoding is known to be good; the oldest makes room.
func (k *kept) put(hash chainhash.Hash, raw []byte) {
	if k.has(hash) {
		return
	}
	at, err := consensus.TxOffsets(k.params, raw)
	if err != nil {
		return // cannot happen: it was decoded
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.find(hash) >= 0 {
		return
	}
	if len(k.blocks) >= maxKept {
		k.blocks = slices.Delete(k.blocks, 0, 1)
	}
	k.blocks = append(k.blocks, keptBlock{hash, raw, at})
}

// drop forgets a block.
func (k *kept) drop(hash chainhash.Hash) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if i := k.find(hash); i >= 0 {
		k.blocks = slices.Delete(k.blocks, i, i+1)
	}
}

// find is the place of a block, or -1. The caller holds mu.
func (k *kept) find(hash chainhash.Hash) int {
	return slices.IndexFunc(k.blocks, func(b keptBlock) bool { return b.hash == hash })
}

func (k *kept) has(hash chainhash.Hash) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.find(hash) >= 0
}

// block returns a block's bytes; nil: it is not kept.
func (k *kept) block(hash chainhash.Hash) []byte {
	k.mu.Lock()
	defer k.mu.Unlock()
	if i := k.find(hash); i >= 0 {
		return k.blocks[i].raw
	}
	return nil
}

// txs returns transactions of a block at indexes; known is false if it is not kept.
func (k *kept) txs(hash chainhash.Hash, indexes []uint32) (txs [][]byte, known bool, err error) {
	k.mu.Lock()
	i := k.find(hash)
	if i < 0 {
		k.mu.Unlock()
		return nil, false, nil
	}
	b := k.blocks[i]
	k.mu.Unlock()
	txs = make([][]byte, len(indexes))
	for i, n := range indexes {
		if int64(n) >= int64(len(b.at)-1) {
			return nil, true, fmt.Errorf("index %d in a block of %d transactions", n, len(b.at)-1)
		}
		from, to := b.at[n], b.at[n+1]
		txs[i] = b.raw[from:to:to]
	}
	return txs, true, nil
}
