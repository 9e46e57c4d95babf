package descriptor

import (
	"fmt"

	"dunlin/chain/consensus"
	"dunlin/internal/wallet/keys"
)

// Account returns the public descriptors of an account below a master key: external for addresses that are given
// away, internal for change.
func Account(master *keys.XPrv, p keys.Purpose, account uint32, net *consensus.Params) (external, internal *Descriptor, err error) {
	if account >= keys.Hardened {
		return nil, nil, fmt.Errorf("account %d: at most %d", account, keys.Hardened-1)
	}
	path := keys.AccountPath(p, net, account)
	x, err := master.Derive(path)
	if err != nil {
		return nil, nil, err
	}
	defer x.Wipe()
	return AccountOf(x.Public(), keys.Origin{Fingerprint: master.Fingerprint(), Path: path}, p, net)
}

// AccountOf is [Account] of an account's public key, for wallets that only watch. origin says where xpub comes
// from; the zero Origin is left out.
func AccountOf(xpub *keys.XPub, origin keys.Origin, p keys.Purpose, net *consensus.Params) (external, internal *Descriptor, err error) {
	form := map[keys.Purpose]string{
		keys.BIP44: "pkh(%s)", keys.BIP49: "sh(wpkh(%s))", keys.BIP84: "wpkh(%s)", keys.BIP86: "tr(%s)",
	}[p]
	if form == "" {
		return nil, nil, fmt.Errorf("accounts of purpose %d: 44, 49, 84 and 86 are known", p)
	}
	text := xpub.String() + "/<0;1>/*"
	if origin.Fingerprint != (keys.Fingerprint{}) || len(origin.Path) > 0 {
		text = "[" + origin.String() + "]" + text
	}
	d, err := Parse(fmt.Sprintf(form, text), net)
	if err != nil {
		return nil, nil, err
	}
	both := d.Expand()
	return both[0], both[1], nil
}
