package rig

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/lifeboat-dr/lifeboat/sdk/scenario/guest"
)

// AgentSpec describes an agent on this host that protects a disk image as if it were a machine's.
type AgentSpec struct {
	Name     string // of the process, after "agent-"; default: Hostname
	Hostname string
	UUID     string            // SMBIOS system UUID of the machine it stands for
	Disk     string            // id of the disk
	Image    string            // path
	Stopped  bool              // nothing writes to the images
	More     map[string]string // paths of further images, by disk id
	Pre      string            // script to run before the instant of a capture
	Post     string            // and after it
}

// StartAgent starts an agent on this host and waits until it has enrolled.
func (r *Rig) StartAgent(ctx context.Context, p *Plane, v *Vault, spec AgentSpec) (*Process, error) {
	bin, err := r.Bin("lifeboat-agent")
	if err != nil {
		return nil, err
	}
	if spec.Name == "" {
		spec.Name = spec.Hostname
	}
	key, err := v.RegistrationKey(ctx, "agent")
	if err != nil {
		return nil, err
	}
	state := r.Path("agent-" + spec.Name)
	if err := os.MkdirAll(state, 0o700); err != nil {
		return nil, err
	}
	var c strings.Builder
	fmt.Fprintf(&c, "server: %s\ncaFile: %s\nregistrationKey: %s\nstateDir: %s\nhostname: %s\nplatform: vm\nproductUuid: %s\ncpus: 1\nmemoryBytes: 402653184\nlogLevel: debug\n",
		p.Address, p.DataDir+"/ca.pem", key, state, spec.Hostname, spec.UUID)
	// A fenced agent shuts its machine down. Here that is this host.
	c.WriteString("shutdown: [/bin/true]\n")
	fmt.Fprintf(&c, "disks:\n  - {id: %s, path: %s, os: true, stopped: %v}\n", spec.Disk, spec.Image, spec.Stopped)
	for id, image := range spec.More {
		fmt.Fprintf(&c, "  - {id: %s, path: %s, stopped: %v}\n", id, image, spec.Stopped)
	}
	if spec.Pre != "" {
		fmt.Fprintf(&c, "scripts: {pre: %s, post: %s, timeout: 30s}\n", spec.Pre, spec.Post)
	}
	config := state + "/agent.yaml"
	if err := os.WriteFile(config, []byte(c.String()), 0o600); err != nil {
		return nil, err
	}
	agent, err := r.Start("agent-"+spec.Name, bin, []string{"guest", "--config", config}, nil)
	if err != nil {
		return nil, err
	}
	return agent, Until(ctx, agent.Name+" has enrolled", func() (bool, error) {
		if !agent.Running() {
			return false, fmt.Errorf("it ended:\n%s", agent.Tail(10))
		}
		_, err := os.Stat(filepath.Join(state, "identity.json"))
		return err == nil, nil
	})
}

// StartHost starts the agent of a hypervisor, for the machines in a datastore, and waits until it has enrolled.
func (r *Rig) StartHost(ctx context.Context, p *Plane, v *Vault, datastore string) (*Process, error) {
	bin, err := r.Bin("lifeboat-agent")
	if err != nil {
		return nil, err
	}
	key, err := v.RegistrationKey(ctx, "agent")
	if err != nil {
		return nil, err
	}
	state := r.Path("agent-host")
	if err := os.MkdirAll(state, 0o700); err != nil {
		return nil, err
	}
	config := filepath.Join(state, "agent.yaml")
	text := fmt.Sprintf("server: %s\ncaFile: %s/ca.pem\nregistrationKey: %s\nstateDir: %s\nlogLevel: debug\nhost: {sockets: [\"%s/*/run/qmp.sock\"], reserveBytes: 104857600}\n",
		p.Address, p.DataDir, key, state, datastore)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return nil, err
	}
	agent, err := r.Start("agent-host", bin, []string{"host", "--config", config}, nil)
	if err != nil {
		return nil, err
	}
	return agent, Until(ctx, "the hypervisor's agent has enrolled", func() (bool, error) {
		if !agent.Running() {
			return false, fmt.Errorf("it ended:\n%s", agent.Tail(10))
		}
		_, err := os.Stat(filepath.Join(state, "identity.json"))
		return err == nil, nil
	})
}

// InstallAgent puts the agent, its configuration and a one-time key into a guest that is about to be built.
func (p *Plane) InstallAgent(ctx context.Context, v *Vault, spec *guest.Spec) error {
	bin, err := p.rig.Bin("lifeboat-agent")
	if err != nil {
		return err
	}
	key, err := v.RegistrationKey(ctx, "agent")
	if err != nil {
		return err
	}
	config := fmt.Sprintf("server: %s\ncaFile: /etc/lifeboat/ca.pem\nregistrationKey: %s\nstateDir: /var/lib/lifeboat-agent\n", p.GuestAddress, key)
	spec.Files = append(spec.Files,
		guest.File{Path: "/usr/sbin/lifeboat-agent", Mode: 0o755, Source: bin},
		guest.File{Path: "/etc/lifeboat/agent.yaml", Mode: 0o600, Data: []byte(config)},
		guest.File{Path: "/etc/lifeboat/ca.pem", Mode: 0o644, Source: p.DataDir + "/ca.pem"})
	spec.Services = append(spec.Services, guest.Service{Name: "lifeboat-agent", Command: []string{"/usr/sbin/lifeboat-agent", "guest"}})
	return nil
}
