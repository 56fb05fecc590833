package harness

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"time"
)

// goBuild is one `go build` of a program.
type goBuild struct {
	name string   // in messages
	dir  string   // folder of the module
	pkg  string   // import path, or a path relative to dir
	args []string // more arguments
	env  []string // more environment
	out  string   // the program's file; written beside itself first
	say  Say
}

// heartbeat is how often a long wait says that it goes on.
const heartbeat = 20 * time.Second

// interruptGrace is how long the go command may tidy up after an interrupt.
const interruptGrace = 5 * time.Second

// run builds in a temporary folder beside out and renames, so that out is
// there whole or not at all, also when ctx ends or a process is killed.
func (b goBuild) run(ctx context.Context) error {
	goCmd, err := findGo()
	if err != nil {
		return fmt.Errorf("build %s: %w", b.name, err)
	}
	tmp, err := os.MkdirTemp(filepath.Dir(b.out), buildPrefix)
	if err != nil {
		return fmt.Errorf("build %s: %w", b.name, err)
	}
	defer os.RemoveAll(tmp)
	half := filepath.Join(tmp, filepath.Base(b.out))

	// No VCS stamp: git may be missing, or refuse a checkout of another owner.
	args := append([]string{"build", "-mod=readonly", "-buildvcs=false", "-o", half}, b.args...)
	var output bytes.Buffer
	p, err := StartProcess(Spec{
		Name: "go build of " + b.name, Path: goCmd, Args: append(args, b.pkg), Dir: b.dir,
		// GOTMPDIR: what a killed go command leaves goes with tmp.
		// GOWORK: a workspace around the repository would hide the module.
		Env:    append(append(os.Environ(), "GOWORK=off", "GOTMPDIR="+tmp, "PWD="+b.dir), b.env...),
		Stdout: &output, Stderr: &output,
	})
	if err != nil {
		return err
	}
	if err := b.await(ctx, p); err != nil {
		return err
	}
	if code := p.Wait(); code != 0 {
		return fmt.Errorf("build %s: `go build %s` in %s ended with exit code %d:\n%s", b.name, b.pkg, b.dir, code, tail(output.Bytes()))
	}
	if err := os.Rename(half, b.out); err != nil {
		return fmt.Errorf("build %s: %w", b.name, err)
	}
	return nil
}

// await waits for the go command, saying so now and then, and ends it with ctx.
func (b goBuild) await(ctx context.Context, p *Process) error {
	start := time.Now()
	beat := time.NewTicker(heartbeat)
	defer beat.Stop()
	for {
		select {
		case <-p.Done():
			return nil
		case <-beat.C:
			b.say("still building %s (%v so far)", b.name, time.Since(start).Round(time.Second))
		case <-ctx.Done():
			// Its error tells that a kill was needed, which changes nothing here.
			_ = p.stop(syscall.SIGINT, interruptGrace)
			return fmt.Errorf("build %s: stopped after %v (what was compiled stays in Go's build cache, the next try goes on from there): %w",
				b.name, time.Since(start).Round(time.Second), context.Cause(ctx))
		}
	}
}

// findGo is the go command on PATH, else of the Go that compiled this program.
func findGo() (string, error) {
	path, err := exec.LookPath("go")
	if err == nil {
		return filepath.Abs(path)
	}
	//lint:ignore SA1019 deprecated because it may be wrong on another machine; as a last resort, checked, it serves
	path, rootErr := exec.LookPath(filepath.Join(runtime.GOROOT(), "bin", "go"))
	if rootErr == nil {
		return path, nil
	}
	return "", fmt.Errorf("found no go command: install Go or put it on PATH (%w)", err)
}

// buildPrefix begins the name of every temporary build folder.
const buildPrefix = "build-"

// cachedBuild makes sure that a program is in a cache folder, shared by all
// processes of the user.
type cachedBuild struct {
	goBuild                                               // out is dir/NAME of the cache folder
	announce string                                       // said before building
	check    func(ctx context.Context, path string) error // does the program work?
}

// ensure builds the program unless it is there and works. Of several processes
// one builds while the others wait; a killed builder's lock frees itself.
func (c cachedBuild) ensure(ctx context.Context) error {
	if c.present(ctx) {
		return nil
	}
	dir := filepath.Dir(c.out)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make the cache folder for %s: %w", c.name, err)
	}
	lock, err := c.lock(ctx, filepath.Join(dir, "lock"))
	if err != nil {
		return err
	}
	defer lock.Close()
	if c.present(ctx) {
		return nil // built by the process that had the lock
	}
	c.sweep(dir)
	c.say("%s", c.announce)
	start := time.Now()
	if err := c.run(ctx); err != nil {
		return err
	}
	if err := c.check(ctx, c.out); err != nil {
		return fmt.Errorf("the %s just built in %s does not work: %w", c.name, c.out, err)
	}
	c.say("built %s in %v: %s", c.name, time.Since(start).Round(time.Second), c.out)
	return nil
}

func (c cachedBuild) present(ctx context.Context) bool {
	if _, err := os.Stat(c.out); err != nil {
		return false
	}
	return c.check(ctx, c.out) == nil
}

// sweep removes what killed builders left. The lock is held, so none is at work.
func (c cachedBuild) sweep(dir string) {
	left, _ := filepath.Glob(filepath.Join(dir, buildPrefix+"*")) // the pattern is valid
	for _, d := range left {
		if err := os.RemoveAll(d); err != nil {
			c.say("could not remove the leftover of an earlier build: %v", err)
		}
	}
}

// lock waits for the lock file's lock.
func (c cachedBuild) lock(ctx context.Context, path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the build lock of %s: %w", c.name, err)
	}
	poll := time.NewTicker(200 * time.Millisecond)
	defer poll.Stop()
	start, said := time.Now(), time.Time{}
	for {
		err := context.Cause(ctx)
		if err == nil {
			var got bool
			if got, err = tryLock(f); got {
				return f, nil
			}
		}
		if err != nil {
			_ = f.Close() // the first error is the one to tell
			return nil, fmt.Errorf("wait for the build lock of %s (%s): %w", c.name, path, err)
		}
		if time.Since(said) >= heartbeat {
			said = time.Now()
			c.say("waiting for another process that builds %s (%v so far)", c.name, time.Since(start).Round(time.Second))
		}
		select {
		case <-poll.C:
		case <-ctx.Done():
		}
	}
}
