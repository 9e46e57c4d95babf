package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A Route is something that the server answers.
type Route struct {
	Method  string // empty: any
	Pattern string // path, as http.ServeMux writes it
}

// Routes lists what the server answers, in the order of registration, without the catch-all for errors. Tests walk it, so
// that no route is forgotten.
func (s *Server) Routes() []Route { return slices.Clone(s.routed) }

// A router is a mux that remembers its routes.
type router struct {
	*http.ServeMux

	routes []Route
}

func (m *router) note(pattern string) {
	method, path, ok := strings.Cut(pattern, " ")
	if !ok {
		method, path = "", pattern
	}
	m.routes = append(m.routes, Route{Method: method, Pattern: path})
}

// HandleFunc registers a handler, as http.ServeMux does.
func (m *router) HandleFunc(pattern string, handler func(http.ResponseWriter, *http.Request)) {
	m.note(pattern)
	m.ServeMux.HandleFunc(pattern, handler)
}

// Handle registers a handler, as http.ServeMux does.
func (m *router) Handle(pattern string, handler http.Handler) {
	m.note(pattern)
	m.ServeMux.Handle(pattern, handler)
}

// routes builds the mux. The guard stands before it.
func (s *Server) routes() http.Handler {
	mux := &router{ServeMux: http.NewServeMux()}
	mux.HandleFunc("GET /livez", s.getLive)
	mux.HandleFunc("GET /readyz", s.getReady)
	mux.HandleFunc("GET /blocks", s.getBlocks)
	mux.HandleFunc("POST /mineBlock", s.postMineBlock)
	mux.HandleFunc("GET /peers", s.getPeers)
	mux.HandleFunc("POST /addPeer", s.postAddPeer)
	mux.HandleFunc("GET /ws", s.getSocket)
	if s.o.RPC != nil {
		mux.Handle("POST /{$}", s.rpc())
	}
	if s.o.Metrics != nil {
		mux.Handle("GET /metrics", s.o.Metrics)
	}
	if s.o.Pprof {
		s.routesPprof(mux)
	}
	s.routesV1(mux)
	s.routed = mux.routes
	// Whatever is left: another method of a route that there is, or no route.
	mux.ServeMux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		var allow []string
		for _, method := range []string{http.MethodGet, http.MethodPost, http.MethodPut, http.MethodDelete} {
			other := r.Clone(r.Context())
			other.Method = method
			if _, pattern := mux.Handler(other); pattern != "/" && method != r.Method {
				allow = append(allow, method)
			}
		}
		if len(allow) > 0 {
			w.Header().Set("Allow", strings.Join(allow, ", "))
			fail(w, r, http.StatusMethodNotAllowed, "%s takes %s", clip(r.URL.Path), strings.Join(allow, ", "))
			return
		}
		fail(w, r, http.StatusNotFound, "no such route: %s %s", clip(r.Method), clip(r.URL.Path))
	})
	return mux
}

// rpc is the JSON-RPC: its calls may take longer than other answers.
func (s *Server) rpc() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// A recorder in a test has no deadline to move, and needs none.
		_ = http.NewResponseController(w).SetWriteDeadline(time.Time{})
		s.o.RPC.ServeHTTP(deadlined{w}, r)
	})
}

// A deadlined writer gives the answer as long to be taken as all others have, from when
// it is there.
type deadlined struct{ http.ResponseWriter }

// Write implements io.Writer.
func (d deadlined) Write(b []byte) (int, error) {
	_ = http.NewResponseController(d.ResponseWriter).SetWriteDeadline(time.Now().Add(writeTimeout)) // as above
	return d.ResponseWriter.Write(b)
}

// theNode is for routes that the guard lets through only when there is a node.
func (s *Server) theNode() Node { return *s.node.Load() }

func (s *Server) getLive(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	fmt.Fprintln(w, "ok")
}

func (s *Server) getReady(w http.ResponseWriter, r *http.Request) {
	ready, listening, synced := s.readiness()
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	if !ready {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	if r.URL.Query().Has("verbose") {
		for _, check := range [][2]string{{"listening", listening}, {"synced", synced}} {
			if check[1] == "" {
				fmt.Fprintf(w, "[+]%s ok\n", check[0])
			} else {
				fmt.Fprintf(w, "[-]%s: %s\n", check[0], check[1])
			}
		}
	}
	switch {
	case ready:
		fmt.Fprintln(w, "ok")
	case listening != "":
		fmt.Fprintln(w, "not ready: "+listening)
	default:
		fmt.Fprintln(w, "not ready: "+synced)
	}
}

// simpleError answers with the error of a node on a simple route.
func (s *Server) simpleError(w http.ResponseWriter, r *http.Request, err error) {
	status, reason := s.explain(clip(r.URL.Path), err)
	reply(w, status, simpleFault{Message: reason})
}

// explain turns an error of the node into what the caller may know of it.
func (s *Server) explain(operation string, err error) (status int, reason string) {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Status, e.Reason
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return http.StatusGatewayTimeout, "not done in time"
	}
	if errors.Is(err, context.Canceled) {
		return http.StatusServiceUnavailable, "the node is stopping"
	}
	s.log.Error("api request", "operation", operation, "err", err)
	return http.StatusInternalServerError, "internal error; the node's log has it"
}

func (s *Server) getBlocks(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	from, err := queryInt(query.Get("from"), 0, 0, math.MaxInt32)
	if err != nil {
		fail(w, r, http.StatusBadRequest, "from: %v", err)
		return
	}
	count, err := queryInt(query.Get("count"), maxBlocks, 1, math.MaxInt32)
	if err != nil {
		fail(w, r, http.StatusBadRequest, "count: %v", err)
		return
	}
	out := []simpleBlock{}
	err = s.eachBlock(r.Context(), from, min(count, maxBlocks), func(b Block) { out = append(out, simple(b)) })
	if err != nil {
		s.simpleError(w, r, err)
		return
	}
	reply(w, http.StatusOK, out)
}

// eachBlock calls f with up to count blocks of the active chain, ascending.
func (s *Server) eachBlock(ctx context.Context, from, count int, f func(Block)) error {
	n := s.theNode()
	tip, _, _ := n.Tip()
	for height := from; height <= int(tip) && height < from+count; height++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		b, err := n.BlockAt(ctx, int32(height))
		if e, ok := errors.AsType[*Error](err); ok && e.Status == http.StatusNotFound && height > 0 {
			return nil // a reorg has shortened the chain since
		}
		if err != nil {
			return err
		}
		f(b)
	}
	return nil
}

func queryInt(text string, missing, lo, hi int) (int, error) {
	if text == "" {
		return missing, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < lo || n > hi {
		return 0, fmt.Errorf("%q is no integer from %d to %d", clip(text), lo, hi)
	}
	return n, nil
}

// readObject decodes the body into a JSON object; it has answered if it returns false.
func readObject(w http.ResponseWriter, r *http.Request) (map[string]json.RawMessage, bool) {
	raw, err := io.ReadAll(r.Body)
	if err != nil {
		if e, ok := errors.AsType[*http.MaxBytesError](err); ok {
			fail(w, r, http.StatusRequestEntityTooLarge, "the body is larger than %d bytes", e.Limit)
			return nil, false
		}
		fail(w, r, http.StatusBadRequest, "Cannot read request body.")
		return nil, false
	}
	if len(bytes.TrimSpace(raw)) == 0 {
		return nil, true // as an object without keys
	}
	var object map[string]json.RawMessage
	if err := json.Unmarshal(raw, &object); err != nil {
		fail(w, r, http.StatusBadRequest, "Cannot parse request body.")
		return nil, false
	}
	return object, true
}

// scalarText returns a JSON string, or a number or boolean as it is written.
// Empty if it is none of them or an empty string.
func scalarText(raw json.RawMessage) string {
	var s string
	if json.Unmarshal(raw, &s) == nil {
		return s // null leaves it empty
	}
	var n json.Number
	if json.Unmarshal(raw, &n) == nil {
		return n.String()
	}
	var b bool
	if json.Unmarshal(raw, &b) == nil {
		return strconv.FormatBool(b)
	}
	return ""
}

func (s *Server) postMineBlock(w http.ResponseWriter, r *http.Request) {
	object, ok := readObject(w, r)
	if !ok {
		return
	}
	data := scalarText(object["data"])
	if data == "" {
		reply(w, http.StatusBadRequest, simpleFault{Message: "pass value in data key"})
		return
	}
	limit := s.o.MineTimeout
	if text := r.URL.Query().Get("timeout"); text != "" {
		seconds, err := queryInt(text, 0, 1, int(maxMineTimeout/time.Second))
		if err != nil {
			reply(w, http.StatusBadRequest, simpleFault{Message: "timeout: " + err.Error()})
			return
		}
		limit = time.Duration(seconds) * time.Second
	}
	b, err := s.mine(r.Context(), w, data, limit)
	if err != nil {
		s.simpleError(w, r, err)
		return
	}
	reply(w, http.StatusOK, simple(b))
}

// mine makes a block within a time limit. Where stake makes the blocks it waits for a slot
// that this node wins.
func (s *Server) mine(ctx context.Context, w http.ResponseWriter, data string, limit time.Duration) (Block, error) {
	// A recorder in a test has no deadline to move, and needs none.
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(limit + writeTimeout))
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	b, err := s.theNode().MineBlock(ctx, data)
	if _, ok := errors.AsType[*Error](err); err != nil && !ok && errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return Block{}, Errorf(http.StatusGatewayTimeout, "no block found within %v", limit)
	}
	return b, err
}

// endpoints lists the ip:port of every connected peer, inbound too.
func endpoints(peers []Peer) []string {
	out := make([]string, 0, len(peers))
	for _, p := range peers {
		e := p.Endpoint
		if e == "" {
			e = endpoint(p.Addr)
		}
		if e != "" && !slices.Contains(out, e) {
			out = append(out, e)
		}
	}
	return out
}

func (s *Server) getPeers(w http.ResponseWriter, _ *http.Request) {
	reply(w, http.StatusOK, endpoints(s.theNode().Peers()))
}

func (s *Server) postAddPeer(w http.ResponseWriter, r *http.Request) {
	object, ok := readObject(w, r)
	if !ok {
		return
	}
	addr := ""
	if json.Unmarshal(object["peer"], &addr) != nil || addr == "" {
		reply(w, http.StatusBadRequest, simpleFault{Message: "pass value in peer key"})
		return
	}
	if err := CheckPeerAddr(addr); err != nil {
		reply(w, http.StatusBadRequest, simpleFault{Message: err.Error()})
		return
	}
	if err := s.theNode().AddPeer(addr); err != nil {
		s.simpleError(w, r, err)
		return
	}
	reply(w, http.StatusOK, struct {
		Status bool `json:"status"`
	}{true})
}
