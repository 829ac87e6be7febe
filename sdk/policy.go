package sdk

import (
	"context"
	"iter"
	"net/http"
	"strconv"

	"github.com/lifeboat-dr/lifeboat/sdk/oas"
)

// PolicySettings are replication settings of machines with the guest agent. Zero fields take the defaults written beside them.
type PolicySettings struct {
	Retention int32 // minutes that points are kept; 1440
	Frequency int32 // minutes between points; 5
	// Seconds between points, at least 5, in the place of Frequency, for machines with the guest agent.
	Seconds int32
	// AppConsistent is the minutes between application-consistent points; none are taken at 0.
	AppConsistent int32
	// MultiVM has machines of one consistency group captured at one moment.
	MultiVM bool
	// Back makes a policy of the way home, which keeps no history of its own.
	Back bool
	// Host makes a policy of machines that an agent on their hypervisor replicates: points every 30 seconds, kept for whole hours;
	// Frequency and AppConsistent say nothing there.
	Host bool
}

// CreatePolicy creates replication settings.
func (c *Client) CreatePolicy(ctx context.Context, name string, s PolicySettings) (*Operation, error) {
	if s.Retention == 0 {
		s.Retention = 24 * 60
	}
	if s.Frequency == 0 {
		s.Frequency = 5
	}
	in := oas.CreatePolicyInput{}
	settings := &in.Properties.ProviderSpecificInput
	var err error
	switch {
	case s.Host:
		err = settings.FromHyperVReplicaAzurePolicyInput(oas.HyperVReplicaAzurePolicyInput{InstanceType: ProviderHost, ReplicationInterval: 30,
			RecoveryPointHistoryDuration: min(24, max(1, s.Retention/60))})
	case s.Back:
		err = settings.FromInMageRcmFailbackPolicyCreationInput(oas.InMageRcmFailbackPolicyCreationInput{InstanceType: ProviderGuestBack,
			CrashConsistentFrequencyInMinutes: &s.Frequency, AppConsistentFrequencyInMinutes: &s.AppConsistent})
	default:
		guest := oas.InMageRcmPolicyCreationInput{InstanceType: ProviderGuest, RecoveryPointHistoryInMinutes: &s.Retention,
			CrashConsistentFrequencyInMinutes: &s.Frequency, AppConsistentFrequencyInMinutes: &s.AppConsistent, EnableMultiVmSync: strconv.FormatBool(s.MultiVM)}
		if s.Seconds > 0 {
			guest.CrashConsistentFrequencyInSeconds = &s.Seconds
		}
		err = settings.FromInMageRcmPolicyCreationInput(guest)
	}
	if err != nil {
		return nil, err
	}
	return c.begin(c.api.ReplicationPoliciesCreate(ctx, c.subscription, c.group, c.v, name, nil, in))
}

// Policy reads a policy.
func (c *Client) Policy(ctx context.Context, name string) (Policy, error) {
	return decode[Policy](c.api.ReplicationPoliciesGet(ctx, c.subscription, c.group, c.v, name, nil))
}

// Policies lists the policies of the vault.
func (c *Client) Policies(ctx context.Context) iter.Seq2[Policy, error] {
	return pages[Policy](ctx, c, func() (*http.Response, error) {
		return c.api.ReplicationPoliciesList(ctx, c.subscription, c.group, c.v, nil)
	})
}

// DeletePolicy deletes a policy that no container is mapped to.
func (c *Client) DeletePolicy(ctx context.Context, name string) (*Operation, error) {
	return c.begin(c.api.ReplicationPoliciesDelete(ctx, c.subscription, c.group, c.v, name, nil))
}

// recoverySite is what the field calls the target that is no container: this server's own recovery site.
const recoverySite = "Microsoft Azure"

// CreateMapping puts the machines of a container under a policy, towards this server's recovery site.
func (c *Client) CreateMapping(ctx context.Context, in ContainerRef, name, policy string) (*Operation, error) {
	body := oas.CreateProtectionContainerMappingInput{Properties: oas.CreateProtectionContainerMappingInputProperties{
		PolicyId: c.policyID(policy), TargetProtectionContainerId: recoverySite}}
	return c.begin(c.api.ReplicationProtectionContainerMappingsCreate(ctx, c.subscription, c.group, c.v, in.Fabric, in.Name, name, nil, body))
}

// Mappings lists the policies that a container is under.
func (c *Client) Mappings(ctx context.Context, in ContainerRef) iter.Seq2[Mapping, error] {
	return pages[Mapping](ctx, c, func() (*http.Response, error) {
		return c.api.ReplicationProtectionContainerMappingsListByReplicationProtectionContainers(ctx, c.subscription, c.group, c.v, in.Fabric, in.Name, nil)
	})
}

// DeleteMapping takes a container off a policy that none of its machines is under.
func (c *Client) DeleteMapping(ctx context.Context, in ContainerRef, name string) (*Operation, error) {
	body := oas.RemoveProtectionContainerMappingInput{}
	return c.begin(c.api.ReplicationProtectionContainerMappingsDelete(ctx, c.subscription, c.group, c.v, in.Fabric, in.Name, name, nil, body))
}

func (c *Client) policyID(name string) string {
	return c.ID(Segment{kindPolicy, nameOf(name)}).String()
}
