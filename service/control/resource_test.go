package control_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/lifeboat-dr/lifeboat/service/control"
	"github.com/lifeboat-dr/lifeboat/service/dr"
)

func TestAClassicPolicyBringsThePolicyOfItsWayHome(t *testing.T) {
	f := newFixture(t)
	f.policy("gold", "InMageAzureV2")
	back := control.Ref{Vault: f.vault, Name: "GOLD-failback"}
	p, err := f.Policy(t.Context(), back)
	if err != nil || p.Provider != dr.ProviderInMage || p.Name != "gold-failback" || p.Settings().Numbers["recoveryPointHistory"] != 1440 {
		t.Fatalf("got %+v, %v, want the failback policy", p, err)
	}
	_, err = f.PatchPolicy(t.Context(), back, control.PolicyInput{ProviderSpecificInput: json.RawMessage(`{"instanceType":"InMage","recoveryPointHistory":60}`)})
	f.refused("changing it", dr.CodeConflict, err)
	f.must(f.DeletePolicy(t.Context(), control.Ref{Vault: f.vault, Name: "gold"}))
	_, err = f.Policy(t.Context(), back)
	f.refused("the failback policy of a policy that is gone", dr.CodeNotFound, err)

	f.policy("silver-failback", "InMage")
	f.policy("silver", "InMageAzureV2")
	f.must(f.DeletePolicy(t.Context(), control.Ref{Vault: f.vault, Name: "silver"}))
	if _, err := f.Policy(t.Context(), control.Ref{Vault: f.vault, Name: "silver-failback"}); err != nil {
		t.Errorf("a policy that a client made went with another: %v", err)
	}
}

func TestMachinesMoveToAnotherProcessServer(t *testing.T) {
	f := newFixture(t)
	for _, id := range []string{"ps-a", "ps-b"} {
		if err := f.EnsureReplicator(t.Context(), dr.Replicator{ID: id, Hostname: "host-" + id, Site: dr.SiteRecovery, Roles: []string{dr.RoleProcessServer}}); err != nil {
			t.Fatal(err)
		}
	}
	ref := f.fabric("site")
	agent := f.enrol("site", "web01", "11111111-0000-0000-0000-000000000001")
	f.policy("p", "InMageRcm")
	mapping := ref
	mapping.Name = "m"
	f.must(f.PutMapping(t.Context(), mapping, control.MappingInput{PolicyID: "p"}))
	ref.Name = "web01"
	enable := func(server string) error {
		_, err := f.Enable(t.Context(), ref, control.EnableInput{PolicyID: "p", ProviderInput: json.RawMessage(`{"instanceType":"InMageRcm","fabricDiscoveryMachineId":"` + agent + `","processServerId":"` + server + `"}`)})
		return err
	}
	f.refused("a process server that is not there", dr.CodeInvalid, enable("nobody"))
	if err := enable("/x/ps-b"); err != nil {
		t.Fatal(err)
	}
	serves := func(want string) {
		t.Helper()
		v, err := f.Item(t.Context(), ref)
		if err != nil || v.ProcessServer == nil || v.ProcessServer.ID != want {
			t.Errorf("got %+v, %v, want %s", v.ProcessServer, err, want)
		}
	}
	serves("ps-b")
	f.must(f.UpdateAppliance(t.Context(), ref, control.ApplianceInput{TargetID: "HOST-ps-a"}))
	serves("ps-a")
	site := control.Ref{Vault: f.vault, Fabric: "site"}
	f.must(f.ReassociateGateway(t.Context(), site, control.ReassociateInput{Source: "ps-b", Target: "ps-b", UpdateType: "serverlevel"}))
	serves("ps-a") // nothing of ps-b's was there to move
	f.must(f.ReassociateGateway(t.Context(), site, control.ReassociateInput{Source: "ps-a", Target: "ps-b", UpdateType: "serverlevel"}))
	serves("ps-b")
	f.must(f.ReassociateGateway(t.Context(), site, control.ReassociateInput{Target: "ps-a", Items: []string{"web01"}}))
	serves("ps-a")
	_, err := f.UpdateAppliance(t.Context(), ref, control.ApplianceInput{TargetID: "ps-b", ProviderInput: json.RawMessage(`{"instanceType":"A2A"}`)})
	f.refused("input of another provider", dr.CodeInvalid, err)
}

func TestProvidersWithoutDriverRefuseBeforeTheyLookForTheMachine(t *testing.T) {
	f := newFixture(t)
	region := func(name string) control.Ref {
		ref := control.Ref{Vault: f.vault, Fabric: name, Container: name + "1"}
		f.must(f.PutFabric(t.Context(), control.Ref{Vault: f.vault, Fabric: name}, control.FabricInput{Kind: dr.FabricAzure}))
		f.must(f.PutContainer(t.Context(), ref, []string{"A2A"}))
		return ref
	}
	east := region("east")
	region("west")
	f.policy("p", "A2A")
	mapping := east
	mapping.Name = "m"
	_, err := f.PutMapping(t.Context(), mapping, control.MappingInput{PolicyID: "p", TargetContainerID: "Microsoft Azure"})
	f.refused("a mapping between regions that names none", dr.CodeInvalid, err)
	f.must(f.PutMapping(t.Context(), mapping, control.MappingInput{PolicyID: "p", TargetContainerID: "/v/replicationFabrics/WEST/replicationProtectionContainers/west1"}))
	east.Name = "web01"
	_, err = f.Enable(t.Context(), east, control.EnableInput{PolicyID: "p", ProviderInput: json.RawMessage(`{"instanceType":"A2A","fabricObjectId":"/nowhere"}`)})
	f.refused("protection between regions", dr.CodeUnimplemented, err)
	_, err = f.PutContainer(t.Context(), control.Ref{Vault: f.vault, Fabric: "east", Container: "c"}, []string{"VMwareCbt"})
	f.refused("a container for migration", dr.CodeUnimplemented, err)
}

func TestJobsAreExported(t *testing.T) {
	f := newFixture(t)
	f.policy("=cmd", "InMageRcm")
	read := func(format, file string) string {
		t.Helper()
		id := f.must(f.ExportJobs(t.Context(), f.vault, control.ExportInput{Format: format}))
		content, err := f.Artifact(t.Context(), f.vault, id, file)
		if err != nil {
			t.Fatal(err)
		}
		return string(content)
	}
	if got := read("", "jobs.json"); !strings.Contains(got, `"AddProtectionProfile"`) {
		t.Errorf("got %s", got)
	}
	if got := read("xml", "jobs.xml"); !strings.Contains(got, "<scenarioName>AddProtectionProfile</scenarioName>") {
		t.Errorf("got %s", got)
	}
	if got := read("Excel", "jobs.csv"); !strings.Contains(got, ",'=cmd,") {
		t.Errorf("a name that a spreadsheet would run is not quoted: %s", got)
	}
	_, err := f.ExportJobs(t.Context(), f.vault, control.ExportInput{Format: "Tape"})
	f.refused("a format there is none of", dr.CodeInvalid, err)
}
