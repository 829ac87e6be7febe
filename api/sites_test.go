package api

import (
	"fmt"
	"strings"
	"testing"

	"github.com/lifeboat-dr/lifeboat/service/control"
	"github.com/lifeboat-dr/lifeboat/service/dr"
)

// fabricOf makes a fabric of a kind and returns its URL.
func (s *site) fabricOf(name, details string) string {
	s.t.Helper()
	at := vaultURL + "/replicationFabrics/" + name
	s.finish(s.must(202, "PUT", at, `{"properties":{"customDetails":`+details+`}}`), "Succeeded")
	return at
}

func (s *site) discovers(fabric string, in dr.Inventory) {
	s.t.Helper()
	v, err := s.control.Vault(s.t.Context(), dr.VaultKey{Subscription: "sub", ResourceGroup: "rg", Name: "v1"})
	if err == nil {
		err = s.control.Discovered(s.t.Context(), control.Ref{Vault: v.ID, Fabric: fabric}, in)
	}
	if err != nil {
		s.t.Fatal(err)
	}
}

func network(name string) dr.Network {
	return dr.Network{Meta: dr.Meta{Name: name}, FriendlyName: strings.ToUpper(name), Type: "NoIsolation", Subnets: []dr.Subnet{{Name: "servers", Ranges: []string{"192.0.2.0/24"}}}}
}

// refusedWith wants a refusal with the status whose message contains the words.
func (s *site) refusedWith(status int, words, method, path, body string) {
	s.t.Helper()
	a := s.send(RoleContributor, method, path, body)
	message, _ := a.at("error.message").(string)
	if a.status != status || !strings.Contains(message, words) || a.at("error.details.0.recommendedAction") == nil {
		s.t.Errorf("%s %s: got %s, want %d with %q", method, path, a, status, words)
	}
}

func TestVCentersAreKeptAndSayThatNobodyDiscovers(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.must(201, "PUT", vaultURL, vaultIn)
	at := s.fabricOf("vmware1", `{"instanceType":"VMware"}`) + "/replicationvCenters/vc1"
	in := func(address, port, account string) string {
		return fmt.Sprintf(`{"properties":{"ipAddress":%q,"port":%q,"runAsAccountId":%q}}`, address, port, account)
	}
	r := s.finish(s.must(202, "PUT", at, in("vc1.example.net", "", "reader")), "Succeeded")
	for path, want := range map[string]any{"name": "vc1", "properties.friendlyName": "vc1", "properties.port": "443", "properties.discoveryStatus": "Pending", "properties.runAsAccountId": "reader",
		"properties.fabricArmResourceName": "vmware1", "properties.healthErrors.0.errorCode": dr.HealthNoDiscovery, "type": typeVCenter} {
		if got := r.at(path); got != want {
			t.Errorf("%s is %v, want %v", path, got, want)
		}
	}
	job := s.must(200, "GET", vaultURL+"/replicationJobs", "")
	if job.at("value.0.properties.scenarioName") != "AddVCenter" || job.at("value.0.properties.state") != "Succeeded" {
		t.Errorf("got jobs %s", job)
	}
	s.refusedWith(400, "port", "PUT", at, in("vc1.example.net", "70000", "reader"))
	s.refusedWith(400, "ipAddress", "PUT", at, in("https://vc1.example.net/sdk", "", "reader"))
	s.refusedWith(400, "runAsAccountId", "PUT", at, in("vc1.example.net", "", ""))
	s.refusedWith(400, "processServerId", "PATCH", at, `{"properties":{"processServerId":"nobody"}}`)
	s.refusedWith(409, "vc1", "PUT", strings.TrimSuffix(at, "vc1")+"vc2", in("VC1.example.net", "443", "reader"))
	s.refusedWith(400, "HyperVSite", "PUT", s.fabricOf("hv", "null")+"/replicationvCenters/vc1", in("vc3.example.net", "", "reader"))
	if r := s.finish(s.must(202, "PATCH", at, `{"properties":{"runAsAccountId":"other"}}`), "Succeeded"); r.at("properties.runAsAccountId") != "other" || r.at("properties.ipAddress") != "vc1.example.net" {
		t.Errorf("got %s", r)
	}
	for _, list := range []string{vaultURL + "/replicationvCenters", strings.TrimSuffix(at, "/vc1")} {
		if a := s.must(200, "GET", list, ""); a.at("value.0.name") != "vc1" || a.at("value.1.name") != nil {
			t.Errorf("got %s", a)
		}
	}
	if f := s.must(200, "GET", vaultURL+"/replicationFabrics/vmware1", ""); f.at("properties.customDetails.runAsAccounts.0.accountId") != "other" || f.at("properties.customDetails.runAsAccounts.0.accountName") != "other" ||
		f.at("properties.customDetails.runAsAccounts.1") != nil {
		t.Errorf("the fabric's accounts are not those of its servers: %s", f)
	}
	if r := s.finish(s.must(202, "DELETE", at, ""), "Succeeded"); r.status != 204 {
		t.Errorf("the result of a removal is %s", r)
	}
	s.must(204, "DELETE", at, "")
	if a := s.send(RoleReader, "GET", at, ""); a.status != 404 {
		t.Errorf("got %s", a)
	}
}

func TestNetworksAreMappedAsTheirFabricsAllow(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.must(201, "PUT", vaultURL, vaultIn)
	one, two := s.fabricOf("vmm1", `{"instanceType":"VMM"}`), s.fabricOf("vmm2", `{"instanceType":"VMM"}`)
	east, hv := s.fabricOf("east", `{"instanceType":"Azure","location":"eastern"}`), s.fabricOf("hv", "null")
	s.fabricOf("west", `{"instanceType":"Azure","location":"western"}`)
	s.discovers("vmm1", dr.Inventory{Networks: []dr.Network{network("prod"), network("old")}, LogicalNetworks: []dr.LogicalNetwork{{Meta: dr.Meta{Name: "core"}, FriendlyName: "Core"}}})
	s.discovers("vmm2", dr.Inventory{Networks: []dr.Network{network("spare")}})
	s.discovers("hv", dr.Inventory{Networks: []dr.Network{network("lan")}})
	if a := s.must(200, "GET", one+"/replicationNetworks/PROD", ""); a.at("properties.subnets.0.addressList.0") != "192.0.2.0/24" || a.at("properties.fabricType") != "VMM" {
		t.Errorf("got %s", a)
	}
	if a := s.must(200, "GET", one+"/replicationLogicalNetworks", ""); a.at("value.0.properties.friendlyName") != "Core" {
		t.Errorf("got %s", a)
	}
	s.must(200, "GET", one+"/replicationLogicalNetworks/core", "")
	in := func(fabric, network, kind, more string) string {
		return fmt.Sprintf(`{"properties":{"recoveryFabricName":%q,"recoveryNetworkId":%q,"fabricSpecificDetails":{"instanceType":%q%s}}}`, fabric, network, kind, more)
	}
	mapping := func(fabric, network, name string) string {
		return fabric + "/replicationNetworks/" + network + "/replicationNetworkMappings/" + name
	}
	for _, test := range []struct{ name, path, body, kind, recovery string }{
		{"from VMM to the recovery site", mapping(one, "prod", "home"), in("Microsoft Azure", "recovery-lan", "VmmToAzure", ""), "VmmToAzure", "Microsoft Azure"},
		{"from VMM to VMM", mapping(one, "prod", "away"), in("vmm2", two+"/replicationNetworks/spare", "VmmToVmm", ""), "VmmToVmm", two},
		{"from region to region", mapping(east, "east-lan", "m"), in("west", "/x/virtualNetworks/west-lan", "AzureToAzure", `,"primaryNetworkId":"/x/virtualNetworks/east-lan"`), "AzureToAzure", vaultURL + "/replicationFabrics/west"},
		{"again, with a base class", mapping(one, "prod", "home"), in("Microsoft Azure", "recovery-lan-2", "FabricSpecificCreateNetworkMappingInput", ""), "VmmToAzure", "Microsoft Azure"},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := s.finish(s.must(202, "PUT", test.path, test.body), "Succeeded")
			if r.at("properties.fabricSpecificSettings.instanceType") != test.kind || r.at("properties.recoveryFabricArmId") != test.recovery || r.at("properties.state") != "Paired" {
				t.Errorf("got %s", r)
			}
		})
	}
	region := s.must(200, "GET", mapping(east, "east-lan", "m"), "")
	if region.at("properties.fabricSpecificSettings.primaryFabricLocation") != "eastern" || region.at("properties.fabricSpecificSettings.recoveryFabricLocation") != "western" {
		t.Errorf("got %s", region)
	}
	s.refusedWith(404, "absent", "PUT", mapping(one, "absent", "m"), in("Microsoft Azure", "lan", "VmmToAzure", ""))
	s.refusedWith(400, "HyperVSite", "PUT", mapping(hv, "lan", "m"), in("Microsoft Azure", "lan", "VmmToAzure", ""))
	s.refusedWith(400, "instanceType", "PUT", mapping(one, "prod", "m"), in("vmm2", two+"/replicationNetworks/spare", "VmmToAzure", ""))
	s.refusedWith(400, "recoveryNetworkId", "PUT", mapping(one, "old", "m"), in("vmm2", "absent", "VmmToVmm", ""))
	s.refusedWith(400, "recoveryFabricName", "PUT", mapping(one, "old", "m"), in("absent", "lan", "VmmToVmm", ""))
	s.refusedWith(400, "both sides", "PUT", mapping(one, "old", "m"), in("vmm1", one+"/replicationNetworks/prod", "VmmToVmm", ""))
	s.refusedWith(409, "home", "PUT", mapping(one, "prod", "second"), in("Microsoft Azure", "lan", "VmmToAzure", ""))
	if r := s.finish(s.must(202, "PATCH", mapping(one, "prod", "home"), `{"properties":{"recoveryNetworkId":"third"}}`), "Succeeded"); r.at("properties.recoveryNetworkId") != "third" {
		t.Errorf("got %s", r)
	}
	if a := s.must(200, "GET", vaultURL+"/replicationNetworkMappings", ""); a.at("value.2.name") == nil || a.at("value.3.name") != nil {
		t.Errorf("got %s", a)
	}
	if a := s.must(200, "GET", one+"/replicationNetworks/prod/replicationNetworkMappings", ""); a.at("value.1.name") == nil {
		t.Errorf("got %s", a)
	}
	s.discovers("vmm1", dr.Inventory{})
	if a := s.must(200, "GET", one+"/replicationNetworks", ""); a.at("value.0.name") != "prod" || a.at("value.1.name") != nil {
		t.Errorf("what is mapped stays and what is gone goes; got %s", a)
	}
	s.finish(s.must(202, "DELETE", mapping(east, "east-lan", "m"), ""), "Succeeded")
	if a := s.send(RoleReader, "GET", east+"/replicationNetworks/east-lan", ""); a.status != 404 {
		t.Errorf("a network that only its mapping made is still there: %s", a)
	}
	s.must(204, "DELETE", mapping(east, "east-lan", "m"), "")
}

func TestStorageIsMappedToAnotherFabric(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.must(201, "PUT", vaultURL, vaultIn)
	one, two := s.fabricOf("vmm1", `{"instanceType":"VMM"}`), s.fabricOf("vmm2", `{"instanceType":"VMM"}`)
	class := func(name string) dr.StorageClassification {
		return dr.StorageClassification{Meta: dr.Meta{Name: name}, FriendlyName: name}
	}
	s.discovers("vmm1", dr.Inventory{StorageClassifications: []dr.StorageClassification{class("gold"), class("tin")}})
	s.discovers("vmm2", dr.Inventory{StorageClassifications: []dr.StorageClassification{class("silver")}})
	at := one + "/replicationStorageClassifications/gold/replicationStorageClassificationMappings/"
	in := func(id string) string { return `{"properties":{"targetStorageClassificationId":"` + id + `"}}` }
	silver := two + "/replicationStorageClassifications/silver"
	for range 2 {
		if r := s.finish(s.must(202, "PUT", at+"m", in(silver)), "Succeeded"); r.at("properties.targetStorageClassificationId") != silver {
			t.Errorf("got %s", r)
		}
	}
	s.refusedWith(409, "m already", "PUT", at+"n", in(silver))
	s.refusedWith(400, "fabric vmm1", "PUT", at+"m", in(one+"/replicationStorageClassifications/tin"))
	s.refusedWith(400, "names no class", "PUT", at+"m", in(two+"/replicationStorageClassifications/none"))
	s.refusedWith(400, "not the path", "PUT", at+"m", in("silver"))
	s.refusedWith(404, "lead", "PUT", strings.Replace(at, "gold", "lead", 1)+"m", in(silver))
	for _, list := range []string{vaultURL + "/replicationStorageClassificationMappings", strings.TrimSuffix(at, "/")} {
		if a := s.must(200, "GET", list, ""); a.at("value.0.name") != "m" {
			t.Errorf("got %s", a)
		}
	}
	if a := s.must(200, "GET", vaultURL+"/replicationStorageClassifications", ""); a.at("value.2.name") != "silver" {
		t.Errorf("got %s", a)
	}
	s.must(200, "GET", silver, "")
	s.finish(s.must(202, "DELETE", at+"m", ""), "Succeeded")
	s.must(204, "DELETE", at+"m", "")
	s.finish(s.must(202, "POST", one+"/remove", ""), "Succeeded")
	if a := s.must(200, "GET", vaultURL+"/replicationStorageClassifications", ""); a.at("value.0.name") != "silver" || a.at("value.1.name") != nil {
		t.Errorf("the fabric's storage stayed when it was removed: %s", a)
	}
}
