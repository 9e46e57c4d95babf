package exchange

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/libp2p/go-libp2p/core/network"

	"dunlin/chain"
	"dunlin/chain/consensus"
)

const (
	// maxPullHeaders bounds one pull; another follows if there is more.
	maxPullHeaders = 4_000_000
	// headersAhead is how many requests for headers are outstanding at a peer: 1.3 MB
	// of headers, enough for 8 MB/s at 150 ms.
	headersAhead = 8
	// maxPresyncs bounds how often one pull looks at a branch before it stores it: the
	// work that is asked for may have grown meanwhile.
	maxPresyncs = 2
	// headersWithin is how long a peer may take for one reply that is due, 16 KB/s
	// for a full one: slower, and others are asked instead.
	headersWithin = 10 * time.Second
)

// cleanEnd turns the end of a stream between messages into no error.
func cleanEnd(err error) error {
	if errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return nil
	}
	return err
}

// pulled is how a pull of headers from a peer ended.
type pulled struct {
	from   *remote
	tip    TipInfo        // of the peer, as the last reply said
	last   chainhash.Hash // last header known to be on the peer's chain; zero if none
	added  int            // headers that were new to us
	agrees bool           // a probe found the peer on our best header chain; no more was asked
	behind bool           // others were faster: what it sends is known, and there is more
	ahead  bool           // it has more than is taken before blocks have followed
	err    error
	blame  string // why the peer is to blame; empty if it is not
}

// progress of a pull, told after each reply.
type pullProgress struct {
	from  *remote
	tip   TipInfo
	last  chainhash.Hash
	added int // headers that were new to us, since the pull began
	shown int // and those that were looked at in a presync
}

// A headerPull fetches the headers of a peer's chain that follow our best header
// chain.
//
// The first request asks with our locator. If there is more, the requests that
// follow name heights above the last header of the first reply, headersAhead of
// them at a time. What comes goes to the chain, unless it shows less work than
// the chain wants to see: then all of it is looked at first and stored only when
// it comes again (see [chain.Presync]). One reply is in memory at a time.
type headerPull struct {
	x      *Exchange
	r      *remote
	common chainhash.Hash // where to begin if it is known
	tell   func(pullProgress)
	probe  bool // ask for one header first: it is enough to see whether the peer is on our branch
	res    pulled

	headers  []consensus.Header // of one reply
	last     chainhash.Hash     // of the last reply; zero before the first
	total    int
	shown    int            // headers that were looked at in a presync
	presync  Presync        // nil: what comes is stored at once
	second   bool           // pass of the presync
	base     chainhash.Hash // below the presync
	batch    int            // headers in its first batch
	presyncs int
}

// pull asks r for headers from our best header chain on, or from the header common on if
// that is known, until it has no more. tell
// is called after each reply. With probe it asks for a single one first and goes
// on only if that does not extend our best header.
func (x *Exchange) pull(ctx context.Context, r *remote, common chainhash.Hash, probe bool, tell func(pullProgress)) pulled {
	p := &headerPull{x: x, r: r, common: common, tell: tell, probe: probe, res: pulled{from: r}, headers: make([]consensus.Header, 0, MaxHeaders)}
	for again := true; again && p.res.err == nil; {
		again, p.res.err = p.pass(ctx)
	}
	return p.res.withBlame()
}

// pass fetches until the peer has no more, or until the same must be fetched
// once again.
func (p *headerPull) pass(ctx context.Context) (again bool, err error) {
	h, err := p.x.openHeaders(ctx, p.r)
	if err != nil {
		return false, err
	}
	defer func() { h.close(err) }()
	stop := atEnd(ctx, func() { _ = h.s.ResetWithError(network.StreamShutdown) })
	defer stop()

	best, _ := p.x.o.Chain.BestHeader()
	if s, ok := p.x.o.Chain.Status(p.common); ok && !s.Invalid {
		best = chain.Tip{Hash: p.common, Height: s.Height}
	}
	locator := p.x.o.Chain.Locator(best.Hash)
	h.locator = locator[:min(len(locator), MaxLocator-1)]
	most := MaxHeaders
	p.last = chainhash.Hash{}
	switch {
	case p.second:
		most = p.batch
		locator = append([]chainhash.Hash{p.base}, h.locator...)
	case p.probe:
		most = 1
	}
	if err := h.ask(headersRequest{Hint: best.Height, Locator: locator[:min(len(locator), MaxLocator)], Max: most}); err != nil {
		return false, err
	}
	for {
		reply, raw, err := h.read()
		if err != nil {
			return false, err
		}
		p.res.tip = reply.Tip
		if err := p.decode(&reply, raw); err != nil {
			return false, err
		}
		if p.probe && reply.Count == 1 && p.headers[0].PrevBlock == best.Hash {
			p.res.agrees, p.res.last = true, best.Hash
			return false, nil
		}
		p.probe = false
		top := reply.Start + int32(reply.Count) - 1
		end := min(reply.Tip.Height, p.x.o.Chain.HeaderLimit())
		more := reply.Count == most && top < end && p.total < maxPullHeaders
		p.res.ahead = top >= end && top < reply.Tip.Height
		most = MaxHeaders
		if more {
			// Ask for what follows before looking at what came.
			if err := h.askOn(p.last, top, end); err != nil {
				return false, err
			}
		}
		again, err := p.take(ctx, &reply, more)
		if err != nil {
			return false, fmt.Errorf("headers up to height %d: %w", top, err)
		}
		p.tell(pullProgress{from: p.r, tip: p.res.tip, last: p.res.last, added: p.res.added, shown: p.res.added + p.shown})
		if again || !more || p.overtaken(top) {
			return again, nil
		}
	}
}

// decode decodes the headers of a reply and checks that they follow those before.
func (p *headerPull) decode(reply *headersReply, raw []byte) error {
	params := p.x.o.Chain.Params()
	size := consensus.HeaderBytes + params.SealBytes
	p.headers = p.headers[:0]
	for i := range reply.Count {
		h, err := consensus.DecodeHeader(params, raw[i*size:][:size])
		if err != nil {
			return fmt.Errorf("header at height %d: %w", int(reply.Start)+i, err)
		}
		p.headers = append(p.headers, h)
	}
	if reply.Count == 0 {
		return nil
	}
	p.total += reply.Count
	before := p.headers[0].PrevBlock
	follows := before == p.last
	p.last = chainhash.DoubleHashH(raw[len(raw)-size:][:consensus.HeaderBytes])
	switch {
	case follows, p.second: // which sees for itself
		return nil
	case p.presync != nil || p.total > reply.Count && !p.r.stepwise.Load():
		// Perhaps it has just changed its branch, or does not know what to skip: it
		// is asked in single steps the next time.
		p.r.stepwise.Store(true)
		return fmt.Errorf("headers from height %d: %w", reply.Start, errBranchChanged)
	case !headerKnown(p.x.o.Chain, before):
		return violation("headers from height %d do not follow the locator", reply.Start)
	}
	return nil
}

// take gives the headers of a reply to the chain, or looks at them before. again
// says that the same must be fetched once more, to be stored.
func (p *headerPull) take(ctx context.Context, reply *headersReply, more bool) (again bool, err error) {
	if reply.Count == 0 {
		if p.presync != nil {
			return false, errShort
		}
		return false, nil
	}
	c := p.x.o.Chain
	switch {
	case p.presync == nil:
		err := p.added(c.AcceptHeaders(ctx, p.headers))
		if !tooLittleWork(err) || !more || p.presyncs == maxPresyncs {
			return false, err
		}
		p.presyncs++
		p.base, p.batch = p.headers[0].PrevBlock, len(p.headers)
		var ok bool
		if p.presync, ok = c.NewPresync(p.base); !ok {
			return false, err
		}
		return false, p.check(ctx)
	case !p.second:
		if err := p.check(ctx); err != nil {
			return false, err
		}
		if p.presync.Work().Cmp(c.LeastWork()) >= 0 {
			p.second = true
			return true, nil
		}
		if !more {
			return false, errShort
		}
		return false, nil
	}
	if err := p.added(p.presync.Accept(ctx, p.headers)); err != nil {
		return false, err
	}
	if p.presync.Done() {
		p.presync, p.second = nil, false
	} else if !more {
		return false, errShort
	}
	return false, nil
}

// check looks at the headers of a reply.
func (p *headerPull) check(ctx context.Context) error {
	if err := p.presync.Check(ctx, p.headers); err != nil {
		return err
	}
	p.shown += len(p.headers)
	return nil
}

// added notes what the chain made of headers.
func (p *headerPull) added(added int, last chain.Tip, err error) error {
	p.res.added += added
	if last.Hash != (chainhash.Hash{}) {
		p.res.last = last.Hash
		p.r.prove(p.x.o.Chain, last.Hash, p.x.o.Now())
	}
	return err
}

// overtaken says whether the best header chain leads past what this peer sends:
// others are faster.
func (p *headerPull) overtaken(top int32) bool {
	if p.presync != nil || p.res.last == (chainhash.Hash{}) {
		return false
	}
	best, _ := p.x.o.Chain.BestHeader()
	if best.Height <= top+2*headersAhead*MaxHeaders {
		return false
	}
	at, ok := p.x.o.Chain.Ancestor(best.Hash, top)
	p.res.behind = ok && at == p.res.last
	return p.res.behind
}

// A headerStream is a stream of the headers protocol to a peer, with requests on
// their way. Replies come in order.
type headerStream struct {
	x       *Exchange
	r       *remote
	s       network.Stream
	in      *bufio.Reader
	within  time.Duration
	locator []chainhash.Hash // of our best header chain, behind the hash that a request is about
	buf     []byte
	raw     []byte

	anchor  chainhash.Hash // what the requests on their way count from; zero: none yet
	height  int32          // of anchor
	skip    int32          // of the next request
	waiting int            // requests without a reply
}

// openHeaders opens a stream to r, which ends with the peer.
func (x *Exchange) openHeaders(ctx context.Context, r *remote) (*headerStream, error) {
	open, cancel := context.WithTimeout(ctx, x.o.ReplyTimeout)
	defer cancel()
	s, err := x.o.Host.NewStream(network.WithNoDial(open, "headers"), r.id, HeadersID(x.o.ChainID))
	if err != nil {
		return nil, fmt.Errorf("open headers stream: %w", err)
	}
	if !r.track(s) {
		_ = s.Reset()
		return nil, errGone
	}
	size := consensus.HeaderBytes + x.o.Chain.Params().SealBytes
	return &headerStream{
		x: x, r: r, s: s, within: min(2*x.o.ReplyTimeout, headersWithin),
		in:  bufio.NewReaderSize(&counted{s: s, count: &r.in}, maxChunkBytes),
		raw: make([]byte, 0, MaxHeaders*size),
	}, nil
}

func (h *headerStream) close(err error) {
	if err != nil {
		resetFor(h.s, err)
	} else if h.waiting > 0 {
		_ = h.s.ResetWithError(network.StreamNoError)
	} else {
		_ = h.s.Close()
	}
	h.r.untrack(h.s)
}

func (h *headerStream) ask(req headersRequest) error {
	h.waiting++
	if err := writeMessage(h.s, h.x.o.WriteTimeout, &h.r.out, req.append(nil)); err != nil {
		return fmt.Errorf("ask for headers: %w", err)
	}
	return nil
}

// askOn asks for what follows the header last at height top, and for what follows
// that, up to the height that the peer says to have.
func (h *headerStream) askOn(last chainhash.Hash, top, end int32) error {
	ahead := headersAhead
	if h.r.stepwise.Load() {
		ahead, h.anchor = 1, chainhash.Hash{}
	}
	if h.anchor == (chainhash.Hash{}) {
		h.anchor, h.height, h.skip = last, top, 0
	}
	// Our own locator goes along in case the peer changes its branch meanwhile.
	locator := append([]chainhash.Hash{h.anchor}, h.locator...)
	for ; h.waiting < ahead && h.height < end-h.skip; h.skip += MaxHeaders {
		if err := h.ask(headersRequest{Hint: h.height, Locator: locator, Max: MaxHeaders, Skip: h.skip}); err != nil {
			return err
		}
		if ahead == 1 {
			break
		}
	}
	return nil
}

// read returns the next reply. The raw headers are lent until the next call.
func (h *headerStream) read() (reply headersReply, raw []byte, err error) {
	if err := h.s.SetReadDeadline(time.Now().Add(h.within)); err != nil {
		return reply, nil, fmt.Errorf("read headers reply: %w", err)
	}
	if h.buf, err = readMessage(h.in, h.buf, maxHeadersReply); err != nil {
		return reply, nil, fmt.Errorf("read headers reply: %w", unexpectedEOF(err))
	}
	size := consensus.HeaderBytes + h.x.o.Chain.Params().SealBytes
	reply, err = decodeHeadersReply(h.buf)
	if err == nil && reply.Bytes != reply.Count*size {
		err = violation("%d bytes for %d headers", reply.Bytes, reply.Count)
	}
	if err == nil && reply.Start > 1<<31-1-MaxHeaders {
		err = violation("headers from height %d", reply.Start)
	}
	if err != nil {
		return reply, nil, fmt.Errorf("headers reply: %w", err)
	}
	h.waiting--
	raw = h.raw[:reply.Bytes]
	if _, err := io.ReadFull(h.in, raw); err != nil {
		return reply, nil, fmt.Errorf("read %d headers: %w", reply.Count, unexpectedEOF(err))
	}
	return reply, raw, nil
}

var (
	errGone          = errors.New("peer gone")
	errBranchChanged = errors.New("they do not follow those before")
	// errShort ends a presync of a chain that has not enough work.
	errShort = &consensus.RuleError{
		Rule: "too-little-chainwork", Blame: consensus.BlameNobody, Detail: "the peer's headers end before they have it",
	}
)

// tooLittleWork reports whether the chain keeps no headers because they show less
// work than it wants to see.
func tooLittleWork(err error) bool { return brokeRule(err, "too-little-chainwork") }

// noRoom reports whether the chain has no room for headers until blocks have come.
func noRoom(err error) bool { return brokeRule(err, "too-many-headers") }

// unknownParent reports whether headers build on one that the chain does not have: it may
// have forgotten what it had.
func unknownParent(err error) bool { return brokeRule(err, "unknown-parent") }

// tooFar reports whether the chain takes no more headers before blocks have followed.
func tooFar(err error) bool { return brokeRule(err, "headers-too-far-ahead") }

// tooDeep reports whether the chain does not go over to a branch of itself, whatever work
// it has.
func tooDeep(err error) bool { return brokeRule(err, "reorg-too-deep") }

func brokeRule(err error, name string) bool {
	var rule *consensus.RuleError
	return errors.As(err, &rule) && rule.Rule == name
}

// withBlame says why the peer is to blame for the error, if it is.
func (p pulled) withBlame() pulled {
	var rule *consensus.RuleError
	switch {
	case errors.Is(p.err, errProtocol):
		p.blame = p.err.Error()
	case errors.As(p.err, &rule) && rule.Blame != consensus.BlameNobody:
		p.blame = p.err.Error()
	}
	return p
}

// headerKnown reports whether the header is in the tree.
func headerKnown(c Chain, hash chainhash.Hash) bool {
	_, ok := c.Status(hash)
	return ok
}
