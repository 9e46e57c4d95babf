package spend

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/btcsuite/btcd/btcec/v2"
	"github.com/btcsuite/btcd/btcec/v2/ecdsa"
	"github.com/btcsuite/btcd/btcec/v2/schnorr"
	"github.com/btcsuite/btcd/btcutil/v2"
	"github.com/btcsuite/btcd/txscript/v2"
	"github.com/btcsuite/btcd/wire/v2"

	"dunlin/chain/consensus"
	"dunlin/internal/wallet/keys"
)

// ErrPacket says that something is no PSBT of version 0. Errors of decoding wrap it.
var ErrPacket = errors.New("not a valid PSBT")

// Parse reads a packet in base64. It bounds and checks as [Decode].
func Parse(text string) (*Packet, error) {
	text = strings.TrimSpace(text)
	if len(text) > base64.StdEncoding.EncodedLen(MaxPacketBytes) {
		return nil, fmt.Errorf("%w: %d characters of base64, at most %d", ErrPacket, len(text), base64.StdEncoding.EncodedLen(MaxPacketBytes))
	}
	raw, err := base64.StdEncoding.Strict().DecodeString(text)
	if err != nil {
		return nil, fmt.Errorf("%w: base64: %w", ErrPacket, err)
	}
	return Decode(raw)
}

// Decode reads a packet. It checks the form of every field that it knows, and that
// transactions and outputs that inputs spend are those that the transaction names;
// it checks no signature. What it allocates is bounded by the size of raw, of at
// most MaxPacketBytes. It keeps raw.
func Decode(raw []byte) (*Packet, error) {
	if len(raw) > MaxPacketBytes {
		return nil, fmt.Errorf("%w: %d bytes, at most %d", ErrPacket, len(raw), MaxPacketBytes)
	}
	d := decoder{rest: raw}
	p, err := d.packet()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrPacket, err)
	}
	return p, nil
}

// A decoder reads from the start of what is left.
type decoder struct {
	rest           []byte
	fields, leaves int // so far
}

var errShort = errors.New("ends early")

// take returns the next n bytes. Nobody can write behind them.
func (d *decoder) take(n uint64) ([]byte, error) {
	if n > uint64(len(d.rest)) {
		return nil, errShort
	}
	out := d.rest[:n:n]
	d.rest = d.rest[n:]
	return out, nil
}

// bytes returns bytes behind their length, never nil.
func (d *decoder) bytes() ([]byte, error) {
	n, err := d.count()
	if err != nil {
		return nil, err
	}
	return d.take(n)
}

func (d *decoder) count() (uint64, error) {
	n, size, err := consensus.ReadCount(d.rest, "length")
	if err != nil {
		return 0, err
	}
	d.rest = d.rest[size:]
	return n, nil
}

// A record is a field with its key apart.
type record struct {
	kind byte // 0xff for types that take more than a byte, none of which is known
	key  []byte
	Field
}

// fieldsOf reads a map. Its keys are unique.
func (d *decoder) fieldsOf() (out []record, err error) {
	for {
		key, err := d.bytes()
		if err != nil {
			return nil, err
		}
		if len(key) == 0 {
			break
		}
		kind, size, err := consensus.ReadCount(key, "type")
		if err != nil {
			return nil, err
		}
		if d.fields++; d.fields > maxPacketFields {
			return nil, fmt.Errorf("more than %d fields", maxPacketFields)
		}
		if len(out) == maxMapFields {
			return nil, fmt.Errorf("more than %d fields of one input or output", maxMapFields)
		}
		value, err := d.bytes()
		if err != nil {
			return nil, err
		}
		r := record{kind: 0xff, key: key[size:], Field: Field{Key: key, Value: value}}
		if kind < 0xff {
			r.kind = byte(kind)
		}
		out = append(out, r)
	}
	sorted := slices.Clone(out)
	slices.SortFunc(sorted, func(a, b record) int { return bytes.Compare(a.Key, b.Key) })
	for i := 1; i < len(sorted); i++ {
		if bytes.Equal(sorted[i-1].Key, sorted[i].Key) {
			return nil, fmt.Errorf("key %.40x is there twice", sorted[i].Key)
		}
	}
	return out, nil
}

func (d *decoder) packet() (*Packet, error) {
	magic, err := d.take(uint64(len(packetMagic)))
	if err != nil || string(magic) != packetMagic {
		return nil, errors.New("does not start as one")
	}
	global, err := d.fieldsOf()
	if err != nil {
		return nil, err
	}
	p := new(Packet)
	for i := range global {
		if err := p.global(&global[i]); err != nil {
			return nil, fmt.Errorf("global field %02x: %w", global[i].kind, err)
		}
	}
	if p.Tx == nil {
		return nil, errors.New("no unsigned transaction")
	}
	// Each takes a byte at least, the end of its map.
	if n := len(p.Tx.TxIn) + len(p.Tx.TxOut); n > len(d.rest) {
		return nil, errShort
	}
	p.Inputs = make([]Input, len(p.Tx.TxIn))
	for i := range p.Inputs {
		fields, err := d.fieldsOf()
		if err != nil {
			return nil, fmt.Errorf("input %d: %w", i, err)
		}
		for j := range fields {
			if err := p.Inputs[i].field(&fields[j]); err != nil {
				return nil, fmt.Errorf("input %d: field %02x: %w", i, fields[j].kind, err)
			}
		}
		if _, err := p.spent(i); err != nil && !errors.Is(err, ErrNoUTXO) {
			return nil, fmt.Errorf("input %d: %w", i, err)
		}
		if d.leaves += len(p.Inputs[i].TapLeaves); d.leaves > maxTapLeaves {
			return nil, fmt.Errorf("more than %d scripts of taproot", maxTapLeaves)
		}
	}
	p.Outputs = make([]Output, len(p.Tx.TxOut))
	for i := range p.Outputs {
		fields, err := d.fieldsOf()
		if err != nil {
			return nil, fmt.Errorf("output %d: %w", i, err)
		}
		for j := range fields {
			if err := p.Outputs[i].field(&fields[j]); err != nil {
				return nil, fmt.Errorf("output %d: field %02x: %w", i, fields[j].kind, err)
			}
		}
	}
	if len(d.rest) > 0 {
		return nil, fmt.Errorf("%d bytes too many", len(d.rest))
	}
	return p, nil
}

var (
	errKey   = errors.New("key of a wrong form")
	errValue = errors.New("value of a wrong form")
)

func (p *Packet) global(r *record) (err error) {
	switch r.kind {
	case globalTx:
		if len(r.key) > 0 {
			return errKey
		}
		p.Tx, err = decodeBareTx(r.Value)
	case globalXPub:
		x := XPub{}
		if copy(x.Key[:], r.key) != len(x.Key) || len(r.key) != len(x.Key) {
			return errKey
		}
		x.Origin, err = decodeOrigin(r.Value)
		const depthAt = 4
		if err == nil && len(x.Origin.Path) != int(x.Key[depthAt]) {
			return errValue
		}
		p.XPubs = append(p.XPubs, x)
	case globalVersion:
		if len(r.key) > 0 || len(r.Value) != 4 {
			return errValue
		}
		if v := binary.LittleEndian.Uint32(r.Value); v != 0 {
			return fmt.Errorf("version %d is not known here", v)
		}
		// It need not be said.
	default:
		p.Unknown = append(p.Unknown, r.Field)
	}
	return err
}

func (in *Input) field(r *record) (err error) {
	if wantsNoKey := slices.Contains([]byte{
		inPrevTx, inPrevOut, inSigHash, inRedeemScript, inWitnessScript, inFinalScript, inFinalWitness, inTapKeySig, inTapInternal, inTapRoot,
	}, r.kind); wantsNoKey && len(r.key) > 0 {
		return errKey
	}
	switch r.kind {
	case inPrevTx:
		in.PrevTx, err = consensus.DecodeTx(r.Value)
	case inPrevOut:
		in.PrevOut, err = decodeTxOut(r.Value)
	case inSig:
		if err := checkPubKey(r.key); err != nil {
			return err
		}
		if err := checkECDSA(r.Value); err != nil {
			return err
		}
		in.Sigs = append(in.Sigs, Sig{PubKey: r.key, Sig: r.Value})
	case inSigHash:
		if len(r.Value) != 4 {
			return errValue
		}
		in.SigHash = new(binary.LittleEndian.Uint32(r.Value))
	case inRedeemScript:
		in.RedeemScript = r.Value
	case inWitnessScript:
		in.WitnessScript = r.Value
	case inKey:
		in.Keys, err = appendKey(in.Keys, r)
	case inFinalScript:
		in.FinalScript = r.Value
	case inFinalWitness:
		in.FinalWitness, err = decodeWitness(r.Value)
	case byte(Ripemd160), byte(Sha256), byte(Hash160), byte(Hash256):
		h := Preimage{Kind: PreimageKind(r.kind), Hash: r.key, Value: r.Value}
		if !h.holds() {
			return errors.New("not the preimage of its hash")
		}
		in.Preimages = append(in.Preimages, h)
	case inTapKeySig:
		in.TapKeySig, err = r.Value, checkSchnorr(r.Value)
	case inTapSig:
		if len(r.key) != 64 {
			return errKey
		}
		s := TapSig{Key: [32]byte(r.key[:32]), Leaf: [32]byte(r.key[32:]), Sig: r.Value}
		in.TapSigs = append(in.TapSigs, s)
		if err = checkSchnorr(r.Value); err == nil {
			err = checkXOnly(r.key[:32])
		}
	case inTapLeaf:
		if n := len(r.key) - txscript.ControlBlockBaseSize; n < 0 || n%txscript.ControlBlockNodeSize != 0 || len(r.key) > txscript.ControlBlockMaxSize {
			return errKey
		}
		n := len(r.Value) - 1
		if n < 0 || r.Value[n] != r.key[0]&txscript.TaprootLeafMask {
			return errValue
		}
		in.TapLeaves = append(in.TapLeaves, TapLeaf{ControlBlock: r.key, Script: r.Value[:n:n], Version: r.Value[n]})
	case inTapKey:
		in.TapKeys, err = appendTapKeyOf(in.TapKeys, r)
	case inTapInternal:
		in.TapInternalKey, err = r.Value, checkXOnly(r.Value)
	case inTapRoot:
		if len(r.Value) != 32 {
			return errValue
		}
		in.TapRoot = r.Value
	default:
		in.Unknown = append(in.Unknown, r.Field)
	}
	return err
}

func (o *Output) field(r *record) (err error) {
	switch r.kind {
	case outRedeemScript, outWitnessScript, outTapInternal, outTapTree:
		if len(r.key) > 0 {
			return errKey
		}
	}
	switch r.kind {
	case outRedeemScript:
		o.RedeemScript = r.Value
	case outWitnessScript:
		o.WitnessScript = r.Value
	case outKey:
		o.Keys, err = appendKey(o.Keys, r)
	case outTapInternal:
		o.TapInternalKey, err = r.Value, checkXOnly(r.Value)
	case outTapTree:
		o.TapTree, err = r.Value, checkTapTree(r.Value)
	case outTapKey:
		o.TapKeys, err = appendTapKeyOf(o.TapKeys, r)
	default:
		o.Unknown = append(o.Unknown, r.Field)
	}
	return err
}

func appendKey(all []keys.Ref, r *record) ([]keys.Ref, error) {
	if err := checkPubKey(r.key); err != nil {
		return nil, err
	}
	origin, err := decodeOrigin(r.Value)
	return append(all, keys.Ref{Origin: origin, PubKey: r.key}), err
}

func appendTapKeyOf(all []TapKey, r *record) ([]TapKey, error) {
	if err := checkXOnly(r.key); err != nil {
		return nil, err
	}
	k := TapKey{Key: [32]byte(r.key)}
	d := decoder{rest: r.Value}
	n, err := d.count()
	if err != nil || n > uint64(len(d.rest)/32) {
		return nil, errValue
	}
	for range n {
		hash, err := d.take(32)
		if err != nil {
			return nil, err
		}
		k.Leaves = append(k.Leaves, [32]byte(hash))
	}
	k.Origin, err = decodeOrigin(d.rest)
	return append(all, k), err
}

func decodeOrigin(b []byte) (o keys.Origin, err error) {
	steps := len(b)/4 - 1
	if len(b)%4 != 0 || steps < 0 || steps > maxPathSteps {
		return o, errValue
	}
	o.Fingerprint = keys.Fingerprint(b[:4])
	for i := range steps {
		o.Path = append(o.Path, binary.LittleEndian.Uint32(b[4+4*i:]))
	}
	return o, nil
}

func decodeTxOut(b []byte) (*wire.TxOut, error) {
	d := decoder{rest: b}
	value, err := d.take(8)
	if err != nil {
		return nil, errValue
	}
	script, err := d.bytes()
	if err != nil || len(d.rest) > 0 {
		return nil, errValue
	}
	out := wire.NewTxOut(int64(binary.LittleEndian.Uint64(value)), script)
	if out.Value < 0 || out.Value > btcutil.MaxSatoshi {
		return nil, errValue
	}
	return out, nil
}

func decodeWitness(b []byte) (wire.TxWitness, error) {
	d := decoder{rest: b}
	n, err := d.count()
	if err != nil || n > uint64(len(d.rest)) || n > maxPacketFields {
		return nil, errValue
	}
	out := make(wire.TxWitness, 0, n)
	for range n {
		item, err := d.bytes()
		if err != nil {
			return nil, errValue
		}
		out = append(out, item)
	}
	if len(d.rest) > 0 {
		return nil, errValue
	}
	return out, nil
}

// decodeBareTx reads a transaction in the form from before segwit, whose inputs have
// no scripts.
func decodeBareTx(b []byte) (*wire.MsgTx, error) {
	const inputBytes, outputBytes = 41, 9 // at least
	if len(b) > maxBareBytes {
		return nil, fmt.Errorf("a transaction of %d bytes without witnesses, at most %d", len(b), maxBareBytes)
	}
	d := decoder{rest: b}
	version, err := d.take(4)
	if err != nil {
		return nil, err
	}
	tx := &wire.MsgTx{Version: int32(binary.LittleEndian.Uint32(version))}
	ins, err := d.count()
	if err != nil || ins > uint64(len(d.rest)/inputBytes) {
		return nil, errShort
	}
	tx.TxIn = make([]*wire.TxIn, ins)
	for i := range tx.TxIn {
		in := new(wire.TxIn)
		op, err := d.take(36)
		if err != nil {
			return nil, err
		}
		copy(in.PreviousOutPoint.Hash[:], op)
		in.PreviousOutPoint.Index = binary.LittleEndian.Uint32(op[32:])
		if script, err := d.bytes(); err != nil || len(script) > 0 {
			return nil, errors.New("the transaction has scripts in its inputs, or a witness")
		}
		sequence, err := d.take(4)
		if err != nil {
			return nil, err
		}
		in.Sequence = binary.LittleEndian.Uint32(sequence)
		tx.TxIn[i] = in
	}
	outs, err := d.count()
	if err != nil || outs > uint64(len(d.rest)/outputBytes) {
		return nil, errShort
	}
	tx.TxOut = make([]*wire.TxOut, outs)
	for i := range tx.TxOut {
		value, err := d.take(8)
		if err != nil {
			return nil, err
		}
		script, err := d.bytes()
		if err != nil {
			return nil, err
		}
		tx.TxOut[i] = wire.NewTxOut(int64(binary.LittleEndian.Uint64(value)), script)
	}
	lock, err := d.take(4)
	if err != nil {
		return nil, err
	}
	tx.LockTime = binary.LittleEndian.Uint32(lock)
	if len(d.rest) > 0 {
		return nil, fmt.Errorf("%d bytes behind the transaction", len(d.rest))
	}
	return tx, checkUnsigned(tx)
}

// checkUnsigned refuses what no chain would take: values out of range, and an
// output that is spent twice.
func checkUnsigned(tx *wire.MsgTx) error {
	var total int64
	for i, out := range tx.TxOut {
		if out.Value < 0 || out.Value > btcutil.MaxSatoshi || total+out.Value > btcutil.MaxSatoshi {
			return fmt.Errorf("output %d: %d satoshi are out of range", i, out.Value)
		}
		total += out.Value
	}
	spent := make(map[wire.OutPoint]struct{}, len(tx.TxIn))
	for i, in := range tx.TxIn {
		if _, twice := spent[in.PreviousOutPoint]; twice {
			return fmt.Errorf("input %d spends what another one spends", i)
		}
		spent[in.PreviousOutPoint] = struct{}{}
	}
	return nil
}

// checkPubKey wants a public key of 33 or 65 bytes.
func checkPubKey(b []byte) error {
	if n := len(b); n != btcec.PubKeyBytesLenCompressed && n != 65 {
		return errKey
	}
	if _, err := btcec.ParsePubKey(b); err != nil {
		return fmt.Errorf("%w: %w", errKey, err)
	}
	return nil
}

// checkXOnly wants a public key of 32 bytes (BIP340).
func checkXOnly(b []byte) error {
	if _, err := schnorr.ParsePubKey(b); err != nil {
		return fmt.Errorf("%w: %w", errKey, err)
	}
	return nil
}

// checkECDSA wants a signature in DER and the byte of its type.
func checkECDSA(b []byte) error {
	if len(b) < 2 {
		return errValue
	}
	if _, err := ecdsa.ParseDERSignature(b[:len(b)-1]); err != nil {
		return fmt.Errorf("%w: %w", errValue, err)
	}
	return nil
}

// checkSchnorr wants a signature of 64 bytes, or 65 with its type.
func checkSchnorr(b []byte) error {
	if n := len(b); n != schnorr.SignatureSize && n != schnorr.SignatureSize+1 {
		return errValue
	}
	if _, err := schnorr.ParseSignature(b[:schnorr.SignatureSize]); err != nil {
		return fmt.Errorf("%w: %w", errValue, err)
	}
	return nil
}

// checkTapTree wants the leaves of one whole tree, depth first (BIP371).
func checkTapTree(b []byte) error {
	const maxDepth = 128 // BIP341
	d := decoder{rest: b}
	// open has a bit for each depth at which a left branch waits for its right one.
	var open [maxDepth + 1]bool
	whole := false
	for len(d.rest) > 0 {
		head, err := d.take(2)
		if err != nil || whole {
			return errValue
		}
		if _, err := d.bytes(); err != nil {
			return errValue
		}
		depth := int(head[0])
		if depth > maxDepth || head[1]&1 != 0 {
			return errValue
		}
		for i := depth + 1; i < len(open); i++ {
			if open[i] {
				return errValue // a deeper branch lacks its other half
			}
		}
		for ; depth > 0 && open[depth]; depth-- {
			open[depth] = false
		}
		if whole = depth == 0; !whole {
			open[depth] = true
		}
	}
	if !whole {
		return errValue
	}
	return nil
}
