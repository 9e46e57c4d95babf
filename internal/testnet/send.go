package testnet

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/btcsuite/btcd/btcec/v2"
	"github.com/btcsuite/btcd/btcec/v2/schnorr"
	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/txscript/v2"
	"github.com/btcsuite/btcd/wire/v2"

	"dunlin/internal/api"
)

// A Sender is what became of the transactions that a testnet's supervisor sends.
type Sender struct {
	Sent      int    `json:"sent"`      // handed to a node
	Acked     int    `json:"acked"`     // which took it
	Confirmed int    `json:"confirmed"` // found in a block
	Waiting   int    `json:"waiting"`   // acknowledged and in no block yet
	Resent    int    `json:"resent"`    // a node did not know it any more, after a kill say, and was given it again
	Refused   int    `json:"refused"`   // by a node
	Starved   int    `json:"starved"`   // not sent: no coin was at hand
	Coins     int    `json:"coins"`     // at hand
	Trouble   string `json:"trouble"`
}

// A TxAck is a transaction that a node has taken: a line of a file.
type TxAck struct {
	At   int64  `json:"t"` // Unix milliseconds
	Node int    `json:"node"`
	TxID string `json:"tx"`
}

const (
	sendFee       = 300 // satoshi: one input and one output are 111 virtual bytes
	sendTimeout   = 3 * time.Second
	maxInFlight   = 8         // requests
	maxWaiting    = 20_000    // transactions
	maxAcksBytes  = 128 << 20 // of the file
	confirmEvery  = time.Second
	confirmAtOnce = 400 // transactions looked after in one go
	resendAfter   = 10 * time.Second
	rescanAfter   = 3 * time.Second
	splitMost     = 500 // outputs of a transaction that makes coins out of one
	leastCoin     = 20_000
)

// coin is an output of the sender's that can be spent now.
type coin struct {
	at    wire.OutPoint
	value int64
}

// waitingTx is a transaction that was handed in.
type waitingTx struct {
	id     string
	hex    string
	at     time.Time // of the last attempt
	acked  bool
	yields []coin // its outputs
}

// A sender pays itself: as many transactions a second as it is told, each with a coin that is in a block, handed to
// any node that runs. It keeps a list of those that were acknowledged. What a node forgot, as it may when it is
// killed, is handed in again, as a wallet does.
type sender struct {
	spec   *Spec
	key    *btcec.PrivateKey
	script []byte
	rate   float64
	most   int // coins wanted
	acks   string

	mu      sync.Mutex // guards what follows; held for work in memory only
	coins   []coin
	waiting map[string]*waitingTx
	counts  Sender
	scanned time.Time
}

// loadKey reads the sender's key, or makes one.
func loadKey(path string) (*btcec.PrivateKey, error) {
	raw, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		key, err := btcec.NewPrivateKey()
		if err != nil {
			return nil, err
		}
		return key, writeFile(path, []byte(hex.EncodeToString(key.Serialize())+"\n"))
	case err != nil:
		return nil, err
	}
	secret, err := hex.DecodeString(strings.TrimSpace(string(raw)))
	if err != nil || len(secret) != btcec.PrivKeyBytesLen {
		return nil, fmt.Errorf("%s holds no key", path)
	}
	key, _ := btcec.PrivKeyFromBytes(secret)
	return key, nil
}

// keyScript is pay-to-taproot to a key that is not tweaked.
func keyScript(key *btcec.PrivateKey) []byte {
	return append([]byte{txscript.OP_1, txscript.OP_DATA_32}, schnorr.SerializePubKey(key.PubKey())...)
}

func newSender(s *Spec, key *btcec.PrivateKey) *sender {
	return &sender{
		spec: s, key: key, script: keyScript(key), rate: s.TxRate,
		// A coin comes back with the next blocks: enough for six.
		most:    int(min(max(math.Ceil(s.TxRate*s.Spacing.Seconds()*6), 50), 5000)),
		acks:    s.file(txAcksFile),
		waiting: map[string]*waitingTx{},
	}
}

// status returns the counts.
func (s *sender) status() *Sender {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := s.counts
	out.Coins, out.Waiting = len(s.coins), len(s.waiting)
	return &out
}

// run sends until ctx ends.
func (s *sender) run(ctx context.Context) {
	var all sync.WaitGroup
	defer all.Wait()
	all.Go(func() { s.confirmLoop(ctx) })
	const pace = 50 * time.Millisecond
	tick := time.NewTicker(pace)
	defer tick.Stop()
	slots := make(chan struct{}, maxInFlight)
	due, last := 0.0, time.Now()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		now := time.Now()
		due = min(due+s.rate*now.Sub(last).Seconds(), max(1, s.rate)) // what was missed for longer is not made up for
		last = now
		for ; due >= 1; due-- {
			tx, ok := s.next()
			if !ok {
				continue
			}
			select {
			case slots <- struct{}{}:
			case <-ctx.Done():
				return
			}
			all.Go(func() {
				defer func() { <-slots }()
				s.send(ctx, tx)
			})
		}
	}
}

// next makes the next transaction: a payment, or one that makes many coins out of one while there are few.
func (s *sender) next() (*waitingTx, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.coins) == 0 || len(s.waiting) >= maxWaiting {
		s.counts.Starved++
		return nil, false
	}
	on := len(s.coins) // and on their way
	for _, w := range s.waiting {
		on += len(w.yields)
	}
	if on < s.most {
		i := slices.IndexFunc(s.coins, func(c coin) bool { return c.value >= 100*leastCoin })
		if i >= 0 {
			c := s.coins[i]
			s.coins = slices.Delete(s.coins, i, i+1)
			return s.makeLocked(c, int(min(int64(splitMost), int64(s.most), c.value/leastCoin)))
		}
	}
	c := s.coins[0]
	s.coins = s.coins[1:]
	if c.value < 2*sendFee {
		return nil, false // too small to go on with
	}
	return s.makeLocked(c, 1)
}

// makeLocked spends a coin to n outputs of the same worth. The caller holds mu.
func (s *sender) makeLocked(c coin, n int) (*waitingTx, bool) {
	tx := wire.NewMsgTx(2)
	tx.AddTxIn(wire.NewTxIn(&c.at, nil, nil))
	fee := int64(sendFee + 50*(n-1))
	for range n {
		tx.AddTxOut(wire.NewTxOut((c.value-fee)/int64(n), s.script))
	}
	fetcher := txscript.NewCannedPrevOutputFetcher(s.script, c.value)
	digest, err := txscript.CalcTaprootSignatureHash(txscript.NewTxSigHashes(tx, fetcher), txscript.SigHashDefault, tx, 0, fetcher)
	if err == nil {
		var sig *schnorr.Signature
		if sig, err = schnorr.Sign(s.key, digest); err == nil {
			tx.TxIn[0].Witness = wire.TxWitness{sig.Serialize()}
		}
	}
	var raw bytes.Buffer
	if err == nil {
		err = tx.Serialize(&raw)
	}
	if err != nil {
		s.counts.Trouble = err.Error()
		return nil, false
	}
	hash := tx.TxHash()
	w := &waitingTx{id: hash.String(), hex: hex.EncodeToString(raw.Bytes()), at: time.Now()}
	for i, out := range tx.TxOut {
		w.yields = append(w.yields, coin{wire.OutPoint{Hash: hash, Index: uint32(i)}, out.Value})
	}
	s.waiting[w.id] = w
	return w, true
}

// anyNode picks a node that runs and is not suspended.
func (s *sender) anyNode() (int, *api.Client, bool) {
	ids := s.spec.ids()
	rand.Shuffle(len(ids), func(i, j int) { ids[i], ids[j] = ids[j], ids[i] })
	for _, id := range ids {
		if p := s.spec.process(id); !p.alive() || suspended(p.PID) {
			continue
		}
		if c, err := s.spec.client(id); err == nil {
			return id, c, true
		}
	}
	return 0, nil, false
}

// send hands a transaction in once, and notes the answer.
func (s *sender) send(ctx context.Context, w *waitingTx) {
	node, c, ok := s.anyNode()
	if !ok {
		return // it is looked after later
	}
	ctx, cancel := context.WithTimeout(ctx, sendTimeout)
	defer cancel()
	_, err := c.SubmitTx(ctx, w.hex)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.counts.Sent++
	if err != nil {
		if refused, ok := errors.AsType[*api.Error](err); ok {
			s.counts.Refused++
			s.counts.Trouble = fmt.Sprintf("node %d: %v", node, refused)
		}
		return
	}
	if w.acked {
		return
	}
	w.acked = true
	s.counts.Acked++
	raw, err := json.Marshal(TxAck{At: time.Now().UnixMilli(), Node: node, TxID: w.id})
	if info, e := os.Stat(s.acks); err == nil && (e != nil || info.Size() < maxAcksBytes) {
		err = appendLine(s.acks, raw)
	}
	if err != nil {
		s.counts.Trouble = err.Error()
	}
}

// confirmLoop looks after what was handed in, and for coins, until ctx ends.
func (s *sender) confirmLoop(ctx context.Context) {
	tick := time.NewTicker(confirmEvery)
	defer tick.Stop()
	for {
		if err := s.rescan(ctx); err != nil && ctx.Err() == nil {
			s.mu.Lock()
			s.counts.Trouble = err.Error()
			s.mu.Unlock()
		}
		s.confirm(ctx)
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// confirm asks a node for the transactions that have waited longest.
func (s *sender) confirm(ctx context.Context) {
	now := time.Now()
	s.mu.Lock()
	var old []*waitingTx
	for _, w := range s.waiting {
		if now.Sub(w.at) >= confirmEvery {
			old = append(old, w)
		}
	}
	s.mu.Unlock()
	slices.SortFunc(old, func(a, b *waitingTx) int { return a.at.Compare(b.at) })
	_, c, ok := s.anyNode()
	if !ok {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, sendTimeout)
	defer cancel()
	for _, w := range old[:min(len(old), confirmAtOnce)] {
		tx, err := c.Tx(ctx, w.id)
		refused, ok := errors.AsType[*api.Error](err)
		switch {
		case err == nil && tx.Status == api.TxConfirmed:
			s.mu.Lock()
			delete(s.waiting, w.id)
			if w.acked {
				s.counts.Confirmed++
			}
			s.coins = append(s.coins, w.yields...)
			s.mu.Unlock()
		case err == nil && tx.Status == api.TxInMempool, now.Sub(w.at) < resendAfter:
		case err == nil, ok && refused.Status == http.StatusNotFound:
			s.mu.Lock()
			w.at = now
			s.counts.Resent++
			s.mu.Unlock()
			s.send(ctx, w)
		case err != nil && !ok:
			return // this node does not answer: the next one in a second
		}
	}
}

// rescan finds the sender's coins in the set of all, if none is at hand and none is on its way.
func (s *sender) rescan(ctx context.Context) error {
	s.mu.Lock()
	idle := len(s.coins) == 0 && len(s.waiting) == 0 && time.Since(s.scanned) > rescanAfter
	if idle {
		s.scanned = time.Now()
	}
	s.mu.Unlock()
	if !idle {
		return nil
	}
	_, c, ok := s.anyNode()
	if !ok {
		return nil
	}
	found, err := scanCoins(ctx, c, s.script)
	if err != nil {
		return fmt.Errorf("coins of the sender: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.coins = append(s.coins, found...)
	return nil
}

// scanCoins asks a node for all coins of a script that can be spent in the next block.
func scanCoins(ctx context.Context, c *api.Client, script []byte) ([]coin, error) {
	const maturity = 100
	request := map[string]any{
		"jsonrpc": "2.0", "id": 1, "method": "scantxoutset", "params": []any{"start", []string{"raw(" + hex.EncodeToString(script) + ")"}},
	}
	var answer struct {
		Error *struct {
			Message string `json:"message"`
		} `json:"error"`
		Result struct {
			Height   int32 `json:"height"`
			Unspents []struct {
				TxID     string  `json:"txid"`
				VOut     uint32  `json:"vout"`
				Amount   float64 `json:"amount"`
				Coinbase bool    `json:"coinbase"`
				Height   int32   `json:"height"`
			} `json:"unspents"`
		} `json:"result"`
	}
	if err := c.Call(ctx, http.MethodPost, "/", request, &answer); err != nil {
		return nil, err
	}
	if answer.Error != nil {
		return nil, errors.New(answer.Error.Message)
	}
	var out []coin
	for _, u := range answer.Result.Unspents {
		hash, err := chainhash.NewHashFromStr(u.TxID)
		if err != nil || (u.Coinbase && u.Height > 0 && answer.Result.Height+1-u.Height < maturity) {
			continue
		}
		out = append(out, coin{wire.OutPoint{Hash: *hash, Index: u.VOut}, int64(math.Round(u.Amount * 1e8))})
	}
	return out, nil
}

// acknowledged lists the transactions of the file of a testnet, the last most of them.
func acknowledged(dir string, most int) (out []TxAck, err error) {
	err = readLines(filepath.Join(dir, txAcksFile), func(a TxAck) {
		if out = append(out, a); len(out) > 2*most {
			out = slices.Clone(out[len(out)-most:])
		}
	})
	return out[max(0, len(out)-most):], err
}
