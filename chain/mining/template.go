// Package mining makes blocks: templates from the mempool, and a miner that
// seals them.
//
// It knows no peers. What it makes goes through the one door, chain.Submit.
package mining

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
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
	// bytes, for the height (≤6) and the extranonce (9).
	MaxCoinbaseTextBytes = 60
	// coinbaseWeight is set aside for the header, the count and the coinbase.
	coinbaseWeight = 4000
	// coinbaseSigOps is set aside for the coinbase's own outputs.
	coinbaseSigOps = 400
	// blockVersion is BIP9's top bits with no signal.
	blockVersion = 0x20000000
)

// ErrDataTooLong is returned for data over MaxDataBytes.
var ErrDataTooLong = fmt.Errorf("data is longer than %d bytes", MaxDataBytes)

// ErrTextTooLong is returned for a coinbase text over MaxCoinbaseTextBytes.
var ErrTextTooLong = fmt.Errorf("coinbase text is longer than %d bytes", MaxCoinbaseTextBytes)

// errTipGone means that the tip was reorganised away between two reads.
var errTipGone = errors.New("the tip changed")

// A Template is a block that lacks only its proof.
type Template struct {
	Height int32
	Header consensus.Header
	Txs    []*wire.MsgTx // Txs[0] is the coinbase
	Fees   int64         // satoshi, of Txs[1:]

	text       string
	segwit     bool
	extraNonce uint64
}

// TemplateOptions say what goes into a template.
type TemplateOptions struct {
	PayTo        []byte // output script of the coinbase
	CoinbaseText string // in the coinbase script, at most MaxCoinbaseTextBytes
	Data         string // in an OP_RETURN output, at most MaxDataBytes; "" none
	Now          time.Time
	Entries      []mempool.Entry // candidates, parents before children
}

// NewTemplate builds a block on top of tip. Entries whose parents do not fit, or
// that are not final, are left out.
func NewTemplate(c *chain.Chain, engine consensus.Engine, tip chain.Tip, o TemplateOptions) (*Template, error) {
	if len(o.Data) > MaxDataBytes {
		return nil, ErrDataTooLong
	}
	if len(o.CoinbaseText) > MaxCoinbaseTextBytes {
		return nil, ErrTextTooLong
	}
	p := c.Params()
	past, ok := c.Past(tip.Hash)
	if !ok {
		return nil, errTipGone
	}
	height := tip.Height + 1
	mtp := consensus.MedianTimePast(past)
	now := time.Unix(max(o.Now.Unix(), mtp+1), 0)
	t := &Template{
		Height: height,
		text:   o.CoinbaseText,
		segwit: height >= p.SegwitHeight,
		Header: consensus.Header{BlockHeader: wire.BlockHeader{
			Version:   blockVersion,
			PrevBlock: tip.Hash,
			Timestamp: now,
			Bits:      engine.NextBits(past, now),
		}},
	}
	finalTime := now
	if height >= p.CSVHeight { // BIP113
		finalTime = time.Unix(mtp, 0)
	}
	chosen := choose(p, o.Entries, height, finalTime)
	for _, e := range chosen {
		t.Fees += e.Fee
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
	coinbase.AddTxOut(wire.NewTxOut(p.Subsidy(height)+t.Fees, o.PayTo))
	if o.Data != "" {
		script, err := txscript.NullDataScript([]byte(o.Data))
		if err != nil {
			return nil, fmt.Errorf("data output: %w", err)
		}
		coinbase.AddTxOut(wire.NewTxOut(0, script))
	}
	t.Txs = append(t.Txs, coinbase)
	for _, e := range chosen {
		t.Txs = append(t.Txs, e.Tx)
	}
	if t.segwit {
		in.Witness = wire.TxWitness{make([]byte, 32)} // BIP141: the reserved value
		coinbase.AddTxOut(wire.NewTxOut(0, commitment(t.Txs)))
	}
	return t, t.SetExtraNonce(0)
}

// SetExtraNonce rewrites the coinbase script and the merkle root.
func (t *Template) SetExtraNonce(n uint64) error {
	b := txscript.NewScriptBuilder().AddInt64(int64(t.Height)) // BIP34
	b.AddInt64(int64(n & (1<<62 - 1)))
	if t.text != "" {
		b.AddData([]byte(t.text))
	}
	script, err := b.Script()
	if err != nil {
		return fmt.Errorf("coinbase script: %w", err)
	}
	if len(script) < 2 { // consensus: 2 to 100 bytes
		script = append(script, txscript.OP_0)
	}
	t.extraNonce = n
	t.Txs[0].TxIn[0].SignatureScript = script
	t.Header.MerkleRoot = merkleRoot(t.Txs, false)
	t.Header.Nonce = 0
	return nil
}

// NextExtraNonce opens a new search space.
func (t *Template) NextExtraNonce() error { return t.SetExtraNonce(t.extraNonce + 1) }

// Block encodes the template as it stands.
func (t *Template) Block(p *consensus.Params) (*consensus.Block, error) {
	return consensus.NewBlock(p, t.Header, t.Txs)
}

// choose picks entries by fee rate within weight and signature operations; a
// child comes only with its parents.
func choose(p *consensus.Params, entries []mempool.Entry, height int32, finalTime time.Time) []mempool.Entry {
	index := make(map[chainhash.Hash]int, len(entries))
	children := make([][]int, len(entries))
	missing := make([]int, len(entries)) // parents not chosen yet
	for i, e := range entries {
		index[e.ID] = i
		for _, parent := range e.Parents {
			if j, ok := index[parent]; ok {
				children[j] = append(children[j], i)
			}
			missing[i]++
		}
	}
	ready := make([]int, 0, len(entries))
	for i := range entries {
		if missing[i] == 0 {
			ready = append(ready, i)
		}
	}
	better := func(a, b int) int { // fee rates as fractions, exactly
		ea, eb := &entries[a], &entries[b]
		if c := cmp.Compare(eb.Fee*int64(ea.Weight), ea.Fee*int64(eb.Weight)); c != 0 {
			return c
		}
		return cmp.Compare(a, b)
	}
	slices.SortFunc(ready, better)
	weight, sigOps := coinbaseWeight, coinbaseSigOps
	var chosen []mempool.Entry
	for len(ready) > 0 {
		i := ready[0]
		ready = ready[1:]
		e := entries[i]
		if weight+e.Weight > p.MaxBlockWeight || sigOps+e.SigOpCost > p.MaxBlockSigOpsCost ||
			!blockchain.IsFinalizedTransaction(btcutil.NewTx(e.Tx), height, finalTime) {
			continue // and so none of its children
		}
		weight += e.Weight
		sigOps += e.SigOpCost
		chosen = append(chosen, e)
		for _, c := range children[i] {
			if missing[c]--; missing[c] == 0 {
				at, _ := slices.BinarySearchFunc(ready, c, better)
				ready = slices.Insert(ready, at, c)
			}
		}
	}
	return chosen
}

func merkleRoot(txs []*wire.MsgTx, witness bool) chainhash.Hash {
	us := make([]*btcutil.Tx, len(txs))
	for i, tx := range txs {
		us[i] = btcutil.NewTx(tx)
	}
	return blockchain.CalcMerkleRoot(us, witness)
}

// commitment returns BIP141's output script for a zero reserved value.
func commitment(txs []*wire.MsgTx) []byte {
	root := merkleRoot(txs, true)
	var pre [64]byte
	copy(pre[:], root[:])
	return append([]byte{txscript.OP_RETURN, 0x24, 0xaa, 0x21, 0xa9, 0xed}, chainhash.DoubleHashB(pre[:])...)
}
