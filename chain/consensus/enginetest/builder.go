package enginetest

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/btcsuite/btcd/address/v2"
	"github.com/btcsuite/btcd/blockchain"
	"github.com/btcsuite/btcd/btcec/v2"
	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/txscript/v2"
	"github.com/btcsuite/btcd/wire/v2"

	"dunlin/chain/consensus"
)

// A Builder makes valid blocks on any block it has made or was given. Blocks are the same for
// the same calls in the same order. It is safe for concurrent use.
type Builder struct {
	Params *consensus.Params
	// Engine says the bits of a block; nil means the network's limit, which is
	// right on regtest.
	Engine consensus.Engine
	// Seal proves h, a child of past; nil grinds nonces on the calling goroutine.
	Seal func(past consensus.Past, coins consensus.Coins, h *consensus.Header) error
	// Prepare, unless nil, comes before Template.Change and the merkle root: what the
	// proof wants of the block. It may change the header's time and add to the coinbase.
	Prepare func(past consensus.Past, coins consensus.Coins, u *Unsealed) error

	mu    sync.Mutex // guards all below; never held while sealing
	nodes map[chainhash.Hash]*node
	made  uint64
	// coins are those after the block coinsOf, so that one built on it need not replay
	// the branch; nil while a block is made with them.
	coinsOf chainhash.Hash
	coins   CoinSet
}

// node is a block with its branch.
type node struct {
	block *consensus.Block
	chain *Chain // ends in block
	prev  *node
	// extended says that a child's chain uses the memory behind this one's.
	extended bool
}

// NewBuilder returns a builder that knows the network's genesis.
func NewBuilder(p *consensus.Params) *Builder {
	b := &Builder{Params: p, nodes: make(map[chainhash.Hash]*node)}
	g := p.GenesisBlock()
	b.nodes[g.Hash] = &node{block: g, chain: NewChain(p)}
	return b
}

// A Template says what a block differs in from an empty one. Zero means the default.
type Template struct {
	Txs     []*wire.MsgTx   // after the coinbase
	Fees    int64           // of Txs, claimed by the coinbase
	Script  []byte          // that the coinbase pays; default OP_TRUE
	Value   *int64          // that the coinbase claims; default subsidy and fees
	Time    time.Time       // default: the parent's and the network's spacing
	Version int32           // default: the network's
	Data    string          // in an OP_RETURN output of the coinbase
	Change  func(*Unsealed) // last change before the merkle root; breaks whatever it likes
}

// Unsealed is a block about to be sealed.
type Unsealed struct {
	Header *consensus.Header
	Txs    []*wire.MsgTx // coinbase first, witness commitment not yet in it
	// KeepRoot leaves the merkle root to Change; NoCommitment leaves the witness
	// commitment out.
	KeepRoot, NoCommitment bool
}

// OpTrue is a script that anyone can spend with an empty input script.
func OpTrue() []byte { return []byte{txscript.OP_TRUE} }

// Genesis returns the network's first block.
func (b *Builder) Genesis() *consensus.Block { return b.find(b.Params.GenesisHash).block }

// Past returns the branch that ends in a block made here.
func (b *Builder) Past(hash chainhash.Hash) consensus.Past { return b.find(hash).chain }

// Height returns the height of a block made here.
func (b *Builder) Height(hash chainhash.Hash) int32 { return b.find(hash).chain.Height() }

func (b *Builder) find(hash chainhash.Hash) *node {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := b.nodes[hash]
	if n == nil {
		panic(fmt.Sprintf("enginetest: block %s was not made by this builder", hash))
	}
	return n
}

// Add takes in a block that somebody else made on a block that is known here, so
// that blocks can be made on it. It checks nothing.
func (b *Builder) Add(block *consensus.Block) {
	b.add(b.find(block.Header.PrevBlock), block)
}

// add puts a block on top of the one at.
func (b *Builder) add(at *node, block *consensus.Block) {
	past := at.chain
	n := &node{block: block, prev: at}
	b.mu.Lock()
	defer b.mu.Unlock()
	n.chain = past.UpTo(past.Height()) // its capacity ends there, so appending copies
	if !at.extended {
		// The first child may write behind its parent's end: nobody reads there.
		*n.chain, at.extended = *past, true
	}
	n.chain.Append(&block.Header)
	b.nodes[block.Hash] = n
}

// Mine makes a block on parent with txs after a coinbase that pays OP_TRUE and
// claims no fees.
func (b *Builder) Mine(parent *consensus.Block, txs ...*wire.MsgTx) *consensus.Block {
	return b.MineTemplate(parent, Template{Txs: txs})
}

// MineN makes n empty blocks on parent, one on the other.
func (b *Builder) MineN(parent *consensus.Block, n int) []*consensus.Block {
	blocks := make([]*consensus.Block, n)
	for i := range blocks {
		parent = b.Mine(parent)
		blocks[i] = parent
	}
	return blocks
}

// MineTemplate makes a block on parent.
func (b *Builder) MineTemplate(parent *consensus.Block, t Template) *consensus.Block {
	p := b.Params
	at := b.find(parent.Hash)
	past := at.chain
	height := past.Height() + 1
	b.mu.Lock()
	b.made++
	made := b.made
	b.mu.Unlock()

	u := &Unsealed{Txs: append([]*wire.MsgTx{b.coinbase(height, made, &t)}, t.Txs...)}
	h := consensus.Header{}
	h.Version = p.BlockVersion(past)
	if t.Version != 0 {
		h.Version = t.Version
	}
	h.PrevBlock = parent.Hash
	h.Timestamp = t.Time
	if t.Time.IsZero() {
		h.Timestamp = parent.Header.Timestamp.Add(p.TargetSpacing)
	}
	h.Bits = p.PowLimitBits
	if b.Engine != nil {
		h.Bits = b.Engine.NextBits(past, h.Timestamp)
	}
	if p.SealBytes > 0 {
		h.Seal = make([]byte, p.SealBytes)
	}
	u.Header = &h
	var coins CoinSet
	if b.Seal != nil || b.Prepare != nil {
		coins = b.takeCoins(parent.Hash)
	}
	if b.Prepare != nil {
		if err := b.Prepare(past, coins, u); err != nil {
			panic(fmt.Sprintf("enginetest: prepare block %d: %v", height, err))
		}
	}
	if t.Change != nil {
		t.Change(u)
	}
	if !u.NoCommitment && p.Forks(past).Segwit && slices.ContainsFunc(u.Txs, (*wire.MsgTx).HasWitness) {
		var nonce [32]byte
		u.Txs[0].TxIn[0].Witness = wire.TxWitness{nonce[:]}
		u.Txs[0].AddTxOut(&wire.TxOut{PkScript: consensus.WitnessCommitment(u.Txs, nonce)})
	}
	if !u.KeepRoot {
		h.MerkleRoot = consensus.MerkleRoot(u.Txs)
	}
	if err := b.seal(past, coins, &h); err != nil {
		panic(fmt.Sprintf("enginetest: seal block %d: %v", height, err))
	}
	block, err := consensus.NewBlock(p, h, u.Txs)
	if err != nil {
		panic(fmt.Sprintf("enginetest: block %d: %v", height, err))
	}
	b.add(at, block)
	if coins != nil {
		coins.Connect(height, block)
		b.mu.Lock()
		b.coinsOf, b.coins = block.Hash, coins
		b.mu.Unlock()
	}
	return block
}

// takeCoins is Coins, without replaying where a block was just made there.
func (b *Builder) takeCoins(hash chainhash.Hash) CoinSet {
	b.mu.Lock()
	coins := b.coins
	fits := coins != nil && b.coinsOf == hash
	if fits {
		b.coins = nil
	}
	b.mu.Unlock()
	if fits {
		return coins
	}
	return b.Coins(hash)
}

func (b *Builder) coinbase(height int32, made uint64, t *Template) *wire.MsgTx {
	tx := wire.NewMsgTx(2)
	in := &wire.TxIn{
		PreviousOutPoint: wire.OutPoint{Index: math.MaxUint32},
		// The counter tells blocks of the same height and time apart.
		SignatureScript: binary.LittleEndian.AppendUint64(append(consensus.HeightScript(height), 8), made),
		Sequence:        math.MaxUint32,
	}
	tx.AddTxIn(in)
	if b.Params.BIP54 {
		in.Sequence--
		tx.LockTime = uint32(height - 1)
	}
	value := b.Params.Subsidy(height) + t.Fees
	if t.Value != nil {
		value = *t.Value
	}
	script := t.Script
	if script == nil {
		script = OpTrue()
	}
	tx.AddTxOut(&wire.TxOut{Value: value, PkScript: script})
	if t.Data != "" {
		data, err := txscript.NullDataScript([]byte(t.Data))
		if err != nil {
			panic(fmt.Sprintf("enginetest: data of %d bytes: %v", len(t.Data), err))
		}
		tx.AddTxOut(&wire.TxOut{PkScript: data})
	}
	return tx
}

// seal proves a header.
func (b *Builder) seal(past consensus.Past, coins consensus.Coins, h *consensus.Header) error {
	if b.Seal != nil {
		return b.Seal(past, coins, h)
	}
	target := blockchain.CompactToBig(h.Bits)
	for h.Nonce = 0; ; h.Nonce++ {
		hash := consensus.HeaderHash(h)
		if blockchain.HashToBig(&hash).Cmp(target) <= 0 {
			return nil
		}
		if h.Nonce == math.MaxUint32 {
			return fmt.Errorf("no nonce meets bits %08x", h.Bits)
		}
	}
}

// Spend returns a transaction that spends the first output of b's coinbase (of
// its transaction with index tx) to scripts in equal parts, less fee; without
// scripts to OP_TRUE. The input script is empty, which is all that OP_TRUE needs.
// Beware of BIP54 and scripts of 4 bytes: one of them makes 64 bytes of it.
func Spend(b *consensus.Block, tx int, fee int64, scripts ...[]byte) *wire.MsgTx {
	from := b.Txs[tx]
	msg := wire.NewMsgTx(2)
	msg.AddTxIn(&wire.TxIn{PreviousOutPoint: wire.OutPoint{Hash: *from.Hash()}, Sequence: math.MaxUint32})
	if len(scripts) == 0 {
		scripts = [][]byte{OpTrue()}
	}
	part := (from.MsgTx().TxOut[0].Value - fee) / int64(len(scripts))
	for _, s := range scripts {
		msg.AddTxOut(&wire.TxOut{Value: part, PkScript: s})
	}
	return msg
}

// CoinSet is a consensus.Coins in memory.
type CoinSet map[wire.OutPoint]consensus.Coin

// Coin looks up op; it never fails.
func (s CoinSet) Coin(op wire.OutPoint) (consensus.Coin, bool, error) {
	c, ok := s[op]
	return c, ok, nil
}

// Spent returns the coins that tx spends, which must all be there.
func (s CoinSet) Spent(tx *wire.MsgTx) []consensus.Coin {
	coins := make([]consensus.Coin, len(tx.TxIn))
	for i, in := range tx.TxIn {
		c, ok := s[in.PreviousOutPoint]
		if !ok {
			panic(fmt.Sprintf("enginetest: no coin %v", in.PreviousOutPoint))
		}
		coins[i] = c
	}
	return coins
}

// Connect spends and creates what a block at height does. Genesis creates nothing
// where work makes the blocks.
func (s CoinSet) Connect(height int32, b *consensus.Block) {
	if height == 0 && len(b.Header.Seal) == 0 {
		return
	}
	for i, tx := range b.Txs {
		msg := tx.MsgTx()
		if i > 0 {
			for _, in := range msg.TxIn {
				delete(s, in.PreviousOutPoint)
			}
		}
		for j, out := range msg.TxOut {
			s[wire.OutPoint{Hash: *tx.Hash(), Index: uint32(j)}] = consensus.Coin{
				Value: out.Value, Script: out.PkScript, Height: height, Coinbase: i == 0 && height > 0,
			}
		}
	}
}

// Coins returns the unspent outputs after the block with this hash, by replaying
// its branch. The caller owns the result.
func (b *Builder) Coins(hash chainhash.Hash) CoinSet {
	var branch []*node
	for n := b.find(hash); n != nil; n = n.prev {
		branch = append(branch, n)
	}
	s := make(CoinSet)
	for _, n := range slices.Backward(branch) {
		s.Connect(n.chain.Height(), n.block)
	}
	return s
}

// A Key pays and signs, by pay-to-witness-public-key-hash.
type Key struct{ priv *btcec.PrivateKey }

// NewKey derives a key from a seed, for tests only.
func NewKey(seed uint64) *Key {
	sum := chainhash.HashB(binary.LittleEndian.AppendUint64([]byte("enginetest key "), seed))
	priv, _ := btcec.PrivKeyFromBytes(sum)
	return &Key{priv: priv}
}

// Script is the output script that pays the key.
func (k *Key) Script() []byte {
	return append([]byte{txscript.OP_0, txscript.OP_DATA_20}, address.Hash160(k.priv.PubKey().SerializeCompressed())...)
}

// Sign signs every input of tx; coins are what they spend, all paid to the key.
func (k *Key) Sign(tx *wire.MsgTx, coins []consensus.Coin) {
	outs := make(map[wire.OutPoint]*wire.TxOut, len(coins))
	for i, in := range tx.TxIn {
		outs[in.PreviousOutPoint] = &wire.TxOut{Value: coins[i].Value, PkScript: coins[i].Script}
	}
	hashes := txscript.NewTxSigHashes(tx, txscript.NewMultiPrevOutFetcher(outs))
	for i, in := range tx.TxIn {
		witness, err := txscript.WitnessSignature(tx, hashes, i, coins[i].Value, coins[i].Script, txscript.SigHashAll, k.priv, true)
		if err != nil {
			panic(fmt.Sprintf("enginetest: sign input %d: %v", i, err))
		}
		in.Witness = witness
	}
}
