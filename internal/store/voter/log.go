package voter

import (
	"context"
	"log/slog"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// zapTo hands etcd's log on to slog. Its info is our debug: it tells a lot that
// nobody asks for.
func zapTo(log *slog.Logger) *zap.Logger {
	return zap.New(&slogCore{log: log.With("component", "etcd")})
}

// expected are warnings about what we do on purpose.
var expected = map[string]bool{
	"Running http and grpc server on single port. This is not recommended for production.": true,
	"request stats": true, // a slow disk or processor: nothing that anybody could do from it
	"simple token is not cryptographically signed": true, // etcd's own users are not used
}

type slogCore struct{ log *slog.Logger }

func slogLevel(l zapcore.Level) slog.Level {
	switch {
	case l >= zapcore.ErrorLevel:
		return slog.LevelError
	case l == zapcore.WarnLevel:
		return slog.LevelWarn
	case l == zapcore.InfoLevel:
		return slog.LevelDebug
	}
	return slog.LevelDebug - 4
}

func (c *slogCore) Enabled(l zapcore.Level) bool {
	return c.log.Enabled(context.TODO(), slogLevel(l)) // detached: zap has no context to hand on
}

func (c *slogCore) With(fs []zapcore.Field) zapcore.Core {
	return &slogCore{log: c.log.With(attrs(fs)...)}
}

func (c *slogCore) Check(e zapcore.Entry, ce *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if expected[e.Message] {
		e.Level = zapcore.InfoLevel
	}
	if c.Enabled(e.Level) {
		return ce.AddCore(e, c)
	}
	return ce
}

func (c *slogCore) Write(e zapcore.Entry, fs []zapcore.Field) error {
	c.log.Log(context.TODO(), slogLevel(e.Level), e.Message, attrs(fs)...) // detached: as above
	return nil
}

func (c *slogCore) Sync() error { return nil }

func attrs(fs []zapcore.Field) []any {
	enc := zapcore.NewMapObjectEncoder()
	out := make([]any, 0, len(fs))
	for _, f := range fs {
		f.AddTo(enc)
	}
	for _, f := range fs { // in etcd's order, not the map's
		if v, ok := enc.Fields[f.Key]; ok {
			out = append(out, slog.Any(f.Key, v))
			delete(enc.Fields, f.Key)
		}
	}
	return out
}
