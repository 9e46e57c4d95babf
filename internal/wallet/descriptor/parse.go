package descriptor

import (
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	addr "github.com/btcsuite/btcd/address/v2"
	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/txscript/v2"

	"dunlin/chain/consensus"
	"dunlin/internal/address"
)

// A context is where an expression stands, which decides what is allowed in it.
type context uint8

const (
	atTop       context = iota
	inScript            // sh
	inWitness           // wsh, wpkh
	inTapscript         // tr, rawtr
)

// Parse reads a descriptor, with or without its checksum, which must be right if it is there. Keys and addresses must be of the
// given network. Hardened steps are written with ' or h. Errors do not show keys.
//
// Inside wsh and tr it reads miniscript (BIP379), all of it, and accepts what is sane: typed, of limited
// size, with a signature needed for every way to spend, not malleable, without two timelocks that exclude each other, no key twice.
func Parse(text string, net *consensus.Params) (*Descriptor, error) { return parse(text, net, false) }

// ParseStrict is [Parse], but demands the checksum ([ErrNoChecksum]): for descriptors that were copied from elsewhere.
func ParseStrict(text string, net *consensus.Params) (*Descriptor, error) {
	return parse(text, net, true)
}

func parse(text string, net *consensus.Params, strict bool) (*Descriptor, error) {
	body, err := splitChecksum(text, strict)
	if err != nil {
		return nil, err
	}
	p := &parser{text: body, d: &Descriptor{net: net}}
	if err := p.top(); err != nil {
		return nil, err
	}
	if p.at < len(p.text) {
		return nil, p.errorf("something follows the end of the descriptor")
	}
	return p.d, p.d.check()
}

// check is what only the whole shows.
func (d *Descriptor) check() error {
	n := 1
	for _, k := range d.all {
		if len(k.tuple) == 0 {
			continue
		}
		if n > 1 && len(k.tuple) != n {
			return errors.New("<…> steps of different lengths: they are taken together, one from each")
		}
		n = len(k.tuple)
	}
	return nil
}

// A parser reads one descriptor from left to right.
type parser struct {
	text  string
	at    int
	depth int // of functions
	steps int // of all keys
	d     *Descriptor
}

// errorf says where, and never what: the text may hold private keys.
func (p *parser) errorf(format string, args ...any) error {
	return fmt.Errorf("descriptor at character %d: %w", p.at+1, fmt.Errorf(format, args...))
}

// name reads letters, digits and underscores up to a delimiter.
func (p *parser) name() string {
	n := strings.IndexFunc(p.text[p.at:], func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '_'
	})
	if n < 0 {
		n = len(p.text) - p.at
	}
	s := p.text[p.at : p.at+n]
	p.at += n
	return s
}

// take consumes one character if it is the next.
func (p *parser) take(c byte) bool {
	if p.at < len(p.text) && p.text[p.at] == c {
		p.at++
		return true
	}
	return false
}

func (p *parser) expect(c byte) error {
	if !p.take(c) {
		return p.errorf("%q is expected", string(c))
	}
	return nil
}

// argument reads up to the next comma, brace or bracket that belongs to the functions.
func (p *parser) argument() string {
	n := strings.IndexAny(p.text[p.at:], ",(){}")
	if n < 0 {
		n = len(p.text) - p.at
	}
	s := p.text[p.at : p.at+n]
	p.at += n
	return s
}

func (p *parser) key(ctx context) (*keyExpr, error) {
	start := p.at
	k, err := parseKey(p.argument(), ctx, p.d.net)
	if err != nil {
		p.at = start
		return nil, p.errorf("key: %w", err)
	}
	if p.steps += len(k.steps) + len(k.tuple) + len(k.after); p.steps > maxSteps {
		return nil, p.errorf("more than %d steps behind keys in all", maxSteps)
	}
	p.d.all = append(p.d.all, k)
	return k, nil
}

// top reads the whole descriptor.
func (p *parser) top() (err error) {
	name := p.name()
	d := p.d
	switch name {
	case "wpkh", "combo", "tr", "rawtr", "sh", "wsh", "addr", "raw":
		if err = p.expect('('); err != nil {
			return err
		}
	default:
		p.at = 0
		if d.script, err = p.script(atTop); err != nil {
			return err
		}
		d.kind = map[fragment]Kind{fWrapC: Pk, fMulti: Multi}[d.script.f]
		if d.kind == Pk && d.script.subs[0].f == fPkH {
			d.kind = Pkh
		}
		return nil
	}
	switch name {
	case "wpkh":
		d.kind = Wpkh
		d.key, err = p.key(inWitness)
	case "combo":
		d.kind = Combo
		d.key, err = p.key(atTop)
	case "rawtr":
		d.kind = Rawtr
		d.key, err = p.key(inTapscript)
	case "tr":
		d.kind = Tr
		if d.key, err = p.key(inTapscript); err == nil && p.take(',') {
			d.tree, err = p.tree(0)
		}
	case "sh":
		err = p.scriptHash()
	case "wsh":
		d.kind = Wsh
		d.script, err = p.script(inWitness)
	case "addr":
		d.kind, d.addr = Addr, p.argument()
		if d.raw, err = address.Script(d.addr, address.Params(d.net)); err != nil {
			err = p.errorf("address: %w", err)
		}
	case "raw":
		d.kind = Raw
		if d.raw, err = hex.DecodeString(p.argument()); err != nil {
			err = p.errorf("a script in hexadecimal digits is expected")
		}
	}
	if err != nil {
		return err
	}
	return p.expect(')')
}

// scriptHash reads what is inside sh.
func (p *parser) scriptHash() (err error) {
	start := p.at
	d := p.d
	switch p.name() {
	case "wpkh":
		d.kind = ShWpkh
		if err = p.expect('('); err == nil {
			d.key, err = p.key(inWitness)
		}
	case "wsh":
		d.kind = ShWsh
		if err = p.expect('('); err == nil {
			d.script, err = p.script(inWitness)
		}
	default:
		p.at = start
		d.kind = Sh
		d.script, err = p.script(inScript)
		return err
	}
	if err != nil {
		return err
	}
	return p.expect(')')
}

// tree reads a script tree.
func (p *parser) tree(depth int) (*tree, error) {
	if depth > MaxTreeDepth {
		return nil, p.errorf("a script tree of more than %d levels", MaxTreeDepth)
	}
	if !p.take('{') {
		leaf, err := p.script(inTapscript)
		return &tree{leaf: leaf}, err
	}
	left, err := p.tree(depth + 1)
	if err != nil {
		return nil, err
	}
	if err := p.expect(','); err != nil {
		return nil, err
	}
	right, err := p.tree(depth + 1)
	if err != nil {
		return nil, err
	}
	return &tree{left: left, right: right}, p.expect('}')
}

// script reads one whole script and checks it.
func (p *parser) script(ctx context) (*node, error) {
	start := p.at
	n, err := p.expression(ctx, true)
	if err != nil {
		return nil, err
	}
	if err := checkScript(n, ctx); err != nil {
		p.at = start
		return nil, p.errorf("%w", err)
	}
	return n, nil
}

// named are the functions that [parser.function] reads, and how many scripts each takes.
var named = map[string]struct {
	f    fragment
	subs int
}{
	"pk": {fPkK, 0}, "pkh": {fPkH, 0}, "pk_k": {fPkK, 0}, "pk_h": {fPkH, 0}, "older": {fOlder, 0}, "after": {fAfter, 0},
	"sha256": {fSha256, 0}, "hash256": {fHash256, 0}, "ripemd160": {fRipemd160, 0}, "hash160": {fHash160, 0},
	"andor": {fAndOr, 3}, "and_v": {fAndV, 2}, "and_b": {fAndB, 2}, "and_n": {fAndOr, 2}, "or_b": {fOrB, 2}, "or_c": {fOrC, 2},
	"or_d": {fOrD, 2}, "or_i": {fOrI, 2}, "thresh": {fThresh, 0},
	"multi": {fMulti, 0}, "sortedmulti": {fMulti, 0}, "multi_a": {fMultiA, 0}, "sortedmulti_a": {fMultiA, 0},
}

// expression reads one expression of a script, with its wrappers, and types it. root says that it is the whole script.
func (p *parser) expression(ctx context, root bool) (*node, error) {
	if p.depth++; p.depth > MaxDepth {
		return nil, p.errorf("more than %d functions in one another", MaxDepth)
	}
	defer func() { p.depth-- }()
	start := p.at
	name := p.name()
	wrappers := ""
	if p.take(':') {
		if wrappers = name; len(wrappers) == 0 || len(wrappers) > maxWrappers {
			return nil, p.errorf("1 to %d wrappers are expected before a colon", maxWrappers)
		}
		start, root = p.at, false
		name = p.name()
	}
	n, err := p.function(name, start, ctx, root)
	if err != nil {
		return nil, err
	}
	for i := len(wrappers) - 1; i >= 0; i-- {
		if ctx == atTop || ctx == inScript {
			return nil, p.errorf("wrappers outside wsh and tr")
		}
		w, err := wrap(wrappers[i], n)
		if err == nil {
			n, err = typed(w, ctx)
		}
		if err != nil {
			return nil, p.errorf("%w", err)
		}
	}
	return n, nil
}

// typed types a node and what wrap may have put beside its sub.
func typed(n *node, ctx context) (*node, error) {
	var err error
	for _, s := range n.subs {
		if s.typ == 0 {
			if s.typ, err = s.typeOf(ctx == inTapscript); err != nil {
				return nil, err
			}
		}
	}
	n.typ, err = n.typeOf(ctx == inTapscript)
	return n, err
}

// wrap applies one wrapper.
func wrap(letter byte, n *node) (*node, error) {
	switch letter {
	case 't':
		return &node{f: fAndV, subs: []*node{n, {f: fOne}}}, nil
	case 'l':
		return &node{f: fOrI, subs: []*node{{f: fZero}, n}}, nil
	case 'u':
		return &node{f: fOrI, subs: []*node{n, {f: fZero}}}, nil
	}
	for f, l := range wrapperLetters {
		if l == letter {
			return &node{f: f, subs: []*node{n}}, nil
		}
	}
	return nil, errors.New("an unknown wrapper: there are a, s, c, t, d, v, j, n, l and u")
}

// function reads a function that name was read of, which stands at start.
func (p *parser) function(name string, start int, ctx context, root bool) (*node, error) {
	legacy := ctx == atTop || ctx == inScript
	if name == "0" || name == "1" {
		if legacy {
			p.at = start
			return nil, p.errorf("a script is expected")
		}
		return typed(&node{f: map[string]fragment{"0": fZero, "1": fOne}[name]}, ctx)
	}
	form, known := named[name]
	simple := name == "pk" || name == "pkh" || strings.HasSuffix(name, "multi")
	multi := strings.Contains(name, "multi")
	switch {
	case slices.Contains([]string{"sh", "wsh", "wpkh", "combo", "tr", "rawtr", "addr", "raw"}, name):
		p.at = start
		return nil, p.errorf("%s(…) is not allowed here", name)
	case !known:
		p.at = start
		return nil, p.errorf("a function is expected, as pk, pkh, multi, or one of miniscript")
	case legacy && !simple:
		p.at = start
		return nil, p.errorf("%s(…) is allowed inside wsh and tr only", name)
	case multi && strings.HasSuffix(name, "_a") != (ctx == inTapscript):
		p.at = start
		return nil, p.errorf("multi and sortedmulti belong outside tr, multi_a and sortedmulti_a inside")
	case strings.HasPrefix(name, "sorted") && !root:
		p.at = start
		return nil, p.errorf("%s(…) must be the whole script", name)
	}
	if err := p.expect('('); err != nil {
		return nil, err
	}
	n := &node{f: form.f, sorted: strings.HasPrefix(name, "sorted")}
	var err error
	switch n.f {
	case fPkK, fPkH:
		var k *keyExpr
		if k, err = p.key(ctx); err == nil {
			n.keys = []*keyExpr{k}
		}
	case fOlder, fAfter:
		n.k, err = p.number(1<<31 - 1)
	case fSha256, fHash256, fRipemd160, fHash160:
		n.hash, err = p.hash(map[bool]int{true: 32, false: 20}[n.f == fSha256 || n.f == fHash256])
	case fMulti, fMultiA:
		err = p.multi(n, ctx)
	case fThresh:
		err = p.thresh(n, ctx)
	default:
		err = p.subs(n, form.subs, ctx)
		if name == "and_n" {
			n.subs = append(n.subs, &node{f: fZero})
		}
	}
	if err == nil {
		err = p.expect(')')
	}
	if err != nil {
		return nil, err
	}
	if n, err = typed(n, ctx); err != nil {
		return nil, p.errorf("%w", err)
	}
	if name == "pk" || name == "pkh" {
		return typed(&node{f: fWrapC, subs: []*node{n}}, ctx)
	}
	return n, nil
}

func (p *parser) subs(n *node, count int, ctx context) error {
	for i := range count {
		if i > 0 {
			if err := p.expect(','); err != nil {
				return err
			}
		}
		s, err := p.expression(ctx, false)
		if err != nil {
			return err
		}
		n.subs = append(n.subs, s)
	}
	return nil
}

// number reads 1 to most.
func (p *parser) number(most uint32) (uint32, error) {
	start := p.at
	s := p.argument()
	v, err := strconv.ParseUint(s, 10, 32)
	if err != nil || v < 1 || v > uint64(most) || s[0] == '0' {
		p.at = start
		return 0, p.errorf("a number from 1 to %d is expected", most)
	}
	return uint32(v), nil
}

func (p *parser) hash(size int) ([]byte, error) {
	start := p.at
	b, err := hex.DecodeString(p.argument())
	if err != nil || len(b) != size {
		p.at = start
		return nil, p.errorf("a hash of %d hexadecimal digits is expected", 2*size)
	}
	return b, nil
}

func (p *parser) multi(n *node, ctx context) (err error) {
	most := map[context]int{atTop: maxBareKeys, inScript: maxMultiKeys, inWitness: maxMultiKeys, inTapscript: maxMultiAKeys}[ctx]
	start := p.at
	if n.k, err = p.number(maxMultiAKeys); err != nil {
		return err
	}
	for p.take(',') {
		if len(n.keys) == most {
			return p.errorf("more than %d keys", most)
		}
		k, err := p.key(ctx)
		if err != nil {
			return err
		}
		n.keys = append(n.keys, k)
	}
	if int(n.k) > len(n.keys) {
		p.at = start
		return p.errorf("%d signatures of %d keys", n.k, len(n.keys))
	}
	return nil
}

func (p *parser) thresh(n *node, ctx context) (err error) {
	start := p.at
	if n.k, err = p.number(maxStack); err != nil {
		return err
	}
	for p.take(',') {
		if len(n.subs) == maxThresh {
			return p.errorf("more than %d conditions", maxThresh)
		}
		s, err := p.expression(ctx, false)
		if err != nil {
			return err
		}
		n.subs = append(n.subs, s)
	}
	if int(n.k) > len(n.subs) {
		p.at = start
		return p.errorf("%d of %d conditions", n.k, len(n.subs))
	}
	return nil
}

// checkScript checks what holds for a whole script only.
func checkScript(n *node, ctx context) error {
	e := placeholders(n, ctx)
	script := n.appendScript(nil, e, false)
	if !n.typ.has("B") {
		return errors.New("the script is not of type B: it would not leave true or false")
	}
	if ctx == inScript && len(script) > maxRedeemBytes {
		return fmt.Errorf("a script of %d bytes: sh takes %d", len(script), maxRedeemBytes)
	}
	if ctx == atTop || ctx == inScript {
		return nil
	}
	// A lone multisig may repeat a key; nobody is harmed.
	lone := n.f == fMulti || n.f == fMultiA
	seen := make(map[string]bool)
	twice := false
	n.eachKey(func(k *keyExpr) {
		s := k.String()
		twice = twice || seen[s]
		seen[s] = true
	})
	size := n.size(sizes(ctx == inTapscript))
	stack := size.sat.items + 2*n.height() + stackReserve
	if lone {
		stack = size.sat.items + 1 // a key is pushed on what is left
	}
	switch {
	case !n.typ.has("s"):
		return errors.New("there is a way to spend without any signature")
	case !n.typ.has("m"):
		return errors.New("the script is malleable: others could change the witness")
	case !n.typ.has("k"):
		return errors.New("a way to spend needs a time and a height of the same kind of timelock, which no transaction has")
	case twice && !lone:
		return errors.New("a key is used twice")
	case !size.sat.ok:
		return errors.New("there is no way to spend")
	case ctx == inWitness && len(script) > maxWshBytes:
		return fmt.Errorf("a script of %d bytes: wsh takes %d", len(script), maxWshBytes)
	case ctx == inWitness && size.sat.items > maxWshItems:
		return fmt.Errorf("a witness of %d items: wsh takes %d", size.sat.items, maxWshItems)
	case ctx == inWitness && countOps(script)+size.sat.multiKeys > maxOps:
		return fmt.Errorf("a script of %d operations: %d are allowed", countOps(script)+size.sat.multiKeys, maxOps)
	case stack > maxStack:
		return fmt.Errorf("a witness of %d items: the stack takes %d", size.sat.items, maxStack)
	}
	return nil
}

// stackReserve is what a fragment has on the stack beside its inputs, at most.
const stackReserve = 8

// height is the number of nodes from n to the deepest below it.
func (n *node) height() int {
	h := 0
	for _, s := range n.subs {
		h = max(h, s.height())
	}
	return h + 1
}

// countOps counts what the limit of operations counts.
func countOps(script []byte) int {
	ops := 0
	for t := txscript.MakeScriptTokenizer(0, script); t.Next(); {
		if t.Opcode() > txscript.OP_16 {
			ops++
		}
	}
	return ops
}

// placeholders is an env with keys of the right lengths.
func placeholders(n *node, ctx context) *env {
	e := &env{tap: ctx == inTapscript, refs: make(map[*keyExpr]KeyRef)}
	n.eachKey(func(k *keyExpr) {
		size := 33
		switch {
		case e.tap:
			size = 32
		case k.uncompressed():
			size = 65
		}
		e.refs[k] = KeyRef{PubKey: make([]byte, size)}
	})
	return e
}

// String returns the public form, with checksum: without private keys, hardened steps with h.
func (d *Descriptor) String() string {
	var s string
	switch d.kind {
	case Pk, Pkh, Multi:
		s = d.script.String()
	case Sh:
		s = "sh(" + d.script.String() + ")"
	case Wsh:
		s = "wsh(" + d.script.String() + ")"
	case ShWsh:
		s = "sh(wsh(" + d.script.String() + "))"
	case ShWpkh:
		s = "sh(wpkh(" + d.key.String() + "))"
	case Addr:
		s = "addr(" + d.addr + ")"
	case Raw:
		s = "raw(" + hex.EncodeToString(d.raw) + ")"
	case Tr:
		s = "tr(" + d.key.String()
		if d.tree != nil {
			s += "," + d.tree.String()
		}
		s += ")"
	default:
		s = d.kind.String() + "(" + d.key.String() + ")"
	}
	sum, err := Checksum(s)
	if err != nil {
		return s // longer than what was parsed by origins that were added: it works without a checksum
	}
	return s + "#" + sum
}

func p2sh(script []byte) []byte {
	return append(append([]byte{txscript.OP_HASH160, 20}, addr.Hash160(script)...), txscript.OP_EQUAL)
}

func p2wsh(script []byte) []byte {
	return append([]byte{txscript.OP_0, 32}, chainhash.HashB(script)...)
}

func addressOf(script []byte, net *consensus.Params) (string, bool) {
	return address.Of(script, address.Params(net))
}
