// Package record owns the numbered, checksummed records that the scenario guest writes: their text form, the chain that ties
// each to all before it, and the check that a file or a console shows an unbroken run of them. It reads and writes what it is
// given and opens nothing itself.
package record

import (
	"bufio"
	"crypto/md5"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
)

// Record is one line of the guest's file. Numbers start at 1 and are dense. Sum covers the sum of the record before it, so
// that equal sums mean equal histories: two machines that went on from the same recovery point differ from their first record.
type Record struct {
	N       int64
	Time    time.Time // UTC, milliseconds; the guest's own clock
	Machine string    // first 8 hex digits of the SMBIOS UUID of the machine that wrote it
	Sum     string    // MD5, hex
}

const timeLayout = "2006-01-02T15:04:05.000Z"

// Next returns the record after prev; the zero Record is before the first.
func Next(prev Record, t time.Time, machine string) Record {
	r := Record{N: prev.N + 1, Time: t.UTC().Truncate(time.Millisecond), Machine: machine}
	r.Sum = r.sumAfter(prev.Sum)
	return r
}

func (r Record) body() string {
	return fmt.Sprintf("%d %s %s", r.N, r.Time.UTC().Format(timeLayout), r.Machine)
}

func (r Record) sumAfter(prev string) string {
	return fmt.Sprintf("%x", md5.Sum([]byte(prev+" "+r.body())))
}

// Line returns the record as the file holds it, newline included.
func (r Record) Line() string { return r.body() + " " + r.Sum + "\n" }

// Parse reads a line as Line made it, newline left out. It does not check the sum.
func Parse(line string) (Record, error) {
	f := strings.Split(line, " ")
	if len(f) != 4 || len(f[3]) != 32 {
		return Record{}, fmt.Errorf("record line %.80q has not the form 'number time machine sum'", line)
	}
	n, err := strconv.ParseInt(f[0], 10, 64)
	if err != nil {
		return Record{}, fmt.Errorf("record number: %w", err)
	}
	t, err := time.Parse(timeLayout, f[1])
	if err != nil {
		return Record{}, fmt.Errorf("record %d: %w", n, err)
	}
	return Record{N: n, Time: t, Machine: f[2], Sum: f[3]}, nil
}

// Run is what an unbroken file of records holds.
type Run struct {
	First, Last Record
	Count       int64
	// Torn is the number of bytes after the last newline: an append that a power cut interrupted. They are no record.
	Torn int64
	// Sums holds the sum of record n at n-1.
	Sums []string
}

// BrokenError tells where a run of records breaks.
type BrokenError struct {
	At  int64 // the number that was expected
	Why string
}

func (e *BrokenError) Error() string { return fmt.Sprintf("records broken at %d: %s", e.At, e.Why) }

// Verify reads a whole file of records. It returns a *BrokenError, with the unbroken part before it, when a number is missing
// or a sum is wrong.
func Verify(r io.Reader) (Run, error) {
	var run Run
	br := bufio.NewReaderSize(r, 64<<10)
	for {
		line, err := br.ReadString('\n')
		if errors.Is(err, io.EOF) {
			run.Torn = int64(len(line))
			return run, nil
		}
		if err != nil {
			return run, fmt.Errorf("read records: %w", err)
		}
		rec, err := Parse(strings.TrimSuffix(line, "\n"))
		switch {
		case err != nil:
			return run, &BrokenError{At: run.Count + 1, Why: err.Error()}
		case rec.N != run.Count+1:
			return run, &BrokenError{At: run.Count + 1, Why: fmt.Sprintf("found number %d", rec.N)}
		case rec.sumAfter(run.Last.Sum) != rec.Sum:
			return run, &BrokenError{At: rec.N, Why: "wrong checksum"}
		}
		if run.Count == 0 {
			run.First = rec
		}
		run.Last = rec
		run.Count++
		run.Sums = append(run.Sums, rec.Sum)
	}
}

// Shown is a record as the console shows it: "REC number sum".
type Shown struct {
	N   int64
	Sum string
}

// Console returns the line that announces r on the console, newline left out.
func (r Record) Console() string { return fmt.Sprintf("REC %d %s", r.N, r.Sum) }

// ParseConsole finds a record in one line of a console; ok is false for other lines, also for one cut short.
func ParseConsole(line string) (s Shown, ok bool) {
	i := strings.Index(line, "REC ")
	if i < 0 {
		return Shown{}, false
	}
	f := strings.Fields(line[i:])
	if len(f) < 3 || len(f[2]) != 32 {
		return Shown{}, false
	}
	n, err := strconv.ParseInt(f[1], 10, 64)
	if err != nil || n < 1 {
		return Shown{}, false
	}
	return Shown{N: n, Sum: f[2]}, true
}
