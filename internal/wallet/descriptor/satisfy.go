package descriptor

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/btcsuite/btcd/txscript/v2"
	"github.com/btcsuite/btcd/wire/v2"
)

// A HashKind is one of the four hashes of which a script may ask the preimage, always of 32 bytes.
type HashKind uint8

// Hashes of scripts.
const (
	SHA256 HashKind = iota + 1
	HASH256
	RIPEMD160
	HASH160
)

// String returns the function's name in descriptors.
func (k HashKind) String() string {
	return [...]string{"?", "sha256", "hash256", "ripemd160", "hash160"}[k%5]
}

// A Satisfier has what a script may ask for. It is asked more than once for the same thing and must give the same answer.
type Satisfier interface {
	// Signature returns the signature by a key, as it stands in the witness: DER and the byte of the hash type, or of taproot 64
	// bytes or 65 with the hash type. leaf is the hash of the leaf that is executed, nil for the key path and all that is not taproot;
	// there, key is the internal key, and the signature that of the output key.
	Signature(key KeyRef, leaf *[32]byte) ([]byte, bool)
	// Preimage returns the 32 bytes that hash to hash.
	Preimage(kind HashKind, hash []byte) ([]byte, bool)
	// Older says whether the input's sequence satisfies a relative lock (see [OlderHolds]).
	Older(n uint32) bool
	// After says whether the transaction's lock time satisfies an absolute lock (see [AfterHolds]).
	After(n uint32) bool
}

// ErrUnsatisfied means that the satisfier has too little. The error that wraps it says what was asked for and missing.
var ErrUnsatisfied = errors.New("the output cannot be spent yet")

// ErrUnknownScript means that the descriptor does not say how the output is spent (addr, raw).
var ErrUnknownScript = errors.New("the descriptor does not say how this output is spent")

// Satisfy returns the witness and the signature script that spend the output: of all ways that the satisfier has
// the means for, the lightest that nobody else can change. Errors: [ErrUnsatisfied], [ErrUnknownScript].
func (o *Output) Satisfy(s Satisfier) (witness [][]byte, sigScript []byte, err error) {
	if o.env == nil {
		return nil, nil, ErrUnknownScript
	}
	if o.Taproot != nil {
		witness, err = o.satisfyTaproot(s)
		return witness, nil, err
	}
	ask := &asking{s: s, env: o.env}
	got := o.script.satisfy(ask).sat
	if !got.ok || got.malleable {
		return nil, nil, ask.err()
	}
	items := got.items()
	switch {
	case o.SigVersion == Legacy:
		for _, item := range items {
			sigScript = appendItem(sigScript, item)
		}
		if o.RedeemScript != nil {
			sigScript = appendPush(sigScript, o.RedeemScript)
		}
		return nil, sigScript, nil
	case o.WitnessScript != nil:
		items = append(items, o.WitnessScript)
	}
	if o.RedeemScript != nil {
		sigScript = appendPush(nil, o.RedeemScript)
	}
	return items, sigScript, nil
}

func (o *Output) satisfyTaproot(s Satisfier) ([][]byte, error) {
	key := o.Keys[0]
	if sig, ok := s.Signature(key, nil); ok {
		return [][]byte{sig}, nil // no leaf is lighter
	}
	missing := &asking{s: s}
	missing.miss("signature by " + key.String())
	var best [][]byte
	for i := range o.Taproot.Leaves {
		l := &o.Taproot.Leaves[i]
		ask := &asking{s: s, env: l.env, leaf: &l.Hash}
		got := l.script.satisfy(ask).sat
		if !got.ok || got.malleable {
			missing.missing = append(missing.missing, ask.missing...)
			continue
		}
		witness := append(got.items(), l.Script, l.ControlBlock)
		if best == nil || Weight(witness, nil) < Weight(best, nil) {
			best = witness
		}
	}
	if best == nil {
		return nil, missing.err()
	}
	return best, nil
}

// appendItem appends the push of a stack item as a signature script must have it.
func appendItem(b, item []byte) []byte {
	switch {
	case len(item) == 0:
		return append(b, txscript.OP_0)
	case len(item) == 1 && item[0] >= 1 && item[0] <= 16:
		return appendInt(b, uint32(item[0]))
	}
	return appendPush(b, item)
}

// Weight returns what a witness and a signature script weigh, as [Output.MaxWeight] counts. In a transaction that has a witness, an
// input without one weighs 1 more.
func Weight(witness [][]byte, sigScript []byte) int {
	w := 4 * withCount(len(sigScript))
	if len(witness) == 0 {
		return w
	}
	w += wire.VarIntSerializeSize(uint64(len(witness)))
	for _, item := range witness {
		w += withCount(len(item))
	}
	return w
}

// withCount is the size of n bytes with their length before them.
func withCount(n int) int {
	return wire.VarIntSerializeSize(uint64(n)) + n //nolint:gosec // A length.
}

// An asking remembers what was asked for in vain.
type asking struct {
	s       Satisfier
	env     *env
	leaf    *[32]byte
	missing []string
}

func (a *asking) miss(what string) {
	if !slices.Contains(a.missing, what) {
		a.missing = append(a.missing, what)
	}
}

// maxMissing is how many missing things an error names.
const maxMissing = 8

func (a *asking) err() error {
	if len(a.missing) == 0 {
		return fmt.Errorf("%w: what is there could be changed by others", ErrUnsatisfied)
	}
	shown, more := a.missing, ""
	if len(shown) > maxMissing {
		shown, more = shown[:maxMissing], fmt.Sprintf(" and %d more", len(a.missing)-maxMissing)
	}
	return fmt.Errorf("%w: missing %s%s", ErrUnsatisfied, strings.Join(shown, ", "), more)
}

func (a *asking) signature(ref KeyRef) input {
	sig, ok := a.s.Signature(ref, a.leaf)
	if !ok {
		a.miss("signature by " + ref.String())
		return input{}
	}
	in := one(sig)
	in.signed = true
	return in
}

// An input is one way to satisfy or dissatisfy a node: what to put on the stack. The zero input is none.
type input struct {
	ok        bool
	signed    bool // has a signature, so that others cannot make it
	malleable bool // others could make another of it
	stack     *rope
	bytes     int // with lengths
}

// A rope is a list of stack items, the deepest first, that is cheap to join.
type rope struct {
	left, right *rope
	item        []byte
}

func one(item []byte) input {
	return input{ok: true, stack: &rope{item: item}, bytes: withCount(len(item))}
}

func nothing() input { return input{ok: true} }

// below returns in with more on top of it; none if either is none.
func (in input) below(top input) input {
	if !in.ok || !top.ok {
		return input{}
	}
	out := input{
		ok: true, signed: in.signed || top.signed, malleable: in.malleable || top.malleable, bytes: in.bytes + top.bytes,
		stack: in.stack,
	}
	switch {
	case out.stack == nil:
		out.stack = top.stack
	case top.stack != nil:
		out.stack = &rope{left: in.stack, right: top.stack}
	}
	return out
}

// or chooses between two ways, as BIP379 says: others may always take a way without signatures, so where there is one, only it is
// sure; where there are two, what is chosen can be changed. Of the rest the lighter is chosen.
func (in input) or(other input) input {
	switch {
	case !in.ok:
		return other
	case !other.ok:
		return in
	case in.signed != other.signed:
		if in.signed {
			return other
		}
		return in
	case !in.signed:
		in.malleable, other.malleable = true, true
	case in.malleable != other.malleable:
		if in.malleable {
			return other
		}
		return in
	}
	if other.bytes < in.bytes {
		return other
	}
	return in
}

// change marks a way that others can replace.
func (in input) change() input {
	in.malleable = true
	return in
}

// items returns the stack, the deepest first.
func (in input) items() (items [][]byte) {
	todo := []*rope{in.stack}
	for len(todo) > 0 {
		r := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		switch {
		case r == nil:
		case r.left == nil:
			items = append(items, r.item)
		default:
			todo = append(todo, r.right, r.left)
		}
	}
	return items
}

// Ways are the best satisfaction and the best dissatisfaction of a node.
type ways struct{ sat, dis input }

// satisfy finds the ways of n (BIP379, satisfactions). A dissatisfaction that others could use in its place is taken into account even
// where a better one exists.
func (n *node) satisfy(a *asking) ways {
	var x, y, z ways
	if n.f != fThresh {
		for i, s := range n.subs {
			*[...]*ways{&x, &y, &z}[i] = s.satisfy(a)
		}
	}
	zero, oneItem := one(nil), one([]byte{1})
	switch n.f {
	case fZero:
		return ways{dis: nothing()}
	case fOne:
		return ways{sat: nothing()}
	case fPkK:
		return ways{a.signature(a.env.refs[n.keys[0]]), zero}
	case fPkH:
		ref := a.env.refs[n.keys[0]]
		return ways{a.signature(ref).below(one(ref.PubKey)), zero.below(one(ref.PubKey))}
	case fOlder:
		return ways{sat: a.lock(a.s.Older(n.k), "older", n.k)}
	case fAfter:
		return ways{sat: a.lock(a.s.After(n.k), "after", n.k)}
	case fSha256, fHash256, fRipemd160, fHash160:
		// Any 32 bytes that are not the preimage dissatisfy.
		return ways{a.preimage(n), one(make([]byte, 32)).change()}
	case fMulti, fMultiA:
		return n.satisfyMulti(a)
	case fThresh:
		return n.satisfyThresh(a)
	case fWrapA, fWrapS, fWrapC, fWrapN:
		return x
	case fWrapD:
		return ways{x.sat.below(oneItem), zero}
	case fWrapV:
		return ways{sat: x.sat}
	case fWrapJ:
		dis := zero
		if x.dis.ok && !x.dis.signed {
			dis = dis.change()
		}
		return ways{x.sat, dis}
	case fAndV:
		return ways{y.sat.below(x.sat), y.dis.below(x.sat)}
	case fAndB:
		return ways{y.sat.below(x.sat), y.dis.below(x.dis).or(y.sat.below(x.dis).change()).or(y.dis.below(x.sat).change())}
	case fOrB:
		return ways{y.dis.below(x.sat).or(y.sat.below(x.dis)).or(y.sat.below(x.sat).change()), y.dis.below(x.dis)}
	case fOrC:
		return ways{sat: x.sat.or(y.sat.below(x.dis))}
	case fOrD:
		return ways{x.sat.or(y.sat.below(x.dis)), y.dis.below(x.dis)}
	case fOrI:
		return ways{x.sat.below(oneItem).or(y.sat.below(zero)), x.dis.below(oneItem).or(y.dis.below(zero))}
	case fAndOr:
		return ways{y.sat.below(x.sat).or(z.sat.below(x.dis)), y.dis.below(x.sat).or(z.dis.below(x.dis))}
	}
	panic("descriptor: unknown fragment " + n.name())
}

func (a *asking) lock(holds bool, name string, n uint32) input {
	if !holds {
		a.miss(fmt.Sprintf("%s(%d)", name, n))
		return input{}
	}
	return nothing()
}

func (n *node) hashKind() HashKind {
	return map[fragment]HashKind{fSha256: SHA256, fHash256: HASH256, fRipemd160: RIPEMD160, fHash160: HASH160}[n.f]
}

func (a *asking) preimage(n *node) input {
	pre, ok := a.s.Preimage(n.hashKind(), n.hash)
	if !ok || len(pre) != 32 {
		a.miss(fmt.Sprintf("preimage of %s(%x)", n.hashKind(), n.hash))
		return input{}
	}
	return one(pre)
}

// satisfyMulti takes the shortest k signatures that there are.
func (n *node) satisfyMulti(a *asking) ways {
	refs := n.sortedKeys(a.env)
	sigs := make([]input, len(refs))
	var order []int
	for i, ref := range refs {
		if sigs[i] = a.signature(ref); sigs[i].ok {
			order = append(order, i)
		}
	}
	slices.SortStableFunc(order, func(i, j int) int { return sigs[i].bytes - sigs[j].bytes })
	enough := len(order) >= int(n.k)
	if enough {
		order = order[:n.k]
	}
	zero := one(nil)
	if n.f == fMulti {
		sat, dis := zero, zero // CHECKMULTISIG takes one item too many
		for range n.k {
			dis = dis.below(zero)
		}
		slices.Sort(order)
		for _, i := range order {
			sat = sat.below(sigs[i])
		}
		if !enough {
			sat = input{}
		}
		return ways{sat, dis}
	}
	sat, dis := nothing(), nothing() // the first key's is on top
	for i := range slices.Backward(refs) {
		dis = dis.below(zero)
		if slices.Contains(order, i) {
			sat = sat.below(sigs[i])
		} else {
			sat = sat.below(zero)
		}
	}
	if !enough {
		sat = input{}
	}
	return ways{sat, dis}
}

func (n *node) satisfyThresh(a *asking) ways {
	// best[j]: the best way in which j of the conditions seen so far are satisfied.
	best := []input{nothing()}
	for _, sub := range slices.Backward(n.subs) {
		s := sub.satisfy(a)
		next := make([]input, len(best)+1)
		next[0] = best[0].below(s.dis)
		for j := 1; j < len(best); j++ {
			next[j] = best[j].below(s.dis).or(best[j-1].below(s.sat))
		}
		next[len(best)] = best[len(best)-1].below(s.sat)
		best = next
	}
	var dis input
	for j, in := range best {
		if j == int(n.k) {
			continue
		}
		if j > 0 {
			in = in.change()
		}
		dis = dis.or(in)
	}
	return ways{best[n.k], dis}
}

// OlderHolds says whether an input's sequence satisfies older(n): BIP68 and BIP112, in a transaction of the given version.
func OlderHolds(n, sequence uint32, txVersion int32) bool {
	const mask = wire.SequenceLockTimeIsSeconds | wire.SequenceLockTimeMask
	if uint32(txVersion) < 2 || sequence&wire.SequenceLockTimeDisabled != 0 { //nolint:gosec // The rule compares without sign.
		return false
	}
	return n&wire.SequenceLockTimeIsSeconds == sequence&wire.SequenceLockTimeIsSeconds && n&mask <= sequence&mask
}

// AfterHolds says whether a transaction's lock time satisfies after(n) (BIP65) for an input with the given sequence.
func AfterHolds(n, lockTime, sequence uint32) bool {
	return sequence != wire.MaxTxInSequenceNum && (n < absoluteTime) == (lockTime < absoluteTime) && n <= lockTime
}

// Locks returns the numbers of all older and after conditions of the output, each ascending and once: what to try
// as sequence and lock time.
func (o *Output) Locks() (older, after []uint32) {
	collect := func(n *node) {
		switch n.f {
		case fOlder:
			older = append(older, n.k)
		case fAfter:
			after = append(after, n.k)
		}
	}
	if o.script != nil {
		o.script.each(collect)
	}
	if o.Taproot != nil {
		for i := range o.Taproot.Leaves {
			o.Taproot.Leaves[i].script.each(collect)
		}
	}
	slices.Sort(older)
	slices.Sort(after)
	return slices.Compact(older), slices.Compact(after)
}

// A bound is the most that a way of a node takes.
type bound struct {
	ok        bool
	bytes     int // of items with their lengths
	items     int
	multiKeys int // keys of CHECKMULTISIGs that are executed
}

func (b bound) plus(c bound) bound {
	if !b.ok || !c.ok {
		return bound{}
	}
	return bound{true, b.bytes + c.bytes, b.items + c.items, b.multiKeys + c.multiKeys}
}

func (b bound) or(c bound) bound {
	if !b.ok {
		return c
	}
	if !c.ok {
		return b
	}
	return bound{true, max(b.bytes, c.bytes), max(b.items, c.items), max(b.multiKeys, c.multiKeys)}
}

// bounds are those of a satisfaction and of a dissatisfaction.
type bounds struct{ sat, dis bound }

// A sizer knows how long signatures and keys are in a kind of script.
type sizer struct {
	sig, key int
	tap      bool
}

func sizes(tap bool) sizer {
	if tap {
		return sizer{64, 32, true}
	}
	return sizer{72, 33, false}
}

// size returns the bounds of n.
func (n *node) size(z sizer) bounds {
	item := func(size int) bound { return bound{ok: true, bytes: withCount(size), items: 1} }
	none := bound{ok: true}
	zero, oneItem, sig := item(0), item(1), item(z.sig)
	var subs []bounds
	for _, s := range n.subs {
		subs = append(subs, s.size(z))
	}
	switch n.f {
	case fZero:
		return bounds{dis: none}
	case fOne, fOlder, fAfter:
		return bounds{sat: none}
	case fPkK:
		return bounds{sig, zero}
	case fPkH:
		key := item(z.key)
		if n.keys[0].uncompressed() {
			key = item(65)
		}
		return bounds{sig.plus(key), zero.plus(key)}
	case fSha256, fHash256, fRipemd160, fHash160:
		return bounds{sat: item(32)} // a dissatisfaction is malleable, so it is never used
	case fMulti:
		b := bounds{zero, zero}
		for range n.k {
			b.sat, b.dis = b.sat.plus(sig), b.dis.plus(zero)
		}
		b.sat.multiKeys, b.dis.multiKeys = len(n.keys), len(n.keys)
		return b
	case fMultiA:
		b := bounds{none, none}
		for i := range n.keys {
			b.dis = b.dis.plus(zero)
			if i < int(n.k) {
				b.sat = b.sat.plus(sig)
			} else {
				b.sat = b.sat.plus(zero)
			}
		}
		return b
	case fWrapA, fWrapS, fWrapC, fWrapN:
		return subs[0]
	case fWrapD:
		return bounds{subs[0].sat.plus(oneItem), zero}
	case fWrapV:
		return bounds{sat: subs[0].sat}
	case fWrapJ:
		return bounds{subs[0].sat, zero}
	case fAndV:
		return bounds{subs[0].sat.plus(subs[1].sat), subs[0].sat.plus(subs[1].dis)}
	case fAndB:
		return bounds{subs[0].sat.plus(subs[1].sat), subs[0].dis.plus(subs[1].dis)}
	case fOrB:
		return bounds{subs[0].sat.plus(subs[1].dis).or(subs[0].dis.plus(subs[1].sat)), subs[0].dis.plus(subs[1].dis)}
	case fOrC:
		return bounds{sat: subs[0].sat.or(subs[0].dis.plus(subs[1].sat))}
	case fOrD:
		return bounds{subs[0].sat.or(subs[0].dis.plus(subs[1].sat)), subs[0].dis.plus(subs[1].dis)}
	case fOrI:
		return bounds{subs[0].sat.plus(oneItem).or(subs[1].sat.plus(zero)), subs[0].dis.plus(oneItem).or(subs[1].dis.plus(zero))}
	case fAndOr:
		return bounds{
			subs[0].sat.plus(subs[1].sat).or(subs[0].dis.plus(subs[2].sat)),
			subs[0].sat.plus(subs[1].dis).or(subs[0].dis.plus(subs[2].dis)),
		}
	case fThresh:
		best := []bound{none}
		for _, s := range subs {
			next := make([]bound, len(best)+1)
			next[0] = best[0].plus(s.dis)
			for j := 1; j < len(best); j++ {
				next[j] = best[j].plus(s.dis).or(best[j-1].plus(s.sat))
			}
			next[len(best)] = best[len(best)-1].plus(s.sat)
			best = next
		}
		return bounds{best[n.k], best[0]}
	}
	panic("descriptor: unknown fragment " + n.name())
}

// maxWeight computes [Output.MaxWeight].
func (o *Output) maxWeight() int {
	if o.Taproot != nil {
		w := Weight([][]byte{make([]byte, 64)}, nil)
		for i := range o.Taproot.Leaves {
			l := &o.Taproot.Leaves[i]
			b := l.script.size(sizes(true)).sat
			leaf := 4 + wire.VarIntSerializeSize(uint64(b.items)+2) + b.bytes + withCount(len(l.Script)) + withCount(len(l.ControlBlock)) //nolint:gosec // A count.
			w = max(w, leaf)
		}
		return w
	}
	b := o.script.size(sizes(false)).sat
	if o.SigVersion == Legacy {
		// Items of up to 75 bytes take as much in a script as in a witness.
		n := b.bytes
		if o.RedeemScript != nil {
			n += len(appendPush(nil, o.RedeemScript))
		}
		return 4 * withCount(n)
	}
	items, bytes := b.items, b.bytes
	if o.WitnessScript != nil {
		items, bytes = items+1, bytes+withCount(len(o.WitnessScript))
	}
	w := wire.VarIntSerializeSize(uint64(items)) + bytes //nolint:gosec // A count.
	if o.RedeemScript != nil {
		return w + 4*withCount(len(appendPush(nil, o.RedeemScript)))
	}
	return w + 4
}
