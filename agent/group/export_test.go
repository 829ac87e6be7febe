package group

import "time"

// Brisk has a node wait less, for tests.
func Brisk(c *Config) {
	c.limits = limits{reach: 2 * time.Second, gather: 10 * time.Second, prove: 4 * time.Second, patience: time.Second, first: time.Second}
}
