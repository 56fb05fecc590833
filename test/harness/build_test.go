package harness

import (
	"context"
	"debug/buildinfo"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// toyBuild is a cached build, real but small, of the program toyModule writes.
func toyBuild(dir string, say Say) cachedBuild {
	return cachedBuild{
		goBuild:  goBuild{name: "toy", dir: filepath.Join(dir, "src"), pkg: ".", out: filepath.Join(dir, "cache", "toy"), say: say},
		announce: "building toy",
		check: func(ctx context.Context, path string) error {
			out, err := exec.CommandContext(ctx, path).Output()
			if err == nil && string(out) != "toy" {
				err = fmt.Errorf("answered %q", out)
			}
			return err
		},
	}
}

func toyModule(t *testing.T, body string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	src := filepath.Join(dir, "src")
	if err := os.Mkdir(src, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"go.mod":  "module toy\n\ngo 1.26\n",
		"main.go": "package main\n\nimport \"os\"\n\nfunc main() { " + body + " }\n",
	} {
		if err := os.WriteFile(filepath.Join(src, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

const toyBody = `os.Stdout.WriteString("toy")`

// cached are the names in the toy's cache folder.
func cached(t *testing.T, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(dir, "cache"))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return strings.Join(names, " ")
}

func TestCachedBuildOnceAmongProcesses(t *testing.T) {
	dir := toyModule(t, toyBody)
	if err := os.Mkdir(filepath.Join(dir, "cache"), 0o700); err != nil {
		t.Fatal(err)
	}
	// With the lock held here, both find nothing built and must wait.
	lock, err := toyBuild(dir, t.Logf).lock(t.Context(), filepath.Join(dir, "cache", "lock"))
	if err != nil {
		t.Fatal(err)
	}
	a, linesA := child(t, "builder", "TEST_DIR="+dir)
	b, linesB := child(t, "builder", "TEST_DIR="+dir)
	for _, said := range []string{line(t, linesA), line(t, linesB)} {
		if !strings.HasPrefix(said, "waiting for another process") {
			t.Errorf("said %q, want that it waits", said)
		}
	}
	lock.Close()

	builds := 0
	for linesA.Scan() {
		builds += strings.Count(linesA.Text(), "built toy")
	}
	for linesB.Scan() {
		builds += strings.Count(linesB.Text(), "built toy")
	}
	if a.Wait() != 0 || b.Wait() != 0 || builds != 1 {
		t.Errorf("exit codes %d and %d, built %d times; want 0, 0 and once", a.Wait(), b.Wait(), builds)
	}
	if got := cached(t, dir); got != "lock toy" {
		t.Errorf("the cache folder has %q", got)
	}
}

func TestCachedBuildReplacesABrokenProgram(t *testing.T) {
	dir := toyModule(t, toyBody)
	script(t, filepath.Join(dir, "cache", "toy"), "exit 1")
	c := toyBuild(dir, t.Logf)
	if err := c.ensure(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := c.check(t.Context(), c.out); err != nil {
		t.Error(err)
	}
}

func TestBuildErrorsTellWhatGoSaid(t *testing.T) {
	dir := toyModule(t, `undefinedName()`)
	err := toyBuild(dir, t.Logf).ensure(t.Context())
	if err == nil || !strings.Contains(err.Error(), "undefinedName") {
		t.Errorf("error %v, want the compiler's", err)
	}
	if got := cached(t, dir); got != "lock" {
		t.Errorf("the cache folder has %q, want only the lock", got)
	}

	dir = toyModule(t, `os.Exit(1)`)
	if err = toyBuild(dir, t.Logf).ensure(t.Context()); err == nil || !strings.Contains(err.Error(), "does not work") {
		t.Errorf("error %v, want that the program does not work", err)
	}
}

func TestCachedBuildCalledOffWhileWaiting(t *testing.T) {
	dir := toyModule(t, toyBody)
	if err := os.Mkdir(filepath.Join(dir, "cache"), 0o700); err != nil {
		t.Fatal(err)
	}
	lock, err := toyBuild(dir, t.Logf).lock(t.Context(), filepath.Join(dir, "cache", "lock"))
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	ctx, cancel := context.WithCancel(t.Context())
	waits := func(string, ...any) { cancel() }
	if err := toyBuild(dir, waits).ensure(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want context.Canceled", err)
	}
}

func TestBinariesBuildOutriggerOnce(t *testing.T) {
	b := NewBinaries(t.Logf)
	defer b.Close()
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := b.Outrigger(canceled, false); !errors.Is(err, context.Canceled) {
		t.Fatalf("called off: %v, want context.Canceled", err)
	}
	path, err := b.Outrigger(t.Context(), false) // which is not held against the next
	if err != nil {
		t.Fatal(err)
	}
	info, err := buildinfo.ReadFile(path)
	if err != nil || info.Path != "outrigger/cmd/outrigger" {
		t.Errorf("built %v, %v", info, err)
	}
	first, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := b.Outrigger(t.Context(), false); again != path || err != nil {
		t.Errorf("second call: %q, %v; want %q", again, err, path)
	}
	if second, err := os.Stat(path); err != nil || !os.SameFile(first, second) {
		t.Errorf("built again (%v)", err)
	}
	if err := b.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Dir(path)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("after Close: %v", err)
	}
}
