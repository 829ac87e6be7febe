package control

import (
	"context"
	"time"

	"github.com/lifeboat-dr/lifeboat/service/dr"
	"github.com/lifeboat-dr/lifeboat/service/store"
)

// MachineState is how the replication of one machine stands.
type MachineState struct {
	Vault, Name string // of the vault and of the machine, as people call them
	ID          dr.ItemID
	Health      string
	Policy      dr.Policy
	Observed    dr.Observed
	Lag         time.Duration // RPO lag; HasPoint is false while there is none
	HasPoint    bool
}

// statePage is how many machines are read in one transaction.
const statePage = 200

// MachineStates returns the state of the machines that replicate in all vaults, of the first limit in an order that lasts, and how
// many more there are. A machine that changes meanwhile is seen as it was or as it is.
func (s *Service) MachineStates(ctx context.Context, limit int) (out []MachineState, more int, err error) {
	vaults, err := s.AllVaults(ctx)
	if err != nil {
		return nil, 0, err
	}
	names := map[string]string{}
	for _, v := range vaults {
		names[v.ID] = v.Name
	}
	for after, first := "", true; first || after != ""; first = false {
		var page []MachineState
		var rest int
		var next string
		err := s.store.View(ctx, func(tx store.Tx) error {
			items, last, err := SomeItems(tx, after, statePage)
			page, rest, next = nil, 0, last
			for i := range items {
				if err != nil {
					break
				}
				if !dr.Replicates(items[i].State.Phase) {
					continue
				}
				if len(out)+len(page) >= limit {
					rest++
					continue
				}
				var m MachineState
				m, err = s.machineState(tx, &items[i])
				m.Vault = names[items[i].Vault]
				page = append(page, m)
			}
			return err
		})
		if err != nil {
			return nil, 0, err
		}
		out, more, after = append(out, page...), more+rest, next
	}
	return out, more, nil
}

func (s *Service) machineState(tx store.Tx, it *dr.Item) (MachineState, error) {
	e, err := EvidenceFor(tx, it)
	if err != nil {
		return MachineState{}, err
	}
	now := s.now()
	m := MachineState{Name: it.FriendlyName, ID: it.ID, Policy: e.Policy, Observed: e.Observed}
	m.Health, _ = dr.Judge(e, now)
	m.Lag, m.HasPoint = dr.RPOLag(e, now)
	return m, nil
}
