package main

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/btcsuite/btcd/btcutil/v2"

	"dunlin/internal/api"
)

// asks gets a route of API v1; want is the status.
func asks[T any](t *testing.T, d *daemon, path string, want int) (v T) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+d.info.RPCAddr+"/api/v1"+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	r, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	raw, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	if r.StatusCode != want {
		t.Fatalf("GET %s: %d, want %d: %s", path, r.StatusCode, want, raw)
	}
	if err := json.Unmarshal(raw, &v); err != nil {
		t.Fatalf("GET %s: %v in %s", path, err, raw)
	}
	return v
}

// problem is an RFC 9457 answer.
type problem struct {
	Status int    `json:"status"`
	Detail string `json:"detail"`
}

// TestE2EExplorer: what an explorer's pages show of a chain with paying transactions, a
// fork and a mempool, against what was put in.
func TestE2EExplorer(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, "explorer", "--network", "regtest")
	c := rpcTo(t, d)
	p := newPurse(10)
	for _, b := range p.blocks {
		if err := c.SubmitBlock(btcutil.NewBlock(decoded(t, b.Raw)), nil); err != nil {
			t.Fatal(err)
		}
	}
	tx := p.pay(1, 10_000)
	child := p.spend(tx, 20_000)
	for _, x := range []string{hex.EncodeToString(serialised(tx)), hex.EncodeToString(serialised(child))} {
		if got := rpcRaw(t, d, `{"method":"sendrawtransaction","params":["`+x+`"],"id":1}`); strings.Contains(got, `"code"`) {
			t.Fatal(got)
		}
	}

	// The mempool.
	const fees = 30_000
	rates := asks[api.MempoolTxs](t, d, "/mempool/txs?sort=fee_rate&limit=1", http.StatusOK)
	if rates.Total != 2 || len(rates.Txs) != 1 || rates.Txs[0].TxID != child.TxHash().String() || rates.Txs[0].Fee != 20_000 || len(rates.Txs[0].Parents) != 1 {
		t.Errorf("best paid: %+v", rates)
	}
	rest := asks[api.MempoolTxs](t, d, "/mempool/txs?sort=fee_rate&limit=1&cursor="+rates.Next, http.StatusOK)
	if len(rest.Txs) != 1 || rest.Txs[0].TxID != tx.TxHash().String() || rest.Next != "" {
		t.Errorf("the next page: %+v", rest)
	}
	if h := asks[api.FeeHistogram](t, d, "/mempool/histogram", http.StatusOK); h.Txs != 2 || h.Fees != fees || len(h.Buckets) == 0 {
		t.Errorf("histogram: %+v", h)
	}
	if e := asks[api.FeeEstimates](t, d, "/fees/estimate", http.StatusOK); len(e.Estimates) < 3 || e.Estimates[0].FeeRate != 1000 || e.MinFeeRate != 1000 {
		t.Errorf("estimates of a mempool that fits a block: %+v", e)
	}
	waiting := asks[api.TxDetails](t, d, "/tx/"+child.TxHash().String()+"/details", http.StatusOK)
	if waiting.Status != api.TxInMempool || *waiting.Fee != 20_000 || waiting.Inputs[0].Prevout == nil || waiting.Inputs[0].Prevout.Height != -1 ||
		waiting.Parents[0] != tx.TxHash().String() || waiting.Hex != hex.EncodeToString(serialised(child)) {
		t.Errorf("the child in the mempool: %+v", waiting)
	}

	// A block of it, and then a fork: the block is taken back, two others come, and the
	// transactions wait again.
	b := d.mine(1)
	d.holds(0) // the mempool follows
	recent := asks[api.RecentBlocks](t, d, "/chain/recent?limit=2", http.StatusOK)
	if len(recent.Blocks) != 2 || recent.Next == "" {
		t.Fatalf("recent: %+v", recent)
	}
	top := recent.Blocks[0]
	if top.Hash != b.Hash || top.Txs != 3 || *top.Fees != fees || *top.AvgFee != fees/2 || top.Reward != 50*btcutil.SatoshiPerBitcoin+fees ||
		top.Subsidy != 50*btcutil.SatoshiPerBitcoin || top.StrippedSize == 0 || top.StrippedSize > top.Size || top.Confirmations != 1 || top.MinerAddress == "" {
		t.Errorf("the block: %+v", top)
	}
	details := asks[api.BlockDetails](t, d, "/chain/blocks/111/details", http.StatusOK)
	if details.Hash != b.Hash || details.Status != "active" || !details.HaveBlock || details.NextHash != "" || details.MedianTime.IsZero() {
		t.Errorf("its details: %+v", details)
	}
	txs := asks[api.BlockTxs](t, d, "/chain/blocks/"+b.Hash+"/txs?limit=2", http.StatusOK)
	if txs.Total != 3 || len(txs.Txs) != 2 || txs.Next != "2" || !txs.Txs[0].Coinbase || txs.Txs[0].Inputs[0].Coinbase == "" ||
		*txs.Txs[1].Fee != 10_000 || txs.Txs[1].Inputs[0].Prevout.Value != 50*btcutil.SatoshiPerBitcoin {
		t.Errorf("its transactions: %+v", txs)
	}
	spent := asks[api.TxDetails](t, d, "/tx/"+tx.TxHash().String()+"/details?block="+b.Hash, http.StatusOK)
	if spent.Status != api.TxConfirmed || spent.Outputs[0].Spent == nil || !*spent.Outputs[0].Spent || spent.Index != 1 || spent.Confirmations != 1 {
		t.Errorf("a spent transaction: %+v", spent)
	}
	open := asks[api.TxDetails](t, d, "/tx/"+child.TxHash().String()+"/details", http.StatusOK)
	if open.Status != api.TxConfirmed || *open.Outputs[0].Spent || open.BlockHash != b.Hash {
		t.Errorf("one with an unspent output: %+v", open)
	}
	if gone := asks[problem](t, d, "/tx/"+tx.TxHash().String()+"/details", http.StatusNotFound); !strings.Contains(gone.Detail, "?block=") {
		t.Errorf("a spent one without its block: %+v", gone)
	}

	rpcRaw(t, d, `{"method":"invalidateblock","params":["`+b.Hash+`"],"id":1}`)
	other := d.mine(2)
	tree := asks[api.Tree](t, d, "/chain/tree?depth=3", http.StatusOK)
	statuses := map[string]string{}
	for _, n := range tree.Nodes {
		statuses[n.Hash] = n.Status
	}
	if tree.FromHeight != 110 || tree.ToHeight != 112 || tree.Tip != other.Hash || len(tree.Nodes) != 4 || statuses[b.Hash] != "invalid" || statuses[other.Hash] != "active" {
		t.Errorf("the tree: %+v", tree)
	}
	if x := asks[api.TxDetails](t, d, "/tx/"+tx.TxHash().String()+"/details?block="+b.Hash, http.StatusOK); x.Status != api.TxStale || x.Confirmations != 0 {
		t.Errorf("a transaction of a stale block: %+v", x)
	}

	// Search, once what was in the block waits or is mined again.
	eventually(t, patience, "the child is back", func() error {
		if len(asks[api.SearchAnswer](t, d, "/search?q="+child.TxHash().String(), http.StatusOK).Results) == 0 {
			return errors.New("not found")
		}
		return nil
	})
	for q, want := range map[string]string{
		"111": api.FoundBlock, "1,0": api.FoundBlock, b.Hash: api.FoundBlock, child.TxHash().String(): api.FoundTx,
		top.MinerAddress: api.FoundAddress, "nonsense": "", strings.Repeat("1", 64): "",
	} {
		found := asks[api.SearchAnswer](t, d, "/search?q="+q, http.StatusOK)
		if want == "" && len(found.Results) > 0 || want != "" && (len(found.Results) == 0 || found.Results[0].Kind != want) {
			t.Errorf("search %q: %+v, want %q", q, found.Results, want)
		}
	}

	// The node.
	if s := asks[api.Storage](t, d, "/storage", http.StatusOK); s.Home != d.home || s.BlocksBytes == 0 || s.BlockFiles != 1 || s.FreeBytes == 0 || s.TotalBytes < s.BlocksBytes {
		t.Errorf("storage: %+v", s)
	}
	if s := asks[api.DiscoveryStats](t, d, "/discovery", http.StatusOK); s.Sources == nil || s.MaxOutbound == 0 {
		t.Errorf("discovery: %+v", s)
	}
	if s := asks[api.GossipStats](t, d, "/gossip", http.StatusOK); len(s.Topics) != 2 || len(s.Delays.Header.Buckets) == 0 {
		t.Errorf("gossip: %+v", s)
	}
	eventually(t, patience, "samples of the miner's work", func() error {
		d.mine(1) // before the first sample nothing counts
		m := asks[api.MinerHistory](t, d, "/miner/history", http.StatusOK)
		s := asks[api.SyncHistory](t, d, "/sync/history", http.StatusOK)
		for i, sample := range m.Samples {
			if sample.HashesPerS > 0 && s.Samples[i].Height > 0 {
				return nil
			}
		}
		return fmt.Errorf("%d samples", len(m.Samples))
	})
}
