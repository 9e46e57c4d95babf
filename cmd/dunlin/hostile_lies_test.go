package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/libp2p/go-libp2p/core/network"

	"dunlin/chain/consensus"
)

// lie is what four of five peers do while a daemon syncs.
type lie struct {
	name   string
	blamed bool // provable: the daemon must blame them, and nobody else
	make   func(*liar)
}

// endless are more headers than a chain has blocks, with the least work there is.
func endless(p *consensus.Params, n int) [][]byte {
	last, at := p.GenesisHash, uint32(p.GenesisBlock().Header.Timestamp.Unix())
	raws := make([][]byte, n)
	for i := range raws {
		h := make([]byte, consensus.HeaderBytes)
		binary.LittleEndian.PutUint32(h, 0x20000000)
		copy(h[4:], last[:])
		at += 60
		binary.LittleEndian.PutUint32(h[68:], at)
		binary.LittleEndian.PutUint32(h[72:], p.PowLimitBits)
		for last = chainhash.DoubleHashH(h); last[31] >= 0x7f; last = chainhash.DoubleHashH(h) {
			h[76]++
		}
		raws[i] = h
	}
	return raws
}

// drip writes b a little at a time until the stream ends.
func drip(t *testing.T, s io.Writer, b []byte, n int, every time.Duration) error {
	t.Helper()
	tick := time.NewTicker(every)
	defer tick.Stop()
	for len(b) > 0 {
		select {
		case <-tick.C:
		case <-t.Context().Done():
			return t.Context().Err()
		}
		k := min(n, len(b))
		if _, err := s.Write(b[:k]); err != nil {
			return err
		}
		b = b[k:]
	}
	return nil
}

func lies(t *testing.T, l *ledger, honest *branch) []lie {
	t.Helper()
	rng := hostileSeed(t)
	claim := absurd(rng)
	invalid, withheld := l.fork(1500, 700, true), l.fork(1500, 700, false)
	spam := endless(l.b.Params, 100_000)
	hang := func(s network.Stream) error { _, err := io.Copy(io.Discard, s); return errors.Join(err, io.EOF) }
	first := func(r wireFields) []byte { return honest.raws[min(max(int(r.n[2]), 1), len(honest.raws))-1] }
	more := func() wireTip { c := claim; c.height = 2500; return c }
	end := func(status uint64) func(s network.Stream, r wireFields) error {
		return func(s network.Stream, r wireFields) error { _, err := s.Write(endMsg(r.n[1], status)); return err }
	}
	without := func(h int) []byte { // the branch that is withheld, up to where it leaves the honest one
		if h > 1500 {
			return nil
		}
		return withheld.raws[h-1]
	}
	return []lie{
		// About the tip.
		{name: "claims what it cannot show", make: func(x *liar) {
			x.claim = func() wireTip { return claim }
			x.headers = func(s network.Stream, from int) error { return x.sendHeaders(s, from, nil) }
			x.block = func(int) []byte { return nil }
		}},
		{name: "claims much and never sends headers", make: func(x *liar) {
			x.claim = func() wireTip { return claim }
			x.headers = func(s network.Stream, _ int) error { return hang(s) }
			x.reply = func(s network.Stream, _ wireFields) error { return hang(s) }
		}},
		{name: "trickles headers", make: func(x *liar) {
			x.claim = more
			x.headers = func(s network.Stream, from int) error {
				m := number(number(number(nil, 1, uint64(from+1)), 2, 1000), 3, 1000*consensus.HeaderBytes)
				if _, err := s.Write(delimited(field(m, 4, x.tip().bytes()))); err != nil {
					return err
				}
				return drip(t, s, make([]byte, 1000*consensus.HeaderBytes), 1, time.Second)
			}
		}},
		// Headers.
		{name: "headers without proof of work", blamed: true, make: func(x *liar) {
			x.headers = func(s network.Stream, from int) error {
				return x.sendHeaders(s, from, [][]byte{badHeader(honest.raws[0], func(h []byte) {
					for hash := chainhash.DoubleHashH(h); hash[31] < 0x80; hash = chainhash.DoubleHashH(h) {
						h[76]++
					}
				})})
			}
			x.claim = more
		}},
		{name: "headers that lead nowhere", blamed: true, make: func(x *liar) {
			x.headers = func(s network.Stream, from int) error {
				return x.sendHeaders(s, from, [][]byte{badHeader(honest.raws[0], func(h []byte) { copy(h[4:36], randomBytes(rng, 32)) })})
			}
			x.claim = more
		}},
		{name: "another range of headers", blamed: true, make: func(x *liar) {
			x.headers = func(s network.Stream, from int) error {
				return x.sendHeaders(s, from, spam[min(from+len(honest.raws)+10, len(spam)-10):])
			}
			x.claim = more
		}},
		{name: "headers without end", make: func(x *liar) {
			x.branch = newBranch(l.b.Params, spam)
			x.block = func(int) []byte { return nil }
		}},
		{name: "an oversize headers reply", blamed: true, make: func(x *liar) {
			x.claim = more
			x.headers = func(s network.Stream, _ int) error {
				m := number(number(number(nil, 1, 1), 2, 1<<30), 3, 1<<31-1)
				_, err := s.Write(append(delimited(field(m, 4, x.tip().bytes())), make([]byte, 1<<20)...))
				return err
			}
		}},
		// Blocks.
		{name: "another height's block", blamed: true, make: func(x *liar) {
			x.block = func(h int) []byte { return honest.raws[h%len(honest.raws)] }
		}},
		{name: "another range of blocks", blamed: true, make: func(x *liar) {
			x.reply = func(s network.Stream, r wireFields) error {
				r.n[2] = uint64(min(int(r.n[2]+r.n[3]), len(honest.raws)-int(r.n[3])))
				delete(r.b, 4)
				return x.sendBlocks(s, r, nil)
			}
		}},
		{name: "more blocks than asked for", blamed: true, make: func(x *liar) {
			x.reply = func(s network.Stream, r wireFields) error {
				for h := int(r.n[2]); h <= len(honest.raws); h++ {
					raw := honest.raws[h-1]
					if _, err := s.Write(append(frameMsg(r.n[1], uint64(len(raw))), raw...)); err != nil {
						return err
					}
				}
				return hang(s)
			}
		}},
		{name: "mutated blocks", blamed: true, make: func(x *liar) { x.block = l.mutant }},
		{name: "an invalid block below a longer chain", blamed: true, make: func(x *liar) { x.branch = invalid }},
		{name: "oversize blocks", blamed: true, make: func(x *liar) {
			x.reply = func(s network.Stream, r wireFields) error {
				_, err := s.Write(append(frameMsg(r.n[1], 1<<40), make([]byte, 1<<20)...))
				return errors.Join(err, hang(s))
			}
		}},
		{name: "oversize frames", blamed: true, make: func(x *liar) {
			x.reply = func(s network.Stream, _ wireFields) error {
				_, err := s.Write(append(binary.AppendUvarint(nil, 1<<31), make([]byte, 1<<20)...))
				return errors.Join(err, hang(s))
			}
		}},
		{name: "withholds a longer chain", make: func(x *liar) { x.branch, x.block = withheld, without }},
		{name: "withholds a longer chain in silence", make: func(x *liar) {
			x.branch = withheld
			x.reply = func(s network.Stream, r wireFields) error {
				if int(r.n[2]+r.n[3]) > 1501 {
					return hang(s)
				}
				return x.sendBlocks(s, r, nil)
			}
		}},
		// Time.
		{name: "never answers", make: func(x *liar) { x.reply = func(s network.Stream, _ wireFields) error { return hang(s) } }},
		{name: "freezes in the middle of a block", make: func(x *liar) {
			x.reply = func(s network.Stream, r wireFields) error {
				raw := first(r)
				if _, err := s.Write(append(frameMsg(r.n[1], uint64(len(raw))), raw[:len(raw)/2]...)); err != nil {
					return err
				}
				return hang(s)
			}
		}},
		{name: "trickles a byte a second", make: func(x *liar) {
			x.reply = func(s network.Stream, r wireFields) error {
				raw := first(r)
				return drip(t, s, append(frameMsg(r.n[1], uint64(len(raw))), raw...), 1, time.Second)
			}
		}},
		{name: "drips just enough not to look silent", make: func(x *liar) {
			x.reply = func(s network.Stream, r wireFields) error {
				for h := int(r.n[2]); h < int(r.n[2]+r.n[3]); h++ {
					raw := honest.raws[h-1]
					if err := drip(t, s, append(frameMsg(r.n[1], uint64(len(raw))), raw...), 1000, 250*time.Millisecond); err != nil {
						return err
					}
				}
				_, err := s.Write(endMsg(r.n[1], 0))
				return err
			}
		}},
		{name: "serves well, then no more", make: func(x *liar) {
			x.block = func(h int) []byte { return honest.raws[h-1] }
			var served sync.Map
			x.reply = func(s network.Stream, r wireFields) error {
				n, _ := served.LoadOrStore(s, new(int))
				if *n.(*int)++; *n.(*int) > 3 {
					return hang(s)
				}
				return x.sendBlocks(s, r, nil)
			}
		}},
		{name: "is busy for ever", make: func(x *liar) { x.reply = end(2) }},
		{name: "finds nothing", make: func(x *liar) { x.reply = end(1) }},
		{name: "says that every block is too large", blamed: true, make: func(x *liar) {
			x.reply = func(s network.Stream, r wireFields) error {
				m := number(number(number(nil, 1, r.n[1]), 3, 1), 4, 3)
				_, err := s.Write(delimited(number(m, 5, min(r.n[5]+1, 4_000_000))))
				return err
			}
		}},
		{name: "resets every stream", make: func(x *liar) {
			x.reply = func(s network.Stream, _ wireFields) error { return errors.Join(io.EOF, s.Reset()) }
		}},
	}
}

// honestRate is the link of the honest peer, in bytes a second: a sync must last
// long enough that what liars cost can be compared with it.
const honestRate = 5 << 19

// liesAtOnce is how many daemons sync at once: they mostly wait for the honest link.
const liesAtOnce = 6

// TestE2EHostileSync: four of five peers lie, the fifth is honest. The daemon ends
// on the honest chain in at most three times the time of a clean sync, with bounded
// memory, and without filling the log.
func TestE2EHostileSync(t *testing.T) {
	t.Parallel()
	l := newLedger(4000)
	honest := branchOf(l.b.Params, l.blocks)
	want := honest.hashes[len(honest.hashes)-1].String()
	// The honest peer is one of ours too: daemons would find each other through a
	// real one, and help.
	syncAmong := func(t *testing.T, liars ...*liar) (*daemon, time.Duration) {
		t.Helper()
		good := newLiar(t, honest)
		good.rate = honestRate
		args := []string{"--network", "regtest"}
		for _, x := range liars {
			args = append(args, "--bootstrap", x.serve().addr())
		}
		d := startDaemon(t, "victim", append(args, "--bootstrap", good.serve().addr())...)
		began := time.Now()
		d.reaches(want, patience)
		took := time.Since(began)
		d.cleanLog(t)
		return d, took
	}
	// The machine may have other work for a while: what took too long is tried again, at
	// the same time as a clean sync.
	_, first := syncAmong(t)
	t.Logf("clean: %v", first.Round(time.Millisecond))
	const most = 3 * slowness // times a clean sync; under the race detector the processor is the link
	measure := func(t *testing.T, lie *lie) (d *daemon, took, clean time.Duration) {
		t.Helper()
		clean = first
		for i := range 5 {
			var beside sync.WaitGroup
			if i > 0 {
				beside.Go(func() { _, clean = syncAmong(t) })
			}
			var liars []*liar
			for range 4 {
				x := newLiar(t, honest)
				lie.make(x)
				liars = append(liars, x)
			}
			d, took = syncAmong(t, liars...)
			if beside.Wait(); took <= most*clean {
				break
			}
			t.Logf("%v, a clean sync %v", took, clean)
		}
		return d, took, clean
	}
	run := func(t *testing.T, lie *lie) {
		t.Helper()
		d, took, clean := measure(t, lie)
		if lie.blamed {
			eventually(t, patience, "somebody is blamed", func() error {
				if !strings.Contains(d.log.String(), "misbehaved") {
					return errors.New("nobody")
				}
				return nil
			})
		}
		log := d.log.String()
		blamed, lines := strings.Count(log, "misbehaved"), strings.Count(log, "\n")
		peak, err := d.peak()
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%.1f times a clean sync (%v); peak %d MB; %d log lines; %d blamed",
			took.Seconds()/clean.Seconds(), took.Round(time.Millisecond), peak>>20, lines, blamed)
		figure(t, "daemons/hostile", took.Seconds()/clean.Seconds())
		if took > most*clean {
			t.Errorf("sync took %v, a clean one %v", took, clean)
		}
		if peak > slowness*250<<20 {
			t.Errorf("%d MB of memory", peak>>20)
		}
		if limit := 60 + int(60*took.Minutes()); lines > limit {
			t.Errorf("%d log lines in %v, limit %d", lines, took, limit)
		}
		if !lie.blamed && blamed > 0 {
			t.Error("slow or silent peers were blamed")
		}
	}
	var all sync.WaitGroup
	defer all.Wait()
	slots := make(chan struct{}, liesAtOnce)
	for i, lie := range lies(t, l, honest) {
		if testing.Short() && i%4 != 0 {
			continue
		}
		slots <- struct{}{}
		all.Go(func() {
			defer func() { <-slots }()
			t.Run(lie.name, func(t *testing.T) { run(t, &lie) })
		})
	}
}

// peak is the most memory that the daemon has had resident, in bytes.
func (d *daemon) peak() (int64, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", d.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kb, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			return kb << 10, err
		}
	}
	return 0, errors.New("no VmHWM")
}
