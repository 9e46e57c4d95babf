package discovery

import (
	"cmp"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
)

// The shape of the address book's two tables. It is that of Bitcoin Core's addrman,
// smaller (Heilman et al., "Eclipse Attacks on Bitcoin's Peer-to-Peer Network", 2015:
// countermeasures 1 to 4 and 6): where a peer may stand follows from a secret, from its IP group
// and, until it has answered, from who named it. So whoever owns few IP groups can take
// few places, however many peer ids it makes, and a single teller cannot fill the book.
const (
	// A quarter of the places is for peers that answered.
	triedShare = 4
	// On a public network all that one teller names falls into so many buckets of the
	// new table (of 96 by default), and what it names of one IP group into one of them.
	newReach = 8
	// All peers of one IP group that answered share so many buckets of the tried table (of 32).
	triedReach = 4

	maxElders       = 2
	bucketSize      = 16
	smallBucketSize = 4 // in books of under 256 places
	// A peer may stand at so many places of its bucket: two that would share one are no reason to lose either.
	choices   = 4
	saltBytes = 16

	// Peers that answered but found their place taken by another one that did wait here
	// while a feeler tests the other.
	maxTests = 16
	// A test without a result after this long is over, and the old peer keeps its place.
	testPatience = 40 * time.Minute
)

// slot is a place in a table: 0 is none, i+1 the i-th of the new table, -i-1 the i-th
// of the tried one.
type slot int

func (s slot) tried() bool { return s < 0 }

// test is a peer that would take the place of another one.
type test struct {
	candidate, holder peer.ID
	slot              slot // of the holder
	since             time.Time
}

// book is the table of known peers. It is not safe for concurrent use: the
// Discovery's lock guards it.
//
// Invariants: an entry of byID has a place of its own in one of the tables or is free
// (entry.free), and a place holds an entry of byID or nil.
type book struct {
	private bool
	salt    []byte // saltBytes long; secret, kept over restarts
	bucket  int    // places of one
	fresh   []*entry
	proven  []*entry
	byID    map[peer.ID]*entry
	tests   []test
}

func newBook(private bool, limit int, salt []byte) *book {
	b := &book{private: private, salt: salt, bucket: bucketSize, byID: map[peer.ID]*entry{}}
	if limit < 16*bucketSize {
		b.bucket = smallBucketSize
	}
	if len(b.salt) != saltBytes {
		b.salt = make([]byte, saltBytes)
		_, _ = rand.Read(b.salt) // never fails
	}
	tried := limit / triedShare / b.bucket
	b.proven = make([]*entry, tried*b.bucket)
	b.fresh = make([]*entry, (limit/b.bucket-tried)*b.bucket)
	return b
}

// draw hashes the salt and the parts to a number below n.
func (b *book) draw(n int, parts ...string) int {
	h := sha256.New()
	h.Write(b.salt)
	for _, p := range parts {
		var length [4]byte
		binary.LittleEndian.PutUint32(length[:], uint32(len(p))) //nolint:gosec // short texts
		h.Write(length[:])
		h.Write([]byte(p))
	}
	return int(binary.LittleEndian.Uint64(h.Sum(nil)) % uint64(n)) //nolint:gosec // n is a small count
}

// freshSlot is the place of the new table where e may stand by its k-th choice. On a private network
// every peer is a group of its own and it does not matter who named it.
func (b *book) freshSlot(e *entry, k int) slot {
	buckets := len(b.fresh) / b.bucket
	var at int
	if b.private {
		at = b.draw(buckets, "private", string(e.id))
	} else {
		within := b.draw(min(newReach, buckets), "teller", e.told, e.group())
		at = b.draw(buckets, "new", e.told, string(rune('0'+within)))
	}
	return slot(at*b.bucket + b.place(e, k) + 1)
}

// place is a place within a bucket.
func (b *book) place(e *entry, k int) int {
	return (b.draw(b.bucket, "place", string(e.id)) + k*b.bucket/choices) % b.bucket
}

// triedSlot is the place of the tried table where e may stand by its k-th choice.
func (b *book) triedSlot(e *entry, k int) slot {
	buckets := len(b.proven) / b.bucket
	var at int
	if b.private {
		at = b.draw(buckets, "private", string(e.id))
	} else {
		within := b.draw(min(triedReach, buckets), "peer", string(e.id))
		at = b.draw(buckets, "tried", e.group(), string(rune('0'+within)))
	}
	return -slot(at*b.bucket + b.place(e, k) + 1)
}

// failures counts for each teller of a source the peers that are being dialled or did not answer.
func (b *book) failures(src Source) map[string]int {
	out := map[string]int{}
	for _, e := range b.byID {
		if e.source == src && (!e.dialSince.IsZero() || e.tries > 0) {
			out[e.told]++
		}
	}
	return out
}

// at returns the place.
func (b *book) at(s slot) **entry {
	if s.tried() {
		return &b.proven[-s-1]
	}
	return &b.fresh[s-1]
}

// stand puts e into a place that must be empty, out of the one it had.
func (b *book) stand(e *entry, s slot) {
	b.leave(e)
	e.slot = s
	*b.at(s) = e
	b.byID[e.id] = e
}

// leave takes e out of its place; it stays known.
func (b *book) leave(e *entry) {
	if e.slot != 0 {
		*b.at(e.slot) = nil
		e.slot = 0
	}
}

// drop forgets e.
func (b *book) drop(e *entry) {
	b.leave(e)
	delete(b.byID, e.id)
}

// givesWay reports whether the holder of a place of the new table makes room for
// someone of whom nothing bad is known. One that was only just heard of does
// not: else whoever talks last would own the book.
func givesWay(holder *entry, now time.Time) bool {
	return holder.dialSince.IsZero() && (holder.terrible(now) || !holder.tried() && holder.tries > 0)
}

// standFresh gives e its place in the new table, if it is to be had.
func (b *book) standFresh(e *entry, now time.Time) bool {
	for k := range choices {
		s := b.freshSlot(e, k)
		holder := *b.at(s)
		if holder != nil && holder != e {
			if !givesWay(holder, now) {
				continue
			}
			b.drop(holder)
		}
		b.stand(e, s)
		e.choice = k
		return true
	}
	return false
}

// standTried gives e its place in the tried table. If other peers that answered hold
// all that it may have, e waits for a test of the first and stands in the new table meanwhile.
func (b *book) standTried(e *entry, now time.Time) bool {
	for k := range choices {
		s := b.triedSlot(e, k)
		holder := *b.at(s)
		switch {
		case holder == e:
			return true
		case holder == nil:
		case holder.terrible(now) && holder.dialSince.IsZero():
			b.drop(holder)
		default:
			continue
		}
		b.stand(e, s)
		e.choice = k
		return true
	}
	s := b.triedSlot(e, 0)
	b.propose(test{candidate: e.id, holder: (*b.at(s)).id, slot: s, since: now})
	if e.slot.tried() { // its group has changed and the places of the new one are taken
		b.leave(e)
	}
	return e.slot != 0 || b.standFresh(e, now)
}

func (b *book) propose(t test) {
	same := func(x test) bool { return x.candidate == t.candidate || x.holder == t.holder }
	if len(b.tests) < maxTests && !slices.ContainsFunc(b.tests, same) {
		b.tests = append(b.tests, t)
	}
}

// settleTests ends the tests that have a result: a holder that answered since, or is
// connected, keeps its place; one that failed makes room and goes back among the new.
func (b *book) settleTests(now time.Time, connected func(peer.ID) bool) {
	b.tests = slices.DeleteFunc(b.tests, func(t test) bool {
		e, holder := b.byID[t.candidate], b.byID[t.holder]
		switch {
		case e == nil || e.free() || !e.tried() || e.slot.tried():
			return true
		case holder == nil || holder.slot != t.slot:
			if *b.at(t.slot) == nil {
				b.stand(e, t.slot)
				e.choice = 0
			}
			return true
		case connected(holder.id) || holder.success.After(t.since):
			return true
		case holder.failedAt.After(t.since):
			if b.leave(holder); !b.standFresh(holder, now) {
				b.drop(holder)
			}
			b.stand(e, t.slot)
			e.choice = 0
			return true
		}
		return now.Sub(t.since) > testPatience
	})
}

// learn notes that source named a peer, by the mouth of told. Addresses must be usable.
// Hearsay never displaces the addresses of a peer that answers at them. It returns nil
// if there is no place for the peer, and reports whether the peer is new.
func (b *book) learn(now time.Time, id peer.ID, addrs []ma.Multiaddr, src Source, told string) (e *entry, fresh bool) {
	e = b.byID[id]
	if e == nil {
		if len(addrs) == 0 {
			return nil, false
		}
		e = &entry{id: id, addrs: slices.Clone(addrs), source: src, heard: now, jitter: 1, told: told}
		if !b.standFresh(e, now) {
			return nil, false
		}
		return e, true
	}
	e.heard = now
	if e.static || e.tried() && e.tries < 3 {
		e.addrs = mergeAddrs(e.addrs, addrs)
	} else {
		e.addrs = mergeAddrs(addrs, e.addrs)
	}
	return e, false
}

// reached notes that a peer of our network answered, or dialled us, and tells
// where it listens; remote is where it was seen. It returns nil if there is no place for it.
func (b *book) reached(now time.Time, id peer.ID, addrs []ma.Multiaddr, src Source, remote ma.Multiaddr, outbound bool) *entry {
	e := b.byID[id]
	if e == nil {
		if len(addrs) == 0 {
			return nil
		}
		e = &entry{id: id, addrs: slices.Clone(addrs), source: src, heard: now, jitter: 1, told: "self/" + groupOf(remote)}
	}
	e.heard = now
	if !e.lostAt.IsZero() {
		e.lostAt, e.dark, e.back = time.Time{}, false, e.held
	}
	if outbound || !e.tried() {
		e.addrs = mergeAddrs(addrs, e.addrs)
	} else { // what it says of itself does not move a peer out of the group where it answered
		e.addrs = mergeAddrs(e.addrs, addrs)
	}
	if outbound {
		if e.success.IsZero() {
			e.since = now
		}
		e.success, e.tries, e.lastErr = now, 0, ""
	}
	switch {
	case e.free(), !outbound && e.slot != 0:
	case outbound && b.standTried(e, now), !outbound && b.standFresh(e, now):
	default:
		b.drop(e)
		return nil
	}
	return e
}

// restore gives an entry of a saved book its place. The file is ours: of two that fall on one place, which
// happens when its header was lost or one of them needed none (entry.free), the one proven longer stays, and the other
// stands where there is room.
func (b *book) restore(e *entry, proven bool) bool {
	places := make([]slot, 0, 3*choices)
	if proven {
		places = append(places, b.triedSlot(e, e.choice))
		for k := range choices {
			places = append(places, b.triedSlot(e, k))
		}
	}
	places = append(places, b.freshSlot(e, e.choice))
	for k := range choices {
		places = append(places, b.freshSlot(e, k))
	}
	for _, s := range places {
		if *b.at(s) == nil {
			b.stand(e, s)
			return true
		}
	}
	if holder := *b.at(places[0]); !e.since.IsZero() && (holder.since.IsZero() || e.since.Before(holder.since)) {
		b.drop(holder)
		b.stand(e, places[0])
		return true
	}
	return false
}

// chooseElders marks the peers that were proven longest ago and are still, each of another IP group. They are
// dialled first after a restart, for age is what an attacker cannot make quickly.
func (b *book) chooseElders() {
	var all []*entry
	for _, e := range b.byID {
		if e.slot.tried() && e.tries == 0 && !e.since.IsZero() {
			all = append(all, e)
		}
	}
	slices.SortFunc(all, func(a, b *entry) int { return cmp.Or(a.since.Compare(b.since), cmp.Compare(a.id, b.id)) })
	groups := map[string]bool{}
	for _, e := range all {
		if g := e.group(); !groups[g] && len(groups) < maxElders {
			groups[g], e.elder = true, true
		}
	}
}

// settle is to be called when an entry may have become free or have ceased to be.
func (b *book) settle(e *entry, now time.Time) {
	switch {
	case e.free():
		b.leave(e)
	case e.slot != 0:
	case e.tried() && b.standTried(e, now), b.standFresh(e, now):
	default:
		b.drop(e)
	}
}

// forget drops the entries that are not worth their place.
func (b *book) forget(now time.Time) {
	for _, e := range b.byID {
		if e.dialSince.IsZero() && e.terrible(now) {
			b.drop(e)
		}
	}
}

func mergeAddrs(a, b []ma.Multiaddr) []ma.Multiaddr {
	out := make([]ma.Multiaddr, 0, min(len(a)+len(b), maxAddrsPerPeer))
	for _, s := range [][]ma.Multiaddr{a, b} {
		for _, x := range s {
			if len(out) < maxAddrsPerPeer && !containsAddr(out, x) {
				out = append(out, x)
			}
		}
	}
	return out
}
