package mempool_test

import (
	"math"
	"slices"
	"testing"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/wire/v2"

	"dunlin/chain/consensus"
	"dunlin/chain/mempool"
)

func idsOf(items []mempool.Item) (ids []chainhash.Hash) {
	for _, it := range items {
		ids = append(ids, it.ID)
	}
	return ids
}

func txids(txs ...*wire.MsgTx) (ids []chainhash.Hash) {
	for _, tx := range txs {
		ids = append(ids, tx.TxHash())
	}
	return ids
}

// TestList: others are shown all in order but for what was made here and nobody
// was told of yet; a position goes on where it was, also after removals.
func TestList(t *testing.T) {
	t.Parallel()
	l := running(t, 8, nil)
	list := func(after uint64, minRate int64, most int) mempool.Listing {
		t.Helper()
		run := l.pool.List(0, math.MaxUint64, 0, 0).Run
		return l.pool.List(run, after, minRate, most)
	}
	want := func(got mempool.Listing, last bool, txs ...*wire.MsgTx) {
		t.Helper()
		if !slices.Equal(idsOf(got.Items), txids(txs...)) || (got.Last == got.End) != last {
			t.Fatalf("listed %v up to %d of %d, want %v", idsOf(got.Items), got.Last, got.End, txids(txs...))
		}
	}
	want(list(0, 0, 100), true)
	a := l.pay(1000, 1, l.coinbase(0))
	l.want(a)
	b := l.pay(5000, 1, coinsOf(a)[0])
	l.want(b)
	cheap := l.pay(200, 1, l.coinbase(1))
	l.want(cheap)
	secret := l.pay(1000, 1, l.coinbase(2))
	if _, err := l.submit(secret, ""); err != nil {
		t.Fatal(err)
	}
	all := list(0, 0, 100)
	want(all, true, a, b, cheap)
	if it := all.Items[0]; it.Bytes != a.SerializeSize() || it.Rate < 10_000 || it.Rate > 30_000 {
		t.Errorf("%+v: a parent counts with its child", it)
	}
	want(list(0, 3000, 100), true, a, b)
	page := list(0, 0, 2)
	want(page, false, a, b)
	want(list(page.Last, 0, 2), true, cheap)

	c := l.pay(1000, 1, l.coinbase(3))
	l.want(c)
	want(list(all.Last, 0, 100), true, c)
	l.pool.Sent(secret.TxHash())
	end := list(all.Last, 0, 100)
	want(end, true, c, secret)
	l.mine(a, c)
	l.until(func() bool { return !l.has(a) && !l.has(c) })
	want(list(0, 0, 100), true, b, cheap, secret)
	want(list(all.Last, 0, 100), true, secret)
	want(list(end.Last, 0, 100), true)
	want(list(math.MaxUint64, 0, 100), true)
	want(l.pool.List(all.Run+1, end.Last, 0, 100), true, b, cheap, secret) // of another run: from the beginning
	l.verify()
}

// TestListWalk: a listing looks at a bounded number of entries, and gaps close.
func TestListWalk(t *testing.T) {
	t.Parallel()
	l := running(t, 1, nil)
	first, last, gaps := l.pool.FillList(50_000)
	if first.Last != mempool.MaxListingWalk || len(first.Items) != 0 || first.End != 50_000 {
		t.Errorf("%d of %d looked at, %d listed", first.Last, first.End, len(first.Items))
	}
	if len(last.Items) != 5000 || last.Last != last.End {
		t.Errorf("%d of 5000 left are listed, up to %d of %d", len(last.Items), last.Last, last.End)
	}
	if gaps > 5000 {
		t.Errorf("%d gaps among 5000", gaps)
	}
}

// TestRetell: what was made here is told again, ever less often, if blocks came;
// also after a restart. Of others' some are, as cover.
func TestRetell(t *testing.T) {
	t.Parallel()
	l := newLab(t, consensus.Regtest(), 4, nil)
	run(t, l.pool.Run)
	ours, theirs := l.pay(1000, 1, l.coinbase(0)), l.pay(1000, 1, l.coinbase(1))
	if _, err := l.submit(ours, ""); err != nil {
		t.Fatal(err)
	}
	l.want(theirs)
	due := func() (ids []chainhash.Hash, in time.Duration) {
		entries, next, _ := l.pool.Unsent(10, 3*time.Minute)
		for _, e := range entries {
			ids = append(ids, e.ID)
		}
		return ids, next.Sub(l.clock.now())
	}
	for _, after := range []time.Duration{0, 10 * time.Minute, 20 * time.Minute, 40 * time.Minute, 80 * time.Minute, 160 * time.Minute, 320 * time.Minute, 8 * time.Hour, 8 * time.Hour} {
		if ids, in := due(); after > 0 && (len(ids) > 0 || in < after*3/4 || in > after*3/2) {
			t.Fatalf("due %v, in %v, want in about %v", ids, in, after)
		}
		l.clock.add(after * 3 / 2)
		if after > 0 {
			if ids, in := due(); len(ids) != 0 || in <= 0 {
				t.Fatalf("due %v although no block came; next in %v", ids, in)
			}
			l.mine()
			l.until(func() bool { return l.pool.Tip() == l.tip.Hash })
			l.clock.add(15 * time.Minute)
		}
		if ids, _ := due(); !slices.Equal(ids, txids(ours)) {
			t.Fatalf("due %v after %v", ids, after)
		}
		l.pool.Sent(ours.TxHash())
	}
	l.mine(ours)
	l.until(func() bool { return !l.has(ours) })
	l.clock.add(24 * time.Hour)
	if ids, _ := due(); len(ids) != 0 {
		t.Errorf("due %v", ids)
	}

	l.pool.Cover(1)
	cover := l.pay(1000, 1, l.coinbase(2))
	l.want(cover)
	l.mine()
	l.until(func() bool { return l.pool.Tip() == l.tip.Hash })
	l.clock.add(15 * time.Minute)
	if ids, _ := due(); !slices.Equal(ids, txids(cover)) {
		t.Errorf("due %v, want one as cover", ids)
	}
	l.pool.Sent(cover.TxHash())
	if ids, in := due(); len(ids) != 0 || in < 15*time.Minute || in > 30*time.Minute {
		t.Errorf("due %v, in %v", ids, in)
	}
	l.verify()
}

// TestRetellAfterRestart: the file says what was made here.
func TestRetellAfterRestart(t *testing.T) {
	t.Parallel()
	l := newLab(t, consensus.Regtest(), 4, nil)
	options := func(o *mempool.Options) { o.FS, o.File = l.fs, "mempool.dat" }
	l.reopen(options)
	ours, theirs := l.pay(1000, 1, l.coinbase(0)), l.pay(1000, 1, l.coinbase(1))
	l.session(func() {
		l.pool.Cover(0)
		if _, err := l.submit(ours, ""); err != nil {
			t.Fatal(err)
		}
		l.want(theirs)
		l.pool.Sent(ours.TxHash())
	})
	l.reopen(options)
	l.pool.Cover(0)
	l.session(func() {
		l.until(func() bool { return l.has(ours, theirs) })
		due, next, _ := l.pool.Unsent(9, 0)
		if in := next.Sub(l.clock.now()); len(due) != 0 || in < 7*time.Minute || in > 15*time.Minute {
			t.Errorf("%d due, next in %v", len(due), in)
		}
		if got := l.pool.List(0, 0, 0, 10); len(got.Items) != 2 {
			t.Errorf("%d of 2 listed", len(got.Items))
		}
		l.verify()
	})
}
