package main

import (
	"fmt"
	"net/http"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/lifeboat-dr/lifeboat/service/control"
	"github.com/lifeboat-dr/lifeboat/service/dr"
	"github.com/lifeboat-dr/lifeboat/service/job"
	"github.com/lifeboat-dr/lifeboat/service/store"
	"github.com/lifeboat-dr/lifeboat/service/store/sqlstore"
)

const crowdVersion = "?api-version=2025-01-01"

// crowded is a lifeboatd of its own whose only vault protects size machines.
type crowded struct {
	*daemon
	size      int
	vault     string // path
	container string // path
	secret    string // the administrator's token
}

// crowd is crowdOn SQLite.
func crowd(b *testing.B, size int) *crowded {
	b.Helper()
	return crowdOn(b, size, func(dir string) (*sqlstore.Store, error) {
		return sqlstore.OpenSQLite(b.Context(), filepath.Join(dir, "lifeboat.db"))
	})
}

// crowdOn starts a lifeboatd, makes a vault, a fabric and a policy over its API, and fills its database with machines while it is
// stopped: what enabling each over the API and shipping its first point leaves there, without the hours that this takes.
func crowdOn(b *testing.B, size int, open func(dir string) (*sqlstore.Store, error), args ...string) *crowded {
	b.Helper()
	dir := b.TempDir()
	args = append(args, "--no-replicator", "--reads-per-second", "0", "--writes-per-second", "0")
	d := start(b, dir, args...)
	c := &crowded{size: size, vault: vaults + "/crowd"}
	for _, x := range [][2]string{
		{"", `{"location":"here","sku":{"name":"RS0"},"properties":{}}`},
		{"/replicationFabrics/site", `{"properties":{"customDetails":{"instanceType":"InMageRcm"}}}`},
		{"/replicationPolicies/daily", `{"properties":{"providerSpecificInput":{"instanceType":"InMageRcm","crashConsistentFrequencyInMinutes":5,"recoveryPointHistoryInMinutes":1440}}}`},
	} {
		if status, answer := d.call("PUT", c.vault+x[0]+crowdVersion, x[1], d.token()); status >= http.StatusBadRequest {
			b.Fatalf("PUT vault%s: got %d %s", x[0], status, answer)
		}
	}
	d.stop()
	db, err := open(dir)
	if err != nil {
		b.Fatal(err)
	}
	name := fill(b, db, size)
	c.container = c.vault + "/replicationFabrics/site/replicationProtectionContainers/" + name
	c.daemon = start(b, dir, args...)
	c.secret = c.token()
	return c
}

// fill puts machines into the one container of the one vault in a database, closes it and returns the container's name.
func fill(b *testing.B, db *sqlstore.Store, size int) (container string) {
	b.Helper()
	defer func() {
		if err := db.Close(); err != nil {
			b.Error(err)
		}
	}()
	var in dr.Container
	if err := db.View(b.Context(), func(tx store.Tx) error {
		return tx.List(control.KindContainer, "", "", 1, func(_ string, _ int64, decode func(any) error) error { return decode(&in) })
	}); err != nil {
		b.Fatal(err)
	}
	now := time.Now().UTC()
	const batch = 1000
	for from := 0; from < size; from += batch {
		if err := db.Update(b.Context(), func(tx store.Tx) error {
			for n := from; n < min(size, from+batch); n++ {
				if err := settle(tx, in, n, size, now); err != nil {
					return err
				}
			}
			return nil
		}); err != nil {
			b.Fatal(err)
		}
	}
	return in.Name
}

// settle saves the n-th machine and everything about it. It is heard from for another hour, so that nothing is late.
func settle(tx store.Tx, in dr.Container, n, size int, now time.Time) error {
	name, heard := fmt.Sprintf("vm%06d", n), now.Add(time.Hour)
	id, agent := dr.ItemID(dr.NamedGUID("item", name)), dr.NamedGUID("agent", name)
	m := dr.Machine{Hostname: name, ProductUUID: dr.NamedGUID("machine", name), Platform: "vm", OSType: "Linux", OSName: "Debian GNU/Linux 13", KernelVersion: "6.12.0", CPUs: 2, MemoryBytes: 4 << 30,
		Firmware: "uefi", IPAddresses: []string{fmt.Sprintf("10.%d.%d.%d", n>>16, n>>8&255, n&255)},
		NICs:  []dr.NIC{{Name: "eth0", MAC: fmt.Sprintf("52:54:00:%02x:%02x:%02x", n>>16, n>>8&255, n&255), IPAddresses: []string{"10.0.0.1"}}},
		Disks: []dr.MachineDisk{{ID: "disk0", Path: "/dev/vda", SizeBytes: 64 << 30, SectorSize: 512, IsOSDisk: true, Mounts: []string{"/"}}}}
	it := dr.Item{Meta: dr.Meta{Name: name}, ID: id, Vault: in.Vault, Fabric: in.Fabric, Container: in.Name, FriendlyName: name, ProtectableItem: agent, AgentID: agent, PolicyName: "daily",
		State: dr.State{Leg: dr.LegInMageRcm, Phase: dr.PhaseProtected, Since: now}, Disks: []dr.Disk{{ID: "disk0", SizeBytes: 64 << 30, IsOSDisk: true}}, Hardware: m.Hardware(), TargetName: name,
		EnableInput: fmt.Appendf(nil, `{"instanceType":"InMageRcm","fabricDiscoveryMachineId":%q,"targetVmName":%q}`, agent, name),
		Generation:  1, Acknowledged: 1, ActiveUUID: m.ProductUUID, HomeUUID: m.ProductUUID, InternalID: dr.NamedGUID("leg", name), CorrelationID: dr.NamedGUID("events", name)}
	if err := control.SaveItem(tx, &it, now); err != nil {
		return err
	}
	p := dr.Point{Item: id, ID: dr.PointID(id, dr.PointRef{Generation: 1, Sequence: 1}), Provider: dr.ProviderInMageRcm, Generation: 1, Sequence: 1, Time: heard, Consistency: dr.CrashConsistent}
	for _, x := range []struct {
		kind store.Kind
		key  string
		doc  any
	}{
		{control.KindAgent, agent, dr.Agent{Meta: dr.Meta{Name: agent}, ID: agent, Vault: in.Vault, Fabric: in.Fabric, Hostname: name, AgentVersion: "1.0", ProtectableItem: agent, Container: in.Name,
			Machine: m, Enrolled: now, LastHeartbeat: heard}},
		{control.KindProtectable, in.Vault + "/" + in.Fabric + "/" + in.Name + "/" + agent, dr.ProtectableItem{Meta: dr.Meta{Name: agent}, ID: agent, Vault: in.Vault, Fabric: in.Fabric, Container: in.Name,
			FriendlyName: name, AgentID: agent, OSType: "Linux", ProtectedAs: id, LastSeen: heard}},
		{control.KindObserved, string(id), dr.Observed{Item: id, AgentVersion: "1.0", LastHeartbeat: heard, Phase: "shipping", Generation: 1, ProgressPercent: 100}},
		{control.KindPoint, string(id) + "/" + p.ID, p},
	} {
		if _, err := tx.Put(x.kind, x.key, 0, x.doc); err != nil {
			return err
		}
	}
	j := job.Job{ID: jobID(now.Add(time.Duration(n-size) * time.Second)), Vault: in.Vault, Plan: job.PlanEnable, FriendlyName: "Enable replication", State: job.Succeeded, Item: string(id),
		TargetName: name, TargetID: string(id), TargetType: "ProtectionEntity", Created: now, Started: now.Add(time.Duration(n-size) * time.Second), Ended: now}
	if n%max(1, size/50) == 0 {
		j.State = job.Failed
	}
	return control.SaveJob(tx, &j)
}

// jobID is the id of a job made at a time: a UUIDv7.
func jobID(at time.Time) string {
	id := uuid.New()
	ms := at.UnixMilli()
	for i := range 6 {
		id[i] = byte(ms >> (40 - 8*i))
	}
	id[6] = id[6]&0x0f | 0x70
	return id.String()
}
