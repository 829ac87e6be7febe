package api

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"fmt"
	"math/big"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/service/dr"
)

func TestSettingsAreKept(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.must(201, "PUT", vaultURL, vaultIn)
	at := vaultURL + "/replicationAlertSettings/defaultAlertSetting"
	if a := s.must(200, "GET", at, ""); a.at("properties.sendToOwners") != "DoNotSend" || a.at("properties.customEmailAddresses.0") != nil {
		t.Errorf("before the first PUT nobody is mailed; got %s", a)
	}
	a := s.must(200, "PUT", at, `{"properties":{"sendToOwners":"Send","customEmailAddresses":["a@example.net"],"locale":""}}`)
	if a.at("properties.customEmailAddresses.0") != "a@example.net" || a.at("properties.locale") != "en-US" || a.header.Get("Location") != "" {
		t.Errorf("got %s", a)
	}
	if a := s.must(200, "GET", vaultURL+"/replicationAlertSettings", ""); a.at("value.0.properties.sendToOwners") != "Send" {
		t.Errorf("got %s", a)
	}
	s.refusedWith(400, "mail address", "PUT", at, `{"properties":{"customEmailAddresses":["a@example.net\r\nBcc: b@example.net"]}}`)
	s.refusedWith(400, "addresses", "PUT", at, `{"properties":{"customEmailAddresses":["a@b"`+strings.Repeat(`,"a@b"`, 50)+`]}}`)
	s.refusedWith(400, "alert setting", "PUT", vaultURL+"/replicationAlertSettings/other", `{"properties":{}}`)

	at = vaultURL + "/replicationVaultSettings/default"
	if a := s.must(200, "PUT", at, `{"properties":{"vmwareToAzureProviderType":"Vmware"}}`); a.header.Get("Azure-AsyncOperation") != "" {
		t.Errorf("got %v", a.header)
	}
	for _, path := range []string{at, vaultURL + "/replicationVaultSettings"} {
		if a := s.must(200, "GET", path, ""); a.at("properties.vmwareToAzureProviderType") != "Vmware" && a.at("value.0.properties.vmwareToAzureProviderType") != "Vmware" {
			t.Errorf("got %s", a)
		}
	}
}

func TestAVaultKeepsWhatClientsSayAndItsVersion(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	in := `{"location":"here","sku":{"name":"Standard"},"identity":{"type":"SystemAssigned"},"properties":{"publicNetworkAccess":"Disabled","provisioningState":"Failed","securitySettings":{"softDeleteSettings":{"softDeleteState":"Enabled"}}}}`
	a := s.send(RoleContributor, "PUT", vaultURL, in, "If-None-Match", "*")
	if a.status != 201 || a.at("properties.publicNetworkAccess") != "Disabled" || a.at("properties.provisioningState") != "Succeeded" || a.at("identity.type") != "SystemAssigned" ||
		a.at("properties.securitySettings.softDeleteSettings.softDeleteState") != "Enabled" {
		t.Fatalf("got %s", a)
	}
	first := a.at("etag").(string)
	a = s.send(RoleContributor, "PATCH", vaultURL, `{"properties":{"publicNetworkAccess":"Enabled"},"tags":{"a":"b"}}`, "If-Match", first)
	if a.status != 200 || a.at("etag") == first || a.at("properties.publicNetworkAccess") != "Enabled" || a.at("properties.securitySettings.softDeleteSettings.softDeleteState") != "Enabled" || a.at("tags.a") != "b" {
		t.Fatalf("got %s", a)
	}
	for _, test := range []struct{ method, header, value string }{{"PUT", "If-Match", first}, {"PATCH", "If-Match", first}, {"DELETE", "If-Match", first}, {"DELETE", "If-Match", `"other"`}, {"PUT", "If-None-Match", "*"}} {
		body := vaultIn
		if test.method == "DELETE" {
			body = ""
		}
		if a := s.send(RoleContributor, test.method, vaultURL, body, test.header, test.value); a.status != http.StatusPreconditionFailed {
			t.Errorf("%s with %s %s: got %s", test.method, test.header, test.value, a)
		}
	}
	if a := s.send(RoleContributor, "PUT", groupPath+"/absent", vaultIn, "If-Match", "*"); a.status != http.StatusPreconditionFailed {
		t.Errorf("got %s", a)
	}
	if a := s.send(RoleContributor, "DELETE", vaultURL+"?api-version=2023-04-01", "", "If-Match", a.at("etag").(string)); a.status != 200 {
		t.Errorf("got %s", a)
	}
	if a := s.send(RoleContributor, "DELETE", vaultURL+"?api-version=2024-04-01", ""); a.status != 204 {
		t.Errorf("got %s", a)
	}
}

func TestExtendedInfoIsKeptSealedForContributors(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.must(201, "PUT", vaultURL, vaultIn)
	at := vaultURL + "/extendedInformation/vaultExtendedInfo"
	if a := s.send(RoleReader, "GET", at, ""); a.status != 404 {
		t.Errorf("got %s", a)
	}
	s.must(200, "PUT", at, `{"properties":{"integrityKey":"c2VjcmV0","algorithm":"None"}}`)
	s.must(200, "PATCH", at, `{"properties":{"encryptionKeyThumbprint":"ab"}}`)
	if a := s.must(200, "GET", at, ""); a.at("properties.integrityKey") != "c2VjcmV0" || a.at("properties.encryptionKeyThumbprint") != "ab" || a.at("etag") != `W/"2"` {
		t.Errorf("got %s", a)
	}
	if a := s.send(RoleReader, "GET", at, ""); a.status != 200 || a.at("properties.integrityKey") != nil || a.at("properties.algorithm") != "None" {
		t.Errorf("a reader got %s", a)
	}
}

func selfSigned(t *testing.T) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "upload"}, NotBefore: time.Now(), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func TestCredentialsAreTakenAndDropped(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	c := s.furnish()
	machine, agent := s.enrol(c)
	at := vaultURL + "/certificates/upload"
	in := `{"properties":{"authType":"AAD","certificate":"` + base64.StdEncoding.EncodeToString(selfSigned(t)) + `"}}`
	a := s.must(200, "PUT", at, in)
	if a.at("properties.authType") != "AzureActiveDirectory" || a.at("properties.subject") != "CN=upload" || len(a.at("properties.thumbprint").(string)) != 40 || a.at("properties.aadAuthority") != s.web.URL {
		t.Errorf("got %s", a)
	}
	s.refusedWith(400, "X.509", "PUT", at, `{"properties":{"certificate":"AAAA"}}`)
	for range 2 {
		s.must(204, "DELETE", vaultURL+"/registeredIdentities/upload", "")
	}
	item := c + "/replicationProtectedItems/web01"
	s.must(202, "PUT", item, enableIn(machine))
	s.refusedWith(409, "web01", "DELETE", vaultURL+"/registeredIdentities/"+agent, "")
	s.must(202, "DELETE", item, "")
}

func TestEligibilityNamesWhatStandsInTheWay(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	c := s.furnish()
	at := "/subscriptions/sub/resourceGroups/rg/providers/Microsoft.Compute/virtualMachines/WEB01/providers/Microsoft.RecoveryServices/replicationEligibilityResults"
	if a := s.send(RoleReader, "GET", at, ""); a.status != 404 {
		t.Errorf("got %s", a)
	}
	s.finish(s.must(202, "POST", c+"/discoverProtectableItem", `{"properties":{"friendlyName":"web01","ipAddress":"192.0.2.10","osType":"Linux"}}`), "Succeeded")
	if a := s.must(200, "GET", at+"/default", ""); a.at("properties.errors.0.code") != "AgentMissing" {
		t.Errorf("got %s", a)
	}
	machine, _ := s.enrol(c)
	if a := s.must(200, "GET", at, ""); a.at("value.0.properties.errors.0") != nil {
		t.Errorf("got %s", a)
	}
	s.must(202, "PUT", c+"/replicationProtectedItems/web01", enableIn(machine))
	if a := s.must(200, "GET", at+"/default", ""); a.at("properties.errors.0.code") != "AlreadyProtected" {
		t.Errorf("got %s", a)
	}
	sizes := s.must(200, "GET", c+"/replicationProtectedItems/web01/targetComputeSizes", "")
	if sizes.at("value.0.name") != "2cpu-1024MB" || sizes.at("value.1.name") != "1cpu-1024MB" {
		t.Errorf("the machine's own size comes first, then the smallest; got %s", sizes)
	}
}

func TestIntentsWaitForTheirMachine(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.must(201, "PUT", vaultURL, vaultIn)
	at := vaultURL + "/replicationProtectionIntents/web01"
	in := func(from, to string) string {
		return fmt.Sprintf(`{"properties":{"providerSpecificDetails":{"instanceType":"A2A","fabricObjectId":"/x/web01","primaryLocation":%q,"recoveryLocation":%q,"recoverySubscriptionId":"sub","recoveryResourceGroupId":"rg","recoveryAvailabilityType":"single","protectionProfileCustomInput":{"resourceType":"Existing","protectionProfileId":"p"}}}}`, from, to)
	}
	s.refusedWith(400, "primaryLocation", "PUT", at, in("eastern", "western"))
	s.fabricOf("east", `{"instanceType":"Azure","location":"eastern"}`)
	s.fabricOf("west", `{"instanceType":"Azure","location":"western"}`)
	s.refusedWith(400, "both sides", "PUT", at, in("eastern", "Eastern"))
	for range 2 {
		a := s.must(200, "PUT", at, in("eastern", "western"))
		if a.at("properties.isActive") != true || a.at("properties.jobState") != "NotStarted" || a.at("properties.providerSpecificDetails.protectionProfile.protectionProfileId") != "p" ||
			a.at("properties.providerSpecificDetails.recoveryAvailabilityType") != "Single" {
			t.Errorf("got %s", a)
		}
	}
	if a := s.must(200, "GET", at, ""); !strings.Contains(fmt.Sprint(a.at("properties.waitingFor")), "web01") {
		t.Errorf("the intent does not say what it waits for: %s", a)
	}
	if a := s.must(200, "GET", vaultURL+"/replicationProtectionIntents?takeToken=1", ""); a.at("value.0.name") != "web01" || a.at("nextLink") != nil {
		t.Errorf("got %s", a)
	}
}

func TestAnIntentIsCarriedOutWhenItsMachineEnrols(t *testing.T) {
	t.Parallel()
	s, d := newLegDriver(t)
	ctx, cancel := context.WithCancel(t.Context())
	var kept sync.WaitGroup
	kept.Go(func() { s.control.KeepIntents(ctx) })
	kept.Go(func() { s.control.KeepIntents(ctx) }) // as another lifeboatd on the store would
	t.Cleanup(func() { cancel(); kept.Wait() })
	s.must(201, "PUT", vaultURL, vaultIn)
	for n, region := range []string{"eastern", "western"} {
		fabric := s.fabricOf(fmt.Sprint("site", n+1), fmt.Sprintf(`{"instanceType":"Azure","location":%q}`, region))
		s.must(202, "PUT", fmt.Sprintf("%s/replicationProtectionContainers/c%d", fabric, n+1), `{"properties":{"providerSpecificInput":[{"instanceType":"A2A"}]}}`)
	}
	put := func(name, machine string) string {
		t.Helper()
		at := vaultURL + "/replicationProtectionIntents/" + name
		s.must(200, "PUT", at, fmt.Sprintf(`{"properties":{"providerSpecificDetails":{"instanceType":"A2A","fabricObjectId":"/x/%s","primaryLocation":"eastern","recoveryLocation":"western","recoverySubscriptionId":"sub","recoveryResourceGroupId":"rg","recoveryAvailabilityType":"Single"}}}`, machine))
		return at
	}
	at, other := put("wish", "web01"), put("dream", "web02")
	waits := func(at, words string) {
		t.Helper()
		eventually(t, func() (bool, string) {
			a := s.must(200, "GET", at, "")
			why, _ := a.at("properties.waitingFor").(string)
			return a.at("properties.isActive") == true && a.at("properties.jobState") == "NotStarted" && strings.Contains(why, words), a.String()
		})
	}
	waits(at, "no machine web01")
	s.enrol(fabricURL + "/replicationProtectionContainers/c1")
	waits(at, "no policy") // the machine is known; what else it takes is not there yet
	if a := s.must(200, "GET", vaultURL+"/replicationEvents", ""); !strings.Contains(a.String(), "Protection intent wish cannot be carried out") {
		t.Errorf("no event tells of the intent: %s", a)
	}
	s.must(202, "PUT", vaultURL+"/replicationPolicies/p1", `{"properties":{"providerSpecificInput":{"instanceType":"A2A","multiVmSyncStatus":"Enable"}}}`)
	s.must(202, "PUT", fabricURL+"/replicationProtectionContainers/c1/replicationProtectionContainerMappings/m1", fmt.Sprintf(
		`{"properties":{"policyId":"%s/replicationPolicies/p1","targetProtectionContainerId":"%s/replicationFabrics/site2/replicationProtectionContainers/c2"}}`, vaultURL, vaultURL))
	eventually(t, func() (bool, string) {
		a := s.must(200, "GET", at, "")
		return a.at("properties.isActive") == false && a.at("properties.jobState") == "Succeeded" && a.at("properties.waitingFor") == nil && a.at("properties.jobId") != nil, a.String()
	})
	s.until(fabricURL+"/replicationProtectionContainers/c1/replicationProtectedItems/wish", "properties.protectionState", "Protected")
	waits(other, "no machine web02")
	d.mu.Lock()
	defer d.mu.Unlock()
	if n := strings.Count(strings.Join(d.did, ","), string(dr.OpEnable)); n != 1 {
		t.Errorf("the driver was asked %v, want one machine to be protected once", d.did)
	}
}

func TestTheNamespaceTellsItsOperationsAndNames(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.must(201, "PUT", vaultURL, vaultIn)
	for _, at := range []string{"/providers/Microsoft.RecoveryServices/operations", "/subscriptions/sub/resourceGroups/rg/providers/Microsoft.RecoveryServices/operations"} {
		names := map[string]bool{}
		a := s.must(200, "GET", at, "")
		for _, v := range a.at("value").([]any) {
			name := v.(map[string]any)["name"].(string)
			if names[name] {
				t.Errorf("%s is listed twice", name)
			}
			names[name] = true
		}
		for _, want := range []string{"vaults/read", "vaults/write", "vaults/delete", "vaults/replicationFabrics/replicationvCenters/write", "vaults/replicationFabrics/replicationProtectionContainers/replicationProtectedItems/testFailover/action"} {
			if !names["Microsoft.RecoveryServices/"+want] {
				t.Errorf("%s is not listed", want)
			}
		}
	}
	at := "/subscriptions/sub/resourceGroups/rg/providers/Microsoft.RecoveryServices/locations/here/checkNameAvailability"
	for name, reason := range map[string]any{"v1": "AlreadyExists", "v2": nil, "a/b": "Invalid"} {
		a := s.must(200, "POST", at, `{"name":"`+name+`","type":"Microsoft.RecoveryServices/Vaults"}`)
		if a.at("reason") != reason || a.at("nameAvailable") != (reason == nil) {
			t.Errorf("%s: got %s", name, a)
		}
	}
	if a := s.must(200, "GET", vaultURL+"/replicationSupportedOperatingSystems?instanceType=inmagercm", ""); a.at("properties.supportedOsList.0.instanceType") != "InMageRcm" || a.at("properties.supportedOsList.1") != nil {
		t.Errorf("got %s", a)
	}
	if a := s.must(200, "GET", vaultURL+"/replicationUsages", ""); a.at("value.0.protectedItemCount") != 0.0 {
		t.Errorf("got %s", a)
	}
	s.refusedWith(404, "private link", "GET", vaultURL+"/privateLinkResources/AzureSiteRecovery", "")
}
