package spend

import (
	"errors"
	"fmt"
	"slices"

	"github.com/btcsuite/btcd/wire/v2"
)

// DefaultIncrement is the rate that a replacement pays on top of what it replaces
// (BIP125's rule 4; Bitcoin Core's -incrementalrelayfee).
const DefaultIncrement Rate = 1000

// A Replaced says what a transaction takes the place of in the mempool.
type Replaced struct {
	// Fees of all transactions that are evicted: those that spend the same outputs
	// and all that build on them.
	Fees int64
	// Increment is the mempool's rate for taking a place.
	Increment Rate
}

// A Package is an unconfirmed transaction and all unconfirmed ones that it builds
// on: what their fees and weights (that fee rates go by) sum up to.
type Package struct{ Fee, Weight int64 }

// fee is what a transaction that weighs so much must pay.
func (r *Request) fee(weight int64) int64 {
	fee := r.Rate.Fee(weight)
	if x := r.Replaces; x != nil {
		fee = max(fee, x.Fees+x.Increment.Fee(weight))
	}
	if l := r.Lifts; l != nil {
		fee = max(fee, r.Rate.Fee(weight+l.Weight)-l.Fee)
	}
	return fee
}

// partRate is by how much the fee grows with weight, at most.
func (r *Request) partRate() Rate {
	if r.Replaces != nil {
		return max(r.Rate, r.Replaces.Increment)
	}
	return r.Rate
}

// ErrRateTooLow says that a transaction pays what is asked, or more, already.
var ErrRateTooLow = errors.New("it pays at least that rate already")

// An Original is an unconfirmed transaction of ours.
type Original struct {
	Tx *wire.MsgTx
	// Coins are what its inputs spend, in their order, as for [Request.Coins].
	Coins []Coin
	// Fee and Weight are its own: weight as fee rates go by (FeeWeight).
	Fee, Weight int64
	// EvictedFees are those of all unconfirmed transactions that build on it, and
	// that go with it when it is replaced.
	EvictedFees int64
	// Change is the index of its output for change; -1 if it has none.
	Change int
	// Rest says that its last payment took the rest ([Payment.Rest]): it pays the
	// higher fee too.
	Rest bool
}

// Replace turns a request into one for a transaction that takes the place of o, with
// a higher fee: it spends the same coins and makes the same payments. The fee comes
// out of the change, or of the payment that took the rest; if change is not enough,
// coins of the request are added, confirmed ones only. r.Rate is asked; 0 means the
// least that the mempool takes. r.Payments must be empty; r.Change is where change
// goes if o had none. It sets r.Replaces, with r.Replaces.Increment if that is given.
//
// It fails with ErrRateTooLow if o pays the rate already. The plan that Build makes
// obeys the rules of chain/mempool: a higher rate than o's, the fees of all that is
// evicted and the increment for its own size, no new unconfirmed input.
func Replace(r Request, o *Original) (Request, error) {
	switch {
	case len(r.Payments) > 0:
		return r, errors.New("a replacement pays what the original pays")
	case len(o.Coins) != len(o.Tx.TxIn):
		return r, fmt.Errorf("%d coins for %d inputs", len(o.Coins), len(o.Tx.TxIn))
	case o.Change >= len(o.Tx.TxOut) || len(o.Tx.TxOut) == 0:
		return r, fmt.Errorf("change is output %d of %d", o.Change, len(o.Tx.TxOut))
	case o.Change >= 0 && o.Rest:
		return r, errors.New("an original that sent the rest has no change")
	}
	old := rateOf(o.Fee, o.Weight)
	if r.Rate != 0 && r.Rate <= old {
		return r, fmt.Errorf("%w: %s", ErrRateTooLow, old)
	}
	// Rates are compared by weight, which has no whole virtual bytes.
	r.Rate = max(r.Rate, Rate(mulDivUp(o.Fee, 4000, max(o.Weight, 1)))+1)
	replaced := Replaced{Fees: o.Fee + o.EvictedFees, Increment: DefaultIncrement}
	if r.Replaces != nil && r.Replaces.Increment > 0 {
		replaced.Increment = r.Replaces.Increment
	}
	r.Replaces = &replaced

	id := o.Tx.TxHash()
	inputs := make(map[wire.OutPoint]struct{}, len(o.Coins))
	r.Spend = nil
	for i, c := range o.Coins {
		if c.OutPoint != o.Tx.TxIn[i].PreviousOutPoint {
			return r, fmt.Errorf("coin %d is not what input %d spends", i, i)
		}
		inputs[c.OutPoint] = struct{}{}
		r.Spend = append(r.Spend, c.OutPoint)
	}
	others := slices.DeleteFunc(slices.Clone(r.Coins), func(c Coin) bool {
		_, same := inputs[c.OutPoint]
		return same || c.OutPoint.Hash == id // what it made will not be there
	})
	r.Coins = slices.Concat(o.Coins, others)
	// It has its place among its ancestors already.
	for i := range o.Coins {
		r.Coins[i].Descendants = max(0, r.Coins[i].Descendants-1)
	}
	r.AddCoins = len(others) > 0
	for i, out := range o.Tx.TxOut {
		if i != o.Change {
			r.Payments = append(r.Payments, Payment{Script: out.PkScript, Value: out.Value})
		}
	}
	switch {
	case o.Change >= 0:
		script := o.Tx.TxOut[o.Change].PkScript
		to := Change{Script: script}
		for _, c := range r.Change {
			if string(c.Script) == string(script) {
				to = c
			}
		}
		if to.InputWeight == 0 { // that of a key, whatever it is
			to.InputWeight = emptyInputWeight + witnessScale*keySpendBytes
		}
		r.Change = []Change{to}
		if len(r.Payments) == 0 { // all of it went back to us
			r.Payments, r.Change, r.AddCoins = []Payment{{Script: script, Rest: true, Info: to.Info}}, nil, false
		}
	case o.Rest:
		r.Payments[len(r.Payments)-1].Rest = true
		r.Change, r.AddCoins = nil, false
	}
	return r, nil
}

// keySpendBytes is what a signature and a key take.
const keySpendBytes = 107

// Lift turns a request into one for a child that gets an unconfirmed transaction
// mined by paying for it (child pays for parent): it spends coins of it, which are
// r.Spend, to r.Change[0], so that parent and child together pay r.Rate. up is the
// parent with all unconfirmed transactions that it builds on. It fails with
// ErrRateTooLow if they pay the rate already.
func Lift(r Request, up Package) (Request, error) {
	switch {
	case len(r.Spend) == 0:
		return r, errors.New("no output of the parent is given to spend")
	case len(r.Change) == 0:
		return r, errors.New("no script for what is left")
	case len(r.Payments) > 0:
		return r, errors.New("a child pays nobody but ourselves")
	}
	if up.Fee >= r.Rate.Fee(up.Weight) {
		return r, fmt.Errorf("%w: %s", ErrRateTooLow, rateOf(up.Fee, up.Weight))
	}
	r.Lifts, r.AddCoins = &up, false
	r.Payments = []Payment{{Script: r.Change[0].Script, Rest: true, Info: r.Change[0].Info}}
	r.Change = nil
	return r, nil
}
