package agentstats

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// userTick is the unit of CPU times in /proc: USER_HZ is 100 on every architecture
// Go supports.
const userTick = 10 * time.Millisecond

// procDir reads the few files of /proc that are read several times a second or for
// every process of the host. prometheus/procfs reads the rest: it parses each of
// these through fmt or line by line to the end, at ten times the cost. Not for
// concurrent use.
type procDir struct {
	root string
	buf  []byte
}

// read returns the file's content, valid until the next read. It goes below
// os.File, which would register each descriptor with the poller and a cleanup.
func (p *procDir) read(path string) ([]byte, error) {
	fd, err := retry(func() (int, error) { return unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0) })
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	b := p.buf[:0]
	for {
		if cap(b)-len(b) < 4096 {
			b = append(make([]byte, 0, 2*cap(b)+8192), b...)
			p.buf = b
		}
		n, err := retry(func() (int, error) { return unix.Read(fd, b[len(b):cap(b)]) })
		if err != nil {
			return nil, &os.PathError{Op: "read", Path: path, Err: err}
		}
		if n == 0 {
			return b, nil
		}
		b = b[:len(b)+n]
	}
}

func retry(call func() (int, error)) (int, error) {
	for {
		n, err := call()
		if !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}

// procStat is what /proc/PID/stat tells of one process.
type procStat struct {
	pid, ppid, session int
	start              uint64 // ticks after boot; with the pid it names one process for good
	cpu                time.Duration
	rss                int64 // bytes; shared pages count in each process
	name               string
}

func (s procStat) same(t procStat) bool { return s.pid == t.pid && s.start == t.start }

// stat reads a living process; a zombie counts as gone.
func (p *procDir) stat(pid int) (procStat, error) {
	path := filepath.Join(p.root, strconv.Itoa(pid), "stat")
	data, err := p.read(path)
	if err != nil {
		return procStat{}, err
	}
	s, err := parseStat(data)
	if err != nil {
		return procStat{}, fmt.Errorf("%s: %w", path, err)
	}
	s.pid = pid
	return s, nil
}

var errGone = errors.New("the process has exited")

// parseStat reads proc_pid_stat(5). The name may hold spaces and parentheses, so the
// fields start after the last ')'.
func parseStat(data []byte) (procStat, error) {
	open, end := bytes.IndexByte(data, '('), bytes.LastIndexByte(data, ')')
	if open < 0 || end < open {
		return procStat{}, errors.New("no process name")
	}
	s := procStat{name: string(data[open+1 : end])}
	field := 3
	for f := range bytes.FieldsSeq(data[end+1:]) {
		if field == 3 && (f[0] == 'Z' || f[0] == 'X') {
			return procStat{}, errGone
		}
		if field > 3 {
			n, err := strconv.ParseInt(string(f), 10, 64)
			if err != nil {
				n = 0 // an unsigned field above 2^63, none of those below
			}
			switch field {
			case 4:
				s.ppid = int(n)
			case 6:
				s.session = int(n)
			case 14, 15: // utime, stime
				s.cpu += time.Duration(n) * userTick
			case 22:
				s.start = uint64(n)
			case 24:
				s.rss = n * int64(os.Getpagesize())
				return s, nil
			}
		}
		field++
	}
	return procStat{}, fmt.Errorf("only %d fields", field)
}

// pids lists every process of the host.
func (p *procDir) pids() ([]int, error) {
	d, err := os.Open(p.root)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, name := range names {
		if pid, err := strconv.Atoi(name); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// family returns the roots and their descendants that stayed in the root's session:
// a child that became a daemon of its own does not count as the backend. Processes
// that exit during the scan are left out.
func (p *procDir) family(roots []procStat) ([]procStat, error) {
	pids, err := p.pids()
	if err != nil {
		return nil, err
	}
	children := map[int][]procStat{}
	for _, pid := range pids {
		if s, err := p.stat(pid); err == nil {
			children[s.ppid] = append(children[s.ppid], s)
		}
	}
	all := append([]procStat(nil), roots...)
	seen := map[int]bool{}
	for _, s := range all {
		seen[s.pid] = true
	}
	for i := 0; i < len(all); i++ {
		for _, c := range children[all[i].pid] {
			if !seen[c.pid] && c.session == all[i].session {
				seen[c.pid] = true
				all = append(all, c)
			}
		}
	}
	return all, nil
}

// idle returns the idle time of the CPUs of the set that are online, with I/O wait,
// without what a hypervisor stole, and their number.
func (p *procDir) idle(cpus cpuSet) (time.Duration, int, error) {
	data, err := p.read(filepath.Join(p.root, "stat"))
	if err != nil {
		return 0, 0, err
	}
	return parseIdle(data, cpus)
}

func parseIdle(data []byte, cpus cpuSet) (idle time.Duration, online int, err error) {
	for line := range bytes.Lines(data) {
		rest, ok := bytes.CutPrefix(line, []byte("cpu"))
		if !ok {
			break // the lines of the CPUs come first
		}
		field, number := 0, 0
		for f := range bytes.FieldsSeq(rest) {
			if field == 0 {
				if rest[0] == ' ' { // the sum of all
					break
				}
				number, err = strconv.Atoi(string(f))
				if err != nil || !cpus.has(number) {
					break
				}
				online++
			}
			if field == 4 || field == 5 { // idle, iowait
				n, err := strconv.ParseInt(string(f), 10, 64)
				if err != nil {
					return 0, 0, fmt.Errorf("idle time of CPU %d: %w", number, err)
				}
				idle += time.Duration(n) * userTick
			}
			field++
		}
	}
	if online == 0 {
		return 0, 0, errors.New("none of the CPUs the backend may run on is online")
	}
	return idle, online, nil
}

// cpuSet is a set of CPU numbers; nil is all of them.
type cpuSet map[int]bool

func (s cpuSet) has(cpu int) bool { return s == nil || s[cpu] }
