package control_test

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/service/control"
	"github.com/lifeboat-dr/lifeboat/service/dr"
	"github.com/lifeboat-dr/lifeboat/service/store/sqlstore"
)

// What a bucket told comes back as a vault whose machines can be drilled and failed over.
func TestImportBringsAVaultBack(t *testing.T) {
	ctx := t.Context()
	db, err := sqlstore.OpenSQLite(ctx, filepath.Join(t.TempDir(), "db"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	seal, err := control.NewKeySealer([32]byte{1})
	if err != nil {
		t.Fatal(err)
	}
	s := control.New(control.Config{Store: db, Sealer: seal})
	at := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	machine := func(id dr.ItemID, name string) control.MachineImport {
		return control.MachineImport{ID: id, HomeUUID: "home-" + string(id), Machine: dr.Machine{Hostname: name, ProductUUID: "now-" + string(id), OSType: "Linux", CPUs: 2, MemoryBytes: 1 << 30},
			Disks:  []dr.Disk{{ID: "d", SizeBytes: 1 << 20, IsOSDisk: true}},
			Points: []dr.Point{{Item: id, Generation: 1, Sequence: 1, Time: at, Consistency: dr.CrashConsistent}, {Item: id, Generation: 2, Sequence: 1, Time: at.Add(time.Hour), Consistency: dr.CrashConsistent}}, Generation: 2}
	}
	closed := machine("m3", "a/b") // a host name that is no resource name
	closed.Closed = true
	in := control.VaultImport{ID: "v-1", Key: dr.VaultKey{Subscription: "s", ResourceGroup: "g", Name: "back"}, Location: "here", BucketURL: "file:///b",
		Secrets: control.VaultSecrets{DataKey: make([]byte, 32)}, RecoveryKey: "R", Machines: []control.MachineImport{machine("m1", "web"), machine("m2", "WEB"), closed}}
	if err := s.Import(ctx, in); err != nil {
		t.Fatal(err)
	}
	v, err := s.Vault(ctx, in.Key)
	if err != nil || v.ID != "v-1" || v.BucketURL != "file:///b" || len(v.RecoveryKeyHash) == 0 {
		t.Fatalf("Vault: got %+v, %v", v, err)
	}
	if secrets, err := s.VaultSecrets(ctx, "v-1"); err != nil || len(secrets.DataKey) != 32 {
		t.Fatalf("VaultSecrets: got %d bytes, %v", len(secrets.DataKey), err)
	}
	page, err := s.Items(ctx, control.Ref{Vault: "v-1"}, control.ItemFilter{}, control.Paging{})
	if err != nil || len(page.Items) != 3 {
		t.Fatalf("Items: got %d, %v, want 3", len(page.Items), err)
	}
	names := map[string]bool{}
	for _, i := range page.Items {
		names[strings.ToLower(i.Item.Name)] = true
		ref := control.Ref{Vault: "v-1", Fabric: i.Item.Fabric, Container: i.Item.Container, Name: i.Item.Name}
		all, err := s.Points(ctx, ref, control.Paging{})
		if points := len(all.Items); err != nil || i.Projection.ProtectionState != "Protected" || points != 2 || i.LatestPoint == nil || i.LatestPoint.Generation != 2 {
			t.Errorf("%s: got %s, %d points, latest %+v", i.Item.Name, i.Projection.ProtectionState, points, i.LatestPoint)
		}
		if i.Item.HomeUUID != "home-"+string(i.Item.ID) || i.Item.ActiveUUID != "now-"+string(i.Item.ID) || i.Item.Generation != 2 || i.Item.Fenced != (i.Item.ID == "m3") {
			t.Errorf("%s: got %+v", i.Item.Name, i.Item)
		}
		if job, err := s.UnplannedFailover(ctx, ref, control.FailoverInput{Direction: "PrimaryToRecovery"}); err != nil || job == "" {
			t.Errorf("%s: a failover was refused: %v", i.Item.Name, err)
		}
	}
	if len(names) != 3 || !names["web"] || !names["web-m2"] || !names["m3"] {
		t.Errorf("names: got %v", names)
	}
	if err := s.Import(ctx, in); dr.CodeOf(err) != dr.CodeConflict {
		t.Errorf("Import again: got %v, want a conflict", err)
	}
}
