package config

import (
	"bytes"
	"compress/flate"
	"fmt"
	"strings"
	"testing"

	"github.com/btcsuite/btcd/address/v2/base58"
)

// sealed is a well-formed invitation around any text.
func sealed(t *testing.T, text string) string {
	t.Helper()
	var b bytes.Buffer
	w, err := flate.NewWriterDict(&b, flate.BestCompression, []byte(inviteWords))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	sum := inviteSum(b.Bytes())
	return invitePrefix + base58.Encode(append(sum[:], b.Bytes()...))
}

// TestInvitationBounds: a text that inflates without end, or names too much, or another network, is refused.
func TestInvitationBounds(t *testing.T) {
	t.Parallel()
	nodes := func(n int) string {
		var list []string
		for i := range n {
			list = append(list, fmt.Sprintf(`"/ip4/192.0.2.%d/tcp/1/p2p/12D3KooWFTLeUYG4UaSGtADtVLVaTFfEm7Axnf1GLpQDCzhVAv9K"`, i))
		}
		return "bootstrap = [" + strings.Join(list, ", ") + "]\n"
	}
	const regtest = "preset = \"regtest\"\ngenesis_hash = \"0f9188f13cb7b2c71f2a335e3a4fc328bf5beb436012afca590b1a11466e2206\"\n"
	for _, tt := range []struct{ text, want string }{
		{regtest + nodes(MaxInvited), ""},
		{regtest + nodes(MaxInvited+1), "names 17 nodes, at most 16"},
		{regtest + "# " + strings.Repeat("x", maxInviteBytes), "is longer than"},
		{strings.Repeat("\n", 4<<20), "is longer than"},
		{"preset = \"regtest\"\ngenesis_hash = \"" + strings.Repeat("1", 64) + "\"\n", "it is another network, or of another version"},
		{"preset = \"regtest\"\n", "it is another network"},
		{"preset = \"nonet\"\n", "unknown network"},
		{regtest + "surprise = 1\n", "unknown key"},
		{"name = \"x\"\n", "engine: is missing"},
		{"preset = 7\n", "preset"},
		{"\x00", "is no TOML"},
	} {
		_, err := ParseInvitation(sealed(t, tt.text))
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%.60q: %v, want %q", tt.text, err, tt.want)
		}
	}
}
