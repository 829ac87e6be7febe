package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/lifeboat-dr/lifeboat/api"
	"github.com/lifeboat-dr/lifeboat/service/fleet"
	"github.com/lifeboat-dr/lifeboat/service/keyfile"
	"github.com/lifeboat-dr/lifeboat/service/store"
)

// What every lifeboatd on a database must have alike: the key file comes from the operator, everything else is in the database,
// sealed under it.

// openSealer opens the key file. A missing one is made only where nothing was sealed yet.
func openSealer(ctx context.Context, path string, db store.Store) (*keyfile.Sealer, error) {
	_, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		sealed, err := fleet.Founded(ctx, db)
		if err != nil {
			return nil, err
		}
		if sealed {
			return nil, fmt.Errorf("there is no key file %s, and the secrets in this database are sealed under one: copy it from a lifeboatd that has it, or name it with --key-file", path)
		}
	}
	return keyfile.Open(path)
}

// kindAdmin is the administrator's token, sealed, key "token": the first lifeboatd on a database makes it, the others get it.
const kindAdmin store.Kind = "admin"

const adminSeal = "admin token"

// openTokens reads the token file, made at the first start with a token for the administrator, whose secret is left in
// admin.token for who can read the data directory.
func openTokens(ctx context.Context, c config, db store.Store, seal fleet.Sealer) (*api.Tokens, error) {
	path := filepath.Join(c.DataDir, "admin.token")
	secret, err := adminToken(ctx, path, db, seal)
	if err != nil {
		return nil, fmt.Errorf("open the administrator's token: %w", err)
	}
	if _, err = os.Stat(c.TokenFile); errors.Is(err, fs.ErrNotExist) {
		// The secret first: a crash between the two makes both anew.
		if err := writeFile(path, []byte(secret+"\n"), 0o600); err != nil {
			return nil, fmt.Errorf("write admin.token: %w", err)
		}
		err = writeFile(c.TokenFile, []byte("# name role hash; see docs\nadmin "+string(api.RoleContributor)+" "+api.HashToken(secret)+"\n"), 0o600)
	}
	if err != nil {
		return nil, fmt.Errorf("make token file: %w", err)
	}
	return api.LoadTokens(c.TokenFile)
}

// adminToken returns the administrator's secret in the database. One that is in the data directory already, from before the
// database was shared, becomes it.
func adminToken(ctx context.Context, path string, db store.Store, seal fleet.Sealer) (secret string, err error) {
	fresh := api.NewToken()
	if raw, err := os.ReadFile(path); err == nil && strings.TrimSpace(string(raw)) != "" {
		fresh = strings.TrimSpace(string(raw))
	}
	var sealed []byte
	err = db.Update(ctx, func(tx store.Tx) error {
		_, err := tx.Get(kindAdmin, "token", &sealed)
		if !errors.Is(err, store.ErrNotFound) {
			return err
		}
		if sealed, err = seal.Seal([]byte(fresh), adminSeal); err != nil {
			return err
		}
		_, err = tx.Put(kindAdmin, "token", 0, sealed)
		return err
	})
	if err != nil {
		return "", err
	}
	plain, err := seal.Open(sealed, adminSeal)
	return string(plain), err
}
