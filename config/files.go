package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Bounds of what is read. They are far above any real configuration (one
// service block takes about 1 KiB) and keep a wrong path from filling memory.
const (
	maxFile  = 1 << 20  // one configuration file
	maxAll   = 32 << 20 // all of them
	maxValue = 64 << 10 // what file() reads
)

// Env is what the loader needs of the world.
type Env struct {
	// LookupEnv is os.LookupEnv or its like.
	LookupEnv func(name string) (string, bool)
	// Open opens a file or directory for reading. A directory is an
	// fs.ReadDirFile, as those of package os are.
	Open func(path string) (fs.File, error)
}

// OS returns the process's own environment and files.
func OS() Env {
	return Env{
		LookupEnv: os.LookupEnv,
		Open:      func(path string) (fs.File, error) { return os.Open(path) },
	}
}

// read returns the content of a file of at most limit bytes.
func (e Env) read(path string, limit int) ([]byte, error) {
	f, err := e.Open(path)
	if err != nil {
		return nil, plain(err)
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.IsDir() {
		return nil, errors.New("is a directory")
	}
	b, err := io.ReadAll(io.LimitReader(f, int64(limit)+1))
	if err != nil {
		return nil, plain(err)
	}
	if len(b) > limit {
		return nil, fmt.Errorf("is larger than %s, the most that is read", sizeText(int64(limit)))
	}
	return b, nil
}

// plain strips the path from an error, as the caller names it.
func plain(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}

// expand turns directories into the configuration files in them, in the order
// of their names, and drops paths that came before.
func (l *loader) expand(paths []string) []string {
	var out []string
	seen := map[string]bool{}
	add := func(path string) {
		if key := filepath.Clean(path); !seen[key] {
			seen[key] = true
			out = append(out, path)
		}
	}
	for _, p := range paths {
		names, isDir, err := l.env.list(p)
		switch {
		case err != nil:
			l.add(Problem{File: p, Message: "cannot be read: " + err.Error()})
		case !isDir:
			add(p)
		case len(names) == 0:
			l.add(Problem{File: p, Message: "holds no configuration", Hint: "A directory is searched for files called *.hcl, not recursively."})
		}
		for _, n := range names {
			add(filepath.Join(p, n))
		}
	}
	return out
}

// list returns the names of the configuration files in a directory, sorted.
// Hidden files are left out: editors keep theirs so, and Kubernetes the
// former versions of a mounted ConfigMap.
func (e Env) list(path string) (names []string, isDir bool, err error) {
	f, err := e.Open(path)
	if err != nil {
		return nil, false, plain(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, false, plain(err)
	}
	if !info.IsDir() {
		return nil, false, nil
	}
	dir, ok := f.(fs.ReadDirFile)
	if !ok {
		return nil, true, errors.New("is a directory that cannot be listed")
	}
	entries, err := dir.ReadDir(-1)
	if err != nil {
		return nil, true, plain(err)
	}
	for _, d := range entries {
		if n := d.Name(); !d.IsDir() && strings.HasSuffix(n, ".hcl") && !strings.HasPrefix(n, ".") {
			names = append(names, n)
		}
	}
	slices.Sort(names)
	return names, true, nil
}
