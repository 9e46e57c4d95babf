package api

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"sync"

	"github.com/danielgtaylor/huma/v2"
)

// perSourceShare is the part of all connections that one address (of IPv6 a /64) may have, loopback aside: a
// machine's own programs share an address with its operator.
const perSourceShare = 4

// stage is what a connection is at; what waits is closed first when there is no room.
type stage int

const (
	waiting   stage = iota // for a request, or for the rest of one's header
	anonymous              // a handler works on a request without credentials
	known                  // a handler works on a request with credentials: never closed
	stages
)

// A gate is a listener with room for so many connections. When there is none, a new one takes the place of the
// connection that has waited longest, else of the one whose request without credentials is oldest: whoever holds
// connections open keeps nobody out. It is refused only if every connection works for somebody with credentials.
type gate struct {
	net.Listener
	most, perSource int

	mu     sync.Mutex // guards what follows, and the stage and turn of the connections
	turn   uint64     // of the last change
	conns  map[*gated]bool
	counts map[netip.Prefix]int
	// ended counts connections closed to make room, refused those that found none.
	ended, refused uint64
}

func newGate(l net.Listener, most int) *gate {
	return &gate{
		Listener: l, most: most, perSource: max(1, most/perSourceShare),
		conns: make(map[*gated]bool), counts: make(map[netip.Prefix]int),
	}
}

// A gated connection is one that the gate has let in.
type gated struct {
	net.Conn
	gate *gate
	from netip.Prefix // invalid: not counted

	stage stage
	turn  uint64 // of its last change of stage
}

// Accept implements net.Listener.
func (g *gate) Accept() (net.Conn, error) {
	for {
		c, err := g.Listener.Accept()
		if err != nil {
			return nil, err
		}
		n := &gated{Conn: c, gate: g, from: source(c.RemoteAddr().String())}
		if n.from.IsValid() && n.from.Addr().IsLoopback() {
			n.from = netip.Prefix{}
		}
		victim, room := g.enter(n)
		if victim != nil {
			_ = victim.Conn.Close() // it is in nobody's way any more
		}
		if room {
			return n, nil
		}
		_ = c.Close()
	}
}

// enter makes a connection one of the gate's. The victim, if any, is no longer one and is to be closed.
func (g *gate) enter(n *gated) (victim *gated, room bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	crowded := n.from.IsValid() && g.counts[n.from] >= g.perSource
	if crowded || len(g.conns) >= g.most {
		if victim = g.oldest(crowded, n.from); victim == nil {
			g.refused++
			return nil, false
		}
		g.remove(victim)
		g.ended++
	}
	g.turn++
	n.turn = g.turn
	g.conns[n] = true
	if n.from.IsValid() {
		g.counts[n.from]++
	}
	return victim, true
}

// oldest is the connection that is to go, if only those of one source come into question, from it.
func (g *gate) oldest(only bool, from netip.Prefix) *gated {
	var best [known]*gated
	for c := range g.conns {
		if c.stage < known && (!only || c.from == from) && (best[c.stage] == nil || c.turn < best[c.stage].turn) {
			best[c.stage] = c
		}
	}
	for _, c := range best {
		if c != nil {
			return c
		}
	}
	return nil
}

func (g *gate) remove(c *gated) {
	if !g.conns[c] {
		return
	}
	delete(g.conns, c)
	if c.from.IsValid() {
		if g.counts[c.from]--; g.counts[c.from] == 0 {
			delete(g.counts, c.from)
		}
	}
}

// stats counts connections by stage, and what became of those that found no room.
func (g *gate) stats() (now [stages]int, ended, refused uint64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for c := range g.conns {
		now[c.stage]++
	}
	return now, g.ended, g.refused
}

// enters says what a connection is at from now on.
func (c *gated) enters(s stage) {
	c.gate.mu.Lock()
	defer c.gate.mu.Unlock()
	c.gate.turn++
	c.stage, c.turn = s, c.gate.turn
}

// Close implements net.Conn.
func (c *gated) Close() error {
	c.gate.mu.Lock()
	c.gate.remove(c)
	c.gate.mu.Unlock()
	return c.Conn.Close()
}

// CloseWrite is what net/http looks for to let a last answer arrive.
func (c *gated) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}

// Write implements net.Conn. The few answers that net/http gives by itself, before any handler, become problems as
// all others are (RFC 9457). Over TLS they pass here encrypted and stay what they are.
func (c *gated) Write(b []byte) (int, error) {
	if p := problemOf(b); p != nil {
		if _, err := c.Conn.Write(p); err != nil {
			return 0, err
		}
		return len(b), nil
	}
	return c.Conn.Write(b)
}

// cannedHeader follows the status line of what net/http says by itself. Answers of handlers have other headers first.
const (
	maxCannedBytes = 512 // what net/http says by itself is shorter
	cannedHeader   = "\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n"
)

// problemOf turns an answer of net/http itself into a problem; nil if b is none.
func problemOf(b []byte) []byte {
	rest, isHTTP := bytes.CutPrefix(b, []byte("HTTP/1.1 "))
	if !isHTTP || len(rest) > maxCannedBytes {
		return nil
	}
	head, text, ok := bytes.Cut(rest, []byte(cannedHeader))
	line := string(head)
	if !ok || strings.ContainsAny(line, "\r\n") || len(line) < 3 {
		return nil
	}
	status, err := strconv.Atoi(line[:3])
	if err != nil {
		return nil
	}
	_, detail, found := bytes.Cut(text, []byte(": "))
	if !found {
		detail = []byte(http.StatusText(status))
	}
	if status == http.StatusRequestHeaderFieldsTooLarge {
		detail = []byte("the header is longer than " + strconv.Itoa(maxHeaderBytes) + " bytes")
	}
	body, err := json.Marshal(&huma.ErrorModel{Title: http.StatusText(status), Status: status, Detail: string(detail)})
	if err != nil {
		return nil
	}
	return []byte("HTTP/1.1 " + line + "\r\nContent-Type: application/problem+json\r\nX-Content-Type-Options: nosniff\r\nCache-Control: no-store\r\nConnection: close\r\nContent-Length: " +
		strconv.Itoa(len(body)) + "\r\n\r\n" + string(body))
}

// gateOf finds the gate's connection under a request's; nil in tests without one.
func gateOf(c net.Conn) *gated {
	if t, ok := c.(*tls.Conn); ok {
		c = t.NetConn()
	}
	g, _ := c.(*gated)
	return g
}
