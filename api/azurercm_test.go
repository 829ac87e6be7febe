package api

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	asr "github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/recoveryservices/armrecoveryservicessiterecovery/v2"
)

// Phases of the fleet protocol that a first copy can be held in.
const (
	copying = "initialReplication"
	copied  = "delta"
)

// rcmStep is one operation between VMware and here, and what the reference says is to be seen when it has ended (ref 6.1, 6.4, 6.7,
// 10.2). Strings of the failover to here are not documented for this provider: they are those of the others (ref 6.5).
type rcmStep struct {
	op, scenario string
	in           any
	// back tells that the machine is on its way home: the provider is the one of the failback.
	back                     bool
	state, description, test string // an empty description is not documented
	active, allowed          string
	tasks                    string // taskId/name as far as they are known, in their order; others may lie between them
	details                  asr.JobDetailsClassification
}

// Tasks that recordings of the field's service show (ref 10.2).
const (
	drillTasks   = "TestFailoverPreflightChecksTask/VmTfoPrerequisitesCheck BeginTestFailoverTask/VmTfoInitiateFailover PrepareTestProtectedEntitiesTask/VmTfoPrepareTestVm BootTestProtectedEntitiesTask/VmTfoBootTestVm"
	cleanupTasks = "TestFailoverCleanupPreflightChecksTask/VmTfoCleanupPreflightsCheck EndTestFailoverTask/VmTfoEndFailover CleanupTestProtectedEntitiesTask/VmTfoDeleteTestVm"
	plannedTasks = "PlannedFailoverPreflightChecksTask/VmPfoPrerequisitesCheck PrepareForFailoverTask/VmPrepareForFailover FailoverTask/VmFailover PrepareProtectedEntitiesTask/VmPrepareProtectedEntitiesTask StartVmOnSecondary/VmFoStartVmOnSecondary"
	commitTasks  = "/VmCommitPrerequisitesCheck /VmCommit"
	reverseTasks = "SwitchReplicationGroupProtectionPreflightTask/ CommitFailoverTask/VmCommitFailover DiscoverReplicaTask/ GetSwitchProtectionRequirementsTask/ ProtectReplicaTask/"
)

func TestTheRcmLegsLiveThroughTheAzureSDK(t *testing.T) {
	t.Parallel()
	p := to.Ptr[string]
	const here, home = "UnplannedFailover DisableProtection TestFailover", "PlannedFailover DisableProtection"
	flown, landed := &asr.FailoverJobDetails{}, &asr.SwitchProtectionJobDetails{}
	there := &asr.InMageRcmReprotectInput{InstanceType: p("InMageRcm"), ReprotectAgentID: p(homeReplicator), DatastoreName: p(datastore), LogStorageAccountID: p("none"), PolicyID: p(vaultURL + "/replicationPolicies/back")}
	again := &asr.InMageRcmFailbackReprotectInput{InstanceType: p("InMageRcmFailback"), ProcessServerID: p(mainReplicator), PolicyID: p(vaultURL + "/replicationPolicies/p1")}
	flee := rcmStep{op: "unplannedFailover", scenario: "UnplannedFailover", in: &asr.InMageRcmUnplannedFailoverInput{InstanceType: p("InMageRcm"), PerformShutdown: p("false")}, state: "UnplannedFailoverCommitPendingStatesBegin",
		description: "Failover completed", test: "MarkedForDeletion", active: "Recovery", allowed: "CompleteMigration Commit DisableProtection ChangePit SwitchProtection", details: flown}
	reverse := rcmStep{op: "reProtect", scenario: "SwitchReplicationGroupProtection", in: there, back: true, state: "Protected", description: "Protected", test: "None", active: "Primary", allowed: home, tasks: reverseTasks, details: landed}
	move := rcmStep{op: "plannedFailover", scenario: "PlannedFailover", in: &asr.InMageRcmFailbackPlannedFailoverProviderInput{InstanceType: p("InMageRcmFailback"), RecoveryPointType: to.Ptr(asr.InMageRcmFailbackRecoveryPointTypeCrashConsistent)},
		back: true, state: "CommitPendingStatesBegin", description: "Planned failover finished", test: "None", active: "Recovery", allowed: "CompleteMigration Commit DisableProtection SwitchProtection CancelFailover", tasks: plannedTasks, details: flown}
	forward := rcmStep{op: "reProtect", scenario: "SwitchReplicationGroupProtection", in: again, state: "Protected", description: "Protected", test: "None", active: "Primary", allowed: here, tasks: reverseTasks, details: landed}
	chosen := flee
	chosen.op, chosen.scenario, chosen.in, chosen.details = "applyRecoveryPoint", "", &asr.InMageRcmApplyRecoveryPointInput{InstanceType: p("InMageRcm")}, nil
	anew := flee // the second time there was no drill in this leg
	anew.test = "None"

	s, st := newStage(t)
	cred, opt := s.azure()
	f, err := asr.NewClientFactory("sub", cred, opt)
	if err != nil {
		t.Fatal(err)
	}
	s.must(201, "PUT", vaultURL, vaultIn)
	l := &rcmLife{azureLife: &azureLife{t: t, s: s, st: st, f: f}, jobs: map[string]bool{}}
	l.infrastructure()
	machine := st.enrol(fabricURL + "/replicationProtectionContainers/" + l.container)
	for n, step := range []rcmStep{
		{op: "enable", in: &asr.InMageRcmEnableProtectionInput{InstanceType: p("InMageRcm"), FabricDiscoveryMachineID: &machine, ProcessServerID: p(mainReplicator), TargetResourceGroupID: p("/subscriptions/sub/resourceGroups/rg"), TargetVMName: p("web01-dr")},
			state: "Protected", description: "Protected", test: "None", active: "Primary", allowed: here},
		{op: "testFailover", scenario: "TestFailover", in: &asr.InMageRcmTestFailoverInput{InstanceType: p("InMageRcm")}, state: "Protected", description: "Cleanup test failover pending", test: "WaitingForCompletion",
			active: "Primary", allowed: "TestFailoverCleanup", tasks: drillTasks, details: &asr.TestFailoverJobDetails{}},
		{op: "testFailoverCleanup", scenario: "TestFailoverCleanup", state: "Protected", test: "MarkedForDeletion", active: "Primary", allowed: here, tasks: cleanupTasks},
		flee,
		chosen,
		{op: "failoverCommit", scenario: "CommitFailover", state: "UnplannedFailoverCommitted", test: "MarkedForDeletion", active: "Recovery", allowed: "CompleteMigration DisableProtection SwitchProtection", tasks: commitTasks},
		reverse,
		move,
		{op: "failoverCancel", scenario: "CancelFailover", back: true, state: "Protected", description: "Protected", test: "None", active: "Primary", allowed: home},
		move,
		{op: "failoverCommit", scenario: "CommitFailover", back: true, state: "PlannedFailoverStatesBegin", description: "Planned failover committed", test: "None", active: "Recovery", allowed: "CompleteMigration DisableProtection SwitchProtection", tasks: commitTasks},
		forward,
		// A reprotect commits what was not committed.
		anew,
		reverse,
		move,
		forward,
	} {
		if step.op == "unplannedFailover" {
			st.lose()
		}
		l.step(n, step)
	}
	l.ask("remove", nil)
	if a := s.send(RoleReader, "GET", fabricURL+"/replicationProtectionContainers/"+l.container+"/replicationProtectedItems/"+itemName, ""); a.status != 404 {
		t.Errorf("the removed machine answers %s", a)
	}
}

// rcmLife is a life that is compared with the reference step by step.
type rcmLife struct {
	*azureLife
	jobs     map[string]bool // seen
	identity string          // the item's internalIdentifier
}

func (l *rcmLife) step(n int, want rcmStep) {
	t := l.t
	t.Helper()
	at := fmt.Sprintf("step %d, %s", n, want.op)
	copies := want.op == "enable" || want.op == "reProtect"
	before := l.identity
	if copies {
		l.st.hold(copying)
	}
	l.ask(want.op, want.in)
	if copies {
		during := want
		during.allowed, during.state, during.description = "DisableProtection", "InitialReplicationInProgress", "Initial replication is in progress"
		l.compare(at+", copying", during)
		l.st.hold(copied)
		during.state, during.description = "InitialReplicationRecoveryCompletionPending", "Waiting for first recovery point"
		l.compare(at+", copied", during)
		l.st.hold("")
	}
	got := l.compare(at, want)
	if (l.identity != before) != copies {
		t.Errorf("%s: the item's identifier was %q and is %q", at, before, l.identity)
	}
	if want.active == "Recovery" && !want.back && (got.LastSuccessfulFailoverTime == nil || got.FailoverRecoveryPointID == nil || *got.FailoverRecoveryPointID == "") {
		t.Errorf("%s: the failover has no time or no point", at)
	}
	if want.op == "testFailoverCleanup" && got.LastSuccessfulTestFailoverTime == nil {
		t.Errorf("%s: the drill has no time", at)
	}
	if d, ok := got.ProviderSpecificDetails.(*asr.InMageRcmFailbackReplicationDetails); ok {
		if !strings.EqualFold(*got.RecoveryFabricID, fabricURL) {
			t.Errorf("%s: the machine goes to %s, want its own fabric", at, *got.RecoveryFabricID)
		}
		if want.op == "plannedFailover" && (d.LastPlannedFailoverStartTime == nil || d.LastPlannedFailoverStatus == nil || *d.LastPlannedFailoverStatus != asr.PlannedFailoverStatusSucceeded) {
			t.Errorf("%s: the failover's start and status are %v, %v", at, d.LastPlannedFailoverStartTime, d.LastPlannedFailoverStatus)
		}
	}
	job := l.job(at, want)
	if scenario := got.CurrentScenario; want.op == "testFailover" && !strings.EqualFold(*scenario.JobID, *job.ID) {
		t.Errorf("%s: the current job is %s, want %s", at, *scenario.JobID, *job.ID)
	}
}

// compare waits for the state and compares what clients see of the machine.
func (l *rcmLife) compare(at string, want rcmStep) *asr.ReplicationProtectedItemProperties {
	t := l.t
	t.Helper()
	got := l.wait(want.state)
	allowed := strings.Fields(want.allowed)
	slices.Sort(allowed)
	if *got.ActiveLocation != want.active || !slices.Equal(allowedOf(got), allowed) {
		t.Errorf("%s: active at %s, may %v; want %s and %v", at, *got.ActiveLocation, allowedOf(got), want.active, allowed)
	}
	if want.description != "" && *got.ProtectionStateDescription != want.description {
		t.Errorf("%s: the state is described as %q, want %q", at, *got.ProtectionStateDescription, want.description)
	}
	if *got.TestFailoverState != want.test {
		t.Errorf("%s: testFailoverState is %s, want %s", at, *got.TestFailoverState, want.test)
	}
	scenario := "None"
	if want.op == "testFailover" {
		scenario = "TestFailover"
	}
	if *got.CurrentScenario.ScenarioName != scenario {
		t.Errorf("%s: the scenario is %s, want %s", at, *got.CurrentScenario.ScenarioName, scenario)
	}
	back := false
	switch d := got.ProviderSpecificDetails.(type) {
	case *asr.InMageRcmReplicationDetails:
		l.identity = *d.InternalIdentifier
	case *asr.InMageRcmFailbackReplicationDetails:
		l.identity, back = *d.InternalIdentifier, true
	default:
		t.Errorf("%s: the details decode to %T", at, d)
	}
	if back != want.back {
		t.Errorf("%s: the details decode to %T", at, got.ProviderSpecificDetails)
	}
	return got
}

// job finds the one job that the step made, waits for its success and compares it with what is known of such jobs: an operation whose scenario is not
// documented makes a job, too.
func (l *rcmLife) job(at string, want rcmStep) asr.Job {
	t, jobs := l.t, l.f.NewReplicationJobsClient()
	t.Helper()
	var found []string
	for _, page := range all(t, jobs.NewListPager("rg", "v1", nil)) {
		for _, j := range page.Value {
			if !l.jobs[*j.Name] && *j.Properties.TargetObjectName == itemName && (want.scenario == "" || *j.Properties.ScenarioName == want.scenario) {
				found = append(found, *j.Name)
			}
			l.jobs[*j.Name] = true
		}
	}
	if len(found) == 0 || want.scenario != "" && len(found) != 1 {
		t.Fatalf("%s: made the jobs %v, want one of scenario %q", at, found, want.scenario)
	}
	var got asr.ReplicationJobsClientGetResponse
	eventually(t, func() (bool, string) { // work that the machine need not wait for may go on after the operation
		var err error
		if got, err = jobs.Get(t.Context(), "rg", "v1", found[0], nil); err != nil {
			t.Fatal(err)
		}
		return *got.Properties.State == "Succeeded" && got.Properties.EndTime != nil, fmt.Sprintf("%s: the job is %s", at, *got.Properties.State)
	})
	tasks := []string{}
	left := strings.Fields(want.tasks)
	for _, task := range got.Properties.Tasks {
		tasks = append(tasks, *task.TaskID+"/"+*task.Name)
		if len(left) == 0 {
			continue
		}
		if id, name, _ := strings.Cut(left[0], "/"); (id == "" || *task.TaskID == id) && (name == "" || *task.Name == name) {
			left = left[1:]
		}
	}
	if len(left) > 0 || len(tasks) == 0 {
		t.Errorf("%s: the job's tasks are %v; %v are missing or out of order", at, tasks, left)
	}
	if want.details != nil && reflect.TypeOf(got.Properties.CustomDetails) != reflect.TypeOf(want.details) {
		t.Errorf("%s: the job's details decode to %T, want %T", at, got.Properties.CustomDetails, want.details)
	}
	return got.Job
}
