package config

import (
	"bytes"
	"compress/flate"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode"

	"github.com/btcsuite/btcd/address/v2/base58"
)

// An Invitation is all that a stranger needs to join a network: which chain it is and whom to meet it through. [Invitation.String] is its
// compact form, a line to paste into a chat; [ParseInvitation] reads that.
//
// The form: "dunlin1", then in base58 a checksum of 4 bytes and a deflated text (RFC 1951, with inviteWords as its dictionary). The text is
// TOML: of a network of its own the network.toml without comments, of a preset the keys preset, genesis_hash, bootstrap and dns_seeds. The
// checksum is the start of SHA-256(SHA-256("dunlin1" ‖ deflated text)).
type Invitation struct {
	// Network is the chain, with the invitation's own nodes in Bootstrap. Its File is empty.
	Network *Network
	spec    *NetworkSpec // nil: a preset
}

const (
	invitePrefix = "dunlin1"
	// maxInviteChars bounds the line, maxInviteBytes the text in it: 16 nodes and a description have a tenth of that.
	maxInviteChars = 8192
	maxInviteBytes = 16 << 10
	// MaxInvited is how many nodes an invitation names.
	MaxInvited = 16
	checkBytes = 4
)

// inviteWords is part of the form: what most invitations have in common. It cannot be changed, only a new prefix have another.
const inviteWords = "stakenet simnet regtest bitcoin testnet preset = \"dns_seeds = []\ndunlin network engine = \"pos\"\n000000000000000000000000genesis_hash = \"" +
	"private = false\nname = \"engine = \"pow\"\ngenesis_text = \"dunlin network genesis_time = 2026-genesis_hash = \"spacing = \"30s\"\nhalving_interval = 210000\n" +
	"subsidy = 5000000000\npow_limit_bits = \"0x207fffff\"\nbootstrap = [\"/dns4//ip6//udp//quic-v1/p2p/12D3KooW\", \"/ip4/192.168.10.172.203.0.113./tcp/9333/p2p/12D3KooW\"]\n" +
	"dns_seeds = [\"seed.\"]\np2p_port = 9363\nrpc_port = 9362\nprivate = true\n"

// ErrInviteTooLong is returned for a network whose description is no line to paste: one with more than some hundred holders. Its network.toml
// serves as an invitation.
var ErrInviteTooLong = errors.New("too many holders for an invitation in one line: hand out the network.toml, which dunlin network join takes as well")

// NewInvitation makes an invitation into n that names these nodes, and after them those that n names itself.
func NewInvitation(n *Network, nodes ...string) (Invitation, error) {
	own := *n
	for _, b := range n.Bootstrap {
		if !slices.Contains(nodes, b) {
			nodes = append(slices.Clip(nodes), b)
		}
	}
	own.Bootstrap = nodes[:min(len(nodes), MaxInvited)]
	if n.File == "" {
		return Invitation{Network: &own}, nil
	}
	data, err := readFile(n.File)
	if err != nil {
		return Invitation{}, fmt.Errorf("network file: %w", err)
	}
	spec, err := ParseNetworkSpec(n.File, data)
	if err != nil {
		return Invitation{}, err
	}
	i, err := invitationOf(spec, own.Bootstrap)
	if err == nil && (len(i.text()) > maxInviteBytes || len(i.String()) > maxInviteChars) {
		return Invitation{}, ErrInviteTooLong
	}
	return i, err
}

func invitationOf(spec NetworkSpec, nodes []string) (Invitation, error) {
	spec.Bootstrap = nodes
	n, err := spec.Network()
	if err != nil {
		return Invitation{}, err
	}
	spec.GenesisHash = n.Params.GenesisHash.String()
	return Invitation{Network: n, spec: &spec}, nil
}

// String is the invitation in one line.
func (i Invitation) String() string {
	var b bytes.Buffer
	w, err := flate.NewWriterDict(&b, flate.BestCompression, []byte(inviteWords))
	if err != nil {
		panic(err) // the level is right
	}
	_, _ = w.Write(i.text()) // into memory
	_ = w.Close()
	sum := inviteSum(b.Bytes())
	return invitePrefix + base58.Encode(append(sum[:], b.Bytes()...))
}

func inviteSum(deflated []byte) [checkBytes]byte {
	once := sha256.Sum256(append([]byte(invitePrefix), deflated...))
	twice := sha256.Sum256(once[:])
	return [checkBytes]byte(twice[:checkBytes])
}

// text is the TOML within.
func (i Invitation) text() []byte {
	if i.spec != nil {
		var b bytes.Buffer
		for _, f := range i.spec.fields() {
			fmt.Fprintf(&b, "%s = %s\n", f.key, f.format())
		}
		return b.Bytes()
	}
	p := presetInvite{
		preset: i.Network.Params.Name, genesis: i.Network.Params.GenesisHash.String(),
		bootstrap: i.Network.Bootstrap, seeds: i.Network.DNSSeeds,
	}
	var b bytes.Buffer
	for _, f := range p.fields() {
		fmt.Fprintf(&b, "%s = %s\n", f.key, f.format())
	}
	return b.Bytes()
}

// presetInvite is the text of an invitation into a preset.
type presetInvite struct {
	preset, genesis  string
	bootstrap, seeds []string
}

func (p *presetInvite) fields() []field {
	return []field{
		str("preset", &p.preset, "a network's name", func(string) string { return "" }, ""),
		str("genesis_hash", &p.genesis, "the hash of the first block", checkBlockHash, ""),
		list("bootstrap", &p.bootstrap, maxAddrs, peerWant, checkPeer, ""),
		list("dns_seeds", &p.seeds, maxNames, seedWant, checkSeed, ""),
	}
}

// IsInvitation says whether a text is meant to be one.
func IsInvitation(s string) bool { return strings.HasPrefix(strings.TrimSpace(s), invitePrefix) }

// ParseInvitation reads the compact form; spaces and line ends that a mail put into it do not matter. What is damaged, of another version, or
// says what no network.toml may say is an error.
func ParseInvitation(s string) (Invitation, error) {
	s = strings.Map(func(r rune) rune {
		if unicode.IsSpace(r) {
			return -1
		}
		return r
	}, s)
	body, ok := strings.CutPrefix(s, invitePrefix)
	switch {
	case !ok:
		return Invitation{}, errors.New("invitation: must begin with " + invitePrefix)
	case len(s) > maxInviteChars:
		return Invitation{}, fmt.Errorf("invitation: has %d characters, at most %d", len(s), maxInviteChars)
	}
	raw := base58.Decode(body)
	if len(raw) <= checkBytes {
		return Invitation{}, errors.New("invitation: is damaged: a character is missing, or one is no base58")
	}
	deflated := raw[checkBytes:]
	if inviteSum(deflated) != [checkBytes]byte(raw[:checkBytes]) {
		return Invitation{}, errors.New("invitation: is damaged: its checksum does not fit, so a character is lost or changed; copy it again, as a whole")
	}
	text, err := io.ReadAll(io.LimitReader(flate.NewReaderDict(bytes.NewReader(deflated), []byte(inviteWords)), maxInviteBytes+1))
	switch {
	case err != nil:
		return Invitation{}, fmt.Errorf("invitation: inflating: %w", err)
	case len(text) > maxInviteBytes:
		return Invitation{}, fmt.Errorf("invitation: is longer than %d bytes", maxInviteBytes)
	}
	return parseInviteText(text)
}

func parseInviteText(text []byte) (Invitation, error) {
	const name = "invitation"
	values, fault := parseTOML(name, text)
	if fault != nil {
		return Invitation{}, fault
	}
	if !slices.ContainsFunc(values, func(v tomlValue) bool { return v.key == "preset" }) {
		spec, err := ParseNetworkSpec(name, text)
		if err != nil {
			return Invitation{}, err
		}
		if err := tooMany(spec.Bootstrap); err != nil {
			return Invitation{}, err
		}
		return invitationOf(spec, spec.Bootstrap)
	}
	var p presetInvite
	if _, faults := applyTOML(p.fields(), name, values); len(faults) > 0 {
		return Invitation{}, errors.Join(faults...)
	}
	if err := tooMany(p.bootstrap); err != nil {
		return Invitation{}, err
	}
	n, err := Preset(p.preset)
	if err != nil {
		return Invitation{}, fmt.Errorf("%s: %s: %w", name, quote(p.preset), err)
	}
	if have := n.Params.GenesisHash.String(); !strings.EqualFold(have, p.genesis) {
		return Invitation{}, fmt.Errorf("%s: %s begins with block %s there and with %s here: it is another network, or of another version", name, n.Params.Name, p.genesis, have)
	}
	n.Bootstrap, n.DNSSeeds = p.bootstrap, p.seeds
	return Invitation{Network: n}, nil
}

func tooMany(nodes []string) error {
	if len(nodes) > MaxInvited {
		return fmt.Errorf("invitation: names %d nodes, at most %d", len(nodes), MaxInvited)
	}
	return nil
}

// InvitationFrom is the invitation that a network.toml is: its chain, and the nodes that it names.
func InvitationFrom(name string, data []byte) (Invitation, error) {
	spec, err := ParseNetworkSpec(name, data)
	if err != nil {
		return Invitation{}, err
	}
	return invitationOf(spec, spec.Bootstrap)
}

// NetworkFile is the network.toml of a network of its own; nil of a preset.
func (i Invitation) NetworkFile() []byte {
	if i.spec == nil {
		return nil
	}
	return i.spec.Encode()
}
