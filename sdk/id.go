package sdk

import (
	"fmt"
	"strings"
)

// provider is the namespace of the resource model.
const provider = "Microsoft.RecoveryServices"

// Segment is a step of a resource's path: what it is, and its name.
type Segment struct{ Kind, Name string }

// ID is the id of a resource: its path without the query. Kinds and names compare without case and keep their spelling.
type ID struct {
	Subscription, ResourceGroup, Vault string
	// Path leads from the vault to the resource; empty for the vault itself.
	Path []Segment
}

// ParseID reads the id of a vault or of something in one.
func ParseID(text string) (ID, error) {
	bad := func() (ID, error) {
		return ID{}, fmt.Errorf("%q is no resource id such as /subscriptions/S/resourceGroups/G/providers/%s/vaults/V", text, provider)
	}
	s := strings.Split(strings.TrimSuffix(strings.TrimPrefix(text, "/"), "/"), "/")
	if len(s) < 8 || len(s)%2 != 0 {
		return bad()
	}
	for i, word := range map[int]string{0: "subscriptions", 2: "resourceGroups", 4: "providers", 5: provider, 6: "vaults"} {
		if !strings.EqualFold(s[i], word) {
			return bad()
		}
	}
	id := ID{Subscription: s[1], ResourceGroup: s[3], Vault: s[7]}
	for i := 8; i < len(s); i += 2 {
		id.Path = append(id.Path, Segment{s[i], s[i+1]})
	}
	for _, name := range append([]string{id.Subscription, id.ResourceGroup, id.Vault}, namesOf(id.Path)...) {
		if name == "" {
			return bad()
		}
	}
	return id, nil
}

func namesOf(path []Segment) (names []string) {
	for _, s := range path {
		names = append(names, s.Name)
	}
	return names
}

// String formats the id as the server spells it.
func (id ID) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "/subscriptions/%s/resourceGroups/%s/providers/%s/vaults/%s", id.Subscription, id.ResourceGroup, provider, id.Vault)
	for _, s := range id.Path {
		b.WriteString("/" + s.Kind + "/" + s.Name)
	}
	return b.String()
}

// Name is the resource's own name, the last of the path.
func (id ID) Name() string {
	if len(id.Path) == 0 {
		return id.Vault
	}
	return id.Path[len(id.Path)-1].Name
}

// Get is the name at the step of a kind, such as replicationFabrics; empty when the path has none.
func (id ID) Get(kind string) string {
	for _, s := range id.Path {
		if strings.EqualFold(s.Kind, kind) {
			return s.Name
		}
	}
	return ""
}

// Kinds of steps.
const (
	kindFabric    = "replicationFabrics"
	kindContainer = "replicationProtectionContainers"
	kindItem      = "replicationProtectedItems"
	kindPoint     = "recoveryPoints"
	kindPolicy    = "replicationPolicies"
)

// ID returns the id of a resource of the client's vault.
func (c *Client) ID(path ...Segment) ID {
	return ID{Subscription: c.subscription, ResourceGroup: c.group, Vault: c.v, Path: path}
}

// ContainerRef names a container of machines.
type ContainerRef struct{ Fabric, Name string }

// ItemRef names a protected machine.
type ItemRef struct{ Fabric, Container, Name string }

// RefOf is the reference of a protected machine that the server sent.
func RefOf(item Item) (ItemRef, error) {
	id, err := ParseID(item.Id)
	if err != nil {
		return ItemRef{}, err
	}
	return ItemRef{id.Get(kindFabric), id.Get(kindContainer), id.Get(kindItem)}, nil
}

func (c *Client) pointID(i ItemRef, point string) string {
	return c.ID(Segment{kindFabric, i.Fabric}, Segment{kindContainer, i.Container}, Segment{kindItem, i.Name}, Segment{kindPoint, point}).String()
}

// nameOf is the last step of an id, or the text itself when it is a name already.
func nameOf(id string) string { return id[strings.LastIndex(id, "/")+1:] }
