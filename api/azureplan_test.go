package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	asr "github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/recoveryservices/armrecoveryservicessiterecovery/v2"

	"github.com/lifeboat-dr/lifeboat/service/dr"
)

// azurePlan is the life of a recovery plan with three machines, through the SDK.
type azurePlan struct {
	*azureLife
	plans *asr.ReplicationRecoveryPlansClient
	ids   []string // ARM ids of the machines
}

const planName = "Shop"

func TestTheAzureSDKDrivesARecoveryPlan(t *testing.T) {
	t.Parallel()
	s, st := newStage(t)
	s.must(201, "PUT", vaultURL, `{"location":"here","sku":{"name":"Standard"},"properties":{}}`)
	cred, opt := s.azure()
	f, err := asr.NewClientFactory("sub", cred, opt)
	if err != nil {
		t.Fatal(err)
	}
	life := &azurePlan{azureLife: &azureLife{t: t, s: s, st: st, f: f}, plans: f.NewReplicationRecoveryPlansClient()}
	life.infrastructure()
	life.protect()
	life.protectOthers("db01", "cache01")
	life.create()
	life.drill()
	life.disaster()
	life.home()
	done[asr.ReplicationRecoveryPlansClientDeleteResponse](t)(life.plans.BeginDelete(t.Context(), "rg", "v1", planName, nil))
	_, err = life.plans.Get(t.Context(), "rg", "v1", planName, nil)
	if e, ok := errors.AsType[*azcore.ResponseError](err); !ok || e.StatusCode != 404 {
		t.Errorf("the plan is still there: %v", err)
	}
}

func (l *azurePlan) protectOthers(names ...string) {
	t, ctx := l.t, l.t.Context()
	l.ids = []string{fabricURL + "/replicationProtectionContainers/" + l.container + "/replicationProtectedItems/" + itemName}
	for n, name := range names {
		o := l.st.another(name, fmt.Sprintf("11111111-2222-3333-4444-%012d", n))
		created := done[asr.ReplicationProtectedItemsClientCreateResponse](t)(l.items().BeginCreate(ctx, "rg", "v1", fabricName, l.container, name, asr.EnableProtectionInput{Properties: &asr.EnableProtectionInputProperties{
			PolicyID: to.Ptr(vaultURL + "/replicationPolicies/p1"), ProviderSpecificDetails: &asr.InMageRcmEnableProtectionInput{InstanceType: to.Ptr("InMageRcm"), FabricDiscoveryMachineID: to.Ptr(o.agent),
				ProcessServerID: to.Ptr(mainReplicator), TargetResourceGroupID: to.Ptr("/subscriptions/sub/resourceGroups/rg"), TargetVMName: to.Ptr(name + "-dr")}}}, nil))
		l.ids = append(l.ids, *created.ID)
		items, err := l.s.control.AgentItems(ctx, o.agent)
		if err != nil || len(items) != 1 {
			t.Fatalf("the agent of %s has items %v, %v", name, items, err)
		}
		l.st.mu.Lock()
		o.item = items[0].Item.ID
		l.st.mu.Unlock()
	}
	l.waitAll("Protected")
}

func (l *azurePlan) waitAll(state string) {
	l.t.Helper()
	for _, id := range l.ids {
		name := id[strings.LastIndexByte(id, '/')+1:]
		eventually(l.t, func() (bool, string) {
			got, err := l.items().Get(l.t.Context(), "rg", "v1", fabricName, l.container, name, nil)
			if err != nil {
				l.t.Fatal(err)
			}
			return *got.Properties.ProtectionState == state && len(got.Properties.AllowedOperations) > 0, fmt.Sprintf("%s is %s, want %s", name, *got.Properties.ProtectionState, state)
		})
	}
}

func (l *azurePlan) create() {
	t, ctx := l.t, l.t.Context()
	types := []*asr.ReplicationProtectedItemOperation{to.Ptr(asr.ReplicationProtectedItemOperationTestFailover), to.Ptr(asr.ReplicationProtectedItemOperationUnplannedFailover)}
	there := []*asr.PossibleOperationsDirections{to.Ptr(asr.PossibleOperationsDirectionsPrimaryToRecovery)}
	item := func(n int) []*asr.RecoveryPlanProtectedItem {
		return []*asr.RecoveryPlanProtectedItem{{ID: to.Ptr(l.ids[n])}}
	}
	boot := func(n int, before, after []*asr.RecoveryPlanAction) *asr.RecoveryPlanGroup {
		return &asr.RecoveryPlanGroup{GroupType: to.Ptr(asr.RecoveryPlanGroupTypeBoot), ReplicationProtectedItems: item(n), StartGroupActions: before, EndGroupActions: after}
	}
	script := &asr.RecoveryPlanAction{ActionName: to.Ptr("open the firewall"), FailoverTypes: types, FailoverDirections: there, CustomDetails: &asr.RecoveryPlanScriptActionDetails{InstanceType: to.Ptr("ScriptActionDetails"),
		Path: to.Ptr(`\\` + runnerName + `\firewall.sh`), Timeout: to.Ptr("PT5M"), FabricLocation: to.Ptr(asr.RecoveryPlanActionLocationRecovery)}}
	manual := &asr.RecoveryPlanAction{ActionName: to.Ptr("look"), FailoverTypes: types, FailoverDirections: there, CustomDetails: &asr.RecoveryPlanManualActionDetails{InstanceType: to.Ptr("ManualActionDetails"), Description: to.Ptr("look at the console")}}
	hook := &asr.RecoveryPlanAction{ActionName: to.Ptr("tell"), FailoverTypes: types[1:], FailoverDirections: there, CustomDetails: &asr.RecoveryPlanAutomationRunbookActionDetails{InstanceType: to.Ptr("AutomationRunbookActionDetails"),
		RunbookID: to.Ptr("https://chat.example.org/hooks/dr"), FabricLocation: to.Ptr(asr.RecoveryPlanActionLocationRecovery)}}
	in := func(groups ...*asr.RecoveryPlanGroup) asr.CreateRecoveryPlanInput {
		return asr.CreateRecoveryPlanInput{Properties: &asr.CreateRecoveryPlanInputProperties{PrimaryFabricID: to.Ptr(fabricURL), RecoveryFabricID: to.Ptr("Microsoft Azure"),
			FailoverDeploymentModel: to.Ptr(asr.FailoverDeploymentModelResourceManager), Groups: groups}}
	}
	_, err := l.plans.BeginCreate(ctx, "rg", "v1", planName, in(boot(0, nil, nil), boot(0, nil, nil)), nil)
	if e, ok := errors.AsType[*azcore.ResponseError](err); !ok || e.StatusCode != 400 {
		t.Errorf("a plan that holds a machine twice: %v", err)
	}
	created := done[asr.ReplicationRecoveryPlansClientCreateResponse](t)(l.plans.BeginCreate(ctx, "rg", "v1", planName, in(boot(1, []*asr.RecoveryPlanAction{script}, []*asr.RecoveryPlanAction{manual}), boot(0, nil, nil)), nil))
	p := created.Properties
	l.allowed(p, "UnplannedFailover", "TestFailover")
	if *created.Name != planName || len(p.Groups) != 4 || *p.Groups[0].GroupType != "Shutdown" || *p.Groups[1].GroupType != "Failover" || *p.Groups[2].ReplicationProtectedItems[0].ID != l.ids[1] ||
		p.Groups[2].ReplicationProtectedItems[0].VirtualMachineID == nil || p.CurrentScenario != nil || *p.ReplicationProviders[0] != "InMageRcm" || *p.RecoveryFabricFriendlyName != "Microsoft Azure" {
		t.Errorf("got plan %+v", p)
	}
	if d, ok := p.Groups[2].StartGroupActions[0].CustomDetails.(*asr.RecoveryPlanScriptActionDetails); !ok || *d.Path != `\\`+runnerName+`\firewall.sh` || *d.Timeout != "PT5M" {
		t.Errorf("the script's details are %+v", p.Groups[2].StartGroupActions[0].CustomDetails)
	}
	changed := done[asr.ReplicationRecoveryPlansClientUpdateResponse](t)(l.plans.BeginUpdate(ctx, "rg", "v1", strings.ToLower(planName), asr.UpdateRecoveryPlanInput{Properties: &asr.UpdateRecoveryPlanInputProperties{
		Groups: append(p.Groups, boot(2, nil, []*asr.RecoveryPlanAction{hook}))}}, nil))
	if n := len(changed.Properties.Groups); n != 5 || *changed.Name != planName {
		t.Errorf("after the update %s has %d groups", *changed.Name, n)
	}
	if n := len(all(t, l.plans.NewListPager("rg", "v1", nil))[0].Value); n != 1 {
		t.Errorf("the vault has %d plans", n)
	}
	for filter, want := range map[string]int{"RecoveryPlanName eq 'shop'": 3, "recoveryPlanName eq 'other'": 0} {
		if n := len(all(t, l.items().NewListPager("rg", "v1", &asr.ReplicationProtectedItemsClientListOptions{Filter: to.Ptr(filter)}))[0].Value); n != want {
			t.Errorf("%s lists %d items, want %d", filter, n, want)
		}
	}
}

func (l *azurePlan) allowed(p *asr.RecoveryPlanProperties, want ...string) {
	l.t.Helper()
	got := []string{}
	for _, o := range p.AllowedOperations {
		got = append(got, *o)
	}
	if !slices.Equal(got, want) {
		l.t.Errorf("the plan allows %v, want %v", got, want)
	}
}

// resume waits until the plan's job is suspended, looks at it, and resumes it.
func (l *azurePlan) resume(comments string) (jobName string) {
	t, ctx := l.t, l.t.Context()
	jobs := l.f.NewReplicationJobsClient()
	eventually(t, func() (bool, string) {
		plan, err := l.plans.Get(ctx, "rg", "v1", planName, nil)
		if err != nil {
			t.Fatal(err)
		}
		id := *plan.Properties.CurrentScenario.JobID
		jobName = id[strings.LastIndexByte(id, '/')+1:]
		j, err := jobs.Get(ctx, "rg", "v1", jobName, nil)
		if err != nil {
			t.Fatal(err)
		}
		if *j.Properties.State != "Suspended" {
			text, _ := json.MarshalIndent(j.Job, "", " ")
			if *j.Properties.State == "Failed" {
				t.Fatalf("the job failed: %s", text)
			}
			return false, fmt.Sprintf("the job is not suspended: %s", text)
		}
		if plan, err = l.plans.Get(ctx, "rg", "v1", planName, nil); err != nil {
			t.Fatal(err)
		}
		if len(j.Properties.AllowedActions) != 2 || *plan.Properties.CurrentScenarioStatus != "Suspended" || len(plan.Properties.AllowedOperations) != 0 {
			t.Errorf("suspended, the job is %+v, the plan %+v", j.Properties, plan.Properties)
		}
		return true, ""
	})
	resumed, err := jobs.BeginResume(ctx, "rg", "v1", jobName, asr.ResumeJobParams{Properties: &asr.ResumeJobParamsProperties{Comments: to.Ptr(comments)}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	done[asr.ReplicationJobsClientResumeResponse](t)(resumed, nil)
	return jobName
}

func (l *azurePlan) drill() {
	t, ctx := l.t, l.t.Context()
	p, err := l.plans.BeginTestFailover(ctx, "rg", "v1", planName, asr.RecoveryPlanTestFailoverInput{Properties: &asr.RecoveryPlanTestFailoverInputProperties{FailoverDirection: to.Ptr(asr.PossibleOperationsDirectionsPrimaryToRecovery),
		NetworkType: to.Ptr("VmNetworkAsInput"), ProviderSpecificDetails: []asr.RecoveryPlanProviderSpecificFailoverInputClassification{&asr.RecoveryPlanInMageRcmFailoverInput{InstanceType: to.Ptr("InMageRcm"),
			RecoveryPointType: to.Ptr(asr.RecoveryPlanPointTypeLatestProcessed), UseMultiVMSyncPoint: to.Ptr("false")}, &asr.RecoveryPlanProviderSpecificFailoverInput{InstanceType: to.Ptr("Unheard")}}}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	_, err = l.plans.BeginUpdate(ctx, "rg", "v1", planName, asr.UpdateRecoveryPlanInput{}, nil)
	if e, ok := errors.AsType[*azcore.ResponseError](err); !ok || e.StatusCode != 409 {
		t.Errorf("an update during a drill: %v", err)
	}
	name := l.resume("looks well")
	drilled := done[asr.ReplicationRecoveryPlansClientTestFailoverResponse](t)(p, nil).Properties
	l.allowed(drilled, "TestFailoverCleanup")
	if *drilled.CurrentScenario.ScenarioName != "TestFailover" || *drilled.CurrentScenarioStatus != "Suspended" || *drilled.CurrentScenarioStatusDescription != "WaitingForStopTestFailover" || drilled.LastTestFailoverTime == nil {
		t.Errorf("during a drill the plan is %+v", drilled)
	}
	l.tree(name)
	cleaned := done[asr.ReplicationRecoveryPlansClientTestFailoverCleanupResponse](t)(l.plans.BeginTestFailoverCleanup(ctx, "rg", "v1", planName, asr.RecoveryPlanTestFailoverCleanupInput{
		Properties: &asr.RecoveryPlanTestFailoverCleanupInputProperties{Comments: to.Ptr("fine")}}, nil)).Properties
	l.allowed(cleaned, "UnplannedFailover", "TestFailover")
	if *cleaned.CurrentScenario.ScenarioName != "TestFailoverCleanup" || *cleaned.CurrentScenarioStatus != "Succeeded" {
		t.Errorf("after a drill the plan is %+v", cleaned)
	}
	l.st.mu.Lock()
	defer l.st.mu.Unlock()
	if len(l.st.instances) != 0 {
		t.Errorf("%d machines run after the cleanup", len(l.st.instances))
	}
}

// tree looks at the tasks of a drill.
func (l *azurePlan) tree(name string) {
	t := l.t
	j, err := l.f.NewReplicationJobsClient().Get(t.Context(), "rg", "v1", name, nil)
	if err != nil {
		t.Fatal(err)
	}
	p := j.Properties
	if d, ok := p.CustomDetails.(*asr.TestFailoverJobDetails); !ok || len(d.ProtectedItemDetails) != 3 || d.ProtectedItemDetails[0].RecoveryPointID == nil || *p.TargetInstanceType != "RecoveryPlan" {
		t.Errorf("the job's details are %+v", p.CustomDetails)
	}
	if len(p.Tasks) != 5 { // checks, failover, three groups
		t.Fatalf("the job has %d tasks", len(p.Tasks))
	}
	g, ok := p.Tasks[2].GroupTaskCustomDetails.(*asr.RecoveryPlanGroupTaskDetails)
	if !ok || *g.RpGroupType != "Boot" || *g.GroupID != "3" || len(g.ChildTasks) != 3 {
		t.Fatalf("the first group is %+v", p.Tasks[2].GroupTaskCustomDetails)
	}
	if d, ok := g.ChildTasks[0].CustomDetails.(*asr.ScriptActionTaskDetails); !ok || *d.Output != "opened" || *d.Path != "firewall.sh" || *d.IsPrimarySideScript {
		t.Errorf("the script's task is %+v", g.ChildTasks[0].CustomDetails)
	}
	if d, ok := g.ChildTasks[1].CustomDetails.(*asr.VirtualMachineTaskDetails); !ok || d.JobTask == nil || *d.JobTask.TargetObjectName != "db01" || *g.ChildTasks[1].State != "Succeeded" {
		t.Errorf("the machine's task is %+v", g.ChildTasks[1].CustomDetails)
	} else if own, err := l.f.NewReplicationJobsClient().Get(t.Context(), "rg", "v1", *d.JobTask.JobID, nil); err != nil || *own.Properties.ScenarioName != "TestFailover" || *own.Properties.TargetInstanceType != "ProtectionEntity" {
		t.Errorf("the machine's own job is %+v, %v", own.Properties, err)
	}
	if d, ok := g.ChildTasks[2].CustomDetails.(*asr.ManualActionTaskDetails); !ok || *d.Observation != "looks well" || *d.Instructions != "look at the console" {
		t.Errorf("the manual action's task is %+v", g.ChildTasks[2].CustomDetails)
	}
}

func (l *azurePlan) disaster() {
	t, ctx := l.t, l.t.Context()
	l.st.lose()
	begin := func() (*runtime.Poller[asr.ReplicationRecoveryPlansClientUnplannedFailoverResponse], error) {
		return l.plans.BeginUnplannedFailover(ctx, "rg", "v1", planName, asr.RecoveryPlanUnplannedFailoverInput{Properties: &asr.RecoveryPlanUnplannedFailoverInputProperties{
			FailoverDirection: to.Ptr(asr.PossibleOperationsDirectionsPrimaryToRecovery), SourceSiteOperations: to.Ptr(asr.SourceSiteOperationsNotRequired),
			ProviderSpecificDetails: []asr.RecoveryPlanProviderSpecificFailoverInputClassification{&asr.RecoveryPlanInMageRcmFailoverInput{InstanceType: to.Ptr("InMageRcm"), RecoveryPointType: to.Ptr(asr.RecoveryPlanPointTypeLatest)}}}}, nil)
	}
	p, err := begin()
	if err != nil {
		t.Fatal(err)
	}
	l.resume(" ")
	over := done[asr.ReplicationRecoveryPlansClientUnplannedFailoverResponse](t)(p, nil).Properties
	l.allowed(over, "Commit", "ReverseReplicate")
	if over.LastUnplannedFailoverTime == nil || *over.CurrentScenarioStatus != "Succeeded" {
		t.Errorf("after a failover the plan is %+v", over)
	}
	_, err = begin()
	if e, ok := errors.AsType[*azcore.ResponseError](err); !ok || e.StatusCode != 409 {
		t.Errorf("a second failover: %v", err)
	}
	committed := done[asr.ReplicationRecoveryPlansClientFailoverCommitResponse](t)(l.plans.BeginFailoverCommit(ctx, "rg", "v1", planName, nil)).Properties
	l.allowed(committed, "ReverseReplicate")
	if *committed.CurrentScenario.ScenarioName != "CommitFailover" {
		t.Errorf("after commit the plan is %+v", committed)
	}
}

func (l *azurePlan) home() {
	t, ctx := l.t, l.t.Context()
	back := done[asr.ReplicationRecoveryPlansClientReprotectResponse](t)(l.plans.BeginReprotect(ctx, "rg", "v1", planName, nil)).Properties
	if *back.CurrentScenario.ScenarioName != "ReverseReplication" || *back.ReplicationProviders[0] != string(dr.ProviderInMageRcmFailback) {
		t.Errorf("after reprotect the plan is %+v", back)
	}
	l.waitAll("Protected")
	home := func() *asr.RecoveryPlanProperties {
		return done[asr.ReplicationRecoveryPlansClientPlannedFailoverResponse](t)(l.plans.BeginPlannedFailover(ctx, "rg", "v1", planName, asr.RecoveryPlanPlannedFailoverInput{Properties: &asr.RecoveryPlanPlannedFailoverInputProperties{
			FailoverDirection: to.Ptr(asr.PossibleOperationsDirectionsRecoveryToPrimary), ProviderSpecificDetails: []asr.RecoveryPlanProviderSpecificFailoverInputClassification{&asr.RecoveryPlanInMageRcmFailbackFailoverInput{
				InstanceType: to.Ptr("InMageRcmFailback"), RecoveryPointType: to.Ptr(asr.InMageRcmFailbackRecoveryPointTypeCrashConsistent)}}}}, nil)).Properties
	}
	l.allowed(home(), "Commit", "CancelFailover", "ReverseReplicate")
	cancelled := done[asr.ReplicationRecoveryPlansClientFailoverCancelResponse](t)(l.plans.BeginFailoverCancel(ctx, "rg", "v1", planName, nil)).Properties
	l.allowed(cancelled, "PlannedFailover")
	l.waitAll("Protected")
	home()
	done[asr.ReplicationRecoveryPlansClientFailoverCommitResponse](t)(l.plans.BeginFailoverCommit(ctx, "rg", "v1", planName, nil))
	done[asr.ReplicationRecoveryPlansClientReprotectResponse](t)(l.plans.BeginReprotect(ctx, "rg", "v1", planName, nil))
	l.waitAll("Protected")
}
