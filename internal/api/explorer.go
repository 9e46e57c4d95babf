package api

import (
	"context"
	"time"
)

// An Explorer shows what is in the chain and in the mempool in the shape that an
// explorer's pages have, and the node's workings over time. All methods are safe for
// concurrent use. Amounts are in satoshi, fee rates in satoshi per 1000 virtual bytes,
// hashes are RPC (reversed) hex. Lists are bounded by most, which the routes bound.
// Errors are as of [Node].
type Explorer interface {
	// Summaries describes up to most blocks from hash on, towards genesis; "" begins at the tip.
	Summaries(ctx context.Context, hash string, most int) ([]BlockSummary, error)
	// BlockDetails describes a header of any branch, with its block if that is on disk.
	BlockDetails(ctx context.Context, hash string) (BlockDetails, error)
	// BlockTxs describes up to most transactions of a block from number first on.
	BlockTxs(ctx context.Context, hash string, first, most int) (BlockTxs, error)
	// StakeHolders lists up to most of those who can win slots behind a cursor ("" the
	// first), the richest first. It reads all coins, once a tip, until ctx ends. *Error
	// 409: work makes blocks here; 422: a bad cursor.
	StakeHolders(ctx context.Context, cursor string, most int) (StakeHolders, error)
	// DoubleStakes lists up to most cases of a stake that signed two blocks for one slot, the
	// latest first, and gives a channel that is closed when there is another. None where
	// work makes blocks.
	DoubleStakes(most int) (DoubleStakes, <-chan struct{})
	// Tree lists the headers of all branches in the last depth heights.
	Tree(depth int) Tree
	// TxDetails describes a transaction: of a named block; else, with block "", of the
	// mempool, with an unspent output, or of the transaction index.
	TxDetails(ctx context.Context, txid, block string) (TxDetails, error)
	// Search says what a text may mean: a height, a hash, an address, a peer.
	Search(ctx context.Context, q string) ([]SearchResult, error)

	// Address sums up what happened to an address; AddressTxs and AddressCoins list its
	// transactions, the latest first, and its unspent outputs, up to most behind a cursor
	// ("" the first). *Error 422: no address of this network, or a bad cursor; 409: the
	// address index is off; 503: it is being built.
	Address(ctx context.Context, address string) (Address, error)
	AddressTxs(ctx context.Context, address, cursor string, most int) (AddressTxs, error)
	AddressCoins(ctx context.Context, address, cursor string, most int) (AddressCoins, error)
	// Indexes tells how far the optional indexes are.
	Indexes() []IndexStatus

	// MempoolTxs lists up to most unconfirmed transactions behind a cursor ("" the first):
	// by time, newest first, or by fee rate, best first. *Error 422: a bad cursor.
	MempoolTxs(cursor string, most int, byRate bool) (MempoolTxs, error)
	// FeeHistogram counts the mempool by fee rate.
	FeeHistogram() FeeHistogram
	// FeeEstimates says what to pay to be mined soon.
	FeeEstimates() FeeEstimates

	// Storage tells what is on disk.
	Storage() (Storage, error)
	// Discovery tells where peers came from and what became of them.
	Discovery() DiscoveryStats
	// Gossip tells how blocks and transactions come here.
	Gossip() GossipStats
	// SyncHistory and MinerHistory are samples of the last half hour, oldest first.
	SyncHistory() SyncHistory
	MinerHistory() MinerHistory
}

// BlockSummary is a block as a list shows it.
type BlockSummary struct {
	Height        int32     `json:"height" doc:"-1 if it is on no known branch" example:"101"`
	Hash          string    `json:"hash"`
	PreviousHash  string    `json:"previous_hash"`
	Time          time.Time `json:"time"`
	Active        bool      `json:"active" doc:"On the active chain"`
	Confirmations int32     `json:"confirmations" doc:"Blocks from it to the tip; 0 if it is not on the active chain"`
	Miner         string    `json:"miner" doc:"Readable part of the coinbase script"`
	Data          string    `json:"data" doc:"Text of the coinbase's OP_RETURN output"`
	MinerAddress  string    `json:"miner_address,omitempty" doc:"That the coinbase pays first, if it has one"`
	Txs           int       `json:"txs" example:"12"`
	Size          int       `json:"size" doc:"Bytes as stored"`
	StrippedSize  int       `json:"stripped_size" doc:"Bytes without witnesses and seal"`
	Weight        int       `json:"weight"`
	Subsidy       int64     `json:"subsidy" doc:"Satoshi that the block may make" example:"5000000000"`
	Reward        int64     `json:"reward" doc:"Satoshi that the coinbase takes: subsidy and fees, unless the miner left some"`
	Fees          *int64    `json:"fees" doc:"Satoshi; null if what it spends is not on disk"`
	AvgFee        *int64    `json:"avg_fee" doc:"Satoshi a transaction, the coinbase not counted; null as fees, or if there is none"`
	AvgFeeRate    *int64    `json:"avg_fee_rate" doc:"Satoshi per 1000 virtual bytes, likewise"`
	Bits          string    `json:"bits" doc:"Compact difficulty, 8 hex digits" example:"207fffff"`
	Difficulty    float64   `json:"difficulty" doc:"Of the target, also where it is one a satoshi of stake, which share and slots.online of the status tell more of"`
	Work          string    `json:"work" doc:"Cumulative, hex"`
	BySlot
}

// BlockDetails is one block of any branch. Without its block on disk the header alone is described.
type BlockDetails struct {
	BlockSummary

	MerkleRoot string    `json:"merkle_root"`
	Version    int32     `json:"version"`
	Nonce      uint32    `json:"nonce"`
	MedianTime time.Time `json:"median_time"`
	Status     string    `json:"status" enum:"active,valid-fork,valid-headers,headers-only,invalid"`
	HaveBlock  bool      `json:"have_block" doc:"Its bytes are on disk"`
	Pruned     bool      `json:"pruned" doc:"They were, or its undo data were"`
	NextHash   string    `json:"next_hash,omitempty" doc:"On the active chain"`
	Modifier   string    `json:"modifier,omitempty" doc:"Where stake makes blocks: of its parent, what the kernels of its slot depended on"`
	Kernel     string    `json:"kernel,omitempty" doc:"Likewise: the hash that won its slot"`
}

// RecentBlocks is what GET /api/v1/chain/recent gives.
type RecentBlocks struct {
	Blocks []BlockSummary `json:"blocks" doc:"Newest first"`
	Next   string         `json:"next,omitempty" doc:"Cursor of the next page; missing on the last"`
}

// BlockTxs is a part of a block's transactions.
type BlockTxs struct {
	BlockHash string      `json:"block_hash"`
	Height    int32       `json:"height"`
	Total     int         `json:"total"`
	Txs       []TxDetails `json:"txs" doc:"In the order of the block"`
	Next      string      `json:"next,omitempty" doc:"Cursor of the next page; missing on the last"`
}

// Tree is the header tree near the tip.
type Tree struct {
	Tip        string     `json:"tip" doc:"Hash of the validated tip"`
	FromHeight int32      `json:"from_height"`
	ToHeight   int32      `json:"to_height"`
	Truncated  bool       `json:"truncated" doc:"There are more than could be listed"`
	Nodes      []TreeNode `json:"nodes" doc:"By height; of one height the active first"`
}

// TreeNode is a header of a [Tree].
type TreeNode struct {
	Hash         string    `json:"hash"`
	PreviousHash string    `json:"previous_hash"`
	Height       int32     `json:"height"`
	Time         time.Time `json:"time"`
	Status       string    `json:"status" enum:"active,valid-fork,valid-headers,headers-only,invalid"`
	HaveBlock    bool      `json:"have_block"`
	Tip          bool      `json:"tip" doc:"Nothing builds on it"`
}

// TxStale is the state of a transaction whose block is not on the active chain. The
// other states of [TxDetails] are TxInMempool and TxConfirmed.
const TxStale = "stale"

// TxDetails is a transaction as an explorer shows it.
type TxDetails struct {
	TxID          string     `json:"txid"`
	WTxID         string     `json:"wtxid"`
	Status        string     `json:"status" enum:"mempool,confirmed,stale"`
	Version       int32      `json:"version"`
	LockTime      uint32     `json:"lock_time"`
	Size          int        `json:"size" doc:"Bytes"`
	Weight        int        `json:"weight"`
	VSize         int        `json:"vsize"`
	Coinbase      bool       `json:"coinbase"`
	Fee           *int64     `json:"fee" doc:"Satoshi; null of a coinbase, or if what it spends is not known here"`
	FeeRate       *int64     `json:"fee_rate" doc:"Satoshi per 1000 virtual bytes"`
	Time          time.Time  `json:"time" doc:"Of its block, or when it came to the mempool"`
	BlockHash     string     `json:"block_hash,omitempty"`
	Height        int32      `json:"height" doc:"Of its block; -1 in the mempool"`
	Index         int        `json:"index" doc:"Place in its block; -1 in the mempool"`
	Confirmations int32      `json:"confirmations" doc:"0 if it is on no active chain"`
	Hex           string     `json:"hex,omitempty" doc:"Not in lists"`
	InputsTotal   int        `json:"inputs_total"`
	Inputs        []TxInput  `json:"inputs" doc:"In lists at most 50"`
	OutputsTotal  int        `json:"outputs_total"`
	Outputs       []TxOutput `json:"outputs" doc:"In lists at most 50"`
	Parents       []string   `json:"parents" doc:"Unconfirmed transactions that it spends from"`
}

// TxInput is an input of a [TxDetails].
type TxInput struct {
	TxID      string   `json:"txid,omitempty" doc:"Missing in a coinbase"`
	VOut      uint32   `json:"vout"`
	Sequence  uint32   `json:"sequence"`
	ScriptSig string   `json:"script_sig" doc:"Hex"`
	Witness   []string `json:"witness" doc:"Hex"`
	Coinbase  string   `json:"coinbase,omitempty" doc:"Script of a coinbase, hex"`
	Prevout   *Prevout `json:"prevout" doc:"What it spends; null of a coinbase, or if it is not known here"`
}

// Prevout is the output that an input spends.
type Prevout struct {
	Value    int64  `json:"value" doc:"Satoshi"`
	Address  string `json:"address,omitempty"`
	Type     string `json:"type" example:"witness_v0_keyhash"`
	Script   string `json:"script" doc:"Hex"`
	Height   int32  `json:"height" doc:"Of the block that made it; -1 in the mempool"`
	Coinbase bool   `json:"coinbase"`
}

// TxOutput is an output of a [TxDetails].
type TxOutput struct {
	N       int    `json:"n"`
	Value   int64  `json:"value" doc:"Satoshi"`
	Address string `json:"address,omitempty"`
	Type    string `json:"type" example:"witness_v0_keyhash"`
	Script  string `json:"script" doc:"Hex"`
	Spent   *bool  `json:"spent" doc:"By the chain or by the mempool; null in lists, of stale transactions, and of what nobody can spend"`
	SpentBy string `json:"spent_by,omitempty" doc:"The transaction of the mempool that does"`
}

// SearchAnswer is what GET /api/v1/search gives.
type SearchAnswer struct {
	Q       string         `json:"q"`
	Results []SearchResult `json:"results"`
}

// Kinds of a [SearchResult].
const (
	FoundBlock   = "block"
	FoundTx      = "tx"
	FoundAddress = "address"
	FoundPeer    = "peer"
)

// SearchResult is one thing that a text may mean.
type SearchResult struct {
	Kind   string `json:"kind" enum:"block,tx,address,peer"`
	ID     string `json:"id" doc:"Hash, address or peer id"`
	Height int32  `json:"height" doc:"Of a block; -1 otherwise"`
	Detail string `json:"detail" doc:"For people"`
}

// Address is all that happened to an address.
type Address struct {
	Address     string      `json:"address"`
	Script      string      `json:"script" doc:"That pays it, hex"`
	ScriptHash  string      `json:"script_hash" doc:"SHA-256 of the script, reversed hex, as Electrum has it"`
	Type        string      `json:"type" example:"witness_v0_keyhash"`
	Balance     int64       `json:"balance" doc:"Satoshi, confirmed"`
	Received    int64       `json:"received" doc:"Satoshi, confirmed"`
	Sent        int64       `json:"sent" doc:"Satoshi, confirmed"`
	Txs         int         `json:"txs" doc:"Confirmed"`
	Unconfirmed Unconfirmed `json:"unconfirmed"`
	FirstHeight int32       `json:"first_height" doc:"-1 none"`
	LastHeight  int32       `json:"last_height" doc:"-1 none"`
}

// Unconfirmed is what the mempool would do to an address.
type Unconfirmed struct {
	Received int64 `json:"received" doc:"Satoshi"`
	Sent     int64 `json:"sent" doc:"Satoshi"`
	Txs      int   `json:"txs"`
}

// AddressTxs is a part of the history of an address.
type AddressTxs struct {
	Txs  []AddressTx `json:"txs" doc:"Unconfirmed ones, then the latest first"`
	Next string      `json:"next,omitempty" doc:"Cursor of the next page, which may be empty; missing on the last"`
}

// AddressTx is what a transaction did to an address.
type AddressTx struct {
	TxID          string    `json:"txid"`
	Height        int32     `json:"height" doc:"-1 in the mempool"`
	BlockHash     string    `json:"block_hash,omitempty"`
	Time          time.Time `json:"time"`
	Received      int64     `json:"received" doc:"Satoshi"`
	Sent          int64     `json:"sent" doc:"Satoshi"`
	Net           int64     `json:"net" doc:"Satoshi: received less sent"`
	Confirmations int32     `json:"confirmations"`
}

// AddressCoins is a part of the unspent outputs of an address.
type AddressCoins struct {
	UTXOs []AddressCoin `json:"utxos" doc:"Confirmed; the latest first"`
	Next  string        `json:"next,omitempty" doc:"Cursor of the next page, which may be empty; missing on the last"`
}

// AddressCoin is an unspent output.
type AddressCoin struct {
	TxID          string `json:"txid"`
	VOut          uint32 `json:"vout"`
	Value         int64  `json:"value" doc:"Satoshi"`
	Height        int32  `json:"height"`
	Confirmations int32  `json:"confirmations"`
	Coinbase      bool   `json:"coinbase"`
	SpentBy       string `json:"spent_by,omitempty" doc:"The transaction of the mempool that spends it"`
}

// IndexesAnswer is what GET /api/v1/indexes gives.
type IndexesAnswer struct {
	Indexes []IndexStatus `json:"indexes"`
}

// IndexStatus is how far an optional index is.
type IndexStatus struct {
	Name    string  `json:"name" enum:"tx_index,address_index" doc:"The setting, in storage"`
	Enabled bool    `json:"enabled"`
	Synced  bool    `json:"synced" doc:"It has the tip, or follows it closely"`
	Height  int32   `json:"height" doc:"Of the highest block that it has; -1 none"`
	Percent float64 `json:"percent"`
	Bytes   int64   `json:"bytes" doc:"On disk"`
	Error   string  `json:"error" doc:"Why it does not go on; empty while it does"`
}

// MempoolTxs is a part of the mempool.
type MempoolTxs struct {
	Total int         `json:"total"`
	Txs   []MempoolTx `json:"txs"`
	Next  string      `json:"next,omitempty" doc:"Cursor of the next page; missing on the last"`
}

// MempoolTx is an unconfirmed transaction.
type MempoolTx struct {
	TxID    string    `json:"txid"`
	WTxID   string    `json:"wtxid"`
	Time    time.Time `json:"time" doc:"When it came"`
	Fee     int64     `json:"fee" doc:"Satoshi"`
	VSize   int       `json:"vsize"`
	Weight  int       `json:"weight"`
	FeeRate int64     `json:"fee_rate" doc:"Satoshi per 1000 virtual bytes"`
	Parents []string  `json:"parents" doc:"Unconfirmed transactions that it spends from"`
	Local   bool      `json:"local" doc:"Made or handed in here"`
}

// FeeHistogram counts the transactions of the mempool by what they pay.
type FeeHistogram struct {
	Buckets []FeeBucket `json:"buckets" doc:"Ascending; empty ones below the first and above the last are left out"`
	Txs     int         `json:"txs"`
	VBytes  int64       `json:"vbytes"`
	Fees    int64       `json:"fees" doc:"Satoshi"`
}

// FeeBucket counts the transactions that pay from From to below To.
type FeeBucket struct {
	From   int64  `json:"from" doc:"Satoshi per 1000 virtual bytes"`
	To     *int64 `json:"to" doc:"Null: no limit"`
	Txs    int    `json:"txs"`
	VBytes int64  `json:"vbytes"`
	Fees   int64  `json:"fees"`
}

// FeeEstimates says what to pay.
type FeeEstimates struct {
	Estimates  []FeeEstimate `json:"estimates"`
	MinFeeRate int64         `json:"min_fee_rate" doc:"Satoshi per 1000 virtual bytes that let a transaction into the mempool now"`
	Basis      string        `json:"basis" enum:"mempool" doc:"What was looked at: the mempool as it is, no past"`
}

// FeeEstimate is what to pay to be mined within so many blocks.
type FeeEstimate struct {
	Blocks  int   `json:"blocks"`
	FeeRate int64 `json:"fee_rate" doc:"Satoshi per 1000 virtual bytes"`
}

// Storage is what the node has on disk.
type Storage struct {
	Home              string `json:"home"`
	BlocksBytes       int64  `json:"blocks_bytes" doc:"Block files"`
	BlockFiles        int    `json:"block_files"`
	UndoBytes         int64  `json:"undo_bytes" doc:"What is needed to take blocks back"`
	IndexBytes        int64  `json:"index_bytes" doc:"Headers and unspent outputs"`
	TxIndexBytes      int64  `json:"tx_index_bytes"`
	AddressIndexBytes int64  `json:"address_index_bytes"`
	MempoolFileBytes  int64  `json:"mempool_file_bytes"`
	TotalBytes        int64  `json:"total_bytes"`
	FreeBytes         int64  `json:"free_bytes" doc:"Of the file system"`
	LowDisk           bool   `json:"low_disk" doc:"So little is free that no block is accepted"`
	Pruned            bool   `json:"pruned"`
	PrunedBelow       int32  `json:"pruned_below" doc:"Lowest height whose block, and of all above, is on disk"`
	PruneTargetBytes  int64  `json:"prune_target_bytes" doc:"storage.prune_mb; 0: all is kept"`
}

// DiscoveryStats is where peers came from, and what became of them.
type DiscoveryStats struct {
	Sources      []SourceYield   `json:"sources" doc:"By name"`
	Names        []SeedName      `json:"names" doc:"DNS seeds and names"`
	Failures     []FailureCount  `json:"failures" doc:"Dials that did not work, by reason, most first"`
	Book         int             `json:"book" doc:"Entries of the address book"`
	Tried        int             `json:"tried" doc:"Of them reached once"`
	Static       int             `json:"static" doc:"Bootstrap, persistent and added peers with a known address"`
	Added        int             `json:"added"`
	Avoided      int             `json:"avoided" doc:"Not dialled for a while"`
	RoutingTable int             `json:"routing_table" doc:"Peers in the DHT's"`
	Outbound     int             `json:"outbound"`
	Inbound      int             `json:"inbound"`
	MaxOutbound  int             `json:"max_outbound"`
	Feelers      uint64          `json:"feelers" doc:"Dials to find out whether a peer is there"`
	Advert       DiscoveryAdvert `json:"advert"`
}

// SourceYield is what one source of peers has given since the start.
type SourceYield struct {
	Source    string `json:"source" example:"dns"`
	Found     uint64 `json:"found"`
	Dialed    uint64 `json:"dialed"`
	Connected uint64 `json:"connected"`
	Failed    uint64 `json:"failed"`
}

// SeedName is a DNS seed or an address with a DNS name.
type SeedName struct {
	Name     string `json:"name"`
	Source   string `json:"source"`
	Asked    bool   `json:"asked"`
	Answered bool   `json:"answered" doc:"The last question was answered with peers"`
	Peers    int    `json:"peers"`
	Error    string `json:"error" doc:"Of the last question; empty if it was answered"`
}

// FailureCount is why dials did not work.
type FailureCount struct {
	Reason string `json:"reason"`
	Count  uint64 `json:"count"`
}

// DiscoveryAdvert is the state of this node's record in the DHT.
type DiscoveryAdvert struct {
	At     *time.Time `json:"at" doc:"Of the last that worked; null: none yet"`
	Sent   int        `json:"sent" doc:"Peers that it went to"`
	Held   int        `json:"held" doc:"Of the few asked, those that showed it"`
	Failed uint64     `json:"failed"`
	Error  string     `json:"error" doc:"Of the last one"`
}

// GossipStats is GossipStatus with how long blocks took, and the topics.
type GossipStats struct {
	GossipStatus

	Delays GossipDelays `json:"delays"`
	Topics []TopicStats `json:"topics"`
}

// GossipDelays counts how long blocks took until they were complete here.
type GossipDelays struct {
	Header       Histogram `json:"header" doc:"From the time in their header, which has a resolution of a second"`
	FirstMessage Histogram `json:"first_message" doc:"From their first message"`
}

// Histogram is cumulative, as Prometheus has it. Count includes what is above the last bucket.
type Histogram struct {
	Count   uint64   `json:"count"`
	SumS    float64  `json:"sum_s"`
	Buckets []Bucket `json:"buckets"`
}

// Bucket counts what took at most LeS seconds.
type Bucket struct {
	LeS   float64 `json:"le_s"`
	Count uint64  `json:"count"`
}

// TopicStats counts the messages of a gossip topic since the start.
type TopicStats struct {
	Name string `json:"name" enum:"block,tx"`
	TopicFlow

	BytesIn  uint64 `json:"bytes_in" doc:"Copies included"`
	BytesOut uint64 `json:"bytes_out"`
}

// SyncHistory is the sync over time.
type SyncHistory struct {
	IntervalS float64      `json:"interval_s"`
	Samples   []SyncSample `json:"samples" doc:"Oldest first"`
}

// SyncSample is the sync at one moment; rates are of the time since the sample before.
type SyncSample struct {
	Time          time.Time      `json:"time"`
	State         string         `json:"state" enum:"starting,connecting,headers,blocks,synced,stalled"`
	Height        int32          `json:"height"`
	HeaderHeight  int32          `json:"header_height"`
	BlocksPerS    float64        `json:"blocks_per_s"`
	BytesPerS     float64        `json:"bytes_per_s" doc:"Received from peers"`
	InFlight      int            `json:"in_flight" doc:"Requests"`
	InFlightBytes int64          `json:"in_flight_bytes"`
	BufferedBytes int64          `json:"buffered_bytes"`
	Peers         []PeerInFlight `json:"peers" doc:"Those that are asked for blocks, at most 16, most first"`
}

// PeerInFlight is how many requests wait for a peer's answer.
type PeerInFlight struct {
	ID       string `json:"id"`
	InFlight int    `json:"in_flight"`
}

// MinerHistory is the miner over time.
type MinerHistory struct {
	IntervalS         float64       `json:"interval_s"`
	Samples           []MinerSample `json:"samples" doc:"Oldest first"`
	NetworkHashesPerS float64       `json:"network_hashes_per_s" doc:"By the work of the last 120 blocks and their times; 0 where stake makes them"`
}

// MinerSample is the miner at one moment.
type MinerSample struct {
	Time       time.Time `json:"time"`
	HashesPerS float64   `json:"hashes_per_s" doc:"Since the sample before"`
	Running    bool      `json:"running"`
	Blocks     int       `json:"blocks" doc:"Made since the start"`
}

// A Watcher is what the event streams are made of, and the log.
type Watcher interface {
	// Path tells how the chain went from one tip to another; both lists of hashes have at
	// most most.
	Path(from, to string, most int) (Path, error)
	// MempoolNews is the mempool with what was added behind a number, and the number of
	// the last that was. The greatest number is behind all.
	MempoolNews(after uint64) (MempoolEvent, uint64)
	// LogRecords returns up to most lines of the log behind a number, oldest first. The
	// greatest number is behind all.
	LogRecords(after uint64, most int) LogBatch
	// LogLevels tells the least levels that are logged. SetLogLevel changes that of a
	// subsystem, or with "" the default; level "default" takes a subsystem's own away.
	// *Error 422: an unknown subsystem or level.
	LogLevels() LogLevels
	SetLogLevel(subsystem, level string) error
}

// A Path leads from one tip to another.
type Path struct {
	ReorgEvent

	Blocks int // connected ones, also those that Connected leaves out
}

// A LogBatch is a part of the log.
type LogBatch struct {
	Records []LogRecord
	Last    uint64          // number to go on behind
	Dropped uint64          // lines that were too many to be kept, since the start
	Changed <-chan struct{} // closed when there is another line
}

// LogRecord is a line of the log. Long values are cut.
type LogRecord struct {
	Seq       uint64    `json:"seq"`
	Time      time.Time `json:"time"`
	Level     string    `json:"level" enum:"debug,info,warn,error"`
	Subsystem string    `json:"subsystem"`
	Message   string    `json:"message"`
	Text      string    `json:"text" doc:"The line as people read it, without time and level"`
	Attrs     []LogAttr `json:"attrs"`
}

// LogAttr is a value of a [LogRecord].
type LogAttr struct {
	Key   string `json:"key"`
	Value string `json:"value"`
}

// LogRecords is what GET /api/v1/log/records gives.
type LogRecords struct {
	Records []LogRecord `json:"records" doc:"Oldest first"`
	Last    uint64      `json:"last" doc:"To ask for what comes after"`
	Dropped uint64      `json:"dropped" doc:"Lines that were too many in a second to be kept, since the start; those that are too old do not count"`
}

// LogLevels is what GET /api/v1/log/level gives.
type LogLevels struct {
	Level      string           `json:"level" enum:"debug,info,warn,error" doc:"The default"`
	Levels     []SubsystemLevel `json:"levels" doc:"Of subsystems that have their own, by name"`
	Subsystems []string         `json:"subsystems" doc:"Those that have logged, by name"`
}

// SubsystemLevel is the least level of a subsystem that is logged.
type SubsystemLevel struct {
	Subsystem string `json:"subsystem"`
	Level     string `json:"level" enum:"debug,info,warn,error"`
}
