package consensus

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/big"
	"regexp"
	"slices"
	"time"

	"github.com/btcsuite/btcd/blockchain"
	"github.com/btcsuite/btcd/btcec/v2"
	"github.com/btcsuite/btcd/btcec/v2/schnorr"
	"github.com/btcsuite/btcd/btcutil/v2"
	"github.com/btcsuite/btcd/chaincfg/v2"
	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/txscript/v2"
	"github.com/btcsuite/btcd/wire/v2"

	"dunlin/chain/consensus/secp256k1"
)

// Params are what the rules of one network depend on. Treat them as immutable.
type Params struct {
	Name        string // bitcoin, regtest, simnet, stakenet, testnet or an operator's own
	Magic       uint32 // before each record of a block file (little-endian on disk)
	Genesis     *wire.MsgBlock
	GenesisSeal []byte // SealBytes long; nil for PoW
	GenesisHash chainhash.Hash
	SealBytes   int // 0 for PoW, 140 for PoS

	// Difficulty.
	PowLimit         *big.Int
	PowLimitBits     uint32
	Retarget         RetargetKind
	TargetSpacing    time.Duration // wanted time between blocks
	TargetTimespan   time.Duration // with Retarget2016 and BIP94: 2 weeks
	ASERTHalfLife    time.Duration // with RetargetASERT
	SlotDuration     time.Duration // PoS: blocks have times that are whole slots after genesis; 0 for PoW
	MinDiffReduction time.Duration // rule "minimum difficulty after this gap" (simnet); 0: off

	// Heights of the first block that a rule applies to; 0 means from genesis
	// (which itself is never checked). Script rules of BIP16, segwit and taproot
	// apply from BIP16Height and TaprootHeight with ScriptFlagExceptions, as in
	// Bitcoin Core; SegwitHeight governs the witness commitment and NULLDUMMY.
	BIP16Height, BIP34Height, BIP65Height, BIP66Height int32
	CSVHeight, SegwitHeight, TaprootHeight             int32
	// Signalling activates the last three where their height is NotBuried.
	Signalling   Signalling
	BIP54        bool // time-warp and coinbase rules, from genesis
	EnforceBIP94 bool

	// Money.
	BaseSubsidy            int64 // satoshi
	SubsidyHalvingInterval int32 // blocks
	CoinbaseMaturity       int32 // blocks
	// StakeMaturity is how many blocks below a block the coin must lie that is its stake.
	// The outputs of genesis, which only PoS networks can spend, are mature at once.
	StakeMaturity int32

	// MaxReorg is how many blocks the chain goes back for a branch with more work unless an
	// operator says so; 0: no limit. Stake can be claimed for a branch from the past at no
	// cost, work cannot.
	MaxReorg int32

	MinChainWork *big.Int // headers below it are not stored; 0 in every preset
	// ScriptFlagExceptions are blocks that are checked with the given flags
	// (mainnet's BIP16 and taproot exceptions), by hash.
	ScriptFlagExceptions map[chainhash.Hash]uint32
	// BIP30Repeats maps heights to the block there whose coinbase may repeat the id of
	// one that is unspent (mainnet's two).
	BIP30Repeats map[int32]chainhash.Hash
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

// The kinds of retargeting.
const (
	RetargetNever RetargetKind = iota // regtest
	Retarget2016                      // Bitcoin
	RetargetASERT                     // our own networks: a block at a time, aserti3-2d
)

// MaxBlockBytes is the largest serialised block, seal included.
func (p *Params) MaxBlockBytes() int { return p.MaxBlockWeight + p.SealBytes }

// ProofOfStake says whether stake makes the network's blocks, and not work: which
// engine it has.
func (p *Params) ProofOfStake() bool { return p.SlotDuration > 0 }

// GenesisSpendable says whether the outputs of genesis are coins: the initial stake
// where stake makes blocks. In Bitcoin they never were.
func (p *Params) GenesisSpendable() bool { return p.SealBytes > 0 }

// ChainID is "<name>-<first 8 hex digits of the genesis hash>".
func (p *Params) ChainID() string { return p.Name + "-" + p.GenesisHash.String()[:8] }

// Weight and signature-operation limits of BIP141, the same on every network.
const (
	maxBlockWeight     = 4_000_000
	maxBlockSigOpsCost = 80_000
)

// maxMoney is the largest value, in satoshi, that an output or a sum may have.
const maxMoney = btcutil.MaxSatoshi

// Bitcoin returns mainnet's parameters.
//
// The checkpoints are the last that Bitcoin Core had, and the block that
// activated BIP34: it is what makes the BIP30 look-ups unnecessary above it
// ([CheckBIP30]).
func Bitcoin() *Params {
	p := fromChaincfg(&chaincfg.MainNetParams)
	p.Name = "bitcoin"
	p.Retarget = Retarget2016
	p.BIP34Height = 227_931
	p.BIP66Height = 363_725
	p.BIP65Height = 388_381
	p.CSVHeight = 419_328
	p.SegwitHeight = 481_824
	p.ScriptFlagExceptions = map[chainhash.Hash]uint32{
		// Height 170,060 spends a P2SH output against BIP16.
		mustHash("00000000000002dc756eebf4f49723ed8d30cc28a5f108eb94b1ba88ac4f9c22"): 0,
		// Height 692,261 spends a v1 witness output against taproot.
		mustHash("0000000000000000000f14c35b2d841e986ab5441de8c585d5ffe55ea1e395ad"): uint32(
			txscript.ScriptBip16 | txscript.ScriptVerifyWitness),
	}
	p.BIP30Repeats = map[int32]chainhash.Hash{
		91_842: mustHash("00000000000a4d0a398161ffc163c503763b1f4360639393e0e4c8e300e0caec"),
		91_880: mustHash("00000000000743f190a18c5577a3c2d2a1f610ae9601ac046a38084ccb7cd721"),
	}
	p.Checkpoints = map[int32]chainhash.Hash{
		11_111:  mustHash("0000000069e244f73d78e8fd29ba2fd2ed618bd6fa2ee92559f542fdb26e7c1d"),
		33_333:  mustHash("000000002dd5588a74784eaa7ab0507a18ad16a236e7b1ce69f00d7ddfb5d0a6"),
		74_000:  mustHash("0000000000573993a3c9e41ce34471c079dcf5f52a0e824a81e7f953b8661a20"),
		105_000: mustHash("00000000000291ce28027faea320c8d2b054b2e0fe44a773f3eefb151d6bdc97"),
		134_444: mustHash("00000000000005b12ffd4cd315cd34ffd4a594f430ac814c91184a0d42d2b0fe"),
		168_000: mustHash("000000000000099e61ea72015e79632f216fe6cb33d7899acb35b75c8303b763"),
		193_000: mustHash("000000000000059f452a5f7340de6682a977387c17010ff6e6c3bd83ca8b1317"),
		210_000: mustHash("000000000000048b95347e83192f69cf0366076336c639f9b7228e9ba171342e"),
		216_116: mustHash("00000000000001b4f4b433e81ee46494af945cf96014816a4e2370f11b23df4e"),
		225_430: mustHash("00000000000001c108384350f74090433e7fcf79a606b8e797f065b130575932"),
		227_931: mustHash("000000000000024b89b42a942fe0d9fea3bb44ab7bd1b19115dd6a759c0808b8"),
		250_000: mustHash("000000000000003887df1f29024b06fc2200b55f8af8f35453d7be294df2d214"),
		279_000: mustHash("0000000000000001ae8c72a0b0c301f67e3afca10e819efa9041e458e9bd7e40"),
		295_000: mustHash("00000000000000004d9b4ef50f0f9d686fd69db2e03af35a100370c64632a983"),
	}
	return p
}

// Regtest returns Bitcoin Core's regtest parameters.
func Regtest() *Params {
	p := fromChaincfg(&chaincfg.RegressionNetParams)
	p.Retarget = RetargetNever
	p.BIP34Height, p.BIP65Height, p.BIP66Height, p.CSVHeight = 1, 1, 1, 1
	p.TargetTimespan = 24 * time.Hour // Core's; without retargeting it has no effect
	p.Test = true
	return p
}

// Simnet returns btcd's simnet parameters: CSV, segwit and taproot are active two
// windows after the first (but for genesis') with enough votes, from 300 on at best.
func Simnet() *Params {
	p := fromChaincfg(&chaincfg.SimNetParams)
	p.Retarget = Retarget2016
	p.MinDiffReduction = 20 * time.Minute
	p.CSVHeight, p.SegwitHeight, p.TaprootHeight = NotBuried, NotBuried, NotBuried
	p.Signalling = Signalling{Window: 100, Threshold: 75}
	p.Test = true
	return p
}

// Testnet returns the parameters of dunlin's own PoW test network: 30 s blocks, ASERT.
func Testnet() *Params {
	p := ownNetwork(Custom{
		Name:            "testnet",
		GenesisText:     "dunlin testnet 2026-11-21: a flock turns as one",
		GenesisTime:     time.Unix(1_795_219_200, 0), // 2026-11-21 00:00 UTC
		Spacing:         30 * time.Second,
		HalvingInterval: 1_051_200, // a year of 30 s blocks
		Subsidy:         10 * btcutil.SatoshiPerBitcoin,
		PowLimitBits:    0x1f00ffff, // 2^16 hashes a block: milliseconds on any laptop
	}, testnetGenesisNonce)
	return p
}

// Stakenet returns the parameters of dunlin's own PoS test network: slots of 16 s, a
// block every 64 s. Its initial stake belongs to [StakenetHolders], whose keys anybody
// can derive: it is for learning, and whoever wants stake that is his own makes a
// network of his own.
func Stakenet() *Params {
	return ownNetwork(Custom{
		Name:            "stakenet",
		GenesisText:     "dunlin stakenet 2026-11-21: a flock turns as one",
		GenesisTime:     time.Unix(1_795_219_200, 0), // 2026-11-21 00:00 UTC
		Spacing:         SlotsPerBlock * 16 * time.Second,
		HalvingInterval: 492_750, // a year of 64 s blocks
		Subsidy:         10 * btcutil.SatoshiPerBitcoin,
		Holders:         StakenetHolders(),
		StakeMaturity:   DefaultStakeMaturity,
		MaxReorg:        DefaultMaxReorg,
	}, 0)
}

// stakenetShares is the initial stake of stakenet, in coins.
var stakenetShares = []int64{500_000, 300_000, 150_000, 50_000}

// StakenetKey returns the private key of stakenet's initial holder n, from 1: the
// SHA-256 of the text "dunlin stakenet holder n". It is no secret.
func StakenetKey(n int) [32]byte {
	return sha256.Sum256(fmt.Appendf(nil, "dunlin stakenet holder %d", n))
}

// StakenetHolders returns who has stakenet's initial stake: 50, 30, 15 and 5 %.
func StakenetHolders() []Holder {
	holders := make([]Holder, len(stakenetShares))
	for i, coins := range stakenetShares {
		key := StakenetKey(i + 1)
		priv, _ := btcec.PrivKeyFromBytes(key[:])
		out := txscript.ComputeTaprootKeyNoScript(priv.PubKey()) // BIP86
		holders[i] = Holder{Key: [32]byte(schnorr.SerializePubKey(out)), Value: coins * btcutil.SatoshiPerBitcoin}
	}
	return holders
}

// testnetGenesisNonce is the first nonce that satisfies the limit.
const testnetGenesisNonce = 121_631

// ownHalfLife is the ASERT half-life of our own networks: a difficulty twice too
// high costs an hour of schedule, whatever the spacing.
const ownHalfLife = time.Hour

// fromChaincfg takes over what btcd's parameters and ours have in common.
func fromChaincfg(c *chaincfg.Params) *Params {
	return &Params{
		Name:                   c.Name,
		Magic:                  uint32(c.Net),
		Genesis:                c.GenesisBlock.Copy(),
		GenesisHash:            *c.GenesisHash,
		PowLimit:               new(big.Int).Set(c.PowLimit),
		PowLimitBits:           c.PowLimitBits,
		TargetSpacing:          c.TargetTimePerBlock,
		TargetTimespan:         c.TargetTimespan,
		BaseSubsidy:            50 * btcutil.SatoshiPerBitcoin,
		SubsidyHalvingInterval: c.SubsidyReductionInterval,
		CoinbaseMaturity:       int32(c.CoinbaseMaturity),
		MinChainWork:           new(big.Int),
		Bech32HRP:              c.Bech32HRPSegwit,
		PubKeyHashAddrID:       c.PubKeyHashAddrID,
		ScriptHashAddrID:       c.ScriptHashAddrID,
		PrivateKeyID:           c.PrivateKeyID,
		MaxBlockWeight:         maxBlockWeight,
		MaxBlockSigOpsCost:     maxBlockSigOpsCost,
	}
}

// Custom describes a network of an operator's own (network.toml).
type Custom struct {
	Name            string        // [a-z0-9-]{1,32}, none of the presets'
	GenesisText     string        // in the genesis coinbase, at most 80 bytes
	GenesisTime     time.Time     // whole seconds, 1970 to 2106
	Spacing         time.Duration // whole seconds, 1 s to 24 h
	HalvingInterval int32         // blocks, at least 1
	Subsidy         int64         // satoshi a block at first, 0 to 21e14
	PowLimitBits    uint32        // 0x1f00ffff (2^16 hashes) to 0x207fffff (2, the default); 0 with Holders
	// Holders makes it a proof-of-stake network, whose initial stake is theirs; 1 to
	// 1,000. Spacing is then SlotsPerBlock slots of whole seconds.
	Holders []Holder
	// MaxReorg is [Params.MaxReorg], 10 to 10,000 blocks; 0 for 100, or for none without
	// Holders, where it must be 0.
	MaxReorg int32
	// StakeMaturity is [Params.StakeMaturity], 1 to 100,000 blocks; 0 for 100. Without
	// Holders it must be 0.
	StakeMaturity int32
}

// A Holder has initial stake of a proof-of-stake network.
type Holder struct {
	Key   [32]byte // x-only output key of pay-to-taproot (BIP341): not tweaked again
	Value int64    // satoshi, at least 1
}

// SlotsPerBlock is the wanted number of slots from block to block where stake makes
// blocks. Many slots a block keep chances proportional to stake (two winners of one
// slot are rare), and make the rate of blocks something that a target can govern: it
// cannot be more than one a slot.
const SlotsPerBlock = 4

const (
	sealBytes = 140
	// MaxHolders is how many outputs the genesis of a proof-of-stake network may have.
	MaxHolders = 1000
	// stakeHalfLives is the half-life of ASERT on stake networks, in spacings: the rate
	// of blocks then varies by some 8 % (one standard deviation).
	stakeHalfLives = 64
	// DefaultStakeMaturity is that of stakenet, and of networks that say nothing else.
	DefaultStakeMaturity = 100
	// MaxStakeMaturity is the most that a network may have.
	MaxStakeMaturity = 100_000
	// DefaultMaxReorg is no more than DefaultStakeMaturity: so what a block brings into
	// being, its reward or new stake, cannot make blocks before the chain no longer leaves
	// that block by itself. With a spacing of 64 s it is 1 h 47 min: a network that is cut
	// in two for less comes together by itself. See docs/decisions/0012.
	DefaultMaxReorg = DefaultStakeMaturity
	// LeastMaxReorg is the least that a network may have: less would be met by chance.
	LeastMaxReorg = 10
	// MostMaxReorg is the most.
	MostMaxReorg = 10_000
	// stakeLimitBits is a target of 2^224 a satoshi: a ten-thousandth of a coin wins
	// one slot in some 4,300. No network needs an easier one.
	stakeLimitBits = 0x1d00ffff
)

const (
	easiestBits = 0x207fffff
	// hardestLimitBits keeps the search for a custom network's genesis nonce,
	// done at every start, within some 65,000 hashes.
	hardestLimitBits = 0x1f00ffff
	maxGenesisText   = 80
)

var (
	networkName   = regexp.MustCompile(`^[a-z0-9-]{1,32}$`)
	reservedNames = []string{"bitcoin", "mainnet", "regtest", "simnet", "signet", "testnet", "stakenet"}
)

// New builds the parameters of a custom network: every soft fork and BIP54 from
// genesis, ASERT with a half-life of an hour (PoS: of 64 blocks), maturity 100, Test. The
// genesis block is derived from the fields alone, so whoever has the same fields
// has the same chain id. It reports every field out of range.
func New(c Custom) (*Params, error) {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if len(c.Holders) > 0 {
		checkHolders(&c, bad)
		c.PowLimitBits = 0
		if c.MaxReorg == 0 {
			c.MaxReorg = DefaultMaxReorg
		}
		if c.MaxReorg < LeastMaxReorg || c.MaxReorg > MostMaxReorg {
			bad("max reorg %d: want %d to %d blocks", c.MaxReorg, LeastMaxReorg, MostMaxReorg)
		}
		if c.StakeMaturity == 0 {
			c.StakeMaturity = DefaultStakeMaturity
		}
		if c.StakeMaturity < 1 || c.StakeMaturity > MaxStakeMaturity {
			bad("stake maturity %d: want 1 to %d blocks", c.StakeMaturity, MaxStakeMaturity)
		}
	} else if c.MaxReorg != 0 {
		bad("max reorg %d: a network of work has none", c.MaxReorg)
	} else if c.StakeMaturity != 0 {
		bad("stake maturity %d: a network of work has none", c.StakeMaturity)
	}
	if c.PowLimitBits == 0 {
		c.PowLimitBits = easiestBits
	}
	if !networkName.MatchString(c.Name) {
		bad("name %q: want 1 to 32 of a-z, 0-9 and -", c.Name)
	}
	if slices.Contains(reservedNames, c.Name) {
		bad("name %q: taken by a preset", c.Name)
	}
	if len(c.GenesisText) > maxGenesisText {
		bad("genesis text of %d bytes: at most %d", len(c.GenesisText), maxGenesisText)
	}
	if s := c.GenesisTime.Unix(); s <= 0 || s > math.MaxUint32 || c.GenesisTime.Nanosecond() != 0 {
		bad("genesis time %s: want whole seconds between 1970 and 2106", c.GenesisTime.UTC().Format(time.RFC3339Nano))
	}
	if c.Spacing < time.Second || c.Spacing > 24*time.Hour || c.Spacing%time.Second != 0 {
		bad("spacing %s: want whole seconds from 1s to 24h", c.Spacing)
	}
	if c.HalvingInterval < 1 {
		bad("halving interval %d: want at least 1 block", c.HalvingInterval)
	}
	if c.Subsidy < 0 || c.Subsidy > maxMoney {
		bad("subsidy %d: want 0 to %d satoshi", c.Subsidy, int64(maxMoney))
	}
	limit := blockchain.CompactToBig(c.PowLimitBits)
	if limit.Cmp(blockchain.CompactToBig(hardestLimitBits)) < 0 ||
		limit.Cmp(blockchain.CompactToBig(easiestBits)) > 0 ||
		blockchain.BigToCompact(limit) != c.PowLimitBits {
		bad("pow limit bits %#08x: want a canonical value from %#08x to %#08x", c.PowLimitBits, hardestLimitBits, easiestBits)
	}
	if len(errs) > 0 {
		return nil, fmt.Errorf("custom network: %w", errors.Join(errs...))
	}
	return ownNetwork(c, 0), nil
}

// ownNetwork builds one of our own networks. nonce is where the search for the
// genesis nonce starts.
func ownNetwork(c Custom, nonce uint32) *Params {
	p := &Params{
		Name:                   c.Name,
		PowLimit:               blockchain.CompactToBig(c.PowLimitBits),
		PowLimitBits:           c.PowLimitBits,
		Retarget:               RetargetASERT,
		TargetSpacing:          c.Spacing,
		ASERTHalfLife:          ownHalfLife,
		BIP54:                  true,
		BaseSubsidy:            c.Subsidy,
		SubsidyHalvingInterval: c.HalvingInterval,
		CoinbaseMaturity:       100,
		MinChainWork:           new(big.Int),
		Bech32HRP:              "tdun",
		PubKeyHashAddrID:       0x6f,
		ScriptHashAddrID:       0xc4,
		PrivateKeyID:           0xef,
		MaxBlockWeight:         maxBlockWeight,
		MaxBlockSigOpsCost:     maxBlockSigOpsCost,
		Test:                   true,
	}
	if len(c.Holders) > 0 {
		p.SealBytes = sealBytes
		p.GenesisSeal = make([]byte, sealBytes)
		p.SlotDuration = c.Spacing / SlotsPerBlock
		p.ASERTHalfLife = stakeHalfLives * c.Spacing
		p.StakeMaturity = c.StakeMaturity
		p.MaxReorg = c.MaxReorg
		p.PowLimitBits = stakeLimitBits
		p.PowLimit = blockchain.CompactToBig(stakeLimitBits)
		c.PowLimitBits = firstStakeBits(c.Holders)
	}
	p.Genesis = ownGenesis(c, nonce)
	p.GenesisHash = p.Genesis.BlockHash()
	// Bytes above 0x7f are rare in text, which makes the magic easy to find in a
	// damaged file.
	p.Magic = binary.LittleEndian.Uint32(p.GenesisHash[:4]) | 0x80808080
	return p
}

// ownGenesis is the genesis block of one of our own networks. Everything that
// tells two networks apart is in it: name, spacing, subsidy and halving, and where
// stake makes blocks its maturity and the limit of reorganisations, are committed to in the coinbase
// next to the text, the limit of work in the header. Its outputs
// are the holders' on PoS networks; else it has one that cannot be spent and carries
// no value.
func ownGenesis(c Custom, nonce uint32) *wire.MsgBlock {
	engine, stake := "", ""
	if len(c.Holders) > 0 {
		engine, stake = "pos/", fmt.Sprintf("/%d/%d", c.StakeMaturity, c.MaxReorg)
	}
	id := chainhash.DoubleHashH(fmt.Appendf(nil, "dunlin/%s%s/%d/%d/%d%s", engine, c.Name, int64(c.Spacing/time.Second), c.HalvingInterval, c.Subsidy, stake))
	sig := append([]byte{8}, id[:8]...)
	if n := len(c.GenesisText); n > 75 {
		sig = append(sig, txscript.OP_PUSHDATA1, byte(n))
	} else {
		sig = append(sig, byte(n))
	}
	sig = append(sig, c.GenesisText...)
	tx := wire.NewMsgTx(1)
	tx.AddTxIn(&wire.TxIn{
		PreviousOutPoint: wire.OutPoint{Index: math.MaxUint32},
		SignatureScript:  sig,
		Sequence:         math.MaxUint32,
	})
	if len(c.Holders) == 0 {
		tx.AddTxOut(&wire.TxOut{PkScript: []byte{txscript.OP_RETURN}})
	}
	for _, h := range c.Holders {
		tx.AddTxOut(&wire.TxOut{Value: h.Value, PkScript: append([]byte{txscript.OP_1, txscript.OP_DATA_32}, h.Key[:]...)})
	}
	block := &wire.MsgBlock{
		Header: wire.BlockHeader{
			Version:    4,
			MerkleRoot: tx.TxHash(),
			Timestamp:  time.Unix(c.GenesisTime.Unix(), 0),
			Bits:       c.PowLimitBits,
			Nonce:      nonce,
		},
		Transactions: []*wire.MsgTx{tx},
	}
	if len(c.Holders) > 0 {
		return block // nothing proves it
	}
	target := blockchain.CompactToBig(c.PowLimitBits)
	for {
		hash := block.BlockHash()
		if blockchain.HashToBig(&hash).Cmp(target) <= 0 {
			return block
		}
		block.Header.Nonce++
	}
}

// checkHolders reports what is wrong with the initial stake.
func checkHolders(c *Custom, bad func(string, ...any)) {
	if c.PowLimitBits != 0 {
		bad("pow limit bits %#08x: a network with holders has no work", c.PowLimitBits)
	}
	if len(c.Holders) > MaxHolders {
		bad("%d holders: at most %d", len(c.Holders), MaxHolders)
		return
	}
	if c.Spacing%(SlotsPerBlock*time.Second) != 0 {
		bad("spacing %s: want %d slots of whole seconds, so a multiple of %ds", c.Spacing, SlotsPerBlock, SlotsPerBlock)
	}
	keys := make([][32]byte, len(c.Holders))
	for i, h := range c.Holders {
		keys[i] = h.Key
	}
	for _, i := range NoPublicKeys(keys) {
		bad("holder %d: key %x is no x-only public key", i+1, keys[i])
	}
	var sum int64
	for i, h := range c.Holders {
		if h.Value < 1 || h.Value > maxMoney {
			bad("holder %d: %d satoshi: want 1 to %d", i+1, h.Value, int64(maxMoney))
			return
		}
		if sum += h.Value; sum > maxMoney { // cannot overflow: both are at most all the money
			bad("holders: more than %d satoshi in all", int64(maxMoney))
			return
		}
	}
}

// NoPublicKeys returns which of keys are no x-only public keys (BIP340), ascending: there is
// no point of the curve at them, and nobody could sign. Good ones take 2 µs each.
func NoPublicKeys(keys [][32]byte) (bad []int) {
	if secp256k1.PublicKeys(keys) {
		return nil
	}
	for i := range keys {
		if _, err := schnorr.ParsePubKey(keys[i][:]); err != nil { // the library decides
			bad = append(bad, i)
		}
	}
	return bad
}

// firstStakeBits is the target at which the initial stake wins every fourth slot:
// 2^256 / SlotsPerBlock / stake, a satoshi.
func firstStakeBits(holders []Holder) uint32 {
	var sum int64
	for _, h := range holders {
		sum += h.Value
	}
	target := new(big.Int).Lsh(big.NewInt(1), 256)
	target.Div(target, big.NewInt(SlotsPerBlock))
	target.Div(target, big.NewInt(max(sum, 1)))
	if limit := blockchain.CompactToBig(stakeLimitBits); target.Cmp(limit) > 0 {
		target = limit
	}
	return blockchain.BigToCompact(target)
}

// GenesisBlock returns the network's first block in the form of all others.
func (p *Params) GenesisBlock() *Block {
	h := Header{BlockHeader: p.Genesis.Header, Seal: p.GenesisSeal}
	b, err := NewBlock(p, h, p.Genesis.Transactions)
	if err != nil {
		panic(fmt.Sprintf("genesis of %s: %v", p.Name, err)) // parameters are ours
	}
	return b
}

// Subsidy is the new money of a block at height, in satoshi.
func (p *Params) Subsidy(height int32) int64 {
	if p.SubsidyHalvingInterval <= 0 {
		return p.BaseSubsidy
	}
	halvings := height / p.SubsidyHalvingInterval
	if halvings >= 64 {
		return 0
	}
	return p.BaseSubsidy >> uint(halvings)
}

// mustHash parses one of the constants above.
func mustHash(s string) chainhash.Hash {
	h, err := chainhash.NewHashFromStr(s)
	if err != nil {
		panic(err) // a constant
	}
	return *h
}
