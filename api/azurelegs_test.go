package api

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	asr "github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/recoveryservices/armrecoveryservicessiterecovery/v2"

	"github.com/lifeboat-dr/lifeboat/service/dr"
)

// What the reference tables say about a machine after a step (ref 6.4 to 6.10).
type seen struct {
	state, active string
	allowed       string // in any order, separated by blanks
	details       asr.ReplicationProviderSpecificSettingsClassification
}

// A stride is one operation on a machine through the SDK, and what is to be seen when it has ended.
type stride struct {
	op   string
	in   any // provider's input, or nil
	want seen
}

const (
	overPending   = "UnplannedFailoverCommitPendingStatesBegin"
	overCommitted = "UnplannedFailoverCommitted"
	movePending   = "PlannedFailoverCommitRequired"
	moveCommitted = "PlannedFailoverStatesBegin"
)

// drillOf is a drill with its cleanup, and a repair, which leave the machine as it was.
func drillOf(in any, home seen) []stride {
	open := home
	open.allowed = "TestFailoverCleanup"
	return append([]stride{{"testFailover", in, open}, {"testFailoverCleanup", nil, home}}, repairOf(home)...)
}

// repairOf is a loss of tracking, which makes a repair be listed, and the repair.
func repairOf(home seen) []stride {
	lost := home
	if !strings.Contains(lost.allowed, "RepairReplication") {
		lost.allowed += " RepairReplication"
	}
	return []stride{{"loseTracking", nil, lost}, {"repairReplication", nil, home}}
}

// disksOf adds a disk between regions and takes it away.
func disksOf(home seen) []stride {
	return []stride{{"addDisks", &asr.A2AAddDisksInput{InstanceType: to.Ptr("A2A"), VMManagedDisks: []*asr.A2AVMManagedDiskInputDetails{{DiskID: to.Ptr("vdb"), PrimaryStagingAzureStorageAccountID: to.Ptr("s"),
		RecoveryResourceGroupID: to.Ptr("rg")}}}, home},
		{"removeDisks", &asr.A2ARemoveDisksInput{InstanceType: to.Ptr("A2A"), VMManagedDisksIDs: []*string{to.Ptr("vdb")}}, home}}
}

func TestEveryLegLivesThroughTheAzureSDK(t *testing.T) {
	t.Parallel()
	p := to.Ptr[string]
	classic, scout := &asr.InMageAzureV2ReplicationDetails{}, &asr.InMageReplicationDetails{}
	hyperv, clouds, regions := &asr.HyperVReplicaAzureReplicationDetails{}, &asr.HyperVReplicaReplicationDetails{}, &asr.A2AReplicationDetails{}
	blue := &asr.HyperVReplicaBlueReplicationDetails{}
	west := vaultURL + "/replicationFabrics/site2/replicationProtectionContainers/c2"

	guest := seen{"Protected", "Primary", "UnplannedFailover DisableProtection TestFailover", classic}
	secondary := seen{"Protected", "Primary", "UnplannedFailover DisableProtection TestFailover", scout}
	host := seen{"Protected", "Primary", "PlannedFailover UnplannedFailover DisableProtection TestFailover", hyperv}
	region := seen{"Protected", "Primary", "RepairReplication UnplannedFailover DisableProtection TestFailover", regions}
	sites := func(kind string, d asr.ReplicationProviderSpecificSettingsClassification) []stride {
		home := seen{"Protected", "Primary", "PlannedFailover UnplannedFailover DisableProtection TestFailover", d}
		away := home
		away.active = "Recovery"
		drill := &asr.TestFailoverProviderSpecificInput{InstanceType: p("ProviderSpecificFailoverInput")}
		move := func(to string, after seen) []stride {
			return []stride{{"plannedFailover", &asr.PlannedFailoverProviderSpecificFailoverInput{InstanceType: p("ProviderSpecificFailoverInput")}, seen{movePending, to, "CompleteMigration Commit DisableProtection", d}},
				{"failoverCommit", nil, seen{moveCommitted, to, "CompleteMigration DisableProtection ReverseReplicate", d}},
				{"reProtect", &asr.ReverseReplicationProviderSpecificInput{InstanceType: p(kind)}, after}}
		}
		flee := func(to string, after seen) []stride {
			return []stride{{"unplannedFailover", &asr.UnplannedFailoverProviderSpecificInput{InstanceType: p("ProviderSpecificFailoverInput")}, seen{overPending, to, "CompleteMigration Commit DisableProtection", d}},
				{"failoverCommit", nil, seen{overCommitted, to, "CompleteMigration DisableProtection ReverseReplicate", d}},
				{"reProtect", nil, after}}
		}
		return slices.Concat([]stride{{"enable", &asr.EnableProtectionProviderSpecificInput{InstanceType: p(kind)}, home}}, drillOf(drill, home), move("Recovery", away), drillOf(drill, away), move("Primary", home),
			flee("Recovery", away), flee("Primary", home))
	}
	hostHome := []stride{{"plannedFailover", &asr.HyperVReplicaAzureFailbackProviderInput{InstanceType: p("HyperVReplicaAzureFailback"), DataSyncOption: p("ForSynchronization"), RecoveryVMCreationOption: p("NoAction")},
		seen{movePending, "Primary", "CompleteMigration Commit DisableProtection", hyperv}},
		{"failoverCommit", nil, seen{moveCommitted, "Primary", "CompleteMigration DisableProtection ReverseReplicate", hyperv}},
		{"reProtect", &asr.HyperVReplicaAzureReprotectInput{InstanceType: p("HyperVReplicaAzure")}, host}}
	scoutBack, regionBack := secondary, region
	regionBack.active = "Recovery"
	scoutBack.active = "Recovery"
	scoutMove := func(to string, after seen) []stride {
		pending := seen{overPending, to, "CompleteMigration Commit DisableProtection ChangePit", scout}
		return []stride{{"unplannedFailover", &asr.InMageUnplannedFailoverInput{InstanceType: p("InMage")}, pending},
			{"applyRecoveryPoint", &asr.ApplyRecoveryPointProviderSpecificInput{InstanceType: p("InMage")}, pending},
			{"failoverCommit", nil, seen{overCommitted, to, "CompleteMigration DisableProtection ReverseReplicate", scout}},
			{"reProtect", nil, after}}
	}
	for _, c := range []struct {
		provider, fabric, policy string
		target                   string // container of the mapping
		strides                  []stride
	}{
		{"InMageAzureV2", "VMware", `"multiVmSyncStatus":"Enable"`, "Microsoft Azure", slices.Concat([]stride{
			{"enable", &asr.InMageAzureV2EnableProtectionInput{InstanceType: p("InMageAzureV2"), TargetAzureVMName: p("web01-dr")}, guest}},
			drillOf(&asr.InMageAzureV2TestFailoverInput{InstanceType: p("InMageAzureV2")}, guest), []stride{
				{"unplannedFailover", &asr.InMageAzureV2UnplannedFailoverInput{InstanceType: p("InMageAzureV2")}, seen{overPending, "Recovery", "CompleteMigration Commit DisableProtection ChangePit", classic}},
				{"applyRecoveryPoint", &asr.InMageAzureV2ApplyRecoveryPointInput{InstanceType: p("InMageAzureV2")}, seen{overPending, "Recovery", "CompleteMigration Commit DisableProtection ChangePit", classic}},
				{"failoverCommit", nil, seen{overCommitted, "Recovery", "CompleteMigration DisableProtection ReverseReplicate", classic}},
				{"reProtect", &asr.InMageReprotectInput{InstanceType: p("InMage"), MasterTargetID: p("mt"), ProcessServerID: p("ps"), RetentionDrive: p("/r"), ProfileID: p(vaultURL + "/replicationPolicies/p1-failback")},
					seen{"Protected", "Recovery", "UnplannedFailover DisableProtection", scout}},
			}, repairOf(seen{"Protected", "Recovery", "UnplannedFailover DisableProtection", scout}), []stride{
				{"unplannedFailover", &asr.InMageUnplannedFailoverInput{InstanceType: p("InMage"), RecoveryPointType: to.Ptr(asr.RecoveryPointTypeLatestTime)}, seen{overPending, "Primary", "CompleteMigration Commit DisableProtection", scout}},
				{"failoverCommit", nil, seen{overCommitted, "Primary", "CompleteMigration DisableProtection ReverseReplicate", scout}},
				{"reProtect", &asr.InMageAzureV2ReprotectInput{InstanceType: p("InMageAzureV2"), PolicyID: p(vaultURL + "/replicationPolicies/p1")}, guest}})},
		{"InMage", "VMware", `"multiVmSyncStatus":"Disable"`, "Microsoft Azure", slices.Concat([]stride{
			{"enable", &asr.InMageEnableProtectionInput{InstanceType: p("InMage"), MasterTargetID: p("mt"), MultiVMGroupID: p("g"), MultiVMGroupName: p("g"), ProcessServerID: p(""), RetentionDrive: p("/r")}, secondary}},
			drillOf(&asr.InMageTestFailoverInput{InstanceType: p("InMage")}, secondary), scoutMove("Recovery", scoutBack),
			drillOf(&asr.InMageTestFailoverInput{InstanceType: p("InMage")}, scoutBack), scoutMove("Primary", secondary))},
		{"HyperVReplicaAzure", "HyperVSite", `"replicationInterval":300`, "Microsoft Azure", slices.Concat([]stride{
			{"enable", &asr.HyperVReplicaAzureEnableProtectionInput{InstanceType: p("HyperVReplicaAzure"), TargetAzureVMName: p("web01-dr")}, host}},
			drillOf(&asr.HyperVReplicaAzureTestFailoverInput{InstanceType: p("HyperVReplicaAzure")}, host), []stride{
				{"plannedFailover", &asr.HyperVReplicaAzurePlannedFailoverProviderInput{InstanceType: p("HyperVReplicaAzure")}, seen{movePending, "Recovery", "CompleteMigration Commit DisableProtection ChangePit", hyperv}},
				{"applyRecoveryPoint", &asr.HyperVReplicaAzureApplyRecoveryPointInput{InstanceType: p("HyperVReplicaAzure")}, seen{movePending, "Recovery", "CompleteMigration Commit DisableProtection ChangePit", hyperv}},
				{"failoverCommit", nil, seen{moveCommitted, "Recovery", "CompleteMigration DisableProtection Failback", hyperv}},
			}, hostHome, []stride{
				{"unplannedFailover", &asr.HyperVReplicaAzureUnplannedFailoverInput{InstanceType: p("HyperVReplicaAzure")}, seen{overPending, "Recovery", "CompleteMigration Commit DisableProtection ChangePit", hyperv}},
				{"failoverCommit", nil, seen{overCommitted, "Recovery", "CompleteMigration DisableProtection Failback", hyperv}}}, hostHome)},
		{"HyperVReplica2012", "VMM", `"recoveryPoints":4`, west, sites("HyperVReplica2012", clouds)},
		{"HyperVReplica2012R2", "VMM", `"replicationFrequencyInSeconds":30`, west, sites("HyperVReplica2012R2", blue)},
		{"A2A", "Azure", `"multiVmSyncStatus":"Enable"`, west, slices.Concat([]stride{
			{"enable", &asr.A2AEnableProtectionInput{InstanceType: p("A2A"), FabricObjectID: p("/machines/web01"), RecoveryContainerID: p(west)}, region}},
			drillOf(&asr.A2ATestFailoverInput{InstanceType: p("A2A")}, region), disksOf(region), []stride{
				{"unplannedFailover", &asr.A2AUnplannedFailoverInput{InstanceType: p("A2A")}, seen{overPending, "Recovery", "CompleteMigration Commit DisableProtection ChangePit", regions}},
				{"applyRecoveryPoint", &asr.A2AApplyRecoveryPointInput{InstanceType: p("A2A")}, seen{overPending, "Recovery", "CompleteMigration Commit DisableProtection ChangePit", regions}},
				{"failoverCommit", nil, seen{overCommitted, "Recovery", "CompleteMigration DisableProtection SwitchProtection", regions}},
				{"switchProtection", &asr.A2ASwitchProtectionInput{InstanceType: p("A2A"), PolicyID: p(vaultURL + "/replicationPolicies/p1")}, regionBack}},
			drillOf(&asr.A2ATestFailoverInput{InstanceType: p("A2A")}, regionBack), disksOf(regionBack), []stride{
				{"unplannedFailover", &asr.A2AUnplannedFailoverInput{InstanceType: p("A2A")}, seen{overPending, "Primary", "CompleteMigration Commit DisableProtection ChangePit", regions}},
				{"applyRecoveryPoint", &asr.A2AApplyRecoveryPointInput{InstanceType: p("A2A")}, seen{overPending, "Primary", "CompleteMigration Commit DisableProtection ChangePit", regions}},
				{"failoverCommit", nil, seen{overCommitted, "Primary", "CompleteMigration DisableProtection SwitchProtection", regions}},
				{"reProtect", &asr.A2AReprotectInput{InstanceType: p("A2A")}, region}})},
	} {
		t.Run(c.provider, func(t *testing.T) {
			t.Parallel()
			s, driver := newLegDriver(t)
			cred, opt := s.azure()
			f, err := asr.NewClientFactory("sub", cred, opt)
			if err != nil {
				t.Fatal(err)
			}
			l := &azureLife{t: t, s: s, f: f}
			l.furnishLeg(c.fabric, fmt.Sprintf(`{"instanceType":%q,%s}`, c.provider, c.policy), c.target)
			for n, st := range c.strides {
				driver.hold(true)
				if st.op == "loseTracking" {
					driver.loseTracking(t.Context())
				}
				l.ask(st.op, st.in)
				copied := st.op == "enable" || st.op == "switchProtection" || st.op == "reProtect" && !(c.fabric == "VMM" && c.strides[n-1].want.state == moveCommitted)
				if copied {
					l.copying(n, st)
				}
				driver.hold(false)
				l.look(n, st)
				if st.op == "enable" {
					l.finds(c.provider)
				}
			}
			l.ask("remove", nil)
			if a := s.send(RoleReader, "GET", fabricURL+"/replicationProtectionContainers/"+l.container+"/replicationProtectedItems/"+itemName, ""); a.status != 404 {
				t.Errorf("the removed machine answers %s", a)
			}
			driver.askedAll(t, dr.ProviderType(c.provider))
		})
	}
}

// furnishLeg makes two sites of a kind, the policy and the mapping, and a machine in the first.
func (l *azureLife) furnishLeg(kind, policy, target string) {
	s := l.s
	s.must(201, "PUT", vaultURL, vaultIn)
	for _, n := range []string{"1", "2"} {
		fabric := vaultURL + "/replicationFabrics/site" + n
		s.must(202, "PUT", fabric, fmt.Sprintf(`{"properties":{"customDetails":{"instanceType":%q,"location":"region%s"}}}`, kind, n))
		if kind == "Azure" {
			s.must(202, "PUT", fabric+"/replicationProtectionContainers/c"+n, `{"properties":{"providerSpecificInput":[{"instanceType":"A2A"}]}}`)
		}
	}
	if strings.HasSuffix(target, "/c2") && kind != "Azure" {
		a := s.must(200, "GET", vaultURL+"/replicationFabrics/site2/replicationProtectionContainers", "")
		target = a.at("value.0.id").(string)
	}
	container := s.containerURL()
	l.container = strings.TrimPrefix(container, fabricURL+"/replicationProtectionContainers/")
	s.must(202, "PUT", vaultURL+"/replicationPolicies/p1", `{"properties":{"providerSpecificInput":`+policy+`}}`)
	s.must(202, "PUT", container+"/replicationProtectionContainerMappings/m1", fmt.Sprintf(`{"properties":{"policyId":"%s/replicationPolicies/p1","targetProtectionContainerId":%q}}`, vaultURL, target))
	if kind == "VMware" || kind == "Azure" {
		s.enrol(container)
		return
	}
	s.must(202, "POST", container+"/discoverProtectableItem", `{"properties":{"friendlyName":"web01","ipAddress":"192.0.2.10","osType":"Linux"}}`)
}

// copying looks at a machine whose first copy, after a reprotect the copy of what differs, has begun and not ended: it may only be
// given up, or repaired where the provider always lists that.
func (l *azureLife) copying(n int, st stride) {
	l.t.Helper()
	got, err := l.items().Get(l.t.Context(), "rg", "v1", fabricName, l.container, itemName, nil)
	if err != nil {
		l.t.Fatal(err)
	}
	state := "InitialReplicationInProgress"
	if d, ok := got.Properties.ProviderSpecificDetails.(*asr.A2AReplicationDetails); ok {
		if state = "UnprotectedStatesBegin"; d.MonitoringPercentageCompletion == nil {
			l.t.Errorf("stride %d, %s: there is no progress", n, st.op)
		}
	}
	if p := got.Properties; *p.ProtectionState != state || *p.ActiveLocation != st.want.active || !slices.Equal(allowedOf(p), []string{"DisableProtection"}) {
		l.t.Errorf("stride %d, %s: while copying the machine is %s, active at %s, and may %v; want %s at %s", n, st.op, *p.ProtectionState, *p.ActiveLocation, allowedOf(p), state, st.want.active)
	}
}

// look waits for the state that a stride leads to and compares what is seen.
func (l *azureLife) look(n int, st stride) {
	l.t.Helper()
	got := l.wait(st.want.state)
	at := fmt.Sprintf("stride %d, %s", n, st.op)
	allowed := strings.Fields(st.want.allowed)
	slices.Sort(allowed)
	if *got.ActiveLocation != st.want.active || !slices.Equal(allowedOf(got), allowed) {
		l.t.Errorf("%s: active at %s, may %v; want %s and %v", at, *got.ActiveLocation, allowedOf(got), st.want.active, allowed)
	}
	if have, want := fmt.Sprintf("%T", got.ProviderSpecificDetails), fmt.Sprintf("%T", st.want.details); have != want {
		l.t.Errorf("%s: the details decode to %s, want %s", at, have, want)
	}
	test := map[string]string{"testFailover": "WaitingForCompletion", "testFailoverCleanup": "MarkedForDeletion", "enable": "None"}[st.op]
	if test != "" && *got.TestFailoverState != test {
		l.t.Errorf("%s: testFailoverState is %s, want %s", at, *got.TestFailoverState, test)
	}
	scenario := "None"
	if st.op == "testFailover" {
		scenario = "TestFailover"
	}
	if *got.CurrentScenario.ScenarioName != scenario {
		l.t.Errorf("%s: the scenario is %s, want %s", at, *got.CurrentScenario.ScenarioName, scenario)
	}
}

// finds the machine by what clients narrow lists with.
func (l *azureLife) finds(provider string) {
	l.t.Helper()
	filters := map[string]int{"InstanceType eq '" + provider + "'": 1, "InstanceType eq 'InMageRcm'": 0, "VCenterName eq 'v'": 0, "SourceFabricName eq 'SITE1' and InstanceType eq '" + provider + "'": 1}
	if provider == "A2A" {
		filters["SourceFabricLocation eq 'region1'"], filters["SourceFabricLocation eq 'region2'"] = 1, 0
		filters["FabricObjectId eq '/machines/web01'"], filters["FabricObjectId eq '/machines/web02'"] = 1, 0
		filters["MultiVmGroupCreateOption eq 'AutoCreated'"], filters["MultiVmGroupCreateOption eq 'UserSpecified'"] = 1, 0
	}
	for filter, want := range filters {
		if got := len(all(l.t, l.items().NewListPager("rg", "v1", &asr.ReplicationProtectedItemsClientListOptions{Filter: &filter}))[0].Value); got != want {
			l.t.Errorf("%s finds %d machines, want %d", filter, got, want)
		}
	}
}

// ask calls the operation and waits for its end.
func (l *azureLife) ask(op string, in any) {
	t, ctx, items := l.t, l.t.Context(), l.items()
	direction := to.Ptr("PrimaryToRecovery")
	switch op {
	case "enable":
		machines := all(t, l.f.NewReplicationProtectableItemsClient().NewListByReplicationProtectionContainersPager("rg", "v1", fabricName, l.container, nil))[0].Value
		props := &asr.EnableProtectionInputProperties{PolicyID: to.Ptr(vaultURL + "/replicationPolicies/p1"), ProtectableItemID: machines[0].ID,
			ProviderSpecificDetails: in.(asr.EnableProtectionProviderSpecificInputClassification)}
		if _, ok := in.(*asr.A2AEnableProtectionInput); ok {
			props.ProtectableItemID = nil // the machine is named in the provider's input
		}
		done[asr.ReplicationProtectedItemsClientCreateResponse](t)(items.BeginCreate(ctx, "rg", "v1", fabricName, l.container, itemName, asr.EnableProtectionInput{Properties: props}, nil))
		l.points = nil
	case "testFailover":
		done[asr.ReplicationProtectedItemsClientTestFailoverResponse](t)(items.BeginTestFailover(ctx, "rg", "v1", fabricName, l.container, itemName, asr.TestFailoverInput{Properties: &asr.TestFailoverInputProperties{
			FailoverDirection: direction, NetworkType: to.Ptr("NoNetworkAttachAsInput"), ProviderSpecificDetails: in.(asr.TestFailoverProviderSpecificInputClassification)}}, nil))
	case "testFailoverCleanup":
		done[asr.ReplicationProtectedItemsClientTestFailoverCleanupResponse](t)(items.BeginTestFailoverCleanup(ctx, "rg", "v1", fabricName, l.container, itemName, asr.TestFailoverCleanupInput{
			Properties: &asr.TestFailoverCleanupInputProperties{Comments: to.Ptr("fine")}}, nil))
	case "plannedFailover":
		done[asr.ReplicationProtectedItemsClientPlannedFailoverResponse](t)(items.BeginPlannedFailover(ctx, "rg", "v1", fabricName, l.container, itemName, asr.PlannedFailoverInput{
			Properties: &asr.PlannedFailoverInputProperties{FailoverDirection: direction, ProviderSpecificDetails: in.(asr.PlannedFailoverProviderSpecificFailoverInputClassification)}}, nil))
	case "unplannedFailover":
		done[asr.ReplicationProtectedItemsClientUnplannedFailoverResponse](t)(items.BeginUnplannedFailover(ctx, "rg", "v1", fabricName, l.container, itemName, asr.UnplannedFailoverInput{
			Properties: &asr.UnplannedFailoverInputProperties{FailoverDirection: direction, SourceSiteOperations: to.Ptr("NotRequired"), ProviderSpecificDetails: in.(asr.UnplannedFailoverProviderSpecificInputClassification)}}, nil))
	case "applyRecoveryPoint":
		points := all(t, l.f.NewRecoveryPointsClient().NewListByReplicationProtectedItemsPager("rg", "v1", fabricName, l.container, itemName, nil))[0].Value
		oldest := points[len(points)-1]
		if rcm, ok := in.(*asr.InMageRcmApplyRecoveryPointInput); ok {
			rcm.RecoveryPointID = oldest.ID
		}
		got := done[asr.ReplicationProtectedItemsClientApplyRecoveryPointResponse](t)(items.BeginApplyRecoveryPoint(ctx, "rg", "v1", fabricName, l.container, itemName, asr.ApplyRecoveryPointInput{
			Properties: &asr.ApplyRecoveryPointInputProperties{RecoveryPointID: oldest.ID, ProviderSpecificDetails: in.(asr.ApplyRecoveryPointProviderSpecificInputClassification)}}, nil))
		if !strings.EqualFold(*got.Properties.FailoverRecoveryPointID, *oldest.ID) {
			t.Errorf("the machine runs from %s, want %s", *got.Properties.FailoverRecoveryPointID, *oldest.ID)
		}
	case "failoverCommit":
		done[asr.ReplicationProtectedItemsClientFailoverCommitResponse](t)(items.BeginFailoverCommit(ctx, "rg", "v1", fabricName, l.container, itemName, nil))
	case "failoverCancel":
		done[asr.ReplicationProtectedItemsClientFailoverCancelResponse](t)(items.BeginFailoverCancel(ctx, "rg", "v1", fabricName, l.container, itemName, nil))
	case "addDisks":
		got := done[asr.ReplicationProtectedItemsClientAddDisksResponse](t)(items.BeginAddDisks(ctx, "rg", "v1", fabricName, l.container, itemName, asr.AddDisksInput{Properties: &asr.AddDisksInputProperties{
			ProviderSpecificDetails: in.(asr.AddDisksProviderSpecificInputClassification)}}, nil))
		if d := got.Properties.ProviderSpecificDetails.(*asr.A2AReplicationDetails).ProtectedManagedDisks; len(d) != 2 || *d[1].DiskID != "vdb" {
			t.Errorf("got disks %v, want another one", d)
		}
	case "removeDisks":
		got := done[asr.ReplicationProtectedItemsClientRemoveDisksResponse](t)(items.BeginRemoveDisks(ctx, "rg", "v1", fabricName, l.container, itemName, asr.RemoveDisksInput{Properties: &asr.RemoveDisksInputProperties{
			ProviderSpecificDetails: in.(asr.RemoveDisksProviderSpecificInputClassification)}}, nil))
		if d := got.Properties.ProviderSpecificDetails.(*asr.A2AReplicationDetails).ProtectedManagedDisks; len(d) != 1 {
			t.Errorf("got disks %v, want one", d)
		}
	case "repairReplication":
		done[asr.ReplicationProtectedItemsClientRepairReplicationResponse](t)(items.BeginRepairReplication(ctx, "rg", "v1", fabricName, l.container, itemName, nil))
	case "reProtect":
		props := &asr.ReverseReplicationInputProperties{FailoverDirection: to.Ptr("RecoveryToPrimary")}
		if in != nil {
			props.ProviderSpecificDetails = in.(asr.ReverseReplicationProviderSpecificInputClassification)
		}
		done[asr.ReplicationProtectedItemsClientReprotectResponse](t)(items.BeginReprotect(ctx, "rg", "v1", fabricName, l.container, itemName, asr.ReverseReplicationInput{Properties: props}, nil))
	case "switchProtection":
		done[asr.ReplicationProtectionContainersClientSwitchProtectionResponse](t)(l.f.NewReplicationProtectionContainersClient().BeginSwitchProtection(ctx, "rg", "v1", fabricName, l.container, asr.SwitchProtectionInput{
			Properties: &asr.SwitchProtectionInputProperties{ReplicationProtectedItemName: to.Ptr(itemName), ProviderSpecificDetails: in.(asr.SwitchProtectionProviderSpecificInputClassification)}}, nil))
	case "remove":
		done[asr.ReplicationProtectedItemsClientDeleteResponse](t)(items.BeginDelete(ctx, "rg", "v1", fabricName, l.container, itemName, asr.DisableProtectionInput{Properties: &asr.DisableProtectionInputProperties{
			ReplicationProviderInput: &asr.DisableProtectionProviderSpecificInput{InstanceType: to.Ptr("DisableProtectionProviderSpecificInput")}}}, nil))
	}
}
