package mempool_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/wire/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"dunlin/chain"
	"dunlin/chain/consensus"
	"dunlin/chain/consensus/enginetest"
	"dunlin/chain/mempool"
)

// A logBook keeps the lines of a log.
type logBook struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBook) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

// lines returns those that have a text.
func (l *logBook) lines(text string) (out []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for line := range strings.Lines(l.b.String()) {
		if strings.Contains(line, text) {
			out = append(out, line)
		}
	}
	return out
}

func (l *logBook) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

// fate waits for the fate of a transaction.
func (l *lab) fate(tx *wire.MsgTx) mempool.Fate {
	l.t.Helper()
	id := tx.TxHash()
	deadline := time.Now().Add(patience)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		if f, ok := l.pool.Fate(id); ok {
			return f
		}
		if time.Now().After(deadline) {
			l.t.Fatalf("no fate of %s", id)
		}
		<-tick.C
	}
}

// wantConflict submits what must be refused because of another transaction.
func (l *lab) wantConflict(tx *wire.MsgTx, rule string, by *wire.MsgTx) *mempool.ConflictError {
	l.t.Helper()
	l.wantRule(tx, rule, nobody)
	_, err := l.submit(tx, "peer")
	c, ok := errors.AsType[*mempool.ConflictError](err)
	if !ok || c.By != by.TxHash() || !strings.Contains(err.Error(), by.TxHash().String()) {
		l.t.Fatalf("submit: %v, want a conflict that names %s", err, by.TxHash())
	}
	return c
}

// TestDoubleSpendInPool: the second spend of a coin is refused, and the error
// names the first, whichever of the rules on replacement it breaks.
func TestDoubleSpendInPool(t *testing.T) {
	t.Parallel()
	l := running(t, 3, nil)
	first := l.pay(2000, 1, l.coinbase(0))
	child := l.pay(2000, 1, l.want(first)[0])
	l.want(child)
	other := l.pay(2000, 1, l.coinbase(1))
	l.want(other)
	c := l.wantConflict(l.pay(2000, 2, l.coinbase(0)), "insufficient-fee", first)
	if c.Output != l.coinbase(0).op || c.Block != (chainhash.Hash{}) {
		t.Errorf("%+v", c)
	}
	l.wantConflict(l.pay(2100, 1, l.coinbase(0)), "insufficient-fee", first)
	l.wantConflict(l.pay(50_000, 1, l.coinbase(0), coinsOf(child)[0]), "bad-txns-spends-conflicting-tx", first)
	l.wantConflict(l.pay(50_000, 1, l.coinbase(0), coinsOf(other)[0]), "replacement-adds-unconfirmed", first)
	if !l.has(first, child, other) {
		t.Error("a refused double spend changed the pool")
	}
	// One that pays for it takes their place; they are told so.
	second := l.pay(9000, 1, l.coinbase(0))
	l.want(second)
	if f := l.fate(first); f.Cause != mempool.Replaced || f.By != second.TxHash() || f.Via != (chainhash.Hash{}) {
		t.Errorf("%+v", f)
	}
	if f := l.fate(child); f.Cause != mempool.Replaced || f.By != second.TxHash() || f.Via != first.TxHash() {
		t.Errorf("%+v", f)
	}
	if lost, _ := l.pool.Lost(0); len(lost) != 0 {
		t.Errorf("replaced ones are told as lost: %+v", lost)
	}
	// What comes back has no fate.
	l.want(l.pay(30_000, 1, l.coinbase(0)))
	l.verify()
}

// TestDoubleSpendInBlocks: the same coin spent twice in one block, and again in a
// later one, is refused by the chain; in the pool too.
func TestDoubleSpendInBlocks(t *testing.T) {
	t.Parallel()
	l := running(t, 2, nil)
	one, two := l.pay(1000, 1, l.coinbase(0)), l.pay(1500, 1, l.coinbase(0))
	refused := func(b *consensus.Block) {
		t.Helper()
		k, err := l.chain.Submit(t.Context(), b.Raw, chain.Source{Kind: chain.FromSync})
		if err != nil {
			t.Fatal(err)
		}
		rule, ok := errors.AsType[*consensus.RuleError](k.Wait(t.Context()).Err)
		if !ok || rule.Rule != "bad-txns-inputs-missingorspent" {
			t.Fatalf("verdict %v", rule)
		}
	}
	mine := func(txs ...*wire.MsgTx) *consensus.Block {
		return l.b.MineTemplate(l.tip, enginetest.Template{Script: l.key.Script(), Txs: txs})
	}
	refused(mine(one, two))
	l.mine(one)
	refused(mine(two))
	l.wantRule(two, "missing-inputs", nobody)
	if n, _, _ := l.pool.Size(); n != 0 {
		t.Errorf("%d entries", n)
	}
}

// TestLostToABlock: a block with another spend of the same coin makes the payment
// and what builds on it lost; subscribers, the log and whoever asks are told.
func TestLostToABlock(t *testing.T) {
	t.Parallel()
	var log logBook
	l := running(t, 2, func(o *mempool.Options) { o.Logger = log.logger() })
	payment := l.pay(1000, 1, l.coinbase(0))
	child := l.pay(1000, 1, l.want(payment)[0])
	grandchild := l.pay(1000, 1, l.want(child)[0])
	l.want(grandchild)
	_, changed := l.pool.Lost(0)
	rival := l.pay(500, 1, l.coinbase(0))
	b := l.mine(rival)
	<-changed
	for _, row := range []struct {
		tx  *wire.MsgTx
		via chainhash.Hash
	}{{payment, chainhash.Hash{}}, {child, payment.TxHash()}, {grandchild, payment.TxHash()}} {
		f := l.fate(row.tx)
		f.Seq, f.At = 0, time.Time{}
		want := mempool.Fate{
			ID: row.tx.TxHash(), Cause: mempool.Conflicted, By: rival.TxHash(), Via: row.via,
			Block: b.Hash, Height: l.b.Height(b.Hash),
		}
		if f != want {
			t.Errorf("got  %+v\nwant %+v", f, want)
		}
	}
	lost, _ := l.pool.Lost(0)
	if len(lost) != 3 || lost[0].ID != payment.TxHash() {
		t.Fatalf("%d lost: %+v", len(lost), lost)
	}
	if rest, _ := l.pool.Lost(lost[0].Seq); len(rest) != 2 {
		t.Errorf("%d lost after the first", len(rest))
	}
	// Whoever sends it again hears why not.
	c := l.wantConflict(payment, "missing-inputs", rival)
	if c.Block != b.Hash || c.Height != l.b.Height(b.Hash) {
		t.Errorf("%+v", c)
	}
	l.mine() // the line is written when the event is over
	if lines := log.lines("payment lost"); len(lines) != 1 || !strings.Contains(lines[0], payment.TxHash().String()) ||
		!strings.Contains(lines[0], rival.TxHash().String()) || !strings.Contains(lines[0], "others=2") {
		t.Errorf("log: %q", lines)
	}
}

// TestLostToABranch: a payment with confirmations, and what was built on it
// confirmed and not, is lost to a longer branch that spends the coin otherwise.
// When the first branch wins again, all is as before.
func TestLostToABranch(t *testing.T) {
	t.Parallel()
	var log logBook
	l := running(t, 4, func(o *mempool.Options) { o.Logger = log.logger() })
	fork := l.tip
	payment := l.pay(1000, 1, l.coinbase(0))
	spent := l.pay(1000, 2, coinsOf(payment)[0]) // confirmed too
	both := l.pay(1000, 1, l.coinbase(1))        // in both branches
	one := l.on(fork, 0, payment, both)
	two := l.on(one, 0, spent)
	l.follow(two.Hash)
	waiting := l.pay(1000, 1, coinsOf(spent)[0]) // not confirmed
	l.want(waiting)
	unrelated := l.pay(1000, 1, l.coinbase(2))
	l.want(unrelated)

	theft := l.pay(700, 1, l.coinbase(0))
	a := l.on(fork, 0, theft, both)
	l.tip = l.on(l.on(a, 0), 0)
	l.follow(l.tip.Hash)
	l.until(func() bool { return l.has(unrelated) })
	height := l.b.Height(one.Hash)
	for _, row := range []struct {
		tx        *wire.MsgTx
		via       chainhash.Hash
		was       chainhash.Hash
		wasHeight int32
	}{
		{payment, chainhash.Hash{}, one.Hash, height},
		{spent, payment.TxHash(), two.Hash, height + 1},
		{waiting, payment.TxHash(), chainhash.Hash{}, 0},
	} {
		f := l.fate(row.tx)
		f.Seq, f.At, f.Rule = 0, time.Time{}, ""
		want := mempool.Fate{
			ID: row.tx.TxHash(), Cause: mempool.Conflicted, By: theft.TxHash(), Via: row.via, Block: a.Hash, Height: height,
			Was: row.was, WasHeight: row.wasHeight,
		}
		if f != want {
			t.Errorf("got  %+v\nwant %+v", f, want)
		}
	}
	if _, ok := l.pool.Fate(both.TxHash()); ok || l.has(both) {
		t.Error("a transaction of both branches has a fate, or is in the pool")
	}
	if n, _, _ := l.pool.Size(); n != 1 {
		t.Errorf("%d entries", n)
	}
	l.mine()
	if lines := log.lines("payment lost"); len(lines) != 1 || !strings.Contains(lines[0], payment.TxHash().String()) ||
		!strings.Contains(lines[0], one.Hash.String()) || !strings.Contains(lines[0], "others=2") {
		t.Errorf("log: %q", lines)
	}
	l.verify()

	// Back again: now the theft was in a block, and is lost.
	l.tip = two
	for range 4 {
		l.tip = l.on(l.tip, 0)
	}
	l.follow(l.tip.Hash)
	if f := l.fate(theft); f.Cause != mempool.Conflicted || f.By != payment.TxHash() || f.Was != a.Hash {
		t.Errorf("%+v", f)
	}
	for _, tx := range []*wire.MsgTx{payment, spent} {
		if f, ok := l.pool.Fate(tx.TxHash()); ok {
			t.Errorf("mined again, and has fate %+v", f)
		}
	}
	l.want(waiting)
	if f, ok := l.pool.Fate(waiting.TxHash()); ok {
		t.Errorf("in the pool again, and has fate %+v", f)
	}
	l.verify()
}

// TestLostCoinbase: what spends a coinbase of the branch that lost is invalid,
// and reported; a lock that is not met any more too.
func TestLostCoinbase(t *testing.T) {
	t.Parallel()
	l := running(t, 2, nil)
	fork := l.tip
	own := l.on(fork, 0)
	tip := own
	maturity := int(l.chain.Params().CoinbaseMaturity)
	for range maturity {
		tip = l.on(tip, 0)
	}
	l.follow(tip.Hash)
	young := l.pay(1000, 1, coin{wire.OutPoint{Hash: *own.Txs[0].Hash()}, own.Txs[0].MsgTx().TxOut[0].Value})
	l.want(young)
	locked := l.draft(1000, 1, l.coinbase(0))
	locked.TxIn[0].Sequence, locked.LockTime = 0, uint32(l.b.Height(tip.Hash))
	l.want(l.sign(locked, l.coinbase(0)))
	old := l.draft(1000, 1, l.coinbase(1)) // relative: the age that its coin has now
	old.TxIn[0].Sequence = uint32(l.b.Height(tip.Hash) - 1)
	l.want(l.sign(old, l.coinbase(1)))

	// Fewer, but worth more: invalidate leaves a lower tip.
	if err := l.chain.Invalidate(t.Context(), own.Hash); err != nil {
		t.Fatal(err)
	}
	l.follow(fork.Hash)
	for _, row := range []struct {
		tx   *wire.MsgTx
		rule string
	}{{young, "missing-inputs"}, {locked, "non-final"}, {old, "bad-txns-nonfinal"}} {
		if f := l.fate(row.tx); f.Cause != mempool.Invalid || f.Rule != row.rule {
			t.Errorf("%+v, want %s", f, row.rule)
		}
	}
	if n, _, _ := l.pool.Size(); n != 0 {
		t.Errorf("%d entries", n)
	}
	if lost, _ := l.pool.Lost(0); len(lost) != 3 {
		t.Errorf("%d lost", len(lost))
	}
}

// TestFatesAreBounded: the last ones are remembered, and replaced ones do not
// push out lost ones.
func TestFatesAreBounded(t *testing.T) {
	t.Parallel()
	b := mempool.NewFates()
	for i := range 3 * mempool.MaxFates {
		b.Add(mempool.Fate{ID: chainhash.Hash{1, byte(i), byte(i >> 8)}, Cause: mempool.Replaced})
		if i < 10 {
			b.Add(mempool.Fate{ID: chainhash.Hash{2, byte(i)}, Cause: mempool.Conflicted})
		}
	}
	if lost, other, byID := b.Len(); lost != 10 || other != mempool.MaxFates || byID != mempool.MaxFates+10 {
		t.Errorf("%d lost, %d others, %d by id", lost, other, byID)
	}
	for range 3 { // the same again and again
		for i := range mempool.MaxFates {
			b.Add(mempool.Fate{ID: chainhash.Hash{3, byte(i)}, Cause: mempool.Expired})
		}
	}
	if _, other, byID := b.Len(); other != mempool.MaxFates || byID != 256+10 {
		t.Errorf("%d others, %d by id", other, byID)
	}
}

// TestUnsent: what others must be told of is what was made here, and orphans that
// were completed here, by a transaction or by a block; after their message is
// forgotten.
func TestUnsent(t *testing.T) {
	t.Parallel()
	const seen = 3 * time.Minute
	l := running(t, 6, nil)
	due := func() (ids []chainhash.Hash, next time.Time) {
		entries, next, _ := l.pool.Unsent(10, seen)
		for _, e := range entries {
			ids = append(ids, e.ID)
		}
		return ids, next
	}
	_, _, more := l.pool.Unsent(10, seen)
	theirs := l.pay(1000, 1, l.coinbase(0))
	l.want(theirs) // whoever handed it in passes it on
	ours := l.pay(1000, 1, l.coinbase(1))
	if _, err := l.submit(ours, ""); err != nil {
		t.Fatal(err)
	}
	<-more
	parent, mined := l.pay(1000, 1, l.coinbase(2)), l.pay(1000, 1, l.coinbase(3))
	child, late := l.pay(1000, 1, coinsOf(parent)[0]), l.pay(1000, 1, coinsOf(mined)[0])
	l.wantRule(child, "missing-inputs", nobody)
	l.clock.add(time.Minute)
	l.wantRule(late, "missing-inputs", nobody)
	l.want(parent)
	l.mine(mined)
	l.until(func() bool { return l.has(child, late) })

	ids, next := due()
	if len(ids) != 1 || ids[0] != ours.TxHash() || !next.Equal(l.clock.now().Add(seen-time.Minute)) {
		t.Fatalf("due %v, next at %v", ids, next)
	}
	l.clock.add(seen - time.Minute)
	if ids, _ := due(); len(ids) != 2 || ids[1] != child.TxHash() {
		t.Fatalf("due %v", ids)
	}
	l.clock.add(time.Minute)
	if ids, next := due(); len(ids) != 3 || ids[2] != late.TxHash() || !next.IsZero() {
		t.Fatalf("due %v, next at %v", ids, next)
	}
	// A reorganisation does not make us forget, the next block's copy does.
	l.tip = l.on(l.on(l.ancestor(1), 0, mined), 0)
	l.follow(l.tip.Hash)
	l.until(func() bool { return l.has(ours, child, late) })
	if ids, _ := due(); len(ids) != 3 {
		t.Fatalf("due after a reorganisation %v", ids)
	}
	l.pool.Sent(ours.TxHash())
	l.pool.Sent(ours.TxHash())
	l.mine(parent, child)
	if ids, _ := due(); len(ids) != 1 || ids[0] != late.TxHash() {
		t.Errorf("due %v", ids)
	}
	if l.pool.Resend(ours.TxHash()) != true || l.pool.Resend(child.TxHash()) {
		t.Error("only what is in the pool can be sent again")
	}
	if ids, _ := due(); len(ids) != 2 || ids[0] != ours.TxHash() {
		t.Errorf("due %v", ids)
	}
	l.verify()
}

// TestFarBehind: a pool that is very far behind does not read every block: what
// it has is looked at again at the tip, and nobody is told that something was
// lost that may have been mined.
func TestFarBehind(t *testing.T) {
	t.Parallel()
	l := newLab(t, consensus.Regtest(), 3, nil) // not running
	mined, kept := l.pay(1000, 1, l.coinbase(0)), l.pay(1000, 1, l.coinbase(1))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- l.pool.Run(ctx) }()
	l.want(mined)
	l.want(kept)
	cancel()
	<-done
	l.tip = l.on(l.tip, 0, mined)
	l.tip = l.on(l.tip, 0, l.pay(1000, 1, coinsOf(mined)[0])) // no output left to know it by
	l.fill(mempool.MaxBehind)
	run(t, l.pool.Run)
	l.follow(l.tip.Hash)
	l.until(func() bool { return l.has(kept) && !l.has(mined) })
	if lost, _ := l.pool.Lost(0); len(lost) != 0 {
		t.Errorf("told as lost: %+v", lost)
	}
	l.verify()
}

// TestWaitingIsBounded: what waits to come back counts as memory of the pool.
func TestWaitingIsBounded(t *testing.T) {
	t.Parallel()
	l := running(t, 30, func(o *mempool.Options) { o.MaxBytes = 30_000 })
	fork := l.tip
	var txs []*wire.MsgTx
	for i := range 10 {
		txs = append(txs, l.pay(1000, 1, l.coinbase(i)))
	}
	l.follow(l.on(fork, 0, txs...).Hash)
	for i := 10; i < 30; i++ {
		l.want(l.pay(2000, 1, l.coinbase(i)))
	}
	l.tip = l.on(l.on(fork, 0), 0)
	l.follow(l.tip.Hash)
	l.verify()
	n, _, memory := l.pool.Size()
	t.Logf("%d entries of %d bytes", n, memory)
	l.until(func() bool { n, _, _ := l.pool.Size(); return n > 15 })
	l.verify()
}

// TestUnreadableBlock: a block that cannot be read (damaged, or pruned meanwhile)
// does not end Run: what the pool has is looked at again at the tip.
func TestUnreadableBlock(t *testing.T) {
	t.Parallel()
	var log logBook
	l := newLab(t, consensus.Regtest(), 3, func(o *mempool.Options) { o.Logger = log.logger() }) // not running
	mined, kept := l.pay(1000, 1, l.coinbase(0)), l.pay(1000, 1, l.coinbase(1))
	l.want(mined)
	l.want(kept)
	bad := l.on(l.tip, 0, mined)
	l.tip = l.on(bad, 0)
	f, err := l.fs.OpenReadWrite("home/blocks/00000.blk", vfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	at := bytes.Index(readAll(t, l.fs, "home/blocks/00000.blk"), bad.Raw)
	write := func(b byte) {
		t.Helper()
		if _, err := f.WriteAt([]byte{b}, int64(at+100)); err != nil {
			t.Fatal(err)
		}
	}
	write(^bad.Raw[100])
	t.Cleanup(func() { // for the audit at the end
		write(bad.Raw[100])
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
	run(t, l.pool.Run)
	l.follow(l.tip.Hash)
	l.until(func() bool { return l.has(kept) && !l.has(mined) })
	if lines := log.lines("mempool could not read a block on its way"); len(lines) != 1 {
		t.Errorf("log: %q", lines)
	}
	l.want(l.pay(1000, 1, l.coinbase(2)))
	l.verify()
}
