package dr

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"
)

// ParsePolicy reads a provider's policy input (ref 5.1) into the domain's units. The error names the field, the limit and what
// to send instead. Only the settings are filled in; identity is the caller's.
func ParsePolicy(input json.RawMessage) (Policy, *Error) {
	var raw map[string]json.RawMessage
	if err := json.Unmarshal(input, &raw); err != nil || raw == nil {
		return Policy{}, invalid("providerSpecificInput is not an object", "send an object with an instanceType, such as InMageRcm")
	}
	var name string
	_ = json.Unmarshal(raw["instanceType"], &name)
	if strings.EqualFold(name, "VMwareCbt") || strings.EqualFold(name, "A2ACrossClusterMigration") {
		return Policy{}, &Error{Code: CodeUnimplemented, Message: fmt.Sprintf("policies for %s cannot be created", name), PossibleCauses: "this server has no driver for the provider",
			RecommendedAction: "use a policy for InMageRcm: machines with the guest agent are migrated by a failover that is committed"}
	}
	provider, ok := policyProvider(name)
	if !ok {
		return Policy{}, invalid(fmt.Sprintf("instanceType %q is not a provider with policies", name), "send one of: "+providerList())
	}
	p := Policy{Provider: provider, ProviderSpecificInput: input, RPOThreshold: defaultRPOThreshold(provider)}
	v, err := readSettings(provider, raw)
	if err != nil {
		return Policy{}, err
	}
	for _, f := range policyFields[provider] {
		f.set(&p, time.Duration(v.Numbers[f.name])*f.unit)
	}
	if p.CrashConsistentEvery == 0 {
		p.CrashConsistentEvery = 5 * time.Minute
	}
	if p.Throttle, err = readThrottle(raw[throttleField]); err != nil {
		return Policy{}, err
	}
	p.MultiVMSync = v.Words["multiVmSyncStatus"] == "Enable" || v.Words["enableMultiVmSync"] == "true"
	return p, checkRetention(p, v)
}

// PolicySettings are a policy's settings under the names of its provider's input, defaults included.
type PolicySettings struct {
	Numbers map[string]int64
	Words   map[string]string
	// StorageAccount is the only entry of storageAccounts, or empty.
	StorageAccount string
}

// Settings reads them from the input, which ParsePolicy has accepted.
func (p Policy) Settings() PolicySettings {
	var raw map[string]json.RawMessage
	_ = json.Unmarshal(p.ProviderSpecificInput, &raw) // ParsePolicy has read it; without it the defaults come out
	v, _ := readSettings(p.Provider, raw)
	return v
}

func readSettings(provider ProviderType, raw map[string]json.RawMessage) (PolicySettings, *Error) {
	v := PolicySettings{Numbers: map[string]int64{}, Words: map[string]string{}}
	for _, f := range policyFields[provider] {
		n := f.def
		if f.name == "replicationPort" && v.Numbers["allowedAuthenticationType"] == certificate {
			n = certificatePort
		}
		if m := raw[f.name]; len(m) > 0 && string(m) != "null" {
			if err := json.Unmarshal(m, &n); err != nil {
				return v, invalid(f.name+" is not a whole number", "send "+f.limits())
			}
		}
		if !f.allows(n) {
			return v, invalid(fmt.Sprintf("%s is %d, which is outside its limits", f.name, n), "send "+f.limits())
		}
		v.Numbers[f.name] = n
	}
	for _, w := range policyWords[provider] {
		text, err := w.read(raw[w.name])
		if err != nil {
			return v, err
		}
		v.Words[w.name] = text
	}
	var accounts []string
	if m := raw["storageAccounts"]; len(m) > 0 {
		if err := json.Unmarshal(m, &accounts); err != nil || len(accounts) > 1 {
			return v, invalid("storageAccounts is not a list of at most one account", "send one path, or an empty list")
		}
	}
	if len(accounts) == 1 {
		v.StorageAccount = accounts[0]
	}
	return v, nil
}

// checkRetention refuses application-consistent points that would be dropped before the next one is taken. Between Hyper-V
// sites points are kept by number, one an hour, and the interval has to be less than that.
func checkRetention(p Policy, v PolicySettings) *Error {
	if p.AppConsistentEvery == 0 {
		return nil
	}
	field := appField
	if _, hours := v.Numbers[appHours]; hours {
		field = appHours
	}
	if keep, counted := v.Numbers["recoveryPoints"]; counted && v.Numbers[appHours] >= keep {
		return invalid(fmt.Sprintf("%s is %d, but only %d hourly points are kept: no application-consistent point would ever be kept", field, v.Numbers[appHours], keep),
			"send a smaller number, 0 for none, or a larger recoveryPoints")
	}
	if p.Retention > 0 && p.AppConsistentEvery > p.Retention {
		return invalid(fmt.Sprintf("%s (%v) is longer than the retention (%v): no application-consistent point would ever be kept", field, p.AppConsistentEvery, p.Retention),
			"send a shorter interval, 0 for none, or a longer retention")
	}
	return nil
}

// read takes a word in any case, and a boolean for its text.
func (w policyWord) read(m json.RawMessage) (string, *Error) {
	if len(m) == 0 || string(m) == "null" {
		return w.def, nil
	}
	var text string
	if json.Unmarshal(m, &text) != nil {
		text = string(m)
	}
	if text == "" {
		return w.def, nil
	}
	for _, o := range w.one {
		if strings.EqualFold(o, text) {
			return o, nil
		}
	}
	if len(w.one) > 0 {
		return "", invalid(fmt.Sprintf("%s is %q", w.name, text), fmt.Sprintf("send %s (default %s)", strings.Join(w.one, " or "), w.def))
	}
	return text, nil
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
