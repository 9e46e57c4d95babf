package logs

import (
	"context"
	"log/slog"
	"time"

	golog "github.com/ipfs/go-log/v2"
	"github.com/libp2p/go-libp2p/gologshim"
	"go.uber.org/zap/zapcore"
)

const (
	// libp2pSubsystem is the parent of all of libp2p's subsystems: libp2p/swarm2,
	// libp2p/pubsub, libp2p/dht and so on.
	libp2pSubsystem = "libp2p"
	// libraryLoggerKey is the attribute in which libp2p names its own loggers.
	libraryLoggerKey = "logger"

	// A peer can make libp2p warn as often as it likes: the same message of the
	// same logger is written at most so often.
	libraryLines    = 5
	libraryInterval = time.Minute
	libraryMessages = 256
	// Messages that are formatted (kad-dht's) differ in their tails.
	libraryMessageKeyBytes = 48
)

// CaptureLibp2p leads all of libp2p's log paths into logger: go-libp2p's (slog
// through gologshim), kad-dht's (zap through go-log), and what other libraries
// write through slog.Default or package log. Call it once, before the first
// host is made: libp2p's loggers keep the handler of their first line. pubsub
// takes a logger as an option: give it Library(logger, "pubsub").
//
// It sets process-wide variables of those packages; that is what they offer.
func CaptureLibp2p(logger *slog.Logger, levels *Levels) {
	h := limited(logger.With(Subsystem, libp2pSubsystem).Handler())
	gologshim.SetDefaultHandler(h)
	golog.SetPrimaryCore(zapCore{h: h, levels: levels})
	// Levels decides, not go-log's settings from the environment. go-log gets the
	// lowest level anyone wants, so that it formats no line for nothing.
	levels.follow(func() {
		// Every level that slog has a name for parses.
		_ = golog.SetLogLevel("*", LevelName(levels.lowest(libp2pSubsystem)))
	})
	slog.SetDefault(slog.New(h.WithAttrs([]slog.Attr{slog.String(libraryLoggerKey, "other")})))
}

// Library returns a logger for a part of libp2p that takes one: its lines have
// the subsystem libp2p/name, and repeated warnings are thinned out.
func Library(logger *slog.Logger, name string) *slog.Logger {
	return slog.New(limited(logger.With(Subsystem, libp2pSubsystem+"/"+name).Handler()))
}

// limitHandler thins out repeated messages at warn and above; lines below were
// asked for by an operator and are left alone.
type limitHandler struct {
	slog.Handler
	limiter *Limiter
	name    string
}

func limited(h slog.Handler) slog.Handler {
	return limitHandler{Handler: h, limiter: NewLimiter(libraryLines, libraryInterval, libraryMessages)}
}

func (h limitHandler) Handle(ctx context.Context, r slog.Record) error {
	if r.Level < slog.LevelWarn {
		return h.Handler.Handle(ctx, r)
	}
	key, _ := clip(r.Message, libraryMessageKeyBytes)
	suppressed, ok := h.limiter.Allow(h.name + "\x00" + key)
	if !ok {
		return nil
	}
	if suppressed > 0 {
		r = r.Clone()
		r.AddAttrs(slog.Int("suppressed", suppressed))
	}
	return h.Handler.Handle(ctx, r)
}

func (h limitHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	for _, a := range attrs {
		if a.Key == libraryLoggerKey {
			h.name = a.Value.String()
		}
	}
	h.Handler = h.Handler.WithAttrs(attrs)
	return h
}

func (h limitHandler) WithGroup(name string) slog.Handler {
	h.Handler = h.Handler.WithGroup(name)
	return h
}

// zapCore leads zap's records, which kad-dht writes, into a slog handler.
type zapCore struct {
	h      slog.Handler
	levels *Levels
}

// Enabled says yes: go-log's level is in front of it, and go-log refuses to
// make a logger whose level is below what the core says it takes.
func (zapCore) Enabled(zapcore.Level) bool { return true }

func (c zapCore) With(fields []zapcore.Field) zapcore.Core {
	c.h = c.h.WithAttrs(slogAttrs(fields))
	return c
}

func (c zapCore) Check(e zapcore.Entry, ce *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if slogLevel(e.Level) >= c.levels.Get(libp2pSubsystem+"/"+e.LoggerName) {
		return ce.AddCore(e, c)
	}
	return ce
}

func (c zapCore) Write(e zapcore.Entry, fields []zapcore.Field) error {
	h := c.h.WithAttrs([]slog.Attr{slog.String(libraryLoggerKey, e.LoggerName)})
	r := slog.NewRecord(e.Time, slogLevel(e.Level), e.Message, e.Caller.PC)
	r.AddAttrs(slogAttrs(fields)...)
	return h.Handle(context.Background(), r)
}

// Sync does nothing: every record is written when it is handled.
func (c zapCore) Sync() error { return nil }

func slogLevel(l zapcore.Level) slog.Level {
	switch {
	case l < zapcore.InfoLevel:
		return slog.LevelDebug
	case l < zapcore.WarnLevel:
		return slog.LevelInfo
	case l < zapcore.ErrorLevel:
		return slog.LevelWarn
	}
	return slog.LevelError
}

func slogAttrs(fields []zapcore.Field) []slog.Attr {
	enc := zapcore.NewMapObjectEncoder()
	attrs := make([]slog.Attr, 0, len(fields))
	for _, f := range fields {
		f.AddTo(enc)
		if v, ok := enc.Fields[f.Key]; ok {
			attrs = append(attrs, slog.Any(f.Key, v))
		}
	}
	return attrs
}
