package jsonrpc_test

import (
	"strings"
	"testing"

	"dunlin/internal/jsonrpc"
)

// TestHelp: every call has arguments, result and an example that it would take, and nothing
// is told of what is not there.
func TestHelp(t *testing.T) {
	for _, fault := range jsonrpc.FaultsOfHelp() {
		t.Error(fault)
	}
	const want = `getblockhash height

Hash of the block at a height of the active chain.

Arguments:
1. height (required) number: height of a block

Result:
hex: the hash

Example:
> curl -s --user "$(cat api.cookie)" -H 'Content-Type: application/json' -d '{"method":"getblockhash","params":[0],"id":1}' http://127.0.0.1:9332/`
	if got := jsonrpc.HelpOf("getblockhash"); got != want {
		t.Errorf("%s", got)
	}
	if got := jsonrpc.HelpOf("uptime"); !strings.HasPrefix(got, "uptime\n\nSeconds") || strings.Contains(got, "Arguments") {
		t.Errorf("%s", got)
	}
}
