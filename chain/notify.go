package chain

import "sync"

// A notice publishes the newest value of something that changes. Whoever reads
// it gets a channel that the next change closes, so slow readers see only the
// newest value and never hold the writer up. The channel is made only when
// somebody asks, which keeps a change at two field writes during bulk sync.
type notice struct {
	mu      sync.Mutex // guards both; held for those writes only
	i       uint32
	changed chan struct{}
}

func newNotice(i uint32) *notice { return &notice{i: i} }

func (n *notice) set(i uint32) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.i == i {
		return
	}
	n.i = i
	if n.changed != nil {
		close(n.changed)
		n.changed = nil
	}
}

func (n *notice) get() uint32 {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.i
}

func (n *notice) watch() (uint32, <-chan struct{}) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.changed == nil {
		n.changed = make(chan struct{})
	}
	return n.i, n.changed
}
