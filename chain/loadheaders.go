package chain

import (
	"errors"
	"fmt"
	"sync"

	"github.com/btcsuite/btcd/chainhash/v2"

	"dunlin/chain/consensus"
	"dunlin/chain/store"
)

// loadSpan is how many heights one goroutine reads at a time while the tree is
// loaded: with two spans a goroutine on their way, a few megabytes.
const loadSpan = 4096

// A loadedHeader is what a stored node says of itself.
type loadedHeader struct {
	hash   chainhash.Hash
	header consensus.Header
	work   work128 // its own
	store.HeaderRecord
}

// A loadedSpan is the stored nodes of some heights, in ascending height.
type loadedSpan struct {
	list []loadedHeader
	err  error
}

// loadHeaders fills the tree from the store. Reading and decoding go on in
// parallel, a span of heights each; the nodes are linked here, in order. That a
// record is what was written is the index's to check, by the checksum of each of
// its blocks; that the headers hang together is checked here. The caller holds
// tree.mu.
func (c *Chain) loadHeaders() error {
	top, ok, err := c.store.HighestHeader()
	if err != nil {
		return err
	}
	if !ok {
		return errors.New("the header tree is empty")
	}
	spans := (int(top) + loadSpan) / loadSpan
	type job struct {
		from int32
		to   chan loadedSpan
	}
	var (
		workers = min(c.o.Workers, spans)
		jobs    = make(chan job)
		order   = make(chan chan loadedSpan, 2*workers)
		used    = make(chan []loadedHeader, 4*workers) // to be used again
		stop    = make(chan struct{})
		running sync.WaitGroup
	)
	defer running.Wait()
	defer close(stop)
	running.Go(func() {
		defer close(order)
		defer close(jobs)
		for k := range spans {
			j := job{int32(k) * loadSpan, make(chan loadedSpan, 1)}
			select {
			case order <- j.to:
			case <-stop:
				return
			}
			select {
			case jobs <- j:
			case <-stop:
				return
			}
		}
	})
	for range workers {
		running.Go(func() {
			for j := range jobs {
				var list []loadedHeader
				select {
				case list = <-used:
				default:
				}
				j.to <- c.readHeaders(list[:0], j.from)
			}
		})
	}
	var l levels
	for next := range order {
		span := <-next
		if span.err != nil {
			return span.err
		}
		for k := range span.list {
			if err := c.loadHeader(&l, &span.list[k]); err != nil {
				return err
			}
		}
		select {
		case used <- span.list:
		default:
		}
	}
	t := c.tree
	t.index.resize(t.n)
	for i := range t.n {
		t.index.put(&t.node(i).hash, i)
	}
	return nil
}

// readHeaders reads and decodes a span of heights.
func (c *Chain) readHeaders(list []loadedHeader, from int32) loadedSpan {
	err := c.store.HeaderRange(from, loadSpan, func(hash chainhash.Hash, r store.HeaderRecord) error {
		h, err := consensus.DecodeHeader(c.o.Params, r.Raw)
		if err != nil {
			return fmt.Errorf("stored header %v: %w", hash, err)
		}
		r.Raw = nil // it is lent
		list = append(list, loadedHeader{hash, h, workOf(c.o.Engine.Work(&h)), r})
		return nil
	})
	return loadedSpan{list, err}
}

// levels finds parents while nodes are loaded, when the index is not there yet:
// they are one level below, which most of the time has one node.
type levels struct {
	height      int32
	above, here uint32 // first nodes at height-1 and at height
	byHash      map[chainhash.Hash]uint32
}

// manyTwins is from how many nodes of one height on a map is worth its making.
const manyTwins = 8

// enter notes that the next node, n, is at height.
func (l *levels) enter(height int32, n uint32) {
	if height == l.height {
		return
	}
	l.height, l.above, l.here = height, l.here, n
	l.byHash = nil
}

// parent returns the node one level below that has this hash.
func (l *levels) parent(t *tree, hash *chainhash.Hash) (uint32, bool) {
	if l.here-l.above <= manyTwins {
		for i := l.above; i < l.here; i++ {
			if t.node(i).hash == *hash {
				return i, true
			}
		}
		return noNode, false
	}
	if l.byHash == nil {
		l.byHash = make(map[chainhash.Hash]uint32, l.here-l.above)
		for i := l.above; i < l.here; i++ {
			l.byHash[t.node(i).hash] = i
		}
	}
	i, ok := l.byHash[*hash]
	return i, ok
}

// loadHeader adds a stored node. They come in ascending height.
func (c *Chain) loadHeader(l *levels, r *loadedHeader) error {
	t := c.tree
	parent := noNode
	switch {
	case t.n == 0 && (r.hash != c.o.Params.GenesisHash || r.Height != 0):
		return fmt.Errorf("the first stored header is %v at height %d, not genesis %v", r.hash, r.Height, c.o.Params.GenesisHash)
	case t.n > 0:
		gap := r.Height > l.height+1
		l.enter(r.Height, t.n)
		p, ok := l.parent(t, &r.header.PrevBlock)
		if !ok || gap {
			return fmt.Errorf("stored header %v at height %d: its parent is not", r.hash, r.Height)
		}
		parent = p
	}
	i := t.load(r, parent)
	t.prune(i, c.keptBlocks, c.keptUndo)
	if t.body(i).block.Size == 0 && !t.has(i, flagPruned) {
		return nil
	}
	if parent != noNode && !t.has(parent, flagLinked) {
		t.pending[parent] = append(t.pending[parent], i)
	} else {
		*t.flags(i) |= flagLinked
	}
	return nil
}
