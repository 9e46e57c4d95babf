package discovery

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/core/record"
	ma "github.com/multiformats/go-multiaddr"
	"golang.org/x/time/rate"
	"google.golang.org/protobuf/encoding/protowire"
)

// Limits of peer exchange, <Namespace>/peers/1.
const (
	// A reply has at most so many records of so many bytes: less than one full page of
	// Bitcoin's addr message, enough to fill MaxOutbound several times over.
	maxRecords     = 64
	maxRecordBytes = 1024
	maxReplyBytes  = maxRecords * (maxRecordBytes + 4)
	maxAskBytes    = 64

	// A peer may ask twice at once and then every half minute; all peers together so
	// often a second.
	askEvery    = 30 * time.Second
	askBurst    = 2
	askAllEvery = 20 * time.Millisecond
	askAllBurst = 100
	maxAskers   = 4096
	// When there are so many who asked, those who may ask anew are looked for so often: names cost nothing.
	sweepAskersEvery = time.Second

	// Everyone is shown the same sample for so long: asking again and again, under
	// whatever names, shows no more of whom we know.
	sampleFor = 10 * time.Minute
	// A peer is told to others until so long after it was last seen.
	tellFor = 3 * time.Hour

	// We ask each peer that we dialled once, and then one of them so often.
	askPeersEvery = 15 * time.Minute
	askTimeout    = 10 * time.Second
	maxAsks       = 4 // at once
	maxToAsk      = 64
)

// peerExchange is the state of <Namespace>/peers/1; Discovery's lock guards it.
type peerExchange struct {
	askers    map[peer.ID]*rate.Limiter
	swept     time.Time // when those who need no memory were last forgotten
	all       *rate.Limiter
	sample    [][]byte
	sampledAt time.Time
	sampledOf int // peers that could be told then
	toAsk     chan peer.ID

	refused uint64 // questions over the limit
	bad     uint64 // records that did not verify
}

// askPeersSoon queues a peer to be asked whom it knows.
func (d *Discovery) askPeersSoon(id peer.ID) {
	select {
	case d.px.toAsk <- id:
	default:
	}
}

// exchangeLoop answers and asks until ctx ends.
func (d *Discovery) exchangeLoop(ctx context.Context) {
	var work sync.WaitGroup
	defer work.Wait()
	var serving sync.Mutex // held while it is decided whether a handler may start
	closed := false
	d.host.SetStreamHandler(d.peersID, func(s network.Stream) {
		serving.Lock()
		if closed {
			serving.Unlock()
			_ = s.Reset()
			return
		}
		work.Add(1)
		serving.Unlock()
		defer work.Done()
		stop := atEnd(ctx, func() { _ = s.Reset() })
		defer stop()
		d.answerPeers(s)
	})
	defer func() {
		d.host.RemoveStreamHandler(d.peersID)
		serving.Lock()
		closed = true
		serving.Unlock()
	}()

	slots := make(chan struct{}, maxAsks)
	start := func(id peer.ID) bool {
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			return false
		}
		work.Go(func() {
			defer func() { <-slots }()
			if err := d.askPeers(ctx, id); err != nil && ctx.Err() == nil {
				d.log.Debug("peer exchange failed", slog.String("peer", id.String()), slog.String("reason", cause(err)))
			}
		})
		return true
	}
	ticker := time.NewTicker(askPeersEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case id := <-d.px.toAsk:
			if !start(id) {
				return
			}
		case <-ticker.C:
			if id, ok := d.someOutbound(); ok && !start(id) {
				return
			}
		}
	}
}

// someOutbound picks a connected peer that we dialled.
func (d *Discovery) someOutbound() (peer.ID, bool) {
	var out []peer.ID
	for id, dialled := range d.links().peers {
		if dialled {
			out = append(out, id)
		}
	}
	if len(out) == 0 {
		return "", false
	}
	return out[rand.IntN(len(out))], true
}

// askPeers asks one peer whom it knows and learns what it says.
func (d *Discovery) askPeers(ctx context.Context, id peer.ID) error {
	records, from, err := ask(ctx, d.host, d.peersID, id)
	if err != nil {
		return err
	}
	infos, bad := openRecords(records, d.verified)
	// Each record is signed by the peer that it is of, so a teller can choose whom to name, but not send us to
	// addresses that are not theirs. What one IP group tells has its own places in the book.
	told := groupOf(from)
	if d.opts.Private {
		told = ""
	}
	fresh := false
	for _, ai := range infos {
		fresh = d.learn(ai, SourcePeers, told) || fresh
	}
	d.mu.Lock()
	d.px.bad += bad
	d.mu.Unlock()
	if fresh {
		d.poke()
	}
	return nil
}

// AskPeers asks a connected peer of the network whom it knows (<namespace>/peers/1), for programs
// that are no [Discovery], such as crawlers. It needs no Run, does not dial, and blocks for 10 s at most. The answer has
// at most 64 peers, each of which signed its addresses itself; they may be unspecified or private, see
// [Dialable].
func AskPeers(ctx context.Context, h host.Host, namespace string, id peer.ID) ([]peer.AddrInfo, error) {
	records, _, err := ask(ctx, h, protocol.ID(namespace+"/peers/1"), id)
	if err != nil {
		return nil, fmt.Errorf("ask %s for peers: %w", id, err)
	}
	infos, _ := openRecords(records, nil)
	return infos, nil
}

// ask returns the records that a peer tells, unverified, and its address.
func ask(ctx context.Context, h host.Host, proto protocol.ID, id peer.ID) (records [][]byte, from ma.Multiaddr, err error) {
	ctx, cancel := context.WithTimeout(network.WithNoDial(ctx, "peer exchange"), askTimeout)
	defer cancel()
	s, err := h.NewStream(ctx, id, proto)
	if err != nil {
		return nil, nil, err
	}
	defer s.Reset()
	deadline, _ := ctx.Deadline()
	if err := s.SetDeadline(deadline); err != nil {
		return nil, nil, err
	}
	stop := atEnd(ctx, func() { _ = s.Reset() })
	defer stop()
	body := protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.VarintType), maxRecords)
	if _, err := s.Write(append(binary.AppendUvarint(nil, uint64(len(body))), body...)); err != nil {
		return nil, nil, err
	}
	if err := s.CloseWrite(); err != nil {
		return nil, nil, err
	}
	reply, err := readMessage(s, maxReplyBytes)
	if err != nil {
		return nil, nil, err
	}
	records, err = decodeRecords(reply)
	return records, s.Conn().RemoteMultiaddr(), err
}

// verified reports whether a record is, byte for byte, the one that its peer sent us itself. In a small network
// everybody tells of those whom we are connected with, and checking all those signatures again was a tenth of a
// starting node's CPU time.
func (d *Discovery) verified(id peer.ID, b []byte) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	e := d.book.byID[id]
	return e != nil && e.record != nil && bytes.Equal(e.record, b)
}

// openRecords verifies records, but for those of which verified (which may be nil) says that it was done, and counts
// those that are no good.
func openRecords(records [][]byte, verified func(peer.ID, []byte) bool) (infos []peer.AddrInfo, bad uint64) {
	for _, b := range records {
		ai, err := openRecord(b, verified)
		if err != nil {
			bad++
			continue
		}
		infos = append(infos, ai)
	}
	return infos, bad
}

// openRecord verifies a signed peer record (libp2p RFC 0003).
func openRecord(b []byte, verified func(peer.ID, []byte) bool) (peer.AddrInfo, error) {
	if verified != nil {
		var rec peer.PeerRecord
		if env, err := record.UnmarshalEnvelope(b); err == nil && rec.UnmarshalRecord(env.RawPayload) == nil && verified(rec.PeerID, b) {
			return peer.AddrInfo{ID: rec.PeerID, Addrs: rec.Addrs}, nil
		}
	}
	env, rec, err := record.ConsumeEnvelope(b, peer.PeerRecordEnvelopeDomain)
	if err != nil {
		return peer.AddrInfo{}, err
	}
	p, ok := rec.(*peer.PeerRecord)
	if !ok {
		return peer.AddrInfo{}, errors.New("not a peer record")
	}
	if !p.PeerID.MatchesPublicKey(env.PublicKey) {
		return peer.AddrInfo{}, errors.New("signed by another peer")
	}
	if len(p.Addrs) == 0 {
		return peer.AddrInfo{}, errors.New("no address")
	}
	return peer.AddrInfo{ID: p.PeerID, Addrs: p.Addrs}, nil
}

// atEnd calls f when ctx ends, unless stop is called before. When stop returns, f has returned or will not be called: context.AfterFunc
// has a goroutine of its own for f, which nobody else waits for. stop may be called once.
func atEnd(ctx context.Context, f func()) (stop func()) {
	done := make(chan struct{})
	cancel := context.AfterFunc(ctx, func() {
		defer close(done)
		f()
	})
	return func() {
		if !cancel() {
			<-done
		}
	}
}

// answerPeers serves one question.
func (d *Discovery) answerPeers(s network.Stream) {
	now := time.Now()
	if !d.mayAsk(s.Conn().RemotePeer(), now) || s.SetDeadline(now.Add(askTimeout)) != nil {
		_ = s.Reset()
		return
	}
	ask, err := readMessage(s, maxAskBytes)
	if err != nil {
		_ = s.Reset()
		return
	}
	limit, err := decodeAsk(ask)
	if err != nil {
		_ = s.Reset()
		return
	}
	reply := encodeRecords(d.tell(now, s.Conn().RemotePeer(), limit))
	if _, err := s.Write(reply); err != nil {
		_ = s.Reset()
		return
	}
	_ = s.Close()
}

// mayAsk reports whether a question of the peer is within its limits.
func (d *Discovery) mayAsk(id peer.ID, now time.Time) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	x := &d.px
	t := x.askers[id]
	if t == nil {
		if len(x.askers) >= maxAskers && now.Sub(x.swept) >= sweepAskersEvery {
			x.swept = now
			for p, old := range x.askers { // those who may ask anyhow need no memory
				if old.TokensAt(now) >= askBurst {
					delete(x.askers, p)
				}
			}
		}
		if len(x.askers) >= maxAskers {
			x.refused++
			return false
		}
		t = rate.NewLimiter(rate.Every(askEvery), askBurst)
		x.askers[id] = t
	}
	if !t.AllowN(now, 1) || !x.all.AllowN(now, 1) {
		x.refused++
		return false
	}
	return true
}

// tell returns at most limit signed records of peers of our network, never that of the
// one who asks.
func (d *Discovery) tell(now time.Time, to peer.ID, limit int) [][]byte {
	connected := d.links().peers
	d.mu.Lock()
	defer d.mu.Unlock()
	x := &d.px
	var known []*entry
	for _, e := range d.book.byID {
		_, here := connected[e.id]
		if e.record != nil && !d.avoidedLocked(e.id, now) && (here || now.Sub(e.seen) < tellFor) {
			known = append(known, e)
		}
	}
	// Of few, all are told, so there is nothing to hide; and in a network that is just starting the
	// first sample would be of one or two.
	few := len(known) <= maxRecords/4 && len(known) != x.sampledOf
	if x.sampledAt.IsZero() || now.Sub(x.sampledAt) >= sampleFor || few || len(known) > 2*x.sampledOf {
		x.sampledAt, x.sampledOf, x.sample = now, len(known), nil
		rand.Shuffle(len(known), func(i, j int) { known[i], known[j] = known[j], known[i] })
		// A quarter of those whom we know, as Bitcoin Core, but of few all.
		n := min(max(len(known)/4, maxRecords/4), maxRecords, len(known))
		for _, e := range known[:n] {
			x.sample = append(x.sample, e.record)
		}
	}
	out := make([][]byte, 0, min(limit, len(x.sample)))
	for _, r := range x.sample {
		if e := d.book.byID[to]; len(out) < limit && (e == nil || !slices.Equal(e.record, r)) {
			out = append(out, r)
		}
	}
	return out
}

// keepRecordLocked keeps the signed record that a peer sent by identify (which alone has it:
// libp2p does not put it into the peerstore), to be told to others. The caller holds mu.
func (d *Discovery) keepRecordLocked(e *entry, env *record.Envelope) {
	if env == nil {
		return
	}
	b, err := env.Marshal()
	if err != nil || len(b) > maxRecordBytes {
		return
	}
	ai, err := openRecord(b, nil)
	if err != nil || ai.ID != e.id {
		return
	}
	if keep, _ := usable(ai.Addrs, d.opts.Private); len(keep) > 0 {
		e.record = b
	}
}

// readMessage reads one message with its length before it, and allocates for no more
// than limit bytes.
func readMessage(r io.Reader, limit int) ([]byte, error) {
	br := bufio.NewReaderSize(r, 512)
	n, err := binary.ReadUvarint(br)
	if err != nil {
		return nil, err
	}
	if n > uint64(limit) {
		return nil, fmt.Errorf("a message of %d bytes, the limit is %d", n, limit)
	}
	b := make([]byte, n)
	_, err = io.ReadFull(br, b)
	return b, err
}

// decodeAsk returns how many records a peer wants.
func decodeAsk(b []byte) (int, error) {
	limit := maxRecords
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return 0, protowire.ParseError(n)
		}
		b = b[n:]
		if num == 1 && typ == protowire.VarintType {
			v, n := protowire.ConsumeVarint(b)
			if n < 0 {
				return 0, protowire.ParseError(n)
			}
			b = b[n:]
			limit = int(min(v, maxRecords)) //nolint:gosec // at most maxRecords
			continue
		}
		if n = protowire.ConsumeFieldValue(num, typ, b); n < 0 {
			return 0, protowire.ParseError(n)
		}
		b = b[n:]
	}
	return limit, nil
}

// encodeRecords makes a reply, with its length before it.
func encodeRecords(records [][]byte) []byte {
	var body []byte
	for _, r := range records {
		body = protowire.AppendBytes(protowire.AppendTag(body, 1, protowire.BytesType), r)
	}
	return append(binary.AppendUvarint(nil, uint64(len(body))), body...)
}

// decodeRecords returns the records of a reply. Too many of them, or too long ones, are a
// fault.
func decodeRecords(b []byte) (records [][]byte, err error) {
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return nil, protowire.ParseError(n)
		}
		b = b[n:]
		if num == 1 && typ == protowire.BytesType {
			v, n := protowire.ConsumeBytes(b)
			if n < 0 {
				return nil, protowire.ParseError(n)
			}
			if len(v) > maxRecordBytes || len(records) >= maxRecords {
				return nil, fmt.Errorf("more than %d records, or one of more than %d bytes", maxRecords, maxRecordBytes)
			}
			records = append(records, v)
			b = b[n:]
			continue
		}
		if n = protowire.ConsumeFieldValue(num, typ, b); n < 0 {
			return nil, protowire.ParseError(n)
		}
		b = b[n:]
	}
	return records, nil
}
