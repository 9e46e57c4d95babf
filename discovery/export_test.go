package discovery

import (
	"context"
	"net/netip"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
)

// What the tests, which are outside the package, reach inside for.

const (
	MaxDNSResults      = maxDNSResults
	MaxProvidersPerKey = maxProvidersPerKey
	MaxKeysPerProvider = maxKeysPerProvider
	MaxProviderKeys    = maxProviderKeys
	MaxProviderRecords = maxProviderRecords
	MaxNewPerGroup     = maxNewPerGroup
	MaxAvoided         = maxAvoided
	MaxFileBytes       = maxFileBytes
	ProviderStaleAfter = providerStaleAfter
)

var (
	ErrNoPeerIDs     = errNoPeerIDs
	NewProviderStore = newProviderStore
	RendezvousKey    = rendezvousKey
	ProviderKey      = providerKey
	ReadLines        = readLines
	WriteLines       = writeLines
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
	out, err := resolveSeed(ctx, serverResolver{servers}, a)
	return out.peers, out.found, err
}

// Learn notes a peer in the book as if src had named it at the given time.
func (d *Discovery) Learn(now time.Time, ai peer.AddrInfo, src Source) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	addrs, _ := usable(ai.Addrs, d.opts.Private)
	d.bookDirty = true
	e, _ := d.book.learn(now, ai.ID, addrs, src)
	return e != nil
}

// Reached notes that a peer answered at addrs.
func (d *Discovery) Reached(now time.Time, ai peer.AddrInfo) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.bookDirty = true
	return d.book.reached(now, ai.ID, ai.Addrs, SourceDHT, true) != nil
}

// Failed notes n dials of a peer that did not work.
func (d *Discovery) Failed(now time.Time, id peer.ID, n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for range n {
		d.book.byID[id].failed(now, "refused")
	}
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
	if peers, dirty := d.snapshot(); dirty {
		return d.save(bookFile, peers)
	}
	return nil
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
	out, err := resolveSeed(ctx, oneRecord(record), ma.StringCast("/dnsaddr/x.test"))
	return out.peers, out.found, err
}

// StoredProviders returns how many records of the rendezvous key are in the
// datastore; kad-dht has flushed its own buffer when Run has returned.
func (d *Discovery) StoredProviders() int {
	d.providers.mu.Lock()
	defer d.providers.mu.Unlock()
	return len(d.providers.keys[d.providers.own])
}
