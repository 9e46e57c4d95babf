package descriptor_test

import (
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"dunlin/chain/consensus"
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
