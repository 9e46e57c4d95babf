package chain

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

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
	frameHead = 8 // magic and length
	// maxZstdWindow bounds what a compressed file can make its reader allocate.
	maxZstdWindow = 128 << 20
	// importBatch is how many blocks are read before their headers go ahead of
	// them, so that the workers know every block's past.
	importBatch      = 128
	importBatchBytes = 4 << 20
)

// ImportProgress says how far an Import got.
type ImportProgress struct {
	Offset  int64 // in the (decompressed) file, past the last block read
	Blocks  int   // read from the file
	Added   int   // of them were new and are on disk and valid
	Known   int   // of them were there before
	Height  int32 // highest height that a block of the file has in the chain; -1 if none
	Padding int64 // zero bytes skipped between or after blocks
}

// ErrTruncated says that an imported file ends in the middle of a block. What
// came before is kept.
var ErrTruncated = errors.New("file ends in the middle of a block")

// Import submits every block of r, a file of the bootstrap.dat form, plain or
// zstd. Genesis may be there or not, and blocks that are known already do no
// harm. progress, if not nil, is called after every few blocks, by the caller's
// goroutine. If r is an io.Seeker, a plain file's headers are read first where
// Options.AssumeValid needs them.
//
// It stops at the first fault of the file or of a block and says at which offset
// and, if it is a block's, at which height; everything before it is kept, and
// everything that was accepted is durable when Import returns, unless ctx ended or
// our own trouble is the error.
func (c *Chain) Import(ctx context.Context, r io.Reader, progress func(ImportProgress)) (ImportProgress, error) {
	im := importer{c: c, progress: progress, p: ImportProgress{Height: -1}}
	if rs, ok := r.(io.ReadSeeker); ok {
		if err := im.headersAhead(ctx, rs); err != nil {
			return im.p, fmt.Errorf("import: %w", err)
		}
	}
	// Blocks larger than the buffer are read past it.
	br := bufio.NewReaderSize(r, 64<<10)
	if start, err := br.Peek(len(zstdMagic)); err == nil && bytes.Equal(start, zstdMagic) {
		zr, err := zstd.NewReader(br, zstd.WithDecoderMaxWindow(maxZstdWindow), zstd.WithDecoderConcurrency(1))
		if err != nil {
			return im.p, fmt.Errorf("import: %w", err)
		}
		defer zr.Close()
		br = bufio.NewReaderSize(zr, 64<<10)
	}
	err := im.run(ctx, br)
	if settled := im.settle(ctx, 0); err == nil || asRule(settled) != nil {
		err = settled // a refused block comes before the fault that ended the reading
	}
	if saved := c.Flush(ctx); err == nil {
		err = saved
	}
	if err != nil {
		err = fmt.Errorf("import: %w", err)
	}
	return im.p, err
}

// An importer is one Import under way.
type importer struct {
	c        *Chain
	progress func(ImportProgress)
	p        ImportProgress
	batch    []frame
	bytes    int
	open     []openTicket // submitted, oldest first
}

// A frame is a block of the file.
type frame struct {
	offset int64
	raw    []byte
}

type openTicket struct {
	*Ticket
	offset int64
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
		if _, _, err := im.c.AcceptHeaders(ctx, headers); err != nil && asRule(err) == nil {
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
func (im *importer) run(ctx context.Context, r *bufio.Reader) error {
	for {
		f, err := im.next(r)
		if err == nil {
			im.batch = append(im.batch, f)
			im.bytes += len(f.raw)
			if len(im.batch) < importBatch && im.bytes < importBatchBytes {
				continue
			}
		}
		if sent := im.submit(ctx); sent != nil {
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

// next reads one block, skipping zero padding; io.EOF at a clean end.
func (im *importer) next(r *bufio.Reader) (frame, error) {
	p := im.c.o.Params
	var head [frameHead]byte
	for {
		b, err := r.ReadByte()
		if errors.Is(err, io.EOF) {
			return frame{}, io.EOF
		} else if err != nil {
			return frame{}, fmt.Errorf("reading at offset %d: %w", im.p.Offset, err)
		}
		if head[0] = b; b != 0 {
			break
		}
		im.p.Offset++
		im.p.Padding++
	}
	start := im.p.Offset
	if n, err := io.ReadFull(r, head[1:]); err != nil {
		return frame{}, im.cut(err, start, int64(n)+1, frameHead, nil)
	}
	if magic := binary.LittleEndian.Uint32(head[:]); magic != p.Magic {
		return frame{}, fmt.Errorf("offset %d: magic %08x, blocks of %s start with %08x", start, magic, p.Name, p.Magic)
	}
	size := int64(binary.LittleEndian.Uint32(head[4:]))
	if least, most := int64(consensus.HeaderBytes+p.SealBytes+1), int64(p.MaxBlockBytes()); size < least || size > most {
		return frame{}, fmt.Errorf("offset %d: a block of %d bytes, not in %d…%d", start, size, least, most)
	}
	raw := make([]byte, size)
	if n, err := io.ReadFull(r, raw); err != nil {
		return frame{}, im.cut(err, start, frameHead+int64(n), frameHead+size, raw[:n])
	}
	im.p.Offset += frameHead + size
	im.p.Blocks++
	return frame{start, raw}, nil
}

// cut describes a file that ends inside a block.
func (im *importer) cut(err error, start, got, want int64, raw []byte) error {
	if !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("reading at offset %d: %w", start+got, err)
	}
	name := fmt.Sprintf("number %d of the file", im.p.Blocks+1)
	if len(raw) >= consensus.HeaderBytes {
		name = chainhash.DoubleHashH(raw[:consensus.HeaderBytes]).String()
	}
	return fmt.Errorf("%w: offset %d, block %s, %d of %d bytes are there", ErrTruncated, start, name, got, want)
}

// submit sends what was read: the headers first, then the blocks.
func (im *importer) submit(ctx context.Context) error {
	p := im.c.o.Params
	headers := make([]consensus.Header, 0, len(im.batch))
	for _, f := range im.batch {
		h, err := consensus.DecodeHeader(p, f.raw[:consensus.HeaderBytes+p.SealBytes])
		if err != nil {
			break
		}
		if hash := consensus.HeaderHash(&h); hash != p.GenesisHash {
			headers = append(headers, h)
		}
	}
	// Only a help for the workers: what is wrong with a header is said of its block.
	if _, _, err := im.c.AcceptHeaders(ctx, headers); err != nil && asRule(err) == nil {
		return err
	}
	for _, f := range im.batch {
		t, err := im.c.Submit(ctx, f.raw, Source{Kind: FromImport})
		if err != nil {
			return fmt.Errorf("offset %d: %w", f.offset, err)
		}
		im.open = append(im.open, openTicket{t, f.offset})
	}
	clear(im.batch)
	im.batch, im.bytes = im.batch[:0], 0
	return im.settle(ctx, im.c.o.MaxQueueBlocks)
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
