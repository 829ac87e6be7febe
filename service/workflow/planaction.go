package workflow

import (
	"encoding/json"
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/lifeboat-dr/lifeboat/service/control"
	"github.com/lifeboat-dr/lifeboat/service/dr"
	"github.com/lifeboat-dr/lifeboat/service/job"
)

// asRefusal tells refusals, which are answers, from errors of the machinery, after which the step is tried again.
func asRefusal(err error) (*dr.Error, bool) {
	e, ok := errors.AsType[*dr.Error](err)
	return e, ok && e.Code != dr.CodeInternal
}

// manualAction suspends the job until a person resumes it.
func manualAction(r *run) (outcome, error) {
	if r.task.Stage.Action.Skip != "" {
		return skipped, nil
	}
	if r.task.Stage.Action.Resumed {
		return done, nil
	}
	r.task.State, r.job.State, r.dirtyJob = job.Suspended, job.Suspended, true
	return waiting, control.SaveEvent(r.tx, &dr.Event{Vault: r.job.Vault, Type: "JobStatus", Severity: dr.SeverityWarning, ObjectName: r.job.TargetName, ObjectID: r.job.TargetID, JobID: r.job.ID,
		Code:        dr.NamedGUID("event", string(r.job.Scenario), string(job.Suspended)),
		Description: r.job.FriendlyName + " of " + r.job.RecoveryPlan + " waits for a person: " + r.task.Stage.Action.Name}, r.now)
}

// siteOf is the site of the side that the action is for.
func siteOf(a *job.Action) string {
	if a.Primary {
		return dr.SiteHome
	}
	return dr.SiteRecovery
}

// capabilityOf is what somebody must have to do the action; empty when a person does it.
func capabilityOf(a *job.Action) string {
	switch {
	case a.Kind == job.StageWebhook:
		return job.CapabilityWebhook
	case a.Kind != job.StageScript:
		return ""
	case a.Runner != "":
		return job.At(job.CapabilityScript, strings.ToLower(a.Runner))
	}
	return job.CapabilityScript
}

func actionRoute(r *run) (string, string, error) {
	a := r.task.Stage.Action
	return siteOf(a), capabilityOf(a), nil
}

// actionLimit leaves a worker that keeps its own deadline time to say so.
func actionLimit(r *run) time.Duration { return r.task.Stage.Action.Timeout + time.Minute }

func scriptPayload(r *run) (any, error) {
	a := r.task.Stage.Action
	if a.Skip != "" {
		return nil, nil
	}
	c, err := planContext(r)
	return job.ScriptRun{Script: a.Script, Timeout: a.Timeout, Context: c}, err
}

func webhookPayload(r *run) (any, error) {
	a := r.task.Stage.Action
	if a.Skip != "" {
		return nil, nil
	}
	c, err := planContext(r)
	return job.WebhookCall{URL: a.URL, Timeout: a.Timeout, Context: c}, err
}

// recoveryPlanContext is what a script or webhook learns. The upper half is the field's RecoveryPlanContext, as its runbooks get it.
type recoveryPlanContext struct {
	RecoveryPlanName  string
	FailoverType      string               // Test, Planned or Unplanned
	FailoverDirection string               // PrimaryToSecondary or SecondaryToPrimary
	GroupID           string               `json:"GroupId"`
	VMMap             map[string]contextVM `json:"VmMap"`

	ActionName     string
	JobID          string `json:"JobId"`
	SubscriptionID string `json:"SubscriptionId"`
	ResourceGroup  string `json:"ResourceGroupName"`
	VaultName      string
}

// contextVM is a machine of the group.
type contextVM struct {
	SubscriptionID    string `json:"SubscriptionId"`
	ResourceGroupName string
	CloudServiceName  string    // always empty: there are none
	RoleName          string    // name of the machine at the other side
	RecoveryPointID   string    `json:"RecoveryPointId"`
	RecoveryPointTime time.Time `json:",omitzero"`
	SourceName        string
	IPAddress         string `json:",omitempty"` // where it answers, as far as known
}

// planContext describes the operation and the machines of the action's group.
func planContext(r *run) (json.RawMessage, error) {
	st, run := r.task.Stage, r.req.Plan.Run
	vault, err := control.LoadVaultKey(r.tx, r.job.Vault)
	if err != nil {
		return nil, err
	}
	c := recoveryPlanContext{RecoveryPlanName: r.job.RecoveryPlan, FailoverDirection: "PrimaryToSecondary", GroupID: strconv.Itoa(st.Group), VMMap: map[string]contextVM{},
		ActionName: st.Action.Name, JobID: r.job.ID, SubscriptionID: vault.Subscription, ResourceGroup: vault.ResourceGroup, VaultName: vault.Name,
		FailoverType: map[dr.Operation]string{dr.OpTestFailover: "Test", dr.OpPlannedFailover: "Planned", dr.OpUnplannedFailover: "Unplanned"}[run.Op]}
	if run.Direction == dr.RecoveryToPrimary {
		c.FailoverDirection = "SecondaryToPrimary"
	}
	for _, t := range r.job.Tasks {
		if t.Stage == nil || t.Stage.Group != st.Group {
			continue
		}
		for _, m := range t.Stage.Machines {
			vm, err := contextOf(r, m, vault)
			if err != nil {
				return nil, err
			}
			c.VMMap[m.GUID] = vm
		}
	}
	return json.Marshal(c)
}

func contextOf(r *run, m job.MachinePart, vault dr.VaultKey) (contextVM, error) {
	vm := contextVM{SubscriptionID: vault.Subscription, ResourceGroupName: vault.ResourceGroup, SourceName: m.Name, RoleName: m.Name}
	it, err := control.LoadItem(r.tx, dr.ItemID(m.Item))
	if dr.CodeOf(err) == dr.CodeNotFound {
		return vm, nil
	}
	if err != nil {
		return vm, err
	}
	vm.RoleName = it.TargetName
	instance, point := it.FailoverInstance, it.FailoverPoint
	if r.req.Plan.Run.Op == dr.OpTestFailover {
		instance, point, vm.RoleName = it.TestInstance, dr.PointRef{}, it.TargetName+"-test"
		if instance != nil {
			point = pointOf(instance)
		}
	}
	if instance != nil {
		vm.IPAddress = instance.Address
	}
	if p, ok, err := control.LoadPoint(r.tx, it.ID, point); err != nil {
		return vm, err
	} else if ok {
		vm.RecoveryPointID, vm.RecoveryPointTime = p.ID, p.Time
	}
	return vm, nil
}
