package api

import (
	"fmt"
	"maps"
	"testing"

	"github.com/lifeboat-dr/lifeboat/service/dr"
	"github.com/lifeboat-dr/lifeboat/service/job"
)

// asked is what the driver was asked for last.
func (d *legDriver) asked() job.LegOperation {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.last
}

func TestMappingsDecideWhereAReplicaIsAttachedAndStored(t *testing.T) {
	t.Parallel()
	const sites = vaultURL + "/replicationFabrics/"
	t.Run("between VMM sites", func(t *testing.T) {
		t.Parallel()
		s, d := newLegDriver(t)
		l := &azureLife{t: t, s: s}
		l.furnishLeg("VMM", `{"instanceType":"HyperVReplica2012","recoveryPoints":4}`, "/c2")
		for _, site := range []string{"site1", "site2"} {
			s.discovers(site, dr.Inventory{Networks: []dr.Network{network("red"), network("blue")}, StorageClassifications: []dr.StorageClassification{{Meta: dr.Meta{Name: "gold"}}, {Meta: dr.Meta{Name: "tin"}}}})
		}
		mapping := func(from, network, to string) string {
			return fmt.Sprintf(`{"properties":{"recoveryFabricName":%q,"recoveryNetworkId":%q,"fabricSpecificDetails":{"instanceType":"VmmToVmm"}}}`, to, sites+to+"/replicationNetworks/"+network)
		}
		storage := func(from, class, to, target string) {
			s.finish(s.must(202, "PUT", sites+from+"/replicationStorageClassifications/"+class+"/replicationStorageClassificationMappings/m", fmt.Sprintf(`{"properties":{"targetStorageClassificationId":%q}}`, sites+to+"/replicationStorageClassifications/"+target)), "Succeeded")
		}
		storage("site1", "gold", "site2", "tin")
		storage("site2", "tin", "site1", "gold")
		item := fabricURL + "/replicationProtectionContainers/" + l.container + "/replicationProtectedItems/" + itemName
		machine := s.must(200, "GET", fabricURL+"/replicationProtectionContainers/"+l.container+"/replicationProtectableItems", "").at("value.0.id").(string)
		s.finish(s.must(202, "PUT", item, fmt.Sprintf(`{"properties":{"policyId":"%s/replicationPolicies/p1","protectableItemId":%q,"providerSpecificDetails":{"instanceType":"HyperVReplica2012"}}}`, vaultURL, machine)), "Succeeded")
		if got, want := d.asked().Storage, map[string]string{"gold": "tin"}; !maps.Equal(got, want) {
			t.Errorf("the driver was told of storage %v, want %v", got, want)
		}
		s.until(item, "properties.protectionState", "Protected")
		operation := func(op, properties string) {
			t.Helper()
			s.finish(s.must(202, "POST", item+"/"+op, `{"properties":{`+properties+`}}`), "Succeeded")
		}
		drill := func(properties, want string) {
			t.Helper()
			operation("testFailover", `"failoverDirection":"PrimaryToRecovery",`+properties)
			if got := d.asked().Network; got != want {
				t.Errorf("a drill with %s is attached to %q, want %q", properties, got, want)
			}
			operation("testFailoverCleanup", `"comments":"fine"`)
		}
		const choose, none = `"networkType":"VmNetworkAsInput"`, `"networkType":"NoNetworkAttachAsInput"`
		drill(choose, "")
		s.finish(s.must(202, "PUT", sites+"site1/replicationNetworks/red/replicationNetworkMappings/m", mapping("site1", "blue", "site2")), "Succeeded")
		drill(choose, sites+"site2/replicationNetworks/blue")
		drill(choose+`,"networkId":"/asked"`, "/asked")
		drill(none, "")
		// With two ways out it is not known which network a machine without an agent is on.
		s.finish(s.must(202, "PUT", sites+"site1/replicationNetworks/blue/replicationNetworkMappings/m", mapping("site1", "red", "site2")), "Succeeded")
		drill(choose, "")
		s.finish(s.must(202, "DELETE", sites+"site1/replicationNetworks/blue/replicationNetworkMappings/m", ""), "Succeeded")

		s.finish(s.must(202, "PUT", sites+"site2/replicationNetworks/blue/replicationNetworkMappings/back", mapping("site2", "red", "site1")), "Succeeded")
		operation("unplannedFailover", `"failoverDirection":"PrimaryToRecovery"`)
		if got, want := d.asked().Network, sites+"site2/replicationNetworks/blue"; got != want {
			t.Errorf("the replica is attached to %q, want %q", got, want)
		}
		s.finish(s.must(202, "POST", item+"/failoverCommit", ""), "Succeeded")
		operation("reProtect", `"failoverDirection":"RecoveryToPrimary"`)
		if got, want := d.asked().Storage, map[string]string{"tin": "gold"}; !maps.Equal(got, want) {
			t.Errorf("on the way back the driver was told of storage %v, want %v", got, want)
		}
		s.until(item, "properties.protectionState", "Protected")
		operation("plannedFailover", `"failoverDirection":"RecoveryToPrimary"`)
		if got, want := d.asked().Network, sites+"site1/replicationNetworks/red"; got != want {
			t.Errorf("at home the machine is attached to %q, want %q", got, want)
		}
	})
	t.Run("between regions", func(t *testing.T) {
		t.Parallel()
		s, d := newLegDriver(t)
		l := &azureLife{t: t, s: s}
		l.furnishLeg("Azure", `{"instanceType":"A2A","multiVmSyncStatus":"Enable"}`, sites+"site2/replicationProtectionContainers/c2")
		other := network("other")
		other.Subnets[0].Ranges = []string{"198.51.100.0/24", "rubbish"}
		s.discovers("site1", dr.Inventory{Networks: []dr.Network{other, network("servers")}}) // the machine has 192.0.2.10
		for _, n := range []string{"other", "servers"} {
			s.finish(s.must(202, "PUT", sites+"site1/replicationNetworks/"+n+"/replicationNetworkMappings/m", fmt.Sprintf(
				`{"properties":{"recoveryFabricName":"site2","recoveryNetworkId":"/west/%s","fabricSpecificDetails":{"instanceType":"AzureToAzure","primaryNetworkId":"/east/%s"}}}`, n, n)), "Succeeded")
		}
		item := fabricURL + "/replicationProtectionContainers/" + l.container + "/replicationProtectedItems/" + itemName
		s.finish(s.must(202, "PUT", item, fmt.Sprintf(`{"properties":{"policyId":"%s/replicationPolicies/p1","providerSpecificDetails":{"instanceType":"A2A","fabricObjectId":"/machines/web01","recoveryContainerId":"%ssite2/replicationProtectionContainers/c2"}}}`, vaultURL, sites)), "Succeeded")
		s.until(item, "properties.protectionState", "Protected")
		s.finish(s.must(202, "POST", item+"/unplannedFailover", `{"properties":{"failoverDirection":"PrimaryToRecovery","providerSpecificDetails":{"instanceType":"A2A"}}}`), "Succeeded")
		if got, want := d.asked().Network, "/west/servers"; got != want {
			t.Errorf("the replica is attached to %q, want %q", got, want)
		}
	})
}
