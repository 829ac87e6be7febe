package control

import (
	"bytes"
	"context"
	"encoding/csv"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"strings"
	"time"

	"github.com/lifeboat-dr/lifeboat/service/dr"
	"github.com/lifeboat-dr/lifeboat/service/job"
	"github.com/lifeboat-dr/lifeboat/service/store"
)

// ExportInput is the body of a jobs export. Format is Json, Xml or Excel (a CSV file, which Excel opens); empty means Json.
// Times are written as a clock shows them that is Offset ahead of UTC.
type ExportInput struct {
	Filter JobFilter
	Format string
	Offset time.Duration
}

// exportedJob is a row of an export.
type exportedJob struct {
	XMLName   xml.Name `json:"-" xml:"job"`
	Name      string   `json:"name" xml:"name"`
	Scenario  string   `json:"scenarioName" xml:"scenarioName"`
	Friendly  string   `json:"friendlyName" xml:"friendlyName"`
	State     string   `json:"state" xml:"state"`
	Object    string   `json:"targetObjectName" xml:"targetObjectName"`
	Kind      string   `json:"targetInstanceType" xml:"targetInstanceType"`
	Started   string   `json:"startTime" xml:"startTime"`
	Ended     string   `json:"endTime,omitempty" xml:"endTime,omitempty"`
	Errors    []string `json:"errors,omitempty" xml:"errors>error,omitempty"`
	Remedies  []string `json:"recommendedActions,omitempty" xml:"recommendedActions>recommendedAction,omitempty"`
	Initiator string   `json:"activityId,omitempty" xml:"activityId,omitempty"`
}

// exporter names a file and writes the rows into it.
type exporter struct {
	file  string
	write func(rows []exportedJob) ([]byte, error)
}

var exporters = map[string]exporter{
	"json": {"jobs.json", func(rows []exportedJob) ([]byte, error) { return json.MarshalIndent(rows, "", "  ") }},
	"xml": {"jobs.xml", func(rows []exportedJob) ([]byte, error) {
		return xml.MarshalIndent(struct {
			XMLName xml.Name `xml:"jobs"`
			Jobs    []exportedJob
		}{Jobs: rows}, "", "  ")
	}},
	"excel": {"jobs.csv", exportCSV},
}

func exportCSV(rows []exportedJob) ([]byte, error) {
	var buf bytes.Buffer
	w := csv.NewWriter(&buf)
	lines := [][]string{{"name", "scenarioName", "friendlyName", "state", "targetObjectName", "targetInstanceType", "startTime", "endTime", "errors", "recommendedActions", "activityId"}}
	for _, r := range rows {
		lines = append(lines, []string{r.Name, r.Scenario, r.Friendly, r.State, r.Object, r.Kind, r.Started, r.Ended, strings.Join(r.Errors, "; "), strings.Join(r.Remedies, "; "), r.Initiator})
	}
	for _, line := range lines[1:] {
		for i, cell := range line {
			// A spreadsheet takes such a cell for a formula, and names of machines come from their owners.
			if strings.HasPrefix(cell, "=") || strings.HasPrefix(cell, "+") || strings.HasPrefix(cell, "-") || strings.HasPrefix(cell, "@") {
				line[i] = "'" + cell
			}
		}
	}
	err := w.WriteAll(lines)
	return buf.Bytes(), err
}

// ExportJobs writes jobs into an artifact of a job, all as they are at one moment.
func (s *Service) ExportJobs(ctx context.Context, vaultID string, in ExportInput) (string, error) {
	e, ok := exporters[strings.ToLower(or(in.Format, "Json"))]
	if !ok {
		return "", &dr.Error{Code: dr.CodeInvalid, Message: fmt.Sprintf("jobOutputType is %q", in.Format), PossibleCauses: "it is not a type of file", RecommendedAction: "send Json, Xml or Excel"}
	}
	var id string
	err := s.store.Update(ctx, func(tx store.Tx) error {
		now := s.now()
		rows, err := s.exportRows(tx, vaultID, in)
		if err != nil {
			return err
		}
		content, err := e.write(rows)
		if err != nil {
			return err
		}
		if len(content) > MaxArtifact {
			return &dr.Error{Code: dr.CodeInvalid, Message: fmt.Sprintf("the export of %d jobs is longer than %d bytes", len(rows), MaxArtifact), PossibleCauses: "the vault has many jobs",
				RecommendedAction: "export a shorter time with startTime and endTime"}
		}
		j := newJob(ctx, vaultID, job.PlanExportJobs, target{kind: "Other"}, now)
		j.ResourcePath = "replicationJobs/" + j.ID
		j.Artifacts = []string{e.file}
		id = j.ID
		if _, err := tx.Put(KindArtifact, j.ID+"/"+e.file, -1, content); err != nil {
			return err
		}
		return saveDone(tx, j, now)
	})
	return id, err
}

func (s *Service) exportRows(tx store.Tx, vaultID string, in ExportInput) ([]exportedJob, error) {
	zone := time.FixedZone("", int(in.Offset/time.Second))
	clock := func(t time.Time) string {
		if t.IsZero() {
			return ""
		}
		return t.In(zone).Format(time.RFC3339)
	}
	rows := []exportedJob{}
	for p := (Paging{}); ; {
		page, err := s.jobPage(tx, vaultID, in.Filter, p)
		if err != nil {
			return nil, err
		}
		for _, v := range page.Items {
			j := v.Job
			row := exportedJob{Name: j.ID, Scenario: string(j.Scenario), Friendly: j.FriendlyName, State: string(j.State), Object: j.TargetName, Kind: j.TargetType,
				Started: clock(j.Started), Ended: clock(j.Ended), Initiator: j.ActivityID}
			for _, e := range j.Errors {
				row.Errors, row.Remedies = append(row.Errors, e.Message), append(row.Remedies, e.RecommendedAction)
			}
			rows = append(rows, row)
		}
		if p.After = page.Next; p.After == "" {
			return rows, nil
		}
	}
}
