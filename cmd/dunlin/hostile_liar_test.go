package main

import (
	"bufio"
	"context"
	"io"
	"math/big"
	"sync"
	"testing"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/libp2p/go-libp2p/core/network"

	"dunlin/chain/consensus"
)

// A branch is a chain as a peer serves it: raws[h-1] is the block at height h.
type branch struct {
	params  *consensus.Params
	raws    [][]byte
	hashes  []chainhash.Hash
	heights map[chainhash.Hash]int
	work    []byte
}

func newBranch(p *consensus.Params, raws [][]byte) *branch {
	b := &branch{params: p, raws: raws, heights: map[chainhash.Hash]int{p.GenesisHash: 0}}
	for i, raw := range raws {
		hash := chainhash.DoubleHashH(raw[:consensus.HeaderBytes])
		b.hashes = append(b.hashes, hash)
		b.heights[hash] = i + 1
	}
	each := int64(2) // regtest: 2²⁵⁶ over a target of half of it
	if p.Name == "bitcoin" {
		each = 0x100010001
	}
	b.work = new(big.Int).Mul(big.NewInt(each), big.NewInt(int64(len(raws)+1))).Bytes()
	return b
}

func branchOf(p *consensus.Params, blocks []*consensus.Block) *branch {
	raws := make([][]byte, len(blocks))
	for i, b := range blocks {
		raws[i] = b.Raw
	}
	return newBranch(p, raws)
}

func (b *branch) tip() wireTip {
	return wireTip{height: uint64(len(b.raws)), hash: b.hashes[len(b.hashes)-1], work: b.work}
}

// A liar is an attacker that daemons dial as a peer. What is nil is honest.
type liar struct {
	*attacker
	branch *branch
	claim  func() wireTip
	// headers answers a request whose locator ends the common part at height from.
	headers func(s network.Stream, from int) error
	// block replaces the block at a height on its way out; nil ends the reply with not found.
	block func(height int) []byte
	// reply answers a request for blocks.
	reply func(s network.Stream, r wireFields) error
	// delay is the round trip that it pretends: pongs and replies wait for it.
	delay time.Duration
	rate  int // bytes a second of blocks that its link carries; 0: all
	asked *asked
}

// serve begins to answer.
func (l *liar) serve() *liar {
	l.h.SetStreamHandler(l.id("hello/1"), l.onHello)
	l.h.SetStreamHandler(l.id("headers/1"), l.onHeaders)
	l.h.SetStreamHandler(l.id("blocks/1"), l.onBlocks)
	return l
}

func (l *liar) tip() wireTip {
	if l.claim != nil {
		return l.claim()
	}
	return l.branch.tip()
}

func (l *liar) onHello(s network.Stream) {
	defer func() { _ = s.Reset() }()
	in := bufio.NewReader(s)
	if _, err := readMsg(in); err != nil {
		return
	}
	l.pause()
	if _, err := s.Write(helloMsg(l.params, l.tip(), "liar")); err != nil {
		return
	}
	for {
		b, err := readMsg(in)
		if err != nil {
			return
		}
		f, err := parseMsg(b)
		if err != nil {
			return
		}
		if ping := f.n[4]; ping != 0 {
			l.pause()
			if _, err := s.Write(delimited(fixed(nil, 5, ping))); err != nil {
				return
			}
		}
	}
}

func (l *liar) pause() { wait(l.t.Context(), l.delay) }

// wait passes time that a peer pretends to need.
func wait(ctx context.Context, d time.Duration) {
	if d <= 0 {
		return
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

func (l *liar) onHeaders(s network.Stream) {
	defer func() { _ = s.Reset() }()
	in := bufio.NewReader(s)
	for {
		b, err := readMsg(in)
		if err != nil {
			return
		}
		f, err := parseMsg(b)
		if err != nil {
			return
		}
		from := 0
		for _, h := range f.b[2] {
			if at, ok := l.branch.heights[chainhash.Hash(h)]; ok {
				from = at
				break
			}
		}
		l.pause()
		if l.headers != nil {
			err = l.headers(s, from)
		} else {
			err = l.sendHeaders(s, from, l.branch.raws[from:])
		}
		if err != nil {
			return
		}
	}
}

// sendHeaders answers with the headers of blocks, of which the first follows height from.
func (l *liar) sendHeaders(s io.Writer, from int, blocks [][]byte) error {
	blocks = blocks[:min(len(blocks), 2000)]
	raw := make([]byte, 0, len(blocks)*consensus.HeaderBytes)
	for _, b := range blocks {
		raw = append(raw, b[:consensus.HeaderBytes]...)
	}
	m := number(nil, 1, uint64(from+1))
	m = number(m, 2, uint64(len(blocks)))
	m = number(m, 3, uint64(len(raw)))
	_, err := s.Write(append(delimited(field(m, 4, l.tip().bytes())), raw...))
	return err
}

// onBlocks reads requests as they come and answers them in order, each no sooner
// than a round trip after it came.
func (l *liar) onBlocks(s network.Stream) {
	defer func() { _ = s.Reset() }()
	type request struct {
		wireFields
		at time.Time
	}
	queue := make(chan request, 1024)
	book := l.asked.open()
	defer book.close()
	var withdrawn sync.Map
	var reader sync.WaitGroup
	reader.Go(func() {
		defer close(queue)
		in := bufio.NewReader(s)
		for {
			b, err := readMsg(in)
			if err != nil {
				return
			}
			f, err := parseMsg(b)
			if err != nil {
				return
			}
			if f.n[7] != 0 {
				withdrawn.Store(f.n[1], true)
				continue
			}
			book.request(f.n[1], f.n[5])
			queue <- request{f, time.Now()}
		}
	})
	for r := range queue {
		wait(l.t.Context(), time.Until(r.at.Add(l.delay)))
		var err error
		if _, gone := withdrawn.Load(r.n[1]); gone {
			book.ended(r.n[1])
			_, err = s.Write(endMsg(r.n[1], 4))
		} else if l.reply != nil {
			err = l.reply(s, r.wireFields)
		} else {
			err = l.sendBlocks(s, r.wireFields, book)
		}
		if err != nil {
			break
		}
	}
	_ = s.Reset()
	for range queue { // until the reader has ended
	}
	reader.Wait()
}

// sendBlocks answers as an honest peer does, but for l.block.
func (l *liar) sendBlocks(s io.Writer, r wireFields, book *askedBook) error {
	id, room := r.n[1], r.n[5]
	var heights []int
	for _, h := range r.b[6] {
		if at, ok := l.branch.heights[chainhash.Hash(h)]; ok {
			heights = append(heights, at)
		}
	}
	for i := range int(r.n[3]) {
		heights = append(heights, int(r.n[2])+i)
	}
	status := uint64(0)
	if len(r.b[4]) > 0 {
		if at, ok := l.branch.heights[chainhash.Hash(r.b[4][0])]; !ok || at != int(r.n[2]+r.n[3])-1 {
			heights, status = nil, 1
		}
	}
	ready := time.Now()
	for i, h := range heights {
		if h < 1 || h > len(l.branch.raws) {
			status = 1
			break
		}
		raw := l.branch.raws[h-1]
		if l.block != nil {
			raw = l.block(h)
		}
		if raw == nil {
			status = 1
			break
		}
		n := uint64(len(raw))
		if n > room {
			if i == 0 {
				book.ended(id)
				_, err := s.Write(delimited(number(number(number(number(nil, 1, id), 3, 1), 4, 3), 5, n)))
				return err
			}
			break
		}
		room -= n
		book.sent(id, n)
		if l.rate > 0 {
			ready = ready.Add(time.Duration(n) * time.Second / time.Duration(l.rate))
			if ahead := time.Until(ready); ahead > 5*time.Millisecond {
				wait(l.t.Context(), ahead)
			}
		}
		if _, err := s.Write(append(frameMsg(id, n), raw...)); err != nil {
			return err
		}
	}
	book.ended(id)
	_, err := s.Write(endMsg(id, status))
	return err
}

// asked counts what is asked of peers: outstanding requests, and promised bytes
// that have not been sent. nil counts nothing.
type asked struct {
	all *tally // of all peers
	own tally
}

// A tally is a count with its maxima.
type tally struct {
	mu                   sync.Mutex
	requests, bytes      int64
	maxRequests, maxByte int64
}

func (t *tally) add(requests, bytes int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.requests += requests
	t.bytes += bytes
	t.maxRequests, t.maxByte = max(t.maxRequests, t.requests), max(t.maxByte, t.bytes)
}

// askedBook is the part of one stream.
type askedBook struct {
	a    *asked
	mu   sync.Mutex
	open map[uint64]uint64 // request → bytes left
}

func (a *asked) open() *askedBook {
	if a == nil {
		return nil
	}
	return &askedBook{a: a, open: map[uint64]uint64{}}
}

func (b *askedBook) add(requests, bytes int64) {
	b.a.own.add(requests, bytes)
	b.a.all.add(requests, bytes)
}

func (b *askedBook) request(id, bytes uint64) {
	if b == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.open[id] = bytes
	b.add(1, int64(bytes))
}

// sent is called before the bytes are on their way: the asker may count on them
// as soon as they arrive.
func (b *askedBook) sent(id, bytes uint64) {
	if b == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.open[id] -= bytes
	b.add(0, -int64(bytes))
}

func (b *askedBook) ended(id uint64) {
	if b == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.add(-1, -int64(b.open[id]))
	delete(b.open, id)
}

func (b *askedBook) close() {
	if b == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for id, left := range b.open {
		b.add(-1, -int64(left))
		delete(b.open, id)
	}
}

func newLiar(t *testing.T, b *branch) *liar {
	t.Helper()
	return &liar{attacker: newAttacker(t, b.params), branch: b}
}
