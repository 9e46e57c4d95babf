package ibd

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "rewrite the golden files in testdata")

// golden compares got with the file, or rewrites the file with -update.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	if *update {
		if err := os.WriteFile(name, got, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s differs (run with -update and read the diff); got:\n%s", name, got)
	}
}

// TestScripts runs every script: lines of events, each followed by the actions
// that Step returned. Lines that begin with two spaces are output. The commands:
//
//	config KEY=N …               first; keys as in newScript
//	target BASE BEST [keep=H] [have=A-B,C-D]
//	peer NAME LOW-HIGH [RTT]
//	gone NAME
//	bytes NAME ID N
//	block NAME ID HEIGHT SIZE
//	blocks NAME ID SIZE [N]      the next N (else all) blocks of the reply, then its Done if all
//	done NAME ID STATUS [SIZE]
//	connected H, stored H, rejected H [blame|refetch]
//	wait DURATION                ticks every 100 ms
//	stats
func TestScripts(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/script/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, name := range files {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".txt"), func(t *testing.T) {
			t.Parallel()
			text, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			golden(t, name, runScript(t, string(text)))
		})
	}
}

type script struct {
	t   *testing.T
	c   *checker
	out bytes.Buffer
}

func runScript(t *testing.T, text string) []byte {
	t.Helper()
	sc := &script{t: t}
	for n, line := range strings.Split(strings.TrimRight(text, "\n"), "\n") {
		if strings.HasPrefix(line, "  ") {
			continue
		}
		sc.out.WriteString(line + "\n")
		if f := strings.Fields(line); len(f) > 0 && f[0][0] != '#' {
			if sc.c == nil {
				sc.start(f)
				continue
			}
			if err := sc.command(f); err != nil {
				t.Fatalf("line %d: %s: %v\n%s", n+1, line, err, sc.out.String())
			}
		}
	}
	return sc.out.Bytes()
}

func (sc *script) start(f []string) {
	sc.t.Helper()
	if f[0] != "config" {
		sc.t.Fatalf("a script begins with config, not %q", f[0])
	}
	cfg := Config{MaxBlockBytes: 4_000_000}
	for _, kv := range f[1:] {
		k, v, _ := strings.Cut(kv, "=")
		n := sc.number(v)
		switch k {
		case "window":
			cfg.Window = int32(n)
		case "block":
			cfg.MaxBlockBytes = n
		case "bytes":
			cfg.MaxBytes = n
		case "requests":
			cfg.MaxRequests = int(n)
		case "peerbytes":
			cfg.MaxBytesPerPeer = n
		case "peerrequests":
			cfg.MaxRequestsPerPeer = int(n)
		case "count":
			cfg.MaxCount = int(n)
		default:
			sc.t.Fatalf("unknown key %q", k)
		}
	}
	c, err := newChecker(cfg)
	if err != nil {
		sc.t.Fatal(err)
	}
	sc.c = c
}

func (sc *script) number(text string) int64 {
	sc.t.Helper()
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		sc.t.Fatal(err)
	}
	return n
}

func (sc *script) span(text string) [2]int32 {
	from, to, _ := strings.Cut(text, "-")
	return [2]int32{int32(sc.number(from)), int32(sc.number(to))}
}

func (sc *script) event(e Event) error {
	actions, err := sc.c.step(e)
	for _, a := range actions {
		stamp := ""
		if _, ok := e.(Tick); ok {
			stamp = fmt.Sprintf("%.1fs ", sc.c.now.Sub(epoch).Seconds())
		}
		fmt.Fprintf(&sc.out, "  %s%s\n", stamp, show(a))
	}
	return err
}

func show(a Action) string {
	switch a := a.(type) {
	case Request:
		text := fmt.Sprintf("request %s #%d %d+%d max %d", a.Peer, a.ID, a.Start, a.Count, a.MaxBytes)
		if a.Attempt > 1 {
			text += fmt.Sprintf(" attempt %d", a.Attempt)
		}
		if a.Hedge {
			text += " hedge"
		}
		return text
	case Cancel:
		return fmt.Sprintf("cancel %s #%d", a.Peer, a.ID)
	case Deliver:
		return fmt.Sprintf("deliver %d of %s #%d", a.Height, a.Peer, a.ID)
	case Discard:
		return fmt.Sprintf("discard %d of %s #%d", a.Height, a.Peer, a.ID)
	case Drop:
		return fmt.Sprintf("drop %s: %s", a.Peer, a.Reason)
	case Stalled:
		return fmt.Sprintf("stalled: %s holds %d, silent for %v, asked %q, attempt %d", a.Peer, a.Height, a.Waited, a.Asked, a.Attempt)
	}
	return fmt.Sprintf("%T", a)
}

func (sc *script) command(f []string) error {
	sc.t.Helper()
	arg := func(i int) int64 { return sc.number(f[i]) }
	switch f[0] {
	case "target":
		e := Target{Base: int32(arg(1)), Best: int32(arg(2)), Keep: sc.c.s.best}
		for _, kv := range f[3:] {
			switch k, v, _ := strings.Cut(kv, "="); k {
			case "keep":
				e.Keep = int32(sc.number(v))
			case "have":
				for x := range strings.SplitSeq(v, ",") {
					e.Have = append(e.Have, sc.span(x))
				}
			}
		}
		return sc.event(e)
	case "peer":
		x := sc.span(f[2])
		e := PeerTip{Peer: PeerID(f[1]), Low: x[0], High: x[1]}
		if len(f) > 3 {
			d, err := time.ParseDuration(f[3])
			if err != nil {
				return err
			}
			e.RTT = d
		}
		return sc.event(e)
	case "gone":
		return sc.event(PeerGone{PeerID(f[1])})
	case "bytes":
		return sc.event(Bytes{PeerID(f[1]), RequestID(arg(2)), arg(3)})
	case "block":
		return sc.event(Block{PeerID(f[1]), RequestID(arg(2)), int32(arg(3)), arg(4)})
	case "blocks":
		return sc.blocks(f)
	case "done":
		e := Done{Peer: PeerID(f[1]), ID: RequestID(arg(2))}
		e.Status = map[string]Status{"ok": OK, "notfound": NotFound, "busy": Busy, "toolarge": TooLarge, "failed": Failed, "lied": Lied}[f[3]]
		if len(f) > 4 {
			e.Size = arg(4)
		}
		return sc.event(e)
	case "connected":
		return sc.event(Connected{int32(arg(1))})
	case "stored":
		return sc.event(Stored{int32(arg(1))})
	case "rejected":
		e := Rejected{Height: int32(arg(1))}
		if len(f) > 2 {
			e.BlameSender, e.Refetch = f[2] == "blame", f[2] == "refetch"
		}
		return sc.event(e)
	case "wait":
		d, err := time.ParseDuration(f[1])
		for ; err == nil && d > 0; d -= 100 * time.Millisecond {
			sc.c.now = sc.c.now.Add(min(d, 100*time.Millisecond))
			err = sc.event(Tick{})
		}
		return err
	case "stats":
		fmt.Fprintf(&sc.out, "  %+v\n", sc.c.s.Stats())
		return nil
	}
	return fmt.Errorf("unknown command")
}

func (sc *script) blocks(f []string) error {
	sc.t.Helper()
	peer, id, size := PeerID(f[1]), RequestID(sc.number(f[2])), sc.number(f[3])
	r := sc.c.reqs[id]
	if r == nil || r.Peer != peer {
		return fmt.Errorf("no such request")
	}
	n := r.Count - r.next
	if len(f) > 4 {
		n = int(sc.number(f[4]))
	}
	for range n {
		if err := sc.event(Block{peer, id, r.Start + int32(r.next), size}); err != nil {
			return err
		}
	}
	if r.next == r.Count {
		return sc.event(Done{Peer: peer, ID: id})
	}
	return nil
}
