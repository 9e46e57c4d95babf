package ibd

import (
	"math/rand/v2"
	"testing"
	"time"
)

// ways are the ways in which a simulated peer can be of no use, or worse. Each
// sets up a link that is as good as the honest one otherwise.
var ways = []struct {
	name string
	set  func(rng *rand.Rand, l *link)
}{
	{"silent from the start", func(_ *rand.Rand, l *link) { l.freezeAt = 1 }},
	{"freezes", func(rng *rand.Rand, l *link) { l.freezeAt = time.Duration(rng.IntN(10_000)) * time.Millisecond }},
	{"trickles", func(_ *rand.Rand, l *link) { l.evil = trickle(1) }},
	{"sends a tenth of what it could", func(_ *rand.Rand, l *link) { l.rate /= 10 }},
	{"busy for ever", func(_ *rand.Rand, l *link) { l.evil = answer(Done{Status: Busy}) }},
	{"not found for ever", func(_ *rand.Rand, l *link) { l.evil = answer(Done{Status: NotFound}) }},
	{"resets", func(_ *rand.Rand, l *link) { l.evil = answer(Done{Status: Failed}) }},
	{"an OK without a block", func(_ *rand.Rand, l *link) { l.evil = answer(Done{Status: OK}) }},
	{"lies", func(_ *rand.Rand, l *link) { l.evil = answer(Done{Status: Lied}) }},
	{"says that blocks are too large", func(_ *rand.Rand, l *link) { l.evil = exaggerate }},
	{"ends each reply after one block", func(_ *rand.Rand, l *link) { l.evil = oneByOne }},
	{"sends blocks twice", func(_ *rand.Rand, l *link) { l.evil = twice }},
	{"delays every reply by 3 s", func(_ *rand.Rand, l *link) { l.late = 3 * time.Second }},
	{"delays every reply more", func(_ *rand.Rand, l *link) { l.evil = later() }},
	{"vanishes and comes back", func(rng *rand.Rand, l *link) { l.evil = vanish(time.Duration(rng.IntN(3000)) * time.Millisecond) }},
	{"honest, a hundredth of the rate", func(_ *rand.Rand, l *link) { l.rate /= 100 }},
}

// arrive has l's end of the link see e half a round trip from now, unless its
// stream was reset.
func (n *network) arrive(l *link, d time.Duration, e Event) {
	resets := l.resets
	n.after(d+l.rtt/2, func() {
		if resets == l.resets {
			n.event(e)
		}
	})
}

func (n *network) size(h int32) int64 { return n.sizes[min(int(h), len(n.sizes)-1)] }

func answer(d Done) func(*network, *link, *reply) {
	return func(n *network, l *link, r *reply) {
		d.Peer, d.ID = l.id, r.ID
		n.arrive(l, 0, d)
	}
}

// trickle sends a few bytes a second of the first block, for ever.
func trickle(rate int64) func(*network, *link, *reply) {
	return func(n *network, l *link, r *reply) {
		var drip func()
		resets := l.resets
		drip = func() {
			if resets == l.resets {
				n.arrive(l, 0, Bytes{Peer: l.id, ID: r.ID, N: rate})
				n.after(time.Second, drip)
			}
		}
		drip()
	}
}

func exaggerate(n *network, l *link, r *reply) {
	size := r.MaxBytes + 1
	if size > 4_000_000 {
		n.arrive(l, 0, Block{Peer: l.id, ID: r.ID, Height: r.Start, Size: n.size(r.Start)})
		n.arrive(l, 0, Done{Peer: l.id, ID: r.ID})
		return
	}
	n.arrive(l, 0, Done{Peer: l.id, ID: r.ID, Status: TooLarge, Size: 4_000_000})
}

func oneByOne(n *network, l *link, r *reply) {
	if size := n.size(r.Start); size > r.MaxBytes {
		n.arrive(l, 0, Done{Peer: l.id, ID: r.ID, Status: TooLarge, Size: size})
		return
	}
	n.arrive(l, 0, Block{Peer: l.id, ID: r.ID, Height: r.Start, Size: n.size(r.Start)})
	n.arrive(l, 0, Done{Peer: l.id, ID: r.ID})
}

func twice(n *network, l *link, r *reply) {
	for range 2 {
		n.arrive(l, 0, Block{Peer: l.id, ID: r.ID, Height: r.Start, Size: n.size(r.Start)})
	}
}

func later() func(*network, *link, *reply) {
	var d time.Duration
	return func(n *network, l *link, r *reply) {
		d += 100 * time.Millisecond
		var sent int64
		for h := r.Start; h < r.Start+int32(r.Count); h++ {
			if sent += n.size(h); sent > r.MaxBytes {
				if h == r.Start {
					n.arrive(l, d, Done{Peer: l.id, ID: r.ID, Status: TooLarge, Size: n.size(h)})
					return
				}
				break
			}
			n.arrive(l, d, Block{Peer: l.id, ID: r.ID, Height: h, Size: n.size(h)})
		}
		n.arrive(l, d, Done{Peer: l.id, ID: r.ID})
	}
}

// vanish leaves at the first request and is back a moment later.
func vanish(after time.Duration) func(*network, *link, *reply) {
	return func(n *network, l *link, _ *reply) {
		resets := l.resets
		n.after(after, func() {
			if resets != l.resets {
				return
			}
			n.leave(l)
			n.after(after, func() {
				l.gone = false
				n.event(PeerTip{Peer: l.id, High: n.blocks, RTT: l.rtt})
			})
		})
	}
}

// crowd is a scenario of one honest peer among four of the given ways, or, with
// none, of the honest one alone.
func crowd(seed uint64, rng *rand.Rand, which []int) scenario {
	sc := scenario{seed: seed, blocks: 1500, size: about(40e3), links: links(1, 5e6, 50*time.Millisecond)}
	if seed%2 == 1 {
		sc.size = about(2e5)
		sc.blocks = 400
	}
	for _, w := range which {
		l := links(1, 5e6, 50*time.Millisecond)[0]
		ways[w].set(rng, l)
		sc.links = append(sc.links, l)
	}
	if len(which) > 0 { // the honest one is not always the first
		i := rng.IntN(len(sc.links))
		sc.links[0], sc.links[i] = sc.links[i], sc.links[0]
	}
	return sc
}

// TestHostileCrowd: with one honest peer of five, a download takes at most three
// times what it takes from the honest one alone, whatever the others do.
func TestHostileCrowd(t *testing.T) {
	t.Parallel()
	for seed := range uint64(runs()/20 + len(ways)) {
		rng := rand.New(rand.NewPCG(seed, 5))
		var which []int
		for range 4 {
			w := int(seed) // first each way by four, then mixtures
			if w >= len(ways) {
				w = rng.IntN(len(ways))
			}
			which = append(which, w)
		}
		clean, err := crowd(seed, rng, nil).run()
		if err != nil {
			t.Fatal(err)
		}
		res, err := crowd(seed, rng, which).run()
		if err != nil {
			t.Errorf("seed %d: %v: %v", seed, names(which), err)
			continue
		}
		figure(t, "schedule/hostile", float64(res.took)/float64(clean.took))
		if res.took > 3*clean.took {
			t.Errorf("seed %d: %v: %v, clean %v", seed, names(which), res, clean)
		}
		t.Logf("%.2f × clean, longest gap %v, %d twice: %v", float64(res.took)/float64(clean.took), res.gap, res.dup, names(which))
	}
}

func names(which []int) (out []string) {
	for _, w := range which {
		out = append(out, ways[w].name)
	}
	return out
}
