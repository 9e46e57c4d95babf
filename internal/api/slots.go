package api

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
)

// BySlot is how stake made a block. Where work makes blocks nothing of it is there;
// genesis, which nobody won, has slot 0 and an empty validator.
type BySlot struct {
	Slot      *int64     `json:"slot,omitempty" doc:"Where stake makes blocks: slots from genesis to the block"`
	Validator *string    `json:"validator,omitempty" doc:"Likewise: address whose stake won the slot; empty of genesis"`
	Stake     *StakeCoin `json:"stake,omitempty" doc:"The coin that won it"`
	Share     *float64   `json:"share,omitempty" doc:"The coin's part, 0 to 1, of the stake that took part then by the target"`
}

// StakeCoin is the coin by whose value a block was made.
type StakeCoin struct {
	TxID  string `json:"txid"`
	VOut  uint32 `json:"vout"`
	Value int64  `json:"value" doc:"Satoshi"`
}

// Slots is the time of a network where stake makes blocks, as [Status] has it.
type Slots struct {
	LengthS    float64 `json:"length_s" doc:"Seconds of a slot"`
	Now        int64   `json:"now" doc:"The present slot; genesis has 0"`
	SinceBlock int64   `json:"since_block" doc:"Slots since that of the validated tip"`
	Online     int64   `json:"online" doc:"Satoshi of stake that take part, estimated from the target of the next block"`
	Supply     int64   `json:"supply" doc:"Satoshi that there are at most"`
}

// SlotEvent is a slot that somebody won.
type SlotEvent struct {
	Slot     int64     `json:"slot"`
	Height   int32     `json:"height"`
	Hash     string    `json:"hash"`
	Time     time.Time `json:"time"`     // of the block: when the slot began
	Winner   string    `json:"winner"`   // address
	OutPoint string    `json:"outpoint"` // txid:vout of its stake
	Value    int64     `json:"value"`    // satoshi of that
	Share    float64   `json:"share"`    // its part of the stake online, 0 to 1
}

// wonSlot is the event of a block; false if no slot was won for it.
func wonSlot(b *BlockSummary) (SlotEvent, bool) {
	if b.Slot == nil || b.Stake == nil || b.Validator == nil || b.Share == nil {
		return SlotEvent{}, false
	}
	return SlotEvent{
		Slot: *b.Slot, Height: b.Height, Hash: b.Hash, Time: b.Time, Winner: *b.Validator,
		OutPoint: b.Stake.OutPoint(), Value: b.Stake.Value, Share: *b.Share,
	}, true
}

// StakeHolders is what GET /api/v1/staking/holders gives: who has coins that can win
// slots, as of one tip.
type StakeHolders struct {
	Height       int32         `json:"height" doc:"Of the tip whose coins were read"`
	TipHash      string        `json:"tip_hash"`
	At           time.Time     `json:"at" doc:"When they were read"`
	TookMS       float64       `json:"took_ms" doc:"Milliseconds that reading them took"`
	Coins        int64         `json:"coins" doc:"That pay to taproot keys, of all holders"`
	Value        int64         `json:"value" doc:"Satoshi of them"`
	MatureCoins  int64         `json:"mature_coins" doc:"Of them those that may win the next slots"`
	MatureValue  int64         `json:"mature_value" doc:"Satoshi of these: all eligible stake"`
	Online       int64         `json:"online" doc:"Satoshi of stake that take part, estimated from the target of the next block"`
	Supply       int64         `json:"supply" doc:"Satoshi that there are at most"`
	Total        int           `json:"total" doc:"Holders; of more than there is room for, those counted are the richest"`
	Truncated    bool          `json:"truncated" doc:"There are more holders than are counted and listed; the sums are of all"`
	WindowBlocks int           `json:"window_blocks" doc:"Latest blocks that wins are counted in"`
	Holders      []StakeHolder `json:"holders" doc:"Most eligible stake first"`
	Next         string        `json:"next,omitempty" doc:"Cursor of the next page; missing on the last"`
}

// StakeHolder is an address with coins that can win slots, or could soon.
type StakeHolder struct {
	Address     string    `json:"address"`
	Coins       int64     `json:"coins"`
	Value       int64     `json:"value" doc:"Satoshi"`
	MatureCoins int64     `json:"mature_coins"`
	MatureValue int64     `json:"mature_value" doc:"Satoshi that may win the next slots"`
	MatureIn    *int32    `json:"mature_in" doc:"Blocks until the next of its other coins may win; null: there is none"`
	Chance      float64   `json:"chance" doc:"To win a slot at the target of the next block, 0 to 1: that at least one of its mature coins does"`
	Share       float64   `json:"share" doc:"Of all eligible stake, 0 to 1"`
	Wins        int       `json:"wins" doc:"Of the window's blocks"`
	WinShare    float64   `json:"win_share" doc:"Of the window's blocks, 0 to 1"`
	LastWin     *SlotSeen `json:"last_win" doc:"Its latest block; null: none in the last 1,000"`
}

// SlotSeen is a block that a holder made.
type SlotSeen struct {
	Slot   int64     `json:"slot"`
	Height int32     `json:"height"`
	Hash   string    `json:"hash"`
	Time   time.Time `json:"time"`
}

// DoubleStakes is what GET /api/v1/staking/doubles gives.
type DoubleStakes struct {
	Total   int           `json:"total" doc:"That this node ever saw, over restarts; forgotten by a reindex"`
	Doubles []DoubleStake `json:"doubles" doc:"The latest of them, the latest first; the last 256 are kept"`
}

// DoubleStake is evidence that the owner of a stake signed two blocks for one slot, which
// the software never does: two nodes run with one key, or somebody signs on two branches.
type DoubleStake struct {
	Slot     int64     `json:"slot"`
	Address  string    `json:"address" doc:"Of the stake"`
	OutPoint string    `json:"outpoint" doc:"The stake, txid:vout"`
	Height   int32     `json:"height" doc:"Of the first"`
	First    string    `json:"first" doc:"Hash of the block whose header came first"`
	Second   string    `json:"second" doc:"Hash of the other"`
	Seen     time.Time `json:"seen" doc:"When one of them had proven that the key is the stake's"`
}

// OutPoint is txid:vout.
func (c *StakeCoin) OutPoint() string { return fmt.Sprintf("%s:%d", c.TxID, c.VOut) }

// holdersTimeout is how long reading all coins may take.
const holdersTimeout = 10 * time.Minute

// routesSlots registers what is asked of networks where stake makes blocks.
func (s *Server) routesSlots(api huma.API, read func(id, path, summary string) huma.Operation) {
	op := read("staking-holders", "/staking/holders", "Who has coins that can win slots, and how often they did; reads all coins once a tip")
	op.Middlewares = huma.Middlewares{func(hc huma.Context, next func(huma.Context)) {
		_, w := humago.Unwrap(hc)
		// A recorder in a test has no deadline to move, and needs none.
		_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(holdersTimeout + writeTimeout))
		next(hc)
	}}
	show(s, api, op, func(ctx context.Context, n Node, in *struct {
		Limit  int    `query:"limit" minimum:"1" maximum:"1000" default:"100" doc:"Items in the answer, at most"`
		Cursor string `query:"cursor" maxLength:"128" doc:"next of the page before"`
	},
	) (StakeHolders, error) {
		ctx, cancel := context.WithTimeout(ctx, holdersTimeout)
		defer cancel()
		out, err := n.StakeHolders(ctx, in.Cursor, in.Limit)
		out.Holders = orEmpty(out.Holders)
		return out, err
	})
}

// maxDoubles is how many cases are kept.
const maxDoubles = 256

// routeDoubles registers the evidence of double stakes.
func (s *Server) routeDoubles(api huma.API, read func(id, path, summary string) huma.Operation) {
	show(s, api, read("staking-doubles", "/staking/doubles", "Stakes that signed two blocks for one slot"),
		func(_ context.Context, n Node, in *struct {
			Limit int `query:"limit" minimum:"0" maximum:"256" default:"100" doc:"Cases in the answer, at most"`
		},
		) (DoubleStakes, error) {
			out, _ := n.DoubleStakes(in.Limit)
			out.Doubles = orEmpty(out.Doubles)
			return out, nil
		})
}

// TransformSchema implements huma.SchemaTransformer.
func (StakeHolder) TransformSchema(_ huma.Registry, s *huma.Schema) *huma.Schema {
	return nullable(s, "last_win")
}
