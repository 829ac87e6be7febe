package rig

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

// StartRedis starts a Redis server on a free port with its own directory and returns its address.
func (r *Rig) StartRedis(ctx context.Context) (string, error) {
	path, err := exec.LookPath("redis-server")
	if err != nil {
		return "", fmt.Errorf("apt-get install -y --no-install-recommends redis-server: %w", err)
	}
	port, err := FreePort()
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(r.Path("redis"), 0o755); err != nil {
		return "", err
	}
	_, err = r.Start("redis", path, []string{"--port", strconv.Itoa(port), "--bind", "127.0.0.1", "--dir", r.Path("redis"), "--appendonly", "yes", "--appendfsync", "everysec", "--save", ""}, nil)
	if err != nil {
		return "", err
	}
	r.redis = fmt.Sprintf("127.0.0.1:%d", port)
	return r.redis, Until(ctx, "Redis answers", func() (bool, error) {
		answer, err := r.askRedis(ctx, "PING")
		return err == nil && answer == "+PONG", nil
	})
}

// FlushRedis makes Redis forget everything.
func (r *Rig) FlushRedis(ctx context.Context) error {
	answer, err := r.askRedis(ctx, "FLUSHALL")
	if err == nil && answer != "+OK" {
		err = fmt.Errorf("FLUSHALL: %s", answer)
	}
	return err
}

func (r *Rig) askRedis(ctx context.Context, command string) (string, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", r.redis)
	if err != nil {
		return "", err
	}
	defer func() { _ = conn.Close() }()
	if err := conn.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return "", err
	}
	if _, err := fmt.Fprintf(conn, "%s\r\n", command); err != nil {
		return "", err
	}
	line, err := bufio.NewReader(conn).ReadString('\n')
	return strings.TrimSpace(line), err
}
