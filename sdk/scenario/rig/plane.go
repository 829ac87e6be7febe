package rig

// Plane is a running Lifeboat: one lifeboatd and what belongs to it.
type Plane struct {
	API           *API
	DataDir       string
	Address       string // host:port of lifeboatd
	Datastore     string // directory of the production machines
	DatastoreName string // its name at the master target
	MasterTarget  string // id of the replicator that reaches Datastore
}
