package logs

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
)

// maxSubsystems bounds the levels that an API client can set; the node has
// about twenty subsystems, libp2p about fifty.
const maxSubsystems = 256

// ErrTooManySubsystems is returned when more levels are set than there can be
// subsystems.
var ErrTooManySubsystems = errors.New("too many subsystems with a level of their own")

// Levels holds the level of each subsystem. Names are paths: a level set for
// "libp2p" counts for "libp2p/swarm2" unless that has its own. All methods may
// be called at any time from any goroutine; a change counts from the next
// record on.
type Levels struct {
	mu      sync.Mutex // guards changed and known, serialises writers of set; held for a map copy
	set     atomic.Pointer[map[string]slog.Level]
	changed []func()        // called after each change, without mu
	known   map[string]bool // subsystems that have a logger; guarded by mu
}

func newLevels(def slog.Level) *Levels {
	l := new(Levels)
	l.set.Store(&map[string]slog.Level{"": def})
	return l
}

// Get returns the level that counts for subsystem; "" asks for the default.
func (l *Levels) Get(subsystem string) slog.Level {
	set := *l.set.Load()
	for s := subsystem; s != ""; {
		if level, ok := set[s]; ok {
			return level
		}
		s = s[:max(strings.LastIndexByte(s, '/'), 0)]
	}
	return set[""]
}

// Set gives subsystem a level of its own; "" sets the default. The only error
// is ErrTooManySubsystems.
func (l *Levels) Set(subsystem string, level slog.Level) error {
	return l.change(func(set map[string]slog.Level) { set[subsystem] = level })
}

// Reset takes a subsystem's own level away. The default stays.
func (l *Levels) Reset(subsystem string) {
	if subsystem == "" {
		return
	}
	// Removing cannot exceed the limit.
	_ = l.change(func(set map[string]slog.Level) { delete(set, subsystem) })
}

// note remembers that a subsystem has a logger.
func (l *Levels) note(subsystem string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.known == nil {
		l.known = make(map[string]bool)
	}
	if len(l.known) < maxSubsystems {
		l.known[subsystem] = true
	}
}

// Known lists the subsystems that have a logger, sorted; those of libraries come when
// they first log.
func (l *Levels) Known() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Sorted(maps.Keys(l.known))
}

// Apply sets the levels of a list such as "info,exchange=debug,libp2p=error",
// all or, if one entry is wrong, none; every wrong entry is reported.
func (l *Levels) Apply(list string) error {
	changes := make(map[string]slog.Level)
	var errs []error
	for entry := range strings.SplitSeq(list, ",") {
		name, value, named := strings.Cut(strings.TrimSpace(entry), "=")
		if !named {
			name, value = "", name
		} else if name == "" {
			errs = append(errs, fmt.Errorf("log level %q: no subsystem before =", entry))
			continue
		}
		level, err := ParseLevel(value)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		changes[name] = level
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	return l.change(func(set map[string]slog.Level) { maps.Copy(set, changes) })
}

// All returns the levels that were set, by subsystem, the default under "".
// The caller owns the map.
func (l *Levels) All() map[string]slog.Level { return maps.Clone(*l.set.Load()) }

// String is a list that Apply reads, sorted.
func (l *Levels) String() string {
	set := *l.set.Load()
	var b strings.Builder
	b.WriteString(LevelName(set[""]))
	for _, name := range slices.Sorted(maps.Keys(set)) {
		if name != "" {
			fmt.Fprintf(&b, ",%s=%s", name, LevelName(set[name]))
		}
	}
	return b.String()
}

// change replaces the map by an edited copy; readers never lock.
func (l *Levels) change(edit func(map[string]slog.Level)) error {
	l.mu.Lock()
	set := maps.Clone(*l.set.Load())
	edit(set)
	if len(set) > maxSubsystems {
		l.mu.Unlock()
		return ErrTooManySubsystems
	}
	l.set.Store(&set)
	changed := l.changed
	l.mu.Unlock()
	for _, f := range changed {
		f()
	}
	return nil
}

// follow calls f now and after each change. f reads the levels itself, so that
// two changes at once end with the newer.
func (l *Levels) follow(f func()) {
	l.mu.Lock()
	l.changed = append(slices.Clone(l.changed), f)
	l.mu.Unlock()
	f()
}

func (l *Levels) mustSet(subsystem string, level slog.Level) {
	if err := l.Set(subsystem, level); err != nil {
		panic(err) // only before the first caller could have filled it
	}
}

// lowest returns the lowest level of the subsystem and all below it.
func (l *Levels) lowest(subsystem string) slog.Level {
	low := l.Get(subsystem)
	for name, level := range *l.set.Load() {
		if within(name, subsystem) {
			low = min(low, level)
		}
	}
	return low
}

// LevelName is what ParseLevel reads; levels in between have the name of the one below.
func LevelName(l slog.Level) string {
	switch {
	case l < slog.LevelInfo:
		return "debug"
	case l < slog.LevelWarn:
		return "info"
	case l < slog.LevelError:
		return "warn"
	}
	return "error"
}

// within reports whether name is parent or below it.
func within(name, parent string) bool {
	rest, ok := strings.CutPrefix(name, parent)
	return ok && (rest == "" || rest[0] == '/')
}
