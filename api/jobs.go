package api

import (
	"fmt"
	"mime"
	"net/http"
	"net/url"
	"path"
	"strings"
	"time"

	"github.com/lifeboat-dr/lifeboat/api/oas"
	"github.com/lifeboat-dr/lifeboat/service/control"
	"github.com/lifeboat-dr/lifeboat/service/job"
)

// Scenario names whose jobs have details of their own (ref 10.2).
const (
	scenarioTestFailover      = "TestFailover"
	scenarioPlannedFailover   = "PlannedFailover"
	scenarioUnplannedFailover = "UnplannedFailover"
	scenarioApplyPoint        = "ApplyRecoveryPoint"
	scenarioReprotect         = "SwitchReplicationGroupProtection"
	scenarioExport            = "ExportJobs"
)

// jobSummary is a job in a list: without tasks, activityId and customDetails, as the field's service lists it.
func jobSummary(c *scope, v control.JobView) oas.Job {
	j := v.Job
	p := oas.JobProperties{ScenarioName: string(j.Scenario), FriendlyName: j.FriendlyName, State: string(j.State), StateDescription: v.Description,
		Tasks: []oas.ASRTask{}, Errors: []oas.JobErrorDetails{}, StartTime: j.Started, EndTime: j.Ended, AllowedActions: orEmpty(v.AllowedActions),
		TargetObjectId: j.TargetID, TargetObjectName: j.TargetName, TargetInstanceType: j.TargetType}
	if p.StartTime.IsZero() {
		p.StartTime = j.Created
	}
	if !j.State.Ended() {
		p.EndTime = time.Time{}
	}
	for _, e := range j.Errors {
		p.Errors = append(p.Errors, jobError(j, e))
	}
	return oas.Job{Id: c.job(j.ID), Name: j.ID, Type: typeJob, Properties: p}
}

func jobBody(c *scope, v control.JobView) oas.Job {
	out := jobSummary(c, v)
	out.Properties.ActivityId = v.Job.ActivityID
	out.Properties.Tasks = taskBodies(c, v)
	out.Properties.CustomDetails = jobDetails(c, v)
	return out
}

func jobError(j job.Job, e job.Error) oas.JobErrorDetails {
	level := e.Level
	if level == "" {
		level = "Error"
	}
	return oas.JobErrorDetails{TaskId: e.TaskID, ErrorLevel: level, CreationTime: e.Created, ServiceErrorDetails: oas.ServiceError{Code: e.Code, Message: e.Message,
		PossibleCauses: e.PossibleCauses, RecommendedAction: e.RecommendedAction, ActivityId: j.ActivityID}}
}

func taskBody(j job.Job, t job.Task) oas.ASRTask {
	out := oas.ASRTask{TaskId: t.ID, Name: t.Name, FriendlyName: t.FriendlyName, State: string(t.State), StateDescription: string(t.State), StartTime: t.Started, EndTime: t.Ended,
		TaskType: "TaskDetails", AllowedActions: []string{}, Errors: []oas.JobErrorDetails{}}
	switch {
	case t.Description != "":
		out.StateDescription = t.Description
	case t.State == job.Succeeded:
		out.StateDescription = "Completed"
	}
	must(out.CustomDetails.FromPlainTaskDetails(oas.PlainTaskDetails{InstanceType: "TaskDetails"}))
	for _, e := range j.Errors {
		if e.TaskID == t.ID {
			out.Errors = append(out.Errors, jobError(j, e))
		}
	}
	if p := t.Progress; p.TotalBytes > 0 || p.DoneBytes > 0 || p.Note != "" {
		out.Progress = oas.TaskProgress{DoneBytes: ptr(p.DoneBytes), TotalBytes: ptr(p.TotalBytes), Note: p.Note}
	}
	return out
}

func jobDetails(c *scope, v control.JobView) (out oas.JobDetails) {
	affected := v.Affected
	if affected == nil {
		affected = map[string]string{}
	}
	var items []oas.FailoverReplicationProtectedItemDetails
	if v.Item != nil {
		items = append(items, failoverItem(c, v))
	}
	for _, m := range v.Machines {
		if m.Item != nil {
			items = append(items, failoverItem(c, m))
		}
	}
	switch v.Job.Scenario {
	case scenarioTestFailover:
		status := "Active"
		if v.Job.State.Ended() {
			status = "Completed"
		}
		must(out.FromTestFailoverJobDetails(oas.TestFailoverJobDetails{InstanceType: "TestFailoverJobDetails", AffectedObjectDetails: affected,
			TestFailoverStatus: status, ProtectedItemDetails: orEmpty(items)}))
	case scenarioPlannedFailover, scenarioUnplannedFailover, scenarioApplyPoint:
		must(out.FromFailoverJobDetails(oas.FailoverJobDetails{InstanceType: "FailoverJobDetails", AffectedObjectDetails: affected, ProtectedItemDetails: orEmpty(items)}))
	case scenarioReprotect:
		d := oas.SwitchProtectionJobDetails{InstanceType: "SwitchProtectionJobDetails", AffectedObjectDetails: affected}
		if v.Item != nil {
			d.NewReplicationProtectedItemId = c.item(*v.Item)
		}
		must(out.FromSwitchProtectionJobDetails(d))
	case scenarioExport:
		d := oas.ExportJobDetails{InstanceType: "ExportJobDetails", AffectedObjectDetails: affected}
		if len(v.Job.Artifacts) > 0 {
			d.BlobUri = c.origin + c.job(url.PathEscape(v.Job.ID)) + "/artifacts/" + url.PathEscape(v.Job.Artifacts[0]) + c.version
		}
		must(out.FromExportJobDetails(d))
	default:
		must(out.FromAsrJobDetails(oas.AsrJobDetails{InstanceType: "AsrJobDetails", AffectedObjectDetails: affected}))
	}
	return out
}

func failoverItem(c *scope, v control.JobView) oas.FailoverReplicationProtectedItemDetails {
	i, j := v.Item, v.Job
	d := oas.FailoverReplicationProtectedItemDetails{Name: i.Name, FriendlyName: i.FriendlyName, NetworkConnectionStatus: "Connected"}
	if j.Scenario == scenarioTestFailover {
		d.TestVmName, d.TestVmFriendlyName, d.NetworkConnectionStatus = i.TargetName, i.TargetName, "Isolated"
	}
	if p := v.Point; p != nil {
		d.RecoveryPointId, d.RecoveryPointTime = c.point(c.item(*i), p.ID), p.Time
		d.DataLossInSeconds = ptr(max(0, j.Created.Sub(p.Time).Seconds()))
	}
	if up := answered(j); !up.IsZero() {
		d.RecoveryTimeInSeconds = ptr(up.Sub(j.Created).Seconds())
	}
	return d
}

// answered is when the started machine was found to be up: the end of the task that started it.
func answered(j job.Job) time.Time {
	for _, t := range j.Tasks {
		if (t.Kind == job.KindInstanceStart || t.Kind == job.KindHomeStart) && t.State == job.Succeeded {
			return t.Ended
		}
	}
	return time.Time{}
}

func (s *server) job(r *http.Request) func(c *scope) (any, error) {
	return shown(func(c *scope) (control.JobView, error) {
		return s.control.Job(r.Context(), c.vault.ID, c.names["jobName"])
	}, jobBody)
}

func (s *server) ReplicationJobsList(w http.ResponseWriter, r *http.Request, _, _, _ string, _ oas.ReplicationJobsListParams) {
	list(s, w, r, func(c *scope, p control.Paging) (control.Page[control.JobView], error) {
		in, err := jobFilter(r)
		if err != nil {
			return control.Page[control.JobView]{}, err
		}
		return s.control.Jobs(r.Context(), c.vault.ID, in, p)
	}, jobSummary)
}

func jobFilter(r *http.Request) (control.JobFilter, error) {
	f, err := filterOf(r, "startTime", "endTime", "jobStatus", "affectedObjectTypes", "fabricId", "jobName")
	if err != nil {
		return control.JobFilter{}, err
	}
	return narrowJobs(f)
}

func narrowJobs(f filter) (control.JobFilter, error) {
	var err error
	in := control.JobFilter{Name: f.one("jobName"), AffectedObjects: f["affectedobjecttypes"], FabricID: f.one("fabricId")}
	for _, word := range f["jobstatus"] {
		state, ok := jobState(word)
		if !ok {
			return in, badFilter(fmt.Sprintf("jobStatus %q is no state", printable(word)), "use NotStarted, InProgress, Succeeded, Failed, Cancelled, Suspended or Cancelling")
		}
		in.States = append(in.States, state)
	}
	if in.From, err = f.timeOf("startTime"); err != nil {
		return in, err
	}
	in.To, err = f.timeOf("endTime")
	return in, err
}

func jobState(word string) (job.State, bool) {
	for _, st := range []job.State{job.NotStarted, job.InProgress, job.Succeeded, job.Failed, job.Cancelled, job.Suspended, job.Cancelling, "Other"} {
		if strings.EqualFold(string(st), word) {
			return st, true
		}
	}
	return "", false
}

func (s *server) ReplicationJobsGet(w http.ResponseWriter, r *http.Request, _, _, _, _ string, _ oas.ReplicationJobsGetParams) {
	s.get(w, r, s.job(r))
}

// ReplicationJobsCancel sends no Azure-AsyncOperation: the status of a cancelled job is Canceled, which clients take for the
// failure of the request to cancel. The Location ends with the job, whatever became of it.
func (s *server) ReplicationJobsCancel(w http.ResponseWriter, r *http.Request, _, _, _, _ string, _ oas.ReplicationJobsCancelParams) {
	s.in(w, r, func(c *scope) error {
		id, err := s.control.CancelJob(r.Context(), c.vault.ID, c.names["jobName"])
		if err == nil {
			s.acceptLocation(w, r, c, id)
		}
		return err
	})
}

func (s *server) ReplicationJobsRestart(w http.ResponseWriter, r *http.Request, _, _, _, _ string, _ oas.ReplicationJobsRestartParams) {
	s.change(w, r, func(c *scope) (string, error) {
		return s.control.RestartJob(r.Context(), c.vault.ID, c.names["jobName"])
	}, s.job(r))
}

func (s *server) ReplicationJobsResume(w http.ResponseWriter, r *http.Request, _, _, _, _ string, _ oas.ReplicationJobsResumeParams) {
	s.change(w, r, func(c *scope) (string, error) {
		in, err := body[oas.ResumeJobParams](r)
		if err != nil {
			return "", err
		}
		return s.control.ResumeJob(r.Context(), c.vault.ID, c.names["jobName"], strings.TrimSpace(in.Properties.Comments))
	}, s.job(r))
}

// ReplicationJobsExport answers with the URL of the job that it starts: that job is the result.
func (s *server) ReplicationJobsExport(w http.ResponseWriter, r *http.Request, _, _, _ string, _ oas.ReplicationJobsExportParams) {
	s.in(w, r, func(c *scope) error {
		in, err := body[oas.JobQueryParameter](r)
		if err != nil {
			return err
		}
		f := filter{"starttime": words(in.StartTime), "endtime": words(in.EndTime), "jobname": words(in.JobName), "fabricid": words(in.FabricId)}
		f["jobstatus"], f["affectedobjecttypes"] = words(strings.Split(in.JobStatus, ",")...), words(strings.Split(in.AffectedObjectTypes, ",")...)
		narrowed, err := narrowJobs(f)
		if err != nil {
			return err
		}
		export := control.ExportInput{Filter: narrowed, Format: string(in.JobOutputType)}
		if in.TimezoneOffset != nil {
			export.Offset = time.Duration(*in.TimezoneOffset * float64(time.Minute))
		}
		id, err := s.control.ExportJobs(r.Context(), c.vault.ID, export)
		if err == nil {
			w.Header().Set("Azure-AsyncOperation", s.origin(r)+vaultOf(of(r).path)+"/replicationOperationStatus/"+url.PathEscape(id)+versionQuery(r))
			s.acceptAt(w, r, c, resourceOf(r)+"/"+url.PathEscape(id), id)
		}
		return err
	})
}

// words are the values that are not blank.
func words(values ...string) (out []string) {
	for _, v := range values {
		if v = strings.TrimSpace(v); v != "" {
			out = append(out, v)
		}
	}
	return out
}

// ReplicationJobsOperationResult ends with the job as the resource, also when the job failed: reading it is what the caller
// asked for.
func (s *server) ReplicationJobsOperationResult(w http.ResponseWriter, r *http.Request, _, _, _, _, _ string, _ oas.ReplicationJobsOperationResultParams) {
	s.in(w, r, func(c *scope) error {
		result, err := s.control.OperationResult(r.Context(), c.vault.ID, c.names["jobId"])
		if err != nil {
			return err
		}
		if result.Status.Status == statusInProgress {
			s.stillRunning(w, r)
			return nil
		}
		out, err := s.job(r)(c)
		if err == nil {
			writeJSON(w, http.StatusOK, out)
		}
		return err
	})
}

func (s *server) ReplicationJobsListArtifacts(w http.ResponseWriter, r *http.Request, _, _, _, _ string, _ oas.ReplicationJobsListArtifactsParams) {
	s.get(w, r, func(c *scope) (any, error) {
		v, err := s.control.Job(r.Context(), c.vault.ID, c.names["jobName"])
		if err != nil {
			return nil, err
		}
		out := oas.JobArtifactCollection{Value: []oas.JobArtifact{}}
		for _, name := range v.Job.Artifacts {
			out.Value = append(out.Value, oas.JobArtifact{Name: name, ContentType: artifactType(name)})
		}
		return out, nil
	})
}

func (s *server) ReplicationJobsGetArtifact(w http.ResponseWriter, r *http.Request, _, _, _, _, name string, _ oas.ReplicationJobsGetArtifactParams) {
	s.in(w, r, func(c *scope) error {
		content, err := s.control.Artifact(r.Context(), c.vault.ID, c.names["jobName"], name)
		if err != nil {
			return err
		}
		w.Header().Set("Content-Type", artifactType(name))
		w.Header().Set("Content-Disposition", mime.FormatMediaType("attachment", map[string]string{"filename": path.Base(name)}))
		_, _ = w.Write(content) // the caller may have left
		return nil
	})
}

// artifactType names only what the document lists; a guest decides what a serial log holds, so it is never shown as HTML.
func artifactType(name string) string {
	switch path.Ext(name) {
	case ".png":
		return "image/png"
	case ".log", ".txt":
		return "text/plain; charset=utf-8"
	}
	return "application/octet-stream"
}
