package chain_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/wire/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"dunlin/chain"
	"dunlin/chain/consensus"
	"dunlin/chain/consensus/enginetest"
	"dunlin/chain/store"
)

// A crashCase is something that a chain does while the disk fails or the power goes.
type crashCase struct {
	name   string
	before []*consensus.Block // committed when it begins
	do     func(ctx crashRun)
	all    []*consensus.Block // every block of before and do
	end    *consensus.Block   // the tip once all are there and do is done
	after  func(h *home)      // makes end the tip after all; may be nil
	flush  int                // Options.FlushBlocks
}

// A crashRun is one run of a case.
type crashRun struct {
	*home
	acked func(*consensus.Block) // b's verdict was that it is durable
}

// mine submits blocks as a miner does, one by one, until the chain gives up.
func (r crashRun) mine(blocks []*consensus.Block) {
	for _, b := range blocks {
		ticket, err := r.Submit(r.t.Context(), b.Raw, chain.Source{Kind: chain.FromMiner})
		if err != nil {
			return
		}
		switch v := ticket.Wait(r.t.Context()); v.Outcome {
		case chain.Connected, chain.SideChain, chain.Stored:
			r.acked(b)
		case chain.Refused:
			r.t.Errorf("%+v", v)
		default:
		}
	}
}

// A crashTwin is what an undisturbed chain holds: the coins at any tip, and the bytes
// and the undo data of every block.
type crashTwin struct {
	b     *enginetest.Builder
	mu    sync.Mutex
	coins map[chainhash.Hash]map[wire.OutPoint]string
	undo  map[chainhash.Hash][]byte
	raw   map[chainhash.Hash][]byte
}

// newCrashTwin runs everything on a disk that works.
func newCrashTwin(t *testing.T, b *enginetest.Builder, cases []crashCase) *crashTwin {
	t.Helper()
	w := &crashTwin{
		b: b, coins: make(map[chainhash.Hash]map[wire.OutPoint]string),
		undo: make(map[chainhash.Hash][]byte), raw: make(map[chainhash.Hash][]byte),
	}
	for i := range cases {
		h := open(t, nil)
		for _, x := range cases[i].all { // each branch is connected for a while
			w.raw[x.Hash] = x.Raw
			h.submit(x.Raw)
		}
		for _, x := range slices.Backward(cases[i].all) {
			if s, _ := h.Status(x.Hash); s.Active {
				continue
			}
			// On the losing side for want of work: what it spends is known once it is connected.
			if err := h.Invalidate(t.Context(), cases[i].end.Hash); err != nil {
				t.Fatal(err)
			}
			break
		}
		h.rest()
		h.close()
		eachBody(t, h.o, func(hash chainhash.Hash, _ store.HeaderRecord, _, undo []byte) {
			if undo != nil {
				w.undo[hash] = undo
			}
		})
	}
	return w
}

func (w *crashTwin) at(tip chainhash.Hash) map[wire.OutPoint]string {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.coins[tip] == nil {
		block, err := consensus.DecodeBlock(w.b.Params, w.raw[tip])
		if err != nil {
			panic(err)
		}
		w.coins[tip] = modelCoins(w.b, block)
	}
	return w.coins[tip]
}

// eachBody reads all that the index of a closed chain knows.
func eachBody(t testing.TB, o chain.Options, f func(chainhash.Hash, store.HeaderRecord, []byte, []byte)) store.Tip {
	t.Helper()
	st, err := store.Open(store.Options{Dir: o.Dir, FS: o.FS, ChainID: o.Params.ChainID(), Magic: o.Params.Magic})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	tip, _, err := st.Tip()
	if err != nil {
		t.Fatal(err)
	}
	if err := st.Headers(func(hash chainhash.Hash, r store.HeaderRecord) error {
		var block, undo []byte
		var err, undoErr error
		if r.Block.Size > 0 {
			block, err = st.ReadBlock(r.Block)
		}
		if r.Undo.Size > 0 {
			undo, undoErr = st.ReadUndo(r.Undo)
		}
		f(hash, r, block, undo)
		return errors.Join(err, undoErr)
	}); err != nil {
		t.Fatal(err)
	}
	return tip
}

// same checks a closed chain against the twin at the same tip: coins, and for every
// block in the index its bytes, its undo data and its state.
func (w *crashTwin) same(t testing.TB, what string, o chain.Options) store.Tip {
	t.Helper()
	records := make(map[chainhash.Hash]store.HeaderRecord)
	parents := make(map[chainhash.Hash]chainhash.Hash)
	tip := eachBody(t, o, func(hash chainhash.Hash, r store.HeaderRecord, block, undo []byte) {
		records[hash] = r
		h, err := consensus.DecodeHeader(o.Params, r.Raw)
		if err != nil {
			t.Fatal(err)
		}
		parents[hash] = h.PrevBlock
		if block != nil && r.Height > 0 && !bytes.Equal(block, w.raw[hash]) {
			t.Fatalf("%s: block %v at height %d is another", what, hash, r.Height)
		}
		if undo != nil && !bytes.Equal(undo, w.undo[hash]) {
			t.Fatalf("%s: undo data of block %v at height %d are %x, the twin's are %x", what, hash, r.Height, undo, w.undo[hash])
		}
	})
	n := int32(0)
	for at := tip.Hash; records[at].Height > 0; at, n = parents[at], n+1 {
		r := records[at]
		if r.Status&1 == 0 || r.Block.Size == 0 || (r.Undo.Size > 0) != (w.undo[at] != nil) {
			t.Fatalf("%s: block %v at height %d of the active chain is %+v", what, at, r.Height, r)
		}
	}
	if n != tip.Height {
		t.Fatalf("%s: %d blocks below the tip at %d", what, n, tip.Height)
	}
	got, want := storedCoins(t, o), w.at(tip.Hash)
	if len(got) != len(want) {
		t.Fatalf("%s: %d coins at height %d, the twin has %d", what, len(got), tip.Height, len(want))
	}
	for op, c := range want {
		if got[op] != c {
			t.Fatalf("%s: coin %v at height %d is %q, the twin's is %q", what, op, tip.Height, got[op], c)
		}
	}
	return tip
}

// survives checks what a crash left in fs: as committed, replayed, and gone on with to
// the end.
func (c *crashCase) survives(t testing.TB, w *crashTwin, o chain.Options, what string, acked []*consensus.Block) {
	t.Helper()
	w.same(t, what, o)
	h := &home{t: t, o: o, log: &lines{}}
	h.start()
	for _, b := range acked {
		if s, ok := h.Status(b.Hash); !ok || !s.HaveBlock {
			t.Fatalf("%s: block %v was acknowledged and is %+v", what, b.Hash, s)
		}
	}
	h.close()
	w.same(t, what+", replayed", o)
	h.start()
	for _, b := range c.all {
		if s, _ := h.Status(b.Hash); !s.HaveBlock {
			h.submit(b.Raw)
		}
	}
	if c.after != nil {
		c.after(h)
	}
	h.wantTip(c.end)
	h.close()
	w.same(t, what+", gone on", o)
	verifies(t, o)
}

// tear makes of what a power cut left of the block and undo files what a disk leaves
// that writes in pieces of any size: of the bytes that were not synced, some of the
// first are there, and then nothing, zeros or garbage.
func tear(t testing.TB, synced, clone *vfs.MemFS, rng *rand.Rand) {
	t.Helper()
	for _, dir := range []string{"home/blocks/", "home/undo/"} {
		names, err := clone.List(dir)
		if err != nil {
			continue // not there yet
		}
		for _, name := range names {
			edit(t, clone, dir+name, func(raw []byte) []byte {
				safe := 0
				if f, err := synced.Open(dir + name); err == nil {
					before, err := io.ReadAll(f)
					if err := errors.Join(err, f.Close()); err != nil {
						t.Fatal(err)
					}
					for safe < len(before) && safe < len(raw) && before[safe] == raw[safe] {
						safe++
					}
					if safe == len(raw) {
						return raw
					}
				}
				at := safe + rng.IntN(len(raw)-safe+1)
				switch rng.IntN(3) {
				case 0:
					return raw[:at]
				case 1:
					clear(raw[at:])
				default:
					for i := at; i < len(raw); i++ {
						raw[i] ^= byte(1 + rng.IntN(255))
					}
				}
				return raw
			})
		}
	}
}

// Whatever write, sync, rename or removal of any file fails, or is the last before the
// power goes, while blocks are connected, flushed, replaced by a better branch or taken
// back by an operator: what is there afterwards is what an undisturbed twin has at the
// same tip (coins, blocks, undo data, index), nothing that was acknowledged is lost, and
// it goes on to the same end. Prune and reindex have tests of their own.
func TestFaultAtEveryWriteOfAll(t *testing.T) {
	b, blocks := grown(106)
	base, fork := blocks[1:], blocks[106]
	old := spending(b, fork, base[:20], 12)
	first := b.Mine(fork)
	rival := append([]*consensus.Block{first}, spending(b, first, base[3:], 13)...)
	last := func(bs []*consensus.Block) *consensus.Block { return bs[len(bs)-1] }
	cases := []crashCase{
		{
			name: "connect", before: base, all: slices.Concat(base, old), end: last(old), flush: 2,
			do: func(r crashRun) { r.submitAny(old); r.mine(nil) },
		},
		{
			name: "flush", before: base, all: slices.Concat(base, old), end: last(old), flush: 1000,
			do: func(r crashRun) {
				r.submitAny(old)
				_ = r.Flush(r.t.Context())
			},
		},
		{
			name: "mine", before: base, all: slices.Concat(base, old[:3]), end: old[2], flush: 1000,
			do: func(r crashRun) { r.mine(old[:3]) },
		},
		{
			name: "reorg", before: slices.Concat(base, old), all: slices.Concat(base, old, rival), end: last(rival), flush: 1,
			do: func(r crashRun) { r.submitAny(rival[:len(rival)-1]); r.mine(rival[len(rival)-1:]) },
		},
		{
			name: "invalidate", before: slices.Concat(base, rival, old), all: slices.Concat(base, rival, old), end: last(old), flush: 1000,
			do: func(r crashRun) {
				_ = r.Invalidate(r.t.Context(), rival[1].Hash)
				_ = r.Flush(r.t.Context())
			},
			after: func(h *home) {
				if err := h.Invalidate(h.t.Context(), rival[1].Hash); err != nil {
					h.t.Fatal(err)
				}
			},
		},
	}
	step := 4
	if slow {
		step = 1
	}
	write := func(op errorfs.Op) bool {
		return op.Kind.ReadOrWrite() == errorfs.OpIsWrite && op.Kind != errorfs.OpFileClose
	}
	w := newCrashTwin(t, b, cases)
	for i := range cases {
		c := &cases[i]
		h := open(t, func(o *chain.Options) {
			o.FS = vfs.NewCrashableMem()
			o.MaxFileBytes = 16 << 10 // files are finished and begun in the middle
			o.CacheBytes = 4 << 10
			o.FlushBlocks = c.flush
		})
		for _, x := range c.before {
			h.submit(x.Raw)
		}
		h.close()
		o := h.o
		start := o.FS.(*vfs.MemFS)
		clone := func(mem *vfs.MemFS, percent int, seed uint64) *vfs.MemFS {
			return mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: rand.New(rand.NewPCG(seed, 3))})
		}
		// run runs the case on fs; acked is called under no lock.
		run := func(fs vfs.FS, acked func(*consensus.Block)) error {
			o := o
			o.FS = fs
			ch, err := chain.Open(o)
			if err != nil {
				return err
			}
			r := &home{t: t, o: o, Chain: ch, log: &lines{}}
			r.run()
			c.do(crashRun{r, acked})
			return errors.Join(r.stop(), ch.Close())
		}

		t.Run(c.name+", power cut", func(t *testing.T) {
			t.Parallel()
			type cut struct {
				what   string
				synced *vfs.MemFS
				fs     *vfs.MemFS
				acked  int
			}
			var mu sync.Mutex
			var cuts []cut
			var acked []*consensus.Block
			n := 0
			mem := clone(start, 100, 0)
			fs := errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
				if !write(op) {
					return nil
				}
				mu.Lock()
				defer mu.Unlock()
				if n++; n%step != 0 {
					return nil
				}
				percent := []int{0, 100, 35, 100, 70}[len(cuts)%5]
				cuts = append(cuts, cut{
					fmt.Sprintf("power cut before write %d, %v of %s, of the unsynced %d%% are left", n, op.Kind, op.Path, percent),
					clone(mem, 0, 0), clone(mem, percent, uint64(n)), len(acked),
				})
				return nil
			}))
			if err := run(fs, func(b *consensus.Block) {
				mu.Lock()
				defer mu.Unlock()
				acked = append(acked, b)
			}); err != nil {
				t.Fatal(err)
			}
			for i, k := range cuts {
				if i%2 == 1 {
					tear(t, k.synced, k.fs, rand.New(rand.NewPCG(uint64(i), 4)))
					k.what += ", torn"
				}
				after := o
				after.FS = k.fs
				c.survives(t, w, after, k.what, acked[:k.acked])
			}
			if len(cuts) < 3 {
				t.Errorf("only %d power cuts", len(cuts))
			}
			t.Logf("%d power cuts in %d writes", len(cuts), n)
		})

		t.Run(c.name+", fault", func(t *testing.T) {
			t.Parallel()
			faults := 0
			for n := 1; ; n += step {
				mem := clone(start, 100, 0)
				var mu sync.Mutex
				count, what := 0, ""
				forGood := n%2 == 0
				fs := errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
					if !write(op) {
						return nil
					}
					mu.Lock()
					defer mu.Unlock()
					if count++; count == n || forGood && count > n {
						if what == "" {
							what = fmt.Sprintf("write %d, %v of %s failed", n, op.Kind, op.Path)
						}
						return errors.New("disk on fire")
					}
					return nil
				}))
				var acked []*consensus.Block
				err := run(fs, func(b *consensus.Block) { acked = append(acked, b) })
				if what == "" {
					if err != nil {
						t.Fatal(err)
					}
					t.Logf("%d faults in %d writes", faults, count)
					return
				}
				faults++
				after := o
				after.FS = clone(mem, []int{100, 0, 50}[faults%3], uint64(n))
				c.survives(t, w, after, what, acked)
			}
		})
	}
}

// submitAny submits blocks without waiting for any, and waits for the last.
func (h *home) submitAny(blocks []*consensus.Block) {
	var tickets []*chain.Ticket
	for _, b := range blocks {
		ticket, err := h.Submit(h.t.Context(), b.Raw, fromSync)
		if err != nil {
			break
		}
		tickets = append(tickets, ticket)
	}
	for _, ticket := range tickets {
		if v := ticket.Wait(h.t.Context()); v.Outcome == chain.Refused && !strings.Contains(v.Err.Error(), "parent") {
			h.t.Errorf("%+v", v)
		}
	}
}
