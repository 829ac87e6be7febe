package api

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/lifeboat-dr/lifeboat/service/control"
	"github.com/lifeboat-dr/lifeboat/service/dr"
)

// legItem is a machine on a leg, enabled and updated with input of its provider.
func legItem(leg dr.LegName, kind dr.FabricKind, phase dr.Phase, enable, update, common string) control.ItemView {
	v := goldenItem(dr.State{Leg: leg, Phase: phase})
	v.Item.EnableInput, v.Item.UpdateInput, v.Item.UpdateCommon = json.RawMessage(enable), json.RawMessage(update), json.RawMessage(common)
	v.Fabric.Kind = kind
	return v
}

// between gives the machine another site of the vault to replicate to.
func between(v control.ItemView, kind dr.FabricKind, input string) control.ItemView {
	v.Item.RecoveryFabric, v.Item.RecoveryContainer = "site2", "c2"
	v.TargetFabric = dr.Fabric{Meta: dr.Meta{Name: "site2"}, Kind: kind, Input: json.RawMessage(input)}
	v.TargetContainer = dr.Container{Meta: dr.Meta{Name: "c2"}, FriendlyName: "second"}
	return v
}

func TestBodiesOfEveryLegAreAsTheyWere(t *testing.T) {
	t.Parallel()
	c := goldenScope()
	doc, err := loadDocument()
	if err != nil {
		t.Fatal(err)
	}
	nic := `{"recoveryAzureVMSize":"large","enableRdpOnTargetOption":"Always","vmNics":[{"nicId":"52:54:00:00:00:01","targetNicName":"lan0","ipConfigs":[{"ipConfigName":"192.0.2.10","isPrimary":true,"isSeletedForFailover":true,"recoveryStaticIPAddress":"198.51.100.10"}]}]}`
	classic := legItem(dr.LegInMageAzureV2, dr.FabricVMware, dr.PhaseProtected,
		`{"instanceType":"InMageAzureV2","processServerId":"replicator-1","diskType":"Premium_LRS","targetAzureV2ResourceGroupId":"rg1","multiVmGroupId":"group-1","disksToInclude":[{"diskId":"vda","diskType":"Standard_LRS"}]}`,
		`{"instanceType":"InMageAzureV2","recoveryAzureV2ResourceGroupId":"rg2","vmDisks":[{"diskId":"vda","targetDiskName":"web01-os"}],"targetVmTags":{"owner":"shop"}}`, nic)
	classic.Item.MultiVMGroup = "shop"
	back := legItem(dr.LegInMageFailback, dr.FabricVMware, dr.PhaseInitialReplication, `{"instanceType":"InMageAzureV2"}`, "", "")
	back.Item.ReprotectInput = json.RawMessage(`{"instanceType":"InMage","masterTargetId":"replicator-home","processServerId":"replicator-1","profileId":"p","retentionDrive":"/r","datastoreName":"store1"}`)
	back.InitialPercent = 40
	hyperv := legItem(dr.LegHyperVAzure, dr.FabricHyperVSite, dr.PhaseProtected,
		`{"instanceType":"HyperVReplicaAzure","hvHostVmId":"vm-1","osType":"Linux","targetVmSize":"small","disksToIncludeForManagedDisks":[{"diskId":"vda","diskType":"Premium_LRS","iops":500}]}`,
		`{"instanceType":"HyperVReplicaAzure","useManagedDisks":"false"}`, `{"licenseType":"WindowsServer"}`)
	hypervBack := legItem(dr.LegHyperVAzureBack, dr.FabricHyperVSite, dr.PhasePlannedPending, `{"instanceType":"HyperVReplicaAzure"}`, "", "")
	clouds := between(legItem(dr.LegHyperV2012R2, dr.FabricVMM, dr.PhaseProtected, `{"instanceType":"HyperVReplica2012R2"}`, "", ""), dr.FabricVMM, "")
	region := legItem(dr.LegA2A, dr.FabricAzure, dr.PhaseInitialReplication,
		`{"instanceType":"A2A","fabricObjectId":"/machines/web01","recoveryResourceGroupId":"rg1","vmManagedDisks":[{"diskId":"vda","primaryStagingAzureStorageAccountId":"cache","recoveryResourceGroupId":"rg1","recoveryTargetDiskAccountType":"Premium_LRS"}]}`,
		`{"instanceType":"A2A","tfoAzureVMName":"web01-test"}`, `{"recoveryAzureVMSize":"large"}`)
	region.Fabric.Input, region.InitialPercent = json.RawMessage(`{"instanceType":"Azure","location":"east"}`), 40
	region = between(region, dr.FabricAzure, `{"instanceType":"Azure","location":"west"}`)
	reverse := between(legItem(dr.LegA2AReverse, dr.FabricAzure, dr.PhaseProtected, `{"instanceType":"A2A","fabricObjectId":"/machines/web01"}`, "", ""), dr.FabricAzure, `{"location":"west"}`)

	for name, v := range map[string]control.ItemView{"item_classic": classic, "item_classic_home": back, "item_hyperv_azure": hyperv, "item_hyperv_azure_home": hypervBack, "item_hyperv_sites": clouds,
		"item_regions": region, "item_regions_reverse": reverse} {
		t.Run(name, func(t *testing.T) { golden(t, doc, name, "ReplicationProtectedItem", itemBody(c, v)) })
	}
	for _, input := range []string{
		`{"instanceType":"InMageRcm","enableMultiVmSync":"true"}`,
		`{"instanceType":"InMageRcmFailback"}`,
		`{"instanceType":"InMageAzureV2","multiVmSyncStatus":"Disable","recoveryPointThresholdInMinutes":60}`,
		`{"instanceType":"InMage"}`,
		`{"instanceType":"HyperVReplicaAzure","recoveryPointHistoryDuration":12,"storageAccounts":["account1"]}`,
		`{"instanceType":"HyperVReplica2012","allowedAuthenticationType":2}`,
		`{"instanceType":"HyperVReplica2012R2","recoveryPoints":4,"replicaDeletion":"Required","onlineReplicationStartTime":"22:00:00"}`,
		`{"instanceType":"A2A","appConsistentFrequencyInMinutes":240}`,
	} {
		p, refusal := dr.ParsePolicy(json.RawMessage(input))
		if refusal != nil {
			t.Fatal(refusal)
		}
		p.Name = "p1"
		name := "policy_" + strings.ToLower(string(p.Provider))
		t.Run(name, func(t *testing.T) { golden(t, doc, name, "Policy", policyBody(c, p)) })
	}
}
