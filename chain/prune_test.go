package chain_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"dunlin/chain"
	"dunlin/chain/consensus"
	"dunlin/chain/consensus/enginetest"
)

// smallFiles lets a chain of small blocks span many files.
func smallFiles(o *chain.Options) { o.MaxFileBytes = 8 << 10 }

// long is a chain of 560 blocks, some with spends at its start and at its end.
var long = sync.OnceValues(func() (*enginetest.Builder, []*consensus.Block) {
	b, blocks := grown(111)
	blocks = append(blocks, spending(b, blocks[111], blocks[1:60], 50)...)
	blocks = append(blocks, b.MineN(blocks[len(blocks)-1], 359)...)
	blocks = append(blocks, spending(b, blocks[len(blocks)-1], blocks[60:], 40)...)
	return b, blocks
})

// What is told of a pruned chain is true, over restarts too; what is left works
// as before; what cannot work is refused in words.
func TestPrune(t *testing.T) {
	b, blocks := long()
	tip := blocks[560]
	h := open(t, smallFiles)
	h.connectAll(blocks[1:])
	ctx := t.Context()
	if h.Lowest() != 0 {
		t.Errorf("lowest %d before", h.Lowest())
	}
	all, err := h.Prune(ctx, 1<<40)
	if err != nil || all.Blocks != 0 || all.Freed != 0 || all.Lowest != 0 {
		t.Fatalf("nothing to prune: %+v, %v", all, err)
	}
	r, err := h.Prune(ctx, all.Kept*9/10)
	if err != nil || r.Kept > all.Kept*9/10 || r.Kept < all.Kept*8/10 || r.Freed != all.Kept-r.Kept {
		t.Fatalf("pruned a tenth of %d: %+v, %v", all.Kept, r, err)
	}
	r, err = h.Prune(ctx, 0)
	if err != nil || r.Lowest != h.Lowest() || r.Lowest > 560-chain.KeepBlocks+1 || r.Lowest < 200 {
		t.Fatalf("pruned all that may be: %+v, %v", r, err)
	}
	check := func() {
		t.Helper()
		low := h.Lowest()
		if low != r.Lowest {
			t.Errorf("lowest %d, was %d", low, r.Lowest)
		}
		if have := h.Have(tip.Hash, -1, 560); len(have) != 1 || have[0] != [2]int32{low, 560} {
			t.Errorf("have %v, lowest %d", have, low)
		}
		for i, x := range blocks {
			s, ok := h.Status(x.Hash)
			raw, err := h.Block(x.Hash)
			size := h.BlockSize(x.Hash)
			gone := int32(i) < low
			if !ok || s.HaveBlock == gone || s.Pruned != gone || !s.Active || !s.Valid ||
				gone && (!errors.Is(err, chain.ErrNotFound) || size != 0) ||
				!gone && (err != nil || string(raw) != string(x.Raw) || size != len(raw)) {
				t.Fatalf("block %d, lowest %d: %+v, %d bytes, %v", i, low, s, size, err)
			}
		}
		h.want(blocks[3], chain.Duplicate) // must not fill the disk again
		if err := h.Invalidate(ctx, blocks[5].Hash); !errors.Is(err, chain.ErrPruned) || !strings.Contains(err.Error(), "height 5") {
			t.Errorf("invalidate: %v", err)
		}
	}
	check()
	h.reopen()
	check()

	// A reorganisation above the pruned blocks is what it always was.
	side := spending(b, blocks[540], blocks[100:], 30)
	h.submitAll(side)
	h.wantTip(side[29])
	if err := h.Invalidate(ctx, side[0].Hash); err != nil {
		t.Fatal(err)
	}
	h.wantTip(tip)
	if err := h.Reconsider(ctx, side[0].Hash); err != nil {
		t.Fatal(err)
	}
	h.wantTip(side[29])
	h.wantCoins(b, side[29])

	h.o.Reindex = true
	if _, err := chain.Open(h.o); !errors.Is(err, chain.ErrPruned) || !strings.Contains(err.Error(), "rm -r home/blocks") {
		t.Errorf("reindex: %v", err)
	}
	h.o.Reindex = false
	h.start()
	h.wantTip(side[29])
}

// A branch with more work that forks below the pruned blocks is left alone, with
// a word to the operator, at once and after each start; the chain goes on.
func TestReorgBelowPruned(t *testing.T) {
	b, blocks := long()
	h := open(t, smallFiles)
	h.connectAll(blocks[1:])
	for _, x := range b.MineN(blocks[150], 5) { // on a side branch, pruned with the others
		h.want(x, chain.SideChain)
	}
	if _, err := h.Prune(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	rival := b.MineN(blocks[200], 400)
	if _, _, err := h.AcceptHeaders(t.Context(), headersOf(rival)); err != nil {
		t.Fatal(err)
	}
	for i, v := range h.submitAll(rival) {
		if v.Outcome != chain.SideChain {
			t.Fatalf("block %d of the branch: %+v", i, v)
		}
	}
	h.wantTip(blocks[560])
	const word = "a branch with more work needs blocks that were pruned"
	if l := h.log.with("level=ERROR", word, "fork_height=200", "rm -r home/blocks"); len(l) == 0 {
		t.Errorf("no line tells of it")
	}
	told := len(h.log.with(word))
	h.reopen()
	h.wantTip(blocks[560])
	if len(h.log.with(word)) <= told {
		t.Errorf("no line after a start")
	}
	next := b.MineN(blocks[560], 60)
	h.connectAll(next)
	h.wantCoins(b, next[59])
}

// A pruned block of a side branch is taken again when it is sent, for its branch
// may win one day.
func TestPrunedSideBranchReturns(t *testing.T) {
	b, blocks := long()
	h := open(t, func(o *chain.Options) { o.MaxFileBytes = 256 }) // a file a block
	h.connectAll(blocks[1:250])
	side := b.MineN(blocks[248], 3)
	h.want(side[0], chain.SideChain)
	h.connectAll(blocks[250:538])
	if r, err := h.Prune(t.Context(), 0); err != nil || r.Lowest != 250 {
		t.Fatalf("%+v, %v", r, err)
	}
	if s, _ := h.Status(side[0].Hash); s.HaveBlock || !s.Pruned {
		t.Fatalf("the side branch was not pruned: %+v", s)
	}
	h.want(side[1], chain.SideChain)
	h.want(side[0], chain.SideChain)
	if s, _ := h.Status(side[0].Hash); !s.HaveBlock || s.Pruned {
		t.Errorf("%+v", s)
	}
	h.reopen()
	if s, _ := h.Status(side[0].Hash); !s.HaveBlock || s.Pruned {
		t.Errorf("after a start: %+v", s)
	}
}

// With PruneBytes the files stay below it as far as the kept blocks allow.
func TestPruneBytes(t *testing.T) {
	b, blocks := long()
	const most = 80 << 10
	h := open(t, func(o *chain.Options) {
		smallFiles(o)
		o.PruneBytes = most
		o.FlushBlocks = 20
	})
	h.connectAll(blocks[1:])
	if err := h.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if h.Lowest() == 0 || len(h.log.with("msg=pruned")) < 2 {
		t.Errorf("lowest %d, lines %q", h.Lowest(), h.log.with("msg=pruned"))
	}
	r, err := h.Prune(t.Context(), most)
	if err != nil || r.Kept > most+2*(8<<10) {
		t.Errorf("%d bytes are left: %v", r.Kept, err)
	}
	h.wantTip(blocks[560])
	h.wantCoins(b, blocks[560])
}

// A power cut before any write of a prune, and any write that fails, leaves a
// chain that is the undisturbed twin's, pruned or not.
func TestFaultAtEveryWriteOfPrune(t *testing.T) {
	b, blocks := long()
	want := modelCoins(b, blocks[560])
	h := open(t, func(o *chain.Options) { smallFiles(o); o.FS = vfs.NewCrashableMem() })
	h.connectAll(blocks[1:])
	h.close()
	start := h.o.FS.(*vfs.MemFS)

	prunedOrNot := func(what string, fs vfs.FS) {
		t.Helper()
		o := h.o
		o.FS = fs
		twin := &home{t: t, o: o, log: &lines{}}
		twin.start()
		defer twin.close()
		tip, _ := twin.Tip()
		low := twin.Lowest()
		if tip.Hash != blocks[560].Hash || low > 560-chain.KeepBlocks+1 {
			t.Fatalf("%s: tip at %d, lowest %d", what, tip.Height, low)
		}
		for i := low; i <= 560; i++ {
			if raw, err := twin.Block(blocks[i].Hash); err != nil || string(raw) != string(blocks[i].Raw) {
				t.Fatalf("%s: block %d: %v", what, i, err)
			}
		}
		names, err := fs.List("home/blocks")
		if err != nil {
			t.Fatal(err)
		}
		if slices.Sort(names); low > 0 == (names[0] == "00000.blk") {
			t.Fatalf("%s: lowest %d, first file %s", what, low, names[0])
		}
		r, err := twin.Verify(t.Context(), chain.VerifyOptions{Depth: 5})
		if err == nil || len(r.Faults) > 0 { // it runs
			t.Fatalf("%s: verify while running: %+v, %v", what, r, err)
		}
		if _, err := twin.Prune(t.Context(), 0); err != nil {
			t.Fatalf("%s: prune again: %v", what, err)
		}
		sameCoins(t, twin.coins(), want)
		verifies(t, o)
	}
	write := func(op errorfs.Op) bool {
		return op.Kind.ReadOrWrite() == errorfs.OpIsWrite && op.Kind != errorfs.OpFileClose
	}

	t.Run("power cut", func(t *testing.T) {
		type cut struct {
			what string
			fs   *vfs.MemFS
		}
		var mu sync.Mutex
		var cuts []cut
		armed := false
		mem := start.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rand.New(rand.NewPCG(0, 0))})
		fs := errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
			mu.Lock()
			defer mu.Unlock()
			if armed && write(op) {
				n := len(cuts)
				cuts = append(cuts, cut{
					fmt.Sprintf("power cut before write %d, %v of %s", n, op.Kind, op.Path),
					mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: n * 37 % 101, RNG: rand.New(rand.NewPCG(uint64(n), 1))}),
				})
			}
			return nil
		}))
		o := h.o
		o.FS = fs
		run := &home{t: t, o: o, log: &lines{}}
		run.start()
		mu.Lock()
		armed = true
		mu.Unlock()
		if _, err := run.Prune(t.Context(), 0); err != nil {
			t.Fatal(err)
		}
		run.close()
		if len(cuts) < 10 {
			t.Fatalf("only %d writes", len(cuts))
		}
		for _, c := range cuts {
			prunedOrNot(c.what, c.fs)
		}
		t.Logf("%d power cuts", len(cuts))
	})

	t.Run("failed write", func(t *testing.T) {
		for n := 1; ; n++ {
			mem := start.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rand.New(rand.NewPCG(0, 0))})
			var mu sync.Mutex
			left, what := -1, ""
			fs := errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
				mu.Lock()
				defer mu.Unlock()
				if left < 0 || !write(op) {
					return nil
				}
				if left--; left == 0 {
					what = fmt.Sprintf("%v of %s failed", op.Kind, op.Path)
					return errors.New("disk on fire")
				}
				return nil
			}))
			o := h.o
			o.FS = fs
			run := &home{t: t, o: o, log: &lines{}}
			run.start()
			mu.Lock()
			left = n
			mu.Unlock()
			_, err := run.Prune(t.Context(), 0)
			_ = run.stop() // what failed may end it
			mu.Lock()
			left = -1
			done := what == ""
			mu.Unlock()
			if done {
				if err != nil {
					t.Fatal(err)
				}
				if err := run.Close(); err != nil {
					t.Fatal(err)
				}
				t.Logf("%d writes", n-1)
				return
			}
			clone := mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 50, RNG: rand.New(rand.NewPCG(uint64(n), 2))})
			_ = run.Close()
			prunedOrNot(what, clone)
		}
	})
}

// verifies opens a closed chain and verifies it wholly.
func verifies(t testing.TB, o chain.Options) chain.VerifyReport {
	t.Helper()
	c, err := chain.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	r, err := c.Verify(t.Context(), chain.VerifyOptions{Depth: -1})
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range r.Faults {
		t.Errorf("verify: %v", f)
	}
	return r
}
