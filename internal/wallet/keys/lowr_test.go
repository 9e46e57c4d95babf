package keys_test

import (
	"crypto/sha256"
	"encoding/hex"
	"testing"

	"github.com/btcsuite/btcd/btcec/v2"
	"github.com/btcsuite/btcd/btcec/v2/ecdsa"
	"github.com/btcsuite/btcd/chainhash/v2"

	"dunlin/chain/consensus"
	"dunlin/internal/wallet/keys"
)

// TestLowR: signatures are valid, deterministic, short, and those of the library
// where these are short.
func TestLowR(t *testing.T) {
	same, n := 0, 300
	if testing.Short() {
		n = 30
	}
	for i := range n {
		secret := sha256.Sum256([]byte{byte(i), byte(i >> 8)})
		k, err := keys.NewPrivateKey(secret[:], true)
		if err != nil {
			t.Fatal(err)
		}
		hash := sha256.Sum256(secret[:])
		der := k.SignECDSA(hash)
		if string(k.SignECDSA(hash)) != string(der) {
			t.Fatal("not deterministic")
		}
		sig, err := ecdsa.ParseDERSignature(der)
		if err != nil || !sig.Verify(hash[:], k.PublicKey()) || len(der) > 70 || ecdsa.VerifyLowS(append(der, 1)) != nil {
			t.Fatalf("key %d: %x, %v", i, der, err)
		}
		priv, _ := btcec.PrivKeyFromBytes(secret[:])
		if plain := ecdsa.Sign(priv, hash[:]).Serialize(); string(plain) == string(der) {
			same++
		} else if plain[3] != 33 {
			t.Errorf("key %d: %x was short enough", i, plain)
		}
	}
	if same < n/5 || same > n*4/5 {
		t.Errorf("%d of %d needed no second try", same, n)
	}
}

// TestCoreSignature is a deterministic signature of Bitcoin Core's key_tests.cpp.
func TestCoreSignature(t *testing.T) {
	k, err := keys.ParseWIF("5HxWvvfubhXpYYpS3tJkw6fq9jE9j18THftkZjHHfmFiWtmAbrj", consensus.Bitcoin())
	if err != nil {
		t.Fatal(err)
	}
	hash := [32]byte(chainhash.DoubleHashB([]byte("Very deterministic message")))
	const want = "304402205dbbddda71772d95ce91cd2d14b592cfbc1dd0aabd6a394b6c2d377bbe59d31d022014ddda21494a4e221f0824f0b8b924c43fa43c0ad57dccdaa11f81a6bd4582f6"
	if got := hex.EncodeToString(k.SignECDSA(hash)); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
