package control

import (
	"context"
	"errors"

	"github.com/lifeboat-dr/lifeboat/service/dr"
	"github.com/lifeboat-dr/lifeboat/service/store"
)

// outages is a store whose being away is told as an error of the domain: a caller is to try again, it did nothing wrong.
type outages struct{ store.Store }

func (o outages) View(ctx context.Context, fn func(store.Tx) error) error {
	return unavailable(o.Store.View(ctx, fn))
}

func (o outages) Update(ctx context.Context, fn func(store.Tx) error) error {
	return unavailable(o.Store.Update(ctx, fn))
}

func unavailable(err error) error {
	if errors.Is(err, store.ErrUnavailable) {
		return &dr.Error{Code: dr.CodeUnavailable, Message: "the database does not answer", PossibleCauses: "it is being restarted, is overloaded, or the network between is down",
			RecommendedAction: "try again; look at the database's log when it goes on", Err: err}
	}
	return err
}
