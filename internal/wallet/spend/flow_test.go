package spend_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/btcsuite/btcd/btcutil/v2/hdkeychain"
	"github.com/btcsuite/btcd/chaincfg/v2"
	"github.com/btcsuite/btcd/wire/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"dunlin/chain"
	"dunlin/chain/consensus"
	"dunlin/chain/consensus/enginetest"
	"dunlin/chain/consensus/pow"
	"dunlin/chain/mempool"
	"dunlin/internal/wallet/descriptor"
	"dunlin/internal/wallet/keys"
	"dunlin/internal/wallet/spend"
)

// preimage is what scripts with a hash want.
var preimage = sha256.Sum256([]byte("preimage"))

// unspendable is an internal key that nobody has (BIP341).
const unspendable = "50929b74c1a04954b78b4b6035e97a5e078a5a0f28ec96d547bfee9ace803ac0"

// forms are descriptors of all kinds; A and B stand for the keys of two parties,
// and H for a hash.
var forms = []string{
	"pk(A)", "pkh(A)", "wpkh(A)", "sh(wpkh(A))", "sh(pkh(A))", "wsh(pkh(A))", "sh(wsh(pk(A)))",
	"multi(1,A,B)", "multi(2,A,B)", "sh(multi(2,A,B))", "sh(sortedmulti(2,B,A))", "wsh(multi(2,B,A))", "sh(wsh(sortedmulti(1,A,B)))",
	"tr(A)", "rawtr(A)", "tr(A,pk(B))", "tr(" + unspendable + ",multi_a(2,A,B))", "tr(" + unspendable + ",{pk(A),{and_v(v:pk(B),older(10)),multi_a(1,B,A)}})",
	"tr(" + unspendable + ",and_v(v:pk(B),after(104)))",
	"wsh(and_v(v:pk(A),older(10)))", "wsh(and_v(v:pkh(A),after(103)))", "wsh(and_v(v:pk(A),and_v(v:pk(B),older(5))))",
	"wsh(andor(pk(A),older(10),and_v(v:pkh(B),sha256(H))))", "wsh(thresh(2,pk(A),s:pk(B),sln:after(1000)))",
	"wsh(and_v(v:pk(B),sha256(H)))",
}

// A party has a ring with its keys of all forms.
type party struct {
	name string
	ring *keys.Ring
}

// A purse has outputs of all forms, and the two parties that can spend them.
type purse struct {
	parties []party
	descs   []*descriptor.Descriptor
	outs    map[string]*descriptor.Output // by script
}

func newPurse(t testing.TB, net *consensus.Params) *purse {
	t.Helper()
	p := &purse{outs: make(map[string]*descriptor.Output)}
	var prv, pub []string
	for _, name := range []string{"A", "B"} {
		seed := sha256.Sum256([]byte("party " + name))
		master, err := hdkeychain.NewMaster(seed[:], &chaincfg.RegressionNetParams)
		if err != nil {
			t.Fatal(err)
		}
		x, err := keys.ParseXPrv(master.String(), net)
		if err != nil {
			t.Fatal(err)
		}
		prv, pub = append(prv, x.Reveal()+"/0/*"), append(pub, x.Public().String()+"/0/*")
		p.parties = append(p.parties, party{name, keys.NewRing()})
	}
	hash := sha256.Sum256(preimage[:])
	for _, form := range forms {
		for i, who := range p.parties {
			texts := []string{pub[0], pub[1]}
			texts[i] = prv[i]
			own := strings.NewReplacer("A", texts[0], "B", texts[1], "H", hex.EncodeToString(hash[:])).Replace(form)
			d, err := descriptor.Parse(own, net)
			if err != nil {
				t.Fatalf("%s: %v", form, err)
			}
			if err := d.AddTo(who.ring); err != nil {
				t.Fatalf("%s: %v", form, err)
			}
			if i == 0 {
				p.descs = append(p.descs, d)
			}
		}
	}
	return p
}

func (p *purse) output(t testing.TB, form int, index uint32) *descriptor.Output {
	t.Helper()
	o, err := p.descs[form].Derive(index)
	if err != nil {
		t.Fatalf("%s: %v", forms[form], err)
	}
	p.outs[string(o.PkScript)] = o
	return o
}

func (p *purse) describe(script []byte) *descriptor.Output { return p.outs[string(script)] }

// means are what both have together, in height.
func (p *purse) means(height int32) *spend.Means {
	return &spend.Means{
		Height: height,
		Has:    func(k keys.Ref) bool { return p.parties[0].ring.Has(k) || p.parties[1].ring.Has(k) },
		Preimage: func(kind descriptor.HashKind, hash []byte) ([]byte, bool) {
			sum := sha256.Sum256(preimage[:])
			return preimage[:], kind == descriptor.SHA256 && string(hash) == string(sum[:])
		},
	}
}

// addPreimage tells a packet the preimage where a script wants it.
func addPreimage(p *spend.Packet) {
	sum := sha256.Sum256(preimage[:])
	for i := range p.Inputs {
		if strings.Contains(string(p.Inputs[i].WitnessScript), string(sum[:])) {
			p.Inputs[i].Preimages = []spend.Preimage{{Kind: spend.Sha256, Hash: sum[:], Value: preimage[:]}}
		}
	}
}

// sign passes a packet around: each party signs its own copy, as text; the copies
// are combined, finalised and extracted.
func (p *purse) sign(plan *spend.Plan, describe func([]byte) *descriptor.Output) (*wire.MsgTx, error) {
	pk, err := plan.Packet()
	if err != nil {
		return nil, err
	}
	addPreimage(pk)
	known := func(op wire.OutPoint) *wire.TxOut {
		for _, c := range plan.Coins {
			if c.OutPoint == op {
				return wire.NewTxOut(c.Value, c.Script)
			}
		}
		return nil
	}
	var signed []*spend.Packet
	for _, who := range p.parties {
		own, err := spend.Parse(pk.String())
		if err != nil {
			return nil, fmt.Errorf("copy: %w", err)
		}
		if own.String() != pk.String() {
			return nil, errors.New("a copy differs")
		}
		if _, err := own.Sign(who.ring, spend.SignOptions{Known: known}); err != nil {
			return nil, fmt.Errorf("sign by %s: %w", who.name, err)
		}
		if own, err = spend.Parse(own.String()); err != nil {
			return nil, fmt.Errorf("signed copy: %w", err)
		}
		signed = append(signed, own)
	}
	all, err := spend.Combine(signed...)
	if err != nil {
		return nil, err
	}
	if a := all.Analyse(p.describe); a.Next != spend.RoleFinaliser || a.Fee != plan.Fee {
		return nil, fmt.Errorf("analysis %+v", a)
	}
	if err := all.Finalise(describe); err != nil {
		return nil, fmt.Errorf("finalise: %w", err)
	}
	if a := all.Analyse(p.describe); a.Next != spend.RoleExtractor || !all.Complete() {
		return nil, fmt.Errorf("analysis %+v", a)
	}
	return all.Extract()
}

// checkSigned holds a signed transaction against its plan.
func checkSigned(r *spend.Request, plan *spend.Plan, tx *wire.MsgTx) error {
	coins := make([]consensus.Coin, len(plan.Coins))
	var slack int64
	for i, c := range plan.Coins {
		coins[i] = consensus.Coin{Value: c.Value, Script: c.Script}
		// Of what a signature may take, one byte in 256 times as many is saved.
		slack += 3 * int64(len(tx.TxIn[i].SignatureScript)/72*4+len(tx.TxIn[i].Witness))
	}
	weight, err := spend.FeeWeight(tx, coins)
	switch {
	case err != nil:
		return err
	case weight > plan.Weight:
		return fmt.Errorf("weighs %d, planned %d", weight, plan.Weight)
	case weight < plan.Weight-slack-4:
		return fmt.Errorf("weighs %d, planned %d, at most %d less", weight, plan.Weight, slack)
	case plan.Fee < r.Rate.Fee(weight):
		return fmt.Errorf("fee %d, want %d", plan.Fee, r.Rate.Fee(weight))
	}
	return nil
}

// TestFlow: every form of output is spent in random transactions by two parties.
func TestFlow(t *testing.T) {
	purse := newPurse(t, consensus.Regtest())
	rounds := 60
	if testing.Short() {
		rounds = 15
	}
	used := make(map[int]int)
	for seed := range uint64(rounds) {
		rng := rand.New(rand.NewPCG(seed, 4))
		// One transaction makes coins of some forms, and others' as well.
		source := wire.NewMsgTx(2)
		source.AddTxIn(wire.NewTxIn(&wire.OutPoint{Index: uint32(seed)}, nil, nil))
		r := spend.Request{Rate: 1000 + spend.Rate(rng.Int64N(50_000)), Height: 120, Maturity: 100, Rand: rng}
		var picked []int
		for range 1 + rng.IntN(6) {
			form := rng.IntN(len(forms))
			if seed < uint64(len(forms)) && len(picked) == 0 {
				form = int(seed)
			}
			o := purse.output(t, form, uint32(rng.IntN(5)))
			source.AddTxOut(wire.NewTxOut(50_000+rng.Int64N(1_000_000), o.PkScript))
			picked = append(picked, form)
		}
		id := source.TxHash()
		means := purse.means(r.Height)
		for i, form := range picked {
			o := purse.describe(source.TxOut[i].PkScript)
			c := spend.Coin{OutPoint: wire.OutPoint{Hash: id, Index: uint32(i)}, Value: source.TxOut[i].Value, Height: 100, Own: true}
			c.Describe(o, means, source)
			if c.Unspendable != nil || c.Closed {
				t.Fatalf("seed %d: %s: %+v", seed, forms[form], c)
			}
			r.Coins = append(r.Coins, c)
			if i == 0 || rng.IntN(2) == 0 {
				r.Spend = append(r.Spend, c.OutPoint)
				used[form]++
			}
		}
		to := purse.output(t, rng.IntN(len(forms)), 7)
		r.Payments = []spend.Payment{{Script: to.PkScript, Value: 20_000, Info: &spend.Info{Output: to}}}
		r.Change = []spend.Change{spend.ChangeTo(purse.output(t, rng.IntN(len(forms)), 8))}
		r.AddCoins = true
		plan, err := spend.Build(r)
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		tx, err := purse.sign(plan, purse.describe)
		if err != nil {
			t.Fatalf("seed %d: %s: %v", seed, forms[picked[0]], err)
		}
		if err := checkSigned(&r, plan, tx); err != nil {
			t.Errorf("seed %d: %v", seed, err)
		}
	}
	for i, form := range forms {
		if used[i] == 0 && !testing.Short() {
			t.Errorf("%s was never spent", form)
		}
	}
}

// A lab is a chain on regtest with a mempool, and a transaction that made an output of
// every form.
type lab struct {
	*testing.T
	*purse
	chain  *chain.Chain
	pool   *mempool.Pool
	blocks *enginetest.Builder
	key    *enginetest.Key
	tip    *consensus.Block
	height int32
	coins  []spend.Coin // of every form
	rand   *rand.Rand
}

func newLab(t *testing.T) *lab {
	t.Helper()
	net := consensus.Regtest()
	l := &lab{T: t, purse: newPurse(t, net), blocks: enginetest.NewBuilder(net), key: enginetest.NewKey(1), rand: rand.New(rand.NewPCG(1, 5))}
	l.blocks.Engine = pow.New(net)
	var err error
	l.chain, err = chain.Open(chain.Options{
		Dir: "home", FS: vfs.NewMem(), Params: net, Engine: l.blocks.Engine, Now: func() time.Time { return time.Unix(2_200_000_000, 0) },
	})
	if err != nil {
		t.Fatal(err)
	}
	if l.pool, err = mempool.New(mempool.Options{Chain: l.chain}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))

	ended := make(chan error, 2)
	go func() { ended <- l.chain.Run(ctx) }()
	go func() { ended <- l.pool.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		for range 2 {
			if err := <-ended; !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		}
		if err := l.chain.Close(); err != nil {
			t.Error(err)
		}
	})
	l.tip = l.blocks.Genesis()
	l.mine()
	first := l.tip.Txs[0].MsgTx()
	for range net.CoinbaseMaturity {
		l.mine()
	}
	source := wire.NewMsgTx(2)
	source.AddTxIn(wire.NewTxIn(&wire.OutPoint{Hash: first.TxHash()}, nil, nil))
	const each = 1_000_000
	for form := range forms {
		source.AddTxOut(wire.NewTxOut(each, l.output(t, form, 3).PkScript))
	}
	source.AddTxOut(wire.NewTxOut(first.TxOut[0].Value-each*int64(len(forms)), l.key.Script()))
	l.key.Sign(source, []consensus.Coin{{Value: first.TxOut[0].Value, Script: l.key.Script()}})
	l.mine(source)
	at := l.height
	for range 12 {
		l.mine()
	}
	for i := range forms {
		l.coins = append(l.coins, l.coin(source, i, at))
	}
	return l
}

// coin is output i of a transaction in a block of the height; 0 is in none.
func (l *lab) coin(tx *wire.MsgTx, i int, height int32) spend.Coin {
	c := spend.Coin{OutPoint: wire.OutPoint{Hash: tx.TxHash(), Index: uint32(i)}, Value: tx.TxOut[i].Value, Height: height, Own: true}
	c.Describe(l.describe(tx.TxOut[i].PkScript), l.means(l.height), tx)
	return c
}

func (l *lab) mine(txs ...*wire.MsgTx) {
	l.Helper()
	l.tip = l.blocks.MineTemplate(l.tip, enginetest.Template{Script: l.key.Script(), Txs: txs})
	l.height++
	ticket, err := l.chain.Submit(l.Context(), l.tip.Raw, chain.Source{Kind: chain.FromRPC})
	if err != nil {
		l.Fatal(err)
	}
	if v := ticket.Wait(l.Context()); v.Outcome != chain.Connected {
		l.Fatalf("block %d: %+v", l.height, v)
	}
}

// request pays value to an output of ours, from coins.
func (l *lab) request(rate spend.Rate, value int64, coins ...spend.Coin) spend.Request {
	l.Helper()
	to := l.output(l.T, 2, uint32(l.rand.IntN(1000)))
	return spend.Request{
		Coins: coins, Rate: rate, Height: l.height, Maturity: 100, Rand: l.rand,
		Payments: []spend.Payment{{Script: to.PkScript, Value: value}}, Change: []spend.Change{spend.ChangeTo(l.output(l.T, 13, uint32(l.rand.IntN(1000))))},
	}
}

// submit builds and signs what the mempool must take.
func (l *lab) submit(name string, r spend.Request) (*spend.Plan, *wire.MsgTx) {
	l.Helper()
	plan, err := spend.Build(r)
	if err != nil {
		l.Fatalf("%s: %v", name, err)
	}
	tx, err := l.sign(plan, l.describe)
	if err != nil {
		l.Fatalf("%s: %v", name, err)
	}
	if err := checkSigned(&r, plan, tx); err != nil {
		l.Errorf("%s: %v", name, err)
	}
	if _, err := l.pool.Submit(l.Context(), tx, ""); err != nil {
		l.Fatalf("%s: %v", name, err)
	}
	return plan, tx
}

// TestMempool: the mempool takes transactions that spend and make every form, at the
// least rate that it takes.
func TestMempool(t *testing.T) {
	l := newLab(t)
	for i, form := range forms {
		r := l.request(1000, 0, l.coins...)
		r.Spend = []wire.OutPoint{l.coins[i].OutPoint}
		r.Payments = []spend.Payment{{Script: l.output(t, i, 9).PkScript, Value: 5000}}
		r.Change = []spend.Change{spend.ChangeTo(l.output(t, (i+1)%len(forms), 10))}
		l.submit(form, r)
	}
}

// original is what a plan became.
func original(plan *spend.Plan, tx *wire.MsgTx) *spend.Original {
	return &spend.Original{Tx: tx, Coins: plan.Coins, Fee: plan.Fee, Weight: plan.Weight, Change: plan.Change}
}

// TestReplace: the mempool takes replacements for what they replace, at the least fee
// that it wants and above.
func TestReplace(t *testing.T) {
	l := newLab(t)
	coins := l.coins
	take := func() spend.Coin { c := coins[0]; coins = coins[1:]; return c }
	bump := func(name string, r spend.Request, o *spend.Original) (*spend.Plan, *wire.MsgTx) {
		t.Helper()
		r.Payments = nil
		r, err := spend.Replace(r, o)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		plan, tx := l.submit(name, r)
		if l.pool.Have(o.Tx.TxHash()) {
			t.Errorf("%s: the original is still there", name)
		}
		return plan, tx
	}

	r := l.request(1000, 500_000, take())
	plan, tx := l.submit("with change", r)
	for i, rate := range []spend.Rate{0, 0, 5000, 0, 90_000} {
		r.Rate = rate
		again, replaced := bump(fmt.Sprintf("with change, %d", i), r, original(plan, tx))
		if again.Fee < plan.Fee+again.Weight/4 || again.Rate() <= plan.Rate() || rate > 0 && again.Rate() < rate {
			t.Errorf("replacement %d pays %d (%s) after %d (%s)", i, again.Fee, again.Rate(), plan.Fee, plan.Rate())
		}
		if rate == 0 && again.Fee > plan.Fee+again.Weight/4+2 {
			t.Errorf("replacement %d pays %d after %d: more than needed", i, again.Fee, plan.Fee)
		}
		if string(again.Tx.TxOut[again.Change].PkScript) != string(plan.Tx.TxOut[plan.Change].PkScript) {
			t.Errorf("replacement %d has change elsewhere", i)
		}
		plan, tx = again, replaced
	}
	r.Rate = 80_000
	r.Payments = nil
	if _, err := spend.Replace(r, original(plan, tx)); !errors.Is(err, spend.ErrRateTooLow) {
		t.Errorf("a lower rate: %v", err)
	}

	// What is left is too little for a higher rate: a coin is added.
	first := take()
	r = l.request(1000, 999_500, first)
	plan, tx = l.submit("exact", r)
	if plan.Change >= 0 {
		t.Fatal("change was left")
	}
	r.Rate, r.Coins = 20_000, []spend.Coin{first}
	r.Payments = nil
	if again, err := spend.Replace(r, original(plan, tx)); err != nil {
		t.Error(err)
	} else if _, err := spend.Build(again); err == nil {
		t.Error("a higher fee out of nothing")
	}
	young := l.coin(tx, 0, 0) // which cannot pay for it
	young.Ancestors, young.AncestorWeight = 1, plan.Weight
	r.Coins = []spend.Coin{young, take()}
	if again, _ := bump("exact, with a coin", r, original(plan, tx)); len(again.Coins) != 2 || again.Change < 0 {
		t.Errorf("%+v", again)
	}

	// The payment that took all pays more.
	r = l.request(2000, 0, take(), take())
	r.Payments[0].Rest = true
	plan, tx = l.submit("rest", r)
	o := original(plan, tx)
	o.Rest = true
	r.Rate = 30_000
	r.Coins = append(r.Coins, take())
	if again, _ := bump("rest, again", r, o); len(again.Coins) != 2 || again.Tx.TxOut[0].Value >= plan.Tx.TxOut[0].Value {
		t.Errorf("%+v", again)
	}

	// A child goes with its parent, and its fee is paid as well.
	plan, tx = l.submit("parent", l.request(1000, 400_000, take()))
	child := l.coin(tx, plan.Change, 0)
	child.Ancestors, child.AncestorWeight = 1, plan.Weight
	r = l.request(50_000, 300_000, child)
	r.Spend = []wire.OutPoint{child.OutPoint}
	childPlan, childTx := l.submit("child", r)
	o = original(plan, tx)
	o.EvictedFees = childPlan.Fee
	r = l.request(0, 0, child)
	if again, _ := bump("parent, again", r, o); again.Fee < plan.Fee+childPlan.Fee {
		t.Errorf("pays %d after %d and %d", again.Fee, plan.Fee, childPlan.Fee)
	}
	if l.pool.Have(childTx.TxHash()) {
		t.Error("the child is still there")
	}
}

// TestLift: a child makes its parent worth mining.
func TestLift(t *testing.T) {
	l := newLab(t)
	plan, tx := l.submit("parent", l.request(1000, 400_000, l.coins[0]))
	coin := l.coin(tx, plan.Change, 0)
	coin.Ancestors, coin.AncestorWeight = 1, plan.Weight
	r := l.request(25_000, 0, coin)
	r.Payments, r.Spend = nil, []wire.OutPoint{coin.OutPoint}
	if _, err := spend.Lift(r, spend.Package{Fee: 1 << 30, Weight: plan.Weight}); !errors.Is(err, spend.ErrRateTooLow) {
		t.Errorf("what pays enough is lifted: %v", err)
	}
	r, err := spend.Lift(r, spend.Package{Fee: plan.Fee, Weight: plan.Weight})
	if err != nil {
		t.Fatal(err)
	}
	child, _ := l.submit("child", r)
	together, want := plan.Fee+child.Fee, r.Rate.Fee(plan.Weight+child.Weight)
	if together != want {
		t.Errorf("both pay %d, want %d", together, want)
	}
}
