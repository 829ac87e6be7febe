package ship_test

import (
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/lifeboat-dr/lifeboat/agent/quiesce"
	"github.com/lifeboat-dr/lifeboat/agent/ship"
	"github.com/lifeboat-dr/lifeboat/agent/source"
	"github.com/lifeboat-dr/lifeboat/agent/track/kernel"
	"github.com/lifeboat-dr/lifeboat/replicator/ingest"
	"github.com/lifeboat-dr/lifeboat/replicator/localbucket"
	"github.com/lifeboat-dr/lifeboat/replicator/repo"
	"github.com/lifeboat-dr/lifeboat/sdk/fleet"
)

// TestMain doubles as the processes that tests kill.
func TestMain(m *testing.M) {
	var err error
	switch {
	case len(os.Args) == 2 && os.Args[1] == "deadman":
		err = quiesce.RunDeadman()
	case len(os.Args) == 3 && os.Args[1] == "agent":
		err = agentProcess(os.Args[2])
	case len(os.Args) == 3 && os.Args[1] == "replicator":
		err = replicatorProcess(os.Args[2])
	default:
		os.Exit(m.Run())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// pair is a certificate and its key as they go to another process.
type pair struct{ Certificate, Key []byte }

func packed(c tls.Certificate) pair {
	return pair{c.Certificate[0], must(x509.MarshalPKCS8PrivateKey(c.PrivateKey))}
}

func (p pair) unpack() tls.Certificate {
	return tls.Certificate{Certificate: [][]byte{p.Certificate}, PrivateKey: must(x509.ParsePKCS8PrivateKey(p.Key))}
}

func pool(der []byte) *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(must(x509.ParseCertificate(der)))
	return p
}

type agentSetup struct {
	State    string
	Source   source.Config
	CA       []byte
	Identity pair
	Want     fleet.Protection
	Scripts  quiesce.Scripts
	Hang     bool // in the first freeze window, for ever
	Tracked  bool // by the kernel
}

type replicatorSetup struct {
	Bucket, Spool, Addr string
	CA, Grant           []byte
	Server              pair
}

func writeSetup(t *testing.T, v any) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "setup.json")
	if err := os.WriteFile(path, must(json.Marshal(v)), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func readSetup(path string, v any) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	return json.Unmarshal(b, v)
}

// agentProcess runs a protector until it is killed or asked to end.
func agentProcess(path string) error {
	var s agentSetup
	if err := readSetup(path, &s); err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	var trackers ship.Trackers
	if s.Tracked {
		trackers = kernel.New(s.State, log)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	p, err := ship.New(ship.Config{
		Trackers: trackers,
		StateDir: s.State, Source: s.Source, Deadman: []string{"/proc/self/exe", "deadman"}, Log: log,
		Scripts:  s.Scripts,
		Identity: func() (tls.Certificate, *x509.CertPool, error) { return s.Identity.unpack(), pool(s.CA), nil },
	}, s.Want)
	if err != nil {
		return err
	}
	if s.Hang {
		p.OnWindow(func() {
			fmt.Println("frozen")
			select {}
		})
	}
	return p.Run(ctx)
}

// openRepository opens the test vault in a directory.
func openRepository(ctx context.Context, dir string) (*repo.Repository, error) {
	b, err := localbucket.Open(dir)
	if err != nil {
		return nil, err
	}
	key := repo.Key{1, 2, 3}
	var file []byte // a vault that is there keeps its own
	if _, err := os.Stat(filepath.Join(dir, "vaults", vaultID, "vault.json")); err != nil {
		if file, err = repo.NewVaultFile(vaultID, key, repo.NewRecoveryKey()); err != nil {
			return nil, err
		}
	}
	r, err := repo.Open(ctx, b, vaultID, key, file, repo.Options{})
	if err != nil {
		return nil, err
	}
	return r, r.OpenGeneration(ctx, machineID, 1, nil)
}

// replicatorProcess serves the test vault until it is killed.
func replicatorProcess(path string) error {
	var s replicatorSetup
	if err := readSetup(path, &s); err != nil {
		return err
	}
	r, err := openRepository(context.Background(), s.Bucket)
	if err != nil {
		return err
	}
	v := &ingest.Vault{ID: vaultID, Certificate: s.Server.unpack(), ClientCAs: pool(s.CA), GrantKey: ed25519.PublicKey(s.Grant), Repository: ingest.FromRepo(r)}
	srv, err := ingest.New(ingest.Config{Vault: func(string) (*ingest.Vault, error) { return v, nil }, Dir: s.Spool,
		Logger: slog.New(slog.NewTextHandler(os.Stderr, nil))})
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", s.Addr)
	if err != nil {
		return err
	}
	fmt.Println("listening")
	return srv.Serve(context.Background(), l)
}

// process is a child of the test.
type process struct {
	*exec.Cmd
	t   *testing.T
	out io.Reader
}

func start(t *testing.T, mode, setup string) *process {
	t.Helper()
	p := &process{Cmd: exec.Command(must(os.Executable()), mode, setup), t: t}
	p.Stderr = t.Output()
	p.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := p.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.kill)
	p.out = out
	if mode == "replicator" {
		p.says("listening")
	}
	return p
}

// says waits for a word.
func (p *process) says(word string) {
	p.t.Helper()
	var b [64]byte
	if n, err := p.out.Read(b[:]); err != nil || !strings.HasPrefix(string(b[:n]), word) {
		p.t.Fatalf("process said %q and %v, want %s", b[:n], err, word)
	}
}

// end asks the process to, and waits.
func (p *process) end() {
	p.t.Helper()
	if err := p.Process.Signal(syscall.SIGTERM); err != nil {
		p.t.Fatal(err)
	}
	if err := p.Wait(); err != nil {
		p.t.Fatalf("process ended with %v", err)
	}
}

func (p *process) kill() {
	if p.ProcessState == nil {
		_ = p.Process.Signal(syscall.SIGKILL)
		_ = p.Wait()
	}
}
