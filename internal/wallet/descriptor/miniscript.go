package descriptor

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/btcsuite/btcd/address/v2"
	"github.com/btcsuite/btcd/txscript/v2"
)

// A fragment is one function of miniscript (BIP379).
type fragment uint8

const (
	fZero fragment = iota + 1
	fOne
	fPkK
	fPkH
	fOlder
	fAfter
	fSha256
	fHash256
	fRipemd160
	fHash160
	fAndOr
	fAndV
	fAndB
	fOrB
	fOrC
	fOrD
	fOrI
	fThresh
	fMulti
	fMultiA
	// Wrappers, of one letter.
	fWrapA
	fWrapS
	fWrapC
	fWrapD
	fWrapV
	fWrapJ
	fWrapN
)

// A node is one fragment of a script and what it is applied to. It is immutable once checked.
type node struct {
	f      fragment
	subs   []*node
	keys   []*keyExpr
	sorted bool   // of fMulti and fMultiA: the keys are sorted when the script is made
	k      uint32 // of fOlder, fAfter, fThresh, fMulti and fMultiA
	hash   []byte // of the hash fragments
	typ    props
}

func (n *node) with(replace func(*keyExpr) *keyExpr) *node {
	c := *n
	c.subs, c.keys = nil, nil
	for _, k := range n.keys {
		c.keys = append(c.keys, replace(k))
	}
	for _, s := range n.subs {
		c.subs = append(c.subs, s.with(replace))
	}
	return &c
}

// each visits n and all below it, in the order of the text.
func (n *node) each(f func(*node)) {
	f(n)
	for _, s := range n.subs {
		s.each(f)
	}
}

func (n *node) eachKey(f func(*keyExpr)) {
	n.each(func(n *node) {
		for _, k := range n.keys {
			f(k)
		}
	})
}

// pkNode is pk(key) with fPkK and pkh(key) with fPkH.
func pkNode(key *keyExpr, f fragment) *node {
	inner := &node{f: f, keys: []*keyExpr{key}}
	n := &node{f: fWrapC, subs: []*node{inner}}
	inner.typ, _ = inner.typeOf(false)
	n.typ, _ = n.typeOf(false)
	return n
}

// props are the type and the properties of a node, a bit a letter, as BIP379 names them: the types B, V,
// K and W; of correctness z (consumes no element), o (one), n (not zero on top), d (can be dissatisfied), u
// (leaves exactly 1); of malleability e (dissatisfied in one way), f (no dissatisfaction without signature), s (needs a signature), m (has
// a satisfaction that is not malleable); x (its last opcode has no VERIFY form); timelocks g (relative, time), h (relative, height), i (absolute,
// time), j (absolute, height), k (no way that needs a time and a height of the same kind).
type props uint32

func is(letters string) props {
	var p props
	for _, c := range []byte(letters) {
		p |= 1 << strings.IndexByte("BVKWzonduefsmxghijk", c)
	}
	return p
}

// has says whether p has every letter.
func (p props) has(letters string) bool { return p&is(letters) == is(letters) }

// keep returns those of the letters that p has.
func (p props) keep(letters string) props { return p & is(letters) }

// when returns the letters if a condition holds.
func when(cond bool, letters string) props {
	if cond {
		return is(letters)
	}
	return 0
}

// mixes says whether one way needs a time and a height of the same kind of lock, which no transaction has.
func mixes(x, y props) bool {
	return x.has("g") && y.has("h") || x.has("h") && y.has("g") || x.has("i") && y.has("j") || x.has("j") && y.has("i")
}

const (
	// relativeTime is the bit of nSequence that makes a relative lock one of time (BIP68).
	relativeTime = 1 << 22
	// absoluteTime is the first nLockTime that is a time.
	absoluteTime = 500_000_000
)

// typeOf computes the type of a node from those of its subs, by the tables of BIP379. The error says what does not fit.
func (n *node) typeOf(tap bool) (props, error) {
	var x, y, z props
	if len(n.subs) > 0 {
		x = n.subs[0].typ
	}
	if len(n.subs) > 1 {
		y = n.subs[1].typ
	}
	if len(n.subs) > 2 {
		z = n.subs[2].typ
	}
	either, both := x|y, x&y
	var t props
	switch n.f {
	case fZero:
		t = is("Bzudemsxk")
	case fOne:
		t = is("Bzufmxk")
	case fPkK:
		t = is("Konudemsxk")
	case fPkH:
		t = is("Knudemsxk")
	case fOlder:
		t = is("Bzfmxk") | when(n.k&relativeTime != 0, "g") | when(n.k&relativeTime == 0, "h")
	case fAfter:
		t = is("Bzfmxk") | when(n.k >= absoluteTime, "i") | when(n.k < absoluteTime, "j")
	case fSha256, fHash256, fRipemd160, fHash160:
		t = is("Bonudmk")
	case fMulti:
		t = is("Bnudemsk")
	case fMultiA:
		t = is("Budemsk")
	case fWrapA:
		t = when(x.has("B"), "W") | x.keep("ghijkudfems") | is("x")
	case fWrapS:
		t = when(x.has("Bo"), "W") | x.keep("ghijkudfemsx")
	case fWrapC:
		t = when(x.has("K"), "B") | x.keep("ghijkondfem") | is("us")
	case fWrapD:
		// Only tapscript's MINIMALIF of consensus makes the 1 that IF takes exactly 1.
		t = when(x.has("Vz"), "B") | when(x.has("z"), "o") | when(x.has("f"), "e") | x.keep("ghijkms") | when(tap, "u") | is("ndx")
	case fWrapV:
		t = when(x.has("B"), "V") | x.keep("ghijkzonms") | is("fx")
	case fWrapJ:
		t = when(x.has("Bn"), "B") | when(x.has("f"), "e") | x.keep("ghijkoums") | is("ndx")
	case fWrapN:
		t = x.keep("ghijkBzondfems") | is("ux")
	case fAndV:
		t = when(x.has("V"), "KVB")&y | x.keep("n") | when(x.has("z"), "n")&y | when(either.has("z"), "o")&either |
			both.keep("dmz") | either.keep("s") | when(y.has("f") || x.has("s"), "f") | y.keep("ux") | either.keep("ghij") |
			when(both.has("k") && !mixes(x, y), "k")
	case fAndB:
		t = when(y.has("W"), "B")&x | when(either.has("z"), "o")&either | x.keep("n") | when(x.has("z"), "n")&y |
			when(both.has("s"), "e")&both | both.keep("dzm") |
			when(both.has("f") || x.has("sf") || y.has("sf"), "f") | either.keep("s") | is("ux") | either.keep("ghij") |
			when(both.has("k") && !mixes(x, y), "k")
	case fOrB:
		t = when(x.has("Bd") && y.has("Wd"), "B") | when(either.has("z"), "o")&either |
			when(either.has("s") && both.has("e"), "m")&both | both.keep("zse") | is("dux") | either.keep("ghij") | both.keep("k")
	case fOrD:
		t = when(x.has("Bdu"), "B")&y | when(y.has("z"), "o")&x | when(x.has("e") && either.has("s"), "m")&both |
			both.keep("zs") | y.keep("ufde") | is("x") | either.keep("ghij") | both.keep("k")
	case fOrC:
		t = when(x.has("Bdu"), "V")&y | when(y.has("z"), "o")&x | when(x.has("e") && either.has("s"), "m")&both |
			both.keep("zs") | is("fx") | either.keep("ghij") | both.keep("k")
	case fOrI:
		t = both.keep("VBKufs") | when(both.has("z"), "o") | when(either.has("f"), "e")&either |
			when(either.has("s"), "m")&both | either.keep("d") | is("x") | either.keep("ghij") | both.keep("k")
	case fAndOr:
		t = when(x.has("Bdu"), "BKV")&y&z | (x & y & z).keep("z") | when((x|y&z).has("z"), "o")&(x|y&z) | (y & z).keep("u") |
			when(x.has("s") || y.has("f"), "f")&z | z.keep("d") | when(x.has("s") || y.has("f"), "e")&z |
			when(x.has("e") && (x|y|z).has("s"), "m")&(x&y&z) | (z & (x | y)).keep("s") | is("x") | (x | y | z).keep("ghij") |
			when((x&y&z).has("k") && !mixes(x, y), "k")
	case fThresh:
		t = n.threshType()
	}
	if types := t.keep("BVKW"); types == 0 || types&(types-1) != 0 {
		return 0, fmt.Errorf("%s does not take what is inside it (miniscript's types B, V, K, W)", n.name())
	}
	return t, nil
}

func (n *node) threshType() props {
	allE, allM, args, withSig := true, true, 0, 0
	locks := is("k")
	for i, s := range n.subs {
		want := "Wdu"
		if i == 0 {
			want = "Bdu"
		}
		if !s.typ.has(want) {
			return 0
		}
		allE, allM = allE && s.typ.has("e"), allM && s.typ.has("m")
		withSig += b2i(s.typ.has("s"))
		switch {
		case s.typ.has("z"):
		case s.typ.has("o"):
			args++
		default:
			args += 2
		}
		locks = (locks | s.typ).keep("ghij") | when((locks&s.typ).has("k") && (n.k <= 1 || !mixes(locks, s.typ)), "k")
	}
	total, k := len(n.subs), int(n.k)
	return is("Bdu") | when(args == 0, "z") | when(args == 1, "o") | when(allE && withSig == total, "e") |
		when(allE && allM && withSig >= total-k, "m") | when(withSig >= total-k+1, "s") | locks
}

// fragmentNames are the functions with a name; wrappers are letters.
var fragmentNames = map[fragment]string{
	fPkK: "pk_k", fPkH: "pk_h", fOlder: "older", fAfter: "after", fSha256: "sha256", fHash256: "hash256",
	fRipemd160: "ripemd160", fHash160: "hash160", fAndOr: "andor", fAndV: "and_v", fAndB: "and_b", fOrB: "or_b", fOrC: "or_c",
	fOrD: "or_d", fOrI: "or_i", fThresh: "thresh", fMulti: "multi", fMultiA: "multi_a",
}

var wrapperLetters = map[fragment]byte{fWrapA: 'a', fWrapS: 's', fWrapC: 'c', fWrapD: 'd', fWrapV: 'v', fWrapJ: 'j', fWrapN: 'n'}

// name returns the function's name, for errors and text.
func (n *node) name() string {
	switch {
	case n.f == fZero:
		return "0"
	case n.f == fOne:
		return "1"
	case n.sorted:
		return "sorted" + fragmentNames[n.f]
	case wrapperLetters[n.f] != 0:
		return string(wrapperLetters[n.f]) + ":"
	}
	return fragmentNames[n.f]
}

// String returns the text of the script, in its shortest form: pk, pkh, and_n, t:, l: and u: where they mean the same.
func (n *node) String() string {
	wrappers, inner := n.text()
	if wrappers != "" {
		return wrappers + ":" + inner
	}
	return inner
}

func (n *node) text() (wrappers, inner string) {
	wrap := func(letter byte, sub *node) (string, string) {
		w, in := sub.text()
		return string(letter) + w, in
	}
	switch {
	case n.f == fWrapC && n.subs[0].f == fPkK:
		return "", "pk(" + n.subs[0].keys[0].String() + ")"
	case n.f == fWrapC && n.subs[0].f == fPkH:
		return "", "pkh(" + n.subs[0].keys[0].String() + ")"
	case wrapperLetters[n.f] != 0:
		return wrap(wrapperLetters[n.f], n.subs[0])
	case n.f == fAndV && n.subs[1].f == fOne:
		return wrap('t', n.subs[0])
	case n.f == fOrI && n.subs[0].f == fZero:
		return wrap('l', n.subs[1])
	case n.f == fOrI && n.subs[1].f == fZero:
		return wrap('u', n.subs[0])
	case n.f == fZero || n.f == fOne:
		return "", n.name()
	case n.f == fAndOr && n.subs[2].f == fZero:
		return "", "and_n(" + n.subs[0].String() + "," + n.subs[1].String() + ")"
	}
	var args []string
	switch n.f {
	case fOlder, fAfter, fThresh, fMulti, fMultiA:
		args = append(args, strconv.FormatUint(uint64(n.k), 10))
	case fSha256, fHash256, fRipemd160, fHash160:
		args = append(args, hex.EncodeToString(n.hash))
	}
	for _, k := range n.keys {
		args = append(args, k.String())
	}
	for _, s := range n.subs {
		args = append(args, s.String())
	}
	return "", n.name() + "(" + strings.Join(args, ",") + ")"
}

// sortedKeys returns the keys in the order in which the script has them.
func (n *node) sortedKeys(e *env) []KeyRef {
	var refs []KeyRef
	for _, k := range n.keys {
		refs = append(refs, e.refs[k])
	}
	if n.sorted {
		slices.SortStableFunc(refs, func(a, b KeyRef) int { return bytes.Compare(a.PubKey, b.PubKey) })
	}
	return refs
}

// verifyForm are the opcodes that have one that ends in VERIFY.
var verifyForm = map[byte]byte{
	txscript.OP_CHECKSIG: txscript.OP_CHECKSIGVERIFY, txscript.OP_CHECKMULTISIG: txscript.OP_CHECKMULTISIGVERIFY,
	txscript.OP_EQUAL: txscript.OP_EQUALVERIFY, txscript.OP_NUMEQUAL: txscript.OP_NUMEQUALVERIFY,
}

// appendScript appends the script of n to b. With verify its last opcode is the form that ends in VERIFY; n has no x then.
func (n *node) appendScript(b []byte, e *env, verify bool) []byte {
	last := func(op byte) []byte {
		if verify {
			op = verifyForm[op]
		}
		return append(b, op)
	}
	sub := func(i int) { b = n.subs[i].appendScript(b, e, false) }
	switch n.f {
	case fZero:
		return append(b, txscript.OP_0)
	case fOne:
		return append(b, txscript.OP_1)
	case fPkK:
		return appendPush(b, e.refs[n.keys[0]].PubKey)
	case fPkH:
		b = append(b, txscript.OP_DUP, txscript.OP_HASH160)
		b = appendPush(b, address.Hash160(e.refs[n.keys[0]].PubKey))
		return append(b, txscript.OP_EQUALVERIFY)
	case fOlder:
		return append(appendInt(b, n.k), txscript.OP_CHECKSEQUENCEVERIFY)
	case fAfter:
		return append(appendInt(b, n.k), txscript.OP_CHECKLOCKTIMEVERIFY)
	case fSha256, fHash256, fRipemd160, fHash160:
		b = append(appendInt(append(b, txscript.OP_SIZE), 32), txscript.OP_EQUALVERIFY, map[fragment]byte{
			fSha256: txscript.OP_SHA256, fHash256: txscript.OP_HASH256, fRipemd160: txscript.OP_RIPEMD160, fHash160: txscript.OP_HASH160,
		}[n.f])
		b = appendPush(b, n.hash)
		return last(txscript.OP_EQUAL)
	case fMulti:
		b = appendInt(b, n.k)
		for _, ref := range n.sortedKeys(e) {
			b = appendPush(b, ref.PubKey)
		}
		b = appendInt(b, uint32(len(n.keys))) //nolint:gosec // At most maxMultiKeys.
		return last(txscript.OP_CHECKMULTISIG)
	case fMultiA:
		for i, ref := range n.sortedKeys(e) {
			b = append(appendPush(b, ref.PubKey), [...]byte{txscript.OP_CHECKSIGADD, txscript.OP_CHECKSIG}[b2i(i == 0)])
		}
		b = appendInt(b, n.k)
		return last(txscript.OP_NUMEQUAL)
	case fWrapA:
		b = append(b, txscript.OP_TOALTSTACK)
		sub(0)
		return append(b, txscript.OP_FROMALTSTACK)
	case fWrapS:
		return n.subs[0].appendScript(append(b, txscript.OP_SWAP), e, verify)
	case fWrapC:
		sub(0)
		return last(txscript.OP_CHECKSIG)
	case fWrapD:
		b = append(b, txscript.OP_DUP, txscript.OP_IF)
		sub(0)
		return append(b, txscript.OP_ENDIF)
	case fWrapV:
		if n.subs[0].typ.has("x") {
			sub(0)
			return append(b, txscript.OP_VERIFY)
		}
		return n.subs[0].appendScript(b, e, true)
	case fWrapJ:
		b = append(b, txscript.OP_SIZE, txscript.OP_0NOTEQUAL, txscript.OP_IF)
		sub(0)
		return append(b, txscript.OP_ENDIF)
	case fWrapN:
		sub(0)
		return append(b, txscript.OP_0NOTEQUAL)
	case fAndV:
		sub(0)
		return n.subs[1].appendScript(b, e, verify)
	case fAndB:
		sub(0)
		sub(1)
		return append(b, txscript.OP_BOOLAND)
	case fOrB:
		sub(0)
		sub(1)
		return append(b, txscript.OP_BOOLOR)
	case fOrD:
		sub(0)
		b = append(b, txscript.OP_IFDUP, txscript.OP_NOTIF)
		sub(1)
		return append(b, txscript.OP_ENDIF)
	case fOrC:
		sub(0)
		b = append(b, txscript.OP_NOTIF)
		sub(1)
		return append(b, txscript.OP_ENDIF)
	case fOrI:
		b = append(b, txscript.OP_IF)
		sub(0)
		b = append(b, txscript.OP_ELSE)
		sub(1)
		return append(b, txscript.OP_ENDIF)
	case fAndOr:
		sub(0)
		b = append(b, txscript.OP_NOTIF)
		sub(2)
		b = append(b, txscript.OP_ELSE)
		sub(1)
		return append(b, txscript.OP_ENDIF)
	case fThresh:
		for i := range n.subs {
			sub(i)
			if i > 0 {
				b = append(b, txscript.OP_ADD)
			}
		}
		b = appendInt(b, n.k)
		return last(txscript.OP_EQUAL)
	}
	panic("descriptor: unknown fragment " + n.name())
}

// appendPush appends the shortest push of 2 to 520 bytes.
func appendPush(b, data []byte) []byte {
	switch n := len(data); {
	case n <= 75:
		b = append(b, byte(n)) //nolint:gosec // Checked.
	case n <= 255:
		b = append(b, txscript.OP_PUSHDATA1, byte(n)) //nolint:gosec // Checked.
	default:
		b = append(b, txscript.OP_PUSHDATA2, byte(n), byte(n>>8)) //nolint:gosec // At most maxRedeemBytes.
	}
	return append(b, data...)
}

// appendInt appends the shortest push of a number.
func appendInt(b []byte, n uint32) []byte {
	if n <= 16 {
		if n == 0 {
			return append(b, txscript.OP_0)
		}
		return append(b, txscript.OP_1+byte(n)-1)
	}
	var le []byte
	for v := n; v > 0; v >>= 8 {
		le = append(le, byte(v)) //nolint:gosec // The low byte is meant.
	}
	if le[len(le)-1]&0x80 != 0 {
		le = append(le, 0) // the sign bit
	}
	return append(append(b, byte(len(le))), le...) //nolint:gosec // At most 5.
}
