package chain

import (
	"context"
	"sync"
)

// A queue bounds the blocks inside the pipeline, from Submit to verdict, by
// number and by bytes, and keeps them in the order of submission.
type queue struct {
	maxBlocks int
	maxBytes  int64

	turn  chan struct{} // holds one token: who has it may put; others wait in line
	room  chan struct{} // signals that something left
	prep  chan *item    // to the workers
	order chan *item    // the same items, to the conductor

	mu     sync.Mutex // guards the two sums, for a few instructions
	blocks int
	bytes  int64

	closing chan struct{} // closed when nothing may be put any more
}

func newQueue(maxBlocks int, maxBytes int64) *queue {
	q := &queue{
		maxBlocks: maxBlocks,
		maxBytes:  maxBytes,
		turn:      make(chan struct{}, 1),
		room:      make(chan struct{}, 1),
		prep:      make(chan *item, maxBlocks),
		order:     make(chan *item, maxBlocks),
		closing:   make(chan struct{}),
	}
	q.turn <- struct{}{}
	return q
}

// fits takes n bytes if there is room; one block always fits into an empty queue.
func (q *queue) fits(n int64) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.blocks > 0 && (q.blocks >= q.maxBlocks || q.bytes+n > q.maxBytes) {
		return false
	}
	q.blocks++
	q.bytes += n
	return true
}

// leave gives back the room of an item of n bytes.
func (q *queue) leave(n int64) {
	q.mu.Lock()
	q.blocks--
	q.bytes -= n
	q.mu.Unlock()
	select {
	case q.room <- struct{}{}:
	default:
	}
}

// put blocks until it fits.
func (q *queue) put(ctx context.Context, it *item) error {
	select {
	case <-q.turn:
	case <-q.closing:
		return ErrClosed
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { q.turn <- struct{}{} }()
	for !q.fits(int64(len(it.raw))) {
		select {
		case <-q.room:
		case <-q.closing:
			return ErrClosed
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	select {
	case <-q.closing:
		q.leave(int64(len(it.raw)))
		return ErrClosed
	default:
	}
	it.queue = q
	// Neither send blocks: both channels hold as many items as may be inside.
	q.prep <- it
	q.order <- it
	return nil
}

// close lets nobody in any more and gives what still waits in order to f.
func (q *queue) close(f func(*item)) {
	close(q.closing)
	<-q.turn // whoever was inside put has left
	q.turn <- struct{}{}
	for {
		select {
		case it := <-q.order:
			f(it)
		default:
			return
		}
	}
}
