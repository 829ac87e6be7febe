package storetest

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
)

// Postgres is a PostgreSQL server of a test.
type Postgres struct {
	URL string // of an empty database
	ctl func(args ...string)
}

// Crash stops the server at once, as a power cut would, and starts it again.
func (p *Postgres) Crash() {
	p.ctl("-m", "immediate", "-w", "restart")
}

// StartPostgres starts a server on a free loopback port and stops it with the test. The server refuses to run as root, so a root
// test runs it as the user postgres that its Debian package makes.
func StartPostgres(t testing.TB) *Postgres {
	t.Helper()
	programs, err := filepath.Glob("/usr/lib/postgresql/*/bin")
	if err != nil || len(programs) == 0 {
		t.Fatal("no PostgreSQL server here: apt-get install -y --no-install-recommends postgresql")
	}
	bin := programs[len(programs)-1]
	dir, err := os.MkdirTemp("", "lifeboat-pg-") //nolint:usetesting // the server's user cannot enter t.TempDir
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	credential := &syscall.SysProcAttr{}
	if os.Getuid() == 0 {
		u, err := user.Lookup("postgres")
		if err != nil {
			t.Fatal(err)
		}
		uid, err1 := strconv.Atoi(u.Uid)
		gid, err2 := strconv.Atoi(u.Gid)
		if err1 != nil || err2 != nil {
			t.Fatalf("user postgres has the ids %s and %s", u.Uid, u.Gid)
		}
		if err := os.Chown(dir, uid, gid); err != nil {
			t.Fatal(err)
		}
		credential.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	}
	run := func(name string, args ...string) {
		t.Helper()
		cmd := exec.Command(filepath.Join(bin, name), args...)
		cmd.Dir, cmd.SysProcAttr = dir, credential
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v: %s", name, err, out)
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	data, log := filepath.Join(dir, "data"), filepath.Join(dir, "log")
	run("initdb", "-D", data, "-A", "trust", "-U", "dr", "-N")
	options := fmt.Sprintf("-p %d -c listen_addresses=127.0.0.1 -c unix_socket_directories=%s", port, dir)
	ctl := func(args ...string) {
		t.Helper()
		run("pg_ctl", append([]string{"-D", data, "-l", log, "-t", "30", "-o", options}, args...)...)
	}
	ctl("-w", "start")
	t.Cleanup(func() { ctl("-m", "immediate", "-w", "stop") })
	return &Postgres{URL: fmt.Sprintf("postgres://dr@127.0.0.1:%d/postgres?sslmode=disable", port), ctl: ctl}
}
