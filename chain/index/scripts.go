package index

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/txscript/v2"
	"github.com/btcsuite/btcd/wire/v2"

	"dunlin/chain/consensus"
	"dunlin/chain/store"
)

const (
	// scriptPart bytes of a script's hash are kept: nobody finds a second script for them.
	scriptPart = 16
	// MaxRows is how many entries of a script are added up at most.
	MaxRows = 1_000_000
	// rowsPerLook is how many pass between two looks at the context.
	rowsPerLook = 4096
	// maxSkipped entries of stale blocks, or without an unspent output, are passed over for
	// a page; what comes then is for the next.
	maxSkipped = 20_000
)

// ErrBusy says that a script has more than MaxRows entries.
var ErrBusy = fmt.Errorf("more than %d transactions", MaxRows)

// ErrCursor says that no page gave a cursor.
var ErrCursor = errors.New("cursor: no page gave it")

// A Row is what one transaction did to a script.
type Row struct {
	TxID     chainhash.Hash
	Block    chainhash.Hash
	Height   int32
	Index    int    // of the transaction in the block
	Outs     []Coin // that it paid to the script
	Ins      []Coin // that it spent from it; N is the number of the input
	Received int64  // satoshi, of Outs
	Sent     int64  // satoshi, of Ins
}

// A Coin is an output or an input of a [Row].
type Coin struct {
	N     uint32
	Value int64 // satoshi
}

// row is what is gathered of a transaction.
type row struct{ outs, ins []Coin }

// part is the key of a script.
func part(script []byte) [scriptPart]byte {
	sum := sha256.Sum256(script)
	return [scriptPart]byte(sum[:scriptPart])
}

// addScripts puts what a block paid and spent into a batch. Outputs that nobody can spend
// are no entries; nor are those of genesis where they are no coins, nor of a coinbase that
// repeats an older one, whose coins it replaces.
func (x *Index) addScripts(b *store.SideBatch, raw []byte, number uint32, height int32) error {
	if height == 0 && !x.o.Chain.Params().GenesisSpendable() {
		return nil
	}
	decoded, err := consensus.DecodeBlock(x.o.Chain.Params(), raw)
	if err != nil {
		return err
	}
	spent, err := x.o.Chain.Spent(decoded)
	if err != nil {
		return err
	}
	repeats := consensus.RepeatsCoinbase(x.o.Chain.Params(), height, decoded.Hash)
	for i, tx := range decoded.Txs {
		rows := make(map[[scriptPart]byte]*row)
		at := func(script []byte) *row {
			k := part(script)
			if rows[k] == nil {
				rows[k] = &row{}
			}
			return rows[k]
		}
		for n, o := range tx.MsgTx().TxOut {
			if txscript.IsUnspendable(o.PkScript) || i == 0 && repeats {
				continue
			}
			r := at(o.PkScript)
			r.outs = append(r.outs, Coin{uint32(n), o.Value})
		}
		for n := range spent[i] {
			c := &spent[i][n]
			r := at(c.Script)
			r.ins = append(r.ins, Coin{uint32(n), c.Value})
		}
		id := tx.Hash()
		for k, r := range rows {
			v := appendCoins(appendCoins(slices.Clone(id[:]), r.outs), r.ins)
			b.Put(placeKey(prefixScript, k[:], number, uint32(i)), v)
		}
	}
	return nil
}

func appendCoins(v []byte, coins []Coin) []byte {
	v = binary.AppendUvarint(v, uint64(len(coins)))
	for _, c := range coins {
		v = binary.AppendUvarint(v, uint64(c.N))
		v = binary.AppendUvarint(v, uint64(c.Value))
	}
	return v
}

// readCoins is the reverse; rest is nil if v is malformed.
func readCoins(v []byte) (coins []Coin, sum int64, rest []byte) {
	n, size := binary.Uvarint(v)
	if size <= 0 || n > uint64(len(v)) {
		return nil, 0, nil
	}
	v = v[size:]
	coins = make([]Coin, 0, n)
	for range n {
		number, a := binary.Uvarint(v)
		if a <= 0 || number > 1<<32-1 {
			return nil, 0, nil
		}
		value, b := binary.Uvarint(v[a:])
		if b <= 0 || value > 1<<62 {
			return nil, 0, nil
		}
		v = v[a+b:]
		coins = append(coins, Coin{uint32(number), int64(value)})
		sum += int64(value)
	}
	return coins, sum, v
}

// rows calls f with the entries of a script in the active chain, the latest first, those
// before a key if it is not nil. skipped counts the others.
func (x *Index) rows(ctx context.Context, script, before []byte, f func(key []byte, r Row) error, skipped func(key []byte) error) error {
	k := part(script)
	low := append([]byte{prefixScript}, k[:]...)
	if before == nil {
		before = placeKey(prefixScript, k[:], ^uint32(0), ^uint32(0))
	}
	var at block
	number, looked := ^uint32(0), 0
	return x.side.Back(low, before, func(key, v []byte) error {
		if looked++; looked%rowsPerLook == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		if len(key) != len(low)+8 || len(v) < chainhash.HashSize {
			return x.side.Malformed(key, "malformed entry of a script")
		}
		if n := binary.BigEndian.Uint32(key[len(low):]); n != number { // one block may have many
			var err error
			if at, err = x.blockOf(n); err != nil {
				return err
			}
			number = n
		}
		if !at.active {
			return skipped(key)
		}
		r := Row{Block: at.hash, Height: at.height, Index: int(binary.BigEndian.Uint32(key[len(low)+4:]))}
		copy(r.TxID[:], v)
		rest := v[chainhash.HashSize:]
		if r.Outs, r.Received, rest = readCoins(rest); rest != nil {
			r.Ins, r.Sent, rest = readCoins(rest)
		}
		if rest == nil || len(rest) > 0 {
			return x.side.Malformed(key, "malformed entry of a script")
		}
		return f(key, r)
	})
}

// A Sum is all that happened to a script.
type Sum struct {
	Received, Sent int64 // satoshi
	Txs            int
	First, Last    int32 // heights; -1: none
}

// Sum adds up a script's entries. ErrBusy if there are too many; ctx's error.
func (x *Index) Sum(ctx context.Context, script []byte) (Sum, error) {
	s := Sum{First: -1, Last: -1}
	looked := 0
	look := func() error {
		if looked++; looked > MaxRows {
			return ErrBusy
		}
		return nil
	}
	err := x.rows(ctx, script, nil, func(_ []byte, r Row) error {
		if s.Last < 0 {
			s.Last = r.Height
		}
		s.First = r.Height
		s.Received += r.Received
		s.Sent += r.Sent
		s.Txs++
		return look()
	}, func([]byte) error { return look() })
	return s, err
}

// errPage ends a walk whose page is full.
var errPage = errors.New("the page is full")

// History returns up to most entries of a script, the latest first, behind a cursor (""
// the first), and the cursor of the next page ("" none). A page may be short, or empty,
// and have a next one all the same.
func (x *Index) History(ctx context.Context, script []byte, cursor string, most int) (rows []Row, next string, err error) {
	return x.page(ctx, script, cursor, func(r Row) (bool, error) {
		rows = append(rows, r)
		return len(rows) < most, nil
	}, &rows)
}

// An Unspent is an output that is not spent.
type Unspent struct {
	Out      wire.OutPoint
	Value    int64 // satoshi
	Height   int32
	Coinbase bool
}

// Unspent is History of the outputs that are not spent: at least most of them, if there
// are so many, and no transaction's only in part.
func (x *Index) Unspent(ctx context.Context, script []byte, cursor string, most int) (coins []Unspent, next string, err error) {
	looked := 0
	_, next, err = x.page(ctx, script, cursor, func(r Row) (bool, error) {
		for _, o := range r.Outs {
			op := wire.OutPoint{Hash: r.TxID, Index: o.N}
			c, ok, err := x.o.Chain.Coin(op)
			if err != nil {
				return false, err
			}
			if ok && bytes.Equal(c.Script, script) {
				coins = append(coins, Unspent{op, o.Value, r.Height, c.Coinbase})
			}
		}
		looked += 1 + len(r.Outs)
		return len(coins) < most && looked < maxSkipped, nil
	}, nil)
	return coins, next, err
}

// page walks behind a cursor until f says that it is enough.
func (x *Index) page(ctx context.Context, script []byte, cursor string, f func(Row) (more bool, err error), rows *[]Row) ([]Row, string, error) {
	k := part(script)
	low := append([]byte{prefixScript}, k[:]...)
	var before []byte
	if cursor != "" {
		raw, err := hex.DecodeString(cursor)
		if err != nil || len(raw) != 8 {
			return nil, "", ErrCursor
		}
		before = append(slices.Clone(low), raw...)
	}
	next, skipped := "", 0
	at := func(key []byte) error {
		next = hex.EncodeToString(key[len(low):])
		return errPage
	}
	err := x.rows(ctx, script, before, func(key []byte, r Row) error {
		more, err := f(r)
		if err != nil {
			return err
		}
		if !more {
			return at(key)
		}
		return nil
	}, func(key []byte) error {
		if skipped++; skipped >= maxSkipped {
			return at(key)
		}
		return nil
	})
	if errors.Is(err, errPage) {
		err = nil
	}
	if err != nil {
		return nil, "", err
	}
	if rows == nil {
		return nil, next, nil
	}
	return *rows, next, nil
}
