package exchange

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/libp2p/go-libp2p/core/network"

	"dunlin/chain/consensus"
)

// TestGateOrder: the peer that got least is next, what was begun goes first, who
// waits too long is busy.
func TestGateOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, g := t.Context(), newGate(1, 0)
		var greedy, modest account
		if err := g.acquire(ctx, nil, &greedy, 100, time.Second); err != nil {
			t.Fatal(err)
		}
		var mu sync.Mutex
		var order []string
		var wg sync.WaitGroup
		took := func(name string, err error) {
			if err != nil {
				t.Error(name, err)
			}
			mu.Lock()
			order = append(order, name)
			mu.Unlock()
		}
		take := func(name string, of *account, n int64) {
			wg.Go(func() {
				took(name, g.acquire(ctx, nil, of, n, time.Minute))
				g.release(of, 0)
			})
			synctest.Wait()
		}
		take("greedy", &greedy, 100)
		take("modest", &modest, 60)
		wg.Go(func() {
			took("begun", g.resume(ctx, nil))
			g.release(&account{}, 0)
		})
		synctest.Wait()
		if err := g.acquire(ctx, nil, &account{}, 1, time.Second); !errors.Is(err, errBusy) {
			t.Errorf("no turn left: %v", err)
		}
		gone := make(chan struct{})
		close(gone)
		if err := g.acquire(ctx, gone, &account{}, 1, time.Second); !errors.Is(err, context.Canceled) {
			t.Errorf("gone: %v", err)
		}
		g.release(&greedy, 0)
		wg.Wait()
		if fmt.Sprint(order) != "[begun modest greedy]" {
			t.Errorf("order %v", order)
		}
		if g.free != 1 || len(g.waiters) != 0 || greedy.end != 200 || modest.end != 60 {
			t.Errorf("%d free, %d wait, ends %d and %d", g.free, len(g.waiters), greedy.end, modest.end)
		}
	})
}

// TestGateFair: peers that always want more get the same bytes, whatever they ask
// for at once, and together what the limit allows.
func TestGateFair(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const rate, span = 1_000_000, 20 * time.Second
		g := newGate(4, rate)
		ctx, cancel := context.WithTimeout(t.Context(), span)
		defer cancel()
		sizes := []int64{64 << 10, 128 << 10, 900_000, 128 << 10, 300_000}
		got := make([]int64, len(sizes))
		var wg sync.WaitGroup
		for i, n := range sizes {
			wg.Go(func() {
				var a account
				for {
					switch err := g.acquire(ctx, nil, &a, n, 0); {
					case errors.Is(err, context.DeadlineExceeded):
						return
					case err != nil:
						t.Error(err)
						return
					}
					got[i] += n
					g.release(&a, 0)
				}
			})
		}
		wg.Wait()
		var sum int64
		for _, n := range got {
			sum += n
		}
		if low, high := span.Seconds()*rate, (span.Seconds()+burstSeconds)*rate+900_000; float64(sum) < low-900_000 || float64(sum) > high {
			t.Errorf("%d bytes in %v at %d a second", sum, span, rate)
		}
		if slices.Max(got)-slices.Min(got) > 2*900_000 {
			t.Errorf("shares %v", got)
		}
		g.stop()
	})
}

// TestOutbox: memory on its way out is bounded; when others wait, what has not
// moved for long is dropped, and nothing else.
func TestOutbox(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, o := t.Context(), newOutbox(100)
		var dropped []string
		take := func(name string, n int64, limit time.Duration) (*parcel, error) {
			var p *parcel
			p, err := o.take(ctx, nil, n, limit, func() {
				dropped = append(dropped, name)
				o.give(p)
			})
			return p, err
		}
		must := func(p *parcel, err error) *parcel {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
			return p
		}
		must(take("slow", 60, time.Second))
		quick := must(take("quick", 40, time.Second))
		if _, err := take("early", 1, 2*time.Second); !errors.Is(err, errBusy) {
			t.Fatalf("nobody is slow yet: %v", err)
		}
		time.Sleep(dropAfter - time.Second) // virtual time
		quick.touch()
		third := must(take("third", 50, 2*time.Second))
		if fmt.Sprint(dropped) != "[slow]" || o.dropped != 1 {
			t.Errorf("dropped %v", dropped)
		}
		if _, err := take("fourth", 11, dropAfter/2); !errors.Is(err, errBusy) {
			t.Errorf("over the limit: %v", err)
		}
		o.give(quick)
		o.give(third)
		if o.free != 100 || len(o.parcels) != 0 || o.dropping != 0 {
			t.Errorf("%d free, %d parcels, %d being dropped", o.free, len(o.parcels), o.dropping)
		}
		gone := make(chan struct{})
		close(gone)
		all := must(take("all", 100, time.Second))
		if _, err := o.take(ctx, gone, 1, time.Second, nil); !errors.Is(err, context.Canceled) {
			t.Errorf("gone: %v", err)
		}
		o.give(all)
	})
}

// ask opens a blocks stream at n from a host that has shaken hands.
func askBlocks(t *testing.T, from, n *testNode) (network.Stream, *bufio.Reader) {
	t.Helper()
	s, err := from.host.NewStream(t.Context(), n.host.ID(), BlocksID(n.chain.params.ChainID()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Reset() })
	_ = s.SetDeadline(time.Now().Add(patience))
	return s, bufio.NewReader(s)
}

func request(t *testing.T, s network.Stream, r blocksRequest) {
	t.Helper()
	if _, err := s.Write(appendDelimited(nil, r.append(nil))); err != nil {
		t.Fatal(err)
	}
}

// reply reads a whole reply.
func reply(in *bufio.Reader, id uint64) (blocks [][]byte, end frame, err error) {
	for {
		b, err := readMessage(in, nil, maxFrameHeader)
		if err != nil {
			return blocks, end, err
		}
		f, err := decodeFrame(b)
		if err != nil || f.ID != id {
			return blocks, f, fmt.Errorf("frame %+v of %d: %w", f, id, err)
		}
		if f.End {
			return blocks, f, nil
		}
		raw := make([]byte, f.Length)
		for n := 0; n < len(raw); {
			k, err := in.Read(raw[n:])
			if n += k; err != nil {
				return blocks, f, err
			}
		}
		blocks = append(blocks, raw)
	}
}

// TestServedBlocks: small blocks, large ones and those at the edge of a piece
// arrive as they are; max bytes is kept to exactly.
func TestServedBlocks(t *testing.T) {
	c := newFakeChain()
	edge := pieceBytes - recordFrame
	sizes := []int{
		100, 200, 300, edge - 1, edge, edge + 1, 150, pieceBytes, 2*pieceBytes + 1, 90, edge, 81, 500_000, 81, 81,
		pieceBytes / 2, pieceBytes / 2, pieceBytes/2 - recordFrame, pieceBytes/2 - recordFrame, 3 * pieceBytes,
	}
	bs := makeBlocks(c.params.GenesisHash, c.params.Genesis.Header.Timestamp, len(sizes), 1, func(i int) int { return sizes[i] })
	c.addAll(t, bs)
	last := chainhash.DoubleHashH(bs[len(bs)-1][:80])
	n, client := newNode(t, c), newNode(t, newFakeChain())
	client.stop()
	s := greetByHand(t, client, n)
	defer func() { _ = s.Reset() }()
	stream, in := askBlocks(t, client, n)
	var all int64
	for _, b := range bs {
		all += int64(len(b))
	}
	first3 := int64(len(bs[0]) + len(bs[1]) + len(bs[2]))
	for i, tc := range []struct {
		start, max int64
		want       [][]byte
		status     status
		size       int64
	}{
		{start: 1, max: 1 << 40, want: bs},
		{start: 1, max: all, want: bs},
		{start: 1, max: all - 1, want: bs[:len(bs)-1]},
		{start: 1, max: first3, want: bs[:3]},
		{start: 1, max: first3 - 1, want: bs[:2]},
		{start: 1, max: 100, want: bs[:1]},
		{start: 1, max: 99, status: statusTooLarge, size: 100},
		{start: 9, max: int64(sizes[8]), want: bs[8:9]},
		{start: 9, max: int64(sizes[8]) - 1, status: statusTooLarge, size: int64(sizes[8])},
	} {
		id := uint64(i + 1)
		request(t, stream, blocksRequest{ID: id, Start: int32(tc.start), Count: len(bs) - int(tc.start) + 1, Last: last, MaxBytes: tc.max})
		got, end, err := reply(in, id)
		if err != nil || end.Status != tc.status || end.Size != tc.size || !slices.EqualFunc(got, tc.want, bytes.Equal) {
			t.Errorf("from %d, at most %d: %d blocks, want %d; %+v, %v", tc.start, tc.max, len(got), len(tc.want), end, err)
		}
	}
	hashes := []chainhash.Hash{chainhash.DoubleHashH(bs[12][:80]), chainhash.DoubleHashH(bs[1][:80]), {1}, chainhash.DoubleHashH(bs[0][:80])}
	request(t, stream, blocksRequest{ID: 77, Hashes: hashes, MaxBytes: 1 << 40})
	if got, end, err := reply(in, 77); err != nil || end.Status != statusNotFound || !slices.EqualFunc(got, [][]byte{bs[12], bs[1]}, bytes.Equal) {
		t.Errorf("by hash: %d blocks, %+v, %v", len(got), end, err)
	}
	eventually(t, "nothing held", func() bool { st := n.Serving(); return st.OutBytes == 0 && st.Streams == 0 && st.Waiting == 0 })
	if len(n.blames) > 0 {
		t.Errorf("blamed: %v", <-n.blames)
	}
}

// TestServeNonReader: who asks for much and reads nothing holds one piece, and loses it
// when others need the room; those are served.
func TestServeNonReader(t *testing.T) {
	t.Parallel()
	c := newFakeChain()
	bs := c.grow(t, 40, 1, 900_000)
	last := chainhash.DoubleHashH(bs[len(bs)-1][:80])
	// Room for two streams and for a largest block.
	n := newNode(t, c, func(o *Options) {
		o.Limits.MaxBlockBytes = 1 << 20
		o.ServeBytes = int64(c.params.MaxBlockBytes())
		o.BusyAfter, o.WriteTimeout = patience, patience
	})
	n.outbox.mu.Lock()
	n.outbox.free = 2 * pieceBytes
	n.outbox.mu.Unlock()
	var streams []network.Stream
	for range 2 {
		idle := newNode(t, newFakeChain())
		idle.stop()
		greetByHand(t, idle, n)
		s, _ := askBlocks(t, idle, n)
		for id := range uint64(MaxServedRequests) {
			request(t, s, blocksRequest{ID: id + 1, Start: 1, Count: 40, Last: last, MaxBytes: 1 << 40})
		}
		streams = append(streams, s)
	}
	eventually(t, "two hold all", func() bool { return n.Serving().Streams == 2 })
	reader := newNode(t, newFakeChain())
	reader.stop()
	greetByHand(t, reader, n)
	s, in := askBlocks(t, reader, n)
	request(t, s, blocksRequest{ID: 1, Start: 1, Count: 5, Last: chainhash.DoubleHashH(bs[4][:80]), MaxBytes: 1 << 40})
	if got, end, err := reply(in, 1); err != nil || end.Status != statusOK || len(got) != 5 {
		t.Errorf("%d blocks, %+v, %v", len(got), end, err)
	}
	if d := n.Serving().Dropped; d != 1 {
		t.Errorf("%d streams dropped, one was enough", d)
	}
	if len(n.blames) > 0 {
		t.Errorf("blamed: %v", <-n.blames)
	}
	for _, s := range streams {
		_ = s.Reset()
	}
}

// TestServeBusy: with an upload limit that others use up a request is answered
// busy, nobody is blamed, and it works later.
func TestServeBusy(t *testing.T) {
	t.Parallel()
	c := newFakeChain()
	bs := c.grow(t, 10, 1, 300_000)
	last := chainhash.DoubleHashH(bs[9][:80])
	n := newNode(t, c, func(o *Options) { o.MaxUpload, o.BusyAfter = 1<<20, 50*time.Millisecond })
	client := newNode(t, newFakeChain())
	client.stop()
	greetByHand(t, client, n)
	s, in := askBlocks(t, client, n)
	began, blocks, busy := time.Now(), 0, 0
	for id := uint64(1); blocks < 10; id++ {
		request(t, s, blocksRequest{ID: id, Start: int32(blocks) + 1, Count: 10 - blocks, Last: last, MaxBytes: 1 << 40})
		got, end, err := reply(in, id)
		if err != nil || end.Status != statusOK && end.Status != statusBusy {
			t.Fatalf("%+v, %v", end, err)
		}
		if blocks += len(got); end.Status == statusBusy {
			busy++
		}
	}
	// 3 MB less the first burst and the last block, which goes on credit.
	if took := time.Since(began); took < 2*time.Second {
		t.Errorf("3 MB in %v at 1 MiB a second", took)
	}
	if busy == 0 || n.Serving().Busy != int64(busy) || len(n.blames) > 0 {
		t.Errorf("%d busy, %+v, %d blamed", busy, n.Serving(), len(n.blames))
	}
}

// TestServeReplyLimit: a reply carries 16 MiB at most, whatever max bytes says.
func TestServeReplyLimit(t *testing.T) {
	c := newFakeChain()
	bs := c.grow(t, 18, 1, 1<<20)
	n, client := newNode(t, c), newNode(t, newFakeChain())
	client.stop()
	greetByHand(t, client, n)
	s, in := askBlocks(t, client, n)
	request(t, s, blocksRequest{ID: 1, Start: 1, Count: 18, Last: chainhash.DoubleHashH(bs[17][:80]), MaxBytes: 1 << 60})
	if got, end, err := reply(in, 1); err != nil || end.Status != statusOK || len(got) != MaxReplyBytes>>20 {
		t.Errorf("%d blocks of 1 MiB, %+v, %v", len(got), end, err)
	}
}

// TestServeWriteTimeout: who reads nothing for WriteTimeout loses its stream, and
// nothing of it is held any more; nobody is blamed.
func TestServeWriteTimeout(t *testing.T) {
	t.Parallel()
	c := newFakeChain()
	bs := c.grow(t, 40, 1, 900_000) // more than the windows of the stream hold
	n := newNode(t, c, func(o *Options) { o.WriteTimeout = 2 * time.Second })
	client := newNode(t, newFakeChain())
	client.stop()
	greetByHand(t, client, n)
	s, in := askBlocks(t, client, n)
	for id := range uint64(MaxServedRequests) {
		request(t, s, blocksRequest{ID: id + 1, Start: 1, Count: 40, Last: chainhash.DoubleHashH(bs[39][:80]), MaxBytes: 1 << 40})
	}
	eventually(t, "it is being served", func() bool { return n.Serving().OutBytes == pieceBytes })
	eventually(t, "nothing is held", func() bool { return n.Serving().OutBytes == 0 })
	if _, err := io.Copy(io.Discard, in); err == nil {
		t.Error("the stream came to an orderly end")
	}
	// The connection is left, and a new stream works.
	s, in = askBlocks(t, client, n)
	request(t, s, blocksRequest{ID: 1, Start: 1, Count: 2, Last: chainhash.DoubleHashH(bs[1][:80]), MaxBytes: 1 << 40})
	if got, end, err := reply(in, 1); err != nil || len(got) != 2 {
		t.Errorf("%d blocks, %+v, %v", len(got), end, err)
	}
	if len(n.blames) > 0 {
		t.Errorf("blamed: %v", <-n.blames)
	}
}

// TestServedHeaders: what is asked for is cut to 1 and 2000; the third stream is
// refused; nothing is held while a stream is idle.
func TestServedHeaders(t *testing.T) {
	c := newFakeChain()
	c.grow(t, 2500, 1, 100)
	n, client := newNode(t, c), newNode(t, newFakeChain())
	client.stop()
	greetByHand(t, client, n)
	open := func() (network.Stream, *bufio.Reader) {
		s := openByHand(t, client, n, HeadersID(c.params.ChainID()))
		_ = s.SetDeadline(time.Now().Add(patience))
		return s, bufio.NewReader(s)
	}
	ask := func(s network.Stream, in *bufio.Reader, most int) (int, error) {
		r := headersRequest{Locator: []chainhash.Hash{c.params.GenesisHash}, Max: most}
		if _, err := s.Write(appendDelimited(nil, r.append(nil))); err != nil {
			return 0, err
		}
		b, err := readMessage(in, nil, maxHeadersReply)
		if err != nil {
			return 0, err
		}
		h, err := decodeHeadersReply(b)
		if err != nil || h.Bytes != h.Count*consensus.HeaderBytes {
			return 0, fmt.Errorf("%d bytes for %d headers, %w", h.Bytes, h.Count, err)
		}
		_, err = io.CopyN(io.Discard, in, int64(h.Bytes))
		return h.Count, err
	}
	first, in := open()
	for most, want := range map[int]int{0: 1, 1: 1, 1999: 1999, 2000: 2000, 2001: 2000, 1 << 30: 2000} {
		if got, err := ask(first, in, most); err != nil || got != want {
			t.Errorf("asked for %d headers: %d, want %d; %v", most, got, want, err)
		}
	}
	second, in2 := open()
	if _, err := ask(second, in2, 5); err != nil {
		t.Error(err)
	}
	third, in3 := open()
	if got, err := ask(third, in3, 5); err == nil {
		t.Errorf("a third stream was served %d headers", got)
	}
	eventually(t, "nothing held", func() bool { return n.Serving().OutBytes == 0 })
	if len(n.blames) > 0 {
		t.Errorf("blamed: %v", <-n.blames)
	}
}

// TestServedTxs: a reply from the mempool carries 4 MiB and counts against what
// may be on its way out; without room the answer is busy, and nobody is blamed.
func TestServedTxs(t *testing.T) {
	tx := txOf(t, 400_000)
	var looked atomic.Int64
	c := newFakeChain()
	n := newNode(t, c, func(o *Options) {
		o.TxByID = func(chainhash.Hash) ([]byte, bool) { looked.Add(1); return tx, true }
		o.BusyAfter = 50 * time.Millisecond
	})
	client := newNode(t, newFakeChain())
	connect(t, client.host, n.host)
	eventually(t, "ready", func() bool { return client.Ready(n.host.ID()) && n.Ready(client.host.ID()) })
	ids := make([]chainhash.Hash, 20)
	txs, err := client.FetchTxs(t.Context(), n.host.ID(), ids)
	got := 0
	for _, tx := range txs {
		if tx != nil {
			got++
		}
	}
	if want := maxMempoolReply / len(tx); err != nil || got != want {
		t.Errorf("%d transactions of 400 kB, want %d; %v", got, want, err)
	}
	if n := looked.Load(); n != int64(got)+1 {
		t.Errorf("%d looked up for %d", n, got)
	}
	eventually(t, "nothing held", func() bool { return n.Serving().OutBytes == 0 })
	all, err := n.outbox.take(t.Context(), nil, n.o.ServeBytes, time.Second, func() {})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.FetchTxs(t.Context(), n.host.ID(), ids[:1]); !errors.Is(err, ErrBusy) {
		t.Errorf("no room: %v", err)
	}
	n.outbox.give(all)
	// As many searches at once as there are turns, and no more.
	for range decodesAtOnce {
		if err := n.decodes.acquire(t.Context(), nil, &account{}, 1, time.Second); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := client.FetchTxs(t.Context(), n.host.ID(), ids[:1]); !errors.Is(err, ErrBusy) {
		t.Errorf("no turn: %v", err)
	}
	n.decodes.release(&account{}, 0)
	if _, err := client.FetchTxs(t.Context(), n.host.ID(), ids[:1]); err != nil {
		t.Error(err)
	}
	if st := n.Serving(); st.Busy != 2 || len(n.blames)+len(client.blames) > 0 {
		t.Errorf("%+v, %d blamed", st, len(n.blames)+len(client.blames))
	}
}

// TestServedList: a peer is listed the mempool and may have 32 MiB of it at once,
// then half a MiB a second; who does not offer lists is not asked.
func TestServedList(t *testing.T) {
	tx := txOf(t, 400_000)
	var asked atomic.Pointer[ListQuery]
	now := &fakeClock{t: time.Unix(1e9, 0)}
	n := newNode(t, newFakeChain(), func(o *Options) {
		o.TxByID = func(chainhash.Hash) ([]byte, bool) { return tx, true }
		o.List = func(q ListQuery) List {
			asked.Store(&q)
			return List{Run: 7, Last: 5000, End: 6000, Items: make([]ListItem, MaxListItems+1)}
		}
		o.MinFeeRate = func() int64 { return 1331 }
		o.Now = now.now
	})
	client := newNode(t, newFakeChain())
	connect(t, client.host, n.host)
	eventually(t, "ready", func() bool { return client.Ready(n.host.ID()) && n.Ready(client.host.ID()) })
	if p := client.Peers()[0]; p.MinFeeRate != 1331 || p.Services&ServeList == 0 {
		t.Errorf("%+v", p)
	}
	if _, err := n.FetchList(t.Context(), client.host.ID(), ListQuery{}); !errors.Is(err, ErrNotFound) {
		t.Errorf("of who offers none: %v", err)
	}
	q := ListQuery{Run: 7, After: 2000, MinRate: 1000}
	l, err := client.FetchList(t.Context(), n.host.ID(), q)
	if err != nil || l.Run != 7 || l.Last != 5000 || l.End != 6000 || len(l.Items) != MaxListItems || *asked.Load() != q {
		t.Fatalf("asked %+v: up to %d of %d, %d items, %v", asked.Load(), l.Last, l.End, len(l.Items), err)
	}
	ids := make([]chainhash.Hash, 10) // 4 MB
	took := 0
	for {
		_, err := client.FetchTxs(t.Context(), n.host.ID(), ids)
		if errors.Is(err, ErrBusy) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if took++; took > 10 {
			t.Fatal("no end")
		}
	}
	if took != 8 { // 32 of 33.5 MB, and less than 4 MiB left
		t.Errorf("%d times 4 MB at once", took)
	}
	if _, err := client.FetchList(t.Context(), n.host.ID(), q); !errors.Is(err, ErrBusy) {
		t.Errorf("a list for who had enough: %v", err)
	}
	now.add(10 * time.Second)
	if _, err := client.FetchList(t.Context(), n.host.ID(), q); err != nil {
		t.Errorf("10 s later: %v", err)
	}
	if len(n.blames)+len(client.blames) > 0 {
		t.Error("somebody was blamed")
	}
	eventually(t, "nothing held", func() bool { return n.Serving().OutBytes == 0 })
}

// TestServedEmptyList: a list with nothing in it is not for nothing, for it takes a walk
// through the mempool.
func TestServedEmptyList(t *testing.T) {
	now := &fakeClock{t: time.Unix(1e9, 0)}
	n := newNode(t, newFakeChain(), func(o *Options) {
		o.List = func(ListQuery) List { return List{Run: 7, Last: 5000, End: 6000} }
		o.Now = now.now
	})
	client := newNode(t, newFakeChain())
	connect(t, client.host, n.host)
	eventually(t, "ready", func() bool { return client.Ready(n.host.ID()) && n.Ready(client.host.ID()) })
	ask := func(most int) (got int) {
		for ; got <= most; got++ {
			_, err := client.FetchList(t.Context(), n.host.ID(), ListQuery{MinRate: 1 << 62})
			if errors.Is(err, ErrBusy) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		return got
	}
	if got, want := ask(1000), (poolBurst-maxMempoolReply)/leastListCost+1; got != want {
		t.Errorf("%d lists at once, want %d", got, want)
	}
	now.add(time.Second)
	if got, want := ask(100), poolBytesPerSecond/leastListCost; got != want {
		t.Errorf("%d lists a second later, want %d", got, want)
	}
}

// A fakeClock is set by hand.
type fakeClock struct {
	mu sync.Mutex
	t  time.Time
}

func (c *fakeClock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *fakeClock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

// TestRequestRate: 256 requests at once and 1,000 a second; more wait, none is
// refused.
func TestRequestRate(t *testing.T) {
	t.Parallel()
	c := newFakeChain()
	c.grow(t, 1, 1, 100)
	n, client := newNode(t, c), newNode(t, newFakeChain())
	client.stop()
	greetByHand(t, client, n)
	s, in := askBlocks(t, client, n)
	began := time.Now()
	const requests = 656
	for id := uint64(1); id <= requests; id++ {
		request(t, s, blocksRequest{ID: id, Hashes: []chainhash.Hash{{1}}, MaxBytes: 1})
		if _, end, err := reply(in, id); err != nil || end.Status != statusNotFound {
			t.Fatalf("%+v, %v", end, err)
		}
	}
	if took := time.Since(began); took < (requests-256-1)*time.Millisecond {
		t.Errorf("%d requests in %v", requests, took)
	}
}
