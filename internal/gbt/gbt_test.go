package gbt_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/btcsuite/btcd/txscript/v2"

	"dunlin/chain/consensus"
	"dunlin/internal/gbt"
)

// A fakeNode answers getblocktemplate and submitblock as it is told.
type fakeNode struct {
	t      *testing.T
	params *consensus.Params

	mu        sync.Mutex
	templates []any // in turn, the last again and again; an error object or a template
	verdicts  []any // likewise; default null
	asked     []string
	blocks    []*consensus.Block
	hold      chan struct{} // long polls wait for it; nil: they are not answered
}

// busy is an answer with a status and no JSON-RPC, torn one whose end does not come.
type (
	busy int
	torn struct{}
)

type rpcError struct {
	Code    int    `json:"code"`
	Message string `json:"message"`
}

// easy is a template on top of genesis with the least difficulty.
func (f *fakeNode) easy(change func(map[string]any)) map[string]any {
	t := map[string]any{
		"version": 0x20000000, "previousblockhash": f.params.GenesisHash.String(), "transactions": []any{}, "coinbasevalue": 5_000_000_000,
		"mintime": 1296688603, "curtime": 1296688700, "bits": "207fffff", "height": 1,
		"default_witness_commitment": "6a24aa21a9ed" + strings.Repeat("00", 32),
	}
	if change != nil {
		change(t)
	}
	return t
}

func (f *fakeNode) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if user, password, ok := r.BasicAuth(); !ok || user != "me" || password != "secret" {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	var req struct {
		Method string            `json:"method"`
		Params []json.RawMessage `json:"params"`
	}
	raw, err := io.ReadAll(r.Body)
	if err == nil {
		err = json.Unmarshal(raw, &req)
	}
	if err != nil {
		f.t.Error(err)
		return
	}
	long := strings.Contains(string(raw), "longpollid")
	if long {
		select {
		case <-f.hold:
		case <-r.Context().Done():
			return
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked = append(f.asked, req.Method)
	next := func(list *[]any) any {
		if len(*list) == 0 {
			return nil
		}
		v := (*list)[0]
		if len(*list) > 1 {
			*list = (*list)[1:]
		}
		return v
	}
	var v any
	switch req.Method {
	case "getblocktemplate":
		v = next(&f.templates)
	case "submitblock":
		var text string
		if err := json.Unmarshal(req.Params[0], &text); err != nil {
			f.t.Error(err)
		}
		data, err := hex.DecodeString(text)
		if err != nil {
			f.t.Error(err)
		}
		b, err := consensus.DecodeBlock(f.params, data)
		if err != nil {
			f.t.Error(err)
		}
		f.blocks = append(f.blocks, b)
		v = next(&f.verdicts)
	}
	answer := map[string]any{"id": 1, "result": v, "error": nil}
	switch e := v.(type) {
	case busy:
		w.WriteHeader(int(e))
		fmt.Fprint(w, `{"status":false,"message":"the node is starting"}`)
		return
	case torn:
		w.Header().Set("Content-Length", "100")
		fmt.Fprint(w, `{"resu`)
		return
	case rpcError:
		answer["result"], answer["error"] = nil, e
		w.WriteHeader(http.StatusInternalServerError) // as Core and btcd do
	}
	if err := json.NewEncoder(w).Encode(answer); err != nil {
		f.t.Error(err)
	}
}

var payTo = []byte{txscript.OP_TRUE}

// mine runs a miner against f until it has so many blocks, and returns what was found.
func mine(t *testing.T, f *fakeNode, blocks int, change func(*gbt.Options)) ([]gbt.Found, error) {
	t.Helper()
	server := httptest.NewServer(f)
	defer server.Close()
	var found []gbt.Found
	o := gbt.Options{
		URL: server.URL, User: "me", Password: "secret", Params: f.params, PayTo: payTo, Text: "hello", Threads: 2, Blocks: blocks,
		Found: func(b gbt.Found) { found = append(found, b) },
	}
	if change != nil {
		change(&o)
	}
	m, err := gbt.New(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	return found, m.Run(ctx)
}

// TestMines: the blocks are what the template says, pay whom they shall, and have their proof.
func TestMines(t *testing.T) {
	t.Parallel()
	f := &fakeNode{t: t, params: consensus.Regtest()}
	f.templates = []any{f.easy(func(m map[string]any) { m["coinbaseaux"] = map[string]string{"flags": "aabb"} })}
	if _, err := mine(t, f, 3, nil); err != nil {
		t.Fatal(err)
	}
	if len(f.blocks) != 3 || f.blocks[0].Hash == f.blocks[1].Hash {
		t.Fatalf("%d blocks", len(f.blocks))
	}
	for _, b := range f.blocks {
		tx := b.Txs[0].MsgTx()
		script := tx.TxIn[0].SignatureScript
		if b.Header.PrevBlock != f.params.GenesisHash || b.Header.Bits != 0x207fffff || b.Header.Timestamp.Unix() < 1296688700 || b.Hash[31] > 0x7f {
			t.Errorf("header %+v", b.Header)
		}
		if len(b.Txs) != 1 || len(tx.TxOut) != 2 || tx.TxOut[0].Value != 5_000_000_000 || !bytes.Equal(tx.TxOut[0].PkScript, payTo) || len(tx.TxIn[0].Witness) != 1 {
			t.Errorf("coinbase %+v", tx)
		}
		if !bytes.HasPrefix(script, []byte{txscript.OP_1, 8}) || !bytes.HasSuffix(script, append([]byte{0xaa, 0xbb, 5}, "hello"...)) {
			t.Errorf("script %x", script)
		}
	}
}

// TestWaitsForNode: a node that is not ready, or refuses a block, is asked again; other errors end it and are told.
func TestWaitsForNode(t *testing.T) {
	t.Parallel()
	f := &fakeNode{t: t, params: consensus.Regtest()}
	f.templates = []any{rpcError{-10, "downloading"}, busy(503), torn{}, f.easy(nil)}
	f.verdicts = []any{"high-hash", nil}
	var found []gbt.Found
	if _, err := mine(t, f, 1, func(o *gbt.Options) { o.Found = func(b gbt.Found) { found = append(found, b) } }); err != nil {
		t.Fatal(err)
	}
	if len(found) != 2 || found[0].Verdict != "high-hash" || found[1].Verdict != "" || found[1].Height != 1 || found[1].Txs != 1 {
		t.Errorf("found %+v", found)
	}
	for _, tt := range []struct {
		template any
		want     string
	}{
		{rpcError{-32601, "Method not found"}, "Method not found (code -32601)"},
		{f.easy(func(m map[string]any) { delete(m, "coinbasevalue") }), "has no coinbasevalue"},
		{f.easy(func(m map[string]any) { m["bits"] = "zz" }), "bits"},
		{f.easy(func(m map[string]any) { m["bits"] = "00000000" }), "are no target"},
		{f.easy(func(m map[string]any) { m["previousblockhash"] = strings.Repeat("0", 65) }), "previousblockhash"},
		{f.easy(func(m map[string]any) { m["transactions"] = []any{map[string]any{"data": "00"}} }), "transaction 1"},
		{f.easy(func(m map[string]any) { m["coinbaseaux"] = map[string]string{"flags": strings.Repeat("aa", 90)} }), "the coinbase script would have"},
		{f.easy(func(m map[string]any) { m["default_witness_commitment"] = "x" }), "default_witness_commitment"},
		{"no object", "decoding the answer"},
		{busy(404), "is no JSON-RPC"},
	} {
		f := &fakeNode{t: t, params: consensus.Regtest(), templates: []any{tt.template}}
		if _, err := mine(t, f, 1, nil); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%v, want %q", err, tt.want)
		}
	}
	if _, err := mine(t, f, 1, func(o *gbt.Options) { o.Password = "wrong" }); !errors.Is(err, gbt.ErrRefused) {
		t.Errorf("%v, want ErrRefused", err)
	}
}

// TestLongPoll: what is too hard to find is dropped for the template that a long poll brings.
func TestLongPoll(t *testing.T) {
	t.Parallel()
	f := &fakeNode{t: t, params: consensus.Regtest(), hold: make(chan struct{})}
	hard := f.easy(func(m map[string]any) { m["bits"], m["longpollid"], m["height"] = "03000001", "first", 7 })
	f.templates = []any{hard, f.easy(func(m map[string]any) { m["height"] = 8 })}
	close(f.hold) // the next block is there already
	var found []gbt.Found
	if _, err := mine(t, f, 1, func(o *gbt.Options) { o.Found = func(b gbt.Found) { found = append(found, b) } }); err != nil {
		t.Fatal(err)
	}
	if len(found) != 1 || found[0].Height != 8 || fmt.Sprint(f.asked) != "[getblocktemplate getblocktemplate submitblock]" {
		t.Errorf("found %+v, asked %v", found, f.asked)
	}
}

// TestStops: Run ends with its context, whatever it waits for.
func TestStops(t *testing.T) {
	t.Parallel()
	for name, template := range map[string]func(*fakeNode) any{
		"searching": func(f *fakeNode) any {
			return f.easy(func(m map[string]any) { m["bits"], m["longpollid"] = "03000001", "x" })
		},
		"waiting": func(*fakeNode) any { return rpcError{-28, "starting"} },
	} {
		f := &fakeNode{t: t, params: consensus.Regtest()}
		f.templates = []any{template(f)}
		server := httptest.NewServer(f)
		m, err := gbt.New(gbt.Options{URL: server.URL, User: "me", Password: "secret", Params: f.params, PayTo: payTo, Threads: 1})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		if err := m.Run(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: %v", name, err)
		}
		cancel()
		server.Close()
	}
}

// TestOptions: every fault at once.
func TestOptions(t *testing.T) {
	t.Parallel()
	_, err := gbt.New(gbt.Options{URL: "ftp://x", Text: strings.Repeat("x", gbt.MaxText+1), Blocks: -1})
	for _, want := range []string{`url "ftp://x"`, "network and a script to pay", "has 61 bytes", "blocks -1"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}
