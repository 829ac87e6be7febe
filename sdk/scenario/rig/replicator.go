package rig

import (
	"context"
	"fmt"
	"os"
)

// addReplicator enrols a replicator with all that a recovery site needs and starts it. All of them reach the production
// machines' datastore, as two hosts with the same storage would.
func (p *Plane) addReplicator(ctx context.Context, v *Vault, name string) error {
	bin, err := p.rig.Bin("lifeboat-replicator")
	if err != nil {
		return err
	}
	key, err := v.RegistrationKey(ctx, "replicator")
	if err != nil {
		return err
	}
	state := p.rig.Path(name)
	if err := os.MkdirAll(state, 0o700); err != nil {
		return err
	}
	keyFile := state + ".key"
	if err := os.WriteFile(keyFile, []byte(key+"\n"), 0o600); err != nil {
		return err
	}
	data, err := dataPort()
	if err != nil {
		return err
	}
	args := []string{"run", "--server", p.Address, "--ca-file", p.DataDir + "/ca.pem", "--registration-key-file", keyFile, "--site", "recovery",
		"--state-dir", state, "--hostname", name, "--datastore", p.DatastoreName + "=" + p.Datastore}
	args = append(args, data.flags("--data-listen", "--data-address")...)
	if _, err := p.rig.Start(name, bin, args, nil); err != nil {
		return err
	}
	return Until(ctx, name+" has enrolled", func() (bool, error) {
		if !p.rig.Process(name).Running() {
			return false, fmt.Errorf("%s ended:\n%s", name, p.rig.Process(name).Tail(10))
		}
		f, err := v.Client.Fabric(ctx, site)
		if err != nil {
			return false, err
		}
		d, err := f.Properties.CustomDetails.AsInMageRcmFabricSpecificDetails()
		if err != nil {
			return false, err
		}
		for _, ps := range d.ProcessServers {
			if ps.Name == name && ps.Health == "Normal" {
				return true, nil
			}
		}
		return false, nil
	})
}
