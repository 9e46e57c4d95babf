package spend_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/btcsuite/btcd/btcutil/v2"
	btcpool "github.com/btcsuite/btcd/mempool"
	"github.com/btcsuite/btcd/txscript/v2"
	"github.com/btcsuite/btcd/wire/v2"

	"dunlin/internal/wallet/spend"
)

// A kind is a form of output that random wallets have.
type kind struct {
	script  func(n uint64) []byte
	input   int64
	sigOps  int
	witness bool
}

func program(n uint64, size int, around ...[]byte) []byte {
	out := slices.Clone(around[0])
	body := make([]byte, size)
	binary.LittleEndian.PutUint64(body, n)
	return append(append(out, body...), around[1]...)
}

// kinds are P2PKH, P2SH of 2-of-3, P2WPKH, P2WSH of 2-of-3 and P2TR.
var kinds = []kind{
	{func(n uint64) []byte { return program(n, 20, []byte{0x76, 0xa9, 20}, []byte{0x88, 0xac}) }, 4 * 149, 0, false},
	{func(n uint64) []byte { return program(n, 20, []byte{0xa9, 20}, []byte{0x87}) }, 4 * 299, 12, false},
	{func(n uint64) []byte { return program(n, 20, []byte{0, 20}, nil) }, 164 + 109, 1, true},
	{func(n uint64) []byte { return program(n, 32, []byte{0, 32}, nil) }, 164 + 256, 3, true},
	{func(n uint64) []byte { return program(n, 32, []byte{0x51, 32}, nil) }, 164 + 66, 0, true},
}

// amount draws values of all sizes, as wallets have them.
func amount(rng *rand.Rand, least int64) int64 {
	return least + rng.Int64N(1<<rng.IntN(34))
}

const (
	tip      = 1000
	maturity = 100
)

// randomRequest is of a random wallet of up to n coins.
func randomRequest(rng *rand.Rand, n int) spend.Request {
	r := spend.Request{
		Rate: spend.Rate(rng.Int64N(1 << rng.IntN(18))), LongTermRate: spend.Rate(1 + rng.Int64N(30_000)),
		Height: tip, Maturity: maturity, Rand: rng, MaxFee: 1 << 50, MaxRate: 1e9,
		ByScript: rng.IntN(4) == 0, Unconfirmed: rng.IntN(4) == 0, Final: rng.IntN(4) == 0, NoLockTime: rng.IntN(4) == 0,
	}
	mixed, own := rng.IntN(3) == 0, rng.IntN(len(kinds))
	for i := range rng.IntN(n + 1) {
		k := kinds[own]
		if mixed {
			k = kinds[rng.IntN(len(kinds))]
		}
		c := spend.Coin{
			OutPoint: wire.OutPoint{Index: uint32(rng.IntN(1000)*1000 + i)}, Value: amount(rng, 1), Script: k.script(uint64(rng.IntN(n))),
			InputWeight: k.input, SigOpCost: k.sigOps, Witness: k.witness, Height: 1 + rng.Int32N(tip), Own: rng.IntN(2) == 0,
		}
		binary.LittleEndian.PutUint64(c.OutPoint.Hash[:], uint64(rng.IntN(n)))
		switch rng.IntN(12) {
		case 0:
			c.Height, c.Ancestors, c.AncestorWeight, c.Descendants = 0, 1+rng.IntN(25), rng.Int64N(200_000), rng.IntN(26)
		case 1:
			c.Coinbase = true
		case 2:
			c.Locked = true
		case 3:
			c.Closed = true
		case 4:
			c.Unspendable = errors.New("watched only")
		}
		r.Coins = append(r.Coins, c)
		if rng.IntN(40) == 0 {
			r.Spend = append(r.Spend, c.OutPoint)
		}
	}
	r.AddCoins = rng.IntN(2) == 0
	for range 1 + rng.IntN(1<<rng.IntN(5)) {
		k := kinds[rng.IntN(len(kinds))]
		r.Payments = append(r.Payments, spend.Payment{Script: k.script(rng.Uint64()), Value: amount(rng, 600)})
	}
	if rng.IntN(3) == 0 && len(r.Coins) > 0 { // something close to what coins are worth
		r.Payments = r.Payments[:1]
		r.Payments[0].Value = 600
		for range 1 + rng.IntN(4) {
			r.Payments[0].Value += r.Coins[rng.IntN(len(r.Coins))].Value
		}
	}
	switch rng.IntN(6) {
	case 0:
		r.Payments[0].Rest = true
	case 1:
		for i := range r.Payments {
			r.Payments[i].PaysFee = rng.IntN(2) == 0
		}
	}
	for _, i := range rng.Perm(len(kinds))[:1+rng.IntN(len(kinds))] {
		r.Change = append(r.Change, spend.Change{Script: kinds[i].script(rng.Uint64()), InputWeight: kinds[i].input})
	}
	return r
}

// checkPlan holds a plan against all that is promised.
func checkPlan(r *spend.Request, p *spend.Plan) error {
	byPoint := make(map[wire.OutPoint]*spend.Coin)
	for i := range r.Coins {
		byPoint[r.Coins[i].OutPoint] = &r.Coins[i]
	}
	var in, out int64
	seen := make(map[wire.OutPoint]bool)
	weight := int64(4 * p.Tx.SerializeSizeStripped())
	sigOps, witness := 0, false
	ancestors := make(map[[32]byte]int)
	for i, txIn := range p.Tx.TxIn {
		op := txIn.PreviousOutPoint
		c := byPoint[op]
		switch {
		case c == nil || p.Coins[i].OutPoint != op:
			return fmt.Errorf("input %d is not what it says", i)
		case seen[op]:
			return fmt.Errorf("input %d is there twice", i)
		case c.Closed || c.Unspendable != nil:
			return fmt.Errorf("input %d cannot be spent", i)
		case c.Coinbase && r.Height+1-c.Height < r.Maturity:
			return fmt.Errorf("input %d is immature", i)
		case c.Locked && !slices.Contains(r.Spend, op):
			return fmt.Errorf("input %d is locked", i)
		case c.Height == 0 && !c.Own && !r.Unconfirmed && !slices.Contains(r.Spend, op):
			return fmt.Errorf("input %d is unconfirmed and not ours", i)
		case txIn.Sequence == wire.MaxTxInSequenceNum, (txIn.Sequence < wire.MaxTxInSequenceNum-1) == r.Final:
			return fmt.Errorf("input %d: sequence %x", i, txIn.Sequence)
		}
		seen[op] = true
		in += c.Value
		weight += c.InputWeight - 4*41
		sigOps += c.SigOpCost
		witness = witness || c.Witness
		if c.Ancestors > 0 {
			ancestors[op.Hash] = c.Ancestors
		}
	}
	for op := range seen {
		if c := byPoint[op]; witness && !c.Witness {
			weight++
		}
	}
	if witness {
		weight += 2
	}
	for _, op := range r.Spend {
		if !seen[op] {
			return fmt.Errorf("%s is not spent", op)
		}
	}
	if err := checkTogether(r, seen); err != nil {
		return err
	}
	total := 0
	for _, n := range ancestors {
		total += n
	}
	if total > 24 {
		return fmt.Errorf("%d unconfirmed ancestors", total)
	}
	for i, o := range p.Tx.TxOut {
		out += o.Value
		if o.Value <= 0 || btcpool.IsDust(o, 1000) {
			return fmt.Errorf("output %d of %d is dust", i, o.Value)
		}
		sigOps += 4 * txscript.GetSigOpCount(o.PkScript)
	}
	if in-out != p.Fee {
		return fmt.Errorf("%d in, %d out, fee %d", in, out, p.Fee)
	}
	if weight > spend.MaxWeight {
		return fmt.Errorf("weight %d", weight)
	}
	if want := max(weight, 20*int64(sigOps)); p.Weight != want {
		return fmt.Errorf("weight %d, want %d", p.Weight, want)
	}
	least := r.Rate.Fee(p.Weight)
	if p.Fee < least {
		return fmt.Errorf("fee %d, at least %d for %s", p.Fee, least, r.Rate)
	}
	rest := slices.ContainsFunc(r.Payments, func(p spend.Payment) bool { return p.Rest })
	switch {
	case p.Change >= 0 || rest:
		if p.Fee != least {
			return fmt.Errorf("fee %d, want %d with change", p.Fee, least)
		}
	default: // what is paid too much is less than change would be worth
		most := int64(0)
		for _, c := range r.Change {
			k := c.InputWeight*10_000/4000 + 1 + (8+1+int64(len(c.Script)))*max(int64(r.Rate), 0)/1000 + 700
			most = max(most, k+4)
		}
		if p.Fee > least+most {
			return fmt.Errorf("fee %d, at most %d more than %d without change", p.Fee, most, least)
		}
	}
	if n := len(r.Payments); len(p.Tx.TxOut) != n && (p.Change < 0 || len(p.Tx.TxOut) != n+1) {
		return fmt.Errorf("%d outputs for %d payments, change %d", len(p.Tx.TxOut), n, p.Change)
	}
	outs := slices.Clone(p.Tx.TxOut)
	if p.Change >= 0 {
		if string(outs[p.Change].PkScript) != string(r.Change[p.ChangeOf].Script) {
			return errors.New("change goes elsewhere")
		}
		outs = slices.Delete(outs, p.Change, p.Change+1)
	}
	for i, o := range outs {
		pay := r.Payments[i]
		if string(o.PkScript) != string(pay.Script) || !pay.Rest && !pay.PaysFee && o.Value != pay.Value || pay.PaysFee && o.Value > pay.Value {
			return fmt.Errorf("output %d pays %d for %d", i, o.Value, pay.Value)
		}
	}
	if low := int64(p.Tx.LockTime); r.NoLockTime && low != 0 || !r.NoLockTime && (low > tip || low < tip-100) {
		return fmt.Errorf("lock time %d", low)
	}
	return nil
}

// checkTogether wants all coins of a script to be spent if one is, where that was
// asked for.
func checkTogether(r *spend.Request, spent map[wire.OutPoint]bool) error {
	if !r.ByScript || len(r.Spend) > 0 {
		return nil
	}
	used := make(map[string]bool)
	for _, c := range r.Coins {
		if spent[c.OutPoint] && c.Height <= tip-6 {
			used[string(c.Script)] = true
		}
	}
	for _, c := range r.Coins {
		usable := c.Height > 0 && c.Height <= tip-6 && !c.Locked && !c.Closed && c.Unspendable == nil && (!c.Coinbase || r.Height+1-c.Height >= r.Maturity)
		worth := c.Value > int64(r.Rate)*(max(c.InputWeight, 20*int64(c.SigOpCost))+1)/4000+1
		if used[string(c.Script)] && usable && worth && !spent[c.OutPoint] {
			return fmt.Errorf("%s stays behind, others of its script are spent", c.OutPoint)
		}
	}
	return nil
}

// TestRandomWallets builds transactions of thousands of random wallets.
func TestRandomWallets(t *testing.T) {
	rounds := 6000
	if testing.Short() {
		rounds = 1000
	}
	built, methods := 0, make(map[string]int)
	for seed := range uint64(rounds) {
		rng := rand.New(rand.NewPCG(seed, 1))
		r := randomRequest(rng, 1+rng.IntN(1<<rng.IntN(9)))
		p, err := spend.Build(r)
		if err != nil {
			continue
		}
		built++
		methods[p.Method]++
		if err := checkPlan(&r, p); err != nil {
			t.Errorf("seed %d (%s): %v", seed, p.Method, err)
		}
	}
	if built < rounds/4 {
		t.Errorf("only %d of %d were built", built, rounds)
	}
	for _, method := range []string{"exact", "knapsack", "random", "lightest", "all", "named"} {
		if methods[method] == 0 {
			t.Errorf("no transaction was built by %s: %v", method, methods)
		}
	}
}

// TestDeterministic: the same seed gives the same transaction.
func TestDeterministic(t *testing.T) {
	for seed := range uint64(50) {
		var ids [2]string
		for i := range ids {
			rng := rand.New(rand.NewPCG(seed, 2))
			if p, err := spend.Build(randomRequest(rng, 60)); err == nil {
				ids[i] = p.Tx.TxHash().String()
			}
		}
		if ids[0] != ids[1] {
			t.Fatalf("seed %d: %s and %s", seed, ids[0], ids[1])
		}
	}
}

// TestSuffices: what every subset of few coins can pay is paid, and no way to pay
// it without change wastes less than what was chosen.
func TestSuffices(t *testing.T) {
	exact := 0
	for seed := range uint64(3000) {
		rng := rand.New(rand.NewPCG(seed, 3))
		r := randomRequest(rng, 10)
		r.Spend, r.ByScript, r.Payments = nil, false, r.Payments[:1]
		r.Payments[0].Rest, r.Payments[0].PaysFee = false, false
		one := kinds[rng.IntN(len(kinds))]
		for i := range r.Coins {
			c := &r.Coins[i]
			c.Height, c.Ancestors, c.Coinbase, c.Locked, c.Closed, c.Unspendable = 1, 0, false, false, false, nil
			c.InputWeight, c.SigOpCost, c.Witness = one.input, one.sigOps, one.witness
		}
		best, possible := int64(0), false
		leastWaste, changeless := int64(0), false
		lightWaste, light := int64(0), false
		change := changeFor(&r)
		changeFee := int64(9+len(change.Script)) * int64(r.Rate) / 1000
		spendFee := change.InputWeight * int64(max(3000, min(r.LongTermRate, 10_000))) / 4000
		for set := range 1 << len(r.Coins) {
			var in, n int64
			least := int64(btcutil.MaxSatoshi)
			for i, c := range r.Coins {
				if set>>i&1 == 1 {
					in += c.Value
					n++
					least = min(least, c.Value)
				}
			}
			weight := 4*(10+int64(9+len(r.Payments[0].Script))) + n*one.input
			sigOps := n*int64(one.sigOps) + int64(4*txscript.GetSigOpCount(r.Payments[0].Script))
			if one.witness {
				weight += 2
			}
			if n == 0 {
				continue
			}
			weight = max(weight, 20*sigOps)
			over := in - r.Payments[0].Value - r.Rate.Fee(weight)
			if !possible || over > best {
				best, possible = over, true
			}
			if over >= changeFee+51_000 && r.Rate > 3*r.LongTermRate {
				waste := n*one.input*(int64(r.Rate)-int64(r.LongTermRate))/4000 + changeFee + spendFee
				if !light || waste < lightWaste {
					lightWaste, light = waste, true
				}
			}
			// Rounding takes up to a satoshi an input, and some for the whole. One that
			// could be left out is looked for only by the others.
			slack := n + 3
			needless := over+slack >= least-one.input*int64(r.Rate)/4000
			if over >= slack && over <= changeFee+spendFee-slack && !needless {
				waste := over + n*one.input*(int64(r.Rate)-int64(r.LongTermRate))/4000
				if !changeless || waste < leastWaste {
					leastWaste, changeless = waste, true
				}
			}
		}
		p, err := spend.Build(r)
		var short *spend.ShortError
		switch {
		case err != nil && !errors.As(err, &short):
			t.Fatalf("seed %d: %v", seed, err)
		case err == nil && (!possible || best < 0):
			t.Fatalf("seed %d: built although no coins suffice", seed)
		case err != nil && possible && best > 2*int64(len(r.Coins))+4:
			t.Fatalf("seed %d: %v, although %d are left", seed, err, best)
		case err != nil:
			continue
		}
		if slack := int64(len(r.Coins)) + 8 + int64(r.Rate)/200; light && p.Waste > lightWaste+slack {
			t.Errorf("seed %d: %s wastes %d, the lightest %d", seed, p.Method, p.Waste, lightWaste)
		}
		if !changeless {
			continue
		}
		exact++
		if p.Waste > leastWaste+int64(len(r.Coins))+8+int64(r.Rate)/200 {
			t.Errorf("seed %d: %s wastes %d, without change %d", seed, p.Method, p.Waste, leastWaste)
		}
	}
	if exact < 100 {
		t.Errorf("only %d wallets could do without change", exact)
	}
}

func changeFor(r *spend.Request) spend.Change {
	for _, c := range r.Change {
		for _, p := range r.Payments {
			if txscript.GetScriptClass(c.Script) == txscript.GetScriptClass(p.Script) {
				return c
			}
		}
	}
	return r.Change[0]
}

// TestTerminates: a wallet on which the exact search would take 2^60 steps, and one
// of very many coins.
func TestTerminates(t *testing.T) {
	for _, n := range []int{60, 20_000} {
		r := simpleRequest(50_000_000)
		r.Coins = nil
		for i := range n {
			r.Coins = append(r.Coins, simpleCoin(i, 1_000_000+int64(i)*int64(1+i%7)))
		}
		p, err := spend.Build(r)
		if err != nil {
			t.Fatalf("%d coins: %v", n, err)
		}
		if err := checkPlan(&r, p); err != nil {
			t.Errorf("%d coins: %v", n, err)
		}
	}
}

// simpleCoin is a confirmed P2WPKH output.
func simpleCoin(i int, value int64) spend.Coin {
	k := kinds[2]
	return spend.Coin{OutPoint: wire.OutPoint{Index: uint32(i)}, Value: value, Script: k.script(uint64(i)), Height: 1, InputWeight: k.input, SigOpCost: k.sigOps, Witness: true}
}

// simpleRequest pays value out of three P2WPKH coins of 100,000, 200,000 and
// 300,000.
func simpleRequest(value int64) spend.Request {
	return spend.Request{
		Coins:    []spend.Coin{simpleCoin(0, 100_000), simpleCoin(1, 200_000), simpleCoin(2, 300_000)},
		Payments: []spend.Payment{{Script: kinds[2].script(77), Value: value}},
		Change:   []spend.Change{{Script: kinds[2].script(99), InputWeight: kinds[2].input}, {Script: kinds[4].script(98), InputWeight: kinds[4].input}},
		Rate:     5000, Height: tip, Maturity: maturity, Rand: rand.New(rand.NewPCG(1, 1)),
	}
}

// TestRefusals: what is refused says why.
func TestRefusals(t *testing.T) {
	dust := new(*spend.DustError)
	fee := new(*spend.FeeError)
	short := new(*spend.ShortError)
	for name, c := range map[string]struct {
		edit func(*spend.Request)
		as   any
		want string
	}{
		"too much":       {func(r *spend.Request) { r.Payments[0].Value = 600_000 }, short, "598974 satoshi can be spent after fees, 600210 are needed"},
		"dust":           {func(r *spend.Request) { r.Payments[0].Value = 293 }, dust, "payment 0: 293 satoshi are dust: at least 294 to that kind of script"},
		"rate":           {func(r *spend.Request) { r.Rate = 20_000_000 }, fee, "fee rate of 20000.000 sat/vB is above the cap of 10000.000 sat/vB"},
		"fee":            {func(r *spend.Request) { r.MaxFee = 100 }, fee, "fee of 1045 satoshi is above the cap of 100"},
		"fee of dust":    {func(r *spend.Request) { r.Payments[0].Value, r.Payments[0].PaysFee = 900, true }, dust, "payment 0 less its part of the fee of 705 satoshi: 195 satoshi are dust: at least 294 to that kind of script"},
		"nothing":        {func(r *spend.Request) { r.Payments = nil }, nil, "nothing to pay"},
		"no change":      {func(r *spend.Request) { r.Change = nil }, nil, "no script for change"},
		"odd script":     {func(r *spend.Request) { r.Payments[0].Script = []byte{0x51, 0x52} }, nil, "payment 0: a script of no standard form is not relayed"},
		"unknown":        {func(r *spend.Request) { r.Spend = []wire.OutPoint{{Index: 9}} }, nil, "coin 0000000000000000000000000000000000000000000000000000000000000000:9 is not one of the wallet's"},
		"twice":          {func(r *spend.Request) { r.Coins[1].OutPoint = r.Coins[0].OutPoint }, nil, "coin 0000000000000000000000000000000000000000000000000000000000000000:0 is there twice"},
		"named, too few": {func(r *spend.Request) { r.Spend = []wire.OutPoint{{Index: 0}} }, short, "99450 satoshi can be spent after fees, 150000 are needed"},
		"named, closed": {
			func(r *spend.Request) {
				r.Coins[0].Closed, r.Coins[0].OpenAt, r.Spend = true, 1200, []wire.OutPoint{{Index: 0}}
			}, nil,
			"coin 0000000000000000000000000000000000000000000000000000000000000000:0: time lock, spendable at height 1200",
		},
		"closed": {
			func(r *spend.Request) {
				for i := range r.Coins {
					r.Coins[i].Closed, r.Coins[i].OpenAt = true, 1200+int32(i)
				}
			}, short,
			"0 satoshi can be spent after fees, 150205 are needed; 600000 more under a time lock (spendable at height 1200)",
		},
		"immature": {
			func(r *spend.Request) {
				for i := range r.Coins {
					r.Coins[i].Coinbase, r.Coins[i].Height = true, tip-maturity+2
				}
			}, short,
			"0 satoshi can be spent after fees, 150205 are needed; 600000 more mined and not mature",
		},
		"all locked": {
			func(r *spend.Request) {
				for i := range r.Coins {
					r.Coins[i].Locked = true
				}
			}, short,
			"0 satoshi can be spent after fees, 150205 are needed; 600000 more locked",
		},
		"rest of nothing": {func(r *spend.Request) { r.Coins, r.Payments[0].Rest = nil, true }, short, "0 satoshi can be spent after fees, 1 are needed"},
		"too large": {
			func(r *spend.Request) {
				r.Coins, r.Payments[0].Value, r.Rate = nil, 2_000_000, 1
				for i := range 2000 {
					r.Coins = append(r.Coins, simpleCoin(i, 1010))
				}
			}, nil,
			spend.ErrTooLarge.Error(),
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := simpleRequest(150_000)
			c.edit(&r)
			_, err := spend.Build(r)
			if err == nil || err.Error() != c.want {
				t.Fatalf("got %v\nwant %s", err, c.want)
			}
			if c.as != nil && !errors.As(err, c.as) {
				t.Errorf("%v is a %T", err, err)
			}
		})
	}
}

// TestChangeLooksAlike: change is of the kind that is paid, if the wallet has it.
func TestChangeLooksAlike(t *testing.T) {
	for to, want := range map[int]int{0: 0, 2: 0, 4: 1} {
		r := simpleRequest(30_000)
		r.Payments[0].Script = kinds[to].script(5)
		r.Coins = r.Coins[2:]
		p, err := spend.Build(r)
		if err != nil || p.ChangeOf != want {
			t.Errorf("paying %d: %+v, %v", to, p, err)
		}
	}
}

// TestPlaceOfChange: change and inputs are anywhere.
func TestPlaceOfChange(t *testing.T) {
	places := make(map[int]int)
	for range 200 {
		r := simpleRequest(30_000)
		r.Payments = append(r.Payments, r.Payments[0])
		r.Rand = rand.New(rand.NewPCG(uint64(len(places)), rand.Uint64()))
		p, err := spend.Build(r)
		if err != nil {
			t.Fatal(err)
		}
		places[p.Change]++
	}
	if len(places) != 3 {
		t.Errorf("change was at %v", places)
	}
}

// TestSweep: the rest is all there is, without the fee; of too many coins the most
// valuable.
func TestSweep(t *testing.T) {
	r := simpleRequest(0)
	r.Payments[0].Rest = true
	p, err := spend.Build(r)
	if err != nil || len(p.Tx.TxIn) != 3 || len(p.Tx.TxOut) != 1 || p.Tx.TxOut[0].Value != 600_000-p.Fee || p.Left != 0 {
		t.Fatalf("%+v, %v", p, err)
	}
	r = simpleRequest(0)
	r.Payments[0].Rest, r.Coins = true, nil
	for i := range 3000 {
		r.Coins = append(r.Coins, simpleCoin(i, 10_000+int64(i)))
	}
	p, err = spend.Build(r)
	if err != nil || p.Left == 0 || p.Left+len(p.Tx.TxIn) != 3000 || p.Weight > spend.MaxWeight || p.Weight < spend.MaxWeight-300 {
		t.Fatalf("%+v, %v", p, err)
	}
	for _, in := range p.Tx.TxIn {
		if int(in.PreviousOutPoint.Index) < p.Left {
			t.Fatalf("coin %d is spent, and %d are left", in.PreviousOutPoint.Index, p.Left)
		}
	}
}

// TestByScript: all coins of a script are spent together.
func TestByScript(t *testing.T) {
	r := simpleRequest(50_000)
	r.ByScript = true
	for i := range r.Coins {
		r.Coins[i].Script = r.Coins[0].Script
	}
	p, err := spend.Build(r)
	if err != nil || len(p.Tx.TxIn) != 3 {
		t.Errorf("%+v, %v", p, err)
	}
}

// TestLocks: inputs and the transaction carry the locks that coins want.
func TestLocks(t *testing.T) {
	r := simpleRequest(500_000)
	r.Coins[0].Older, r.Coins[1].After = 144, tip-5
	p, err := spend.Build(r)
	if err != nil || len(p.Tx.TxIn) != 3 || p.Tx.LockTime < tip-5 || p.Tx.Version != 2 {
		t.Fatalf("%+v, %v", p, err)
	}
	for _, in := range p.Tx.TxIn {
		if (in.PreviousOutPoint.Index == 0) != (in.Sequence == 144) {
			t.Errorf("coin %d: sequence %d", in.PreviousOutPoint.Index, in.Sequence)
		}
	}
	r = simpleRequest(500_000)
	r.Coins[0].After, r.Coins[1].After = 1_600_000_000, 5
	if _, err := spend.Build(r); err == nil {
		t.Error("a height and a time are one lock time")
	}
}

// TestDustLimit: what is dust is what the mempool refuses.
func TestDustLimit(t *testing.T) {
	for i, k := range kinds {
		script := k.script(1)
		limit := spend.DustLimit(script)
		if btcpool.IsDust(wire.NewTxOut(limit, script), 1000) || !btcpool.IsDust(wire.NewTxOut(limit-1, script), 1000) {
			t.Errorf("kind %d: limit %d", i, limit)
		}
	}
	if spend.DustLimit([]byte{txscript.OP_RETURN}) != 0 {
		t.Error("data has a limit")
	}
}

// TestExtremes: the largest numbers do not overflow.
func TestExtremes(t *testing.T) {
	r := simpleRequest(btcutil.MaxSatoshi - 1000)
	r.Coins = []spend.Coin{simpleCoin(0, btcutil.MaxSatoshi)}
	r.Rate = 2000
	p, err := spend.Build(r)
	if err != nil {
		t.Fatal(err)
	}
	if err := checkPlan(&r, p); err != nil {
		t.Error(err)
	}
	r.Coins = append(r.Coins, simpleCoin(1, 1))
	if _, err := spend.Build(r); err == nil {
		t.Error("more money than there is")
	}
	r = simpleRequest(1000)
	r.Rate, r.MaxRate, r.MaxFee = 1e12, 1e12, 1<<62
	if _, err := spend.Build(r); err == nil {
		t.Error("a rate that nobody can pay")
	}
}
