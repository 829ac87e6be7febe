// Makes a vault and a site in it, and prints what the server says of them. The environment names the server: LIFEBOAT_URL and
// LIFEBOAT_TOKEN.

import { connect, must } from "./client.js";

declare const process: { env: Record<string, string | undefined> };

const { LIFEBOAT_URL: address = "https://127.0.0.1:8443", LIFEBOAT_TOKEN: token = "" } = process.env;
const { api, wait } = connect(address, token, AbortSignal.timeout(60_000));

const query = { "api-version": "2025-01-01" } as const;
const group = { subscriptionId: "00000000-0000-0000-0000-000000000001", resourceGroupName: "rg" };
const base = "/subscriptions/{subscriptionId}/resourceGroups/{resourceGroupName}/providers/Microsoft.RecoveryServices/vaults";

const ofVault = { params: { query, path: { ...group, vaultName: "typed" } } };
const made = await api.PUT(`${base}/{vaultName}`, { ...ofVault, body: { location: "here", sku: { name: "Standard" }, properties: {}, tags: { team: "ops" } } });
await wait(made.response);
const vault = must(await api.GET(`${base}/{vaultName}`, ofVault));

const ofFabric = { params: { query, path: { ...group, resourceName: "typed", fabricName: "site1" } } };
const begun = await api.PUT(`${base}/{resourceName}/replicationFabrics/{fabricName}`, {
  ...ofFabric,
  body: { properties: { customDetails: { instanceType: "InMageRcm", vmwareSiteId: "site" } } },
});
await wait(begun.response);
const fabric = must(await api.GET(`${base}/{resourceName}/replicationFabrics/{fabricName}`, ofFabric));
const details = fabric.properties?.customDetails;

const absent = await api.GET(`${base}/{resourceName}/replicationFabrics/{fabricName}`, { params: { query, path: { ...ofFabric.params.path, fabricName: "none" } } });

console.log(
  JSON.stringify({
    vault: vault.name,
    state: vault.properties?.provisioningState,
    team: vault.tags?.["team"],
    begun: begun.response.status,
    fabric: fabric.name,
    kind: details?.instanceType,
    // Only this kind of site has replicators: the discriminator tells the compiler which kind it is.
    processServers: details?.instanceType === "InMageRcm" ? details.processServers.length : -1,
    refused: absent.error?.error.code,
    remedy: absent.error?.error.details?.[0]?.recommendedAction,
  }),
);
