package group_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// lab is a network of machines: each a network namespace with an address, a disk with a filesystem, and processes. This process is
// in it as the first address.
type lab struct {
	t      testing.TB
	dir    string
	id     int // of this process: names of links and namespaces have it
	net    string
	mounts []string
	loops  []string
}

const ringFile = "ring"

func command(t testing.TB, name string, args ...string) string {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		t.Fatalf("%s is missing: install iproute2, e2fsprogs and mount (Debian)", name)
	}
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

func newLab(t testing.TB, machines int) *lab {
	t.Helper()
	id := os.Getpid() % 100000
	l := &lab{t: t, dir: t.TempDir(), id: id, net: fmt.Sprintf("198.18.%d.", 1+id%250)} // RFC 2544: for tests of networks
	t.Cleanup(func() {
		for i := range machines {
			_ = exec.Command("ip", "netns", "del", l.space(i)).Run()
		}
		_ = exec.Command("ip", "link", "del", l.bridge()).Run()
	})
	command(t, "ip", "link", "add", l.bridge(), "type", "bridge")
	command(t, "ip", "addr", "add", l.net+"1/24", "dev", l.bridge())
	command(t, "ip", "link", "set", l.bridge(), "up")
	for i := range machines {
		command(t, "ip", "netns", "add", l.space(i))
		command(t, "ip", "link", "add", l.port(i), "type", "veth", "peer", "name", "eth0", "netns", l.space(i))
		command(t, "ip", "link", "set", l.port(i), "master", l.bridge(), "up")
		command(t, "ip", "-n", l.space(i), "addr", "add", l.address(i)+"/24", "dev", "eth0")
		command(t, "ip", "-n", l.space(i), "link", "set", "eth0", "up")
		command(t, "ip", "-n", l.space(i), "link", "set", "lo", "up")
	}
	for i := range machines {
		l.disk(i)
	}
	return l
}

func (l *lab) bridge() string       { return fmt.Sprintf("lbr%d", l.id) }
func (l *lab) port(i int) string    { return fmt.Sprintf("lb%dp%d", l.id, i) }
func (l *lab) space(i int) string   { return fmt.Sprintf("lb%d-%d", l.id, i) }
func (l *lab) address(i int) string { return fmt.Sprintf("%s%d", l.net, 10+i) }

// disk makes a filesystem on a loop device, with the file of the ring in it.
func (l *lab) disk(i int) {
	l.t.Helper()
	image, mount := filepath.Join(l.dir, fmt.Sprintf("disk%d", i)), filepath.Join(l.dir, fmt.Sprintf("mnt%d", i))
	f, err := os.Create(image)
	if err == nil {
		err = errors.Join(f.Truncate(16<<20), f.Close(), os.Mkdir(mount, 0o700))
	}
	if err != nil {
		l.t.Fatal(err)
	}
	command(l.t, "mkfs.ext4", "-q", "-b", "4096", "-J", "size=4", "-E", "lazy_itable_init=0,lazy_journal_init=0", image)
	loop := command(l.t, "losetup", "--find", "--show", image)
	l.t.Cleanup(func() { command(l.t, "losetup", "-d", loop) })
	command(l.t, "mount", loop, mount)
	l.t.Cleanup(func() {
		for end := time.Now().Add(time.Minute); syscall.Unmount(mount, 0) != nil; time.Sleep(50 * time.Millisecond) {
			if time.Now().After(end) { // a dead-man lets go of it a moment after it thawed
				l.t.Errorf("%s cannot be unmounted", mount)
				return
			}
		}
	})
	l.mounts, l.loops = append(l.mounts, mount), append(l.loops, loop)
	c := counters{member: i}
	if err := os.WriteFile(filepath.Join(mount, ringFile), c.encode(), 0o600); err != nil {
		l.t.Fatal(err)
	}
	command(l.t, "sync", "-f", mount)
}

// where returns the place of the ring's file on the disk.
func (l *lab) where(i int) int64 {
	l.t.Helper()
	b, err := os.ReadFile(filepath.Join(l.dir, fmt.Sprintf("disk%d", i)))
	if err != nil {
		l.t.Fatal(err)
	}
	for at := 0; at < len(b); at += blockSize {
		if c, err := decodeCounters(b[at : at+blockSize]); err == nil && c.member == i {
			return int64(at)
		}
	}
	l.t.Fatalf("the ring's file is not on disk %d", i)
	return 0
}

// cut keeps two machines from each other; mend lets them.
func (l *lab) cut(a, b int) {
	command(l.t, "ip", "-n", l.space(a), "route", "add", "blackhole", l.address(b)+"/32")
	command(l.t, "ip", "-n", l.space(b), "route", "add", "blackhole", l.address(a)+"/32")
}

func (l *lab) mend(a, b int) {
	command(l.t, "ip", "-n", l.space(a), "route", "del", "blackhole", l.address(b)+"/32")
	command(l.t, "ip", "-n", l.space(b), "route", "del", "blackhole", l.address(a)+"/32")
}

// unplug takes a machine off the network, or puts it back.
func (l *lab) unplug(i int, off bool) {
	state := "up"
	if off {
		state = "down"
	}
	command(l.t, "ip", "link", "set", l.port(i), state)
}

// child is a process in a machine's namespace, which can be killed and started again.
type child struct {
	l    *lab
	args []string
	log  string
	cmd  *exec.Cmd
}

// run starts this program in machine i's namespace, in a mode with a setup file.
func (l *lab) run(i int, mode, setup string) *child {
	l.t.Helper()
	self, err := os.Executable()
	if err != nil {
		l.t.Fatal(err)
	}
	c := &child{l: l, args: []string{"netns", "exec", l.space(i), self, mode, setup}, log: filepath.Join(l.dir, fmt.Sprintf("%s%d.log", mode, i))}
	c.start()
	l.t.Cleanup(c.kill)
	return c
}

func (c *child) start() {
	c.l.t.Helper()
	log, err := os.OpenFile(c.log, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		c.l.t.Fatal(err)
	}
	defer log.Close()
	c.cmd = exec.Command("ip", c.args...)
	c.cmd.Stdout, c.cmd.Stderr = log, log
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := c.cmd.Start(); err != nil {
		c.l.t.Fatal(err)
	}
}

func (c *child) signal(s syscall.Signal) { _ = c.cmd.Process.Signal(s) }

func (c *child) kill() {
	if c.cmd.ProcessState == nil {
		c.signal(syscall.SIGKILL)
		_ = c.cmd.Wait()
	}
}

func (c *child) tail() string {
	b, err := os.ReadFile(c.log)
	if err != nil {
		return err.Error()
	}
	return string(b[max(0, len(b)-2000):])
}
