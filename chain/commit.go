package chain

import (
	"fmt"
	"slices"
	"time"

	"dunlin/chain/store"
)

// armFlush starts the clock of the next commit.
func (c *conductor) armFlush() {
	if !c.flushArmed {
		c.flushArmed = true
		c.flushTimer.Reset(c.o.FlushInterval)
	}
}

// maxDirtyHeaders is how many changed headers force a commit: about 10 MB of batch.
const maxDirtyHeaders = 1 << 16

// commitIfDue commits when there is much to lose.
func (c *conductor) commitIfDue() error {
	c.tree.mu.RLock()
	headers := len(c.tree.dirty)
	c.tree.mu.RUnlock()
	if c.coins.dirtyBytes >= c.o.FlushBytes || c.coins.bytes >= c.o.CacheBytes ||
		headers >= maxDirtyHeaders || (!c.away && c.sinceCommit >= c.o.FlushBlocks) {
		return c.commit()
	}
	return nil
}

// commit is the barrier: it waits for the scripts in flight, then makes coins,
// headers and tip durable together.
func (c *conductor) commit() error {
	if err := c.drain(); err != nil {
		return err
	}
	if err := c.save(); err != nil {
		return err
	}
	return c.pruneIfDue()
}

// save commits; nothing is in flight.
func (c *conductor) save() error {
	c.flushTimer.Stop()
	c.flushArmed = false
	c.tree.mu.RLock()
	headers := len(c.tree.dirty) + len(c.tree.erase)
	c.tree.mu.RUnlock()
	doubles := c.claims.unsavedDoubles()
	if headers > 0 || len(c.coins.dirty) > 0 || c.verified != c.committed || doubles > 0 {
		b := c.store.NewBatch()
		if doubles > 0 {
			doubles = c.claims.writeDoubles(b)
		}
		written, err := c.writeHeaders(b)
		if err != nil {
			return fmt.Errorf("committing headers: %w", err)
		}
		c.coins.write(b)
		nd := c.tree.node(c.verified)
		b.SetTip(store.Tip{Hash: nd.hash, Height: nd.height})
		if err := c.store.Commit(b); err != nil {
			return fmt.Errorf("committing the chain at height %d: %w", nd.height, err)
		}
		c.tree.forgetSeals(written)
		c.claims.noteSaved(doubles)
		c.coins.clean(c.o.CacheBytes / 4 * 3) // so that the next commit is not due at once
		c.committed = c.verified
		if err := c.saveAnchor(); err != nil {
			return err
		}
	}
	if c.reindex && !c.replaying && headers > 0 {
		c.tree.mu.RLock()
		strays := len(c.tree.strays)
		c.tree.mu.RUnlock()
		if strays == 0 { // every block on disk has found its place
			if err := c.endReindex(0); err != nil {
				return err
			}
		}
	}
	c.sinceCommit = 0
	for _, d := range c.unsaved {
		d.it.answer(d.v)
	}
	clear(c.unsaved)
	c.unsaved = c.unsaved[:0]
	return nil
}

// writeHeaders puts every changed node into b and returns them. It works through
// a few at a time, for readers wait meanwhile.
func (c *conductor) writeHeaders(b *store.Batch) (written []uint32, err error) {
	const some = 1024
	t := c.tree
	t.mu.Lock()
	written, t.dirty = t.dirty, nil
	erase := t.erase
	t.erase = nil
	t.mu.Unlock()
	for _, r := range erase { // before one of them is put again
		b.DeleteHeader(r.height, r.hash)
	}
	records := make([]store.HeaderRecord, 0, min(some, len(written)))
	var raw []byte
	for rest := written; len(rest) > 0; {
		n := min(some, len(rest))
		records = records[:0]
		t.mu.Lock()
		for _, i := range rest[:n] {
			records = append(records, t.record(i))
			*t.flags(i) &^= flagDirty
			if t.capped {
				t.loose(i).stored[i%chunkNodes] = true
			}
		}
		t.mu.Unlock()
		for k, i := range rest[:n] {
			if raw, err = c.appendHeader(raw[:0], i); err != nil {
				return nil, err
			}
			records[k].Raw = raw
			b.PutHeader(t.node(i).hash, records[k])
		}
		rest = rest[n:]
	}
	return written, nil
}

// maxSeals is how many seals are kept in memory, of headers whose blocks are to come and
// are compared with them: some 6 MB, as many as a sync has outstanding.
const maxSeals = 1 << 15

// forgetSeals drops the seals of nodes that a commit has written, but of those that will
// be wanted soon.
func (t *tree) forgetSeals(written []uint32) {
	if t.sealBytes == 0 {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, i := range written {
		if len(t.seals) > maxSeals || t.body(i).block.Size > 0 || t.has(i, flagBad) {
			delete(t.seals, i)
		}
	}
}

// halt ends in good order: what is not verified yet is taken back, for its bytes
// are on disk and the next start goes on with it (or they lie aside, and are fetched again),
// and the rest is committed.
func (c *conductor) halt() error {
	for _, f := range c.flights {
		f.dropped.Store(true)
	}
	for _, f := range slices.Backward(c.flights) {
		if err := c.takeBack(&f.step); err != nil {
			return err
		}
		c.waiting[f.node] = f.item // which learns that there is no verdict
	}
	c.flights, c.applied = nil, c.verified
	return c.save()
}

// How often the free space is asked for: while blocks come, or there is too little,
// and while nothing happens.
const (
	diskInterval     = time.Second
	diskIdleInterval = 10 * time.Second
)

// checkDisk asks how much space is free and says whether that is too little. It
// logs once that there is too little and once that there is enough again.
func (c *conductor) checkDisk() (low bool) {
	if c.o.MinFreeBytes == 0 {
		return false
	}
	c.diskChecked, c.diskSpent = time.Now(), 0
	free, err := c.store.DiskFree()
	low = err == nil && free < c.o.MinFreeBytes // a file system that cannot tell is none that is full
	switch was := c.lowDisk.Swap(low); {
	case low && !was:
		c.log.Error("too little disk space, no block is accepted until some is freed", "dir", c.o.Dir, "free_bytes", free, "least_bytes", c.o.MinFreeBytes)
	case was && !low:
		c.log.Info("disk space is back, accepting blocks again", "free_bytes", free, "least_bytes", c.o.MinFreeBytes)
	}
	every := diskIdleInterval
	if low {
		every = diskInterval
	}
	c.diskTimer.Reset(every)
	return low
}

// waitForDisk returns nil when there is room on the disk for it: at once, or, for a
// block of sync or of an import, when some is freed. Who waits for a verdict is told
// ErrLowDisk instead, also where such a block waits behind one that has patience.
func (c *conductor) waitForDisk(it *item) error {
	c.diskSpent += uint64(len(it.raw))
	// A fast sync writes a small reserve in less than the interval.
	if time.Since(c.diskChecked) < diskInterval && c.diskSpent < c.o.MinFreeBytes/8 && !c.lowDisk.Load() {
		return nil
	}
	for c.checkDisk() {
		if !it.patient() {
			return ErrLowDisk
		}
		var err error
		select {
		case <-c.diskTimer.C:
		case next := <-c.queue.order:
			if next.patient() {
				c.held = append(c.held, next)
				continue
			}
			if err = c.await(next); err != nil { // a worker may still have it, so its hash stays unread
				next.answer(Verdict{Outcome: Failed, Height: -1, Err: ErrClosed})
				return err
			}
			next.answer(Verdict{Outcome: Failed, Hash: next.hash, Height: -1, Err: ErrLowDisk})
		case <-c.w.done:
			err = c.finish()
		case r := <-c.asked:
			err = c.serve(r)
		case <-c.stop:
			err = errStopping
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// patient says whether a block may wait for disk space: nobody waits for its verdict.
func (it *item) patient() bool { return it.src.Kind == FromSync || it.src.Kind == FromImport }
