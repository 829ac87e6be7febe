package api

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/arm"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/cloud"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/recoveryservices/armrecoveryservices"
	asr "github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/recoveryservices/armrecoveryservicessiterecovery/v2"
)

// The official Azure SDK for Go is a client that we did not write: what it cannot decode or poll, nobody can.

type staticToken string

func (s staticToken) GetToken(context.Context, policy.TokenRequestOptions) (azcore.AccessToken, error) {
	return azcore.AccessToken{Token: string(s), ExpiresOn: time.Now().Add(time.Hour)}, nil
}

func (s *site) azure() (azcore.TokenCredential, *arm.ClientOptions) {
	return staticToken(secrets[RoleContributor]), &arm.ClientOptions{DisableRPRegistration: false, ClientOptions: policy.ClientOptions{Transport: s.web.Client(),
		Retry: policy.RetryOptions{MaxRetries: -1},
		Cloud: cloud.Configuration{ActiveDirectoryAuthorityHost: "https://login.invalid/", Services: map[cloud.ServiceName]cloud.ServiceConfiguration{
			cloud.ResourceManager: {Endpoint: s.web.URL, Audience: "https://lifeboat.invalid"}}}}}
}

// done polls an operation of the SDK to its end.
func done[T any](t *testing.T) func(p *runtime.Poller[T], err error) T {
	t.Helper()
	return func(p *runtime.Poller[T], err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		out, err := p.PollUntilDone(ctx, &runtime.PollUntilDoneOptions{Frequency: 10 * time.Millisecond})
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
}

// all reads every page of a list.
func all[T any](t *testing.T, p *runtime.Pager[T]) (pages []T) {
	t.Helper()
	for p.More() {
		page, err := p.NextPage(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		pages = append(pages, page)
	}
	return pages
}

const fabricName, itemName = "site1", "web01"

func TestTheAzureSDKDrivesAWholeLife(t *testing.T) {
	t.Parallel()
	s, st := newStage(t)
	ctx := t.Context()
	cred, opt := s.azure()
	vaults, err := armrecoveryservices.NewVaultsClient("sub", cred, opt)
	if err != nil {
		t.Fatal(err)
	}
	made := done[armrecoveryservices.VaultsClientCreateOrUpdateResponse](t)(vaults.BeginCreateOrUpdate(ctx, "rg", "v1", armrecoveryservices.Vault{Location: to.Ptr("here"),
		SKU: &armrecoveryservices.SKU{Name: to.Ptr(armrecoveryservices.SKUNameStandard)}, Properties: &armrecoveryservices.VaultProperties{}}, nil))
	if *made.Properties.ProvisioningState != "Succeeded" || *made.Name != "v1" {
		t.Fatalf("got vault %+v", made.Vault)
	}
	done[armrecoveryservices.VaultsClientUpdateResponse](t)(vaults.BeginUpdate(ctx, "rg", "v1", armrecoveryservices.PatchVault{Tags: map[string]*string{"team": to.Ptr("ops")}}, nil))
	if got, err := vaults.Get(ctx, "rg", "v1", nil); err != nil || *got.Tags["team"] != "ops" {
		t.Fatalf("got vault %+v, %v", got.Vault, err)
	}
	if n := len(all(t, vaults.NewListBySubscriptionIDPager(nil))[0].Value); n != 1 {
		t.Errorf("the subscription has %d vaults", n)
	}

	f, err := asr.NewClientFactory("sub", cred, opt)
	if err != nil {
		t.Fatal(err)
	}
	life := &azureLife{t: t, s: s, st: st, f: f}
	life.infrastructure()
	life.protect()
	life.drill()
	life.failover()
	life.failback()
	life.jobs()
	life.end()
	if _, err := vaults.Delete(ctx, "rg", "v1", nil); err != nil {
		t.Errorf("delete the vault: %v", err)
	}
	_, err = vaults.Get(ctx, "rg", "v1", nil)
	if e, ok := errors.AsType[*azcore.ResponseError](err); !ok || e.StatusCode != 404 || e.ErrorCode == "" {
		t.Errorf("the vault is still there: %v", err)
	}
}

// azureLife is the life of one machine through the SDK.
type azureLife struct {
	t         *testing.T
	s         *site
	st        *stage
	f         *asr.ClientFactory
	container string
	points    []*asr.RecoveryPoint
}

func (l *azureLife) infrastructure() {
	t, ctx := l.t, l.t.Context()
	fabrics := l.f.NewReplicationFabricsClient()
	fabric := done[asr.ReplicationFabricsClientCreateResponse](t)(fabrics.BeginCreate(ctx, "rg", "v1", fabricName, asr.FabricCreationInput{Properties: &asr.FabricCreationInputProperties{
		CustomDetails: &asr.InMageRcmFabricCreationInput{InstanceType: to.Ptr("InMageRcm"), PhysicalSiteID: to.Ptr("p"), VmwareSiteID: to.Ptr("v"),
			SourceAgentIdentity: &asr.IdentityProviderInput{TenantID: to.Ptr("t"), ApplicationID: to.Ptr("a"), ObjectID: to.Ptr("o"), Audience: to.Ptr("u"), AADAuthority: to.Ptr("h")}}}}, nil))
	if _, ok := fabric.Properties.CustomDetails.(*asr.InMageRcmFabricSpecificDetails); !ok {
		t.Fatalf("the fabric's details decode to %T", fabric.Properties.CustomDetails)
	}
	done[asr.ReplicationFabricsClientCheckConsistencyResponse](t)(fabrics.BeginCheckConsistency(ctx, "rg", "v1", fabricName, nil))
	if n := len(all(t, fabrics.NewListPager("rg", "v1", nil))[0].Value); n != 1 {
		t.Errorf("the vault has %d fabrics", n)
	}
	containers := l.f.NewReplicationProtectionContainersClient()
	found := all(t, containers.NewListByReplicationFabricsPager("rg", "v1", fabricName, nil))[0].Value
	if len(found) != 1 {
		t.Fatalf("the fabric has %d containers", len(found))
	}
	l.container = *found[0].Name
	if n := len(all(t, containers.NewListPager("rg", "v1", nil))[0].Value); n != 1 {
		t.Errorf("the vault has %d containers", n)
	}
	discovered := done[asr.ReplicationProtectionContainersClientDiscoverProtectableItemResponse](t)(containers.BeginDiscoverProtectableItem(ctx, "rg", "v1", fabricName, l.container, asr.DiscoverProtectableItemRequest{
		Properties: &asr.DiscoverProtectableItemRequestProperties{FriendlyName: to.Ptr("web01"), IPAddress: to.Ptr("192.0.2.10"), OSType: to.Ptr("Linux")}}, nil))
	if *discovered.Properties.FabricType != "InMageRcm" {
		t.Errorf("got container %+v", discovered.Properties)
	}

	policies := l.f.NewReplicationPoliciesClient()
	for name, in := range map[string]asr.PolicyProviderSpecificInputClassification{
		"p1":   &asr.InMageRcmPolicyCreationInput{InstanceType: to.Ptr("InMageRcm"), CrashConsistentFrequencyInMinutes: to.Ptr[int32](5), RecoveryPointHistoryInMinutes: to.Ptr[int32](1440), EnableMultiVMSync: to.Ptr("false")},
		"back": &asr.InMageRcmFailbackPolicyCreationInput{InstanceType: to.Ptr("InMageRcmFailback"), CrashConsistentFrequencyInMinutes: to.Ptr[int32](5), AppConsistentFrequencyInMinutes: to.Ptr[int32](60)},
	} {
		done[asr.ReplicationPoliciesClientCreateResponse](t)(policies.BeginCreate(ctx, "rg", "v1", name, asr.CreatePolicyInput{Properties: &asr.CreatePolicyInputProperties{ProviderSpecificInput: in}}, nil))
	}
	changed := done[asr.ReplicationPoliciesClientUpdateResponse](t)(policies.BeginUpdate(ctx, "rg", "v1", "p1", asr.UpdatePolicyInput{Properties: &asr.UpdatePolicyInputProperties{
		ReplicationProviderSettings: &asr.InMageRcmPolicyCreationInput{InstanceType: to.Ptr("InMageRcm"), CrashConsistentFrequencyInMinutes: to.Ptr[int32](10)}}}, nil))
	if d, ok := changed.Properties.ProviderSpecificDetails.(*asr.InMageRcmPolicyDetails); !ok || *d.CrashConsistentFrequencyInMinutes != 10 {
		t.Errorf("the policy's details are %+v", changed.Properties.ProviderSpecificDetails)
	}
	mappings := l.f.NewReplicationProtectionContainerMappingsClient()
	for _, name := range []string{"p1", "back"} {
		m := done[asr.ReplicationProtectionContainerMappingsClientCreateResponse](t)(mappings.BeginCreate(ctx, "rg", "v1", fabricName, l.container, name, asr.CreateProtectionContainerMappingInput{
			Properties: &asr.CreateProtectionContainerMappingInputProperties{PolicyID: to.Ptr(vaultURL + "/replicationPolicies/" + name), TargetProtectionContainerID: to.Ptr("Microsoft Azure")}}, nil))
		if *m.Properties.State != "Paired" || *m.Properties.PolicyFriendlyName != name {
			t.Errorf("got mapping %+v", m.Properties)
		}
	}
	if n := len(all(t, mappings.NewListPager("rg", "v1", nil))[0].Value); n != 2 {
		t.Errorf("the vault has %d mappings", n)
	}
	providers := l.f.NewReplicationRecoveryServicesProvidersClient()
	all(t, providers.NewListPager("rg", "v1", nil))
}

func (l *azureLife) items() *asr.ReplicationProtectedItemsClient {
	return l.f.NewReplicationProtectedItemsClient()
}

// wait waits until the item's protectionState is the one given and its operation has ended, and returns the item.
func (l *azureLife) wait(state string) *asr.ReplicationProtectedItemProperties {
	l.t.Helper()
	var p *asr.ReplicationProtectedItemProperties
	eventually(l.t, func() (bool, string) {
		got, err := l.items().Get(l.t.Context(), "rg", "v1", fabricName, l.container, itemName, nil)
		if err != nil {
			l.t.Fatal(err)
		}
		p = got.Properties
		return *p.ProtectionState == state && len(p.AllowedOperations) > 0,
			fmt.Sprintf("waited for %s; the item is %s (%s), may %v", state, *p.ProtectionState, *p.ProtectionStateDescription, allowedOf(p))
	})
	return p
}

func allowedOf(p *asr.ReplicationProtectedItemProperties) (out []string) {
	for _, o := range p.AllowedOperations {
		out = append(out, *o)
	}
	slices.Sort(out)
	return out
}

func (l *azureLife) expect(p *asr.ReplicationProtectedItemProperties, location string, allowed ...string) {
	l.t.Helper()
	slices.Sort(allowed)
	if *p.ActiveLocation != location || !slices.Equal(allowedOf(p), allowed) {
		l.t.Errorf("%s: active at %s, may %v; want %s and %v", *p.ProtectionState, *p.ActiveLocation, allowedOf(p), location, allowed)
	}
}

func (l *azureLife) protect() {
	t, ctx := l.t, l.t.Context()
	containerURL := fabricURL + "/replicationProtectionContainers/" + l.container
	machine := l.st.enrol(containerURL)
	protectables := l.f.NewReplicationProtectableItemsClient()
	found := all(t, protectables.NewListByReplicationProtectionContainersPager("rg", "v1", fabricName, l.container, nil))[0].Value
	if len(found) != 1 {
		t.Fatalf("%d machines were discovered", len(found))
	}
	one, err := protectables.Get(ctx, "rg", "v1", fabricName, l.container, *found[0].Name, nil)
	if err != nil {
		t.Fatal(err)
	}
	if d, ok := one.Properties.CustomDetails.(*asr.VMwareVirtualMachineDetails); !ok || *d.AgentInstalled != "true" || len(d.DiskDetails) != 2 || *d.DiskDetails[0].DiskSizeInMB != "1024" {
		t.Errorf("the machine's details are %+v", one.Properties.CustomDetails)
	}
	created := done[asr.ReplicationProtectedItemsClientCreateResponse](t)(l.items().BeginCreate(ctx, "rg", "v1", fabricName, l.container, itemName, asr.EnableProtectionInput{Properties: &asr.EnableProtectionInputProperties{
		PolicyID: to.Ptr(vaultURL + "/replicationPolicies/p1"), ProtectableItemID: to.Ptr(machine), ProviderSpecificDetails: &asr.InMageRcmEnableProtectionInput{InstanceType: to.Ptr("InMageRcm"),
			FabricDiscoveryMachineID: to.Ptr(machine), ProcessServerID: to.Ptr(mainReplicator), TargetResourceGroupID: to.Ptr("/subscriptions/sub/resourceGroups/rg"), TargetVMName: to.Ptr("web01-dr")}}}, nil))
	if *created.Name != itemName {
		t.Errorf("got item %s", *created.Name)
	}
	p := l.wait("Protected")
	l.expect(p, "Primary", "UnplannedFailover", "DisableProtection", "TestFailover")
	d, ok := p.ProviderSpecificDetails.(*asr.InMageRcmReplicationDetails)
	if !ok {
		t.Fatalf("the item's details decode to %T", p.ProviderSpecificDetails)
	}
	if *d.TargetVMName != "web01-dr" || len(d.ProtectedDisks) != 2 || *d.ProtectedDisks[0].IsOSDisk != "true" || *d.ProtectedDisks[0].CapacityInBytes != 1<<30 || *d.MobilityAgentDetails.Version != "0.1.0" ||
		d.LastRpoInSeconds == nil || d.LastRecoveryPointID == nil || *d.InitialReplicationProgressPercentage != 100 || len(d.VMNics) != 1 {
		t.Errorf("the item's details are %+v", d)
	}
	if *p.CurrentScenario.ScenarioName != "None" || !strings.HasSuffix(*p.CurrentScenario.JobID, "/replicationJobs/None") || *p.RecoveryFabricID != "Microsoft Azure" {
		t.Errorf("got %+v", p.CurrentScenario)
	}
	updated := done[asr.ReplicationProtectedItemsClientUpdateResponse](t)(l.items().BeginUpdate(ctx, "rg", "v1", fabricName, l.container, itemName, asr.UpdateReplicationProtectedItemInput{
		Properties: &asr.UpdateReplicationProtectedItemInputProperties{ProviderSpecificDetails: &asr.InMageRcmUpdateReplicationProtectedItemInput{InstanceType: to.Ptr("InMageRcm"), TargetVMName: to.Ptr("web01-new")}}}, nil))
	if d := updated.Properties.ProviderSpecificDetails.(*asr.InMageRcmReplicationDetails); *d.TargetVMName != "web01-new" {
		t.Errorf("the update left %s", *d.TargetVMName)
	}
	if n := len(all(t, l.items().NewListPager("rg", "v1", &asr.ReplicationProtectedItemsClientListOptions{Filter: to.Ptr("SourceFabricName eq 'SITE1' and InstanceType eq 'InMageRcm'")}))[0].Value); n != 1 {
		t.Errorf("the vault has %d items", n)
	}
	if n := len(all(t, l.items().NewListByReplicationProtectionContainersPager("rg", "v1", fabricName, l.container, nil))[0].Value); n != 1 {
		t.Errorf("the container has %d items", n)
	}
	points := l.f.NewRecoveryPointsClient()
	l.points = all(t, points.NewListByReplicationProtectedItemsPager("rg", "v1", fabricName, l.container, itemName, nil))[0].Value
	if len(l.points) == 0 {
		t.Fatal("no recovery points")
	}
	pt, err := points.Get(ctx, "rg", "v1", fabricName, l.container, itemName, *l.points[0].Name, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := pt.Properties.ProviderSpecificDetails.(*asr.InMageRcmRecoveryPointDetails); !ok || *pt.Properties.RecoveryPointType != "CrashConsistent" {
		t.Errorf("got point %+v", pt.Properties)
	}
}

func (l *azureLife) drill() {
	t, ctx := l.t, l.t.Context()
	drilled := done[asr.ReplicationProtectedItemsClientTestFailoverResponse](t)(l.items().BeginTestFailover(ctx, "rg", "v1", fabricName, l.container, itemName, asr.TestFailoverInput{Properties: &asr.TestFailoverInputProperties{
		FailoverDirection: to.Ptr("PrimaryToRecovery"), NetworkType: to.Ptr("NoNetworkAttachAsInput"), ProviderSpecificDetails: &asr.InMageRcmTestFailoverInput{InstanceType: to.Ptr("InMageRcm")}}}, nil))
	p := drilled.Properties
	l.expect(p, "Primary", "TestFailoverCleanup")
	if *p.TestFailoverState != "WaitingForCompletion" || *p.ProtectionState != "Protected" || *p.CurrentScenario.ScenarioName != "TestFailover" {
		t.Errorf("during a drill the item is %s, %s", *p.ProtectionState, *p.TestFailoverState)
	}
	cleaned := done[asr.ReplicationProtectedItemsClientTestFailoverCleanupResponse](t)(l.items().BeginTestFailoverCleanup(ctx, "rg", "v1", fabricName, l.container, itemName, asr.TestFailoverCleanupInput{
		Properties: &asr.TestFailoverCleanupInputProperties{Comments: to.Ptr("fine")}}, nil))
	l.expect(cleaned.Properties, "Primary", "UnplannedFailover", "DisableProtection", "TestFailover")
	if cleaned.Properties.LastSuccessfulTestFailoverTime == nil || *cleaned.Properties.TestFailoverState != "MarkedForDeletion" {
		t.Errorf("after a drill the item is %+v", cleaned.Properties)
	}
}

func (l *azureLife) failover() {
	t, ctx := l.t, l.t.Context()
	_, err := l.items().BeginFailoverCommit(ctx, "rg", "v1", fabricName, l.container, itemName, nil)
	if e, ok := errors.AsType[*azcore.ResponseError](err); !ok || e.StatusCode != 409 || e.ErrorCode != "Conflict" {
		t.Errorf("a commit without a failover: %v", err)
	}
	l.st.lose()
	over := done[asr.ReplicationProtectedItemsClientUnplannedFailoverResponse](t)(l.items().BeginUnplannedFailover(ctx, "rg", "v1", fabricName, l.container, itemName, asr.UnplannedFailoverInput{Properties: &asr.UnplannedFailoverInputProperties{
		FailoverDirection: to.Ptr("primarytorecovery"), SourceSiteOperations: to.Ptr("NotRequired"), ProviderSpecificDetails: &asr.InMageRcmUnplannedFailoverInput{InstanceType: to.Ptr("InMageRcm"), PerformShutdown: to.Ptr("false")}}}, nil))
	p := over.Properties
	if *p.ActiveLocation != "Recovery" || *p.ProtectionState != "UnplannedFailoverCommitPendingStatesBegin" || p.FailoverRecoveryPointID == nil || p.LastSuccessfulFailoverTime == nil {
		t.Errorf("after a failover the item is %+v", p)
	}
	oldest := l.points[len(l.points)-1]
	other := done[asr.ReplicationProtectedItemsClientApplyRecoveryPointResponse](t)(l.items().BeginApplyRecoveryPoint(ctx, "rg", "v1", fabricName, l.container, itemName, asr.ApplyRecoveryPointInput{Properties: &asr.ApplyRecoveryPointInputProperties{
		RecoveryPointID: oldest.ID, ProviderSpecificDetails: &asr.InMageRcmApplyRecoveryPointInput{InstanceType: to.Ptr("InMageRcm"), RecoveryPointID: oldest.ID}}}, nil))
	if !strings.EqualFold(*other.Properties.FailoverRecoveryPointID, *oldest.ID) {
		t.Errorf("the machine runs from %s, want %s", *other.Properties.FailoverRecoveryPointID, *oldest.ID)
	}
	committed := done[asr.ReplicationProtectedItemsClientFailoverCommitResponse](t)(l.items().BeginFailoverCommit(ctx, "rg", "v1", fabricName, l.container, itemName, nil))
	if *committed.Properties.ProtectionState != "UnplannedFailoverCommitted" || slices.Contains(allowedOf(committed.Properties), "Commit") {
		t.Errorf("after commit the item is %s and may %v", *committed.Properties.ProtectionState, allowedOf(committed.Properties))
	}
}

func (l *azureLife) failback() {
	t, ctx := l.t, l.t.Context()
	done[asr.ReplicationProtectedItemsClientReprotectResponse](t)(l.items().BeginReprotect(ctx, "rg", "v1", fabricName, l.container, itemName, asr.ReverseReplicationInput{Properties: &asr.ReverseReplicationInputProperties{
		FailoverDirection: to.Ptr("RecoveryToPrimary"), ProviderSpecificDetails: &asr.InMageRcmReprotectInput{InstanceType: to.Ptr("InMageRcm"), ReprotectAgentID: to.Ptr(homeReplicator), DatastoreName: to.Ptr(datastore),
			LogStorageAccountID: to.Ptr("none"), PolicyID: to.Ptr(vaultURL + "/replicationPolicies/back")}}}, nil))
	p := l.wait("Protected")
	l.expect(p, "Primary", "PlannedFailover", "DisableProtection")
	if d, ok := p.ProviderSpecificDetails.(*asr.InMageRcmFailbackReplicationDetails); !ok || len(d.ProtectedDisks) != 2 || *d.TargetDataStoreName != datastore {
		t.Errorf("the details on the way home are %+v", p.ProviderSpecificDetails)
	}
	home := func() *asr.ReplicationProtectedItemProperties {
		got := done[asr.ReplicationProtectedItemsClientPlannedFailoverResponse](t)(l.items().BeginPlannedFailover(ctx, "rg", "v1", fabricName, l.container, itemName, asr.PlannedFailoverInput{Properties: &asr.PlannedFailoverInputProperties{
			FailoverDirection: to.Ptr("PrimaryToRecovery"), ProviderSpecificDetails: &asr.InMageRcmFailbackPlannedFailoverProviderInput{InstanceType: to.Ptr("InMageRcmFailback"),
				RecoveryPointType: to.Ptr(asr.InMageRcmFailbackRecoveryPointTypeCrashConsistent)}}}, nil))
		return got.Properties
	}
	l.expect(home(), "Recovery", "CompleteMigration", "Commit", "DisableProtection", "SwitchProtection", "CancelFailover")
	cancelled := done[asr.ReplicationProtectedItemsClientFailoverCancelResponse](t)(l.items().BeginFailoverCancel(ctx, "rg", "v1", fabricName, l.container, itemName, nil))
	l.expect(cancelled.Properties, "Primary", "PlannedFailover", "DisableProtection")
	if p := home(); *p.ProtectionState != "CommitPendingStatesBegin" {
		t.Errorf("home again the item is %s", *p.ProtectionState)
	}
	done[asr.ReplicationProtectedItemsClientFailoverCommitResponse](t)(l.items().BeginFailoverCommit(ctx, "rg", "v1", fabricName, l.container, itemName, nil))
	done[asr.ReplicationProtectedItemsClientReprotectResponse](t)(l.items().BeginReprotect(ctx, "rg", "v1", fabricName, l.container, itemName, asr.ReverseReplicationInput{Properties: &asr.ReverseReplicationInputProperties{
		FailoverDirection: to.Ptr("PrimaryToRecovery"), ProviderSpecificDetails: &asr.InMageRcmFailbackReprotectInput{InstanceType: to.Ptr("InMageRcmFailback"), PolicyID: to.Ptr(vaultURL + "/replicationPolicies/p1"),
			ProcessServerID: to.Ptr(mainReplicator)}}}, nil))
	l.expect(l.wait("Protected"), "Primary", "UnplannedFailover", "DisableProtection", "TestFailover")
}

func (l *azureLife) jobs() {
	t, ctx := l.t, l.t.Context()
	jobs := l.f.NewReplicationJobsClient()
	seen := map[string]string{}
	for _, page := range all(t, jobs.NewListPager("rg", "v1", nil)) {
		for _, j := range page.Value {
			seen[*j.Properties.ScenarioName] = *j.Name
		}
	}
	for scenario, check := range map[string]func(d asr.JobDetailsClassification) bool{
		"TestFailover":                     func(d asr.JobDetailsClassification) bool { _, ok := d.(*asr.TestFailoverJobDetails); return ok },
		"UnplannedFailover":                func(d asr.JobDetailsClassification) bool { _, ok := d.(*asr.FailoverJobDetails); return ok },
		"PlannedFailover":                  func(d asr.JobDetailsClassification) bool { _, ok := d.(*asr.FailoverJobDetails); return ok },
		"SwitchReplicationGroupProtection": func(d asr.JobDetailsClassification) bool { _, ok := d.(*asr.SwitchProtectionJobDetails); return ok },
		"AddProtectionProfile":             func(d asr.JobDetailsClassification) bool { _, ok := d.(*asr.AsrJobDetails); return ok },
	} {
		name, ok := seen[scenario]
		if !ok {
			t.Errorf("no job of scenario %s among %v", scenario, seen)
			continue
		}
		j, err := jobs.Get(ctx, "rg", "v1", name, nil)
		if err != nil {
			t.Fatal(err)
		}
		if !check(j.Properties.CustomDetails) {
			t.Errorf("the details of %s decode to %T", scenario, j.Properties.CustomDetails)
		}
		if len(j.Properties.Tasks) == 0 || *j.Properties.State != "Succeeded" || j.Properties.EndTime == nil {
			t.Errorf("job %s has %d tasks and is %s", scenario, len(j.Properties.Tasks), *j.Properties.State)
		}
	}
	events := l.f.NewReplicationEventsClient()
	found := all(t, events.NewListPager("rg", "v1", nil))[0].Value
	if len(found) == 0 {
		t.Fatal("no events")
	}
	if _, err := events.Get(ctx, "rg", "v1", *found[0].Name, nil); err != nil {
		t.Error(err)
	}
	health := l.f.NewReplicationVaultHealthClient()
	if got, err := health.Get(ctx, "rg", "v1", nil); err != nil || *got.Properties.ProtectedItemsHealth.ResourceCount != 1 {
		t.Errorf("got %+v, %v", got, err)
	}
	done[asr.ReplicationVaultHealthClientRefreshResponse](t)(health.BeginRefresh(ctx, "rg", "v1", nil))
}

func (l *azureLife) end() {
	t, ctx := l.t, l.t.Context()
	done[asr.ReplicationProtectedItemsClientDeleteResponse](t)(l.items().BeginDelete(ctx, "rg", "v1", fabricName, l.container, itemName, asr.DisableProtectionInput{Properties: &asr.DisableProtectionInputProperties{
		DisableProtectionReason: to.Ptr(asr.DisableProtectionReasonNotSpecified), ReplicationProviderInput: &asr.DisableProtectionProviderSpecificInput{InstanceType: to.Ptr("DisableProtectionProviderSpecificInput")}}}, nil))
	mappings := l.f.NewReplicationProtectionContainerMappingsClient()
	done[asr.ReplicationProtectionContainerMappingsClientDeleteResponse](t)(mappings.BeginDelete(ctx, "rg", "v1", fabricName, l.container, "back", asr.RemoveProtectionContainerMappingInput{
		Properties: &asr.RemoveProtectionContainerMappingInputProperties{ProviderSpecificInput: &asr.ReplicationProviderContainerUnmappingInput{InstanceType: to.Ptr("InMageRcm")}}}, nil))
	done[asr.ReplicationProtectionContainerMappingsClientPurgeResponse](t)(mappings.BeginPurge(ctx, "rg", "v1", fabricName, l.container, "p1", nil))
	policies := l.f.NewReplicationPoliciesClient()
	for _, name := range []string{"p1", "back"} {
		done[asr.ReplicationPoliciesClientDeleteResponse](t)(policies.BeginDelete(ctx, "rg", "v1", name, nil))
	}
	done[asr.ReplicationFabricsClientDeleteResponse](t)(l.f.NewReplicationFabricsClient().BeginDelete(ctx, "rg", "v1", fabricName, nil))
}
