// Package workflow owns what each job does, task by task. Its Engine moves every job that has not ended: tasks of the control
// plane run inside the transaction that saves their outcome, tasks of workers are put into the queue and their results taken
// back. Everything it knows is in the store, so that it may be killed anywhere and started again. It must never decide what
// state an item is in (service/dr does) nor touch a bucket or a hypervisor (workers do).
package workflow
