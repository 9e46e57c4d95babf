package node

import (
	"cmp"
	"errors"
	"maps"
	"net/http"
	"slices"
	"strings"

	"dunlin/internal/api"
	"dunlin/internal/flood"
	"dunlin/internal/logs"
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

// maxAddedTxs are named in news of the mempool.
const maxAddedTxs = 50

// MempoolNews implements api.Watcher.
func (f face) MempoolNews(after uint64) (api.MempoolEvent, uint64) {
	out := api.MempoolEvent{MinFeeRate: f.pool.MinFeeRate(), Added: []api.AddedTx{}}
	out.Count, out.VBytes, out.Bytes = f.pool.Size()
	added, total, last := f.pool.Since(after, maxAddedTxs)
	for i := range added {
		e := &added[i]
		out.Added = append(out.Added, api.AddedTx{TxID: e.ID.String(), Fee: e.Fee, VSize: (e.Weight + 3) / 4, FeeRate: entryRate(e)})
	}
	out.AddedTotal = total
	return out, last
}

// Path implements api.Watcher.
func (f face) Path(from, to string, most int) (api.Path, error) {
	a, err1 := hashOf("block", from)
	b, err2 := hashOf("block", to)
	if err := errors.Join(err1, err2); err != nil {
		return api.Path{}, err
	}
	old, ok1 := f.chain.Status(a)
	now, ok2 := f.chain.Status(b)
	fork, height, ok := f.chain.Fork(a, b)
	if !ok || !ok1 || !ok2 {
		return api.Path{}, api.Errorf(http.StatusNotFound, "no way from block %s to %s", from, to)
	}
	out := api.Path{Blocks: int(now.Height - height), ReorgEvent: api.ReorgEvent{
		Depth: int(old.Height - height), ForkHeight: height, ForkHash: fork.String(),
		OldHash: from, OldHeight: old.Height, NewHash: to, NewHeight: now.Height, Disconnected: []string{}, Connected: []string{},
	}}
	for h := old.Height; h > height && len(out.Disconnected) < most; h-- {
		if hash, ok := f.chain.Ancestor(a, h); ok {
			out.Disconnected = append(out.Disconnected, hash.String())
		}
	}
	for h := max(height, now.Height-int32(most)) + 1; h <= now.Height; h++ {
		if hash, ok := f.chain.Ancestor(b, h); ok {
			out.Connected = append(out.Connected, hash.String())
		}
	}
	return out, nil
}

// LogRecords implements api.Watcher.
func (f face) LogRecords(after uint64, most int) api.LogBatch {
	if f.o.Ring == nil {
		return api.LogBatch{}
	}
	t := f.o.Ring.Since(after, most)
	out := api.LogBatch{Last: t.Last, Dropped: t.Dropped, Changed: t.Changed}
	for i := range t.Records {
		r := &t.Records[i]
		rec := api.LogRecord{
			Seq: r.Seq, Time: r.Time.UTC(), Level: logs.LevelName(r.Level), Subsystem: r.Subsystem, Message: r.Message, Text: r.Text, Attrs: []api.LogAttr{},
		}
		for _, a := range r.Attrs {
			rec.Attrs = append(rec.Attrs, api.LogAttr(a))
		}
		out.Records = append(out.Records, rec)
	}
	return out
}

// LogLevels implements api.Watcher.
func (f face) LogLevels() api.LogLevels {
	out := api.LogLevels{Levels: []api.SubsystemLevel{}, Subsystems: f.o.Levels.Known()}
	set := f.o.Levels.All()
	for _, name := range slices.Sorted(maps.Keys(set)) {
		if name == "" {
			out.Level = logs.LevelName(set[name])
			continue
		}
		out.Levels = append(out.Levels, api.SubsystemLevel{Subsystem: name, Level: logs.LevelName(set[name])})
	}
	if out.Subsystems == nil {
		out.Subsystems = []string{}
	}
	return out
}

// SetLogLevel implements api.Watcher.
func (f face) SetLogLevel(subsystem, level string) error {
	if subsystem != "" {
		known := f.o.Levels.Known()
		if !slices.Contains(known, subsystem) && subsystem != "libp2p" && !strings.HasPrefix(subsystem, "libp2p/") {
			return api.Errorf(http.StatusUnprocessableEntity, "subsystem %q has logged nothing; there are: %s", subsystem, strings.Join(known, ", "))
		}
	}
	if level == "default" {
		if subsystem == "" {
			return api.Errorf(http.StatusUnprocessableEntity, "level default is for a subsystem")
		}
		f.o.Levels.Reset(subsystem)
		f.log.Info("log level changed", "of", subsystem, "to", level)
		return nil
	}
	l, err := logs.ParseLevel(level)
	if err != nil {
		return api.Errorf(http.StatusUnprocessableEntity, "%v", err)
	}
	if err := f.o.Levels.Set(subsystem, l); err != nil {
		return api.Errorf(http.StatusUnprocessableEntity, "%v", err)
	}
	f.log.Info("log level changed", "of", cmp.Or(subsystem, "all"), "to", level)
	return nil
}
