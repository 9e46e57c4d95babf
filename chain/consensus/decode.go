package consensus

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"time"

	"github.com/btcsuite/btcd/btcutil/v2"
	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/wire/v2"
)

// Decoding happens in two passes over the bytes. The first (scanTx) allocates
// nothing: it checks every count and length against the bytes that remain and
// adds up what the second will need. The second (fillTx) carves everything out
// of slabs of exactly those sizes. Scripts and witnesses alias the input, which
// the result keeps: whoever keeps an output's script for long (the coins do)
// copies it, lest it keep a whole block in memory.

// What the decoder allocates is at most allocFactor times the input plus
// allocSlack. Only a block whose header provably commits to its body (merkle
// root and witness commitment) may cost more: a witness of empty items takes 24
// bytes of memory for one on the wire and is valid, so it cannot be refused, but
// whoever sends one has paid for the proof in its header.
const (
	allocFactor = 8
	allocSlack  = 64 << 10
)

// Upper bounds of what a decoded part takes in memory, in bytes, size classes
// and the temporary memory of hashing included.
const (
	costTx      = 384
	costIn      = 112
	costOut     = 48
	costWitItem = 24
)

// maxStripCopy is up to how many bytes without witness a transaction is copied to
// strip and hash it. Above, hashing it piece by piece is no slower.
const maxStripCopy = 4 << 10

// Smallest encodings, in bytes: counts are checked against them.
const (
	minTxBytes  = 51 // version, one input, no outputs, lock time
	minInBytes  = 41
	minOutBytes = 9
)

// txLayout is what scanTx learns of one transaction.
type txLayout struct {
	size         int // on the wire
	stripped     int // without marker, flag and witness
	ins, outs    int
	witItems     int
	hasWitness   bool
	witnessStart int // offset from the transaction's first byte; valid if hasWitness
}

// cost is an upper bound of what decoding and hashing it allocates.
func (l *txLayout) cost() int {
	n := costTx + l.ins*costIn + l.outs*costOut + l.witItems*costWitItem
	if l.hasWitness && l.stripped <= maxStripCopy {
		n += l.stripped + l.stripped/4 // btcutil strips into a copy to hash it
	}
	return n
}

// errShort is the fault of every read past the end.
func errShort(what string) *RuleError { return badSender("bad-encoding", "%s: unexpected end", what) }

// readCount reads a canonical variable-length integer at off and returns the
// offset after it.
func readCount(b []byte, off int, what string) (uint64, int, *RuleError) {
	if off >= len(b) {
		return 0, 0, errShort(what)
	}
	var v, least uint64
	switch d := b[off]; {
	case d < 0xfd:
		return uint64(d), off + 1, nil
	case d == 0xfd:
		if len(b)-off < 3 {
			return 0, 0, errShort(what)
		}
		v, least, off = uint64(binary.LittleEndian.Uint16(b[off+1:])), 0xfd, off+3
	case d == 0xfe:
		if len(b)-off < 5 {
			return 0, 0, errShort(what)
		}
		v, least, off = uint64(binary.LittleEndian.Uint32(b[off+1:])), 1<<16, off+5
	default:
		if len(b)-off < 9 {
			return 0, 0, errShort(what)
		}
		v, least, off = binary.LittleEndian.Uint64(b[off+1:]), 1<<32, off+9
	}
	if v < least {
		return 0, 0, badSender("bad-encoding", "%s: %d is not in its shortest form", what, v)
	}
	return v, off, nil
}

// skipBytes skips a length-prefixed string.
func skipBytes(b []byte, off int, what string) (n, next int, err *RuleError) {
	v, off, err := readCount(b, off, what)
	if err != nil {
		return 0, 0, err
	}
	if v > uint64(len(b)-off) {
		return 0, 0, errShort(what)
	}
	return int(v), off + int(v), nil
}

// scanTx checks the encoding of the transaction that starts at off and measures
// it. It accepts what Bitcoin Core's decoder accepts, except a transaction
// without inputs, which no rule allows.
func scanTx(b []byte, off int) (l txLayout, err *RuleError) {
	start := off
	off += 4
	if off > len(b) {
		return l, errShort("version")
	}
	n, off, err := readCount(b, off, "input count")
	if err != nil {
		return l, err
	}
	flagged := false
	if n == 0 { // the marker of BIP144
		if off >= len(b) {
			return l, errShort("flag")
		}
		if b[off] != 1 {
			return l, badSender("bad-txns-vin-empty", "no inputs, or unknown flag %d", b[off])
		}
		flagged = true
		if n, off, err = readCount(b, off+1, "input count"); err != nil {
			return l, err
		}
		if n == 0 {
			return l, badSender("bad-txns-vin-empty", "witness flag but no inputs")
		}
	}
	if n > uint64((len(b)-off)/minInBytes) {
		return l, badSender("bad-encoding", "%d inputs in %d bytes", n, len(b)-off)
	}
	l.ins = int(n)
	for range l.ins {
		if _, off, err = skipBytes(b, off+36, "input script"); err != nil {
			return l, err
		}
		if off += 4; off > len(b) {
			return l, errShort("sequence")
		}
	}
	if n, off, err = readCount(b, off, "output count"); err != nil {
		return l, err
	}
	if n > uint64((len(b)-off)/minOutBytes) {
		return l, badSender("bad-encoding", "%d outputs in %d bytes", n, len(b)-off)
	}
	l.outs = int(n)
	for range l.outs {
		if _, off, err = skipBytes(b, off+8, "output script"); err != nil {
			return l, err
		}
	}
	bodyEnd := off
	if flagged {
		l.witnessStart = off - start
		for range l.ins {
			if n, off, err = readCount(b, off, "witness count"); err != nil {
				return l, err
			}
			if n > uint64(len(b)-off) {
				return l, badSender("bad-encoding", "%d witness items in %d bytes", n, len(b)-off)
			}
			l.witItems += int(n)
			for range n {
				if _, off, err = skipBytes(b, off, "witness item"); err != nil {
					return l, err
				}
			}
		}
		if l.witItems == 0 {
			return l, badSender("bad-encoding", "witness flag but no witness")
		}
		l.hasWitness = true
	}
	if off += 4; off > len(b) {
		return l, errShort("lock time")
	}
	l.size = off - start
	l.stripped = bodyEnd - start + 4
	if flagged {
		l.stripped -= 2
	}
	return l, nil
}

// slabs are the memory that fillTx carves transactions out of.
type slabs struct {
	ins     []wire.TxIn
	inPtrs  []*wire.TxIn
	outs    []wire.TxOut
	outPtrs []*wire.TxOut
	items   [][]byte
}

func newSlabs(ins, outs, items int) *slabs {
	s := &slabs{
		ins: make([]wire.TxIn, ins), inPtrs: make([]*wire.TxIn, ins),
		outs: make([]wire.TxOut, outs), outPtrs: make([]*wire.TxOut, outs),
	}
	if items > 0 {
		s.items = make([][]byte, items)
	}
	return s
}

// mustCount reads a count that scanTx has checked.
func mustCount(b []byte, off int) (n, next int) {
	switch d := b[off]; {
	case d < 0xfd:
		return int(d), off + 1
	case d == 0xfd:
		return int(binary.LittleEndian.Uint16(b[off+1:])), off + 3
	default: // lengths fit the input, so never the 9-byte form of more than 4 GiB
		return int(binary.LittleEndian.Uint32(b[off+1:])), off + 5
	}
}

// fillTx decodes the transaction at off, which scanTx has accepted with layout l.
func fillTx(tx *wire.MsgTx, b []byte, off int, l *txLayout, s *slabs) {
	end := off + l.size
	tx.Version = int32(binary.LittleEndian.Uint32(b[off:]))
	tx.LockTime = binary.LittleEndian.Uint32(b[end-4:])
	off += 4
	if l.hasWitness {
		off += 2
	}
	_, off = mustCount(b, off)
	ins := s.ins[:l.ins]
	tx.TxIn, s.ins, s.inPtrs = s.inPtrs[:l.ins:l.ins], s.ins[l.ins:], s.inPtrs[l.ins:]
	var n int
	for i := range ins {
		in := &ins[i]
		tx.TxIn[i] = in
		copy(in.PreviousOutPoint.Hash[:], b[off:])
		in.PreviousOutPoint.Index = binary.LittleEndian.Uint32(b[off+32:])
		n, off = mustCount(b, off+36)
		in.SignatureScript = b[off : off+n : off+n]
		off += n
		in.Sequence = binary.LittleEndian.Uint32(b[off:])
		off += 4
	}
	_, off = mustCount(b, off)
	outs := s.outs[:l.outs]
	tx.TxOut, s.outs, s.outPtrs = s.outPtrs[:l.outs:l.outs], s.outs[l.outs:], s.outPtrs[l.outs:]
	for i := range outs {
		out := &outs[i]
		tx.TxOut[i] = out
		out.Value = int64(binary.LittleEndian.Uint64(b[off:]))
		n, off = mustCount(b, off+8)
		out.PkScript = b[off : off+n : off+n]
		off += n
	}
	if !l.hasWitness {
		return
	}
	for i := range ins {
		n, off = mustCount(b, off)
		items := s.items[:n:n]
		s.items = s.items[n:]
		for j := range items {
			n, off = mustCount(b, off)
			items[j] = b[off : off+n : off+n]
			off += n
		}
		ins[i].Witness = items
	}
}

// A blockLayout is what scanBlock measures.
type blockLayout struct {
	first            int // offset of the first transaction
	txs              int
	ins, outs, items int // of all transactions; items of their witnesses
	stripped         int // bytes without witnesses and seal
	cost             int // upper bound of what decoding the transactions allocates
}

// scanBlock checks the encoding of a block and measures it. It allocates nothing.
func scanBlock(p *Params, raw []byte) (l blockLayout, err *RuleError) {
	if len(raw) > p.MaxBlockBytes() {
		return l, badSender("bad-blk-length", "%d bytes, at most %d", len(raw), p.MaxBlockBytes())
	}
	head := HeaderBytes + p.SealBytes
	if len(raw) < head {
		return l, errShort("header")
	}
	n, first, err := readCount(raw, head, "transaction count")
	if err != nil {
		return l, err
	}
	if n == 0 || n > uint64((len(raw)-first)/minTxBytes) {
		return l, badSender("bad-blk-length", "%d transactions in %d bytes", n, len(raw)-first)
	}
	l.first, l.txs, l.stripped = first, int(n), first-p.SealBytes
	off := first
	for i := range l.txs {
		tx, err := scanTx(raw, off)
		if err != nil {
			err.Detail = fmt.Sprintf("transaction %d: %s", i, err.Detail)
			return l, err
		}
		off += tx.size
		l.stripped += tx.stripped
		l.ins, l.outs, l.items = l.ins+tx.ins, l.outs+tx.outs, l.items+tx.witItems
		l.cost += tx.cost()
	}
	if off != len(raw) {
		return l, badSender("bad-encoding", "%d trailing bytes", len(raw)-off)
	}
	return l, nil
}

// CheckEncoding says whether raw is an encoding of a block, whatever is in it. It
// allocates nothing but its error, which is as DecodeBlock's.
func CheckEncoding(p *Params, raw []byte) error {
	if _, err := scanBlock(p, raw); err != nil {
		return err
	}
	return nil
}

// TxOffsets returns where the transactions of a block begin in raw, and one more:
// where the last one ends. It checks the encoding as CheckEncoding does.
func TxOffsets(p *Params, raw []byte) ([]uint32, error) {
	l, rerr := scanBlock(p, raw)
	if rerr != nil {
		return nil, rerr
	}
	offsets := make([]uint32, 0, l.txs+1)
	off := l.first
	for range l.txs {
		offsets = append(offsets, uint32(off))
		l, _ := scanTx(raw, off)
		off += l.size
	}
	return append(offsets, uint32(off)), nil
}

// CheckTxEncoding says whether raw is an encoding of one transaction, whatever is
// in it, and nothing more. It allocates nothing but its error, a *RuleError with
// BlameSender.
func CheckTxEncoding(raw []byte) error {
	l, err := scanTx(raw, 0)
	switch {
	case err != nil:
		return err
	case l.size != len(raw):
		return badSender("bad-encoding", "%d trailing bytes", len(raw)-l.size)
	}
	return nil
}

// DecodeBlock decodes raw (header ‖ seal ‖ transactions), which it keeps. It
// scans counts against the bytes that remain before anything is allocated; what
// it allocates is at most 8 times the input plus 64 KiB unless the header commits
// to the body. The transactions' ids are computed and cached, so that they may
// be asked for concurrently. Faults are *RuleError with BlameSender; trailing
// bytes are a fault, and so are more than [Params.MaxBlockBytes].
func DecodeBlock(p *Params, raw []byte) (*Block, error) {
	l, rerr := scanBlock(p, raw)
	if rerr != nil {
		return nil, rerr
	}
	head, first, n := HeaderBytes+p.SealBytes, l.first, l.txs
	if l.cost > allocFactor*len(raw)+allocSlack {
		if err := proveBody(p, raw, first, n); err != nil {
			return nil, err
		}
	}

	b := &Block{
		Raw:          raw,
		Hash:         chainhash.DoubleHashH(raw[:HeaderBytes]),
		StrippedSize: l.stripped,
		Weight:       3*l.stripped + len(raw) - p.SealBytes,
	}
	readHeader(&b.Header.BlockHeader, raw)
	if p.SealBytes > 0 {
		b.Header.Seal = raw[HeaderBytes:head:head]
	}
	s := newSlabs(l.ins, l.outs, l.items)
	txs := make([]wire.MsgTx, n)
	msg := wire.MsgBlock{Header: b.Header.BlockHeader, Transactions: make([]*wire.MsgTx, n)}
	off := first
	var large []int // with a witness
	for i := range txs {
		l, _ := scanTx(raw, off)
		fillTx(&txs[i], raw, off, &l, s)
		msg.Transactions[i] = &txs[i]
		off += l.size
		if l.hasWitness && l.stripped > maxStripCopy {
			large = append(large, i)
		}
	}
	// btcutil finds each transaction's bytes 80 bytes and a count into what it is
	// given, so the slice starts as far before the count as the seal is long.
	b.Txs = btcutil.NewBlockFromBlockAndBytes(&msg, raw[p.SealBytes:]).Transactions()
	for _, i := range large {
		b.Txs[i] = btcutil.NewTx(&txs[i]) // without its bytes it hashes piece by piece
		b.Txs[i].SetIndex(i)
	}
	for _, tx := range b.Txs {
		tx.HasWitness()
		tx.Hash()
		tx.WitnessHash()
	}
	return b, nil
}

// proveBody checks that the header commits to the body without decoding it.
func proveBody(p *Params, raw []byte, first, n int) *RuleError {
	var h wire.BlockHeader
	readHeader(&h, raw)
	ids := make([]chainhash.Hash, n)
	anyWitness := false
	off := first
	for i := range n {
		l, _ := scanTx(raw, off)
		ids[i] = rawTxID(raw[off:off+l.size], &l)
		anyWitness = anyWitness || l.hasWitness
		off += l.size
	}
	if root, mutated := merkleRoot(ids); mutated {
		return badSender("bad-txns-duplicate", "duplicate transactions leave the merkle root as it is")
	} else if root != h.MerkleRoot {
		return badSender("bad-txnmrklroot", "computed %s, header has %s", root, h.MerkleRoot)
	}
	if !anyWitness {
		return nil
	}
	l, _ := scanTx(raw, first)
	if l.witItems > 1 {
		return badSender("bad-witness-nonce-size", "coinbase witness of %d items", l.witItems)
	}
	var coinbase wire.MsgTx
	fillTx(&coinbase, raw, first, &l, newSlabs(l.ins, l.outs, l.witItems))
	off = first
	for i := range n {
		l, _ := scanTx(raw, off)
		ids[i] = chainhash.DoubleHashH(raw[off : off+l.size])
		off += l.size
	}
	return checkWitnessRoot(&coinbase, ids)
}

// rawTxID is the id of an encoded transaction.
func rawTxID(b []byte, l *txLayout) chainhash.Hash {
	if !l.hasWitness {
		return chainhash.DoubleHashH(b)
	}
	h := sha256.New()
	h.Write(b[:4])
	h.Write(b[6:l.witnessStart])
	h.Write(b[len(b)-4:])
	var sum [sha256.Size]byte
	return sha256.Sum256(h.Sum(sum[:0]))
}

// NewBlock encodes a block made here. The result shares nothing with h and txs.
func NewBlock(p *Params, h Header, txs []*wire.MsgTx) (*Block, error) {
	if len(h.Seal) != p.SealBytes {
		return nil, fmt.Errorf("new block: seal of %d bytes, want %d", len(h.Seal), p.SealBytes)
	}
	size := HeaderBytes + p.SealBytes + wire.VarIntSerializeSize(uint64(len(txs)))
	for _, tx := range txs {
		size += tx.SerializeSize()
	}
	w := appender(AppendHeader(make([]byte, 0, size), &h))
	if err := wire.WriteVarInt(&w, 0, uint64(len(txs))); err != nil {
		return nil, fmt.Errorf("new block: %w", err)
	}
	for i, tx := range txs {
		if err := tx.Serialize(&w); err != nil {
			return nil, fmt.Errorf("new block: transaction %d: %w", i, err)
		}
	}
	b, err := DecodeBlock(p, w)
	if err != nil {
		return nil, fmt.Errorf("new block: %w", err)
	}
	return b, nil
}

// appender is an io.Writer that grows a slice.
type appender []byte

func (a *appender) Write(p []byte) (int, error) {
	*a = append(*a, p...)
	return len(p), nil
}

// DecodeHeader decodes header ‖ seal from exactly HeaderBytes+SealBytes bytes.
// It does not keep raw. Faults are *RuleError with BlameSender.
func DecodeHeader(p *Params, raw []byte) (Header, error) {
	if len(raw) != HeaderBytes+p.SealBytes {
		return Header{}, badSender("bad-encoding", "header of %d bytes, want %d", len(raw), HeaderBytes+p.SealBytes)
	}
	var h Header
	readHeader(&h.BlockHeader, raw)
	if p.SealBytes > 0 {
		h.Seal = append([]byte(nil), raw[HeaderBytes:]...)
	}
	return h, nil
}

// readHeader decodes the 80 bytes that every header starts with.
func readHeader(h *wire.BlockHeader, b []byte) {
	_ = b[HeaderBytes-1]
	h.Version = int32(binary.LittleEndian.Uint32(b))
	copy(h.PrevBlock[:], b[4:])
	copy(h.MerkleRoot[:], b[36:])
	h.Timestamp = time.Unix(int64(binary.LittleEndian.Uint32(b[68:])), 0)
	h.Bits = binary.LittleEndian.Uint32(b[72:])
	h.Nonce = binary.LittleEndian.Uint32(b[76:])
}

// AppendHeader appends header ‖ seal to dst.
func AppendHeader(dst []byte, h *Header) []byte {
	dst = binary.LittleEndian.AppendUint32(dst, uint32(h.Version))
	dst = append(dst, h.PrevBlock[:]...)
	dst = append(dst, h.MerkleRoot[:]...)
	dst = binary.LittleEndian.AppendUint32(dst, uint32(h.Timestamp.Unix()))
	dst = binary.LittleEndian.AppendUint32(dst, h.Bits)
	dst = binary.LittleEndian.AppendUint32(dst, h.Nonce)
	return append(dst, h.Seal...)
}

// HeaderHash is the double SHA-256 of the 80 header bytes: the block's id. It
// allocates nothing.
func HeaderHash(h *Header) chainhash.Hash {
	var buf [HeaderBytes]byte
	bare := Header{BlockHeader: h.BlockHeader}
	AppendHeader(buf[:0], &bare)
	return chainhash.DoubleHashH(buf[:])
}

// DecodeTx decodes one transaction, guarded as DecodeBlock, no trailing bytes.
// It keeps raw. A transaction that would take more than 8 times its size plus 64
// KiB in memory (a witness of very many tiny items) is refused: alone, nothing
// shows that anybody paid for it. Faults are *RuleError with BlameSender.
func DecodeTx(raw []byte) (*wire.MsgTx, error) {
	if len(raw) > maxBlockWeight {
		return nil, badSender("bad-txns-oversize", "%d bytes, at most %d", len(raw), maxBlockWeight)
	}
	l, err := scanTx(raw, 0)
	if err != nil {
		return nil, err
	}
	if l.size != len(raw) {
		return nil, badSender("bad-encoding", "%d trailing bytes", len(raw)-l.size)
	}
	if cost := l.cost(); cost > allocFactor*len(raw)+allocSlack {
		return nil, badSender("bad-encoding", "%d witness items in %d bytes", l.witItems, len(raw))
	}
	tx := new(wire.MsgTx)
	fillTx(tx, raw, 0, &l, newSlabs(l.ins, l.outs, l.witItems))
	return tx, nil
}
