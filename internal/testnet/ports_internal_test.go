package testnet

import (
	"errors"
	"net"
	"sync"
	"testing"
)

// TestPortsApart: testnets that are planned at once get ports of their own, also while no node listens on them yet, and later ones
// get what was released.
func TestPortsApart(t *testing.T) {
	const testnets, nodes = 10, MaxNodes
	all := make([]ports, testnets)
	var taking sync.WaitGroup
	for i := range all {
		taking.Go(func() {
			if err := all[i].take(t.Context(), 2*nodes); err != nil {
				t.Error(err)
			}
		})
	}
	taking.Wait()
	of := make(map[int]int)
	for i := range all {
		if len(all[i].list) != 2*nodes {
			t.Errorf("testnet %d has %d ports", i, len(all[i].list))
		}
		for _, port := range all[i].list {
			if other, ok := of[port]; ok {
				t.Errorf("testnets %d and %d both have port %d", other, i, port)
			}
			of[port] = i
		}
	}
	claim := all[0].claims[0]
	if l, err := net.Listen("tcp", claim.Addr().String()); err == nil {
		l.Close()
		t.Error("a claim is not held")
	}
	for i := range all {
		if err := all[i].release(); err != nil {
			t.Error(err)
		}
	}
	if _, err := claim.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("a claim is still held: %v", err)
	}
}
