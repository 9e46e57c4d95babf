package testnet_test

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"dunlin/internal/testnet"
)

// Every topology is in one piece, whatever its size and seed, and has the links of its name.
func TestLinks(t *testing.T) {
	for n := testnet.MinNodes; n <= testnet.MaxNodes; n++ {
		for _, topology := range testnet.Topologies {
			for seed := range uint64(3) {
				links := testnet.Links(topology, n, seed)
				if !reflect.DeepEqual(links, testnet.Links(topology, n, seed)) {
					t.Fatalf("%s of %d, seed %d: not the same twice", topology, n, seed)
				}
				degree := make([]int, n+1)
				seen := map[[2]int]bool{}
				piece := make([]int, n+1)
				for i := range piece {
					piece[i] = i
				}
				var root func(int) int
				root = func(i int) int {
					if piece[i] != i {
						piece[i] = root(piece[i])
					}
					return piece[i]
				}
				for _, l := range links {
					a, b := min(l[0], l[1]), max(l[0], l[1])
					if a < 1 || b > n || a == b || seen[[2]int{a, b}] {
						t.Fatalf("%s of %d, seed %d: link %v", topology, n, seed, l)
					}
					seen[[2]int{a, b}] = true
					degree[a]++
					degree[b]++
					piece[root(a)] = root(b)
				}
				for i := 2; i <= n; i++ {
					if root(i) != root(1) {
						t.Fatalf("%s of %d, seed %d: node %d stands alone", topology, n, seed, i)
					}
				}
				slices.Sort(degree)
				want := map[string]int{"line": n - 1, "star": n - 1, "ring": n}[topology]
				if topology == "ring" && n == 2 {
					want = 1
				}
				if topology != "random" && len(links) != want {
					t.Errorf("%s of %d has %d links", topology, n, len(links))
				}
				if topology == "ring" && n > 2 && degree[1] != 2 || topology == "star" && degree[n] != n-1 {
					t.Errorf("%s of %d: degrees %v", topology, n, degree)
				}
			}
		}
	}
}

// The same seed gives the same schedule, another one another; nothing is done to a node that something is being done to, nothing lasts
// longer than the whole, all kinds come, and some nodes keep their processes.
func TestSchedule(t *testing.T) {
	for _, o := range []testnet.ScheduleOptions{
		{Seed: 1, Nodes: 10, For: time.Hour, Every: 10 * time.Second},
		{Seed: 1, Nodes: 6, For: 40 * time.Second, Every: 2 * time.Second},
		{Seed: 7, Nodes: 2, For: 5 * time.Minute, Every: 200 * time.Millisecond},
		{Seed: 3, Nodes: 50, For: 10 * time.Minute, Every: 500 * time.Millisecond},
		{Seed: 3, Nodes: 5, For: 5 * time.Second, Every: time.Second, Kinds: []string{testnet.KindKill}},
	} {
		name := fmt.Sprint(o)
		events, err := testnet.Schedule(o)
		if err != nil {
			t.Fatal(err)
		}
		again, _ := testnet.Schedule(o)
		if !reflect.DeepEqual(events, again) {
			t.Errorf("%s: not the same twice", name)
		}
		other := o
		other.Seed += 100
		if differ, _ := testnet.Schedule(other); reflect.DeepEqual(events, differ) {
			t.Errorf("%s: another seed gives the same", name)
		}
		busy := make([]time.Duration, o.Nodes+1)
		kinds := map[string]int{}
		touched := map[int]bool{}
		for _, e := range events {
			kinds[e.Kind]++
			if e.At < o.Every || e.Lasts <= 0 || e.At+e.Lasts > o.For {
				t.Errorf("%s: %v at %v", name, e, e.At)
			}
			if (e.Kind == testnet.KindSkew) != (e.Offset != 0) || e.Offset.Abs() > 90*time.Second {
				t.Errorf("%s: offset %v of %s", name, e.Offset, e.Kind)
			}
			if e.Kind == testnet.KindPartition {
				if len(e.Nodes) == 0 || len(e.Nodes) > max(1, o.Nodes/2) {
					t.Errorf("%s: %v", name, e)
				}
				continue
			}
			id := e.Nodes[0]
			if len(e.Nodes) != 1 || e.At < busy[id] {
				t.Errorf("%s: %v at %v, and the node is busy until %v", name, e, e.At, busy[id])
			}
			busy[id] = e.At + e.Lasts
			if e.Kind != testnet.KindStop {
				touched[id] = true
			}
		}
		if len(o.Kinds) == 0 && o.For >= 40*time.Second && len(kinds) != len(testnet.Kinds) {
			t.Errorf("%s: kinds %v", name, kinds)
		}
		if o.Nodes >= 5 && touched[o.Nodes] {
			t.Errorf("%s: the last node was restarted", name)
		}
	}
}

// Each fault of the options is named.
func TestScheduleRefuses(t *testing.T) {
	if _, err := testnet.Schedule(testnet.ScheduleOptions{Seed: 1, Nodes: 5, For: 5 * time.Second, Every: 5 * time.Second}); err == nil || !strings.Contains(err.Error(), "too short for any event") {
		t.Errorf("nothing would happen: %v", err)
	}
	_, err := testnet.Schedule(testnet.ScheduleOptions{Nodes: 1, For: time.Second, Every: time.Millisecond, Kinds: []string{"kill", "fire", "kill"}})
	for _, want := range []string{"nodes 1: must be 2 to 50", "for 1s: must be 5s to 24h", "every 1ms: must be 200ms to 1h", `kinds "fire": must be kill, stop`, "kill is there twice"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v lacks %q", err, want)
		}
	}
}
