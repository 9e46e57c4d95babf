package staking_test

import (
	"testing"
	"time"

	"github.com/btcsuite/btcd/btcec/v2"
	"github.com/btcsuite/btcd/btcec/v2/schnorr"
	"github.com/btcsuite/btcd/txscript/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"dunlin/chain"
	"dunlin/chain/chaintest"
	"dunlin/chain/consensus"
	"dunlin/chain/consensus/pos"
	"dunlin/chain/mining"
	"dunlin/chain/staking"
)

// What the tests of mining use, too.
var (
	run    = chaintest.Run
	height = chaintest.Height
	block  = chaintest.Block
)

// internal is the n-th key of the tests, key that of its output (BIP86).
func internal(n byte) *btcec.PrivateKey {
	k, _ := btcec.PrivKeyFromBytes([]byte{30: 7, 31: n})
	return k
}

func key(n byte) *btcec.PrivateKey { return txscript.TweakTaprootPrivKey(*internal(n), nil) }

// script pays the n-th key.
func script(n byte) []byte {
	s := pos.Stake{Key: xOnly(key(n))}
	return s.Script()
}

func xOnly(k *btcec.PrivateKey) [32]byte { return [32]byte(schnorr.SerializePubKey(k.PubKey())) }

// network is one of our own with slots of a second, whose holders have keys 1, 2 … and
// so many coins.
func network(t testing.TB, begins time.Time, coins ...int64) *consensus.Params {
	t.Helper()
	c := consensus.Custom{
		Name: "staking-test", GenesisTime: begins, Spacing: consensus.SlotsPerBlock * time.Second,
		HalvingInterval: 1000, Subsidy: 1e7,
	}
	for i, n := range coins {
		c.Holders = append(c.Holders, consensus.Holder{Key: xOnly(key(byte(i + 1))), Value: n * 1e8})
	}
	p, err := consensus.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// open opens and runs a chain.
func open(t testing.TB, p *consensus.Params) *chain.Chain {
	t.Helper()
	c, err := chain.Open(chain.Options{Dir: "home", FS: vfs.NewMem(), Params: p, Engine: pos.New(p), Workers: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	run(t, c.Run)
	return c
}

// holder holds keys whose coins a finder knows.
type holder struct {
	finder *staking.Finder
	keys   map[[32]byte]*btcec.PrivateKey
	locked error
}

func newHolder(c *chain.Chain, keys ...*btcec.PrivateKey) *holder {
	h := &holder{keys: make(map[[32]byte]*btcec.PrivateKey)}
	for _, k := range keys {
		h.keys[xOnly(k)] = k
	}
	h.finder = staking.NewFinder(staking.FinderOptions{Chain: c, Held: func(k [32]byte) bool { return h.keys[k] != nil }})
	return h
}

// Coins implements staking.Holder.
func (h *holder) Coins() ([]staking.Coin, error) { return h.finder.Coins() }

// Ready implements staking.Holder.
func (h *holder) Ready() error { return h.locked }

// Sign implements staking.Holder.
func (h *holder) Sign(s *pos.Stake, header *consensus.Header) ([64]byte, error) {
	hash := consensus.HeaderHash(header)
	sig, err := schnorr.Sign(h.keys[s.Key], hash[:])
	if err != nil {
		return [64]byte{}, err
	}
	return [64]byte(sig.Serialize()), nil
}

// journal opens a journal in memory.
func journal(t testing.TB, fs vfs.FS, slot int64) *staking.Journal {
	t.Helper()
	j, err := staking.OpenJournal(staking.JournalOptions{FS: fs, Dir: "staking", Slot: slot})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = j.Close() })
	return j
}

// slotNow is the present slot.
func slotNow(p *consensus.Params) int64 {
	slot, _ := pos.Slot(p, time.Now().Unix())
	return slot
}

// staker returns a sealer and a miner with these keys, whose coins are followed.
func staker(t testing.TB, c *chain.Chain, h *holder, change func(*staking.Options, *mining.Options)) (*staking.Sealer, *mining.Miner) {
	t.Helper()
	run(t, h.finder.Run)
	p := c.Params()
	o := staking.Options{Params: p, Engine: pos.New(p), Coins: c, Holder: h}
	m := mining.Options{Chain: c, Engine: pos.New(p), Mine: true}
	if change != nil {
		change(&o, &m)
	}
	if o.Journal == nil {
		o.Journal = journal(t, vfs.NewMem(), slotNow(p))
	}
	s, err := staking.NewSealer(o)
	if err != nil {
		t.Fatal(err)
	}
	m.Sealer = s
	miner, err := mining.New(m)
	if err != nil {
		t.Fatal(err)
	}
	return s, miner
}
