package dr

import (
	"maps"
	"strings"
	"testing"
	"time"
)

func TestParsePolicy(t *testing.T) {
	cases := []struct {
		name, input string
		want        Policy
		refused     string // part of the message
	}{
		{"an RCM policy with nothing but its type takes the defaults", `{"instanceType":"InMageRcm"}`,
			Policy{Provider: ProviderInMageRcm, CrashConsistentEvery: 5 * time.Minute, Retention: 72 * time.Hour, RPOThreshold: 15 * time.Minute}, ""},
		{"an RCM policy in minutes", `{"instanceType":"InMageRcm","crashConsistentFrequencyInMinutes":1,"appConsistentFrequencyInMinutes":60,"recoveryPointHistoryInMinutes":1440,"enableMultiVmSync":"true"}`,
			Policy{Provider: ProviderInMageRcm, CrashConsistentEvery: time.Minute, AppConsistentEvery: time.Hour, Retention: 24 * time.Hour, RPOThreshold: 15 * time.Minute, MultiVMSync: true}, ""},
		{"an RCM policy in seconds", `{"instanceType":"InMageRcm","crashConsistentFrequencyInMinutes":5,"crashConsistentFrequencyInSeconds":5}`,
			Policy{Provider: ProviderInMageRcm, CrashConsistentEvery: 5 * time.Second, Retention: 72 * time.Hour, RPOThreshold: 15 * time.Minute}, ""},
		{"null is the default", `{"instanceType":"inmagercm","recoveryPointHistoryInMinutes":null}`,
			Policy{Provider: ProviderInMageRcm, CrashConsistentEvery: 5 * time.Minute, Retention: 72 * time.Hour, RPOThreshold: 15 * time.Minute}, ""},
		{"Hyper-V to Azure in hours and seconds", `{"instanceType":"HyperVReplicaAzure","recoveryPointHistoryDuration":24,"applicationConsistentSnapshotFrequencyInHours":12,"replicationInterval":30}`,
			Policy{Provider: ProviderHyperVReplicaAzure, CrashConsistentEvery: 30 * time.Second, AppConsistentEvery: 12 * time.Hour, Retention: 24 * time.Hour, RPOThreshold: 15 * time.Minute}, ""},
		{"classic VMware names its threshold", `{"instanceType":"InMageAzureV2","multiVmSyncStatus":"Enable","recoveryPointThresholdInMinutes":60}`,
			Policy{Provider: ProviderInMageAzureV2, CrashConsistentEvery: 5 * time.Minute, AppConsistentEvery: time.Hour, Retention: 24 * time.Hour, RPOThreshold: time.Hour, MultiVMSync: true}, ""},
		{"retention above 15 days", `{"instanceType":"InMageRcm","recoveryPointHistoryInMinutes":21601}`, Policy{}, "recoveryPointHistoryInMinutes is 21601"},
		{"crash-consistent every 0 minutes", `{"instanceType":"InMageRcm","crashConsistentFrequencyInMinutes":0}`, Policy{}, "crashConsistentFrequencyInMinutes is 0"},
		{"crash-consistent every 4 seconds", `{"instanceType":"InMageRcm","crashConsistentFrequencyInSeconds":4}`, Policy{}, "crashConsistentFrequencyInSeconds is 4"},
		{"an interval Hyper-V has not", `{"instanceType":"HyperVReplicaAzure","replicationInterval":60}`, Policy{}, "replicationInterval is 60"},
		{"text for a number", `{"instanceType":"InMageRcm","recoveryPointHistoryInMinutes":"60"}`, Policy{}, "not a whole number"},
		{"an unknown provider", `{"instanceType":"Tape"}`, Policy{}, `"Tape" is not a provider`},
		{"no input", `null`, Policy{}, "not an object"},
		{"a throttle in a zone that is not", `{"instanceType":"InMageRcm","throttle":{"zone":"Mars/Olympus"}}`, Policy{}, "Mars/Olympus"},
		{"a throttle from nowhere", `{"instanceType":"InMageRcm","throttle":{"windows":[{"to":"18:00","bytesPerSecond":1}]}}`, Policy{}, "throttle.windows[0] is from"},
		{"a throttle to 25 o'clock", `{"instanceType":"InMageRcm","throttle":{"windows":[{"from":"08:00","to":"25:00","bytesPerSecond":1}]}}`, Policy{}, "throttle.windows[0] is from"},
		{"a throttle on a day that is not", `{"instanceType":"A2A","throttle":{"windows":[{"days":["Mon"],"from":"08:00","to":"24:00","bytesPerSecond":1}]}}`, Policy{}, `day "Mon"`},
		{"a negative throttle", `{"instanceType":"InMageRcm","throttle":{"windows":[{"from":"08:00","to":"18:00","bytesPerSecond":-1}]}}`, Policy{}, "bytesPerSecond is -1"},
		{"a throttle that is a number", `{"instanceType":"InMageRcm","throttle":5}`, Policy{}, "throttle is not an object"},
		{"app-consistent points that nothing keeps", `{"instanceType":"InMageRcm","recoveryPointHistoryInMinutes":60,"appConsistentFrequencyInMinutes":120}`, Policy{}, "longer than the retention"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			got, err := ParsePolicy([]byte(c.input))
			if c.refused != "" {
				if err == nil || err.Code != CodeInvalid || !strings.Contains(err.Message, c.refused) || err.RecommendedAction == "" {
					t.Fatalf("got %v, want a refusal with %q and a remedy", err, c.refused)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			got.ProviderSpecificInput = nil
			if got.Provider != c.want.Provider || got.CrashConsistentEvery != c.want.CrashConsistentEvery || got.AppConsistentEvery != c.want.AppConsistentEvery ||
				got.Retention != c.want.Retention || got.RPOThreshold != c.want.RPOThreshold || got.MultiVMSync != c.want.MultiVMSync {
				t.Errorf("got %+v, want %+v", got, c.want)
			}
		})
	}
}

func TestPointIDIsStable(t *testing.T) {
	// Clients keep these ids; a catalogue rebuilt from the bucket must show the same.
	if got, want := PointID("item-1", PointRef{Generation: 1, Sequence: 2}), PointID("item-1", PointRef{Generation: 1, Sequence: 2}); got != want || len(got) != 36 {
		t.Errorf("got %s and %s, want the same GUID", got, want)
	}
	seen := map[string]bool{}
	for g := range int64(4) {
		for q := range int64(4) {
			seen[PointID("item-1", PointRef{g, q})] = true
			seen[PointID("item-11", PointRef{g, q})] = true
		}
	}
	if len(seen) != 32 {
		t.Errorf("got %d different ids, want 32", len(seen))
	}
}

func TestJudge(t *testing.T) {
	now := start.Add(time.Hour)
	policy := Policy{RPOThreshold: 15 * time.Minute}
	item := func(p Phase) *Item {
		return &Item{ID: "i", State: State{Leg: LegInMageRcm, Phase: p, Since: start}, ActiveUUID: "home"}
	}
	heard := Observed{LastHeartbeat: now.Add(-time.Second)}
	point := func(age time.Duration) *Point { return &Point{Time: now.Add(-age)} }
	often := Policy{RPOThreshold: 15 * time.Minute, CrashConsistentEvery: 30 * time.Second}
	limit := int64(1_000_000)
	throttled, blocked := heard, heard
	throttled.ThrottledPercent, throttled.BlockedPercent, throttled.Throttle, throttled.Churn = 60, 55, &limit, 5_000_000
	blocked.ThrottledPercent, blocked.BlockedPercent, blocked.Churn = 10, 50, 123_456_789
	resync := item(PhaseProtected)
	resync.State.Resync = true
	cases := []struct {
		name   string
		e      Evidence
		health string
		codes  []string
	}{
		{"a fresh point and a heartbeat are normal", Evidence{Item: item(PhaseProtected), Policy: policy, Observed: heard, Newest: point(time.Minute)}, HealthNormal, nil},
		{"a point older than the RPO is a breach", Evidence{Item: item(PhaseProtected), Policy: policy, Observed: heard, Newest: point(16 * time.Minute)}, HealthCritical, []string{HealthRPOBreach}},
		{"a throttle that is too low is named", Evidence{Item: item(PhaseProtected), Policy: often, Observed: throttled, Newest: point(91 * time.Second)}, HealthWarning, []string{HealthChurn}},
		{"two intervals and a while are no delay yet", Evidence{Item: item(PhaseProtected), Policy: often, Observed: throttled, Newest: point(90 * time.Second)}, HealthNormal, nil},
		{"a slow network is named", Evidence{Item: item(PhaseProtected), Policy: often, Observed: blocked, Newest: point(16 * time.Minute)}, HealthCritical, []string{HealthRPOBreach, HealthChurn}},
		{"points may be late for another reason", Evidence{Item: item(PhaseProtected), Policy: often, Observed: heard, Newest: point(5 * time.Minute)}, HealthWarning, []string{HealthPointsLate}},
		{"points of a silent agent are not late besides", Evidence{Item: item(PhaseProtected), Policy: often, Newest: point(5 * time.Minute)}, HealthCritical, []string{HealthNoHeartbeat}},
		{"a resync takes its time", Evidence{Item: resync, Policy: often, Observed: throttled, Newest: point(5 * time.Minute)}, HealthWarning, []string{HealthResync}},
		{"silence is critical", Evidence{Item: item(PhaseProtected), Policy: policy, Newest: point(time.Minute)}, HealthCritical, []string{HealthNoHeartbeat}},
		{"a resync is a warning", Evidence{Item: resync, Policy: policy, Observed: heard, Newest: point(time.Minute)}, HealthWarning, []string{HealthResync}},
		{"after failover nothing is judged", Evidence{Item: item(PhaseUnplannedPending), Policy: policy, Newest: point(time.Hour)}, HealthNone, nil},
		{"a stranger is named after failover too", Evidence{Item: item(PhaseUnplannedPending), Policy: policy, Observed: Observed{StrangerUUID: "x", StrangerSeen: now}}, HealthNone, []string{HealthStranger}},
	}
	for _, c := range cases {
		health, errs := Judge(c.e, now)
		ok := health == c.health && len(errs) == len(c.codes)
		for i := range errs {
			ok = ok && errs[i].Code == c.codes[i] && errs[i].PossibleCauses != "" && errs[i].RecommendedAction != ""
		}
		if !ok {
			t.Errorf("%s: got %s %+v, want %s %v", c.name, health, errs, c.health, c.codes)
		}
	}
}

func TestPolicySettingsOfEveryProvider(t *testing.T) {
	cases := []struct {
		name, input string
		numbers     map[string]int64
		words       map[string]string
		refused     string
	}{
		{"failback of RCM has two intervals", `{"instanceType":"InMageRcmFailback"}`, map[string]int64{"appConsistentFrequencyInMinutes": 60, "crashConsistentFrequencyInMinutes": 5}, nil, ""},
		{"classic VMware", `{"instanceType":"InMageAzureV2"}`, map[string]int64{"recoveryPointHistory": 1440, "appConsistentFrequencyInMinutes": 60, "crashConsistentFrequencyInMinutes": 5,
			"recoveryPointThresholdInMinutes": 15}, map[string]string{"multiVmSyncStatus": "Enable"}, ""},
		{"classic VMware keeps three days at most", `{"instanceType":"InMageAzureV2","recoveryPointHistory":4321}`, nil, nil, "recoveryPointHistory is 4321"},
		{"Scout has no crash-consistent interval", `{"instanceType":"InMage","multiVmSyncStatus":"disable"}`, map[string]int64{"recoveryPointHistory": 1440, "appConsistentFrequencyInMinutes": 60,
			"recoveryPointThresholdInMinutes": 15}, map[string]string{"multiVmSyncStatus": "Disable"}, ""},
		{"Hyper-V to Azure in hours", `{"instanceType":"HyperVReplicaAzure"}`, map[string]int64{"recoveryPointHistoryDuration": 2, "applicationConsistentSnapshotFrequencyInHours": 1, "replicationInterval": 300},
			map[string]string{"onlineReplicationStartTime": ""}, ""},
		{"Hyper-V to Azure keeps a day at most", `{"instanceType":"HyperVReplicaAzure","recoveryPointHistoryDuration":25}`, nil, nil, "recoveryPointHistoryDuration is 25"},
		{"Hyper-V to Azure has one account", `{"instanceType":"HyperVReplicaAzure","storageAccounts":["a","b"]}`, nil, nil, "at most one"},
		{"Hyper-V 2012", `{"instanceType":"HyperVReplica2012"}`, map[string]int64{"recoveryPoints": 0, "applicationConsistentSnapshotFrequencyInHours": 0, "allowedAuthenticationType": 1, "replicationPort": 8083},
			map[string]string{"compression": "Disable", "initialReplicationMethod": "OverNetwork", "replicaDeletion": "NotRequired", "onlineReplicationStartTime": "", "offlineReplicationExportPath": "", "offlineReplicationImportPath": ""}, ""},
		{"Hyper-V 2012 R2 with certificates", `{"instanceType":"HyperVReplica2012R2","allowedAuthenticationType":2,"recoveryPoints":4,"applicationConsistentSnapshotFrequencyInHours":3,"compression":"enable"}`,
			map[string]int64{"recoveryPoints": 4, "applicationConsistentSnapshotFrequencyInHours": 3, "allowedAuthenticationType": 2, "replicationPort": 8084, "replicationFrequencyInSeconds": 300}, nil, ""},
		{"Hyper-V 2012 R2 copies every 30 seconds, 5 or 15 minutes", `{"instanceType":"HyperVReplica2012R2","replicationFrequencyInSeconds":60}`, nil, nil, "replicationFrequencyInSeconds is 60"},
		{"as many hours as points", `{"instanceType":"HyperVReplica2012","recoveryPoints":2,"applicationConsistentSnapshotFrequencyInHours":2}`, nil, nil, "only 2 hourly points are kept"},
		{"a method Hyper-V has not", `{"instanceType":"HyperVReplica2012","initialReplicationMethod":"Pigeon"}`, nil, nil, `initialReplicationMethod is "Pigeon"`},
		{"regions", `{"instanceType":"A2A","recoveryPointHistory":1440,"appConsistentFrequencyInMinutes":240}`, map[string]int64{"recoveryPointHistory": 1440, "appConsistentFrequencyInMinutes": 240,
			"crashConsistentFrequencyInMinutes": 5}, map[string]string{"multiVmSyncStatus": "Enable"}, ""},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			p, err := ParsePolicy([]byte(c.input))
			if c.refused != "" {
				if err == nil || err.Code != CodeInvalid || !strings.Contains(err.Message, c.refused) || err.RecommendedAction == "" {
					t.Fatalf("got %v, want a refusal with %q and a remedy", err, c.refused)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			got := p.Settings()
			if c.numbers != nil && !maps.Equal(got.Numbers, c.numbers) || c.words != nil && !maps.Equal(got.Words, c.words) {
				t.Errorf("got %+v, want %v and %v", got, c.numbers, c.words)
			}
		})
	}
}

func TestMigrationPoliciesNameWhatToUseInstead(t *testing.T) {
	_, err := ParsePolicy([]byte(`{"instanceType":"VMwareCbt"}`))
	if err == nil || err.Code != CodeUnimplemented || !strings.Contains(err.RecommendedAction, "InMageRcm") {
		t.Errorf("got %v, want unimplemented and InMageRcm", err)
	}
}
