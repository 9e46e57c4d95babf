package mempool_test

import (
	"context"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/btcsuite/btcd/txscript/v2"
	"github.com/btcsuite/btcd/wire/v2"

	"dunlin/chain/consensus"
	"dunlin/chain/consensus/enginetest"
	"dunlin/chain/mempool"
)

func TestOptions(t *testing.T) {
	t.Parallel()
	l := newLab(t, consensus.Regtest(), 0, nil)
	_, err := mempool.New(mempool.Options{
		Chain: l.chain, MaxBytes: -1, MinFeeRate: math.MaxInt64, Expiry: -1, MaxOrphans: 10_001, MaxOrphanBytes: -1, SaveEvery: -1,
	})
	if err == nil {
		t.Fatal("no error")
	}
	for _, name := range []string{"max bytes", "min fee rate", "expiry", "max orphans", "max orphan bytes", "save every"} {
		if !strings.Contains(err.Error(), name) {
			t.Errorf("%v does not name %s", err, name)
		}
	}
	if _, err := mempool.New(mempool.Options{}); err == nil {
		t.Error("a pool without a chain")
	}
}

// TestRefusals is the table of what is refused and who is to blame.
func TestRefusals(t *testing.T) {
	t.Parallel()
	const ready = 12
	l := running(t, ready, nil)
	n := 0
	own := func() coin { // a coinbase of its own for every row
		n++
		return l.coinbase(n - 1)
	}
	nonStandard := []byte{txscript.OP_1ADD}
	twice := own()
	spent := l.pay(2000, 1, twice)
	l.want(spent)
	for _, row := range []struct {
		name  string
		tx    func() *wire.MsgTx
		rule  string
		blame consensus.Blame
	}{
		{"no inputs", func() *wire.MsgTx { return l.draft(0, 0) }, "bad-txns-vin-empty", sender},
		{"no outputs", func() *wire.MsgTx { return l.draft(0, 0, own()) }, "bad-txns-vout-empty", sender},
		{"a coinbase", func() *wire.MsgTx { return l.mined[0].Txs[0].MsgTx() }, "coinbase", sender},
		{"an input twice", func() *wire.MsgTx {
			c := own()
			return l.draft(0, 1, c, c)
		}, "bad-txns-inputs-duplicate", sender},
		{"more out than in", func() *wire.MsgTx { return l.pay(-1, 1, own()) }, "bad-txns-in-belowout", sender},
		{"a negative output", func() *wire.MsgTx {
			tx := l.draft(0, 1, own())
			tx.TxOut[0].Value = -1
			return tx
		}, "bad-txns-vout-negative", sender},
		{"a signature of another message", func() *wire.MsgTx {
			tx := l.pay(1000, 1, own())
			tx.TxOut[0].Value--
			return tx
		}, "mandatory-script-verify-flag-failed", sender},
		{"no signature", func() *wire.MsgTx { return l.draft(1000, 1, own()) }, "mandatory-script-verify-flag-failed", sender},
		{"an immature coinbase", func() *wire.MsgTx { return l.pay(1000, 1, l.coinbase(ready+5)) }, "bad-txns-premature-spend-of-coinbase", nobody},
		{"a relative lock not met", func() *wire.MsgTx {
			c := own()
			tx := l.draft(1000, 1, c)
			tx.TxIn[0].Sequence = 1000
			return l.sign(tx, c)
		}, "bad-txns-nonfinal", nobody},
		{"a lock time not met", func() *wire.MsgTx {
			c := own()
			tx := l.draft(1000, 1, c)
			tx.TxIn[0].Sequence, tx.LockTime = 0, 100_000
			return l.sign(tx, c)
		}, "non-final", nobody},
		{"a form of output that we do not know", func() *wire.MsgTx {
			tx := l.draft(1000, 1, own())
			tx.TxOut[0].PkScript = nonStandard
			return tx
		}, "non-standard", nobody},
		{"an unknown input", func() *wire.MsgTx {
			return l.draft(1000, 1, coin{wire.OutPoint{Index: 7}, 50_000})
		}, "missing-inputs", nobody},
		{"too low a fee", func() *wire.MsgTx { return l.pay(100, 1, own()) }, "min-relay-fee-not-met", nobody},
		{"a known one", func() *wire.MsgTx { return spent }, "txn-already-in-mempool", nobody},
		{"a double spend that pays no more", func() *wire.MsgTx { return l.pay(2000, 2, twice) }, "insufficient-fee", nobody},
		{"a double spend that pays too little more", func() *wire.MsgTx { return l.pay(2100, 1, twice) }, "insufficient-fee", nobody},
		{"64 bytes without witness", func() *wire.MsgTx {
			tx := l.draft(1000, 1, own())
			tx.TxOut[0].PkScript = []byte{txscript.OP_RETURN, 2, 0, 0}
			if n := tx.SerializeSizeStripped(); n != 64 {
				t.Fatalf("%d bytes", n)
			}
			return tx
		}, "tx-size-small", nobody},
	} {
		t.Run(row.name, func(t *testing.T) {
			before, _, _ := l.pool.Size()
			l.wantRule(row.tx(), row.rule, row.blame)
			if after, _, _ := l.pool.Size(); after != before {
				t.Errorf("%d entries, %d before", after, before)
			}
		})
	}
	l.verify()
}

// TestStandardInputs: what is only not standard to spend blames nobody, even if
// consensus would allow it.
func TestStandardInputs(t *testing.T) {
	t.Parallel()
	l := running(t, 2, nil)
	c := l.coinbase(0)
	funds := l.draft(1000, 1, c)
	funds.TxOut[0].PkScript = enginetest.OpTrue()
	l.sign(funds, c)
	l.wantRule(funds, "non-standard", nobody)
	l.mine(funds)
	l.wantRule(l.draft(1000, 1, coinsOf(funds)...), "bad-txns-nonstandard-inputs", nobody)
}

// TestSoftForksAhead: what the next block may not have yet, and what it may not
// have any more soon, stays out.
func TestSoftForksAhead(t *testing.T) {
	t.Parallel()
	p := consensus.Regtest()
	p.SegwitHeight, p.CSVHeight = 1000, 1000
	l := newLab(t, p, 2, nil)
	run(t, l.pool.Run)
	l.wantRule(l.pay(1000, 1, l.coinbase(0)), "no-witness-yet", nobody)

	p = consensus.Regtest()
	p.CSVHeight = 1000
	l = newLab(t, p, 2, nil)
	run(t, l.pool.Run)
	tx := l.draft(1000, 1, l.coinbase(0))
	tx.TxIn[0].Sequence = 200
	l.wantRule(l.sign(tx, l.coinbase(0)), "bad-txns-nonfinal", nobody)
}

// TestReplacement: a better paying double spend replaces what it conflicts with
// and all that builds on it.
func TestReplacement(t *testing.T) {
	t.Parallel()
	l := running(t, 3, nil)
	a := l.pay(1000, 1, l.coinbase(0))
	b := l.pay(1000, 1, l.want(a)[0])
	l.want(b)
	pair := l.pay(10_000, 1, l.coinbase(0), coinsOf(b)[0])
	l.wantRule(pair, "bad-txns-spends-conflicting-tx", nobody)
	other := l.pay(1000, 1, l.coinbase(1))
	l.want(other)
	l.wantRule(l.pay(10_000, 1, l.coinbase(0), coinsOf(other)[0]), "replacement-adds-unconfirmed", nobody)
	// It must pay for both and its own way.
	size := (int64(weight(l.pay(1, 1, l.coinbase(0)))) + 3) / 4
	l.wantRule(l.pay(2000+size-1, 1, l.coinbase(0)), "insufficient-fee", nobody)
	r := l.pay(2000+size, 1, l.coinbase(0))
	l.want(r)
	if l.has(a) || l.has(b) || !l.has(r, other) {
		t.Error("the pool does not have the replacement alone")
	}
	l.verify()
}

func weight(tx *wire.MsgTx) int { return 3*tx.SerializeSizeStripped() + tx.SerializeSize() }

// TestReplacementLimit: a replacement evicts at most MaxReplaced entries.
func TestReplacementLimit(t *testing.T) {
	t.Parallel()
	for _, extra := range []int{0, 1} {
		l := running(t, 6, nil)
		var coins []coin
		var fees int64
		// Families of 1 + 24 until there are enough.
		for left := mempool.MaxReplaced + extra; left > 0; {
			c := l.coinbase(len(coins))
			coins = append(coins, c)
			n := min(left, mempool.MaxDescendants)
			outs := l.want(l.pay(10_000, 30, c))
			for _, o := range outs[:n-1] {
				l.want(l.pay(1000, 1, o))
			}
			fees += 10_000 + int64(n-1)*1000
			left -= n
		}
		r := l.pay(fees+10_000, 1, coins...)
		if extra > 0 {
			l.wantRule(r, "too-many-replacements", nobody)
			continue
		}
		l.want(r)
		if n, _, _ := l.pool.Size(); n != 1 {
			t.Errorf("%d entries", n)
		}
		l.verify()
	}
}

// TestFamilies: the limits on ancestors and descendants, at the limit.
func TestFamilies(t *testing.T) {
	t.Parallel()
	l := running(t, 4, nil)
	t.Run("a chain", func(*testing.T) {
		c := l.coinbase(0)
		for range mempool.MaxAncestors {
			c = l.want(l.pay(1000, 1, c))[0]
		}
		l.wantRule(l.pay(1000, 1, c), "too-long-mempool-chain", nobody)
	})
	t.Run("a fan", func(*testing.T) {
		outs := l.want(l.pay(10_000, mempool.MaxDescendants, l.coinbase(1)))
		for _, o := range outs[:mempool.MaxDescendants-1] {
			l.want(l.pay(1000, 1, o))
		}
		last := outs[mempool.MaxDescendants-1]
		l.wantRule(l.pay(1000, 1, last), "too-long-mempool-chain", nobody)
		// One that takes another's place is no more than there were.
		l.want(l.pay(3000, 1, outs[0]))
		l.wantRule(l.pay(1000, 1, last), "too-long-mempool-chain", nobody)
	})
	t.Run("weight", func(*testing.T) {
		big := func(fee int64, c coin) *wire.MsgTx { return l.pay(fee, 2200, c) } // 270 kWU
		o := l.want(big(100_000, l.coinbase(2)))
		l.wantRule(big(100_000, coin{o[0].op, o[0].value}), "too-long-mempool-chain", nobody)
	})
	l.verify()
}

// TestMined: a block takes out what it has and what conflicts with it; what
// builds on the former stays.
func TestMined(t *testing.T) {
	t.Parallel()
	l := running(t, 3, nil)
	a := l.pay(1000, 1, l.coinbase(0))
	b := l.pay(1000, 1, l.want(a)[0])
	l.want(b)
	c := l.pay(1000, 1, l.coinbase(1))
	d := l.pay(1000, 1, l.want(c)[0])
	l.want(d)
	l.mine(a, l.pay(500, 1, l.coinbase(1)))
	if l.has(a) || !l.has(b) || l.has(c) || l.has(d) {
		t.Error("after a block with a and a rival of c: want b alone")
	}
	if e, _ := l.pool.Get(b.TxHash()); len(e.Parents) != 0 {
		t.Errorf("b has parents %v", e.Parents)
	}
	l.wantRule(a, "txn-already-known", nobody)
	l.verify()
}

// TestReorg: transactions of the branch that lost return, with what builds on
// them; what conflicts with the new branch goes.
func TestReorg(t *testing.T) {
	t.Parallel()
	l := running(t, 4, nil)
	fork := l.tip
	a := l.pay(1000, 1, l.coinbase(0))
	cheap := l.pay(0, 1, l.coinbase(1)) // no fee is too low to return
	gone := l.pay(1000, 1, l.coinbase(2))
	l.want(a)
	l.want(gone)
	old := l.on(fork, 0, a, cheap, gone)
	l.follow(old.Hash)
	young := coin{wire.OutPoint{Hash: *old.Txs[0].Hash()}, old.Txs[0].MsgTx().TxOut[0].Value}
	l.wantRule(l.pay(1000, 1, young), "bad-txns-premature-spend-of-coinbase", nobody)
	child := l.pay(1000, 1, coinsOf(a)[0])
	orphaned := l.pay(1000, 1, coinsOf(gone)[0])
	kept := l.pay(1000, 1, l.coinbase(3))
	added := time.Time{}
	for _, tx := range []*wire.MsgTx{child, orphaned, kept} {
		l.want(tx)
	}
	if e, ok := l.pool.Get(kept.TxHash()); ok {
		added = e.Added
	}
	l.clock.add(time.Hour)
	rival := l.pay(1500, 1, l.coinbase(2))
	l.tip = l.on(l.on(fork, 0, rival), 0)
	l.follow(l.tip.Hash)
	l.until(func() bool { return l.has(a, cheap, child, kept) })
	if l.has(gone) || l.has(orphaned) {
		t.Error("the pool has what conflicts with the chain")
	}
	if e, _ := l.pool.Get(kept.TxHash()); !e.Added.Equal(added) {
		t.Errorf("added %v, was %v: a reorganisation must not prolong an entry's life", e.Added, added)
	}
	l.verify()
}

// TestReorgWhileReturning: the chain changes its mind again before everything
// was offered; nothing is lost.
func TestReorgWhileReturning(t *testing.T) {
	t.Parallel()
	const txs = 30
	l := running(t, txs, nil)
	fork := l.tip
	var all []*wire.MsgTx
	for i := range txs {
		all = append(all, l.pay(1000, 1, l.coinbase(i)))
	}
	one := l.on(fork, 0, all[:txs/2]...)
	l.on(one, 0, all[txs/2:]...)
	a := l.on(l.on(l.on(fork, 0), 0), 0)          // away: 30 are offered
	b := l.on(l.on(l.on(l.on(fork, 0), 0), 0), 0) // and away again at once
	_ = a
	l.follow(b.Hash)
	l.until(func() bool { return l.has(all...) })
	l.verify()
}

// TestOrphans: they are kept until the last parent comes, from wherever.
func TestOrphans(t *testing.T) {
	t.Parallel()
	l := running(t, 3, nil)
	a := l.pay(1000, 1, l.coinbase(0))
	b := l.pay(1000, 1, l.coinbase(1))
	child := l.pay(1000, 1, coinsOf(a)[0], coinsOf(b)[0])
	grandchild := l.pay(1000, 1, coinsOf(child)[0])
	l.wantRule(grandchild, "missing-inputs", nobody)
	l.wantRule(child, "missing-inputs", nobody)
	l.want(a)
	if n, _ := l.pool.Orphans(); n != 2 || l.has(child) {
		t.Fatalf("%d orphans after the first parent, want 2", n)
	}
	accepted, err := l.submit(b, "other")
	if err != nil || len(accepted) != 3 || accepted[1] != child || accepted[2] != grandchild {
		t.Fatalf("%d accepted, %v; want b, child, grandchild", len(accepted), err)
	}
	if n, bytes := l.pool.Orphans(); n != 0 || bytes != 0 {
		t.Errorf("%d orphans of %d bytes", n, bytes)
	}
	l.verify()

	// A block may bring the parent too.
	c := l.pay(1000, 1, l.coinbase(2))
	late := l.pay(1000, 1, coinsOf(c)[0])
	l.wantRule(late, "missing-inputs", nobody)
	l.mine(c)
	l.until(func() bool { return l.has(late) })
	// Ours are not kept: whoever made them hears that they cannot be.
	if _, err := l.submit(l.pay(1000, 1, coin{wire.OutPoint{Index: 3}, 5000}), ""); err == nil {
		t.Error("accepted without inputs")
	}
	if n, _ := l.pool.Orphans(); n != 0 {
		t.Errorf("%d orphans", n)
	}
}

// TestOrphansAreCharged: what it took to find that inputs are missing is the peer's, also
// where the transaction is kept; the try that their parent starts is charged by itself.
func TestOrphansAreCharged(t *testing.T) {
	t.Parallel()
	l := running(t, 1, nil)
	a := l.pay(1000, 1, l.coinbase(0))
	child := l.pay(1000, 1, coinsOf(a)[0])
	l.wantRule(child, "missing-inputs", nobody)
	if n, _ := l.pool.Orphans(); n != 1 {
		t.Fatalf("%d orphans, want 1", n)
	}
	owed := l.pool.Owes("peer")
	if owed <= 0 {
		t.Errorf("the peer owes %v for an orphan", owed)
	}
	if _, err := l.submit(a, "other"); err != nil || !l.has(child) {
		t.Fatalf("parent: %v, child in: %v", err, l.has(child))
	}
	if now := l.pool.Owes("peer"); now != owed {
		t.Errorf("the peer owes %v after its orphan got in, %v before", now, owed)
	}
	l.verify()
}

// TestSpoiledOrphan: a copy with a spoiled witness does not keep the good one out.
func TestSpoiledOrphan(t *testing.T) {
	t.Parallel()
	l := running(t, 1, nil)
	a := l.pay(1000, 1, l.coinbase(0))
	child := l.pay(1000, 1, coinsOf(a)[0])
	spoiled := child.Copy()
	spoiled.TxIn[0].Witness[0][10] ^= 1
	l.wantRule(spoiled, "missing-inputs", nobody)
	l.wantRule(child, "missing-inputs", nobody)
	l.want(a)
	if !l.has(child) {
		t.Error("the good one is not in")
	}
	l.verify()
}

// TestOrphanBounds: count, bytes and what one peer may hold, each at its limit.
func TestOrphanBounds(t *testing.T) {
	t.Parallel()
	const most = 20
	l := running(t, 0, func(o *mempool.Options) { o.MaxOrphans = most })
	orphan := func(i, outs int) *wire.MsgTx {
		c := coin{wire.OutPoint{Hash: [32]byte{9}, Index: uint32(i)}, 50_000_000}
		return l.draft(1000, outs, c)
	}
	add := func(peer string, i int) {
		l.t.Helper()
		if _, err := l.submit(orphan(i, 1), peer); err == nil {
			t.Fatal("accepted")
		}
	}
	count := func() int {
		n, _ := l.pool.Orphans()
		return n
	}
	for i := range most {
		add("greedy", i)
		if n := count(); n > most/mempool.PeerShare {
			t.Fatalf("one peer has %d orphans of %d", n, most)
		}
	}
	for i := range most {
		add(fmt.Sprint("peer", i), 100+i)
		l.verify()
	}
	if n := count(); n != most {
		t.Errorf("%d orphans, want %d", n, most)
	}
	add("last", 200)
	if n := count(); n != most {
		t.Errorf("%d orphans, want %d", n, most)
	}
	l.verify()

	// One with more parents than it could ever have is not kept.
	many := wire.NewMsgTx(2)
	for i := range mempool.MaxMissing + 1 {
		many.AddTxIn(wire.NewTxIn(&wire.OutPoint{Hash: [32]byte{7, byte(i)}}, nil, nil))
	}
	many.AddTxOut(wire.NewTxOut(1000, l.key.Script()))
	before := count()
	l.clock.add(mempool.OrphanLife + 1)
	l.pool.Sweep()
	if n := count(); n != 0 {
		t.Errorf("%d orphans after their time, %d before", n, before)
	}
	l.wantRule(many, "missing-inputs", nobody)
	if n := count(); n != 0 {
		t.Errorf("kept one with %d missing parents", len(many.TxIn))
	}
	many.TxIn = many.TxIn[1:]
	l.wantRule(many, "missing-inputs", nobody)
	if n := count(); n != 1 {
		t.Errorf("did not keep one with %d missing parents", len(many.TxIn))
	}

	tight := running(t, 0, func(o *mempool.Options) { o.MaxOrphanBytes = 40_000 })
	for i := range 40 {
		if _, err := tight.submit(orphan(i, 1+i), fmt.Sprint(i%7)); err == nil {
			t.Fatal("accepted")
		}
		tight.verify()
	}
	if n, _ := tight.pool.Orphans(); n == 0 || n == 40 {
		t.Errorf("%d orphans", n)
	}
	before, _ = tight.pool.Orphans()
	if _, err := tight.submit(orphan(0, 100), "big"); err == nil {
		t.Fatal("accepted")
	}
	if n, _ := tight.pool.Orphans(); n != before {
		t.Errorf("%d orphans, %d before one larger than a peer's share", n, before)
	}
}

// TestExpiry: entries leave at their age, with what builds on them.
func TestExpiry(t *testing.T) {
	t.Parallel()
	l := running(t, 2, func(o *mempool.Options) { o.Expiry = time.Hour })
	a := l.pay(1000, 1, l.coinbase(0))
	l.want(a)
	l.clock.add(30 * time.Minute)
	child, other := l.pay(1000, 1, coinsOf(a)[0]), l.pay(1000, 1, l.coinbase(1))
	l.want(child)
	l.want(other)
	l.clock.add(30 * time.Minute)
	l.pool.Sweep()
	if !l.has(a, child, other) {
		t.Error("gone at their age, not past it")
	}
	l.clock.add(1)
	l.pool.Sweep()
	if l.has(a) || l.has(child) || !l.has(other) {
		t.Error("want other alone")
	}
	l.verify()
}

// TestFull: at its limit of memory the pool keeps what pays most, and asks for
// more than what it threw out until blocks and time have passed.
func TestFull(t *testing.T) {
	t.Parallel()
	const txs = 12
	full := int64(0)
	l := newLab(t, consensus.Regtest(), 3*txs, nil)
	for i := range txs {
		full += mempool.MemoryOf(l.pay(int64(1000+10*i), 1, l.coinbase(i)))
	}
	l = running(t, 3*txs, func(o *mempool.Options) { o.MaxBytes = full })
	var cheap []*wire.MsgTx
	for i := range txs {
		cheap = append(cheap, l.pay(int64(1000+10*i), 1, l.coinbase(i)))
		l.want(cheap[i])
	}
	if n, _, memory := l.pool.Size(); n != txs || memory > full {
		t.Fatalf("%d entries of %d bytes, want it exactly full", n, memory)
	}
	if got := l.pool.MinFeeRate(); got != 1000 {
		t.Errorf("fee rate %d before anything was evicted", got)
	}
	l.wantRule(l.pay(900, 1, l.coinbase(txs)), "mempool-full", nobody)
	for i := range txs {
		l.want(l.pay(int64(100_000*(i+1)), 1, l.coinbase(txs+i)))
		if l.has(cheap[i]) {
			t.Fatal("the cheapest stays")
		}
		l.verify()
	}
	floor := l.pool.MinFeeRate()
	l.wantRule(cheap[txs-1], "min-relay-fee-not-met", nobody)
	l.clock.add(1000 * time.Hour)
	if got := l.pool.MinFeeRate(); got != floor {
		t.Errorf("fee rate %d sank from %d although no block made room", got, floor)
	}
	l.mine()
	l.clock.add(mempool.FloorHalfLife)
	if got := l.pool.MinFeeRate(); got < floor*49/100 || got > floor*51/100 {
		t.Errorf("fee rate %d after its half-life, was %d", got, floor)
	}
	l.clock.add(20 * mempool.FloorHalfLife)
	if got := l.pool.MinFeeRate(); got != 1000 {
		t.Errorf("fee rate %d, want the least again", got)
	}
}

// TestChildPaysForParent: a parent that a child pays for is worth keeping.
func TestChildPaysForParent(t *testing.T) {
	t.Parallel()
	l := running(t, 6, nil)
	room := 3*mempool.MemoryOf(l.pay(1000, 1, l.coinbase(0))) + 10
	l = running(t, 6, func(o *mempool.Options) { o.MaxBytes = room })
	parent := l.pay(1000, 1, l.coinbase(0))
	child := l.pay(50_000, 1, l.want(parent)[0])
	l.want(child)
	middle := l.pay(5000, 1, l.coinbase(1))
	l.want(middle)
	l.want(l.pay(100_000, 1, l.coinbase(2)))
	if !l.has(parent, child) || l.has(middle) {
		t.Error("the middle one had to go")
	}
	l.verify()
}

// TestBudget: a peer that makes us work for nothing is not listened to, until
// its debt has sunk; others are.
func TestBudget(t *testing.T) {
	t.Parallel()
	l := running(t, 2, nil)
	// Signatures that only policy refuses: the last output of a chain of bits is
	// malleable, so anybody can make as many of these as they like.
	spoil := func(i int) *wire.MsgTx {
		tx := l.draft(1000+int64(i), 1, l.coinbase(0))
		return l.sign(tx, l.coinbase(0))
	}
	l.want(l.pay(1_000_000, 1, l.coinbase(0)))
	for i := 0; ; i++ {
		_, err := l.submit(spoil(i), "evil")
		if err == nil {
			t.Fatal("accepted")
		}
		if strings.HasPrefix(err.Error(), "peer-over-budget") {
			break
		}
		if i == 3 { // as many more as it takes
			l.pool.Charge("evil", 2*mempool.MaxDebt, l.clock.now())
		}
		if i > 4 {
			t.Fatal("never over its budget")
		}
	}
	l.want(l.pay(1000, 1, l.coinbase(1)))
	l.clock.add(mempool.Payback * mempool.MaxDebt)
	if _, err := l.submit(spoil(0), "evil"); strings.HasPrefix(err.Error(), "peer-over-budget") {
		t.Error("not listened to although its debt has sunk")
	}

	book, now := mempool.NewBook(), time.Unix(0, 0)
	for i := range 2 * mempool.MaxDebtor {
		book.Charge(fmt.Sprint(i), time.Duration(i+1), now)
	}
	if book.Len() != mempool.MaxDebtor {
		t.Errorf("%d peers in the book, want %d", book.Len(), mempool.MaxDebtor)
	}
	book.Charge("x", mempool.MaxDebt+1, now)
	if !book.Over("x", now) || book.Over("x", now.Add(mempool.Payback)) || book.Over("", now) {
		t.Error("a debt of just over the limit: over now, not a moment later")
	}
}

// TestWasteOfMany: one with many names wastes no more than a quarter of a core, and
// who owes little is listened to meanwhile.
func TestWasteOfMany(t *testing.T) {
	t.Parallel()
	book, now := mempool.NewBook(), time.Unix(0, 0)
	for i := range 16 {
		book.Charge(fmt.Sprint(i), time.Second, now)
		if over := book.Over("0", now); over != (i == 15) {
			t.Errorf("over its budget after %d s of all: %t", i+1, over)
		}
	}
	book.Charge("honest", mempool.SmallDebt, now)
	if book.Over("honest", now) || book.Over("stranger", now) {
		t.Error("who owes little is not listened to")
	}
	for i := range 100 {
		book.Charge(fmt.Sprint(i), time.Second, now)
	}
	// Twice the limit is remembered: half of it sinks in a minute.
	soon := now.Add(mempool.AllPayback*mempool.MaxAllDebt - time.Millisecond)
	book.Charge("0", mempool.MaxDebt/2, soon) // what it owed itself has sunk
	if !book.Over("0", soon) {
		t.Error("listened to too soon")
	}
	if book.Over("0", soon.Add(mempool.MaxDebt/2*mempool.AllPayback+time.Second)) {
		t.Error("not listened to although all is paid back")
	}
}

// TestLaggingPool: while the pool is behind the chain, nothing is checked against
// coins of another tip, and nobody waits for ever.
func TestLaggingPool(t *testing.T) {
	t.Parallel()
	l := newLab(t, consensus.Regtest(), 2, nil) // not running
	at := l.pool.Tip()
	tip := l.on(l.tip, 0)
	tx := l.pay(1000, 1, l.coinbase(0))
	l.wantRule(tx, "tip-moving", nobody)
	if _, ok := l.pool.Snapshot(t.Context(), tip.Hash); ok {
		t.Error("a snapshot of a tip that the pool has not reached")
	}
	if _, ok := l.pool.Snapshot(t.Context(), at); !ok {
		t.Error("no snapshot of where the pool is")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := l.pool.Submit(ctx, tx, "peer"); err != context.Canceled { //nolint:errorlint // exactly it
		t.Errorf("submit: %v", err)
	}
	done := make(chan bool)
	go func() {
		_, ok := l.pool.Snapshot(t.Context(), tip.Hash)
		done <- ok
	}()
	run(t, l.pool.Run)
	if !<-done {
		t.Error("no snapshot although the pool followed")
	}
	l.want(tx)
}

// TestScriptsChecked: the pool's memory of scripts is by witness id and flags.
func TestScriptsChecked(t *testing.T) {
	t.Parallel()
	l := running(t, 1, nil)
	tx := l.pay(1000, 1, l.coinbase(0))
	flags := consensus.ScriptFlags(l.chain.Params(), &enginetest.FakePast{At0: 199}, l.tip.Hash)
	if l.pool.ScriptsChecked(tx.WitnessHash(), flags) {
		t.Error("checked before it came")
	}
	l.want(tx)
	if !l.pool.ScriptsChecked(tx.WitnessHash(), flags) || l.pool.ScriptsChecked(tx.TxHash(), flags) ||
		l.pool.ScriptsChecked(tx.WitnessHash(), flags|1<<31) {
		t.Error("want its witness id and flags that it passed, only")
	}
}

func TestFees(t *testing.T) {
	t.Parallel()
	for _, row := range []struct{ rate, vsize, want int64 }{
		{1000, 141, 141},
		{1, 1, 1},
		{1, 1001, 2},
		{0, 100, 0},
		{math.MaxInt64, 1000, math.MaxInt64},
		{math.MaxInt64, math.MaxInt64, math.MaxInt64},
	} {
		if got := mempool.FeeFor(row.rate, row.vsize); got != row.want {
			t.Errorf("fee of %d bytes at %d: %d, want %d", row.vsize, row.rate, got, row.want)
		}
	}
	const money = 21e14
	for _, row := range []struct {
		fa, wa, fb, wb int64
		want           int
	}{
		{1, 2, 2, 4, 0},
		{1, 2, 2, 3, -1},
		{money, 400_000, money, 399_999, -1}, // the products do not fit 64 bits
		{money, 4, money, 400_000, 1},
		{0, 1, 0, 5, 0},
	} {
		if got := mempool.CompareFeeRates(row.fa, row.wa, row.fb, row.wb); got != row.want {
			t.Errorf("%d/%d with %d/%d: %d", row.fa, row.wa, row.fb, row.wb, got)
		}
	}
}
