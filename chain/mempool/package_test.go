package mempool_test

import (
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/btcsuite/btcd/wire/v2"

	"dunlin/chain/consensus"
	"dunlin/chain/mempool"
)

// wantPackage checks what becomes of a package: rule is "" if it is allowed, at the place
// of the refusal.
func (l *lab) wantPackage(name, rule string, at int, txs ...*wire.MsgTx) []mempool.Entry {
	l.t.Helper()
	es, err := l.pool.CheckPackage(l.t.Context(), txs)
	p, _ := errors.AsType[*mempool.PackageError](err)
	r, _ := errors.AsType[*consensus.RuleError](err)
	switch {
	case rule == "" && err != nil, rule != "" && (r == nil || p == nil || r.Rule != rule || p.At != at):
		l.t.Errorf("%s: %v, want %q of %d", name, err, rule, at)
	case rule == "" && len(es) != len(txs):
		l.t.Errorf("%s: %d entries", name, len(es))
	}
	l.verify()
	return es
}

// A package is checked as if its transactions came one after the other, and leaves
// nothing behind.
func TestCheckPackage(t *testing.T) {
	l := running(t, 40, nil)
	parent := l.pay(2000, 2, l.coinbase(0))
	l.want(parent)
	out := coinsOf(parent)
	count, vbytes, memory := l.pool.Size()

	a := l.pay(1000, 2, out[0])
	b := l.pay(2000, 1, coinsOf(a)[0])
	c := l.pay(3000, 1, coinsOf(a)[1], out[1])
	d := l.pay(500, 1, l.coinbase(1))
	es := l.wantPackage("a family", "", 0, a, b, d, c)
	for i, fee := range []int64{1000, 2000, 500, 3000} {
		if es[i].Fee != fee {
			t.Errorf("fee %d of transaction %d", es[i].Fee, i)
		}
	}
	if p := es[3].Parents; len(p) != 2 || es[0].Parents[0] != parent.TxHash() {
		t.Errorf("parents %v and %v", p, es[0].Parents)
	}
	for name, row := range map[string]struct {
		rule string
		at   int
		txs  []*wire.MsgTx
	}{
		"none":                   {"", 0, nil},
		"one":                    {"", 0, []*wire.MsgTx{a}},
		"children first":         {"package-not-sorted", -1, []*wire.MsgTx{b, a}},
		"twice":                  {"package-contains-duplicates", -1, []*wire.MsgTx{a, d, a}},
		"rivals":                 {"conflict-in-package", -1, []*wire.MsgTx{a, l.pay(5000, 1, out[0])}},
		"no parent":              {"missing-inputs", 1, []*wire.MsgTx{d, b}},
		"there already":          {"txn-already-in-mempool", 0, []*wire.MsgTx{parent, a}},
		"a replacement":          {"bip125-replacement-disallowed", 1, []*wire.MsgTx{d, l.pay(1_000_000, 1, l.coinbase(0))}},
		"no fee":                 {"min-relay-fee-not-met", 1, []*wire.MsgTx{a, l.pay(0, 1, coinsOf(a)[0])}},
		"no output of a member":  {"missing-inputs", 1, []*wire.MsgTx{a, l.draft(0, 1, coin{wire.OutPoint{Hash: a.TxHash(), Index: 9}, 10_000})}},
		"an empty transaction":   {"bad-txns-vin-empty", 1, []*wire.MsgTx{a, wire.NewMsgTx(2)}},
		"a signature that fails": {"mandatory-script-verify-flag-failed", 1, []*wire.MsgTx{a, l.draft(1000, 1, coinsOf(a)[0])}},
	} {
		l.wantPackage(name, row.rule, row.at, row.txs...)
	}

	// 25 and their weight.
	var many []*wire.MsgTx
	for i := range mempool.MaxPackage {
		many = append(many, l.pay(1000, 1, l.coinbase(2+i)))
	}
	l.wantPackage("as many as may be", "", 0, many...)
	l.wantPackage("one more", "package-too-many-transactions", -1, append(many, d)...)
	large := []*wire.MsgTx{l.pay(100_000, 2400, l.coinbase(30)), l.pay(100_000, 2400, l.coinbase(31))}
	l.wantPackage("too large", "package-too-large", -1, large...)

	// The parent in the pool counts: 24 may follow it.
	chained, last := []*wire.MsgTx(nil), out[0]
	for range mempool.MaxPackage {
		tx := l.pay(1000, 1, last)
		chained, last = append(chained, tx), coinsOf(tx)[0]
	}
	l.wantPackage("a chain of 25 with the parent", "", 0, chained[:24]...)
	l.wantPackage("a chain of 26", "package-mempool-limits", -1, chained...)
	l.wantPackage("25 of one parent", "package-mempool-limits", -1, append(chained[:24:24], l.pay(1000, 1, out[1]))...)

	if n, v, m := l.pool.Size(); n != count || v != vbytes || m != memory || l.has(a) {
		t.Errorf("a test left %d transactions", n-count)
	}
	if n, _ := l.pool.Orphans(); n != 0 {
		t.Errorf("%d orphans", n)
	}
}

// Of transactions of version 3 a parent has one child, in the pool or in the package, and
// that does not give way.
func TestCheckPackageTRUC(t *testing.T) {
	l := running(t, 3, nil)
	truc := func(fee int64, outs int, c coin) *wire.MsgTx {
		tx := l.draft(fee, outs, c)
		tx.Version = 3
		return l.sign(tx, c)
	}
	parent := truc(1000, 2, l.coinbase(0))
	child := truc(1000, 1, coinsOf(parent)[0])
	second := truc(90_000, 1, coinsOf(parent)[1])
	l.wantPackage("one child", "", 0, parent, child)
	l.wantPackage("two children", "truc-violation", 2, parent, child, second)
	l.wantPackage("a grandchild", "truc-violation", 2, parent, child, truc(1000, 1, coinsOf(child)[0]))
	l.wantPackage("of another version", "truc-violation", 1, parent, l.pay(1000, 1, coinsOf(parent)[0]))
	l.want(parent)
	l.want(child)
	l.wantPackage("a child in the pool", "truc-violation", 0, second, l.pay(1000, 1, l.coinbase(1)))
	if _, err := l.pool.Check(t.Context(), second); err != nil {
		t.Errorf("alone it may take its place: %v", err)
	}
}

// Whatever the pool holds, a package is allowed exactly if its transactions could come one
// after the other, as long as nothing is replaced.
func TestCheckPackageIsSubmit(t *testing.T) {
	l := running(t, 12, nil)
	r := rand.New(rand.NewPCG(7, 7))
	var free []coin
	for i := range 12 {
		free = append(free, l.coinbase(i))
	}
	take := func() coin {
		i := r.IntN(len(free))
		c := free[i]
		free = append(free[:i], free[i+1:]...)
		return c
	}
	for range 40 {
		var txs []*wire.MsgTx
		for range 1 + r.IntN(5) {
			coins := []coin{take()}
			if len(free) > 3 && r.IntN(3) == 0 {
				coins = append(coins, take())
			}
			tx := l.pay(int64(r.IntN(600)), 1+r.IntN(3), coins...)
			txs = append(txs, tx)
			free = append(free, coinsOf(tx)...)
		}
		_, err := l.pool.CheckPackage(t.Context(), txs)
		p, _ := errors.AsType[*mempool.PackageError](err)
		gone := make(map[wire.OutPoint]bool)
		for i, tx := range txs {
			_, fault := l.submit(tx, "")
			if fault != nil {
				for _, c := range coinsOf(tx) {
					gone[c.op] = true
				}
			}
			rule, _ := errors.AsType[*consensus.RuleError](fault)
			want := p != nil && p.At == i
			if rule != nil && rule.Rule == "too-long-mempool-chain" {
				want = p != nil && p.At < 0
			}
			if (fault != nil) != want {
				t.Fatalf("transaction %d: %v, the package: %v", i, fault, err)
			}
			if fault != nil {
				for _, later := range txs[i:] {
					for _, c := range coinsOf(later) {
						gone[c.op] = true
					}
				}
				break
			}
		}
		kept := free[:0]
		for _, c := range free {
			if !gone[c.op] && c.value > 10_000 {
				kept = append(kept, c)
			}
		}
		if free = kept; len(free) == 0 {
			return
		}
	}
}
