package exchange

import (
	"bufio"
	"context"
	"fmt"
	"math"
	"sync"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/libp2p/go-libp2p/core/network"

	"dunlin/chain/consensus"
)

// headerBufs are reused: an idle stream holds none.
var headerBufs = sync.Pool{New: func() any { return new([]byte) }}

// serveHeaders answers headers requests on one stream until it ends.
func (x *Exchange) serveHeaders(ctx context.Context, r *remote, s network.Stream) error {
	in := bufio.NewReaderSize(&counted{s: s, timeout: x.o.IdleTimeout, count: &r.in}, 1<<10)
	var buf []byte
	for {
		var err error
		if buf, err = readMessage(in, buf, maxHeadersRequest); err != nil {
			return cleanEnd(err)
		}
		req, err := decodeHeadersRequest(buf)
		if err != nil {
			return err
		}
		if err := r.requests.Wait(ctx); err != nil {
			return err
		}
		if err := x.answerHeaders(ctx, r, s, &req); err != nil {
			return err
		}
	}
}

// answerHeaders answers one request. There is no answer that says busy: a
// request waits for its turn, and for room until the client's patience must be over.
func (x *Exchange) answerHeaders(ctx context.Context, r *remote, s network.Stream, req *headersRequest) error {
	headerBytes := consensus.HeaderBytes + x.o.Chain.Params().SealBytes
	limit := min(max(req.Max, 1), MaxHeaders)
	most := int64(limit * headerBytes)
	parcel, err := x.outbox.take(ctx, r.gone, most, x.o.ReplyTimeout, func() {
		_ = s.ResetWithError(network.StreamResourceLimitExceeded)
	})
	if err != nil {
		return fmt.Errorf("room for headers: %w", err)
	}
	defer x.outbox.give(parcel)
	raw := headerBufs.Get().(*[]byte) //nolint:forcetypeassert // nothing else is put there
	defer headerBufs.Put(raw)

	if err := x.gate.acquire(ctx, r.gone, &r.account, most, 0); err != nil {
		return err
	}
	var reply headersReply
	reply.Start, reply.Count, *raw, err = x.headersAfter((*raw)[:0], req, limit)
	x.gate.release(&r.account, most-min(most, int64(len(*raw))))
	if err != nil {
		return fmt.Errorf("headers after the locator: %w", err)
	}
	if len(*raw) != reply.Count*headerBytes || reply.Count > limit {
		return fmt.Errorf("headers after the locator: %d bytes for %d of at most %d headers", len(*raw), reply.Count, limit)
	}
	reply.Bytes = len(*raw)
	reply.Tip, _ = x.localTip()
	x.sent.bytes.Add(int64(len(*raw)))
	out := &chunks{s: s, timeout: x.o.WriteTimeout, count: &r.out, parcel: parcel}
	if _, err := out.Write(appendDelimited(nil, reply.append(nil))); err != nil {
		return err
	}
	_, err = out.Write(*raw)
	return err
}

// headersAfter is HeadersAfter for a request that may skip some of the headers.
func (x *Exchange) headersAfter(dst []byte, req *headersRequest, limit int) (start int32, n int, raw []byte, err error) {
	c := x.o.Chain
	if req.Skip == 0 {
		return c.HeadersAfter(dst, req.Locator, limit)
	}
	tip, _ := c.Tip()
	var height int32 // of the first hash of the locator that is on our chain, or of genesis
	for _, hash := range req.Locator {
		if at, fork, ok := c.Fork(hash, tip.Hash); ok && at == hash {
			height = fork
			break
		}
	}
	if req.Skip > tip.Height-height {
		return min(math.MaxInt32-req.Skip, height) + req.Skip, 0, dst, nil
	}
	from, ok := c.Ancestor(tip.Hash, height+req.Skip)
	if !ok {
		return 0, 0, dst, fmt.Errorf("no ancestor of the tip %v at height %d", tip.Hash, height+req.Skip)
	}
	return c.HeadersAfter(dst, []chainhash.Hash{from}, limit)
}
