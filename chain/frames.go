package chain

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/btcsuite/btcd/blockchain"
	"github.com/btcsuite/btcd/chainhash/v2"

	"dunlin/chain/consensus"
)

// frameHead is how many bytes of a file in the bootstrap.dat form go before a block:
// magic and length.
const frameHead = 8

// A frame is a block of the file.
type frame struct {
	offset int64 // of the magic
	raw    []byte
}

// A frameReader finds the blocks in a file of the bootstrap.dat form. Between blocks
// it passes over zeros, and over whatever else is no block, as Bitcoin Core's
// -loadblock does. What it allocates is bounded by what it has read, whatever lengths
// the file claims.
type frameReader struct {
	p      *consensus.Params
	magic  []byte
	r      io.Reader
	buf    []byte // what was read; from at on, what was not used
	at     int
	err    error // of r, once
	offset int64 // in the file, of buf[at]

	blocks  int
	padding int64 // zero bytes passed over
	garbage int64 // other bytes passed over
	// firstGarbage is the offset of the first of them, -1 if there is none, and starts
	// what was there.
	firstGarbage int64
	starts       [4]byte
}

// minFrameBuffer is the size of the first buffer; it doubles up to the largest block.
const minFrameBuffer = 32 << 10

func newFrameReader(p *consensus.Params, r io.Reader) *frameReader {
	return &frameReader{
		p: p, r: r, firstGarbage: -1,
		magic: binary.LittleEndian.AppendUint32(nil, p.Magic),
		buf:   make([]byte, 0, minFrameBuffer),
	}
}

// next returns the next block, whose bytes are the caller's; io.EOF at the end, and
// ErrTruncated if that is within a block.
func (f *frameReader) next() (frame, error) {
	least, most := int64(consensus.HeaderBytes+f.p.SealBytes+1), int64(f.p.MaxBlockBytes())
	for expected := true; ; { // a block, or zeros before it
		window := f.peek(frameHead)
		switch zeros := len(window) - len(bytes.TrimLeft(window, "\x00")); {
		case len(window) == 0 && errors.Is(f.err, io.EOF):
			return frame{}, io.EOF
		case len(window) < frameHead && !errors.Is(f.err, io.EOF):
			return frame{}, f.fault()
		case zeros > 0:
			f.padding += int64(zeros)
			f.skip(zeros)
			continue
		case len(window) < frameHead:
			if expected && bytes.HasPrefix(f.magic, window[:min(len(f.magic), len(window))]) {
				return frame{}, f.truncated(nil, len(window), frameHead)
			}
			f.pass(len(window))
			continue
		case bytes.HasPrefix(window, f.magic):
			if size := int64(binary.LittleEndian.Uint32(window[4:])); size >= least && size <= most {
				b, ok, err := f.block(int(size), expected)
				if ok || err != nil {
					return b, err
				}
			}
		}
		expected = false
		n := bytes.Index(window[1:], f.magic) + 1
		if n == 0 {
			n = max(1, len(window)-len(f.magic)+1) // one may straddle the end
		}
		f.pass(n)
	}
}

// block reads the block of size bytes whose frame starts here. Where none is
// expected, for there is garbage before it, it must be one as far as can be seen.
func (f *frameReader) block(size int, expected bool) (b frame, ok bool, err error) {
	if !expected {
		head := frameHead + consensus.HeaderBytes + f.p.SealBytes
		if w := f.peek(head); len(w) < head || !f.plausible(w[frameHead:head]) {
			return b, false, nil
		}
	}
	w := f.peek(frameHead + size)
	switch {
	case len(w) < frameHead+size && !errors.Is(f.err, io.EOF):
		return b, false, f.fault()
	case len(w) < frameHead+size:
		return b, false, f.truncated(w[frameHead:], len(w), frameHead+size)
	}
	raw := w[frameHead : frameHead+size]
	if !expected && consensus.CheckEncoding(f.p, raw) != nil {
		return b, false, nil //nolint:nilerr // no block
	}
	b = frame{f.offset, bytes.Clone(raw)}
	f.skip(frameHead + size)
	f.blocks++
	return b, true, nil
}

// plausible says whether a header could be one: cheap, so that garbage full of magics
// costs little.
func (f *frameReader) plausible(raw []byte) bool {
	h, err := consensus.DecodeHeader(f.p, raw)
	if err != nil {
		return false
	}
	if f.p.SealBytes > 0 {
		return true
	}
	hash, target := consensus.HeaderHash(&h), blockchain.CompactToBig(h.Bits)
	return target.Cmp(f.p.PowLimit) <= 0 && blockchain.HashToBig(&hash).Cmp(target) <= 0
}

// fault is the error of the file itself.
func (f *frameReader) fault() error {
	return fmt.Errorf("reading at offset %d: %w", f.offset+int64(len(f.buf)-f.at), f.err)
}

// truncated describes a file that ends inside a block.
func (f *frameReader) truncated(raw []byte, got, want int) error {
	name := fmt.Sprintf("number %d of the file", f.blocks+1)
	if len(raw) >= consensus.HeaderBytes {
		name = chainhash.DoubleHashH(raw[:consensus.HeaderBytes]).String()
	}
	return fmt.Errorf("%w: offset %d, block %s, %d of %d bytes are there", ErrTruncated, f.offset, name, got, want)
}

// pass passes over n bytes that are no block.
func (f *frameReader) pass(n int) {
	if f.firstGarbage < 0 {
		f.firstGarbage = f.offset
		copy(f.starts[:], f.buf[f.at:])
	}
	f.garbage += int64(n)
	f.skip(n)
}

// skip goes n bytes on, which peek has returned.
func (f *frameReader) skip(n int) {
	f.at += n
	f.offset += int64(n)
}

// peek returns what comes next, at least n bytes unless f.err says why not. It is
// valid until the next peek.
func (f *frameReader) peek(n int) []byte {
	for len(f.buf)-f.at < n && f.err == nil {
		if len(f.buf) == cap(f.buf) {
			// Room for as much again as is there: a length alone makes nothing grow.
			rest := f.buf[f.at:]
			if to := f.buf[:0]; 4*len(rest) > 3*cap(f.buf) {
				f.buf = append(make([]byte, 0, 2*cap(f.buf)), rest...)
			} else {
				f.buf = append(to, rest...)
			}
			f.at = 0
		}
		var got int
		got, f.err = f.r.Read(f.buf[len(f.buf):cap(f.buf)])
		f.buf = f.buf[:len(f.buf)+got]
	}
	return f.buf[f.at:]
}
