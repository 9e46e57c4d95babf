package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/btcsuite/btcd/btcec/v2"
	"github.com/btcsuite/btcd/btcec/v2/schnorr"
	"github.com/btcsuite/btcd/btcutil/v2"
	"github.com/btcsuite/btcd/txscript/v2"

	"dunlin/chain/consensus"
	"dunlin/config"
	"dunlin/internal/address"
	"dunlin/internal/wallet"
)

// sharedCoins is what the holders of --holders share.
const sharedCoins = 1_000_000

// holders are those that `network create` makes keys for.
type holders struct {
	equal int      // of --holders
	coins []string // of --new-holder

	made []newHolder
}

type newHolder struct {
	key    *btcec.PrivateKey // the internal key (BIP86)
	holder consensus.Holder
	file   string // absolute, once it is written
}

// all makes the keys and returns every holder as a network.toml has them: those
// that exist first.
func (h *holders) all(existing []string) ([]string, error) {
	if h.equal < 0 || h.equal > consensus.MaxHolders {
		return nil, fmt.Errorf("--holders %d: is out of range; want 1 to %d", h.equal, consensus.MaxHolders)
	}
	if h.equal+len(h.coins)+len(existing) == 0 {
		return nil, errors.New("--holder, --new-holder or --holders is required with --engine pos: somebody must have the stake; --holders 1 makes a key")
	}
	if n := h.equal + len(h.coins) + len(existing); n > consensus.MaxHolders {
		return nil, fmt.Errorf("--holder, --new-holder, --holders: %d holders, at most %d", n, consensus.MaxHolders)
	}
	var values []int64
	for range h.equal {
		values = append(values, sharedCoins*btcutil.SatoshiPerBitcoin/int64(h.equal))
	}
	for _, s := range h.coins {
		n, err := wallet.ParseAmount(s)
		if err == nil && n <= 0 {
			err = errors.New("must be more than nothing")
		}
		if err != nil {
			return nil, fmt.Errorf("--new-holder %q: want coins, such as 500000 or 0.5: %w", s, err)
		}
		values = append(values, n)
	}
	list := append([]string{}, existing...)
	for _, v := range values {
		key, err := btcec.NewPrivateKey()
		if err != nil {
			return nil, fmt.Errorf("key of a holder: %w", err)
		}
		out := txscript.ComputeTaprootKeyNoScript(key.PubKey())
		m := newHolder{key: key, holder: consensus.Holder{Key: [32]byte(schnorr.SerializePubKey(out)), Value: v}}
		h.made = append(h.made, m)
		list = append(list, config.FormatHolder(m.holder))
	}
	return list, nil
}

// write puts each key in a file beside the network.toml: NAME-holder-N.key. It
// replaces none; after an error those that it wrote are gone.
func (h *holders) write(networkFile string, p *consensus.Params) error {
	dir, base := filepath.Split(networkFile)
	base = strings.TrimSuffix(base, filepath.Ext(base))
	params := address.Params(p)
	for i := range h.made {
		m := &h.made[i]
		wif, err := btcutil.NewWIF(m.key, params, true)
		if err != nil {
			return errors.Join(fmt.Errorf("key of a holder: %w", err), h.remove())
		}
		file, err := filepath.Abs(filepath.Join(dir, fmt.Sprintf("%s-holder-%d.key", base, i+1)))
		if err == nil {
			err = writeKeyFile(file, fmt.Sprintf("# holder %d of %s: %s, %s coins. Whoever has this key has them.\n%s\n",
				i+1, p.Name, config.HolderAddress(m.holder.Key), inCoins(m.holder.Value), wif))
		}
		if errors.Is(err, fs.ErrExist) {
			return errors.Join(fmt.Errorf("%s exists: it may hold somebody's coins; choose another place with --out", file), h.remove())
		}
		if err != nil {
			return errors.Join(fmt.Errorf("key of a holder: %w", err), h.remove())
		}
		m.file = file
	}
	return nil
}

// remove takes away what write wrote.
func (h *holders) remove() error {
	var errs []error
	for i := range h.made {
		if f := h.made[i].file; f != "" {
			errs = append(errs, os.Remove(f))
			h.made[i].file = ""
		}
	}
	return errors.Join(errs...)
}

func (h *holders) files() []string {
	var out []string
	for _, m := range h.made {
		out = append(out, m.file)
	}
	return out
}

// writeKeyFile writes a new file that only its owner can read, durably.
func writeKeyFile(name, text string) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return errors.Join(err, os.Remove(name))
	}
	return nil
}

// inCoins writes satoshi as coins, without zeros at the end.
func inCoins(n int64) string {
	return strings.TrimSuffix(strings.TrimRight(wallet.FormatAmount(n), "0"), ".")
}
