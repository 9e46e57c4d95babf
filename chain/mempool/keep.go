package mempool

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

const (
	// newSuffix is of the file while it is written, asideSuffix of one that could
	// not be read.
	newSuffix   = ".new"
	asideSuffix = ".aside"
	// saveBytesPerSecond is how much writing the file may cost in the long run: a
	// large pool is written less often.
	saveBytesPerSecond = 256 << 10
)

// keep reads Options.File and then keeps it up to date until ctx ends. What goes
// wrong is logged: the pool works without.
func (p *Pool) keep(ctx context.Context) {
	select {
	case <-p.o.Chain.Ready():
	case <-ctx.Done():
		select {
		case <-p.o.Chain.Ready(): // with no file to read there is time to write one
		default:
			return // the file stays as it is
		}
	}
	if err := p.readFile(ctx); err != nil {
		if ctx.Err() == nil {
			p.log.Warn("mempool not loaded, and its file not written in this run", "file", p.o.File, "err", err)
		}
		return // it has what was not loaded
	}
	var k keeper
	k.pool = p
	t := time.NewTimer(p.o.SaveEvery)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			t.Reset(max(p.o.SaveEvery, k.save(ctx, false)))
		case <-ctx.Done():
			k.save(context.WithoutCancel(ctx), true)
			return
		}
	}
}

// readFile loads the file. A file that is of no use is set aside: no error.
func (p *Pool) readFile(ctx context.Context) error {
	// What a crash left while it was written.
	if err := p.o.FS.Remove(p.o.File + newSuffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	start := p.o.Now()
	report, err := p.loadFile(ctx)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case errors.Is(err, errFile):
		aside := p.o.File + asideSuffix
		if e := p.o.FS.Rename(p.o.File, aside); e != nil {
			return errors.Join(err, e)
		}
		p.log.Warn("mempool file set aside", "file", p.o.File, "to", aside, "err", err, "loaded", report.Accepted)
		return nil
	case err != nil:
		return err
	}
	p.log.Info("mempool loaded", "txs", report.Accepted, "expired", report.Expired, "refused", report.Refused,
		"left_out", report.LeftOut, "took_ms", p.o.Now().Sub(start).Milliseconds())
	return nil
}

func (p *Pool) loadFile(ctx context.Context) (report LoadReport, err error) {
	f, err := p.o.FS.Open(p.o.File)
	if err != nil {
		return report, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	info, err := f.Stat()
	if err != nil {
		return report, err
	}
	return p.Load(ctx, f, info.Size())
}

// A keeper is what only keep's goroutine knows.
type keeper struct {
	pool    *Pool
	saved   uint64 // Pool.changes at the last save
	failing bool
}

// save writes the file if something changed, and returns how long to wait before
// the next time.
func (k *keeper) save(ctx context.Context, last bool) time.Duration {
	p := k.pool
	p.mu.RLock()
	changes, waiting := p.changes, p.waiting
	p.mu.RUnlock()
	if changes == k.saved || waiting > 0 && !last {
		return 0 // nothing new, or a reorganisation is not digested yet
	}
	var n int64
	err := errLowDisk
	if !p.o.Chain.LowDisk() {
		n, err = p.writeFile(ctx)
	}
	switch {
	case err == nil:
		if k.failing {
			p.log.Info("mempool saved again", "file", p.o.File)
		}
		k.saved, k.failing = changes, false
	case ctx.Err() != nil: // cut off; the last save comes
	case !k.failing:
		k.failing = true
		p.log.Warn("mempool not saved", "file", p.o.File, "err", err)
	}
	return time.Duration(n) * time.Second / saveBytesPerSecond
}

// errLowDisk leaves the last of the disk to the chain.
var errLowDisk = errors.New("the disk is almost full")

// writeFile replaces the file, so that a crash leaves the old or the new one.
func (p *Pool) writeFile(ctx context.Context) (n int64, err error) {
	name := p.o.File + newSuffix
	f, err := p.o.FS.Create(name, vfs.WriteCategoryUnspecified)
	if err != nil {
		return 0, err
	}
	defer func() {
		if err != nil {
			_ = p.o.FS.Remove(name) // best effort: the next start removes it too
		}
	}()
	n, err = p.Save(ctx, f)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return n, err
	}
	if err := p.o.FS.Rename(name, p.o.File); err != nil {
		return n, err
	}
	dir, err := p.o.FS.OpenDir(p.o.FS.PathDir(p.o.File))
	if err != nil {
		return n, fmt.Errorf("its folder: %w", err)
	}
	return n, errors.Join(dir.Sync(), dir.Close())
}
