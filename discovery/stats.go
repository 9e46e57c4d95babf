package discovery

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"
)

// Yield is what one source has given since the start.
type Yield struct {
	Found     uint64 // peers that the book did not know
	Dialed    uint64
	Connected uint64
	Failed    uint64
}

// NameStatus is the state of a DNS seed or of an address with a DNS name.
type NameStatus struct {
	Name     string
	Source   Source
	Asked    bool
	Answered bool // the last question was answered with peers
	Peers    int
	Err      string // of the last question; empty if it was answered
}

// Advert is the state of our record in the DHT.
type Advert struct {
	At     time.Time // of the last one that worked; zero: none yet
	Sent   int       // peers the last one went to
	Held   int       // of the few asked, those that showed it
	Failed uint64    // adverts that did not work, since the start
	Err    string    // of the last one, empty if it worked
}

// Stats is a snapshot of a Discovery.
type Stats struct {
	Peers        int // connected
	Outbound     int // connected peers that we dialled, also if they dialled us too
	Inbound      int // the others
	Counted      int // of Outbound, as they count towards MaxOutbound: on a public network two of an IP group
	MaxOutbound  int
	RoutingTable int // DHT peers
	Book         int
	Tried        int // entries of the book that were reached once
	Static       int // bootstrap, persistent and added peers with a known address
	Added        int
	Avoided      int
	Feelers      uint64
	Private      map[Source]uint64 // private addresses ignored on a public network
	Names        []NameStatus
	Sources      map[Source]Yield
	Failures     map[string]uint64 // failed dials by reason, a fixed small set
	Advert       Advert
	AsksRefused  uint64 // questions of peer exchange over the limit
	BadRecords   uint64 // signed records of peer exchange that did not verify
	BadMessages  uint64 // of the DHT, which broke the limits: their streams were reset
}

// Stats returns a snapshot, which is the caller's.
func (d *Discovery) Stats() Stats {
	l := d.links()
	d.mu.Lock()
	defer d.mu.Unlock()
	s := Stats{
		Peers: len(l.peers), Outbound: l.outbound, Inbound: l.inbound, Counted: l.counted, MaxOutbound: d.opts.MaxOutbound,
		Book: len(d.book.byID), Added: len(d.added), Avoided: len(d.avoid), Feelers: d.feelers,
		Private: maps.Clone(d.hidden.total()), Sources: map[Source]Yield{}, Failures: maps.Clone(d.failures), Advert: d.advert,
		AsksRefused: d.px.refused, BadRecords: d.px.bad, BadMessages: d.badKad,
	}
	if d.table != nil {
		s.RoutingTable = d.table()
	}
	for _, e := range d.book.byID {
		if e.tried() {
			s.Tried++
		}
		if e.static {
			s.Static++
		}
	}
	for _, n := range d.names {
		s.Names = append(s.Names, NameStatus{
			Name: n.label, Source: n.source, Asked: n.asked, Answered: n.asked && n.err == "" && n.peers > 0, Peers: n.peers, Err: n.err,
		})
	}
	for src, y := range d.yield {
		s.Sources[src] = *y
	}
	return s
}

func (d *Discovery) noteAdvert(sent, held int, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.advert.Sent, d.advert.Held, d.advert.Err = sent, held, ""
	if err != nil {
		d.advert.Failed++
		d.advert.Err = err.Error()
		return
	}
	d.advert.At = time.Now()
}

// hiddenAddrs counts the private addresses that a public network ignored.
type hiddenAddrs map[Source]*hiddenCount

type hiddenCount struct{ all, told uint64 }

func (h hiddenAddrs) note(src Source, n int) {
	if h[src] == nil {
		h[src] = &hiddenCount{}
	}
	h[src].all += uint64(n) //nolint:gosec // n is a count.
}

func (h hiddenAddrs) total() map[Source]uint64 {
	out := map[Source]uint64{}
	for s, c := range h {
		out[s] = c.all
	}
	return out
}

const (
	statusEvery   = time.Minute      // at most one line in this time
	hiddenEvery   = 15 * time.Minute // what is ignored: peers can make it grow
	firstStatus   = 3 * time.Second
	lonelyAfter   = time.Minute
	maxLonelyStep = 15 * time.Minute
	maxReasons    = 5 // of one source in a line
)

// statusLoop writes the "discovery" line when something has changed, the "no peers"
// line when there are none for a while, and what was ignored.
func (d *Discovery) statusLoop(ctx context.Context) {
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	start := time.Now()
	lonelySince, lonelyNext := start, lonelyAfter
	var last string
	var lastAt, hiddenAt time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		now, s := time.Now(), d.Stats()
		if s.Peers > 0 {
			lonelySince, lonelyNext = now, lonelyAfter
		} else if alone := now.Sub(lonelySince); alone >= lonelyNext {
			d.noPeers(s, alone)
			lonelyNext = alone + min(alone, maxLonelyStep)
		}
		dns := s.answered()
		key := fmt.Sprint(dns, s.Static, s.Peers, s.Outbound, s.Counted)
		if key != last && now.Sub(start) >= firstStatus && (lastAt.IsZero() || now.Sub(lastAt) >= statusEvery) {
			last, lastAt = key, now
			dialed := uint64(0)
			for _, y := range s.Sources {
				dialed += y.Dialed
			}
			d.log.Info("discovery", slog.String("dns", dns), slog.Int("book", s.Book), slog.Int("static", s.Static),
				slog.Uint64("dht", s.Sources[SourceDHT].Found), slog.Int("routing_table", s.RoutingTable), slog.Uint64("dialed", dialed),
				slog.Int("connected", s.Peers), slog.Int("outbound", s.Outbound), slog.Int("counted", s.Counted), slog.Int("max_outbound", s.MaxOutbound))
		}
		if now.Sub(hiddenAt) >= hiddenEvery && d.tellHidden() {
			hiddenAt = now
		}
	}
}

// answered is "2/3": of three seeds two gave peers.
func (s Stats) answered() string {
	ok, all := 0, 0
	for _, n := range s.Names {
		if n.Source == SourceDNS {
			all++
			if n.Answered {
				ok++
			}
		}
	}
	return fmt.Sprintf("%d/%d", ok, all)
}

// tellHidden logs what was ignored, and dialled in spite of being private, since the
// last call. It reports whether there was anything.
func (d *Discovery) tellHidden() bool {
	d.mu.Lock()
	mention, counts := d.mention, map[Source]uint64{}
	d.mention = nil
	for src, c := range d.hidden {
		if c.all > c.told {
			counts[src] = c.all - c.told
			c.told = c.all
		}
	}
	d.mu.Unlock()
	for _, src := range slices.Sorted(maps.Keys(counts)) {
		d.log.Warn("ignored private addresses: this network is public", slog.Uint64("count", counts[src]), slog.String("source", string(src)))
	}
	if len(mention) > 0 {
		d.log.Info("dialling private addresses on a public network, as configured", slog.Int("count", len(mention)),
			slog.String("addrs", strings.Join(mention[:min(len(mention), maxReasons)], " ")))
	}
	return len(counts)+len(mention) > 0
}

// noPeers says why there are none, source by source.
func (d *Discovery) noPeers(s Stats, alone time.Duration) {
	var names, static []string
	configured := len(s.Names) > 0 || s.Static > 0
	for _, n := range s.Names {
		switch {
		case len(names) >= maxReasons:
		case n.Err != "":
			names = append(names, n.Name+": "+n.Err)
		case n.Asked:
			names = append(names, fmt.Sprintf("%s: %d peers", n.Name, n.Peers))
		}
	}
	d.mu.Lock()
	entries := slices.Collect(maps.Values(d.book.byID))
	slices.SortFunc(entries, func(a, b *entry) int { return cmp.Compare(a.id, b.id) })
	for _, e := range entries {
		if e.static && e.lastErr != "" && len(static) < maxReasons {
			static = append(static, e.lastErr)
		}
	}
	d.mu.Unlock()
	attrs := []any{slog.Int("for_s", int(alone.Seconds()))}
	if len(names) > 0 {
		attrs = append(attrs, slog.String("dns", strings.Join(names, "; ")))
	}
	if len(static) > 0 {
		attrs = append(attrs, slog.String("static", strings.Join(static, "; ")))
	}
	attrs = append(attrs, slog.Int("routing_table", s.RoutingTable), slog.Int("book", s.Book))
	var failed []string
	for _, r := range slices.Sorted(maps.Keys(s.Failures)) {
		failed = append(failed, fmt.Sprintf("%s=%d", r, s.Failures[r]))
	}
	if len(failed) > 0 {
		attrs = append(attrs, slog.String("failed_dials", strings.Join(failed, " ")))
	}
	if !configured && s.Book == 0 {
		attrs = append(attrs, slog.String("reason", "no bootstrap address, persistent peer, DNS seed or saved peer; waiting to be dialled"))
	}
	d.log.Warn("no peers", attrs...)
}
