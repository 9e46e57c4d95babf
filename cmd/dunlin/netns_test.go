//go:build slow && linux

package main

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"dunlin/internal/netlab"
)

// Tests of daemons on hosts of their own: an address each, cables, partitions, routers. They
// take the time they take, for it is real, but hardly any processor.

// onHost describes a daemon on a host of a lab, listening there on port 9333 by TCP and QUIC.
func onHost(t *testing.T, h *netlab.Host, name string, args ...string) *daemon {
	t.Helper()
	d := newDaemon(t, name, args...)
	d.at = h
	for i, a := range d.args {
		if a == "/ip4/127.0.0.1/tcp/0" {
			d.args[i] = "/ip4/0.0.0.0/tcp/9333"
		}
	}
	d.args = append(d.args, "--listen", "/ip4/0.0.0.0/udp/9333/quic-v1")
	return d
}

// peerCount is how many peers a daemon has.
func (d *daemon) peerCount() int {
	s, err := d.status()
	if err != nil {
		return -1
	}
	return s.Peers.Inbound + s.Peers.Outbound
}

// A node whose sources are all out of reach for a minute says why, and has peers within 5 s once the
// line is back: with the cable pulled, and with a line that is broken far away, where dials get no
// answer at all.
func TestNetnsCable(t *testing.T) {
	t.Parallel()
	lab := netlab.New(t)
	first := onHost(t, lab.Host("20.1.0.1"), "first", "--network", "regtest")
	first.start()
	tip := first.mine(3)
	near := lab.Host("20.2.0.1")
	router := lab.Router("20.3.0.1", "10.0.0.1/24")
	far := router.Host("10.0.0.2")
	lose := func(on string) {
		if out, err := router.Outside.Run("iptables", "-w", on, "FORWARD", "-j", "DROP"); err != nil {
			t.Fatal(out, err)
		}
	}
	sources := []string{"--network", "regtest", "--bootstrap", first.addr(), "--dns-seed", testZone, "--dns-server", "20.9.0.53:53"}
	cut := map[string]*daemon{"no route": onHost(t, near, "near", sources...), "timed out": onHost(t, far, "far", sources...)}
	near.Unplug()
	lose("-I")
	for _, d := range cut {
		d.launch()
	}
	for why, d := range cut {
		d.listens()
		d.logged("no peers", "for_s=6", `static="20.1.0.1:9333 `+why+`"`, testZone+": server 20.9.0.53:53: ")
	}
	near.Plug()
	lose("-D")
	start := time.Now()
	for _, d := range cut {
		d.reaches(tip.Hash, 40*time.Second) // sources are asked again every few seconds, whatever failed
		t.Logf("%s has the tip %v after the line was back", d.name, time.Since(start).Round(time.Millisecond))
	}
}

// public makes a daemon of a test network behave as on a public one.
const public = "--p2p-allow-private=false"

// TestNetnsTenHosts: ten hosts on lines of 100 Mbit/s that are told nothing but the name of a DNS seed and start at the same moment
// find one another and the chain; when the node and the seed that they joined through are gone, so does one more
// by the address book of another; and when half of them was cut off for a while, all are of one mind soon after.
// What is asked for is logged: 10 s to join, 10 s to heal. What is asserted is that it happens.
func TestNetnsTenHosts(t *testing.T) {
	t.Parallel()
	const mbit = 100
	apart := 20 * time.Second
	if long() {
		apart = 2 * time.Minute
	}
	lab := netlab.New(t)
	host := func(addr string) *netlab.Host {
		h := lab.Host(addr)
		h.Bandwidth(mbit)
		return h
	}
	old := onHost(t, host("20.1.0.1"), "old", "--network", "regtest", public)
	old.start()
	tip := old.mine(100)
	seed := startSeeder(t, host("20.250.0.53"), "20.250.0.53:53", "--network", "regtest", public, "--bootstrap", old.addr())
	var all []*daemon
	var left, right []netlab.Node
	for i := range 10 {
		h := host(fmt.Sprintf("20.%d.0.1", 10+i))
		all = append(all, onHost(t, h, fmt.Sprintf("fresh%d", i), "--network", "regtest", public, "--dns-seed", testZone, "--dns-server", seed.addr))
		if i < 5 {
			left = append(left, h)
		} else {
			right = append(right, h)
		}
	}
	start := time.Now()
	for _, d := range all {
		d.launch()
	}
	for _, d := range all {
		d.listens()
	}
	for _, d := range all {
		d.reaches(tip.Hash, patience)
		knows(t, d, 4, patience)
	}
	figure(t, "daemons/together", time.Since(start).Seconds()) // since the first was started

	old.kill9()
	seed.kill9()
	h := host("20.40.0.1")
	newcomer := onHost(t, h, "newcomer", "--network", "regtest", public)
	book := filepath.Join(t.TempDir(), "peers.jsonl")
	for _, args := range [][]string{
		{"peers", "export", "--home", all[0].home, book},
		{"peers", "import", "--home", newcomer.home, "--network", "regtest", book},
	} {
		on := h
		if args[1] == "export" {
			on = left[0].(*netlab.Host) // where the node answers
		}
		if out, err := on.Run("dunlin", args...); err != nil {
			t.Fatal(out, err)
		}
	}
	start = time.Now()
	newcomer.start()
	newcomer.reaches(tip.Hash, patience)
	knows(t, newcomer, 4, patience)
	figure(t, "daemons/book", time.Since(start).Seconds())
	all, right = append(all, newcomer), append(right, netlab.Node(h))

	lab.Partition(left, right)
	short, better := all[1].mine(2), all[6].mine(4)
	for i, d := range all {
		d.reaches([]string{short.Hash, better.Hash}[min(i/5, 1)], patience)
	}
	<-time.NewTimer(apart).C
	t.Log("peers when apart:", all[0].peerCount(), all[1].peerCount(), all[5].peerCount(), all[10].peerCount())
	lab.Heal()
	start = time.Now()
	for _, d := range all {
		d.reaches(better.Hash, patience)
	}
	figure(t, "daemons/heal", time.Since(start).Seconds())
	tip = all[2].mine(1)
	for _, d := range all {
		d.reaches(tip.Hash, patience)
		knows(t, d, 4, patience)
	}
}

// Forty nodes behind one address all join, two nodes outside being all that they are told of.
func TestNetnsOneAddress(t *testing.T) {
	t.Parallel()
	lab := netlab.New(t)
	one := onHost(t, lab.Host("20.1.0.1"), "one", "--network", "regtest")
	one.start()
	two := onHost(t, lab.Host("20.2.0.1"), "two", "--network", "regtest", "--bootstrap", one.addr())
	two.start()
	tip := one.mine(20)
	router := lab.Router("20.3.0.1", "10.0.0.1/24")
	var crowd []*daemon
	start := time.Now()
	for i := range 40 {
		h := router.Host(fmt.Sprintf("10.0.0.%d", 10+i))
		d := onHost(t, h, fmt.Sprintf("crowd%d", i), "--network", "regtest", "--bootstrap", one.addr(), "--bootstrap", two.addr())
		d.launch()
		crowd = append(crowd, d)
	}
	for _, d := range crowd {
		d.listens()
	}
	t.Logf("all listen after %v", time.Since(start).Round(time.Millisecond))
	for _, d := range crowd {
		d.reaches(tip.Hash, patience)
		knows(t, d, 4, patience)
	}
	t.Logf("all have 4 peers and the tip after %v; the outside has %d and %d", time.Since(start).Round(time.Millisecond), one.peerCount(), two.peerCount())
	for _, d := range []*daemon{one, two} {
		if strings.Contains(d.log.String(), "refused") {
			t.Errorf("%s refuses: %s", d.name, d.log)
		}
	}
}

// A network that falls into two halves, each with a miner, is one again when the line is back.
func TestNetnsPartition(t *testing.T) {
	t.Parallel()
	// After 20 s connections are still open, and TCP sends again when it likes.
	apart, within := 20*time.Second, time.Minute
	if long() {
		apart, within = 5*time.Minute, 30*time.Second
	}
	lab := netlab.New(t)
	var all []*daemon
	var left, right []netlab.Node
	for i := range 8 {
		h := lab.Host(fmt.Sprintf("20.%d.0.1", 1+i))
		args := []string{"--network", "regtest"}
		if i > 0 {
			args = append(args, "--bootstrap", all[0].addr())
		}
		d := onHost(t, h, fmt.Sprintf("node%d", i), args...)
		d.start()
		all = append(all, d)
		if i < 4 {
			left = append(left, h)
		} else {
			right = append(right, h)
		}
	}
	tip := all[0].mine(3)
	for _, d := range all {
		d.reaches(tip.Hash, patience)
		knows(t, d, 4, patience)
	}
	lab.Partition(left, right)
	short := all[1].mine(2)
	long := all[6].mine(4)
	for i, d := range all {
		d.reaches([]string{short.Hash, long.Hash}[i/4], patience)
	}
	wait := time.NewTimer(apart)
	<-wait.C
	t.Log("peers when apart:", all[0].peerCount(), all[1].peerCount(), all[4].peerCount(), all[5].peerCount())
	lab.Heal()
	start := time.Now()
	for _, d := range all {
		d.reaches(long.Hash, within)
	}
	t.Logf("one tip %v after the line was back", time.Since(start).Round(time.Millisecond))
	b := all[2].mine(1)
	for _, d := range all {
		d.reaches(b.Hash, patience)
	}
}
