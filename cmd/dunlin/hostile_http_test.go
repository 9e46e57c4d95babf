package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// TestE2EHostileHTTP attacks the HTTP interface of a real daemon from the same
// machine; an operator is answered meanwhile.
func TestE2EHostileHTTP(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, "target", "--network", "regtest")
	siege := besiege(t, d)
	dial := func(t *testing.T) net.Conn {
		t.Helper()
		var dialer net.Dialer
		c, err := dialer.DialContext(t.Context(), "tcp", d.info.RPCAddr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		_ = c.SetDeadline(time.Now().Add(patience))
		return c
	}
	// ask sends a raw request and returns the status of the answer.
	ask := func(t *testing.T, request string, body io.Reader) int {
		t.Helper()
		c := dial(t)
		go func() { // it may answer and hang up before all is there
			_, _ = io.WriteString(c, request)
			if body != nil {
				_, _ = io.Copy(c, body)
			}
		}()
		res, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Fatalf("no answer: %v", err)
		}
		defer res.Body.Close()
		return res.StatusCode
	}
	token, err := os.ReadFile(filepath.Join(d.home, "api.cookie"))
	if err != nil {
		t.Fatal(err)
	}
	host := "Host: " + d.info.RPCAddr + "\r\n"
	auth := "Authorization: Bearer " + strings.TrimSpace(string(token)) + "\r\nContent-Type: application/json\r\n"
	endless := strings.NewReader(strings.Repeat("1000\r\n"+strings.Repeat(" ", 4096)+"\r\n", 8448)) // 33 MiB in chunks
	for _, tc := range []struct {
		name    string
		request string
		body    io.Reader
		want    []int
	}{
		{"33 MiB announced", "POST /mineBlock HTTP/1.1\r\n" + host + auth + "Content-Length: 34603008\r\n\r\n", nil, []int{413}},
		{"33 MiB in chunks", "POST /mineBlock HTTP/1.1\r\n" + host + auth + "Transfer-Encoding: chunked\r\n\r\n", endless, []int{400, 413}},
		{"a header of 16 KiB", "GET /livez HTTP/1.1\r\n" + host + "X: " + strings.Repeat("x", 16<<10) + "\r\n\r\n", nil, []int{431}},
		{"another host's name", "GET /api/v1/status HTTP/1.1\r\nHost: evil.example\r\n\r\n", nil, []int{403}},
		{"another origin", "GET /api/v1/status HTTP/1.1\r\n" + host + "Origin: http://evil.example\r\n\r\n", nil, []int{403}},
		{"another origin's socket", "GET /ws HTTP/1.1\r\n" + host + "Origin: http://evil.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" +
			"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n", nil, []int{403}},
		{"no token", "POST /mineBlock HTTP/1.1\r\n" + host + "Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{}", nil, []int{401}},
		{"no HTTP at all", "\x16\x03\x01\x02\x00 hello\r\n\r\n", nil, []int{400}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			code := ask(t, tc.request, tc.body)
			if !slices.Contains(tc.want, code) {
				t.Errorf("status %d, want %d", code, tc.want)
			}
		})
	}

	// Requests that never end, and sockets that are told of blocks and never read.
	for range 150 {
		c := dial(t)
		if _, err := fmt.Fprintf(c, "GET /livez HTTP/1.1\r\n%sX-Slow: ", host); err != nil {
			t.Fatal(err)
		}
	}
	var sockets []*websocket.Conn
	for range 40 {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		c, res, err := websocket.Dial(ctx, "ws://"+d.info.RPCAddr+"/ws?token="+strings.TrimSpace(string(token)), nil)
		cancel()
		if err != nil {
			t.Fatal(err)
		}
		if res.Body != nil {
			res.Body.Close()
		}
		sockets = append(sockets, c)
		if err := c.Write(t.Context(), websocket.MessageText, []byte(`{"op":"subscribe","args":{"topics":["blocks"]}}`)); err != nil {
			t.Fatal(err)
		}
	}
	d.mine(200)
	if s := d.mustStatus(); s.Height != 200 {
		t.Errorf("height %d", s.Height)
	}
	for _, c := range sockets {
		_ = c.CloseNow()
	}
	siege.lift(t, 400)
}
