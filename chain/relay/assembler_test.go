package relay_test

import (
	"bytes"
	"flag"
	"fmt"
	"iter"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/wire/v2"

	"dunlin/chain/consensus"
	"dunlin/chain/relay"
)

var update = flag.Bool("update", false, "rewrite the golden files in testdata")

// mempool is a relay.Candidates.
type mempool struct {
	ids []chainhash.Hash
	txs map[chainhash.Hash]pooled
}

type pooled struct {
	tx *wire.MsgTx
	id chainhash.Hash
}

func newMempool() *mempool { return &mempool{txs: make(map[chainhash.Hash]pooled)} }

func (m *mempool) add(txs ...*wire.MsgTx) {
	for _, tx := range txs {
		id := tx.WitnessHash()
		if m.txs[id].tx == nil {
			m.ids = append(m.ids, id)
			m.txs[id] = pooled{tx, tx.TxHash()}
		}
	}
}

// WitnessIDs implements relay.Candidates.
func (m *mempool) WitnessIDs() iter.Seq[*chainhash.Hash] {
	return func(yield func(*chainhash.Hash) bool) {
		for i := range m.ids {
			if !yield(&m.ids[i]) {
				return
			}
		}
	}
}

// ByWitnessID implements relay.Candidates.
func (m *mempool) ByWitnessID(id chainhash.Hash) (*wire.MsgTx, chainhash.Hash, bool) {
	p := m.txs[id]
	return p.tx, p.id, p.tx != nil
}

var epoch = time.Unix(1_700_000_000, 0)

// A bench is an Assembler with blocks, a pool and a clock. It checks what must hold
// after every step.
type bench struct {
	tb     testing.TB
	w      *world
	pool   *mempool
	a      *relay.Assembler
	now    time.Time
	blocks map[string]*consensus.Block

	asks  map[uint64]relay.Action // under way
	made  map[chainhash.Hash]int  // requests, since the block was last begun
	ended map[chainhash.Hash]string
	// delivery is when the last block was delivered, since the epoch.
	delivery time.Duration
}

func newBench(tb testing.TB, cfg relay.AssemblerConfig) *bench {
	tb.Helper()
	b := &bench{
		tb: tb, w: newWorld(), pool: newMempool(), now: epoch, blocks: make(map[string]*consensus.Block),
		asks: make(map[uint64]relay.Action), made: make(map[chainhash.Hash]int), ended: make(map[chainhash.Hash]string),
	}
	cfg.Params, cfg.Candidates = b.w.b.Params, b.pool
	a, err := relay.NewAssembler(cfg)
	if err != nil {
		tb.Fatal(err)
	}
	b.a = a
	return b
}

// mine makes a block of n small transactions beside the coinbase.
func (b *bench) mine(name string, seed uint64, n int) *consensus.Block {
	blk := b.w.large(b.w.b.Genesis(), seed, n+1, 150*(n+1))
	b.blocks[name] = blk
	return blk
}

func (b *bench) decode(msg []byte) *relay.CompactBlock {
	b.tb.Helper()
	c, err := relay.DecodeCompact(b.w.b.Params, msg[1:])
	if err != nil {
		b.tb.Fatal(err)
	}
	c.Height, c.Segwit = 1, true
	return c
}

// step takes an event and checks the invariants of the package's documentation.
func (b *bench) step(e relay.Event) []relay.Action {
	b.tb.Helper()
	switch e := e.(type) {
	case relay.GotTxs:
		if _, ok := b.asks[e.ID].(relay.AskTxs); ok {
			delete(b.asks, e.ID)
		}
	case relay.GotBlock:
		if _, ok := b.asks[e.ID].(relay.AskBlock); ok {
			delete(b.asks, e.ID)
		}
	case relay.Failed:
		delete(b.asks, e.ID)
	case relay.PeerGone:
		for id, k := range b.asks {
			if peerOf(k) == e.Peer {
				delete(b.asks, id)
			}
		}
	}
	actions := slices.Clone(b.a.Step(b.now, e))
	for _, x := range actions {
		switch x := x.(type) {
		case relay.AskTxs:
			if len(x.Indexes) == 0 || !slices.IsSorted(x.Indexes) {
				b.tb.Fatalf("asks for %v", x.Indexes)
			}
			b.asked(x.ID, x.Block, x)
		case relay.AskBlock:
			b.asked(x.ID, x.Block, x)
		case relay.Cancel:
			if k := b.asks[x.ID]; k == nil || peerOf(k) != x.Peer {
				b.tb.Fatalf("withdraws %d, which is not under way at %s", x.ID, x.Peer)
			}
			delete(b.asks, x.ID)
		case relay.Deliver:
			b.delivered(x)
			b.delivery = b.now.Sub(epoch)
			b.end(x.Block, "delivered")
		case relay.GiveUp:
			b.end(x.Block, "given up")
		case relay.Reflood, relay.Blame:
		default:
			b.tb.Fatalf("unknown action %T", x)
		}
	}
	blocks, asks, _ := b.a.InWork()
	if asks != len(b.asks) {
		b.tb.Fatalf("%d requests under way, it says %d", len(b.asks), asks)
	}
	if next, ok := b.a.Next(); ok != (blocks > 0) || ok && !next.After(b.now) {
		b.tb.Fatalf("next at %v, %v, with %d blocks in work at %v", next, ok, blocks, b.now)
	}
	return actions
}

func (b *bench) asked(id uint64, block chainhash.Hash, x relay.Action) {
	b.tb.Helper()
	b.asks[id] = x
	b.made[block]++
	txs, blocks := 0, 0
	peers := make(map[string]int)
	for _, k := range b.asks {
		switch k := k.(type) {
		case relay.AskTxs:
			if k.Block == block {
				txs++
				peers[k.Peer]++
			}
		case relay.AskBlock:
			if k.Block == block {
				blocks++
				peers[k.Peer]++
			}
		}
	}
	for peer, n := range peers {
		if n > 1 {
			b.tb.Fatalf("%d requests under way at %s", n, peer)
		}
	}
	if txs > relay.MaxTxAsks || blocks > relay.MaxBlockAsks || b.made[block] > relay.MaxAsks {
		b.tb.Fatalf("%d and %d requests under way, %d in all", txs, blocks, b.made[block])
	}
}

func (b *bench) delivered(x relay.Deliver) {
	b.tb.Helper()
	for _, blk := range b.blocks {
		if blk.Hash == x.Block {
			if !bytes.Equal(x.Raw, blk.Raw) {
				b.tb.Fatalf("block of %d bytes delivered for one of %d", len(x.Raw), len(blk.Raw))
			}
			if cap(x.Raw) != len(x.Raw) && !x.Whole || len(x.From) == 0 || x.Txs != len(blk.Txs) || x.Asks != b.made[x.Block] {
				b.tb.Fatalf("%+v", x)
			}
			return
		}
	}
	b.tb.Fatalf("delivers block %v", x.Block)
}

func (b *bench) end(block chainhash.Hash, how string) {
	b.tb.Helper()
	if b.ended[block] == "delivered" {
		b.tb.Fatalf("%s after it was delivered", how)
	}
	b.ended[block] = how
	delete(b.made, block)
	for id, k := range b.asks {
		if blockOf(k) == block {
			b.tb.Fatalf("request %d still under way", id)
		}
	}
}

func peerOf(x relay.Action) string {
	switch x := x.(type) {
	case relay.AskTxs:
		return x.Peer
	case relay.AskBlock:
		return x.Peer
	}
	return ""
}

func blockOf(x relay.Action) chainhash.Hash {
	switch x := x.(type) {
	case relay.AskTxs:
		return x.Block
	case relay.AskBlock:
		return x.Block
	}
	return chainhash.Hash{}
}

// idOf is the number of a request.
func idOf(x relay.Action) uint64 {
	switch x := x.(type) {
	case relay.AskTxs:
		return x.ID
	case relay.AskBlock:
		return x.ID
	}
	return 0
}

// msgs are a block's transactions after the coinbase.
func msgs(b *consensus.Block) (out []*wire.MsgTx) {
	for _, tx := range b.Txs[1:] {
		out = append(out, tx.MsgTx())
	}
	return out
}

// honest answers a request from the block itself.
func (b *bench) honest(k relay.Action) relay.Event {
	b.tb.Helper()
	for _, blk := range b.blocks {
		if blk.Hash != blockOf(k) {
			continue
		}
		switch k := k.(type) {
		case relay.AskTxs:
			e := relay.GotTxs{ID: k.ID}
			for _, i := range k.Indexes {
				if int(i) >= len(blk.Txs) {
					return relay.Failed{ID: k.ID, Why: relay.NotHere}
				}
				e.Txs = append(e.Txs, encode(b.tb, blk.Txs[i].MsgTx()))
			}
			return e
		case relay.AskBlock:
			return relay.GotBlock{ID: k.ID, Raw: slices.Clone(blk.Raw)}
		}
	}
	b.tb.Fatalf("no block for %+v", k)
	return nil
}

// TestAssemblerScripts runs every script: lines of events, each followed by the actions
// that Step returned. Lines that begin with two spaces are output. The commands:
//
//	mine NAME N [BLOCK]          a block of N transactions beside the coinbase, those of
//	                             another one
//	pool NAME I,J,…              transactions of a block that the pool has; "all"
//	lose                         the pool is empty again
//	peer NAME [BLOCK]            with a validated tip
//	gone NAME
//	announce NAME BLOCK [relayed] [nonce=N] [prefill=I,J] [as=FAULT]
//	                             FAULT: ids, coinbase, witness, stripped, flipped, longer,
//	                             double, same
//	txs ID [wrong=I|flipped=I|few|garbage|double]
//	                             an honest answer, or a false one
//	block ID [mutated|other|cut]
//	fail ID notyet|nothere|broken
//	arriving ID
//	have BLOCK
//	serve BLOCK I,J              what a peer would be given
//	wait DURATION                with ticks when they are due
func TestAssemblerScripts(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/assembler/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, name := range files {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".txt"), func(t *testing.T) {
			t.Parallel()
			text, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			got := runScript(t, string(text))
			if *update {
				if err := os.WriteFile(name, got, 0o644); err != nil {
					t.Fatal(err)
				}
			} else if !bytes.Equal(got, text) {
				t.Errorf("%s differs (run with -update and read the diff); got:\n%s", name, got)
			}
		})
	}
}

type script struct {
	*bench
	out bytes.Buffer
}

func runScript(t *testing.T, text string) []byte {
	t.Helper()
	sc := &script{bench: newBench(t, relay.AssemblerConfig{})}
	for line := range strings.SplitSeq(strings.TrimRight(text, "\n"), "\n") {
		if strings.HasPrefix(line, "  ") {
			continue
		}
		sc.out.WriteString(line + "\n")
		if f := strings.Fields(line); len(f) > 0 && f[0][0] != '#' {
			sc.command(f)
		}
	}
	return sc.out.Bytes()
}

func (sc *script) number(text string) int {
	sc.tb.Helper()
	n, err := strconv.Atoi(text)
	if err != nil {
		sc.tb.Fatal(err)
	}
	return n
}

func (sc *script) numbers(text string) (out []int) {
	sc.tb.Helper()
	for x := range strings.SplitSeq(text, ",") {
		out = append(out, sc.number(x))
	}
	return out
}

func (sc *script) name(hash chainhash.Hash) string {
	for name, b := range sc.blocks {
		if b.Hash == hash {
			return name
		}
	}
	return hash.String()
}

// event prints the actions of a step; at says when, for those that time brings.
func (sc *script) event(e relay.Event, at string) {
	sc.tb.Helper()
	for _, x := range sc.step(e) {
		fmt.Fprintf(&sc.out, "  %s%s\n", at, sc.show(x))
	}
}

func (sc *script) show(x relay.Action) string {
	switch x := x.(type) {
	case relay.AskTxs:
		return fmt.Sprintf("ask %s #%d for %v of %s", x.Peer, x.ID, x.Indexes, sc.name(x.Block))
	case relay.AskBlock:
		return fmt.Sprintf("ask %s #%d for %s", x.Peer, x.ID, sc.name(x.Block))
	case relay.Cancel:
		return fmt.Sprintf("cancel %s #%d", x.Peer, x.ID)
	case relay.Deliver:
		how := fmt.Sprintf("%d prefilled, %d pulled", x.Prefilled, x.Pulled)
		if x.Whole {
			how = "whole"
		}
		return fmt.Sprintf("deliver %s from %s: %d transactions, %s, %d asks", sc.name(x.Block), strings.Join(x.From, ","), x.Txs, how, x.Asks)
	case relay.Reflood:
		return "reflood " + sc.name(x.Block)
	case relay.GiveUp:
		return fmt.Sprintf("give up %s of %q: %s", sc.name(x.Block), x.From, x.Reason)
	case relay.Blame:
		return fmt.Sprintf("blame %s: %s", x.Peer, x.Err.Rule)
	}
	return fmt.Sprintf("%T", x)
}

func (sc *script) command(f []string) {
	sc.tb.Helper()
	block := func(name string) *consensus.Block {
		b := sc.blocks[name]
		if b == nil {
			sc.tb.Fatalf("no block %q", name)
		}
		return b
	}
	switch f[0] {
	case "mine":
		seed := f[1]
		if len(f) > 3 {
			seed = f[3]
		}
		sc.mine(f[1], uint64(seed[0]), sc.number(f[2]))
	case "pool":
		b := block(f[1])
		for i, tx := range b.Txs {
			if i > 0 && (f[2] == "all" || slices.Contains(sc.numbers(f[2]), i)) {
				sc.pool.add(tx.MsgTx())
			}
		}
	case "lose":
		sc.pool.ids = nil
		clear(sc.pool.txs)
	case "peer":
		e := relay.Peer{Peer: f[1]}
		if len(f) > 2 {
			e.Tip = block(f[2]).Hash
		}
		sc.event(e, "")
	case "gone":
		sc.event(relay.PeerGone{Peer: f[1]}, "")
	case "announce":
		sc.event(sc.announcement(f[1], block(f[2]), f[3:]), "")
	case "txs":
		sc.event(sc.txs(uint64(sc.number(f[1])), f[2:]), "")
	case "block":
		sc.event(sc.whole(uint64(sc.number(f[1])), f[2:]), "")
	case "fail":
		why := map[string]relay.Failure{"notyet": relay.NotYet, "nothere": relay.NotHere, "broken": relay.Broken}
		sc.event(relay.Failed{ID: uint64(sc.number(f[1])), Why: why[f[2]]}, "")
	case "arriving":
		sc.event(relay.Arriving{ID: uint64(sc.number(f[1]))}, "")
	case "have":
		sc.event(relay.Have{Block: block(f[1]).Hash, Raw: block(f[1]).Raw}, "")
	case "serve":
		var indexes []uint32
		for _, i := range sc.numbers(f[2]) {
			indexes = append(indexes, uint32(i))
		}
		txs, known, err := sc.a.Txs(block(f[1]).Hash, indexes)
		for j, tx := range txs {
			if !bytes.Equal(tx, encode(sc.tb, block(f[1]).Txs[indexes[j]].MsgTx())) {
				sc.tb.Errorf("serves another transaction at %d", indexes[j])
			}
		}
		fmt.Fprintf(&sc.out, "  %d transactions, known %v, %v\n", len(txs), known, err)
	case "wait":
		d, err := time.ParseDuration(f[1])
		if err != nil {
			sc.tb.Fatal(err)
		}
		sc.wait(d)
	default:
		sc.tb.Fatalf("unknown command %q", f[0])
	}
}

func (sc *script) wait(d time.Duration) {
	sc.tb.Helper()
	for end := sc.now.Add(d); ; {
		next, ok := sc.a.Next()
		if !ok || next.After(end) {
			sc.now = end
			return
		}
		sc.now = next
		sc.event(relay.Tick{}, fmt.Sprintf("%.2fs ", sc.now.Sub(epoch).Seconds()))
	}
}

func (sc *script) announcement(peer string, b *consensus.Block, opts []string) relay.Announced {
	sc.tb.Helper()
	e := relay.Announced{From: peer}
	nonce, fault := uint64(1), ""
	var prefill []int
	for _, o := range opts {
		switch k, v, _ := strings.Cut(o, "="); k {
		case "relayed":
			e.Relayed = true
		case "nonce":
			nonce = uint64(sc.number(v))
		case "prefill":
			prefill = sc.numbers(v)
		case "as":
			fault = v
		}
	}
	e.Block = sc.spoilt(b, nonce, prefill, fault)
	return e
}

// spoilt is a false compact block.
func (b *bench) spoilt(blk *consensus.Block, nonce uint64, prefill []int, fault string) *relay.CompactBlock {
	b.tb.Helper()
	var txs []*wire.MsgTx
	for _, tx := range blk.Txs {
		txs = append(txs, tx.MsgTx().Copy())
	}
	switch fault {
	case "":
	case "ids": // of other transactions
		for i, tx := range many(rand.New(rand.NewPCG(nonce, 99)), len(txs)-1, 150*len(txs)) {
			txs[i+1] = tx
		}
	case "coinbase":
		txs[0].TxOut[0].Value++
	case "witness":
		txs[0].TxIn[0].Witness[0][5] ^= 1
	case "stripped": // of its witness, one
		txs[1].TxIn[0].Witness = nil
	case "flipped":
		txs[1].TxIn[0].Witness[0][0] ^= 1
	case "longer":
		txs = append(txs, many(rand.New(rand.NewPCG(nonce, 98)), 2, 400)...)
	case "double": // CVE-2012-2459, if their number is even
		txs = append(txs, txs[len(txs)-2:]...)
	case "same": // all short ids alike
		for i := range txs[1:] {
			txs[i+1] = txs[1]
		}
	default:
		b.tb.Fatalf("unknown fault %q", fault)
	}
	raw := wire.MsgBlock{Header: blk.Header.BlockHeader, Transactions: txs}
	var buf bytes.Buffer
	if err := raw.Serialize(&buf); err != nil {
		b.tb.Fatal(err)
	}
	if fault == "same" || fault == "double" {
		return b.decode(plain(b.tb, blk, txs, nonce))
	}
	msg, err := relay.MakeAnyCompact(b.w.b.Params, buf.Bytes(), nonce, func(i int, _ chainhash.Hash) bool { return slices.Contains(prefill, i) })
	if err != nil {
		b.tb.Fatal(err)
	}
	return b.decode(msg)
}

func (sc *script) txs(id uint64, opts []string) relay.Event {
	sc.tb.Helper()
	k, ok := sc.asks[id].(relay.AskTxs)
	if !ok {
		return relay.GotTxs{ID: id} // nobody waits for it
	}
	if slices.Contains(opts, "double") { // what the last transactions twice would be
		n := sc.count(k.Block)
		for j, i := range k.Indexes {
			if i >= uint32(n) {
				k.Indexes[j] = i - 2
			}
		}
	}
	e, ok := sc.honest(k).(relay.GotTxs)
	if !ok {
		return sc.honest(k)
	}
	for _, o := range opts {
		switch name, v, _ := strings.Cut(o, "="); name {
		case "wrong":
			e.Txs[slices.Index(k.Indexes, uint32(sc.number(v)))] = encode(sc.tb, many(rand.New(rand.NewPCG(id, 97)), 1, 200)[0])
		case "flipped":
			raw := e.Txs[slices.Index(k.Indexes, uint32(sc.number(v)))]
			raw[len(raw)-10] ^= 1
		case "few":
			e.Txs = e.Txs[1:]
		case "garbage":
			e.Txs[0] = e.Txs[0][1:]
		}
	}
	return e
}

func (sc *script) count(hash chainhash.Hash) int { return len(sc.blocks[sc.name(hash)].Txs) }

func (sc *script) whole(id uint64, opts []string) relay.Event {
	sc.tb.Helper()
	k, ok := sc.asks[id].(relay.AskBlock)
	if !ok {
		return relay.GotBlock{ID: id}
	}
	e := sc.honest(k).(relay.GotBlock)
	if len(opts) > 0 {
		switch opts[0] {
		case "mutated":
			e.Raw[len(e.Raw)-10] ^= 1
		case "other":
			e.Raw = sc.w.large(sc.w.b.Genesis(), 1000, 5, 1000).Raw
		case "cut":
			e.Raw = e.Raw[:len(e.Raw)-1]
		}
	}
	return e
}
