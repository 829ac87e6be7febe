package main

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/lifeboat-dr/lifeboat/api"
	"github.com/lifeboat-dr/lifeboat/replicator/node/program"
	"github.com/lifeboat-dr/lifeboat/service/control"
	"github.com/lifeboat-dr/lifeboat/service/fleet"
	"github.com/lifeboat-dr/lifeboat/service/queue/embedded"
	"github.com/lifeboat-dr/lifeboat/service/queue/redisqueue"
	"github.com/lifeboat-dr/lifeboat/service/store"
	"github.com/lifeboat-dr/lifeboat/service/store/sqlstore"
	"github.com/lifeboat-dr/lifeboat/service/workflow"
)

// stopTimeout bounds how long running requests are waited for at the end.
const stopTimeout = 10 * time.Second

// run assembles lifeboatd, serves until ctx ends, and takes it apart in the reverse order: who uses something stops before it.
func run(ctx context.Context, c config) (err error) {
	log := program.Logger(c.Log, c.Verbose)
	var stops closers
	defer func() {
		if ctx.Err() != nil && errors.Is(err, context.Canceled) {
			log.Info("lifeboatd stops before it is up", "err", err)
			err = nil
		}
		err = errors.Join(err, stops.close())
	}()

	if err := os.MkdirAll(c.DataDir, 0o700); err != nil {
		return fmt.Errorf("make data directory: %w", err)
	}
	db, err := openStore(ctx, c)
	if err != nil {
		return err
	}
	stops.add("store", db.Close)
	seal, err := openSealer(ctx, c.KeyFile, db)
	if err != nil {
		return err
	}
	stops.add("sealer", seal.Close)
	rdb, err := openRedis(c, &stops)
	if err != nil {
		return err
	}
	tasks := redisqueue.New(rdb, redisqueue.Options{})

	ctl := control.New(control.Config{Store: db, Sealer: seal, MakeVault: makeVault, WrapKey: wrapKey, BucketURL: func(string) string { return c.Bucket }, Progress: tasks, Log: log})
	if err := ctl.IndexJobs(ctx); err != nil {
		return fmt.Errorf("index jobs: %w", err)
	}
	if err := ctl.CountItems(ctx); err != nil {
		return err
	}
	svc, err := fleet.Open(ctx, fleet.Config{Control: ctl, Store: db, Sealer: seal, Workers: tasks, RedisAddress: c.Redis, Log: log,
		Watched: []store.Kind{control.KindItem, control.KindAgentItem, control.KindPolicy, control.KindVault, control.KindVaultSecrets}})
	if errors.Is(err, fleet.ErrOtherKey) {
		return fmt.Errorf("%s is not the key file that the secrets in this database are sealed under: give every lifeboatd on it the same with --key-file", c.KeyFile)
	}
	if err != nil {
		return err
	}
	ca := svc.Authority().Certificate()
	if err := writeFile(filepath.Join(c.DataDir, "ca.pem"), []byte(ca), 0o644); err != nil {
		return fmt.Errorf("write ca.pem: %w", err)
	}
	tokens, err := openTokens(ctx, c, db, seal)
	if err != nil {
		return err
	}
	m := newMetrics(version)
	handler, err := api.New(api.Config{Control: ctl, Tokens: tokens, Fleet: api.NewFleetHandler(svc, log), Enrolment: api.Enrolment{CASHA256: fingerprint(ca), ControlAddress: c.ControlAddress},
		TrustedProxies: c.proxies, Throttle: api.Throttle{Reads: c.ReadsPerSecond, Writes: c.WritesPerSecond}, Log: log, Audit: log.With("audit", true)})
	if err != nil {
		return err
	}

	srv := defaultLimits(c.MaxConnections).server(edge(handler, db, m, (&machineMetrics{read: ctl.MachineStates, log: log}).handler(tokens)))
	srv.ErrorLog = slog.NewLogLogger(log.Handler(), slog.LevelDebug) // handshakes of scanners and of clients that left
	srv.TLSConfig = &tls.Config{
		MinVersion:     tls.VersionTLS12,
		GetCertificate: (&serverCertificate{ca: svc.Authority(), names: serverNames(c.Listen, c.Names)}).get,
		ClientAuth:     tls.RequestClientCert, // who signed it depends on whose it is: service/fleet verifies
	}
	l, err := net.Listen("tcp", c.Listen)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	inside := newPipe()
	failed := make(chan error, 4)
	var servers sync.WaitGroup
	for _, x := range []net.Listener{boundedListener(l, c.MaxConnections), inside} {
		servers.Go(func() {
			if err := srv.ServeTLS(x, "", ""); !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, net.ErrClosed) {
				failed <- fmt.Errorf("serve %s: %w", x.Addr(), err)
			}
		})
	}
	stops.add("server", func() error {
		svc.Drain()
		ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
		defer cancel()
		err := srv.Shutdown(ctx)
		if errors.Is(err, context.DeadlineExceeded) {
			log.Warn("requests were cut off at the stop")
			err = srv.Close()
		}
		servers.Wait()
		return err
	})
	stopAlerts, err := startAlerts(ctx, c, db, log)
	if err != nil {
		return err
	}
	stops.add("alerts", stopAlerts)
	stops.add("intents", keep(ctx, ctl.KeepIntents))
	name, err := readID(filepath.Join(c.DataDir, "engine"))
	if err != nil {
		return fmt.Errorf("name the engine: %w", err)
	}
	stops.add("jobs", startWorkflow(ctx, db, tasks, workflow.Options{Name: name, PruneEvery: c.PruneEvery}, log))
	if !c.NoReplicator {
		n, closeNode, err := embeddedNode(ctx, c, svc, inside.dial, log)
		if err != nil {
			return err
		}
		nodeCtx, cancel := context.WithCancel(context.WithoutCancel(ctx))
		done := make(chan struct{})
		go func() {
			defer close(done)
			if err := n.Run(nodeCtx); err != nil {
				failed <- fmt.Errorf("embedded replicator: %w", err)
			}
		}()
		stops.add("replicator", func() error { cancel(); <-done; closeNode(); return nil })
	}
	c.warn(log)
	log.Info("lifeboatd is up", "address", l.Addr().String(), "data", c.DataDir, "version", version)
	select {
	case <-ctx.Done():
		log.Info("lifeboatd stops")
		return nil
	case err := <-failed:
		return err
	}
}

// closers end things in the reverse order of their making.
type closers []struct {
	name string
	end  func() error
}

func (c *closers) add(name string, end func() error) {
	*c = append(*c, struct {
		name string
		end  func() error
	}{name, end})
}

func (c *closers) close() error {
	var errs []error
	for i := len(*c) - 1; i >= 0; i-- {
		if err := (*c)[i].end(); err != nil {
			errs = append(errs, fmt.Errorf("stop %s: %w", (*c)[i].name, err))
		}
	}
	return errors.Join(errs...)
}

func openStore(ctx context.Context, c config) (*sqlstore.Store, error) {
	if c.Database != "" {
		return sqlstore.OpenPostgres(ctx, c.Database)
	}
	return sqlstore.OpenSQLite(ctx, filepath.Join(c.DataDir, "lifeboat.db"))
}

func openRedis(c config, stops *closers) (*redis.Client, error) {
	if c.Redis == "" {
		s, err := embedded.Start()
		if err != nil {
			return nil, err
		}
		stops.add("queue", s.Close)
		return s.Client(), nil
	}
	rdb, err := redisqueue.Dial(c.Redis)
	if err != nil {
		return nil, err
	}
	stops.add("queue", rdb.Close)
	return rdb, nil
}

func fingerprint(certificate string) string {
	block, _ := pem.Decode([]byte(certificate))
	sum := sha256.Sum256(block.Bytes)
	return hex.EncodeToString(sum[:])
}

// edge answers what is about this process, and passes everything else on.
func edge(next http.Handler, db store.Store, m *metrics, machines http.Handler) http.Handler {
	exposed := m.handler()
	next = m.count(next)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/healthz":
			ctx, cancel := context.WithTimeout(r.Context(), 2*time.Second)
			defer cancel()
			if err := db.View(ctx, func(store.Tx) error { return nil }); err != nil {
				http.Error(w, "the store does not answer", http.StatusServiceUnavailable)
				return
			}
			_, _ = io.Copy(w, strings.NewReader("ok\n")) // the caller may have left
		case "/metrics":
			exposed.ServeHTTP(w, r)
		case "/metrics/machines":
			machines.ServeHTTP(w, r)
		default:
			next.ServeHTTP(w, r)
		}
	})
}
