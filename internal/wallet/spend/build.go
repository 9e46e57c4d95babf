package spend

import (
	"cmp"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sort"
	"strings"

	"github.com/btcsuite/btcd/btcutil/v2"
	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/txscript/v2"
	"github.com/btcsuite/btcd/wire/v2"
)

// Sequence numbers of inputs without a relative lock (BIP68, BIP125).
const (
	sequenceReplaceable = wire.MaxTxInSequenceNum - 2
	sequenceLocked      = wire.MaxTxInSequenceNum - 1 // final, but lock times count
)

// The mempool's limits on families (chain/mempool): a transaction has at most so
// many unconfirmed ancestors, of so much weight with it, and is one of at most so
// many descendants of any.
const (
	maxAncestors      = 24
	maxDescendants    = 24
	maxFamilyWeight   = 404_000
	maxCoinsOfScript  = 100 // that are spent together (Core's OUTPUT_GROUP_MAX_ENTRIES)
	dearFactor        = 3   // times the long-term rate is dear (Bitcoin Core)
	foreignDepth      = 6   // confirmations of others' payments that are enough at once
	snipingOneIn      = 10  // lock times further back, for privacy
	snipingMostBlocks = 100
)

// A Coin is an output that may be spent, and what spending it takes. [CoinOf] makes
// one of an output of a descriptor.
type Coin struct {
	OutPoint wire.OutPoint
	Value    int64
	Script   []byte

	// Genesis says that it is an output of the first block, which is money where stake makes
	// blocks: it is confirmed, at height 0, and mature at once.
	Genesis bool
	// Height is that of its block; 0 while it is unconfirmed.
	Height   int32
	Coinbase bool
	// Own says that the transaction that made it is wholly ours, as change is: it
	// will be mined if we want it to be.
	Own bool
	// Locked coins are spent only if they are named in Request.Spend.
	Locked bool
	// Ancestors are the unconfirmed transactions that must be mined before it can
	// be spent, with the one that made it, and AncestorWeight is what they weigh;
	// Descendants are those that build on the one of them that most build on,
	// without itself. All are 0 once it is confirmed.
	Ancestors, Descendants int
	AncestorWeight         int64
	// TRUC says that it is unconfirmed and its transaction of version 3 (BIP431).
	TRUC bool

	// InputWeight is the most that the whole signed input weighs, SigOpCost what it
	// adds to the cost of signature operations (BIP141). Witness says that it has a
	// witness.
	InputWeight int64
	SigOpCost   int
	Witness     bool
	// Older (BIP68) and After (BIP65) are the locks that its script wants of the
	// transaction; 0: none.
	Older, After uint32
	// OpenAt is the height of the first block that may spend it, if its locks are
	// later than the next block; 0 if they are not, or not by height.
	OpenAt int32
	// Closed says that its locks do not hold in the next block.
	Closed bool
	// Unspendable says why the keys at hand cannot spend it; nil if they can.
	Unspendable error

	// Info is what a PSBT says of it besides; nil: nothing.
	Info *Info
}

// Confirmations is how deep the coin is under the tip; 0: unconfirmed.
func (c *Coin) Confirmations(tip int32) int32 {
	if c.Genesis {
		return tip + 1
	}
	if c.Height <= 0 || c.Height > tip {
		return 0
	}
	return tip - c.Height + 1
}

// A Payment is an output to make.
type Payment struct {
	Script []byte
	Value  int64
	// PaysFee takes the fee from this output, in equal parts from all that say so.
	PaysFee bool
	// Rest gives it all that coins bring beyond the other outputs and the fee;
	// Value is not looked at. All usable coins are spent, or those in
	// Request.Spend. At most one payment may say so.
	Rest bool
	// Info is what a PSBT says of it besides (of an output of our own); nil: nothing.
	Info *Info
}

// Change is where change may go.
type Change struct {
	Script []byte
	// InputWeight is what an input weighs that spends it.
	InputWeight int64
	Info        *Info
}

// A Request says what a transaction shall do. Zero values mean the default.
type Request struct {
	Coins    []Coin
	Payments []Payment
	// Rate is asked; LongTermRate is what spending a coin is expected to cost some
	// day (DefaultLongTermRate).
	Rate, LongTermRate Rate
	// MaxFee and MaxRate are caps against mistakes (DefaultMaxFee, DefaultMaxRate).
	MaxFee  int64
	MaxRate Rate
	// Change are scripts, one of each kind that the wallet makes, the preferred
	// kind first. The one that looks like the payments is taken; at least one is
	// wanted unless a payment takes the rest.
	Change []Change

	// Spend names coins that must be spent, whatever is locked or little worth.
	// Others are added only if AddCoins is set.
	Spend    []wire.OutPoint
	AddCoins bool
	// Unconfirmed allows coins that others sent and that are in no block yet.
	Unconfirmed bool
	// ByScript spends all coins of a script together, at most 100: an address that
	// was used is then used up.
	ByScript bool

	// Height is the tip's. The lock time is about there, so that nobody gains by
	// mining the transaction again in an older block; NoLockTime leaves it 0, if
	// no coin wants one.
	Height     int32
	NoLockTime bool
	// Maturity is how many blocks a coinbase must be deep to be spent in the next
	// (consensus.Params.CoinbaseMaturity).
	Maturity int32
	// Final transactions do not signal that they may be replaced (BIP125).
	Final bool
	// Replaces makes it pay for taking the place of others, see [Replace]; Lifts for
	// getting those mined that it builds on, see [Lift]. nil: it does not.
	Replaces *Replaced
	Lifts    *Package
	// Rand is needed: it hides which coins, order and output are ours.
	Rand *rand.Rand
}

// A Plan is an unsigned transaction and what it will be.
type Plan struct {
	Tx    *wire.MsgTx // unsigned
	Coins []Coin      // that its inputs spend, in their order
	Fee   int64
	// Weight is the most that fee rates go by once it is signed.
	Weight int64
	// Change is the index of the output for change, and ChangeOf that of its script
	// in Request.Change; -1 if there is none.
	Change, ChangeOf int
	// Outputs are what a PSBT says of the outputs, in their order; nil: nothing.
	Outputs []*Info
	// Method says how the coins were found: exact, knapsack, random, lightest,
	// largest, densest, all or named; Waste is Bitcoin Core's measure, the less the better,
	// 0 where there was no choice.
	Method string
	Waste  int64
	// Left counts coins that a payment of the rest could not take, as the
	// transaction would be too large, and LeftValue is their value.
	Left      int
	LeftValue int64
}

// Rate is the fee rate that the plan pays.
func (p *Plan) Rate() Rate { return rateOf(p.Fee, p.Weight) }

// A ShortError says that the usable coins are worth too little, and what else there
// is.
type ShortError struct {
	Usable int64 // worth of what may be spent, without the fee for spending it
	Needed int64 // payments and fee, without that of inputs

	// What may not, by reason.
	Immature, Unconfirmed, Locked, Closed, NoKeys, Dust int64
	// OpenAt is the first height at which a lock of a closed coin opens; 0: unknown.
	OpenAt int32
}

// Error implements error.
func (e *ShortError) Error() string {
	var s strings.Builder
	fmt.Fprintf(&s, "%d satoshi can be spent after fees, %d are needed", e.Usable, e.Needed)
	for _, more := range []struct {
		value int64
		why   string
	}{
		{e.Immature, "mined and not mature"},
		{e.Unconfirmed, "unconfirmed"},
		{e.Locked, "locked"},
		{e.Closed, "under a time lock"},
		{e.NoKeys, "without keys"},
		{e.Dust, "worth less than spending it costs"},
	} {
		if more.value > 0 {
			fmt.Fprintf(&s, "; %d more %s", more.value, more.why)
		}
	}
	if e.OpenAt > 0 {
		fmt.Fprintf(&s, " (spendable at height %d)", e.OpenAt)
	}
	return s.String()
}

// A FeeError says that a fee is above a cap of the request.
type FeeError struct {
	Fee     int64 // 0 if the rate that was asked is too high already
	MaxFee  int64
	Rate    Rate
	MaxRate Rate
}

// Error implements error.
func (e *FeeError) Error() string {
	if e.Fee > e.MaxFee {
		return fmt.Sprintf("fee of %d satoshi is above the cap of %d", e.Fee, e.MaxFee)
	}
	return fmt.Sprintf("fee rate of %s is above the cap of %s", e.Rate, e.MaxRate)
}

// ErrTooLarge says that the transaction would be larger than what is relayed.
var ErrTooLarge = errors.New("the transaction would be too large: at most 100,000 virtual bytes are relayed")

// withDefaults fills in what is zero.
func (r Request) withDefaults() Request {
	r.LongTermRate = cmp.Or(r.LongTermRate, DefaultLongTermRate)
	r.MaxFee = cmp.Or(r.MaxFee, DefaultMaxFee)
	r.MaxRate = cmp.Or(r.MaxRate, DefaultMaxRate)
	return r
}

// validate reports every fault of a request at once.
func (r *Request) validate() error {
	var errs []error
	fault := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if r.Rand == nil {
		fault("no source of randomness")
	}
	if r.Rate < 0 || r.LongTermRate < 0 || r.MaxRate < 0 || r.MaxFee < 0 || r.Rate > rateLimit || r.LongTermRate > rateLimit {
		fault("fee rates and caps out of range")
	} else if r.Rate > r.MaxRate {
		errs = append(errs, &FeeError{Rate: r.Rate, MaxRate: r.MaxRate, MaxFee: r.MaxFee})
	}
	if len(r.Payments) == 0 {
		fault("nothing to pay")
	}
	rests, data := 0, 0
	var total int64
	for i, p := range r.Payments {
		switch txscript.GetScriptClass(p.Script) {
		case txscript.NonStandardTy:
			fault("payment %d: a script of no standard form is not relayed", i)
		case txscript.NullDataTy:
			if data++; data > 1 {
				fault("payment %d: more than one output of data is not relayed", i)
			}
		default:
		}
		if p.Rest {
			if rests++; rests > 1 {
				fault("payment %d: only one payment can take the rest", i)
			}
			if p.PaysFee {
				fault("payment %d: what takes the rest pays the fee anyhow", i)
			}
			continue
		}
		if p.PaysFee && rests > 0 {
			fault("payment %d: the fee is paid from the rest", i)
		}
		if p.Value < 0 || p.Value > btcutil.MaxSatoshi || total+p.Value > btcutil.MaxSatoshi {
			fault("payment %d: %d satoshi are out of range", i, p.Value)
			continue
		}
		total += p.Value
		if limit := DustLimit(p.Script); p.Value < limit {
			fault("payment %d: %w", i, &DustError{Value: p.Value, Least: limit})
		}
	}
	if x := r.Replaces; x != nil && (x.Fees < 0 || x.Fees > btcutil.MaxSatoshi || x.Increment < 0 || x.Increment > rateLimit) {
		fault("fees of what is replaced out of range")
	}
	if l := r.Lifts; l != nil && (l.Fee < 0 || l.Fee > btcutil.MaxSatoshi || l.Weight < 0 || l.Weight > maxFamilyWeight) {
		fault("fee or weight of what is lifted out of range")
	}
	if len(r.Change) == 0 && rests == 0 {
		fault("no script for change")
	}
	seen := make(map[wire.OutPoint]struct{}, len(r.Coins))
	var worth int64
	for i := range r.Coins {
		c := &r.Coins[i]
		if _, twice := seen[c.OutPoint]; twice {
			fault("coin %s is there twice", c.OutPoint)
		}
		seen[c.OutPoint] = struct{}{}
		if c.Value < 0 || c.Value > btcutil.MaxSatoshi || worth+c.Value > btcutil.MaxSatoshi || c.InputWeight < 0 || c.SigOpCost < 0 {
			fault("coin %s: value or weight out of range", c.OutPoint)
			continue
		}
		worth += c.Value
	}
	named := make(map[wire.OutPoint]struct{}, len(r.Spend))
	for _, op := range r.Spend {
		if _, ok := seen[op]; !ok {
			fault("coin %s is not one of the wallet's", op)
		}
		if _, twice := named[op]; twice {
			fault("coin %s is named twice", op)
		}
		named[op] = struct{}{}
	}
	return errors.Join(errs...)
}

// A DustError refuses an output that is worth too little to be relayed.
type DustError struct{ Value, Least int64 }

// Error implements error.
func (e *DustError) Error() string {
	return fmt.Sprintf("%d satoshi are dust: at least %d to that kind of script", e.Value, e.Least)
}

// Build plans a transaction. It fails with a *ShortError if coins do not suffice, a
// *FeeError if the fee would be above a cap, a *DustError if an output would be too
// small, ErrTooLarge, and a joined list of what is wrong with the request. It does
// not keep the request, but the plan shares its scripts.
func Build(r Request) (*Plan, error) {
	r = r.withDefaults()
	if err := r.validate(); err != nil {
		return nil, err
	}
	b := newBuilder(&r)
	chosen, err := b.choose()
	if err != nil {
		return nil, err
	}
	return b.assemble(chosen)
}

// A builder works on one request.
type builder struct {
	*Request
	short    ShortError
	named    map[wire.OutPoint]struct{}
	change   int   // index in Request.Change; -1: none is wanted
	rest     int   // index in Request.Payments; -1: none
	paid     int64 // by payments, without the rest
	payers   int   // payments that pay the fee
	must     []int // indexes of coins that are named
	method   string
	waste    int64
	left     int
	leftVal  int64
	noChange bool // an exact match was found
}

func newBuilder(r *Request) *builder {
	b := &builder{Request: r, change: -1, rest: -1, named: make(map[wire.OutPoint]struct{}, len(r.Spend))}
	for _, op := range r.Spend {
		b.named[op] = struct{}{}
	}
	for i, p := range r.Payments {
		switch {
		case p.Rest:
			b.rest = i
			continue
		case p.PaysFee:
			b.payers++
		}
		b.paid += p.Value
	}
	if b.rest < 0 {
		b.change = likePayments(r.Change, r.Payments)
	}
	return b
}

// likePayments picks a script for change of a kind that is paid, so that one
// cannot tell them apart by it; the first if there is none.
func likePayments(change []Change, payments []Payment) int {
	for i := range change {
		kind := txscript.GetScriptClass(change[i].Script)
		if slices.ContainsFunc(payments, func(p Payment) bool { return txscript.GetScriptClass(p.Script) == kind }) {
			return i
		}
	}
	return 0
}

// frame is what a transaction weighs without inputs, at most, with an output for
// change or not. ins is how many inputs it may have.
func (b *builder) frame(withChange bool, ins int, witness bool) (weight int64, sigOps int) {
	outs := len(b.Payments)
	for _, p := range b.Payments {
		weight += outputWeight(p.Script)
		sigOps += outputSigOps(p.Script)
	}
	if withChange {
		outs++
		weight += outputWeight(b.Change[b.change].Script)
		sigOps += outputSigOps(b.Change[b.change].Script)
	}
	weight += witnessScale * int64(4+4+wire.VarIntSerializeSize(uint64(ins))+wire.VarIntSerializeSize(uint64(outs)))
	if witness {
		weight += markerWeight
	}
	return weight, sigOps
}

// weigh is the most that a transaction which spends coins weighs, and that fee
// rates go by.
func (b *builder) weigh(coins []int, withChange bool) (weight, forFee int64, err error) {
	witness := slices.ContainsFunc(coins, func(i int) bool { return b.Coins[i].Witness })
	weight, sigOps := b.frame(withChange, len(coins), witness)
	for _, i := range coins {
		weight += b.inputWeight(i, witness)
		sigOps += b.Coins[i].SigOpCost
	}
	if weight > MaxWeight || sigOps > maxSigOpCost {
		return 0, 0, ErrTooLarge
	}
	return weight, feeWeight(weight, sigOps), nil
}

// inputWeight is what coin i weighs in a transaction with or without witnesses.
func (b *builder) inputWeight(i int, witness bool) int64 {
	c := &b.Coins[i]
	if witness && !c.Witness {
		return c.InputWeight + 1 // the count of no items
	}
	return c.InputWeight
}

// lotOf adds up coins. With subtracted fees their whole value counts.
func (b *builder) lotOf(coins []int, witness bool) lot {
	l := lot{coins: coins}
	for _, i := range coins {
		w := b.inputWeight(i, witness)
		l.value += b.Coins[i].Value
		l.weight += w
		forFee := feeWeight(w, b.Coins[i].SigOpCost)
		l.fee += b.partRate().part(forFee)
		l.longFee += b.LongTermRate.part(forFee)
	}
	if l.effective = l.value - l.fee; b.payers > 0 {
		l.effective = l.value
	}
	return l
}

// A tier is a set of coins that are tried before those of the next: what is likely
// to be mined first (Bitcoin Core's eligibility filters).
type tier struct {
	foreign, own int32 // confirmations
	ancestors    int   // of unconfirmed coins at most
}

func (b *builder) tiers() []tier {
	out := []tier{
		{foreignDepth, 1, 0},
		{1, 1, 0},
		{1, 0, 2},
		{1, 0, maxAncestors / 3},
		{1, 0, maxAncestors},
	}
	if b.Unconfirmed {
		out = append(out, tier{0, 0, maxAncestors})
	}
	return out
}

// choose returns the indexes of the coins to spend.
func (b *builder) choose() ([]int, error) {
	if err := b.takeNamed(); err != nil {
		return nil, err
	}
	b.method = "named"
	if b.rest >= 0 {
		return b.sweep()
	}
	if len(b.must) > 0 && !b.AddCoins {
		return b.must, nil
	}
	// Named coins may do by themselves.
	if len(b.must) > 0 {
		if _, err := b.assemble(b.must); err == nil {
			return b.must, nil
		}
	}
	var last []int
	for i, t := range b.tiers() {
		pool, families := b.eligible(t)
		if i > 0 && slices.Equal(pool, last) {
			continue // what did not do before
		}
		last = pool
		if coins, ok := b.chooseFrom(pool, families); ok {
			return coins, nil
		}
	}
	return nil, b.shortage()
}

// takeNamed finds the coins that must be spent.
func (b *builder) takeNamed() error {
	var errs []error
	for i := range b.Coins {
		c := &b.Coins[i]
		if _, ok := b.named[c.OutPoint]; !ok {
			continue
		}
		switch {
		case c.Unspendable != nil:
			errs = append(errs, fmt.Errorf("coin %s: %w", c.OutPoint, c.Unspendable))
		case b.immature(c):
			errs = append(errs, fmt.Errorf("coin %s: mined, spendable at height %d", c.OutPoint, c.Height+b.Maturity))
		case c.Closed && c.OpenAt > 0:
			errs = append(errs, fmt.Errorf("coin %s: time lock, spendable at height %d", c.OutPoint, c.OpenAt))
		case c.Closed:
			errs = append(errs, fmt.Errorf("coin %s: its time lock is not over", c.OutPoint))
		case c.TRUC:
			errs = append(errs, fmt.Errorf("coin %s: unconfirmed, of a transaction of version 3", c.OutPoint))
		}
		b.must = append(b.must, i)
	}
	if _, weight, ok := b.families(b.must); !ok || weight > maxFamilyWeight {
		errs = append(errs, errors.New("the named coins have too many unconfirmed ancestors or descendants"))
	}
	return errors.Join(errs...)
}

func (b *builder) immature(c *Coin) bool {
	return c.Coinbase && !c.Genesis && (c.Height <= 0 || b.Height+1-c.Height < b.Maturity)
}

// families counts unconfirmed ancestors of coins, those of outputs of one
// transaction once, and their weight; ok says whether the mempool allows a
// transaction that spends them all.
func (b *builder) families(coins []int) (count int, weight int64, ok bool) {
	seen := make(map[chainhash.Hash]struct{})
	for _, i := range coins {
		c := &b.Coins[i]
		if c.Ancestors == 0 {
			continue
		}
		if c.Descendants >= maxDescendants {
			return 0, 0, false
		}
		if _, twice := seen[c.OutPoint.Hash]; twice {
			continue
		}
		seen[c.OutPoint.Hash] = struct{}{}
		count += c.Ancestors
		weight += c.AncestorWeight
	}
	return count, weight, count <= maxAncestors
}

// eligible returns the coins of a tier that are not named, and the weight of their
// unconfirmed ancestors and those of named ones. Any set of them is within the
// mempool's limit on ancestors. The last tier's are what b.short is about.
func (b *builder) eligible(t tier) (pool []int, families int64) {
	b.short = ShortError{Usable: b.short.Usable, Needed: b.short.Needed}
	count, families, _ := b.families(b.must)
	seen := make(map[chainhash.Hash]struct{})
	for _, i := range b.must {
		seen[b.Coins[i].OutPoint.Hash] = struct{}{}
	}
	var young []int
	for i := range b.Coins {
		c := &b.Coins[i]
		if _, ok := b.named[c.OutPoint]; ok {
			continue
		}
		depth, want := c.Confirmations(b.Height), t.foreign
		if c.Own {
			want = t.own
		}
		switch {
		case c.Unspendable != nil:
			b.short.NoKeys += c.Value
		case b.immature(c):
			b.short.Immature += c.Value
		case c.Locked:
			b.short.Locked += c.Value
		case c.Closed:
			b.short.Closed += c.Value
			if c.OpenAt > 0 && (b.short.OpenAt == 0 || c.OpenAt < b.short.OpenAt) {
				b.short.OpenAt = c.OpenAt
			}
		case c.Value <= b.partRate().part(feeWeight(b.inputWeight(i, true), c.SigOpCost)):
			b.short.Dust += c.Value
		case depth < want, depth == 0 && (b.Replaces != nil || c.TRUC || c.Ancestors > t.ancestors || c.Descendants >= maxDescendants):
			b.short.Unconfirmed += c.Value
		case depth == 0:
			young = append(young, i)
		default:
			pool = append(pool, i)
		}
	}
	slices.SortStableFunc(young, func(x, y int) int {
		return cmp.Or(cmp.Compare(b.Coins[x].Ancestors, b.Coins[y].Ancestors), cmp.Compare(b.Coins[y].Value, b.Coins[x].Value))
	})
	for _, i := range young {
		c := &b.Coins[i]
		if _, ok := seen[c.OutPoint.Hash]; !ok {
			if count+c.Ancestors > maxAncestors || families+c.AncestorWeight > maxFamilyWeight/2 {
				b.short.Unconfirmed += c.Value
				continue
			}
			seen[c.OutPoint.Hash] = struct{}{}
			count += c.Ancestors
			families += c.AncestorWeight
		}
		pool = append(pool, i)
	}
	return pool, families
}

// lots gathers coins into what is spent together.
func (b *builder) lots(pool []int, witness bool) []lot {
	var out []lot
	add := func(coins []int) {
		if l := b.lotOf(coins, witness); l.effective > 0 {
			out = append(out, l)
		}
	}
	if !b.ByScript {
		for _, i := range pool {
			add([]int{i})
		}
		return out
	}
	byScript := make(map[string][]int)
	var order []string
	for _, i := range pool {
		script := string(b.Coins[i].Script)
		if byScript[script] == nil {
			order = append(order, script)
		}
		if byScript[script] = append(byScript[script], i); len(byScript[script]) == maxCoinsOfScript {
			add(byScript[script])
			byScript[script] = nil
		}
	}
	for _, script := range order {
		if coins := byScript[script]; len(coins) > 0 {
			add(coins)
			byScript[script] = nil
		}
	}
	return out
}

// chooseFrom looks for coins of a pool that pay, with those that are named, for
// everything.
func (b *builder) chooseFrom(pool []int, families int64) ([]int, bool) {
	ins := len(pool) + len(b.must)
	witness := slices.ContainsFunc(slices.Concat(pool, b.must), func(i int) bool { return b.Coins[i].Witness })
	fixed := b.lotOf(b.must, witness)
	base, baseOps := b.frame(false, ins, witness)
	withChange, changeOps := b.frame(true, ins, witness)
	change := &b.Change[b.change]
	c := &chooser{
		lots: b.lots(pool, witness), rand: b.Rand,
		target:    b.paid + b.fee(feeWeight(base, baseOps)) - fixed.effective,
		changeFee: b.partRate().part(max(withChange-base, sigOpWeight*int64(changeOps-baseOps))),
		spendFee:  b.discardRate().part(change.InputWeight),
		payment:   b.paid / int64(len(b.Payments)),
		maxWeight: min(MaxWeight, maxFamilyWeight-families) - withChange - fixed.weight,
		exact:     b.payers == 0,
		dear:      b.Rate > dearFactor*b.LongTermRate,
	}
	if b.payers > 0 {
		c.target, c.changeFee = b.paid-fixed.effective, 0
	}
	c.leastChange = b.leastChange()
	c.sort()
	b.short.Usable = fixed.effective
	for i := range c.lots {
		b.short.Usable += c.lots[i].effective
	}
	b.short.Needed = c.target + fixed.effective
	if c.target <= 0 {
		// The named coins suffice but for a fault that assemble will tell.
		return b.must, len(b.must) > 0
	}
	if c.maxWeight < 0 {
		return nil, false
	}
	got, ok := c.choose()
	if !ok {
		return nil, false
	}
	b.method, b.waste, b.noChange = got.method, got.waste+fixed.fee-fixed.longFee, got.method == "exact"
	coins := slices.Clone(b.must)
	for _, l := range got.lots {
		coins = append(coins, c.lots[l].coins...)
	}
	return coins, true
}

// discardRate is what makes change too small to keep: what spending it would cost,
// later.
func (b *builder) discardRate() Rate { return max(DustRate, min(b.LongTermRate, DefaultLongTermRate)) }

// leastChange is the least change that gets an output.
func (b *builder) leastChange() int64 {
	change := &b.Change[b.change]
	return max(DustLimit(change.Script), b.discardRate().part(change.InputWeight)+1)
}

// shortage says why no tier had enough.
func (b *builder) shortage() error {
	if b.short.Usable >= b.short.Needed {
		return ErrTooLarge // there is enough, but not in so few inputs
	}
	e := b.short
	return &e
}

// sweep takes all coins, or those that are named: the most valuable ones if they
// are too many for one transaction.
func (b *builder) sweep() ([]int, error) {
	coins := b.must
	if len(b.must) == 0 || b.AddCoins && b.Replaces == nil { // one that is replaced took what it took
		t := tier{1, 0, maxAncestors}
		if b.Unconfirmed {
			t.foreign = 0
		}
		pool, _ := b.eligible(t)
		slices.SortStableFunc(pool, func(x, y int) int { return cmp.Compare(b.Coins[y].Value, b.Coins[x].Value) })
		coins = slices.Concat(b.must, pool)
		b.method = "all"
	}
	if len(coins) == 0 {
		e := b.short
		e.Needed = max(b.paid, 1)
		return nil, &e
	}
	// The most that fit: each more weighs more.
	n := sort.Search(len(coins), func(i int) bool { return !b.fits(coins[:i+1]) })
	if n < max(1, len(b.must)) {
		return nil, ErrTooLarge
	}
	for _, i := range coins[n:] {
		b.left++
		b.leftVal += b.Coins[i].Value
	}
	return coins[:n], nil
}

// fits says whether coins can be spent by one transaction that is relayed.
func (b *builder) fits(coins []int) bool {
	_, families, ok := b.families(coins)
	weight, _, err := b.weigh(coins, false)
	return ok && err == nil && (families == 0 || families+weight <= maxFamilyWeight)
}
