package api

import (
	"fmt"
	"slices"
	"strings"

	"github.com/lifeboat-dr/lifeboat/service/dr"
)

const items = "siterecovery.ReplicationProtectedItems."

// item calls a method on the protected machine, which has to succeed.
func (l *sweptLife) item(method string, args ...string) answer {
	l.t.Helper()
	return l.ok(items+method, append([]string{"rg", "v1", fabricName, "$container", itemName}, args...)...)
}

// until reads the machine until it is in the state and may do something, or all of these.
func (l *sweptLife) until(state string, allowed ...any) {
	l.t.Helper()
	eventually(l.t, func() (bool, string) {
		got := l.item("Get")
		may, _ := got.at("properties.allowedOperations").([]any)
		for _, op := range allowed {
			if !slices.Contains(may, op) {
				return false, got.String()
			}
		}
		return got.at("properties.protectionState") == state && len(may) > 0, fmt.Sprintf("waited for %s: %s", state, got)
	})
}

func (l *sweptLife) enable() {
	l.t.Helper()
	l.item("BeginCreate", `{"properties":{"policyId":"$vault/replicationPolicies/p1","protectableItemId":"$machine","providerSpecificDetails":{"instanceType":"InMageRcm","fabricDiscoveryMachineId":"$machine","processServerId":"`+mainReplicator+
		`","targetResourceGroupId":"/subscriptions/sub/resourceGroups/rg","targetVmName":"web01-dr"}}}`)
	l.until("Protected")
}

func (l *sweptLife) protect() {
	l.words["machine"] = l.st.enrol(fabricURL + "/replicationProtectionContainers/" + l.words["container"])
	l.ok("siterecovery.ReplicationEligibilityResults.List", "rg", "web01")
	l.ok("siterecovery.ReplicationEligibilityResults.Get", "rg", "web01")
	found := l.ok("siterecovery.ReplicationProtectableItems.NewListByReplicationProtectionContainersPager", "rg", "v1", fabricName, "$container")
	l.ok("siterecovery.ReplicationProtectableItems.Get", "rg", "v1", fabricName, "$container", found.at("value.0.name").(string))
	l.enable()
	l.ok(items+"NewListPager", "rg", "v1")
	l.ok(items+"NewListByReplicationProtectionContainersPager", "rg", "v1", fabricName, "$container")
	l.item("BeginUpdate", `{"properties":{"providerSpecificDetails":{"instanceType":"InMageRcm","targetVmName":"web01-new"}}}`)
	l.item("BeginUpdateAppliance", `{"properties":{"targetApplianceId":"`+mainReplicator+`","providerSpecificDetails":{"instanceType":"InMageRcm","runAsAccountId":"1"}}}`)
	l.item("BeginResolveHealthErrors", `{"properties":{"healthErrors":[{"healthErrorId":"gone"}]}}`)
	l.st.hold("resync")
	l.until("Protected", "RepairReplication")
	l.item("BeginRepairReplication")
	l.st.hold("")
	l.disks()
	points := l.ok("siterecovery.RecoveryPoints.NewListByReplicationProtectedItemsPager", "rg", "v1", fabricName, "$container", itemName)
	l.words["point"] = points.at("value.0.name").(string)
	l.ok("siterecovery.RecoveryPoints.Get", "rg", "v1", fabricName, "$container", itemName, "$point")
	l.ok("siterecovery.TargetComputeSizes.NewListByReplicationProtectedItemsPager", "rg", "v1", fabricName, "$container", itemName)
	l.ok("siterecovery.ReplicationFabrics.BeginReassociateGateway", "rg", "v1", fabricName, `{"properties":{"containerName":"$container","sourceProcessServerId":"`+mainReplicator+`","targetProcessServerId":"`+mainReplicator+
		`","updateType":"systemlevel","vmsToMigrate":["`+itemName+`"]}}`)
}

func (l *sweptLife) disks() {
	l.t.Helper()
	l.st.plug(dr.MachineDisk{ID: "vdc", Path: "/dev/vdc", SizeBytes: 1 << 30, SectorSize: 512})
	eventually(l.t, func() (bool, string) {
		got := l.item("Get")
		return got.at("properties.providerSpecificDetails.unprotectedDisks.0.diskId") == "vdc", got.String()
	})
	l.item("BeginAddDisks", `{"properties":{"providerSpecificDetails":{"instanceType":"InMageRcm","disks":[{"diskId":"vdc","diskType":"Standard_LRS","logStorageAccountId":"none"}]}}}`)
}

// refusedActions are those that no machine of this provider takes, or none yet.
func (l *sweptLife) refusedActions() {
	at := []string{"rg", "v1", fabricName, "$container", itemName}
	no := func(want, method string, args ...string) {
		l.t.Helper()
		l.no(want, items+method, append(at[:len(at):len(at)], args...)...)
	}
	no("400 BadRequest", "BeginRemoveDisks", `{"properties":{"providerSpecificDetails":{"instanceType":"A2A","vmManagedDisksIds":["vdb"]}}}`)
	no("409 Conflict", "BeginSwitchProvider", `{"properties":{"targetInstanceType":"InMageRcm","providerSpecificDetails":{"instanceType":"InMageAzureV2","targetVaultID":"$vault","targetFabricID":"$vault/replicationFabrics/site2","targetApplianceID":"x"}}}`)
	no("501 NotImplemented", "BeginUpdateMobilityService", `{"properties":{"runAsAccountId":"1"}}`)
	l.no("409 Conflict", "siterecovery.ReplicationProtectionContainers.BeginSwitchProtection", "rg", "v1", fabricName, "$container", `{"properties":{"replicationProtectedItemName":"`+itemName+`","providerSpecificDetails":{"instanceType":"A2A"}}}`)
}

func (l *sweptLife) failOver() {
	l.item("BeginTestFailover", `{"properties":{"failoverDirection":"PrimaryToRecovery","networkType":"NoNetworkAttachAsInput","providerSpecificDetails":{"instanceType":"InMageRcm"}}}`)
	l.item("BeginTestFailoverCleanup", `{"properties":{"comments":"fine"}}`)
	l.st.lose()
	l.item("BeginUnplannedFailover", `{"properties":{"failoverDirection":"PrimaryToRecovery","sourceSiteOperations":"NotRequired","providerSpecificDetails":{"instanceType":"InMageRcm","performShutdown":"false"}}}`)
	const point = `"$vault/replicationFabrics/` + fabricName + `/replicationProtectionContainers/$container/replicationProtectedItems/` + itemName + `/recoveryPoints/$point"`
	l.item("BeginApplyRecoveryPoint", `{"properties":{"recoveryPointId":`+point+`,"providerSpecificDetails":{"instanceType":"InMageRcm","recoveryPointId":`+point+`}}}`)
	l.item("BeginFailoverCommit")
}

func (l *sweptLife) goHome() {
	l.item("BeginReprotect", `{"properties":{"failoverDirection":"RecoveryToPrimary","providerSpecificDetails":{"instanceType":"InMageRcm","reprotectAgentId":"`+homeReplicator+`","datastoreName":"`+datastore+
		`","logStorageAccountId":"none","policyId":"$vault/replicationPolicies/back"}}}`)
	l.until("Protected")
	const home = `{"properties":{"failoverDirection":"PrimaryToRecovery","providerSpecificDetails":{"instanceType":"InMageRcmFailback","recoveryPointType":"CrashConsistent"}}}`
	l.item("BeginPlannedFailover", home)
	l.item("BeginFailoverCancel")
	l.until("Protected")
	l.item("BeginPlannedFailover", home)
	l.item("BeginFailoverCommit")
	l.item("BeginReprotect", `{"properties":{"failoverDirection":"PrimaryToRecovery","providerSpecificDetails":{"instanceType":"InMageRcmFailback","policyId":"$vault/replicationPolicies/p1","processServerId":"`+mainReplicator+`"}}}`)
	l.until("Protected")
}

const plans = "siterecovery.ReplicationRecoveryPlans."

// suspended waits until the plan's job waits for a person, and remembers its name.
func (l *sweptLife) suspended() {
	l.t.Helper()
	eventually(l.t, func() (bool, string) {
		id, _ := l.ok(plans+"Get", "rg", "v1", planName).at("properties.currentScenario.jobId").(string)
		l.words["job"] = id[strings.LastIndexByte(id, '/')+1:]
		got := l.ok("siterecovery.ReplicationJobs.Get", "rg", "v1", "$job")
		return got.at("properties.state") == "Suspended", fmt.Sprintf("the job is not suspended: %s", got)
	})
}

const planDrill = `{"properties":{"failoverDirection":"PrimaryToRecovery","networkType":"NoNetworkAttachAsInput","providerSpecificDetails":[{"instanceType":"InMageRcm","recoveryPointType":"LatestProcessed"}]}}`

func (l *sweptLife) plan() {
	const group = `{"groupType":"Boot","replicationProtectedItems":[{"id":"$vault/replicationFabrics/` + fabricName + `/replicationProtectionContainers/$container/replicationProtectedItems/` + itemName + `"}],"startGroupActions":[],"endGroupActions":[`
	l.ok(plans+"BeginCreate", "rg", "v1", planName, `{"properties":{"primaryFabricId":"$vault/replicationFabrics/`+fabricName+`","recoveryFabricId":"Microsoft Azure","failoverDeploymentModel":"ResourceManager","groups":[`+group+`]}]}}`)
	l.ok(plans+"BeginUpdate", "rg", "v1", planName, `{"properties":{"groups":[`+group+`{"actionName":"look","failoverTypes":["TestFailover"],"failoverDirections":["PrimaryToRecovery"],
		"customDetails":{"instanceType":"ManualActionDetails","description":"look at the console"}}]}]}}`)
	l.ok(plans+"NewListPager", "rg", "v1")

	drill := l.begin(plans+"BeginTestFailover", "rg", "v1", planName, planDrill)
	l.suspended()
	l.ok("siterecovery.ReplicationJobs.BeginResume", "rg", "v1", "$job", `{"properties":{"comments":" "}}`)
	l.await(drill)
	l.ok(plans+"BeginTestFailoverCleanup", "rg", "v1", planName, `{"properties":{"comments":"fine"}}`)
}

func (l *sweptLife) planAway() {
	l.st.lose()
	l.ok(plans+"BeginUnplannedFailover", "rg", "v1", planName, `{"properties":{"failoverDirection":"PrimaryToRecovery","sourceSiteOperations":"NotRequired","providerSpecificDetails":[{"instanceType":"InMageRcm","recoveryPointType":"Latest"}]}}`)
	l.ok(plans+"BeginFailoverCommit", "rg", "v1", planName)
	l.ok(plans+"BeginReprotect", "rg", "v1", planName)
	l.until("Protected")
	const home = `{"properties":{"failoverDirection":"RecoveryToPrimary","providerSpecificDetails":[{"instanceType":"InMageRcmFailback","recoveryPointType":"CrashConsistent"}]}}`
	l.ok(plans+"BeginPlannedFailover", "rg", "v1", planName, home)
	l.ok(plans+"BeginFailoverCancel", "rg", "v1", planName)
	l.until("Protected")
	l.ok(plans+"BeginPlannedFailover", "rg", "v1", planName, home)
	l.ok(plans+"BeginFailoverCommit", "rg", "v1", planName)
	l.ok(plans+"BeginReprotect", "rg", "v1", planName)
	l.until("Protected")
}
