package node

import (
	"context"
	"net/http"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/wire/v2"
	"github.com/libp2p/go-libp2p/core/peer"

	"dunlin/chain"
	"dunlin/chain/consensus"
	"dunlin/chain/index"
	"dunlin/internal/api"
	"dunlin/internal/jsonrpc"
)

// rpcFace is what the JSON-RPC sees of the node: the API's face, with verdicts in
// place of texts.
type rpcFace struct{ face }

func (n *Node) openRPC() (http.Handler, error) {
	return jsonrpc.New(jsonrpc.Options{
		Chain: n.chain, Engine: n.engine, Pool: n.pool, Miner: n.miner, Node: rpcFace{face{n}}, Wallet: n.wallet,
		Agent: n.agent, Warnings: n.warnings, Logger: n.log.With("subsystem", "rpc"),
	})
}

// warnings are what the operator should know.
func (n *Node) warnings() []string {
	if n.chain.LowDisk() {
		return []string{lowDiskReason}
	}
	return nil
}

// SubmitBlock implements jsonrpc.Node.
func (f rpcFace) SubmitBlock(ctx context.Context, raw []byte) (chain.Verdict, error) {
	if b, err := consensus.DecodeBlock(f.params, raw); err == nil { // else the chain says what is wrong
		f.blocks.Prepare(b)
	}
	ticket, err := f.chain.Submit(ctx, raw, chain.Source{Kind: chain.FromRPC})
	if err != nil {
		return chain.Verdict{}, err
	}
	v := ticket.Wait(ctx)
	if v.Outcome == chain.Connected {
		f.blocks.Publish(raw, v.Hash)
	}
	return v, nil
}

// SubmitTx implements jsonrpc.Node.
func (f rpcFace) SubmitTx(ctx context.Context, tx *wire.MsgTx) error {
	_, err := f.pool.Submit(ctx, tx, "")
	if rule, ok := blame(err); ok && rule.Rule == "txn-already-in-mempool" && f.pool.Resend(tx.TxHash()) {
		return nil // whoever asks twice wants it told twice
	}
	return err
}

// Disconnect implements api.Node and jsonrpc.Node.
func (f face) Disconnect(id string) error {
	p, err := peer.Decode(id)
	if err != nil {
		return api.Errorf(http.StatusBadRequest, "peer id %q: %v", id, err)
	}
	if len(f.host.Network().ConnsToPeer(p)) == 0 {
		return api.Errorf(http.StatusNotFound, "no connection to peer %s", id)
	}
	f.log.Info("disconnecting", "peer", p)
	return f.host.Network().ClosePeer(p)
}

// FindTx implements jsonrpc.Node.
func (f rpcFace) FindTx(id chainhash.Hash) (block chainhash.Hash, ok bool, err error) {
	x := f.indexes[index.Txs]
	if x == nil {
		return block, false, nil
	}
	p, ok, err := x.Tx(id)
	return p.Block, ok, err
}
