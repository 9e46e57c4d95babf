package spend

import (
	"errors"
	"fmt"

	"dunlin/internal/wallet/keys"
)

// ErrOther says that packets are of different transactions.
var ErrOther = errors.New("packets are of different transactions")

// Combine joins what packets of one transaction know: of what several of them say
// differently, the first counts. The packets are not changed; the result shares
// their bytes.
func Combine(packets ...*Packet) (*Packet, error) {
	if len(packets) == 0 {
		return nil, errors.New("no packet to combine")
	}
	first := packets[0]
	id := first.idOf()
	out := NewPacket(first.Tx)
	for i, p := range packets {
		if p.idOf() != id {
			return nil, fmt.Errorf("packet %d: %w", i, ErrOther)
		}
		out.XPubs = union(out.XPubs, p.XPubs, xpubKey)
		out.Unknown = union(out.Unknown, p.Unknown, fieldKey)
		for j := range p.Inputs {
			out.Inputs[j].join(&p.Inputs[j])
		}
		for j := range p.Outputs {
			out.Outputs[j].join(&p.Outputs[j])
		}
	}
	for i := range out.Inputs {
		if in := &out.Inputs[i]; in.Final() {
			in.dropSigning()
		}
		if _, err := out.spent(i); err != nil && !errors.Is(err, ErrNoUTXO) {
			return nil, fmt.Errorf("input %d: %w: %w", i, ErrForged, err)
		}
	}
	return out, nil
}

// union appends to all those of more whose key is not there yet. It takes no more
// steps than there are elements.
func union[T any](all, more []T, key func(*T) string) []T {
	if len(more) == 0 {
		return all
	}
	have := make(map[string]struct{}, len(all)+len(more))
	for i := range all {
		have[key(&all[i])] = struct{}{}
	}
	for i := range more {
		k := key(&more[i])
		if _, ok := have[k]; !ok {
			have[k] = struct{}{}
			all = append(all, more[i])
		}
	}
	return all
}

func fieldKey(f *Field) string       { return string(f.Key) }
func xpubKey(x *XPub) string         { return string(x.Key[:]) }
func refKey(k *keys.Ref) string      { return string(k.PubKey) }
func sigKey(s *Sig) string           { return string(s.PubKey) }
func preimageKey(h *Preimage) string { return string(byte(h.Kind)) + string(h.Hash) }
func tapKeyKey(k *TapKey) string     { return string(k.Key[:]) }
func tapLeafKey(l *TapLeaf) string   { return string(l.ControlBlock) }
func tapSigKey(s *TapSig) string     { return string(s.Key[:]) + string(s.Leaf[:]) }

// orElse sets *dst if it is nil.
func orElse(dst *[]byte, b []byte) {
	if *dst == nil {
		*dst = b
	}
}

func (in *Input) join(o *Input) {
	if in.PrevTx == nil {
		in.PrevTx = o.PrevTx
	}
	if in.PrevOut == nil {
		in.PrevOut = o.PrevOut
	}
	if in.SigHash == nil {
		in.SigHash = o.SigHash
	}
	orElse(&in.RedeemScript, o.RedeemScript)
	orElse(&in.WitnessScript, o.WitnessScript)
	in.Keys = union(in.Keys, o.Keys, refKey)
	in.Sigs = union(in.Sigs, o.Sigs, sigKey)
	in.Preimages = union(in.Preimages, o.Preimages, preimageKey)
	orElse(&in.TapInternalKey, o.TapInternalKey)
	orElse(&in.TapRoot, o.TapRoot)
	in.TapKeys = union(in.TapKeys, o.TapKeys, tapKeyKey)
	in.TapLeaves = union(in.TapLeaves, o.TapLeaves, tapLeafKey)
	orElse(&in.TapKeySig, o.TapKeySig)
	in.TapSigs = union(in.TapSigs, o.TapSigs, tapSigKey)
	if !in.Final() { // both halves of one, or none
		in.FinalScript, in.FinalWitness = o.FinalScript, o.FinalWitness
	}
	in.Unknown = union(in.Unknown, o.Unknown, fieldKey)
}

func (o *Output) join(more *Output) {
	orElse(&o.RedeemScript, more.RedeemScript)
	orElse(&o.WitnessScript, more.WitnessScript)
	o.Keys = union(o.Keys, more.Keys, refKey)
	orElse(&o.TapInternalKey, more.TapInternalKey)
	orElse(&o.TapTree, more.TapTree)
	o.TapKeys = union(o.TapKeys, more.TapKeys, tapKeyKey)
	o.Unknown = union(o.Unknown, more.Unknown, fieldKey)
}

// dropSigning removes what is of no use any more once the input is final (BIP174).
func (in *Input) dropSigning() {
	*in = Input{PrevTx: in.PrevTx, PrevOut: in.PrevOut, FinalScript: in.FinalScript, FinalWitness: in.FinalWitness, Unknown: in.Unknown}
}
