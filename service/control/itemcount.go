package control

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"

	"github.com/lifeboat-dr/lifeboat/service/dr"
	"github.com/lifeboat-dr/lifeboat/service/store"
)

// countParts is how many documents the number of a container's items is spread over, so that machines can be protected at the
// same time without waiting for one of them.
const countParts = 16

func countPrefix(it *dr.Item) string { return under(it.Vault, it.Fabric, it.Container) }

// countItem keeps the number of a container's items as one is added or removed.
func countItem(tx store.Tx, it *dr.Item, by int) error {
	h := fnv.New32a()
	_, _ = h.Write([]byte(it.ID)) // never fails
	return addCount(tx, fmt.Sprintf("%s%x", countPrefix(it), h.Sum32()%countParts), by)
}

func addCount(tx store.Tx, key string, by int) error {
	n := 0
	version, err := tx.Get(KindItemCount, key, &n)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return err
	}
	switch n += by; {
	case n != 0:
		_, err = tx.Put(KindItemCount, key, version, n)
		return err
	case version != 0:
		return tx.Delete(KindItemCount, key, version)
	}
	return nil
}

// countedItems is how many items there are under a prefix of containers' keys.
func countedItems(tx store.Tx, prefix string) (sum int, err error) {
	err = tx.List(KindItemCount, prefix, "", 0, func(_ string, _ int64, decode func(any) error) error {
		n := 0
		err := decode(&n)
		sum += n
		return err
	})
	return sum, err
}

// CountItems corrects what is kept of the number of items: a database may be of a version that did not keep it.
func (s *Service) CountItems(ctx context.Context) error {
	var containers []dr.Container
	if err := s.store.View(ctx, func(tx store.Tx) (err error) {
		containers, err = all[dr.Container](tx, KindContainer, "")
		return err
	}); err != nil {
		return err
	}
	for _, c := range containers {
		prefix := under(c.Vault, c.Fabric, c.Name)
		if err := s.store.Update(ctx, func(tx store.Tx) error {
			there, err := count(tx, KindItem, prefix, 0)
			if err != nil {
				return err
			}
			counted, err := countedItems(tx, prefix)
			if err != nil || there == counted {
				return err
			}
			return addCount(tx, prefix+"0", there-counted)
		}); err != nil {
			return fmt.Errorf("count the items of container %s: %w", c.Name, err)
		}
	}
	return nil
}
