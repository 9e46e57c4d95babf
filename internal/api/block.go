package api

import (
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/btcsuite/btcd/txscript/v2"

	"dunlin/chain/consensus"
)

// DescribeBlock fills a [Block] from a decoded one. The caller knows what the
// bytes do not tell: the height (-1 unknown), whether it is on the active chain,
// and its cumulative work (hex, or empty).
func DescribeBlock(b *consensus.Block, height int32, active bool, work string) Block {
	h := &b.Header
	return Block{
		Height:       height,
		Hash:         b.Hash.String(),
		PreviousHash: h.PrevBlock.String(),
		MerkleRoot:   h.MerkleRoot.String(),
		Time:         h.Timestamp.UTC().Truncate(time.Second),
		Version:      h.Version,
		Bits:         fmt.Sprintf("%08x", h.Bits),
		Nonce:        h.Nonce,
		Work:         work,
		Active:       active,
		Txs:          len(b.Txs),
		Size:         len(b.Raw),
		Weight:       b.Weight,
		Data:         consensus.CoinbaseData(b),
		CoinbaseText: coinbaseText(b.Txs[0].MsgTx().TxIn[0].SignatureScript),
	}
}

// minTextRunes is the shortest run of readable characters in a coinbase script
// that is taken for text: extranonces and heights rarely reach it.
const minTextRunes = 4

// coinbaseText returns the readable runs of a coinbase script's pushes, joined
// by spaces. A script that does not parse is read as raw bytes: miners may put
// anything there.
func coinbaseText(script []byte) string {
	var pushes [][]byte
	t := txscript.MakeScriptTokenizer(0, script)
	for t.Next() {
		pushes = append(pushes, t.Data())
	}
	if t.Err() != nil {
		pushes = [][]byte{script}
	}
	var runs []string
	for _, data := range pushes {
		runs = appendRuns(runs, data)
	}
	return strings.Join(runs, " ")
}

func appendRuns(runs []string, data []byte) []string {
	start, runes := 0, 0
	end := func(at int) {
		if runes >= minTextRunes {
			runs = append(runs, strings.TrimSpace(string(data[start:at])))
		}
		runes = 0
	}
	for i := 0; i < len(data); {
		r, size := utf8.DecodeRune(data[i:])
		if (r == utf8.RuneError && size == 1) || !unicode.IsPrint(r) {
			end(i)
		} else {
			if runes == 0 {
				start = i
			}
			runes++
		}
		i += size
	}
	end(len(data))
	return runs
}
