package control_test

import (
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/service/control"
	"github.com/lifeboat-dr/lifeboat/service/dr"
	"github.com/lifeboat-dr/lifeboat/service/store"
)

func TestTheNumberOfItemsIsKept(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	_, _, ref := manyItems(t, f, 40, 0)
	want := func(what string, n int) {
		t.Helper()
		c, err := f.Container(t.Context(), ref)
		if err != nil || c.Items != n {
			t.Errorf("%s: got %d items of the container, %v, want %d", what, c.Items, err, n)
		}
		v, err := f.Fabric(t.Context(), ref)
		if err != nil || v.Items != n {
			t.Errorf("%s: got %d items of the fabric, %v, want %d", what, v.Items, err, n)
		}
	}
	want("as protected", 40)
	change := func(fn func(tx store.Tx) error) {
		t.Helper()
		if err := f.store.Update(t.Context(), fn); err != nil {
			t.Fatal(err)
		}
	}
	items, err := f.Items(t.Context(), ref, control.ItemFilter{}, control.Paging{})
	if err != nil {
		t.Fatal(err)
	}
	removed := func(it dr.Item) func(tx store.Tx) error {
		return func(tx store.Tx) error { return control.DeleteItem(tx, &it, time.Now()) }
	}
	change(removed(items.Items[0].Item))
	change(removed(items.Items[0].Item)) // is gone already
	it := items.Items[1].Item
	change(func(tx store.Tx) error { return control.SaveItem(tx, &it, time.Now()) })
	want("one removed, one changed", 39)

	// A database of a version that kept no number.
	change(func(tx store.Tx) error {
		return tx.List(control.KindItemCount, "", "", 0, func(key string, _ int64, _ func(any) error) error { return tx.Delete(control.KindItemCount, key, -1) })
	})
	want("nothing kept", 0)
	for range 2 {
		if err := f.CountItems(t.Context()); err != nil {
			t.Fatal(err)
		}
		want("counted", 39)
	}
	for _, v := range items.Items[1:] {
		change(removed(v.Item))
	}
	want("all removed", 0)
}
