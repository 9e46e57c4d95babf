package index_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/btcsuite/btcd/btcec/v2"
	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/txscript/v2"
	"github.com/btcsuite/btcd/wire/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"dunlin/chain"
	"dunlin/chain/consensus"
	"dunlin/chain/consensus/enginetest"
	"dunlin/chain/consensus/pos"
	"dunlin/chain/consensus/pow"
	"dunlin/chain/index"
)

// patience is how long a test waits for what must come.
const patience = 60 * time.Second

// A ledger is a chain in memory with an index of each kind.
type ledger struct {
	*chain.Chain
	t    *testing.T
	b    *enginetest.Builder
	stop func()
}

// newLedger runs a chain on a file system in memory until the test ends.
func newLedger(t *testing.T, p *consensus.Params) *ledger {
	t.Helper()
	b := enginetest.NewBuilder(p)
	o := chain.Options{
		Dir: "home", FS: vfs.NewMem(), Params: p, Engine: pow.New(p),
		Now: func() time.Time { return time.Date(2040, 1, 1, 0, 0, 0, 0, time.UTC) },
	}
	if p.SealBytes > 0 {
		s, engine := enginetest.NewStakenet(p), pos.New(p)
		b.Engine, b.Prepare, b.Seal, o.Engine = engine, s.Prepare, s.Seal, engine
	}
	c, err := chain.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	l := &ledger{Chain: c, t: t, b: b}
	l.stop = runs(t, c.Run)
	t.Cleanup(func() {
		l.stop()
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	<-c.Ready()
	return l
}

// runs runs something until the function that it returns is called.
func runs(t *testing.T, run func(context.Context) error) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- run(ctx) }()
	return sync.OnceFunc(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("run: %v", err)
		}
	})
}

// connect hands blocks in and waits for the verdict on the last.
func (l *ledger) connect(blocks ...*consensus.Block) {
	l.t.Helper()
	for _, b := range blocks {
		ticket, err := l.Submit(l.t.Context(), b.Raw, chain.Source{Kind: chain.FromSync, Peer: "p"})
		if err != nil {
			l.t.Fatal(err)
		}
		if v := ticket.Wait(l.t.Context()); v.Outcome != chain.Connected && v.Outcome != chain.SideChain {
			l.t.Fatalf("block %v: %v %v", b.Hash, v.Outcome, v.Err)
		}
	}
}

// opened opens an index and runs it until the test ends, or stop is called.
type opened struct {
	*index.Index
	t    *testing.T
	stop func()
}

func openIndex(t *testing.T, c index.Chain, k index.Kind, fs vfs.FS, batch int) *opened {
	t.Helper()
	x, err := index.Open(index.Options{Kind: k, Chain: c, ChainID: c.Params().ChainID(), Dir: "home", FS: fs, BatchBlocks: batch})
	if err != nil {
		t.Fatal(err)
	}
	o := &opened{Index: x, t: t}
	run := runs(t, x.Run)
	o.stop = sync.OnceFunc(func() {
		run()
		if err := x.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	t.Cleanup(o.stop)
	return o
}

// synced waits until it has the tip.
func (o *opened) synced(c index.Chain) {
	o.t.Helper()
	deadline := time.Now().Add(patience)
	for {
		tip, _ := c.Tip()
		if s := o.Status(); s.Synced && s.Height == tip.Height && s.Target == tip.Height {
			return
		} else if time.Now().After(deadline) {
			o.t.Fatalf("%+v after %v", s, patience)
		}
		runtimeYield()
	}
}

// runtimeYield gives the index a moment without a clock in the way.
func runtimeYield() {
	t := time.NewTimer(time.Millisecond)
	<-t.C
}

// A history is what a full scan of the active chain finds of a script.
type history struct {
	rows    []string // latest first
	sum     index.Sum
	unspent map[wire.OutPoint]int64
}

// scan reads the whole active chain as the indexes should show it.
func scan(t *testing.T, c index.Chain) (places map[chainhash.Hash]index.Place, scripts map[string]*history) {
	t.Helper()
	places, scripts = map[chainhash.Hash]index.Place{}, map[string]*history{}
	coins := map[wire.OutPoint]*wire.TxOut{}
	tip, _ := c.Tip()
	first := int32(1)
	if c.Params().GenesisSpendable() {
		first = 0
	}
	for h := first; h <= tip.Height; h++ {
		hash, _ := c.HashAt(h)
		raw, err := c.Block(hash)
		if err != nil {
			t.Fatal(err)
		}
		b, err := consensus.DecodeBlock(c.Params(), raw)
		if err != nil {
			t.Fatal(err)
		}
		for i, tx := range b.Txs {
			id := *tx.Hash()
			places[id] = index.Place{Block: hash, Height: h, Index: i, Active: true}
			rows := map[string]*index.Row{}
			at := func(script []byte) (*index.Row, *history) {
				k := string(script)
				if scripts[k] == nil {
					scripts[k] = &history{unspent: map[wire.OutPoint]int64{}, sum: index.Sum{First: h}}
				}
				if rows[k] == nil {
					rows[k] = &index.Row{TxID: id, Block: hash, Height: h, Index: i}
				}
				return rows[k], scripts[k]
			}
			for n, o := range tx.MsgTx().TxOut {
				if txscript.IsUnspendable(o.PkScript) {
					continue
				}
				op := wire.OutPoint{Hash: id, Index: uint32(n)}
				coins[op] = o
				r, s := at(o.PkScript)
				r.Outs = append(r.Outs, index.Coin{N: uint32(n), Value: o.Value})
				r.Received += o.Value
				s.unspent[op] = o.Value
			}
			for n, in := range tx.MsgTx().TxIn {
				if i == 0 {
					break
				}
				o := coins[in.PreviousOutPoint]
				r, s := at(o.PkScript)
				r.Ins = append(r.Ins, index.Coin{N: uint32(n), Value: o.Value})
				r.Sent += o.Value
				delete(s.unspent, in.PreviousOutPoint)
				delete(coins, in.PreviousOutPoint)
			}
			for k, r := range rows {
				s := scripts[k]
				s.rows = append([]string{text(*r)}, s.rows...)
				s.sum.Received += r.Received
				s.sum.Sent += r.Sent
				s.sum.Txs++
				s.sum.Last = h
			}
		}
	}
	return places, scripts
}

func text(r index.Row) string {
	if r.Outs == nil {
		r.Outs = []index.Coin{}
	}
	if r.Ins == nil {
		r.Ins = []index.Coin{}
	}
	return fmt.Sprintf("%+v", r)
}

// agrees compares both indexes with a full scan.
func agrees(t *testing.T, c index.Chain, txs, addresses *index.Index) {
	t.Helper()
	places, scripts := scan(t, c)
	if txs != nil {
		for id, want := range places {
			got, ok, err := txs.Tx(id)
			if err != nil || !ok || got != want {
				t.Fatalf("transaction %v: %+v %v %v, want %+v", id, got, ok, err, want)
			}
		}
		if got, ok, err := txs.Tx(chainhash.Hash{1, 2, 3}); ok || err != nil {
			t.Errorf("an unknown transaction: %+v %v", got, err)
		}
	}
	if addresses == nil {
		return
	}
	for script, want := range scripts {
		sum, err := addresses.Sum(t.Context(), []byte(script))
		if err != nil || sum != want.sum {
			t.Fatalf("script %x: %+v %v, want %+v", script, sum, err, want.sum)
		}
		var rows []string
		for cursor := ""; ; {
			page, next, err := addresses.History(t.Context(), []byte(script), cursor, 7)
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range page {
				rows = append(rows, text(r))
			}
			if cursor = next; cursor == "" {
				break
			}
		}
		if !slices.Equal(rows, want.rows) {
			t.Fatalf("script %x: history\n%q\nwant\n%q", script, rows, want.rows)
		}
		unspent := map[wire.OutPoint]int64{}
		for cursor := ""; ; {
			page, next, err := addresses.Unspent(t.Context(), []byte(script), cursor, 5)
			if err != nil {
				t.Fatal(err)
			}
			for _, u := range page {
				unspent[u.Out] = u.Value
			}
			if cursor = next; cursor == "" {
				break
			}
		}
		if !maps.Equal(unspent, want.unspent) {
			t.Fatalf("script %x: unspent %v, want %v", script, unspent, want.unspent)
		}
	}
}

// payments makes a branch of n blocks behind parent that spend what blocks of the past
// made; the seed makes branches differ.
func (l *ledger) payments(past []*consensus.Block, n int, seed byte) []*consensus.Block {
	out := slices.Clone(past)
	for i := range n {
		// Each spends a coinbase and, in the same block, what that made.
		first := enginetest.Spend(out[len(past)-101+i], 0, 1000, []byte{txscript.OP_1, txscript.OP_NOP, seed}, enginetest.OpTrue())
		block := l.b.Mine(out[len(out)-1], first)
		out = append(out, block)
	}
	return out[len(past):]
}

// TestAgainstAFullScan: after growth, reorganisations to and fro, and restarts, both
// indexes show what reading every block shows.
func TestAgainstAFullScan(t *testing.T) {
	t.Parallel()
	l := newLedger(t, consensus.Regtest())
	fs := vfs.NewMem()
	txs := openIndex(t, l, index.Txs, fs, 0)
	addresses := openIndex(t, l, index.Addresses, fs, 7)
	check := func() {
		t.Helper()
		txs.synced(l)
		addresses.synced(l)
		agrees(t, l, txs.Index, addresses.Index)
	}
	check() // genesis alone
	trunk := append([]*consensus.Block{l.b.Genesis()}, l.b.MineN(l.b.Genesis(), 110)...)
	l.connect(trunk[1:]...)
	check()
	a := l.payments(trunk, 5, 0x51)
	l.connect(a...)
	check()
	b := l.payments(trunk, 8, 0x52)
	l.connect(b...)
	check()
	// A transaction of the branch that lost is found, and said to be on no active chain.
	lost := *a[0].Txs[1].Hash()
	if p, ok, err := txs.Tx(lost); err != nil || !ok || p.Active || p.Block != a[0].Hash {
		t.Errorf("of the losing branch: %+v %v %v", p, ok, err)
	}
	// Back to the first branch, whose blocks are indexed, and more of it.
	more := l.b.MineN(a[len(a)-1], 5)
	l.connect(more...)
	check()
	// An operator takes blocks back: the tip goes down.
	if err := l.Invalidate(t.Context(), a[2].Hash); err != nil {
		t.Fatal(err)
	}
	check()
	// Over restarts.
	txs.stop()
	addresses.stop()
	l.connect(l.b.MineN(b[len(b)-1], 3)...)
	txs = openIndex(t, l, index.Txs, fs, 1)
	addresses = openIndex(t, l, index.Addresses, fs, 1)
	check()
	if s := txs.Status(); s.Percent != 100 || s.Bytes == 0 || s.Err != nil || s.Name != "tx_index" {
		t.Errorf("%+v", s)
	}
	if _, _, err := addresses.History(t.Context(), enginetest.OpTrue(), "nonsense", 1); !errors.Is(err, index.ErrCursor) {
		t.Errorf("a bad cursor: %v", err)
	}
}

// TestInitialStake: where genesis makes coins, both indexes have them, before and after they are spent.
func TestInitialStake(t *testing.T) {
	t.Parallel()
	l := newLedger(t, consensus.Stakenet())
	fs := vfs.NewMem()
	txs := openIndex(t, l, index.Txs, fs, 0)
	addresses := openIndex(t, l, index.Addresses, fs, 0)
	check := func() {
		t.Helper()
		txs.synced(l)
		addresses.synced(l)
		agrees(t, l, txs.Index, addresses.Index)
	}
	check()
	secret := consensus.StakenetKey(4)
	key, _ := btcec.PrivKeyFromBytes(secret[:])
	genesis := l.b.Genesis().Txs[0]
	out := genesis.MsgTx().TxOut[3]
	tx := wire.NewMsgTx(2)
	tx.AddTxIn(&wire.TxIn{PreviousOutPoint: wire.OutPoint{Hash: *genesis.Hash(), Index: 3}})
	tx.AddTxOut(wire.NewTxOut(out.Value-1000, enginetest.OpTrue()))
	hashes := txscript.NewTxSigHashes(tx, txscript.NewCannedPrevOutputFetcher(out.PkScript, out.Value))
	witness, err := txscript.TaprootWitnessSignature(tx, hashes, 0, out.Value, out.PkScript, txscript.SigHashDefault, key)
	if err != nil {
		t.Fatal(err)
	}
	tx.TxIn[0].Witness = witness
	first := l.b.Mine(l.b.Genesis())
	l.connect(first, l.b.Mine(first, tx))
	check()
	sum, err := addresses.Sum(t.Context(), out.PkScript)
	if want := (index.Sum{Received: out.Value, Sent: out.Value, Txs: 2, First: 0, Last: 2}); err != nil || sum != want {
		t.Errorf("%+v %v, want %+v", sum, err, want)
	}
}

// TestCrashAtEveryWrite cuts the power at each write of an index, with what was not synced
// there or not, and opens what is left: it is behind, never wrong, and catches up.
func TestCrashAtEveryWrite(t *testing.T) {
	t.Parallel()
	l := newLedger(t, consensus.Regtest())
	trunk := append([]*consensus.Block{l.b.Genesis()}, l.b.MineN(l.b.Genesis(), 104)...)
	l.connect(trunk[1:]...)
	l.connect(l.payments(trunk, 4, 0x51)...)
	l.connect(l.payments(trunk, 6, 0x52)...)
	for _, k := range []index.Kind{index.Txs, index.Addresses} {
		mem := vfs.NewCrashableMem()
		if err := mem.MkdirAll("home", 0o755); err != nil {
			t.Fatal(err)
		}
		var clones []*vfs.MemFS
		rng := rand.New(rand.NewPCG(1, 2))
		hook := &hooked{FS: mem, before: func() {
			clones = append(clones, mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: []int{0, 50, 100}[len(clones)%3], RNG: rng}))
		}}
		x := openIndex(t, l, k, hook, 40)
		x.synced(l)
		x.stop()
		hook.mu.Lock()
		hook.before = func() {}
		hook.mu.Unlock()
		if len(clones) < 20 {
			t.Fatalf("%v: only %d writes", k, len(clones))
		}
		for i, fs := range clones {
			if err := fs.MkdirAll("home", 0o755); err != nil { // the chain's, which is synced
				t.Fatal(err)
			}
			y := openIndex(t, l, k, fs, 0)
			y.synced(l)
			if i%4 == 0 || i > len(clones)-5 { // comparing is what takes long
				if k == index.Txs {
					agrees(t, l, y.Index, nil)
				} else {
					agrees(t, l, nil, y.Index)
				}
			}
			y.stop()
			if t.Failed() {
				t.Fatalf("%v: crash at write %d of %d", k, i, len(clones))
			}
		}
	}
}

// hooked calls before ahead of each write.
type hooked struct {
	vfs.FS
	mu     sync.Mutex
	before func()
}

func (h *hooked) hit() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.before()
}

func (h *hooked) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	h.hit()
	f, err := h.FS.Create(name, c)
	if err != nil {
		return nil, err
	}
	return &hookedFile{f, h}, nil
}

func (h *hooked) Rename(a, b string) error { h.hit(); return h.FS.Rename(a, b) }
func (h *hooked) Remove(name string) error { h.hit(); return h.FS.Remove(name) }
func (h *hooked) Unwrap() vfs.FS           { return h.FS }

type hookedFile struct {
	vfs.File
	h *hooked
}

func (f *hookedFile) Write(b []byte) (int, error) { f.h.hit(); return f.File.Write(b) }
func (f *hookedFile) Sync() error                 { f.h.hit(); return f.File.Sync() }
func (f *hookedFile) SyncData() error             { f.h.hit(); return f.File.SyncData() }

// TestChainLostBlocks: after a power cut the chain below may be shorter than the index, and
// then grow another branch. What it lost is not shown.
func TestChainLostBlocks(t *testing.T) {
	t.Parallel()
	long := newLedger(t, consensus.Regtest())
	trunk := append([]*consensus.Block{long.b.Genesis()}, long.b.MineN(long.b.Genesis(), 105)...)
	branch := long.payments(trunk, 5, 0x51)
	long.connect(trunk[1:]...)
	long.connect(branch...)
	fs := vfs.NewMem()
	for _, k := range []index.Kind{index.Txs, index.Addresses} {
		x := openIndex(t, long, k, fs, 0)
		x.synced(long)
		x.stop()
	}
	short := newLedger(t, consensus.Regtest())
	short.b = long.b
	short.connect(trunk[1:]...)
	txs := openIndex(t, short, index.Txs, fs, 0)
	addresses := openIndex(t, short, index.Addresses, fs, 0)
	for range 2 {
		txs.synced(short)
		addresses.synced(short)
		agrees(t, short, txs.Index, addresses.Index)
		if p, ok, err := txs.Tx(*branch[0].Txs[1].Hash()); ok || err != nil {
			t.Errorf("of a block that is lost: %+v %v", p, err)
		}
		short.connect(short.payments(trunk, 3, 0x53)...)
	}
}

// TestDamagedIndexIsBuiltAnew: whatever is wrong with its files.
func TestDamagedIndexIsBuiltAnew(t *testing.T) {
	t.Parallel()
	l := newLedger(t, consensus.Regtest())
	l.connect(l.b.MineN(l.b.Genesis(), 30)...)
	fs := vfs.NewMem()
	x := openIndex(t, l, index.Txs, fs, 0)
	x.synced(l)
	x.stop()
	names, err := fs.List("home/" + index.Txs.Folder())
	if err != nil {
		t.Fatal(err)
	}
	damaged := 0
	for _, name := range names {
		if !bytes.HasSuffix([]byte(name), []byte(".sst")) && !bytes.HasPrefix([]byte(name), []byte("MANIFEST")) {
			continue
		}
		f, err := fs.Create("home/"+index.Txs.Folder()+"/"+name, vfs.WriteCategoryUnspecified)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Write([]byte("nonsense")); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		damaged++
	}
	if damaged == 0 {
		t.Fatalf("nothing to damage among %v", names)
	}
	x = openIndex(t, l, index.Txs, fs, 0)
	x.synced(l)
	agrees(t, l, x.Index, nil)
	x.stop()
	// Another chain's, and a dropped one.
	other, err := index.Open(index.Options{Kind: index.Txs, Chain: l, ChainID: "other-00000000", Dir: "home", FS: fs})
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Close(); err != nil {
		t.Fatal(err)
	}
	if err := index.Drop(fs, "home", index.Txs); err != nil {
		t.Fatal(err)
	}
	if left, err := fs.List("home"); err != nil || slices.Contains(left, index.Txs.Folder()) {
		t.Errorf("after the drop: %v %v", left, err)
	}
	x = openIndex(t, l, index.Txs, fs, 0)
	x.synced(l)
	agrees(t, l, x.Index, nil)
}

// TestFullDisk: an index that cannot write says so and stands still; the chain does not.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	l := newLedger(t, consensus.Regtest())
	blocks := l.b.MineN(l.b.Genesis(), 10)
	l.connect(blocks...)
	full := errors.New("no space left on device")
	fs := &hooked{FS: vfs.NewMem(), before: func() {}}
	failing := &failingFS{hooked: fs}
	x := openIndex(t, l, index.Txs, failing, 0)
	x.synced(l)
	failing.fail(full)
	l.connect(l.b.Mine(blocks[9]))
	deadline := time.Now().Add(patience)
	for x.Status().Err == nil {
		if time.Now().After(deadline) {
			t.Fatal("no word of the full disk")
		}
		runtimeYield()
	}
	if s := x.Status(); s.Synced || s.Height != 10 {
		t.Errorf("%+v", s)
	}
	// What it has it still shows.
	if _, ok, err := x.Tx(*blocks[4].Txs[0].Hash()); !ok || err != nil {
		t.Errorf("%v %v", ok, err)
	}
}

// failingFS fails every write with an error, once it is told to.
type failingFS struct {
	*hooked
	mu  sync.Mutex
	err error
}

func (f *failingFS) fail(err error) { f.mu.Lock(); defer f.mu.Unlock(); f.err = err }

func (f *failingFS) failure() error { f.mu.Lock(); defer f.mu.Unlock(); return f.err }

func (f *failingFS) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	file, err := f.FS.Create(name, c)
	if err != nil {
		return nil, err
	}
	return &failingFile{file, f}, nil
}

type failingFile struct {
	vfs.File
	f *failingFS
}

func (f *failingFile) Write(b []byte) (int, error) {
	if err := f.f.failure(); err != nil {
		return 0, err
	}
	return f.File.Write(b)
}

func (f *failingFile) Sync() error {
	return errors.Join(f.f.failure(), f.File.Sync())
}

func (f *failingFile) SyncData() error {
	return errors.Join(f.f.failure(), f.File.SyncData())
}

// TestRealBlocks compares both indexes with a full scan of mainnet's first 14,131 blocks.
func TestRealBlocks(t *testing.T) {
	t.Parallel()
	data := enginetest.Data(t, "chain/mainnet-blocks-0-14131.dat.zst")
	l := newLedger(t, consensus.Bitcoin())
	// While it syncs: the indexes follow.
	fs := vfs.NewMem()
	txs := openIndex(t, l, index.Txs, fs, 0)
	addresses := openIndex(t, l, index.Addresses, fs, 0)
	if _, err := l.Import(t.Context(), bytes.NewReader(data), nil); err != nil {
		t.Fatal(err)
	}
	if tip, _ := l.Tip(); tip.Height != 14_131 {
		t.Fatalf("height %d", tip.Height)
	}
	txs.synced(l)
	addresses.synced(l)
	agrees(t, l, txs.Index, addresses.Index)
}
