package exchange

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
)

// serveBlocksWith makes n answer blocks requests with f instead of honestly.
func serveBlocksWith(t *testing.T, n *testNode, f func(s network.Stream)) {
	t.Helper()
	id := BlocksID(n.chain.params.ChainID())
	n.host.SetStreamHandler(id, func(s network.Stream) {
		defer func() { _ = s.Reset() }()
		f(s)
	})
}

func readRequest(in *bufio.Reader) (blocksRequest, error) {
	b, err := readMessage(in, nil, maxBlocksRequest)
	if err != nil {
		return blocksRequest{}, err
	}
	return decodeBlocksRequest(b)
}

func sendFrame(s io.Writer, f frame, raw []byte) error {
	_, err := s.Write(append(appendDelimited(nil, f.append(nil)), raw...))
	return err
}

// each answers every request with f until the stream ends.
func each(f func(s network.Stream, r blocksRequest) error) func(network.Stream) {
	return func(s network.Stream) {
		in := bufio.NewReader(s)
		for {
			r, err := readRequest(in)
			if err != nil {
				return
			}
			if r.Cancel {
				continue
			}
			if f(s, r) != nil {
				return
			}
		}
	}
}

func (c *fakeChain) blockAt(height int32) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	return ancestor(c.tip, height).raw
}

func silence(s network.Stream) { _, _ = io.Copy(io.Discard, s) }

// TestBadServers: whatever one peer does with requests for blocks, the sync
// finishes from an honest one.
func TestBadServers(t *testing.T) {
	source := newFakeChain()
	source.grow(t, 300, 1, 2000)
	other := makeBlocks(source.params.GenesisHash, source.params.Genesis.Header.Timestamp, 300, 99, fixedSize(2000))
	for _, tc := range []struct {
		name  string
		serve func(network.Stream)
		blame string // part of the reason for which the peer is blamed; empty: it must not be
	}{
		{"never answers", silence, ""},
		{"wrong block", each(func(s network.Stream, r blocksRequest) error {
			return sendFrame(s, frame{ID: r.ID, Length: 2000}, other[r.Start-1])
		}), "wrong block"},
		{"block of another height", each(func(s network.Stream, r blocksRequest) error {
			return sendFrame(s, frame{ID: r.ID, Length: 2000}, source.blockAt(r.Start%300+1))
		}), "wrong block"},
		{"larger than promised", each(func(s network.Stream, r blocksRequest) error {
			return sendFrame(s, frame{ID: r.ID, Length: r.MaxBytes + 1}, source.blockAt(r.Start))
		}), "promised"},
		{"huge length", each(func(s network.Stream, r blocksRequest) error {
			return sendFrame(s, frame{ID: r.ID, Length: 1 << 50}, nil)
		}), "promised"},
		{"another request's reply", each(func(s network.Stream, r blocksRequest) error {
			return sendFrame(s, frame{ID: r.ID + 1, Length: 2000}, source.blockAt(r.Start))
		}), "reply to request"},
		{"more blocks than asked for", each(func(s network.Stream, r blocksRequest) error {
			for h := r.Start; h < min(r.Start+int32(r.Count), 300)+1; h++ {
				if err := sendFrame(s, frame{ID: r.ID, Length: 2000}, source.blockAt(min(h, 300))); err != nil {
					return err
				}
			}
			return nil
		}), "blocks"},
		{"end without a block", each(func(s network.Stream, r blocksRequest) error {
			return sendFrame(s, frame{ID: r.ID, End: true}, nil)
		}), "without a block"},
		{"too large, which it is not", each(func(s network.Stream, r blocksRequest) error {
			return sendFrame(s, frame{ID: r.ID, End: true, Status: statusTooLarge, Size: 10}, nil)
		}), "too large"},
		{"cancelled by itself", each(func(s network.Stream, r blocksRequest) error {
			return sendFrame(s, frame{ID: r.ID, End: true, Status: statusCancelled}, nil)
		}), "cancelled"},
		{"unknown status", each(func(s network.Stream, r blocksRequest) error {
			return sendFrame(s, frame{ID: r.ID, End: true, Status: 77}, nil)
		}), "status"},
		{"garbage", func(s network.Stream) {
			_, _ = s.Write([]byte(strings.Repeat("\xff", 1000)))
			silence(s)
		}, "protocol violation"},
		{"oversize frame header", func(s network.Stream) {
			_, _ = s.Write(append(binary.AppendUvarint(nil, maxFrameHeader+1), make([]byte, 100)...))
			silence(s)
		}, "over the limit"},
		{"busy for ever", each(func(s network.Stream, r blocksRequest) error {
			return sendFrame(s, frame{ID: r.ID, End: true, Status: statusBusy}, nil)
		}), ""},
		{"not found for ever", each(func(s network.Stream, r blocksRequest) error {
			return sendFrame(s, frame{ID: r.ID, End: true, Status: statusNotFound}, nil)
		}), ""},
		{"resets every stream", func(s network.Stream) { _ = s.Reset() }, ""},
		{"trickles", each(func(s network.Stream, r blocksRequest) error {
			b := append(appendDelimited(nil, (&frame{ID: r.ID, Length: 2000}).append(nil)), source.blockAt(r.Start)...)
			tick := time.NewTicker(50 * time.Millisecond)
			defer tick.Stop()
			for i := range b {
				<-tick.C
				if _, err := s.Write(b[i : i+1]); err != nil {
					return err
				}
			}
			return nil
		}), ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			bad, good := newFakeChain(), newFakeChain()
			bad.addAll(t, source.branch())
			good.addAll(t, source.branch())
			b, g := newNode(t, bad), newNode(t, good)
			asked := make(chan struct{}, 1)
			serveBlocksWith(t, b, func(s network.Stream) {
				select {
				case asked <- struct{}{}:
				default:
				}
				tc.serve(s)
			})
			n := newNode(t, newFakeChain())
			connect(t, n.host, b.host)
			receive(t, "a request to the bad peer", asked)
			connect(t, n.host, g.host)
			awaitTip(t, n, source)
			if tc.blame == "" {
				if len(n.blames) > 0 {
					t.Errorf("blamed: %v", <-n.blames)
				}
				if !n.Ready(b.host.ID()) {
					t.Error("disconnected")
				}
				return
			}
			e := receive(t, "blame", n.blames)
			if e.id != b.host.ID() || !strings.Contains(e.reason, tc.blame) {
				t.Errorf("blamed %v (bad is %v) for %q, want %q", e.id, b.host.ID(), e.reason, tc.blame)
			}
			awaitGone(t, n.host, b.host.ID())
		})
	}
}

// countingPeer answers slowly enough that requests pile up and checks what is
// outstanding at it, and at all such peers.
type countingPeer struct {
	mu       sync.Mutex
	requests int
	bytes    int64
	maxReqs  int
	maxBytes int64
	all      *countingPeer // of all peers together; nil in itself
	release  chan struct{}
}

func (c *countingPeer) add(requests int, bytes int64) {
	c.mu.Lock()
	c.requests += requests
	c.bytes += bytes
	c.maxReqs, c.maxBytes = max(c.maxReqs, c.requests), max(c.maxBytes, c.bytes)
	c.mu.Unlock()
	if c.all != nil {
		c.all.add(requests, bytes)
	}
}

func (c *countingPeer) serve(source *fakeChain) func(network.Stream) {
	return func(s network.Stream) {
		queue := make(chan blocksRequest, 1000)
		go func() {
			defer close(queue)
			in := bufio.NewReader(s)
			for {
				r, err := readRequest(in)
				if err != nil {
					return
				}
				if !r.Cancel {
					c.add(1, r.MaxBytes)
					queue <- r
				}
			}
		}()
		for r := range queue {
			<-c.release
			left, status, size := r.MaxBytes, statusOK, int64(0)
			for h := r.Start; h < r.Start+int32(max(r.Count, len(r.Hashes))); h++ {
				var raw []byte
				if r.Count > 0 {
					raw = source.blockAt(h)
				} else {
					raw, _ = source.Block(r.Hashes[h])
				}
				if n := int64(len(raw)); n > left {
					if h == r.Start {
						status, size = statusTooLarge, n
					}
					break
				}
				left -= int64(len(raw))
				c.add(0, -int64(len(raw)))
				if sendFrame(s, frame{ID: r.ID, Length: int64(len(raw))}, raw) != nil {
					return
				}
			}
			c.add(-1, -left)
			if sendFrame(s, frame{ID: r.ID, End: true, Status: status, Size: size}, nil) != nil {
				return
			}
		}
	}
}

// TestCaps: a peer that counts never sees more than 16 requests and 16 MiB
// outstanding at itself, nor 64 MiB at all peers together.
func TestCaps(t *testing.T) {
	source := newFakeChain()
	var sizes []int
	for i := range 600 {
		sizes = append(sizes, 200+(i*7919)%300_000)
	}
	g := source.params
	source.addAll(t, makeBlocks(g.GenesisHash, g.Genesis.Header.Timestamp, len(sizes), 5, func(i int) int { return sizes[i] }))
	all := &countingPeer{}
	var peers []*countingPeer
	n := newNode(t, newFakeChain())
	release := make(chan struct{})
	for range 6 {
		c := newFakeChain()
		c.addAll(t, source.branch())
		p := newNode(t, c)
		cp := &countingPeer{all: all, release: release}
		peers = append(peers, cp)
		serveBlocksWith(t, p, cp.serve(source))
		connect(t, n.host, p.host)
	}
	eventually(t, "requests pile up", func() bool {
		all.mu.Lock()
		defer all.mu.Unlock()
		return all.requests >= 6
	})
	close(release)
	awaitTip(t, n, source)
	checkCaps(t, n, peers, all)
}

func (c *countingPeer) most() (requests int, bytes int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.maxReqs, c.maxBytes
}

func checkCaps(t *testing.T, n *testNode, peers []*countingPeer, all *countingPeer) {
	t.Helper()
	eventually(t, "nothing outstanding", func() bool {
		r, b := n.budget.used()
		return r == 0 && b == 0
	})
	for i, p := range peers {
		if r, b := p.most(); r > 16 || b > 16<<20 {
			t.Errorf("peer %d saw %d requests and %d bytes outstanding", i, r, b)
		}
	}
	r, b := all.most()
	if r > 128 || b > 64<<20 {
		t.Errorf("all peers saw %d requests and %d bytes outstanding", r, b)
	}
	t.Logf("most outstanding: %d requests, %d bytes", r, b)
}

// TestCapsOfTheWire: whatever is asked for at once, and given up, the wire keeps
// to the caps, and comes close to them.
func TestCapsOfTheWire(t *testing.T) {
	source := newFakeChain()
	source.grow(t, 20, 1, 1000)
	var hashes []chainhash.Hash
	for _, raw := range source.branch() {
		hashes = append(hashes, chainhash.DoubleHashH(raw[:80]))
	}
	all := &countingPeer{}
	release := make(chan struct{})
	var peers []*countingPeer
	n := newNode(t, newFakeChain(), func(o *Options) { o.Limits.MaxBlockBytes = 3 << 20 })
	var ids []peer.ID
	for range 6 {
		p := newNode(t, newFakeChain())
		cp := &countingPeer{all: all, release: release}
		peers = append(peers, cp)
		serveBlocksWith(t, p, cp.serve(source))
		connect(t, n.host, p.host)
		ids = append(ids, p.host.ID())
		eventually(t, "ready", func() bool { return n.Ready(p.host.ID()) })
	}
	var wg sync.WaitGroup
	for _, id := range ids {
		for i, h := range hashes {
			wg.Go(func() {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				if i%5 == 4 {
					cancel()
				}
				if _, err := n.FetchBlock(ctx, id, h, nil); err != nil && ctx.Err() == nil {
					t.Error(err)
				}
			})
		}
	}
	eventually(t, "the caps are reached", func() bool {
		_, b := all.most()
		return b > 60<<20
	})
	close(release)
	wg.Wait()
	checkCaps(t, n, peers, all)
}

// TestServerRefusesTooManyRequests: the seventeenth outstanding request ends the stream.
func TestServerRefusesTooManyRequests(t *testing.T) {
	c := newFakeChain()
	c.grow(t, 200, 1, 200_000)
	a, b := newNode(t, c), newNode(t, newFakeChain())
	b.stop() // its own client must not interfere; the host lives
	greetByHand(t, b, a)
	s := openByHand(t, b, a, BlocksID(c.params.ChainID()))
	tip, _ := c.Tip()
	var msg []byte
	for i := range MaxServedRequests + 1 {
		last, _ := c.Ancestor(tip.Hash, 128)
		msg = appendDelimited(msg, (&blocksRequest{ID: uint64(i + 1), Start: 1, Count: 128, Last: last, MaxBytes: 16 << 20}).append(nil))
	}
	if _, err := s.Write(msg); err != nil {
		t.Fatal(err)
	}
	if e := receive(t, "blame", a.blames); !strings.Contains(e.reason, "outstanding") {
		t.Errorf("blamed for %q", e.reason)
	}
}

// greetByHand dials a and completes a hello on behalf of b, whose Exchange is stopped.
func greetByHand(t *testing.T, b, a *testNode) network.Stream {
	t.Helper()
	connect(t, b.host, a.host)
	s := openByHand(t, b, a, HelloID(a.chain.params.ChainID()))
	h := b.localHello(0)
	if _, err := s.Write(appendDelimited(nil, (&helloMessage{Hello: &h}).append(nil))); err != nil {
		t.Fatal(err)
	}
	if _, err := readMessage(bufio.NewReader(s), nil, maxHelloBytes); err != nil {
		t.Fatal(err)
	}
	// On a busy machine it may be gone again, if the test wants that.
	was := "peer connected\" peer=" + b.host.ID().String()
	eventually(t, "ready", func() bool { return a.Ready(b.host.ID()) || strings.Contains(a.logs.String(), was) })
	return s
}

func openByHand[ID ~string](t *testing.T, b, a *testNode, id ID) network.Stream {
	t.Helper()
	s, err := b.host.NewStream(network.WithNoDial(context.Background(), "test"), a.host.ID(), protocolID(id))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Reset() })
	return s
}

func TestWithdrawnRequestsAreAcknowledged(t *testing.T) {
	c := newFakeChain()
	c.grow(t, 100, 1, 100_000)
	a, b := newNode(t, c), newNode(t, newFakeChain())
	b.stop()
	greetByHand(t, b, a)
	s := openByHand(t, b, a, BlocksID(c.params.ChainID()))
	tip, _ := c.Tip()
	ask := func(id uint64) []byte {
		return appendDelimited(nil, (&blocksRequest{ID: id, Start: 1, Count: 100, Last: tip.Hash, MaxBytes: 16 << 20}).append(nil))
	}
	cancel := appendDelimited(nil, (&blocksRequest{ID: 2, Cancel: true}).append(nil))
	if _, err := s.Write(slices.Concat(ask(1), ask(2), ask(3), cancel)); err != nil {
		t.Fatal(err)
	}
	in := bufio.NewReader(s)
	got := map[uint64]string{}
	blocks := map[uint64]int{}
	for len(got) < 3 {
		m, err := readMessage(in, nil, maxFrameHeader)
		if err != nil {
			t.Fatal(err)
		}
		f, err := decodeFrame(m)
		if err != nil {
			t.Fatal(err)
		}
		if f.End {
			got[f.ID] = fmt.Sprint(f.Status)
			continue
		}
		blocks[f.ID]++
		if _, err := io.CopyN(io.Discard, in, f.Length); err != nil {
			t.Fatal(err)
		}
	}
	if got[1] != "0" || got[2] != "4" || got[3] != "0" || blocks[1] != 100 || blocks[2] != 0 || blocks[3] != 100 {
		t.Errorf("ends %v, blocks %v", got, blocks)
	}
}
