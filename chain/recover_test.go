package chain_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/wire/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"dunlin/chain"
	"dunlin/chain/consensus"
	"dunlin/chain/consensus/enginetest"
)

// crash replaces the file system by what a power cut leaves of it: all that was
// synced and some of what was not.
func (h *home) crash(rng *rand.Rand) {
	h.t.Helper()
	clone := h.o.FS.(*vfs.MemFS).CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: rng.IntN(101), RNG: rng})
	h.close()
	h.o.FS = clone
}

// Killed at any point, the next start goes on from the last commit or later and
// ends where an undisturbed chain ends.
func TestCrashAnywhere(t *testing.T) {
	b, blocks := grown(111)
	base, tip := blocks[1:], blocks[111]
	old := spending(b, tip, base, 10)
	first := b.Mine(tip)
	rival := append([]*consensus.Block{first}, spending(b, first, base[3:], 15)...)
	end := rival[len(rival)-1]
	all := slices.Concat(base, old, rival)
	for seed := range uint64(8) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 2))
			h := open(t, func(o *chain.Options) {
				o.FS = vfs.NewCrashableMem()
				o.FlushBlocks = 1 + rng.IntN(30)
				o.CacheBytes = 4 << 10
			})
			for at := 0; at < len(all); {
				n := min(len(all)-at, 1+rng.IntN(40))
				// The last crash may have lost headers; whoever syncs sends them again.
				if _, _, err := h.AcceptHeaders(t.Context(), headersOf(slices.Concat(base, old))); err != nil {
					t.Fatal(err)
				}
				if _, _, err := h.AcceptHeaders(t.Context(), headersOf(rival)); err != nil {
					t.Fatal(err)
				}
				var tickets []*chain.Ticket
				for _, x := range all[:at+n] {
					if s, _ := h.Status(x.Hash); s.HaveBlock {
						continue
					}
					ticket, err := h.Submit(t.Context(), x.Raw, fromSync)
					if err != nil {
						t.Fatal(err)
					}
					tickets = append(tickets, ticket)
				}
				if len(tickets) > 0 {
					tickets[rng.IntN(len(tickets))].Wait(t.Context()) // the crash comes somewhere behind it
				}
				durable := int32(-1)
				if rng.IntN(2) == 0 {
					at, _ := h.Tip()
					if err := h.Flush(t.Context()); err != nil {
						t.Fatal(err)
					}
					durable = at.Height
				}
				h.crash(rng)
				h.start()
				if at, _ := h.Tip(); at.Height < durable {
					t.Fatalf("height %d after the crash, %d was committed", at.Height, durable)
				}
				at += n
			}
			for _, x := range all {
				h.submit(x.Raw)
			}
			h.wantTip(end)
			h.wantCoins(b, end)
		})
	}
}

// Bytes past the last commit are used, not asked for again, and a header that was
// lost with the commit is found in its block.
func TestReplay(t *testing.T) {
	b, blocks := grown(111)
	blocks = append(blocks, spending(b, blocks[111], blocks[1:], 9)...)
	tip := blocks[120]
	h := open(t, func(o *chain.Options) { o.FS = vfs.NewCrashableMem(); o.FlushInterval = time.Hour })
	h.connectAll(blocks[1:100])
	if err := h.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	// Out of order: 110 before its parents.
	if _, _, err := h.AcceptHeaders(t.Context(), headersOf(blocks[100:])); err != nil {
		t.Fatal(err)
	}
	h.want(blocks[110], chain.Stored)
	h.connectAll(blocks[100:110])
	h.connectAll(blocks[111:])
	h.wantTip(tip)
	clone := h.o.FS.(*vfs.MemFS).CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rand.New(rand.NewPCG(0, 0))})
	h.close()
	h.o.FS = clone
	h.load()
	if at, _ := h.Tip(); at.Height != 99 {
		t.Errorf("committed height %d, want 99", at.Height)
	}
	if _, ok := h.Status(tip.Hash); ok {
		t.Error("the headers were committed")
	}
	h.run()
	<-h.Ready()
	if at, _ := h.Tip(); at.Hash != tip.Hash {
		t.Fatalf("replayed to height %d, want 120", at.Height)
	}
	if l := h.log.with("replayed blocks", "found=21", "from_height=99", "height=120"); len(l) != 1 {
		t.Errorf("replay lines: %q", h.log.with("replayed"))
	}
	h.wantCoins(b, tip)
}

// A locally made block is durable when its verdict is there.
func TestDurableVerdict(t *testing.T) {
	b, blocks := grown(3)
	for _, kind := range []chain.SourceKind{chain.FromMiner, chain.FromRPC} {
		h := open(t, func(o *chain.Options) { o.FS = vfs.NewCrashableMem(); o.FlushInterval = time.Hour })
		src := chain.Source{Kind: kind}
		check := func(x *consensus.Block, want chain.Outcome) {
			t.Helper()
			if v := h.submitFrom(x.Raw, src); v.Outcome != want {
				t.Fatalf("%v: verdict %+v, want %v", kind, v, want)
			}
			clone := h.o.FS.(*vfs.MemFS).CrashClone(vfs.CrashCloneCfg{})
			o := h.o
			o.FS = clone
			c, err := chain.Open(o)
			if err != nil {
				t.Fatal(err)
			}
			if s, ok := c.Status(x.Hash); !ok || !s.HaveBlock || s.Active != (want == chain.Connected) {
				t.Errorf("%v: after a crash: %+v, %v", kind, s, ok)
			}
			if err := c.Close(); err != nil {
				t.Fatal(err)
			}
		}
		check(blocks[1], chain.Connected)
		check(blocks[2], chain.Connected)
		check(b.Mine(blocks[1]), chain.SideChain)
		if _, _, err := h.AcceptHeaders(t.Context(), headersOf(b.MineN(blocks[3], 1))); err == nil {
			t.Fatal("a header without a parent was accepted")
		}
		if _, _, err := h.AcceptHeaders(t.Context(), headersOf(blocks[3:])); err != nil {
			t.Fatal(err)
		}
		next := b.Mine(blocks[3])
		check(next, chain.Stored)
	}
}

// A commit follows a change by FlushInterval without anybody asking.
func TestFlushInterval(t *testing.T) {
	_, blocks := grown(2)
	h := open(t, func(o *chain.Options) { o.FS = vfs.NewCrashableMem(); o.FlushInterval = time.Millisecond })
	h.connectAll(blocks[1:])
	for deadline := time.Now().Add(patience); ; {
		o := h.o
		o.FS = h.o.FS.(*vfs.MemFS).CrashClone(vfs.CrashCloneCfg{})
		c, err := chain.Open(o)
		if err != nil {
			t.Fatal(err)
		}
		at, _ := c.Tip()
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		if at.Height == 2 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("no commit")
		}
	}
}

// When the disk fails, Run says so, whoever waits learns it, and on a healthy
// disk the chain goes on from its last commit.
func TestDiskFailure(t *testing.T) {
	b, blocks := grown(120)
	mem := vfs.NewCrashableMem()
	var broken atomic.Bool
	fs := errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if broken.Load() && op.Kind == errorfs.OpFileWriteAt && strings.HasSuffix(op.Path, ".blk") {
			return errors.New("disk on fire")
		}
		return nil
	}))
	h := open(t, func(o *chain.Options) { o.FS = fs })
	h.connectAll(blocks[1:101])
	broken.Store(true)
	v := h.submit(blocks[101].Raw)
	if v.Outcome != chain.Failed || v.Err == nil || !strings.Contains(v.Err.Error(), "disk on fire") {
		t.Fatalf("verdict %+v", v)
	}
	if err := h.stop(); err == nil || !strings.Contains(err.Error(), "disk on fire") {
		t.Fatalf("run: %v", err)
	}
	if _, err := h.Submit(t.Context(), blocks[101].Raw, fromSync); !errors.Is(err, chain.ErrClosed) {
		t.Errorf("submit afterwards: %v", err)
	}
	if err := h.Flush(t.Context()); !errors.Is(err, chain.ErrClosed) {
		t.Errorf("flush afterwards: %v", err)
	}
	broken.Store(false)
	h.reopen()
	h.submitAll(blocks[1:])
	h.wantTip(blocks[120])
	h.wantCoins(b, blocks[120])
}

// fullFS is a file system whose free space is what free says.
type fullFS struct {
	vfs.FS
	free *atomic.Uint64
}

func (f fullFS) GetDiskUsage(string) (vfs.DiskUsage, error) {
	return vfs.DiskUsage{AvailBytes: f.free.Load()}, nil
}

// With too little disk space nothing is accepted: one error line, a clear verdict
// for whoever waits for one, patience for sync; it goes on when there is space.
func TestLowDisk(t *testing.T) {
	_, blocks := grown(3)
	var free atomic.Uint64
	free.Store(500)
	h := open(t, func(o *chain.Options) {
		o.FS = fullFS{vfs.NewMem(), &free}
		o.MinFreeBytes = 1000
	})
	ticket, err := h.Submit(t.Context(), blocks[1].Raw, fromSync)
	if err != nil {
		t.Fatal(err)
	}
	for len(h.log.with("level=ERROR", "too little disk space", "free_bytes=500")) == 0 {
		select {
		case <-ticket.Done():
			t.Fatalf("verdict %+v", ticket.Verdict())
		default:
		}
	}
	if v := h.submitFrom(blocks[1].Raw, chain.Source{Kind: chain.FromRPC}); !errors.Is(v.Err, chain.ErrLowDisk) {
		t.Errorf("verdict for RPC %+v", v)
	}
	if err := h.Flush(t.Context()); err != nil { // others are served meanwhile
		t.Error(err)
	}
	free.Store(2000)
	if v := ticket.Wait(t.Context()); v.Outcome != chain.Connected {
		t.Errorf("verdict %+v", v)
	}
	h.connectAll(blocks[2:])
	if l := h.log.with("too little disk space"); len(l) != 1 {
		t.Errorf("lines %q", l)
	}
	if l := h.log.with("disk space is back"); len(l) != 1 {
		t.Errorf("lines %q", l)
	}
}

// askedFS calls ask, if it is set, before it says how much space is free.
type askedFS struct {
	fullFS
	ask *atomic.Pointer[func()]
}

func (f askedFS) GetDiskUsage(dir string) (vfs.DiskUsage, error) {
	if ask := f.ask.Load(); ask != nil {
		(*ask)()
	}
	return f.fullFS.GetDiskUsage(dir)
}

// A chain that stops on a full disk, while a worker has yet to prepare the block that
// is refused for it, says that it stopped and leaves to the worker what is the worker's.
func TestStopOnLowDisk(t *testing.T) {
	b, blocks := grown(111)
	tx := enginetest.Spend(blocks[1], 0, 1000, enginetest.OpTrue())
	spends := b.MineTemplate(blocks[111], enginetest.Template{Txs: []*wire.MsgTx{tx}, Fees: 1000})
	next := b.MineN(spends, 2)
	var free atomic.Uint64
	free.Store(1 << 20)
	var ask atomic.Pointer[func()]
	inScript, script := make(chan struct{}), make(chan struct{})
	h := open(t, func(o *chain.Options) {
		o.FS = askedFS{fullFS{vfs.NewMem(), &free}, &ask}
		o.MinFreeBytes = 1000
		o.Workers = 1
		o.ScriptsChecked = func(chainhash.Hash, uint32) bool { close(inScript); <-script; return true }
	})
	h.connectAll(blocks[1:])
	submit := func(x *consensus.Block, kind chain.SourceKind) *chain.Ticket {
		t.Helper()
		ticket, err := h.Submit(t.Context(), x.Raw, chain.Source{Kind: kind})
		if err != nil {
			t.Fatal(err)
		}
		return ticket
	}
	submit(spends, chain.FromGossip)
	<-inScript // the only worker is busy
	asked, answer := make(chan struct{}), make(chan struct{})
	once := sync.OnceFunc(func() { close(asked); <-answer })
	ask.Store(&once)
	submit(next[0], chain.FromSync)
	<-asked // it is not known yet that the disk is full
	refused := submit(next[1], chain.FromRPC)
	free.Store(500)
	close(answer)
	for deadline := time.Now().Add(patience); chain.Queued(h.Chain) > 0; runtime.Gosched() {
		if time.Now().After(deadline) {
			t.Fatal("the block stays in the queue")
		}
	}
	stopped := make(chan error, 1)
	go func() { stopped <- h.stop() }()
	if v := refused.Wait(t.Context()); v.Outcome != chain.Failed || !errors.Is(v.Err, chain.ErrClosed) || v.Hash != (chainhash.Hash{}) {
		t.Errorf("verdict %+v", v)
	}
	close(script)
	if err := <-stopped; err != nil {
		t.Error(err)
	}
}

// A chain that starts on a full disk knows it before the first block comes, refuses
// whoever waits for a verdict and not whoever has patience, and learns by itself that
// there is space again.
func TestLowDiskFromTheStart(t *testing.T) {
	_, blocks := grown(4)
	var free atomic.Uint64
	free.Store(500)
	h := open(t, func(o *chain.Options) {
		o.FS = fullFS{vfs.NewMem(), &free}
		o.MinFreeBytes = 1000
	})
	roomAgain := func() {
		t.Helper()
		free.Store(2000)
		for deadline := time.Now().Add(patience); h.LowDisk(); {
			if time.Now().After(deadline) {
				t.Fatal("nobody noticed that there is space")
			}
			<-time.After(time.Millisecond)
		}
	}
	miner := chain.Source{Kind: chain.FromMiner}
	if v := h.submitFrom(blocks[1].Raw, miner); !h.LowDisk() || v.Outcome != chain.Failed || !errors.Is(v.Err, chain.ErrLowDisk) {
		t.Errorf("low %v, verdict %+v", h.LowDisk(), v)
	}
	roomAgain() // although no block has come since
	if v := h.submitFrom(blocks[1].Raw, miner); v.Outcome != chain.Connected {
		t.Errorf("verdict %+v", v)
	}

	// Full again: the blocks are larger than what is taken on trust, so the first
	// notices. What has patience waits, in order; whoever waits for a verdict gets it.
	free.Store(500)
	var tickets []*chain.Ticket
	kinds := []chain.SourceKind{chain.FromSync, chain.FromRPC, chain.FromImport, chain.FromGossip, chain.FromSync}
	for i, kind := range kinds {
		ticket, err := h.Submit(t.Context(), blocks[2+i/2].Raw, chain.Source{Kind: kind})
		if err != nil {
			t.Fatal(err)
		}
		tickets = append(tickets, ticket)
	}
	for _, i := range []int{1, 3} {
		if v := tickets[i].Wait(t.Context()); !errors.Is(v.Err, chain.ErrLowDisk) {
			t.Errorf("ticket %d: %+v", i, v)
		}
	}
	select {
	case <-tickets[0].Done():
		t.Errorf("ticket 0: %+v", tickets[0].Verdict())
	default:
	}
	roomAgain()
	for _, i := range []int{0, 2, 4} {
		if v := tickets[i].Wait(t.Context()); v.Outcome != chain.Connected {
			t.Errorf("ticket %d: %+v", i, v)
		}
	}
	h.wantTip(blocks[4])
	if low, back := h.log.with("too little disk space"), h.log.with("disk space is back"); len(low) != 2 || len(back) != 2 {
		t.Errorf("lines %q and %q", low, back)
	}
}

// Stopping gives up what is not verified yet and answers everybody.
func TestStopInTheMiddle(t *testing.T) {
	b, blocks := grown(111)
	blocks = append(blocks, spending(b, blocks[111], blocks[1:], 9)...)
	for n := range 10 {
		h := open(t, nil)
		var tickets []*chain.Ticket
		for _, x := range blocks[1:] {
			ticket, err := h.Submit(t.Context(), x.Raw, fromSync)
			if err != nil {
				t.Fatal(err)
			}
			tickets = append(tickets, ticket)
		}
		tickets[n*12].Wait(t.Context())
		h.close()
		for i, ticket := range tickets {
			select {
			case <-ticket.Done():
			default:
				t.Fatalf("ticket %d has no verdict", i)
			}
			if v := ticket.Verdict(); v.Outcome != chain.Connected && !errors.Is(v.Err, chain.ErrClosed) {
				t.Fatalf("verdict %d: %+v", i, v)
			}
		}
		h.start()
		h.submitAll(blocks[1:])
		h.wantTip(blocks[120])
		h.wantCoins(b, blocks[120])
	}
}

// A reindex rebuilds index, coins and undo data from the block files alone, also
// if it is cut off, and names damage that it meets.
func TestReindex(t *testing.T) {
	b, blocks := grown(111)
	blocks = append(blocks, spending(b, blocks[111], blocks[1:], 9)...)
	side := b.MineN(blocks[115], 3)
	tip := blocks[120]
	h := open(t, func(o *chain.Options) { o.FS = vfs.NewCrashableMem() })
	if _, _, err := h.AcceptHeaders(t.Context(), headersOf(blocks)); err != nil {
		t.Fatal(err)
	}
	send := slices.Concat(blocks[1:], side)
	rng := rand.New(rand.NewPCG(3, 3))
	rng.Shuffle(len(send), func(i, j int) { send[i], send[j] = send[j], send[i] })
	h.submitAll(send)
	h.wantTip(tip)
	h.rest()
	h.close()

	h.o.Reindex = true
	h.load() // the index is gone, and here the reindex is cut off
	h.close()
	h.o.Reindex = false
	h.start()
	if at, _ := h.Tip(); at.Hash != tip.Hash {
		t.Fatalf("height %d after the reindex", at.Height)
	}
	if s, _ := h.Status(side[0].Hash); !s.HaveBlock {
		t.Error("the side branch is lost")
	}
	if l := h.log.with("reindexing"); len(l) != 1 {
		t.Errorf("lines %q", l)
	}
	if p, err := h.Import(t.Context(), strings.NewReader(string(frames(blocks...))), nil); err != nil || p.Known != 121 {
		t.Errorf("import afterwards: %+v, %v", p, err)
	}
	h.reopen()
	if l := h.log.with("reindexing"); len(l) != 1 {
		t.Errorf("it reindexes again: %q", l)
	}
	h.wantTip(tip)
	h.wantCoins(b, tip)
}

// An operator's word against a block holds over restarts until it is taken back.
func TestInvalidateReconsider(t *testing.T) {
	b, blocks := grown(111)
	base, tip := blocks[1:], blocks[111]
	long := spending(b, tip, base, 6)
	first := b.Mine(tip)
	short := append([]*consensus.Block{first}, spending(b, first, base[2:], 3)...)
	h := open(t, nil)
	h.connectAll(base)
	h.connectAll(long)
	for _, x := range short {
		h.want(x, chain.SideChain)
	}
	ctx := t.Context()
	if err := h.Invalidate(ctx, long[3].Hash); err != nil {
		t.Fatal(err)
	}
	h.wantTip(short[3]) // as much work as long[3]'s branch had, and more than is left of it
	if l := h.log.with("msg=reorg", "depth=6", "fork=111"); len(l) != 1 {
		t.Errorf("reorg lines %q", l)
	}
	h.wantRule(long[3], "duplicate-invalid")
	h.reopen()
	h.wantTip(short[3])
	if err := h.Invalidate(ctx, short[0].Hash); err != nil {
		t.Fatal(err)
	}
	h.wantTip(long[2])
	if best, _ := h.BestHeader(); best.Hash != long[2].Hash {
		t.Errorf("best header %v", best.Hash)
	}
	if err := h.Reconsider(ctx, long[5].Hash); err != nil {
		t.Fatal(err)
	}
	h.wantTip(long[5])
	if err := h.Reconsider(ctx, short[0].Hash); err != nil {
		t.Fatal(err)
	}
	if err := h.Invalidate(ctx, blocks[0].Hash); err == nil {
		t.Error("genesis was invalidated")
	}
	if err := h.Invalidate(ctx, b.Mine(tip).Hash); !errors.Is(err, chain.ErrNotFound) {
		t.Errorf("an unknown block: %v", err)
	}
	next := b.MineN(short[3], 3)
	h.submitAll(next)
	h.wantTip(next[2])
	h.wantCoins(b, next[2])
}

// Whatever write or sync of the block and undo files fails, no verdict lies, Run
// ends with the error, and after a power cut the chain goes on and ends right.
func TestFaultAtEveryWrite(t *testing.T) {
	b, blocks := grown(104)
	first := b.Mine(blocks[103])
	blocks = append(blocks, spending(b, blocks[104], blocks[1:], 3)...)
	rival := append([]*consensus.Block{first}, spending(b, first, blocks[2:], 4)...)
	end := rival[len(rival)-1]
	for n := int64(1); ; n++ {
		mem := vfs.NewCrashableMem()
		var left atomic.Int64
		left.Store(1 << 40)
		fs := errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
			if op.Kind.ReadOrWrite() != errorfs.OpIsWrite || (!strings.HasSuffix(op.Path, ".blk") && !strings.HasSuffix(op.Path, ".und")) {
				return nil
			}
			if left.Add(-1) == 0 {
				return errors.New("disk on fire")
			}
			return nil
		}))
		h := open(t, func(o *chain.Options) { o.FS = fs; o.FlushBlocks = 2 })
		h.connectAll(blocks[1:101])
		if err := h.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		left.Store(n)
		var good []*consensus.Block // said to be connected
		for _, x := range slices.Concat(blocks[101:], rival) {
			ticket, err := h.Submit(t.Context(), x.Raw, chain.Source{Kind: chain.FromMiner})
			if err != nil {
				break
			}
			v := ticket.Wait(t.Context())
			if v.Outcome == chain.Refused {
				t.Fatalf("write %d: verdict %+v", n, v)
			}
			if v.Outcome == chain.Connected || v.Outcome == chain.SideChain {
				good = append(good, x)
			}
		}
		failed := left.Load() <= 0
		if err := h.stop(); failed != (err != nil) {
			t.Fatalf("write %d: failed %v, run ended with %v", n, failed, err)
		}
		// A store whose write failed may not even close; its files are what counts.
		clone := mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 50, RNG: rand.New(rand.NewPCG(uint64(n), 0))})
		_ = h.Close()
		h.Chain = nil
		h.o.FS = clone
		h.start()
		for _, x := range good {
			if s, ok := h.Status(x.Hash); !ok || !s.HaveBlock || !s.Valid && s.Active {
				t.Fatalf("write %d: %v was acknowledged and is %+v", n, x.Hash, s)
			}
		}
		h.submitAll(slices.Concat(blocks[101:], rival))
		h.wantTip(end)
		h.wantCoins(b, end)
		if !failed {
			t.Logf("%d writes", n-1)
			return
		}
	}
}
