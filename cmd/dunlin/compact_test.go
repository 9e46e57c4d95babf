package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/btcsuite/btcd/wire/v2"

	"dunlin/chain/consensus"
	"dunlin/chain/relay"
)

// fanOut spends the coinbase at a height to so many outputs.
func (p *purse) fanOut(height, outs int) *wire.MsgTx {
	from := p.blocks[height-1].Txs[0].MsgTx()
	tx := wire.NewMsgTx(2)
	tx.AddTxIn(wire.NewTxIn(&wire.OutPoint{Hash: from.TxHash()}, nil, nil))
	for range outs {
		tx.AddTxOut(wire.NewTxOut((from.TxOut[0].Value-100_000)/int64(outs), p.key.Script()))
	}
	p.key.Sign(tx, []consensus.Coin{{Value: from.TxOut[0].Value, Script: p.key.Script()}})
	return tx
}

// completion is what a daemon's log says of a block that it completed.
type completion struct {
	Msg, Hash, How         string
	Txs, Prefilled, Pulled int
}

func (d *daemon) completed(hash string) (c completion) {
	d.t.Helper()
	eventually(d.t, patience, d.name+" tells of block "+hash, func() error {
		for line := range strings.Lines(d.log.String()) {
			var l completion
			if json.Unmarshal([]byte(line), &l) == nil && l.Msg == "block complete" && l.Hash == hash {
				c = l
				return nil
			}
		}
		return fmt.Errorf("it does not")
	})
	return c
}

// meshed waits until a daemon has neighbours on the block topic.
func (d *daemon) meshed(n int) {
	d.t.Helper()
	eventually(d.t, patience, fmt.Sprintf("%s has %d neighbours", d.name, n), func() error {
		s, err := d.status()
		if err == nil && s.Gossip.BlockMesh < n {
			err = fmt.Errorf("%d", s.Gossip.BlockMesh)
		}
		return err
	})
}

// aged waits until a transaction is so old that it is not sent along with a compact block.
func aged(t *testing.T, d *daemon, txid string) {
	t.Helper()
	eventually(t, patience, "the last transaction is some time old", func() error {
		tx, err := d.client.Tx(t.Context(), txid)
		if age := time.Since(tx.Time); err == nil && age < time.Second {
			err = fmt.Errorf("%v", age)
		}
		return err
	})
}

// TestE2ECompactBlocks: a block of more than 64 KiB travels compact. Who has its
// transactions puts it together without asking anybody, who has none of them asks
// for all, and who has all but one asks for that.
func TestE2ECompactBlocks(t *testing.T) {
	t.Parallel()
	const txs, outs = 30, 90
	p := newPurse(txs + 1)
	args := []string{"--network", "regtest", "--log-format", "json", "--log-level", "debug"}
	start := func(name string, more ...string) *daemon {
		d := newDaemon(t, name, append(args, more...)...)
		importBlocks(t, d, consensus.Regtest(), p.blocks)
		// Mempools are not followed: who was not there when a transaction came has none.
		if err := os.WriteFile(filepath.Join(d.home, "config.toml"), []byte("network = 'regtest'\n[mempool]\nsync_mb = 0\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		d.start()
		return d
	}
	maker := start("maker")
	warm := start("warm", "--bootstrap", maker.addr())
	knows(t, maker, 1, patience)
	for i := range txs {
		maker.mustSend(p.fanOut(i+1, outs))
	}
	warm.holds(txs)
	aged(t, maker, p.fanOut(txs, outs).TxHash().String())
	cold := start("cold", "--bootstrap", maker.addr(), "--bootstrap", warm.addr())
	knows(t, cold, 2, patience)
	for _, d := range []*daemon{maker, warm, cold} {
		d.meshed(2)
	}

	b := maker.mine(1)
	if b.Size < relay.WholeBelow {
		t.Fatalf("the block has %d bytes, compact are those from %d", b.Size, relay.WholeBelow)
	}
	for _, d := range []*daemon{warm, cold} {
		d.reaches(b.Hash, patience)
	}
	if c := warm.completed(b.Hash); c.How != "compact" || c.Txs != txs+1 || c.Pulled > 0 {
		t.Errorf("with a full mempool: %+v", c)
	}
	if c := cold.completed(b.Hash); c.How != "compact" || c.Pulled+c.Prefilled < txs {
		t.Errorf("with an empty mempool: %+v", c)
	}
}

// TestE2ENoSilence: whoever joins is not left without the latest block, whenever that
// was made: before there was anybody to tell, or in the moment in which it joined. What
// nobody told would come with the tips that are repeated every 30 s.
func TestE2ENoSilence(t *testing.T) {
	t.Parallel()
	maker := startDaemon(t, "maker", "--network", "regtest")
	tip := maker.mine(1)
	for i := range 3 {
		d := newDaemon(t, fmt.Sprint("joiner", i), "--network", "regtest", "--bootstrap", maker.addr())
		d.start()
		for range 10 * i { // none is made, some are, while hands are shaken
			tip = maker.mine(1)
		}
		d.reaches(tip.Hash, soon)
	}
}
