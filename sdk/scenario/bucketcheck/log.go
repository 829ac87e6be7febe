package bucketcheck

import (
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"time"
)

// Ref names a point of a machine.
type Ref struct {
	Generation int64 `json:"generation"`
	Sequence   int64 `json:"sequence"`
}

func (r Ref) String() string { return fmt.Sprintf("%d/%d", r.Generation, r.Sequence) }

// Entry is an entry of the point log.
type Entry struct {
	Kind       string     `json:"kind"` // open, point, closed, pruned
	Machine    string     `json:"machine"`
	Generation int64      `json:"generation"`
	Sequence   int64      `json:"sequence"`
	Stored     time.Time  `json:"stored"`
	Base       *Ref       `json:"base,omitempty"`
	Reason     string     `json:"reason,omitempty"`
	Pruned     *time.Time `json:"pruned,omitempty"`

	Session     string          `json:"session,omitempty"`
	Time        *time.Time      `json:"time,omitempty"`
	Consistency string          `json:"consistency,omitempty"`
	Group       string          `json:"group,omitempty"`
	Changed     int64           `json:"changed,omitempty"`
	Packed      int64           `json:"packed,omitempty"`
	Hardware    json.RawMessage `json:"hardware,omitempty"`
	Disks       []Disk          `json:"disks,omitempty"`
}

// Ref returns the entry's place.
func (e Entry) Ref() Ref { return Ref{e.Generation, e.Sequence} }

// Disk is a disk of a point.
type Disk struct {
	ID     string  `json:"id"`
	Size   int64   `json:"size"`
	OS     bool    `json:"os,omitempty"`
	Layers []Layer `json:"layers,omitempty"`
}

// Layer is one map layer, newest first in a disk's list.
type Layer struct {
	Generation int64  `json:"generation"`
	Map        string `json:"map"`
	Pages      int64  `json:"pages"`
	Blocks     int64  `json:"blocks"` // with data
	Entries    *Root  `json:"entries,omitempty"`
	Sums       *Root  `json:"sums,omitempty"`
	Packs      *Root  `json:"packs,omitempty"`
}

// Root refers to the top page of a tree; a tree without one is empty.
type Root struct {
	Offset  int64  `json:"offset"`
	Length  int64  `json:"length"`
	Ordinal uint32 `json:"ordinal"`
	Hash    string `json:"hash"` // hexadecimal
}

// Generation is the log of one generation.
type Generation struct {
	Number  int64
	Base    *Ref
	Floor   int64
	Entries []Entry // points and pruned points at or above the floor
	Closed  bool
	Reason  string
}

// Log is the whole log of a machine.
type Log struct {
	Machine     string
	Generations []Generation
}

// Points returns the points that live, oldest first.
func (l Log) Points() []Entry {
	var points []Entry
	for _, g := range l.Generations {
		for _, e := range g.Entries {
			if e.Kind == "point" {
				points = append(points, e)
			}
		}
	}
	return points
}

// Point returns the point at ref; ok is false when it is pruned or was never there.
func (l Log) Point(ref Ref) (Entry, bool) {
	for _, e := range l.Points() {
		if e.Ref() == ref {
			return e, true
		}
	}
	return Entry{}, false
}

// Machines lists the machines that have a point log.
func (v *Vault) Machines() ([]string, error) {
	dirs, err := names(filepath.Join(v.dir, "points"))
	var machines []string
	for _, m := range dirs {
		gens, gerr := v.generations(m)
		if err = errors.Join(err, gerr); len(gens) > 0 {
			machines = append(machines, m)
		}
	}
	return machines, err
}

// generations lists the generations of a machine's log. A local bucket keeps the directories of objects that are gone: what holds
// no entry is not there.
func (v *Vault) generations(machine string) ([]string, error) {
	dir := filepath.Join(v.dir, "points", machine)
	all, err := names(dir)
	var gens []string
	for _, g := range all {
		entries, eerr := names(filepath.Join(dir, g))
		if err = errors.Join(err, eerr); len(entries) > 0 {
			gens = append(gens, g)
		}
	}
	return gens, err
}

// ReadLog reads a machine's log and checks its rules: entries authenticate and say where they are, the log is dense from its
// floor, entry 0 opens it, nothing follows a closing entry, a generation is opened only after the one before was closed, a
// point's base is the point before it (or the generation's base), points do not go back in time.
func (v *Vault) ReadLog(machine string) (Log, error) {
	log := Log{Machine: machine}
	gens, err := v.generations(machine)
	if err != nil {
		return log, err
	}
	for i, name := range gens {
		number, err := strconv.ParseInt(name, 10, 64)
		if err != nil || name != fmt.Sprintf("%08d", number) || number < 1 {
			return log, broken("machine %s: generation named %q", machine, name)
		}
		if i > 0 {
			before := log.Generations[i-1]
			if number != before.Number+1 || !before.Closed {
				return log, broken("machine %s: generation %d opened while %d was not closed", machine, number, before.Number)
			}
		}
		g, err := v.readGeneration(machine, number)
		if err != nil {
			return log, err
		}
		if g.Base != nil {
			if _, ok := log.Point(*g.Base); !ok {
				return log, broken("machine %s: generation %d builds on point %s, which is not there", machine, number, *g.Base)
			}
		}
		log.Generations = append(log.Generations, g)
	}
	return log, nil
}

func (v *Vault) readGeneration(machine string, number int64) (Generation, error) {
	g := Generation{Number: number}
	dir := fmt.Sprintf("points/%s/%08d", machine, number)
	found, err := names(filepath.Join(v.dir, filepath.FromSlash(dir)))
	if err != nil {
		return g, err
	}
	floor := fmt.Sprintf("floors/%s/%08d", machine, number)
	if body, err := v.record("FLOR", floor); err == nil {
		var f map[string]any
		if err := json.Unmarshal(body, &f); err != nil {
			return g, broken("%s: %w", floor, err)
		}
		if n, ok := f["floor"].(float64); ok {
			g.Floor = int64(n)
		}
	} else if !isAbsent(err) {
		return g, err
	}
	next, newest := int64(0), g.Base
	for _, name := range found {
		seq, err := strconv.ParseInt(name, 10, 64)
		if err != nil || name != fmt.Sprintf("%012d", seq) {
			return g, broken("%s: entry named %q", dir, name)
		}
		if seq > 0 && seq < g.Floor {
			continue // deleted, as far as readers go
		}
		if seq > 0 && next == 1 && g.Floor > 1 {
			next, newest = g.Floor, nil
		}
		e, err := v.readEntry(dir+"/"+name, machine, number, seq)
		if err != nil {
			return g, err
		}
		switch {
		case seq != next:
			return g, broken("%s: entry %d is missing", dir, next)
		case g.Closed:
			return g, broken("%s: entry %d follows the closing one", dir, seq)
		case (seq == 0) != (e.Kind == "open"):
			return g, broken("%s: entry %d is of kind %s", dir, seq, e.Kind)
		}
		next++
		switch e.Kind {
		case "open":
			g.Base, newest = e.Base, e.Base
		case "closed":
			g.Closed, g.Reason = true, e.Reason
		case "point", "pruned":
			if newest != nil && e.Base != nil && *e.Base != *newest || (newest == nil && e.Base != nil && g.Floor <= 1) {
				return g, broken("%s: point %d builds on %s, want %v", dir, seq, e.Base, newest)
			}
			if n := len(g.Entries); n > 0 && e.Time.Before(*g.Entries[n-1].Time) {
				return g, broken("%s: point %d was captured before point %d", dir, seq, g.Entries[n-1].Sequence)
			}
			ref := e.Ref()
			newest = &ref
			g.Entries = append(g.Entries, e)
		default:
			return g, broken("%s: entry %d is of kind %q", dir, seq, e.Kind)
		}
	}
	if next == 0 {
		return g, broken("%s: the generation has no entry", dir)
	}
	return g, nil
}

func (v *Vault) readEntry(name, machine string, generation, sequence int64) (Entry, error) {
	var e Entry
	body, err := v.record("PONT", name)
	if err != nil {
		return e, err
	}
	if err := strict(body, &e); err != nil {
		return e, broken("%s: %w", name, err)
	}
	if e.Machine != machine || e.Generation != generation || e.Sequence != sequence {
		return e, broken("%s says machine %s, %s", name, e.Machine, e.Ref())
	}
	if e.Kind == "point" || e.Kind == "pruned" {
		if e.Time == nil || len(e.Disks) == 0 && e.Kind == "point" {
			return e, broken("%s: a point without time or disks", name)
		}
		for _, d := range e.Disks {
			if d.Size <= 0 || d.Size%512 != 0 || len(d.Layers) > 32 {
				return e, broken("%s: disk %s of %d bytes in %d layers", name, d.ID, d.Size, len(d.Layers))
			}
		}
	}
	return e, nil
}
