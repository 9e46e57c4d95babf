package spend_test

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/btcsuite/btcd/btcec/v2"
	"github.com/btcsuite/btcd/btcec/v2/ecdsa"
	"github.com/btcsuite/btcd/btcutil/v2"
	"github.com/btcsuite/btcd/wire/v2"

	"dunlin/chain/consensus"
	"dunlin/internal/wallet/keys"
	"dunlin/internal/wallet/spend"
)

// vectors are those of BIP174 and BIP371.
type vectors struct {
	Valid, Invalid []struct{ Case, PSBT string }
	Creator        string
	Updated        string
	Signer         []struct {
		Keys         []string
		PSBT, Result string
	}
	Finaliser  struct{ PSBT, Result, Network string }
	TwoOfThree string
}

func readVectors(t testing.TB) (v vectors) {
	t.Helper()
	raw, err := os.ReadFile("testdata/bip174.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(raw, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

func parse(t testing.TB, text string) *spend.Packet {
	t.Helper()
	p, err := spend.Parse(text)
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	return p
}

// TestVectors: valid packets are read and written as they were; invalid ones are not
// read.
func TestVectors(t *testing.T) {
	v := readVectors(t)
	for i, c := range v.Valid {
		p, err := spend.Parse(c.PSBT)
		if err != nil {
			t.Errorf("valid %d (%s): %v", i, c.Case, err)
			continue
		}
		if got := p.String(); got != c.PSBT {
			t.Errorf("valid %d (%s) becomes\n%s\nfrom\n%s", i, c.Case, got, c.PSBT)
		}
	}
	for i, c := range v.Invalid {
		if _, err := spend.Parse(c.PSBT); !errors.Is(err, spend.ErrPacket) {
			t.Errorf("invalid %d (%s): %v", i, c.Case, err)
		}
	}
}

// groundSig is the one signature of BIP174's example whose R is not low, as signers
// make it that grind R.
const groundSig = "30440220631a989fe738a92ad01986023312c19214fe2802b39e5cbc1ac3678806c692c3" +
	"022039db6c387bd267716dfdb3d4d8da50b8e85d213326ba7c7daaa4c0ce41eb922301"

// A plainSigner signs with ECDSA as RFC6979 says, and does not grind R: so do the
// examples.
type plainSigner map[string]*btcec.PrivateKey

// Has is spend.Signer.
func (s plainSigner) Has(k keys.Ref) bool { return s[string(k.PubKey)] != nil }

// SignECDSA is spend.Signer.
func (s plainSigner) SignECDSA(k keys.Ref, hash [32]byte) ([]byte, error) {
	return ecdsa.Sign(s[string(k.PubKey)], hash[:]).Serialize(), nil
}

// SignSchnorr is spend.Signer.
func (plainSigner) SignSchnorr(keys.Ref, [32]byte, *keys.TapTweak) ([64]byte, error) {
	return [64]byte{}, keys.ErrNoKey
}

// TestRoles goes the way of BIP174's example: two signers, a combiner, a finaliser
// and an extractor.
func TestRoles(t *testing.T) {
	v := readVectors(t)
	net := consensus.Regtest()
	var signed []*spend.Packet
	for i, s := range v.Signer {
		plain, ring := make(plainSigner), keys.NewRing()
		for _, wif := range s.Keys {
			k, err := keys.ParseWIF(wif, net)
			if err != nil {
				t.Fatal(err)
			}
			if err := ring.AddKey(k); err != nil {
				t.Fatal(err)
			}
			w, err := btcutil.DecodeWIF(wif)
			if err != nil {
				t.Fatal(err)
			}
			plain[string(k.PublicBytes())] = w.PrivKey
		}
		ground := parse(t, s.PSBT)
		if n, err := ground.Sign(ring, spend.SignOptions{}); n != 2 || err != nil {
			t.Errorf("signer %d: %d signatures of low R, %v", i, n, err)
		}
		if i == 1 && hex.EncodeToString(ground.Inputs[0].Sigs[0].Sig) != groundSig {
			t.Errorf("signature of low R: %x, want %s", ground.Inputs[0].Sigs[0].Sig, groundSig)
		}
		p := parse(t, s.PSBT)
		n, err := p.Sign(plain, spend.SignOptions{})
		if err != nil || n != 2 {
			t.Fatalf("signer %d: %d signatures, %v", i, n, err)
		}
		if got := p.String(); got != s.Result {
			t.Errorf("signer %d:\n%s\nwant\n%s", i, got, s.Result)
		}
		if err := p.Finalise(nil); !errors.Is(err, spend.ErrIncomplete) {
			t.Errorf("signer %d is enough: %v", i, err)
		}
		if again, err := p.Sign(plain, spend.SignOptions{}); again != 0 || err != nil {
			t.Errorf("signer %d signs again: %d, %v", i, again, err)
		}
		signed = append(signed, p)
	}
	p, err := spend.Combine(signed...)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := p.String(), parse(t, v.Finaliser.PSBT).String(); got != want { // in one order
		t.Errorf("combined:\n%s\nwant\n%s", got, want)
	}
	if a := p.Analyse(nil); a.Next != spend.RoleFinaliser || a.Fee != 10000 {
		t.Errorf("%+v", a)
	}
	if err := p.Finalise(nil); err != nil {
		t.Fatal(err)
	}
	if got := p.String(); got != v.Finaliser.Result {
		t.Errorf("final:\n%s\nwant\n%s", got, v.Finaliser.Result)
	}
	tx, err := p.Extract()
	if err != nil {
		t.Fatal(err)
	}
	if got := hex.EncodeToString(consensus.AppendTx(nil, tx)); got != v.Finaliser.Network {
		t.Errorf("extracted %s, want %s", got, v.Finaliser.Network)
	}
	two := parse(t, v.TwoOfThree)
	if err := two.Finalise(nil); err != nil {
		t.Error(err)
	}
	if _, err := two.Extract(); err != nil {
		t.Error(err)
	}
}

// TestCombineUnknown: fields that are not known are joined, whatever the order, and
// written in the order of their keys, as in BIP174's example for combiners.
func TestCombineUnknown(t *testing.T) {
	of := func(last byte) *spend.Packet {
		tx := wire.NewMsgTx(2)
		tx.AddTxIn(wire.NewTxIn(&wire.OutPoint{Index: 1}, nil, nil))
		tx.AddTxOut(wire.NewTxOut(0, []byte{0x6a}))
		p := spend.NewPacket(tx)
		f := []spend.Field{{Key: []byte{0x0f, 1, 2, 3, last}, Value: []byte{1, 2, 3, last}}}
		p.Unknown, p.Inputs[0].Unknown, p.Outputs[0].Unknown = f, f, f
		return parse(t, p.String())
	}
	ab, err := spend.Combine(of(9), of(0x10))
	if err != nil {
		t.Fatal(err)
	}
	ba, err := spend.Combine(of(0x10), of(9))
	if err != nil {
		t.Fatal(err)
	}
	if ab.String() != ba.String() {
		t.Error("the order matters")
	}
	const both = "050f01020309" + "0401020309" + "050f01020310" + "0401020310" + "00"
	if raw := hex.EncodeToString(ab.Encode()); !strings.HasSuffix(raw, both+both+both) {
		t.Errorf("combined %s", raw)
	}
	if again, err := spend.Combine(ab, ba, ab); err != nil || again.String() != ab.String() {
		t.Errorf("combined again: %v", err)
	}
}
