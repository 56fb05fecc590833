package harness

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"time"
)

// Spec says how to start a child process.
type Spec struct {
	Path string   // program; looked up in PATH if without a slash, else relative to Dir
	Args []string // without the program's name
	Env  []string // as in exec.Cmd: nil inherits the parent's, else exactly these
	Dir  string   // working directory; "" is the parent's

	// Stdout and Stderr take the child's output; nil discards it. An *os.File
	// is handed to the child itself; any other writer is written to from a
	// goroutine of the harness (one for both if they are the same writer).
	Stdout, Stderr io.Writer

	Name string // in errors; default: the base name of Path

	// CPUs pins the child and all its threads to these processors, numbered
	// from 0. Empty: not pinned. Linux only: elsewhere it is an error.
	CPUs []int
}

// Process is a running child. It leads a process group of its own, so that a
// Ctrl-C in the terminal reaches only the parent, who then decides.
//
// On Linux the child is killed by the kernel when the parent dies, however that
// happens, and what is left of its group is killed when the child ends. On
// other systems a parent killed with SIGKILL may leave children behind.
//
// All methods are safe for concurrent use.
type Process struct {
	name string
	cmd  *exec.Cmd
	done chan struct{} // closed once the child is reaped; code is set before
	code int

	mu    sync.Mutex // orders signals against the reaping, which frees the pid
	ended bool
}

// pipeGrace bounds how long the end of a child waits for output that a process
// outside of its group still holds open.
const pipeGrace = 2 * time.Second

// StartProcess starts the child. The caller ends it with Stop or Kill; one
// that ends on its own is reaped without help.
func StartProcess(spec Spec) (*Process, error) {
	cmd := exec.Command(spec.Path, spec.Args...)
	cmd.Env, cmd.Dir = spec.Env, spec.Dir
	cmd.Stdout, cmd.Stderr = spec.Stdout, spec.Stderr
	cmd.SysProcAttr = childAttr()
	cmd.WaitDelay = pipeGrace

	p := &Process{name: spec.Name, cmd: cmd, done: make(chan struct{})}
	if p.name == "" {
		p.name = filepath.Base(spec.Path)
	}
	started := make(chan error)
	go p.run(spec.CPUs, started)
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", p.name, err)
	}
	return p, nil
}

// run starts the child and sees it to its end on one OS thread, because the
// parent's death signal is sent when the THREAD that created the child ends
// (golang.org/issue/27505).
func (p *Process) run(cpus []int, started chan<- error) {
	runtime.LockOSThread()
	clean, err := startPinned(p.cmd.Start, cpus)
	if clean {
		defer runtime.UnlockOSThread()
	} // else the runtime drops the thread, whose affinity is off, when run returns
	started <- err
	if err != nil {
		return
	}
	awaitExit(p.cmd.Process.Pid)
	p.mu.Lock()
	p.ended = true
	killLeftovers(p.cmd.Process.Pid)
	p.mu.Unlock()
	// Its error only repeats the exit code, or tells of output that was cut off.
	_ = p.cmd.Wait()
	p.code = exitCode(p.cmd.ProcessState)
	close(p.done)
}

// PID is the child's process id, which may be another's once Done is closed.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Done is closed when the child has ended and its output is written.
func (p *Process) Done() <-chan struct{} { return p.done }

// Wait waits for the child's end and returns its exit code: 128+n if signal n
// ended it, as a shell says it.
func (p *Process) Wait() int {
	<-p.done
	return p.code
}

// Signal sends sig to the child alone, not to its group. The error is
// os.ErrProcessDone if it has ended.
func (p *Process) Signal(sig os.Signal) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ended {
		return os.ErrProcessDone
	}
	return p.cmd.Process.Signal(sig)
}

// Kill ends the child and its group with SIGKILL and waits for the end.
func (p *Process) Kill() {
	_ = p.signalGroup(syscall.SIGKILL) // it can only fail because the child has ended
	<-p.done
}

// Stop asks the child's group to end with SIGTERM, kills it after the grace
// time, and waits for the end. The error tells that it had to be killed; a
// child that had already ended is none.
func (p *Process) Stop(grace time.Duration) error { return p.stop(syscall.SIGTERM, grace) }

func (p *Process) stop(sig syscall.Signal, grace time.Duration) error {
	err := p.signalGroup(sig)
	if errors.Is(err, os.ErrProcessDone) {
		<-p.done
		return nil
	}
	if err == nil {
		timer := time.NewTimer(grace)
		defer timer.Stop()
		select {
		case <-p.done:
			return nil
		case <-timer.C:
			err = fmt.Errorf("it was still running %v after %v", grace, sig)
		}
	}
	p.Kill()
	return fmt.Errorf("%s (pid %d) had to be killed: %w", p.name, p.PID(), err)
}

func (p *Process) signalGroup(sig syscall.Signal) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ended {
		return os.ErrProcessDone
	}
	return signalGroup(p.cmd.Process, sig)
}
