package repo

import (
	"context"
	"errors"
	"fmt"
)

// ReplaceVaultFile puts a file that NewVaultFile made in the place of the bucket's vault.json, in one write: at every moment one
// of the two is there whole. It reads back what it wrote; when that is damaged and cannot be made good, the old file is put back
// and the error is ErrCorrupt. Other errors leave either file, and the call may be repeated. ErrInvalid: the file is none, or is
// of another vault.
func (r *Repository) ReplaceVaultFile(ctx context.Context, file []byte) error {
	v, err := parseVaultFile(file)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if v.VaultID != r.vault {
		return fmt.Errorf("%w: vault file of %s for vault %s", ErrInvalid, v.VaultID, r.vault)
	}
	old, err := r.s.get(ctx, vaultName, maxVaultFile)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return err
	}
	if err := r.checkVaultFile(ctx, file); err == nil {
		return nil // written by a call whose answer was lost
	}
	for range 2 {
		if err = r.s.put(ctx, vaultName, file, false); err != nil {
			return err
		}
		if err = r.checkVaultFile(ctx, file); err == nil || !errors.Is(err, ErrCorrupt) {
			return err
		}
	}
	if _, bad := parseVaultFile(old); bad == nil {
		err = errors.Join(err, r.s.put(ctx, vaultName, old, false))
	}
	return err
}
