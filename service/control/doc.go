// Package control owns the use cases: what a client, an agent or a replicator can ask of the control plane. Each one loads
// documents, lets service/dr decide, and saves the new state, the job it needs and the events in one transaction. It must never
// do a job's work (service/workflow does) nor know HTTP (api does).
package control
