package sdk_test

import (
	"testing"

	"github.com/lifeboat-dr/lifeboat/sdk"
)

func TestIDsReadAndWrite(t *testing.T) {
	t.Parallel()
	const vault = "/subscriptions/s/resourceGroups/g/providers/Microsoft.RecoveryServices/vaults/v"
	for text, want := range map[string]string{vault: "v", vault + "/replicationFabrics/f": "f", vault + "/replicationFabrics/f/replicationProtectionContainers/c/replicationProtectedItems/i": "i"} {
		id, err := sdk.ParseID(text)
		if err != nil || id.String() != text || id.Name() != want {
			t.Errorf("ParseID(%q): got %q named %q, %v, want %q", text, id, id.Name(), err, want)
		}
	}
	id, err := sdk.ParseID("/SUBSCRIPTIONS/s/resourcegroups/g/providers/microsoft.recoveryservices/VAULTS/v/REPLICATIONFABRICS/f/")
	if err != nil || id.Get("replicationFabrics") != "f" {
		t.Errorf("an id in other cases: got %v, %v", id, err)
	}
	for _, text := range []string{"", "/", vault + "/replicationFabrics", vault + "/replicationFabrics/", "/subscriptions/s/resourceGroups/g/providers/Microsoft.Compute/vaults/v", "v"} {
		if id, err := sdk.ParseID(text); err == nil {
			t.Errorf("ParseID(%q): got %v, want an error", text, id)
		}
	}
}
