package jsonrpc_test

import (
	"encoding/hex"
	"encoding/json"
	"math"
	"strings"
	"testing"

	"dunlin/internal/jsonrpc"
)

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// Scripts are named and written as Bitcoin Core does.
func TestScripts(t *testing.T) {
	key := "0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798"
	for _, c := range []struct{ script, kind, asm string }{
		{"", "nonstandard", ""},
		{"21" + key + "ac", "pubkey", key + " OP_CHECKSIG"},
		{"76a914" + strings.Repeat("ab", 20) + "88ac", "pubkeyhash", "OP_DUP OP_HASH160 " + strings.Repeat("ab", 20) + " OP_EQUALVERIFY OP_CHECKSIG"},
		{"a914" + strings.Repeat("ab", 20) + "87", "scripthash", "OP_HASH160 " + strings.Repeat("ab", 20) + " OP_EQUAL"},
		{"0014" + strings.Repeat("ab", 20), "witness_v0_keyhash", "0 " + strings.Repeat("ab", 20)},
		{"0020" + strings.Repeat("ab", 32), "witness_v0_scripthash", "0 " + strings.Repeat("ab", 32)},
		{"5120" + strings.Repeat("ab", 32), "witness_v1_taproot", "1 " + strings.Repeat("ab", 32)},
		{"5220" + strings.Repeat("ab", 32), "witness_unknown", "2 " + strings.Repeat("ab", 32)},
		{"51024e73", "anchor", "1 29518"},
		{"0015" + strings.Repeat("ab", 21), "nonstandard", "0 " + strings.Repeat("ab", 21)},
		{"5121" + key + "51ae", "multisig", "1 " + key + " 1 OP_CHECKMULTISIG"},
		{"6a0474657374", "nulldata", "OP_RETURN 1953719668"},
		{"6a04746573740474657374", "nulldata", "OP_RETURN 1953719668 1953719668"},
		{"4f0081028000", "nonstandard", "-1 0 OP_RIGHT 128"},
		{"b1b2ba50ff", "nonstandard", "OP_CHECKLOCKTIMEVERIFY OP_CHECKSEQUENCEVERIFY OP_CHECKSIGADD OP_RESERVED OP_UNKNOWN"},
		{"0181", "nonstandard", "-1"},
		{"4cff00", "nonstandard", "[error]"},
	} {
		script := unhex(t, c.script)
		if kind := jsonrpc.ScriptType(script); kind != c.kind {
			t.Errorf("%s: type %s, want %s", c.script, kind, c.kind)
		}
		if asm := jsonrpc.Disassemble(script, false); asm != c.asm {
			t.Errorf("%s: %q, want %q", c.script, asm, c.asm)
		}
	}
	// The signature of the first payment, in block 170.
	sig := "304402204e45e16932b8af514961a1d3a1a25fdf3f4f7732e9d624c6c61548ab5fb8cd410220181522ec8eca07de4860a4acdd12909d831cc56cbbac4622082221a8768d1d09"
	if asm := jsonrpc.Disassemble(unhex(t, "47"+sig+"01"), true); asm != sig+"[ALL]" {
		t.Errorf("signature: %s", asm)
	}
}

// BIP380's vectors.
func TestDescriptorChecksum(t *testing.T) {
	if got := jsonrpc.DescriptorChecksum("raw(deadbeef)"); got != "89f8spxm" {
		t.Errorf("raw(deadbeef): %s, want 89f8spxm", got)
	}
	if got := jsonrpc.DescriptorChecksum("raw(Ü)"); got != "" {
		t.Errorf("a character that descriptors lack: %s", got)
	}
	if jsonrpc.DescriptorChecksum("raw(deedbeef)") == "89f8spxm" {
		t.Error("one letter makes no difference")
	}
}

func TestDifficulty(t *testing.T) {
	for bits, want := range map[uint32]float64{
		0x1d00ffff: 1, 0x207fffff: 4.6565423739069247e-10, 0x1b0404cb: 16307.420938523983, 0x170331db: 88104191118793.17,
	} {
		if got := jsonrpc.Difficulty(bits); math.Abs(got/want-1) > 1e-9 {
			t.Errorf("%08x: %v, want %v", bits, got, want)
		}
	}
}

// Amounts are exact both ways: no float comes near them.
func TestAmounts(t *testing.T) {
	for text, want := range map[string]int64{
		"0": 0, "1": 1e8, "0.00000001": 1, "20999999.9769": 2099999997690000, "-0.5": -5e7, `"0.1"`: 1e7, "92233720.36854775": 9223372036854775,
		"1e-05": 1000, "1E-8": 1, "1.5e1": 15e8, "0.100000000": 1e7, "0e50": 0, "0.0000": 0, "1e3": 1e11, "-1e-05": -1000, "10e-9": 1,
	} {
		var a jsonrpc.Amount
		if err := json.Unmarshal([]byte(text), &a); err != nil || int64(a) != want {
			t.Errorf("%s: %d, %v", text, a, err)
		}
	}
	for _, bad := range []string{"0.000000001", "1e-9", "1e8", "1e100000000", "1e-100000000", `"1e"`, `"1e1e1"`, `".5"`, `"-"`, `"+1"`, `"x"`, `""`, "100000000", "true", `"1.2.3"`, "[]"} {
		var a jsonrpc.Amount
		if err := json.Unmarshal([]byte(bad), &a); err == nil {
			t.Errorf("%s is accepted as %d", bad, a)
		}
	}
	for v, want := range map[jsonrpc.Amount]string{0: "0.00000000", 1: "0.00000001", 5_000_000_000: "50.00000000", -1: "-0.00000001"} {
		if b, err := json.Marshal(v); err != nil || string(b) != want {
			t.Errorf("%d: %s, %v", v, b, err)
		}
	}
}
