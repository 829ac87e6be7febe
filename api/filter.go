package api

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
)

// filter is a parsed $filter: the values that each property may have, keys in lower case.
type filter map[string][]string

func (f filter) one(property string) string {
	if v := f[strings.ToLower(property)]; len(v) > 0 {
		return v[0]
	}
	return ""
}

func badFilter(cause, action string) error {
	return &refusalError{refusal{Status: http.StatusBadRequest, Code: "InvalidParameter", Target: "$filter", Message: "$filter cannot be understood: " + cause, Causes: cause, Action: action}}
}

// filterOf reads the request's $filter, in which only the given properties may occur. Clients of the field send
// "Prop eq 'value'" joined by and, and lists as "( P eq 'a' or P eq 'b' )" (ref 2.9).
func filterOf(r *http.Request, properties ...string) (filter, error) {
	out, err := parseFilter(r.URL.Query().Get("$filter"))
	if err != nil {
		return nil, err
	}
	for p := range out {
		if !slices.ContainsFunc(properties, func(q string) bool { return strings.EqualFold(p, q) }) {
			return nil, badFilter(fmt.Sprintf("%s is not a property of this list", printable(p)), "use one of: "+strings.Join(properties, ", "))
		}
	}
	return out, nil
}

func parseFilter(text string) (filter, error) {
	words, err := filterWords(text)
	if err != nil {
		return nil, err
	}
	out := filter{}
	const how = "join Property eq 'value' pairs by and; put alternatives of one property into ( ) joined by or"
	group := "" // property of the open parenthesis
	open, pair := false, true
	for i := 0; i < len(words); {
		switch w := words[i]; {
		case w == "(" && !open && pair:
			open, group = true, ""
			i++
		case w == ")" && open && !pair:
			open = false
			i++
		case !pair && (strings.EqualFold(w, "and") && !open || strings.EqualFold(w, "or") && open):
			pair = true
			i++
		case pair && i+2 < len(words) && strings.EqualFold(words[i+1], "eq") && !strings.HasPrefix(w, "'"):
			property := strings.ToLower(w)
			if open && group != "" && group != property {
				return nil, badFilter("one pair of parentheses names two properties", how)
			}
			if !open && len(out[property]) > 0 {
				return nil, badFilter(printable(w)+" occurs twice", how)
			}
			group, pair = property, false
			out[property] = append(out[property], strings.TrimSuffix(strings.TrimPrefix(words[i+2], "'"), "'"))
			i += 3
		default:
			return nil, badFilter("unexpected "+printable(w), how)
		}
	}
	if open || pair && len(words) > 0 {
		return nil, badFilter("it ends too early", how)
	}
	return out, nil
}

// filterWords splits at blanks and parentheses. A quoted word keeps its leading quote; two quotes within mean one.
func filterWords(text string) ([]string, error) {
	var out []string
	for i := 0; i < len(text); {
		switch c := text[i]; {
		case c == ' ' || c == '\t' || c == '+':
			i++
		case c == '(' || c == ')':
			out = append(out, string(c))
			i++
		case c == '\'':
			var b strings.Builder
			b.WriteByte('\'')
			for i++; ; i++ {
				if i >= len(text) {
					return nil, badFilter("a quote is not closed", "write values as 'value'")
				}
				if text[i] == '\'' {
					if i+1 < len(text) && text[i+1] == '\'' {
						i++
					} else {
						break
					}
				}
				b.WriteByte(text[i])
			}
			i++
			out = append(out, b.String())
		default:
			end := strings.IndexAny(text[i:], " \t()'")
			if end < 0 {
				end = len(text) - i
			}
			out = append(out, text[i:i+end])
			i += end
		}
	}
	return out, nil
}

// timeOf reads a bound of a range. Clients send RFC 3339 and forms of it without a zone, which means UTC.
func (f filter) timeOf(property string) (time.Time, error) {
	v := f.one(property)
	if v == "" {
		return time.Time{}, nil
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05.999999999", "2006-01-02 15:04:05.999999999Z07:00", "2006-01-02 15:04:05.999999999", "2006-01-02"} {
		if t, err := time.Parse(layout, v); err == nil {
			return t.UTC(), nil
		}
	}
	return time.Time{}, badFilter(fmt.Sprintf("%s is %q", property, printable(v)), "write times as 2026-01-31T10:00:00Z")
}
