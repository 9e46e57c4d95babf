package exchange

import (
	"strings"

	"github.com/libp2p/go-libp2p/core/protocol"
)

// Version is the version of the hello message that this package speaks.
const Version = 1

// Limits of the wire. They are part of the protocol: docs/protocol.md.
const (
	maxHelloBytes     = 1024      // one message on a hello stream
	maxAgentBytes     = 64        // of an agent string, after sanitising
	maxReasonBytes    = 128       // of the text of a bye, after sanitising
	maxWorkBytes      = 32        // big-endian cumulative work
	MaxLocator        = 64        // hashes in a locator
	MaxHeaders        = 2000      // headers in one reply
	maxHeadersRequest = 4096      // bytes of a headers request: 64 × 34 and change
	maxHeadersReply   = 512       // bytes of the message before the raw headers
	MaxBlocksRequest  = 128       // blocks in one request
	MaxServedRequests = 16        // block requests a peer may have outstanding here
	MaxReplyBytes     = 16 << 20  // most bytes that one reply of blocks carries
	maxBlocksRequest  = 8 << 10   // bytes of a blocks request: 128 × 34 and change
	maxFrameHeader    = 64        // bytes of the message before a raw block
	MaxTxIndexes      = 20_000    // indexes in one txs request
	MaxTxIDs          = 256       // mempool ids in one txs request
	MaxListItems      = 3000      // transactions in one list of a mempool
	maxTxsRequest     = 128 << 10 // bytes of a txs request
	maxTxsReply       = 128 << 10 // bytes of the message before the raw transactions
	maxChunkBytes     = 64 << 10  // most bytes moved under one deadline
)

// Prefix is what every protocol id of a chain begins with.
func Prefix(chainID string) string { return "/dunlin/" + chainID }

// HelloID is the id of the hello protocol of a chain.
func HelloID(chainID string) protocol.ID { return protocol.ID(Prefix(chainID) + "/hello/1") }

// HeadersID is the id of the headers protocol of a chain.
func HeadersID(chainID string) protocol.ID { return protocol.ID(Prefix(chainID) + "/headers/1") }

// BlocksID is the id of the blocks protocol of a chain.
func BlocksID(chainID string) protocol.ID { return protocol.ID(Prefix(chainID) + "/blocks/1") }

// TxsID is the id of the txs protocol of a chain.
func TxsID(chainID string) protocol.ID { return protocol.ID(Prefix(chainID) + "/txs/1") }

// isHello reports whether id is the hello protocol of any chain. The hello of
// another chain is answered, so that both ends learn why they part.
func isHello(id protocol.ID) bool {
	rest, ok := strings.CutPrefix(string(id), "/dunlin/")
	if !ok || len(rest) > 128 {
		return false
	}
	c, ok := strings.CutSuffix(rest, "/hello/1")
	return ok && c != "" && !strings.Contains(c, "/")
}

// A StreamLimit bounds the streams of one protocol that others may have open here.
type StreamLimit struct {
	PerPeer int   // inbound streams of one peer
	Total   int   // inbound streams of all peers together
	Memory  int64 // bytes that the streams of one peer may reserve
}

// Limits is the table of stream limits by protocol, for the resource manager.
// The handlers of this package enforce PerPeer themselves as well.
func Limits(chainID string) map[protocol.ID]StreamLimit {
	return map[protocol.ID]StreamLimit{
		HelloID(chainID):   {PerPeer: 3, Total: 1024, Memory: 1 << 20},
		HeadersID(chainID): {PerPeer: 2, Total: 256, Memory: 2 << 20},
		// Two, so that a client whose stream broke may open the next before the
		// first is gone here: the newer one supplants the older.
		BlocksID(chainID): {PerPeer: 2, Total: 512, Memory: 40 << 20},
		TxsID(chainID):    {PerPeer: 6, Total: 256, Memory: 8 << 20},
	}
}
