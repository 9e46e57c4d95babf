package chain

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/btcsuite/btcd/wire/v2"

	"dunlin/chain/consensus"
	"dunlin/chain/store"
)

// VerifyOptions configure Verify. Zero means the default given.
type VerifyOptions struct {
	// Depth is how many of the last blocks are taken back and connected again with
	// every check there is; 0: none, below 0: all that are on disk.
	Depth int32
	// MaxBytes bounds the coins that this changes in memory; default 512 MiB. Where
	// it does not suffice, fewer blocks are connected again, and the report says so.
	MaxBytes int64
	// Progress, if not nil, is called every few blocks by the caller's goroutine.
	Progress func(VerifyProgress)
}

// A VerifyProgress says how far a Verify got.
type VerifyProgress struct {
	Stage string // headers, blocks, undo, coins, disconnect, connect
	Done  int64  // bytes of blocks and undo, else headers, coins or blocks
	Total int64  // 0: not known
}

// maxFaults is how many faults a report lists.
const maxFaults = 100

// A VerifyReport says what Verify saw.
type VerifyReport struct {
	Faults []*store.DamageError // in the order in which they were found, at most 100
	Faulty int                  // how many there are

	Height, Lowest int32 // of the active chain, and where its blocks begin
	Blocks         int   // records whose block is in the index
	Unused         int   // records that the index does not know: left by a crash or a reindex
	Remains        int   // damaged places that no block of the index lies at, which lack nothing
	Undo           int
	Coins          int
	Supply         int64 // value of all coins, satoshi
	Claimed        int64 // subsidies claimed less what was burnt; -1: not known, blocks are pruned or damaged
	Reconnected    int32 // blocks that were taken back and connected again
	Limited        bool  // for want of memory fewer than asked for
}

// errFaulty ends a stage of Verify whose fault has been noted.
var errFaulty = errors.New("chain: verify found a fault")

// Verify checks an open chain that has not been run, and cannot be afterwards:
// every record of the block and undo files by its checksum; that each block the
// index knows is there, is what its header says, and has its undo data; that the
// coins are worth the subsidies claimed; and, for the last blocks, everything
// again. It changes nothing on disk. Faults are in the report; the error is ctx's
// or trouble of our own.
func (c *Chain) Verify(ctx context.Context, o VerifyOptions) (VerifyReport, error) {
	if !c.ran.CompareAndSwap(false, true) {
		return VerifyReport{}, errors.New("chain: Verify needs a chain that has not been run")
	}
	if o.MaxBytes == 0 {
		o.MaxBytes = 512 << 20
	}
	if o.Progress == nil {
		o.Progress = func(VerifyProgress) {}
	}
	v := &verifier{
		c: c, o: o, tip: c.tip.get(), facts: make([]blockFacts, c.tree.n), seen: make(map[place]bool), met: make(map[place]string),
		r: VerifyReport{Height: c.tree.node(c.tip.get()).height, Lowest: c.Lowest(), Claimed: -1},
	}
	for _, stage := range []func(context.Context) error{v.headers, v.blocks, v.undo, v.coins, v.reconnect} {
		if err := stage(ctx); err != nil && !errors.Is(err, errFaulty) {
			return v.r, err
		}
	}
	return v.r, nil
}

// A verifier is one Verify under way.
type verifier struct {
	c     *Chain
	o     VerifyOptions
	r     VerifyReport
	tip   uint32
	facts []blockFacts     // by node
	seen  map[place]bool   // faults told
	met   map[place]string // damage of the present scan: where, what
	gaps  bool             // something that the sums need is damaged
}

type place struct {
	file   string
	offset int64
}

// blockFacts are what a block's bytes tell, in satoshi.
type blockFacts struct {
	inputs   int
	made     int64 // spendable outputs
	coinbase int64 // outputs of the coinbase
	paid     int64 // outputs of the other transactions
	spent    int64 // from the undo record
	coins    int32 // spendable outputs less inputs
	repeats  int32 // spendable outputs of a coinbase that may repeat an older one; else 0
	ok       bool
}

// fault notes one; each place is told once.
func (v *verifier) fault(d *store.DamageError) {
	if d.Offset >= 0 {
		at := place{d.File, d.Offset}
		if v.seen[at] {
			return
		}
		v.seen[at] = true
	}
	v.gaps = true
	if v.r.Faulty++; len(v.r.Faults) < maxFaults {
		v.r.Faults = append(v.r.Faults, d)
	}
}

func (v *verifier) faultf(file string, offset int64, format string, args ...any) {
	v.fault(&store.DamageError{File: file, Offset: offset, What: fmt.Sprintf(format, args...), Mend: v.c.store.Mend()})
}

// take notes damage that comes as an error and passes other errors on.
func (v *verifier) take(err error) error {
	if d, ok := errors.AsType[*store.DamageError](err); ok {
		v.fault(d)
		return errFaulty
	}
	return err
}

func (v *verifier) name(i uint32) string {
	nd := v.c.tree.node(i)
	return fmt.Sprintf("block %v at height %d", nd.hash, nd.height)
}

func blockFile(p store.Pos) string { return fmt.Sprintf("blocks/%05d.blk", p.File) }
func undoFile(p store.Pos) string  { return fmt.Sprintf("undo/%05d.und", p.File) }

// start is where the record of p starts, which is where damage is told.
func start(p store.Pos) int64 { return int64(p.Offset) - store.RecordHead }

func posKey(p store.Pos) uint64 { return uint64(p.File)<<32 | uint64(p.Offset) }

// headers checks that each header is the one of its hash. Load has checked that
// they hang together.
func (v *verifier) headers(ctx context.Context) error {
	t := v.c.tree
	for i := range t.n {
		if i%4096 == 0 {
			if err := ctx.Err(); err != nil {
				return err
			}
			v.o.Progress(VerifyProgress{"headers", int64(i), int64(t.n)})
		}
		if t.gone(i) {
			continue
		}
		h := t.header(i)
		if got := consensus.HeaderHash(&h); got != t.node(i).hash {
			v.faultf("index", -1, "the header of %s has hash %v", v.name(i), got)
		}
	}
	return nil
}

// blocks reads every block record.
func (v *verifier) blocks(ctx context.Context) error {
	t := v.c.tree
	want := make(map[uint64]uint32)
	for i := range t.n {
		if p := t.body(i).block; p.Size > 0 {
			want[posKey(p)] = i
		}
	}
	total, _, _ := v.c.store.Size()
	var done int64
	err := v.c.store.Scan(func(p store.Pos, raw []byte) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		done += int64(len(raw))
		v.o.Progress(VerifyProgress{"blocks", done, total})
		i, ok := want[posKey(p)]
		if !ok {
			v.r.Unused++
			return nil
		}
		delete(want, posKey(p))
		v.r.Blocks++
		if err := v.block(i, p, raw); err != nil {
			v.faultf(blockFile(p), start(p), "%s: %v", v.name(i), err)
		}
		return nil
	}, v.damaged(ctx))
	if err != nil {
		return v.take(err)
	}
	v.lost(want, func(i uint32) store.Pos { return t.body(i).block }, blockFile, "record")
	// What a gap of the index would be, though load refuses it.
	for i := v.tip; t.node(i).height > v.r.Lowest; i = t.node(i).parent {
		if t.body(i).block.Size == 0 {
			v.faultf("index", -1, "%s is part of the active chain and has no bytes", v.name(i))
		}
	}
	return nil
}

// block checks a block against its header and the index and notes its facts.
func (v *verifier) block(i uint32, at store.Pos, raw []byte) error {
	t, p := v.c.tree, v.c.o.Params
	nd, body := t.node(i), t.body(i)
	if at.Size != body.block.Size {
		return fmt.Errorf("the index says %d bytes, the record has %d", body.block.Size, at.Size)
	}
	b, err := consensus.DecodeBlock(p, raw)
	if err != nil {
		return err
	}
	if b.Hash != nd.hash {
		return fmt.Errorf("the bytes are those of block %v", b.Hash)
	}
	if len(b.Txs) != int(body.txs) {
		return fmt.Errorf("the index says %d transactions, there are %d", body.txs, len(b.Txs))
	}
	if !t.has(i, flagValid) {
		return nil // kept, but not believed
	}
	if nd.height > 0 {
		if err := v.c.checkBody(b); err != nil {
			return err
		}
	}
	f := &v.facts[i]
	*f = blockFacts{ok: true}
	for n, tx := range b.Txs {
		msg := tx.MsgTx()
		for _, out := range msg.TxOut {
			if spendable(out.PkScript) {
				f.made += out.Value
				f.coins++
			}
			if n == 0 {
				f.coinbase += out.Value
			} else {
				f.paid += out.Value
			}
		}
		if n > 0 {
			f.inputs += len(msg.TxIn)
			f.coins -= int32(len(msg.TxIn))
		} else if consensus.RepeatsCoinbase(p, nd.height, b.Hash) {
			f.repeats = int32(spendables(msg))
		}
	}
	return nil
}

// damaged notes damage that a scan meets. It is a fault if something that the
// index knows lies there, which lost finds out: a reindex leaves damage behind.
func (v *verifier) damaged(ctx context.Context) func(*store.DamageError) error {
	return func(d *store.DamageError) error {
		v.met[place{d.File, d.Offset}] = d.What
		return ctx.Err()
	}
}

// lost tells of what the index knows and a scan has not found: each record that is
// damaged, and the others a line a file.
func (v *verifier) lost(want map[uint64]uint32, pos func(uint32) store.Pos, file func(store.Pos) string, what string) {
	var rest []uint64
	for _, key := range slices.Sorted(maps.Keys(want)) {
		p := pos(want[key])
		at := place{file(p), start(p)}
		if found, ok := v.met[at]; ok {
			delete(v.met, at)
			v.faultf(at.file, at.offset, "the %s of %s is not there: %s", what, v.name(want[key]), found)
			continue
		}
		rest = append(rest, key)
	}
	for len(rest) > 0 {
		first := want[rest[0]]
		p := pos(first)
		n := 1
		for n < len(rest) && rest[n]>>32 == rest[0]>>32 {
			n++
		}
		more := ""
		if n > 1 {
			more = fmt.Sprintf(", and that of %d more blocks", n-1)
		}
		v.faultf(file(p), start(p), "the %s of %s is not there%s", what, v.name(first), more)
		rest = rest[n:]
	}
	v.r.Remains += len(v.met)
	clear(v.met)
}

// undo reads every undo record.
func (v *verifier) undo(ctx context.Context) error {
	t := v.c.tree
	want := make(map[uint64]uint32)
	for i := range t.n {
		if p := t.body(i).undo; p.Size > 0 {
			want[posKey(p)] = i
		}
	}
	_, total, _ := v.c.store.Size()
	var done int64
	err := v.c.store.ScanUndo(func(p store.Pos, raw []byte) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		done += int64(len(raw))
		v.o.Progress(VerifyProgress{"undo", done, total})
		i, ok := want[posKey(p)]
		if !ok {
			return nil // of a block that was validated twice
		}
		delete(want, posKey(p))
		v.r.Undo++
		f := &v.facts[i]
		if !f.ok {
			return nil // its block is damaged or pruned
		}
		coins, err := decodeUndo(raw, f.inputs, f.inputs+int(f.repeats))
		if err != nil {
			v.faultf(undoFile(p), start(p), "undo data of %s: %v", v.name(i), err)
			return nil
		}
		repeated := coins[:len(coins)-f.inputs]
		for _, coin := range coins[len(repeated):] {
			f.spent += coin.Value
		}
		for k := range repeated {
			if !nothing(&repeated[k]) { // an older coinbase's, which is lost for ever
				f.made -= repeated[k].Value
				f.coins--
			}
		}
		return nil
	}, v.damaged(ctx))
	if err != nil {
		return v.take(err)
	}
	v.lost(want, func(i uint32) store.Pos { return t.body(i).undo }, undoFile, "undo data")
	for i := v.tip; t.node(i).height > 0; i = t.node(i).parent {
		if f, b := &v.facts[i], t.body(i); f.inputs > 0 && b.undo.Size == 0 && !t.has(i, flagPruned) {
			v.faultf("index", -1, "%s has no undo data", v.name(i))
		}
	}
	return nil
}

// coins sums up the coins and compares them with what the blocks claimed.
func (v *verifier) coins(ctx context.Context) error {
	err := v.c.store.Coins(func(op wire.OutPoint, coin consensus.Coin) error {
		if v.r.Coins%65536 == 0 {
			if err := ctx.Err(); err != nil {
				return err
			}
			v.o.Progress(VerifyProgress{"coins", int64(v.r.Coins), 0})
		}
		v.r.Coins++
		v.r.Supply += coin.Value
		if coin.Height > v.r.Height {
			v.faultf("index", -1, "coin %v is of height %d, above the tip at %d", op, coin.Height, v.r.Height)
		}
		return nil
	})
	if err != nil {
		return v.take(err)
	}
	if v.gaps || v.r.Lowest > 0 {
		return nil
	}
	t, p := v.c.tree, v.c.o.Params
	var claimed, coins int64
	if p.GenesisSpendable() {
		f := &v.facts[0] // where genesis is
		claimed, coins = f.made, int64(f.coins)
	}
	for i := v.tip; t.node(i).height > 0; i = t.node(i).parent {
		f, nd := &v.facts[i], t.node(i)
		if !f.ok {
			v.faultf("index", -1, "%s is part of the active chain and not marked as valid", v.name(i))
			continue
		}
		fees := f.spent - f.paid
		coinbase := &wire.MsgTx{TxOut: []*wire.TxOut{{Value: f.coinbase}}}
		if err := consensus.CheckCoinbaseValue(p, nd.height, coinbase, fees); err != nil {
			v.faultf(blockFile(t.body(i).block), start(t.body(i).block), "%s: %v", v.name(i), err)
		}
		claimed += f.made - f.spent
		coins += int64(f.coins)
	}
	if v.gaps {
		return nil
	}
	v.r.Claimed = claimed
	if claimed != v.r.Supply || coins != int64(v.r.Coins) {
		v.faultf("index", -1, "%d coins are worth %d satoshi, the blocks leave %d worth %d", v.r.Coins, v.r.Supply, coins, claimed)
	}
	return nil
}

func (v *verifier) read(i uint32) (*consensus.Block, error) {
	raw, err := v.c.store.ReadBlock(v.c.tree.body(i).block)
	if err != nil {
		return nil, err
	}
	return consensus.DecodeBlock(v.c.o.Params, raw)
}

// reconnect takes the last blocks back in memory and connects them again.
func (v *verifier) reconnect(ctx context.Context) error {
	t := v.c.tree
	want := v.o.Depth
	if want < 0 {
		want = v.r.Height
	}
	con := &conductor{Chain: v.c}
	var back []uint32
	for i := v.tip; int32(len(back)) < want && t.node(i).height > 0; i = t.node(i).parent {
		if t.has(i, flagPruned) || t.body(i).block.Size == 0 {
			break
		}
		if v.c.coins.bytes > v.o.MaxBytes {
			v.r.Limited = true
			break
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		v.o.Progress(VerifyProgress{"disconnect", int64(len(back)), int64(want)})
		if err := v.takeBack(con, i); err != nil {
			return err
		}
		back = append(back, i)
	}
	for n, i := range slices.Backward(back) {
		if err := ctx.Err(); err != nil {
			return err
		}
		v.o.Progress(VerifyProgress{"connect", int64(len(back) - 1 - n), int64(len(back))})
		if err := v.connect(con, i); err != nil {
			return err
		}
		v.r.Reconnected++
	}
	return v.same()
}

// takeBack takes a block back after checking that all its outputs that should be
// coins are.
func (v *verifier) takeBack(con *conductor, i uint32) error {
	t := v.c.tree
	b, err := v.read(i)
	if err != nil {
		return v.take(err)
	}
	height := t.node(i).height
	at := t.body(i).undo
	spent, err := con.readUndo(b, height, at)
	if errors.Is(err, errUndo) {
		v.faultf(undoFile(at), start(at), "undo data of %s: %v", v.name(i), err)
		return errFaulty
	}
	if err != nil {
		return v.take(err)
	}
	s := &step{block: b, height: height, spent: spent, back: true}
	for n, tx := range slices.Backward(b.Txs) {
		for k, out := range tx.MsgTx().TxOut {
			if !spendable(out.PkScript) {
				continue
			}
			op := wire.OutPoint{Hash: *tx.Hash(), Index: uint32(k)}
			want := consensus.Coin{Value: out.Value, Script: out.PkScript, Height: height, Coinbase: n == 0}
			got, ok, err := v.c.coins.get(op)
			if err != nil {
				return v.take(err)
			}
			if !ok || !sameCoin(got, want) {
				v.faultf("index", -1, "coin %v, which %s makes, is %s", op, v.name(i), coinText(got, ok))
				return errFaulty
			}
		}
		if err := v.c.coins.undoTx(s, n, spent[n].Coins); err != nil {
			v.faultf("index", -1, "%s: %v", v.name(i), err)
			return errFaulty
		}
	}
	return nil
}

func sameCoin(a, b consensus.Coin) bool {
	return a.Value == b.Value && string(a.Script) == string(b.Script) && a.Height == b.Height && a.Coinbase == b.Coinbase
}

func coinText(c consensus.Coin, ok bool) string {
	if !ok {
		return "missing"
	}
	return fmt.Sprintf("%d satoshi of height %d", c.Value, c.Height)
}

// connect checks a block by every rule on top of the coins.
func (v *verifier) connect(con *conductor, i uint32) error {
	c, t := v.c, v.c.tree
	b, err := v.read(i)
	if err != nil {
		return v.take(err)
	}
	nd := t.node(i)
	parent := t.past(nd.parent)
	f := &flight{
		node: i, flags: consensus.ScriptFlags(c.o.Params, parent, b.Hash),
		step: step{block: b, height: nd.height, spent: make([]consensus.SpentTx, len(b.Txs))},
	}
	c.coins.push(&f.step)
	defer c.coins.keep(0)
	err = cmp.Or(
		c.o.Engine.CheckHeader(parent, &b.Header, c.o.Now()),
		consensus.CheckBlockContext(c.o.Params, parent, b),
		con.applyCoins(parent, f),
	)
	if err == nil {
		err = c.o.Engine.CheckBlock(parent, parentCoins{c.coins}, b)
	}
	if err == nil {
		err = v.c.checkScripts(f.step.spent, f.flags, nil)
	}
	if asRule(err) != nil {
		p := t.body(i).block
		v.faultf(blockFile(p), start(p), "%s, connected again: %v", v.name(i), err)
		return errFaulty
	}
	return v.take(err)
}

// same checks that the coins in memory, back where they were, are those on disk.
func (v *verifier) same() error {
	t := v.c.coins.table
	for i := range t.n {
		if !t.has(i, 0) {
			continue
		}
		op, coin, have := t.at(i).op, t.coin(i), !t.has(i, coinSpent)
		want, ok, err := v.c.store.Coin(op)
		if err != nil {
			return v.take(err)
		}
		if have != ok || ok && !sameCoin(coin, want) {
			v.faultf("index", -1, "coin %v is %s on disk, %s after its blocks were connected again", op, coinText(want, ok), coinText(coin, have))
			return errFaulty
		}
	}
	return nil
}
