package staking

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"log/slog"
	"slices"
	"sync"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/wire/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"dunlin/chain/consensus"
)

// The journal is one file (docs/storage.md), little-endian:
//
//	file   = magic, floor i64, CRC32C of both u32, record…
//	record = slot i64, txid 32, index u32, block hash 32, CRC32C of these u32
//
// Records have one size, so a damaged one hides none behind it.
const (
	journalMagic = "dunlinS1"
	journalHead  = len(journalMagic) + 8 + 4
	recordBytes  = 8 + 36 + chainhash.HashSize + 4
	// defaultRecords bounds the file (320 kB) and what is kept in memory: weeks of
	// blocks of a large holder.
	defaultRecords = 4096
	// maxJournalBytes is more than any number of records that was ever allowed.
	maxJournalBytes = 64 << 20
	// lostSlots is how long nothing is signed, past the present slot, when signed slots
	// may have been lost: two wanted spacings of blocks, so a clock that was ahead by
	// more than peers accept (half a slot) is provided for too.
	lostSlots = 2 * consensus.SlotsPerBlock
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// ErrSigned is returned for a slot in which the stake may have signed already.
var ErrSigned = errors.New("signed already, or before what the journal remembers")

// A Record says that a stake was about to sign a block of a slot.
type Record struct {
	Slot     int64
	OutPoint wire.OutPoint
	Block    chainhash.Hash
}

// JournalOptions configure OpenJournal. Zero means the default given.
type JournalOptions struct {
	FS   vfs.FS // default: the disk
	Dir  string // of the journal alone; made when needed; no default
	Name string // of the file in Dir; default "signed.log"
	// Slot is the present one. Nothing up to it is ever signed: what was, while the
	// journal was not looked after, or by one that a backup has taken the place of, was
	// signed in slots that had begun.
	Slot int64
	// MaxRecords is how many slots are remembered; everything before them counts as
	// signed. Default 4096, at least 16.
	MaxRecords int
	Logger     *slog.Logger // default: discards
}

// A Journal remembers which stake has signed in which slot, on disk before the
// signature is made: whatever happens in between, and however often, there is never a
// second block. It is safe for concurrent use. Two journals on two machines know nothing
// of each other.
type Journal struct {
	o    JournalOptions
	path string

	// mu guards what follows. It is held while the disk is flushed.
	mu      sync.Mutex
	f       vfs.File
	end     int64 // where the next record goes
	floor   int64 // slots below it are refused; as on disk
	resting int64 // so are those below this one, until the journal is opened again
	lost    string
	signed  map[stakeSlot]chainhash.Hash
	failed  bool // the file may not have what is in memory
	closed  bool
}

type stakeSlot struct {
	slot int64
	coin wire.OutPoint
}

// OpenJournal opens the journal, or makes it. What a crash left of a record that was
// being written is cut off: its block was not signed. Where more than that is damaged, or
// the file is gone from its folder, signed slots may be lost: the journal then refuses
// some slots to come ([Journal.Resting]) and goes on from there; a damaged file is kept
// beside the new one. Other errors are the disk's.
func OpenJournal(o JournalOptions) (*Journal, error) {
	if o.Dir == "" {
		return nil, errors.New("journal of signed slots: a folder is required")
	}
	if o.FS == nil {
		o.FS = vfs.Default
	}
	o.Name = cmp.Or(o.Name, "signed.log")
	o.MaxRecords = max(cmp.Or(o.MaxRecords, defaultRecords), 16)
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	j := &Journal{o: o, path: o.FS.PathJoin(o.Dir, o.Name), resting: o.Slot + 1, signed: make(map[stakeSlot]chainhash.Hash)}
	if err := j.open(); err != nil {
		return nil, fmt.Errorf("journal of signed slots %s: %w", j.path, err)
	}
	return j, nil
}

func (j *Journal) open() error {
	_, err := j.o.FS.Stat(j.o.Dir)
	existed := err == nil
	if !existed {
		if err := j.o.FS.MkdirAll(j.o.Dir, 0o700); err != nil {
			return err
		}
		if err := j.syncDir(j.o.FS.PathDir(j.o.Dir)); err != nil {
			return err
		}
	}
	raw, err := j.read()
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if existed {
			j.lose("is missing from its folder")
		}
		return j.rewrite()
	case err != nil:
		return err
	}
	if damage := j.load(raw); damage != "" {
		kept, err := j.keep(raw)
		if err != nil {
			return err
		}
		j.lose(damage + "; kept as " + kept)
		return j.rewrite()
	}
	if j.f, err = j.o.FS.OpenReadWrite(j.path, vfs.WriteCategoryUnspecified); err != nil {
		return err
	}
	return nil
}

// lose provides for signed slots that are not known. The slots that are refused for that
// are below the floor, so that they stay so if the process ends before they are past.
func (j *Journal) lose(why string) {
	for k := range j.signed {
		j.resting = max(j.resting, k.slot+1)
	}
	j.resting = max(j.resting, j.o.Slot) + lostSlots
	j.floor = max(j.floor, j.resting)
	j.lost = why
	j.o.Logger.Error("journal of signed slots "+why+": no block is signed until slots that may be lost are past", //nolint:sloglint // one of three texts
		"path", j.path, "records", len(j.signed), "slots", j.resting-j.o.Slot)
}

func (j *Journal) read() ([]byte, error) {
	f, err := j.o.FS.Open(j.path)
	if err != nil {
		return nil, err
	}
	raw, err := io.ReadAll(io.LimitReader(f, maxJournalBytes+1))
	if len(raw) > maxJournalBytes {
		err = fmt.Errorf("is longer than %d bytes: it is none of ours", maxJournalBytes)
	}
	return raw, errors.Join(err, f.Close())
}

// load reads the file and returns what is wrong with it. A last record that is not whole is
// not: its block was not signed, and the next one goes in its place.
func (j *Journal) load(raw []byte) (damage string) {
	if len(raw) < journalHead || string(raw[:len(journalMagic)]) != journalMagic || !checked(raw[:journalHead]) {
		j.scan(raw[min(journalHead, len(raw)):])
		return "has a damaged beginning"
	}
	j.floor = int64(binary.LittleEndian.Uint64(raw[len(journalMagic):]))
	bad, last := j.scan(raw[journalHead:])
	j.end = int64(journalHead + last*recordBytes)
	if bad > 0 {
		return fmt.Sprintf("has %d damaged records", bad)
	}
	return ""
}

// scan takes records in. last is how many there are up to the last good one, bad how many
// of those are not, or lie behind it, but for one.
func (j *Journal) scan(raw []byte) (bad, last int) {
	n := (len(raw) + recordBytes - 1) / recordBytes
	good := 0
	for i := range n {
		b := raw[i*recordBytes : min((i+1)*recordBytes, len(raw))]
		if len(b) < recordBytes || !checked(b) {
			continue
		}
		r := Record{Slot: int64(binary.LittleEndian.Uint64(b)), OutPoint: wire.OutPoint{Index: binary.LittleEndian.Uint32(b[40:])}}
		copy(r.OutPoint.Hash[:], b[8:])
		copy(r.Block[:], b[44:])
		j.signed[stakeSlot{r.Slot, r.OutPoint}] = r.Block
		good++
		last = i + 1
	}
	return n - good - min(1, n-last), last
}

// checked says whether the last four bytes are the checksum of the others.
func checked(b []byte) bool {
	n := len(b) - 4
	return crc32.Checksum(b[:n], castagnoli) == binary.LittleEndian.Uint32(b[n:])
}

func sum(b []byte) []byte {
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

func (r *Record) encode() []byte {
	b := binary.LittleEndian.AppendUint64(make([]byte, 0, recordBytes), uint64(r.Slot))
	b = append(b, r.OutPoint.Hash[:]...)
	b = binary.LittleEndian.AppendUint32(b, r.OutPoint.Index)
	return sum(append(b, r.Block[:]...))
}

// keep saves a damaged file under another name.
func (j *Journal) keep(raw []byte) (name string, err error) {
	for n := 1; ; n++ {
		name = fmt.Sprintf("%s.damaged-%d", j.path, n)
		if _, err := j.o.FS.Stat(name); errors.Is(err, fs.ErrNotExist) {
			return name, j.write(name, raw)
		} else if err != nil {
			return "", err
		}
	}
}

// write makes a file that is on disk when it returns, but for its name.
func (j *Journal) write(name string, raw []byte) error {
	f, err := j.o.FS.Create(name, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	_, err = f.Write(raw)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

func (j *Journal) syncDir(name string) error {
	d, err := j.o.FS.OpenDir(name)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// rewrite puts the file anew from memory, without the oldest records if there are too
// many: they are below the floor then. The caller holds mu, or nobody else knows j.
func (j *Journal) rewrite() (err error) {
	j.failed = true
	records := j.records()
	if most := j.o.MaxRecords; len(records) > most {
		floor := records[len(records)-most/2-1].Slot + 1
		drop, _ := slices.BinarySearchFunc(records, floor, func(r Record, slot int64) int { return cmp.Compare(r.Slot, slot) })
		for _, r := range records[:drop] {
			delete(j.signed, stakeSlot{r.Slot, r.OutPoint})
		}
		records, j.floor = records[drop:], max(j.floor, floor)
	}
	raw := sum(binary.LittleEndian.AppendUint64([]byte(journalMagic), uint64(j.floor)))
	for i := range records {
		raw = append(raw, records[i].encode()...)
	}
	if j.f != nil {
		err = j.f.Close()
		j.f = nil
	}
	fresh := j.path + ".new"
	if err := errors.Join(err, j.write(fresh, raw)); err != nil {
		return err
	}
	if err := j.o.FS.Rename(fresh, j.path); err != nil {
		return err
	}
	if err := j.syncDir(j.o.Dir); err != nil {
		return err
	}
	if j.f, err = j.o.FS.OpenReadWrite(j.path, vfs.WriteCategoryUnspecified); err != nil {
		return err
	}
	j.end, j.failed = int64(len(raw)), false
	return nil
}

// records are those in memory, the oldest slot first.
func (j *Journal) records() []Record {
	out := make([]Record, 0, len(j.signed))
	for k, block := range j.signed {
		out = append(out, Record{k.slot, k.coin, block})
	}
	slices.SortFunc(out, func(a, b Record) int {
		return cmp.Or(cmp.Compare(a.Slot, b.Slot), slices.Compare(a.OutPoint.Hash[:], b.OutPoint.Hash[:]), cmp.Compare(a.OutPoint.Index, b.OutPoint.Index))
	})
	return out
}

// Sign calls sign if the stake has signed no other block in the slot, after that is on
// disk. From the moment it was tried the slot is taken, whatever fails. [ErrSigned]: it was
// taken. While the disk refuses to be written nothing is signed; each call tries anew.
func (j *Journal) Sign(r Record, sign func() error) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed {
		return errors.New("journal of signed slots: closed")
	}
	if j.taken(r.Slot, r.OutPoint) {
		return fmt.Errorf("slot %d by %v: %w", r.Slot, r.OutPoint, ErrSigned)
	}
	whole := j.failed || len(j.signed) >= j.o.MaxRecords
	j.signed[stakeSlot{r.Slot, r.OutPoint}] = r.Block
	var err error
	if whole {
		err = j.rewrite()
	} else {
		err = j.append(&r)
	}
	if err != nil {
		j.failed = true
		return fmt.Errorf("journal of signed slots: %w", err)
	}
	return sign()
}

func (j *Journal) append(r *Record) error {
	if _, err := j.f.WriteAt(r.encode(), j.end); err != nil {
		return err
	}
	if err := j.f.Sync(); err != nil {
		return err
	}
	j.end += recordBytes
	return nil
}

func (j *Journal) taken(slot int64, coin wire.OutPoint) bool {
	_, signed := j.signed[stakeSlot{slot, coin}]
	return signed || slot < j.floor || slot < j.resting
}

// Taken says whether Sign would refuse.
func (j *Journal) Taken(slot int64, coin wire.OutPoint) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.taken(slot, coin)
}

// Resting returns the first slot that may be signed, and what was lost of the journal, if
// anything was.
func (j *Journal) Resting() (slot int64, lost string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return max(j.floor, j.resting), j.lost
}

// Last returns up to n records of the latest slots, the latest first. Whether their blocks
// became known to anybody it does not tell.
func (j *Journal) Last(n int) []Record {
	j.mu.Lock()
	defer j.mu.Unlock()
	all := j.records()
	all = all[max(0, len(all)-n):]
	slices.Reverse(all)
	return all
}

// Close closes the file. Nothing is signed afterwards.
func (j *Journal) Close() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.closed = true
	if j.f == nil {
		return nil
	}
	err := j.f.Close()
	j.f = nil
	return err
}
