package api

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/coder/websocket"
)

// Limits of one WebSocket client.
const (
	queueMessages  = 128              // unread messages after which a client is dropped
	socketWrite    = 10 * time.Second // to hand one message to its system
	pingInterval   = 30 * time.Second
	closeTimeout   = 500 * time.Millisecond
	maxPushedBatch = 100 // blocks, or lost transactions, told after one change; older ones are to be asked for
)

// A socketReply answers a WebSocket message. The order of the keys is part of it.
type socketReply struct {
	Status   int             `json:"status"`
	Error    string          `json:"error"`
	Response json.RawMessage `json:"response,omitempty"`
}

var jsonNull = json.RawMessage("null")

func notFound(op string) socketReply {
	return socketReply{404, fmt.Sprintf("Operation \"%s\" is not supported.", op), jsonNull}
}

func failed(why string) socketReply { return socketReply{500, why, jsonNull} }

func missingArgs(op string, names ...string) socketReply {
	return failed(fmt.Sprintf("Operation \"%s\" requires the following \"args\": \"%s\"", op, strings.Join(names, `", "`)))
}

func encode(v any) []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		panic("api: encoding a message of our own: " + err.Error())
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}

// parseMessage takes a WebSocket message apart. If answer is set the message is
// at fault and that is what to answer.
func parseMessage(raw []byte) (op string, args map[string]json.RawMessage, answer *socketReply) {
	if !json.Valid(raw) {
		a := failed("Cannot parse request message.")
		return "", nil, &a
	}
	var message struct {
		Op   json.RawMessage `json:"op"`
		Args json.RawMessage `json:"args"`
	}
	noOp := failed("Message body is not supported.")
	if json.Unmarshal(raw, &message) != nil || json.Unmarshal(message.Op, &op) != nil || op == "" {
		return "", nil, &noOp
	}
	// Args that are no object are none: the operation says what it misses.
	if json.Unmarshal(message.Args, &args) != nil {
		args = nil
	}
	return op, args, nil
}

// A client is one WebSocket connection. Its queue is filled by replies and by
// pushes and emptied by one writer.
type client struct {
	queue  chan []byte
	cancel context.CancelFunc // drops the connection
	writes bool               // it may do more than read

	mu     sync.Mutex // guards topics
	topics topics     // that it wants to hear of
}

// topics is a set of what clients can subscribe to.
type topics uint8

const (
	topicBlocks topics = 1 << iota // new blocks
	topicLost                      // transactions that somebody may count on in vain
)

var topicNames = map[string]topics{"blocks": topicBlocks, "lost": topicLost}

func (c *client) wants(t topics) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.topics&t != 0
}

// A hub knows the connected clients.
type hub struct {
	most  int
	ready chan struct{} // closed when there is a node to watch

	mu      sync.Mutex // guards clients
	clients map[*client]bool
}

func newHub(most int) *hub {
	return &hub{most: most, ready: make(chan struct{}), clients: map[*client]bool{}}
}

func (h *hub) add(c *client) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.clients) >= h.most {
		return false
	}
	h.clients[c] = true
	return true
}

func (h *hub) remove(c *client) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.clients, c)
}

func (h *hub) wanted(t topics) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	for c := range h.clients {
		if c.wants(t) {
			return true
		}
	}
	return false
}

// push queues a message for all that want the topic and drops those whose queue
// is full: they do not read. It never blocks. It returns how many it dropped.
func (h *hub) push(t topics, message []byte) (dropped int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for c := range h.clients {
		if !c.wants(t) {
			continue
		}
		select {
		case c.queue <- message:
		default:
			c.cancel()
			delete(h.clients, c)
			dropped++
		}
	}
	return dropped
}

// getSocket serves one WebSocket client until it goes, stops reading, or the
// server stops. The guard has checked host, origin and token.
func (s *Server) getSocket(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	c := &client{queue: make(chan []byte, queueMessages), cancel: cancel, writes: s.mayWrite(r)}
	if !s.hub.add(c) {
		fail(w, r, http.StatusServiceUnavailable, "too many WebSocket clients, limit %d", s.hub.most)
		return
	}
	defer s.hub.remove(c)
	s.sockets.Add(1)
	defer s.sockets.Done()
	conn, err := websocket.Accept(w, r, &websocket.AcceptOptions{
		InsecureSkipVerify: true, // the guard's check of the origin knows more
	})
	if err != nil {
		s.log.Debug("websocket handshake", "err", err)
		return // Accept has answered
	}
	conn.SetReadLimit(maxBodyBytes)
	raw, _ := r.Context().Value(connKey{}).(net.Conn)
	written := make(chan struct{})
	go func() {
		defer close(written)
		writeSocket(ctx, conn, raw, c.queue)
	}()
	// The writer closes the connection when ctx ends, which ends this read.
	reading := context.WithoutCancel(ctx)
	for {
		_, message, err := conn.Read(reading)
		if err != nil {
			break
		}
		select {
		case c.queue <- encode(s.answerSocket(c, message)):
			continue
		case <-ctx.Done():
		}
		break
	}
	cancel()
	<-written
}

// connKey is the context key of a request's net.Conn.
type connKey struct{}

// writeSocket writes the queue until ctx ends or the client does not take a
// message in time, then closes the connection. raw is what conn runs over.
func writeSocket(ctx context.Context, conn *websocket.Conn, raw net.Conn, queue <-chan []byte) {
	ping := time.NewTicker(pingInterval)
	defer ping.Stop()
	for {
		var err error
		select {
		case <-ctx.Done():
			// Close says goodbye and waits 5 s for the other side's, which a stopping
			// server has no time for; nothing but the deadline makes it hurry.
			if raw == nil || raw.SetDeadline(time.Now().Add(closeTimeout)) != nil {
				_ = conn.CloseNow()
				return
			}
			_ = conn.Close(websocket.StatusGoingAway, "")
			return
		case message := <-queue:
			err = withTimeout(ctx, func(ctx context.Context) error { return conn.Write(ctx, websocket.MessageText, message) })
		case <-ping.C:
			err = withTimeout(ctx, conn.Ping)
		}
		if err != nil {
			_ = conn.CloseNow()
			return
		}
	}
}

func withTimeout(ctx context.Context, f func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, socketWrite)
	defer cancel()
	return f(ctx)
}

func (s *Server) answerSocket(c *client, raw []byte) socketReply {
	op, args, fault := parseMessage(raw)
	if fault != nil {
		return *fault
	}
	switch op {
	case "peers":
		return ok(map[string][]string{"peers": s.knownPeers()})
	case "addrs":
		return ok(map[string][]string{"addrs": orEmpty(s.theNode().Addrs())})
	case "register":
		if !c.writes {
			return socketReply{401, fmt.Sprintf("Operation \"%s\" requires the token: connect to /ws?token=…", op), jsonNull}
		}
		return s.register(args["addr"])
	case "subscribe":
		var names []string
		if args["topics"] == nil || json.Unmarshal(args["topics"], &names) != nil || len(names) == 0 {
			return missingArgs(op, "topics")
		}
		var want topics
		for _, name := range names {
			t, known := topicNames[name]
			if !known {
				return failed(fmt.Sprintf("Topic \"%s\" is not supported.", clip(name)))
			}
			want |= t
		}
		c.mu.Lock()
		c.topics |= want
		have := c.topics
		c.mu.Unlock()
		names = names[:0]
		for name, t := range topicNames {
			if have&t != 0 {
				names = append(names, name)
			}
		}
		slices.Sort(names)
		return ok(map[string][]string{"topics": names})
	}
	return notFound(clip(op))
}

func ok(response any) socketReply {
	return socketReply{200, "OK", encode(response)}
}

// knownPeers lists what was registered, as it was given, and then the connected
// peers that are not among them, as ip:port.
func (s *Server) knownPeers() []string {
	out := s.book.list()
	var known []string
	for _, a := range out {
		known = append(known, endpoint(a))
	}
	for _, e := range endpoints(s.theNode().Peers()) {
		if !slices.Contains(known, e) {
			out = append(out, e)
		}
	}
	return orEmpty(out)
}

// register keeps the usable addresses of a string or a list and has those that
// are multiaddrs dialled.
func (s *Server) register(raw json.RawMessage) socketReply {
	var addrs []string
	var one string
	switch {
	case raw == nil:
		return missingArgs("register", "addr")
	case json.Unmarshal(raw, &one) == nil && one != "":
		addrs = []string{one}
	case json.Unmarshal(raw, &addrs) != nil || len(addrs) == 0:
		return missingArgs("register", "addr")
	case len(addrs) > maxRegisterArgs:
		return failed(fmt.Sprintf("Too many addresses: %d, limit %d.", len(addrs), maxRegisterArgs))
	}
	var usable []string
	var reason error
	for _, a := range addrs {
		if err := checkRegistered(a); err != nil {
			if reason == nil {
				reason = err
			}
			continue
		}
		usable = append(usable, a)
	}
	var dialled []string
	for _, a := range usable {
		if !isURL(a) {
			if err := s.theNode().AddPeer(a); err != nil {
				if reason == nil {
					reason = err
				}
				continue
			}
		}
		dialled = append(dialled, a)
	}
	if len(dialled) == 0 {
		return failed(fmt.Sprintf("No usable address: %v.", reason))
	}
	full, err := s.book.add(dialled)
	if err != nil {
		s.log.Error("api register", "err", err)
		return failed("The addresses could not be kept; the node's log has it.")
	}
	for _, a := range dialled {
		if isURL(a) {
			select {
			case s.urls <- a:
			default: // it is asked at the next start
			}
		}
	}
	if full {
		return failed(fmt.Sprintf("No room for more addresses, limit %d.", maxRegistered))
	}
	return socketReply{Status: 202, Error: "Accepted"}
}

// pushBlocks tells new blocks to the clients that asked for them, until ctx
// ends. It follows the tip even while nobody listens, so that a client hears of
// every block that comes after the answer to its subscription.
func (s *Server) pushBlocks(ctx context.Context) {
	n, ok := s.awaitNode(ctx)
	told := mark{height: -1}
	for ok {
		var now mark
		var changed <-chan struct{}
		now.height, now.hash, changed = n.Tip()
		if told.hash != "" && told != now && s.hub.wanted(topicBlocks) {
			s.tell(ctx, n, told, now)
		}
		told = now
		select {
		case <-ctx.Done():
			return
		case <-changed:
		}
	}
}

// pushLost tells of lost transactions, from when the node was there on.
func (s *Server) pushLost(ctx context.Context) {
	n, ok := s.awaitNode(ctx)
	if !ok {
		return
	}
	_, told, changed := n.LostTxs(0)
	for {
		select {
		case <-ctx.Done():
			return
		case <-changed:
		}
		var lost []Tx
		lost, told, changed = n.LostTxs(told)
		dropped := 0
		for _, tx := range lost[max(0, len(lost)-maxPushedBatch):] {
			dropped += s.hub.push(topicLost, event("tx_lost", tx))
		}
		s.toldDropped(dropped)
	}
}

// awaitNode waits for the node.
func (s *Server) awaitNode(ctx context.Context) (Node, bool) {
	select {
	case <-s.hub.ready:
		return *s.node.Load(), true
	case <-ctx.Done():
		return nil, false
	}
}

// event is a message to those who subscribed to a topic.
func event(name string, data any) []byte {
	return encode(struct {
		Event string `json:"event"`
		Data  any    `json:"data"`
	}{name, data})
}

// toldDropped logs that clients were dropped.
func (s *Server) toldDropped(clients int) {
	if clients > 0 {
		s.log.Warn("websocket clients dropped that do not read", "clients", clients)
	}
}

// A mark is a block by height and hash.
type mark struct {
	height int32
	hash   string
}

// tell pushes the blocks that lead from the tip told before to the one of now,
// ascending: after a reorg those of the new branch, after a jump the last
// maxPushedBatch.
func (s *Server) tell(ctx context.Context, n Node, told, now mark) {
	batch, err := path(ctx, n, told, now)
	if err != nil {
		if ctx.Err() == nil {
			s.log.Warn("api push", "hash", now.hash, "err", err)
		}
		return
	}
	dropped := 0
	for _, b := range batch {
		dropped += s.hub.push(topicBlocks, event("block", b))
	}
	s.toldDropped(dropped)
}

// path returns the last blocks of the branch of to that are not on the branch of
// from, at most maxPushedBatch, ascending.
func path(ctx context.Context, n Node, from, to mark) ([]Block, error) {
	var batch []Block
	for to.height >= 0 && len(batch) < maxPushedBatch {
		for from.height > to.height {
			b, err := n.BlockByHash(ctx, from.hash)
			if err != nil {
				return nil, err
			}
			from = mark{from.height - 1, b.PreviousHash}
		}
		if from == to {
			break
		}
		b, err := n.BlockByHash(ctx, to.hash)
		if err != nil {
			return nil, err
		}
		batch = append(batch, b)
		to = mark{to.height - 1, b.PreviousHash}
	}
	slices.Reverse(batch)
	return batch, nil
}
