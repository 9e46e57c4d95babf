package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"dunlin/internal/command"
)

// TestUsage: whatever is wrong is said at once, before anything starts.
func TestUsage(t *testing.T) {
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "tiny.dat"), nil)
	for _, c := range []struct {
		args string
		want []string
	}{
		{"nonsense", []string{`unknown command "nonsense"`}},
		{"ibd extra", []string{`arguments ["extra"]: want `}},
		{"ibd --nonsense", []string{"unknown flag", "see dunlin-bench ibd --help"}},
		{"ibd", []string{"nothing to measure"}},
		{"ibd --cases nosuch,tiny --runs 0", []string{"--runs 0", `no case "nosuch"`, "case tiny needs --chains"}},
		{"ibd --cases mainnet --chains " + dir, []string{"case mainnet needs --mainnet"}},
		{"ibd --cases tiny,fat --chains " + dir, []string{"case fat: stat"}},
		{"ibd --cases tiny --chains " + dir + " --btcd " + dir, []string{"--btcd: stat", "case tiny: btcd's server: stat"}},
		{"ibd --cases tiny --chains " + dir + " --dunlin /nowhere/dunlin", []string{"--dunlin:"}},
		{"stake extra", []string{`arguments ["extra"]: want `}},
		{"stake --cases nosuch,one --runs 101 --blocks -1", []string{"--runs 101", "--blocks -1", `no case "nosuch"`}},
	} {
		var out, errs strings.Builder
		if code := run(t.Context(), strings.Fields(c.args), &out, &errs); code != command.Misuse {
			t.Errorf("%s: exit %d\n%s", c.args, code, errs.String())
		}
		for _, want := range c.want {
			if !strings.Contains(errs.String(), want) {
				t.Errorf("%s: lacks %q:\n%s", c.args, want, errs.String())
			}
		}
	}
	var out, errs strings.Builder
	if code := run(t.Context(), []string{"ibd", "--help"}, &out, &errs); code != 0 || !strings.Contains(out.String(), "--btcd") {
		t.Errorf("exit %d\n%s%s", code, out.String(), errs.String())
	}
}

// TestEveryCase: each has a scenario, a bar, and a place in the help.
func TestEveryCase(t *testing.T) {
	for _, c := range ibdCases {
		sc, ok := scenarios[c.scenario]
		if !ok || sc.peers < 1 || c.figure == nil || c.bar.Value == 0 || (c.bar.Of != "ratio" && c.bar.Of != "ours") {
			t.Errorf("%s: %+v", c.name, c)
		}
	}
}

// TestEndedByItself: a node that cannot run is reported with the end of its log.
func TestEndedByItself(t *testing.T) {
	p := &procs{dir: t.TempDir()}
	c, err := p.start("broken", "sh", "-c", "echo first; echo last words >&2; exit 7")
	if err != nil {
		t.Fatal(err)
	}
	n := &node{child: c, tip: func(context.Context) (int32, string, error) { return 0, "", errNotYet }}
	_, _, err = n.ready(t.Context())
	if err == nil || !strings.Contains(err.Error(), "exit status 7") || !strings.Contains(err.Error(), "last words") {
		t.Error(err)
	}
	if _, err := p.start("none", "/nowhere/program"); err == nil {
		t.Error("a program that is none was started")
	}
	if err := p.stopAll(); err != nil || len(p.children) > 0 {
		t.Error(err, p.children)
	}
}

// TestStubborn: what does not end when it is asked to is killed, frozen or not.
func TestStubborn(t *testing.T) {
	p := &procs{dir: t.TempDir()}
	c, err := p.start("stubborn", "sh", "-c", "trap '' TERM; echo ready; while :; do sleep 1; done")
	if err != nil {
		t.Fatal(err)
	}
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !strings.Contains(c.tail(), "ready") {
		<-tick.C
	}
	if err := c.freeze(); err != nil {
		t.Fatal(err)
	}
	if err := c.end(100 * time.Millisecond); err == nil || !strings.Contains(err.Error(), "was killed") {
		t.Error(err)
	}
	if c.exited() == nil {
		t.Error("it still runs")
	}
}

// fakeBtcd answers JSON-RPC for a list of blocks, the last of which is the tip.
type fakeBtcd struct {
	chain []fakeBlock
	calls []string
}

type fakeBlock struct {
	hash string
	at   time.Time
}

func (f *fakeBtcd) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var q struct {
		Method string `json:"method"`
		Params []any  `json:"params"`
	}
	if user, password, ok := r.BasicAuth(); !ok || user != rpcUser || password != rpcPassword || json.NewDecoder(r.Body).Decode(&q) != nil {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	f.calls = append(f.calls, q.Method)
	var result, fault any
	find := func() int {
		return slices.IndexFunc(f.chain, func(b fakeBlock) bool { return b.hash == q.Params[0] })
	}
	switch q.Method {
	case "getbestblockhash":
		result = f.chain[len(f.chain)-1].hash
	case "generate":
		f.chain = append(f.chain, fakeBlock{fmt.Sprintf("mined%d", len(f.chain)), time.Now()})
	case "submitblock":
		if hash := strings.TrimPrefix(q.Params[0].(string), "raw "); strings.HasPrefix(hash, "bad") {
			result = "rejected: bad"
		} else {
			f.chain = append(f.chain, fakeBlock{hash, time.Now()})
		}
	case "getblock", "getblockheader":
		i := find()
		if i < 0 {
			fault = rpcError{Code: -5, Message: "Block not found"}
		} else if q.Method == "getblock" {
			result = "raw " + q.Params[0].(string)
		} else {
			header := map[string]any{"time": f.chain[i].at.Unix()}
			if i > 0 {
				header["previousblockhash"] = f.chain[i-1].hash
			}
			result = header
		}
	default:
		fault = rpcError{Code: -32601, Message: "Method not found"}
	}
	_ = json.NewEncoder(w).Encode(map[string]any{"result": result, "error": fault, "id": 1})
}

func serveFake(t *testing.T, f *fakeBtcd) *rpcClient {
	t.Helper()
	s := httptest.NewServer(f)
	t.Cleanup(s.Close)
	return &rpcClient{url: s.URL}
}

// TestFreshTips: the first server of btcd mines one block if its tip is old, and the
// others are given what they lack.
func TestFreshTips(t *testing.T) {
	old := time.Now().Add(-48 * time.Hour)
	chain := []fakeBlock{{"a", old}, {"b", old}}
	first, second := &fakeBtcd{chain: slices.Clone(chain)}, &fakeBtcd{chain: slices.Clone(chain)}
	one, two := serveFake(t, first), serveFake(t, second)
	for range 2 { // the second time there is nothing to do
		if err := freshen(t.Context(), one); err != nil {
			t.Fatal(err)
		}
		if err := copyTip(t.Context(), two, one); err != nil {
			t.Fatal(err)
		}
	}
	first.chain = append(first.chain, fakeBlock{"c", time.Now()}, fakeBlock{"d", time.Now()})
	if err := copyTip(t.Context(), two, one); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, b := range second.chain {
		got = append(got, b.hash)
	}
	if want := []string{"a", "b", "mined2", "c", "d"}; !slices.Equal(got, want) {
		t.Errorf("the second server has %v, want %v", got, want)
	}
	first.chain = append(first.chain, fakeBlock{"bad", time.Now()})
	if err := copyTip(t.Context(), two, one); err == nil || !strings.Contains(err.Error(), "rejected: bad") {
		t.Error(err)
	}
	if err := one.call(t.Context(), nil, "nosuch"); err == nil || !strings.Contains(err.Error(), "nosuch: Method not found (code -32601)") {
		t.Error(err)
	}
	other := serveFake(t, &fakeBtcd{chain: []fakeBlock{{"x", old}, {"y", old}}})
	if err := copyTip(t.Context(), other, one); err == nil {
		t.Error("blocks of another chain were copied")
	}
}
