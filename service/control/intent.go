package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/lifeboat-dr/lifeboat/service/dr"
	"github.com/lifeboat-dr/lifeboat/service/job"
	"github.com/lifeboat-dr/lifeboat/service/store"
)

// IntentInput is the body of a protection intent PUT. What it names by path may be named by its last segment.
type IntentInput struct {
	Machine                           string // protectable item
	PrimaryLocation, RecoveryLocation string
	Policy                            string          // existing policy; empty: the one that the machine's container is under
	Input                             json.RawMessage // as sent
}

// IntentView is a protection intent and how far it came.
type IntentView struct {
	Intent   dr.Intent
	JobState job.State // NotStarted while there is no job
}

// PutIntent keeps the wish that a machine be protected between two regions, and protects it when the machine is known; KeepIntents
// does so when it becomes known. Put again, it tries again.
func (s *Service) PutIntent(ctx context.Context, vaultID, name string, in IntentInput) (v IntentView, err error) {
	if err := checkName("protection intent", name); err != nil {
		return v, err
	}
	wish := dr.Intent{Meta: dr.Meta{Name: name}, Vault: vaultID, Machine: lastSegment(in.Machine), Input: in.Input, Wanted: in.Machine, PrimaryLocation: in.PrimaryLocation,
		RecoveryLocation: in.RecoveryLocation, Policy: in.Policy}
	if err := s.pursue(ctx, &wish, known{}); err != nil {
		return v, err
	}
	err = s.store.Update(ctx, func(tx store.Tx) error {
		i, ok, err := find[dr.Intent](tx, KindIntent, fold(vaultID, name))
		if err != nil {
			return err
		}
		now := wish
		if ok {
			now.Meta = i.Meta
			now.Item, now.Job = dr.ItemID(or(string(now.Item), string(i.Item))), or(now.Job, i.Job)
		}
		if now.Item != "" {
			now.Waiting = ""
		}
		if err := saveIntent(tx, &now, s.now()); err != nil {
			return err
		}
		v, err = intentView(tx, now)
		return err
	})
	return v, err
}

// saveIntent saves an intent, under those that wait as long as it does.
func saveIntent(tx store.Tx, i *dr.Intent, now time.Time) error {
	key := fold(i.Vault, i.Name)
	if err := save(tx, KindIntent, key, i, now); err != nil {
		return err
	}
	if i.Item == "" {
		_, err := tx.Put(KindWaitingIntent, key, -1, struct{}{})
		return err
	}
	if err := tx.Delete(KindWaitingIntent, key, -1); err != nil && !errors.Is(err, store.ErrNotFound) {
		return err
	}
	return nil
}

// pursue protects the machine that an intent names, if it is known, and records in the intent what came of it. What stands in the
// way of protecting a machine that is known is an error.
func (s *Service) pursue(ctx context.Context, i *dr.Intent, k known) error {
	var ref Ref
	var enable EnableInput
	err := s.store.View(ctx, func(tx store.Tx) (err error) {
		ref, enable, i.Waiting, err = planIntent(tx, i, k)
		return err
	})
	if err != nil || ref.Container == "" {
		return err
	}
	job, err := s.Enable(ctx, ref, enable)
	if err != nil {
		return err
	}
	return s.store.View(ctx, func(tx store.Tx) error {
		it, err := load[dr.Item](tx, KindItem, ref.itemKey())
		i.Item, i.Job, i.Machine, i.Waiting = it.ID, job, it.FriendlyName, ""
		return err
	})
}

// known are the machines of fabrics, by fabric and then by what an intent may call them, as far as they were looked up.
type known map[string]map[string]dr.ProtectableItem

func (k known) machine(tx store.Tx, f dr.Fabric, name string) (dr.ProtectableItem, bool, error) {
	fabric := under(f.Vault, f.Name)
	if k[fabric] == nil {
		machines, err := all[dr.ProtectableItem](tx, KindProtectable, fabric)
		if err != nil {
			return dr.ProtectableItem{}, false, err
		}
		k[fabric] = map[string]dr.ProtectableItem{}
		for _, m := range machines {
			for _, n := range []string{m.Name, m.FriendlyName} {
				if old, ok := k[fabric][strings.ToLower(n)]; !ok || old.AgentID == "" {
					k[fabric][strings.ToLower(n)] = m
				}
			}
		}
	}
	m, ok := k[fabric][strings.ToLower(name)]
	return m, ok, nil
}

// planIntent finds what an intent names. Without a container in the answer the machine is waited for, and waiting says why.
func planIntent(tx store.Tx, i *dr.Intent, k known) (ref Ref, in EnableInput, waiting string, err error) {
	primary, err := region(tx, i.Vault, "primaryLocation", i.PrimaryLocation)
	if err != nil {
		return ref, in, "", err
	}
	recovery, err := region(tx, i.Vault, "recoveryLocation", i.RecoveryLocation)
	if err != nil {
		return ref, in, "", err
	}
	if primary.ID == recovery.ID {
		return ref, in, "", &dr.Error{Code: dr.CodeInvalid, Message: fmt.Sprintf("%s is on both sides", i.PrimaryLocation), PossibleCauses: "a machine is protected to another site", RecommendedAction: "name another region in recoveryLocation"}
	}
	m, ok, err := k.machine(tx, primary, lastSegment(i.Wanted))
	switch {
	case err != nil:
		return ref, in, "", err
	case !ok:
		return ref, in, fmt.Sprintf("fabric %s of %s knows no machine %s yet: enrol an agent there", primary.Name, i.PrimaryLocation, lastSegment(i.Wanted)), nil
	case m.AgentID == "":
		return ref, in, fmt.Sprintf("no agent has enrolled from machine %s yet", m.FriendlyName), nil
	}
	policy, err := intentPolicy(tx, m, i.Policy)
	if err != nil {
		return ref, in, "", err
	}
	return Ref{Vault: i.Vault, Fabric: m.Fabric, Container: m.Container, Name: i.Name}, EnableInput{PolicyID: policy, ProtectableItemID: m.Name, ProviderInput: i.Input}, "", nil
}

// region finds the fabric that stands for a location.
func region(tx store.Tx, vaultID, field, location string) (dr.Fabric, error) {
	fabrics, err := all[dr.Fabric](tx, KindFabric, vaultID+"/")
	for _, f := range fabrics {
		if f.Kind == dr.FabricAzure && strings.EqualFold(jsonField(f.Input, "location"), location) {
			return f, nil
		}
	}
	return dr.Fabric{}, orRefusal(err, &dr.Error{Code: dr.CodeInvalid, Message: fmt.Sprintf("%s %q is the location of no fabric of this vault", field, location), PossibleCauses: "no Azure fabric stands for that region",
		RecommendedAction: "create a fabric with customDetails of instanceType Azure and that location"})
}

func intentPolicy(tx store.Tx, m dr.ProtectableItem, given string) (string, error) {
	if given != "" {
		return lastSegment(given), nil
	}
	mappings, err := all[dr.Mapping](tx, KindMapping, under(m.Vault, m.Fabric, m.Container))
	if err != nil {
		return "", err
	}
	for _, c := range mappings {
		p, err := LoadPolicy(tx, m.Vault, c.PolicyName)
		if err != nil {
			return "", err
		}
		if p.Provider == dr.ProviderA2A {
			return p.Name, nil
		}
	}
	return "", &dr.Error{Code: dr.CodeInvalid, Message: fmt.Sprintf("container %s is under no policy of A2A", m.Container), PossibleCauses: "no container mapping was made",
		RecommendedAction: "map the container, or name a policy in protectionProfileCustomInput"}
}

// Intent returns one intent.
func (s *Service) Intent(ctx context.Context, vaultID, name string) (v IntentView, err error) {
	err = s.store.View(ctx, func(tx store.Tx) error {
		i, err := load[dr.Intent](tx, KindIntent, fold(vaultID, name))
		if err != nil {
			return err
		}
		v, err = intentView(tx, i)
		return err
	})
	return v, err
}

// Intents lists a vault's intents by name.
func (s *Service) Intents(ctx context.Context, vaultID string, p Paging) (out Page[IntentView], err error) {
	err = s.store.View(ctx, func(tx store.Tx) error {
		out, err = mapped(tx, KindIntent, vaultID+"/", p, func(i dr.Intent) (IntentView, error) { return intentView(tx, i) })
		return err
	})
	return out, err
}

func intentView(tx store.Tx, i dr.Intent) (IntentView, error) {
	v := IntentView{Intent: i, JobState: job.NotStarted}
	if i.Job == "" {
		return v, nil
	}
	j, err := LoadJob(tx, i.Vault, i.Job)
	if dr.CodeOf(err) == dr.CodeNotFound {
		return v, nil
	}
	v.JobState = j.State
	return v, err
}

// Eligibility tells what stands in the way of protecting the machine with the name, among those discovered in the vaults of a
// resource group.
func (s *Service) Eligibility(ctx context.Context, subscription, resourceGroup, machine string) (out []dr.Obstacle, err error) {
	found := false
	err = s.store.View(ctx, func(tx store.Tx) error {
		vaults, err := all[dr.Vault](tx, KindVault, under(subscription, resourceGroup))
		if err != nil {
			return err
		}
		out = []dr.Obstacle{}
		for _, v := range vaults {
			machines, err := all[dr.ProtectableItem](tx, KindProtectable, v.ID+"/")
			if err != nil {
				return err
			}
			for _, m := range machines {
				if !strings.EqualFold(m.FriendlyName, machine) && !strings.EqualFold(m.Name, machine) {
					continue
				}
				found = true
				if out, err = obstacles(tx, m); err != nil || len(out) == 0 {
					return err // one vault that can protect it is enough
				}
			}
		}
		return nil
	})
	if err == nil && !found {
		err = &dr.Error{Code: dr.CodeNotFound, Message: fmt.Sprintf("no vault of resource group %s knows a machine %s", resourceGroup, machine), PossibleCauses: "its agent has not enrolled, or the name is misspelled",
			RecommendedAction: "enrol the machine's agent, or add the machine with discoverProtectableItem"}
	}
	return out, err
}

func obstacles(tx store.Tx, m dr.ProtectableItem) ([]dr.Obstacle, error) {
	out := []dr.Obstacle{}
	if m.ProtectedAs != "" {
		out = append(out, dr.Obstacle{Code: "AlreadyProtected", Message: fmt.Sprintf("machine %s is protected already", m.FriendlyName), PossibleCauses: "a protected item covers it", RecommendedAction: "use that item, or remove it first"})
	}
	v, err := protectableView(tx, m)
	for _, p := range v.Problems {
		o := dr.Obstacle{Code: "DiskUnsupported", Message: p, PossibleCauses: "the agent cannot replicate the disk", RecommendedAction: "leave the disk out, or attach it in another way"}
		if m.AgentID == "" {
			o = dr.Obstacle{Code: "AgentMissing", Message: p, PossibleCauses: "lifeboat-agent is not installed, or has not enrolled", RecommendedAction: "install lifeboat-agent on the machine and enrol it"}
		}
		out = append(out, o)
	}
	return out, err
}
