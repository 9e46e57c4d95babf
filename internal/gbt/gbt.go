// Package gbt is a miner that knows a node by its JSON-RPC only: getblocktemplate (BIP22, BIP23, BIP145) and submitblock. It works for any node
// that speaks them: dunlin, btcd, Bitcoin Core.
//
// It is no pool and no chain: what a template says is taken as it is, but for the coinbase, which is made here. Proof of work on this machine's
// processors finds blocks of test networks only.
//
// Invariants: one template is worked on at a time, and dropped once a long poll brings the next or it is older than a minute; Run leaves no
// goroutine behind; what a node answers is bounded before it is decoded.
package gbt

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/btcsuite/btcd/blockchain"
	"github.com/btcsuite/btcd/btcutil/v2"
	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/txscript/v2"
	"github.com/btcsuite/btcd/wire/v2"

	"dunlin/chain/consensus"
	"dunlin/chain/consensus/pow"
)

// Options configure New. Zero means the default given.
type Options struct {
	URL      string // of the node's JSON-RPC; no default
	User     string // of basic authentication; empty: none is sent
	Password string
	HTTP     *http.Client      // default: a plain one
	Params   *consensus.Params // of the node's network; no default
	PayTo    []byte            // script of the coinbase's output; no default
	Text     string            // in the coinbase, at most MaxText bytes
	Threads  int               // that search; below 1: as many as there are processors
	Blocks   int               // to be accepted before Run returns; 0: no end
	// Found is called with each block after the node's verdict, one call at a time. Default: none.
	Found  func(Found)
	Logger *slog.Logger // default: silent
}

// Found is a block and what the node said to it.
type Found struct {
	Height   int32   `json:"height"`
	Hash     string  `json:"hash"`
	Txs      int     `json:"txs"`     // with the coinbase
	Value    int64   `json:"value"`   // of the coinbase, satoshi
	Verdict  string  `json:"verdict"` // empty: accepted; else why not, in the node's words (BIP22)
	Searched float64 `json:"searched_s"`
}

const (
	// MaxText is what a coinbase script of 100 bytes has room for beside height and extranonce.
	MaxText = 60

	maxAnswer   = 64 << 20
	callTimeout = 30 * time.Second
	// pollTimeout is longer than any node's long poll lasts.
	pollTimeout = 10 * time.Minute
	// templateAge is how long a template is worked on where no long poll tells of the next.
	templateAge = time.Minute
	firstRetry  = 500 * time.Millisecond
	maxRetry    = 15 * time.Second
)

// Codes of JSON-RPC errors that pass: the node is not there yet.
const (
	codeNotConnected = -9
	codeDownloading  = -10
	codeWarmUp       = -28
)

// An Error is what a node answers to a call.
type Error struct {
	Code    int    `json:"code"`
	Message string `json:"message"`
}

func (e *Error) Error() string { return fmt.Sprintf("%s (code %d)", e.Message, e.Code) }

// ErrRefused says that the node does not let this user in.
var ErrRefused = errors.New("user or password refused")

// A Miner mines for one node. Make one with New, then Run it once.
type Miner struct {
	o      Options
	sealer *pow.Sealer
	calls  int
	extra  uint64
}

// New checks the options, reporting every fault. It starts nothing.
func New(o Options) (*Miner, error) {
	var faults []error
	if u, err := url.Parse(o.URL); err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		faults = append(faults, fmt.Errorf("url %q: must be like http://127.0.0.1:8332", o.URL))
	}
	if o.Params == nil || len(o.PayTo) == 0 {
		faults = append(faults, errors.New("network and a script to pay are required"))
	} else if o.Params.ProofOfStake() {
		faults = append(faults, fmt.Errorf("network %s: its blocks are made by stake, not by work: see dunlin stake --help", o.Params.Name))
	}
	if len(o.Text) > MaxText {
		faults = append(faults, fmt.Errorf("text: has %d bytes, at most %d", len(o.Text), MaxText))
	}
	if o.Blocks < 0 {
		faults = append(faults, fmt.Errorf("blocks %d: must not be negative", o.Blocks))
	}
	if err := errors.Join(faults...); err != nil {
		return nil, err
	}
	if o.HTTP == nil {
		o.HTTP = &http.Client{}
	}
	if o.Found == nil {
		o.Found = func(Found) {}
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return &Miner{o: o, sealer: pow.NewSealer(o.Threads)}, nil
}

// Run mines until ctx ends, then returns its error, or until so many blocks as were wanted are accepted, then nil. A node that is not there or
// not ready is asked again, with longer and longer rests; one that refuses the user, or does not serve templates, ends it.
func (m *Miner) Run(ctx context.Context) error {
	accepted := 0
	rest := firstRetry
	var next *template // what a long poll brought
	for {
		t := next
		next = nil
		if t == nil {
			var err error
			if t, err = m.template(ctx, ""); err != nil {
				if !passes(err) || ctx.Err() != nil {
					return err
				}
				m.o.Logger.Warn("no template, asking again", "err", err, "in", rest)
				if !sleep(ctx, rest) {
					return ctx.Err()
				}
				rest = min(2*rest, maxRetry)
				continue
			}
		}
		rest = firstRetry
		found, raw, newer, err := m.work(ctx, t)
		switch {
		case err != nil:
			return err
		case found == nil:
			next = newer
			continue
		}
		verdict, err := m.submit(ctx, raw)
		if err != nil {
			if !passes(err) || ctx.Err() != nil {
				return fmt.Errorf("submitblock: %w", err)
			}
			verdict = err.Error()
		}
		found.Verdict = verdict
		m.o.Found(*found)
		if verdict == "" {
			if accepted++; m.o.Blocks > 0 && accepted == m.o.Blocks {
				return nil
			}
			continue
		}
		if !sleep(ctx, firstRetry) { // a node that refuses all is not to be flooded
			return ctx.Err()
		}
	}
}

// A passing fault is one of the way to the node, or of a node that has no time.
type passing struct{ error }

func (p passing) Unwrap() error { return p.error }

// passes says whether an error may go away by itself.
func passes(err error) bool {
	if _, ok := errors.AsType[passing](err); ok {
		return true
	}
	if rpc, ok := errors.AsType[*Error](err); ok {
		return rpc.Code == codeNotConnected || rpc.Code == codeDownloading || rpc.Code == codeWarmUp
	}
	_, unreachable := errors.AsType[*url.Error](err)
	return unreachable
}

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

// A template is what getblocktemplate answers, as far as it is needed here.
type template struct {
	Version      int32  `json:"version"`
	Previous     string `json:"previousblockhash"`
	Transactions []struct {
		Data string `json:"data"`
	} `json:"transactions"`
	CoinbaseAux map[string]string `json:"coinbaseaux"`
	Value       *int64            `json:"coinbasevalue"`
	LongPollID  string            `json:"longpollid"`
	MinTime     int64             `json:"mintime"`
	CurTime     int64             `json:"curtime"`
	Bits        string            `json:"bits"`
	Height      int32             `json:"height"`
	Commitment  string            `json:"default_witness_commitment"`

	came time.Time
}

// template asks for one; with an id, for the next after that, as soon as there is one.
func (m *Miner) template(ctx context.Context, longPollID string) (*template, error) {
	req := map[string]any{"mode": "template", "rules": []string{"segwit"}, "capabilities": []string{"coinbasevalue", "longpoll", "coinbase/append"}}
	timeout := callTimeout
	if longPollID != "" {
		req["longpollid"], timeout = longPollID, pollTimeout
	}
	var t template
	if err := m.call(ctx, timeout, "getblocktemplate", &t, req); err != nil {
		return nil, fmt.Errorf("getblocktemplate: %w", err)
	}
	t.came = time.Now()
	return &t, nil
}

// submit returns why the node does not accept a block, empty if it does.
func (m *Miner) submit(ctx context.Context, raw []byte) (string, error) {
	var verdict *string
	err := m.call(ctx, callTimeout, "submitblock", &verdict, hex.EncodeToString(raw))
	if err != nil || verdict == nil {
		return "", err
	}
	return strings.TrimSpace(*verdict), nil
}

// call makes a JSON-RPC call.
func (m *Miner) call(ctx context.Context, timeout time.Duration, method string, result any, params ...any) error {
	m.calls++
	body, err := json.Marshal(map[string]any{"jsonrpc": "1.0", "id": m.calls, "method": method, "params": params})
	if err != nil {
		return err
	}
	return m.post(ctx, timeout, body, result)
}

func (m *Miner) post(ctx context.Context, timeout time.Duration, body []byte, result any) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, m.o.URL, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	if m.o.User != "" {
		req.SetBasicAuth(m.o.User, m.o.Password)
	}
	res, err := m.o.HTTP.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode == http.StatusUnauthorized || res.StatusCode == http.StatusForbidden {
		return ErrRefused
	}
	raw, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer+1))
	switch {
	case err != nil:
		return passing{fmt.Errorf("reading the answer: %w", err)} // it went away meanwhile
	case len(raw) > maxAnswer:
		return fmt.Errorf("the answer is longer than %d bytes", maxAnswer)
	}
	var answer struct {
		Result json.RawMessage `json:"result"`
		Error  *Error          `json:"error"`
	}
	err = json.Unmarshal(raw, &answer)
	switch {
	case err == nil && answer.Error != nil:
		return answer.Error
	// dunlin says so while it starts, Core when its queue of calls is full.
	case res.StatusCode == http.StatusServiceUnavailable || res.StatusCode == http.StatusTooManyRequests:
		return passing{fmt.Errorf("answer %s", res.Status)}
	case err != nil || answer.Result == nil:
		return fmt.Errorf("answer %s is no JSON-RPC", res.Status)
	}
	if err := json.Unmarshal(answer.Result, result); err != nil {
		return fmt.Errorf("decoding the answer: %w", err)
	}
	return nil
}

// work searches for a block of t. It returns it with its bytes, or none, and then the next template if a long poll brought it.
func (m *Miner) work(ctx context.Context, t *template) (*Found, []byte, *template, error) {
	c, err := m.candidate(t)
	if err != nil {
		return nil, nil, nil, fmt.Errorf("template of height %d: %w", t.Height, err)
	}
	search, stop := context.WithCancel(ctx)
	defer stop()
	var newer *template
	polled := make(chan struct{})
	go func() { // ends the search when there is something better to work on
		defer close(polled)
		defer stop()
		age := templateAge
		if t.LongPollID != "" {
			if n, err := m.template(search, t.LongPollID); err == nil {
				newer = n
				return
			}
		}
		sleep(search, age)
	}()
	began := time.Now()
	sealed, err := m.seal(search, c, t)
	stop()
	<-polled
	switch {
	case err != nil:
		return nil, nil, nil, err
	case ctx.Err() != nil:
		return nil, nil, nil, ctx.Err()
	case sealed == nil:
		return nil, nil, newer, nil
	}
	return &Found{
		Height: t.Height, Hash: sealed.Hash.String(), Txs: len(c.txs), Value: *t.Value, Searched: time.Since(began).Seconds(),
	}, sealed.Raw, nil, nil
}

// A candidate is a block without its proof.
type candidate struct {
	header consensus.Header
	txs    []*wire.MsgTx
	prefix []byte // of the coinbase's script, before the extranonce
	suffix []byte // after it
}

// candidate makes a block of a template.
func (m *Miner) candidate(t *template) (*candidate, error) {
	if t.Value == nil {
		return nil, errors.New("has no coinbasevalue: the node wants to make the coinbase itself")
	}
	previous, err := chainhash.NewHashFromStr(t.Previous)
	if err != nil {
		return nil, fmt.Errorf("previousblockhash: %w", err)
	}
	bits, err := strconv.ParseUint(t.Bits, 16, 32)
	if err != nil {
		return nil, fmt.Errorf("bits: %w", err)
	}
	c := &candidate{header: consensus.Header{BlockHeader: wire.BlockHeader{Version: t.Version, PrevBlock: *previous, Bits: uint32(bits)}}}
	height, err := txscript.NewScriptBuilder().AddInt64(int64(t.Height)).Script() // BIP34
	if err != nil {
		return nil, err
	}
	c.prefix = append(height, 8) // a push of the extranonce
	var aux []byte
	for _, text := range t.CoinbaseAux {
		data, err := hex.DecodeString(text)
		if err != nil {
			return nil, fmt.Errorf("coinbaseaux: %w", err)
		}
		aux = append(aux, data...)
	}
	if m.o.Text != "" {
		aux = append(append(aux, byte(len(m.o.Text))), m.o.Text...) // a push, as it is shorter than 76 bytes
	}
	if c.suffix = aux; len(c.prefix)+8+len(c.suffix) > blockchain.MaxCoinbaseScriptLen {
		return nil, fmt.Errorf("the coinbase script would have %d bytes", len(c.prefix)+8+len(c.suffix))
	}
	coinbase := wire.NewMsgTx(2)
	coinbase.AddTxIn(wire.NewTxIn(wire.NewOutPoint(&chainhash.Hash{}, wire.MaxPrevOutIndex), nil, nil))
	coinbase.AddTxOut(wire.NewTxOut(*t.Value, m.o.PayTo))
	if t.Commitment != "" {
		script, err := hex.DecodeString(t.Commitment)
		if err != nil {
			return nil, fmt.Errorf("default_witness_commitment: %w", err)
		}
		coinbase.AddTxOut(wire.NewTxOut(0, script))
		coinbase.TxIn[0].Witness = wire.TxWitness{make([]byte, chainhash.HashSize)}
	}
	c.txs = []*wire.MsgTx{coinbase}
	for i, one := range t.Transactions {
		raw, err := hex.DecodeString(one.Data)
		if err != nil {
			return nil, fmt.Errorf("transaction %d: %w", i+1, err)
		}
		tx, err := btcutil.NewTxFromBytes(raw)
		if err != nil {
			return nil, fmt.Errorf("transaction %d: %w", i+1, err)
		}
		c.txs = append(c.txs, tx.MsgTx())
	}
	return c, nil
}

// seal searches until ctx ends; nil if nothing was found by then.
func (m *Miner) seal(ctx context.Context, c *candidate, t *template) (*consensus.Block, error) {
	for ctx.Err() == nil {
		m.extra++
		c.txs[0].TxIn[0].SignatureScript = append(binary.LittleEndian.AppendUint64(bytes.Clone(c.prefix), m.extra), c.suffix...)
		txs := make([]*btcutil.Tx, len(c.txs))
		for i, tx := range c.txs {
			txs[i] = btcutil.NewTx(tx)
		}
		c.header.MerkleRoot = blockchain.CalcMerkleRoot(txs, false)
		// The clock of the node counts, not ours: its time goes on by what has passed here.
		c.header.Timestamp = time.Unix(max(t.CurTime+int64(time.Since(t.came).Seconds()), t.MinTime), 0)
		found, err := m.sealer.Seal(ctx.Done(), &c.header)
		if errors.Is(err, context.Canceled) {
			return nil, nil //nolint:nilnil // nothing found, and no fault
		}
		if err != nil {
			return nil, err
		}
		if found {
			return consensus.NewBlock(m.o.Params, c.header, c.txs)
		}
	}
	return nil, nil //nolint:nilnil // as above
}
