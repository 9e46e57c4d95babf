package jsonrpc

import (
	"fmt"
	"log/slog"
	"slices"
	"time"

	"golang.org/x/sync/semaphore"

	"dunlin/chain/consensus"
	"dunlin/internal/address"
)

// What the tests, which are outside the package, reach inside for.
var (
	Disassemble        = disassemble
	ScriptType         = address.Kind
	DescriptorChecksum = descriptorChecksum
	Difficulty         = consensus.Difficulty
)

// Amount is what amounts are in answers and arguments.
type Amount = amount

// ReadingCalls are the calls that a read-only user may make.
var ReadingCalls = reads

// Limits that tests press against.
const (
	MaxDepth  = maxDepth
	MaxValues = maxValues
	MaxBatch  = maxBatch
	MaxKeys   = maxKeys
)

// FaultsOfHelp says what help lacks for any call, or has too much.
func FaultsOfHelp() []string {
	return faultsOfHelp(slices.Concat(chainMethods, controlMethods, miningMethods, networkMethods, txMethods, utilMethods, walletMethods))
}

// HelpOf is help of one call.
func HelpOf(name string) string {
	for _, m := range slices.Concat(chainMethods, controlMethods) {
		if m.name == name {
			return m.describe()
		}
	}
	return ""
}

// CallNames lists every call that there is.
func CallNames() []string {
	var names []string
	for _, group := range [][]method{chainMethods, controlMethods, miningMethods, networkMethods, txMethods, utilMethods} {
		for _, m := range group {
			names = append(names, m.name)
		}
	}
	return names
}

// Bare is a handler without a node, with calls of its own: echo gives back its first argument, missing is Core's
// error for what is not found, getblockcount and stop say that they were called.
func Bare() *Handler {
	h := &Handler{
		o:     Options{Now: time.Now, Logger: slog.New(slog.DiscardHandler)},
		turns: make(chan struct{}, workers), bodies: semaphore.NewWeighted(maxBodiesBytes),
		methods: make(map[string]*method), active: make(map[*call]time.Time),
	}
	for _, m := range []method{
		{name: "echo", params: "first? second?", run: func(c *call) (any, error) { return c.args[0], nil }},
		{name: "missing", run: func(*call) (any, error) { return nil, fault(codeInvalidAddress, "not there") }},
		{name: "getblockcount", run: func(*call) (any, error) { return 7, nil }},
		{name: "stop", run: func(*call) (any, error) { return "stopping", nil }},
	} {
		h.methods[m.name] = &m
	}
	return h
}

func faultsOfHelp(methods []method) (faults []string) {
	used, known := make(map[string]bool), make(map[string]bool)
	for _, m := range methods {
		known[m.name] = true
		man, ok := manuals[m.name]
		if !ok || m.help == "" || man.result == "" || man.example == "" {
			faults = append(faults, m.name+" has no manual")
			continue
		}
		if _, e := m.arguments([]byte(man.example)); e != nil {
			faults = append(faults, fmt.Sprintf("the example of %s: %v", m.name, e))
		}
		names := m.names()
		for _, name := range names {
			if man.args[name] == "" {
				used[name] = true
				if argumentHelp[name] == "" {
					faults = append(faults, m.name+": nothing on argument "+name)
				}
			}
		}
		for name := range man.args {
			if !slices.Contains(names, name) {
				faults = append(faults, m.name+" has no argument "+name)
			}
		}
	}
	for name := range manuals {
		if !known[name] {
			faults = append(faults, "there is no call "+name)
		}
	}
	for name := range argumentHelp {
		if !used[name] {
			faults = append(faults, "no call has an argument "+name)
		}
	}
	slices.Sort(faults)
	return faults
}
