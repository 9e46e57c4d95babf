package exchange

import (
	"log/slog"
	"time"
)

// State says what a node does to keep up with its peers.
type State string

// The states, as status and API name them.
const (
	Starting   State = "starting"   // the chain replays what it has on disk
	Connecting State = "connecting" // no peer whose hello is complete
	Headers    State = "headers"    // a peer has a better chain; its headers are being fetched
	Blocks     State = "blocks"     // the best header chain's blocks are being fetched and validated
	Synced     State = "synced"     // no peer has a better header chain, and ours is validated
	Stalled    State = "stalled"    // behind, and nothing has come or been validated for a while; Reason says why
)

// SyncStatus is one snapshot for log, API and metrics.
type SyncStatus struct {
	State         State
	Reason        string // why nothing moves; empty while all is well
	Height        int32  // validated tip
	HeaderHeight  int32  // best header chain
	Target        int32  // the better of HeaderHeight and what the best peer claims
	Percent       float64
	BlocksPerS    float64  // over the last minute, or since the first of this sync came
	BytesPerS     float64  // likewise, received
	ETAS          *float64 // seconds; nil unknown, as long as a minute was not measured, see eta
	BehindS       float64  // seconds from our tip's time to the best header's, or to now while headers are missing; 0 when synced
	Peers         int      // hello complete
	Serving       int      // with a request outstanding
	InFlight      int      // requests
	InFlightLimit int
	InFlightBytes int64     // promised and not yet received
	BufferedBytes int64     // received and not yet validated
	ByteLimit     int64     // of both together
	Since         time.Time // of this State
	Stalls        int       // blocks that came late in this sync
	LastStall     *Stall    // the last of them; nil: none. Not to be changed
}

// ServingStatus is a snapshot of what is done for others.
type ServingStatus struct {
	Bytes    int64 // of blocks, headers and transactions sent since the start
	Busy     int64 // requests answered busy since the start
	Dropped  int64 // streams reset since the start because their peer did not read and others waited for the room
	Waiting  int   // requests that wait for their turn
	Streams  int   // with a reply under way
	OutBytes int64 // memory of replies under way
}

// rateWindow is how far back rates look: long enough that an ETA does not jump.
const rateWindow = 60 * time.Second

// etaAfter is how long a sync must have moved before it is told how long it will take,
// at the least; etaShort is for what will not take longer than was measured.
const (
	etaAfter = rateWindow
	etaShort = 10 * time.Second
)

// eta is the time left in seconds, nil if that is not known. Until a minute was
// measured a guess that reaches further than what was is worth nothing, and neither
// is one on which the last part of it does not agree: small blocks come first.
func eta(left, perSecond, latelyPerSecond float64, over time.Duration) *float64 {
	if over < etaAfter {
		perSecond = min(perSecond, latelyPerSecond)
	}
	if left <= 0 || perSecond <= 0 || over < etaShort {
		return nil
	}
	t := left / perSecond
	if over < etaAfter && t > over.Seconds() {
		return nil
	}
	return &t
}

// rateMeter keeps a sample a second of the last minute.
type rateMeter struct {
	samples []rateSample // ascending in time, at least one once started
}

type rateSample struct {
	at     time.Time
	height int32
	bytes  int64
}

func (m *rateMeter) reset(s rateSample) { m.samples = append(m.samples[:0], s) }

func (m *rateMeter) add(s rateSample) {
	n := len(m.samples)
	switch {
	case n == 1 && s.height == m.samples[0].height && s.bytes == m.samples[0].bytes:
		m.samples[0].at = s.at // nothing has come yet: that is no rate of zero
		return
	case n > 1 && s.at.Sub(m.samples[n-1].at) < time.Second:
		return
	}
	m.samples = append(m.samples, s)
	// Keep one sample that is a full window old.
	for len(m.samples) > 2 && s.at.Sub(m.samples[1].at) >= rateWindow {
		m.samples = m.samples[1:]
	}
}

// rates returns blocks and bytes a second up to s, and how long they were measured.
func (m *rateMeter) rates(s rateSample) (blocks, bytes float64, over time.Duration) {
	if len(m.samples) == 0 {
		return 0, 0, 0
	}
	blocks, bytes = s.since(m.samples[0])
	return blocks, bytes, max(0, s.at.Sub(m.samples[0].at))
}

// lately is blocks a second in the latter half of that time.
func (m *rateMeter) lately(s rateSample) (blocks float64) {
	if len(m.samples) == 0 {
		return 0
	}
	blocks, _ = s.since(m.samples[len(m.samples)/2])
	return blocks
}

// since returns blocks and bytes a second between two samples.
func (s rateSample) since(before rateSample) (blocks, bytes float64) {
	over := s.at.Sub(before.at).Seconds()
	if over <= 0 {
		return 0, 0
	}
	return max(0, float64(s.height-before.height)) / over, max(0, float64(s.bytes-before.bytes)) / over
}

// attrs is the progress line.
func (s *SyncStatus) attrs() []slog.Attr {
	eta := slog.String("eta", "unknown")
	if s.ETAS != nil {
		eta = slog.Duration("eta", time.Duration(*s.ETAS)*time.Second)
	}
	return []slog.Attr{
		slog.String("state", string(s.State)),
		slog.Float64("percent", float64(int(s.Percent*10))/10),
		slog.Int64("height", int64(s.Height)),
		slog.Int64("headers", int64(s.HeaderHeight)),
		slog.Int64("target", int64(s.Target)),
		slog.Int64("blocks_per_s", int64(s.BlocksPerS+0.5)),
		eta,
		slog.Duration("behind", time.Duration(s.BehindS)*time.Second),
		slog.Int("peers", s.Peers),
		slog.Int("serving", s.Serving),
		slog.Int("in_flight", s.InFlight),
		slog.Int("in_flight_limit", s.InFlightLimit),
		slog.Int64("bytes_per_s", int64(s.BytesPerS)),
		slog.String("reason", s.Reason),
	}
}
