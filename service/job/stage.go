package job

import (
	"encoding/json"
	"time"
)

// Stage places a task in an operation on a recovery plan: either an action, or the machines of a group.
type Stage struct {
	Group     int    // place in the plan, from 1
	GroupKind string // Shutdown, Failover or Boot
	GroupName string // for people
	Kind      string // how far the stage takes its machines (dr.StageKind)
	Action    *Action
	Machines  []MachinePart
}

// Code of a stage's task in service/workflow.
const (
	StageMachines = "machines"
	StageScript   = "script"
	StageWebhook  = "webhook"
	StageManual   = "manual"
)

// Code names what does the task.
func (s *Stage) Code() string {
	if s.Action == nil {
		return StageMachines
	}
	return s.Action.Kind
}

// Action of a recovery plan, as it was when the operation began.
type Action struct {
	Kind         string // StageScript, StageWebhook or StageManual
	Name         string
	Script       string // path below the runner's directory
	Runner       string
	URL          string
	Instructions string
	Timeout      time.Duration
	Primary      bool   // at the primary side
	Skip         string // why it is not done; empty: it is
	Resumed      bool   // a person has resumed the job
	Observation  string // what they said
}

// MachinePart is what became of one machine in a stage.
type MachinePart struct {
	Item    string // protected item
	GUID    string // its GUID on the wire
	Name    string
	Job     string // the machine's own job; empty before it was made
	JobName string // what the job is, for people
	State   State
	// Skip is why nothing is done: AlreadyDone or NotAllowed; SkipReason says it in words.
	Skip, SkipReason string
	Started, Ended   time.Time
}

// ScriptRun runs a file below the runner's directory of scripts. Context goes to its standard input.
type ScriptRun struct {
	Script  string          `json:"script"`
	Timeout time.Duration   `json:"timeout"`
	Context json.RawMessage `json:"context"`
}

// ScriptRan tells how a script ended that succeeded.
type ScriptRan struct {
	Output    string `json:"output"` // its end, at most MaxActionOutput bytes
	Truncated bool   `json:"truncated,omitempty"`
	Runner    string `json:"runner"`
}

// WebhookCall posts Context to URL until it answers 2xx or the time is over.
type WebhookCall struct {
	URL     string          `json:"url"`
	Timeout time.Duration   `json:"timeout"`
	Context json.RawMessage `json:"context"`
}

// WebhookCalled tells the last answer.
type WebhookCalled struct {
	Status int    `json:"status"`
	Output string `json:"output"` // its body, at most MaxActionOutput bytes
	Tries  int    `json:"tries"`
}

// MaxActionOutput bounds what is kept of an action's output.
const MaxActionOutput = 64 << 10
