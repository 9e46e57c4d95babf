package chain

import (
	"testing"

	"github.com/btcsuite/btcd/chainhash/v2"

	"dunlin/chain/consensus"
)

// Tasks cover every input of a block once, whatever the sizes of its transactions.
func TestShare(t *testing.T) {
	t.Parallel()
	for _, sizes := range [][]int{{}, {1}, {7, 1, 1}, {63, 64, 65}, {1, 1000, 1}, {64, 64}, {8, 9, 500, 2, 2, 2, 2, 2}} {
		f := &flight{step: step{spent: make([]consensus.SpentTx, 1+len(sizes))}}
		covered := make([][]int, 1+len(sizes))
		for i, n := range sizes {
			f.step.spent[i+1].Coins = make([]consensus.Coin, n)
			covered[i+1] = make([]int, n)
		}
		for _, task := range f.share() {
			if task.large != nil && (task.to != task.from+1 || task.inputs[1]-task.inputs[0] > largeInputs) {
				t.Errorf("sizes %v: task %+v", sizes, task)
			}
			for i := task.from; i < task.to; i++ {
				from, to := 0, len(covered[i])
				if task.large != nil {
					from, to = task.inputs[0], task.inputs[1]
				}
				for in := from; in < to; in++ {
					covered[i][in]++
				}
			}
		}
		for i := range covered {
			for in, n := range covered[i] {
				if n != 1 {
					t.Errorf("sizes %v: input %d of transaction %d is in %d tasks", sizes, in, i, n)
				}
			}
		}
	}
}

// Scripts are remembered under their flags only, and no more than the limit.
func TestPassedScripts(t *testing.T) {
	t.Parallel()
	var none *passedScripts
	if none.has(chainhash.Hash{}, 0) {
		t.Error("nothing remembers something")
	}
	p := &passedScripts{txs: map[chainhash.Hash]uint32{{1}: 5}}
	if !p.has(chainhash.Hash{1}, 5) || p.has(chainhash.Hash{1}, 4) || p.has(chainhash.Hash{2}, 5) {
		t.Error("flags or ids are not told apart")
	}
}
