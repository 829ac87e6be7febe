package job

import (
	"encoding/json"
	"time"
)

// State of a job or of a task.
type State string

const (
	NotStarted State = "NotStarted"
	InProgress State = "InProgress"
	Succeeded  State = "Succeeded"
	Failed     State = "Failed"
	Cancelled  State = "Cancelled"
	Suspended  State = "Suspended" // waits for a person
	Cancelling State = "Cancelling"
)

// Ended tells whether the state is final.
func (s State) Ended() bool { return s == Succeeded || s == Failed || s == Cancelled }

// Scenario names what a job does, as clients see it (scenarioName).
type Scenario string

// Job is one asynchronous operation. Its tasks are all listed from the start.
type Job struct {
	ID           string // UUIDv7: sorts by creation
	Vault        string
	Scenario     Scenario
	FriendlyName string
	State        State
	Description  string // stateDescription; empty: derived from State
	ActivityID   string
	TargetType   string // targetInstanceType: ProtectionEntity, ProtectionProfile, Server, RecoveryPlan, Other
	TargetID     string // bare GUID
	TargetName   string
	// ResourcePath is the path below the vault of the resource the operation acted on, for operationresults. Removed tells
	// that the operation ends with that resource gone.
	ResourcePath string
	Removed      bool
	Plan         string          // name of the plan that Tasks follow
	Item         string          // the protected item it is about; empty for none
	Operation    string          // the item operation (dr.Operation) whose end it reports; empty for none
	Input        json.RawMessage // control.Request
	Work         json.RawMessage // what service/workflow remembers between tasks
	Tasks        []Task
	Errors       []Error
	Created      time.Time
	Started      time.Time
	Ended        time.Time
	Cancel       bool // a person asked for it
	Artifacts    []string
	// Idempotency is the request that made the job; the same request again finds it.
	Idempotency string
	// SettledEarly tells pollers that the operation counts as succeeded although the job waits for a person.
	SettledEarly bool
	// Superseded is the job that removes the item this one is about: what is left to do is pointless, and it ends Cancelled.
	Superseded string
	// UndoOf is the job whose failure this one undoes.
	UndoOf string
	// RecoveryPlan is the name of the recovery plan that the job is an operation of; empty for other jobs.
	RecoveryPlan string
	// Parent is the job of a recovery plan that this one is a machine's part of. Gate is the task before which it waits until
	// the parent opens the gate (empty: it does not wait).
	Parent string
	Gate   string
	// Internal jobs are housekeeping: they are not listed and vanish unless they fail.
	Internal bool
	Indexed  State `json:",omitempty"` // under which the job can be found; service/control keeps it
	Version  int64 `json:"-"`          // of the stored document
}

// Silent tells whether nobody needs to hear that the job has ended: housekeeping that met no trouble.
func (j *Job) Silent() bool {
	return j.Internal && (j.State == Succeeded || j.State == Cancelled)
}

// Cancelling tells whether the job is to stop where it is. What a person asks for does not stop one whose operation has taken
// effect.
func (j *Job) Cancelling() bool { return j.Superseded != "" || j.Cancel && !j.SettledEarly }

// Task returns the task with the id, or nil.
func (j *Job) Task(id string) *Task {
	for i := range j.Tasks {
		if j.Tasks[i].ID == id {
			return &j.Tasks[i]
		}
	}
	return nil
}

// Current returns the first task that has not succeeded and was not passed, or nil when there is none.
func (j *Job) Current() *Task {
	for i := range j.Tasks {
		if j.Tasks[i].State != Succeeded && !j.Tasks[i].Passed {
			return &j.Tasks[i]
		}
	}
	return nil
}

// Task is an idempotent part of a job.
type Task struct {
	ID           string // TaskID on the wire, such as FailoverTask; unique in the job
	Name         string // such as VmFailover
	FriendlyName string
	State        State
	Kind         string // a worker's kind (payload.go), or empty for a task of the control plane
	Attempt      int64  // times it was enqueued
	Token        int64  // fencing token of the taken result
	Output       json.RawMessage
	Checkpoint   json.RawMessage // what the control task remembers between runs
	Progress     Progress
	Started      time.Time
	Ended        time.Time
	RetryAt      time.Time
	Retries      int
	Skipped      bool   // succeeded because there was nothing to do
	Passed       bool   // failed, and the job goes on without it
	Description  string // stateDescription; empty: derived from State
	Site         string // route it was enqueued with
	Capability   string
	Stage        *Stage // its place in an operation on a recovery plan; nil for other tasks
}

// Progress of a task.
type Progress struct {
	DoneBytes  int64
	TotalBytes int64
	Note       string
}

// Error is what went wrong, for a person.
type Error struct {
	TaskID            string
	Code              string
	Message           string
	PossibleCauses    string
	RecommendedAction string
	Level             string // Error or Warning
	Created           time.Time
}
