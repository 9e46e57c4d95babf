package discovery

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
)

// Limits of what Import reads.
const (
	MaxImportBytes = 8 << 20
	maxImportLine  = 8 << 10
	maxImportLines = 65_536
	maxImportFault = 20 // told one by one
)

// A KnownPeer is a line of an exported book: a peer, and where it can be dialled.
type KnownPeer struct {
	Addrs    []string `json:"addrs"`              // each with the peer id, best first
	Record   []byte   `json:"record,omitempty"`   // libp2p's signed peer record, if the peer gave one
	Answered int64    `json:"answered,omitempty"` // Unix seconds; 0: it was only heard of
}

// An ImportReport says what became of the lines of an import.
type ImportReport struct {
	Peers   int      `json:"peers"`    // read
	Added   int      `json:"added"`    // that the book did not know
	Known   int      `json:"known"`    // that it did
	NoPlace int      `json:"no_place"` // that found no place among the others
	Damaged int      `json:"damaged"`  // lines that were passed over
	Faults  []string `json:"faults"`   // what is wrong with the first of them
}

func (r *ImportReport) fault(line int, format string, args ...any) {
	r.Damaged++
	if len(r.Faults) < maxImportFault {
		r.Faults = append(r.Faults, fmt.Sprintf("line %d: ", line)+fmt.Sprintf(format, args...))
	}
}

// Export lists the peers of the book, those that answered first, the last one of them first; with proven
// only these. The peers of Options and of AddPeer are among them.
func (d *Discovery) Export(proven bool) []KnownPeer {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := time.Now()
	var all []*entry
	for _, e := range d.book.byID {
		if len(e.addrs) > 0 && (e.tried() || !proven) && !d.avoidedLocked(e.id, now) {
			all = append(all, e)
		}
	}
	slices.SortFunc(all, func(a, b *entry) int {
		if c := b.success.Compare(a.success); c != 0 {
			return c
		}
		return strings.Compare(string(a.id), string(b.id))
	})
	out := make([]KnownPeer, 0, len(all))
	for _, e := range all {
		k := KnownPeer{Record: slices.Clone(e.record)}
		if e.tried() {
			k.Answered = e.success.Unix()
		}
		for _, a := range e.addrs {
			k.Addrs = append(k.Addrs, a.Encapsulate(p2pAddr(e.id)).String())
		}
		out = append(out, k)
	}
	return out
}

// WriteKnown writes peers in a form that Import reads: a JSON object a line, or with text a full multiaddr a line.
func WriteKnown(w io.Writer, peers []KnownPeer, text bool) error {
	b := bufio.NewWriter(w)
	for _, k := range peers {
		if text {
			for _, a := range k.Addrs {
				fmt.Fprintln(b, a)
			}
			continue
		}
		line, err := json.Marshal(k)
		if err != nil {
			return err
		}
		fmt.Fprintf(b, "%s\n", line)
	}
	return b.Flush()
}

// Import notes the peers of a list: a line is a full multiaddr, or an object as WriteKnown makes it; empty lines and those that begin with
// # are passed over. A line that cannot be used costs itself only. What is imported is hearsay like what other peers
// tell, spread over the book by IP group. It is an error if r cannot be read or exceeds MaxImportBytes or 65,536
// lines: what came before is noted.
func (d *Discovery) Import(r io.Reader) (report ImportReport, err error) {
	report.Faults = []string{}
	limited := &io.LimitedReader{R: r, N: MaxImportBytes + 1}
	in := bufio.NewReaderSize(limited, maxImportLine+1)
	for n := 1; ; n++ {
		line, err := in.ReadSlice('\n')
		long := errors.Is(err, bufio.ErrBufferFull)
		for errors.Is(err, bufio.ErrBufferFull) {
			_, err = in.ReadSlice('\n')
		}
		switch {
		case err != nil && !errors.Is(err, io.EOF):
			return report, fmt.Errorf("import line %d: %w", n, err)
		case limited.N <= 0:
			return report, fmt.Errorf("import: more than %d bytes; what is up to line %d was taken", MaxImportBytes, n-1)
		case n > maxImportLines:
			return report, fmt.Errorf("import: more than %d lines; the first ones were taken", maxImportLines)
		case long:
			report.fault(n, "over %d bytes", maxImportLine)
		default:
			d.importLine(&report, n, bytes.TrimSpace(line))
		}
		if err != nil {
			d.poke()
			return report, nil //nolint:nilerr // the end
		}
	}
}

func (d *Discovery) importLine(report *ImportReport, n int, line []byte) {
	if len(line) == 0 || line[0] == '#' {
		return
	}
	k := KnownPeer{Addrs: []string{string(line)}}
	if line[0] == '{' {
		k = KnownPeer{}
		if err := json.Unmarshal(line, &k); err != nil {
			report.fault(n, "damaged: %v", err)
			return
		}
	}
	info, err := k.info()
	if err != nil {
		report.fault(n, "%v", err)
		return
	}
	if info.ID == d.self {
		return
	}
	addrs, hidden := usable(info.Addrs, d.opts.Private)
	if len(addrs) == 0 {
		if hidden > 0 {
			report.fault(n, "%s: private addresses only, and this network is public", info.ID)
		} else {
			report.fault(n, "%s: no address that can be dialled", info.ID)
		}
		return
	}
	now := time.Now()
	d.mu.Lock()
	defer d.mu.Unlock()
	report.Peers++
	// The operator is no stranger with a share of the book: each IP group of the list speaks for itself.
	e, fresh := d.book.learn(now, info.ID, addrs, SourceImport, string(SourceImport)+"/"+groupOf(addrs[0]))
	switch {
	case e == nil:
		report.NoPlace++
		return
	case fresh:
		report.Added++
		d.yield[SourceImport].Found++
		d.bookDirty = true
	default:
		report.Known++
	}
	if e.record == nil && len(k.Record) > 0 {
		e.record = k.Record
	}
}

// info checks a line. The addresses of a signed record come first.
func (k *KnownPeer) info() (info peer.AddrInfo, err error) {
	if len(k.Addrs) > maxAddrsPerPeer {
		return info, fmt.Errorf("%d addresses, at most %d of a peer are kept", len(k.Addrs), maxAddrsPerPeer)
	}
	for _, s := range k.Addrs {
		a, err := ma.NewMultiaddr(s)
		if err != nil {
			return info, fmt.Errorf("address %q: %w", shorten(s), err)
		}
		if err := checkStatic(a); err != nil {
			return info, err
		}
		addr, id := splitPeer(a)
		switch {
		case isDNS(addr):
			return info, fmt.Errorf("%s: a name; the book holds addresses (--bootstrap and --dns-seed take names)", a)
		case info.ID != "" && info.ID != id:
			return info, fmt.Errorf("addresses of two peers, %s and %s", info.ID, id)
		}
		info.ID = id
		info.Addrs = append(info.Addrs, addr)
	}
	if len(k.Record) > 0 {
		if len(k.Record) > maxRecordBytes {
			return info, fmt.Errorf("a signed record of %d bytes, at most %d", len(k.Record), maxRecordBytes)
		}
		signed, err := openRecord(k.Record, nil)
		if err != nil {
			return info, fmt.Errorf("the signed record does not hold: %w", err)
		}
		if info.ID != "" && info.ID != signed.ID {
			return info, fmt.Errorf("the signed record is of %s, not of %s", signed.ID, info.ID)
		}
		info.ID, info.Addrs = signed.ID, append(slices.Clone(signed.Addrs), info.Addrs...)
	}
	if len(info.Addrs) == 0 {
		return info, errors.New("no address")
	}
	return info, nil
}

// A Book is the saved address book of a Discovery that does not run. It belongs to one caller, who has seen to it that
// nobody else uses the folder.
type Book struct{ d *Discovery }

// OpenBook reads the book in o.Dir as New does. Of o it needs Namespace, Dir, MaxBook, Private and Logger; self is the
// node's own peer id, "" if it has none yet.
func OpenBook(o Options, self peer.ID) (*Book, error) {
	if err := o.validateBook(); err != nil {
		return nil, fmt.Errorf("open the address book: %w", err)
	}
	d := &Discovery{
		opts: o, self: self, log: o.Logger, wake: make(chan struct{}, 1),
		avoid: map[peer.ID]avoidance{}, added: map[peer.ID]addedPeer{}, yield: map[Source]*Yield{}, hidden: hiddenAddrs{},
	}
	for _, s := range allSources {
		d.yield[s] = &Yield{}
	}
	if err := d.load(time.Now()); err != nil {
		return nil, fmt.Errorf("open the address book: %w", err)
	}
	return &Book{d}, nil
}

// Export is Discovery.Export; signed records are not saved.
func (b *Book) Export(proven bool) []KnownPeer { return b.d.Export(proven) }

// Import is Discovery.Import, and writes the book.
func (b *Book) Import(r io.Reader) (ImportReport, error) {
	report, err := b.d.Import(r)
	if _, e := b.d.saveBook(); e != nil {
		err = errors.Join(err, fmt.Errorf("save the address book: %w", e))
	}
	return report, err
}
