package harness

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// toxiproxyEnv names a toxiproxy-server to use instead of any other.
const toxiproxyEnv = "OUTRIGGER_TOXIPROXY"

// FindOrBuildToxiproxy returns the path of a toxiproxy-server that answers
// `-version`: the one OUTRIGGER_TOXIPROXY names, else the one on PATH, else the
// one pinned in test/toxiproxy, which it builds once into the user's cache
// folder. An error of a build is a *ToxiproxyBuildError.
//
// The first build takes a few seconds; say hears of it. Concurrent calls, also
// of other processes, build only once. The end of ctx stops a build and leaves
// no half file.
func FindOrBuildToxiproxy(ctx context.Context, say func(format string, args ...any)) (path string, err error) {
	s := Say(say).orSilent()
	if named := os.Getenv(toxiproxyEnv); named != "" {
		path, err := filepath.Abs(named)
		if err == nil {
			_, err = toxiproxyVersion(ctx, path)
		}
		if err != nil {
			return "", fmt.Errorf("%s=%q is not a usable toxiproxy-server: %w\npoint it to a toxiproxy-server binary, or unset it to use the one on PATH or the pinned build", toxiproxyEnv, named, err)
		}
		return path, nil
	}
	if path, err := exec.LookPath("toxiproxy-server"); err == nil {
		version, err := toxiproxyVersion(ctx, path)
		if err == nil {
			s("using %s from PATH: %s", version, path)
			return filepath.Abs(path)
		}
		s("not using the toxiproxy-server on PATH: %v", err)
	}
	path, err = pinnedToxiproxy(ctx, s)
	if err != nil {
		return "", &ToxiproxyBuildError{err}
	}
	return path, nil
}

// ToxiproxyBuildError says that the pinned toxiproxy could not be built: most
// likely there is neither a network nor a filled module cache.
type ToxiproxyBuildError struct{ err error }

// Error implements error.
func (e *ToxiproxyBuildError) Error() string {
	return fmt.Sprintf("%v\nto do without the build: install toxiproxy-server, or set %s to a toxiproxy-server binary", e.err, toxiproxyEnv)
}

// Unwrap returns the cause.
func (e *ToxiproxyBuildError) Unwrap() error { return e.err }

// toxiproxyVersion runs `toxiproxy-server -version` and returns its line.
func toxiproxyVersion(ctx context.Context, path string) (string, error) {
	return versionOf(ctx, path, "-version", "toxiproxy-server version ")
}

const toxiproxyPkg = "github.com/Shopify/toxiproxy/v2"

// pinnedToxiproxy builds the toxiproxy-server of test/toxiproxy, or finds it
// built. The cache folder's name holds all that goes into it.
func pinnedToxiproxy(ctx context.Context, say Say) (string, error) {
	root, err := moduleRoot()
	if err != nil {
		return "", fmt.Errorf("find the module that pins toxiproxy: %w", err)
	}
	src := filepath.Join(root, "test", "toxiproxy")
	version, key, err := pinnedKey(ctx, src, toxiproxyPkg)
	if err != nil {
		return "", fmt.Errorf("find the pinned toxiproxy: %w", err)
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find the user's cache folder: %w", err)
	}
	dir := filepath.Join(cache, "outrigger", "toxiproxy-"+version+"-"+key)
	c := cachedBuild{
		goBuild: goBuild{
			name: "toxiproxy " + version, dir: src, pkg: toxiproxyPkg + "/cmd/server",
			out: filepath.Join(dir, exeName("toxiproxy-server")), say: say,
			args: []string{"-ldflags=-s -w -X " + toxiproxyPkg + ".Version=" + strings.TrimPrefix(version, "v")},
			env:  []string{"CGO_ENABLED=0"}, // as its makers release it; needs no C compiler
		},
		announce: fmt.Sprintf("found no toxiproxy-server: building the pinned toxiproxy %s, "+
			"which takes a few seconds, once, into %s", version, dir),
		check: func(ctx context.Context, path string) error {
			_, err := toxiproxyVersion(ctx, path)
			return err
		},
	}
	return c.out, c.ensure(ctx)
}
