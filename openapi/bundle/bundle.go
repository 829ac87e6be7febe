// Package bundle joins a split OpenAPI document into one, because code generators and readers of the served document want a single
// file. It validates what it joins, examples included, and must never change its meaning.
package bundle

import (
	"bytes"
	"encoding/json"
	"fmt"
	"path"
	"sort"
	"strings"

	"github.com/getkin/kin-openapi/openapi3"
)

// Load reads the split document whose root is file and returns it as one: every reference points into components, where each
// thing keeps the last element of its reference as its name. Two things of one kind with the same name are an error, because
// one would silently take the other's place.
func Load(file string) (*openapi3.T, error) {
	loader := openapi3.NewLoader()
	loader.IsExternalRefsAllowed = true
	doc, err := loader.LoadFromFile(file)
	if err != nil {
		return nil, fmt.Errorf("load %s: %w", file, err)
	}
	var clashes []string
	origin := map[string]string{}
	doc.InternalizeRefs(loader.Context, func(_ *openapi3.T, ref openapi3.ComponentRef) string {
		name := path.Base(ref.RefString())
		key := ref.CollectionName() + "/" + name
		if u := ref.RefPath(); u != nil && u.Path != "" {
			from := path.Base(path.Dir(u.Path)) + "/" + path.Base(u.Path)
			if before, ok := origin[key]; ok && before != from {
				clashes = append(clashes, fmt.Sprintf("%s is in %s and in %s", key, before, from))
			}
			origin[key] = from
		}
		return name
	})
	if len(clashes) > 0 {
		sort.Strings(clashes)
		return nil, fmt.Errorf("bundle %s: %s", file, strings.Join(clashes, "; "))
	}
	for _, item := range doc.Paths.Map() {
		item.Ref = ""
	}
	if err := doc.Validate(loader.Context, openapi3.EnableExamplesValidation()); err != nil {
		return nil, fmt.Errorf("validate %s: %w", file, err)
	}
	return doc, nil
}

// Marshal returns the document as indented JSON that differs only where the document does.
func Marshal(doc *openapi3.T) ([]byte, error) {
	raw, err := doc.MarshalJSON()
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	if err := json.Indent(&out, raw, "", " "); err != nil {
		return nil, err
	}
	out.WriteByte('\n')
	return out.Bytes(), nil
}
