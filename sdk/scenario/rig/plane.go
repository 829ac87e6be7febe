package rig

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/lifeboat-dr/lifeboat/sdk"
)

// Plane is a running Lifeboat: one lifeboatd and what belongs to it.
type Plane struct {
	DataDir       string
	Address       string // host:port of lifeboatd, from this host
	GuestAddress  string // the same from inside an emulated machine
	Datastore     string // directory of the production machines
	DatastoreName string // its name at the master target

	rig    *Rig
	bucket string
	// separate planes get their replicators with the vault whose keys they enrol with.
	separate bool
}

// CreateVault makes a vault with one site, policies and a mapping, and sees to it that a replicator serves it: in a separate
// plane it enrols two, replicator-1 and replicator-2, both with all roles, the first one reaching the datastore of the
// production machines.
func (p *Plane) CreateVault(ctx context.Context, name string, policies Policies) (*Vault, error) {
	c, err := p.client("", resourceGroup, name)
	if err != nil {
		return nil, err
	}
	v, err := createVault(ctx, c, policies)
	if err != nil {
		return nil, err
	}
	if p.separate {
		for i := 1; i <= 2; i++ {
			if err := p.addReplicator(ctx, v, fmt.Sprintf("replicator-%d", i)); err != nil {
				return nil, err
			}
		}
	}
	return v, nil
}

// guestHost is this host as machines behind QEMU's user networking see it.
const guestHost = "10.0.2.2"

// Lifeboat returns the processes that are Lifeboat's, in the order of their making: agents too, Redis and machines not.
func (r *Rig) Lifeboat() []*Process {
	var list []*Process
	for _, p := range r.Processes() {
		if p.Name == "lifeboatd" || strings.HasPrefix(p.Name, "replicator-") || strings.HasPrefix(p.Name, "agent-") {
			list = append(list, p)
		}
	}
	return list
}

// StartEmbedded starts lifeboatd with everything in it. flags are added to its command line.
func (r *Rig) StartEmbedded(ctx context.Context, flags ...string) (*Plane, error) {
	return r.startPlane(ctx, false, flags)
}

// StartSeparate starts a Redis server and a lifeboatd without a replicator; CreateVault then adds two replicators, which are
// processes of their own.
func (r *Rig) StartSeparate(ctx context.Context, flags ...string) (*Plane, error) {
	return r.startPlane(ctx, true, flags)
}

func (r *Rig) startPlane(ctx context.Context, separate bool, flags []string) (*Plane, error) {
	bin, err := r.Bin("lifeboatd")
	if err != nil {
		return nil, err
	}
	port, err := FreePort()
	if err != nil {
		return nil, err
	}
	p := &Plane{rig: r, DataDir: r.Path("lifeboatd"), Address: fmt.Sprintf("127.0.0.1:%d", port), GuestAddress: fmt.Sprintf("%s:%d", guestHost, port),
		Datastore: r.Path("home"), DatastoreName: "home", separate: separate}
	for _, dir := range []string{p.DataDir, p.Datastore} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, err
		}
	}
	p.bucket = filepath.Join(p.DataDir, "bucket")
	for i, f := range flags {
		if f == "--bucket" {
			p.bucket = strings.TrimPrefix(flags[i+1], "file://")
		}
	}
	args := []string{"--data-dir", p.DataDir, "--listen", p.Address, "--name", guestHost}
	if separate {
		redis, err := r.StartRedis(ctx)
		if err != nil {
			return nil, err
		}
		args = append(args, "--redis", redis, "--no-replicator")
	} else {
		data, err := dataPort()
		if err != nil {
			return nil, err
		}
		args = append(args, "--datastore", p.DatastoreName+"="+p.Datastore)
		args = append(args, data.flags("--replication-listen", "--replication-address")...)
	}
	if _, err := r.Start("lifeboatd", bin, append(args, flags...), nil); err != nil {
		return nil, err
	}
	return p, p.WaitReady(ctx)
}

// client returns a client with lifeboatd's own token.
func (p *Plane) client(subscription, group, vault string) (*sdk.Client, error) {
	return sdk.New(sdk.Config{Endpoint: "https://" + p.Address, TokenFile: filepath.Join(p.DataDir, "admin.token"), CAFile: filepath.Join(p.DataDir, "ca.pem"),
		Subscription: subscription, ResourceGroup: group, Vault: vault})
}

// WaitReady waits until lifeboatd answers, with the token and the authority that it has in its data directory now.
func (p *Plane) WaitReady(ctx context.Context) error {
	lifeboatd := p.rig.Process("lifeboatd")
	return Until(ctx, "lifeboatd answers", func() (bool, error) {
		if !lifeboatd.Running() {
			return false, fmt.Errorf("lifeboatd ended:\n%s", lifeboatd.Tail(10))
		}
		c, err := p.client("", resourceGroup, "")
		if errors.Is(err, fs.ErrNotExist) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		defer c.Close()
		_, err = sdk.Collect(c.Vaults(ctx))
		if away(err) {
			return false, nil
		}
		return err == nil, err
	})
}

// Bucket returns the directory of the bucket.
func (p *Plane) Bucket() string { return p.bucket }

// listener is a port for replication data, which is reached under two names: this host's own agents and agents inside emulated
// machines.
type listener int

func dataPort() (listener, error) {
	port, err := FreePort()
	return listener(port), err
}

func (l listener) flags(listen, address string) []string {
	port := strconv.Itoa(int(l))
	return []string{listen, "127.0.0.1:" + port, address, "127.0.0.1:" + port, address, guestHost + ":" + port}
}
