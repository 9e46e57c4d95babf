package api_test

import (
	"context"
	"slices"
	"strconv"
	"time"

	"dunlin/internal/api"
)

func (n *fakeNode) summary(b api.Block) api.BlockSummary {
	fees := int64(10)
	return api.BlockSummary{
		BySlot: b.BySlot,
		Height: b.Height, Hash: b.Hash, PreviousHash: b.PreviousHash, Time: b.Time, Active: true,
		Confirmations: int32(len(n.blocks)) - b.Height, Miner: b.CoinbaseText, Txs: b.Txs, Reward: 50, Fees: &fees,
	}
}

func (n *fakeNode) Summaries(_ context.Context, hash string, most int) (out []api.BlockSummary, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if hash == "" {
		hash = n.blocks[len(n.blocks)-1].Hash
	}
	for len(out) < most {
		b, ok := n.byHash[hash]
		if !ok {
			if len(out) == 0 {
				return nil, api.Errorf(404, "block %s is unknown", hash)
			}
			break
		}
		out = append(out, n.summary(b))
		hash = b.PreviousHash
	}
	return out, nil
}

func (n *fakeNode) BlockDetails(_ context.Context, hash string) (api.BlockDetails, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	b, ok := n.byHash[hash]
	if !ok {
		return api.BlockDetails{}, api.Errorf(404, "block %s is unknown", hash)
	}
	return api.BlockDetails{BlockSummary: n.summary(b), Status: "active", HaveBlock: true}, nil
}

// BlockTxs is of a block with seven transactions.
func (n *fakeNode) BlockTxs(_ context.Context, hash string, first, most int) (api.BlockTxs, error) {
	out := api.BlockTxs{BlockHash: hash, Height: 1, Total: 7}
	for i := first; i < out.Total && len(out.Txs) < most; i++ {
		out.Txs = append(out.Txs, api.TxDetails{TxID: n.hash(i), Index: i, Inputs: []api.TxInput{}, Outputs: []api.TxOutput{}, Parents: []string{}})
	}
	return out, nil
}

// StakeHolders are three, whose cursor is the number of the next.
func (n *fakeNode) StakeHolders(_ context.Context, cursor string, most int) (api.StakeHolders, error) {
	first := 0
	if cursor != "" {
		if cursor != "1" && cursor != "2" {
			return api.StakeHolders{}, api.Errorf(422, "cursor: no page gave it")
		}
		first = int(cursor[0] - '0')
	}
	out := api.StakeHolders{Height: 1, TipHash: n.hash(1), At: time.Unix(1_700_000_000, 0).UTC(), Total: 3}
	for i := first; i < out.Total && len(out.Holders) < most; i++ {
		out.Holders = append(out.Holders, api.StakeHolder{Address: "holder " + strconv.Itoa(i), Coins: 1, Value: 5})
	}
	if end := first + len(out.Holders); end < out.Total {
		out.Next = strconv.Itoa(end)
	}
	return out, nil
}

func (n *fakeNode) DoubleStakes(most int) (api.DoubleStakes, <-chan struct{}) {
	n.mu.Lock()
	defer n.mu.Unlock()
	out := api.DoubleStakes{Total: len(n.doubles)}
	for _, slot := range slices.Backward(n.doubles[max(0, len(n.doubles)-most):]) {
		out.Doubles = append(out.Doubles, api.DoubleStake{Slot: slot, Address: "holder 1", OutPoint: n.hash(9) + ":1", First: n.hash(1), Second: n.hash(2)})
	}
	return out, n.doubled
}

// double lets the stake of holder 1 sign two blocks for a slot.
func (n *fakeNode) double(slot int64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.doubles = append(n.doubles, slot)
	close(n.doubled)
	n.doubled = make(chan struct{})
}

func (n *fakeNode) Tree(depth int) api.Tree {
	return api.Tree{Tip: n.hash(1), FromHeight: int32(depth), Nodes: []api.TreeNode{{Hash: n.hash(1), Status: "active", Tip: true}}}
}

func (n *fakeNode) TxDetails(_ context.Context, txid, block string) (api.TxDetails, error) {
	if txid == n.hash(9) {
		return api.TxDetails{}, api.Errorf(404, "transaction %s is unknown", txid)
	}
	return api.TxDetails{TxID: txid, BlockHash: block, Status: api.TxConfirmed, Inputs: []api.TxInput{}, Outputs: []api.TxOutput{}, Parents: []string{}}, nil
}

func (n *fakeNode) Search(_ context.Context, q string) ([]api.SearchResult, error) {
	if q == "nothing" {
		return nil, nil
	}
	return []api.SearchResult{{Kind: api.FoundBlock, ID: n.hash(1), Height: 1, Detail: q}}, nil
}

func (n *fakeNode) MempoolTxs(cursor string, most int, byRate bool) (api.MempoolTxs, error) {
	if cursor == "bad" {
		return api.MempoolTxs{}, api.Errorf(422, "cursor: no page gave it")
	}
	out := api.MempoolTxs{Total: most, Txs: []api.MempoolTx{{TxID: n.hash(1), Parents: []string{}}}}
	if byRate {
		out.Next = "rate"
	}
	return out, nil
}

func (n *fakeNode) FeeHistogram() api.FeeHistogram {
	return api.FeeHistogram{Buckets: []api.FeeBucket{{From: 1000, Txs: 1}}, Txs: 1}
}

func (n *fakeNode) FeeEstimates() api.FeeEstimates {
	return api.FeeEstimates{Estimates: []api.FeeEstimate{{Blocks: 1, FeeRate: 1000}}, MinFeeRate: 1000, Basis: "mempool"}
}

func (n *fakeNode) Storage() (api.Storage, error) {
	return api.Storage{Home: "/home", BlocksBytes: 1, TotalBytes: 1}, nil
}

func (n *fakeNode) Discovery() api.DiscoveryStats {
	return api.DiscoveryStats{Sources: []api.SourceYield{{Source: "dns", Found: 1}}, Names: []api.SeedName{}, Failures: []api.FailureCount{}}
}

func (n *fakeNode) Gossip() api.GossipStats {
	h := api.Histogram{Count: 1, Buckets: []api.Bucket{{LeS: 0.1, Count: 1}}}
	return api.GossipStats{Delays: api.GossipDelays{Header: h, FirstMessage: h}, Topics: []api.TopicStats{{Name: "block"}}}
}

func (n *fakeNode) SyncHistory() api.SyncHistory {
	return api.SyncHistory{IntervalS: 2, Samples: slices.Repeat([]api.SyncSample{{Time: time.Unix(0, 0), State: "blocks", Peers: []api.PeerInFlight{}}}, 2)}
}

func (n *fakeNode) MinerHistory() api.MinerHistory {
	return api.MinerHistory{IntervalS: 2, Samples: []api.MinerSample{{HashesPerS: 5}}}
}

func (n *fakeNode) Path(from, to string, most int) (api.Path, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	a, b := n.byHash[from], n.byHash[to]
	out := api.Path{ReorgEvent: api.ReorgEvent{OldHash: from, OldHeight: a.Height, NewHash: to, NewHeight: b.Height, Disconnected: []string{}, Connected: []string{}}}
	for a.Hash != b.Hash {
		if a.Height >= b.Height {
			out.Disconnected = append(out.Disconnected, a.Hash)
			a = n.byHash[a.PreviousHash]
		} else {
			out.Connected = append([]string{b.Hash}, out.Connected...)
			b = n.byHash[b.PreviousHash]
		}
	}
	out.Depth, out.Blocks, out.ForkHeight, out.ForkHash = len(out.Disconnected), len(out.Connected), a.Height, a.Hash
	out.Connected = out.Connected[max(0, len(out.Connected)-most):]
	return out, nil
}

func (n *fakeNode) MempoolNews(after uint64) (api.MempoolEvent, uint64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	last := uint64(len(n.pool))
	out := api.MempoolEvent{Count: len(n.pool), Added: []api.AddedTx{}}
	for _, id := range n.pool[min(after, last):] {
		out.Added = append(out.Added, api.AddedTx{TxID: id})
	}
	out.AddedTotal = len(out.Added)
	return out, last
}

func (n *fakeNode) LogRecords(after uint64, most int) api.LogBatch {
	n.mu.Lock()
	defer n.mu.Unlock()
	last := uint64(len(n.records))
	out := api.LogBatch{Last: min(after, last), Changed: n.changed}
	for _, r := range n.records[out.Last:min(last, out.Last+uint64(most))] {
		out.Records = append(out.Records, r)
		out.Last = r.Seq
	}
	return out
}

// logs adds a line to the log.
func (n *fakeNode) logs(level, subsystem, text string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.records = append(n.records, api.LogRecord{Seq: uint64(len(n.records) + 1), Level: level, Subsystem: subsystem, Message: text, Text: text, Attrs: []api.LogAttr{}})
	close(n.changed)
	n.changed = make(chan struct{})
}

func (n *fakeNode) LogLevels() api.LogLevels {
	n.mu.Lock()
	defer n.mu.Unlock()
	out := api.LogLevels{Level: n.level, Levels: []api.SubsystemLevel{}, Subsystems: []string{"sync"}}
	if n.own != "" {
		out.Levels = append(out.Levels, api.SubsystemLevel{Subsystem: "sync", Level: n.own})
	}
	return out
}

func (n *fakeNode) SetLogLevel(subsystem, level string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	switch subsystem {
	case "":
		n.level = level
	case "sync":
		n.own = level
	default:
		return api.Errorf(422, "subsystem %q has logged nothing", subsystem)
	}
	return nil
}

func (n *fakeNode) Address(_ context.Context, address string) (api.Address, error) {
	switch address {
	case "off":
		return api.Address{}, api.Errorf(409, "addresses are not indexed: set storage.address_index = true")
	case "building":
		return api.Address{}, api.Errorf(503, "address_index is still building, 41%%")
	}
	return api.Address{Address: address, Balance: 5}, nil
}

func (n *fakeNode) AddressTxs(_ context.Context, _, cursor string, most int) (api.AddressTxs, error) {
	if cursor != "" {
		return api.AddressTxs{}, nil
	}
	return api.AddressTxs{Txs: make([]api.AddressTx, most), Next: "more"}, nil
}

func (n *fakeNode) AddressCoins(_ context.Context, _, _ string, most int) (api.AddressCoins, error) {
	return api.AddressCoins{UTXOs: make([]api.AddressCoin, most)}, nil
}

func (n *fakeNode) Indexes() []api.IndexStatus {
	return []api.IndexStatus{{Name: "tx_index", Enabled: true, Percent: 41.2}}
}
