package relay_test

import (
	"testing"
	"time"

	"dunlin/chain/consensus"
	"dunlin/chain/relay"
)

// A block of which everything is missing: whoever sent it is asked from the first
// transaction on and another from the last on; what comes in parts is served at once,
// and when the two have met the block is complete and both are told to stop.
func TestAssemblerParts(t *testing.T) {
	b := newBench(t, relay.AssemblerConfig{})
	blk := b.mine("x", 1, 700)
	b.step(relay.Peer{Peer: "other"})
	first, last := b.announce(t, blk)
	if first.Peer != "sender" || first.Backwards || last.Peer != "other" || !last.Backwards || len(last.Indexes) != 700 {
		t.Fatalf("asks %s (backwards %v) and %s (%v) for %d", first.Peer, first.Backwards, last.Peer, last.Backwards, len(last.Indexes))
	}
	served := func(from, to int) bool {
		txs, known, err := b.a.Txs(blk.Hash, indexes(from, to))
		if !known || err != nil {
			t.Fatalf("known %v, %v", known, err)
		}
		return txs != nil
	}
	if served(1, 129) {
		t.Error("serves what is not here")
	}
	b.step(b.some(blk, first.ID, 1, 129))
	if !served(1, 129) || served(1, 130) || served(572, 700) {
		t.Error("the first part is not served, or more")
	}
	b.step(b.some(blk, last.ID, 573, 701))
	if !served(573, 701) || served(572, 573) {
		t.Error("the last part is not served, or more")
	}
	b.step(relay.SomeTxs{ID: 99, Indexes: indexes(1, 2), Txs: [][]byte{{1}}}) // unknown: harmless
	b.now = b.now.Add(400 * time.Millisecond)
	b.step(b.some(blk, first.ID, 129, 400))
	var cancelled int
	for _, x := range b.step(b.some(blk, last.ID, 400, 573)) {
		if _, ok := x.(relay.Cancel); ok {
			cancelled++
		}
	}
	if b.ended[blk.Hash] != "delivered" || cancelled != 2 {
		t.Errorf("%q, %d requests withdrawn", b.ended[blk.Hash], cancelled)
	}
}

// While transactions come in the whole block is not asked for; it is when none has for a
// second, and after twice the time in any case: whoever sends them may have made them up.
func TestAssemblerWholeAfter(t *testing.T) {
	for name, c := range map[string]struct {
		parts int // one each half second
		want  time.Duration
	}{
		"nothing":   {0, 3 * time.Second},
		"a stall":   {7, 4500 * time.Millisecond}, // the last after 3.5 s
		"for ever":  {20, 6 * time.Second},
		"early end": {2, 3 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, relay.AssemblerConfig{})
			blk := b.mine("x", 1, 700)
			for _, p := range []string{"p", "q", "r", "s", "u"} {
				b.step(relay.Peer{Peer: p})
			}
			first, _ := b.announce(t, blk)
			began, whole := b.now, time.Duration(0)
			look := func(actions []relay.Action) {
				for _, x := range actions {
					if _, ok := x.(relay.AskBlock); ok && whole == 0 {
						whole = b.now.Sub(began)
					}
				}
			}
			for i := 1; whole == 0 && i < 100; i++ {
				b.now = began.Add(time.Duration(i) * 100 * time.Millisecond)
				look(b.step(relay.Tick{}))
				if n := i / 5; i%5 == 0 && n <= c.parts {
					look(b.step(b.some(blk, first.ID, n, n+1)))
				}
			}
			if whole != c.want {
				t.Errorf("asked for the whole block after %v, want %v", whole, c.want)
			}
		})
	}
}

// A part that does not fit is kept until the other peer has one that does; one that is
// no transaction ends the request and is blamed.
func TestAssemblerBadPart(t *testing.T) {
	for name, blamed := range map[string]bool{"another transaction": false, "garbage": true, "too few": true} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, relay.AssemblerConfig{})
			blk := b.mine("x", 1, 600)
			b.step(relay.Peer{Peer: "other"})
			first, last := b.announce(t, blk)
			part := b.some(blk, first.ID, 1, 65)
			switch name {
			case "garbage":
				part.Txs[3] = []byte{1, 2, 3}
			case "too few":
				part.Txs = part.Txs[:60]
			default:
				part.Txs[3] = part.Txs[4]
			}
			cancelled, blames := 0, 0
			for _, x := range b.step(part) {
				switch x := x.(type) {
				case relay.Cancel:
					if x.ID != first.ID {
						t.Errorf("withdraws %d", x.ID)
					}
					cancelled++
				case relay.Blame:
					if x.Peer != "sender" {
						t.Errorf("blames %s", x.Peer)
					}
					blames++
				}
			}
			if (cancelled == 1) != blamed || (blames == 1) != blamed {
				t.Errorf("%d requests withdrawn, %d blamed", cancelled, blames)
			}
			if txs, _, _ := b.a.Txs(blk.Hash, indexes(4, 5)); txs != nil {
				t.Error("serves what does not fit")
			}
			b.step(b.some(blk, last.ID, 300, 601))
			b.step(b.some(blk, last.ID, 1, 300))
			if b.ended[blk.Hash] != "delivered" {
				t.Error("not delivered")
			}
		})
	}
}

// Short ids of other transactions, and an answer in parts: none fits, and together
// they are the block.
func TestAssemblerOddParts(t *testing.T) {
	t.Parallel()
	b := newBench(t, relay.AssemblerConfig{})
	blk := b.mine("x", 1, 90)
	b.step(relay.Announced{From: "sender", Block: b.spoilt(blk, 1, nil, "ids"), Relayed: true})
	b.step(relay.Peer{Peer: "other"})
	b.step(b.some(blk, 1, 1, 30))
	b.step(b.some(blk, 1, 30, 60))
	if txs, known, _ := b.a.Txs(blk.Hash, indexes(1, 2)); txs != nil || !known {
		t.Error("serves what does not fit")
	}
	if b.step(b.some(blk, 1, 60, 91)); b.ended[blk.Hash] != "delivered" {
		t.Error("not delivered")
	}
	// The same, but that it breaks off: another is asked for all.
	blk = b.mine("y", 2, 90)
	b.step(relay.Announced{From: "sender", Block: b.spoilt(blk, 1, nil, "ids"), Relayed: true})
	b.step(b.some(blk, 2, 1, 60))
	for _, x := range b.step(relay.Failed{ID: 2, Why: relay.Broken}) {
		if k, ok := x.(relay.AskTxs); !ok || k.Peer != "other" || len(k.Indexes) != 90 {
			t.Errorf("then %+v", x)
		}
	}
}

// announce has "sender" announce a block, and returns the two requests that follow.
func (b *bench) announce(t *testing.T, blk *consensus.Block) (first, last relay.AskTxs) {
	t.Helper()
	msg, err := relay.MakeCompact(b.w.b.Params, blk.Raw, 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	var asks []relay.AskTxs
	for _, x := range b.step(relay.Announced{From: "sender", Block: b.decode(msg)}) {
		if k, ok := x.(relay.AskTxs); ok {
			asks = append(asks, k)
		}
	}
	if len(asks) != 2 {
		t.Fatalf("%d requests, want 2", len(asks))
	}
	return asks[0], asks[1]
}

// some is a part of an honest answer.
func (b *bench) some(blk *consensus.Block, id uint64, from, to int) relay.SomeTxs {
	b.tb.Helper()
	e := relay.SomeTxs{ID: id, Indexes: indexes(from, to)}
	for _, i := range e.Indexes {
		e.Txs = append(e.Txs, encode(b.tb, blk.Txs[i].MsgTx()))
	}
	return e
}

func indexes(from, to int) (out []uint32) {
	for i := from; i < to; i++ {
		out = append(out, uint32(i))
	}
	return out
}
