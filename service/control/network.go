package control

import (
	"context"
	"errors"
	"time"

	"github.com/lifeboat-dr/lifeboat/service/dr"
	"github.com/lifeboat-dr/lifeboat/service/store"
)

// NetworkView is a network and the fabric it is in.
type NetworkView struct {
	Network dr.Network
	Fabric  dr.Fabric
}

// Discovered takes what a site's replicators see of it besides machines. What they no longer see is forgotten, unless a mapping
// refers to it.
func (s *Service) Discovered(ctx context.Context, ref Ref, in dr.Inventory) error {
	return s.store.Update(ctx, func(tx store.Tx) error {
		f, err := load[dr.Fabric](tx, KindFabric, fold(ref.Vault, ref.Fabric))
		if err != nil {
			return err
		}
		now, prefix := s.now(), under(f.Vault, f.Name)
		seen := map[string]bool{}
		for _, n := range in.Networks {
			n.Vault, n.Fabric, n.Implied = f.Vault, f.Name, false
			key := fold(f.Vault, f.Name, n.Name)
			seen[key] = true
			if err := observe(tx, KindNetwork, key, &n, now); err != nil {
				return err
			}
		}
		if err := forgetUnseen(tx, KindNetwork, KindNetworkMapping, prefix, seen); err != nil {
			return err
		}
		clear(seen)
		for _, n := range in.LogicalNetworks {
			n.Vault, n.Fabric = f.Vault, f.Name
			key := fold(f.Vault, f.Name, n.Name)
			seen[key] = true
			if err := observe(tx, KindLogicalNetwork, key, &n, now); err != nil {
				return err
			}
		}
		if err := forgetUnseen(tx, KindLogicalNetwork, "", prefix, seen); err != nil {
			return err
		}
		clear(seen)
		for _, c := range in.StorageClassifications {
			c.Vault, c.Fabric = f.Vault, f.Name
			key := fold(f.Vault, f.Name, c.Name)
			seen[key] = true
			if err := observe(tx, KindStorageClassification, key, &c, now); err != nil {
				return err
			}
		}
		return forgetUnseen(tx, KindStorageClassification, KindStorageMapping, prefix, seen)
	})
}

// observe saves a resource as it was seen, over what was known of it.
func observe[T any, P resource[T]](tx store.Tx, kind store.Kind, key string, v *T, now time.Time) error {
	old, ok, err := find[T, P](tx, kind, key)
	if err != nil {
		return err
	}
	if ok {
		m, before := P(v).Metadata(), P(&old).Metadata()
		m.Version, m.Created = before.Version, before.Created
	}
	return save[T, P](tx, kind, key, v, now)
}

func forgetUnseen(tx store.Tx, kind, mappings store.Kind, prefix string, seen map[string]bool) error {
	return tx.List(kind, prefix, "", 0, func(key string, _ int64, _ func(any) error) error {
		if seen[key] {
			return nil
		}
		if mappings != "" {
			if used, err := some(tx, mappings, key+"/"); err != nil || used {
				return err
			}
		}
		return tx.Delete(kind, key, -1)
	})
}

// Network returns one network.
func (s *Service) Network(ctx context.Context, ref Ref) (v NetworkView, err error) {
	err = s.store.View(ctx, func(tx store.Tx) error {
		n, err := load[dr.Network](tx, KindNetwork, ref.fabricChildKey())
		if err != nil {
			return err
		}
		v, err = networkView(tx, n)
		return err
	})
	return v, err
}

func networkView(tx store.Tx, n dr.Network) (NetworkView, error) {
	f, err := load[dr.Fabric](tx, KindFabric, fold(n.Vault, n.Fabric))
	return NetworkView{Network: n, Fabric: f}, err
}

// Networks lists the networks of a fabric, or of the vault when ref.Fabric is empty.
func (s *Service) Networks(ctx context.Context, ref Ref, p Paging) (out Page[NetworkView], err error) {
	err = s.store.View(ctx, func(tx store.Tx) error {
		if err := requireFabric(tx, ref); err != nil {
			return err
		}
		out, err = mapped(tx, KindNetwork, under(ref.Vault, ref.Fabric), p, func(n dr.Network) (NetworkView, error) { return networkView(tx, n) })
		return err
	})
	return out, err
}

// LogicalNetwork returns one logical network.
func (s *Service) LogicalNetwork(ctx context.Context, ref Ref) (n dr.LogicalNetwork, err error) {
	err = s.store.View(ctx, func(tx store.Tx) error {
		n, err = load[dr.LogicalNetwork](tx, KindLogicalNetwork, ref.fabricChildKey())
		return err
	})
	return n, err
}

// LogicalNetworks lists the logical networks of a fabric.
func (s *Service) LogicalNetworks(ctx context.Context, ref Ref, p Paging) (out Page[dr.LogicalNetwork], err error) {
	err = s.store.View(ctx, func(tx store.Tx) error {
		if err := requireFabric(tx, ref); err != nil {
			return err
		}
		out, err = list[dr.LogicalNetwork](tx, KindLogicalNetwork, under(ref.Vault, ref.Fabric), p)
		return err
	})
	return out, err
}

// dropImplied forgets a network that only its last mapping had made.
func dropImplied(tx store.Tx, key string) error {
	n, ok, err := find[dr.Network](tx, KindNetwork, key)
	if err != nil || !ok || !n.Implied {
		return err
	}
	if used, err := some(tx, KindNetworkMapping, key+"/"); err != nil || used {
		return err
	}
	if err := tx.Delete(KindNetwork, key, -1); err != nil && !errors.Is(err, store.ErrNotFound) {
		return err
	}
	return nil
}
