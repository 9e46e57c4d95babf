package relay_test

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"

	"dunlin/chain/consensus"
	"dunlin/chain/relay"
)

// What a simulated peer does with a request.
const (
	honest   = iota // answers as soon as it has the block
	silent          // never answers
	trickler        // never answers, but always seems about to
	breaker         // resets the stream
	denier          // says that it has nothing
	liar            // answers with other transactions, or a mutated block: provable for the block only
	cheat           // answers too little: provable
	kinds
)

// A simPeer is a peer of a simulation.
type simPeer struct {
	name  string
	kind  int
	delay time.Duration // of an answer
	has   time.Duration // when it has the blocks, if honest
	gone  time.Duration // when it leaves; 0: never
}

// A sim is a bench with peers that answer, in virtual time.
type sim struct {
	*bench
	r      *rand.Rand
	peers  []*simPeer
	queue  []simEvent
	blamed map[string]bool
	began  map[chainhash.Hash]bool
}

type simEvent struct {
	at time.Duration
	do func()
}

func (s *sim) at(d time.Duration, do func()) {
	s.queue = append(s.queue, simEvent{d, do})
}

func (s *sim) since() time.Duration { return s.now.Sub(epoch) }

func (s *sim) peer(name string) *simPeer {
	for _, p := range s.peers {
		if p.name == name {
			return p
		}
	}
	return nil
}

// run plays all events, and ticks when they are due, until nothing is left.
func (s *sim) run() {
	s.tb.Helper()
	for range 100_000 {
		slices.SortStableFunc(s.queue, func(x, y simEvent) int { return cmp.Compare(x.at, y.at) })
		next, ok := s.a.Next()
		switch {
		case len(s.queue) > 0 && (!ok || !next.Before(epoch.Add(s.queue[0].at))):
			e := s.queue[0]
			s.queue = s.queue[1:]
			s.now = epoch.Add(max(e.at, s.since()))
			e.do()
		case ok:
			s.now = next
			s.event(relay.Tick{})
		default:
			return
		}
	}
	s.tb.Fatal("it does not end")
}

// event takes a step and has peers answer what it asks.
func (s *sim) event(e relay.Event) {
	s.tb.Helper()
	for _, x := range s.step(e) {
		switch x := x.(type) {
		case relay.AskTxs:
			s.answer(x, x.ID)
		case relay.AskBlock:
			s.answer(x, x.ID)
		case relay.Blame:
			if p := s.peer(x.Peer); p.kind != liar && p.kind != cheat {
				s.tb.Fatalf("%s, of kind %d, is blamed: %v", p.name, p.kind, x.Err)
			}
			s.blamed[x.Peer] = true
		}
	}
}

func (s *sim) answer(k relay.Action, id uint64) {
	p := s.peer(peerOf(k))
	fail := func(d time.Duration, why relay.Failure) {
		s.at(s.since()+d, func() { s.event(relay.Failed{ID: id, Why: why}) })
	}
	if p.gone > 0 && s.since() >= p.gone {
		fail(time.Millisecond, relay.Broken)
		return
	}
	switch p.kind {
	case honest:
		d := p.delay
		if left := p.has - s.since(); left > time.Second {
			fail(time.Second, relay.NotYet)
			return
		} else if left > 0 {
			d += left
		}
		e := s.parts(k, s.honest(k), d)
		s.at(s.since()+d, func() { s.event(e) })
		if s.r.IntN(5) == 0 { // twice
			s.at(s.since()+2*d, func() { s.event(e) })
		}
	case silent:
	case trickler:
		for i := range 100 {
			s.at(s.since()+time.Duration(i)*100*time.Millisecond, func() { s.event(relay.Arriving{ID: id}) })
		}
	case breaker:
		fail(p.delay, relay.Broken)
	case denier:
		fail(p.delay, relay.Failure(s.r.IntN(3)))
	case liar, cheat:
		e := s.honest(k)
		switch e := e.(type) {
		case relay.GotTxs:
			i := s.r.IntN(len(e.Txs))
			switch {
			case p.kind == liar:
				e.Txs[i] = encode(s.tb, many(s.r, 1, 200)[0])
			case s.r.IntN(2) == 0:
				e.Txs[i] = e.Txs[i][:len(e.Txs[i])-1]
			default:
				s.at(s.since()+p.delay, func() { s.event(relay.GotTxs{ID: id, Txs: e.Txs[1:]}) })
				return
			}
		case relay.GotBlock:
			e.Raw[len(e.Raw)-1-s.r.IntN(100)] ^= 1
		}
		e = s.parts(k, e, p.delay)
		if s.r.IntN(4) == 0 {
			e = relay.Failed{ID: id, Why: relay.Broken}
		}
		s.at(s.since()+p.delay, func() { s.event(e) })
	}
}

// parts has some of an answer come early, if it has several transactions, and returns
// the rest.
func (s *sim) parts(k relay.Action, e relay.Event, d time.Duration) relay.Event {
	got, ok := e.(relay.GotTxs)
	if !ok || len(got.Txs) < 2 || s.r.IntN(2) == 0 {
		return e
	}
	ask := k.(relay.AskTxs)
	n := 1 + s.r.IntN(len(got.Txs)-1)
	part, rest := relay.SomeTxs{ID: got.ID, Indexes: ask.Indexes[:n], Txs: got.Txs[:n]}, relay.GotTxs{ID: got.ID, Txs: got.Txs[n:]}
	if ask.Backwards {
		part, rest = relay.SomeTxs{ID: got.ID, Indexes: ask.Indexes[n:], Txs: got.Txs[n:]}, relay.GotTxs{ID: got.ID, Txs: got.Txs[:n]}
	}
	s.at(s.since()+d/2, func() { s.event(part) })
	return rest
}

// newSim makes up peers and blocks.
func newSim(tb testing.TB, seed uint64) *sim {
	tb.Helper()
	s := &sim{
		bench: newBench(tb, relay.AssemblerConfig{Seed: seed}), r: rand.New(rand.NewPCG(seed, 0x51)),
		blamed: make(map[string]bool), began: make(map[chainhash.Hash]bool),
	}
	for i := range 2 + s.r.IntN(8) {
		p := &simPeer{name: fmt.Sprint("p", i), kind: s.r.IntN(kinds), delay: time.Duration(1+s.r.IntN(300)) * time.Millisecond}
		if s.r.IntN(2) == 0 {
			p.kind = honest
		}
		if s.r.IntN(3) == 0 {
			p.has = time.Duration(s.r.IntN(3000)) * time.Millisecond
		}
		if s.r.IntN(6) == 0 {
			p.gone = time.Duration(1+s.r.IntN(3000)) * time.Millisecond
		}
		s.peers = append(s.peers, p)
	}
	return s
}

// play has blocks announced and everything happen; it returns what was announced.
func (s *sim) play() {
	s.tb.Helper()
	var last *consensus.Block
	for i := range 1 + s.r.IntN(6) {
		name := fmt.Sprint("b", i)
		b := s.mine(name, s.r.Uint64(), 1+s.r.IntN(40))
		if last != nil && s.r.IntN(3) == 0 { // a rival
			b = s.w.b.Mine(s.w.b.Genesis(), msgs(last)...)
			s.blocks[name] = b
		}
		last = b
		for _, tx := range msgs(b) {
			if s.r.IntN(10) < i*3 {
				s.pool.add(tx)
			}
		}
		start := time.Duration(s.r.IntN(2000)) * time.Millisecond
		faults := []string{"", "", "", "ids", "coinbase", "stripped", "flipped", "longer", "double", "same"}
		for range 1 + s.r.IntN(4) {
			p := s.peers[s.r.IntN(len(s.peers))]
			var prefill []int
			if s.r.IntN(3) == 0 {
				prefill = []int{1 + s.r.IntN(len(b.Txs)-1)}
			}
			if len(prefill) == len(b.Txs)-1 {
				prefill = nil
			}
			fault := faults[s.r.IntN(len(faults))]
			if fault == "double" && len(b.Txs) < 2 || fault == "same" && len(b.Txs) < 3 {
				fault = ""
			}
			e := relay.Announced{From: p.name, Block: s.spoilt(b, s.r.Uint64(), prefill, fault), Relayed: s.r.IntN(2) == 0}
			s.at(start+time.Duration(s.r.IntN(300))*time.Millisecond, func() { s.event(e); s.began[e.Block.Hash] = true })
		}
		if s.r.IntN(8) == 0 {
			s.at(start+time.Duration(s.r.IntN(3000))*time.Millisecond, func() {
				delete(s.made, b.Hash)
				s.event(relay.Have{Block: b.Hash, Raw: b.Raw})
				s.ended[b.Hash] = "had"
			})
		}
	}
	for _, p := range s.peers {
		if s.r.IntN(3) > 0 {
			e := relay.Peer{Peer: p.name}
			if s.r.IntN(2) == 0 {
				e.Tip = last.Hash
			}
			s.at(time.Duration(s.r.IntN(1000))*time.Millisecond, func() { s.event(e) })
		}
		if p.gone > 0 {
			s.at(p.gone, func() { s.event(relay.PeerGone{Peer: p.name}) })
		}
	}
	for range s.r.IntN(20) { // what nobody asked for
		id := uint64(1000 + s.r.IntN(10))
		s.at(time.Duration(s.r.IntN(4000))*time.Millisecond, func() {
			s.event([]relay.Event{relay.GotTxs{ID: id}, relay.GotBlock{ID: id}, relay.Failed{ID: id}, relay.Arriving{ID: id}, relay.PeerGone{Peer: "nobody"}}[id%5])
		})
	}
	s.run()
	for hash := range s.began {
		if s.ended[hash] == "" {
			s.tb.Fatalf("block %v did not end", hash)
		}
	}
	if blocks, asks, bytes := s.a.InWork(); blocks+asks > 0 || bytes != 0 {
		s.tb.Fatalf("%d blocks, %d requests and %d bytes are left", blocks, asks, bytes)
	}
}

// TestAssemblerRandom plays many seeds: every block ends, delivered as it is, given up
// or had; nobody honest is blamed; and what bench checks after each step.
func TestAssemblerRandom(t *testing.T) {
	t.Parallel()
	ends := make(map[string]int)
	for seed := range uint64(400) {
		if !t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			s := newSim(t, seed)
			s.play()
			for _, how := range s.ended {
				ends[how]++
			}
		}) {
			return
		}
	}
	t.Logf("%v", ends)
	if ends["delivered"] < 500 || ends["given up"] < 10 {
		t.Errorf("too little happened: %v", ends)
	}
}

// TestAssemblerLiveness: with two hostile peers of any kinds, one false encoding from
// each, and one honest peer that has the block, it is delivered: the honest one need
// only have announced it too, or say that it has it.
func TestAssemblerLiveness(t *testing.T) {
	t.Parallel()
	seed := uint64(0)
	var slowest time.Duration
	for one := silent; one < kinds; one++ {
		for two := silent; two < kinds; two++ {
			for _, fault := range []string{"", "ids", "coinbase", "stripped", "flipped", "longer", "double", "same"} {
				for _, announces := range []bool{true, false} {
					seed++
					s := &sim{
						bench: newBench(t, relay.AssemblerConfig{Seed: seed}), r: rand.New(rand.NewPCG(seed, 0x52)),
						blamed: make(map[string]bool), began: make(map[chainhash.Hash]bool),
						peers: []*simPeer{
							{name: "one", kind: one, delay: 10 * time.Millisecond},
							{name: "two", kind: two, delay: 10 * time.Millisecond},
							{name: "three", kind: honest, delay: 50 * time.Millisecond},
						},
					}
					b := s.mine("b", seed, 9)
					s.pool.add(msgs(b)[3:]...)
					for _, name := range []string{"one", "two"} {
						s.at(0, func() { s.event(relay.Peer{Peer: name, Tip: b.Hash}) })
						e := relay.Announced{From: name, Block: s.spoilt(b, s.r.Uint64(), nil, fault), Relayed: true}
						s.at(0, func() { s.event(e) })
					}
					if announces {
						e := relay.Announced{From: "three", Block: s.spoilt(b, s.r.Uint64(), nil, "")}
						s.at(time.Millisecond, func() { s.event(e) })
					} else {
						s.at(0, func() { s.event(relay.Peer{Peer: "three", Tip: b.Hash}) })
					}
					s.run()
					if s.ended[b.Hash] != "delivered" {
						t.Errorf("kinds %d and %d, fault %q, announces %v: %s", one, two, fault, announces, s.ended[b.Hash])
					}
					slowest = max(slowest, s.delivery)
				}
			}
		}
	}
	t.Logf("the slowest took %v", slowest)
	if slowest > 4*time.Second {
		t.Errorf("it took %v", slowest)
	}
}

// FuzzAssembler plays what the fuzzer makes up: each byte is an event, the next its
// argument.
func FuzzAssembler(f *testing.F) {
	f.Add(uint64(1), []byte{0, 0, 1, 0, 2, 1, 9, 50, 3, 0, 10, 1, 9, 255})
	f.Add(uint64(2), []byte{4, 3, 0, 9, 9, 30, 5, 0, 9, 200, 9, 200, 6, 1, 7, 0, 8, 0, 9, 255, 9, 255, 9, 255})
	f.Fuzz(func(t *testing.T, seed uint64, script []byte) {
		s := &sim{bench: newBench(t, relay.AssemblerConfig{Seed: seed}), r: rand.New(rand.NewPCG(seed, 0x53))}
		var blocks []*consensus.Block
		for i := range 3 {
			blocks = append(blocks, s.mine(fmt.Sprint("b", i), seed+uint64(i), 5+3*i))
		}
		s.pool.add(msgs(blocks[1])[2:]...)
		faults := []string{"", "ids", "coinbase", "stripped", "flipped", "longer", "double", "same"}
		pick := func(arg byte) relay.Action {
			var ids []uint64
			for id := range s.asks {
				ids = append(ids, id)
			}
			if len(ids) == 0 {
				return nil
			}
			slices.Sort(ids)
			return s.asks[ids[int(arg)%len(ids)]]
		}
		for i := 0; i+1 < min(len(script), 400); i += 2 {
			arg := script[i+1]
			b := blocks[int(arg)%len(blocks)]
			name := fmt.Sprint("p", arg%7)
			k := pick(arg)
			var e relay.Event
			switch op := script[i] % 12; op {
			case 0, 1, 2:
				e = relay.Announced{From: name, Block: s.spoilt(b, uint64(arg), nil, faults[int(arg/7)%len(faults)]), Relayed: arg&1 == 0}
			case 3, 4, 5:
				if k == nil {
					continue
				}
				e = s.honest(k)
				if got, ok := e.(relay.GotTxs); ok && op == 4 {
					got.Txs[int(arg)%len(got.Txs)] = encode(t, msgs(blocks[0])[int(arg)%4])
				} else if ok && op == 5 {
					got.Txs = got.Txs[1:]
					e = got
				}
				if got, ok := e.(relay.GotBlock); ok && op > 3 {
					got.Raw[len(got.Raw)-1-int(arg)] ^= 1
				}
			case 6:
				if k != nil {
					e = relay.Failed{ID: idOf(k), Why: relay.Failure(arg % 3)}
				}
			case 7:
				e = relay.PeerGone{Peer: name}
			case 8:
				e = relay.Peer{Peer: name, Tip: b.Hash}
			case 9:
				s.now = s.now.Add(time.Duration(arg) * 10 * time.Millisecond)
				e = relay.Tick{}
			case 10:
				delete(s.made, b.Hash)
				e = relay.Have{Block: b.Hash, Raw: b.Raw}
			case 11:
				e = relay.Arriving{ID: uint64(arg)}
			}
			if e != nil {
				s.step(e)
				_, _, _ = s.a.Txs(b.Hash, []uint32{0, uint32(arg)})
			}
		}
		for {
			next, ok := s.a.Next()
			if !ok {
				return
			}
			s.now = next
			s.step(relay.Tick{})
		}
	})
}
