// Package ring keeps the last of many small records in one piece of memory: lines of the log, events, descriptions of blocks. Kept one by one,
// each would be several allocations, which take more than they hold and lie scattered over pages that nothing else can use for as long.
//
// It is not a queue: nobody takes records out, the oldest fall out when there is no room.
//
// Invariants:
//   - Records together are at most Bytes of the options, and at most Records in number, at any time.
//   - What the ring takes is a quarter more than the records have needed, 4 KiB at least, and never more than the limits and 8 bytes a record.
package ring

import "math"

// What a ring begins with, and grows by at least, up to its limits.
const (
	firstBytes   = 4 << 10
	firstRecords = 64
)

// A Ring keeps the last records. Make it with [New]. It is not safe for concurrent use.
type Ring struct {
	maxRecords, maxBytes int

	buf  []byte   // positions count on for ever: one is at its remainder by the length
	ends []uint64 // position behind record n, at n's remainder by the length
	from uint64   // position of the first record
	// first and next are the numbers of the oldest record and of the one that comes next.
	first, next uint64
}

// New returns an empty ring for at most so many records of so many bytes together, both 1 at least. It panics if they are not.
func New(records, bytes int) *Ring {
	if records < 1 || bytes < 1 || bytes > math.MaxInt32 {
		panic("ring: limits out of range")
	}
	return &Ring{maxRecords: records, maxBytes: bytes}
}

// Len is how many records there are.
func (r *Ring) Len() int { return int(r.next - r.first) }

// First is the number of the oldest record, Next that of the one that will be added. Numbers count from 0.
func (r *Ring) First() uint64 { return r.first }

// Next is the number of the record that will be added.
func (r *Ring) Next() uint64 { return r.next }

// Size is how many bytes the ring takes.
func (r *Ring) Size() int { return len(r.buf) + 8*len(r.ends) }

// Add adds a copy of a record; the oldest ones fall out to make room. A record that is larger than all of the ring is not kept, and
// neither is what was there before it: numbers stay without gaps.
func (r *Ring) Add(record []byte) {
	if len(record) > r.maxBytes {
		r.next++
		r.first = r.next
		return
	}
	for !r.Fits(len(record)) {
		r.Drop()
	}
	r.grow(len(record))
	at := r.end()
	if len(record) > 0 {
		n := copy(r.buf[at%uint64(len(r.buf)):], record)
		copy(r.buf, record[n:])
	}
	r.ends[r.next%uint64(len(r.ends))] = at + uint64(len(record))
	r.next++
}

// Fits says whether a record of so many bytes can be added without another falling out. It can, if there is none.
func (r *Ring) Fits(size int) bool {
	return r.Len() == 0 || r.Len() < r.maxRecords && r.used()+size <= r.maxBytes
}

// Drop has the oldest record fall out, if there is one.
func (r *Ring) Drop() {
	if r.Len() > 0 {
		r.from = r.ends[r.first%uint64(len(r.ends))]
		r.first++
	}
}

// Append appends record n to b. It is not there if n is not from First to before Next.
func (r *Ring) Append(b []byte, n uint64) (with []byte, ok bool) {
	if n < r.first || n >= r.next {
		return b, false
	}
	from, to := r.from, r.ends[n%uint64(len(r.ends))]
	if n > r.first {
		from = r.ends[(n-1)%uint64(len(r.ends))]
	}
	return r.appendBytes(b, from, to), true
}

// end is the position behind the last record.
func (r *Ring) end() uint64 {
	if r.Len() == 0 {
		return r.from
	}
	return r.ends[(r.next-1)%uint64(len(r.ends))]
}

func (r *Ring) used() int { return int(r.end() - r.from) }

// appendBytes appends what is between two positions.
func (r *Ring) appendBytes(b []byte, from, to uint64) []byte {
	if from == to {
		return b
	}
	size := uint64(len(r.buf))
	at, n := from%size, to-from
	if first := size - at; n > first {
		b = append(b, r.buf[at:]...)
		return append(b, r.buf[:n-first]...)
	}
	return append(b, r.buf[at:at+n]...)
}

// grow makes room for one more record of so many bytes, which the limits allow.
func (r *Ring) grow(more int) {
	if need := r.used() + more; need > len(r.buf) {
		r.rebase(min(max(need, len(r.buf)+max(len(r.buf)/4, firstBytes)), r.maxBytes))
	}
	if r.Len() == len(r.ends) {
		ends := make([]uint64, min(len(r.ends)+max(len(r.ends)/4, firstRecords), r.maxRecords))
		for n := r.first; n < r.next; n++ {
			ends[n%uint64(len(ends))] = r.ends[n%uint64(len(r.ends))]
		}
		r.ends = ends
	}
}

// rebase moves the records to a larger piece of memory, where they begin at position 0.
func (r *Ring) rebase(size int) {
	buf := make([]byte, size)
	copy(buf, r.appendBytes(make([]byte, 0, r.used()), r.from, r.end()))
	for n := r.first; n < r.next; n++ {
		r.ends[n%uint64(len(r.ends))] -= r.from
	}
	r.buf, r.from = buf, 0
}
