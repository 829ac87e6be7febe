package main

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/api"
	"github.com/lifeboat-dr/lifeboat/service/control"
	"github.com/lifeboat-dr/lifeboat/service/dr"
)

func TestMetricsOfMachines(t *testing.T) {
	t.Parallel()
	limit := int64(2_500_000)
	reads := 0
	var fail error
	m := &machineMetrics{log: slog.New(slog.DiscardHandler), read: func(_ context.Context, limitOfMachines int) ([]control.MachineState, int, error) {
		reads++
		if limitOfMachines != 10_000 {
			t.Errorf("got a limit of %d machines", limitOfMachines)
		}
		return []control.MachineState{
			{Vault: "v", Name: "db \"1\"", ID: "i1", Health: dr.HealthWarning, HasPoint: true, Lag: 90 * time.Second, Policy: dr.Policy{RPOThreshold: 15 * time.Minute},
				Observed: dr.Observed{Churn: 5_000_000, Changed: 7, Shipped: 6, Dirty: 5, FreezeTook: 31 * time.Millisecond, ThrottledPercent: 60, BlockedPercent: 5, Throttle: &limit}},
			{Vault: "v", Name: "seeding", ID: "i2", Health: dr.HealthNormal},
		}, 3, fail
	}}
	h := m.handler(api.NewTokens(api.Token{Name: "scraper", Role: api.RoleReader, Hash: api.HashToken("secret")}, api.Token{Name: "nobody", Role: "None", Hash: api.HashToken("none")}))
	get := func(authorization string) (int, string) {
		r := httptest.NewRequestWithContext(t.Context(), "GET", "/metrics/machines", nil)
		r.Header.Set("Authorization", authorization)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w.Code, w.Body.String()
	}
	for _, a := range []string{"", "Bearer other", "Basic secret", "Bearer none"} {
		if status, _ := get(a); status != http.StatusUnauthorized {
			t.Errorf("with %q: got %d, want 401", a, status)
		}
	}
	fail = errors.New("the store is down")
	if status, _ := get("Bearer secret"); status != http.StatusInternalServerError {
		t.Errorf("without a store: got %d, want 500", status)
	}
	fail = nil
	status, text := get("Bearer secret")
	if status != http.StatusOK {
		t.Fatalf("got %d %s", status, text)
	}
	const one, two = `{id="i1",machine="db \"1\"",vault="v"} `, `{id="i2",machine="seeding",vault="v"} `
	for _, want := range []string{"rpo_lag_seconds" + one + "90", "rpo_threshold_seconds" + one + "900", "health" + one + "1", "churn_bytes_per_second" + one + "5e+06", "dirty_bytes" + one + "5",
		"changed_bytes_total" + one + "7", "shipped_bytes_total" + one + "6", "freeze_seconds" + one + "0.031", "throttled_ratio" + one + "0.6", "blocked_ratio" + one + "0.05",
		"throttle_bytes_per_second" + one + "2.5e+06", "health" + two + "0"} {
		if !strings.Contains(text, "\nlifeboat_machine_"+want+"\n") {
			t.Errorf("no %q in:\n%s", want, text)
		}
	}
	if strings.Contains(text, "rpo_lag_seconds"+two) || strings.Contains(text, "throttle_bytes_per_second"+two) || !strings.Contains(text, "lifeboat_machines_unshown 3\n") {
		t.Errorf("got numbers of what there is not, or not how many are left out:\n%s", text)
	}
	if _, again := get("Bearer secret"); again != text || reads != 2 {
		t.Errorf("read %d times, want what was read to be told again", reads)
	}
}
