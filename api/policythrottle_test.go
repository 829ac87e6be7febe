package api

import (
	"testing"

	"github.com/lifeboat-dr/lifeboat/service/fleet"
)

func TestAPolicysThrottleReachesItsAgentsAndSurvivesClientsThatDoNotKnowIt(t *testing.T) {
	t.Parallel()
	s, st, item := protected(t)
	policy := s.must(200, "GET", item, "").at("properties.policyId").(string)
	throttle := `{"zone":"Europe/Berlin","windows":[{"days":["Monday","Friday"],"from":"08:00","to":"18:00","bytesPerSecond":2500000},{"from":"00:00","to":"24:00","bytesPerSecond":50000000}]}`
	s.finish(s.must(202, "PATCH", policy, `{"properties":{"replicationProviderSettings":{"instanceType":"InMageRcm","throttle":`+throttle+`}}}`), "Succeeded")
	// The Azure SDK sends what it knows, and knows no throttle.
	s.finish(s.must(202, "PATCH", policy, `{"properties":{"replicationProviderSettings":{"instanceType":"InMageRcm","crashConsistentFrequencyInMinutes":3}}}`), "Succeeded")
	p := s.must(200, "GET", policy, "")
	for path, want := range map[string]any{"throttle.zone": "Europe/Berlin", "throttle.windows.0.days.1": "Friday", "throttle.windows.0.bytesPerSecond": 2.5e6,
		"throttle.windows.1.to": "24:00", "crashConsistentFrequencyInMinutes": 3.0} {
		if got := p.at("properties.providerSpecificDetails." + path); got != want {
			t.Errorf("%s is %v, want %v", path, got, want)
		}
	}
	items, err := s.control.AgentItems(t.Context(), st.agent)
	if err != nil || len(items) != 1 {
		t.Fatal(items, err)
	}
	d := agentDesiredToWire(fleet.AgentDesired{Protections: []fleet.Protection{{Throttle: items[0].Policy.Throttle}}}).Protections[0]
	if w := d.Throttle.Windows; d.Throttle.Zone != "Europe/Berlin" || len(w) != 2 || w[0].From != "08:00" || w[0].To != "18:00" || w[0].BytesPerSecond != 2_500_000 || len(w[0].Days) != 2 {
		t.Errorf("the agent is told %+v", d.Throttle)
	}
	a := s.must(400, "PATCH", policy, `{"properties":{"replicationProviderSettings":{"instanceType":"InMageRcm","throttle":{"windows":[{"from":"8","to":"18:00","bytesPerSecond":1}]}}}}`)
	if a.at("error.code") == nil {
		t.Errorf("got %s", a)
	}
	s.finish(s.must(202, "PATCH", policy, `{"properties":{"replicationProviderSettings":{"instanceType":"InMageRcm","throttle":{}}}}`), "Succeeded")
	if got := s.must(200, "GET", policy, "").at("properties.providerSpecificDetails.throttle"); got != nil {
		t.Errorf("got throttle %v after it was ended", got)
	}
}
