// Package demo is `outrigger demo`: the main job done on real parts, in
// chapters that a person can follow.
package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/mattn/go-isatty"

	"outrigger/test/harness"
)

// Options say how to run the demo.
type Options struct {
	Keep bool      // leave everything running at the end, until ctx ends
	Out  io.Writer // a terminal gets a live table, anything else plain lines
}

// stage is what a chapter plays on.
type stage struct {
	*world
	out  io.Writer
	live bool // out is a terminal
}

// chapter shows one thing. It returns a sentence of what was seen and whether
// that is what should be seen; an error means that it could not be played, a
// notHere that the others can.
type chapter struct {
	title string
	play  func(st *stage, ctx context.Context) (sentence string, held bool, err error)
}

// notHere says why a chapter shows nothing on this machine.
type notHere string

func (n notHere) Error() string { return string(n) }

func chapters() []chapter {
	return []chapter{
		{"Two slow backends and a fast one, under least connections", (*stage).slowAndFast},
		{"A backend's CPU is burnt from outside, under the resource policy", (*stage).burntCPU},
		{"A backend is killed under load", (*stage).killed},
		{"All capacity is taken", (*stage).saturated},
		{"Consul is killed", (*stage).consulGone},
	}
}

func (o Options) live() bool {
	f, ok := o.Out.(*os.File)
	return ok && isatty.IsTerminal(f.Fd())
}

// Run plays all chapters and returns the exit status: 0 only if every one held.
func Run(ctx context.Context, o Options) int {
	st := &stage{world: &world{http: &http.Client{Timeout: 2 * time.Second}}, out: o.Out, live: o.live()}
	defer st.tearDown()
	if err := st.prepare(ctx); err != nil {
		return st.broken(ctx, err)
	}
	failed := 0
	for i, c := range chapters() {
		st.say("\n%d. %s", i+1, c.title)
		sentence, held, err := c.play(st, ctx)
		mark := "held"
		var no notHere
		switch {
		case errors.As(err, &no):
			sentence, mark = string(no), "CANNOT BE SHOWN HERE"
			failed++
		case err != nil:
			return st.broken(ctx, err)
		case !held:
			mark = "DID NOT HOLD"
			failed++
		}
		st.say("   => %s [%s]", sentence, mark)
	}
	st.say("\n%d of %d chapters held.", len(chapters())-failed, len(chapters()))
	if o.Keep {
		st.keep(ctx)
	}
	if failed > 0 {
		return 1
	}
	return 0
}

// broken says why the demo could not go on.
func (st *stage) broken(ctx context.Context, err error) int {
	if ctx.Err() != nil {
		st.say("\nInterrupted; everything that was started is being stopped.")
		return 130
	}
	st.say("\nThe demo could not go on: %v", err)
	return 1
}

func (st *stage) say(format string, args ...any) { fmt.Fprintf(st.out, format+"\n", args...) }

func (st *stage) prepare(ctx context.Context) error {
	var err error
	if st.self, err = os.Executable(); err != nil {
		return err
	}
	if st.dir, err = os.MkdirTemp("", "outrigger-demo-"); err != nil {
		return err
	}
	if st.log, err = os.Create(filepath.Join(st.dir, "log")); err != nil {
		return err
	}
	st.cpus = harness.AllowedCPUs()
	st.say("Outrigger demo: a real Consul, three backends, three agents, one sidecar, one load generator.")
	return st.build(ctx, st.say)
}

// keep leaves everything running, Consul too, until ctx ends.
func (st *stage) keep(ctx context.Context) {
	if err := st.consul.Restart(ctx); err == nil {
		err = st.register()
		if err != nil {
			st.say("Consul is back, but without the backends: %v", err)
		}
	} else if ctx.Err() == nil {
		st.say("Consul could not be started again: %v", err)
	}
	if err := st.costAll(5*time.Millisecond, 0); err != nil {
		st.say("%v", err)
	}
	st.say("\nLeft running; Ctrl-C ends it all.")
	st.say("  Consul            http://%s/ui", st.consul.Addr())
	for _, name := range []string{"shop", "shop-resource", "shop-small"} {
		st.say("  %-17s curl -i %s", name, st.url(name))
	}
	st.say("  status            outrigger status -addr 127.0.0.1:%d -watch", st.admin)
	st.say("  metrics           curl http://127.0.0.1:%d/metrics", st.admin)
	st.say("  log               %s", filepath.Join(st.dir, "log"))
	<-ctx.Done()
}

// watch shows the backends while a load runs, for d.
func (st *stage) watch(ctx context.Context, service string, d time.Duration) error {
	every := 2 * time.Second
	if st.live {
		every = 250 * time.Millisecond
	}
	end := time.Now().Add(d)
	lines := 0
	var before map[string]uint64
	last := time.Now()
	for ctx.Err() == nil {
		left := time.Until(end)
		if left <= 0 {
			break
		}
		if !pause(ctx, min(every, left)) {
			break
		}
		doc, err := st.status(service)
		if err != nil {
			return fmt.Errorf("asking the sidecar for its status: %w", err)
		}
		rows, totals := tableOf(st.servers, doc, before, time.Since(last))
		before, last = totals, time.Now()
		lines = st.draw(rows, lines)
	}
	return ctx.Err()
}

// draw prints the rows, over those of the last time on a terminal.
func (st *stage) draw(rows []string, over int) int {
	if st.live && over > 0 {
		fmt.Fprintf(st.out, "\x1b[%dA", over)
	}
	for _, r := range rows {
		if st.live {
			fmt.Fprintf(st.out, "\x1b[2K   %s\n", r)
		} else {
			fmt.Fprintf(st.out, "   %s\n", strings.TrimRight(r, " "))
		}
	}
	return len(rows)
}
