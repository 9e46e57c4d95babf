package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// On a network where stake makes blocks a seeder does as it does elsewhere: whoever knows
// the seed's name alone finds the nodes, and their blocks.
func TestE2ESeederOfStake(t *testing.T) {
	t.Parallel()
	x := newStakeholders(3)
	first := startDaemon(t, "first", "--network", "stakenet")
	first.submits(whoWon(t, x.p, x.blocks)[1:]...)
	seed := startSeeder(t, nil, "127.0.0.1:0", "--network", "stakenet", "--bootstrap", first.addr())
	joined := startDaemon(t, "joined", "--network", "stakenet", "--dns-seed", "seed.example.org", "--dns-server", seed.addr)
	joined.reaches(x.tip().Hash.String(), patience)
}

// A seeder that is told of one node finds the others; a fresh daemon that has nothing but the seed's name joins,
// as fast when two more seeds are dead.
func TestE2ESeeder(t *testing.T) {
	first := startDaemon(t, "first", "--network", "regtest")
	second := startDaemon(t, "second", "--network", "regtest", "--bootstrap", first.addr())
	third := startDaemon(t, "third", "--network", "regtest", "--bootstrap", second.addr())
	tip := first.mine(5)
	third.reaches(tip.Hash, patience)

	seed := startSeeder(t, nil, "127.0.0.1:0", "--network", "regtest", "--bootstrap", first.addr())
	server, zoneFile := seed.addr, seed.zoneFile
	ask := func(name string, kind uint16) []dns.RR {
		q := new(dns.Msg)
		q.SetQuestion(name, kind)
		m, _, err := (&dns.Client{Net: "tcp", Timeout: patience}).Exchange(q, server)
		if err != nil {
			t.Fatal(err)
		}
		return m.Answer
	}
	start := time.Now()
	eventually(t, patience, "the seed tells of all three", func() error {
		got := ask("_dnsaddr.seed.example.org.", dns.TypeTXT)
		if len(got) != 3 {
			return fmt.Errorf("records %v", got)
		}
		for _, d := range []*daemon{first, second, third} {
			if !strings.Contains(fmt.Sprint(got), "/p2p/"+d.info.PeerID) {
				return fmt.Errorf("%s is not told, but %v", d.name, got)
			}
		}
		return nil
	})
	t.Logf("all three are told %s after the seeder answered", time.Since(start).Round(time.Millisecond))
	if got := ask("seed.example.org.", dns.TypeA); len(got) != 1 { // all three are on one address
		t.Errorf("A records %v", got)
	}

	// A second seeder that knows nothing but the first one's name.
	mirror := startSeeder(t, nil, "127.0.0.1:0", "--network", "regtest", "--dns-seed", "seed.example.org", "--dns-server", server)
	eventually(t, patience, "the second seed tells of all three", func() error {
		q := new(dns.Msg)
		q.SetQuestion("_dnsaddr.seed.example.org.", dns.TypeTXT)
		m, _, err := (&dns.Client{Net: "tcp", Timeout: patience}).Exchange(q, mirror.addr)
		if err != nil || len(m.Answer) != 3 {
			return fmt.Errorf("answer %v, error %w", m, err)
		}
		return nil
	})

	joined := startDaemon(t, "joined", "--network", "regtest", "--dns-seed", "seed.example.org", "--dns-server", server)
	joined.reaches(tip.Hash, patience)

	dead, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer dead.Close() // open and silent
	start = time.Now()
	other := startDaemon(t, "other", "--network", "regtest", "--dns-seed", "dead1.invalid", "--dns-seed", "seed.example.org", "--dns-seed", "dead2.invalid",
		"--dns-server", dead.LocalAddr().String(), "--dns-server", server)
	other.reaches(tip.Hash, patience)
	t.Logf("with two of three seeds dead it joined and synced %s after it was started", time.Since(start).Round(time.Millisecond))

	// A node that goes away is told no more.
	second.stop()
	eventually(t, patience, "the node that stopped is no longer told", func() error {
		if got := fmt.Sprint(ask("_dnsaddr.seed.example.org.", dns.TypeTXT)); strings.Contains(got, second.info.PeerID) {
			return errors.New(got)
		}
		return nil
	})
	zone, err := os.ReadFile(zoneFile)
	if err != nil || !strings.Contains(string(zone), "seed.example.org.\t60\tIN\tSOA\tns1.example.org.") {
		t.Errorf("zone file %q, error %v", zone, err)
	}
}

// testZone is the zone of the seeders under test.
const testZone = "seed.example.org"

// seed is a running dunlin seeder.
type seed struct {
	addr     string // host:port of its DNS
	zoneFile string
	log      *output
	cmd      *exec.Cmd // nil: it has ended
}

// kill9 ends the seeder without a word.
func (s *seed) kill9() {
	_ = s.cmd.Process.Kill()
	_ = s.cmd.Wait() // which says that it was killed
	s.cmd = nil
}

// startSeeder runs a seeder of testZone, on a host of its own unless at is nil, until the test ends, and
// waits until it answers DNS.
func startSeeder(t *testing.T, at place, listen string, args ...string) *seed {
	t.Helper()
	home := t.TempDir()
	s := &seed{zoneFile: filepath.Join(home, "zone"), log: newOutput(t)}
	cmd := exec.Command("dunlin", append([]string{
		"seeder", "--home", filepath.Join(home, "seeder"), "--log-color", "never", "--zone", testZone, "--ns", "ns1.example.org",
		"--dns-listen", listen, "--metrics-listen", "127.0.0.1:0", "--interval", "1s", "--zone-file", s.zoneFile,
	}, args...)...)
	s.log.of(cmd)
	cmd.SysProcAttr = endsWithParent(syscall.SIGKILL)
	run := cmd.Start
	if at != nil {
		run = func() error { return at.Start(cmd) }
	}
	if err := run(); err != nil {
		t.Fatal(err)
	}
	s.cmd = cmd
	t.Cleanup(func() {
		if s.cmd != nil {
			_ = cmd.Process.Signal(syscall.SIGTERM)
			if err := cmd.Wait(); err != nil {
				t.Errorf("the seeder ended with %v", err)
			}
		}
		if t.Failed() {
			t.Logf("log of the seeder:\n%s", lastPart(s.log.String(), 6000))
		}
	})
	eventually(t, patience, "the seeder answers DNS", func() error {
		m := regexp.MustCompile(`answering DNS.* addr=(\S+)`).FindStringSubmatch(s.log.String())
		if m == nil {
			return errors.New("no line about it")
		}
		s.addr = m[1]
		return nil
	})
	return s
}
