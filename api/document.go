package api

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/oasdiff/yaml"

	"github.com/lifeboat-dr/lifeboat/openapi"
)

// document is openapi/arm as the server uses it: for routing without case, for roles, for validation, and to be served.
type document struct {
	spec       *openapi3.T
	json, yaml []byte
	operations map[string]operation // by method and path template
	paths      segment
}

// operation is one operation of the document.
type operation struct {
	path string
	item *openapi3.PathItem
	op   *openapi3.Operation
	role Role
}

// compiledIn is loaded once: it does not change, and reading it takes long.
var compiledIn = sync.OnceValues(loadDocument)

func loadDocument() (*document, error) {
	spec, err := openapi3.NewLoader().LoadFromData(openapi.ARM)
	if err != nil {
		return nil, fmt.Errorf("load the resource model: %w", err)
	}
	asYAML, err := yaml.JSONToYAML(openapi.ARM)
	if err != nil {
		return nil, fmt.Errorf("write the resource model as YAML: %w", err)
	}
	d := &document{spec: spec, json: openapi.ARM, yaml: asYAML, operations: map[string]operation{}}
	for path, item := range spec.Paths.Map() {
		d.paths.add(path)
		for method, op := range item.Operations() {
			role, _ := op.Extensions["x-lifeboat-role"].(string)
			if roleRank[Role(role)] == 0 {
				return nil, fmt.Errorf("operation %s has no x-lifeboat-role", op.OperationID)
			}
			d.operations[method+" "+path] = operation{path: path, item: item, op: op, role: Role(role)}
		}
	}
	return d, nil
}

func serveDocument(w http.ResponseWriter, contentType string, content []byte) {
	w.Header().Set("Content-Type", contentType)
	_, _ = w.Write(content) // the caller may have left
}

// segment is a node of the tree of path templates. Static children are keyed in lower case.
type segment struct {
	static   map[string]*segment
	spelling string // of the static segment
	param    *segment
	path     string // template that ends here, or empty
}

func (n *segment) add(path string) {
	for _, s := range strings.Split(strings.Trim(path, "/"), "/") {
		if strings.HasPrefix(s, "{") {
			if n.param == nil {
				n.param = &segment{}
			}
			n = n.param
			continue
		}
		key := strings.ToLower(s)
		if n.static == nil {
			n.static = map[string]*segment{}
		}
		if n.static[key] == nil {
			n.static[key] = &segment{spelling: s}
		}
		n = n.static[key]
	}
	n.path = path
}

// find returns the template that the segments match, with static segments in the document's spelling and the others untouched.
func (n *segment) find(in []string) (out []string, path string) {
	if len(in) == 0 {
		return nil, n.path
	}
	word := in[0]
	if plain, err := url.PathUnescape(word); err == nil {
		word = plain // %6a is j wherever it stands
	}
	if next := n.static[strings.ToLower(word)]; next != nil {
		if out, path := next.find(in[1:]); path != "" {
			return append([]string{next.spelling}, out...), path
		}
	}
	if n.param != nil && in[0] != "" {
		if out, path := n.param.find(in[1:]); path != "" {
			return append([]string{in[0]}, out...), path
		}
	}
	return nil, ""
}
