package api

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"

	"dunlin/chain/consensus"
)

// FuzzParseMessage: whatever a client sends gets one answer that is JSON, and a
// message with an operation is never taken for one without.
func FuzzParseMessage(f *testing.F) {
	for _, s := range []string{`{"op":"peers"}`, `{"op":"register","args":{"addr":["a"]}}`, `{`, `[]`, `{"op":1,"args":[]}`, "\xff", `{"OP":"peers","op":""}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		op, args, fault := parseMessage(raw)
		if (fault == nil) != (op != "") {
			t.Fatalf("op %q, fault %v", op, fault)
		}
		if fault != nil && args != nil {
			t.Fatal("args of a faulty message")
		}
		answer := notFound(clip(op))
		if fault != nil {
			answer = *fault
		}
		out := encode(answer)
		if !json.Valid(out) || !utf8.Valid(out) || len(out) > 1024 {
			t.Fatalf("answer %q", out)
		}
		for _, addr := range []string{string(args["addr"]), op} {
			_ = checkRegistered(addr)
			_ = endpoint(addr)
		}
	})
}

func TestCoinbaseText(t *testing.T) {
	genesis := consensus.Bitcoin().Genesis
	b, err := consensus.NewBlock(consensus.Bitcoin(), consensus.Header{BlockHeader: genesis.Header}, genesis.Transactions)
	if err != nil {
		t.Fatal(err)
	}
	d := DescribeBlock(b, 0, true, "100010001")
	if d.CoinbaseText != "The Times 03/Jan/2009 Chancellor on brink of second bailout for banks" || d.Data != "" {
		t.Errorf("%q %q", d.CoinbaseText, d.Data)
	}
	if d.Hash != "000000000019d6689c085ae165831e934ff763ae46a2a6c172b3f1b60a8ce26f" || d.Bits != "1d00ffff" || d.Size != 285 || d.Txs != 1 {
		t.Errorf("%+v", d)
	}
	if s := simple(d); s.Data != d.CoinbaseText {
		t.Errorf("genesis data %q", s.Data)
	}
	for script, want := range map[string]string{
		"":                             "",
		"\x03\x01\x02\x03":             "",
		"\x05hello\x01x\x06wörld":      "hello wörld",
		"\x4c":                         "", // a push without its length
		"raw text that is no script\n": "raw text that is no script",
		"\x04\xff\xfeab":               "",
	} {
		if got := coinbaseText([]byte(script)); got != want {
			t.Errorf("%q: %q, want %q", script, got, want)
		}
	}
	if got := coinbaseText([]byte(strings.Repeat("x", 100))); !utf8.ValidString(got) {
		t.Errorf("%q", got)
	}
}
