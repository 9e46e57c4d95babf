package main

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/txscript/v2"
	"github.com/btcsuite/btcd/wire/v2"
	"github.com/klauspost/compress/zstd"
	"github.com/libp2p/go-libp2p/core/network"

	"dunlin/chain/consensus"
	"dunlin/chain/consensus/enginetest"
)

// realBranch is Bitcoin's first 14,131 blocks.
func realBranch(t *testing.T) *branch {
	t.Helper()
	f, err := os.Open(testData(t, "chain/mainnet-blocks-0-14131.dat.zst"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := zstd.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	var raws [][]byte
	for in := bufio.NewReader(z); ; {
		var head [8]byte
		if _, err := io.ReadFull(in, head[:]); errors.Is(err, io.EOF) {
			return newBranch(consensus.Bitcoin(), raws[1:]) // without genesis
		} else if err != nil {
			t.Fatal(err)
		}
		raw := make([]byte, binary.LittleEndian.Uint32(head[4:]))
		if _, err := io.ReadFull(in, raw); err != nil {
			t.Fatal(err)
		}
		raws = append(raws, raw)
	}
}

// TestE2EHostileCaps counts at six peers with long round trips what a syncing
// daemon has asked of them and not got yet: never more than its promise.
func TestE2EHostileCaps(t *testing.T) {
	t.Parallel()
	fat := make([]byte, 900_000)
	fat[0] = txscript.OP_RETURN
	b := enginetest.NewBuilder(consensus.Regtest())
	tip := b.Genesis()
	var large []*consensus.Block
	for range 150 / slowness {
		tip = b.MineTemplate(tip, enginetest.Template{Script: fat})
		large = append(large, tip)
	}
	for _, tc := range []struct {
		name   string
		branch *branch
		delay  time.Duration
	}{
		{"real blocks", realBranch(t), 200 * time.Millisecond},
		{"blocks of 900 kB", branchOf(b.Params, large), 400 * time.Millisecond},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			var all tally
			var peers []*liar
			args := []string{"--network", tc.branch.params.Name}
			for range 6 {
				l := newLiar(t, tc.branch)
				l.delay, l.asked = tc.delay, &asked{all: &all}
				peers = append(peers, l.serve())
				args = append(args, "--bootstrap", l.addr())
			}
			d := startDaemon(t, "victim", args...)
			began := time.Now()
			d.reaches(tc.branch.hashes[len(tc.branch.hashes)-1].String(), patience)
			t.Logf("%d blocks in %v", len(tc.branch.raws), time.Since(began).Round(time.Millisecond))
			for i, l := range peers {
				own := &l.asked.own
				t.Logf("peer %d: at most %d requests and %.1f MiB", i, own.maxRequests, float64(own.maxByte)/(1<<20))
				if own.maxRequests > 16 || own.maxByte > 16<<20 {
					t.Errorf("peer %d was asked for %d requests and %d bytes at once", i, own.maxRequests, own.maxByte)
				}
			}
			t.Logf("all: at most %d requests and %.1f MiB", all.maxRequests, float64(all.maxByte)/(1<<20))
			if all.maxRequests > 128 || all.maxByte > 64<<20 {
				t.Errorf("all peers were asked for %d requests and %d bytes at once", all.maxRequests, all.maxByte)
			}
		})
	}
}

// ledger is a regtest chain with transactions, and what a liar makes of it.
type ledger struct {
	b      *enginetest.Builder
	blocks []*consensus.Block
	plain  int // a height whose block has three transactions without witness
	signed int // a height whose block has a witness
}

const ledgerBlocks = 2000

// newLedger makes the chain; most of its blocks have filler bytes more.
func newLedger(filler int) *ledger {
	l := &ledger{b: enginetest.NewBuilder(consensus.Regtest())}
	key := enginetest.NewKey(1)
	fill := make([]byte, filler)
	tip := l.b.Genesis()
	for h := 1; h <= ledgerBlocks; h++ {
		var t enginetest.Template
		if mod := h % 40; filler > 0 && mod != 31 && mod != 35 && mod != 36 { // those are spent
			fill[0] = txscript.OP_RETURN
			t.Script = fill
		}
		switch {
		case h%40 == 1:
			t.Script = key.Script()
		case h > 200 && h%40 == 10: // the block at h-129 pays the key
			from := l.blocks[h-129-1]
			tx := enginetest.Spend(from, 0, 1000)
			key.Sign(tx, []consensus.Coin{{Value: from.Txs[0].MsgTx().TxOut[0].Value, Script: key.Script()}})
			t.Txs = []*wire.MsgTx{tx}
			l.signed = h
		case h > 200 && h%40 == 20:
			t.Txs = []*wire.MsgTx{enginetest.Spend(l.blocks[h-105-1], 0, 0), enginetest.Spend(l.blocks[h-104-1], 0, 0)}
			l.plain = h
		}
		tip = l.b.MineTemplate(tip, t)
		l.blocks = append(l.blocks, tip)
	}
	return l
}

// mutant is a block with the same header: the last transaction twice, or no witnesses.
func (l *ledger) mutant(height int) []byte {
	b := l.blocks[height-1]
	var txs []*wire.MsgTx
	witness := false
	for _, tx := range b.Txs {
		c := tx.MsgTx().Copy()
		for _, in := range c.TxIn {
			witness = witness || len(in.Witness) > 0
			in.Witness = nil
		}
		txs = append(txs, c)
	}
	switch {
	case witness:
	case len(txs) == 3:
		txs = append(txs, txs[2])
	default:
		return b.Raw
	}
	m, err := consensus.NewBlock(l.b.Params, b.Header, txs)
	if err != nil {
		panic(err)
	}
	return m.Raw
}

// fork is the ledger up to height at, then n other blocks, of which the first has
// an invalid transaction if it is to be.
func (l *ledger) fork(at, n int, invalid bool) *branch {
	blocks := append([]*consensus.Block(nil), l.blocks[:at]...)
	t := enginetest.Template{Data: "fork"}
	if invalid {
		t.Txs = []*wire.MsgTx{enginetest.Spend(l.blocks[at-150], 0, -1000)} // creates coins
	}
	tip := l.b.MineTemplate(blocks[at-1], t)
	blocks = append(blocks, tip)
	return branchOf(l.b.Params, append(blocks, l.b.MineN(tip, n-1)...))
}

// badHeader changes the header of a copy of raw.
func badHeader(raw []byte, change func(h []byte)) []byte {
	c := append([]byte(nil), raw[:consensus.HeaderBytes]...)
	change(c)
	return c
}

// TestE2EHostileHeaders: a peer sends headers without end, as cheap as regtest has
// them. It says what they cost; on a network with mainnet work each costs its sender
// a proof.
func TestE2EHostileHeaders(t *testing.T) {
	t.Parallel()
	most := int64(100_000)
	if slow {
		most = 1_000_000
	}
	p := consensus.Regtest()
	b := enginetest.NewBuilder(p)
	x := newLiar(t, branchOf(p, b.MineN(b.Genesis(), 1)))
	var sent atomic.Int64
	var mu sync.Mutex
	last, at := p.GenesisHash, uint32(p.GenesisBlock().Header.Timestamp.Unix())
	x.claim = func() wireTip {
		return wireTip{height: 1<<31 - 1, hash: chainhash.Hash{1}, work: []byte{1, 0, 0, 0, 0, 0, 0, 0}}
	}
	x.headers = func(s network.Stream, _ int) error {
		mu.Lock()
		defer mu.Unlock()
		if sent.Load() >= most {
			return x.sendHeaders(s, int(sent.Load()), nil)
		}
		raws := make([][]byte, 2000)
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
		err := x.sendHeaders(s, int(sent.Load()), raws)
		sent.Add(int64(len(raws)))
		return err
	}
	x.serve()
	d := startDaemon(t, "victim", "--network", "regtest")
	honest := startDaemon(t, "honest", "--network", "regtest", "--bootstrap", d.addr())
	siege := besiege(t, d)
	siege.memory += slowness * 400 * most // the gate has room for 1.3 million
	if err := d.client.AddPeer(t.Context(), x.addr()); err != nil {
		t.Fatal(err)
	}
	eventually(t, patience, "headers taken", func() error {
		s, err := d.status()
		if err == nil && int64(s.HeaderHeight) < most {
			err = fmt.Errorf("%d headers", s.HeaderHeight)
		}
		return err
	})
	rss, _ := d.rss()
	t.Logf("%d headers: %+d MB, %d bytes a header", most, (rss-siege.idleRSS)>>20, (rss-siege.idleRSS)/most)
	// An honest block still spreads: the chain that can be had wins.
	last2 := honest.mine(2)
	d.reaches(last2.Hash, patience)
	_ = x.h.Close()
	siege.lift(t, 200)
}
