package quiesce

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// RunPre has the dead-man run the pre script. From then on the dead-man owes the post script: it runs it when RunPost asks, when
// this process is gone, or when limit has passed since the pre script was done, and then thaws what is frozen first. It returns a
// *ScriptError if the script failed, took too long, or cannot be run now because another agent's are not through. RunPost is to be
// called whatever RunPre returned. A context that ends returns its cause and leaves the script to RunPost.
func (g *Guard) RunPre(ctx context.Context, s Scripts, consistency string, limit time.Duration) error {
	if err := g.start(); err != nil {
		return err
	}
	g.owed, g.owedBy, g.killed = &preRequest{Scripts: s, Consistency: consistency, Limit: limit}, g.cmd, false
	body, err := json.Marshal(g.owed)
	if err != nil {
		return err
	}
	a, err := g.script(ctx, opPre, body, s.timeout())
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case err != nil:
		g.stop()
		return err
	case a.NotStarted:
		g.owed, g.owedBy = nil, nil
	}
	return a.err()
}

// RunPost has the post script run that is owed for RunPre, and does nothing if none is. It returns a *ScriptError if the script
// failed, and ErrExpired if it had to be run before. If the dead-man was killed, it runs the script itself.
func (g *Guard) RunPost() error {
	owed := g.owed
	if owed == nil {
		return nil
	}
	defer func() { g.owed, g.owedBy = nil, nil }()
	var lost error
	if g.conn != nil && g.cmd == g.owedBy {
		// A pre script that is still running is killed first.
		a, err := g.script(context.Background(), opPost, nil, g.postTime())
		if err == nil {
			if err = a.err(); a.Expired {
				err = errors.Join(ErrExpired, err)
			}
			return err
		}
		lost = err
		g.stop()
	}
	if !g.killed { // it ran the script when we hung up
		return errors.Join(lost, ErrExpired)
	}
	_, err := owed.Scripts.post(owed.Consistency)
	return errors.Join(lost, ErrExpired, err)
}

// postTime is how long the dead-man may need to do what it owes.
func (g *Guard) postTime() time.Duration {
	if g.owed == nil {
		return 0
	}
	return g.owed.Scripts.timeout() + 2*outputDelay
}

// script sends a request about scripts and waits for its answer. Answers that nobody waited for are passed over.
func (g *Guard) script(ctx context.Context, op byte, body []byte, limit time.Duration) (a scriptAnswer, err error) {
	_ = g.conn.SetDeadline(time.Now().Add(limit + outputDelay + replyGrace))
	cut := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(cut)
		_ = g.conn.SetReadDeadline(time.Now())
	})
	defer func() {
		if !stop() {
			<-cut // or it would cut off the next request
		}
	}()
	if _, err := g.conn.Write(append([]byte{op}, body...)); err != nil {
		return a, fmt.Errorf("%w: %w", ErrLost, err)
	}
	p := make([]byte, maxScriptMessage)
	for {
		n, err := g.conn.Read(p)
		if err != nil {
			return a, fmt.Errorf("%w: %w", ErrLost, err)
		}
		if n > 0 && p[0] == op {
			if err := json.Unmarshal(p[1:n], &a); err != nil {
				return a, fmt.Errorf("%w: %w", ErrLost, err)
			}
			return a, nil
		}
	}
}

func (a scriptAnswer) err() error {
	switch {
	case a.Error == "":
		return nil
	case a.Path == "":
		return errors.New(a.Error)
	}
	return &ScriptError{Path: a.Path, Output: a.Output, Err: errors.New(a.Error)}
}
