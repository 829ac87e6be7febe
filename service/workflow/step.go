package workflow

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/lifeboat-dr/lifeboat/service/control"
	"github.com/lifeboat-dr/lifeboat/service/dr"
	"github.com/lifeboat-dr/lifeboat/service/job"
	"github.com/lifeboat-dr/lifeboat/service/store"
)

// work is what a job remembers between its tasks. It travels in Job.Work, and to the job that undoes it.
type work struct {
	Instance   *dr.Instance    // started, or to be started
	Old        *dr.Instance    // to be replaced or destroyed
	Point      dr.PointRef     // what the failover uses
	Generation int64           // to be opened
	Active     string          // SMBIOS UUID that was active before
	Network    string          // that the instance is attached to, for a driver
	CaptureID  string          // the last delta asked for
	Pin        string          // owner of the pin that holds the request's point
	Tried      map[string]bool // steps whose task was put into the queue at least once
	Item       *dr.Item        // the item as it was, for a job that outlives it
}

func (w *work) tried(step string) bool { return w.Tried[step] }

// run is one look at one task, inside a transaction.
type run struct {
	tx   store.Tx
	now  time.Time
	opt  Options
	job  *job.Job
	task *job.Task
	item *dr.Item // nil when the job is about none, or it is gone
	req  control.Request
	work work

	dirtyItem bool
	dirtyJob  bool
	gone      bool // item is work.Item: the store has it no more
}

// outcome of a control task: done, not yet, or failed.
type outcome struct {
	wait    bool
	skipped bool
	passed  bool // failed, and the recovery plan goes on after failures
	err     *dr.Error
}

var (
	done    = outcome{}
	waiting = outcome{wait: true}
	skipped = outcome{skipped: true}
)

func failed(code dr.Code, message, causes, action string) outcome {
	return outcome{err: &dr.Error{Code: code, Message: message, PossibleCauses: causes, RecommendedAction: action}}
}

// A step is what a plan's task does. Either control is set, or payload (with apply).
type step struct {
	// control runs in the transaction that saves its outcome. A waiting one is run again after every change of the store.
	control func(r *run) (outcome, error)
	// payload tells what the worker is to do; nil: there is nothing to do. It is asked again when the queue lost the task, so that
	// asking twice must be as good as once.
	payload func(r *run) (any, error)
	// route says where; nil: anywhere the bucket is reached.
	route func(r *run) (site, capability string, err error)
	// apply takes the worker's output. It runs once.
	apply func(r *run, output json.RawMessage) error
	// excuse turns a failure into a success; nil: it fails the job.
	excuse func(r *run, f job.Error)
	// patience bounds how long a task with an excuse may take.
	patience func(o Options) time.Duration
	// limit bounds how long a task without an excuse may take, waiting for a worker included; nil: it may wait for ever.
	limit func(r *run) time.Duration
}

type stepKey struct{ plan, id string }

// steps is filled by the files of the scenarios; a test checks it against job.Plans.
var steps = map[stepKey]step{}

func register(plan, id string, s step) step {
	k := stepKey{plan, id}
	if _, ok := steps[k]; ok {
		panic(fmt.Sprintf("workflow: two steps %s of plan %s", id, plan))
	}
	steps[k] = s
	return s
}

// step finds the code of the job's task.
func (r *run) step() (step, bool) {
	if r.task.Stage != nil {
		s, ok := stageSteps[r.task.Stage.Code()]
		return s, ok
	}
	s, ok := steps[stepKey{r.job.Plan, r.task.ID}]
	return s, ok
}

// change marks the item for saving.
func (r *run) change() { r.dirtyItem = true }

// waited tells how long the task has been running.
func (r *run) waited() time.Duration { return r.now.Sub(r.task.Started) }

func (r *run) machine() job.Machine {
	return job.Machine{VaultID: r.item.Vault, MachineID: string(r.item.ID)}
}

func newID() string { return uuid.Must(uuid.NewV7()).String() }

func ref(p dr.PointRef) job.PointRef {
	return job.PointRef{Generation: p.Generation, Sequence: p.Sequence}
}

func refOf(p job.PointRef) dr.PointRef {
	return dr.PointRef{Generation: p.Generation, Sequence: p.Sequence}
}

// decode reads a worker's output.
func decode[T any](output json.RawMessage) (T, error) {
	var v T
	if len(output) == 0 {
		return v, nil
	}
	err := json.Unmarshal(output, &v)
	return v, err
}

// note records something for the event log about the item.
func (r *run) note(code string, severity dr.Severity, text string) error {
	e := control.ItemEvent(r.item, code, severity, text)
	e.JobID = r.job.ID
	return control.SaveEvent(r.tx, &e, r.now)
}
