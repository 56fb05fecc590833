//go:build !linux

package harness

import (
	"errors"
	"fmt"
	"syscall"
)

func childAttr() *syscall.SysProcAttr { return groupAttr() }

func startPinned(start func() error, cpus []int) (clean bool, err error) {
	if len(cpus) > 0 {
		return true, fmt.Errorf("pin to CPUs %v: %w on this system", cpus, errors.ErrUnsupported)
	}
	return true, start()
}

// Without a wait that leaves the child unreaped, a signal to the group may
// come just after the reaping, and leftovers cannot be told from a new group.
func awaitExit(int)     {}
func killLeftovers(int) {}

// AllowedCPUs is empty: processes cannot be pinned here.
func AllowedCPUs() []int { return nil }
