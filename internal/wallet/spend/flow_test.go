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

// TestMempool: the mempool takes a transaction that spends every form.
func TestMempool(t *testing.T) {
	net := consensus.Regtest()
	purse := newPurse(t, net)
	b := enginetest.NewBuilder(net)
	b.Engine = pow.New(net)
	c, err := chain.Open(chain.Options{Dir: "home", FS: vfs.NewMem(), Params: net, Engine: b.Engine, Now: func() time.Time { return time.Unix(2_200_000_000, 0) }})
	if err != nil {
		t.Fatal(err)
	}
	pool, err := mempool.New(mempool.Options{Chain: c})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 2)
	go func() { ended <- c.Run(ctx) }()
	go func() { ended <- pool.Run(ctx) }()
	defer func() {
		cancel()
		for range 2 {
			if err := <-ended; !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}()

	key := enginetest.NewKey(1)
	tip, height := b.Genesis(), int32(0)
	mine := func(txs ...*wire.MsgTx) *consensus.Block {
		t.Helper()
		tip = b.MineTemplate(tip, enginetest.Template{Script: key.Script(), Txs: txs})
		height++
		ticket, err := c.Submit(ctx, tip.Raw, chain.Source{Kind: chain.FromRPC})
		if err != nil {
			t.Fatal(err)
		}
		if v := ticket.Wait(ctx); v.Outcome != chain.Connected {
			t.Fatalf("block %d: %+v", height, v)
		}
		return tip
	}
	first := mine().Txs[0].MsgTx()
	for range net.CoinbaseMaturity {
		mine()
	}
	source := wire.NewMsgTx(2)
	source.AddTxIn(wire.NewTxIn(&wire.OutPoint{Hash: first.TxHash()}, nil, nil))
	const each = 1_000_000
	for form := range forms {
		source.AddTxOut(wire.NewTxOut(each, purse.output(t, form, 3).PkScript))
	}
	source.AddTxOut(wire.NewTxOut(first.TxOut[0].Value-each*int64(len(forms)), key.Script()))
	key.Sign(source, []consensus.Coin{{Value: first.TxOut[0].Value, Script: key.Script()}})
	mine(source)
	at := height
	for range 12 {
		mine()
	}

	var coins []spend.Coin
	for i := range forms {
		coin := spend.Coin{OutPoint: wire.OutPoint{Hash: source.TxHash(), Index: uint32(i)}, Value: each, Height: at}
		coin.Describe(purse.describe(source.TxOut[i].PkScript), purse.means(height), source)
		coins = append(coins, coin)
	}
	submit := func(name string, r *spend.Request) *wire.MsgTx {
		t.Helper()
		plan, err := spend.Build(*r)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		tx, err := purse.sign(plan, purse.describe)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if err := checkSigned(r, plan, tx); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := pool.Submit(ctx, tx, ""); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		return tx
	}
	rng := rand.New(rand.NewPCG(1, 5))
	for i, form := range forms {
		to := purse.output(t, i, 9)
		submit(form, &spend.Request{
			Coins: coins, Spend: []wire.OutPoint{coins[i].OutPoint}, Rate: 1000, Height: height, Maturity: net.CoinbaseMaturity, Rand: rng,
			Payments: []spend.Payment{{Script: to.PkScript, Value: 5000}}, Change: []spend.Change{spend.ChangeTo(purse.output(t, (i+1)%len(forms), 10))},
		})
	}
}
