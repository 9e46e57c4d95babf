package consensus

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"math"

	"github.com/btcsuite/btcd/address/v2"
	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/txscript/v2"
	"github.com/btcsuite/btcd/wire/v2"

	"dunlin/chain/consensus/secp256k1"
)

// The direct path. Nearly every input that people spend follows one of a few
// templates, whose scripts need no interpreter: their outcome is that of a hash and
// of signatures. An input that matches one exactly, with signatures of the plainest
// kind (strict DER, over all of the transaction), is checked by code that knows only
// that case. A yes must be txscript's yes; everything else, the unusual and whatever
// fails, is judged by txscript, whose verdict and error stand. So the direct path
// cannot refuse a good input, and a test and a fuzz target hold it to accepting no
// bad one.

// directFlags are the flags under which the direct path was proven: those that blocks
// are checked under. The mempool's stricter ones go to txscript.
const directFlags = txscript.ScriptBip16 | txscript.ScriptVerifyWitness | txscript.ScriptVerifyTaproot |
	txscript.ScriptVerifyDERSignatures | txscript.ScriptVerifyCheckLockTimeVerify |
	txscript.ScriptVerifyCheckSequenceVerify | txscript.ScriptStrictMultiSig

// A directChecker checks inputs of one transaction on the direct path. It is for one
// goroutine.
type directChecker struct {
	tx     *wire.MsgTx
	coins  []Coin
	flags  txscript.ScriptFlags
	hashes *txscript.TxSigHashes // nil without a witness
	sum    summer                // for legacy signature hashes; made when first wanted
}

// valid says that input i is valid; false says nothing.
func (d *directChecker) valid(i int) bool {
	p2sh, segwit := d.has(txscript.ScriptBip16), d.has(txscript.ScriptVerifyWitness)
	if d.flags&^directFlags != 0 || segwit && !p2sh {
		return false
	}
	in, script := d.tx.TxIn[i], d.coins[i].Script
	sigScript, witness := in.SignatureScript, in.Witness
	if hash, ok := scriptHash(script); ok && p2sh {
		var pushes [18][]byte
		n, ok := readPushes(sigScript, pushes[:])
		if !ok || n == 0 {
			return false
		}
		redeem := pushes[n-1]
		if len(redeem) > txscript.MaxScriptElementSize || hash160(redeem) != hash {
			return false
		}
		if n > 1 {
			return len(witness) == 0 && d.multisig(i, redeem, pushes[:n-1])
		}
		// A witness program wrapped in a hash, pushed in the one way that is allowed.
		if !segwit || len(sigScript) != 1+len(redeem) || len(redeem) > txscript.OP_DATA_75 {
			return false
		}
		return d.witnessV0(i, redeem, witness)
	}
	switch {
	case isWitnessProgram(script): // any version
		if !segwit || len(sigScript) != 0 {
			return false
		}
		if script[0] == txscript.OP_0 {
			return d.witnessV0(i, script, witness)
		}
		return d.taprootKey(i, script, witness)
	case len(witness) != 0:
		return false
	}
	var pushes [18][]byte
	n, ok := readPushes(sigScript, pushes[:])
	if !ok {
		return false
	}
	if hash, ok := keyHash(script); ok {
		return n == 2 && hash160(pushes[1]) == hash && d.legacy(i, script, pushes[1], pushes[0])
	}
	if key, ok := bareKey(script); ok {
		return n == 1 && d.legacy(i, script, key, pushes[0])
	}
	return d.multisig(i, script, pushes[:n])
}

func (d *directChecker) has(flag txscript.ScriptFlags) bool { return d.flags&flag == flag }

// witnessV0 checks a spend of a version 0 program: of a key, or of a script that is
// a multisig.
func (d *directChecker) witnessV0(i int, program []byte, witness wire.TxWitness) bool {
	if d.hashes == nil {
		return false
	}
	switch {
	case len(program) == 22 && program[0] == txscript.OP_0 && program[1] == txscript.OP_DATA_20:
		if len(witness) != 2 || hash160(witness[1]) != [20]byte(program[2:]) {
			return false
		}
		sig, ok := plainSig(witness[0])
		if !ok {
			return false
		}
		hash := d.witnessHash(i, payToKeyHash(program[2:]))
		return secp256k1.VerifyECDSA(witness[1], sig, &hash)
	case len(program) == 34 && program[0] == txscript.OP_0 && program[1] == txscript.OP_DATA_32:
		if len(witness) < 2 {
			return false
		}
		script, items := witness[len(witness)-1], witness[:len(witness)-1]
		m, keys, ok := readMultisig(script)
		if !ok || sha256.Sum256(script) != [32]byte(program[2:]) {
			return false
		}
		hash := d.witnessHash(i, script)
		return multisigValid(m, keys, items, &hash)
	}
	return false
}

// taprootKey checks a spend by the output key, without an annex, of everything.
func (d *directChecker) taprootKey(i int, script []byte, witness wire.TxWitness) bool {
	if !d.has(txscript.ScriptVerifyTaproot) || d.hashes == nil ||
		len(script) != 34 || script[0] != txscript.OP_1 || len(witness) != 1 {
		return false
	}
	sig, kind := witness[0], byte(txscript.SigHashDefault)
	if len(sig) == 65 && sig[64] == byte(txscript.SigHashAll) {
		sig, kind = sig[:64], sig[64]
	}
	hash := d.taprootHash(i, kind)
	return secp256k1.VerifySchnorr(script[2:], sig, &hash)
}

// legacy checks a signature from before segwit by one key.
func (d *directChecker) legacy(i int, script, key, full []byte) bool {
	sig, ok := plainSig(full)
	// A signature would be cut out of the script that it signs.
	if !ok || bytes.Contains(script, full) {
		return false
	}
	hash := d.legacyHash(i, script)
	return secp256k1.VerifyECDSA(key, sig, &hash)
}

// multisig checks signatures from before segwit by m of some keys.
func (d *directChecker) multisig(i int, script []byte, items [][]byte) bool {
	m, keys, ok := readMultisig(script)
	if !ok || len(items) != 1+m {
		return false
	}
	for _, full := range items[1:] {
		if bytes.Contains(script, full) {
			return false
		}
	}
	hash := d.legacyHash(i, script)
	return multisigValid(m, keys, items, &hash)
}

// multisigValid matches an empty item and m signatures, in the order of their keys.
func multisigValid(m int, keys, items [][]byte, hash *[32]byte) bool {
	if len(items) != 1+m || len(items[0]) != 0 {
		return false
	}
	for _, full := range items[1:] {
		sig, ok := plainSig(full)
		if !ok {
			return false
		}
		for {
			if len(keys) == 0 {
				return false
			}
			key := keys[0]
			keys = keys[1:]
			if secp256k1.VerifyECDSA(key, sig, hash) {
				break
			}
		}
	}
	return true
}

// plainSig cuts off the hash type, which must be that of everything.
func plainSig(full []byte) (sig []byte, ok bool) {
	n := len(full) - 1
	if n < 1 || full[n] != byte(txscript.SigHashAll) {
		return nil, false
	}
	return full[:n], true
}

// The templates.

func scriptHash(script []byte) (hash [20]byte, ok bool) {
	if len(script) != 23 || script[0] != txscript.OP_HASH160 || script[1] != txscript.OP_DATA_20 || script[22] != txscript.OP_EQUAL {
		return hash, false
	}
	return [20]byte(script[2:]), true
}

func keyHash(script []byte) (hash [20]byte, ok bool) {
	if len(script) != 25 || script[0] != txscript.OP_DUP || script[1] != txscript.OP_HASH160 || script[2] != txscript.OP_DATA_20 ||
		script[23] != txscript.OP_EQUALVERIFY || script[24] != txscript.OP_CHECKSIG {
		return hash, false
	}
	return [20]byte(script[3:]), true
}

func payToKeyHash(hash []byte) []byte {
	script := make([]byte, 0, 25)
	script = append(script, txscript.OP_DUP, txscript.OP_HASH160, txscript.OP_DATA_20)
	script = append(script, hash...)
	return append(script, txscript.OP_EQUALVERIFY, txscript.OP_CHECKSIG)
}

// bareKey returns the key of a script that is a push of one and CHECKSIG.
func bareKey(script []byte) (key []byte, ok bool) {
	n := len(script) - 2
	if n != 33 && n != 65 || int(script[0]) != n || script[n+1] != txscript.OP_CHECKSIG {
		return nil, false
	}
	return script[1 : n+1], true
}

// isWitnessProgram is BIP141's rule: a version and one push of 2 to 40 bytes.
func isWitnessProgram(script []byte) bool {
	n := len(script)
	return n >= 4 && n <= 42 && int(script[1]) == n-2 &&
		(script[0] == txscript.OP_0 || script[0] >= txscript.OP_1 && script[0] <= txscript.OP_16)
}

// readMultisig reads m, up to 16 keys of 33 or 65 bytes, their number, CHECKMULTISIG.
func readMultisig(script []byte) (m int, keys [][]byte, ok bool) {
	last := len(script) - 1
	if last < 3 || script[last] != txscript.OP_CHECKMULTISIG || !smallInt(script[0]) || !smallInt(script[last-1]) {
		return 0, nil, false
	}
	m, n := int(script[0]-txscript.OP_1)+1, int(script[last-1]-txscript.OP_1)+1
	keys = make([][]byte, 0, n)
	for rest := script[1 : last-1]; len(rest) > 0; {
		size := int(rest[0])
		if size != 33 && size != 65 || len(rest) < 1+size {
			return 0, nil, false
		}
		keys, rest = append(keys, rest[1:1+size]), rest[1+size:]
	}
	return m, keys, len(keys) == n && m <= n
}

func smallInt(op byte) bool { return op >= txscript.OP_1 && op <= txscript.OP_16 }

// readPushes fills to with what a script of nothing but pushes of strings pushes,
// the empty one included. It fails if there are more than fit.
func readPushes(script []byte, to [][]byte) (n int, ok bool) {
	for len(script) > 0 {
		size, head := int(script[0]), 1
		switch {
		case size <= txscript.OP_DATA_75:
		case size == txscript.OP_PUSHDATA1 && len(script) >= 2:
			size, head = int(script[1]), 2
		case size == txscript.OP_PUSHDATA2 && len(script) >= 3:
			size, head = int(binary.LittleEndian.Uint16(script[1:])), 3
		default:
			return 0, false
		}
		if len(script) < head+size || n == len(to) {
			return 0, false
		}
		to[n], script = script[head:head+size], script[head+size:]
		n++
	}
	return n, true
}

func hash160(b []byte) [20]byte { return [20]byte(address.Hash160(b)) }

// Signature hashes of everything: SIGHASH_ALL, and BIP341's default.

// legacyHash is the hash from before segwit.
func (d *directChecker) legacyHash(i int, script []byte) [32]byte {
	h := &d.sum
	if h.d == nil {
		*h = newSummer()
	}
	h.uint32(uint32(d.tx.Version))
	h.count(len(d.tx.TxIn))
	for j, in := range d.tx.TxIn {
		h.bytes(in.PreviousOutPoint.Hash[:])
		h.uint32(in.PreviousOutPoint.Index)
		if j == i {
			h.script(script)
		} else {
			h.script(nil)
		}
		h.uint32(in.Sequence)
	}
	h.count(len(d.tx.TxOut))
	for _, out := range d.tx.TxOut {
		h.uint64(uint64(out.Value))
		h.script(out.PkScript)
	}
	h.uint32(d.tx.LockTime)
	h.uint32(uint32(txscript.SigHashAll))
	sum := h.sum()
	return sha256.Sum256(sum[:])
}

// witnessHash is BIP143's.
func (d *directChecker) witnessHash(i int, script []byte) [32]byte {
	in := d.tx.TxIn[i]
	b := make([]byte, 0, 4+4*chainhash.HashSize+4+9+len(script)+8+3*4)
	b = binary.LittleEndian.AppendUint32(b, uint32(d.tx.Version))
	b = append(b, d.hashes.HashPrevOutsV0[:]...)
	b = append(b, d.hashes.HashSequenceV0[:]...)
	b = append(b, in.PreviousOutPoint.Hash[:]...)
	b = binary.LittleEndian.AppendUint32(b, in.PreviousOutPoint.Index)
	b = appendCount(b, len(script))
	b = append(b, script...)
	b = binary.LittleEndian.AppendUint64(b, uint64(d.coins[i].Value))
	b = binary.LittleEndian.AppendUint32(b, in.Sequence)
	b = append(b, d.hashes.HashOutputsV0[:]...)
	b = binary.LittleEndian.AppendUint32(b, d.tx.LockTime)
	b = binary.LittleEndian.AppendUint32(b, uint32(txscript.SigHashAll))
	sum := sha256.Sum256(b)
	return sha256.Sum256(sum[:])
}

// taprootHash is BIP341's, for a key and without an annex.
func (d *directChecker) taprootHash(i int, kind byte) [32]byte {
	var buf [256]byte
	b := append(buf[:0], tapSighash[:]...)
	b = append(b, 0, kind) // the epoch
	b = binary.LittleEndian.AppendUint32(b, uint32(d.tx.Version))
	b = binary.LittleEndian.AppendUint32(b, d.tx.LockTime)
	b = append(b, d.hashes.HashPrevOutsV1[:]...)
	b = append(b, d.hashes.HashInputAmountsV1[:]...)
	b = append(b, d.hashes.HashInputScriptsV1[:]...)
	b = append(b, d.hashes.HashSequenceV1[:]...)
	b = append(b, d.hashes.HashOutputsV1[:]...)
	b = append(b, 0) // no extension, no annex
	b = binary.LittleEndian.AppendUint32(b, uint32(i))
	return sha256.Sum256(b)
}

// tapSighash is what BIP341 hashes before the message.
var tapSighash = func() (b [64]byte) {
	tag := sha256.Sum256([]byte("TapSighash"))
	copy(b[:], tag[:])
	copy(b[32:], tag[:])
	return b
}()

// appendCount appends a variable-length integer below 2^32.
func appendCount(b []byte, n int) []byte {
	switch {
	case n < 0xfd:
		return append(b, byte(n))
	case n <= math.MaxUint16:
		return binary.LittleEndian.AppendUint16(append(b, 0xfd), uint16(n))
	default:
		return binary.LittleEndian.AppendUint32(append(b, 0xfe), uint32(n))
	}
}
