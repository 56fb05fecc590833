package agentstats

import (
	"bytes"
	"os"
	"runtime/debug"
	"strconv"

	"golang.org/x/sys/unix"
)

// trim gives back what only the start needed: garbage, and the pages of the program's
// file that are mapped. Those it still uses come back from the page cache, a few
// microseconds each; the others, some 6 MiB, were initialisation code and its tables.
func trim() {
	debug.FreeOSMemory()
	exe, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return // a smaller resident size is all there is to lose
	}
	maps, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		return
	}
	for _, m := range cleanMappings(maps, exe) {
		_, _, _ = unix.RawSyscall(unix.SYS_MADVISE, m.start, m.end-m.start, unix.MADV_DONTNEED)
	}
}

type mapping struct{ start, end uintptr }

// cleanMappings returns, of /proc/PID/smaps, the mappings of a file whose pages can all
// be read from it again. That a mapping may not be written now does not say so: the
// dynamic linker of a position-independent program writes relocations into pages that
// it then makes read-only, and a debugger its breakpoints into code. Such pages are
// counted as anonymous.
func cleanMappings(smaps []byte, file string) []mapping {
	var clean []mapping
	var m mapping
	candidate := false
	for line := range bytes.Lines(smaps) {
		f := bytes.Fields(line)
		if len(f) == 0 {
			continue
		}
		if !bytes.HasSuffix(f[0], []byte(":")) { // a mapping's first line
			from, to, _ := bytes.Cut(f[0], []byte("-"))
			start, err1 := strconv.ParseUint(string(from), 16, 64)
			end, err2 := strconv.ParseUint(string(to), 16, 64)
			candidate = err1 == nil && err2 == nil && start < end && len(f) == 6 &&
				string(f[5]) == file && len(f[1]) > 1 && f[1][1] == '-'
			m = mapping{uintptr(start), uintptr(end)}
			continue
		}
		if candidate && string(f[0]) == "Anonymous:" {
			if len(f) > 1 && string(f[1]) == "0" {
				clean = append(clean, m)
			}
			candidate = false
		}
	}
	return clean
}
