package program

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/lifeboat-dr/lifeboat/replicator/compute/qemu"
	"github.com/lifeboat-dr/lifeboat/replicator/localbucket"
	"github.com/lifeboat-dr/lifeboat/replicator/node"
	"github.com/lifeboat-dr/lifeboat/replicator/restore"
	"github.com/lifeboat-dr/lifeboat/replicator/worker"
	"github.com/lifeboat-dr/lifeboat/service/queue/redisqueue"
)

const diskServer = "disk-server"

// DiskServer is the command that a program must have for Compute to work: the disks of recovered machines are served by processes
// of their own, which are this program again.
func DiskServer() *cobra.Command {
	return &cobra.Command{
		Use:    diskServer,
		Short:  "Serve the disks of a recovery point to a machine; started by the replicator",
		Args:   cobra.NoArgs,
		Hidden: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return restore.ServeDisks(cmd.Context(), os.Stdin, restore.PointOpener(localbucket.OpenURL))
		},
	}
}

// Compute returns the hypervisor of this host, its instances below the state directory. It is nil, and the reason in the log, when
// there is none: everything but starting machines works without.
func Compute(state string, datastores map[string]string, forwardPort int, log *slog.Logger) node.Compute {
	self, err := os.Executable()
	if err != nil {
		log.Warn("machines cannot be started here", "err", err)
		return nil
	}
	d, err := qemu.New(qemu.Config{Dir: filepath.Join(state, "instances"), DiskServer: []string{self, diskServer}, Datastores: datastores,
		ForwardPort: forwardPort, Logger: log})
	if err != nil {
		log.Warn("machines cannot be started here", "err", err)
		return nil
	}
	return d
}

// OpenQueue reaches the task queue's Redis, and fails when it does not answer.
func OpenQueue(ctx context.Context, address string) (worker.Queue, io.Closer, error) {
	rdb, err := redisqueue.Dial(address)
	if err != nil {
		return nil, nil, err
	}
	if err := rdb.Ping(ctx).Err(); err != nil {
		return nil, nil, errors.Join(fmt.Errorf("reach redis: %w", err), rdb.Close())
	}
	return redisqueue.New(rdb, redisqueue.Options{}), rdb, nil
}
