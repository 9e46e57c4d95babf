package logs_test

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"time"

	"dunlin/internal/logs"
)

func TestPhrases(t *testing.T) {
	const hash = "00000000b3e750f37fdb42e1018799a9f44b546d393b130b369590a072430a1c"
	const id = "12D3KooWHi8UvF5fWxK6gMJ3aqLjQ9ab4T6TPiiFMsGw5zfZMKwG"
	syncing := func(eta slog.Attr, behind time.Duration, state string, headers int, reason string) []any {
		return []any{
			"state", state, "percent", 41.2, "height", 412033, "headers", headers, "target", 1000114, "blocks_per_s", 1240, eta,
			"behind", behind, "peers", 8, "serving", 5, "in_flight", 96, "in_flight_limit", 128, "bytes_per_s", 18_400_000, "reason", reason,
		}
	}
	for _, c := range []struct {
		msg  string
		args []any
		want string
	}{
		{
			"block",
			[]any{"height", 1000121, "hash", hash, "txs", 12, "bytes", 12400, "from", id, "delay", 0.41},
			"block 1,000,121 000000…0a1c txs=12 12.4 kB from=12D3…MKwG delay=0.41s",
		},
		{
			"block",
			[]any{"height", 1, "hash", hash, "txs", 1, "bytes", 261, "from", "miner", "delay", -3.0},
			"block 1 000000…0a1c txs=1 261 B from=miner delay=-3s",
		},
		{
			"block",
			[]any{"height", 1, "hash", hash, "txs", 1, "bytes", 261, "from", "import", "delay", 4.9737470091e+08},
			"block 1 000000…0a1c txs=1 261 B from=import delay=15y281d",
		},
		{
			"block",
			[]any{
				"height", 1000121, "hash", hash, "txs", 12, "bytes", 12400, "from", id, "delay", 0.41,
				"slot", 4031, "winner", "bcrt1pqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqm3usuw", "share", 0.4982, "pulled", 3,
			},
			"block 1,000,121 000000…0a1c slot 4031 won by bcrt1pqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqm3usuw, share 49.8% txs=12 12.4 kB from=12D3…MKwG delay=0.41s pulled=3",
		},
		{"block", []any{"height", 1}, "block height=1"}, // not ours: written as it is
		{
			"reorg",
			[]any{"depth", 2, "old", hash, "old_height", 1000120, "new", hash, "height", 1000121, "fork", 1000118},
			"reorg depth=2 old=000000…0a1c at 1,000,120 new=000000…0a1c at 1,000,121 fork=1,000,118",
		},
		{
			"syncing", syncing(slog.Duration("eta", 475*time.Second), 76*time.Hour, "blocks", 1000114, ""),
			"syncing 41.2% 412,033/1,000,114 | 1,240 blk/s | eta 7m55s | behind 3d4h | peers 8 (5 serving) | in flight 96/128 | ↓ 18.4 MB/s",
		},
		{
			"syncing", syncing(slog.String("eta", "unknown"), 76*time.Hour, "headers", 600_000, ""),
			"syncing headers | 41.2% 412,033/1,000,114 | headers 600,000 | 1,240 blk/s | eta unknown | behind 3d4h | peers 8 (5 serving) | in flight 96/128 | ↓ 18.4 MB/s",
		},
		{
			"syncing", syncing(slog.Duration("eta", 2*time.Second), time.Hour, "blocks", 1000114, "waiting for validation of block 7"),
			"syncing 41.2% 412,033/1,000,114 | 1,240 blk/s | eta 2.0s | behind 1h0m | peers 8 (5 serving) | in flight 96/128 | ↓ 18.4 MB/s | waiting for validation of block 7",
		},
		{
			"syncing", syncing(slog.String("eta", "unknown"), 17*365*24*time.Hour, "stalled", 1000114, "nothing has come for 14s"),
			"syncing stalled: nothing has come for 14s | 41.2% 412,033/1,000,114 | 1,240 blk/s | eta unknown | behind 17y0d | peers 8 (5 serving) | in flight 96/128 | ↓ 18.4 MB/s",
		},
		{
			"sync stalled",
			[]any{"waited", 2100 * time.Millisecond, "height", 412033, "holder", id, "holds", 412034, "asked", id, "attempt", 3, "suppressed", 0},
			"sync stalled 2.1s at 412,033: 12D3…MKwG holds 412,034; asked 12D3…MKwG too (attempt 3)",
		},
		{
			"sync stalled",
			[]any{"waited", time.Second, "height", 5, "holder", id, "holds", 6, "asked", "nobody else has it", "attempt", 1, "suppressed", 3},
			"sync stalled 1.0s at 5: 12D3…MKwG holds 6; nobody else has it suppressed=3",
		},
		{
			"sync resumed",
			[]any{"waited", 14230 * time.Millisecond, "height", 412034, "target", 1000114},
			"sync resumed after 14.2s at 412,034 of 1,000,114",
		},
		{
			"sync stalled",
			[]any{"height", 5, "target", 6000, "reason", "no peers"},
			"sync stalled at 5 of 6,000: no peers",
		},
		{
			"sync stalled",
			[]any{"height", 5, "target", 6, "reason", "evil\nERR forged"},
			`sync stalled "at 5 of 6: evil\nERR forged"`,
		},
	} {
		var b bytes.Buffer
		log, _ := logs.New(logs.Options{Writer: &b, Color: logs.Never})
		log.With(logs.Subsystem, "chain").Info(c.msg, c.args...) //nolint:sloglint // the table has the messages
		_, got, _ := strings.Cut(strings.TrimSuffix(b.String(), "\n"), " INF ")
		if got != c.want {
			t.Errorf("got  %s\nwant %s", got, c.want)
		}
	}
}

// TestPhrasesAreTextOnly: JSON has the same facts whole.
func TestPhrasesAreTextOnly(t *testing.T) {
	var b bytes.Buffer
	log, _ := logs.New(logs.Options{Writer: &b, Format: logs.JSON})
	log.Info("block", "height", 1, "hash", "00ff", "txs", 1, "bytes", 2, "from", "miner", "delay", 0.5)
	if !strings.Contains(b.String(), `"msg":"block","height":1,"hash":"00ff","txs":1,"bytes":2,"from":"miner","delay":0.5`) {
		t.Error(b.String())
	}
}
