package jsonrpc

import (
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"github.com/btcsuite/btcd/address/v2"
	"github.com/btcsuite/btcd/txscript/v2"

	ouraddress "dunlin/internal/address"
)

var controlMethods = []method{
	{name: "help", params: "command?", help: "Lists the calls, or tells of one: arguments, result, an example.", run: help},
	{name: "stop", params: "wait?", help: "Stops the node.", run: func(c *call) (any, error) {
		c.o.Node.Stop()
		return "dunlin stopping", nil
	}},
	{name: "uptime", help: "Seconds since the start.", run: func(c *call) (any, error) {
		return int64(c.o.Now().Sub(c.started).Seconds()), nil
	}},
	{name: "getrpcinfo", help: "Calls that are being worked on.", run: getRPCInfo},
}

var utilMethods = []method{
	{name: "validateaddress", params: "address", help: "What an address is.", run: validateAddress},
	{name: "getdescriptorinfo", params: "descriptor", help: "Checksum of a descriptor (BIP380).", run: getDescriptorInfo},
	{name: "estimatesmartfee", params: "conf_target estimate_mode?", help: "Fee rate to be mined within so many blocks, by what the mempool holds.", run: estimateSmartFee},
}

func hash160(b []byte) []byte { return address.Hash160(b) }

func help(c *call) (any, error) {
	name, err := arg(c, 0, "")
	if err != nil {
		return nil, err
	}
	if name != "" {
		m := c.methods[name]
		if m == nil {
			return "help: unknown command: " + clip(name), nil
		}
		return m.describe(), nil
	}
	var b strings.Builder
	for i, category := range []string{"Blockchain", "Control", "Mining", "Network", "Rawtransactions", "Util", "Wallet"} {
		if i > 0 {
			b.WriteString("\n")
		}
		fmt.Fprintf(&b, "== %s ==\n", category)
		for _, name := range c.names {
			if m := c.methods[name]; m.category == category {
				b.WriteString(m.line() + "\n")
			}
		}
	}
	return b.String(), nil
}

func getRPCInfo(c *call) (any, error) {
	type active struct {
		Method   string `json:"method"`
		Duration int64  `json:"duration"` // µs
	}
	out := struct {
		Active []active `json:"active_commands"`
	}{Active: []active{}}
	c.mu.Lock()
	defer c.mu.Unlock()
	for other, since := range c.active {
		out.Active = append(out.Active, active{other.method.name, c.o.Now().Sub(since).Microseconds()})
	}
	slices.SortFunc(out.Active, func(a, b active) int { return int(b.Duration - a.Duration) })
	return out, nil
}

func validateAddress(c *call) (any, error) {
	text, err := arg(c, 0, "")
	if err != nil {
		return nil, err
	}
	script, err := ouraddress.Script(text, c.addr)
	if err != nil {
		return struct { //nolint:nilerr // that it is wrong is the answer
			Valid     bool   `json:"isvalid"`
			Error     string `json:"error"`
			Locations []int  `json:"error_locations"`
		}{false, err.Error(), []int{}}, nil
	}
	canonical, _ := ouraddress.Of(script, c.addr)
	out := struct {
		Valid   bool   `json:"isvalid"`
		Address string `json:"address"`
		Script  string `json:"scriptPubKey"`
		IsP2SH  bool   `json:"isscript"`
		Witness bool   `json:"iswitness"`
		Version *int   `json:"witness_version,omitempty"`
		Program string `json:"witness_program,omitempty"`
	}{Valid: true, Address: canonical, Script: hex.EncodeToString(script)}
	kind := ouraddress.Kind(script)
	out.IsP2SH = kind == "scripthash" || kind == "witness_v0_scripthash" || kind == "witness_v1_taproot"
	if version, program, err := txscript.ExtractWitnessProgramInfo(script); err == nil {
		out.Witness, out.Version, out.Program = true, &version, hex.EncodeToString(program)
	}
	return out, nil
}

func getDescriptorInfo(c *call) (any, error) {
	text, err := arg(c, 0, "")
	if err != nil {
		return nil, err
	}
	body, given, summed := strings.Cut(text, "#")
	sum := descriptorChecksum(body)
	if sum == "" {
		return nil, fault(codeInvalidAddress, "descriptor has characters that descriptors do not have")
	}
	if summed && given != sum {
		return nil, fault(codeInvalidAddress, "Provided checksum '%s' does not match computed checksum '%s'", clip(given), sum)
	}
	kind, _, _ := strings.Cut(body, "(")
	return struct {
		Descriptor string `json:"descriptor"`
		Checksum   string `json:"checksum"`
		IsRange    bool   `json:"isrange"`
		IsSolvable bool   `json:"issolvable"`
		Private    bool   `json:"hasprivatekeys"`
	}{body + "#" + sum, sum, strings.Contains(body, "*"), kind != "addr" && kind != "raw", strings.Contains(body, "prv")}, nil
}

// estimateSmartFee answers from the mempool alone: the rate at which the transactions
// that pay more fill as many blocks as are waited for. It knows no past; with a mempool
// that is not full, the least rate that gets in is enough.
func estimateSmartFee(c *call) (any, error) {
	target, err := intArg(c, 0, 0, 1, 1008)
	if err != nil {
		return nil, err
	}
	mode, err := arg(c, 1, "economical")
	if err != nil {
		return nil, err
	}
	switch strings.ToLower(mode) {
	case "unset", "economical", "conservative":
	default:
		return nil, fault(codeInvalidParameter, "Invalid estimate_mode parameter, must be one of: \"unset\", \"economical\", \"conservative\"")
	}
	if strings.EqualFold(mode, "conservative") {
		target = max(1, target/2) // as if blocks came half as fast
	}
	rate := c.o.Pool.FeeRates(int64(c.params.MaxBlockWeight), int(target))[0]
	return struct {
		Rate   amount `json:"feerate"`
		Blocks int64  `json:"blocks"`
	}{feeRate(rate), target}, nil
}
