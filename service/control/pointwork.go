package control

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/lifeboat-dr/lifeboat/service/dr"
	"github.com/lifeboat-dr/lifeboat/service/job"
	"github.com/lifeboat-dr/lifeboat/service/store"
)

// CaptureNow asks the machine's agent for a recovery point beyond those of the policy. The job ends when the point is in the
// index.
func (s *Service) CaptureNow(ctx context.Context, ref Ref) (string, error) {
	return s.beside(ctx, ref, job.PlanCapture, "", func(_ store.Tx, it *dr.Item, _ *Request) error {
		if !dr.Replicates(it.State.Phase) || it.Fenced || it.Generation == 0 {
			return &dr.Error{Code: dr.CodeConflict, Message: fmt.Sprintf("%s is not replicating now", it.FriendlyName), PossibleCauses: "it is being enabled, was failed over, or its point log is closed",
				RecommendedAction: "wait until protectionState is Protected"}
		}
		return nil
	})
}

// VerifyPoint reads every byte of a point and checks it. The job fails when one is bad.
func (s *Service) VerifyPoint(ctx context.Context, ref Ref, pointID string) (string, error) {
	return s.beside(ctx, ref, job.PlanVerifyPoint, pointID, func(tx store.Tx, it *dr.Item, r *Request) error {
		return aboutPoint(tx, it, pointID, r)
	})
}

// ExportPoint writes a disk image of every disk of a point into directory at the worker.
func (s *Service) ExportPoint(ctx context.Context, ref Ref, pointID, format, directory string) (string, error) {
	formats := []string{job.FormatRaw, job.FormatVHDFixed, job.FormatQCOW2, job.FormatVHDX, job.FormatVMDK}
	if !slices.Contains(formats, format) || directory == "" {
		return "", &dr.Error{Code: dr.CodeInvalid, Message: fmt.Sprintf("a point cannot be exported as %q into %q", format, directory), PossibleCauses: "the format is unknown, or the directory is missing",
			RecommendedAction: fmt.Sprintf("send one of %v and a directory at the replicator", formats)}
	}
	return s.beside(ctx, ref, job.PlanExportPoint, pointID, func(tx store.Tx, it *dr.Item, r *Request) error {
		r.Format, r.Directory = format, directory
		return aboutPoint(tx, it, pointID, r)
	})
}

func aboutPoint(tx store.Tx, it *dr.Item, pointID string, r *Request) error {
	p, err := LoadPointByID(tx, it.ID, pointID)
	r.Point = p.Ref()
	return err
}

// beside starts a job about an item, or about one of its points, that changes nothing of the item's state, so that it may run
// beside an operation.
func (s *Service) beside(ctx context.Context, ref Ref, plan, pointID string, prepare func(store.Tx, *dr.Item, *Request) error) (string, error) {
	var id string
	err := s.store.Update(ctx, func(tx store.Tx) error {
		now := s.now()
		it, err := load[dr.Item](tx, KindItem, ref.itemKey())
		if err != nil {
			return err
		}
		about := itemTarget(&it)
		if pointID != "" {
			about.path += "/recoveryPoints/" + pointID
		}
		if id, err = repeated(ctx, tx, it.Vault, plan, about.path, now); err != nil || id != "" {
			return err
		}
		if err := refuseRemoved(tx, &it); err != nil {
			return err
		}
		j := newJob(ctx, it.Vault, plan, about, now)
		var r Request
		if err := prepare(tx, &it, &r); err != nil {
			return err
		}
		if j.Input, err = json.Marshal(r); err != nil {
			return err
		}
		j.Item, j.State, id = string(it.ID), job.InProgress, j.ID
		if err := remember(ctx, tx, plan, j, now); err != nil {
			return err
		}
		return SaveJob(tx, j)
	})
	if err != nil {
		return "", err
	}
	return id, nil
}
