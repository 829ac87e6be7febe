package api

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
)

// Bad input, as a table: every refusal is an ARM error that says what is wrong, why, and what to do, and changes nothing.
func TestBadInputIsRefusedClearly(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	c := s.furnish()
	machine, _ := s.enrol(c)
	item := c + "/replicationProtectedItems/web01"
	s.must(202, "PUT", item, enableIn(machine))
	policy := vaultURL + "/replicationPolicies/p1"
	deep := strings.Repeat(`{"properties":`, 100) + "1" + strings.Repeat("}", 100)

	for _, test := range []struct {
		name         string
		method, path string
		body         string
		status       int
		code         string
		says         string // in the message or a detail
		role         Role
	}{
		{"no api-version", "GET", vaultURL + "?no-version", "", 400, "MissingApiVersionParameter", "api-version", ""},
		{"an api-version nobody knows", "GET", vaultURL + "?api-version=1999-01-01", "", 400, "InvalidApiVersionParameter", "2025-01-01", ""},
		{"no token", "GET", vaultURL, "", 401, "AuthenticationFailed", "bearer", "nobody"},
		{"a body that is not JSON", "PUT", policy, `{"properties":`, 400, "InvalidRequestContent", "not JSON", ""},
		{"two bodies", "PUT", policy, policyIn + policyIn, 400, "InvalidRequestContent", "follows", ""},
		{"a body that is not UTF-8", "PUT", policy, "{\"a\":\"\xff\"}", 400, "InvalidRequestContent", "UTF-8", ""},
		{"a body nested too deep", "PUT", policy, deep, 400, "InvalidRequestContent", "deep", ""},
		{"a body that is too long", "PUT", policy, `{"a":"` + strings.Repeat("x", 2<<20) + `"}`, 413, "RequestEntityTooLarge", "longer", ""},
		{"no body where one is needed", "PUT", policy, "", 400, "InvalidRequestContent", "body is required", ""},
		{"an array instead of an object", "PUT", policy, "[]", 400, "InvalidRequestContent", "object", ""},
		{"a required field is missing", "PUT", policy, `{"properties":{}}`, 400, "InvalidRequestContent", "properties.providerSpecificInput", ""},
		{"several fields are wrong and each is named", "PUT", item, `{"properties":{"policyId":7,"providerSpecificDetails":{"instanceType":"InMageRcm","processServerId":true}}}`, 400, "InvalidRequestContent",
			"properties.policyId|properties.providerSpecificDetails.processServerId|properties.providerSpecificDetails.fabricDiscoveryMachineId|properties.providerSpecificDetails.targetResourceGroupId", ""},
		{"text where a number belongs", "PUT", policy, `{"properties":{"providerSpecificInput":{"instanceType":"InMageRcm","crashConsistentFrequencyInMinutes":"5"}}}`, 400, "InvalidRequestContent", "not valid: properties.providerSpecificInput.crashConsistentFrequencyInMinutes: ", ""},
		{"a number where text belongs", "POST", item + "/unplannedFailover", `{"properties":{"providerSpecificDetails":{"instanceType":"InMageRcm","performShutdown":false}}}`, 400, "InvalidRequestContent", "performShutdown", ""},
		{"a number outside its limits", "PUT", policy, `{"properties":{"providerSpecificInput":{"instanceType":"InMageRcm","recoveryPointHistoryInMinutes":99999}}}`, 400, "InvalidRequestContent", "21600", ""},
		{"a word that is none of the list", "POST", item + "/unplannedFailover", `{"properties":{"failoverDirection":"Sideways"}}`, 400, "InvalidRequestContent", "failoverDirection", ""},
		{"an unknown kind where one is required", "PUT", policy, `{"properties":{"providerSpecificInput":{"instanceType":"Teleport"}}}`, 400, "InvalidRequestContent", "InMageRcmFailback", ""},
		{"a policy that does not exist", "PUT", c + "/replicationProtectionContainerMappings/m2", `{"properties":{"policyId":"/x/replicationPolicies/none","targetProtectionContainerId":"Microsoft Azure"}}`, 400, "BadRequest", "none", ""},
		{"a machine that does not exist", "PUT", c + "/replicationProtectedItems/other", enableIn("nothing"), 400, "BadRequest", "nothing", ""},
		{"a machine that is protected already", "PUT", c + "/replicationProtectedItems/other", enableIn(machine), 409, "Conflict", "protected already", ""},
		{"a vault that does not exist", "GET", groupPath + "/none", "", 404, "NotFound", "none", ""},
		{"a resource group of nobody", "GET", strings.Replace(vaultURL, "/rg/", "/other/", 1), "", 404, "NotFound", "", ""},
		{"a fabric that does not exist", "GET", vaultURL + "/replicationFabrics/none", "", 404, "NotFound", "none", ""},
		{"a job that does not exist", "GET", vaultURL + "/replicationJobs/none", "", 404, "NotFound", "none", ""},
		{"a path that does not exist", "GET", vaultURL + "/replicationTeapots", "", 404, "InvalidResourceType", "replicationTeapots", ""},
		{"a method that is not served", "PATCH", fabricURL, "{}", 405, "MethodNotAllowed", "PUT", ""},
		{"a name with a slash", "GET", vaultURL + "/replicationPolicies/a%2Fb", "", 400, "InvalidResourceName", "policyName", ""},
		{"a name that leads upwards", "GET", vaultURL + "/replicationPolicies/%2E%2E", "", 400, "InvalidResourceName", "policyName", ""},
		{"failover in the wrong state", "POST", item + "/unplannedFailover", `{"properties":{"providerSpecificDetails":{"instanceType":"InMageRcm","performShutdown":"false"}}}`, 409, "Conflict", "", ""},
		{"commit without a failover", "POST", item + "/failoverCommit", "", 409, "Conflict", "", ""},
		{"cleanup without a drill", "POST", item + "/testFailoverCleanup", `{"properties":{}}`, 409, "Conflict", "", ""},
		{"cancelling without a failover", "POST", item + "/failoverCancel", "", 409, "Conflict", "", ""},
		{"a vault that holds items", "DELETE", vaultURL, "", 409, "Conflict", "", ""},
		{"a fabric that holds items", "POST", fabricURL + "/remove", "", 409, "Conflict", "", ""},
		{"a policy in use", "DELETE", policy, "", 409, "Conflict", "", ""},
		{"a mapping in use", "DELETE", c + "/replicationProtectionContainerMappings/m1", "", 409, "Conflict", "", ""},
		{"a job that cannot run again", "POST", "JOB/restart", "", 409, "Conflict", "", ""},
		{"a key for nobody", "POST", fabricURL + "/generateRegistrationKey", `{"properties":{"role":"admin"}}`, 400, "InvalidRequestContent", "role", ""},
		{"a point that does not exist", "GET", item + "/recoveryPoints/none", "", 404, "NotFound", "", ""},
		{"a page size of nothing", "GET", c + "/replicationProtectableItems?$take=0", "", 400, "InvalidParameter", "$take", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			role := test.role
			if role == "" {
				role = RoleContributor
			}
			path := test.path
			if rest, ok := strings.CutPrefix(path, "JOB"); ok {
				done := s.must(200, "GET", vaultURL+"/replicationJobs?$filter="+url.QueryEscape("jobStatus eq 'Succeeded'"), "")
				path = vaultURL + "/replicationJobs/" + done.at("value.0.name").(string) + rest
			}
			before := s.snapshot(c)
			a := s.send(role, test.method, path, test.body)
			if a.status != test.status || a.at("error.code") != test.code || a.header.Get("x-ms-error-code") != test.code {
				t.Fatalf("got %s with %q, want %d %s", a, a.header.Get("x-ms-error-code"), test.status, test.code)
			}
			for _, want := range strings.Split(test.says, "|") {
				if !strings.Contains(string(a.raw), want) {
					t.Errorf("%s does not say %q", a, want)
				}
			}
			for _, field := range []string{"message", "possibleCauses", "recommendedAction", "activityId"} {
				if v, _ := a.at("error.details.0." + field).(string); v == "" {
					t.Errorf("the error has no %s: %s", field, a)
				}
			}
			if after := s.snapshot(c); after != before {
				t.Errorf("the refusal changed something:\n%s\n%s", before, after)
			}
		})
	}
}

// snapshot is everything a client sees that a request could change.
func (s *site) snapshot(container string) string {
	s.t.Helper()
	out := ""
	for _, path := range []string{vaultURL, vaultURL + "/replicationFabrics", vaultURL + "/replicationPolicies", vaultURL + "/replicationProtectionContainerMappings",
		container + "/replicationProtectableItems", vaultURL + "/replicationJobs"} {
		out += string(s.must(http.StatusOK, "GET", path, "").raw)
	}
	return out + s.itemStates()
}

// itemStates is what operations change of every item.
func (s *site) itemStates() (out string) {
	s.t.Helper()
	items := s.must(http.StatusOK, "GET", vaultURL+"/replicationProtectedItems", "")
	for i := 0; items.at(fmt.Sprintf("value.%d.name", i)) != nil; i++ {
		for _, f := range []string{"name", "properties.protectionState", "properties.currentScenario.jobId", "properties.allowedOperations", "properties.policyId"} {
			out += fmt.Sprintln(items.at(fmt.Sprintf("value.%d.%s", i, f)))
		}
	}
	return out
}

func TestInputIsTakenAsClientsSendIt(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	c := s.furnish()
	for _, test := range []struct{ name, method, path, body string }{
		{"words in any case", "PUT", vaultURL + "/replicationPolicies/p2", `{"Properties":{"ProviderSpecificInput":{"InstanceType":"inmagercm","CrashConsistentFrequencyInMinutes":10}}}`},
		{"null for absent", "PUT", c + "/replicationProtectionContainerMappings/m2", `{"properties":{"policyId":"` + vaultURL + `/replicationPolicies/p2","targetProtectionContainerId":"Microsoft Azure","providerSpecificInput":null}}`},
		{"the name of a base class", "PUT", c + "/replicationProtectionContainerMappings/m2", `{"properties":{"policyId":"` + vaultURL + `/replicationPolicies/p2","targetProtectionContainerId":"Microsoft Azure","providerSpecificInput":{"instanceType":"SomeBaseClassInput"}}}`},
		{"fields of a newer client", "PUT", vaultURL + "/replicationPolicies/p2", `{"properties":{"providerSpecificInput":{"instanceType":"InMageRcm","fromTheFuture":{"x":[1]}}},"tags":{}}`},
		{"a body where none is needed", "POST", fabricURL + "/checkConsistency", `{}`},
		{"no body where it may be left out", "POST", c + "/replicationProtectionContainerMappings/m2/remove", ""},
		{"a fabric with no details", "PUT", vaultURL + "/replicationFabrics/hyperv", `{"properties":{"customDetails":null}}`},
	} {
		t.Run(test.name, func(t *testing.T) {
			if a := s.send(RoleContributor, test.method, test.path, test.body); a.status >= 300 {
				t.Errorf("got %s", a)
			}
		})
	}
	if a := s.must(200, "GET", vaultURL+"/replicationFabrics/hyperv", ""); a.at("properties.customDetails.instanceType") != "HyperVSite" {
		t.Errorf("a fabric without details is %s", a)
	}
}

// A request without Accept and Content-Type is what the official client polls with.
func TestMissingHeadersAreNoReasonToRefuse(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	req, err := http.NewRequest("PUT", s.web.URL+vaultURL+"?api-version="+testVersion, strings.NewReader(vaultIn))
	if err != nil {
		t.Fatal(err)
	}
	req.Header["Accept"] = nil
	req.Header.Set("Authorization", "bearer "+secrets[RoleContributor])
	res, err := s.web.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if res.StatusCode != 201 {
		t.Errorf("got %s", res.Status)
	}
}
