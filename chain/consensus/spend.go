package consensus

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/txscript/v2"
	"github.com/btcsuite/btcd/wire/v2"
)

// A SpentTx is a transaction with the coins that its inputs spend, in order
// (none for a coinbase): what script checks and undo records need.
type SpentTx struct {
	Tx    *wire.MsgTx
	Coins []Coin
}

// errCoins says that a caller passed coins that do not match the inputs.
var errCoins = errors.New("not one coin per input")

// ScriptFlags are txscript's flags for a block with this hash after past.
func ScriptFlags(p *Params, past Past, hash chainhash.Hash) uint32 {
	height, forks := past.Height()+1, p.Forks(past)
	var flags txscript.ScriptFlags
	if height >= p.BIP16Height {
		flags |= txscript.ScriptBip16
		// Where heights decide, witness programs are checked before segwit is
		// active, as in Bitcoin Core: nothing buried is against it.
		if p.Signalling.Window <= 0 || forks.Segwit {
			flags |= txscript.ScriptVerifyWitness
		}
		if forks.Taproot {
			flags |= txscript.ScriptVerifyTaproot
		}
	}
	if exception, ok := p.ScriptFlagExceptions[hash]; ok {
		flags = txscript.ScriptFlags(exception)
	}
	if height >= p.BIP66Height {
		flags |= txscript.ScriptVerifyDERSignatures
	}
	if height >= p.BIP65Height {
		flags |= txscript.ScriptVerifyCheckLockTimeVerify
	}
	if forks.CSV {
		flags |= txscript.ScriptVerifyCheckSequenceVerify
	}
	if forks.Segwit {
		flags |= txscript.ScriptStrictMultiSig // BIP147, NULLDUMMY
	}
	return uint32(flags)
}

// CheckTxInputs checks value ranges, maturity, BIP68 locks and BIP54's limits of
// a non-coinbase transaction in a block at past.Height()+1, and returns its fee.
// coins[i] is what tx.TxIn[i] spends.
func CheckTxInputs(p *Params, past Past, tx *wire.MsgTx, coins []Coin) (fee int64, err error) {
	if len(coins) != len(tx.TxIn) {
		return 0, fmt.Errorf("inputs of %s: %d coins: %w", tx.TxHash(), len(coins), errCoins)
	}
	height := past.Height() + 1
	var in, out int64
	for i := range coins {
		c := &coins[i]
		if c.Coinbase && height-c.Height < p.CoinbaseMaturity {
			return 0, badBlock("bad-txns-premature-spend-of-coinbase", "%s input %d: coinbase of block %d in block %d, %d blocks wanted",
				tx.TxHash(), i, c.Height, height, p.CoinbaseMaturity)
		}
		// Cannot overflow: the sum so far and, once checked, the value are at
		// most maxMoney.
		if c.Value < 0 || c.Value > maxMoney || in+c.Value > maxMoney {
			return 0, badBlock("bad-txns-inputvalues-outofrange", "%s input %d: %d satoshi", tx.TxHash(), i, c.Value)
		}
		in += c.Value
	}
	for _, o := range tx.TxOut {
		out += o.Value
	}
	if in < out {
		return 0, badBlock("bad-txns-in-belowout", "%s: %d satoshi in, %d out", tx.TxHash(), in, out)
	}
	if p.Forks(past).CSV && !sequenceLocksMet(past, tx, coins) {
		return 0, badBlock("bad-txns-nonfinal", "%s: relative lock (BIP68) not met in block %d", tx.TxHash(), height)
	}
	if p.BIP54 {
		// CheckBlockContext has it for blocks; here it serves loose transactions.
		if err := checkBIP54TxSize(tx); err != nil {
			return 0, err
		}
		if n := bip54SigOps(tx, coins); n > bip54MaxSigOps {
			return 0, badBlock("bad-txns-legacy-sigops", "%s: %d signature operations in legacy scripts, at most %d",
				tx.TxHash(), n, bip54MaxSigOps)
		}
	}
	return in - out, nil
}

// sequenceLocksMet evaluates BIP68 for a transaction in the block after past.
func sequenceLocksMet(past Past, tx *wire.MsgTx, coins []Coin) bool {
	if uint32(tx.Version) < 2 { // the version is unsigned (BIP68)
		return true
	}
	height := past.Height() + 1
	medianTime := int64(-1) // computed when first wanted
	for i, in := range tx.TxIn {
		if in.Sequence&wire.SequenceLockTimeDisabled != 0 {
			continue
		}
		lock := int64(in.Sequence & wire.SequenceLockTimeMask)
		if in.Sequence&wire.SequenceLockTimeIsSeconds == 0 {
			if int64(coins[i].Height)+lock > int64(height) {
				return false
			}
			continue
		}
		if medianTime < 0 {
			medianTime = MedianTimePast(past)
		}
		since := medianTimeAt(past, max(coins[i].Height-1, 0))
		if since+lock<<wire.SequenceLockTimeGranularity > medianTime {
			return false
		}
	}
	return true
}

// bip54MaxSigOps limits the signature operations of a transaction's legacy
// inputs: what bounds the worst block's validation time.
const bip54MaxSigOps = 2500

// bip54SigOps counts as BIP16 does, input scripts, spent scripts and redeem
// scripts separately.
func bip54SigOps(tx *wire.MsgTx, coins []Coin) int {
	n := 0
	for i, in := range tx.TxIn {
		script := coins[i].Script
		n += preciseSigOps(in.SignatureScript) + preciseSigOps(script)
		if txscript.IsPayToScriptHash(script) {
			n += txscript.GetPreciseSigOpCount(in.SignatureScript, script, true)
		}
	}
	return n
}

// preciseSigOps counts a script's own signature operations.
func preciseSigOps(script []byte) int {
	if txscript.IsPayToScriptHash(script) {
		return 0 // HASH160, a push, EQUAL: none, and txscript would want the input's script
	}
	return txscript.GetPreciseSigOpCount(nil, script, true)
}

// SigOpCost is the BIP141 cost of a transaction given the coins it spends, one
// per input in order; none for a coinbase.
func SigOpCost(tx *wire.MsgTx, coins []Coin, flags uint32) (int, error) {
	cost := legacySigOps(tx) * witnessScale
	if isCoinbase(tx) {
		return cost, nil
	}
	if len(coins) != len(tx.TxIn) {
		return 0, fmt.Errorf("signature operations of %s: %d coins: %w", tx.TxHash(), len(coins), errCoins)
	}
	p2sh := flags&uint32(txscript.ScriptBip16) != 0
	segwit := flags&uint32(txscript.ScriptVerifyWitness) != 0
	for i, in := range tx.TxIn {
		script := coins[i].Script
		if p2sh && txscript.IsPayToScriptHash(script) {
			cost += txscript.GetPreciseSigOpCount(in.SignatureScript, script, true) * witnessScale
		}
		if segwit {
			cost += txscript.GetWitnessSigOpCount(in.SignatureScript, script, in.Witness)
		}
	}
	return cost, nil
}

// CheckTxScripts runs the scripts of every input of a non-coinbase transaction,
// one after the other. It is safe for concurrent use. It is by far the most
// expensive check; it does no other.
func CheckTxScripts(tx *wire.MsgTx, coins []Coin, flags uint32) error {
	s, err := NewTxScripts(tx, coins, flags)
	if err != nil {
		return err
	}
	return s.Check(0, len(coins))
}

// TxScripts are the scripts of one transaction, for those who share its inputs out.
type TxScripts struct {
	tx       *wire.MsgTx
	coins    []Coin
	flags    txscript.ScriptFlags
	hashes   *txscript.TxSigHashes // nil without a witness
	prevOuts txscript.PrevOutputFetcher
}

// NewTxScripts does what the inputs of a non-coinbase transaction have in common.
// coins[i] is what tx.TxIn[i] spends.
func NewTxScripts(tx *wire.MsgTx, coins []Coin, flags uint32) (*TxScripts, error) {
	if len(coins) == 0 || len(coins) != len(tx.TxIn) {
		return nil, fmt.Errorf("scripts of %s: %d coins: %w", tx.TxHash(), len(coins), errCoins)
	}
	s := &TxScripts{tx: tx, coins: coins, flags: txscript.ScriptFlags(flags)}
	if tx.HasWitness() { // only segwit's signature hashes share work between inputs
		s.hashes = sigHashes(tx, coins)
	}
	if s.hashes != nil && len(coins) > 1 {
		s.prevOuts = newSpentOuts(tx, coins)
	} else {
		s.prevOuts = txscript.NewCannedPrevOutputFetcher(coins[0].Script, coins[0].Value)
	}
	return s, nil
}

// Check runs the scripts of inputs [from, to), one after the other, and returns the
// fault of the first that fails. It is safe for concurrent use.
func (s *TxScripts) Check(from, to int) error {
	direct := directChecker{tx: s.tx, coins: s.coins, flags: s.flags, hashes: s.hashes}
	for i := from; i < to; i++ {
		if direct.valid(i) {
			continue
		}
		if err := s.interpret(i); err != nil {
			return badBlock("mandatory-script-verify-flag-failed", "%s input %d: %v", s.tx.TxHash(), i, err)
		}
	}
	return nil
}

// interpret lets txscript judge input i.
func (s *TxScripts) interpret(i int) error {
	c := &s.coins[i]
	vm, err := txscript.NewEngine(c.Script, s.tx, i, s.flags, nil, s.hashes, c.Value, s.prevOuts)
	if err != nil {
		return err
	}
	return vm.Execute()
}

// CheckCoinbaseValue checks that the coinbase claims at most subsidy plus fees.
func CheckCoinbaseValue(p *Params, height int32, coinbase *wire.MsgTx, fees int64) error {
	var claimed int64
	for _, out := range coinbase.TxOut {
		claimed += out.Value
	}
	if allowed := p.Subsidy(height) + fees; claimed > allowed {
		return badBlock("bad-cb-amount", "coinbase claims %d satoshi, at most %d", claimed, allowed)
	}
	return nil
}

// bip34ImpliesBIP30Limit is the first height at which a coinbase from before
// BIP34 could be repeated although BIP34 holds.
const bip34ImpliesBIP30Limit = 1_983_702

// CheckBIP30 says whether a block at this height and hash must not overwrite
// unspent outputs with its transactions' ids (then the caller looks each up).
// It need not under BIP54, nor where BIP34 already makes ids unique: from the first
// block on, or on a branch that a checkpoint shows to contain the block that
// activated BIP34. A repeated id is then that of a double spend, which is refused
// anyhow; Bitcoin Core names it bad-txns-BIP30 all the same.
func CheckBIP30(p *Params, past Past, hash chainhash.Hash) bool {
	if p.BIP54 || p.BIP34Height <= 1 {
		return false
	}
	height := past.Height() + 1
	if RepeatsCoinbase(p, height, hash) {
		return false
	}
	_, known := p.Checkpoints[p.BIP34Height]
	return !known || height <= p.BIP34Height || height >= bip34ImpliesBIP30Limit
}

// RepeatsCoinbase says whether the block at this height and hash is one of the few
// whose coinbase may repeat the id of an unspent one, and so destroys its coins.
func RepeatsCoinbase(p *Params, height int32, hash chainhash.Hash) bool {
	repeats, ok := p.BIP30Repeats[height]
	return ok && repeats == hash
}

// signatureBytes is the end of a seal that the coinbase does not commit to.
const signatureBytes = 64

// CoinbaseData returns the text that a block carries: the first OP_RETURN output
// of its coinbase that is not a commitment, to witnesses or to the stake in its seal,
// or, if there is none, "". Bytes that are not UTF-8 are replaced.
func CoinbaseData(b *Block) string {
	var stake []byte
	if signed := len(b.Header.Seal) - signatureBytes; signed > 0 {
		sum := sha256.Sum256(b.Header.Seal[:signed])
		stake = append([]byte{txscript.OP_RETURN, txscript.OP_DATA_32}, sum[:]...)
	}
	for _, out := range b.Txs[0].MsgTx().TxOut {
		script := out.PkScript
		if len(script) < 2 || script[0] != txscript.OP_RETURN || isWitnessCommitment(script) || bytes.Equal(script, stake) {
			continue
		}
		var text []byte
		for t := txscript.MakeScriptTokenizer(0, script[1:]); t.Next(); {
			text = append(text, t.Data()...)
		}
		return strings.ToValidUTF8(string(text), "\uFFFD")
	}
	return ""
}

// CoinbaseText returns what is printable in a block's coinbase script: its pushes
// of at least four bytes that are UTF-8 without control characters, joined by a
// space. Genesis blocks carry their text there.
func CoinbaseText(b *Block) string {
	const least = 4 // shorter ones are heights, bits and extra nonces
	var texts []string
	for t := txscript.MakeScriptTokenizer(0, b.Txs[0].MsgTx().TxIn[0].SignatureScript); t.Next(); {
		if data := t.Data(); len(data) >= least && isText(data) {
			texts = append(texts, string(data))
		}
	}
	return strings.Join(texts, " ")
}

func isText(data []byte) bool {
	return utf8.Valid(data) && !strings.ContainsFunc(string(data), func(r rune) bool { return r < ' ' || r == 0x7f })
}
