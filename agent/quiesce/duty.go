package quiesce

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// errNoLonger is why a pre script is killed when its post script falls due.
var errNoLonger = errors.New("nobody waits for it any more")

// preRequest is the body of opPre: run the pre script, and from then on owe the post script.
type preRequest struct {
	Scripts     Scripts
	Consistency string
	Limit       time.Duration // how long the application may stand once its pre script is done
}

// scriptAnswer is the body of the answers to opPre and opPost.
type scriptAnswer struct {
	Path, Output, Error string // of the script that failed
	NotStarted          bool   // and neither will the post script be
	Expired             bool   // the post script was run before it was asked for
}

func answerOf(err error) (a scriptAnswer) {
	if s, ok := errors.AsType[*ScriptError](err); ok {
		return scriptAnswer{Path: s.Path, Output: s.Output, Error: s.Err.Error()}
	}
	if err != nil {
		a.Error = err.Error()
	}
	return a
}

// duty is what the dead-man owes for a pre script that was started: the post script, once. It falls due when the guard asks for it,
// when the guard is gone, or at its deadline.
type duty struct {
	req   preRequest
	log   *slog.Logger
	lock  *os.File
	score []byte // the scripts' oom_score_adj: the dead-man's own protection is not theirs
	kill  context.CancelCauseFunc
	pre   chan struct{} // closed when the pre script is gone
	thaw  func()        // lets go what is frozen, before the post script
	once  sync.Once

	mu      sync.Mutex  // guards the rest
	timer   *time.Timer // begins anew when the pre script is done
	settled bool        // no answer to opPre any more
	answer  scriptAnswer
}

// newDuty starts the pre script. Its answer is sent when it is done, unless the post script was asked for before.
func newDuty(conn *net.UnixConn, req preRequest, score []byte, log *slog.Logger, thaw func()) (*duty, error) {
	lock, err := lockScripts(req.Scripts)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	d := &duty{req: req, log: log, lock: lock, score: score, kill: cancel, pre: make(chan struct{}), thaw: thaw}
	d.mu.Lock()
	d.timer = time.AfterFunc(req.Scripts.timeout()+outputDelay+req.Limit, func() { d.settle("the deadline passed") })
	d.mu.Unlock()
	go func() {
		defer close(d.pre)
		var err error
		d.asOthers(func() { _, err = req.Scripts.pre(ctx, req.Consistency) })
		d.mu.Lock()
		defer d.mu.Unlock()
		if d.settled {
			return
		}
		d.timer.Reset(req.Limit)
		send(conn, opPre, answerOf(err))
	}()
	return d, nil
}

// lockScripts keeps two agents' scripts apart: a restarted agent must not quiesce what the dead-man of the one before is about to
// let go again. The lock is on the script itself, and ends with this process.
func lockScripts(s Scripts) (*os.File, error) {
	path := s.Post
	if path == "" {
		path = s.Pre
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, &ScriptError{Path: path, Err: err}
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(&ScriptError{Path: path, Err: fmt.Errorf("lock the script: %w", err)}, f.Close())
	}
	return f, nil
}

// due tells whether the post script is to be run, is run or was run.
func (d *duty) due() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.settled
}

// settle runs the post script unless that was done. Whoever comes second waits for the first. why is empty when the guard asked.
func (d *duty) settle(why string) scriptAnswer {
	d.once.Do(func() {
		d.mu.Lock()
		d.timer.Stop()
		d.settled = true
		d.mu.Unlock()
		d.kill(errNoLonger)
		<-d.pre
		d.thaw()
		var output string
		var err error
		start := time.Now()
		d.asOthers(func() { output, err = d.req.Scripts.post(d.req.Consistency) })
		a := answerOf(err)
		a.Expired = why != ""
		d.mu.Lock()
		d.answer = a
		d.mu.Unlock()
		err = errors.Join(err, d.lock.Close())
		if why == "" {
			return // the guard logs it
		}
		attrs := []any{"reason", why, "script", d.req.Scripts.Post, "output", output, "dur", time.Since(start)}
		if err != nil {
			d.log.Error("post script, run by the dead-man, ended with an error", append(attrs, "err", err)...)
		} else {
			d.log.Warn("post script was run by the dead-man", attrs...)
		}
	})
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.answer
}

// asOthers runs a script without the dead-man's protection from a lack of memory, which it would inherit. Nothing is frozen then.
func (d *duty) asOthers(run func()) {
	set := func(b []byte) { _ = os.WriteFile("/proc/self/oom_score_adj", b, 0) }
	if len(d.score) == 0 {
		run()
		return
	}
	set(d.score)
	defer set([]byte(unkillable))
	run()
}

func send(conn *net.UnixConn, op byte, a scriptAnswer) {
	b, err := json.Marshal(a)
	if err != nil { // strings and booleans
		panic(err)
	}
	_, _ = conn.Write(append([]byte{op}, b...)) // a guard that is gone shows in the next read
}
