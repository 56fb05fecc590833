// Package faults puts toxiproxy between the HTTP/1.1 engine and its backends,
// and between its clients and the engine, and breaks the wire under load. The
// engine runs in this process, so that what it leaves behind can be counted;
// toxiproxy and the backends are processes of their own.
package faults

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"
	"testing"

	"outrigger/test/harness"
)

// suite is what the tests share. TestMain fills it before the first one.
var suite struct {
	skip     string // why nothing can be run
	toxic    *toxiproxy
	backends []string // addresses of three servers
	origin   string   // one of them, which tells what it holds
}

func TestMain(m *testing.M) {
	if posts := os.Getenv(childEnv); posts != "" {
		os.Exit(runOrigin(posts))
	}
	flag.Parse()
	if testing.Short() {
		fmt.Println("faults: nothing is run with -short")
		return
	}
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "faults:", err)
		code = 1
	}
	os.Exit(code)
}

// run starts what the tests share, runs them, and ends it.
func run(m *testing.M) (code int, err error) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	path, err := harness.FindOrBuildToxiproxy(ctx, harness.SayStderr)
	var unbuilt *harness.ToxiproxyBuildError
	if errors.As(err, &unbuilt) && ctx.Err() == nil {
		suite.skip = "toxiproxy cannot be built here: " + err.Error()
		fmt.Fprintln(os.Stderr, "faults: every test is skipped:", suite.skip)
		return m.Run(), nil
	}
	if err != nil {
		return 1, err
	}
	dir, err := os.MkdirTemp("", "outrigger-faults-")
	if err != nil {
		return 1, err
	}
	defer os.RemoveAll(dir)

	posts := filepath.Join(dir, "posts")
	var complaints output // of the backends: a body that is not what was sent
	var procs []*harness.Process
	defer func() {
		for _, p := range procs {
			p.Kill()
		}
		if s := complaints.String(); s != "" && err == nil {
			code, err = 1, fmt.Errorf("backends complain:\n%s", s)
		}
		if ids, e := sentTwice(posts); err == nil && (e != nil || len(ids) > 0) {
			code, err = 1, fmt.Errorf("POST requests sent to a backend twice: %q (%v)", ids, e)
		}
	}()
	keep := func(p *harness.Process, e error) error {
		if e == nil {
			procs = append(procs, p)
		}
		return e
	}
	var p *harness.Process
	for range 3 {
		var addr string
		p, addr, err = startOrigin(posts, &complaints)
		if err := keep(p, err); err != nil {
			return 1, err
		}
		suite.backends = append(suite.backends, addr)
	}
	suite.origin = suite.backends[2]
	if nginx, lookErr := exec.LookPath("nginx"); lookErr == nil {
		// nginx takes the place of the first and has it for what it cannot do itself.
		p, suite.backends[0], err = startNginx(ctx, nginx, dir, suite.backends[0])
		if err := keep(p, err); err != nil {
			return 1, err
		}
	} else {
		harness.SayStderr("found no nginx: all three backends are Go's net/http")
	}
	p, suite.toxic, err = startToxiproxy(ctx, path)
	if err := keep(p, err); err != nil {
		return 1, err
	}
	return m.Run(), nil
}

// needToxiproxy skips a test where there is none.
func needToxiproxy(t *testing.T) {
	t.Helper()
	if suite.skip != "" {
		t.Skip(suite.skip)
	}
}

// output collects what a child says. It may be written to while it is read.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(b)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}
