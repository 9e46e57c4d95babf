package jsonrpc

import (
	"context"

	"dunlin/internal/api"
)

// reads are the calls that change nothing and tell nothing private: what a read-only user may make. A call that is not
// here is not for such users, so that a new one has to be thought about.
var reads = map[string]bool{
	"getbestblockhash": true, "getblock": true, "getblockchaininfo": true, "getblockcount": true, "getblockhash": true,
	"getblockheader": true, "getchaintips": true, "getdifficulty": true, "getindexinfo": true, "gettxout": true, "gettxoutsetinfo": true,
	"getmempoolancestors": true, "getmempooldescendants": true, "getmempoolentry": true, "getmempoolinfo": true, "getrawmempool": true,
	"help": true, "uptime": true, "getrpcinfo": true,
	"getblocktemplate": true, "getmininginfo": true, "getnetworkhashps": true,
	"getconnectioncount": true, "getnetworkinfo": true, "getpeerinfo": true, "listbanned": true,
	"decoderawtransaction": true, "decodescript": true, "getrawtransaction": true, "testmempoolaccept": true,
	"estimatesmartfee": true, "getdescriptorinfo": true, "validateaddress": true,
}

// mayCall says whether the caller of a request may make a call. Where nobody has looked at who calls, whoever serves the
// handler has seen to it.
func mayCall(ctx context.Context, method string) bool {
	c, known := api.CallerOf(ctx)
	return !known || c.MayCall(method, reads[method])
}
