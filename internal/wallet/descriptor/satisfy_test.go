package descriptor_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/btcsuite/btcd/address/v2"
	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/txscript/v2"
	"github.com/btcsuite/btcd/wire/v2"
	"golang.org/x/crypto/ripemd160" //nolint:gosec,staticcheck // The script's opcode is what it is.

	"dunlin/chain/consensus"
	"dunlin/internal/wallet/descriptor"
	"dunlin/internal/wallet/keys"
)

// A spend is a transaction that spends one output, and a satisfier for it.
type spend struct {
	t    testing.TB
	o    *descriptor.Output
	tx   *wire.MsgTx
	ring *keys.Ring
	// only are the public keys that sign; nil: all of the ring.
	only      [][]byte
	preimages [][]byte
	scripts   bool // no key path
}

const value = 123_456_789

// newSpend: sequence and lock time decide which timelocks hold.
func newSpend(t testing.TB, o *descriptor.Output, ring *keys.Ring, sequence, lockTime uint32) *spend {
	t.Helper()
	tx := wire.NewMsgTx(2)
	in := wire.NewTxIn(wire.NewOutPoint(&chainhash.Hash{1}, 3), nil, nil)
	in.Sequence = sequence
	tx.AddTxIn(in)
	tx.AddTxOut(wire.NewTxOut(value-1000, []byte{txscript.OP_TRUE}))
	tx.LockTime = lockTime
	return &spend{t: t, o: o, tx: tx, ring: ring}
}

func (s *spend) fetcher() txscript.PrevOutputFetcher {
	return txscript.NewCannedPrevOutputFetcher(s.o.PkScript, value)
}

func (s *spend) Signature(k descriptor.KeyRef, leaf *[32]byte) ([]byte, bool) {
	if s.only != nil && !slices.ContainsFunc(s.only, func(b []byte) bool { return bytes.Equal(xOnly(b), xOnly(k.PubKey)) }) || s.scripts && leaf == nil {
		return nil, false
	}
	hashes := txscript.NewTxSigHashes(s.tx, s.fetcher())
	var hash []byte
	var err error
	switch s.o.SigVersion {
	case descriptor.Legacy:
		hash, err = txscript.CalcSignatureHash(s.o.ScriptCode, txscript.SigHashAll, s.tx, 0)
	case descriptor.WitnessV0:
		hash, err = txscript.CalcWitnessSigHash(s.o.ScriptCode, hashes, txscript.SigHashAll, s.tx, 0, value)
	case descriptor.Taproot:
		if leaf == nil {
			hash, err = txscript.CalcTaprootSignatureHash(hashes, txscript.SigHashDefault, s.tx, 0, s.fetcher())
			break
		}
		for _, l := range s.o.Taproot.Leaves {
			if l.Hash == *leaf {
				hash, err = txscript.CalcTapscriptSignaturehash(hashes, txscript.SigHashDefault, s.tx, 0, s.fetcher(), txscript.NewBaseTapLeaf(l.Script))
			}
		}
	}
	if err != nil {
		s.t.Fatal(err)
	}
	if s.o.SigVersion == descriptor.Taproot {
		var tweak *keys.TapTweak
		if leaf == nil {
			tweak = s.o.Taproot.Tweak()
		}
		sig, err := s.ring.SignSchnorr(k, [32]byte(hash), tweak)
		return sig[:], err == nil
	}
	sig, err := s.ring.SignECDSA(k, [32]byte(hash))
	return append(sig, byte(txscript.SigHashAll)), err == nil
}

func xOnly(pubKey []byte) []byte {
	if len(pubKey) > 32 {
		return pubKey[1:33]
	}
	return pubKey
}

func (s *spend) Preimage(kind descriptor.HashKind, hash []byte) ([]byte, bool) {
	for _, p := range s.preimages {
		if bytes.Equal(hashOf(kind, p), hash) {
			return p, true
		}
	}
	return nil, false
}

func hashOf(kind descriptor.HashKind, p []byte) []byte {
	switch kind {
	case descriptor.SHA256:
		return chainhash.HashB(p)
	case descriptor.HASH256:
		return chainhash.DoubleHashB(p)
	case descriptor.HASH160:
		return address.Hash160(p)
	}
	return ripemd(p)
}

func (s *spend) Older(n uint32) bool {
	return descriptor.OlderHolds(n, s.tx.TxIn[0].Sequence, s.tx.Version)
}

func (s *spend) After(n uint32) bool {
	return descriptor.AfterHolds(n, s.tx.LockTime, s.tx.TxIn[0].Sequence)
}

// run satisfies the output and lets btcd's engine and our own checker judge, by the rules of relay. It returns the weight.
func (s *spend) run() (int, error) {
	s.t.Helper()
	witness, sigScript, err := s.o.Satisfy(s)
	if err != nil {
		return 0, err
	}
	s.tx.TxIn[0].Witness, s.tx.TxIn[0].SignatureScript = witness, sigScript
	if err := execute(s.o.PkScript, s.tx); err != nil {
		s.t.Errorf("%x with %x, %x: %v", s.o.PkScript, witness, sigScript, err)
	}
	w := descriptor.Weight(witness, sigScript)
	if w > s.o.MaxWeight {
		s.t.Errorf("%s: weighs %d, more than %d", s.o.Kind(), w, s.o.MaxWeight)
	}
	return w, nil
}

// execute runs the scripts by both engines.
func execute(pkScript []byte, tx *wire.MsgTx) error {
	fetcher := txscript.NewCannedPrevOutputFetcher(pkScript, value)
	vm, err := txscript.NewEngine(pkScript, tx, 0, txscript.StandardVerifyFlags, nil, txscript.NewTxSigHashes(tx, fetcher), value, fetcher)
	if err == nil {
		err = vm.Execute()
	}
	coins := []consensus.Coin{{Value: value, Script: pkScript}}
	if ours := consensus.CheckTxScripts(tx, coins, uint32(txscript.StandardVerifyFlags)); (ours == nil) != (err == nil) {
		return fmt.Errorf("the engines disagree: %w", errors.Join(errors.New("btcd's first"), err, ours))
	}
	return err
}

func privateOf(t testing.TB, d *descriptor.Descriptor) *keys.Ring {
	t.Helper()
	r := keys.NewRing()
	if err := d.AddTo(r); err != nil {
		t.Fatal(err)
	}
	return r
}

const (
	noLock = 0xfffffffd // a sequence that signals replacement and satisfies no relative lock
	hot    = "xprv9s21ZrQH143K3QTDL4LXw2F7HEK3wJUD2nW2nRk4stbPy6cq3jPPqjiChkVvvNKmPGJxWUtg6LnF5kejMRNNU3TGtRBeJgk33yuGBxrMPHi"
)

// TestSpendEveryKind: every kind of descriptor spends, by the private keys that its text had, found by the origins of its public form; and the
// weight of those whose size is known is exact or a byte a signature less.
func TestSpendEveryKind(t *testing.T) {
	for text, want := range map[string]int{
		"pk(" + hot + "/1/*)":                                                 4 * 74,
		"pkh(" + hot + "/1h/*)":                                               4 * 108,
		"wpkh(" + hot + "/84h/0h/0h/0/*)":                                     112,
		"sh(wpkh(" + hot + "/*h))":                                            204,
		"tr(" + hot + "/86h/*)":                                               70,
		"rawtr(" + hot + "/*)":                                                70,
		"pkh(5KYZdUEo39z3FPrtuX2QbbwGnNP5zTd7yyr2SC1j299sBCnWjss)":            0,
		"sh(pk(5KYZdUEo39z3FPrtuX2QbbwGnNP5zTd7yyr2SC1j299sBCnWjss))":         0,
		"multi(2," + hot + "/1/*," + hot + "/2/*," + hot + "/3/*)":            0,
		"sh(sortedmulti(2," + hot + "/1/*," + hot + "/2/*," + hot + "/3/*))":  0,
		"wsh(sortedmulti(2," + hot + "/1/*," + hot + "/2/*," + hot + "/3/*))": 4 + 1 + 1 + 2*73 + 1 + 105,
		"sh(wsh(multi(1," + hot + "/1/*," + hot + "/2/*)))":                   0,
		"sh(multi(15" + strings.Repeat(","+hot+"/1", 15) + "))":               0,
		"wsh(multi(20" + strings.Repeat(","+hot+"/1", 20) + "))":              0,
		"tr(" + keyX + ",pk(" + hot + "/1))":                                  4 + 1 + 65 + 35 + 34,
		"tr(" + keyX + ",{multi_a(2," + hot + "/1," + hot + "/2," + hot + "/3),sortedmulti_a(3," + hot + "/1," + hot + "/2," + hot + "/4)})": 0,
		"tr(" + keyX + ",{{pkh(" + hot + "/1),sha256(0000000000000000000000000000000000000000000000000000000000000000)},pk(" + hot + "/2)})": -1,
		"tr(" + keyX + ",{{pkh(" + hot + "/1),and_v(v:pk(" + hot + "/3),older(10))},pk(" + hot + "/2)})":                                     0,
	} {
		d, err := descriptor.Parse(text, consensus.Bitcoin())
		if err != nil {
			if want >= 0 {
				t.Errorf("%s: %v", text, err)
			}
			continue
		}
		if want < 0 {
			t.Errorf("%s: accepted", text)
			continue
		}
		ring := privateOf(t, d)
		source := d
		if pub, err := d.Public(); err == nil {
			source = pub
		}
		indices := []uint32{0, 1, 1 << 30}
		if testing.Short() {
			indices = indices[2:]
		}
		for _, index := range indices {
			o := mustDerive(t, source, index)
			for _, ref := range o.Keys {
				if !ring.Has(ref) && !strings.HasPrefix(hex.EncodeToString(ref.PubKey), "50929b74") {
					t.Errorf("%s: key %s is not found", d, ref)
				}
			}
			w, err := newSpend(t, o, ring, noLock, 0).run()
			if err != nil {
				t.Errorf("%s: %v", d, err)
			}
			if want > 0 && (o.MaxWeight != want || w > want || w < want-16) {
				t.Errorf("%s: weighs %d, at most %d, want %d", d, w, o.MaxWeight, want)
			}
		}
		if _, err := newSpend(t, mustDerive(t, source, 0), keys.NewRing(), noLock, 0).run(); !errors.Is(err, descriptor.ErrUnsatisfied) {
			t.Errorf("%s without keys: %v", d, err)
		}
	}
	for _, text := range []string{"raw(51)", "addr(3PUNyaW7M55oKWJ3kDukwk9bsKvryra15j)"} {
		o := mustDerive(t, mustParse(t, text, consensus.Bitcoin()), 0)
		if _, err := newSpend(t, o, keys.NewRing(), 0, 0).run(); !errors.Is(err, descriptor.ErrUnknownScript) || o.MaxWeight != 0 {
			t.Errorf("%s: %v", text, err)
		}
	}
}

// TestLargestMultiA: 999 keys, as many as the stack holds, spend; one more is refused.
func TestLargestMultiA(t *testing.T) {
	if testing.Short() {
		t.Log("a thousand keys take a minute under the race detector")
		return
	}
	ring := keys.NewRing()
	var list strings.Builder
	for i := range 1000 {
		sum := sha256.Sum256([]byte{byte(i), byte(i >> 8), 1})
		k, err := keys.NewPrivateKey(sum[:], true)
		if err != nil {
			t.Fatal(err)
		}
		if err := ring.AddKey(k); err != nil {
			t.Fatal(err)
		}
		if i == 999 {
			break
		}
		fmt.Fprintf(&list, ",%x", k.PublicBytes()[1:])
	}
	text := "tr(" + keyX + ",multi_a(100" + list.String() + "))"
	o := mustDerive(t, mustParse(t, text, consensus.Bitcoin()), 0)
	if w, err := newSpend(t, o, ring, noLock, 0).run(); err != nil || w != o.MaxWeight {
		t.Errorf("weighs %d, at most %d: %v", w, o.MaxWeight, err)
	}
	if _, err := descriptor.Parse(strings.Replace(text, "multi_a(100", "multi_a(500,"+keyX, 1), consensus.Bitcoin()); err == nil {
		t.Error("1,000 keys are accepted")
	}
}

// TestTimelocks: what people use timelocks for, in P2WSH and in tapscript: before and after the time, with and without the keys.
func TestTimelocks(t *testing.T) {
	preimage := bytes.Repeat([]byte{0xab}, 32)
	a, b, c := hot+"/1", hot+"/2", hot+"/3"
	hash := hex.EncodeToString(chainhash.HashB(preimage))
	hash20 := hex.EncodeToString(address.Hash160(preimage))
	type try struct {
		signers  string // of a, b, c
		preimage bool
		sequence uint32
		lockTime uint32
		ok       bool
	}
	for script, tries := range map[string][]try{
		// Savings that another key reaches after a year.
		"or_d(pk(A),and_v(v:pkh(B),older(52560)))": {
			{"a", false, noLock, 0, true},
			{"b", false, noLock, 0, false},
			{"b", false, 52559, 0, false},
			{"b", false, 52560, 0, true},
			{"b", false, 52561, 0, true},
			{"b", false, 1<<22 | 52560, 0, false},
			{"b", false, 1<<31 | 52560, 0, false},
			{"c", false, 52560, 0, false},
			{"ab", false, 52560, 0, true},
		},
		// The same by time.
		"or_d(pk(A),and_v(v:pk(B),older(4194310)))": {
			{"b", false, 6, 0, false},
			{"b", false, 1<<22 | 5, 0, false},
			{"b", false, 1<<22 | 6, 0, true},
		},
		// Frozen until a height, and until a time.
		"and_v(v:pk(A),after(700000))": {
			{"a", false, noLock, 699_999, false},
			{"a", false, noLock, 700_000, true},
			{"a", false, noLock, 1_700_000_000, false},
			{"a", false, 0xffffffff, 700_000, false},
			{"", false, noLock, 700_000, false},
		},
		"and_v(v:pk(A),after(1700000000))": {
			{"a", false, noLock, 1_699_999_999, false},
			{"a", false, noLock, 1_700_000_000, true},
			{"a", false, noLock, 700_000, false},
		},
		// A swap: b with the preimage, a after the time.
		"andor(pk(B),sha256(H),and_v(v:pk(A),older(144)))": {
			{"b", true, noLock, 0, true},
			{"b", false, noLock, 0, false},
			{"a", false, 144, 0, true},
			{"a", true, noLock, 0, false},
		},
		"or_i(and_v(v:pkh(B),hash160(h)),and_v(v:pkh(A),after(500)))": {
			{"b", true, noLock, 0, true},
			{"a", false, noLock, 500, true},
			{"a", false, noLock, 499, false},
			{"ab", true, noLock, 500, true},
		},
		// Two of three, one of them after a quarter.
		"thresh(2,pk(A),s:pk(B),sln:older(12960))": {
			{"ab", false, noLock, 0, true},
			{"a", false, 12960, 0, true},
			{"b", false, 12960, 0, true},
			{"a", false, 12959, 0, false},
			{"", false, 12960, 0, false},
		},
		"andor(pk(A),older(1008),pk(B))": {
			{"a", false, 1008, 0, true},
			{"a", false, noLock, 0, false},
			{"b", false, noLock, 0, true},
		},
		"and_v(or_c(pk(A),v:older(1000)),pk(B))": {
			{"ab", false, noLock, 0, true},
			{"b", false, 1000, 0, true},
			{"b", false, noLock, 0, false},
		},
		"and_b(pk(A),a:or_b(pk(B),s:pk(C)))": {
			{"ab", false, noLock, 0, true},
			{"ac", false, noLock, 0, true},
			{"abc", false, noLock, 0, true},
			{"bc", false, noLock, 0, false},
		},
		"andor(pk(A),j:and_v(v:older(5),pkh(B)),pk(C))": {
			{"ab", false, 5, 0, true},
			{"ab", false, noLock, 0, false},
			{"c", false, noLock, 0, true},
			{"a", false, 5, 0, false},
		},
		"t:or_c(pk(A),and_v(v:pk(B),or_c(pk(C),v:ripemd160(R))))": {
			{"a", false, noLock, 0, true},
			{"bc", false, noLock, 0, true},
			{"b", true, noLock, 0, true},
			{"b", false, noLock, 0, false},
		},
		"and_n(pk(A),and_b(hash256(D),a:pk(B)))": {
			{"ab", true, noLock, 0, true},
			{"ab", false, noLock, 0, false},
		},
		"u:and_v(v:pk(A),after(10))": {
			{"a", false, noLock, 10, true},
			{"a", false, noLock, 9, false},
		},
	} {
		text := strings.NewReplacer("A", a, "B", b, "C", c, "H", hash, "h)", hash20+")", "R", hex.EncodeToString(ripemd(preimage)), "D", hex.EncodeToString(chainhash.DoubleHashB(preimage))).Replace(script)
		forms := []string{"wsh(%s)", "tr(" + keyX + ",%s)", "sh(wsh(%s))"}
		if testing.Short() {
			forms = forms[:2]
		}
		for _, form := range forms {
			d := mustParse(t, fmt.Sprintf(form, text), consensus.Bitcoin())
			if again := mustParse(t, d.String(), consensus.Bitcoin()); again.String() != d.String() {
				t.Errorf("%s becomes %s", d, again)
			}
			ring := privateOf(t, d)
			o := mustDerive(t, d, 0)
			master, err := keys.ParseXPrv(hot, consensus.Bitcoin())
			if err != nil {
				t.Fatal(err)
			}
			for _, try := range tries {
				s := newSpend(t, o, ring, try.sequence, try.lockTime)
				s.only = [][]byte{}
				for _, who := range try.signers {
					x, err := master.Derive(keys.Path{uint32(who-'a') + 1}) //nolint:gosec // a to c.
					if err != nil {
						t.Fatal(err)
					}
					s.only = append(s.only, x.PrivateKey().PublicBytes())
				}
				if try.preimage {
					s.preimages = [][]byte{preimage}
				}
				if _, err := s.run(); (err == nil) != try.ok || err != nil && !errors.Is(err, descriptor.ErrUnsatisfied) {
					t.Errorf("%s in %s: %+v: %v", script, form, try, err)
				}
			}
		}
	}
}

func ripemd(p []byte) []byte {
	h := ripemd160.New()
	h.Write(p)
	return h.Sum(nil)
}

// TestRandomScripts: of random scripts that Parse takes for sane, Satisfy finds a way whenever the policy that the text
// states is fulfilled and never else; both engines accept it; and
// nobody can make another valid witness of it by replacing up to two items with what needs no key, or by leaving one out.
func TestRandomScripts(t *testing.T) {
	wantScripts, tries, mutations, mutated := 120, 8, 40, 0
	if testing.Short() { // the race detector makes a signature take 5 ms
		wantScripts, tries, mutations = 20, 3, 3
	}
	seed := uint64(20261121)
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1)) //nolint:gosec // Reproducible on purpose.
	preimage := bytes.Repeat([]byte{0xcd}, 32)
	var wifs []string
	var pubs [][]byte
	ring := keys.NewRing()
	for i := range 8 {
		sum := sha256.Sum256([]byte{byte(i)})
		k, err := keys.NewPrivateKey(sum[:], true)
		if err != nil {
			t.Fatal(err)
		}
		if err := ring.AddKey(k); err != nil {
			t.Fatal(err)
		}
		wifs = append(wifs, hex.EncodeToString(k.PublicBytes()))
		pubs = append(pubs, k.PublicBytes())
	}
	scripts, spent, kinds := 0, 0, make(map[string]int)
	for scripts < wantScripts {
		tap := r.IntN(2) == 0
		g := &generator{r: r, keys: wifs, tap: tap, hash: hex.EncodeToString(chainhash.HashB(preimage)), hash20: hex.EncodeToString(address.Hash160(preimage))}
		p := g.policy("B", 3)
		text := "wsh(" + p.text + ")"
		if tap {
			text = "tr(" + keyX + "," + p.text + ")"
		}
		d, err := descriptor.Parse(text, consensus.Bitcoin())
		if err != nil || len(g.used) < 2 {
			continue
		}
		scripts++
		for _, f := range []string{"and_v", "and_b", "or_b", "or_c", "or_d", "or_i", "andor", "thresh", "multi", "older", "after", "sha256", "hash160", "pkh"} {
			kinds[f] += min(1, strings.Count(p.text, f))
		}
		if again := mustParse(t, d.String(), consensus.Bitcoin()); again.String() != d.String() {
			t.Fatalf("%s becomes %s", d, again)
		}
		o := mustDerive(t, d, 0)
		for range tries {
			facts := r.Uint32()
			sequence, lockTime := uint32(noLock), uint32(0)
			if facts>>10&1 == 1 {
				sequence = 10
			}
			if facts>>11&1 == 1 {
				lockTime = 100
			}
			s := newSpend(t, o, ring, sequence, lockTime)
			s.only = [][]byte{}
			have := make(map[string]bool)
			for i := range pubs {
				if facts>>(12+i)&1 == 1 {
					s.only = append(s.only, pubs[i])
					have[wifs[i]] = true
				}
			}
			if facts>>9&1 == 1 {
				s.preimages = [][]byte{preimage}
				have["hash"] = true
			}
			have["older"], have["after"] = sequence == 10, lockTime == 100
			_, err := s.run()
			if err == nil {
				spent++
				if mutated < mutations && len(s.tx.TxIn[0].Witness) < 9 {
					mutated++
					s.mutate(text)
				}
			}
			if want := p.holds(have); (err == nil) != want {
				t.Errorf("%s: facts %v: %v", text, have, err)
			}
		}
	}
	t.Logf("%d spends of %d scripts, with %v", spent, scripts, kinds)
	for f, n := range kinds {
		if n == 0 && !testing.Short() {
			t.Errorf("no script has %s", f)
		}
	}
}

// mutate does to a valid witness what somebody without keys can do.
func (s *spend) mutate(text string) {
	s.t.Helper()
	in := s.tx.TxIn[0]
	good := in.Witness
	defer func() { in.Witness = good }()
	fixed := 1 // the script, and in tapscript the control block, which are checked against the output
	if s.o.Taproot != nil {
		fixed = 2
	}
	free := len(good) - fixed
	hashes := txscript.NewTxSigHashes(s.tx, s.fetcher())
	try := func(witness wire.TxWitness) {
		in.Witness = witness
		vm, err := txscript.NewEngine(s.o.PkScript, s.tx, 0, txscript.StandardVerifyFlags, nil, hashes, value, s.fetcher())
		if err == nil && vm.Execute() == nil {
			s.t.Errorf("%s: %x is valid as well as %x", text, witness, good)
		}
	}
	others := [][]byte{nil, {1}, make([]byte, 32)}
	for i := range free {
		try(slices.Delete(slices.Clone(good), i, i+1))
		try(slices.Insert(slices.Clone(good), i, nil))
		for _, a := range others {
			if bytes.Equal(a, good[i]) {
				continue
			}
			one := slices.Clone(good)
			one[i] = a
			try(one)
			for j := range i {
				for _, b := range others {
					if bytes.Equal(b, good[j]) {
						continue
					}
					two := slices.Clone(one)
					two[j] = b
					try(two)
				}
			}
		}
	}
}

// TestLocks: the comparisons of BIP65, BIP68 and BIP112, and the locks of an output.
func TestLocks(t *testing.T) {
	for _, c := range []struct {
		n, sequence uint32
		version     int32
		want        bool
	}{
		{1, 1, 2, true},
		{2, 1, 2, false},
		{1, 1, 1, false},
		{1, 1, -1, true},
		{1, 0xffffffff, 2, false},
		{1, 1<<31 | 1, 2, false},
		{1<<22 | 3, 1<<22 | 3, 2, true},
		{1<<22 | 3, 1<<22 | 2, 2, false},
		{1<<22 | 3, 3, 2, false},
		{3, 1<<22 | 3, 2, false},
		{0xffff, 0xffff, 2, true},
		{1<<16 | 1, 1, 2, true},
		{1, 1<<16 | 1, 2, true}, // bits without meaning
	} {
		if got := descriptor.OlderHolds(c.n, c.sequence, c.version); got != c.want {
			t.Errorf("older(%#x) with %#x, version %d: %v", c.n, c.sequence, c.version, got)
		}
	}
	for _, c := range []struct {
		n, lockTime, sequence uint32
		want                  bool
	}{
		{5, 5, 0, true},
		{6, 5, 0, false},
		{5, 5, 0xffffffff, false},
		{5, 5, 0xfffffffe, true},
		{499_999_999, 500_000_000, 0, false},
		{500_000_000, 499_999_999, 0, false},
		{500_000_000, 500_000_000, 0, true},
		{1, 0, 0, false},
	} {
		if got := descriptor.AfterHolds(c.n, c.lockTime, c.sequence); got != c.want {
			t.Errorf("after(%d) with %d, %#x: %v", c.n, c.lockTime, c.sequence, got)
		}
	}
	pk := "pk(" + key33(0) + ")"
	for text, want := range map[string]string{
		"wsh(and_v(and_v(v:" + pk + ",v:older(7)),and_v(v:older(3),after(9))))":                                            "[3 7] [9]",
		"tr(" + keyX + ",{and_v(v:" + pk + ",older(7)),and_v(v:pk(" + key33(1) + "),and_v(v:after(600000000),older(7)))})": "[7] [600000000]",
		"wpkh(" + key33(0) + ")": "[] []",
		"raw(51)":                "[] []",
	} {
		older, after := mustDerive(t, mustParse(t, text, consensus.Bitcoin()), 0).Locks()
		if got := fmt.Sprint(older, after); got != want {
			t.Errorf("%s: %s", text, got)
		}
	}
}

// TestWipe: a wiped descriptor has no private key left to hand over, and its public form was taken before.
func TestWipe(t *testing.T) {
	d := mustParse(t, "wsh(multi(2,"+hot+"/1h/*,L4rK1yDtCWekvXuE6oXD9jCYfFNV2cWRpVuPLBcCU2z8TrisoyY1))", consensus.Bitcoin())
	ring := privateOf(t, d)
	pub, err := d.Public()
	if err != nil || !pub.Equal(d) || pub.Params().Name != "bitcoin" || pub.Kind() != descriptor.Wsh {
		t.Fatal(pub, err)
	}
	d.Wipe()
	o := mustDerive(t, pub, 9)
	if _, err := newSpend(t, o, ring, noLock, 0).run(); err != nil {
		t.Errorf("the keys that were handed over: %v", err)
	}
}

// A policy is a script as text and what it means.
type policy struct {
	text  string
	holds func(have map[string]bool) bool
}

// A generator makes random scripts, each key once.
type generator struct {
	r            *rand.Rand
	keys, used   []string
	tap          bool
	hash, hash20 string
}

func (g *generator) key() string {
	k := g.keys[len(g.used)%len(g.keys)]
	g.used = append(g.used, k)
	return k
}

// wrapped puts a wrapper around a policy, which means the same.
func wrapped(letter string, p policy) policy {
	if i := strings.IndexByte(p.text, ':'); i >= 0 && !strings.Contains(p.text[:i], "(") {
		return policy{letter + p.text, p.holds}
	}
	return policy{letter + ":" + p.text, p.holds}
}

// policy makes a script that is likely of a type: "B", "V", "W", or with D one that can be dissatisfied and leaves 1.
func (g *generator) policy(typ string, depth int) policy {
	switch typ {
	case "V":
		if depth > 0 {
			switch g.r.IntN(8) {
			case 0:
				return g.two("and_v", "V", "V", depth, true)
			case 1:
				return g.two("or_c", "BD", "V", depth, false)
			case 2:
				return g.two("or_i", "V", "V", depth, false)
			case 3:
				return g.andor("V", depth)
			}
		}
		return wrapped("v", g.policy("B", depth))
	case "W":
		return wrapped([]string{"a", "s"}[g.r.IntN(2)], g.policy("B", depth))
	case "WD":
		if g.r.IntN(3) == 0 {
			return wrapped([]string{"al", "sl", "an", "sn", "aln", "sln"}[g.r.IntN(6)], g.policy("B", depth))
		}
		return wrapped([]string{"a", "s"}[g.r.IntN(2)], g.policy("BD", depth))
	case "BD":
		if depth == 0 || g.r.IntN(2) == 0 {
			switch g.r.IntN(6) {
			case 0:
				return g.multi()
			case 1:
				return g.leaf(4)
			case 2:
				return wrapped([]string{"n", "ln", "un", "nl", "j"}[g.r.IntN(5)], g.policy("B", depth))
			default:
				return g.leaf(5)
			}
		}
		switch g.r.IntN(8) {
		case 0, 5, 6, 7:
			return g.thresh(depth)
		case 1:
			return g.two("or_b", "BD", "WD", depth, false)
		case 2:
			return g.two("or_d", "BD", "BD", depth, false)
		case 3:
			return g.two("and_n", "BD", "B", depth, true)
		default:
			return g.two("and_b", "BD", "WD", depth, true)
		}
	}
	if depth == 0 || g.r.IntN(5) == 0 {
		if g.r.IntN(5) == 0 {
			return g.multi()
		}
		return g.leaf(g.r.IntN(6))
	}
	switch g.r.IntN(10) {
	case 0, 1, 2:
		return g.two("and_v", "V", "B", depth, true)
	case 3:
		return g.two("and_b", "B", "W", depth, true)
	case 4:
		return g.two("or_d", "BD", "B", depth, false)
	case 5:
		return g.two("or_i", "B", "B", depth, false)
	case 6:
		return g.andor("B", depth)
	case 7:
		return wrapped([]string{"t", "dv", "l", "u", "n", "j"}[g.r.IntN(6)], g.policy([]string{"V", "B", "B", "B", "B", "B"}[g.r.IntN(6)], depth-1))
	default:
		return g.policy("BD", depth)
	}
}

func (g *generator) two(name, first, second string, depth int, and bool) policy {
	x, y := g.policy(first, depth-1), g.policy(second, depth-1)
	return policy{name + "(" + x.text + "," + y.text + ")", func(have map[string]bool) bool {
		if and {
			return x.holds(have) && y.holds(have)
		}
		return x.holds(have) || y.holds(have)
	}}
}

func (g *generator) andor(typ string, depth int) policy {
	x, y, z := g.policy("BD", depth-1), g.policy(typ, depth-1), g.policy(typ, depth-1)
	return policy{"andor(" + x.text + "," + y.text + "," + z.text + ")", func(have map[string]bool) bool {
		return x.holds(have) && y.holds(have) || z.holds(have)
	}}
}

func (g *generator) thresh(depth int) policy {
	subs := []policy{g.policy("BD", depth-1), g.policy("WD", depth-1), g.policy("WD", depth-1)}
	k := 1 + g.r.IntN(3)
	return policy{fmt.Sprintf("thresh(%d,%s,%s,%s)", k, subs[0].text, subs[1].text, subs[2].text), func(have map[string]bool) bool {
		n := 0
		for _, p := range subs {
			if p.holds(have) {
				n++
			}
		}
		return n >= k
	}}
}

// leaf makes one condition.
func (g *generator) leaf(kind int) policy {
	fact := func(form, arg, name string) policy {
		return policy{fmt.Sprintf(form, arg), func(have map[string]bool) bool { return have[name] }}
	}
	switch kind {
	case 0:
		return fact("older(%s)", "10", "older")
	case 1:
		return fact("after(%s)", "100", "after")
	case 2:
		return fact("sha256(%s)", g.hash, "hash")
	case 3:
		return fact("hash160(%s)", g.hash20, "hash")
	case 4:
		k := g.key()
		return fact("pkh(%s)", k, k)
	default:
		k := g.key()
		return fact("pk(%s)", k, k)
	}
}

func (g *generator) multi() policy {
	name := "multi"
	if g.tap {
		name = "multi_a"
	}
	ks := []string{g.key(), g.key()}
	k := 1 + g.r.IntN(2)
	return policy{fmt.Sprintf("%s(%d,%s)", name, k, strings.Join(ks, ",")), func(have map[string]bool) bool {
		n := 0
		for _, key := range ks {
			if have[key] {
				n++
			}
		}
		return n >= k
	}}
}
