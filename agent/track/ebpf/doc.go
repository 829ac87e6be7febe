// Package ebpf tracks what is written to the disks of a Linux machine with programs on the kernel's block tracepoints, which set
// bits in bitmaps inside the kernel. There is no kernel module, and no stream of events that could overflow. It owns the programs,
// their maps, the bpffs that they are pinned on, and the accounting that shows when a mark was lost. It never writes to a disk,
// and it never reports less than what was written without saying track.ErrLost.
//
// What a caller does at a capture, for each disk:
//
//	freeze the filesystems
//	es, err := t.Seal(ctx)      // flips, waits for the writes in flight, collects: milliseconds, several disks at once if liked
//	verr := t.Verify(true)      // after Seal, still frozen: the kernel's byte counters against the marks
//	read es from the device with O_DIRECT, never before Seal returned
//	thaw
//	t.Release(epoch)            // when it is durable elsewhere
//
// Seal alone is enough between captures, with everything running: what is written while it is being read is in the next epoch, too.
// A mark that was lost shows only in Verify, and the epochs since the Verify before may be those that lack it: a capture whose
// Verify did not return nil is no recovery point before the disk was compared as a whole.
//
// A process that ends, however it ends, leaves the programs at work. The next one to open the same directory adopts them, if it sees
// the same mounts: a mount namespace that ends with its process takes the pins along.
package ebpf
