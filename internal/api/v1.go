package api

import (
	"context"
	"encoding/hex"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
)

// body is the answer of a route: v as JSON.
type body[T any] struct{ Body T }

func answer[T any](v T) *body[T] { return &body[T]{Body: v} }

// Bodies of requests and answers that are not types of their own.
type (
	// BansAnswer is what GET /api/v1/bans gives.
	BansAnswer struct {
		Bans []Ban `json:"bans"`
	}
	// BanRequest is the body of POST /api/v1/bans.
	BanRequest struct {
		Target string  `json:"target" maxLength:"128" doc:"Peer id, IP address or CIDR"`
		ForS   float64 `json:"for_s,omitempty" minimum:"1" default:"86400" doc:"Seconds; a day if it is missing"`
		Reason string  `json:"reason,omitempty" maxLength:"200"`
	}
	// AddedAnswer is what GET /api/v1/peers/added gives.
	AddedAnswer struct {
		Addrs []string `json:"addrs" doc:"Full multiaddrs"`
	}
	// BookAnswer is what GET /api/v1/peers/book gives.
	BookAnswer struct {
		Peers []BookPeer `json:"peers"`
	}
	// BookRequest is the body of POST /api/v1/peers/book.
	BookRequest struct {
		List string `json:"list" maxLength:"8388608" doc:"A line a peer: a full multiaddr, or an object of GET /api/v1/peers/book"`
	}
	// PeersAnswer is what GET /api/v1/peers gives.
	PeersAnswer struct {
		Peers []Peer `json:"peers"`
	}
	// TipsAnswer is what GET /api/v1/chain/tips gives.
	TipsAnswer struct {
		Tips []ChainTip `json:"tips"`
	}
	// BlocksAnswer is what GET /api/v1/chain/blocks gives.
	BlocksAnswer struct {
		Blocks []Block `json:"blocks" doc:"Ascending"`
	}
	// RawBlockAnswer is what GET /api/v1/chain/blocks/{id}/raw gives.
	RawBlockAnswer struct {
		Hex string `json:"hex" doc:"Header, seal and transactions as stored"`
	}
	// TxAnswer is what POST /api/v1/tx gives.
	TxAnswer struct {
		TxID string `json:"txid"`
	}
	// Accepted says that something was started and goes on.
	Accepted struct {
		Status string `json:"status" example:"accepted"`
	}
	// PeerRequest adds a peer.
	PeerRequest struct {
		Addr string `json:"addr" maxLength:"512" doc:"Multiaddr that ends in the node's id"`
	}
	// MineRequest makes a block.
	MineRequest struct {
		Data string `json:"data" doc:"Text for the coinbase's OP_RETURN output; may be empty"`
	}
	// HexRequest hands in a block or a transaction.
	HexRequest struct {
		Hex string `json:"hex"`
	}
	// HashRequest names a block.
	HashRequest struct {
		Hash string `json:"hash" minLength:"64" maxLength:"64" pattern:"^[0-9a-fA-F]{64}$" doc:"RPC (reversed) hex"`
	}
	// TipAnswer is where the chain is after POST /api/v1/chain/invalidate, reconsider or accept-reorg.
	TipAnswer struct {
		Height  int32  `json:"height"`
		TipHash string `json:"tip_hash"`
	}
	// LogLevelRequest is the body of PUT /api/v1/log/level.
	LogLevelRequest struct {
		Subsystem string `json:"subsystem,omitempty" maxLength:"64" doc:"Empty: the default of all" example:"sync"`
		Level     string `json:"level" enum:"debug,info,warn,error,default" doc:"default: a subsystem's own is taken away" example:"debug"`
	}
)

// nothing is the input of a route that takes none.
type nothing struct{}

// routesV1 registers the versioned routes and their OpenAPI document.
func (s *Server) routesV1(mux *router) {
	c := huma.DefaultConfig("dunlin", s.o.Version)
	c.OpenAPIPath = "/api/v1/openapi"
	c.DocsPath, c.SchemasPath = "", "" // the page would load scripts from elsewhere
	c.CreateHooks = nil                // they add a $schema key to every answer
	c.Info.Description = "The node's own interface. Reads from this machine are open; everything else wants the content of api.cookie as a bearer token."
	c.Components.SecuritySchemes = map[string]*huma.SecurityScheme{"cookie": {Type: "http", Scheme: "bearer"}}
	c.Transformers = append(c.Transformers, hideSecrets)
	api := humago.New(mux, c)

	read := func(id, path, summary string) huma.Operation {
		return huma.Operation{
			OperationID: id, Method: http.MethodGet, Path: "/api/v1" + path, Summary: summary,
			RejectUnknownQueryParameters: true,
		}
	}
	write := func(id, method, path, summary string, status int) huma.Operation {
		op := read(id, path, summary)
		op.Method, op.DefaultStatus, op.MaxBodyBytes = method, status, maxBodyBytes
		op.BodyReadTimeout = s.o.ReadTimeout
		op.Security = []map[string][]string{{"cookie": {}}}
		return op
	}

	s.routesDashboard(mux, api, read, write)

	huma.Register(api, read("status", "/status", "State of the node; answers while it starts"),
		func(context.Context, *nothing) (*body[Status], error) { return answer(s.status()), nil })

	huma.Register(api, read("sync", "/sync", "State of the sync in full"),
		func(context.Context, *nothing) (*body[Sync], error) { return answer(s.theNode().Sync()), nil })

	huma.Register(api, read("reachability", "/reachability", "Where the node can be reached"),
		func(context.Context, *nothing) (*body[Reachability], error) {
			return answer(s.theNode().Reachability()), nil
		})

	huma.Register(api, read("peers", "/peers", "Connected peers"),
		func(context.Context, *nothing) (*body[PeersAnswer], error) {
			return answer(PeersAnswer{Peers: orEmpty(s.theNode().Peers())}), nil
		})
	huma.Register(api, write("peers-add", http.MethodPost, "/peers", "Keep and dial a peer", http.StatusAccepted),
		func(_ context.Context, in *body[PeerRequest]) (*body[Accepted], error) {
			if err := CheckPeerAddr(in.Body.Addr); err != nil {
				return nil, huma.NewError(http.StatusUnprocessableEntity, err.Error())
			}
			if err := s.theNode().AddPeer(in.Body.Addr); err != nil {
				return nil, s.problem("peers-add", err)
			}
			return answer(Accepted{Status: "accepted"}), nil
		})

	huma.Register(api, write("peers-remove", http.MethodDelete, "/peers", "Forget a peer that was added", http.StatusNoContent),
		func(_ context.Context, in *struct {
			ID string `query:"id" required:"true" maxLength:"128" doc:"Peer id"`
		},
		) (*struct{}, error) {
			if err := s.theNode().RemovePeer(in.ID); err != nil {
				return nil, s.problem("peers-remove", err)
			}
			return nil, nil //nolint:nilnil // 204
		})
	huma.Register(api, read("peers-added", "/peers/added", "Peers that were added, which are kept over restarts"),
		func(context.Context, *nothing) (*body[AddedAnswer], error) {
			return answer(AddedAnswer{Addrs: orEmpty(s.theNode().AddedPeers())}), nil
		})
	huma.Register(api, read("peers-book", "/peers/book", "Peers that the node knows, those that answered first"),
		func(_ context.Context, in *struct {
			Proven bool `query:"proven" doc:"Only those that answered"`
		},
		) (*body[BookAnswer], error) {
			return answer(BookAnswer{Peers: orEmpty(s.theNode().Book(in.Proven))}), nil
		})
	importBook := write("peers-import", http.MethodPost, "/peers/book", "Note the peers of a list", http.StatusOK)
	importBook.MaxBodyBytes = 2 * maxImportBytes // as the guard has it
	huma.Register(api, importBook, func(_ context.Context, in *body[BookRequest]) (*body[BookImport], error) {
		report, err := s.theNode().ImportBook(in.Body.List)
		if err != nil {
			return nil, s.problem("peers-import", err)
		}
		return answer(report), nil
	})

	huma.Register(api, read("bans", "/bans", "Bans in force, those that end first first"),
		func(context.Context, *nothing) (*body[BansAnswer], error) {
			return answer(BansAnswer{Bans: orEmpty(s.theNode().Bans())}), nil
		})
	huma.Register(api, write("bans-add", http.MethodPost, "/bans", "Keep a peer or addresses away, both ways", http.StatusCreated),
		func(_ context.Context, in *body[BanRequest]) (*body[Ban], error) {
			b, err := s.theNode().Ban(in.Body.Target, time.Duration(in.Body.ForS*float64(time.Second)), in.Body.Reason)
			if err != nil {
				return nil, s.problem("bans-add", err)
			}
			return answer(b), nil
		})
	huma.Register(api, write("bans-lift", http.MethodDelete, "/bans", "Lift a ban", http.StatusNoContent),
		func(_ context.Context, in *struct {
			Target string `query:"target" required:"true" maxLength:"128" doc:"As it was banned"`
		},
		) (*struct{}, error) {
			if err := s.theNode().Unban(in.Target); err != nil {
				return nil, s.problem("bans-lift", err)
			}
			return nil, nil //nolint:nilnil // 204
		})

	huma.Register(api, read("chain-head", "/chain/head", "Block at the validated tip"),
		func(ctx context.Context, _ *nothing) (*body[Block], error) {
			_, hash, _ := s.theNode().Tip()
			b, err := s.theNode().BlockByHash(ctx, hash)
			if err != nil {
				return nil, s.problem("chain-head", err)
			}
			return answer(b), nil
		})
	huma.Register(api, read("chain-tips", "/chain/tips", "Leaves of the header tree, the active one first"),
		func(context.Context, *nothing) (*body[TipsAnswer], error) {
			return answer(TipsAnswer{Tips: orEmpty(s.theNode().Tips())}), nil
		})
	huma.Register(api, read("chain-blocks", "/chain/blocks", "Blocks of the active chain"),
		func(ctx context.Context, in *struct {
			From  int32 `query:"from" minimum:"0" doc:"Height of the first"`
			Count int   `query:"count" minimum:"1" maximum:"1000" default:"100"`
			Last  int   `query:"last" minimum:"0" maximum:"1000" doc:"The last so many, in place of from and count"`
		},
		) (*body[BlocksAnswer], error) {
			from, count := int(in.From), in.Count
			if in.Last > 0 {
				tip, _, _ := s.theNode().Tip()
				from, count = max(0, int(tip)-in.Last+1), in.Last
			}
			out := BlocksAnswer{Blocks: []Block{}}
			if err := s.eachBlock(ctx, from, count, func(b Block) { out.Blocks = append(out.Blocks, b) }); err != nil {
				return nil, s.problem("chain-blocks", err)
			}
			return answer(out), nil
		})
	type blockID struct {
		ID string `path:"id" maxLength:"64" doc:"Height on the active chain, or hash" example:"0"`
	}
	huma.Register(api, read("chain-block", "/chain/blocks/{id}", "One block by height or hash"),
		func(ctx context.Context, in *blockID) (*body[Block], error) {
			b, err := s.block(ctx, in.ID)
			if err != nil {
				return nil, s.problem("chain-block", err)
			}
			return answer(b), nil
		})
	huma.Register(api, read("chain-block-raw", "/chain/blocks/{id}/raw", "Bytes of one block by height or hash"),
		func(ctx context.Context, in *blockID) (*body[RawBlockAnswer], error) {
			b, err := s.block(ctx, in.ID)
			if err != nil {
				return nil, s.problem("chain-block-raw", err)
			}
			raw, err := s.theNode().RawBlock(ctx, b.Hash)
			if err != nil {
				return nil, s.problem("chain-block-raw", err)
			}
			return answer(RawBlockAnswer{Hex: hex.EncodeToString(raw)}), nil
		})
	submit := write("chain-submit", http.MethodPost, "/chain/blocks", "Hand in a block and wait for the verdict", http.StatusOK)
	submit.MaxBodyBytes = s.submitLimit()
	huma.Register(api, submit, func(ctx context.Context, in *body[HexRequest]) (*body[SubmittedBlock], error) {
		raw, err := hex.DecodeString(in.Body.Hex)
		if err != nil {
			return nil, huma.NewError(http.StatusUnprocessableEntity, "hex: "+err.Error())
		}
		out, err := s.theNode().SubmitBlock(ctx, raw)
		if err != nil {
			return nil, s.problem("chain-submit", err)
		}
		return answer(out), nil
	})

	for id, do := range map[string]func(Node, context.Context, string) error{"invalidate": Node.Invalidate, "reconsider": Node.Reconsider, "accept-reorg": Node.AcceptReorg} {
		summary := map[string]string{
			"invalidate":   "Take a block, and all that builds on it, out of the chain",
			"reconsider":   "Take back that a block was found or declared invalid",
			"accept-reorg": "Let the chain go over to a branch that it refuses for its depth",
		}[id]
		huma.Register(api, write("chain-"+id, http.MethodPost, "/chain/"+id, summary, http.StatusOK),
			func(ctx context.Context, in *body[HashRequest]) (*body[TipAnswer], error) {
				if err := do(s.theNode(), ctx, in.Body.Hash); err != nil {
					return nil, s.problem("chain-"+id, err)
				}
				height, hash, _ := s.theNode().Tip()
				return answer(TipAnswer{Height: height, TipHash: hash}), nil
			})
	}

	sendTx := write("tx-submit", http.MethodPost, "/tx", "Hand in a transaction", http.StatusOK)
	sendTx.MaxBodyBytes = s.submitLimit()
	huma.Register(api, sendTx, func(ctx context.Context, in *body[HexRequest]) (*body[TxAnswer], error) {
		raw, err := hex.DecodeString(in.Body.Hex)
		if err != nil {
			return nil, huma.NewError(http.StatusUnprocessableEntity, "hex: "+err.Error())
		}
		id, err := s.theNode().SubmitTx(ctx, raw)
		if err != nil {
			return nil, s.problem("tx-submit", err)
		}
		return answer(TxAnswer{TxID: id}), nil
	})

	huma.Register(api, read("mempool", "/mempool", "The pool of unconfirmed transactions and what fills it"),
		func(context.Context, *nothing) (*body[Mempool], error) { return answer(s.theNode().Mempool()), nil })
	huma.Register(api, read("tx", "/tx/{txid}", "What is known of a transaction: in the mempool, in the chain, or why it is not"),
		func(ctx context.Context, in *struct {
			TxID string `path:"txid" minLength:"64" maxLength:"64" pattern:"^[0-9a-fA-F]{64}$" doc:"RPC (reversed) hex" example:"4a5e1e4baab89f3a32518a88c31bc87f618f76673e2cc77ab2127b7afdeda33b"`
		},
		) (*body[Tx], error) {
			out, err := s.theNode().Tx(ctx, in.TxID)
			if err != nil {
				return nil, s.problem("tx", err)
			}
			return answer(out), nil
		})

	huma.Register(api, read("miner", "/miner", "What the miner does"),
		func(context.Context, *nothing) (*body[MinerStatus], error) { return answer(s.theNode().Miner()), nil })
	for id, set := range map[string]func(Node) error{"start": Node.StartMiner, "stop": Node.StopMiner} {
		huma.Register(api, write("miner-"+id, http.MethodPost, "/miner/"+id, "Switch the miner", http.StatusOK),
			func(context.Context, *nothing) (*body[MinerStatus], error) {
				if err := set(s.theNode()); err != nil {
					return nil, s.problem("miner-"+id, err)
				}
				return answer(s.theNode().Miner()), nil
			})
	}
	s.routesStaking(api, read, write)
	// huma hides the response writer, whose deadline this route must move.
	op := write("miner-block", http.MethodPost, "/miner/block", "Make one block", http.StatusOK)
	op.Middlewares = huma.Middlewares{func(hc huma.Context, next func(huma.Context)) {
		_, w := humago.Unwrap(hc)
		next(huma.WithValue(hc, writerKey{}, w))
	}}
	huma.Register(api, op, func(ctx context.Context, in *struct {
		TimeoutS int `query:"timeout_s" minimum:"1" maximum:"600" doc:"How long to wait for a block, on proof-of-stake networks for a slot that this node wins, before 504; 60 if it is missing"`
		Body     MineRequest
	},
	) (*body[Block], error) {
		w, _ := ctx.Value(writerKey{}).(http.ResponseWriter)
		limit := s.o.MineTimeout
		if in.TimeoutS > 0 {
			limit = time.Duration(in.TimeoutS) * time.Second
		}
		b, err := s.mine(ctx, w, in.Body.Data, limit)
		if err != nil {
			return nil, s.problem("miner-block", err)
		}
		return answer(b), nil
	})

	s.routesExplorer(api, read)
	s.routesSlots(api, read)
	s.routeDoubles(api, read)
	s.streamRoutes(mux, api)

	s.routesWallet(api, read, write)

	show(s, api, read("log-level", "/log/level", "Least levels that are logged"),
		func(_ context.Context, n Node, _ *nothing) (LogLevels, error) { return n.LogLevels(), nil })
	show(s, api, write("log-level-set", http.MethodPut, "/log/level", "Change the least level that is logged", http.StatusOK),
		func(_ context.Context, n Node, in *body[LogLevelRequest]) (LogLevels, error) {
			if err := n.SetLogLevel(in.Body.Subsystem, in.Body.Level); err != nil {
				return LogLevels{}, err
			}
			return n.LogLevels(), nil
		})
	records := read("log-records", "/log/records", "The last lines of the log; wants the token, also from this machine")
	records.Security = []map[string][]string{{"cookie": {}}}
	show(s, api, records, func(_ context.Context, n Node, in *struct {
		After     uint64 `query:"after" doc:"Number of the last line that is known; missing or 0: the last lines"`
		Limit     int    `query:"limit" minimum:"1" maximum:"1000" default:"200" doc:"Lines in the answer, at most"`
		Level     string `query:"level" enum:"debug,info,warn,error" default:"debug" doc:"The least"`
		Subsystem string `query:"subsystem" maxLength:"64" doc:"Only its lines"`
	},
	) (LogRecords, error) {
		return logRecords(n, in.After, in.Limit, in.Level, in.Subsystem), nil
	})
	huma.Register(api, write("stop", http.MethodPost, "/stop", "Stop the node", http.StatusAccepted),
		func(context.Context, *nothing) (*body[Accepted], error) {
			s.theNode().Stop()
			return answer(Accepted{Status: "accepted"}), nil
		})
}

// logRecords picks lines of the log: those behind a number from there on, else the last.
func logRecords(n Node, after uint64, limit int, least, subsystem string) LogRecords {
	rank := func(level string) int { return slices.Index([]string{"debug", "info", "warn", "error"}, level) }
	out := LogRecords{Records: []LogRecord{}}
	for at := after; ; {
		batch := n.LogRecords(at, logBatch)
		out.Dropped = batch.Dropped
		for i := range batch.Records {
			r := &batch.Records[i]
			if rank(r.Level) < rank(least) || subsystem != "" && r.Subsystem != subsystem {
				continue
			}
			if len(out.Records) == limit {
				if after > 0 {
					return out // more is for the next request
				}
				out.Records = out.Records[1:]
			}
			out.Records = append(out.Records, *r)
			out.Last = r.Seq
		}
		// Of a number that is none of this run's, the last there is: whoever asks sees that it must begin anew.
		if at, out.Last = batch.Last, batch.Last; len(batch.Records) == 0 {
			return out
		}
	}
}

type writerKey struct{}

// maxImportBytes is the most that the list of an import may have.
const maxImportBytes = 8 << 20

func orEmpty[T any](s []T) []T {
	if s == nil {
		return []T{}
	}
	return s
}

// block finds a block by height or hash.
func (s *Server) block(ctx context.Context, id string) (Block, error) {
	if len(id) == 64 {
		if _, err := hex.DecodeString(id); err == nil {
			return s.theNode().BlockByHash(ctx, id)
		}
	}
	height, err := strconv.ParseUint(id, 10, 31)
	if err != nil {
		return Block{}, Errorf(http.StatusUnprocessableEntity, "%q is neither a height nor a block hash of 64 hex digits", clip(id))
	}
	return s.theNode().BlockAt(ctx, int32(height))
}

// problem is an RFC 9457 answer for an error of the node.
func (s *Server) problem(operation string, err error) error {
	status, reason := s.explain(operation, err)
	return huma.NewError(status, reason)
}
