package dr

import (
	"encoding/json"
	"testing"
)

func TestASizeIsOursOrAzures(t *testing.T) {
	for s, ok := range map[string]bool{
		"": true, "2cpu-4096MB": true, "1CPU-512mb": true, "Standard_D2s_v3": true, "standard_e4-2ads_v5": true, "Basic_A1": true, "Standard_NC24ads_A100_v4": true, "Standard_B1ms": true,
		"2cpu-4GB": false, "2cpu4096MB": false, "2 cpu-4096MB": false, "0cpu-4096MB": false, "2cpu-64MB": false, "small": false, "Standrd_D2s_v3": false, "Standard_": false, "2cpu-4096MB ": false,
	} {
		err := CheckSize(s)
		if (err == nil) != ok || err != nil && (err.Code != CodeInvalid || err.PossibleCauses == "" || err.RecommendedAction == "") {
			t.Errorf("%q: got %v, want it taken: %v, or refused with cause and remedy", s, err, ok)
		}
	}
}

func TestTargetHardware(t *testing.T) {
	source := Hardware{CPUs: 8, MemoryBytes: 32 << 30}
	for _, c := range []struct {
		name           string
		enable, update string
		cpus           int
		memory         int64
	}{
		{"without a size the source's hardware counts", `{}`, ``, 8, 32 << 30},
		{"a size at enable counts", `{"targetVmSize":"2cpu-4096MB"}`, ``, 2, 4 << 30},
		{"an update goes before enable", `{"targetVmSize":"2cpu-4096MB"}`, `{"targetVmSize":"1CPU-512mb"}`, 1, 512 << 20},
		{"an update without a size keeps the one of enable", `{"targetVmSize":"2cpu-4096MB"}`, `{"targetVmName":"x"}`, 2, 4 << 30},
		{"a cloud's size says nothing here", `{"targetVmSize":"Standard_D2s_v3"}`, ``, 8, 32 << 30},
	} {
		t.Run(c.name, func(t *testing.T) {
			i := Item{Hardware: source, EnableInput: json.RawMessage(c.enable), UpdateInput: json.RawMessage(c.update)}
			got := i.TargetHardware()
			if got.CPUs != c.cpus || got.MemoryBytes != c.memory {
				t.Errorf("got %d processors and %d bytes, want %d and %d", got.CPUs, got.MemoryBytes, c.cpus, c.memory)
			}
		})
	}
}
