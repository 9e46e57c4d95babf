package chain_test

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/btcsuite/btcd/blockchain"
	"github.com/btcsuite/btcd/btcutil/v2"
	"github.com/btcsuite/btcd/chaincfg/v2"
	"github.com/btcsuite/btcd/chainhash/v2"
	btcdmining "github.com/btcsuite/btcd/mining"
	"github.com/btcsuite/btcd/txscript/v2"
	"github.com/btcsuite/btcd/wire/v2"

	"dunlin/chain"
	"dunlin/chain/consensus"
	"dunlin/chain/consensus/enginetest"
	"dunlin/chain/consensus/pow"
)

// TestBTCDJudges lets btcd's block chain judge ours, block by block: random chains
// with spends of every common form, forks and reorganisations, and blocks with one
// fault each get the same verdict from both, and both have the same tip.
func TestBTCDJudges(t *testing.T) {
	seeds := 2
	if slow {
		seeds = 40
	}
	for seed := range uint64(seeds) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Parallel()
			o := newOracle(t, consensus.Regtest(), chaincfg.RegressionNetParams, seed)
			o.settle()
			for range 150 {
				o.step()
			}
			if o.refused < 20 || o.reorgs < 3 || len(o.spent) != len(o.forms) {
				t.Errorf("%d blocks refused, %d reorganisations, spends of %d forms in %d: not much was tried",
					o.refused, o.reorgs, len(o.spent), len(o.forms))
			}
		})
	}
}

// TestBTCDJudgesSimnet does the same while miners vote: every fork is active for
// the same blocks, and until then its rules bind neither.
func TestBTCDJudgesSimnet(t *testing.T) {
	seeds, height := 2, int32(430)
	if slow {
		seeds, height = 20, 1100
	}
	for seed := range uint64(seeds) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Parallel()
			o := newOracle(t, consensus.Simnet(), chaincfg.SimNetParams, seed)
			o.vote = func(height int32) int32 {
				// Each window has its own mood; the threshold is 75 of 100.
				mood := rand.New(rand.NewPCG(seed, uint64(height/100)))
				version := int32(0x2000_0000)
				for bit := range 3 {
					if p := 68 + mood.IntN(14); o.r.IntN(100) < p {
						version |= 1 << bit
					}
				}
				return version
			}
			o.settle()
			for o.b.Height(o.tip.Hash) < height {
				o.step()
			}
		})
	}
}

// An oracle has both chains and what makes blocks for them.
type oracle struct {
	t      *testing.T
	seed   uint64
	r      *rand.Rand
	b      *enginetest.Builder
	ours   *home
	theirs *btcd
	vote   func(height int32) int32 // the version of a block

	forms   []enginetest.Form
	spent   map[string]bool // forms that a connected block spent
	tip     *consensus.Block
	made    map[chainhash.Hash]*consensus.Block
	sets    map[chainhash.Hash]enginetest.CoinSet // of the last few blocks asked for
	last    chain.Verdict                         // ours
	refused int
	reorgs  int
}

func newOracle(t *testing.T, p *consensus.Params, theirs chaincfg.Params, seed uint64) *oracle {
	t.Helper()
	o := &oracle{t: t, seed: seed, r: rand.New(rand.NewPCG(seed, 1)), b: enginetest.NewBuilder(p), spent: make(map[string]bool)}
	o.b.Engine = pow.New(p)
	o.ours = open(t, func(o *chain.Options) { o.Params, o.Now = p, time.Now })
	o.theirs = openBTCD(t, theirs, nil)
	t.Cleanup(func() { o.theirs.close(t) })
	o.forms = enginetest.Forms()
	o.tip = o.b.Genesis()
	o.sets = make(map[chainhash.Hash]enginetest.CoinSet)
	o.made = map[chainhash.Hash]*consensus.Block{o.tip.Hash: o.tip}
	return o
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func (o *oracle) fatalf(format string, args ...any) {
	o.t.Helper()
	o.t.Fatalf("seed %d, height %d: %s (our last verdict: %v, %v)", o.seed, o.b.Height(o.tip.Hash), fmt.Sprintf(format, args...), o.last.Outcome, o.last.Err)
}

// settle makes the coins that can be spent at all.
func (o *oracle) settle() {
	for i := range 105 {
		tmpl := enginetest.Template{Script: o.forms[o.r.IntN(len(o.forms))].Script}
		if i == 0 { // btcd has P2SH by time, from 2012 on
			tmpl.Time = time.Date(2014, 6, 1, 0, 0, 0, 0, time.UTC)
		}
		o.extend(o.tip, tmpl)
	}
}

// step does something at random.
func (o *oracle) step() {
	o.t.Helper()
	switch o.r.IntN(10) {
	case 0: // another branch, longer by one
		o.reorganise(o.r.IntN(5)+1, false)
	case 1: // one that fails on the way
		o.reorganise(o.r.IntN(4)+1, true)
	case 2, 3, 4, 5:
		o.breakOne(o.tip)
	default:
		o.extend(o.tip, o.random(o.tip))
	}
}

// extend makes a block that both must connect.
func (o *oracle) extend(parent *consensus.Block, tmpl enginetest.Template) {
	o.t.Helper()
	b := o.mine(parent, tmpl)
	if got := o.judge(b.Raw); got != chain.Connected {
		o.fatalf("block %v: %v by both, want it connected", b.Hash, got)
	}
	o.tip = b
}

func (o *oracle) mine(parent *consensus.Block, tmpl enginetest.Template) *consensus.Block {
	if o.vote != nil && tmpl.Version == 0 {
		tmpl.Version = o.vote(o.b.Height(parent.Hash) + 1)
	}
	b := o.b.MineTemplate(parent, tmpl)
	o.made[b.Hash] = b
	return b
}

// judge submits a block to both. The verdicts, the tips and the forks that apply
// to the next block must be the same.
func (o *oracle) judge(raw []byte) chain.Outcome {
	o.t.Helper()
	v := o.ours.submit(raw)
	o.last = v
	if v.Outcome == chain.Failed {
		o.fatalf("our own trouble: %v", v.Err)
	}
	theirs := chain.SideChain
	main, orphan, err := o.theirs.process(raw, blockchain.BFNone)
	var rule blockchain.RuleError
	switch {
	case errors.As(err, &rule) && rule.ErrorCode == blockchain.ErrDuplicateBlock:
		theirs = chain.Duplicate
	case err != nil:
		theirs = chain.Refused
	case orphan:
		theirs = chain.Orphan
	case main:
		theirs = chain.Connected
	}
	if v.Outcome != theirs {
		o.fatalf("block %v: our outcome %v (%v), btcd's %v (%v)", v.Hash, v.Outcome, v.Err, theirs, err)
	}
	tip, _ := o.ours.Tip()
	if best := o.theirs.BestSnapshot(); best.Hash != tip.Hash {
		o.fatalf("block %v: our tip %v, btcd's %v", v.Hash, tip.Hash, best.Hash)
	}
	if o.vote != nil {
		o.sameForks(tip.Hash)
	}
	return v.Outcome
}

func (o *oracle) sameForks(tip chainhash.Hash) {
	o.t.Helper()
	past, ok := o.ours.Past(tip)
	if !ok {
		o.fatalf("no past of the tip")
	}
	forks := o.b.Params.Forks(past)
	for id, ours := range map[uint32]bool{
		chaincfg.DeploymentCSV: forks.CSV, chaincfg.DeploymentSegwit: forks.Segwit, chaincfg.DeploymentTaproot: forks.Taproot,
	} {
		if theirs, err := o.theirs.IsDeploymentActive(id); err != nil || theirs != ours {
			o.fatalf("deployment %d: active %v, btcd says %v (%v)", id, ours, theirs, err)
		}
	}
	if theirs, err := o.theirs.CalcNextBlockVersion(); err != nil || theirs&0x2000_0007 != o.b.Params.BlockVersion(past) {
		o.fatalf("version %#x, btcd's is %#x (%v)", o.b.Params.BlockVersion(past), theirs, err)
	}
}

// A spendable is a coin that a block may spend.
type spendable struct {
	op   wire.OutPoint
	coin consensus.Coin
	form *enginetest.Form
}

// spendables returns the coins that are of a known form, in a fixed order.
func (o *oracle) spendables(coins enginetest.CoinSet) []spendable {
	const least = 1_000_000 // satoshi: fees must not eat it up
	var all []spendable
	for op, coin := range coins {
		for i := range o.forms {
			if coin.Value >= least && bytes.Equal(o.forms[i].Script, coin.Script) {
				all = append(all, spendable{op, coin, &o.forms[i]})
			}
		}
	}
	slices.SortFunc(all, func(a, b spendable) int {
		if c := bytes.Compare(a.op.Hash[:], b.op.Hash[:]); c != 0 {
			return c
		}
		return int(a.op.Index) - int(b.op.Index)
	})
	return all
}

// may says whether a block at height may spend a coin.
func (s *spendable) may(height int32) bool {
	return (!s.coin.Coinbase || height-s.coin.Height >= 100) &&
		int64(s.form.LockTime) < int64(height) && s.coin.Height+int32(s.form.Sequence) <= height
}

// pay spends coins to n random forms, less a fee.
func (o *oracle) pay(forks consensus.Forks, from []spendable, n int, fee int64) *wire.MsgTx {
	tx := wire.NewMsgTx(2)
	var sum int64
	m := make(map[wire.OutPoint]*wire.TxOut)
	for _, s := range from {
		in := wire.NewTxIn(&s.op, nil, nil)
		if s.form.LockTime > 0 {
			tx.LockTime = max(tx.LockTime, s.form.LockTime)
			in.Sequence--
		}
		if s.form.Sequence > 0 {
			in.Sequence = s.form.Sequence
		}
		tx.AddTxIn(in)
		sum += s.coin.Value
		m[s.op] = &wire.TxOut{Value: s.coin.Value, PkScript: s.coin.Script}
	}
	for range n {
		tx.AddTxOut(&wire.TxOut{Value: (sum - fee) / int64(n), PkScript: o.forms[o.r.IntN(len(o.forms))].Script})
	}
	hashes := txscript.NewTxSigHashes(tx, txscript.NewMultiPrevOutFetcher(m))
	for i, s := range from {
		if s.form.Witness && !forks.Segwit {
			continue // anyone's
		}
		s.form.Sign(&enginetest.Spending{Tx: tx, Index: i, Coin: s.coin, Hashes: hashes})
		o.spent[s.form.Name] = true
	}
	return tx
}

// coins returns the coins after a block, which must not be changed.
func (o *oracle) coins(b *consensus.Block) enginetest.CoinSet {
	if set, ok := o.sets[b.Hash]; ok {
		return set
	}
	parent, ok := o.sets[b.Header.PrevBlock]
	var set enginetest.CoinSet
	if ok {
		set = maps.Clone(parent)
		set.Connect(o.b.Height(b.Hash), b)
	} else {
		set = o.b.Coins(b.Hash)
	}
	if len(o.sets) > 50 {
		clear(o.sets)
	}
	o.sets[b.Hash] = set
	return set
}

// tooMuch is more than what divisions leave of a block's fees, in satoshi.
const tooMuch = 100

// random returns a valid block on parent: some transactions, the second often
// spending an output of the first.
func (o *oracle) random(parent *consensus.Block) enginetest.Template {
	past := o.b.Past(parent.Hash)
	height, forks := past.Height()+1, o.b.Params.Forks(past)
	coins := slices.DeleteFunc(o.spendables(o.coins(parent)), func(s spendable) bool { return !s.may(height) })
	o.r.Shuffle(len(coins), func(i, j int) { coins[i], coins[j] = coins[j], coins[i] })
	t := enginetest.Template{Script: o.forms[o.r.IntN(len(o.forms))].Script}
	for range o.r.IntN(4) {
		n := min(len(coins), 1+o.r.IntN(3))
		if n == 0 {
			break
		}
		const fee = 10_000
		tx := o.pay(forks, coins[:n], 1+o.r.IntN(3), fee)
		coins = coins[n:]
		t.Txs = append(t.Txs, tx)
		t.Fees += fee
		for i, out := range tx.TxOut {
			for k := range o.forms {
				s := spendable{wire.OutPoint{Hash: tx.TxHash(), Index: uint32(i)}, consensus.Coin{Value: out.Value, Script: out.PkScript, Height: height}, &o.forms[k]}
				if bytes.Equal(o.forms[k].Script, out.PkScript) && s.may(height) {
					coins = append([]spendable{s}, coins...)
				}
			}
		}
	}
	return t
}

// reorganise makes a branch that leaves the tip's depth blocks back and is longer
// by one. If it fails, a block on it breaks a rule that shows only when connected.
func (o *oracle) reorganise(depth int, fails bool) {
	o.t.Helper()
	at := o.tip
	for range depth {
		at = o.made[at.Header.PrevBlock]
	}
	bad := -1
	if fails {
		bad = o.r.IntN(depth + 1)
	}
	for i := range depth + 1 {
		tmpl := o.random(at)
		if i == bad {
			claim := o.b.Params.Subsidy(o.b.Height(at.Hash)+1) + tmpl.Fees + tooMuch
			tmpl.Value = &claim
		}
		at = o.mine(at, tmpl)
		got := o.judge(at.Raw)
		switch {
		case i < depth && got != chain.SideChain:
			o.fatalf("block %v beside the tip: %v", at.Hash, got)
		case i == depth && fails && got != chain.Refused:
			o.fatalf("block %v that leads to a bad branch: %v", at.Hash, got)
		case i == depth && !fails && got != chain.Connected:
			o.fatalf("block %v that leads to a longer branch: %v", at.Hash, got)
		}
	}
	if fails {
		o.refused++
		if got := o.judge(o.mine(at, enginetest.Template{}).Raw); got != chain.Refused {
			o.fatalf("child of a bad branch: %v", got)
		}
		return
	}
	o.reorgs++
	o.tip = at
}

// breakOne submits a block with one fault at random; what is valid all the same
// becomes the tip.
func (o *oracle) breakOne(parent *consensus.Block) {
	o.t.Helper()
	tmpl := o.random(parent)
	past := o.b.Past(parent.Hash)
	height, forks := past.Height()+1, o.b.Params.Forks(past)
	raw := func(b []byte) []byte { return b }
	pick := func(may func(spendable) bool) []spendable {
		all := slices.DeleteFunc(o.spendables(o.coins(parent)), func(s spendable) bool { return !may(s) })
		if len(all) == 0 {
			return nil
		}
		return []spendable{all[o.r.IntN(len(all))]}
	}
	signed := func() (ins []*wire.TxIn) {
		for _, tx := range tmpl.Txs {
			for _, in := range tx.TxIn {
				if len(in.SignatureScript)+len(in.Witness) > 0 {
					ins = append(ins, in)
				}
			}
		}
		return ins
	}
	switch o.r.IntN(16) {
	case 0: // too much money
		v := o.b.Params.Subsidy(height) + tmpl.Fees + tooMuch
		tmpl.Value = &v
	case 1: // a flipped bit in what unlocks a coin
		if ins := signed(); len(ins) > 0 {
			in := ins[o.r.IntN(len(ins))]
			part := in.SignatureScript
			if len(in.Witness) > 0 {
				k := o.r.IntN(len(in.Witness))
				in.Witness[k] = bytes.Clone(in.Witness[k]) // scripts are shared
				part = in.Witness[k]
			}
			if len(part) > 0 {
				part[o.r.IntN(len(part))] ^= 1 << o.r.IntN(8)
			}
		}
	case 2: // nothing unlocks it
		if ins := signed(); len(ins) > 0 {
			in := ins[o.r.IntN(len(ins))]
			in.SignatureScript, in.Witness = nil, nil
		}
	case 3: // an output changed after signing
		if len(tmpl.Txs) > 0 {
			tmpl.Txs[0].TxOut[0].Value--
		}
	case 4: // a coinbase too young
		if from := pick(func(s spendable) bool { return s.coin.Coinbase && height-s.coin.Height < 100 && s.form.LockTime == 0 }); from != nil {
			tmpl.Txs = append(tmpl.Txs, o.pay(forks, from, 1, 0))
		}
	case 5: // a lock that is not over
		if from := pick(func(s spendable) bool {
			return (!s.coin.Coinbase || height-s.coin.Height >= 100) && !s.may(height)
		}); from != nil {
			tmpl.Txs = append(tmpl.Txs, o.pay(forks, from, 1, 0))
		}
	case 6: // a lock that the transaction denies
		if from := pick(func(s spendable) bool { return s.form.LockTime+s.form.Sequence > 0 && s.may(height) }); from != nil {
			f := *from[0].form
			f.LockTime, f.Sequence = 0, 0
			from[0].form = &f
			tmpl.Txs = append(tmpl.Txs[:0], o.pay(forks, from, 1, 0))
			tmpl.Fees = 0
		}
	case 7: // a coin twice
		if from := pick(func(s spendable) bool { return s.may(height) }); from != nil {
			tmpl.Txs = append(tmpl.Txs[:0], o.pay(forks, from, 1, 0), o.pay(forks, from, 2, 0))
			tmpl.Fees = 0
		}
	case 8: // a coin that is not there
		if len(tmpl.Txs) > 0 {
			tmpl.Txs[len(tmpl.Txs)-1].TxIn[0].PreviousOutPoint.Index += 77
		}
	case 9: // more out than in
		if from := pick(func(s spendable) bool { return s.may(height) }); from != nil {
			tmpl.Txs = append(tmpl.Txs[:0], o.pay(forks, from, 1, -1))
			tmpl.Fees = 0
		}
	case 10: // another height in the coinbase
		tmpl.Change = func(u *enginetest.Unsealed) { u.Txs[0].TxIn[0].SignatureScript[1]++ }
	case 11: // the commitment to the witnesses missing or of other witnesses
		wrong := o.r.IntN(2) == 0
		tmpl.Change = func(u *enginetest.Unsealed) {
			u.NoCommitment = true
			if !slices.ContainsFunc(u.Txs, (*wire.MsgTx).HasWitness) {
				u.NoCommitment = false // nothing to commit to
			} else if wrong {
				nonce := [32]byte{1}
				u.Txs[0].AddTxOut(&wire.TxOut{PkScript: consensus.WitnessCommitment(u.Txs, nonce)})
				u.Txs[0].TxIn[0].Witness = wire.TxWitness{make([]byte, 32)}
			}
		}
	case 12: // the header: version, time, bits or the work
		field := o.r.IntN(4)
		tmpl.Change = func(u *enginetest.Unsealed) {
			switch field {
			case 0:
				u.Header.Version = int32(o.r.IntN(4))
			case 1:
				u.Header.Timestamp = time.Unix(consensus.MedianTimePast(past)-int64(o.r.IntN(2)), 0)
			case 2:
				u.Header.Bits--
			case 3:
				u.Header.Timestamp = time.Unix(time.Now().Unix()+3*3600, 0)
			}
		}
	case 13: // a bit of the body, after the proof
		bit := o.r.IntN(1 << 30)
		raw = func(b []byte) []byte {
			b = bytes.Clone(b)
			b[consensus.HeaderBytes+bit/8%(len(b)-consensus.HeaderBytes)] ^= 1 << (bit % 8)
			return b
		}
	case 14: // the tree of ids doubled (CVE-2012-2459), or bytes cut off or added
		kind := o.r.IntN(3)
		raw = func(b []byte) []byte {
			switch kind {
			case 0:
				return b[:len(b)-1-o.r.IntN(20)]
			case 1:
				return append(bytes.Clone(b), 0)
			}
			m := must(btcutil.NewBlockFromBytes(b)).MsgBlock()
			m.Transactions = append(m.Transactions, m.Transactions[len(m.Transactions)-1])
			return bytesOf(o.t, m)
		}
	case 15: // the multisig's dummy, which may be anything before BIP147
		for _, in := range signed() {
			if len(in.SignatureScript) > 0 && in.SignatureScript[0] == txscript.OP_0 {
				in.SignatureScript[0] = txscript.OP_1
			} else if len(in.Witness) > 3 && len(in.Witness[0]) == 0 {
				in.Witness[0] = []byte{1}
			}
		}
	}
	b := o.mine(parent, tmpl)
	switch o.judge(raw(b.Raw)) {
	case chain.Connected:
		tip, _ := o.ours.Tip()
		if tip.Hash != b.Hash {
			o.fatalf("a changed block %v was connected", tip.Hash)
		}
		o.tip = b
	case chain.Refused:
		o.refused++
	}
}

// txSource is btcd's mempool for its templates.
type txSource []*btcdmining.TxDesc

func (s txSource) LastUpdated() time.Time               { return time.Time{} }
func (s txSource) MiningDescs() []*btcdmining.TxDesc    { return s }
func (s txSource) HaveTransaction(*chainhash.Hash) bool { return false }

// TestWeJudgeBTCD connects blocks that btcd's template generator makes, with spends
// of every form, on simnet from genesis past the height where every fork that its
// miner signals for is active.
func TestWeJudgeBTCD(t *testing.T) {
	t.Parallel()
	const blocks, seed = 340, 5
	p := consensus.Simnet()
	theirs := openBTCD(t, chaincfg.SimNetParams, nil)
	defer theirs.close(t)
	h := open(t, func(o *chain.Options) { o.Params, o.Now = p, time.Now })
	o := &oracle{t: t, r: rand.New(rand.NewPCG(seed, 2)), forms: enginetest.Forms(), spent: make(map[string]bool)}
	coins := make(enginetest.CoinSet)
	mined := make(map[string]bool) // forms spent in a block
	for height := int32(1); height <= blocks; height++ {
		past, _ := h.Past(theirs.BestSnapshot().Hash)
		const fee = 20_000
		var pool txSource
		from := slices.DeleteFunc(o.spendables(coins), func(s spendable) bool { return !s.may(height) })
		o.r.Shuffle(len(from), func(i, j int) { from[i], from[j] = from[j], from[i] })
		for _, s := range from[:min(len(from), 8)] {
			tx := o.pay(p.Forks(past), []spendable{s}, 2, fee)
			pool = append(pool, &btcdmining.TxDesc{Tx: btcutil.NewTx(tx), Height: height, Fee: fee, FeePerKB: fee})
		}
		generator := btcdmining.NewBlkTmplGenerator(&btcdmining.Policy{BlockMaxWeight: 3_000_000, BlockMaxSize: 750_000},
			&chaincfg.SimNetParams, pool, theirs.BlockChain, blockchain.NewMedianTime(), txscript.NewSigCache(100), txscript.NewHashCache(100))
		tmpl, err := generator.NewBlockTemplate(nil)
		if err != nil {
			t.Fatal(err)
		}
		target := blockchain.CompactToBig(tmpl.Block.Header.Bits)
		for hash := tmpl.Block.BlockHash(); blockchain.HashToBig(&hash).Cmp(target) > 0; hash = tmpl.Block.BlockHash() {
			tmpl.Block.Header.Nonce++
		}
		raw := bytesOf(t, tmpl.Block)
		if main, _, err := theirs.process(raw, blockchain.BFNone); err != nil || !main {
			t.Fatalf("seed %d, height %d: btcd refuses its own block: %v", seed, height, err)
		}
		if v := h.submit(raw); v.Outcome != chain.Connected || v.Height != height {
			t.Fatalf("seed %d, height %d: verdict %+v", seed, height, v)
		}
		b, err := consensus.DecodeBlock(p, raw)
		if err != nil {
			t.Fatal(err)
		}
		for _, tx := range b.Txs[1:] {
			script := coins[tx.MsgTx().TxIn[0].PreviousOutPoint].Script
			for _, f := range o.forms {
				mined[f.Name] = mined[f.Name] || bytes.Equal(f.Script, script)
			}
		}
		coins.Connect(height, b)
	}
	past, _ := h.Past(theirs.BestSnapshot().Hash)
	if forks := p.Forks(past); forks != (consensus.Forks{CSV: true, Segwit: true, Taproot: true}) {
		t.Errorf("forks at %d: %+v", past.Height(), forks)
	}
	for _, f := range o.forms {
		if !mined[f.Name] {
			t.Errorf("seed %d: no block spent a coin of the form %q", seed, f.Name)
		}
	}
}
