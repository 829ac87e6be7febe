package api

import (
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
)

func TestVaultIsMadeOnceAndShowsItsRecoveryKeyOnce(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	first := s.must(201, "PUT", vaultURL, vaultIn)
	if got := first.header.Get("Lifeboat-Recovery-Key"); got != "RECOVERY-KEY" {
		t.Errorf("the creating answer carries recovery key %q", got)
	}
	again := s.must(200, "PUT", vaultURL, vaultIn)
	if got := again.header.Get("Lifeboat-Recovery-Key"); got != "" {
		t.Errorf("the key is shown again: %q", got)
	}
	got := s.must(200, "GET", vaultURL, "")
	for path, want := range map[string]any{"properties.provisioningState": "Succeeded", "location": "here", "sku.name": "Standard", "name": "v1", "type": "Microsoft.RecoveryServices/vaults",
		"id": vaultURL} {
		if got.at(path) != want {
			t.Errorf("%s is %v, want %v", path, got.at(path), want)
		}
	}
	if e, _ := got.at("etag").(string); !strings.HasPrefix(e, `W/"`) {
		t.Errorf("etag is %q", e)
	}
}

func TestVaultDeleteAnswersByVersion(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	for version, want := range map[string]int{"2023-04-01": 200, "2024-01-01": 200, "2024-04-01": 204, "2026-07-01": 204} {
		s.must(201, "PUT", vaultURL, vaultIn)
		s.must(want, "DELETE", vaultURL+"?api-version="+version, "")
		s.must(404, "GET", vaultURL, "")
	}
	s.must(200, "DELETE", vaultURL+"?api-version=2023-04-01", "")
}

func TestAcceptedOperationCanBePolledBothWays(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.must(201, "PUT", vaultURL, vaultIn)
	// The caller's spelling comes back in names, and its version in every URL.
	path := strings.Replace(vaultURL, "/v1", "/V1", 1) + "/replicationfabrics/Site1"
	a := s.send(RoleContributor, "PUT", path+"?api-version=2024-04-01", fabricIn, "x-ms-client-request-id", "c1")
	if a.status != 202 || len(a.raw) != 0 || a.header.Get("Content-Length") != "0" || a.header.Get("Content-Type") != "" {
		t.Fatalf("got %s with %v, want an empty 202", a, a.header)
	}
	location, async := a.header.Get("Location"), a.header.Get("Azure-AsyncOperation")
	prefix := s.web.URL + path + "/operationresults/"
	job, ok := strings.CutSuffix(strings.TrimPrefix(location, prefix), "?api-version=2024-04-01")
	if !strings.HasPrefix(location, prefix) || !ok {
		t.Fatalf("Location is %s", location)
	}
	if want := s.web.URL + strings.Replace(vaultURL, "/v1", "/V1", 1) + "/replicationOperationStatus/" + job + "?api-version=2024-04-01"; async != want {
		t.Errorf("Azure-AsyncOperation is %s, want %s", async, want)
	}
	if got := a.header.Get("x-ms-request-id"); got != vaultURL+"/replicationJobs/"+job {
		t.Errorf("x-ms-request-id is %q", got)
	}
	if a.header.Get("Retry-After") == "" || a.header.Get("x-ms-client-request-id") != "c1" || a.header.Get("x-ms-correlation-request-id") == "" {
		t.Errorf("headers are missing: %v", a.header)
	}
	status := s.must(200, "GET", async, "")
	if status.at("status") != "Succeeded" || status.at("name") != job {
		t.Errorf("status is %s", status)
	}
	result := s.must(200, "GET", location, "")
	if result.at("name") != "Site1" || result.at("properties.customDetails.instanceType") != "InMageRcm" {
		t.Errorf("result is %s", result)
	}
	s.must(200, "GET", vaultURL+"/replicationJobs/"+job, "")
}

func TestResultOfARemovalIsNothingEvenWhenTheParentIsGone(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	c := s.furnish()
	removal := s.must(202, "POST", c+"/replicationProtectionContainerMappings/m1/remove", `{"properties":{}}`)
	s.must(204, "GET", removal.header.Get("Location"), "")
	fabric := s.must(202, "POST", fabricURL+"/remove", "")
	s.must(404, "GET", fabricURL, "")
	s.must(204, "GET", fabric.header.Get("Location"), "")
	s.must(204, "GET", removal.header.Get("Location"), "")
	if st := s.must(200, "GET", removal.header.Get("Azure-AsyncOperation"), ""); st.at("status") != "Succeeded" {
		t.Errorf("status is %s", st)
	}
}

func TestPutAgainChangesNothing(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	c := s.furnish()
	for path, in := range map[string]string{fabricURL: fabricIn, vaultURL + "/replicationPolicies/p1": policyIn, c + "/replicationProtectionContainerMappings/m1": mappingIn()} {
		before := s.must(200, "GET", path, "")
		if a := s.send(RoleContributor, "PUT", path, in); a.status != 200 && a.status != 202 {
			t.Errorf("PUT %s again: %s", path, a)
		}
		if after := s.must(200, "GET", path, ""); string(after.raw) != string(before.raw) {
			t.Errorf("PUT %s again changed\n%s to\n%s", path, before, after)
		}
	}
}

func TestListsAreCutIntoPages(t *testing.T) {
	t.Parallel()
	s := newSite(t, func(c *Config) { c.PageSize = 2 })
	s.must(201, "PUT", vaultURL, vaultIn)
	want := []string{}
	for i := range 5 {
		name := fmt.Sprintf("p%d", i)
		want = append(want, name)
		s.must(202, "PUT", vaultURL+"/replicationPolicies/"+name, policyIn)
	}
	got, next, pages := []string{}, vaultURL+"/replicationPolicies", 0
	for next != "" {
		// Clients re-order the query of nextLink.
		u, err := url.Parse(next)
		if err != nil {
			t.Fatal(err)
		}
		u.RawQuery = u.Query().Encode()
		a := s.must(200, "GET", u.String(), "")
		for i := 0; a.at(fmt.Sprintf("value.%d.name", i)) != nil; i++ {
			got = append(got, a.at(fmt.Sprintf("value.%d.name", i)).(string))
		}
		if next, _ = a.at("nextLink").(string); next != "" && !strings.HasPrefix(next, s.web.URL) {
			t.Fatalf("nextLink %q is not absolute", next)
		}
		if pages++; pages > 10 {
			t.Fatal("the list does not end")
		}
	}
	if !slices.Equal(got, want) || pages != 3 {
		t.Errorf("got %v in %d pages, want %v in 3", got, pages, want)
	}
	if a := s.send(RoleReader, "GET", vaultURL+"/replicationPolicies?skipToken=!", ""); a.status != 400 || a.at("error.target") != "skipToken" {
		t.Errorf("a foreign token: %s", a)
	}
}

func TestFiltersAreThoseThatClientsSend(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]filter{
		"":             {},
		" Name eq 'a'": {"name": {"a"}},
		"JobStatus eq 'Failed' and FabricId eq 'x y'":                      {"jobstatus": {"Failed"}, "fabricid": {"x y"}},
		"( JobStatus eq 'Failed' or JobStatus eq 'Succeeded' )":            {"jobstatus": {"Failed", "Succeeded"}},
		"(JobStatus eq 'a' or jobStatus eq 'b') and startTime eq '2026-1'": {"jobstatus": {"a", "b"}, "starttime": {"2026-1"}},
		"a eq 'it''s'":  {"a": {"it's"}},
		"a EQ true":     {"a": {"true"}},
		"a eq '( or )'": {"a": {"( or )"}},
	} {
		got, err := parseFilter(text)
		if err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%q: got %v, %v, want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"a", "a eq", "a ne 'b'", "a eq 'b' and", "a eq 'b' or c eq 'd'", "(a eq 'b'", "(a eq 'b' or c eq 'd')", "a eq 'b' a eq 'c'", "a eq 'b", "()", ")", "a eq 'x' and a eq 'y'"} {
		if got, err := parseFilter(text); err == nil {
			t.Errorf("%q was understood as %v", text, got)
		}
	}
}

func FuzzFilter(f *testing.F) {
	f.Add("( A eq 'x' or A eq 'y' ) and B eq 'z'")
	f.Fuzz(func(t *testing.T, text string) {
		got, err := parseFilter(text)
		if err == nil && got == nil {
			t.Error("neither a filter nor an error")
		}
	})
}

func TestJobsAndEventsAreFiltered(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.furnish()
	all := s.must(200, "GET", vaultURL+"/replicationJobs", "")
	if all.at("value.0.properties.tasks.0") != nil || all.at("value.0.properties.customDetails") != nil {
		t.Errorf("a list shows what only a job itself shows: %s", all)
	}
	one := s.must(200, "GET", vaultURL+"/replicationJobs?$filter="+url.QueryEscape("( JobStatus eq 'succeeded' )"), "")
	if one.at("value.0.properties.state") != "Succeeded" {
		t.Errorf("got %s", one)
	}
	for _, none := range []string{"JobStatus eq 'Failed'", "StartTime eq '2099-01-01T00:00:00Z'", "jobName eq 'x'"} {
		if a := s.must(200, "GET", vaultURL+"/replicationJobs?$filter="+url.QueryEscape(none), ""); a.at("value.0") != nil {
			t.Errorf("%s: got %s", none, a)
		}
	}
	for _, bad := range []string{"colour eq 'red'", "jobStatus eq 'Flying'", "startTime eq 'yesterday'"} {
		if a := s.send(RoleReader, "GET", vaultURL+"/replicationJobs?$filter="+url.QueryEscape(bad), ""); a.status != 400 || a.at("error.target") != "$filter" {
			t.Errorf("%s: got %s", bad, a)
		}
	}
	events := s.must(200, "GET", vaultURL+"/replicationEvents?$filter="+url.QueryEscape("EventType eq 'JobStatus'"), "")
	name, ok := events.at("value.0.name").(string)
	if !ok {
		t.Fatalf("no events: %s", events)
	}
	if a := s.must(200, "GET", vaultURL+"/replicationEvents/"+url.PathEscape(name), ""); a.at("name") != name || a.at("properties.eventSpecificDetails.instanceType") != "JobStatus" {
		t.Errorf("got %s", a)
	}
}

func TestRolesMayDoWhatTheDocumentSays(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	c := s.furnish()
	for _, test := range []struct {
		role         Role
		method, path string
		body         string
		want         int
	}{
		{RoleReader, "GET", fabricURL, "", 200},
		{RoleReader, "PUT", fabricURL, fabricIn, 403},
		{RoleReader, "POST", vaultURL + "/replicationJobs/x/cancel", "", 403},
		{RoleOperator, "GET", c, "", 200},
		{RoleOperator, "PUT", fabricURL, fabricIn, 403},
		{RoleOperator, "DELETE", vaultURL, "", 403},
		{RoleOperator, "POST", c + "/replicationProtectedItems/x/remove", `{"properties":{}}`, 403},
		{RoleOperator, "POST", c + "/replicationProtectedItems/x/failoverCommit", "", 404},
		{RoleOperator, "POST", vaultURL + "/replicationJobs/x/cancel", "", 404},
		{RoleOperator, "POST", vaultURL + "/replicationVaultHealth/default/refresh", "", 202},
		{RoleContributor, "PUT", fabricURL, fabricIn, 202},
		{"", "GET", fabricURL, "", 401},
		{"", "GET", "/nowhere", "", 401},
	} {
		a := s.send(test.role, test.method, test.path, test.body)
		if a.status != test.want && (test.want != 202 || a.status != 200) {
			t.Errorf("%s %s %s: got %s, want %d", test.role, test.method, test.path, a, test.want)
		}
		if a.status == 401 && !strings.HasPrefix(a.header.Get("WWW-Authenticate"), `Bearer authorization_uri="`) {
			t.Errorf("the challenge is %q", a.header.Get("WWW-Authenticate"))
		}
	}
}

func TestAnswersAreCompressedForThoseWhoAsk(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	r := httptest.NewRequest("GET", "/openapi.json", nil)
	r.Header.Set("Accept-Encoding", "gzip")
	w := httptest.NewRecorder()
	s.server.handler().ServeHTTP(w, r)
	if w.Header().Get("Content-Encoding") != "gzip" || w.Body.Len() > 100_000 {
		t.Fatalf("got %v, %d bytes", w.Header(), w.Body.Len())
	}
	z, err := gzip.NewReader(w.Body)
	if err != nil {
		t.Fatal(err)
	}
	var doc map[string]any
	if raw, err := io.ReadAll(z); err != nil || json.Unmarshal(raw, &doc) != nil {
		t.Errorf("the document does not come out again: %v", err)
	}
}

func TestNamesMayHoldWhatURLsEscape(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.must(201, "PUT", vaultURL, vaultIn)
	name := "p 1;50%(old)"
	path := vaultURL + "/replicationPolicies/" + url.PathEscape(name)
	if a := s.send(RoleContributor, "PUT", path, policyIn); a.status != 202 {
		if a.status != 400 || a.at("error.message") == nil {
			t.Fatalf("got %s", a)
		}
		return // the control plane may be stricter; then it says so
	}
	if a := s.must(200, "GET", path, ""); a.at("name") != name {
		t.Errorf("got %s", a)
	}
	if a := s.must(200, "GET", strings.ToLower(path), ""); a.at("name") != name {
		t.Errorf("got %s", a)
	}
}

func TestNamespaceIsRegistered(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	for _, req := range [][2]string{{"GET", ""}, {"POST", "/register"}} {
		a := s.send(RoleOperator, req[0], "/subscriptions/sub/providers/Microsoft.RecoveryServices"+req[1]+"?api-version=2019-05-01", "")
		if a.status != 200 || a.at("registrationState") != "Registered" {
			t.Errorf("%s: got %s", req[0], a)
		}
	}
}

func TestAPanicIsA500WithoutItsText(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	h := s.server.envelope(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("secret detail") }))
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
	if w.Code != 500 || strings.Contains(w.Body.String(), "secret") || !strings.Contains(w.Body.String(), "InternalServerError") {
		t.Errorf("got %d %s", w.Code, w.Body)
	}
}
