package workflow

import (
	"encoding/json"

	"github.com/lifeboat-dr/lifeboat/service/control"
	"github.com/lifeboat-dr/lifeboat/service/job"
)

func init() {
	register(job.PlanReissueKey, job.StepWriteVaultFile, step{payload: func(r *run) (any, error) {
		file, err := control.NextVaultFile(r.tx, r.job.Vault)
		if err != nil || file == nil {
			return nil, err
		}
		return job.VaultFileWrite{VaultID: r.job.Vault, File: file}, nil
	}, apply: func(r *run, _ json.RawMessage) error { return control.TakeVaultFile(r.tx, r.job, r.now) }})
}
