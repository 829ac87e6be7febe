// Package bench measures Lifeboat beside its peers on one machine in one run: first copy, restore and drill times with their
// spread, peak memory of each process, and the ratios that the goals are stated in. It never runs in a test.
package bench
