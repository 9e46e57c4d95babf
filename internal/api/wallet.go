package api

import (
	"cmp"
	"context"
	"net/http"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
)

// A Wallet is what the wallet's routes show and drive. All methods are safe for
// concurrent use. Errors are as of [Node]: 404 there is no wallet, or it does not know
// that; 423 it is locked; 403 the passphrase is wrong; 409 not as things are; 422 the
// request is wrong or cannot be paid.
//
// No answer has words or private keys, and no fault repeats a secret of a request.
type Wallet interface {
	Info() WalletInfo
	Create(ctx context.Context, r WalletCreate) error
	Unlock(passphrase string, how time.Duration) error
	// UnlockStaking lets it seal blocks and nothing else; how 0: until Lock.
	UnlockStaking(passphrase string, how time.Duration) error
	Lock() error
	ChangePassphrase(current, next string) error
	Balance() (WalletBalances, error)
	NewAddress(kind, label string) (WalletAddress, error)
	Addresses(change bool, offset, limit int) ([]WalletAddress, int, error)
	Coins(minConf int32) ([]WalletCoin, error)
	// History is one page, newest first; next is "" at the end.
	History(after string, limit int) (page []WalletPayment, next string, total int, err error)
	Payment(txid string) (WalletTx, error)
	FeeRate(target int) WalletFee
	Send(ctx context.Context, r WalletSend) (WalletSent, error)
	Bump(ctx context.Context, r WalletBump) (WalletSent, error)
	Abandon(txid string) (WalletPayment, error)
	CreatePSBT(ctx context.Context, r WalletSend) (WalletSent, error)
	SignPSBT(psbt, passphrase string) (WalletPSBT, error)
	CombinePSBT(psbts []string) (WalletPSBT, error)
	FinalisePSBT(psbt string) (WalletPSBT, error)
	ShowPSBT(psbt string) (WalletPSBTView, error)
	SendPSBT(ctx context.Context, psbt, label string) (WalletSent, error)
	Import(r WalletImport) ([]WalletDescriptor, error)
	Descriptors() ([]WalletDescriptor, error)
	Rescan(from int32) error
	StopRescan() error
	Backup(passphrase string) (WalletBackup, error)
	Restore(r WalletRestore) error
	LockCoins(lock bool, coins []string) ([]string, error)
	Label(address, txid, label string) error
}

// Bodies of the wallet's routes. Amounts are in satoshi, rates in satoshi per 1000
// virtual bytes.
type (
	// WalletInfo is what GET /api/v1/wallet gives.
	WalletInfo struct {
		Exists         bool       `json:"exists"`
		Encrypted      bool       `json:"encrypted"`
		Locked         bool       `json:"locked" doc:"The keys are sealed: unlock to sign"`
		Staking        bool       `json:"staking" doc:"The keys can seal blocks of a proof-of-stake network; with locked nothing else"`
		UnlockedUntil  *time.Time `json:"unlocked_until,omitempty" doc:"Missing: it is locked, or stays unlocked"`
		WatchOnly      bool       `json:"watch_only" doc:"It has no keys at all"`
		Birthday       *time.Time `json:"birthday,omitempty" doc:"No older block has anything of it"`
		BirthdayHeight int32      `json:"birthday_height" doc:"From which the chain was looked through; -1 unknown"`
		Height         int32      `json:"height" doc:"That the wallet has followed; -1 no wallet"`
		TipHeight      int32      `json:"tip_height"`
		Behind         int32      `json:"behind" doc:"Blocks"`
		Gap            int        `json:"gap" doc:"Unpaid addresses in a row that end a search"`
		Scan           WalletScan `json:"scan"`
		Descriptors    int        `json:"descriptors"`
		Addresses      int        `json:"addresses" doc:"Handed out or paid"`
		Payments       int        `json:"payments"`
		Warnings       []string   `json:"warnings"`
	}
	// WalletScan is what the wallet looks through.
	WalletScan struct {
		State      string   `json:"state" enum:"idle,following,rescanning,stopped"`
		From       int32    `json:"from"`
		Next       int32    `json:"next" doc:"Height that is looked at next"`
		To         int32    `json:"to"`
		Pass       int      `json:"pass" doc:"A search goes through the chain again if it found addresses late"`
		Percent    float64  `json:"percent"`
		BlocksPerS float64  `json:"blocks_per_s"`
		ETAS       *float64 `json:"eta_s" doc:"Seconds; null while unknown"`
		Trouble    string   `json:"trouble" doc:"Why it cannot go on; empty if it can"`
	}
	// WalletCreate is the body of POST /api/v1/wallet.
	WalletCreate struct {
		Words          string `json:"words" doc:"12 to 24 words of BIP39, made by the caller: they are never in an answer"`
		Passphrase     string `json:"passphrase" doc:"That seals the keys on disk"`
		WordPassphrase string `json:"word_passphrase,omitempty" doc:"BIP39's, kept nowhere"`
		Restore        bool   `json:"restore,omitempty" doc:"The words are older: look through the chain"`
		FromHeight     int32  `json:"from_height,omitempty" minimum:"0" doc:"Where to begin; with restore"`
		Gap            int    `json:"gap,omitempty" minimum:"0" maximum:"10000" doc:"20 if it is missing"`
	}
	// WalletUnlock is the body of POST /api/v1/wallet/unlock.
	WalletUnlock struct {
		Passphrase string  `json:"passphrase"`
		ForS       float64 `json:"for_s,omitempty" minimum:"1" maximum:"100000000" doc:"Seconds; 300 if it is missing, with staking until it is locked"`
		Staking    bool    `json:"staking,omitempty" doc:"Only blocks can be sealed, nothing can be spent"`
	}
	// WalletPassphrase is the body of POST /api/v1/wallet/passphrase.
	WalletPassphrase struct {
		Old string `json:"old"`
		New string `json:"new"`
	}
	// WalletBalance is the worth of coins.
	WalletBalance struct {
		Spendable int64 `json:"spendable" doc:"Can be sent now"`
		Confirmed int64 `json:"confirmed" doc:"In a block and mature, locked coins too"`
		Trusted   int64 `json:"trusted" doc:"Unconfirmed change of own payments"`
		Untrusted int64 `json:"untrusted" doc:"Unconfirmed, from others"`
		Immature  int64 `json:"immature" doc:"Mined, and too young to be spent"`
		Locked    int64 `json:"locked" doc:"Set aside by hand"`
		Total     int64 `json:"total" doc:"confirmed + trusted + untrusted + immature"`
	}
	// WalletBalances is what GET /api/v1/wallet/balance gives.
	WalletBalances struct {
		WalletBalance
		WatchOnly WalletBalance `json:"watch_only" doc:"Of coins whose keys are elsewhere; not in the numbers above"`
	}
	// WalletAddressRequest is the body of POST /api/v1/wallet/addresses.
	WalletAddressRequest struct {
		Kind  string `json:"kind,omitempty" maxLength:"40" doc:"p2wpkh (default), p2tr, p2pkh, p2sh-p2wpkh, or that of an imported descriptor"`
		Label string `json:"label,omitempty" maxLength:"200"`
	}
	// WalletAddress is one of the wallet's addresses.
	WalletAddress struct {
		Address    string `json:"address"`
		Kind       string `json:"kind"`
		Label      string `json:"label"`
		Path       string `json:"path" doc:"Of its first key"`
		Descriptor string `json:"descriptor" doc:"Id"`
		Index      uint32 `json:"index"`
		Change     bool   `json:"change"`
		Used       bool   `json:"used" doc:"It was paid"`
		Received   int64  `json:"received" doc:"Ever, in blocks"`
		WatchOnly  bool   `json:"watch_only"`
		Warning    string `json:"warning,omitempty"`
	}
	// WalletAddresses is what GET /api/v1/wallet/addresses gives.
	WalletAddresses struct {
		Addresses []WalletAddress `json:"addresses" doc:"Newest first"`
		Total     int             `json:"total"`
	}
	// WalletCoin is an unspent output.
	WalletCoin struct {
		TxID          string `json:"txid"`
		Vout          uint32 `json:"vout"`
		Coin          string `json:"coin" doc:"txid:vout"`
		Amount        int64  `json:"amount"`
		Address       string `json:"address" doc:"Empty: its script has none"`
		Label         string `json:"label"`
		Script        string `json:"script" doc:"Hex"`
		Confirmations int32  `json:"confirmations"`
		Height        int32  `json:"height" doc:"-1 unconfirmed"`
		Coinbase      bool   `json:"coinbase"`
		MatureIn      int32  `json:"mature_in" doc:"Blocks until a coinbase can be spent"`
		Spendable     bool   `json:"spendable"`
		Locked        bool   `json:"locked"`
		Trusted       bool   `json:"trusted"`
		WatchOnly     bool   `json:"watch_only"`
		Change        bool   `json:"change"`
	}
	// WalletCoins is what GET /api/v1/wallet/utxos gives.
	WalletCoins struct {
		UTXOs []WalletCoin `json:"utxos" doc:"Deepest first"`
	}
	// WalletPayment is a transaction as its owner sees it.
	WalletPayment struct {
		TxID          string    `json:"txid"`
		State         string    `json:"state" enum:"unconfirmed,confirming,confirmed,conflicted,abandoned"`
		Confirmations int32     `json:"confirmations"`
		Of            int32     `json:"of" doc:"Confirmations that make it confirmed"`
		Text          string    `json:"text" example:"2 of 6"`
		Explain       string    `json:"explain" doc:"Why, in a sentence"`
		Kind          string    `json:"kind" enum:"received,sent,self,mined"`
		Amount        int64     `json:"amount" doc:"What the wallet gained or, negative, lost, the fee included"`
		Fee           *int64    `json:"fee" doc:"null: unknown"`
		FeeRate       int64     `json:"fee_rate" doc:"0 unknown"`
		Label         string    `json:"label"`
		Addresses     []string  `json:"addresses" doc:"Of the other side, or own ones that were paid; the first few"`
		Time          time.Time `json:"time"`
		Height        int32     `json:"height" doc:"-1 in no block"`
		BlockHash     string    `json:"block_hash,omitempty"`
		Conflicting   string    `json:"conflicting_txid,omitempty" doc:"Who spends the same coins"`
		ReplacedBy    string    `json:"replaced_by,omitempty" doc:"The same, where it is not mined yet"`
		Replaces      string    `json:"replaces,omitempty"`
		InMempool     bool      `json:"in_mempool"`
		MatureIn      int32     `json:"mature_in"`
		WatchOnly     bool      `json:"watch_only"`
		CanBump       bool      `json:"can_bump"`
		CanAbandon    bool      `json:"can_abandon"`
	}
	// WalletHistory is what GET /api/v1/wallet/history gives.
	WalletHistory struct {
		Payments []WalletPayment `json:"payments" doc:"Newest first"`
		Next     string          `json:"next" doc:"For after; empty at the end"`
		Total    int             `json:"total"`
	}
	// WalletTx is a payment in full.
	WalletTx struct {
		WalletPayment
		Hex     string         `json:"hex"`
		Size    int            `json:"size"`
		VSize   int            `json:"vsize"`
		Inputs  []WalletInput  `json:"inputs"`
		Outputs []WalletOutput `json:"outputs"`
	}
	// WalletInput is an input of a transaction.
	WalletInput struct {
		Coin    string `json:"coin"`
		Address string `json:"address"`
		Amount  *int64 `json:"amount" doc:"null: unknown"`
		Own     bool   `json:"own"`
	}
	// WalletOutput is an output of a transaction.
	WalletOutput struct {
		N       int    `json:"n"`
		Address string `json:"address" doc:"Empty: its script has none"`
		Amount  int64  `json:"amount"`
		Own     bool   `json:"own"`
		Change  bool   `json:"change"`
		Script  string `json:"script" doc:"Hex"`
		Label   string `json:"label"`
	}
	// WalletFee is what GET /api/v1/wallet/fee gives.
	WalletFee struct {
		FeeRate    int64 `json:"fee_rate"`
		Target     int   `json:"target" doc:"Blocks"`
		MinFeeRate int64 `json:"min_fee_rate" doc:"Least that gets into the mempool"`
	}
	// WalletPay is an output to make.
	WalletPay struct {
		Address string `json:"address" maxLength:"100"`
		Amount  int64  `json:"amount,omitempty" minimum:"0" maximum:"2100000000000000"`
	}
	// WalletSend is the body of POST /api/v1/wallet/send and psbt/create.
	WalletSend struct {
		Outputs     []WalletPay `json:"outputs" minItems:"1" maxItems:"2500"`
		All         bool        `json:"all,omitempty" doc:"The output without an amount takes all there is"`
		FeeRate     int64       `json:"fee_rate,omitempty" minimum:"0" doc:"In place of target"`
		Target      int         `json:"target,omitempty" minimum:"0" maximum:"1008" doc:"Blocks within which it shall be mined; 6 if it is missing"`
		SubtractFee bool        `json:"subtract_fee,omitempty" doc:"The outputs pay the fee"`
		Coins       []string    `json:"coins,omitempty" maxItems:"2500" doc:"txid:vout: spend these and no others"`
		Label       string      `json:"label,omitempty" maxLength:"200"`
		DryRun      bool        `json:"dry_run,omitempty" doc:"Only say what it would be"`
		MaxFee      int64       `json:"max_fee,omitempty" minimum:"0" doc:"Refuse to pay more"`
		Unconfirmed bool        `json:"unconfirmed,omitempty" doc:"Spend unconfirmed coins of others too"`
		Final       bool        `json:"final,omitempty" doc:"Do not signal that it may be replaced"`
		Passphrase  string      `json:"passphrase,omitempty" doc:"Unlocks the wallet for this payment only"`
	}
	// WalletBump is the body of POST /api/v1/wallet/bump.
	WalletBump struct {
		TxID       string `json:"txid" minLength:"64" maxLength:"64"`
		FeeRate    int64  `json:"fee_rate,omitempty" minimum:"0"`
		Target     int    `json:"target,omitempty" minimum:"0" maximum:"1008"`
		DryRun     bool   `json:"dry_run,omitempty"`
		MaxFee     int64  `json:"max_fee,omitempty" minimum:"0"`
		Passphrase string `json:"passphrase,omitempty"`
	}
	// WalletSent is a payment that was made, or would be.
	WalletSent struct {
		Sent     bool           `json:"sent" doc:"It is in the mempool; false: only tried, or a PSBT"`
		TxID     string         `json:"txid" doc:"Empty while signatures would change it"`
		Hex      string         `json:"hex,omitempty"`
		PSBT     string         `json:"psbt,omitempty" doc:"Base64"`
		Fee      int64          `json:"fee"`
		FeeRate  int64          `json:"fee_rate"`
		VSize    int            `json:"vsize"`
		Amount   int64          `json:"amount" doc:"That others get"`
		Change   int64          `json:"change"`
		Replaces string         `json:"replaces,omitempty"`
		Inputs   []WalletInput  `json:"inputs"`
		Outputs  []WalletOutput `json:"outputs"`
		Warnings []string       `json:"warnings"`
	}
	// WalletPSBTRequest is the body of the psbt routes.
	WalletPSBTRequest struct {
		PSBT       string `json:"psbt" doc:"Base64"`
		Passphrase string `json:"passphrase,omitempty"`
		Label      string `json:"label,omitempty" maxLength:"200"`
	}
	// WalletPSBTs is the body of POST /api/v1/wallet/psbt/combine.
	WalletPSBTs struct {
		PSBTs []string `json:"psbts" minItems:"1" maxItems:"50" doc:"Base64"`
	}
	// WalletPSBT is a PSBT after something was done to it.
	WalletPSBT struct {
		PSBT     string `json:"psbt" doc:"Base64"`
		Complete bool   `json:"complete"`
		Signed   int    `json:"signed" doc:"Signatures that were added"`
		Hex      string `json:"hex,omitempty" doc:"The transaction, once it is complete and finalised"`
		TxID     string `json:"txid,omitempty"`
	}
	// WalletPSBTView says what a PSBT would do.
	WalletPSBTView struct {
		TxID     string         `json:"txid" doc:"Of the unsigned transaction"`
		Complete bool           `json:"complete"`
		Fee      *int64         `json:"fee" doc:"null: what it spends is not known"`
		FeeRate  int64          `json:"fee_rate"`
		VSize    int            `json:"vsize"`
		Amount   int64          `json:"amount" doc:"What the wallet would gain or, negative, lose"`
		LockTime uint32         `json:"lock_time"`
		Inputs   []WalletInput  `json:"inputs"`
		Outputs  []WalletOutput `json:"outputs"`
		Missing  []string       `json:"missing" doc:"What each input still lacks; empty strings: nothing"`
	}
	// WalletImport is the body of POST /api/v1/wallet/import.
	WalletImport struct {
		Descriptor string `json:"descriptor,omitempty" doc:"With checksum; with private keys it is sealed in the vault"`
		XPub       string `json:"xpub,omitempty" maxLength:"200" doc:"Watch an account: BIP44, 49, 84 and 86"`
		WIF        string `json:"wif,omitempty" doc:"One private key"`
		Label      string `json:"label,omitempty" maxLength:"200"`
		FromHeight int32  `json:"from_height,omitempty" minimum:"-1" doc:"Look through the chain from there; -1: do not"`
		Active     bool   `json:"active,omitempty" doc:"New addresses come from it"`
		Change     bool   `json:"change,omitempty" doc:"It is for change"`
		Passphrase string `json:"passphrase,omitempty" doc:"To seal private keys in a locked wallet"`
	}
	// WalletDescriptor is where addresses come from.
	WalletDescriptor struct {
		ID         string `json:"id"`
		Descriptor string `json:"descriptor" doc:"Public form"`
		Kind       string `json:"kind"`
		Range      bool   `json:"range"`
		Change     bool   `json:"change"`
		Active     bool   `json:"active"`
		WatchOnly  bool   `json:"watch_only"`
		Next       uint32 `json:"next"`
		Watched    int    `json:"watched" doc:"Scripts"`
		Label      string `json:"label"`
	}
	// WalletDescriptors lists descriptors.
	WalletDescriptors struct {
		Descriptors []WalletDescriptor `json:"descriptors"`
	}
	// WalletRescan is the body of POST /api/v1/wallet/rescan.
	WalletRescan struct {
		FromHeight int32 `json:"from_height" minimum:"0"`
	}
	// WalletBackup is a copy of the wallet.
	WalletBackup struct {
		Data   string `json:"data" doc:"Base64, encrypted"`
		SHA256 string `json:"sha256" doc:"Of the bytes, hex"`
		Name   string `json:"name" doc:"A name for the file"`
	}
	// WalletBackupRequest is the body of POST /api/v1/wallet/backup.
	WalletBackupRequest struct {
		Passphrase string `json:"passphrase" doc:"Of the wallet; it opens the backup too"`
	}
	// WalletRestore is the body of POST /api/v1/wallet/restore.
	WalletRestore struct {
		Data       string `json:"data" doc:"Base64"`
		Passphrase string `json:"passphrase"`
		FromHeight int32  `json:"from_height,omitempty" minimum:"-1" doc:"Look through the chain from there; -1: from what the backup knows"`
	}
	// WalletCoinsRequest names coins.
	WalletCoinsRequest struct {
		Coins []string `json:"coins" maxItems:"10000" doc:"txid:vout"`
	}
	// WalletLocked lists coins that are set aside.
	WalletLocked struct {
		Locked []string `json:"locked"`
	}
	// WalletLabel is the body of PUT /api/v1/wallet/label.
	WalletLabel struct {
		Address string `json:"address,omitempty" maxLength:"100"`
		TxID    string `json:"txid,omitempty" maxLength:"64"`
		Label   string `json:"label" maxLength:"200"`
	}
	// WalletTxRequest names a payment.
	WalletTxRequest struct {
		TxID string `json:"txid" minLength:"64" maxLength:"64"`
	}
)

const (
	// walletPath is the beginning of the wallet's paths, which want the token for reads too.
	walletPath = "/api/v1/wallet"
	// maxWalletBytes bounds a body with a PSBT or a backup.
	maxWalletBytes = 32 << 20
)

// bigWalletBody says whether a route takes a PSBT or a backup.
func bigWalletBody(path string) bool {
	switch path {
	case walletPath + "/psbt/sign", walletPath + "/psbt/combine", walletPath + "/psbt/finalise", walletPath + "/psbt/show", walletPath + "/psbt/send", walletPath + "/restore":
		return true
	}
	return false
}

// hideSecrets keeps faults of the wallet's routes from repeating what was sent: a body that is not as it should be may
// have a passphrase all the same.
func hideSecrets(ctx huma.Context, _ string, v any) (any, error) {
	e, ok := v.(*huma.ErrorModel)
	if !ok || !strings.HasPrefix(ctx.Operation().Path, walletPath) {
		return v, nil
	}
	quiet := *e
	quiet.Errors = nil
	for _, d := range e.Errors {
		// Of what is wrong with the form of JSON, the message may quote it.
		if d = &(huma.ErrorDetail{Message: d.Message, Location: d.Location}); d.Location == "body" {
			d.Message = "the body is not what this route takes"
		}
		quiet.Errors = append(quiet.Errors, d)
	}
	return &quiet, nil
}

// unlockTime is for how long a wallet is unlocked if nothing is said.
const unlockTime = 5 * time.Minute

// routesWallet registers the wallet's routes. read and write make operations.
func (s *Server) routesWallet(api huma.API, read func(id, path, summary string) huma.Operation, write func(id, method, path, summary string, status int) huma.Operation) {
	r := walletRoutes{s: s, api: api, read: read, write: write}
	getRoute(&r, "", "", "The wallet: whether there is one, whether it is locked, how far it has followed the chain",
		func(_ context.Context, _ *nothing) (WalletInfo, error) { return s.wallet().Info(), nil })
	postRoute(&r, "create", "", "Make the wallet of this node, or restore it from words", http.StatusCreated,
		func(ctx context.Context, in WalletCreate) (WalletInfo, error) {
			return s.infoAfter(s.wallet().Create(ctx, in))
		})
	postRoute(&r, "unlock", "/unlock", "Let the wallet sign for a time", http.StatusOK,
		func(_ context.Context, in WalletUnlock) (WalletInfo, error) {
			how := time.Duration(in.ForS * float64(time.Second))
			if in.Staking {
				return s.infoAfter(s.wallet().UnlockStaking(in.Passphrase, how))
			}
			return s.infoAfter(s.wallet().Unlock(in.Passphrase, cmp.Or(how, unlockTime)))
		})
	postRoute(&r, "lock", "/lock", "Seal the keys", http.StatusOK,
		func(_ context.Context, _ nothing) (WalletInfo, error) { return s.infoAfter(s.wallet().Lock()) })
	postRoute(&r, "passphrase", "/passphrase", "Change the passphrase", http.StatusOK,
		func(_ context.Context, in WalletPassphrase) (WalletInfo, error) {
			return s.infoAfter(s.wallet().ChangePassphrase(in.Old, in.New))
		})
	getRoute(&r, "balance", "/balance", "What the coins are worth",
		func(_ context.Context, _ *nothing) (WalletBalances, error) { return s.wallet().Balance() })
	postRoute(&r, "receive", "/addresses", "A new address", http.StatusCreated,
		func(_ context.Context, in WalletAddressRequest) (WalletAddress, error) {
			return s.wallet().NewAddress(in.Kind, in.Label)
		})
	type addressesQuery struct {
		Change bool `query:"change" doc:"Those for change"`
		Limit  int  `query:"limit" minimum:"1" maximum:"1000" default:"100"`
		Offset int  `query:"offset" minimum:"0"`
	}
	getRoute(&r, "addresses", "/addresses", "Addresses that were handed out or paid",
		func(_ context.Context, in *addressesQuery) (WalletAddresses, error) {
			list, total, err := s.wallet().Addresses(in.Change, in.Offset, in.Limit)
			return WalletAddresses{orEmpty(list), total}, err
		})
	type coinsQuery struct {
		MinConf int32 `query:"min_conf" minimum:"0"`
	}
	getRoute(&r, "utxos", "/utxos", "Unspent coins",
		func(_ context.Context, in *coinsQuery) (WalletCoins, error) {
			list, err := s.wallet().Coins(in.MinConf)
			return WalletCoins{orEmpty(list)}, err
		})
	type historyQuery struct {
		Limit int    `query:"limit" minimum:"1" maximum:"1000" default:"50"`
		After string `query:"after" maxLength:"200" doc:"next of the page before"`
	}
	getRoute(&r, "history", "/history", "Payments, newest first",
		func(_ context.Context, in *historyQuery) (WalletHistory, error) {
			page, next, total, err := s.wallet().History(in.After, in.Limit)
			return WalletHistory{orEmpty(page), next, total}, err
		})
	type txPath struct {
		TxID string `path:"txid" minLength:"64" maxLength:"64" doc:"RPC (reversed) hex" example:"4a5e1e4baab89f3a32518a88c31bc87f618f76673e2cc77ab2127b7afdeda33b"`
	}
	getRoute(&r, "tx", "/tx/{txid}", "One payment in full",
		func(_ context.Context, in *txPath) (WalletTx, error) { return s.wallet().Payment(in.TxID) })
	type feeQuery struct {
		Target int `query:"target" minimum:"1" maximum:"1008" default:"6" doc:"Blocks"`
	}
	getRoute(&r, "fee", "/fee", "Fee rate to be mined within so many blocks, by what the mempool holds",
		func(_ context.Context, in *feeQuery) (WalletFee, error) { return s.wallet().FeeRate(in.Target), nil })
	postRoute(&r, "send", "/send", "Pay", http.StatusOK,
		func(ctx context.Context, in WalletSend) (WalletSent, error) { return s.wallet().Send(ctx, in) })
	postRoute(&r, "bump", "/bump", "Replace an unconfirmed payment by one that pays more", http.StatusOK,
		func(ctx context.Context, in WalletBump) (WalletSent, error) { return s.wallet().Bump(ctx, in) })
	postRoute(&r, "abandon", "/abandon", "Give an unconfirmed payment up that is not in the mempool", http.StatusOK,
		func(_ context.Context, in WalletTxRequest) (WalletPayment, error) { return s.wallet().Abandon(in.TxID) })
	s.routesPSBT(&r)
	postRoute(&r, "import", "/import", "Watch a descriptor or an account, or take over a private key", http.StatusOK,
		func(_ context.Context, in WalletImport) (WalletDescriptors, error) {
			list, err := s.wallet().Import(in)
			return WalletDescriptors{orEmpty(list)}, err
		})
	getRoute(&r, "descriptors", "/descriptors", "Where addresses come from",
		func(_ context.Context, _ *nothing) (WalletDescriptors, error) {
			list, err := s.wallet().Descriptors()
			return WalletDescriptors{orEmpty(list)}, err
		})
	postRoute(&r, "rescan", "/rescan", "Look through the chain again, in the background", http.StatusAccepted,
		func(_ context.Context, in WalletRescan) (WalletInfo, error) {
			return s.infoAfter(s.wallet().Rescan(in.FromHeight))
		})
	stop := write("wallet-rescan-stop", http.MethodDelete, "/wallet/rescan", "Give a search of the chain up", http.StatusOK)
	huma.Register(api, stop, func(context.Context, *nothing) (*body[WalletInfo], error) {
		info, err := s.infoAfter(s.wallet().StopRescan())
		if err != nil {
			return nil, s.problem("wallet-rescan-stop", err)
		}
		return answer(info), nil
	})
	postRoute(&r, "backup", "/backup", "An encrypted copy of keys, labels and payments", http.StatusOK,
		func(_ context.Context, in WalletBackupRequest) (WalletBackup, error) {
			return s.wallet().Backup(in.Passphrase)
		})
	postRoute(&r, "restore", "/restore", "Make the wallet of this node from a backup", http.StatusCreated,
		func(_ context.Context, in WalletRestore) (WalletInfo, error) {
			return s.infoAfter(s.wallet().Restore(in))
		})
	for id, lock := range map[string]bool{"lock": true, "unlock": false} {
		postRoute(&r, "coins-"+id, "/coins/"+id, map[bool]string{true: "Set coins aside", false: "Free coins that were set aside; none: all"}[lock], http.StatusOK,
			func(_ context.Context, in WalletCoinsRequest) (WalletLocked, error) {
				list, err := s.wallet().LockCoins(lock, in.Coins)
				return WalletLocked{orEmpty(list)}, err
			})
	}
	label := write("wallet-label", http.MethodPut, "/wallet/label", "Name an address or a payment", http.StatusNoContent)
	huma.Register(api, label, func(_ context.Context, in *body[WalletLabel]) (*struct{}, error) {
		if err := s.wallet().Label(in.Body.Address, in.Body.TxID, in.Body.Label); err != nil {
			return nil, s.problem("wallet-label", err)
		}
		return nil, nil //nolint:nilnil // 204
	})
}

// routesPSBT registers the routes for transactions on their way between signers.
func (s *Server) routesPSBT(r *walletRoutes) {
	postRoute(r, "psbt-create", "/psbt/create", "Plan a payment for others to sign", http.StatusOK,
		func(ctx context.Context, in WalletSend) (WalletSent, error) { return s.wallet().CreatePSBT(ctx, in) })
	postRoute(r, "psbt-sign", "/psbt/sign", "Add this wallet's signatures", http.StatusOK,
		func(_ context.Context, in WalletPSBTRequest) (WalletPSBT, error) {
			return s.wallet().SignPSBT(in.PSBT, in.Passphrase)
		})
	postRoute(r, "psbt-combine", "/psbt/combine", "Gather the signatures of several", http.StatusOK,
		func(_ context.Context, in WalletPSBTs) (WalletPSBT, error) { return s.wallet().CombinePSBT(in.PSBTs) })
	postRoute(r, "psbt-finalise", "/psbt/finalise", "Make the transaction", http.StatusOK,
		func(_ context.Context, in WalletPSBTRequest) (WalletPSBT, error) {
			return s.wallet().FinalisePSBT(in.PSBT)
		})
	postRoute(r, "psbt-show", "/psbt/show", "What it would do", http.StatusOK,
		func(_ context.Context, in WalletPSBTRequest) (WalletPSBTView, error) {
			return s.wallet().ShowPSBT(in.PSBT)
		})
	postRoute(r, "psbt-send", "/psbt/send", "Finalise it and send the transaction", http.StatusOK,
		func(ctx context.Context, in WalletPSBTRequest) (WalletSent, error) {
			return s.wallet().SendPSBT(ctx, in.PSBT, in.Label)
		})
}

// walletRoutes is what the routes of the wallet have in common.
type walletRoutes struct {
	s     *Server
	api   huma.API
	read  func(id, path, summary string) huma.Operation
	write func(id, method, path, summary string, status int) huma.Operation
}

func (r *walletRoutes) id(name string) string {
	if name == "" {
		return "wallet"
	}
	return "wallet-" + name
}

func getRoute[In, Out any](r *walletRoutes, name, path, summary string, do func(context.Context, *In) (Out, error)) {
	id := r.id(name)
	op := r.read(id, "/wallet"+path, summary)
	op.Security = []map[string][]string{{"cookie": {}}}
	huma.Register(r.api, op, func(ctx context.Context, in *In) (*body[Out], error) {
		out, err := do(ctx, in)
		if err != nil {
			return nil, r.s.problem(id, err)
		}
		return answer(out), nil
	})
}

func postRoute[In, Out any](r *walletRoutes, name, path, summary string, status int, do func(context.Context, In) (Out, error)) {
	id := r.id(name)
	op := r.write(id, http.MethodPost, "/wallet"+path, summary, status)
	if bigWalletBody(op.Path) {
		op.MaxBodyBytes = maxWalletBytes // as the guard has it
	}
	finish := func(ctx context.Context, in In) (*body[Out], error) {
		out, err := do(ctx, in)
		if err != nil {
			return nil, r.s.problem(id, err)
		}
		return answer(out), nil
	}
	if _, none := any(*new(In)).(nothing); none {
		huma.Register(r.api, op, func(ctx context.Context, _ *nothing) (*body[Out], error) { return finish(ctx, *new(In)) })
		return
	}
	huma.Register(r.api, op, func(ctx context.Context, in *body[In]) (*body[Out], error) { return finish(ctx, in.Body) })
}

// infoAfter is the wallet's state after something was done to it.
func (s *Server) infoAfter(err error) (WalletInfo, error) {
	if err != nil {
		return WalletInfo{}, err
	}
	return s.wallet().Info(), nil
}

func (s *Server) wallet() Wallet { return s.theNode().Wallet() }
