package harness

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const answersAsToxiproxy = `[ "$1" = -version ] && echo "toxiproxy-server version 9.9.9"`

func TestNamedToxiproxy(t *testing.T) {
	dir := t.TempDir()
	good := script(t, dir+"/good", answersAsToxiproxy)
	script(t, dir+"/bin/toxiproxy-server", answersAsToxiproxy)
	t.Setenv("PATH", dir+"/bin:"+os.Getenv("PATH"))

	t.Setenv(toxiproxyEnv, good)
	if path, err := FindOrBuildToxiproxy(t.Context(), t.Logf); err != nil || path != good {
		t.Errorf("got %q, %v; want the one named", path, err)
	}
	t.Chdir(dir)
	t.Setenv(toxiproxyEnv, "./good")
	if path, err := FindOrBuildToxiproxy(t.Context(), nil); err != nil || !filepath.IsAbs(path) {
		t.Errorf("relative: got %q, %v; want an absolute path", path, err)
	}
	for name, bad := range map[string]string{
		"missing":      dir + "/missing",
		"a folder":     dir,
		"fails":        script(t, dir+"/fails", "exit 3"),
		"another tool": script(t, dir+"/other", "echo Consul v1"),
	} {
		t.Setenv(toxiproxyEnv, bad)
		path, err := FindOrBuildToxiproxy(t.Context(), t.Logf)
		var unbuilt *ToxiproxyBuildError
		if err == nil {
			t.Errorf("%s: got %q, want an error although PATH has a good one", name, path)
		} else if !strings.Contains(err.Error(), toxiproxyEnv) || !strings.Contains(err.Error(), bad) {
			t.Errorf("%s: error %q names neither the variable nor the file", name, err)
		} else if errors.As(err, &unbuilt) {
			t.Errorf("%s: %q passes for a failed build, which tests skip for", name, err)
		}
	}
	t.Setenv(toxiproxyEnv, script(t, dir+"/hangs", "exec sleep 3600"))
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := FindOrBuildToxiproxy(ctx, t.Logf); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v, want context.DeadlineExceeded", err)
	}
}

func TestToxiproxyFromPath(t *testing.T) {
	want := script(t, t.TempDir()+"/toxiproxy-server", answersAsToxiproxy)
	t.Setenv("PATH", filepath.Dir(want)+":"+os.Getenv("PATH"))
	t.Setenv(toxiproxyEnv, "")
	var said strings.Builder
	path, err := FindOrBuildToxiproxy(t.Context(), func(f string, a ...any) { fmt.Fprintf(&said, f+"\n", a...) })
	if err != nil || path != want {
		t.Errorf("got %q, %v; want %q", path, err, want)
	}
	if !strings.Contains(said.String(), "version 9.9.9") {
		t.Errorf("said %q, want the version", said.String())
	}
}

// A toxiproxy-server that does not answer is passed over, and a pinned one
// that was built before is used as it is.
func TestPinnedToxiproxyIsReused(t *testing.T) {
	dir := t.TempDir()
	script(t, dir+"/bin/toxiproxy-server", "exit 1")
	t.Setenv("PATH", dir+"/bin:"+os.Getenv("PATH"))
	t.Setenv(toxiproxyEnv, "")
	t.Setenv("XDG_CACHE_HOME", dir)
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
	version, key, err := pinnedKey(t.Context(), filepath.Join(root, "test", "toxiproxy"), toxiproxyPkg)
	if err != nil {
		t.Fatal(err)
	}
	if version != "v2.12.0" || len(key) != 12 {
		t.Errorf("pinned version %q, key %q", version, key)
	}
	built := script(t, filepath.Join(cache, "outrigger", "toxiproxy-"+version+"-"+key, "toxiproxy-server"), answersAsToxiproxy)
	var said strings.Builder
	path, err := FindOrBuildToxiproxy(t.Context(), func(f string, a ...any) { fmt.Fprintf(&said, f+"\n", a...) })
	if err != nil || path != built {
		t.Errorf("got %q, %v; want %q", path, err, built)
	}
	if !strings.Contains(said.String(), "not using the toxiproxy-server on PATH") {
		t.Errorf("said %q, want why the one on PATH is not used", said.String())
	}
}

// A build that fails says what to do, and is told apart from everything else.
func TestToxiproxyThatCannotBeBuilt(t *testing.T) {
	dir := t.TempDir()
	// A go command that knows its version and cannot download.
	script(t, dir+"/bin/go", `[ "$1" = version ] && { echo "go version go9.9 test"; exit; }; echo "module lookup disabled" >&2; exit 1`)
	t.Setenv("PATH", dir+"/bin:/usr/bin:/bin")
	t.Setenv(toxiproxyEnv, "")
	t.Setenv("XDG_CACHE_HOME", dir)
	if cache, err := os.UserCacheDir(); err != nil || cache != dir {
		t.Skip("this system has no variable for the cache folder alone")
	}
	_, err := FindOrBuildToxiproxy(t.Context(), t.Logf)
	var unbuilt *ToxiproxyBuildError
	if !errors.As(err, &unbuilt) {
		t.Fatalf("error %v, want a *ToxiproxyBuildError", err)
	}
	for _, part := range []string{"module lookup disabled", toxiproxyEnv, toxiproxyPkg + "/cmd/server"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("error %q does not mention %q", err, part)
		}
	}
}
