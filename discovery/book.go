package discovery

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"dunlin/discovery/internal/lines"
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
	SourcePeers      Source = "peers"      // other peers, by peer exchange
	SourceMDNS       Source = "mdns"       // the local network, by multicast DNS
	SourceInbound    Source = "inbound"    // it dialled us
	SourceImport     Source = "import"     // Import
)

var allSources = []Source{
	SourceAnchor, SourceBook, SourceBookNew, SourceBootstrap, SourcePersistent, SourceAdded, SourceDNS, SourceDHT, SourcePeers, SourceMDNS,
	SourceInbound, SourceImport,
}

// Limits of the address book.
const (
	defaultMaxBook = 2048
	leastMaxBook   = 16
	mostMaxBook    = 65_536
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
	since   time.Time // first of the successes
	tries   int       // failures since the last success
	told    string    // who named it first, as far as buckets go; see book
	slot    slot      // its place in the book's tables
	choice  int       // of the places that it may have; see book

	// Of this run only.
	record     []byte    // signed by the peer; nil: none, it is not told to others
	seen       time.Time // last connected, either way
	asked      time.Time // last asked whom it knows
	lostAt     time.Time // a connection that we had opened has ended, and there is none since; zero: no
	held       bool      // of a lost one: that connection had lasted for heldAfter
	dark       bool      // lost, and the last dial got no answer at all
	back       bool      // was held when it was lost, and came back: it leaves for no other one that does
	loaded     bool      // read from the saved book
	anchor     bool
	elder      bool // dialled first, as the anchors, for having been proven longest
	static     bool // of bootstrap, persistent or AddPeer: dialled first, never evicted
	persistent bool // redialled for ever, beyond the target too
	fixed      bool // static by Options, whatever RemovePeer or a DNS answer say
	fixedPers  bool // persistent by Options
	lastTry    time.Time
	failedAt   time.Time // last failure while we had other peers
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

// dialGroup is the group for which a dial of the entry counts.
func (e *entry) dialGroup() string {
	if len(e.addrs) == 0 {
		return ""
	}
	return dialGroup(e.addrs[0])
}

// free reports whether the entry stays outside the tables: the operator's own, and the
// few anchors of an earlier run, need no place that others could take.
func (e *entry) free() bool { return e.static || e.anchor }

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

// failed notes a dial that did not work. A failure while we have no peer at all says
// more about our own cable: it makes the entry rest, but never lose its place.
func (e *entry) failed(now time.Time, reason string, lonely bool) {
	last := maxNewAttempts
	if e.tried() {
		last = maxTriedAttempts
	}
	if !lonely || e.tries+1 < last {
		e.tries++
	}
	if !lonely {
		e.failedAt = now
	}
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
	Since      int64    `json:"since,omitempty"`   // Unix seconds of the first success
	Tries      int      `json:"tries,omitempty"`
	Persistent bool     `json:"persistent,omitempty"`
	Told       string   `json:"told,omitempty"`   // who named it first; decides on its place
	Proven     bool     `json:"proven,omitempty"` // it stands among the peers that answered
	Choice     int      `json:"choice,omitempty"` // of the places that it may have there
}

// savedHeader is the first line of a file.
type savedHeader struct {
	Format    int    `json:"dunlin_peers"`
	Namespace string `json:"namespace"`
	Salt      []byte `json:"salt,omitempty"` // of the book only: it keeps everyone in their places
}

const savedFormat = 1

func (e *entry) saved() savedPeer {
	s := savedPeer{ID: e.id.String(), Source: e.source, Heard: e.heard.Unix(), Tries: e.tries, Persistent: e.persistent, Told: e.told, Proven: e.slot.tried() || e.free() && e.tried(), Choice: e.choice}
	if e.tried() {
		s.Success, s.Since = e.success.Unix(), e.since.Unix()
	}
	for _, a := range e.addrs {
		s.Addrs = append(s.Addrs, a.String())
	}
	return s
}

// encodePeers returns the lines of a file.
func encodePeers(namespace string, salt []byte, peers []savedPeer) ([][]byte, error) {
	head, err := json.Marshal(savedHeader{Format: savedFormat, Namespace: namespace, Salt: salt})
	if err != nil {
		return nil, err
	}
	texts := [][]byte{head}
	for _, p := range peers {
		l, err := json.Marshal(p)
		if err != nil {
			return nil, err
		}
		texts = append(texts, l)
	}
	return texts, nil
}

// errOtherNetwork says that a file belongs to another chain.
var errOtherNetwork = errors.New("the file belongs to another network")

// loadPeers reads at most limit peers and the salt from the file at path, skips what is
// damaged and counts it, and what is over the limit.
func loadPeers(path, namespace string, limit int) (peers []savedPeer, salt []byte, damaged, over int, err error) {
	texts, damaged, err := lines.Read(path)
	if err != nil {
		return nil, nil, 0, 0, err
	}
	for _, l := range texts {
		var h savedHeader
		if json.Unmarshal(l, &h) == nil && h.Format != 0 {
			if h.Format > savedFormat {
				return nil, nil, 0, 0, fmt.Errorf("%s was written by a newer version: format %d, this one reads %d; move it away to begin without it", path, h.Format, savedFormat)
			}
			if h.Format != savedFormat || h.Namespace != namespace {
				return nil, nil, 0, 0, fmt.Errorf("%s: %w: format %d, namespace %q", path, errOtherNetwork, h.Format, h.Namespace)
			}
			salt = h.Salt
			continue
		}
		var p savedPeer
		switch {
		case json.Unmarshal(l, &p) != nil:
			damaged++
		case len(peers) >= limit:
			over++
		default:
			peers = append(peers, p)
		}
	}
	return peers, salt, damaged, over, nil
}

// decode checks a line. Addresses that do not parse are left out.
func (s savedPeer) decode() (id peer.ID, addrs []ma.Multiaddr, err error) {
	if len(s.ID) > 2*maxIDBytes { // base58 needs 1.4 bytes for one
		return "", nil, fmt.Errorf("a peer id of %d characters", len(s.ID))
	}
	if id, err = peer.Decode(s.ID); err != nil {
		return "", nil, err
	}
	if !validID(id) {
		return "", nil, fmt.Errorf("%s is no peer id", id)
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
