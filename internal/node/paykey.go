package node

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	btcaddr "github.com/btcsuite/btcd/address/v2"
	"github.com/btcsuite/btcd/btcec/v2"
	"github.com/btcsuite/btcd/btcutil/v2"
	"github.com/btcsuite/btcd/chaincfg/v2"
	"github.com/btcsuite/btcd/txscript/v2"

	"dunlin/chain/consensus"
	"dunlin/config"
	"dunlin/internal/address"
)

// miningKeyFile holds the key that the coinbase pays when no address is given:
// one line, wallet import format (WIF), 0600.
const miningKeyFile = "mining.key"

// CheckConfig checks what the settings alone cannot: that the mining address is
// one of the network, and that what shall make blocks fits its engine. It opens nothing.
func CheckConfig(c *config.Config) error {
	err := checkStaking(c)
	if c.Mining.Address == "" {
		return err
	}
	if _, bad := address.Decode(c.Mining.Address, address.Params(c.Chain.Params)); bad != nil {
		err = errors.Join(err, fmt.Errorf("%s: mining.address %q: %w", c.Origin("mining.address"), c.Mining.Address, bad))
	}
	return err
}

// minerScript returns the script and the address that the miner pays: the
// configured address, else a key made in the home. Where stake makes blocks nothing else
// is: the sealer says whom a block pays.
func minerScript(p *consensus.Params, c *config.Config) (script []byte, addr string, err error) {
	params := address.Params(p)
	if c.Mining.Address != "" {
		script, err := address.Script(c.Mining.Address, params)
		if err != nil {
			return nil, "", fmt.Errorf("mining.address %q: %w", c.Mining.Address, err)
		}
		return script, c.Mining.Address, nil
	}
	if p.ProofOfStake() {
		return nil, "", nil
	}
	wif, err := loadOrCreateWIF(filepath.Join(c.Home, miningKeyFile), params)
	if err != nil {
		return nil, "", err
	}
	a, err := btcaddr.NewAddressWitnessPubKeyHash(btcaddr.Hash160(wif.SerializePubKey()), params)
	if err != nil {
		return nil, "", fmt.Errorf("mining key: %w", err)
	}
	if script, err = txscript.PayToAddrScript(a); err != nil {
		return nil, "", fmt.Errorf("mining key: %w", err)
	}
	return script, a.EncodeAddress(), nil
}

func loadOrCreateWIF(path string, params *chaincfg.Params) (*btcutil.WIF, error) {
	raw, err := os.ReadFile(path)
	if err == nil {
		wif, err := btcutil.DecodeWIF(strings.TrimSpace(string(raw)))
		if err != nil {
			return nil, fmt.Errorf("mining key %s: %w: restore it from a backup, or remove it to have a new one made", path, err)
		}
		return wif, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("mining key: %w", err)
	}
	priv, err := btcec.NewPrivateKey()
	if err != nil {
		return nil, fmt.Errorf("mining key: %w", err)
	}
	wif, err := btcutil.NewWIF(priv, params, true)
	if err != nil {
		return nil, fmt.Errorf("mining key: %w", err)
	}
	// Durable before any coin is paid to it.
	if err := writeDurable(path, []byte(wif.String()+"\n"), 0o600); err != nil {
		return nil, fmt.Errorf("mining key: %w", err)
	}
	return wif, nil
}

// writeDurable replaces a file so that a crash leaves the old or the new one.
func writeDurable(path string, data []byte, mode os.FileMode) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), ".tmp-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name()) // the first error matters
		}
	}()
	_, err = f.Write(data)
	if err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close()); err != nil {
		return err
	}
	if err = os.Rename(f.Name(), path); err != nil {
		return err
	}
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
