//go:build unix

package harness

import (
	"errors"
	"os"
	"syscall"
)

func signalGroup(child *os.Process, sig syscall.Signal) error {
	err := syscall.Kill(-child.Pid, sig)
	if errors.Is(err, syscall.ESRCH) {
		return os.ErrProcessDone
	}
	return err
}

func exitCode(state *os.ProcessState) int {
	if ws, ok := state.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		return 128 + int(ws.Signal())
	}
	return state.ExitCode()
}
