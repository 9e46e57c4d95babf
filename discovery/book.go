package discovery

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
)

// Source says who first named a peer.
type Source string

// The sources of peers, in no order: they are raced.
const (
	SourceAnchor     Source = "anchor"     // the last good outbound peers of an earlier run
	SourceBook       Source = "book"       // the saved address book, peers that were reached
	SourceBookNew    Source = "book_new"   // the saved address book, peers that were only heard of
	SourceBootstrap  Source = "bootstrap"  // Options.Bootstrap
	SourcePersistent Source = "persistent" // Options.Persistent
	SourceAdded      Source = "added"      // AddPeer
	SourceDNS        Source = "dns"        // Options.DNSSeeds
	SourceDHT        Source = "dht"        // rendezvous and lookups
	SourceInbound    Source = "inbound"    // it dialled us
)

var allSources = []Source{
	SourceAnchor, SourceBook, SourceBookNew, SourceBootstrap, SourcePersistent, SourceAdded, SourceDNS, SourceDHT, SourceInbound,
}

// Limits of the address book.
const (
	defaultMaxBook = 2048
	// Of peers that were never reached, one IP group of a public network gets at
	// most this many entries: a subnet cannot fill the book.
	maxNewPerGroup = 64
	// A peer nobody has named nor reached for this long is forgotten.
	bookMaxAge = 30 * 24 * time.Hour
	// A peer that was never reached is forgotten after this many attempts, one that
	// was after this many and a week.
	maxNewAttempts   = 10
	maxTriedAttempts = 20
	triedGrace       = 7 * 24 * time.Hour
)

// entry is what we know of a peer.
type entry struct {
	id      peer.ID
	addrs   []ma.Multiaddr // without /p2p, at most maxAddrsPerPeer, best first
	source  Source
	heard   time.Time // last named by a source
	success time.Time // last reached and of our network; zero: never
	tries   int       // failures since the last success

	// Of this run only.
	loaded     bool // read from the saved book
	anchor     bool
	static     bool // of bootstrap, persistent or AddPeer: dialled first, never evicted
	persistent bool // redialled for ever, beyond the target too
	fixed      bool // static by Options, whatever RemovePeer or a DNS answer say
	fixedPers  bool // persistent by Options
	lastTry    time.Time
	flaps      int       // connections since that ended within flapAfter
	lastUp     time.Time // last connected by us
	jitter     float64   // factor on the wait after lastTry, drawn with each attempt
	dialSince  time.Time
	lastErr    string
}

func (e *entry) tried() bool { return !e.success.IsZero() }

// group is the IP group of the entry's best address.
func (e *entry) group() string {
	if len(e.addrs) == 0 {
		return ""
	}
	return groupOf(e.addrs[0])
}

// class is the queue from which the dialler takes the entry.
func (e *entry) class() Source {
	switch {
	case e.loaded && e.tried():
		return SourceBook
	case e.loaded:
		return SourceBookNew
	}
	return e.source
}

// terrible reports whether the entry is not worth its place.
func (e *entry) terrible(now time.Time) bool {
	switch {
	case e.static:
		return false
	case e.tried():
		return now.Sub(e.success) > bookMaxAge || e.tries >= maxTriedAttempts && now.Sub(e.success) > triedGrace
	}
	return e.tries >= maxNewAttempts || now.Sub(e.heard) > bookMaxAge
}

// wait returns how long after a failure the entry rests. Without any peer it is
// short: whatever comes back first is the way back in.
func (e *entry) wait(lonely bool) time.Duration {
	longest := 10 * time.Minute
	switch {
	case e.static && lonely, e.anchor && lonely:
		longest = 1500 * time.Millisecond
	case lonely:
		longest = 15 * time.Second
	case e.static:
		longest = time.Minute
	}
	w := min(time.Second<<min(max(e.tries+e.flaps-1, 0), 12), longest)
	return time.Duration(float64(w) * e.jitter)
}

// book is the table of known peers. It is not safe for concurrent use: the
// Discovery's lock guards it.
type book struct {
	private bool
	max     int
	byID    map[peer.ID]*entry
}

func newBook(private bool, limit int) *book {
	return &book{private: private, max: limit, byID: map[peer.ID]*entry{}}
}

// learn notes that source named a peer. Addresses must be usable. Hearsay never
// displaces the addresses of a peer that answers at them. It returns nil if there
// is no place for the peer, and reports whether the peer is new.
func (b *book) learn(now time.Time, id peer.ID, addrs []ma.Multiaddr, src Source) (e *entry, fresh bool) {
	e = b.byID[id]
	if e == nil {
		if len(addrs) == 0 || !b.room(now, addrs) {
			return nil, false
		}
		e = &entry{id: id, addrs: slices.Clone(addrs), source: src, heard: now, jitter: 1}
		b.byID[id] = e
		return e, true
	}
	e.heard = now
	if e.tried() && e.tries < 3 {
		e.addrs = mergeAddrs(e.addrs, addrs)
	} else {
		e.addrs = mergeAddrs(addrs, e.addrs)
	}
	return e, false
}

// reached notes that a peer of our network answered, or dialled us, and tells
// where it listens.
func (b *book) reached(now time.Time, id peer.ID, addrs []ma.Multiaddr, src Source, outbound bool) *entry {
	e, _ := b.learn(now, id, addrs, src)
	if e == nil {
		return nil
	}
	e.addrs = mergeAddrs(addrs, e.addrs)
	if outbound {
		e.success, e.tries, e.lastErr = now, 0, ""
	}
	return e
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

// room makes place for a new peer at addrs, if there is any to be had.
func (b *book) room(now time.Time, addrs []ma.Multiaddr) bool {
	if !b.private {
		group, n := groupOf(addrs[0]), 0
		var oldest *entry
		for _, e := range b.byID {
			if e.tried() || e.static || e.group() != group {
				continue
			}
			if n++; oldest == nil || worse(e, oldest) {
				oldest = e
			}
		}
		if n >= maxNewPerGroup {
			delete(b.byID, oldest.id)
			return true
		}
	}
	if len(b.byID) < b.max {
		return true
	}
	b.forget(now)
	if len(b.byID) < b.max {
		return true
	}
	var victim *entry
	for _, e := range b.byID {
		// The peers that answered keep their place against mere hearsay.
		if !e.static && !e.tried() && e.dialSince.IsZero() && (victim == nil || worse(e, victim)) {
			victim = e
		}
	}
	if victim == nil {
		return false
	}
	delete(b.byID, victim.id)
	return true
}

// worse orders entries that were never reached.
func worse(a, b *entry) bool {
	return cmp.Or(-cmp.Compare(a.tries, b.tries), a.heard.Compare(b.heard), cmp.Compare(a.id, b.id)) < 0
}

// forget drops the entries that are not worth their place.
func (b *book) forget(now time.Time) {
	for id, e := range b.byID {
		if e.dialSince.IsZero() && e.terrible(now) {
			delete(b.byID, id)
		}
	}
}

// failed notes a dial that did not work.
func (e *entry) failed(now time.Time, reason string) {
	e.tries++
	e.lastTry, e.lastErr = now, reason
	e.jitter = 0.75 + rand.Float64()/2
}

// flapAfter: a peer that must be dialled again so soon after it was reached rests
// as if it had not answered, for each time in a row.
const flapAfter = time.Minute

// connected notes a dial, begun at start, that worked. Until identify or hello have
// shown that the peer is of our network (which may already have happened), it counts as a
// failure.
func (e *entry) connected(start, now time.Time) {
	if now.Sub(e.lastUp) < flapAfter {
		e.flaps++
	} else {
		e.flaps = 0
	}
	if e.success.Before(start) {
		e.tries++
	}
	e.lastTry, e.lastUp, e.lastErr = now, now, ""
	e.jitter = 0.75 + rand.Float64()/2
}

// savedPeer is a line of a file.
type savedPeer struct {
	ID         string   `json:"id"`
	Addrs      []string `json:"addrs"`
	Source     Source   `json:"source"`
	Heard      int64    `json:"heard"`             // Unix seconds
	Success    int64    `json:"success,omitempty"` // Unix seconds; 0: never
	Tries      int      `json:"tries,omitempty"`
	Persistent bool     `json:"persistent,omitempty"`
}

// savedHeader is the first line of a file.
type savedHeader struct {
	Format    int    `json:"dunlin_peers"`
	Namespace string `json:"namespace"`
}

const savedFormat = 1

func (e *entry) saved() savedPeer {
	s := savedPeer{ID: e.id.String(), Source: e.source, Heard: e.heard.Unix(), Tries: e.tries, Persistent: e.persistent}
	if e.tried() {
		s.Success = e.success.Unix()
	}
	for _, a := range e.addrs {
		s.Addrs = append(s.Addrs, a.String())
	}
	return s
}

// encodePeers returns the lines of a file.
func encodePeers(namespace string, peers []savedPeer) ([][]byte, error) {
	head, err := json.Marshal(savedHeader{Format: savedFormat, Namespace: namespace})
	if err != nil {
		return nil, err
	}
	lines := [][]byte{head}
	for _, p := range peers {
		l, err := json.Marshal(p)
		if err != nil {
			return nil, err
		}
		lines = append(lines, l)
	}
	return lines, nil
}

// errOtherNetwork says that a file belongs to another chain.
var errOtherNetwork = errors.New("the file belongs to another network")

// loadPeers reads at most limit peers from the file at path, skips what is damaged
// and counts it.
func loadPeers(path, namespace string, limit int) (peers []savedPeer, damaged int, err error) {
	lines, damaged, err := readLines(path)
	if err != nil {
		return nil, 0, err
	}
	for _, l := range lines {
		var h savedHeader
		if json.Unmarshal(l, &h) == nil && h.Format != 0 {
			if h.Format != savedFormat || h.Namespace != namespace {
				return nil, 0, fmt.Errorf("%s: %w: format %d, namespace %q", path, errOtherNetwork, h.Format, h.Namespace)
			}
			continue
		}
		var p savedPeer
		if json.Unmarshal(l, &p) != nil || len(peers) >= limit {
			damaged++
			continue
		}
		peers = append(peers, p)
	}
	return peers, damaged, nil
}

// decode checks a line. Addresses that do not parse are left out.
func (s savedPeer) decode() (id peer.ID, addrs []ma.Multiaddr, err error) {
	if id, err = peer.Decode(s.ID); err != nil {
		return "", nil, err
	}
	for _, t := range s.Addrs {
		a, err := ma.NewMultiaddr(t)
		if err != nil || len(a.Bytes()) > maxAddrBytes || len(addrs) >= maxAddrsPerPeer {
			continue
		}
		addrs = append(addrs, a)
	}
	if len(addrs) == 0 {
		return "", nil, fmt.Errorf("peer %s has no address", id)
	}
	return id, addrs, nil
}
