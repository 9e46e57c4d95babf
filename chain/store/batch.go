package store

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/wire/v2"
	"github.com/cockroachdb/pebble/v2"

	"dunlin/chain/consensus"
)

// A Batch gathers what one Commit writes. Not safe for concurrent use. It copies
// what it is given. Later calls win over earlier ones on the same key. A value
// that cannot be stored makes Commit fail.
type Batch struct {
	b     *pebble.Batch // nil once committed
	err   error         // the first value that cannot be stored
	tip   bool          // SetTip was called
	prune *prunePoint   // nil: nothing is pruned
}

// NewBatch returns an empty batch.
func (s *Store) NewBatch() *Batch { return &Batch{b: s.index.db.NewBatch()} }

// reject keeps the first fault.
func (b *Batch) reject(format string, args ...any) {
	if b.err == nil {
		b.err = fmt.Errorf("store: "+format, args...)
	}
}

func (b *Batch) keep(err error) {
	if b.err == nil && err != nil {
		b.err = fmt.Errorf("store: fill batch: %w", err)
	}
}

func (b *Batch) set(key, value []byte) { b.keep(b.b.Set(key, value, nil)) }

// PutHeader adds or replaces a node.
func (b *Batch) PutHeader(hash chainhash.Hash, r HeaderRecord) {
	switch {
	case r.Height < 0:
		b.reject("header %v has height %d", hash, r.Height)
	case len(r.Raw) < consensus.HeaderBytes || len(r.Raw) > maxHeaderBytes:
		b.reject("header %v has %d bytes, must be %d to %d", hash, len(r.Raw), consensus.HeaderBytes, maxHeaderBytes)
	default:
		b.set(headerKey(r.Height, hash), appendHeaderRecord(nil, &r))
	}
}

// DeleteHeader removes a node on which nothing builds; one that is not there is no fault.
func (b *Batch) DeleteHeader(height int32, hash chainhash.Hash) {
	if height < 0 {
		b.reject("header %v has height %d", hash, height)
		return
	}
	b.keep(b.b.Delete(headerKey(height, hash), nil))
}

// PutCoin adds a coin.
func (b *Batch) PutCoin(op wire.OutPoint, c consensus.Coin) {
	if c.Height < 0 || c.Value < 0 {
		b.reject("coin %v has height %d and value %d", op, c.Height, c.Value)
		return
	}
	d := b.b.SetDeferred(coinKeyBytes, coinBytes(&c))
	putCoinKey(d.Key, op)
	appendCoin(d.Value[:0], &c)
	b.keep(d.Finish())
}

// DeleteCoin removes a coin; one that is not there is no fault.
func (b *Batch) DeleteCoin(op wire.OutPoint) {
	d := b.b.DeleteDeferred(coinKeyBytes)
	putCoinKey(d.Key, op)
	b.keep(d.Finish())
}

// SetTip moves the validated tip.
func (b *Batch) SetTip(t Tip) {
	if t.Height < 0 {
		b.reject("tip %v has height %d", t.Hash, t.Height)
		return
	}
	b.tip = true
	b.set([]byte{prefixTip}, appendTip(nil, t))
}

// PutMeta stores a value of at most 64 KiB under a name of the caller's, 1 to 255
// bytes.
func (b *Batch) PutMeta(name string, value []byte) {
	if name == "" || len(name) > maxMetaName {
		b.reject("meta name has %d bytes, must be 1 to %d", len(name), maxMetaName)
		return
	}
	if len(value) > maxMetaValue {
		b.reject("meta %s has %d bytes, must be at most %d", name, len(value), maxMetaValue)
		return
	}
	b.set(metaKey(name), value)
}

// Commit makes b durable: it syncs every appended byte, then writes b and the
// current write positions in one synced batch. It consumes b. It blocks for the
// disk. After an error of the disk the store is read-only until reopened, and
// whether b was written is known only then; a value that cannot be stored
// changes nothing.
func (s *Store) Commit(b *Batch) error {
	if err := s.enter(); err != nil {
		return err
	}
	defer s.users.Done()
	switch {
	case s.failed != nil:
		return s.failed
	case b.b == nil:
		return errors.New("store: batch was committed before")
	case b.err != nil:
		return b.err
	}
	if err := s.commitBatch(b); err != nil {
		s.failed = fmt.Errorf("commit: %w", err)
		return s.failed
	}
	return nil
}

func (s *Store) commitBatch(b *Batch) error {
	for _, f := range []*series{s.blocks, s.undo} {
		if err := f.sync(); err != nil {
			return err
		}
		for file, end := range f.takeFinished() {
			b.set(endKey(f.id, file), binary.LittleEndian.AppendUint32(nil, end))
		}
	}
	if b.prune != nil {
		if err := s.preparePrune(b); err != nil {
			return err
		}
	}
	w := written{blocks: s.blocks.next(), undo: s.undo.next(), commit: s.commit + 1}
	b.set([]byte{prefixWritten}, appendWritten(nil, w))
	b.set(ringKey(w.commit), binary.LittleEndian.AppendUint64(nil, w.commit))
	if b.err != nil {
		return b.err
	}
	batch := b.b
	b.b = nil
	if err := s.index.guard(func() error { return batch.Commit(pebble.Sync) }); err != nil {
		return err
	}
	s.commit = w.commit
	s.blocks.committed()
	s.undo.committed()
	if b.prune != nil {
		s.finishPrune(b.prune)
	}
	if s.marked && b.tip {
		// The new index is to be trusted, if not complete.
		if err := s.beginFilling(); err != nil {
			return errors.Join(err, batch.Close())
		}
		s.marked = false
	}
	return batch.Close()
}
