package descriptor_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"

	"dunlin/chain/consensus"
	"dunlin/chain/consensus/enginetest"
	"dunlin/internal/wallet/descriptor"
	"dunlin/internal/wallet/keys"
)

// lines reads a file of testdata without its comments.
func lines(t testing.TB, name string) []string {
	t.Helper()
	b, err := os.ReadFile("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for line := range strings.Lines(string(b)) {
		if line = strings.TrimSuffix(line, "\n"); line != "" && !strings.HasPrefix(line, "#") {
			out = append(out, line)
		}
	}
	return out
}

func mustParse(t testing.TB, text string, net *consensus.Params) *descriptor.Descriptor {
	t.Helper()
	d, err := descriptor.Parse(text, net)
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return d
}

func mustDerive(t testing.TB, d *descriptor.Descriptor, index uint32) *descriptor.Output {
	t.Helper()
	o, err := d.Derive(index)
	if err != nil {
		t.Fatalf("%s: index %d: %v", d, index, err)
	}
	return o
}

// TestBIPVectors: the descriptors of the BIPs give their scripts, and so do their public forms.
func TestBIPVectors(t *testing.T) {
	var d *descriptor.Descriptor
	index, n := uint32(0), 0
	for _, line := range lines(t, "valid.txt") {
		script, isScript := strings.CutPrefix(line, "\t")
		if !isScript {
			d, index = mustParse(t, line, consensus.Bitcoin()), 0
			continue
		}
		if got := hex.EncodeToString(mustDerive(t, d, index).PkScript); got != script {
			t.Errorf("%s: index %d: %s, want %s", d, index, got, script)
		}
		if pub, err := d.Public(); err == nil {
			if pub.Private() || pub.String() != d.String() {
				t.Errorf("public form of %s is %s", d, pub)
			}
			again := mustParse(t, pub.String(), consensus.Bitcoin())
			if got := hex.EncodeToString(mustDerive(t, again, index).PkScript); got != script {
				t.Errorf("public %s: index %d: %s, want %s", again, index, got, script)
			}
			if again.String() != d.String() {
				t.Errorf("%s becomes %s", d, again)
			}
		} else if !errors.Is(err, descriptor.ErrNeedsPrivate) {
			t.Errorf("%s: %v", d, err)
		}
		if strings.Contains(d.String(), "prv") || strings.Contains(fmt.Sprintf("%v %+v %#v", d, d, d), "prv") {
			t.Errorf("%s shows a private key", d)
		}
		index, n = index+1, n+1
	}
	if n < 50 {
		t.Errorf("only %d scripts", n)
	}
}

// TestInvalid: what the BIPs call invalid is refused, without showing a key.
func TestInvalid(t *testing.T) {
	for _, line := range lines(t, "invalid.txt") {
		d, err := descriptor.Parse(line, consensus.Bitcoin())
		if err == nil {
			t.Errorf("%s is accepted as %s", line, d)
			continue
		}
		for _, secret := range []string{"L4rK1yDtCWekvXuE6oXD9jCYfFNV2cWRpVuPLBcCU2z8TrisoyY1", "5KYZdUEo39z3FPrtuX2QbbwGnNP5zTd7yyr2SC1j299sBCnWjss", "xprv9s21Zr"} {
			for i := 0; i+8 <= len(secret); i++ {
				if strings.Contains(err.Error(), secret[i:i+8]) {
					t.Errorf("%s: the error shows a key: %v", line, err)
				}
			}
		}
		t.Log(err)
	}
}

// TestChecksum: BIP380's checksum vectors.
func TestChecksum(t *testing.T) {
	net := consensus.Bitcoin()
	for text, want := range map[string]bool{
		"raw(deadbeef)#89f8spxm":  true,
		"raw(deadbeef)":           true,
		"raw(deadbeef)#":          false,
		"raw(deadbeef)#89f8spxmx": false,
		"raw(deadbeef)#89f8spx":   false,
		"raw(deedbeef)#89f8spxm":  false,
		"raw(deedbeef)##9f8spxm":  false,
		"raw(Ü)#00000000":         false,
	} {
		if _, err := descriptor.Parse(text, net); (err == nil) != want {
			t.Errorf("%s: %v", text, err)
		}
	}
	if _, err := descriptor.ParseStrict("raw(deadbeef)", net); !errors.Is(err, descriptor.ErrNoChecksum) {
		t.Errorf("without checksum: %v", err)
	}
	if d, err := descriptor.ParseStrict("raw(deadbeef)#89f8spxm", net); err != nil || d.String() != "raw(deadbeef)#89f8spxm" {
		t.Errorf("%v, %v", d, err)
	}
	if _, err := descriptor.Parse("raw("+strings.Repeat("00", descriptor.MaxTextBytes/2)+")", net); err == nil {
		t.Error("a text over the limit is accepted")
	}
}

// TestMultipath: BIP389's vectors.
func TestMultipath(t *testing.T) {
	const (
		x1 = "xpub6ERApfZwUNrhLCkDtcHTcxd75RbzS1ed54G1LkBUHQVHQKqhMkhgbmJbZRkrgZw4koxb5JaHWkY4ALHY2grBGRjaDMzQLcgJvLJuZZvRcEL"
		x2 = "xpub68NZiKmJWnxxS6aaHmn81bvJeTESw724CRDs6HbuccFQN9Ku14VQrADWgqbhhTHBaohPX4CjNLf9fq9MYo6oDaPPLPxSb7gwQN3ih19Zm4Y"
		x3 = "xpub661MyMwAqRbcGDZQUKLqmWodYLcoBQnQH33yYkkF3jjxeLvY8qr2wWGEWkiKFaaQfJCoi3HeEq3Dc5DptfbCyjD38fNhSqtKc1UHaP4ba3t"
		p  = "xprv9s21ZrQH143K31xYSDQpPDxsXRTUcvj2iNHm5NUtrGiGG5e2DtALGdso3pGz6ssrdK4PFmM8NSpSBHNqPqm55Qn3LqFtT2emdEXVYsCzC2U"
		o  = "[ffffffff/13h]xpub69H7F5d8KSRgmmdJg2KhpAK8SR3DjMwAdkxj3ZuxV27CprR9LgpeyGmXUbC6wb7ERfvrnKZjXoUmmDznezpbZb7ap6r1D3tgFxHmwMkQTPH"
	)
	for _, row := range [][]string{
		{"pk(" + x2 + "/<0;1>)", "pk(" + x2 + "/0)", "pk(" + x2 + "/1)"},
		{"pkh(" + p + "/<2147483647h;0>/0)", "pkh(" + p + "/2147483647h/0)", "pkh(" + p + "/0/0)"},
		{"wpkh(" + o + "/<1;3>/2/*)", "wpkh(" + o + "/1/2/*)", "wpkh(" + o + "/3/2/*)"},
		{
			"multi(2," + x1 + "/<1;2>/*," + x2 + "/<3;4>/0/*)",
			"multi(2," + x1 + "/1/*," + x2 + "/3/0/*)", "multi(2," + x1 + "/2/*," + x2 + "/4/0/*)",
		},
		{"pkh(" + x1 + "/<0;1;2>)", "pkh(" + x1 + "/0)", "pkh(" + x1 + "/1)", "pkh(" + x1 + "/2)"},
		{
			"sh(multi(2," + x1 + "/<1;2;3>/0/*," + x2 + "/0/*," + x3 + "/0/0/<3;4;5>/*))",
			"sh(multi(2," + x1 + "/1/0/*," + x2 + "/0/*," + x3 + "/0/0/3/*))",
			"sh(multi(2," + x1 + "/2/0/*," + x2 + "/0/*," + x3 + "/0/0/4/*))",
			"sh(multi(2," + x1 + "/3/0/*," + x2 + "/0/*," + x3 + "/0/0/5/*))",
		},
	} {
		d := mustParse(t, row[0], consensus.Bitcoin())
		if _, err := d.Derive(0); !errors.Is(err, descriptor.ErrExpand) {
			t.Errorf("%s: derived without expanding: %v", d, err)
		}
		got := d.Expand()
		if len(got) != len(row)-1 || !d.IsMulti() {
			t.Errorf("%s: %d descriptors", d, len(got))
			continue
		}
		for i, want := range row[1:] {
			w := mustParse(t, want, consensus.Bitcoin())
			if got[i].String() != w.String() {
				t.Errorf("%s: %d: %s, want %s", d, i, got[i], w)
			}
			if a, b := mustDerive(t, got[i], 7), mustDerive(t, w, 7); string(a.PkScript) != string(b.PkScript) {
				t.Errorf("%s: %d: script %x, want %x", d, i, a.PkScript, b.PkScript)
			}
		}
		if again := mustParse(t, d.String(), consensus.Bitcoin()); again.String() != d.String() {
			t.Errorf("%s becomes %s", d, again)
		}
	}
}

// TestCombo: BIP384's four scripts, two of an uncompressed key.
func TestCombo(t *testing.T) {
	const key = "03a34b99f22c790c4e36b2b3c2c35a36db06226e41c692fc82b8b56ac1c540c5bd"
	const long = "04a34b99f22c790c4e36b2b3c2c35a36db06226e41c692fc82b8b56ac1c540c5bd5b8dec5235a0fa8722476c7709c02559e3aa73aa03918ba2d492eea75abea235"
	for k, forms := range map[string][]string{key: {"pk(%s)", "pkh(%s)", "wpkh(%s)", "sh(wpkh(%s))"}, long: {"pk(%s)", "pkh(%s)"}} {
		got := mustParse(t, "combo("+k+")", consensus.Bitcoin()).Expand()
		if len(got) != len(forms) {
			t.Fatalf("%d scripts", len(got))
		}
		for i, form := range forms {
			want := mustParse(t, fmt.Sprintf(form, k), consensus.Bitcoin())
			if got[i].String() != want.String() || string(mustDerive(t, got[i], 0).PkScript) != string(mustDerive(t, want, 0).PkScript) {
				t.Errorf("%s, want %s", got[i], want)
			}
		}
	}
}

// TestAccounts: the addresses of BIP44, 49, 84 and 86 of the words that the BIPs use.
func TestAccounts(t *testing.T) {
	w, err := keys.ParseWords(strings.Repeat("abandon ", 11) + "about")
	if err != nil {
		t.Fatal(err)
	}
	master, err := keys.Master(w.Seed(""), consensus.Bitcoin())
	if err != nil {
		t.Fatal(err)
	}
	for p, want := range map[keys.Purpose][3]string{ // the first two external addresses and the first internal one
		keys.BIP44: {"1LqBGSKuX5yYUonjxT5qGfpUsXKYYWeabA", "1Ak8PffB2meyfYnbXZR9EGfLfFZVpzJvQP", "1J3J6EvPrv8q6AC3VCjWV45Uf3nssNMRtH"},
		keys.BIP49: {"37VucYSaXLCAsxYyAPfbSi9eh4iEcbShgf", "3LtMnn87fqUeHBUG414p9CWwnoV6E2pNKS", "34K56kSjgUCUSD8GTtuF7c9Zzwokbs6uZ7"},
		keys.BIP84: {"bc1qcr8te4kr609gcawutmrza0j4xv80jy8z306fyu", "bc1qnjg0jd8228aq7egyzacy8cys3knf9xvrerkf9g", "bc1q8c6fshw2dlwun7ekn9qwf37cu2rn755upcp6el"},
		keys.BIP86: {"bc1p5cyxnuxmeuwuvkwfem96lqzszd02n6xdcjrs20cac6yqjjwudpxqkedrcr", "bc1p4qhjn9zdvkux4e44uhx8tc55attvtyu358kutcqkudyccelu0was9fqzwh", "bc1p3qkhfews2uk44qtvauqyr2ttdsw7svhkl9nkm9s9c3x4ax5h60wqwruhk7"},
	} {
		external, internal, err := descriptor.Account(master, p, 0, consensus.Bitcoin())
		if err != nil {
			t.Fatal(err)
		}
		var got [3]string
		for i, o := range []*descriptor.Output{mustDerive(t, external, 0), mustDerive(t, external, 1), mustDerive(t, internal, 0)} {
			got[i], _ = o.Address(consensus.Bitcoin())
			wantRef := fmt.Sprintf("73c5da0a/%dh/0h/0h/%d/%d", p, []int{0, 0, 1}[i], []int{0, 1, 0}[i])
			if ref := o.Keys[0].String(); ref != wantRef {
				t.Errorf("origin %s, want %s", ref, wantRef)
			}
		}
		if got != want {
			t.Errorf("BIP%d: %v, want %v", p, got, want)
		}
		if external.Private() || !external.IsRange() || !strings.HasSuffix(strings.Split(external.String(), "#")[0], "/0/*"+strings.Repeat(")", strings.Count(external.String(), "("))) {
			t.Errorf("external descriptor %s", external)
		}
	}
}

// keyX is a point whose private key nobody knows (BIP341).
const keyX = "50929b74c1a04954b78b4b6035e97a5e078a5a0f28ec96d547bfee9ace803ac0"

// TestKeyExpressions: BIP380's valid key expressions are accepted; hardened steps behind a public key are kept, and cannot be
// derived.
func TestKeyExpressions(t *testing.T) {
	const (
		pub  = "xpub6ERApfZwUNrhLCkDtcHTcxd75RbzS1ed54G1LkBUHQVHQKqhMkhgbmJbZRkrgZw4koxb5JaHWkY4ALHY2grBGRjaDMzQLcgJvLJuZZvRcEL"
		priv = "xprvA1RpRA33e1JQ7ifknakTFpgNXPmW2YvmhqLQYMmrj4xJXXWYpDPS3xz7iAxn8L39njGVyuoseXzU6rcxFLJ8HFsTjSyQbLYnMpCqE2VbFWc"
	)
	for key, want := range map[string]struct {
		err error  // of deriving
		ref string // of index 4
	}{
		"0260b2003c386519fc9eadf2b5cf124dd8eea4c4e68d5e154050a9346ea98ce600":                                                                 {nil, ""},
		"04a34b99f22c790c4e36b2b3c2c35a36db06226e41c692fc82b8b56ac1c540c5bd5b8dec5235a0fa8722476c7709c02559e3aa73aa03918ba2d492eea75abea235": {nil, ""},
		"[deadbeef/0h/0h/0h]0260b2003c386519fc9eadf2b5cf124dd8eea4c4e68d5e154050a9346ea98ce600":                                              {nil, "deadbeef/0h/0h/0h"},
		"[deadbeef/0'/0h/0']0260b2003c386519fc9eadf2b5cf124dd8eea4c4e68d5e154050a9346ea98ce600":                                              {nil, "deadbeef/0h/0h/0h"},
		"5KYZdUEo39z3FPrtuX2QbbwGnNP5zTd7yyr2SC1j299sBCnWjss":                                                                                {nil, ""},
		"L4rK1yDtCWekvXuE6oXD9jCYfFNV2cWRpVuPLBcCU2z8TrisoyY1":                                                                               {nil, ""},
		pub:                                         {nil, "31a507b8"},
		"[deadbeef/0h/1h/2h]" + pub:                 {nil, "deadbeef/0h/1h/2h"},
		"[deadbeef/0h/1h/2h]" + pub + "/3/4/5":      {nil, "deadbeef/0h/1h/2h/3/4/5"},
		"[deadbeef/0h/1h/2h]" + pub + "/3/4/5/*":    {nil, "deadbeef/0h/1h/2h/3/4/5/4"},
		pub + "/3h/4h/5h/*":                         {descriptor.ErrNeedsPrivate, ""},
		pub + "/3h/4h/5h/*h":                        {descriptor.ErrNeedsPrivate, ""},
		"[deadbeef/0h/1h/2]" + pub + "/3h/4h/5h/*h": {descriptor.ErrNeedsPrivate, ""},
		priv:                                    {nil, "31a507b8"},
		"[deadbeef/0h/1h/2h]" + priv:            {nil, "deadbeef/0h/1h/2h"},
		"[deadbeef/0h/1h/2h]" + priv + "/3/4/5": {nil, "deadbeef/0h/1h/2h/3/4/5"},
		"[deadbeef/0h/1h/2h]" + priv + "/3/4/5/*":    {nil, "deadbeef/0h/1h/2h/3/4/5/4"},
		priv + "/3h/4h/5h/*":                         {nil, "31a507b8/3h/4h/5h/4"},
		priv + "/3h/4h/5h/*h":                        {nil, "31a507b8/3h/4h/5h/4h"},
		"[deadbeef/0h/1h/2]" + priv + "/3h/4h/5h/*h": {nil, "deadbeef/0h/1h/2/3h/4h/5h/4h"},
	} {
		d := mustParse(t, "pk("+key+")", consensus.Bitcoin())
		o, err := d.Derive(4)
		if !errors.Is(err, want.err) {
			t.Errorf("%s: %v", key, err)
		}
		if err == nil && want.ref != "" && o.Keys[0].String() != want.ref {
			t.Errorf("%s: origin %s, want %s", key, o.Keys[0], want.ref)
		}
		if again := mustParse(t, d.String(), consensus.Bitcoin()); again.String() != d.String() || again.Private() {
			t.Errorf("%s becomes %s, which becomes %s", key, d, again)
		}
		if d.Private() != (strings.Contains(key, "prv") || key[0] == '5' || key[0] == 'L') {
			t.Errorf("%s: private %v", key, d.Private())
		}
	}
	if _, err := mustParse(t, "pk("+pub+"/*)", consensus.Bitcoin()).Derive(keys.Hardened); err == nil {
		t.Error("a hardened index is derived")
	}
}

// TestBIP341Trees: the outputs, leaf hashes and control blocks of BIP341's wallet vectors.
func TestBIP341Trees(t *testing.T) {
	type leaf struct {
		ID          int
		Script      string
		LeafVersion int
	}
	var v struct {
		ScriptPubKey []struct {
			Given struct {
				InternalPubkey string
				ScriptTree     json.RawMessage
			}
			Intermediary struct {
				LeafHashes []string
				MerkleRoot string
			}
			Expected struct {
				ScriptPubKey            string
				Bip350Address           string
				ScriptPathControlBlocks []string
			}
		}
	}
	if err := json.Unmarshal(enginetest.Data(t, "core/bip341_wallet_vectors.json"), &v); err != nil {
		t.Fatal(err)
	}
	var text func(raw json.RawMessage) string
	text = func(raw json.RawMessage) string {
		var pair []json.RawMessage
		if json.Unmarshal(raw, &pair) == nil {
			a, b := text(pair[0]), text(pair[1])
			if a == "" || b == "" {
				return ""
			}
			return "{" + a + "," + b + "}"
		}
		var l leaf
		if err := json.Unmarshal(raw, &l); err != nil {
			t.Fatal(err)
		}
		// The vectors have leaves of a key and CHECKSIG, which descriptors can say, and others.
		if l.LeafVersion != 0xc0 || len(l.Script) != 68 || !strings.HasPrefix(l.Script, "20") || !strings.HasSuffix(l.Script, "ac") {
			return ""
		}
		return "pk(" + l.Script[2:66] + ")"
	}
	n := 0
	for _, c := range v.ScriptPubKey {
		form := "tr(" + c.Given.InternalPubkey + ")"
		if len(c.Given.ScriptTree) > 0 && string(c.Given.ScriptTree) != "null" {
			tree := text(c.Given.ScriptTree)
			if tree == "" {
				continue
			}
			form = "tr(" + c.Given.InternalPubkey + "," + tree + ")"
		}
		o := mustDerive(t, mustParse(t, form, consensus.Bitcoin()), 0)
		if got := hex.EncodeToString(o.PkScript); got != c.Expected.ScriptPubKey {
			t.Errorf("%s: script %s", form, got)
		}
		if got, ok := o.Address(consensus.Bitcoin()); !ok || got != c.Expected.Bip350Address {
			t.Errorf("%s: address %s", form, got)
		}
		if hex.EncodeToString(o.Taproot.Root) != c.Intermediary.MerkleRoot {
			t.Errorf("%s: root %x", form, o.Taproot.Root)
		}
		for i, l := range o.Taproot.Leaves {
			if hex.EncodeToString(l.Hash[:]) != c.Intermediary.LeafHashes[i] || hex.EncodeToString(l.ControlBlock) != c.Expected.ScriptPathControlBlocks[i] {
				t.Errorf("%s: leaf %d: %x, %x", form, i, l.Hash, l.ControlBlock)
			}
		}
		n++
	}
	if n < 4 {
		t.Errorf("only %d outputs", n)
	}
}

// TestDeriveConcurrently: one descriptor derives and prints for many at once.
func TestDeriveConcurrently(t *testing.T) {
	for _, text := range []string{
		"tr(" + hot + "/86h/*h,pk(" + xpub + "/0/*))", "wsh(sortedmulti(2," + hot + "/1h/*," + xpub + "/*))", "wpkh(" + hot + "/*)",
	} {
		d := mustParse(t, text, consensus.Bitcoin())
		want := mustDerive(t, d, 3)
		ring := privateOf(t, d)
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				o, err := d.Derive(3)
				if err != nil || !bytes.Equal(o.PkScript, want.PkScript) || d.String() == "" {
					t.Errorf("%s: %v", d, err)
				}
				if !ring.Has(want.Keys[0]) && !ring.Has(want.Keys[1]) {
					t.Errorf("%s: no key", d)
				}
			})
		}
		wg.Wait()
	}
}

// TestAccountErrors: what an account cannot be.
func TestAccountErrors(t *testing.T) {
	x, err := keys.ParseXPub(xpub, consensus.Bitcoin())
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := descriptor.AccountOf(x, keys.Origin{}, 45, consensus.Bitcoin()); err == nil {
		t.Error("purpose 45")
	}
	if _, _, err := descriptor.AccountOf(x, keys.Origin{}, keys.BIP84, consensus.Regtest()); err == nil {
		t.Error("an xpub on regtest")
	}
	external, internal, err := descriptor.AccountOf(x, keys.Origin{}, keys.BIP86, consensus.Bitcoin())
	if err != nil || !strings.HasPrefix(external.String(), "tr("+xpub+"/0/*)#") || !strings.HasPrefix(internal.String(), "tr("+xpub+"/1/*)#") {
		t.Errorf("%s, %s, %v", external, internal, err)
	}
	master, err := keys.ParseXPrv(hot, consensus.Bitcoin())
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := descriptor.Account(master, keys.BIP84, keys.Hardened, consensus.Bitcoin()); err == nil {
		t.Error("a hardened account number")
	}
}

func BenchmarkDerive(b *testing.B) {
	for name, text := range map[string]string{"wpkh": "wpkh(" + xpub + "/0/*)", "tr": "tr(" + xpub + "/0/*)", "wsh2of3": "wsh(sortedmulti(2," + xpub + "/0/*," + xpub + "/1/*," + xpub + "/2/*))"} {
		d := mustParse(b, text, consensus.Bitcoin())
		b.Run(name, func(b *testing.B) {
			i := uint32(0)
			for b.Loop() {
				mustDerive(b, d, i)
				i++
			}
		})
	}
}
