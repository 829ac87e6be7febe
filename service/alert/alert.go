// Package alert tells people of critical events: it takes the alerts that wait in the store, sends each through every channel
// until the channel has taken it, and forgets it then. An alert is told at least once, by whichever lifeboatd claims it. The
// package must never lose one because a process was killed, and never hold up what made the event.
package alert

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/lifeboat-dr/lifeboat/service/control"
	"github.com/lifeboat-dr/lifeboat/service/dr"
	"github.com/lifeboat-dr/lifeboat/service/store"
)

// ErrRefused means that a channel will never take the message: trying again cannot help.
var ErrRefused = errors.New("alert: refused for good")

// Message is one alert on its way to people.
type Message struct {
	Vault dr.VaultKey
	Event dr.Event
	// Recipients are mail addresses, each once; empty when the vault's alert setting names nobody.
	Recipients []string
}

// Channel is a way to tell people. It is safe for concurrent use.
type Channel interface {
	// Name tells channels apart in the store, where an alert remembers who has taken it: it stays the same over restarts, and
	// holds no secret.
	Name() string
	// Deliver passes the message on before ctx ends. It may be called again with a message that it took, after a crash. An error
	// that is ErrRefused ends the attempts; every other is tried again later.
	Deliver(ctx context.Context, m Message) error
}

// Options tune a Sender. The zero value is good for production.
type Options struct {
	Deadline time.Duration // of one delivery; zero: 30 seconds
	Backoff  time.Duration // after the first failure, doubled after each; zero: 5 seconds
	GiveUp   time.Duration // age at which an alert is dropped; zero: 24 hours
	Poll     time.Duration // how often the store is looked at unasked; zero: 5 seconds
	// Owners are mailed for vaults whose setting says that owners are to be told.
	Owners []string
}

// At most batch alerts are taken from the store at once, and as many are being sent: memory and connections stay bounded however
// many wait.
const (
	batch      = 8
	maxBackoff = 15 * time.Minute
)

// Sender sends alerts. Make one with New.
type Sender struct {
	store    store.Store
	channels []Channel
	opt      Options
	log      *slog.Logger
	noMail   sync.Once
	full     bool
}

// New returns a Sender over the channels. Without any, alerts are forgotten as they come.
func New(s store.Store, channels []Channel, opt Options, log *slog.Logger) *Sender {
	def := func(d *time.Duration, v time.Duration) {
		if *d <= 0 {
			*d = v
		}
	}
	def(&opt.Deadline, 30*time.Second)
	def(&opt.Backoff, 5*time.Second)
	def(&opt.GiveUp, 24*time.Hour)
	def(&opt.Poll, 5*time.Second)
	return &Sender{store: s, channels: channels, opt: opt, log: log}
}

// Run sends until ctx ends and returns when the last delivery has ended; it is called once.
func (s *Sender) Run(ctx context.Context) {
	wake, stop := s.store.Subscribe(control.KindAlert)
	defer stop()
	tick := time.NewTicker(s.opt.Poll)
	defer tick.Stop()
	for {
		if sent := s.round(ctx); sent == batch && ctx.Err() == nil {
			continue
		}
		s.tellFull(ctx)
		select {
		case <-ctx.Done():
			return
		case <-wake:
		case <-tick.C:
		}
	}
}

// tellFull logs once when so many alerts wait that further ones are left out.
func (s *Sender) tellFull(ctx context.Context) {
	var waiting int
	err := s.store.View(ctx, func(tx store.Tx) (err error) {
		waiting, err = control.WaitingAlerts(tx)
		return err
	})
	full := err == nil && waiting >= control.MaxWaitingAlerts
	if full && !s.full {
		s.log.Error("alerts are left out: too many wait", "waiting", waiting)
	}
	s.full = full
}

// round sends the alerts that are due, at most batch, and returns how many it took.
func (s *Sender) round(ctx context.Context) int {
	var due []dr.Alert
	err := s.store.View(ctx, func(tx store.Tx) error {
		var err error
		due, err = control.DueAlerts(tx, time.Now().UTC(), batch)
		return err
	})
	if err != nil {
		if ctx.Err() == nil {
			s.log.Error("waiting alerts were not read", "err", err)
		}
		return 0
	}
	var sending sync.WaitGroup
	for _, a := range due {
		sending.Go(func() { s.tell(ctx, a) })
	}
	sending.Wait()
	return len(due)
}

// tell claims an alert, sends it through the channels that have not taken it, and settles it.
func (s *Sender) tell(ctx context.Context, a dr.Alert) {
	var m Message
	gone := false
	err := s.store.Update(ctx, func(tx store.Tx) error {
		v, err := control.LoadVaultByID(tx, a.Event.Vault)
		if dr.CodeOf(err) == dr.CodeNotFound {
			gone = true
			return control.DeleteAlert(tx, &a)
		}
		if err != nil {
			return err
		}
		setting, err := control.LoadAlertSetting(tx, v.ID)
		if err != nil {
			return err
		}
		m = Message{Vault: v.Key, Event: a.Event, Recipients: s.recipients(setting)}
		claimed := a
		claimed.Attempts++
		claimed.NextAt = time.Now().UTC().Add(2 * s.opt.Deadline)
		if err := control.SaveAlert(tx, &claimed, time.Now().UTC()); err != nil {
			return err
		}
		a = claimed
		return nil
	})
	if err != nil || gone {
		if err != nil && dr.CodeOf(err) != dr.CodePreconditionFailed && ctx.Err() == nil { // a conflict: another lifeboatd has it
			s.log.Error("an alert was not claimed", "event", a.Event.ID, "err", err)
		}
		return
	}
	if len(m.Recipients) > 0 && !slices.ContainsFunc(s.channels, func(c Channel) bool { return c.Name() == MailChannel }) {
		s.noMail.Do(func() { s.log.Warn("alerts name mail addresses, but no mail server is configured") })
	}
	told := s.deliver(ctx, m, a)
	s.settle(context.WithoutCancel(ctx), a, told)
}

func (s *Sender) recipients(a dr.AlertSetting) []string {
	all := slices.Clone(a.Addresses)
	if a.Owners() {
		all = append(all, s.opt.Owners...)
	}
	seen := map[string]bool{}
	return slices.DeleteFunc(all, func(addr string) bool {
		key := strings.ToLower(addr)
		dup := seen[key]
		seen[key] = true
		return dup
	})
}

// deliver returns the channels that need not be tried again.
func (s *Sender) deliver(ctx context.Context, m Message, a dr.Alert) []string {
	told := slices.Clone(a.Told)
	for _, c := range s.channels {
		if slices.Contains(told, c.Name()) {
			continue
		}
		once, cancel := context.WithTimeout(ctx, s.opt.Deadline)
		err := c.Deliver(once, m)
		cancel()
		switch {
		case err == nil:
			told = append(told, c.Name())
			s.log.Info("an alert was sent", "event", a.Event.ID, "channel", c.Name())
		case errors.Is(err, ErrRefused):
			told = append(told, c.Name())
			s.log.Error("an alert was refused", "event", a.Event.ID, "channel", c.Name(), "err", err)
		case ctx.Err() == nil:
			s.log.Warn("an alert was not sent and will be tried again", "event", a.Event.ID, "channel", c.Name(), "attempt", a.Attempts, "err", err)
		}
	}
	return told
}

// settle forgets an alert that all have taken, or that is too old, and lets any other wait for its next attempt.
func (s *Sender) settle(ctx context.Context, a dr.Alert, told []string) {
	now := time.Now().UTC()
	late := now.Sub(a.Event.Time) > s.opt.GiveUp
	done := len(told) >= len(s.channels)
	if late && !done {
		s.log.Error("an alert was given up", "event", a.Event.ID, "attempts", a.Attempts)
	}
	err := s.store.Update(ctx, func(tx store.Tx) error {
		if done || late {
			return control.DeleteAlert(tx, &a)
		}
		next := a
		next.Told, next.NextAt = told, now.Add(s.wait(a.Attempts))
		return control.SaveAlert(tx, &next, now)
	})
	if err != nil {
		s.log.Error("an alert was not settled and may be sent again", "event", a.Event.ID, "err", err)
	}
}

// wait is how long the attempt after the given one is put off.
func (s *Sender) wait(attempt int) time.Duration {
	return min(maxBackoff, s.opt.Backoff<<min(attempt-1, 16))
}
