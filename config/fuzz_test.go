package config

import (
	"bytes"
	"errors"
	"reflect"
	"strings"
	"testing"
)

// FuzzLoad holds that no text panics, that what loads is valid and comes back
// from the effective configuration unchanged, and that what does not load has a
// place and a message for each problem, without secrets.
func FuzzLoad(f *testing.F) {
	f.Add(everything)
	f.Add("consul { token = env(\"SECRET\") }\nservice \"a\" { listen = \"${env(\"SECRET\")}:1\" }\n")
	f.Add("service \"a\" {\n listen = file(\"value\")\n discover { tags = [\"x\", \"\\u00fc\", env(\"NUMBER\", \"y\")] }\n}\n")
	f.Add("service \"a\" {\n breaker {\n base_ejection = \"60s\"\n max_ejection = \"1s\"\n}\n limits {\n head = \"1GiB\"\n}\n}\nservce {}\n")
	f.Add("agent {\n listen = \"10.0.0.1:1\"\n backend { port = env(\"NUMBER\") }\n}\n")
	f.Add("token = <<EOT\nx\nEOT\nservice \"a\" {\nlisten = \"x\nservice \"b\" { retry { on = [\"reset\", -1e9] } }\n")
	const secret = "s3cr3t-7f3a"
	f.Fuzz(func(t *testing.T, text string) {
		env := world(map[string]string{"f.hcl": text, "value": secret}, map[string]string{"SECRET": secret, "NUMBER": "80"})
		spelled := strings.Contains(text, secret)
		_, err := LoadAgent("f.hcl", env)
		checkProblems(t, err, secret, spelled)
		cfg, err := Load([]string{"f.hcl"}, env)
		checkProblems(t, err, secret, spelled)
		if err != nil {
			return
		}
		if err := cfg.Validate(); err != nil {
			t.Fatalf("loaded, but invalid: %v", err)
		}
		cfg.Consul.Token = ""
		for i := range cfg.Services {
			cfg.Services[i].HTTP.Affinity.Secret = ""
		}
		cfg.StateDir = "/state" // for keys in the secrets' place
		printed := effective(t, cfg)
		again, err := loadText(printed, nil)
		if err != nil {
			t.Fatalf("the effective configuration does not load: %v\n%s", err, printed)
		}
		if !reflect.DeepEqual(cfg, again) {
			t.Fatalf("came back changed:\n%+v\n%+v", cfg, again)
		}
		var b bytes.Buffer
		cfg.Consul.Token = secret
		cfg.Services = nil
		if err := Effective(&b, cfg); err != nil || strings.Contains(b.String(), secret) && !spelled {
			t.Fatalf("%v, printed\n%s", err, b.String())
		}
	})
}

func checkProblems(t *testing.T, err error, secret string, spelled bool) {
	if err == nil {
		return
	}
	var ps Problems
	if !errors.As(err, &ps) || len(ps) == 0 {
		t.Fatalf("an error without problems: %v", err)
	}
	for _, p := range ps {
		if p.Message == "" || p.Line > 0 && (p.Column < 1 || p.File != "f.hcl" || p.Snippet == "") {
			t.Fatalf("half a problem: %+v", p)
		}
	}
	if !spelled && strings.Contains(err.Error(), secret) {
		t.Fatalf("a secret in\n%v", err)
	}
}
