package api

import (
	"encoding/json"
	"strconv"
	"time"

	"github.com/lifeboat-dr/lifeboat/api/oas"
	"github.com/lifeboat-dr/lifeboat/service/control"
	"github.com/lifeboat-dr/lifeboat/service/job"
)

// taskBodies are a job's tasks. Those of an operation on a recovery plan nest: a task for each group, in it its actions and its
// machines, each of which names the machine's own job.
func taskBodies(c *scope, v control.JobView) []oas.ASRTask {
	out := []oas.ASRTask{}
	tasks := v.Job.Tasks
	for i := 0; i < len(tasks); {
		if tasks[i].Stage == nil {
			out = append(out, taskBody(v.Job, tasks[i]))
			i++
			continue
		}
		end := i
		for end < len(tasks) && tasks[end].Stage != nil && tasks[end].Stage.Group == tasks[i].Stage.Group {
			end++
		}
		out = append(out, groupTask(c, v.Job, tasks[i:end]))
		i = end
	}
	return out
}

// groupTask is a group of a recovery plan.
func groupTask(c *scope, j job.Job, tasks []job.Task) oas.ASRTask {
	st := tasks[0].Stage
	d := oas.RecoveryPlanGroupTaskDetails{InstanceType: "RecoveryPlanGroupTaskDetails", Name: st.GroupName, GroupId: strconv.Itoa(st.Group), RpGroupType: st.GroupKind, ChildTasks: []oas.ASRTask{}}
	name := "RecoveryPlanGroup"
	if st.GroupKind == "Shutdown" {
		d.InstanceType, name = "RecoveryPlanShutdownGroupTaskDetails", "RecoveryPlanShutdownGroup"
	}
	out := plainTask("Group"+strconv.Itoa(st.Group)+"Task", name, st.GroupName, stateOf(tasks))
	for _, t := range tasks {
		if t.Stage.Action != nil {
			d.ChildTasks = append(d.ChildTasks, actionTask(j, t))
		}
		for _, m := range t.Stage.Machines {
			d.ChildTasks = append(d.ChildTasks, machineTask(t, m))
		}
		for _, e := range j.Errors {
			if e.TaskID == t.ID {
				out.Errors = append(out.Errors, jobError(j, e))
			}
		}
		if out.StartTime.IsZero() {
			out.StartTime = t.Started
		}
		if out.EndTime = t.Ended; t.Ended.IsZero() {
			out.EndTime = time.Time{}
		}
	}
	if out.State != string(job.Succeeded) && out.State != string(job.Failed) && out.State != string(job.Cancelled) {
		out.EndTime = time.Time{}
	}
	must(out.GroupTaskCustomDetails.FromRecoveryPlanGroupTaskDetails(d))
	return out
}

// stateOf is what a group's tasks come to: what failed shows, then what runs.
func stateOf(tasks []job.Task) job.State {
	begun, ended := false, true
	for _, t := range tasks {
		switch t.State {
		case job.Failed, job.Cancelled, job.Suspended:
			return t.State
		}
		begun = begun || t.State != job.NotStarted
		ended = ended && t.State == job.Succeeded
	}
	switch {
	case ended:
		return job.Succeeded
	case begun:
		return job.InProgress
	}
	return job.NotStarted
}

func plainTask(id, name, friendly string, state job.State) oas.ASRTask {
	out := oas.ASRTask{TaskId: id, Name: name, FriendlyName: friendly, State: string(state), StateDescription: string(state), TaskType: "TaskDetails", AllowedActions: []string{}, Errors: []oas.JobErrorDetails{}}
	if state == job.Succeeded {
		out.StateDescription = "Completed"
	}
	must(out.CustomDetails.FromPlainTaskDetails(oas.PlainTaskDetails{InstanceType: "TaskDetails"}))
	return out
}

func actionTask(j job.Job, t job.Task) oas.ASRTask {
	out, a := taskBody(j, t), t.Stage.Action
	out.AllowedActions = []string{}
	if t.State == job.Suspended {
		out.AllowedActions = []string{"Resume"}
	}
	switch a.Kind {
	case job.StageManual:
		out.TaskType = "ManualActionTaskDetails"
		must(out.CustomDetails.FromManualActionTaskDetails(oas.ManualActionTaskDetails{InstanceType: out.TaskType, Name: a.Name, Instructions: a.Instructions, Observation: a.Observation}))
	case job.StageScript:
		out.TaskType = "ScriptActionTaskDetails"
		var ran job.ScriptRan
		_ = json.Unmarshal(t.Output, &ran) // there is none before it ran
		must(out.CustomDetails.FromScriptActionTaskDetails(oas.ScriptActionTaskDetails{InstanceType: out.TaskType, Name: a.Name, Path: a.Script, Output: ran.Output, IsPrimarySideScript: ptr(a.Primary)}))
	default:
		out.TaskType = "AutomationRunbookTaskDetails"
		var called job.WebhookCalled
		_ = json.Unmarshal(t.Output, &called) // as above
		d := oas.AutomationRunbookTaskDetails{InstanceType: out.TaskType, Name: a.Name, RunbookId: a.URL, JobOutput: called.Output, IsPrimarySideScript: ptr(a.Primary)}
		if called.Status != 0 {
			d.JobId, d.JobOutput = control.TaskID(j.ID, t.ID), strconv.Itoa(called.Status)+" "+called.Output
		}
		must(out.CustomDetails.FromAutomationRunbookTaskDetails(d))
	}
	if a.Skip != "" {
		out.StateDescription = "Skipped: " + a.Skip
	}
	return out
}

func machineTask(t job.Task, m job.MachinePart) oas.ASRTask {
	out := plainTask(t.ID+"."+m.GUID, "RecoveryPlanMachine", m.Name, m.State)
	out.TaskType, out.StartTime, out.EndTime = "VirtualMachineTaskDetails", m.Started, m.Ended
	d := oas.VirtualMachineTaskDetails{InstanceType: out.TaskType, SkippedReason: m.Skip, SkippedReasonString: m.SkipReason}
	if m.Skip != "" {
		out.StateDescription = "Skipped"
	}
	if m.Job != "" {
		d.JobTask = oas.JobEntity{JobId: m.Job, JobFriendlyName: m.JobName, TargetObjectId: m.GUID, TargetObjectName: m.Name, TargetInstanceType: "ProtectionEntity"}
	}
	must(out.CustomDetails.FromVirtualMachineTaskDetails(d))
	return out
}
