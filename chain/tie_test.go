package chain_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/btcsuite/btcd/btcec/v2"
	"github.com/btcsuite/btcd/wire/v2"

	"dunlin/chain"
	"dunlin/chain/consensus"
	"dunlin/chain/consensus/enginetest"
	"dunlin/chain/consensus/pos"
)

// A slot that two or more stakes have won, on a chain of three blocks.
type sharedSlot struct {
	t      *testing.T
	p      *consensus.Params
	b      *enginetest.Builder
	blocks []*consensus.Block
	slot   int64
	stakes []pos.Stake // the lowest lot first
	keys   []*btcec.PrivateKey
	moves  []*wire.MsgTx // spend the stakes
}

// shareSlot finds one that n holders have won.
func shareSlot(t *testing.T, n int) *sharedSlot {
	t.Helper()
	s := &sharedSlot{t: t, p: consensus.Stakenet()}
	s.b, s.blocks = stakers(s.p, 3)
	parent := s.blocks[3]
	s.slot, _ = pos.Slot(s.p, parent.Header.Timestamp.Unix())
	var stakes [5]pos.Stake // made once: thousands of slots may be looked at
	for i := range stakes {
		if i > 0 {
			stakes[i], _, _ = holder(t, s.p, i)
		}
	}
	var won []int
	for len(won) < n {
		won = nil
		s.slot++
		for i := 1; i <= 4; i++ {
			if winsSlot(s.b, parent, &stakes[i], s.slot) {
				won = append(won, i)
			}
		}
	}
	engine, past := pos.New(s.p), s.b.Past(parent.Hash)
	slices.SortFunc(won, func(i, j int) int {
		a, b := s.header(i), s.header(j)
		if engine.Precedes(past, &a, &b, a.Timestamp) {
			return -1
		}
		return 1
	})
	for _, i := range won {
		stake, key, move := holder(t, s.p, i)
		s.stakes, s.keys, s.moves = append(s.stakes, stake), append(s.keys, key), append(s.moves, move)
	}
	return s
}

// header is enough of one for Precedes.
func (s *sharedSlot) header(holderNo int) (h consensus.Header) {
	stake, _, _ := holder(s.t, s.p, holderNo)
	h.Timestamp, h.Seal = s.begins(), stake.Seal([64]byte{})
	return h
}

// begins is when the slot begins.
func (s *sharedSlot) begins() time.Time { return time.Unix(pos.SlotTime(s.p, s.slot), 0) }

// child is the block of the winner with the lot of that rank.
func (s *sharedSlot) child(rank int, name string, txs ...*wire.MsgTx) *consensus.Block {
	s.t.Helper()
	return childOfSlot(s.t, s.b, s.blocks[3], s.slot, s.stakes[rank], s.keys[rank], name, txs...)
}

// home is a chain of the first three blocks, at so long after the beginning of the slot.
func (s *sharedSlot) home(t *testing.T, after time.Duration) *home {
	t.Helper()
	return s.homeAt(t, 3, after)
}

// homeAt is a chain of the first blocks up to a height.
func (s *sharedSlot) homeAt(t *testing.T, height int, after time.Duration) *home {
	t.Helper()
	h := open(t, func(o *chain.Options) {
		o.Params, o.Engine, o.Now = s.p, pos.New(s.p), func() time.Time { return s.begins().Add(after) }
	})
	h.connectAll(s.blocks[1 : height+1])
	return h
}

// Of blocks of one slot all nodes take the same for the tip, in whatever order they
// come, and go on from there.
func TestOneSlotOneTip(t *testing.T) {
	s := shareSlot(t, 3)
	kids := []*consensus.Block{s.child(0, ""), s.child(1, ""), s.child(2, "")}
	next := s.b.Mine(kids[0])
	for _, order := range [][]int{{0, 1, 2}, {0, 2, 1}, {1, 0, 2}, {1, 2, 0}, {2, 0, 1}, {2, 1, 0}} {
		h := s.home(t, 3*time.Second)
		best, reorgs := len(kids), -1
		for _, k := range order {
			want := chain.SideChain
			if k < best {
				best, want = k, chain.Connected
				reorgs++
			}
			h.want(kids[k], want)
			h.wantTip(kids[best])
			if head, _ := h.BestHeader(); head.Hash != kids[best].Hash {
				t.Errorf("order %v: the best header is %v", order, head)
			}
		}
		if got := len(h.log.with("msg=reorg depth=1")); got != reorgs || len(h.log.with("msg=reorg")) != reorgs {
			t.Errorf("order %v: %d reorganisations, want %d", order, got, reorgs)
		}
		if blocks, forks := h.log.with("msg=block", "height=4", "delay=3"), h.log.with("msg=fork", "delay=3"); len(blocks) != reorgs+1 || len(forks) != 2-reorgs {
			t.Errorf("order %v: lines %q, %q", order, blocks, forks)
		}
		h.reopen()
		h.wantTip(kids[0])
		h.o.Now = far
		h.reopen()
		h.connectAll([]*consensus.Block{next})
		h.wantTip(next)
	}
	// All at once, while none has its verdict.
	h := s.home(t, 0)
	var tickets []*chain.Ticket
	for _, k := range []int{2, 1, 0} {
		ticket, err := h.Submit(t.Context(), kids[k].Raw, chain.Source{Kind: chain.FromGossip, Peer: "peer1"})
		if err != nil {
			t.Fatal(err)
		}
		tickets = append(tickets, ticket)
	}
	for _, ticket := range tickets {
		<-ticket.Done()
		if v := ticket.Verdict(); v.Outcome != chain.Connected && v.Outcome != chain.SideChain {
			t.Errorf("%+v", v)
		}
	}
	h.wantTip(kids[0])
}

// So it is when the blocks come before their parent and are whole together with it.
func TestOneSlotOneTipLate(t *testing.T) {
	s := shareSlot(t, 3)
	kids := []*consensus.Block{s.child(0, ""), s.child(1, ""), s.child(2, "")}
	parent := s.blocks[3]
	late := func(after time.Duration, order ...int) *home {
		h := s.homeAt(t, 2, after)
		if _, _, err := h.AcceptHeaders(t.Context(), headersOf([]*consensus.Block{parent})); err != nil {
			t.Fatal(err)
		}
		for _, k := range order {
			h.want(kids[k], chain.Stored)
		}
		h.wantTip(s.blocks[2])
		h.submit(parent.Raw)
		if err := h.Flush(t.Context()); err != nil { // what follows the parent has happened
			t.Fatal(err)
		}
		return h
	}
	for _, order := range [][]int{{0, 2, 1}, {1, 2, 0}, {2, 1, 0}} {
		h := late(3*time.Second, order...)
		h.wantTip(kids[0])
		if head, _ := h.BestHeader(); head.Hash != kids[0].Hash {
			t.Errorf("order %v: the best header is %v", order, head)
		}
		for _, line := range h.log.with("msg=reorg") {
			if !strings.Contains(line, "depth=1") {
				t.Errorf("order %v: %s", order, line)
			}
		}
	}
	h := late(2*s.p.SlotDuration, 2, 0, 1)
	h.wantTip(kids[2]) // long past: the first stays
}

// What was seen first stays where no lot decides.
func TestFirstSeenStays(t *testing.T) {
	s := shareSlot(t, 2)
	low, high := s.child(0, ""), s.child(1, "")
	stays := func(t *testing.T, h *home, first, second *consensus.Block) {
		t.Helper()
		h.want(first, chain.Connected)
		h.want(second, chain.SideChain)
		h.wantTip(first)
		if l := h.log.with("msg=reorg"); len(l) != 0 {
			t.Errorf("%q", l)
		}
	}
	t.Run("the slot is long past", func(t *testing.T) { stays(t, s.home(t, 2*s.p.SlotDuration), high, low) })
	t.Run("a moment before that", func(t *testing.T) {
		h := s.home(t, 2*s.p.SlotDuration-time.Second)
		h.want(high, chain.Connected)
		h.want(low, chain.Connected)
		h.wantTip(low)
	})
	t.Run("of one stake", func(t *testing.T) {
		stays(t, s.home(t, 0), high, s.child(1, "twin"))
		stays(t, s.home(t, 0), low, s.child(0, "twin"))
	})
	t.Run("of another slot", func(t *testing.T) {
		for k := range s.stakes { // whichever has the lower lot
			slot := s.slot - 1
			for !winsSlot(s.b, s.blocks[3], &s.stakes[k], slot) {
				slot--
			}
			if parent, _ := pos.Slot(s.p, s.blocks[3].Header.Timestamp.Unix()); slot <= parent {
				continue
			}
			older := childOfSlot(t, s.b, s.blocks[3], slot, s.stakes[k], s.keys[k], "")
			stays(t, s.home(t, 0), high, older)
			stays(t, s.home(t, 0), older, low)
		}
	})
	t.Run("with a block on it", func(t *testing.T) {
		next := s.b.Mine(high)
		h := s.home(t, 0)
		h.o.Now = func() time.Time { return next.Header.Timestamp }
		h.reopen()
		h.connectAll([]*consensus.Block{high, next})
		h.want(low, chain.SideChain)
		h.wantTip(next)
	})
}

// A lot is nothing without a coin, and nothing without a good block.
func TestLotsAreNoClaims(t *testing.T) {
	s := shareSlot(t, 2)
	low, high := s.child(0, ""), s.child(1, "")
	t.Run("no such coin", func(t *testing.T) {
		engine, past := pos.New(s.p), s.b.Past(s.blocks[3].Hash)
		key, _ := btcec.PrivKeyFromBytes([]byte{31: 7})
		claim := pos.Stake{Value: 21e14, Key: [32]byte(key.PubKey().SerializeCompressed()[1:])}
		for n := uint32(0); ; n++ {
			claim.OutPoint.Index = n
			h := consensus.Header{}
			h.Timestamp, h.Seal = s.begins(), claim.Seal([64]byte{})
			if winsSlot(s.b, s.blocks[3], &claim, s.slot) && engine.Precedes(past, &h, &low.Header, s.begins()) {
				break
			}
		}
		lie := childOfSlot(t, s.b, s.blocks[3], s.slot, claim, key, "")
		h := s.home(t, 0)
		h.want(low, chain.Connected)
		h.want(lie, chain.SideChain) // not even tried
		h.wantTip(low)
		h.want(high, chain.SideChain)
	})
	t.Run("a script that fails", func(t *testing.T) {
		tx := s.moves[1].Copy()
		tx.TxIn[0].Witness[0][7] ^= 1
		bad := s.child(0, "bad", tx)
		h := s.home(t, 0)
		h.want(high, chain.Connected)
		if v := h.submit(bad.Raw); v.Outcome != chain.Refused {
			t.Errorf("%+v", v)
		}
		h.wantTip(high)
		if l := h.log.with("msg=reorg"); len(l) != 0 {
			t.Errorf("%q", l)
		}
		h.want(low, chain.Connected)
		h.wantTip(low)
	})
	t.Run("spent by the block in its place", func(t *testing.T) {
		spender := s.child(1, "spender", s.moves[0])
		for _, order := range [][]*consensus.Block{{spender, low}, {low, spender}} {
			h := s.home(t, 0)
			for _, b := range order {
				h.submit(b.Raw)
			}
			h.wantTip(low)
			h.reopen()
			h.wantTip(low)
		}
	})
}
