package spend

import (
	"errors"
	"fmt"
	"slices"

	"github.com/btcsuite/btcd/wire/v2"
)

// lockTimeThreshold divides lock times that are heights from those that are times
// (BIP65).
const lockTimeThreshold = 500_000_000

// errLocks says that coins cannot be spent together.
var errLocks = errors.New("one coin is locked to a height, another to a time: they cannot be spent by one transaction")

// A bill says what the outputs of a transaction are worth.
type bill struct {
	values []int64 // of the payments, after fees
	change int64   // 0: none
	fee    int64
	weight int64 // that the fee goes by
}

// assemble makes the transaction that spends coins.
func (b *builder) assemble(coins []int) (*Plan, error) {
	money, err := b.settle(coins)
	if err != nil {
		return nil, err
	}
	if money.fee > b.MaxFee {
		return nil, &FeeError{Fee: money.fee, MaxFee: b.MaxFee, Rate: rateOf(money.fee, money.weight), MaxRate: b.MaxRate}
	}
	coins = slices.Clone(coins)
	b.Rand.Shuffle(len(coins), func(i, j int) { coins[i], coins[j] = coins[j], coins[i] })
	p := &Plan{
		Tx: wire.NewMsgTx(2), Fee: money.fee, Weight: money.weight, Change: -1, ChangeOf: -1,
		Method: b.method, Waste: b.waste, Left: b.left, LeftValue: b.leftVal,
	}
	after, err := b.lockTime(coins)
	if err != nil {
		return nil, err
	}
	p.Tx.LockTime = after
	for _, i := range coins {
		c := &b.Coins[i]
		in := wire.NewTxIn(&c.OutPoint, nil, nil)
		switch {
		case c.Older > 0:
			in.Sequence = c.Older
		case b.Final:
			in.Sequence = sequenceLocked
		default:
			in.Sequence = sequenceReplaceable
		}
		p.Tx.AddTxIn(in)
		p.Coins = append(p.Coins, *c)
	}
	for i, pay := range b.Payments {
		p.Tx.AddTxOut(wire.NewTxOut(money.values[i], pay.Script))
		p.Outputs = append(p.Outputs, pay.Info)
	}
	if money.change > 0 {
		to := &b.Change[b.change]
		p.Change, p.ChangeOf = b.Rand.IntN(len(p.Tx.TxOut)+1), b.change
		p.Tx.TxOut = slices.Insert(p.Tx.TxOut, p.Change, wire.NewTxOut(money.change, to.Script))
		p.Outputs = slices.Insert(p.Outputs, p.Change, to.Info)
	}
	return p, nil
}

// settle divides what coins are worth among payments, change and fee.
func (b *builder) settle(coins []int) (bill, error) {
	var in int64
	for _, i := range coins {
		in += b.Coins[i].Value
	}
	money := bill{values: make([]int64, len(b.Payments))}
	for i, p := range b.Payments {
		money.values[i] = p.Value
	}
	_, weight, err := b.weigh(coins, false)
	if err != nil {
		return bill{}, err
	}
	need := b.fee(weight)
	money.weight = weight
	if b.rest >= 0 {
		rest := in - b.paid - need
		if rest <= 0 {
			return bill{}, b.tooLittle(in, need)
		}
		if limit := DustLimit(b.Payments[b.rest].Script); rest < limit {
			return bill{}, fmt.Errorf("what is left of %d satoshi: %w", in, &DustError{Value: rest, Least: limit})
		}
		money.values[b.rest], money.fee = rest, need
		return money, nil
	}
	over := in - b.paid // for fee and change
	if !b.noChange {
		if _, weight, err := b.weigh(coins, true); err == nil {
			fee := b.fee(weight)
			change := over
			if b.payers == 0 {
				change -= fee
			}
			if change >= b.leastChange() {
				money.change, money.fee, money.weight = change, fee, weight
				if b.payers > 0 {
					err = b.subtract(money.values, fee)
				}
				return money, err
			}
		}
	}
	switch {
	case over < 0, b.payers == 0 && over < need:
		return bill{}, b.tooLittle(in, need)
	case over < need:
		err = b.subtract(money.values, need-over)
		money.fee = need
	default: // what is too little for an output goes to whoever mines it
		money.fee = over
	}
	return money, err
}

// tooLittle says that coins worth in do not pay for a transaction whose fee is
// need.
func (b *builder) tooLittle(in, need int64) error {
	e := b.short
	e.Usable, e.Needed = in, b.paid
	if b.payers == 0 {
		e.Usable = max(0, in-need)
	}
	if b.rest >= 0 {
		e.Needed++
	}
	return &e
}

// subtract takes a fee from the payments that pay it, in equal parts; the first of
// them pays what does not divide.
func (b *builder) subtract(values []int64, fee int64) error {
	share, odd := fee/int64(b.payers), fee%int64(b.payers)
	for i, p := range b.Payments {
		if !p.PaysFee {
			continue
		}
		values[i] -= share + odd
		odd = 0
		if limit := DustLimit(p.Script); values[i] < limit || values[i] <= 0 {
			return fmt.Errorf("payment %d less its part of the fee of %d satoshi: %w", i, fee, &DustError{Value: values[i], Least: max(limit, 1)})
		}
	}
	return nil
}

// lockTime is what coins want, or what keeps others from mining the transaction in
// place of a block that exists (Bitcoin Core's DiscourageFeeSniping).
func (b *builder) lockTime(coins []int) (uint32, error) {
	var after uint32
	for _, i := range coins {
		if a := b.Coins[i].After; a > 0 {
			if after > 0 && (after < lockTimeThreshold) != (a < lockTimeThreshold) {
				return 0, errLocks
			}
			after = max(after, a)
		}
	}
	if b.NoLockTime || b.Height <= 0 || after >= lockTimeThreshold {
		return after, nil
	}
	height := b.Height
	if b.Rand.IntN(snipingOneIn) == 0 {
		// As if it had been signed some time ago, like those that were.
		height = max(0, height-b.Rand.Int32N(snipingMostBlocks))
	}
	return max(after, uint32(height)), nil
}
