package dr

import "encoding/json"

// Intent is a wish that a machine be protected between two regions.
type Intent struct {
	Meta
	Vault string
	// Machine is the friendly name of the machine, or what the wish called it as long as it is not known.
	Machine string
	Input   json.RawMessage // providerSpecificDetails as sent
	// What the input names: the machine, the regions and the policy (empty: the one that the machine's container is under).
	Wanted, PrimaryLocation, RecoveryLocation, Policy string
	// Waiting is why the machine is not protected yet; empty once it is.
	Waiting string
	// Item is the protected item that the wish led to; empty while it waits for the machine.
	Item ItemID
	Job  string // that protects the machine
}

// Obstacle is a reason that a machine cannot be protected now.
type Obstacle struct {
	Code, Message, PossibleCauses, RecommendedAction string
}

// VaultExtendedInfo are values that a client keeps with the vault, sealed.
type VaultExtendedInfo struct {
	Meta
	Sealed []byte
}

// VaultCredential is a certificate that a client put with the vault as its registration credential.
type VaultCredential struct {
	Meta
	Vault       string
	Certificate []byte // DER
}
