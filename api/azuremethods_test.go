package api

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"math/big"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/service/control"
	"github.com/lifeboat-dr/lifeboat/service/dr"
)

const sweepTable = "../docs/sdk-methods.md"

func TestEveryMethodOfTheAzureSDKIsCalledAndItsResultDecoded(t *testing.T) {
	t.Parallel()
	s, st := newStage(t)
	w := newSweep(t, s)
	w.words["vault"] = vaultURL
	l := &sweptLife{sweep: w, s: s, st: st}
	l.vaultBegins()
	l.fabrics()
	l.policies()
	l.containers()
	l.mappings()
	l.inventory(t)
	l.vcenters()
	l.settings()
	l.protect()
	l.refusedActions()
	l.failOver()
	l.goHome()
	l.plan()
	l.planAway()
	l.jobs()
	l.clusters()
	l.migration()
	l.cleanUp()
	l.vaultEnds()
	w.finish(sweepTable)
}

// sweptLife is the life of a vault and all that is in it, method by method.
type sweptLife struct {
	*sweep
	s  *site
	st *stage
}

func (l *sweptLife) vaultBegins() {
	const c = "recoveryservices."
	l.ok(c + "Operations.NewListPager")
	l.ok(c+".CheckNameAvailability", "rg", "here", `{"name":"v1","type":"Microsoft.RecoveryServices/Vaults"}`)
	l.ok(c+".Capabilities", "here", `{"type":"Microsoft.RecoveryServices/Vaults","properties":{"dnsZones":[{"subResource":"AzureSiteRecovery"}]}}`)
	l.ok(c+"Vaults.BeginCreateOrUpdate", "rg", "v1", `{"location":"here","sku":{"name":"Standard"},"properties":{},"tags":{"team":"ops"}}`)
	l.ok(c+"Vaults.Get", "rg", "v1")
	l.ok(c+"Vaults.NewListByResourceGroupPager", "rg")
	l.ok(c + "Vaults.NewListBySubscriptionIDPager")
	l.ok(c+"Vaults.BeginUpdate", "rg", "v1", `{"tags":{"team":"dr"}}`)
	l.ok(c+"VaultExtendedInfo.CreateOrUpdate", "rg", "v1", `{"properties":{"integrityKey":"a2V5","algorithm":"None"}}`)
	l.ok(c+"VaultExtendedInfo.Update", "rg", "v1", `{"properties":{"encryptionKeyThumbprint":"AB12"}}`)
	l.ok(c+"VaultExtendedInfo.Get", "rg", "v1")
	l.ok(c+"VaultCertificates.Create", "rg", "v1", "credential", `{"properties":{"authType":"AAD","certificate":"`+certificate(l.t)+`"}}`)
	l.ok(c+"Usages.NewListByVaultsPager", "rg", "v1")
	l.ok(c+"ReplicationUsages.NewListPager", "rg", "v1")
	l.ok(c+"PrivateLinkResources.NewListPager", "rg", "v1")
	l.no("404 NotFound", c+"PrivateLinkResources.Get", "rg", "v1", "backup")
}

// certificate is one as a client uploads it: base64 of DER.
func certificate(t *testing.T) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now(), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return base64.StdEncoding.EncodeToString(der)
}

const identityIn = `{"tenantId":"t","applicationId":"a","objectId":"o","audience":"u","aadAuthority":"h"}`

func (l *sweptLife) fabrics() {
	const c = "siterecovery.ReplicationFabrics."
	l.ok("siterecovery.Operations.NewListPager", "rg")
	create := func(name, details string) {
		l.t.Helper()
		made := l.ok(c+"BeginCreate", "rg", "v1", name, `{"properties":{"customDetails":`+details+`}}`)
		if made.at("name") != name || made.at("properties.customDetails.instanceType") == nil {
			l.t.Errorf("got fabric %s", made)
		}
	}
	create(fabricName, `{"instanceType":"InMageRcm","physicalSiteId":"p","vmwareSiteId":"v","sourceAgentIdentity":`+identityIn+`}`)
	for _, region := range []string{"east", "west", "north"} {
		create(region, `{"instanceType":"Azure","location":"`+region+`"}`)
	}
	create("site2", `{"instanceType":"InMageRcm","physicalSiteId":"p2","vmwareSiteId":"v2","sourceAgentIdentity":`+identityIn+`}`)
	for _, name := range []string{"cloud1", "cloud2"} {
		create(name, `{"instanceType":"VMM"}`)
	}
	l.ok(c+"Get", "rg", "v1", fabricName)
	l.ok(c+"NewListPager", "rg", "v1")
	l.ok(c+"BeginCheckConsistency", "rg", "v1", fabricName)
	l.no("501 NotImplemented", c+"BeginMigrateToAAD", "rg", "v1", fabricName)
	l.ok(c+"BeginRenewCertificate", "rg", "v1", fabricName, `{"properties":{"renewCertificateType":"Cloud"}}`)
}

func (l *sweptLife) policies() {
	const c = "siterecovery.ReplicationPolicies."
	for name, in := range map[string]string{
		"p1":      `{"instanceType":"InMageRcm","crashConsistentFrequencyInMinutes":5,"recoveryPointHistoryInMinutes":1440}`,
		"back":    `{"instanceType":"InMageRcmFailback","crashConsistentFrequencyInMinutes":5,"appConsistentFrequencyInMinutes":60}`,
		"regions": `{"instanceType":"A2A","multiVmSyncStatus":"Enable","recoveryPointHistory":1440}`,
	} {
		l.ok(c+"BeginCreate", "rg", "v1", name, `{"properties":{"providerSpecificInput":`+in+`}}`)
	}
	l.ok(c+"BeginUpdate", "rg", "v1", "p1", `{"properties":{"replicationProviderSettings":{"instanceType":"InMageRcm","crashConsistentFrequencyInMinutes":10}}}`)
	l.ok(c+"Get", "rg", "v1", "p1")
	l.ok(c+"NewListPager", "rg", "v1")
}

func (l *sweptLife) containers() {
	const c = "siterecovery.ReplicationProtectionContainers."
	for _, region := range []string{"east", "west"} {
		l.ok(c+"BeginCreate", "rg", "v1", region, region+"1", `{"properties":{"providerSpecificInput":[{"instanceType":"A2A"}]}}`)
	}
	l.words["container"] = l.ok(c+"NewListByReplicationFabricsPager", "rg", "v1", fabricName).at("value.0.name").(string)
	l.ok(c+"NewListPager", "rg", "v1")
	l.ok(c+"Get", "rg", "v1", fabricName, "$container")
	l.ok(c+"BeginDiscoverProtectableItem", "rg", "v1", fabricName, "$container", `{"properties":{"friendlyName":"web01","ipAddress":"192.0.2.10","osType":"Linux"}}`)
}

func (l *sweptLife) mappings() {
	const c = "siterecovery.ReplicationProtectionContainerMappings."
	for _, name := range []string{"p1", "back"} {
		l.ok(c+"BeginCreate", "rg", "v1", fabricName, "$container", name, `{"properties":{"policyId":"$vault/replicationPolicies/`+name+`","targetProtectionContainerId":"Microsoft Azure"}}`)
	}
	l.ok(c+"BeginCreate", "rg", "v1", "east", "east1", "m", `{"properties":{"policyId":"$vault/replicationPolicies/regions","targetProtectionContainerId":"$vault/replicationFabrics/west/replicationProtectionContainers/west1",
		"providerSpecificInput":{"instanceType":"A2A","agentAutoUpdateStatus":"Disabled"}}}`)
	l.ok(c+"BeginUpdate", "rg", "v1", "east", "east1", "m", `{"properties":{"providerSpecificInput":{"instanceType":"A2A","agentAutoUpdateStatus":"Disabled"}}}`)
	l.ok(c+"Get", "rg", "v1", "east", "east1", "m")
	l.ok(c+"NewListPager", "rg", "v1")
	l.ok(c+"NewListByReplicationProtectionContainersPager", "rg", "v1", "east", "east1")
}

// inventory is what sites consist of besides machines: what replicators of two management servers see, and how it is mapped.
func (l *sweptLife) inventory(t *testing.T) {
	vault, err := l.s.control.Vault(t.Context(), dr.VaultKey{Subscription: "sub", ResourceGroup: "rg", Name: "v1"})
	if err != nil {
		t.Fatal(err)
	}
	for _, fabric := range []string{"cloud1", "cloud2"} {
		err := l.s.control.Discovered(t.Context(), control.Ref{Vault: vault.ID, Fabric: fabric}, dr.Inventory{
			Networks:        []dr.Network{{Meta: dr.Meta{Name: "lan"}, FriendlyName: "LAN", Type: "Vlan", Subnets: []dr.Subnet{{Name: "a", FriendlyName: "A", Ranges: []string{"192.0.2.0/24"}}}}},
			LogicalNetworks: []dr.LogicalNetwork{{Meta: dr.Meta{Name: "logical"}, FriendlyName: "Logical", Virtualization: "Enabled", Usage: "NotInUse", Definitions: "Valid"}}, StorageClassifications: []dr.StorageClassification{{Meta: dr.Meta{Name: "gold"}, FriendlyName: "Gold"}}})
		if err != nil {
			t.Fatal(err)
		}
	}
	l.ok("siterecovery.ReplicationNetworks.NewListPager", "rg", "v1")
	l.ok("siterecovery.ReplicationNetworks.NewListByReplicationFabricsPager", "rg", "v1", "cloud1")
	l.ok("siterecovery.ReplicationNetworks.Get", "rg", "v1", "cloud1", "lan")
	const n = "siterecovery.ReplicationNetworkMappings."
	l.ok(n+"BeginCreate", "rg", "v1", "cloud1", "lan", "away", `{"properties":{"recoveryFabricName":"cloud2","recoveryNetworkId":"$vault/replicationFabrics/cloud2/replicationNetworks/lan","fabricSpecificDetails":{"instanceType":"VmmToVmm"}}}`)
	l.ok(n+"BeginCreate", "rg", "v1", "east", "azureNetwork", "west", `{"properties":{"recoveryFabricName":"west","recoveryNetworkId":"/networks/w","fabricSpecificDetails":{"instanceType":"AzureToAzure","primaryNetworkId":"/networks/e"}}}`)
	l.ok(n+"BeginUpdate", "rg", "v1", "east", "azureNetwork", "west", `{"properties":{"recoveryFabricName":"west","recoveryNetworkId":"/networks/w2","fabricSpecificDetails":{"instanceType":"AzureToAzure","primaryNetworkId":"/networks/e"}}}`)
	l.ok(n+"Get", "rg", "v1", "cloud1", "lan", "away")
	l.ok(n+"NewListPager", "rg", "v1")
	l.ok(n+"NewListByReplicationNetworksPager", "rg", "v1", "cloud1", "lan")
	l.ok(n+"BeginDelete", "rg", "v1", "cloud1", "lan", "away")

	l.ok("siterecovery.ReplicationLogicalNetworks.NewListByReplicationFabricsPager", "rg", "v1", "cloud1")
	l.ok("siterecovery.ReplicationLogicalNetworks.Get", "rg", "v1", "cloud1", "logical")

	l.ok("siterecovery.ReplicationStorageClassifications.NewListPager", "rg", "v1")
	l.ok("siterecovery.ReplicationStorageClassifications.NewListByReplicationFabricsPager", "rg", "v1", "cloud1")
	l.ok("siterecovery.ReplicationStorageClassifications.Get", "rg", "v1", "cloud1", "gold")
	const m = "siterecovery.ReplicationStorageClassificationMappings."
	l.ok(m+"BeginCreate", "rg", "v1", "cloud1", "gold", "away", `{"properties":{"targetStorageClassificationId":"$vault/replicationFabrics/cloud2/replicationStorageClassifications/gold"}}`)
	l.ok(m+"Get", "rg", "v1", "cloud1", "gold", "away")
	l.ok(m+"NewListPager", "rg", "v1")
	l.ok(m+"NewListByReplicationStorageClassificationsPager", "rg", "v1", "cloud1", "gold")
	l.ok(m+"BeginDelete", "rg", "v1", "cloud1", "gold", "away")
}

func (l *sweptLife) vcenters() {
	const c = "siterecovery.ReplicationvCenters."
	l.ok(c+"BeginCreate", "rg", "v1", fabricName, "vc1", `{"properties":{"friendlyName":"vc1","ipAddress":"192.0.2.20","port":"443","runAsAccountId":"admin"}}`)
	l.ok(c+"BeginUpdate", "rg", "v1", fabricName, "vc1", `{"properties":{"friendlyName":"vc one","port":"8443"}}`)
	l.ok(c+"Get", "rg", "v1", fabricName, "vc1")
	l.ok(c+"NewListPager", "rg", "v1")
	l.ok(c+"NewListByReplicationFabricsPager", "rg", "v1", fabricName)
	l.ok(c+"BeginDelete", "rg", "v1", fabricName, "vc1")
}

// settings are what hangs on the vault itself.
func (l *sweptLife) settings() {
	l.ok("siterecovery.ReplicationAlertSettings.Create", "rg", "v1", "defaultAlertSetting", `{"properties":{"sendToOwners":"DoNotSend","customEmailAddresses":["ops@example.org"],"locale":"en-US"}}`)
	l.ok("siterecovery.ReplicationAlertSettings.Get", "rg", "v1", "defaultAlertSetting")
	l.ok("siterecovery.ReplicationAlertSettings.NewListPager", "rg", "v1")
	l.ok("siterecovery.ReplicationVaultSetting.BeginCreate", "rg", "v1", "default", `{"properties":{"migrationSolutionId":"none","vmwareToAzureProviderType":"InMageRcm"}}`)
	l.ok("siterecovery.ReplicationVaultSetting.Get", "rg", "v1", "default")
	l.ok("siterecovery.ReplicationVaultSetting.NewListPager", "rg", "v1")
	l.ok("siterecovery.ReplicationVaultHealth.Get", "rg", "v1")
	l.ok("siterecovery.ReplicationVaultHealth.BeginRefresh", "rg", "v1")
	l.ok("siterecovery.SupportedOperatingSystems.Get", "rg", "v1")
	l.ok("siterecovery.ReplicationAppliances.NewListPager", "rg", "v1")
	l.ok("siterecovery.ReplicationProtectionIntents.Create", "rg", "v1", "wish", `{"properties":{"providerSpecificDetails":{"instanceType":"A2A","fabricObjectId":"/machines/later","primaryLocation":"east","recoveryLocation":"west",
		"recoverySubscriptionId":"sub","recoveryResourceGroupId":"rg","recoveryAvailabilityType":"Single"}}}`)
	l.ok("siterecovery.ReplicationProtectionIntents.Get", "rg", "v1", "wish")
	l.ok("siterecovery.ReplicationProtectionIntents.NewListPager", "rg", "v1")
}
