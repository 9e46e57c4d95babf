package descriptor

import (
	"bytes"
	"slices"

	"github.com/btcsuite/btcd/btcec/v2"
	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/wire/v2"

	"dunlin/internal/wallet/keys"
)

// leafVersion is the one that has a meaning: tapscript (BIP342).
const leafVersion = 0xc0

// A tree is a script tree of tr: a leaf or two branches.
type tree struct {
	leaf        *node
	left, right *tree
}

func (t *tree) with(replace func(*keyExpr) *keyExpr) *tree {
	if t.leaf != nil {
		return &tree{leaf: t.leaf.with(replace)}
	}
	left := t.left.with(replace)
	return &tree{left: left, right: t.right.with(replace)}
}

func (t *tree) String() string {
	if t.leaf != nil {
		return t.leaf.String()
	}
	return "{" + t.left.String() + "," + t.right.String() + "}"
}

// leaves returns the leaves below t, the hash of each and the proof that it is below t, and t's own hash.
func (t *tree) leaves(e *env, depth int) (all []Leaf, proofs [][]byte, hash [32]byte) {
	if t.leaf != nil {
		l := Leaf{Script: t.leaf.appendScript(nil, e, false), Depth: depth, script: t.leaf, env: e}
		t.leaf.eachKey(func(k *keyExpr) { l.Keys = appendRef(l.Keys, e.refs[k]) })
		l.Hash = leafHash(l.Script)
		return []Leaf{l}, [][]byte{nil}, l.Hash
	}
	left, leftProofs, l := t.left.leaves(e, depth+1)
	right, rightProofs, r := t.right.leaves(e, depth+1)
	for i := range leftProofs {
		leftProofs[i] = append(leftProofs[i], r[:]...)
	}
	for i := range rightProofs {
		rightProofs[i] = append(rightProofs[i], l[:]...)
	}
	first, second := l[:], r[:]
	if bytes.Compare(first, second) > 0 {
		first, second = second, first
	}
	hash = *chainhash.TaggedHash(chainhash.TagTapBranch, first, second)
	return append(left, right...), append(leftProofs, rightProofs...), hash
}

func leafHash(script []byte) [32]byte {
	var b bytes.Buffer
	b.WriteByte(leafVersion)
	_ = wire.WriteVarBytes(&b, 0, script) // a buffer does not fail
	return *chainhash.TaggedHash(chainhash.TagTapLeaf, b.Bytes())
}

// deriveTaproot fills in what Tr and Rawtr have.
func (o *Output) deriveTaproot(d *Descriptor) error {
	t := new(TaprootInfo)
	o.Taproot = t
	key := [32]byte(o.env.refs[d.key].PubKey)
	if d.kind == Rawtr {
		t.OutputKey = key
	} else {
		t.InternalKey = key
		internal, err := btcec.ParsePubKey(slices.Concat([]byte{2}, key[:]))
		if err != nil {
			return err
		}
		var proofs [][]byte
		if d.tree != nil {
			var root [32]byte
			t.Leaves, proofs, root = d.tree.leaves(o.env, 0)
			t.Root = root[:]
		}
		out := keys.TaprootOutputKey(internal, t.Root).SerializeCompressed()
		t.OutputKey = [32]byte(out[1:])
		for i := range t.Leaves {
			t.Leaves[i].ControlBlock = slices.Concat([]byte{leafVersion | out[0]&1}, key[:], proofs[i])
		}
	}
	o.PkScript = append([]byte{0x51, 32}, t.OutputKey[:]...)
	return nil
}
