package jsonrpc

import (
	"cmp"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/wire/v2"

	"dunlin/internal/address"
	"dunlin/internal/wallet"
	"dunlin/internal/wallet/spend"
)

var walletMethods = []method{
	{name: "getnewaddress", params: "label? address_type?", help: "A new address.", run: getNewAddress},
	{name: "getrawchangeaddress", params: "address_type?", help: "A new address for change.", run: getRawChangeAddress},
	{name: "getaddressinfo", params: "address", help: "What the wallet knows of an address.", run: getAddressInfo},
	{name: "setlabel", params: "address label", help: "Names an address.", run: setLabel},
	{name: "getbalance", params: "dummy? minconf? include_watchonly? avoid_reuse?", help: "What can be spent, and is as deep as minconf.", run: getBalance},
	{name: "getbalances", help: "What the coins are worth, by state.", run: getBalances},
	{name: "getunconfirmedbalance", help: "What others have sent and is in no block.", run: getUnconfirmedBalance},
	{name: "listunspent", params: "minconf? maxconf? addresses? include_unsafe? query_options?", help: "Unspent coins.", run: listUnspent},
	{name: "lockunspent", params: "unlock transactions? persistent?", help: "Sets coins aside, or frees them.", run: lockUnspent},
	{name: "listlockunspent", help: "Coins that were set aside.", run: listLockUnspent},
	{name: "sendtoaddress", params: "address amount comment? comment_to? subtractfeefromamount? replaceable? conf_target? estimate_mode? avoid_reuse? fee_rate? verbose?", help: "Pays an address.", run: sendToAddress},
	{name: "sendmany", params: "dummy amounts minconf? comment? subtractfeefrom? replaceable? conf_target? estimate_mode? fee_rate? verbose?", help: "Pays several addresses.", run: sendMany},
	{name: "listtransactions", params: "label? count? skip? include_watchonly?", help: "The last payments, oldest first.", run: listTransactions},
	{name: "gettransaction", params: "txid include_watchonly? verbose?", help: "A payment of the wallet.", run: getTransaction},
	{name: "abandontransaction", params: "txid", help: "Gives a payment up that is not in the mempool.", run: abandonTransaction},
	{name: "bumpfee", params: "txid options?", help: "Replaces a payment by one that pays a higher fee.", run: bumpFee},
	{name: "getwalletinfo", help: "State of the wallet.", run: getWalletInfo},
	{name: "listwallets", help: "The wallet, if there is one.", run: func(c *call) (any, error) {
		if c.o.Wallet == nil || !c.o.Wallet.Exists() {
			return []string{}, nil
		}
		return []string{""}, nil
	}},
	{name: "walletpassphrase", params: "passphrase timeout", help: "Lets the wallet sign for so many seconds.", run: walletPassphrase},
	{name: "walletlock", help: "Seals the keys.", run: walletLock},
	{name: "walletpassphrasechange", params: "oldpassphrase newpassphrase", help: "Changes the passphrase.", run: walletPassphraseChange},
	{name: "createrawtransaction", params: "inputs outputs locktime? replaceable?", help: "An unsigned transaction.", run: createRawTransaction},
	{name: "fundrawtransaction", params: "hexstring options? iswitness?", help: "Adds coins and change to a transaction.", run: fundRawTransaction},
	{name: "signrawtransactionwithwallet", params: "hexstring prevtxs? sighashtype?", help: "Signs a transaction.", run: signRawTransactionWithWallet},
	{name: "walletcreatefundedpsbt", params: "inputs outputs locktime? options? bip32derivs?", help: "A PSBT with coins and change.", run: walletCreateFundedPSBT},
	{name: "walletprocesspsbt", params: "psbt sign? sighashtype? bip32derivs? finalize?", help: "Adds what the wallet knows, and its signatures.", run: walletProcessPSBT}, //nolint:misspell // Core's name
	{name: "finalizepsbt", params: "psbt extract?", help: "Makes the transaction.", run: finalizePSBT},
	{name: "combinepsbt", params: "txs", help: "Gathers signatures.", run: combinePSBT},
	{name: "decodepsbt", params: "psbt", help: "What a PSBT would do.", run: decodePSBT},
	{name: "importdescriptors", params: "requests", help: "Watches descriptors, or takes their keys over.", run: importDescriptors},
	{name: "listdescriptors", params: "private?", help: "Where addresses come from, without keys.", run: listDescriptors},
	{name: "rescanblockchain", params: "start_height? stop_height?", help: "Looks through the chain again, in the background.", run: rescanBlockchain},
	{name: "backupwallet", params: "destination", help: "Copies the encrypted keys to a file on this machine.", run: backupWallet},
	{name: "dumpprivkey", params: "address", help: "Not here: keys never leave through an interface.", run: func(*call) (any, error) {
		return nil, fault(codeWallet, "private keys never leave the wallet through this interface; its words are the way to take them elsewhere")
	}},
}

// Core's codes of the wallet.
const (
	codeInsufficientFunds = -6
	codeInvalidLabel      = -11
	codeUnlockNeeded      = -13
	codePassphraseWrong   = -14
	codeWrongEncState     = -15
	codeWalletNotFound    = -18

	maxUnlockSeconds = 100_000_000 // Core's
	maxListed        = 10_000
	defaultListed    = 10
)

// walletFault gives the wallet's errors Core's codes.
func walletFault(err error) error {
	var request *wallet.RequestError
	var refusal *wallet.RefusalError
	var short *spend.ShortError
	var fee *spend.FeeError
	var dust *spend.DustError
	switch {
	case err == nil:
		return nil
	case errors.Is(err, wallet.ErrNone):
		return fault(codeWalletNotFound, "No wallet is loaded: %v", err)
	case errors.Is(err, wallet.ErrLocked):
		return fault(codeUnlockNeeded, "Error: Please enter the wallet passphrase with walletpassphrase first.")
	case errors.Is(err, wallet.ErrPassword):
		return fault(codePassphraseWrong, "Error: The wallet passphrase entered was incorrect.")
	case errors.As(err, &short):
		return fault(codeInsufficientFunds, "Insufficient funds: %v", short)
	case errors.Is(err, wallet.ErrUnknown):
		return fault(codeInvalidAddress, "%v", err)
	case errors.As(err, &request):
		return fault(codeInvalidParameter, "%s", request.Reason)
	case errors.As(err, &refusal), errors.As(err, &fee), errors.As(err, &dust), errors.Is(err, wallet.ErrBroken),
		errors.Is(err, spend.ErrTooLarge), errors.Is(err, spend.ErrForged):
		return fault(codeWallet, "%v", err)
	}
	return err
}

// theWallet returns the wallet; -18 if there is none.
func (c *call) theWallet() (*wallet.Wallet, error) {
	if c.o.Wallet == nil || !c.o.Wallet.Info().Exists {
		return nil, walletFault(wallet.ErrNone)
	}
	return c.o.Wallet, nil
}

// Names of address types as Core has them, by ours.
var addressTypes = map[string]string{"legacy": "p2pkh", "p2sh-segwit": "p2sh-p2wpkh", "bech32": "p2wpkh", "bech32m": "p2tr", "": ""}

func newAddress(c *call, label string, at int, change bool) (any, error) {
	w, err := c.theWallet()
	if err != nil {
		return nil, err
	}
	name, err := arg(c, at, "")
	if err != nil {
		return nil, err
	}
	kind, ok := addressTypes[name]
	if !ok {
		return nil, fault(codeInvalidAddress, "Unknown address type '%s'", clip(name))
	}
	a, err := w.NewAddress(kind, label, change)
	if err != nil {
		return nil, walletFault(err)
	}
	return a.Address, nil
}

func getNewAddress(c *call) (any, error) {
	label, err := arg(c, 0, "")
	if err != nil {
		return nil, err
	}
	if label == "*" {
		return nil, fault(codeInvalidLabel, "Invalid label name")
	}
	return newAddress(c, label, 1, false)
}

func getRawChangeAddress(c *call) (any, error) { return newAddress(c, "", 0, true) }

// addressArg is an address as a script.
func (c *call) addressScript(text string) ([]byte, error) {
	script, err := address.Script(text, c.addr)
	if err != nil {
		return nil, fault(codeInvalidAddress, "Invalid address: %s: %v", clip(text), err)
	}
	return script, nil
}

func getAddressInfo(c *call) (any, error) {
	w, err := c.theWallet()
	if err != nil {
		return nil, err
	}
	text, err := arg(c, 0, "")
	if err != nil {
		return nil, err
	}
	script, err := c.addressScript(text)
	if err != nil {
		return nil, err
	}
	a, mine := w.Mine(script)
	canonical, _ := address.Of(script, c.addr)
	out := struct {
		Address   string   `json:"address"`
		Script    string   `json:"scriptPubKey"`
		Mine      bool     `json:"ismine"`
		WatchOnly bool     `json:"iswatchonly"`
		Solvable  bool     `json:"solvable"`
		Desc      string   `json:"desc,omitempty"`
		Parent    string   `json:"parent_desc,omitempty"`
		IsScript  bool     `json:"isscript"`
		Change    bool     `json:"ischange"`
		Witness   bool     `json:"iswitness"`
		KeyPath   string   `json:"hdkeypath,omitempty"`
		Labels    []string `json:"labels"`
	}{Address: canonical, Script: hex.EncodeToString(script), Mine: mine && !a.WatchOnly, WatchOnly: a.WatchOnly, Solvable: mine, Labels: []string{}}
	kind := c.describeScript(script).Type
	out.IsScript = kind == "scripthash" || kind == "witness_v0_scripthash" || kind == "witness_v1_taproot"
	out.Witness = strings.HasPrefix(kind, "witness")
	if mine {
		out.Parent, out.Change, out.KeyPath, out.Labels = a.Text, a.Change, a.Path, []string{a.Label}
	}
	return out, nil
}

func setLabel(c *call) (any, error) {
	w, err := c.theWallet()
	if err != nil {
		return nil, err
	}
	text, err1 := arg(c, 0, "")
	label, err2 := arg(c, 1, "")
	if err := cmp.Or(err1, err2); err != nil {
		return nil, err
	}
	script, err := c.addressScript(text)
	if err != nil {
		return nil, err
	}
	return nil, walletFault(w.SetLabel(script, nil, label))
}

func getBalance(c *call) (any, error) {
	w, err := c.theWallet()
	if err != nil {
		return nil, err
	}
	if name, err := arg(c, 0, "*"); err != nil {
		return nil, err
	} else if name != "*" && name != "" {
		return nil, fault(-32, "dummy first argument must be excluded or set to \"*\".")
	}
	minConf, err := intArg(c, 1, 0, 0, 1<<30)
	if err != nil {
		return nil, err
	}
	coins, err := w.Coins(int32(minConf))
	if err != nil {
		return nil, walletFault(err)
	}
	var sum amount
	for i := range coins {
		if k := &coins[i]; k.Trusted && k.MatureIn == 0 && !k.WatchOnly {
			sum += amount(k.Amount)
		}
	}
	return sum, nil
}

func getBalances(c *call) (any, error) {
	w, err := c.theWallet()
	if err != nil {
		return nil, err
	}
	own, watched, err := w.Balance()
	if err != nil {
		return nil, walletFault(err)
	}
	type part struct {
		Trusted  amount `json:"trusted"`
		Pending  amount `json:"untrusted_pending"`
		Immature amount `json:"immature"`
	}
	of := func(b wallet.Balance) part {
		return part{Trusted: amount(b.Confirmed + b.Trusted), Pending: amount(b.Untrusted), Immature: amount(b.Immature)}
	}
	out := struct {
		Mine  part  `json:"mine"`
		Watch *part `json:"watchonly,omitempty"`
	}{Mine: of(own)}
	if watched.Total() != 0 {
		out.Watch = new(of(watched))
	}
	return out, nil
}

func getUnconfirmedBalance(c *call) (any, error) {
	w, err := c.theWallet()
	if err != nil {
		return nil, err
	}
	own, _, err := w.Balance()
	return amount(own.Untrusted), walletFault(err)
}

func listUnspent(c *call) (any, error) {
	w, err := c.theWallet()
	if err != nil {
		return nil, err
	}
	least, err1 := intArg(c, 0, 1, 0, 1<<30)
	most, err2 := intArg(c, 1, 9_999_999, 0, 1<<30)
	addresses, err3 := arg(c, 2, []string(nil))
	unsafe, err4 := arg(c, 3, true)
	if err := cmp.Or(err1, err2, err3, err4); err != nil {
		return nil, err
	}
	for _, a := range addresses {
		if _, err := c.addressScript(a); err != nil {
			return nil, err
		}
	}
	coins, err := w.Coins(int32(least))
	if err != nil {
		return nil, walletFault(err)
	}
	type unspent struct {
		TxID      string `json:"txid"`
		Vout      uint32 `json:"vout"`
		Address   string `json:"address,omitempty"`
		Account   string `json:"account"`
		Label     string `json:"label,omitempty"`
		Script    string `json:"scriptPubKey"`
		Amount    amount `json:"amount"`
		Confs     int32  `json:"confirmations"`
		Spendable bool   `json:"spendable"`
		Solvable  bool   `json:"solvable"`
		Safe      bool   `json:"safe"`
	}
	out := []unspent{}
	for i := range coins {
		k := &coins[i]
		if k.Locked || k.MatureIn > 0 || int64(k.Confirmations) > most || !k.Trusted && !unsafe || len(addresses) > 0 && !slices.Contains(addresses, k.Address) {
			continue
		}
		out = append(out, unspent{
			TxID: k.OutPoint.Hash.String(), Vout: k.OutPoint.Index, Address: k.Address, Account: k.Label, Label: k.Label, Script: hex.EncodeToString(k.Script),
			Amount: amount(k.Amount), Confs: k.Confirmations, Spendable: !k.WatchOnly, Solvable: true, Safe: k.Trusted,
		})
	}
	return out, nil
}

// outputRef names an output as Core's calls do.
type outputRef struct {
	TxID     string  `json:"txid"`
	Vout     uint32  `json:"vout"`
	Sequence *uint32 `json:"sequence,omitempty"`
}

func (r *outputRef) outPoint() (wire.OutPoint, error) {
	op, err := wallet.ParseCoin(fmt.Sprintf("%s:%d", r.TxID, r.Vout))
	if err != nil {
		return op, fault(codeInvalidParameter, "%v", err)
	}
	return op, nil
}

func lockUnspent(c *call) (any, error) {
	w, err := c.theWallet()
	if err != nil {
		return nil, err
	}
	unlock, err1 := arg(c, 0, false)
	refs, err2 := arg(c, 1, []outputRef(nil))
	if err := cmp.Or(err1, err2); err != nil {
		return nil, err
	}
	var ops []wire.OutPoint
	for i := range refs {
		op, err := refs[i].outPoint()
		if err != nil {
			return nil, err
		}
		ops = append(ops, op)
	}
	if _, err := w.LockCoins(!unlock, ops); errors.Is(err, wallet.ErrUnknown) {
		return nil, fault(codeInvalidParameter, "Invalid parameter, unknown transaction")
	} else if err != nil {
		return nil, walletFault(err)
	}
	return true, nil
}

func listLockUnspent(c *call) (any, error) {
	w, err := c.theWallet()
	if err != nil {
		return nil, err
	}
	ops, err := w.LockedCoins()
	out := []outputRef{}
	for _, op := range ops {
		out = append(out, outputRef{TxID: op.Hash.String(), Vout: op.Index})
	}
	return out, walletFault(err)
}

// payTerms are what calls that pay have in common: conf_target, fee_rate (satoshi per virtual byte), replaceable.
func payTerms(c *call, s *wallet.Send, replaceable, target, rate int) error {
	r, err1 := arg(c, replaceable, true)
	n, err2 := intArg(c, target, 0, 0, 1008)
	perByte, err3 := arg(c, rate, json.Number(""))
	if err := cmp.Or(err1, err2, err3); err != nil {
		return err
	}
	s.Final, s.Target = !r, int(n)
	if perByte != "" {
		var err error
		if s.Rate, err = wallet.ParseRate(perByte.String()); err != nil {
			return fault(codeInvalidParameter, "%v", err)
		}
	}
	return nil
}

func sendToAddress(c *call) (any, error) {
	w, err := c.theWallet()
	if err != nil {
		return nil, err
	}
	text, err1 := arg(c, 0, "")
	value, err2 := arg(c, 1, amount(0))
	comment, err3 := arg(c, 2, "")
	subtract, err4 := arg(c, 4, false)
	verbose, err5 := arg(c, 10, false)
	if err := cmp.Or(err1, err2, err3, err4, err5); err != nil {
		return nil, err
	}
	script, err := c.addressScript(text)
	if err != nil {
		return nil, err
	}
	if value <= 0 {
		return nil, fault(codeType, "Invalid amount for send")
	}
	s := wallet.Send{Outputs: []wallet.Pay{{Script: script, Amount: int64(value), PaysFee: subtract}}, Label: comment}
	if err := payTerms(c, &s, 5, 6, 9); err != nil {
		return nil, err
	}
	return c.sent(w, s, verbose)
}

func sendMany(c *call) (any, error) {
	w, err := c.theWallet()
	if err != nil {
		return nil, err
	}
	amounts, err1 := arg(c, 1, map[string]amount(nil))
	comment, err2 := arg(c, 3, "")
	from, err3 := arg(c, 4, []string(nil))
	verbose, err4 := arg(c, 9, false)
	if err := cmp.Or(err1, err2, err3, err4); err != nil {
		return nil, err
	}
	s := wallet.Send{Label: comment}
	for text, value := range amounts {
		script, err := c.addressScript(text)
		if err != nil {
			return nil, err
		}
		if value <= 0 {
			return nil, fault(codeType, "Invalid amount for send")
		}
		s.Outputs = append(s.Outputs, wallet.Pay{Script: script, Amount: int64(value), PaysFee: slices.Contains(from, text)})
	}
	if err := payTerms(c, &s, 5, 6, 8); err != nil {
		return nil, err
	}
	return c.sent(w, s, verbose)
}

func (c *call) sent(w *wallet.Wallet, s wallet.Send, verbose bool) (any, error) {
	out, err := w.Send(c.ctx, s)
	if err != nil {
		return nil, walletFault(err)
	}
	if verbose {
		return struct {
			TxID   string `json:"txid"`
			Reason string `json:"fee_reason"`
		}{out.Tx.TxHash().String(), "Mempool"}, nil
	}
	return out.Tx.TxHash().String(), nil
}

// walletTx is an entry of listtransactions, and what gettransaction has in common with it.
type walletTx struct {
	Account       string   `json:"account"`
	Address       string   `json:"address,omitempty"`
	Category      string   `json:"category,omitempty"`
	Amount        amount   `json:"amount"`
	Label         string   `json:"label,omitempty"`
	Vout          *uint32  `json:"vout,omitempty"`
	Fee           *amount  `json:"fee,omitempty"`
	Confirmations int32    `json:"confirmations"`
	Generated     bool     `json:"generated,omitempty"`
	Trusted       *bool    `json:"trusted,omitempty"`
	BlockHash     string   `json:"blockhash,omitempty"`
	BlockHeight   *int32   `json:"blockheight,omitempty"`
	BlockIndex    *int64   `json:"blockindex,omitempty"`
	BlockTime     int64    `json:"blocktime,omitempty"`
	TxID          string   `json:"txid"`
	Conflicts     []string `json:"walletconflicts"`
	ReplacedBy    string   `json:"replaced_by_txid,omitempty"`
	Replaces      string   `json:"replaces_txid,omitempty"`
	Time          int64    `json:"time"`
	TimeReceived  int64    `json:"timereceived"`
	Replaceable   string   `json:"bip125-replaceable"`
	Abandoned     *bool    `json:"abandoned,omitempty"`
	Comment       string   `json:"comment,omitempty"`
}

// common fills in what all entries of a payment share.
func common(p *wallet.Payment) walletTx {
	t := walletTx{
		Confirmations: p.Confirmations, TxID: p.TxID.String(), Conflicts: []string{}, Time: p.Time.Unix(), TimeReceived: p.Seen.Unix(),
		Replaceable: "no", Generated: p.Kind == wallet.KindMined,
	}
	if p.Height >= 0 {
		t.BlockHash, t.BlockHeight, t.BlockIndex, t.BlockTime = p.BlockHash.String(), new(p.Height), new(int64(p.Index)), p.BlockTime.Unix()
	} else {
		t.Trusted = new(p.Trusted)
		if p.State == wallet.StateConflicted {
			t.Confirmations = -1
		}
		if p.CanBump {
			t.Replaceable = "yes"
		}
	}
	if p.Conflicting != (chainhash.Hash{}) {
		t.Conflicts = append(t.Conflicts, p.Conflicting.String())
		if p.Replaced {
			t.ReplacedBy = p.Conflicting.String()
		}
	}
	if p.Replaces != (chainhash.Hash{}) {
		t.Replaces = p.Replaces.String()
	}
	return t
}

// details are the entries of a payment: a line for each address.
func (c *call) details(p *wallet.Payment, m *wire.MsgTx) []walletTx {
	var out []walletTx
	base := common(p)
	own := make(map[int]bool)
	for _, k := range p.Credits {
		own[int(k.N)] = true
	}
	if len(p.Debits) > 0 {
		for n, o := range m.TxOut {
			if own[n] && len(own) < len(m.TxOut) { // change; of a payment to ourselves all is told
				continue
			}
			t := base
			t.Category, t.Amount, t.Vout, t.Comment = "send", -amount(o.Value), new(uint32(n)), p.Label
			t.Address, _ = address.Of(o.PkScript, c.addr)
			t.Abandoned = new(p.State == wallet.StateAbandoned)
			if p.Fee >= 0 {
				t.Fee = new(-amount(p.Fee))
			}
			out = append(out, t)
		}
	}
	for _, k := range p.Credits {
		if len(p.Debits) > 0 && k.Change {
			continue
		}
		t := base
		t.Category, t.Amount, t.Vout, t.Address, t.Label, t.Account = "receive", amount(k.Amount), new(k.N), k.Address, k.Label, k.Label
		if p.Kind == wallet.KindMined {
			switch {
			case p.Height < 0:
				t.Category = "orphan"
			case p.MatureIn > 0:
				t.Category = "immature"
			default:
				t.Category = "generate"
			}
		}
		out = append(out, t)
	}
	return out
}

func listTransactions(c *call) (any, error) {
	w, err := c.theWallet()
	if err != nil {
		return nil, err
	}
	label, err1 := arg(c, 0, "*")
	count, err2 := intArg(c, 1, defaultListed, 0, maxListed)
	skip, err3 := intArg(c, 2, 0, 0, 1<<30)
	if err := cmp.Or(err1, err2, err3); err != nil {
		return nil, err
	}
	out := []walletTx{}
	cursor := ""
	for int64(len(out)) < count+skip {
		page, next, _, err := w.History(cursor, 200)
		if err != nil {
			return nil, walletFault(err)
		}
		for i := range page {
			_, m, _, err := w.Payment(page[i].TxID)
			if err != nil {
				continue // it went meanwhile
			}
			for _, t := range slices.Backward(c.details(&page[i], m)) {
				if label == "*" || t.Label == label {
					out = append(out, t)
				}
			}
		}
		if cursor = next; next == "" {
			break
		}
	}
	out = out[min(int64(len(out)), skip):]
	out = out[:min(int64(len(out)), count)]
	slices.Reverse(out)
	return out, nil
}

func getTransaction(c *call) (any, error) {
	w, err := c.theWallet()
	if err != nil {
		return nil, err
	}
	id, err := hashArg(c, 0)
	if err != nil {
		return nil, err
	}
	verbose, err := arg(c, 2, false)
	if err != nil {
		return nil, err
	}
	p, m, raw, err := w.Payment(id)
	if errors.Is(err, wallet.ErrUnknown) {
		return nil, fault(codeInvalidAddress, "Invalid or non-wallet transaction id")
	}
	if err != nil {
		return nil, walletFault(err)
	}
	out := struct {
		walletTx
		Details []walletTx `json:"details"`
		Hex     string     `json:"hex"`
		Decoded *rawTx     `json:"decoded,omitempty"`
	}{walletTx: common(&p), Details: c.details(&p, m), Hex: hex.EncodeToString(raw)}
	out.Amount, out.Comment = amount(p.Amount), p.Label
	if len(p.Debits) > 0 && p.Fee >= 0 {
		out.Amount += amount(p.Fee)
		out.Fee = new(-amount(p.Fee))
	}
	if verbose {
		if out.Decoded, err = c.describeTx(m, false); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func abandonTransaction(c *call) (any, error) {
	w, err := c.theWallet()
	if err != nil {
		return nil, err
	}
	id, err := hashArg(c, 0)
	if err != nil {
		return nil, err
	}
	if _, err := w.Abandon(id); errors.Is(err, wallet.ErrUnknown) {
		return nil, fault(codeInvalidAddress, "Invalid or non-wallet transaction id")
	} else if err != nil {
		return nil, fault(codeInvalidAddress, "Transaction not eligible for abandonment: %v", err)
	}
	return nil, nil //nolint:nilnil // null is the answer
}

// fundOptions are those of bumpfee, fundrawtransaction and walletcreatefundedpsbt that are known here.
type fundOptions struct {
	FeeRate     *amount     `json:"feeRate"`  // coins per kvB
	PerByte     json.Number `json:"fee_rate"` // satoshi per virtual byte
	Target      int         `json:"conf_target"`
	Subtract    []int       `json:"subtractFeeFromOutputs"`
	AddInputs   *bool       `json:"add_inputs"`
	LockUnspent bool        `json:"lockUnspents"`
	Replaceable *bool       `json:"replaceable"`
	Change      string      `json:"changeAddress"`
}

func (o *fundOptions) rate() (int64, error) {
	if o.Change != "" {
		return 0, fault(codeInvalidParameter, "changeAddress: change goes to an address of the wallet")
	}
	if o.FeeRate != nil {
		return int64(*o.FeeRate), nil
	}
	if o.PerByte == "" {
		return 0, nil
	}
	n, err := wallet.ParseRate(o.PerByte.String())
	if err != nil {
		return 0, fault(codeInvalidParameter, "%v", err)
	}
	return n, nil
}

func bumpFee(c *call) (any, error) {
	w, err := c.theWallet()
	if err != nil {
		return nil, err
	}
	id, err := hashArg(c, 0)
	if err != nil {
		return nil, err
	}
	o, err := arg(c, 1, fundOptions{})
	if err != nil {
		return nil, err
	}
	rate, err := o.rate()
	if err != nil {
		return nil, err
	}
	old, _, _, err := w.Payment(id)
	if errors.Is(err, wallet.ErrUnknown) {
		return nil, fault(codeInvalidAddress, "Invalid or non-wallet transaction id")
	}
	if err != nil {
		return nil, walletFault(err)
	}
	s, err := w.Bump(c.ctx, wallet.Bump{TxID: id, Rate: rate, Target: o.Target})
	if request, ok := errors.AsType[*wallet.RequestError](err); ok {
		return nil, fault(codeWallet, "%s", request.Reason)
	}
	if err != nil {
		return nil, walletFault(err)
	}
	return struct {
		TxID   string   `json:"txid"`
		Old    amount   `json:"origfee"`
		Fee    amount   `json:"fee"`
		Errors []string `json:"errors"`
	}{s.Tx.TxHash().String(), amount(old.Fee), amount(s.Fee), []string{}}, nil
}

func getWalletInfo(c *call) (any, error) {
	w, err := c.theWallet()
	if err != nil {
		return nil, err
	}
	i := w.Info()
	own, _, err := w.Balance()
	if err != nil {
		return nil, walletFault(err)
	}
	out := struct {
		Name        string `json:"walletname"`
		Version     int    `json:"walletversion"`
		Format      string `json:"format"`
		Balance     amount `json:"balance"`
		Unconfirmed amount `json:"unconfirmed_balance"`
		Immature    amount `json:"immature_balance"`
		Txs         int    `json:"txcount"`
		KeyPool     int    `json:"keypoolsize"`
		Until       *int64 `json:"unlocked_until,omitempty"`
		PayTxFee    amount `json:"paytxfee"`
		Keys        bool   `json:"private_keys_enabled"`
		AvoidReuse  bool   `json:"avoid_reuse"`
		Scanning    any    `json:"scanning"`
		Descriptors bool   `json:"descriptors"`
		Signer      bool   `json:"external_signer"`
		Birth       int64  `json:"birthtime,omitempty"`
	}{
		Version: 169_900, Format: "dunlin", Balance: amount(own.Confirmed + own.Trusted), Unconfirmed: amount(own.Untrusted), Immature: amount(own.Immature),
		Txs: i.Payments, KeyPool: i.Gap, Keys: !i.WatchOnly, Scanning: false, Descriptors: true, Birth: i.Birthday,
	}
	if i.Encrypted {
		out.Until = new(int64)
		if i.Unlocked {
			*out.Until = i.UnlockedUntil.Unix()
		}
	}
	if i.Scan.State == wallet.ScanSearching {
		out.Scanning = struct {
			Progress float64 `json:"progress"`
		}{float64(i.Scan.Next-i.Scan.From) / float64(max(1, i.Scan.To-i.Scan.From+1))}
	}
	return out, nil
}

func walletPassphrase(c *call) (any, error) {
	w, err := c.theWallet()
	if err != nil {
		return nil, err
	}
	phrase, err1 := arg(c, 0, "")
	seconds, err2 := intArg(c, 1, 0, 0, 1<<40)
	if err := cmp.Or(err1, err2); err != nil {
		return nil, err
	}
	if seconds == 0 { // as with Core: at once locked again
		return nil, walletFault(w.Lock())
	}
	return nil, walletFault(w.Unlock([]byte(phrase), time.Duration(min(seconds, maxUnlockSeconds))*time.Second))
}

func walletLock(c *call) (any, error) {
	w, err := c.theWallet()
	if err != nil {
		return nil, err
	}
	if !w.Info().Encrypted {
		return nil, fault(codeWrongEncState, "Error: running with an unencrypted wallet, but walletlock was called.")
	}
	return nil, walletFault(w.Lock())
}

func walletPassphraseChange(c *call) (any, error) {
	w, err := c.theWallet()
	if err != nil {
		return nil, err
	}
	current, err1 := arg(c, 0, "")
	next, err2 := arg(c, 1, "")
	if err := cmp.Or(err1, err2); err != nil {
		return nil, err
	}
	return nil, walletFault(w.ChangePassphrase([]byte(current), []byte(next)))
}

// outputsArg reads outputs: an object of addresses, or an array of such, with "data" for OP_RETURN.
func outputsArg(c *call, i int) ([]wallet.Pay, error) {
	if !c.has(i) {
		return nil, nil
	}
	var list []map[string]json.RawMessage
	if json.Unmarshal(c.args[i], &list) != nil {
		one, err := arg(c, i, map[string]json.RawMessage(nil))
		if err != nil {
			return nil, err
		}
		names := make([]string, 0, len(one))
		for name := range one {
			names = append(names, name)
		}
		slices.Sort(names) // JSON objects have no order
		for _, name := range names {
			list = append(list, map[string]json.RawMessage{name: one[name]})
		}
	}
	var out []wallet.Pay
	for _, o := range list {
		for name, raw := range o {
			if name == "data" {
				var text string
				data, err := []byte(nil), json.Unmarshal(raw, &text)
				if err == nil {
					data, err = hex.DecodeString(text)
				}
				if err != nil || len(data) > 80 {
					return nil, fault(codeInvalidParameter, "Invalid parameter, data must be hexadecimal, at most 80 bytes")
				}
				out = append(out, wallet.Pay{Script: append([]byte{0x6a, 0x4c, byte(len(data))}, data...)})
				continue
			}
			script, err := c.addressScript(name)
			if err != nil {
				return nil, err
			}
			var value amount
			if err := json.Unmarshal(raw, &value); err != nil {
				return nil, fault(codeType, "Invalid amount: %v", err)
			}
			out = append(out, wallet.Pay{Script: script, Amount: int64(value)})
		}
	}
	return out, nil
}

func createRawTransaction(c *call) (any, error) {
	refs, err1 := arg(c, 0, []outputRef(nil))
	outs, err2 := outputsArg(c, 1)
	lock, err3 := intArg(c, 2, 0, 0, 1<<32-1)
	replaceable, err4 := arg(c, 3, true)
	if err := cmp.Or(err1, err2, err3, err4); err != nil {
		return nil, err
	}
	m := wire.NewMsgTx(2)
	m.LockTime = uint32(lock)
	for i := range refs {
		op, err := refs[i].outPoint()
		if err != nil {
			return nil, err
		}
		in := wire.NewTxIn(&op, nil, nil)
		switch {
		case refs[i].Sequence != nil:
			in.Sequence = *refs[i].Sequence
		case replaceable:
			in.Sequence = wire.MaxTxInSequenceNum - 2
		case lock > 0:
			in.Sequence = wire.MaxTxInSequenceNum - 1
		}
		m.AddTxIn(in)
	}
	for _, o := range outs {
		m.AddTxOut(wire.NewTxOut(o.Amount, o.Script))
	}
	return txHex(m)
}

// funded plans a payment of coins and outputs.
func (c *call) funded(outs []wallet.Pay, coins []wire.OutPoint, o *fundOptions) (*wallet.Sent, error) {
	w, err := c.theWallet()
	if err != nil {
		return nil, err
	}
	s := wallet.Send{Outputs: outs, Coins: coins, AddCoins: o.AddInputs == nil || *o.AddInputs, Target: o.Target, Final: o.Replaceable != nil && !*o.Replaceable}
	if s.Rate, err = o.rate(); err != nil {
		return nil, err
	}
	for _, n := range o.Subtract {
		if n < 0 || n >= len(s.Outputs) {
			return nil, fault(codeInvalidParameter, "Invalid parameter, output %d of %d", n, len(s.Outputs))
		}
		s.Outputs[n].PaysFee = true
	}
	out, err := w.Plan(s)
	if err != nil {
		return nil, walletFault(err)
	}
	if o.LockUnspent {
		var ops []wire.OutPoint
		for _, in := range out.Tx.TxIn {
			ops = append(ops, in.PreviousOutPoint)
		}
		if _, err := w.LockCoins(true, ops); err != nil {
			return nil, walletFault(err)
		}
	}
	return out, nil
}

// errTimes refuses what would be lost: without it, a payment meant for later could be mined at once.
var errTimes = fault(codeInvalidParameter, "Invalid parameter, lock times and relative locks cannot be kept by a call that adds coins: choose the coins, and use createrawtransaction")

func fundRawTransaction(c *call) (any, error) {
	text, err := arg(c, 0, "")
	if err != nil {
		return nil, err
	}
	raw, err := hex.DecodeString(text)
	if err != nil {
		return nil, fault(codeDeserialization, "TX decode failed")
	}
	m := wire.NewMsgTx(2)
	// Without inputs the form with witnesses cannot be told from the other.
	if err := m.DeserializeNoWitness(strings.NewReader(string(raw))); err != nil {
		if m, err = txArg(c, 0); err != nil {
			return nil, err
		}
	}
	o, err := arg(c, 1, fundOptions{})
	if err != nil {
		return nil, err
	}
	if m.LockTime != 0 {
		return nil, errTimes
	}
	var coins []wire.OutPoint
	for _, in := range m.TxIn {
		if in.Sequence < wire.MaxTxInSequenceNum-2 {
			return nil, errTimes
		}
		coins = append(coins, in.PreviousOutPoint)
	}
	var outs []wallet.Pay
	for _, out := range m.TxOut {
		outs = append(outs, wallet.Pay{Script: out.PkScript, Amount: out.Value})
	}
	s, err := c.funded(outs, coins, &o)
	if err != nil {
		return nil, err
	}
	hexed, err := txHex(s.Tx)
	return struct {
		Hex    string `json:"hex"`
		Fee    amount `json:"fee"`
		Change int    `json:"changepos"`
	}{hexed, amount(s.Fee), s.Change}, err
}

func walletCreateFundedPSBT(c *call) (any, error) {
	refs, err1 := arg(c, 0, []outputRef(nil))
	outs, err2 := outputsArg(c, 1)
	lock, err3 := intArg(c, 2, 0, 0, 1<<32-1)
	o, err4 := arg(c, 3, fundOptions{})
	if err := cmp.Or(err1, err2, err3, err4); err != nil {
		return nil, err
	}
	if lock != 0 || slices.ContainsFunc(refs, func(r outputRef) bool { return r.Sequence != nil && *r.Sequence < wire.MaxTxInSequenceNum-2 }) {
		return nil, errTimes
	}
	if len(refs) > 0 && o.AddInputs == nil {
		o.AddInputs = new(bool) // as with Core: named coins are all
	}
	var coins []wire.OutPoint
	for i := range refs {
		op, err := refs[i].outPoint()
		if err != nil {
			return nil, err
		}
		coins = append(coins, op)
	}
	s, err := c.funded(outs, coins, &o)
	if err != nil {
		return nil, err
	}
	return struct {
		PSBT   string `json:"psbt"`
		Fee    amount `json:"fee"`
		Change int    `json:"changepos"`
	}{s.PSBT, amount(s.Fee), s.Change}, nil
}

// onlyWhole refuses a signature hash type under which a signature would commit to less
// than the whole transaction: the wallet makes none.
func onlyWhole(c *call, i int) error {
	kind, err := arg(c, i, "DEFAULT")
	if err != nil {
		return err
	}
	if kind != "DEFAULT" && kind != "ALL" {
		return fault(codeInvalidParameter, "sighashtype %.32q: this wallet signs whole transactions only, DEFAULT or ALL", kind)
	}
	return nil
}

func signRawTransactionWithWallet(c *call) (any, error) {
	w, err := c.theWallet()
	if err != nil {
		return nil, err
	}
	m, err := txArg(c, 0)
	if err != nil {
		return nil, err
	}
	type prevTx struct {
		outputRef
		Script string  `json:"scriptPubKey"`
		Amount *amount `json:"amount"`
	}
	given, err := arg(c, 1, []prevTx(nil))
	if err != nil {
		return nil, err
	}
	if err := onlyWhole(c, 2); err != nil {
		return nil, err
	}
	prevs := make(map[wire.OutPoint]*wire.TxOut)
	for i := range given {
		op, err := given[i].outPoint()
		if err != nil {
			return nil, err
		}
		script, err := hex.DecodeString(given[i].Script)
		if err != nil || given[i].Amount == nil {
			return nil, fault(codeDeserialization, "prevtxs %d: scriptPubKey and amount are wanted", i)
		}
		prevs[op] = wire.NewTxOut(int64(*given[i].Amount), script)
	}
	signed, complete, faults, err := w.SignTx(m, prevs)
	if err != nil {
		return nil, walletFault(err)
	}
	type inputFault struct {
		TxID     string `json:"txid"`
		Vout     uint32 `json:"vout"`
		Script   string `json:"scriptSig"`
		Sequence uint32 `json:"sequence"`
		Error    string `json:"error"`
	}
	out := struct {
		Hex      string       `json:"hex"`
		Complete bool         `json:"complete"`
		Errors   []inputFault `json:"errors,omitempty"`
	}{Complete: complete}
	for i, why := range faults {
		if in := signed.TxIn[i]; why != "" {
			out.Errors = append(out.Errors, inputFault{in.PreviousOutPoint.Hash.String(), in.PreviousOutPoint.Index, hex.EncodeToString(in.SignatureScript), in.Sequence, why})
		}
	}
	out.Hex, err = txHex(signed)
	return out, err
}

// psbtAnswer is what calls that work on a PSBT give.
type psbtAnswer struct {
	PSBT     string `json:"psbt,omitempty"`
	Hex      string `json:"hex,omitempty"`
	Complete bool   `json:"complete"`
}

// psbtFault is a PSBT that cannot be read.
func psbtFault(err error) error {
	if request, ok := errors.AsType[*wallet.RequestError](err); ok {
		return fault(codeDeserialization, "TX decode failed %s", request.Reason)
	}
	return walletFault(err)
}

func walletProcessPSBT(c *call) (any, error) {
	w, err := c.theWallet()
	if err != nil {
		return nil, err
	}
	text, err1 := arg(c, 0, "")
	sign, err2 := arg(c, 1, true)
	final, err3 := arg(c, 4, true)
	if err := cmp.Or(err1, err2, err3, onlyWhole(c, 2)); err != nil {
		return nil, err
	}
	do := w.UpdatePSBT
	if sign {
		do = func(text string) (wallet.PSBT, error) { return w.SignPSBT(text, nil) }
	}
	p, err := do(text)
	if err != nil {
		return nil, psbtFault(err)
	}
	out := psbtAnswer{PSBT: p.Text, Complete: p.Complete}
	if final && p.Complete {
		if p, err = w.FinalisePSBT(p.Text); err != nil {
			return nil, psbtFault(err)
		}
		out.PSBT, out.Complete = p.Text, p.Complete
		if p.Tx != nil {
			out.Hex, err = txHex(p.Tx)
		}
	}
	return out, err
}

func finalizePSBT(c *call) (any, error) {
	if c.o.Wallet == nil {
		return nil, walletFault(wallet.ErrNone)
	}
	text, err1 := arg(c, 0, "")
	extract, err2 := arg(c, 1, true)
	if err := cmp.Or(err1, err2); err != nil {
		return nil, err
	}
	p, err := c.o.Wallet.FinalisePSBT(text)
	if err != nil {
		return nil, psbtFault(err)
	}
	if p.Tx == nil || !extract {
		return psbtAnswer{PSBT: p.Text, Complete: p.Complete}, nil
	}
	hexed, err := txHex(p.Tx)
	return psbtAnswer{Hex: hexed, Complete: true}, err
}

func combinePSBT(c *call) (any, error) {
	if c.o.Wallet == nil {
		return nil, walletFault(wallet.ErrNone)
	}
	texts, err := arg(c, 0, []string(nil))
	if err != nil {
		return nil, err
	}
	p, err := c.o.Wallet.CombinePSBT(texts)
	if err != nil {
		return nil, psbtFault(err)
	}
	return p.Text, nil
}

func decodePSBT(c *call) (any, error) {
	if c.o.Wallet == nil {
		return nil, walletFault(wallet.ErrNone)
	}
	text, err := arg(c, 0, "")
	if err != nil {
		return nil, err
	}
	v, err := c.o.Wallet.ShowPSBT(text)
	if err != nil {
		return nil, psbtFault(err)
	}
	tx, err := c.describeTx(v.Tx, false)
	if err != nil {
		return nil, err
	}
	type utxo struct {
		Amount amount       `json:"amount"`
		Script scriptPubKey `json:"scriptPubKey"`
	}
	type input struct {
		UTXO    *utxo             `json:"witness_utxo,omitempty"`
		Partial map[string]string `json:"partial_signatures,omitempty"`
		Missing string            `json:"missing,omitempty"`
	}
	out := struct {
		Tx      *rawTx   `json:"tx"`
		Inputs  []input  `json:"inputs"`
		Outputs []any    `json:"outputs"`
		Fee     *amount  `json:"fee,omitempty"`
		Unknown struct{} `json:"unknown"`
	}{Tx: tx, Inputs: []input{}, Outputs: []any{}}
	for i := range v.Packet.Inputs {
		in := input{Missing: v.Missing[i]}
		if o := v.Spent[i]; o != nil {
			in.UTXO = &utxo{amount(o.Value), c.describeScript(o.PkScript)}
		}
		for _, s := range v.Packet.Inputs[i].Sigs {
			if in.Partial == nil {
				in.Partial = make(map[string]string)
			}
			in.Partial[hex.EncodeToString(s.PubKey)] = hex.EncodeToString(s.Sig)
		}
		out.Inputs = append(out.Inputs, in)
	}
	for range v.Packet.Outputs {
		out.Outputs = append(out.Outputs, struct{}{})
	}
	if v.Fee >= 0 {
		out.Fee = new(amount(v.Fee))
	}
	return out, nil
}

func importDescriptors(c *call) (any, error) {
	w, err := c.theWallet()
	if err != nil {
		return nil, err
	}
	requests, err := arg(c, 0, []struct {
		Desc      string          `json:"desc"`
		Active    bool            `json:"active"`
		Range     json.RawMessage `json:"range"`
		Next      uint32          `json:"next_index"`
		Timestamp json.RawMessage `json:"timestamp"`
		Internal  bool            `json:"internal"`
		Label     string          `json:"label"`
	}(nil))
	if err != nil {
		return nil, err
	}
	type result struct {
		Success bool   `json:"success"`
		Error   *Error `json:"error,omitempty"`
	}
	out := []result{}
	for _, r := range requests {
		var from int32
		var when int64
		switch {
		case string(r.Timestamp) == `"now"`:
			from = -1
		case json.Unmarshal(r.Timestamp, &when) != nil:
			return nil, fault(codeType, "Missing required timestamp field for key")
		default:
			from = c.heightBefore(when)
		}
		_, err := w.Import(wallet.Import{Descriptor: r.Desc, Strict: true, Label: r.Label, Active: r.Active, Change: r.Internal, Next: r.Next, From: from})
		if err == nil {
			out = append(out, result{Success: true})
			continue
		}
		e, ok := errors.AsType[*Error](walletFault(err))
		if !ok {
			return nil, err
		}
		if e.Code == codeInvalidParameter {
			e.Code = codeInvalidAddress
		}
		out = append(out, result{Error: e})
	}
	return out, nil
}

// heightBefore is a height whose block is surely older than a time: two hours, as Core has it.
func (c *call) heightBefore(when int64) int32 {
	tip, _ := c.o.Chain.Tip()
	lo, hi := int32(0), tip.Height
	for lo < hi {
		mid := (lo + hi + 1) / 2
		hash, ok := c.o.Chain.HashAt(mid)
		s, known := c.o.Chain.Status(hash)
		if !ok || !known || s.Header.Timestamp.Unix()+7200 >= when {
			hi = mid - 1
		} else {
			lo = mid
		}
	}
	return max(lo, c.o.Chain.Lowest())
}

func listDescriptors(c *call) (any, error) {
	w, err := c.theWallet()
	if err != nil {
		return nil, err
	}
	if private, err := arg(c, 0, false); err != nil {
		return nil, err
	} else if private {
		return nil, fault(codeWallet, "private keys never leave the wallet through this interface")
	}
	list, err := w.Descriptors()
	if err != nil {
		return nil, walletFault(err)
	}
	type descriptor struct {
		Desc     string   `json:"desc"`
		Time     int64    `json:"timestamp"`
		Active   bool     `json:"active"`
		Internal bool     `json:"internal"`
		Range    []uint32 `json:"range,omitempty"`
		Next     *uint32  `json:"next,omitempty"`
		Index    *uint32  `json:"next_index,omitempty"`
	}
	out := struct {
		Name        string       `json:"wallet_name"`
		Descriptors []descriptor `json:"descriptors"`
	}{Descriptors: []descriptor{}}
	for i := range list {
		d := &list[i]
		v := descriptor{Desc: d.Text, Time: w.Info().Birthday, Active: d.Active, Internal: d.Change}
		if d.Range {
			v.Range, v.Next, v.Index = []uint32{0, uint32(max(0, d.Watched-1))}, &d.Next, &d.Next
		}
		out.Descriptors = append(out.Descriptors, v)
	}
	return out, nil
}

func rescanBlockchain(c *call) (any, error) {
	w, err := c.theWallet()
	if err != nil {
		return nil, err
	}
	from, err := intArg(c, 0, 0, 0, 1<<30)
	if err != nil {
		return nil, err
	}
	if err := w.Rescan(int32(from)); err != nil {
		return nil, walletFault(err)
	}
	c.leave() // it may take long
	for w.Searching() {
		changed := w.Changed()
		if !w.Searching() {
			break
		}
		select {
		case <-changed:
		case <-c.ctx.Done():
			return nil, c.ctx.Err()
		}
	}
	return struct {
		From int64 `json:"start_height"`
		To   int32 `json:"stop_height"`
	}{from, w.Info().Height}, nil
}

func backupWallet(c *call) (any, error) {
	w, err := c.theWallet()
	if err != nil {
		return nil, err
	}
	path, err := arg(c, 0, "")
	if err != nil {
		return nil, err
	}
	if err := w.CopyVault(path); err != nil {
		return nil, fault(codeWallet, "Error: Wallet backup failed: %v", err)
	}
	return nil, nil //nolint:nilnil // null is the answer
}
