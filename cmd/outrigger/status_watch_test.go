package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"outrigger/sidecar/admin"
)

// cancelAfter is an output that ends the watch after some writes.
type cancelAfter struct {
	bytes.Buffer
	writes int
	cancel context.CancelFunc
}

func (c *cancelAfter) Write(p []byte) (int, error) {
	if c.writes--; c.writes == 0 {
		c.cancel()
	}
	return c.Buffer.Write(p)
}

func TestStatusWatch(t *testing.T) {
	t.Parallel()
	addr := statusSidecar(t, "web")
	watch := func(q statusQuery, inPlace bool) string {
		t.Helper()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		out := &cancelAfter{writes: 3, cancel: cancel}
		if code := q.watch(ctx, streams{nil, out, io.Discard}, time.Millisecond, inPlace); code != 0 {
			t.Errorf("exit %d", code)
		}
		return out.String()
	}
	plain := watch(statusQuery{addr: addr}, false)
	if strings.Count(plain, "outrigger 1.2.3") != 3 || strings.Count(plain, "\n\noutrigger 1.2.3") != 2 || strings.Contains(plain, "\x1b") {
		t.Errorf("plain blocks:\n%q", plain)
	}
	inPlace := watch(statusQuery{addr: addr}, true)
	if strings.Count(inPlace, "\x1b[Houtrigger 1.2.3") != 3 || strings.Count(inPlace, "\x1b[J") != 3 ||
		strings.Count(inPlace, "\n") != strings.Count(inPlace, "\x1b[K\n") {
		t.Errorf("in place:\n%q", inPlace)
	}
	dec := json.NewDecoder(strings.NewReader(watch(statusQuery{addr: addr, json: true}, false)))
	for i := range 3 {
		var doc admin.StatusDoc
		if err := dec.Decode(&doc); err != nil || doc.Version != "1.2.3" {
			t.Errorf("document %d: %v %+v", i+1, err, doc)
		}
	}
}

// TestStatusWatchWaitsForARestart keeps asking after the sidecar has gone.
func TestStatusWatchWaitsForARestart(t *testing.T) {
	t.Parallel()
	var down atomic.Bool
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if down.Swap(!down.Load()) { // every second one
			panic(http.ErrAbortHandler)
		}
		_, _ = io.WriteString(w, `{"version":"9.9.9"}`)
	})}
	go func() { _ = srv.Serve(ln) }()
	defer srv.Close()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	out := &cancelAfter{writes: 3, cancel: cancel}
	q := statusQuery{addr: ln.Addr().String()}
	if code := q.watch(ctx, streams{nil, out, io.Discard}, time.Millisecond, false); code != 0 {
		t.Errorf("exit %d", code)
	}
	first, rest, _ := strings.Cut(out.String(), "\n\n")
	second, third, _ := strings.Cut(rest, "\n\n")
	if !strings.Contains(first, "9.9.9") || !strings.Contains(second, "no sidecar answers") || !strings.Contains(third, "9.9.9") {
		t.Errorf("got\n%s", out.String())
	}
}

func TestStatusInterrupted(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if code, out, _ := statusRun(ctx, "-addr", "127.0.0.1:1"); code != 1 || out != "" {
		t.Errorf("exit %d, %q", code, out)
	}
	if code, out, errs := statusRun(ctx, "-addr", "127.0.0.1:1", "-watch"); code != 0 || out != "" || errs != "" {
		t.Errorf("-watch: exit %d, %q, %q", code, out, errs)
	}
}
