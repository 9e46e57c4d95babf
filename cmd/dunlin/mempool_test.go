package main

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/btcsuite/btcd/wire/v2"
	"github.com/coder/websocket"

	"dunlin/chain/consensus"
	"dunlin/chain/consensus/enginetest"
	"dunlin/internal/api"
)

// A purse owns the coinbases of a chain of blocks.
type purse struct {
	key    *enginetest.Key
	blocks []*consensus.Block // from height 1 on
}

// newPurse makes a regtest chain with some spendable coinbases.
func newPurse(spendable int) *purse {
	b := enginetest.NewBuilder(consensus.Regtest())
	p := &purse{key: enginetest.NewKey(1)}
	tip := b.Genesis()
	for range spendable + 100 {
		tip = b.MineTemplate(tip, enginetest.Template{Script: p.key.Script()})
		p.blocks = append(p.blocks, tip)
	}
	return p
}

// pay spends the coinbase at a height; fees make different transactions of it.
func (p *purse) pay(height int, fee int64) *wire.MsgTx {
	tx := enginetest.Spend(p.blocks[height-1], 0, fee, p.key.Script())
	p.key.Sign(tx, []consensus.Coin{{Value: p.blocks[height-1].Txs[0].MsgTx().TxOut[0].Value, Script: p.key.Script()}})
	return tx
}

// spend spends the first output of a transaction.
func (p *purse) spend(from *wire.MsgTx, fee int64) *wire.MsgTx {
	tx := wire.NewMsgTx(2)
	tx.AddTxIn(wire.NewTxIn(&wire.OutPoint{Hash: from.TxHash()}, nil, nil))
	tx.AddTxOut(wire.NewTxOut(from.TxOut[0].Value-fee, p.key.Script()))
	p.key.Sign(tx, []consensus.Coin{{Value: from.TxOut[0].Value, Script: p.key.Script()}})
	return tx
}

// send hands a transaction in.
func (d *daemon) send(tx *wire.MsgTx) error {
	ctx, cancel := context.WithTimeout(d.t.Context(), patience)
	defer cancel()
	_, err := d.client.SubmitTx(ctx, hex.EncodeToString(serialised(tx)))
	return err
}

func (d *daemon) mustSend(txs ...*wire.MsgTx) {
	d.t.Helper()
	for _, tx := range txs {
		if err := d.send(tx); err != nil {
			d.t.Fatalf("send at %s: %v", d.name, err)
		}
	}
}

// holds waits until the mempool has so many transactions.
func (d *daemon) holds(n int) {
	d.t.Helper()
	eventually(d.t, patience, fmt.Sprintf("%s has %d transactions", d.name, n), func() error {
		s, err := d.status()
		if err == nil && s.Mempool.Count != n {
			err = fmt.Errorf("%d", s.Mempool.Count)
		}
		return err
	})
}

// TestE2EDoubleSpend: a shop is paid and the payment is confirmed; elsewhere a
// longer branch spends the coin otherwise. When the two meet, the shop is told, in
// its log, by its subscription, and whenever it asks, also after a restart.
func TestE2EDoubleSpend(t *testing.T) {
	t.Parallel()
	p := newPurse(3)
	shop, thief := newDaemon(t, "shop", "--network", "regtest"), newDaemon(t, "thief", "--network", "regtest")
	for _, d := range []*daemon{shop, thief} {
		importBlocks(t, d, consensus.Regtest(), p.blocks)
		d.start()
	}
	payment := p.pay(1, 1000)
	child := p.spend(payment, 1000)
	shop.mustSend(payment)
	theft := p.pay(1, 900)
	if err := shop.send(theft); err == nil || !strings.Contains(err.Error(), payment.TxHash().String()) {
		t.Errorf("a double spend: %v", err)
	}
	sold := shop.mine(1)
	shop.mustSend(child)
	show := func(tx *wire.MsgTx) string {
		t.Helper()
		out, errs, code := dunlin(t, nil, "tx", "show", tx.TxHash().String(), "--home", shop.home)
		if code != 0 {
			t.Fatalf("exit %d: %s", code, errs)
		}
		return out
	}
	if out := show(payment); !strings.Contains(out, "confirmed in block 104, 1 confirmations") {
		t.Errorf("paid: %s", out)
	}
	if out := show(child); !strings.Contains(out, "in the mempool since") {
		t.Errorf("child: %s", out)
	}
	if err := shop.send(theft); err == nil || !strings.Contains(err.Error(), "missing-inputs") {
		t.Errorf("a double spend of what is confirmed: %v", err)
	}
	thief.mustSend(theft)
	thief.mine(2)

	token, err := api.ReadToken(shop.home)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	conn, _, err := websocket.Dial(ctx, "ws://"+shop.info.RPCAddr+"/ws?token="+token, nil) //nolint:bodyclose // a WebSocket has none
	if err != nil {
		t.Fatal(err)
	}
	defer conn.CloseNow()
	read := func(v any) {
		t.Helper()
		_, raw, err := conn.Read(ctx)
		if err == nil {
			err = json.Unmarshal(raw, v)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := conn.Write(ctx, websocket.MessageText, []byte(`{"op":"subscribe","args":{"topics":["lost"]}}`)); err != nil {
		t.Fatal(err)
	}
	var reply struct{ Status int }
	if read(&reply); reply.Status != 200 {
		t.Fatalf("subscription: %+v", reply)
	}
	if err := shop.client.AddPeer(ctx, thief.addr()); err != nil {
		t.Fatal(err)
	}
	shop.reaches(thief.mustStatus().TipHash, patience)

	var told []api.Tx
	for range 2 {
		var event struct {
			Event string
			Data  api.Tx
		}
		read(&event)
		if event.Event != "tx_lost" {
			t.Errorf("event %q", event.Event)
		}
		told = append(told, event.Data)
	}
	for i, tx := range []*wire.MsgTx{payment, child} {
		got := told[i]
		if got.TxID != tx.TxHash().String() || got.Status != api.TxConflicted || got.SpentBy != theft.TxHash().String() || got.Height != 104 || got.Confirmations != 2 {
			t.Errorf("told: %+v", got)
		}
	}
	if told[0].WasBlock != sold.Hash || told[1].WasBlock != "" || told[1].Via != payment.TxHash().String() {
		t.Errorf("told: %+v", told)
	}
	check := func() {
		t.Helper()
		for _, tx := range []*wire.MsgTx{payment, child} {
			if out := show(tx); !strings.Contains(out, "conflicted by "+theft.TxHash().String()+" in block 104, 2 confirmations") {
				t.Errorf("lost: %s", out)
			}
		}
	}
	check()
	if out := show(theft); !strings.Contains(out, "confirmed in block 104") {
		t.Errorf("theft: %s", out)
	}
	eventually(t, patience, "the log tells of it", func() error {
		for line := range strings.Lines(shop.log.String()) {
			if strings.Contains(line, "payment lost") && strings.Contains(line, payment.TxHash().String()) && strings.Contains(line, "others=1") {
				return nil
			}
		}
		return fmt.Errorf("it does not")
	})
	shop.stop()
	shop.start()
	eventually(t, patience, "the fate is remembered", func() error {
		_, err := shop.client.Tx(ctx, payment.TxHash().String())
		return err
	})
	check()
	out, errs, code := dunlin(t, nil, "tx", "show", strings.Repeat("7", 64), "--home", shop.home)
	if code != 1 || !strings.Contains(errs, "is not in the mempool") {
		t.Errorf("an unknown one: exit %d, %s%s", code, out, errs)
	}
}

// TestE2EMempoolSurvives: unconfirmed transactions outlive kill -9 and an orderly
// stop; what was made here while nobody listened is told to the first peer, also
// after that; a damaged file is named, set aside, and no more.
func TestE2EMempoolSurvives(t *testing.T) {
	t.Parallel()
	p := newPurse(5)
	d := newDaemon(t, "d", "--network", "regtest")
	importBlocks(t, d, consensus.Regtest(), p.blocks)
	d.start()
	first := p.pay(1, 1000)
	d.mustSend(first, p.spend(first, 1000), p.pay(2, 1000))
	file := filepath.Join(d.home, "mempool.dat")
	eventually(t, patience, "the mempool is on disk", func() error {
		raw, err := os.ReadFile(file)
		if err == nil && strings.Count(string(raw), string(p.key.Script()[2:])) < 3 {
			err = fmt.Errorf("not all of it: %d bytes", len(raw))
		}
		return err
	})
	d.kill9()
	d.start()
	d.holds(3)
	d.mustSend(p.pay(3, 1000))
	d.stop()
	d.start()
	d.holds(4)
	peer := newDaemon(t, "peer", "--network", "regtest", "--bootstrap", d.addr())
	importBlocks(t, peer, consensus.Regtest(), p.blocks)
	peer.start()
	peer.holds(4)
	d.mine(1)
	d.holds(0)
	peer.stop()

	d.mustSend(p.pay(4, 1000))
	d.stop()
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	raw[len(raw)/2] ^= 1
	if err := os.WriteFile(file, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	d.start()
	eventually(t, patience, "the damage is named", func() error {
		if !strings.Contains(d.log.String(), "mempool file set aside") {
			return fmt.Errorf("not in the log")
		}
		return nil
	})
	if aside, err := os.ReadFile(file + ".aside"); err != nil || !slices.Equal(aside, raw) {
		t.Errorf("set aside: %d bytes, %v", len(aside), err)
	}
	d.mine(1)
}

// TestE2EParentsAreAskedFor: a daemon that joins late hears of a transaction by
// gossip whose unconfirmed ancestors were told before it came: it asks for them.
func TestE2EParentsAreAskedFor(t *testing.T) {
	t.Parallel()
	p := newPurse(1)
	join := func(name string, args ...string) *daemon {
		d := newDaemon(t, name, append([]string{"--network", "regtest"}, args...)...)
		importBlocks(t, d, consensus.Regtest(), p.blocks)
		d.start()
		return d
	}
	a := join("a")
	b := join("b", "--bootstrap", a.addr())
	first := p.pay(1, 1000)
	second := p.spend(first, 1000)
	a.mustSend(first, second)
	b.holds(2) // told: a does not tell it again
	late := join("late", "--bootstrap", a.addr())
	eventually(t, patience, "the late one is synced", func() error { // before, it does not listen
		s, err := late.status()
		if err == nil && (s.Sync.State != api.StateSynced || s.Peers.Outbound == 0) {
			err = fmt.Errorf("%s, %d peers", s.Sync.State, s.Peers.Outbound)
		}
		return err
	})
	a.mustSend(p.spend(second, 1000))
	late.holds(3)
	b.holds(3)
}
