package agentstats

import (
	"os"
	"path/filepath"
	"strconv"
)

// pid is the backend's main process, 0 where there is none.
func (s *sampler) pid() int { return s.plan.main.pid }

// netSpace returns the path of a process's network namespace, "" where that is the
// agent's own or cannot be told.
func netSpace(procRoot string, pid int) string {
	path := filepath.Join(procRoot, strconv.Itoa(pid), "ns", "net")
	there, err := os.Readlink(path)
	if err != nil {
		return ""
	}
	if here, err := os.Readlink("/proc/self/ns/net"); err != nil || here == there {
		return ""
	}
	return path
}
