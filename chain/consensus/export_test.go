package consensus

import (
	"github.com/btcsuite/btcd/txscript/v2"
	"github.com/btcsuite/btcd/wire/v2"
)

// SigHashes and NewSpentOuts let the external tests at what scripts are run with.
func SigHashes(tx *wire.MsgTx, coins []Coin) *txscript.TxSigHashes { return sigHashes(tx, coins) }

func NewSpentOuts(tx *wire.MsgTx, coins []Coin) txscript.PrevOutputFetcher {
	return newSpentOuts(tx, coins)
}

// Direct says whether the direct path finds input i valid, Interpret what txscript
// says of it.
func Direct(tx *wire.MsgTx, coins []Coin, flags uint32, i int) bool {
	s, err := NewTxScripts(tx, coins, flags)
	if err != nil {
		return false
	}
	d := directChecker{tx: tx, coins: coins, flags: s.flags, hashes: s.hashes}
	return d.valid(i)
}

func Interpret(tx *wire.MsgTx, coins []Coin, flags uint32, i int) error {
	s, err := NewTxScripts(tx, coins, flags)
	if err != nil {
		return err
	}
	return s.interpret(i)
}

// DirectFlags are the flags under which the direct path answers.
const DirectFlags = uint32(directFlags)
