package config

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"outrigger/sidecar"
)

// TestSources reads every kind of source and of fallback, and reads what it printed
// of them as the same.
func TestSources(t *testing.T) {
	cfg := load(t, `
service "a" {
  listen = ":1"
  discover "file" {
    path = "/etc/a.json"
    poll = "5s"
    fallback "old" { service = "a-old" }
  }
}
service "b" {
  listen = ":2"
  discover "prepared_query" {
    name = "b-near"
    poll = "10s"
    datacenter = "dc2"
  }
}
service "c" {
  listen = ":3"
  discover {
    tags = ["x"]
    fallback "dr" {
      datacenter = "dc2"
      tags = ["y"]
      filter = "Service.Port > 1"
      node_meta = { rack = "1" }
      only_passing = true
    }
    fallback "q" { prepared_query = "c-far" }
    fallback "f" { file = "/etc/c.json" }
    fallback "last" { addresses = ["10.0.0.1:80", "[2001:db8::1]:81", "example.org:82"] }
  }
}`, nil)
	a, b, c := cfg.Services[0], cfg.Services[1], cfg.Services[2]
	var names []string
	for _, f := range c.Source.Fallbacks {
		names = append(names, f.Name+f.PreparedQuery+f.File)
	}
	dr, want := c.Source.Fallbacks[0].Query, c.Discover
	want.Datacenter, want.Tags, want.Filter, want.NodeMetaIs, want.OnlyPassing = "dc2", []string{"y"}, "Service.Port > 1", map[string]string{"rack": "1"}, true
	want.Service, want.BackupTag = "", ""
	for _, x := range []struct {
		name      string
		got, want any
	}{
		{"file", [4]any{a.Source.Kind, a.Source.FilePath, a.Source.FilePoll, a.Source.Fallbacks[0].Query.Service}, [4]any{"file", "/etc/a.json", 5 * time.Second, "a-old"}},
		{"prepared query", [4]any{b.Source.Kind, b.Source.QueryName, b.Source.QueryPoll, b.Discover.Datacenter}, [4]any{"prepared_query", "b-near", 10 * time.Second, "dc2"}},
		{"consul", c.Source.Kind, "consul"},
		{"order", strings.Join(names, " "), "dr qc-far f/etc/c.json last"},
		{"dr", dr, want},
		{"addresses", c.Source.Fallbacks[3].Addresses, []string{"10.0.0.1:80", "[2001:db8::1]:81", "example.org:82"}},
	} {
		if !reflect.DeepEqual(x.got, x.want) {
			t.Errorf("%s is %+v, want %+v", x.name, x.got, x.want)
		}
	}
	printed := effective(t, cfg)
	if again := load(t, printed, nil); !reflect.DeepEqual(cfg, again) {
		t.Errorf("loaded again it differs:\n%+v\n%+v\n%s", cfg, again, printed)
	}
}

// TestSourceProblems shows each mistake at its place.
func TestSourceProblems(t *testing.T) {
	for text, want := range map[string]string{
		`discover "dns" {}`:                                                               "f.hcl:3:10: discover is not one of",
		`discover "file" {}`:                                                              "give a path|f.hcl:3:10",
		`discover "file" { path = "a.json" }`:                                             "f.hcl:3:26: path is",
		"discover \"file\" {\n  path = \"/a\"\n  tags = [\"x\"]\n}":                       `discover "file" has no setting "tags"`,
		"discover \"file\" {\n  path = \"/a\"\n  near = \"_agent\"\n}":                    "f.hcl:5:10: datacenter, near and backup_weight",
		"discover \"prepared_query\" {\n  name = \"a/b\"\n}":                              "f.hcl:4:10: prepared_query",
		"discover {\n fallback \"a\" {}\n fallback \"a\" {}\n}":                           `f.hcl:5:2: fallback "a" is there twice`,
		"discover {\n fallback {}\n}":                                                     `a block fallback has one name`,
		"discover {\n fallback \"a b\" {}\n}":                                             `fallback "a b": its name may have`,
		"discover {\n fallback \"a\" { adresses = [] }\n}":                                `Did you mean "addresses"?`,
		"discover {\n fallback \"a\" {\n  addresses = [\"h\"]\n }\n}":                     `f.hcl:5:15: fallback "a": addresses has "h", which is not HOST:PORT`,
		"discover {\n fallback \"a\" {\n  addresses = [\"1.2.3.4:70000\"]\n }\n}":         "which is not HOST:PORT",
		"discover {\n fallback \"a\" {\n  file = \"x\"\n }\n}":                            `f.hcl:5:10: fallback "a": file "x" is no absolute path`,
		"discover {\n fallback \"a\" {\n  file = \"/x\"\n  prepared_query = \"q\"\n }\n}": "exclude each other",
		"discover {\n fallback \"a\" {\n  file = \"/x\"\n  filter = \"a\"\n }\n}":         "do not go with",
		"discover {\n fallback \"a\" {}\n}":                                               "f.hcl:1:1: fallback \"a\": it asks for what is asked for first",
		"discover {\n fallback \"a\" {\n  file = \"/x\"\n  datacenter = \"d\"\n }\n}":     "datacenter does not go with",
	} {
		_, err := loadText("service \"x\" {\nlisten = \":1\"\n"+text+"\n}\n", nil)
		for _, w := range strings.Split(want, "|") {
			if err == nil || !strings.Contains(err.Error(), w) {
				t.Errorf("%s\n%v\nwant %q", text, err, w)
			}
		}
	}
	var none sidecar.SourceConfig
	if s := sidecar.DefaultService("x"); s.Source.Kind == none.Kind {
		t.Error("there is no default")
	}
}
