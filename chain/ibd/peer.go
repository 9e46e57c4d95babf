package ibd

import (
	"math"
	"time"
)

// Tuning. Only the caps of Config are contract; these are the starting values
// of DESIGN §7 and what the simulation of this package likes.
const (
	unknownRTT   = 100 * time.Millisecond // until measured
	unknownRate  = 1 << 20                // bytes/s of a peer before its first sample, if no other peer tells better
	mostRTT      = 3 * time.Second        // believed: who delays its answers does not get a larger quota for ever
	mostAnswer   = time.Second            // past the round trip, believed of what a server takes to answer
	mostPause    = 500 * time.Millisecond // likewise between two replies
	quotaSlack   = 50 * time.Millisecond  // past the time to answer: a reply's way through the peer's disk
	chunkTime    = 100 * time.Millisecond // one request should keep a peer busy about this long
	pauseTimes   = 3                      // and this many times as long as the peer pauses before each reply
	maxChunk     = 1 << 20                // expected bytes of one request
	sampleTime   = 20 * time.Millisecond  // of sending, in one sample of the rate
	quickBytes   = 16 << 10               // enough for a sample that took less
	quickTime    = 5 * time.Millisecond   // shortest time believed of such a sample
	maxRate      = 10 << 30               // bytes/s; keeps the integer arithmetic in range
	bucketTime   = 500 * time.Millisecond
	buckets      = 8 // of bucketTime: the 4 s over which the holder of the front is judged
	maxLacks     = 16
	backoffFirst = time.Second
	backoffMost  = 30 * time.Second
	promiseTimes = 4        // a request may bring this many times what is expected of it
	promiseSlack = 64 << 10 // and so much more
	fullScale    = 16
	maxClaims    = 4  // sizes of blocks not yet seen that one peer may have us believe
	marginMost   = 32 // right after a promise was too small, it exceeds the largest block seen by all of that
	marginLeast  = 4  // and by an eighth when all have fitted for a while
)

// request is an outstanding request.
type request struct {
	id        RequestID
	start     int32
	count     int32
	next      int32 // blocks received
	cancelled bool
	hedge     bool
	alone     bool // the peer owed nothing when it was asked
	asked     time.Duration
	promise   int64 // bytes that may still come
	share     int64 // bytes expected of one block when asked
	expect    int64 // bytes still expected
	frames    int64 // bytes of the blocks received
	arrived   int64 // bytes reported, of which frames were counted once
	charge    int64 // of a hedge: counted against the hedge budget
}

func (r *request) last() int32  { return r.start + r.count - 1 }
func (r *request) nextH() int32 { return r.start + r.next }

// lack is a range that a peer said it does not have.
type lack struct {
	from, to int32
	until    time.Duration
}

// peer is what the scheduler knows of one peer.
type peer struct {
	id        PeerID
	tie       uint64 // decides between equals
	low, high int32
	dropped   bool // a Drop is out, PeerGone is to come

	reqs     []*request // outstanding, oldest first, cancelled ones too
	live     int        // of reqs, not cancelled
	blocks   int        // owed by reqs
	promised int64      // bytes that reqs may still bring
	expect   int64      // bytes expected of reqs

	rtt       time.Duration // smallest seen; 0 unknown
	answer    time.Duration // from request to first byte with nothing before it; 0 unknown
	pause     time.Duration // between two replies though both were asked for; moving average
	rate      int64         // bytes/s, moving average; 0 unknown
	acc       int64         // bytes since the last sample
	active    time.Duration // in which acc arrived
	busySince time.Duration // last time live went from 0 to 1
	idleSince time.Duration // last time live went to 0
	lastBytes time.Duration // 0: never
	lastDone  time.Duration // a reply ended: a sign of life too
	bucket    [buckets]int64
	bucketNo  int64

	until      time.Duration // not to be asked before
	why        waitReason    // of until
	backoffs   int           // in a row, of Busy and Failed
	strikes    int           // stalls in a row
	scale      int64         // of the quota, in sixteenths
	stallTold  time.Duration // when a stall that nobody can mend was last told
	lacks      []lack
	lackRounds int // NotFound in a row
	claims     int // sizes that it told, not confirmed by a block yet

	passed bool // scratch of assign
}

// waitReason says why a peer is left alone.
type waitReason uint8

const (
	waitNone waitReason = iota
	waitBusy
	waitFailed
	waitStalled
)

func (p *peer) find(id RequestID) *request {
	for _, r := range p.reqs {
		if r.id == id {
			return r
		}
	}
	return nil
}

func (p *peer) roundTrip() time.Duration {
	if p.rtt == 0 {
		return unknownRTT
	}
	return min(p.rtt, mostRTT)
}

// latency returns how long a reply takes to begin: a round trip, and what the
// server does before it answers, which a round trip of the hello does not show.
func (p *peer) latency() time.Duration {
	return min(max(p.roundTrip(), p.answer), p.roundTrip()+mostAnswer)
}

// began learns from the first n bytes of the reply to r, which arrive now.
func (p *peer) began(now time.Duration, r *request, n int64) {
	wait := now - r.asked
	if r.alone && wait > 0 && (p.rtt == 0 || wait < p.rtt) {
		p.rtt = wait
	}
	var sending time.Duration
	if p.rate > 0 {
		sending = transfer(n, p.rate)
	}
	if !r.alone {
		gap := now - max(p.lastDone, r.asked+p.latency()) - sending
		p.pause += (min(max(gap, 0), mostPause) - p.pause) / 4
	}
	// What lay before it in the queue only makes a reply later: each is an upper
	// bound, but only one with nothing before it may raise the estimate.
	switch wait = max(wait-sending, 0); {
	case p.answer == 0 && r.alone, wait < p.answer:
		p.answer = wait
	case r.alone:
		p.answer += (wait - p.answer) / 2
	}
}

// count adds n bytes that arrived now, of a request made at asked, to the rate.
// Only the time counts in which the peer could send: from the arrival before, or
// the time to answer after the request if that is later. So a peer is not called
// slow for the pauses in which it was asked for too little.
func (p *peer) count(now, asked time.Duration, n int64) {
	p.active += max(0, now-max(p.lastBytes, asked+p.latency()))
	p.acc += n
	if p.active >= sampleTime {
		p.sample(p.active)
	}
	p.lastBytes = now
	p.advance(now)
	p.bucket[p.bucketNo%buckets] += n
}

func (p *peer) sample(dt time.Duration) {
	x := min(p.acc, math.MaxInt64/int64(time.Second)) * int64(time.Second) / int64(dt)
	x = max(1, min(x, maxRate))
	p.acc, p.active = 0, 0
	if p.rate == 0 {
		p.rate = x
		return
	}
	// A burst out of a buffer is not a rate: one sample counts at most 8 times the mean.
	p.rate = max(1, (4*p.rate+min(x, 8*p.rate))/5)
}

// idle notes that the last request ended.
func (p *peer) idle(now time.Duration) {
	p.idleSince = now
	p.quick()
}

// quick takes a sample of what a fast peer sent in less than sampleTime.
func (p *peer) quick() {
	if p.acc >= quickBytes {
		p.sample(max(p.active, quickTime))
	}
}

func (p *peer) advance(now time.Duration) {
	no := int64(now / bucketTime)
	for range min(no-p.bucketNo, buckets) {
		p.bucketNo++
		p.bucket[p.bucketNo%buckets] = 0
	}
	p.bucketNo = no
}

// recent returns the bytes/s of the last 4 s.
func (p *peer) recent(now time.Duration) int64 {
	p.advance(now)
	var sum int64
	for _, n := range p.bucket {
		sum += n
	}
	return sum / int64(buckets*bucketTime/time.Second)
}

// lacking returns the end of the range around h that the peer said it lacks,
// and whether there is one in force.
func (p *peer) lacking(now time.Duration, h int32) (int32, bool) {
	for _, l := range p.lacks {
		if l.from <= h && h <= l.to && now < l.until {
			return l.to, true
		}
	}
	return 0, false
}

// lacksFrom returns the lowest height above h that the peer said it lacks, or
// the largest height.
func (p *peer) lacksFrom(now time.Duration, h int32) int32 {
	low := int32(math.MaxInt32)
	for _, l := range p.lacks {
		if l.from > h && now < l.until {
			low = min(low, l.from)
		}
	}
	return low
}

// forgetLacks forgets what the peer lacks above keep: those were blocks of
// another branch.
func (p *peer) forgetLacks(keep int32) {
	kept := p.lacks[:0]
	for _, l := range p.lacks {
		if l.to = min(l.to, keep); l.from <= l.to {
			kept = append(kept, l)
		}
	}
	if len(kept) < len(p.lacks) {
		p.lackRounds = 0
	}
	p.lacks = kept
}

// addLack notes that the peer lacks a range.
func (p *peer) addLack(l lack, now time.Duration) {
	kept := p.lacks[:0]
	for _, o := range p.lacks {
		if now < o.until && (o.from < l.from || o.to > l.to) {
			kept = append(kept, o)
		}
	}
	if len(kept) == maxLacks { // forget the one that ends first: it is asked for again too early
		first := 0
		for i, o := range kept {
			if o.until < kept[first].until {
				first = i
			}
		}
		kept = append(kept[:first], kept[first+1:]...)
	}
	p.lacks = append(kept, l)
}
