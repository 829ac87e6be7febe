package control

import (
	"context"
	"errors"
	"strings"

	"github.com/lifeboat-dr/lifeboat/service/dr"
	"github.com/lifeboat-dr/lifeboat/service/job"
	"github.com/lifeboat-dr/lifeboat/service/store"
)

// ItemEvent makes an event about an item; code names its definition.
func ItemEvent(it *dr.Item, code string, severity dr.Severity, description string) dr.Event {
	return dr.Event{ID: newID(), Vault: it.Vault, Type: "VmHealth", Code: dr.NamedGUID("event", code), Severity: severity, Description: description,
		ObjectName: it.FriendlyName, ObjectID: it.CorrelationID, Fabric: it.Fabric, Container: it.Container, Provider: dr.Project(it.State).Provider}
}

// Events lists a vault's events, newest first.
func (s *Service) Events(ctx context.Context, vaultID string, f EventFilter, p Paging) (out Page[dr.Event], err error) {
	err = s.store.View(ctx, func(tx store.Tx) error {
		out = Page[dr.Event]{Items: []dr.Event{}}
		prefix, limit, last := vaultID+"/", p.limit(), ""
		stop := errors.New("page is full")
		err := tx.List(KindEvent, prefix, p.after(prefix), 0, func(key string, _ int64, decode func(any) error) error {
			var e dr.Event
			if err := decode(&e); err != nil {
				return err
			}
			if !f.takes(e) {
				return nil
			}
			if len(out.Items) == limit {
				out.Next = strings.TrimPrefix(last, prefix)
				return stop
			}
			out.Items, last = append(out.Items, e), key
			return nil
		})
		if errors.Is(err, stop) {
			err = nil
		}
		return err
	})
	return out, err
}

func (f EventFilter) takes(e dr.Event) bool {
	eq := func(want, got string) bool { return want == "" || strings.EqualFold(want, got) }
	return eq(f.Code, e.Code) && eq(f.Type, e.Type) && eq(f.Severity, string(e.Severity)) && eq(f.Fabric, e.Fabric) && eq(f.ObjectName, e.ObjectName) && eq(f.ObjectID, e.ObjectID) &&
		(f.From.IsZero() || !e.Time.Before(f.From)) && (f.To.IsZero() || !e.Time.After(f.To))
}

// Event returns one event by its name.
func (s *Service) Event(ctx context.Context, vaultID, name string) (e dr.Event, err error) {
	id := name[strings.LastIndexByte(name, '_')+1:]
	err = s.store.View(ctx, func(tx store.Tx) error {
		e, err = load[dr.Event](tx, KindEvent, vaultID+"/"+newestFirst(id))
		if dr.CodeOf(err) == dr.CodeNotFound || err == nil && !strings.EqualFold(e.Name, name) {
			return notFound(KindEvent, name)
		}
		return err
	})
	return e, err
}

// VaultHealth sums the vault up.
func (s *Service) VaultHealth(ctx context.Context, vaultID string) (out VaultHealth, err error) {
	err = s.store.View(ctx, func(tx store.Tx) error {
		out = VaultHealth{Errors: []dr.HealthError{}, Items: summary(), Fabrics: summary(), Containers: summary()}
		now := s.now()
		policies := map[string]dr.Policy{}
		if err := tx.List(KindItem, vaultID+"/", "", 0, func(_ string, _ int64, decode func(any) error) error {
			var it dr.Item
			if err := decode(&it); err != nil {
				return err
			}
			e, err := evidence(tx, &it, policies)
			if err != nil {
				return err
			}
			health, errs := dr.Judge(e, now)
			out.Items.add(health, errs, "replicationProtectedItems", it.CorrelationID)
			return nil
		}); err != nil {
			return err
		}
		fabrics, err := all[dr.Fabric](tx, KindFabric, vaultID+"/")
		if err != nil {
			return err
		}
		for _, f := range fabrics {
			v, err := s.fabricParts(tx, f)
			if err != nil {
				return err
			}
			out.Fabrics.add(v.Health, v.Errors, "replicationFabrics", f.ID)
		}
		n, err := count(tx, KindContainer, vaultID+"/", 0)
		out.Containers.Count, out.Containers.Categorized[dr.HealthNormal] = n, n
		return err
	})
	return out, err
}

func summary() HealthSummary {
	return HealthSummary{Categorized: map[string]int{dr.HealthNormal: 0, dr.HealthWarning: 0, dr.HealthCritical: 0}, Issues: []HealthIssue{}}
}

func (h *HealthSummary) add(health string, errs []dr.HealthError, kind, correlation string) {
	h.Count++
	h.Categorized[health]++
	for _, e := range errs {
		i := 0
		for ; i < len(h.Issues) && h.Issues[i].Code != e.Code; i++ {
		}
		if i == len(h.Issues) {
			h.Issues = append(h.Issues, HealthIssue{Code: e.Code, Category: e.Category, Severity: e.Level, Message: or(e.Summary, e.Message), ResourceType: kind})
		}
		h.Issues[i].CorrelationIDs = append(h.Issues[i].CorrelationIDs, correlation)
	}
}

// VaultUsage counts what the vault holds.
func (s *Service) VaultUsage(ctx context.Context, vaultID string) (u VaultUsage, err error) {
	health, err := s.VaultHealth(ctx, vaultID)
	if err != nil {
		return u, err
	}
	err = s.store.View(ctx, func(tx store.Tx) error {
		u = VaultUsage{Items: health.Items.Count, UnhealthyItems: health.Items.Categorized[dr.HealthCritical], UnhealthyProviders: health.Fabrics.Categorized[dr.HealthCritical]}
		if u.Providers, err = count(tx, KindProvider, vaultID+"/", 0); err != nil {
			return err
		}
		if u.Plans, err = count(tx, KindRecoveryPlan, vaultID+"/", 0); err != nil {
			return err
		}
		if u.Events, err = count(tx, KindEvent, vaultID+"/", 0); err != nil {
			return err
		}
		for _, c := range []struct {
			state job.State
			n     *int
		}{{job.Failed, &u.FailedJobs}, {job.Suspended, &u.SuspendedJobs}, {job.NotStarted, &u.InProgressJobs}, {job.InProgress, &u.InProgressJobs}, {job.Cancelling, &u.InProgressJobs}} {
			n, err := count(tx, KindJobState, jobStatePrefix(vaultID, c.state), 0)
			if err != nil {
				return err
			}
			*c.n += n
		}
		return nil
	})
	return u, err
}
