package harness

import (
	"errors"
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"
)

func childAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

// startPinned calls start with the calling thread, which must be locked to its
// goroutine, pinned to cpus: a child inherits the affinity of the thread that
// forks it. clean tells that the thread is as it was before. (The Go runtime
// never clones new threads from a locked one, so that nothing else inherits.)
func startPinned(start func() error, cpus []int) (clean bool, err error) {
	if len(cpus) == 0 {
		return true, start()
	}
	var before, pinned unix.CPUSet
	if err := unix.SchedGetaffinity(0, &before); err != nil {
		return true, fmt.Errorf("read the CPU affinity: %w", err)
	}
	for _, cpu := range cpus {
		if cpu < 0 || !before.IsSet(cpu) {
			return true, fmt.Errorf("pin to CPU %d: this process may not run there (it may use %d CPUs)", cpu, before.Count())
		}
		pinned.Set(cpu)
	}
	if err := unix.SchedSetaffinity(0, &pinned); err != nil {
		return true, fmt.Errorf("pin to CPUs %v: %w", cpus, err)
	}
	err = start()
	return unix.SchedSetaffinity(0, &before) == nil, err
}

// awaitExit waits until the child has ended but leaves it unreaped, so that its
// pid and group id still belong to it.
func awaitExit(pid int) {
	for {
		err := unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			return // the only other error is ECHILD: reaped, as far gone as can be
		}
	}
}

// killLeftovers ends what the child left running in its group. The child must
// be ended and unreaped, see awaitExit.
func killLeftovers(pid int) { _ = unix.Kill(-pid, unix.SIGKILL) }

// AllowedCPUs lists the processors that this process may run on: in a container
// these need not begin at 0. It is empty where processes cannot be pinned.
func AllowedCPUs() []int {
	var set unix.CPUSet
	if unix.SchedGetaffinity(0, &set) != nil {
		return nil
	}
	var cpus []int
	for i := 0; len(cpus) < set.Count(); i++ {
		if set.IsSet(i) {
			cpus = append(cpus, i)
		}
	}
	return cpus
}
