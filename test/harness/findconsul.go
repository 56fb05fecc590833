package harness

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"time"
)

// consulEnv names a consul binary to use instead of any other.
const consulEnv = "OUTRIGGER_CONSUL"

// FindOrBuildConsul returns the path of a consul binary that answers
// `version`: the one OUTRIGGER_CONSUL names, else the one on PATH, else the one
// pinned in test/consul, which it builds once into the user's cache folder.
//
// The first build takes minutes; say hears of it. Concurrent calls, also of
// other processes, build only once. The end of ctx stops a build and leaves no
// half file.
func FindOrBuildConsul(ctx context.Context, say func(format string, args ...any)) (path string, err error) {
	s := Say(say).orSilent()
	if named := os.Getenv(consulEnv); named != "" {
		return namedConsul(ctx, named)
	}
	if path, err := exec.LookPath("consul"); err == nil {
		version, err := consulVersion(ctx, path)
		if err == nil {
			s("using %s from PATH: %s", version, path)
			return filepath.Abs(path)
		}
		s("not using the consul on PATH: %v", err)
	}
	path, err = pinnedConsul(ctx, s)
	if err != nil {
		return "", fmt.Errorf("%w\nto do without the build: install consul, or set %s to a consul binary", err, consulEnv)
	}
	return path, nil
}

func namedConsul(ctx context.Context, named string) (string, error) {
	path, err := filepath.Abs(named)
	if err == nil {
		_, err = consulVersion(ctx, path)
	}
	if err != nil {
		return "", fmt.Errorf("%s=%q is not a usable consul: %w\npoint it to a consul binary, or unset it to use the consul on PATH or the pinned build", consulEnv, named, err)
	}
	return path, nil
}

// versionLimit is ample for `consul version` on a busy machine.
const versionLimit = 30 * time.Second

// consulVersion runs `consul version` and returns its first line.
func consulVersion(ctx context.Context, path string) (string, error) {
	return versionOf(ctx, path, "version", "Consul v")
}

// versionOf runs a program with one argument and returns the first line of what
// it says, which has to begin with prefix.
func versionOf(ctx context.Context, path, arg, prefix string) (string, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, versionLimit, errors.New("no answer within "+versionLimit.String()))
	defer cancel()
	cmd := exec.CommandContext(ctx, path, arg)
	cmd.WaitDelay = pipeGrace
	out, err := cmd.CombinedOutput()
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		return "", fmt.Errorf("%s %s: %w", path, arg, err)
	}
	line, _, _ := strings.Cut(string(out), "\n")
	if !strings.HasPrefix(line, prefix) {
		return "", fmt.Errorf("%s %s: answered %.60q instead of \"%s...\"", path, arg, line, prefix)
	}
	return line, nil
}

const consulPkg = "github.com/hashicorp/consul"

// pinnedConsul builds the Consul of test/consul, or finds it built. The cache
// folder's name holds all that goes into it.
func pinnedConsul(ctx context.Context, say Say) (string, error) {
	root, err := moduleRoot()
	if err != nil {
		return "", fmt.Errorf("find the module that pins Consul: %w", err)
	}
	src := filepath.Join(root, "test", "consul")
	version, key, err := pinnedKey(ctx, src, consulPkg)
	if err != nil {
		return "", fmt.Errorf("find the pinned Consul: %w", err)
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find the user's cache folder: %w", err)
	}
	dir := filepath.Join(cache, "outrigger", "consul-"+version+"-"+key)
	c := cachedBuild{
		goBuild: goBuild{
			name: "Consul " + version, dir: src, pkg: consulPkg, out: filepath.Join(dir, exeName("consul")), say: say,
			args: []string{"-ldflags=-s -w"}, // a third smaller; nobody debugs it
			env:  []string{"CGO_ENABLED=0"},  // as its makers release it; needs no C compiler
		},
		announce: fmt.Sprintf("found no consul: building the pinned Consul %s, "+
			"which takes about 1 minute of downloads and 4 of compiling on two cores, once, into %s", version, dir),
		check: func(ctx context.Context, path string) error {
			_, err := consulVersion(ctx, path)
			return err
		},
	}
	return c.out, c.ensure(ctx)
}

// pinnedKey is the version of pkg that the module in src pins, and a hash of its
// go.mod, go.sum and the Go toolchain that would build them.
func pinnedKey(ctx context.Context, src, pkg string) (version, key string, err error) {
	mod, err := os.ReadFile(filepath.Join(src, "go.mod"))
	if err != nil {
		return "", "", err
	}
	sum, err := os.ReadFile(filepath.Join(src, "go.sum"))
	if err != nil {
		return "", "", err
	}
	requirement := regexp.MustCompile(`(?m)^\s*(?:require\s+)?` + regexp.QuoteMeta(pkg) + `\s+(v[^\s/]+)`)
	m := requirement.FindSubmatch(mod)
	if m == nil {
		return "", "", fmt.Errorf("%s requires no %s", filepath.Join(src, "go.mod"), pkg)
	}
	goCmd, err := findGo()
	if err != nil {
		return "", "", err
	}
	cmd := exec.CommandContext(ctx, goCmd, "version") // in src: its go.mod may switch toolchains
	cmd.Dir = src
	cmd.Env = append(os.Environ(), "GOWORK=off", "PWD="+src)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	toolchain, err := cmd.Output()
	if err != nil {
		return "", "", fmt.Errorf("%s version in %s: %w:\n%s", goCmd, src, err, tail(stderr.Bytes()))
	}
	h := sha256.New()
	for _, part := range [][]byte{mod, sum, toolchain} {
		fmt.Fprintf(h, "%d\n%s", len(part), part)
	}
	return string(m[1]), fmt.Sprintf("%x", h.Sum(nil)[:6]), nil
}

func exeName(name string) string {
	if runtime.GOOS == "windows" {
		return name + ".exe"
	}
	return name
}
