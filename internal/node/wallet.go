package node

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"net/http"
	"path/filepath"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/wire/v2"

	"dunlin/internal/address"
	"dunlin/internal/api"
	"dunlin/internal/wallet"
	"dunlin/internal/wallet/keys"
	"dunlin/internal/wallet/spend"
)

// walletDir is the wallet's folder in a home.
const walletDir = "wallet"

// openWallet opens the wallet, if there is one. What is wrong with it does not keep the node from running.
func (n *Node) openWallet() (err error) {
	n.wallet, err = wallet.New(wallet.Options{
		Dir: filepath.Join(n.c.Home, walletDir), Params: n.params, Chain: walletChain{n.chain}, Pool: walletPool{n},
		Logger: n.log.With("subsystem", "wallet"),
	})
	if err != nil {
		return err
	}
	n.closers = append(n.closers, n.wallet.Close)
	n.payWallet()
	return nil
}

// payWallet makes the miner pay the wallet, if there is one and the operator has named no address. While the wallet
// looks for its coins it does not know which addresses are used already.
func (n *Node) payWallet() {
	if n.stake != nil { // the reward joins the stake
		return
	}
	if n.c.Mining.Address != "" || !n.wallet.Exists() || n.wallet.Searching() {
		return
	}
	a, err := n.wallet.MiningAddress()
	if err == nil {
		err = n.miner.Pay(a.Script)
	}
	if err != nil {
		n.log.Warn("the miner does not pay the wallet", "err", err)
		return
	}
	n.payTo.Store(&a.Address)
}

// walletFace shows the wallet to the API.
type walletFace struct{ *Node }

var _ api.Wallet = walletFace{}

// Wallet implements api.Node.
func (f face) Wallet() api.Wallet { return walletFace(f) }

// WalletFault gives the wallet's errors their status.
func walletFault(err error) error {
	if err == nil {
		return nil
	}
	var status int
	var request *wallet.RequestError
	var refusal *wallet.RefusalError
	var short *spend.ShortError
	var fee *spend.FeeError
	var dust *spend.DustError
	switch {
	case errors.Is(err, wallet.ErrNone), errors.Is(err, wallet.ErrUnknown):
		status = http.StatusNotFound
	case errors.Is(err, wallet.ErrExists):
		status = http.StatusConflict
	case errors.Is(err, wallet.ErrLocked), errors.Is(err, wallet.ErrSealed):
		status = http.StatusLocked
	case errors.Is(err, wallet.ErrPassword):
		status = http.StatusForbidden
	case errors.As(err, &request), errors.As(err, &refusal), errors.As(err, &short), errors.As(err, &fee), errors.As(err, &dust),
		errors.Is(err, spend.ErrTooLarge), errors.Is(err, spend.ErrForged):
		status = http.StatusUnprocessableEntity
	case errors.Is(err, keys.ErrDamaged), errors.Is(err, wallet.ErrBroken):
		status = http.StatusConflict
	default:
		return err
	}
	return &api.Error{Status: status, Reason: err.Error()}
}

// Info implements api.Wallet.
func (f walletFace) Info() api.WalletInfo {
	i := f.wallet.Info()
	out := api.WalletInfo{
		Exists: i.Exists, Encrypted: i.Encrypted, Locked: i.Exists && i.Broken == "" && !i.Unlocked, Staking: i.Staking, WatchOnly: i.WatchOnly, BirthdayHeight: i.From,
		Height: i.Height, TipHeight: i.Tip, Gap: i.Gap, Descriptors: i.Descriptors, Addresses: i.Addresses, Payments: i.Payments,
		Warnings: append([]string{}, i.Warnings...),
		Scan: api.WalletScan{
			State: i.Scan.State, From: i.Scan.From, Next: i.Scan.Next, To: i.Scan.To, Pass: i.Scan.Pass, BlocksPerS: i.Scan.BlocksPerS, Trouble: i.Scan.Trouble,
		},
	}
	if i.Exists && i.Broken == "" {
		out.Behind = max(0, i.Tip-i.Height)
	}
	if !i.UnlockedUntil.IsZero() {
		out.UnlockedUntil = new(i.UnlockedUntil.UTC())
	}
	if i.Birthday > 0 {
		out.Birthday = new(time.Unix(i.Birthday, 0).UTC())
	}
	switch s := &out.Scan; {
	case s.To >= s.From && s.State != wallet.ScanIdle:
		s.Percent = 100 * float64(s.Next-s.From) / float64(s.To-s.From+1)
	case s.State == wallet.ScanIdle:
		s.Percent = 100
	}
	if i.Scan.ETA >= 0 {
		out.Scan.ETAS = new(i.Scan.ETA.Seconds())
	}
	return out
}

// Create implements api.Wallet.
func (f walletFace) Create(_ context.Context, r api.WalletCreate) error {
	words, err := keys.ParseWords(r.Words)
	if err != nil {
		return api.Errorf(http.StatusUnprocessableEntity, "words: %v", err)
	}
	defer words.Wipe()
	err = f.wallet.Create(wallet.NewWallet{
		Words: words, WordPassphrase: r.WordPassphrase, Passphrase: []byte(r.Passphrase), Gap: r.Gap, Restore: r.Restore, From: r.FromHeight,
	})
	if err != nil {
		return walletFault(err)
	}
	if !r.Restore {
		f.payWallet()
	}
	return nil
}

// Unlock implements api.Wallet.
func (f walletFace) Unlock(passphrase string, how time.Duration) error {
	return walletFault(f.wallet.Unlock([]byte(passphrase), how))
}

// UnlockStaking implements api.Wallet.
func (f walletFace) UnlockStaking(passphrase string, how time.Duration) error {
	return walletFault(f.wallet.UnlockStaking([]byte(passphrase), how))
}

// Lock implements api.Wallet.
func (f walletFace) Lock() error { return walletFault(f.wallet.Lock()) }

// ChangePassphrase implements api.Wallet.
func (f walletFace) ChangePassphrase(current, next string) error {
	return walletFault(f.wallet.ChangePassphrase([]byte(current), []byte(next)))
}

// Balance implements api.Wallet.
func (f walletFace) Balance() (api.WalletBalances, error) {
	own, watched, err := f.wallet.Balance()
	if err != nil {
		return api.WalletBalances{}, walletFault(err)
	}
	return api.WalletBalances{WalletBalance: walletBalance(own), WatchOnly: walletBalance(watched)}, nil
}

func walletBalance(b wallet.Balance) api.WalletBalance {
	return api.WalletBalance{
		Spendable: b.Spendable, Confirmed: b.Confirmed, Trusted: b.Trusted, Untrusted: b.Untrusted, Immature: b.Immature, Locked: b.Locked, Total: b.Total(),
	}
}

// NewAddress implements api.Wallet.
func (f walletFace) NewAddress(kind, label string) (api.WalletAddress, error) {
	a, err := f.wallet.NewAddress(kind, label, false)
	return walletAddress(a), walletFault(err)
}

func walletAddress(a wallet.Address) api.WalletAddress {
	return api.WalletAddress{
		Address: a.Address, Kind: a.Kind, Label: a.Label, Path: a.Path, Descriptor: a.Descriptor, Index: a.Index, Change: a.Change,
		Used: a.Used, Received: a.Received, WatchOnly: a.WatchOnly, Warning: a.Warning,
	}
}

// Addresses implements api.Wallet.
func (f walletFace) Addresses(change bool, offset, limit int) (out []api.WalletAddress, total int, err error) {
	list, total, err := f.wallet.Addresses(change, offset, limit)
	for i := range list {
		out = append(out, walletAddress(list[i]))
	}
	return out, total, walletFault(err)
}

// Coins implements api.Wallet.
func (f walletFace) Coins(minConf int32) (out []api.WalletCoin, err error) {
	list, err := f.wallet.Coins(minConf)
	for i := range list {
		c := &list[i]
		out = append(out, api.WalletCoin{
			TxID: c.OutPoint.Hash.String(), Vout: c.OutPoint.Index, Coin: wallet.CoinText(c.OutPoint), Amount: c.Amount, Address: c.Address, Label: c.Label,
			Script: hex.EncodeToString(c.Script), Confirmations: c.Confirmations, Height: c.Height, Coinbase: c.Coinbase, MatureIn: c.MatureIn,
			Spendable: c.Spendable, Locked: c.Locked, Trusted: c.Trusted, WatchOnly: c.WatchOnly, Change: c.Change,
		})
	}
	return out, walletFault(err)
}

// History implements api.Wallet.
func (f walletFace) History(after string, limit int) (page []api.WalletPayment, next string, total int, err error) {
	list, next, total, err := f.wallet.History(after, limit)
	for i := range list {
		page = append(page, walletPayment(&list[i]))
	}
	return page, next, total, walletFault(err)
}

func walletPayment(p *wallet.Payment) api.WalletPayment {
	out := api.WalletPayment{
		TxID: p.TxID.String(), State: p.State, Confirmations: p.Confirmations, Of: wallet.Deep, Text: p.Text, Explain: p.Explain, Kind: p.Kind,
		Amount: p.Amount, FeeRate: p.Rate(), Label: p.Label, Addresses: append([]string{}, p.Addresses...), Time: p.Time, Height: p.Height,
		BlockHash: hashOrNone(p.BlockHash), Conflicting: hashOrNone(p.Conflicting), Replaces: hashOrNone(p.Replaces), InMempool: p.InMempool, MatureIn: p.MatureIn,
		WatchOnly: p.WatchOnly, CanBump: p.CanBump, CanAbandon: p.CanAbandon,
	}
	if p.Fee >= 0 {
		out.Fee = new(p.Fee)
	}
	if p.Replaced {
		out.ReplacedBy = out.Conflicting
	}
	return out
}

// hashOrNone is a hash in hex, empty if it is zero.
func hashOrNone(h chainhash.Hash) string {
	if h == (chainhash.Hash{}) {
		return ""
	}
	return h.String()
}

// Payment implements api.Wallet.
func (f walletFace) Payment(txid string) (api.WalletTx, error) {
	id, err := wallet.ParseTxID(txid)
	if err != nil {
		return api.WalletTx{}, walletFault(err)
	}
	p, m, raw, err := f.wallet.Payment(id)
	if err != nil {
		return api.WalletTx{}, walletFault(err)
	}
	out := api.WalletTx{WalletPayment: walletPayment(&p), Hex: hex.EncodeToString(raw), Size: len(raw), VSize: p.VSize}
	out.Inputs, out.Outputs = f.sides(m, nil)
	return out, nil
}

// sides describes inputs and outputs. spent are the outputs that the inputs spend, as far as they are known; nil: those of the wallet.
func (f walletFace) sides(m *wire.MsgTx, spent []*wire.TxOut) (ins []api.WalletInput, outs []api.WalletOutput) {
	params := address.Params(f.params)
	ins, outs = []api.WalletInput{}, []api.WalletOutput{}
	for i, in := range m.TxIn {
		view := api.WalletInput{Coin: wallet.CoinText(in.PreviousOutPoint)}
		amount, script, own := f.wallet.CoinAmount(in.PreviousOutPoint)
		if !own && i < len(spent) && spent[i] != nil {
			amount, script = spent[i].Value, spent[i].PkScript
		}
		if script != nil {
			view.Amount, view.Own = new(amount), own
			view.Address, _ = address.Of(script, params)
		}
		ins = append(ins, view)
	}
	for n, o := range m.TxOut {
		view := api.WalletOutput{N: n, Amount: o.Value, Script: hex.EncodeToString(o.PkScript)}
		view.Address, _ = address.Of(o.PkScript, params)
		if a, ok := f.wallet.Mine(o.PkScript); ok {
			view.Own, view.Change, view.Label = true, a.Change, a.Label
		}
		outs = append(outs, view)
	}
	return ins, outs
}

// FeeRate implements api.Wallet.
func (f walletFace) FeeRate(target int) api.WalletFee {
	return api.WalletFee{FeeRate: walletPool{f.Node}.Rate(target), Target: target, MinFeeRate: f.pool.MinFeeRate()}
}

// sendRequest reads a request.
func (f walletFace) sendRequest(r *api.WalletSend) (wallet.Send, error) {
	out := wallet.Send{
		All: r.All, Rate: r.FeeRate, Target: r.Target, Label: r.Label, MaxFee: r.MaxFee, Unconfirmed: r.Unconfirmed, Final: r.Final,
		Passphrase: []byte(r.Passphrase), DryRun: r.DryRun,
	}
	var faults []error
	params := address.Params(f.params)
	for i, o := range r.Outputs {
		script, err := address.Script(o.Address, params)
		if err != nil {
			faults = append(faults, api.Errorf(http.StatusUnprocessableEntity, "output %d: address %q: %v", i, o.Address, err))
		}
		out.Outputs = append(out.Outputs, wallet.Pay{Script: script, Amount: o.Amount, PaysFee: r.SubtractFee})
	}
	for _, c := range r.Coins {
		op, err := wallet.ParseCoin(c)
		if err != nil {
			faults = append(faults, err)
		}
		out.Coins = append(out.Coins, op)
	}
	if err := errors.Join(faults...); err != nil {
		return out, api.Errorf(http.StatusUnprocessableEntity, "%v", err)
	}
	return out, nil
}

// Send implements api.Wallet.
func (f walletFace) Send(ctx context.Context, r api.WalletSend) (api.WalletSent, error) {
	request, err := f.sendRequest(&r)
	if err != nil {
		return api.WalletSent{}, err
	}
	s, err := f.wallet.Send(ctx, request)
	if err != nil {
		return api.WalletSent{}, walletFault(err)
	}
	return f.sent(s), nil
}

// CreatePSBT implements api.Wallet.
func (f walletFace) CreatePSBT(_ context.Context, r api.WalletSend) (api.WalletSent, error) {
	request, err := f.sendRequest(&r)
	if err != nil {
		return api.WalletSent{}, err
	}
	s, err := f.wallet.Plan(request)
	if err != nil {
		return api.WalletSent{}, walletFault(err)
	}
	return f.sent(s), nil
}

// sent describes a payment that was made or planned.
func (f walletFace) sent(s *wallet.Sent) api.WalletSent {
	out := api.WalletSent{
		Sent: s.Sent, Fee: s.Fee, FeeRate: s.Rate, VSize: int((s.Weight + 3) / 4), Replaces: hashOrNone(s.Replaces), PSBT: s.PSBT,
		Warnings: append([]string{}, s.Warnings...),
	}
	if s.Signed {
		out.TxID = s.Tx.TxHash().String()
		out.Hex = txHex(s.Tx)
	}
	out.Inputs, out.Outputs = f.sides(s.Tx, s.Spent)
	for _, o := range out.Outputs {
		if o.Change {
			out.Change += o.Amount
		} else {
			out.Amount += o.Amount
		}
	}
	return out
}

func txHex(m *wire.MsgTx) string {
	var b hexBuilder
	_ = m.Serialize(&b) // into memory
	return hex.EncodeToString(b)
}

type hexBuilder []byte

// Write implements io.Writer.
func (b *hexBuilder) Write(p []byte) (int, error) {
	*b = append(*b, p...)
	return len(p), nil
}

// Bump implements api.Wallet.
func (f walletFace) Bump(ctx context.Context, r api.WalletBump) (api.WalletSent, error) {
	id, err := wallet.ParseTxID(r.TxID)
	if err != nil {
		return api.WalletSent{}, walletFault(err)
	}
	s, err := f.wallet.Bump(ctx, wallet.Bump{TxID: id, Rate: r.FeeRate, Target: r.Target, MaxFee: r.MaxFee, DryRun: r.DryRun, Passphrase: []byte(r.Passphrase)})
	if err != nil {
		return api.WalletSent{}, walletFault(err)
	}
	return f.sent(s), nil
}

// Abandon implements api.Wallet.
func (f walletFace) Abandon(txid string) (api.WalletPayment, error) {
	id, err := wallet.ParseTxID(txid)
	if err != nil {
		return api.WalletPayment{}, walletFault(err)
	}
	p, err := f.wallet.Abandon(id)
	return walletPayment(&p), walletFault(err)
}

// SignPSBT implements api.Wallet.
func (f walletFace) SignPSBT(psbt, passphrase string) (api.WalletPSBT, error) {
	return f.psbt(f.wallet.SignPSBT(psbt, []byte(passphrase)))
}

// CombinePSBT implements api.Wallet.
func (f walletFace) CombinePSBT(psbts []string) (api.WalletPSBT, error) {
	return f.psbt(f.wallet.CombinePSBT(psbts))
}

// FinalisePSBT implements api.Wallet.
func (f walletFace) FinalisePSBT(psbt string) (api.WalletPSBT, error) {
	return f.psbt(f.wallet.FinalisePSBT(psbt))
}

func (f walletFace) psbt(p wallet.PSBT, err error) (api.WalletPSBT, error) {
	if err != nil {
		return api.WalletPSBT{}, walletFault(err)
	}
	out := api.WalletPSBT{PSBT: p.Text, Complete: p.Complete, Signed: p.Signed}
	if p.Tx != nil {
		out.Hex, out.TxID = txHex(p.Tx), p.Tx.TxHash().String()
	}
	return out, nil
}

// ShowPSBT implements api.Wallet.
func (f walletFace) ShowPSBT(psbt string) (api.WalletPSBTView, error) {
	v, err := f.wallet.ShowPSBT(psbt)
	if err != nil {
		return api.WalletPSBTView{}, walletFault(err)
	}
	out := api.WalletPSBTView{
		TxID: v.Tx.TxHash().String(), Complete: v.Complete, LockTime: v.Tx.LockTime, VSize: int((v.Weight + 3) / 4), Amount: v.Amount, Missing: v.Missing,
	}
	if v.Fee >= 0 {
		out.Fee = new(v.Fee)
		if out.VSize > 0 {
			out.FeeRate = v.Fee * 1000 / int64(out.VSize)
		}
	}
	out.Inputs, out.Outputs = f.sides(v.Tx, v.Spent)
	return out, nil
}

// SendPSBT implements api.Wallet.
func (f walletFace) SendPSBT(ctx context.Context, psbt, label string) (api.WalletSent, error) {
	s, err := f.wallet.SendPSBT(ctx, psbt, label)
	if err != nil {
		return api.WalletSent{}, walletFault(err)
	}
	return f.sent(s), nil
}

// Import implements api.Wallet.
func (f walletFace) Import(r api.WalletImport) ([]api.WalletDescriptor, error) {
	list, err := f.wallet.Import(wallet.Import{
		Descriptor: r.Descriptor, XPub: r.XPub, WIF: r.WIF, Label: r.Label, From: r.FromHeight, Active: r.Active, Change: r.Change, Passphrase: []byte(r.Passphrase),
	})
	return walletDescriptors(list), walletFault(err)
}

// Descriptors implements api.Wallet.
func (f walletFace) Descriptors() ([]api.WalletDescriptor, error) {
	list, err := f.wallet.Descriptors()
	return walletDescriptors(list), walletFault(err)
}

func walletDescriptors(list []wallet.Descriptor) (out []api.WalletDescriptor) {
	for _, d := range list {
		out = append(out, api.WalletDescriptor{
			ID: d.ID, Descriptor: d.Text, Kind: d.Kind, Range: d.Range, Change: d.Change, Active: d.Active, WatchOnly: d.WatchOnly, Next: d.Next,
			Watched: d.Watched, Label: d.Label,
		})
	}
	return out
}

// Rescan implements api.Wallet.
func (f walletFace) Rescan(from int32) error { return walletFault(f.wallet.Rescan(from)) }

// StopRescan implements api.Wallet.
func (f walletFace) StopRescan() error { return walletFault(f.wallet.StopRescan()) }

// Backup implements api.Wallet.
func (f walletFace) Backup(passphrase string) (api.WalletBackup, error) {
	raw, err := f.wallet.Backup([]byte(passphrase))
	if err != nil {
		return api.WalletBackup{}, walletFault(err)
	}
	sum := sha256.Sum256(raw)
	return api.WalletBackup{
		Data: base64.StdEncoding.EncodeToString(raw), SHA256: hex.EncodeToString(sum[:]),
		Name: "dunlin-wallet-" + f.params.ChainID() + "-" + time.Now().UTC().Format("20060102-150405") + ".backup",
	}, nil
}

// Restore implements api.Wallet.
func (f walletFace) Restore(r api.WalletRestore) error {
	raw, err := base64.StdEncoding.DecodeString(r.Data)
	if err != nil {
		return api.Errorf(http.StatusUnprocessableEntity, "data: %v", err)
	}
	if err := f.wallet.Restore(raw, []byte(r.Passphrase), r.FromHeight); err != nil {
		return walletFault(err)
	}
	f.payWallet()
	return nil
}

// LockCoins implements api.Wallet.
func (f walletFace) LockCoins(lock bool, coins []string) (out []string, err error) {
	var ops []wire.OutPoint
	for _, c := range coins {
		op, err := wallet.ParseCoin(c)
		if err != nil {
			return nil, walletFault(err)
		}
		ops = append(ops, op)
	}
	list, err := f.wallet.LockCoins(lock, ops)
	for _, op := range list {
		out = append(out, wallet.CoinText(op))
	}
	return out, walletFault(err)
}

// Label implements api.Wallet.
func (f walletFace) Label(addr, txid, label string) error {
	if txid != "" {
		id, err := wallet.ParseTxID(txid)
		if err != nil {
			return walletFault(err)
		}
		return walletFault(f.wallet.SetLabel(nil, &id, label))
	}
	script, err := address.Script(addr, address.Params(f.params))
	if err != nil {
		return api.Errorf(http.StatusUnprocessableEntity, "address %q: %v", addr, err)
	}
	return walletFault(f.wallet.SetLabel(script, nil, label))
}
