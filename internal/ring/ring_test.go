package ring_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"

	"dunlin/internal/ring"
)

// A model keeps what a ring should keep, in the plainest way.
type model struct {
	records, bytes int
	kept           [][]byte
	size           int // of all that are kept
	next           uint64
}

func (m *model) add(record []byte) {
	m.kept = append(m.kept, bytes.Clone(record))
	m.size += len(record)
	m.next++
	for len(m.kept) > 0 && (len(m.kept) > m.records || m.size > m.bytes) {
		m.drop()
	}
}

func (m *model) drop() {
	m.size -= len(m.kept[0])
	m.kept = m.kept[1:]
}

// TestLikeModel: whatever is added, the last records are there, as many as the limits allow, and the ring takes no more memory than that.
func TestLikeModel(t *testing.T) {
	for _, limits := range []struct{ records, bytes, longest int }{
		{1, 1, 2}, {1, 100, 50}, {7, 64, 40}, {100, 1000, 30}, {100, 1000, 1001}, {1000, 1 << 20, 300}, {3, 1 << 20, 10_000}, {5000, 50, 1},
	} {
		t.Run(fmt.Sprintf("%+v", limits), func(t *testing.T) {
			t.Parallel()
			rng := rand.New(rand.NewPCG(1, uint64(limits.records)))
			r, m := ring.New(limits.records, limits.bytes), &model{records: limits.records, bytes: limits.bytes}
			most := 0 // that the records have needed
			for range 1500 {
				record := make([]byte, rng.IntN(limits.longest+1))
				for i := range record {
					record[i] = byte(rng.Uint32())
				}
				fits := len(m.kept) == 0 || len(m.kept) < m.records && m.size+len(record) <= m.bytes
				if r.Fits(len(record)) != fits {
					t.Fatalf("record %d of %d bytes fits: %v", m.next, len(record), !fits)
				}
				r.Add(record)
				m.add(record)
				most = max(most, m.size)
				if r.Len() != len(m.kept) || r.Next() != m.next || r.First() != m.next-uint64(len(m.kept)) {
					t.Fatalf("%d records from %d to before %d, want %d to before %d", r.Len(), r.First(), r.Next(), len(m.kept), m.next)
				}
				if n := r.Size(); n > most+max(most/4, 4<<10)+8*min(limits.records, 2*len(m.kept)+64+r.Len()) || n > limits.bytes+8*limits.records {
					t.Fatalf("takes %d bytes for %d records of %d", n, r.Len(), most)
				}
				if rng.IntN(100) == 0 {
					check(t, r, m)
				}
			}
			check(t, r, m)
			for r.Len() > 0 {
				r.Drop()
				m.drop()
				if rng.IntN(100) == 0 {
					check(t, r, m)
				}
			}
			r.Drop()
			r.Add([]byte{1})
			m.add([]byte{1})
			check(t, r, m)
		})
	}
}

func check(t *testing.T, r *ring.Ring, m *model) {
	t.Helper()
	if r.Len() != len(m.kept) {
		t.Fatalf("%d records, want %d", r.Len(), len(m.kept))
	}
	for i, want := range m.kept {
		got, ok := r.Append([]byte("before"), r.First()+uint64(i))
		if !ok || !bytes.Equal(got[6:], want) || string(got[:6]) != "before" {
			t.Fatalf("record %d: %x %v, want %x", i, got, ok, want)
		}
	}
	for _, n := range []uint64{r.First() - 1, r.Next()} {
		if got, ok := r.Append(nil, n); ok || len(got) > 0 {
			t.Fatalf("record %d is there: %x", n, got)
		}
	}
}

// TestAddAllocatesNothing: a ring that is full takes no more memory, and makes no work for the collector.
func TestAddAllocatesNothing(t *testing.T) {
	r := ring.New(100, 4000)
	record := make([]byte, 77)
	for range 300 {
		r.Add(record)
	}
	if n := testing.AllocsPerRun(100, func() { r.Add(record) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

// TestLimits: none is a programmer's mistake.
func TestLimits(t *testing.T) {
	for _, limits := range [][2]int{{0, 1}, {1, 0}, {-1, 1}, {1, 1 << 31}} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%v", limits)
				}
			}()
			ring.New(limits[0], limits[1])
		}()
	}
}
