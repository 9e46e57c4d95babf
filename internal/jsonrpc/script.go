package jsonrpc

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/btcsuite/btcd/txscript/v2"
	"github.com/btcsuite/btcd/wire/v2"

	"dunlin/internal/address"
)

// satoshiPerCoin and coinDigits are how amounts are written: coins with eight
// digits, as a JSON number.
const (
	satoshiPerCoin = 100_000_000
	coinDigits     = 8
	maxExponent    = 100 // of an amount as an argument
)

// An amount is in satoshi, and in coins in JSON.
type amount int64

// MarshalJSON implements json.Marshaler.
func (a amount) MarshalJSON() ([]byte, error) {
	sign, v := "", int64(a)
	if v < 0 {
		sign, v = "-", -v
	}
	return fmt.Appendf(nil, "%s%d.%08d", sign, v/satoshiPerCoin, v%satoshiPerCoin), nil
}

// UnmarshalJSON implements json.Unmarshaler: a number or a text of one, exactly. It may
// have an exponent, for that is how some clients write small ones (1e-05).
func (a *amount) UnmarshalJSON(b []byte) error {
	text := string(b)
	if len(b) > 0 && b[0] == '"' {
		if err := json.Unmarshal(b, &text); err != nil {
			return err
		}
	}
	bad := fmt.Errorf("amount %q: want coins with at most 8 decimals", clip(text))
	mantissa, exponent := text, 0
	if i := strings.IndexAny(text, "eE"); i >= 0 {
		e, err := strconv.Atoi(text[i+1:])
		if err != nil || e < -maxExponent || e > maxExponent {
			return bad
		}
		mantissa, exponent = text[:i], e
	}
	negative := strings.HasPrefix(mantissa, "-")
	whole, fraction, _ := strings.Cut(strings.TrimPrefix(mantissa, "-"), ".")
	digits := whole + fraction
	if whole == "" || strings.Trim(digits, "0123456789") != "" {
		return bad
	}
	// The value is digits·10^scale satoshi.
	scale := coinDigits + exponent - len(fraction)
	short := strings.TrimRight(digits, "0")
	scale += len(digits) - len(short)
	if short = strings.TrimLeft(short, "0"); short == "" {
		*a = 0
		return nil
	}
	if scale < 0 || len(short)+scale > 16 {
		return bad
	}
	v, err := strconv.ParseInt(short+strings.Repeat("0", scale), 10, 64)
	if err != nil {
		return bad
	}
	if negative {
		v = -v
	}
	*a = amount(v)
	return nil
}

// scriptPubKey describes an output script.
type scriptPubKey struct {
	Asm     string `json:"asm"`
	Desc    string `json:"desc,omitempty"`
	Hex     string `json:"hex"`
	Address string `json:"address,omitempty"`
	Type    string `json:"type"`
}

func (h *Handler) describeScript(script []byte) scriptPubKey {
	out := scriptPubKey{Asm: disassemble(script, false), Hex: hex.EncodeToString(script), Type: address.Kind(script)}
	out.Address, _ = address.Of(script, h.addr)
	out.Desc = h.descriptor(script, out.Type, out.Address)
	return out
}

// descriptor is what Core infers without keys: checksummed (BIP380).
func (h *Handler) descriptor(script []byte, kind, addr string) string {
	text := "raw(" + hex.EncodeToString(script) + ")"
	switch kind {
	case "pubkey", "multisig":
		_, keys, required, err := txscript.ExtractPkScriptAddrs(script, h.addr)
		if err != nil || len(keys) == 0 {
			break
		}
		parts := make([]string, 0, len(keys))
		for _, k := range keys {
			parts = append(parts, hex.EncodeToString(k.ScriptAddress()))
		}
		if kind == "pubkey" {
			text = "pk(" + parts[0] + ")"
		} else {
			text = fmt.Sprintf("multi(%d,%s)", required, strings.Join(parts, ","))
		}
	case "witness_v1_taproot":
		text = "rawtr(" + hex.EncodeToString(script[2:]) + ")"
	default:
		if addr != "" {
			text = "addr(" + addr + ")"
		}
	}
	return text + "#" + descriptorChecksum(text)
}

// descriptorChecksum is BIP380's: eight characters, or none for a text with characters
// outside its set.
func descriptorChecksum(text string) string {
	const (
		input = "0123456789()[],'/*abcdefgh@:$%{}" +
			"IJKLMNOPQRSTUVWXYZ&+-.;<=>?!^_|~" +
			"ijklmnopqrstuvwxyzABCDEFGH`#\"\\ "
		output = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
	)
	step := func(c uint64, v int) uint64 {
		top := c >> 35
		c = (c&0x7ffffffff)<<5 ^ uint64(v)
		for i, g := range []uint64{0xf5dee51989, 0xa9fdca3312, 0x1bab10e32d, 0x3706b1677a, 0x644d626ffd} {
			if top>>i&1 != 0 {
				c ^= g
			}
		}
		return c
	}
	c, class, count := uint64(1), 0, 0
	for _, r := range text {
		p := strings.IndexRune(input, r)
		if p < 0 {
			return ""
		}
		c = step(c, p&31)
		class = class*3 + p>>5
		if count++; count == 3 {
			c, class, count = step(c, class), 0, 0
		}
	}
	if count > 0 {
		c = step(c, class)
	}
	for range 8 {
		c = step(c, 0)
	}
	c ^= 1
	var sum strings.Builder
	for i := range 8 {
		sum.WriteByte(output[c>>(5*(7-i))&31])
	}
	return sum.String()
}

// sigHashNames are what Core writes behind a signature in a script.
var sigHashNames = map[txscript.SigHashType]string{
	txscript.SigHashAll:                                   "ALL",
	txscript.SigHashNone:                                  "NONE",
	txscript.SigHashSingle:                                "SINGLE",
	txscript.SigHashAll | txscript.SigHashAnyOneCanPay:    "ALL|ANYONECANPAY",
	txscript.SigHashNone | txscript.SigHashAnyOneCanPay:   "NONE|ANYONECANPAY",
	txscript.SigHashSingle | txscript.SigHashAnyOneCanPay: "SINGLE|ANYONECANPAY",
}

// disassemble writes a script as Core's ScriptToAsmStr does: pushes of up to four
// bytes as numbers, longer ones in hex, signatures (if asked for) with their type.
func disassemble(script []byte, signatures bool) string {
	var parts []string
	unspendable := len(script) > 0 && script[0] == txscript.OP_RETURN
	t := txscript.MakeScriptTokenizer(0, script)
	for t.Next() {
		op, data := t.Opcode(), t.Data()
		switch {
		case op == txscript.OP_0:
			parts = append(parts, "0")
		case op <= txscript.OP_PUSHDATA4 && len(data) <= 4:
			parts = append(parts, strconv.FormatInt(scriptNumber(data), 10))
		case op <= txscript.OP_PUSHDATA4:
			parts = append(parts, pushed(data, signatures && !unspendable))
		case op == txscript.OP_1NEGATE:
			parts = append(parts, "-1")
		case op >= txscript.OP_1 && op <= txscript.OP_16:
			parts = append(parts, strconv.Itoa(int(op-txscript.OP_1+1)))
		default:
			parts = append(parts, opcodeName(op))
		}
	}
	if t.Err() != nil {
		parts = append(parts, "[error]")
	}
	return strings.Join(parts, " ")
}

func pushed(data []byte, signatures bool) string {
	if signatures && len(data) > 8 && data[0] == 0x30 {
		if name, ok := sigHashNames[txscript.SigHashType(data[len(data)-1])]; ok && int(data[1])+3 == len(data) {
			return hex.EncodeToString(data[:len(data)-1]) + "[" + name + "]"
		}
	}
	return hex.EncodeToString(data)
}

// scriptNumber reads a little-endian number with a sign bit, of at most 4 bytes.
func scriptNumber(b []byte) int64 {
	var v int64
	for i, x := range b {
		v |= int64(x) << (8 * i)
	}
	if n := len(b); n > 0 && b[n-1]&0x80 != 0 {
		v = -(v &^ (0x80 << (8 * (n - 1))))
	}
	return v
}

// opcodeName is Core's name for an opcode that pushes nothing.
func opcodeName(op byte) string {
	text, err := txscript.DisasmString([]byte{op})
	switch {
	case op == txscript.OP_CHECKLOCKTIMEVERIFY:
		return "OP_CHECKLOCKTIMEVERIFY"
	case op == txscript.OP_CHECKSEQUENCEVERIFY:
		return "OP_CHECKSEQUENCEVERIFY"
	case op == txscript.OP_CHECKSIGADD:
		return "OP_CHECKSIGADD"
	case err != nil || strings.HasPrefix(text, "OP_UNKNOWN") || op == txscript.OP_INVALIDOPCODE:
		return "OP_UNKNOWN"
	}
	return text
}

// txIn is an input as Core shows it.
type txIn struct {
	Coinbase  string     `json:"coinbase,omitempty"`
	TxID      string     `json:"txid,omitempty"`
	Vout      *uint32    `json:"vout,omitempty"`
	ScriptSig *scriptSig `json:"scriptSig,omitempty"`
	Witness   []string   `json:"txinwitness,omitempty"`
	Prevout   *prevout   `json:"prevout,omitempty"`
	Sequence  uint32     `json:"sequence"`
}

type scriptSig struct {
	Asm string `json:"asm"`
	Hex string `json:"hex"`
}

type prevout struct {
	Generated bool         `json:"generated"`
	Height    int32        `json:"height"`
	Value     amount       `json:"value"`
	Script    scriptPubKey `json:"scriptPubKey"`
}

type txOut struct {
	Value  amount       `json:"value"`
	N      int          `json:"n"`
	Script scriptPubKey `json:"scriptPubKey"`
}

// rawTx is a transaction as Core shows it.
type rawTx struct {
	InActiveChain *bool   `json:"in_active_chain,omitempty"`
	TxID          string  `json:"txid"`
	Hash          string  `json:"hash"`
	Version       uint32  `json:"version"`
	Size          int     `json:"size"`
	VSize         int     `json:"vsize"`
	Weight        int     `json:"weight"`
	LockTime      uint32  `json:"locktime"`
	In            []txIn  `json:"vin"`
	Out           []txOut `json:"vout"`
	Fee           *amount `json:"fee,omitempty"`
	Hex           string  `json:"hex,omitempty"`
	BlockHash     string  `json:"blockhash,omitempty"`
	Confirmations *int32  `json:"confirmations,omitempty"`
	Time          int64   `json:"time,omitempty"`
	BlockTime     int64   `json:"blocktime,omitempty"`
}

// describeTx shows a transaction; with raw, in hex too.
func (h *Handler) describeTx(tx *wire.MsgTx, raw bool) (*rawTx, error) {
	weight := txWeight(tx)
	out := &rawTx{
		TxID: tx.TxHash().String(), Hash: tx.WitnessHash().String(), Version: uint32(tx.Version),
		Size: tx.SerializeSize(), VSize: (weight + 3) / 4, Weight: weight, LockTime: tx.LockTime,
		In: make([]txIn, len(tx.TxIn)), Out: make([]txOut, len(tx.TxOut)),
	}
	for i, in := range tx.TxIn {
		v := txIn{Sequence: in.Sequence}
		if isCoinbase(tx) {
			v.Coinbase = hex.EncodeToString(in.SignatureScript)
		} else {
			v.TxID, v.Vout = in.PreviousOutPoint.Hash.String(), &in.PreviousOutPoint.Index
			v.ScriptSig = &scriptSig{disassemble(in.SignatureScript, true), hex.EncodeToString(in.SignatureScript)}
		}
		for _, item := range in.Witness {
			v.Witness = append(v.Witness, hex.EncodeToString(item))
		}
		out.In[i] = v
	}
	for i, o := range tx.TxOut {
		out.Out[i] = txOut{amount(o.Value), i, h.describeScript(o.PkScript)}
	}
	if raw {
		text, err := txHex(tx)
		if err != nil {
			return nil, err
		}
		out.Hex = text
	}
	return out, nil
}

func isCoinbase(tx *wire.MsgTx) bool {
	return len(tx.TxIn) == 1 && tx.TxIn[0].PreviousOutPoint.Index == wire.MaxPrevOutIndex && tx.TxIn[0].PreviousOutPoint.Hash == [32]byte{}
}

// txWeight is BIP141's.
func txWeight(tx *wire.MsgTx) int { return 3*tx.SerializeSizeStripped() + tx.SerializeSize() }

func txHex(tx *wire.MsgTx) (string, error) {
	var b strings.Builder
	b.Grow(2 * tx.SerializeSize())
	if err := tx.Serialize(hex.NewEncoder(&b)); err != nil {
		return "", err
	}
	return b.String(), nil
}
