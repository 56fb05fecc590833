package main

import (
	"fmt"
	"os"
	"strconv"
	"time"

	"github.com/prometheus/procfs"
	"golang.org/x/sys/unix"
)

// cpuTime is the processor time that all threads of a process have used, user
// and system, also of threads that have ended. It is the process's CPU clock,
// exact to the nanosecond where /proc/PID/stat counts ticks of 10 ms.
func cpuTime(pid int) (time.Duration, error) {
	const perProcess = 2 // CPUCLOCK_SCHED of the kernel's posix-timers.h
	var ts unix.Timespec
	if err := unix.ClockGettime(int32(^pid)<<3|perProcess, &ts); err != nil {
		return 0, fmt.Errorf("read the CPU clock of process %d: %w", pid, err)
	}
	return time.Duration(ts.Nano()), nil
}

// coreBusy is the time that a processor has not been idle, in ticks of 10 ms,
// including what a hypervisor took away.
func coreBusy(cpu int) (time.Duration, error) {
	fs, err := procfs.NewFS("/proc")
	if err != nil {
		return 0, err
	}
	s, err := fs.Stat()
	if err != nil {
		return 0, err
	}
	c, ok := s.CPU[int64(cpu)]
	if !ok {
		return 0, fmt.Errorf("/proc/stat does not tell of processor %d", cpu)
	}
	busy := c.User + c.Nice + c.System + c.IRQ + c.SoftIRQ + c.Steal
	return time.Duration(busy * float64(time.Second)), nil
}

// memory is what a process occupies, in bytes.
type memory struct {
	rss  float64 // resident, shared pages counted whole
	pss  float64 // resident, shared pages counted by share
	peak float64 // highest rss since resetPeak
}

func memoryOf(pid int) (m memory, err error) {
	p, err := procfs.NewProc(pid)
	if err != nil {
		return m, err
	}
	s, err := p.NewStatus()
	if err != nil {
		return m, err
	}
	m.rss, m.peak = float64(s.VmRSS), float64(s.VmHWM)
	r, err := p.ProcSMapsRollup()
	m.pss = float64(r.Pss)
	return m, err
}

// resetPeak makes the highest resident size begin anew.
func resetPeak(pid int) error {
	return os.WriteFile("/proc/"+strconv.Itoa(pid)+"/clear_refs", []byte("5"), 0)
}

// onlyChild is the one child of a process, such as NGINX's worker.
func onlyChild(pid int) (child int, err error) {
	all, err := procfs.AllProcs()
	if err != nil {
		return 0, err
	}
	for _, p := range all {
		s, err := p.Stat()
		if err != nil || s.PPID != pid {
			continue // gone meanwhile, or another's
		}
		if child != 0 {
			return 0, fmt.Errorf("process %d has more than one child", pid)
		}
		child = p.PID
	}
	if child == 0 {
		return 0, fmt.Errorf("process %d has no child", pid)
	}
	return child, nil
}

// pin moves all threads of a running process to some processors.
func pin(pid int, cpus []int) error {
	p, err := procfs.AllThreads(pid)
	if err != nil {
		return err
	}
	var set unix.CPUSet
	for _, cpu := range cpus {
		set.Set(cpu)
	}
	for _, thread := range p {
		if err := unix.SchedSetaffinity(thread.PID, &set); err != nil && err != unix.ESRCH {
			return fmt.Errorf("pin thread %d of process %d: %w", thread.PID, pid, err)
		}
	}
	return nil
}

// raiseFileLimit lifts the limit of open files, which children inherit, to n
// where that is allowed, and returns what it is.
func raiseFileLimit(n uint64) (uint64, error) {
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l); err != nil {
		return 0, err
	}
	if l.Max < n {
		want := unix.Rlimit{Cur: n, Max: n}
		if unix.Setrlimit(unix.RLIMIT_NOFILE, &want) == nil {
			return n, nil
		}
	}
	l.Cur = min(max(l.Cur, n), l.Max)
	return l.Cur, unix.Setrlimit(unix.RLIMIT_NOFILE, &l)
}

func kernelRelease() string {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return "unknown"
	}
	return unix.ByteSliceToString(u.Release[:])
}
