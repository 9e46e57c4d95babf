package chain_test

import (
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/btcsuite/btcd/btcec/v2"
	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/wire/v2"

	"dunlin/chain"
	"dunlin/chain/consensus"
	"dunlin/chain/consensus/enginetest"
	"dunlin/chain/consensus/pos"
)

// junk makes branches of n headers above parent by stake that nobody has, which claims all
// the money there is: more work than any honest branch.
func junk(t *testing.T, b *enginetest.Builder, parent *consensus.Block, branches, n int) [][]*consensus.Block {
	t.Helper()
	nobody, _ := btcec.PrivKeyFromBytes([]byte{31: 7})
	all := make([][]*consensus.Block, branches)
	for k := range all {
		at := parent
		for range n {
			at = forgeChild(t, b, at, wire.OutPoint{Index: uint32(k)}, nobody, fmt.Sprint(k))
			all[k] = append(all[k], at)
		}
	}
	return all
}

// A flood is what an attacker shows a chain of stake, again and again.
type flood struct {
	t        *testing.T
	h        *home
	branches [][]*consensus.Block
	shown    int
}

// rage shows every branch once. Nothing of it is refused for want of room, and what the
// tree holds stays within its bounds, of which validated blocks are no part.
func (f *flood) rage() {
	f.t.Helper()
	for _, branch := range f.branches {
		n, _, err := f.h.AcceptHeaders(f.t.Context(), headersOf(branch))
		if r := asRuleError(err); err != nil && r.Rule != "headers-too-far-ahead" && r.Rule != "reorg-too-deep" {
			f.t.Fatal(err)
		}
		f.shown += n
		f.bounded()
	}
}

func (f *flood) bounded() {
	f.t.Helper()
	waiting, most, numbers := chain.Unproven(f.h.Chain)
	tip, _ := f.h.Tip()
	// Beside the tip's chain there are blocks of branches that it left.
	if waiting > most || numbers > int(tip.Height)+1+most+100 {
		f.t.Fatalf("%d headers without a validated block, at most %d; %d numbers, the tip is at height %d", waiting, most, numbers, tip.Height)
	}
}

func openToFlood(t *testing.T, p *consensus.Params, ahead, side int) *home {
	t.Helper()
	h := open(t, func(o *chain.Options) { o.Params, o.Engine, o.HeadersAhead = p, pos.New(p), ahead })
	chain.LimitHeaders(h.Chain, side, ahead, 0)
	return h
}

// Whatever was shown in headers, and however often, the headers of the honest chain have
// room, and its blocks connect; so does a reorganisation while headers without stake fill
// everything. Nothing of them is on disk, nor there after a restart.
func TestHeaderFlood(t *testing.T) {
	const ahead, side = 20, 60
	p := consensus.Stakenet()
	b, blocks := stakers(p, 60)
	h := openToFlood(t, p, ahead, side)
	h.connectAll(blocks[1:4])
	f := &flood{t: t, h: h, branches: append(junk(t, b, blocks[2], 12, ahead+2), junk(t, b, blocks[1], 4, 3)...)}
	for range 10 {
		f.rage()
	}
	if _, most, _ := chain.Unproven(h.Chain); f.shown < 5*most {
		t.Fatalf("%d headers were taken, the test shows little", f.shown)
	}
	check := func(from int, rest []*consensus.Block) {
		t.Helper()
		for len(rest) > 0 {
			// The headers that are taken ahead, then their blocks.
			_, last, err := h.AcceptHeaders(t.Context(), headersOf(rest))
			if r := asRuleError(err); err != nil && r.Rule != "headers-too-far-ahead" {
				t.Fatal(err)
			}
			n := int(last.Height) - from
			if n != min(len(rest), ahead) {
				t.Fatalf("%d headers from height %d on were taken, want %d", n, from, min(len(rest), ahead))
			}
			h.Follow(last.Hash)
			f.rage()
			for _, blk := range rest[:n] { // of the branch that is followed none is forgotten
				if s, ok := h.Status(blk.Hash); !ok || s.Invalid {
					t.Fatalf("a header of the branch that sync follows is gone: %+v, %t", s, ok)
				}
			}
			for _, blk := range rest[:n/2+1] {
				if v := h.submitFrom(blk.Raw, chain.Source{Kind: chain.FromSync, Peer: "peer1"}); v.Outcome != chain.Connected {
					t.Fatalf("%+v", v)
				}
			}
			rest = rest[n/2+1:]
			from += n/2 + 1
		}
	}
	check(3, blocks[4:31])
	h.wantTip(blocks[30])
	h.reopen()
	chain.LimitHeaders(h.Chain, side, ahead, 0)
	if waiting, _, _ := chain.Unproven(h.Chain); waiting != 0 {
		t.Errorf("%d headers without blocks after a restart", waiting)
	}
	if n, err := chain.HeaderRecords(h.Chain); n != 31 || err != nil {
		t.Errorf("the index has %d headers, want 31 (%v)", n, err)
	}
	check(30, blocks[31:])
	h.wantTip(blocks[60])

	// A reorganisation, as honest nodes see it, with everything full.
	f.branches = append(f.branches, junk(t, b, blocks[58], 16, ahead)...)
	f.rage()
	branch := b.MineN(blocks[52], 12)
	if n, _, err := h.AcceptHeaders(t.Context(), headersOf(branch)); n != 12 || err != nil {
		t.Fatal(n, err)
	}
	h.Follow(branch[11].Hash)
	f.rage()
	for _, blk := range slices.Backward(branch) { // what waits for those below is kept too
		h.submitFrom(blk.Raw, chain.Source{Kind: chain.FromSync, Peer: "peer1"})
	}
	h.wantTip(branch[11])
	h.reopen()
	h.wantTip(branch[11])
}

// A home of an earlier version has headers without stake on disk: they are gone after a
// start, and from the disk with the next commit.
func TestHeadersOfAnEarlierVersion(t *testing.T) {
	p := consensus.Stakenet()
	b, blocks := stakers(p, 6)
	h := openToFlood(t, p, 20, 200)
	h.connectAll(blocks[1:4])
	gap := blocks[6] // a block whose parent's is missing stays, with the header between
	if _, _, err := h.AcceptHeaders(t.Context(), headersOf(blocks[4:])); err != nil {
		t.Fatal(err)
	}
	if v := h.submitFrom(gap.Raw, chain.Source{Kind: chain.FromRPC}); v.Outcome != chain.Stored {
		t.Fatalf("%+v", v)
	}
	(&flood{t: t, h: h, branches: junk(t, b, blocks[2], 10, 20)}).rage()
	chain.StoreAllHeaders(h.Chain)
	if err := h.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	records := func() int {
		t.Helper()
		n, err := chain.HeaderRecords(h.Chain)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	if n := records(); n != 7+200 {
		t.Fatalf("%d headers are stored, the test shows little", n)
	}
	h.reopen()
	if waiting, _, _ := chain.Unproven(h.Chain); waiting != 3 {
		t.Errorf("%d headers without a validated block, want 3", waiting)
	}
	if err := h.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := records(); n != 7 {
		t.Errorf("%d headers are stored, want 7", n)
	}
	for _, blk := range blocks[4:6] {
		h.submit(blk.Raw)
	}
	h.wantTip(gap)
}

// Whoever reads the tree while headers are forgotten sees it as it was or as it is.
func TestReadersInAFlood(t *testing.T) {
	const ahead, side = 20, 40
	p := consensus.Stakenet()
	b, blocks := stakers(p, 12)
	h := openToFlood(t, p, ahead, side)
	h.connectAll(blocks[1:10])
	f := &flood{t: t, h: h, branches: junk(t, b, blocks[8], 10, ahead)}
	stop := make(chan struct{})
	var readers sync.WaitGroup
	for k := range 3 {
		readers.Go(func() {
			for n := k; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				branch := f.branches[n%len(f.branches)]
				blk := branch[n%len(branch)]
				if s, ok := h.Status(blk.Hash); ok && (s.Header.MerkleRoot != blk.Header.MerkleRoot || s.Height != 9+int32(n%len(branch))) {
					t.Errorf("status of another header: %+v", s)
				}
				if at, ok := h.Ancestor(blk.Hash, 8); ok && at != blocks[8].Hash {
					t.Errorf("the ancestor at height 8 is %v", at)
				}
				if at, height, ok := h.Fork(blk.Hash, blocks[9].Hash); ok && (at != blocks[8].Hash || height != 8) {
					t.Errorf("the fork is %v at height %d", at, height)
				}
				if _, _, err := h.CheckHeader(&blk.Header); err != nil && asRuleError(err) != nil && asRuleError(err).Blame != consensus.BlameNobody {
					t.Errorf("a header that breaks no rule: %v", err)
				}
				if past, ok := h.Past(blk.Hash); ok && past.At(8).Nonce != blocks[8].Header.Nonce {
					t.Error("a past leads elsewhere")
				}
				best, _ := h.BestHeader()
				if l := h.Locator(best.Hash); len(l) > 0 && l[len(l)-1] != blocks[0].Hash {
					t.Error("a locator ends elsewhere")
				}
				for _, tip := range h.Tips() {
					if tip.Tip.Height == 0 || tip.Tip.Height > 8+ahead {
						t.Errorf("tip %+v", tip)
					}
				}
				if raw, err := h.Seal(blk.Hash); err == nil && string(raw) != string(blk.Header.Seal) {
					t.Error("the seal is another header's")
				}
			}
		})
	}
	for range 12 {
		f.rage()
	}
	close(stop)
	readers.Wait()
}

// A checkpoint whose header was forgotten keeps nobody from showing the branch to it again.
func TestCheckpointForgotten(t *testing.T) {
	p := consensus.Stakenet()
	_, blocks := stakers(p, 8)
	p.Checkpoints = map[int32]chainhash.Hash{6: blocks[6].Hash}
	h := openToFlood(t, p, 20, 60)
	h.connectAll(blocks[1:3])
	if _, _, err := h.AcceptHeaders(t.Context(), headersOf(blocks[3:])); err != nil {
		t.Fatal(err)
	}
	chain.StoreAllHeaders(h.Chain)
	if err := h.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	h.reopen()
	if _, ok := h.Status(blocks[6].Hash); ok {
		t.Fatal("the header was not forgotten, the test shows nothing")
	}
	if n, _, err := h.AcceptHeaders(t.Context(), headersOf(blocks[3:])); n != 6 || err != nil {
		t.Errorf("%d headers of the branch were taken again: %v", n, err)
	}
	h.connectAll(blocks[3:])
	h.wantTip(blocks[8])
}

// A reindex reads all blocks before it connects one: none is forgotten for that, be they as
// many as they are.
func TestReindexForgetsNothing(t *testing.T) {
	const ahead = 2
	p := consensus.Stakenet()
	b, blocks := stakers(p, 60)
	h := openToFlood(t, p, ahead, 2)
	h.connectAll(blocks[1:10])
	side := b.MineN(blocks[7], 1)
	if v := h.submitFrom(side[0].Raw, chain.Source{Kind: chain.FromRPC}); v.Outcome != chain.SideChain {
		t.Fatalf("%+v", v)
	}
	h.connectAll(blocks[10:])
	if _, most, _ := chain.Unproven(h.Chain); most > 30 {
		t.Fatalf("room for %d headers, the test shows little", most)
	}
	h.o.Reindex = true
	h.reopen()
	h.wantTip(blocks[60])
	if s, _ := h.Status(side[0].Hash); !s.HaveBlock {
		t.Error("a block beside the chain was forgotten")
	}
	if l := h.log.with("headers without blocks were forgotten"); len(l) != 0 {
		t.Errorf("%q", l)
	}
	if waiting, _, _ := chain.Unproven(h.Chain); waiting != 1 {
		t.Errorf("%d headers without a validated block, want 1", waiting)
	}
}
