package harness

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
)

// BuildOutrigger builds ./cmd/outrigger of this module into the folder dir and
// returns the program's path; race builds it with the race detector, which
// needs a C compiler.
func BuildOutrigger(ctx context.Context, dir string, race bool) (path string, err error) {
	root, err := moduleRoot()
	if err != nil {
		return "", fmt.Errorf("build outrigger: %w", err)
	}
	b := goBuild{
		name: "outrigger", dir: root, pkg: "./cmd/outrigger",
		out: filepath.Join(dir, exeName("outrigger")), say: Say(nil).orSilent(),
	}
	if race {
		b.name, b.out = "outrigger -race", filepath.Join(dir, exeName("outrigger-race"))
		b.args = []string{"-race"}
	}
	return b.out, b.run(ctx)
}

// Binaries builds each program at most once. A TestMain makes one for its
// package's tests. Safe for concurrent use.
type Binaries struct {
	say Say

	mu        sync.Mutex // held while building: the others wait for the result
	dir       string     // temporary; "" until needed
	consul    memo
	outrigger map[bool]*memo // by race
}

// memo is the outcome of a build, unless it was only called off.
type memo struct {
	path string
	err  error
}

// NewBinaries makes a Binaries that reports long builds to say.
func NewBinaries(say func(format string, args ...any)) *Binaries {
	return &Binaries{say: say, outrigger: map[bool]*memo{false: {}, true: {}}}
}

// Consul is FindOrBuildConsul, once.
func (b *Binaries) Consul(ctx context.Context) (path string, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.consul.get(ctx, func() (string, error) { return FindOrBuildConsul(ctx, b.say) })
}

// Outrigger is BuildOutrigger, once with and once without the race detector,
// into a temporary folder that Close removes.
func (b *Binaries) Outrigger(ctx context.Context, race bool) (path string, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.outrigger[race].get(ctx, func() (string, error) {
		if b.dir == "" {
			dir, err := os.MkdirTemp("", "outrigger-bin-")
			if err != nil {
				return "", fmt.Errorf("make a folder for outrigger: %w", err)
			}
			b.dir = dir
		}
		return BuildOutrigger(ctx, b.dir, race)
	})
}

// Close removes what Outrigger built. The Binaries is not to be used after it.
func (b *Binaries) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.dir == "" {
		return nil
	}
	return os.RemoveAll(b.dir)
}

// get returns the remembered outcome or makes it, trying again if the caller
// before had given up.
func (m *memo) get(ctx context.Context, build func() (string, error)) (string, error) {
	if m.path != "" || m.err != nil {
		return m.path, m.err
	}
	path, err := build()
	if err != nil {
		path = ""
	}
	if err == nil || ctx.Err() == nil {
		m.path, m.err = path, err
	}
	return path, err
}
