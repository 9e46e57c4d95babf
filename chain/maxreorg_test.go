package chain_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"dunlin/chain"
	"dunlin/chain/consensus"
	"dunlin/chain/consensus/enginetest"
	"dunlin/chain/consensus/pos"
)

// A deepBench is a stake network that goes back 5 blocks at most, and a home on it whose
// clock follows the blocks.
type deepBench struct {
	*home
	b    *enginetest.Builder
	main []*consensus.Block // from genesis
	now  atomic.Int64       // Unix seconds
}

const deepest = 5

func newDeepBench(t *testing.T) *deepBench {
	t.Helper()
	p := consensus.Stakenet()
	p.MaxReorg = deepest
	s := enginetest.NewStakenet(p)
	d := &deepBench{b: enginetest.NewBuilder(p)}
	d.b.Engine, d.b.Prepare, d.b.Seal = pos.New(p), s.Prepare, s.Seal
	d.main = []*consensus.Block{d.b.Genesis()}
	d.now.Store(d.main[0].Header.Timestamp.Unix())
	d.home = open(t, func(o *chain.Options) {
		o.Params, o.Engine = p, pos.New(p)
		o.Now = func() time.Time { return time.Unix(d.now.Load(), 0) }
	})
	return d
}

// branch makes n blocks on parent, another branch for every name.
func (d *deepBench) branch(parent *consensus.Block, n int, name string) (blocks []*consensus.Block) {
	for range n {
		parent = d.b.MineTemplate(parent, enginetest.Template{Data: name})
		blocks = append(blocks, parent)
	}
	return blocks
}

// live connects blocks, each at its time.
func (d *deepBench) live(blocks ...*consensus.Block) {
	d.t.Helper()
	for _, b := range blocks {
		d.at(b)
		if v := d.submitFrom(b.Raw, chain.Source{Kind: chain.FromGossip, Peer: "peer1"}); v.Outcome != chain.Connected {
			d.t.Fatalf("block at height %d: %+v", v.Height, v)
		}
	}
}

// at moves the clock to a block's time, if it is later.
func (d *deepBench) at(b *consensus.Block) {
	d.now.Store(max(d.now.Load(), b.Header.Timestamp.Unix()))
}

// grow extends the main branch.
func (d *deepBench) grow(n int) {
	d.t.Helper()
	more := d.branch(d.main[len(d.main)-1], n, "main")
	d.live(more...)
	d.main = append(d.main, more...)
}

func (d *deepBench) tip() *consensus.Block { return d.main[len(d.main)-1] }

// refused checks that a branch is kept out, by its headers and by its blocks.
func (d *deepBench) refused(blocks []*consensus.Block) {
	d.t.Helper()
	d.at(blocks[len(blocks)-1])
	before, _ := d.Tip()
	n, _, err := d.AcceptHeaders(d.t.Context(), headersOf(blocks))
	if n != 0 {
		d.t.Errorf("%d headers were taken", n)
	}
	d.wantNobody(err)
	_, _, err = d.CheckHeader(&blocks[0].Header)
	d.wantNobody(err)
	for _, src := range []chain.SourceKind{chain.FromSync, chain.FromGossip, chain.FromRPC, chain.FromImport} {
		v := d.submitFrom(blocks[0].Raw, chain.Source{Kind: src, Peer: "peer1"})
		if v.Outcome != chain.Refused {
			d.t.Errorf("from %v: %+v", src, v)
		}
		d.wantNobody(v.Err)
	}
	if v := d.submit(blocks[1].Raw); v.Outcome != chain.Orphan && v.Outcome != chain.Refused {
		d.t.Errorf("its second block: %+v", v)
	}
	if tip, _ := d.Tip(); tip.Hash != before.Hash {
		d.t.Errorf("the tip moved to height %d", tip.Height)
	}
	if best, _ := d.BestHeader(); best.Hash != before.Hash {
		d.t.Errorf("the best header is at height %d", best.Height)
	}
}

func (d *deepBench) wantNobody(err error) {
	d.t.Helper()
	if r := asRuleError(err); r == nil || r.Rule != "reorg-too-deep" || r.Blame != consensus.BlameNobody {
		d.t.Errorf("got %v, want reorg-too-deep that blames nobody", err)
	}
}

// The deepest reorganisation is followed, a deeper one is kept out and shown, until an
// operator accepts it; all that over restarts.
func TestMaxReorg(t *testing.T) {
	d := newDeepBench(t)
	d.grow(20)
	// As deep as may be.
	side := d.branch(d.main[20-deepest], deepest+1, "side")
	d.at(side[deepest])
	for _, b := range side {
		d.submit(b.Raw)
	}
	d.wantTip(side[deepest])
	d.main = append(d.main[:20-deepest+1], side...)

	// One more is too deep, whatever its work.
	deep := d.branch(d.main[len(d.main)-1-deepest-1], 30, "deep")
	d.refused(deep)
	d.reopen()
	d.refused(deep)
	if lines := d.log.with("kept out", "branch="+deep[0].Hash.String(), "accept-reorg "+deep[0].Hash.String(), fmt.Sprintf("depth=%d", deepest+1)); len(lines) != 2 {
		t.Errorf("log lines: %q", lines) // one before the restart, one after
	}
	list := d.Refused()
	if len(list) != 1 || list[0].First != deep[0].Hash || list[0].Depth != deepest+1 || list[0].Tip.Hash != deep[29].Hash || list[0].Fork != 15 {
		t.Fatalf("refused: %+v", list)
	}
	tips := d.Tips()
	if last := tips[len(tips)-1]; last.Status != "refused" || last.Tip.Hash != deep[29].Hash || last.Branch != 30 || last.Tip.Height != list[0].Tip.Height {
		t.Errorf("tips: %+v", tips)
	}
	// The chain goes on meanwhile, and what was refused stays so with less work too.
	d.grow(3)
	d.refused(deep)
	if got := d.Refused(); len(got) != 1 || got[0].Depth != deepest+4 {
		t.Errorf("refused: %+v", got)
	}

	// What nobody has heard of, or what needs no word, cannot be accepted.
	if err := d.AcceptReorg(t.Context(), chainhash.Hash{1}); !errors.Is(err, chain.ErrNotFound) {
		t.Errorf("an unknown block: %v", err)
	}
	if err := d.AcceptReorg(t.Context(), d.tip().Hash); !errors.Is(err, chain.ErrNotRefused) {
		t.Errorf("the tip: %v", err)
	}
	// The word is there after a restart, when nothing else of the branch is.
	if err := d.AcceptReorg(t.Context(), deep[29].Hash); err != nil || d.ReorgsAccepted() != 1 {
		t.Fatal(err)
	}
	d.reopen()
	if len(d.Refused()) > 0 {
		t.Errorf("still refused: %+v", d.Refused())
	}
	d.wantTip(d.tip())
	if n, _, err := d.AcceptHeaders(t.Context(), headersOf(deep)); n != 30 || err != nil {
		t.Fatal(n, err)
	}
	for _, b := range deep {
		d.submit(b.Raw)
	}
	d.wantTip(deep[29])
	// The word was for that branch: the way back is as deep and needs another.
	old := append(slices.Clone(d.main[16:]), d.branch(d.tip(), 30, "main")...)
	d.at(old[len(old)-1])
	for _, reopen := range []bool{false, true} {
		if reopen {
			d.reopen()
			d.wantTip(deep[29])
		}
		n, _, err := d.AcceptHeaders(t.Context(), headersOf(old))
		if n != 0 {
			t.Errorf("%d headers of the old branch", n)
		}
		d.wantNobody(err)
	}
}

// A branch whose blocks are here already, since it was near when they came, is left
// alone all the same when it is far, and followed at the operator's word at once.
func TestMaxReorgKnownBranch(t *testing.T) {
	d := newDeepBench(t)
	d.grow(10)
	side := d.branch(d.main[8], 20, "side")
	d.grow(1)
	for _, b := range side[:2] {
		d.at(b)
		if v := d.submit(b.Raw); v.Outcome != chain.SideChain {
			t.Fatalf("%+v", v)
		}
	}
	// Its headers are the best, but for the last one nobody has the blocks.
	d.at(side[19])
	if n, _, err := d.AcceptHeaders(t.Context(), headersOf(side)); n != 18 || err != nil {
		t.Fatal(n, err)
	}
	if best, _ := d.BestHeader(); best.Hash != side[19].Hash {
		t.Fatalf("the best header is at height %d", best.Height)
	}
	d.grow(2)
	d.now.Add(1000)
	d.grow(1) // the anchor passes the fork
	for i := 0; ; i++ {
		if best, _ := d.BestHeader(); best.Hash == d.tip().Hash {
			break
		} else if i == deepest {
			t.Fatalf("the best header is at height %d", best.Height)
		}
		d.grow(1)
	}
	if s, _ := d.Status(side[19].Hash); !s.Refused {
		t.Error("the status does not say so")
	}
	tips := d.Tips()
	if i := slices.IndexFunc(tips, func(c chain.ChainTip) bool { return c.Status == "refused" }); i < 0 || tips[i].Tip.Hash != side[19].Hash || tips[i].Branch != 20 {
		t.Errorf("tips: %+v", tips)
	}
	if list := d.Refused(); len(list) != 1 || list[0].First != side[0].Hash {
		t.Errorf("refused: %+v", list)
	}
	v := d.submit(side[2].Raw)
	d.wantNobody(v.Err)
	if err := d.AcceptReorg(t.Context(), side[5].Hash); err != nil {
		t.Fatal(err)
	}
	for _, b := range side[2:] {
		d.submit(b.Raw)
	}
	d.wantTip(side[19])
}

// Who catches up follows the branch with most work at any depth, and has an anchor when
// the blocks have been in the chain for a while.
func TestMaxReorgWhileCatchingUp(t *testing.T) {
	d := newDeepBench(t)
	d.now.Store(1 << 31)
	first := d.branch(d.main[0], 30, "first")
	d.connectAll(first)
	better := d.branch(d.main[0], 40, "better")
	for _, b := range better {
		d.submit(b.Raw)
	}
	d.wantTip(better[39])
	d.reopen() // that it is old is not taken for granted
	best := d.branch(d.main[0], 50, "best")
	for _, b := range best {
		d.submit(b.Raw)
	}
	d.wantTip(best[49])
	// Half of the time that five blocks take.
	d.now.Add(159)
	third := d.branch(best[49], 1, "third")
	d.connectAll(third)
	if n, _, err := d.AcceptHeaders(t.Context(), headersOf(d.branch(d.main[0], 1, "x"))); n != 1 || err != nil {
		t.Errorf("early: %d, %v", n, err)
	}
	d.now.Add(1)
	d.connectAll(d.branch(third[0], 1, "third"))
	d.refused(d.branch(best[40], 20, "x"))
	d.reopen()
	d.refused(d.branch(best[40], 20, "x"))
	// An index that is made anew has the anchor too.
	d.o.Reindex = true
	d.reopen()
	d.o.Reindex = false
	d.refused(d.branch(best[40], 20, "x"))
}

// An operator who invalidates what lies below the anchor means that too.
func TestMaxReorgInvalidate(t *testing.T) {
	d := newDeepBench(t)
	d.grow(20)
	other := d.branch(d.main[10], 4, "other")
	d.refused(other)
	if err := d.Invalidate(t.Context(), d.main[11].Hash); err != nil {
		t.Fatal(err)
	}
	d.wantTip(d.main[10])
	if d.ReorgsAccepted() != 1 {
		t.Error("who was refused a branch is not told to try again")
	}
	d.connectAll(other)
	d.wantTip(other[3])
	if err := d.Reconsider(t.Context(), d.main[11].Hash); err != nil {
		t.Fatal(err)
	}
	d.wantTip(d.tip())
	d.reopen()
	d.wantTip(d.tip())
}

// A branch that several peers tell of at once is remembered once.
func TestRefusedBranchAtOnce(t *testing.T) {
	d := newDeepBench(t)
	d.grow(20)
	b := d.branch(d.main[2], 25, "deep")
	d.at(b[24])
	hs := headersOf(b)
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			_, _, err := d.AcceptHeaders(t.Context(), hs)
			d.wantNobody(err)
		})
	}
	all.Wait()
	if n := len(d.Refused()); n != 1 {
		t.Errorf("one branch is remembered %d times", n)
	}
	if lines := d.log.with("kept out"); len(lines) != 1 {
		t.Errorf("%d lines", len(lines))
	}
}

// However many branches are refused, few are remembered and little is logged.
func TestManyRefusedBranches(t *testing.T) {
	d := newDeepBench(t)
	d.grow(20)
	for i := range 40 {
		b := d.branch(d.main[i%10], 25, fmt.Sprint("deep", i))
		d.at(b[24])
		_, _, err := d.AcceptHeaders(t.Context(), headersOf(b))
		d.wantNobody(err)
	}
	if n := len(d.Refused()); n != 16 {
		t.Errorf("%d branches are remembered", n)
	}
	if lines := d.log.with("kept out"); len(lines) != 1 {
		t.Errorf("%d lines", len(lines))
	}
	// Headers that could not be of a branch are not remembered.
	b := d.branch(d.main[3], 25, "forged")
	hs := headersOf(b)
	hs[0].Seal = slices.Clone(hs[0].Seal)
	hs[0].Seal[139] ^= 1
	_, _, err := d.AcceptHeaders(t.Context(), hs)
	d.wantNobody(err)
	for _, r := range d.Refused() {
		if r.First == b[0].Hash {
			t.Error("a forged branch is shown")
		}
	}
}

// Early holders, who have had all the stake there was, make another history from genesis:
// it has more work, and is refused before any of it is looked at.
func TestLongRangeFork(t *testing.T) {
	d := newDeepBench(t)
	d.grow(20)
	history := d.branch(d.main[0], 60, "another history")
	d.refused(history)
	if list := d.Refused(); len(list) != 1 || list[0].Fork != 0 || list[0].Depth != 20 {
		t.Errorf("refused: %+v", list)
	}
}

// A file that is not what was written is no anchor: the start says so and what to do.
func TestDamagedAnchor(t *testing.T) {
	d := newDeepBench(t)
	d.grow(20)
	d.close()
	path := d.o.FS.PathJoin(d.o.Dir, "ANCHOR")
	f, err := d.o.FS.Create(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write([]byte("crc32c 00000001\n")); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := chain.Open(d.o); err == nil || !strings.Contains(err.Error(), "ANCHOR") || !strings.Contains(err.Error(), "rm ") {
		t.Fatalf("got %v", err)
	}
	if err := d.o.FS.Remove(path); err != nil {
		t.Fatal(err)
	}
	d.start()
	d.wantTip(d.tip())
	// It has a new one when it has been in step for a while.
	d.now.Add(200)
	d.grow(1)
	d.refused(d.branch(d.main[10], 20, "x"))
}
