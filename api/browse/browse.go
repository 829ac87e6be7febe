// Package browse owns the pages that show an OpenAPI document to people: a list of its operations, a page for each of them, and a
// page for each schema. They are made here, hold no script and load nothing from elsewhere, so that they work on an island. The
// package must never know which document it shows.
package browse

import (
	"bytes"
	"embed"
	"encoding/json"
	"fmt"
	"html/template"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/getkin/kin-openapi/openapi3"
)

//go:embed pages.html style.css
var files embed.FS

// policy lets a page load its style and nothing else.
const policy = "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"

type pages struct {
	at     string
	doc    *openapi3.T
	show   *template.Template
	style  []byte
	groups []group
	byID   map[string]operation // by operationId in lower case
	usedBy map[string][]link    // of schemas
}

// New returns the pages of doc, to be served at the path at, such as /docs, and below it. doc must have been resolved and must
// not change any more. It is safe for concurrent use.
func New(at string, doc *openapi3.T) (http.Handler, error) {
	p := &pages{at: at, doc: doc, byID: map[string]operation{}, usedBy: map[string][]link{}}
	var err error
	p.show, err = template.New("").Funcs(template.FuncMap{"at": func() string { return at }, "label": label}).ParseFS(files, "pages.html")
	if err != nil {
		return nil, fmt.Errorf("read the pages' templates: %w", err)
	}
	if p.style, err = files.ReadFile("style.css"); err != nil {
		return nil, fmt.Errorf("read the pages' style: %w", err)
	}
	p.collect()
	return p, nil
}

// ServeHTTP implements http.Handler.
func (p *pages) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	rest, ok := strings.CutPrefix(r.URL.Path, p.at)
	if !ok || r.Method != http.MethodGet && r.Method != http.MethodHead {
		http.NotFound(w, r)
		return
	}
	h := w.Header()
	h.Set("Content-Security-Policy", policy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	rest = strings.Trim(rest, "/")
	kind, name, _ := strings.Cut(rest, "/")
	switch {
	case rest == "":
		p.write(w, http.StatusOK, "index", p.index(r.URL.Query().Get("q")))
	case rest == "style.css":
		h.Set("Content-Type", "text/css; charset=utf-8")
		_, _ = w.Write(p.style) // the caller may have left
	case kind == "operations":
		op, found := p.byID[strings.ToLower(name)]
		if !found {
			p.write(w, http.StatusNotFound, "missing", name)
			return
		}
		p.write(w, http.StatusOK, "operation", op.page())
	case kind == "schemas":
		ref := p.doc.Components.Schemas[name]
		if ref == nil || ref.Value == nil {
			p.write(w, http.StatusNotFound, "missing", name)
			return
		}
		p.write(w, http.StatusOK, "schema", p.schema(name, ref.Value))
	default:
		p.write(w, http.StatusNotFound, "missing", rest)
	}
}

// write sends a page whole or not at all.
func (p *pages) write(w http.ResponseWriter, status int, page string, data any) {
	var buf bytes.Buffer
	if err := p.show.ExecuteTemplate(&buf, page, data); err != nil {
		panic(fmt.Errorf("make the page %s: %w", page, err)) // a fault of the template; the tests make every page
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write(buf.Bytes()) // the caller may have left
}

// group is the operations of one tag.
type group struct {
	Name, About string
	Operations  []operation
}

type operation struct {
	ID, Method, Path, Summary, About, Role string
	Long, Extension                        bool
	op                                     *openapi3.Operation
	item                                   *openapi3.PathItem
}

// Short is the path without the part that all have.
func (o operation) Short() string {
	if i := strings.LastIndex(o.Path, "/providers/"); i > 0 {
		return "…" + o.Path[i:]
	}
	return o.Path
}

type link struct{ Text, Kind, Name string }

func (p *pages) collect() {
	byTag := map[string][]operation{}
	for path, item := range p.doc.Paths.Map() {
		for method, op := range item.Operations() {
			role, _ := op.Extensions["x-lifeboat-role"].(string)
			long, _ := op.Extensions["x-ms-long-running-operation"].(bool)
			ours, _ := op.Extensions["x-lifeboat-extension"].(bool)
			o := operation{ID: op.OperationID, Method: method, Path: path, Summary: op.Summary, About: op.Description, Role: role, Long: long, Extension: ours, op: op, item: item}
			p.byID[strings.ToLower(o.ID)] = o
			tag := "other"
			if len(op.Tags) > 0 {
				tag = op.Tags[0]
			}
			byTag[tag] = append(byTag[tag], o)
			for _, used := range o.schemas() {
				p.usedBy[used] = append(p.usedBy[used], link{Text: o.ID, Kind: "operations", Name: o.ID})
			}
		}
	}
	for name, ref := range p.doc.Components.Schemas {
		for _, used := range children(ref.Value) {
			p.usedBy[used] = append(p.usedBy[used], link{Text: name, Kind: "schemas", Name: name})
		}
	}
	for name, l := range p.usedBy {
		slices.SortFunc(l, func(a, b link) int { return strings.Compare(a.Text, b.Text) })
		p.usedBy[name] = slices.Compact(l)
	}
	for _, tag := range p.doc.Tags {
		p.groups = append(p.groups, group{Name: tag.Name, About: tag.Description, Operations: byTag[tag.Name]})
		delete(byTag, tag.Name)
	}
	for name, ops := range byTag {
		p.groups = append(p.groups, group{Name: name, Operations: ops})
	}
	for _, g := range p.groups {
		slices.SortFunc(g.Operations, func(a, b operation) int {
			return strings.Compare(a.Path+" "+a.Method, b.Path+" "+b.Method)
		})
	}
}

type index struct {
	Title, Version, About, Query string
	Groups                       []group
	Count                        int
}

// index lists the operations in which every word of the query occurs.
func (p *pages) index(query string) index {
	out := index{Title: p.doc.Info.Title, Version: p.doc.Info.Version, About: p.doc.Info.Description, Query: query}
	words := strings.Fields(strings.ToLower(query[:min(len(query), 200)]))
	for _, g := range p.groups {
		kept := group{Name: g.Name, About: g.About}
		for _, o := range g.Operations {
			text := strings.ToLower(o.ID + " " + o.Method + " " + o.Path + " " + o.Summary + " " + g.Name)
			if !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(text, w) }) {
				kept.Operations = append(kept.Operations, o)
			}
		}
		if len(kept.Operations) > 0 {
			out.Groups, out.Count = append(out.Groups, kept), out.Count+len(kept.Operations)
		}
	}
	return out
}

// label is a name that may be part of a URL's path.
func label(name string) string { return url.PathEscape(name) }

// pretty is an example as people read it.
func pretty(v any) string {
	raw, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Sprint(v)
	}
	return string(raw)
}
