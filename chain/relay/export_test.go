package relay

import (
	"github.com/btcsuite/btcd/chainhash/v2"

	"dunlin/chain/consensus"
)

// The caps and limits.
const (
	MaxEncodings        = maxEncodings
	MaxHeadersPerHeight = maxHeadersPerHeight
	MaxHeights          = maxHeights
	MaxPrefilledBytes   = maxPrefilledBytes
)

// MaxCompactBytes bounds the payload of a compact block.
func MaxCompactBytes(p *consensus.Params) int { return maxCompactBytes(p) }

// ShortID returns the i-th short id.
func ShortID(c *CompactBlock, i int) uint64 { return c.shortID(i) }

// MakeAnyCompact is MakeCompact for blocks of any size.
func MakeAnyCompact(p *consensus.Params, raw []byte, nonce uint64, missing func(int, chainhash.Hash) bool) ([]byte, error) {
	return makeCompact(p, raw, nonce, missing)
}

// Limits of an Assembler.
const (
	MaxTxAsks    = maxTxAsks
	MaxBlockAsks = maxBlockAsks
	MaxAsks      = maxAsks
	MaxScans     = maxScans

	MaxAssemblerPeers = maxAssemblerPeers
)

// IsCoinbase says whether an encoded transaction is a coinbase.
func IsCoinbase(raw []byte) bool { return isCoinbase(raw) }

// Held returns how many heights, headers and senders are remembered.
func (b *Blocks) Held() (heights, headers, sources int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, s := range b.heights {
		headers += len(s.encodings)
		sources += len(s.sources)
	}
	return len(b.heights), headers, sources
}

// Stakes is how many claims are remembered.
func Stakes(b *Blocks) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.stakes)
}
