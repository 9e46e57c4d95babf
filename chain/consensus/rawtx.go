package consensus

import (
	"encoding/binary"
	"slices"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/wire/v2"
)

// TxSize returns how many bytes the transaction has that raw begins with; others
// may follow it. It checks the encoding as [DecodeBlock] does and allocates
// nothing but its error, a *RuleError with BlameSender.
func TxSize(raw []byte) (int, error) {
	l, err := scanTx(raw, 0)
	if err != nil {
		return 0, err
	}
	return l.size, nil
}

// TxIDs returns the id and the witness id of an encoded transaction, which raw
// is exactly. It decodes nothing. Faults are *RuleError with BlameSender.
func TxIDs(raw []byte) (txid, wtxid chainhash.Hash, err error) {
	l, rerr := scanTx(raw, 0)
	if rerr != nil {
		return txid, wtxid, rerr
	}
	if l.size != len(raw) {
		return txid, wtxid, badSender("bad-encoding", "%d trailing bytes", len(raw)-l.size)
	}
	wtxid = chainhash.DoubleHashH(raw)
	if !l.hasWitness {
		return wtxid, wtxid, nil
	}
	return rawTxID(raw, &l), wtxid, nil
}

// AppendTx appends the encoding of a transaction, with its witness, to dst: what
// tx.Serialize writes, several times as fast.
func AppendTx(dst []byte, tx *wire.MsgTx) []byte {
	witness := tx.HasWitness()
	dst = binary.LittleEndian.AppendUint32(dst, uint32(tx.Version))
	if witness {
		dst = append(dst, 0, 1) // BIP144
	}
	dst = AppendCount(dst, len(tx.TxIn))
	for _, in := range tx.TxIn {
		dst = append(dst, in.PreviousOutPoint.Hash[:]...)
		dst = binary.LittleEndian.AppendUint32(dst, in.PreviousOutPoint.Index)
		dst = AppendCount(dst, len(in.SignatureScript))
		dst = append(dst, in.SignatureScript...)
		dst = binary.LittleEndian.AppendUint32(dst, in.Sequence)
	}
	dst = AppendCount(dst, len(tx.TxOut))
	for _, out := range tx.TxOut {
		dst = binary.LittleEndian.AppendUint64(dst, uint64(out.Value))
		dst = AppendCount(dst, len(out.PkScript))
		dst = append(dst, out.PkScript...)
	}
	if witness {
		for _, in := range tx.TxIn {
			dst = AppendCount(dst, len(in.Witness))
			for _, item := range in.Witness {
				dst = AppendCount(dst, len(item))
				dst = append(dst, item...)
			}
		}
	}
	return binary.LittleEndian.AppendUint32(dst, tx.LockTime)
}

// AppendCount appends n, which is not negative, as Bitcoin's variable-length
// integer.
func AppendCount(dst []byte, n int) []byte {
	switch {
	case n < 0xfd:
		return append(dst, byte(n))
	case n < 1<<16:
		return binary.LittleEndian.AppendUint16(append(dst, 0xfd), uint16(n))
	case n < 1<<32:
		return binary.LittleEndian.AppendUint32(append(dst, 0xfe), uint32(n))
	default:
		return binary.LittleEndian.AppendUint64(append(dst, 0xff), uint64(n))
	}
}

// ReadCount reads a variable-length integer in its shortest form from the start
// of raw and returns how many bytes it has. Faults are *RuleError with
// BlameSender; what names the number in them.
func ReadCount(raw []byte, what string) (n uint64, size int, err error) {
	n, size, rerr := readCount(raw, 0, what)
	if rerr != nil {
		return 0, 0, rerr
	}
	return n, size, nil
}

// CheckRoots is [CheckCommitments] for a body of which only the ids are known,
// in the order of the block, and the coinbase: it hashes no transaction. Every
// fault blames the sender alone.
func CheckRoots(h *Header, segwitActive bool, coinbase *wire.MsgTx, txids, wtxids []chainhash.Hash) error {
	if len(txids) == 0 || len(txids) != len(wtxids) {
		return badSender("bad-blk-length", "%d ids, %d witness ids", len(txids), len(wtxids))
	}
	if err := checkRoot(h, slices.Clone(txids)); err != nil {
		return err
	}
	if !segwitActive || !commits(coinbase) {
		for i := range txids {
			if txids[i] != wtxids[i] {
				return badSender("unexpected-witness", "transaction %d has a witness that nothing commits to", i)
			}
		}
		return nil
	}
	if err := checkWitnessRoot(coinbase, slices.Clone(wtxids)); err != nil {
		return err
	}
	return nil
}
