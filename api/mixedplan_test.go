package api

import (
	"fmt"
	"slices"
	"testing"

	"github.com/lifeboat-dr/lifeboat/service/dr"
)

// calls are the operations that the driver was asked for on the legs of a provider, beside enabling.
func (d *legDriver) calls(leg dr.LegName) (ops []string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, op := range []dr.Operation{dr.OpTestFailover, dr.OpTestCleanup, dr.OpUnplannedFailover, dr.OpCommit} {
		for _, did := range d.did {
			if did == fmt.Sprintf("%s %s", leg, op) {
				ops = append(ops, string(op))
			}
		}
	}
	return ops
}

// A plan whose machines are driven in different ways: the first group is a driver's, the second the control plane's own.
func TestAPlanTakesMachinesOfAllKindsThroughDrillAndFailover(t *testing.T) {
	t.Parallel()
	s, st := newDrivenStage(t, drivenProviders)
	d := driveLegs(s, st.queue)
	container := s.furnish()
	own := container + "/replicationProtectedItems/" + itemName
	s.finish(s.must(202, "PUT", own, enableIn(st.enrol(container))), "Succeeded")

	s.must(202, "PUT", vaultURL+"/replicationPolicies/classic", `{"properties":{"providerSpecificInput":{"instanceType":"InMageAzureV2","multiVmSyncStatus":"Enable"}}}`)
	s.must(202, "PUT", container+"/replicationProtectionContainerMappings/classic", fmt.Sprintf(`{"properties":{"policyId":"%s/replicationPolicies/classic","targetProtectionContainerId":"Microsoft Azure"}}`, vaultURL))
	driven := container + "/replicationProtectedItems/db01"
	other := st.another("db01", "11111111-2222-3333-4444-000000000001")
	s.finish(s.must(202, "PUT", driven, fmt.Sprintf(`{"properties":{"policyId":"%s/replicationPolicies/classic","protectableItemId":"%s/replicationProtectableItems/%s","providerSpecificDetails":{"instanceType":"InMageAzureV2","targetAzureVmName":"db01-dr"}}}`,
		vaultURL, container, other.agent)), "Succeeded")
	for _, item := range []string{own, driven} {
		s.until(item, "properties.protectionState", "Protected")
	}

	plan := vaultURL + "/replicationRecoveryPlans/mixed"
	boot := func(item string) string {
		return fmt.Sprintf(`{"groupType":"Boot","replicationProtectedItems":[{"id":%q}],"startGroupActions":[],"endGroupActions":[]}`, item)
	}
	s.finish(s.must(202, "PUT", plan, fmt.Sprintf(`{"properties":{"primaryFabricId":%q,"recoveryFabricId":"Microsoft Azure","failoverDeploymentModel":"ResourceManager","groups":[%s,%s]}}`, fabricURL, boot(driven), boot(own))), "Succeeded")
	const kinds = `[{"instanceType":"InMageRcm","recoveryPointType":"LatestProcessed"},{"instanceType":"InMageAzureV2","recoveryPointType":"LatestProcessed"}]`
	running := func() int {
		st.mu.Lock()
		defer st.mu.Unlock()
		return len(st.instances)
	}
	look := func(after, test, active string, machines int, allowed ...any) {
		t.Helper()
		for _, item := range []string{own, driven} {
			if a := s.must(200, "GET", item, ""); a.at("properties.testFailoverState") != test || a.at("properties.activeLocation") != active {
				t.Errorf("after the %s: got %s, want %s at %s", after, a, test, active)
			}
		}
		a := s.must(200, "GET", plan, "")
		if got, _ := a.at("properties.allowedOperations").([]any); !slices.Equal(got, allowed) || running() != machines {
			t.Errorf("after the %s: the plan allows %v with %d machines running here, want %v with %d", after, got, running(), allowed, machines)
		}
	}

	s.finish(s.must(202, "POST", plan+"/testFailover", `{"properties":{"failoverDirection":"PrimaryToRecovery","networkType":"VmNetworkAsInput","networkId":"/isolated","providerSpecificDetails":`+kinds+`}}`), "Succeeded")
	look("drill", "WaitingForCompletion", "Primary", 1, "TestFailoverCleanup")
	if got := d.asked(); got.Operation != string(dr.OpTestFailover) || got.Network != "/isolated" || got.Point == nil {
		t.Errorf("the driver was asked %+v", got)
	}
	job := s.must(200, "GET", s.must(200, "GET", plan, "").at("properties.currentScenario.jobId").(string), "")
	machines, _ := job.at("properties.customDetails.protectedItemDetails").([]any)
	if tasks, _ := job.at("properties.tasks").([]any); len(machines) != 2 || len(tasks) != 4 { // checks, the failover group, and two groups of ours
		t.Errorf("the drill's job is about %d machines in %d tasks: %s", len(machines), len(tasks), job)
	}
	s.finish(s.must(202, "POST", plan+"/testFailoverCleanup", `{"properties":{"comments":"fine"}}`), "Succeeded")
	look("cleanup", "MarkedForDeletion", "Primary", 0, "UnplannedFailover", "TestFailover")
	if got, want := d.calls(dr.LegInMageAzureV2), []string{"testFailover", "testFailoverCleanup"}; !slices.Equal(got, want) {
		t.Errorf("the driver was asked %v, want %v", got, want)
	}

	st.lose()
	s.finish(s.must(202, "POST", plan+"/unplannedFailover", `{"properties":{"failoverDirection":"PrimaryToRecovery","sourceSiteOperations":"NotRequired","providerSpecificDetails":`+kinds+`}}`), "Succeeded")
	look("failover", "MarkedForDeletion", "Recovery", 1, "Commit", "ReverseReplicate")
	s.finish(s.must(202, "POST", plan+"/failoverCommit", ""), "Succeeded")
	if got, want := d.calls(dr.LegInMageAzureV2), []string{"testFailover", "testFailoverCleanup", "unplannedFailover", "failoverCommit"}; !slices.Equal(got, want) {
		t.Errorf("the driver was asked %v, want %v", got, want)
	}
}
