package ship

import (
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/lifeboat-dr/lifeboat/agent/quiesce"
	"github.com/lifeboat-dr/lifeboat/replicator/wire"
	"github.com/lifeboat-dr/lifeboat/sdk/fleet"
)

// Fault is what a person must know: what happened, why it may have, what to do.
type Fault = wire.Fault

// status is what lifeboatd hears of a protection.
type status struct {
	changed func()
	pace    *pace

	mu sync.Mutex // guards s
	s  fleet.ProtectionStatus
}

func (t *status) set(f func(*fleet.ProtectionStatus)) {
	t.mu.Lock()
	before := t.s
	f(&t.s)
	news := before.Phase != t.s.Phase || before.LastPoint != t.s.LastPoint || before.LastCaptureId != t.s.LastCaptureId ||
		before.Error != t.s.Error || before.Generation != t.s.Generation
	t.mu.Unlock()
	if news && t.changed != nil {
		t.changed()
	}
}

func (t *status) get() fleet.ProtectionStatus {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.s
	s.Disks = slices.Clone(s.Disks)
	t.pace.tell(&s)
	if !s.LastPointTime.IsZero() {
		s.LagMillis = max(0, time.Since(s.LastPointTime).Milliseconds())
	}
	return s
}

func (t *status) phase(generation int64, phase fleet.ProtectionStatusPhase) {
	t.set(func(s *fleet.ProtectionStatus) {
		s.Generation, s.Phase = generation, phase
		if phase == fleet.Waiting || phase == fleet.Fenced {
			s.Error = fleet.Error{}
		}
	})
}

// fail shows why nothing is shipped. A refusal for being fenced is a phase of its own.
func (t *status) fail(generation int64, err error) {
	t.set(func(s *fleet.ProtectionStatus) {
		s.Generation, s.Phase = generation, fleet.Failed
		if errors.Is(err, errFenced) {
			s.Phase = fleet.Fenced
		}
		s.Error = errorOf(err)
	})
}

// complain shows an error while replication goes on.
func (t *status) complain(err error) {
	t.set(func(s *fleet.ProtectionStatus) { s.Error = errorOf(err) })
}

func errorOf(err error) fleet.Error {
	if f, ok := errors.AsType[*Fault](err); ok {
		return fleet.Error{Code: f.Code, Message: f.Message, PossibleCauses: f.Causes, RecommendedAction: f.Action}
	}
	if s, ok := errors.AsType[*quiesce.ScriptError](err); ok {
		return fleet.Error{Code: "precondition_failed", Message: s.Error(), PossibleCauses: "The script ended with an error or took too long.",
			RecommendedAction: "Run it by hand on the machine; raise its timeout in the agent's configuration if it needs longer."}
	}
	if errors.Is(err, quiesce.ErrExpired) {
		return fleet.Error{Code: "precondition_failed", Message: err.Error(), PossibleCauses: "The disks are slow, or the machine is busy.",
			RecommendedAction: "Raise the policy's freeze limit."}
	}
	return fleet.Error{Code: "unavailable", Message: err.Error(),
		PossibleCauses: "The replicator cannot be reached, or a disk or the agent's state directory cannot be read or written.", RecommendedAction: "The agent tries again by itself; see its log."}
}

// progress counts one round of passes over all disks.
type progress struct {
	st    *status
	mu    sync.Mutex // guards the rest
	disks []fleet.DiskProgress
	total []int64
	last  time.Time
}

func newProgress(st *status, disks []*disk) *progress {
	p := &progress{st: st}
	for _, d := range disks {
		p.disks = append(p.disks, fleet.DiskProgress{DiskId: d.src.Id})
		p.total = append(p.total, 0)
	}
	return p
}

// begin starts a pass over n bytes of a disk.
func (p *progress) begin(disk int, n int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.total[disk], p.disks[disk].ProcessedBytes, p.disks[disk].ProgressPercent = n, 0, 0
}

func (p *progress) read(disk int, n int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.disks[disk].ProcessedBytes += n
	if time.Since(p.last) > 200*time.Millisecond {
		p.publish()
	}
}

func (p *progress) sent(disk int, n int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.disks[disk].TransferredBytes += n
}

// end publishes the counters as they are.
func (p *progress) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.publish()
}

func (p *progress) publish() {
	p.last = time.Now()
	var done, total, sent int64
	for i := range p.disks {
		d := &p.disks[i]
		d.ProgressPercent = percent(d.ProcessedBytes, p.total[i])
		done, total, sent = done+d.ProcessedBytes, total+p.total[i], sent+d.TransferredBytes
	}
	p.st.set(func(s *fleet.ProtectionStatus) {
		s.Disks = slices.Clone(p.disks)
		s.ProcessedBytes, s.TotalBytes, s.TransferredBytes, s.ProgressPercent = done, total, sent, percent(done, total)
	})
}

func percent(done, total int64) int {
	if total <= 0 {
		return 100
	}
	return int(min(100, done*100/total))
}
