package config

import (
	"maps"
	"slices"
	"strings"
)

// textMap is a map of names to texts.
func textMap(p *map[string]string) dest {
	def := *p
	return &field[map[string]string]{
		p: p, def: &def, read: readTextMap,
		print: printTextMap,
		none:  func(m map[string]string) bool { return len(m) == 0 },
	}
}

func printTextMap(m map[string]string) string {
	if len(m) == 0 {
		return "{}"
	}
	texts := make([]string, 0, len(m))
	for _, k := range slices.Sorted(maps.Keys(m)) {
		v := m[k]
		if secretHeader(k) {
			v = hiddenText
		}
		texts = append(texts, quote(k)+" = "+quote(v))
	}
	return "{ " + strings.Join(texts, ", ") + " }"
}

// readTextMap returns nil for an empty map, so that it is the same as none.
func readTextMap(v value) (m map[string]string, _ *fault) {
	entries, ok := v.v.([]entry)
	if !ok {
		return nil, &fault{message: "must be a map of texts", hint: `Write { name = "VALUE", ... }.`}
	}
	for i := range entries {
		e := &entries[i]
		text, f := e.text()
		if f != nil {
			return nil, f
		}
		name := e.name.v.(string)
		if _, twice := m[name]; twice {
			return nil, &fault{message: "has this name twice", item: &e.name}
		}
		if m == nil {
			m = map[string]string{}
		}
		m[name] = text
	}
	return m, nil
}

// headerMap is a map of header names to values, one value each.
func headerMap(p *map[string][]string) dest {
	def := *p
	flat := func(m map[string][]string) map[string]string {
		one := make(map[string]string, len(m))
		for name, values := range m {
			one[name] = strings.Join(values, ", ")
		}
		return one
	}
	return &field[map[string][]string]{
		p: p, def: &def,
		read: func(v value) (map[string][]string, *fault) {
			one, f := readTextMap(v)
			if f != nil || one == nil {
				return nil, f
			}
			m := make(map[string][]string, len(one))
			for name, text := range one {
				m[name] = []string{text}
			}
			return m, nil
		},
		print: func(m map[string][]string) string { return printTextMap(flat(m)) },
		none:  func(m map[string][]string) bool { return len(m) == 0 },
	}
}

// entry is one name and value of a map.
type entry struct{ name, value value }

// text returns the value, which must be a text.
func (e *entry) text() (string, *fault) {
	text, f := readText(e.value)
	switch {
	case f != nil:
		return "", &fault{message: "has a value that is no text", hint: f.hint, item: &e.value}
	case text == hiddenText:
		return "", &fault{message: "has the placeholder of a secret", hint: `Put the secret, or better env("NAME") or file("PATH"), in its place.`, item: &e.value}
	}
	return text, nil
}
