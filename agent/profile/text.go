package profile

import (
	"fmt"
	"io"
	"text/tabwriter"
	"time"
)

// WriteText writes the report for people.
func (r Report) WriteText(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	line := func(format string, args ...any) { _, _ = fmt.Fprintf(w, format+"\n", args...) } // Flush tells
	line("disk\t%s, %s", r.Disk, size(float64(r.SizeBytes)))
	line("watched\t%s from %s, by %s", seconds(r.Seconds), r.Start.Format(time.RFC3339), r.Tracker)
	if r.LostEpochs > 0 {
		line("left out\t%d epochs that the tracker could not vouch for", r.LostEpochs)
	}
	if r.Written != nil {
		line("written\t%s", r.Written)
	}
	line("to send\t%s", r.Changed)
	if c := r.Content; c.ZeroPercent != nil {
		compression := "nothing to compress"
		if c.Compression != nil {
			compression = fmt.Sprintf("compresses to 1/%.1f", *c.Compression)
		}
		line("content\t%s, %.0f %% of it zeros (%s sampled)", compression, *c.ZeroPercent, size(float64(c.SampledBytes)))
	}
	stored := ""
	if s := r.Storage.StoredBytesPerDay; s != nil {
		stored = fmt.Sprintf(", stored as %s", size(float64(*s)))
	}
	line("a day\t%s change between points%s", size(float64(r.Storage.ChangedBytesPerDay)), stored)
	if len(r.Intervals) > 0 {
		line("\nSENT ONCE IN\tCHANGES\tWRITTEN AGAIN")
		for _, i := range r.Intervals {
			again := "-"
			if i.RewrittenPercent != nil {
				again = fmt.Sprintf("%.0f %%", *i.RewrittenPercent)
			}
			line("%s\t%s\t%s", seconds(i.Seconds), perSecond(i.BytesPerSecond), again)
		}
	}
	line("\nBANDWIDTH\tUSED\tRPO WITH A POINT EVERY %s\tAT WORST", seconds(r.PointSeconds))
	for _, l := range r.Links {
		rpo, worst := "grows without end", "-"
		if l.RPOSeconds != nil {
			rpo, worst = seconds(*l.RPOSeconds), seconds(*l.RPOWorstSeconds)
		}
		line("%s\t%d %%\t%s\t%s", perSecond(l.BytesPerSecond), l.UsedPercent, rpo, worst)
	}
	return w.Flush()
}

// String shows a flow for people.
func (l Load) String() string {
	return fmt.Sprintf("%s, %s; for 95 %% of the time at most %s, at the peak %s", size(float64(l.Bytes)), perSecond(l.BytesPerSecond), perSecond(l.P95), perSecond(l.Peak))
}

func perSecond(n int64) string { return size(float64(n)) + "/s" }

func size(n float64) string {
	units := []string{"B", "kB", "MB", "GB", "TB", "PB"}
	i := 0
	for n >= 999.5 && i < len(units)-1 {
		n, i = n/1000, i+1
	}
	if i == 0 || n >= 99.95 {
		return fmt.Sprintf("%.0f %s", n, units[i])
	}
	return fmt.Sprintf("%.1f %s", n, units[i])
}

func seconds(s float64) string {
	d := time.Duration(s * float64(time.Second))
	if d >= 10*time.Second {
		return d.Round(time.Second).String()
	}
	return d.Round(100 * time.Millisecond).String()
}
