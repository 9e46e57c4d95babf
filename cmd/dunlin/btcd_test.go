//go:build slow

package main

import (
	"bytes"
	"cmp"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/btcsuite/btcd/btcutil/v2"
	"github.com/btcsuite/btcd/txscript/v2"
	"github.com/btcsuite/btcd/wire/v2"

	"dunlin/chain/consensus"
	"dunlin/chain/consensus/enginetest"
	"dunlin/chain/consensus/pow"
)

// TestBTCDProcess lets two real programs judge each other on regtest: a dunlin
// daemon and btcd, at the version of .ci/btcd.mod. Blocks that dunlin's miner makes
// out of its mempool, with spends of every form of script that people use, are
// accepted by btcd's submitblock; blocks that btcd generates out of its own are
// accepted by us; both follow the same reorganisations; and blocks with one fault
// each are refused by both. After every block both have the same tip.
func TestBTCDProcess(t *testing.T) {
	t.Parallel()
	j := &judges{
		b: enginetest.NewBuilder(consensus.Regtest()), forms: enginetest.Forms(),
		ours: startDaemon(t, "judged", "--network", "regtest"), theirs: startBTCD(t),
	}
	j.b.Engine = pow.New(j.b.Params)
	j.tip = j.b.Genesis()
	// btcd has P2SH by time, from 2012 on. The clock of the chain stays far behind
	// that of the wall, so that both miners can always put their time on top.
	tmpl := enginetest.Template{Time: time.Date(2014, 6, 1, 0, 0, 0, 0, time.UTC)}
	for i := range 160 { // more than maturity, and than the longest lock
		tmpl.Script = j.forms[i%len(j.forms)].Script
		j.extend(t, j.b.MineTemplate(j.tip, tmpl))
		tmpl.Time = time.Time{}
	}
	if !t.Run("our blocks", j.ourBlocks) || !t.Run("its blocks", j.itsBlocks) ||
		!t.Run("reorganisations", j.reorganise) || !t.Run("faults", j.faults) {
		return
	}
	// btcd forgets regtest when it stops: a fresh one takes our chain as it stands,
	// read back after a restart of ours.
	j.ours.stop()
	verified(t, []string{"chain", "verify", "--depth", "50", "-o", "json", "--home", j.ours.home, "--network", "regtest"})
	j.theirs.stop()
	j.theirs.start()
	j.ours.start()
	for height := range j.b.Height(j.tip.Hash) {
		if err := j.theirs.submit(j.block(t, fmt.Sprint(height+1)).Raw); err != nil {
			t.Fatalf("height %d: %v", height+1, err)
		}
	}
	j.sameTip(t, "after a restart")
}

// The judges are a dunlin and a btcd, and what makes blocks for both.
type judges struct {
	b      *enginetest.Builder
	forms  []enginetest.Form
	ours   *daemon
	theirs *btcd
	tip    *consensus.Block // of both
}

// A locked coin is one of a known form.
type locked struct {
	op   wire.OutPoint
	coin consensus.Coin
	form *enginetest.Form
}

// coins returns the coins of known forms after a block that the next one may
// spend, in a fixed order.
func (j *judges) coins(after *consensus.Block) []locked {
	height := j.b.Height(after.Hash) + 1
	var all []locked
	for op, c := range j.b.Coins(after.Hash) {
		i := slices.IndexFunc(j.forms, func(f enginetest.Form) bool { return bytes.Equal(f.Script, c.Script) })
		if i < 0 || c.Value < 1_000_000 || c.Coinbase && height-c.Height < 100 ||
			int64(j.forms[i].LockTime) >= int64(height) || c.Height+int32(j.forms[i].Sequence) > height {
			continue
		}
		all = append(all, locked{op, c, &j.forms[i]})
	}
	slices.SortFunc(all, func(a, b locked) int {
		return cmp.Or(cmp.Compare(a.coin.Height, b.coin.Height), bytes.Compare(a.op.Hash[:], b.op.Hash[:]), cmp.Compare(a.op.Index, b.op.Index))
	})
	return all
}

// ofEachForm returns one coin of each form that mempools take, of those that have
// one, and notes the form as spent.
func (j *judges) ofEachForm(spent map[string]bool) []locked {
	all := j.coins(j.tip)
	var each []locked
	for i := range j.forms {
		if j.forms[i].Name == "true" {
			continue // not a standard script
		}
		if k := slices.IndexFunc(all, func(l locked) bool { return l.form == &j.forms[i] }); k >= 0 {
			each = append(each, all[k])
			spent[j.forms[i].Name] = true
		}
	}
	return each
}

// wantAll checks that every form was spent.
func (j *judges) wantAll(t *testing.T, spent map[string]bool) {
	t.Helper()
	if len(spent) != len(j.forms)-1 {
		t.Errorf("spends of %d forms of %d: %v", len(spent), len(j.forms)-1, spent)
	}
}

const fee = 50_000 // satoshi: enough for any of these transactions

// pay spends a coin to two equal outputs of one form.
func pay(from locked, to *enginetest.Form) *wire.MsgTx {
	tx := wire.NewMsgTx(2)
	in := wire.NewTxIn(&from.op, nil, nil)
	if tx.LockTime = from.form.LockTime; tx.LockTime > 0 {
		in.Sequence--
	}
	if from.form.Sequence > 0 {
		in.Sequence = from.form.Sequence
	}
	tx.AddTxIn(in)
	for range 2 {
		tx.AddTxOut(wire.NewTxOut((from.coin.Value-fee)/2, to.Script))
	}
	out := txscript.NewCannedPrevOutputFetcher(from.coin.Script, from.coin.Value)
	from.form.Sign(&enginetest.Spending{Tx: tx, Coin: from.coin, Hashes: txscript.NewTxSigHashes(tx, out)})
	return tx
}

func hexTx(t *testing.T, tx *wire.MsgTx) string {
	t.Helper()
	var b bytes.Buffer
	if err := tx.Serialize(&b); err != nil {
		t.Fatal(err)
	}
	return hex.EncodeToString(b.Bytes())
}

// submit gives raw to both and says whether each took it, and why not.
func (j *judges) submit(t *testing.T, raw []byte) (ours, theirs error) {
	t.Helper()
	_, ours = j.ours.client.SubmitBlock(t.Context(), hex.EncodeToString(raw))
	return ours, j.theirs.submit(raw)
}

// sameTip checks that both are where they should be.
func (j *judges) sameTip(t *testing.T, when string) {
	t.Helper()
	var theirs string
	j.theirs.call("getbestblockhash", &theirs)
	want := j.tip.Hash.String()
	if ours := j.ours.mustStatus().TipHash; ours != want || theirs != want {
		t.Fatalf("%s: tip %s, btcd's %s, want %s", when, ours, theirs, want)
	}
}

// extend submits a block to both that must become the tip.
func (j *judges) extend(t *testing.T, b *consensus.Block) {
	t.Helper()
	if ours, theirs := j.submit(t, b.Raw); ours != nil || theirs != nil {
		t.Fatalf("block %v: we: %v, btcd: %v", b.Hash, ours, theirs)
	}
	j.tip = b
	j.sameTip(t, "a block further")
}

// adopt makes a block that one of them made known to the builder and the tip.
func (j *judges) adopt(t *testing.T, blockHex string, txs int) {
	t.Helper()
	raw, err := hex.DecodeString(blockHex)
	if err != nil {
		t.Fatal(err)
	}
	b, err := consensus.DecodeBlock(j.b.Params, raw)
	if err != nil {
		t.Fatal(err)
	}
	if len(b.Txs) != 1+txs || b.Header.PrevBlock != j.tip.Hash {
		t.Fatalf("block %v on %v has %d transactions, want %d on %v", b.Hash, b.Header.PrevBlock, len(b.Txs), 1+txs, j.tip.Hash)
	}
	j.b.Add(b)
	j.tip = b
}

// ourBlocks: payments go into our mempool, our miner makes blocks of them.
func (j *judges) ourBlocks(t *testing.T) {
	spent := make(map[string]bool)
	for round := range 8 { // the longest lock is six blocks
		var from []locked
		if round != 5 { // an empty one
			from = j.ofEachForm(spent)
		}
		for i, l := range from {
			if _, err := j.ours.client.SubmitTx(t.Context(), hexTx(t, pay(l, from[(i+round)%len(from)].form))); err != nil {
				t.Fatalf("spend of %q: %v", l.form.Name, err)
			}
		}
		mined := j.ours.mine(1)
		raw, err := j.ours.client.RawBlock(t.Context(), mined.Hash)
		if err != nil {
			t.Fatal(err)
		}
		j.adopt(t, raw, len(from))
		if err := j.theirs.submit(j.tip.Raw); err != nil {
			t.Fatalf("btcd refuses block %s with %d payments: %v", mined.Hash, len(from), err)
		}
		j.sameTip(t, "our block")
	}
	j.wantAll(t, spent)
}

// itsBlocks: the same the other way round.
func (j *judges) itsBlocks(t *testing.T) {
	spent := make(map[string]bool)
	for round := range 8 {
		var from []locked
		if round != 5 {
			from = j.ofEachForm(spent)
		}
		for i, l := range from {
			var id string
			j.theirs.call("sendrawtransaction", &id, hexTx(t, pay(l, from[(i+round)%len(from)].form)))
		}
		var hashes []string
		j.theirs.call("generate", &hashes, 1)
		var raw string
		j.theirs.call("getblock", &raw, hashes[0], 0)
		j.adopt(t, raw, len(from))
		v, err := j.ours.client.SubmitBlock(t.Context(), raw)
		if err != nil || v.Outcome != "connected" || v.Height != j.b.Height(j.tip.Hash) {
			t.Fatalf("btcd's block with %d payments: %+v, %v", len(from), v, err)
		}
		j.sameTip(t, "btcd's block")
	}
	j.wantAll(t, spent)
}

// next makes a block on parent that spends coins of every form it may.
func (j *judges) next(parent *consensus.Block, t enginetest.Template) *consensus.Block {
	all := j.coins(parent)
	for i, l := range all[:min(len(all), 5)] {
		t.Txs = append(t.Txs, pay(l, &j.forms[(i+len(all))%len(j.forms)]))
		t.Fees += fee + (l.coin.Value-fee)%2
	}
	if t.Time.IsZero() {
		t.Time = parent.Header.Timestamp.Add(time.Second)
	}
	return j.b.MineTemplate(parent, t)
}

// reorganise: longer branches win at both, and if one fails on the way both stay.
func (j *judges) reorganise(t *testing.T) {
	for _, fails := range []bool{false, true, false} {
		for depth := range 4 {
			at := j.tip
			for range depth + 1 {
				at = j.block(t, at.Header.PrevBlock.String())
			}
			for i := range depth + 2 {
				tmpl := enginetest.Template{}
				if fails && i == depth/2 { // a fault that shows only when it is connected
					tmpl.Txs = []*wire.MsgTx{enginetest.Spend(at, 0, 0)}
				}
				at = j.next(at, tmpl)
				ours, theirs := j.submit(t, at.Raw)
				if wrong := fails && i == depth+1; (ours != nil) != wrong || (theirs != nil) != wrong {
					t.Fatalf("block %d of a branch of %d, fails %t: we: %v, btcd: %v", i+1, depth+2, fails, ours, theirs)
				}
				if i == depth+1 && !fails {
					j.tip = at
				}
				j.sameTip(t, fmt.Sprintf("block %d of a branch of %d, fails %t", i+1, depth+2, fails))
			}
			if fails {
				if ours, theirs := j.submit(t, j.next(at, enginetest.Template{}).Raw); ours == nil || theirs == nil {
					t.Fatalf("child of a bad block: we: %v, btcd: %v", ours, theirs)
				}
			}
		}
	}
}

// block reads a block from our daemon.
func (j *judges) block(t *testing.T, hash string) *consensus.Block {
	t.Helper()
	raw, err := j.ours.client.RawBlock(t.Context(), hash)
	if err != nil {
		t.Fatal(err)
	}
	b, err := hex.DecodeString(raw)
	if err != nil {
		t.Fatal(err)
	}
	block, err := consensus.DecodeBlock(j.b.Params, b)
	if err != nil {
		t.Fatal(err)
	}
	return block
}

// faults: each of these blocks is refused by both, and the tip stays.
func (j *judges) faults(t *testing.T) {
	parent := j.tip
	height := j.b.Height(parent.Hash) + 1
	find := func(name string) locked {
		t.Helper()
		for _, l := range j.coins(parent) {
			if l.form.Name == name {
				return l
			}
		}
		t.Fatalf("no coin of the form %q", name)
		return locked{}
	}
	spend := func(change func(l *locked, tx *wire.MsgTx)) enginetest.Template {
		l := find("pkh")
		tx := pay(l, l.form)
		change(&l, tx)
		return enginetest.Template{Txs: []*wire.MsgTx{tx}}
	}
	claim := j.b.Params.Subsidy(height) + 1
	multisig, wpkh, csv := find("multisig"), find("wpkh"), find("after 6 blocks")
	fewKeys := pay(multisig, multisig.form)
	sig := fewKeys.TxIn[0].SignatureScript
	fewKeys.TxIn[0].SignatureScript = sig[:2+int(sig[1])] // the dummy and one signature
	early := csv
	early.form = &enginetest.Form{Script: csv.form.Script, Sequence: 5, Sign: csv.form.Sign}
	young := locked{coin: consensus.Coin{Value: 25e8}}
	for h := height - 99; ; h++ { // the oldest coinbase that is too young
		b := j.block(t, fmt.Sprint(h))
		young.op.Hash = *b.Txs[0].Hash()
		young.coin.Value, young.coin.Script = b.Txs[0].MsgTx().TxOut[0].Value, b.Txs[0].MsgTx().TxOut[0].PkScript
		i := slices.IndexFunc(j.forms, func(f enginetest.Form) bool {
			return bytes.Equal(f.Script, young.coin.Script) && f.LockTime+f.Sequence == 0
		})
		if i >= 0 {
			young.form = &j.forms[i]
			break
		}
	}
	good := j.b.MineTemplate(parent, enginetest.Template{Txs: []*wire.MsgTx{pay(wpkh, wpkh.form), pay(multisig, wpkh.form)}, Time: parent.Header.Timestamp.Add(time.Second)})
	mutate := func(change func(*wire.MsgBlock)) []byte {
		m, err := btcutil.NewBlockFromBytes(good.Raw)
		if err != nil {
			t.Fatal(err)
		}
		change(m.MsgBlock())
		var b bytes.Buffer
		if err := m.MsgBlock().Serialize(&b); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	for _, tt := range []struct {
		name string
		tmpl enginetest.Template
		raw  []byte // instead
	}{
		{name: "a satoshi too much", tmpl: enginetest.Template{Value: &claim}},
		{name: "one signature of two", tmpl: enginetest.Template{Txs: []*wire.MsgTx{fewKeys}}},
		{name: "an output changed after signing", tmpl: spend(func(_ *locked, tx *wire.MsgTx) { tx.TxOut[0].Value-- })},
		{name: "more out than in", tmpl: spend(func(_ *locked, tx *wire.MsgTx) { tx.TxOut[0].Value += 2 * fee })},
		{name: "an input twice", tmpl: spend(func(_ *locked, tx *wire.MsgTx) { tx.TxIn = append(tx.TxIn, tx.TxIn[0]) })},
		{name: "a coin that is not there", tmpl: spend(func(_ *locked, tx *wire.MsgTx) { tx.TxIn[0].PreviousOutPoint.Index += 9 })},
		{name: "a coin twice in a block", tmpl: enginetest.Template{Txs: []*wire.MsgTx{pay(wpkh, wpkh.form), pay(wpkh, multisig.form)}}},
		{name: "a relative lock not over", tmpl: spend(func(_ *locked, tx *wire.MsgTx) { tx.TxIn[0].Sequence = uint32(height) })},
		{name: "a relative lock that the transaction denies", tmpl: enginetest.Template{Txs: []*wire.MsgTx{pay(early, wpkh.form)}}},
		{name: "an absolute lock not over", tmpl: spend(func(_ *locked, tx *wire.MsgTx) { tx.LockTime = uint32(height); tx.TxIn[0].Sequence = 0 })},
		{name: "a coinbase of 99 blocks before", tmpl: enginetest.Template{Txs: []*wire.MsgTx{pay(young, wpkh.form)}}},
		{name: "another height in the coinbase", tmpl: enginetest.Template{Change: func(u *enginetest.Unsealed) { u.Txs[0].TxIn[0].SignatureScript[1]++ }}},
		{name: "two coinbases", tmpl: enginetest.Template{Change: func(u *enginetest.Unsealed) {
			second := u.Txs[0].Copy()
			second.Version++
			u.Txs = append(u.Txs, second)
		}}},
		{name: "20,001 signature operations", tmpl: enginetest.Template{Script: bytes.Repeat([]byte{txscript.OP_CHECKSIG}, 20_001)}},
		{name: "too many bytes", tmpl: enginetest.Template{Script: make([]byte, 1_000_000)}},
		{name: "a commitment to other witnesses", tmpl: enginetest.Template{Txs: []*wire.MsgTx{pay(wpkh, wpkh.form)}, Change: func(u *enginetest.Unsealed) {
			u.NoCommitment = true
			u.Txs[0].TxIn[0].Witness = wire.TxWitness{make([]byte, 32)}
			u.Txs[0].AddTxOut(&wire.TxOut{PkScript: consensus.WitnessCommitment(u.Txs, [32]byte{1})})
		}}},
		{name: "a witness without a commitment", tmpl: enginetest.Template{Txs: []*wire.MsgTx{pay(wpkh, wpkh.form)}, Change: func(u *enginetest.Unsealed) { u.NoCommitment = true }}},
		{name: "other bits", tmpl: enginetest.Template{Change: func(u *enginetest.Unsealed) { u.Header.Bits = 0x207ffffe }}},
		{name: "a time of the past", tmpl: enginetest.Template{Time: time.Date(2013, 1, 1, 0, 0, 0, 0, time.UTC)}},
		{name: "a time three hours ahead", tmpl: enginetest.Template{Time: time.Now().Add(3 * time.Hour)}},
		{name: "an old version", tmpl: enginetest.Template{Version: 3}},
		{name: "a body under another root", raw: mutate(func(m *wire.MsgBlock) { m.Header.MerkleRoot[0] ^= 1 })},
		{name: "a stripped witness", raw: mutate(func(m *wire.MsgBlock) { m.Transactions[1].TxIn[0].Witness = nil })},
		{name: "a payment left out", raw: mutate(func(m *wire.MsgBlock) { m.Transactions = m.Transactions[:len(m.Transactions)-1] })},
		{name: "cut off", raw: good.Raw[:len(good.Raw)-3]},
		{name: "a byte too many", raw: append(bytes.Clone(good.Raw), 0)},
	} {
		raw := tt.raw
		if raw == nil {
			raw = j.b.MineTemplate(parent, tt.tmpl).Raw
		}
		ours, theirs := j.submit(t, raw)
		if ours == nil || theirs == nil {
			t.Errorf("%s: we: %v, btcd: %v", tt.name, ours, theirs)
			continue
		}
		t.Logf("%s\n\twe:   %v\n\tbtcd: %v", tt.name, ours, theirs)
		j.sameTip(t, tt.name)
	}
	j.extend(t, good) // no mutant of it has poisoned it
}

// A btcd is btcd as a process.
type btcd struct {
	t    *testing.T
	bin  string
	home string
	log  *output
	cmd  *exec.Cmd
	done chan struct{}
	addr string // of its RPC
}

// buildBTCD builds btcd, or a command of its module, at the pinned version.
func buildBTCD(t *testing.T, command string) (program string) {
	t.Helper()
	program = filepath.Join(t.TempDir(), "program")
	build := exec.CommandContext(t.Context(), "go", "build", "-modfile=.ci/btcd.mod", "-o", program, "github.com/btcsuite/btcd"+command)
	build.Dir = filepath.Join("..", "..")
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-mod=readonly")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building btcd (Go's module proxy must be in reach, or `go mod download -modfile=.ci/btcd.mod` have been run): %v\n%s", err, out)
	}
	return program
}

// startBTCD builds btcd at the pinned version and starts it, on loopback and
// without peers.
func startBTCD(t *testing.T) *btcd {
	t.Helper()
	d := &btcd{t: t, bin: buildBTCD(t, ""), home: t.TempDir()}
	if err := os.WriteFile(filepath.Join(d.home, "btcd.conf"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		d.stop()
		if t.Failed() {
			t.Logf("log of btcd:\n%s", lastPart(d.log.String(), 6000))
		}
	})
	d.start()
	return d
}

// btcdPays is an address of regtest: the P2WPKH of a hash that nobody has a key of.
const btcdPays = "bcrt1qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqdku202"

var btcdListens = regexp.MustCompile(`RPC server listening on (127\.0\.0\.1:\d+)`)

func (d *btcd) start() {
	d.t.Helper()
	d.log, d.done = newOutput(d.t), make(chan struct{})
	d.cmd = exec.Command(d.bin,
		"--regtest", "--datadir="+filepath.Join(d.home, "data"), "--logdir="+filepath.Join(d.home, "logs"), "--configfile="+filepath.Join(d.home, "btcd.conf"),
		"--nolisten", "--nodnsseed", "--rpclisten=127.0.0.1:0", "--notls", "--rpcuser=judge", "--rpcpass=judge", "--miningaddr="+btcdPays)
	d.cmd.Env = append(os.Environ(), "HOME="+d.home)
	d.log.of(d.cmd)
	d.cmd.SysProcAttr = endsWithParent(syscall.SIGKILL)
	if err := d.cmd.Start(); err != nil {
		d.t.Fatal(err)
	}
	cmd, done := d.cmd, d.done
	go func() {
		_ = cmd.Wait()
		close(done)
	}()
	eventually(d.t, patience, "btcd listens", func() error {
		select {
		case <-done:
			return fatal{fmt.Errorf("it ended: %s", lastPart(d.log.String(), 3000))}
		default:
		}
		m := btcdListens.FindStringSubmatch(d.log.String())
		if m == nil {
			return fmt.Errorf("log: %s", lastPart(d.log.String(), 500))
		}
		d.addr = m[1]
		return nil
	})
}

func (d *btcd) stop() {
	if d.cmd == nil {
		return
	}
	_ = d.cmd.Process.Signal(syscall.SIGTERM)
	timer := time.AfterFunc(patience, func() { _ = d.cmd.Process.Kill() })
	<-d.done
	timer.Stop()
	d.cmd = nil
}

// submit hands a block in. The error is btcd's verdict.
func (d *btcd) submit(raw []byte) error {
	d.t.Helper()
	var verdict string
	if err := d.ask("submitblock", &verdict, hex.EncodeToString(raw)); err != nil {
		return err
	}
	if verdict != "" {
		return fmt.Errorf("btcd: %s", strings.TrimSpace(verdict))
	}
	return nil
}

// call asks what must succeed.
func (d *btcd) call(method string, result any, params ...any) {
	d.t.Helper()
	if err := d.ask(method, result, params...); err != nil {
		d.t.Fatal(err)
	}
}

// ask makes a JSON-RPC call.
func (d *btcd) ask(method string, result any, params ...any) error {
	d.t.Helper()
	if params == nil {
		params = []any{}
	}
	body, err := json.Marshal(map[string]any{"jsonrpc": "1.0", "id": 1, "method": method, "params": params})
	if err != nil {
		d.t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(d.t.Context(), http.MethodPost, "http://"+d.addr, bytes.NewReader(body))
	if err != nil {
		d.t.Fatal(err)
	}
	req.SetBasicAuth("judge", "judge")
	req.Header.Set("Content-Type", "application/json")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		d.t.Fatalf("btcd %s: %v", method, err)
	}
	defer res.Body.Close()
	raw, err := io.ReadAll(res.Body)
	if err != nil {
		d.t.Fatalf("btcd %s: %v", method, err)
	}
	var answer struct {
		Result json.RawMessage
		Error  *struct{ Message string }
	}
	if err := json.Unmarshal(raw, &answer); err != nil {
		d.t.Fatalf("btcd %s: %s: %v: %s", method, res.Status, err, raw)
	}
	if answer.Error != nil {
		return fmt.Errorf("btcd %s: %s", method, answer.Error.Message)
	}
	if len(answer.Result) > 0 && string(answer.Result) != "null" {
		if err := json.Unmarshal(answer.Result, result); err != nil {
			d.t.Fatalf("btcd %s: %v: %s", method, err, answer.Result)
		}
	}
	return nil
}
