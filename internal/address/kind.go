package address

import (
	"encoding/hex"

	"github.com/btcsuite/btcd/txscript/v2"
)

// payToAnchor is the script that anyone can spend, for fee bumping (Core 28).
const payToAnchor = "51024e73"

// Kind is Bitcoin Core's name for the form of an output script: pubkey, pubkeyhash,
// scripthash, multisig, nulldata, anchor, witness_v0_keyhash, witness_v0_scripthash,
// witness_v1_taproot, witness_unknown or nonstandard.
func Kind(script []byte) string {
	if hex.EncodeToString(script) == payToAnchor {
		return "anchor"
	}
	if version, program, err := txscript.ExtractWitnessProgramInfo(script); err == nil {
		switch {
		case version == 0 && len(program) == 20:
			return "witness_v0_keyhash"
		case version == 0 && len(program) == 32:
			return "witness_v0_scripthash"
		case version == 1 && len(program) == 32:
			return "witness_v1_taproot"
		case version == 0:
			return "nonstandard"
		}
		return "witness_unknown"
	}
	switch txscript.GetScriptClass(script) {
	case txscript.PubKeyTy:
		return "pubkey"
	case txscript.PubKeyHashTy:
		return "pubkeyhash"
	case txscript.ScriptHashTy:
		return "scripthash"
	case txscript.MultiSigTy:
		return "multisig"
	case txscript.NullDataTy:
		return "nulldata"
	default:
		// Core takes any OP_RETURN that only pushes for data, also several pushes.
		if len(script) > 0 && script[0] == txscript.OP_RETURN && pushOnly(script[1:]) {
			return "nulldata"
		}
		return "nonstandard"
	}
}

func pushOnly(script []byte) bool {
	t := txscript.MakeScriptTokenizer(0, script)
	for t.Next() {
		if t.Opcode() > txscript.OP_16 {
			return false
		}
	}
	return t.Err() == nil
}
