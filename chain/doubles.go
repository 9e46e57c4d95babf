package chain

import (
	"encoding/binary"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"

	"dunlin/chain/consensus"
	"dunlin/chain/store"
)

// metaDoubles is the name under which the store keeps the evidence of double stakes: how
// much there ever was (8 bytes), and the latest, oldest first, doubleBytes each. It is
// part of the commits, so a reindex begins with none.
const metaDoubles = "doubles"

// doubleBytes is the size of one: outpoint 36, key 32, slot 8, height 4, when seen 8 (ms
// since 1970), the two hashes.
const doubleBytes = 36 + 32 + 8 + 4 + 8 + 2*chainhash.HashSize

func (d *DoubleStake) encode(b []byte) []byte {
	b = append(b, d.OutPoint.Hash[:]...)
	b = binary.LittleEndian.AppendUint32(b, d.OutPoint.Index)
	b = append(b, d.Key[:]...)
	b = binary.LittleEndian.AppendUint64(b, uint64(d.Slot))
	b = binary.LittleEndian.AppendUint32(b, uint32(d.Height))
	b = binary.LittleEndian.AppendUint64(b, uint64(d.Seen.UnixMilli()))
	b = append(b, d.First[:]...)
	return append(b, d.Second[:]...)
}

// decodeDouble reads what encode wrote, doubleBytes of it.
func decodeDouble(b []byte) (d DoubleStake) {
	var c consensus.Claim
	copy(c.OutPoint.Hash[:], b)
	c.OutPoint.Index = binary.LittleEndian.Uint32(b[32:])
	copy(c.Key[:], b[36:])
	c.Slot = int64(binary.LittleEndian.Uint64(b[68:]))
	d.Claim, d.Height = c, int32(binary.LittleEndian.Uint32(b[76:]))
	d.Seen = time.UnixMilli(int64(binary.LittleEndian.Uint64(b[80:])))
	copy(d.First[:], b[88:])
	copy(d.Second[:], b[120:])
	return d
}

// loadDoubles reads the evidence. What is not what was written is left behind, with a
// word: nothing else depends on it.
func (c *Chain) loadDoubles() error {
	b, ok, err := c.store.Meta(metaDoubles)
	if err != nil || !ok {
		return err
	}
	n := (len(b) - 8) / doubleBytes
	if len(b) < 8 || (len(b)-8)%doubleBytes != 0 || n > maxDoubles || binary.LittleEndian.Uint64(b) < uint64(n) {
		c.log.Warn("stored evidence of double stakes is not what was written: forgotten", "bytes", len(b))
		return nil
	}
	m := c.claims
	m.mu.Lock()
	defer m.mu.Unlock()
	m.total = int(binary.LittleEndian.Uint64(b))
	for b = b[8:]; len(b) > 0; b = b[doubleBytes:] {
		m.doubles = append(m.doubles, decodeDouble(b))
	}
	m.saved = m.total
	return nil
}

// unsavedDoubles says how much evidence there is if that is not on disk; 0: it is.
func (m *claims) unsavedDoubles() (total int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.total == m.saved {
		return 0
	}
	return m.total
}

// writeDoubles puts the evidence into b, up to what there is now, and returns how much
// that is.
func (m *claims) writeDoubles(b *store.Batch) (total int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	raw := binary.LittleEndian.AppendUint64(make([]byte, 0, 8+len(m.doubles)*doubleBytes), uint64(m.total))
	for i := range m.doubles {
		raw = m.doubles[i].encode(raw)
	}
	b.PutMeta(metaDoubles, raw)
	return m.total
}

// noteSaved notes that so much is on disk; 0: nothing new is.
func (m *claims) noteSaved(total int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.saved = max(m.saved, total)
}
