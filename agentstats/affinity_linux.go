package agentstats

import (
	"bytes"
	"os"
	"slices"
	"strconv"
	"time"
)

// A server may pin each thread to a CPU of its own, so where the first thread is
// confined the others are asked too, but, since there may be hundreds, rarely: they
// are pinned when they start.
const (
	maxThreads  = 256
	threadsWait = 30 * time.Second
)

// affinity is what was found out last.
type affinity struct {
	procs []procStat
	first []string // the list of each process's first thread
	cpus  cpuSet
	next  time.Time
}

// allowed returns the CPUs that any of the processes may run on: what their affinity
// and cpuset leave.
func (s *sampler) allowed(now time.Time, procs []procStat) (cpuSet, error) {
	first := make([]string, 0, len(procs))
	for _, m := range procs {
		list, err := s.proc.allowedList(s.proc.path(m.pid, "status"), true)
		if err != nil {
			continue // it exited
		}
		first = append(first, list)
	}
	known := &s.affinity
	if now.Before(known.next) && slices.Equal(known.first, first) && slices.EqualFunc(known.procs, procs, procStat.same) {
		return known.cpus, nil
	}
	_, online, err := s.proc.idle(nil)
	if err != nil {
		return nil, err
	}
	cpus := cpuSet{}
	for _, list := range first {
		cpus.add(list)
	}
	asked := 0
	for _, m := range procs {
		asked = s.threads(m.pid, cpus, online, asked)
	}
	if len(cpus) == 0 {
		return nil, errGone
	}
	*known = affinity{procs: procs, first: first, cpus: cpus, next: now.Add(threadsWait)}
	return cpus, nil
}

// threads adds what the threads of a process may run on, as long as that is not every
// CPU; it returns how many were asked.
func (s *sampler) threads(pid int, cpus cpuSet, online, asked int) int {
	if len(cpus) >= online {
		return asked
	}
	dir := s.proc.path(pid, "task")
	d, err := os.Open(dir)
	if err != nil {
		return asked
	}
	defer d.Close()
	tids, _ := d.Readdirnames(maxThreads) // what could be read will do
	for _, tid := range tids {
		if asked++; asked > maxThreads || len(cpus) >= online {
			break
		}
		if list, err := s.proc.allowedList(dir+"/"+tid+"/status", false); err == nil {
			cpus.add(list)
		}
	}
	return asked
}

// allowedList returns Cpus_allowed_list of a status file.
func (p *procDir) allowedList(path string, again bool) (string, error) {
	read := p.read
	if again {
		read = p.reread
	}
	data, err := read(path)
	if err != nil {
		return "", err
	}
	for line := range bytes.Lines(data) {
		if list, ok := bytes.CutPrefix(line, []byte("Cpus_allowed_list:")); ok {
			return string(bytes.TrimSpace(list)), nil
		}
	}
	return "", errGone
}

// cpuSet is a set of CPU numbers; nil is all of them.
type cpuSet map[int]bool

func (s cpuSet) has(cpu int) bool { return s == nil || s[cpu] }

// add puts the CPUs of a list as of cpuset(7), "0-3,8", into the set. What is not such
// a list adds nothing.
func (s cpuSet) add(list string) {
	for part := range bytes.SplitSeq([]byte(list), []byte(",")) {
		low, high, isRange := bytes.Cut(part, []byte("-"))
		if !isRange {
			high = low
		}
		a, err1 := strconv.ParseUint(string(low), 10, 16)
		b, err2 := strconv.ParseUint(string(high), 10, 16)
		if err1 != nil || err2 != nil {
			continue
		}
		for cpu := a; cpu <= min(b, maxCPU); cpu++ {
			s[int(cpu)] = true
		}
	}
}

// maxCPU is beyond what the kernel can be built for (8192).
const maxCPU = 1<<14 - 1
