package control

import (
	"context"
	"time"

	"github.com/lifeboat-dr/lifeboat/service/store"
)

// Basis is what an answer was made of: what was read for it, and the time as far as it shows. While it holds, the answer made
// anew would be the same but for the time at which it says that it was calculated.
type Basis struct {
	read        store.Basis
	from, until time.Time // on the wall's clock, which what is stored goes by; zero: the time does not show
	now         func() time.Time
}

type basisKey struct{}

// Note returns a context under which answers note what they are made of. That is so of Vault, Container and Item; what else is
// asked under the context may depend on more.
func (s *Service) Note(ctx context.Context) (context.Context, *Basis) {
	ctx, read := s.store.Note(ctx)
	b := &Basis{read: read, now: s.now}
	return context.WithValue(ctx, basisKey{}, b), b
}

// Holds is safe for concurrent use once the answer is made.
func (b *Basis) Holds(ctx context.Context) bool {
	if !b.until.IsZero() {
		if now := b.now().Round(0); now.Before(b.from) || !now.Before(b.until) {
			return false
		}
	}
	return b.read.Holds(ctx)
}

// shown notes that an answer shows how things are at a time, and will be until another.
func shown(ctx context.Context, from, until time.Time) {
	if b, ok := ctx.Value(basisKey{}).(*Basis); ok && (b.until.IsZero() || until.Before(b.until)) {
		b.from, b.until = from.Round(0), until.Round(0)
	}
}
