package api

import (
	"context"
	"net/http"
	"strconv"

	"github.com/danielgtaylor/huma/v2"
)

// show registers a route that asks the node; its errors become problems.
func show[In, Out any](s *Server, api huma.API, op huma.Operation, f func(context.Context, Node, *In) (Out, error)) {
	huma.Register(api, op, func(ctx context.Context, in *In) (*body[Out], error) {
		out, err := f(ctx, s.theNode(), in)
		if err != nil {
			return nil, s.problem(op.OperationID, err)
		}
		return answer(out), nil
	})
}

// badCursor is the answer to a cursor that no page gave.
func badCursor(cursor string) *Error {
	return Errorf(http.StatusUnprocessableEntity, "cursor %q: no page gave it", clip(cursor))
}

// routesExplorer registers what explorers and dashboards read.
func (s *Server) routesExplorer(api huma.API, read func(id, path, summary string) huma.Operation) {
	show(s, api, read("chain-recent", "/chain/recent", "Blocks of the active chain, newest first, with what they paid"),
		func(ctx context.Context, n Node, in *struct {
			Limit  int    `query:"limit" minimum:"1" maximum:"100" default:"25" doc:"Items in the answer, at most"`
			Cursor string `query:"cursor" maxLength:"128" doc:"next of the page before"`
		},
		) (RecentBlocks, error) {
			if in.Cursor != "" && !isHash(in.Cursor) {
				return RecentBlocks{}, badCursor(in.Cursor)
			}
			blocks, err := n.Summaries(ctx, in.Cursor, in.Limit)
			out := RecentBlocks{Blocks: orEmpty(blocks)}
			// The cursor is a block: a page goes on where the one before ended, whatever came on top.
			if k := len(blocks); k == in.Limit && blocks[k-1].Height > 0 {
				out.Next = blocks[k-1].PreviousHash
			}
			return out, err
		})
	show(s, api, read("chain-block-details", "/chain/blocks/{id}/details", "All about one block, of any branch"),
		func(ctx context.Context, n Node, in *struct {
			ID string `path:"id" maxLength:"64" doc:"Height on the active chain, or hash" example:"0"`
		},
		) (BlockDetails, error) {
			hash, err := s.blockHash(ctx, in.ID)
			if err != nil {
				return BlockDetails{}, err
			}
			return n.BlockDetails(ctx, hash)
		})
	show(s, api, read("chain-block-txs", "/chain/blocks/{id}/txs", "Transactions of one block"),
		func(ctx context.Context, n Node, in *struct {
			ID     string `path:"id" maxLength:"64" doc:"Height on the active chain, or hash" example:"0"`
			Limit  int    `query:"limit" minimum:"1" maximum:"100" default:"25" doc:"Items in the answer, at most"`
			Cursor string `query:"cursor" maxLength:"128" doc:"next of the page before"`
		},
		) (BlockTxs, error) {
			hash, err := s.blockHash(ctx, in.ID)
			if err != nil {
				return BlockTxs{}, err
			}
			var first uint64
			if in.Cursor != "" {
				if first, err = strconv.ParseUint(in.Cursor, 10, 31); err != nil {
					return BlockTxs{}, badCursor(in.Cursor)
				}
			}
			out, err := n.BlockTxs(ctx, hash, int(first), in.Limit)
			out.Txs = orEmpty(out.Txs)
			if end := int(first) + len(out.Txs); err == nil && len(out.Txs) > 0 && end < out.Total {
				out.Next = strconv.Itoa(end)
			}
			return out, err
		})
	show(s, api, read("chain-tree", "/chain/tree", "Headers of all branches near the tip, to draw forks"),
		func(_ context.Context, n Node, in *struct {
			Depth int `query:"depth" minimum:"1" maximum:"200" default:"20" doc:"Heights below the tip; as many above it are listed too"`
		},
		) (Tree, error) {
			return n.Tree(in.Depth), nil
		})
	show(s, api, read("tx-details", "/tx/{txid}/details", "All about a transaction of the mempool or of the chain"),
		func(ctx context.Context, n Node, in *struct {
			TxID  string `path:"txid" minLength:"64" maxLength:"64" pattern:"^[0-9a-fA-F]{64}$" doc:"RPC (reversed) hex" example:"4a5e1e4baab89f3a32518a88c31bc87f618f76673e2cc77ab2127b7afdeda33b"`
			Block string `query:"block" maxLength:"64" pattern:"^([0-9a-fA-F]{64})?$" doc:"Hash of the block to look in"`
		},
		) (TxDetails, error) {
			return n.TxDetails(ctx, in.TxID, in.Block)
		})
	show(s, api, read("search", "/search", "What a height, hash, transaction id, address or peer id is"),
		func(ctx context.Context, n Node, in *struct {
			Q string `query:"q" required:"true" minLength:"1" maxLength:"128" example:"0"`
		},
		) (SearchAnswer, error) {
			results, err := n.Search(ctx, in.Q)
			return SearchAnswer{Q: in.Q, Results: orEmpty(results)}, err
		})

	s.routesAddress(api, read)

	show(s, api, read("mempool-txs", "/mempool/txs", "Unconfirmed transactions"),
		func(_ context.Context, n Node, in *struct {
			Limit  int    `query:"limit" minimum:"1" maximum:"500" default:"50" doc:"Items in the answer, at most"`
			Cursor string `query:"cursor" maxLength:"128" doc:"next of the page before"`
			Sort   string `query:"sort" enum:"time,fee_rate" default:"time" doc:"Newest first, or best paid first"`
		},
		) (MempoolTxs, error) {
			return n.MempoolTxs(in.Cursor, in.Limit, in.Sort == "fee_rate")
		})
	show(s, api, read("mempool-histogram", "/mempool/histogram", "Unconfirmed transactions by what they pay"),
		func(_ context.Context, n Node, _ *nothing) (FeeHistogram, error) { return n.FeeHistogram(), nil })
	show(s, api, read("fees-estimate", "/fees/estimate", "What to pay to be mined soon"),
		func(_ context.Context, n Node, _ *nothing) (FeeEstimates, error) { return n.FeeEstimates(), nil })

	show(s, api, read("indexes", "/indexes", "How far the optional indexes are"),
		func(_ context.Context, n Node, _ *nothing) (IndexesAnswer, error) {
			return IndexesAnswer{orEmpty(n.Indexes())}, nil
		})
	show(s, api, read("storage", "/storage", "What is on disk"),
		func(_ context.Context, n Node, _ *nothing) (Storage, error) { return n.Storage() })
	show(s, api, read("discovery", "/discovery", "Where peers came from, and what became of them"),
		func(_ context.Context, n Node, _ *nothing) (DiscoveryStats, error) { return n.Discovery(), nil })
	show(s, api, read("gossip", "/gossip", "How blocks and transactions come here, and how fast"),
		func(_ context.Context, n Node, _ *nothing) (GossipStats, error) { return n.Gossip(), nil })
	show(s, api, read("sync-history", "/sync/history", "The sync of the last half hour"),
		func(_ context.Context, n Node, _ *nothing) (SyncHistory, error) { return n.SyncHistory(), nil })
	show(s, api, read("miner-history", "/miner/history", "The miner of the last half hour"),
		func(_ context.Context, n Node, _ *nothing) (MinerHistory, error) { return n.MinerHistory(), nil })
}

// routesAddress registers what needs the address index.
func (s *Server) routesAddress(api huma.API, read func(id, path, summary string) huma.Operation) {
	show(s, api, read("address", "/address/{address}", "What happened to an address; needs storage.address_index"),
		func(ctx context.Context, n Node, in *struct {
			Address string `path:"address" maxLength:"128" doc:"Address of the node's network" example:"1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa"`
		},
		) (Address, error) {
			return n.Address(ctx, in.Address)
		})
	show(s, api, read("address-txs", "/address/{address}/txs", "Transactions of an address; needs storage.address_index"),
		func(ctx context.Context, n Node, in *struct {
			Address string `path:"address" maxLength:"128" doc:"Address of the node's network" example:"1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa"`
			Limit   int    `query:"limit" minimum:"1" maximum:"100" default:"25" doc:"Items in the answer, at most"`
			Cursor  string `query:"cursor" maxLength:"128" doc:"next of the page before"`
		},
		) (AddressTxs, error) {
			out, err := n.AddressTxs(ctx, in.Address, in.Cursor, in.Limit)
			out.Txs = orEmpty(out.Txs)
			return out, err
		})
	show(s, api, read("address-utxos", "/address/{address}/utxos", "Unspent outputs of an address; needs storage.address_index"),
		func(ctx context.Context, n Node, in *struct {
			Address string `path:"address" maxLength:"128" doc:"Address of the node's network" example:"1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa"`
			Limit   int    `query:"limit" minimum:"1" maximum:"100" default:"25" doc:"After how many the page ends; the outputs of one transaction stay together"`
			Cursor  string `query:"cursor" maxLength:"128" doc:"next of the page before"`
		},
		) (AddressCoins, error) {
			out, err := n.AddressCoins(ctx, in.Address, in.Cursor, in.Limit)
			out.UTXOs = orEmpty(out.UTXOs)
			return out, err
		})
}

// blockHash is the hash of a block that is named by height or hash.
func (s *Server) blockHash(ctx context.Context, id string) (string, error) {
	if isHash(id) {
		return id, nil
	}
	b, err := s.block(ctx, id)
	return b.Hash, err
}

func isHash(s string) bool {
	if len(s) != 64 {
		return false
	}
	for _, c := range []byte(s) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') && (c < 'A' || c > 'F') {
			return false
		}
	}
	return true
}
