package node

import (
	"cmp"
	"maps"
	"slices"

	"dunlin/internal/api"
	"dunlin/internal/flood"
)

// Discovery implements api.Explorer.
func (f face) Discovery() api.DiscoveryStats {
	d := f.disc.Stats()
	out := api.DiscoveryStats{
		Sources: []api.SourceYield{}, Names: []api.SeedName{}, Failures: []api.FailureCount{},
		Book: d.Book, Tried: d.Tried, Static: d.Static, Added: d.Added, Avoided: d.Avoided, RoutingTable: d.RoutingTable,
		Outbound: d.Outbound, Inbound: d.Inbound, MaxOutbound: d.MaxOutbound, Feelers: d.Feelers,
		Advert: api.DiscoveryAdvert{Sent: d.Advert.Sent, Held: d.Advert.Held, Failed: d.Advert.Failed, Error: d.Advert.Err},
	}
	if !d.Advert.At.IsZero() {
		at := d.Advert.At.UTC()
		out.Advert.At = &at
	}
	for _, source := range slices.Sorted(maps.Keys(d.Sources)) {
		y := d.Sources[source]
		out.Sources = append(out.Sources, api.SourceYield{Source: string(source), Found: y.Found, Dialed: y.Dialed, Connected: y.Connected, Failed: y.Failed})
	}
	for _, n := range d.Names {
		out.Names = append(out.Names, api.SeedName{Name: n.Name, Source: string(n.Source), Asked: n.Asked, Answered: n.Answered, Peers: n.Peers, Error: n.Err})
	}
	for reason, count := range d.Failures {
		out.Failures = append(out.Failures, api.FailureCount{Reason: reason, Count: count})
	}
	slices.SortFunc(out.Failures, func(a, b api.FailureCount) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Reason, b.Reason))
	})
	return out
}

// Gossip implements api.Explorer.
func (f face) Gossip() api.GossipStats {
	s := f.blocks.Stats()
	out := api.GossipStats{
		GossipStatus: f.gossipStatus(), Topics: []api.TopicStats{},
		Delays: api.GossipDelays{Header: histogram(s.FromHeader), FirstMessage: histogram(s.FromSight)},
	}
	for _, t := range f.gossip.Stats().Topics {
		name := "block"
		if t.Name == f.txTopic() {
			name = "tx"
		}
		out.Topics = append(out.Topics, api.TopicStats{
			Name: name, BytesIn: t.BytesIn, BytesOut: t.BytesOut,
			TopicFlow: api.TopicFlow{
				Peers: t.Peers, Mesh: t.Mesh, Accepted: t.Accepted, Ignored: orNone(t.Ignored), Rejected: orNone(t.Rejected),
				Duplicates: t.Duplicates, Throttled: t.Throttled, Dropped: t.Dropped, Published: t.Published,
			},
		})
	}
	return out
}

func histogram(d flood.Delays) api.Histogram {
	out := api.Histogram{Count: d.Count, SumS: d.Sum, Buckets: make([]api.Bucket, len(flood.Buckets))}
	for i, most := range flood.Buckets {
		out.Buckets[i].LeS = most
		if i < len(d.Within) {
			out.Buckets[i].Count = d.Within[i]
		}
	}
	return out
}
