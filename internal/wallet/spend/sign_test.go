package spend_test

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"slices"
	"testing"

	"github.com/btcsuite/btcd/txscript/v2"
	"github.com/btcsuite/btcd/wire/v2"

	"dunlin/chain/consensus"
	"dunlin/chain/consensus/enginetest"
	"dunlin/internal/wallet/descriptor"
	"dunlin/internal/wallet/keys"
	"dunlin/internal/wallet/spend"
)

// hexBytes is JSON's hex, or null.
type hexBytes []byte

// UnmarshalJSON implements json.Unmarshaler.
func (h *hexBytes) UnmarshalJSON(b []byte) error {
	var s *string
	if err := json.Unmarshal(b, &s); err != nil || s == nil {
		return err
	}
	raw, err := hex.DecodeString(*s)
	*h = raw
	return err
}

// tapVectors are those of BIP341 for wallets.
type tapVectors struct {
	ScriptPubKey []struct {
		Given struct {
			InternalPubkey hexBytes
			ScriptTree     json.RawMessage
		}
		Intermediary struct{ MerkleRoot hexBytes }
		Expected     struct {
			ScriptPubKey            hexBytes
			ScriptPathControlBlocks []hexBytes
		}
	}
	KeyPathSpending []struct {
		Given struct {
			RawUnsignedTx hexBytes
			UtxosSpent    []struct {
				ScriptPubKey hexBytes
				AmountSats   int64
			}
		}
		InputSpending []struct {
			Given struct {
				TxinIndex       int
				InternalPrivkey hexBytes
				MerkleRoot      hexBytes
				HashType        uint32
			}
			Intermediary struct{ InternalPubkey hexBytes }
			Expected     struct{ Witness []hexBytes }
		}
	}
}

func readTapVectors(t *testing.T) (v tapVectors) {
	t.Helper()
	if err := json.Unmarshal(enginetest.Data(t, "core/bip341_wallet_vectors.json"), &v); err != nil {
		t.Fatal(err)
	}
	return v
}

// TestTaprootVectors signs what BIP341 signs: our signatures and those of the
// vectors, which have other nonces, are final in every type.
func TestTaprootVectors(t *testing.T) {
	for _, c := range readTapVectors(t).KeyPathSpending {
		tx, err := consensus.DecodeTx(c.Given.RawUnsignedTx)
		if err != nil {
			t.Fatal(err)
		}
		for _, foreign := range []bool{false, true} {
			p := spend.NewPacket(tx)
			ring := keys.NewRing()
			var allowed []uint32
			for i, out := range c.Given.UtxosSpent {
				p.Inputs[i].PrevOut = wire.NewTxOut(out.AmountSats, out.ScriptPubKey)
			}
			for _, s := range c.InputSpending {
				k, err := keys.NewPrivateKey(s.Given.InternalPrivkey, true)
				if err != nil {
					t.Fatal(err)
				}
				if err := ring.AddKey(k); err != nil {
					t.Fatal(err)
				}
				in := &p.Inputs[s.Given.TxinIndex]
				in.TapInternalKey, in.TapRoot = s.Intermediary.InternalPubkey, s.Given.MerkleRoot
				if s.Given.HashType != 0 {
					in.SigHash = &s.Given.HashType
				}
				allowed = append(allowed, s.Given.HashType)
				if foreign {
					in.TapKeySig = s.Expected.Witness[0]
				}
			}
			if !foreign {
				if _, err := p.Sign(ring, spend.SignOptions{}); !errors.Is(err, spend.ErrSigHash) {
					t.Errorf("types that let others change it: %v", err)
				}
				n, err := p.Sign(ring, spend.SignOptions{SigHashes: allowed})
				if err != nil || n != len(c.InputSpending) {
					t.Errorf("%d signatures of %d: %v", n, len(c.InputSpending), err)
				}
			}
			p = parse(t, p.String())
			if err := p.Finalise(nil); err == nil {
				t.Error("inputs without keys are final")
			}
			for _, s := range c.InputSpending {
				in := &p.Inputs[s.Given.TxinIndex]
				if !in.Final() || len(in.FinalWitness) != 1 || len(in.FinalWitness[0]) != len(s.Expected.Witness[0]) {
					t.Errorf("input %d: %+v", s.Given.TxinIndex, in)
				}
			}
		}
	}
}

// TestTaprootLeaves: scripts that an output commits to are believed, others are not.
func TestTaprootLeaves(t *testing.T) {
	type leaf struct {
		Script      hexBytes
		LeafVersion byte
	}
	var leaves func(raw json.RawMessage) []leaf
	leaves = func(raw json.RawMessage) (all []leaf) {
		var branch []json.RawMessage
		if json.Unmarshal(raw, &branch) == nil {
			for _, b := range branch {
				all = append(all, leaves(b)...)
			}
			return all
		}
		var l leaf
		if err := json.Unmarshal(raw, &l); err != nil {
			t.Fatal(err)
		}
		return append(all, l)
	}
	for n, c := range readTapVectors(t).ScriptPubKey {
		tx := wire.NewMsgTx(2)
		tx.AddTxIn(wire.NewTxIn(&wire.OutPoint{}, nil, nil))
		tx.AddTxOut(wire.NewTxOut(1, []byte{txscript.OP_RETURN}))
		p := spend.NewPacket(tx)
		in := &p.Inputs[0]
		in.PrevOut = wire.NewTxOut(1, c.Expected.ScriptPubKey)
		in.TapInternalKey, in.TapRoot = c.Given.InternalPubkey, c.Intermediary.MerkleRoot
		if c.Given.ScriptTree != nil && string(c.Given.ScriptTree) != "null" {
			for i, l := range leaves(c.Given.ScriptTree) {
				in.TapLeaves = append(in.TapLeaves, spend.TapLeaf{ControlBlock: c.Expected.ScriptPathControlBlocks[i], Script: l.Script, Version: l.LeafVersion})
			}
		}
		p = parse(t, p.String())
		if _, err := p.Sign(keys.NewRing(), spend.SignOptions{}); err != nil {
			t.Errorf("vector %d: %v", n, err)
		}
		p.Inputs[0].TapRoot = make([]byte, 32)
		if _, err := p.Sign(keys.NewRing(), spend.SignOptions{}); !errors.Is(err, spend.ErrForged) {
			t.Errorf("vector %d with another root: %v", n, err)
		}
		if len(in.TapLeaves) > 0 && in.TapLeaves[0].Version == 0xc0 {
			p = parse(t, spendString(p, func(in *spend.Input) {
				in.TapRoot = c.Intermediary.MerkleRoot
				in.TapLeaves[0].Script = []byte{txscript.OP_TRUE}
			}))
			if _, err := p.Sign(keys.NewRing(), spend.SignOptions{}); !errors.Is(err, spend.ErrForged) {
				t.Errorf("vector %d with another script: %v", n, err)
			}
		}
	}
}

func spendString(p *spend.Packet, edit func(*spend.Input)) string {
	edit(&p.Inputs[0])
	return p.String()
}

// onePacket is of a transaction that spends one output of a form, and the output.
func (p *purse) onePacket(t testing.TB, form string, outs int) (*spend.Packet, *descriptor.Output) {
	t.Helper()
	o := p.output(t, slices.Index(forms, form), 4)
	source := wire.NewMsgTx(2)
	source.AddTxIn(wire.NewTxIn(&wire.OutPoint{Index: 8}, nil, nil))
	source.AddTxOut(wire.NewTxOut(100_000, o.PkScript))
	c := spend.Coin{OutPoint: wire.OutPoint{Hash: source.TxHash()}, Value: 100_000, Height: 100}
	c.Describe(o, p.means(120), source)
	tx := wire.NewMsgTx(2)
	tx.AddTxIn(&wire.TxIn{PreviousOutPoint: c.OutPoint, Sequence: 20})
	tx.LockTime = 110
	for range outs {
		tx.AddTxOut(wire.NewTxOut(10_000, p.output(t, 2, 5).PkScript))
	}
	pk, err := (&spend.Plan{Tx: tx, Coins: []spend.Coin{c}}).Packet()
	if err != nil {
		t.Fatal(err)
	}
	return pk, o
}

// TestSignRefuses: what lies, or wants signatures that let others change the
// transaction, is not signed.
func TestSignRefuses(t *testing.T) {
	purse := newPurse(t, consensus.Regtest())
	ring := purse.parties[0].ring
	kind := func(k uint32) func(*spend.Packet) {
		return func(p *spend.Packet) { p.Inputs[0].SigHash = &k }
	}
	for name, c := range map[string]struct {
		form string
		edit func(*spend.Packet)
		opts spend.SignOptions
		want error // nil: any
	}{
		"value of the wallet's coin": {"wpkh(A)", func(*spend.Packet) {}, spend.SignOptions{
			Known: func(wire.OutPoint) *wire.TxOut { return wire.NewTxOut(1, nil) },
		}, spend.ErrForged},
		"value beside the transaction": {"wpkh(A)", func(p *spend.Packet) { p.Inputs[0].PrevOut.Value++ }, spend.SignOptions{}, spend.ErrForged},
		"another transaction":          {"pkh(A)", func(p *spend.Packet) { p.Inputs[0].PrevTx.LockTime++ }, spend.SignOptions{}, spend.ErrForged},
		"no transaction": {"pkh(A)", func(p *spend.Packet) {
			p.Inputs[0].PrevTx, p.Inputs[0].PrevOut = nil, p.Inputs[0].PrevTx.TxOut[0]
		}, spend.SignOptions{}, spend.ErrNoPrevTx},
		"redeem script":      {"sh(pkh(A))", func(p *spend.Packet) { p.Inputs[0].RedeemScript = []byte{1} }, spend.SignOptions{}, spend.ErrForged},
		"witness script":     {"wsh(pkh(A))", func(p *spend.Packet) { p.Inputs[0].WitnessScript = []byte{1} }, spend.SignOptions{}, spend.ErrForged},
		"none":               {"wpkh(A)", kind(2), spend.SignOptions{}, spend.ErrSigHash},
		"single":             {"pkh(A)", kind(3), spend.SignOptions{}, spend.ErrSigHash},
		"anyone can pay":     {"tr(A)", kind(0x81), spend.SignOptions{SigHashes: []uint32{0x82}}, spend.ErrSigHash},
		"single, no output":  {"pkh(A)", func(p *spend.Packet) { kind(3)(p); p.Tx.TxOut = nil; p.Outputs = nil }, spend.SignOptions{SigHashes: []uint32{3}}, nil},
		"no such type":       {"pkh(A)", kind(4), spend.SignOptions{SigHashes: []uint32{4}}, nil},
		"no such large type": {"pkh(A)", kind(0x101), spend.SignOptions{SigHashes: []uint32{0x101}}, nil},
		"default before it":  {"wpkh(A)", kind(0), spend.SignOptions{}, nil},
		"internal key":       {"tr(A)", func(p *spend.Packet) { p.Inputs[0].TapRoot = make([]byte, 32) }, spend.SignOptions{}, spend.ErrForged},
		"a leaf of another":  {"tr(A,pk(B))", func(p *spend.Packet) { p.Inputs[0].TapLeaves[0].Script = []byte{0x51} }, spend.SignOptions{}, spend.ErrForged},
		"an unknown neighbour": {"tr(A)", func(p *spend.Packet) {
			p.Tx.AddTxIn(wire.NewTxIn(&wire.OutPoint{Index: 1}, nil, nil))
			p.Inputs = append(p.Inputs, spend.Input{})
		}, spend.SignOptions{}, spend.ErrNoUTXO},
	} {
		t.Run(name, func(t *testing.T) {
			p, _ := purse.onePacket(t, c.form, 2)
			if n, err := p.Sign(ring, spend.SignOptions{}); n == 0 || err != nil {
				t.Fatalf("as it was: %d, %v", n, err)
			}
			p, _ = purse.onePacket(t, c.form, 2)
			c.edit(p)
			before := p.String()
			n, err := p.Sign(ring, c.opts)
			if n != 0 || err == nil || c.want != nil && !errors.Is(err, c.want) {
				t.Errorf("%d signatures, %v", n, err)
			}
			if p.String() != before {
				t.Error("it was changed")
			}
		})
	}
}

// TestSigHashes: signatures of every type that is allowed are final.
func TestSigHashes(t *testing.T) {
	purse := newPurse(t, consensus.Regtest())
	all := []uint32{1, 2, 3, 0x81, 0x82, 0x83}
	for _, form := range []string{"pkh(A)", "sh(wpkh(A))", "wsh(pkh(A))", "tr(A)", "multi(1,A,B)"} {
		for _, kind := range all {
			p, _ := purse.onePacket(t, form, 2)
			p.Inputs[0].SigHash = &kind
			if n, err := p.Sign(purse.parties[0].ring, spend.SignOptions{SigHashes: all}); n != 1 || err != nil {
				t.Fatalf("%s, type %#x: %d, %v", form, kind, n, err)
			}
			if err := p.Finalise(nil); err != nil {
				t.Fatalf("%s, type %#x: %v", form, kind, err)
			}
			if _, err := p.Extract(); err != nil {
				t.Errorf("%s, type %#x: %v", form, kind, err)
			}
		}
	}
	// One of a type that the input does not name is not used.
	p, _ := purse.onePacket(t, "pkh(A)", 2)
	if _, err := p.Sign(purse.parties[0].ring, spend.SignOptions{}); err != nil {
		t.Fatal(err)
	}
	p.Inputs[0].SigHash = &all[1]
	if err := p.Finalise(nil); err == nil {
		t.Error("a signature of another type is final")
	}
}

// TestFinaliseAlone: common forms are final without a descriptor, and the same as
// with one.
func TestFinaliseAlone(t *testing.T) {
	purse := newPurse(t, consensus.Regtest())
	for _, form := range []string{
		"pk(A)", "pkh(A)", "wpkh(A)", "sh(wpkh(A))", "sh(pkh(A))", "wsh(pkh(A))", "sh(wsh(pk(A)))", "multi(1,A,B)", "multi(2,A,B)", "sh(multi(2,A,B))",
		"sh(sortedmulti(2,B,A))", "wsh(multi(2,B,A))", "sh(wsh(sortedmulti(1,A,B)))", "tr(A)", "rawtr(A)", "tr(A,pk(B))", "tr(" + unspendable + ",multi_a(2,A,B))",
	} {
		var got []string
		for _, describe := range []func([]byte) *descriptor.Output{nil, purse.describe} {
			p, _ := purse.onePacket(t, form, 1)
			for _, who := range purse.parties {
				if _, err := p.Sign(who.ring, spend.SignOptions{}); err != nil {
					t.Fatalf("%s: %v", form, err)
				}
			}
			a := p.Analyse(describe)
			if err := p.Finalise(describe); err != nil {
				t.Fatalf("%s: %v", form, err)
			}
			tx, err := p.Extract()
			if err != nil {
				t.Fatalf("%s: %v", form, err)
			}
			coins, err := p.Coins()
			if err != nil {
				t.Fatal(err)
			}
			if weight, err := spend.FeeWeight(tx, coins); err != nil || describe != nil && a.Weight < weight || a.Weight > 0 && (a.Weight < weight || a.Weight > weight+80) {
				t.Errorf("%s: weight %d was guessed to be %d, %v", form, weight, a.Weight, err)
			}
			got = append(got, hex.EncodeToString(consensus.AppendTx(nil, tx)))
		}
		if got[0] != got[1] {
			t.Errorf("%s: %s and %s", form, got[0], got[1])
		}
	}
}

// TestAnalyse: a packet tells who must act next, and with which keys.
func TestAnalyse(t *testing.T) {
	purse := newPurse(t, consensus.Regtest())
	p, o := purse.onePacket(t, "wsh(multi(2,B,A))", 2)
	if a := p.Analyse(nil); a.Next != spend.RoleSigner || len(a.Inputs[0].Missing) != 2 || a.Fee != 80_000 || a.Rate <= 0 || a.Unproven != 0 {
		t.Errorf("%+v", a)
	}
	if _, err := p.Sign(purse.parties[0].ring, spend.SignOptions{}); err != nil {
		t.Fatal(err)
	}
	a := p.Analyse(nil)
	if a.Next != spend.RoleSigner || len(a.Inputs[0].Missing) != 1 || !slices.Equal(a.Inputs[0].Missing[0].PubKey, o.Keys[0].PubKey) {
		t.Errorf("%+v", a)
	}
	if err := p.Finalise(purse.describe); !errors.Is(err, spend.ErrIncomplete) {
		t.Errorf("finalised: %v", err)
	}
	if _, err := p.Extract(); !errors.Is(err, spend.ErrIncomplete) {
		t.Errorf("extracted: %v", err)
	}
	p.Inputs[0].PrevTx = nil
	if a := p.Analyse(nil); a.Unproven != 1 {
		t.Errorf("%+v", a)
	}
	p.Inputs[0].WitnessScript = nil
	if a := p.Analyse(nil); a.Next != spend.RoleUpdater || a.Inputs[0].Why == nil {
		t.Errorf("%+v", a)
	}
	if err := p.Update(purse.describe, nil); err != nil || p.Inputs[0].WitnessScript == nil {
		t.Errorf("not updated: %v", err)
	}
	bare := spend.NewPacket(p.Tx)
	if a := bare.Analyse(nil); a.Next != spend.RoleUpdater || a.Fee != -1 {
		t.Errorf("%+v", a)
	}
	if err := bare.Update(purse.describe, func(wire.OutPoint) (*wire.TxOut, *wire.MsgTx) { return wire.NewTxOut(100_000, o.PkScript), nil }); err != nil {
		t.Fatal(err)
	}
	if a := bare.Analyse(nil); a.Next != spend.RoleSigner || len(bare.Outputs[0].Keys) != 1 {
		t.Errorf("%+v", a)
	}
}

// TestClosed: a coin under a time lock says at which height it opens, and then opens.
func TestClosed(t *testing.T) {
	purse := newPurse(t, consensus.Regtest())
	for _, c := range []struct {
		form   string
		height int32 // of the coin
		opens  int32
	}{
		{"wsh(and_v(v:pk(A),older(10)))", 200, 210},
		{"wsh(and_v(v:pkh(A),after(103)))", 50, 104},
		{"wsh(and_v(v:pk(A),and_v(v:pk(B),older(5))))", 0, 0},
		{"tr(" + unspendable + ",and_v(v:pk(B),after(104)))", 0, 105},
	} {
		o := purse.output(t, slices.Index(forms, c.form), 1)
		coin := spend.Coin{Height: c.height}
		for _, height := range []int32{0, 40, 102, 103, 104, 105, 208, 209, 210, 249} {
			coin.Describe(o, purse.means(height), nil)
			if coin.Unspendable != nil || coin.Closed != (c.opens == 0 || height+1 < c.opens) || coin.Closed && coin.OpenAt != c.opens {
				t.Fatalf("%s at %d: %+v", c.form, height, coin)
			}
		}
	}
	// A key that nobody has.
	o := purse.output(t, slices.Index(forms, "wsh(multi(2,B,A))"), 1)
	var coin spend.Coin
	coin.Describe(o, &spend.Means{Has: purse.parties[0].ring.Has}, nil)
	if coin.Unspendable == nil {
		t.Error("one of two can sign")
	}
	coin.Describe(o, &spend.Means{}, nil)
	if coin.Unspendable != nil {
		t.Errorf("both will sign: %v", coin.Unspendable)
	}
	// A relative lock by time.
	d, err := descriptor.Parse("wsh(and_v(v:pk("+hex.EncodeToString(o.Keys[0].PubKey)+"),older(4194305)))", consensus.Regtest())
	if err != nil {
		t.Fatal(err)
	}
	timed, err := d.Derive(0)
	if err != nil {
		t.Fatal(err)
	}
	for mtp, closed := range map[int64]bool{1000 + 511: true, 1000 + 512: false} {
		coin.Describe(timed, &spend.Means{Height: 200, MedianTime: mtp, Since: func(*spend.Coin) int64 { return 1000 }}, nil)
		if coin.Closed != closed || !closed && coin.Older != 4194305 {
			t.Errorf("at %d: %+v", mtp, coin)
		}
	}
}

// TestCombineRefuses: packets of different transactions are not joined, nor such
// that contradict each other.
func TestCombineRefuses(t *testing.T) {
	purse := newPurse(t, consensus.Regtest())
	a, _ := purse.onePacket(t, "wpkh(A)", 1)
	b, _ := purse.onePacket(t, "wpkh(A)", 2)
	if _, err := spend.Combine(a, b); !errors.Is(err, spend.ErrOther) {
		t.Error(err)
	}
	if _, err := spend.Combine(); err == nil {
		t.Error("nothing is combined")
	}
	c, _ := purse.onePacket(t, "wpkh(A)", 1)
	c.Inputs[0].PrevTx = nil
	c.Inputs[0].PrevOut = wire.NewTxOut(5, a.Inputs[0].PrevOut.PkScript)
	if _, err := spend.Combine(c, a); !errors.Is(err, spend.ErrForged) {
		t.Error(err)
	}
}
