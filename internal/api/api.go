// Package api is the node's HTTP interface: the versioned JSON routes under
// /api/v1 with their OpenAPI document, the probes and metrics, the simple routes
// of the tutorials (/blocks, /mineBlock, /peers, /addPeer, /ws), and the client
// that the command line uses.
//
// It holds no state of the chain: everything comes from a [Node], which the
// wiring implements. It answers before there is one: status says "starting",
// the rest 503.
//
// Invariants: nothing that changes the node runs without the token, unless the
// server is open, which only test networks on loopback may be; no page of a
// foreign site and no rebound DNS name reaches a handler; what a caller may send
// or leave unread is bounded.
package api

import (
	"context"
	"fmt"
	"time"
)

// A Node is what the server shows and drives. All methods are safe for
// concurrent use. Those without a context answer at once. An error that is the
// caller's to know is an [*Error]; any other is logged and becomes a bare 500.
type Node interface {
	Explorer
	Watcher

	// Status is the present state. UptimeS is filled in by the server.
	Status() Status
	// Sync is the present state of the sync in full; Status has the gist of it.
	Sync() Sync
	// Addrs lists the full multiaddrs under which others join this node, best first.
	Addrs() []string
	// JoinLine is the command with which another machine joins; empty if this node does not listen.
	JoinLine() string
	// Reachability tells where the node can be reached.
	Reachability() Reachability
	// Peers lists the connected peers, sorted by id.
	Peers() []Peer
	// Tip returns the validated tip and a channel that is closed at its next change.
	Tip() (height int32, hash string, changed <-chan struct{})
	// BlockAt returns the block at a height of the active chain; *Error 404 if none.
	BlockAt(ctx context.Context, height int32) (Block, error)
	// BlockByHash returns any block whose bytes are on disk; *Error 404 if none.
	BlockByHash(ctx context.Context, hash string) (Block, error)
	// RawBlock returns the stored bytes (header ‖ seal ‖ transactions); *Error 404 if none.
	RawBlock(ctx context.Context, hash string) ([]byte, error)
	// Tips lists the leaves of the header tree, the active one first.
	Tips() []ChainTip

	// MineBlock makes one block that carries data and returns it once it is
	// durable. It ends with ctx. *Error 4xx: data too long, or this node cannot
	// make blocks of its network.
	MineBlock(ctx context.Context, data string) (Block, error)
	// Miner tells what the miner does; StartMiner and StopMiner switch it.
	Miner() MinerStatus
	StartMiner() error
	StopMiner() error
	// Staking tells how blocks are made by stake, with the last so many; *Error 409 on
	// networks of work. StartStaking and StopStaking switch it.
	Staking(history int) (Staking, error)
	StartStaking() error
	StopStaking() error

	// AddPeer keeps a multiaddr that ends in a peer id, over restarts, and dials
	// it in the background. Adding one twice is no error.
	AddPeer(addr string) error
	// RemovePeer forgets a peer that was added; it stays connected if it is. *Error 404: it was not added.
	RemovePeer(id string) error
	// Disconnect ends the connections of a peer, which may come again. *Error 404: it is not connected.
	Disconnect(id string) error
	// AddedPeers lists the full multiaddrs of the peers that were added, sorted.
	AddedPeers() []string
	// Book lists the peers that the node knows, those that answered first; with proven only these. ImportBook notes the peers
	// of a list as dunlin peers export writes it, or of full multiaddrs. *Error 4xx: too large.
	Book(proven bool) []BookPeer
	ImportBook(list string) (BookImport, error)
	// Bans lists the bans in force; Ban adds one (target: a peer id, an IP address or a CIDR) and ends the
	// connections that it concerns; Unban lifts one, *Error 404 if there is none.
	Bans() []Ban
	Ban(target string, how time.Duration, reason string) (Ban, error)
	Unban(target string) error
	// SubmitBlock hands a block in and waits for its verdict. *Error 4xx: refused.
	SubmitBlock(ctx context.Context, raw []byte) (SubmittedBlock, error)
	// Invalidate takes a block and all that builds on it out of the chain, over
	// restarts; Reconsider takes that back. They return when the tip has moved.
	// *Error 4xx: unknown, genesis, or too deep in a pruned chain.
	Invalidate(ctx context.Context, hash string) error
	Reconsider(ctx context.Context, hash string) error
	// AcceptReorg lets the chain go over to a branch that it refuses for its depth, named
	// by one of its blocks as Tips shows it, over restarts. *Error 4xx: unknown, or not refused.
	AcceptReorg(ctx context.Context, hash string) error
	// SubmitTx hands a transaction in and returns its id; others are told of it in
	// the background, when there are any. *Error 4xx: refused.
	SubmitTx(ctx context.Context, raw []byte) (txid string, err error)
	// Tx tells what is known of a transaction; *Error 404 if nothing.
	Tx(ctx context.Context, txid string) (Tx, error)
	// Mempool describes the pool of unconfirmed transactions.
	Mempool() Mempool
	// LostTxs lists, by age, what was lost after number after: transactions that
	// were in a block and are not any more, or that a block made impossible. last
	// is the number of the last; the channel is closed when there is another.
	LostTxs(after uint64) (txs []Tx, last uint64, changed <-chan struct{})

	// Wallet shows and drives the node's wallet, whether there is one or not.
	Wallet() Wallet

	// Stop asks the node to stop; it does not wait.
	Stop()
}

// An Error is a fault that the caller is told about.
type Error struct {
	Status int    // HTTP
	Reason string // lower case, no full stop
}

func (e *Error) Error() string { return e.Reason }

// Errorf makes an [*Error].
func Errorf(status int, format string, args ...any) *Error {
	return &Error{Status: status, Reason: fmt.Sprintf(format, args...)}
}

// Sync states of [SyncStatus].
const (
	StateStarting   = "starting"
	StateConnecting = "connecting"
	StateHeaders    = "headers"
	StateBlocks     = "blocks"
	StateSynced     = "synced"
	StateStalled    = "stalled"
)

// Status is what `dunlin status -o json` and GET /api/v1/status show, and what
// the log's progress line is made from. Hashes are RPC (reversed) hex.
type Status struct {
	Network      string        `json:"network" doc:"Name of the network"`
	ChainID      string        `json:"chain_id" doc:"Name and first 8 hex digits of the genesis hash"`
	Genesis      string        `json:"genesis" doc:"Hash of the genesis block"`
	PeerID       string        `json:"peer_id" doc:"libp2p id of this node"`
	Agent        string        `json:"agent" doc:"Software and version"`
	Height       int32         `json:"height" doc:"Height of the validated tip"`
	HeaderHeight int32         `json:"header_height" doc:"Height of the best header"`
	TargetHeight int32         `json:"target_height" doc:"Greatest height told by a peer or known"`
	TipHash      string        `json:"tip_hash" doc:"Hash of the validated tip"`
	TipTime      time.Time     `json:"tip_time" doc:"Header time of the validated tip"`
	Work         string        `json:"work" doc:"Cumulative work of the validated tip, hex"`
	Sync         SyncStatus    `json:"sync"`
	Peers        PeerCounts    `json:"peers"`
	Mempool      MempoolStatus `json:"mempool"`
	UptimeS      float64       `json:"uptime_s" doc:"Seconds since the interface was opened"`
	Gossip       GossipStatus  `json:"gossip"`
	// Staking is missing where work makes the blocks.
	Staking *StakingSummary `json:"staking,omitempty" doc:"Missing where work makes the blocks"`
	Slots   *Slots          `json:"slots,omitempty" doc:"Where stake makes blocks: its time; missing where work does"`
}

// SyncStatus is how far the node is behind, and how fast it catches up.
type SyncStatus struct {
	State         string   `json:"state" enum:"starting,connecting,headers,blocks,synced,stalled"`
	Percent       float64  `json:"percent" doc:"0 to 100"`
	BlocksPerS    float64  `json:"blocks_per_s"`
	BytesPerS     float64  `json:"bytes_per_s"`
	ETAS          *float64 `json:"eta_s" doc:"Seconds until synced; null while unknown"`
	BehindS       float64  `json:"behind_s" doc:"Seconds between the tip's time and the target's"`
	InFlight      int      `json:"in_flight" doc:"Requests that wait for an answer"`
	InFlightLimit int      `json:"in_flight_limit"`
	Reason        string   `json:"reason" doc:"Why the state is what it is; empty when there is nothing to say"`
}

// Sync is what `dunlin sync status -o json` and GET /api/v1/sync show: the sync of
// [Status] and what else is known of it.
type Sync struct {
	SyncStatus
	Height        int32     `json:"height" doc:"Height of the validated tip"`
	HeaderHeight  int32     `json:"header_height" doc:"Height of the best header"`
	TargetHeight  int32     `json:"target_height" doc:"Greatest height told by a peer or known"`
	Since         time.Time `json:"since" doc:"When the state began"`
	Peers         int       `json:"peers" doc:"Greeted"`
	Serving       int       `json:"serving" doc:"Peers that are asked for blocks now"`
	InFlightBytes int64     `json:"in_flight_bytes" doc:"Promised by peers and not here yet"`
	BufferedBytes int64     `json:"buffered_bytes" doc:"Received and not yet validated"`
	ByteLimit     int64     `json:"byte_limit" doc:"Of both together"`
	Stalls        int       `json:"stalls" doc:"Blocks that came late in this sync"`
	LastStall     *Stall    `json:"last_stall" doc:"The last of them; null if there was none"`
}

// Stall is a block that came late.
type Stall struct {
	At      time.Time `json:"at"`
	WaitedS float64   `json:"waited_s" doc:"When it was noticed"`
	Height  int32     `json:"height" doc:"Of the block"`
	Holder  string    `json:"holder" doc:"Peer that held it up"`
	Asked   string    `json:"asked" doc:"Peer that was asked instead or too; empty if nobody else could be"`
	Attempt int       `json:"attempt" doc:"Requests for the block, with the first"`
}

// PeerCounts counts connected peers by direction.
type PeerCounts struct {
	Inbound  int `json:"inbound"`
	Outbound int `json:"outbound"`
}

// GossipStatus is how blocks and transactions reach the node, and how fast.
type GossipStatus struct {
	BlockPeers int `json:"block_peers" doc:"On the block topic"`
	BlockMesh  int `json:"block_mesh" doc:"Of them neighbours, who send whole messages"`
	TxPeers    int `json:"tx_peers"`
	TxMesh     int `json:"tx_mesh"`

	Compact     uint64  `json:"compact" doc:"Blocks put together from compact ones since the start"`
	NotPulled   uint64  `json:"not_pulled" doc:"Of them without asking anybody for a transaction"`
	Whole       uint64  `json:"whole" doc:"Blocks that came whole"`
	Fetched     uint64  `json:"fetched" doc:"Blocks asked for whole, for the compact one could not be put together"`
	GivenUp     uint64  `json:"given_up" doc:"Compact blocks left to sync"`
	HitPercent  float64 `json:"hit_percent" doc:"Of the transactions of compact blocks, those that were here or in the message"`
	PulledTxs   uint64  `json:"pulled_txs" doc:"Transactions of blocks that were asked for"`
	PulledBytes uint64  `json:"pulled_bytes"`
	Duplicates  uint64  `json:"duplicates" doc:"Copies of block messages that were here"`
	Rejected    uint64  `json:"rejected" doc:"Block messages refused by fault of their sender"`
	// Of the latest block that gossip brought; zero if it brought none.
	DelayS      float64 `json:"delay_s" doc:"From the time in the latest block's header until it was complete here"`
	CompletionS float64 `json:"completion_s" doc:"From its first message until it was complete"`
}

// MempoolStatus is the size of the pool of unconfirmed transactions.
type MempoolStatus struct {
	Count int   `json:"count"`
	Bytes int64 `json:"bytes"`
}

// Mempool is what GET /api/v1/mempool and `dunlin mempool` show.
type Mempool struct {
	Count           int       `json:"count" doc:"Transactions"`
	VBytes          int64     `json:"vbytes" doc:"Virtual bytes of all"`
	Bytes           int64     `json:"bytes" doc:"Memory that they take"`
	MaxBytes        int64     `json:"max_bytes" doc:"Memory that they may take; the worst paid go first"`
	MinFeeRate      int64     `json:"min_fee_rate" doc:"Satoshi for 1000 virtual bytes that let a transaction in now"`
	PeersMinFeeRate int64     `json:"peers_min_fee_rate" doc:"Least that any peer takes; what pays less is not passed on; 0: a peer does not say, or there is none"`
	Unsent          int       `json:"unsent" doc:"Transactions that others are still to be told of"`
	Orphans         int       `json:"orphans" doc:"Transactions kept whose inputs are unknown"`
	OrphanBytes     int64     `json:"orphan_bytes"`
	Lost            uint64    `json:"lost" doc:"Transactions lost to a double spend in a block, or to a reorganisation"`
	Listed          uint64    `json:"listed" doc:"Transactions read in the lists of peers' mempools"`
	Pulled          uint64    `json:"pulled" doc:"Of those, the ones that gossip had not brought and that were accepted"`
	Gossip          TopicFlow `json:"gossip" doc:"Messages of the transaction topic since the start"`
}

// TopicFlow is what became of the messages of a gossip topic.
type TopicFlow struct {
	Peers      int               `json:"peers"`
	Mesh       int               `json:"mesh" doc:"Neighbours among them"`
	Accepted   uint64            `json:"accepted" doc:"New ones that were passed on"`
	Ignored    map[string]uint64 `json:"ignored" doc:"By reason; nobody is at fault"`
	Rejected   map[string]uint64 `json:"rejected" doc:"By reason; the sender is at fault"`
	Duplicates uint64            `json:"duplicates"`
	Throttled  uint64            `json:"throttled" doc:"Lost because too many waited to be checked"`
	Dropped    uint64            `json:"dropped" doc:"Copies lost because the queue to a peer was full"`
	Published  uint64            `json:"published"`
}

// A BookPeer is a peer of the address book.
type BookPeer struct {
	Addrs    []string `json:"addrs" doc:"Full multiaddrs, best first"`
	Record   []byte   `json:"record,omitempty" doc:"Signed peer record, base64, if the peer gave one"`
	Answered int64    `json:"answered,omitempty" doc:"Unix seconds of its last answer; missing: it was only heard of"`
}

// BookImport says what became of the lines of an import.
type BookImport struct {
	Peers   int      `json:"peers" doc:"Read"`
	Added   int      `json:"added" doc:"That the book did not know"`
	Known   int      `json:"known" doc:"That it did"`
	NoPlace int      `json:"no_place" doc:"That found no place in the book"`
	Damaged int      `json:"damaged" doc:"Lines that were passed over"`
	Faults  []string `json:"faults" doc:"What is wrong with the first of them"`
}

// Reachability is what GET /api/v1/reachability shows: where the node can be reached, as far as it knows. Addresses
// are multiaddrs without the peer id.
type Reachability struct {
	Verdict     string     `json:"verdict" enum:"local,announced,checking,reachable,unreachable" doc:"local: a private network, nobody is asked; announced: as set, not checked"`
	Reason      string     `json:"reason" doc:"Why others cannot connect; empty if they can, or if nobody knows"`
	Do          string     `json:"do" doc:"What an operator can do about it"`
	Listen      []string   `json:"listen" doc:"Sockets"`
	Announced   []string   `json:"announced" doc:"Told to others"`
	Observed    []Observed `json:"observed" doc:"How others see this node"`
	Confirmed   []string   `json:"confirmed" doc:"Public ones that others have connected to"`
	Unreachable []string   `json:"unreachable" doc:"Public ones that they could not connect to"`
	Unchecked   []string   `json:"unchecked" doc:"Public ones of which nothing is known yet"`
	Mapped      []string   `json:"mapped" doc:"Ports of the router that lead here"`
	Relays      []string   `json:"relays" doc:"Ways here through relays"`
	NAT         string     `json:"nat" doc:"State of the port mapping"`
	Inbound     int        `json:"inbound" doc:"Connections that others made, not through a relay"`
	Relaying    bool       `json:"relaying" doc:"This node relays for others"`
}

// Observed is an address at which others see the node.
type Observed struct {
	Addr string `json:"addr"`
	By   int    `json:"by" doc:"Groups of peers that said so"`
}

// A Peer is a connected peer.
type Peer struct {
	ID       string    `json:"id"`
	Addr     string    `json:"addr" doc:"Multiaddr of the other end"`
	Endpoint string    `json:"endpoint" doc:"ip:port of the other end"`
	Group    string    `json:"group" doc:"IP group of that address, about what one operator controls: /16 of IPv4, /32 of IPv6; empty if it has none"`
	Inbound  bool      `json:"inbound"`
	Agent    string    `json:"agent"`
	Ready    bool      `json:"ready" doc:"Greeted: it is on our chain"`
	Height   int32     `json:"height" doc:"Of the best header that it has shown, and whose work is known here; -1 none"`
	TipHash  string    `json:"tip_hash" doc:"Of that header"`
	Work     string    `json:"work" doc:"Of that header, cumulative, hex"`
	Claimed  PeerClaim `json:"claimed" doc:"Its tip, as it says itself; nothing of it is checked"`
	RTTMS    float64   `json:"rtt_ms" doc:"Smallest round trip seen; 0 unknown"`
	Since    time.Time `json:"since"`
	BytesIn  int64     `json:"bytes_in"`
	BytesOut int64     `json:"bytes_out"`
	InFlight int       `json:"in_flight" doc:"Requests that wait for its answer"`
	Score    float64   `json:"score" doc:"Gossip score, at most 5 s old; 10 is that of a newcomer"`
	Standing string    `json:"standing" doc:"What the score means: good, pruned, no gossip, no publish, graylisted; empty: not known yet"`
	Reasons  []string  `json:"reasons,omitempty" doc:"What lowers its score"`
}

// A PeerClaim is what a peer says of its tip.
type PeerClaim struct {
	Height  int32  `json:"height" doc:"-1 unknown"`
	TipHash string `json:"tip_hash"`
	Work    string `json:"work" doc:"Cumulative, hex"`
}

// A Ban keeps a peer or addresses away, both ways, over restarts.
type Ban struct {
	Target string    `json:"target" doc:"Peer id, IP address or CIDR"`
	Reason string    `json:"reason"`
	Since  time.Time `json:"since"`
	Until  time.Time `json:"until"`
	Auto   bool      `json:"auto,omitempty" doc:"By the node itself, not by the operator: forgotten when it stops"`
}

// A Block describes a block. Data and CoinbaseText are valid UTF-8.
type Block struct {
	Height       int32     `json:"height" doc:"-1 if it is on no known branch"`
	Hash         string    `json:"hash"`
	PreviousHash string    `json:"previous_hash"`
	MerkleRoot   string    `json:"merkle_root"`
	Time         time.Time `json:"time"`
	Version      int32     `json:"version"`
	Bits         string    `json:"bits" doc:"Compact difficulty, 8 hex digits"`
	Nonce        uint32    `json:"nonce"`
	Work         string    `json:"work,omitempty" doc:"Cumulative, hex, if known"`
	Active       bool      `json:"active" doc:"On the active chain"`
	Txs          int       `json:"txs"`
	Size         int       `json:"size" doc:"Bytes as stored"`
	Weight       int       `json:"weight"`
	Data         string    `json:"data" doc:"Text of the coinbase's OP_RETURN output"`
	CoinbaseText string    `json:"coinbase_text" doc:"Readable part of the coinbase script"`
	BySlot
}

// States of a [Tx]. A transaction that was dropped is in one of the last five.
const (
	TxInMempool  = "mempool"    // waits to be mined
	TxConfirmed  = "confirmed"  // in a block, with an output that is not spent yet
	TxConflicted = "conflicted" // a block has another transaction that spends the same output
	TxInvalid    = "invalid"    // a reorganisation made it invalid otherwise
	TxReplaced   = "replaced"   // another one that spends the same output took its place in the mempool
	TxEvicted    = "evicted"    // the mempool was full of better paying ones
	TxExpired    = "expired"    // it was not mined in time
)

// A Tx is what the node knows of a transaction. Of dropped ones it remembers the
// last few thousand.
type Tx struct {
	TxID          string    `json:"txid"`
	Status        string    `json:"status" enum:"mempool,confirmed,conflicted,invalid,replaced,evicted,expired"`
	Rule          string    `json:"rule,omitempty" doc:"Of invalid and evicted: the rule that it breaks"`
	Time          time.Time `json:"time,omitzero" doc:"Of mempool: when it came; of a dropped one: when that was"`
	Fee           int64     `json:"fee,omitempty" doc:"Satoshi; of mempool"`
	VSize         int       `json:"vsize,omitempty" doc:"Virtual bytes; of mempool"`
	Parents       []string  `json:"parents,omitempty" doc:"Unconfirmed transactions that it spends from"`
	BlockHash     string    `json:"block_hash,omitempty" doc:"Of confirmed: the block that has it; of conflicted: that has spent_by"`
	Height        int32     `json:"height" doc:"Of block_hash; -1 if there is none"`
	Confirmations int32     `json:"confirmations" doc:"Blocks from block_hash to the tip; 0 if it is on no active chain"`
	SpentBy       string    `json:"spent_by,omitempty" doc:"Of conflicted and replaced: the transaction that spends the same output"`
	Via           string    `json:"via,omitempty" doc:"The ancestor that spends that output, if it is not the transaction itself"`
	WasBlock      string    `json:"was_block,omitempty" doc:"The block that had it until a reorganisation"`
	WasHeight     int32     `json:"was_height" doc:"Of was_block; -1 if there is none"`
}

// A ChainTip is a leaf of the header tree.
type ChainTip struct {
	Height int32  `json:"height"`
	Hash   string `json:"hash"`
	Branch int32  `json:"branch_len" doc:"Blocks since the fork from the active chain"`
	Status string `json:"status" enum:"active,valid-fork,valid-headers,headers-only,invalid,refused" doc:"refused: claims more work, but leaves the chain deeper than the network's max_reorg"`
	Work   string `json:"work" doc:"Cumulative, hex"`
}

// MinerStatus tells what the miner does.
type MinerStatus struct {
	Running bool   `json:"running"`
	Address string `json:"address" doc:"That new blocks pay; empty: that of the stake that wins"`
	Blocks  int    `json:"blocks" doc:"Made since the start"`
	Reason  string `json:"reason" doc:"Why it waits; empty if it does not"`
}

// SubmittedBlock is the verdict on a submitted block.
type SubmittedBlock struct {
	Hash    string `json:"hash"`
	Height  int32  `json:"height"`
	Outcome string `json:"outcome" doc:"connected, side-chain, stored or duplicate"`
}

// simpleBlock is a block as the tutorials have it. The order of the keys is part
// of it.
type simpleBlock struct {
	Index        int32  `json:"index"`
	Hash         string `json:"hash"`
	PreviousHash string `json:"previous_hash"`
	Timestamp    int64  `json:"timestamp"` // Unix seconds
	Data         string `json:"data"`
	// Validator is missing where work makes blocks, and empty of a genesis of stake.
	Validator *string `json:"validator,omitempty"`
}

func simple(b Block) simpleBlock {
	s := simpleBlock{
		Index: b.Height, Hash: b.Hash, PreviousHash: b.PreviousHash,
		Timestamp: b.Time.Unix(), Data: b.Data, Validator: b.Validator,
	}
	if b.Height == 0 && s.Data == "" {
		s.Data = b.CoinbaseText
	}
	return s
}
