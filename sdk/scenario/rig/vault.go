package rig

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/lifeboat-dr/lifeboat/sdk"
)

// Vault drives one vault of a lifeboatd through the SDK, as a user's program would. Requests that meet no server are
// repeated: rigs kill servers. Safe for concurrent use.
type Vault struct {
	Client      *sdk.Client
	RecoveryKey string // empty for a vault that was not made here

	container sdk.ContainerRef
	hosts     bool
}

// Names of what a scenario's vault holds.
const (
	resourceGroup = "dr"
	site          = "home-site"
	policy        = "minutely"
	policyBack    = "way-home"
)

// Policies of a scenario.
type Policies struct {
	CrashConsistentMinutes int // default 1
	CrashConsistentSeconds int // in the place of the minutes, when set
	RetentionMinutes       int // default 1440
	// Hosts makes the site one of hypervisors, whose machines are protected from outside, with points every 30 seconds.
	Hosts bool
}

// createVault makes a vault with one site of machines with the guest agent, a policy for each direction, and the mapping.
func createVault(ctx context.Context, c *sdk.Client, p Policies) (v *Vault, err error) {
	v = &Vault{Client: c}
	if _, v.RecoveryKey, err = c.CreateVault(ctx, "here", nil); err != nil {
		return nil, err
	}
	if v.RecoveryKey == "" {
		return nil, fmt.Errorf("the answer to the creation of vault %s has no recovery key", c.VaultName())
	}
	kind := ""
	if v.hosts = p.Hosts; v.hosts {
		kind = sdk.FabricHost
	}
	if err := v.settle(ctx)(c.CreateFabric(ctx, site, kind)); err != nil {
		return nil, err
	}
	if v.container, err = c.OnlyContainer(ctx, site); err != nil {
		return nil, err
	}
	settings := sdk.PolicySettings{Frequency: int32(max(1, p.CrashConsistentMinutes)), Seconds: int32(p.CrashConsistentSeconds), Retention: int32(p.RetentionMinutes), Host: p.Hosts}
	if err := v.settle(ctx)(c.CreatePolicy(ctx, policy, settings)); err != nil {
		return nil, err
	}
	settings.Back, settings.Host = true, false
	if err := v.settle(ctx)(c.CreatePolicy(ctx, policyBack, settings)); err != nil {
		return nil, err
	}
	return v, v.settle(ctx)(c.CreateMapping(ctx, v.container, "mapping", policy))
}

// rebuiltSubscription is where a catalogue rebuild puts vaults.
const rebuiltSubscription, rebuiltResourceGroup = "00000000-0000-0000-0000-000000000000", "recovered"

// RebuiltItems returns the protected machines of the one vault that a catalogue rebuild put into lifeboatd's store.
func (p *Plane) RebuiltItems(ctx context.Context) ([]*Item, error) {
	c, err := p.client(rebuiltSubscription, rebuiltResourceGroup, "")
	if err != nil {
		return nil, err
	}
	vaults, err := sdk.Collect(c.Vaults(ctx))
	if err != nil {
		return nil, err
	}
	if len(vaults) != 1 {
		return nil, fmt.Errorf("the rebuild made %d vaults, want 1", len(vaults))
	}
	v := &Vault{Client: c.WithVault(vaults[0].Name)}
	items, err := sdk.Collect(v.Client.Items(ctx, ""))
	if err != nil {
		return nil, err
	}
	var found []*Item
	for _, i := range items {
		ref, err := sdk.RefOf(i)
		if err != nil {
			return nil, err
		}
		found = append(found, &Item{Vault: v, Name: i.Properties.FriendlyName, ref: ref})
	}
	return found, nil
}

// settle waits for the end of an operation that was just begun.
func (v *Vault) settle(ctx context.Context) func(*sdk.Operation, error) error {
	return func(o *sdk.Operation, err error) error {
		if err == nil {
			_, err = v.Wait(ctx, o.JobID)
		}
		return err
	}
}

// away tells that no server answered, which is to be expected while one is killed and started again.
func away(err error) bool {
	e, ok := errors.AsType[*sdk.Error](err)
	return ok && (e.Code == sdk.CodeUnreachable || e.Status == 503)
}

// Job is a job as far as scenarios look at it.
type Job struct {
	Name     string
	Scenario string
	State    string
	Errors   string
	Ended    time.Time // by the server's clock; zero while it runs
	told     map[string]string
}

// Told returns what the job says of the objects it affected, empty when it does not say.
func (j Job) Told(name string) string { return j.told[name] }

func jobOf(j sdk.Job) Job {
	out := Job{Name: j.Name, Scenario: j.Properties.ScenarioName, State: j.Properties.State, Ended: j.Properties.EndTime}
	for _, e := range j.Properties.Errors {
		out.Errors += fmt.Sprintf("%s: %s %s; ", e.TaskId, e.ServiceErrorDetails.Code, e.ServiceErrorDetails.Message)
	}
	if d, err := j.Properties.CustomDetails.AsAsrJobDetails(); err == nil {
		out.told = d.AffectedObjectDetails // all kinds of details have it
	}
	return out
}

// Job reads a job.
func (v *Vault) Job(ctx context.Context, name string) (Job, error) {
	j, err := v.Client.Job(ctx, name)
	return jobOf(j), err
}

// Jobs lists all jobs, newest first.
func (v *Vault) Jobs(ctx context.Context) ([]Job, error) {
	list, err := sdk.Collect(v.Client.Jobs(ctx, ""))
	var jobs []Job
	for _, j := range list {
		jobs = append(jobs, jobOf(j))
	}
	return jobs, err
}

// Wait waits until the operation of a job has settled as clients see it, and returns the job. An operation that did not
// succeed is an error that tells what the job says.
func (v *Vault) Wait(ctx context.Context, name string) (Job, error) {
	if name == "" {
		return Job{}, nil // done at once
	}
	for {
		j, err := v.Client.WaitForJob(ctx, name, nil)
		if err != nil && away(err) && ctx.Err() == nil {
			continue
		}
		if failure, ok := errors.AsType[*sdk.OperationError](err); ok {
			job := jobOf(j)
			return job, fmt.Errorf("job %s (%s) ended as %s: %s%w", name, job.Scenario, failure.Status, job.Errors, err)
		}
		return jobOf(j), err
	}
}

// RegistrationKey makes a key with which an agent or a replicator enrols once.
func (v *Vault) RegistrationKey(ctx context.Context, role string) (string, error) {
	k, err := v.Client.CreateRegistrationKey(ctx, site, role)
	return k.RegistrationKey, err
}

// MasterTarget returns the id of the replicator that was heard of last among those that reach a datastore of production
// machines, once there is one.
func (v *Vault) MasterTarget(ctx context.Context, datastore string) (id string, err error) {
	err = Until(ctx, "a master target reaches datastore "+datastore, func() (bool, error) {
		f, err := v.Client.Fabric(ctx, site)
		if err != nil {
			return false, err
		}
		d, err := f.Properties.CustomDetails.AsInMageRcmFabricSpecificDetails()
		if err != nil {
			return false, err
		}
		var heard time.Time
		for _, a := range d.ReprotectAgents {
			if slices.Contains(a.AccessibleDatastores, datastore) && a.LastHeartbeatUtc.After(heard) {
				id, heard = a.Id, a.LastHeartbeatUtc
			}
		}
		return id != "", nil
	})
	return id, err
}

// WaitProtectable waits until the machine's agent has enrolled, or its hypervisor's has told of it, and returns the id of its protectable item.
func (v *Vault) WaitProtectable(ctx context.Context, friendlyName string) (string, error) {
	var found string
	err := Until(ctx, "the agent of "+friendlyName+" has enrolled", func() (bool, error) {
		machines, err := sdk.Collect(v.Client.Machines(ctx, v.container, ""))
		if err != nil {
			return false, err
		}
		for _, m := range machines {
			if v.hosts && strings.EqualFold(m.Properties.FriendlyName, friendlyName) {
				found = m.Id
				continue
			}
			d, err := m.Properties.CustomDetails.AsVMwareVirtualMachineDetails()
			if err == nil && strings.EqualFold(m.Properties.FriendlyName, friendlyName) && d.AgentGeneratedId != "" {
				found = m.Id
			}
		}
		return found != "", nil
	})
	return found, err
}

// Artifacts returns the files a job kept, by name.
func (v *Vault) Artifacts(ctx context.Context, job string) (map[string][]byte, error) {
	list, err := v.Client.Artifacts(ctx, job)
	if err != nil {
		return nil, err
	}
	files := map[string][]byte{}
	for _, a := range list {
		if files[a.Name], err = v.Client.Artifact(ctx, job, a.Name); err != nil {
			return nil, err
		}
	}
	return files, nil
}
