package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/agent/guest"
	"github.com/lifeboat-dr/lifeboat/agent/identity"
	"github.com/lifeboat-dr/lifeboat/agent/source"
)

// groupPoint is a recovery point as clients see it.
type groupPoint struct {
	Properties struct {
		RecoveryPointTime       time.Time
		ProviderSpecificDetails struct{ IsMultiVMSyncPoint string }
	}
}

// Three machines that are protected with one multiVmGroupName, each by an agent of its own, get points of their group: the agents
// learn each other from lifeboatd and meet on their group ports. A member that stops is named in the others' health.
func TestMachinesOfAGroupArePointedAtTogether(t *testing.T) {
	d := start(t, t.TempDir())
	token := d.token()
	const version = "?api-version=2025-01-01"
	must := func(method, path, body string) string {
		t.Helper()
		status, answer := d.call(method, path+version, body, token)
		if status >= http.StatusBadRequest {
			t.Fatalf("%s %s: %d %s", method, path, status, answer)
		}
		return answer
	}
	get := func(path string, v any) {
		t.Helper()
		if err := json.Unmarshal([]byte(must("GET", path, "")), v); err != nil {
			t.Fatal(err)
		}
	}
	vault := vaults + "/shop"
	must("PUT", vault, `{"location":"here","sku":{"name":"Standard"},"properties":{}}`)
	fabric := vault + "/replicationFabrics/home"
	must("PUT", fabric, `{"properties":{"customDetails":{"instanceType":"InMageRcm"}}}`)
	var containers struct{ Value []struct{ ID string } }
	get(fabric+"/replicationProtectionContainers", &containers)
	container := containers.Value[0].ID
	must("PUT", vault+"/replicationPolicies/p", `{"properties":{"providerSpecificInput":{"instanceType":"InMageRcm","crashConsistentFrequencyInMinutes":1,"recoveryPointHistoryInMinutes":1440,"enableMultiVmSync":"true"}}}`)
	must("PUT", container+"/replicationProtectionContainerMappings/m", fmt.Sprintf(`{"properties":{"policyId":"%s/replicationPolicies/p","targetProtectionContainerId":"Microsoft Azure"}}`, vault))

	names := []string{"db01", "app01", "web01"}
	stops, dirs := map[string]func(){}, map[string]string{}
	for i, name := range names {
		var key struct{ RegistrationKey string }
		if err := json.Unmarshal([]byte(must("POST", fabric+"/generateRegistrationKey", `{"properties":{"role":"agent"}}`)), &key); err != nil {
			t.Fatal(err)
		}
		dirs[name] = t.TempDir()
		image := filepath.Join(dirs[name], "disk.raw")
		if err := os.WriteFile(image, []byte(name), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(image, 8<<20); err != nil {
			t.Fatal(err)
		}
		stops[name] = runAgent(t, d, dirs[name], name, i, key.RegistrationKey)
	}
	for _, name := range names {
		var id string
		until(t, name+" enrolled", func() bool {
			var machines struct {
				Value []struct {
					ID         string
					Properties struct{ FriendlyName string }
				}
			}
			get(container+"/replicationProtectableItems", &machines)
			for _, m := range machines.Value {
				if m.Properties.FriendlyName == name {
					id = m.ID
				}
			}
			return id != ""
		})
		must("PUT", container+"/replicationProtectedItems/"+name, fmt.Sprintf(`{"properties":{"policyId":"%s/replicationPolicies/p","protectableItemId":%q,"providerSpecificDetails":{"instanceType":"InMageRcm",
			"fabricDiscoveryMachineId":%q,"processServerId":"any","targetResourceGroupId":"/subscriptions/s/resourceGroups/rg","targetVmName":"%s-dr","multiVmGroupName":"Shop"}}}`, vault, id, id, name))
	}
	times := func(name string) (out []time.Time) {
		var points struct{ Value []groupPoint }
		get(container+"/replicationProtectedItems/"+name+"/recoveryPoints", &points)
		for _, p := range points.Value {
			if p.Properties.ProviderSpecificDetails.IsMultiVMSyncPoint == "true" {
				out = append(out, p.Properties.RecoveryPointTime)
			}
		}
		return out
	}
	for _, name := range names { // within the minute that until waits: the first round of a group does not wait for its interval
		until(t, "point of the group of "+name, func() bool { return len(times(name)) > 0 })
	}
	newest := []time.Time{times("db01")[0], times("app01")[0], times("web01")[0]}
	slices.SortFunc(newest, time.Time.Compare)
	if apart := newest[2].Sub(newest[0]); apart > 10*time.Second { // of the same round, in which nobody stands for longer
		t.Errorf("the newest points of the group are %s apart", apart)
	}

	stops["web01"]()
	stops["db01"]()
	runAgent(t, d, dirs["db01"], "db01", 0, "") // its first round is sooner than the next one of those that go on
	until(t, "health of db01 that names web01", func() bool {
		var item struct {
			Properties struct {
				ReplicationHealthErrors, HealthErrors []struct{ ErrorCode, ErrorMessage string }
			}
		}
		get(container+"/replicationProtectedItems/db01", &item)
		return slices.ContainsFunc(item.Properties.HealthErrors, func(e struct{ ErrorCode, ErrorMessage string }) bool {
			return e.ErrorCode == "GroupPointMissed" && strings.Contains(e.ErrorMessage, "web01")
		})
	})
}

// runAgent protects an image in dir that nobody writes to, in this process.
func runAgent(t *testing.T, d *daemon, dir, name string, n int, key string) (stop func()) {
	t.Helper()
	cfg := guest.Config{StateDir: filepath.Join(dir, "state"), RegistrationKey: key, Version: "test", Log: slog.New(slog.NewTextHandler(t.Output(), nil)), Deadman: []string{"/bin/false"},
		Server: identity.Server{Address: d.address, CAFile: filepath.Join(d.dir, "ca.pem")}, Group: guest.Group{Listen: freeAddress(t)},
		Source: source.Config{Hostname: name, ProductUUID: fmt.Sprintf("0a1b2c3d-0000-4000-8000-%012d", n+1), Platform: "vm", CPUs: 1, MemoryBytes: 1 << 28, Firmware: "bios",
			Disks: []source.Named{{ID: "disk0", Path: filepath.Join(dir, "disk.raw"), OS: true, Stopped: true}}}}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- guest.Run(ctx, cfg) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			t.Errorf("agent %s: %v", name, err)
		}
	}
	t.Cleanup(stop)
	return stop
}
