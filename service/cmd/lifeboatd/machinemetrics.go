package main

import (
	"context"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/lifeboat-dr/lifeboat/api"
	"github.com/lifeboat-dr/lifeboat/service/control"
	"github.com/lifeboat-dr/lifeboat/service/dr"
)

const (
	// maxMachineSeries bounds how many machines have series of their own. Of the others only the number is told.
	maxMachineSeries = 10_000
	// machinesFor is how long what was read is told again: many may scrape.
	machinesFor = 10 * time.Second
	// machinesWithin bounds one reading.
	machinesWithin = 30 * time.Second
)

// machineMetrics are numbers of protected machines. They name them, so they are for bearers of a token only.
type machineMetrics struct {
	read func(ctx context.Context, limit int) ([]control.MachineState, int, error)
	log  *slog.Logger

	mu      sync.Mutex // guards the rest; held while reading, so that one reads for all who ask
	at      time.Time
	states  []control.MachineState
	unshown int
}

// machineSeries is one number of each machine. value tells whether there is one.
type machineSeries struct {
	desc  *prometheus.Desc
	kind  prometheus.ValueType
	value func(m control.MachineState) (float64, bool)
}

var allMachineSeries = []machineSeries{
	series("rpo_lag_seconds", "Age of the newest recovery point: now minus its capture instant.", prometheus.GaugeValue,
		func(m control.MachineState) (float64, bool) { return m.Lag.Seconds(), m.HasPoint }),
	series("rpo_threshold_seconds", "The RPO of the machine's policy.", prometheus.GaugeValue,
		func(m control.MachineState) (float64, bool) {
			return m.Policy.RPOThreshold.Seconds(), m.Policy.RPOThreshold > 0
		}),
	series("health", "0 normal, 1 warning, 2 critical.", prometheus.GaugeValue, func(m control.MachineState) (float64, bool) {
		v, ok := map[string]float64{dr.HealthNormal: 0, dr.HealthWarning: 1, dr.HealthCritical: 2}[m.Health]
		return v, ok
	}),
	series("churn_bytes_per_second", "What changed on the disks between the newest two recovery points, per second.", prometheus.GaugeValue,
		func(m control.MachineState) (float64, bool) { return float64(m.Observed.Churn), m.HasPoint }),
	series("dirty_bytes", "Bytes written to the disks and not read by the agent yet.", prometheus.GaugeValue,
		func(m control.MachineState) (float64, bool) { return float64(m.Observed.Dirty), m.HasPoint }),
	series("changed_bytes_total", "Bytes of the disks found different since the agent started.", prometheus.CounterValue,
		func(m control.MachineState) (float64, bool) { return float64(m.Observed.Changed), true }),
	series("shipped_bytes_total", "Bytes of them sent since the agent started, before compression.", prometheus.CounterValue,
		func(m control.MachineState) (float64, bool) { return float64(m.Observed.Shipped), true }),
	series("freeze_seconds", "Length of the last freeze of the machine's filesystems.", prometheus.GaugeValue,
		func(m control.MachineState) (float64, bool) { return m.Observed.FreezeTook.Seconds(), m.HasPoint }),
	series("throttled_ratio", "Share of the last minutes in which sending waited for a throttle.", prometheus.GaugeValue,
		func(m control.MachineState) (float64, bool) {
			return float64(m.Observed.ThrottledPercent) / 100, true
		}),
	series("blocked_ratio", "Share of the last minutes in which sending waited for the replicator or the network.", prometheus.GaugeValue,
		func(m control.MachineState) (float64, bool) {
			return float64(m.Observed.BlockedPercent) / 100, true
		}),
	series("throttle_bytes_per_second", "The throttle in force. Absent when there is none.", prometheus.GaugeValue,
		func(m control.MachineState) (float64, bool) {
			if m.Observed.Throttle == nil {
				return 0, false
			}
			return float64(*m.Observed.Throttle), true
		}),
}

var machinesUnshown = prometheus.NewDesc("lifeboat_machines_unshown", "Machines that replicate and have no series, because there are too many.", nil, nil)

func series(name, help string, kind prometheus.ValueType, value func(control.MachineState) (float64, bool)) machineSeries {
	return machineSeries{prometheus.NewDesc("lifeboat_machine_"+name, help, []string{"vault", "machine", "id"}, nil), kind, value}
}

// Describe implements prometheus.Collector.
func (m *machineMetrics) Describe(out chan<- *prometheus.Desc) {
	for _, s := range allMachineSeries {
		out <- s.desc
	}
	out <- machinesUnshown
}

// Collect implements prometheus.Collector.
func (m *machineMetrics) Collect(out chan<- prometheus.Metric) {
	states, unshown, err := m.latest()
	if err != nil {
		m.log.Warn("machines were not read for their metrics", "err", err)
		out <- prometheus.NewInvalidMetric(machinesUnshown, err)
		return
	}
	for _, state := range states {
		for _, s := range allMachineSeries {
			if v, ok := s.value(state); ok {
				out <- prometheus.MustNewConstMetric(s.desc, s.kind, v, state.Vault, state.Name, string(state.ID))
			}
		}
	}
	out <- prometheus.MustNewConstMetric(machinesUnshown, prometheus.GaugeValue, float64(unshown))
}

func (m *machineMetrics) latest() ([]control.MachineState, int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if time.Since(m.at) < machinesFor {
		return m.states, m.unshown, nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), machinesWithin)
	defer cancel()
	states, unshown, err := m.read(ctx, maxMachineSeries)
	if err != nil {
		return nil, 0, err
	}
	m.states, m.unshown, m.at = states, unshown, time.Now()
	return states, unshown, nil
}

// handler answers who has a token, whatever its role.
func (m *machineMetrics) handler(tokens *api.Tokens) http.Handler {
	registry := prometheus.NewRegistry()
	registry.MustRegister(m)
	exposed := promhttp.HandlerFor(registry, promhttp.HandlerOpts{})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		scheme, secret, _ := strings.Cut(r.Header.Get("Authorization"), " ")
		if token, ok := tokens.Find(strings.TrimSpace(secret)); !strings.EqualFold(scheme, "Bearer") || !ok || !token.Role.Covers(api.RoleReader) {
			w.Header().Set("WWW-Authenticate", "Bearer")
			http.Error(w, "numbers of machines are for bearers of a token: send Authorization: Bearer with one of the server's tokens", http.StatusUnauthorized)
			return
		}
		exposed.ServeHTTP(w, r)
	})
}
