package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// asHorde makes the test binary hold the clients' ends of slow connections: both ends in one process would halve their number.
const asHorde = "LIFEBOATD_TEST_HORDE"

// horde is what the process that holds the clients' ends is told on its standard input. It lives until that ends.
type horde struct {
	Address, Token string
	CA             []byte // PEM
	Size           int
}

// hordeNews is what it tells: first when all connections are open, then when most have been closed from the other side.
type hordeNews struct {
	Faults []string // the first few
	Left   int      // connections that the other side did not close
}

const (
	hordeAge    = time.Minute // after which the process ends in any case
	cutOffAfter = 15 * time.Second
	faultsTold  = 5
)

// raiseFiles lets this process open as many files as it may, and returns the limit before and the number.
func raiseFiles() (old syscall.Rlimit, n int, err error) {
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &old); err != nil {
		return old, 0, err
	}
	l := old
	l.Cur = l.Max
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		return old, 0, err
	}
	return old, int(min(l.Cur, 1<<20)), nil
}

// beHorde is the process that holds the clients' ends.
func beHorde() {
	time.AfterFunc(hordeAge, func() { os.Exit(2) })
	var h horde
	in, out := json.NewDecoder(os.Stdin), json.NewEncoder(os.Stdout)
	if err := in.Decode(&h); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin) // its end matters, however it comes
		os.Exit(0)
	}()
	conns, faults, err := h.open()
	if err == nil {
		err = out.Encode(hordeNews{Faults: faults})
	}
	if err == nil {
		err = out.Encode(hordeNews{Left: survivors(conns, time.Now().Add(cutOffAfter))})
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	select {}
}

// staysLong tells whether a connection's sender is one whose body may take longer than a header.
func staysLong(i int) bool { return i%60 == 40 }

// open opens the connections: one of twenty goes through the handshake and then says too little.
func (h horde) open() (conns []net.Conn, faults []string, err error) {
	if _, _, err := raiseFiles(); err != nil {
		return nil, nil, err
	}
	cfg := &tls.Config{RootCAs: x509.NewCertPool(), ServerName: "localhost", NextProtos: []string{"http/1.1"}}
	cfg.RootCAs.AppendCertsFromPEM(h.CA)
	header := "PUT " + vaults + "/slow?api-version=2025-01-01 HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer " + h.Token + "\r\n"
	say := func(c net.Conn, what string) (net.Conn, error) { _, err := io.WriteString(c, what); return c, err }
	way := func(i int, c net.Conn) (net.Conn, error) {
		switch {
		case staysLong(i):
			return say(tls.Client(c, cfg), header+"Content-Length: 100000\r\n\r\n{")
		case i%60 == 20:
			return say(tls.Client(c, cfg), header)
		case i%60 == 0:
			s := tls.Client(c, cfg)
			return s, s.Handshake()
		case i%3 == 1:
			return say(c, "\x16\x03\x01\x02\x00\x01")
		case i%3 == 2:
			return say(c, "\x16")
		}
		return c, nil
	}
	conns = make([]net.Conn, h.Size)
	var mu sync.Mutex
	var wg sync.WaitGroup
	const dialers = 16
	for worker := range dialers {
		wg.Go(func() {
			for i := worker; i < h.Size; i += dialers {
				c, err := net.DialTimeout("tcp", h.Address, 10*time.Second)
				if err == nil {
					conns[i], err = way(i, c)
				}
				if err == nil {
					continue
				}
				mu.Lock()
				if len(faults) < faultsTold {
					faults = append(faults, fmt.Sprintf("connection %d: %v", i, err))
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return conns, faults, nil
}

// survivors counts the connections that the other side has not closed at the deadline.
func survivors(conns []net.Conn, deadline time.Time) (left int) {
	var mu sync.Mutex
	var wg sync.WaitGroup
	for i, c := range conns {
		if c == nil || staysLong(i) {
			continue
		}
		wg.Go(func() {
			_ = c.SetReadDeadline(deadline)
			if _, err := io.Copy(io.Discard, c); os.IsTimeout(err) {
				mu.Lock()
				left++
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return left
}

// loose starts the process, and returns what reads its news.
func (h horde) loose(t *testing.T) *json.Decoder {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self)
	cmd.Env = append(os.Environ(), asHorde+"=1")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = in.Close()
		_ = cmd.Wait() // it is killed with the test's context, so its status says nothing
	})
	if err := json.NewEncoder(in).Encode(h); err != nil {
		t.Fatal(err)
	}
	return json.NewDecoder(out)
}

// resident is this process's memory in bytes.
func resident(t *testing.T) int {
	t.Helper()
	raw, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		t.Fatal(err)
	}
	pages, err := strconv.Atoi(strings.Fields(string(raw))[1])
	if err != nil {
		t.Fatal(err)
	}
	return pages * os.Getpagesize()
}

// files is how many files this process has open.
func files(t *testing.T) int {
	t.Helper()
	all, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}

// Ten thousand connections that say nothing, or say it slowly, neither keep others out nor cost much, and are cut off in time.
func TestSlowConnectionsAreBorneAndCutOff(t *testing.T) {
	old, most, err := raiseFiles()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Setrlimit(syscall.RLIMIT_NOFILE, &old) })
	n := min(10_000, most-1000)
	d := start(t, t.TempDir(), "--no-replicator", "--max-connections", "10500")
	token := d.token()
	ca, err := os.ReadFile(filepath.Join(d.dir, "ca.pem"))
	if err != nil {
		t.Fatal(err)
	}
	d.client.CloseIdleConnections()
	runtime.GC()
	before, held, begin := resident(t), files(t), time.Now()

	news := horde{Address: d.address, Token: token, CA: ca, Size: n}.loose(t)
	var opened, ended hordeNews
	if err := news.Decode(&opened); err != nil || len(opened.Faults) > 0 {
		t.Fatalf("the connections: %v, %v", opened.Faults, err)
	}
	took := time.Since(begin)
	for range 5 {
		asked := time.Now()
		if status, answer := d.call("GET", vaults+"?api-version=2025-01-01", "", token); status != http.StatusOK || time.Since(asked) > 5*time.Second {
			t.Errorf("beside the slow ones: got %d %s after %v", status, answer, time.Since(asked))
		}
	}
	// None is cut off before its ten seconds are over, so that all are there at once unless this machine is very slow.
	if got := files(t) - held; time.Since(begin) < 9*time.Second && got < n {
		t.Errorf("%d connections are open at once, want %d", got, n)
	}
	grown := resident(t) - before
	t.Logf("%d connections in %v, %d MiB more memory", n, took, grown>>20)
	if grown > n*64<<10 {
		t.Errorf("%d connections cost %d MiB, want less than 64 KiB each", n, grown>>20)
	}
	if err := news.Decode(&ended); err != nil || ended.Left > 0 {
		t.Errorf("%d slow connections are still open, %v", ended.Left, err)
	}
}
