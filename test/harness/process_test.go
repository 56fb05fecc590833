package harness

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestProcessExitCode(t *testing.T) {
	p, _ := child(t, "seven")
	if code := p.Wait(); code != 7 {
		t.Errorf("exit code %d, want 7", code)
	}
	if err := p.Signal(syscall.SIGTERM); !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("Signal after the end: %v, want os.ErrProcessDone", err)
	}
	if err := p.Stop(0); err != nil {
		t.Errorf("Stop after the end: %v", err)
	}
	p.Kill()
}

func TestProcessStop(t *testing.T) {
	p, lines := child(t, "block")
	line(t, lines)
	if err := p.Stop(time.Minute); err != nil {
		t.Error(err)
	}
	if code := p.Wait(); code != 128+int(syscall.SIGTERM) {
		t.Errorf("exit code %d, want that of SIGTERM", code)
	}
}

func TestProcessStopKillsTheDeaf(t *testing.T) {
	p, lines := child(t, "deaf")
	line(t, lines)
	err := p.Stop(50 * time.Millisecond)
	if err == nil || !strings.Contains(err.Error(), "had to be killed") {
		t.Errorf("Stop: %v, want that it had to be killed", err)
	}
	if code := p.Wait(); code != 128+int(syscall.SIGKILL) {
		t.Errorf("exit code %d, want that of SIGKILL", code)
	}
}

func TestProcessOutputIsWholeWhenDone(t *testing.T) {
	var both bytes.Buffer
	p, err := StartProcess(Spec{
		Path: "sh", Args: []string{"-c", "pwd; echo $GREETING; echo err >&2"},
		Dir: "/", Env: []string{"GREETING=hello"}, Stdout: &both, Stderr: &both,
	})
	if err != nil {
		t.Fatal(err)
	}
	<-p.Done()
	if got, want := both.String(), "/\nhello\nerr\n"; got != want {
		t.Errorf("output %q, want %q", got, want)
	}
}

func TestProcessStartErrors(t *testing.T) {
	_, err := StartProcess(Spec{Path: "/nowhere/prog"})
	if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "start prog") {
		t.Errorf("missing program: %v", err)
	}
	if _, err = StartProcess(Spec{Path: "no-such-program-on-path"}); !errors.Is(err, exec.ErrNotFound) {
		t.Errorf("program not on PATH: %v", err)
	}
	if _, err = StartProcess(Spec{Path: "sh", CPUs: []int{1 << 20}}); err == nil {
		t.Error("pinned to a processor that cannot be")
	}
}
