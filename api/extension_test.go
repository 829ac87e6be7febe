package api

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
)

// protected is a stage with one protected machine, and the machine's URL.
func protected(t *testing.T) (*site, *stage, string) {
	t.Helper()
	s, st := newStage(t)
	c := s.furnish()
	machine := st.enrol(c)
	item := c + "/replicationProtectedItems/web01"
	s.finish(s.must(202, "PUT", item, enableIn(machine)), "Succeeded")
	s.until(item, "properties.protectionState", "Protected")
	return s, st, item
}

const patience = time.Minute

// finish polls an accepted operation to its end, checks how it ended, and returns its result.
func (s *site) finish(a answer, want string) answer {
	s.t.Helper()
	if async := a.header.Get("Azure-AsyncOperation"); async != "" {
		s.until(async, "status", want)
	}
	var r answer
	eventually(s.t, func() (bool, string) {
		r = s.send(RoleReader, "GET", a.header.Get("Location"), "")
		return r.status != http.StatusAccepted, "still running: " + a.header.Get("Location")
	})
	return r
}

// eventually waits for what nobody announces: until ready returns true. Its text says how things stand otherwise.
func eventually(t testing.TB, ready func() (bool, string)) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for end := time.After(patience); ; {
		ok, now := ready()
		if ok {
			return
		}
		select {
		case <-tick.C:
		case <-end:
			t.Fatalf("waited %s: %s", patience, now)
		}
	}
}

// until reads a URL until a field has the value.
func (s *site) until(path, field, want string) answer {
	s.t.Helper()
	var a answer
	eventually(s.t, func() (bool, string) {
		a = s.must(200, "GET", path, "")
		if a.at(field) == want {
			return true, ""
		}
		now := fmt.Sprintf("waited for %s to be %s: %s", field, want, a)
		if st, _ := a.at("status").(string); st == "Failed" || st == "Canceled" {
			s.t.Fatal(now)
		}
		return false, now
	})
	return a
}

func TestPointsAreMadeVerifiedAndExportedOnRequest(t *testing.T) {
	t.Parallel()
	s, _, item := protected(t)
	count := func() (n int) {
		a := s.must(200, "GET", item+"/recoveryPoints", "")
		for a.at(fmt.Sprintf("value.%d.name", n)) != nil {
			n++
		}
		return n
	}
	before := count()
	if r := s.finish(s.must(202, "POST", item+"/captureNow", ""), "Succeeded"); r.status != 200 || r.at("name") != "web01" {
		t.Fatalf("captureNow: %s", r)
	}
	if after := count(); after <= before {
		t.Errorf("captureNow left %d points of %d", after, before)
	}
	points := s.must(200, "GET", item+"/recoveryPoints", "")
	newest := item + "/recoveryPoints/" + points.at("value.0.name").(string)
	if got := s.must(200, "GET", newest, ""); !strings.EqualFold(got.at("id").(string), newest) || got.at("properties.generation") != 1.0 || got.at("properties.changedBytes") != 4096.0 {
		t.Errorf("got point %s", got)
	}
	if r := s.finish(s.must(202, "POST", newest+"/verify", ""), "Succeeded"); r.status != 200 || r.at("name") != points.at("value.0.name") {
		t.Errorf("verify: %s", r)
	}
	if r := s.finish(s.must(202, "POST", newest+"/export", `{"properties":{"format":"qcow2","directory":"/tmp/x"}}`), "Succeeded"); r.status != 200 {
		t.Errorf("export: %s", r)
	}
}

// What goes wrong in a job comes out of both polling URLs as an ARM error with its cause and its remedy, and with a status that
// clients do not repeat the request after.
func TestAFailedOperationIsAnErrorThatSaysWhy(t *testing.T) {
	t.Parallel()
	s, _, item := protected(t)
	points := s.must(200, "GET", item+"/recoveryPoints", "")
	newest := item + "/recoveryPoints/" + points.at("value.0.name").(string)
	for _, test := range []struct{ name, method, path, body, says string }{
		{"the target disk is full", "POST", newest + "/export", `{"properties":{"format":"raw","directory":"` + fullDirectory + `"}}`, "no space left"},
	} {
		t.Run(test.name, func(t *testing.T) {
			before := s.itemStates()
			a := s.must(202, test.method, test.path, test.body)
			r := s.finish(a, "Failed")
			if r.status < 400 || r.status > 499 || r.status == 408 || r.status == 429 {
				t.Fatalf("got %s", r)
			}
			for _, field := range []string{"error.code", "error.message", "error.details.0.possibleCauses", "error.details.0.recommendedAction"} {
				if v, _ := r.at(field).(string); v == "" {
					t.Errorf("no %s in %s", field, r)
				}
			}
			if !strings.Contains(string(r.raw), test.says) {
				t.Errorf("%s does not say %q", r, test.says)
			}
			st := s.must(200, "GET", a.header.Get("Azure-AsyncOperation"), "")
			if st.at("error.code") != r.at("error.code") || st.at("error.details.0.recommendedAction") == nil {
				t.Errorf("the status says %s, the result %s", st, r)
			}
			job := s.must(200, "GET", a.header.Get("x-ms-request-id"), "")
			if job.at("properties.state") != "Failed" || job.at("properties.errors.0.serviceErrorDetails.recommendedAction") == nil {
				t.Errorf("the job is %s", job)
			}
			if after := s.itemStates(); after != before {
				t.Errorf("the failure changed something:\n%s\n%s", before, after)
			}
		})
	}
}

func TestADiskThatVanishedIsNamed(t *testing.T) {
	t.Parallel()
	s, st := newStage(t)
	c := s.furnish()
	machine := st.enrol(c)
	in := strings.Replace(enableIn(machine), `"processServerId"`, `"disksToInclude":[{"diskId":"sdz","diskType":"Standard_LRS","logStorageAccountId":"x"}],"processServerId"`, 1)
	a := s.must(202, "PUT", c+"/replicationProtectedItems/web01", in)
	r := s.finish(a, "Failed")
	if r.status < 400 || !strings.Contains(string(r.raw), "sdz") || r.at("error.details.0.recommendedAction") == nil {
		t.Errorf("got %s", r)
	}
}

func TestAJobIsCancelledThroughItsLocation(t *testing.T) {
	t.Parallel()
	s, _, item := protected(t)
	points := s.must(200, "GET", item+"/recoveryPoints", "")
	newest := item + "/recoveryPoints/" + points.at("value.0.name").(string)
	a := s.must(202, "POST", newest+"/export", `{"properties":{"format":"raw","directory":"`+fullDirectory+`"}}`)
	job := a.header.Get("x-ms-request-id")
	c := s.send(RoleOperator, "POST", job+"/cancel", "")
	if c.status == 409 {
		return // it was quicker
	}
	if c.status != 202 || c.header.Get("Azure-AsyncOperation") != "" {
		t.Fatalf("got %s with %v", c, c.header)
	}
	if r := s.finish(c, ""); r.status != 200 || r.at("properties.state") != "Cancelled" && r.at("properties.state") != "Failed" {
		t.Errorf("got %s", r)
	}
}

func TestArtifactsComeWithTheirType(t *testing.T) {
	t.Parallel()
	s, _, item := protected(t)
	points := s.must(200, "GET", item+"/recoveryPoints", "")
	// This job is tried again for a while, so that it is there to keep something.
	a := s.must(202, "POST", item+"/recoveryPoints/"+points.at("value.0.name").(string)+"/export", `{"properties":{"format":"raw","directory":"`+fullDirectory+`"}}`)
	job := a.header.Get("x-ms-request-id")
	id := job[strings.LastIndexByte(job, '/')+1:]
	for name, content := range map[string]string{"serial.log": "<script>", "console.png": "\x89PNG"} {
		if err := s.control.PutArtifact(t.Context(), id, name, []byte(content)); err != nil {
			t.Fatal(err)
		}
	}
	list := s.must(200, "GET", job+"/artifacts", "")
	if list.at("value.1.name") == nil {
		t.Fatalf("got %s", list)
	}
	for name, want := range map[string]string{"serial.log": "text/plain; charset=utf-8", "console.png": "image/png"} {
		got := s.must(200, "GET", job+"/artifacts/"+name, "")
		if got.header.Get("Content-Type") != want || got.header.Get("X-Content-Type-Options") != "nosniff" || len(got.raw) == 0 {
			t.Errorf("%s: got %v, %q", name, got.header, got.raw)
		}
	}
	if got := s.send(RoleReader, "GET", job+"/artifacts/none", ""); got.status != 404 {
		t.Errorf("got %s", got)
	}
}
