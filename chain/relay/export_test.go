package relay

import "dunlin/chain/consensus"

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
