package dr

import (
	"encoding/json"
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
		crashConsistent(12*60, 5), appConsistent(appField, time.Minute, "minutes", 12*60, 0),
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
		// A count of hourly points.
		{name: "recoveryPoints", unit: time.Hour, max: 24, def: 0, set: func(p *Policy, d time.Duration) { p.Retention = d }},
		{name: "allowedAuthenticationType", one: []int64{1, 2}, def: 1, set: func(*Policy, time.Duration) {}},
		{name: "replicationPort", min: 1, max: math.MaxUint16, def: 8083, set: func(*Policy, time.Duration) {}},
	}
}

// ParsePolicy reads a provider's policy input (ref 5.1) into the domain's units. The error names the field, the limit and what
// to send instead. Only the settings are filled in; identity is the caller's.
func ParsePolicy(input json.RawMessage) (Policy, *Error) {
	var raw map[string]json.RawMessage
	if err := json.Unmarshal(input, &raw); err != nil || raw == nil {
		return Policy{}, invalid("providerSpecificInput is not an object", "send an object with an instanceType, such as InMageRcm")
	}
	var name string
	_ = json.Unmarshal(raw["instanceType"], &name)
	provider, ok := policyProvider(name)
	if !ok {
		return Policy{}, invalid(fmt.Sprintf("instanceType %q is not a provider with policies", name), "send one of: "+providerList())
	}
	p := Policy{Provider: provider, ProviderSpecificInput: input, RPOThreshold: defaultRPOThreshold(provider)}
	for _, f := range policyFields[provider] {
		v := f.def
		if m, ok := raw[f.name]; ok && string(m) != "null" {
			if err := json.Unmarshal(m, &v); err != nil {
				return Policy{}, invalid(f.name+" is not a whole number", "send "+f.limits())
			}
		}
		if !f.allows(v) {
			return Policy{}, invalid(fmt.Sprintf("%s is %d, which is outside its limits", f.name, v), "send "+f.limits())
		}
		f.set(&p, time.Duration(v)*f.unit)
	}
	if p.CrashConsistentEvery == 0 {
		p.CrashConsistentEvery = 5 * time.Minute
	}
	for _, name := range []string{"multiVmSyncStatus", "enableMultiVmSync"} {
		on, err := parseSwitch(name, raw[name])
		if err != nil {
			return Policy{}, err
		}
		p.MultiVMSync = p.MultiVMSync || on
	}
	if p.Retention > 0 && p.AppConsistentEvery > p.Retention {
		return Policy{}, invalid(fmt.Sprintf("%s (%v) is longer than the retention (%v): no application-consistent point would ever be kept", appField, p.AppConsistentEvery, p.Retention),
			"send a shorter interval, 0 for none, or a longer retention")
	}
	return p, nil
}

func (f policyField) allows(v int64) bool {
	if f.one == nil {
		return v >= f.min && v <= f.max
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

// parseSwitch reads Enable and Disable, or "true" and "false", as text or as a bool.
func parseSwitch(name string, m json.RawMessage) (bool, *Error) {
	if len(m) == 0 || string(m) == "null" {
		return false, nil
	}
	switch strings.ToLower(strings.Trim(string(m), `"`)) {
	case "enable", "true":
		return true, nil
	case "disable", "false", "":
		return false, nil
	}
	return false, invalid(fmt.Sprintf("%s is %s", name, m), "send Enable or Disable for multiVmSyncStatus, true or false for enableMultiVmSync")
}

// defaultRPOThreshold is the RPO of policies without a field for it. 15 minutes is what the field's own tools set.
func defaultRPOThreshold(ProviderType) time.Duration { return 15 * time.Minute }

func policyProvider(name string) (ProviderType, bool) {
	for p := range policyFields {
		if strings.EqualFold(string(p), name) {
			return p, true
		}
	}
	return "", false
}

func invalid(message, action string) *Error {
	return &Error{Code: CodeInvalid, Message: message, PossibleCauses: "the request does not fit the provider's limits", RecommendedAction: action}
}
