package main

import (
	"context"
	"errors"
)

// rebuildDataDir makes a data directory for lifeboatd from a catalogue.
func rebuildDataDir(ctx context.Context, dir, bucket string, c catalogue) error {
	return errors.New("not there yet")
}
