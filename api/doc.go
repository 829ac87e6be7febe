// Package api owns the HTTP edge of the control plane: the resource model of openapi/arm as official clients expect it on the
// wire (envelopes, errors, long-running operations, paging, case), authentication, and the control protocol of openapi/fleet.
// It turns requests into calls of service/control and views into bodies. It must never decide what an operation does, keep
// state, or show the cause of an internal error.
package api
