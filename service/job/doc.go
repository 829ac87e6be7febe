// Package job owns jobs and tasks: durable work with a state, the tasks a job is made of, and the payloads that tasks carry to
// the workers. It uses the standard library only and does no I/O.
package job
