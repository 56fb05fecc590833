package config

import (
	"errors"
	"reflect"
	"strings"
	"testing"

	"outrigger/sidecar/h1"
)

func forwardOf(t *testing.T, body string, vars map[string]string) h1.ForwardConfig {
	t.Helper()
	return load(t, web("forward {\n"+body+"\n}"), vars).Services[0].HTTP.Forward
}

func TestForward(t *testing.T) {
	got := forwardOf(t, `
		x_forwarded = "pass"
		fields = ["proto"]
		trust = []
		headers {
		  request {
		    set = {
		      X-Env = "prod" # in any order
		      "A.b" = env("B")
		      Authorization : "Bearer ${env("TOKEN")}", }
		    add = {}
		  }
		}`, map[string]string{"B": "c", "TOKEN": "hunter2"})
	want := h1.DefaultForwardConfig()
	want.XForwarded, want.Fields, want.Trust = "pass", h1.ForwardFields{Proto: true}, nil
	want.Headers.Request.Set = []h1.HeaderField{{Name: "X-Env", Value: "prod"}, {Name: "A.b", Value: "c"}, {Name: "Authorization", Value: "Bearer hunter2"}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
}

// What a header holds may be a secret: it is not printed, and what is printed in
// its place is refused.
func TestSecretHeadersAreNotPrinted(t *testing.T) {
	for _, name := range []string{"Authorization", "Cookie", "X-API-Key", "X-Vault-Token", "x-secret", "Proxy-Auth-X"} {
		cfg := load(t, web("forward {\nheaders {\nrequest {\nset = { \""+name+"\" = \"hunter2\", X-Plain = \"shown\" }\n}\n}\n}"), nil)
		printed := effective(t, cfg)
		if strings.Contains(printed, "hunter2") || !strings.Contains(printed, "shown") {
			t.Errorf("%s:\n%s", name, printed)
		}
		_, err := loadText(printed, nil)
		var ps Problems
		if !errors.As(err, &ps) || len(ps) != 1 || !strings.Contains(err.Error(), "set has the placeholder of a secret") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestForwardProblems(t *testing.T) {
	in := func(body string) string { return web("forward {\n" + body + "\n}") }
	set := func(m string) string { return in("headers {\nrequest {\nset = " + m + "\n}\n}") }
	for _, c := range []struct {
		name, text string
		wants      []string // see wantProblems
	}{
		{"mode", in(`x_forwarded = "apend"`), []string{`f.hcl:4:15: x_forwarded is not one of append, replace, pass, remove|Did you mean "append"?`}},
		{"fields", in(`fields = ["for", "port"]`), []string{`f.hcl:4:18: fields is not one of for, proto, host, by`}},
		{"no fields", in(`fields = []`), []string{`f.hcl:4:10: forward fields is empty, so x_forwarded = "append" has nothing to say`}},
		{"trust", in(`trust = ["10.0.0.1"]`), []string{`f.hcl:4:9: forward trust has "10.0.0.1", which is neither`}},
		{"host", in(`host = "http://a"`), []string{`f.hcl:4:8: forward host "http://a" is not a host`}},
		{"sampled", in(`sampled = 2`), []string{`f.hcl:4:11: forward sampled is 2`}},
		{"several", in("host = \"a b\"\ntraceparent = \"new\"\nsampled = -1"), []string{
			`f.hcl:4:8: forward host`, `f.hcl:5:15: traceparent is not one of pass, create`, `f.hcl:6:11: forward sampled is -1`}},
		{"no map", set(`["X-A: b"]`), []string{`f.hcl:6:7: set must be a map of headers|Write {`}},
		{"map for a text", in(`host = { a = "b" }`), []string{`f.hcl:4:8: host must be text`}},
		{"map for a list", in(`trust = { a = "b" }`), []string{`f.hcl:4:9: trust must be a list`}},
		{"Host", set(`{ X-A = "b", host = "c" }`), []string{`f.hcl:6:20: set cannot have this header: "host" is what forward host is for`}},
		{"framing", set(`{ "Content-Length" = "1" }`), []string{`f.hcl:6:9: set cannot have this header: "Content-Length" frames`}},
		{"value", set(`{ X-A = 1 }`), []string{`f.hcl:6:15: set has a value that is no text`}},
		{"twice", set(`{ X-A = "1", x-a = "2" }`), []string{`f.hcl:6:20: set has this header twice`}},
		{"line break", set(`{ X-A = "a\nb" }`), []string{`f.hcl:6:9: set cannot have this header: the value of "X-A" has control characters`}},
		{"computed name", set(`{ (X) = "a", "${env("B")}" = "c" }`), []string{
			`f.hcl:6:9: names in a map are written out`, `f.hcl:6:20: names in a map are written out`}},
		{"computed value", set(`{ X-A = b }`), []string{`f.hcl:6:15: there are no variables here`}},
		{"remove", in("headers {\nresponse { remove = [\"TE\"] }\n}"), []string{`f.hcl:5:21: forward headers response remove: "TE" is of one connection`}},
		{"both", in("headers {\nrequest {\nremove = [\"x-a\"]\nset = { X-A = \"b\" }\n}\n}"), []string{`f.hcl:7:7: forward headers request set and remove both name "X-A"`}},
		{"written twice", in("fields = [\"for\", \"proto\"]\nheaders {\nrequest {\nset = { X-Forwarded-Proto = \"https\" }\n}\n}"), []string{`f.hcl:4:10: forward fields has "proto"`}},
	} {
		_, err := loadText(c.text, map[string]string{"B": "b"})
		wantProblems(t, c.name, err, c.wants)
	}
}

// A message about a header tells neither a value of the environment nor blames
// another header of the map.
func TestHeaderProblemsKeepSecrets(t *testing.T) {
	for m, want := range map[string]string{
		`{ X-A = env("S"), Host = "b" }`:         `"Host" is what forward host is for`,
		`{ X-A = "${env("S")}\n" }`:              `the value of "X-A" has control characters`,
		`{ Authorization = env("S"), X-B = [] }`: `set has a value that is no text`,
	} {
		_, err := loadText(web("forward {\nheaders {\nrequest {\nset = "+m+"\n}\n}\n}"), map[string]string{"S": "hunter2"})
		if err == nil || strings.Contains(err.Error(), "hunter2") || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", m, err)
		}
	}
}
