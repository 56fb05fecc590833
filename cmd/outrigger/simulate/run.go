package simulate

import (
	"context"
	"fmt"
	"io"
	"runtime"
	"slices"
	"sync"
	"time"
)

// Outcome is what one run measured. A latency of the time-out or more stands
// for a client that gave up.
type Outcome struct {
	Seed           uint64
	P50, P99, P999 time.Duration
	Goodput        float64 // share of the requests that were answered well and in time
	Shed           float64 // share that a sidecar answered 503 in the end
	Failed         float64 // share that ended in an error
	Sent           int     // requests measured
}

// Runner runs one case with one seed. It may be called by several goroutines
// at once, and returns early with ctx's error when ctx ends.
type Runner func(ctx context.Context, q *Question, c Case, seed uint64) (Outcome, error)

// Line is a case with the outcomes of its runs, in the order of the seeds.
type Line struct {
	Case
	Runs []Outcome // fewer than Question.Seeds where the work was interrupted
}

// Run runs all cases with all seeds on all CPUs. When ctx ends it returns what
// is there, with ctx's error. Lines are in the order of cases, whatever ended
// first, and those without a run are left out.
func Run(ctx context.Context, q *Question, run Runner, progress io.Writer) ([]Line, error) {
	w := &work{q: q, run: run, progress: progress, cases: q.cases()}
	w.lines = make([]Line, len(w.cases))
	for i, c := range w.cases {
		w.lines[i].Case = c
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for w.step(ctx, cancel) {
			}
		})
	}
	wg.Wait()
	lines := slices.DeleteFunc(w.lines, func(l Line) bool { return len(l.Runs) == 0 })
	for _, l := range lines {
		slices.SortFunc(l.Runs, func(a, b Outcome) int { return int(int64(a.Seed - b.Seed)) })
	}
	return lines, context.Cause(ctx)
}

// work is what Run's goroutines share.
type work struct {
	q        *Question
	run      Runner
	progress io.Writer
	cases    []Case

	mu    sync.Mutex
	next  int // run to take: case next/Seeds, seed next%Seeds
	lines []Line
}

// step takes a run and does it; false when there is none left.
func (w *work) step(ctx context.Context, fail context.CancelCauseFunc) bool {
	w.mu.Lock()
	n := w.next
	w.next++
	w.mu.Unlock()
	if n >= len(w.cases)*w.q.Seeds || ctx.Err() != nil {
		return false
	}
	c, seed := n/w.q.Seeds, w.q.Seed+uint64(n%w.q.Seeds)
	out, err := w.run(ctx, w.q, w.cases[c], seed)
	if ctx.Err() != nil {
		return false
	}
	if err != nil {
		fail(fmt.Errorf("policy %s at %s of the capacity, seed %d: %w", w.cases[c].Policy, percent(w.cases[c].Load), seed, err))
		return false
	}
	out.Seed = seed
	w.mu.Lock()
	defer w.mu.Unlock()
	l := &w.lines[c]
	l.Runs = append(l.Runs, out)
	if len(l.Runs) == w.q.Seeds {
		w.report(l)
	}
	return true
}

// report says how far the work is, once a case has all its runs.
func (w *work) report(l *Line) {
	done := 0
	for _, l := range w.lines {
		if len(l.Runs) == w.q.Seeds {
			done++
		}
	}
	fmt.Fprintf(w.progress, "%d of %d: %s: p99 %s, goodput %s\n", done, len(w.lines), w.q.title(l.Case),
		w.q.latency(l.median(p99)), share(l.median(goodput)))
}
