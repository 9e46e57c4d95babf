// Package mining makes blocks: templates from the mempool, and a miner that
// seals them.
//
// It knows no peers. What it makes goes through the one door, chain.Submit.
package mining

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/btcsuite/btcd/blockchain"
	"github.com/btcsuite/btcd/btcutil/v2"
	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/txscript/v2"
	"github.com/btcsuite/btcd/wire/v2"

	"dunlin/chain"
	"dunlin/chain/consensus"
	"dunlin/chain/mempool"
)

const (
	// MaxDataBytes is the longest text that a block of ours carries in an
	// OP_RETURN output: Bitcoin's customary limit for data carriers.
	MaxDataBytes = 80
	// MaxCoinbaseTextBytes leaves room in the coinbase script, whose limit is 100
	// bytes, for the height (at most 6) and the extranonce (9).
	MaxCoinbaseTextBytes = 60
	// coinbaseWeight is set aside for the header, the count and the coinbase.
	coinbaseWeight = 4000
	// coinbaseSigOps is set aside for the coinbase's own outputs.
	coinbaseSigOps = 400
	// maxPayToBytes keeps an output script of the operator's within both.
	maxPayToBytes = 100
	maxMoney      = btcutil.MaxSatoshi
	// maxMisses ends the search for what still fits into an almost full block.
	maxMisses = 1000
)

// ErrDataTooLong is returned for data over MaxDataBytes.
var ErrDataTooLong = fmt.Errorf("data is longer than %d bytes", MaxDataBytes)

// ErrTextTooLong is returned for a coinbase text over MaxCoinbaseTextBytes.
var ErrTextTooLong = fmt.Errorf("coinbase text is longer than %d bytes", MaxCoinbaseTextBytes)

// ErrPayTo is returned for an output script that the coinbase cannot have.
var ErrPayTo = fmt.Errorf("pay to: an output script of 1 to %d bytes with few signature operations is required", maxPayToBytes)

// ErrTipGone is returned for a tip that was reorganised away meanwhile.
var ErrTipGone = errors.New("the tip changed")

// A Template is a block that lacks only its proof.
type Template struct {
	Height int32
	Header consensus.Header
	Txs    []*wire.MsgTx // Txs[0] is the coinbase
	Fees   int64         // satoshi, of Txs[1:]

	text       string
	extraNonce uint64
	nonce      uint32 // of the header, unless the sealer searches for one
}

// TemplateOptions say what goes into a template.
type TemplateOptions struct {
	PayTo        []byte // output script of the coinbase; nil: the plan's
	CoinbaseText string // in the coinbase script, at most MaxCoinbaseTextBytes
	Data         string // in an OP_RETURN output, at most MaxDataBytes; "" none
	Now          time.Time
	Entries      []mempool.Entry // candidates, all valid on the tip, parents before children
	// ExtraNonce is where the search starts. Whoever makes several templates on
	// one tip gives each its own, or the same block may be found twice.
	ExtraNonce uint64
	// Plan is what the sealer wants of the block.
	Plan consensus.Plan
}

// NewTemplate builds a block on top of tip: what pays most, packages of
// unconfirmed transactions together. Entries whose parents are not among them or
// do not fit are left out.
func NewTemplate(c *chain.Chain, engine consensus.Engine, tip chain.Tip, o TemplateOptions) (*Template, error) {
	if len(o.Data) > MaxDataBytes {
		return nil, ErrDataTooLong
	}
	if len(o.CoinbaseText) > MaxCoinbaseTextBytes {
		return nil, ErrTextTooLong
	}
	payTo := o.PayTo
	if payTo == nil {
		payTo = o.Plan.PayTo
	}
	if !payable(payTo) {
		return nil, ErrPayTo
	}
	p := c.Params()
	past, ok := c.Past(tip.Hash)
	if !ok {
		return nil, ErrTipGone
	}
	height, forks := tip.Height+1, p.Forks(past)
	when := time.Unix(max(o.Now.Unix(), EarliestTime(p, past)), 0)
	if o.Plan.Time != 0 {
		when = time.Unix(o.Plan.Time, 0)
	}
	t := &Template{
		Height: height,
		text:   o.CoinbaseText,
		nonce:  o.Plan.Nonce,
		Header: consensus.Header{BlockHeader: wire.BlockHeader{
			Version:   p.BlockVersion(past),
			PrevBlock: tip.Hash,
			Timestamp: when,
			Bits:      engine.NextBits(past, when),
		}},
	}
	if p.SealBytes > 0 { // the sealer's to fill
		t.Header.Seal = make([]byte, p.SealBytes)
		copy(t.Header.Seal, o.Plan.Seal)
	}
	cutoff := when.Unix()
	if forks.CSV { // BIP113
		cutoff = consensus.MedianTimePast(past)
	}
	coinbase := wire.NewMsgTx(2)
	in := &wire.TxIn{
		PreviousOutPoint: *wire.NewOutPoint(&chainhash.Hash{}, wire.MaxPrevOutIndex),
		Sequence:         wire.MaxTxInSequenceNum,
	}
	if p.BIP54 { // the coinbase is final only because its lock is one below its height
		coinbase.LockTime = uint32(height - 1)
		in.Sequence--
	}
	coinbase.AddTxIn(in)
	t.Txs = append(t.Txs, coinbase)
	for _, e := range choose(p, o.Entries, height, cutoff) {
		if t.Fees+e.Fee > maxMoney { // a rule, on networks that mint as much
			break
		}
		t.Fees += e.Fee
		t.Txs = append(t.Txs, e.Tx)
	}
	// A network may mint more at once than an output may hold: the rest is lost.
	coinbase.AddTxOut(wire.NewTxOut(min(p.Subsidy(height)+t.Fees, maxMoney), payTo))
	coinbase.TxOut = append(coinbase.TxOut, o.Plan.Outputs...)
	if o.Data != "" {
		script, err := txscript.NullDataScript([]byte(o.Data))
		if err != nil {
			return nil, fmt.Errorf("data output: %w", err)
		}
		coinbase.AddTxOut(wire.NewTxOut(0, script))
	}
	if forks.Segwit {
		var nonce [chainhash.HashSize]byte // BIP141's reserved value: zero
		in.Witness = wire.TxWitness{nonce[:]}
		coinbase.AddTxOut(wire.NewTxOut(0, consensus.WitnessCommitment(t.Txs, nonce)))
	}
	return t, t.SetExtraNonce(o.ExtraNonce)
}

// payable says whether a script is within what is set aside for the coinbase.
func payable(script []byte) bool {
	return len(script) > 0 && len(script) <= maxPayToBytes &&
		txscript.GetSigOpCount(script)*blockchain.WitnessScaleFactor <= coinbaseSigOps
}

// EarliestTime is the least time, in Unix seconds, that a child of past may have. Our
// clock may be behind those of the miners before us, within the 2 h that rules
// allow, or wrong.
func EarliestTime(p *consensus.Params, past consensus.Past) int64 {
	parent := past.Height()
	height := parent + 1
	t := consensus.MedianTimePast(past) + 1
	// The first block of a difficulty period may be little (BIP94: 600 s, BIP54:
	// 7200 s) before its parent, the last of one not before the first (BIP54).
	const period = 2016
	if (p.BIP54 || p.EnforceBIP94) && height%period == 0 {
		t = max(t, past.At(parent).Time)
	}
	if p.BIP54 && height%period == period-1 {
		t = max(t, past.At(height-period+1).Time)
	}
	return t
}

// SetExtraNonce rewrites the coinbase script and the merkle root. Of n, 56 bits
// count.
func (t *Template) SetExtraNonce(n uint64) error {
	// The height (BIP34) comes first on every network, active or not: no coinbase
	// has the id of one at another height (BIP30).
	b := txscript.NewScriptBuilder().AddOps(consensus.HeightScript(t.Height))
	// Always eight bytes, so that blocks do not differ in size by chance, and the
	// first is zero, so that nobody takes them for text.
	b.AddData(binary.BigEndian.AppendUint64(nil, n&(1<<56-1)))
	if t.text != "" {
		b.AddData([]byte(t.text))
	}
	script, err := b.Script()
	if err != nil {
		return fmt.Errorf("coinbase script: %w", err)
	}
	t.extraNonce = n
	t.Txs[0].TxIn[0].SignatureScript = script // 10 to 76 bytes: the rule is 2 to 100
	t.Header.MerkleRoot = consensus.MerkleRoot(t.Txs)
	t.Header.Nonce = t.nonce
	return nil
}

// NextExtraNonce opens a new search space.
func (t *Template) NextExtraNonce() error { return t.SetExtraNonce(t.extraNonce + 1) }

// Block encodes the template as it stands.
func (t *Template) Block(p *consensus.Params) (*consensus.Block, error) {
	return consensus.NewBlock(p, t.Header, t.Txs)
}
