//go:build slow

package main

import (
	"slices"
	"testing"
	"time"

	"dunlin/internal/simnet"
)

// Sixty nodes find themselves within what is promised.
func TestSlowJoin(t *testing.T) {
	simnet.Test(t, simnet.Options{}, func(t *testing.T, n *simnet.Network) {
		f, err := joinAtOnce(n, 60, true)
		t.Logf("%v, %v", f, err)
		if err != nil || f["eight_s"] > 1.5 || f["advert_s"] > 3 || f["seen"] != 60 || f["all_s"] > 10 {
			t.Error("too slow, or not all were found")
		}
	})
}

// Blocks reach fifty nodes within what is promised; the bars are for figures that are
// half of them, but for cold mempools.
func TestSlowFlood(t *testing.T) {
	for _, name := range []string{"warm", "missing5", "cold"} {
		t.Run(name, func(t *testing.T) {
			c := floodCases[slices.IndexFunc(floodCases, func(c floodCase) bool { return c.name == name })]
			simnet.Test(t, simnet.Options{}, func(t *testing.T, n *simnet.Network) {
				f, err := floodThrough(n, c, "dunlin")
				t.Logf("%v, %v", f, err)
				if err != nil || f[figLost] > 0 || f[figMax] > ms(c.bar) {
					t.Errorf("the last node has it after %.0f ms, %v are without; the bar is %s", f[figMax], f[figLost], c.bar)
				}
				if name == "warm" && f[figBytes] > 5*f[figCompact] {
					t.Errorf("%.0f bytes a node, the compact block has %.0f", f[figBytes], f[figCompact])
				}
			})
		})
	}
}

// A saved book is enough a while after the bootstrap has gone.
func TestSlowBook(t *testing.T) {
	simnet.Test(t, simnet.Options{}, func(t *testing.T, n *simnet.Network) {
		f, err := savedBook(n, 20, 15*time.Minute)
		t.Logf("%v, %v", f, err)
		if err != nil || f["four_s"] > 2 {
			t.Error("too slow")
		}
	})
}
