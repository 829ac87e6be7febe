package queuetest

import (
	"context"
	"net"
	"os/exec"
	"strconv"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// StartRedis starts a real redis-server on a free loopback port with a directory of its own and stops it with the test.
func StartRedis(t testing.TB) (address string) {
	t.Helper()
	bin, err := exec.LookPath("redis-server")
	if err != nil {
		t.Fatal("redis-server is needed: apt-get install redis-server")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(bin, "--port", strconv.Itoa(port), "--bind", "127.0.0.1", "--dir", t.TempDir(),
		"--appendonly", "yes", "--appendfsync", "everysec", "--save", "")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	exited := make(chan struct{})
	go func() { _ = cmd.Wait(); close(exited) }() // killed below, so its status says nothing
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may be gone already
		<-exited
	})
	address = net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	rdb := redis.NewClient(&redis.Options{Addr: address, DisableIdentity: true})
	defer func() { _ = rdb.Close() }() // only asked for life
	ctx, stop := context.WithTimeout(t.Context(), 15*time.Second)
	defer stop()
	for {
		if err = rdb.Ping(ctx).Err(); err == nil {
			return address
		}
		select {
		case <-exited:
			t.Fatal("redis-server ended before it answered")
		case <-ctx.Done():
			t.Fatalf("redis-server does not answer: %v", err)
		case <-time.After(10 * time.Millisecond):
		}
	}
}
