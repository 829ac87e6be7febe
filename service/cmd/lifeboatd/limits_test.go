package main

import (
	"bufio"
	"compress/gzip"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"
)

// A full house keeps newcomers waiting, not out: who holds a place without using it loses it.
func TestAFullHouseEmptiesItself(t *testing.T) {
	srv := httptest.NewUnstartedServer(nil)
	srv.Config = limits{connections: 4, header: 2 * time.Second, patience: 2 * time.Second, idle: time.Second}.server(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			w.WriteHeader(http.StatusRequestTimeout)
		}
	}))
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	srv.Listener = boundedListener(srv.Listener, 4)
	srv.StartTLS()
	t.Cleanup(srv.Close)
	for range 4 {
		c, err := net.Dial("tcp", srv.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
	}
	res, err := srv.Client().Get(srv.URL)
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	if res.StatusCode != http.StatusOK {
		t.Errorf("got %s", res.Status)
	}
}

// dripping is a body of which a byte comes now and then.
type dripping struct{ left int }

func (d *dripping) Read(p []byte) (int, error) {
	if d.left--; d.left < 0 {
		return 0, io.EOF
	}
	time.Sleep(20 * time.Millisecond)
	p[0] = ' '
	return 1, nil
}

func TestABodyHasToComeInTime(t *testing.T) {
	for _, version := range []int{1, 2} {
		srv := httptest.NewUnstartedServer(nil)
		got := make(chan error, 1)
		srv.Config = limits{connections: 4, header: 2 * time.Second, patience: time.Second, idle: time.Second}.server(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			_, err := io.Copy(io.Discard, r.Body)
			got <- err
		}))
		srv.EnableHTTP2 = version == 2
		srv.StartTLS()
		for _, test := range []struct {
			name string
			body io.Reader
			slow bool
		}{
			{"one that is there", strings.NewReader("{}"), false},
			{"one that drips but ends", &dripping{left: 3}, false},
			{"one that drips for ever", &dripping{left: 1 << 30}, true},
		} {
			req, err := http.NewRequestWithContext(t.Context(), "PUT", srv.URL, io.NopCloser(test.body))
			if err != nil {
				t.Fatal(err)
			}
			if res, err := srv.Client().Do(req); err == nil {
				if res.ProtoMajor != version {
					t.Errorf("got HTTP/%d, want %d", res.ProtoMajor, version)
				}
				_ = res.Body.Close()
			}
			if err := <-got; (err != nil) != test.slow || err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("HTTP/%d, %s: the body ended with %v", version, test.name, err)
			}
		}
		srv.Close()
	}
}

// Agents and replicators wait for news in calls whose bodies were read: these may take as long as they want.
func TestWaitingAfterTheBodyIsNotCutShort(t *testing.T) {
	for _, version := range []int{1, 2} {
		t.Run(fmt.Sprint("HTTP ", version), func(t *testing.T) {
			t.Parallel()
			srv := httptest.NewUnstartedServer(nil)
			srv.Config = limits{connections: 4, header: time.Second, patience: time.Second, idle: time.Minute}.server(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				_, err := io.ReadAll(r.Body)
				select {
				case <-r.Context().Done():
					err = r.Context().Err()
				case <-time.After(1500 * time.Millisecond):
				}
				_, _ = fmt.Fprint(w, err)
			}))
			srv.EnableHTTP2 = version == 2
			srv.StartTLS()
			defer srv.Close()
			for range 2 { // the second time on the same connections
				var wg sync.WaitGroup
				for _, body := range []io.Reader{nil, strings.NewReader("{}"), io.NopCloser(strings.NewReader("of unknown length"))} {
					wg.Go(func() {
						res, err := srv.Client().Post(srv.URL, "application/json", body)
						if err != nil {
							t.Error(err)
							return
						}
						defer func() { _ = res.Body.Close() }()
						if raw, err := io.ReadAll(res.Body); string(raw) != "<nil>" {
							t.Errorf("the call ended with %s, %v", raw, err)
						}
					})
				}
				wg.Wait()
			}
		})
	}
}

func TestBothVersionsOfHTTPAreServed(t *testing.T) {
	d := start(t, t.TempDir(), "--no-replicator")
	for _, version := range []int{1, 2} {
		transport := d.client.Transport.(*http.Transport).Clone()
		transport.ForceAttemptHTTP2 = version == 2
		if version == 1 {
			transport.TLSClientConfig.NextProtos = []string{"http/1.1"}
		}
		d.client.Transport = transport
		req, err := http.NewRequestWithContext(t.Context(), "GET", "https://"+d.address+vaults+"?api-version=2025-01-01", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+d.token())
		res, err := d.client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		if res.ProtoMajor != version || res.StatusCode != http.StatusOK {
			t.Errorf("got %s %s, want HTTP/%d and 200", res.Proto, res.Status, version)
		}
		if req, err = http.NewRequestWithContext(t.Context(), "GET", "https://"+d.address+"/openapi.json", nil); err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Accept-Encoding", "gzip")
		if res, err = d.client.Do(req); err != nil {
			t.Fatal(err)
		}
		z, err := gzip.NewReader(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		var doc map[string]any
		if err := json.NewDecoder(z).Decode(&doc); err != nil || doc["openapi"] == nil || res.Header.Get("Content-Encoding") != "gzip" || res.Header.Get("Vary") != "Accept-Encoding" {
			t.Errorf("the document came as %v, %v", res.Header, err)
		}
		_ = res.Body.Close()
		transport.CloseIdleConnections()
	}
}

// A request whose body is still coming when the stop begins is answered; nothing new is taken.
func TestRequestsInFlightEndBeforeTheStop(t *testing.T) {
	d := start(t, t.TempDir(), "--no-replicator")
	d.client.CloseIdleConnections()
	cfg := d.client.Transport.(*http.Transport).TLSClientConfig.Clone()
	cfg.ServerName = "localhost"
	c, err := tls.Dial("tcp", d.address, cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	body := `{"location":"here","sku":{"name":"RS0"},"properties":{}}`
	in := bufio.NewReader(c)
	// With 100-continue we know that the handler waits for the body.
	_, err = fmt.Fprintf(c, "PUT %s/v1?api-version=2025-01-01 HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nAuthorization: Bearer %s\r\nContent-Length: %d\r\n\r\n", vaults, d.token(), len(body))
	if err != nil {
		t.Fatal(err)
	}
	if line, err := in.ReadString('\n'); err != nil || !strings.Contains(line, "100") {
		t.Fatalf("got %q, %v, want 100 Continue", line, err)
	}
	if _, err := in.ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	stopped := make(chan struct{})
	go func() { defer close(stopped); d.stop() }()
	tick, end := time.NewTicker(time.Millisecond), time.After(10*time.Second)
	defer tick.Stop()
	for {
		other, err := net.Dial("tcp", d.address)
		if err != nil {
			break
		}
		_ = other.Close()
		select { // only a caller can see it
		case <-tick.C:
		case <-end:
			t.Fatal("connections are still taken")
		}
	}
	if _, err := io.WriteString(c, body); err != nil {
		t.Fatal(err)
	}
	res, err := http.ReadResponse(in, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	if raw, err := io.ReadAll(res.Body); err != nil || res.StatusCode != http.StatusCreated {
		t.Errorf("got %s %s, %v, want the vault", res.Status, raw, err)
	}
	<-stopped
}

func TestProxiesAreNetworksOrAddresses(t *testing.T) {
	dir := t.TempDir()
	c, err := parse(t, "--data-dir", dir, "--trusted-proxy", "10.1.2.3/8,::1", "--trusted-proxy", "192.0.2.7")
	if err != nil || fmt.Sprint(c.proxies) != "[10.0.0.0/8 ::1/128 192.0.2.7/32]" {
		t.Errorf("got %v, %v", c.proxies, err)
	}
	for _, args := range [][]string{{"--trusted-proxy", "proxy.example"}, {"--max-connections", "0"}, {"--control-address", "agents.example"}, {"--reads-per-second", "-1"}} {
		if _, err := parse(t, append(args, "--data-dir", dir)...); err == nil {
			t.Errorf("%v was accepted", args)
		}
	}
}
