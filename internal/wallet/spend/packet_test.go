package spend_test

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"testing"

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

// TestRoles goes the way of BIP174's example: two signers, a combiner, a finaliser
// and an extractor.
func TestRoles(t *testing.T) {
	v := readVectors(t)
	net := consensus.Regtest()
	var signed []*spend.Packet
	for i, s := range v.Signer {
		ring := keys.NewRing()
		for _, wif := range s.Keys {
			k, err := keys.ParseWIF(wif, net)
			if err != nil {
				t.Fatal(err)
			}
			if err := ring.AddKey(k); err != nil {
				t.Fatal(err)
			}
		}
		p := parse(t, s.PSBT)
		n, err := p.Sign(ring, spend.SignOptions{})
		if err != nil || n != 2 {
			t.Fatalf("signer %d: %d signatures, %v", i, n, err)
		}
		if got := p.String(); got != s.Result {
			t.Errorf("signer %d:\n%s\nwant\n%s", i, got, s.Result)
		}
		if err := p.Finalise(nil); !errors.Is(err, spend.ErrIncomplete) {
			t.Errorf("signer %d is enough: %v", i, err)
		}
		if again, err := p.Sign(ring, spend.SignOptions{}); again != 0 || err != nil {
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
