package control_test

import (
	"encoding/json"
	"slices"
	"testing"

	"github.com/lifeboat-dr/lifeboat/service/control"
	"github.com/lifeboat-dr/lifeboat/service/dr"
)

const hostedUUID = "6b1f0d5e-98f5-4c9e-8f7b-0c27a9d1e0aa"

func hypervisor(name string) dr.Machine {
	return dr.Machine{Hostname: name, ProductUUID: "00000000-0000-0000-0000-" + (name + "000000000000")[:12], Hypervisor: true}
}

func hosted(name, uuid string, running bool) dr.HostedMachine {
	m := machine(name, uuid)
	m.OSType = ""
	return dr.HostedMachine{Machine: m, Running: running}
}

// host enrols the agent of a hypervisor.
func (f fixture) host(fabric, name string) (string, error) {
	f.t.Helper()
	key, err := f.CreateRegistrationKey(f.t.Context(), control.RegistrationKeyInput{Vault: f.vault, Fabric: fabric, Role: control.RoleAgent})
	if err != nil {
		f.t.Fatal(err)
	}
	who, err := f.EnrolAgent(f.t.Context(), key.Key, "fp-"+name, hypervisor(name))
	return who.ID, err
}

func (f fixture) hostFabric(name string) control.Ref {
	f.t.Helper()
	ref := control.Ref{Vault: f.vault, Fabric: name}
	f.must(f.PutFabric(f.t.Context(), ref, control.FabricInput{Kind: dr.FabricHyperVSite}))
	page, err := f.Containers(f.t.Context(), ref, control.Paging{})
	if err != nil || len(page.Items) != 1 {
		f.t.Fatalf("got %+v, %v, want one container", page, err)
	}
	ref.Container = page.Items[0].Container.Name
	return ref
}

func (f fixture) protectables(ref control.Ref) (out []control.ProtectableView) {
	f.t.Helper()
	page, err := f.Protectables(f.t.Context(), ref, "", control.Paging{})
	if err != nil {
		f.t.Fatal(err)
	}
	return page.Items
}

func TestMachinesOfAHypervisorAreProtectable(t *testing.T) {
	f := newFixture(t)
	ctx := t.Context()
	ref := f.hostFabric("hosts")
	_, err := f.host(f.fabric("guests").Fabric, "kvm0")
	f.refused("a hypervisor in a fabric of guests", dr.CodeConflict, err)
	one, err := f.host("hosts", "kvm1")
	if err != nil {
		t.Fatal(err)
	}
	if got := f.protectables(ref); len(got) != 0 {
		t.Errorf("the hypervisor itself is protectable: %+v", got)
	}
	seen := func(agent, name string, machines ...dr.HostedMachine) {
		t.Helper()
		if err := f.AgentSeen(ctx, agent, "1", hypervisor(name), nil, machines...); err != nil {
			t.Fatal(err)
		}
	}
	seen(one, "kvm1", hosted("web01", hostedUUID, true), hosted("web02", "6b1f0d5e-98f5-4c9e-8f7b-0c27a9d1e0bb", false))
	found := f.protectables(ref)
	if len(found) != 2 {
		t.Fatalf("got %+v, want two machines", found)
	}
	i := slices.IndexFunc(found, func(v control.ProtectableView) bool { return v.Item.FriendlyName == "web01" })
	if web := found[i]; web.Agent == nil || len(web.Agent.Machine.Disks) != 1 || len(web.Problems) != 0 {
		t.Errorf("got %+v, want the disks that the hypervisor told of", web)
	}
	providers, err := f.Providers(ctx, control.Ref{Vault: f.vault, Fabric: "hosts"}, control.Paging{})
	if err != nil || len(providers.Items) != 1 || !providers.Items[0].Connected || providers.Items[0].Provider.Hostname != "kvm1" {
		t.Errorf("got providers %+v, %v", providers, err)
	}
	f.policy("p", "HyperVReplicaAzure")
	f.must(f.PutMapping(ctx, control.Ref{Vault: f.vault, Fabric: "hosts", Container: ref.Container, Name: "m"}, control.MappingInput{PolicyID: "p", TargetContainerID: "Microsoft Azure"}))
	ref.Name = "web01"
	f.must(f.Enable(ctx, ref, control.EnableInput{PolicyID: "p", ProtectableItemID: found[i].Item.Name, ProviderInput: json.RawMessage(`{"instanceType":"HyperVReplicaAzure"}`)}))
	item := func() control.ItemView {
		t.Helper()
		v, err := f.Item(ctx, ref)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	if it := item().Item; it.Driven || it.HomeUUID != hostedUUID || it.ActiveUUID != hostedUUID || it.AgentID != one {
		t.Errorf("got %+v, want an item of the hypervisor's agent", it)
	}
	seen(one, "kvm1", hosted("web01", hostedUUID, true)) // web02 is off; it may come back
	if got := f.protectables(ref); len(got) != 2 {
		t.Errorf("got %d machines, want that a machine that is off is not forgotten at once", len(got))
	}
	two, err := f.host("hosts", "kvm2")
	if err != nil {
		t.Fatal(err)
	}
	seen(one, "kvm1")
	seen(two, "kvm2", hosted("web01", hostedUUID, true)) // it moved
	if got := item().Item.AgentID; got != two {
		t.Errorf("the item is of agent %s, want %s, where its machine runs now", got, two)
	}
	for agent, want := range map[string]int{one: 0, two: 1} {
		if items, err := f.AgentItems(ctx, agent); err != nil || len(items) != want {
			t.Errorf("agent %s has items %+v, %v, want %d", agent, items, err, want)
		}
	}
}

// A server whose agents know nothing of the machine has no other way to it.
func TestAMachineWithoutAHypervisorsAgentIsRefused(t *testing.T) {
	f := newFixture(t)
	ctx := t.Context()
	ref := f.hostFabric("hosts")
	f.policy("p", "HyperVReplicaAzure")
	f.must(f.PutMapping(ctx, control.Ref{Vault: f.vault, Fabric: "hosts", Container: ref.Container, Name: "m"}, control.MappingInput{PolicyID: "p", TargetContainerID: "Microsoft Azure"}))
	ref.Name = "web01"
	_, err := f.Enable(ctx, ref, control.EnableInput{PolicyID: "p", ProtectableItemID: "nowhere", ProviderInput: json.RawMessage(`{"instanceType":"HyperVReplicaAzure"}`)})
	f.refused("a machine that nobody told of", dr.CodeInvalid, err)
}
