package pos_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"math"
	"math/big"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/btcsuite/btcd/blockchain"
	"github.com/btcsuite/btcd/btcec/v2"
	"github.com/btcsuite/btcd/btcec/v2/schnorr"
	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/txscript/v2"
	"github.com/btcsuite/btcd/wire/v2"

	"dunlin/chain/consensus"
	"dunlin/chain/consensus/enginetest"
	"dunlin/chain/consensus/pos"
)

func TestConformance(t *testing.T) {
	t.Parallel()
	p := consensus.Stakenet()
	s := enginetest.NewStakenet(p)
	enginetest.Run(t, enginetest.Fixture{Params: p, Engine: pos.New(p), Prepare: s.Prepare, Seal: s.Seal, Blocks: 48})
}

// farFuture is a clock that no header is ahead of.
var farFuture = time.Unix(1<<32, 0)

// A bench is a chain of some blocks, and a block on it that nobody has seen yet.
type bench struct {
	p      *consensus.Params
	e      *pos.Engine
	s      *enginetest.Stakers
	b      *enginetest.Builder
	parent *consensus.Block
	past   consensus.Past
	coins  enginetest.CoinSet
}

func newBench(t *testing.T, blocks int) *bench {
	t.Helper()
	p := consensus.Stakenet()
	x := &bench{p: p, e: pos.New(p), s: enginetest.NewStakenet(p), b: enginetest.NewBuilder(p)}
	x.b.Engine, x.b.Prepare, x.b.Seal = x.e, x.s.Prepare, x.s.Seal
	x.parent = x.b.Genesis()
	if blocks > 0 {
		made := x.b.MineN(x.parent, blocks)
		x.parent = made[blocks-1]
	}
	x.past, x.coins = x.b.Past(x.parent.Hash), x.b.Coins(x.parent.Hash)
	return x
}

// check gives a header to the engine, then its block.
func (x *bench) check(b *consensus.Block) error {
	if err := x.e.CheckHeader(x.past, &b.Header, farFuture); err != nil {
		return err
	}
	if err := x.e.CheckBody(b); err != nil {
		return err
	}
	return x.e.CheckBlock(x.past, x.coins, b)
}

// rebuild returns the block with another header.
func (x *bench) rebuild(t *testing.T, b *consensus.Block, change func(*consensus.Header)) *consensus.Block {
	t.Helper()
	h := b.Header
	h.Seal = bytes.Clone(h.Seal)
	change(&h)
	txs := make([]*wire.MsgTx, len(b.Txs))
	for i, tx := range b.Txs {
		txs[i] = tx.MsgTx()
	}
	out, err := consensus.NewBlock(x.p, h, txs)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func wantRule(t *testing.T, err error, rule string, blame consensus.Blame) {
	t.Helper()
	var r *consensus.RuleError
	if !errors.As(err, &r) || r.Rule != rule || r.Blame != blame {
		t.Errorf("got %v (%+v), want %s that blames %d", err, r, rule, blame)
	}
}

// foreign is somebody without stake who has a key.
func foreign() *btcec.PrivateKey {
	sum := sha256.Sum256([]byte("nobody"))
	k, _ := btcec.PrivKeyFromBytes(sum[:])
	return k
}

func sign(t *testing.T, h *consensus.Header, stake pos.Stake, k *btcec.PrivateKey) {
	t.Helper()
	hash := consensus.HeaderHash(h)
	sig, err := schnorr.Sign(k, hash[:])
	if err != nil {
		t.Fatal(err)
	}
	h.Seal = stake.Seal([64]byte(sig.Serialize()))
}

// TestAttacks: each is refused at the cheapest check, and the right one is blamed.
func TestAttacks(t *testing.T) {
	t.Parallel()
	x := newBench(t, 5)
	good := x.b.Mine(x.parent)
	if err := x.check(good); err != nil {
		t.Fatal(err)
	}
	stake, _, err := pos.ParseSeal(good.Header.Seal)
	if err != nil {
		t.Fatal(err)
	}
	reseal := func(h *consensus.Header) {
		if err := x.s.Seal(nil, nil, h); err != nil {
			t.Fatal(err)
		}
	}
	slot := x.p.SlotDuration

	t.Run("future slot", func(t *testing.T) {
		now := good.Header.Timestamp.Add(-slot/2 - time.Second)
		wantRule(t, x.e.CheckHeader(x.past, &good.Header, now), "time-too-new", consensus.BlameNobody)
		if err := x.e.CheckHeader(x.past, &good.Header, now.Add(time.Second)); err != nil {
			t.Errorf("half a slot ahead: %v", err)
		}
	})
	t.Run("reused slot", func(t *testing.T) {
		for _, back := range []time.Duration{0, slot} {
			bad := x.rebuild(t, good, func(h *consensus.Header) {
				h.Timestamp = x.parent.Header.Timestamp.Add(-back)
				reseal(h)
			})
			wantRule(t, x.check(bad), "time-too-old", consensus.BlameBlock)
		}
	})
	t.Run("between slots", func(t *testing.T) {
		for _, d := range []time.Duration{-time.Second, time.Second, slot / 2} {
			bad := x.rebuild(t, good, func(h *consensus.Header) {
				h.Timestamp = h.Timestamp.Add(d)
				reseal(h)
			})
			wantRule(t, x.check(bad), "bad-slot", consensus.BlameBlock)
		}
	})
	t.Run("slot that is not won", func(t *testing.T) {
		bad := x.rebuild(t, good, func(h *consensus.Header) {
			h.Timestamp = h.Timestamp.Add(slot)
			reseal(h)
		})
		wantRule(t, x.check(bad), "bad-kernel", consensus.BlameSender)
		// With the nonce of that slot, and until one is not won.
		for n := int64(1); ; n++ {
			at, _ := pos.Slot(x.p, good.Header.Timestamp.Unix())
			k := pos.Kernel(pos.Modifier(x.p, x.past), &stake, at+n)
			if pos.Wins(k, good.Header.Bits, stake.Value) {
				continue
			}
			bad := x.rebuild(t, good, func(h *consensus.Header) {
				h.Timestamp = h.Timestamp.Add(time.Duration(n) * slot)
				h.Nonce = pos.Nonce(k)
				reseal(h)
			})
			wantRule(t, x.check(bad), "high-kernel", consensus.BlameSender)
			break
		}
	})
	t.Run("grinding", func(t *testing.T) {
		// Whatever of the header its maker may choose: the kernel is the same, and the
		// chances of the next block too.
		bare := pos.Modifier(x.p, child(x, good))
		for i := range uint32(64) {
			changed := x.rebuild(t, good, func(h *consensus.Header) {
				h.Version += int32(i)
				h.MerkleRoot[0] = byte(i)
				reseal(h)
			})
			if err := x.e.CheckHeader(x.past, &changed.Header, farFuture); err != nil {
				t.Fatal(err)
			}
			if pos.Modifier(x.p, child(x, changed)) != bare {
				t.Error("the modifier depends on what can be chosen")
			}
			bad := x.rebuild(t, good, func(h *consensus.Header) {
				h.Nonce += i + 1
				reseal(h)
			})
			wantRule(t, x.check(bad), "bad-kernel", consensus.BlameSender)
		}
	})
	t.Run("claimed value", func(t *testing.T) {
		bad := x.rebuild(t, good, func(h *consensus.Header) {
			claim := stake
			claim.Value++
			h.Seal = claim.Seal([64]byte{})
			reseal(h)
		})
		wantRule(t, x.check(bad), "bad-kernel", consensus.BlameSender)
		// Of another kernel with the same nonce (2^32 tries) only the body shows it.
		wantRule(t, x.e.CheckBody(bad), "bad-stake-commitment", consensus.BlameSender)
		for _, v := range []int64{0, -1, 21e14 + 1, math.MinInt64} {
			bad := x.rebuild(t, good, func(h *consensus.Header) {
				claim := stake
				claim.Value = v
				h.Seal = claim.Seal([64]byte{})
			})
			wantRule(t, x.check(bad), "bad-seal-value", consensus.BlameSender)
		}
	})
	t.Run("wrong key", func(t *testing.T) {
		k := foreign()
		bad := x.rebuild(t, good, func(h *consensus.Header) { sign(t, h, stake, k) })
		wantRule(t, x.check(bad), "bad-seal-signature", consensus.BlameSender)
		claim := stake
		copy(claim.Key[:], schnorr.SerializePubKey(k.PubKey()))
		bad = x.rebuild(t, good, func(h *consensus.Header) { sign(t, h, claim, k) })
		wantRule(t, x.check(bad), "bad-kernel", consensus.BlameSender)
		wantRule(t, x.e.CheckBody(bad), "bad-stake-commitment", consensus.BlameSender)
	})
	t.Run("every bit of a seal", func(t *testing.T) {
		for i := range good.Header.Seal {
			bad := x.rebuild(t, good, func(h *consensus.Header) { h.Seal[i] ^= 1 << (i % 8) })
			err := x.check(bad)
			var r *consensus.RuleError
			if !errors.As(err, &r) || r.Blame != consensus.BlameSender || bad.Hash != good.Hash {
				t.Errorf("byte %d: %v", i, err)
			}
		}
	})

	// What the block itself commits to is its own fault.
	commit := func(t *testing.T, claim pos.Stake, k *btcec.PrivateKey) *consensus.Block {
		t.Helper()
		b := x.b
		prepare, seal := b.Prepare, b.Seal
		defer func() { b.Prepare, b.Seal = prepare, seal }()
		b.Prepare = nil
		b.Seal = func(_ consensus.Past, _ consensus.Coins, h *consensus.Header) error {
			sign(t, h, claim, k)
			return nil
		}
		at, _ := pos.Slot(x.p, x.parent.Header.Timestamp.Unix())
		for {
			at++
			kernel := pos.Kernel(pos.Modifier(x.p, x.past), &claim, at)
			bits := x.e.NextBits(x.past, time.Unix(pos.SlotTime(x.p, at), 0))
			if !pos.Wins(kernel, bits, claim.Value) {
				continue
			}
			return b.MineTemplate(x.parent, enginetest.Template{
				Time: time.Unix(pos.SlotTime(x.p, at), 0),
				Change: func(u *enginetest.Unsealed) {
					u.Header.Nonce = pos.Nonce(kernel)
					u.Txs[0].AddTxOut(&wire.TxOut{PkScript: claim.Commitment()})
				},
			})
		}
	}
	key := foreign()
	mine := pos.Stake{Value: 500_000 * 1e8}
	copy(mine.Key[:], schnorr.SerializePubKey(key.PubKey()))
	t.Run("coin that does not exist", func(t *testing.T) {
		claim := mine
		claim.OutPoint.Hash[0] = 7
		wantRule(t, x.check(commit(t, claim, key)), "bad-stake-missing", consensus.BlameBlock)
	})
	t.Run("coin of another", func(t *testing.T) {
		claim := mine
		claim.OutPoint, claim.Value = stake.OutPoint, stake.Value
		wantRule(t, x.check(commit(t, claim, key)), "bad-stake-key", consensus.BlameBlock)
	})
	t.Run("more than the coin is worth", func(t *testing.T) {
		claim := mine
		claim.OutPoint, claim.Value = stake.OutPoint, stake.Value+1
		wantRule(t, x.check(commit(t, claim, key)), "bad-stake-value", consensus.BlameBlock)
	})
	t.Run("immature", func(t *testing.T) {
		claim := mine
		claim.OutPoint = wire.OutPoint{Hash: chainhash.Hash{9}}
		b := commit(t, claim, key)
		for _, c := range []struct {
			height int32
			ok     bool
		}{{6 - 100, true}, {6 - 99, false}, {5, false}, {0, true}} {
			x.coins[claim.OutPoint] = consensus.Coin{Value: claim.Value, Script: claim.Script(), Height: c.height}
			if err := x.check(b); c.ok && err != nil {
				t.Errorf("height %d: %v", c.height, err)
			} else if !c.ok {
				wantRule(t, err, "bad-stake-immature", consensus.BlameBlock)
			}
		}
		delete(x.coins, claim.OutPoint)
	})
	t.Run("spent", func(t *testing.T) {
		coin := x.coins[stake.OutPoint]
		delete(x.coins, stake.OutPoint)
		wantRule(t, x.check(good), "bad-stake-missing", consensus.BlameBlock)
		x.coins[stake.OutPoint] = coin
	})
	t.Run("proposal", func(t *testing.T) {
		// A block that is yet to be signed passes all but that.
		unsigned := x.rebuild(t, good, func(h *consensus.Header) { h.Seal = stake.Seal([64]byte{}) })
		if err := x.e.CheckProposal(x.past, &unsigned.Header, farFuture); err != nil {
			t.Error(err)
		}
		wantRule(t, x.check(unsigned), "bad-seal-signature", consensus.BlameSender)
		bad := x.rebuild(t, unsigned, func(h *consensus.Header) { h.Nonce++ })
		wantRule(t, x.e.CheckProposal(x.past, &bad.Header, farFuture), "bad-kernel", consensus.BlameSender)
	})
	t.Run("disk trouble is nobody's fault", func(t *testing.T) {
		err := x.e.CheckBlock(x.past, brokenCoins{}, good)
		var r *consensus.RuleError
		if err == nil || errors.As(err, &r) {
			t.Errorf("got %v", err)
		}
	})
}

type brokenCoins struct{}

var errDisk = errors.New("disk")

func (brokenCoins) Coin(wire.OutPoint) (consensus.Coin, bool, error) {
	return consensus.Coin{}, false, errDisk
}

// child is the past of a block's children.
func child(x *bench, b *consensus.Block) consensus.Past {
	up := *x.past.(*enginetest.Chain)
	c := up.UpTo(up.Height())
	c.Append(&b.Header)
	return c
}

// TestData: the commitment to the stake is not taken for the text that a block carries,
// whichever stands first.
func TestData(t *testing.T) {
	t.Parallel()
	x := newBench(t, 1)
	for _, text := range []string{"", "70", "a text of thirty-two bytes, too."} {
		for _, first := range []bool{true, false} {
			b := x.b.MineTemplate(x.parent, enginetest.Template{Change: func(u *enginetest.Unsealed) {
				if text == "" {
					return
				}
				script, err := txscript.NullDataScript([]byte(text))
				if err != nil {
					t.Fatal(err)
				}
				outs := &u.Txs[0].TxOut
				if *outs = append(*outs, wire.NewTxOut(0, script)); first {
					slices.Reverse(*outs)
				}
			}})
			if err := x.check(b); err != nil {
				t.Fatal(err)
			}
			if got := consensus.CoinbaseData(b); got != text {
				t.Errorf("%q, want %q", got, text)
			}
		}
	}
}

// TestModifierChains: a kernel of long ago changes every later one, though the
// modifier is made of the last 32 only.
func TestModifierChains(t *testing.T) {
	t.Parallel()
	x := newBench(t, 0)
	first := x.b.Mine(x.parent)
	at, _ := pos.Slot(x.p, first.Header.Timestamp.Unix())
	other := x.b.MineTemplate(x.parent, enginetest.Template{Time: time.Unix(pos.SlotTime(x.p, at+1), 0)})
	tips := []*consensus.Block{first, other}
	for i, b := range tips {
		grown := x.b.MineN(b, 40)
		tips[i] = grown[39]
	}
	a, b := x.b.Past(tips[0].Hash), x.b.Past(tips[1].Hash)
	if pos.Modifier(x.p, a) == pos.Modifier(x.p, b) {
		t.Error("the same modifier 40 blocks later")
	}
	q := consensus.Stakenet()
	q.GenesisHash[0]++
	if pos.Modifier(x.p, a) == pos.Modifier(q, a) {
		t.Error("another network has the same modifier")
	}
}

// A lottery is the engine without blocks: pasts, kernels and bits only.
type lottery struct {
	p     *consensus.Params
	e     *pos.Engine
	chain *enginetest.Chain
	rng   *rand.Rand
}

// run lets stakes play for that many slots, and returns how many blocks each owner
// made and the gaps between blocks in slots. Of several winners of a slot one is
// drawn: whose block others see first is chance.
func (l *lottery) run(slots int64, stakes []pos.Stake, owner []int) (blocks, gaps []int) {
	last := int64(0)
	for slot := int64(1); slot <= slots; slot++ {
		modifier := pos.Modifier(l.p, l.chain)
		bits := l.e.NextBits(l.chain, time.Unix(pos.SlotTime(l.p, slot), 0))
		winner, kernel, n := -1, chainhash.Hash{}, 0
		for i := range stakes {
			k := pos.Kernel(modifier, &stakes[i], slot)
			if !pos.Wins(k, bits, stakes[i].Value) {
				continue
			}
			if n++; l.rng.IntN(n) == 0 {
				winner, kernel = i, k
			}
		}
		if n == 0 {
			continue
		}
		h := consensus.Header{}
		h.Version, h.Bits, h.Nonce, h.PrevBlock = 4, bits, pos.Nonce(kernel), l.chain.Hash()
		h.Timestamp = time.Unix(pos.SlotTime(l.p, slot), 0)
		l.chain.Append(&h)
		for len(blocks) <= owner[winner] {
			blocks = append(blocks, 0)
		}
		blocks[owner[winner]]++
		gaps = append(gaps, int(slot-last))
		last = slot
	}
	return blocks, gaps
}

func newLottery(seed uint64) *lottery {
	p := consensus.Stakenet()
	// Another genesis for each seed: kernels depend on nothing else that is free.
	p.GenesisHash = chainhash.Hash(sha256.Sum256([]byte{byte(seed)}))
	return &lottery{p: p, e: pos.New(p), chain: enginetest.NewChain(p), rng: rand.New(rand.NewPCG(seed, 1))}
}

// chiSquare returns the statistic of Pearson's test.
func chiSquare(seen []int, want []float64) (x float64) {
	for i, w := range want {
		d := float64(seen[i]) - w
		x += d * d / w
	}
	return x
}

// TestShares: over 20,000 slots the shares of blocks are those of the stakes, the gaps
// between blocks are those of a lottery at every fourth slot, and who splits his stake
// in a hundred coins gains nothing.
func TestShares(t *testing.T) {
	t.Parallel()
	const slots = 20_000
	shares := []float64{0.50, 0.30, 0.15, 0.05}
	seeds := uint64(2)
	if testing.Short() {
		seeds = 1
	}
	for seed := range seeds {
		// Half of all, in one coin and in a hundred.
		for _, parts := range []int{1, 100} {
			l := newLottery(seed)
			var stakes []pos.Stake
			var owner []int
			for i, share := range shares {
				n := 1
				if i == 0 {
					n = parts
				}
				for k := range n {
					s := pos.Stake{Value: int64(1_000_000e8*share) / int64(n)}
					s.OutPoint.Hash[0], s.OutPoint.Index = byte(i), uint32(k)
					stakes, owner = append(stakes, s), append(owner, i)
				}
			}
			blocks, gaps := l.run(slots, stakes, owner)
			total := len(gaps)
			want := make([]float64, len(shares))
			for i := range shares {
				want[i] = shares[i] * float64(total)
			}
			// 11.345 is the 99th percentile with three degrees of freedom.
			x := chiSquare(blocks, want)
			t.Logf("seed %d, the first in %d coins: blocks %v of %d, chi-square %.2f (3 degrees of freedom, p > 0.01 below 11.345)", seed, parts, blocks, total, x)
			if x > 11.345 {
				t.Errorf("seed %d, %d coins: the shares %v are not those of the stakes %v", seed, parts, blocks, want)
			}

			// Gaps of 1 to 19 slots, and of 20 or more: geometric with one in four.
			const bins = 20
			seen, expected := make([]int, bins), make([]float64, bins)
			rest := 1.0
			for i := range bins - 1 {
				expected[i] = rest * 0.25 * float64(total)
				rest *= 0.75
			}
			expected[bins-1] = rest * float64(total)
			for _, g := range gaps {
				seen[min(g, bins)-1]++
			}
			// 36.191 is the 99th percentile with 19 degrees of freedom.
			if x := chiSquare(seen, expected); x > 36.191 {
				t.Errorf("seed %d, %d coins: the gaps %v are not %v (chi-square %.2f)", seed, parts, seen, expected, x)
			}
			if rate := float64(total) / slots; math.Abs(rate-0.25) > 0.01 {
				t.Errorf("seed %d: %.3f blocks a slot", seed, rate)
			}
		}
	}
}

// TestStakeLeaves: when half of the stake no longer takes part, blocks come half as
// often at first and as before in a while.
func TestStakeLeaves(t *testing.T) {
	t.Parallel()
	l := newLottery(9)
	stakes := []pos.Stake{{Value: 500_000e8}, {Value: 500_000e8}}
	stakes[1].OutPoint.Index = 1
	owner := []int{0, 1}
	if _, gaps := l.run(4_000, stakes, owner); math.Abs(float64(len(gaps))/4_000-0.25) > 0.03 {
		t.Fatalf("%d blocks in 4,000 slots", len(gaps))
	}
	gone := l.continueFrom(4_000, 12_000, stakes[:1])
	if share := float64(gone) / 8_000; math.Abs(share-0.25) > 0.04 {
		t.Errorf("%.3f blocks a slot after half of the stake has left", share)
	}
}

// continueFrom plays on and returns how many blocks there were.
func (l *lottery) continueFrom(from, to int64, stakes []pos.Stake) int {
	n := 0
	for slot := from + 1; slot <= to; slot++ {
		when := time.Unix(pos.SlotTime(l.p, slot), 0)
		if _, kernel, ok := l.e.Winner(l.chain, slot, stakes); ok {
			h := consensus.Header{}
			h.Version, h.Bits, h.Nonce, h.PrevBlock, h.Timestamp = 4, l.e.NextBits(l.chain, when), pos.Nonce(kernel), l.chain.Hash(), when
			l.chain.Append(&h)
			n++
		}
	}
	return n
}

// TestPause: a network that stood still for a year, or that began a year after its
// genesis, goes on as if it had not: whoever has half of the stake does not win every
// slot until the blocks of that year are there.
func TestPause(t *testing.T) {
	t.Parallel()
	const year = 365 * 24 * 3600 / 16
	l := newLottery(3)
	stakes := []pos.Stake{{Value: 500_000e8}, {Value: 500_000e8}}
	stakes[1].OutPoint.Index = 1
	for from := int64(year); from < 3*year; from += year {
		if n := l.continueFrom(from, from+400, stakes); n < 60 || n > 180 { // a hundred, and some for the pause
			t.Errorf("%d blocks in the 400 slots after a pause", n)
		}
		if n := l.continueFrom(from+400, from+2400, stakes); n < 400 || n > 600 {
			t.Errorf("%d blocks in 2,000 slots later", n)
		}
	}
}

// TestMostLeave: a hundredth of the stake that is left alone makes blocks at the old
// rate before long.
func TestMostLeave(t *testing.T) {
	t.Parallel()
	l := newLottery(4)
	stakes := []pos.Stake{{Value: 990_000e8}, {Value: 10_000e8}}
	stakes[1].OutPoint.Index = 1
	if n := l.continueFrom(0, 1_000, stakes); n < 200 {
		t.Fatalf("%d blocks in 1,000 slots", n)
	}
	for from := int64(1_000); ; from += 100 {
		if n := l.continueFrom(from, from+100, stakes[1:]); n >= 25 {
			t.Logf("after %d slots", from+100-1_000)
			break
		}
		if from > 1_000+4*1_000 {
			t.Fatalf("no 25 blocks in 100 slots until slot %d", from)
		}
	}
}

// A kernel wins if, as a number, it is below target times value: by math/big, for targets
// of every size and kernels around the limit.
func TestWins(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(3, 4))
	one := big.NewInt(1)
	for exponent := range uint32(256) {
		for k := range 60 {
			bits := exponent<<24 | rng.Uint32()>>(8+rng.IntN(24))
			value := rng.Int64() >> rng.IntN(63)
			if k%10 == 0 {
				value = []int64{-1, 0, 1, math.MaxInt64, math.MinInt64, 21e14}[rng.IntN(6)]
			}
			limit := blockchain.CompactToBig(bits)
			positive := limit.Sign() > 0
			limit.Mul(limit, big.NewInt(value))
			for _, number := range []*big.Int{limit, new(big.Int).Sub(limit, one), new(big.Int).Add(limit, one), new(big.Int), new(big.Int).Rsh(limit, 1)} {
				if number.Sign() < 0 || number.BitLen() > 256 {
					number = new(big.Int).Sub(new(big.Int).Lsh(one, 256), one)
				}
				var kernel chainhash.Hash
				number.FillBytes(kernel[:])
				slices.Reverse(kernel[:])
				if got, want := pos.Wins(kernel, bits, value), positive && number.Cmp(limit) < 0; got != want {
					t.Fatalf("kernel %x with bits %08x and %d satoshi: wins %v, want %v", number, bits, value, got, want)
				}
			}
		}
	}
}

func TestSealRoundTrip(t *testing.T) {
	t.Parallel()
	s := pos.Stake{OutPoint: wire.OutPoint{Hash: chainhash.Hash{1, 2}, Index: 3}, Value: 4e8, Key: [32]byte{5}}
	raw := s.Seal([64]byte{6})
	if len(raw) != pos.SealBytes || len(raw) != consensus.Stakenet().SealBytes {
		t.Fatalf("%d bytes", len(raw))
	}
	got, sig, err := pos.ParseSeal(raw)
	if err != nil || got != s || sig != [64]byte{6} {
		t.Errorf("%+v %x %v", got, sig, err)
	}
	for _, n := range []int{0, pos.SealBytes - 1, pos.SealBytes + 1} {
		_, _, err := pos.ParseSeal(make([]byte, n))
		wantRule(t, err, "bad-seal", consensus.BlameSender)
	}
}

func FuzzParseSeal(f *testing.F) {
	s := pos.Stake{Value: 1}
	f.Add(s.Seal([64]byte{}))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, sig, err := pos.ParseSeal(b)
		if err == nil && !bytes.Equal(s.Seal(sig), b) {
			t.Error("another seal")
		}
	})
}
