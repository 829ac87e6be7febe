package control

import (
	"context"
	"slices"
	"strings"

	"github.com/lifeboat-dr/lifeboat/service/dr"
	"github.com/lifeboat-dr/lifeboat/service/store"
)

// GroupMember is an item that is to be captured together with its consistency group, its policy and its agent.
type GroupMember struct {
	Item   dr.Item
	Policy dr.Policy
	Agent  dr.Agent
}

func groupKey(it *dr.Item) string {
	return fold(it.Vault, it.MultiVMGroup, string(it.ID))
}

// GroupMembers returns the items that are to be captured together with the item now, itself among them, ordered by id.
func (s *Service) GroupMembers(ctx context.Context, it dr.Item) (out []GroupMember, err error) {
	err = s.store.View(ctx, func(tx store.Tx) error {
		out = nil
		return tx.List(KindGroupItem, under(it.Vault, it.MultiVMGroup), "", 0, func(_ string, _ int64, decode func(any) error) error {
			var key string
			if err := decode(&key); err != nil {
				return err
			}
			m := GroupMember{}
			var err error
			if m.Item, err = load[dr.Item](tx, KindItem, key); err != nil {
				return err
			}
			if !strings.EqualFold(m.Item.MultiVMGroup, it.MultiVMGroup) { // it was enabled anew, with another group
				return nil
			}
			if m.Policy, err = LoadPolicy(tx, m.Item.Vault, m.Item.PolicyName); err != nil {
				return err
			}
			if !m.Item.InGroup(m.Policy) {
				return nil
			}
			if m.Agent, err = LoadAgent(tx, m.Item.AgentID); err != nil {
				return err
			}
			out = append(out, m)
			return nil
		})
	})
	slices.SortFunc(out, func(a, b GroupMember) int { return strings.Compare(string(a.Item.ID), string(b.Item.ID)) })
	return out, err
}

// nameMissed puts names to the members that an agent's report says missed.
func nameMissed(tx store.Tx, o *dr.Observed, vault string) error {
	if o.Group == nil {
		return nil
	}
	for i := range o.Group.Missed {
		m := &o.Group.Missed[i]
		it, err := LoadItem(tx, m.Item)
		switch {
		case dr.CodeOf(err) == dr.CodeNotFound:
		case err != nil:
			return err
		case it.Vault == vault: // another vault's names are none of its business
			m.Name = it.FriendlyName
		}
	}
	return nil
}
