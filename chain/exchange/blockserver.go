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

// blockServer serves one blocks stream: a reader that queues requests and the
// handler's own goroutine that answers them in order.
type blockServer struct {
	x   *Exchange
	r   *remote
	out *bufio.Writer
	msg []byte

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
	b := &blockServer{x: x, r: r, out: newWriter(s, x.o.WriteTimeout, &r.out), open: make(map[uint64]*servedRequest)}
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
	for {
		var sr *servedRequest
		var ok bool
		select {
		case sr, ok = <-queue:
		default:
			if err := b.out.Flush(); err != nil {
				return err
			}
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
		end.ID, end.End = sr.ID, true
		if err := b.write(&end, nil); err != nil {
			return err
		}
	}
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
	room := min(sr.MaxBytes, MaxReplyBytes)
	for i := range count {
		select {
		case <-sr.withdrawn:
			return frame{Status: statusCancelled}, nil
		default:
		}
		var hash chainhash.Hash
		if sr.Count > 0 {
			hash, _ = c.Ancestor(sr.Last, sr.Start+int32(i))
		} else {
			hash = sr.Hashes[i]
		}
		size := int64(c.BlockSize(hash))
		switch {
		case size == 0:
			return frame{Status: statusNotFound}, nil
		case size > room && i == 0:
			return frame{Status: statusTooLarge, Size: size}, nil
		case size > room:
			return frame{Status: statusOK}, nil
		}
		st, err := b.send(ctx, sr.ID, hash, size)
		if err != nil || st != statusOK {
			return frame{Status: st}, err
		}
		room -= size
	}
	return frame{Status: statusOK}, nil
}

// send sends one block of size bytes when it is the peer's turn.
func (b *blockServer) send(ctx context.Context, id uint64, hash chainhash.Hash, size int64) (status, error) {
	switch err := b.x.gate.acquire(ctx, b.r.gone, &b.r.turn, size, b.x.o.BusyAfter); {
	case errors.Is(err, errBusy):
		return statusBusy, nil
	case err != nil:
		return 0, err
	}
	defer b.x.gate.release(size)
	raw, err := b.x.o.Chain.Block(hash)
	if err == nil && int64(len(raw)) != size {
		err = fmt.Errorf("%d bytes where the index says %d", len(raw), size)
	}
	if err != nil {
		// The peer hears that we lack it; if it is our own trouble, the operator hears why.
		if n, ok := b.x.unreadable.allow(b.x.o.Now()); ok && !errors.Is(err, chain.ErrNotFound) {
			b.x.log.Error("block cannot be served", "hash", hash, "err", err, "suppressed", n)
		}
		return statusNotFound, nil
	}
	return statusOK, b.write(&frame{ID: id, Length: size}, raw)
}

func (b *blockServer) write(f *frame, raw []byte) error {
	b.msg = appendDelimited(b.msg[:0], f.append(nil))
	if _, err := b.out.Write(b.msg); err != nil {
		return err
	}
	_, err := b.out.Write(raw)
	return err
}
