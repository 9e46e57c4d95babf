package main

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/txscript/v2"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"

	"dunlin/chain/consensus"
	"dunlin/chain/consensus/enginetest"
)

// importBlocks fills the home of a daemon that does not run yet.
func importBlocks(t *testing.T, d *daemon, p *consensus.Params, blocks []*consensus.Block) {
	t.Helper()
	var b []byte
	for _, k := range blocks {
		b = binary.LittleEndian.AppendUint32(b, p.Magic)
		b = binary.LittleEndian.AppendUint32(b, uint32(len(k.Raw)))
		b = append(b, k.Raw...)
	}
	file := filepath.Join(t.TempDir(), "blocks.dat")
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, errs, code := dunlin(t, nil, "chain", "import", "--home", d.home, "--network", p.Name, file); code != 0 {
		t.Fatalf("import: exit %d\n%s%s", code, out, errs)
	}
}

// attackedProtocols are all stream protocols of a daemon.
func (a *attacker) attackedProtocols() []protocol.ID {
	return []protocol.ID{
		a.id("hello/1"), a.id("headers/1"), a.id("blocks/1"), a.id("txs/1"), a.id("kad/1.0.0"), a.id("peers/1"),
		"/ipfs/id/1.0.0", "/ipfs/id/push/1.0.0", "/ipfs/ping/1.0.0", "/meshsub/1.1.0", "/meshsub/1.2.0", "/meshsub/1.3.0",
	}
}

// garbage are what is sent on every protocol.
var garbage = []struct {
	name string
	send func(rng *rand.Rand, s network.Stream)
}{
	{"random bytes", func(rng *rand.Rand, s network.Stream) { _, _ = s.Write(randomBytes(rng, 4096)) }},
	{"nothing, then the end", func(_ *rand.Rand, s network.Stream) { _ = s.CloseWrite() }},
	{"a truncated message", func(rng *rand.Rand, s network.Stream) {
		_, _ = s.Write(append(binary.AppendUvarint(nil, 100), randomBytes(rng, 10)...))
		_ = s.CloseWrite()
	}},
	{"an oversize message", func(_ *rand.Rand, s network.Stream) {
		_, _ = s.Write(append(binary.AppendUvarint(nil, 1<<31-1), make([]byte, 256<<10)...))
	}},
	{"an endless length", func(_ *rand.Rand, s network.Stream) { _, _ = s.Write([]byte(strings.Repeat("\xff", 100_000))) }},
	{"empty messages", func(_ *rand.Rand, s network.Stream) { _, _ = s.Write(make([]byte, 100_000)) }},
	{"random messages of right length", func(rng *rand.Rand, s network.Stream) {
		for range 50 {
			if _, err := s.Write(delimited(randomBytes(rng, 1+rng.IntN(500)))); err != nil {
				return
			}
		}
	}},
	{"half a stream", func(*rand.Rand, network.Stream) {}},
	{"a byte at a time", func(_ *rand.Rand, s network.Stream) {
		msg := delimited(make([]byte, 400))
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for i := range 100 {
			<-tick.C
			if _, err := s.Write(msg[i : i+1]); err != nil {
				return
			}
		}
	}},
}

// TestE2EHostileWire sends garbage on every stream protocol, before and after the
// hello, and everything that a peer may send but should not. The daemon goes on
// answering and serving an honest neighbour.
func TestE2EHostileWire(t *testing.T) {
	t.Parallel()
	rng := hostileSeed(t)
	p := consensus.Regtest()
	d := startDaemon(t, "target", "--network", "regtest")
	honest := startDaemon(t, "honest", "--network", "regtest", "--bootstrap", d.addr())
	honest.reaches(d.mine(3).Hash, patience)
	siege := besiege(t, d)

	var attackers []*attacker
	fresh := func() *attacker {
		a := newAttacker(t, p)
		attackers = append(attackers, a)
		return a
	}
	for _, greeted := range []bool{false, true} {
		var wg sync.WaitGroup
		for _, g := range garbage {
			a := fresh()
			seed := rng.Uint64()
			wg.Go(func() {
				rng := rand.New(rand.NewPCG(seed, 1))
				for _, id := range a.attackedProtocols() {
					to := daemonID(t, d)
					again := a.tryConnect
					if greeted && a.h.Network().Connectedness(to) != network.Connected {
						again = a.tryGreet
					}
					if again(d) != nil {
						return // shunned: it has misbehaved on enough protocols
					}
					if s, err := a.open(to, id); err == nil {
						_ = s.SetWriteDeadline(time.Now().Add(time.Second)) // it may stop reading
						g.send(rng, s)
					}
				}
			})
		}
		wg.Wait()
		if err := alive(d, honest); err != nil {
			t.Errorf("greeted %t: %v", greeted, err)
		}
	}
	t.Log("garbage done")

	for _, attack := range wireAttacks {
		a := fresh()
		began := time.Now()
		attack.run(t, rng, a, d)
		if err := alive(d, honest); err != nil {
			t.Errorf("%s: %v", attack.name, err)
		}
		t.Logf("%s: %v", attack.name, time.Since(began).Round(time.Millisecond))
	}

	// The neighbour still hears of blocks at once, both ways.
	honest.reaches(d.mine(1).Hash, soon)
	d.reaches(honest.mine(1).Hash, soon)
	for _, a := range attackers {
		_ = a.h.Close()
	}
	siege.lift(t, 400)
	honest.cleanLog(t)
}

func daemonID(t *testing.T, d *daemon) peer.ID {
	t.Helper()
	id, err := peer.Decode(d.info.PeerID)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// alive asks daemons for their status.
func alive(ds ...*daemon) error {
	for _, d := range ds {
		if _, err := d.status(); err != nil {
			return fmt.Errorf("%s: %w", d.name, err)
		}
	}
	return nil
}

// wireAttacks are single attacks by a fresh peer.
var wireAttacks = []struct {
	name string
	run  func(t *testing.T, rng *rand.Rand, a *attacker, d *daemon)
}{
	{"streams before the hello", func(_ *testing.T, _ *rand.Rand, a *attacker, d *daemon) {
		to := a.connect(d)
		for _, id := range a.attackedProtocols()[1:4] {
			if s, err := a.open(to, id); err == nil {
				_, _ = s.Write(headersMsg(nil, 2000))
			}
		}
	}},
	{"a hello with control characters and absurd numbers", func(t *testing.T, rng *rand.Rand, a *attacker, d *daemon) {
		t.Helper()
		to := a.connect(d)
		s, err := a.open(to, a.id("hello/1"))
		if err != nil {
			t.Fatal(err)
		}
		_, _ = s.Write(helloMsg(a.params, absurd(rng), "\x1b[2J\x1b[31mroot\r\n\x00\x07\u202e INF all is well"))
		_, _ = s.Write(delimited(field(nil, 3, field(number(nil, 1, 5), 2, []byte("\x1b]0;pwned\x07\n")))))
	}},
	{"hellos out of range", func(t *testing.T, rng *rand.Rand, _ *attacker, d *daemon) {
		t.Helper()
		tall := absurd(rng)
		tall.height = 1 << 33
		heavy := absurd(rng)
		heavy.work = make([]byte, 500)
		for _, tip := range []wireTip{tall, heavy} {
			a := newAttacker(t, consensus.Regtest())
			if s, err := a.open(a.connect(d), a.id("hello/1")); err == nil {
				_, _ = s.Write(helloMsg(a.params, tip, "evil"))
			}
			_ = a.h.Close()
		}
	}},
	{"a second hello, on the stream and on others", func(_ *testing.T, _ *rand.Rand, a *attacker, d *daemon) {
		s, _ := a.greet(d, wireTip{})
		for range 20 {
			_, _ = s.Write(helloMsg(a.params, wireTip{}, "again"))
			if s, err := a.open(s.Conn().RemotePeer(), a.id("hello/1")); err == nil {
				_, _ = s.Write(helloMsg(a.params, wireTip{}, "again"))
			}
		}
	}},
	{"tips and pings without end", func(_ *testing.T, rng *rand.Rand, a *attacker, d *daemon) {
		s, _ := a.greet(d, absurd(rng))
		_ = s.SetWriteDeadline(time.Now().Add(time.Second))
		for range 20_000 {
			if _, err := s.Write(append(tipMsg(absurd(rng)), delimited(fixed(nil, 4, rng.Uint64()))...)); err != nil {
				break // it reads four a second
			}
		}
	}},
	{"locators of random hashes, replies never read", func(_ *testing.T, rng *rand.Rand, a *attacker, d *daemon) {
		s, _ := a.greet(d, wireTip{})
		locator := make([]chainhash.Hash, 64)
		for i := range locator {
			copy(locator[i][:], randomBytes(rng, 32))
		}
		for range 4 {
			h, err := a.open(s.Conn().RemotePeer(), a.id("headers/1"))
			if err != nil {
				continue
			}
			_ = h.SetWriteDeadline(time.Now().Add(500 * time.Millisecond))
			for range 3000 {
				if _, err := h.Write(headersMsg(locator, 2000)); err != nil {
					break
				}
			}
		}
	}},
	{"blocks nobody has", func(_ *testing.T, rng *rand.Rand, a *attacker, d *daemon) {
		s, _ := a.greet(d, wireTip{})
		b, err := a.open(s.Conn().RemotePeer(), a.id("blocks/1"))
		if err != nil {
			return
		}
		_ = b.SetWriteDeadline(time.Now().Add(500 * time.Millisecond))
		hashes := make([]chainhash.Hash, 128)
		for i := range uint64(16) {
			copy(hashes[i][:], randomBytes(rng, 32))
			_, _ = b.Write(blocksByHashMsg(i+1, hashes, 1<<40))
		}
	}},
	{"huge counts", func(t *testing.T, rng *rand.Rand, _ *attacker, d *daemon) {
		t.Helper()
		var last chainhash.Hash
		copy(last[:], randomBytes(rng, 32))
		for _, m := range [][]byte{
			blocksMsg(1, 0, 129, last, 1<<20), blocksMsg(1, 1<<31, 128, last, 1<<20), blocksMsg(1, 1<<31-1, 128, last, 1<<62),
			blocksMsg(1, 0, 1<<63, last, 1<<63), blocksMsg(0, 0, 1, last, 1), blocksMsg(1, 0, 1, last, 0),
		} {
			a := newAttacker(t, consensus.Regtest())
			s, _ := a.greet(d, wireTip{})
			if b, err := a.open(s.Conn().RemotePeer(), a.id("blocks/1")); err == nil {
				_, _ = b.Write(m)
			}
			_ = a.h.Close()
		}
	}},
	{"a seventeenth request", func(_ *testing.T, _ *rand.Rand, a *attacker, d *daemon) {
		s, _ := a.greet(d, wireTip{})
		if b, err := a.open(s.Conn().RemotePeer(), a.id("blocks/1")); err == nil {
			var m []byte
			for i := range uint64(1000) {
				m = append(m, blocksMsg(i+1, 0, 128, a.params.GenesisHash, 1<<40)...)
			}
			_, _ = b.Write(m)
		}
	}},
	{"thousands of streams", func(_ *testing.T, _ *rand.Rand, a *attacker, d *daemon) {
		s, _ := a.greet(d, wireTip{})
		to := s.Conn().RemotePeer()
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				for i := range 300 {
					ids := a.attackedProtocols()
					if s, err := a.open(to, ids[i%len(ids)]); err == nil {
						_, _ = s.Write([]byte{0x40}) // a message of 64 bytes that never comes
					}
				}
			})
		}
		wg.Wait()
	}},
	{"connections that come and go", func(t *testing.T, _ *rand.Rand, _ *attacker, d *daemon) {
		t.Helper()
		for range 40 {
			a := newAttacker(t, consensus.Regtest())
			a.greet(d, wireTip{})
			_ = a.h.Close()
		}
	}},
}

// TestE2EHostileReaders: many peers ask for all they may and read nothing. What
// the daemon holds for them is bounded, and others are served meanwhile.
func TestE2EHostileReaders(t *testing.T) {
	t.Parallel()
	p := consensus.Regtest()
	b := enginetest.NewBuilder(p)
	fat := make([]byte, 900_000)
	fat[0] = txscript.OP_RETURN
	tip := b.Genesis()
	var blocks []*consensus.Block
	for range 40 {
		tip = b.MineTemplate(tip, enginetest.Template{Script: fat})
		blocks = append(blocks, tip)
	}
	d := newDaemon(t, "server", "--network", "regtest")
	importBlocks(t, d, p, blocks)
	d.start()
	siege := besiege(t, d)
	var attackers []*attacker
	for range 40 {
		a := newAttacker(t, p)
		attackers = append(attackers, a)
		s, _ := a.greet(d, wireTip{})
		stream, err := a.open(s.Conn().RemotePeer(), a.id("blocks/1"))
		if err != nil {
			t.Fatal(err)
		}
		for i := range uint64(16) {
			if _, err := stream.Write(blocksMsg(i+1, 1, 40, tip.Hash, 1<<40)); err != nil {
				t.Logf("after %d requests: %v", i, err) // it need not bear who does not read
				break
			}
		}
	}
	honest := startDaemon(t, "honest", "--network", "regtest", "--bootstrap", d.addr())
	began := time.Now()
	honest.reaches(tip.Hash.String(), patience)
	t.Logf("an honest node synced 36 MB in %v beside 40 that do not read", time.Since(began).Round(time.Millisecond))
	for _, a := range attackers {
		_ = a.h.Close()
	}
	siege.lift(t, 200)
}
