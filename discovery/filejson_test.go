package discovery

import (
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"testing"
)

func TestParseFile(t *testing.T) {
	got, err := parseFile("web", []byte(`{"instances": [
		{"id": "b", "address": "::ffff:10.0.0.2", "port": 80, "weight": 0, "health": "warning", "tags": ["y", "x"],
		 "meta": {"k": "v"}, "node": "n", "zone": "z", "datacenter": "dc", "backup": true},
		{"port": 8080, "address": "10.0.0.1"},
		{"port": 1, "address": "2001:DB8::1", "weight": 7, "health": "maintenance"},
		{"port": 65535, "address": "host.example"}]}`))
	want := []Instance{
		{ID: "10.0.0.1:8080", Service: "web", Address: "10.0.0.1", Port: 8080, Weight: 1},
		{ID: "[2001:db8::1]:1", Service: "web", Address: "2001:db8::1", Port: 1, Health: Maintenance},
		{ID: "b", Service: "web", Address: "10.0.0.2", Port: 80, Health: Warning, Tags: []string{"x", "y"},
			Meta: map[string]string{"k": "v"}, Node: "n", Zone: "z", Datacenter: "dc", Backup: true},
		{ID: "host.example:65535", Service: "web", Address: "host.example", Port: 65535, Weight: 1},
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v, %v\nwant %+v", got, err, want)
	}
	if got, err := parseFile("web", []byte(` {"instances":[ ] } `)); err != nil || got == nil || len(got) != 0 {
		t.Errorf("none: %v, %v", got, err)
	}
}

func TestParseFileErrors(t *testing.T) {
	one := func(fields string) string {
		return "{\n\"instances\": [\n {\"address\": \"10.0.0.1\", \"port\": 80" + fields + "}]}"
	}
	for text, want := range map[string]string{
		"":                                       "1:1: unexpected end",
		"{":                                      "1:1: unexpected end",
		"[]":                                     "1:1: must be an object",
		"null":                                   "1:1: must be an object",
		"{}":                                     `no "instances"; for none at all write []`,
		"{\"instances\":\n null}":                "2:2: instances must be a list",
		"{\"instances\":\n {}}":                  "2:2: instances must be a list",
		"{\"instances\":[],\n \"instances\":[]}": `2:2: "instances" is there twice`,
		"{\"instances\":[],\n\n  \"x\":1}":       `3:3: "x" is unknown here`,
		"{\"Instances\":[]}":                     `1:2: "Instances" is unknown`,
		"{\"instances\":[\n 5]}":                 "2:2: an instance must be an object",
		"{\"instances\":[\n {}]}":                "2:2: the instance has no address",
		"{\"instances\":[]} x":                   "1:18: invalid character 'x' after",
		"{\"instances\":[}":                      "1:15: invalid character '}'",
		one(`, "prot": 1`):                       `3:38: an instance has no "prot"`,
		one(`, "port": 81`):                      `3:38: "port" is there twice`,
		one(`, "id": ""}, {"address": "10.0.0.1"`):             "has no port",
		one(`, "weight": -1`):                                  "3:2: instance \"10.0.0.1:80\": weight -1",
		one(`, "weight": 1.5`):                                 "3:48: weight must be a whole number, not a number 1.5",
		one(`, "weight": "1"`):                                 "weight must be a whole number, not a string",
		one(`, "weight": null`):                                "weight is null: leave it out",
		one(`, "health": "fine"`):                              `3:48: health: health "fine" is not one of`,
		one(`, "health": 1`):                                   "health must be a text, not a number",
		one(`, "tags": "x"`):                                   "tags must be a list of texts, not a string",
		one(`, "meta": {"k": 1}`):                              "meta must be an object of texts, not a number",
		one(`, "backup": "yes"`):                               "backup must be true or false, not a string",
		one(`, "id": "a\u001bb"`):                              "not printable",
		one(`}, {"port": 80, "address": "10.0.0.1"`):           `3:39: instance "10.0.0.1:80" is there twice, first on line 3`,
		`{"instances":[{"address": "0.0.0.0", "port": 1}]}`:    "not one host's",
		`{"instances":[{"address": "a b", "port": 1}]}`:        "neither an IP address nor a host name",
		`{"instances":[{"address": "10.0.0.1", "port": 0}]}`:   "it has no port",
		`{"instances":[{"address": "10.0.0.1", "port": 1e5}]}`: "1:47: port must be",
		strings.Repeat("[", 20000):                             "exceeded max depth",
		strings.Repeat(" ", maxFileBytes+1):                    "more than 16777216 bytes",
	} {
		set, err := parseFile("web", []byte(text))
		if err == nil || set != nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.80q: %v, %v; want %q", text, set, err, want)
		}
	}
}

func TestParseFileOfTooManyInstances(t *testing.T) {
	text := []byte(`{"instances":[{"address":"h","port":1},
{"address":"h","port":2},
{"address":"h","port":3}]}`)
	if set, err := parseInstances("web", text, 3); err != nil || len(set) != 3 {
		t.Errorf("%v, %v", set, err)
	}
	if _, err := parseInstances("web", text, 2); err == nil || !strings.Contains(err.Error(), "3:1: there are more than 2") {
		t.Errorf("too many: %v", err)
	}
}

// FuzzFile: what is taken is valid, in order, and the same when it is written out
// and read again; what is not names its place.
func FuzzFile(f *testing.F) {
	f.Add(`{"instances":[{"address":"10.0.0.1","port":1,"tags":["b","a"],"meta":{"k":"v"},"backup":true}]}`)
	f.Add(`{"instances":[{"address":"::1","port":1,"health":"maintenance","weight":3,"id":"x","node":"n","zone":"z"}]}`)
	f.Add(`{"instances":[{"address":"a","port":1},{"address":"a","port":1}]}`)
	f.Fuzz(func(t *testing.T, text string) {
		set, err := parseFile("web", []byte(text))
		if err != nil {
			if !strings.Contains(err.Error(), ":") {
				t.Errorf("%q: %v", text, err)
			}
			return
		}
		if !slices.IsSortedFunc(set, func(a, b Instance) int { return strings.Compare(a.ID, b.ID) }) {
			t.Errorf("out of order: %v", set)
		}
		out := struct {
			Instances []map[string]any `json:"instances"`
		}{Instances: []map[string]any{}}
		for _, i := range set {
			if err := i.Validate(); err != nil {
				t.Errorf("%+v: %v", i, err)
			}
			m := map[string]any{"id": i.ID, "address": i.Address, "port": i.Port, "weight": i.Weight, "health": i.Health,
				"node": i.Node, "zone": i.Zone, "datacenter": i.Datacenter, "backup": i.Backup}
			if i.Tags != nil {
				m["tags"] = i.Tags
			}
			if i.Meta != nil {
				m["meta"] = i.Meta
			}
			out.Instances = append(out.Instances, m)
		}
		again, err := json.Marshal(out)
		if err != nil {
			t.Fatal(err)
		}
		if set2, err := parseFile("web", again); err != nil || !reflect.DeepEqual(set, set2) {
			t.Errorf("%q: %+v; again %+v, %v", text, set, set2, err)
		}
	})
}
