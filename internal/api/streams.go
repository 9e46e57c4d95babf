package api

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"time"

	"github.com/coder/websocket"
	"github.com/danielgtaylor/huma/v2"
)

// Paths of the event streams and of what else tells the log.
const (
	eventsPath      = "/api/v1/events"
	eventSocketPath = "/api/v1/ws"
	logRecordsPath  = "/api/v1/log/records"
)

const (
	// streamWrite is how long a reader may take for what is written at once.
	streamWrite = 10 * time.Second
	// beatInterval is short enough for proxies that end what is silent for half a minute.
	beatInterval = 15 * time.Second
	// retryMS is what a browser waits before it comes back.
	retryMS = 2000
	// maxIgnoredBytes bounds a message of a client of whom none is expected.
	maxIgnoredBytes = 4 << 10
)

// streamRoutes registers the event streams, which huma does not serve but describes.
func (s *Server) streamRoutes(mux *router, api huma.API) {
	mux.HandleFunc("GET "+eventsPath, s.getEvents)
	mux.HandleFunc("GET "+eventSocketPath, s.getEventSocket)
	query := func(name, description string, example any) *huma.Param {
		return &huma.Param{Name: name, In: "query", Description: description, Schema: &huma.Schema{Type: "string"}, Example: example}
	}
	types := query("types", "Comma-separated: block, slot, reorg, sync, peer, mempool, wallet, log. All but log if it is missing; log wants the token", "block,reorg")
	last := query("last_event_id", "Of the last event that was read, to go on behind it; over HTTP the header Last-Event-ID does the same", nil)
	fault := func(description string) *huma.Response {
		return &huma.Response{Description: description, Content: map[string]*huma.MediaType{
			"application/problem+json": {Schema: &huma.Schema{Ref: "#/components/schemas/ErrorModel"}},
		}}
	}
	api.OpenAPI().AddOperation(&huma.Operation{
		OperationID: "events", Method: http.MethodGet, Path: eventsPath, Summary: "What happens, as server-sent events",
		Description: "A stream begins with an event hello. After reset the reader must read everything anew: what it missed is gone, or the node has started anew.",
		Parameters:  []*huma.Param{types, last},
		Responses: map[string]*huma.Response{
			"200": {Description: "The stream", Content: map[string]*huma.MediaType{"text/event-stream": {
				Schema: &huma.Schema{Type: "string"}, Example: "id: 5f3a9c01-42\nevent: block\ndata: {\"height\":101,…}\n\n",
			}}},
			"422": fault("An unknown type"), "503": fault("Too many streams"),
		},
	})
	api.OpenAPI().AddOperation(&huma.Operation{
		OperationID: "events-ws", Method: http.MethodGet, Path: eventSocketPath, Summary: "What happens, over a WebSocket",
		Description: "Text messages {\"id\",\"type\",\"time\",\"data\"}, otherwise as events. What a client sends is ignored.",
		Parameters:  []*huma.Param{types, last, query("token", "The content of api.cookie, for browsers, which can send no header here", nil)},
		Responses:   map[string]*huma.Response{"101": {Description: "The stream"}, "422": fault("An unknown type"), "503": fault("Too many streams")},
	})
}

// tellsLog says whether a request asks for the log, which may hold addresses of peers and
// so wants the token, also from this machine.
func tellsLog(r *http.Request) bool {
	switch r.URL.Path {
	case logRecordsPath:
		return true
	case eventsPath, eventSocketPath:
		types, err := parseTypes(r.URL.Query().Get("types"))
		if err != nil {
			return false // nothing is told
		}
		return slices.Contains(types, EventLog)
	}
	return false
}

// follow makes a reader of what a request asks for; it has answered if it returns nil.
func (s *Server) follow(w http.ResponseWriter, r *http.Request) (*reader, []*Event) {
	q := r.URL.Query()
	types, err := parseTypes(q.Get("types"))
	if err != nil {
		status, reason := s.explain(eventsPath, err)
		fail(w, r, status, "%s", reason)
		return nil, nil
	}
	after := r.Header.Get("Last-Event-ID")
	if after == "" {
		after = q.Get("last_event_id")
	}
	reader, first := s.events.follow(types, after)
	if reader == nil {
		w.Header().Set("Retry-After", "5")
		fail(w, r, http.StatusServiceUnavailable, "too many event streams, limit %d", s.events.most)
	}
	return reader, first
}

// getEvents serves one stream of server-sent events until its reader goes, does not keep
// up, or the server stops.
func (s *Server) getEvents(w http.ResponseWriter, r *http.Request) {
	reader, first := s.follow(w, r)
	if reader == nil {
		return
	}
	defer s.events.leave(reader)
	s.sockets.Add(1)
	defer s.sockets.Done()
	c := http.NewResponseController(w)
	// net/http reads on, to notice a client that goes; the deadline of requests is not for
	// that. A recorder in a test has none to move, and needs none.
	_ = c.SetReadDeadline(time.Time{})
	h := w.Header()
	h.Set("Content-Type", "text/event-stream; charset=utf-8")
	h.Set("X-Accel-Buffering", "no") // nginx would hold events back
	h.Set("Connection", "close")     // whoever is sent away shall notice
	write := func(text string, events ...*Event) bool {
		_ = c.SetWriteDeadline(time.Now().Add(streamWrite)) // as above
		if _, err := w.Write([]byte(text)); err != nil {
			return false
		}
		for _, e := range events {
			// JSON has no line breaks.
			if _, err := fmt.Fprintf(w, "id: %s\nevent: %s\ndata: %s\n\n", e.ID, e.Type, e.Data); err != nil {
				return false
			}
		}
		return c.Flush() == nil
	}
	if !write(fmt.Sprintf("retry: %d\n\n", retryMS), first...) {
		return
	}
	beat := time.NewTicker(beatInterval)
	defer beat.Stop()
	for {
		var goesOn bool
		select {
		case <-r.Context().Done():
			return
		case <-reader.dropped:
			return
		case <-beat.C:
			goesOn = write(": beat\n\n")
		case e := <-reader.queue:
			goesOn = write("", append([]*Event{e}, reader.waiting()...)...)
		}
		if !goesOn {
			return
		}
	}
}

// waiting takes what is in the queue now.
func (r *reader) waiting() (events []*Event) {
	for range queueEvents {
		select {
		case e := <-r.queue:
			events = append(events, e)
		default:
			return events
		}
	}
	return events
}

// getEventSocket serves one stream of events over a WebSocket, as getEvents does.
func (s *Server) getEventSocket(w http.ResponseWriter, r *http.Request) {
	reader, first := s.follow(w, r)
	if reader == nil {
		return
	}
	defer s.events.leave(reader)
	s.sockets.Add(1)
	defer s.sockets.Done()
	conn, err := websocket.Accept(w, r, &websocket.AcceptOptions{
		InsecureSkipVerify: true, // the guard's check of the origin knows more
	})
	if err != nil {
		s.log.Debug("websocket handshake", "err", err)
		return // Accept has answered
	}
	conn.SetReadLimit(maxIgnoredBytes)
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	raw, _ := r.Context().Value(connKey{}).(net.Conn)
	queue := make(chan []byte)
	written := make(chan struct{})
	go func() {
		defer close(written)
		defer cancel() // the writer gave up
		writeSocket(ctx, conn, raw, queue)
	}()
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		defer cancel()
		for { // the writer closes the connection when ctx ends, which ends this read
			if _, _, err := conn.Read(context.WithoutCancel(ctx)); err != nil {
				return
			}
		}
	}()
	s.feedSocket(ctx, reader, first, queue)
	cancel()
	<-written
	<-gone
}

// feedSocket hands events to a writer until ctx ends or the reader is dropped.
func (s *Server) feedSocket(ctx context.Context, reader *reader, first []*Event, queue chan<- []byte) {
	for {
		for _, e := range first {
			select {
			case queue <- encode(e):
			case <-reader.dropped:
				return
			case <-ctx.Done():
				return
			}
		}
		select {
		case e := <-reader.queue:
			first = []*Event{e}
		case <-reader.dropped:
			return
		case <-ctx.Done():
			return
		}
	}
}

// Publish tells an event of a type that others than the server make: [EventWallet]. data
// becomes JSON of at most 64 KiB. It never blocks.
func (s *Server) Publish(kind string, data any) {
	dropped, err := s.events.publish(kind, data)
	if err != nil {
		s.log.Warn("event not told", "err", err)
	}
	if dropped > 0 {
		s.log.Debug("event streams dropped that do not read", "streams", dropped)
	}
}

// A start is what the events go on from.
type start struct {
	tip     string
	pool    uint64
	log     uint64
	doubles int
}

// beginning is the start of a node's events: whoever follows hears of all that comes
// after.
func beginning(n Node) (b start) {
	_, b.tip, _ = n.Tip()
	_, b.pool = n.MempoolNews(^uint64(0))
	b.log = n.LogRecords(^uint64(0), 0).Last
	known, _ := n.DoubleStakes(0)
	b.doubles = known.Total
	return b
}

// feed makes the events of what the node does, until ctx ends.
func (s *Server) feed(ctx context.Context) {
	n, ok := s.awaitNode(ctx)
	if !ok {
		return
	}
	done := make(chan struct{}, 3)
	for _, f := range []func(context.Context, Node){s.feedLog, s.feedState, s.feedDoubles} {
		go func() { f(ctx, n); done <- struct{}{} }()
	}
	s.feedBlocks(ctx, n)
	for range cap(done) {
		<-done
	}
}

const (
	// fewBlocks are told one by one; of more the last is, and then there is a pause: in a
	// sync thousands come a second, and each costs a read.
	fewBlocks  = 10
	blockPause = time.Second
	// maxReorgHashes of either branch are named.
	maxReorgHashes = 100
)

// feedBlocks tells new blocks and changes of branch.
func (s *Server) feedBlocks(ctx context.Context, n Node) {
	told := s.begin.tip
	for {
		_, now, changed := n.Tip()
		if now == told {
			select {
			case <-ctx.Done():
				return
			case <-changed:
			}
			continue
		}
		many, err := s.tellPath(ctx, n, told, now)
		if err != nil && ctx.Err() == nil {
			s.log.Warn("events of new blocks not told", "tip", now, "err", err)
		}
		told = now
		if many && !sleep(ctx, blockPause) {
			return
		}
	}
}

// tellPath tells what leads from one tip to another; many: not each block of it was told.
func (s *Server) tellPath(ctx context.Context, n Node, from, to string) (many bool, err error) {
	path, err := n.Path(from, to, maxReorgHashes)
	if err != nil {
		return false, err
	}
	if path.Depth > 0 {
		s.Publish(EventReorg, path.ReorgEvent)
	}
	few := path.Connected
	if many = path.Blocks > fewBlocks; many {
		few = few[max(0, len(few)-1):]
	}
	for i, hash := range few {
		b, err := n.Summaries(ctx, hash, 1)
		if err != nil {
			return many, err
		}
		e := BlockEvent{BlockSummary: b[0]}
		if i == 0 {
			e.Skipped = path.Blocks - len(few)
		}
		s.Publish(EventBlock, e)
		if won, ok := wonSlot(&e.BlockSummary); ok {
			s.Publish(EventSlot, won)
		}
	}
	return many, nil
}

// feedDoubles tells of stakes that signed two blocks for one slot.
func (s *Server) feedDoubles(ctx context.Context, n Node) {
	told := s.begin.doubles
	for {
		news, changed := n.DoubleStakes(fewBlocks)
		for k := min(len(news.Doubles), news.Total-told) - 1; k >= 0; k-- { // the latest is first
			s.Publish(EventDouble, news.Doubles[k])
		}
		told = news.Total
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// stateInterval is how often sync, peers and mempool are looked at.
const stateInterval = time.Second

// maxPeerEvents are told at a look; the rest at the next.
const maxPeerEvents = 64

// feedState tells of sync, peers and mempool, which change in small steps all the time.
func (s *Server) feedState(ctx context.Context, n Node) {
	var sync string
	peers := map[string]Peer{}
	var pool MempoolEvent
	seen := s.begin.pool
	for sleep(ctx, stateInterval) {
		now := n.Sync()
		if text := string(encode(now)); text != sync {
			s.Publish(EventSync, now)
			sync = text
		}
		s.tellPeers(n.Peers(), peers)
		var news MempoolEvent
		news, seen = n.MempoolNews(seen)
		if news.AddedTotal > 0 || news.Count != pool.Count || news.VBytes != pool.VBytes || news.MinFeeRate != pool.MinFeeRate {
			s.Publish(EventMempool, news)
			pool = news
		}
	}
}

// tellPeers tells what has changed since known, which it brings up to date.
func (s *Server) tellPeers(now []Peer, known map[string]Peer) {
	told := 0
	tell := func(action string, p Peer) bool {
		if told++; told > maxPeerEvents {
			return false
		}
		s.Publish(EventPeer, PeerEvent{action, p})
		return true
	}
	here := make(map[string]bool, len(now))
	for _, p := range now {
		here[p.ID] = true
		before, knew := known[p.ID]
		switch {
		case !knew && !tell("connected", p):
			return
		case p.Ready && !before.Ready && !tell("ready", p):
			known[p.ID] = Peer{ID: p.ID} // that much was told
			return
		}
		known[p.ID] = p
	}
	for id, p := range known {
		if !here[id] {
			if !tell("disconnected", p) {
				return
			}
			delete(known, id)
		}
	}
}

// logBatch is how many lines of the log are taken at once.
const logBatch = 100

// feedLog tells the log.
func (s *Server) feedLog(ctx context.Context, n Node) {
	told := s.begin.log
	for {
		batch := n.LogRecords(told, logBatch)
		for i := range batch.Records {
			s.Publish(EventLog, batch.Records[i])
		}
		told = batch.Last
		if len(batch.Records) > 0 {
			continue
		}
		select {
		case <-ctx.Done():
			return
		case <-batch.Changed:
		}
	}
}

// sleep waits and reports whether ctx let it.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// errNoStream is what a reader of a stream gets that is none.
var errNoStream = errors.New("the answer is no event stream")
