package embedded_test

import (
	"context"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/lifeboat-dr/lifeboat/service/queue/embedded"
	"github.com/lifeboat-dr/lifeboat/service/queue/queuetest"
	"github.com/lifeboat-dr/lifeboat/service/queue/redisqueue"
)

func TestSuiteOnTheEmbeddedServer(t *testing.T) {
	const lease = 400 * time.Millisecond
	queuetest.Run(t, func(t *testing.T) queuetest.Harness {
		s := start(t)
		q := redisqueue.New(s.Client(), redisqueue.Options{Lease: lease})
		return queuetest.Harness{Workers: q, Control: q, Lease: lease, Flush: func(ctx context.Context) error { return s.Client().FlushAll(ctx).Err() }}
	})
}

func TestStrangersAreRefused(t *testing.T) {
	s := start(t)
	rdb := redis.NewClient(&redis.Options{Addr: s.Client().Options().Addr, DisableIdentity: true, Protocol: 2})
	defer func() { _ = rdb.Close() }()
	if err := rdb.Ping(t.Context()).Err(); err == nil {
		t.Fatal("the embedded server answered without its password")
	}
}

func start(t *testing.T) *embedded.Server {
	t.Helper()
	s, err := embedded.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return s
}
