package testnet

import (
	"bufio"
	"errors"
	"io"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A history is what the log of a node tells.
type history struct {
	openings []opening
	reorgs   []reorg
	blocks   []arrival
}

// An opening is a start of the node, with the height that it found on disk.
type opening struct {
	at     time.Time
	height int32
}

type reorg struct {
	at    time.Time
	depth int
	fork  int32 // the height of the last block that both branches have; -1 unknown
}

// left says whether the node took the block at a height back at a time between two.
func (h *history) left(height int32, from, to time.Time) bool {
	return slices.ContainsFunc(h.reorgs, func(r reorg) bool { return r.fork < height && !r.at.Before(from) && !r.at.After(to) })
}

// An arrival is a block that became part of the node's chain while it followed the tip.
type arrival struct {
	at     time.Time
	height int32
	hash   string // shortened, as the log has it
	own    bool
}

const (
	maxLogBytes = 256 << 20 // read of one log, from its end
	maxLogLine  = 64 << 10
	logTime     = "2006-01-02T15:04:05.000"
)

// readStory reads a log. There may be none.
func readStory(path string) (h history, err error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return h, nil
	}
	if err != nil {
		return h, err
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.Size() > maxLogBytes {
		if _, err := f.Seek(-maxLogBytes, io.SeekEnd); err != nil {
			return h, err
		}
	}
	lines := bufio.NewReaderSize(f, maxLogLine)
	for {
		line, err := lines.ReadSlice('\n')
		if len(line) > 0 && !errors.Is(err, bufio.ErrBufferFull) {
			h.read(string(line))
		}
		switch {
		case errors.Is(err, io.EOF):
			return h, nil
		case err != nil && !errors.Is(err, bufio.ErrBufferFull): // a longer line is none of those
			return h, err
		}
	}
}

// read takes one line, if it is of interest.
func (h *history) read(line string) {
	stamp, rest, ok := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
	if !ok {
		return
	}
	words := strings.Fields(rest)
	if len(words) < 3 {
		return
	}
	what := words[0] + " " + words[1]
	if what != "INF dunlin" && what != "INF block" && what != "WRN reorg" {
		return
	}
	at, err := time.ParseInLocation(logTime, stamp, time.Local)
	if err != nil {
		return
	}
	value := func(key string) string {
		for _, w := range words {
			if v, ok := strings.CutPrefix(w, key+"="); ok {
				return v
			}
		}
		return ""
	}
	switch what {
	case "INF dunlin":
		if height, err := strconv.ParseInt(value("height"), 10, 32); err == nil {
			h.openings = append(h.openings, opening{at, int32(height)})
		}
	case "WRN reorg":
		if depth, err := strconv.Atoi(value("depth")); err == nil {
			fork := int32(-1)
			if n, err := strconv.ParseInt(value("fork"), 10, 32); err == nil {
				fork = int32(n)
			}
			h.reorgs = append(h.reorgs, reorg{at, depth, fork})
		}
	case "INF block":
		// Heights have commas in them: 1,234.
		if height, err := strconv.ParseInt(strings.ReplaceAll(words[2], ",", ""), 10, 32); err == nil && len(words) > 3 {
			h.blocks = append(h.blocks, arrival{at: at, height: int32(height), hash: words[3], own: value("from") == "miner"})
		}
	}
}
