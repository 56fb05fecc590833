package agentstats

import (
	"path/filepath"
	"slices"
	"time"
)

// The kernel has no list of a process's children that is both common and cheap, so
// finding a family means reading every process of the host, some 10 us each. Reading
// one process for every 40 ms that pass keeps that below 0.05 % of a core, and where
// nothing was forked nobody is new; a worker that was forked counts from the next look
// on, after 30 s at the latest.
const (
	perProcess    = 40 * time.Millisecond
	maxFamilyWait = 30 * time.Second
)

// forks returns how many processes and threads the host has made since it started.
func (p *procDir) forks() (int64, error) {
	path := filepath.Join(p.root, "stat")
	data, err := p.reread(path)
	if err != nil {
		return 0, err
	}
	return keyed(data, path, "processes")
}

// familyTree remembers the last look.
type familyTree struct {
	roots   []procStat
	members []procStat
	next    time.Time
	forks   int64
}

// family returns the roots and their descendants that stayed in the root's session:
// a child that became a daemon of its own does not count as the backend. Processes
// that exit during the look are left out, but those that exited since are not.
func (l *locator) family(now time.Time, roots []procStat) ([]procStat, error) {
	t := &l.tree
	forks, forksErr := l.proc.forks()
	same := slices.EqualFunc(t.roots, roots, procStat.same)
	if same && (now.Before(t.next) || forksErr == nil && forks == t.forks) {
		return t.members, nil
	}
	pids, err := l.proc.pids()
	if err != nil {
		return nil, err
	}
	children := map[int][]procStat{}
	for _, s := range l.stats(pids) {
		children[s.ppid] = append(children[s.ppid], s)
	}
	all := slices.Clone(roots)
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
	wait := min(time.Duration(len(pids))*perProcess, maxFamilyWait)
	*t = familyTree{roots: slices.Clone(roots), members: all, next: now.Add(wait), forks: forks}
	return all, nil
}
