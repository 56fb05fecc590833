// Package e2e tests Outrigger from outside, on real parts alone: a `consul agent
// -dev`, the outrigger binary as a process with HCL files, backends and agents
// as processes, clients on sockets.
package e2e

import (
	"context"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"outrigger/test/harness"
)

// suite is what the tests share. TestMain fills it before the first one.
var suite struct {
	self       string // this test binary, which is the backends too
	outrigger  string
	consulPath string
	consul     *harness.Consul // for tests that leave it running
}

func TestMain(m *testing.M) {
	if mode := os.Getenv(childEnv); mode != "" {
		os.Exit(runChild(mode, os.Args[1:]))
	}
	flag.Parse()
	if testing.Short() {
		fmt.Println("e2e: nothing is run with -short")
		return
	}
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		code = 1
	}
	os.Exit(code)
}

// run makes the programs, starts the shared Consul and runs the tests.
func run(m *testing.M) (code int, err error) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	programs := harness.NewBinaries(harness.SayStderr)
	defer func() {
		if e := programs.Close(); err == nil {
			err = e
		}
	}()
	if suite.self, err = os.Executable(); err != nil {
		return 1, err
	}
	if suite.outrigger, err = programs.Outrigger(ctx, raceEnabled); err != nil {
		return 1, err
	}
	if suite.consulPath, err = programs.Consul(ctx); err != nil {
		return 1, err
	}
	if suite.consul, err = harness.StartConsul(ctx, harness.Options{Path: suite.consulPath}); err != nil {
		return 1, err
	}
	defer func() {
		if e := suite.consul.Stop(); err == nil {
			err = e
		}
	}()
	stop() // from here on Ctrl-C ends the process, and the children with it
	return m.Run(), nil
}

var noted sync.Once

// noteSources looks at every source file of the module, so that the go command
// does not answer with a cached pass after a change in what only the programs
// built by the tests depend on.
func noteSources(t *testing.T) {
	t.Helper()
	noted.Do(func() {
		err := filepath.WalkDir(filepath.Join("..", ".."), func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() && strings.HasPrefix(d.Name(), ".") && d.Name() != ".." {
				return filepath.SkipDir // of another tool's, which may come and go
			}
			if name := d.Name(); strings.HasSuffix(name, ".go") && !strings.HasSuffix(name, "_test.go") || name == "go.mod" {
				_, err = os.Stat(path)
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
	})
}
