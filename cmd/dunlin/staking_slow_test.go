//go:build slow

package main

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// signedSlots reads the journal of a node that was killed: the block of each slot and stake.
func signedSlots(t *testing.T, home string) map[string]string {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(home, "staking", "signed.log"))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	const head, size = 20, 80
	out := make(map[string]string)
	for b := raw[head:]; len(b) >= size; b = b[size:] {
		block := bytes.Clone(b[44:76])
		slices.Reverse(block)
		out[fmt.Sprintf("%d %x", binary.LittleEndian.Uint64(b), b[8:44])] = hex.EncodeToString(block)
	}
	return out
}

// TestE2EStakingKill9: a process that stakes is killed at random moments, with a slot of a
// second and all the stake. No journal of any life tells of another block for a slot than
// an earlier one did, and another node knows only blocks that are in one.
func TestE2EStakingKill9(t *testing.T) {
	t.Parallel()
	file, keys := guild(t, 1000)
	network := []string{"--network-file", file}
	other := startDaemon(t, "other", network...)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	a := newDaemon(t, "a", append(network, "--stake", "--key-file", keys[0], "--bootstrap", other.addr())...)
	signed := make(map[string]string)
	for range 12 {
		a.start()
		timer := time.NewTimer(time.Duration(r.IntN(4_000_000)) * time.Microsecond)
		<-timer.C
		a.kill9()
		for id, block := range signedSlots(t, a.home) {
			if was, ok := signed[id]; ok && was != block {
				t.Errorf("slot and stake %s: %s, before it was %s", id, block, was)
			}
			signed[id] = block
		}
	}
	a.start()
	status, answer := a.mineBlock("last", waitLimit)
	if status != http.StatusOK {
		t.Fatalf("%d %v", status, answer)
	}
	other.has(answer["hash"].(string))
	a.kill9()
	known := make(map[string]bool)
	for _, block := range signedSlots(t, a.home) {
		known[block] = true
	}
	tip := other.mustStatus()
	for height := int32(1); height <= tip.Height; height++ {
		b, err := other.client.Block(t.Context(), fmt.Sprint(height))
		if err != nil {
			t.Fatal(err)
		}
		if !known[b.Hash] {
			t.Errorf("block %d %s is in no journal", height, b.Hash)
		}
	}
	t.Logf("%d slots signed, %d blocks", len(signed), tip.Height)
}
