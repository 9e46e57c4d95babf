package keys_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/btcsuite/btcd/address/v2/base58"
	"github.com/btcsuite/btcd/btcec/v2/ecdsa"
	"github.com/btcsuite/btcd/btcec/v2/schnorr"
	"github.com/cosmos/go-bip39"

	"dunlin/chain/consensus"
	"dunlin/chain/consensus/enginetest"
	"dunlin/internal/wallet/keys"
)

// rows reads a file of testdata: fields between tabs, comments with #.
func rows(t *testing.T, name string) [][]string {
	t.Helper()
	b, err := os.ReadFile("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	var out [][]string
	for line := range strings.Lines(string(b)) {
		if line = strings.TrimSuffix(line, "\n"); line != "" && !strings.HasPrefix(line, "#") {
			out = append(out, strings.Split(line, "\t"))
		}
	}
	return out
}

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func mustXPrv(t *testing.T, seed string) *keys.XPrv {
	t.Helper()
	s, err := keys.NewSeed(unhex(t, seed))
	if err != nil {
		t.Fatal(err)
	}
	x, err := keys.Master(s, consensus.Bitcoin())
	if err != nil {
		t.Fatal(err)
	}
	return x
}

func mustPath(t *testing.T, text string) keys.Path {
	t.Helper()
	p, err := keys.ParsePath(text)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// about are the words of BIP84's and BIP86's vectors.
var about = strings.Repeat("abandon ", 11) + "about"

func mustWords(t *testing.T, text string) *keys.Words {
	t.Helper()
	w, err := keys.ParseWords(text)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// TestBIP39Vectors: entropy, words and seeds of the official vectors.
func TestBIP39Vectors(t *testing.T) {
	n := 0
	for _, row := range rows(t, "bip39.txt") {
		w, err := keys.WordsFromEntropy(unhex(t, row[0]))
		if err != nil {
			t.Fatal(err)
		}
		if got := w.Reveal(); got != row[1] {
			t.Errorf("%s: words %s, want %s", row[0], got, row[1])
		}
		seed := mustWords(t, row[1]).Seed("TREZOR")
		if got := hex.EncodeToString(seed.Reveal()); got != row[2] {
			t.Errorf("%s: seed %s, want %s", row[1], got, row[2])
		}
		n++
	}
	if n != 24 {
		t.Errorf("%d vectors", n)
	}
}

// TestWords: every length goes to words and back, as the library that the list is of says.
func TestWords(t *testing.T) {
	for _, count := range []int{12, 15, 18, 21, 24} {
		for range 20 {
			w, err := keys.NewWords(count)
			if err != nil {
				t.Fatal(err)
			}
			text := w.Reveal()
			if !bip39.IsMnemonicValid(text) || len(strings.Fields(text)) != count || w.Count() != count {
				t.Errorf("%d words: %s", count, text)
			}
			if again := mustWords(t, "\n "+strings.ToUpper(strings.ReplaceAll(text, " ", " \t"))); again.Reveal() != text {
				t.Errorf("%s becomes %s", text, again.Reveal())
			}
		}
	}
	for _, count := range []int{0, 3, 11, 13, 25, 27} {
		if _, err := keys.NewWords(count); err == nil {
			t.Errorf("%d words are drawn", count)
		}
	}
	if !slices.IsSorted(bip39.EnglishWordList) || len(bip39.EnglishWordList) != 2048 {
		t.Error("the list is not what the binary search expects")
	}
}

// TestWordErrors: a wrong word is named with its place and the nearest of the list; a wrong order is another error.
func TestWordErrors(t *testing.T) {
	for word, want := range map[string]string{
		"abuot": "about", "abot": "about", "abouts": "about", "accidents": "accident", "acciXXXX": "accident", "zo": "zoo", "qqqqqqqqq": "",
	} {
		_, err := keys.ParseWords(strings.Repeat("abandon ", 11) + word)
		var wrong *keys.WordError
		if !errors.As(err, &wrong) || wrong.Position != 12 || want != "" && !slices.Contains(wrong.Nearest, want) || want == "" && wrong.Nearest != nil {
			t.Errorf("%s: %v", word, err)
		}
	}
	for _, text := range []string{strings.Repeat("abandon ", 12), strings.Repeat("abandon ", 10) + "about abandon"} {
		if _, err := keys.ParseWords(text); !errors.Is(err, keys.ErrChecksum) {
			t.Errorf("%s: %v", text, err)
		}
	}
	for _, text := range []string{"", "abandon", strings.Repeat("abandon ", 11), strings.Repeat("abandon ", 25), strings.Repeat("abandon ", 1000), "ábandon"} {
		if _, err := keys.ParseWords(text); err == nil {
			t.Errorf("%.40q is accepted", text)
		}
	}
}

// TestPassphraseForms: the Unicode form in which a keyboard writes a BIP39 passphrase does not matter.
func TestPassphraseForms(t *testing.T) {
	w := mustWords(t, about)
	composed, decomposed := w.Seed("Zürich ㍍ガ"), w.Seed("Zu\u0308rich メートルカ\u3099")
	if !bytes.Equal(composed.Reveal(), decomposed.Reveal()) || bytes.Equal(composed.Reveal(), w.Seed("").Reveal()) {
		t.Error("seeds differ by Unicode form")
	}
}

// TestBIP32Vectors: test vectors 1 to 4, among them the keys with leading zeros, from the seed and step by step from
// the public key, and back through their text.
func TestBIP32Vectors(t *testing.T) {
	n := 0
	for _, row := range rows(t, "bip32.txt") {
		seed, path, wantPub, wantPrv := row[0], mustPath(t, row[1]), row[2], row[3]
		x, err := mustXPrv(t, seed).Derive(path)
		if err != nil {
			t.Fatal(err)
		}
		if x.Reveal() != wantPrv || x.Public().String() != wantPub {
			t.Errorf("%s %s: %s, %s", seed[:8], path, x.Reveal(), x.Public())
		}
		parsed, err := keys.ParseXPrv(wantPrv, consensus.Bitcoin())
		if err != nil || parsed.Reveal() != wantPrv || parsed.Public().String() != wantPub || parsed.Depth() != len(path) {
			t.Errorf("%s: %v", wantPub, err)
		}
		pub, err := keys.ParseXPub(wantPub, consensus.Bitcoin())
		if err != nil || pub.String() != wantPub || pub.Fingerprint() != x.Fingerprint() {
			t.Errorf("%s: %v", wantPub, err)
		}
		// The step after, of a parsed key too: one that lost its leading zeros would go wrong here.
		for _, step := range []uint32{0, 7, keys.Hardened} {
			a, err := parsed.Derive(keys.Path{step})
			if err != nil {
				t.Fatal(err)
			}
			b, err := x.Derive(keys.Path{step})
			if err != nil || a.Reveal() != b.Reveal() {
				t.Errorf("%s: step %d differs: %v", wantPub, step, err)
			}
			c, err := pub.Derive(keys.Path{step})
			switch {
			case step >= keys.Hardened:
				if !errors.Is(err, keys.ErrHardened) {
					t.Errorf("hardened step of a public key: %v", err)
				}
			case err != nil || c.String() != b.Public().String():
				t.Errorf("%s: public step %d differs: %v", wantPub, step, err)
			}
		}
		n++
	}
	if n != 17 {
		t.Errorf("%d vectors", n)
	}
}

// TestBIP32Invalid: test vector 5.
func TestBIP32Invalid(t *testing.T) {
	for _, row := range rows(t, "bip32invalid.txt") {
		if x, err := keys.ParseXPub(row[1], consensus.Bitcoin()); err == nil {
			t.Errorf("%s: accepted as %s", row[0], x)
		}
		if _, err := keys.ParseXPrv(row[1], consensus.Bitcoin()); err == nil {
			t.Errorf("%s: accepted as a private key", row[0])
		} else if strings.Contains(err.Error(), row[1][8:20]) {
			t.Errorf("%s: the error shows the key: %v", row[0], err)
		}
	}
	for _, text := range []string{"", "x", "xprv", strings.Repeat("1", 200)} {
		if _, err := keys.ParseXPrv(text, consensus.Bitcoin()); err == nil {
			t.Errorf("%q is accepted", text)
		}
	}
	if _, err := keys.ParseXPub(mustXPrv(t, "000102030405060708090a0b0c0d0e0f").Public().String(), consensus.Regtest()); err == nil {
		t.Error("an xpub is accepted on regtest")
	}
}

// TestPaths: both marks of hardened steps, the limits, and the paths of accounts.
func TestPaths(t *testing.T) {
	for text, want := range map[string]string{
		"m": "", "": "", "m/0": "0", "0": "0", "m/84h/1h/0h/0/5": "84h/1h/0h/0/5", "84'/1'/0'": "84h/1h/0h", "2147483647h": "2147483647h",
	} {
		if p, err := keys.ParsePath(text); err != nil || p.String() != want {
			t.Errorf("%q: %q, %v", text, p, err)
		}
	}
	for _, text := range []string{"/", "m/", "m/m", "M/0", "0/", "/0", "0//1", "-1", "+1", "0x1", "1_0", " 1", "1H", "1''", "h", "2147483648", "2147483648h", "99999999999999999999", "*", strings.Repeat("0/", 255) + "0"} {
		if p, err := keys.ParsePath(text); err == nil {
			t.Errorf("%q is accepted as %q", text, p)
		}
	}
	if p := mustPath(t, strings.Repeat("0/", 254)+"0"); len(p) != 255 {
		t.Errorf("%d steps", len(p))
	}
	if got := keys.AccountPath(keys.BIP84, consensus.Bitcoin(), 2).String(); got != "84h/0h/2h" {
		t.Error(got)
	}
	for _, net := range []*consensus.Params{consensus.Regtest(), consensus.Simnet(), consensus.Testnet()} {
		if got := keys.AccountPath(keys.BIP86, net, 0).String(); got != "86h/1h/0h" {
			t.Errorf("%s: %s", net.Name, got)
		}
	}
	for _, text := range []string{"", "d34db33", "d34db33ff", "d34db33g"} {
		if _, err := keys.ParseFingerprint(text); err == nil {
			t.Errorf("fingerprint %q is accepted", text)
		}
	}
}

// TestBIP84Keys: the private keys of BIP84's vectors, as WIF.
func TestBIP84Keys(t *testing.T) {
	master, err := keys.Master(mustWords(t, about).Seed(""), consensus.Bitcoin())
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		"84h/0h/0h/0/0": "KyZpNDKnfs94vbrwhJneDi77V6jF64PWPF8x5cdJb8ifgg2DUc9d",
		"84h/0h/0h/0/1": "Kxpf5b8p3qX56DKEe5NqWbNUP9MnqoRFzZwHRtsFqhzuvUJsYZCy",
		"84h/0h/0h/1/0": "KxuoxufJL5csa1Wieb2kp29VNdn92Us8CoaUG3aGtPtcF3AzeXvF",
	} {
		x, err := master.Derive(mustPath(t, path))
		if err != nil || x.PrivateKey().RevealWIF(consensus.Bitcoin()) != want {
			t.Errorf("%s: %v", path, err)
		}
	}
}

// TestWIF: Bitcoin Core's private keys go in and out; those of other networks and its invalid ones are refused.
func TestWIF(t *testing.T) {
	nets := map[string]*consensus.Params{"main": consensus.Bitcoin(), "regtest": consensus.Regtest()}
	var valid [][3]any
	if err := json.Unmarshal(enginetest.Data(t, "core/key_io_valid.json"), &valid); err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, row := range valid {
		meta, _ := row[2].(map[string]any)
		net := nets[meta["chain"].(string)]
		if net == nil || !meta["isPrivkey"].(bool) {
			continue
		}
		n++
		k, err := keys.ParseWIF(row[0].(string), net)
		if err != nil {
			t.Errorf("%s: %v", row[0], err)
			continue
		}
		if k.Compressed() != meta["isCompressed"].(bool) || k.RevealWIF(net) != row[0].(string) {
			t.Errorf("%s becomes %s", row[0], k.RevealWIF(net))
		}
		again, err := keys.NewPrivateKey(unhex(t, row[1].(string)), k.Compressed())
		if err != nil || !bytes.Equal(again.PublicBytes(), k.PublicBytes()) {
			t.Errorf("%s: another key than %s: %v", row[0], row[1], err)
		}
		for name, other := range nets {
			if name == meta["chain"] {
				continue
			}
			if _, err := keys.ParseWIF(row[0].(string), other); err == nil {
				t.Errorf("%s is accepted on %s", row[0], name)
			}
		}
	}
	if n < 8 {
		t.Errorf("only %d keys", n)
	}
	var invalid [][1]string
	if err := json.Unmarshal(enginetest.Data(t, "core/key_io_invalid.json"), &invalid); err != nil {
		t.Fatal(err)
	}
	for _, row := range invalid {
		if _, err := keys.ParseWIF(row[0], consensus.Bitcoin()); err == nil {
			t.Errorf("%s is accepted", row[0])
		}
	}
}

// TestBIP341: the tweaked keys of BIP341's wallet vectors, and signatures by them.
func TestBIP341(t *testing.T) {
	var v struct {
		ScriptPubKey []struct {
			Given        struct{ InternalPubkey string }
			Intermediary struct{ MerkleRoot, TweakedPubkey string }
		}
		KeyPathSpending []struct {
			InputSpending []struct {
				Given        struct{ InternalPrivkey, MerkleRoot string }
				Intermediary struct{ InternalPubkey, TweakedPrivkey, SigHash string }
			}
		}
	}
	if err := json.Unmarshal(enginetest.Data(t, "core/bip341_wallet_vectors.json"), &v); err != nil {
		t.Fatal(err)
	}
	for _, c := range v.ScriptPubKey {
		internal, err := schnorr.ParsePubKey(unhex(t, c.Given.InternalPubkey))
		if err != nil {
			t.Fatal(err)
		}
		got := keys.TaprootOutputKey(internal, unhex(t, c.Intermediary.MerkleRoot))
		if hex.EncodeToString(schnorr.SerializePubKey(got)) != c.Intermediary.TweakedPubkey {
			t.Errorf("%s: another output key", c.Given.InternalPubkey)
		}
	}
	n := 0
	for _, in := range v.KeyPathSpending[0].InputSpending {
		k, err := keys.NewPrivateKey(unhex(t, in.Given.InternalPrivkey), true)
		if err != nil {
			t.Fatal(err)
		}
		tweaked, err := keys.NewPrivateKey(unhex(t, in.Intermediary.TweakedPrivkey), true)
		if err != nil {
			t.Fatal(err)
		}
		root := unhex(t, in.Given.MerkleRoot)
		hash := [32]byte(unhex(t, in.Intermediary.SigHash))
		out := keys.TaprootOutputKey(k.PublicKey(), root)
		if !bytes.Equal(schnorr.SerializePubKey(out), schnorr.SerializePubKey(tweaked.PublicKey())) {
			t.Errorf("%s: another tweaked key", in.Intermediary.InternalPubkey)
		}
		sig, err := k.SignSchnorr(hash, &keys.TapTweak{Root: root})
		if err != nil {
			t.Fatal(err)
		}
		if s, err := schnorr.ParseSignature(sig[:]); err != nil || !s.Verify(hash[:], tweaked.PublicKey()) || s.Verify(hash[:], k.PublicKey()) {
			t.Errorf("%s: the signature is not by the output key: %v", in.Intermediary.InternalPubkey, err)
		}
		plain, err := k.SignSchnorr(hash, nil)
		if err != nil {
			t.Fatal(err)
		}
		if s, err := schnorr.ParseSignature(plain[:]); err != nil || !s.Verify(hash[:], k.PublicKey()) {
			t.Errorf("%s: the signature is not by the key: %v", in.Intermediary.InternalPubkey, err)
		}
		n++
	}
	if n < 5 {
		t.Errorf("only %d keys", n)
	}
	k, err := keys.NewPrivateKey(bytes.Repeat([]byte{1}, 32), true)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := k.SignSchnorr([32]byte{}, &keys.TapTweak{Root: []byte{1}}); err == nil {
		t.Error("a root of one byte is accepted")
	}
	for range 50 {
		hash := sha256.Sum256([]byte{byte(n)})
		n++
		sig := k.SignECDSA(hash)
		if s, err := ecdsa.ParseDERSignature(sig); err != nil || !s.Verify(hash[:], k.PublicKey()) || ecdsa.VerifyLowS(sig) != nil || len(sig) > 70 {
			t.Errorf("signature %x: %v", sig, err)
		}
	}
	for _, bad := range []string{"", "00", strings.Repeat("00", 32), "fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141", strings.Repeat("ff", 32)} {
		if _, err := keys.NewPrivateKey(unhex(t, bad), true); err == nil {
			t.Errorf("private key %s is accepted", bad)
		}
	}
}

// TestSecretsDoNotPrint: no verb, no logger and no JSON shows a secret, also of one that is a field, exported or not, of
// something else.
func TestSecretsDoNotPrint(t *testing.T) {
	w := mustWords(t, about)
	seed := w.Seed("")
	x, err := keys.Master(seed, consensus.Bitcoin())
	if err != nil {
		t.Fatal(err)
	}
	ring := keys.NewRing()
	if _, err := ring.AddWords(w, "", consensus.Bitcoin()); err != nil {
		t.Fatal(err)
	}
	k := x.PrivateKey()
	v := newVault(t, ring, "a passphrase of ours")
	if err := v.Unlock([]byte("a passphrase of ours"), 0); err != nil {
		t.Fatal(err)
	}
	raw := unhex(t, "00000000000000000000000000000000")
	scalar := x.PrivateKey().RevealWIF(consensus.Bitcoin())
	var forbidden []string
	for _, s := range []string{"abandon", scalar, x.Reveal(), hex.EncodeToString(seed.Reveal()), "a passphrase of ours"} {
		forbidden = append(forbidden, s, fmt.Sprintf("%d", []byte(s)), fmt.Sprintf("%x", s))
	}
	for _, b := range [][]byte{raw, seed.Reveal(), base58.Decode(x.Reveal())[13:45], base58.Decode(x.Reveal())[46:78]} {
		forbidden = append(forbidden, fmt.Sprintf("%d", b), fmt.Sprintf("%#v", b), fmt.Sprintf("%x", b), strings.Trim(fmt.Sprintf("%d", b[:8]), "[]"))
	}
	for _, secret := range []any{
		w, *w, seed, *seed, x, *x, k, *k, ring, *ring, v, v.Spender(), v.Staker(), v.State(),
		struct{ S any }{w},
		struct{ s any }{w},
		struct{ s keys.Words }{*w},
		struct{ s keys.Seed }{*seed},
		struct{ s keys.XPrv }{*x},
		struct{ s keys.PrivateKey }{*k},
		struct{ s keys.Spender }{*v.Spender()},
		struct{ s *keys.Staker }{v.Staker()},
		struct{ s keys.Vault }{*v},
		struct{ s keys.Ring }{*ring},
		[]*keys.Seed{seed},
		map[string]*keys.PrivateKey{"k": k},
		[]any{v, k, x},
		&struct{ s *keys.Vault }{v},
	} {
		var out strings.Builder
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%T"} {
			fmt.Fprintf(&out, verb+"\n", secret)
		}
		b, _ := json.Marshal(secret)
		out.Write(b)
		slog.New(slog.NewTextHandler(&out, nil)).Info("logged", "secret", secret)
		slog.New(slog.NewJSONHandler(&out, nil)).Info("logged", "secret", secret)
		for _, s := range forbidden {
			if strings.Contains(strings.ToLower(out.String()), strings.ToLower(s)) {
				t.Errorf("%T shows %q:\n%s", secret, s, out.String())
			}
		}
	}
}

// TestRing: keys are found by where they come from, and only if the public key is the one asked for.
func TestRing(t *testing.T) {
	net := consensus.Bitcoin()
	ring := keys.NewRing()
	fp, err := ring.AddWords(mustWords(t, about), "", net)
	if err != nil || fp.String() != "73c5da0a" {
		t.Fatal(fp, err)
	}
	// An account of another master, imported with its origin, and its own fingerprint.
	other := mustXPrv(t, "000102030405060708090a0b0c0d0e0f")
	account, err := other.Derive(mustPath(t, "84h/0h/0h"))
	if err != nil {
		t.Fatal(err)
	}
	if err := ring.AddXPrv(account, keys.Origin{Fingerprint: other.Fingerprint(), Path: mustPath(t, "84h/0h/0h")}); err != nil {
		t.Fatal(err)
	}
	single, err := keys.ParseWIF("L4rK1yDtCWekvXuE6oXD9jCYfFNV2cWRpVuPLBcCU2z8TrisoyY1", net)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second time changes nothing
		if err := ring.AddKey(single); err != nil {
			t.Fatal(err)
		}
		if _, err := ring.AddWords(mustWords(t, about), "", net); err != nil {
			t.Fatal(err)
		}
	}
	if ring.Keys() != 1 || len(ring.Roots()) != 2 || ring.Roots()[0].Words != 12 || ring.Roots()[0].Passphrase {
		t.Fatalf("%+v", ring.Roots())
	}
	master, err := ring.Root(fp)
	if err != nil {
		t.Fatal(err)
	}
	at := func(x *keys.XPrv, path string) []byte {
		c, err := x.Derive(mustPath(t, path))
		if err != nil {
			t.Fatal(err)
		}
		return c.PrivateKey().PublicBytes()
	}
	for name, ref := range map[string]keys.Ref{
		"of the words":               {Origin: keys.Origin{Fingerprint: fp, Path: mustPath(t, "86h/0h/0h/0/3")}, PubKey: at(master, "86h/0h/0h/0/3")},
		"x-only":                     {Origin: keys.Origin{Fingerprint: fp, Path: mustPath(t, "86h/0h/0h/0/3")}, PubKey: at(master, "86h/0h/0h/0/3")[1:]},
		"of the account":             {Origin: keys.Origin{Fingerprint: other.Fingerprint(), Path: mustPath(t, "84h/0h/0h/1/9")}, PubKey: at(other, "84h/0h/0h/1/9")},
		"of the account, its own":    {Origin: keys.Origin{Fingerprint: account.Fingerprint(), Path: mustPath(t, "1/9")}, PubKey: at(other, "84h/0h/0h/1/9")},
		"single":                     {Origin: single.Origin(), PubKey: single.PublicBytes()},
		"single, of another origin":  {Origin: keys.Origin{Path: mustPath(t, "1/2")}, PubKey: single.PublicBytes()},
		"single, x-only":             {PubKey: single.PublicBytes()[1:]},
		"single, in its longer form": {PubKey: single.PublicKey().SerializeUncompressed()},
	} {
		if !ring.Has(ref) {
			t.Errorf("%s: not found", name)
			continue
		}
		hash := sha256.Sum256([]byte(name))
		sig, err := ring.SignECDSA(ref, hash)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		k, err := ring.PrivateKey(ref)
		if err != nil {
			t.Fatal(err)
		}
		if s, err := ecdsa.ParseDERSignature(sig); err != nil || !s.Verify(hash[:], k.PublicKey()) {
			t.Errorf("%s: signature: %v", name, err)
		}
	}
	for name, ref := range map[string]keys.Ref{
		"nothing":                 {},
		"another public key":      {Origin: keys.Origin{Fingerprint: fp, Path: mustPath(t, "86h/0h/0h/0/3")}, PubKey: at(master, "86h/0h/0h/0/4")},
		"another path":            {Origin: keys.Origin{Fingerprint: fp, Path: mustPath(t, "86h/0h/0h/0/4")}, PubKey: at(master, "86h/0h/0h/0/3")},
		"above the account":       {Origin: keys.Origin{Fingerprint: other.Fingerprint(), Path: mustPath(t, "84h/0h")}, PubKey: at(other, "84h/0h")},
		"beside the account":      {Origin: keys.Origin{Fingerprint: other.Fingerprint(), Path: mustPath(t, "84h/0h/1h/0/0")}, PubKey: at(other, "84h/0h/1h/0/0")},
		"a fingerprint of nobody": {Origin: keys.Origin{Fingerprint: keys.Fingerprint{1}, Path: mustPath(t, "0")}, PubKey: at(master, "0")},
	} {
		if ring.Has(ref) {
			t.Errorf("%s: found", name)
		}
		if _, err := ring.SignECDSA(ref, [32]byte{}); !errors.Is(err, keys.ErrNoKey) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := ring.SignSchnorr(ref, [32]byte{}, nil); !errors.Is(err, keys.ErrNoKey) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// What was copied out or in stays when the ring forgets.
	ring.Wipe()
	if ring.Keys() != 0 || len(ring.Roots()) != 0 {
		t.Error("a wiped ring is not empty")
	}
	if at(master, "0") == nil || single.RevealWIF(net) != "L4rK1yDtCWekvXuE6oXD9jCYfFNV2cWRpVuPLBcCU2z8TrisoyY1" {
		t.Error("wiping the ring reached what is not its own")
	}
}

// TestRingLimits: extended keys are bounded, and as many as there may be rest in a file.
func TestRingLimits(t *testing.T) {
	ring := keys.NewRing()
	x := mustXPrv(t, "000102030405060708090a0b0c0d0e0f")
	for i := range keys.MaxRoots {
		if err := ring.AddXPrv(x, keys.Origin{Path: keys.Path{uint32(i)}}); err != nil { //nolint:gosec // Small.
			t.Fatal(err)
		}
	}
	if err := ring.AddXPrv(x, keys.Origin{Path: keys.Path{keys.Hardened}}); err == nil {
		t.Error("one root too many")
	}
	v := newVault(t, ring, "p")
	if err := v.Unlock([]byte("p"), 0); err != nil {
		t.Fatal(err)
	}
	if roots, err := v.Spender().Roots(); err != nil || len(roots) != keys.MaxRoots {
		t.Errorf("%d roots, %v", len(roots), err)
	}
	if err := keys.NewRing().AddXPrv(x, keys.Origin{Path: make(keys.Path, 256)}); err == nil {
		t.Error("an origin of 256 steps")
	}
}
