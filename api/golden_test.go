package api

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/service/control"
	"github.com/lifeboat-dr/lifeboat/service/dr"
	"github.com/lifeboat-dr/lifeboat/service/job"
)

var update = flag.Bool("update", false, "write the golden files anew")

var noon = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

func goldenScope() *scope {
	k := dr.VaultKey{Subscription: "sub", ResourceGroup: "rg", Name: "v1"}
	return &scope{vault: dr.Vault{ID: "v", Key: k}, base: vaultPath(k),
		names: map[string]string{"fabricName": "site1", "protectionContainerName": "c1", "replicatedProtectedItemName": "web01"}}
}

// goldenItem is a machine in a state, with everything that a view can hold.
func goldenItem(state dr.State) control.ItemView {
	agent := dr.Agent{ID: "agent-1", Hostname: "web01", AgentVersion: "0.1.0", Machine: testMachine}
	latest := dr.Point{ID: "point-7", Item: "item-1", Generation: 1, Sequence: 7, Time: noon.Add(-42 * time.Second), Consistency: dr.CrashConsistent, ChangedBytes: 4096, StoredBytes: 1024}
	i := dr.Item{Meta: dr.Meta{Name: "web01"}, ID: "item-1", Fabric: "site1", Container: "c1", FriendlyName: "web01", ProtectableItem: "machine-1", AgentID: agent.ID, State: state,
		PolicyName: "p1", Disks: []dr.Disk{{ID: "vda", SizeBytes: 1 << 30, IsOSDisk: true}}, Hardware: testMachine.Hardware(), TargetName: "web01-dr", InternalID: "internal-1", CorrelationID: "correlation-1",
		EnableInput: json.RawMessage(`{"instanceType":"InMageRcm","targetResourceGroupId":"rg1","targetVmSize":"small","disksDefault":{"diskType":"Premium_LRS","logStorageAccountId":"log1"}}`),
		UpdateInput: json.RawMessage(`{"instanceType":"InMageRcm","targetVmSize":"large"}`)}
	return control.ItemView{Item: i, Projection: dr.Project(state), Policy: dr.Policy{Meta: dr.Meta{Name: "p1"}, Provider: dr.ProviderInMageRcm}, Fabric: dr.Fabric{Meta: dr.Meta{Name: "site1"}, Kind: dr.FabricInMageRcm},
		Container: dr.Container{Meta: dr.Meta{Name: "c1"}, FriendlyName: "c1"}, Agent: &agent, LatestPoint: &latest, RPO: 42 * time.Second, RPOValid: true, RPOAt: noon,
		Observed: dr.Observed{AgentVersion: "0.1.0", LastHeartbeat: noon.Add(-5 * time.Second), Phase: "delta", ProgressPercent: 100, ProcessedBytes: 1 << 20, TransferredBytes: 1 << 19,
			Disks: []dr.DiskProgress{{ID: "vda", ProgressPercent: 40, ProcessedBytes: 1 << 20, TransferredBytes: 1 << 19}}},
		Health: dr.HealthNormal, FailoverHealth: dr.HealthNormal, InitialPercent: 100, UnprotectedDisks: testMachine.Disks[1:],
		ProcessServer: &dr.Replicator{ID: "replicator-1", Hostname: "main"}}
}

func TestBodiesAreAsTheyWere(t *testing.T) {
	t.Parallel()
	c := goldenScope()
	doc, err := loadDocument()
	if err != nil {
		t.Fatal(err)
	}
	first := goldenItem(dr.State{Leg: dr.LegInMageRcm, Phase: dr.PhaseInitialReplication})
	first.InitialPercent, first.RPOValid, first.LatestPoint = 40, false, nil
	resync := goldenItem(dr.State{Leg: dr.LegInMageRcm, Phase: dr.PhaseProtected, Resync: true})
	resync.ResyncPercent, resync.Health = 40, dr.HealthWarning
	resync.HealthErrors = []dr.HealthError{{ID: "e1", Code: dr.HealthResync, Level: dr.LevelWarning, Category: dr.CategoryReplication, Message: "comparing", Summary: "The disks are being compared.",
		PossibleCauses: "tracking was lost", RecommendedAction: "wait", Created: noon, Source: "Lifeboat", EntityID: "item-1"}}
	over := goldenItem(dr.State{Leg: dr.LegInMageRcm, Phase: dr.PhaseUnplannedPending})
	over.Item.FailoverInstance = &dr.Instance{ID: "instance-1", UUID: testMachine.ProductUUID}
	over.Item.LastFailover, over.FailoverPointID, over.RPOValid = noon, "point-7", false
	over.Item.CurrentScenario = dr.Scenario{Name: "UnplannedFailover", JobID: "job-1", Started: noon}
	home := goldenItem(dr.State{Leg: dr.LegInMageRcmFailback, Phase: dr.PhaseProtected})
	home.Item.ReprotectAgent, home.Item.Datastore, home.Item.PlannedFailoverStatus = "replicator-home", "store1", "None"
	home.Item.ReprotectInput = json.RawMessage(`{"instanceType":"InMageRcm","logStorageAccountId":"log2"}`)

	running := control.JobView{Job: job.Job{ID: "job-1", Scenario: "UnplannedFailover", FriendlyName: "Failover", State: job.InProgress, ActivityID: "c1 ActivityId: a1", TargetType: "ProtectionEntity",
		TargetID: "internal-1", TargetName: "web01", Created: noon, Started: noon, Tasks: []job.Task{
			{ID: "FailoverTask", Name: "VmFailover", FriendlyName: "Failover", State: job.Succeeded, Kind: job.KindInstanceStart, Started: noon, Ended: noon.Add(3 * time.Second)},
			{ID: "Next", Name: "VmNext", FriendlyName: "Next", State: job.InProgress, Started: noon.Add(3 * time.Second), Progress: job.Progress{DoneBytes: 1, TotalBytes: 2, Note: "half"}},
			{ID: "Last", Name: "VmLast", FriendlyName: "Last", State: job.NotStarted}}},
		AllowedActions: []string{"Cancel"}, Description: "InProgress", Affected: map[string]string{"PrimaryVmName": "web01"}, Item: &over.Item, Point: over.LatestPoint}
	failed := running
	failed.Job.State, failed.Job.Ended, failed.Description, failed.AllowedActions = job.Failed, noon.Add(time.Minute), "Failed", []string{"Restart"}
	failed.Job.Errors = []job.Error{{TaskID: "Next", Code: "unavailable", Message: "no answer", PossibleCauses: "it is down", RecommendedAction: "start it", Created: noon}}

	for _, test := range []struct {
		name, schema string
		body         any
	}{
		{"item_initial_replication", "ReplicationProtectedItem", itemBody(c, first)},
		{"item_protected", "ReplicationProtectedItem", itemBody(c, goldenItem(dr.State{Leg: dr.LegInMageRcm, Phase: dr.PhaseProtected}))},
		{"item_drill", "ReplicationProtectedItem", itemBody(c, goldenItem(dr.State{Leg: dr.LegInMageRcm, Phase: dr.PhaseProtected, TestFailover: dr.DrillOpen}))},
		{"item_resync", "ReplicationProtectedItem", itemBody(c, resync)},
		{"item_failed_over", "ReplicationProtectedItem", itemBody(c, over)},
		{"item_failback", "ReplicationProtectedItem", itemBody(c, home)},
		{"job_running", "Job", jobBody(c, running)},
		{"job_failed", "Job", jobBody(c, failed)},
		{"job_in_a_list", "Job", jobSummary(c, failed)},
		{"point", "RecoveryPoint", pointBody(c, *over.LatestPoint)},
		{"event", "Event", eventBody(c, dr.Event{Meta: dr.Meta{Name: "JobStatusMonitoringEvent;1_x"}, Type: "JobStatus", Code: "code-1", Severity: dr.SeverityCritical, Description: "Failover - Failed", ObjectName: "web01",
			ObjectID: "correlation-1", Fabric: "site1", Time: noon, JobID: "job-1"})},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			golden(t, doc, test.name, test.schema, test.body)
		})
	}
}

// golden compares a body with the file it was written to, and with the document.
func golden(t *testing.T, doc *document, name, schema string, body any) {
	t.Helper()
	got, err := json.MarshalIndent(body, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	got = append(got, '\n')
	var v any
	if err := json.Unmarshal(got, &v); err != nil {
		t.Fatal(err)
	}
	if err := doc.spec.Components.Schemas[schema].Value.VisitJSON(v); err != nil {
		t.Errorf("the document does not allow it: %v", err)
	}
	file := filepath.Join("testdata", name+".json")
	if *update {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s differs; run go test ./api -run Bodies -update and read the difference\ngot %s", file, got)
	}
}
