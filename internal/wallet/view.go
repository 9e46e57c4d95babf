package wallet

import (
	"cmp"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/wire/v2"

	"dunlin/internal/address"
)

// Info says how the wallet is.
type Info struct {
	Exists        bool
	Broken        string // why it cannot be used; empty: it can
	Encrypted     bool
	Unlocked      bool
	Staking       bool      // blocks can be sealed; true whenever Unlocked is
	UnlockedUntil time.Time // zero: not by time
	WatchOnly     bool      // no descriptor has its keys here
	Birthday      int64     // Unix seconds; 0: unknown
	From          int32     // height from which the chain was looked through
	Height        int32     // that the wallet has followed
	Tip           int32     // of the chain
	Gap           int
	Scan          Scan
	Descriptors   int
	Addresses     int // handed out or paid
	Payments      int
	Warnings      []string
}

// States of a Scan.
const (
	ScanIdle      = "idle"       // at the tip
	ScanFollowing = "following"  // behind the tip
	ScanSearching = "rescanning" // looking through old blocks
	ScanStopped   = "stopped"    // Run does not run, or cannot go on
)

// A Scan says what is looked through.
type Scan struct {
	State      string
	From, Next int32
	To         int32
	Pass       int
	BlocksPerS float64
	ETA        time.Duration // -1: unknown
	Trouble    string        // why it cannot go on
}

// Info returns the present state; it works without a wallet too.
func (w *Wallet) Info() Info {
	_, tip, _ := w.o.Chain.Tip()
	now := w.o.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
	out := Info{Exists: w.journal != nil, Height: -1, From: -1, Tip: tip, Gap: DefaultGap, Scan: Scan{State: ScanStopped, ETA: -1}}
	if w.broken != nil {
		out.Exists, out.Broken = true, w.broken.Error()
		out.Warnings = append(out.Warnings, out.Broken)
		return out
	}
	if !out.Exists {
		return out
	}
	b := w.book
	if w.vault != nil {
		s := w.vault.State()
		out.Encrypted, out.Unlocked, out.Staking, out.UnlockedUntil = s.Encrypted, s.Spend, s.Stake, s.Until
	}
	out.Birthday, out.From, out.Height, out.Gap = b.meta.Birthday, b.meta.From, b.pos.Height, b.meta.Gap
	out.Descriptors, out.Payments = len(b.order), len(b.txs)
	out.WatchOnly = len(b.order) > 0
	for _, c := range b.order {
		out.WatchOnly = out.WatchOnly && c.info.WatchOnly
		for _, a := range c.scripts {
			if a.info.Used || a.info.Handed != 0 {
				out.Addresses++
			}
		}
	}
	out.Scan = w.scanView(tip, now)
	out.Warnings = w.warnings()
	return out
}

// scanView is Info's. Callers hold mu.
func (w *Wallet) scanView(tip int32, now time.Time) Scan {
	s := Scan{State: ScanIdle, From: w.book.pos.Height, Next: w.book.pos.Height + 1, To: tip, ETA: -1, Trouble: w.scan.trouble}
	r := w.book.rescan
	switch {
	case !w.scan.running || s.Trouble != "":
		s.State = ScanStopped
	case r != nil && w.book.pos.Height >= tip-1:
		s.State = ScanSearching
	case w.book.pos.Height < tip:
		s.State = ScanFollowing
	}
	if r == nil {
		return s
	}
	s.From, s.Next, s.Pass = r.From, r.Next, r.Pass
	if r.Until >= 0 {
		s.To = min(s.To, r.Until)
	}
	if took := now.Sub(w.scan.began); !w.scan.began.IsZero() && took > time.Second {
		s.BlocksPerS = float64(r.Next-w.scan.beganAt) / took.Seconds()
		if took >= rateOver && s.BlocksPerS > 0 {
			s.ETA = time.Duration(float64(s.To-r.Next+1) / s.BlocksPerS * float64(time.Second))
		}
	}
	return s
}

// warnings are what the owner should know. Callers hold mu.
func (w *Wallet) warnings() []string {
	var out []string
	m := &w.book.meta
	if m.Lost != "" {
		out = append(out, m.Lost)
	}
	for _, h := range m.Holes {
		out = append(out, fmt.Sprintf("blocks %d to %d were not on disk when the wallet looked for payments: what they paid is unknown", h[0], h[1]))
	}
	if len(w.book.order) == 0 {
		out = append(out, "the wallet has no addresses: unlock it, and they are made again from its words")
	}
	for _, c := range w.book.order {
		if n := c.unusedInARow(); c.info.Range && n > m.Gap {
			out = append(out, fmt.Sprintf("%d %s addresses in a row are unpaid: a wallet restored from the words needs --gap %d to find payments to all of them", n, c.info.Kind, n))
		}
	}
	return out
}

// Balance is the worth of the coins, in satoshi.
type Balance struct {
	Spendable int64 // can be sent now
	Confirmed int64 // in a block, and mature
	Trusted   int64 // unconfirmed change of payments made here
	Untrusted int64 // unconfirmed, from others
	Immature  int64 // mined, and too young to be spent
	Locked    int64 // set aside by hand, of confirmed and trusted
}

// Total is all of it.
func (b Balance) Total() int64 { return b.Confirmed + b.Trusted + b.Untrusted + b.Immature }

// Balance adds the coins up: those that can be spent from here, and those that are only watched.
func (w *Wallet) Balance() (own, watched Balance, err error) {
	if err := w.use(); err != nil {
		return own, watched, err
	}
	defer w.mu.Unlock()
	for _, c := range w.book.live {
		if w.book.spender(c.op) != nil {
			continue
		}
		b := &own
		if c.to.of.info.WatchOnly {
			b = &watched
		}
		w.addTo(b, c)
	}
	return own, watched, nil
}

// addTo adds an unspent coin. Callers hold mu.
func (w *Wallet) addTo(b *Balance, c *coin) {
	set := func() {
		if w.book.locked[c.op] {
			b.Locked += c.amount
		} else {
			b.Spendable += c.amount
		}
	}
	switch t := c.tx; {
	case t.info.Block != nil && w.immature(t) > 0:
		b.Immature += c.amount
	case t.info.Block != nil:
		b.Confirmed += c.amount
		set()
	case t.info.Dead != alive:
	case w.trusted(t, 0):
		b.Trusted += c.amount
		if t.pooled {
			set()
		}
	case t.pooled || t.info.Own:
		b.Untrusted += c.amount
	}
}

// depth is how many confirmations a transaction has. Callers hold mu.
func (w *Wallet) depth(t *tx) int32 {
	if t.info.Block == nil {
		return 0
	}
	return max(1, w.book.pos.Height-t.info.Block.Height+1)
}

// immature is how many blocks are to come before a coinbase can be spent; that of genesis is
// money at once, where it is any. Callers hold mu.
func (w *Wallet) immature(t *tx) int32 {
	if !t.info.Coinbase || t.info.Block == nil || t.info.Block.Height == 0 {
		return 0
	}
	return max(0, w.o.Params.CoinbaseMaturity-w.depth(t))
}

// maxTrust bounds how far back unconfirmed ancestors are looked at: the mempool allows 25.
const maxTrust = 30

// trusted says whether an unconfirmed transaction spends coins of ours only, all the way back to
// mined ones. Callers hold mu.
func (w *Wallet) trusted(t *tx, deep int) bool {
	return w.trustedBut(t, deep, make(map[*tx]bool))
}

// trustedBut is trusted but for those in seen, which are looked at elsewhere: each is once, or a few dozen with many
// inputs each would take years.
func (w *Wallet) trustedBut(t *tx, deep int, seen map[*tx]bool) bool {
	if deep > maxTrust || t.info.Dead != alive || t.info.Coinbase || len(t.info.Debits) == 0 || len(t.info.Debits) != len(t.info.Ins) {
		return false
	}
	seen[t] = true
	for _, in := range t.info.Ins {
		op, err := parseOp(in)
		if err != nil {
			return false
		}
		c := w.book.coins[op]
		if c == nil || c.tx.info.Block == nil && !seen[c.tx] && !w.trustedBut(c.tx, deep+1, seen) {
			return false
		}
	}
	return true
}

// A Coin is an unspent output of ours.
type Coin struct {
	OutPoint      wire.OutPoint
	Amount        int64 // satoshi
	Script        []byte
	Address       string // empty: the script has none
	Label         string
	Confirmations int32
	Height        int32 // -1: unconfirmed
	Coinbase      bool
	MatureIn      int32 // blocks
	Spendable     bool
	Locked        bool
	Trusted       bool
	WatchOnly     bool
	Change        bool
	Descriptor    string // id
	Index         uint32
}

// Coins lists the unspent outputs, the deepest first.
func (w *Wallet) Coins(minConf int32) ([]Coin, error) {
	if err := w.use(); err != nil {
		return nil, err
	}
	defer w.mu.Unlock()
	var out []Coin
	for _, c := range w.book.live {
		t := c.tx
		if w.book.spender(c.op) != nil || t.info.Block == nil && (t.info.Dead != alive || !t.pooled && !t.info.Own) || w.depth(t) < minConf {
			continue
		}
		k := Coin{
			OutPoint: c.op, Amount: c.amount, Script: c.to.script, Label: c.to.info.Label, Confirmations: w.depth(t), Height: -1,
			Coinbase: t.info.Coinbase, MatureIn: w.immature(t), Locked: w.book.locked[c.op], WatchOnly: c.to.of.info.WatchOnly,
			Change: c.to.of.info.Change, Descriptor: c.to.of.id, Index: c.to.index,
		}
		k.Address, _ = address.Of(c.to.script, w.addr)
		if t.info.Block != nil {
			k.Height, k.Trusted = t.info.Block.Height, true
		} else {
			k.Trusted = w.trusted(t, 0)
		}
		k.Spendable = k.MatureIn == 0 && !k.Locked && k.Trusted && (t.info.Block != nil || t.pooled)
		out = append(out, k)
	}
	slices.SortFunc(out, func(a, b Coin) int {
		return cmp.Or(cmp.Compare(b.Confirmations, a.Confirmations), cmp.Compare(b.Amount, a.Amount), cmp.Compare(opText(a.OutPoint), opText(b.OutPoint)))
	})
	return out, nil
}

// States of a Payment.
const (
	StateUnconfirmed = "unconfirmed" // in no block
	StateConfirming  = "confirming"  // n of Deep
	StateConfirmed   = "confirmed"   // Deep blocks deep or more
	StateConflicted  = "conflicted"  // another transaction spends the same coins, or its block was left
	StateAbandoned   = "abandoned"   // given up by hand
)

// A Payment is a transaction as its owner sees it.
type Payment struct {
	TxID          chainhash.Hash
	State         string
	Confirmations int32
	Text          string // "2 of 6"
	Explain       string // in a sentence
	Kind          string // received, sent, self or mined
	Amount        int64  // satoshi: what the wallet gained, the fee counted
	Fee           int64  // -1: unknown
	Weight        int
	VSize         int
	Label         string
	Addresses     []string // of the other side, or ours that were paid
	Time          time.Time
	Seen          time.Time
	Height        int32 // -1: in no block
	Index         int   // in its block
	BlockHash     chainhash.Hash
	BlockTime     time.Time
	Conflicting   chainhash.Hash // who spends the same coins
	Replaced      bool           // Conflicting is not mined yet
	Replaces      chainhash.Hash
	InMempool     bool
	MatureIn      int32
	WatchOnly     bool
	Own           bool // sent from here
	Trusted       bool
	CanBump       bool
	CanAbandon    bool
	Credits       []Credit
	Debits        []Debit
}

// A Credit is an output of a payment that is ours.
type Credit struct {
	N         uint32
	Amount    int64
	Address   string
	Label     string
	Change    bool
	WatchOnly bool
}

// A Debit is an input of a payment that spends a coin of ours.
type Debit struct {
	Input  int
	Amount int64
}

// Rate is the fee rate in satoshi per 1000 virtual bytes; 0: unknown.
func (p *Payment) Rate() int64 {
	if p.Fee < 0 || p.VSize == 0 {
		return 0
	}
	return p.Fee * 1000 / int64(p.VSize)
}

// Kinds of a Payment.
const (
	KindReceived = "received"
	KindSent     = "sent"
	KindSelf     = "self"
	KindMined    = "mined"
)

// payment describes a transaction. Callers hold mu.
func (w *Wallet) payment(t *tx) Payment {
	i := &t.info
	p := Payment{
		TxID: t.id, Confirmations: w.depth(t), Fee: i.Fee, Weight: i.Weight, VSize: i.VSize, Label: i.Label, Seen: time.Unix(i.Seen, 0).UTC(),
		Height: -1, Conflicting: i.By, Replaced: i.Dead == replaced, Replaces: i.Replaces, InMempool: t.pooled, MatureIn: w.immature(t), Own: i.Own,
	}
	p.Time = p.Seen
	if i.Block != nil {
		p.Height, p.Index, p.BlockHash, p.BlockTime = i.Block.Height, i.Block.Index, i.Block.Hash, time.Unix(i.Block.Time, 0).UTC()
		if p.BlockTime.Before(p.Time) { // found later than it was made
			p.Time = p.BlockTime
		}
	}
	w.fillSides(&p, t)
	switch {
	case i.Coinbase:
		p.Kind = KindMined
	case len(i.Debits) == 0:
		p.Kind = KindReceived
	case len(i.Debits) == len(i.Ins) && len(i.Credits) == i.Outs:
		p.Kind = KindSelf
	default:
		p.Kind = KindSent
	}
	if p.Kind == KindSent {
		p.Addresses = slices.Clone(i.Foreign)
	}
	p.State, p.Text = w.state(t)
	p.Trusted = i.Block != nil || w.trusted(t, 0)
	p.CanAbandon = i.Block == nil && i.Dead == alive && !t.pooled
	p.CanBump = i.Block == nil && i.Dead == alive && len(i.Debits) > 0 && len(i.Debits) == len(i.Ins) && i.Signals && !p.WatchOnly
	p.Explain = w.explain(t, &p)
	return p
}

// fillSides fills in what is ours. Callers hold mu.
func (w *Wallet) fillSides(p *Payment, t *tx) {
	watched := 0
	for _, d := range t.info.Debits {
		p.Amount -= d.Amount
		p.Debits = append(p.Debits, Debit{d.In, d.Amount})
	}
	for _, c := range t.info.Credits {
		p.Amount += c.Amount
		k := Credit{N: c.N, Amount: c.Amount}
		if a := w.book.payee(c); a != nil {
			k.Address, _ = address.Of(a.script, w.addr)
			k.Label, k.Change, k.WatchOnly = a.info.Label, a.of.info.Change, a.of.info.WatchOnly
			if k.WatchOnly {
				watched++
			}
			if !k.Change && k.Address != "" && len(p.Addresses) < maxForeign {
				p.Addresses = append(p.Addresses, k.Address)
			}
			if p.Label == "" && !k.Change {
				p.Label = k.Label
			}
		}
		p.Credits = append(p.Credits, k)
	}
	p.WatchOnly = watched > 0 && watched == len(p.Credits)
}

// state is the one word, and a short text. Callers hold mu.
func (w *Wallet) state(t *tx) (state, text string) {
	depth := w.depth(t)
	switch {
	case t.info.Block != nil && depth >= Deep:
		return StateConfirmed, "confirmed"
	case t.info.Block != nil:
		return StateConfirming, fmt.Sprintf("%d of %d", depth, Deep)
	case t.info.Dead == abandoned:
		return StateAbandoned, "abandoned"
	case t.info.Dead != alive:
		return StateConflicted, "conflicted"
	}
	return StateUnconfirmed, "unconfirmed"
}

// explain says in a sentence why a payment is in its state. Callers hold mu.
func (w *Wallet) explain(t *tx, p *Payment) string {
	i := &t.info
	by := i.By.String()
	via := ""
	if i.Via != (chainhash.Hash{}) {
		via = fmt.Sprintf(", by way of %s, which it spends from", i.Via)
	}
	was := ""
	if i.Was != nil {
		was = fmt.Sprintf(" It was in block %s at height %d until a reorganisation.", i.Was.Hash, i.Was.Height)
	}
	switch {
	case p.State == StateConfirmed && p.MatureIn > 0:
		return fmt.Sprintf("Mined at height %d; it can be spent after %d more blocks.", p.Height, p.MatureIn)
	case p.State == StateConfirmed:
		return fmt.Sprintf("In block %d, %d blocks deep.", p.Height, p.Confirmations)
	case p.State == StateConfirming:
		return fmt.Sprintf("In block %d; %d more blocks make it confirmed.", p.Height, Deep-p.Confirmations)
	case p.State == StateAbandoned:
		return "Given up by hand: its coins are free again. It could still be mined if somebody kept it." + was
	case i.Dead == orphaned && i.Coinbase:
		return "A block that was mined here is not in the chain any more, so its reward does not exist." + was
	case i.Dead == orphaned:
		return "It spends the reward of a block that is not in the chain any more" + via + "." + was
	case i.Dead == conflicted && i.ByBlock != nil:
		return fmt.Sprintf("Transaction %s in block %d spends the same coins%s.%s", by, i.ByBlock.Height, via, was)
	case i.Dead == conflicted:
		return fmt.Sprintf("Transaction %s spends the same coins%s.%s", by, via, was)
	case i.Dead == replaced:
		return fmt.Sprintf("Transaction %s, which is not mined yet, took its place%s.%s", by, via, was)
	case t.pooled:
		return "Waits in the mempool to be mined." + was
	case i.Own && t.trouble != "":
		return "Not in the mempool: " + t.trouble + ". It is offered again every minute." + was
	case i.Own:
		return "Not in the mempool; it is offered again every minute." + was
	case t.trouble != "":
		return "Not in the mempool: " + t.trouble + "." + was
	}
	return "Not in the mempool: its sender has to send it again." + was
}

// maxHistory bounds one page.
const maxHistory = 1000

// History lists payments, newest first: those without a block by when they came, then the mined ones
// by height. after is the cursor of the page before, "" for the first; next is "" at the end. A
// page is right even if payments come or move between two calls.
func (w *Wallet) History(after string, most int) (out []Payment, next string, total int, err error) {
	if err := w.use(); err != nil {
		return nil, "", 0, err
	}
	defer w.mu.Unlock()
	b := w.book
	most = min(max(1, most), maxHistory)
	fresh := make([]*tx, 0, len(b.open))
	for _, t := range b.open {
		fresh = append(fresh, t)
	}
	slices.SortFunc(fresh, byAge)
	from := len(b.mined)
	skip := func(*tx) bool { return false }
	if after != "" {
		at, open, err := parseCursor(after)
		if err != nil {
			return nil, "", 0, err
		}
		if open {
			skip = func(t *tx) bool { return byAge(t, at) <= 0 }
		} else {
			fresh = nil
			from, _ = slices.BinarySearchFunc(b.mined, at, byPlace)
		}
	}
	for _, t := range fresh {
		if skip(t) {
			continue
		}
		if len(out) == most {
			return out, next, len(b.txs), nil
		}
		out = append(out, w.payment(t))
		next = fmt.Sprintf("u%d-%s", t.info.Seen, t.id)
	}
	for i := from - 1; i >= 0; i-- {
		t := b.mined[i]
		if len(out) == most {
			return out, next, len(b.txs), nil
		}
		out = append(out, w.payment(t))
		next = fmt.Sprintf("m%d-%d-%s", t.info.Block.Height, t.info.Block.Index, t.id)
	}
	return out, "", len(b.txs), nil
}

// byAge sorts the newest first.
func byAge(a, b *tx) int {
	return cmp.Or(cmp.Compare(b.info.Seen, a.info.Seen), slices.Compare(b.id[:], a.id[:]))
}

func parseCursor(s string) (t *tx, open bool, err error) {
	bad := refuse("after %q: not a cursor of this history", clip(s))
	if s == "" {
		return nil, false, bad
	}
	parts := strings.Split(s[1:], "-")
	id, err := chainhash.NewHashFromStr(parts[len(parts)-1])
	if err != nil {
		return nil, false, bad
	}
	t = &tx{id: *id}
	switch {
	case s[0] == 'u' && len(parts) == 2:
		t.info.Seen, err = strconv.ParseInt(parts[0], 10, 64)
		open = true
	case s[0] == 'm' && len(parts) == 3:
		height, e := strconv.ParseInt(parts[0], 10, 32)
		index, e2 := strconv.Atoi(parts[1])
		if e != nil || e2 != nil {
			return nil, false, bad
		}
		t.info.Block = &Place{Height: int32(height), Index: index}
	default:
		return nil, false, bad
	}
	if err != nil {
		return nil, false, bad
	}
	return t, open, nil
}

// Payment returns one payment with its transaction.
func (w *Wallet) Payment(id chainhash.Hash) (Payment, *wire.MsgTx, []byte, error) {
	if err := w.use(); err != nil {
		return Payment{}, nil, nil, err
	}
	defer w.mu.Unlock()
	t := w.book.txs[id]
	if t == nil {
		return Payment{}, nil, nil, fmt.Errorf("transaction %s: %w", id, ErrUnknown)
	}
	m, raw, err := w.raw(id)
	if err != nil {
		return Payment{}, nil, nil, err
	}
	return w.payment(t), m, raw, nil
}

// Mine tells whether a script is ours, and which.
func (w *Wallet) Mine(script []byte) (Address, bool) {
	if err := w.use(); err != nil {
		return Address{}, false
	}
	defer w.mu.Unlock()
	a := w.book.scripts[string(script)]
	if a == nil {
		return Address{}, false
	}
	return w.address(a), true
}

// CoinAmount is what an output of ours is worth, spent or not.
func (w *Wallet) CoinAmount(op wire.OutPoint) (amount int64, script []byte, ok bool) {
	if err := w.use(); err != nil {
		return 0, nil, false
	}
	defer w.mu.Unlock()
	c := w.book.coins[op]
	if c == nil {
		return 0, nil, false
	}
	return c.amount, c.to.script, true
}

// An Address is one of ours.
type Address struct {
	Address    string // empty: the script has none
	Script     []byte
	Kind       string
	Label      string
	Path       string // origin and steps of its first key
	Descriptor string // id
	Text       string // of the descriptor
	Index      uint32
	Change     bool
	Used       bool
	Received   int64 // satoshi, ever, in blocks
	WatchOnly  bool
	Handed     time.Time // zero: never
	Warning    string
}

// address describes one. Received is not filled in. Callers hold mu.
func (w *Wallet) address(a *addr) Address {
	c := a.of
	out := Address{
		Script: a.script, Kind: c.info.Kind, Label: a.info.Label, Descriptor: c.id, Text: c.info.Text, Index: a.index,
		Change: c.info.Change, Used: a.info.Used, WatchOnly: c.info.WatchOnly,
	}
	out.Address, _ = address.Of(a.script, w.addr)
	if a.info.Handed != 0 {
		out.Handed = time.Unix(a.info.Handed, 0).UTC()
	}
	if c.d != nil {
		if o, err := c.d.Derive(a.index); err == nil && len(o.Keys) > 0 {
			out.Path = o.Keys[0].String()
		}
	}
	return out
}

// Addresses lists the addresses that were handed out or paid, newest first.
func (w *Wallet) Addresses(change bool, offset, most int) (out []Address, total int, err error) {
	if err := w.use(); err != nil {
		return nil, 0, err
	}
	defer w.mu.Unlock()
	var all []*addr
	for _, c := range w.book.order {
		if c.info.Change != change {
			continue
		}
		for _, a := range c.scripts {
			if a.info.Used || a.info.Handed != 0 || a.info.Label != "" {
				all = append(all, a)
			}
		}
	}
	slices.SortStableFunc(all, func(x, y *addr) int {
		return cmp.Or(cmp.Compare(y.info.Handed, x.info.Handed), cmp.Compare(x.of.info.Order, y.of.info.Order), cmp.Compare(y.index, x.index))
	})
	total = len(all)
	all = all[min(max(0, offset), total):]
	all = all[:min(len(all), max(0, most))]
	received := make(map[*addr]int64)
	for _, c := range w.book.coins {
		if c.tx.info.Block != nil {
			received[c.to] += c.amount
		}
	}
	for _, a := range all {
		d := w.address(a)
		d.Received = received[a]
		out = append(out, d)
	}
	return out, total, nil
}

// A Descriptor is where addresses come from.
type Descriptor struct {
	ID        string
	Text      string // public, with checksum
	Kind      string
	Range     bool
	Change    bool
	Active    bool
	WatchOnly bool
	Next      uint32
	Label     string
	Watched   int // scripts
}

// Descriptors lists them in the order of their coming.
func (w *Wallet) Descriptors() ([]Descriptor, error) {
	if err := w.use(); err != nil {
		return nil, err
	}
	defer w.mu.Unlock()
	var out []Descriptor
	for _, c := range w.book.order {
		out = append(out, c.view())
	}
	return out, nil
}

func (c *chainOf) view() Descriptor {
	return Descriptor{
		ID: c.id, Text: c.info.Text, Kind: c.info.Kind, Range: c.info.Range, Change: c.info.Change, Active: c.info.Active,
		WatchOnly: c.info.WatchOnly, Next: c.info.Next, Label: c.info.Label, Watched: len(c.scripts),
	}
}

// ParseCoin reads "txid:vout".
func ParseCoin(s string) (wire.OutPoint, error) {
	op, err := parseOp(s)
	if err != nil {
		return op, refuse("%v", err)
	}
	return op, nil
}

// CoinText writes "txid:vout".
func CoinText(op wire.OutPoint) string { return opText(op) }

// ParseTxID reads a transaction's id.
func ParseTxID(s string) (chainhash.Hash, error) {
	id, err := chainhash.NewHashFromStr(s)
	if err != nil || len(s) != hex.EncodedLen(chainhash.HashSize) {
		return chainhash.Hash{}, refuse("transaction id %q: must be 64 hex digits", clip(s))
	}
	return *id, nil
}
