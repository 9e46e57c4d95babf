package consensus

import (
	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/wire/v2"
)

// DecodeBlock decodes raw (header ‖ seal ‖ transactions), which it keeps. It
// scans counts against the bytes that remain before anything is allocated.
// Faults are *RuleError with BlameSender; trailing bytes are a fault.
func DecodeBlock(p *Params, raw []byte) (*Block, error) { panic("stub") }

// NewBlock encodes a block made here.
func NewBlock(p *Params, h Header, txs []*wire.MsgTx) (*Block, error) { panic("stub") }

// DecodeHeader decodes header ‖ seal from exactly HeaderBytes+SealBytes bytes.
func DecodeHeader(p *Params, raw []byte) (Header, error) { panic("stub") }

// AppendHeader appends header ‖ seal to dst.
func AppendHeader(dst []byte, h *Header) []byte { panic("stub") }

// DecodeTx decodes one transaction, guarded as DecodeBlock, no trailing bytes.
func DecodeTx(raw []byte) (*wire.MsgTx, error) { panic("stub") }

// CheckBlockContextFree checks what a body proves without its past: merkle root
// (a duplicate-mutated one blames the sender), coinbase, transaction sanity,
// base size, legacy sigops. It is the expensive half of a block that workers do.
func CheckBlockContextFree(p *Params, b *Block) error { panic("stub") }

// CheckBlockContext checks the body given its past: coinbase height (BIP34),
// finality (BIP113), witness commitment once segwit is active and unexpected
// witness before, weight, BIP54.
func CheckBlockContext(p *Params, past Past, b *Block) error { panic("stub") }

// MedianTimePast is the median of the last 11 block times up to past's end, in Unix seconds.
func MedianTimePast(past Past) int64 { panic("stub") }

// Subsidy is the new money of a block at height, in satoshi.
func (p *Params) Subsidy(height int32) int64 { panic("stub") }

// ScriptFlags are txscript's flags for a block at height with this hash.
func ScriptFlags(p *Params, height int32, hash chainhash.Hash) uint32 { panic("stub") }

// A SpentTx is a transaction with the coins that its inputs spend, in order
// (none for a coinbase): what script checks and undo records need.
type SpentTx struct {
	Tx    *wire.MsgTx
	Coins []Coin
}

// CheckTxInputs checks value ranges, maturity and BIP68 locks of a non-coinbase
// transaction in a block at past.Height()+1, and returns its fee.
func CheckTxInputs(p *Params, past Past, tx *wire.MsgTx, coins []Coin) (fee int64, err error) {
	panic("stub")
}

// SigOpCost is the BIP141 cost of a transaction given the coins it spends.
func SigOpCost(tx *wire.MsgTx, coins []Coin, flags uint32) (int, error) { panic("stub") }

// CheckTxScripts runs the scripts of every input. It is safe for concurrent use.
func CheckTxScripts(tx *wire.MsgTx, coins []Coin, flags uint32) error { panic("stub") }

// CheckCoinbaseValue checks that the coinbase claims at most subsidy plus fees.
func CheckCoinbaseValue(p *Params, height int32, coinbase *wire.MsgTx, fees int64) error {
	panic("stub")
}

// CheckBIP30 says whether a block at this height and hash must not overwrite
// unspent outputs with its transactions' ids (then the caller looks each up).
func CheckBIP30(p *Params, past Past, hash chainhash.Hash) bool { panic("stub") }

// CoinbaseData returns the text that a block carries: the first OP_RETURN output
// of its coinbase that is not a commitment, or, if there is none, "".
func CoinbaseData(b *Block) string { panic("stub") }
