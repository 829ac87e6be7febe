package quiesce_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lifeboat-dr/lifeboat/agent/quiesce"
	"github.com/lifeboat-dr/lifeboat/agent/source"
)

// TestMain doubles as the dead-man process and as an agent that tests kill.
func TestMain(m *testing.M) {
	var err error
	switch {
	case len(os.Args) == 2 && os.Args[1] == "deadman":
		err = quiesce.RunDeadman()
	case len(os.Args) == 3 && os.Args[1] == "agent":
		err = runAgent(os.Args[2])
	default:
		os.Exit(m.Run())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

// volume mounts a fresh filesystem on a loop device.
func volume(t *testing.T, under string, mkfs ...string) source.Filesystem {
	t.Helper()
	dir := t.TempDir()
	image, mount := filepath.Join(dir, "image"), filepath.Join(dir, "mnt")
	if under != "" {
		mount = filepath.Join(under, "mnt")
	}
	f, err := os.Create(image)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.Truncate(48<<20), f.Close(), os.Mkdir(mount, 0o700)); err != nil {
		t.Fatal(err)
	}
	run(t, mkfs[0], append(mkfs[1:], image)...)
	loop := run(t, "losetup", "--find", "--show", image)
	t.Cleanup(func() { run(t, "losetup", "-d", loop) })
	run(t, "mount", loop, mount)
	t.Cleanup(func() {
		tick := time.NewTicker(10 * time.Millisecond) // a child just being forked may hold it
		defer tick.Stop()
		end := time.After(time.Minute)
		for err := syscall.Unmount(mount, 0); err != nil; err = syscall.Unmount(mount, 0) {
			select {
			case <-tick.C:
			case <-end:
				t.Errorf("unmount %s: %v", mount, err)
				return
			}
		}
	})
	var st unix.Stat_t
	if err := unix.Stat(mount, &st); err != nil {
		t.Fatal(err)
	}
	return source.Filesystem{Path: mount, Device: fmt.Sprintf("%d:%d", unix.Major(st.Dev), unix.Minor(st.Dev)), Type: "ext4"}
}

var ext4 = []string{"mkfs.ext4", "-q", "-E", "lazy_itable_init=0,lazy_journal_init=0"}

func guard(t *testing.T) *quiesce.Guard {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	g := quiesce.NewGuard(slog.New(slog.NewTextHandler(t.Output(), nil)), exe, "deadman")
	t.Cleanup(g.Close)
	return g
}

func prepare(t *testing.T, g *quiesce.Guard, fs ...source.Filesystem) *quiesce.Window {
	t.Helper()
	w, err := g.Prepare(context.Background(), fs)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Close)
	return w
}

// write starts a write and returns where its end shows.
func write(fs source.Filesystem) <-chan error {
	done := make(chan error, 1)
	go func() { done <- os.WriteFile(filepath.Join(fs.Path, "x"), []byte("x"), 0o600) }()
	return done
}

func stands(t *testing.T, done <-chan error) {
	t.Helper()
	select {
	case err := <-done:
		t.Fatalf("a write went through while frozen: %v", err)
	case <-time.After(100 * time.Millisecond): // nothing to wait for: it must not happen
	}
}

func goesOn(t *testing.T, done <-chan error) {
	t.Helper()
	select {
	case err := <-done:
		if err != nil {
			t.Fatal(err)
		}
	case <-time.After(time.Minute):
		t.Fatal("the filesystem stayed frozen")
	}
}

func TestFreezeHoldsWritesUntilThaw(t *testing.T) {
	t.Parallel()
	outer := volume(t, "", ext4...)
	inner := volume(t, outer.Path, ext4...)
	g := guard(t)
	for range 3 { // one dead-man serves many windows
		w := prepare(t, g, inner, outer)
		pid := g.PID()
		if err := w.Freeze(20 * time.Second); err != nil {
			t.Fatal(err)
		}
		a, b := write(outer), write(inner)
		stands(t, a)
		stands(t, b)
		held, err := w.Thaw()
		if err != nil || held < 100*time.Millisecond {
			t.Fatalf("got %v held and %v", held, err)
		}
		goesOn(t, a)
		goesOn(t, b)
		w.Close()
		if g.PID() != pid || pid == 0 {
			t.Errorf("dead-man %d became %d", pid, g.PID())
		}
	}
}

func TestDeadlineThawsAndIsTold(t *testing.T) {
	t.Parallel()
	fs := volume(t, "", ext4...)
	g := guard(t)
	w := prepare(t, g, fs)
	for limit := 200 * time.Millisecond; ; limit *= 2 {
		err := w.Freeze(limit)
		if err == nil {
			break
		}
		if !errors.Is(err, quiesce.ErrExpired) || limit > time.Minute { // else this machine is busy: the freeze itself took longer
			t.Fatal(err)
		}
		w.Close()
		w = prepare(t, g, fs)
	}
	goesOn(t, write(fs)) // without our doing
	if _, err := w.Thaw(); !errors.Is(err, quiesce.ErrExpired) {
		t.Errorf("got %v, want ErrExpired", err)
	}
	w = prepare(t, g, fs) // and it serves on
	if err := w.Freeze(20 * time.Second); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Thaw(); err != nil {
		t.Error(err)
	}
}

func TestWhatAnotherFrozeIsLeftAlone(t *testing.T) {
	t.Parallel()
	mine, other := volume(t, "", ext4...), volume(t, "", ext4...)
	run(t, "fsfreeze", "-f", other.Path)
	thawed := false
	t.Cleanup(func() {
		if !thawed {
			_ = exec.Command("fsfreeze", "-u", other.Path).Run()
		}
	})
	w := prepare(t, guard(t), mine, other)
	if err := w.Freeze(20 * time.Second); !errors.Is(err, quiesce.ErrBusy) {
		t.Errorf("got %v, want ErrBusy", err)
	}
	goesOn(t, write(mine))
	theirs := write(other)
	stands(t, theirs)
	run(t, "fsfreeze", "-u", other.Path)
	thawed = true
	goesOn(t, theirs)
}

func TestLostDeadManIsReplacedAndNothingStaysFrozen(t *testing.T) {
	t.Parallel()
	fs := volume(t, "", ext4...)
	g := guard(t)
	w := prepare(t, g, fs)
	if err := w.Freeze(20 * time.Second); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(g.PID(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Thaw(); !errors.Is(err, quiesce.ErrLost) {
		t.Errorf("got %v, want ErrLost", err)
	}
	goesOn(t, write(fs))
	w.Close()
	w = prepare(t, g, fs)
	if err := w.Freeze(20 * time.Second); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Thaw(); err != nil {
		t.Error(err)
	}
}

func TestUnfreezableFilesystemIsNamed(t *testing.T) {
	t.Parallel()
	fs := volume(t, "", ext4...)
	fat := source.Filesystem{Path: t.TempDir(), Type: "tmpfs"} // as little to be frozen as FAT
	run(t, "mount", "-t", "tmpfs", "none", fat.Path)
	t.Cleanup(func() { run(t, "umount", "-l", fat.Path) })
	var st unix.Stat_t
	if err := unix.Stat(fat.Path, &st); err != nil {
		t.Fatal(err)
	}
	fat.Device = fmt.Sprintf("%d:%d", unix.Major(st.Dev), unix.Minor(st.Dev))
	w := prepare(t, guard(t), fat, fs)
	if err := w.Freeze(20 * time.Second); err != nil {
		t.Fatal(err)
	}
	if got := w.Unfrozen(); len(got) != 1 || got[0] != fat.Path {
		t.Errorf("got %v, want %s", got, fat.Path)
	}
	if _, err := w.Thaw(); err != nil {
		t.Error(err)
	}
}

func TestFilesystemHiddenUnderAnotherIsNotTakenForIt(t *testing.T) {
	t.Parallel()
	fs := volume(t, "", ext4...)
	fs.Device = "1:1"
	if _, err := guard(t).Prepare(context.Background(), []source.Filesystem{fs}); err == nil || !strings.Contains(err.Error(), "hidden") {
		t.Errorf("got %v", err)
	}
}

func TestGateKeepsLinesWhileHeld(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	g := quiesce.NewGate(&out)
	say := func(s string) {
		if _, err := g.Write([]byte(s + "\n")); err != nil {
			t.Fatal(err)
		}
	}
	say("before")
	g.Hold()
	say("during")
	if got := out.String(); got != "before\n" {
		t.Errorf("got %q while held", got)
	}
	g.Release()
	say("after")
	if got, want := out.String(), "before\nduring\nafter\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	g.Hold()
	for range 1000 {
		say(strings.Repeat("x", 1000))
	}
	g.Release()
	if got := out.String(); len(got) > 300<<10 || !strings.Contains(got, "were dropped") {
		t.Errorf("got %d bytes of log, want at most 256 KiB kept and a word on the rest", len(got))
	}
}
