package exchange

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"

	"dunlin/chain/ibd"
)

// Options configure New. Zero means the default given. Callbacks run on
// goroutines of the Exchange without any lock held; they must not block for long.
type Options struct {
	Host    host.Host // no default
	Chain   Chain     // no default; see FromChain
	ChainID string    // no default
	// Agent is told to peers, at most 64 printable ASCII characters.
	Agent    string       // default "dunlin"
	Services Services     // default ServeBlocks|ServeTxs
	Limits   ibd.Config   // MaxBlockBytes defaults to the network's
	Logger   *slog.Logger // default: discards

	Now func() time.Time // clock for the scheduler, rates and the log; default time.Now

	// TxByID returns a transaction of the mempool, serialised with witness; it
	// keeps no reference to the result. Default: the mempool is empty.
	TxByID func(id chainhash.Hash) ([]byte, bool)
	// Pending knows the blocks that are not on disk yet. Default: none.
	Pending Pending
	// List lists transactions of the mempool for others, at most MaxListItems.
	// Default: the mempool is not listed.
	List func(ListQuery) List
	// MinFeeRate is what lets a transaction into the mempool, in satoshi per 1000
	// virtual bytes, as peers are told with the tip. Default: 0, not told.
	MinFeeRate func() int64
	// Lowest returns the lowest height whose block is served. Default: 0.
	Lowest func() int32
	// Held says why the chain lets blocks wait, such as a full disk; empty: it does not.
	// It is asked some times a second. Default: never.
	Held func() string

	HelloTimeout     time.Duration // for the whole handshake; then the peer is disconnected; default 10 s
	ReplyTimeout     time.Duration // without a byte of a reply that is due; default 30 s
	WriteTimeout     time.Duration // for 64 KiB to a peer; default 20 s
	IdleTimeout      time.Duration // of an inbound headers stream between requests; default 60 s
	TipInterval      time.Duration // between tips told without a change; default 30 s; three missed: disconnected
	TipGap           time.Duration // least time between two tips told to a peer; default 1 s
	TipGrace         time.Duration // while synced: how long gossip may take to bring what a peer announced; default 500 ms
	WorkGrace        time.Duration // how long a block whose header is new is not fetched while it is in work; default 3 s
	ProgressInterval time.Duration // between progress lines while syncing; default 5 s
	IdleInterval     time.Duration // between them while a sync stands still; default 60 s
	StallAfter       time.Duration // without progress before the state is stalled; default 10 s
	QuietNetwork     time.Duration // between two log lines on one peer that is none of ours; default 1 h
	// BusyAfter is how long a request may wait for its turn before it is
	// answered busy; default 2 s.
	BusyAfter time.Duration
	// HoldFor is how long a request for parts of a block that is in work here waits for
	// them before it is answered not_yet; default 1 s: some round trips to whoever
	// has them.
	HoldFor time.Duration
	// ServeBytes bounds the memory of what is on its way out to all peers
	// together; default 64 MiB. The transactions of one largest block always fit.
	ServeBytes int64
	// MaxUpload bounds the bytes a second of blocks, headers and transactions
	// sent to all peers together, shared fairly among them; default 0: no limit. A
	// quarter of a second's worth, or one block, may go at once.
	MaxUpload int64

	// ServicesFor gives services that are for one peer only, KeepsYou for one;
	// default: none.
	ServicesFor func(id peer.ID) Services
	// OnHello is called when a peer's hello is complete.
	OnHello func(Peer)
	// OnGone is called when a peer that OnHello told has gone.
	OnGone func(id peer.ID)
	// OnWrongNetwork is called when a peer turned out to be of another network,
	// with its genesis. It has been disconnected.
	OnWrongNetwork func(id peer.ID, genesis chainhash.Hash)
	// OnStranger is called when a peer has been connected for HelloTimeout without a hello and
	// does not serve the protocol either: it takes part in the network's libp2p protocols only. It has
	// been disconnected. A peer that is merely slow is disconnected without this.
	OnStranger func(id peer.ID)
	// OnBlame is called when a peer provably misbehaved: it has been disconnected
	// and should be avoided.
	OnBlame func(id peer.ID, reason string)
}

func orDefault[T comparable](v *T, d T) {
	var zero T
	if *v == zero {
		*v = d
	}
}

// withDefaults fills what is zero and reports every fault at once.
func (o Options) withDefaults() (Options, error) {
	var errs []error
	fault := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if o.Host == nil {
		fault("host: missing")
	}
	if o.Chain == nil {
		fault("chain: missing")
	}
	if o.ChainID == "" {
		fault("chain id: missing")
	} else if !isHello(HelloID(o.ChainID)) {
		fault("chain id %q: want 1 to 119 characters without a slash", o.ChainID)
	}
	if o.Agent != printable([]byte(o.Agent), maxAgentBytes) {
		fault("agent %q: want at most %d printable ASCII characters", o.Agent, maxAgentBytes)
	}
	for _, d := range []struct {
		name  string
		value *time.Duration
		unset time.Duration
	}{
		{"hello timeout", &o.HelloTimeout, 10 * time.Second},
		{"reply timeout", &o.ReplyTimeout, 30 * time.Second},
		{"write timeout", &o.WriteTimeout, 20 * time.Second},
		{"idle timeout", &o.IdleTimeout, time.Minute},
		{"tip interval", &o.TipInterval, 30 * time.Second},
		{"tip gap", &o.TipGap, time.Second},
		{"tip grace", &o.TipGrace, 500 * time.Millisecond},
		{"work grace", &o.WorkGrace, 3 * time.Second},
		{"progress interval", &o.ProgressInterval, 5 * time.Second},
		{"idle interval", &o.IdleInterval, time.Minute},
		{"stall after", &o.StallAfter, 10 * time.Second},
		{"quiet network", &o.QuietNetwork, time.Hour},
		{"busy after", &o.BusyAfter, 2 * time.Second},
		{"hold for", &o.HoldFor, time.Second},
	} {
		orDefault(d.value, d.unset)
		if *d.value < 0 {
			fault("%s %v: must be positive", d.name, *d.value)
		}
	}
	orDefault(&o.Agent, "dunlin")
	orDefault(&o.Services, ServeBlocks|ServeTxs)
	if o.ServicesFor == nil {
		o.ServicesFor = func(peer.ID) Services { return 0 }
	}
	orDefault(&o.ServeBytes, 64<<20)
	if o.MaxUpload < 0 {
		fault("max upload %d: must not be negative", o.MaxUpload)
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.TxByID == nil {
		o.TxByID = func(chainhash.Hash) ([]byte, bool) { return nil, false }
	}
	if o.Pending == nil {
		o.Pending = nothingPending{}
	}
	if o.List != nil {
		o.Services |= ServeList
	}
	if o.MinFeeRate == nil {
		o.MinFeeRate = func() int64 { return 0 }
	}
	if o.Lowest == nil {
		o.Lowest = func() int32 { return 0 }
	}
	if o.Held == nil {
		o.Held = func() string { return "" }
	}
	if o.OnHello == nil {
		o.OnHello = func(Peer) {}
	}
	if o.OnGone == nil {
		o.OnGone = func(peer.ID) {}
	}
	if o.OnWrongNetwork == nil {
		o.OnWrongNetwork = func(peer.ID, chainhash.Hash) {}
	}
	if o.OnStranger == nil {
		o.OnStranger = func(peer.ID) {}
	}
	if o.OnBlame == nil {
		o.OnBlame = func(peer.ID, string) {}
	}
	if o.Chain != nil {
		largest := int64(o.Chain.Params().MaxBlockBytes())
		orDefault(&o.Limits.MaxBlockBytes, largest)
		if largest > MaxReplyBytes {
			fault("largest block of the network %d bytes: a reply carries at most %d", largest, MaxReplyBytes)
		}
		if o.ServeBytes < largest {
			fault("serve bytes %d: must hold the largest block of %d", o.ServeBytes, largest)
		}
	}
	// The defaults of ibd.Config, which this package enforces on the wire.
	orDefault(&o.Limits.MaxRequestsPerPeer, MaxServedRequests)
	orDefault(&o.Limits.MaxBytesPerPeer, MaxReplyBytes)
	orDefault(&o.Limits.MaxRequests, 128)
	orDefault(&o.Limits.MaxBytes, 64<<20)
	orDefault(&o.Limits.MaxCount, MaxBlocksRequest)
	orDefault(&o.Limits.Window, 16_384)
	return o, errors.Join(errs...)
}
