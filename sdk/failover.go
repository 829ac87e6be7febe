package sdk

import (
	"context"
	"fmt"
	"strings"

	"github.com/lifeboat-dr/lifeboat/sdk/oas"
)

// FailoverInput says how a machine is started at the other side.
type FailoverInput struct {
	Point    string // name of the point; empty takes the newest
	Network  string // test failover: the isolated network; empty takes the item's
	Detached bool   // test failover: without any network
	Shutdown bool   // unplanned failover: ask the source to shut down first
}

// target reads the item, because its provider type shapes the input, and says which way a failover goes.
func (c *Client) target(ctx context.Context, i ItemRef) (provider string, to oas.FailoverDirection, _ error) {
	item, err := c.Item(ctx, i)
	if err != nil {
		return "", "", err
	}
	if provider = ProviderOf(item); provider == ProviderGuestBack {
		return provider, oas.RecoveryToPrimary, nil
	}
	return provider, oas.PrimaryToRecovery, nil
}

// TestFailover starts a drill. It has succeeded once the machine is up, and lasts until its cleanup.
func (c *Client) TestFailover(ctx context.Context, i ItemRef, in FailoverInput) (*Operation, error) {
	provider, to, err := c.target(ctx, i)
	if err != nil {
		return nil, err
	}
	p := oas.TestFailoverInputProperties{FailoverDirection: to, NetworkId: in.Network, NetworkType: "VmNetworkAsInput"}
	if in.Detached {
		p.NetworkType = "NoNetworkAttachAsInput"
	}
	if err := p.ProviderSpecificDetails.FromInMageRcmTestFailoverInput(oas.InMageRcmTestFailoverInput{InstanceType: provider, NetworkId: in.Network, RecoveryPointId: c.pointOrNone(i, in.Point)}); err != nil {
		return nil, err
	}
	return c.begin(c.api.ReplicationProtectedItemsTestFailover(ctx, c.subscription, c.group, c.v, i.Fabric, i.Container, i.Name, nil, oas.TestFailoverInput{Properties: p}))
}

// CleanUp ends a drill and leaves nothing of it. comments are kept with the job.
func (c *Client) CleanUp(ctx context.Context, i ItemRef, comments string) (*Operation, error) {
	in := oas.TestFailoverCleanupInput{Properties: oas.TestFailoverCleanupInputProperties{Comments: comments}}
	return c.begin(c.api.ReplicationProtectedItemsTestFailoverCleanup(ctx, c.subscription, c.group, c.v, i.Fabric, i.Container, i.Name, nil, in))
}

// PlannedFailover moves a machine without loss: shut down, last capture, start at the other side.
func (c *Client) PlannedFailover(ctx context.Context, i ItemRef) (*Operation, error) {
	provider, to, err := c.target(ctx, i)
	if err != nil {
		return nil, err
	}
	p := oas.PlannedFailoverInputProperties{FailoverDirection: to}
	if provider == ProviderGuestBack {
		err = p.ProviderSpecificDetails.FromInMageRcmFailbackPlannedFailoverProviderInput(oas.InMageRcmFailbackPlannedFailoverProviderInput{InstanceType: provider,
			RecoveryPointType: "CrashConsistent"})
	} else {
		err = p.ProviderSpecificDetails.FromOtherProviderInput(oas.OtherProviderInput{InstanceType: provider})
	}
	if err != nil {
		return nil, err
	}
	return c.begin(c.api.ReplicationProtectedItemsPlannedFailover(ctx, c.subscription, c.group, c.v, i.Fabric, i.Container, i.Name, nil, oas.PlannedFailoverInput{Properties: p}))
}

// UnplannedFailover starts a machine from a point, its source presumed lost.
func (c *Client) UnplannedFailover(ctx context.Context, i ItemRef, in FailoverInput) (*Operation, error) {
	provider, to, err := c.target(ctx, i)
	if err != nil {
		return nil, err
	}
	p := oas.UnplannedFailoverInputProperties{FailoverDirection: to, SourceSiteOperations: oas.NotRequired}
	if in.Shutdown {
		p.SourceSiteOperations = oas.Required
	}
	if err := p.ProviderSpecificDetails.FromInMageRcmUnplannedFailoverInput(oas.InMageRcmUnplannedFailoverInput{InstanceType: provider,
		PerformShutdown: fmt.Sprint(in.Shutdown), RecoveryPointId: c.pointOrNone(i, in.Point)}); err != nil {
		return nil, err
	}
	return c.begin(c.api.ReplicationProtectedItemsUnplannedFailover(ctx, c.subscription, c.group, c.v, i.Fabric, i.Container, i.Name, nil, oas.UnplannedFailoverInput{Properties: p}))
}

// ChangePoint starts a failed-over machine from another point, before commit.
func (c *Client) ChangePoint(ctx context.Context, i ItemRef, point string) (*Operation, error) {
	provider, _, err := c.target(ctx, i)
	if err != nil {
		return nil, err
	}
	id := c.pointOrNone(i, point)
	p := oas.ApplyRecoveryPointInputProperties{RecoveryPointId: id}
	if err := p.ProviderSpecificDetails.FromInMageRcmApplyRecoveryPointInput(oas.InMageRcmApplyRecoveryPointInput{InstanceType: provider, RecoveryPointId: id}); err != nil {
		return nil, err
	}
	return c.begin(c.api.ReplicationProtectedItemsApplyRecoveryPoint(ctx, c.subscription, c.group, c.v, i.Fabric, i.Container, i.Name, nil, oas.ApplyRecoveryPointInput{Properties: p}))
}

// Commit accepts a failover; from then on its point cannot be changed.
func (c *Client) Commit(ctx context.Context, i ItemRef) (*Operation, error) {
	return c.begin(c.api.ReplicationProtectedItemsFailoverCommit(ctx, c.subscription, c.group, c.v, i.Fabric, i.Container, i.Name, nil))
}

// CancelFailover undoes a planned failover that was not committed.
func (c *Client) CancelFailover(ctx context.Context, i ItemRef) (*Operation, error) {
	return c.begin(c.api.ReplicationProtectedItemsFailoverCancel(ctx, c.subscription, c.group, c.v, i.Fabric, i.Container, i.Name, nil))
}

// ReprotectInput says what replicates back. All of it may be left out where there is only one choice.
type ReprotectInput struct {
	MasterTarget string // homewards: id or host name of the replicator that writes the machine's disks
	Datastore    string // homewards: its datastore that holds the machine
	Policy       string // name; forwards it is required by the server, and the one used before is taken
}

// Reprotect replicates in the other direction from now on: homewards after a failover, forwards after a failback.
func (c *Client) Reprotect(ctx context.Context, i ItemRef, in ReprotectInput) (*Operation, error) {
	item, err := c.Item(ctx, i)
	if err != nil {
		return nil, err
	}
	p := oas.ReverseReplicationInputProperties{}
	policy := ""
	if in.Policy != "" {
		policy = c.policyID(in.Policy)
	}
	if ProviderOf(item) == ProviderGuestBack {
		if policy, err = c.forwardPolicy(ctx, i, item, policy); err != nil {
			return nil, err
		}
		p.FailoverDirection = oas.PrimaryToRecovery
		err = p.ProviderSpecificDetails.FromInMageRcmFailbackReprotectInput(oas.InMageRcmFailbackReprotectInput{InstanceType: ProviderGuestBack, PolicyId: policy, ProcessServerId: "any"})
	} else {
		if in.MasterTarget, in.Datastore, err = c.masterTarget(ctx, i.Fabric, in); err != nil {
			return nil, err
		}
		p.FailoverDirection = oas.RecoveryToPrimary
		err = p.ProviderSpecificDetails.FromInMageRcmReprotectInput(oas.InMageRcmReprotectInput{InstanceType: or(ProviderOf(item), ProviderGuest), ReprotectAgentId: in.MasterTarget,
			DatastoreName: in.Datastore, LogStorageAccountId: "default", PolicyId: policy})
	}
	if err != nil {
		return nil, err
	}
	return c.begin(c.api.ReplicationProtectedItemsReprotect(ctx, c.subscription, c.group, c.v, i.Fabric, i.Container, i.Name, nil, oas.ReverseReplicationInput{Properties: p}))
}

// forwardPolicy is the policy to go forward under: the one asked for, the one used before, or one that the container is under.
func (c *Client) forwardPolicy(ctx context.Context, i ItemRef, item Item, asked string) (string, error) {
	if asked != "" {
		return asked, nil
	}
	if d, err := item.Properties.ProviderSpecificDetails.AsInMageRcmFailbackReplicationDetails(); err == nil && d.LastUsedPolicyId != "" {
		return d.LastUsedPolicyId, nil
	}
	for m, err := range c.Mappings(ctx, ContainerRef{i.Fabric, i.Container}) {
		if err != nil {
			return "", err
		}
		if kind, err := m.Properties.ProviderSpecificDetails.Discriminator(); err == nil && kind == ProviderGuest {
			return m.Properties.PolicyId, nil
		}
	}
	return "", &Error{Code: CodeNotFound, Message: "no policy is known to go forward under", PossibleCauses: "the container is mapped to none", RecommendedAction: "name a policy"}
}

// masterTarget completes the choice of where disks are written at home, when there is only one.
func (c *Client) masterTarget(ctx context.Context, fabric string, in ReprotectInput) (id, datastore string, _ error) {
	if in.MasterTarget != "" && in.Datastore != "" {
		return in.MasterTarget, in.Datastore, nil
	}
	f, err := c.Fabric(ctx, fabric)
	if err != nil {
		return "", "", err
	}
	d, err := f.Properties.CustomDetails.AsInMageRcmFabricSpecificDetails()
	if err != nil {
		return "", "", fmt.Errorf("read the master targets of fabric %s: %w", fabric, err)
	}
	var choices []string
	for _, a := range d.ReprotectAgents {
		if in.MasterTarget != "" && !strings.EqualFold(a.Id, in.MasterTarget) && !strings.EqualFold(a.Name, in.MasterTarget) {
			continue
		}
		for _, s := range a.AccessibleDatastores {
			if in.Datastore == "" || strings.EqualFold(s, in.Datastore) {
				id, datastore = a.Id, s
				choices = append(choices, s+" at "+or(a.Name, a.Id))
			}
		}
	}
	switch len(choices) {
	case 0:
		return "", "", &Error{Code: CodeNotFound, Message: "no master target of fabric " + fabric + " can write the machine's disks", PossibleCauses: "none is connected, or none has such a datastore",
			RecommendedAction: "start a replicator with the role masterTarget and a datastore at the site"}
	case 1:
		return id, datastore, nil
	}
	return "", "", ambiguous("there are several datastores to write the machine's disks to", "they are "+strings.Join(choices, ", "), "name the master target and the datastore that hold the machine")
}

func (c *Client) pointOrNone(i ItemRef, point string) string {
	if point == "" {
		return ""
	}
	return c.pointID(i, nameOf(point))
}
