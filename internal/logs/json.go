package logs

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"strings"
)

// newJSONHandler is slog's own, which escapes control characters, with values
// bounded.
func newJSONHandler(w io.Writer, limit int) slog.Handler {
	return slog.NewJSONHandler(w, &slog.HandlerOptions{
		Level: slog.Level(-1 << 30), // handler has decided already
		ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
			switch a.Value.Kind() {
			case slog.KindString:
				a.Value = clippedValue(clip(a.Value.String(), limit))
			case slog.KindDuration:
				// As text "1.5s", like the other format: a bare number has no unit.
				a.Value = slog.StringValue(a.Value.Duration().String())
			case slog.KindAny:
				a.Value = boundAny(a.Value.Any(), limit)
			case slog.KindBool, slog.KindFloat64, slog.KindInt64, slog.KindUint64, slog.KindTime,
				slog.KindGroup, slog.KindLogValuer:
			}
			if len(groups) == 0 && a.Key == slog.LevelKey {
				a.Value = slog.StringValue(strings.ToLower(a.Value.String()))
			}
			return a
		},
	})
}

// boundAny keeps structure where it is small and turns the rest into text.
func boundAny(v any, limit int) slog.Value {
	switch v := v.(type) {
	case nil:
		return slog.AnyValue(nil)
	case slog.Level:
		return slog.StringValue(v.String())
	case *slog.Source:
		return slog.AnyValue(v)
	case error, fmt.Stringer, []byte:
		return clippedValue(anyText(v, limit))
	}
	b, err := json.Marshal(v)
	if err != nil || len(b) > limit {
		return clippedValue(anyText(v, limit))
	}
	return slog.AnyValue(json.RawMessage(b))
}

func clippedValue(cut string, rest int) slog.Value {
	if rest > 0 {
		return slog.StringValue(fmt.Sprintf("%s…(+%d)", cut, rest))
	}
	return slog.StringValue(cut)
}
