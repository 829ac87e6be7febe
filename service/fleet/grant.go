package fleet

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"time"
)

// Grants are valid for between grantLifetime-grantSlot and grantLifetime: their times are cut to slots, so that the same
// grant comes out until the slot is over and the desired state does not change with every look at it.
const (
	grantLifetime = time.Hour
	grantSlot     = 20 * time.Minute
)

// GrantDisk is a disk that a grant lets through.
type GrantDisk struct {
	ID        string `json:"id"`
	SizeBytes int64  `json:"sizeBytes"`
}

// Claims is what a grant says (GrantClaims of the fleet protocol): which agent may ship which disks of which machine into
// which generation, until when. IssuedAt and Expires are Unix seconds.
type Claims struct {
	Vault      string      `json:"vault"`
	Machine    string      `json:"machine"`
	Agent      string      `json:"agent"`
	Disks      []GrantDisk `json:"disks"`
	Generation int64       `json:"generation"`
	IssuedAt   int64       `json:"iat"`
	Expires    int64       `json:"exp"`
}

// grantHeader is {"alg":"EdDSA","typ":"JWT"}: the only one we make and replicators take.
var grantHeader = base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"EdDSA","typ":"JWT"}`))

// SignGrant returns the compact JWS (RFC 7515, RFC 8037) over the claims. The same claims and seed give the same bytes. seed
// is the vault's Ed25519 seed.
func SignGrant(seed []byte, c Claims) (string, error) {
	if len(seed) != ed25519.SeedSize {
		return "", fmt.Errorf("sign grant: seed has %d bytes", len(seed))
	}
	payload, err := json.Marshal(c)
	if err != nil {
		return "", fmt.Errorf("sign grant: %w", err)
	}
	signed := grantHeader + "." + base64.RawURLEncoding.EncodeToString(payload)
	sig := ed25519.Sign(ed25519.NewKeyFromSeed(seed), []byte(signed))
	return signed + "." + base64.RawURLEncoding.EncodeToString(sig), nil
}

// GrantPublicKey returns the key that verifies grants signed with seed.
func GrantPublicKey(seed []byte) ed25519.PublicKey {
	return ed25519.NewKeyFromSeed(seed).Public().(ed25519.PublicKey)
}

// grantTimes returns when a grant looked at now was issued and when it expires.
func grantTimes(now time.Time) (issued, expires time.Time) {
	issued = now.UTC().Truncate(grantSlot)
	return issued, issued.Add(grantLifetime)
}
