package main

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"
)

// someProxies answer 200, answer 503, answer 500 and do not answer.
func someProxies(t *testing.T) []string {
	t.Helper()
	status := func(code int) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) }
	}
	silent := func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
	var addrs []string
	for _, h := range []http.HandlerFunc{status(200), status(503), status(500), silent} {
		s := httptest.NewServer(h)
		t.Cleanup(s.Close)
		addrs = append(addrs, s.Listener.Addr().String())
	}
	return addrs
}

func TestPouringTellsFatesApart(t *testing.T) {
	const timeout = 2 * time.Second // long for what is answered at once
	p := pouring{addrs: someProxies(t), warm: time.Millisecond, timeout: timeout}
	for i := range 4 * 5 {
		p.plan = append(p.plan, arrival{due: time.Duration(i) * time.Millisecond, client: i % 4, work: 1})
	}
	out, err := p.run(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	// The first, to the one that answers, was to warm up.
	want := map[fate]int{answered: 4, shed: 5, failed: 5, timedOut: 5}
	for f, n := range want {
		if out.fates[f] != n {
			t.Errorf("fates %v, want %v", out.fates, want)
			break
		}
	}
	if len(out.latency) != 19 || !slices.IsSorted(out.latency) || out.latency[0] >= timeout || out.latency[4] != timeout || out.latency[18] != timeout {
		t.Errorf("latencies %v", out.latency)
	}
	f := out.figures()
	if f[keyRequests] != 19 || f[keyShed] != 5 || f[keyErrors] != 5 || f[keyTimeout] != 5 || f[keyMS99] != 2000 || f[keyGoodput] != 100*4.0/19 {
		t.Errorf("%v", f)
	}
}

func TestPouringEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancelCause(context.Background())
	cancel(errors.New("that was it"))
	p := pouring{addrs: someProxies(t)[:1], plan: []arrival{{due: time.Hour, work: 1}}, timeout: time.Second}
	if _, err := p.run(ctx); err == nil || !strings.Contains(err.Error(), "that was it") {
		t.Errorf("%v", err)
	}
	p.plan[0].due, p.warm = 0, time.Hour
	if _, err := p.run(context.Background()); err == nil {
		t.Error("nothing counted and all is well")
	}
}
