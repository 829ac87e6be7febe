package workflow

import (
	"fmt"
	"slices"
	"strings"

	"github.com/lifeboat-dr/lifeboat/service/control"
	"github.com/lifeboat-dr/lifeboat/service/dr"
	"github.com/lifeboat-dr/lifeboat/service/job"
)

// stageSteps is the code of the tasks that an operation on a recovery plan is made of, by job.Stage.Code.
var stageSteps = map[string]step{
	job.StageMachines: {control: machines},
	job.StageManual:   {control: manualAction},
	job.StageScript:   {payload: scriptPayload, route: actionRoute, limit: actionLimit},
	job.StageWebhook:  {payload: webhookPayload, route: actionRoute, limit: actionLimit},
}

func init() {
	for _, plan := range []string{job.PlanRecoveryTestFailover, job.PlanRecoveryTestCleanup, job.PlanRecoveryPlannedFailover, job.PlanRecoveryUnplannedFailover,
		job.PlanRecoveryCommit, job.PlanRecoveryCancel, job.PlanRecoveryReprotect} {
		register(plan, job.StepPreflight, step{control: planPreflight})
	}
}

// planPreflight makes sure that every script has somebody to run it, before anything is touched.
func planPreflight(r *run) (outcome, error) {
	reps, err := control.LoadReplicators(r.tx)
	if err != nil {
		return done, err
	}
	var missing []string
	for _, t := range r.job.Tasks {
		if t.Stage == nil || t.Stage.Action == nil || t.Stage.Action.Skip != "" {
			continue
		}
		a := t.Stage.Action
		if capability, site := capabilityOf(a), siteOf(a); capability != "" && !slices.ContainsFunc(reps, func(rep dr.Replicator) bool {
			return rep.Site == site && rep.Serves(capability) && r.alive(rep)
		}) {
			missing = append(missing, fmt.Sprintf("%s of %s (%s at the %s site)", a.Name, t.Stage.GroupName, strings.ReplaceAll(capability, "@", " "), site))
		}
	}
	if len(missing) > 0 {
		return failed(dr.CodeConflict, "nobody can do these actions: "+strings.Join(missing, ", "), "the runner is not connected, has another name, or stands at the other site",
			"start a replicator there with that runner name and a directory of scripts, then restart the job"), nil
	}
	return done, nil
}

// goesOn tells whether the job is an operation on a recovery plan that goes on after the failure of its running task. What fails
// before the first stage has touched nothing, and ends it.
func (r *run) goesOn() bool {
	return r.task != nil && r.task.Stage != nil && r.req.Plan != nil && r.req.Plan.OnFailure == dr.ContinueOnFailure
}

// machines lets the machines of a stage do their part, some at a time. Each has a job of its own, which is the one that the
// operation makes when it is asked for on the machine alone; the stage only opens its gates.
func machines(r *run) (outcome, error) {
	parts := r.task.Stage.Machines
	working, broken := 0, 0
	for i := range parts {
		if err := r.look(&parts[i]); err != nil {
			return done, err
		}
		switch parts[i].State {
		case job.InProgress:
			working++
		case job.Failed:
			broken++
		}
	}
	stopping := broken > 0 && r.req.Plan.OnFailure == dr.StopOnFailure
	for i := range parts {
		if stopping || working >= max(1, r.req.Plan.ParallelStarts) {
			break
		}
		if parts[i].State != job.NotStarted {
			continue
		}
		if err := r.beginPart(&parts[i]); err != nil {
			return done, err
		}
		switch parts[i].State {
		case job.InProgress:
			working++
		case job.Failed:
			broken++
			stopping = r.req.Plan.OnFailure == dr.StopOnFailure
		}
	}
	if working > 0 || !stopping && slices.ContainsFunc(parts, func(p job.MachinePart) bool { return p.State == job.NotStarted }) {
		return waiting, nil
	}
	if broken == 0 {
		return outcome{skipped: !slices.ContainsFunc(parts, func(p job.MachinePart) bool { return p.Skip == "" })}, nil
	}
	var names []string
	for _, p := range parts {
		if p.State == job.Failed {
			names = append(names, p.Name)
		}
	}
	f := job.Error{TaskID: r.task.ID, Code: string(dr.CodeConflict), Message: fmt.Sprintf("%s: %s failed", r.task.Stage.GroupName, strings.Join(names, ", ")),
		PossibleCauses: "the machines' own jobs tell what went wrong", RecommendedAction: "remove the cause, then restart this job: machines that came up are left alone"}
	if r.goesOn() {
		r.complain(f)
		return outcome{passed: true}, nil
	}
	return outcome{err: &dr.Error{Code: dr.Code(f.Code), Message: f.Message, PossibleCauses: f.PossibleCauses, RecommendedAction: f.RecommendedAction}}, nil
}

// settlePart ends a machine's part in the stage.
func (r *run) settlePart(p *job.MachinePart, state job.State) {
	p.State, p.Ended, r.dirtyJob = state, r.now, true
}

// look learns how far a machine's job is that works on this stage.
func (r *run) look(p *job.MachinePart) error {
	if p.State != job.InProgress {
		return nil
	}
	j, err := control.LoadJob(r.tx, r.job.Vault, p.Job)
	switch {
	case dr.CodeOf(err) == dr.CodeNotFound:
		r.settlePart(p, job.Failed)
		return nil
	case err != nil:
		return err
	}
	t := j.Current()
	switch {
	case j.SettledEarly, j.State == job.Succeeded:
		r.settlePart(p, job.Succeeded)
	case j.State.Ended():
		r.settlePart(p, job.Failed)
		for _, e := range j.Errors {
			e.TaskID, e.Message = r.task.ID, p.Name+": "+e.Message
			r.complain(job.Error{TaskID: e.TaskID, Code: e.Code, Message: e.Message, PossibleCauses: e.PossibleCauses, RecommendedAction: e.RecommendedAction})
		}
		if j.State == job.Cancelled {
			r.complain(job.Error{TaskID: r.task.ID, Code: string(dr.CodeConflict), Message: p.Name + ": its job was cancelled", PossibleCauses: "a person cancelled the machine's job", RecommendedAction: "restart the job of the plan"})
		}
	case !j.Cancel && j.Gate != "" && t != nil && t.ID == j.Gate && t.State == job.NotStarted:
		r.settlePart(p, job.Succeeded)
	}
	return nil
}

// beginPart lets a machine begin its part: with a job that an earlier stage made, whose gate is opened, or with a new one.
func (r *run) beginPart(p *job.MachinePart) error {
	stage := dr.StageKind(r.task.Stage.Kind)
	p.Started, r.dirtyJob = r.now, true
	if before := r.earlier(p.Item); before != nil {
		p.Job, p.JobName = before.Job, before.JobName
		if before.State != job.Succeeded {
			r.settlePart(p, job.Cancelled) // it failed in an earlier stage, and the plan goes on
			return nil
		}
		if before.Job != "" {
			return r.openGate(p, stage)
		}
	}
	it, err := control.LoadItem(r.tx, dr.ItemID(p.Item))
	if err == nil && (stage == dr.StageShutdown || stage == dr.StageFailover) && !control.Divides(r.req.Plan, &it) {
		p.SkipReason = "its job does all of it when the machine's group comes"
		r.settlePart(p, job.Succeeded)
		return nil
	}
	if err == nil {
		var j *job.Job
		if j, err = control.BeginMachine(r.tx, r.job, r.req.Plan, &it, stage, r.now); err == nil {
			p.Job, p.JobName, p.State = j.ID, j.FriendlyName, job.InProgress
			return nil
		}
	}
	refusal, ok := asRefusal(err)
	if !ok {
		return err
	}
	r.settlePart(p, job.Failed)
	f := jobError(refusal)
	f.TaskID, f.Message = r.task.ID, p.Name+": "+f.Message
	r.complain(f)
	return nil
}

// openGate lets the machine's job go on up to where this stage ends.
func (r *run) openGate(p *job.MachinePart, stage dr.StageKind) error {
	j, err := control.LoadJob(r.tx, r.job.Vault, p.Job)
	if err != nil {
		if _, ok := asRefusal(err); ok {
			r.settlePart(p, job.Failed)
			return nil
		}
		return err
	}
	p.State = job.InProgress
	if j.State.Ended() {
		return nil // looked at the next time
	}
	j.Gate = control.GateOf(&j, stage)
	return control.SaveJob(r.tx, &j)
}

// earlier is the machine's part in the last stage before this one; nil when it had none.
func (r *run) earlier(item string) (found *job.MachinePart) {
	for i := range r.job.Tasks {
		t := &r.job.Tasks[i]
		if t == r.task {
			return found
		}
		if t.Stage == nil {
			continue
		}
		for k := range t.Stage.Machines {
			if m := &t.Stage.Machines[k]; m.Item == item {
				found = m
			}
		}
	}
	return found
}

// dropMachines asks the jobs of machines that have not come up to stop, when the operation on their recovery plan ends early. They
// put their machines back to where they were. Machines that came up stay.
func (r *run) dropMachines() error {
	for _, t := range r.job.Tasks {
		if t.Stage == nil {
			continue
		}
		for _, m := range t.Stage.Machines {
			j, ok, err := control.LoadOpenJob(r.tx, m.Job)
			if err != nil {
				return err
			}
			if !ok || j.Cancel || j.SettledEarly {
				continue
			}
			j.Cancel, j.State = true, job.Cancelling
			if err := control.SaveJob(r.tx, &j); err != nil {
				return err
			}
		}
	}
	return nil
}
