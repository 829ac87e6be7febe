package main

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
)

// asProgram makes the test binary be lifeboatd: what is killed must be a process of its own.
const asProgram = "LIFEBOATD_TEST_PROGRAM"

func TestMain(m *testing.M) {
	switch {
	case os.Getenv(asProgram) != "":
		main()
		return
	case os.Getenv(asHorde) != "":
		beHorde()
		return
	}
	os.Exit(m.Run())
}

// replica is a lifeboatd in a process of its own.
type replica struct {
	t       *testing.T
	dir     string
	address string
	args    []string
	log     logbook
	from    int // where the running program began to log
	cmd     *exec.Cmd
	ended   chan struct{}
}

func newReplica(t *testing.T, args ...string) *replica {
	t.Helper()
	r := &replica{t: t, dir: t.TempDir(), address: freeAddress(t)}
	r.args = append([]string{"--data-dir", r.dir, "--listen", r.address, "--no-replicator"}, args...)
	t.Cleanup(func() {
		r.kill()
		if text, _ := r.log.read(); t.Failed() {
			t.Logf("log of %s:\n%s", r.address, text[max(0, len(text)-8000):])
		}
	})
	return r
}

// start runs the program; it need not be up yet when start returns.
func (r *replica) start() {
	r.t.Helper()
	self, err := os.Executable()
	if err != nil {
		r.t.Fatal(err)
	}
	cmd := exec.Command(self, r.args...)
	cmd.Env = append(os.Environ(), asProgram+"=1")
	cmd.Stderr = &r.log
	r.from = r.log.size()
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { _ = cmd.Wait(); close(ended) }() // it is killed, so its status says nothing
	r.cmd, r.ended = cmd, ended
}

// kill ends the program as a power cut would.
func (r *replica) kill() {
	if r.cmd != nil {
		_ = r.cmd.Process.Kill() // it may have ended
		<-r.ended
		r.cmd = nil
	}
}

// insecure is for a server whose authority the test does not look at.
func insecure() *http.Transport {
	return &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, MaxIdleConnsPerHost: 16} //nolint:gosec // loopback, in a test
}

// up waits until the program says that it answers.
func (r *replica) up() {
	r.t.Helper()
	r.log.wait(r.t, r.from, `msg="lifeboatd is up"`, r.ended)
}

// balancer is a proxy that gives each request to the next replica. A replica that cannot be connected to is passed over; a
// connection that breaks under a request is a 502, as any proxy would answer, and the client tries again.
type balancer struct {
	web      *httptest.Server
	backends []string
	to       http.RoundTripper
	next     atomic.Int64

	mu     sync.Mutex // guards what follows
	served map[string]int
	broken int
	faults []string // answers of replicas that no client should get
}

func newBalancer(t *testing.T, backends ...string) *balancer {
	t.Helper()
	b := &balancer{backends: backends, to: insecure(), served: map[string]int{}}
	b.web = httptest.NewTLSServer(&httputil.ReverseProxy{Rewrite: func(p *httputil.ProxyRequest) {
		p.Out.URL.Scheme, p.Out.Host = "https", p.In.Host
	}, Transport: b, ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) {
		b.mu.Lock()
		b.broken++
		b.mu.Unlock()
		w.WriteHeader(http.StatusBadGateway)
	}})
	t.Cleanup(b.web.Close)
	return b
}

// RoundTrip implements http.RoundTripper.
func (b *balancer) RoundTrip(r *http.Request) (*http.Response, error) {
	var body []byte
	if r.Body != nil {
		var err error
		if body, err = io.ReadAll(r.Body); err != nil {
			return nil, err
		}
	}
	for range 2 * len(b.backends) {
		backend := b.backends[int(b.next.Add(1))%len(b.backends)]
		out := r.Clone(r.Context())
		out.URL.Host = backend
		out.Body, out.GetBody = http.NoBody, nil
		if len(body) > 0 {
			out.Body = io.NopCloser(bytes.NewReader(body))
		}
		res, err := b.to.RoundTrip(out)
		if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "dial" {
			continue
		}
		if err != nil {
			return nil, err
		}
		b.mu.Lock()
		b.served[backend]++
		if res.StatusCode >= 500 {
			b.faults = append(b.faults, fmt.Sprintf("%s %s: %d", r.Method, r.URL.Path, res.StatusCode))
		}
		b.mu.Unlock()
		return res, nil
	}
	return nil, errors.New("no replica can be connected to")
}

// report fails the test for what no client should have met.
func (b *balancer) report(t *testing.T) {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.faults) > 0 {
		t.Errorf("%d requests were answered with a fault: %s", len(b.faults), strings.Join(b.faults, "; "))
	}
	for _, backend := range b.backends {
		if b.served[backend] == 0 {
			t.Errorf("replica %s served nothing", backend)
		}
	}
	t.Logf("served %v, %d connections broke under a request", b.served, b.broken)
}
