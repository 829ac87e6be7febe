package guest

import (
	"slices"
	"testing"
)

func TestOtherMembersAreToldWhereTheyReachThisOne(t *testing.T) {
	machine := []string{"10.0.0.1", "fd00::1"}
	for name, c := range map[string]struct {
		g    Group
		want []string
	}{
		"at every address, on the usual port":   {Group{}, []string{"10.0.0.1:20004", "[fd00::1]:20004"}},
		"on another port":                       {Group{Listen: ":7000"}, []string{"10.0.0.1:7000", "[fd00::1]:7000"}},
		"at one address":                        {Group{Listen: "10.0.0.1:"}, []string{"10.0.0.1:20004"}},
		"behind an address it does not know of": {Group{Addresses: []string{"web01.example:20004"}}, []string{"web01.example:20004"}},
	} {
		if got := c.g.told(machine); !slices.Equal(got, c.want) {
			t.Errorf("%s: got %v, want %v", name, got, c.want)
		}
	}
}
