package control

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/lifeboat-dr/lifeboat/service/dr"
	"github.com/lifeboat-dr/lifeboat/service/job"
	"github.com/lifeboat-dr/lifeboat/service/store"
)

// ReassociateInput is the body of a fabric's reassociateGateway. With UpdateType serverlevel every item of the source server
// moves, otherwise those named.
type ReassociateInput struct {
	Container, Source, Target string
	Items                     []string // names or ids of protected items
	UpdateType                string   // systemlevel or serverlevel
}

func fabricTarget(ref Ref) target {
	return target{kind: "Server", name: ref.Fabric, path: ref.fabricPath(), id: dr.NamedGUID("fabric", ref.Vault, fold(ref.Fabric))}
}

// MigrateToAad refuses: there is no directory to move a fabric to.
func (s *Service) MigrateToAad(ctx context.Context, ref Ref) (string, error) {
	return "", s.store.View(ctx, func(tx store.Tx) error {
		f, err := load[dr.Fabric](tx, KindFabric, fold(ref.Vault, ref.Fabric))
		if err != nil {
			return err
		}
		return &dr.Error{Code: dr.CodeUnimplemented, Message: fmt.Sprintf("fabric %s cannot be moved to a directory", f.Name), PossibleCauses: "this server knows no directory: parts of a site prove themselves with certificates of its own authority",
			RecommendedAction: "leave it as it is; agents and replicators renew their certificates by themselves"}
	})
}

// RenewCertificate records that certificates were asked to be renewed. Agents and replicators renew theirs by themselves, long
// before they end, so there is nothing to wait for.
func (s *Service) RenewCertificate(ctx context.Context, ref Ref, kind string) (string, error) {
	if kind != "" && !strings.EqualFold(kind, "Cloud") {
		return "", &dr.Error{Code: dr.CodeInvalid, Message: fmt.Sprintf("renewCertificateType is %q", kind), PossibleCauses: "it is not a kind of certificate", RecommendedAction: "send Cloud"}
	}
	return s.atOnce(ctx, ref.Vault, job.PlanRenewCertificate, fabricTarget(ref), func(tx store.Tx, _ time.Time) error {
		_, err := load[dr.Fabric](tx, KindFabric, fold(ref.Vault, ref.Fabric))
		return err
	})
}

// ReassociateGateway lets another process server take the data of machines of a fabric first.
func (s *Service) ReassociateGateway(ctx context.Context, ref Ref, in ReassociateInput) (string, error) {
	return s.atOnce(ctx, ref.Vault, job.PlanReassociate, fabricTarget(ref), func(tx store.Tx, now time.Time) error {
		f, err := load[dr.Fabric](tx, KindFabric, fold(ref.Vault, ref.Fabric))
		if err != nil {
			return err
		}
		to, err := requireProcessServer(tx, "targetProcessServerId", in.Target)
		if err != nil {
			return err
		}
		items, err := all[dr.Item](tx, KindItem, under(f.Vault, f.Name))
		if err != nil {
			return err
		}
		whole, moved := strings.EqualFold(in.UpdateType, "serverlevel"), map[string]bool{}
		for _, it := range items {
			named := slices.ContainsFunc(in.Items, func(n string) bool {
				n = lastSegment(n)
				return strings.EqualFold(n, it.Name) || strings.EqualFold(n, it.InternalID)
			})
			served, err := newItemReader(tx).processServer(&it)
			if err != nil {
				return err
			}
			from := served != nil && strings.EqualFold(served.ID, lastSegment(in.Source))
			if !named && (!whole || !from) || in.Container != "" && !strings.EqualFold(in.Container, it.Container) {
				continue
			}
			moved[fold(it.Name)], moved[fold(it.InternalID)] = true, true
			it.ProcessServer = to.ID
			if err := SaveItem(tx, &it, now); err != nil {
				return err
			}
		}
		for _, n := range in.Items {
			if !moved[fold(lastSegment(n))] {
				return &dr.Error{Code: dr.CodeInvalid, Message: fmt.Sprintf("vmsToMigrate names %q, which is no protected item of fabric %s", n, f.Name),
					PossibleCauses: "the name is misspelled, or the item is in another container", RecommendedAction: "list replicationProtectedItems of the fabric"}
			}
		}
		return nil
	})
}

// ProviderInput is the body of a provider PUT.
type ProviderInput struct {
	MachineName, MachineID string
}

// PutProvider registers a replicator that has enrolled as a provider of a fabric.
func (s *Service) PutProvider(ctx context.Context, ref Ref, in ProviderInput) (string, error) {
	if err := checkName("recovery services provider", ref.Name); err != nil {
		return "", err
	}
	t := target{kind: "Server", name: ref.Name, path: ref.providerPath()}
	return s.atOnce(ctx, ref.Vault, job.PlanRegisterProvider, t, func(tx store.Tx, now time.Time) error {
		f, err := load[dr.Fabric](tx, KindFabric, fold(ref.Vault, ref.Fabric))
		if err != nil {
			return err
		}
		reps, err := LoadReplicators(tx)
		if err != nil {
			return err
		}
		i := slices.IndexFunc(reps, func(r dr.Replicator) bool {
			return (r.Vault == "" || r.Vault == f.Vault) && (strings.EqualFold(r.ID, in.MachineID) || strings.EqualFold(r.Hostname, in.MachineName) || strings.EqualFold(r.ID, in.MachineName))
		})
		if i < 0 {
			return &dr.Error{Code: dr.CodeConflict, Message: fmt.Sprintf("no replicator has enrolled from machine %s", in.MachineName),
				PossibleCauses: "lifeboat-replicator does not run there, or it enrolled under another host name", RecommendedAction: "create a registration key with role replicator in the fabric and enrol lifeboat-replicator with it"}
		}
		key := fold(f.Vault, f.Name, ref.Name)
		p, ok, err := find[dr.Provider](tx, KindProvider, key)
		if err != nil {
			return err
		}
		if !ok {
			p = dr.Provider{Meta: dr.Meta{Name: ref.Name}, ID: newID(), Vault: f.Vault, Fabric: f.Name}
		}
		p.ReplicatorID, p.Hostname = reps[i].ID, reps[i].Hostname
		return save(tx, KindProvider, key, &p, now)
	})
}
