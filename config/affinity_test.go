package config

import (
	"strings"
	"testing"
	"time"

	"outrigger/picker"
)

func TestAffinityProblems(t *testing.T) {
	const state = "state_dir = \"/var/lib/outrigger\"\n"
	in := func(body string) string { return state + web("affinity {\n"+body+"\n}") } // from line 5 on
	for _, c := range []struct {
		name, text string
		wants      []string // see wantProblems
	}{
		{"nothing to sign with", web("affinity {\n cookie = \"pin\"\n}") + "service \"ok\" { listen = \":1\" }\n",
			[]string{`f.hcl:4:11: affinity has a cookie but nothing to sign it with: write secret = env("NAME") beside it, or outside the service blocks state_dir = "/var/lib/outrigger"`}},
		{"two services, one without", web("affinity {\n cookie = \"a\"\n secret = \"0123456789abcdef\"\n}") + "service \"b\" {\n listen = \":1\"\n affinity { cookie = \"b\" }\n}\n",
			[]string{`f.hcl:10:22: affinity has a cookie but nothing to sign it with`}},
		{"state_dir empty", "state_dir = \"\"\n" + web("affinity { cookie = \"a\" }"), []string{`f.hcl:4:21: affinity has a cookie but nothing to sign it with`}},
		{"state_dir malformed", "state_dir = 5\n" + web("affinity { cookie = \"a\" }"), []string{`f.hcl:1:13: state_dir must be text`}},
		{"state_dir relative", "state_dir = \"state\"\n" + web("affinity { cookie = \"a\" }"), []string{`f.hcl:1:13: state_dir is "state", which is no absolute path`}},
		{"secret malformed", web("affinity {\n cookie = \"a\"\n secret = 5\n}"), []string{`f.hcl:5:11: secret must be text`}},
		{"secret alone", in(`secret = "0123456789abcdef"`), []string{`f.hcl:5:10: affinity has a secret but no cookie|cookie = "NAME"`}},
		{"secret short", in("cookie = \"a\"\nsecret = \"hunter2\""), []string{`f.hcl:6:10: affinity secret is shorter than 16 bytes|openssl rand`}},
		{"secret short, no state", web("affinity {\ncookie = \"a\"\nsecret = \"hunter2\"\n}"), []string{`f.hcl:5:10: affinity secret is shorter than 16 bytes`}},
		{"secret blank", in("cookie = \"a\"\nsecret = \"                  \""), []string{`f.hcl:6:10: affinity secret is shorter than 16 bytes`}},
		{"secret empty", web("affinity {\ncookie = \"a\"\nsecret = \"\"\n}"), []string{`f.hcl:4:10: affinity has a cookie but nothing to sign it with`}},
		{"cookie", in(`cookie = "a b"`), []string{`f.hcl:5:10: affinity cookie is "a b", which is no name of a cookie`}},
		{"prefix", in(`cookie = "__Host-a"`), []string{`f.hcl:5:10: affinity cookie is "__Host-a": browsers take that name only with secure = true`}},
		{"ttl", in("cookie = \"a\"\nttl = \"1s\""), []string{`f.hcl:6:7: affinity ttl is 1s, allowed are 10s to 9600h, or 0s`}},
		{"path", in("cookie = \"a\"\npath = \"app\""), []string{`f.hcl:6:8: affinity path is "app", which is no path`}},
		{"same_site", in("cookie = \"a\"\nsame_site = \"Lax\""), []string{`f.hcl:6:13: same_site is not one of lax, strict, none|Did you mean "lax"?`}},
		{"same_site none", in("cookie = \"a\"\nsame_site = \"none\""), []string{`f.hcl:6:13: affinity same_site is "none", which browsers take only with secure = true`}},
		{"wrong block", web("cookie = \"a\""), []string{`f.hcl:3:1: unknown setting "cookie"|It belongs in the block affinity.`}},
	} {
		_, err := loadText(c.text, nil)
		wantProblems(t, c.name, err, c.wants)
		if err != nil && strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: shows the secret:\n%v", c.name, err)
		}
	}
}

// What a syntax error hides is not said to be missing.
func TestAffinityBehindASyntaxError(t *testing.T) {
	_, err := loadText("}\nstate_dir = \"/var/lib/outrigger\"\n"+web("affinity { cookie = \"a\" }"), nil)
	wantProblems(t, "hidden state_dir", err, []string{`f.hcl:1:1: argument or block definition required`})
}

func TestAffinitySecret(t *testing.T) {
	cfg, err := loadText(web("affinity {\n cookie = \"pin\"\n ttl = \"90m\"\n secret = env(\"SECRET\")\n}"), map[string]string{"SECRET": "0123456789abcdef"})
	if err != nil {
		t.Fatal(err)
	}
	a := cfg.Services[0].HTTP.Affinity
	if string(a.Secret) != "0123456789abcdef" || a.TTL != 90*time.Minute || a.Path != "/" {
		t.Errorf("got %+v", a)
	}
	if printed := effective(t, cfg); strings.Contains(printed, "0123456789abcdef") || !strings.Contains(printed, `[redacted]`) {
		t.Errorf("printed\n%s", printed)
	}
}

// The key of the policy consistent_hash is checked where it is written.
func TestHashKeyProblems(t *testing.T) {
	in := func(body string) string { return web("policy \"consistent_hash\" {\n" + body + "\n}") }
	for _, c := range []struct {
		name, text string
		wants      []string
	}{
		{"no header", in("on = \"header\"\nname = \"a b\""), []string{`f.hcl:5:8: hash name is "a b", which is no name of a header`}},
		{"no cookie", in("on = \"cookie\"\nname = \"a=b\""), []string{`f.hcl:5:8: hash name is "a=b", which is no name of a cookie`}},
		{"no name", in("on = \"query\""), []string{`f.hcl:4:6: hash name is missing`}},
		{"on", in("on = \"sorce\""), []string{`f.hcl:4:6: on is not one of source, header, cookie, path, query|Did you mean "source"?`}},
	} {
		_, err := loadText(c.text, nil)
		wantProblems(t, c.name, err, c.wants)
	}
	cfg := load(t, in("on = \"query\"\nname = \"a b=\"\nbalance = 0\npoints = 100"), nil)
	want := picker.HashConfig{On: "query", Name: "a b=", Points: 100}
	if got := cfg.Services[0].Balance.Picker.Hash; got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}
