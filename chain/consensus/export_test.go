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
