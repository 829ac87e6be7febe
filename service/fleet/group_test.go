package fleet_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/service/control"
	"github.com/lifeboat-dr/lifeboat/service/dr"
	"github.com/lifeboat-dr/lifeboat/service/fleet"
)

// shop is a policy whose points are of all machines of a group.
func (w *world) shop(name string, minutes string) {
	w.t.Helper()
	must(w.t)(w.control.PutPolicy(w.ctx, control.Ref{Vault: w.vault.ID, Name: name}, control.PolicyInput{ProviderSpecificInput: json.RawMessage(
		`{"instanceType":"InMageRcm","crashConsistentFrequencyInMinutes":` + minutes + `,"appConsistentFrequencyInMinutes":0,"recoveryPointHistoryInMinutes":1440,"enableMultiVmSync":"true"}`)}))
	mapping := w.container
	mapping.Name = "map-" + name
	must(w.t)(w.control.PutMapping(w.ctx, mapping, control.MappingInput{PolicyID: "/x/replicationPolicies/" + name, TargetContainerID: "Microsoft Azure"}))
}

// groupMachine enrols a machine and makes it a protected member of a group.
func (w *world) groupMachine(name, uuid, policy, group string) (fleet.Caller, dr.ItemID) {
	w.t.Helper()
	m := machine(uuid)
	m.Hostname = name
	e, err := w.fleet.Enrol(w.ctx, fleet.EnrolRequest{RegistrationKey: w.key("agent"), Role: fleet.RoleAgent, CSR: request(w.t), Hostname: name, Machine: m})
	if err != nil {
		w.t.Fatal(err)
	}
	c, err := w.fleet.Authenticate(w.ctx, parse(w.t, e.Certificate))
	if err != nil {
		w.t.Fatal(err)
	}
	list, err := w.control.Protectables(w.ctx, w.container, "", control.Paging{})
	if err != nil {
		w.t.Fatal(err)
	}
	at := slices.IndexFunc(list.Items, func(p control.ProtectableView) bool { return p.Item.FriendlyName == name })
	ref := w.container
	ref.Name = name
	must(w.t)(w.control.Enable(w.ctx, ref, control.EnableInput{PolicyID: "/x/replicationPolicies/" + policy, ProtectableItemID: "/x/" + list.Items[at].Item.Name,
		ProviderInput: json.RawMessage(`{"instanceType":"InMageRcm","fabricDiscoveryMachineId":"` + c.ID + `","multiVmGroupName":"` + group + `"}`)}))
	v, err := w.control.Item(w.ctx, ref)
	if err != nil {
		w.t.Fatal(err)
	}
	w.change(v.Item.ID, func(it *dr.Item) {
		it.Generation, it.Disks = 1, []dr.Disk{{ID: "disk0", SizeBytes: 1 << 28, IsOSDisk: true}}
		it.State.Phase = dr.PhaseProtected
	})
	return c, v.Item.ID
}

func (w *world) report(c fleet.Caller, name, uuid, address string, observed ...dr.Observed) fleet.AgentDesired {
	w.t.Helper()
	m := machine(uuid)
	m.Hostname = name
	if address != "" {
		m.GroupAddresses = []string{address}
	}
	d, err := w.fleet.SyncAgent(w.ctx, c, fleet.AgentReport{Version: "1", Machine: m, Observed: observed}, 0)
	if err != nil {
		w.t.Fatal(err)
	}
	return d
}

func TestMembersOfAGroupLearnEachOther(t *testing.T) {
	w := newWorld(t)
	w.shop("often", "1")
	w.shop("seldom", "10")
	const dbUUID, otherUUID = "22222222-2222-3333-4444-555555555555", "33333333-2222-3333-4444-555555555555"
	web, webItem := w.groupMachine("web", sourceUUID, "seldom", "Shop")
	db, dbItem := w.groupMachine("db", dbUUID, "often", "shop")
	other, _ := w.groupMachine("other", otherUUID, "often", "shopping")
	w.report(db, "db", dbUUID, "10.0.0.2:20004")
	w.report(web, "web", sourceUUID, "10.0.0.1:20004")
	d := w.report(web, "web", sourceUUID, "10.0.0.1:20004")
	if len(d.Protections) != 1 || d.Protections[0].Group == nil {
		t.Fatalf("got %+v, want a group", d.Protections)
	}
	g := d.Protections[0].Group
	want := []fleet.GroupMember{{Machine: webItem, Agent: web.ID, Name: "web", Addresses: []string{"10.0.0.1:20004"}},
		{Machine: dbItem, Agent: db.ID, Name: "db", Addresses: []string{"10.0.0.2:20004"}}}
	slices.SortFunc(want, func(a, b fleet.GroupMember) int { return strings.Compare(string(a.Machine), string(b.Machine)) })
	if g.Interval != time.Minute || g.ID != dr.GroupID(w.vault.ID, "SHOP") || !slices.EqualFunc(g.Members, want, func(a, b fleet.GroupMember) bool {
		return a.Machine == b.Machine && a.Agent == b.Agent && a.Name == b.Name && slices.Equal(a.Addresses, b.Addresses)
	}) {
		t.Errorf("got %+v, want %+v every minute", g, want)
	}
	if g := w.report(db, "db", dbUUID, "10.0.0.2:20004").Protections[0].Group; g == nil || len(g.Members) != 2 {
		t.Errorf("the other member learns %+v", g)
	}
	if g := w.report(other, "other", otherUUID, "10.0.0.3:20004").Protections[0].Group; g == nil || len(g.Members) != 1 {
		t.Errorf("another group learns %+v", g)
	}

	// A member that fails over is desired no more, and the revision that the other one is told differs.
	before := w.report(web, "web", sourceUUID, "10.0.0.1:20004").Revision
	w.change(dbItem, func(it *dr.Item) { it.State.Phase = dr.PhaseUnplannedPending })
	d = w.report(web, "web", sourceUUID, "10.0.0.1:20004")
	if g := d.Protections[0].Group; len(g.Members) != 1 || d.Revision == before {
		t.Errorf("after the failover of db: got %+v, revision %d after %d", g, d.Revision, before)
	}
}

func TestAMemberThatMissedIsNamedInTheHealthOfTheOthers(t *testing.T) {
	w := newWorld(t)
	w.shop("often", "1")
	const dbUUID = "22222222-2222-3333-4444-555555555555"
	web, webItem := w.groupMachine("web", sourceUUID, "often", "shop")
	_, dbItem := w.groupMachine("db", dbUUID, "often", "shop")
	w.report(web, "web", sourceUUID, "", dr.Observed{Item: webItem, Phase: "delta", Generation: 1,
		Group: &dr.GroupObserved{GroupID: dr.GroupID(w.vault.ID, "shop"), Missed: []dr.GroupMissed{{Item: dbItem, Reason: "it was not reached"}, {Item: "nobody", Reason: "x"}}}})
	ref := w.container
	ref.Name = "web"
	v, err := w.control.Item(w.ctx, ref)
	if err != nil {
		t.Fatal(err)
	}
	at := slices.IndexFunc(v.HealthErrors, func(h dr.HealthError) bool { return h.Code == dr.HealthGroupMissed })
	if at < 0 || !strings.Contains(v.HealthErrors[at].Message, "db (it was not reached), nobody (x)") {
		t.Errorf("got %+v", v.HealthErrors)
	}
}
