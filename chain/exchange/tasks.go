package exchange

import (
	"sync"
)

// tasks counts the goroutines of one Run, those that libp2p starts for inbound
// streams included, so that Run can wait for them.
type tasks struct {
	mu     sync.Mutex // guards closed, held for an instant
	closed bool
	wg     sync.WaitGroup
}

// enter counts the calling goroutine in; false means that Run is over.
func (t *tasks) enter() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return false
	}
	t.wg.Add(1)
	return true
}

func (t *tasks) leave() { t.wg.Done() }

// Go runs f in a goroutine unless Run is over.
func (t *tasks) Go(f func()) {
	if t.enter() {
		go func() {
			defer t.leave()
			f()
		}()
	}
}

// wait lets nobody in any more and waits until all have left.
func (t *tasks) wait() {
	t.mu.Lock()
	t.closed = true
	t.mu.Unlock()
	t.wg.Wait()
}
