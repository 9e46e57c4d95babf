package mempool

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/btcsuite/btcd/blockchain"
	"github.com/btcsuite/btcd/btcutil/v2"
	"github.com/btcsuite/btcd/chainhash/v2"
	btcpool "github.com/btcsuite/btcd/mempool"
	"github.com/btcsuite/btcd/txscript/v2"
	"github.com/btcsuite/btcd/wire/v2"

	"dunlin/chain"
	"dunlin/chain/consensus"
)

// Policy limits on one transaction, those of Bitcoin Core (policy/policy.h).
const (
	maxTxVersion    = 3      // with BIP431's rules
	dustFeeRate     = 3000   // satoshi per 1000 virtual bytes (DUST_RELAY_TX_FEE)
	minStrippedSize = 65     // 64 bytes could be a pair of hashes of the merkle tree
	maxTxSigOpsCost = 16_000 // MAX_STANDARD_TX_SIGOPS_COST
	maxP2SHSigOps   = 15
	// maxKnownOutputs is how many outputs are looked up to tell a transaction
	// that is in the chain from one whose inputs are missing.
	maxKnownOutputs = 4
	// maxTries is how often a check is made again because the tip moved.
	maxTries = 5

	// standardFlags are what scripts must satisfy on top of what consensus wants.
	standardFlags = uint32(txscript.StandardVerifyFlags)
)

// A candidate is a transaction on its way into the pool.
type candidate struct {
	tx      *wire.MsgTx
	id, wid chainhash.Hash
	weight  int64
	from    string    // peer; "" is this node
	added   time.Time // zero: now
	// flags are those that its scripts passed under before.
	flags uint32
	// returned: a reorganisation took it from a block or from the pool, so no
	// fee is too low for it.
	returned bool
	was      place // the block that it was taken from; zero: none
	settled  bool  // what became of it is known: it need not be tried
	blind    bool  // blocks were passed over that may have it
	// relay: this node must tell others of it. received is when a peer brought
	// it; zero: nobody did.
	relay    bool
	own      bool // made or handed in here
	received time.Time
	cost     time.Duration // estimate of what checking it took
	// trial: it is only checked; result is what it would be.
	trial  bool
	result Entry
	memory int64 // while it waits in the queue
}

func newCandidate(tx *wire.MsgTx, from string) *candidate {
	return &candidate{
		tx: tx, id: tx.TxHash(), wid: tx.WitnessHash(), from: from,
		weight: int64(tx.SerializeSizeStripped())*(blockchain.WitnessScaleFactor-1) + int64(tx.SerializeSize()),
	}
}

// errMoved says that the chain went on while a transaction was checked.
var errMoved = errors.New("the tip moved while the transaction was checked")

// Submit checks a transaction and adds it. A *consensus.RuleError that blames
// the sender says that no honest node would send it; one that blames nobody, that
// it is not wanted here and now (Rule tells why; see the package's Blame). Any
// other error is our own trouble. A refusal because another transaction spends
// the same output is a *ConflictError, one for want of unknown parents, for which
// it is kept, a *MissingError. from names the peer, "" is this node.
// accepted lists the transaction and the orphans that it completed; [Pool.Unsent]
// has what of it nobody relays yet: all but a transaction of a peer, which the
// caller passes on. It runs scripts, and waits up to a second at a time for the
// pool to follow the chain. Submit keeps tx.
func (p *Pool) Submit(ctx context.Context, tx *wire.MsgTx, from string) (accepted []*wire.MsgTx, err error) {
	return p.submit(ctx, tx, from, from == "", from != "")
}

// SubmitAsked is Submit of a transaction that a peer sent because it was asked
// for it. Nobody passes it on by itself: it will be in [Pool.Unsent].
func (p *Pool) SubmitAsked(ctx context.Context, tx *wire.MsgTx, from string) (accepted []*wire.MsgTx, err error) {
	return p.submit(ctx, tx, from, true, false)
}

// SubmitPulled is SubmitAsked of a transaction that others are likely to have.
func (p *Pool) SubmitPulled(ctx context.Context, tx *wire.MsgTx, from string) (accepted []*wire.MsgTx, err error) {
	return p.submit(ctx, tx, from, false, false)
}

func (p *Pool) submit(ctx context.Context, tx *wire.MsgTx, from string, relay, received bool) (accepted []*wire.MsgTx, err error) {
	if err := checkAlone(tx); err != nil {
		return nil, err
	}
	now := p.o.Now()
	p.mu.RLock()
	over := p.waste.over(from, now)
	p.mu.RUnlock()
	if over {
		return nil, refuse("peer-over-budget", "too many transactions of %s were refused", from)
	}
	c := newCandidate(tx, from)
	c.own, c.relay = from == "", relay
	if received {
		c.received = now
	}
	return p.admitAll(ctx, c)
}

// admitAll admits a candidate, and then the orphans that it completes.
func (p *Pool) admitAll(ctx context.Context, c *candidate) (accepted []*wire.MsgTx, err error) {
	queue := []*candidate{c}
	for first := true; len(queue) > 0; first = false {
		c := queue[0]
		queue = queue[1:]
		ready, fault := p.admit(ctx, c)
		switch {
		case fault == nil:
			accepted = append(accepted, c.tx)
			queue = append(queue, ready...)
		case first:
			return nil, fault
		}
	}
	return accepted, nil
}

// admit is try, again while the chain moves. It charges the peer for a refusal.
func (p *Pool) admit(ctx context.Context, c *candidate) (ready []*candidate, err error) {
	for range maxTries {
		if err := p.await(ctx); err != nil {
			return nil, err
		}
		if ready, err = p.try(ctx, c); !errors.Is(err, errMoved) {
			break
		}
	}
	if errors.Is(err, errMoved) || errors.Is(err, chain.ErrBusy) {
		return nil, refuse("tip-moving", "%v", err)
	}
	p.charge(c, err)
	p.bystand(c, err)
	return ready, err
}

// charge books what checking a transaction took to its peer, if it was refused.
func (p *Pool) charge(c *candidate, err error) {
	if _, ok := errors.AsType[*consensus.RuleError](err); ok && c.from != "" && c.cost > 0 {
		now := p.o.Now()
		p.mu.Lock()
		p.waste.charge(c.from, c.cost, now)
		p.mu.Unlock()
	}
}

// try checks one transaction and adds it, cheap checks first. It returns the
// orphans that it completed. errMoved says that pool and chain are not, or did
// not stay, on the same block.
func (p *Pool) try(ctx context.Context, c *candidate) (ready []*candidate, err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	tx, now := c.tx, p.o.Now()
	p.mu.Lock()
	if _, ok := p.byID[c.id]; ok {
		p.mu.Unlock()
		return nil, refuse("txn-already-in-mempool", "")
	}
	tip, minRate := p.tip, p.minFeeRate(now)
	coins, parents, fromChain := p.poolCoins(tx, tip.height+1)
	p.mu.Unlock()

	past, ok := p.o.Chain.Past(tip.hash)
	if !ok {
		return nil, fmt.Errorf("past of %s: %w", tip.hash, chain.ErrNotFound)
	}
	if err := p.checkPolicy(c, past); err != nil {
		return nil, err
	}
	lost, err := p.chainCoins(c, coins, fromChain)
	if err != nil {
		return nil, err
	}
	if at, _ := p.o.Chain.Tip(); at.Hash != tip.hash {
		return nil, errMoved // the coins may be those of a newer tip
	}
	if len(lost) > 0 {
		return nil, p.missing(c, tip, lost, now)
	}
	fee, err := consensus.CheckTxInputs(p.strict, past, tx, coins)
	if rule, ok := errors.AsType[*consensus.RuleError](err); ok && bip54Rules[rule.Rule] && !p.params.BIP54 {
		return nil, refuse(rule.Rule, "%s", rule.Detail) // not a rule of this network, yet
	}
	if err != nil {
		return nil, loose(err)
	}
	flags := consensus.ScriptFlags(p.params, past, chainhash.Hash{})
	sigOps, err := consensus.SigOpCost(tx, coins, flags|standardFlags)
	if err != nil {
		return nil, err
	}
	if sigOps > maxTxSigOpsCost {
		return nil, refuse("bad-txns-too-many-sigops", "cost %d, at most %d", sigOps, maxTxSigOpsCost)
	}
	if err := checkInputsStandard(tx, coins); err != nil {
		return nil, err
	}
	size := vsize(feeWeight(c.weight, sigOps))
	if need := feeFor(minRate, size); fee < need && !c.returned {
		return nil, refuse("min-relay-fee-not-met", "fee %d satoshi, at least %d for %d virtual bytes", fee, need, size)
	}
	e := &entry{
		Entry: Entry{
			Tx: tx, ID: c.id, WID: c.wid, Fee: fee, Weight: int(c.weight), SigOpCost: sigOps, Height: tip.height, Added: c.added, Received: c.received,
		},
		memory: memoryOf(tx), parents: parents, was: c.was, own: c.own,
	}
	if e.Added.IsZero() {
		e.Added = now
	}
	// Whether it may have its place is asked twice: before the scripts, which are
	// what costs, and when it takes it.
	p.mu.RLock()
	_, err = p.contest(e)
	p.mu.RUnlock()
	if err != nil {
		return nil, err
	}
	if e.flags = flags | standardFlags; c.flags&e.flags != e.flags {
		c.cost += checkCost(sigOps, c.weight)
		if err := checkScripts(tx, coins, flags); err != nil {
			return nil, err
		}
		c.flags = e.flags // a second try need not
	}
	if c.trial {
		c.result = e.public()
		return nil, nil
	}
	return p.commit(e, tip, c.relay, now)
}

// poolCoins returns the coins that entries provide for tx, these entries, and the
// indexes of the inputs that the chain must provide. height is that of the next
// block. Callers hold mu.
func (p *Pool) poolCoins(tx *wire.MsgTx, height int32) (coins []consensus.Coin, parents []*entry, fromChain []int) {
	coins = make([]consensus.Coin, len(tx.TxIn))
	for i, in := range tx.TxIn {
		op := in.PreviousOutPoint
		if !p.makes(op) {
			fromChain = append(fromChain, i)
			continue
		}
		e := p.byID[op.Hash]
		out := e.Tx.TxOut[op.Index]
		coins[i] = consensus.Coin{Value: out.Value, Script: out.PkScript, Height: height}
		if !slices.Contains(parents, e) {
			parents = append(parents, e)
		}
	}
	return coins, parents, fromChain
}

// makes says whether an entry has the output op. Callers hold mu.
func (p *Pool) makes(op wire.OutPoint) bool {
	e := p.byID[op.Hash]
	return e != nil && int64(op.Index) < int64(len(e.Tx.TxOut))
}

// chainCoins fills in what the chain provides, and returns what it lacks: all, or
// as much as it takes to know that the transaction is hopeless.
func (p *Pool) chainCoins(c *candidate, coins []consensus.Coin, want []int) (lost []wire.OutPoint, err error) {
	for _, i := range want {
		op := c.tx.TxIn[i].PreviousOutPoint
		c.cost += coinCost
		coin, ok, err := p.o.Chain.Coin(op)
		if err != nil {
			return nil, fmt.Errorf("coin %s: %w", op, err)
		}
		if ok {
			coins[i] = coin
		} else if lost = append(lost, op); countParents(lost) > maxMissing {
			break
		}
	}
	return lost, nil
}

// countParents counts transactions; outputs of one mostly follow one another.
func countParents(ops []wire.OutPoint) (n int) {
	for i := range ops {
		if i == 0 || ops[i].Hash != ops[i-1].Hash {
			n++
		}
	}
	return n
}

// missing keeps c as an orphan if its inputs may yet come, and says why it is
// refused.
func (p *Pool) missing(c *candidate, tip place, lost []wire.OutPoint, now time.Time) error {
	for i := range c.tx.TxOut[:min(len(c.tx.TxOut), maxKnownOutputs)] {
		c.cost += coinCost
		if _, ok, err := p.o.Chain.Coin(wire.OutPoint{Hash: c.id, Index: uint32(i)}); err == nil && ok {
			return refuse("txn-already-known", "its outputs are in the chain")
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if f := p.fates.byID[c.id]; f != nil && f.Cause == Conflicted {
		return &ConflictError{
			Fault: &consensus.RuleError{
				Rule: "missing-inputs", Blame: consensus.BlameNobody,
				Detail: fmt.Sprintf("%s in block %s at height %d spends the same output", f.By, f.Block, f.Height),
			},
			Output: lost[0], By: f.By, Block: f.Block, Height: f.Height,
		}
	}
	if c.from != "" && countParents(lost) <= maxMissing {
		// What came in meanwhile would not wake it any more.
		if p.tip != tip || slices.ContainsFunc(lost, func(op wire.OutPoint) bool { return p.makes(op) }) {
			return errMoved
		}
		p.orphans.keep(c, lost, now)
	}
	fault := &consensus.RuleError{
		Rule: "missing-inputs", Blame: consensus.BlameNobody,
		Detail: fmt.Sprintf("%d or more of %d inputs unknown or spent, first %s", len(lost), len(c.tx.TxIn), lost[0]),
	}
	if p.orphans.byWID[c.wid] == nil {
		return fault // not kept: no use asking for its parents
	}
	missing := &MissingError{Fault: fault}
	for i, op := range lost {
		if i == 0 || op.Hash != lost[i-1].Hash {
			missing.Parents = append(missing.Parents, op.Hash)
		}
	}
	return missing
}

// A MissingError refuses a transaction some inputs of which are not known. It is
// kept: whoever sent it should have the parents. It wraps the
// *consensus.RuleError.
type MissingError struct {
	Fault   *consensus.RuleError
	Parents []chainhash.Hash // that are not known; at most 24, hardly ever twice the same
}

// Error implements error.
func (e *MissingError) Error() string { return e.Fault.Error() }

// Unwrap returns the broken rule.
func (e *MissingError) Unwrap() error { return e.Fault }

// checkAlone checks what a transaction proves by itself.
func checkAlone(tx *wire.MsgTx) error {
	if err := consensus.CheckTx(tx); err != nil {
		return loose(err)
	}
	if blockchain.IsCoinBaseTx(tx) {
		return &consensus.RuleError{Rule: "coinbase", Blame: consensus.BlameSender, Detail: "a coinbase outside a block"}
	}
	return nil
}

// checkPolicy applies the rules on standard transactions that need no coins.
func (p *Pool) checkPolicy(c *candidate, past consensus.Past) error {
	height, median := past.Height()+1, time.Unix(consensus.MedianTimePast(past), 0)
	if !blockchain.IsFinalizedTransaction(btcutil.NewTx(c.tx), height, median) {
		return refuse("non-final", "lock time %d, the next block is %d, the median time %d", c.tx.LockTime, height, median.Unix())
	}
	err := btcpool.CheckTransactionStandard(btcutil.NewTx(c.tx), height, median, dustFeeRate/3, maxTxVersion)
	if err != nil {
		return refuse("non-standard", "%v", err)
	}
	// BIP54 networks refuse 64 bytes for ever; CheckTxInputs says so and blames.
	if size := c.tx.SerializeSizeStripped(); size < minStrippedSize && !p.params.BIP54 {
		return refuse("tx-size-small", "%d bytes without witness, at least %d", size, minStrippedSize)
	}
	if c.tx.HasWitness() && !p.params.Forks(past).Segwit {
		return refuse("no-witness-yet", "block %d may not have a witness", height)
	}
	return nil
}

// checkInputsStandard refuses to spend forms of script that we do not know:
// bare scripts can be made to hash megabytes for every signature.
func checkInputsStandard(tx *wire.MsgTx, coins []consensus.Coin) error {
	for i := range coins {
		if !witnessStandard(tx.TxIn[i], coins[i].Script) {
			return refuse("bad-witness-nonstandard", "input %d: more, or larger, witness items than are relayed", i)
		}
		switch script := coins[i].Script; txscript.GetScriptClass(script) {
		case txscript.NonStandardTy:
			return refuse("bad-txns-nonstandard-inputs", "input %d spends a script of no standard form", i)
		case txscript.ScriptHashTy:
			if n := txscript.GetPreciseSigOpCount(tx.TxIn[i].SignatureScript, script, true); n > maxP2SHSigOps {
				return refuse("bad-txns-nonstandard-inputs", "input %d: %d signature operations in a redeem script, at most %d", i, n, maxP2SHSigOps)
			}
		default:
		}
	}
	return nil
}

// checkScripts runs the scripts under the flags that relayed transactions must
// satisfy. One that only consensus would allow is not wanted, but nobody's fault.
func checkScripts(tx *wire.MsgTx, coins []consensus.Coin, mandatory uint32) error {
	err := consensus.CheckTxScripts(tx, coins, mandatory|standardFlags)
	if err == nil {
		return nil
	}
	if fault := consensus.CheckTxScripts(tx, coins, mandatory); fault != nil {
		return loose(fault)
	}
	return refuse("non-mandatory-script-verify-flag", "%v", err)
}

// provable are the rules that a transaction breaks whatever the chain is: on
// what it says itself, and on values and scripts of the outputs that it spends,
// to which their ids commit. All that is left out of what consensus checks on a
// transaction (maturity, relative locks) depends on where the tip is.
var provable = map[string]bool{
	"bad-txns-vin-empty":                  true,
	"bad-txns-vout-empty":                 true,
	"bad-txns-oversize":                   true,
	"bad-txns-vout-negative":              true,
	"bad-txns-vout-toolarge":              true,
	"bad-txns-txouttotal-toolarge":        true,
	"bad-txns-inputs-duplicate":           true,
	"bad-txns-prevout-null":               true,
	"bad-cb-length":                       true, // of a coinbase, which is wrong anyhow
	"bad-txns-inputvalues-outofrange":     true,
	"bad-txns-in-belowout":                true,
	"bad-txns-size":                       true, // BIP54
	"bad-txns-legacy-sigops":              true, // BIP54
	"mandatory-script-verify-flag-failed": true,
}

// bip54Rules are those that CheckTxInputs adds for BIP54. They are policy where it
// is not in force: what is relayed should be good when it is.
var bip54Rules = map[string]bool{"bad-txns-size": true, "bad-txns-legacy-sigops": true}

// loose turns a fault of a block's transaction into one of a loose one.
func loose(err error) error {
	rule, ok := errors.AsType[*consensus.RuleError](err)
	if !ok {
		return err
	}
	out := *rule
	out.Blame = consensus.BlameNobody
	if provable[rule.Rule] {
		out.Blame = consensus.BlameSender
	}
	return &out
}
