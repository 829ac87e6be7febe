package control

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/lifeboat-dr/lifeboat/service/dr"
	"github.com/lifeboat-dr/lifeboat/service/job"
	"github.com/lifeboat-dr/lifeboat/service/store"
)

func storageMappingKey(ref Ref, class string) string {
	return fold(ref.Vault, ref.Fabric, class, ref.Name)
}

func storageMappingTarget(ref Ref, class string) target {
	return target{kind: "Other", name: ref.Name, path: ref.fabricPath() + "/replicationStorageClassifications/" + class + "/replicationStorageClassificationMappings/" + ref.Name,
		id: dr.NamedGUID("storageMapping", storageMappingKey(ref, class))}
}

// StorageClassification returns one class of storage.
func (s *Service) StorageClassification(ctx context.Context, ref Ref) (c dr.StorageClassification, err error) {
	err = s.store.View(ctx, func(tx store.Tx) error {
		c, err = load[dr.StorageClassification](tx, KindStorageClassification, ref.fabricChildKey())
		return err
	})
	return c, err
}

// StorageClassifications lists the classes of storage of a fabric, or of the vault when ref.Fabric is empty.
func (s *Service) StorageClassifications(ctx context.Context, ref Ref, p Paging) (out Page[dr.StorageClassification], err error) {
	err = s.store.View(ctx, func(tx store.Tx) error {
		if err := requireFabric(tx, ref); err != nil {
			return err
		}
		out, err = list[dr.StorageClassification](tx, KindStorageClassification, under(ref.Vault, ref.Fabric), p)
		return err
	})
	return out, err
}

// PutStorageMapping sends disks of a class of storage to the class with the ARM id targetID, in another fabric. ref.Name is the
// mapping's.
func (s *Service) PutStorageMapping(ctx context.Context, ref Ref, class, targetID string) (string, error) {
	if err := checkName("storage mapping", ref.Name); err != nil {
		return "", err
	}
	to, err := classOf(targetID)
	if err != nil {
		return "", err
	}
	return s.atOnce(ctx, ref.Vault, job.PlanMapStorage, storageMappingTarget(ref, class), func(tx store.Tx, now time.Time) error {
		from, err := load[dr.StorageClassification](tx, KindStorageClassification, fold(ref.Vault, ref.Fabric, class))
		if err != nil {
			return err
		}
		into, ok, err := find[dr.StorageClassification](tx, KindStorageClassification, fold(ref.Vault, to.Fabric, to.Name))
		if err != nil || !ok {
			return orRefusal(err, &dr.Error{Code: dr.CodeInvalid, Message: fmt.Sprintf("targetStorageClassificationId %q names no class of storage of this vault", targetID),
				PossibleCauses: "it was not discovered, or is in another vault", RecommendedAction: "list replicationStorageClassifications of the vault"})
		}
		if strings.EqualFold(into.Fabric, from.Fabric) {
			return &dr.Error{Code: dr.CodeInvalid, Message: fmt.Sprintf("both classes of storage are in fabric %s", from.Fabric), PossibleCauses: "disks are sent to another site", RecommendedAction: "name a class of storage of another fabric"}
		}
		others, err := all[dr.StorageMapping](tx, KindStorageMapping, under(ref.Vault, from.Fabric, from.Name))
		if err != nil {
			return err
		}
		m := dr.StorageMapping{Meta: dr.Meta{Name: ref.Name}, Vault: ref.Vault, Fabric: from.Fabric, Classification: from.Name}
		for _, o := range others {
			switch {
			case strings.EqualFold(o.Name, ref.Name):
				m.Meta = o.Meta
			case strings.EqualFold(o.TargetFabric, into.Fabric):
				return &dr.Error{Code: dr.CodeConflict, Message: fmt.Sprintf("%s is mapped to fabric %s by %s already", from.Name, into.Fabric, o.Name), PossibleCauses: "a class of storage has one mapping to each fabric",
					RecommendedAction: "remove that mapping first"}
			}
		}
		m.TargetFabric, m.Target = into.Fabric, into.Name
		return save(tx, KindStorageMapping, storageMappingKey(ref, class), &m, now)
	})
}

// classOf reads fabric and name from the ARM id of a class of storage.
func classOf(id string) (Ref, error) {
	s := strings.Split(strings.Trim(id, "/"), "/")
	if n := len(s); n >= 4 && strings.EqualFold(s[n-4], "replicationFabrics") && strings.EqualFold(s[n-2], "replicationStorageClassifications") {
		return Ref{Fabric: s[n-3], Name: s[n-1]}, nil
	}
	return Ref{}, &dr.Error{Code: dr.CodeInvalid, Message: fmt.Sprintf("targetStorageClassificationId %q is not the path of a class of storage", id), PossibleCauses: "it is empty or names another kind of resource",
		RecommendedAction: "send an id that ends in replicationFabrics/{fabric}/replicationStorageClassifications/{name}"}
}

// StorageMapping returns one mapping.
func (s *Service) StorageMapping(ctx context.Context, ref Ref, class string) (m dr.StorageMapping, err error) {
	err = s.store.View(ctx, func(tx store.Tx) error {
		m, err = load[dr.StorageMapping](tx, KindStorageMapping, storageMappingKey(ref, class))
		return err
	})
	return m, err
}

// StorageMappings lists the mappings of a class of storage, or of the vault when class is empty.
func (s *Service) StorageMappings(ctx context.Context, ref Ref, class string, p Paging) (out Page[dr.StorageMapping], err error) {
	err = s.store.View(ctx, func(tx store.Tx) error {
		if class != "" {
			if _, err := load[dr.StorageClassification](tx, KindStorageClassification, fold(ref.Vault, ref.Fabric, class)); err != nil {
				return err
			}
		}
		out, err = list[dr.StorageMapping](tx, KindStorageMapping, under(ref.Vault, ref.Fabric, class), p)
		return err
	})
	return out, err
}

// RemoveStorageMapping removes a mapping. It returns no job when there is none.
func (s *Service) RemoveStorageMapping(ctx context.Context, ref Ref, class string) (string, error) {
	t := storageMappingTarget(ref, class)
	t.removed = true
	return s.removeOne(ctx, ref.Vault, job.PlanUnmapStorage, t, KindStorageMapping, storageMappingKey(ref, class))
}

// removeOne removes a resource that nothing depends on, with its job. It returns no job when there is nothing to remove.
func (s *Service) removeOne(ctx context.Context, vault, plan string, t target, kind store.Kind, key string) (string, error) {
	return unlessAbsent(s.atOnce(ctx, vault, plan, t, func(tx store.Tx, _ time.Time) error { return tx.Delete(kind, key, -1) }))
}

// unlessAbsent turns the removal of what does not exist into one that is done already.
func unlessAbsent(id string, err error) (string, error) {
	if errors.Is(err, store.ErrNotFound) {
		return "", nil
	}
	return id, err
}
