package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// Where a provider has no data plane, the program that is shipped keeps its sites, policies and mappings, and refuses to protect
// a machine with it: it says that the driver is missing, and what to do instead. Nothing is left behind.
func TestAProviderWithoutADataPlaneIsRefused(t *testing.T) {
	d := start(t, t.TempDir())
	token := d.token()
	const version = "?api-version=2025-01-01"
	must := func(method, path, body string) string {
		t.Helper()
		status, answer := d.call(method, path+version, body, token)
		if status >= http.StatusBadRequest {
			t.Fatalf("%s %s: %d %s", method, path, status, answer)
		}
		return answer
	}
	for _, test := range []struct{ provider, fabric, policy, enable string }{
		{"InMageAzureV2", "VMware", `"multiVmSyncStatus":"Enable"`, `"targetAzureVmName":"web01-dr"`},
		{"InMage", "VMware", `"multiVmSyncStatus":"Disable"`, `"masterTargetId":"mt","multiVmGroupId":"g","multiVmGroupName":"g","processServerId":"ps","retentionDrive":"/r"`},
		{"HyperVReplica2012", "VMM", `"recoveryPoints":4`, `"none":""`},
		{"HyperVReplica2012R2", "VMM", `"replicationFrequencyInSeconds":30`, `"none":""`},
		{"A2A", "Azure", `"multiVmSyncStatus":"Enable"`, `"fabricObjectId":"/machines/web01"`},
	} {
		t.Run(test.provider, func(t *testing.T) {
			vault := vaults + "/" + test.provider
			must("PUT", vault, `{"location":"here","sku":{"name":"Standard"},"properties":{}}`)
			target := "Microsoft Azure"
			var container string
			for _, site := range []string{"site2", "site1"} {
				fabric := vault + "/replicationFabrics/" + site
				must("PUT", fabric, fmt.Sprintf(`{"properties":{"customDetails":{"instanceType":%q,"location":%q}}}`, test.fabric, site))
				if test.fabric == "Azure" {
					must("PUT", fabric+"/replicationProtectionContainers/c", `{"properties":{"providerSpecificInput":[{"instanceType":"A2A"}]}}`)
				}
				var list struct{ Value []struct{ ID string } }
				if err := json.Unmarshal([]byte(must("GET", fabric+"/replicationProtectionContainers", "")), &list); err != nil || len(list.Value) != 1 {
					t.Fatalf("%s has %d containers, %v", site, len(list.Value), err)
				}
				if container = list.Value[0].ID; site == "site2" && (test.fabric == "VMM" || test.fabric == "Azure") {
					target = container
				}
			}
			must("PUT", vault+"/replicationPolicies/p", fmt.Sprintf(`{"properties":{"providerSpecificInput":{"instanceType":%q,%s}}}`, test.provider, test.policy))
			must("PUT", container+"/replicationProtectionContainerMappings/m", fmt.Sprintf(`{"properties":{"policyId":"%s/replicationPolicies/p","targetProtectionContainerId":%q}}`, vault, target))

			item := container + "/replicationProtectedItems/web01"
			status, answer := d.call("PUT", item+version, fmt.Sprintf(`{"properties":{"policyId":"%s/replicationPolicies/p","protectableItemId":"%s/replicationProtectableItems/web01","providerSpecificDetails":{"instanceType":%q,%s}}}`,
				vault, container, test.provider, test.enable), token)
			var refusal struct {
				Error struct {
					Code, Message string
					Details       []struct{ Code, PossibleCauses, RecommendedAction string }
				}
			}
			if err := json.Unmarshal([]byte(answer), &refusal); err != nil || len(refusal.Error.Details) != 1 {
				t.Fatalf("%d %s: %v", status, answer, err)
			}
			e, detail := refusal.Error, refusal.Error.Details[0]
			if status != http.StatusNotImplemented || e.Code != "NotImplemented" || detail.Code != "Unimplemented" {
				t.Errorf("got %d %s, want 501", status, answer)
			}
			if !strings.Contains(e.Message, test.provider) || !strings.Contains(detail.PossibleCauses, "no driver for "+test.provider) || !strings.Contains(detail.RecommendedAction, "InMageRcm") {
				t.Errorf("%s does not say what is missing and what to do instead", answer)
			}
			if status, answer := d.call("GET", item+version, "", token); status != http.StatusNotFound {
				t.Errorf("the refusal left %d %s", status, answer)
			}
		})
	}
}
