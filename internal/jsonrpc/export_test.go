package jsonrpc

import (
	"log/slog"
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
