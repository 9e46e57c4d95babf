package consensus

import (
	"bytes"
	"math"
	"slices"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/txscript/v2"
	"github.com/btcsuite/btcd/wire/v2"
)

const (
	witnessScale = 4 // BIP141: weight of a byte that is not witness

	// bip54TxBytes is the size that BIP54 forbids: two hashes, as an inner node
	// of the merkle tree has them.
	bip54TxBytes = 64

	minCoinbaseScript, maxCoinbaseScript = 2, 100
)

// witnessMagic starts the output script that commits to the witnesses (BIP141).
var witnessMagic = []byte{txscript.OP_RETURN, txscript.OP_DATA_36, 0xaa, 0x21, 0xa9, 0xed}

const witnessScriptBytes = 38 // at least; what follows has no meaning

// merkleRoot computes the root over leaves, which it overwrites. mutated says
// that some level holds two equal hashes side by side as a pair: duplicating the
// last transactions of a block with an odd number on some level leaves the root
// as it is (CVE-2012-2459), so such a body proves nothing about its header.
func merkleRoot(leaves []chainhash.Hash) (root chainhash.Hash, mutated bool) {
	if len(leaves) == 0 {
		return root, false
	}
	var pair [2 * chainhash.HashSize]byte
	for n := len(leaves); n > 1; n = (n + 1) / 2 {
		for i := 0; i < n; i += 2 {
			right := min(i+1, n-1)
			if right > i && leaves[i] == leaves[right] {
				mutated = true
			}
			copy(pair[:], leaves[i][:])
			copy(pair[chainhash.HashSize:], leaves[right][:])
			leaves[i/2] = chainhash.DoubleHashH(pair[:])
		}
	}
	return leaves[0], mutated
}

// MerkleRoot is the root that a header over txs carries.
func MerkleRoot(txs []*wire.MsgTx) chainhash.Hash {
	ids := make([]chainhash.Hash, len(txs))
	for i, tx := range txs {
		ids[i] = tx.TxHash()
	}
	root, _ := merkleRoot(ids)
	return root
}

// WitnessCommitment returns the output script with which the coinbase txs[0]
// commits to the witnesses of txs, given the nonce that will be its own witness.
// The coinbase's other content does not matter.
func WitnessCommitment(txs []*wire.MsgTx, nonce [32]byte) []byte {
	ids := make([]chainhash.Hash, len(txs))
	for i, tx := range txs {
		if i > 0 {
			ids[i] = tx.WitnessHash()
		}
	}
	root, _ := merkleRoot(ids)
	sum := chainhash.DoubleHashH(append(root[:], nonce[:]...))
	return append(slices.Clone(witnessMagic), sum[:]...)
}

// isWitnessCommitment says whether an output script has BIP141's form.
func isWitnessCommitment(script []byte) bool {
	return len(script) >= witnessScriptBytes && bytes.HasPrefix(script, witnessMagic)
}

// checkWitnessRoot checks the commitment of a block with witnesses. wtxids are
// those of all transactions; it overwrites them. A mismatch blames the sender:
// whoever passes a block on can change or strip the witnesses without touching
// the header.
func checkWitnessRoot(coinbase *wire.MsgTx, wtxids []chainhash.Hash) *RuleError {
	commitment := -1 // the last one counts
	for i, out := range coinbase.TxOut {
		if isWitnessCommitment(out.PkScript) {
			commitment = i
		}
	}
	if commitment < 0 {
		return badSender("unexpected-witness", "witness data but no commitment")
	}
	witness := coinbase.TxIn[0].Witness
	if len(witness) != 1 || len(witness[0]) != chainhash.HashSize {
		return badSender("bad-witness-nonce-size", "coinbase witness is not one item of 32 bytes")
	}
	wtxids[0] = chainhash.Hash{}
	// A body that passed the merkle root check has no duplicates, so mutation of
	// the witness tree needs no check of its own.
	root, _ := merkleRoot(wtxids)
	sum := chainhash.DoubleHashH(append(root[:], witness[0]...))
	want := coinbase.TxOut[commitment].PkScript[len(witnessMagic):witnessScriptBytes]
	if !bytes.Equal(sum[:], want) {
		return badSender("bad-witness-merkle-match", "computed %x, coinbase has %x", sum[:], want)
	}
	return nil
}

// CheckCommitments checks that the header commits to the body: merkle root,
// mutation (CVE-2012-2459) and, with segwitActive, the witness commitment;
// without it, that there is no witness. It is what must hold before a whole
// block is relayed, and cheap: hashes only. Every fault blames the sender alone.
func CheckCommitments(_ *Params, segwitActive bool, b *Block) error {
	if err := checkMerkleRoot(b); err != nil {
		return err
	}
	if err := checkWitnesses(segwitActive, b); err != nil {
		return err
	}
	return nil
}

func checkMerkleRoot(b *Block) *RuleError {
	ids := make([]chainhash.Hash, len(b.Txs))
	for i, tx := range b.Txs {
		ids[i] = *tx.Hash()
	}
	return checkRoot(&b.Header, ids)
}

// checkRoot overwrites ids.
func checkRoot(h *Header, ids []chainhash.Hash) *RuleError {
	root, mutated := merkleRoot(ids)
	if root != h.MerkleRoot {
		return badSender("bad-txnmrklroot", "computed %s, header has %s", root, h.MerkleRoot)
	}
	if mutated {
		return badSender("bad-txns-duplicate", "duplicate transactions leave the merkle root as it is")
	}
	return nil
}

func checkWitnesses(segwitActive bool, b *Block) *RuleError {
	coinbase := b.Txs[0].MsgTx()
	if !segwitActive || !commits(coinbase) {
		for i, tx := range b.Txs {
			if tx.HasWitness() {
				return badSender("unexpected-witness", "transaction %d has a witness that nothing commits to", i)
			}
		}
		return nil
	}
	ids := make([]chainhash.Hash, len(b.Txs))
	for i, tx := range b.Txs {
		ids[i] = *tx.WitnessHash()
	}
	return checkWitnessRoot(coinbase, ids)
}

// commits says whether a coinbase commits to the witnesses of its block.
func commits(coinbase *wire.MsgTx) bool {
	return slices.ContainsFunc(coinbase.TxOut, func(o *wire.TxOut) bool { return isWitnessCommitment(o.PkScript) })
}

// isCoinbase says whether tx has the form of a coinbase.
func isCoinbase(tx *wire.MsgTx) bool {
	return len(tx.TxIn) == 1 && isNull(&tx.TxIn[0].PreviousOutPoint)
}

func isNull(op *wire.OutPoint) bool {
	return op.Index == math.MaxUint32 && op.Hash == chainhash.Hash{}
}

// CheckTx checks what a transaction proves by itself: inputs and outputs there,
// size, value ranges, no duplicate inputs, the coinbase script's length.
func CheckTx(tx *wire.MsgTx) error {
	if err := checkTx(tx); err != nil {
		return err
	}
	return nil
}

func checkTx(tx *wire.MsgTx) *RuleError {
	if len(tx.TxIn) == 0 {
		return badBlock("bad-txns-vin-empty", "no inputs")
	}
	if len(tx.TxOut) == 0 {
		return badBlock("bad-txns-vout-empty", "no outputs")
	}
	if size := tx.SerializeSizeStripped(); size*witnessScale > maxBlockWeight {
		return badBlock("bad-txns-oversize", "%d bytes without witness, at most %d", size, maxBlockWeight/witnessScale)
	}
	var total int64
	for i, out := range tx.TxOut {
		if out.Value < 0 {
			return badBlock("bad-txns-vout-negative", "output %d: %d satoshi", i, out.Value)
		}
		if out.Value > maxMoney {
			return badBlock("bad-txns-vout-toolarge", "output %d: %d satoshi, at most %d", i, out.Value, int64(maxMoney))
		}
		// Cannot overflow: both are at most maxMoney.
		if total += out.Value; total > maxMoney {
			return badBlock("bad-txns-txouttotal-toolarge", "outputs up to %d sum to %d satoshi", i, total)
		}
	}
	if dup := duplicateInput(tx.TxIn); dup >= 0 {
		return badBlock("bad-txns-inputs-duplicate", "input %d spends %v again", dup, tx.TxIn[dup].PreviousOutPoint)
	}
	if isCoinbase(tx) {
		if n := len(tx.TxIn[0].SignatureScript); n < minCoinbaseScript || n > maxCoinbaseScript {
			return badBlock("bad-cb-length", "coinbase script of %d bytes, want %d to %d", n, minCoinbaseScript, maxCoinbaseScript)
		}
		return nil
	}
	for i, in := range tx.TxIn {
		if isNull(&in.PreviousOutPoint) {
			return badBlock("bad-txns-prevout-null", "input %d spends nothing", i)
		}
	}
	return nil
}

// duplicateInput returns the index of an input whose outpoint came before, or -1.
func duplicateInput(ins []*wire.TxIn) int {
	const few = 8 // comparing all pairs of so few is cheaper than a map
	if len(ins) <= few {
		for i := range ins {
			for j := range i {
				if ins[i].PreviousOutPoint == ins[j].PreviousOutPoint {
					return i
				}
			}
		}
		return -1
	}
	seen := make(map[wire.OutPoint]struct{}, len(ins))
	for i, in := range ins {
		if _, dup := seen[in.PreviousOutPoint]; dup {
			return i
		}
		seen[in.PreviousOutPoint] = struct{}{}
	}
	return -1
}

// CheckBlockContextFree checks what a body proves without its past: merkle root
// (a duplicate-mutated one blames the sender), coinbase, transaction sanity,
// base size, legacy sigops. It is the expensive half of a block that workers do.
// What it holds against the block itself depends on nothing but what the merkle
// root commits to.
func CheckBlockContextFree(p *Params, b *Block) error {
	if err := checkMerkleRoot(b); err != nil {
		return err
	}
	if b.StrippedSize*witnessScale > p.MaxBlockWeight {
		return badBlock("bad-blk-length", "%d bytes without witness, at most %d", b.StrippedSize, p.MaxBlockWeight/witnessScale)
	}
	if !isCoinbase(b.Txs[0].MsgTx()) {
		// Pairs of inner nodes of the merkle tree can be passed off as 64-byte
		// transactions under the same root; their header may be fine.
		for i, tx := range b.Txs {
			if tx.MsgTx().SerializeSizeStripped() == bip54TxBytes {
				return badSender("bad-cb-missing", "no coinbase, and transaction %d may be a pair of hashes", i)
			}
		}
		return badBlock("bad-cb-missing", "first transaction is no coinbase")
	}
	sigOps := 0
	for i, tx := range b.Txs {
		msg := tx.MsgTx()
		if i > 0 && isCoinbase(msg) {
			return badBlock("bad-cb-multiple", "transaction %d is a second coinbase", i)
		}
		if err := checkTx(msg); err != nil {
			err.Detail = "transaction " + tx.Hash().String() + ": " + err.Detail
			return err
		}
		sigOps += legacySigOps(msg)
		if sigOps*witnessScale > p.MaxBlockSigOpsCost {
			return badBlock("bad-blk-sigops", "more than %d legacy signature operations", p.MaxBlockSigOpsCost/witnessScale)
		}
	}
	return nil
}

// legacySigOps counts the signature operations in a transaction's own scripts.
func legacySigOps(tx *wire.MsgTx) int {
	n := 0
	for _, in := range tx.TxIn {
		n += txscript.GetSigOpCount(in.SignatureScript)
	}
	for _, out := range tx.TxOut {
		n += txscript.GetSigOpCount(out.PkScript)
	}
	return n
}

// CheckBlockContext checks the body given its past: coinbase height (BIP34),
// finality (BIP113), witness commitment once segwit is active and unexpected
// witness before, weight, BIP54. b has passed CheckBlockContextFree.
func CheckBlockContext(p *Params, past Past, b *Block) error {
	height, forks := past.Height()+1, p.Forks(past)
	cutoff := b.Header.Timestamp.Unix()
	if forks.CSV {
		cutoff = MedianTimePast(past)
	}
	for _, tx := range b.Txs {
		if !IsFinal(tx.MsgTx(), height, cutoff) {
			return badBlock("bad-txns-nonfinal", "transaction %s: lock time %d at height %d, time %d",
				tx.Hash(), tx.MsgTx().LockTime, height, cutoff)
		}
	}
	coinbase := b.Txs[0].MsgTx()
	if height >= p.BIP34Height {
		if want := HeightScript(height); !bytes.HasPrefix(coinbase.TxIn[0].SignatureScript, want) {
			return badBlock("bad-cb-height", "coinbase script of block %d does not start with %x", height, want)
		}
	}
	if err := checkWitnesses(forks.Segwit, b); err != nil {
		return err
	}
	if b.Weight > p.MaxBlockWeight {
		return badBlock("bad-blk-weight", "%d, at most %d", b.Weight, p.MaxBlockWeight)
	}
	if p.BIP54 {
		if err := checkBIP54Body(height, b); err != nil {
			return err
		}
	}
	return nil
}

// checkBIP54Body checks BIP54's rules on transactions that need no coins.
func checkBIP54Body(height int32, b *Block) *RuleError {
	coinbase := b.Txs[0].MsgTx()
	if coinbase.LockTime != uint32(height-1) {
		return badBlock("bad-cb-locktime", "coinbase lock time %d, want %d", coinbase.LockTime, height-1)
	}
	if coinbase.TxIn[0].Sequence == wire.MaxTxInSequenceNum {
		return badBlock("bad-cb-sequence", "coinbase sequence is final, which would disable its lock time")
	}
	for _, tx := range b.Txs {
		if err := checkBIP54TxSize(tx.MsgTx()); err != nil {
			return err
		}
	}
	return nil
}

// checkBIP54TxSize refuses the one size that a pair of hashes has.
func checkBIP54TxSize(tx *wire.MsgTx) *RuleError {
	if tx.SerializeSizeStripped() == bip54TxBytes {
		return badBlock("bad-txns-size", "transaction %s has 64 bytes without witness", tx.TxHash())
	}
	return nil
}

// IsFinal says whether tx may be in a block at height when the time that lock
// times are compared with (median time past under BIP113) is lockTime, Unix seconds.
func IsFinal(tx *wire.MsgTx, height int32, lockTime int64) bool {
	limit := lockTime
	if tx.LockTime < txscript.LockTimeThreshold {
		limit = int64(height)
	}
	if int64(tx.LockTime) < limit { // zero included
		return true
	}
	for _, in := range tx.TxIn {
		if in.Sequence != wire.MaxTxInSequenceNum {
			return false
		}
	}
	return true
}

// HeightScript is what a coinbase script at height must start with (BIP34).
func HeightScript(height int32) []byte {
	switch {
	case height == 0:
		return []byte{txscript.OP_0}
	case height > 0 && height <= 16:
		return []byte{byte(txscript.OP_1 - 1 + height)}
	}
	script := []byte{0}
	for h := height; h > 0; h >>= 8 {
		script = append(script, byte(h))
	}
	if script[len(script)-1]&0x80 != 0 { // the top bit is the sign
		script = append(script, 0)
	}
	script[0] = byte(len(script) - 1)
	return script
}

const medianTimeBlocks = 11

// MedianTimePast is the median of the last 11 block times up to past's end, in Unix seconds.
func MedianTimePast(past Past) int64 { return medianTimeAt(past, past.Height()) }

// medianTimeAt is the median time past of the ancestor at height.
func medianTimeAt(past Past, height int32) int64 {
	var times [medianTimeBlocks]int64
	n := 0
	for h := height; h >= 0 && n < medianTimeBlocks; h-- {
		// Insertion sort: block times mostly ascend, so going back in time each
		// belongs near the front.
		t := past.At(h).Time
		i := n
		for ; i > 0 && times[i-1] > t; i-- {
			times[i] = times[i-1]
		}
		times[i] = t
		n++
	}
	return times[n/2]
}
