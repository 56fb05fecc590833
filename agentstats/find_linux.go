package agentstats

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// Looking through every process's descriptors for a socket costs tens of
// milliseconds on a busy host, so a socket whose holder cannot be found (another
// user's, another container's) is looked for again only after a growing wait. A new
// socket, or one that lost its holder, does not wait for that, or a backend that
// restarts would seem down: only newsWait, for those that restart all the time.
const (
	minScanWait = time.Second
	maxScanWait = 30 * time.Second
	newsWait    = 100 * time.Millisecond
)

// found is one answer of the locator. Without procs there is no backend to measure.
type found struct {
	procs     []procStat // the processes named by the configuration or holding the socket
	main      procStat   // the one whose life is the backend's
	listening Opt[bool]
	holders   []holder // what keeps listening true
	why       string   // for the log where there are no procs
}

// holder is one descriptor of a listening socket.
type holder struct {
	pid   int
	path  string // of the descriptor
	inode uint64
}

// locator finds the backend's processes. Not for concurrent use.
type locator struct {
	proc    *procDir
	backend Backend
	cgroup  func() ([]int, error) // the pids of Backend.Cgroup, where it is set
	sockets socketTable
	tree    familyTree

	held     []holder
	scanned  map[uint64]bool // the sockets of the last scan, but for those that lost a holder since
	lastScan time.Time
	scanWait time.Duration // from lastScan to the next one without news
	denied   bool          // the last scan met processes it may not look into
}

func (l *locator) find(now time.Time) (found, error) {
	if l.backend.PID == 0 && l.backend.Cgroup == "" {
		return l.byPort(now)
	}
	return l.byProcess(now)
}

// byProcess finds a configured process or group.
func (l *locator) byProcess(now time.Time) (found, error) {
	pids := []int{l.backend.PID}
	what := fmt.Sprintf("process %d", l.backend.PID)
	if l.backend.Cgroup != "" {
		what = "cgroup " + l.backend.Cgroup
		var err error
		if pids, err = l.cgroup(); err != nil {
			return found{}, err
		}
	}
	procs := l.stats(pids)
	if len(procs) == 0 {
		return found{listening: Some(false), why: what + " does not exist or is empty"}, nil
	}
	f := found{procs: procs, main: l.main(procs)}
	if l.backend.Port == 0 {
		return f, nil
	}
	return f, l.listens(now, &f)
}

// listens sets whether one of f's processes, or a descendant, holds a socket that
// listens on the configured port in the main process's network namespace.
func (l *locator) listens(now time.Time, f *found) error {
	inodes, err := l.sockets.listeners(f.main.pid, l.backend.Port)
	if err != nil {
		return err
	}
	f.listening = Some(false)
	if len(inodes) == 0 {
		l.held, l.scanned = nil, nil
		return nil
	}
	err = l.hold(now, inodes, func() ([]procStat, error) { return l.family(now, f.procs) })
	if err != nil {
		return err
	}
	f.holders = slices.Clone(l.held)
	if len(f.holders) == 0 && (l.denied || l.unscanned(inodes)) {
		// A socket is there and may be the backend's: better unknown than wrong.
		f.listening = Opt[bool]{}
		return nil
	}
	f.listening = Some(len(f.holders) > 0)
	if l.backend.Cgroup != "" && len(f.holders) > 0 {
		// In a container whose first process is an init, the server's life counts.
		if servers := l.stats(pidsOf(f.holders)); len(servers) > 0 {
			f.main = l.main(servers)
		}
	}
	return nil
}

// byPort finds the processes that hold the sockets listening on the port.
func (l *locator) byPort(now time.Time) (found, error) {
	inodes, err := l.sockets.listeners(0, l.backend.Port)
	if err != nil {
		return found{}, err
	}
	if len(inodes) == 0 {
		l.held, l.scanned = nil, nil
		return found{listening: Some(false), why: fmt.Sprintf("nothing listens on port %d", l.backend.Port)}, nil
	}
	err = l.hold(now, inodes, func() ([]procStat, error) {
		pids, err := l.proc.pids()
		return l.stats(pids), err
	})
	if err != nil {
		return found{}, err
	}
	f := found{procs: l.stats(pidsOf(l.held)), listening: Some(true), holders: slices.Clone(l.held)}
	if len(f.procs) == 0 {
		f.why = fmt.Sprintf("port %d is listened on, but by no process that is visible here", l.backend.Port)
		if l.unscanned(inodes) {
			f.why = fmt.Sprintf("port %d is listened on, by whom is looked up with the next sample", l.backend.Port)
		} else if l.denied {
			f.why += ": run the agent as the backend's user or as root (CAP_SYS_PTRACE), or name the backend by cgroup"
		}
		return f, nil
	}
	f.main = l.main(f.procs)
	return f, nil
}

// hold brings l.held up to date: those of the sockets' holders that still hold them,
// or, where a socket has none, whoever of the candidates does now.
func (l *locator) hold(now time.Time, inodes map[uint64]bool, candidates func() ([]procStat, error)) error {
	l.held = slices.DeleteFunc(l.held, func(h holder) bool {
		if inodes[h.inode] && l.proc.holds(h) {
			return false
		}
		delete(l.scanned, h.inode)
		return true
	})
	missing := map[uint64]bool{}
	for inode := range inodes {
		if !slices.ContainsFunc(l.held, func(h holder) bool { return h.inode == inode }) {
			missing[inode] = true
		}
	}
	if len(missing) == 0 {
		l.scanWait = 0
		return nil
	}
	wait := l.scanWait
	if l.unscanned(missing) {
		wait, l.scanWait = newsWait, 0
		l.tree.next = time.Time{} // the holder may be a process that was forked just now
	}
	if !l.lastScan.IsZero() && now.Sub(l.lastScan) < wait {
		return nil
	}
	procs, err := candidates()
	if err != nil {
		return err
	}
	l.held, l.denied = l.proc.holders(inodes, procs)
	l.scanned, l.lastScan = maps.Clone(inodes), now
	l.scanWait = min(max(2*l.scanWait, minScanWait), maxScanWait)
	return nil
}

// unscanned tells whether nobody has looked yet for who holds some of the sockets.
func (l *locator) unscanned(inodes map[uint64]bool) bool {
	for inode := range inodes {
		if !l.scanned[inode] {
			return true
		}
	}
	return false
}

func pidsOf(held []holder) []int {
	var pids []int
	for _, h := range held {
		if !slices.Contains(pids, h.pid) {
			pids = append(pids, h.pid)
		}
	}
	return pids
}

// stats reads the living ones of the processes.
func (l *locator) stats(pids []int) []procStat {
	var all []procStat
	for _, pid := range pids {
		if s, err := l.proc.stat(pid); err == nil {
			all = append(all, s)
		}
	}
	return all
}

// main picks the process whose life is the backend's: of those that share the socket
// (a pre-fork server's parent and its workers) the oldest, which is the parent where
// there is one. Start times tick in 10 ms, so an ancestor wins over an equal.
func (l *locator) main(procs []procStat) procStat {
	best := procs[0]
	for _, s := range procs[1:] {
		if s.start < best.start || s.start == best.start && l.descends(best, s.pid) {
			best = s
		}
	}
	return best
}

// descends tells whether ancestor is among the parents of s.
func (l *locator) descends(s procStat, ancestor int) bool {
	for range 64 { // deeper trees than this are loops in a broken fixture
		if s.ppid == ancestor {
			return true
		}
		var err error
		if s, err = l.proc.stat(s.ppid); err != nil {
			return false
		}
	}
	return false
}

// holders returns the descriptors, among the processes', of the sockets, and whether
// some process could not be looked into. systemd is left out: with socket activation
// it holds the socket of a service without being it.
func (p *procDir) holders(inodes map[uint64]bool, procs []procStat) (held []holder, denied bool) {
	for _, s := range procs {
		if s.name == "systemd" {
			continue
		}
		dir := filepath.Join(p.root, strconv.Itoa(s.pid), "fd")
		d, err := os.Open(dir)
		if err != nil {
			denied = denied || errors.Is(err, fs.ErrPermission)
			continue
		}
		fds, err := d.Readdirnames(-1)
		_ = d.Close()
		denied = denied || errors.Is(err, fs.ErrPermission)
		for _, fd := range fds {
			path := dir + "/" + fd
			if inode := p.socket(path); inodes[inode] {
				held = append(held, holder{pid: s.pid, path: path, inode: inode})
			}
		}
	}
	return held, denied
}

// holds tells whether the descriptor is still that socket.
func (p *procDir) holds(h holder) bool { return p.socket(h.path) == h.inode }

// socket returns the inode of a descriptor that is a socket, else 0.
func (p *procDir) socket(path string) uint64 {
	var buf [64]byte
	n, err := retry(func() (int, error) { return unix.Readlink(path, buf[:]) })
	if err != nil {
		return 0
	}
	text, ok := bytes.CutPrefix(buf[:n], []byte("socket:["))
	if !ok {
		return 0
	}
	inode, err := strconv.ParseUint(string(bytes.TrimSuffix(text, []byte("]"))), 10, 64)
	if err != nil {
		return 0
	}
	return inode
}
