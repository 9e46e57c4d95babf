package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// TestScript runs every script of testdata/script: one a subject, each with its
// own folder, environment and daemons. Besides testscript's own commands there are
//
//	exits CODE COMMAND…     run it and want that exit code
//	until PATTERN COMMAND…  run it again and again until it succeeds and its
//	                        standard output matches
//	shape FILE WANT         compare the keys and types of a JSON file with a list
//	freeport NAME           set NAME to a port that nobody listens on
//	readenv NAME FILE [KEY] set NAME to the first line of a file, or to a key of the JSON that it is
func TestScript(t *testing.T) {
	t.Parallel()
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(env *testscript.Env) error {
			env.Setenv("HOME", env.WorkDir)
			env.Setenv("XDG_DATA_HOME", "")
			env.Setenv("GORACE", os.Getenv("GORACE"))
			// A daemon of a script: on loopback, at ports of the system's choice.
			env.Setenv("LOOPBACK", "--listen=/ip4/127.0.0.1/tcp/0")
			env.Setenv("RPC", "--rpc-listen=127.0.0.1:0")
			env.Defer(func() { endTestnets(t, env.WorkDir) })
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits": scriptExits, "until": scriptUntil, "shape": scriptShape, "freeport": scriptFreePort, "readenv": scriptReadEnv,
		},
	})
}

func scriptExits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE COMMAND…")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		exit, ok := errors.AsType[*exec.ExitError](err)
		if !ok {
			ts.Fatalf("%v", err)
		}
		got = exit.ExitCode()
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

func scriptUntil(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: until PATTERN COMMAND…")
	}
	pattern, err := regexp.Compile("(?m)" + args[0])
	ts.Check(err)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); ; <-tick.C {
		err := ts.Exec(args[1], args[2:]...)
		if err == nil && pattern.MatchString(ts.ReadFile("stdout")) {
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("not within %v: %v\n%s%s", patience, err, ts.ReadFile("stdout"), ts.ReadFile("stderr"))
		}
	}
}

func scriptShape(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: shape FILE WANT")
	}
	var v any
	ts.Check(json.Unmarshal([]byte(ts.ReadFile(args[0])), &v))
	got := strings.Join(shapeOf("", v), "\n") + "\n"
	if want := ts.ReadFile(args[1]); got != want {
		ts.Fatalf("got\n%s\nwant\n%s", got, want)
	}
}

// shapeOf lists the keys of a JSON value with their types, sorted; a list is
// described by its first item.
func shapeOf(path string, v any) []string {
	switch v := v.(type) {
	case map[string]any:
		var out []string
		for key, value := range v {
			out = append(out, shapeOf(strings.TrimPrefix(path+"."+key, "."), value)...)
		}
		slices.Sort(out)
		return out
	case []any:
		if len(v) > 0 {
			return shapeOf(path+"[]", v[0])
		}
		return []string{path + "[] empty"}
	case nil:
		return []string{path + " null"}
	case float64:
		return []string{path + " number"}
	default:
		return []string{fmt.Sprintf("%s %T", path, v)}
	}
}

// scriptPorts counts the ports that scripts were given; firstScriptPort is random, since another run of the suite may be under way.
var (
	scriptPorts     atomic.Uint32
	firstScriptPort = rand.Uint32N(2000)
)

func scriptFreePort(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: freeport NAME")
	}
	// One of those that the system gives to nobody and this suite gives to nothing else (testnets have 16384 and more, the tutorial
	// less than 14000), and to no two scripts, of which many run at once, so that it is free until it is used.
	for range 1000 {
		port := strconv.Itoa(14_000 + int(firstScriptPort+scriptPorts.Add(1))%2000)
		l, err := net.Listen("tcp", ":"+port)
		if err != nil {
			continue
		}
		p, err := net.ListenPacket("udp", ":"+port)
		ts.Check(l.Close())
		if err != nil {
			continue
		}
		ts.Check(p.Close())
		ts.Setenv(args[0], port)
		return
	}
	ts.Fatalf("no free port")
}

// TestHelp: every command says what it is and takes --help, and every flag of
// every command is explained.
func TestHelp(t *testing.T) {
	var walk func(*cobra.Command)
	walk = func(cmd *cobra.Command) {
		path := cmd.CommandPath()
		if cmd.Short == "" || strings.HasSuffix(cmd.Short, ".") {
			t.Errorf("%s: short text %q", path, cmd.Short)
		}
		if !cmd.Runnable() || cmd.Args == nil {
			t.Errorf("%s: without RunE or Args it would ignore what it is given", path)
		}
		cmd.Flags().VisitAll(func(f *pflag.Flag) {
			if f.Usage == "" {
				t.Errorf("%s: --%s is not explained", path, f.Name)
			}
		})
		var out, errs strings.Builder
		args := append(strings.Fields(path)[1:], "--help")
		if code := run(t.Context(), args, nil, &out, &errs); code != 0 || !strings.Contains(out.String(), "Usage:\n  "+path) || errs.Len() > 0 {
			t.Errorf("%s --help: exit %d\n%s%s", path, code, out.String(), errs.String())
		}
		for _, child := range cmd.Commands() {
			walk(child)
		}
	}
	walk(newRoot())
}

func scriptReadEnv(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 || len(args) > 3 {
		ts.Fatalf("usage: readenv NAME FILE [KEY]")
	}
	line, _, _ := strings.Cut(ts.ReadFile(args[1]), "\n")
	if len(args) == 3 {
		var v map[string]any
		ts.Check(json.Unmarshal([]byte(line), &v))
		line = fmt.Sprint(v[args[2]])
	}
	ts.Setenv(args[0], line)
}
