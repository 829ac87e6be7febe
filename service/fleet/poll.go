package fleet

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"time"
)

// pollEvery is how often a waiting caller's desired state is looked at without a hint: other processes' saves give none.
const pollEvery = time.Second

// longPoll calls look until it has news, then returns what look saw; after wait, or when the service drains, it returns the
// last look.
func longPoll[T any](ctx context.Context, s *Service, wait time.Duration, look func(context.Context) (T, bool, error)) (T, error) {
	// Subscribed before the first look: a save in between is then a hint, not lost.
	changed, unsubscribe := s.store.Subscribe(s.watched...)
	defer unsubscribe()
	end := time.NewTimer(wait)
	defer end.Stop()
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		got, news, err := look(ctx)
		if err != nil || news || wait <= 0 {
			return got, err
		}
		select {
		case <-changed:
		case <-tick.C:
		case <-end.C:
			return got, nil
		case <-s.draining:
			return got, nil
		case <-ctx.Done():
			return got, ctx.Err()
		}
	}
}

// revisionOf names content by its hash: positive, and the same for the same content in every process.
func revisionOf(v any) (int64, error) {
	raw, err := json.Marshal(v)
	if err != nil {
		return 0, fmt.Errorf("encode desired state: %w", err)
	}
	sum := sha256.Sum256(raw)
	return int64(binary.BigEndian.Uint64(sum[:])>>1) | 1, nil
}
