package ingest

import (
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/lifeboat-dr/lifeboat/replicator/wire"
	"github.com/lifeboat-dr/lifeboat/sdk/fleet"
)

// claim is what a session wants to do, to be covered by a grant.
type claim struct {
	vault      string
	agent      string // common name of the client certificate
	machine    string
	generation int64
	disks      []wire.Disk
}

// checkGrant verifies a grant offline and returns when it ends. Everything it says must equal what is claimed: a grant is for
// one agent, machine, generation and set of disks. The error is a *wire.Fault that names what differs.
func checkGrant(token string, key ed25519.PublicKey, c claim, now time.Time) (time.Time, error) {
	refuse := func(format string, args ...any) (time.Time, error) {
		return time.Time{}, &wire.Fault{
			Code:    wire.CodePrecondition,
			Message: "the grant was refused: " + fmt.Sprintf(format, args...),
			Causes:  "The grant is old, was made for another machine, or the clocks of lifeboatd and this replicator differ.",
			Action:  "Wait for the agent's next contact with lifeboatd, which brings a new grant; compare the clocks if it happens again.",
		}
	}
	jws, err := jose.ParseSignedCompact(token, []jose.SignatureAlgorithm{jose.EdDSA})
	if err != nil {
		return refuse("it is not a signed token")
	}
	payload, err := jws.Verify(key)
	if err != nil {
		return refuse("its signature is not of this vault")
	}
	var g fleet.GrantClaims
	if err := json.Unmarshal(payload, &g); err != nil {
		return refuse("its claims are not understood")
	}
	expires := time.Unix(g.Exp, 0)
	switch {
	case !now.Before(expires):
		return refuse("it expired at %s", expires.UTC().Format(time.RFC3339))
	case g.Vault != c.vault:
		return refuse("it is for another vault")
	case g.Agent != c.agent:
		return refuse("it is for agent %q, the certificate names %q", g.Agent, c.agent)
	case g.Machine != c.machine:
		return refuse("it is for machine %q, the session for %q", g.Machine, c.machine)
	case g.Generation != c.generation:
		return refuse("it is for generation %d, the session for %d", g.Generation, c.generation)
	case len(g.Disks) != len(c.disks):
		return refuse("it is for %d disks, the session for %d", len(g.Disks), len(c.disks))
	}
	sizes := make(map[string]int64, len(g.Disks))
	for _, d := range g.Disks {
		sizes[d.Id] = d.SizeBytes
	}
	for _, d := range c.disks {
		size, ok := sizes[d.ID]
		delete(sizes, d.ID)
		switch {
		case !ok:
			return refuse("it does not cover disk %q", d.ID)
		case size != d.Size:
			return refuse("it says disk %q has %d bytes, the machine says %d", d.ID, size, d.Size)
		}
	}
	return expires, nil
}
