package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func runChecked(t *testing.T, args ...string) (status int, out, errs string) {
	t.Helper()
	var o, e bytes.Buffer
	status = run(t.Context(), append([]string{"check"}, args...), streams{strings.NewReader(""), &o, &e})
	return status, o.String(), e.String()
}

func TestCheck(t *testing.T) {
	t.Setenv("OUTRIGGER_TEST_TOKEN", "s3cr3t")
	dir := t.TempDir()
	put := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	base := put("conf/base.hcl", "consul {\n  token = env(\"OUTRIGGER_TEST_TOKEN\")\n}\nlog { level = \"warn\" }\n")
	web := put("conf/web.hcl", "service \"web\" {\n  listen = \"127.0.0.1:8080\"\n  discover { filter = file(\"filter.txt\") }\n}\n")
	put("conf/filter.txt", "Node == \"n1\"\n")
	bad := put("bad.hcl", "service \"api\" {\n  lisen = \"127.0.0.1:8081\"\n  pool { size = -1 }\n}\n")

	for _, args := range [][]string{{"-config", filepath.Dir(base)}, {"-config", base, "-config", web}, {"-config", base, web}} {
		status, out, errs := runChecked(t, args...)
		if status != 0 || errs != "" {
			t.Fatalf("%q: status %d\n%s", args, status, errs)
		}
		for _, want := range []string{"service \"web\" {\n  listen          = \"127.0.0.1:8080\"\n", `filter        = "Node == \"n1\""`, "level  = \"warn\"\n", "format = \"text\" # default\n", `"[redacted]"`} {
			if !strings.Contains(out, want) {
				t.Errorf("%q: %q is missing in\n%s", args, want, out)
			}
		}
		if strings.Contains(out, "s3cr3t") {
			t.Errorf("the token is printed:\n%s", out)
		}
	}

	status, out, errs := runChecked(t, "-config", filepath.Dir(base), "-config", bad)
	if status != 1 || out != "" {
		t.Errorf("status %d, printed\n%s", status, out)
	}
	for _, want := range []string{bad + ":1:1: service \"api\" has no listen\n", bad + ":2:3: unknown setting \"lisen\"", "   2 |   lisen = ", "Did you mean \"listen\"?",
		bad + ":3:17: pool size is -1, allowed are 0 to 100000\n", "\n3 problems\n"} {
		if !strings.Contains(errs, want) {
			t.Errorf("%q is missing in\n%s", want, errs)
		}
	}
	if status, _, errs = runChecked(t, "-config", filepath.Join(dir, "none.hcl")); status != 1 || !strings.Contains(errs, "none.hcl: cannot be read: no such file or directory") {
		t.Errorf("status %d\n%s", status, errs)
	}
}

func TestCheckUsage(t *testing.T) {
	for _, args := range [][]string{nil, {"-confg", "x"}, {"-config"}} {
		status, out, errs := runChecked(t, args...)
		if status != 2 || out != "" || !strings.Contains(errs, "-config") {
			t.Errorf("%q: status %d, printed\n%s%s", args, status, out, errs)
		}
	}
	if status, _, _ := runChecked(t, "-h"); status != 0 {
		t.Errorf("-h: status %d", status)
	}
}

// TestCheckAgent: an agent's file is checked with -agent, and what is printed means
// the same again.
func TestCheckAgent(t *testing.T) {
	path := filepath.Join(t.TempDir(), "agent.hcl")
	put := func(text string) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	put("agent {\n  listen = \"10.0.0.5:9912\"\n  backend { port = 8080 }\n}\nlog { format = \"json\" }\n")
	status, out, errs := runChecked(t, "-agent", "-config", path)
	if status != 0 || errs != "" || !strings.Contains(out, "port   = 8080") || !strings.Contains(out, `format = "json"`) {
		t.Fatalf("status %d\n%s\n%s", status, errs, out)
	}
	put(out)
	if status, again, errs := runChecked(t, "-agent", "-config", path); status != 0 || again != out {
		t.Errorf("status %d, what was printed reads\n%s\n%s", status, again, errs)
	}
	if status, _, errs := runChecked(t, "-config", path); status != 1 || !strings.Contains(errs, "outrigger agent") {
		t.Errorf("without -agent: status %d\n%s", status, errs)
	}
	if status, _, errs := runChecked(t, "-agent", "-config", path, path); status != 2 || !strings.Contains(errs, "one file") {
		t.Errorf("two files: status %d\n%s", status, errs)
	}
}
