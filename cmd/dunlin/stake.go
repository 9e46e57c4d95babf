package main

import (
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"dunlin/internal/api"
	"dunlin/internal/wallet"
)

func newStake(g *global) *cobra.Command {
	turn := func(on bool) func(*cobra.Command, []string) error {
		return func(cmd *cobra.Command, _ []string) error {
			c, err := g.client(cmd)
			if err != nil {
				return err
			}
			s, err := c.SwitchStaking(cmd.Context(), on)
			if err != nil {
				return unreachable(err)
			}
			return g.printStaking(cmd, &s)
		}
	}
	return group("stake", "Make blocks with stake (proof-of-stake networks)",
		newStakeHolders(g),
		newStakeDoubles(g),
		&cobra.Command{
			Use: "status", Short: "Print the stake, its chances, and the blocks that it made", Args: args(cobra.NoArgs),
			RunE: func(cmd *cobra.Command, _ []string) error {
				c, err := g.client(cmd)
				if err != nil {
					return err
				}
				s, err := c.Staking(cmd.Context())
				if err != nil {
					return unreachable(err)
				}
				return g.printStaking(cmd, &s)
			},
		},
		&cobra.Command{
			Use: "start", Short: "Start staking", Args: args(cobra.NoArgs),
			Long: `start makes blocks with the taproot coins of the node's wallet, or of the key file that staking.key_file names, until stake stop
or the end of the node; dunlin start --stake does so from the beginning. An encrypted wallet must be unlocked for it:
dunlin wallet unlock --staking allows blocks to be sealed and nothing to be spent.

Stake the same keys on one node only: two of them would sign two blocks for a slot, which anybody can show.`,
			RunE: turn(true),
		},
		&cobra.Command{Use: "stop", Short: "Stop staking", Args: args(cobra.NoArgs), RunE: turn(false)},
	)
}

func (g *global) printStaking(cmd *cobra.Command, s *api.Staking) error {
	return g.print(cmd, s, func(w io.Writer) {
		t := newTable(w)
		fmt.Fprintf(t, "staking\t%s\n", stakingState(&s.StakingSummary))
		fmt.Fprintf(t, "keys\t%s\n", s.Source)
		fmt.Fprintf(t, "stake\t%s\n", stakingWeight(&s.StakingSummary))
		if s.ImmatureCoins > 0 {
			fmt.Fprintf(t, "immature\t%s in %d coins: they take part %d blocks after theirs\n", wallet.FormatAmount(s.ImmatureWeight), s.ImmatureCoins, s.Maturity)
		}
		expected := "never"
		if s.ExpectedS != nil {
			expected = "one in " + shortDuration(*s.ExpectedS)
		}
		fmt.Fprintf(t, "wins\t%s on average (a slot has %gs, and a chance of %.4g%%)\n", expected, s.SlotS, 100*s.SlotChance)
		pays := s.Address
		if pays == "" {
			pays = "to the stake's own address"
		}
		fmt.Fprintf(t, "rewards\t%s\n", pays)
		fmt.Fprintf(t, "blocks\t%d since the start\n", s.Blocks)
		t.Flush()
		if len(s.History) == 0 {
			return
		}
		fmt.Fprintln(w)
		t = newTable(w, "TIME", "SLOT", "HEIGHT", "STATE", "REWARD", "HASH")
		for _, b := range s.History {
			height := "-"
			if b.Height >= 0 {
				height = fmt.Sprint(b.Height)
			}
			fmt.Fprintf(t, "%s\t%d\t%s\t%s\t%s\t%s\n", b.Time.Format(time.DateTime), b.Slot, height, b.State, wallet.FormatAmount(b.Reward), b.Hash)
		}
		t.Flush()
	})
}

// stakingState says in a line what staking does.
func stakingState(s *api.StakingSummary) string {
	state := map[string]string{"off": "stopped", "waiting": "waits", "staking": "running"}[s.State]
	if s.Reason != "" {
		state += " (" + s.Reason + ")"
	}
	return state
}

// stakingWeight says in a line what takes part.
func stakingWeight(s *api.StakingSummary) string {
	out := fmt.Sprintf("%s in %d coins", wallet.FormatAmount(s.Weight), s.Coins)
	if s.NetworkWeight > 0 {
		out += fmt.Sprintf(", %.2f%% of the %s that take part", 100*s.Share, wallet.FormatAmount(s.NetworkWeight))
	}
	return out
}

func shortDuration(seconds float64) string {
	return time.Duration(seconds * float64(time.Second)).Round(time.Second).String()
}
