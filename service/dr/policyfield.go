package dr

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// A policyField is a number of a provider's policy input: its unit, default and limits (ref 5.3). Values outside are refused by
// name; values left out take the default.
type policyField struct {
	name     string
	unit     time.Duration
	unitName string // empty: a plain number
	min, max int64
	def      int64
	one      []int64 // when set, only these
	set      func(*Policy, time.Duration)
}

func retention(name string, unit time.Duration, unitName string, limit, def int64) policyField {
	return policyField{name: name, unit: unit, unitName: unitName, max: limit, def: def, set: func(p *Policy, d time.Duration) { p.Retention = d }}
}

func appConsistent(name string, unit time.Duration, unitName string, limit, def int64) policyField {
	return policyField{name: name, unit: unit, unitName: unitName, max: limit, def: def, set: func(p *Policy, d time.Duration) { p.AppConsistentEvery = d }}
}

func crashConsistent(limit, def int64) policyField {
	return policyField{name: "crashConsistentFrequencyInMinutes", unit: time.Minute, unitName: "minutes", min: 1, max: limit, def: def,
		set: func(p *Policy, d time.Duration) { p.CrashConsistentEvery = d }}
}

// crashSeconds comes after crashConsistent, whose place it takes when it is sent. Azure has no such field.
var crashSeconds = policyField{name: "crashConsistentFrequencyInSeconds", unit: time.Second, unitName: "seconds", min: 5, max: 12 * 60 * 60,
	set: func(p *Policy, d time.Duration) {
		if d > 0 {
			p.CrashConsistentEvery = d
		}
	}}

func threshold(def int64) policyField {
	return policyField{name: "recoveryPointThresholdInMinutes", unit: time.Minute, unitName: "minutes", min: 1, max: 7 * 24 * 60, def: def,
		set: func(p *Policy, d time.Duration) { p.RPOThreshold = d }}
}

const (
	minutesADay = 24 * 60
	appField    = "appConsistentFrequencyInMinutes"
	appHours    = "applicationConsistentSnapshotFrequencyInHours"
)

var policyFields = map[ProviderType][]policyField{
	ProviderInMageRcm: {
		crashConsistent(12*60, 5), crashSeconds, appConsistent(appField, time.Minute, "minutes", 12*60, 0),
		retention("recoveryPointHistoryInMinutes", time.Minute, "minutes", 15*minutesADay, 3*minutesADay),
	},
	ProviderInMageRcmFailback: {crashConsistent(12*60, 5), appConsistent(appField, time.Minute, "minutes", 12*60, 60)},
	ProviderInMageAzureV2: {
		crashConsistent(12*60, 5), appConsistent(appField, time.Minute, "minutes", 12*60, 60),
		retention("recoveryPointHistory", time.Minute, "minutes", 3*minutesADay, minutesADay), threshold(15),
	},
	ProviderInMage: {
		appConsistent(appField, time.Minute, "minutes", 12*60, 60),
		retention("recoveryPointHistory", time.Minute, "minutes", 3*minutesADay, minutesADay), threshold(15),
	},
	ProviderHyperVReplicaAzure: {
		appConsistent(appHours, time.Hour, "hours", 12, 1), retention("recoveryPointHistoryDuration", time.Hour, "hours", 24, 2),
		{name: "replicationInterval", unit: time.Second, unitName: "seconds", def: 300, one: []int64{30, 300, 900},
			set: func(p *Policy, d time.Duration) { p.CrashConsistentEvery = d }},
	},
	ProviderHyperVReplica2012: hyperVPolicy(),
	ProviderHyperVReplica2012R2: append(hyperVPolicy(), policyField{name: "replicationFrequencyInSeconds", unit: time.Second, unitName: "seconds",
		def: 300, one: []int64{30, 300, 900}, set: func(p *Policy, d time.Duration) { p.CrashConsistentEvery = d }}),
	ProviderA2A: {
		crashConsistent(365*minutesADay, 5), appConsistent(appField, time.Minute, "minutes", 365*minutesADay, 0),
		retention("recoveryPointHistory", time.Minute, "minutes", 365*minutesADay, minutesADay),
	},
}

func hyperVPolicy() []policyField {
	return []policyField{
		appConsistent(appHours, time.Hour, "hours", 12, 0),
		// A count of hourly points; 0 keeps the newest alone.
		{name: "recoveryPoints", unit: time.Hour, max: 24, def: 0, set: func(p *Policy, d time.Duration) { p.Retention = d }},
		{name: "allowedAuthenticationType", one: []int64{kerberos, certificate}, def: kerberos, set: func(*Policy, time.Duration) {}},
		{name: "replicationPort", min: 1, max: math.MaxUint16, def: 8083, set: func(*Policy, time.Duration) {}},
	}
}

// How Hyper-V hosts prove themselves to each other: values of allowedAuthenticationType.
const (
	kerberos    = 1
	certificate = 2
)

// certificatePort is where a host listens for those that prove themselves with certificates.
const certificatePort = 8084

// A policyWord is a text of a provider's policy input. one lists what it may be; empty: anything.
type policyWord struct {
	name, def string
	one       []string
}

var policyWords = map[ProviderType][]policyWord{
	ProviderInMageRcm:     {{name: "enableMultiVmSync", def: "false", one: []string{"true", "false"}}},
	ProviderInMageAzureV2: {multiVM}, ProviderInMage: {multiVM}, ProviderA2A: {multiVM},
	ProviderHyperVReplicaAzure:  {{name: "onlineReplicationStartTime"}},
	ProviderHyperVReplica2012:   hyperVWords,
	ProviderHyperVReplica2012R2: hyperVWords,
}

var multiVM = policyWord{name: "multiVmSyncStatus", def: "Enable", one: []string{"Enable", "Disable"}}

var hyperVWords = []policyWord{{name: "compression", def: "Disable", one: []string{"Enable", "Disable"}},
	{name: "initialReplicationMethod", def: "OverNetwork", one: []string{"OverNetwork", "Offline"}}, {name: "replicaDeletion", def: "NotRequired", one: []string{"Required", "NotRequired"}},
	{name: "onlineReplicationStartTime"}, {name: "offlineReplicationExportPath"}, {name: "offlineReplicationImportPath"}}

func (f policyField) allows(v int64) bool {
	if f.one == nil {
		return v == f.def || v >= f.min && v <= f.max
	}
	for _, o := range f.one {
		if v == o {
			return true
		}
	}
	return false
}

func (f policyField) limits() string {
	unit := ""
	if f.unitName != "" {
		unit = " " + f.unitName
	}
	if f.one != nil {
		s := make([]string, len(f.one))
		for i, v := range f.one {
			s[i] = strconv.FormatInt(v, 10)
		}
		return fmt.Sprintf("%s as one of %s%s (default %d)", f.name, strings.Join(s, ", "), unit, f.def)
	}
	return fmt.Sprintf("%s from %d to %d%s (default %d)", f.name, f.min, f.max, unit, f.def)
}
