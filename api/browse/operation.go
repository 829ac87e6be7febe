package browse

import (
	"maps"
	"slices"

	"github.com/getkin/kin-openapi/openapi3"
)

type operationPage struct {
	operation
	Parameters []field
	Request    *payload
	Responses  []payload
}

// payload is a body and the status it comes with.
type payload struct {
	Status, About, Type, Schema string
	Required                    bool
	Headers                     []field
	Examples                    []example
}

type example struct{ Name, Text string }

func (o operation) page() operationPage {
	out := operationPage{operation: o}
	for _, list := range []openapi3.Parameters{o.item.Parameters, o.op.Parameters} {
		for _, ref := range list {
			v := ref.Value
			f := field{Name: v.Name, In: v.In, About: v.Description, Required: v.Required}
			if v.Schema != nil {
				f.Type, f.Schema, f.Limits = typeOf(v.Schema), nameOf(v.Schema), limits(v.Schema.Value)
			}
			out.Parameters = append(out.Parameters, f)
		}
	}
	if body := o.op.RequestBody; body != nil && body.Value != nil {
		p := payloadOf(body.Value.Content)
		p.About, p.Required = body.Value.Description, body.Value.Required
		out.Request = &p
	}
	for _, status := range slices.Sorted(maps.Keys(o.op.Responses.Map())) {
		v := o.op.Responses.Value(status).Value
		p := payloadOf(v.Content)
		p.Status = status
		if v.Description != nil {
			p.About = *v.Description
		}
		for _, name := range slices.Sorted(maps.Keys(v.Headers)) {
			h := v.Headers[name].Value
			p.Headers = append(p.Headers, field{Name: name, Type: typeOf(h.Schema), About: h.Description})
		}
		out.Responses = append(out.Responses, p)
	}
	return out
}

func payloadOf(content openapi3.Content) (p payload) {
	for _, kind := range slices.Sorted(maps.Keys(content)) {
		media := content[kind]
		if media.Schema != nil {
			p.Type, p.Schema = typeOf(media.Schema), nameOf(media.Schema)
		}
		if p.Type == "" {
			p.Type = kind
		}
		if media.Example != nil {
			p.Examples = append(p.Examples, example{Name: "example", Text: pretty(media.Example)})
		}
		for _, name := range slices.Sorted(maps.Keys(media.Examples)) {
			if v := media.Examples[name].Value; v != nil {
				p.Examples = append(p.Examples, example{Name: name, Text: pretty(v.Value)})
			}
		}
	}
	return p
}

// schemas are the components that the operation's bodies are of.
func (o operation) schemas() (out []string) {
	page := o.page()
	if page.Request != nil && page.Request.Schema != "" {
		out = append(out, page.Request.Schema)
	}
	for _, r := range page.Responses {
		if r.Schema != "" {
			out = append(out, r.Schema)
		}
	}
	return out
}
