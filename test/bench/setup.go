package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/consul/api"

	"outrigger/test/harness"
)

// bench is everything that runs while cases are measured.
type bench struct {
	opt       options
	out, errs io.Writer

	tools     map[string]string // name -> path
	versions  map[string]string
	dir       string // temporary; removed in the end
	static    string // what backends serve; in memory if there is a place for it
	files     uint64 // limit of open files
	proxyCPU  []int
	loadCPU   []int
	binary    string // outrigger
	profiling string // file for a CPU profile, if binary is the program that writes one

	http     *http.Client
	backends *backends
	consul   *harness.Consul
	proxies  []*proxy // running now
}

// packages are the Debian packages of the tools.
var packages = map[string]string{
	"haproxy": "haproxy", "nginx": "nginx-light", "wrk": "wrk", "slowhttptest": "slowhttptest",
	gunicorn: "gunicorn python3-flask",
}

// setUp finds the tools, builds outrigger and starts Consul and the backends.
func (b *bench) setUp(ctx context.Context) error {
	cpus := harness.AllowedCPUs()
	if len(cpus) < 2 {
		return fmt.Errorf("it needs two processors, one for the proxy and one for load and backends; this process may use %d", len(cpus))
	}
	b.proxyCPU, b.loadCPU = cpus[:1], cpus[1:2]
	var err error
	if b.files, err = raiseFileLimit(65536); err != nil {
		return fmt.Errorf("raise the limit of open files: %w", err)
	}
	if err := b.findTools(ctx); err != nil {
		return err
	}
	if b.dir, err = os.MkdirTemp("", "outrigger-bench-"); err != nil {
		return err
	}
	if err := b.writeStatic(); err != nil {
		return err
	}
	b.http = &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	if b.binary = b.opt.binary; b.opt.profile == "" && b.binary == "" {
		b.binary = filepath.Join(b.dir, "outrigger")
		b.say("building outrigger")
		if err := b.build(ctx, "outrigger/cmd/outrigger", b.binary, "auto"); err != nil {
			return err
		}
	} else if b.binary, err = filepath.Abs(b.binary); err != nil {
		return err
	}
	b.askVersions(ctx)
	if b.classic() {
		if err := b.startBackends(ctx); err != nil {
			return err
		}
	}
	if b.shared() {
		return b.startConsul(ctx)
	}
	return nil
}

// askVersions fills in what the JSON file tells of the programs. wrk has no
// way to tell that does not fail.
func (b *bench) askVersions(ctx context.Context) {
	b.versions = map[string]string{"go": runtime.Version()}
	for name, flag := range map[string]string{haproxy: "-v", nginx: "-v"} {
		if b.tools[name] == "" {
			continue
		}
		text, _ := exec.CommandContext(ctx, b.tools[name], flag).CombinedOutput() // as far as it goes
		b.versions[name], _, _ = strings.Cut(string(text), "\n")
	}
	text, _ := exec.CommandContext(ctx, b.binary, "version").Output() // as far as it goes
	b.versions[ours] = strings.TrimSpace(string(text))
}

func (b *bench) say(format string, args ...any) { fmt.Fprintf(b.errs, "bench: "+format+"\n", args...) }

// classic tells whether a chosen case is of those that have their backends in
// common.
func (b *bench) classic() bool {
	return b.opt.profile != "" || slices.ContainsFunc(b.opt.cases, func(name string) bool { return !slices.Contains(ownFleet(), name) })
}

// shared tells whether a chosen case needs the Consul and the peers that all have
// in common.
func (b *bench) shared() bool {
	return b.opt.profile != "" || slices.ContainsFunc(b.opt.cases, func(name string) bool { return !slices.Contains(ownConsul(), name) })
}

// needed are the programs that the chosen cases run.
func (b *bench) needed() []string {
	if !b.shared() {
		return nil
	}
	names := []string{"nginx"} // it is the backends too
	if b.classic() {
		names = append(names, "wrk")
	}
	if b.opt.profile == "" {
		names = append(names, "haproxy")
	}
	if b.opt.profile == "" && slices.Contains(b.opt.cases, flaskCase) {
		names = append(names, gunicorn)
	}
	if slices.Contains(b.opt.cases, slowCase) {
		names = append(names, "slowhttptest")
	}
	return names
}

func (b *bench) findTools(ctx context.Context) error {
	missing := b.lookUp()
	if len(missing) == 0 {
		return nil
	}
	var pkgs []string
	for _, name := range missing {
		pkgs = append(pkgs, strings.Fields(packages[name])...)
	}
	command := append([]string{"apt-get", "install", "-y", "--no-install-recommends"}, pkgs...)
	_, notDebian := os.Stat("/etc/debian_version")
	if notDebian != nil || os.Geteuid() != 0 {
		return fmt.Errorf("missing: %s\nInstall with \"sudo %s\" on Debian and Ubuntu; elsewhere get HAProxy 2.4 or newer, NGINX 1.18 or newer, wrk 4.1 and slowhttptest, and put them on PATH, and gunicorn and Flask for "+flaskPython,
			strings.Join(missing, ", "), strings.Join(command, " "))
	}
	b.say("installing %s", strings.Join(pkgs, ", "))
	// RUNLEVEL keeps the packages from starting their services where there is no systemd.
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive", "RUNLEVEL=1")
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s\nIf packages were not found, run apt-get update first", strings.Join(command, " "), err, lastLines(string(text)))
	}
	if missing = b.lookUp(); len(missing) > 0 {
		return fmt.Errorf("%s is still missing after %s", strings.Join(missing, ", "), strings.Join(command, " "))
	}
	return nil
}

// lookUp finds the needed tools on PATH and where Debian keeps daemons, which
// is not on everybody's PATH. It returns those it did not find.
func (b *bench) lookUp() (missing []string) {
	b.tools = map[string]string{}
	for _, name := range b.needed() {
		for _, try := range []string{name, "/usr/sbin/" + name, "/usr/local/sbin/" + name} {
			if path, err := exec.LookPath(try); err == nil {
				b.tools[name] = path
				break
			}
		}
		if name == gunicorn && !hasFlask() { // and with it Flask, which is no program
			b.tools[name] = ""
		}
		if b.tools[name] == "" {
			missing = append(missing, name)
		}
	}
	return missing
}

// writeStatic makes the files that backends serve, in memory where possible.
func (b *bench) writeStatic() error {
	var err error
	if b.static, err = os.MkdirTemp("/dev/shm", "outrigger-bench-"); err != nil {
		b.static = filepath.Join(b.dir, "static")
		err = os.Mkdir(b.static, 0o700)
	}
	if err != nil {
		return err
	}
	for name, size := range staticFiles {
		if err := os.WriteFile(filepath.Join(b.static, name), bytes.Repeat([]byte{'x'}, size), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// build compiles a program of this module.
func (b *bench) build(ctx context.Context, pkg, out, pgo string) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-pgo="+pgo, "-buildvcs=false", "-o", out, pkg)
	if _, file, _, ok := runtime.Caller(0); ok && filepath.IsAbs(file) {
		cmd.Dir = filepath.Dir(file) // also when called from elsewhere
	}
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build %s: %w\n%s", pkg, err, lastLines(string(text)))
	}
	return nil
}

const serviceName = "web"

// startConsul starts an agent away from the proxy's processor and registers
// the backends.
func (b *bench) startConsul(ctx context.Context) error {
	path, err := harness.FindOrBuildConsul(ctx, b.say)
	if err != nil {
		return err
	}
	if b.consul, err = harness.StartConsul(ctx, harness.Options{Path: path}); err != nil {
		return err
	}
	if err := pin(b.consul.Process().PID(), b.loadCPU); err != nil {
		return err
	}
	client, err := b.consul.Client()
	if err != nil {
		return err
	}
	if b.backends == nil {
		return nil
	}
	for i, port := range b.backends.ports {
		r := &api.AgentServiceRegistration{ID: fmt.Sprintf("web-%d", i), Name: serviceName, Address: "127.0.0.1", Port: port}
		if err := client.Agent().ServiceRegister(r); err != nil {
			return fmt.Errorf("register a backend in Consul: %w", err)
		}
	}
	return nil
}

// output runs a child to its end and returns what it printed; ctx ends it.
func (b *bench) output(ctx context.Context, spec harness.Spec) (string, error) {
	var out, errs bytes.Buffer
	spec.Stdout, spec.Stderr = &out, &errs
	p, err := harness.StartProcess(spec)
	if err != nil {
		return "", err
	}
	select {
	case <-p.Done():
	case <-ctx.Done():
		p.Kill()
		return "", context.Cause(ctx)
	}
	if code := p.Wait(); code != 0 {
		return "", fmt.Errorf("%s ended with exit code %d:\n%s", filepath.Base(spec.Path), code, lastLines(out.String()+errs.String()))
	}
	return out.String(), nil
}

// await polls until ok holds, the process ends or 15 s are over.
func await(ctx context.Context, p *harness.Process, what string, ok func() error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, 15*time.Second, errors.New("it took longer than 15 s"))
	defer cancel()
	for {
		err := ok()
		if err == nil {
			return nil
		}
		select {
		case <-p.Done():
			return fmt.Errorf("%s: ended with exit code %d", what, p.Wait())
		case <-ctx.Done():
			return fmt.Errorf("%s: %w (last: %v)", what, context.Cause(ctx), err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// pause sleeps; it returns the error of a context that ends meanwhile.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}

// tearDown ends every process and removes what was written.
func (b *bench) tearDown() {
	b.stopProxies()
	if b.consul != nil {
		_ = b.consul.Stop() // it has to go either way, and Stop kills in the end
	}
	if b.backends != nil && b.backends.proc != nil {
		_ = b.backends.proc.Stop(3 * time.Second)
	}
	for _, dir := range []string{b.static, b.dir} {
		if dir != "" {
			_ = os.RemoveAll(dir)
		}
	}
}

// lastLines is the end of a text, for messages.
func lastLines(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return strings.Join(lines[max(0, len(lines)-15):], "\n")
}
