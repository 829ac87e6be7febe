package api

import (
	"time"

	"github.com/lifeboat-dr/lifeboat/api/oas"
	"github.com/lifeboat-dr/lifeboat/service/dr"
)

func minutes(d time.Duration) *int32 { return ptr(int32(d / time.Minute)) }

// oddSeconds returns what minutes cannot tell; nil when they can.
func oddSeconds(d time.Duration) *int32 {
	if d%time.Minute == 0 {
		return nil
	}
	return ptr(int32(d / time.Second))
}

// policyDetails shows a policy with its defaults, under the names that answers use (ref 5.2): some differ from the request's.
func policyDetails(p dr.Policy) (out oas.PolicyProviderSpecificDetails) {
	set := p.Settings()
	number := func(name string) *int32 { return ptr(int32(set.Numbers[name])) }
	crash, app := minutes(p.CrashConsistentEvery), minutes(p.AppConsistentEvery)
	sync := "Disabled"
	if p.MultiVMSync {
		sync = "Enabled"
	}
	kind, throttle := string(p.Provider), policyThrottle(p.Throttle)
	switch p.Provider {
	case dr.ProviderInMageRcm:
		must(out.FromInMageRcmPolicyDetails(oas.InMageRcmPolicyDetails{InstanceType: kind, Throttle: throttle, RecoveryPointHistoryInMinutes: minutes(p.Retention),
			AppConsistentFrequencyInMinutes: app, CrashConsistentFrequencyInMinutes: crash, CrashConsistentFrequencyInSeconds: oddSeconds(p.CrashConsistentEvery),
			EnableMultiVmSync: boolText(p.MultiVMSync)}))
	case dr.ProviderInMageRcmFailback:
		must(out.FromInMageRcmFailbackPolicyDetails(oas.InMageRcmFailbackPolicyDetails{InstanceType: kind, Throttle: throttle, AppConsistentFrequencyInMinutes: app, CrashConsistentFrequencyInMinutes: crash}))
	case dr.ProviderInMageAzureV2:
		must(out.FromInMageAzureV2PolicyDetails(oas.InMageAzureV2PolicyDetails{InstanceType: kind, Throttle: throttle, RecoveryPointHistory: minutes(p.Retention),
			AppConsistentFrequencyInMinutes: app, CrashConsistentFrequencyInMinutes: crash, RecoveryPointThresholdInMinutes: minutes(p.RPOThreshold), MultiVmSyncStatus: sync}))
	case dr.ProviderInMage:
		must(out.FromInMagePolicyDetails(oas.InMagePolicyDetails{InstanceType: kind, Throttle: throttle, RecoveryPointHistory: minutes(p.Retention),
			AppConsistentFrequencyInMinutes: app, RecoveryPointThresholdInMinutes: minutes(p.RPOThreshold), MultiVmSyncStatus: sync}))
	case dr.ProviderA2A:
		must(out.FromA2APolicyDetails(oas.A2APolicyDetails{InstanceType: kind, Throttle: throttle, RecoveryPointHistory: minutes(p.Retention),
			AppConsistentFrequencyInMinutes: app, CrashConsistentFrequencyInMinutes: crash, RecoveryPointThresholdInMinutes: minutes(p.RPOThreshold), MultiVmSyncStatus: sync}))
	case dr.ProviderHyperVReplicaAzure:
		must(out.FromHyperVReplicaAzurePolicyDetails(oas.HyperVReplicaAzurePolicyDetails{InstanceType: kind, Throttle: throttle, RecoveryPointHistoryDurationInHours: number("recoveryPointHistoryDuration"),
			ApplicationConsistentSnapshotFrequencyInHours: number("applicationConsistentSnapshotFrequencyInHours"), ReplicationInterval: number("replicationInterval"),
			OnlineReplicationStartTime: set.Words["onlineReplicationStartTime"], ActiveStorageAccountId: set.StorageAccount, Encryption: "Disabled"}))
	case dr.ProviderHyperVReplica2012:
		d := hyperVPolicy(kind, set, number)
		d.Throttle = throttle
		must(out.FromHyperVReplicaPolicyDetails(d))
	case dr.ProviderHyperVReplica2012R2:
		d := hyperVPolicy(kind, set, number)
		must(out.FromHyperVReplicaBluePolicyDetails(oas.HyperVReplicaBluePolicyDetails{InstanceType: kind, Throttle: throttle, ReplicationFrequencyInSeconds: number("replicationFrequencyInSeconds"),
			RecoveryPoints: d.RecoveryPoints, ApplicationConsistentSnapshotFrequencyInHours: d.ApplicationConsistentSnapshotFrequencyInHours, Compression: d.Compression,
			InitialReplicationMethod: d.InitialReplicationMethod, OnlineReplicationStartTime: d.OnlineReplicationStartTime, OfflineReplicationExportPath: d.OfflineReplicationExportPath,
			OfflineReplicationImportPath: d.OfflineReplicationImportPath, ReplicationPort: d.ReplicationPort, AllowedAuthenticationType: d.AllowedAuthenticationType,
			ReplicaDeletionOption: d.ReplicaDeletionOption}))
	}
	return out
}

func hyperVPolicy(kind string, set dr.PolicySettings, number func(string) *int32) oas.HyperVReplicaPolicyDetails {
	// What becomes of the replica has other words in answers (ref 5.3).
	deletion := "None"
	if set.Words["replicaDeletion"] == "Required" {
		deletion = "OnRecoveryCloud"
	}
	return oas.HyperVReplicaPolicyDetails{InstanceType: kind, RecoveryPoints: number("recoveryPoints"),
		ApplicationConsistentSnapshotFrequencyInHours: number("applicationConsistentSnapshotFrequencyInHours"), Compression: set.Words["compression"],
		InitialReplicationMethod: set.Words["initialReplicationMethod"], OnlineReplicationStartTime: set.Words["onlineReplicationStartTime"],
		OfflineReplicationExportPath: set.Words["offlineReplicationExportPath"], OfflineReplicationImportPath: set.Words["offlineReplicationImportPath"],
		ReplicationPort: number("replicationPort"), AllowedAuthenticationType: number("allowedAuthenticationType"), ReplicaDeletionOption: deletion}
}

func policyThrottle(t dr.Throttle) (out oas.ReplicationThrottle) {
	out.Zone = t.Zone
	for _, w := range t.Windows {
		x := oas.ReplicationThrottleWindow{From: w.From, To: w.To, BytesPerSecond: w.BytesPerSecond}
		for _, d := range w.Days {
			x.Days = append(x.Days, oas.ReplicationThrottleWindowDays(d))
		}
		out.Windows = append(out.Windows, x)
	}
	return out
}
