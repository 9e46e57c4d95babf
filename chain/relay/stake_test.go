package relay_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/wire/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"dunlin/chain"
	"dunlin/chain/consensus"
	"dunlin/chain/consensus/enginetest"
	"dunlin/chain/consensus/pos"
	"dunlin/chain/relay"
)

// A stakeWorld is a world where stake makes blocks. Any kernel shows any nonce there,
// so that seals can be swapped without 2^32 tries.
type stakeWorld struct {
	*world
	engine enginetest.Lenient
}

func newStakeWorld() *stakeWorld {
	p := consensus.Stakenet()
	s := enginetest.NewStakenet(p)
	b := enginetest.NewBuilder(p)
	e := enginetest.Lenient{Engine: pos.New(p)}
	b.Engine, b.Prepare, b.Seal = e, s.Prepare, s.Seal
	return &stakeWorld{engine: e, world: &world{
		b: b, engine: e, now: time.Unix(1<<32, 0), heights: map[chainhash.Hash]int32{p.GenesisHash: 0},
		have: make(map[chainhash.Hash]bool), invalid: make(map[chainhash.Hash]bool),
	}}
}

// CheckHeader checks the seals of known headers too, as chain.Chain does.
func (w *stakeWorld) CheckHeader(h *consensus.Header) (height int32, known bool, err error) {
	if height, known, err = w.world.CheckHeader(h); !known {
		return height, known, err
	}
	return height, known, w.engine.CheckHeader(w.b.Past(h.PrevBlock), h, w.now)
}

func (w *stakeWorld) judge() *relay.Blocks { return relay.NewBlocks(w.b.Params, w) }

// swapped are the copies of a block with seals that are not its own, and the rule that
// each breaks.
func swapped(b *consensus.Block) map[string][]byte {
	broken := append([]byte(nil), b.Header.Seal...)
	broken[pos.SealBytes-1] ^= 1
	return map[string][]byte{
		"bad-stake-commitment": enginetest.Usurp(b),
		"bad-seal-signature":   enginetest.WithSeal(b, broken),
	}
}

// A copy with another seal is its sender's fault, whole or compact, and takes up no
// place: the block itself is passed on after it.
func TestSwappedSeal(t *testing.T) {
	t.Parallel()
	for _, known := range []bool{false, true} {
		w := newStakeWorld()
		blk := w.large(w.b.Genesis(), 1, 5, 2000)
		if known { // by its header, with its own seal or another
			w.learn(blk)
		}
		judge := w.judge()
		encodings := map[string]func(raw []byte, nonce uint64) []byte{
			"whole": func(raw []byte, _ uint64) []byte { return relay.Encode(raw) },
			"compact": func(raw []byte, nonce uint64) []byte {
				msg, err := relay.MakeAnyCompact(w.b.Params, raw, nonce, nil)
				if err != nil {
					t.Fatal(err)
				}
				return msg
			},
		}
		for rule, raw := range swapped(blk) {
			for name, encode := range encodings {
				for nonce := range uint64(3) {
					v := judge.Check("evil", encode(raw, nonce))
					if v.Result != relay.Reject || v.Reason != rule || v.Raw != nil || v.Compact != nil {
						t.Errorf("%s, %s, known %v: %+v", name, rule, known, v)
					}
				}
			}
		}
		for name, encode := range encodings {
			if v := judge.Check(name, encode(blk.Raw, 9)); name == "whole" && v.Result != relay.Accept || v.Raw == nil && v.Compact == nil {
				t.Errorf("%s, known %v: the block itself: %+v", name, known, v)
			}
		}
	}
}

// A compact block with a false seal and a coinbase made up for it passes the validator.
// It does not keep the block out: with the coinbase that the root wants the seal shows
// to be false, and another encoding completes the block with its own.
func TestAssemblerFalseSeal(t *testing.T) {
	t.Parallel()
	w := newStakeWorld()
	b := newBench(t, relay.AssemblerConfig{})
	b.w = w.world
	a, err := relay.NewAssembler(relay.AssemblerConfig{Params: w.b.Params, Candidates: b.pool, CheckSeal: func(blk *consensus.Block) error {
		if err := w.engine.CheckSignature(&blk.Header); err != nil {
			return err
		}
		return w.engine.CheckBody(blk)
	}})
	if err != nil {
		t.Fatal(err)
	}
	b.a = a
	blk := w.large(w.b.Genesis(), 1, 5, 2000)
	b.blocks["blk"] = blk
	b.pool.add(msgs(blk)...)
	announce := func(raw []byte, nonce uint64) *relay.CompactBlock {
		msg, err := relay.MakeAnyCompact(w.b.Params, raw, nonce, nil)
		if err != nil {
			t.Fatal(err)
		}
		return b.decode(msg)
	}
	deliver := func(actions []relay.Action) (raw []byte) {
		for _, x := range actions {
			if d, ok := x.(relay.Deliver); ok {
				raw = d.Raw
			}
		}
		return raw
	}
	// As a whole it is here, with a seal that is not its own.
	if raw := deliver(b.step(relay.Announced{From: "evil", Block: announce(enginetest.Usurp(blk), 1), Relayed: true})); raw != nil {
		t.Fatal("delivered with a false seal")
	}
	// A whole block with a false one is its sender's fault.
	b.step(relay.Peer{Peer: "liar", Tip: blk.Hash})
	var ask relay.AskBlock
	for range 100 {
		b.now = b.now.Add(200 * time.Millisecond)
		for _, x := range b.step(relay.Tick{}) {
			if k, ok := x.(relay.AskBlock); ok && k.Peer == "liar" {
				ask = k
			}
		}
		if ask.ID != 0 {
			break
		}
	}
	blamed := false
	for _, x := range b.step(relay.GotBlock{ID: ask.ID, Raw: swapped(blk)["bad-seal-signature"]}) {
		if k, ok := x.(relay.Blame); ok && k.Peer == "liar" {
			blamed = true
		}
	}
	if !blamed {
		t.Error("who hands out a block with a false seal is not blamed")
	}
	// The honest encoding, and once more on the topic: the one passed on was false.
	actions := b.step(relay.Announced{From: "good", Block: announce(blk.Raw, 2)})
	if raw := deliver(actions); string(raw) != string(blk.Raw) {
		t.Fatalf("the block itself: %v", actions)
	}
	reflood := false
	for _, x := range actions {
		_, ok := x.(relay.Reflood)
		reflood = reflood || ok
	}
	if !reflood {
		t.Error("only an encoding with a false seal was passed on, and nothing is done about it")
	}
}

// Two headers by one stake in one slot are passed on: they are evidence. More are not,
// also at another height, and they are used all the same.
func TestManyHeadersOfAStake(t *testing.T) {
	t.Parallel()
	w := newStakeWorld()
	parent := w.b.Mine(w.b.Genesis())
	w.learn(parent)
	w.have[parent.Hash] = true
	judge := w.judge()
	for i, want := range []string{"", "", "stake-cap"} {
		blk := w.b.MineTemplate(parent, enginetest.Template{Data: string(rune('a' + i))})
		first := w.b.Mine(parent)
		if a, b := w.claim(t, blk), w.claim(t, first); a != b {
			t.Fatalf("another stake or slot: %+v, %+v", a, b)
		}
		v := judge.Check(string(rune('p'+i)), relay.Encode(blk.Raw))
		if v.Reason != want || v.Raw == nil || (want == "") != (v.Result == relay.Accept) {
			t.Errorf("header %d: %+v", i+1, v)
		}
		// Late copies of one that was passed on are as before.
		if want == "" {
			if v := judge.Check("later", relay.Encode(blk.Raw)); v.Result != relay.Accept {
				t.Errorf("header %d again: %+v", i+1, v)
			}
		}
	}
	if v := judge.Check("s", relay.Encode(w.b.Mine(parent).Raw)); v.Reason != "stake-cap" {
		t.Errorf("a fourth: %s", v.Reason)
	}
	// What is remembered goes with its heights.
	up := parent
	for range 80 {
		blk := w.b.Mine(up)
		w.learn(up)
		w.have[up.Hash] = true
		judge.Check("p", relay.Encode(blk.Raw))
		up = blk
	}
	if n := relay.Stakes(judge); n > 64+3 {
		t.Errorf("%d stakes are remembered", n)
	}
}

// A branch of headers, which cost nothing where stake makes blocks, neither makes the
// real blocks old nor takes their places.
func TestHeadersAheadOfBlocks(t *testing.T) {
	t.Parallel()
	w := newStakeWorld()
	tip := w.b.Mine(w.b.Genesis())
	w.learn(tip)
	w.have[w.b.Genesis().Hash], w.have[tip.Hash] = true, true
	judge := w.judge()
	bare := tip
	for n := range 100 {
		bare = w.b.Mine(bare)
		want := "ahead"
		if n < 2 { // a child of tip, and one above it: its parent may be about to come
			want = ""
		}
		v := judge.Check(fmt.Sprint("evil ", n), relay.Encode(bare.Raw))
		if v.Reason != want || v.Raw == nil || (want == "") != (v.Result == relay.Accept) {
			t.Errorf("header %d: %v, %q, used %t", n+1, v.Result, v.Reason, v.Raw != nil)
		}
		w.learn(bare)
	}
	sound := w.b.MineTemplate(tip, enginetest.Template{Data: "real"})
	if v := judge.Check("good", relay.Encode(sound.Raw)); v.Result != relay.Accept {
		t.Errorf("a block on the tip: %v, %q", v.Result, v.Reason)
	}
	w.learn(sound)
	w.have[sound.Hash] = true
	if v := judge.Check("good", relay.Encode(w.b.Mine(sound).Raw)); v.Result != relay.Accept {
		t.Errorf("the next: %v, %q", v.Result, v.Reason)
	}
	if heights, _, _ := judge.Held(); heights > 3 {
		t.Errorf("%d heights are remembered", heights)
	}
}

// chainHeaders are the headers of a real chain, as a node gives them.
type chainHeaders struct{ *chain.Chain }

func (h chainHeaders) HaveBlock(hash chainhash.Hash) (have, invalid bool) {
	s, ok := h.Status(hash)
	return ok && s.HaveBlock, ok && s.Invalid
}

// Headers on the tip by stake that is not there, or is not mature, or is another's, take no
// place, however many there are: the honest blocks of the height are passed on.
func TestHeadersWithoutStakeOnTheTip(t *testing.T) {
	t.Parallel()
	p := consensus.Stakenet()
	c, err := chain.Open(chain.Options{
		Dir: "home", FS: vfs.NewMem(), Params: p, Engine: pos.New(p), Now: func() time.Time { return time.Unix(1<<32-1, 0) },
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		<-done
		_ = c.Close()
	})
	s := enginetest.NewStakenet(p)
	b := enginetest.NewBuilder(p)
	b.Engine, b.Prepare, b.Seal = pos.New(p), s.Prepare, s.Seal
	tip := b.Mine(b.Genesis())
	ticket, err := c.Submit(ctx, tip.Raw, chain.Source{Kind: chain.FromMiner})
	if err != nil {
		t.Fatal(err)
	}
	if v := ticket.Wait(ctx); v.Outcome != chain.Connected {
		t.Fatalf("%+v", v)
	}
	judge := relay.NewBlocks(p, chainHeaders{c})
	for n := range uint32(50) {
		forger := enginetest.NewForger(p, n)
		if n%2 == 1 { // there is such a coin, of another value and key
			forger = enginetest.NewForgerOf(p, wire.OutPoint{Hash: p.Genesis.Transactions[0].TxHash(), Index: n % 4})
		}
		made := enginetest.NewBuilder(p)
		made.Engine, made.Prepare, made.Seal = pos.New(p), forger.Prepare, forger.Seal
		made.Add(tip)
		parent := tip
		if n%4 >= 2 { // below the tip
			parent = b.Genesis()
		}
		blk := made.MineTemplate(parent, enginetest.Template{Data: fmt.Sprint(n)})
		v := judge.Check(fmt.Sprint("evil ", n), relay.Encode(blk.Raw))
		if v.Result != relay.Ignore || v.Raw != nil || v.Reason != "bad-stake-missing" && v.Reason != "bad-stake-value" {
			t.Fatalf("made up %d: %v, %q", n, v.Result, v.Reason)
		}
	}
	if heights, headers, sources := judge.Held(); heights+headers+sources+relay.Stakes(judge) > 0 {
		t.Errorf("%d heights, %d headers, %d senders and %d stakes are remembered", heights, headers, sources, relay.Stakes(judge))
	}
	for k := range relay.MaxHeadersPerHeight - 1 { // two by one stake are evidence; the third would be capped
		blk := b.MineTemplate(tip, enginetest.Template{Data: fmt.Sprint("honest ", k)})
		if v := judge.Check(fmt.Sprint("honest ", k), relay.Encode(blk.Raw)); v.Result != relay.Accept || v.Raw == nil {
			t.Errorf("an honest block: %v, %q", v.Result, v.Reason)
		}
	}
}

func (w *stakeWorld) claim(t *testing.T, b *consensus.Block) consensus.Claim {
	t.Helper()
	c, ok := w.engine.Claim(&b.Header)
	if !ok {
		t.Fatal("no claim")
	}
	return c
}
