package spend

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"

	"github.com/btcsuite/btcd/address/v2"
	"github.com/btcsuite/btcd/btcutil/v2"
	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/txscript/v2"
	"github.com/btcsuite/btcd/wire/v2"
	"golang.org/x/crypto/ripemd160" //nolint:staticcheck // What OP_RIPEMD160 names.

	"dunlin/chain/consensus"
)

// ErrNoUTXO says that it is not known what an input spends.
var ErrNoUTXO = errors.New("it is not known which output is spent")

// spent returns the output that input i spends. Its id shows that PrevTx is the
// right one, and PrevOut must not contradict it.
func (p *Packet) spent(i int) (*wire.TxOut, error) {
	in, op := &p.Inputs[i], p.Tx.TxIn[i].PreviousOutPoint
	if in.PrevTx == nil {
		if in.PrevOut == nil {
			return nil, ErrNoUTXO
		}
		return in.PrevOut, nil
	}
	if id := in.PrevTx.TxHash(); id != op.Hash {
		return nil, fmt.Errorf("spends from %s and has %s instead", op.Hash, id)
	}
	if uint64(op.Index) >= uint64(len(in.PrevTx.TxOut)) {
		return nil, fmt.Errorf("spends output %d of %d of %s", op.Index, len(in.PrevTx.TxOut), op.Hash)
	}
	out := in.PrevTx.TxOut[op.Index]
	if in.PrevOut != nil && (in.PrevOut.Value != out.Value || !bytes.Equal(in.PrevOut.PkScript, out.PkScript)) {
		return nil, errors.New("says that it spends another output than its previous transaction has")
	}
	if out.Value < 0 || out.Value > btcutil.MaxSatoshi {
		return nil, fmt.Errorf("spends %d satoshi", out.Value)
	}
	return out, nil
}

// coins are what the inputs spend. Heights are not known.
func (p *Packet) coins() ([]consensus.Coin, error) {
	out := make([]consensus.Coin, len(p.Inputs))
	for i := range out {
		o, err := p.spent(i)
		if err != nil {
			return nil, fmt.Errorf("input %d: %w", i, err)
		}
		out[i] = consensus.Coin{Value: o.Value, Script: o.PkScript}
	}
	return out, nil
}

// Fee is what the inputs are worth beyond the outputs; negative if they are not. It
// is not proven of inputs without PrevTx (see Analysis.Unproven).
func (p *Packet) Fee() (int64, error) {
	coins, err := p.coins()
	if err != nil {
		return 0, err
	}
	var fee int64
	for i := range coins {
		if fee += coins[i].Value; fee > btcutil.MaxSatoshi {
			return 0, errors.New("inputs are worth more than there is")
		}
	}
	for _, out := range p.Tx.TxOut {
		fee -= out.Value
	}
	return fee, nil
}

// holds says whether the value has the hash.
func (h *Preimage) holds() bool {
	var sum []byte
	switch h.Kind {
	case Sha256:
		s := sha256.Sum256(h.Value)
		sum = s[:]
	case Hash256:
		sum = chainhash.DoubleHashB(h.Value)
	case Hash160:
		sum = address.Hash160(h.Value)
	case Ripemd160:
		d := ripemd160.New()
		d.Write(h.Value) // a hash never fails
		sum = d.Sum(nil)
	}
	return sum != nil && bytes.Equal(sum, h.Hash)
}

// A form is how an input is signed.
type form uint8

const (
	formUnknown form = iota
	formLegacy
	formWitness // version 0
	formTaproot
)

// A lockScript is what an input's signatures commit to.
type lockScript struct {
	form form
	// code is the script of signatures (BIP143's script code); nil of taproot.
	code []byte
	// keyHash is set if the script is a hash of one key: 20 bytes.
	keyHash []byte
}

// Errors of scripts that do not fit.
var (
	errNoRedeem      = errors.New("the redeem script is not known")
	errWrongRedeem   = errors.New("the redeem script is not that of the output")
	errNoWitness     = errors.New("the witness script is not known")
	errWrongWitness  = errors.New("the witness script is not that of the output")
	errUnknownScript = errors.New("an output of a form that is not known here")
)

// lock finds the script that signs for out, and that redeem and witness scripts are
// those that it commits to.
func (in *Input) lock(out *wire.TxOut) (lockScript, error) {
	script := out.PkScript
	nested := false
	if txscript.IsPayToScriptHash(script) {
		if in.RedeemScript == nil {
			return lockScript{}, errNoRedeem
		}
		if !bytes.Equal(address.Hash160(in.RedeemScript), script[2:22]) {
			return lockScript{}, errWrongRedeem
		}
		script, nested = in.RedeemScript, true
	}
	switch {
	case txscript.IsPayToTaproot(script) && !nested:
		return lockScript{form: formTaproot}, nil
	case txscript.IsPayToWitnessPubKeyHash(script):
		hash := script[2:22]
		code := append([]byte{txscript.OP_DUP, txscript.OP_HASH160, txscript.OP_DATA_20}, hash...)
		return lockScript{formWitness, append(code, txscript.OP_EQUALVERIFY, txscript.OP_CHECKSIG), hash}, nil
	case txscript.IsPayToWitnessScriptHash(script):
		if in.WitnessScript == nil {
			return lockScript{}, errNoWitness
		}
		if sum := sha256.Sum256(in.WitnessScript); !bytes.Equal(sum[:], script[2:34]) {
			return lockScript{}, errWrongWitness
		}
		if len(in.WitnessScript) > txscript.MaxScriptSize {
			return lockScript{}, errUnknownScript // nobody can spend it
		}
		return lockScript{form: formWitness, code: in.WitnessScript}, nil
	case txscript.IsWitnessProgram(script):
		return lockScript{}, errUnknownScript
	}
	if len(script) > txscript.MaxScriptSize {
		return lockScript{}, errUnknownScript
	}
	l := lockScript{form: formLegacy, code: script}
	if txscript.IsPayToPubKeyHash(script) {
		l.keyHash = script[3:23]
	}
	return l, nil
}
