package wallet

import (
	"encoding/hex"
	"fmt"
	"strings"

	"dunlin/internal/wallet/descriptor"
	"dunlin/internal/wallet/keys"
)

// An Import says what the wallet shall watch or own besides. Exactly one of Descriptor, XPub and WIF is given.
type Import struct {
	Descriptor string
	Strict     bool   // the descriptor must have its checksum
	XPub       string // of an account: its addresses of BIP44, 49, 84 and 86 are watched
	WIF        string // one private key: all its usual addresses
	Label      string
	Active     bool // new addresses come from it
	Change     bool // it is for change
	Next       uint32
	From       int32 // height from which the chain is looked through; -1: it is not
	Passphrase []byte
}

// maxNext bounds the index from which an imported descriptor hands addresses out: those before are all watched.
const maxNext = 100_000

// kindNames are the names of addresses by descriptor.
var kindNames = map[descriptor.Kind]string{
	descriptor.Pk: "p2pk", descriptor.Pkh: "p2pkh", descriptor.Wpkh: "p2wpkh", descriptor.ShWpkh: "p2sh-p2wpkh", descriptor.Multi: "multisig",
	descriptor.Sh: "p2sh", descriptor.Wsh: "p2wsh", descriptor.ShWsh: "p2sh-p2wsh", descriptor.Tr: "p2tr", descriptor.Rawtr: "p2tr-raw",
	descriptor.Addr: "addr", descriptor.Raw: "raw",
}

// Import takes descriptors or a key over. Private keys go into the vault, which must be unlocked for them.
func (w *Wallet) Import(r Import) ([]Descriptor, error) {
	given := 0
	for _, s := range []string{r.Descriptor, r.XPub, r.WIF} {
		if s != "" {
			given++
		}
	}
	if given != 1 {
		return nil, refuse("a descriptor, an extended public key or a private key is wanted: one of them")
	}
	if len(r.Label) > maxLabel {
		return nil, refuse("label of %d bytes: at most %d", len(r.Label), maxLabel)
	}
	if r.Next > maxNext {
		return nil, refuse("next index %d: at most %d, as all before it are watched", r.Next, maxNext)
	}
	if err := w.checkFrom(r.From >= 0, r.From); err != nil {
		return nil, err
	}
	if _, err := w.theVault(); err != nil {
		return nil, err
	}
	var chains []*chainOf
	var seal func(*keys.Ring) error
	var err error
	switch {
	case r.Descriptor != "":
		chains, seal, err = w.importDescriptor(&r)
	case r.XPub != "":
		chains, err = w.importXPub(&r)
	default:
		chains, seal, err = w.importWIF(&r)
	}
	if err != nil {
		return nil, err
	}
	if seal != nil {
		w.sending.Lock() // a passphrase unlocks for one at a time
		defer w.sending.Unlock()
		if err := w.withKeys(r.Passphrase, func(*keys.Spender) error { return w.vault.Update(seal) }); err != nil {
			return nil, err
		}
	}
	return w.addChains(chains, r.From)
}

// addChains takes descriptors over that are in the vault by now, if they have keys.
func (w *Wallet) addChains(chains []*chainOf, from int32) ([]Descriptor, error) {
	if err := w.use(); err != nil {
		return nil, err
	}
	defer w.mu.Unlock()
	b := w.book
	if len(b.order)+len(chains) > maxDescriptors {
		return nil, refuse("more than %d descriptors", maxDescriptors)
	}
	var out []Descriptor
	for _, c := range chains {
		old := b.descs[c.id]
		if old == nil {
			if err := w.addChain(c); err != nil {
				return nil, err
			}
			out = append(out, c.view())
			continue
		}
		i := &old.info
		i.WatchOnly = i.WatchOnly && c.info.WatchOnly
		i.Active, i.Change = i.Active || c.info.Active, c.info.Change
		i.Next = max(i.Next, c.info.Next)
		if c.info.Label != "" {
			i.Label = c.info.Label
		}
		b.touchDesc(old)
		if err := b.extend(old, nil); err != nil {
			return nil, err
		}
		out = append(out, old.view())
	}
	w.log.Info("wallet watches more", "descriptors", len(chains), "from", from)
	b.news = true
	if from >= 0 {
		if b.rescan != nil {
			from = min(from, b.rescan.From)
		}
		w.startSearch(from)
	}
	if err := w.keepPlace(true); err != nil {
		return nil, err
	}
	w.poke()
	return out, nil
}

func (w *Wallet) importDescriptor(r *Import) (chains []*chainOf, seal func(*keys.Ring) error, err error) {
	parse := descriptor.Parse
	if r.Strict {
		parse = descriptor.ParseStrict
	}
	d, err := parse(strings.TrimSpace(r.Descriptor), w.o.Params)
	if err != nil {
		return nil, nil, refuse("descriptor: %v", err)
	}
	public := d
	if d.Private() {
		if public, err = d.Public(); err != nil {
			return nil, nil, refuse("descriptor: %v", err)
		}
		seal = d.AddTo
	}
	parts := public.Expand()
	for i, p := range parts {
		info := descInfo{
			Kind: kindNames[p.Kind()], Range: p.IsRange(), Change: r.Change, Active: r.Active && p.IsRange(), WatchOnly: !d.Private(),
			Label: r.Label, Next: r.Next, Used: -1,
		}
		if public.IsMulti() && len(parts) == 2 { // BIP389: receiving and change
			info.Change = i == 1
		}
		c := newChain(p, info)
		if _, err := c.derive(0); err != nil {
			return nil, nil, refuse("descriptor: %v", err)
		}
		chains = append(chains, c)
	}
	return chains, seal, nil
}

func (w *Wallet) importXPub(r *Import) ([]*chainOf, error) {
	x, err := keys.ParseXPub(strings.TrimSpace(r.XPub), w.o.Params)
	if err != nil {
		return nil, refuse("extended public key: %v", err)
	}
	var chains []*chainOf
	for _, p := range purposes {
		external, internal, err := descriptor.AccountOf(x, keys.Origin{}, p.purpose, w.o.Params)
		if err != nil {
			return nil, refuse("extended public key: %v", err)
		}
		for i, d := range []*descriptor.Descriptor{external, internal} {
			chains = append(chains, newChain(d, descInfo{
				Kind: p.kind, Range: true, Change: i == 1, Active: r.Active, WatchOnly: true, Label: r.Label, Next: r.Next, Used: -1,
			}))
		}
	}
	return chains, nil
}

func (w *Wallet) importWIF(r *Import) (chains []*chainOf, seal func(*keys.Ring) error, err error) {
	k, err := keys.ParseWIF(strings.TrimSpace(r.WIF), w.o.Params)
	if err != nil {
		return nil, nil, refuse("private key: not in the wallet import format of this network")
	}
	public := hex.EncodeToString(k.PublicBytes())
	texts := []string{fmt.Sprintf("combo(%s)", public)}
	if k.Compressed() {
		texts = append(texts, fmt.Sprintf("tr(%s)", public[2:]))
	}
	for _, text := range texts {
		d, err := descriptor.Parse(text, w.o.Params)
		if err != nil {
			return nil, nil, fmt.Errorf("descriptor of a key: %w", err)
		}
		for _, p := range d.Expand() {
			chains = append(chains, newChain(p, descInfo{Kind: kindNames[p.Kind()], Label: r.Label, Used: -1}))
		}
	}
	return chains, func(ring *keys.Ring) error {
		defer k.Wipe()
		return ring.AddKey(k)
	}, nil
}
