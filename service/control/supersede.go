package control

import (
	"fmt"
	"time"

	"github.com/lifeboat-dr/lifeboat/service/dr"
	"github.com/lifeboat-dr/lifeboat/service/job"
	"github.com/lifeboat-dr/lifeboat/service/store"
)

// SupersedeJobs cancels what still runs for an item that goes, but for remover, the job that removes it: nobody waits any more
// for disks to fill, and a point that is being read or held goes with all others. Each of them ends Cancelled and says which job
// took over. It returns how many have not ended yet; asking again changes nothing more.
func SupersedeJobs(tx store.Tx, it *dr.Item, remover *job.Job, now time.Time) (running int, err error) {
	ids, err := OpenJobs(tx)
	if err != nil {
		return 0, err
	}
	for _, id := range ids {
		j, ok, err := LoadOpenJob(tx, id)
		if err != nil {
			return running, err
		}
		if !ok || j.Item != string(it.ID) || j.ID == remover.ID {
			continue
		}
		running++
		if j.Superseded != "" || j.Plan == job.PlanReleasePoint { // what it gives back must not stay held if the removal fails
			continue
		}
		j.Superseded, j.State = remover.ID, job.Cancelling
		message := fmt.Sprintf("cancelled because %s is no longer to be protected (job %s)", it.FriendlyName, remover.ID)
		if j.SettledEarly {
			message = fmt.Sprintf("the operation had taken effect; what was left to clean up behind it was taken over by job %s, which ends the protection of %s", remover.ID, it.FriendlyName)
		}
		j.Errors = append(j.Errors, job.Error{Code: string(dr.CodeConflict), Message: message, PossibleCauses: "protection was disabled, or the item was purged, while the job ran",
			RecommendedAction: "nothing needs to be done", Level: dr.LevelWarning, Created: now})
		if err := SaveJob(tx, &j); err != nil {
			return running, err
		}
	}
	return running, nil
}

// refuseRemoved refuses work beside an item that is being removed.
func refuseRemoved(tx store.Tx, it *dr.Item) error {
	if it.State.PendingJob == "" {
		return nil
	}
	j, ok, err := LoadOpenJob(tx, it.State.PendingJob)
	if err != nil || !ok || !j.Removed {
		return err
	}
	return &dr.Error{Code: dr.CodeConflict, Message: fmt.Sprintf("the protection of %s is being disabled by job %s", it.FriendlyName, j.ID), PossibleCauses: "its recovery points are about to be deleted",
		RecommendedAction: "cancel that job if the points are still wanted, then try again"}
}
