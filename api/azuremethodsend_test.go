package api

import "strings"

// jobs cancels one, lets one fail and runs it again, and reads what remains of all of them.
func (l *sweptLife) jobs() {
	const c = "siterecovery.ReplicationJobs."
	drill := l.begin(plans+"BeginTestFailover", "rg", "v1", planName, planDrill)
	l.suspended()
	l.ok(c+"BeginCancel", "rg", "v1", "$job")
	if _, err := drill.end(); err == nil {
		l.t.Error("a cancelled drill succeeded")
	}
	l.ok(plans+"BeginTestFailoverCleanup", "rg", "v1", planName, `{"properties":{"comments":"fine"}}`)

	item := fabricURL + "/replicationProtectionContainers/" + l.words["container"] + "/replicationProtectedItems/" + itemName
	newest := l.s.must(200, "GET", item+"/recoveryPoints", "").at("value.0.name").(string)
	export := l.s.must(202, "POST", item+"/recoveryPoints/"+newest+"/export", `{"properties":{"format":"raw","directory":"`+fullDirectory+`"}}`)
	l.s.finish(export, "Failed")
	id := export.header.Get("x-ms-request-id")
	l.st.free()
	l.words["job"] = id[strings.LastIndexByte(id, '/')+1:]
	l.ok(c+"BeginRestart", "rg", "v1", "$job")

	l.ok(c+"NewListPager", "rg", "v1")
	l.ok(c+"BeginExport", "rg", "v1", `{"jobStatus":"Succeeded","jobOutputType":"Json","timezoneOffset":60}`)
	found := l.ok("siterecovery.ReplicationEvents.NewListPager", "rg", "v1")
	l.ok("siterecovery.ReplicationEvents.Get", "rg", "v1", found.at("value.0.name").(string))
}

// clusters are not replicated: everything is refused, and there are none.
func (l *sweptLife) clusters() {
	const c = "siterecovery.ReplicationProtectionClusters."
	at := []string{"rg", "v1", "east", "east1", "cluster1"}
	on := func(method string, args ...string) {
		l.t.Helper()
		l.no("501 NotImplemented", c+method, append(at[:len(at):len(at)], args...)...)
	}
	on("BeginCreate", `{"properties":{"protectionClusterType":"ASC","policyId":"$vault/replicationPolicies/regions","clusterProtectedItemIds":["a","b"]}}`)
	on("BeginTestFailover", `{"properties":{"failoverDirection":"PrimaryToRecovery","networkType":"NoNetworkAttachAsInput","providerSpecificDetails":{"instanceType":"A2A","clusterRecoveryPointId":"p"}}}`)
	on("BeginTestFailoverCleanup", `{"properties":{"comments":"fine"}}`)
	on("BeginUnplannedFailover", `{"properties":{"failoverDirection":"PrimaryToRecovery","sourceSiteOperations":"NotRequired","providerSpecificDetails":{"instanceType":"A2A","clusterRecoveryPointId":"p"}}}`)
	on("BeginApplyRecoveryPoint", `{"properties":{"clusterRecoveryPointId":"p","providerSpecificDetails":{"instanceType":"A2A"}}}`)
	on("BeginFailoverCommit")
	on("BeginRepairReplication")
	l.no("501 NotImplemented", "siterecovery.ReplicationProtectionContainers.BeginSwitchClusterProtection", "rg", "v1", "east", "east1",
		`{"properties":{"replicationProtectionClusterName":"cluster1","providerSpecificDetails":{"instanceType":"A2A","policyId":"$vault/replicationPolicies/regions"}}}`)
	l.no("404 NotFound", c+"Get", at...)
	l.no("404 NotFound", c+"GetOperationResults", append(at[:len(at):len(at)], "job")...)
	l.no("404 NotFound", "siterecovery.ClusterRecoveryPoint.Get", append(at[:len(at):len(at)], "point")...)
	l.ok(c+"NewListPager", "rg", "v1")
	l.ok(c+"NewListByReplicationProtectionContainersPager", at[:4]...)
	l.ok("siterecovery.ClusterRecoveryPoints.NewListByReplicationProtectionClusterPager", at...)
	l.ok(c+"BeginPurge", at...)
}

// migration without an agent is not served: everything is refused, and there are no such machines.
func (l *sweptLife) migration() {
	const c = "siterecovery.ReplicationMigrationItems."
	at := []string{"rg", "v1", fabricName, "$container", "vm1"}
	on := func(method, in string) {
		l.t.Helper()
		l.no("501 NotImplemented", c+method, append(at[:len(at):len(at)], in)...)
	}
	on("BeginCreate", `{"properties":{"policyId":"$vault/replicationPolicies/p1","providerSpecificDetails":{"instanceType":"VMwareCbt","vmwareMachineId":"m","dataMoverRunAsAccountId":"1","snapshotRunAsAccountId":"1","targetNetworkId":"n",
		"targetResourceGroupId":"rg","disksToInclude":[{"diskId":"d","isOSDisk":"true","logStorageAccountId":"s","logStorageAccountSasSecretName":"x"}]}}}`)
	on("BeginUpdate", `{"properties":{"providerSpecificDetails":{"instanceType":"VMwareCbt","targetVmName":"vm1"}}}`)
	on("BeginMigrate", `{"properties":{"providerSpecificDetails":{"instanceType":"VMwareCbt","performShutdown":"true"}}}`)
	on("BeginTestMigrate", `{"properties":{"providerSpecificDetails":{"instanceType":"VMwareCbt","networkId":"n","recoveryPointId":"p"}}}`)
	on("BeginTestMigrateCleanup", `{"properties":{"comments":"fine"}}`)
	on("BeginPauseReplication", `{"properties":{"instanceType":"VMwareCbt"}}`)
	on("BeginResumeReplication", `{"properties":{"providerSpecificDetails":{"instanceType":"VMwareCbt"}}}`)
	on("BeginResync", `{"properties":{"providerSpecificDetails":{"instanceType":"VMwareCbt","skipCbtReset":"true"}}}`)
	l.no("404 NotFound", c+"Get", at...)
	l.no("404 NotFound", "siterecovery.MigrationRecoveryPoints.Get", append(at[:len(at):len(at)], "point")...)
	l.ok(c+"NewListPager", "rg", "v1")
	l.ok(c+"NewListByReplicationProtectionContainersPager", at[:4]...)
	l.ok("siterecovery.MigrationRecoveryPoints.NewListByReplicationMigrationItemsPager", at...)
	l.ok(c+"BeginDelete", at...)
}

// cleanUp removes everything below the vault, once in each way there is.
func (l *sweptLife) cleanUp() {
	l.ok(plans+"BeginDelete", "rg", "v1", planName)
	l.item("BeginDelete", `{"properties":{"disableProtectionReason":"NotSpecified","replicationProviderInput":{"instanceType":"DisableProtectionProviderSpecificInput"}}}`)
	l.enable()
	l.item("BeginPurge")

	const m = "siterecovery.ReplicationProtectionContainerMappings."
	l.ok(m+"BeginDelete", "rg", "v1", fabricName, "$container", "back", `{"properties":{"providerSpecificInput":{"instanceType":"InMageRcm"}}}`)
	l.ok(m+"BeginPurge", "rg", "v1", fabricName, "$container", "p1")
	l.ok(m+"BeginDelete", "rg", "v1", "east", "east1", "m", `{"properties":{}}`)
	for _, policy := range []string{"p1", "back", "regions"} {
		l.ok("siterecovery.ReplicationPolicies.BeginDelete", "rg", "v1", policy)
	}
	l.ok("siterecovery.ReplicationNetworkMappings.BeginDelete", "rg", "v1", "east", "azureNetwork", "west")
	for _, region := range []string{"east", "west"} {
		l.ok("siterecovery.ReplicationProtectionContainers.BeginDelete", "rg", "v1", region, region+"1")
	}

	const p = "siterecovery.ReplicationRecoveryServicesProviders."
	register := func(name, host string) {
		l.t.Helper()
		l.ok(p+"BeginCreate", "rg", "v1", fabricName, name, `{"properties":{"machineName":"`+host+`","authenticationIdentityInput":`+identityIn+`,"resourceAccessIdentityInput":`+identityIn+`}}`)
	}
	register("main", "main")
	l.ok(p+"NewListPager", "rg", "v1")
	l.ok(p+"NewListByReplicationFabricsPager", "rg", "v1", fabricName)
	l.ok(p+"Get", "rg", "v1", fabricName, "main")
	l.ok(p+"BeginRefreshProvider", "rg", "v1", fabricName, "main")
	l.ok(p+"BeginDelete", "rg", "v1", fabricName, "main")
	register("main", "main")
	l.ok(p+"BeginPurge", "rg", "v1", fabricName, "main")

	const f = "siterecovery.ReplicationFabrics."
	l.ok(f+"BeginDelete", "rg", "v1", fabricName)
	l.ok(f+"BeginPurge", "rg", "v1", "site2")
	for _, name := range []string{"east", "west", "north", "cloud1", "cloud2"} {
		l.ok(f+"BeginRemoveInfra", "rg", "v1", name)
	}
}

func (l *sweptLife) vaultEnds() {
	const c = "recoveryservices."
	l.ok(c+"Operations.OperationStatusGet", "rg", "v1", "$job")
	l.ok(c+"Operations.GetOperationResult", "rg", "v1", "$job")
	l.ok(c+"RegisteredIdentities.Delete", "rg", "v1", "main")
	l.ok(c+"Vaults.Delete", "rg", "v1")
}
