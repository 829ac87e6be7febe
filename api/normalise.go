package api

import (
	"slices"
	"strings"

	"github.com/getkin/kin-openapi/openapi3"
)

// normalise makes a body out of what clients send: names of fields, discriminators and enumerated words take the document's
// case, null means absent, and an instanceType that the document does not know means that there is no input of that kind
// (clients send names of base classes). What the schema does not mention stays as it is.
func normalise(schema *openapi3.Schema, v any) any {
	if schema == nil {
		return v
	}
	if len(schema.OneOf) > 0 && schema.Discriminator != nil {
		return normaliseUnion(schema, v)
	}
	switch v := v.(type) {
	case map[string]any:
		return normaliseObject(schema, v)
	case []any:
		if schema.Items == nil {
			return v
		}
		out := v[:0]
		for _, e := range v {
			if e = normalise(schema.Items.Value, e); e != nil { // what is of a kind we do not know is left out
				out = append(out, e)
			}
		}
		return out
	case string:
		for _, e := range schema.Enum {
			if word, ok := e.(string); ok && strings.EqualFold(word, v) {
				return word
			}
		}
	}
	return v
}

func normaliseObject(schema *openapi3.Schema, in map[string]any) map[string]any {
	for name, v := range in {
		if _, known := schema.Properties[name]; known {
			continue
		}
		for property := range schema.Properties {
			if _, given := in[property]; !given && strings.EqualFold(property, name) {
				delete(in, name)
				in[property] = v
				break
			}
		}
	}
	for name, v := range in {
		if v == nil {
			delete(in, name)
			continue
		}
		property, ok := schema.Properties[name]
		if !ok {
			continue
		}
		required := slices.Contains(schema.Required, name)
		if out := normalise(property.Value, v); out != nil || required {
			if out == nil {
				out = v // a required union of a kind we do not know: validation says so by name
			}
			in[name] = out
		} else {
			delete(in, name)
		}
	}
	return in
}

// normaliseUnion returns nil for an unknown kind.
func normaliseUnion(schema *openapi3.Schema, v any) any {
	object, ok := v.(map[string]any)
	if !ok {
		return v
	}
	key := schema.Discriminator.PropertyName
	for name, v := range object {
		if _, given := object[key]; !given && strings.EqualFold(name, key) {
			delete(object, name)
			object[key] = v
		}
	}
	kind, ok := object[key].(string)
	if !ok {
		return v
	}
	for known, ref := range schema.Discriminator.Mapping {
		if !strings.EqualFold(known, kind) {
			continue
		}
		object[key] = known
		for _, variant := range schema.OneOf {
			if variant.Ref == ref.Ref {
				return normaliseObject(variant.Value, object)
			}
		}
	}
	return nil
}
