package config

import (
	"bytes"
	"reflect"
	"strings"
	"testing"

	"outrigger/sidecar/access"
)

// loadAccess loads a file that has one access_log block.
func loadAccess(body string, vars map[string]string) (access.Config, error) {
	c := access.DefaultConfig()
	root := &block{blocks: []*block{accessTable(&c)}}
	l := &loader{env: world(map[string]string{"f.hcl": "access_log {\n" + body + "\n}\n"}, vars), root: root, byName: map[string]*source{}}
	in := l.load([]string{"f.hcl"})
	l.blame(in.sec, func() error { return c.Validate() })
	if len(l.problems) > 0 {
		return c, l.problems.sorted()
	}
	return c, nil
}

func TestAccessLog(t *testing.T) {
	for _, tt := range []struct {
		body string
		want access.Config
	}{
		{"", access.DefaultConfig()},
		{`path = "stdout"`, access.Config{Path: "stdout", Format: "json", Sample: 1, Buffer: 1 << 20}},
		{"path = \"/var/log/web.log\"\nformat = \"logfmt\"\nsample = 0.01\nquery = true\nbuffer = \"4MiB\"",
			access.Config{Path: "/var/log/web.log", Format: "logfmt", Sample: 0.01, Query: true, Buffer: 4 << 20}},
		{`sample = 0`, access.Config{Format: "json", Buffer: 1 << 20}},
	} {
		got, err := loadAccess(tt.body, nil)
		if err != nil || got != tt.want {
			t.Errorf("%s: %+v, %v", tt.body, got, err)
		}
		var b bytes.Buffer
		def := access.DefaultConfig()
		writeBody(&b, accessTable(&got), accessTable(&def))
		if again, err := loadAccess(b.String(), nil); err != nil || again != got {
			t.Errorf("%s: printed as\n%s\nwhich is %+v, %v", tt.body, b.String(), again, err)
		}
		if tt.body == "" && strings.Count(b.String(), "# default") != 5 {
			t.Errorf("defaults are not marked:\n%s", b.String())
		}
	}
}

// Every complaint is at the setting that caused it, and shows no secret.
func TestAccessLogProblems(t *testing.T) {
	for body, wants := range map[string][]string{
		`path = "access.log"`: {`f.hcl:2:8: access_log path "access.log" is not stdout, stderr or an absolute path`},
		`format = "xml"`:      {"f.hcl:2:10: format is not one of json, logfmt"},
		`formt = "json"`:      {`f.hcl:2:1: unknown setting "formt" in access_log|Did you mean "format"?`},
		"sample = 1.5\nbuffer = \"1KiB\"\npath = \"x\"": {"f.hcl:2:10: access_log sample is 1.5", "f.hcl:3:10: access_log buffer is 1024 bytes", "f.hcl:4:8: access_log path"},
		`sample = "1%"`:        {"f.hcl:2:10: sample must be a number"},
		`buffer = 4`:           {"f.hcl:2:10: buffer must be a size"},
		`query = "no"`:         {"f.hcl:2:9: query must be true or false"},
		`path = env("SECRET")`: {`f.hcl:2:8: access_log path "[redacted]" is not`},
	} {
		_, err := loadAccess(body, map[string]string{"SECRET": "hunter2"})
		wantProblems(t, body, err, wants)
		if err != nil && strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: the value of a variable is shown:\n%v", body, err)
		}
	}
}

func TestEveryAccessFieldHasASetting(t *testing.T) {
	c := access.DefaultConfig()
	reached := map[uintptr]bool{}
	for _, s := range accessTable(&c).settings {
		for _, p := range pointers(s.dest) {
			reached[p] = true
		}
	}
	walkFields(reflect.ValueOf(&c).Elem(), "", func(path string, p uintptr) {
		if !reached[p] {
			t.Errorf("%s can't be set", path)
		}
	})
}
