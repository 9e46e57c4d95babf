package wallet

import (
	"cmp"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/wire/v2"

	"dunlin/internal/wallet/descriptor"
)

// keys of the journal.
const (
	keyMeta   = "meta"
	keyPos    = "pos"
	keyRescan = "rescan"
	prefDesc  = "d/" // + id
	prefAddr  = "a/" // + id/index: what is known of an address beside its script
	prefOut   = "s/" // + id/index: output script
	prefTx    = "t/" // + txid
	prefRaw   = "r/" // + txid: serialised
	prefLock  = "l/" // + txid:vout: set aside by hand
)

const (
	// lookaheadFactor: so many gap limits are watched beyond the next index, so that
	// payments that come out of order are found in one pass.
	lookaheadFactor = 5
	// maxForeign bounds what is shown of the other side of a payment.
	maxForeign = 8
	// maxDead bounds the dead payments of others that are kept: each cost its sender
	// nothing but a double spend.
	maxDead = 10_000
)

// A Place is a block, and a transaction's index in it.
type Place struct {
	Hash   chainhash.Hash `json:"hash"`
	Height int32          `json:"height"`
	Index  int            `json:"index"`
	Time   int64          `json:"time"` // of the header, Unix seconds
}

// position is how far the chain was followed.
type position struct {
	Hash    chainhash.Hash   `json:"hash"`
	Height  int32            `json:"height"`
	Locator []chainhash.Hash `json:"locator"` // newest first, sparser with age, genesis last
}

// meta is what is known of the wallet as a whole.
type meta struct {
	Version  int    `json:"version"`
	ChainID  string `json:"chain_id"`
	Gap      int    `json:"gap"`
	Birthday int64  `json:"birthday"` // Unix seconds: no block older by a day pays it; 0: unknown
	From     int32  `json:"from"`     // height from which the chain was looked through
	// Holes are ranges of heights that could not be looked through: pruned.
	Holes [][2]int32 `json:"holes,omitempty"`
	// Lost says that entries of the journal were lost (damage), for people.
	Lost string `json:"lost,omitempty"`
}

// rescan is a search through old blocks that is under way.
type rescan struct {
	From    int32 `json:"from"`
	Next    int32 `json:"next"`
	Pass    int   `json:"pass"`
	Grown   bool  `json:"grown"` // scripts were added that blocks already passed may have paid
	Started int64 `json:"started"`
	// Until is the height at which the pass may end; -1: at the tip.
	Until int32 `json:"until"`
}

// A chainOf is one descriptor with one script an index: what addresses come from.
type chainOf struct {
	id   string
	info descInfo
	d    *descriptor.Descriptor // public; nil only in tests
	// derive returns the output script of an index.
	derive  func(index uint32) ([]byte, error)
	scripts []*addr // 0 … watched-1
	// tree says that its taproot outputs have scripts too, once treeKnown.
	tree, treeKnown bool
}

// descInfo is the part of a chainOf that is stored.
type descInfo struct {
	Text      string `json:"text"` // public, with checksum
	Kind      string `json:"kind"` // of addresses
	Range     bool   `json:"range"`
	Change    bool   `json:"change"`
	Active    bool   `json:"active"` // new addresses come from it
	WatchOnly bool   `json:"watch_only"`
	Next      uint32 `json:"next"` // index of the next address to be handed out
	Used      int64  `json:"used"` // greatest index that was paid; -1 none
	Label     string `json:"label,omitempty"`
	Order     int    `json:"order"` // of creation
}

// An addr is one output script that is ours.
type addr struct {
	of     *chainOf
	index  uint32
	script []byte
	info   addrInfo
}

type addrInfo struct {
	Label  string `json:"label,omitempty"`
	Handed int64  `json:"handed,omitempty"` // Unix seconds when it was handed out; 0: never
	Used   bool   `json:"used,omitempty"`   // it was paid
}

// Why a transaction without a block will not be mined.
const (
	alive      = ""
	conflicted = "conflicted" // a block has another one that spends the same output
	replaced   = "replaced"   // the mempool has another one that spends the same output
	orphaned   = "orphaned"   // a coinbase whose block was left, or what spends from one
	abandoned  = "abandoned"  // given up by hand
)

// A tx is a transaction that pays or spends coins of ours.
type tx struct {
	id   chainhash.Hash
	info txInfo
	// Not stored: what the mempool says of it.
	pooled  bool
	trouble string // why it is not there; empty: not known
}

// txInfo is the part of a tx that is stored. The bytes of the transaction are stored apart.
type txInfo struct {
	Block    *Place   `json:"block,omitempty"` // nil: unconfirmed
	Seen     int64    `json:"seen"`            // Unix seconds when it came here first
	Own      bool     `json:"own,omitempty"`   // sent from here
	Coinbase bool     `json:"coinbase,omitempty"`
	Ins      []string `json:"ins,omitempty"` // outputs spent, "txid:vout"
	Debits   []debit  `json:"debits,omitempty"`
	Credits  []credit `json:"credits,omitempty"`
	Outs     int      `json:"outs"`    // number of outputs
	OutSum   int64    `json:"out_sum"` // of all outputs
	VSize    int      `json:"vsize"`
	Weight   int      `json:"weight"`
	Fee      int64    `json:"fee"`               // -1: unknown
	Signals  bool     `json:"signals,omitempty"` // it may be replaced (BIP125)
	TRUC     bool     `json:"truc,omitempty"`    // of version 3 (BIP431)
	// Foreign are addresses of outputs that are not ours, the first few.
	Foreign []string `json:"foreign,omitempty"`
	Label   string   `json:"label,omitempty"`

	Dead     string         `json:"dead,omitempty"`
	By       chainhash.Hash `json:"by,omitzero"`        // the other transaction
	ByBlock  *Place         `json:"by_block,omitempty"` // the block that has it
	Via      chainhash.Hash `json:"via,omitzero"`       // the ancestor that died, if not itself
	Was      *Place         `json:"was,omitempty"`      // the block that had it until a reorganisation
	Replaces chainhash.Hash `json:"replaces,omitzero"`
	// Rest is one more than the index of the output that took all there was; 0: none.
	Rest int `json:"rest,omitempty"`
	// GivenUp says that it was given up by hand and not seen since: what ended it besides may go, and it stays so.
	GivenUp bool `json:"given_up,omitempty"`
}

// A debit is an input that spends a coin of ours.
type debit struct {
	In     int   `json:"in"`
	Amount int64 `json:"amount"` // satoshi
}

// A credit is an output of ours.
type credit struct {
	N      uint32 `json:"n"`
	Amount int64  `json:"amount"` // satoshi
	Desc   string `json:"desc"`
	Index  uint32 `json:"index"`
}

// A coin is an output of ours, spent or not.
type coin struct {
	op     wire.OutPoint
	tx     *tx
	amount int64
	to     *addr
}

// A book is everything public that the wallet knows. It is pure: it has no clock, no
// file and no lock; what changed is collected in dirty until somebody stores it.
type book struct {
	meta   meta
	pos    position
	rescan *rescan

	descs   map[string]*chainOf
	order   []*chainOf
	scripts map[string]*addr // by output script

	txs    map[chainhash.Hash]*tx
	open   map[chainhash.Hash]*tx // those without a block
	mined  []*tx                  // those in a block, by height and index
	coins  map[wire.OutPoint]*coin
	live   map[wire.OutPoint]*coin // coins that no mined transaction spends
	spends map[wire.OutPoint][]*tx // who of txs spends an output, ours or not
	locked map[wire.OutPoint]bool

	address func(script []byte) (string, bool)
	dirty   map[string]any // by key of the journal: what is to be stored; nil: removed
	now     func() time.Time
	grown   bool // scripts were added since somebody last looked
	// news says that what is in the mempool already may concern the wallet now.
	news bool
}

func newBook(address func([]byte) (string, bool), now func() time.Time) *book {
	return &book{
		descs: make(map[string]*chainOf), scripts: make(map[string]*addr),
		txs: make(map[chainhash.Hash]*tx), open: make(map[chainhash.Hash]*tx),
		coins: make(map[wire.OutPoint]*coin), live: make(map[wire.OutPoint]*coin),
		spends: make(map[wire.OutPoint][]*tx), locked: make(map[wire.OutPoint]bool),
		address: address, dirty: make(map[string]any), now: now,
	}
}

func (b *book) lookahead() uint32 { return uint32(b.meta.Gap) * lookaheadFactor }

// addrKey is the end of a journal key of an address.
func addrKey(id string, index uint32) string { return id + "/" + strconv.FormatUint(uint64(index), 10) }

// add takes a descriptor over and watches its first scripts. known returns scripts that
// were derived before.
func (b *book) add(c *chainOf, known func(index uint32) []byte) error {
	b.descs[c.id] = c
	b.order = append(b.order, c)
	return b.extend(c, known)
}

// extend derives scripts until as many are watched as must be.
func (b *book) extend(c *chainOf, known func(index uint32) []byte) error {
	want := func() uint32 {
		if !c.info.Range {
			return 1
		}
		return max(c.info.Next, uint32(c.info.Used+1)) + b.lookahead()
	}
	for i := uint32(len(c.scripts)); i < want(); i++ {
		var script []byte
		if known != nil {
			script = known(i)
		}
		if script == nil {
			var err error
			if script, err = c.derive(i); err != nil {
				return fmt.Errorf("descriptor %s, index %d: %w", c.id, i, err)
			}
			b.dirty[prefOut+addrKey(c.id, i)] = script
		}
		a := &addr{of: c, index: i, script: script}
		c.scripts = append(c.scripts, a)
		switch old := b.scripts[string(script)]; {
		case old == nil:
			b.scripts[string(script)] = a
			b.grown = true
		case old.of.info.WatchOnly && !c.info.WatchOnly:
			b.succeed(old, a)
		default: // of two descriptors with one script the first counts
		}
	}
	return nil
}

// succeed puts an address whose keys are here in the place of one that was only watched: its coins can be spent from now on.
func (b *book) succeed(old, a *addr) {
	b.scripts[string(a.script)] = a
	if old.info != (addrInfo{}) {
		a.info = old.info
		b.touchAddr(a)
	}
	if c := a.of; a.info.Used && int64(a.index) > c.info.Used {
		c.info.Used, c.info.Next = int64(a.index), max(c.info.Next, a.index+1)
		b.touchDesc(c)
	}
	for _, k := range b.coins {
		if k.to == old {
			k.to = a
		}
	}
}

// payee is the address that a credit went to; nil: its descriptor is gone.
func (b *book) payee(c credit) *addr {
	d := b.descs[c.Desc]
	if d == nil || uint64(c.Index) >= uint64(len(d.scripts)) {
		return nil
	}
	return b.scripts[string(d.scripts[c.Index].script)]
}

func (b *book) touchDesc(c *chainOf) { b.dirty[prefDesc+c.id] = &c.info }
func (b *book) touchAddr(a *addr)    { b.dirty[prefAddr+addrKey(a.of.id, a.index)] = &a.info }
func (b *book) touchTx(t *tx)        { b.dirty[prefTx+t.id.String()] = &t.info }
func (b *book) touchMeta()           { b.dirty[keyMeta] = &b.meta }

// use notes that an address was paid, and watches more behind it.
func (b *book) use(a *addr) error {
	if !a.info.Used {
		a.info.Used = true
		b.touchAddr(a)
	}
	c := a.of
	if int64(a.index) <= c.info.Used {
		return nil
	}
	c.info.Used = int64(a.index)
	c.info.Next = max(c.info.Next, a.index+1)
	b.touchDesc(c)
	return b.extend(c, nil)
}

// hand hands out the next address of a descriptor.
func (b *book) hand(c *chainOf, label string) (*addr, error) {
	if !c.info.Range {
		return nil, fmt.Errorf("descriptor %s has one address only", c.id)
	}
	i := c.info.Next
	if i >= 1<<31 {
		return nil, fmt.Errorf("descriptor %s has no more addresses", c.id)
	}
	c.info.Next++
	b.touchDesc(c)
	if err := b.extend(c, nil); err != nil {
		return nil, err
	}
	a := c.scripts[i]
	a.info.Handed, a.info.Label = b.now().Unix(), label
	b.touchAddr(a)
	return a, nil
}

// take takes an address out of those that are handed out next, and watches more behind it.
func (b *book) take(a *addr) error {
	a.info.Handed = b.now().Unix()
	b.touchAddr(a)
	if a.index < a.of.info.Next {
		return nil
	}
	a.of.info.Next = a.index + 1
	b.touchDesc(a.of)
	return b.extend(a.of, nil)
}

// giveBack undoes take, if nothing pays the address. Else payments that failed would use addresses up, and the
// next that succeeds might pay its change to one so far behind the last on the chain that nobody who
// restores the wallet from its words looks there.
func (b *book) giveBack(a *addr) {
	for _, k := range b.coins {
		if k.to == a {
			return
		}
	}
	c := a.of
	a.info.Used = false
	if c.info.Next == a.index+1 {
		c.info.Next--
		a.info.Handed = 0
	}
	for c.info.Used >= 0 && !c.scripts[c.info.Used].info.Used {
		c.info.Used--
	}
	b.touchAddr(a)
	b.touchDesc(c)
}

// unusedInARow is how many addresses before the next were not paid.
func (c *chainOf) unusedInARow() int { return int(int64(c.info.Next) - 1 - c.info.Used) }

// concerns says whether a transaction pays or spends coins of ours, or competes with one
// of ours for an output.
func (b *book) concerns(t *wire.MsgTx) bool {
	for _, out := range t.TxOut {
		if b.scripts[string(out.PkScript)] != nil {
			return true
		}
	}
	for _, in := range t.TxIn {
		if b.coins[in.PreviousOutPoint] != nil || len(b.spends[in.PreviousOutPoint]) > 0 {
			return true
		}
	}
	return false
}

// connect takes over what a block has of ours. The same block may come again.
func (b *book) connect(blk Place, txs []*wire.MsgTx, ids []chainhash.Hash) error {
	for again := true; again; {
		again = false
		for i, t := range txs {
			if !b.concerns(t) {
				continue
			}
			at := blk
			at.Index = i
			before := len(b.scripts)
			if err := b.record(t, ids[i], &at, false); err != nil {
				return err
			}
			again = again || len(b.scripts) > before
		}
	}
	return nil
}

// record takes over a transaction, in a block or (where is nil) unconfirmed. One that has
// nothing of ours only ends those of ours that it competes with, if it is in a block.
func (b *book) record(m *wire.MsgTx, id chainhash.Hash, where *Place, own bool) error {
	t := b.txs[id]
	debits, credits := b.share(m)
	if t == nil && len(debits) == 0 && len(credits) == 0 {
		if where != nil {
			b.endRivals(m, id, where)
		}
		return nil
	}
	if t == nil {
		t = b.newTx(m, id)
	}
	if own && !t.info.Own {
		t.info.Own = true
		b.touchTx(t)
	}
	for _, d := range debits {
		if !slices.Contains(t.info.Debits, d) {
			t.info.Debits = append(t.info.Debits, d)
			b.reckon(t)
		}
	}
	for _, c := range credits {
		a := b.descs[c.Desc].scripts[c.Index]
		if err := b.use(a); err != nil {
			return err
		}
		op := wire.OutPoint{Hash: id, Index: c.N}
		if b.coins[op] != nil {
			continue
		}
		t.info.Credits = append(t.info.Credits, c)
		b.touchTx(t)
		b.addCoin(t, c, a)
	}
	if where != nil {
		b.settle(t, where)
		b.endRivals(m, id, where)
	}
	return nil
}

// reckon finds out the fee of a transaction, once all that it spends is known to be ours.
func (b *book) reckon(t *tx) {
	b.touchTx(t)
	if len(t.info.Debits) != len(t.info.Ins) || t.info.Fee >= 0 {
		return
	}
	t.info.Fee = -t.info.OutSum
	for _, d := range t.info.Debits {
		t.info.Fee += d.Amount
	}
}

func (b *book) addCoin(t *tx, c credit, a *addr) {
	op := wire.OutPoint{Hash: t.id, Index: c.N}
	k := &coin{op: op, tx: t, amount: c.Amount, to: a}
	b.coins[op] = k
	if b.minedSpender(op) == nil {
		b.live[op] = k
	}
	// What spends it may have come before.
	for _, s := range b.spends[op] {
		for i, in := range s.info.Ins {
			if in == opText(op) && !slices.ContainsFunc(s.info.Debits, func(d debit) bool { return d.In == i }) {
				s.info.Debits = append(s.info.Debits, debit{i, c.Amount})
				b.reckon(s)
			}
		}
	}
}

// share is what a transaction has of ours.
func (b *book) share(m *wire.MsgTx) (debits []debit, credits []credit) {
	for i, in := range m.TxIn {
		if c := b.coins[in.PreviousOutPoint]; c != nil {
			debits = append(debits, debit{i, c.amount})
		}
	}
	for n, out := range m.TxOut {
		if a := b.scripts[string(out.PkScript)]; a != nil {
			credits = append(credits, credit{uint32(n), out.Value, a.of.id, a.index})
		}
	}
	return debits, credits
}

func (b *book) newTx(m *wire.MsgTx, id chainhash.Hash) *tx {
	weight := 3*m.SerializeSizeStripped() + m.SerializeSize()
	t := &tx{id: id, info: txInfo{
		Seen: b.now().Unix(), Outs: len(m.TxOut), VSize: (weight + 3) / 4, Weight: weight, Fee: -1, Coinbase: isCoinbase(m), TRUC: m.Version == 3,
	}}
	for _, in := range m.TxIn {
		if t.info.Coinbase {
			break
		}
		t.info.Ins = append(t.info.Ins, opText(in.PreviousOutPoint))
		t.info.Signals = t.info.Signals || in.Sequence < wire.MaxTxInSequenceNum-1
	}
	for _, out := range m.TxOut {
		t.info.OutSum += out.Value
		if b.scripts[string(out.PkScript)] == nil && len(t.info.Foreign) < maxForeign {
			if text, ok := b.address(out.PkScript); ok {
				t.info.Foreign = append(t.info.Foreign, text)
			}
		}
	}
	b.txs[id], b.open[id] = t, t
	b.touchTx(t)
	var raw rawBytes
	_ = m.Serialize(&raw) // into memory
	b.dirty[prefRaw+id.String()] = []byte(raw)
	if !t.info.Coinbase {
		for _, in := range m.TxIn {
			b.spends[in.PreviousOutPoint] = append(b.spends[in.PreviousOutPoint], t)
		}
	}
	return t
}

// settle puts a transaction into a block.
func (b *book) settle(t *tx, where *Place) {
	if t.info.Block != nil && *t.info.Block == *where {
		return
	}
	if t.info.Block != nil {
		b.unmine(t)
	}
	delete(b.open, t.id)
	t.info.Block, t.info.Was = where, nil
	t.pooled, t.trouble = false, ""
	revived := t.info.Dead != alive
	t.info.GivenUp = false
	b.wait(t)
	i, _ := slices.BinarySearchFunc(b.mined, t, byPlace)
	b.mined = slices.Insert(b.mined, i, t)
	for _, in := range t.info.Ins {
		if op, err := parseOp(in); err == nil {
			delete(b.live, op)
		}
	}
	if revived {
		b.reviveIf(func(o *tx) bool { return o.info.Via == t.id })
	}
}

func byPlace(a, b *tx) int {
	return cmp.Or(cmp.Compare(a.info.Block.Height, b.info.Block.Height), cmp.Compare(a.info.Block.Index, b.info.Block.Index),
		slices.Compare(a.id[:], b.id[:]))
}

// unmine takes a transaction out of the list of mined ones.
func (b *book) unmine(t *tx) {
	if i, ok := slices.BinarySearchFunc(b.mined, t, byPlace); ok {
		b.mined = slices.Delete(b.mined, i, i+1)
	}
}

// endRivals ends the unconfirmed transactions that spend what a mined one spends.
func (b *book) endRivals(m *wire.MsgTx, id chainhash.Hash, where *Place) {
	for _, in := range m.TxIn {
		for _, rival := range slices.Clone(b.spends[in.PreviousOutPoint]) {
			if rival.id != id && rival.info.Block == nil {
				b.kill(rival, conflicted, id, where, chainhash.Hash{})
			}
		}
	}
}

// kill says that an unconfirmed transaction, and all that builds on it, will not be
// mined as things are.
func (b *book) kill(t *tx, why string, by chainhash.Hash, where *Place, via chainhash.Hash) {
	if t.info.Block != nil || t.info.Dead == conflicted && why != conflicted {
		return
	}
	if t.info.Dead == why && t.info.By == by && samePlace(t.info.ByBlock, where) && t.info.Via == via {
		return
	}
	t.info.Dead, t.info.By, t.info.ByBlock, t.info.Via = why, by, where, via
	t.info.GivenUp = t.info.GivenUp || why == abandoned
	t.pooled = false
	b.touchTx(t)
	root := via
	if root == (chainhash.Hash{}) {
		root = t.id
	}
	for n := range t.info.Outs {
		for _, child := range slices.Clone(b.spends[wire.OutPoint{Hash: t.id, Index: uint32(n)}]) {
			b.kill(child, why, by, where, root)
		}
	}
}

func samePlace(a, b *Place) bool { return a == b || a != nil && b != nil && *a == *b }

// reviveIf lets dead transactions wait to be mined again, but for those given up by hand.
func (b *book) reviveIf(which func(*tx) bool) {
	for _, t := range b.open {
		if t.info.Dead == alive || t.info.Dead == abandoned || !which(t) {
			continue
		}
		if t.info.Coinbase {
			continue // only its block can bring it back
		}
		b.wait(t)
	}
}

// disconnect takes back every block above a height.
func (b *book) disconnect(above int32) {
	for len(b.mined) > 0 {
		t := b.mined[len(b.mined)-1]
		if t.info.Block.Height <= above {
			break
		}
		b.mined = b.mined[:len(b.mined)-1]
		t.info.Was, t.info.Block = t.info.Block, nil
		b.open[t.id] = t
		for _, in := range t.info.Ins {
			op, err := parseOp(in)
			if err != nil {
				continue
			}
			if c := b.coins[op]; c != nil {
				b.live[op] = c
			}
		}
		if t.info.Coinbase {
			b.kill(t, orphaned, chainhash.Hash{}, nil, chainhash.Hash{})
		}
		b.touchTx(t)
	}
	b.reviveIf(func(t *tx) bool {
		return t.info.Dead == conflicted && t.info.ByBlock != nil && t.info.ByBlock.Height > above
	})
}

// minedSpender is the mined transaction that spends an output.
func (b *book) minedSpender(op wire.OutPoint) *tx {
	for _, t := range b.spends[op] {
		if t.info.Block != nil {
			return t
		}
	}
	return nil
}

// spender is who spends a coin for good or for now; nil: nobody.
func (b *book) spender(op wire.OutPoint) *tx {
	for _, t := range b.spends[op] {
		if t.info.Block != nil || t.info.Dead == alive {
			return t
		}
	}
	return nil
}

// forget drops payments of others that are dead or left the mempool, the oldest first, when there are too many, and
// returns how many went. One that is mined all the same is found in its block.
func (b *book) forget(most int) int {
	var dead []*tx
	for _, t := range b.open {
		if (t.info.Dead != alive || !t.pooled && t.info.Was == nil) && !t.info.Own && len(t.info.Debits) == 0 && t.info.Label == "" && !b.builtOn(t) {
			dead = append(dead, t)
		}
	}
	if len(dead) <= most {
		return 0
	}
	slices.SortFunc(dead, func(x, y *tx) int { return byAge(y, x) })
	dead = dead[:len(dead)-most]
	for _, t := range dead {
		b.drop(t)
	}
	return len(dead)
}

// builtOn says whether one of ours spends from a transaction.
func (b *book) builtOn(t *tx) bool {
	return slices.ContainsFunc(t.info.Credits, func(c credit) bool {
		return len(b.spends[wire.OutPoint{Hash: t.id, Index: c.N}]) > 0
	})
}

// drop forgets a transaction without a block.
func (b *book) drop(t *tx) {
	delete(b.txs, t.id)
	delete(b.open, t.id)
	for _, in := range t.info.Ins {
		op, err := parseOp(in)
		if err != nil {
			continue
		}
		left := slices.DeleteFunc(b.spends[op], func(o *tx) bool { return o == t })
		if len(left) == 0 {
			delete(b.spends, op)
		} else {
			b.spends[op] = left
		}
	}
	for _, c := range t.info.Credits {
		op := wire.OutPoint{Hash: t.id, Index: c.N}
		delete(b.coins, op)
		delete(b.live, op)
	}
	b.dirty[prefTx+t.id.String()], b.dirty[prefRaw+t.id.String()] = nil, nil
}

// changes are what is to be stored, and leaves nothing behind.
func (b *book) changes() ([]change, error) {
	if len(b.dirty) == 0 {
		return nil, nil
	}
	out := make([]change, 0, len(b.dirty))
	for key, v := range b.dirty {
		switch v := v.(type) {
		case nil:
			out = append(out, change{key, nil})
		case []byte:
			out = append(out, change{key, v})
		default:
			raw, err := json.Marshal(v)
			if err != nil {
				return nil, fmt.Errorf("wallet: encoding %s: %w", key, err)
			}
			out = append(out, change{key, raw})
		}
	}
	slices.SortFunc(out, func(x, y change) int { return cmp.Compare(x.key, y.key) })
	clear(b.dirty)
	return out, nil
}

// load fills an empty book from a journal. bind gives a stored descriptor its derive.
func (b *book) load(j *journal, bind func(*chainOf) error) error {
	one := func(key string, v any) (bool, error) {
		raw, err := j.get(key)
		if err != nil || raw == nil {
			return false, err
		}
		if err := json.Unmarshal(raw, v); err != nil {
			return false, fmt.Errorf("wallet journal: %s: %w", key, err)
		}
		return true, nil
	}
	if _, err := one(keyMeta, &b.meta); err != nil {
		return err
	}
	if _, err := one(keyPos, &b.pos); err != nil {
		return err
	}
	if _, err := one(keyRescan, &b.rescan); err != nil {
		return err
	}
	var descs []*chainOf
	for _, key := range j.keys(prefDesc) {
		c := &chainOf{id: key[len(prefDesc):]}
		if _, err := one(key, &c.info); err != nil {
			return err
		}
		if err := bind(c); err != nil {
			return err
		}
		descs = append(descs, c)
	}
	slices.SortFunc(descs, func(x, y *chainOf) int {
		return cmp.Or(cmp.Compare(x.info.Order, y.info.Order), cmp.Compare(x.id, y.id))
	})
	for _, c := range descs {
		err := b.add(c, func(i uint32) []byte {
			script, _ := j.get(prefOut + addrKey(c.id, i)) // else it is derived
			return script
		})
		if err != nil {
			return err
		}
	}
	for _, key := range j.keys(prefAddr) {
		id, index, _ := strings.Cut(key[len(prefAddr):], "/")
		i, err := strconv.ParseUint(index, 10, 31)
		c := b.descs[id]
		if err != nil || c == nil || i >= uint64(len(c.scripts)) {
			continue // of a descriptor that is gone
		}
		if _, err := one(key, &c.scripts[i].info); err != nil {
			return err
		}
	}
	if err := b.loadTxs(j, one); err != nil {
		return err
	}
	for _, key := range j.keys(prefLock) {
		if op, err := parseOp(key[len(prefLock):]); err == nil {
			b.locked[op] = true
		}
	}
	b.grown = false
	return nil
}

func (b *book) loadTxs(j *journal, one func(string, any) (bool, error)) error {
	for _, key := range j.keys(prefTx) {
		id, err := chainhash.NewHashFromStr(key[len(prefTx):])
		if err != nil {
			return fmt.Errorf("wallet journal: %s: %w", key, err)
		}
		t := &tx{id: *id}
		if _, err := one(key, &t.info); err != nil {
			return err
		}
		b.txs[t.id] = t
		if t.info.Block == nil {
			b.open[t.id] = t
		} else {
			b.mined = append(b.mined, t)
		}
		for _, in := range t.info.Ins {
			op, err := parseOp(in)
			if err != nil {
				return fmt.Errorf("wallet journal: %s: %w", key, err)
			}
			b.spends[op] = append(b.spends[op], t)
		}
	}
	slices.SortFunc(b.mined, byPlace)
	for _, t := range b.txs {
		for _, c := range t.info.Credits {
			to := b.payee(c)
			if to == nil {
				continue
			}
			op := wire.OutPoint{Hash: t.id, Index: c.N}
			k := &coin{op: op, tx: t, amount: c.Amount, to: to}
			b.coins[op] = k
			if b.minedSpender(op) == nil {
				b.live[op] = k
			}
		}
	}
	return nil
}

// opText names an output: "txid:vout".
func opText(op wire.OutPoint) string {
	return op.Hash.String() + ":" + strconv.FormatUint(uint64(op.Index), 10)
}

// parseOp reads what opText writes.
func parseOp(s string) (wire.OutPoint, error) {
	id, n, ok := strings.Cut(s, ":")
	hash, err := chainhash.NewHashFromStr(id)
	index, err2 := strconv.ParseUint(n, 10, 32)
	if !ok || err != nil || err2 != nil || len(id) != hex.EncodedLen(chainhash.HashSize) {
		return wire.OutPoint{}, fmt.Errorf("coin %q: want TXID:N, 64 hex digits and the output's number", clip(s))
	}
	return wire.OutPoint{Hash: *hash, Index: uint32(index)}, nil
}

// clip bounds how much of a request an answer repeats.
func clip(s string) string {
	const most = 100
	if len(s) > most {
		s = s[:most] + "…"
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}

func isCoinbase(m *wire.MsgTx) bool {
	return len(m.TxIn) == 1 && m.TxIn[0].PreviousOutPoint.Index == math.MaxUint32 && m.TxIn[0].PreviousOutPoint.Hash == chainhash.Hash{}
}

// rawBytes is an io.Writer into memory.
type rawBytes []byte

// Write implements io.Writer.
func (r *rawBytes) Write(p []byte) (int, error) {
	*r = append(*r, p...)
	return len(p), nil
}
