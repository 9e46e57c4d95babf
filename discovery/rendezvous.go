package discovery

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ipfs/go-cid"
	dht "github.com/libp2p/go-libp2p-kad-dht"
	kadpb "github.com/libp2p/go-libp2p-kad-dht/pb"
	"github.com/libp2p/go-libp2p-kad-dht/records"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	ma "github.com/multiformats/go-multiaddr"
	mh "github.com/multiformats/go-multihash"
)

const (
	// Records and their addresses live for 45 min and are republished every 10: a
	// node that is gone is forgotten within the hour (kad-dht's own 48 h and 24 h
	// would keep the dead for days), and three republishes may fail.
	providerTTL    = 45 * time.Minute
	republishEvery = 10 * time.Minute

	advertiseTimeout = 30 * time.Second
	putTimeout       = 5 * time.Second
	checkTimeout     = 3 * time.Second
	maxChecks        = 3 // peers asked whether they hold our record

	findTimeout = 15 * time.Second
	maxFound    = 256 // results taken from one search
	// Adverts that fail in a row before an operator hears of it: about half a minute.
	tellAdvertAfter = 6
	// From this many peers on, a search is no hurry.
	minPeers = 4
)

// advertiseAfter are the pauses after the adverts that worked; the last one stays.
// The first ones reach the peers that have joined meanwhile.
var advertiseAfter = []time.Duration{2 * time.Second, 10 * time.Second, 30 * time.Second, republishEvery}

// Rendezvous is the key under which the nodes of a network stand in its DHT, for programs that are no [Discovery], such as
// crawlers and tests; namespace is that of Options.
func Rendezvous(namespace string) (cid.Cid, error) { return rendezvousKey(namespace + "/full") }

// rendezvousKey is what routing discovery makes of a namespace.
func rendezvousKey(namespace string) (cid.Cid, error) {
	h, err := mh.Sum([]byte(namespace), mh.SHA2_256, -1)
	if err != nil {
		return cid.Undef, err
	}
	return cid.NewCidV1(cid.Raw, h), nil
}

// startDHT makes the DHT, which runs until its Close.
func (d *Discovery) startDHT() (*dht.IpfsDHT, error) {
	opts := []dht.Option{
		dht.ProtocolPrefix(protocol.ID(d.opts.Namespace)),
		dht.DisableValues(),
		dht.ProviderDatastore(d.providers),
		dht.ProviderManagerOpts(
			records.ProvideValidity(providerTTL),
			records.ProviderAddrTTL(providerTTL),
			records.CleanupInterval(republishEvery),
			records.Cache(noCache{}),
		),
		dht.AddressFilter(func(addrs []ma.Multiaddr) []ma.Multiaddr {
			keep, _ := usable(addrs, d.opts.Private)
			return keep
		}),
	}
	h := dhtHost{d.host, d}
	avoided := func(id peer.ID) bool {
		d.mu.Lock()
		defer d.mu.Unlock()
		return d.avoidedLocked(id, time.Now())
	}
	if d.opts.Private {
		// Automatic mode never becomes a server without a public address, and nobody
		// would answer; an IP diversity filter would refuse a testnet on one machine.
		return dht.New(h, append(opts, dht.Mode(dht.ModeServer),
			dht.QueryFilter(func(_ any, ai peer.AddrInfo) bool { return !avoided(ai.ID) }),
			dht.RoutingTableFilter(func(_ any, p peer.ID) bool { return !avoided(p) }),
		)...)
	}
	return dht.New(h, append(opts, dht.Mode(dht.ModeAutoServer),
		dht.QueryFilter(func(x any, ai peer.AddrInfo) bool { return !avoided(ai.ID) && dht.PublicQueryFilter(x, ai) }),
		dht.RoutingTableFilter(func(x any, p peer.ID) bool { return !avoided(p) && dht.PublicRoutingTableFilter(x, p) }),
		// The numbers of kad-dht's own dual DHT.
		dht.RoutingTablePeerDiversityFilter(dht.NewRTPeerDiversityFilter(d.host, 2, 3)),
	)...)
}

// waitTable blocks until the routing table is not empty. It reports whether ctx is
// still alive.
func (d *Discovery) waitTable(ctx context.Context, kad *dht.IpfsDHT) bool {
	for pause := 20 * time.Millisecond; kad.RoutingTable().Size() == 0; pause = min(2*pause, 500*time.Millisecond) {
		// A peer enters the table some round trips after it connected, without an event.
		if !sleep(ctx, pause) {
			return false
		}
	}
	return ctx.Err() == nil
}

// advertiseLoop keeps our provider record in the DHT.
func (d *Discovery) advertiseLoop(ctx context.Context, kad *dht.IpfsDHT) {
	good, bad := 0, 0
	var told time.Time
	for d.waitTable(ctx, kad) {
		stored, held, err := d.advertise(ctx, kad)
		if ctx.Err() != nil {
			return
		}
		d.noteAdvert(stored, held, err)
		pause := advertiseAfter[min(good, len(advertiseAfter)-1)]
		if err != nil {
			pause = min(time.Second<<min(bad, 6)*3/4, 30*time.Second)
			bad++
			d.log.Debug("advert failed", slog.Int("sent", stored), slog.Int("held", held), slog.Any("error", err))
			if bad >= tellAdvertAfter && time.Since(told) > time.Hour {
				told = time.Now()
				d.log.Warn("others cannot find us in the DHT", slog.Int("attempts", bad), slog.Any("error", err))
			}
		} else {
			good, bad = good+1, 0
		}
		if !sleep(ctx, jitter(pause)) {
			return
		}
	}
}

// advertise stores our provider record with the peers closest to the key. It does
// what kad-dht's Provide does, but knows who took it: Provide returns nil even if
// nobody did. sent is the number of peers it went to, held how many of the asked
// sample showed it when asked; ADD_PROVIDER itself has no answer.
func (d *Discovery) advertise(ctx context.Context, kad *dht.IpfsDHT) (sent, held int, err error) {
	ctx, cancel := context.WithTimeout(ctx, advertiseTimeout)
	defer cancel()
	key := d.key.Hash()
	self := peer.AddrInfo{ID: d.self, Addrs: kad.FilteredAddrs()}
	if len(self.Addrs) == 0 {
		return 0, 0, errors.New("we have no address that others could dial")
	}
	closest, err := kad.GetClosestPeers(ctx, string(key))
	if err != nil && len(closest) == 0 {
		return 0, 0, fmt.Errorf("look up the closest peers: %w", err)
	}
	if len(closest) == 0 {
		return 0, 0, errors.New("no peer near the key")
	}
	if err := kad.ProviderStore().AddProvider(ctx, key, peer.AddrInfo{ID: self.ID}); err != nil {
		return 0, 0, fmt.Errorf("own record: %w", err)
	}
	pm, err := kadpb.NewProtocolMessenger(kad.MessageSender())
	if err != nil {
		return 0, 0, err
	}
	var took atomic.Int64
	var wg sync.WaitGroup
	for _, p := range closest {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, putTimeout)
			defer cancel()
			if pm.PutProviderAddrs(ctx, p, key, self) == nil {
				took.Add(1)
			}
		})
	}
	wg.Wait()
	sent = int(took.Load())
	if sent == 0 {
		return 0, 0, fmt.Errorf("none of %d peers took the record", len(closest))
	}
	var holds atomic.Int64
	rand.Shuffle(len(closest), func(i, j int) { closest[i], closest[j] = closest[j], closest[i] })
	for _, p := range closest[:min(len(closest), maxChecks)] {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, checkTimeout)
			defer cancel()
			provs, _, err := pm.GetProviders(ctx, p, key)
			for _, ai := range provs {
				if err == nil && ai.ID == self.ID {
					holds.Add(1)
					return
				}
			}
		})
	}
	wg.Wait()
	if held = int(holds.Load()); held == 0 {
		return sent, 0, fmt.Errorf("sent to %d peers, but none of those asked shows the record", sent)
	}
	return sent, held, nil
}

// findLoop searches the rendezvous for peers: quickly while there are few, then
// with growing pauses, and again at once when one is lost.
func (d *Discovery) findLoop(ctx context.Context, kad *dht.IpfsDHT) {
	for k := 0; d.waitTable(ctx, kad); k++ {
		fresh := d.find(ctx, kad)
		l := d.links()
		if l.counted >= d.opts.MaxOutbound {
			k = 10
		} else if fresh > 0 {
			k = min(k, 3) // there is more to be had
		}
		pause := min(250*time.Millisecond<<min(k, 12), republishEvery)
		if l.counted < d.opts.MaxOutbound {
			pause = min(pause, time.Minute)
		}
		if len(l.peers) < minPeers {
			kad.RefreshRoutingTable()
			pause = min(pause, 10*time.Second)
		}
		timer := time.NewTimer(jitter(pause))
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		case <-d.lost:
			timer.Stop()
			k = 0
			if !sleep(ctx, jitter(500*time.Millisecond)) { // a flapping peer must not make us search without end
				return
			}
		}
	}
}

// find makes one search and returns how many peers the book did not know.
func (d *Discovery) find(ctx context.Context, kad *dht.IpfsDHT) (fresh int) {
	ctx, cancel := context.WithTimeout(ctx, findTimeout)
	defer cancel()
	// No count: with one, kad-dht skips the network when its own records are enough.
	results := 0
	for ai := range kad.FindProvidersAsync(ctx, d.key, 0) {
		if ai.ID == d.self || len(ai.Addrs) == 0 {
			continue
		}
		if results++; results > maxFound {
			cancel() // the channel is closed soon; what still comes is dropped
			continue
		}
		if d.learn(ai, SourceDHT, "") {
			fresh++
			d.poke()
		}
	}
	return fresh
}

// jitter spreads a pause over 75 % to 100 % of it, so that daemons that were started together do not
// act together.
func jitter(pause time.Duration) time.Duration {
	return pause*3/4 + rand.N(pause/4+1)
}

// sleep waits for pause and reports whether ctx is still alive.
func sleep(ctx context.Context, pause time.Duration) bool {
	t := time.NewTimer(pause)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
