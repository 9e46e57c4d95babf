package wallet

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/btcsuite/btcd/wire/v2"

	"dunlin/internal/wallet/keys"
	"dunlin/internal/wallet/spend"
)

// A PSBT is a packet after something was done to it.
type PSBT struct {
	Text     string // base64
	Complete bool   // nothing is missing
	Signed   int    // signatures that were added
	Tx       *wire.MsgTx
}

// parse reads a packet and adds what the wallet knows of its inputs and outputs.
func (w *Wallet) parse(text string) (*spend.Packet, error) {
	p, err := spend.Parse(strings.TrimSpace(text))
	if err != nil {
		return nil, refuse("psbt: %v", err)
	}
	if err := p.Update(w.describe, w.known); err != nil {
		return nil, fmt.Errorf("psbt: %w", err)
	}
	return p, nil
}

// UpdatePSBT adds what the wallet knows, without signing.
func (w *Wallet) UpdatePSBT(text string) (PSBT, error) {
	p, err := w.parse(text)
	if err != nil {
		return PSBT{}, err
	}
	return w.psbt(p, 0), nil
}

// SignPSBT adds this wallet's signatures. Whatever the packet says of the wallet's coins must be true.
func (w *Wallet) SignPSBT(text string, passphrase []byte) (PSBT, error) {
	if _, err := w.theVault(); err != nil {
		return PSBT{}, err
	}
	p, err := w.parse(text)
	if err != nil {
		return PSBT{}, err
	}
	w.sending.Lock() // a passphrase unlocks for one at a time
	defer w.sending.Unlock()
	signed := 0
	err = w.withKeys(passphrase, func(k *keys.Spender) error {
		signed, err = p.Sign(k, w.signOptions())
		return err
	})
	if errors.Is(err, ErrLocked) {
		return PSBT{}, err
	}
	if err != nil {
		return PSBT{}, fmt.Errorf("psbt: %w", err)
	}
	return w.psbt(p, signed), nil
}

// psbt says how far a packet is.
func (w *Wallet) psbt(p *spend.Packet, signed int) PSBT {
	out := PSBT{Text: p.String(), Signed: signed}
	switch p.Analyse(w.describe).Next {
	case spend.RoleFinaliser, spend.RoleExtractor:
		out.Complete = true
	}
	return out
}

// CombinePSBT gathers what several copies of one packet have.
func (w *Wallet) CombinePSBT(texts []string) (PSBT, error) {
	var packets []*spend.Packet
	for i, text := range texts {
		p, err := spend.Parse(strings.TrimSpace(text))
		if err != nil {
			return PSBT{}, refuse("psbt %d: %v", i, err)
		}
		packets = append(packets, p)
	}
	p, err := spend.Combine(packets...)
	if err != nil {
		return PSBT{}, refuse("psbt: %v", err)
	}
	return w.psbt(p, 0), nil
}

// FinalisePSBT makes the transaction if nothing is missing, and as much of it as there is else.
func (w *Wallet) FinalisePSBT(text string) (PSBT, error) {
	p, err := spend.Parse(strings.TrimSpace(text))
	if err != nil {
		return PSBT{}, refuse("psbt: %v", err)
	}
	_ = p.Update(w.describe, w.known) // it may be of others, and what lacks is said below
	if err := p.Finalise(w.describe); err != nil && !errors.Is(err, spend.ErrIncomplete) {
		return PSBT{}, refuse("psbt: %v", err)
	}
	out := PSBT{Text: p.String(), Complete: p.Complete()}
	if out.Complete {
		if out.Tx, err = p.Extract(); err != nil {
			return PSBT{}, refuse("psbt: %v", err)
		}
	}
	return out, nil
}

// SendPSBT finalises a packet and sends its transaction.
func (w *Wallet) SendPSBT(ctx context.Context, text, label string) (*Sent, error) {
	if len(label) > maxLabel {
		return nil, refuse("label of %d bytes: at most %d", len(label), maxLabel)
	}
	p, err := w.parse(text)
	if err != nil {
		return nil, err
	}
	if err := p.Finalise(w.describe); err != nil {
		return nil, refuse("psbt: %v", err)
	}
	m, err := p.Extract()
	if err != nil {
		return nil, refuse("psbt: %v", err)
	}
	fee, err := p.Fee()
	if err != nil {
		return nil, refuse("psbt: %v", err)
	}
	coins, err := p.Coins()
	if err != nil {
		return nil, refuse("psbt: %v", err)
	}
	weight, err := spend.FeeWeight(m, coins)
	if err != nil {
		return nil, refuse("psbt: %v", err)
	}
	out := &Sent{Tx: m, Fee: fee, Weight: weight, Rate: fee * 4000 / max(1, weight), Signed: true, Change: -1}
	for i := range coins {
		out.Spent = append(out.Spent, wire.NewTxOut(coins[i].Value, coins[i].Script))
	}
	// Who made the packet may have mistaken amounts: the caps of what is planned here hold for it too.
	if fee > spend.DefaultMaxFee || spend.Rate(out.Rate) > spend.DefaultMaxRate {
		return nil, &spend.FeeError{Fee: fee, MaxFee: spend.DefaultMaxFee, Rate: spend.Rate(out.Rate), MaxRate: spend.DefaultMaxRate}
	}
	w.sending.Lock()
	defer w.sending.Unlock()
	err = w.commit(ctx, m, nil, func(t *tx) {
		t.info.Fee = fee
		if label != "" {
			t.info.Label = label
		}
	})
	if err != nil {
		return nil, err
	}
	out.Sent = true
	return out, nil
}

// A PSBTView says what a packet would do.
type PSBTView struct {
	Tx       *wire.MsgTx
	Spent    []*wire.TxOut // nil: not known
	Fee      int64         // -1: not known
	Weight   int64         // an estimate; 0: not known
	Amount   int64         // what the wallet would gain or, negative, lose
	Complete bool
	Missing  []string // by input; empty: nothing
	Packet   *spend.Packet
	Analysis *spend.Analysis
}

// ShowPSBT describes a packet. It needs no keys, and no wallet.
func (w *Wallet) ShowPSBT(text string) (*PSBTView, error) {
	p, err := spend.Parse(strings.TrimSpace(text))
	if err != nil {
		return nil, refuse("psbt: %v", err)
	}
	if err := p.Update(w.describe, w.known); err != nil {
		return nil, fmt.Errorf("psbt: %w", err)
	}
	a := p.Analyse(w.describe)
	v := &PSBTView{Tx: p.Tx, Fee: a.Fee, Weight: a.Weight, Packet: p, Analysis: a}
	v.Complete = a.Next == spend.RoleFinaliser || a.Next == spend.RoleExtractor
	for i, in := range p.Inputs {
		out := in.PrevOut
		if in.PrevTx != nil {
			out = in.PrevTx.TxOut[p.Tx.TxIn[i].PreviousOutPoint.Index] // Update has checked it
		}
		v.Spent = append(v.Spent, out)
		if amount, _, ok := w.CoinAmount(p.Tx.TxIn[i].PreviousOutPoint); ok {
			v.Amount -= amount
		}
		why := ""
		if ia := &a.Inputs[i]; ia.Next == spend.RoleUpdater || ia.Next == spend.RoleSigner {
			why = string(ia.Next)
			if ia.Why != nil {
				why = ia.Why.Error()
			}
		}
		v.Missing = append(v.Missing, why)
	}
	for _, out := range p.Tx.TxOut {
		if _, ok := w.Mine(out.PkScript); ok {
			v.Amount += out.Value
		}
	}
	return v, nil
}

// SignTx signs the inputs of a transaction that this wallet can sign, and says of each of the others what it lacks.
// prevs are outputs that it spends and that the wallet does not know.
func (w *Wallet) SignTx(m *wire.MsgTx, prevs map[wire.OutPoint]*wire.TxOut) (signed *wire.MsgTx, complete bool, missing []string, err error) {
	if _, err := w.theVault(); err != nil {
		return nil, false, nil, err
	}
	p := spend.NewPacket(m)
	for i, in := range m.TxIn {
		if out := prevs[in.PreviousOutPoint]; out != nil {
			p.Inputs[i].PrevOut = out
		}
		if len(in.SignatureScript) > 0 || len(in.Witness) > 0 { // somebody else's
			p.Inputs[i].FinalScript, p.Inputs[i].FinalWitness = in.SignatureScript, in.Witness
		}
	}
	if err := p.Update(w.describe, w.known); err != nil {
		return nil, false, nil, refuse("%v", err)
	}
	w.sending.Lock() // a passphrase unlocks for one at a time
	defer w.sending.Unlock()
	err = w.withKeys(nil, func(k *keys.Spender) error {
		_, err := p.Sign(k, w.signOptions())
		return err
	})
	if errors.Is(err, ErrLocked) {
		return nil, false, nil, err
	}
	if err != nil {
		return nil, false, nil, refuse("%v", err)
	}
	_ = p.Finalise(w.describe) // what lacks is said by input
	a := p.Analyse(w.describe)
	signed, complete = m.Copy(), true
	for i := range p.Inputs {
		why := ""
		if p.Inputs[i].Final() {
			signed.TxIn[i].SignatureScript, signed.TxIn[i].Witness = p.Inputs[i].FinalScript, p.Inputs[i].FinalWitness
		} else {
			complete, why = false, "not signed"
			if a.Inputs[i].Why != nil {
				why = a.Inputs[i].Why.Error()
			}
		}
		missing = append(missing, why)
	}
	if complete { // what others put in is theirs: it may be half a signature
		if _, err := p.Extract(); err != nil {
			complete, missing[0] = false, err.Error()
		}
	}
	return signed, complete, missing, nil
}
