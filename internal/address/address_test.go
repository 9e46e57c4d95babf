package address_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"strings"
	"testing"

	"github.com/btcsuite/btcd/address/v2/base58"
	"github.com/btcsuite/btcd/txscript/v2"

	"dunlin/chain/consensus"
	"dunlin/chain/consensus/enginetest"
	"dunlin/internal/address"
)

// TestAddresses: every address of a network decodes and encodes to itself, and
// is refused on another network.
func TestAddresses(t *testing.T) {
	bitcoin, regtest := address.Params(consensus.Bitcoin()), address.Params(consensus.Regtest())
	for _, c := range []struct{ bitcoin, class string }{
		{"1BvBMSEYstWetqTFn5Au4m4GFg7xJaNVN2", "pubkeyhash"},
		{"3J98t1WpEZ73CNmQviecrnyiWrnqRhWNLy", "scripthash"},
		{"bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4", "witness_v0_keyhash"},
		{"BC1QW508D6QEJXTDG4Y5R3ZARVARY0C5XW7KV8F3T4", "witness_v0_keyhash"},
		{"bc1qrp33g0q5c5txsp9arysrx4k6zdkfs4nce4xj0gdcccefvpysxf3qccfmv3", "witness_v0_scripthash"},
		{"bc1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vqzk5jj0", "witness_v1_taproot"},
	} {
		a, err := address.Decode(c.bitcoin, bitcoin)
		if err != nil {
			t.Errorf("%s: %v", c.bitcoin, err)
			continue
		}
		script, err := txscript.PayToAddrScript(a)
		if err != nil || txscript.GetScriptClass(script).String() != c.class {
			t.Errorf("%s: script %x of class %s, %v", c.bitcoin, script, txscript.GetScriptClass(script), err)
		}
		if !strings.EqualFold(a.EncodeAddress(), c.bitcoin) {
			t.Errorf("%s encodes to %s", c.bitcoin, a.EncodeAddress())
		}
		if _, err := address.Decode(c.bitcoin, regtest); err == nil {
			t.Errorf("%s is accepted on regtest", c.bitcoin)
		}
	}
	for _, bad := range []string{
		"", "1", "bc1", "bc1q", "1BvBMSEYstWetqTFn5Au4m4GFg7xJaNVN3",
		"bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t5",
		"bc1p38j9r5y49hruaue7wxjce0updqjuyyx0kh56v8s25huc6995vvpql3jow4", // BIP350: bad character
		"bc1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vqh2y7hd", // BIP350: bech32 for version 1
		"BC1QW508D6QEJXTDG4Y5R3ZARVARY0C5XW7KEMAWH9",                     // not a valid checksum
		"bc1pw5dgrnzv", // one byte
	} {
		if a, err := address.Decode(bad, bitcoin); err == nil {
			t.Errorf("%q is accepted as %s", bad, a)
		}
	}
}

// readVectors reads a file of Bitcoin Core's test data.
func readVectors(t *testing.T, name string, v any) {
	t.Helper()
	if err := json.Unmarshal(enginetest.Data(t, "core/"+name), v); err != nil {
		t.Fatal(err)
	}
}

// TestAddressVectors: Bitcoin Core's valid addresses of main and regtest give
// their scripts; its invalid ones are refused.
func TestAddressVectors(t *testing.T) {
	params := map[string]*consensus.Params{"main": consensus.Bitcoin(), "regtest": consensus.Regtest()}
	var valid [][3]any
	readVectors(t, "key_io_valid.json", &valid)
	n := 0
	for _, row := range valid {
		meta, _ := row[2].(map[string]any)
		p := params[meta["chain"].(string)]
		if meta["isPrivkey"].(bool) || p == nil {
			continue
		}
		text, want := row[0].(string), row[1].(string)
		a, err := address.Decode(text, address.Params(p))
		if err != nil {
			// Core knows witness versions 2 to 16 and short programs, to which
			// nothing of ours pays.
			for _, ours := range []string{"0014", "0020", "5120", "76a914", "a914"} {
				if strings.HasPrefix(want, ours) {
					t.Errorf("%s: %v", text, err)
				}
			}
			continue
		}
		script, err := txscript.PayToAddrScript(a)
		if err != nil {
			t.Errorf("%s: %v", text, err)
		} else if got := hex.EncodeToString(script); got != want {
			t.Errorf("%s: script %s, want %s", text, got, want)
		}
		n++
	}
	if n < 10 {
		t.Errorf("only %d addresses were checked", n)
	}
	var invalid [][1]string
	readVectors(t, "key_io_invalid.json", &invalid)
	for _, row := range invalid {
		for name, p := range params {
			if a, err := address.Decode(row[0], address.Params(p)); err == nil {
				t.Errorf("%q is accepted on %s as %s", row[0], name, a)
			}
		}
	}
}

// TestBase58: Bitcoin Core's vectors of the alphabet that old addresses are in.
func TestBase58(t *testing.T) {
	var rows [][2]string
	readVectors(t, "base58_encode_decode.json", &rows)
	for _, row := range rows {
		want, err := hex.DecodeString(row[0])
		if err != nil {
			t.Fatal(err)
		}
		if got := base58.Encode(want); got != row[1] {
			t.Errorf("%s: %q, want %q", row[0], got, row[1])
		}
		if got := base58.Decode(row[1]); !bytes.Equal(got, want) {
			t.Errorf("%q: %x, want %s", row[1], got, row[0])
		}
	}
	if len(rows) < 10 {
		t.Errorf("only %d rows", len(rows))
	}
}
