package main

import (
	"errors"
	"strings"
	"testing"
	"time"
)

const wrkPrinted = `Running 1s test @ http://127.0.0.1:1/
  1 threads and 64 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
  10 requests in 1.00s, 1.00KB read
Requests/sec:     10.00
BENCH requests=10 us=1000500 p50=12 p99=3400 connect=1 read=2 write=3 timeout=4 status=5
`

func TestParseWrk(t *testing.T) {
	got, err := parseWrk(wrkPrinted)
	want := wrkResult{requests: 10, duration: 1000500 * time.Microsecond, p50: 12 * time.Microsecond, p99: 3400 * time.Microsecond,
		connect: 1, read: 2, write: 3, timeout: 4, badStatus: 5}
	if err != nil || got != want {
		t.Errorf("got %+v, %v; want %+v", got, err, want)
	}
	good := "BENCH requests=10 us=1000500 p50=12 p99=3400 connect=0 read=0 write=0 timeout=0 status=0"
	for _, bad := range []string{
		"", "Requests/sec: 3\n", "BENCH\n", "BENCH requests=1\n",
		strings.Replace(good, "=10", "=-10", 1), strings.Replace(good, "=10", "=ten", 1),
		strings.Replace(good, "=10", "", 1), strings.Replace(good, "=10", "=99999999999999999999", 1),
		good + " more=1", good + " p50=12",
	} {
		if got, err := parseWrk(bad); err == nil {
			t.Errorf("%q is taken for %+v", bad, got)
		}
	}
}

func TestWrkFailsLoudly(t *testing.T) {
	good := wrkResult{requests: 10, duration: time.Second}
	if err := good.err(); err != nil {
		t.Error(err)
	}
	for name, spoil := range map[string]func(*wrkResult){
		"connect": func(r *wrkResult) { r.connect = 1 }, "read": func(r *wrkResult) { r.read = 1 },
		"write": func(r *wrkResult) { r.write = 1 }, "timeout": func(r *wrkResult) { r.timeout = 1 },
		"status": func(r *wrkResult) { r.badStatus = 1 }, "none": func(r *wrkResult) { r.requests = 0 },
	} {
		r := good
		spoil(&r)
		if r.err() == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func FuzzParseWrk(f *testing.F) {
	f.Add(wrkPrinted)
	f.Add("BENCH requests=10 us=1000500")
	f.Fuzz(func(t *testing.T, text string) {
		r, err := parseWrk(text)
		if err != nil {
			return
		}
		for _, n := range []int64{r.requests, int64(r.duration), int64(r.p50), int64(r.p99), r.connect, r.read, r.write, r.timeout, r.badStatus} {
			if n < 0 {
				t.Errorf("%q: %+v", text, r)
			}
		}
	})
}

func TestResponseLength(t *testing.T) {
	whole := "HTTP/1.1 200 OK\r\nServer: x\r\ncontent-length:  3\r\n\r\nabc"
	length, status, err := responseLength([]byte(whole + "HTTP"))
	if length != len(whole) || status != 200 || err != nil {
		t.Errorf("%d, %d, %v", length, status, err)
	}
	for i := range len(whole) {
		if _, _, err := responseLength([]byte(whole[:i])); !errors.Is(err, errPartial) {
			t.Errorf("%q: %v", whole[:i], err)
		}
	}
	for _, bad := range []string{
		"HTTP/1.1 200 OK\r\n\r\n", "HTTP/1.1 2x0 OK\r\nContent-Length: 0\r\n\r\n", "HTTP/2.0\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n",
	} {
		if n, _, err := responseLength([]byte(bad)); err == nil || errors.Is(err, errPartial) {
			t.Errorf("%q: %d, %v", bad, n, err)
		}
	}
}

func FuzzResponseLength(f *testing.F) {
	f.Add([]byte("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc"))
	f.Fuzz(func(t *testing.T, buf []byte) {
		if n, _, err := responseLength(buf); err == nil && (n < 4 || n > len(buf)) {
			t.Errorf("%q: %d", buf, n)
		}
	})
}

func TestParseStubStatus(t *testing.T) {
	got, err := parseStubStatus("Active connections: 2 \nserver accepts handled requests\n 12 13 140 \nReading: 0 Writing: 1 Waiting: 1 \n")
	if want := (nginxCounts{accepts: 12, requests: 140}); err != nil || got != want {
		t.Errorf("%+v, %v", got, err)
	}
	for _, bad := range []string{"", "a\nb\n", "a\nb\n1 2\n", "a\nb\n1 2 x\n"} {
		if _, err := parseStubStatus(bad); err == nil {
			t.Errorf("%q is understood", bad)
		}
	}
}

const haproxyStat = `# pxname,svname,qcur,qmax,scur,smax
in,FRONTEND,,,7,9
web,web0,0,0,2,3
web,web1,0,0,1,3
web,BACKEND,0,0,3,5

`

func TestParseSessions(t *testing.T) {
	if n, err := parseSessions(strings.NewReader(haproxyStat)); n != 3 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	for _, bad := range []string{"", "a,b\n", "svname,scur\nx,y\n", "svname,scur\nx,-1\n", "svname,scur\n\"x,1\n"} {
		if n, err := parseSessions(strings.NewReader(bad)); err == nil {
			t.Errorf("%q is taken for %d", bad, n)
		}
	}
}

func FuzzParseSessions(f *testing.F) {
	f.Add(haproxyStat)
	f.Fuzz(func(t *testing.T, text string) {
		if n, err := parseSessions(strings.NewReader(text)); err != nil && n != 0 {
			t.Errorf("%d with %v", n, err)
		}
	})
}
