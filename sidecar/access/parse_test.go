package access

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
)

// pair is a field as a reader of the log gets it: value nil is absent.
type pair struct {
	name  string
	value *string
}

// parseJSON reads a line with encoding/json, keeping the order of the fields.
func parseJSON(line string) ([]pair, error) {
	d := json.NewDecoder(strings.NewReader(line))
	d.UseNumber()
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return nil, fmt.Errorf("no object: %v %w", t, err)
	}
	var list []pair
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return nil, err
		}
		v, err := d.Token()
		if err != nil {
			return nil, err
		}
		p := pair{name: name.(string)}
		if v != nil {
			s := fmt.Sprint(v)
			p.value = &s
		}
		list = append(list, p)
	}
	if _, err := d.Token(); err != nil {
		return nil, err
	}
	if rest := line[d.InputOffset():]; rest != "\n" {
		return nil, fmt.Errorf("after the object comes %q", rest)
	}
	return list, nil
}

// parseLogfmt reads a line strictly: NAME=VALUE, one space between two, a value
// bare or like a JSON string.
func parseLogfmt(line string) ([]pair, error) {
	rest, ok := strings.CutSuffix(line, "\n")
	if !ok || strings.Contains(rest, "\n") {
		return nil, errors.New("not one line")
	}
	var list []pair
	for {
		name, after, ok := strings.Cut(rest, "=")
		if !ok || name == "" || strings.Trim(name, "abcdefghijklmnopqrstuvwxyz_") != "" {
			return nil, fmt.Errorf("no field at %q", rest)
		}
		p := pair{name: name}
		if strings.HasPrefix(after, `"`) {
			d := json.NewDecoder(strings.NewReader(after))
			var s string
			if err := d.Decode(&s); err != nil {
				return nil, err
			}
			p.value, rest = &s, after[d.InputOffset():]
		} else {
			end := strings.IndexByte(after, ' ')
			if end < 0 {
				end = len(after)
			}
			v := after[:end]
			rest = after[end:]
			if v == "" || strings.ContainsAny(v, "\"=\\\t\r") {
				return nil, fmt.Errorf("bare value %q", v)
			}
			if v != "-" {
				p.value = &v
			}
		}
		list = append(list, p)
		if rest == "" {
			return list, nil
		}
		if rest[0] != ' ' {
			return nil, fmt.Errorf("no space before %q", rest)
		}
		rest = rest[1:]
	}
}

// parse reads a line of either format.
func parse(line string) (map[string]string, error) {
	read := parseLogfmt
	if strings.HasPrefix(line, "{") {
		read = parseJSON
	}
	list, err := read(line)
	if err != nil {
		return nil, err
	}
	m := map[string]string{}
	for _, p := range list {
		if _, twice := m[p.name]; twice {
			return nil, fmt.Errorf("%s is there twice", p.name)
		}
		if p.value != nil {
			m[p.name] = *p.value
		}
	}
	return m, nil
}

// splitLines cuts a log into lines with their ends.
func splitLines(b []byte) []string {
	var list []string
	for l := range bytes.Lines(b) {
		list = append(list, string(l))
	}
	return list
}
