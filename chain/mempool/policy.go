package mempool

import (
	"slices"

	"github.com/btcsuite/btcd/txscript/v2"
	"github.com/btcsuite/btcd/wire/v2"
)

// Limits on witnesses, those of Bitcoin Core (policy/policy.h): what is within
// them cannot be made larger by whoever passes it on.
const (
	maxWitnessScript = 3600 // MAX_STANDARD_P2WSH_SCRIPT_SIZE
	maxWitnessItems  = 100  // MAX_STANDARD_P2WSH_STACK_ITEMS, without the script
	maxWitnessItem   = 80   // MAX_STANDARD_P2WSH_STACK_ITEM_SIZE, and of tapscript
	tapscriptLeaf    = 0xc0
	leafMask         = 0xfe
)

// witnessStandard says whether the witness of an input that spends script is of a
// size that is relayed.
func witnessStandard(in *wire.TxIn, script []byte) bool {
	if len(in.Witness) == 0 {
		return true
	}
	p2sh := txscript.IsPayToScriptHash(script)
	if p2sh {
		// Push only, as was checked before: the last push is the redeem script.
		if script = lastPush(in.SignatureScript); script == nil {
			return false
		}
	}
	version, program, err := txscript.ExtractWitnessProgramInfo(script)
	if err != nil {
		return false // a witness where none belongs
	}
	small := func(items [][]byte) bool {
		return !slices.ContainsFunc(items, func(item []byte) bool { return len(item) > maxWitnessItem })
	}
	items := in.Witness
	last := items[len(items)-1]
	switch {
	case version == 0 && len(program) == 32:
		items = items[:len(items)-1]
		return len(last) <= maxWitnessScript && len(items) <= maxWitnessItems && small(items)
	case version == 1 && len(program) == 32 && !p2sh && len(items) > 1:
		if len(last) == 0 || last[0] == txscript.TaprootAnnexTag {
			return false // no control block; an annex, which nobody may use yet
		}
		return last[0]&leafMask != tapscriptLeaf || small(items[:len(items)-2])
	}
	return true
}

// lastPush returns what a script that only pushes pushes last; nil if it pushes
// nothing.
func lastPush(script []byte) (last []byte) {
	for t := txscript.MakeScriptTokenizer(0, script); t.Next(); {
		last = t.Data()
	}
	return last
}

// Limits on transactions of version 3, "topologically restricted until
// confirmation" (BIP431): their owners rely on them against pinning.
const (
	trucVersion  = 3
	maxTRUC      = 10_000 // virtual bytes
	maxTRUCChild = 1000   // of one that spends from an unconfirmed one
)

// checkTRUC enforces BIP431 on e, whose ancestors are all that it builds on.
// Callers hold mu.
func checkTRUC(e *entry, ancestors []*entry, replaced map[*entry]struct{}) error {
	truc := e.Tx.Version == trucVersion
	for _, parent := range e.parents {
		if (parent.Tx.Version == trucVersion) != truc {
			return refuse("truc-violation", "version %d spends from unconfirmed %s of version %d", e.Tx.Version, parent.ID, parent.Tx.Version)
		}
	}
	size := vsize(e.FeeWeight())
	switch {
	case !truc:
		return nil
	case size > maxTRUC:
		return refuse("truc-violation", "%d virtual bytes, at most %d in version 3", size, maxTRUC)
	case len(ancestors) == 0:
		return nil
	case len(ancestors) > 1:
		return refuse("truc-violation", "%d unconfirmed ancestors, at most one in version 3", len(ancestors))
	case size > maxTRUCChild:
		return refuse("truc-violation", "%d virtual bytes, at most %d for a child in version 3", size, maxTRUCChild)
	}
	for _, child := range e.parents[0].children {
		if _, ok := replaced[child]; !ok {
			return refuse("truc-violation", "%s has a child already, %s", e.parents[0].ID, child.ID)
		}
	}
	return nil
}

// sibling returns the one child of e's one parent whose place e may take although
// it spends another output, as BIP431 wants; nil if there is none, or if it is
// among rivals. Callers hold mu.
func sibling(e *entry, rivals []*entry) *entry {
	if e.Tx.Version != trucVersion || len(e.parents) != 1 || len(e.parents[0].children) != 1 {
		return nil
	}
	if s := e.parents[0].children[0]; s.Tx.Version == trucVersion && len(s.children) == 0 && !slices.Contains(rivals, s) {
		return s
	}
	return nil
}
