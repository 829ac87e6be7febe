// Package priority puts the agent behind the machine's own work: its processor time, its reads, its memory. It changes this
// process and no other, and must never make it so slow that it cannot end what it holds up: while filesystems are frozen the
// machine waits for the agent, so nothing here may starve it.
package priority

import (
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"strconv"

	"golang.org/x/sys/unix"
)

const (
	// Nice leaves a busy machine's own work about nine tenths of a processor that both want (weight 110 against 1024,
	// kernel/sched/core.c).
	Nice = 10
	// OOMScore makes the kernel, when memory runs out, take the agent before most of what it protects. Replication then goes on
	// where it was.
	OOMScore = 500
	// HeapLimit bounds what Go takes. With the memory for the freeze window, 64 MiB, and the program's own pages the agent stays
	// below 150 MB.
	HeapLimit = 64 << 20

	// Of ioprio_set(2): best effort, the lowest of its levels. Not idle, which on a busy disk gets no turn at all: a capture's last
	// reads are made while the machine's writers stand and wait for them.
	ioprioBestEffort = 2 << 13
	ioprioLow        = ioprioBestEffort | 7
	ioprioDefault    = 0
	ioprioProcess    = 1 // IOPRIO_WHO_PROCESS: a thread
)

// Lower puts this process behind others. What does not work is in the error; the rest is done all the same. Programs that this
// process starts are behind others too, unless they call Normal. The limit of the heap is left alone where GOMEMLIMIT sets one.
func Lower() error {
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(HeapLimit)
	}
	return set(Nice, ioprioLow, OOMScore)
}

// Normal makes this process like any other again. Only a privileged process may; the error then says what did not work.
func Normal() error { return set(0, ioprioDefault, 0) }

func set(nice, ioprio, score int) error {
	errs := []error{threads(nice, ioprio)}
	if err := os.WriteFile("/proc/self/oom_score_adj", []byte(strconv.Itoa(score)), 0); err != nil {
		errs = append(errs, fmt.Errorf("set the score for when memory runs out: %w", err))
	}
	return errors.Join(errs...)
}

// threads sets the priorities of all threads: Linux keeps them by thread, and a new one has those of the one that made it. So it
// looks again until there is none that it has not seen.
func threads(nice, ioprio int) error {
	seen := map[int]bool{}
	for news := true; news; {
		news = false
		tasks, err := os.ReadDir("/proc/self/task")
		if err != nil {
			return fmt.Errorf("list this process's threads: %w", err)
		}
		for _, t := range tasks {
			id, err := strconv.Atoi(t.Name())
			if err != nil || seen[id] {
				continue
			}
			seen[id], news = true, true
			if err := unix.Setpriority(unix.PRIO_PROCESS, id, nice); err != nil && !errors.Is(err, unix.ESRCH) {
				return fmt.Errorf("set the processor priority to %d: %w", nice, err)
			}
			if _, _, errno := unix.Syscall(unix.SYS_IOPRIO_SET, ioprioProcess, uintptr(id), uintptr(ioprio)); errno != 0 && errno != unix.ESRCH {
				return fmt.Errorf("set the priority of reads and writes: %w", errno)
			}
		}
	}
	return nil
}
