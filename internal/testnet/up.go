package testnet

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/btcsuite/btcd/btcec/v2"
	"github.com/btcsuite/btcd/btcec/v2/schnorr"
	"github.com/btcsuite/btcd/btcutil/v2"
	"github.com/btcsuite/btcd/chaincfg/v2"
	"github.com/btcsuite/btcd/txscript/v2"
	"github.com/libp2p/go-libp2p/core/peer"

	"dunlin/chain/consensus"
	"dunlin/chain/store"
	"dunlin/config"
	"dunlin/internal/api"
	"dunlin/internal/host"
)

// UpOptions configure Up. Zero means the default given.
type UpOptions struct {
	Program  string        // path of the dunlin binary; required
	Dir      string        // of the testnet; required; one that holds a testnet that is down goes on with its chain
	Nodes    int           // default 5, MinNodes to MaxNodes
	Engine   string        // default pow
	Topology string        // default ring
	Miners   int           // default 1: the first ones mine, or share the stake
	TxRate   float64       // transactions a second, all together, up to MaxTxRate; 0: none
	Spacing  time.Duration // between blocks; default 2 s, with stake 8 s; whole seconds, with stake a multiple of 4
	Seed     uint64        // of the random topology; default 1
	For      time.Duration // end by itself after this; 0: when ctx ends

	Out  io.Writer                  // the table
	Size func() (columns, rows int) // of the terminal that Out is: the table is redrawn in place; nil: it is none

	// Detached: the nodes and this process do not end with a terminal, nor the nodes with this process.
	Detached bool
	// Locked: whoever started this process keeps others from starting the testnet meanwhile, as UpDetached does.
	Locked bool
}

func (o *UpOptions) complete() error {
	o.Nodes = cmpOr(o.Nodes, 5)
	o.Miners = cmpOr(o.Miners, 1)
	o.Engine, o.Topology = cmpOr(o.Engine, "pow"), cmpOr(o.Topology, "ring")
	o.Seed = cmpOr(o.Seed, 1)
	if o.Spacing == 0 {
		o.Spacing = map[bool]time.Duration{false: 2 * time.Second, true: 8 * time.Second}[o.Engine == config.EnginePoS]
	}
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if o.Program == "" {
		bad("program: the path of the dunlin binary is required")
	}
	if o.Dir == "" {
		bad("dir: the folder of the testnet is required")
	}
	if o.Nodes < MinNodes || o.Nodes > MaxNodes {
		bad("nodes %d: must be %d to %d", o.Nodes, MinNodes, MaxNodes)
	}
	if o.Miners < 1 || o.Miners > o.Nodes {
		bad("miners %d: must be 1 to the number of nodes, %d", o.Miners, o.Nodes)
	}
	errs = append(errs, oneOfWords("engine", o.Engine, Engines), oneOfWords("topology", o.Topology, Topologies))
	if !(o.TxRate >= 0 && o.TxRate <= MaxTxRate) { // NaN is neither
		bad("txs %v: must be 0 to %v a second", o.TxRate, MaxTxRate)
	}
	if o.For < 0 {
		bad("for %v: must not be negative", o.For)
	}
	if o.Spacing < time.Second || o.Spacing > MaxSpacing || o.Spacing%time.Second != 0 {
		bad("spacing %v: must be whole seconds, 1s to %v", o.Spacing, MaxSpacing)
	}
	if o.Engine == config.EnginePoS && o.Spacing%(consensus.SlotsPerBlock*time.Second) != 0 {
		bad("spacing %v: with pos it must be a multiple of %ds: %d slots", o.Spacing, consensus.SlotsPerBlock, consensus.SlotsPerBlock)
	}
	return errors.Join(errs...)
}

func cmpOr[T comparable](v, def T) T {
	var zero T
	if v == zero {
		return def
	}
	return v
}

// memoryANode is what a node takes after a while, for the warning.
const memoryANode = 120 << 20

// isUp refuses a folder whose testnet runs.
func isUp(dir string, s *Spec) error {
	return fmt.Errorf("the one in %s is up (process %d): dunlin testnet down --dir %[1]s ends it", dir, s.Supervisor.PID)
}

// lockDir makes the folder of a testnet and keeps others from starting that too, until unlock, which may be called again, or the end
// of the process.
func lockDir(dir string) (unlock func() error, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	lock, err := store.LockHome(dir)
	if errors.Is(err, store.ErrLocked) {
		return nil, fmt.Errorf("another dunlin testnet up is just starting the one in %s: %w", dir, err)
	}
	if err != nil {
		return nil, err
	}
	return sync.OnceValue(lock.Close), nil
}

// plan writes the network, the nodes' keys and the spec of a testnet that is to be started. The ports that its nodes get are held.
func plan(ctx context.Context, o *UpOptions, held *ports) (*Spec, error) {
	dir, err := filepath.Abs(o.Dir)
	if err != nil {
		return nil, err
	}
	switch old, err := Open(dir); {
	case errors.Is(err, ErrNone):
	case err != nil:
		return nil, err
	case old.supervised():
		return nil, isUp(o.Dir, old)
	case len(old.running()) > 0:
		return nil, fmt.Errorf("nodes of the testnet in %s run without their supervisor: dunlin testnet down --dir %s ends them", o.Dir, o.Dir)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	s := &Spec{
		Engine: o.Engine, Topology: o.Topology, Seed: o.Seed, Spacing: o.Spacing, TxRate: o.TxRate, Network: networkFile,
		Program: o.Program, Detached: o.Detached, Created: time.Now().UTC(), dir: dir,
	}
	if err := s.network(o); err != nil {
		return nil, err
	}
	if err := held.take(ctx, 2*o.Nodes); err != nil {
		return nil, err
	}
	for id := 1; id <= o.Nodes; id++ {
		key, err := host.LoadOrCreateKey(filepath.Join(s.home(id), "identity.key"), nil)
		if err != nil {
			return nil, fmt.Errorf("node %d: %w", id, err)
		}
		who, err := peer.IDFromPublicKey(key.GetPublic())
		if err != nil {
			return nil, fmt.Errorf("node %d: %w", id, err)
		}
		n := NodeSpec{
			ID: id, Home: homeName(id), PeerID: who.String(), Mines: id <= o.Miners,
			Listen: "/ip4/127.0.0.1/tcp/" + strconv.Itoa(held.list[2*id-2]), RPC: "127.0.0.1:" + strconv.Itoa(held.list[2*id-1]),
		}
		if o.TxRate > 0 {
			n.Args = append(n.Args, "--tx-index") // to see what became of each
		}
		switch {
		case n.Mines && s.Engine == config.EnginePoS:
			n.Mining = []string{"--stake", "--key-file", s.stakeKey(id)}
		case n.Mines:
			n.Mining = []string{"--mine"}
		}
		s.Nodes = append(s.Nodes, n)
	}
	for _, l := range Links(o.Topology, o.Nodes, o.Seed) {
		s.node(l[0]).Dials = append(s.node(l[0]).Dials, l[1])
	}
	// What an earlier run left would be taken for this one's.
	for _, name := range []string{samplesFile, chaosFile, blockAcksFile, txAcksFile, verdictFile} {
		if err := os.Remove(s.file(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	return s, nil
}

// network makes the chain of a testnet, or takes the one that its folder holds.
func (s *Spec) network(o *UpOptions) error {
	path := s.file(networkFile)
	n, err := config.ReadNetworkFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return s.newNetwork(path, o.Miners)
	case err != nil:
		return err
	}
	if n.Params.ProofOfStake() != (o.Engine == config.EnginePoS) {
		return fmt.Errorf("engine %s: the chain in %s has the other one; another --dir makes another chain", o.Engine, o.Dir)
	}
	if _, err := os.Stat(s.file(senderKeyFile)); o.TxRate > 0 && err != nil {
		return fmt.Errorf("txs %v: the chain in %s was made without coins for that; another --dir makes another chain", o.TxRate, o.Dir)
	}
	for id := 1; id <= o.Miners; id++ {
		if _, err := os.Stat(s.stakeKey(id)); o.Engine == config.EnginePoS && err != nil {
			return fmt.Errorf("miners %d: node %d has no stake in the chain in %s; another --dir makes another chain", o.Miners, id, o.Dir)
		}
	}
	s.Spacing = n.Params.TargetSpacing
	return nil
}

// Initial stake, in coins: what the sender of transactions has of it is not staked.
const (
	allStake    = 1_000_000
	senderStake = 10_000
)

// newNetwork writes the network file, and with stake the keys of its holders.
func (s *Spec) newNetwork(path string, miners int) error {
	var sender []byte // x-only key
	if s.TxRate > 0 {
		key, err := loadKey(s.file(senderKeyFile))
		if err != nil {
			return fmt.Errorf("key of the sender: %w", err)
		}
		sender = schnorr.SerializePubKey(key.PubKey())
	}
	spec := config.DefaultNetworkSpec("localtest", time.Now())
	spec.Spacing = s.Spacing
	switch {
	case s.Engine == config.EnginePoS:
		var holders []string
		for id := 1; id <= miners; id++ {
			holder, err := s.newHolder(id)
			if err != nil {
				return fmt.Errorf("node %d: key of its stake: %w", id, err)
			}
			holders = append(holders, fmt.Sprintf("%s=%d", holder, (allStake-senderStake)/miners))
		}
		if sender != nil {
			holders = append(holders, fmt.Sprintf("%x=%d", sender, senderStake))
		}
		spec = config.DefaultStakeSpec("localtest", time.Now(), holders...)
		spec.Slot = s.Spacing / consensus.SlotsPerBlock
	case sender != nil:
		spec.GenesisTime = fundedGenesis(time.Now(), s.Spacing)
	}
	if _, err := config.WriteNetworkFile(path, spec); err != nil {
		return fmt.Errorf("network file: %w", err)
	}
	return nil
}

// stakeKey is the file with the key of a node's stake.
func (s *Spec) stakeKey(id int) string { return filepath.Join(s.home(id), "stake.key") }

// newHolder makes the key of a node's stake and returns its address.
func (s *Spec) newHolder(id int) (string, error) {
	key, err := btcec.NewPrivateKey()
	if err != nil {
		return "", err
	}
	wif, err := btcutil.NewWIF(key, &chaincfg.Params{PrivateKeyID: ownPrivateKeyID}, true)
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(s.home(id), 0o700); err != nil {
		return "", err
	}
	output := [32]byte(schnorr.SerializePubKey(txscript.ComputeTaprootKeyNoScript(key.PubKey())))
	return config.HolderAddress(output), writeFile(s.stakeKey(id), []byte(wif.String()+"\n"))
}

// ownPrivateKeyID is before private keys on all networks of one's own (consensus.Params.PrivateKeyID).
const ownPrivateKeyID = 0xef

// A supervisor is what Up runs.
type supervisor struct {
	o       UpOptions
	spec    *Spec
	sender  *sender // nil: nothing is sent
	started time.Time
	watcher *Watcher
	samples recorder
	drawn   bool
	tabled  time.Time

	children sync.WaitGroup // of nodes that were started here
	starting sync.Mutex     // held while a node is started, so that none is when all are to end
	ending   bool           // guarded by starting
	stop     context.CancelFunc

	mu    sync.Mutex // guards story
	story story
}

// Up starts a testnet and looks after it until ctx ends or Down is called: it records samples, sends transactions, and starts
// nodes when it is asked to; it starts none by itself. Then it stops every node and waits. An error says what
// went wrong, with the end of the log of the node concerned.
func Up(ctx context.Context, o UpOptions) (err error) {
	if err := o.complete(); err != nil {
		return fmt.Errorf("testnet: %w: %w", ErrOptions, err)
	}
	var held ports
	defer func() { err = errors.Join(err, held.release()) }() // when all nodes have ended
	unlock := func() error { return nil }
	if !o.Locked {
		if unlock, err = lockDir(o.Dir); err != nil {
			return fmt.Errorf("testnet: %w", err)
		}
		defer func() { err = errors.Join(err, unlock()) }()
	}
	s, err := plan(ctx, &o, &held)
	if err != nil {
		return fmt.Errorf("testnet: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if o.For > 0 {
		defer time.AfterFunc(o.For, cancel).Stop()
	}
	sup := &supervisor{
		o: o, spec: s, started: time.Now(), watcher: NewWatcher(s), stop: cancel,
		samples: recorder{path: s.file(samplesFile), limit: maxSamplesBytes},
	}
	defer func() { err = errors.Join(err, sup.end(ctx)) }()
	listener, err := sup.control(ctx, unlock)
	if err != nil {
		return fmt.Errorf("testnet: %w", err)
	}
	server := &http.Server{Handler: sup.handler(), ReadHeaderTimeout: 10 * time.Second}
	var all sync.WaitGroup
	defer all.Wait()
	all.Go(func() { _ = server.Serve(listener) }) // ends with Close
	defer func() {
		last, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		if server.Shutdown(last) != nil { // somebody is being answered: enough is enough
			_ = server.Close()
		}
	}()
	s.resting = s.TxRate > 0 && s.Engine == config.EnginePoW
	if err := sup.startAll(ctx); err != nil {
		return ignoreEnd(ctx, err)
	}
	if s.TxRate > 0 {
		if err := sup.fund(ctx); err != nil {
			return ignoreEnd(ctx, fmt.Errorf("testnet: coins for the sender: %w", err))
		}
		all.Go(func() { sup.sender.run(ctx) })
	}
	s.Ready = true
	if err := s.save(); err != nil {
		return fmt.Errorf("testnet: %w", err)
	}
	sup.watch(ctx)
	return nil
}

// control listens for requests and writes the spec that says where. From then on whoever reads that knows that the testnet is up.
func (u *supervisor) control(ctx context.Context, unlock func() error) (net.Listener, error) {
	var c net.ListenConfig
	l, err := c.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	var token [16]byte
	_, _ = rand.Read(token[:]) // it never fails
	u.spec.Supervisor = Supervisor{
		Process: Process{PID: os.Getpid(), Started: startOf(os.Getpid())}, Control: l.Addr().String(), Token: hex.EncodeToString(token[:]),
	}
	if err := u.spec.save(); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	if err := unlock(); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

func (u *supervisor) handler() http.Handler {
	mux := http.NewServeMux()
	answer := func(w http.ResponseWriter, v any) { _ = json.NewEncoder(w).Encode(v) } // an error is the caller having gone
	mux.HandleFunc("POST /start", func(w http.ResponseWriter, r *http.Request) {
		var in startRequest
		if err := json.NewDecoder(io.LimitReader(r.Body, maxAsked)).Decode(&in); err != nil || in.Node < 1 || in.Node > len(u.spec.Nodes) {
			http.Error(w, "no such node", http.StatusBadRequest)
			return
		}
		// The node is to stay when the one who asked is gone.
		took, err := u.start(context.WithoutCancel(r.Context()), in.Node, in.Offset)
		if err != nil {
			http.Error(w, err.Error(), http.StatusConflict)
			return
		}
		answer(w, startAnswer{took})
	})
	mux.HandleFunc("POST /down", func(w http.ResponseWriter, _ *http.Request) {
		u.tell("down: asked to end")
		u.stop()
		answer(w, struct{}{})
	})
	mux.HandleFunc("GET /sender", func(w http.ResponseWriter, _ *http.Request) {
		if u.sender == nil {
			answer(w, nil)
			return
		}
		answer(w, u.sender.status())
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if subtle.ConstantTimeCompare([]byte(r.Header.Get(tokenHeader)), []byte(u.spec.Supervisor.Token)) != 1 {
			http.Error(w, "the token of "+specFile+" is required", http.StatusForbidden)
			return
		}
		mux.ServeHTTP(w, r)
	})
}

// start runs a node as a child of this process.
func (u *supervisor) start(ctx context.Context, id int, offset time.Duration) (time.Duration, error) {
	u.starting.Lock()
	if u.ending {
		u.starting.Unlock()
		return 0, errors.New("the testnet ends")
	}
	u.children.Add(1) // before end waits
	u.starting.Unlock()
	cmd, took, err := u.spec.startNode(ctx, id, offset)
	if cmd == nil {
		u.children.Done()
		return took, err
	}
	go func() { // ends with the process, which end sees to
		defer u.children.Done()
		_ = cmd.Wait() // how it ended its log tells
	}()
	return took, err
}

// startAll starts all nodes, a few at a time.
func (u *supervisor) startAll(ctx context.Context) error {
	u.tell("homes and logs are in %s", u.spec.dir)
	errs := make([]error, len(u.spec.Nodes))
	slots := make(chan struct{}, 4)
	var all sync.WaitGroup
	for i := range u.spec.Nodes {
		all.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			if ctx.Err() == nil {
				_, errs[i] = u.start(ctx, i+1, 0)
			}
		})
	}
	all.Wait()
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("testnet: %w", err)
	}
	u.tell("%d nodes run, %d links (%s), nodes 1 to %d make a block every %v", len(u.spec.Nodes), len(u.spec.links()), u.spec.Topology, len(u.spec.miners()), u.spec.Spacing)
	if total, free := memoryBytes(); free > 0 && int64(len(u.spec.Nodes))*memoryANode > free {
		u.tell("WARNING: %d nodes want some %d MiB, %d of %d MiB are free", len(u.spec.Nodes), int64(len(u.spec.Nodes))*memoryANode>>20, free>>20, total>>20)
	}
	return nil
}

// fund gives the sender coins, unless the chain has them already.
func (u *supervisor) fund(ctx context.Context) error {
	key, err := loadKey(u.spec.file(senderKeyFile))
	if err != nil {
		return err
	}
	u.sender = newSender(u.spec, key)
	if u.spec.Engine != config.EnginePoW {
		return nil // genesis has them
	}
	c, err := u.spec.client(1)
	if err != nil {
		return err
	}
	head, err := c.Head(ctx)
	if err != nil {
		return err
	}
	if head.Height < fundBlocks {
		if err := u.makeFunds(ctx, c); err != nil {
			return err
		}
	}
	u.spec.resting = false
	for _, id := range u.spec.miners() {
		c, err := u.spec.client(id)
		if err == nil {
			_, err = c.SwitchMiner(ctx, true)
		}
		if err != nil {
			return fmt.Errorf("node %d: start the miner: %w", id, err)
		}
	}
	return nil
}

// makeFunds makes the first blocks of the chain for the sender.
func (u *supervisor) makeFunds(ctx context.Context, c *api.Client) error {
	n, err := config.ReadNetworkFile(u.spec.file(networkFile))
	if err != nil {
		return err
	}
	blocks, err := fundingBlocks(n.Params, fundBlocks, u.sender.script)
	if err != nil {
		return err
	}
	for _, raw := range blocks {
		if _, err := c.SubmitBlock(ctx, hex.EncodeToString(raw)); err != nil {
			return err
		}
	}
	u.tell("%d blocks were made in advance: coins for %v transactions a second", fundBlocks, u.spec.TxRate)
	return nil
}

// sampleEvery is the time between two samples; resources are asked for with every fifth.
const (
	sampleEvery    = time.Second
	resourcesEvery = 5
)

// watch records, and draws, until ctx ends.
func (u *supervisor) watch(ctx context.Context) {
	tick := time.NewTicker(sampleEvery)
	defer tick.Stop()
	was := map[int]string{}
	memory := map[int]int64{}
	trouble := "" // of the samples
	for n := 0; ; n++ {
		status := u.watcher.Look(ctx, n%resourcesEvery == 0)
		if ctx.Err() != nil {
			return
		}
		switch err := u.samples.add(sampleOf(time.Now(), &status)); {
		case err == nil:
			trouble = ""
		case err.Error() != trouble: // told once
			trouble = err.Error()
			u.tell("%v", err)
		}
		if u.sender != nil {
			status.Sender = u.sender.status()
		}
		for i := range status.Nodes {
			node := &status.Nodes[i]
			if before, known := was[node.ID]; known && before != node.State && (before == NodeDown || node.State == NodeDown) {
				u.tell("node %d is %s", node.ID, node.State)
			}
			was[node.ID] = node.State
			if node.MemoryBytes > 0 {
				memory[node.ID] = node.MemoryBytes
			}
			node.MemoryBytes = memory[node.ID]
		}
		u.draw(&status)
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

func (u *supervisor) tell(format string, args ...any) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.story.add(format, args...)
	if u.o.Size == nil && u.o.Out != nil {
		fmt.Fprintln(u.o.Out, u.story.lines[len(u.story.lines)-1])
	}
}

// draw shows the table: redrawn in place on a terminal, elsewhere now and then.
func (u *supervisor) draw(s *Status) {
	if u.o.Out == nil {
		return
	}
	if u.o.Size == nil {
		if time.Since(u.tabled) >= tableEvery {
			u.tabled = time.Now()
			fmt.Fprintf(u.o.Out, "\n%s\n%s\n\n", strings.Join(s.Table(), "\n"), s.Summary())
		}
		return
	}
	columns, rows := u.o.Size()
	lines := append([]string{
		fmt.Sprintf("dunlin testnet · %s, %s · %v · Ctrl-C ends it", s.Engine, s.Topology, time.Since(u.started).Round(time.Second)), "",
	}, s.Table()...)
	lines = append(lines, "", s.Summary(), "")
	u.mu.Lock()
	told := u.story.lines
	lines = append(lines, told[max(0, len(told)-max(0, rows-len(lines)-1)):]...)
	u.mu.Unlock()
	fmt.Fprint(u.o.Out, screen(lines, columns, rows, !u.drawn))
	u.drawn = true
}

// end stops all nodes at once and waits for them.
func (u *supervisor) end(ctx context.Context) error {
	u.starting.Lock()
	u.ending = true
	u.starting.Unlock()
	began := time.Now()
	n, err := u.spec.stopAll(ctx)
	u.children.Wait()
	if u.o.Out != nil {
		fmt.Fprintf(u.o.Out, "\nstopped %d nodes in %v; homes and logs stay in %s\n", n, time.Since(began).Round(time.Millisecond), u.spec.dir)
	}
	return err
}

// stopAll ends every node that runs, at once, and waits. It says how many there were.
func (s *Spec) stopAll(ctx context.Context) (int, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*stopTimeout)
	defer cancel()
	running := s.running()
	errs := make([]error, len(running))
	var all sync.WaitGroup
	for i, id := range running {
		all.Go(func() { errs[i] = s.stopNode(ctx, id) })
	}
	all.Wait()
	return len(running), errors.Join(errs...)
}

// UpDetached starts Up in a process of its own, which outlives this one, and waits until all nodes have started.
// The process is args of the program.
func UpDetached(ctx context.Context, o UpOptions, args []string) (_ *Spec, err error) {
	if err := o.complete(); err != nil {
		return nil, fmt.Errorf("testnet: %w: %w", ErrOptions, err)
	}
	unlock, err := lockDir(o.Dir)
	if err != nil {
		return nil, fmt.Errorf("testnet: %w", err)
	}
	defer func() { err = errors.Join(err, unlock()) }()
	if s, err := Open(o.Dir); err == nil && s.supervised() {
		return nil, fmt.Errorf("testnet: %w", isUp(o.Dir, s))
	}
	path := filepath.Join(o.Dir, supervisorFile)
	log, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("testnet: %w", err)
	}
	defer log.Close()
	if _, err := fmt.Fprintf(log, "%s: started by process %d\n", time.Now().Format(time.DateTime), os.Getpid()); err != nil {
		return nil, fmt.Errorf("testnet: %w", err) // a full disk: nothing would be heard of what comes
	}
	cmd := exec.Command(o.Program, args...) //nolint:noctx // it outlives us
	cmd.Stdout, cmd.Stderr, cmd.SysProcAttr = log, log, attributes(true)
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("testnet: %w", err)
	}
	me := Process{PID: cmd.Process.Pid, Started: startOf(cmd.Process.Pid)}
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		if s, err := Open(o.Dir); err == nil && s.Ready && s.Supervisor.PID == me.PID {
			return s, cmd.Process.Release()
		}
		if !me.alive() {
			_ = cmd.Wait()
			return nil, fmt.Errorf("testnet: it did not start:\n  %s", strings.Join(lastLines(path, 15), "\n  "))
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			err := errors.Join(ctx.Err(), ignoreGone(terminate(me.PID)))
			_ = cmd.Wait()
			return nil, err
		}
	}
}

// Down ends a testnet: its supervisor, which ends the nodes, and every node that is left, suspended ones too. It
// says how many nodes ran. A process that only has the number of one of its own is left alone.
func Down(ctx context.Context, s *Spec) (int, error) {
	running := len(s.running())
	var errs []error
	if p := s.Supervisor.Process; p.alive() {
		if s.ask(ctx, http.MethodPost, "/down", nil, nil) != nil { // before it listened, say
			_ = terminate(p.PID)
		}
		patient, cancel := context.WithTimeout(ctx, 2*stopTimeout)
		_ = waitGone(patient, p) // what it left is ended below
		cancel()
		if ctx.Err() != nil {
			return running, ctx.Err()
		}
		if p.alive() {
			errs = append(errs, fmt.Errorf("the supervisor, process %d, does not end and is killed", p.PID), kill(p.PID))
		}
	}
	if _, err := s.stopAll(ctx); err != nil {
		errs = append(errs, err)
	}
	return running, errors.Join(errs...)
}

// SenderStatus asks the supervisor what became of the transactions; nil if none are sent, or it is gone.
func (s *Spec) SenderStatus(ctx context.Context) *Sender {
	if s.TxRate == 0 || !s.supervised() {
		return nil
	}
	var out *Sender
	if s.ask(ctx, http.MethodGet, "/sender", nil, &out) != nil {
		return nil
	}
	return out
}
