package harness

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// slowTools makes the go command hang in its first call of a compiler or
// linker; stuck waits for that and returns the pid of what hangs.
func slowTools(t *testing.T) (goflags string, stuck func() int) {
	dir := t.TempDir()
	// The name appears when the pid is written, not before.
	tool := script(t, dir+"/slow", `echo $$ >`+dir+`/$$.tmp && mv `+dir+`/$$.tmp `+dir+`/$$.pid && exec sleep 3600`)
	return "-toolexec=" + tool, func() int {
		t.Helper()
		for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
			if found, _ := filepath.Glob(dir + "/*.pid"); len(found) > 0 {
				return number(t, strings.TrimSuffix(filepath.Base(found[0]), ".pid"))
			}
		}
		t.Fatal("the go command called no tool")
		return 0
	}
}

func TestBuildCalledOffLeavesNothing(t *testing.T) {
	dir := toyModule(t, toyBody)
	goflags, stuck := slowTools(t)
	t.Setenv("GOFLAGS", goflags)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	failed := make(chan error, 1)
	go func() { failed <- toyBuild(dir, Say(nil).orSilent()).ensure(ctx) }()
	awaitEnd := watch(t, stuck())
	cancel()
	if err := <-failed; !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want context.Canceled", err)
	}
	awaitEnd()
	if got := cached(t, dir); got != "lock" {
		t.Errorf("the cache folder has %q, want only the lock", got)
	}
}

func TestBuildAfterAKilledBuilder(t *testing.T) {
	dir := toyModule(t, toyBody)
	goflags, stuck := slowTools(t)
	builder, _ := child(t, "builder", "TEST_DIR="+dir, "GOFLAGS="+goflags)
	tool := stuck()
	awaitEnd := watch(t, tool)
	builder.Kill()
	// The go command dies with the builder; its tool is no child of ours.
	if err := syscall.Kill(tool, syscall.SIGKILL); err != nil && !errors.Is(err, os.ErrProcessDone) {
		t.Fatal(err)
	}
	awaitEnd()
	if got := cached(t, dir); !strings.HasPrefix(got, buildPrefix) {
		t.Fatalf("the cache folder has %q, want what the killed builder left", got)
	}
	if err := toyBuild(dir, t.Logf).ensure(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := cached(t, dir); got != "lock toy" {
		t.Errorf("the cache folder has %q", got)
	}
}
