package api

import (
	"bytes"
	"encoding/json"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/getkin/kin-openapi/openapi3"
)

// bodies makes bodies out of schemas: mostly right ones, with values from the edge of what is allowed and beyond, and damage.
// The same seed makes the same bodies.
type bodies struct{ r *rand.Rand }

func newBodies(seed uint64) *bodies { return &bodies{rand.New(rand.NewPCG(seed, 7))} }

// Words and numbers that have broken programs before.
var (
	hostileText = []string{"", " ", ".", "..", "a/b", "%2f", "../../etc/passwd", "\x00", "a\x00b", "\u202e", "\ufeff", "'; drop table x --", "${jndi:ldap://x}", "<script>", strings.Repeat("x", 5000),
		strings.Repeat("/", 300), "null", "true", "-1", "1e999", "0001-01-01T00:00:00", "9999-12-31T23:59:59.999999999Z", "P1Y", "\U0010ffff", "ı", "İ"}
	hostileNumbers = []json.Number{"0", "-1", "1", "2147483648", "-2147483649", "9223372036854775807", "9223372036854775808", "1e308", "1e999", "-0.5", "0.1", "1e-999"}
)

func anyOf[T any](b *bodies, from []T) T { return from[b.r.IntN(len(from))] }

// of makes a value of the schema.
func (b *bodies) of(schema *openapi3.Schema, deep int) any {
	switch {
	case schema == nil || deep > 8:
		return nil
	case schema.Discriminator != nil && len(schema.OneOf) > 0:
		kinds := slices.Sorted(maps.Keys(schema.Discriminator.Mapping))
		kind := anyOf(b, kinds)
		for _, variant := range schema.OneOf {
			if variant.Ref == schema.Discriminator.Mapping[kind].Ref {
				v := b.object(variant.Value, deep)
				v[schema.Discriminator.PropertyName] = kind
				return v
			}
		}
		return nil
	case len(schema.Enum) > 0:
		return anyOf(b, schema.Enum)
	case schema.Type.Is("object") || len(schema.Properties) > 0:
		return b.object(schema, deep)
	case schema.Type.Is("array"):
		out := []any{}
		for range b.r.IntN(3) {
			out = append(out, b.of(schema.Items.Value, deep+1))
		}
		return out
	case schema.Type.Is("integer"), schema.Type.Is("number"):
		if b.r.IntN(3) == 0 {
			return anyOf(b, hostileNumbers)
		}
		return b.r.IntN(1000)
	case schema.Type.Is("boolean"):
		return b.r.IntN(2) == 0
	default:
		return b.text(schema)
	}
}

func (b *bodies) text(schema *openapi3.Schema) string {
	switch {
	case b.r.IntN(3) == 0:
		return anyOf(b, hostileText)
	case schema.Format == "date-time":
		return "2026-01-31T10:00:00Z"
	default:
		return anyOf(b, []string{"web01", "true", "false", "None", vaultURL + "/replicationPolicies/p1", "Microsoft Azure", fabricURL})
	}
}

func (b *bodies) object(schema *openapi3.Schema, deep int) map[string]any {
	out := map[string]any{}
	for _, name := range slices.Sorted(maps.Keys(schema.Properties)) {
		if slices.Contains(schema.Required, name) || b.r.IntN(3) > 0 {
			out[name] = b.of(schema.Properties[name].Value, deep+1)
		}
	}
	if schema.AdditionalProperties.Schema != nil {
		out[anyOf(b, hostileText)] = b.of(schema.AdditionalProperties.Schema.Value, deep+1)
	}
	return out
}

// damage replaces, removes or adds something somewhere in the value.
func (b *bodies) damage(v any) any {
	switch v := v.(type) {
	case map[string]any:
		if len(v) > 0 && b.r.IntN(4) > 0 {
			name := anyOf(b, slices.Sorted(maps.Keys(v)))
			switch b.r.IntN(6) {
			case 0:
				delete(v, name)
			case 1:
				v[strings.ToUpper(name)] = v[name]
			default:
				v[name] = b.damage(v[name])
			}
			return v
		}
	case []any:
		if len(v) > 0 && b.r.IntN(4) > 0 {
			i := b.r.IntN(len(v))
			v[i] = b.damage(v[i])
			return v
		}
	}
	return anyOf(b, []any{nil, true, json.Number("7"), anyOf(b, hostileNumbers), anyOf(b, hostileText), []any{}, map[string]any{}, []any{nil, []any{v}}, map[string]any{"instanceType": "InMageRcm"},
		map[string]any{"instanceType": anyOf(b, hostileText)}, map[string]any{"": v}})
}

// bytes is the text of a value, now and then damaged too.
func (b *bodies) bytes(v any) []byte {
	raw, err := json.Marshal(v)
	if err != nil { // a number that is none: the words are sent as they are
		raw = []byte(`{"properties":1e}`)
	}
	switch i := b.r.IntN(len(raw) + 1); b.r.IntN(12) {
	case 0:
		return raw[:i]
	case 1:
		return slices.Insert(slices.Clone(raw), i, 0xff)
	case 2:
		return slices.Insert(slices.Clone(raw), i, []byte(`\ud800`)...)
	case 3:
		return append(raw, raw...)
	case 4:
		return slices.Concat([]byte("\xef\xbb\xbf"), raw)
	case 5:
		return bytes.ReplaceAll(raw, []byte(`"properties"`), []byte(`"properties":{},"properties"`))
	default:
		return raw
	}
}

// body is the n-th body for an operation: of its examples or its schema, whole or damaged.
func (b *bodies) body(op operation) []byte {
	media := op.op.RequestBody.Value.Content.Get("application/json")
	var v any
	if names := slices.Sorted(maps.Keys(media.Examples)); len(names) > 0 && b.r.IntN(2) == 0 {
		raw, err := json.Marshal(media.Examples[anyOf(b, names)].Value.Value)
		if err == nil {
			_ = json.Unmarshal(raw, &v) // it was marshalled just now
		}
	} else {
		v = b.of(media.Schema.Value, 0)
	}
	for range b.r.IntN(4) {
		v = b.damage(v)
	}
	return b.bytes(v)
}
