package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/lifeboat-dr/lifeboat/service/dr"
	"github.com/lifeboat-dr/lifeboat/service/job"
	"github.com/lifeboat-dr/lifeboat/service/store"
)

// Request is a job's input: what was asked for, resolved by the use case. Fields that an operation does not use are empty.
type Request struct {
	Point        dr.PointRef // chosen point; zero: by PointChoice
	PointChoice  PointChoice
	Shutdown     bool      // try to shut the source down first
	NoNetwork    bool      // start without an adapter
	Network      string    // ARM id of the network as sent
	Disks        []dr.Disk `json:",omitempty"` // to be added or removed; of a machine with a driver, their ids
	MasterTarget string    // replicator ID
	Datastore    string
	Policy       string // policy name of the next leg
	Comments     string
	Reason       string
	Plan         *PlanRequest `json:",omitempty"` // operation on a recovery plan
	Format       string       // of exported disk images
	Directory    string       // where they are written, at the worker
}

// PointChoice says which point a failover uses when none is named.
type PointChoice string

const (
	PointLatest        PointChoice = "Latest"          // whatever the source managed to send before it was fenced
	PointProcessed     PointChoice = "LatestProcessed" // the newest point known when the failover was asked for
	PointAppConsistent PointChoice = "LatestApplicationConsistent"
	// PointCrashConsistent is the newest point that was not quiesced for.
	PointCrashConsistent PointChoice = "LatestCrashConsistent"
)

// DecodeRequest reads a job's input.
func DecodeRequest(j *job.Job) (Request, error) {
	var r Request
	if len(j.Input) == 0 {
		return r, nil
	}
	err := json.Unmarshal(j.Input, &r)
	return r, err
}

// target is what a job is about.
type target struct {
	kind, id, name string // targetInstanceType, targetObjectId, targetObjectName
	path           string // below the vault
	removed        bool
}

func itemTarget(it *dr.Item) target {
	return target{kind: "ProtectionEntity", id: it.InternalID, name: it.FriendlyName, path: itemRef(it).itemPath()}
}

func (r Ref) fabricPath() string { return "replicationFabrics/" + r.Fabric }
func (r Ref) containerPath() string {
	return r.fabricPath() + "/replicationProtectionContainers/" + r.Container
}
func (r Ref) itemPath() string { return r.containerPath() + "/replicationProtectedItems/" + r.Name }

// newJob makes a job that has not started.
func newJob(ctx context.Context, vault, plan string, t target, now time.Time) *job.Job {
	p := job.PlanByName(plan)
	c := callerOf(ctx)
	j := &job.Job{ID: newID(), Vault: vault, Plan: plan, Scenario: p.Scenario, FriendlyName: p.FriendlyName, State: job.NotStarted, TargetType: t.kind, TargetID: t.id,
		TargetName: t.name, ResourcePath: t.path, Removed: t.removed, Tasks: p.Tasks(), Errors: []job.Error{}, Created: now, Started: now, Idempotency: c.RequestID}
	if c.RequestID != "" || c.CorrelationID != "" {
		j.ActivityID = fmt.Sprintf("%s ActivityId: %s", c.RequestID, c.CorrelationID)
	}
	return j
}

// NewItemJob makes a job about an item; service/workflow uses it for jobs nobody asked for.
func NewItemJob(it *dr.Item, plan string, op dr.Operation, r Request, now time.Time) (*job.Job, error) {
	j := newJob(context.Background(), it.Vault, plan, itemTarget(it), now)
	j.Item, j.Operation, j.State = string(it.ID), string(op), job.InProgress
	in, err := json.Marshal(r)
	j.Input = in
	return j, err
}

// saveDone saves a job whose work was done in this transaction, with its event.
func saveDone(tx store.Tx, j *job.Job, now time.Time) error {
	for i := range j.Tasks {
		t := &j.Tasks[i]
		t.State, t.Started, t.Ended = job.Succeeded, now, now
	}
	j.State, j.Ended = job.Succeeded, now
	if err := SaveJob(tx, j); err != nil {
		return err
	}
	return jobEvent(tx, j, nil, now)
}

// jobEvent writes how a job ended; it is nil when the job is about no item, or the item is gone.
func jobEvent(tx store.Tx, j *job.Job, it *dr.Item, now time.Time) error {
	if j.Silent() {
		return nil
	}
	e := &dr.Event{ID: newID(), Vault: j.Vault, Type: "JobStatus", Severity: dr.SeverityOK, ObjectName: j.TargetName, JobID: j.ID, Time: now,
		Code: dr.NamedGUID("event", string(j.Scenario), string(j.State)), Description: fmt.Sprintf("%s - %s", j.FriendlyName, j.State)}
	if it != nil {
		e.ObjectID, e.Fabric, e.Container, e.Provider = it.CorrelationID, it.Fabric, it.Container, dr.Project(it.State).Provider
	}
	switch j.State {
	case job.Failed:
		e.Severity = dr.SeverityCritical
	case job.Cancelled:
		e.Severity = dr.SeverityWarning
	}
	for _, f := range j.Errors {
		e.HealthErrors = append(e.HealthErrors, dr.HealthError{ID: dr.NamedGUID("health", j.ID, f.TaskID, f.Code), Code: f.Code, Level: f.Level, Category: dr.CategoryReplication,
			Message: f.Message, Summary: f.Message, PossibleCauses: f.PossibleCauses, RecommendedAction: f.RecommendedAction, Created: f.Created, Source: "Lifeboat", EntityID: j.TargetID})
	}
	return SaveEvent(tx, e, now)
}

// Settle tells the item that the job's operation has succeeded, before the job itself ends: what is left of it nobody waits for.
func Settle(tx store.Tx, j *job.Job, it *dr.Item, now time.Time) error {
	next, refusal := dr.Apply(it.State, dr.Signal{Kind: dr.Succeeded, Op: dr.Operation(j.Operation), Job: j.ID}, now)
	if refusal != nil {
		return refusal
	}
	it.State = next
	j.SettledEarly = true
	endScenario(it, j)
	return nil
}

// endScenario resets currentScenario; an open drill keeps it until its cleanup.
func endScenario(it *dr.Item, j *job.Job) {
	if it.CurrentScenario.JobID == j.ID && (it.State.TestFailover != dr.DrillOpen || dr.Operation(j.Operation) != dr.OpTestFailover) {
		it.CurrentScenario = dr.Scenario{}
	}
}

// EndJob ends a job: the item hears of it, the event is written, and a failed job whose plan has an undo starts it. It saves
// the job and the item.
func EndJob(tx store.Tx, j *job.Job, state job.State, now time.Time) error {
	j.State, j.Ended = state, now
	var about *dr.Item
	if j.Item != "" {
		it, err := LoadItem(tx, dr.ItemID(j.Item))
		switch {
		case dr.CodeOf(err) == dr.CodeNotFound: // removed by this job, or purged
		case err != nil:
			return err
		default:
			about = &it
			if err := endItemJob(tx, j, &it, now); err != nil {
				return err
			}
			if err := release(tx, j, &it, now); err != nil {
				return err
			}
		}
	}
	if j.RecoveryPlan != "" {
		if err := endPlanJob(tx, j, now); err != nil {
			return err
		}
	}
	if err := SaveJob(tx, j); err != nil {
		return err
	}
	return jobEvent(tx, j, about, now)
}

func endItemJob(tx store.Tx, j *job.Job, it *dr.Item, now time.Time) error {
	sig := dr.Signal{Kind: dr.Succeeded, Op: dr.Operation(j.Operation), Job: j.ID}
	pending := it.State.PendingJob == j.ID
	switch {
	case !pending:
		return nil
	case j.UndoOf != "":
		sig.Kind, sig.Halted = dr.Undone, it.Fenced
	case j.State != job.Succeeded:
		sig.Kind = dr.Failed
		if plan := job.PlanByName(j.Plan); plan.Undo != "" && started(j) {
			undo, err := NewItemJob(it, plan.Undo, sig.Op, Request{}, now)
			if err != nil {
				return err
			}
			undo.UndoOf, undo.Work, undo.Input = j.ID, j.Work, j.Input
			sig.Undo = undo.ID
			if err := SaveJob(tx, undo); err != nil {
				return err
			}
		}
	}
	next, refusal := dr.Apply(it.State, sig, now)
	if refusal != nil {
		return refusal
	}
	it.State = next
	endScenario(it, j)
	if sig.Undo != "" {
		it.CurrentScenario = dr.Scenario{Name: string(job.PlanByName(job.PlanByName(j.Plan).Undo).Scenario), JobID: sig.Undo, Started: now}
	}
	if sig.Kind == dr.Succeeded {
		switch sig.Op {
		case dr.OpTestCleanup:
			it.LastTestFailover = now
			it.CurrentScenario = dr.Scenario{}
		case dr.OpPlannedFailover, dr.OpUnplannedFailover:
			it.LastFailover = now
		}
	}
	if err := noticeFirstPoint(tx, it, now); err != nil {
		return err
	}
	return SaveItem(tx, it, now)
}

// release starts the job that gives back what an ended one holds.
func release(tx store.Tx, j *job.Job, it *dr.Item, now time.Time) error {
	plan := job.PlanByName(j.Plan)
	if plan.Release == "" || j.Tasks[0].Attempt == 0 {
		return nil
	}
	r, err := NewItemJob(it, plan.Release, "", Request{}, now)
	if err != nil {
		return err
	}
	r.Internal, r.Work, r.Input = true, j.Work, j.Input
	return SaveJob(tx, r)
}

// started tells whether the job got further than its checks.
func started(j *job.Job) bool {
	for i, t := range j.Tasks {
		if i > 0 && t.State != job.NotStarted {
			return true
		}
	}
	return false
}

// repeated finds the job of an earlier request with the caller's request id, so that a request whose answer was lost may be
// sent again. Ids are remembered for a while only: some callers use one for a whole session.
func repeated(ctx context.Context, tx store.Tx, vault, op, path string, now time.Time) (string, error) {
	c := callerOf(ctx)
	if c.RequestID == "" {
		return "", nil
	}
	var done madeJob
	if _, err := tx.Get(KindRequest, requestKey(vault, op, path, c.RequestID), &done); err != nil {
		if errors.Is(err, store.ErrNotFound) {
			return "", nil
		}
		return "", err
	}
	if now.Sub(done.Time) > repeatWindow {
		return "", nil
	}
	return done.Job, nil
}

// repeatWindow is longer than any client retries one request.
const repeatWindow = 10 * time.Minute

type madeJob struct {
	Job  string
	Time time.Time
}

func requestKey(vault, op, path, request string) string { return fold(vault, op, path, request) }

func remember(ctx context.Context, tx store.Tx, op string, j *job.Job, now time.Time) error {
	c := callerOf(ctx)
	if c.RequestID == "" {
		return nil
	}
	_, err := tx.Put(KindRequest, requestKey(j.Vault, op, j.ResourcePath, c.RequestID), -1, madeJob{j.ID, now})
	return err
}

// atOnce runs a use case that is done in one transaction and records it as a job.
func (s *Service) atOnce(ctx context.Context, vault, plan string, t target, fn func(tx store.Tx, now time.Time) error) (string, error) {
	var id string
	err := s.store.Update(ctx, func(tx store.Tx) error {
		now := s.now()
		var err error
		if id, err = repeated(ctx, tx, vault, plan, t.path, now); err != nil || id != "" {
			return err
		}
		if err := fn(tx, now); err != nil {
			return err
		}
		j := newJob(ctx, vault, plan, t, now)
		id = j.ID
		if err := remember(ctx, tx, plan, j, now); err != nil {
			return err
		}
		return saveDone(tx, j, now)
	})
	if err != nil {
		return "", err
	}
	return id, nil
}
