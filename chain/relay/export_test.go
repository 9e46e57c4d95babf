package relay

// The caps.
const (
	MaxEncodings        = maxEncodings
	MaxHeadersPerHeight = maxHeadersPerHeight
	MaxHeights          = maxHeights
)

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
