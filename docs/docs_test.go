// Package docs_test owns the promises that the documents make about the code: who may import whom, that every package says
// what it is, how the tree is laid out, and that links lead somewhere. It reads files and never runs what it reads.
package docs_test

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/lifeboat-dr/lifeboat"

// maxLines is where a file holds more than one idea. Generated files are not read by people.
const maxLines = 600

// source is one Go file of the module.
type source struct {
	dir       string // slash-separated, relative to the root; "." for the root
	name      string
	ast       *ast.File
	lines     int
	test      bool
	generated bool
}

func (s *source) path() string { return path.Join(s.dir, s.name) }

// skipped are directories that hold no source of ours.
var skipped = []string{".git", ".tools", ".work", "bin", "node_modules", "testdata"}

func walk(t *testing.T, visit func(rel string, d fs.DirEntry) error) {
	t.Helper()
	err := filepath.WalkDir("..", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel := strings.TrimPrefix(filepath.ToSlash(p), "../")
		if d.IsDir() && slices.Contains(skipped, d.Name()) {
			return fs.SkipDir
		}
		if p == ".." {
			return nil
		}
		return visit(rel, d)
	})
	if err != nil {
		t.Fatal(err)
	}
}

func sources(t *testing.T) (all []*source) {
	t.Helper()
	set := token.NewFileSet()
	walk(t, func(rel string, d fs.DirEntry) error {
		if d.IsDir() || path.Ext(rel) != ".go" {
			return nil
		}
		text, err := os.ReadFile(filepath.Join("..", rel))
		if err != nil {
			return err
		}
		f, err := parser.ParseFile(set, rel, text, parser.ImportsOnly|parser.ParseComments)
		if err != nil {
			return err
		}
		all = append(all, &source{
			dir: path.Dir(rel), name: path.Base(rel), ast: f, lines: bytes.Count(text, []byte("\n")),
			test: strings.HasSuffix(rel, "_test.go"), generated: ast.IsGenerated(f),
		})
		return nil
	})
	if len(all) == 0 {
		t.Fatal("no Go files found")
	}
	return all
}

// rule is one row of the table in architecture.md: packages that match one of from may import packages of this module that
// match one of to.
type rule struct {
	from, to []string
	standard bool // may import nothing from outside the standard library
}

var code = regexp.MustCompile("`([^`]+)`")

// rules reads the table under the heading "Who may import whom". The first row that matches a package counts.
func rules(t *testing.T) (rs []rule) {
	t.Helper()
	text, err := os.ReadFile("architecture.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, found := strings.Cut(string(text), "\n## Who may import whom\n")
	if !found {
		t.Fatal("architecture.md has no section «Who may import whom»")
	}
	table, _, _ = strings.Cut(table, "\n## ")
	for line := range strings.Lines(table) {
		cells := strings.Split(line, "|")
		if len(cells) != 4 || !strings.Contains(cells[1], "`") {
			continue
		}
		rs = append(rs, rule{names(cells[1]), names(cells[2]), strings.Contains(cells[2], "standard library only")})
	}
	if len(rs) == 0 {
		t.Fatal("architecture.md has no rule under «Who may import whom»")
	}
	return rs
}

// names returns the code words of a table cell.
func names(cell string) (out []string) {
	for _, m := range code.FindAllStringSubmatch(cell, -1) {
		out = append(out, m[1])
	}
	return out
}

// match tells whether a package fits a pattern: itself, or, with /** at the end, itself and all below; * is one element.
func match(pattern, pkg string) bool {
	below := strings.HasSuffix(pattern, "/**")
	want, have := strings.Split(strings.TrimSuffix(pattern, "/**"), "/"), strings.Split(pkg, "/")
	if len(have) < len(want) || len(have) > len(want) && !below {
		return false
	}
	for i, w := range want {
		if w != "*" && w != have[i] {
			return false
		}
	}
	return true
}

func matchAny(patterns []string, pkg string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { return match(p, pkg) })
}

func TestImportsFollowTheTable(t *testing.T) {
	t.Parallel()
	rs := rules(t)
	used := make([]bool, len(rs))
	for _, s := range sources(t) {
		if s.test { // a test may set up whatever its subject needs
			continue
		}
		i := slices.IndexFunc(rs, func(r rule) bool { return matchAny(r.from, s.dir) })
		if i < 0 {
			t.Errorf("%s: no row of docs/architecture.md says what package %s may import", s.path(), s.dir)
			continue
		}
		used[i] = true
		for _, imp := range s.ast.Imports {
			target, err := strconv.Unquote(imp.Path.Value)
			if err != nil {
				t.Fatal(err)
			}
			if msg := rs[i].refuses(s.dir, target); msg != "" {
				t.Errorf("%s: imports %s: %s", s.path(), target, msg)
			}
		}
	}
	for i, r := range rs {
		if !used[i] {
			t.Logf("the row of %v fits no package yet", r.from)
		}
	}
}

func (r rule) refuses(from, target string) string {
	if rel, ours := strings.CutPrefix(target, module+"/"); ours {
		if rel == from || matchAny(r.to, rel) {
			return ""
		}
		return fmt.Sprintf("%s may import only %v", from, r.to)
	}
	if r.standard && strings.Contains(strings.Split(target, "/")[0], ".") {
		return from + " may import the standard library only"
	}
	return ""
}

func TestPatterns(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		pattern, pkg string
		want         bool
	}{
		{"service/dr", "service/dr", true}, {"service/dr", "service/dr/x", false}, {"service/**", "service", true},
		{"service/**", "service/store/sqlstore", true}, {"service/**", "services", false}, {"*/cmd/**", "agent/cmd/lifeboat-agent", true},
		{"*/cmd/**", "cmd/x", false}, {"**", "a", false},
	} {
		if got := match(c.pattern, c.pkg); got != c.want {
			t.Errorf("match(%q, %q) = %v", c.pattern, c.pkg, got)
		}
	}
	r := rule{to: []string{"b"}, standard: true}
	for target, want := range map[string]bool{"net/http": true, "example.org/x": false, module + "/b": true, module + "/c": false} {
		if got := r.refuses("a", target) == ""; got != want {
			t.Errorf("import of %s is allowed: %v", target, got)
		}
	}
}

func TestEveryPackageSaysWhatItIs(t *testing.T) {
	t.Parallel()
	documented := make(map[string]bool)
	for _, s := range sources(t) {
		if s.test {
			continue
		}
		doc := s.ast.Doc.Text()
		want := "Package " + s.ast.Name.Name + " "
		if s.ast.Name.Name == "main" {
			want = "" // a command's comment is for its users
		}
		ok := doc != "" && strings.HasPrefix(doc, want) || s.generated
		if doc != "" && !ok {
			t.Errorf("%s: the package comment starts with %.40q, want %q", s.path(), doc, want)
		}
		documented[s.dir] = documented[s.dir] || ok
	}
	for dir, ok := range documented {
		if !ok {
			t.Errorf("package %s has no comment: what does it own, what must it never do?", dir)
		}
	}
}

// forbidden names say nothing about what a package owns, or hide it from the map in architecture.md.
var forbidden = []string{
	"internal", "pkg", "util", "utils", "common", "types", "helper", "helpers", "model", "models", "misc", "shared", "lib", "base",
}

var topLevel = []string{".ci", "openapi", "api", "service", "replicator", "agent", "sdk", "docs"}

func TestTheTreeIsLaidOutAsDescribed(t *testing.T) {
	t.Parallel()
	walk(t, func(rel string, d fs.DirEntry) error {
		if !d.IsDir() {
			return nil
		}
		if !strings.Contains(rel, "/") && !slices.Contains(topLevel, rel) {
			t.Errorf("top-level directory %s: the layout knows %v", rel, topLevel)
		}
		if slices.Contains(forbidden, d.Name()) {
			t.Errorf("directory %s: name it after what it owns", rel)
		}
		return nil
	})
}

func TestFilesHoldOneIdea(t *testing.T) {
	t.Parallel()
	for _, s := range sources(t) {
		if s.lines > maxLines && !s.generated {
			t.Errorf("%s has %d lines, %d are enough: split it", s.path(), s.lines, maxLines)
		}
	}
}

var unfinished = regexp.MustCompile(`\b(TODO|FIXME|XXX|HACK)\b`)

func TestNothingIsLeftForLater(t *testing.T) {
	t.Parallel()
	for _, s := range sources(t) {
		if s.generated || s.dir == "docs" {
			continue
		}
		text, err := os.ReadFile(filepath.Join("..", s.path()))
		if err != nil {
			t.Fatal(err)
		}
		for i, line := range strings.Split(string(text), "\n") {
			if _, comment, ok := strings.Cut(line, "//"); ok && unfinished.MatchString(comment) {
				t.Errorf("%s:%d: %s", s.path(), i+1, strings.TrimSpace(comment))
			}
		}
	}
}

var link = regexp.MustCompile(`\]\(([^)\s]+)\)`)

func TestLinksLeadSomewhere(t *testing.T) {
	t.Parallel()
	walk(t, func(rel string, d fs.DirEntry) error {
		if d.IsDir() || path.Ext(rel) != ".md" {
			return nil
		}
		text, err := os.ReadFile(filepath.Join("..", rel))
		if err != nil {
			return err
		}
		for _, m := range link.FindAllStringSubmatch(string(text), -1) {
			target, _, _ := strings.Cut(m[1], "#")
			if target == "" || strings.Contains(target, "://") {
				continue
			}
			if _, err := os.Stat(filepath.Join("..", path.Dir(rel), target)); err != nil {
				t.Errorf("%s: link to %s: %v", rel, m[1], err)
			}
		}
		return nil
	})
}

// A target that README or a document tells people to run exists, and make alone lists it.
func TestMakeTargetsExist(t *testing.T) {
	t.Parallel()
	makefile, err := os.ReadFile("../Makefile")
	if err != nil {
		t.Fatal(err)
	}
	for _, target := range strings.Fields("demo run build generate lint test race fuzz e2e chaos soak bench") {
		if !regexp.MustCompile(`(?m)^` + target + `:.*## \S`).Match(makefile) {
			t.Errorf("Makefile: no target %s with a description", target)
		}
	}
	walk(t, func(rel string, d fs.DirEntry) error {
		if d.IsDir() || path.Ext(rel) != ".md" {
			return nil
		}
		text, err := os.ReadFile(filepath.Join("..", rel))
		if err != nil {
			return err
		}
		for _, m := range regexp.MustCompile("(?m)(?:`|^)make ([a-z0-9]+)").FindAllSubmatch(text, -1) {
			if !regexp.MustCompile(`(?m)^` + string(m[1]) + `:`).Match(makefile) {
				t.Errorf("%s: make %s: the Makefile has no such target", rel, m[1])
			}
		}
		return nil
	})
}
