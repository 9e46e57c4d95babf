//go:build slow

package main

import (
	"errors"
	"io"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
)

// TestE2EHostileRealSync is the same with Bitcoin's first 14,131 blocks and one
// liar of each of four kinds.
func TestE2EHostileRealSync(t *testing.T) {
	t.Parallel()
	mainnet := realBranch(t)
	want := mainnet.hashes[len(mainnet.hashes)-1].String()
	good := newLiar(t, mainnet).serve()
	alone := startDaemon(t, "alone", "--network", "bitcoin", "--bootstrap", good.addr())
	began := time.Now()
	alone.reaches(want, patience)
	clean := time.Since(began)
	rng := hostileSeed(t)
	claim := absurd(rng)
	args := []string{"--network", "bitcoin", "--bootstrap", good.addr()}
	for _, change := range []func(*liar){
		func(x *liar) { x.block = func(h int) []byte { return mainnet.raws[h%len(mainnet.raws)] } },
		func(x *liar) {
			x.claim = func() wireTip { return claim }
			x.headers = func(s network.Stream, _ int) error { _, err := io.Copy(io.Discard, s); return errors.Join(err, io.EOF) }
		},
		func(x *liar) {
			x.reply = func(s network.Stream, r wireFields) error { _, err := s.Write(endMsg(r.n[1], 2)); return err }
		},
		func(x *liar) {
			x.reply = func(s network.Stream, r wireFields) error {
				_, err := io.Copy(io.Discard, s)
				return errors.Join(err, io.EOF)
			}
		},
	} {
		x := newLiar(t, mainnet)
		change(x)
		args = append(args, "--bootstrap", x.serve().addr())
	}
	d := startDaemon(t, "victim", args...)
	began = time.Now()
	d.reaches(want, patience)
	t.Logf("%v among four liars, %v alone: %.1f times", time.Since(began).Round(time.Millisecond), clean.Round(time.Millisecond),
		time.Since(began).Seconds()/clean.Seconds())
	d.cleanLog(t)
}
