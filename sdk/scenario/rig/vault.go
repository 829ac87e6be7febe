package rig

import (
	"context"
	"fmt"
	"net/http"
	"path"
	"slices"
	"strings"
	"time"
)

// Vault drives one vault through the API.
type Vault struct {
	API         *API
	Path        string // of the vault
	RecoveryKey string
	Fabric      string // path of the site
	Container   string // path of its container
	Policy      string // path
	Back        string // path of the policy of the way home
}

const (
	subscription  = "11111111-2222-4333-8444-555555555555"
	resourceGroup = "dr"
)

// Policies of a scenario.
type Policies struct {
	CrashConsistentMinutes int // default 1
	RetentionMinutes       int // default 1440
}

// createVault makes a vault with one InMageRcm site, a policy for each direction, and the mapping.
func createVault(ctx context.Context, a *API, name string, p Policies) (*Vault, error) {
	if p.CrashConsistentMinutes == 0 {
		p.CrashConsistentMinutes = 1
	}
	if p.RetentionMinutes == 0 {
		p.RetentionMinutes = 24 * 60
	}
	v := &Vault{API: a, Path: "/subscriptions/" + subscription + "/resourceGroups/" + resourceGroup + "/providers/Microsoft.RecoveryServices/vaults/" + name}
	header, err := a.Do(ctx, http.MethodPut, v.Path, Object{"location": "here", "sku": Object{"name": "Standard"}, "properties": Object{}}, nil)
	if err != nil {
		return nil, err
	}
	if v.RecoveryKey = header.Get("Lifeboat-Recovery-Key"); v.RecoveryKey == "" {
		return nil, fmt.Errorf("the answer to the creation of vault %s has no recovery key", name)
	}
	v.Fabric = v.Path + "/replicationFabrics/home-site"
	identity := Object{"tenantId": "none", "applicationId": "none", "objectId": "none", "audience": "none", "aadAuthority": "none"}
	if err := v.run(ctx, http.MethodPut, v.Fabric, Object{"customDetails": Object{"instanceType": "InMageRcm", "vmwareSiteId": "none", "physicalSiteId": "none", "sourceAgentIdentity": identity}}); err != nil {
		return nil, err
	}
	containers, err := a.List(ctx, v.Fabric+"/replicationProtectionContainers")
	if err != nil {
		return nil, err
	}
	if len(containers) != 1 {
		return nil, fmt.Errorf("the site has %d containers, want 1", len(containers))
	}
	v.Container = v.Fabric + "/replicationProtectionContainers/" + Text(containers[0], "name")
	v.Policy = v.Path + "/replicationPolicies/minutely"
	if err := v.run(ctx, http.MethodPut, v.Policy, Object{"providerSpecificInput": Object{"instanceType": "InMageRcm",
		"crashConsistentFrequencyInMinutes": p.CrashConsistentMinutes, "appConsistentFrequencyInMinutes": 0, "recoveryPointHistoryInMinutes": p.RetentionMinutes, "enableMultiVmSync": "false"}}); err != nil {
		return nil, err
	}
	v.Back = v.Path + "/replicationPolicies/way-home"
	if err := v.run(ctx, http.MethodPut, v.Back, Object{"providerSpecificInput": Object{"instanceType": "InMageRcmFailback",
		"crashConsistentFrequencyInMinutes": p.CrashConsistentMinutes, "appConsistentFrequencyInMinutes": 0}}); err != nil {
		return nil, err
	}
	return v, v.run(ctx, http.MethodPut, v.Container+"/replicationProtectionContainerMappings/mapping", Object{"policyId": v.Policy, "targetProtectionContainerId": "Microsoft Azure"})
}

// RebuiltVaults returns the vaults that a catalogue rebuild put into lifeboatd's store, each with its protected machines. Their
// recovery keys are not known to anyone but the user.
func RebuiltVaults(ctx context.Context, a *API) (map[*Vault][]*Item, error) {
	vaults, err := a.List(ctx, "/subscriptions/00000000-0000-0000-0000-000000000000/providers/Microsoft.RecoveryServices/vaults")
	if err != nil {
		return nil, err
	}
	found := map[*Vault][]*Item{}
	for _, o := range vaults {
		v := &Vault{API: a, Path: Text(o, "id")}
		items, err := a.List(ctx, v.Path+"/replicationProtectedItems")
		if err != nil {
			return nil, err
		}
		found[v] = nil
		for _, it := range items {
			found[v] = append(found[v], &Item{Vault: v, Name: Text(it, "properties.friendlyName"), Path: Text(it, "id")})
		}
	}
	return found, nil
}

// run does a long-running operation to its end.
func (v *Vault) run(ctx context.Context, method, resource string, properties Object) error {
	var body any
	if properties != nil {
		body = Object{"properties": properties}
	}
	job, err := v.API.Start(ctx, method, resource, body)
	if err != nil {
		return err
	}
	_, err = v.Wait(ctx, job)
	return err
}

// Job reads a job.
func (v *Vault) Job(ctx context.Context, name string) (Job, error) {
	o, err := v.API.Get(ctx, v.Path+"/replicationJobs/"+name)
	if err != nil {
		return Job{}, err
	}
	j := Job{Name: name, Scenario: Text(o, "properties.scenarioName"), State: Text(o, "properties.state")}
	j.Started, _ = time.Parse(time.RFC3339, Text(o, "properties.startTime"))
	j.Ended, _ = time.Parse(time.RFC3339, Text(o, "properties.endTime"))
	j.Properties, _ = At(o, "properties").(Object)
	return j, nil
}

// Wait waits until the operation of a job has settled as clients see it, and returns the job. An operation that did not
// succeed is an error that tells what the job says.
func (v *Vault) Wait(ctx context.Context, name string) (Job, error) {
	var status string
	err := Until(ctx, "job "+name+" has settled", func() (bool, error) {
		o, err := v.API.Get(ctx, v.Path+"/replicationOperationStatus/"+name)
		if err != nil {
			return false, err
		}
		status = Text(o, "status")
		return status == "Succeeded" || status == "Failed" || status == "Canceled" || status == "Cancelled", nil
	})
	if err != nil {
		return Job{}, err
	}
	j, err := v.Job(ctx, name)
	if err == nil && status != "Succeeded" {
		err = fmt.Errorf("job %s (%s) ended as %s: %v", name, j.Scenario, status, j.Properties["errors"])
	}
	return j, err
}

// RegistrationKey makes a key with which an agent or a replicator enrols. The object also says where and whom to trust.
func (v *Vault) RegistrationKey(ctx context.Context, role string) (key, caSHA256, address string, err error) {
	var o Object
	_, err = v.API.Do(ctx, http.MethodPost, v.Fabric+"/generateRegistrationKey", Object{"properties": Object{"role": role}}, &o)
	return Text(o, "registrationKey"), Text(o, "caSha256"), Text(o, "controlAddress"), err
}

// MasterTarget returns the id of the replicator that was heard of last among those that reach a datastore of production
// machines, once there is one.
func (v *Vault) MasterTarget(ctx context.Context, datastore string) (id string, err error) {
	err = Until(ctx, "a master target reaches datastore "+datastore, func() (bool, error) {
		o, err := v.API.Get(ctx, v.Fabric)
		if err != nil {
			return false, err
		}
		heard := ""
		agents, _ := At(o, "properties.customDetails.reprotectAgents").([]any)
		for _, a := range agents {
			o, _ := a.(Object)
			stores, _ := o["accessibleDatastores"].([]any)
			if slices.Contains(stores, any(datastore)) && Text(o, "lastHeartbeatUtc") > heard {
				id, heard = Text(o, "id"), Text(o, "lastHeartbeatUtc")
			}
		}
		return id != "", nil
	})
	return id, err
}

// Discover adds a machine by address.
func (v *Vault) Discover(ctx context.Context, name, address string) error {
	return v.run(ctx, http.MethodPost, v.Container+"/discoverProtectableItem", Object{"friendlyName": name, "ipAddress": address, "osType": "Linux"})
}

// WaitProtectable waits until the machine's agent has enrolled and returns the path of its protectable item.
func (v *Vault) WaitProtectable(ctx context.Context, friendlyName string) (string, error) {
	var found string
	err := Until(ctx, "the agent of "+friendlyName+" has enrolled", func() (bool, error) {
		items, err := v.API.List(ctx, v.Container+"/replicationProtectableItems")
		if err != nil {
			return false, err
		}
		for _, o := range items {
			if strings.EqualFold(Text(o, "properties.friendlyName"), friendlyName) && Text(o, "properties.customDetails.agentGeneratedId") != "" {
				found = v.Container + "/replicationProtectableItems/" + Text(o, "name")
			}
		}
		return found != "", nil
	})
	return found, err
}

// Item drives one protected machine.
type Item struct {
	Vault *Vault
	Name  string
	Path  string
}

// Protect enables protection and waits until that job has ended.
func (v *Vault) Protect(ctx context.Context, name, protectable string, disks ...string) (*Item, error) {
	it := &Item{Vault: v, Name: name, Path: v.Container + "/replicationProtectedItems/" + name}
	details := Object{"instanceType": "InMageRcm", "fabricDiscoveryMachineId": protectable, "processServerId": "any", "targetResourceGroupId": "none", "targetVmName": name}
	if len(disks) > 0 {
		var include []Object
		for _, d := range disks {
			include = append(include, Object{"diskId": d, "logStorageAccountId": "none", "diskType": "Standard_LRS"})
		}
		details["disksToInclude"] = include
	}
	return it, v.run(ctx, http.MethodPut, it.Path, Object{"policyId": v.Policy, "protectableItemId": protectable, "providerSpecificDetails": details})
}

// Get reads the item.
func (it *Item) Get(ctx context.Context) (Object, error) { return it.Vault.API.Get(ctx, it.Path) }

// WaitState waits until the item's protectionState is the given one. progress, which may be nil, sees every look.
func (it *Item) WaitState(ctx context.Context, state string, progress func(Object)) error {
	last := ""
	err := Until(ctx, it.Name+" is "+state, func() (bool, error) {
		o, err := it.Get(ctx)
		if err != nil {
			return false, err
		}
		if progress != nil {
			progress(o)
		}
		last = Text(o, "properties.protectionState")
		return last == state, nil
	})
	if err != nil {
		return fmt.Errorf("%w (it is %s)", err, last)
	}
	return nil
}

// Point is a recovery point as the API tells it.
type Point struct {
	Path                     string
	Name                     string
	Time                     time.Time
	Generation, Sequence     int64
	ChangedBytes, StoredByte int64
}

// Points lists the item's points, newest first.
func (it *Item) Points(ctx context.Context) ([]Point, error) {
	list, err := it.Vault.API.List(ctx, it.Path+"/recoveryPoints")
	if err != nil {
		return nil, err
	}
	var points []Point
	for _, o := range list {
		p := Point{Name: Text(o, "name"), Generation: int64(Number(o, "properties.generation")), Sequence: int64(Number(o, "properties.sequence")),
			ChangedBytes: int64(Number(o, "properties.changedBytes")), StoredByte: int64(Number(o, "properties.storedBytes"))}
		p.Path = it.Path + "/recoveryPoints/" + p.Name
		if p.Time, err = time.Parse(time.RFC3339, Text(o, "properties.recoveryPointTime")); err != nil {
			return nil, fmt.Errorf("point %s: %w", p.Name, err)
		}
		points = append(points, p)
	}
	return points, nil
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

// Capture makes a recovery point now and returns it: the first one whose instant is after the call.
func (it *Item) Capture(ctx context.Context) (Point, error) {
	if _, err := it.do(ctx, "captureNow", nil); err != nil {
		return Point{}, err
	}
	return it.Newest(ctx)
}

// do starts an action of the item and waits until it has settled.
func (it *Item) do(ctx context.Context, action string, properties Object) (Job, error) {
	name, err := it.Begin(ctx, action, properties)
	if err != nil {
		return Job{}, err
	}
	return it.Vault.Wait(ctx, name)
}

// Begin starts an action of the item and returns the name of its job.
func (it *Item) Begin(ctx context.Context, action string, properties Object) (string, error) {
	var body any
	if properties != nil {
		body = Object{"properties": properties}
	}
	return it.Vault.API.Start(ctx, http.MethodPost, path.Join(it.Path, action), body)
}

// TestFailoverInput is the body of a drill from a point, the newest when its path is empty.
func TestFailoverInput(point string) Object {
	details := Object{"instanceType": "InMageRcm"}
	if point != "" {
		details["recoveryPointId"] = point
	}
	return Object{"failoverDirection": "PrimaryToRecovery", "networkType": "NoNetworkAttachAsInput", "providerSpecificDetails": details}
}

// TestFailover runs a drill until its machine is up.
func (it *Item) TestFailover(ctx context.Context, point string) (Job, error) {
	return it.do(ctx, "testFailover", TestFailoverInput(point))
}

// Cleanup ends the drill.
func (it *Item) Cleanup(ctx context.Context) (Job, error) {
	return it.do(ctx, "testFailoverCleanup", Object{"comments": "done"})
}

// UnplannedFailoverInput is the body of a failover from a point, the newest when its path is empty.
func UnplannedFailoverInput(point string) Object {
	details := Object{"instanceType": "InMageRcm", "performShutdown": "false"}
	if point != "" {
		details["recoveryPointId"] = point
	}
	return Object{"failoverDirection": "PrimaryToRecovery", "sourceSiteOperations": "NotRequired", "providerSpecificDetails": details}
}

// UnplannedFailover starts the machine at the recovery site.
func (it *Item) UnplannedFailover(ctx context.Context, point string) (Job, error) {
	return it.do(ctx, "unplannedFailover", UnplannedFailoverInput(point))
}

// ApplyPoint starts a failed-over machine from another point.
func (it *Item) ApplyPoint(ctx context.Context, point string) (Job, error) {
	return it.do(ctx, "applyRecoveryPoint", Object{"recoveryPointId": point, "providerSpecificDetails": Object{"instanceType": "InMageRcm", "recoveryPointId": point}})
}

// Commit accepts the failover.
func (it *Item) Commit(ctx context.Context) (Job, error) { return it.do(ctx, "failoverCommit", nil) }

// ReprotectHome replicates towards production, onto the machine in a datastore of the master target.
func (it *Item) ReprotectHome(ctx context.Context, masterTarget, datastore string) (Job, error) {
	return it.do(ctx, "reProtect", Object{"failoverDirection": "RecoveryToPrimary", "providerSpecificDetails": Object{"instanceType": "InMageRcm",
		"reprotectAgentId": masterTarget, "datastoreName": datastore, "logStorageAccountId": "none", "policyId": it.Vault.Back}})
}

// FailBackInput is the body of a planned failover home.
func FailBackInput() Object {
	return Object{"failoverDirection": "RecoveryToPrimary", "providerSpecificDetails": Object{"instanceType": "InMageRcmFailback", "recoveryPointType": "CrashConsistent"}}
}

// FailBack moves the machine home without loss.
func (it *Item) FailBack(ctx context.Context) (Job, error) {
	return it.do(ctx, "plannedFailover", FailBackInput())
}

// ReprotectAway replicates towards the recovery site again.
func (it *Item) ReprotectAway(ctx context.Context) (Job, error) {
	return it.do(ctx, "reProtect", Object{"failoverDirection": "PrimaryToRecovery", "providerSpecificDetails": Object{"instanceType": "InMageRcmFailback",
		"processServerId": "any", "policyId": it.Vault.Policy}})
}

// Remove ends the machine's protection and drops its points.
func (it *Item) Remove(ctx context.Context) error {
	_, err := it.do(ctx, "remove", Object{"disableProtectionReason": "NotSpecified", "replicationProviderInput": Object{"instanceType": "InMageRcm"}})
	return err
}

// Export writes disk images of a point into a directory on the replicator's host.
func (it *Item) Export(ctx context.Context, point Point, format, directory string) error {
	return it.Vault.run(ctx, http.MethodPost, point.Path+"/export", Object{"format": format, "directory": directory})
}

// Artifacts returns the files a job kept, by name.
func (v *Vault) Artifacts(ctx context.Context, job string) (map[string][]byte, error) {
	list, err := v.API.List(ctx, v.Path+"/replicationJobs/"+job+"/artifacts")
	if err != nil {
		return nil, err
	}
	files := map[string][]byte{}
	for _, o := range list {
		var content []byte
		if _, err := v.API.Do(ctx, http.MethodGet, v.Path+"/replicationJobs/"+job+"/artifacts/"+Text(o, "name"), nil, &content); err != nil {
			return nil, err
		}
		files[Text(o, "name")] = content
	}
	return files, nil
}
