package config

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"outrigger/sidecar"
)

func TestFunctions(t *testing.T) {
	files := map[string]string{
		"etc/f.hcl": `
			consul {
			  token = file("token")
			  rate_burst = env("BURST")
			  stale = env("STALE", "false")
			  wait = "${env("MINUTES")}m"
			}
			agents { jitter = env("JITTER") }
			service "web" {
			  listen = "${env("HOST", "127.0.0.1")}:${env("PORT")}"
			  discover {
			    near = env("NEAR", "")
			    filter = (file("/abs/filter"))
			    tags = [env("TAG"), "b"]
			    datacenter = env("EMPTY", "unused")
			  }
			}`,
		"etc/token":  "s3cr3t\n",
		"abs/filter": "a == b\r\n\n",
	}
	env := world(files, map[string]string{"BURST": "9", "MINUTES": "3", "PORT": "80", "TAG": "a", "JITTER": "0.1", "EMPTY": ""})
	cfg, err := Load([]string{"etc/f.hcl"}, env)
	if err != nil {
		t.Fatal(err)
	}
	web := cfg.Services[0]
	got := fmt.Sprintln(string(cfg.Consul.Token), cfg.Consul.RateBurst, cfg.Consul.Stale, cfg.Consul.Wait, cfg.Agents.Jitter, web.Listen, web.Discover.Tags)
	if want := "s3cr3t 9 false 3m0s 0.1 127.0.0.1:80 [a b]\n"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if d := web.Discover; d.Near != "" || d.Datacenter != "" || d.Filter != "a == b\r\n" {
		t.Errorf("%+v", d)
	}
	for text, want := range map[string]string{
		`env("LATIN1")`: "the environment variable LATIN1 does not hold UTF-8 text",
		`file("dir")`:   "the file etc/dir: is a directory",
	} {
		files["etc/f.hcl"], files["etc/dir/x"] = nearText(text), ""
		_, err := Load([]string{"etc/f.hcl"}, world(files, map[string]string{"LATIN1": "\xe4"}))
		wantProblems(t, text, err, []string{"etc/f.hcl:3:19: " + want})
	}
}

func nearText(expr string) string { return web("discover { near = " + expr + " }") }

func TestSecretIsNotPrinted(t *testing.T) {
	cfg, err := loadText("consul { token = \"s3cr3t\" }\nservice \"w\" { listen = \":0\" }\n", nil)
	if err != nil || cfg.Consul.Token != "s3cr3t" {
		t.Fatalf("%v, token %q", err, string(cfg.Consul.Token))
	}
	printed := effective(t, cfg)
	if strings.Contains(printed, "s3cr3t") || !strings.Contains(printed, `= "[redacted]"`) {
		t.Error(printed)
	}
	if _, err = loadText(printed, nil); err == nil {
		t.Fatal("a placeholder was taken for a token")
	}
	wantProblems(t, "placeholder", err, []string{`f.hcl:7:23: token is the placeholder of a secret|env("NAME")`})
}

// TestMalformedSecretsAreMasked spells the secret into texts that are wrong in
// many ways at or near it.
func TestMalformedSecretsAreMasked(t *testing.T) {
	for _, text := range []string{
		`token = "s3cr3t x"`, `token = "s3cr3t`, `token = s3cr3t`, `token = s3cr3t-s3cr3t s3cr3t`, `token = 's3cr3t'`, `tokne = "s3cr3t"`,
		`acl_token = "s3cr3t"`, `TOKEN = "s3cr3t"`, `http_token = "s3cr3t"`, `password = "s3cr3t"`, `token = ["s3cr3t"]`, `token = [ "s3cr3t", `,
		"token = (\n\"s3cr3t\"\n", "token = (\n\"s3cr3t \"\n)\nx = 1", "token = <<EOT\ns3cr3t\n  s3cr3t x\nEOT\n x = 1", "token = <<EOT\ns3cr3t\n${s3cr3t}\nEOT\n",
		"token = <<EOT\ns3cr3t\n", `token = { a = "s3cr3t" }`, `token = env("NONE", "s3cr3t x")`, `token = "${env("NONE", "s3cr3t x")}"`,
		`token = env("NONE", "s3cr3t", "s3cr3t")`, `token = enf("s3cr3t")`, `token = "a" + "s3cr3t"`, `token = "x x" # s3cr3t`, `token = "x x" /* s3cr3t */`,
		`token = "x" "s3cr3t"`, `token = true ? "s3cr3t" : ""`, "token = \"x\\\ns3cr3t\"", `token = "s3cr3t" }`, `wait = 1, token = "s3cr3t"`, `token: "s3cr3t"`,
		`token "s3cr3t"`, `"token" = "s3cr3t"`, `"token": "s3cr3t"`, `token == "s3cr3t"`, `token "s3cr3t" {}`, `token="s3cr3t",`, `token=="s3cr3t x"`, `tls { token = "s3cr3t" }`,
		`address = "http://user:s3cr3t@host"`, `address = "http://user:s3cr3t @host"`, `addres = "http://user:s3cr3t@host"`, `address = "http://user:s3cr3t@host`,
	} {
		for _, text := range []string{"admin { listen = \"\n}\nconsul {\n" + text + "\n}\n", "admin { listen = <<EOT\n}\nconsul {\n" + text + "\n}\n",
			"service \"x\" {\n listen = \"${\n}\n" + text + "\nconsul {\n" + text + "\n}\n", strings.Repeat("[", maxTokens) + text + "\n}consul {\n" + text + "\n}\n", "consul {\n" + text + "\n}\n", "consul { " + text + " }\n", text + "\n", "service \"x\" {\n" + text + "\n}\n"} {
			_, err := loadText(text, nil)
			if err == nil {
				t.Errorf("loaded:\n%s", text)
			} else if strings.Contains(err.Error(), "s3cr3t") {
				t.Errorf("the text\n%s\nleaks:\n%v", text, err)
			}
		}
	}
}

func TestMaskEndsWithTheSecret(t *testing.T) {
	_, err := loadText("consul {\n  token = env(\"NONE\")\n  wait = \"1ms\"\n}\nservice \"token-issuer\" {\n  listen = \"here\"\n}\n", nil)
	wantProblems(t, "mask", err, []string{`f.hcl:2:11: the environment variable NONE is not set|  token = env("NONE")`, `f.hcl:3:10: wait|wait = "1ms"`, `f.hcl:6:12: listen|listen = "here"`})
}

// TestOutsideValuesAreNotShown gives every setting values from the environment
// that look like secrets and mostly are of the wrong form or out of range.
func TestOutsideValuesAreNotShown(t *testing.T) {
	values := []string{"8675309", "-8675309", "0.8675309", "8675309e300", "8675309h", "8675309ms", "-8675309s", "8675309B", "8675309GiB", "86753098675309867530986753098675309",
		"8675309 \"8675309\"\n\x01ü8675309", "/8675309/../8675309", "http://8675309:8675309@8675309:99999999", "unix://8675309", strings.Repeat("8675309", 1000)}
	base, agent := sidecar.DefaultConfig(), defaultAgent()
	tried := 0
	check := func(text string, load func(env Env) error) {
		for _, v := range values {
			tried++
			err := load(world(map[string]string{"f.hcl": text}, map[string]string{"V": v}))
			if err != nil && strings.Contains(err.Error(), "8675") {
				t.Errorf("%s\nleaks:\n%v", text, err)
			}
		}
	}
	sidecars := func(env Env) error { _, err := Load([]string{"f.hcl"}, env); return err }
	for _, line := range assignments(baseTable(&base)) {
		check(line+"\n"+web(""), sidecars)
	}
	for _, line := range assignments(serviceTable(newService("x"))) {
		check("service \"x\" {\n"+line+"\n}\n", sidecars)
	}
	for _, line := range assignments(agentTable(agent)) {
		check(line+"\n", func(env Env) error { _, err := LoadAgent("f.hcl", env); return err })
	}
	// Values that stand in errors about other settings.
	for _, line := range []string{
		"breaker {\n base_ejection = \"1h\"\n max_ejection = env(\"V\")\n}", "breaker {\n window = \"1h\"\n bucket = env(\"V\")\n}",
		"listen = env(\"V\")\n}\nservice \"y\" {\n listen = env(\"V\")\n", "limits {\n head = env(\"V\")\n line = \"64KiB\"\n}",
	} {
		check("service \"x\" {\n"+line+"\n}\n", sidecars)
	}
	check("consul {\n address = env(\"V\")\n scheme = env(\"V\")\n backoff_max = env(\"V\")\n backoff_min = env(\"V\")\n}\n"+web(""), sidecars)
	check("agents {\n interval = env(\"V\")\n expiry = env(\"V\")\n max_backoff = \"1s\"\n timeout = \"1ns\"\n}\n"+web(""), sidecars)
	if tried < 1000 {
		t.Errorf("only %d texts", tried)
	}
}

// assignments returns a text for each setting that is read from the variable V.
func assignments(b *block) []string {
	var lines []string
	for _, s := range b.settings {
		lines = append(lines, fmt.Sprintf("%s = env(\"V\")", s.name), fmt.Sprintf("%s = [env(\"V\")]", s.name))
	}
	for _, label := range b.variantNames() {
		for _, s := range b.variants[label] {
			lines = append(lines, fmt.Sprintf("%s = env(\"V\")", s.name))
		}
	}
	for _, c := range b.blocks {
		head := c.name
		if c.label != nil {
			head += ` "resource"`
		}
		for _, line := range assignments(c) {
			lines = append(lines, head+" {\n"+line+"\n}")
		}
	}
	return slices.Compact(lines)
}
