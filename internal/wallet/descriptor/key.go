package descriptor

import (
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/btcsuite/btcd/btcec/v2"

	"dunlin/chain/consensus"
	"dunlin/internal/wallet/keys"
)

// What the last step of a key expression is.
type wildcard uint8

const (
	fixed         wildcard = iota
	everyIndex             // /*
	everyHardened          // /*h
)

// A keyExpr is a key expression (BIP380, BIP389). It is immutable. Secrets are behind pointers and print as "(secret)".
type keyExpr struct {
	origin *keys.Origin // as written; nil: none

	// One of these.
	pub  []byte // 33, 65 or 32 bytes
	xpub *keys.XPub

	steps    keys.Path // before the tuple
	tuple    []uint32  // alternatives of one step, or none
	after    keys.Path // behind the tuple
	wildcard wildcard

	// The private key, if it was given: of pub or of xpub.
	priv *keys.PrivateKey
	xprv *keys.XPrv

	// own is origin, or the key's own if there is none.
	own keys.Origin
	// base is xpub after the steps, of an extended key without tuple whose steps are not hardened.
	base *keys.XPub
	// privBase is xprv after the steps, where they or the range are hardened.
	privBase *keys.XPrv
}

// parseKey reads a key expression. Its errors do not show the text, which may be a private key.
func parseKey(text string, ctx context, net *consensus.Params) (*keyExpr, error) {
	k := new(keyExpr)
	if strings.HasPrefix(text, "[") {
		inner, rest, found := strings.Cut(text[1:], "]")
		if !found {
			return nil, errors.New("the origin's bracket is not closed")
		}
		fp, path, hasPath := strings.Cut(inner, "/")
		var o keys.Origin
		var err error
		if o.Fingerprint, err = keys.ParseFingerprint(fp); err != nil {
			return nil, errors.New("the origin does not begin with a fingerprint of 8 hexadecimal digits")
		}
		if hasPath {
			if o.Path, err = parseSteps(path); err != nil {
				return nil, fmt.Errorf("origin: %w", err)
			}
		}
		k.origin, text = &o, rest
	}
	name, path, hasPath := strings.Cut(text, "/")
	if strings.ContainsAny(name, "[]") {
		return nil, errors.New("brackets where a key is expected: an origin is written [fingerprint/path] before its key, once")
	}
	if err := k.parseBody(name, ctx, net); err != nil {
		return nil, err
	}
	if hasPath {
		if k.xpub == nil {
			return nil, errors.New("only extended keys have steps behind them")
		}
		if err := k.parsePath(path); err != nil {
			return nil, err
		}
	}
	if (ctx == inWitness || ctx == inTapscript) && k.uncompressed() {
		return nil, errors.New("an uncompressed public key, which witness outputs forbid")
	}
	return k, k.finish()
}

// parseBody reads the key itself.
func (k *keyExpr) parseBody(text string, ctx context, net *consensus.Params) (err error) {
	switch {
	case text == "":
		return errors.New("the key is missing")
	case len(text) > 130:
		return errors.New("too long for a key")
	case len(text) > 100 && len(text) < 130 && text[1:4] == "prv":
		if k.xprv, err = keys.ParseXPrv(text, net); err != nil {
			return err
		}
		k.xpub = k.xprv.Public()
		return nil
	case len(text) > 100 && len(text) < 130:
		k.xpub, err = keys.ParseXPub(text, net)
		return err
	}
	if b, err := hex.DecodeString(text); err == nil {
		switch {
		case len(b) == 33 && (b[0] == 2 || b[0] == 3), len(b) == 65 && b[0] == 4:
		case len(b) == 32 && ctx == inTapscript:
			_, err := btcec.ParsePubKey(append([]byte{2}, b...))
			if err != nil {
				return errors.New("the public key is not on the curve")
			}
			k.pub = b
			return nil
		case len(b) == 32:
			return errors.New("a public key of 32 bytes belongs into tr(…) only")
		default:
			return errors.New("a public key has 33 bytes that begin with 02 or 03, or 65 that begin with 04")
		}
		if _, err := btcec.ParsePubKey(b); err != nil {
			return errors.New("the public key is not on the curve")
		}
		k.pub = b
		return nil
	}
	if k.priv, err = keys.ParseWIF(text, net); err != nil {
		return errors.New("neither a public key in hexadecimal digits, an extended key nor a private key (WIF) of " + net.Name)
	}
	k.pub = k.priv.PublicBytes()
	return nil
}

// parsePath reads the steps behind an extended key.
func (k *keyExpr) parsePath(path string) error {
	parts := strings.Split(path, "/")
	if len(parts) > 255 {
		return fmt.Errorf("%d steps: at most 255", len(parts))
	}
	switch last := parts[len(parts)-1]; last {
	case "*":
		k.wildcard = everyIndex
	case "*h", "*'":
		k.wildcard = everyHardened
	}
	if k.wildcard != fixed {
		parts = parts[:len(parts)-1]
	}
	for _, part := range parts {
		if strings.HasPrefix(part, "<") {
			if err := k.parseTuple(part); err != nil {
				return err
			}
			continue
		}
		step, err := keys.ParseStep(part)
		if err != nil {
			return errBadStep
		}
		if k.tuple == nil {
			k.steps = append(k.steps, step)
		} else {
			k.after = append(k.after, step)
		}
	}
	return nil
}

var errBadStep = errors.New("a step is not a number under 2³¹, with ' or h behind it if hardened, or * at the end")

func (k *keyExpr) parseTuple(part string) error {
	if k.tuple != nil {
		return errors.New("a second <…> step: one is allowed")
	}
	inner, closed := strings.CutSuffix(part[1:], ">")
	if !closed {
		return errors.New("a <…> step that is not closed")
	}
	alternatives := strings.Split(inner, ";")
	if len(alternatives) < 2 || len(alternatives) > MaxMultipath {
		return fmt.Errorf("a <…> step has 2 to %d alternatives", MaxMultipath)
	}
	for _, a := range alternatives {
		step, err := keys.ParseStep(a)
		if err != nil {
			return errBadStep
		}
		if slices.Contains(k.tuple, step) {
			return errors.New("a <…> step names a number twice")
		}
		k.tuple = append(k.tuple, step)
	}
	return nil
}

func parseSteps(path string) (keys.Path, error) {
	if path == "" || strings.HasPrefix(path, "m") {
		return nil, errBadStep
	}
	p, err := keys.ParsePath(path)
	if err != nil {
		return nil, errBadStep
	}
	return p, nil
}

// finish computes own, base and privBase.
func (k *keyExpr) finish() (err error) {
	k.base, k.privBase = nil, nil
	switch {
	case k.origin != nil:
		k.own = *k.origin
	case k.xpub != nil:
		k.own = keys.Origin{Fingerprint: k.xpub.Fingerprint()}
	default:
		k.own = keys.OriginOf(k.pub)
	}
	if k.xpub == nil || len(k.tuple) > 0 {
		return nil
	}
	hardened := slices.ContainsFunc(k.steps, isHardened)
	if k.xprv != nil && (hardened || k.wildcard == everyHardened) {
		if k.privBase, err = k.xprv.Derive(k.steps); err != nil {
			return err
		}
		k.base = k.privBase.Public()
		return nil
	}
	if !hardened {
		k.base, err = k.xpub.Derive(k.steps)
	}
	return err
}

func isHardened(step uint32) bool { return step >= keys.Hardened }

// hardened says whether a step that was written behind the key needs the private key.
func (k *keyExpr) hardened() bool {
	return k.wildcard == everyHardened || slices.ContainsFunc(slices.Concat(k.steps, k.tuple, k.after), isHardened)
}

func (k *keyExpr) private() bool      { return k.priv != nil || k.xprv != nil }
func (k *keyExpr) uncompressed() bool { return len(k.pub) == 65 }

// choose returns the key with the i-th alternative of its <…> step.
func (k *keyExpr) choose(i int) *keyExpr {
	if len(k.tuple) == 0 {
		return k
	}
	c := *k
	c.steps = k.steps.Join(k.tuple[i]).Join(k.after...)
	c.tuple, c.after = nil, nil
	if err := c.finish(); err != nil {
		// Only of steps that give no valid key, which nobody has ever found: Derive says so again.
		c.base, c.privBase = nil, nil
	}
	return &c
}

// public returns the key without its private part, behind its last hardened step.
func (k *keyExpr) public() *keyExpr {
	if !k.private() {
		return k
	}
	c := *k
	c.priv, c.xprv, c.privBase = nil, nil, nil
	last := -1
	for i, step := range k.steps {
		if isHardened(step) {
			last = i
		}
	}
	if k.xprv != nil && last >= 0 && k.wildcard != everyHardened {
		if x, err := k.xprv.Derive(k.steps[:last+1]); err == nil {
			c.origin = &keys.Origin{Fingerprint: k.own.Fingerprint, Path: k.own.Path.Join(k.steps[:last+1]...)}
			c.xpub, c.steps = x.Public(), k.steps[last+1:]
			x.Wipe()
		}
	}
	_ = c.finish() // it succeeded for k
	return &c
}

// derive returns the key of an index; x-only if tap.
func (k *keyExpr) derive(index uint32, tap bool) (KeyRef, error) {
	ref := KeyRef{Origin: k.own, PubKey: k.pub}
	if k.xpub != nil {
		path := ref.Path.Join(k.steps...)
		pub := k.base
		var err error
		switch {
		case k.wildcard == everyHardened:
			if k.privBase == nil {
				return ref, ErrNeedsPrivate
			}
			x, err := k.privBase.Derive(keys.Path{index + keys.Hardened})
			if err != nil {
				return ref, err
			}
			pub, path = x.Public(), path.Join(index+keys.Hardened)
			x.Wipe()
		case k.base == nil:
			return ref, ErrNeedsPrivate
		case k.wildcard == everyIndex:
			if pub, err = k.base.Derive(keys.Path{index}); err != nil {
				return ref, err
			}
			path = path.Join(index)
		}
		ref.Path, ref.PubKey = path, pub.PublicKey().SerializeCompressed()
	}
	if tap && len(ref.PubKey) == 33 {
		ref.PubKey = ref.PubKey[1:]
	}
	ref.PubKey = slices.Clone(ref.PubKey)
	return ref, nil
}

// String returns the public form of the key.
func (k *keyExpr) String() string {
	p := k.public()
	var b strings.Builder
	if p.origin != nil {
		b.WriteString("[" + p.origin.String() + "]")
	}
	if p.xpub == nil {
		b.WriteString(hex.EncodeToString(p.pub))
		return b.String()
	}
	b.WriteString(p.xpub.String())
	write := func(path keys.Path) {
		for _, step := range path {
			b.WriteString("/" + keys.StepString(step))
		}
	}
	write(p.steps)
	if len(p.tuple) > 0 {
		for i, step := range p.tuple {
			b.WriteString([]string{";", "/<"}[b2i(i == 0)] + keys.StepString(step))
		}
		b.WriteByte('>')
	}
	write(p.after)
	b.WriteString([...]string{fixed: "", everyIndex: "/*", everyHardened: "/*h"}[p.wildcard])
	return b.String()
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}
