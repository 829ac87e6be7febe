// Package tracefs tracks what is written to the disks of a Linux machine by the events of the block layer in the kernel's trace
// buffers, for kernels that have no type information and so cannot run the programs of package ebpf. It owns an instance of the
// tracing system, its buffers, and the bitmaps it makes of them. Events that were overwritten before they were read are counted by
// the kernel, and lose the epoch for all disks. It never writes to a disk, and nothing of it outlives the process.
//
// A caller does the same at a capture as with package ebpf: freeze, Seal, Verify, read, thaw.
package tracefs
