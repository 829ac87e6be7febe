package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-chi/chi/v5"

	"github.com/lifeboat-dr/lifeboat/service/store/sqlstore"
	"github.com/lifeboat-dr/lifeboat/service/store/storetest"
)

// race compares requests per second of lifeboatd and of a bare chi handler with the same TLS settings, in the same process, by the
// same clients, in slices of time that take turns.
func race(b *testing.B, w io.Writer, c *crowded) {
	fmt.Fprintf(w, "\n%-46s %10s %10s   ratio, goal >= %.1f\n", "requests per second", "lifeboatd", "bare chi", bareAtLeast)
	one := func(path string) func() string { return func() string { return path } }
	vault := one(c.vault + crowdVersion)
	for _, http2 := range []bool{true, false} {
		for _, encoding := range []string{"gzip", "identity"} {
			compare(b, w, c, "GET one item", http2, encoding, one(item(c)), true)
		}
	}
	for _, http2 := range []bool{true, false} {
		for _, encoding := range []string{"gzip", "identity"} {
			compare(b, w, c, "GET one vault", http2, encoding, vault, true)
		}
	}
	// What nobody asked for before has to be read and made first. No item comes twice here.
	var n atomic.Int64
	another := func() string {
		return fmt.Sprintf("%s/replicationProtectedItems/vm%06d%s", c.container, int(n.Add(1))%c.size, crowdVersion)
	}
	compare(b, w, c, "GET items, each another", true, "gzip", another, false)
	compare(b, w, c, "GET items, each another", false, "identity", another, false)
	if int(n.Load()) > c.size {
		b.Errorf("%d items were asked for, of %d", n.Load(), c.size)
	}
}

// racePostgres is the part of race that differs where other processes may write, so that the engine is asked at each request.
func racePostgres(b *testing.B, w io.Writer) {
	url := storetest.StartPostgres(b).URL
	c := crowdOn(b, aPage, func(string) (*sqlstore.Store, error) { return sqlstore.OpenPostgres(b.Context(), url) }, "--database", url)
	for _, http2 := range []bool{true, false} {
		compare(b, w, c, "GET one item, PostgreSQL", http2, "gzip", func() string { return item(c) }, false)
	}
	c.stop()
}

// compare prints one row; judged tells whether the goal is meant for it.
func compare(b *testing.B, w io.Writer, c *crowded, name string, http2 bool, encoding string, path func() string, judged bool) {
	b.Helper()
	version := "HTTP/1.1"
	if http2 {
		version = "HTTP/2"
	}
	ours, bare := duel(b, c, path, http2, encoding)
	ratios := make([]float64, len(ours))
	for i := range ours {
		ratios[i] = ours[i] / bare[i]
	}
	told := "beside the goal"
	if judged {
		told = verdict(middle(ratios) >= bareAtLeast)
	}
	fmt.Fprintf(w, "%-46s %10.0f %10.0f   %.2f %s\n", name+", "+version+", "+encoding, middle(ours), middle(bare), middle(ratios), told)
}

// duel returns the rates of each slice.
func duel(b *testing.B, c *crowded, path func() string, http2 bool, encoding string) (ours, bare []float64) {
	b.Helper()
	pem, err := os.ReadFile(filepath.Join(c.dir, "ca.pem"))
	if err != nil {
		b.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, ForceAttemptHTTP2: http2, MaxIdleConnsPerHost: manyAtOnce, DisableCompression: true}
	client := &http.Client{Transport: transport}
	defer transport.CloseIdleConnections()
	ask := func(origin, path string) (http.Header, []byte) {
		req, err := http.NewRequestWithContext(b.Context(), http.MethodGet, origin+path, nil)
		if err != nil {
			b.Error(err)
			return nil, nil
		}
		req.Header.Set("Authorization", "Bearer "+c.secret)
		req.Header.Set("Accept-Encoding", encoding)
		resp, err := client.Do(req)
		if err != nil {
			b.Error(err)
			return nil, nil
		}
		defer func() { _ = resp.Body.Close() }()
		body, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode != http.StatusOK {
			b.Errorf("GET %s: got %d %s, %v", path, resp.StatusCode, body, err)
		}
		return resp.Header, body
	}
	lifeboatd := "https://" + c.address
	first := path()
	header, body := ask(lifeboatd, first)
	router := chi.NewRouter()
	router.Get(strings.TrimSuffix(first, crowdVersion), func(w http.ResponseWriter, _ *http.Request) {
		for name, v := range header {
			w.Header()[name] = v
		}
		_, _ = w.Write(body)
	})
	srv := httptest.NewUnstartedServer(router)
	srv.EnableHTTP2 = true
	srv.TLS = &tls.Config{MinVersion: tls.VersionTLS12, ClientAuth: tls.RequestClientCert}
	srv.StartTLS()
	defer srv.Close()
	roots.AddCert(srv.Certificate())
	bareOf := func() string { return first }
	if _, again := ask(srv.URL, first); len(again) != len(body) {
		b.Fatalf("the bare handler sends %d bytes, lifeboatd %d", len(again), len(body))
	}
	rate := func(origin string, path func() string) float64 {
		ctx, cancel := context.WithTimeout(b.Context(), slice)
		defer cancel()
		var mu sync.Mutex
		var all int
		var clients sync.WaitGroup
		began := time.Now()
		for range manyAtOnce {
			clients.Go(func() {
				n := 0
				for ; ctx.Err() == nil && !b.Failed(); n++ {
					ask(origin, path())
				}
				mu.Lock()
				defer mu.Unlock()
				all += n
			})
		}
		clients.Wait()
		return float64(all) / time.Since(began).Seconds()
	}
	rate(lifeboatd, path)
	rate(srv.URL, bareOf)
	for n := range turns {
		if n%2 == 0 {
			ours = append(ours, rate(lifeboatd, path))
			bare = append(bare, rate(srv.URL, bareOf))
		} else {
			bare = append(bare, rate(srv.URL, bareOf))
			ours = append(ours, rate(lifeboatd, path))
		}
	}
	return ours, bare
}

// middle is the median of at least one number.
func middle(all []float64) float64 {
	sorted := slices.Sorted(slices.Values(all))
	n := len(sorted)
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}
