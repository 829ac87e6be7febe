package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	asr "github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/recoveryservices/armrecoveryservicessiterecovery/v2"

	"github.com/lifeboat-dr/lifeboat/service/dr"
)

// refusedBy wants the SDK to have decoded a refusal with the status, and with words that tell what to do.
func refusedBy(t *testing.T, what string, status int, err error) {
	t.Helper()
	e, ok := errors.AsType[*azcore.ResponseError](err)
	if !ok || e.StatusCode != status || e.ErrorCode == "" {
		t.Errorf("%s: got %v, want %d", what, err, status)
		return
	}
	if body, err := io.ReadAll(e.RawResponse.Body); err != nil || !strings.Contains(string(body), `"recommendedAction":"`) {
		t.Errorf("%s is refused without a remedy: %s, %v", what, body, err)
	}
}

func TestTheAzureSDKCallsTheLessCommonActions(t *testing.T) {
	t.Parallel()
	s, st := newStage(t)
	cred, opt := s.azure()
	f, err := asr.NewClientFactory("sub", cred, opt)
	if err != nil {
		t.Fatal(err)
	}
	container := s.furnish()
	l := &azureLife{t: t, s: s, st: st, f: f, container: strings.TrimPrefix(container, fabricURL+"/replicationProtectionContainers/")}
	machine := st.enrol(container)
	s.must(202, "PUT", container+"/replicationProtectedItems/"+itemName, enableIn(machine))
	l.wait("Protected")
	l.itemActions()
	l.fabricActions()
	l.regions()
	l.export()
}

func (l *azureLife) itemActions() {
	t, ctx, items := l.t, l.t.Context(), l.items()
	moved := done[asr.ReplicationProtectedItemsClientUpdateApplianceResponse](t)(items.BeginUpdateAppliance(ctx, "rg", "v1", fabricName, l.container, itemName, asr.UpdateApplianceForReplicationProtectedItemInput{
		Properties: &asr.UpdateApplianceForReplicationProtectedItemInputProperties{TargetApplianceID: to.Ptr(mainReplicator),
			ProviderSpecificDetails: &asr.InMageRcmUpdateApplianceForReplicationProtectedItemInput{InstanceType: to.Ptr("InMageRcm"), RunAsAccountID: to.Ptr("1")}}}, nil))
	if d := moved.Properties.ProviderSpecificDetails.(*asr.InMageRcmReplicationDetails); *d.ProcessServerID != mainReplicator || *moved.Properties.ProtectionState != "Protected" {
		t.Errorf("the machine's process server is %s, its state %s", *d.ProcessServerID, *moved.Properties.ProtectionState)
	}
	_, err := items.BeginUpdateAppliance(ctx, "rg", "v1", fabricName, l.container, itemName, asr.UpdateApplianceForReplicationProtectedItemInput{
		Properties: &asr.UpdateApplianceForReplicationProtectedItemInputProperties{TargetApplianceID: to.Ptr("nobody"),
			ProviderSpecificDetails: &asr.InMageRcmUpdateApplianceForReplicationProtectedItemInput{InstanceType: to.Ptr("InMageRcm")}}}, nil)
	refusedBy(t, "an appliance that is not there", 400, err)
	done[asr.ReplicationProtectedItemsClientResolveHealthErrorsResponse](t)(items.BeginResolveHealthErrors(ctx, "rg", "v1", fabricName, l.container, itemName, asr.ResolveHealthInput{
		Properties: &asr.ResolveHealthInputProperties{HealthErrors: []*asr.ResolveHealthError{{HealthErrorID: to.Ptr("gone")}}}}, nil))
	l.disks()
	_, err = items.BeginSwitchProvider(ctx, "rg", "v1", fabricName, l.container, itemName, asr.SwitchProviderInput{Properties: &asr.SwitchProviderInputProperties{TargetInstanceType: to.Ptr("InMageRcm"),
		ProviderSpecificDetails: &asr.InMageAzureV2SwitchProviderInput{InstanceType: to.Ptr("InMageAzureV2"), TargetVaultID: to.Ptr(vaultURL), TargetFabricID: to.Ptr(fabricURL), TargetApplianceID: to.Ptr("x")}}}, nil)
	refusedBy(t, "switchProvider of a machine that is there already", 409, err)
	_, err = items.BeginUpdateMobilityService(ctx, "rg", "v1", fabricName, l.container, itemName, asr.UpdateMobilityServiceRequest{Properties: &asr.UpdateMobilityServiceRequestProperties{RunAsAccountID: to.Ptr("1")}}, nil)
	refusedBy(t, "updateMobilityService", 501, err)
	l.s.must(501, "POST", fabricURL+"/replicationProtectionContainers/"+l.container+"/replicationProtectedItems/"+itemName+"/reinstallMobilityService", `{"properties":{"runAsAccountId":"1"}}`)
}

// disks adds a disk that the machine has got and takes it away again.
func (l *azureLife) disks() {
	t, ctx, items := l.t, l.t.Context(), l.items()
	l.st.plug(dr.MachineDisk{ID: "vdc", Path: "/dev/vdc", SizeBytes: 1 << 30, SectorSize: 512})
	eventually(t, func() (bool, string) {
		got, err := items.Get(ctx, "rg", "v1", fabricName, l.container, itemName, nil)
		if err != nil {
			t.Fatal(err)
		}
		d := got.Properties.ProviderSpecificDetails.(*asr.InMageRcmReplicationDetails).UnprotectedDisks
		return len(d) == 1 && *d[0].DiskID == "vdc", fmt.Sprintf("the machine's candidates are %v", d)
	})
	add := func(disk string) asr.AddDisksInput {
		return asr.AddDisksInput{Properties: &asr.AddDisksInputProperties{ProviderSpecificDetails: &asr.InMageRcmAddDisksInput{InstanceType: to.Ptr("InMageRcm"),
			Disks: []*asr.InMageRcmDiskInput{{DiskID: &disk, DiskType: to.Ptr(asr.DiskAccountTypePremiumLRS), LogStorageAccountID: to.Ptr("cache")}}}}}
	}
	_, err := items.BeginAddDisks(ctx, "rg", "v1", fabricName, l.container, itemName, add("nothing"), nil)
	refusedBy(t, "a disk that the machine does not have", 400, err)
	added := done[asr.ReplicationProtectedItemsClientAddDisksResponse](t)(items.BeginAddDisks(ctx, "rg", "v1", fabricName, l.container, itemName, add("vdc"), nil))
	d := added.Properties.ProviderSpecificDetails.(*asr.InMageRcmReplicationDetails)
	if n := len(d.ProtectedDisks); *added.Properties.ProtectionState != "Protected" || len(d.UnprotectedDisks) != 0 || n == 0 || *d.ProtectedDisks[n-1].DiskID != "vdc" ||
		*d.ProtectedDisks[n-1].DiskType != asr.DiskAccountTypePremiumLRS || *d.ProtectedDisks[n-1].LogStorageAccountID != "cache" {
		t.Errorf("got %s machine with disks %v", *added.Properties.ProtectionState, d.ProtectedDisks)
	}
	path := fabricURL + "/replicationProtectionContainers/" + l.container + "/replicationProtectedItems/" + itemName
	state := func(want string) {
		t.Helper()
		eventually(t, func() (bool, string) {
			disks := l.s.must(200, "GET", path, "").at("properties.providerSpecificDetails.protectedDisks").([]any)
			last := disks[len(disks)-1].(map[string]any)
			return last["diskId"] == "vdc" && last["diskState"] == want && last["isInitialReplicationComplete"] == map[string]string{"Protected": "true"}[want], fmt.Sprint(last)
		})
	}
	l.s.must(202, "POST", path+"/captureNow", "")
	state("Protected")
	_, err = items.BeginAddDisks(ctx, "rg", "v1", fabricName, l.container, itemName, add("vdc"), nil)
	refusedBy(t, "a disk that is protected already", 409, err)
	_, err = items.BeginRemoveDisks(ctx, "rg", "v1", fabricName, l.container, itemName, asr.RemoveDisksInput{Properties: &asr.RemoveDisksInputProperties{
		ProviderSpecificDetails: &asr.A2ARemoveDisksInput{InstanceType: to.Ptr("A2A"), VMManagedDisksIDs: []*string{to.Ptr("vdc")}}}}, nil)
	refusedBy(t, "input of another provider", 400, err)
	l.s.must(202, "POST", path+"/removeDisks", `{"properties":{"providerSpecificDetails":{"instanceType":"InMageRcm","diskIds":["vdc"]}}}`)
	eventually(t, func() (bool, string) {
		got := l.s.must(200, "GET", path, "")
		return got.at("properties.providerSpecificDetails.unprotectedDisks.0.diskId") == "vdc", got.String()
	})
}

func (l *azureLife) fabricActions() {
	t, ctx, fabrics := l.t, l.t.Context(), l.f.NewReplicationFabricsClient()
	_, err := fabrics.BeginMigrateToAAD(ctx, "rg", "v1", fabricName, nil)
	refusedBy(t, "moving a fabric to a directory", 501, err)
	renewed := done[asr.ReplicationFabricsClientRenewCertificateResponse](t)(fabrics.BeginRenewCertificate(ctx, "rg", "v1", fabricName, asr.RenewCertificateInput{
		Properties: &asr.RenewCertificateInputProperties{RenewCertificateType: to.Ptr("Cloud")}}, nil))
	if *renewed.Name != fabricName {
		t.Errorf("renewing answers with fabric %s", *renewed.Name)
	}
	done[asr.ReplicationFabricsClientReassociateGatewayResponse](t)(fabrics.BeginReassociateGateway(ctx, "rg", "v1", fabricName, asr.FailoverProcessServerRequest{Properties: &asr.FailoverProcessServerRequestProperties{
		ContainerName: to.Ptr(l.container), SourceProcessServerID: to.Ptr(mainReplicator), TargetProcessServerID: to.Ptr(mainReplicator), UpdateType: to.Ptr("systemlevel"), VMsToMigrate: []*string{to.Ptr(itemName)}}}, nil))
	_, err = fabrics.BeginReassociateGateway(ctx, "rg", "v1", fabricName, asr.FailoverProcessServerRequest{Properties: &asr.FailoverProcessServerRequestProperties{
		TargetProcessServerID: to.Ptr(mainReplicator), UpdateType: to.Ptr("systemlevel"), VMsToMigrate: []*string{to.Ptr("nobody")}}}, nil)
	refusedBy(t, "moving a machine that is not there", 400, err)
	_, err = fabrics.BeginRemoveInfra(ctx, "rg", "v1", fabricName, nil)
	refusedBy(t, "removing a fabric that protects", 409, err)

	identity := &asr.IdentityProviderInput{TenantID: to.Ptr("t"), ApplicationID: to.Ptr("a"), ObjectID: to.Ptr("o"), Audience: to.Ptr("u"), AADAuthority: to.Ptr("h")}
	register := func(host string) asr.AddRecoveryServicesProviderInput {
		return asr.AddRecoveryServicesProviderInput{Properties: &asr.AddRecoveryServicesProviderInputProperties{MachineName: to.Ptr(host), AuthenticationIdentityInput: identity, ResourceAccessIdentityInput: identity}}
	}
	providers := l.f.NewReplicationRecoveryServicesProvidersClient()
	made := done[asr.ReplicationRecoveryServicesProvidersClientCreateResponse](t)(providers.BeginCreate(ctx, "rg", "v1", fabricName, "main", register("main"), nil))
	if *made.Properties.FabricFriendlyName != fabricName || *made.Properties.ConnectionStatus != "Connected" {
		t.Errorf("got provider %+v", made.Properties)
	}
	_, err = providers.BeginCreate(ctx, "rg", "v1", fabricName, "other", register("stranger"), nil)
	refusedBy(t, "a provider that never enrolled", 409, err)
}

func (l *azureLife) regions() {
	t, ctx := l.t, l.t.Context()
	fabrics, containers := l.f.NewReplicationFabricsClient(), l.f.NewReplicationProtectionContainersClient()
	for _, region := range []string{"east", "west"} {
		done[asr.ReplicationFabricsClientCreateResponse](t)(fabrics.BeginCreate(ctx, "rg", "v1", region, asr.FabricCreationInput{Properties: &asr.FabricCreationInputProperties{
			CustomDetails: &asr.AzureFabricCreationInput{InstanceType: to.Ptr("Azure"), Location: to.Ptr(region)}}}, nil))
		made := done[asr.ReplicationProtectionContainersClientCreateResponse](t)(containers.BeginCreate(ctx, "rg", "v1", region, region+"1", asr.CreateProtectionContainerInput{
			Properties: &asr.CreateProtectionContainerInputProperties{ProviderSpecificInput: []asr.ReplicationProviderSpecificContainerCreationInputClassification{&asr.A2AContainerCreationInput{InstanceType: to.Ptr("A2A")}}}}, nil))
		if *made.Name != region+"1" || *made.Properties.FabricType != "Azure" {
			t.Errorf("got container %+v", made.Properties)
		}
	}
	_, err := containers.BeginCreate(ctx, "rg", "v1", fabricName, "mine", asr.CreateProtectionContainerInput{Properties: &asr.CreateProtectionContainerInputProperties{}}, nil)
	refusedBy(t, "a container in a fabric that makes its own", 409, err)
	_, err = containers.BeginDelete(ctx, "rg", "v1", fabricName, l.container, nil)
	refusedBy(t, "removing a container that its fabric made", 409, err)
	_, err = containers.BeginSwitchProtection(ctx, "rg", "v1", fabricName, l.container, asr.SwitchProtectionInput{Properties: &asr.SwitchProtectionInputProperties{ReplicationProtectedItemName: to.Ptr(itemName),
		ProviderSpecificDetails: &asr.A2ASwitchProtectionInput{InstanceType: to.Ptr("A2A")}}}, nil)
	refusedBy(t, "switching a machine that is not between regions", 409, err)

	policies, mappings := l.f.NewReplicationPoliciesClient(), l.f.NewReplicationProtectionContainerMappingsClient()
	policy := done[asr.ReplicationPoliciesClientCreateResponse](t)(policies.BeginCreate(ctx, "rg", "v1", "regions", asr.CreatePolicyInput{Properties: &asr.CreatePolicyInputProperties{ProviderSpecificInput: &asr.A2APolicyCreationInput{
		InstanceType: to.Ptr("A2A"), MultiVMSyncStatus: to.Ptr(asr.SetMultiVMSyncStatusEnable), RecoveryPointHistory: to.Ptr[int32](1440), AppConsistentFrequencyInMinutes: to.Ptr[int32](240)}}}, nil))
	if d := policy.Properties.ProviderSpecificDetails.(*asr.A2APolicyDetails); *d.RecoveryPointHistory != 1440 || *d.CrashConsistentFrequencyInMinutes != 5 || *d.MultiVMSyncStatus != "Enabled" {
		t.Errorf("got policy %+v", d)
	}
	input := func(target string) asr.CreateProtectionContainerMappingInput {
		return asr.CreateProtectionContainerMappingInput{Properties: &asr.CreateProtectionContainerMappingInputProperties{PolicyID: policy.ID, TargetProtectionContainerID: to.Ptr(target),
			ProviderSpecificInput: &asr.A2AContainerMappingInput{InstanceType: to.Ptr("A2A"), AgentAutoUpdateStatus: to.Ptr(asr.AgentAutoUpdateStatusDisabled)}}}
	}
	west := vaultURL + "/replicationFabrics/west/replicationProtectionContainers/west1"
	mapped := done[asr.ReplicationProtectionContainerMappingsClientCreateResponse](t)(mappings.BeginCreate(ctx, "rg", "v1", "east", "east1", "m", input(west), nil))
	if d, ok := mapped.Properties.ProviderSpecificDetails.(*asr.A2AProtectionContainerMappingDetails); !ok || *d.AgentAutoUpdateStatus != asr.AgentAutoUpdateStatusDisabled {
		t.Errorf("got mapping %+v", mapped.Properties)
	}
	_, err = mappings.BeginCreate(ctx, "rg", "v1", "east", "east1", "n", input(vaultURL+"/replicationFabrics/west/replicationProtectionContainers/none"), nil)
	refusedBy(t, "a mapping to nowhere", 400, err)
	_, err = l.items().BeginCreate(ctx, "rg", "v1", "east", "east1", "web02", asr.EnableProtectionInput{Properties: &asr.EnableProtectionInputProperties{PolicyID: policy.ID,
		ProviderSpecificDetails: &asr.A2AEnableProtectionInput{InstanceType: to.Ptr("A2A"), FabricObjectID: to.Ptr("/machines/web02"), RecoveryContainerID: to.Ptr(west)}}}, nil)
	refusedBy(t, "protection between regions", 501, err)
	_, err = containers.BeginDelete(ctx, "rg", "v1", "east", "east1", nil)
	refusedBy(t, "removing a container with a mapping", 409, err)
	done[asr.ReplicationProtectionContainersClientDeleteResponse](t)(containers.BeginDelete(ctx, "rg", "v1", "west", "west1", nil))
	done[asr.ReplicationFabricsClientRemoveInfraResponse](t)(fabrics.BeginRemoveInfra(ctx, "rg", "v1", "west", nil))
}

func (l *azureLife) export() {
	t, ctx := l.t, l.t.Context()
	for _, format := range asr.PossibleExportJobOutputSerializationTypeValues() {
		exported := done[asr.ReplicationJobsClientExportResponse](t)(l.f.NewReplicationJobsClient().BeginExport(ctx, "rg", "v1", asr.JobQueryParameter{JobStatus: to.Ptr("Succeeded"),
			JobOutputType: to.Ptr(format), TimezoneOffset: to.Ptr(60.0), StartTime: to.Ptr("2020-01-01T00:00:00Z")}, nil))
		d, ok := exported.Properties.CustomDetails.(*asr.ExportJobDetails)
		if !ok || *exported.Properties.State != "Succeeded" {
			t.Fatalf("got job %+v", exported.Properties)
		}
		a := l.s.send(RoleReader, http.MethodGet, *d.BlobURI, "")
		if a.status != 200 || !strings.Contains(string(a.raw), "AddProtectionProfile") || !strings.Contains(string(a.raw), "+01:00") {
			t.Errorf("%s: %s leads to %s", format, *d.BlobURI, a)
		}
		var rows []map[string]any
		if err := json.Unmarshal(a.raw, &rows); format == asr.ExportJobOutputSerializationTypeJSON && (err != nil || len(rows) < 3 || rows[0]["state"] != "Succeeded") {
			t.Errorf("got %v, %v", rows, err)
		}
	}
	_, err := l.f.NewReplicationJobsClient().BeginExport(ctx, "rg", "v1", asr.JobQueryParameter{JobStatus: to.Ptr("Dreaming")}, nil)
	refusedBy(t, "jobs in a state there is none of", 400, err)
}
