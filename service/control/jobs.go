package control

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/lifeboat-dr/lifeboat/service/dr"
	"github.com/lifeboat-dr/lifeboat/service/job"
	"github.com/lifeboat-dr/lifeboat/service/store"
)

// Jobs lists a vault's jobs, newest first.
func (s *Service) Jobs(ctx context.Context, vaultID string, f JobFilter, p Paging) (out Page[JobView], err error) {
	err = s.store.View(ctx, func(tx store.Tx) error {
		out, err = s.jobPage(tx, vaultID, f, p)
		return err
	})
	return out, err
}

func (s *Service) jobPage(tx store.Tx, vaultID string, f JobFilter, p Paging) (Page[JobView], error) {
	out := Page[JobView]{Items: []JobView{}}
	if f.Name != "" {
		return s.jobNamed(tx, vaultID, f, p)
	}
	seen, last := 0, ""
	err := walkJobs(tx, vaultID, f, p.After, p.limit()+1, func(key string, j *job.Job) (bool, error) {
		takes := f.takes(j)
		if seen == scanned || takes && len(out.Items) == p.limit() {
			out.Next = last
			return true, nil
		}
		seen, last = seen+1, key
		if takes {
			out.Items = append(out.Items, listedJob(j))
		}
		return false, nil
	})
	return out, err
}

func listedJob(j *job.Job) JobView {
	return JobView{Job: *j, AllowedActions: allowedActions(j), Description: describe(j.State, j.Description)}
}

// jobNamed is the list of the one job that a filter names.
func (s *Service) jobNamed(tx store.Tx, vaultID string, f JobFilter, p Paging) (Page[JobView], error) {
	out := Page[JobView]{Items: []JobView{}}
	j, err := LoadJob(tx, vaultID, f.Name)
	switch {
	case dr.CodeOf(err) == dr.CodeNotFound || p.After != "":
		return out, nil
	case err != nil:
		return out, err
	case f.takes(&j):
		out.Items = append(out.Items, listedJob(&j))
	}
	return out, nil
}

func (f JobFilter) takes(j *job.Job) bool {
	switch {
	case j.Internal,
		f.Name != "" && !strings.EqualFold(f.Name, j.ID),
		len(f.States) > 0 && !slices.ContainsFunc(f.States, func(s job.State) bool { return strings.EqualFold(string(s), string(j.State)) }),
		len(f.AffectedObjects) > 0 && !slices.ContainsFunc(f.AffectedObjects, func(a string) bool { return strings.EqualFold(a, j.TargetType) }),
		!f.From.IsZero() && j.Started.Before(f.From),
		!f.To.IsZero() && j.Started.After(f.To):
		return false
	}
	return f.FabricID == "" || strings.Contains(fold(j.ResourcePath)+"/", "replicationfabrics/"+fold(lastSegment(f.FabricID))+"/")
}

// Job returns one job.
func (s *Service) Job(ctx context.Context, vaultID, jobID string) (v JobView, err error) {
	err = s.store.View(ctx, func(tx store.Tx) error {
		j, err := LoadJob(tx, vaultID, jobID)
		if err != nil {
			return err
		}
		v, err = jobView(tx, j)
		return err
	})
	if err != nil {
		return v, err
	}
	s.liveProgress(ctx, &v)
	return v, nil
}

func jobView(tx store.Tx, j job.Job) (JobView, error) {
	v := JobView{Job: j, AllowedActions: allowedActions(&j), Description: describe(j.State, j.Description), Affected: map[string]string{}}
	if j.RecoveryPlan != "" {
		var err error
		v.Machines, err = machineViews(tx, &j)
		return v, err
	}
	if j.Item == "" {
		return v, nil
	}
	it, err := LoadItem(tx, dr.ItemID(j.Item))
	if dr.CodeOf(err) == dr.CodeNotFound {
		return v, nil
	}
	if err != nil {
		return v, err
	}
	v.Item = &it
	v.Affected["PrimaryVmId"], v.Affected["PrimaryVmName"] = string(it.ID), it.FriendlyName
	v.Affected["RecoveryVmName"], v.Affected["PrimaryFabricProviderId"] = it.TargetName, string(dr.FabricInMageRcm)
	tellStart(&v)
	ref := it.FailoverPoint
	if it.TestInstance != nil && dr.Operation(j.Operation) == dr.OpTestFailover {
		ref = dr.PointRef{Generation: it.TestInstance.Generation, Sequence: it.TestInstance.Sequence}
	}
	if p, ok, err := LoadPoint(tx, it.ID, ref); err != nil {
		return v, err
	} else if ok {
		v.Point = &p
	}
	return v, nil
}

// tellStart adds what starting a machine cost, once it is up: which accelerator ran it, how long the two halves of the start took
// and how much the repository was asked for until then.
func tellStart(v *JobView) {
	for _, t := range v.Job.Tasks {
		if t.Kind != job.KindInstanceStart || t.State != job.Succeeded {
			continue
		}
		var out job.InstanceStarted
		if json.Unmarshal(t.Output, &out) != nil {
			continue // what an older worker told; the view does without it
		}
		v.Affected["Accelerator"] = out.Accelerator
		v.Affected["StartMilliseconds"] = strconv.FormatInt(out.StartTook.Milliseconds(), 10)
		v.Affected["ProbeMilliseconds"] = strconv.FormatInt(out.ProbeTook.Milliseconds(), 10)
		v.Affected["RepositoryRequests"] = strconv.FormatInt(out.RepoRequests, 10)
		v.Affected["RepositoryBytes"] = strconv.FormatInt(out.RepoBytes, 10)
	}
}

// liveProgress adds what the worker of the running task told last. The queue may be away; the job is shown without it then.
func (s *Service) liveProgress(ctx context.Context, v *JobView) {
	done := 0
	for _, t := range v.Job.Tasks {
		if t.State == job.Succeeded {
			done++
		}
	}
	share := 0.0
	if t := v.Job.Current(); t != nil && t.Kind != "" && t.State == job.InProgress && s.progress != nil {
		id := TaskID(v.Job.ID, t.ID)
		if all, err := s.progress.Progress(ctx, []string{id}); err != nil {
			s.log.WarnContext(ctx, "progress was not read", "job", v.Job.ID, "err", err)
		} else if p, ok := all[id]; ok {
			t.Progress = job.Progress{DoneBytes: p.DoneBytes, TotalBytes: p.TotalBytes, Note: p.Note}
		}
		if t.Progress.TotalBytes > 0 {
			share = min(1, float64(t.Progress.DoneBytes)/float64(t.Progress.TotalBytes))
		}
	}
	if n := len(v.Job.Tasks); n > 0 {
		v.Percent = int(100 * (float64(done) + share) / float64(n))
	}
}

// TaskID names a job's task in the queue.
func TaskID(jobID, taskID string) string { return jobID + "." + taskID }

// SplitTaskID is the inverse of TaskID.
func SplitTaskID(id string) (jobID, taskID string, ok bool) { return strings.Cut(id, ".") }

func allowedActions(j *job.Job) []string {
	switch j.State {
	case job.NotStarted, job.InProgress:
		if j.Cancel {
			return []string{}
		}
		return []string{"Cancel"}
	case job.Suspended:
		return []string{"Cancel", "Resume"}
	case job.Failed:
		if j.Item != "" && j.Parent == "" || j.RecoveryPlan != "" {
			return []string{"Restart"}
		}
	}
	return []string{}
}

// describe is stateDescription.
func describe(s job.State, own string) string {
	if own != "" {
		return own
	}
	if s == job.Succeeded {
		return "Completed"
	}
	return string(s)
}

// CancelJob asks a job to stop. It returns the job's id.
func (s *Service) CancelJob(ctx context.Context, vaultID, jobID string) (string, error) {
	return jobID, s.changeJob(ctx, vaultID, jobID, func(_ store.Tx, j *job.Job, _ time.Time) error {
		if j.State.Ended() {
			return &dr.Error{Code: dr.CodeConflict, Message: fmt.Sprintf("job %s has ended (%s)", j.ID, j.State), PossibleCauses: "it ended before the request came", RecommendedAction: "nothing needs to be done"}
		}
		if j.UndoOf != "" || j.SettledEarly {
			return &dr.Error{Code: dr.CodeConflict, Message: fmt.Sprintf("job %s cannot be cancelled", j.ID), PossibleCauses: "it cleans up after another job, or its operation has taken effect",
				RecommendedAction: "wait until it ends"}
		}
		j.Cancel, j.State = true, job.Cancelling
		return nil
	})
}

// ResumeJob lets a suspended job go on. It returns the job's id.
func (s *Service) ResumeJob(ctx context.Context, vaultID, jobID, comments string) (string, error) {
	return jobID, s.changeJob(ctx, vaultID, jobID, func(_ store.Tx, j *job.Job, _ time.Time) error {
		if j.State != job.Suspended {
			return &dr.Error{Code: dr.CodeConflict, Message: fmt.Sprintf("job %s is not suspended but %s", j.ID, j.State), PossibleCauses: "it does not wait for a person",
				RecommendedAction: "nothing needs to be done; a test failover is ended by testFailoverCleanup"}
		}
		if t := j.Current(); t != nil {
			t.State = job.InProgress
			if t.Stage != nil && t.Stage.Action != nil {
				t.Stage.Action.Resumed, t.Stage.Action.Observation = true, comments
			}
			note, err := json.Marshal(map[string]string{"resumed": comments})
			if err != nil {
				return err
			}
			t.Checkpoint = note
		}
		j.State, j.Description = job.InProgress, ""
		return nil
	})
}

// RestartJob runs a failed job again: from the task that failed, or from the first one when the failure was undone. It returns
// the job's id.
func (s *Service) RestartJob(ctx context.Context, vaultID, jobID string) (string, error) {
	return jobID, s.changeJob(ctx, vaultID, jobID, restart)
}

func restart(tx store.Tx, j *job.Job, now time.Time) error {
	if j.RecoveryPlan != "" && j.State == job.Failed {
		if err := restartPlan(tx, j, now); err != nil {
			return err
		}
		j.State, j.Ended, j.Errors, j.Cancel, j.Description = job.InProgress, time.Time{}, []job.Error{}, false, ""
		return nil
	}
	if j.State != job.Failed || j.Item == "" || j.Parent != "" {
		return &dr.Error{Code: dr.CodeConflict, Message: fmt.Sprintf("job %s cannot be restarted: it is %s", j.ID, j.State), PossibleCauses: "only failed jobs on protected items and recovery plans can run again; a machine's part of a plan runs again with the plan",
			RecommendedAction: "start the operation anew"}
	}
	it, err := LoadItem(tx, dr.ItemID(j.Item))
	if err != nil {
		return err
	}
	if !j.SettledEarly && (j.Operation != "" || j.UndoOf != "") { // a job without an operation holds no place in the item's state
		if j.UndoOf != "" {
			if it.State.PendingJob != "" {
				return &dr.Error{Code: dr.CodeConflict, Message: fmt.Sprintf("job %s is running on this machine", it.State.PendingJob), PossibleCauses: "another operation has not ended", RecommendedAction: "wait for it"}
			}
			it.State.PendingJob = j.ID
		} else {
			next, refusal := dr.Apply(it.State, dr.Signal{Kind: dr.Requested, Op: dr.Operation(j.Operation), Job: j.ID, Driven: it.Driven}, now)
			if refusal != nil {
				return refusal
			}
			it.State = next
		}
		it.CurrentScenario = dr.Scenario{Name: string(j.Scenario), JobID: j.ID, Started: now}
		if err := SaveItem(tx, &it, now); err != nil {
			return err
		}
	}
	plan := job.PlanByName(j.Plan)
	undone := plan.Undo != "" || plan.Release != ""
	if undone {
		j.Work = nil
	}
	for i := range j.Tasks {
		t := &j.Tasks[i]
		if t.State == job.Succeeded && !undone {
			continue
		}
		// Attempt and Token go on growing: an old delivery of the task must not be taken for the new one.
		j.Tasks[i] = job.Task{ID: t.ID, Name: t.Name, FriendlyName: t.FriendlyName, Kind: t.Kind, State: job.NotStarted, Attempt: t.Attempt, Token: t.Token}
	}
	j.State, j.Ended, j.Errors, j.Cancel, j.Description = job.InProgress, time.Time{}, []job.Error{}, false, ""
	return nil
}

func (s *Service) changeJob(ctx context.Context, vaultID, jobID string, fn func(store.Tx, *job.Job, time.Time) error) error {
	return s.store.Update(ctx, func(tx store.Tx) error {
		j, err := LoadJob(tx, vaultID, jobID)
		if err != nil {
			return err
		}
		if err := fn(tx, &j, s.now()); err != nil {
			return err
		}
		return SaveJob(tx, &j)
	})
}

// OperationStatus is replicationOperationStatus/{jobID}.
func (s *Service) OperationStatus(ctx context.Context, vaultID, jobID string) (OperationStatus, error) {
	v, err := s.Job(ctx, vaultID, jobID)
	if err != nil {
		return OperationStatus{}, err
	}
	return statusOf(v), nil
}

func statusOf(v JobView) OperationStatus {
	j := v.Job
	st := OperationStatus{JobID: j.ID, Status: "InProgress", Started: j.Started, Percent: v.Percent}
	switch {
	case j.SettledEarly, j.State == job.Succeeded:
		st.Status, st.Ended, st.Percent = "Succeeded", j.Ended, 100
		if st.Ended.IsZero() {
			st.Ended = j.Started
		}
	case j.State == job.Cancelled:
		st.Status, st.Ended = "Canceled", j.Ended
	case j.State == job.Failed:
		st.Status, st.Ended = "Failed", j.Ended
	}
	if len(j.Errors) > 0 && st.Status != "Succeeded" {
		st.Error = &j.Errors[0]
	}
	return st
}

// OperationResult is operationresults/{jobID} of any resource.
func (s *Service) OperationResult(ctx context.Context, vaultID, jobID string) (OperationResult, error) {
	v, err := s.Job(ctx, vaultID, jobID)
	if err != nil {
		return OperationResult{}, err
	}
	return OperationResult{Status: statusOf(v), ResourcePath: v.Job.ResourcePath, Gone: v.Job.Removed, Scenario: v.Job.Scenario}, nil
}
