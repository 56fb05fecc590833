package harness

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

// script writes an executable shell script.
func script(t *testing.T, path, body string) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+body+"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

const answersAsConsul = `[ "$1" = version ] && echo "Consul v9.9.9"`

func TestNamedConsul(t *testing.T) {
	dir := t.TempDir()
	good := script(t, dir+"/good", answersAsConsul)
	script(t, dir+"/bin/consul", answersAsConsul)
	t.Setenv("PATH", dir+"/bin:"+os.Getenv("PATH"))

	t.Setenv(consulEnv, good)
	if path, err := FindOrBuildConsul(t.Context(), t.Logf); err != nil || path != good {
		t.Errorf("got %q, %v; want the one named", path, err)
	}
	t.Chdir(dir)
	t.Setenv(consulEnv, "./good")
	if path, err := FindOrBuildConsul(t.Context(), nil); err != nil || !filepath.IsAbs(path) {
		t.Errorf("relative: got %q, %v; want an absolute path", path, err)
	}
	plain := dir + "/plain"
	if err := os.WriteFile(plain, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, bad := range map[string]string{
		"missing":        dir + "/missing",
		"not executable": plain,
		"a folder":       dir,
		"fails":          script(t, dir+"/fails", "exit 3"),
		"another tool":   script(t, dir+"/other", "echo Vault v1"),
	} {
		t.Setenv(consulEnv, bad)
		path, err := FindOrBuildConsul(t.Context(), t.Logf)
		if err == nil {
			t.Errorf("%s: got %q, want an error although PATH has a good one", name, path)
		} else if !strings.Contains(err.Error(), consulEnv) || !strings.Contains(err.Error(), bad) {
			t.Errorf("%s: error %q names neither the variable nor the file", name, err)
		}
	}
}

func TestNamedConsulThatHangs(t *testing.T) {
	t.Setenv(consulEnv, script(t, t.TempDir()+"/hangs", "exec sleep 3600"))
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := FindOrBuildConsul(ctx, t.Logf); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v, want context.DeadlineExceeded", err)
	}
}

func TestConsulFromPath(t *testing.T) {
	want := script(t, t.TempDir()+"/consul", answersAsConsul)
	t.Setenv("PATH", filepath.Dir(want)+":"+os.Getenv("PATH"))
	t.Setenv(consulEnv, "")
	var said strings.Builder
	path, err := FindOrBuildConsul(t.Context(), func(f string, a ...any) { fmt.Fprintf(&said, f+"\n", a...) })
	if err != nil || path != want {
		t.Errorf("got %q, %v; want %q", path, err, want)
	}
	if !strings.Contains(said.String(), "Consul v9.9.9") {
		t.Errorf("said %q, want the version", said.String())
	}
}

// A consul that does not answer is passed over, and a pinned one that was
// built before is used as it is.
func TestPinnedConsulIsReused(t *testing.T) {
	dir := t.TempDir()
	script(t, dir+"/bin/consul", "exit 1")
	t.Setenv("PATH", dir+"/bin:"+os.Getenv("PATH"))
	t.Setenv(consulEnv, "")
	t.Setenv("XDG_CACHE_HOME", dir)
	// HOME stays: the go command would write to it even after the test.
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	if cache != dir {
		t.Skip("this system has no variable for the cache folder alone")
	}
	root, err := moduleRoot()
	if err != nil {
		t.Fatal(err)
	}
	version, key, err := pinnedKey(t.Context(), filepath.Join(root, "test", "consul"), consulPkg)
	if err != nil {
		t.Fatal(err)
	}
	if version != "v1.20.1" || len(key) != 12 {
		t.Errorf("pinned version %q, key %q", version, key)
	}
	built := script(t, filepath.Join(cache, "outrigger", "consul-"+version+"-"+key, "consul"), answersAsConsul)
	var said strings.Builder
	path, err := FindOrBuildConsul(t.Context(), func(f string, a ...any) { fmt.Fprintf(&said, f+"\n", a...) })
	if err != nil || path != built {
		t.Errorf("got %q, %v; want %q", path, err, built)
	}
	if !strings.Contains(said.String(), "not using the consul on PATH") {
		t.Errorf("said %q, want why the consul on PATH is not used", said.String())
	}
}

func TestPinnedKeyNeedsTheRequirement(t *testing.T) {
	dir := t.TempDir()
	mod := "module x\n\nrequire github.com/hashicorp/consul/api v1.34.5\n"
	for name, data := range map[string]string{"go.mod": mod, "go.sum": ""} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, err := pinnedKey(t.Context(), dir, consulPkg); err == nil || !strings.Contains(err.Error(), "requires no") {
		t.Errorf("error %v, want that Consul is not required", err)
	}
}

func TestModuleRoot(t *testing.T) {
	root, err := moduleRoot()
	if err != nil {
		t.Fatal(err)
	}
	t.Chdir(filepath.Join(root, "test", "consul")) // has a go.mod of its own
	if got, err := moduleRoot(); got != root || err != nil {
		t.Errorf("from test/consul: %q, %v; want %q", got, err, root)
	}
	t.Chdir(t.TempDir())
	got, err := moduleRoot()
	if _, file, _, _ := runtime.Caller(0); !filepath.IsAbs(file) { // go test -trimpath
		if !errors.Is(err, errNoModule) {
			t.Errorf("from nowhere: %q, %v; want an error", got, err)
		}
	} else if got != root || err != nil {
		t.Errorf("from elsewhere: %q, %v; want %q", got, err, root)
	}
}

func TestModuleOf(t *testing.T) {
	file := filepath.Join(t.TempDir(), "go.mod")
	for text, want := range map[string]string{
		"// module no\nmodule outrigger // yes\n": "outrigger",
		"module \"quoted\"":                       "quoted",
		"go 1.26\n":                               "",
	} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := moduleOf(file); got != want {
			t.Errorf("moduleOf(%q) = %q, want %q", text, got, want)
		}
	}
}

func TestFindGoWithoutPath(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	path, err := findGo()
	if err != nil {
		t.Skipf("this program was compiled with -trimpath or elsewhere: %v", err)
	}
	if out, err := exec.Command(path, "version").Output(); err != nil || !strings.HasPrefix(string(out), "go version go") {
		t.Errorf("%s version: %q, %v", path, out, err)
	}
}
