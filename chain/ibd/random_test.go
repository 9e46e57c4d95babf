package ibd

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

// chainModel is the world's truth: sizes of the blocks of the best chain.
type chainModel struct {
	size map[int32]int64
	rng  *rand.Rand
	most int64
}

func (m *chainModel) at(h int32) int64 {
	if n, ok := m.size[h]; ok {
		return n
	}
	n := 1 + m.rng.Int64N(m.most)
	if m.rng.IntN(3) > 0 {
		n = 1 + n/50
	}
	m.size[h] = n
	return n
}

// randomRun drives one Scheduler with random events of peers that lie, stall,
// vanish, dawdle and duplicate, then leaves it with one honest peer and expects
// the chain to be complete. It returns the trace of events and actions.
func randomRun(seed uint64, steps int) (string, error) {
	rng := rand.New(rand.NewPCG(seed, 1))
	block := int64(1 + rng.IntN(2000))
	cfg := Config{
		MaxRequestsPerPeer: 1 + rng.IntN(16), MaxBlocksPerPeer: 1 + rng.IntN(64), MaxBytesPerPeer: block * int64(1+rng.IntN(8)),
		MaxRequests: 1 + rng.IntN(20), MaxBytes: block * int64(1+rng.IntN(12)), MaxCount: 1 + rng.IntN(20),
		Window: int32(1 + rng.IntN(150)), MaxBlockBytes: block, Seed: seed,
	}
	c, err := newChecker(cfg)
	if err != nil {
		return "", err
	}
	c.trace = new(strings.Builder)
	m := &chainModel{size: map[int32]int64{}, rng: rng, most: block}
	w := &randomWorld{checker: c, m: m, rng: rng, best: int32(20 + rng.IntN(200)), validated: int32(rng.IntN(10))}
	err = w.run(steps)
	if err != nil {
		err = fmt.Errorf("seed %d: %w", seed, err)
	}
	return c.trace.String(), err
}

type randomWorld struct {
	*checker
	m               *chainModel
	rng             *rand.Rand
	best, validated int32
	waiting         bool // a refusal for good waits for its Target
}

func (w *randomWorld) send(e Event) error {
	w.now = w.now.Add(time.Duration(w.rng.IntN(3)) * time.Millisecond)
	_, err := w.step(e)
	return err
}

func (w *randomWorld) run(steps int) error {
	if err := w.send(w.target(w.validated)); err != nil {
		return err
	}
	for range steps {
		if err := w.random(); err != nil {
			return err
		}
	}
	return w.finish()
}

func (w *randomWorld) target(keep int32) Target {
	t := Target{Base: w.validated, Best: w.best, Keep: keep}
	for h := w.validated + 1; h <= w.best && w.rng.IntN(4) == 0; {
		h += int32(w.rng.IntN(8))
		to := min(w.best, h+int32(w.rng.IntN(12)))
		if h <= to {
			t.Have = append(t.Have, [2]int32{h, to})
		}
		h = to + 2
	}
	return t
}

func (w *randomWorld) peer() PeerID { return PeerID(rune('a' + w.rng.IntN(7))) }

// some returns an outstanding request chosen at random.
func (w *randomWorld) some() *owed {
	if len(w.reqs) == 0 {
		return nil
	}
	var ids []RequestID
	for id := RequestID(1); id <= w.s.lastID; id++ {
		if w.reqs[id] != nil {
			ids = append(ids, id)
		}
	}
	return w.reqs[ids[w.rng.IntN(len(ids))]]
}

// verdict answers the lowest delivered block.
func (w *randomWorld) verdict(honest bool) error {
	h := w.validated + 1
	if _, ok := w.chain[h]; !ok {
		if _, disk := w.s.disk.around(h); disk {
			w.validated = h
			return w.send(Connected{h})
		}
		return nil
	}
	x := w.rng.IntN(24)
	switch {
	case w.waiting:
		return nil
	case honest || x > 3:
		w.validated = h
		return w.send(Connected{h})
	case x == 0:
		return w.send(Rejected{Height: h, BlameSender: true})
	case x == 1:
		return w.send(Rejected{Height: h, Refetch: true})
	case x == 2:
		w.waiting = true
		return w.send(Rejected{Height: h})
	default:
		to := h
		for ; w.rng.IntN(3) > 0; to++ {
			if _, ok := w.chain[to+1]; !ok {
				break
			}
		}
		return w.send(Stored{to})
	}
}

func (w *randomWorld) random() error {
	switch w.rng.IntN(14) {
	case 0:
		high := w.rng.Int32N(w.best + 20)
		return w.send(PeerTip{Peer: w.peer(), Low: w.rng.Int32N(high + 1), High: high, RTT: time.Duration(w.rng.IntN(3)) * 30 * time.Millisecond})
	case 1:
		return w.send(PeerTip{Peer: w.peer(), High: w.best})
	case 2:
		if w.rng.IntN(3) > 0 {
			return nil
		}
		return w.send(PeerGone{w.peer()})
	case 3:
		w.now = w.now.Add(time.Duration(w.rng.IntN(700)) * time.Millisecond)
		return w.send(Tick{})
	case 4:
		if w.rng.IntN(8) > 0 && !w.waiting {
			return nil
		}
		w.waiting = false
		keep := w.best
		if w.rng.IntN(2) == 0 { // reorg
			keep = max(0, w.validated-2+w.rng.Int32N(w.best-w.validated+3))
			for h := range w.m.size {
				if h > keep {
					delete(w.m.size, h)
				}
			}
			w.validated = min(w.validated, keep)
			w.best = keep + w.rng.Int32N(30)
		} else {
			w.best += w.rng.Int32N(10)
		}
		return w.send(w.target(keep))
	case 5, 6:
		return w.verdict(false)
	case 7:
		// A block on disk turned out to be lost.
		if s := w.s; s.floor > s.connected && s.cfg.MaxBytes >= 2*s.cfg.MaxBlockBytes && w.rng.IntN(4) == 0 {
			return w.send(Rejected{Height: s.connected + 1 + w.rng.Int32N(s.floor-s.connected), Refetch: true})
		}
		// What nobody asked for.
		return w.send(Block{Peer: w.peer(), ID: RequestID(w.rng.IntN(40) + 1_000_000), Height: w.rng.Int32N(w.best + 1), Size: 1})
	}
	r := w.some()
	if r == nil {
		return w.send(Tick{})
	}
	if w.rng.IntN(40) == 0 {
		return w.lie(r)
	}
	return w.reply(r)
}

// reply moves the reply to r on by one honest step.
func (w *randomWorld) reply(r *owed) error {
	h := r.Start + int32(r.next)
	if r.cancelled {
		if n := int32(r.Count - r.next); n > 0 && w.rng.IntN(3) == 0 {
			return w.send(Block{Peer: r.Peer, ID: r.ID, Height: h + w.rng.Int32N(n), Size: 1})
		}
		return w.send(Done{Peer: r.Peer, ID: r.ID, Status: Status(w.rng.IntN(5))})
	}
	if r.next == r.Count {
		return w.send(Done{Peer: r.Peer, ID: r.ID})
	}
	n := w.m.at(h)
	switch x := w.rng.IntN(30); {
	case x == 0:
		return w.send(Done{Peer: r.Peer, ID: r.ID, Status: Busy})
	case x == 1:
		return w.send(Done{Peer: r.Peer, ID: r.ID, Status: NotFound})
	case x == 2:
		return w.send(Done{Peer: r.Peer, ID: r.ID, Status: Failed})
	case x < 6:
		return w.send(Bytes{Peer: r.Peer, ID: r.ID, N: 1 + w.rng.Int64N(n)})
	}
	return w.honest(r)
}

// honest moves the reply to r on as a correct server would.
func (w *randomWorld) honest(r *owed) error {
	h := r.Start + int32(r.next)
	switch {
	case r.cancelled:
		return w.send(Done{Peer: r.Peer, ID: r.ID, Status: Failed})
	case r.next == r.Count:
		return w.send(Done{Peer: r.Peer, ID: r.ID})
	case w.m.at(h) <= r.left:
		return w.send(Block{Peer: r.Peer, ID: r.ID, Height: h, Size: w.m.at(h)})
	case r.next == 0:
		return w.send(Done{Peer: r.Peer, ID: r.ID, Status: TooLarge, Size: w.m.at(h)})
	default:
		return w.send(Done{Peer: r.Peer, ID: r.ID})
	}
}

func (w *randomWorld) lie(r *owed) error {
	h := r.Start + int32(r.next)
	switch w.rng.IntN(7) {
	case 0:
		return w.send(Done{Peer: r.Peer, ID: r.ID, Status: Lied})
	case 1: // sent a block twice
		if r.next > 0 && !r.cancelled {
			return w.send(Block{Peer: r.Peer, ID: r.ID, Height: h - 1, Size: w.m.at(h - 1)})
		}
		return nil
	case 2: // out of order
		return w.send(Block{Peer: r.Peer, ID: r.ID, Height: h + 1, Size: 1})
	case 3:
		return w.send(Block{Peer: r.Peer, ID: r.ID, Height: h, Size: r.left + 1})
	case 4:
		return w.send(Done{Peer: r.Peer, ID: r.ID, Status: TooLarge, Size: r.left + 1 + w.rng.Int64N(50)})
	case 5:
		return w.send(Done{Peer: r.Peer, ID: r.ID, Status: TooLarge, Size: max(1, r.left-1)})
	default:
		return w.send(Done{Peer: r.Peer, ID: r.ID}) // an OK that is too short
	}
}

// finish leaves one honest peer and one that never answers.
func (w *randomWorld) finish() error {
	for p := 'a'; p < 'a'+7; p++ {
		if err := w.send(PeerGone{PeerID(p)}); err != nil {
			return err
		}
	}
	if w.waiting {
		w.waiting = false
		if err := w.send(Target{Base: w.validated, Best: w.best, Keep: w.best}); err != nil {
			return err
		}
	}
	for _, e := range []Event{PeerTip{Peer: "honest", High: w.best}, PeerTip{Peer: "silent", High: w.best}} {
		if err := w.send(e); err != nil {
			return err
		}
	}
	limit := 60*int(w.best) + 3000
	for range limit {
		if w.validated == w.best {
			return w.idle()
		}
		var mine *owed
		for id, r := range w.reqs {
			if r.Peer == "honest" && (mine == nil || id < mine.ID) {
				mine = r
			}
		}
		var err error
		if mine != nil {
			err = w.honest(mine)
		} else {
			w.now = w.now.Add(100 * time.Millisecond)
			err = w.send(Tick{})
		}
		if err == nil {
			err = w.verdict(true)
		}
		if err != nil {
			return err
		}
	}
	return fmt.Errorf("stuck at height %d of %d: %+v", w.validated, w.best, w.s.Stats())
}

// idle checks that nothing is left over once all is connected.
func (w *randomWorld) idle() error {
	if err := w.send(PeerGone{"silent"}); err != nil {
		return err
	}
	for r := w.some(); r != nil; r = w.some() {
		if err := w.honest(r); err != nil {
			return err
		}
	}
	if st := w.s.Stats(); st.Requests != 0 || st.PromisedBytes != 0 || st.BufferedBytes != 0 || st.Reason != "" || len(w.bufs) != 0 {
		return fmt.Errorf("left over: %+v, %d blocks at the driver", st, len(w.bufs))
	}
	return nil
}

// runs is how many random runs a test makes: a quarter in the short suite, which
// the race detector slows down.
func runs() int {
	if testing.Short() {
		return seeds / 4
	}
	return seeds
}

func TestRandomPeers(t *testing.T) {
	t.Parallel()
	for seed := range uint64(runs()) {
		if trace, err := randomRun(seed, 300); err != nil {
			t.Fatalf("%v\n%s", err, tail(trace, 30))
		}
	}
}

func TestSameSeedSameActions(t *testing.T) {
	t.Parallel()
	for seed := range uint64(50) {
		a, _ := randomRun(seed, 300)
		b, _ := randomRun(seed, 300)
		if a != b {
			t.Fatalf("seed %d: two runs differ", seed)
		}
	}
}

func tail(text string, n int) string {
	lines := strings.Split(text, "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

func FuzzScheduler(f *testing.F) {
	for seed := range uint64(8) {
		f.Add(seed, uint16(300))
	}
	f.Fuzz(func(t *testing.T, seed uint64, steps uint16) {
		if trace, err := randomRun(seed, int(steps%2000)); err != nil {
			t.Fatalf("%v\n%s", err, tail(trace, 30))
		}
	})
}

// TestLacksAreBounded has a peer say of every block that it lacks it.
func TestLacksAreBounded(t *testing.T) {
	t.Parallel()
	c, err := newChecker(Config{MaxBlockBytes: 1000, MaxCount: 1})
	if err != nil {
		t.Fatal(err)
	}
	var ids []RequestID
	feed := func(e Event) {
		actions, err := c.step(e)
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range actions {
			if r, ok := a.(Request); ok {
				ids = append(ids, r.ID)
			}
		}
	}
	feed(Target{Best: 1000})
	feed(PeerTip{Peer: "a", High: 1000})
	n := 0
	for ; len(ids) > 0 && n < 500; n++ {
		id := ids[0]
		ids = ids[1:]
		feed(Done{Peer: "a", ID: id, Status: NotFound})
		if got := len(c.s.peers["a"].lacks); got > maxLacks {
			t.Fatalf("%d ranges remembered", got)
		}
	}
	if n < maxLacks+1 {
		t.Errorf("only %d answers", n)
	}
}
