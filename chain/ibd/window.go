package ibd

import "math/bits"

// bitmap is a ring of bits indexed by height. The caller sees to it that no two
// heights in use are further apart than its size.
type bitmap struct {
	words []uint64
	mask  uint32 // number of bits - 1
}

// newBitmap returns a bitmap of n bits; n is a power of two and at least 64.
func newBitmap(n int) bitmap {
	return bitmap{words: make([]uint64, n/64), mask: uint32(n - 1)}
}

func (b *bitmap) set(h int32) {
	i := uint32(h) & b.mask
	b.words[i>>6] |= 1 << (i & 63)
}

func (b *bitmap) clear(h int32) {
	i := uint32(h) & b.mask
	b.words[i>>6] &^= 1 << (i & 63)
}

func (b *bitmap) has(h int32) bool {
	i := uint32(h) & b.mask
	return b.words[i>>6]&(1<<(i&63)) != 0
}

// next returns the lowest height in [from, to] whose bit is set, or to+1.
func (b *bitmap) next(from, to int32) int32 { return b.scan(from, to, 0) }

// nextClear returns the lowest height in [from, to] whose bit is clear, or to+1.
func (b *bitmap) nextClear(from, to int32) int32 { return b.scan(from, to, ^uint64(0)) }

func (b *bitmap) scan(from, to int32, invert uint64) int32 {
	for from <= to {
		i := uint32(from) & b.mask
		w := (b.words[i>>6] ^ invert) >> (i & 63)
		if w != 0 {
			return min(from+int32(bits.TrailingZeros64(w)), to+1)
		}
		step := int32(64 - i&63)
		if to-from < step {
			break
		}
		from += step
	}
	return to + 1
}

// nth returns the height in [from, to] whose bit is set and that has n set bits
// before it in the range, or to+1.
func (b *bitmap) nth(from, to int32, n int) int32 {
	for from <= to {
		i := uint32(from) & b.mask
		w := b.words[i>>6] >> (i & 63)
		c := bits.OnesCount64(w)
		if n < c {
			for range n {
				w &= w - 1
			}
			return min(from+int32(bits.TrailingZeros64(w)), to+1)
		}
		n -= c
		step := int32(64 - i&63)
		if to-from < step {
			break
		}
		from += step
	}
	return to + 1
}

// span is a range of heights, both ends included.
type span struct{ from, to int32 }

// spans is an ascending list of spans that neither overlap nor touch.
type spans []span

// find returns the index of the first span that ends at h or later.
func (s spans) find(h int32) int {
	lo, hi := 0, len(s)
	for lo < hi {
		if m := (lo + hi) / 2; s[m].to < h {
			lo = m + 1
		} else {
			hi = m
		}
	}
	return lo
}

// around returns the span that holds h.
func (s spans) around(h int32) (span, bool) {
	if i := s.find(h); i < len(s) && s[i].from <= h {
		return s[i], true
	}
	return span{}, false
}

// add returns s with [from, to] in it.
func (s spans) add(from, to int32) spans {
	if from > to {
		return s
	}
	i := s.find(from - 1) // the first that overlaps or touches
	j := i
	for j < len(s) && s[j].from <= to+1 {
		from, to = min(from, s[j].from), max(to, s[j].to)
		j++
	}
	if i < j {
		s[i] = span{from, to}
		return append(s[:i+1], s[j:]...)
	}
	s = append(s, span{})
	copy(s[i+1:], s[i:])
	s[i] = span{from, to}
	return s
}

// clip returns s without the heights outside [from, to].
func (s spans) clip(from, to int32) spans {
	out := s[:0]
	for _, x := range s {
		x.from, x.to = max(x.from, from), min(x.to, to)
		if x.from <= x.to {
			out = append(out, x)
		}
	}
	return out
}

// remove returns s without h.
func (s spans) remove(h int32) spans {
	x, ok := s.around(h)
	if !ok {
		return s
	}
	i := s.find(h)
	switch {
	case x.from == x.to:
		return append(s[:i], s[i+1:]...)
	case x.from == h:
		s[i].from++
	case x.to == h:
		s[i].to--
	default:
		s[i].to = h - 1
		s = append(s, span{})
		copy(s[i+2:], s[i+1:])
		s[i+1] = span{h + 1, x.to}
	}
	return s
}

// blockState says where the block of a height is.
type blockState uint8

const (
	wanted    blockState = iota // nobody sent it yet: missing, or owed by a request
	buffered                    // the driver holds it
	delivered                   // the chain has it and has not answered
	onDisk                      // the chain has it on disk
	refused                     // the chain refused it for good
)

// slot is what is known of one height of the window.
type slot struct {
	state    blockState
	owners   uint8  // live requests that will bring it
	attempts uint16 // requests made for it
	id       RequestID
	from     *peer // who sent it; of buffered and delivered blocks
	size     int64 // bytes; of buffered and delivered blocks
	need     int64 // bytes, by the word of claimant: ask for it alone with this much; 0 unknown
	tooBig   int64 // bytes that claimant said are too few
	claimant *peer
	unsaid   bool // claimant did not say how many it takes
}
