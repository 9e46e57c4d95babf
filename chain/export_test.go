package chain

import (
	"errors"
	"io"
	"time"
	"unsafe"

	"github.com/btcsuite/btcd/chainhash/v2"

	"dunlin/chain/consensus"
	"dunlin/chain/store"
)

// AppendUndo and DecodeUndo let the external tests at the codec.
func AppendUndo(dst []byte, txs []consensus.SpentTx) []byte { return appendUndo(dst, txs) }

func DecodeUndo(raw []byte, want ...int) ([]consensus.Coin, error) { return decodeUndo(raw, want...) }

// Limiter lets the external tests at the limiter of log lines.
type Limiter struct{ l limiter }

func (l *Limiter) Allow(now time.Time) (int, bool) { return l.l.allow(now) }

// CollideAll makes every hash of the tree of c fall on one key. The chain must
// have nothing but genesis.
func CollideAll(c *Chain) {
	t := c.tree
	t.mu.Lock()
	defer t.mu.Unlock()
	t.index.oneKey = true
	t.index.resize(t.n)
	t.index.put(&t.node(0).hash, 0)
}

// Sizes of what the tree keeps of a header, in bytes.
const (
	NodeBytes = unsafe.Sizeof(node{})
	BodyBytes = unsafe.Sizeof(body{})
)

// LimitHeaders sets how many headers the tree takes beside the validated chain,
// and how many more near its tip.
func LimitHeaders(c *Chain, side, ahead, near int) {
	c.tree.mu.Lock()
	defer c.tree.mu.Unlock()
	c.tree.maxSide, c.tree.maxAhead, c.tree.maxNear = side, ahead, near
}

// Seals returns how many seals are in memory.
func Seals(c *Chain) int {
	c.tree.mu.RLock()
	defer c.tree.mu.RUnlock()
	return len(c.tree.seals)
}

// ReadFrames reads every block of a file and says how far it came and what it passed
// over.
func ReadFrames(p *consensus.Params, r io.Reader) (blocks [][]byte, offset, padding, garbage int64, err error) {
	f := newFrameReader(p, r)
	for {
		b, err := f.next()
		if errors.Is(err, io.EOF) {
			err = nil
		} else if err == nil {
			blocks = append(blocks, b.raw)
			continue
		}
		return blocks, f.offset, f.padding, f.garbage, err
	}
}

// Queued returns how many blocks the conductor has not taken yet.
func Queued(c *Chain) int { return len(c.queue.order) }

// Steps returns how many steps lie between the published tip and the coins, in memory.
func Steps(c *Chain) int {
	c.coins.mu.RLock()
	defer c.coins.mu.RUnlock()
	return len(c.coins.steps)
}

// Balance is what the conductor does after it applied a block: it judges whether
// the coins may be worth change satoshi more than before.
func Balance(c *Chain, b *consensus.Block, height int32, spent []consensus.SpentTx, change int64) error {
	s := &step{block: b, height: height, spent: spent, worth: c.coins.worth - change}
	return (&conductor{Chain: c}).balance(s)
}

// Unproven returns how many headers without a validated block the tree holds, how many it
// may, and how many numbers it has given out.
func Unproven(c *Chain) (waiting, most, numbers int) {
	t := c.tree
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.waiting, t.mostUnproven(), int(t.n)
}

// HeaderRecords returns how many headers the index has.
func HeaderRecords(c *Chain) (n int, err error) {
	err = c.store.Headers(func(chainhash.Hash, store.HeaderRecord) error {
		n++
		return nil
	})
	return n, err
}

// StoreAllHeaders lets the next commit write every header, as it was before headers could
// be forgotten.
func StoreAllHeaders(c *Chain) {
	t := c.tree
	t.mu.Lock()
	defer t.mu.Unlock()
	for i := range t.n {
		if !t.gone(i) && !t.has(i, flagDirty) {
			*t.flags(i) |= flagDirty
			t.dirty = append(t.dirty, i)
		}
	}
}
