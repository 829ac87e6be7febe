package workflow_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/lifeboat-dr/lifeboat/service/control"
	"github.com/lifeboat-dr/lifeboat/service/dr"
)

func TestAnUpdateKeepsWhatItLeavesOutAndRefusesAMisspelledSize(t *testing.T) {
	w := protectedWorld(t)
	for _, in := range []control.UpdateInput{
		{ProviderInput: json.RawMessage(`{"instanceType":"InMageRcm","targetVmSize":"2cpu-4096MB"}`)},
		{ProviderInput: json.RawMessage(`{"instanceType":"InMageRcm","targetVmName":"other","targetVmSize":null}`)},
	} {
		w.ask(w.control.UpdateItem(w.ctx, w.ref, in))
		it := w.item().Item
		if got := it.TargetHardware(); got.CPUs != 2 || got.MemoryBytes != 4<<30 {
			t.Errorf("got %+v after %s, want 2 processors and 4 GiB", got, in.ProviderInput)
		}
	}
	w.ask(w.control.UpdateItem(w.ctx, w.ref, control.UpdateInput{Properties: json.RawMessage(`{"recoveryAzureVMSize":"3cpu-512MB"}`)}))
	before := w.item().Item
	if got := before.TargetHardware(); got.CPUs != 3 || before.TargetName != "other" {
		t.Errorf("got %+v for %s, want 3 processors", got, before.TargetName)
	}
	for _, in := range []control.UpdateInput{
		{ProviderInput: json.RawMessage(`{"instanceType":"InMageRcm","targetVmName":"third","targetVmSize":"2cpu-4GB"}`)},
		{Properties: json.RawMessage(`{"recoveryAzureVMSize":"large"}`)},
	} {
		_, err := w.control.UpdateItem(w.ctx, w.ref, in)
		if dr.CodeOf(err) != dr.CodeInvalid || !strings.Contains(err.Error(), "targetVmSize") {
			t.Errorf("got %v for %+v, want a refusal of the size", err, in)
		}
	}
	if after := w.item().Item; after.Version != before.Version {
		t.Errorf("got %+v after refusals, want it as it was", after)
	}
}
