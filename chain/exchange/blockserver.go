package exchange

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/libp2p/go-libp2p/core/network"

	"dunlin/chain"
)

// pieceBytes is what is read from disk and in memory at once for one blocks
// stream: many small blocks or a part of a large one.
const pieceBytes = 128 << 10

// pieces are reused: a busy server reads hundreds of megabytes a second.
var pieces = sync.Pool{New: func() any { return new([pieceBytes]byte) }}

// blockServer serves one blocks stream: a reader that queues requests and the
// handler's own goroutine that answers them in order.
//
// While there are requests it holds one piece, which counts against ServeBytes;
// it never holds a block.
type blockServer struct {
	x   *Exchange
	r   *remote
	s   network.Stream
	w   *chunks
	out *bufio.Writer
	msg []byte

	parcel *parcel // nil while there is nothing to send
	piece  *[pieceBytes]byte
	hashes []chainhash.Hash // of the next blocks; reused

	mu   sync.Mutex // guards open, held for an instant
	open map[uint64]*servedRequest
}

type servedRequest struct {
	blocksRequest
	withdrawn chan struct{} // closed when the peer does not want it any more
}

// serveBlocks answers blocks requests on one stream until it ends. A newer
// stream of the peer supplants it.
func (x *Exchange) serveBlocks(ctx context.Context, r *remote, s network.Stream) error {
	if old := r.supplant(s); old != nil {
		_ = old.ResetWithError(network.StreamSupplanted)
	}
	b := &blockServer{
		x: x, r: r, s: s, open: make(map[uint64]*servedRequest),
		w: &chunks{s: s, timeout: x.o.WriteTimeout, count: &r.out},
	}
	b.out = bufio.NewWriterSize(b.w, maxChunkBytes)
	queue := make(chan *servedRequest, MaxServedRequests)
	var readErr error
	x.tasks.Go(func() {
		readErr = b.read(ctx, s, queue)
		if readErr != nil { // wakes a write that waits for a reader who does not read
			resetFor(s, readErr)
		}
		close(queue)
	})
	err := b.serve(ctx, queue)
	if err != nil {
		resetFor(s, err) // ends the reader
	}
	for range queue { // until the reader has ended: readErr is set
	}
	if errors.Is(readErr, errProtocol) || err == nil {
		err = readErr
	}
	return err
}

// read queues requests; the queue holds as many as a peer may have outstanding.
func (b *blockServer) read(ctx context.Context, s network.Stream, queue chan<- *servedRequest) error {
	in := bufio.NewReaderSize(&counted{s: s, count: &b.r.in}, 4<<10)
	var buf []byte
	for {
		var err error
		if buf, err = readMessage(in, buf, maxBlocksRequest); err != nil {
			return cleanEnd(err)
		}
		req, err := decodeBlocksRequest(buf)
		if err != nil {
			return err
		}
		if err := b.r.requests.Wait(ctx); err != nil {
			return err
		}
		b.mu.Lock()
		known := b.open[req.ID]
		outstanding := len(b.open)
		switch {
		case req.Cancel:
			if known != nil {
				select {
				case <-known.withdrawn:
				default:
					close(known.withdrawn)
				}
			}
			b.mu.Unlock()
			continue // one that has ended already: the two crossed on the wire
		case known != nil:
			b.mu.Unlock()
			return violation("blocks request %d twice", req.ID)
		case outstanding >= MaxServedRequests:
			b.mu.Unlock()
			return violation("over %d blocks requests outstanding", MaxServedRequests)
		}
		sr := &servedRequest{blocksRequest: req, withdrawn: make(chan struct{})}
		b.open[req.ID] = sr
		b.mu.Unlock()
		queue <- sr // has room: it holds at most what is in open
	}
}

// serve answers requests in order until the queue is closed.
func (b *blockServer) serve(ctx context.Context, queue <-chan *servedRequest) error {
	defer b.rest()
	for {
		var sr *servedRequest
		var ok bool
		select {
		case sr, ok = <-queue:
		default:
			if err := b.out.Flush(); err != nil {
				return err
			}
			b.rest()
			sr, ok = <-queue
		}
		if !ok {
			return b.out.Flush()
		}
		end, err := b.answer(ctx, sr)
		if err != nil {
			return err
		}
		// Off the list before the peer can know: its next request may not find
		// this one still counted.
		b.mu.Lock()
		delete(b.open, sr.ID)
		b.mu.Unlock()
		if end.Status == statusBusy {
			b.x.sent.busy.Add(1)
		}
		end.ID, end.End = sr.ID, true
		if err := b.frame(&end); err != nil {
			return err
		}
	}
}

// work takes a piece unless there is one.
func (b *blockServer) work(ctx context.Context) error {
	if b.parcel != nil {
		return nil
	}
	p, err := b.x.outbox.take(ctx, b.r.gone, pieceBytes, b.x.o.BusyAfter, func() {
		_ = b.s.ResetWithError(network.StreamResourceLimitExceeded)
	})
	if err != nil {
		return err
	}
	b.parcel, b.w.parcel = p, p
	b.piece = pieces.Get().(*[pieceBytes]byte) //nolint:forcetypeassert // nothing else is put there
	return nil
}

// rest gives the piece back.
func (b *blockServer) rest() {
	if b.parcel == nil {
		return
	}
	b.x.outbox.give(b.parcel)
	pieces.Put(b.piece)
	b.parcel, b.w.parcel, b.piece = nil, nil, nil
}

// answer sends the blocks of one request and returns how it ends. An error ends
// the stream.
func (b *blockServer) answer(ctx context.Context, sr *servedRequest) (frame, error) {
	c := b.x.o.Chain
	count := sr.Count
	if count == 0 {
		count = len(sr.Hashes)
	} else if at, ok := c.Ancestor(sr.Last, sr.Start+int32(count)-1); !ok || at != sr.Last {
		// Unknown here, or not at that height: then the heights mean nothing.
		return frame{Status: statusNotFound}, nil
	}
	at := func(i int) chainhash.Hash {
		if sr.Count == 0 {
			return sr.Hashes[i]
		}
		hash, _ := c.Ancestor(sr.Last, sr.Start+int32(i))
		return hash
	}
	room := min(sr.MaxBytes, MaxReplyBytes)
	for i := 0; i < count; {
		select {
		case <-sr.withdrawn:
			return frame{Status: statusCancelled}, nil
		default:
		}
		b.hashes = append(b.hashes[:0], at(i))
		size := int64(c.BlockSize(b.hashes[0]))
		var raw []byte // of a block that is not on disk yet
		if size == 0 && sr.Count == 0 {
			err := b.out.Flush() // what was answered before does not wait with this
			if err != nil {
				return frame{}, err
			}
			b.rest()
			switch raw, err = b.x.pendingBlock(ctx, b.r, sr.withdrawn, b.hashes[0]); {
			case errors.Is(err, errNotYet):
				return frame{Status: statusNotYet}, nil
			case err != nil:
				return frame{}, err
			}
			size = int64(len(raw))
		}
		switch {
		case size == 0:
			return frame{Status: statusNotFound}, nil
		case size > room && i == 0:
			return frame{Status: statusTooLarge, Size: size}, nil
		case size > room:
			return frame{Status: statusOK}, nil
		}
		switch err := b.work(ctx); {
		case errors.Is(err, errBusy):
			return frame{Status: statusBusy}, nil
		case err != nil:
			return frame{}, err
		}
		var n int
		var sent int64
		var st status
		var err error
		switch {
		case raw != nil:
			n, sent = 1, size
			st, err = b.memory(ctx, sr.ID, raw)
		case size+recordFrame > pieceBytes:
			n, sent = 1, size
			st, err = b.large(ctx, sr.ID, size)
		default:
			// As many as would fit if all were of this size.
			for k := i + 1; k < min(count, i+int(min(room, pieceBytes)/(size+recordFrame))); k++ {
				b.hashes = append(b.hashes, at(k))
			}
			n, sent, st, err = b.small(ctx, sr.ID, room)
		}
		if err != nil || st != statusOK {
			return frame{Status: st}, err
		}
		i, room = i+n, room-sent
		b.x.sent.bytes.Add(sent)
	}
	return frame{Status: statusOK}, nil
}

// recordFrame is what ReadBlocks needs for a block besides its size.
const recordFrame = 12

// turn waits for a turn of n bytes. That it has to wait is not the peer's fault:
// its piece counts as moved.
func (b *blockServer) turn(ctx context.Context, n int64) (status, error) {
	b.parcel.touch()
	defer b.parcel.touch()
	switch err := b.x.gate.acquire(ctx, b.r.gone, &b.r.account, n, b.x.o.BusyAfter); {
	case errors.Is(err, errBusy):
		return statusBusy, nil
	case err != nil:
		return 0, err
	}
	return statusOK, nil
}

// small sends the first n of b.hashes, of which the first is known to fit into a
// piece and into room.
func (b *blockServer) small(ctx context.Context, id uint64, room int64) (n int, sent int64, st status, err error) {
	budget := min(room, pieceBytes)
	if st, err := b.turn(ctx, budget); err != nil || st != statusOK {
		return 0, 0, st, err
	}
	blocks, err := b.x.o.Chain.ReadBlocks(b.piece[:], b.hashes)
	for n < len(blocks) && sent+int64(len(blocks[n])) <= budget {
		sent += int64(len(blocks[n]))
		n++
	}
	b.x.gate.settle(&b.r.account, budget-sent)
	if n == 0 {
		b.x.gate.done()
		return 0, 0, b.unreadable(b.hashes[0], err), nil
	}
	err = b.x.gate.send(func() error {
		for _, raw := range blocks[:n] {
			if err := b.frame(&frame{ID: id, Length: int64(len(raw))}); err != nil {
				return err
			}
			if _, err := b.out.Write(raw); err != nil {
				return err
			}
		}
		return nil
	})
	return n, sent, statusOK, err
}

// large sends the first of b.hashes piece by piece, after its CRC was checked.
func (b *blockServer) large(ctx context.Context, id uint64, size int64) (status, error) {
	if st, err := b.turn(ctx, size); err != nil || st != statusOK {
		return st, err
	}
	c, hash := b.x.o.Chain, b.hashes[0]
	err := c.CheckBlock(hash, b.piece[:])
	for offset := int64(0); offset < size; {
		if offset > 0 {
			if err := b.x.gate.resume(ctx, b.r.gone); err != nil {
				return 0, err
			}
		}
		part := b.piece[:min(pieceBytes, size-offset)]
		if err == nil {
			err = c.ReadBlockPart(hash, offset, part)
		}
		if err != nil && offset == 0 {
			b.x.gate.release(&b.r.account, size)
			return b.unreadable(hash, err), nil
		}
		if err != nil { // the peer has a part of it: only the end of the stream tells it
			b.x.gate.done()
			b.unreadable(hash, err)
			return 0, fmt.Errorf("read block: %w", err)
		}
		err := b.x.gate.send(func() error {
			if offset == 0 {
				if err := b.frame(&frame{ID: id, Length: size}); err != nil {
					return err
				}
			}
			_, err := b.out.Write(part)
			return err
		})
		if err != nil {
			return 0, err
		}
		offset += int64(len(part))
	}
	return statusOK, nil
}

// memory sends a block that is not on disk yet. Its bytes are kept for others as
// well: they are not this stream's to count.
func (b *blockServer) memory(ctx context.Context, id uint64, raw []byte) (status, error) {
	if st, err := b.turn(ctx, int64(len(raw))); err != nil || st != statusOK {
		return st, err
	}
	return statusOK, b.x.gate.send(func() error {
		if err := b.frame(&frame{ID: id, Length: int64(len(raw))}); err != nil {
			return err
		}
		_, err := b.out.Write(raw)
		return err
	})
}

// unreadable is how a request ends whose block cannot be read. The peer hears
// that we lack it; if it is our own trouble, the operator hears why.
func (b *blockServer) unreadable(hash chainhash.Hash, err error) status {
	if err == nil {
		err = errors.New("its size is not what the index says")
	}
	if errors.Is(err, chain.ErrNotFound) {
		return statusNotFound
	}
	if n, ok := b.x.unreadable.allow(b.x.o.Now()); ok {
		b.x.log.Error("block cannot be served", "hash", hash, "err", err, "suppressed", n)
	}
	return statusNotFound
}

func (b *blockServer) frame(f *frame) error {
	b.msg = appendDelimited(b.msg[:0], f.append(nil))
	_, err := b.out.Write(b.msg)
	return err
}
