package chain_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/big"
	"math/rand/v2"
	"reflect"
	"runtime"
	"runtime/metrics"
	"slices"
	"testing"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"dunlin/chain"
	"dunlin/chain/consensus"
	"dunlin/chain/consensus/enginetest"
	"dunlin/chain/consensus/pow"
	"dunlin/chain/store"
)

// A headerMine makes consecutive headers of regtest: two hashes each.
type headerMine struct {
	p    *consensus.Params
	last consensus.Header
	hash chainhash.Hash
	n    uint64
	salt uint64 // so that two mines dig different headers
}

func newHeaderMine(p *consensus.Params, salt uint64) *headerMine {
	m := &headerMine{p: p, hash: p.GenesisHash, salt: salt}
	m.last.BlockHeader = p.Genesis.Header
	return m
}

// next returns the header after the last and its hash.
func (m *headerMine) next() (consensus.Header, chainhash.Hash) {
	m.n++
	h := consensus.Header{}
	h.Version, h.PrevBlock, h.Bits = 4, m.hash, m.p.PowLimitBits
	h.Timestamp = m.last.Timestamp.Add(time.Second)
	binary.LittleEndian.PutUint64(h.MerkleRoot[:], m.n)
	binary.LittleEndian.PutUint64(h.MerkleRoot[8:], m.salt)
	raw := consensus.AppendHeader(nil, &h)
	for {
		binary.LittleEndian.PutUint32(raw[76:], h.Nonce)
		m.hash = chainhash.DoubleHashH(raw)
		if m.hash[chainhash.HashSize-1] < 0x7f {
			break
		}
		h.Nonce++
	}
	m.last = h
	return h, m.hash
}

func (m *headerMine) take(n int) []consensus.Header {
	hs := make([]consensus.Header, n)
	for i := range hs {
		hs[i], _ = m.next()
	}
	return hs
}

// headerHome makes a home of a chain of n blocks above genesis of which nothing
// but the index is there: enough to be opened. Without blocks only the headers are.
func headerHome(t testing.TB, o chain.Options, n int, blocks bool) {
	t.Helper()
	c, err := chain.Open(o) // with genesis
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	st, err := store.Open(store.Options{Dir: o.Dir, FS: o.FS, ChainID: o.Params.ChainID(), Magic: o.Params.Magic})
	if err != nil {
		t.Fatal(err)
	}
	mine := newHeaderMine(o.Params, 1)
	var raw []byte
	for done := 0; done < n; {
		b := st.NewBatch()
		var tip store.Tip
		for range min(n-done, 50_000) {
			done++
			h, hash := mine.next()
			raw = consensus.AppendHeader(raw[:0], &h)
			r := store.HeaderRecord{Height: int32(done), Raw: raw}
			if blocks {
				r.Status, r.Txs = 1, 1
				r.Block = store.Pos{File: uint32(done / 100_000), Offset: uint32(done%100_000) * 1000, Size: 250}
				r.Undo = store.Pos{File: uint32(done / 100_000), Offset: uint32(done%100_000) * 100, Size: 50}
				tip = store.Tip{Hash: hash, Height: int32(done)}
			}
			b.PutHeader(hash, r)
		}
		if blocks {
			b.SetTip(tip)
		}
		if err := st.Commit(b); err != nil {
			t.Fatal(err)
		}
	}
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}
}

// liveHeap is what is reachable in the heap, in bytes.
func liveHeap() uint64 {
	runtime.GC()
	runtime.GC() // what finalizers and pools held on to goes with the second
	s := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(s)
	return s[0].Value.Uint64()
}

// Branches of every shape are read back as they were, whatever the order of
// hashes on a height.
func TestLoadBranches(t *testing.T) {
	h := open(t, nil)
	rng := rand.New(rand.NewPCG(5, 5))
	mine := newHeaderMine(h.o.Params, 9)
	type at struct {
		h    consensus.Header
		hash chainhash.Hash
	}
	all := []at{{mine.last, mine.hash}}
	for range 600 {
		from := all[max(0, len(all)-1-rng.IntN(30))]
		mine.last, mine.hash = from.h, from.hash
		x, hash := mine.next()
		all = append(all, at{x, hash})
		if n, _, err := h.AcceptHeaders(t.Context(), []consensus.Header{x}); n != 1 || err != nil {
			t.Fatal(n, err)
		}
	}
	describe := func() (list []chain.NodeStatus, tips []chain.ChainTip) {
		for _, x := range all {
			s, ok := h.Status(x.hash)
			if !ok {
				t.Fatalf("header %v is gone", x.hash)
			}
			list = append(list, s)
		}
		return list, h.Tips()
	}
	before, tipsBefore := describe()
	h.reopen()
	after, tipsAfter := describe()
	if !reflect.DeepEqual(before, after) {
		t.Error("what is known of the headers changed")
	}
	byHash := func(a, b chain.ChainTip) int { return bytes.Compare(a.Tip.Hash[:], b.Tip.Hash[:]) }
	slices.SortFunc(tipsBefore, byHash) // equal heights come first seen first
	slices.SortFunc(tipsAfter, byHash)
	if !reflect.DeepEqual(tipsBefore, tipsAfter) {
		t.Errorf("tips %v, then %v", tipsBefore, tipsAfter)
	}
}

// sealedEngine is regtest's with a seal on each header that repeats its hash.
type sealedEngine struct{ *pow.Engine }

func sealFor(hash chainhash.Hash, n int) []byte { return append(hash[:], make([]byte, n-len(hash))...) }

func (e sealedEngine) CheckHeader(past consensus.Past, h *consensus.Header, now time.Time) error {
	if !bytes.Equal(h.Seal, sealFor(consensus.HeaderHash(h), 140)) {
		return &consensus.RuleError{Rule: "bad-seal", Blame: consensus.BlameSender}
	}
	return e.Engine.CheckHeader(past, &consensus.Header{BlockHeader: h.BlockHeader}, now)
}

// Seals stay on disk: those in memory are of headers that no commit has written.
func TestSealsOnDisk(t *testing.T) {
	p := consensus.Regtest()
	p.SealBytes, p.GenesisSeal = 140, make([]byte, 140)
	b := enginetest.NewBuilder(p)
	b.Seal = func(_ consensus.Past, _ consensus.Coins, h *consensus.Header) error {
		for ; ; h.Nonce++ {
			if hash := consensus.HeaderHash(h); hash[chainhash.HashSize-1] < 0x7f {
				h.Seal = sealFor(hash, p.SealBytes)
				return nil
			}
		}
	}
	blocks := append([]*consensus.Block{b.Genesis()}, b.MineN(b.Genesis(), 300)...)
	h := open(t, func(o *chain.Options) { o.Params, o.Engine = p, sealedEngine{pow.New(p)} })
	if n, _, err := h.AcceptHeaders(t.Context(), headersOf(blocks[1:])); n != 300 || err != nil {
		t.Fatal(n, err)
	}
	if n := chain.Seals(h.Chain); n != 300 {
		t.Errorf("%d seals in memory before the commit", n)
	}
	h.reopen()
	if n := chain.Seals(h.Chain); n != 0 {
		t.Errorf("%d seals in memory after it", n)
	}
	// The seal of a block is compared with the one on disk.
	forged := bytes.Clone(blocks[1].Raw)
	forged[consensus.HeaderBytes]++
	checkRule(t, h.submit(forged).Err, "bad-seal")
	h.connectAll(blocks[1:]) // each record is written again, with its seal
	h.rest()
	if n := chain.Seals(h.Chain); n != 0 {
		t.Errorf("%d seals in memory after the blocks", n)
	}
	h.reopen()
	h.wantTip(blocks[300])
	start, n, raw, err := h.HeadersAfter(nil, nil, 2000)
	if err != nil || start != 1 || n != 300 {
		t.Fatal(start, n, err)
	}
	var want []byte
	for _, x := range blocks[1:] {
		want = append(want, x.Raw[:consensus.HeaderBytes+p.SealBytes]...)
	}
	if !bytes.Equal(raw, want) {
		t.Error("headers are served with other seals")
	}
}

// A branch that has too little work next to the validated one is not taken, one
// that has enough is, at the limit: that of 144 blocks.
func TestHeaderGateNearTip(t *testing.T) {
	b, blocks := grown(200)
	h := open(t, nil)
	h.connectAll(blocks[1:])
	// Work is 2 a block on regtest: 201 blocks less 144.
	if least := h.LeastWork(); least.Cmp(big.NewInt(2*(201-144))) != 0 {
		t.Fatalf("least work %v", least)
	}
	side := b.MineN(blocks[50], 6) // six blocks above height 50: work 2·57
	hs := headersOf(side)
	_, _, err := h.AcceptHeaders(t.Context(), hs[:5])
	checkRule(t, err, "too-little-chainwork")
	if v := h.submitFrom(side[0].Raw, chain.Source{Kind: chain.FromGossip}); v.Outcome != chain.Refused {
		t.Fatalf("verdict %+v", v)
	} else {
		checkRule(t, v.Err, "too-little-chainwork")
	}
	if tips := h.Tips(); len(tips) != 1 {
		t.Errorf("tips %+v", tips)
	}
	// Who has seen more of the branch may bring it in pieces.
	n, _, err := h.AcceptProven(t.Context(), hs[:2], big.NewInt(2*57-1))
	checkRule(t, err, "too-little-chainwork")
	if n != 0 {
		t.Errorf("%d added", n)
	}
	if n, _, err = h.AcceptProven(t.Context(), hs[:2], big.NewInt(2*57)); n != 2 || err != nil {
		t.Fatal(n, err)
	}
	if n, _, err = h.AcceptHeaders(t.Context(), hs); n != 4 || err != nil {
		t.Fatal(n, err)
	}
	// A reorganisation to a longer branch from far below goes through the gate.
	long := b.MineN(blocks[10], 200)
	if n, _, err = h.AcceptHeaders(t.Context(), headersOf(long)); n != 200 || err != nil {
		t.Fatal(n, err)
	}
	h.connectBranch(long)
}

// connectBranch submits blocks of a branch that wins with its last.
func (h *home) connectBranch(blocks []*consensus.Block) {
	h.t.Helper()
	for i, v := range h.submitAll(blocks) {
		if v.Outcome != chain.Connected && v.Outcome != chain.SideChain {
			h.t.Fatalf("block %d: %+v", i, v)
		}
	}
	h.wantTip(blocks[len(blocks)-1])
}

// Headers beside the validated and the best header chain are bounded, and so are
// all above the validated one; what beats the best header chain still gets in.
func TestHeaderGateRoom(t *testing.T) {
	b, blocks := grown(60)
	h := open(t, nil)
	chain.LimitHeaders(h.Chain, 10, 40, 0)
	accept := func(want int, rule string, blocks []*consensus.Block) {
		t.Helper()
		n, _, err := h.AcceptHeaders(t.Context(), headersOf(blocks))
		if rule == "" && err != nil {
			t.Fatal(err)
		} else if rule != "" {
			checkRule(t, err, rule)
		}
		if n != want {
			t.Fatalf("%d added, want %d", n, want)
		}
	}
	accept(30, "", blocks[1:31])
	spam := b.MineN(blocks[0], 29)
	accept(9, "", spam[:9])
	accept(1, "", spam[9:10])
	accept(0, "too-little-chainwork", spam[10:20]) // there are ten beside the best chain
	accept(0, "too-little-chainwork", b.MineN(blocks[0], 30))
	accept(0, "too-many-headers", b.MineN(blocks[0], 31)) // 50 in all is the most
	accept(10, "", blocks[31:41])
	accept(0, "too-many-headers", blocks[41:42])
	// Blocks make room: what is validated does not count.
	h.connectAll(blocks[1:21])
	accept(20, "", blocks[41:])
	accept(0, "too-many-headers", []*consensus.Block{b.Mine(blocks[60])})
	h.connectAll(blocks[21:])
	h.wantTip(blocks[60])
	accept(40, "", b.MineN(blocks[60], 40))
	if got := len(h.Tips()); got != 3 {
		t.Errorf("%d tips", got)
	}
}

// A room that is full of spam, as it still is after a restart, does not keep out
// what the chain goes on with: headers and blocks at the tip, a short reorganisation,
// and a branch with twice the work; each in its own bounds.
func TestHeaderGateFull(t *testing.T) {
	const near = 20
	b, blocks := grown(120)
	h := open(t, nil)
	limit := func() { chain.LimitHeaders(h.Chain, 10, 60, near) }
	limit()
	accept := func(want int, rule string, blocks []*consensus.Block) {
		t.Helper()
		n, _, err := h.AcceptHeaders(t.Context(), headersOf(blocks))
		if rule == "" && err != nil {
			t.Fatal(err)
		} else if rule != "" {
			checkRule(t, err, rule)
		}
		if n != want {
			t.Fatalf("%d added, want %d", n, want)
		}
	}
	fill := func() {
		t.Helper()
		for range 100 {
			if _, _, err := h.AcceptHeaders(t.Context(), headersOf(b.MineN(blocks[0], 2))); err != nil {
				return
			}
		}
		t.Fatal("the room has no end")
	}
	accept(30, "", b.MineN(blocks[0], 30))
	accept(31, "", b.MineN(blocks[0], 31)) // the best header chain is spam
	fill()
	h.reopen()
	limit()

	// Twice the work is 64 headers on regtest, and 60 is the most of a branch there is
	// room for: then blocks must follow.
	far := blocks[1:82]
	accept(0, "too-little-chainwork", far[:31])
	accept(0, "too-many-headers", far[:62])
	n, _, err := h.AcceptProven(t.Context(), headersOf(far[:40]), big.NewInt(2*64-1))
	if checkRule(t, err, "too-many-headers"); n != 0 {
		t.Fatalf("%d added", n)
	}
	if n, _, err = h.AcceptProven(t.Context(), headersOf(far[:21]), big.NewInt(2*64)); n != 21 || err != nil {
		t.Fatal(n, err)
	}
	// Who breaks off has used it up: another branch needs twice as much again.
	n, _, err = h.AcceptProven(t.Context(), headersOf(b.MineN(blocks[0], 40)), big.NewInt(2*64))
	if checkRule(t, err, "too-many-headers"); n != 0 {
		t.Fatalf("%d added", n)
	}
	// The same branch goes on, whoever brings it.
	if n, _, err = h.AcceptProven(t.Context(), headersOf(far[:60]), big.NewInt(2*64)); n != 39 || err != nil {
		t.Fatal(n, err)
	}
	accept(0, "too-many-headers", far)
	h.connectAll(blocks[1:61])
	accept(21, "", far)
	h.connectAll(blocks[61:101])
	h.wantTip(blocks[100])

	// At the tip: what extends the best header chain, and short forks.
	accept(1, "", blocks[101:102])
	if v := h.submitFrom(blocks[101].Raw, chain.Source{Kind: chain.FromGossip}); v.Outcome != chain.Connected {
		t.Fatalf("verdict %+v", v)
	}
	if v := h.submitFrom(blocks[102].Raw, chain.Source{Kind: chain.FromGossip}); v.Outcome != chain.Connected {
		t.Fatalf("verdict %+v", v)
	}
	h.wantTip(blocks[102])
	accept(6, "", b.MineN(blocks[102], 6)) // spam that nobody has the blocks of
	if v := h.submitFrom(blocks[103].Raw, chain.Source{Kind: chain.FromGossip}); v.Outcome != chain.Connected {
		t.Fatalf("verdict %+v", v)
	}
	h.wantTip(blocks[103])
	side := b.MineN(blocks[101], 3)
	accept(3, "", side)
	h.connectBranch(side)
	accept(near, "", b.MineN(blocks[101], near))
	accept(0, "too-little-chainwork", []*consensus.Block{b.Mine(blocks[100])})
	// A new block at the tip, which comes with its bytes, is taken even then.
	next := b.Mine(side[2])
	accept(0, "too-little-chainwork", []*consensus.Block{b.Mine(side[1])})
	if v := h.submitFrom(next.Raw, chain.Source{Kind: chain.FromGossip}); v.Outcome != chain.Connected {
		t.Fatalf("verdict %+v", v)
	}
	h.reopen()
}

// While the room is full a presync goes on until it has shown enough to be taken.
func TestPresyncWithoutRoom(t *testing.T) {
	b, blocks := grown(70)
	h := open(t, nil)
	chain.LimitHeaders(h.Chain, 10, 70, 0)
	for _, n := range []int{30, 31, 19} {
		if _, _, err := h.AcceptHeaders(t.Context(), headersOf(b.MineN(blocks[0], n))); err != nil && n > 19 {
			t.Fatal(err)
		}
	}
	p, _ := h.NewPresync(blocks[0].Hash)
	enough := 0
	for batch := range slices.Chunk(headersOf(blocks[1:]), 7) {
		if err := p.Check(t.Context(), batch); err != nil {
			t.Fatal(err)
		}
		if enough += len(batch); p.Work().Cmp(h.LeastWork()) >= 0 {
			break
		}
	}
	if enough != 63 { // with genesis twice the 32 that are the best
		t.Fatalf("enough after %d headers", enough)
	}
	for batch := range slices.Chunk(headersOf(blocks[1:64]), 7) {
		if n, _, err := p.Accept(t.Context(), batch); n != len(batch) || err != nil {
			t.Fatal(n, err)
		}
	}
	if n, _, err := h.AcceptHeaders(t.Context(), headersOf(blocks[64:])); n != 7 || err != nil {
		t.Fatal(n, err)
	}
}

// BenchmarkAcceptHeaders checks and adds headers, and waits until they are on disk.
func BenchmarkAcceptHeaders(b *testing.B) {
	const n = 200_000
	hs := newHeaderMine(consensus.Regtest(), 1).take(n)
	for b.Loop() {
		h := open(b, func(o *chain.Options) { o.FS, o.Dir = vfs.Default, b.TempDir() })
		for rest := hs; len(rest) > 0; rest = rest[2000:] {
			if _, _, err := h.AcceptHeaders(b.Context(), rest[:2000]); err != nil {
				b.Fatal(err)
			}
		}
		h.rest()
		h.close()
	}
	b.ReportMetric(n*float64(b.N)/b.Elapsed().Seconds(), "headers/s")
}

// BenchmarkOpen opens homes of a million headers on disk, with blocks (as far as
// the index goes) and without.
func BenchmarkOpen(b *testing.B) {
	const n = 1_000_000
	for _, blocks := range []bool{true, false} {
		b.Run(fmt.Sprintf("blocks=%v", blocks), func(b *testing.B) {
			o := headerOptions(vfs.Default, b.TempDir())
			headerHome(b, o, n, blocks)
			before := liveHeap()
			var heap, tree uint64
			for b.Loop() {
				c, err := chain.Open(o)
				if err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
				heap = liveHeap() - before
				if best, _ := c.BestHeader(); best.Height != n {
					b.Fatalf("the best header is at height %d", best.Height)
				}
				if err := c.Close(); err != nil {
					b.Fatal(err)
				}
				tree = liveHeap() - before
				runtime.KeepAlive(c)
				b.StartTimer()
			}
			b.ReportMetric(float64(tree)/n, "B/header")
			b.ReportMetric(float64(heap)/1e6, "open-MB")
		})
	}
}

func headerOptions(fs vfs.FS, dir string) chain.Options {
	p := consensus.Regtest()
	return chain.Options{Dir: dir, FS: fs, Params: p, Engine: pow.New(p), Now: far}
}
