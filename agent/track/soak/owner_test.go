package soak_test

import (
	"bufio"
	"context"
	"encoding/gob"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"testing"

	"github.com/lifeboat-dr/lifeboat/agent/track"
	"github.com/lifeboat-dr/lifeboat/agent/track/ebpf"
	"github.com/lifeboat-dr/lifeboat/replicator/block"
)

// The owner of the tracking is a process of its own, so that it can be killed at any moment.
const ownerVariable = "LIFEBOAT_TEST_TRACK_OWNER"

func TestMain(m *testing.M) {
	if dir := os.Getenv(ownerVariable); dir != "" {
		if err := own(dir, os.Args[1]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// request is what an owner is asked: to seal, to verify, or to release all that is sealed.
type request string

// answer is what it says.
type answer struct {
	Extents []block.Extent
	Lost    bool
	Resumed bool
	Err     string
	Stats   ebpf.Stats
}

func own(dir, device string) error {
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	m, err := ebpf.Open(ebpf.Config{Dir: dir, Logger: log})
	if err != nil {
		return err
	}
	t, resumed, err := m.Track(context.Background(), device)
	if err != nil {
		return err
	}
	in, out := gob.NewDecoder(os.Stdin), gob.NewEncoder(os.Stdout)
	if err := out.Encode(answer{Resumed: resumed}); err != nil {
		return err
	}
	for {
		var ask request
		if err := in.Decode(&ask); err != nil {
			return nil // the test let go
		}
		var a answer
		var err error
		switch ask {
		case "seal":
			a.Extents, err = t.Seal(context.Background())
		case "verify":
			err = t.Verify(true)
		case "release":
			err = t.Release(t.Epoch() - 1)
		}
		a.Stats = t.Stats()
		if a.Lost = errors.Is(err, track.ErrLost); err != nil {
			a.Err = err.Error()
		}
		if err := out.Encode(a); err != nil {
			return err
		}
	}
}

// owner is the process as the test sees it.
type owner struct {
	t           *testing.T
	dir, device string
	cmd         *exec.Cmd
	in          *gob.Encoder
	out         *gob.Decoder
	kills       int
	resizing    bool       // the disk has another size than at the last sync
	anew        bool       // the tracking was begun anew, which was said: the copy is worth nothing
	stats       ebpf.Stats // since the process was started
	sum         ebpf.Stats // of those that were killed
}

// start runs an owner, and again after it was killed.
func (o *owner) start() {
	o.t.Helper()
	exe, err := os.Executable()
	if err != nil {
		o.t.Fatal(err)
	}
	first := o.cmd == nil
	o.cmd = exec.Command(exe, o.device)
	o.cmd.Env = append(os.Environ(), ownerVariable+"="+o.dir)
	o.cmd.Stderr = os.Stderr
	in, err := o.cmd.StdinPipe()
	if err != nil {
		o.t.Fatal(err)
	}
	out, err := o.cmd.StdoutPipe()
	if err != nil {
		o.t.Fatal(err)
	}
	if err := o.cmd.Start(); err != nil {
		o.t.Fatal(err)
	}
	o.in, o.out = gob.NewEncoder(in), gob.NewDecoder(bufio.NewReader(out))
	var a answer
	if err := o.out.Decode(&a); err != nil {
		o.t.Fatalf("start an owner: %v", err)
	}
	switch { // an owner that is killed while it makes bitmaps of another size leaves nothing to go on with
	case first && a.Resumed, !first && !a.Resumed && !o.resizing:
		o.t.Fatalf("an owner was started: resumed %v, the first one %v", a.Resumed, first)
	case !first && !a.Resumed:
		o.anew = true
	}
}

// kill ends the process at once and starts the next one. pause runs while there is none.
func (o *owner) kill(pause func()) {
	o.t.Helper()
	_ = o.cmd.Process.Kill()
	_ = o.cmd.Wait()
	pause()
	o.kills++
	o.sum.Drained += o.stats.Drained
	o.sum.Lingered += o.stats.Lingered
	o.sum.Sealed += o.stats.Sealed
	o.stats = ebpf.Stats{}
	o.start()
}

// ask returns what the owner answers. One that is killed meanwhile is followed by another, which is asked again.
func (o *owner) ask(what request) answer {
	o.t.Helper()
	for {
		var a answer
		if o.in.Encode(what) == nil && o.out.Decode(&a) == nil {
			o.stats = a.Stats
			return a
		}
		if o.cmd.ProcessState == nil {
			_ = o.cmd.Wait()
		}
		if o.cmd.ProcessState.Success() || o.cmd.ProcessState.Exited() {
			o.t.Fatalf("an owner ended by itself: %v", o.cmd.ProcessState)
		}
		o.kill(func() {})
	}
}

// stop ends the process, which leaves the tracking at work, and then takes that away.
func (o *owner) stop() {
	_ = o.cmd.Process.Kill()
	_ = o.cmd.Wait()
	m, err := ebpf.Open(ebpf.Config{Dir: o.dir})
	if err == nil {
		err = m.Destroy()
	}
	if err != nil {
		o.t.Error(err)
	}
}
