package sqlstore

import (
	"errors"
	"fmt"
	"os"
	"syscall"
)

// ErrInUse means that a SQLite database is open already.
var ErrInUse = errors.New("sqlstore: another lifeboatd has this database open; stop it, or use another data directory")

// lockFile holds path until the file is closed or the process ends, however it ends. It is no file of SQLite's: closing one of
// those would drop the locks that SQLite has on it.
func lockFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		err = ErrInUse
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", path, err), f.Close())
	}
	return f, nil
}
