package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/uuid"

	"github.com/lifeboat-dr/lifeboat/replicator/chunk"
	"github.com/lifeboat-dr/lifeboat/replicator/node"
	"github.com/lifeboat-dr/lifeboat/replicator/node/program"
	sdk "github.com/lifeboat-dr/lifeboat/sdk/fleet"
	"github.com/lifeboat-dr/lifeboat/service/dr"
	"github.com/lifeboat-dr/lifeboat/service/fleet"
)

// embeddedNode makes the replicator of this process. It speaks to lifeboatd through dial like any other, with a certificate of
// its own; only its enrolment needs no key.
func embeddedNode(ctx context.Context, c config, svc *fleet.Service, dial node.Dialer, log *slog.Logger) (*node.Node, func(), error) {
	state := filepath.Join(c.DataDir, "replicator")
	if err := os.MkdirAll(state, 0o700); err != nil {
		return nil, nil, err
	}
	id, err := readID(filepath.Join(state, "id"))
	if err != nil {
		return nil, nil, fmt.Errorf("name the embedded replicator: %w", err)
	}
	hostname, err := os.Hostname()
	if err != nil {
		return nil, nil, err
	}
	key, csr, err := node.NewKey(id)
	if err != nil {
		return nil, nil, err
	}
	e, err := svc.EnrolEmbedded(ctx, dr.Replicator{ID: id, Hostname: hostname, AgentVersion: version, Site: dr.SiteRecovery, Roles: node.Roles}, csr)
	if err != nil {
		return nil, nil, fmt.Errorf("enrol the embedded replicator: %w", err)
	}
	identity, err := node.NewIdentity("", key, sdk.Enrollment{Id: e.ID, Certificate: e.Certificate, CaCertificate: e.CACertificate, Expires: e.Expires}, svc.Authority().Certificate())
	if err != nil {
		return nil, nil, err
	}
	client, closeIdle, err := node.NewClient(dial, identity)
	if err != nil {
		return nil, nil, err
	}
	codec, err := chunk.ParseCodec(c.Compression)
	if err != nil {
		return nil, nil, err
	}
	data, err := listenReplication(c.ReplicationListen, c.replicationAsked, log)
	if err != nil {
		return nil, nil, fmt.Errorf("listen for replication data: %w", err)
	}
	addresses := c.ReplicationAddress
	if len(addresses) == 0 {
		if addresses, err = node.Advertised(data); err != nil {
			return nil, nil, errors.Join(err, data.Close())
		}
	}
	cfg := node.Config{Client: client, Identity: identity, StateDir: state, Hostname: hostname, Site: dr.SiteRecovery, Roles: node.Roles, Version: version,
		Data: data, DataAddress: strings.Join(addresses, ","), Datastores: c.Datastores, Codec: codec, Compute: program.Compute(state, c.Datastores, c.ForwardPort, log), OpenQueue: program.OpenQueue, Log: log}
	if cfg.Scripts, err = program.Scripts(c.Runner, c.Scripts); err != nil {
		return nil, nil, errors.Join(err, data.Close())
	}
	n, err := node.New(cfg)
	if err != nil {
		return nil, nil, errors.Join(err, data.Close())
	}
	log.Info("replication data is taken", "address", data.Addr().String())
	return n, func() { closeIdle(); _ = data.Close() }, nil
}

// readID reads an id of this data directory's own, made at the first start.
func readID(path string) (string, error) {
	raw, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		id := uuid.NewString()
		return id, writeFile(path, []byte(id+"\n"), 0o600)
	}
	if err != nil {
		return "", err
	}
	id, err := uuid.Parse(strings.TrimSpace(string(raw)))
	return id.String(), err
}

var _ net.Listener = (*pipe)(nil)
