package chain_test

import (
	"bytes"
	"errors"
	"log/slog"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/btcsuite/btcd/btcec/v2"
	"github.com/btcsuite/btcd/btcec/v2/schnorr"
	"github.com/btcsuite/btcd/txscript/v2"
	"github.com/btcsuite/btcd/wire/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"dunlin/chain"
	"dunlin/chain/consensus"
	"dunlin/chain/consensus/enginetest"
	"dunlin/chain/consensus/pos"
)

// stakers returns a builder of stakenet's blocks with n of them.
func stakers(p *consensus.Params, n int) (*enginetest.Builder, []*consensus.Block) {
	s := enginetest.NewStakenet(p)
	b := enginetest.NewBuilder(p)
	b.Engine, b.Prepare, b.Seal = pos.New(p), s.Prepare, s.Seal
	return b, append([]*consensus.Block{b.Genesis()}, b.MineN(b.Genesis(), n)...)
}

func openStakenet(t *testing.T, p *consensus.Params) *home {
	t.Helper()
	return open(t, func(o *chain.Options) { o.Params, o.Engine = p, pos.New(p) })
}

func decodeHeader(t *testing.T, p *consensus.Params, raw []byte) consensus.Header {
	t.Helper()
	h, err := consensus.DecodeHeader(p, raw[:consensus.HeaderBytes+p.SealBytes])
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func asRuleError(err error) *consensus.RuleError {
	var r *consensus.RuleError
	errors.As(err, &r)
	return r
}

func TestStakeChain(t *testing.T) {
	p := consensus.Stakenet()
	b, blocks := stakers(p, 60)
	h := openStakenet(t, p)
	h.connectAll(blocks[1:])
	h.wantTip(blocks[60])
	h.reopen()
	h.wantTip(blocks[60])
	// Initial stake is money like any other, from the first block on.
	secret := consensus.StakenetKey(4)
	priv, _ := btcec.PrivKeyFromBytes(secret[:])
	genesis := blocks[0].Txs[0]
	out := genesis.MsgTx().TxOut[3]
	tx := wire.NewMsgTx(2)
	tx.AddTxIn(&wire.TxIn{PreviousOutPoint: wire.OutPoint{Hash: *genesis.Hash(), Index: 3}})
	tx.AddTxOut(wire.NewTxOut(out.Value-1000, out.PkScript))
	fetcher := txscript.NewCannedPrevOutputFetcher(out.PkScript, out.Value)
	witness, err := txscript.TaprootWitnessSignature(tx, txscript.NewTxSigHashes(tx, fetcher), 0, out.Value, out.PkScript, txscript.SigHashDefault, priv)
	if err != nil {
		t.Fatal(err)
	}
	tx.TxIn[0].Witness = witness
	spend := b.Mine(blocks[60], tx)
	h.connectAll([]*consensus.Block{spend})
	h.wantTip(spend)
	// A longer branch takes it back: the initial stake is there again.
	branch := b.MineN(blocks[60], 3)
	for _, x := range branch {
		h.submit(x.Raw)
	}
	h.wantTip(branch[2])
	if v := h.submit(b.Mine(branch[2], tx).Raw); v.Outcome != chain.Connected {
		t.Errorf("spent again on the other branch: %+v", v)
	}
	want, _ := h.Tip()
	h.o.Reindex = true
	h.reopen()
	h.o.Reindex = false
	if got, _ := h.Tip(); got.Hash != want.Hash {
		t.Errorf("reindexed to %v at height %d, the tip was %v", got.Hash, got.Height, want.Hash)
	}
}

// A header with a false seal keeps nobody out: the block with the right one takes its
// place, and only senders are blamed.
func TestFalseSeal(t *testing.T) {
	p := consensus.Stakenet()
	_, blocks := stakers(p, 5)
	h := open(t, func(o *chain.Options) { o.Params, o.Engine = p, enginetest.Lenient{Engine: pos.New(p)} })
	h.connectAll(blocks[1:4])
	last := blocks[5]
	usurped := enginetest.Usurp(last)
	false1 := decodeHeader(t, p, usurped)
	// On the tip its stake would be looked for.
	if n, _, err := h.AcceptHeaders(t.Context(), []consensus.Header{blocks[4].Header, false1}); n != 2 || err != nil {
		t.Fatal(n, err)
	}
	h.connectAll(blocks[4:5])
	// The header of the same hash with the right seal, with a broken one.
	if height, known, err := h.CheckHeader(&last.Header); height != 5 || !known || err != nil {
		t.Errorf("the right seal: %d %t %v", height, known, err)
	}
	broken := last.Header
	broken.Seal = bytes.Clone(broken.Seal)
	broken.Seal[139] ^= 1
	_, known, err := h.CheckHeader(&broken)
	if !known {
		t.Error("the header is known")
	}
	wantBlame(t, err, "bad-seal-signature", consensus.BlameSender)

	v := h.submit(usurped)
	wantBlame(t, v.Err, "bad-stake-commitment", consensus.BlameSender)
	v = h.submit(enginetest.WithSeal(last, broken.Seal))
	wantBlame(t, v.Err, "bad-seal-signature", consensus.BlameSender)
	if v := h.submit(last.Raw); v.Outcome != chain.Connected {
		t.Fatalf("the block with its own seal: %+v", v)
	}
	h.reopen()
	h.wantTip(last)
	_, _, raw, err := h.HeadersAfter(nil, nil, 2000)
	if err != nil || !bytes.HasSuffix(raw, last.Header.Seal) {
		t.Errorf("the header is served with another seal (%v)", err)
	}
	// Once the block is there, no other seal is anything but a false one.
	if v := h.submit(usurped); v.Outcome != chain.Duplicate {
		t.Errorf("the block again, with a false seal: %+v", v)
	}
}

// The seal of a block that was written and not yet committed takes, after a crash, the
// place of a false one that the index has.
func TestFalseSealAndACrash(t *testing.T) {
	p := consensus.Stakenet()
	_, blocks := stakers(p, 6)
	h := open(t, func(o *chain.Options) {
		o.Params, o.Engine = p, enginetest.Lenient{Engine: pos.New(p)}
		o.FS, o.FlushInterval = vfs.NewCrashableMem(), time.Hour
	})
	h.connectAll(blocks[1:4])
	usurped := decodeHeader(t, p, enginetest.Usurp(blocks[5]))
	if n, _, err := h.AcceptHeaders(t.Context(), []consensus.Header{blocks[4].Header, usurped, blocks[6].Header}); n != 3 || err != nil {
		t.Fatal(n, err)
	}
	// So the index has the headers below it. It is the operator's, which outlives a crash before it is connected.
	if v := h.submitFrom(blocks[6].Raw, chain.Source{Kind: chain.FromRPC}); v.Outcome != chain.Stored {
		t.Fatalf("%+v", v)
	}
	if err := h.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	seal := func() []byte {
		t.Helper()
		seal, err := h.Seal(blocks[5].Hash)
		if err != nil {
			t.Fatal(err)
		}
		return seal
	}
	if !bytes.Equal(seal(), usurped.Seal) {
		t.Fatal("the header is not there with the false seal: this shows nothing")
	}
	h.want(blocks[4], chain.Connected)
	h.want(blocks[5], chain.Connected)
	clone := h.o.FS.(*vfs.MemFS).CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rand.New(rand.NewPCG(0, 0))})
	h.close()
	h.o.FS = clone
	h.start()
	h.wantTip(blocks[6])
	for range 2 {
		if !bytes.Equal(seal(), blocks[5].Header.Seal) {
			t.Error("the header has the false seal")
		}
		h.reopen()
	}
}

// The seal that made a block is known as long as its header is, and can be said in the
// log's line about it.
func TestSealOfABlock(t *testing.T) {
	p := consensus.Stakenet()
	_, blocks := stakers(p, 3)
	h := open(t, func(o *chain.Options) {
		o.Params, o.Engine = p, pos.New(p)
		o.BlockFacts = func(h *consensus.Header, height int32) []slog.Attr {
			return []slog.Attr{slog.Int("seal_bytes", len(h.Seal)), slog.Int("of", int(height))}
		}
	})
	h.connectAll(blocks[1:])
	for range 2 {
		for _, b := range blocks {
			if got, err := h.Seal(b.Hash); err != nil || !bytes.Equal(got, b.Header.Seal) {
				t.Errorf("seal of %v: %x, %v", b.Hash, got, err)
			}
		}
		if _, err := h.Seal(blocks[3].Header.MerkleRoot); !errors.Is(err, chain.ErrNotFound) {
			t.Errorf("seal of an unknown block: %v", err)
		}
		h.reopen()
	}
	if l := h.log.with("msg=block ", "height=3", "seal_bytes=140", "of=3"); len(l) != 1 {
		t.Errorf("lines of block 3: %q", h.log.with("height=3"))
	}
}

func wantBlame(t *testing.T, err error, rule string, blame consensus.Blame) {
	t.Helper()
	checkRule(t, err, rule)
	if r := asRuleError(err); r != nil && r.Blame != blame {
		t.Errorf("%v blames %d, want %d", err, r.Blame, blame)
	}
}

// No branch of headers is further than HeadersAhead past the validated chain, however
// they come; what precedes is kept, nobody is blamed, and there is room as blocks follow.
func TestHeadersAhead(t *testing.T) {
	const ahead = 30
	p := consensus.Stakenet()
	b, blocks := stakers(p, 80)
	h := open(t, func(o *chain.Options) { o.Params, o.Engine, o.HeadersAhead = p, pos.New(p), ahead })
	accept := func(want, height int, blocks []*consensus.Block, rule string) {
		t.Helper()
		n, last, err := h.AcceptHeaders(t.Context(), headersOf(blocks))
		if rule == "" && err != nil {
			t.Fatal(err)
		} else if rule != "" {
			wantBlame(t, err, rule, consensus.BlameNobody)
		}
		if n != want || height >= 0 && last.Height != int32(height) {
			t.Fatalf("%d added up to height %d, want %d up to %d", n, last.Height, want, height)
		}
	}
	if h.HeaderLimit() != ahead {
		t.Errorf("limit %d", h.HeaderLimit())
	}
	accept(ahead-1, ahead-1, blocks[1:ahead], "")
	accept(1, ahead, blocks[1:], "headers-too-far-ahead")
	accept(0, -1, blocks[ahead+1:], "headers-too-far-ahead")
	next := blocks[ahead+1]
	_, _, err := h.CheckHeader(&next.Header)
	wantBlame(t, err, "headers-too-far-ahead", consensus.BlameNobody)
	for _, kind := range []chain.SourceKind{chain.FromGossip, chain.FromSync} {
		v := h.submitFrom(next.Raw, chain.Source{Kind: kind, Peer: "peer1"})
		wantBlame(t, v.Err, "headers-too-far-ahead", consensus.BlameNobody)
	}
	// Nothing of it is looked at: not even whether it is signed.
	forged := next.Header
	forged.Seal = make([]byte, len(forged.Seal))
	_, _, err = h.AcceptHeaders(t.Context(), []consensus.Header{forged})
	wantBlame(t, err, "headers-too-far-ahead", consensus.BlameNobody)

	h.connectAll(blocks[1:11])
	if h.HeaderLimit() != ahead+10 {
		t.Errorf("limit %d", h.HeaderLimit())
	}
	accept(10, ahead+10, blocks[1:], "headers-too-far-ahead")
	// Another branch is as long from where it leaves.
	accept(ahead, 5+ahead, b.MineN(blocks[5], ahead+5), "headers-too-far-ahead")
	h.reopen() // without the headers, which nothing proves
	accept(0, -1, blocks[ahead+11:], "unknown-parent")
	accept(ahead, ahead+10, blocks[1:], "headers-too-far-ahead")
	h.connectAll(blocks[11:41])
	accept(30, 70, blocks[41:], "headers-too-far-ahead")
	h.connectAll(blocks[41:])
	h.wantTip(blocks[80])

	// To show more work in two passes a branch has as many headers.
	pre, ok := h.NewPresync(blocks[0].Hash)
	if !ok {
		t.Fatal("no presync")
	}
	long := headersOf(b.MineN(blocks[0], ahead+1))
	if err := pre.Check(t.Context(), long[:ahead]); err != nil {
		t.Fatal(err)
	}
	wantBlame(t, pre.Check(t.Context(), long[ahead:]), "too-many-headers", consensus.BlameNobody)
}

// Signatures of headers are checked many at a time: what comes before the first false
// one is kept all the same, and its sender is blamed.
func TestFalseSignatureAmongMany(t *testing.T) {
	p := consensus.Stakenet()
	_, blocks := stakers(p, 200)
	for _, at := range [][]int{{0}, {63}, {64, 70}, {99, 100}, {150, 20}, {199}} {
		h := openStakenet(t, p)
		hs := headersOf(blocks[1:])
		first := len(hs)
		for _, k := range at {
			hs[k].Seal = bytes.Clone(hs[k].Seal)
			hs[k].Seal[100] ^= 4
			first = min(first, k)
		}
		n, _, err := h.AcceptHeaders(t.Context(), hs)
		wantBlame(t, err, "bad-seal-signature", consensus.BlameSender)
		if best, _ := h.BestHeader(); n != first || int(best.Height) != first {
			t.Errorf("false at %v: %d added, the best is at height %d", at, n, best.Height)
		}
		check := func() error {
			look, ok := h.NewPresync(p.GenesisHash)
			if !ok {
				t.Fatal("no presync above genesis")
			}
			return look.Check(t.Context(), hs)
		}
		wantBlame(t, check(), "bad-seal-signature", consensus.BlameSender)
		// What broke a rule before the signature counts first if it comes first.
		hs[10].Bits++
		if first > 10 {
			wantBlame(t, check(), "bad-diffbits", consensus.BlameBlock)
		} else {
			wantBlame(t, check(), "bad-seal-signature", consensus.BlameSender)
		}
		if first > 10 {
			h2 := openStakenet(t, p)
			n, _, err := h2.AcceptHeaders(t.Context(), hs)
			wantBlame(t, err, "bad-diffbits", consensus.BlameBlock)
			if n != 10 {
				t.Errorf("%d added, want 10", n)
			}
		}
	}
}

// Two blocks by one stake in one slot are told of once, when one of them has shown that
// the stake is its owner's; both stay valid, and the first seen is the tip.
func TestDoubleStake(t *testing.T) {
	p := consensus.Stakenet()
	b, blocks := stakers(p, 3)
	h := openStakenet(t, p)
	h.connectAll(blocks[1:])
	twin := func(name string) *consensus.Block {
		return b.MineTemplate(blocks[3], enginetest.Template{Data: name})
	}
	x, y, z := twin("x"), twin("y"), twin("z")
	engine := pos.New(p)
	claim, _ := engine.Claim(&x.Header)
	if other, _ := engine.Claim(&y.Header); other != claim || x.Hash == y.Hash {
		t.Fatal("the blocks are not by one stake in one slot")
	}
	evidence := func(want int) []chain.DoubleStake {
		t.Helper()
		list, total, _ := h.DoubleStakes()
		if total != want || len(list) != want || len(h.log.with("a stake signed two blocks for one slot")) != want {
			t.Fatalf("%d cases of %d, %d lines, want %d", len(list), total, len(h.log.with("two blocks")), want)
		}
		return list
	}
	// Headers alone show nothing.
	for _, blk := range []*consensus.Block{x, y} {
		if _, _, err := h.AcceptHeaders(t.Context(), headersOf([]*consensus.Block{blk})); err != nil {
			t.Fatal(err)
		}
	}
	evidence(0)
	_, _, changed := h.DoubleStakes()
	if v := h.submit(y.Raw); v.Outcome != chain.Connected {
		t.Fatalf("%+v", v)
	}
	<-changed
	if d := evidence(1)[0]; d.Claim != claim || d.First != x.Hash || d.Second != y.Hash || d.Height != 4 {
		t.Errorf("%+v", d)
	}
	for _, blk := range []*consensus.Block{x, z} {
		if v := h.submit(blk.Raw); v.Outcome != chain.SideChain {
			t.Errorf("%+v", v)
		}
	}
	evidence(1)
	h.wantTip(y)

	// Whoever claims somebody else's coin with his own key shows nothing of its owner.
	next := b.Mine(y)
	key, _ := btcec.PrivKeyFromBytes([]byte{31: 7})
	stake, _, err := pos.ParseSeal(next.Header.Seal)
	if err != nil {
		t.Fatal(err)
	}
	false1 := forgeChild(t, b, y, stake.OutPoint, key, "1")
	false2 := forgeChild(t, b, y, stake.OutPoint, key, "2")
	for _, blk := range []*consensus.Block{false1, false2} {
		_, _, err := h.AcceptHeaders(t.Context(), headersOf([]*consensus.Block{blk}))
		wantBlame(t, err, "bad-stake-value", consensus.BlameNobody)
		wantBlame(t, h.submit(blk.Raw).Err, "bad-stake-value", consensus.BlameBlock)
	}
	h.connectAll([]*consensus.Block{next})
	evidence(1)
}

// A header is evidence only of what the seal claims that its block has: with 2^32 hashes its
// maker can send it with another one first. And of many headers by one stake the one
// that is validated need not be among the first.
func TestDoubleStakeProven(t *testing.T) {
	p := consensus.Stakenet()
	b, blocks := stakers(p, 5)
	h := open(t, func(o *chain.Options) { o.Params, o.Engine = p, enginetest.Lenient{Engine: pos.New(p)} })
	h.connectAll(blocks[1:4])
	total := func(want int) []chain.DoubleStake {
		t.Helper()
		list, total, _ := h.DoubleStakes()
		if total != want {
			t.Fatalf("%d cases, want %d: %+v", total, want, list)
		}
		return list
	}
	other := b.MineTemplate(blocks[4], enginetest.Template{Data: "other"})
	for _, blk := range []*consensus.Block{blocks[5], other} {
		usurped := decodeHeader(t, p, enginetest.Usurp(blk))
		if _, last, err := h.AcceptHeaders(t.Context(), []consensus.Header{blocks[4].Header, usurped}); err != nil || last.Hash != blk.Hash {
			t.Fatal(last, err)
		}
		if blk == blocks[5] {
			h.connectAll(blocks[4:])
		}
	}
	total(0)

	var twins []*consensus.Block
	for _, name := range []string{"x", "y", "z"} {
		twins = append(twins, b.MineTemplate(blocks[5], enginetest.Template{Data: name}))
	}
	for _, blk := range twins[:2] {
		if _, _, err := h.AcceptHeaders(t.Context(), headersOf([]*consensus.Block{blk})); err != nil {
			t.Fatal(err)
		}
	}
	h.connectAll(twins[2:])
	if d := total(1)[0]; d.First != twins[0].Hash || d.Second != twins[2].Hash {
		t.Errorf("%+v", d)
	}
}

// Claims of made-up headers, however many, push out none of a stake that is there, be that
// seen with the header or with the block.
func TestDoubleStakeAmongJunk(t *testing.T) {
	p := consensus.Stakenet()
	b, blocks := stakers(p, 4)
	next := b.Mine(blocks[4])
	last := b.Mine(next)
	h := open(t, func(o *chain.Options) {
		o.Params, o.Engine, o.Now = p, pos.New(p), func() time.Time { return last.Header.Timestamp.Add(time.Hour) }
	})
	h.connectAll(blocks[1:4])
	cases := func(want int) {
		t.Helper()
		if list, total, _ := h.DoubleStakes(); total != want || len(list) != want {
			t.Fatalf("%d cases, want %d: %+v", total, want, list)
		}
	}
	twin := func(parent *consensus.Block) { // its header
		t.Helper()
		other := b.MineTemplate(parent, enginetest.Template{Data: "twin"})
		if n, _, err := h.AcceptHeaders(t.Context(), headersOf([]*consensus.Block{other})); n != 1 || err != nil {
			t.Fatal(n, err)
		}
	}
	h.connectAll(blocks[4:])
	twin(blocks[4])
	// All the money there is wins every slot.
	slot, _ := pos.Slot(p, last.Header.Timestamp.Unix())
	nobody, _ := btcec.PrivKeyFromBytes([]byte{31: 7})
	for k := range uint32(1<<10 + 1) {
		lie := pos.Stake{OutPoint: wire.OutPoint{Index: k}, Value: 21e14}
		copy(lie.Key[:], schnorr.SerializePubKey(nobody.PubKey()))
		header := headersOf([]*consensus.Block{childOfSlot(t, b, blocks[2], slot+2, lie, nobody, "")})
		if n, _, err := h.AcceptHeaders(t.Context(), header); n != 1 || err != nil {
			t.Fatal(n, err)
		}
	}
	cases(0)
	twin(blocks[3])
	cases(1)
	h.connectAll([]*consensus.Block{next})
	cases(2)
	h.connectAll([]*consensus.Block{last})
	twin(next)
	cases(3)
}

// Evidence outlives restarts, the latest cases of it, each once.
func TestDoubleStakesAreKept(t *testing.T) {
	const kept = 256
	p := consensus.Stakenet()
	b, blocks := stakers(p, 2)
	h := openStakenet(t, p)
	h.connectAll(blocks[1:])
	want, seen := []chain.DoubleStake(nil), 0
	check := func() {
		t.Helper()
		list, total, _ := h.DoubleStakes()
		if total != seen || len(list) != len(want) {
			t.Fatalf("%d cases of %d, want %d of %d", len(list), total, len(want), seen)
		}
		for i := range list {
			if got, want := list[i], want[i]; !got.Seen.Equal(want.Seen) || got.Claim != want.Claim || got.First != want.First || got.Second != want.Second || got.Height != want.Height {
				t.Errorf("case %d: %+v, want %+v", i, got, want)
			}
		}
	}
	check()
	tip := blocks[2]
	twice := func(n int) {
		t.Helper()
		for range n {
			x, y := b.MineTemplate(tip, enginetest.Template{Data: "x"}), b.MineTemplate(tip, enginetest.Template{Data: "y"})
			h.submitAll([]*consensus.Block{x})
			if _, _, err := h.AcceptHeaders(t.Context(), headersOf([]*consensus.Block{y})); err != nil {
				t.Fatal(err)
			}
			tip, seen = x, seen+1
		}
		want, _, _ = h.DoubleStakes()
	}
	twice(3)
	check()
	h.reopen()
	check()
	twice(kept)
	if top, _ := h.Tip(); len(want) != kept || want[kept-1].Height != top.Height {
		t.Fatalf("%d cases, the last of height %d", len(want), want[len(want)-1].Height)
	}
	check()
	h.reopen()
	check()
	twice(1)
	check()
	if n := len(h.log.with("a stake signed two blocks for one slot")); n == 0 {
		t.Error("nothing was logged")
	}
}

// forgeChild makes a child of parent with the claim that a coin is worth all the money
// and belongs to key.
func forgeChild(t *testing.T, b *enginetest.Builder, parent *consensus.Block, coin wire.OutPoint, key *btcec.PrivateKey, name string) *consensus.Block {
	t.Helper()
	claim := pos.Stake{OutPoint: coin, Value: 21e14}
	copy(claim.Key[:], schnorr.SerializePubKey(key.PubKey()))
	return claimChild(t, b, parent, claim, key, name)
}

// claimChild makes a child of parent by a stake, be it one or not, in the first slot
// that it wins.
func claimChild(t *testing.T, b *enginetest.Builder, parent *consensus.Block, claim pos.Stake, key *btcec.PrivateKey, name string, txs ...*wire.MsgTx) *consensus.Block {
	t.Helper()
	slot, _ := pos.Slot(b.Params, parent.Header.Timestamp.Unix())
	for slot++; !winsSlot(b, parent, &claim, slot); slot++ {
	}
	return childOfSlot(t, b, parent, slot, claim, key, name, txs...)
}

// winsSlot says whether a claim wins a slot on parent.
func winsSlot(b *enginetest.Builder, parent *consensus.Block, claim *pos.Stake, slot int64) bool {
	past := b.Past(parent.Hash)
	return pos.Wins(pos.Kernel(pos.Modifier(b.Params, past), claim, slot), pos.New(b.Params).NextBits(past, time.Time{}), claim.Value)
}

// childOfSlot makes a child of parent by a stake in a slot.
func childOfSlot(t *testing.T, b *enginetest.Builder, parent *consensus.Block, slot int64, claim pos.Stake, key *btcec.PrivateKey, name string, txs ...*wire.MsgTx) *consensus.Block {
	t.Helper()
	prepare, seal := b.Prepare, b.Seal
	defer func() { b.Prepare, b.Seal = prepare, seal }()
	b.Prepare = nil
	b.Seal = func(_ consensus.Past, _ consensus.Coins, h *consensus.Header) error {
		hash := consensus.HeaderHash(h)
		sig, err := schnorr.Sign(key, hash[:])
		if err == nil {
			h.Seal = claim.Seal([64]byte(sig.Serialize()))
		}
		return err
	}
	kernel := pos.Kernel(pos.Modifier(b.Params, b.Past(parent.Hash)), &claim, slot)
	when := time.Unix(pos.SlotTime(b.Params, slot), 0)
	return b.MineTemplate(parent, enginetest.Template{Time: when, Data: name, Txs: txs, Change: func(u *enginetest.Unsealed) {
		u.Header.Nonce = pos.Nonce(kernel)
		u.Txs[0].AddTxOut(&wire.TxOut{PkScript: claim.Commitment()})
	}})
}

// holder returns the stake of stakenet's holder n, from 1, its key, and a transaction that
// moves it to another coin of that key.
func holder(t *testing.T, p *consensus.Params, n int) (pos.Stake, *btcec.PrivateKey, *wire.MsgTx) {
	t.Helper()
	secret := consensus.StakenetKey(n)
	priv, _ := btcec.PrivKeyFromBytes(secret[:])
	genesis := p.GenesisBlock().Txs[0]
	out := genesis.MsgTx().TxOut[n-1]
	stake := pos.Stake{OutPoint: wire.OutPoint{Hash: *genesis.Hash(), Index: uint32(n - 1)}, Value: out.Value}
	copy(stake.Key[:], out.PkScript[2:])
	tx := wire.NewMsgTx(2)
	tx.AddTxIn(&wire.TxIn{PreviousOutPoint: stake.OutPoint})
	tx.AddTxOut(wire.NewTxOut(out.Value, out.PkScript))
	fetcher := txscript.NewCannedPrevOutputFetcher(out.PkScript, out.Value)
	var err error
	if tx.TxIn[0].Witness, err = txscript.TaprootWitnessSignature(tx, txscript.NewTxSigHashes(tx, fetcher), 0, out.Value, out.PkScript, txscript.SigHashDefault, priv); err != nil {
		t.Fatal(err)
	}
	return stake, txscript.TweakTaprootPrivKey(*priv, nil), tx
}

// Stakes are coins of the parent: what the block itself spends or makes, what was spent
// before, and what is on another branch does not change or help that.
func TestStakeIsOfTheParent(t *testing.T) {
	p := consensus.Stakenet()
	b, blocks := stakers(p, 3)
	stake, key, move := holder(t, p, 4)
	moved := stake
	moved.OutPoint = wire.OutPoint{Hash: move.TxHash()}
	fresh := func(t *testing.T) *home {
		t.Helper()
		h := openStakenet(t, p)
		h.connectAll(blocks[1:])
		return h
	}
	refused := func(t *testing.T, h *home, bad *consensus.Block, rule string) {
		t.Helper()
		before, _ := h.Tip()
		wantBlame(t, h.submit(bad.Raw).Err, rule, consensus.BlameBlock)
		if tip, _ := h.Tip(); tip.Hash != before.Hash {
			t.Errorf("the tip is at height %d", tip.Height)
		}
	}
	t.Run("spent in the same block", func(t *testing.T) {
		h := fresh(t)
		own := claimChild(t, b, blocks[3], stake, key, "", move)
		h.connectAll([]*consensus.Block{own})
		refused(t, h, claimChild(t, b, own, stake, key, "spent"), "bad-stake-missing")
		refused(t, h, claimChild(t, b, own, moved, key, "immature"), "bad-stake-immature")
		h.connectAll([]*consensus.Block{b.Mine(own)})
	})
	t.Run("made in the same block", func(t *testing.T) {
		refused(t, fresh(t), claimChild(t, b, blocks[3], moved, key, "", move), "bad-stake-missing")
	})
	t.Run("on another branch only", func(t *testing.T) {
		h := fresh(t)
		with := b.Mine(blocks[3], move)
		h.connectAll([]*consensus.Block{with})
		without := b.MineTemplate(blocks[3], enginetest.Template{Data: "without"})
		h.want(without, chain.SideChain)
		refused(t, h, claimChild(t, b, without, moved, key, ""), "bad-stake-missing")
		h.wantTip(with)
	})
	t.Run("claimed for more", func(t *testing.T) {
		more := stake
		more.Value++
		refused(t, fresh(t), claimChild(t, b, blocks[3], more, key, ""), "bad-stake-value")
	})
	t.Run("of another's key", func(t *testing.T) {
		_, other, _ := holder(t, p, 1)
		theirs := stake
		copy(theirs.Key[:], schnorr.SerializePubKey(other.PubKey()))
		refused(t, fresh(t), claimChild(t, b, blocks[3], theirs, other, ""), "bad-stake-key")
	})
}

// Headers by stake that does not exist are bounded, and hold nobody up: the chain goes on
// with its blocks, and the first body of theirs ends their branch.
func TestHeadersWithoutStake(t *testing.T) {
	const ahead = 30
	p := consensus.Stakenet()
	b, blocks := stakers(p, 10)
	h := open(t, func(o *chain.Options) { o.Params, o.Engine, o.HeadersAhead = p, pos.New(p), ahead })
	h.connectAll(blocks[1:4])
	nobody, _ := btcec.PrivKeyFromBytes([]byte{31: 7})
	// On the tip the coins show it at once.
	n, _, err := h.AcceptHeaders(t.Context(), headersOf([]*consensus.Block{forgeChild(t, b, blocks[3], wire.OutPoint{Index: 5}, nobody, "")}))
	if wantBlame(t, err, "bad-stake-missing", consensus.BlameNobody); n != 0 {
		t.Errorf("%d added", n)
	}
	forged := []*consensus.Block{blocks[2]}
	for range ahead + 5 {
		forged = append(forged, forgeChild(t, b, forged[len(forged)-1], wire.OutPoint{Index: 5}, nobody, ""))
	}
	n, _, err = h.AcceptHeaders(t.Context(), headersOf(forged[1:]))
	if wantBlame(t, err, "headers-too-far-ahead", consensus.BlameNobody); n != ahead {
		t.Errorf("%d added", n)
	}
	if best, _ := h.BestHeader(); best.Height != 2+ahead {
		t.Fatalf("the best header is at height %d: they claim more work", best.Height)
	}
	for _, blk := range blocks[4:] {
		if v := h.submitFrom(blk.Raw, chain.Source{Kind: chain.FromGossip, Peer: "peer1"}); v.Outcome != chain.Connected {
			t.Fatalf("%+v", v)
		}
	}
	// Not signed: nothing of it is stored.
	bad := headersOf([]*consensus.Block{b.Mine(blocks[10])})
	bad[0].Seal = bytes.Clone(bad[0].Seal)
	bad[0].Seal[80] ^= 1
	n, _, err = h.AcceptHeaders(t.Context(), bad)
	if wantBlame(t, err, "bad-seal-signature", consensus.BlameSender); n != 0 {
		t.Errorf("%d added", n)
	}
	// A body on the tip shows that there is no such stake, and what is built on it is as bad.
	lie := forgeChild(t, b, blocks[10], wire.OutPoint{Index: 5}, nobody, "")
	wantBlame(t, h.submit(lie.Raw).Err, "bad-stake-missing", consensus.BlameBlock)
	above := forgeChild(t, b, lie, wire.OutPoint{Index: 5}, nobody, "")
	_, _, err = h.CheckHeader(&above.Header)
	checkRule(t, err, "bad-prevblk")
	h.wantTip(blocks[10])
}

// A block can be tested before it is signed: by every rule but the signature.
func TestUnsignedBlock(t *testing.T) {
	p := consensus.Stakenet()
	b, blocks := stakers(p, 3)
	h := openStakenet(t, p)
	h.connectAll(blocks[1:])
	test := func(blk *consensus.Block) error {
		t.Helper()
		seal := bytes.Clone(blk.Header.Seal)
		clear(seal[76:])
		unsigned, err := consensus.DecodeBlock(p, enginetest.WithSeal(blk, seal))
		if err != nil {
			t.Fatal(err)
		}
		return h.TestBlock(t.Context(), unsigned)
	}
	if err := test(b.Mine(blocks[3])); err != nil {
		t.Error(err)
	}
	stake, key, move := holder(t, p, 4)
	moved := stake
	moved.OutPoint = wire.OutPoint{Hash: move.TxHash()}
	wantBlame(t, test(claimChild(t, b, blocks[3], moved, key, "", move)), "bad-stake-missing", consensus.BlameBlock)
	if err := test(b.Mine(blocks[2])); !errors.Is(err, chain.ErrNotNext) {
		t.Error(err)
	}
	h.wantTip(blocks[3])
}

// TestStakePrune: a pruned chain has its headers with their seals, for others to check, and
// the initial stake, though the block that it came with is gone.
func TestStakePrune(t *testing.T) {
	p := consensus.Stakenet()
	b, blocks := stakers(p, 400)
	// As many blocks stay as a reorganisation may be deep.
	deep := *p
	deep.MaxReorg = 350
	d := open(t, func(o *chain.Options) {
		smallFiles(o)
		o.Params, o.Engine = &deep, pos.New(&deep)
	})
	d.connectAll(blocks[1:])
	if r, err := d.Prune(t.Context(), 0); err != nil || r.Lowest < 1 || r.Lowest > 400-350+1 {
		t.Errorf("%+v, %v", r, err)
	}
	h := open(t, func(o *chain.Options) {
		smallFiles(o)
		o.Params, o.Engine = p, pos.New(p)
	})
	h.connectAll(blocks[1:])
	r, err := h.Prune(t.Context(), 0)
	if err != nil || r.Lowest < 400-350+2 || r.Lowest > 400-chain.KeepBlocks+1 {
		t.Fatalf("%+v, %v", r, err)
	}
	check := func() {
		t.Helper()
		for i, x := range blocks {
			seal, err := h.Seal(x.Hash)
			if err != nil || !bytes.Equal(seal, x.Header.Seal) {
				t.Fatalf("the seal of block %d is %x, %v; want %x", i, seal, err, x.Header.Seal)
			}
		}
		genesis := *blocks[0].Txs[0].Hash()
		for i, out := range blocks[0].Txs[0].MsgTx().TxOut {
			coin, ok, err := h.Coin(wire.OutPoint{Hash: genesis, Index: uint32(i)})
			if err != nil || !ok || coin.Value != out.Value || coin.Height != 0 || coin.Coinbase {
				t.Errorf("initial stake %d: %+v, %t, %v", i, coin, ok, err)
			}
		}
	}
	check()
	h.reopen()
	check()
	later := blocks[400].Header.Timestamp.Add(p.SlotDuration)
	more := []*consensus.Block{b.MineTemplate(blocks[399], enginetest.Template{Time: later})} // leaves the last one
	more = append(more, b.MineN(more[0], 2)...)
	for _, x := range more {
		h.submit(x.Raw)
	}
	h.wantTip(more[2])
}
