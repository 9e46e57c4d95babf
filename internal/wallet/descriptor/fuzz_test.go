package descriptor_test

import (
	"bytes"
	"strings"
	"testing"

	"dunlin/chain/consensus"
	"dunlin/internal/wallet/descriptor"
	"dunlin/internal/wallet/keys"
)

// FuzzParse: no text makes Parse panic; what it accepts has a public form that is accepted too, is the same, gives the same scripts, shows
// no private key, and whose scripts keep the promises of [descriptor.Output].
func FuzzParse(f *testing.F) {
	for _, name := range []string{"valid.txt", "invalid.txt"} {
		for _, line := range lines(f, name) {
			f.Add(strings.TrimPrefix(line, "\t"))
		}
	}
	for _, line := range lines(f, "miniscript.txt") {
		script, _, _ := strings.Cut(line, "\t")
		f.Add("wsh(" + script + ")")
		f.Add("tr(" + keyX + "," + script + ")")
		f.Add("wsh(and_v(v:pk(" + xpub + "/<0;1>/*)," + script + "))")
	}
	f.Add("raw(deadbeef)#89f8spxm")
	net := consensus.Bitcoin()
	f.Fuzz(func(t *testing.T, text string) {
		d, err := descriptor.Parse(text, net)
		if err != nil {
			return
		}
		public := d.String()
		if strings.Contains(public, "prv") {
			t.Fatalf("%q shows a private key: %s", text, public)
		}
		if len(public) <= descriptor.MaxTextBytes {
			again, err := descriptor.ParseStrict(public, net)
			if err != nil {
				t.Fatalf("%q becomes %s: %v", text, public, err)
			}
			if again.String() != public || again.Kind() != d.Kind() || again.IsRange() != d.IsRange() || again.IsMulti() != d.IsMulti() {
				t.Fatalf("%q becomes %s, which becomes %s", text, public, again)
			}
			if again.Private() {
				t.Fatalf("the public form of %q is private", text)
			}
		}
		if err := d.AddTo(keys.NewRing()); err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		for _, one := range d.Expand() {
			o, err := one.Derive(5)
			if err != nil {
				continue
			}
			if pub, err := one.Public(); err == nil {
				same, err := pub.Derive(5)
				if err != nil || !bytes.Equal(same.PkScript, o.PkScript) || same.MaxWeight != o.MaxWeight {
					t.Fatalf("%q: the public form gives another script: %v", text, err)
				}
			}
			known := one.Kind() != descriptor.Addr && one.Kind() != descriptor.Raw
			if known != (o.MaxWeight > 0) || known != (len(o.Keys) > 0) || len(o.WitnessScript) > 3600 || len(o.RedeemScript) > 520 {
				t.Fatalf("%q: %+v", text, o)
			}
		}
	})
}
