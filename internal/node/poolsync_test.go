package node

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/wire/v2"
	"github.com/libp2p/go-libp2p/core/peer"

	"dunlin/chain/consensus"
	"dunlin/chain/exchange"
	"dunlin/chain/mempool"
)

// numbered makes small transactions that differ.
func numbered(from, n int) (txs []*wire.MsgTx) {
	for i := from; i < from+n; i++ {
		tx := wire.NewMsgTx(2)
		in := &wire.TxIn{}
		binary.LittleEndian.PutUint64(in.PreviousOutPoint.Hash[:], uint64(i)+1)
		tx.AddTxIn(in)
		tx.AddTxOut(wire.NewTxOut(int64(i), []byte{0x51}))
		txs = append(txs, tx)
	}
	return txs
}

// A shelf is a mempool that takes everything but what it is told to refuse.
type shelf struct {
	mu      sync.Mutex
	txs     map[chainhash.Hash]*wire.MsgTx
	told    int
	refuse  bool
	early   int              // so many are refused because our tip lags behind
	missing []chainhash.Hash // parents that the next one lacks
}

func (s *shelf) Known(ids []chainhash.Hash) []bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]bool, len(ids))
	for i, id := range ids {
		out[i] = s.txs[id] != nil
	}
	return out
}

func (s *shelf) SubmitAsked(ctx context.Context, tx *wire.MsgTx, from string) ([]*wire.MsgTx, error) {
	txs, err := s.SubmitPulled(ctx, tx, from)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.told += len(txs)
	return txs, err
}

func (s *shelf) SubmitPulled(_ context.Context, tx *wire.MsgTx, _ string) ([]*wire.MsgTx, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.refuse {
		return nil, &consensus.RuleError{Rule: "no", Blame: consensus.BlameNobody}
	}
	if s.early > 0 {
		s.early--
		return nil, &consensus.RuleError{Rule: "bad-txns-premature-spend-of-coinbase", Blame: consensus.BlameNobody}
	}
	if len(s.missing) > 0 {
		defer func() { s.missing = nil }()
		return nil, &mempool.MissingError{Fault: &consensus.RuleError{Rule: "missing-inputs"}, Parents: s.missing}
	}
	s.txs[tx.TxHash()] = tx
	return []*wire.MsgTx{tx}, nil
}

func (s *shelf) size() (txs, told int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.txs), s.told
}

// A neighbour is a peer with a list.
type neighbour struct {
	exchange.Peer
	run   uint64
	txs   []*wire.MsgTx
	rates func(i int) uint32
	fail  error
	junk  bool // sends something else
	small bool // says that its transactions have a byte each
	empty bool // its lists are empty and never end
	lists atomic.Int64
	asked atomic.Int64
}

// A village is who is around.
type village struct {
	mu      sync.Mutex
	all     map[peer.ID]*neighbour
	orphans []chainhash.Hash
	synced  bool
}

func (v *village) peers() (out []exchange.Peer) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, n := range v.all {
		out = append(out, n.Peer)
	}
	return out
}

// change changes something.
func (v *village) change(f func()) {
	v.mu.Lock()
	defer v.mu.Unlock()
	f()
}

// list has 300 transactions a page.
func (v *village) list(_ context.Context, id peer.ID, q exchange.ListQuery) (exchange.List, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	n := v.all[id]
	if n == nil {
		return exchange.List{}, exchange.ErrNotReady
	}
	n.lists.Add(1)
	if n.fail != nil {
		return exchange.List{}, n.fail
	}
	end := uint64(len(n.txs))
	if q.Run != n.run && q.After != math.MaxUint64 {
		q.After = 0
	}
	if n.empty {
		return exchange.List{Run: n.run, Last: min(q.After+1, 1<<40), End: 1 << 40}, nil
	}
	from := min(q.After, end)
	last := min(from+300, end)
	out := exchange.List{Run: n.run, Last: last, End: end}
	for i, tx := range n.txs[from:last] {
		it := exchange.ListItem{ID: tx.TxHash(), Bytes: uint32(tx.SerializeSize()), Rate: 1000}
		if n.rates != nil {
			it.Rate = n.rates(int(from) + i)
		}
		if n.small {
			it.Bytes = 1
		}
		out.Items = append(out.Items, it)
	}
	return out, nil
}

func (v *village) fetch(_ context.Context, id peer.ID, ids []chainhash.Hash) ([][]byte, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	n := v.all[id]
	if len(ids) > exchange.MaxTxIDs {
		return nil, fmt.Errorf("%d at once", len(ids))
	}
	n.asked.Add(int64(len(ids)))
	byID := make(map[chainhash.Hash]*wire.MsgTx, len(n.txs))
	for _, tx := range n.txs {
		byID[tx.TxHash()] = tx
	}
	out := make([][]byte, len(ids))
	for i, id := range ids {
		if tx := byID[id]; tx != nil {
			var b bytes.Buffer
			if err := tx.Serialize(&b); err != nil {
				return nil, err
			}
			if out[i] = b.Bytes(); n.junk {
				out[i][len(out[i])-1]++
			}
		}
	}
	return out, nil
}

func (v *village) add(name string, inbound bool, run uint64, txs []*wire.MsgTx) *neighbour {
	n := &neighbour{Peer: exchange.Peer{ID: peer.ID(name), Inbound: inbound, Services: exchange.ServeList}, run: run, txs: txs}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.all[n.ID] = n
	return n
}

// reconcile runs a reconciler among neighbours.
func reconcile(t *testing.T, maxBytes int64, f func(t *testing.T, v *village, s *shelf, wait func(time.Duration))) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		v := &village{all: make(map[peer.ID]*neighbour), synced: true}
		s := &shelf{txs: make(map[chainhash.Hash]*wire.MsgTx)}
		r := &reconciler{
			pool: s, peers: v.peers, list: v.list, fetch: v.fetch, maxBytes: maxBytes,
			orphan: func(_ peer.ID, parents []chainhash.Hash) {
				v.change(func() { v.orphans = append(v.orphans, parents...) })
			},
			synced: func() bool {
				v.mu.Lock()
				defer v.mu.Unlock()
				return v.synced
			},
			minRate: func() int64 { return 1000 }, log: slog.New(slog.DiscardHandler),
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- r.run(ctx) }()
		f(t, v, s, func(d time.Duration) {
			<-time.NewTimer(d).C
			synctest.Wait()
		})
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
}

// TestReconcileNewcomer: a newcomer takes all of two outbound peers once it is
// synced, and passes nothing of it on; then it follows what they get.
func TestReconcileNewcomer(t *testing.T) {
	reconcile(t, 1e6, func(t *testing.T, v *village, s *shelf, wait func(time.Duration)) {
		t.Helper()
		v.change(func() { v.synced = false })
		a := v.add("a", false, 1, numbered(0, 1000))
		b := v.add("b", false, 2, numbered(100, 1000))
		c := v.add("c", true, 3, numbered(0, 1100))
		old := v.add("old", false, 0, nil)
		v.change(func() { old.Services = 0 })
		wait(time.Minute)
		if n, _ := s.size(); n != 0 || a.lists.Load()+b.lists.Load()+c.lists.Load() > 0 {
			t.Fatalf("%d before it is synced", n)
		}
		v.change(func() { v.synced = true })
		wait(10 * time.Second)
		if n, told := s.size(); n != 1100 || told != 0 {
			t.Errorf("%d of 1100, %d told", n, told)
		}
		if a.asked.Load()+b.asked.Load() != 1100 || c.asked.Load()+old.asked.Load()+old.lists.Load() > 0 {
			t.Errorf("asked %d, %d and %d, %d", a.asked.Load(), b.asked.Load(), c.asked.Load(), old.lists.Load())
		}
		looked := c.lists.Load()
		v.change(func() { a.txs = append(a.txs, numbered(5000, 300)...) })
		wait(20 * time.Second)
		if n, told := s.size(); n != 1400 || told != 300 {
			t.Errorf("%d of 1400, %d of 300 told", n, told)
		}
		if c.lists.Load() != looked {
			t.Errorf("who is no partner was looked at again")
		}
		was := a.lists.Load()
		wait(time.Minute)
		if n := a.lists.Load() - was; n < 4 || n > 10 {
			t.Errorf("%d lists a minute", n)
		}
		v.change(func() { a.run, a.txs = 9, numbered(7000, 100) }) // it was started again
		wait(20 * time.Second)
		if n, _ := s.size(); n != 1500 {
			t.Errorf("%d of 1500", n)
		}
	})
}

// TestReconcileHeal: a peer from the other side of a partition has much that is
// unknown: all of it is fetched, and told to others up to a limit.
func TestReconcileHeal(t *testing.T) {
	reconcile(t, 1e6, func(t *testing.T, v *village, s *shelf, wait func(time.Duration)) {
		t.Helper()
		v.add("a", false, 1, numbered(0, 100))
		v.add("b", false, 2, numbered(0, 100))
		wait(20 * time.Second)
		v.add("c", true, 3, numbered(0, 4000))
		v.add("d", true, 4, numbered(3900, 150))
		wait(30 * time.Second)
		if n, told := s.size(); n != 4050 || told < maxToldOn || told > maxToldOn+150 {
			t.Errorf("%d of 4050, %d told", n, told)
		}
	})
}

// TestReconcileBounds: of too much the best paying is taken; who is broken, of no
// use or gone is not asked all the time, and others take its place.
func TestReconcileBounds(t *testing.T) {
	size := int64(numbered(0, 1)[0].SerializeSize())
	reconcile(t, 100*size, func(t *testing.T, v *village, s *shelf, wait func(time.Duration)) {
		t.Helper()
		a := v.add("a", false, 1, numbered(0, 1000))
		v.change(func() { a.rates = func(i int) uint32 { return uint32(1000 + i) } })
		wait(5 * time.Second)
		best := numbered(900, 100)
		for _, tx := range best {
			if !s.Known([]chainhash.Hash{tx.TxHash()})[0] {
				t.Fatalf("not the best")
			}
		}
		if n, _ := s.size(); n != 100 {
			t.Errorf("%d of 100", n)
		}
		v.change(func() { delete(v.all, a.ID) })

		broken := v.add("broken", false, 2, nil)
		v.change(func() { broken.fail = exchange.ErrBusy })
		junk := v.add("junk", false, 3, numbered(2000, 60))
		v.change(func() { junk.junk = true })
		wait(10 * time.Second)
		good := v.add("good", true, 4, numbered(3000, 50))
		also := v.add("also", true, 5, numbered(3020, 50))
		wait(10 * time.Minute)
		if n, _ := s.size(); n != 170 {
			t.Errorf("%d of 170", n)
		}
		if broken.lists.Load() > 10 || junk.asked.Load() > 120 {
			t.Errorf("asked %d times in vain, and for %d of junk", broken.lists.Load(), junk.asked.Load())
		}
		if good.lists.Load() < 40 || also.lists.Load() < 40 {
			t.Errorf("%d and %d lists in 10 min", good.lists.Load(), also.lists.Load())
		}
		v.change(func() {
			broken.fail = nil
			broken.txs = numbered(4000, 10)
		})
		wait(2 * time.Hour)
		if n, _ := s.size(); n != 180 {
			t.Errorf("%d of 180: a peer is given another chance", n)
		}
	})
}

// TestReconcileLiar: who lists its transactions smaller than they are has no more than
// others of what may be fetched in one go.
func TestReconcileLiar(t *testing.T) {
	size := int64(numbered(0, 1)[0].SerializeSize())
	reconcile(t, 300*size, func(t *testing.T, v *village, s *shelf, wait func(time.Duration)) {
		t.Helper()
		a := v.add("a", false, 1, numbered(0, 5000))
		v.change(func() { a.small = true })
		wait(20 * time.Second)
		if n, _ := s.size(); n > 300 || a.asked.Load() > 300+exchange.MaxTxIDs {
			t.Errorf("%d taken, %d fetched of 300", n, a.asked.Load())
		}
	})
}

// TestReconcileEndless: partners whose lists never end do not keep us from the lists of
// others.
func TestReconcileEndless(t *testing.T) {
	reconcile(t, 1e6, func(t *testing.T, v *village, s *shelf, wait func(time.Duration)) {
		t.Helper()
		for _, name := range []string{"a", "b"} {
			n := v.add(name, false, 1, nil)
			v.change(func() { n.empty = true })
		}
		v.add("c", true, 3, numbered(0, 200))
		wait(time.Minute)
		if n, _ := s.size(); n != 200 {
			t.Errorf("%d of 200", n)
		}
	})
}

// TestReconcileFault: what a fault kept from being fetched is fetched later, and
// parents of what is fetched are asked for.
func TestReconcileFault(t *testing.T) {
	reconcile(t, 1e6, func(t *testing.T, v *village, s *shelf, wait func(time.Duration)) {
		t.Helper()
		a := v.add("a", false, 1, numbered(0, 10))
		wait(20 * time.Second)
		v.change(func() {
			a.txs = append(a.txs, numbered(10, 10)...)
			a.fail = exchange.ErrBusy
		})
		wait(20 * time.Second)
		v.change(func() { a.fail = nil })
		s.mu.Lock()
		s.missing = []chainhash.Hash{{7}}
		s.mu.Unlock()
		wait(2 * time.Minute)
		if n, _ := s.size(); n != 19 {
			t.Errorf("%d of 19", n)
		}
		v.change(func() {
			if len(v.orphans) != 1 {
				t.Errorf("%d parents asked for", len(v.orphans))
			}
		})
	})
}

// TestReconcileEarly: what came before the block that makes it good is fetched again,
// a few times.
func TestReconcileEarly(t *testing.T) {
	reconcile(t, 1e6, func(t *testing.T, v *village, s *shelf, wait func(time.Duration)) {
		t.Helper()
		s.early = 4
		a := v.add("a", false, 1, numbered(0, 10))
		wait(30 * time.Second)
		if n, _ := s.size(); n != 10 || a.asked.Load() != 14 {
			t.Errorf("%d of 10, %d asked for", n, a.asked.Load())
		}
		s.mu.Lock()
		s.early = 1000
		s.mu.Unlock()
		v.change(func() { a.txs = append(a.txs, numbered(10, 10)...) })
		wait(10 * time.Minute)
		if n := a.asked.Load(); n != 14+10*(maxEarly+1) {
			t.Errorf("%d asked for", n)
		}
	})
}

// TestFeeFloor: the least that a peer takes counts; who does not say takes all.
func TestFeeFloor(t *testing.T) {
	now := time.Unix(1e9, 0)
	var peers []exchange.Peer
	f := feeFloor{peers: func() []exchange.Peer { return peers }}
	entry := &mempool.Entry{Fee: 1500, Weight: 4000}
	for _, row := range []struct {
		rates []int64
		least int64
		takes bool
	}{
		{nil, 0, true},
		{[]int64{3000, 1501}, 1501, false},
		{[]int64{3000, 1500}, 1500, true},
		{[]int64{3000, 0}, 0, true},
		{[]int64{math.MaxInt64}, 0, true}, // absurd: as if it did not say
		{[]int64{5000}, 5000, false},
	} {
		peers = nil
		for _, r := range row.rates {
			peers = append(peers, exchange.Peer{MinFeeRate: r})
		}
		now = now.Add(floorFor)
		if least, takes := f.least(now), f.takes(entry, now); least != row.least || takes != row.takes {
			t.Errorf("%v: %d, %t", row.rates, least, takes)
		}
	}
	peers = nil
	if f.least(now.Add(floorFor-1)) != 5000 {
		t.Error("asked for peers again at once")
	}
	for _, row := range [][3]int64{{0, 0, 0}, {1000, 1000, 1000}, {1050, 1000, 1000}, {0, 1000, 0}, {1500, 1000, 1399}, {1_000_000, 1000, 913_159}, {1_000_000, 0, 913_159}} {
		if got := tellFeeRate(row[0], row[1]); got != row[2] {
			t.Errorf("rate %d, least %d: told %d, want %d", row[0], row[1], got, row[2])
		}
	}
}
