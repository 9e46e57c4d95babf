// Package jsonrpc answers Bitcoin Core's JSON-RPC, so that programs written for
// Core or btcd drive this node: wallets, explorers, miners, scripts.
//
// Names, arguments (positional or named), results and error codes are those of
// Bitcoin Core 28 (its RPC help is the reference). What differs: peers are
// libp2p's, so their addresses are multiaddrs where Core takes host:port too;
// private keys never leave the wallet; blocks of a proof-of-stake
// network have their seal after the header, as on disk.
//
// Whoever serves it authenticates the caller first. A handler keeps no state of
// the chain: everything is asked for at the moment of the call.
package jsonrpc

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/btcsuite/btcd/chaincfg/v2"
	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/wire/v2"
	"golang.org/x/sync/semaphore"

	"dunlin/chain"
	"dunlin/chain/consensus"
	"dunlin/chain/mempool"
	"dunlin/chain/mining"
	"dunlin/internal/address"
	"dunlin/internal/api"
	"dunlin/internal/wallet"
)

// Limits of the handler. The body's length is bounded by whoever serves it.
const (
	// MaxBodyBytes is the longest request: Core's MAX_SIZE.
	MaxBodyBytes = 32 << 20
	// maxBatch bounds the calls of one batch. Core has no limit.
	maxBatch = 10_000
	// maxAnswerBytes ends a batch whose answers have grown beyond it: what follows
	// is answered with an error.
	maxAnswerBytes = 64 << 20
	// workers is how many requests are worked on at once (Core: -rpcthreads=16);
	// others wait for their turn. A long poll does not count.
	workers = 16
	// freeBodyBytes is what a body may have without waiting for memory; longer ones
	// share maxBodiesBytes while they are read and worked on.
	freeBodyBytes  = 1 << 20
	maxBodiesBytes = 4 * MaxBodyBytes
)

// Node is what the handler wants of the node beside its ledger.
type Node interface {
	Status() api.Status
	Peers() []api.Peer
	AddPeer(addr string) error
	// Disconnect ends the connections to a peer, *api.Error 404 if there are none.
	Disconnect(id string) error
	Bans() []api.Ban
	Ban(target string, how time.Duration, reason string) (api.Ban, error)
	Unban(target string) error
	// SubmitBlock hands a block in and waits for its verdict, and has it flooded.
	SubmitBlock(ctx context.Context, raw []byte) (chain.Verdict, error)
	Invalidate(ctx context.Context, hash string) error
	Reconsider(ctx context.Context, hash string) error
	// SubmitTx hands a transaction to the mempool and has it told to others.
	// *consensus.RuleError: refused.
	SubmitTx(ctx context.Context, tx *wire.MsgTx) error
	// FindTx finds the block that has a transaction, on whatever branch, in the transaction
	// index; false: it has it not, or is off.
	FindTx(id chainhash.Hash) (block chainhash.Hash, ok bool, err error)
	// Indexes tells how far the optional indexes are.
	Indexes() []api.IndexStatus
	Addrs() []string
	// Staking is how blocks are made here by stake; *api.Error 409 where work makes them.
	Staking(history int) (api.Staking, error)
	Stop()
}

// Options configure New. All but the last three are required.
type Options struct {
	Chain  *chain.Chain
	Engine consensus.Engine
	Pool   *mempool.Pool
	Miner  *mining.Miner
	Node   Node
	Wallet *wallet.Wallet // nil: none

	Agent    string           // "dunlin/0.1.0", for subversion
	Warnings func() []string  // what the operator should know; default: nothing
	Now      func() time.Time // default time.Now
	Logger   *slog.Logger     // default: discards
}

// Handler answers POST requests. All methods are safe for concurrent use.
type Handler struct {
	o       Options
	params  *consensus.Params
	addr    *chaincfg.Params
	methods map[string]*method
	names   []string // sorted
	started time.Time
	turns   chan struct{}       // a token a request that is worked on
	scan    chan struct{}       // a token for the one walk over all coins
	bodies  *semaphore.Weighted // bytes
	peerIDs peerNumbers

	mu      sync.Mutex // guards what follows
	active  map[*call]time.Time
	scanned *coinScan // the scantxoutset under way; nil: none
}

// New returns a handler. It starts nothing.
func New(o Options) (*Handler, error) {
	if o.Chain == nil || o.Engine == nil || o.Pool == nil || o.Miner == nil || o.Node == nil {
		return nil, errors.New("jsonrpc: chain, engine, pool, miner and node are required")
	}
	if o.Warnings == nil {
		o.Warnings = func() []string { return nil }
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	h := &Handler{
		o: o, params: o.Chain.Params(), addr: address.Params(o.Chain.Params()), started: o.Now(),
		turns: make(chan struct{}, workers), scan: make(chan struct{}, 1),
		bodies:  semaphore.NewWeighted(maxBodiesBytes),
		methods: make(map[string]*method), active: make(map[*call]time.Time),
	}
	for _, group := range []struct {
		category string
		methods  []method
	}{
		{"Blockchain", chainMethods},
		{"Control", controlMethods},
		{"Mining", miningMethods},
		{"Network", networkMethods},
		{"Rawtransactions", txMethods},
		{"Util", utilMethods},
		{"Wallet", walletMethods},
	} {
		for _, m := range group.methods {
			m.category = group.category
			h.methods[m.name] = &m
			h.names = append(h.names, m.name)
		}
	}
	slices.Sort(h.names)
	return h, nil
}

// A method is one entry of Core's RPC help.
type method struct {
	name     string
	category string
	// params are the arguments' names in their order, those from the first with a
	// question mark on optional: "blockhash verbosity|verbose?", which has two names.
	params string
	help   string
	run    func(*call) (any, error)
}

func (m *method) names() []string {
	names := strings.Fields(m.params)
	for i := range names {
		names[i], _, _ = strings.Cut(strings.TrimSuffix(names[i], "?"), "|")
	}
	return names
}

// index is the place of the argument with a name; -1: there is none.
func (m *method) index(name string) int {
	return slices.IndexFunc(strings.Fields(m.params), func(p string) bool {
		return slices.Contains(strings.Split(strings.TrimSuffix(p, "?"), "|"), name)
	})
}

func (m *method) required() int {
	n := 0
	for name := range strings.FieldsSeq(m.params) {
		if !strings.HasSuffix(name, "?") {
			n++
		}
	}
	return n
}

// ServeHTTP implements http.Handler. The answer's HTTP status is Core's: 200, for
// older clients 500, 404 or 400 with an error, 204 without an answer, 403 without a
// word for a call that the caller may not make.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if size := bodySize(r); size > freeBodyBytes {
		if err := h.bodies.Acquire(r.Context(), size); err != nil {
			return // the caller is gone
		}
		defer h.bodies.Release(size)
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		if tooLong, ok := errors.AsType[*http.MaxBytesError](err); ok {
			h.write(w, http.StatusRequestEntityTooLarge, oneAnswer(nil, nil, fault(codeInvalidRequest, "the request is longer than %d bytes", tooLong.Limit)))
			return
		}
		return // the caller is gone
	}
	body = bytes.TrimSpace(body)
	batch, e := read(body)
	switch {
	case e != nil:
		h.fail(w, nil, e)
	case batch:
		h.serveBatch(w, r, body)
	default:
		h.serveOne(w, r, body)
	}
}

// bodySize is the most that a request's body can have.
func bodySize(r *http.Request) int64 {
	if r.ContentLength >= 0 {
		return min(r.ContentLength, MaxBodyBytes)
	}
	return MaxBodyBytes
}

// fail answers with an error as an HTTP status.
func (h *Handler) fail(w http.ResponseWriter, req *request, e *Error) {
	status := http.StatusInternalServerError
	switch e.Code {
	case codeMethodNotFound:
		status = http.StatusNotFound
	case codeInvalidRequest:
		status = http.StatusBadRequest
	}
	h.write(w, status, oneAnswer(req, nil, e))
}

// serveOne answers a single call.
func (h *Handler) serveOne(w http.ResponseWriter, r *http.Request, body []byte) {
	req, e := parse(body)
	if e != nil {
		h.fail(w, req, e)
		return
	}
	if !mayCall(r.Context(), req.method) {
		h.forbid(w, r, req.method)
		return
	}
	result, e := h.answer(r.Context(), req)
	switch {
	case req.notification():
		w.WriteHeader(http.StatusNoContent)
	case e == nil || req.modern:
		h.write(w, http.StatusOK, oneAnswer(req, result, e))
	default:
		h.fail(w, req, e)
	}
}

// forbid refuses a call, or a batch with it, as Core does: without a body.
func (h *Handler) forbid(w http.ResponseWriter, r *http.Request, method string) {
	caller, _ := api.CallerOf(r.Context())
	h.o.Logger.Debug("json-rpc call not allowed", "user", caller.Name(), "method", clip(method))
	w.WriteHeader(http.StatusForbidden)
}

// serveBatch answers an array of calls, one after the other.
func (h *Handler) serveBatch(w http.ResponseWriter, r *http.Request, body []byte) {
	var raw []json.RawMessage
	if err := json.Unmarshal(body, &raw); err != nil {
		h.fail(w, nil, errParse)
		return
	}
	reqs, faults := make([]*request, len(raw)), make([]*Error, len(raw))
	for i, one := range raw {
		reqs[i], faults[i] = parse(one)
		if faults[i] == nil && !mayCall(r.Context(), reqs[i].method) {
			h.forbid(w, r, reqs[i].method)
			return
		}
	}
	answers, size := []json.RawMessage{}, 0
	for i, req := range reqs {
		if r.Context().Err() != nil {
			return
		}
		var result json.RawMessage
		e := faults[i]
		switch {
		case e != nil:
		case size > maxAnswerBytes:
			e = fault(codeMisc, "the answers to this batch are longer than %d bytes", maxAnswerBytes)
		default:
			result, e = h.answer(r.Context(), req)
		}
		if req.notification() {
			continue
		}
		a := oneAnswer(req, result, e)
		size += len(a)
		answers = append(answers, a)
	}
	// Of an empty batch Core says so, for clients older than 2.0.
	if len(answers) == 0 && len(raw) > 0 {
		w.WriteHeader(http.StatusNoContent)
		return
	}
	out, err := json.Marshal(answers)
	if err != nil {
		h.o.Logger.Error("json-rpc answer", "err", err)
	}
	h.write(w, http.StatusOK, out)
}

// answer works on one call. result is nil with an error only.
func (h *Handler) answer(ctx context.Context, req *request) (result json.RawMessage, e *Error) {
	m := h.methods[req.method]
	if m == nil {
		return nil, fault(codeMethodNotFound, "Method not found")
	}
	args, e := m.arguments(req.params)
	if e != nil {
		return nil, e
	}
	c := &call{Handler: h, ctx: ctx, method: m, args: args}
	if !c.take() {
		return nil, fault(codeMisc, "the node is stopping")
	}
	defer c.leave()
	v, err := m.run(c)
	if err == nil {
		if result, err = marshal(v); err == nil {
			return result, nil
		}
	}
	return nil, h.explain(m.name, err)
}

// marshal leaves <, > and & alone.
func marshal(v any) (json.RawMessage, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte{'\n'}), nil
}

// oneAnswer is the object that answers req; nil if it could not be read. As in Core the id is left out where the request
// has none, and 2.0 has either a result or an error.
func oneAnswer(req *request, result json.RawMessage, e *Error) json.RawMessage {
	if req == nil {
		req = &request{id: null}
	}
	if result == nil {
		result = null
	}
	var v any
	switch {
	case req.modern && e != nil:
		v = struct {
			Version string          `json:"jsonrpc"`
			Error   *Error          `json:"error"`
			ID      json.RawMessage `json:"id,omitempty"`
		}{"2.0", e, req.id}
	case req.modern:
		v = struct {
			Version string          `json:"jsonrpc"`
			Result  json.RawMessage `json:"result"`
			ID      json.RawMessage `json:"id,omitempty"`
		}{"2.0", result, req.id}
	default:
		v = struct {
			Result json.RawMessage `json:"result"`
			Error  *Error          `json:"error"`
			ID     json.RawMessage `json:"id,omitempty"`
		}{result, e, req.id}
	}
	out, err := marshal(v)
	if err != nil { // the id was parsed as JSON, the result made by us
		return json.RawMessage(`{"result":null,"error":{"code":-32603,"message":"Internal error"},"id":null}`)
	}
	return out
}

func (h *Handler) write(w http.ResponseWriter, status int, body []byte) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(append(body, '\n')) // an error is the caller having gone
}

// arguments sorts what came into the method's order.
func (m *method) arguments(raw json.RawMessage) ([]json.RawMessage, *Error) {
	names := m.names()
	args := make([]json.RawMessage, len(names))
	raw = bytes.TrimSpace(raw)
	switch {
	case len(raw) == 0 || bytes.Equal(raw, []byte("null")):
	case raw[0] == '[':
		var list []json.RawMessage
		if err := json.Unmarshal(raw, &list); err != nil {
			return nil, parseFault(err)
		}
		if len(list) > len(names) {
			return nil, fault(codeMisc, "%s takes %s, not %d arguments", m.name, m.usage(), len(list))
		}
		copy(args, list)
	case raw[0] == '{':
		var byName map[string]json.RawMessage
		if err := json.Unmarshal(raw, &byName); err != nil {
			return nil, parseFault(err)
		}
		// Core's "args": the first ones by position, the rest by name.
		if first, ok := byName["args"]; ok {
			var list []json.RawMessage
			if err := json.Unmarshal(first, &list); err != nil || len(list) > len(names) {
				return nil, fault(codeInvalidParameter, "args must be an array of at most %d", len(names))
			}
			copy(args, list)
			delete(byName, "args")
		}
		for name, v := range byName {
			i := m.index(name)
			if i < 0 {
				return nil, fault(codeInvalidParameter, "Unknown named parameter %s", clip(name))
			}
			if args[i] != nil {
				return nil, fault(codeInvalidParameter, "Parameter %s specified twice both as positional and named argument", name)
			}
			args[i] = v
		}
	default:
		return nil, fault(codeInvalidRequest, "Params must be an array or object")
	}
	for i, a := range args {
		if bytes.Equal(bytes.TrimSpace(a), []byte("null")) {
			args[i] = nil
		}
	}
	for i := range m.required() {
		if args[i] == nil {
			return nil, fault(codeMisc, "%s takes %s: %s is missing", m.name, m.usage(), names[i])
		}
	}
	return args, nil
}

// usage is the method's arguments as its help shows them.
func (m *method) usage() string {
	if m.params == "" {
		return "no arguments"
	}
	parts := strings.Fields(m.params)
	for i, name := range m.names() {
		if strings.HasSuffix(parts[i], "?") {
			name = "( " + name + " )"
		}
		parts[i] = name
	}
	return strings.Join(parts, " ")
}

// A call is one method that is being worked on.
type call struct {
	*Handler
	ctx    context.Context //nolint:containedctx // a call is the request that it belongs to
	method *method
	args   []json.RawMessage
	turn   bool
}

// take waits for the call's turn; false if the caller went first.
func (c *call) take() bool {
	select {
	case c.turns <- struct{}{}:
		c.turn = true
	case <-c.ctx.Done():
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.active[c] = c.o.Now()
	return true
}

// leave gives the turn back; a call that only waits does so early.
func (c *call) leave() {
	if !c.turn {
		return
	}
	c.turn = false
	<-c.turns
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.active, c)
}

// has says whether argument i was given.
func (c *call) has(i int) bool { return c.args[i] != nil }

// arg decodes argument i into T: what it is if missing, def.
func arg[T any](c *call, i int, def T) (T, error) {
	if c.args[i] == nil {
		return def, nil
	}
	var v T
	// What an object has beside what is known is passed over, as in Core: miners' template
	// requests have more than BIP22 and BIP23 say.
	if err := json.Unmarshal(c.args[i], &v); err != nil {
		return v, fault(codeType, "argument %d (%s) of %s: %s", i+1, c.method.names()[i], c.method.name, typeFault(err))
	}
	return v, nil
}

// typeFault puts what encoding/json says into the words of this interface.
func typeFault(err error) string {
	if t, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		return fmt.Sprintf("JSON value of type %s is not of expected type %s", t.Value, t.Type)
	}
	return err.Error()
}

// intArg is argument i as a whole number within limits.
func intArg(c *call, i int, def, least, most int64) (int64, error) {
	f, err := arg(c, i, float64(def))
	if err != nil {
		return 0, err
	}
	if f != math.Trunc(f) || f < float64(least) || f > float64(most) {
		return 0, fault(codeInvalidParameter, "%s: want a whole number from %d to %d", c.method.names()[i], least, most)
	}
	return int64(f), nil
}

// clip bounds how much of a request an answer repeats.
func clip(s string) string {
	const most = 64
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}
