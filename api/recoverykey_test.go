package api

import (
	"strings"
	"testing"
)

func TestARecoveryKeyIsReissuedByContributors(t *testing.T) {
	t.Parallel()
	s, _, _ := protected(t)
	if r := s.send(RoleOperator, "POST", vaultURL+"/reissueRecoveryKey", ""); r.status != 403 || r.header.Get(recoveryKeyHeader) != "" {
		t.Errorf("an operator got %s", r)
	}
	for range 2 { // the answer may be lost; asking again makes another one
		a := s.must(202, "POST", vaultURL+"/reissueRecoveryKey", "")
		if got := a.header.Get(recoveryKeyHeader); got != "ANOTHER-KEY" {
			t.Errorf("got key %q in the answer", got)
		}
		r := s.finish(a, "Succeeded")
		if r.status != 200 || r.at("name") != "v1" || r.header.Get(recoveryKeyHeader) != "" {
			t.Errorf("got result %s with key %q, want the vault, and the key never again", r, r.header.Get(recoveryKeyHeader))
		}
	}
	events := s.must(200, "GET", vaultURL+"/replicationEvents?$filter=eventType%20eq%20%27ServerHealth%27", "")
	for _, want := range []string{"was given to contributor", "opens its bucket no more"} {
		if !strings.Contains(string(events.raw), want) {
			t.Errorf("no event says %q: %s", want, events)
		}
	}
	s.must(404, "POST", groupPath+"/none/reissueRecoveryKey", "")
}
