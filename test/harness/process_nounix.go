//go:build !unix

package harness

import (
	"os"
	"syscall"
)

func groupAttr() *syscall.SysProcAttr { return nil }

// signalGroup reaches the child alone: there are no process groups here.
func signalGroup(child *os.Process, sig syscall.Signal) error {
	if sig == syscall.SIGKILL {
		return child.Kill()
	}
	return child.Signal(sig)
}

func exitCode(state *os.ProcessState) int { return state.ExitCode() }
