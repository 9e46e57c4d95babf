package jsonrpc

import (
	"fmt"
	"strings"
)

// A manual is what help CALL says beside the call's line and arguments.
type manual struct {
	result  string
	example string            // params of a request, a JSON array
	args    map[string]string // where an argument means something else than in argumentHelp
}

// argumentHelp says what arguments are that have the same name, hence meaning, in all calls
// but those with words of their own.
var argumentHelp = map[string]string{
	"absolute":              "boolean, default false: bantime is a Unix time, not seconds from now",
	"action":                "text: start, status or abort",
	"address":               "text: an address",
	"address_type":          "text: legacy, p2sh-segwit, bech32 or bech32m",
	"addresses":             "array of texts: only coins of these addresses",
	"amount":                "number: coins, at most 8 decimals",
	"amounts":               "object: what each address gets, in coins",
	"avoid_reuse":           "boolean: taken and not used",
	"bantime":               "number: seconds; 0 is a day",
	"bip32derivs":           "boolean: taken and not used",
	"blockhash":             "hex: hash of a block",
	"comment":               "text: becomes the payment's label",
	"comment_to":            "text: taken and not used",
	"conf_target":           "number: blocks to wait, 1 to 1008",
	"count":                 "number, default 10: at most so many",
	"descriptor":            "text: a descriptor, with or without its checksum",
	"destination":           "text: a path on the node's machine",
	"dummy":                 "anything: kept for old clients",
	"estimate_mode":         "text, default economical: unset, economical or conservative",
	"extract":               "boolean, default true: give the transaction's hex if it is complete",
	"fee_rate":              "number: satoshi per virtual byte",
	"finalize":              "boolean, default true: finish inputs that have all signatures", //nolint:misspell // Core's name
	"hash_type":             "text, default hash_serialized_3: that or none",
	"height":                "number: height of a block",
	"hexdata":               "hex: a block",
	"hexstring":             "hex: a transaction",
	"include_mempool":       "boolean, default true: what the mempool spends is spent",
	"include_unsafe":        "boolean, default true: unconfirmed coins of others too",
	"include_watchonly":     "boolean: taken and not used",
	"index_name":            "text: only this index",
	"inputs":                "array of objects: txid, vout and, if wanted, sequence",
	"iswitness":             "boolean: taken and not used, the form shows it",
	"label":                 "text: a name",
	"locktime":              "number, default 0: height or Unix time before which it is not valid",
	"maxburnamount":         "number, default 0: most coins that outputs nobody can spend may have",
	"maxconf":               "number: at most so many confirmations",
	"maxfeerate":            "number, default 0.1: most coins per 1000 virtual bytes; 0 is no limit",
	"maxtries":              "number: taken and not used",
	"mempool_sequence":      "boolean, default false: tell the mempool's sequence number",
	"minconf":               "number: at least so many confirmations",
	"n":                     "number: place of the output, from 0",
	"nblocks":               "number: how many blocks",
	"newpassphrase":         "text: the passphrase from now on",
	"node":                  "text: a multiaddr with the peer's id",
	"nodeid":                "number: id of getpeerinfo",
	"num_blocks":            "number: how many blocks",
	"oldpassphrase":         "text: the passphrase until now",
	"options":               "object: as Core's, those that apply",
	"outputs":               "array of objects, or an object: addresses with coins, data with hex",
	"passphrase":            "text: the wallet's passphrase",
	"persistent":            "boolean: taken and not used",
	"prevtxs":               "array of objects: outputs that are spent and not known: txid, vout, scriptPubKey, amount",
	"private":               "boolean, default false: true is refused, keys do not leave",
	"psbt":                  "text: a PSBT in base64",
	"query_options":         "object: taken and not used",
	"rawtxs":                "array of hex: 1 to 25 transactions, parents first",
	"replaceable":           "boolean, default true: signal that it may be replaced (BIP125)",
	"requests":              "array of objects: desc, timestamp and, if wanted, label, range, active, internal",
	"scanobjects":           "array of texts or objects: descriptors addr() and raw(), for start",
	"sighashtype":           "text: DEFAULT or ALL; another is refused, signatures commit to everything",
	"sign":                  "boolean, default true: sign too",
	"skip":                  "number, default 0: leave out so many of the last",
	"start_height":          "number, default 0: the first block",
	"stop_height":           "number: taken and not used, the end is the tip",
	"subnet":                "text: an IP address, a network in CIDR form or a peer id",
	"subtractfeefrom":       "array of texts: addresses that share the fee",
	"subtractfeefromamount": "boolean, default false: the fee is taken from amount",
	"template_request":      "object: rules (must have segwit), mode (template or proposal), longpollid, data (of a proposal: the block in hex)",
	"timeout":               "number: seconds",
	"transactions":          "array of objects: txid and vout; none: all",
	"txid":                  "hex: id of a transaction",
	"txs":                   "array of texts: PSBTs of the same transaction, in base64",
	"unlock":                "boolean: free them, not set them aside",
	"v2transport":           "boolean: taken and not used",
	"verbose":               "boolean, default false: an object, not the short form",
	"wait":                  "number: taken and not used",
}

const (
	exampleHash    = `"0f9188f13cb7b2c71f2a335e3a4fc328bf5beb436012afca590b1a11466e2206"`
	exampleTxID    = `"4a5e1e4baab89f3a32518a88c31bc87f618f76673e2cc77ab2127b7afdeda33b"`
	exampleAddress = `"bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080"`
	exampleTx      = `"02000000013ba3edfd7a7b12b2…00000000"`
	examplePSBT    = `"cHNidP8BAHUCAAAAASaBcTce3/KF6Tet7qSze3gADAVmy7OtZGQXE8pCFxv2AAAAAAD+////…"`
	examplePayment = `[[{"txid":` + exampleTxID + `,"vout":0}],[{` + exampleAddress + `:0.5}]]`
)

// manuals has every call; TestHelp sees to it.
var manuals = map[string]manual{
	"getbestblockhash": {result: "hex: the hash", example: `[]`},
	"getblockcount":    {result: "number: the height; genesis is 0", example: `[]`},
	"getblockhash":     {result: "hex: the hash", example: `[0]`},
	"getblock": {
		result: "hex, or an object: the header's fields, strippedsize, size, weight, tx", example: `[` + exampleHash + `,2]`,
		args: map[string]string{"verbosity": "number, default 1: 0 hex, 1 with ids, 2 with transactions, 3 with what they spend; or a boolean: false 0, true 1"},
	},
	"getblockheader": {
		result: "hex, or an object: hash, confirmations (-1: not in the chain), height, version, merkleroot, time, mediantime, nonce, bits, target, difficulty, chainwork, nTx, previousblockhash, nextblockhash",
		args:   map[string]string{"verbose": "boolean, default true: an object, not hex"}, example: `[` + exampleHash + `]`,
	},
	"getblockchaininfo": {result: "object: chain, blocks, headers, bestblockhash, difficulty, time, mediantime, verificationprogress (0 to 1), initialblockdownload, chainwork, size_on_disk (bytes), pruned, warnings", example: `[]`},
	"getchaintips":      {result: "array of objects: height, hash, branchlen (blocks from the chain), status (active, valid-fork, valid-headers, headers-only or invalid)", example: `[]`},
	"getdifficulty":     {result: "number: how many times harder than the easiest target", example: `[]`},
	"gettxout":          {result: "object: bestblock, confirmations, value, scriptPubKey, coinbase; null if it is spent or was never", example: `[` + exampleTxID + `,0]`},
	"getindexinfo":      {result: "object: of each index, synced and best_block_height", example: `[]`},
	"scantxoutset":      {result: "object: success, txouts, height, bestblock, unspents, total_amount; of status: progress in percent, or null; of abort: whether there was one", example: `["start",["addr(bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080)"]]`},
	"gettxoutsetinfo":   {result: "object: height, bestblock, txouts, bogosize, hash_serialized_3, total_amount, transactions, disk_size (bytes)", example: `["none"]`},
	"invalidateblock":   {result: "null, when the chain has left the block", example: `[` + exampleHash + `]`},
	"reconsiderblock":   {result: "null", example: `[` + exampleHash + `]`},
	"getmempoolinfo":    {result: "object: loaded, size (transactions), bytes (virtual), usage (bytes of memory), total_fee, maxmempool, mempoolminfee, minrelaytxfee", example: `[]`},
	"getrawmempool":     {result: "array of ids, or an object of entries by id", example: `[true]`},
	"getmempoolentry":   {result: "object: vsize, weight, time, height, counts, sizes and fees of ancestors and descendants, wtxid, fees, depends, spentby", example: `[` + exampleTxID + `]`},
	"getmempoolancestors": {
		result: "array of ids, or an object of entries by id", example: `[` + exampleTxID + `]`,
	},
	"getmempooldescendants": {result: "array of ids, or an object of entries by id", example: `[` + exampleTxID + `]`},

	"help":       {result: "text", example: `["getblock"]`, args: map[string]string{"command": "text: the name of a call; without it all are listed"}},
	"stop":       {result: "text: that it stops", example: `[]`},
	"uptime":     {result: "number: seconds", example: `[]`},
	"getrpcinfo": {result: "object: active_commands, each with method and duration (µs)", example: `[]`},

	"validateaddress":   {result: "object: isvalid; of a good one address, scriptPubKey, isscript, iswitness, witness_version, witness_program; of another error", example: `[` + exampleAddress + `]`},
	"getdescriptorinfo": {result: "object: descriptor (with checksum), checksum, isrange, issolvable, hasprivatekeys", example: `["raw(deadbeef)"]`},
	"estimatesmartfee":  {result: "object: feerate (coins per 1000 virtual bytes), blocks", example: `[6,"economical"]`},

	"getblocktemplate": {
		result:  "object: what BIP22, BIP23 and BIP145 say; of a proposal null if the block would be accepted were it proven, else text: why not",
		example: `[{"rules":["segwit"]}]`,
	},
	"submitblock":          {result: "null if it is the tip now, else text: duplicate, inconclusive, prev-blk-not-found or the rule that it breaks", example: `["00000020…"]`},
	"submitheader":         {result: "null", example: `["00000020…"]`, args: map[string]string{"hexdata": "hex: a header"}},
	"generatetoaddress":    {result: "array of hex: hashes of the blocks", example: `[1,` + exampleAddress + `]`},
	"generatetodescriptor": {result: "array of hex: hashes of the blocks", example: `[1,"raw(51)"]`},
	"getmininginfo":        {result: "object: blocks, bits, difficulty, target, networkhashps, pooledtx, chain, next, warnings", example: `[]`},
	"getstakinginfo":       {result: "object: enabled, staking, errors, pooledtx, difficulty, search-interval, weight, netstakeweight, expectedtime", example: `[]`},
	"getnetworkhashps": {
		result: "number: hashes per second", example: `[120,-1]`,
		args: map[string]string{"nblocks": "number, default 120: over so many blocks; -1 since the last change of difficulty", "height": "number, default -1: up to this block; -1 is the tip"},
	},

	"getpeerinfo":        {result: "array of objects: id, addr, peer_id, multiaddr, subver, inbound, conntime, bytessent, bytesrecv, pingtime and more", example: `[]`},
	"getconnectioncount": {result: "number", example: `[]`},
	"getnetworkinfo":     {result: "object: version, subversion, protocolversion, connections, connections_in, connections_out, relayfee, localaddresses, warnings and more", example: `[]`},
	"addnode": {
		result: "null", example: `["/ip4/192.0.2.1/tcp/9333/p2p/12D3KooW…","add"]`,
		args: map[string]string{"command": "text: add, remove or onetry"},
	},
	"disconnectnode": {result: "null", example: `["",3]`, args: map[string]string{"address": "text: address or peer id of getpeerinfo; empty with nodeid"}},
	"setban":         {result: "null", example: `["192.0.2.0/24","add",86400]`, args: map[string]string{"command": "text: add or remove"}},
	"listbanned":     {result: "array of objects: address, ban_created, banned_until, ban_duration, time_remaining (seconds)", example: `[]`},
	"clearbanned":    {result: "null", example: `[]`},

	"decoderawtransaction": {result: "object: txid, hash, version, size, vsize, weight, locktime, vin, vout", example: `[` + exampleTx + `]`},
	"decodescript":         {result: "object: asm, desc, type, address, p2sh, segwit", example: `["5175"]`, args: map[string]string{"hexstring": "hex: a script"}},
	"getrawtransaction": {
		result: "hex, or an object as of decoderawtransaction with blockhash, confirmations, time", example: `[` + exampleTxID + `,1]`,
		args: map[string]string{"verbosity": "number, default 0: 0 hex, 1 shown, 2 with what it spends; or a boolean", "blockhash": "hex: the block that has it"},
	},
	"sendrawtransaction": {result: "hex: its id", example: `[` + exampleTx + `]`},
	"testmempoolaccept": {
		result:  "array of objects, one a transaction: txid, wtxid, allowed (none if what stands before it was refused), vsize, fees, reject-reason, reject-details, package-error",
		example: `[[` + exampleTx + `]]`,
	},

	"getnewaddress":       {result: "text: the address", example: `["shop","bech32"]`},
	"getrawchangeaddress": {result: "text: the address", example: `[]`},
	"getaddressinfo":      {result: "object: address, scriptPubKey, ismine, solvable, ischange, labels, hdkeypath and more", example: `[` + exampleAddress + `]`},
	"setlabel":            {result: "null", example: `[` + exampleAddress + `,"rent"]`},
	"getbalance":          {result: "number: coins", example: `[]`, args: map[string]string{"dummy": `text: "*" or nothing`}},
	"getbalances":         {result: "object: mine, with trusted, untrusted_pending and immature", example: `[]`},
	"getunconfirmedbalance": {
		result: "number: coins", example: `[]`,
	},
	"listunspent":        {result: "array of objects: txid, vout, address, label, scriptPubKey, amount, confirmations, spendable, solvable, safe", example: `[1,9999999]`},
	"lockunspent":        {result: "true", example: `[false,[{"txid":` + exampleTxID + `,"vout":0}]]`},
	"listlockunspent":    {result: "array of objects: txid, vout", example: `[]`},
	"sendtoaddress":      {result: "hex: id of the payment; verbose: an object with it and fee_reason", example: `[` + exampleAddress + `,0.1,"rent"]`},
	"sendmany":           {result: "hex: id of the payment; verbose: an object with it and fee_reason", example: `["",{` + exampleAddress + `:0.1}]`},
	"listtransactions":   {result: "array of objects: address, category, amount, label, vout, fee, confirmations, blockhash, txid, time", example: `["*",10]`, args: map[string]string{"label": `text: only payments with it; "*" is all`}},
	"gettransaction":     {result: "object: amount, fee, confirmations, blockhash, txid, time, details, hex; verbose: decoded too", example: `[` + exampleTxID + `]`},
	"abandontransaction": {result: "null", example: `[` + exampleTxID + `]`},
	"bumpfee":            {result: "object: txid, origfee, fee, errors", example: `[` + exampleTxID + `,{"fee_rate":20}]`},
	"getwalletinfo":      {result: "object: walletname, balance and its parts, txcount, unlocked_until, scanning and more", example: `[]`},
	"listwallets":        {result: "array of texts: its name, which is empty; or nothing", example: `[]`},
	"walletpassphrase":   {result: "null", example: `["correct horse battery staple",60]`},
	"walletlock":         {result: "null", example: `[]`},
	"walletpassphrasechange": {
		result: "null", example: `["correct horse battery staple","four other random words"]`,
	},
	"createrawtransaction":         {result: "hex: the transaction", example: examplePayment},
	"fundrawtransaction":           {result: "object: hex, fee, changepos (-1: no change)", example: `[` + exampleTx + `]`},
	"signrawtransactionwithwallet": {result: "object: hex, complete, errors", example: `[` + exampleTx + `]`},
	"walletcreatefundedpsbt":       {result: "object: psbt, fee, changepos (-1: no change)", example: `[[],[{` + exampleAddress + `:0.5}]]`},
	"walletprocesspsbt":            {result: "object: psbt, complete, hex if it is", example: `[` + examplePSBT + `]`},
	"finalizepsbt":                 {result: "object: psbt or hex, complete", example: `[` + examplePSBT + `]`},
	"combinepsbt":                  {result: "text: the PSBT in base64", example: `[[` + examplePSBT + `]]`},
	"decodepsbt":                   {result: "object: tx, inputs with what each lacks (missing), outputs, fee", example: `[` + examplePSBT + `]`},
	"importdescriptors":            {result: "array of objects, one a request: success, error", example: `[[{"desc":"raw(deadbeef)#89f8spxm","timestamp":"now"}]]`},
	"listdescriptors":              {result: "object: wallet_name, descriptors", example: `[]`},
	"rescanblockchain":             {result: "object: start_height, stop_height", example: `[100000]`},
	"backupwallet":                 {result: "null", example: `["/backup/wallet"]`},
	"dumpprivkey":                  {result: "nothing: it always answers -4", example: `[` + exampleAddress + `]`},
}

// describe is what help says of the call.
func (m *method) describe() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n\n%s\n", m.line(), m.help)
	man := manuals[m.name]
	for i, param := range strings.Fields(m.params) {
		if i == 0 {
			b.WriteString("\nArguments:\n")
		}
		name := m.names()[i]
		text, ok := man.args[name]
		if !ok {
			text = argumentHelp[name]
		}
		need := "required"
		if strings.HasSuffix(param, "?") {
			need = "optional"
		}
		fmt.Fprintf(&b, "%d. %s (%s) %s\n", i+1, name, need, text)
	}
	fmt.Fprintf(&b, "\nResult:\n%s\n\nExample:\n", man.result)
	fmt.Fprintf(&b, `> curl -s --user "$(cat api.cookie)" -H 'Content-Type: application/json' -d '{"method":"%s","params":%s,"id":1}' http://127.0.0.1:9332/`, m.name, man.example)
	return b.String()
}

// line is the call as the list has it.
func (m *method) line() string {
	if m.params == "" {
		return m.name
	}
	return m.name + " " + m.usage()
}
