package spend

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"slices"

	"github.com/btcsuite/btcd/wire/v2"

	"dunlin/chain/consensus"
	"dunlin/internal/wallet/keys"
)

// String is the packet in base64, as people exchange it.
func (p *Packet) String() string { return base64.StdEncoding.EncodeToString(p.Encode()) }

// Encode returns the packet in binary. Fields are in the order of their keys: equal
// packets have equal bytes.
func (p *Packet) Encode() []byte {
	out := []byte(packetMagic)
	m := fieldMap{}
	m.add(globalTx, nil, appendBareTx(nil, p.Tx))
	for i := range p.XPubs {
		m.add(globalXPub, p.XPubs[i].Key[:], appendOrigin(nil, p.XPubs[i].Origin))
	}
	out = m.close(out, p.Unknown)
	for i := range p.Inputs {
		out = p.Inputs[i].encode(out)
	}
	for i := range p.Outputs {
		out = p.Outputs[i].encode(out)
	}
	return out
}

// A fieldMap gathers the fields of a map.
type fieldMap []Field

func (m *fieldMap) add(kind byte, key, value []byte) {
	*m = append(*m, Field{Key: append([]byte{kind}, key...), Value: value})
}

// has adds a field without key data, if there is a value.
func (m *fieldMap) has(kind byte, value []byte) {
	if value != nil {
		m.add(kind, nil, value)
	}
}

// close appends the map and its end to dst.
func (m *fieldMap) close(dst []byte, unknown []Field) []byte {
	all := append(*m, unknown...)
	slices.SortStableFunc(all, func(a, b Field) int { return bytes.Compare(a.Key, b.Key) })
	for _, f := range all {
		dst = appendBytes(appendBytes(dst, f.Key), f.Value)
	}
	return append(dst, 0)
}

func (in *Input) encode(dst []byte) []byte {
	var m fieldMap
	if in.PrevTx != nil {
		m.add(inPrevTx, nil, consensus.AppendTx(nil, in.PrevTx))
	}
	if in.PrevOut != nil {
		m.add(inPrevOut, nil, appendBytes(binary.LittleEndian.AppendUint64(nil, uint64(in.PrevOut.Value)), in.PrevOut.PkScript))
	}
	for _, s := range in.Sigs {
		m.add(inSig, s.PubKey, s.Sig)
	}
	if in.SigHash != nil {
		m.add(inSigHash, nil, binary.LittleEndian.AppendUint32(nil, *in.SigHash))
	}
	m.has(inRedeemScript, in.RedeemScript)
	m.has(inWitnessScript, in.WitnessScript)
	for _, k := range in.Keys {
		m.add(inKey, k.PubKey, appendOrigin(nil, k.Origin))
	}
	m.has(inFinalScript, in.FinalScript)
	if in.FinalWitness != nil {
		w := consensus.AppendCount(nil, len(in.FinalWitness))
		for _, item := range in.FinalWitness {
			w = appendBytes(w, item)
		}
		m.add(inFinalWitness, nil, w)
	}
	for _, h := range in.Preimages {
		m.add(byte(h.Kind), h.Hash, h.Value)
	}
	m.has(inTapKeySig, in.TapKeySig)
	for _, s := range in.TapSigs {
		m.add(inTapSig, slices.Concat(s.Key[:], s.Leaf[:]), s.Sig)
	}
	for _, l := range in.TapLeaves {
		m.add(inTapLeaf, l.ControlBlock, append(slices.Clone(l.Script), l.Version))
	}
	for _, k := range in.TapKeys {
		m.add(inTapKey, k.Key[:], appendTapKey(nil, &k))
	}
	m.has(inTapInternal, in.TapInternalKey)
	m.has(inTapRoot, in.TapRoot)
	return m.close(dst, in.Unknown)
}

func (o *Output) encode(dst []byte) []byte {
	var m fieldMap
	m.has(outRedeemScript, o.RedeemScript)
	m.has(outWitnessScript, o.WitnessScript)
	for _, k := range o.Keys {
		m.add(outKey, k.PubKey, appendOrigin(nil, k.Origin))
	}
	m.has(outTapInternal, o.TapInternalKey)
	m.has(outTapTree, o.TapTree)
	for _, k := range o.TapKeys {
		m.add(outTapKey, k.Key[:], appendTapKey(nil, &k))
	}
	return m.close(dst, o.Unknown)
}

// appendBytes appends b behind its length.
func appendBytes(dst, b []byte) []byte {
	return append(consensus.AppendCount(dst, len(b)), b...)
}

func appendOrigin(dst []byte, o keys.Origin) []byte {
	dst = append(dst, o.Fingerprint[:]...)
	for _, step := range o.Path {
		dst = binary.LittleEndian.AppendUint32(dst, step)
	}
	return dst
}

func appendTapKey(dst []byte, k *TapKey) []byte {
	dst = consensus.AppendCount(dst, len(k.Leaves))
	for i := range k.Leaves {
		dst = append(dst, k.Leaves[i][:]...)
	}
	return appendOrigin(dst, k.Origin)
}

// appendBareTx appends a transaction without scripts and witnesses of inputs, in
// the form from before segwit even if it has no inputs.
func appendBareTx(dst []byte, tx *wire.MsgTx) []byte {
	dst = binary.LittleEndian.AppendUint32(dst, uint32(tx.Version))
	dst = consensus.AppendCount(dst, len(tx.TxIn))
	for _, in := range tx.TxIn {
		dst = append(dst, in.PreviousOutPoint.Hash[:]...)
		dst = binary.LittleEndian.AppendUint32(dst, in.PreviousOutPoint.Index)
		dst = append(dst, 0)
		dst = binary.LittleEndian.AppendUint32(dst, in.Sequence)
	}
	dst = consensus.AppendCount(dst, len(tx.TxOut))
	for _, out := range tx.TxOut {
		dst = binary.LittleEndian.AppendUint64(dst, uint64(out.Value))
		dst = appendBytes(dst, out.PkScript)
	}
	return binary.LittleEndian.AppendUint32(dst, tx.LockTime)
}
