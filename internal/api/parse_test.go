package api

import (
	"encoding/json"
	"testing"
	"unicode/utf8"
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
