package pow

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/btcsuite/btcd/blockchain"
	"github.com/btcsuite/btcd/chainhash/v2"

	"dunlin/chain/consensus"
)

var _ consensus.Sealer = (*Sealer)(nil)

// A Sealer searches for nonces. It is safe for concurrent use.
type Sealer struct {
	threads int
	hashes  atomic.Uint64
}

// Hashes is how many nonces were tried, to the batch, since NewSealer.
func (s *Sealer) Hashes() uint64 { return s.hashes.Load() }

// NewSealer returns a sealer that searches on that many threads; below 1 means
// GOMAXPROCS.
func NewSealer(threads int) *Sealer {
	if threads < 1 {
		threads = runtime.GOMAXPROCS(0)
	}
	return &Sealer{threads: threads}
}

// Prepare has nothing to wait for: the proof is made of the finished header.
func (s *Sealer) Prepare(<-chan struct{}, consensus.Past) (consensus.Plan, error) {
	return consensus.Plan{}, nil
}

const (
	nonceOffset = 76 // in the header's bytes
	// nonceBatch is how many nonces a thread tries between looks at stop: about a
	// millisecond.
	nonceBatch = 1 << 12
)

// Seal tries every nonce, from 0 up on each of its threads' shares, until the
// header's hash meets its bits; then it sets h.Nonce and returns true. It returns
// false without error if none does, and context.Canceled when stop is closed. Its
// goroutines have ended when it returns.
func (s *Sealer) Seal(stop <-chan struct{}, h *consensus.Header) (bool, error) {
	target := blockchain.CompactToBig(h.Bits)
	if target.Sign() <= 0 || target.BitLen() > 256 {
		return false, fmt.Errorf("seal: bits %08x are no target", h.Bits)
	}
	var limit [chainhash.HashSize]byte // little-endian, as hashes are
	target.FillBytes(limit[:])
	for i, j := 0, len(limit)-1; i < j; i, j = i+1, j-1 {
		limit[i], limit[j] = limit[j], limit[i]
	}
	bare := consensus.Header{BlockHeader: h.BlockHeader}
	header := consensus.AppendHeader(nil, &bare)

	var (
		done  atomic.Bool // found or stopped: everyone stops at the next batch
		found = make(chan uint32, s.threads)
		wg    sync.WaitGroup
	)
	const space = uint64(math.MaxUint32) + 1
	share := (space + uint64(s.threads) - 1) / uint64(s.threads)
	for i := range uint64(s.threads) {
		from, to := i*share, min((i+1)*share, space)
		wg.Go(func() {
			var buf [consensus.HeaderBytes]byte
			copy(buf[:], header)
			for n := from; n < to && !done.Load(); n += nonceBatch {
				select {
				case <-stop:
					done.Store(true)
					return
				default:
				}
				nonce, ok := search(&buf, &limit, n, min(n+nonceBatch, to))
				if !ok {
					s.hashes.Add(min(n+nonceBatch, to) - n)
					continue
				}
				s.hashes.Add(uint64(nonce) - n + 1)
				found <- nonce
				done.Store(true)
				return
			}
		})
	}
	wg.Wait()
	select {
	case h.Nonce = <-found:
		return true, nil
	default:
	}
	select {
	case <-stop:
		return false, context.Canceled
	default:
		return false, nil
	}
}

// search tries the nonces in [from, to).
func search(buf *[consensus.HeaderBytes]byte, limit *[chainhash.HashSize]byte, from, to uint64) (uint32, bool) {
	const top = chainhash.HashSize - 8
	limitTop := binary.LittleEndian.Uint64(limit[top:])
	for n := from; n < to; n++ {
		binary.LittleEndian.PutUint32(buf[nonceOffset:], uint32(n))
		hash := chainhash.DoubleHashH(buf[:])
		if t := binary.LittleEndian.Uint64(hash[top:]); t < limitTop || t == limitTop && atMost(&hash, limit) {
			return uint32(n), true
		}
	}
	return 0, false
}

// atMost compares little-endian numbers.
func atMost(a *chainhash.Hash, b *[chainhash.HashSize]byte) bool {
	for i := len(b) - 1; i >= 0; i-- {
		if a[i] != b[i] {
			return a[i] < b[i]
		}
	}
	return true
}
