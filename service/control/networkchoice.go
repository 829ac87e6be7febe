package control

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/lifeboat-dr/lifeboat/service/dr"
	"github.com/lifeboat-dr/lifeboat/service/store"
)

// RecoveryNetwork is the network that a machine started by an operation is attached to: what the request names, else what the item
// was told, else where the networks of the site that it comes from are mapped to. by is the mapping that decided; both are empty when
// nothing tells.
func RecoveryNetwork(tx store.Tx, it *dr.Item, op dr.Operation, asked string) (network, by string, err error) {
	from, to := it.Fabric, it.RecoveryFabric
	own := it.TargetNetwork
	if op == dr.OpTestFailover {
		own = it.TestNetwork
	}
	if homewards(it, op) {
		from, to, own = to, from, "" // what the item was told is about the recovery site
	}
	if network = or(asked, own); network != "" {
		return network, "", nil
	}
	if from == "" {
		return "", "", nil // this server's recovery site has no networks of its own
	}
	var mappings []dr.NetworkMapping
	known, err := all[dr.NetworkMapping](tx, KindNetworkMapping, under(it.Vault, from))
	for _, m := range known {
		if strings.EqualFold(m.RecoveryFabric, to) {
			mappings = append(mappings, m)
		}
	}
	if err != nil || len(mappings) == 0 {
		return "", "", err
	}
	var nics []dr.NIC
	if a, ok, err := find[dr.Agent](tx, KindAgent, it.AgentID); err != nil {
		return "", "", err
	} else if ok {
		nics = a.Machine.NICs
	}
	for _, nic := range nics {
		for _, m := range mappings {
			n, ok, err := find[dr.Network](tx, KindNetwork, fold(m.Vault, m.Fabric, m.Network))
			if err != nil {
				return "", "", err
			}
			if ok && attached(nic, n) {
				return m.RecoveryNetworkID, m.Name, nil
			}
		}
	}
	// Where the machine's adapters are is not known: a site with one way out leaves no choice.
	if to := mappings[0].RecoveryNetworkID; !slices.ContainsFunc(mappings, func(m dr.NetworkMapping) bool { return !strings.EqualFold(m.RecoveryNetworkID, to) }) {
		return to, mappings[0].Name, nil
	}
	return "", "", nil
}

// homewards tells whether an operation starts the machine at its primary site.
func homewards(it *dr.Item, op dr.Operation) bool {
	leg, _, ok := dr.LegByName(it.State.Leg).Next(op, it.State.Phase)
	if !ok {
		leg = it.State.Leg
	}
	return dr.LegByName(leg).Direction == dr.RecoveryToPrimary
}

// attached tells whether an adapter is on a network: it names the network, or has an address of it.
func attached(nic dr.NIC, n dr.Network) bool {
	if strings.EqualFold(nic.Name, n.Name) || strings.EqualFold(nic.Name, n.FriendlyName) {
		return true
	}
	for _, s := range n.Subnets {
		for _, r := range s.Ranges {
			prefix, err := netip.ParsePrefix(r)
			if err != nil {
				continue // discovered as it is
			}
			if slices.ContainsFunc(nic.IPAddresses, func(a string) bool {
				addr, err := netip.ParseAddr(a)
				return err == nil && prefix.Contains(addr)
			}) {
				return true
			}
		}
	}
	return false
}

// ReplicaStorage says which class of storage replicas of disks get, by the class that the disks have where the machine runs. It is
// empty when nothing is mapped.
func ReplicaStorage(tx store.Tx, it *dr.Item, op dr.Operation) (map[string]string, error) {
	from, to := it.Fabric, it.RecoveryFabric
	if dr.LegByName(it.State.Leg).Direction == dr.RecoveryToPrimary != (op == dr.OpReprotect) { // a reprotect turns the direction round
		from, to = to, from
	}
	if from == "" || to == "" {
		return nil, nil
	}
	mappings, err := all[dr.StorageMapping](tx, KindStorageMapping, under(it.Vault, from))
	if err != nil {
		return nil, err
	}
	var out map[string]string
	for _, m := range mappings {
		if strings.EqualFold(m.TargetFabric, to) {
			if out == nil {
				out = map[string]string{}
			}
			out[m.Classification] = m.Target
		}
	}
	return out, nil
}
