package control

import (
	"context"
	"errors"
	"time"

	"github.com/lifeboat-dr/lifeboat/service/dr"
	"github.com/lifeboat-dr/lifeboat/service/store"
)

const (
	// intentPage is how many waiting intents are read at once.
	intentPage = 100
	// intentPoll is how often waiting intents are looked at unasked: word of what another process saved may get lost.
	intentPoll = time.Minute
)

// KeepIntents protects the machines that intents wait for, until ctx ends: whenever a machine, or something else that protecting it
// takes, has come up. Every lifeboatd on a store may do so: a machine is protected once.
func (s *Service) KeepIntents(ctx context.Context) {
	changed, stop := s.store.Subscribe(KindProtectable, KindFabric, KindContainer, KindMapping, KindPolicy)
	defer stop()
	tick := time.NewTicker(intentPoll)
	defer tick.Stop()
	for {
		if err := s.pursueAll(ctx); err != nil && ctx.Err() == nil {
			s.log.WarnContext(ctx, "waiting protection intents were not tried", "err", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
		case <-tick.C:
		}
	}
}

// pursueAll tries every waiting intent once. It ends early when the store fails.
func (s *Service) pursueAll(ctx context.Context) error {
	k := known{}
	for after := ""; ctx.Err() == nil; {
		var waiting []dr.Intent
		last := ""
		err := s.store.View(ctx, func(tx store.Tx) error {
			waiting, last = nil, ""
			return tx.List(KindWaitingIntent, "", after, intentPage, func(key string, _ int64, _ func(any) error) error {
				i, err := load[dr.Intent](tx, KindIntent, key)
				if err == nil {
					waiting, last = append(waiting, i), key
				}
				return err
			})
		})
		if err != nil {
			return err
		}
		for _, i := range waiting {
			if err := s.pursueAgain(ctx, i, k); err != nil {
				return err
			}
		}
		if len(waiting) < intentPage {
			return nil
		}
		after = last
	}
	return nil
}

// pursueAgain tries an intent that waits. What stands in the way is kept with it, and told once.
func (s *Service) pursueAgain(ctx context.Context, i dr.Intent, k known) error {
	before := i
	var problem *dr.Error
	if err := s.pursue(ctx, &i, k); err != nil {
		if problem = refusalOf(err); problem == nil {
			return err
		}
		i.Waiting = problem.Message + ": " + problem.RecommendedAction
	}
	if i.Waiting == before.Waiting && i.Item == "" {
		return nil
	}
	return s.store.Update(ctx, func(tx store.Tx) error {
		now, ok, err := find[dr.Intent](tx, KindIntent, fold(i.Vault, i.Name))
		if err != nil || !ok || now.Version != before.Version {
			return err // it was put again, or went with its vault
		}
		if problem != nil {
			e := intentEvent(&i, problem)
			if err := SaveEvent(tx, &e, s.now()); err != nil {
				return err
			}
		}
		saved := i
		return saveIntent(tx, &saved, s.now())
	})
}

// refusalOf is what a use case refused with; nil when something failed that has nothing to do with what was asked for.
func refusalOf(err error) *dr.Error {
	e, ok := errors.AsType[*dr.Error](err)
	if !ok || e.Code == dr.CodeInternal || dr.Retryable(e) {
		return nil
	}
	return e
}

func intentEvent(i *dr.Intent, problem *dr.Error) dr.Event {
	text := "Protection intent " + i.Name + " cannot be carried out: " + problem.Message
	return dr.Event{ID: newID(), Vault: i.Vault, Type: "VmHealth", Code: dr.NamedGUID("event", "ProtectionIntent"), Severity: dr.SeverityWarning, Description: text, ObjectName: i.Machine,
		HealthErrors: []dr.HealthError{{ID: dr.NamedGUID("health", i.Vault, i.Name), Code: string(problem.Code), Level: dr.LevelWarning, Category: dr.CategoryReplication, Message: text, Summary: text,
			PossibleCauses: problem.PossibleCauses, RecommendedAction: problem.RecommendedAction, Source: "Lifeboat"}}}
}
