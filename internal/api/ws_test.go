package api_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"dunlin/internal/api"
)

// patience is how long a test waits for what must come: much longer than it takes, since
// the machine may have other work.
const patience = 2 * time.Minute

func dialSocket(t *testing.T, r *running, query string, headers ...string) (*websocket.Conn, *http.Response) {
	t.Helper()
	h := http.Header{}
	for _, line := range headers {
		name, value, _ := strings.Cut(line, ": ")
		h.Set(name, value)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	conn, w, err := websocket.Dial(ctx, "ws://"+r.addr+"/ws"+query, &websocket.DialOptions{HTTPHeader: h})
	if err != nil {
		return nil, w
	}
	conn.SetReadLimit(1 << 20)
	t.Cleanup(func() { _ = conn.CloseNow() })
	return conn, w
}

func read(t *testing.T, conn *websocket.Conn) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	_, raw, err := conn.Read(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

func ask(t *testing.T, conn *websocket.Conn, message string) string {
	t.Helper()
	if err := conn.Write(t.Context(), websocket.MessageText, []byte(message)); err != nil {
		t.Fatal(err)
	}
	return read(t, conn)
}

func subscribe(t *testing.T, conn *websocket.Conn) {
	t.Helper()
	got := ask(t, conn, `{"op":"subscribe","args":{"topics":["blocks"]}}`)
	if want := `{"status":200,"error":"OK","response":{"topics":["blocks"]}}`; got != want {
		t.Fatalf("got %s", got)
	}
}

func TestSocketOps(t *testing.T) {
	n := newFakeNode(1)
	n.peers = []api.Peer{{ID: "A", Endpoint: "10.0.0.5:9333"}, {ID: "B", Endpoint: "10.0.0.6:9333", Inbound: true}}
	r := serve(t, n, nil)
	conn, _ := dialSocket(t, r, "?token="+r.token)
	if conn == nil {
		t.Fatal("no connection")
	}
	const noOp = `{"status":500,"error":"Message body is not supported.","response":null}`
	const noJSON = `{"status":500,"error":"Cannot parse request message.","response":null}`
	const noAddr = `{"status":500,"error":"Operation \"register\" requires the following \"args\": \"addr\"","response":null}`
	const accepted = `{"status":202,"error":"Accepted"}`
	many, err := json.Marshal(slices.Repeat([]string{"ws://h/1"}, 101))
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range [][2]string{
		{`{"op":"peers"}`, `{"status":200,"error":"OK","response":{"peers":["10.0.0.5:9333","10.0.0.6:9333"]}}`},
		{`{"op":"register","args":{"addr":"ws://10.0.0.9:5001"}}`, accepted},
		{`{"op":"register","args":{"addr":["` + peerAddr + `","ws://10.0.0.9:5001","nonsense"]}}`, accepted},
		{`{"op":"register","args":{"addr":"wss://node.example.org/ws"}}`, accepted},
		// What is registered is listed as given, once; the connected peer that is among it is not listed again.
		{`{"op":"peers"}`, `{"status":200,"error":"OK","response":{"peers":["ws://10.0.0.9:5001","` + peerAddr + `","wss://node.example.org/ws","10.0.0.6:9333"]}}`},
		{`{"op":"register","args":{"addr":"nonsense"}}`, `{"status":500,"error":"No usable address: \"nonsense\" is neither a multiaddr nor a ws:// or wss:// URL.","response":null}`},
		{`{"op":"register","args":{"addr":["/ip4/10.0.0.7/tcp/1","http://x"]}}`, `{"status":500,"error":"No usable address: \"/ip4/10.0.0.7/tcp/1\" lacks the node's id at its end: /p2p/12D3KooW….","response":null}`},
		{`{"op":"register","args":{"addr":` + string(many) + `}}`, `{"status":500,"error":"Too many addresses: 101, limit 100.","response":null}`},
		{`{"op":"register"}`, noAddr},
		{`{"op":"register","args":{}}`, noAddr},
		{`{"op":"register","args":[]}`, noAddr},
		{`{"op":"register","args":{"addr":""}}`, noAddr},
		{`{"op":"register","args":{"addr":[]}}`, noAddr},
		{`{"op":"register","args":{"addr":null}}`, noAddr},
		{`{"op":"register","args":{"addr":5}}`, noAddr},
		{`{"op":"subscribe"}`, `{"status":500,"error":"Operation \"subscribe\" requires the following \"args\": \"topics\"","response":null}`},
		{`{"op":"subscribe","args":{"topics":["moon"]}}`, `{"status":500,"error":"Topic \"moon\" is not supported.","response":null}`},
		{`{"op":"x"}`, `{"status":404,"error":"Operation \"x\" is not supported.","response":null}`},
		{`{"op":"<x>"}`, `{"status":404,"error":"Operation \"<x>\" is not supported.","response":null}`},
		{`hello`, noJSON},
		{``, noJSON},
		{`{"op":"peers"`, noJSON},
		{`{"op":"peers"} x`, noJSON},
		{`{}`, noOp},
		{`{"op":""}`, noOp},
		{`{"op":5}`, noOp},
		{`[]`, noOp},
		{`null`, noOp},
		{`"peers"`, noOp},
		{`{"args":{"addr":"x"}}`, noOp},
	} {
		if got := ask(t, conn, row[0]); got != row[1] {
			t.Errorf("%s\ngot  %s\nwant %s", row[0], got, row[1])
		}
	}
	if !slices.Equal(n.added, []string{peerAddr}) {
		t.Errorf("dialled %v: URLs are not for dialling", n.added)
	}
	// A long name is not echoed whole.
	if got := ask(t, conn, `{"op":"`+strings.Repeat("x", 10_000)+`"}`); len(got) > 200 {
		t.Errorf("echo of %d bytes", len(got))
	}
}

func TestSocketAccess(t *testing.T) {
	closed := serve(t, newFakeNode(1), nil)
	open := serve(t, newFakeNode(1), func(o *api.Options) { o.Open = true })
	for _, row := range []struct {
		name    string
		r       *running
		query   string
		headers []string
		want    int
	}{
		{"token", closed, "?token=" + closed.token, nil, 101},
		{"header", closed, "", []string{"Authorization: Bearer " + closed.token}, 101},
		{"none", closed, "", nil, 101},
		{"wrong header", closed, "", []string{"Authorization: Bearer x"}, 401},
		{"wrong", closed, "?token=x", nil, 401},
		{"own page", closed, "?token=" + closed.token, []string{"Origin: http://" + closed.addr}, 101},
		{"foreign page", closed, "?token=" + closed.token, []string{"Origin: https://evil.example.org"}, 403},
		{"open", open, "", nil, 101},
		{"open, any page", open, "", []string{"Origin: chrome-extension://abc"}, 101},
		{"open, file", open, "", []string{"Origin: null"}, 101},
	} {
		if _, w := dialSocket(t, row.r, row.query, row.headers...); w == nil || w.StatusCode != row.want {
			t.Errorf("%s: %v, want %d", row.name, w, row.want)
		}
	}
	// Without the token a socket of this machine reads, as everywhere.
	conn, _ := dialSocket(t, closed, "")
	if got := ask(t, conn, `{"op":"peers"}`); !strings.HasPrefix(got, `{"status":200,`) {
		t.Errorf("peers without the token: %s", got)
	}
	subscribe(t, conn)
	if got := ask(t, conn, `{"op":"register","args":{"addr":"`+peerAddr+`"}}`); !strings.HasPrefix(got, `{"status":401,`) {
		t.Errorf("register without the token: %s", got)
	}
	if got := closed.do("GET", "/ws?token="+closed.token, ""); got.status != http.StatusUpgradeRequired {
		t.Errorf("plain GET: %d", got.status)
	}
}

func TestRegisteredAreKept(t *testing.T) {
	home := t.TempDir()
	in := func(o *api.Options) { o.Home = home; o.Open = true }
	r := serve(t, newFakeNode(1), in)
	conn, _ := dialSocket(t, r, "")
	ask(t, conn, `{"op":"register","args":{"addr":"ws://10.0.0.9:5001"}}`)
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	conn, _ = dialSocket(t, serve(t, newFakeNode(1), in), "")
	if got, want := ask(t, conn, `{"op":"peers"}`), `{"status":200,"error":"OK","response":{"peers":["ws://10.0.0.9:5001"]}}`; got != want {
		t.Errorf("got %s", got)
	}
}

func TestRegisteredAreBounded(t *testing.T) {
	r := serve(t, newFakeNode(1), func(o *api.Options) { o.Open = true })
	conn, _ := dialSocket(t, r, "")
	register := func(from, count int) string {
		var addrs []string
		for i := range count {
			addrs = append(addrs, fmt.Sprintf("ws://host/%d", from+i))
		}
		raw, err := json.Marshal(addrs)
		if err != nil {
			t.Fatal(err)
		}
		return ask(t, conn, `{"op":"register","args":{"addr":`+string(raw)+`}}`)
	}
	for i := range 10 {
		if got := register(i*100, 100); !strings.Contains(got, "202") {
			t.Fatalf("%d: %s", i, got)
		}
	}
	if got := register(0, 100); !strings.Contains(got, "202") {
		t.Errorf("known ones again: %s", got)
	}
	if got := register(1000, 1); got != `{"status":500,"error":"No room for more addresses, limit 1000.","response":null}` {
		t.Errorf("past the limit: %s", got)
	}
}

type event struct {
	Event string
	Data  api.Block
}

func TestBlockPush(t *testing.T) {
	n := newFakeNode(3)
	r := serve(t, n, nil)
	conn, _ := dialSocket(t, r, "?token="+r.token)
	silent, _ := dialSocket(t, r, "?token="+r.token)
	subscribe(t, conn)
	n.grow("hello")
	first := read(t, conn)
	if !strings.HasPrefix(first, `{"event":"block","data":{"height":3,"hash":"`) {
		t.Errorf("got %s", first)
	}
	if e := decode[event](t, first); e.Data.Data != "hello" || e.Data.Hash != n.hash(3) {
		t.Errorf("got %+v", e)
	}
	// A reorg tells the blocks of the new branch, ascending.
	n.reorg(1, 4)
	for h := 2; h <= 5; h++ {
		if e := decode[event](t, read(t, conn)); e.Data.Height != int32(h) || e.Data.Hash[0] != 'b' {
			t.Errorf("height %d: %+v", h, e)
		}
	}
	// A jump tells the last of it.
	n.reorg(1, 500)
	if e := decode[event](t, read(t, conn)); e.Data.Height != 402 {
		t.Errorf("first after a jump: %d", e.Data.Height)
	}
	// Who did not ask is told nothing: the next thing it reads is its answer.
	if got := ask(t, silent, `{"op":"peers"}`); !strings.HasPrefix(got, `{"status":200`) {
		t.Errorf("got %s", got)
	}
}

// A client that does not read is dropped, and the others hear everything.
func TestSlowReaderIsDropped(t *testing.T) {
	n := newFakeNode(1)
	r := serve(t, n, nil)
	slow, _ := dialSocket(t, r, "?token="+r.token)
	subscribe(t, slow)
	good, _ := dialSocket(t, r, "?token="+r.token)
	subscribe(t, good)
	data := strings.Repeat("x", 60<<10)
	// Its system and ours buffer some megabytes before the queue of 128 fills.
	for i := range 400 {
		n.grow(data)
		if e := decode[event](t, read(t, good)); e.Data.Height != int32(i+1) {
			t.Fatalf("block %d: %d", i+1, e.Data.Height)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for {
		if _, _, err := slow.Read(ctx); err != nil {
			if ctx.Err() != nil {
				t.Fatal("the slow client is still connected")
			}
			return
		}
	}
}

func TestSocketLimits(t *testing.T) {
	r := serve(t, newFakeNode(1), func(o *api.Options) { o.Open, o.MaxConnections = true, 6 })
	conn, _ := dialSocket(t, r, "")
	at := `{"op":"x"` + strings.Repeat(" ", 64<<10-10) + `}`
	if got := ask(t, conn, at); !strings.HasPrefix(got, `{"status":404`) {
		t.Errorf("at the limit: %s", got)
	}
	if err := conn.Write(t.Context(), websocket.MessageText, []byte(at+" ")); err != nil {
		t.Fatal(err)
	}
	if _, _, err := conn.Read(t.Context()); websocket.CloseStatus(err) != websocket.StatusMessageTooBig {
		t.Errorf("past the limit: %v", err)
	}
	// Half of the connections may be WebSockets.
	for range 2 {
		if c, _ := dialSocket(t, r, ""); c == nil {
			t.Fatal("no connection")
		}
	}
	deadline := time.Now().Add(patience)
	for time.Now().Before(deadline) { // the first may not have been removed yet
		if c, w := dialSocket(t, r, ""); c == nil && w != nil && w.StatusCode == http.StatusServiceUnavailable {
			return
		}
	}
	t.Error("no limit on clients")
}

// The server says goodbye when it stops.
func TestSocketClosesOnStop(t *testing.T) {
	r := serve(t, newFakeNode(1), func(o *api.Options) { o.Open = true })
	conn, _ := dialSocket(t, r, "")
	got := make(chan error, 1)
	go func() {
		_, _, err := conn.Read(t.Context())
		got <- err
	}()
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	if err := <-got; websocket.CloseStatus(err) != websocket.StatusGoingAway {
		t.Errorf("got %v", err)
	}
}

// TestRegisteredURLIsAsked: a URL is dialled when its node tells a multiaddr, at
// registration and again after a restart; one that tells nothing stays listed.
func TestRegisteredURLIsAsked(t *testing.T) {
	far := newFakeNode(1)
	far.addrs = []string{peerAddr, "/ip4/10.0.0.7/tcp/1"} // the second lacks an id
	told := serve(t, far, func(o *api.Options) { o.Open = true })
	mute := serve(t, newFakeNode(1), func(o *api.Options) { o.Open = true })

	home := t.TempDir()
	in := func(o *api.Options) { o.Home = home; o.Open = true }
	added := func(n *fakeNode) {
		t.Helper()
		deadline := time.Now().Add(patience)
		for {
			n.mu.Lock()
			got := slices.Clone(n.added)
			n.mu.Unlock()
			if slices.Equal(got, []string{peerAddr}) {
				return
			}
			if time.Now().After(deadline) || len(got) > 1 {
				t.Fatalf("dialled %v", got)
			}
			<-time.NewTimer(5 * time.Millisecond).C
		}
	}
	first := newFakeNode(1)
	r := serve(t, first, in)
	conn, _ := dialSocket(t, r, "")
	if got := ask(t, conn, `{"op":"register","args":{"addr":["ws://`+mute.addr+`/ws","ws://`+told.addr+`/ws"]}}`); got != `{"status":202,"error":"Accepted"}` {
		t.Fatal(got)
	}
	added(first)
	want := `{"status":200,"error":"OK","response":{"peers":["ws://` + mute.addr + `/ws","ws://` + told.addr + `/ws"]}}`
	if got := ask(t, conn, `{"op":"peers"}`); got != want {
		t.Errorf("got %s", got)
	}
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	second := newFakeNode(1)
	serve(t, second, in)
	added(second)
}

// TestSocketLost: lost transactions go to those who asked for them, and to nobody
// else; what was lost before is not told.
func TestSocketLost(t *testing.T) {
	n := newFakeNode(1)
	n.lose(api.Tx{TxID: strings.Repeat("0", 64), Status: api.TxInvalid})
	r := serve(t, n, nil)
	listener, _ := dialSocket(t, r, "?token="+r.token)
	both, _ := dialSocket(t, r, "?token="+r.token)
	blocks, _ := dialSocket(t, r, "?token="+r.token)
	if listener == nil || both == nil || blocks == nil {
		t.Fatal("no connection")
	}
	got := ask(t, listener, `{"op":"subscribe","args":{"topics":["lost"]}}`)
	if want := `{"status":200,"error":"OK","response":{"topics":["lost"]}}`; got != want {
		t.Fatalf("got %s", got)
	}
	subscribe(t, both)
	got = ask(t, both, `{"op":"subscribe","args":{"topics":["lost","blocks"]}}`)
	if want := `{"status":200,"error":"OK","response":{"topics":["blocks","lost"]}}`; got != want {
		t.Fatalf("got %s", got)
	}
	subscribe(t, blocks)
	n.lose(api.Tx{
		TxID: strings.Repeat("1", 64), Status: api.TxConflicted, SpentBy: strings.Repeat("2", 64), BlockHash: n.hash(0), Height: 0,
		Confirmations: 1, WasHeight: -1,
	})
	want := `{"event":"tx_lost","data":{"txid":"` + strings.Repeat("1", 64) + `","status":"conflicted","block_hash":"` + n.hash(0) +
		`","height":0,"confirmations":1,"spent_by":"` + strings.Repeat("2", 64) + `","was_height":-1}}`
	for _, conn := range []*websocket.Conn{listener, both} {
		if got := read(t, conn); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
	n.grow("x")
	for _, conn := range []*websocket.Conn{both, blocks} {
		if got := read(t, conn); !strings.HasPrefix(got, `{"event":"block"`) {
			t.Errorf("got %s", got)
		}
	}
}

func TestTxRoute(t *testing.T) {
	n := newFakeNode(1)
	id := strings.Repeat("a", 64)
	n.lose(api.Tx{TxID: id, Status: api.TxExpired, Height: -1, WasHeight: -1})
	r := serve(t, n, nil)
	if got := r.do("GET", "/api/v1/tx/"+id, ""); got.status != 200 || !strings.Contains(got.body, `"status":"expired"`) {
		t.Errorf("%+v", got)
	}
	if got := r.do("GET", "/api/v1/tx/"+strings.Repeat("b", 64), ""); got.status != 404 {
		t.Errorf("%+v", got)
	}
	if got := r.do("GET", "/api/v1/tx/12", ""); got.status != 422 {
		t.Errorf("%+v", got)
	}
}
