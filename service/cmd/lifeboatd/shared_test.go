package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/arm"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/cloud"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/recoveryservices/armrecoveryservices"
	asr "github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/recoveryservices/armrecoveryservicessiterecovery/v2"

	"github.com/lifeboat-dr/lifeboat/service/control"
	"github.com/lifeboat-dr/lifeboat/service/keyfile"
	"github.com/lifeboat-dr/lifeboat/service/queue/queuetest"
	"github.com/lifeboat-dr/lifeboat/service/store"
	"github.com/lifeboat-dr/lifeboat/service/store/storetest"
)

// killing is how long replicas are killed, lives how many clients run at a time.
const (
	killing = 30 * time.Second
	lives   = 3
)

// TestAnotherKeyFileIsRefused starts a second process on a database with a key file of its own, and with none.
func TestAnotherKeyFileIsRefused(t *testing.T) {
	database := storetest.StartPostgres(t).URL
	first := start(t, t.TempDir(), "--no-replicator", "--database", database)
	refused := func(args ...string) string {
		t.Helper()
		c, err := parse(t, append([]string{"--listen", freeAddress(t), "--no-replicator", "--database", database}, args...)...)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		if err = run(ctx, c); err == nil {
			t.Fatal("it started")
		}
		return err.Error()
	}
	empty := t.TempDir()
	if got := refused("--data-dir", empty); !strings.Contains(got, "there is no key file") || !strings.Contains(got, "--key-file") {
		t.Errorf("without a key file: got %q", got)
	}
	if _, err := os.Stat(filepath.Join(empty, "secret.key")); err == nil {
		t.Error("a key file that nothing is sealed under was made")
	}
	other := filepath.Join(t.TempDir(), "other.key")
	seal, err := keyfile.Open(other)
	if err != nil {
		t.Fatal(err)
	}
	if err := seal.Close(); err != nil {
		t.Fatal(err)
	}
	if got := refused("--data-dir", t.TempDir(), "--key-file", other); !strings.Contains(got, other+" is not the key file") {
		t.Errorf("with another key file: got %q", got)
	}
	second := start(t, t.TempDir(), "--no-replicator", "--database", database, "--key-file", filepath.Join(first.dir, "secret.key"))
	if first.token() != second.token() {
		t.Error("the administrator has two tokens")
	}
	if status, _ := second.call("GET", vaults+"?api-version=2025-01-01", "", first.token()); status != http.StatusOK {
		t.Errorf("the first one's token at the second: got %d", status)
	}
}

// TestTwoReplicasServeAVaultWhileEitherIsKilled runs whole lives of machines through the Azure SDK against two replicas, one or
// the other of which is always dead or young.
func TestTwoReplicasServeAVaultWhileEitherIsKilled(t *testing.T) {
	database, redis := storetest.StartPostgres(t).URL, queuetest.StartRedis(t)
	key := filepath.Join(t.TempDir(), "shared.key")
	args := []string{"--database", database, "--redis", redis, "--key-file", key, "--bucket", "file://" + t.TempDir()}
	replicas := []*replica{newReplica(t, args...), newReplica(t, args...)}
	for _, r := range replicas {
		r.start()
		r.up()
	}
	var secrets [2]string
	for i, r := range replicas {
		raw, err := os.ReadFile(filepath.Join(r.dir, "admin.token"))
		if err != nil {
			t.Fatal(err)
		}
		secrets[i] = strings.TrimSpace(string(raw))
	}
	if secrets[0] != secrets[1] {
		t.Fatal("the replicas have different tokens for the administrator")
	}
	b := newBalancer(t, replicas[0].address, replicas[1].address)
	p := newPlay(t, database, redis, key)
	c := newClients(t, b, p, secrets[0])

	stop := make(chan struct{})
	var parts sync.WaitGroup
	for n := range lives {
		parts.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				if err := c.life(t.Context(), fmt.Sprintf("vm%d-%d", n, i)); err != nil {
					t.Errorf("life %d of client %d: %v", i, n, err)
					return
				}
			}
		})
	}
	// Lives ask seldom. These ask all the time, so that kills hit requests.
	looked := make(chan struct{})
	for range 2 {
		parts.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				case <-time.After(5 * time.Millisecond):
				}
				if err := c.look(t.Context(), i); err != nil {
					t.Errorf("look %d: %v", i, err)
					return
				}
				select {
				case looked <- struct{}{}:
				default:
				}
			}
		})
	}
	kills := 0
	for end := time.Now().Add(killing); time.Now().Before(end); kills++ {
		victim, other := replicas[kills%2], replicas[1-kills%2]
		const leads = `msg="engine leads"`
		led, from := victim.log.last(leads).After(other.log.last(leads)), other.log.size()
		victim.kill()
		if led && kills%4 < 2 { // dead for longer than its lease: the other one has to take over
			other.log.wait(t, from, leads, other.ended)
		}
		victim.start()
		victim.up()
		for range 20 {
			select {
			case <-looked:
			case <-time.After(time.Minute):
				t.Fatal("the clients' requests do not come through")
			}
		}
	}
	close(stop)
	parts.Wait()
	b.report(t)
	leaders := 0
	for _, r := range replicas {
		text, _ := r.log.read()
		leaders += strings.Count(text, `msg="engine leads"`)
	}
	if leaders < 3 || len(c.items) < lives {
		t.Errorf("there were %d leaders and %d lives: the test does not show what it should", leaders, len(c.items))
	}
	t.Logf("%d kills, %d leaders", kills, leaders)
	c.audit()
}

type staticToken string

func (s staticToken) GetToken(context.Context, policy.TokenRequestOptions) (azcore.AccessToken, error) {
	return azcore.AccessToken{Token: string(s), ExpiresOn: time.Now().Add(time.Hour)}, nil
}

// clients are users of the Azure SDK for Go.
type clients struct {
	t         *testing.T
	play      *play
	f         *asr.ClientFactory
	vaults    *armrecoveryservices.VaultsClient
	vault     string // its ID here
	container string

	mu    sync.Mutex // guards items
	items map[string]bool
}

const (
	sharedVault  = "/subscriptions/sub/resourceGroups/rg/providers/Microsoft.RecoveryServices/vaults/v1"
	sharedFabric = "site1"
)

// newClients makes a vault with a fabric, a policy and a mapping.
func newClients(t *testing.T, b *balancer, p *play, secret string) *clients {
	t.Helper()
	client := b.web.Client()
	client.Timeout = 30 * time.Second
	// A request whose answer was lost is repeated under its id, as Azure's own tools do. Nothing but a broken connection is tried
	// again.
	opt := &arm.ClientOptions{DisableRPRegistration: true, ClientOptions: policy.ClientOptions{Transport: client, PerCallPolicies: []policy.Policy{runtime.NewRequestIDPolicy()},
		Retry: policy.RetryOptions{MaxRetries: 40, RetryDelay: 50 * time.Millisecond, MaxRetryDelay: 500 * time.Millisecond, StatusCodes: []int{http.StatusBadGateway}},
		Cloud: cloud.Configuration{ActiveDirectoryAuthorityHost: "https://login.invalid/", Services: map[cloud.ServiceName]cloud.ServiceConfiguration{
			cloud.ResourceManager: {Endpoint: b.web.URL, Audience: "https://lifeboat.invalid"}}}}}
	cred := staticToken(secret)
	ctx := t.Context()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	vaults, err := armrecoveryservices.NewVaultsClient("sub", cred, opt)
	must(err)
	must(wait(vaults.BeginCreateOrUpdate(ctx, "rg", "v1", armrecoveryservices.Vault{Location: to.Ptr("here"), SKU: &armrecoveryservices.SKU{Name: to.Ptr(armrecoveryservices.SKUNameStandard)},
		Properties: &armrecoveryservices.VaultProperties{}}, nil))(ctx))
	f, err := asr.NewClientFactory("sub", cred, opt)
	must(err)
	c := &clients{t: t, play: p, f: f, vaults: vaults, items: map[string]bool{}}
	all, err := p.control.AllVaults(ctx)
	must(err)
	c.vault = all[0].ID
	must(wait(f.NewReplicationFabricsClient().BeginCreate(ctx, "rg", "v1", sharedFabric, asr.FabricCreationInput{Properties: &asr.FabricCreationInputProperties{
		CustomDetails: &asr.InMageRcmFabricCreationInput{InstanceType: to.Ptr("InMageRcm"), PhysicalSiteID: to.Ptr("p"), VmwareSiteID: to.Ptr("v"),
			SourceAgentIdentity: &asr.IdentityProviderInput{TenantID: to.Ptr("t"), ApplicationID: to.Ptr("a"), ObjectID: to.Ptr("o"), Audience: to.Ptr("u"), AADAuthority: to.Ptr("h")}}}}, nil))(ctx))
	page, err := f.NewReplicationProtectionContainersClient().NewListByReplicationFabricsPager("rg", "v1", sharedFabric, nil).NextPage(ctx)
	must(err)
	c.container = *page.Value[0].Name
	must(wait(f.NewReplicationPoliciesClient().BeginCreate(ctx, "rg", "v1", "p1", asr.CreatePolicyInput{Properties: &asr.CreatePolicyInputProperties{ProviderSpecificInput: &asr.InMageRcmPolicyCreationInput{
		InstanceType: to.Ptr("InMageRcm"), CrashConsistentFrequencyInMinutes: to.Ptr[int32](5), RecoveryPointHistoryInMinutes: to.Ptr[int32](1440)}}}, nil))(ctx))
	must(wait(f.NewReplicationProtectionContainerMappingsClient().BeginCreate(ctx, "rg", "v1", sharedFabric, c.container, "p1", asr.CreateProtectionContainerMappingInput{
		Properties: &asr.CreateProtectionContainerMappingInputProperties{PolicyID: to.Ptr(sharedVault + "/replicationPolicies/p1"), TargetProtectionContainerID: to.Ptr("Microsoft Azure")}}, nil))(ctx))
	return c
}

// wait polls an operation of the SDK to its end.
func wait[T any](p *runtime.Poller[T], err error) func(context.Context) error {
	return func(ctx context.Context) error {
		if err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(ctx, time.Minute)
		defer cancel()
		_, err := p.PollUntilDone(ctx, &runtime.PollUntilDoneOptions{Frequency: 100 * time.Millisecond})
		return err
	}
}

// life protects a machine, drills, fails it over, commits and removes it.
func (c *clients) life(ctx context.Context, name string) error {
	items := c.f.NewReplicationProtectedItemsClient()
	machine, err := c.play.add(ctx, c.vault, sharedFabric, name)
	if err != nil {
		return fmt.Errorf("enrol: %w", err)
	}
	c.mu.Lock()
	c.items[name] = true
	c.mu.Unlock()
	id := sharedVault + "/replicationFabrics/" + sharedFabric + "/replicationProtectionContainers/" + c.container + "/replicationProtectableItems/" + machine
	if err := wait(items.BeginCreate(ctx, "rg", "v1", sharedFabric, c.container, name, asr.EnableProtectionInput{Properties: &asr.EnableProtectionInputProperties{PolicyID: to.Ptr(sharedVault + "/replicationPolicies/p1"),
		ProtectableItemID: to.Ptr(id), ProviderSpecificDetails: &asr.InMageRcmEnableProtectionInput{InstanceType: to.Ptr("InMageRcm"), FabricDiscoveryMachineID: to.Ptr(id), ProcessServerID: to.Ptr("replicator-main"),
			TargetResourceGroupID: to.Ptr("/subscriptions/sub/resourceGroups/rg"), TargetVMName: to.Ptr(name + "-dr")}}}, nil))(ctx); err != nil {
		return fmt.Errorf("enable: %w", err)
	}
	if err := c.protected(ctx, name); err != nil {
		return err
	}
	if err := wait(items.BeginTestFailover(ctx, "rg", "v1", sharedFabric, c.container, name, asr.TestFailoverInput{Properties: &asr.TestFailoverInputProperties{FailoverDirection: to.Ptr("PrimaryToRecovery"),
		NetworkType: to.Ptr("NoNetworkAttachAsInput"), ProviderSpecificDetails: &asr.InMageRcmTestFailoverInput{InstanceType: to.Ptr("InMageRcm")}}}, nil))(ctx); err != nil {
		return fmt.Errorf("drill: %w", err)
	}
	if err := wait(items.BeginTestFailoverCleanup(ctx, "rg", "v1", sharedFabric, c.container, name, asr.TestFailoverCleanupInput{Properties: &asr.TestFailoverCleanupInputProperties{Comments: to.Ptr("fine")}}, nil))(ctx); err != nil {
		return fmt.Errorf("clean up: %w", err)
	}
	c.play.lose(name)
	if err := wait(items.BeginUnplannedFailover(ctx, "rg", "v1", sharedFabric, c.container, name, asr.UnplannedFailoverInput{Properties: &asr.UnplannedFailoverInputProperties{
		FailoverDirection: to.Ptr("PrimaryToRecovery"), SourceSiteOperations: to.Ptr("NotRequired"), ProviderSpecificDetails: &asr.InMageRcmUnplannedFailoverInput{InstanceType: to.Ptr("InMageRcm"), PerformShutdown: to.Ptr("false")}}}, nil))(ctx); err != nil {
		return fmt.Errorf("fail over: %w", err)
	}
	if err := wait(items.BeginFailoverCommit(ctx, "rg", "v1", sharedFabric, c.container, name, nil))(ctx); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	if err := wait(items.BeginDelete(ctx, "rg", "v1", sharedFabric, c.container, name, asr.DisableProtectionInput{Properties: &asr.DisableProtectionInputProperties{
		DisableProtectionReason: to.Ptr(asr.DisableProtectionReasonNotSpecified), ReplicationProviderInput: &asr.DisableProtectionProviderSpecificInput{InstanceType: to.Ptr("DisableProtectionProviderSpecificInput")}}}, nil))(ctx); err != nil {
		return fmt.Errorf("remove: %w", err)
	}
	return nil
}

// look reads lists and changes the vault's tags in turn.
func (c *clients) look(ctx context.Context, i int) error {
	switch i % 3 {
	case 0:
		_, err := c.f.NewReplicationProtectedItemsClient().NewListPager("rg", "v1", nil).NextPage(ctx)
		return err
	case 1:
		_, err := c.f.NewReplicationJobsClient().NewListPager("rg", "v1", &asr.ReplicationJobsClientListOptions{Filter: to.Ptr("JobStatus eq 'InProgress'")}).NextPage(ctx)
		return err
	}
	return wait(c.vaults.BeginUpdate(ctx, "rg", "v1", armrecoveryservices.PatchVault{Tags: map[string]*string{"looks": to.Ptr(fmt.Sprint(i))}}, nil))(ctx)
}

// protected waits until the item is.
func (c *clients) protected(ctx context.Context, name string) error {
	items := c.f.NewReplicationProtectedItemsClient()
	tick, end := time.NewTicker(100*time.Millisecond), time.After(time.Minute)
	defer tick.Stop()
	for {
		got, err := items.Get(ctx, "rg", "v1", sharedFabric, c.container, name, nil)
		if err != nil {
			return fmt.Errorf("get: %w", err)
		}
		state := *got.Properties.ProtectionState
		if state == "Protected" {
			return nil
		}
		select { // a client has no way to be told
		case <-tick.C:
		case <-end:
			return fmt.Errorf("the item is still %s", state)
		}
	}
}

// scenarios are the jobs of one life, each once.
var scenarios = []string{"EnableProtection", "TestFailover", "TestFailoverCleanup", "UnplannedFailover", "CommitFailover", "DisableProtection"}

// audit looks at the jobs after all clients are done: each was done once, none is lost or hangs.
func (c *clients) audit() {
	t, ctx := c.t, c.t.Context()
	count := map[string]map[string]int{} // of each machine's jobs by scenario
	removal := map[string]string{}       // of each machine: the job's name
	var jobs []*asr.Job
	for pager := c.f.NewReplicationJobsClient().NewListPager("rg", "v1", nil); pager.More(); {
		page, err := pager.NextPage(ctx)
		if err != nil {
			t.Fatal(err)
		}
		jobs = append(jobs, page.Value...)
	}
	for _, j := range jobs {
		of, scenario := *j.Properties.TargetObjectName, *j.Properties.ScenarioName
		if count[of] == nil {
			count[of] = map[string]int{}
		}
		count[of][scenario]++
		if scenario == "DisableProtection" {
			removal[of] = *j.Name
		}
	}
	for _, j := range jobs {
		of, scenario, state, errs := *j.Properties.TargetObjectName, *j.Properties.ScenarioName, *j.Properties.State, j.Properties.Errors
		// The removal takes over from a commit that still waits for the copy of the disks.
		takenOver := scenario == "CommitFailover" && state == "Cancelled" && len(errs) == 1 && strings.Contains(*errs[0].ServiceErrorDetails.Message, removal[of])
		if state != "Succeeded" && !takenOver {
			t.Errorf("job %s %s of %s is %s: %v", scenario, *j.Name, of, state, errs)
		}
	}
	for name := range c.items {
		for _, s := range scenarios {
			if n := count[name][s]; n != 1 {
				t.Errorf("%s has %d jobs of scenario %s, want 1: %v", name, n, s, count[name])
			}
		}
	}
	c.play.mu.Lock()
	for task, n := range c.play.tasks {
		if n != 1 {
			t.Errorf("task %s was given to a worker %d times", task, n)
		}
	}
	tasks := len(c.play.tasks)
	c.play.mu.Unlock()
	if err := c.play.store.View(ctx, func(tx store.Tx) error {
		open, err := control.OpenJobs(tx)
		if len(open) > 0 {
			t.Errorf("jobs %v are still open", open)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d lives, %d jobs, %d tasks", len(c.items), len(jobs), tasks)
}
