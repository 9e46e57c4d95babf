package main

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/wire/v2"
	pubsub "github.com/libp2p/go-libp2p-pubsub"
	pb "github.com/libp2p/go-libp2p-pubsub/pb"

	"dunlin/chain/consensus"
	"dunlin/chain/consensus/enginetest"
	"dunlin/internal/api"
)

// shouter is an attacker on both topics.
type shouter struct {
	*attacker
	block, tx *pubsub.Topic
}

// newShouter joins the topics and connects to ds, greeting them.
func newShouter(t *testing.T, p *consensus.Params, ds ...*daemon) *shouter {
	t.Helper()
	x := &shouter{attacker: newAttacker(t, p)}
	ps, err := pubsub.NewGossipSub(t.Context(), x.h,
		pubsub.WithMessageSignaturePolicy(pubsub.StrictNoSign), pubsub.WithNoAuthor(),
		pubsub.WithMessageIdFn(func(m *pb.Message) string { id := sha256.Sum256(m.GetData()); return string(id[:]) }),
		pubsub.WithMaxMessageSize(16<<20), pubsub.WithPeerOutboundQueueSize(4096), pubsub.WithFloodPublish(true))
	if err != nil {
		t.Fatal(err)
	}
	for name, to := range map[string]**pubsub.Topic{"block/1": &x.block, "tx/1": &x.tx} {
		if *to, err = ps.Join(string(x.id(name))); err != nil {
			t.Fatal(err)
		}
		if _, err := (*to).Subscribe(); err != nil {
			t.Fatal(err)
		}
	}
	for _, d := range ds {
		x.greet(d, wireTip{hash: p.GenesisHash})
	}
	eventually(t, patience, "the attacker is on the topics", func() error {
		if n := len(x.block.ListPeers()); n < len(ds) {
			return fmt.Errorf("%d peers", n)
		}
		return nil
	})
	return x
}

func (x *shouter) shout(topic *pubsub.Topic, data []byte) {
	_ = topic.Publish(x.t.Context(), data) // it may have been thrown out by now
}

// whole is the message of the block topic that carries raw.
func whole(raw []byte) []byte { return append([]byte{0}, raw...) }

func serialised(tx *wire.MsgTx) []byte {
	var b bytes.Buffer
	if err := tx.Serialize(&b); err != nil {
		panic(err)
	}
	return b.Bytes()
}

// TestE2EHostileGossip floods the topics of three daemons in a line with all that
// is worthless, by a fresh attacker each. Honest blocks arrive everywhere soon
// meanwhile.
func TestE2EHostileGossip(t *testing.T) {
	t.Parallel()
	rng := hostileSeed(t)
	p := consensus.Regtest()
	b := enginetest.NewBuilder(p)
	base := b.MineN(b.Genesis(), 120)
	tip := base[len(base)-1]
	a := newDaemon(t, "a", "--network", "regtest")
	importBlocks(t, a, p, base)
	a.start()
	line := []*daemon{a}
	for _, name := range []string{"b", "c"} {
		line = append(line, startDaemon(t, name, "--network", "regtest", "--bootstrap", line[len(line)-1].addr()))
	}
	for _, d := range line {
		d.reaches(tip.Hash.String(), patience)
		knows(t, d, 2, patience)
	}
	sieges := make([]*siege, len(line))
	for i, d := range line {
		sieges[i] = besiege(t, d)
	}
	// agree mines at each end in turn and waits for everybody.
	turn := 0
	agree := func(t *testing.T, what string) {
		t.Helper()
		from := line[turn%len(line)]
		turn++
		made := from.mine(1)
		began := time.Now()
		for _, d := range line {
			d.reaches(made.Hash, soon)
		}
		t.Logf("%s: an honest block was everywhere after %v", what, time.Since(began).Round(time.Millisecond))
	}
	// The first attack extends the tip: its header is good, a transaction is not.
	x := newShouter(t, p, line...)
	bad := b.Mine(tip, enginetest.Spend(base[3], 0, -1))
	x.shout(x.block, whole(bad.Raw))
	for _, d := range line {
		eventually(t, patience, d.name+" refuses a block with an invalid transaction", func() error {
			tips, err := d.client.Tips(t.Context())
			if err == nil && !slices.ContainsFunc(tips, func(c api.ChainTip) bool { return c.Hash == bad.Hash.String() && c.Status == "invalid" }) {
				err = fmt.Errorf("tips %+v", tips)
			}
			return err
		})
	}
	_ = x.h.Close()
	agree(t, "a block with an invalid transaction")

	// A rival branch of the attacker, valid but with little work.
	fork := b.MineTemplate(base[100], enginetest.Template{Data: "rival"})
	mutable := b.Mine(tip, enginetest.Spend(base[0], 0, 0), enginetest.Spend(base[1], 0, 0))
	mutant, err := consensus.NewBlock(p, mutable.Header, append(msgTxs(mutable), mutable.Txs[2].MsgTx()))
	if err != nil {
		t.Fatal(err)
	}
	// refusals says whether any of the daemons counted a refusal for the reason.
	refusals := func(reason string) error {
		var errs []error
		for _, d := range line {
			n, err := d.metric("dunlin_gossip_refused_total{" + reason + "}")
			if err == nil && n > 0 {
				return nil
			}
			errs = append(errs, err)
		}
		return fmt.Errorf("no refusal was counted for %s: %w", reason, errors.Join(errs...))
	}
	// counted is why messages of an attack are refused.
	counted := map[string]string{
		"blocks of unknown parents":          `reason="unknown-parent",result="ignored",topic="block"`,
		"blocks without proof of work":       `reason="high-hash",result="rejected",topic="block"`,
		"a mutated block, then the real one": `reason="mutated",result="rejected",topic="block"`,
		"transactions that claim much":       `reason="bad-encoding",result="rejected",topic="tx"`,
	}
	for _, attack := range []struct {
		name string
		run  func(x *shouter)
	}{
		{"garbage", func(x *shouter) {
			for range 300 {
				x.shout(x.block, randomBytes(rng, 1+rng.IntN(3000)))
				x.shout(x.tx, randomBytes(rng, 1+rng.IntN(3000)))
			}
		}},
		{"messages over the limit", func(x *shouter) {
			for range 4 {
				x.shout(x.block, randomBytes(rng, 5<<20))
				x.shout(x.tx, randomBytes(rng, 500_000))
			}
		}},
		{"blocks of unknown parents", func(x *shouter) {
			for range 500 {
				raw := bytes.Clone(tip.Raw)
				copy(raw[4:36], randomBytes(rng, 32))
				x.shout(x.block, whole(raw))
			}
		}},
		{"blocks without proof of work", func(x *shouter) {
			for range 200 {
				raw := bytes.Clone(tip.Raw)
				for {
					copy(raw[36:68], randomBytes(rng, 32))
					if h := chainhash.DoubleHashH(raw[:consensus.HeaderBytes]); h[31] >= 0x80 {
						break
					}
				}
				x.shout(x.block, whole(raw))
			}
		}},
		{"ten blocks of one height", func(x *shouter) {
			for i := range 10 {
				x.shout(x.block, whole(b.MineTemplate(base[110], enginetest.Template{Data: fmt.Sprint("twin ", i)}).Raw))
			}
		}},
		{"a mutated block, then the real one", func(x *shouter) {
			x.shout(x.block, whole(mutant.Raw))
			eventually(t, patience, "the mutated copy is refused", func() error {
				return refusals(`reason="mutated",result="rejected",topic="block"`)
			})
			x.shout(x.block, whole(mutable.Raw))
		}},
		{"old blocks", func(x *shouter) {
			for range 3 {
				for i, k := range base[:100] {
					x.shout(x.block, append(whole(k.Raw), make([]byte, i%2)...))
				}
			}
			x.shout(x.block, whole(fork.Raw))
		}},
		{"other encodings and trailing bytes", func(x *shouter) {
			for i := range 200 {
				x.shout(x.block, append([]byte{byte(i)}, append(bytes.Clone(tip.Raw), byte(i))...))
			}
		}},
		{"transactions that claim much", func(x *shouter) {
			for range 200 {
				x.shout(x.tx, append([]byte{2, 0, 0, 0, 0xfe, 0xff, 0xff, byte(rng.Uint32()), 0}, randomBytes(rng, 40)...))
			}
		}},
		{"invalid transactions", func(x *shouter) {
			for i := range 200 {
				tx := enginetest.Spend(base[i%10], 0, -int64(i)-1)
				x.shout(x.tx, serialised(tx))
			}
		}},
		{"orphans", func(x *shouter) {
			for range 2000 {
				x.shout(x.tx, serialised(orphanTx(rng, 100)))
			}
		}},
		{"large orphans", func(x *shouter) {
			for range 200 {
				x.shout(x.tx, serialised(orphanTx(rng, 90_000)))
			}
		}},
		{"double spends", func(x *shouter) {
			for i := range 200 {
				x.shout(x.tx, serialised(enginetest.Spend(base[12], 0, 100_000+int64(i))))
			}
		}},
	} {
		x := newShouter(t, p, line...)
		attack.run(x)
		agree(t, attack.name)
		if err := alive(line...); err != nil {
			t.Errorf("%s: %v", attack.name, err)
		}
		if reason := counted[attack.name]; reason != "" { // before what is on its way goes with the attacker
			eventually(t, patience, attack.name, func() error { return refusals(reason) })
		}
		_ = x.h.Close()
	}
	for _, topic := range []string{"block", "tx"} {
		refused := 0.0
		for _, d := range line {
			n, err := d.metric(`dunlin_gossip_messages_total{result="rejected",topic="` + topic + `"}`)
			if err != nil {
				t.Error(err)
			}
			refused += n
			if n, err = d.metric(`dunlin_gossip_messages_total{result="ignored",topic="` + topic + `"}`); err != nil {
				t.Error(err)
			}
			t.Logf("%s, topic %s: %.0f ignored, %.0f rejected at all so far", d.name, topic, n, refused)
		}
		if refused == 0 {
			t.Errorf("no message of topic %s was counted as rejected", topic)
		}
	}
	for i := range sieges {
		sieges[i].lift(t, 600)
	}
}

func msgTxs(b *consensus.Block) []*wire.MsgTx {
	var txs []*wire.MsgTx
	for _, tx := range b.Txs {
		txs = append(txs, tx.MsgTx())
	}
	return txs
}

// orphanTx spends what nobody knows.
func orphanTx(rng *rand.Rand, size int) *wire.MsgTx {
	tx := wire.NewMsgTx(2)
	in := &wire.TxIn{PreviousOutPoint: wire.OutPoint{Index: 0}, Sequence: math.MaxUint32}
	copy(in.PreviousOutPoint.Hash[:], randomBytes(rng, 32))
	tx.AddTxIn(in)
	tx.AddTxOut(&wire.TxOut{Value: 1000, PkScript: append([]byte{0x6a}, make([]byte, size)...)})
	return tx
}

// TestE2EHostileMany: many attackers at once hold every inbound slot they can get
// and shout; the daemon keeps its honest neighbour.
func TestE2EHostileMany(t *testing.T) {
	t.Parallel()
	p := consensus.Regtest()
	d := startDaemon(t, "target", "--network", "regtest")
	honest := startDaemon(t, "honest", "--network", "regtest", "--bootstrap", d.addr())
	honest.reaches(d.mine(1).Hash, patience)
	siege := besiege(t, d)
	n := 60
	if slow {
		n = 300
	}
	var wg sync.WaitGroup
	attackers := make([]*attacker, n)
	var mu sync.Mutex
	refused := 0
	for i := range attackers {
		attackers[i] = newAttacker(t, p)
		wg.Go(func() {
			if err := attackers[i].tryGreet(d); err != nil {
				mu.Lock()
				defer mu.Unlock()
				refused++
			}
		})
	}
	wg.Wait()
	s := d.mustStatus()
	t.Logf("%d attackers: %d refused, %d inbound", n, refused, s.Peers.Inbound)
	honest.reaches(d.mine(1).Hash, soon)
	for _, a := range attackers {
		_ = a.h.Close()
	}
	siege.lift(t, 300)
}

// tryConnect is connect for who may be refused.
func (a *attacker) tryConnect(d *daemon) error {
	info, err := peerInfo(d)
	if err != nil {
		return err
	}
	return a.h.Connect(a.t.Context(), info)
}

// tryGreet is greet for who may be refused.
func (a *attacker) tryGreet(d *daemon) error {
	if err := a.tryConnect(d); err != nil {
		return err
	}
	s, err := a.open(daemonID(a.t, d), a.id("hello/1"))
	if err != nil {
		return err
	}
	if _, err := s.Write(helloMsg(a.params, wireTip{}, "one of many")); err != nil {
		return err
	}
	if n, err := s.Read(make([]byte, 1)); n == 0 {
		return errors.Join(errors.New("no answer"), err)
	}
	return nil
}
