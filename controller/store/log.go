package store

import (
	"context"
	"log/slog"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// zapTo makes the logger that etcd wants out of ours. etcd speaks much at its
// level info, and warns of what is meant to be so; both come a level lower here.
func zapTo(log *slog.Logger) *zap.Logger {
	return zap.New(core{log: log.With("component", "etcd")})
}

// servingEnded is what etcd calls an error for each listener at every stop.
const servingEnded = "setting up serving from embedded etcd failed."

// core passes zap's entries on.
type core struct {
	log *slog.Logger
}

// level of an entry of etcd's in our log.
func level(l zapcore.Level) slog.Level {
	switch {
	case l >= zapcore.ErrorLevel:
		return slog.LevelWarn
	default:
		return slog.LevelDebug
	}
}

func (c core) Enabled(l zapcore.Level) bool { return c.log.Enabled(context.Background(), level(l)) }

func (c core) With(fields []zapcore.Field) zapcore.Core {
	return core{log: c.log.With(values(fields)...)}
}

func (c core) Check(e zapcore.Entry, checked *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if c.Enabled(e.Level) {
		return checked.AddCore(e, c)
	}
	return checked
}

func (c core) Write(e zapcore.Entry, fields []zapcore.Field) error {
	l := level(e.Level)
	if e.Message == servingEnded {
		l = slog.LevelDebug
	}
	c.log.Log(context.Background(), l, e.Message, values(fields)...)
	return nil
}

func (c core) Sync() error { return nil }

// values are zap's fields in slog's form.
func values(fields []zapcore.Field) []any {
	encoder := zapcore.NewMapObjectEncoder()
	for _, f := range fields {
		f.AddTo(encoder)
	}
	all := make([]any, 0, len(encoder.Fields))
	for key, value := range encoder.Fields {
		all = append(all, slog.Any(key, value))
	}
	return all
}
