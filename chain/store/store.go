// Package store keeps a chain on disk: append-only block and undo files, and a
// Pebble database with the header tree, the coins and the tip.
//
// It knows bytes and positions, not rules. Invariant: the committed tip is never
// ahead of the bytes: [Store.Commit] syncs block and undo files before the one
// synced Pebble batch that moves coins, positions, index and tip together.
package store

import (
	"log/slog"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/wire/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"dunlin/chain/consensus"
)

// FormatVersion is the version of the on-disk format. A newer one is refused.
const FormatVersion = 1

// Options configure Open. Zero means the default given.
type Options struct {
	Dir          string // the folder that holds blocks/, undo/ and index/; made 0700 if missing
	FS           vfs.FS // default vfs.Default
	ChainID      string // written at creation, compared on open
	Magic        uint32 // before each record of the block files (the network's, as bootstrap.dat)
	MaxFileBytes int64  // start a new block file past this; default 128 MiB
	CacheBytes   int64  // Pebble block cache; default 16 MiB
	Logger       *slog.Logger
}

// A Pos is where a record lies: the file's number and the offset of its payload.
// Size 0 means none.
type Pos struct {
	File   uint32
	Offset uint32
	Size   uint32
}

// A HeaderRecord is one node of the header tree as stored.
type HeaderRecord struct {
	Height int32
	Raw    []byte // header ‖ seal
	Status uint8  // opaque to the store: chain's flags
	Txs    uint32 // number of transactions once the block is known, else 0
	Block  Pos
	Undo   Pos
}

// A Tip is what the last commit ended at.
type Tip struct {
	Hash   chainhash.Hash
	Height int32
}

// A Batch gathers what one Commit writes. Not safe for concurrent use.
type Batch struct{}

// PutHeader adds or replaces a node.
func (b *Batch) PutHeader(hash chainhash.Hash, r HeaderRecord) { panic("stub") }

// PutCoin adds a coin.
func (b *Batch) PutCoin(op wire.OutPoint, c consensus.Coin) { panic("stub") }

// DeleteCoin removes a coin.
func (b *Batch) DeleteCoin(op wire.OutPoint) { panic("stub") }

// SetTip moves the validated tip.
func (b *Batch) SetTip(t Tip) { panic("stub") }

// PutMeta stores a small value under a name of the caller's.
func (b *Batch) PutMeta(name string, value []byte) { panic("stub") }

// A Store is open storage of one chain. Reads are safe for concurrent use;
// appends and commits belong to one goroutine.
type Store struct{}

// Open opens or creates a store. It takes the lock file and refuses a folder of
// another chain, of a newer format or in use, each with an error that says so.
func Open(o Options) (*Store, error) { panic("stub") }

// NewBatch returns an empty batch.
func (s *Store) NewBatch() *Batch { panic("stub") }

// Commit makes b durable: it syncs every appended byte, then writes b and the
// current write positions in one synced batch. After an error the store is
// read-only until reopened.
func (s *Store) Commit(b *Batch) error { panic("stub") }

// AppendBlock appends a block record (not yet synced).
func (s *Store) AppendBlock(raw []byte) (Pos, error) { panic("stub") }

// AppendUndo appends an undo record (not yet synced).
func (s *Store) AppendUndo(raw []byte) (Pos, error) { panic("stub") }

// ReadBlock returns the bytes at p after checking magic, length and CRC32C.
func (s *Store) ReadBlock(p Pos) ([]byte, error) { panic("stub") }

// ReadUndo is ReadBlock for the undo files.
func (s *Store) ReadUndo(p Pos) ([]byte, error) { panic("stub") }

// Coin looks a coin up in the committed state.
func (s *Store) Coin(op wire.OutPoint) (consensus.Coin, bool, error) { panic("stub") }

// Coins calls f with every committed coin in key order until f fails.
func (s *Store) Coins(f func(wire.OutPoint, consensus.Coin) error) error { panic("stub") }

// Headers calls f with every node, in ascending height, until f fails.
func (s *Store) Headers(f func(chainhash.Hash, HeaderRecord) error) error { panic("stub") }

// Tip returns the committed tip; false in a new store.
func (s *Store) Tip() (Tip, bool, error) { panic("stub") }

// Meta returns what PutMeta stored.
func (s *Store) Meta(name string) ([]byte, bool, error) { panic("stub") }

// ScanTail calls f with each whole record that lies past the last committed
// write position: bytes that a crash left behind, to be used rather than
// downloaded again. It ends at the first torn record, from where appends go on.
// Call it once, after Open and before the first append.
func (s *Store) ScanTail(f func(Pos, []byte) error) error { panic("stub") }

// DiskFree returns the bytes free on the folder's file system.
func (s *Store) DiskFree() (uint64, error) { panic("stub") }

// Size returns the bytes used by block files, undo files and the database.
func (s *Store) Size() (blocks, undo, index int64) { panic("stub") }

// Close releases everything. It commits nothing.
func (s *Store) Close() error { panic("stub") }
