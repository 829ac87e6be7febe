package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
	"time"
)

// Goals of the API in a large vault.
const (
	slowerAtMost = 3.0 // p99 with many items, of that with one page
	bareAtLeast  = 0.5 // requests per second, of those of a handler that does nothing
	memoryAtMost = 512 << 20
	manyMachines = 100_000
	aPage        = 100
	manyAtOnce   = 8
	slice        = 500 * time.Millisecond
	turns        = 6
)

// BenchmarkAPI asks the same over HTTPS of a lifeboatd that protects one page of machines and of one that protects 100,000, in
// turns, and then races lifeboatd against a bare chi handler that returns the same bytes. It prints a report; make bench keeps it.
func BenchmarkAPI(b *testing.B) {
	w := os.Stdout // testing cuts what is longer than ten lines
	log := os.Stderr
	defer func() { os.Stderr = log }()
	var err error
	if os.Stderr, err = os.OpenFile(os.DevNull, os.O_WRONLY, 0); err != nil { // go test mixes the two
		b.Fatal(err)
	}
	small, large := crowd(b, aPage), crowd(b, manyMachines)
	runtime.GC()
	debug.FreeOSMemory()
	if err := os.WriteFile("/proc/self/clear_refs", []byte("5"), 0); err != nil {
		b.Fatal(err)
	}
	latencies(b, w, small, large)
	race(b, w, large)
	memory(b, w)
	racePostgres(b, w)
}

func verdict(met bool) string {
	if met {
		return "met"
	}
	return "MISSED"
}

// question is a GET of a crowded vault.
type question struct {
	name  string
	times int
	path  func(c *crowded) string
}

func filtered(path, filter string) string {
	return path + crowdVersion + "&$filter=" + url.QueryEscape(filter)
}

func item(c *crowded) string {
	return fmt.Sprintf("%s/replicationProtectedItems/vm%06d%s", c.container, c.size/2, crowdVersion)
}

func latencies(b *testing.B, w io.Writer, small, large *crowded) {
	last := map[*crowded]string{small: lastPage(b, small), large: lastPage(b, large)}
	since := time.Now().UTC().Add(-12 * time.Hour).Format(time.RFC3339)
	until := time.Now().UTC().Add(time.Hour).Format(time.RFC3339)
	questions := []question{
		{"first page of 100", 300, func(c *crowded) string { return c.vault + "/replicationProtectedItems" + crowdVersion }},
		{"last page of 100", 300, func(c *crowded) string { return last[c] }},
		{"get one item", 2000, item},
		{"jobs by state", 500, func(c *crowded) string { return filtered(c.vault+"/replicationJobs", "JobStatus eq 'Failed'") }},
		{"jobs by time", 500, func(c *crowded) string {
			return filtered(c.vault+"/replicationJobs", "StartTime eq '"+since+"' and EndTime eq '"+until+"'")
		}},
		{"the container", 500, func(c *crowded) string { return c.container + crowdVersion }},
	}
	fmt.Fprintf(w, "\n%-20s %10s %10s   %10s %10s   p99 ratio, goal <= %.1f\n", "milliseconds", "p50 100", "p99 100", "p50 100k", "p99 100k", slowerAtMost)
	for _, q := range questions {
		var took [2][]float64
		for n := range q.times {
			pair := []int{0, 1}
			if n%2 == 1 {
				slices.Reverse(pair)
			}
			for _, which := range pair {
				c := []*crowded{small, large}[which]
				began := time.Now()
				c.get(b, q.path(c))
				took[which] = append(took[which], float64(time.Since(began))/float64(time.Millisecond))
			}
		}
		at := func(which, percent int) float64 {
			slices.Sort(took[which])
			return took[which][len(took[which])*percent/100]
		}
		ratio := at(1, 99) / at(0, 99)
		fmt.Fprintf(w, "%-20s %10.2f %10.2f   %10.2f %10.2f   %.2f %s\n", q.name, at(0, 50), at(0, 99), at(1, 50), at(1, 99), ratio, verdict(ratio <= slowerAtMost))
	}
}

// get reads an answer that must be 200.
func (c *crowded) get(b *testing.B, path string) string {
	b.Helper()
	status, answer := c.call("GET", path, "", c.secret)
	if status != http.StatusOK {
		b.Fatalf("GET %s: got %d %s", path, status, answer)
	}
	return answer
}

// lastPage follows nextLinks to the end and returns the path of the last page.
func lastPage(b *testing.B, c *crowded) string {
	b.Helper()
	path := c.vault + "/replicationProtectedItems" + crowdVersion + "&$take=100"
	for {
		var page struct {
			Value    []struct{}
			NextLink string
		}
		if err := json.Unmarshal([]byte(c.get(b, path)), &page); err != nil {
			b.Fatal(err)
		}
		if page.NextLink == "" {
			if len(page.Value) != aPage {
				b.Fatalf("the last page has %d items", len(page.Value))
			}
			return path
		}
		path = strings.TrimPrefix(page.NextLink, "https://"+c.address)
	}
}

// memory tells what the process needed for both lifeboatd and their clients since they are filled.
func memory(b *testing.B, w io.Writer) {
	b.Helper()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		b.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(status), "VmHWM:")
	var peak int64
	if _, err := fmt.Sscan(rest, &peak); err != nil {
		b.Fatal(err)
	}
	peak <<= 10
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	fmt.Fprintf(w, "\nmemory: peak resident %d MiB (goal <= %d MiB, %s), heap in use at the end %d MiB; both lifeboatd and all clients are in this process\n",
		peak>>20, memoryAtMost>>20, verdict(peak <= memoryAtMost), m.HeapInuse>>20)
}
