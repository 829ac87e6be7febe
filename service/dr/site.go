package dr

import (
	"fmt"
	"time"
)

// VCenter is a vCenter or ESXi server through which machines of a site are to be discovered. RunAsAccount is the name of an
// account that a replicator of the site knows; its password is never here.
type VCenter struct {
	Meta
	ID            string // a GUID; another one if the server is added again
	Vault, Fabric string
	FriendlyName  string
	Address       string // host name or IP address
	Port          int
	ProcessServer string // a replicator's id or name; empty: any of the site
	RunAsAccount  string
}

// HealthNoDiscovery is the code of the health error of a server that no replicator can read.
const HealthNoDiscovery = "NoDiscoveryDriver"

// Health tells that nobody discovers through the server: no replicator has a driver for it.
func (v VCenter) Health(now time.Time) []HealthError {
	return []HealthError{{ID: NamedGUID("health", v.ID, HealthNoDiscovery), Code: HealthNoDiscovery, Level: LevelWarning, Category: CategoryFabric, Created: now, Source: "Lifeboat", EntityID: v.ID,
		Message: fmt.Sprintf("no replicator discovers machines through %s", v.Address), Summary: "Machines of this server are not discovered.",
		PossibleCauses: "no replicator of the site has a driver for vCenter servers", RecommendedAction: "add machines with discoverProtectableItem, or install the guest agent on them"}}
}

// HasVCenters tells whether fabrics of the kind look for machines through vCenter servers.
func (k FabricKind) HasVCenters() bool {
	return k == FabricVMware || k == FabricVMwareV2 || k == FabricInMageRcm
}

// Inventory is what a site consists of besides machines, as its replicators see it.
type Inventory struct {
	Networks               []Network
	LogicalNetworks        []LogicalNetwork
	StorageClassifications []StorageClassification
}

// Network is a network of a fabric.
type Network struct {
	Meta
	Vault, Fabric string
	FriendlyName  string
	Type          string // NoIsolation, Vlan or WindowsVirtualization
	Subnets       []Subnet
	// Implied networks were made by a mapping and not discovered: they go with their last mapping.
	Implied bool
}

// Subnet is a part of a network. Ranges are CIDR.
type Subnet struct {
	Name, FriendlyName string
	Ranges             []string
}

// LogicalNetwork is a logical network of a VMM server, in its own words.
type LogicalNetwork struct {
	Meta
	Vault, Fabric                      string
	FriendlyName                       string
	Virtualization, Usage, Definitions string
}

// StorageClassification is a class of storage of a VMM server.
type StorageClassification struct {
	Meta
	Vault, Fabric string
	FriendlyName  string
}

// StorageMapping sends disks of a class of storage to a class of another fabric.
type StorageMapping struct {
	Meta
	Vault, Fabric, Classification string
	TargetFabric, Target          string
}

// NetworkMappingKind tells between which kinds of fabric a mapping leads: instanceType on the wire.
type NetworkMappingKind string

const (
	AzureToAzure NetworkMappingKind = "AzureToAzure"
	VmmToAzure   NetworkMappingKind = "VmmToAzure"
	VmmToVmm     NetworkMappingKind = "VmmToVmm"
)

// NetworkMapping says where replicas of machines on a network are attached.
type NetworkMapping struct {
	Meta
	Vault, Fabric, Network string
	Kind                   NetworkMappingKind
	PrimaryNetworkID       string // as sent, between regions
	RecoveryFabric         string // its name; empty: this server's recovery site
	RecoveryNetworkID      string // as sent
}

// MappingKind tells what kind of network mapping leads from one fabric to another; recovery is empty for this server's recovery
// site. It refuses pairs that have none.
func MappingKind(primary, recovery FabricKind) (NetworkMappingKind, *Error) {
	switch {
	case primary == FabricAzure && recovery == FabricAzure:
		return AzureToAzure, nil
	case primary == FabricVMM && recovery == "":
		return VmmToAzure, nil
	case primary == FabricVMM && recovery == FabricVMM:
		return VmmToVmm, nil
	}
	to := string(recovery)
	if to == "" {
		to = "the recovery site"
	}
	return "", &Error{Code: CodeInvalid, Message: fmt.Sprintf("networks are not mapped from %s to %s", primary, to),
		PossibleCauses:    "mappings lead from one region to another, or from a VMM server to the recovery site or to another VMM server",
		RecommendedAction: "name networks in the protected item's settings, with targetNetworkId and testNetworkId, instead"}
}
