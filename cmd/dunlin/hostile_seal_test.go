package main

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"

	"dunlin/chain/consensus"
	"dunlin/chain/consensus/enginetest"
	"dunlin/internal/api"
)

// TestE2EHostileSeal: before anybody else has it hostile peers send a daemon the next block with seals that fail. Then an honest one has
// it: the block is taken and its hash refused nowhere; only the hostile peers are blamed, in log, metrics and list of peers.
func TestE2EHostileSeal(t *testing.T) {
	t.Parallel()
	x := newStakeholders(6)
	tip, next := x.blocks[5], x.blocks[6]
	args := []string{"--network", "stakenet"}
	honest := newDaemon(t, "honest", args...)
	importBlocks(t, honest, x.p, x.blocks[:6])
	honest.start()
	victim := startDaemon(t, "victim", append(args, "--bootstrap", honest.addr())...)
	victim.reaches(tip.Hash.String(), patience)
	for _, d := range []*daemon{honest, victim} {
		d.meshed(1)
	}

	signature := bytes.Clone(next.Header.Seal)
	signature[len(signature)-1] ^= 1
	value := bytes.Clone(next.Header.Seal)
	value[36] ^= 1
	swapped := map[string][]byte{
		"bad-seal-signature": enginetest.WithSeal(next, signature),
		"bad-kernel":         enginetest.WithSeal(next, value),
	}
	refused := func(d *daemon, rule string) float64 {
		n, err := d.metric(fmt.Sprintf(`dunlin_gossip_refused_total{reason="%s",result="rejected",topic="block"}`, rule))
		if err != nil {
			return 0 // none so far
		}
		return n
	}
	var hostile []string
	for rule, raw := range swapped {
		if hash := consensus.HeaderHash(&next.Header); hash != next.Hash || bytes.Equal(raw, next.Raw) {
			t.Fatal("the copy is not of the block: this shows nothing")
		}
		evil := newShouter(t, x.p, victim)
		hostile = append(hostile, evil.h.ID().String())
		evil.shout(evil.block, whole(raw))
		eventually(t, patience, rule+" is counted", func() error {
			if refused(victim, rule) == 0 {
				return fmt.Errorf("no refusal for %s", rule)
			}
			return nil
		})
		victim.logged("WRN", "message rejected", "peer="+evil.h.ID().String(), "rule="+rule, "hash="+next.Hash.String())
	}
	if s := victim.mustStatus(); s.TipHash != tip.Hash.String() {
		t.Errorf("the tip is %s at height %d", s.TipHash, s.Height)
	}

	if v, err := honest.client.SubmitBlock(t.Context(), hex.EncodeToString(next.Raw)); err != nil || v.Outcome != "connected" {
		t.Fatalf("%+v, %v", v, err)
	}
	for _, d := range []*daemon{honest, victim} {
		d.reaches(next.Hash.String(), patience)
	}
	tips, err := victim.client.Tips(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(tips) != 1 || tips[0].Hash != next.Hash.String() || tips[0].Status != "active" {
		t.Errorf("tips: %+v", tips)
	}
	// The seal that is kept is the right one.
	if raw, err := victim.client.RawBlock(t.Context(), next.Hash.String()); err != nil || raw != hex.EncodeToString(next.Raw) {
		t.Errorf("the block is kept with another seal, %v", err)
	}

	friend := honest.mustStatus().PeerID
	for line := range strings.SplitSeq(victim.log.String(), "\n") {
		if strings.Contains(line, friend) && (strings.Contains(line, "rejected") || strings.Contains(line, "rule=") || strings.Contains(line, "refused")) {
			t.Errorf("the honest peer is blamed: %s", line)
		}
	}
	for rule := range swapped {
		if n := refused(honest, rule); n != 0 {
			t.Errorf("%v messages were passed on to the honest daemon, which refuses them for %s", n, rule)
		}
	}
	// Scores are looked at every few seconds.
	eventually(t, patience, "hostile peers have lower scores", func() error {
		peers, err := victim.client.Peers(t.Context())
		if err != nil {
			return err
		}
		scores := map[string]api.Peer{}
		for _, p := range peers {
			scores[p.ID] = p
		}
		good, ok := scores[friend]
		if !ok || good.Standing != "good" || len(good.Reasons) > 0 {
			return fmt.Errorf("the honest peer: %t, %+v", ok, good)
		}
		for _, id := range hostile {
			if bad, ok := scores[id]; ok && bad.Score >= good.Score {
				return fmt.Errorf("a hostile peer has a score of %v, the honest one %v", bad.Score, good.Score)
			}
		}
		return nil
	})
	victim.cleanLog(t)
}
