package repo

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/lifeboat-dr/lifeboat/replicator/manifest"
)

// minGrace is the shortest time that Prune leaves alone what nothing refers to.
const minGrace = time.Hour

// Pin keeps a point until Unpin with the same owner. It may be repeated. It returns ErrNotFound if the point is not there or
// was pruned meanwhile.
func (r *Repository) Pin(ctx context.Context, machine string, ref PointRef, owner string) error {
	if _, err := r.point(ctx, r.s, machine, ref); err != nil {
		return err
	}
	name := pinName(machine, ref, owner)
	p, err := r.rec.Seal(name, &manifest.Pin{Machine: machine, Point: manifest.Ref(ref), Owner: owner, Time: r.now()})
	if err != nil {
		return fmt.Errorf("%w: owner %q of a pin", ErrInvalid, owner)
	}
	if err := r.s.put(ctx, name, p, false); err != nil {
		return err
	}
	// Prune reads pins before it overwrites entries: either it saw this pin, or the entry tells now that it did not.
	if _, err := r.point(ctx, r.s, machine, ref); err != nil {
		if errors.Is(err, ErrNotFound) {
			err = errors.Join(err, r.s.remove(ctx, name))
		}
		return err
	}
	return nil
}

// Unpin takes an owner's pin away. One that is not there is no error.
func (r *Repository) Unpin(ctx context.Context, machine string, ref PointRef, owner string) error {
	if err := checkPlace(machine, ref.Generation); err != nil {
		return err
	}
	return r.s.remove(ctx, pinName(machine, ref, owner))
}
