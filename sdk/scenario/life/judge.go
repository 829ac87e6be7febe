package life

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/lifeboat-dr/lifeboat/sdk/scenario/rig"
)

// serials lists the serial logs of machines that Lifeboat started.
func (p *play) serials() (map[string]bool, error) {
	found := map[string]bool{}
	err := filepath.WalkDir(p.Rig.Dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && d.Name() == "serial.log" && !strings.HasPrefix(path, p.Plane.Datastore+"/") {
			found[path] = true
		}
		return nil
	})
	return found, err
}

// follow waits for a serial log that is not in before.
func (p *play) follow(ctx context.Context, before map[string]bool) (*rig.Console, error) {
	var path string
	err := rig.Until(ctx, "a machine was started from the point", func() (bool, error) {
		now, err := p.serials()
		for s := range now {
			if !before[s] {
				path = s
			}
		}
		return path != "", err
	})
	if err != nil {
		return nil, err
	}
	return rig.Follow(path), nil
}

// promised returns the last record that the console had shown before t: it was on disk then, so a point taken at t holds it.
func promised(shown []rig.Shown, t time.Time) rig.Shown {
	var last rig.Shown
	for _, s := range shown {
		if !s.Time.Before(t) {
			break
		}
		last = s
	}
	return last
}

// counted reads the number of records from the guest's announcement and its verdict, which must be good.
func counted(up, verdict rig.Line) (count int64, sum string, err error) {
	if !strings.Contains(verdict.Text, "RECORDS-OK") {
		return 0, "", fmt.Errorf("the machine came up with %q", verdict.Text)
	}
	for word := range strings.FieldsSeq(up.Text) {
		if n, ok := strings.CutPrefix(word, "records="); ok {
			count, err = strconv.ParseInt(n, 10, 64)
		}
		if s, ok := strings.CutPrefix(word, "last="); ok {
			sum = s
		}
	}
	return count, sum, err
}

// agree checks that a machine which came up with count records, the last with sum, has the history of the console, and at
// least the promised one.
func agree(shown []rig.Shown, count int64, sum string, promise rig.Shown) error {
	if count < promise.N {
		return fmt.Errorf("the machine came up with %d records; record %d was on disk before the point's instant", count, promise.N)
	}
	for _, s := range shown {
		if s.N == count && s.Sum != sum {
			return fmt.Errorf("record %d is %s, the source had written %s", count, sum, s.Sum)
		}
	}
	return nil
}

// judge checks what a machine says that came up from a point of the source, and returns its number of records.
func (p *play) judge(up, verdict rig.Line, point rig.Point) (int64, error) {
	count, sum, err := counted(up, verdict)
	if err != nil {
		return 0, err
	}
	shown := p.home.Console.Records()
	return count, agree(shown, count, sum, promised(shown, point.Time.Add(-time.Second)))
}

// failed tells why a job failed, if it did.
func (p *play) failed(ctx context.Context, name string) error {
	j, err := p.vault.Job(context.WithoutCancel(ctx), name)
	if err != nil {
		return err
	}
	return fmt.Errorf("job %s is %s: %s", j.Scenario, j.State, j.Errors)
}

// unbroken checks that the records a console has shown are dense.
func unbroken(c *rig.Console) error {
	shown := c.Records()
	for i := 1; i < len(shown); i++ {
		if shown[i].N != shown[i-1].N+1 {
			return fmt.Errorf("its console shows record %d after %d", shown[i].N, shown[i-1].N)
		}
	}
	return nil
}

// keep stores a job's screenshot and console as evidence.
func (p *play) keep(ctx context.Context, job, name string) error {
	if p.opt.Evidence == "" {
		return nil
	}
	if err := os.MkdirAll(p.opt.Evidence, 0o755); err != nil {
		return err
	}
	files, err := p.vault.Artifacts(ctx, job)
	if err != nil {
		return err
	}
	for file, content := range files {
		path := filepath.Join(p.opt.Evidence, name+"-"+file)
		if err := os.WriteFile(path, content, 0o644); err != nil {
			return err
		}
		if filepath.Ext(file) == ".png" {
			p.res.Screenshot = path
		} else if strings.Contains(file, "serial") {
			p.res.Serial = path
		}
	}
	return nil
}

// Round cuts a time to what people read.
func Round(d time.Duration) time.Duration {
	if d < time.Second {
		return d.Round(time.Millisecond)
	}
	return d.Round(10 * time.Millisecond)
}

// Size prints bytes for people.
func Size(n int64) string {
	switch {
	case n >= 1<<30:
		return fmt.Sprintf("%.2f GiB", float64(n)/(1<<30))
	case n >= 1<<20:
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	}
	return fmt.Sprintf("%.1f KiB", float64(n)/(1<<10))
}

// Excerpt picks lines of a console for people: how the machine came up, and the first records after it.
func Excerpt(console string, lines int) []string {
	var picked []string
	for line := range strings.Lines(console) {
		line = strings.TrimSpace(line)
		if strings.Contains(line, "LIFEBOAT-GUEST up") {
			picked = nil
		}
		if (len(picked) > 0 || strings.Contains(line, "LIFEBOAT-GUEST up")) && len(picked) < lines {
			picked = append(picked, line)
		}
	}
	return picked
}
