package main

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/jmespath/go-jmespath"
)

// column of a table for people.
type column[T any] struct {
	head string
	text func(T) string
}

// showList prints resources: a line each for people, one JSON array for scripts.
func showList[T any](a *app, list []T, columns []column[T]) error {
	if a.format == "json" || a.query != "" {
		return a.showJSON(list)
	}
	rows := [][]string{{}}
	for _, c := range columns {
		rows[0] = append(rows[0], strings.ToUpper(c.head))
	}
	for _, v := range list {
		row := make([]string, len(columns))
		for i, c := range columns {
			row[i] = dash(c.text(v))
		}
		rows = append(rows, row)
	}
	return table(a.out, rows)
}

// showOne prints one resource: a line a property for people, leaving out what is empty; one JSON object for scripts.
func showOne[T any](a *app, v T, columns []column[T]) error {
	if a.format == "json" || a.query != "" {
		return a.showJSON(v)
	}
	var rows [][]string
	for _, c := range columns {
		if text := c.text(v); text != "" {
			rows = append(rows, []string{c.head, text})
		}
	}
	return table(a.out, rows)
}

// showJSON prints v, or what --query picks from it: as JSON with -o json, otherwise as text.
func (a *app) showJSON(v any) error {
	if a.query == "" {
		return writeJSON(a.out, v)
	}
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	var plain any
	if err := json.Unmarshal(text, &plain); err != nil {
		return err
	}
	picked, err := jmespath.Search(a.query, plain)
	if err != nil {
		return &usageError{fmt.Sprintf("--query %q: %v", a.query, err)}
	}
	if a.format == "json" {
		return writeJSON(a.out, picked)
	}
	return table(a.out, rowsOf(picked, namesIn(a.query)))
}

func checkQuery(query string) error {
	if query == "" {
		return nil
	}
	if _, err := jmespath.Compile(query); err != nil {
		return &usageError{fmt.Sprintf("--query %q: %v", query, err)}
	}
	return nil
}

func writeJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// rowsOf lays out what a query picked: a list of objects under their names, anything else a line each.
func rowsOf(v any, names []string) [][]string {
	list, ok := v.([]any)
	if !ok {
		list = []any{v}
	}
	if len(list) > 0 {
		if first, ok := list[0].(map[string]any); ok {
			return objectRows(list, keysOf(first, names))
		}
	}
	var rows [][]string
	for _, one := range list {
		row := []string{}
		if cells, ok := one.([]any); ok {
			for _, c := range cells {
				row = append(row, cell(c))
			}
		} else if one != nil {
			row = append(row, cell(one))
		}
		rows = append(rows, row)
	}
	return rows
}

func objectRows(list []any, keys []string) [][]string {
	head := make([]string, len(keys))
	for i, k := range keys {
		head[i] = strings.ToUpper(k)
	}
	rows := [][]string{head}
	for _, one := range list {
		o, _ := one.(map[string]any)
		row := make([]string, len(keys))
		for i, k := range keys {
			row[i] = dash(cell(o[k]))
		}
		rows = append(rows, row)
	}
	return rows
}

// keysOf orders the names of an object: as the query's text does, if it names them, and by the alphabet otherwise.
func keysOf(o map[string]any, names []string) []string {
	keys := make([]string, 0, len(o))
	for k := range o {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b string) int {
		i, j := slices.Index(names, a), slices.Index(names, b)
		if i >= 0 && j >= 0 {
			return i - j
		}
		return strings.Compare(a, b)
	})
	return keys
}

// namesIn reads the names of the last {name: expression, ...} of a query. The results of JMESPath do not keep their order.
func namesIn(query string) (names []string) {
	end := strings.LastIndexByte(query, '}')
	if end < 0 {
		return nil
	}
	depth, start := 0, end
	for ; start >= 0; start-- {
		if query[start] == '}' {
			depth++
		} else if query[start] == '{' {
			if depth--; depth == 0 {
				break
			}
		}
	}
	depth = 0
	from := start + 1
	for i := from; i <= end; i++ {
		switch query[i] {
		case '(', '[', '{':
			depth++
		case ')', ']':
			depth--
		case ',', '}':
			if depth == 0 {
				name, _, _ := strings.Cut(query[from:i], ":")
				names = append(names, strings.Trim(strings.TrimSpace(name), `"`))
				from = i + 1
			} else if query[i] == '}' {
				depth--
			}
		}
	}
	return names
}

func cell(v any) string {
	switch v := v.(type) {
	case nil:
		return ""
	case string:
		return v
	default:
		text, err := json.Marshal(v)
		if err != nil {
			return fmt.Sprint(v)
		}
		return string(text)
	}
}

func table(w io.Writer, rows [][]string) error {
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	for _, row := range rows {
		for i, text := range row {
			row[i] = strings.NewReplacer("\t", " ", "\n", " ", "\r", " ").Replace(text)
		}
		fmt.Fprintln(t, strings.Join(row, "\t"))
	}
	return t.Flush()
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// when prints an instant in UTC, to the second.
func when(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}

// sizeOf prints a size in binary units.
func sizeOf(n *int64) string {
	if n == nil {
		return ""
	}
	return sizeText(float64(*n))
}

func sizeText(v float64) string {
	unit := 0
	units := []string{"B", "KiB", "MiB", "GiB", "TiB", "PiB"}
	for v >= 1024 && unit < len(units)-1 {
		v, unit = v/1024, unit+1
	}
	if unit == 0 {
		return fmt.Sprintf("%.0f B", v)
	}
	return fmt.Sprintf("%.1f %s", v, units[unit])
}
