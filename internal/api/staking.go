package api

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"
)

// StakingSummary is what [Status] shows of staking.
type StakingSummary struct {
	Enabled        bool     `json:"enabled" doc:"It was started"`
	State          string   `json:"state" enum:"off,waiting,staking" doc:"waiting: it was started, and something is in the way"`
	Reason         string   `json:"reason" doc:"What is in the way, or would be if it were started; empty: nothing" example:"the wallet is locked: unlock it for staking (dunlin wallet unlock --staking)"`
	Coins          int      `json:"coins" doc:"Mature: those that take part"`
	Weight         int64    `json:"weight" doc:"Satoshi of these coins"`
	ImmatureCoins  int      `json:"immature_coins"`
	ImmatureWeight int64    `json:"immature_weight" doc:"Satoshi"`
	NetworkWeight  int64    `json:"network_weight" doc:"Estimate of all that takes part, in satoshi, from the target of the next block"`
	Share          float64  `json:"share" doc:"Of weight in network_weight, 0 to 1"`
	SlotChance     float64  `json:"slot_chance" doc:"Probability of winning a slot, 0 to 1: that at least one of the coins does"`
	ExpectedS      *float64 `json:"expected_s" doc:"Seconds to a slot that is won, on average; null: never"`
}

// Staking is what `dunlin stake status` and GET /api/v1/staking show.
type Staking struct {
	StakingSummary
	Source   string        `json:"source" enum:"wallet,key-file" doc:"Whose keys are used"`
	SlotS    float64       `json:"slot_s" doc:"Seconds of a slot"`
	Maturity int32         `json:"maturity" doc:"Blocks until a coin takes part"`
	Address  string        `json:"address" doc:"That new blocks pay; empty: the stake's own"`
	Blocks   int           `json:"blocks" doc:"Made since the start"`
	History  []StakedBlock `json:"history" doc:"The last slots that were signed for, the latest first, over restarts too"`
}

// StakedBlock is a block that was made here by stake.
type StakedBlock struct {
	Slot   int64     `json:"slot"`
	Time   time.Time `json:"time" doc:"When the slot began"`
	Height int32     `json:"height" doc:"-1: the block never became known"`
	Hash   string    `json:"hash"`
	Reward int64     `json:"reward" doc:"Satoshi that its coinbase pays; 0 if the block is not on disk"`
	State  string    `json:"state" enum:"active,orphaned,lost" doc:"orphaned: another branch won. lost: the node was ended after the slot was noted and before the block was known"`
	Coin   string    `json:"coin" doc:"The stake, txid:vout"`
}

// routesStaking registers the routes of staking.
func (s *Server) routesStaking(api huma.API, read func(id, path, summary string) huma.Operation, write func(id, method, path, summary string, status int) huma.Operation) {
	huma.Register(api, read("staking", "/staking", "How blocks are made by stake: what is in the way, chances, blocks made"),
		func(_ context.Context, in *struct {
			History int `query:"history" minimum:"0" maximum:"100" default:"20" doc:"So many of the last blocks"`
		},
		) (*body[Staking], error) {
			out, err := s.theNode().Staking(in.History)
			if err != nil {
				return nil, s.problem("staking", err)
			}
			return answer(out), nil
		})
	for id, set := range map[string]func(Node) error{"start": Node.StartStaking, "stop": Node.StopStaking} {
		huma.Register(api, write("staking-"+id, http.MethodPost, "/staking/"+id, "Switch staking", http.StatusOK),
			func(context.Context, *nothing) (*body[Staking], error) {
				if err := set(s.theNode()); err != nil {
					return nil, s.problem("staking-"+id, err)
				}
				out, err := s.theNode().Staking(20)
				if err != nil {
					return nil, s.problem("staking-"+id, err)
				}
				return answer(out), nil
			})
	}
}
