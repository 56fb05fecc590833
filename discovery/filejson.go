package discovery

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Bounds of a file of instances.
const (
	maxFileBytes     = 16 << 20
	maxFileInstances = 100_000
)

// parseFile reads a file of instances of a service:
//
//	{"instances": [{"address": "10.0.0.1", "port": 8080, "id": "a", "weight": 1,
//	  "health": "passing", "tags": [], "meta": {}, "node": "", "zone": "",
//	  "datacenter": "", "backup": false}]}
//
// Address and port must be there; id is "ADDRESS:PORT" if it is not, weight 1 and
// health "passing". Anything else that is not as above is an error, with its line
// and column: what is misspelt is not meant to be left out. The set is ordered by
// ID.
func parseFile(service string, text []byte) ([]Instance, error) {
	return parseInstances(service, text, maxFileInstances)
}

func parseInstances(service string, text []byte, most int) ([]Instance, error) {
	if len(text) > maxFileBytes {
		return nil, fmt.Errorf("it has more than %d bytes", maxFileBytes)
	}
	// Once for all, so that the walk below meets valid JSON alone.
	var whole json.RawMessage
	if err := json.Unmarshal(text, &whole); err != nil {
		var syntax *json.SyntaxError
		if errors.As(err, &syntax) {
			return nil, errorAt(text, max(0, syntax.Offset-1), "%w", err)
		}
		return nil, err
	}
	p := fileParser{text: text, service: service, most: most, dec: json.NewDecoder(bytes.NewReader(text)), at: map[string]int64{}}
	p.set = []Instance{} // no instances, which is not the same as nothing known
	listed := false
	err := p.object("", func(key string) error {
		if key != "instances" {
			return fmt.Errorf(`%q is unknown here, "instances" is all there is`, key)
		}
		listed = true
		return p.list()
	})
	switch {
	case err != nil:
		return nil, err
	case !listed:
		return nil, errorAt(text, p.start(), `there is no "instances"; for none at all write []`)
	}
	slices.SortFunc(p.set, func(a, b Instance) int { return strings.Compare(a.ID, b.ID) })
	return p.set, nil
}

type fileParser struct {
	text    []byte
	service string
	most    int // instances
	dec     *json.Decoder
	set     []Instance
	at      map[string]int64 // where each ID is
}

// start is where the next value or key begins.
func (p *fileParser) start() int64 {
	i := p.dec.InputOffset()
	for i < int64(len(p.text)) && strings.IndexByte(" \t\r\n,:", p.text[i]) >= 0 {
		i++
	}
	return i
}

// object reads an object. Field reads the value of a key, or says what is wrong
// with either.
func (p *fileParser) object(what string, field func(key string) error) error {
	begin := p.start()
	if t, err := p.dec.Token(); err != nil || t != json.Delim('{') {
		return errorAt(p.text, begin, "%smust be an object {...}", what)
	}
	seen := map[string]bool{}
	for p.dec.More() {
		at := p.start()
		t, err := p.dec.Token()
		if err != nil {
			return errorAt(p.text, at, "%w", err)
		}
		key, _ := t.(string)
		if seen[key] {
			return errorAt(p.text, at, "%q is there twice", key)
		}
		seen[key] = true
		if err := field(key); err != nil {
			return locate(p.text, at, err)
		}
	}
	_, err := p.dec.Token()
	return err
}

func (p *fileParser) list() error {
	at := p.start()
	if t, err := p.dec.Token(); err != nil || t != json.Delim('[') {
		return errorAt(p.text, at, "instances must be a list [...]")
	}
	for p.dec.More() {
		if len(p.set) == p.most {
			return errorAt(p.text, p.start(), "there are more than %d instances", p.most)
		}
		if err := p.instance(); err != nil {
			return err
		}
	}
	_, err := p.dec.Token()
	return err
}

func (p *fileParser) instance() error {
	at := p.start()
	i := Instance{Service: p.service, Weight: 1}
	err := p.object("an instance ", func(key string) error {
		dest := i.field(key)
		if dest == nil {
			return fmt.Errorf("an instance has no %q", key)
		}
		return p.value(key, dest)
	})
	if err != nil {
		return err
	}
	if i.Address == "" {
		return errorAt(p.text, at, "the instance has no address")
	}
	i.Address, i.Tags = canonical(i.Address), sorted(i.Tags)
	if i.ID == "" {
		i.ID = i.HostPort()
	}
	if i.Health == Maintenance {
		i.Weight = 0
	}
	if err := i.Validate(); err != nil {
		return errorAt(p.text, at, "instance %.80q: %w", i.ID, err)
	}
	if first, ok := p.at[i.ID]; ok {
		line, _ := position(p.text, first)
		return errorAt(p.text, at, "instance %q is there twice, first on line %d", i.ID, line)
	}
	p.at[i.ID] = at
	p.set = append(p.set, i)
	return nil
}

// field is where the value of a key goes, nil: there is no such key.
func (i *Instance) field(key string) any {
	switch key {
	case "id":
		return &i.ID
	case "address":
		return &i.Address
	case "port":
		return &i.Port
	case "weight":
		return &i.Weight
	case "health":
		return &i.Health
	case "tags":
		return &i.Tags
	case "meta":
		return &i.Meta
	case "node":
		return &i.Node
	case "zone":
		return &i.Zone
	case "datacenter":
		return &i.Datacenter
	case "backup":
		return &i.Backup
	}
	return nil
}

// value reads what the key of an instance has.
func (p *fileParser) value(key string, dest any) error {
	at := p.start()
	if bytes.HasPrefix(p.text[at:], []byte("null")) {
		return errorAt(p.text, at, "%s is null: leave it out", key)
	}
	err := p.dec.Decode(dest)
	var kind *json.UnmarshalTypeError
	switch {
	case errors.As(err, &kind):
		return errorAt(p.text, at, "%s must be %s, not a %s", key, kindOf(dest), kind.Value)
	case err != nil:
		return errorAt(p.text, at, "%s: %w", key, err)
	}
	return nil
}

func kindOf(dest any) string {
	switch dest.(type) {
	case *int:
		return "a whole number"
	case *bool:
		return "true or false"
	case *[]string:
		return "a list of texts"
	case *map[string]string:
		return "an object of texts"
	}
	return "a text"
}

// fileError is an error with its place.
type fileError struct {
	line, column int
	err          error
}

func (e *fileError) Error() string { return fmt.Sprintf("%d:%d: %v", e.line, e.column, e.err) }
func (e *fileError) Unwrap() error { return e.err }

func errorAt(text []byte, offset int64, format string, args ...any) error {
	line, column := position(text, offset)
	return &fileError{line, column, fmt.Errorf(format, args...)}
}

// locate gives an error without a place this one.
func locate(text []byte, offset int64, err error) error {
	var placed *fileError
	if errors.As(err, &placed) {
		return err
	}
	return errorAt(text, offset, "%w", err)
}

// position counts lines and bytes of a line from 1.
func position(text []byte, offset int64) (line, column int) {
	before := text[:min(max(offset, 0), int64(len(text)))]
	return 1 + bytes.Count(before, []byte("\n")), len(before) - bytes.LastIndexByte(before, '\n')
}
