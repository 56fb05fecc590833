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
	kept map[string]*kept
}

// read returns the content of a file that is read once, valid until the next read of
// any file.
func (p *procDir) read(path string) ([]byte, error) {
	fd, err := openFile(path)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	data, err := p.whole(fd)
	if err != nil {
		return nil, &os.PathError{Op: "read", Path: path, Err: err}
	}
	return data, nil
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
	path := p.path(pid, "stat")
	data, err := p.read(path)
	return statOf(pid, path, data, err)
}

// restat is stat for a process that is looked at again and again.
func (p *procDir) restat(known procStat, path string) (procStat, error) {
	data, err := p.reread(path)
	s, err := statOf(known.pid, path, data, err)
	if err == nil && !s.same(known) {
		return s, errGone // its number is another's now
	}
	return s, err
}

func statOf(pid int, path string, data []byte, err error) (procStat, error) {
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

// idle returns the idle time of the CPUs of the set that are online, with I/O wait,
// without what a hypervisor stole, and their number.
func (p *procDir) idle(cpus cpuSet) (time.Duration, int, error) {
	data, err := p.reread(filepath.Join(p.root, "stat"))
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

// memory returns the host's memory and how much of it is in use, in bytes; 0 where
// unknown.
func (p *procDir) memory() (total, used int64) {
	path := filepath.Join(p.root, "meminfo")
	data, err := p.reread(path)
	if err != nil {
		return 0, 0
	}
	value := func(key string) int64 {
		_, rest, _ := bytes.Cut(data, []byte(key))
		text, _, _ := bytes.Cut(rest, []byte(" kB\n"))
		n, err := strconv.ParseInt(string(bytes.TrimSpace(text)), 10, 64)
		if err != nil || n < 0 || n > maxInteger/1024 {
			return 0
		}
		return n * 1024
	}
	total = value("MemTotal:")
	if available := value("\nMemAvailable:"); total > 0 && available > 0 { // since 3.14
		used = max(0, total-available)
	}
	return total, used
}

// path returns a file of a process.
func (p *procDir) path(pid int, name string) string {
	return p.root + "/" + strconv.Itoa(pid) + "/" + name
}
