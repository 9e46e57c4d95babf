package wallet

import (
	"cmp"
	"context"
	crand "crypto/rand"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"

	"github.com/btcsuite/btcd/btcutil/v2"
	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/txscript/v2"
	"github.com/btcsuite/btcd/wire/v2"

	"dunlin/internal/wallet/descriptor"
	"dunlin/internal/wallet/keys"
	"dunlin/internal/wallet/spend"
)

const (
	// DefaultTarget is in how many blocks a payment shall be mined if nothing is said.
	DefaultTarget = 6
	maxTarget     = 1008
)

// A Pay is an output to make.
type Pay struct {
	Script  []byte
	Amount  int64 // satoshi
	PaysFee bool  // the fee is taken from it
}

// A Send says what to pay.
type Send struct {
	Outputs     []Pay
	All         bool  // the one output without an amount takes all there is
	Rate        int64 // satoshi per 1000 virtual bytes; 0: by Target
	Target      int   // blocks; 0: [DefaultTarget]
	Coins       []wire.OutPoint
	AddCoins    bool // others than Coins too
	Unconfirmed bool // coins of unconfirmed payments of others too
	Final       bool
	WatchOnly   bool // coins whose keys are elsewhere, for a PSBT
	MaxFee      int64
	Label       string
	DryRun      bool
	Passphrase  []byte
}

// Sent is a payment that was made or planned.
type Sent struct {
	Tx       *wire.MsgTx
	Spent    []*wire.TxOut // what its inputs spend
	Fee      int64
	Rate     int64 // satoshi per 1000 virtual bytes
	Weight   int64 // that fees go by; an estimate until it is signed
	Signed   bool
	Sent     bool
	PSBT     string
	Change   int // index of the output for change; -1: none
	Replaces chainhash.Hash
	Warnings []string
}

// rate is the fee rate that a request asks for.
func (w *Wallet) rate(rate int64, target int) (spend.Rate, error) {
	if rate < 0 || target < 0 || target > maxTarget {
		return 0, refuse("fee rate %d, target %d: rates are positive, targets from 1 to %d blocks", rate, target, maxTarget)
	}
	least := w.o.Pool.MinRate()
	if rate == 0 {
		return spend.Rate(max(w.o.Pool.Rate(cmp.Or(target, DefaultTarget)), least)), nil
	}
	if rate < least {
		return 0, refuse("fee rate %s: the mempool takes %s or more", spend.Rate(rate), spend.Rate(least))
	}
	return spend.Rate(rate), nil
}

// A plan is a spend.Plan with what the wallet must do when it is used.
type plan struct {
	*spend.Plan
	change []byte // script that the change goes to; nil: none
}

// request makes a spend.Request of a Send.
func (w *Wallet) request(s *Send) (spend.Request, error) {
	r := spend.Request{
		Spend: s.Coins, AddCoins: s.AddCoins || len(s.Coins) == 0, Unconfirmed: s.Unconfirmed, Final: s.Final,
		MaxFee: s.MaxFee, Maturity: w.o.Params.CoinbaseMaturity, Rand: newRand(),
	}
	if len(s.Label) > maxLabel {
		return r, refuse("label of %d bytes: at most %d", len(s.Label), maxLabel)
	}
	var err error
	if r.Rate, err = w.rate(s.Rate, s.Target); err != nil {
		return r, err
	}
	rests := 0
	for i, o := range s.Outputs {
		p := spend.Payment{Script: o.Script, Value: o.Amount, PaysFee: o.PaysFee}
		if o.Amount < 0 || o.Amount > btcutil.MaxSatoshi {
			return r, refuse("output %d: %d satoshi", i, o.Amount)
		}
		if s.All && o.Amount == 0 {
			p.Rest, p.PaysFee = true, false
			rests++
		} else if o.Amount == 0 && !txscript.IsUnspendable(o.Script) {
			return r, refuse("output %d has no amount", i)
		}
		r.Payments = append(r.Payments, p)
	}
	if s.All && rests != 1 {
		return r, refuse("of all coins one output takes the rest: exactly one without an amount is wanted, not %d", rests)
	}
	return r, nil
}

// newRand is seeded by the system.
func newRand() *rand.Rand {
	var seed [32]byte
	_, _ = crand.Read(seed[:]) // never fails, says crypto/rand
	return rand.New(rand.NewChaCha8(seed))
}

// build plans a transaction. freed are outputs that count as unspent though a transaction of ours spends them,
// without those of the transactions in not. Callers hold sending.
func (w *Wallet) build(r spend.Request, watchOnly bool, freed []wire.OutPoint, not map[chainhash.Hash]bool) (*plan, error) {
	if err := w.use(); err != nil {
		return nil, err
	}
	defer w.mu.Unlock()
	r.Height = w.book.pos.Height
	means := &spend.Means{Height: r.Height, MedianTime: w.o.Chain.MedianTime()}
	patterns := make(map[string]*spend.Coin)
	add := func(c *coin) error {
		k, err := w.spendable(c, means, patterns)
		if err == nil {
			r.Coins = append(r.Coins, k)
		}
		return err
	}
	for _, op := range freed {
		c := w.book.coins[op]
		if c == nil {
			return nil, fmt.Errorf("coin %s: %w", opText(op), ErrUnknown)
		}
		if err := add(c); err != nil {
			return nil, err
		}
	}
	for _, c := range w.book.live {
		t := c.tx
		named := slices.Contains(r.Spend, c.op)
		if slices.Contains(freed, c.op) || not[t.id] || w.book.spender(c.op) != nil || c.to.of.info.WatchOnly != watchOnly && !named {
			continue
		}
		if t.info.Block == nil && (t.info.Dead != alive || !t.pooled) {
			continue
		}
		if err := add(c); err != nil {
			return nil, err
		}
	}
	if !slices.ContainsFunc(r.Payments, func(p spend.Payment) bool { return p.Rest }) {
		var err error
		if r.Change, err = w.changes(watchOnly); err != nil {
			return nil, err
		}
	}
	p, err := spend.Build(r)
	if err != nil {
		return nil, planFault(err)
	}
	out := &plan{Plan: p}
	if p.Change >= 0 {
		out.change = p.Tx.TxOut[p.Change].PkScript
	}
	for i := range p.Coins { // what only the chosen ones need
		c := w.book.coins[p.Coins[i].OutPoint]
		o, err := c.to.of.d.Derive(c.to.index)
		if err != nil {
			return nil, err
		}
		prev, _, err := w.raw(c.op.Hash)
		if err != nil {
			return nil, err
		}
		p.Coins[i].Info = &spend.Info{Output: o, PrevTx: prev}
	}
	return out, nil
}

// planFault gives faults of a request our name.
func planFault(err error) error {
	var short *spend.ShortError
	var fee *spend.FeeError
	var dust *spend.DustError
	if errors.As(err, &short) || errors.As(err, &fee) || errors.As(err, &dust) || errors.Is(err, spend.ErrTooLarge) {
		return err
	}
	return refuse("%v", err)
}

// spendable describes a coin. What is the same for all coins of a descriptor is taken from patterns. Callers hold mu.
func (w *Wallet) spendable(c *coin, means *spend.Means, patterns map[string]*spend.Coin) (spend.Coin, error) {
	var k spend.Coin
	if p := patterns[c.to.of.id]; p != nil {
		k = *p
	}
	k.OutPoint, k.Value, k.Script, k.Coinbase, k.Locked = c.op, c.amount, c.to.script, c.tx.info.Coinbase, w.book.locked[c.op]
	if t := c.tx; t.info.Block != nil {
		k.Height, k.Genesis = t.info.Block.Height, t.info.Block.Height == 0
	} else {
		k.Own = w.trusted(t, 0)
		k.Ancestors, k.Descendants, k.AncestorWeight = w.o.Pool.Family(t.id)
		k.TRUC = t.info.TRUC
	}
	if patterns[c.to.of.id] != nil {
		return k, nil
	}
	o, err := c.to.of.d.Derive(c.to.index)
	if err != nil {
		return k, fmt.Errorf("coin %s: %w", opText(c.op), err)
	}
	k.Describe(o, means, nil)
	if older, after := o.Locks(); len(older) == 0 && len(after) == 0 {
		p := spend.Coin{InputWeight: k.InputWeight, SigOpCost: k.SigOpCost, Witness: k.Witness, Unspendable: k.Unspendable}
		patterns[c.to.of.id] = &p
	}
	return k, nil
}

// changes are where change may go: the next address of each descriptor for change. Callers hold mu.
func (w *Wallet) changes(watchOnly bool) (out []spend.Change, err error) {
	for _, only := range []bool{watchOnly, !watchOnly} {
		for _, c := range w.book.order {
			if !c.info.Change || !c.info.Active || !c.info.Range || c.info.WatchOnly != only {
				continue
			}
			o, err := c.d.Derive(c.info.Next)
			if err != nil {
				return nil, err
			}
			out = append(out, spend.ChangeTo(o))
		}
		if len(out) > 0 {
			return out, nil
		}
	}
	return nil, refuse("there is no descriptor for change: import one with --change --active, or send all")
}

// describe is what is known of an output script of ours; nil: it is none.
func (w *Wallet) describe(script []byte) *descriptor.Output {
	if w.use() != nil {
		return nil
	}
	defer w.mu.Unlock()
	a := w.book.scripts[string(script)]
	if a == nil || a.of.d == nil {
		return nil
	}
	o, err := a.of.d.Derive(a.index)
	if err != nil {
		return nil
	}
	return o
}

// known is an output of ours, or of a transaction of ours.
func (w *Wallet) known(op wire.OutPoint) (*wire.TxOut, *wire.MsgTx) {
	if w.use() != nil {
		return nil, nil
	}
	defer w.mu.Unlock()
	if w.book.txs[op.Hash] == nil {
		return nil, nil
	}
	m, _, err := w.raw(op.Hash)
	if err != nil || uint64(op.Index) >= uint64(len(m.TxOut)) {
		return nil, nil
	}
	return m.TxOut[op.Index], m
}

// sentOf describes a plan.
func sentOf(p *plan) *Sent {
	s := &Sent{Tx: p.Tx, Fee: p.Fee, Rate: int64(p.Rate()), Weight: p.Weight, Change: p.Change}
	for i := range p.Coins {
		s.Spent = append(s.Spent, wire.NewTxOut(p.Coins[i].Value, p.Coins[i].Script))
	}
	if p.Left > 0 {
		s.Warnings = append(s.Warnings, fmt.Sprintf("%d coins of %d satoshi together do not fit into one transaction and stay behind", p.Left, p.LeftValue))
	}
	return s
}

// Plan plans a payment for others to sign. The address for its change is used up.
func (w *Wallet) Plan(s Send) (*Sent, error) {
	w.sending.Lock()
	defer w.sending.Unlock()
	r, err := w.request(&s)
	if err != nil {
		return nil, err
	}
	p, err := w.build(r, s.WatchOnly || w.onlyWatches(), nil, nil)
	if err != nil {
		return nil, err
	}
	packet, err := p.Packet()
	if err != nil {
		return nil, planFault(err)
	}
	out := sentOf(p)
	out.PSBT = packet.String()
	if s.DryRun || p.change == nil {
		return out, nil
	}
	if err := w.use(); err != nil {
		return nil, err
	}
	defer w.mu.Unlock()
	if a := w.book.scripts[string(p.change)]; a != nil {
		if err := w.book.take(a); err != nil {
			return nil, err
		}
	}
	return out, w.store(true)
}

// onlyWatches says that the wallet has no keys.
func (w *Wallet) onlyWatches() bool { return w.Info().WatchOnly }

// Send pays. With DryRun it only says what it would do, which needs no keys.
func (w *Wallet) Send(ctx context.Context, s Send) (*Sent, error) {
	w.sending.Lock()
	defer w.sending.Unlock()
	r, err := w.request(&s)
	if err != nil {
		return nil, err
	}
	p, err := w.build(r, false, nil, nil)
	if err != nil {
		return nil, err
	}
	if s.DryRun {
		return sentOf(p), nil
	}
	return w.pay(ctx, p, s.Passphrase, func(t *tx) { t.info.Label, t.info.Rest = s.Label, restOf(r.Payments) })
}

// restOf is one more than the index of the payment that takes the rest; 0: none does. Without change, outputs are in
// the order of payments.
func restOf(payments []spend.Payment) int {
	return slices.IndexFunc(payments, func(p spend.Payment) bool { return p.Rest }) + 1
}

// pay signs a plan and sends it. note changes what is stored of it. Callers hold sending.
func (w *Wallet) pay(ctx context.Context, p *plan, passphrase []byte, note func(*tx)) (*Sent, error) {
	packet, err := p.Packet()
	if err != nil {
		return nil, planFault(err)
	}
	err = w.withKeys(passphrase, func(k *keys.Spender) error {
		_, err := packet.Sign(k, w.signOptions())
		return err
	})
	if err != nil {
		return nil, err
	}
	if err := packet.Finalise(w.describe); err != nil {
		return nil, refuse("the payment cannot be signed here alone (a PSBT can be passed on): %v", err)
	}
	signed, err := packet.Extract()
	if err != nil {
		return nil, fmt.Errorf("a signed payment is not valid: %w", err)
	}
	out := sentOf(p)
	out.Tx, out.Signed = signed, true
	if err := w.commit(ctx, signed, p.change, note); err != nil {
		return nil, err
	}
	out.Sent = true
	return out, nil
}

func (w *Wallet) signOptions() spend.SignOptions {
	return spend.SignOptions{Known: func(op wire.OutPoint) *wire.TxOut { out, _ := w.known(op); return out }}
}

// commit stores a payment and then hands it to the mempool; if that refuses it, it is forgotten again. Callers hold sending.
func (w *Wallet) commit(ctx context.Context, m *wire.MsgTx, change []byte, note func(*tx)) error {
	id := m.TxHash()
	if err := w.use(); err != nil {
		return err
	}
	fresh := w.book.txs[id] == nil
	to := w.book.scripts[string(change)]
	err := func() error {
		defer w.mu.Unlock()
		if to != nil {
			if err := w.book.take(to); err != nil {
				return err
			}
		}
		if err := w.book.record(m, id, nil, true); err != nil {
			return err
		}
		if t := w.book.txs[id]; t != nil { // else nothing of it is ours
			note(t)
			w.book.touchTx(t)
		}
		if err := w.store(true); err != nil {
			return err
		}
		// Until the mempool has answered Run neither offers it, so that what is refused is not sent all the same, nor
		// takes what it replaces for waiting, so that at no time both count.
		w.handing = id
		return nil
	}()
	if err != nil {
		return err
	}
	err = w.o.Pool.Submit(ctx, m)
	if err != nil && w.o.Pool.Have(id) {
		err = nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.handing = chainhash.Hash{}
	t := w.book.txs[id]
	switch {
	case err == nil:
		if t != nil {
			t.pooled = t.info.Block == nil
		}
		w.signal()
		w.log.Info("payment sent", "txid", id)
		return nil
	case t != nil && fresh && t.info.Block == nil && w.broken == nil:
		// Whoever is told that it failed must not see it leave later.
		w.book.drop(t)
		if to != nil {
			w.book.giveBack(to)
		}
		return errors.Join(err, w.store(true))
	}
	return err
}

// A Bump says which payment shall pay more.
type Bump struct {
	TxID       chainhash.Hash
	Rate       int64 // 0: by Target, but enough to replace
	Target     int
	MaxFee     int64
	DryRun     bool
	Passphrase []byte
}

// Bump replaces an unconfirmed payment by one that pays the same and a higher fee (BIP125). What builds on the
// old one is lost with it.
func (w *Wallet) Bump(ctx context.Context, b Bump) (*Sent, error) {
	w.sending.Lock()
	defer w.sending.Unlock()
	rate, err := w.rate(b.Rate, b.Target)
	if err != nil {
		return nil, err
	}
	old, err := w.bumpable(b.TxID)
	if err != nil {
		return nil, err
	}
	// BIP125's rules 3 and 4, as this node's mempool has them.
	const step = 1000 // satoshi per 1000 virtual bytes
	least := old.rate + step
	if rate < least {
		if b.Rate > 0 {
			return nil, refuse("fee rate %s: it pays %s now, and a replacement %s or more", rate, old.rate, least)
		}
		rate = least
	}
	r := spend.Request{
		Spend: old.spends, AddCoins: true, Payments: old.payments, Rate: rate, MaxFee: b.MaxFee, Maturity: w.o.Params.CoinbaseMaturity, Rand: newRand(),
		Replaces: &spend.Replaced{Fees: old.fees, Increment: step}, // and so no coin is added that is unconfirmed
	}
	if restOf(old.payments) > 0 {
		r.AddCoins = false // all it spends, not all there is
	}
	p, err := w.build(r, false, old.spends, old.family)
	if err != nil {
		return nil, err
	}
	if b.DryRun {
		out := sentOf(p)
		out.Replaces = b.TxID
		return out, nil
	}
	var id chainhash.Hash
	out, err := w.pay(ctx, p, b.Passphrase, func(t *tx) {
		id = t.id
		t.info.Label, t.info.Replaces, t.info.Rest = old.label, b.TxID, restOf(old.payments)
		if o := w.book.txs[b.TxID]; o != nil { // stored at once, so that at no time both count
			w.book.kill(o, replaced, id, nil, chainhash.Hash{})
		}
	})
	if err != nil {
		return nil, errors.Join(err, w.unreplace(id))
	}
	out.Replaces = b.TxID
	return out, nil
}

// unreplace lets what a payment should have replaced wait again.
func (w *Wallet) unreplace(by chainhash.Hash) error {
	if by == (chainhash.Hash{}) || w.use() != nil {
		return nil
	}
	defer w.mu.Unlock()
	if w.book.txs[by] == nil { // else it may replace it yet
		w.book.reviveIf(func(o *tx) bool { return o.info.Dead == replaced && o.info.By == by })
		w.poke() // it may be in the mempool still, with what builds on it
	}
	return w.store(true)
}

// oldPayment is a payment that is to be replaced.
type oldPayment struct {
	spends   []wire.OutPoint
	payments []spend.Payment
	rate     spend.Rate
	fees     int64 // with all that builds on it
	label    string
	family   map[chainhash.Hash]bool // it, and what builds on it
}

func (w *Wallet) bumpable(id chainhash.Hash) (*oldPayment, error) {
	if err := w.use(); err != nil {
		return nil, err
	}
	defer w.mu.Unlock()
	t := w.book.txs[id]
	if t == nil {
		return nil, fmt.Errorf("transaction %s: %w", id, ErrUnknown)
	}
	switch p := w.payment(t); {
	case t.info.Block != nil:
		return nil, refuse("transaction %s is mined", id)
	case t.info.Dead != alive:
		return nil, refuse("transaction %s is %s: %s", id, p.Text, p.Explain)
	case len(t.info.Debits) == 0 || len(t.info.Debits) != len(t.info.Ins):
		return nil, refuse("transaction %s is not wholly ours: only its sender can replace it", id)
	}
	m, _, err := w.raw(id)
	if err != nil {
		return nil, err
	}
	old := &oldPayment{label: t.info.Label, family: make(map[chainhash.Hash]bool)}
	for _, in := range m.TxIn {
		old.spends = append(old.spends, in.PreviousOutPoint)
	}
	for n, out := range m.TxOut {
		if i := slices.IndexFunc(t.info.Credits, func(c credit) bool { return int(c.N) == n }); i >= 0 {
			if a := w.book.payee(t.info.Credits[i]); a != nil && a.of.info.Change {
				continue // made anew
			}
		}
		p := spend.Payment{Script: out.PkScript, Value: out.Value}
		if n == t.info.Rest-1 { // what took all there was pays the higher fee, as nothing else is left to
			p.Rest = true
		}
		old.payments = append(old.payments, p)
	}
	if len(old.payments) == 0 { // it paid nobody but ourselves: all goes there again, less the fee
		old.payments = []spend.Payment{{Script: m.TxOut[0].PkScript, Rest: true}}
	}
	old.rate = spend.Rate((t.info.Fee*1000 + int64(t.info.VSize) - 1) / int64(max(1, t.info.VSize)))
	var gather func(t *tx)
	gather = func(t *tx) {
		if old.family[t.id] {
			return
		}
		old.family[t.id] = true
		old.fees += max(0, t.info.Fee)
		for n := range t.info.Outs {
			for _, child := range w.book.spends[wire.OutPoint{Hash: t.id, Index: uint32(n)}] {
				gather(child)
			}
		}
	}
	gather(t)
	return old, nil
}
