package control_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/service/control"
	"github.com/lifeboat-dr/lifeboat/service/dr"
	"github.com/lifeboat-dr/lifeboat/service/job"
	"github.com/lifeboat-dr/lifeboat/service/store"
	"github.com/lifeboat-dr/lifeboat/service/store/sqlstore"
)

type fixture struct {
	*control.Service
	t     testing.TB
	store store.Store
	vault string
}

var vaultKey = dr.VaultKey{Subscription: "Sub", ResourceGroup: "Group", Name: "Vault"}

func newFixture(t testing.TB) fixture {
	t.Helper()
	st, err := sqlstore.OpenSQLite(t.Context(), filepath.Join(t.TempDir(), "lifeboat.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = st.Close() })
	sealer, err := control.NewKeySealer([32]byte{7})
	if err != nil {
		t.Fatal(err)
	}
	f := fixture{t: t, store: st, Service: control.New(control.Config{Store: st, Sealer: sealer, BucketURL: func(id string) string { return "mem://" + id },
		MakeVault: func(id string) (control.VaultSecrets, string, error) {
			return control.VaultSecrets{DataKey: []byte("data key of " + id), CAKey: "secret"}, "recovery-key", nil
		}})}
	v, err := f.PutVault(t.Context(), vaultKey, control.VaultInput{Location: "here"})
	if err != nil {
		t.Fatal(err)
	}
	f.vault = v.Vault.ID
	return f
}

func (f fixture) must(id string, err error) string {
	f.t.Helper()
	if err != nil {
		f.t.Fatal(err)
	}
	return id
}

// refused wants an error with the code, a cause and a remedy.
func (f fixture) refused(what string, code dr.Code, err error) {
	f.t.Helper()
	var e *dr.Error
	if !errors.As(err, &e) || e.Code != code || e.Message == "" || e.PossibleCauses == "" || e.RecommendedAction == "" {
		f.t.Errorf("%s: got %v, want %s with cause and remedy", what, err, code)
	}
}

func (f fixture) fabric(name string) control.Ref {
	f.t.Helper()
	ref := control.Ref{Vault: f.vault, Fabric: name}
	f.must(f.PutFabric(f.t.Context(), ref, control.FabricInput{Kind: dr.FabricInMageRcm}))
	page, err := f.Containers(f.t.Context(), ref, control.Paging{})
	if err != nil || len(page.Items) != 1 {
		f.t.Fatalf("got %+v, %v, want one container", page, err)
	}
	ref.Container = page.Items[0].Container.Name
	return ref
}

func (f fixture) policy(name, provider string) control.Ref {
	f.t.Helper()
	ref := control.Ref{Vault: f.vault, Name: name}
	f.must(f.PutPolicy(f.t.Context(), ref, control.PolicyInput{ProviderSpecificInput: json.RawMessage(`{"instanceType":"` + provider + `"}`)}))
	return ref
}

func machine(host, uuid string) dr.Machine {
	return dr.Machine{Hostname: host, ProductUUID: uuid, Platform: "vm", OSType: "Linux", IPAddresses: []string{"192.0.2.1"}, Disks: []dr.MachineDisk{{ID: "d0", SizeBytes: 1 << 20, IsOSDisk: true}}}
}

func (f fixture) enrol(fabric, host, uuid string) string {
	f.t.Helper()
	key, err := f.CreateRegistrationKey(f.t.Context(), control.RegistrationKeyInput{Vault: f.vault, Fabric: fabric, Role: control.RoleAgent})
	if err != nil {
		f.t.Fatal(err)
	}
	who, err := f.EnrolAgent(f.t.Context(), key.Key, "fp-"+uuid, machine(host, uuid))
	if err != nil {
		f.t.Fatal(err)
	}
	return who.ID
}

func TestAVaultsKeysAreMadeOnceAndKeptSealed(t *testing.T) {
	f := newFixture(t)
	again, err := f.PutVault(t.Context(), dr.VaultKey{Subscription: "SUB", ResourceGroup: "group", Name: "VAULT"}, control.VaultInput{Location: "Here", Tags: map[string]string{"a": "b"}})
	if err != nil || again.Created || again.RecoveryKey != "" || again.Vault.ID != f.vault || again.Vault.Name != "Vault" || again.Vault.Tags["a"] != "b" {
		t.Errorf("got %+v, %v, want the same vault under another spelling, without a recovery key", again, err)
	}
	secrets, err := f.VaultSecrets(t.Context(), f.vault)
	if err != nil || string(secrets.DataKey) != "data key of "+f.vault {
		t.Errorf("got %+v, %v, want the vault's keys", secrets, err)
	}
	if err := f.store.View(t.Context(), func(tx store.Tx) error {
		var sealed []byte
		if _, err := tx.Get(control.KindVaultSecrets, f.vault, &sealed); err != nil {
			return err
		}
		if strings.Contains(string(sealed), "secret") || strings.Contains(string(sealed), "data key") {
			t.Error("the store holds keys in the clear")
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	_, err = f.PutVault(t.Context(), vaultKey, control.VaultInput{Location: "elsewhere"})
	f.refused("a vault that moves", dr.CodeConflict, err)
	_, err = f.PutVault(t.Context(), dr.VaultKey{Name: "x"}, control.VaultInput{})
	f.refused("a vault without location", dr.CodeInvalid, err)
}

func TestAVaultCreatedAgainIsAnotherVault(t *testing.T) {
	f := newFixture(t)
	f.policy("p", "InMageRcm")
	if err := f.DeleteVault(t.Context(), vaultKey); err != nil {
		t.Fatal(err)
	}
	if err := f.DeleteVault(t.Context(), vaultKey); err != nil {
		t.Errorf("got %v for a vault that is gone, want nil", err)
	}
	_, err := f.VaultByID(t.Context(), f.vault)
	f.refused("the old vault", dr.CodeNotFound, err)
	v, err := f.PutVault(t.Context(), vaultKey, control.VaultInput{Location: "elsewhere"})
	if err != nil || !v.Created || v.Vault.ID == f.vault || v.RecoveryKey == "" {
		t.Errorf("got %+v, %v, want a new vault", v, err)
	}
	page, err := f.Policies(t.Context(), v.Vault.ID, control.Paging{})
	if err != nil || len(page.Items) != 0 {
		t.Errorf("got %+v, %v, want no policies in the new vault", page, err)
	}
}

func TestRemovalsAreRefusedWhileInUse(t *testing.T) {
	f := newFixture(t)
	ref := f.fabric("site")
	policy := f.policy("p", "InMageRcm")
	mapping := ref
	mapping.Name = "m"
	f.must(f.PutMapping(t.Context(), mapping, control.MappingInput{PolicyID: "/x/p"}))
	f.enrol("site", "vm1", "uuid-1")
	item := ref
	item.Name = "vm1"
	f.must(f.Enable(t.Context(), item, f.enableInput(ref)))

	f.refused("a vault with items", dr.CodeConflict, f.DeleteVault(t.Context(), vaultKey))
	_, err := f.RemoveFabric(t.Context(), ref)
	f.refused("a fabric with items", dr.CodeConflict, err)
	if !strings.Contains(err.Error(), "protected item vm1") {
		t.Errorf("got %v, want what is in the way listed", err)
	}
	_, err = f.RemoveMapping(t.Context(), mapping)
	f.refused("a mapping with items", dr.CodeConflict, err)
	_, err = f.DeletePolicy(t.Context(), policy)
	f.refused("a mapped policy", dr.CodeConflict, err)
	if _, err := f.Item(t.Context(), item); err != nil {
		t.Errorf("got %v after refusals, want the item as it was", err)
	}
}

func (f fixture) enableInput(ref control.Ref) control.EnableInput {
	f.t.Helper()
	page, err := f.Protectables(f.t.Context(), ref, "", control.Paging{})
	if err != nil || len(page.Items) == 0 {
		f.t.Fatalf("got %+v, %v, want a protectable item", page, err)
	}
	return control.EnableInput{PolicyID: "/x/p", ProviderInput: json.RawMessage(`{"instanceType":"InMageRcm","fabricDiscoveryMachineId":"` + page.Items[0].Item.Name + `"}`)}
}

func TestEnableRefusesWhatCannotBeAndRepeatsWhatWasAsked(t *testing.T) {
	f := newFixture(t)
	ref := f.fabric("site")
	f.policy("p", "InMageRcm")
	f.policy("classic", "InMageAzureV2")
	item := ref
	item.Name = "vm1"
	f.must(f.DiscoverProtectable(t.Context(), ref, control.DiscoverInput{FriendlyName: "vm1", Address: "192.0.2.1", OSType: "Linux"}))
	in := f.enableInput(ref)
	_, err := f.Enable(t.Context(), item, in)
	f.refused("a policy that is not mapped", dr.CodeConflict, err)
	for _, p := range []string{"p", "classic"} {
		m := ref
		m.Name = p
		f.must(f.PutMapping(t.Context(), m, control.MappingInput{PolicyID: p}))
	}
	_, err = f.Enable(t.Context(), item, in)
	f.refused("a machine without agent", dr.CodeConflict, err)
	f.enrol("site", "vm1", "uuid-1")
	for what, bad := range map[string]control.EnableInput{
		"no policy":                    {ProviderInput: in.ProviderInput},
		"an unknown policy":            {PolicyID: "/x/none", ProviderInput: in.ProviderInput},
		"a policy of another provider": {PolicyID: "classic", ProviderInput: in.ProviderInput},
		"no machine":                   {PolicyID: "p", ProviderInput: json.RawMessage(`{"instanceType":"InMageRcm"}`)},
		"a misspelled size":            {PolicyID: "p", ProviderInput: json.RawMessage(strings.Replace(string(in.ProviderInput), "{", `{"targetVmSize":"2cpu-4GB",`, 1))},
		"an unknown machine":           {PolicyID: "p", ProviderInput: json.RawMessage(`{"instanceType":"InMageRcm","fabricDiscoveryMachineId":"none"}`)},
	} {
		_, err := f.Enable(t.Context(), item, bad)
		f.refused(what, dr.CodeInvalid, err)
	}
	classic := in
	classic.PolicyID, classic.ProviderInput = "classic", json.RawMessage(strings.Replace(string(in.ProviderInput), "InMageRcm", "InMageAzureV2", 1))
	_, err = f.Enable(t.Context(), item, classic)
	f.refused("a provider without driver", dr.CodeUnimplemented, err)
	if _, err := f.Item(t.Context(), item); dr.CodeOf(err) != dr.CodeNotFound {
		t.Fatalf("got %v, want no item after refusals", err)
	}

	first := f.must(f.Enable(t.Context(), item, in))
	in.PolicyID = "/X/P"
	if again := f.must(f.Enable(t.Context(), item, in)); again != first {
		t.Errorf("got job %s for the same request, want %s", again, first)
	}
	other := item
	other.Name = "vm2"
	_, err = f.Enable(t.Context(), other, in)
	f.refused("a machine that is protected", dr.CodeConflict, err)
	_, err = f.TestFailover(t.Context(), item, control.TestFailoverInput{})
	f.refused("a drill while enabling", dr.CodeConflict, err)
	v, err := f.Item(t.Context(), item)
	if err != nil || v.Projection.ProtectionState != "EnablingProtection" || v.Item.CurrentScenario.JobID != first {
		t.Errorf("got %+v, %v, want it enabling", v, err)
	}
}

func TestARegistrationKeyEnrolsOne(t *testing.T) {
	f := newFixture(t)
	f.fabric("site")
	key, err := f.CreateRegistrationKey(t.Context(), control.RegistrationKeyInput{Vault: f.vault, Fabric: "SITE", Role: control.RoleAgent, Lifetime: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	first, err := f.EnrolAgent(t.Context(), key.Key, "fp", machine("vm1", "uuid-1"))
	if err != nil {
		t.Fatal(err)
	}
	again, err := f.EnrolAgent(t.Context(), key.Key, "fp", machine("vm1", "uuid-1"))
	if err != nil || again != first {
		t.Errorf("got %+v, %v for a repeated request, want %+v", again, err, first)
	}
	_, err = f.EnrolAgent(t.Context(), key.Key, "another", machine("vm2", "uuid-2"))
	f.refused("a used key", dr.CodeUnauthenticated, err)
	_, err = f.EnrolReplicator(t.Context(), key.Key, "fp", dr.Replicator{})
	f.refused("a key for another role", dr.CodeUnauthenticated, err)
	for _, bad := range []string{"", "lbr-x-y", key.Key + "x", strings.ToLower(key.Key[:5]) + "-nothing"} {
		_, err := f.EnrolAgent(t.Context(), bad, "fp", machine("vm1", "uuid-1"))
		f.refused("key "+bad, dr.CodeUnauthenticated, err)
	}
	_, err = f.CreateRegistrationKey(t.Context(), control.RegistrationKeyInput{Vault: f.vault, Fabric: "none", Role: control.RoleAgent})
	f.refused("a key for no fabric", dr.CodeNotFound, err)
}

func TestAMachineAddedByAddressIsTheAgentThatEnrolsFromThere(t *testing.T) {
	f := newFixture(t)
	ref := f.fabric("site")
	f.must(f.DiscoverProtectable(t.Context(), ref, control.DiscoverInput{FriendlyName: "database", Address: "192.0.2.1"}))
	f.must(f.DiscoverProtectable(t.Context(), ref, control.DiscoverInput{FriendlyName: "database", Address: "192.0.2.1"}))
	agent := f.enrol("site", "db.example", "uuid-1")
	page, err := f.Protectables(t.Context(), ref, "Unprotected", control.Paging{})
	if err != nil || len(page.Items) != 1 || page.Items[0].Item.AgentID != agent || page.Items[0].Item.FriendlyName != "database" {
		t.Fatalf("got %+v, %v, want one item bound to the agent", page, err)
	}
	// The machine's agent lost its directory and enrols again: it is the same machine.
	second := f.enrol("site", "db.example", "uuid-1")
	page, err = f.Protectables(t.Context(), ref, "", control.Paging{})
	if err != nil || len(page.Items) != 1 || page.Items[0].Item.AgentID != second {
		t.Errorf("got %+v, %v, want the same item with the new agent", page, err)
	}
	if a, err := f.Agent(t.Context(), agent); err != nil || !a.Unregistered {
		t.Errorf("got %+v, %v, want the old agent told to forget", a, err)
	}
	f.enrol("site", "other", "uuid-2")
	if page, err := f.Protectables(t.Context(), ref, "", control.Paging{}); err != nil || len(page.Items) != 2 {
		t.Errorf("got %+v, %v, want a second machine", page, err)
	}
}

func TestListsPage(t *testing.T) {
	f := newFixture(t)
	for i := range 7 {
		f.policy(fmt.Sprintf("P%d", i), "InMageRcm")
	}
	var names []string
	for p := (control.Paging{Limit: 3}); ; {
		page, err := f.Policies(t.Context(), f.vault, p)
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range page.Items {
			names = append(names, v.Name)
		}
		if p.After = page.Next; p.After == "" {
			break
		}
	}
	if got, want := strings.Join(names, " "), "P0 P1 P2 P3 P4 P5 P6"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	var jobs []string
	for p := (control.Paging{Limit: 2}); ; {
		page, err := f.Jobs(t.Context(), f.vault, control.JobFilter{States: []job.State{"succeeded"}}, p)
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range page.Items {
			jobs = append(jobs, v.Job.TargetName)
		}
		if p.After = page.Next; p.After == "" {
			break
		}
	}
	if got, want := strings.Join(jobs, " "), "P6 P5 P4 P3 P2 P1 P0"; got != want {
		t.Errorf("got jobs of %s, want newest first: %s", got, want)
	}
	events, err := f.Events(t.Context(), f.vault, control.EventFilter{Type: "JobStatus"}, control.Paging{Limit: 3})
	if err != nil || len(events.Items) != 3 || events.Next == "" {
		t.Fatalf("got %+v, %v, want three events and more", events, err)
	}
	if e, err := f.Event(t.Context(), f.vault, events.Items[1].Name); err != nil || e.ID != events.Items[1].ID {
		t.Errorf("got %+v, %v, want the event by its name", e, err)
	}
}

func TestPoliciesKeepTheirProviderAndTheirLimits(t *testing.T) {
	f := newFixture(t)
	ref := f.policy("p", "InMageRcm")
	_, err := f.PutPolicy(t.Context(), ref, control.PolicyInput{ProviderSpecificInput: json.RawMessage(`{"instanceType":"A2A"}`)})
	f.refused("another provider", dr.CodeConflict, err)
	_, err = f.PatchPolicy(t.Context(), ref, control.PolicyInput{ProviderSpecificInput: json.RawMessage(`{"instanceType":"InMageRcm","recoveryPointHistoryInMinutes":99999}`)})
	f.refused("too long a retention", dr.CodeInvalid, err)
	f.must(f.PatchPolicy(t.Context(), ref, control.PolicyInput{ProviderSpecificInput: json.RawMessage(`{"instanceType":"InMageRcm","crashConsistentFrequencyInMinutes":1}`)}))
	if p, err := f.Policy(t.Context(), ref); err != nil || p.CrashConsistentEvery != time.Minute || p.Retention != 72*time.Hour {
		t.Errorf("got %+v, %v, want one minute and the retention as it was", p, err)
	}
}

func TestAnOperationsResultOutlivesWhatItRemoved(t *testing.T) {
	f := newFixture(t)
	ref := f.policy("p", "InMageRcm")
	id := f.must(f.DeletePolicy(t.Context(), ref))
	r, err := f.OperationResult(t.Context(), f.vault, id)
	if err != nil || !r.Gone || r.Status.Status != "Succeeded" || r.ResourcePath != "replicationPolicies/p" {
		t.Errorf("got %+v, %v, want a success whose resource is gone", r, err)
	}
	_, err = f.OperationStatus(t.Context(), f.vault, "none")
	f.refused("an unknown job", dr.CodeNotFound, err)
	_, err = f.CancelJob(t.Context(), f.vault, id)
	f.refused("cancelling what has ended", dr.CodeConflict, err)
	_, err = f.RestartJob(t.Context(), f.vault, id)
	f.refused("restarting what succeeded", dr.CodeConflict, err)
	_, err = f.ResumeJob(t.Context(), f.vault, id, "")
	f.refused("resuming what is not suspended", dr.CodeConflict, err)
}

func TestARequestSentTwiceIsOneRequest(t *testing.T) {
	f := newFixture(t)
	ctx := control.WithCaller(t.Context(), control.Caller{RequestID: "r-1"})
	in := control.PolicyInput{ProviderSpecificInput: json.RawMessage(`{"instanceType":"InMageRcm"}`)}
	first := f.must(f.PutPolicy(ctx, control.Ref{Vault: f.vault, Name: "p"}, in))
	if again := f.must(f.PutPolicy(ctx, control.Ref{Vault: f.vault, Name: "p"}, in)); again != first {
		t.Errorf("got job %s, want %s", again, first)
	}
	if other := f.must(f.PutPolicy(ctx, control.Ref{Vault: f.vault, Name: "q"}, in)); other == first {
		t.Error("another policy found the first one's job")
	}
}

func TestPointsAreIndexedAndForgotten(t *testing.T) {
	f := newFixture(t)
	ref := f.fabric("site")
	f.policy("p", "InMageRcm")
	m := ref
	m.Name = "m"
	f.must(f.PutMapping(t.Context(), m, control.MappingInput{PolicyID: "p"}))
	f.enrol("site", "vm1", "uuid-1")
	item := ref
	item.Name = "vm1"
	f.must(f.Enable(t.Context(), item, f.enableInput(ref)))
	v, err := f.Item(t.Context(), item)
	if err != nil {
		t.Fatal(err)
	}
	point := func(g, q int64) dr.Point {
		return dr.Point{Generation: g, Sequence: q, Time: time.Unix(g*1000+q, 0).UTC(), Consistency: dr.CrashConsistent}
	}
	all := []dr.Point{point(1, 1), point(1, 2), point(2, 1)}
	for range 2 {
		if err := f.RecordPoints(t.Context(), f.vault, v.Item.ID, all, false); err != nil {
			t.Fatal(err)
		}
	}
	page, err := f.Points(t.Context(), item, control.Paging{Limit: 2})
	if err != nil || len(page.Items) != 2 || page.Items[0].Ref() != (dr.PointRef{Generation: 2, Sequence: 1}) || page.Items[1].Ref() != (dr.PointRef{Generation: 1, Sequence: 2}) || page.Next == "" {
		t.Fatalf("got %+v, %v, want the newest two", page, err)
	}
	if p, err := f.Point(t.Context(), item, strings.ToUpper(page.Items[0].ID)); err != nil || p.Ref() != page.Items[0].Ref() {
		t.Errorf("got %+v, %v, want the point by its GUID", p, err)
	}
	lost := []dr.PointRef{{Generation: 1, Sequence: 2}, {Generation: 3, Sequence: 1}} // the second was never known
	for range 2 {
		if err := f.RecordDamage(t.Context(), f.vault, v.Item.ID, lost); err != nil {
			t.Fatal(err)
		}
	}
	if page, err := f.Points(t.Context(), item, control.Paging{}); err != nil || len(page.Items) != 2 {
		t.Errorf("got %+v, %v, want the two points that are whole", page, err)
	}
	events, err := f.Events(t.Context(), f.vault, control.EventFilter{Severity: string(dr.SeverityCritical)}, control.Paging{})
	if err != nil || len(events.Items) != 1 || len(events.Items[0].HealthErrors) != 1 || events.Items[0].HealthErrors[0].Code != "RecoveryPointDamaged" {
		t.Errorf("got %+v, %v, want one critical event of the one point", events, err)
	}
	if err := f.RecordPoints(t.Context(), f.vault, v.Item.ID, all[2:], true); err != nil {
		t.Fatal(err)
	}
	if page, err := f.Points(t.Context(), item, control.Paging{}); err != nil || len(page.Items) != 1 {
		t.Errorf("got %+v, %v, want one point after a complete report", page, err)
	}
	f.refused("a report for another vault", dr.CodeInvalid, f.RecordPoints(t.Context(), "other", v.Item.ID, all, false))
	if err := f.RecordPoints(t.Context(), f.vault, "gone", all, true); err != nil {
		t.Errorf("got %v for an item that is gone, want nil", err)
	}
}
