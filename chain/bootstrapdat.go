package chain

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/klauspost/compress/zstd"

	"dunlin/chain/consensus"
)

// The bootstrap.dat form: for each block the network's magic (u32, little-endian
// as everything), the length of the block (u32) and the block. Import takes it
// plain or compressed with zstd.

// zstdMagic starts a zstd frame (RFC 8878).
var zstdMagic = []byte{0x28, 0xb5, 0x2f, 0xfd}

const (
	// maxZstdWindow bounds what a compressed file can make its reader allocate: the
	// largest window that the zstd command takes without being told to.
	maxZstdWindow = 128 << 20
	// importBatch is how many blocks are read before their headers go ahead of
	// them, so that the workers know every block's past.
	importBatch      = 128
	importBatchBytes = 4 << 20
	// Blocks that come before their parents wait: by their place in a file that can be
	// read there again, else in memory.
	maxHeldBlocks = 1 << 20
	maxHeldBytes  = 64 << 20
)

// ImportProgress says how far an Import got.
type ImportProgress struct {
	Offset  int64 // in the (decompressed) file, past the last block read
	Blocks  int   // read from the file
	Added   int   // of them were new and are on disk and valid
	Known   int   // of them were there before
	Held    int   // of them wait for their parents, which have not come yet
	Height  int32 // highest height that a block of the file has in the chain; -1 if none
	Padding int64 // zero bytes passed over between or after blocks
	Garbage int64 // other bytes passed over that are no block
	// GarbageAt is the offset of the first of those, -1 if there is none.
	GarbageAt int64
}

// ErrTruncated says that an imported file ends in the middle of a block. What
// came before is kept.
var ErrTruncated = errors.New("file ends in the middle of a block")

// Import submits every block of r, a file of the bootstrap.dat form, plain or
// zstd. Genesis may be there or not, blocks that are known already do no
// harm, blocks may come before their parents, and what lies between blocks and is none
// is passed over. progress, if not nil, is called after every few blocks, by the
// caller's goroutine. If r is an io.Seeker, a plain file's headers are read first where
// Options.AssumeValid needs them; if it is an io.ReaderAt too, a plain file may hold a
// million blocks before their parents, else 64 MiB of them.
//
// It stops at the first fault of the file or of a block and says at which offset
// and, if it is a block's, at which height; everything before it is kept, and
// everything that was accepted is durable when Import returns, unless ctx ended or
// our own trouble is the error.
func (c *Chain) Import(ctx context.Context, r io.Reader, progress func(ImportProgress)) (ImportProgress, error) {
	im := importer{c: c, progress: progress, p: ImportProgress{Height: -1, GarbageAt: -1}, held: make(map[chainhash.Hash][]heldFrame)}
	if rs, ok := r.(io.ReadSeeker); ok {
		if err := im.headersAhead(ctx, rs); err != nil {
			return im.p, fmt.Errorf("import: %w", err)
		}
		if start, err := rs.Seek(0, io.SeekCurrent); err == nil {
			im.again, _ = r.(io.ReaderAt)
			im.start = start
		}
	}
	start := make([]byte, len(zstdMagic))
	n, err := io.ReadFull(r, start)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return im.p, fmt.Errorf("import: reading: %w", err)
	}
	if err == nil {
		r = io.MultiReader(bytes.NewReader(start), r)
	} else {
		r = bytes.NewReader(start[:n])
	}
	if bytes.Equal(start[:n], zstdMagic) {
		// It unpacks as the blocks are asked for, a window at a time: a bomb takes time,
		// not memory.
		zr, err := zstd.NewReader(r, zstd.WithDecoderMaxWindow(maxZstdWindow), zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true))
		if err != nil {
			return im.p, fmt.Errorf("import: %w", err)
		}
		defer zr.Close()
		r, im.again = zr, nil
	}
	// What is no block is passed over for as long as the file goes on: that must end with ctx too.
	im.f = newFrameReader(c.o.Params, readerFunc(func(b []byte) (int, error) {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		return r.Read(b)
	}))
	err = im.run(ctx)
	if settled := im.settle(ctx, 0); err == nil || asRule(settled) != nil {
		err = settled // a refused block comes before the fault that ended the reading
	}
	if err == nil {
		err = im.unfinished()
	}
	if saved := c.Flush(ctx); err == nil {
		err = saved
	}
	im.report()
	if err != nil {
		err = fmt.Errorf("import: %w", err)
	}
	return im.p, err
}

// A readerFunc is an io.Reader.
type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(b []byte) (int, error) { return f(b) }

// An importer is one Import under way.
type importer struct {
	c        *Chain
	f        *frameReader
	again    io.ReaderAt // the file, if a block can be read again; else nil
	start    int64       // of the file in it
	progress func(ImportProgress)
	p        ImportProgress
	batch    []frame
	bytes    int
	open     []openTicket // submitted, oldest first

	held      map[chainhash.Hash][]heldFrame // by the parent that they wait for
	heldBytes int
}

type openTicket struct {
	*Ticket
	offset int64
}

// A heldFrame is a block whose parent has not come yet.
type heldFrame struct {
	frame // raw is nil where it can be read again
	size  int
	hash  chainhash.Hash
}

// headersAhead reads the headers of a plain file before its blocks if there is a
// block to assume valid: only when the best header chain is known to hold it may
// the scripts below it be left out. What is wrong with the file is said later.
func (im *importer) headersAhead(ctx context.Context, r io.ReadSeeker) error {
	assumed := im.c.o.AssumeValid
	if assumed == (chainhash.Hash{}) {
		return nil
	}
	if _, known := im.c.tree.lookup(&assumed); known {
		return nil
	}
	start, err := r.Seek(0, io.SeekCurrent)
	if err != nil {
		return nil //nolint:nilerr // a pipe
	}
	p := im.c.o.Params
	buf := make([]byte, frameHead+consensus.HeaderBytes+p.SealBytes)
	headers := make([]consensus.Header, 0, headerBatch)
	for done := false; !done; {
		for headers = headers[:0]; len(headers) < headerBatch; {
			if _, err := io.ReadFull(r, buf); err != nil || binary.LittleEndian.Uint32(buf) != p.Magic {
				done = true
				break
			}
			size := int64(binary.LittleEndian.Uint32(buf[4:]))
			h, err := consensus.DecodeHeader(p, buf[frameHead:])
			if err != nil || size < int64(len(buf)-frameHead) {
				done = true
				break
			}
			if hash := consensus.HeaderHash(&h); hash != p.GenesisHash {
				headers = append(headers, h)
			}
			if _, err := r.Seek(size-int64(len(buf)-frameHead), io.SeekCurrent); err != nil {
				return fmt.Errorf("reading headers ahead: %w", err)
			}
		}
		if err := im.acceptHeaders(ctx, headers); err != nil && asRule(err) == nil {
			return err
		} else if err != nil {
			break
		}
	}
	if _, err := r.Seek(start, io.SeekStart); err != nil {
		return fmt.Errorf("reading headers ahead: %w", err)
	}
	return nil
}

// run reads to the end of the file.
func (im *importer) run(ctx context.Context) error {
	for {
		f, err := im.f.next()
		if err == nil {
			im.batch = append(im.batch, f)
			im.bytes += len(f.raw)
			if len(im.batch) < importBatch && im.bytes < importBatchBytes {
				continue
			}
		}
		batch := im.batch
		im.batch, im.bytes = nil, 0
		if sent := im.submit(ctx, batch); sent != nil {
			return sent
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// submit sends what was read, and then what waited for it: the headers first, then the
// blocks.
func (im *importer) submit(ctx context.Context, batch []frame) error {
	p := im.c.o.Params
	var ready []heldFrame // whose parents have come
	for len(batch) > 0 {
		headers := make([]consensus.Header, len(batch))
		hashes := make([]chainhash.Hash, len(batch))
		for k := range batch {
			h, err := consensus.DecodeHeader(p, batch[k].raw[:consensus.HeaderBytes+p.SealBytes])
			if err != nil {
				return fmt.Errorf("offset %d: %w", batch[k].offset, err)
			}
			headers[k], hashes[k] = h, consensus.HeaderHash(&h)
		}
		// Only a help for the workers: what is wrong with a header is said of its block.
		for from := 0; from < len(headers); {
			to := from + 1
			for to < len(headers) && headers[to].PrevBlock == hashes[to-1] {
				to++
			}
			if hashes[from] == p.GenesisHash {
				from++
			}
			if err := im.acceptHeaders(ctx, headers[from:to]); err != nil && asRule(err) == nil {
				return err
			}
			from = to
		}
		for k, f := range batch {
			switch {
			case im.known(&hashes[k]):
			case !im.known(&headers[k].PrevBlock):
				if err := im.hold(f, headers[k].PrevBlock, hashes[k]); err != nil {
					return err
				}
				continue
			default: // its parent came behind it
				if err := im.acceptHeaders(ctx, headers[k:k+1]); err != nil && asRule(err) == nil {
					return err
				}
			}
			t, err := im.c.Submit(ctx, f.raw, Source{Kind: FromImport})
			if err != nil {
				return fmt.Errorf("offset %d: %w", f.offset, err)
			}
			im.open = append(im.open, openTicket{t, f.offset})
			ready = append(ready, im.held[hashes[k]]...)
			delete(im.held, hashes[k])
		}
		if err := im.settle(ctx, im.c.o.MaxQueueBlocks); err != nil {
			return err
		}
		var err error
		if batch, ready, err = im.fetch(ready); err != nil {
			return err
		}
	}
	return nil
}

// acceptHeaders is the chain's, without the gate: a file of the operator's own is no
// spam, whatever work it has so far.
func (im *importer) acceptHeaders(ctx context.Context, hs []consensus.Header) error {
	_, _, err := im.c.acceptHeaders(ctx, hs, maxWork)
	return err
}

func (im *importer) known(hash *chainhash.Hash) bool {
	_, ok := im.c.tree.lookup(hash)
	return ok
}

// hold keeps a block until its parent comes.
func (im *importer) hold(f frame, parent, hash chainhash.Hash) error {
	if slices.ContainsFunc(im.held[parent], func(h heldFrame) bool { return h.hash == hash }) {
		return nil // there twice
	}
	h := heldFrame{frame: f, size: len(f.raw), hash: hash}
	if im.again != nil {
		h.raw = nil
	} else if im.heldBytes+h.size > maxHeldBytes {
		return fmt.Errorf("offset %d: block %v: over %d MiB of blocks wait for their parents: unpack the file and import that", f.offset, hash, maxHeldBytes>>20)
	}
	if im.p.Held >= maxHeldBlocks {
		return fmt.Errorf("offset %d: block %v: over %d blocks wait for their parents", f.offset, hash, maxHeldBlocks)
	}
	im.held[parent] = append(im.held[parent], h)
	im.heldBytes += len(h.raw)
	im.p.Held++
	return nil
}

// fetch returns as many of the blocks that waited as make a batch, and the rest.
func (im *importer) fetch(ready []heldFrame) (batch []frame, rest []heldFrame, err error) {
	for size := 0; len(ready) > 0 && len(batch) < importBatch && size < importBatchBytes; ready = ready[1:] {
		h := ready[0]
		im.p.Held--
		im.heldBytes -= len(h.raw)
		if h.raw == nil {
			h.raw = make([]byte, h.size)
			if _, err := im.again.ReadAt(h.raw, im.start+h.offset+frameHead); err != nil {
				return nil, nil, fmt.Errorf("reading block %v at offset %d again: %w", h.hash, h.offset, err)
			}
		}
		batch = append(batch, h.frame)
		size += h.size
	}
	return batch, ready, nil
}

// unfinished is what is wrong with a file whose every block was taken or held.
func (im *importer) unfinished() error {
	p := im.c.o.Params
	if im.f.blocks == 0 && im.f.garbage > 0 {
		return fmt.Errorf("offset %d: magic %08x, blocks of %s start with %08x: no block in the file",
			im.f.firstGarbage, binary.LittleEndian.Uint32(im.f.starts[:]), p.Name, p.Magic)
	}
	var first heldFrame
	var parent chainhash.Hash
	for hash, held := range im.held {
		for _, h := range held {
			if first.size == 0 || h.offset < first.offset {
				first, parent = h, hash
			}
		}
	}
	if first.size == 0 {
		return nil
	}
	more := ""
	if im.p.Held > 1 {
		more = fmt.Sprintf("; %d more blocks wait like it", im.p.Held-1)
	}
	return fmt.Errorf("offset %d: block %v: its parent is unknown (%v)%s", first.offset, first.hash, parent, more)
}

// settle waits until no more than most tickets are open.
func (im *importer) settle(ctx context.Context, most int) error {
	for len(im.open) > 0 {
		t := im.open[0]
		if len(im.open) <= most {
			select {
			case <-t.Done():
			default:
				im.report()
				return nil
			}
		}
		v := t.Wait(ctx)
		switch v.Outcome {
		case Connected, SideChain, Stored:
			im.p.Added++
			im.p.Height = max(im.p.Height, v.Height)
		case Duplicate:
			im.p.Known++
			im.p.Height = max(im.p.Height, v.Height)
		case Orphan:
			return fmt.Errorf("offset %d: block %v: its parent is unknown", t.offset, v.Hash)
		case Refused, Failed:
			return fmt.Errorf("offset %d: block %v at height %d: %w", t.offset, v.Hash, v.Height, v.Err)
		}
		im.open = im.open[1:]
	}
	im.report()
	return nil
}

func (im *importer) report() {
	im.p.Offset, im.p.Blocks = im.f.offset, im.f.blocks
	im.p.Padding, im.p.Garbage, im.p.GarbageAt = im.f.padding, im.f.garbage, im.f.firstGarbage
	if im.progress != nil {
		im.progress(im.p)
	}
}

// Export writes the blocks of the active chain at heights [from, to] in the
// bootstrap.dat form. A to below 0 means the tip. A reorganisation meanwhile
// does not disturb it: it follows the branch that was active at the start.
func (c *Chain) Export(ctx context.Context, w io.Writer, from, to int32) error {
	tip := c.tip.get()
	height := c.tree.node(tip).height
	if to < 0 {
		to = height
	}
	if from < 0 || from > to || to > height {
		return fmt.Errorf("export: heights %d…%d are not within 0…%d", from, to, height)
	}
	out := bufio.NewWriterSize(w, 1<<20)
	var head [frameHead]byte
	for h := from; h <= to; h++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		raw, err := c.Block(c.tree.node(c.tree.ancestor(tip, h)).hash)
		if err != nil {
			return fmt.Errorf("export: height %d: %w", h, err)
		}
		binary.LittleEndian.PutUint32(head[:], c.o.Params.Magic)
		binary.LittleEndian.PutUint32(head[4:], uint32(len(raw)))
		// A bufio.Writer remembers its first error.
		_, _ = out.Write(head[:])
		if _, err := out.Write(raw); err != nil {
			return fmt.Errorf("export: height %d: %w", h, err)
		}
	}
	if err := out.Flush(); err != nil {
		return fmt.Errorf("export: %w", err)
	}
	return nil
}
