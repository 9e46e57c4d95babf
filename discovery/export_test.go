package discovery

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"dunlin/discovery/internal/lines"
	"dunlin/discovery/internal/mdns"
)

// What the tests, which are outside the package, reach inside for.

const (
	MaxDNSResults      = maxDNSResults
	MaxProvidersPerKey = maxProvidersPerKey
	MaxKeysPerProvider = maxKeysPerProvider
	MaxProviderKeys    = maxProviderKeys
	MaxProviderRecords = maxProviderRecords
	BucketSize         = bucketSize
	NewReach           = newReach
	TriedReach         = triedReach
	MaxTests           = maxTests
	MaxNewAttempts     = maxNewAttempts
	MaxAvoided         = maxAvoided
	MaxFileBytes       = lines.MaxFileBytes
	ProviderStaleAfter = providerStaleAfter
	MaxGroupPerKey     = maxGroupPerKey
	MaxGroupRecords    = maxGroupRecords
)

var (
	ErrNoPeerIDs     = errNoPeerIDs
	NewProviderStore = newProviderStore
	RendezvousKey    = rendezvousKey
	ProviderKey      = providerKey
	ReadLines        = lines.Read
	WriteLines       = lines.Write
	GroupOf          = groupOf
)

// Resolve resolves a seed through the given servers.
func Resolve(ctx context.Context, servers []string, seed string) (map[peer.ID][]ma.Multiaddr, int, error) {
	a, err := seedAddr(seed)
	if err != nil {
		if a, err = ma.NewMultiaddr(seed); err != nil {
			return nil, 0, err
		}
	}
	out, err := resolveSeed(ctx, serverResolver{servers}, a, 0)
	return out.peers, out.found, err
}

// Learn notes a peer in the book as if src had named it at the given time.
func (d *Discovery) Learn(now time.Time, ai peer.AddrInfo, src Source) bool {
	return d.LearnFrom(now, ai, src, "")
}

// LearnFrom is Learn with a teller.
func (d *Discovery) LearnFrom(now time.Time, ai peer.AddrInfo, src Source, told string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	addrs, _ := usable(ai.Addrs, d.opts.Private)
	d.bookDirty = true
	e, _ := d.book.learn(now, ai.ID, addrs, src, string(src)+"/"+told)
	return e != nil
}

// Reached notes that a peer answered at addrs.
func (d *Discovery) Reached(now time.Time, ai peer.AddrInfo) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.bookDirty = true
	return d.book.reached(now, ai.ID, ai.Addrs, SourceDHT, ai.Addrs[0], true) != nil
}

// Failed notes n dials of a peer that did not work.
func (d *Discovery) Failed(now time.Time, id peer.ID, n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for range n {
		d.book.byID[id].failed(now, "refused", false)
	}
}

// FailedAlone is Failed while there is no peer at all.
func (d *Discovery) FailedAlone(now time.Time, id peer.ID, n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for range n {
		d.book.byID[id].failed(now, "no route", true)
	}
}

// Proven reports whether a peer stands in the table of those that answered.
func (d *Discovery) Proven(id peer.ID) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	e := d.book.byID[id]
	return e != nil && e.slot.tried()
}

// Tests returns the pairs of candidate and holder that wait for a feeler.
func (d *Discovery) Tests() (pairs [][2]peer.ID) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, t := range d.book.tests {
		pairs = append(pairs, [2]peer.ID{t.candidate, t.holder})
	}
	return pairs
}

// SettleTests ends the tests that have a result.
func (d *Discovery) SettleTests(now time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.book.settleTests(now, func(peer.ID) bool { return false })
}

// SetSalt decides where peers may stand, unless some stand already.
func (d *Discovery) SetSalt(salt []byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, e := range d.book.byID {
		if e.slot != 0 {
			return
		}
	}
	d.book.salt = slices.Clone(salt[:saltBytes])
}

// CheckBook returns what is wrong with the book's inner order, or nil.
func (d *Discovery) CheckBook() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	standing := 0
	for _, table := range [][]*entry{d.book.fresh, d.book.proven} {
		for _, e := range table {
			switch {
			case e == nil:
				continue
			case d.book.byID[e.id] != e:
				return fmt.Errorf("a place holds %s, which is not known", e.id)
			case *d.book.at(e.slot) != e:
				return fmt.Errorf("%s does not know its place", e.id)
			case e.free():
				return fmt.Errorf("%s needs no place", e.id)
			}
			standing++
		}
	}
	for _, e := range d.book.byID {
		if e.free() {
			standing++
		}
	}
	if standing != len(d.book.byID) {
		return fmt.Errorf("%d entries known, %d in places or free", len(d.book.byID), standing)
	}
	return nil
}

// Known returns the addresses the book has of a peer.
func (d *Discovery) Known(id peer.ID) []ma.Multiaddr {
	d.mu.Lock()
	defer d.mu.Unlock()
	if e := d.book.byID[id]; e != nil {
		return e.addrs
	}
	return nil
}

// SaveBook writes the book if it has changed.
func (d *Discovery) SaveBook() error {
	_, err := d.saveBook()
	return err
}

// Avoided reports whether a peer is not dialled now.
func (d *Discovery) Avoided(id peer.ID) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.avoidedLocked(id, time.Now())
}

// oneRecord is a resolver that has one TXT record at every name, and one address.
type oneRecord string

func (r oneRecord) txt(context.Context, string) ([]string, error) { return []string{string(r)}, nil }

func (r oneRecord) ip(context.Context, string, uint16) ([]netip.Addr, error) {
	return []netip.Addr{netip.MustParseAddr("10.0.0.1")}, nil
}

// ResolveRecord resolves a seed that has one TXT record.
func ResolveRecord(ctx context.Context, record string) (map[peer.ID][]ma.Multiaddr, int, error) {
	out, err := resolveSeed(ctx, oneRecord(record), ma.StringCast("/dnsaddr/x.test"), 9333)
	return out.peers, out.found, err
}

// BareAddresses resolves a seed and returns how many addresses without a peer id would be asked who is there.
func BareAddresses(ctx context.Context, servers []string, seed string, port uint16) (int, error) {
	out, err := resolveSeed(ctx, serverResolver{servers}, ma.StringCast("/dnsaddr/"+seed), port)
	return len(out.bare), err
}

// StoredProviders returns how many records of the rendezvous key are in the
// datastore; kad-dht has flushed its own buffer when Run has returned.
func (d *Discovery) StoredProviders() int {
	d.providers.mu.Lock()
	defer d.providers.mu.Unlock()
	if m := d.providers.keys[d.providers.own]; m != nil {
		return len(m.records)
	}
	return 0
}

// Limits and codec of peer exchange.
const (
	MaxRecords     = maxRecords
	MaxRecordBytes = maxRecordBytes
	AskBurst       = askBurst
	MaxAskers      = maxAskers
)

var (
	OpenRecord    = openRecord
	EncodeRecords = encodeRecords
	DecodeRecords = decodeRecords
	DecodeAsk     = decodeAsk
	ReadMessage   = readMessage
)

// MayAsk reports whether a question of the peer is within its limits.
func (d *Discovery) MayAsk(id peer.ID, now time.Time) bool { return d.mayAsk(id, now) }

// Tell returns the records that a peer would be told.
func (d *Discovery) Tell(now time.Time, to peer.ID, limit int) [][]byte {
	return d.tell(now, to, limit)
}

// DHTHost is the host as the DHT sees it.
func (d *Discovery) DHTHost() host.Host { return dhtHost{d.host, d} }

// Queried counts the peers that are noted as the DHT's, and the connections that are noted as being closed.
func (d *Discovery) Queried() (peers, closing int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.queried), len(d.hungUp)
}

// Describe tells what the book has of a peer.
func (d *Discovery) Describe(id peer.ID) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	e := d.book.byID[id]
	if e == nil {
		return "unknown"
	}
	return fmt.Sprintf("tried=%v proven=%v elder=%v anchor=%v tries=%d flaps=%d err=%q lastUp=%v success=%v", e.tried(), e.slot.tried(), e.elder, e.anchor, e.tries, e.flaps, e.lastErr, e.lastUp, e.success)
}

// Usable are the addresses that a network may dial.
var Usable = usable

// Limits of multicast DNS.
const (
	MaxMDNS   = maxMDNS
	MDNSBurst = mdnsBurst
)

// SetInterfaces has multicast DNS use conn in place of the machine's interfaces.
func (d *Discovery) SetInterfaces(conn mdns.Conn) {
	d.interfaces = func(open []string) (map[string]mdns.Conn, []string, error) {
		if len(open) > 0 {
			return nil, nil, nil
		}
		return map[string]mdns.Conn{"eth0": conn}, nil, nil
	}
}

// SetPunchFor changes how long a hole may take.
func (d *Discovery) SetPunchFor(t time.Duration) { d.punchFor = t }

// MDNSService is the service type of a namespace.
var MDNSService = mdnsService

// ConnectedGroup is the group for which the provider records of a peer count.
func (d *Discovery) ConnectedGroup(id peer.ID) string { return d.connectedGroup(id) }

// LetGo ends a feeler's connection if it is not needed.
func (d *Discovery) LetGo(ctx context.Context, id peer.ID) { d.letGo(ctx, id) }

// LearnAs notes what a source says of a peer.
func (d *Discovery) LearnAs(ai peer.AddrInfo, src Source) bool { return d.learn(ai, src, "") }

const MaxKadPeers = maxKadPeers

var ErrKad = errKad

// ReadKad reads messages of the DHT, as its streams hand them on, until an error.
func ReadKad(r io.Reader, most uint64) (all []byte, err error) {
	in := bufio.NewReader(r)
	for {
		b, err := readKad(in, most)
		if err != nil {
			return all, err
		}
		all = append(all, b...)
	}
}

// LaterAnswer returns a function that notes, as the answer to the question about a name of an added peer, the peer at addr. The question was asked
// when LaterAnswer was called.
func (d *Discovery) LaterAnswer(id peer.ID, addr ma.Multiaddr) func() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, n := range d.names {
		if n.added == id {
			return func() {
				d.noteAnswer(n, seedAnswer{peers: map[peer.ID][]ma.Multiaddr{id: {addr}}, found: 1})
			}
		}
	}
	return nil
}

// TellTrouble returns what tells of files that could not be written.
func (d *Discovery) TellTrouble() func(err error, now time.Time) {
	var t saveTrouble
	return func(err error, now time.Time) { d.tellTrouble(&t, err, now) }
}

// SaveTurns returns a turn of the loop that saves, with one anchor.
func (d *Discovery) SaveTurns(anchor peer.ID) func(now time.Time) {
	var s saveState
	return func(now time.Time) { d.saveTurn(&s, []savedPeer{{ID: anchor.String()}}, false, now) }
}
