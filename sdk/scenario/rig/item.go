package rig

import (
	"context"
	"fmt"
	"time"

	"github.com/lifeboat-dr/lifeboat/sdk"
)

// Item drives one protected machine.
type Item struct {
	Vault *Vault
	Name  string

	ref sdk.ItemRef
}

// Protect enables protection and waits until that job has ended. Without disks all are protected.
func (v *Vault) Protect(ctx context.Context, name, protectable string, disks ...string) (*Item, error) {
	it, job, err := v.BeginProtect(ctx, name, protectable, disks...)
	if err != nil {
		return nil, err
	}
	_, err = v.Wait(ctx, job)
	return it, err
}

// BeginProtect starts to enable protection and returns the name of the job.
func (v *Vault) BeginProtect(ctx context.Context, name, protectable string, disks ...string) (*Item, string, error) {
	it := &Item{Vault: v, Name: name, ref: sdk.ItemRef{Fabric: v.container.Fabric, Container: v.container.Name, Name: name}}
	in := sdk.EnableInput{Machine: protectable, Policy: policy, TargetName: name, Disks: disks}
	if v.hosts {
		in.Provider = sdk.ProviderHost
	}
	job, err := begun(v.Client.Enable(ctx, it.ref, in))
	return it, job, err
}

// Status is how a machine's replication stands.
type Status struct {
	State   string // protectionState
	Percent int    // of the first copy, or of the comparison after a reprotect
}

// States of a protected machine that scenarios wait for.
const (
	StateProtected          = "Protected"
	StateInitialReplication = "InitialReplicationInProgress"
)

// Status reads how the machine stands.
func (it *Item) Status(ctx context.Context) (Status, error) {
	item, err := it.Vault.Client.Item(ctx, it.ref)
	if err != nil {
		return Status{}, err
	}
	st := Status{State: item.Properties.ProtectionState}
	var percent *int32
	switch details := item.Properties.ProviderSpecificDetails; sdk.ProviderOf(item) {
	case sdk.ProviderGuest:
		if d, err := details.AsInMageRcmReplicationDetails(); err == nil {
			percent = d.InitialReplicationProgressPercentage
		}
	case sdk.ProviderGuestBack:
		if d, err := details.AsInMageRcmFailbackReplicationDetails(); err == nil {
			percent = d.InitialReplicationProgressPercentage
		}
	}
	if percent != nil {
		st.Percent = int(*percent)
	}
	return st, nil
}

// WaitState waits until the item's protectionState is one of those given. progress, which may be nil, sees every look.
func (it *Item) WaitState(ctx context.Context, progress func(Status), states ...string) error {
	last := ""
	err := Until(ctx, fmt.Sprintf("%s is one of %v", it.Name, states), func() (bool, error) {
		st, err := it.Status(ctx)
		if err != nil {
			return false, err
		}
		if progress != nil {
			progress(st)
		}
		last = st.State
		for _, s := range states {
			if s == last {
				return true, nil
			}
		}
		return false, nil
	})
	if err != nil {
		return fmt.Errorf("%w (it is %s)", err, last)
	}
	return nil
}

// Point is a recovery point as the API tells it.
type Point struct {
	Name                     string
	Time                     time.Time
	Generation, Sequence     int64
	ChangedBytes, StoredByte int64
}

// Points lists the item's points, newest first.
func (it *Item) Points(ctx context.Context) ([]Point, error) {
	list, err := sdk.Collect(it.Vault.Client.Points(ctx, it.ref))
	if err != nil {
		return nil, err
	}
	var points []Point
	for _, o := range list {
		p := o.Properties
		points = append(points, Point{Name: o.Name, Time: p.RecoveryPointTime, Generation: value(p.Generation), Sequence: value(p.Sequence),
			ChangedBytes: value(p.ChangedBytes), StoredByte: value(p.StoredBytes)})
	}
	return points, nil
}

func value(n *int64) int64 {
	if n == nil {
		return 0
	}
	return *n
}

// Newest returns the newest point.
func (it *Item) Newest(ctx context.Context) (Point, error) {
	points, err := it.Points(ctx)
	if err != nil {
		return Point{}, err
	}
	if len(points) == 0 {
		return Point{}, fmt.Errorf("%s has no recovery point", it.Name)
	}
	return points[0], nil
}

// Capture makes a recovery point now and returns the newest one, whose instant is after the call.
func (it *Item) Capture(ctx context.Context) (Point, error) {
	job, err := it.BeginCapture(ctx)
	if err != nil {
		return Point{}, err
	}
	if _, err := it.Vault.Wait(ctx, job); err != nil {
		return Point{}, err
	}
	return it.Newest(ctx)
}

// The Begin methods start an operation and return the name of its job.

// BeginCapture asks for a recovery point now.
func (it *Item) BeginCapture(ctx context.Context) (string, error) {
	return begun(it.Vault.Client.Capture(ctx, it.ref))
}

// BeginTestFailover starts a drill, from the newest point when point is empty.
func (it *Item) BeginTestFailover(ctx context.Context, point string) (string, error) {
	return begun(it.Vault.Client.TestFailover(ctx, it.ref, sdk.FailoverInput{Point: point}))
}

// BeginFailover starts an unplanned failover, from the newest point when point is empty. The source is presumed dead.
func (it *Item) BeginFailover(ctx context.Context, point string) (string, error) {
	return begun(it.Vault.Client.UnplannedFailover(ctx, it.ref, sdk.FailoverInput{Point: point}))
}

// BeginPlannedFailover starts a failover without loss: the way home, for machines with the guest agent.
func (it *Item) BeginPlannedFailover(ctx context.Context) (string, error) {
	return begun(it.Vault.Client.PlannedFailover(ctx, it.ref))
}

// BeginCommit starts to accept a failover.
func (it *Item) BeginCommit(ctx context.Context) (string, error) {
	return begun(it.Vault.Client.Commit(ctx, it.ref))
}

func begun(o *sdk.Operation, err error) (string, error) {
	if err != nil {
		return "", err
	}
	return o.JobID, nil
}

// TestFailover runs a drill until its machine is up.
func (it *Item) TestFailover(ctx context.Context, point string) (Job, error) {
	job, err := it.BeginTestFailover(ctx, point)
	if err != nil {
		return Job{}, err
	}
	return it.Vault.Wait(ctx, job)
}

// Cleanup ends the drill.
func (it *Item) Cleanup(ctx context.Context) error {
	return it.Vault.settle(ctx)(it.Vault.Client.CleanUp(ctx, it.ref, "done"))
}

// ChangePoint starts a failed-over machine from another point.
func (it *Item) ChangePoint(ctx context.Context, point string) error {
	return it.Vault.settle(ctx)(it.Vault.Client.ChangePoint(ctx, it.ref, point))
}

// Commit accepts the failover.
func (it *Item) Commit(ctx context.Context) error {
	return it.Vault.settle(ctx)(it.Vault.Client.Commit(ctx, it.ref))
}

// ReprotectHome replicates towards production, onto the machine in a datastore of the master target.
func (it *Item) ReprotectHome(ctx context.Context, masterTarget, datastore string) error {
	return it.Vault.settle(ctx)(it.Vault.Client.Reprotect(ctx, it.ref, sdk.ReprotectInput{MasterTarget: masterTarget, Datastore: datastore, Policy: policyBack}))
}

// ReprotectAway replicates towards the recovery site again.
func (it *Item) ReprotectAway(ctx context.Context) error {
	return it.Vault.settle(ctx)(it.Vault.Client.Reprotect(ctx, it.ref, sdk.ReprotectInput{Policy: policy}))
}

// AddDisks protects further disks of the machine.
func (it *Item) AddDisks(ctx context.Context, disks ...string) error {
	return it.Vault.settle(ctx)(it.Vault.Client.AddDisks(ctx, it.ref, disks...))
}

// RemoveDisks stops protecting disks of the machine.
func (it *Item) RemoveDisks(ctx context.Context, disks ...string) error {
	return it.Vault.settle(ctx)(it.Vault.Client.RemoveDisks(ctx, it.ref, disks...))
}

// Remove ends the machine's protection and drops its points.
func (it *Item) Remove(ctx context.Context) error {
	return it.Vault.settle(ctx)(it.Vault.Client.Remove(ctx, it.ref))
}

// Export writes disk images of a point into a directory on the replicator's host.
func (it *Item) Export(ctx context.Context, point Point, format, directory string) (Job, error) {
	o, err := it.Vault.Client.ExportPoint(ctx, it.ref, point.Name, format, directory)
	if err != nil {
		return Job{}, err
	}
	return it.Vault.Wait(ctx, o.JobID)
}
