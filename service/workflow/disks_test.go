package workflow_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/lifeboat-dr/lifeboat/service/control"
	"github.com/lifeboat-dr/lifeboat/service/dr"
)

// protects wants these disks to be protected, all of them in a point.
func (w *world) protects(want ...string) {
	w.t.Helper()
	var got []string
	w.waitFor("first copy of all disks", func() bool {
		got = nil
		seeding := false
		for _, d := range w.item().Item.Disks {
			got, seeding = append(got, d.ID), seeding || d.Seeding
		}
		return !seeding
	})
	if !slices.Equal(got, want) {
		w.t.Fatalf("got disks %v, want %v", got, want)
	}
}

func TestDisksOfAProtectedMachineComeAndGo(t *testing.T) {
	w := newWorld(t)
	w.engine(w.store)
	in := w.enableInput()
	var all map[string]any
	if err := json.Unmarshal(in.ProviderInput, &all); err != nil {
		t.Fatal(err)
	}
	all["disksToInclude"] = []map[string]string{{"diskId": "os"}}
	in.ProviderInput, _ = json.Marshal(all) // is a map
	w.ask(w.control.Enable(w.ctx, w.ref, in))
	w.waitPhase(dr.LegInMageRcm, dr.PhaseProtected)

	add := func(disks string) (string, error) {
		return w.control.AddDisks(w.ctx, w.ref, json.RawMessage(`{"instanceType":"InMageRcm","disks":`+disks+`}`))
	}
	remove := func(ids string) (string, error) {
		return w.control.RemoveDisks(w.ctx, w.ref, json.RawMessage(`{"instanceType":"InMageRcm","diskIds":`+ids+`}`))
	}
	for name, c := range map[string]struct {
		code dr.Code
		ask  func() (string, error)
	}{
		"a disk that is not there":      {dr.CodeInvalid, func() (string, error) { return add(`[{"diskId":"nothing"}]`) }},
		"a disk that cannot be read":    {dr.CodeConflict, func() (string, error) { return add(`[{"diskId":"cd"}]`) }},
		"a disk that is protected":      {dr.CodeConflict, func() (string, error) { return add(`[{"diskId":"OS"}]`) }},
		"no disk":                       {dr.CodeInvalid, func() (string, error) { return add(`[]`) }},
		"a disk without an id":          {dr.CodeInvalid, func() (string, error) { return add(`[{}]`) }},
		"a disk that is not protected":  {dr.CodeInvalid, func() (string, error) { return remove(`["data"]`) }},
		"the disk the machine boots of": {dr.CodeConflict, func() (string, error) { return remove(`["os"]`) }},
		"another provider's input": {dr.CodeInvalid, func() (string, error) {
			return w.control.RemoveDisks(w.ctx, w.ref, json.RawMessage(`{"instanceType":"A2A","vmManagedDisksIds":["data"]}`))
		}},
	} {
		if _, err := c.ask(); dr.CodeOf(err) != c.code {
			t.Errorf("%s: got %v, want it refused with %s", name, err, c.code)
		}
	}
	w.protects("os")
	first := w.item().LatestPoint.Ref()

	w.ask(add(`[{"diskId":"DATA","diskType":"Premium_LRS"}]`))
	if d := w.item().Item.Disks; len(d) != 2 || !d[1].Seeding || d[1].SizeBytes != 1<<20 || w.item().Projection.ProtectionState != "Protected" {
		t.Fatalf("got disks %+v of a machine that is %s, want the second without a point and the machine protected all the while", d, w.item().Projection.ProtectionState)
	}
	w.ask(w.control.CaptureNow(w.ctx, w.ref))
	w.protects("os", "data")
	w.ask(remove(`["data"]`))
	w.protects("os")
	w.ask(add(`[{"diskId":"data"}]`))

	// A replica from before has no second disk, so that it cannot be protected there.
	w.killHome()
	over := w.ask(w.control.UnplannedFailover(w.ctx, w.ref, control.FailoverInput{Direction: "PrimaryToRecovery",
		ProviderInput: json.RawMessage(`{"instanceType":"InMageRcm","performShutdown":"false","recoveryPointId":"` + dr.PointID(w.item().Item.ID, first) + `"}`)}))
	if len(over.Errors) != 1 || over.Errors[0].Level != dr.LevelWarning || !strings.Contains(over.Errors[0].Message, "Disks data were added lately") {
		t.Errorf("got %+v, want a warning of the disk that no point has", over.Errors)
	}
	w.ask(w.control.FailoverCommit(w.ctx, w.ref))
	w.ask(w.control.Reprotect(w.ctx, w.ref, homeward))
	w.waitPhase(dr.LegInMageRcmFailback, dr.PhaseProtected)
	w.protects("os")
	if n := w.events("DisksLeftBehind", dr.SeverityWarning); n != 1 {
		t.Errorf("got %d events about the disk that was left behind, want 1", n)
	}
	if _, err := add(`[{"diskId":"data"}]`); dr.CodeOf(err) != dr.CodeConflict {
		t.Errorf("got %v for a disk on the way back, want it refused", err)
	}
}
