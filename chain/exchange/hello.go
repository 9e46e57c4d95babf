package exchange

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"
	"golang.org/x/time/rate"
)

// maxHellos bounds the live hello streams of one peer: one each way when both
// dialled at the same time, and one that is about to break.
const maxHellos = 3

// errOtherNetwork and the like say why a hello was not accepted.
var (
	errOtherNetwork = errors.New("another network")
	errVersion      = errors.New("version not supported")
	errSelf         = errors.New("connected to ourselves")
	errCrowded      = errors.New("too many hello streams")
)

// noticed is libp2p's call on a new connection: it must not block.
func (x *Exchange) noticed(c network.Conn) {
	if c.Stat().Limited {
		return // a relayed connection carries no blocks
	}
	select {
	case x.conns <- c.RemotePeer():
	default:
		x.rescanSoon()
	}
}

func (x *Exchange) rescanSoon() {
	select {
	case x.rescan <- struct{}{}:
	default:
	}
}

// watch greets each peer that we dialled and disconnects whoever has not
// completed a hello in time, until ctx ends.
func (x *Exchange) watch(ctx context.Context) {
	due := make(map[peer.ID]time.Time) // connected peers without a hello; as many as there are connections
	every := min(time.Second, max(x.o.HelloTimeout/8, time.Millisecond))
	tick := time.NewTicker(every)
	defer tick.Stop()
	meet := func(id peer.ID) {
		if x.Ready(id) {
			return
		}
		if _, ok := due[id]; !ok {
			due[id] = time.Now().Add(x.o.HelloTimeout)
		}
		for _, c := range x.o.Host.Network().ConnsToPeer(id) {
			if c.Stat().Direction == network.DirOutbound && !c.Stat().Limited {
				x.tasks.Go(func() { x.greet(ctx, id) })
				return
			}
		}
	}
	for {
		select {
		case <-ctx.Done():
			return
		case id := <-x.conns:
			meet(id)
		case <-x.rescan:
			for _, c := range x.o.Host.Network().Conns() {
				if !c.Stat().Limited {
					meet(c.RemotePeer())
				}
			}
		case now := <-tick.C:
			for id, at := range due {
				switch {
				case x.Ready(id) || x.o.Host.Network().Connectedness(id) != network.Connected:
					delete(due, id)
				case now.After(at):
					delete(due, id)
					x.tasks.Go(func() { x.noHello(id, "no hello in time") })
				}
			}
		}
	}
}

// greet opens the hello as the dialler, unless a handshake is under way or done.
func (x *Exchange) greet(ctx context.Context, id peer.ID) {
	x.mu.Lock()
	needless := x.peers[id] != nil || x.calling[id]
	if !needless {
		x.calling[id] = true
	}
	x.mu.Unlock()
	if needless {
		return
	}
	called := sync.OnceFunc(func() {
		x.mu.Lock()
		defer x.mu.Unlock()
		delete(x.calling, id)
	})
	defer called()
	open, cancel := context.WithTimeout(ctx, x.o.HelloTimeout)
	defer cancel()
	var s network.Stream
	for {
		var err error
		if s, err = x.o.Host.NewStream(network.WithNoDial(open, "hello"), id, HelloID(x.o.ChainID)); err == nil {
			break
		}
		if x.o.Host.Network().Connectedness(id) != network.Connected || x.Ready(id) {
			return
		}
		// It may have just started and not serve hello yet.
		if !pause(open, nil, min(time.Second, x.o.HelloTimeout/4)) {
			if ctx.Err() == nil {
				x.noHello(id, fmt.Sprintf("no hello: %v", err))
			}
			return
		}
	}
	x.hello(ctx, s, true, called)
}

// serveHello answers the hello of whoever dialled.
func (x *Exchange) serveHello(ctx context.Context, s network.Stream) {
	x.hello(ctx, s, false, func() {})
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

// hello shakes hands on s, calls shaken and then exchanges tips until the stream ends.
func (x *Exchange) hello(ctx context.Context, s network.Stream, outbound bool, shaken func()) {
	id := s.Conn().RemotePeer()
	stop := atEnd(ctx, func() { _ = s.ResetWithError(network.StreamShutdown) })
	defer stop()

	x.mu.Lock()
	crowded := x.greeting[id] >= maxHellos
	if !crowded {
		x.greeting[id]++
		x.changedLocked()
	}
	x.mu.Unlock()
	if crowded {
		_ = s.ResetWithError(network.StreamResourceLimitExceeded)
		return
	}
	var counts struct{ in, out atomic.Int64 }
	in := &counted{s: s, count: &counts.in}
	buffered := bufio.NewReaderSize(in, 2*maxHelloBytes)
	ours := x.localHello(x.o.ServicesFor(s.Conn().RemotePeer()))
	r, first, err := x.shake(s, buffered, &counts.out, &ours, outbound)
	x.mu.Lock()
	if x.greeting[id]--; x.greeting[id] <= 0 {
		delete(x.greeting, id)
	}
	x.changedLocked()
	x.mu.Unlock()
	shaken()
	if err == nil && r == nil {
		_ = s.Close() // a probe
		return
	}
	if err != nil {
		resetFor(s, err)
		switch {
		case ctx.Err() != nil:
		case errors.Is(err, errProtocol):
			x.blame(id, fmt.Sprintf("hello: %v", err))
		case !x.Ready(id):
			x.disconnect(id, fmt.Sprintf("hello: %v", err))
		}
		return
	}
	r.in.Add(counts.in.Load())
	r.out.Add(counts.out.Load())
	if first {
		x.arrived(ctx, r)
	}
	in.count = &r.in
	err = x.talk(ctx, r, s, buffered, ours.Tip.Hash)
	resetFor(s, err)
	if errors.Is(err, errProtocol) {
		x.blame(id, "hello: "+err.Error())
	}
	x.detach(ctx, r, err)
}

// shake exchanges hellos, ours and theirs, within HelloTimeout. The dialler speaks first; the other
// side answers once it has accepted, so that the dialler's next streams find it
// ready. It returns nil and no error for a probe.
func (x *Exchange) shake(s network.Stream, in *bufio.Reader, out *atomic.Int64, ours *Hello, outbound bool) (r *remote, first bool, err error) {
	deadline := time.Now().Add(x.o.HelloTimeout)
	if err := s.SetDeadline(deadline); err != nil {
		return nil, false, err
	}
	send := func(m *helloMessage) error {
		b := appendDelimited(nil, m.append(nil))
		out.Add(int64(len(b)))
		_, err := s.Write(b)
		return err
	}
	sent := time.Now()
	if outbound {
		if err := send(&helloMessage{Hello: ours}); err != nil {
			return nil, false, fmt.Errorf("send: %w", err)
		}
	}
	b, err := readMessage(in, nil, maxHelloBytes)
	if err != nil {
		return nil, false, fmt.Errorf("read: %w", err)
	}
	rtt := time.Since(sent)
	m, err := decodeHelloMessage(b)
	if err != nil {
		return nil, false, err
	}
	if m.Hello == nil {
		if m.Bye != nil {
			return nil, false, fmt.Errorf("peer says goodbye: %s", m.Bye.Text)
		}
		return nil, false, violation("first message is no hello")
	}
	theirs := *m.Hello
	if code, err := x.judge(s, &theirs); err != nil {
		reply := &helloMessage{Bye: &bye{Code: code, Text: err.Error()}}
		if !outbound {
			reply.Hello = ours // so that they see the difference themselves
		}
		if send(reply) == nil {
			linger(s, in)
		}
		if code == byeWrongNetwork {
			x.otherNetwork(s.Conn().RemotePeer(), s.Conn().RemoteMultiaddr(), &theirs)
		}
		return nil, false, err
	}
	if m.Bye != nil {
		return nil, false, fmt.Errorf("peer says goodbye: %s", m.Bye.Text)
	}
	if theirs.Services&ProbeOnly != 0 && !outbound {
		if err := send(&helloMessage{Hello: ours}); err != nil {
			return nil, false, fmt.Errorf("send: %w", err)
		}
		linger(s, in)
		return nil, false, nil
	}
	if r, first, err = x.attach(s, &theirs); err != nil {
		return nil, false, err
	}
	if outbound {
		r.measured(rtt)
	} else if err := send(&helloMessage{Hello: ours}); err != nil {
		x.drop(r)
		return nil, false, fmt.Errorf("send: %w", err)
	}
	return r, first, s.SetDeadline(time.Time{})
}

// linger gives the peer a moment to read our last words before the stream dies.
func linger(s network.Stream, in io.Reader) {
	_ = s.CloseWrite()
	_ = s.SetReadDeadline(time.Now().Add(time.Second))
	_, _ = io.CopyN(io.Discard, in, 4*maxHelloBytes)
}

// judge says whether a hello is acceptable.
func (x *Exchange) judge(s network.Stream, h *Hello) (byeCode, error) {
	genesis := x.o.Chain.Params().GenesisHash
	switch {
	case h.Nonce != 0 && h.Nonce == x.nonce:
		return byeSelf, errSelf
	case h.Genesis != genesis:
		return byeWrongNetwork, fmt.Errorf("%w: your genesis is %v, ours %v", errOtherNetwork, h.Genesis, genesis)
	case s.Protocol() != HelloID(x.o.ChainID):
		return byeWrongNetwork, fmt.Errorf("%w: we are %s", errOtherNetwork, x.o.ChainID)
	case h.Version < 1:
		return byeVersion, fmt.Errorf("%w: %d, want at least 1", errVersion, h.Version)
	}
	return 0, nil
}

// otherNetwork tells of a peer of another network, at most once an hour in the log.
func (x *Exchange) otherNetwork(id peer.ID, addr multiaddr.Multiaddr, h *Hello) {
	if n, ok := x.tellOf(id); ok {
		x.log.Warn("peer is of another network", "peer", id, "addr", addr, "agent", h.Agent, "genesis", h.Genesis,
			"our_genesis", x.o.Chain.Params().GenesisHash, "suppressed", n)
	}
	x.o.OnWrongNetwork(id, h.Genesis)
}

// noHello disconnects a peer that has not greeted in time, and tells of it, at most once an hour in the
// log, if it does not know how to.
func (x *Exchange) noHello(id peer.ID, reason string) {
	store := x.o.Host.Peerstore()
	speaks, err := store.GetProtocols(id)
	var agent string
	if v, err := store.Get(id, "AgentVersion"); err == nil {
		s, _ := v.(string)
		agent = printable([]byte(s), maxAgentBytes)
	}
	x.disconnect(id, reason)
	if err != nil || len(speaks) == 0 || slices.ContainsFunc(speaks, isHello) {
		return // not identified, or slow: it may be one of us, under load
	}
	if n, ok := x.tellOf(id); ok {
		x.log.Info("peer does not speak this chain's protocols", "peer", id, "agent", agent, "suppressed", n)
	}
	x.o.OnStranger(id)
}

// tellOf says whether the log is to tell of a peer that is none of ours: once in QuietNetwork. n is how many lines on others
// were left out before.
func (x *Exchange) tellOf(id peer.ID) (n int64, ok bool) {
	now := x.o.Now()
	x.mu.Lock()
	at, told := x.foreign[id]
	tell := !told || now.Sub(at) >= x.o.QuietNetwork
	if tell {
		if !told && len(x.foreign) >= maxForeign {
			// Whatever the clock did since: there is always one who was told of first.
			oldest, first := peer.ID(""), time.Time{}
			for p, t := range x.foreign {
				if oldest == "" || t.Before(first) {
					oldest, first = p, t
				}
			}
			delete(x.foreign, oldest)
		}
		x.foreign[id] = now
	}
	x.mu.Unlock()
	if !tell {
		return 0, false
	}
	return x.said.allow(now)
}

// attach makes the peer known, or adds a hello stream to a known one; first
// says which.
func (x *Exchange) attach(s network.Stream, h *Hello) (r *remote, first bool, err error) {
	id := s.Conn().RemotePeer()
	x.mu.Lock()
	defer x.mu.Unlock()
	r = x.peers[id]
	if first = r == nil; first {
		r = newRemote(id, *h, s.Conn(), x.o.Now())
		r.blocks = newBlockClient(x, r)
		x.peers[id] = r
		x.changedLocked()
	}
	if r.hellos >= maxHellos {
		return nil, false, errCrowded
	}
	r.hellos++
	return r, first, nil
}

// arrived starts what runs for a peer and tells of it. The goroutine that
// attached first calls it before it may detach.
func (x *Exchange) arrived(ctx context.Context, r *remote) {
	r.prove(x.o.Chain, r.hello.Tip.Hash, x.o.Now())
	x.tasks.Go(func() { r.blocks.run(ctx) })
	x.driver.post(ctx, peerReady{r})
	x.logPeer(ctx, true, r, slog.String("agent", r.hello.Agent), slog.Int64("height", int64(r.hello.Tip.Height)))
	x.o.OnHello(r.snapshot())
}

// drop takes a hello stream away and reports whether it was the last one: then
// the peer is gone.
func (x *Exchange) drop(r *remote) (last bool) {
	x.mu.Lock()
	if r.hellos--; r.hellos == 0 {
		last = true
		delete(x.peers, r.id)
		x.changedLocked()
	}
	x.mu.Unlock()
	if last {
		r.close()
	}
	return last
}

// detach drops a hello stream, which ended with err, and tells when the peer is gone.
func (x *Exchange) detach(ctx context.Context, r *remote, err error) {
	if !x.drop(r) {
		return
	}
	x.driver.post(ctx, peerGone{r})
	reason := r.whyGone()
	switch {
	case reason != "":
	case ctx.Err() != nil:
		reason = "this node stops"
	default:
		reason = whyEnded(err)
	}
	x.logPeer(ctx, false, r, slog.String("reason", reason), slog.Duration("after", x.o.Now().Sub(r.since).Round(time.Millisecond)))
	x.o.OnGone(r.id)
	x.rescanSoon() // another connection to it may be left: greet again
}

// whyEnded says what the end of a hello stream means: that the peer left, was silent for too long, or that the
// connection broke, which an operator looks for elsewhere.
func whyEnded(err error) string {
	stream, isStream := errors.AsType[*network.StreamError](err)
	conn, isConn := errors.AsType[*network.ConnError](err)
	timeout, isTimeout := errors.AsType[net.Error](err)
	switch {
	case err == nil, errors.Is(err, io.EOF), isStream && stream.Remote, isConn && conn.Remote:
		return "it left"
	case isTimeout && timeout.Timeout(), strings.HasSuffix(err.Error(), "keepalive timeout"): // yamux has no type for it
		return "it was silent for too long"
	}
	text := err.Error()
	for _, said := range []string{"stream reset: ", "stream reset: ", "connection closed: "} {
		text = strings.TrimPrefix(text, said)
	}
	return "the connection broke: " + text
}

// logPeer tells that a peer came or went.
func (x *Exchange) logPeer(ctx context.Context, came bool, r *remote, attrs ...slog.Attr) {
	n, ok := x.said.allow(x.o.Now())
	if !ok {
		return
	}
	var inbound, outbound int
	for _, p := range x.remotes() {
		if x.dialled(p) {
			outbound++
		} else {
			inbound++
		}
	}
	direction := "inbound"
	if x.dialled(r) {
		direction = "outbound"
	}
	attrs = append([]slog.Attr{
		slog.String("peer", r.id.String()), slog.String("direction", direction), slog.String("addr", r.addr.String()),
	}, attrs...)
	attrs = append(attrs, slog.Int("inbound", inbound), slog.Int("outbound", outbound))
	if n > 0 {
		attrs = append(attrs, slog.Int64("suppressed", n))
	}
	if came {
		x.log.LogAttrs(ctx, slog.LevelInfo, "peer connected", attrs...)
	} else {
		x.log.LogAttrs(ctx, slog.LevelInfo, "peer disconnected", attrs...)
	}
}

// talk tells our tip, if it is not the one told already, and listens to theirs until
// the stream ends.
func (x *Exchange) talk(ctx context.Context, r *remote, s network.Stream, in *bufio.Reader, told chainhash.Hash) error {
	pongs := make(chan uint64, 1) // to answer
	done := make(chan struct{})
	var pinged pingClock
	x.tasks.Go(func() {
		if err := x.tell(r, s, told, &pinged, pongs, done); err != nil {
			resetFor(s, err)
		}
	})
	defer close(done)

	// Twice the rate at which an honest peer speaks; more just waits.
	pace := rate.NewLimiter(rate.Every(x.o.TipGap/4), 16)
	buf := make([]byte, 0, maxHelloBytes)
	for {
		if err := pace.Wait(ctx); err != nil {
			return err
		}
		if err := s.SetReadDeadline(time.Now().Add(3*x.o.TipInterval + x.o.WriteTimeout)); err != nil {
			return err
		}
		b, err := readMessage(in, buf, maxHelloBytes)
		if err != nil {
			return err
		}
		m, err := decodeHelloMessage(b)
		if err != nil {
			return err
		}
		if m.Ping != 0 {
			select {
			case pongs <- m.Ping:
			default: // one answer at a time
			}
		}
		if rtt, ok := pinged.answered(m.Pong); ok {
			r.measured(rtt)
		}
		if m.Tip != nil {
			r.setTip(*m.Tip)
			r.prove(x.o.Chain, m.Tip.Hash, x.o.Now())
			x.driver.post(ctx, peerTip{r})
		}
		if m.Bye != nil {
			r.setReason("it says goodbye: " + m.Bye.Text)
			return nil
		}
	}
}

// tell sends our tip when it changes, or is not the one in our hello any more: it may
// have changed while hands were shaken, and nobody would hear of it. It does so at most every TipGap and at least every
// TipInterval, and answers pings, until done is closed or a write fails.
func (x *Exchange) tell(r *remote, s network.Stream, hello chainhash.Hash, pinged *pingClock, pongs <-chan uint64, done <-chan struct{}) error {
	send := func(m helloMessage) error {
		return writeMessage(s, x.o.WriteTimeout, &r.out, m.append(nil))
	}
	if err := send(helloMessage{Ping: pinged.start()}); err != nil {
		return err
	}
	told, changed := x.localTip()
	if told.Hash != hello {
		if err := send(helloMessage{Tip: &told}); err != nil {
			return err
		}
	}
	gap := time.NewTimer(0) // runs while no tip may be sent
	defer gap.Stop()
	idle := time.NewTimer(x.o.TipInterval)
	defer idle.Stop()
	var wake <-chan struct{} // the change to wait for; nil while the gap runs
	for {
		m := helloMessage{}
		select {
		case <-done:
			return nil
		case m.Pong = <-pongs:
			if err := send(m); err != nil {
				return err
			}
			continue
		case <-gap.C:
			wake = changed
			continue
		case <-wake:
		case <-idle.C:
			m.Ping = pinged.start()
		}
		told, changed = x.localTip()
		m.Tip = &told
		if err := send(m); err != nil {
			return err
		}
		wake = nil
		gap.Reset(x.o.TipGap)
		idle.Reset(x.o.TipInterval)
	}
}

// pingClock measures round trips: one ping at a time.
type pingClock struct {
	mu    sync.Mutex // guards what follows, held for an instant
	nonce uint64
	sent  time.Time
}

func (p *pingClock) start() uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.nonce, p.sent = rand.Uint64()|1, time.Now()
	return p.nonce
}

func (p *pingClock) answered(nonce uint64) (time.Duration, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if nonce == 0 || nonce != p.nonce {
		return 0, false
	}
	p.nonce = 0
	return time.Since(p.sent), true
}

// Probe connects to a peer if need be, exchanges hellos with it as a crawler does and returns
// what it said, also when it is of another network (with an error). It does not need Run. The connection is
// closed again if Probe made it.
func (x *Exchange) Probe(ctx context.Context, info peer.AddrInfo) (Hello, error) {
	if r := x.remote(info.ID); r != nil {
		h := r.hello
		h.Tip, _ = r.lastTip()
		return h, nil
	}
	ctx, cancel := context.WithTimeout(ctx, 2*x.o.HelloTimeout)
	defer cancel()
	if x.o.Host.Network().Connectedness(info.ID) != network.Connected {
		if err := x.o.Host.Connect(network.WithDialPeerTimeout(ctx, x.o.HelloTimeout), info); err != nil {
			return Hello{}, fmt.Errorf("probe: %w", err)
		}
		defer func() { _ = x.o.Host.Network().ClosePeer(info.ID) }()
	}
	s, err := x.o.Host.NewStream(network.WithNoDial(ctx, "probe"), info.ID, HelloID(x.o.ChainID))
	if err != nil {
		return Hello{}, fmt.Errorf("probe: %w", err)
	}
	defer func() { _ = s.Reset() }()
	stop := atEnd(ctx, func() { _ = s.Reset() })
	defer stop()
	if err := s.SetDeadline(time.Now().Add(x.o.HelloTimeout)); err != nil {
		return Hello{}, fmt.Errorf("probe: %w", err)
	}
	ours := x.localHello(ProbeOnly)
	if _, err := s.Write(appendDelimited(nil, (&helloMessage{Hello: &ours}).append(nil))); err != nil {
		return Hello{}, fmt.Errorf("probe: %w", err)
	}
	b, err := readMessage(bufio.NewReaderSize(s, maxHelloBytes), nil, maxHelloBytes)
	if err != nil {
		return Hello{}, fmt.Errorf("probe: %w", err)
	}
	m, err := decodeHelloMessage(b)
	switch {
	case err != nil:
		return Hello{}, fmt.Errorf("probe: %w", err)
	case m.Hello == nil:
		return Hello{}, fmt.Errorf("probe: %w", violation("no hello"))
	}
	if _, err := x.judge(s, m.Hello); err != nil {
		return *m.Hello, fmt.Errorf("probe: %w", err)
	}
	return *m.Hello, nil
}
