package chain_test

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/btcsuite/btcd/wire/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"dunlin/chain"
	"dunlin/chain/consensus"
	"dunlin/chain/consensus/enginetest"
	"dunlin/chain/store"
)

// short is a chain of 141 blocks, the last 30 of which spend.
var short = sync.OnceValues(func() (*enginetest.Builder, []*consensus.Block) {
	b, blocks := grown(111)
	return b, append(blocks, spending(b, blocks[111], blocks[1:], 30)...)
})

// edit changes the content of a file.
func edit(t testing.TB, fs vfs.FS, name string, change func([]byte) []byte) {
	t.Helper()
	f, err := fs.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := io.ReadAll(f)
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	if f, err = fs.Create(name, vfs.WriteCategoryUnspecified); err != nil {
		t.Fatal(err)
	}
	_, err = f.Write(change(raw))
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		t.Fatal(err)
	}
}

// flip flips a bit in the middle of payload, wherever it is.
func flip(t testing.TB, payload []byte) func([]byte) []byte {
	t.Helper()
	return func(raw []byte) []byte {
		at := strings.Index(string(raw), string(payload))
		if at < 0 {
			t.Fatal("the payload is not in the file")
		}
		raw[at+len(payload)/2] ^= 0x10
		return raw
	}
}

// Blocks behind a damaged one are not downloaded again: a reindex keeps them until
// their headers come, over restarts too.
func TestReindexKeepsWhatLiesBehindDamage(t *testing.T) {
	b, blocks := short()
	tip := blocks[141]
	h := open(t, nil)
	h.connectAll(blocks[1:])
	h.close()
	const file = "home/blocks/00000.blk"
	edit(t, h.o.FS, file, flip(t, blocks[50].Raw))
	edit(t, h.o.FS, file, flip(t, blocks[90].Raw))
	h.o.Reindex = true
	h.start()
	h.o.Reindex = false
	if l := h.log.with("level=ERROR", "damage in the block files", "blocks/00000.blk at byte"); len(l) != 2 {
		t.Errorf("lines %q", l)
	}
	for range 3 { // while there is nobody to sync from
		if at, _ := h.Tip(); at.Height != 49 || h.Waiting() != 90 {
			t.Fatalf("height %d, %d blocks wait", at.Height, h.Waiting())
		}
		h.reopen()
	}
	if _, err := h.Prune(t.Context(), 0); err == nil {
		t.Error("pruned in the middle of a reindex")
	}
	if _, _, err := h.AcceptHeaders(t.Context(), headersOf(blocks[1:])); err != nil {
		t.Fatal(err)
	}
	if have := h.Have(tip.Hash, 0, 141); len(have) != 3 || have[0] != [2]int32{1, 49} || have[1] != [2]int32{51, 89} || have[2] != [2]int32{91, 141} {
		t.Errorf("have %v", have)
	}
	if h.Waiting() != 0 {
		t.Errorf("%d blocks wait", h.Waiting())
	}
	h.want(blocks[90], chain.Stored)
	if v := h.submit(blocks[50].Raw); v.Outcome != chain.Connected {
		t.Fatalf("%+v", v)
	}
	h.wantTip(tip)
	h.rest()
	began := len(h.log.with("reindexing"))
	h.reopen()
	if n := len(h.log.with("reindexing")); n != began {
		t.Error("it goes on reindexing")
	}
	h.wantTip(tip)
	h.wantCoins(b, tip)
	if r := verifies(t, h.o); r.Remains != 2 || r.Reconnected != 141 {
		t.Errorf("%+v", r)
	}
}

// What sync never brings a header for is given up some day.
func TestStraysAreGivenUp(t *testing.T) {
	_, blocks := short()
	h := open(t, nil)
	h.connectAll(blocks[1:])
	h.close()
	edit(t, h.o.FS, "home/blocks/00000.blk", flip(t, blocks[50].Raw))
	h.o.Reindex = true
	h.start()
	h.o.Reindex = false
	n := 0
	for ; h.Waiting() > 0; n++ {
		if n > 20 {
			t.Fatal("they are kept for ever")
		}
		h.reopen()
	}
	if n < 3 || len(h.log.with("given up", "blocks=91")) != 1 {
		t.Errorf("given up after %d starts: %q", n, h.log.with("given up"))
	}
}

// A reindex that was cut off goes on with the next, and begins anew where it is
// told to or its index is damaged.
func TestReindexGoesOn(t *testing.T) {
	b, blocks := short()
	h := open(t, func(o *chain.Options) { o.FS = vfs.NewCrashableMem() })
	h.connectAll(blocks[1:])
	h.close()
	h.o.Reindex = true
	h.load() // cut off: nothing has run
	h.close()
	probe := func() bool { // does the next one go on?
		t.Helper()
		st, err := store.Open(store.Options{Dir: h.o.Dir, FS: h.o.FS, ChainID: h.o.Params.ChainID(), Magic: h.o.Params.Magic})
		if err != nil {
			t.Fatal(err)
		}
		batch := st.NewBatch()
		batch.PutMeta("probe", []byte{1})
		if err := errors.Join(st.Commit(batch), st.Close()); err != nil {
			t.Fatal(err)
		}
		h.load()
		h.close()
		if st, err = store.Open(store.Options{Dir: h.o.Dir, FS: h.o.FS, ChainID: h.o.Params.ChainID(), Magic: h.o.Params.Magic}); err != nil {
			t.Fatal(err)
		}
		_, there, err := st.Meta("probe")
		if err := errors.Join(err, st.Close()); err != nil {
			t.Fatal(err)
		}
		return there
	}
	if !probe() {
		t.Error("it began anew")
	}
	h.o.ReindexAnew = true
	if probe() {
		t.Error("it went on although it was to begin anew")
	}
	h.o.ReindexAnew = false
	names, err := h.o.FS.List("home/index")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if strings.HasPrefix(name, "MANIFEST") {
			edit(t, h.o.FS, "home/index/"+name, func([]byte) []byte { return nil })
		}
	}
	if _, err := chain.Open(h.o); err == nil || !strings.Contains(err.Error(), "`dunlin chain reindex --restart`") {
		t.Errorf("a damaged index: %v", err)
	}
	h.o.ReindexAnew = true
	h.start()
	h.o.Reindex = false
	h.o.ReindexAnew = false
	h.wantTip(blocks[141])
	if p := h.Replay(); !p.Reindexing || p.Bytes == 0 || p.Height != 141 {
		t.Errorf("progress %+v", p)
	}
	h.wantCoins(b, blocks[141])
	verifies(t, h.o)
}

// A power cut before any write of a reindex, and any write that fails, leaves
// something that a plain start completes to what an undisturbed twin has.
func TestFaultAtEveryWriteOfReindex(t *testing.T) {
	b, blocks := short()
	want := modelCoins(b, blocks[141])
	h := open(t, func(o *chain.Options) { o.FS = vfs.NewCrashableMem(); o.MaxFileBytes = 8 << 10; o.FlushBlocks = 20 })
	h.connectAll(blocks[1:])
	h.close()
	before := h.o.FS.(*vfs.MemFS)
	write := func(op errorfs.Op) bool {
		return op.Kind.ReadOrWrite() == errorfs.OpIsWrite && op.Kind != errorfs.OpFileClose
	}
	copyOf := func() *vfs.MemFS {
		return before.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rand.New(rand.NewPCG(0, 0))})
	}
	// reindex runs one on fs to its end or its failure.
	reindex := func(fs vfs.FS) error {
		o := h.o
		o.FS, o.Reindex = fs, true
		c, err := chain.Open(o)
		if err != nil {
			return err
		}
		run := &home{t: t, o: o, Chain: c, log: &lines{}}
		run.run()
		done := make(chan struct{})
		go func() {
			defer close(done)
			_ = run.Flush(t.Context()) // after the replay, or when Run has ended
		}()
		<-done
		return errors.Join(run.stop(), c.Close())
	}
	completes := func(what string, fs vfs.FS) {
		t.Helper()
		o := h.o
		o.FS = fs
		twin := &home{t: t, o: o, log: &lines{}}
		twin.start()
		defer twin.close()
		if tip, _ := twin.Tip(); tip.Hash != blocks[141].Hash {
			t.Fatalf("%s: tip at %d", what, tip.Height)
		}
		sameCoins(t, twin.coins(), want)
		verifies(t, o)
	}
	const step = 5 // every place comes up as the writes of both parts differ in number

	t.Run("power cut", func(t *testing.T) {
		type cut struct {
			what string
			fs   *vfs.MemFS
		}
		var mu sync.Mutex
		var cuts []cut
		n := 0
		mem := copyOf()
		fs := errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
			mu.Lock()
			defer mu.Unlock()
			if !write(op) {
				return nil
			}
			if n++; n%step == 0 || n < 40 {
				cuts = append(cuts, cut{
					fmt.Sprintf("power cut before write %d, %v of %s", n, op.Kind, op.Path),
					mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: n * 37 % 101, RNG: rand.New(rand.NewPCG(uint64(n), 1))}),
				})
			}
			return nil
		}))
		if err := reindex(fs); err != nil {
			t.Fatal(err)
		}
		for _, c := range cuts {
			completes(c.what, c.fs)
		}
		t.Logf("%d power cuts in %d writes", len(cuts), n)
	})

	t.Run("failed write", func(t *testing.T) {
		for n := int64(1); ; n += step {
			mem := copyOf()
			var count atomic.Int64
			var what atomic.Value
			fs := errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
				if write(op) && count.Add(1) == n {
					what.Store(fmt.Sprintf("write %d, %v of %s failed", n, op.Kind, op.Path))
					return errors.New("disk on fire")
				}
				return nil
			}))
			err := reindex(fs)
			if what.Load() == nil {
				if err != nil {
					t.Fatal(err)
				}
				t.Logf("%d writes", n-1)
				return
			}
			completes(what.Load().(string), mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 50, RNG: rand.New(rand.NewPCG(uint64(n), 2))}))
		}
	})
}

// Each file of a home is removed, cut or changed by a bit. The chain is refused
// with a word that says what to do, or works and is right; verify never passes over
// what a block or its undo data needs; and a reindex with a peer's help mends all.
func TestDamageOfEachFile(t *testing.T) {
	b, blocks := short()
	tip := blocks[141]
	want := modelCoins(b, tip)
	h := open(t, func(o *chain.Options) { o.FS = vfs.NewCrashableMem(); o.MaxFileBytes = 8 << 10; o.FlushBlocks = 40 })
	h.connectAll(blocks[1:100])
	h.reopen() // the index gets tables as well as logs
	h.connectAll(blocks[100:])
	h.close()
	whole := h.o.FS.(*vfs.MemFS)

	damages := map[string]func(testing.TB, vfs.FS, string){
		"removed": func(t testing.TB, fs vfs.FS, name string) {
			t.Helper()
			if err := fs.Remove(name); err != nil {
				t.Fatal(err)
			}
		},
		"cut to half": func(t testing.TB, fs vfs.FS, name string) {
			t.Helper()
			edit(t, fs, name, func(raw []byte) []byte { return raw[:len(raw)/2] })
		},
		"cut by a byte": func(t testing.TB, fs vfs.FS, name string) {
			t.Helper()
			edit(t, fs, name, func(raw []byte) []byte { return raw[:max(1, len(raw))-1] })
		},
		"a bit flipped": func(t testing.TB, fs vfs.FS, name string) {
			t.Helper()
			edit(t, fs, name, func(raw []byte) []byte {
				if len(raw) > 0 {
					raw[len(raw)*2/3] ^= 4
				}
				return raw
			})
		},
	}
	seen := map[string]int{}
	for _, dir := range []string{"blocks", "undo", "index"} {
		names, err := whole.List("home/" + dir)
		if err != nil {
			t.Fatal(err)
		}
		slices.Sort(names)
		for _, name := range names {
			path := "home/" + dir + "/" + name
			for kind, damage := range damages {
				fs := whole.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rand.New(rand.NewPCG(0, 0))})
				damage(t, fs, path)
				what := fmt.Sprintf("%s %s", path, kind)
				o := h.o
				o.FS = fs
				result := judgeDamage(t, what, o, tip, want)
				seen[result]++
				if dir != "index" && result == "unharmed" && (kind == "removed" || kind == "cut to half") {
					t.Errorf("%s: nobody noticed", what)
				}

				// What every message says to do, and a peer to sync from. It is another
				// process that does it: an index that failed keeps its lock.
				o.FS = fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rand.New(rand.NewPCG(0, 0))})
				o.Reindex = true
				mended := &home{t: t, o: o, log: &lines{}}
				mended.start()
				if _, _, err := mended.AcceptHeaders(t.Context(), headersOf(blocks[1:])); err != nil {
					t.Fatalf("%s: %v", what, err)
				}
				for _, x := range blocks[1:] {
					if s, _ := mended.Status(x.Hash); !s.HaveBlock {
						mended.submit(x.Raw)
					}
				}
				mended.wantTip(tip)
				sameCoins(t, mended.coins(), want)
				o.Reindex = false
				verifies(t, o)
			}
		}
	}
	t.Logf("%v", seen)
	for _, result := range []string{"refused", "found by verify", "unharmed"} {
		if seen[result] == 0 {
			t.Errorf("nothing was %s", result)
		}
	}
}

// judgeDamage opens a damaged chain and fails the test if it is silently wrong.
func judgeDamage(t testing.TB, what string, o chain.Options, tip *consensus.Block, want map[wire.OutPoint]string) string {
	t.Helper()
	c, err := chain.Open(o)
	if err != nil {
		if !strings.Contains(err.Error(), "dunlin chain reindex") {
			t.Errorf("%s: refused without a word on what to do: %v", what, err)
		}
		return "refused"
	}
	at, _ := c.Tip()
	r, err := c.Verify(t.Context(), chain.VerifyOptions{Depth: -1})
	if err := errors.Join(err, c.Close()); err != nil {
		if !strings.Contains(err.Error(), "dunlin chain reindex") {
			t.Fatalf("%s: %v", what, err)
		}
		return "refused"
	}
	for _, f := range r.Faults {
		if f.Mend != "dunlin chain reindex" || f.File == "" || f.What == "" {
			t.Errorf("%s: %+v", what, f)
		}
	}
	switch {
	case len(r.Faults) > 0:
		return "found by verify"
	case at.Hash != tip.Hash:
		// An older commit, whole, as after a power cut: what lies behind is replayed.
		again := &home{t: t, o: o, log: &lines{}}
		again.start()
		again.wantTip(tip)
		sameCoins(t, again.coins(), want)
		return "replayed"
	}
	sameCoins(t, storedCoins(t, o), want)
	return "unharmed"
}

// On a pruned home every message says how to start over, for a reindex cannot.
func TestDamageOfPruned(t *testing.T) {
	_, blocks := long()
	h := open(t, func(o *chain.Options) { smallFiles(o); o.FS = vfs.NewCrashableMem() })
	h.connectAll(blocks[1:])
	if _, err := h.Prune(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	h.close()
	whole := h.o.FS.(*vfs.MemFS)
	for _, dir := range []string{"blocks", "undo", "index"} {
		names, err := whole.List("home/" + dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			fs := whole.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rand.New(rand.NewPCG(0, 0))})
			if err := fs.Remove("home/" + dir + "/" + name); err != nil {
				t.Fatal(err)
			}
			o := h.o
			o.FS = fs
			c, err := chain.Open(o)
			if err == nil {
				if r, err := c.Verify(t.Context(), chain.VerifyOptions{}); err != nil || len(r.Faults) > 0 || r.Height != 560 {
					t.Errorf("%s/%s: %+v, %v", dir, name, r, err)
				}
				if err := c.Close(); err != nil {
					t.Fatal(err)
				}
				continue
			}
			if !strings.Contains(err.Error(), "rm -r home/blocks home/undo home/index home/PRUNED") || strings.Contains(err.Error(), "reindex`") {
				t.Errorf("%s/%s removed: %v", dir, name, err)
			}
		}
	}
}
