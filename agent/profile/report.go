package profile

import (
	"math"
	"slices"
	"time"
)

// Report is what was seen and what follows from it. Bytes are bytes of the disk unless they are said to be stored. Numbers that
// cannot be told are left out: nil.
type Report struct {
	Disk      string    `json:"disk"`
	SizeBytes int64     `json:"sizeBytes"`
	Tracker   string    `json:"tracker"` // ebpf, tracefs or scan
	Start     time.Time `json:"start"`
	Seconds   float64   `json:"seconds"` // that are told of
	// LostEpochs were left out: the tracker could not vouch for them.
	LostEpochs int `json:"lostEpochs"`

	// Written is what was written by the kernel's count, discards included; nil for an image file.
	Written *Load `json:"written,omitempty"`
	// Changed is Written without what was written again within an epoch: what has to be sent.
	Changed      Load    `json:"changed"`
	EpochSeconds float64 `json:"epochSeconds"`

	Intervals []Interval `json:"intervals"` // shortest first
	Content   Content    `json:"content"`   // of what changed in epochs

	PointSeconds float64 `json:"pointSeconds"` // between recovery points
	Links        []Link  `json:"links"`
	Storage      Storage `json:"storage"`
}

// Load is a flow of bytes.
type Load struct {
	Bytes          int64 `json:"bytes"`
	BytesPerSecond int64 `json:"bytesPerSecond"`
	P95            int64 `json:"p95BytesPerSecond"` // in 95 % of the epochs no more
	Peak           int64 `json:"peakBytesPerSecond"`
}

// Interval tells how much is left to be sent, or kept, when it is done no more often than once an interval.
type Interval struct {
	Seconds        float64 `json:"seconds"`
	BytesPerSecond int64   `json:"bytesPerSecond"`
	// RewrittenPercent is the share of what was written that was written again in the same interval; nil where nobody counts
	// what is written.
	RewrittenPercent *float64 `json:"rewrittenPercent,omitempty"`
}

// Content is what samples of what changed look like.
type Content struct {
	SampledBytes int64    `json:"sampledBytes"`
	ZeroPercent  *float64 `json:"zeroPercent,omitempty"` // blocks of zeros, which are neither sent nor stored
	// Compression is how many bytes with content one stored byte holds, encryption and headers included.
	Compression *float64 `json:"compression,omitempty"`
}

// Link is a bandwidth between the agent and its replicator, and the RPO that it allows.
type Link struct {
	BytesPerSecond int64 `json:"bytesPerSecond"`
	UsedPercent    int64 `json:"usedPercent"` // on average
	// RPO is the age that the newest point reaches before the next one is durable: in half of the cases no more, and at most. Nil
	// when more changes than can be sent: then it grows without end.
	RPOSeconds      *float64 `json:"rpoSeconds,omitempty"`
	RPOWorstSeconds *float64 `json:"rpoWorstSeconds,omitempty"`
}

// Storage is what recovery points take a day, before retention deletes any.
type Storage struct {
	ChangedBytesPerDay int64  `json:"changedBytesPerDay"`
	StoredBytesPerDay  *int64 `json:"storedBytesPerDay,omitempty"`
}

// Report returns what has been seen so far. It reads samples when there was no time for a point yet.
func (p *Profile) Report() (Report, error) {
	r := Report{Disk: p.disk.Path, SizeBytes: p.disk.SizeBytes, Tracker: p.kind, Start: p.start.UTC(), LostEpochs: p.lost,
		EpochSeconds: p.cfg.Every.Seconds(), PointSeconds: p.cfg.PointEvery.Seconds(), Intervals: []Interval{}, Links: []Link{}}
	var all epoch
	for _, e := range p.epochs {
		all.add(e)
	}
	r.Seconds = all.span.Seconds()
	r.Changed = load(p.epochs, func(e epoch) int64 { return e.changed })
	if p.counted {
		l := load(p.epochs, func(e epoch) int64 { return e.written })
		r.Written = &l
	}
	r.Content = p.sent.content()
	for _, l := range p.levels {
		if s, complete := l.total(); complete {
			r.Intervals = append(r.Intervals, interval(l.length, s, p.counted))
		}
	}
	points, complete := p.points.total()
	kept := *p.kept
	if !complete {
		if err := kept.look(p.points.seen.extents(p.disk.SizeBytes)); err != nil {
			return r, err
		}
	}
	sent := 1.0 // of what changed
	if z := r.Content.ZeroPercent; z != nil {
		sent -= *z / 100
	}
	for _, b := range p.cfg.Bandwidths {
		r.Links = append(r.Links, link(p.epochs, b, p.cfg.PointEvery, sent))
	}
	r.Storage = storage(points, kept.content())
	return r, nil
}

func load(epochs []epoch, of func(epoch) int64) (l Load) {
	var span time.Duration
	var rates []int64
	for _, e := range epochs {
		l.Bytes, span = l.Bytes+of(e), span+e.span
		rates = append(rates, rate(of(e), e.span))
	}
	l.BytesPerSecond = rate(l.Bytes, span)
	if len(rates) > 0 {
		slices.Sort(rates)
		l.P95, l.Peak = rates[(len(rates)*95+99)/100-1], rates[len(rates)-1]
	}
	return l
}

func rate(bytes int64, span time.Duration) int64 {
	if span <= 0 {
		return 0
	}
	return int64(math.Round(float64(bytes) / span.Seconds()))
}

func interval(length time.Duration, s epoch, counted bool) Interval {
	i := Interval{Seconds: length.Seconds(), BytesPerSecond: rate(s.changed, s.span)}
	if counted && s.written > 0 {
		// Marks and counts are taken one after the other, and a mark may cover more than was written.
		again := max(0, 100*(1-float64(s.changed)/float64(s.written)))
		i.RewrittenPercent = &again
	}
	return i
}

func (s *sampler) content() Content {
	c := Content{SampledBytes: s.read}
	if s.read > 0 {
		zero := 100 * float64(s.zero) / float64(s.read)
		c.ZeroPercent = &zero
	}
	if s.stored > 0 {
		ratio := float64(s.packed) / float64(s.stored)
		c.Compression = &ratio
	}
	return c
}

// link reckons what a bandwidth would have done. Changes flow all the time; a point is taken every so often, and is durable when
// what was there at its instant has been sent. What waits and is written again meanwhile is counted twice, so that a link that is
// just about enough looks a little worse than it is.
func link(epochs []epoch, bandwidth int64, every time.Duration, sent float64) Link {
	l := Link{BytesPerSecond: bandwidth}
	var waiting, changed float64 // bytes
	var since, span time.Duration
	var rpo []float64
	point := func() {
		rpo = append(rpo, max(since, every).Seconds()+waiting/float64(bandwidth))
		since = 0
	}
	for _, e := range epochs {
		bytes := float64(e.changed) * sent
		changed, span, since = changed+bytes, span+e.span, since+e.span
		waiting = max(0, waiting+bytes-float64(bandwidth)*e.span.Seconds())
		if since >= every-e.span/2 {
			point()
		}
	}
	if len(rpo) == 0 && span > 0 {
		point()
	}
	if len(rpo) == 0 {
		return l
	}
	average := changed / span.Seconds()
	if l.UsedPercent = int64(math.Ceil(100 * average / float64(bandwidth))); average > float64(bandwidth) {
		return l
	}
	slices.Sort(rpo)
	l.RPOSeconds, l.RPOWorstSeconds = &rpo[len(rpo)/2], &rpo[len(rpo)-1]
	return l
}

func storage(points epoch, c Content) Storage {
	if points.span <= 0 {
		return Storage{}
	}
	days := points.span.Hours() / 24
	s := Storage{ChangedBytesPerDay: int64(float64(points.changed) / days)}
	switch {
	case c.Compression != nil:
		stored := int64(float64(points.changed) * (1 - *c.ZeroPercent/100) / *c.Compression / days)
		s.StoredBytesPerDay = &stored
	case points.changed == 0 || c.SampledBytes > 0: // nothing, or zeros
		s.StoredBytesPerDay = new(int64)
	}
	return s
}
