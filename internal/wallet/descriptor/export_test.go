package descriptor

import (
	"encoding/hex"

	"dunlin/chain/consensus"
)

// An Analysis is what miniscript's type system says of a script that need not be sane.
type Analysis struct {
	Sane, NonMalleable, NeedsSignature, LocksMix bool
	Script, Text                                 string
	Ops, Items                                   int
}

// Analyse types a script of wsh or tr.
func Analyse(text string, tap bool) (Analysis, error) {
	ctx := inWitness
	if tap {
		ctx = inTapscript
	}
	p := &parser{text: text, d: &Descriptor{net: consensus.Bitcoin()}}
	n, err := p.expression(ctx, true)
	if err != nil {
		return Analysis{}, err
	}
	if p.at < len(text) || !n.typ.has("B") {
		return Analysis{}, p.errorf("no whole script")
	}
	e := &env{tap: tap, refs: make(map[*keyExpr]KeyRef)}
	for _, k := range p.d.all {
		if e.refs[k], err = k.derive(0, tap); err != nil {
			return Analysis{}, err
		}
	}
	script := n.appendScript(nil, e, false)
	size := n.size(sizes(tap)).sat
	return Analysis{
		Sane: checkScript(n, ctx) == nil, NonMalleable: n.typ.has("m"), NeedsSignature: n.typ.has("s"), LocksMix: !n.typ.has("k"),
		Script: hex.EncodeToString(script), Text: n.String(), Ops: countOps(script) + size.multiKeys, Items: size.items,
	}, nil
}
