// Package openapi owns the documents that the API and the control protocol are made from: arm is the resource model, fleet is
// what agents and replicators speak. They are written by hand; everything generated from them is made by go generate. The
// package must never hold behaviour: it embeds and hands out documents.
package openapi

import _ "embed"

// Code is generated from the documents; run go generate ./openapi after changing one.
//go:generate go run ./cmd/bundle arm/openapi.yaml arm.bundled.json
//go:generate go tool oapi-codegen -config arm/server.cfg.yaml arm.bundled.json
//go:generate go tool oapi-codegen -config arm/client.cfg.yaml arm.bundled.json
//go:generate go -C fleet tool oapi-codegen -config server.cfg.yaml openapi.yaml
//go:generate go -C fleet tool oapi-codegen -config client.cfg.yaml openapi.yaml

// ARM is the bundled document of the resource model, as JSON. It is served as it is and must not be changed by readers.
//
//go:embed arm.bundled.json
var ARM []byte

// Fleet is the document of the control protocol, as YAML. It must not be changed by readers.
//
//go:embed fleet/openapi.yaml
var Fleet []byte
