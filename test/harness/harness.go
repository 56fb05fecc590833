// Package harness runs the real parts that the demo and the end-to-end tests
// share: a Consul agent (found, or built from the pinned module in
// test/consul), child processes that end with their parent, free ports, and
// this module's own binary.
package harness

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
)

// Say reports progress to a person, one line per call without a trailing
// newline. It is called from one goroutine at a time. t.Logf is one; nil is
// silence.
type Say func(format string, args ...any)

// SayStderr prints each line to standard error.
func SayStderr(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "harness: "+format+"\n", args...)
}

func (s Say) orSilent() Say {
	if s == nil {
		return func(string, ...any) {}
	}
	return s
}

// moduleName is the module line of the go.mod that marks the repository's root.
const moduleName = "outrigger"

var errNoModule = errors.New("found no go.mod of module " + moduleName +
	" above the working directory or the place this program was compiled from")

// moduleRoot is the repository's root: above the working directory (go run, go
// test), else above this file where it was compiled (a binary run elsewhere on
// the machine that built it, unless with -trimpath).
func moduleRoot() (string, error) {
	var starts []string
	if cwd, err := os.Getwd(); err == nil {
		starts = append(starts, cwd)
	}
	if _, file, _, ok := runtime.Caller(0); ok && filepath.IsAbs(file) {
		starts = append(starts, filepath.Dir(file))
	}
	for _, dir := range starts {
		for {
			if moduleOf(filepath.Join(dir, "go.mod")) == moduleName {
				return dir, nil
			}
			up := filepath.Dir(dir)
			if up == dir {
				break
			}
			dir = up
		}
	}
	return "", errNoModule
}

// moduleOf is the module path of a go.mod, or "" if there is none to read.
func moduleOf(gomod string) string {
	data, err := os.ReadFile(gomod)
	if err != nil {
		return ""
	}
	lines := bufio.NewScanner(bytes.NewReader(data))
	for lines.Scan() {
		line, _, _ := strings.Cut(lines.Text(), "//")
		if f := strings.Fields(line); len(f) == 2 && f[0] == "module" {
			return strings.Trim(f[1], "\"`")
		}
	}
	return ""
}

// tail is the end of a text, for error messages: at most 20 lines and 4 KiB.
func tail(text []byte) string {
	const maxLines, maxBytes = 20, 4 << 10
	text = bytes.TrimSpace(text)
	if len(text) == 0 {
		return "  (nothing)"
	}
	if len(text) > maxBytes {
		text = text[len(text)-maxBytes:]
	}
	lines := strings.Split(string(text), "\n")
	lines = lines[max(0, len(lines)-maxLines):]
	return "  " + strings.Join(lines, "\n  ")
}
