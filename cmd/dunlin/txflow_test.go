package main

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/btcsuite/btcd/wire/v2"

	"dunlin/chain/consensus"
	"dunlin/chain/consensus/enginetest"
)

// change splits the coinbase at height 1 into n outputs in one block on top of the
// purse's chain, and returns n signed spends of them.
func (p *purse) change(n int) []*wire.MsgTx {
	params := consensus.Regtest()
	b := enginetest.NewBuilder(params)
	for _, block := range p.blocks {
		b.Add(block)
	}
	coin := p.blocks[0].Txs[0].MsgTx()
	split := enginetest.Spend(p.blocks[0], 0, 1_000_000, p.key.Script())
	each := split.TxOut[0].Value / int64(n)
	split.TxOut = nil
	for range n {
		split.AddTxOut(wire.NewTxOut(each, p.key.Script()))
	}
	p.key.Sign(split, []consensus.Coin{{Value: coin.TxOut[0].Value, Script: p.key.Script()}})
	p.blocks = append(p.blocks, b.Mine(p.blocks[len(p.blocks)-1], split))
	txs := make([]*wire.MsgTx, n)
	for i := range txs {
		tx := wire.NewMsgTx(2)
		tx.AddTxIn(wire.NewTxIn(&wire.OutPoint{Hash: split.TxHash(), Index: uint32(i)}, nil, nil))
		tx.AddTxOut(wire.NewTxOut(each-1000, p.key.Script()))
		p.key.Sign(tx, []consensus.Coin{{Value: each, Script: p.key.Script()}})
		txs[i] = tx
	}
	return txs
}

// holdsAtLast waits until a daemon's mempool has n transactions, however they come:
// what gossip loses is in a list some 10 s later.
func holdsAtLast(t *testing.T, d *daemon, n int) {
	t.Helper()
	eventually(t, patience, fmt.Sprintf("%s has %d transactions", d.name, n), func() error {
		s, err := d.status()
		if err == nil && s.Mempool.Count != n {
			err = fmt.Errorf("%d", s.Mempool.Count)
		}
		return err
	})
}

// TestE2ETxFlow: transactions handed in at all daemons of a network, at 50 a second
// in all, are in the mempool of each soon after the last; a newcomer gets them without
// anybody telling; a block has them all. What they cost in memory stays small.
func TestE2ETxFlow(t *testing.T) {
	t.Parallel()
	daemons, rate, flow := 4, 50, 150
	if slow {
		daemons, flow = 20, 1500
	}
	purse := newPurse(2)
	txs := purse.change(flow)
	first := newDaemon(t, "first", "--network", "regtest")
	importBlocks(t, first, consensus.Regtest(), purse.blocks)
	first.start()
	all := []*daemon{first}
	for i := 1; i < daemons; i++ {
		all = append(all, startDaemon(t, fmt.Sprint("d", i), "--network", "regtest", "--bootstrap", first.addr()))
	}
	tip := purse.blocks[len(purse.blocks)-1].Hash.String()
	for _, d := range all {
		d.reaches(tip, patience)
		knows(t, d, 2, patience)
	}
	before := make([]int64, len(all))
	for i, d := range all {
		before[i], _ = d.rss()
	}
	tick := time.NewTicker(time.Second / time.Duration(rate))
	defer tick.Stop()
	var handing sync.WaitGroup
	faults := make(chan error, flow)
	began := time.Now()
	for i, tx := range txs {
		<-tick.C
		handing.Go(func() {
			if err := all[i%len(all)].send(tx); err != nil {
				faults <- fmt.Errorf("%d: %w", i, err)
			}
		})
	}
	handing.Wait()
	close(faults)
	for err := range faults {
		t.Error(err)
	}
	took := time.Since(began)
	for _, d := range all {
		holdsAtLast(t, d, flow)
	}
	behind := time.Since(began) - took
	var most int64
	var line strings.Builder
	for i, d := range all {
		peak, err := d.peak()
		if err != nil {
			t.Error(err)
		}
		most = max(most, peak-before[i])
	}
	for _, name := range []string{"accepted", "ignored", "duplicate", "throttled"} {
		sum := 0.0
		for _, d := range all {
			n, err := d.metric(`dunlin_gossip_messages_total{result="` + name + `",topic="tx"}`)
			if err != nil {
				t.Error(err)
			}
			sum += n
		}
		each := sum / float64(flow*len(all))
		if name == "duplicate" {
			figure(t, "tx/daemons-copies", each)
		}
		fmt.Fprintf(&line, ", %.1f %s", each, name)
	}
	pulled := 0.0
	for _, d := range all {
		n, err := d.metric("dunlin_mempool_pulled_total")
		if err != nil {
			t.Error(err)
		}
		pulled += n
	}
	t.Logf("%d daemons, %d transactions at %d/s: everywhere %v after the last, %+d MB at most; of each at each%s; %.0f pulled from lists",
		len(all), flow, rate, behind.Round(time.Millisecond), most>>20, line.String(), pulled)
	figure(t, "tx/daemons", milliseconds(behind))
	figure(t, "tx/daemons-pulled", pulled)
	figure(t, "tx/daemons-memory", float64(most)/1e6)
	if most > slowness*100<<20 {
		t.Errorf("%d MB more than when idle", most>>20)
	}

	newcomer := startDaemon(t, "newcomer", "--network", "regtest", "--bootstrap", first.addr())
	holdsAtLast(t, newcomer, flow)
	made := all[len(all)-1].mine(1)
	for _, d := range append(all, newcomer) {
		d.reaches(made.Hash, patience)
		holdsAtLast(t, d, 0)
	}
	if err := alive(append(all, newcomer)...); err != nil {
		t.Error(err)
	}
}

// TestE2EReorgSpreads: two daemons that never met have different branches and
// different transactions. When they meet, both have the transactions of both: those
// of the mempools, and those of the blocks that one of them gave up.
func TestE2EReorgSpreads(t *testing.T) {
	t.Parallel()
	purse := newPurse(4)
	var ds []*daemon
	for _, name := range []string{"short", "long"} {
		d := newDaemon(t, name, "--network", "regtest")
		importBlocks(t, d, consensus.Regtest(), purse.blocks)
		d.start()
		ds = append(ds, d)
	}
	short, long := ds[0], ds[1]
	inBlock, waiting, theirs := purse.pay(1, 1000), purse.pay(2, 1000), purse.pay(3, 1000)
	short.mustSend(inBlock)
	short.mine(1)
	short.holds(0)
	short.mustSend(waiting)
	long.mustSend(theirs)
	made := long.mine(3)
	long.holds(0)
	long.mustSend(purse.pay(4, 1000))
	if err := short.client.AddPeer(t.Context(), long.addr()); err != nil {
		t.Fatal(err)
	}
	short.reaches(made.Hash, patience)
	holdsAtLast(t, short, 3) // of the block, of both mempools
	holdsAtLast(t, long, 3)
}
