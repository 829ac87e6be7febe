package browse

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/getkin/kin-openapi/openapi3"
)

// field is a property or a parameter as a row of a table. Schema names the page of its type, if it has one.
type field struct {
	Name, Type, Schema, About, Limits, In string
	Required, ReadOnly                    bool
}

type schemaPage struct {
	Name, About, Type, Limits string
	Fields                    []field
	Kinds                     []field // of a union: what the discriminator says, and the schema
	Discriminator             string
	Words                     []string // enumerated
	UsedBy                    []link
}

func (p *pages) schema(name string, s *openapi3.Schema) schemaPage {
	out := schemaPage{Name: name, About: s.Description, Type: typeOf(&openapi3.SchemaRef{Value: s}), Limits: limits(s), Fields: fields(s), Words: words(s), UsedBy: p.usedBy[name]}
	if s.Discriminator != nil {
		out.Discriminator = s.Discriminator.PropertyName
		for _, kind := range slices.Sorted(maps.Keys(s.Discriminator.Mapping)) {
			target := path.Base(s.Discriminator.Mapping[kind].Ref)
			f := field{Name: kind, Type: target, Schema: target}
			if ref := p.doc.Components.Schemas[target]; ref != nil {
				f.About = ref.Value.Description
			}
			out.Kinds = append(out.Kinds, f)
		}
	}
	return out
}

func fields(s *openapi3.Schema) (out []field) {
	for _, name := range slices.Sorted(maps.Keys(s.Properties)) {
		ref := s.Properties[name]
		out = append(out, field{Name: name, Type: typeOf(ref), Schema: nameOf(ref), About: ref.Value.Description, Limits: limits(ref.Value),
			Required: slices.Contains(s.Required, name), ReadOnly: ref.Value.ReadOnly})
	}
	if more := s.AdditionalProperties.Schema; more != nil {
		out = append(out, field{Name: "any other name", Type: typeOf(more), Schema: nameOf(more), About: more.Value.Description, Limits: limits(more.Value)})
	}
	return out
}

// nameOf is the component that a reference, or the items of an array, leads to.
func nameOf(ref *openapi3.SchemaRef) string {
	switch {
	case ref == nil:
		return ""
	case ref.Ref != "":
		return path.Base(ref.Ref)
	case ref.Value != nil && ref.Value.Items != nil:
		return nameOf(ref.Value.Items)
	}
	return ""
}

func typeOf(ref *openapi3.SchemaRef) string {
	switch {
	case ref == nil || ref.Value == nil:
		return ""
	case ref.Ref != "":
		return path.Base(ref.Ref)
	case ref.Value.Type.Is("array"):
		return "array of " + typeOf(ref.Value.Items)
	case len(ref.Value.OneOf) > 0:
		return "one of several"
	case len(ref.Value.Type.Slice()) == 0:
		return "any"
	case ref.Value.Format != "":
		return strings.Join(ref.Value.Type.Slice(), " or ") + " (" + ref.Value.Format + ")"
	default:
		return strings.Join(ref.Value.Type.Slice(), " or ")
	}
}

func limits(s *openapi3.Schema) string {
	var out []string
	if w := words(s); len(w) > 0 {
		out = append(out, "one of "+strings.Join(w, ", "))
	}
	if s.Min != nil {
		out = append(out, fmt.Sprintf("at least %v", *s.Min))
	}
	if s.Max != nil {
		out = append(out, fmt.Sprintf("at most %v", *s.Max))
	}
	if s.MinLength > 0 {
		out = append(out, fmt.Sprintf("%d characters or more", s.MinLength))
	}
	if s.MaxLength != nil {
		out = append(out, fmt.Sprintf("up to %d characters", *s.MaxLength))
	}
	if s.MaxItems != nil {
		out = append(out, fmt.Sprintf("up to %d", *s.MaxItems))
	}
	if s.Pattern != "" {
		out = append(out, "matches "+s.Pattern)
	}
	if s.Default != nil {
		out = append(out, fmt.Sprintf("%v when absent", s.Default))
	}
	return strings.Join(out, "; ")
}

func words(s *openapi3.Schema) (out []string) {
	for _, w := range s.Enum {
		out = append(out, fmt.Sprint(w))
	}
	return out
}

// children are the components that a schema refers to.
func children(s *openapi3.Schema) (out []string) {
	if s == nil {
		return nil
	}
	add := func(ref *openapi3.SchemaRef) {
		if name := nameOf(ref); name != "" {
			out = append(out, name)
		}
	}
	for _, ref := range s.Properties {
		add(ref)
	}
	for _, refs := range []openapi3.SchemaRefs{s.OneOf, s.AllOf, s.AnyOf} {
		for _, ref := range refs {
			add(ref)
		}
	}
	add(s.Items)
	add(s.AdditionalProperties.Schema)
	return out
}
