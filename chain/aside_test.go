package chain_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"dunlin/chain"
	"dunlin/chain/consensus"
	"dunlin/chain/consensus/enginetest"
	"dunlin/chain/consensus/pos"
	"dunlin/chain/store"
)

var fromGossip = chain.Source{Kind: chain.FromGossip, Peer: "peer1"}

// A shelfBench is a home on stakenet where few blocks may lie aside.
type shelfBench struct {
	*home
	b      *enginetest.Builder
	blocks []*consensus.Block // of its chain, from genesis
	most   int64
	free   atomic.Uint64
}

// newShelfBench has a chain of n blocks and room for so many small ones aside.
func newShelfBench(t *testing.T, n, most int) *shelfBench {
	t.Helper()
	p := consensus.Stakenet()
	s := &shelfBench{most: int64(most) * store.AsideUnit}
	s.b, s.blocks = stakers(p, n)
	s.home = open(t, func(o *chain.Options) {
		o.Params, o.Engine, o.AsideBytes = p, pos.New(p), s.most
		o.FS = fullFS{vfs.NewCrashableMem(), &s.free}
	})
	s.connectAll(s.blocks[1:])
	return s
}

// side makes n blocks above parent; another branch each time, with real stakes.
func (s *shelfBench) side(parent *consensus.Block, n int, name string) (blocks []*consensus.Block) {
	for range n {
		parent = s.b.MineTemplate(parent, enginetest.Template{Data: name})
		blocks = append(blocks, parent)
	}
	return blocks
}

// files is how many bytes the block files have.
func (s *shelfBench) files() int64 {
	s.t.Helper()
	u, err := s.DiskUse()
	if err != nil {
		s.t.Fatal(err)
	}
	return u.Blocks
}

// onDisk is what the folder with the blocks aside holds.
func (s *shelfBench) onDisk() (files int, bytes int64) {
	s.t.Helper()
	dir := s.o.FS.PathJoin(s.o.Dir, "aside")
	names, err := s.o.FS.List(dir)
	if err != nil {
		return 0, 0 // it is made when it is needed
	}
	for _, name := range names {
		info, err := s.o.FS.Stat(s.o.FS.PathJoin(dir, name))
		if err != nil {
			s.t.Fatal(err)
		}
		bytes += (info.Size() + store.AsideUnit - 1) / store.AsideUnit * store.AsideUnit
	}
	return len(names), bytes
}

// bounded checks that no more lies aside than may, by its own account and on disk, and that
// the block files have not grown beyond what they had.
func (s *shelfBench) bounded(files int64) {
	s.t.Helper()
	n, bytes := s.Aside()
	onDisk, diskBytes := s.onDisk()
	if n != onDisk || bytes != diskBytes {
		s.t.Fatalf("%d blocks with %d bytes lie aside, on disk are %d with %d", n, bytes, onDisk, diskBytes)
	}
	if bytes > s.most {
		s.t.Fatalf("%d bytes lie aside, at most %d may", bytes, s.most)
	}
	if got := s.files(); got != files {
		s.t.Fatalf("the block files have %d bytes, they had %d", got, files)
	}
}

// Whoever has a stake, and makes as many blocks with it as he likes, cannot fill the disk
// with them: what was never connected takes as much room as it may, and not in the block
// files. What builds on the tip is connected all the same, and goes there.
func TestBlocksAside(t *testing.T) {
	const most = 24
	for _, attack := range []struct {
		name string
		flow func(s *shelfBench, round int) []*consensus.Block // what a round sends
		src  chain.Source
		want chain.Outcome
	}{
		{"beside the tip", func(s *shelfBench, round int) []*consensus.Block {
			return s.side(s.blocks[20], 1, fmt.Sprint("twin", round))
		}, fromGossip, chain.SideChain},
		{"an old fork", func(s *shelfBench, round int) []*consensus.Block {
			return s.side(s.blocks[10], 5, fmt.Sprint("old", round))
		}, fromSync, chain.SideChain},
		{"without the first", func(s *shelfBench, round int) []*consensus.Block {
			branch := s.side(s.blocks[20], 8, fmt.Sprint("withheld", round))
			if _, _, err := s.AcceptHeaders(s.t.Context(), headersOf(branch)); err != nil {
				s.t.Fatal(err)
			}
			s.Follow(branch[7].Hash)
			return branch[1:]
		}, fromSync, chain.Stored},
	} {
		t.Run(attack.name, func(t *testing.T) {
			t.Parallel()
			s := newShelfBench(t, 21, most)
			files := s.files()
			sent := 0
			for round := range 20 {
				for _, blk := range attack.flow(s, round) {
					v := s.submitFrom(blk.Raw, attack.src)
					if v.Outcome != attack.want {
						t.Fatalf("%+v", v)
					}
					if raw, err := s.Block(blk.Hash); err != nil || string(raw) != string(blk.Raw) {
						t.Fatalf("a block aside cannot be read: %v", err)
					}
					if st, _ := s.Status(blk.Hash); !st.HaveBlock {
						t.Fatal("a block aside is not said to be here")
					}
					s.bounded(files)
					sent++
				}
			}
			if n, _ := s.Aside(); sent > most && n < most/2 {
				t.Errorf("%d blocks lie aside, there is room for %d", n, most)
			}
			next := s.b.Mine(s.blocks[21])
			s.connectAll([]*consensus.Block{next})
			s.wantTip(next)
			if s.files() <= files {
				t.Error("a block that was connected is not in the block files")
			}
			// Nothing of it is there after a restart, and the room is the same.
			s.close()
			if n, _ := s.onDisk(); n != 0 {
				t.Errorf("%d files aside after the end", n)
			}
			s.start()
			s.wantTip(next)
			s.bounded(s.files())
			if n, _ := s.Aside(); n != 0 {
				t.Errorf("%d blocks aside after a restart", n)
			}
		})
	}
}

// Blocks that are invalid are not kept anywhere, nor is what was built on them.
func TestInvalidBlocksAreNotKept(t *testing.T) {
	s := newShelfBench(t, 5, 100)
	files := s.files()
	much := int64(math.MaxInt32) * 1000
	for k := range 5 {
		bad := s.b.MineTemplate(s.blocks[5], enginetest.Template{Value: &much, Data: fmt.Sprint(k)})
		s.wantRule(bad, "bad-cb-amount")
		s.bounded(files)
	}
	// A branch with more work whose first block is invalid: known only when it is its turn.
	bad := s.b.MineTemplate(s.blocks[4], enginetest.Template{Value: &much, Data: "bad"})
	s.want(bad, chain.SideChain)
	above := s.side(bad, 3, "above")
	if _, _, err := s.AcceptHeaders(t.Context(), headersOf(above)); err != nil {
		t.Fatal(err)
	}
	s.want(above[2], chain.Stored)
	s.want(above[1], chain.Stored)
	if n, _ := s.Aside(); n != 3 {
		t.Fatalf("%d blocks aside", n)
	}
	s.want(above[0], chain.Refused)
	s.rest()
	s.wantTip(s.blocks[5])
	s.bounded(files)
	if n, _ := s.Aside(); n != 0 {
		t.Errorf("%d blocks aside of a branch that is invalid", n)
	}
	for _, blk := range append(above, bad) {
		if st, _ := s.Status(blk.Hash); st.HaveBlock || !st.Invalid {
			t.Errorf("%+v", st)
		}
	}
}

// The branch that sync follows keeps its blocks whatever else is sent, be they in order or
// not, and the chain goes over to it; then they are in the block files, over restarts too.
func TestFollowedBranchStaysAside(t *testing.T) {
	const most = 24
	for name, order := range map[string]func([]*consensus.Block){
		"in order": func([]*consensus.Block) {}, "backwards": slices.Reverse[[]*consensus.Block],
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newShelfBench(t, 20, most)
			good := s.side(s.blocks[10], 12, "good")
			if _, _, err := s.AcceptHeaders(t.Context(), headersOf(good)); err != nil {
				t.Fatal(err)
			}
			s.Follow(good[11].Hash)
			files := s.files()
			send := slices.Clone(good)
			order(send)
			for k, blk := range send[:10] {
				if v := s.submit(blk.Raw); v.Outcome != chain.SideChain && v.Outcome != chain.Stored && v.Outcome != chain.Connected {
					t.Fatalf("%+v", v)
				}
				if tip, _ := s.Tip(); tip.Hash != s.blocks[20].Hash {
					s.t.Fatal("the chain went over early")
				}
				for _, twin := range s.side(s.blocks[11+k%7], 3, fmt.Sprint("flood", k)) {
					s.submitFrom(twin.Raw, fromGossip)
					s.bounded(files)
				}
				for _, mine := range send[:k+1] {
					if st, _ := s.Status(mine.Hash); !st.HaveBlock {
						t.Fatal("a block of the branch that is followed made way")
					}
				}
			}
			s.submit(send[10].Raw)
			s.submit(send[11].Raw)
			s.wantTip(good[11])
			s.rest()
			for _, blk := range good {
				if raw, err := s.Block(blk.Hash); err != nil || string(raw) != string(blk.Raw) {
					t.Fatalf("%v", err)
				}
			}
			for _, blk := range good {
				if st, _ := s.Status(blk.Hash); !st.Valid || !st.Active {
					t.Errorf("%+v", st)
				}
			}
			s.reopen()
			s.wantTip(good[11])
		})
	}
}

// Blocks make way by branch, those of the one that was followed longest ago first, its
// highest before those below; what made way is welcome again, and links what waits for it.
func TestWhoMakesWay(t *testing.T) {
	s := newShelfBench(t, 20, 16)
	branch := func(name string) []*consensus.Block {
		blocks := s.side(s.blocks[12], 5, name)
		if _, _, err := s.AcceptHeaders(t.Context(), headersOf(blocks)); err != nil {
			t.Fatal(err)
		}
		s.Follow(blocks[4].Hash)
		for _, blk := range blocks {
			s.want(blk, chain.SideChain)
		}
		return blocks
	}
	have := func(blocks []*consensus.Block) (n int) {
		for _, blk := range blocks {
			if st, _ := s.Status(blk.Hash); st.HaveBlock {
				n++
			}
		}
		return n
	}
	first, second, third := branch("first"), branch("second"), branch("third")
	if a, b, c := have(first), have(second), have(third); a != 5 || b != 5 || c != 5 {
		t.Fatal(a, b, c)
	}
	// The sixteenth fits, the next makes the first branch smaller: to seven eighths.
	fourth := branch("fourth")
	if a, b, c, d := have(first), have(second), have(third), have(fourth); a+b+c+d > 16 || a > 0 && b < 5 || b < 4 || c != 5 || d != 5 {
		t.Fatal(a, b, c, d)
	}
	if lines := s.log.with("made way for others"); len(lines) == 0 {
		t.Error("nothing was said")
	}
	for k, blk := range first {
		if st, _ := s.Status(blk.Hash); st.HaveBlock != (k < have(first)) {
			t.Errorf("block %d of the first branch: %+v", k, st)
		}
	}
	// Now it is the one with most work.
	more := s.side(first[4], 6, "first")
	if _, _, err := s.AcceptHeaders(t.Context(), headersOf(more)); err != nil {
		t.Fatal(err)
	}
	s.Follow(more[5].Hash)
	for _, blk := range more {
		if v := s.submit(blk.Raw); v.Outcome != chain.Stored {
			t.Fatalf("its parent is not here: %+v", v)
		}
	}
	for _, blk := range first {
		s.submit(blk.Raw)
	}
	s.wantTip(more[5])
	s.reopen()
	s.wantTip(more[5])
}

// Where nothing but the branch that is followed is left, it may take a part of the free
// space; if that is not there its next block is not kept, which is nobody's fault.
func TestLongBranchAside(t *testing.T) {
	const most = 8
	s := newShelfBench(t, 20, most)
	good := s.side(s.blocks[5], 16, "good")
	if _, _, err := s.AcceptHeaders(t.Context(), headersOf(good)); err != nil {
		t.Fatal(err)
	}
	s.Follow(good[15].Hash)
	for _, blk := range good[:most] {
		s.want(blk, chain.SideChain)
	}
	s.free.Store(4*store.AsideUnit - 1)
	v := s.want(good[most], chain.Refused)
	wantBlame(t, v.Err, "too-many-blocks-aside", consensus.BlameNobody)
	if st, ok := s.Status(good[most].Hash); !ok || st.HaveBlock || st.Invalid {
		t.Errorf("%+v", st)
	}
	s.bounded(s.files())
	s.free.Store(4 * store.AsideUnit)
	s.want(good[most], chain.SideChain)
	s.want(good[most+1], chain.Refused)
	// Another branch is not worth that.
	s.free.Store(1 << 40)
	v = s.want(s.side(s.blocks[3], 1, "other")[0], chain.Refused)
	wantBlame(t, v.Err, "too-many-blocks-aside", consensus.BlameNobody)
	for _, blk := range good[most+1:] {
		s.submit(blk.Raw)
	}
	s.wantTip(good[15])
	s.rest()
	if n, bytes := s.Aside(); n != 0 || bytes != 0 {
		t.Errorf("%d blocks with %d bytes aside", n, bytes)
	}
}

// Any crash leaves a chain that goes on, and nothing aside.
func TestCrashWithBlocksAside(t *testing.T) {
	s := newShelfBench(t, 20, 24)
	good := s.side(s.blocks[10], 12, "good")
	for _, blk := range good[:10] {
		s.want(blk, chain.SideChain)
	}
	if err := s.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	fs := s.o.FS.(fullFS).FS.(*vfs.MemFS)
	for _, percent := range []int{0, 50, 100} {
		crashed := fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: rand.New(rand.NewPCG(1, uint64(percent)))})
		o := s.o
		o.FS = fullFS{crashed, &s.free}
		h := &shelfBench{home: &home{t: t, o: o, log: &lines{}}, most: s.most}
		h.start()
		h.wantTip(s.blocks[20])
		if n, _ := h.onDisk(); n != 0 {
			t.Errorf("%d files aside after a crash", n)
		}
		if _, ok := h.Status(good[3].Hash); ok {
			t.Error("the header of a block that is not here is stored")
		}
		for _, blk := range good {
			h.submit(blk.Raw)
		}
		h.wantTip(good[11])
		h.reopen()
		h.wantTip(good[11])
		h.close()
	}
}

// A block can be read at any time, wherever it lies.
func TestReadersOfBlocksAside(t *testing.T) {
	s := newShelfBench(t, 20, 24)
	good := s.side(s.blocks[10], 12, "good")
	var readers sync.WaitGroup
	stop := make(chan struct{})
	var least atomic.Int32 // blocks that are here for good
	for range 2 {
		readers.Go(func() {
			buf := make([]byte, 64<<10)
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				k := n % len(good)
				sure := int32(k) < least.Load()
				raw, err := s.Block(good[k].Hash)
				if err == nil && string(raw) != string(good[k].Raw) || err != nil && sure {
					t.Errorf("block %d: %v", k, err)
					return
				}
				if err := s.CheckBlock(good[k].Hash, buf); err != nil && sure {
					t.Errorf("block %d: %v", k, err)
					return
				}
				blocks, err := s.ReadBlocks(buf, hashesOf(good[k:]))
				if err != nil && sure || err == nil && string(blocks[0]) != string(good[k].Raw) {
					t.Errorf("block %d: %v", k, err)
					return
				}
				part := buf[:40]
				if err := s.ReadBlockPart(good[k].Hash, 8, part); err == nil && string(part) != string(good[k].Raw[8:48]) || err != nil && sure {
					t.Errorf("part of block %d: %v", k, err)
					return
				}
			}
		})
	}
	for k, blk := range good {
		s.submit(blk.Raw)
		least.Store(int32(k + 1))
	}
	s.wantTip(good[11])
	s.rest()
	close(stop)
	readers.Wait()
}

// Damage of what lies aside is noticed, and the block is fetched again.
func TestDamageAside(t *testing.T) {
	s := newShelfBench(t, 20, 24)
	good := s.side(s.blocks[10], 11, "good")
	for _, blk := range good[:10] {
		s.want(blk, chain.SideChain)
	}
	dir := s.o.FS.PathJoin(s.o.Dir, "aside")
	names, err := s.o.FS.List(dir)
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(names)
	f, err := s.o.FS.OpenReadWrite(s.o.FS.PathJoin(dir, names[3]), vfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte{0xff, 0xff}, 100); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	s.submit(good[10].Raw)
	s.rest()
	s.wantTip(s.blocks[20])
	if list, _ := s.Damaged(); len(list) != 1 || list[0] != good[3].Hash {
		t.Fatalf("damaged: %v", list)
	}
	s.submit(good[3].Raw)
	s.wantTip(good[10])
	if list, _ := s.Damaged(); len(list) != 0 {
		t.Errorf("damaged: %v", list)
	}
	s.rest()
	if n, bytes := s.Aside(); n != 0 || bytes != 0 {
		t.Errorf("%d blocks with %d bytes aside", n, bytes)
	}
}

// What the node's own people bring is kept for good, wherever it lies.
func TestOwnBlocksAreKept(t *testing.T) {
	s := newShelfBench(t, 20, 24)
	for k, kind := range []chain.SourceKind{chain.FromRPC, chain.FromMiner, chain.FromImport} {
		files := s.files()
		blk := s.side(s.blocks[18], 1, fmt.Sprint(k))[0]
		if v := s.submitFrom(blk.Raw, chain.Source{Kind: kind}); v.Outcome != chain.SideChain {
			t.Fatalf("%+v", v)
		}
		if s.files() <= files {
			t.Errorf("a block from %v is not in the block files", kind)
		}
		if err := s.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		s.reopen()
		if st, _ := s.Status(blk.Hash); !st.HaveBlock {
			t.Errorf("a block from %v is gone after a restart", kind)
		}
	}
}

// Forgotten headers leave nothing aside.
func TestForgottenBlocksAside(t *testing.T) {
	const ahead, side = 20, 40
	s := newShelfBench(t, 20, 1000)
	chain.LimitHeaders(s.Chain, side, ahead, 0)
	files := s.files()
	for round := range 30 {
		branch := s.side(s.blocks[12], 6, fmt.Sprint(round))
		if _, _, err := s.AcceptHeaders(t.Context(), headersOf(branch)); err != nil {
			t.Fatal(err)
		}
		for _, blk := range branch[:3] {
			s.want(blk, chain.SideChain)
		}
		s.bounded(files)
		n, _ := s.Aside()
		if _, most, _ := chain.Unproven(s.Chain); n > most {
			t.Fatalf("%d blocks aside, there are %d headers at most", n, most)
		}
	}
	if n, _ := s.Aside(); n == 90 {
		t.Error("no header was forgotten, the test shows nothing")
	}
}

func TestAsideOption(t *testing.T) {
	p := consensus.Stakenet()
	p.MaxReorg = 10_000
	for _, bad := range []int64{-1, math.MinInt64} {
		if _, err := chain.Open(chain.Options{Dir: "x", FS: vfs.NewMem(), Params: p, Engine: pos.New(p), AsideBytes: bad}); err == nil {
			t.Errorf("%d bytes aside were taken", bad)
		}
	}
}

func hashesOf(blocks []*consensus.Block) []chainhash.Hash {
	hashes := make([]chainhash.Hash, len(blocks))
	for i, b := range blocks {
		hashes[i] = b.Hash
	}
	return hashes
}

// lateFS reads one file when it is allowed to.
type lateFS struct {
	vfs.FS
	file          string
	once          *sync.Once
	asked, permit chan struct{}
}

func (f lateFS) Open(name string, opts ...vfs.OpenOption) (vfs.File, error) {
	if f.PathBase(name) == f.file {
		f.once.Do(func() { close(f.asked) })
		<-f.permit
	}
	return f.FS.Open(name, opts...)
}

// A block that is dropped, since one below it proves invalid, while it is read to be the
// next one is no reason to stop.
func TestDroppedWhileItIsRead(t *testing.T) {
	p := consensus.Stakenet()
	b, blocks := stakers(p, 5)
	late := lateFS{vfs.NewMem(), "00000006.blk", new(sync.Once), make(chan struct{}), make(chan struct{})} // the sixth that came
	h := open(t, func(o *chain.Options) {
		o.Params, o.Engine, o.FS, o.Workers = p, pos.New(p), late, 2
		o.ScriptsChecked = func(chainhash.Hash, uint32) bool { <-late.asked; return false }
	})
	h.connectAll(blocks[1:])
	_, _, tx := holder(t, p, 4)
	tx.TxIn[0].Witness[0][7] ^= 1
	bad := b.Mine(blocks[5], tx)
	above := b.MineN(bad, 2)
	if _, _, err := h.AcceptHeaders(t.Context(), headersOf(append([]*consensus.Block{bad}, above...))); err != nil {
		t.Fatal(err)
	}
	h.want(above[0], chain.Stored)
	h.want(above[1], chain.Stored)
	v := h.submitFrom(bad.Raw, fromGossip)
	checkRule(t, v.Err, "mandatory-script-verify-flag-failed")
	close(late.permit)
	h.rest()
	h.wantTip(blocks[5])
	if n, _ := h.Aside(); n != 0 {
		t.Errorf("%d blocks aside", n)
	}
	h.connectAll(b.MineN(blocks[5], 1))
}
