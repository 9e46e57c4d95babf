package api

import (
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
)

// guard lets only those requests through that may reach a handler: the right
// host name, no foreign page, the token where it is wanted, JSON of a bounded
// size, and a node that is there.
func (s *Server) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Cache-Control", "no-store")
		h.Set(instanceHeader, s.instance)
		if !s.hostAllowed(r.Host) {
			fail(w, r, http.StatusForbidden, "host %q is not served here; use an IP address or localhost, or add the name to rpc.allowed_hosts", clip(r.Host))
			return
		}
		tutorial := r.URL.Path == "/ws"
		socket := tutorial || r.URL.Path == eventSocketPath
		// A page has one origin: with several, none is believed.
		if origin := strings.Join(r.Header.Values("Origin"), ", "); origin != "" {
			// An open server lets any page's WebSocket in, as the tutorials'
			// clients come from browser extensions and local files.
			if !s.originAllowed(origin, r) && (!s.o.Open || !tutorial) {
				fail(w, r, http.StatusForbidden, "origin %q may not call this node; add it to rpc.allowed_origins", clip(origin))
				return
			}
			h.Set("Access-Control-Allow-Origin", origin)
			h.Add("Vary", "Origin")
			if r.Method == http.MethodOptions && r.Header.Get("Access-Control-Request-Method") != "" {
				h.Set("Access-Control-Allow-Methods", "GET, POST, PUT, DELETE")
				h.Set("Access-Control-Allow-Headers", "Authorization, Content-Type")
				h.Set("Access-Control-Max-Age", "600")
				w.WriteHeader(http.StatusNoContent)
				return
			}
		}
		v := s.judge(r, socket)
		if v.wrong {
			s.deter(r)
		}
		switch v.status {
		case 0:
		case http.StatusUnauthorized:
			h.Set("WWW-Authenticate", challenge(r))
		case http.StatusTooManyRequests:
			h.Set("Retry-After", strconv.Itoa(int(triesRefill.Seconds())))
		}
		if v.status != 0 {
			fail(w, r, v.status, "%s", v.reason)
			return
		}
		if !isRead(r) && r.ContentLength != 0 {
			if reason := refusedBody(r, v.caller); reason != "" {
				fail(w, r, http.StatusUnsupportedMediaType, "%s", reason)
				return
			}
		}
		limit := s.bodyLimit(r)
		if r.ContentLength > limit {
			fail(w, r, http.StatusRequestEntityTooLarge, "the body has %d bytes, limit %d", r.ContentLength, limit)
			return
		}
		r.Body = &arrivedBody{ReadCloser: http.MaxBytesReader(w, r.Body, limit), w: w}
		if s.node.Load() == nil && !answersWhileStarting(r.URL.Path) {
			h.Set("Retry-After", "1")
			fail(w, r, http.StatusServiceUnavailable, "the node is starting")
			return
		}
		if c, ok := r.Context().Value(connKey{}).(net.Conn); ok {
			if g := gateOf(c); g != nil {
				at := anonymous
				if v.caller.name != "" {
					at = known
				}
				g.enters(at)
				defer g.enters(waiting)
			}
		}
		next.ServeHTTP(w, r.WithContext(WithCaller(r.Context(), v.caller)))
	})
}

// refusedBody says what is wrong with the form of a body, by its headers; "" nothing. Core's and btcd's clients send
// JSON and say so; scripts after Core's old documentation say text/plain, and some say nothing. Those forms a page of
// a foreign site can send too, so they are taken of callers with credentials only.
func refusedBody(r *http.Request, c Caller) string {
	if e := r.Header.Get("Content-Encoding"); e != "" && !strings.EqualFold(e, "identity") {
		return "content encoding " + clip(e) + " is not taken: send the body as it is"
	}
	text := r.Header.Get("Content-Type")
	kind, _, err := mime.ParseMediaType(text)
	if err == nil && kind == "application/json" {
		return ""
	}
	if accessOf(r) == toCall && c.name != "" && (text == "" || err == nil && kind == "text/plain") {
		return ""
	}
	return "the body must be JSON and say so (curl -H 'Content-Type: application/json')"
}

// An arrivedBody lifts the read deadline once the body is there. net/http goes on
// reading, to notice a client that goes away, and would take the deadline for
// that: a handler that waits (for a block to be mined) would be cancelled.
type arrivedBody struct {
	io.ReadCloser
	w http.ResponseWriter
}

// Read implements io.Reader.
func (b *arrivedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if errors.Is(err, io.EOF) {
		// A recorder in a test has no deadline to move, and needs none.
		_ = http.NewResponseController(b.w).SetReadDeadline(time.Time{})
	}
	return n, err
}

func isRead(r *http.Request) bool {
	return r.Method == http.MethodGet || r.Method == http.MethodHead || r.Method == http.MethodOptions
}

func answersWhileStarting(path string) bool {
	switch path {
	case "/livez", "/readyz", "/metrics", "/api/v1/status", "/api/v1/openapi.json", accessPath:
		return true
	}
	return isDashboard(path)
}

// hostAllowed refuses names that a foreign DNS server may have bound to our
// address. An IP address cannot be rebound.
func (s *Server) hostAllowed(hostport string) bool {
	host := hostport
	if h, _, err := net.SplitHostPort(hostport); err == nil {
		host = h
	}
	host = strings.TrimSuffix(strings.ToLower(host), ".")
	if _, err := netip.ParseAddr(strings.Trim(host, "[]")); err == nil || host == "localhost" {
		return true
	}
	return slices.Contains(s.hosts, host)
}

// originAllowed is true for the node's own pages and for those of the list.
func (s *Server) originAllowed(origin string, r *http.Request) bool {
	if slices.Contains(s.o.AllowedOrigins, origin) {
		return true
	}
	u, err := url.Parse(origin)
	if err != nil || u.Host == "" {
		return false
	}
	scheme := "http"
	if r.TLS != nil {
		scheme = "https"
	}
	return u.Scheme == scheme && strings.EqualFold(u.Host, r.Host)
}

// givesToken says whether a request comes with any credentials. Of a browser's WebSocket they can only be in the query.
func givesToken(r *http.Request, socket bool) bool {
	return r.Header.Get("Authorization") != "" || socket && r.URL.Query().Get("token") != ""
}

// mayWrite says whether a socket that the guard let through may do more than
// read. Credentials that it came with have been checked.
func (s *Server) mayWrite(r *http.Request) bool {
	c, _ := CallerOf(r.Context())
	return s.o.Open || c.name != "" && c.may(toWrite)
}

// bodyLimit is in bytes: blocks and transactions travel as hex.
func (s *Server) bodyLimit(r *http.Request) int64 {
	switch {
	case bigWalletBody(r.URL.Path):
		return maxWalletBytes
	}
	switch r.URL.Path {
	case "/api/v1/chain/blocks", "/api/v1/tx":
		return s.submitLimit()
	case "/api/v1/peers/book":
		return 2 * maxImportBytes // quotes are escaped
	case "/":
		return s.o.MaxRPCBytes
	}
	return maxBodyBytes
}

func (s *Server) submitLimit() int64 { return 2*int64(s.o.MaxBlockBytes) + 1024 }

// simpleFault is an error on the simple routes.
type simpleFault struct {
	Status  bool   `json:"status"`
	Message string `json:"message"`
}

// fail answers with an error in the form of the route: RFC 9457 under /api/v1,
// the tutorials' form elsewhere.
func fail(w http.ResponseWriter, r *http.Request, status int, format string, args ...any) {
	e := Errorf(status, format, args...)
	if r.ContentLength != 0 {
		w.Header().Set("Connection", "close") // nobody waits for the rest of a body that is refused
	}
	if strings.HasPrefix(r.URL.Path, "/api/") {
		w.Header().Set("Content-Type", "application/problem+json")
		w.WriteHeader(status)
		writeJSON(w, &huma.ErrorModel{Title: http.StatusText(status), Status: status, Detail: e.Reason})
		return
	}
	reply(w, status, simpleFault{Message: e.Reason})
}

func reply(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	writeJSON(w, v)
}

// writeJSON leaves <, > and & alone: nothing here is embedded in HTML. An error
// is the caller having gone, which the server notices by itself.
func writeJSON(w http.ResponseWriter, v any) {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	_ = e.Encode(v)
}

// maxEchoBytes bounds how much of a request an answer repeats.
const maxEchoBytes = 64

func clip(s string) string {
	if len(s) <= maxEchoBytes {
		return strings.ToValidUTF8(s, "\uFFFD")
	}
	return strings.ToValidUTF8(s[:maxEchoBytes], "") + "…"
}
