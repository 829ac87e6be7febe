package api

import (
	"strings"
	"testing"
)

// planOf is a plan's body with the groups.
func planOf(groups string) string {
	return `{"properties":{"primaryFabricId":"` + fabricURL + `","recoveryFabricId":"Microsoft Azure","groups":[` + groups + `]}}`
}

func bootOf(item, actions string) string {
	return `{"groupType":"boot","replicationProtectedItems":[{"id":"` + item + `"}],"startGroupActions":[` + actions + `]}`
}

func TestAPlanThatCannotBeCarriedOutIsRefusedByName(t *testing.T) {
	t.Parallel()
	s, _, item := protected(t)
	plan := vaultURL + "/replicationRecoveryPlans/shop"
	action := func(details string) string {
		return bootOf(item, `{"actionName":"a","failoverTypes":["TestFailover"],"failoverDirections":["PrimaryToRecovery"],"customDetails":`+details+`}`)
	}
	for name, c := range map[string]struct{ body, says string }{
		"no groups":                 {planOf(""), "no machine"},
		"a machine that is none":    {planOf(bootOf(item+"x", "")), "names no protected item"},
		"another kind of action":    {planOf(action(`{"instanceType":"Other"}`)), "customDetails"},
		"a script that leaves":      {planOf(action(`{"instanceType":"ScriptActionDetails","path":"../x","fabricLocation":"Recovery"}`)), "not below"},
		"a runbook of the cloud":    {planOf(action(`{"instanceType":"AutomationRunbookActionDetails","runbookId":"/subscriptions/s/x","fabricLocation":"Recovery"}`)), "no URL"},
		"a side that is none":       {planOf(action(`{"instanceType":"ScriptActionDetails","path":"x","fabricLocation":"Middle"}`)), "fabricLocation"},
		"a fabric that is none":     {strings.Replace(planOf(bootOf(item, "")), fabricURL, fabricURL+"x", 1), "primaryFabricId"},
		"no recovery side":          {`{"properties":{"primaryFabricId":"` + fabricURL + `","groups":[` + bootOf(item, "") + `]}}`, "recoveryFabricId"},
		"too many at a time":        {strings.Replace(planOf(bootOf(item, "")), `"groups"`, `"parallelStarts":5000,"groups"`, 1), "parallelStarts"},
		"another answer to failing": {strings.Replace(planOf(bootOf(item, "")), `"groups"`, `"onFailure":"Panic","groups"`, 1), "onFailure"},
	} {
		a := s.send(RoleContributor, "PUT", plan, c.body)
		if a.status != 400 || !strings.Contains(a.String(), c.says) {
			t.Errorf("%s: got %d %s, want 400 that says %q", name, a.status, a, c.says)
		}
	}
	s.must(404, "GET", plan, "")
	s.must(404, "POST", plan+"/failoverCommit", "")
	s.finish(s.must(202, "PUT", plan, planOf(bootOf(item, `{"actionName":"a","failoverTypes":["TestFailover"],"failoverDirections":["PrimaryToRecovery"],"customDetails":{"instanceType":"manualactiondetails"}}`))), "Succeeded")
	got := s.must(200, "GET", plan, "")
	if got.at("properties.groups.2.groupType") != "Boot" || got.at("properties.groups.2.startGroupActions.0.customDetails.instanceType") != "ManualActionDetails" || got.at("properties.onFailure") != "Stop" {
		t.Errorf("got plan %s", got)
	}
	for action, body := range map[string]string{"failoverCommit": "", "failoverCancel": "", "reProtect": "", "testFailoverCleanup": `{"properties":{}}`, "plannedFailover": `{"properties":{"failoverDirection":"RecoveryToPrimary"}}`} {
		if a := s.send(RoleContributor, "POST", plan+"/"+action, body); a.status != 409 {
			t.Errorf("%s of a protected machine: got %d %s, want 409", action, a.status, a)
		}
	}
	// A machine whose protection ends leaves its plans.
	s.finish(s.must(202, "POST", item+"/remove", `{"properties":{}}`), "Succeeded")
	got = s.must(200, "GET", plan, "")
	if list, ok := got.at("properties.groups.2.replicationProtectedItems").([]any); !ok || len(list) != 0 {
		t.Errorf("the plan still has %s", got)
	}
	if a := s.send(RoleContributor, "POST", plan+"/testFailover", `{"properties":{"failoverDirection":"PrimaryToRecovery","networkType":"x"}}`); a.status != 409 {
		t.Errorf("a drill of nothing: got %d %s, want 409", a.status, a)
	}
	s.finish(s.must(202, "DELETE", plan, ""), "Succeeded")
}
