// Package index finds what the chain itself does not keep: the block of a transaction,
// and what happened to an output script.
//
// An [Index] follows the chain from behind: it reads blocks from disk, in order, at its
// own pace, and never holds validation up. It is a database of its own, made of the
// blocks alone, so that it can be dropped and made anew; nothing of the chain depends on
// it. docs/storage.md has its bytes, docs/decisions/0009 the reasons.
//
// Invariants:
//
//   - A block is indexed once, after its parent, under the next number. So numbers ascend
//     along every branch, and the indexed blocks are closed under parents.
//   - Nothing is taken back: an entry names its block, and counts if that block is on the
//     active chain when it is read. A reorganisation costs the index nothing, and no crash,
//     of the index or of the chain below it, can leave it wrong, only behind.
//   - Blocks of a commit are there wholly or not at all.
package index

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/wire/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"dunlin/chain"
	"dunlin/chain/consensus"
	"dunlin/chain/store"
)

// Kind is what an index finds.
type Kind uint8

// The kinds. Each is a database of its own.
const (
	Txs       Kind = iota + 1 // the block of a transaction
	Addresses                 // what was paid to an output script, and spent from it
)

// String is the name of the setting.
func (k Kind) String() string {
	if k == Addresses {
		return "address_index"
	}
	return "tx_index"
}

// Folder is the name of its database in the home.
func (k Kind) Folder() string {
	if k == Addresses {
		return "index-address"
	}
	return "index-tx"
}

// FormatVersion is that of docs/storage.md.
const FormatVersion = 1

const (
	// batchBytes and batchBlocks end a commit while there is more to index: what a crash
	// may cost to do again, in memory and in time.
	batchBytes  = 4 << 20
	batchBlocks = 2000
	// progressInterval is that of the log's line while it is behind by more than farBehind.
	progressInterval = 30 * time.Second
	farBehind        = 1000
	// retryAfter is the pause after a block could not be read, so that it cannot fill the log.
	retryAfter = 30 * time.Second
)

// ErrPruned says that blocks are gone which are not indexed.
var ErrPruned = errors.New("the blocks that it is made of were pruned")

// Chain is what an index reads of the chain.
type Chain interface {
	Params() *consensus.Params
	Ready() <-chan struct{}
	Tip() (chain.Tip, <-chan struct{})
	HashAt(height int32) (chainhash.Hash, bool)
	Status(hash chainhash.Hash) (chain.NodeStatus, bool)
	Block(hash chainhash.Hash) ([]byte, error)
	ReadBlockPart(hash chainhash.Hash, offset int64, dst []byte) error
	Spent(b *consensus.Block) ([][]consensus.Coin, error)
	Coin(op wire.OutPoint) (consensus.Coin, bool, error)
	Lowest() int32
}

// Options configure Open.
type Options struct {
	Kind    Kind
	Chain   Chain
	ChainID string
	Dir     string           // the home
	FS      vfs.FS           // default vfs.Default
	Logger  *slog.Logger     // default: discards
	Now     func() time.Time // default time.Now
	// BatchBlocks ends a commit; default 2000.
	BatchBlocks int
	// MemTableBytes is that of [store.SideOptions].
	MemTableBytes int64
}

// A Status says how far an index is.
type Status struct {
	Name    string
	Synced  bool  // at the tip, or was and follows it
	Height  int32 // of the highest block of the active chain that is indexed; -1: none
	Target  int32 // of the tip
	Percent float64
	Bytes   int64 // on disk
	Err     error // why it does not go on; nil while it does
}

// An Index is open. All methods but Run and Close are safe for concurrent use.
type Index struct {
	o    Options
	log  *slog.Logger
	side *store.Side

	next uint32     // number of the next block; Run's, after Open
	last *blockMark // the last block indexed; Run's

	mu     sync.Mutex // guards what follows; held for assignments
	synced bool
	height int32
	err    error
	told   string // the last error that the log has; "" once it went on
}

// A blockMark is a block of the active chain.
type blockMark struct {
	hash   chainhash.Hash
	height int32
}

// Open opens an index, or makes an empty one. One that is damaged, or of a newer version,
// is dropped and made anew, with a word in the log. It starts nothing.
func Open(o Options) (*Index, error) {
	if o.Kind != Txs && o.Kind != Addresses || o.Chain == nil || o.Dir == "" || o.ChainID == "" {
		return nil, errors.New("index: kind, chain, chain id and folder are required")
	}
	if o.FS == nil {
		o.FS = vfs.Default
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.BatchBlocks <= 0 {
		o.BatchBlocks = batchBlocks
	}
	x := &Index{o: o, log: o.Logger.With("index", o.Kind.String()), height: -1}
	err := x.open()
	damage, damaged := errors.AsType[*store.DamageError](err)
	if damaged || errors.Is(err, store.ErrNewerFormat) || errors.Is(err, store.ErrOtherChain) {
		if damaged {
			err = errors.New(damage.What)
		}
		x.log.Warn("index cannot be used and is built anew", "err", err)
		if err := Drop(o.FS, o.Dir, o.Kind); err != nil {
			return nil, err
		}
		err = x.open()
	}
	if err != nil {
		return nil, fmt.Errorf("opening %s: %w", o.Kind, err)
	}
	return x, nil
}

// Drop removes an index that is not open; none is no error.
func Drop(fs vfs.FS, home string, k Kind) error { return store.DropSide(fs, home, k.Folder()) }

func (x *Index) open() (err error) {
	x.side, _, err = store.OpenSide(store.SideOptions{
		FS: x.o.FS, Dir: x.o.Dir, Name: x.o.Kind.Folder(), ChainID: x.o.ChainID, Version: FormatVersion,
		Mend: "dunlin chain reindex " + reindexFlag[x.o.Kind], MemTableBytes: x.o.MemTableBytes, Logger: x.log,
	})
	if err != nil {
		return err
	}
	if err := x.count(); err != nil {
		return errors.Join(err, x.side.Close())
	}
	return nil
}

var reindexFlag = map[Kind]string{Txs: "--tx-index", Addresses: "--address-index"}

// count finds the number of the next block, and that no number is missing: a damaged
// manifest makes Pebble forget the tables of a commit in the middle.
func (x *Index) count() error {
	x.next = 0
	return x.side.Each([]byte{prefixBlock}, []byte{prefixBlock + 1}, func(k, v []byte) error {
		if len(k) != 5 || len(v) != 36 {
			return x.side.Malformed(k, "malformed block")
		}
		if n := binary.BigEndian.Uint32(k[1:]); n != x.next {
			return x.side.Malformed(k, fmt.Sprintf("block number %d follows %d", n, int64(x.next)-1))
		}
		x.next++
		return nil
	})
}

// Close closes the database, after Run has returned.
func (x *Index) Close() error { return x.side.Close() }

// Run keeps the index up with the chain until ctx ends; it returns ctx's error. Its own
// trouble (a full disk, a pruned block) does not end it: Status has it, the log says it
// once, and a fault that may pass is tried again.
func (x *Index) Run(ctx context.Context) error {
	select {
	case <-x.o.Chain.Ready(): // before, the tip runs through old blocks
	case <-ctx.Done():
		return ctx.Err()
	}
	for ctx.Err() == nil {
		moved, err := x.catchUp(ctx)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, errMoved):
			continue
		case err != nil:
			x.fail(err)
			if !sleep(ctx, retryAfter) {
				return ctx.Err()
			}
			continue
		}
		select {
		case <-moved:
		case <-ctx.Done():
		}
	}
	return ctx.Err()
}

// fail keeps an error for Status and logs it if it is another.
func (x *Index) fail(err error) {
	x.mu.Lock()
	same := x.told == err.Error()
	x.err, x.told = err, err.Error()
	x.mu.Unlock()
	x.last = nil // it may be of a batch that was lost
	if !same {
		x.log.Error("index stands still", "err", err)
	}
}

// errMoved says that the chain changed branch under our feet.
var errMoved = errors.New("the chain changed to another branch")

// catchUp indexes every block of the active chain that is not. moved is closed when there
// may be more.
func (x *Index) catchUp(ctx context.Context) (moved <-chan struct{}, err error) {
	tip, moved := x.o.Chain.Tip()
	from, err := x.fork(tip.Height)
	if err != nil {
		return nil, err
	}
	x.mu.Lock()
	x.height = from
	x.mu.Unlock()
	b := x.side.Batch()
	blocks := 0
	began, told := x.o.Now(), x.o.Now()
	behind := tip.Height-from > farBehind
	if behind {
		x.log.Info("index is being built", "from", from+1, "to", tip.Height)
	}
	at := from // the last that is in the batch
	commit := func() error {
		if blocks == 0 {
			return nil
		}
		if err := x.side.Commit(b); err != nil {
			return err
		}
		b, blocks = x.side.Batch(), 0
		x.tell(at, tip.Height, false)
		return nil
	}
	end := func(why error) (<-chan struct{}, error) {
		if err := commit(); err != nil { // a write that failed is worse than any reason to stop
			return nil, err
		}
		return nil, why
	}
	for h := from + 1; h <= tip.Height; h++ {
		if err := ctx.Err(); err != nil {
			return end(err)
		}
		hash, ok := x.o.Chain.HashAt(h)
		if !ok {
			return end(errMoved)
		}
		if err := x.add(b, hash, h); err != nil {
			return end(err)
		}
		at = h
		blocks++
		if b.Bytes() >= batchBytes || blocks >= x.o.BatchBlocks {
			if err := commit(); err != nil {
				return nil, err
			}
			if now := x.o.Now(); behind && now.Sub(told) >= progressInterval {
				x.log.Info("index is being built", "height", h, "target", tip.Height, "percent", percent(h, tip.Height))
				told = now
			}
		}
	}
	if err := commit(); err != nil {
		return nil, err
	}
	x.tell(tip.Height, tip.Height, true)
	if behind {
		x.log.Info("index built", "height", tip.Height, "took", x.o.Now().Sub(began).Round(time.Millisecond))
	}
	return moved, nil
}

// tell publishes how far the index is; once it was at the tip it counts as synced.
func (x *Index) tell(height, tip int32, done bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.height, x.err, x.told = height, nil, ""
	// A tip that has just come, or a sync that goes on, does not make it unfinished, a
	// long way behind does.
	x.synced = done || x.synced && tip-height <= farBehind
}

// fork finds the highest block of the active chain that is indexed; -1: none. Those that
// are indexed are closed under parents, so it can be searched for.
func (x *Index) fork(tip int32) (int32, error) {
	if l := x.last; l != nil { // mostly it is where we were
		if hash, ok := x.o.Chain.HashAt(l.height); ok && hash == l.hash {
			return l.height, nil
		}
	}
	low, high := int32(-1), tip // low is indexed (or -1), above high nothing is
	for low < high {
		mid := low + (high-low+1)/2
		hash, ok := x.o.Chain.HashAt(mid)
		if !ok {
			return 0, errMoved
		}
		_, indexed, err := x.numberOf(hash)
		if err != nil {
			return 0, err
		}
		if indexed {
			low = mid
		} else {
			high = mid - 1
		}
	}
	x.last = nil
	if low >= 0 {
		hash, ok := x.o.Chain.HashAt(low)
		if _, indexed, err := x.numberOf(hash); err != nil || !ok || !indexed {
			return 0, errors.Join(errMoved, err)
		}
		x.last = &blockMark{hash, low}
	}
	return low, nil
}

// add puts a block of the active chain into a batch. Its parent must be the last one
// indexed.
func (x *Index) add(b *store.SideBatch, hash chainhash.Hash, height int32) error {
	s, ok := x.o.Chain.Status(hash)
	if !ok || height > 0 && (x.last == nil || s.Header.PrevBlock != x.last.hash) {
		return errMoved
	}
	_, known, err := x.numberOf(hash)
	if err != nil {
		return err
	}
	if !known { // it may be: the chain came back to a branch
		number := x.next
		raw, err := x.o.Chain.Block(hash)
		if errors.Is(err, chain.ErrNotFound) && s.Pruned {
			return fmt.Errorf("block %d: %w", height, ErrPruned)
		}
		if err != nil {
			return fmt.Errorf("block %d: %w", height, err)
		}
		if x.o.Kind == Txs {
			err = x.addTxs(b, raw, number, height)
		} else {
			err = x.addScripts(b, raw, number, height)
		}
		if err != nil {
			return fmt.Errorf("block %d: %w", height, err)
		}
		b.Put(blockKey(number), binary.BigEndian.AppendUint32(hash[:len(hash):len(hash)], uint32(height)))
		b.Put(hashKey(&hash), binary.BigEndian.AppendUint32(nil, number))
		x.next++
	}
	x.last = &blockMark{hash, height}
	return nil
}

// Status says how far the index is.
func (x *Index) Status() Status {
	tip, _ := x.o.Chain.Tip()
	x.mu.Lock()
	s := Status{Name: x.o.Kind.String(), Synced: x.synced && x.err == nil, Height: min(x.height, tip.Height), Target: tip.Height, Err: x.err}
	x.mu.Unlock()
	s.Percent = percent(s.Height, s.Target)
	s.Bytes = x.side.Size()
	return s
}

// percent is how much of the chain is indexed, rounded down to a tenth, and 100 only when
// all is.
func percent(height, tip int32) float64 {
	if height >= tip {
		return 100
	}
	return float64(1000*(int64(height)+1)/(int64(tip)+1)) / 10
}

func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// DropAt is Drop on the file system of the machine.
func DropAt(home string, k Kind) error { return Drop(vfs.Default, home, k) }
