package api

import (
	"context"

	"github.com/lifeboat-dr/lifeboat/service/control"
	"github.com/lifeboat-dr/lifeboat/service/dr"
)

// nowhere is a control plane that holds nothing: every resource is absent. Its nil Control would panic if anything were asked of
// it that needs a vault.
type nowhere struct{ Control }

var errNowhere = &dr.Error{Code: dr.CodeNotFound, Message: "there is nothing here"}

func (nowhere) Vault(context.Context, dr.VaultKey) (dr.Vault, error) { return dr.Vault{}, errNowhere }

func (nowhere) PutVault(context.Context, dr.VaultKey, control.VaultInput) (control.PutVault, error) {
	return control.PutVault{}, errNowhere
}

func (nowhere) PatchVault(context.Context, dr.VaultKey, control.VaultPatch) (dr.Vault, error) {
	return dr.Vault{}, errNowhere
}

func (nowhere) Eligibility(context.Context, string, string, string) ([]dr.Obstacle, error) {
	return nil, errNowhere
}

func (nowhere) VaultNameFree(context.Context, dr.VaultKey) (bool, string, string, error) {
	return false, "", "", errNowhere
}
