package index

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/btcsuite/btcd/chainhash/v2"

	"dunlin/chain"
	"dunlin/chain/consensus"
	"dunlin/chain/store"
)

// Prefixes of keys.
const (
	prefixBlock  = 'b' // number → hash, height
	prefixHash   = 'h' // hash → number
	prefixTx     = 't' // part of an id, number, place → offset, size
	prefixScript = 's' // part of a script's hash, number, place → what was paid and spent
)

const (
	// txPart bytes of an id are kept: more than one transaction in a chain of billions
	// seldom has the same, and each that is found is read and compared.
	txPart = 8
	// maxSame bounds how many are read that only begin alike; somebody could make such.
	maxSame = 64
)

func blockKey(number uint32) []byte {
	return binary.BigEndian.AppendUint32([]byte{prefixBlock}, number)
}

func hashKey(hash *chainhash.Hash) []byte { return append([]byte{prefixHash}, hash[:]...) }

func placeKey(prefix byte, part []byte, number, place uint32) []byte {
	k := append(make([]byte, 0, 1+len(part)+8), prefix)
	k = append(k, part...)
	k = binary.BigEndian.AppendUint32(k, number)
	return binary.BigEndian.AppendUint32(k, place)
}

// numberOf is the number of an indexed block.
func (x *Index) numberOf(hash chainhash.Hash) (number uint32, ok bool, err error) {
	k := hashKey(&hash)
	v, ok, err := x.side.Get(k)
	if err != nil || !ok {
		return 0, false, err
	}
	if len(v) != 4 {
		return 0, false, x.side.Malformed(k, "malformed number of a block")
	}
	return binary.BigEndian.Uint32(v), true, nil
}

// A block is one that an entry names.
type block struct {
	hash   chainhash.Hash
	height int32
	active bool // on the active chain
}

// blockOf finds the block with a number, and whether it counts.
func (x *Index) blockOf(number uint32) (b block, err error) {
	k := blockKey(number)
	v, ok, err := x.side.Get(k)
	if err != nil {
		return b, err
	}
	if !ok || len(v) != len(b.hash)+4 {
		return b, x.side.Malformed(k, "an entry names a block that is not there")
	}
	copy(b.hash[:], v)
	b.height = int32(binary.BigEndian.Uint32(v[len(b.hash):]))
	at, ok := x.o.Chain.HashAt(b.height)
	b.active = ok && at == b.hash
	return b, nil
}

// addTxs puts the transactions of a block into a batch, but for those of a genesis whose
// coinbase nobody can spend (Bitcoin Core has it in no index either).
func (x *Index) addTxs(b *store.SideBatch, raw []byte, number uint32, height int32) error {
	if height == 0 && !x.o.Chain.Params().GenesisSpendable() {
		return nil
	}
	offset := consensus.HeaderBytes + x.o.Chain.Params().SealBytes
	if len(raw) < offset {
		return fmt.Errorf("%d bytes", len(raw))
	}
	n, size, err := consensus.ReadCount(raw[offset:], "transactions")
	if err != nil {
		return err
	}
	offset += size
	type entry struct{ key, value []byte }
	entries := make([]entry, 0, min(n, uint64(len(raw)/60)))
	for i := range n {
		size, err := consensus.TxSize(raw[offset:])
		if err != nil {
			return fmt.Errorf("transaction %d: %w", i, err)
		}
		id, _, err := consensus.TxIDs(raw[offset : offset+size])
		if err != nil {
			return fmt.Errorf("transaction %d: %w", i, err)
		}
		v := binary.AppendUvarint(nil, uint64(offset))
		entries = append(entries, entry{placeKey(prefixTx, id[:txPart], number, uint32(i)), binary.AppendUvarint(v, uint64(size))})
		offset += size
	}
	// Only now: a block that cannot be read leaves nothing in the batch.
	for _, e := range entries {
		b.Put(e.key, e.value)
	}
	return nil
}

// A Place is where a transaction is.
type Place struct {
	Block  chainhash.Hash
	Height int32
	Index  int  // in the block
	Active bool // the block is on the active chain
}

// Tx finds a transaction: in the active chain if it is there, the latest place if there
// are two, else in a block that was on it once, as Bitcoin Core's index does. It reads the
// transaction to be sure.
func (x *Index) Tx(id chainhash.Hash) (p Place, ok bool, err error) {
	low := append([]byte{prefixTx}, id[:txPart]...)
	high := placeKey(prefixTx, id[:txPart], ^uint32(0), ^uint32(0))
	looked := 0
	done := errors.New("found")
	err = x.side.Back(low, high, func(k, v []byte) error {
		if looked++; looked > maxSame {
			return done
		}
		found, same, err := x.place(k, v, &id)
		if err != nil || !same {
			return err
		}
		if found.Active || !ok {
			p, ok = found, true
		}
		if found.Active {
			return done
		}
		return nil
	})
	if errors.Is(err, done) {
		err = nil
	}
	return p, ok, err
}

// place reads the transaction of an entry and says whether it is the one with the id.
func (x *Index) place(k, v []byte, id *chainhash.Hash) (p Place, same bool, err error) {
	offset, n := binary.Uvarint(v)
	size, m := binary.Uvarint(v[max(n, 0):])
	most := uint64(x.o.Chain.Params().MaxBlockBytes())
	if len(k) != 1+txPart+8 || n <= 0 || m <= 0 || n+m != len(v) || offset > most || size > most {
		return p, false, x.side.Malformed(k, "malformed place of a transaction")
	}
	b, err := x.blockOf(binary.BigEndian.Uint32(k[1+txPart:]))
	if err != nil {
		return p, false, err
	}
	raw := make([]byte, size)
	err = x.o.Chain.ReadBlockPart(b.hash, int64(offset), raw)
	if errors.Is(err, chain.ErrNotFound) {
		return p, false, nil // a stale block that a crash has lost
	}
	if err != nil {
		return p, false, err
	}
	got, _, rule := consensus.TxIDs(raw)
	if rule != nil || !bytes.Equal(got[:], id[:]) {
		return p, false, nil //nolint:nilerr // begins alike; damage is found by whoever reads the block
	}
	return Place{b.hash, b.height, int(binary.BigEndian.Uint32(k[1+txPart+4:])), b.active}, true, nil
}
