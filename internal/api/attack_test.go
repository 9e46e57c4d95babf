package api_test

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"dunlin/internal/api"
)

// exchange sends raw bytes and returns the answers that come back until the server hangs up, at most n of them.
func exchange(t *testing.T, addr, raw string, n int) []answer {
	t.Helper()
	c := dialRaw(t, addr)
	if err := c.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	sent := make(chan struct{})
	go func() { // it may answer and hang up before all is sent
		defer close(sent)
		_, _ = io.WriteString(c, raw)
	}()
	defer func() { c.Close(); <-sent }()
	var out []answer
	from := bufio.NewReader(c)
	for len(out) < n {
		w, err := http.ReadResponse(from, nil)
		if err != nil {
			break
		}
		body, _ := io.ReadAll(w.Body)
		out = append(out, answer{w.StatusCode, strings.TrimSpace(string(body)), w.Header})
		if w.Close {
			break
		}
	}
	return out
}

// What net/http answers by itself, before any handler, is a problem as all else.
func TestOwnAnswersAreProblems(t *testing.T) {
	r := serve(t, newFakeNode(1), nil)
	for _, row := range []struct {
		name, raw string
		want      int
		detail    string
	}{
		{"9 KiB header", "GET /livez HTTP/1.1\r\nHost: localhost\r\nX: " + strings.Repeat("x", 9<<10) + "\r\n\r\n", 431, "the header is longer than 8192 bytes"},
		{"9 KiB of small headers", "GET /livez HTTP/1.1\r\nHost: localhost\r\n" + strings.Repeat("X: y\r\n", 1600) + "\r\n", 431, "longer than 8192"},
		{"9 KiB path", "GET /" + strings.Repeat("x", 9<<10) + " HTTP/1.1\r\nHost: localhost\r\n\r\n", 431, "longer than 8192"},
		{"no host", "GET /livez HTTP/1.1\r\n\r\n", 400, "missing required Host header"},
		{"two hosts", "GET /livez HTTP/1.1\r\nHost: localhost\r\nHost: evil.example.org\r\n\r\n", 400, "Bad Request"},
		{"no HTTP", "hello\r\n\r\n", 400, ""},
		{"another version", "GET /livez HTTP/3.0\r\nHost: localhost\r\n\r\n", 505, ""},
		{"another coding", "POST /mineBlock HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 501, ""},
	} {
		got := exchange(t, r.addr, row.raw, 2)
		if len(got) != 1 {
			t.Errorf("%s: %d answers", row.name, len(got))
			continue
		}
		var problem struct {
			Title, Detail string
			Status        int
		}
		err := json.Unmarshal([]byte(got[0].body), &problem)
		if err != nil || got[0].status != row.want || problem.Status != row.want || problem.Title == "" || !strings.Contains(problem.Detail, row.detail) ||
			got[0].header.Get("Content-Type") != "application/problem+json" {
			t.Errorf("%s: %d %v %s %v, want %d with %q", row.name, got[0].status, got[0].header, got[0].body, err, row.want, row.detail)
		}
	}
}

// No way of writing a path, a version or a length leads around the guard.
func TestTricks(t *testing.T) {
	n := newFakeNode(3)
	r := serve(t, n, func(o *api.Options) { o.RPC, o.Pprof, o.AuthDelay = fakeRPC, true, time.Nanosecond })
	const head = "Host: localhost\r\nContent-Type: application/json\r\n"
	body := func(s string) string { return fmt.Sprintf("Content-Length: %d\r\n\r\n%s", len(s), s) }
	auth := "Authorization: Bearer " + r.token + "\r\n"
	for _, row := range []struct {
		name, raw string
		want      []int // statuses of the answers, in order; 0: none but the connection's end
	}{
		// Paths. A write without the token is 401 however it is written; what is cleaned is told by a redirect.
		{"stop", "POST /api/v1/stop HTTP/1.1\r\n" + head + body(""), []int{401}},
		{"twice the slash", "POST //api/v1/stop HTTP/1.1\r\n" + head + body(""), []int{401}},
		{"out of a probe", "POST /livez/../api/v1/stop HTTP/1.1\r\n" + head + body(""), []int{401}},
		{"encoded dots", "POST /livez/%2e%2e/api/v1/stop HTTP/1.1\r\n" + head + body(""), []int{401}},
		{"encoded slash", "POST /livez%2F..%2Fapi%2Fv1%2Fstop HTTP/1.1\r\n" + head + body(""), []int{401}},
		{"encoded letters", "POST /api/v1/%73top HTTP/1.1\r\n" + head + body(""), []int{401}},
		{"upper case", "POST /API/V1/STOP HTTP/1.1\r\n" + head + body(""), []int{401}},
		{"a profile out of a probe", "GET /livez/../debug/pprof/heap HTTP/1.1\r\n" + head + "\r\n", []int{307}},
		{"a profile with two slashes", "GET //debug/pprof/heap HTTP/1.1\r\n" + head + "\r\n", []int{307}},
		{"a profile, encoded", "GET /%64ebug/pprof/heap HTTP/1.1\r\n" + head + "\r\n", []int{401}},
		{"a profile, encoded slash", "GET /debug%2Fpprof%2Fheap HTTP/1.1\r\n" + head + "\r\n", []int{401}},
		{"no path", "POST * HTTP/1.1\r\n" + head + body(""), []int{401}},
		{"a proxy's request", "GET http://evil.example.org/livez HTTP/1.1\r\n" + head + "\r\n", []int{403}},
		{"a proxy's request to us", "GET http://localhost/livez HTTP/1.1\r\nHost: evil.example.org\r\n\r\n", []int{200}},
		{"a tunnel", "CONNECT evil.example.org:443 HTTP/1.1\r\nHost: evil.example.org:443\r\n\r\n", []int{403}},
		{"a tunnel to us", "CONNECT localhost:443 HTTP/1.1\r\nHost: localhost:443\r\n\r\n", []int{401}},
		{"another method", "PATCH /api/v1/peers HTTP/1.1\r\n" + head + auth + "\r\n", []int{405}},
		{"a method that is none", "TRACE /livez HTTP/1.1\r\n" + head + "\r\n", []int{401}},
		{"a method in small letters", "post /api/v1/stop HTTP/1.1\r\n" + head + body(""), []int{401}},
		{"an override", "GET /api/v1/stop HTTP/1.1\r\nX-HTTP-Method-Override: POST\r\n" + head + "\r\n", []int{405}},
		{"a forwarded address", "POST /api/v1/stop HTTP/1.1\r\nX-Forwarded-For: 127.0.0.1\r\nX-Forwarded-Host: localhost\r\n" + head + body(""), []int{401}},
		{"a zero byte", "GET /livez%00 HTTP/1.1\r\n" + head + "\r\n", []int{404}},
		{"head", "HEAD /api/v1/status HTTP/1.1\r\n" + head + "Connection: close\r\n\r\n", []int{200}},

		// Hosts and origins.
		{"a name that ends in ours", "GET /livez HTTP/1.1\r\nHost: localhost.evil.example.org\r\n\r\n", []int{403}},
		{"a user before it", "GET /livez HTTP/1.1\r\nHost: localhost@evil.example.org\r\n\r\n", []int{400}},
		{"an address of another form", "GET /livez HTTP/1.1\r\nHost: 0x7f000001\r\n\r\n", []int{403}},
		{"HTTP/1.0 without host", "GET /livez HTTP/1.0\r\n\r\n", []int{403}},
		{"two origins", "GET /livez HTTP/1.1\r\nOrigin: http://localhost\r\nOrigin: https://evil.example.org\r\nHost: localhost\r\n\r\n", []int{403}},
		{"an empty origin and a foreign one", "GET /livez HTTP/1.1\r\nOrigin:\r\nOrigin: https://evil.example.org\r\nHost: localhost\r\n\r\n", []int{403}},

		// Versions and lengths.
		{"HTTP/1.0", "GET /livez HTTP/1.0\r\nHost: localhost\r\n\r\n", []int{200}},
		{"HTTP/1.0, kept alive", "GET /livez HTTP/1.0\r\nHost: localhost\r\nConnection: keep-alive\r\n\r\nGET /livez HTTP/1.0\r\nHost: localhost\r\n\r\n", []int{200, 200}},
		{"HTTP/2 preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", []int{403}},
		{"two lengths", "POST /mineBlock HTTP/1.1\r\n" + head + auth + "Content-Length: 12\r\nContent-Length: 13\r\n\r\n{\"data\":\"x\"} ", []int{400}},
		{"length and chunks", "POST /mineBlock HTTP/1.1\r\n" + head + auth + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n", []int{400}},
		{"a negative length", "POST /mineBlock HTTP/1.1\r\n" + head + auth + "Content-Length: -1\r\n\r\n", []int{400}},
		{"a huge length", "POST /mineBlock HTTP/1.1\r\n" + head + auth + "Content-Length: 999999999999999999999\r\n\r\n", []int{400}},
		{"a chunk that lies", "POST /mineBlock HTTP/1.1\r\n" + head + auth + "Transfer-Encoding: chunked\r\n\r\n2\r\n{\"data\":\"x\"}\r\n0\r\n\r\n", []int{400}},
		{"a chunk of a huge length", "POST /mineBlock HTTP/1.1\r\n" + head + auth + "Transfer-Encoding: chunked\r\n\r\nffffffffffffffffffff\r\n", []int{400}},
		{"a chunk of a negative length", "POST /mineBlock HTTP/1.1\r\n" + head + auth + "Transfer-Encoding: chunked\r\n\r\n-1\r\n", []int{400}},
		{"an endless line of a chunk", "POST /mineBlock HTTP/1.1\r\n" + head + auth + "Transfer-Encoding: chunked\r\n\r\n1;" + strings.Repeat("x", 8<<10) + "\r\n", []int{400}},
		{"compressed", "POST /mineBlock HTTP/1.1\r\n" + head + auth + "Content-Encoding: gzip\r\n" + body("\x1f\x8b\x08\x00"), []int{415}},
		{"a body with GET", "GET /livez HTTP/1.1\r\n" + head + body("POST /api/v1/stop HTTP/1.1\r\n\r\n") + "GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", []int{200, 200}},
		{"an expectation", "GET /livez HTTP/1.1\r\nExpect: tea\r\n" + head + "\r\n", []int{417}},

		// Pipelining: answers come in order, and a refusal ends what follows its body.
		{"pipelined", strings.Repeat("GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n", 50), repeat(200, 50)},
		{"pipelined, one refused", "GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\nGET /livez HTTP/1.1\r\nHost: evil.example.org\r\n\r\nGET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n", []int{200, 403, 200}},
		{"pipelined behind a refused body", "POST /api/v1/stop HTTP/1.1\r\n" + head + body("{}") + "GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n", []int{401}},
	} {
		t.Run(row.name, func(t *testing.T) {
			got := exchange(t, r.addr, row.raw, len(row.want))
			if len(got) != len(row.want) {
				t.Fatalf("%d answers, want %v: %v", len(got), row.want, got)
			}
			for i := range got {
				if got[i].status != row.want[i] {
					t.Errorf("answer %d: %d %s, want %v", i, got[i].status, got[i].body, row.want)
				}
			}
		})
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.stopped || len(n.blocks) != 3 {
		t.Errorf("something got through: stopped %v, %d blocks", n.stopped, len(n.blocks))
	}
}

func repeat(v, n int) []int {
	out := make([]int, n)
	for i := range out {
		out[i] = v
	}
	return out
}

// Whoever holds connections open keeps nobody out: a new one takes the place of the one that has waited longest.
func TestGate(t *testing.T) {
	n := newFakeNode(1)
	r := serve(t, n, func(o *api.Options) { o.MaxConnections = 4 })
	live := func(c net.Conn) bool { // answers a request
		if err := c.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
			t.Fatal(err)
		}
		if _, err := fmt.Fprint(c, "GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
			return false
		}
		w, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			return false
		}
		w.Body.Close()
		return w.StatusCode == http.StatusOK
	}
	gone := func(c net.Conn) {
		t.Helper()
		if err := c.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
			t.Fatal(err)
		}
		_, err := io.Copy(io.Discard, c)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			t.Error("a connection that should have made room is still open")
		}
	}
	var slow []net.Conn
	for i := range 12 {
		c := dialRaw(t, r.addr)
		if _, err := fmt.Fprintf(c, "GET /livez HTTP/1.1\r\nHost: localhost\r\nX-Slow: %d", i); err != nil {
			t.Fatal(err)
		}
		slow = append(slow, c)
	}
	if !live(dialRaw(t, r.addr)) {
		t.Fatal("slow headers keep others out")
	}
	for _, c := range slow[:8] {
		gone(c)
	}

	// Requests without credentials make room too; those with credentials never do.
	const mine = "POST /mineBlock HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n%sContent-Length: 12\r\n\r\n{\"data\":\"x\"}"
	n.waits = true
	var busy []net.Conn
	for range 3 {
		c := dialRaw(t, r.addr)
		fmt.Fprintf(c, mine, "Authorization: Bearer "+r.token+"\r\n")
		<-n.waiting
		busy = append(busy, c)
	}
	socket, _ := dialSocket(t, r, "")
	conns := make([]net.Conn, 6)
	for i := range conns {
		conns[i] = dialRaw(t, r.addr)
		if !live(conns[i]) {
			t.Fatalf("no room for connection %d", i)
		}
	}
	if _, _, err := socket.Read(t.Context()); err == nil {
		t.Error("the socket is still there")
	}
	c := dialRaw(t, r.addr)
	fmt.Fprintf(c, mine, "Authorization: Bearer "+r.token+"\r\n")
	<-n.waiting
	busy = append(busy, c)
	gone(dialRaw(t, r.addr)) // every place is taken by somebody who may have it
	busy[0].Close()
	<-n.ended
	until(t, "there is room when one has gone", func() bool { return live(dialRaw(t, r.addr)) })
}

// Of addresses other than loopback each has a share of the connections.
func TestGateShares(t *testing.T) {
	r := serve(t, newFakeNode(1), func(o *api.Options) { o.MaxConnections = 8 })
	if got := api.Crowd(8, "203.0.113.1:1", "203.0.113.1:2", "203.0.113.1:3", "203.0.113.2:1"); got != "ended 203.0.113.1:1, 3 in" {
		t.Error(got)
	}
	if got := api.Crowd(8, "[2001:db8::1]:1", "[2001:db8::2]:2", "[2001:db8::3]:3", "[2001:db8:0:1::3]:1"); got != "ended [2001:db8::1]:1, 3 in" {
		t.Error(got)
	}
	if got := api.Crowd(4, "127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3", "127.0.0.1:4", "[::1]:1"); got != "ended 127.0.0.1:1, 4 in" {
		t.Error(got)
	}
	r.want(r.do("GET", "/livez", ""), 200, "ok")
}

// A thousand connections that send nothing, or a byte, or half a body, or read nothing: others are answered.
func TestThousandConnections(t *testing.T) {
	n := newFakeNode(1000)
	r := serve(t, n, nil)
	for i := range 1000 {
		c := dialRaw(t, r.addr)
		var raw string
		switch {
		case i%50 == 0:
			raw = strings.Repeat("GET /blocks HTTP/1.1\r\nHost: localhost\r\n\r\n", 50) // and never reads
		case i%4 == 1:
			raw = "G"
		case i%4 == 2:
			raw = "GET /livez HTTP/1.1\r\nHost: localhost\r\nX: "
		case i%4 == 3:
			raw = "POST /mineBlock HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
		}
		_, _ = io.WriteString(c, raw) // it may have been closed
		if i%100 == 99 {
			start := time.Now()
			r.want(r.do("GET", "/livez", ""), 200, "ok")
			if took := time.Since(start); took > 30*time.Second {
				t.Errorf("after %d connections an answer took %v", i+1, took)
			}
		}
	}
	got := r.do("GET", "/api/v1/status", "")
	if got.status != 200 {
		t.Errorf("%d %s", got.status, got.body)
	}
}
