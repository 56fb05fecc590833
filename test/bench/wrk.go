package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"outrigger/test/harness"
)

// load is what wrk does to a proxy: each connection sends its next request as
// soon as it has the answer to the last.
type load struct {
	path  string
	conns int
	post  int  // bytes of body; 0: GET
	close bool // a new connection for every request
}

// wrkLimit bounds a request: whoever takes longer has failed.
const wrkLimit = 5 * time.Second

// wrkMark begins the line that our script makes wrk print.
const wrkMark = "BENCH"

// wrkResult is what wrk counted.
type wrkResult struct {
	requests  int64
	duration  time.Duration
	p50, p99  time.Duration
	connect   int64 // socket errors
	read      int64
	write     int64
	timeout   int64
	badStatus int64 // answers of 400 and above
}

func (r wrkResult) err() error {
	if r.connect+r.read+r.write+r.timeout+r.badStatus > 0 {
		return fmt.Errorf("of %d requests, %d were answered with 400 or above, %d timed out; socket errors: %d connect, %d read, %d write",
			r.requests, r.badStatus, r.timeout, r.connect, r.read, r.write)
	}
	if r.requests == 0 || r.duration <= 0 {
		return errors.New("not one request was answered")
	}
	return nil
}

// script is wrk's Lua for a load. Without a request function of our own wrk
// builds the request once and stays cheap.
func (l load) script() string {
	var s strings.Builder
	if l.post > 0 {
		fmt.Fprintf(&s, "wrk.method = \"POST\"\nwrk.body = string.rep(\"x\", %d)\n", l.post)
	}
	if l.close {
		s.WriteString("wrk.headers[\"Connection\"] = \"close\"\n")
	}
	s.WriteString(`done = function(s, l, r)
  local e = s.errors
  io.write(string.format("` + wrkMark + ` requests=%d us=%d p50=%d p99=%d connect=%d read=%d write=%d timeout=%d status=%d\n",
    s.requests, s.duration, l:percentile(50), l:percentile(99), e.connect, e.read, e.write, e.timeout, e.status))
end
`)
	return s.String()
}

// wrk loads an address for some seconds.
func (b *bench) wrk(ctx context.Context, addr string, l load, seconds int) (wrkResult, error) {
	script := filepath.Join(b.dir, "wrk.lua")
	if err := os.WriteFile(script, []byte(l.script()), 0o600); err != nil {
		return wrkResult{}, err
	}
	out, err := b.output(ctx, harness.Spec{
		Path: b.tools["wrk"], CPUs: b.loadCPU,
		Args: []string{"-t1", "-c" + strconv.Itoa(l.conns), "-d" + strconv.Itoa(seconds) + "s",
			"--timeout", strconv.Itoa(int(wrkLimit / time.Second)), "-s", script, "http://" + addr + l.path},
	})
	if err != nil {
		return wrkResult{}, err
	}
	r, err := parseWrk(out)
	if err == nil {
		err = r.err()
	}
	return r, err
}

// parseWrk finds our script's line in what wrk printed.
func parseWrk(text string) (wrkResult, error) {
	var r wrkResult
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) == 0 || f[0] != wrkMark {
			continue
		}
		us := func(d *time.Duration) func(int64) { return func(n int64) { *d = time.Duration(n) * time.Microsecond } }
		count := func(c *int64) func(int64) { return func(n int64) { *c = n } }
		into := map[string]func(int64){
			"requests": count(&r.requests), "us": us(&r.duration), "p50": us(&r.p50), "p99": us(&r.p99),
			"connect": count(&r.connect), "read": count(&r.read), "write": count(&r.write),
			"timeout": count(&r.timeout), "status": count(&r.badStatus),
		}
		for _, pair := range f[1:] {
			key, value, _ := strings.Cut(pair, "=")
			set := into[key]
			n, err := strconv.ParseInt(value, 10, 64)
			if err != nil || set == nil || n < 0 || n > int64(1<<50) { // 2^50 µs fit a Duration
				return wrkResult{}, fmt.Errorf("wrk's result %q is not understood: %q", strings.TrimSpace(line), pair)
			}
			set(n)
			delete(into, key)
		}
		if len(into) > 0 {
			return wrkResult{}, fmt.Errorf("wrk's result %q is not complete", strings.TrimSpace(line))
		}
		return r, nil
	}
	return r, fmt.Errorf("wrk printed no result:\n%s", lastLines(text))
}
