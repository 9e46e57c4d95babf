package api_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"dunlin/internal/api"
)

// A stream is one reader of events.
type stream struct {
	t      *testing.T
	events chan api.Event
	end    context.CancelFunc
	body   io.Closer
}

// reads opens a stream of server-sent events; headers as of do.
func (r *running) reads(query string, headers ...string) *stream {
	r.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+r.addr+"/api/v1/events"+query, http.NoBody)
	if err != nil {
		r.t.Fatal(err)
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		req.Header.Set(name, value)
	}
	w, err := http.DefaultClient.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	if w.StatusCode != http.StatusOK || !strings.HasPrefix(w.Header.Get("Content-Type"), "text/event-stream") {
		raw, _ := io.ReadAll(w.Body)
		r.t.Fatalf("%d %s: %s", w.StatusCode, w.Header.Get("Content-Type"), raw)
	}
	s := &stream{t: r.t, events: make(chan api.Event, 10_000), end: cancel, body: w.Body}
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer close(s.events)
		lines := bufio.NewScanner(w.Body)
		lines.Buffer(nil, 1<<20)
		var e api.Event
		for lines.Scan() {
			name, value, _ := strings.Cut(lines.Text(), ": ")
			switch name {
			case "id":
				e.ID = value
			case "event":
				e.Type = value
			case "data":
				e.Data = json.RawMessage(value)
			case "":
				if e.Data != nil {
					s.events <- e
				}
				e = api.Event{}
			}
		}
	}()
	r.t.Cleanup(func() { cancel(); w.Body.Close(); <-done })
	return s
}

// next returns the next event of one of the types; all others are passed over.
func (s *stream) next(types ...string) api.Event {
	s.t.Helper()
	limit := time.NewTimer(patience)
	defer limit.Stop()
	for {
		select {
		case e, ok := <-s.events:
			if !ok {
				s.t.Fatalf("the stream ended before an event of %v", types)
			}
			if len(types) == 0 || slices.Contains(types, e.Type) {
				return e
			}
		case <-limit.C:
			s.t.Fatalf("no event of %v", types)
		}
	}
}

// ends waits until the stream does.
func (s *stream) ends() {
	s.t.Helper()
	limit := time.NewTimer(patience)
	defer limit.Stop()
	for {
		select {
		case _, ok := <-s.events:
			if !ok {
				return
			}
		case <-limit.C:
			s.t.Fatal("the stream goes on")
		}
	}
}

func height(t *testing.T, e api.Event) int32 {
	t.Helper()
	return decode[api.BlockEvent](t, string(e.Data)).Height
}

// TestEventsOverAReorg: hello, the reorg, then the blocks of the new branch, in order.
func TestEventsOverAReorg(t *testing.T) {
	t.Parallel()
	n := newFakeNode(5)
	r := serve(t, n, nil)
	s := r.reads("?types=block,reorg")
	hello := decode[api.HelloEvent](t, string(s.next("hello").Data))
	if hello.Boot == "" || !slices.Equal(hello.Types, []string{"block", "reorg"}) {
		t.Errorf("hello %+v", hello)
	}
	n.grow("one")
	if h := height(t, s.next()); h != 5 {
		t.Errorf("block %d", h)
	}
	old := n.hash(5)
	n.reorg(2, 5) // 3…7 of another branch
	e := s.next()
	if e.Type != api.EventReorg {
		t.Fatalf("%s before the reorg", e.Type)
	}
	reorg := decode[api.ReorgEvent](t, string(e.Data))
	if reorg.Depth != 3 || reorg.ForkHeight != 2 || reorg.OldHash != old || reorg.NewHeight != 7 || len(reorg.Disconnected) != 3 || len(reorg.Connected) != 5 {
		t.Errorf("reorg %+v", reorg)
	}
	for want := int32(3); want <= 7; want++ {
		if h := height(t, s.next()); h != want {
			t.Errorf("block %d, want %d", h, want)
		}
	}
	// Of many at once the last is told, and how many were not.
	n.reorg(7, 40)
	if got := decode[api.BlockEvent](t, string(s.next().Data)); got.Height != 47 || got.Skipped != 39 {
		t.Errorf("after a jump: %+v", got)
	}
}

// TestEventsOfSlots: where stake makes blocks each tells who won its slot; genesis, and
// blocks of work, tell nothing.
func TestEventsOfSlots(t *testing.T) {
	t.Parallel()
	n := newFakeNode(0)
	n.staked = true
	n.grow("")
	r := serve(t, n, nil)
	s := r.reads("?types=slot,block")
	s.next("hello")
	b := n.grow("")
	s.next(api.EventBlock)
	got := decode[api.SlotEvent](t, string(s.next(api.EventSlot).Data))
	want := api.SlotEvent{Slot: 4, Height: 1, Hash: b.Hash, Time: b.Time, Winner: "winner of a", OutPoint: n.hash(9) + ":1", Value: 7, Share: 0.5}
	if got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	n.reorg(0, 1) // back to genesis and to another block 1
	s.next(api.EventBlock)
	if got := decode[api.SlotEvent](t, string(s.next(api.EventSlot).Data)); got.Height != 1 || got.Winner != "winner of b" {
		t.Errorf("of the other branch: %+v", got)
	}
	n.mu.Lock()
	n.staked = false
	n.mu.Unlock()
	n.grow("")
	n.grow("")
	s.next(api.EventBlock)
	if e := s.next(); e.Type != api.EventBlock {
		t.Errorf("%s of a block that no stake made", e.Type)
	}
	blocks := r.do(http.MethodGet, "/blocks", "").body
	for _, want := range []string{`"data":"genesis <text>","validator":""}`, `"validator":"winner of b"}`, `"data":""}]`} {
		if !strings.Contains(blocks, want) {
			t.Errorf("/blocks has no %s: %s", want, blocks)
		}
	}
}

// TestEventsOfDoubleStakes: each case of a stake that signed twice is told once, also to
// who was away; those before the start are in the list only.
func TestEventsOfDoubleStakes(t *testing.T) {
	t.Parallel()
	n := newFakeNode(1)
	n.double(3)
	r := serve(t, n, nil)
	s := r.reads("?types=double")
	s.next("hello")
	for slot := int64(4); slot < 7; slot++ {
		n.double(slot)
	}
	for slot := int64(4); slot < 7; slot++ {
		if got := decode[api.DoubleStake](t, string(s.next(api.EventDouble).Data)); got.Slot != slot || got.Address != "holder 1" {
			t.Errorf("slot %d: %+v", slot, got)
		}
	}
	if got := decode[api.DoubleStakes](t, r.do(http.MethodGet, "/api/v1/staking/doubles?limit=2", "").body); got.Total != 4 || len(got.Doubles) != 2 || got.Doubles[0].Slot != 6 {
		t.Errorf("%+v", got)
	}
}

// TestEventsResume: who comes back hears what it missed, once each, or is told that this
// is gone.
func TestEventsResume(t *testing.T) {
	t.Parallel()
	n := newFakeNode(1)
	r := serve(t, n, nil)
	first := r.reads("?types=block")
	first.next("hello")
	n.grow("")
	last := first.next("block").ID
	first.end()
	first.ends()
	for range 3 {
		n.grow("")
		// Told one by one: another reader sees them.
	}
	witness := r.reads("?types=block", "Last-Event-ID: "+last)
	for want := int32(2); want <= 4; want++ {
		e := witness.next("block")
		if h := height(t, e); h != want {
			t.Errorf("block %d, want %d", h, want)
		}
	}
	byQuery := r.reads("?types=block&last_event_id=" + last)
	if e := byQuery.next(); e.Type != "hello" || e.ID != last {
		t.Errorf("begins with %s %s, want hello at %s", e.Type, e.ID, last)
	}
	for want := int32(2); want <= 4; want++ {
		if h := height(t, byQuery.next()); h != want {
			t.Errorf("block %d, want %d", h, want)
		}
	}
	boot, _, _ := strings.Cut(last, "-")
	for _, bad := range []string{"nothing", "00000000-1", boot + "-99999999", boot + "-x"} {
		s := r.reads("?types=block", "Last-Event-ID: "+bad)
		s.next("hello")
		if e := s.next(); e.Type != api.EventReset || !strings.Contains(string(e.Data), "reason") {
			t.Errorf("after %q: %s %s", bad, e.Type, e.Data)
		}
	}
	// More than are kept.
	for i := range 600 {
		r.server.Publish(api.EventWallet, i)
	}
	s := r.reads("?types=wallet,block", "Last-Event-ID: "+last)
	s.next("hello")
	if e := s.next(); e.Type != api.EventReset || !strings.Contains(string(e.Data), "wallet") {
		t.Errorf("%s %s, want a reset", e.Type, e.Data)
	}
	// It goes on all the same.
	n.grow("")
	if e := s.next(); e.Type != api.EventBlock {
		t.Errorf("%s after the reset", e.Type)
	}
	// Of the type that was not lost, all is there.
	blocks := r.reads("?types=block", "Last-Event-ID: "+last)
	blocks.next("hello")
	if h := height(t, blocks.next()); h != 2 {
		t.Errorf("block %d, want 2", h)
	}
}

// What is kept for those who come back is bounded in number and in memory, with what an event takes besides its data, which is little; one
// of the largest size has room.
func TestEventsKept(t *testing.T) {
	t.Parallel()
	for _, x := range []struct{ size, kept int }{{2, api.RingEvents}, {40, api.RingEvents}, {300, 0}, {1000, 0}, {5000, 0}, {api.MaxEventBytes, 1}} {
		kept, account, err := api.KeepEvents(2*api.RingEvents, x.size)
		if err != nil {
			t.Fatal(err)
		}
		const ends = 8 * api.RingEvents
		if kept < 1 || kept > api.RingEvents || account > api.RingBytes+ends || account < kept*x.size || account > kept*(x.size+40)*5/4+5<<10 || (x.kept > 0 && kept != x.kept) {
			t.Errorf("%d events of %d bytes are kept, which take %d", kept, x.size, account)
		}
	}
}

// TestEventsOfState: peers that come, greet and go, the sync, and the mempool.
func TestEventsOfState(t *testing.T) {
	t.Parallel()
	n := newFakeNode(1)
	r := serve(t, n, nil)
	s := r.reads("")
	s.next("hello")
	s.next(api.EventSync)
	set := func(peers ...api.Peer) {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.peers = peers
	}
	action := func(want, id string) {
		t.Helper()
		if e := decode[api.PeerEvent](t, string(s.next(api.EventPeer).Data)); e.Action != want || e.Peer.ID != id {
			t.Errorf("%+v, want %s %s", e, want, id)
		}
	}
	set(api.Peer{ID: "a"})
	action("connected", "a")
	set(api.Peer{ID: "a", Ready: true}, api.Peer{ID: "b", Ready: true})
	action("ready", "a")
	action("connected", "b")
	action("ready", "b")
	set(api.Peer{ID: "b", Ready: true})
	action("disconnected", "a")
	n.mu.Lock()
	n.pool = append(n.pool, "x", "y")
	n.mu.Unlock()
	if e := decode[api.MempoolEvent](t, string(s.next(api.EventMempool).Data)); e.Count != 2 || e.AddedTotal != 2 || e.Added[1].TxID != "y" {
		t.Errorf("mempool %+v", e)
	}
}

// TestEventsAccess: an unknown type, too many streams, and the log, which wants the token.
func TestEventsAccess(t *testing.T) {
	t.Parallel()
	n := newFakeNode(1)
	r := serve(t, n, func(o *api.Options) { o.MaxConnections = 16 }) // 4 streams
	get := func(path string, headers ...string) answer { return r.do(http.MethodGet, path, "", headers...) }
	if a := get("/api/v1/events?types=block,nonsense"); a.status != 422 || !strings.Contains(a.body, "nonsense") {
		t.Errorf("unknown type: %d %s", a.status, a.body)
	}
	for _, path := range []string{"/api/v1/events?types=log", "/api/v1/ws?types=block,log", "/api/v1/log/records"} {
		for _, h := range []string{"Authorization: Bearer wrong", "X-None: 1"} {
			if a := get(path, h); a.status != http.StatusUnauthorized {
				t.Errorf("%s with %s: %d", path, h, a.status)
			}
		}
	}
	if a := get("/api/v1/ws?token=wrong"); a.status != http.StatusUnauthorized {
		t.Errorf("wrong token in the query: %d", a.status)
	}
	n.logs("info", "sync", "hello log")
	n.logs("warn", "chain", "careful")
	token := "Authorization: Bearer " + r.token
	if a := decode[api.LogRecords](t, get("/api/v1/log/records?level=warn", token).body); len(a.Records) != 1 || a.Records[0].Text != "careful" || a.Last != 2 {
		t.Errorf("records: %+v", a)
	}
	if a := decode[api.LogRecords](t, get("/api/v1/log/records?after=1", token).body); len(a.Records) != 1 || a.Records[0].Seq != 2 {
		t.Errorf("records behind 1: %+v", a)
	}
	// A number of the run before: the answer tells that there is no such line yet.
	if a := decode[api.LogRecords](t, get("/api/v1/log/records?after=99", token).body); len(a.Records) != 0 || a.Last != 2 {
		t.Errorf("records behind one that is not there: %+v", a)
	}
	if a := decode[api.LogRecords](t, get("/api/v1/log/records?limit=1", token).body); len(a.Records) != 1 || a.Records[0].Seq != 2 {
		t.Errorf("the last record: %+v", a)
	}
	s := r.reads("?types=log", token)
	s.next("hello")
	n.logs("info", "sync", "another")
	if rec := decode[api.LogRecord](t, string(s.next(api.EventLog).Data)); rec.Text != "another" {
		t.Errorf("log event %+v", rec)
	}
	for range 3 {
		r.reads("?types=block").next("hello")
	}
	if a := get("/api/v1/events"); a.status != http.StatusServiceUnavailable || a.header.Get("Retry-After") == "" || !strings.Contains(a.body, "limit 4") {
		t.Errorf("one stream too many: %d %s", a.status, a.body)
	}
	s.end()
	s.ends()
	// Its place is free once the server has noticed.
	deadline := time.Now().Add(patience)
	for get("/api/v1/status").status == 200 {
		ctx, cancel := context.WithCancel(t.Context())
		c, _, err := websocket.Dial(ctx, "ws://"+r.addr+"/api/v1/ws?types=block&token="+r.token, nil) //nolint:bodyclose // the library does
		if err == nil {
			_, raw, err := c.Read(ctx)
			if err != nil || decode[api.Event](t, string(raw)).Type != "hello" {
				t.Errorf("over a WebSocket: %v %s", err, raw)
			}
			cancel()
			_ = c.CloseNow()
			return
		}
		cancel()
		if time.Now().After(deadline) {
			t.Fatalf("no place: %v", err)
		}
	}
}

// TestEventSocket: the same events over a WebSocket; what the client says is ignored; the
// stop ends it.
func TestEventSocket(t *testing.T) {
	t.Parallel()
	n := newFakeNode(1)
	r := serve(t, n, nil)
	c, _, err := websocket.Dial(t.Context(), "ws://"+r.addr+"/api/v1/ws?types=block", nil) //nolint:bodyclose // the library does
	if err != nil {
		t.Fatal(err)
	}
	read := func() api.Event {
		t.Helper()
		_, raw, err := c.Read(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return decode[api.Event](t, string(raw))
	}
	if e := read(); e.Type != "hello" {
		t.Errorf("begins with %s", e.Type)
	}
	if err := c.Write(t.Context(), websocket.MessageText, []byte("noise")); err != nil {
		t.Fatal(err)
	}
	n.grow("")
	if e := read(); e.Type != api.EventBlock || height(t, e) != 1 || e.Time.IsZero() || e.ID == "" {
		t.Errorf("%+v", e)
	}
	if err := r.stop(); err != nil {
		t.Error(err)
	}
	if _, _, err := c.Read(t.Context()); err == nil {
		t.Error("the stream outlives the server")
	}
}

// TestEventsSlowReader: who does not read is dropped, and others hear everything at once.
func TestEventsSlowReader(t *testing.T) {
	t.Parallel()
	n := newFakeNode(1)
	r := serve(t, n, nil)
	idle := dialRaw(t, r.addr)
	fmt.Fprintf(idle, "GET /api/v1/events?types=wallet HTTP/1.1\r\nHost: localhost\r\n\r\n")
	head := make([]byte, 15)
	if _, err := io.ReadFull(idle, head); err != nil || !strings.HasPrefix(string(head), "HTTP/1.1 200") {
		t.Fatalf("%q %v", head, err)
	}
	quick := r.reads("?types=wallet")
	quick.next("hello")
	filler := strings.Repeat("x", 60<<10) // 700 of them are more than any socket's buffers
	for i := range 700 {
		r.server.Publish(api.EventWallet, map[string]any{"i": i, "filler": filler})
		got := decode[struct{ I int }](t, string(quick.next(api.EventWallet).Data))
		if got.I != i {
			t.Fatalf("event %d, want %d", got.I, i)
		}
	}
	// Too large: told to nobody.
	r.server.Publish(api.EventWallet, strings.Repeat("x", 200<<10))
	r.server.Publish(api.EventWallet, "end")
	if e := quick.next(); string(e.Data) != `"end"` {
		t.Errorf("%.40s", e.Data)
	}
	// The server has given it up: what it reads ends.
	if err := idle.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, idle); err != nil && isTimeout(err) {
		t.Error("the idle reader was not dropped")
	}
}

func isTimeout(err error) bool {
	e, ok := errors.AsType[interface {
		error
		Timeout() bool
	}](err)
	return ok && e.Timeout()
}

// TestClientEvents: the client of the command line reads the same.
func TestClientEvents(t *testing.T) {
	n := newFakeNode(1)
	r := serve(t, n, nil)
	c, err := api.NewClient(r.addr, r.token)
	if err != nil {
		t.Fatal(err)
	}
	seen := errors.New("seen")
	last := ""
	err = c.Events(t.Context(), []string{api.EventBlock}, "", func(e api.Event) error {
		last = e.ID
		if e.Type == api.EventHello {
			n.grow("")
			return nil
		}
		return seen
	})
	if !errors.Is(err, seen) {
		t.Fatal(err)
	}
	n.grow("")
	err = c.Events(t.Context(), []string{api.EventBlock}, last, func(e api.Event) error {
		if e.Type == api.EventBlock && height(t, e) == 2 {
			return seen
		}
		return nil
	})
	if !errors.Is(err, seen) {
		t.Fatal(err)
	}
	none, err := api.NewClient(r.addr, "")
	if err != nil {
		t.Fatal(err)
	}
	var refused *api.Error
	if err := none.Events(t.Context(), []string{api.EventLog}, "", nil); !errors.As(err, &refused) || refused.Status != http.StatusUnauthorized {
		t.Errorf("without the token: %v", err)
	}
}
