package agentstats

import (
	"bytes"
	"fmt"
	"path/filepath"
	"strconv"
	"time"
)

// pressureFiles says where pressure is read.
type pressureFiles struct {
	scope string // "group", "host", or "" where the kernel has none
	paths [resources]string
}

// placePressure chooses the backend's own group in the v2 tree where that counts
// pressure, else the host's.
func (s *sampler) placePressure(p *plan, v2 []string) {
	own := s.ownDir(s.trees.v2, v2, p.procs, func(dir string) error {
		_, err := s.proc.stalls(filepath.Join(dir, "cpu.pressure"))
		return err
	})
	if own != "" {
		p.pressure = pressureFiles{scope: "group"}
		for i, name := range [resources]string{"cpu", "memory", "io"} {
			p.pressure.paths[i] = filepath.Join(own, name+".pressure")
		}
		return
	}
	for i, name := range [resources]string{"cpu", "memory", "io"} {
		p.pressure.paths[i] = filepath.Join(s.proc.root, "pressure", name)
		if _, err := s.proc.stalls(p.pressure.paths[i]); err == nil {
			p.pressure.scope = "host"
		}
	}
}

// readPressure reads all of them; what cannot be read is unknown.
func (s *sampler) readPressure() stalls {
	all := noStalls
	if s.plan.pressure.scope == "" {
		return all
	}
	for i, path := range s.plan.pressure.paths {
		if one, err := s.proc.stalls(path); err == nil {
			all[i] = one
		}
	}
	if s.plan.pressure.scope == "host" {
		// Not a state that a host can be in: kernels from 5.13 count what looks like it,
		// from 5.18 they always write 0 (Linux's 890d550d7dba).
		all[stallCPU][1] = unknown
	}
	return all
}

// stalls reads one pressure file. A kernel that was started with psi=0, or a group
// whose cgroup.pressure is 0, answers EOPNOTSUPP.
func (p *procDir) stalls(path string) ([2]time.Duration, error) {
	data, err := p.reread(path)
	if err != nil {
		return [2]time.Duration{unknown, unknown}, err
	}
	pair, err := parsePressure(data)
	if err != nil {
		return pair, fmt.Errorf("%s: %w", path, err)
	}
	return pair, nil
}

// parsePressure reads the totals, in microseconds, of the lines "some" and "full" of a
// pressure file (Linux's Documentation/accounting/psi.rst). prometheus/procfs parses
// it through fmt at some forty times the cost.
func parsePressure(data []byte) ([2]time.Duration, error) {
	pair := [2]time.Duration{unknown, unknown}
	for line := range bytes.Lines(data) {
		var at int
		switch {
		case bytes.HasPrefix(line, []byte("some ")):
		case bytes.HasPrefix(line, []byte("full ")):
			at = 1
		default:
			continue
		}
		_, text, ok := bytes.Cut(line, []byte(" total="))
		n, err := strconv.ParseInt(string(bytes.TrimSpace(text)), 10, 64)
		if !ok || err != nil || n < 0 || n > int64(1<<63-1)/int64(time.Microsecond) {
			return [2]time.Duration{unknown, unknown}, fmt.Errorf("no total in %q", line)
		}
		pair[at] = time.Duration(n) * time.Microsecond
	}
	if pair[0] < 0 {
		return pair, fmt.Errorf("no line \"some\" in %d bytes", len(data))
	}
	return pair, nil
}
