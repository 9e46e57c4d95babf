package wallet

import (
	"errors"
	"maps"
	"slices"
)

// Forget drops payments of others beyond a number.
func Forget(w *Wallet, most int) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := w.book.forget(most)
	_ = w.store(false)
	return n
}

// WriteJournal makes a journal of entries, which it is given in the order of their keys.
func WriteJournal(path string, values map[string][]byte) error {
	j, _, err := openJournal(path)
	if err != nil {
		return err
	}
	var all []change
	for _, k := range slices.Sorted(maps.Keys(values)) {
		all = append(all, change{k, values[k]})
	}
	return errors.Join(j.appendAll(all, true), j.close())
}

// ReadJournal returns a journal's entries.
func ReadJournal(path string) (map[string][]byte, error) {
	j, _, err := openJournal(path)
	if err != nil {
		return nil, err
	}
	out := make(map[string][]byte)
	for _, key := range j.keys("") {
		if out[key], err = j.get(key); err != nil {
			return nil, errors.Join(err, j.close())
		}
	}
	return out, j.close()
}
