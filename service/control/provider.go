package control

import (
	"context"
	"time"

	"github.com/lifeboat-dr/lifeboat/service/dr"
	"github.com/lifeboat-dr/lifeboat/service/job"
	"github.com/lifeboat-dr/lifeboat/service/store"
)

func (r Ref) providerPath() string {
	return r.fabricPath() + "/replicationRecoveryServicesProviders/" + r.Name
}

// Providers lists the providers of a fabric, or of the vault when ref.Fabric is empty.
func (s *Service) Providers(ctx context.Context, ref Ref, p Paging) (out Page[ProviderView], err error) {
	err = s.store.View(ctx, func(tx store.Tx) error {
		if err := requireFabric(tx, Ref{Vault: ref.Vault, Fabric: ref.Fabric}); err != nil {
			return err
		}
		out, err = mapped(tx, KindProvider, under(ref.Vault, ref.Fabric), p, func(v dr.Provider) (ProviderView, error) { return s.providerView(tx, v) })
		return err
	})
	return out, err
}

// Provider returns one provider.
func (s *Service) Provider(ctx context.Context, ref Ref) (v ProviderView, err error) {
	err = s.store.View(ctx, func(tx store.Tx) error {
		p, err := load[dr.Provider](tx, KindProvider, fold(ref.Vault, ref.Fabric, ref.Name))
		if err != nil {
			return err
		}
		v, err = s.providerView(tx, p)
		return err
	})
	return v, err
}

func (s *Service) providerView(tx store.Tx, p dr.Provider) (ProviderView, error) {
	v := ProviderView{Provider: p}
	var err error
	if v.Fabric, err = load[dr.Fabric](tx, KindFabric, fold(p.Vault, p.Fabric)); err != nil {
		return v, err
	}
	if v.Items, err = countedItems(tx, under(p.Vault, p.Fabric)); err != nil {
		return v, err
	}
	if p.AgentID != "" {
		a, err := LoadAgent(tx, p.AgentID)
		if err != nil {
			return v, err
		}
		v.Provider.LastHeartbeat, v.Provider.AgentVersion, v.Provider.Hostname = a.LastHeartbeat, a.AgentVersion, a.Hostname
		v.Connected = s.now().Sub(a.LastHeartbeat) <= dr.HeartbeatLimit
		return v, nil
	}
	r, ok, err := find[dr.Replicator](tx, KindReplicator, p.ReplicatorID)
	if ok {
		v.Replicator = &r
		v.Provider.LastHeartbeat, v.Provider.AgentVersion, v.Provider.Hostname = r.LastHeartbeat, r.AgentVersion, r.Hostname
		v.Connected = s.now().Sub(r.LastHeartbeat) <= dr.HeartbeatLimit
	}
	return v, err
}

// RemoveProvider forgets a provider.
func (s *Service) RemoveProvider(ctx context.Context, ref Ref) (string, error) {
	t := target{kind: "Server", name: ref.Name, path: ref.providerPath(), removed: true}
	return s.atOnce(ctx, ref.Vault, job.PlanRemoveProvider, t, func(tx store.Tx, _ time.Time) error {
		p, err := load[dr.Provider](tx, KindProvider, fold(ref.Vault, ref.Fabric, ref.Name))
		if err != nil {
			return err
		}
		names, err := namesUnder(tx, KindItem, under(p.Vault, p.Fabric))
		if err != nil {
			return err
		}
		others, err := count(tx, KindProvider, under(p.Vault, p.Fabric), 2)
		if err != nil {
			return err
		}
		if len(names) > 0 && others < 2 {
			return inUse("recovery services provider", p.Name, names, "remove the protected items, or register another provider in the fabric first")
		}
		return tx.Delete(KindProvider, fold(p.Vault, p.Fabric, p.Name), p.Version)
	})
}

// RefreshProvider asks the provider to discover again. Replicators report all they see every few seconds, so there is nothing
// to wait for.
func (s *Service) RefreshProvider(ctx context.Context, ref Ref) (string, error) {
	t := target{kind: "Server", name: ref.Name, path: ref.providerPath()}
	return s.atOnce(ctx, ref.Vault, job.PlanRefreshProvider, t, func(tx store.Tx, _ time.Time) error {
		_, err := load[dr.Provider](tx, KindProvider, fold(ref.Vault, ref.Fabric, ref.Name))
		return err
	})
}
