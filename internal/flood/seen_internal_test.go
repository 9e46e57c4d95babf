package flood

import (
	"encoding/binary"
	"testing"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"
)

// When blocks were first seen is remembered of so many, the latest; a later sight of one changes nothing.
func TestSightsAreBounded(t *testing.T) {
	f := &Flood{seen: make(map[chainhash.Hash]*sighting)}
	began := time.Unix(1_795_000_000, 0)
	hash := func(i int) (h chainhash.Hash) {
		binary.LittleEndian.PutUint32(h[:], uint32(i))
		return h
	}
	const all = 3 * maxSeen
	for i := range all {
		at := began.Add(time.Duration(i) * time.Second)
		f.sight(hash(i), at)
		if s := f.sight(hash(i), at.Add(time.Hour)); !s.at.Equal(at) {
			t.Fatalf("block %d was seen at %v, told %v", i, at, s.at)
		}
		if len(f.seen) > maxSeen || len(f.order) != len(f.seen) {
			t.Fatalf("%d are remembered in %d places, limit %d", len(f.seen), len(f.order), maxSeen)
		}
	}
	now := began.Add(24 * time.Hour)
	if at := f.firstSeen(hash(all-maxSeen), now); !at.Equal(began.Add((all - maxSeen) * time.Second)) {
		t.Errorf("the oldest that is remembered was seen at %v", at)
	}
	if at := f.firstSeen(hash(all-maxSeen-1), now); !at.Equal(now) {
		t.Errorf("one that is forgotten was seen at %v", at)
	}
}
