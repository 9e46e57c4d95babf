package consensus

import (
	"math/big"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/wire/v2"
)

// Params are what the rules of one network depend on. Treat them as immutable.
type Params struct {
	Name        string         // bitcoin, regtest, simnet, testnet or an operator's own
	Magic       uint32         // before each record of a block file (little-endian on disk)
	Genesis     *wire.MsgBlock // with seal bytes GenesisSeal
	GenesisHash chainhash.Hash
	SealBytes   int // 0 for PoW, 140 for PoS

	// Difficulty.
	PowLimit         *big.Int
	PowLimitBits     uint32
	Retarget         RetargetKind
	TargetSpacing    time.Duration // wanted time between blocks
	TargetTimespan   time.Duration // with Retarget2016 and BIP94: 2 weeks
	ASERTHalfLife    time.Duration // with RetargetASERT
	MinDiffReduction time.Duration // regtest/testnet rule "minimum difficulty after this gap"; 0: off

	// Heights at which rules become active; 0 means from genesis.
	BIP16Height, BIP34Height, BIP65Height, BIP66Height int32
	CSVHeight, SegwitHeight, TaprootHeight             int32
	BIP54                                              bool // time-warp and coinbase rules, from genesis
	EnforceBIP94                                       bool

	// Money.
	BaseSubsidy            int64 // satoshi
	SubsidyHalvingInterval int32 // blocks
	CoinbaseMaturity       int32 // blocks

	MinChainWork *big.Int // headers below it are not stored; 0 in every preset
	// ScriptFlagExceptions are blocks that are checked with the given flags
	// (mainnet's BIP16 and taproot exceptions), by hash.
	ScriptFlagExceptions map[chainhash.Hash]uint32
	// Checkpoints maps heights to the only hash allowed there.
	Checkpoints map[int32]chainhash.Hash

	// Addresses and keys.
	Bech32HRP        string
	PubKeyHashAddrID byte
	ScriptHashAddrID byte
	PrivateKeyID     byte

	// Limits.
	MaxBlockWeight     int // 4,000,000
	MaxBlockSigOpsCost int // 80,000

	// Test says that /mineBlock, --rpc-open and mining without peers are allowed.
	Test bool
}

// RetargetKind is how a PoW network sets its difficulty.
type RetargetKind uint8

const (
	RetargetNever RetargetKind = iota // regtest
	Retarget2016                      // Bitcoin
	RetargetASERT                     // our own networks: a block at a time, aserti3-2d
)

// MaxBlockBytes is the largest serialised block, seal included.
func (p *Params) MaxBlockBytes() int { return p.MaxBlockWeight + p.SealBytes }

// ChainID is "<name>-<first 8 hex digits of the genesis hash>".
func (p *Params) ChainID() string { return p.Name + "-" + p.GenesisHash.String()[:8] }

// Bitcoin returns mainnet's parameters.
func Bitcoin() *Params { panic("stub") }

// Regtest returns Bitcoin Core's regtest parameters.
func Regtest() *Params { panic("stub") }

// Simnet returns btcd's simnet parameters.
func Simnet() *Params { panic("stub") }

// Testnet returns the parameters of dunlin's own PoW test network: 30 s blocks, ASERT.
func Testnet() *Params { panic("stub") }

// Custom describes a network of an operator's own (network.toml).
type Custom struct {
	Name            string // [a-z0-9-]{1,32}, none of the presets'
	GenesisText     string // in the genesis coinbase, at most 80 bytes
	GenesisTime     time.Time
	Spacing         time.Duration // ≥1 s
	HalvingInterval int32
	Subsidy         int64
	PowLimitBits    uint32 // default regtest's 0x207fffff
}

// New builds the parameters of a custom PoW network: every soft fork and BIP54
// from genesis, ASERT. The genesis block is derived from the fields alone. It
// reports every field out of range.
func New(c Custom) (*Params, error) { panic("stub") }
