package access

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

const patience = 10 * time.Second

func fileConfig(path string) Config {
	c := DefaultConfig()
	c.Path = path
	return c
}

func open(t testing.TB, c Config, o Options) *Logger {
	t.Helper()
	o.Service = "web"
	l, err := New(c, o)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func finish(t testing.TB, l *Logger) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := l.Close(ctx); err != nil {
		t.Fatal(err)
	}
}

// numbered is a request whose target is n.
func numbered(n int) *Record {
	r := sample()
	r.Target = []byte("/" + strconv.Itoa(n))
	return r
}

// targets returns those of all lines of a file, each of which must parse.
func targets(t testing.TB, path string) []string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, line := range splitLines(b) {
		m, err := parse(line)
		if err != nil {
			t.Fatalf("%v: %q", err, line)
		}
		list = append(list, m["target"])
	}
	return list
}

func wantTargets(t testing.TB, path, want string) {
	t.Helper()
	if got := strings.Join(targets(t, path), " "); got != want {
		t.Errorf("%s has %q, want %q", filepath.Base(path), got, want)
	}
}

func TestOff(t *testing.T) {
	l, err := New(DefaultConfig(), Options{})
	if l != nil || err != nil {
		t.Fatal(l, err)
	}
	if l.Wants(500, "timeout") {
		t.Error("it wants something")
	}
	l.Log(sample())
	l.Reopen()
	if err := l.Close(context.Background()); err != nil || l.Written()+l.Dropped()+l.Errors() != 0 {
		t.Error(err, l.Written(), l.Dropped(), l.Errors())
	}
}

func TestWants(t *testing.T) {
	var drawn uint32
	never := func(uint32) uint32 { panic("chance was asked") }
	fixed := func(n uint32) uint32 {
		if n != math.MaxUint32 {
			t.Errorf("asked for one of %d", n)
		}
		return drawn
	}
	for _, tt := range []struct {
		sample float64
		rand   func(uint32) uint32
		drawn  uint32
		status int
		reason string
		want   bool
	}{
		{1, never, 0, 200, "done", true},
		{1, never, 0, 404, "done", true},
		{0, never, 0, 200, "done", false},
		{0, never, 0, 404, "done", false},
		{0, never, 0, 499, "done", false},
		{0, never, 0, 500, "done", true},
		{0, never, 0, 503, "saturated", true},
		{0, never, 0, 400, "bad_request", true},
		{0, never, 0, 200, "client_gone", true},
		{0, never, 0, 200, "backend_reset", true},
		{0, never, 0, 0, "client_gone", true},
		{0, never, 0, 0, "done", true},
		{0, never, 0, 200, "", true},
		{0.25, fixed, math.MaxUint32/4 - 1, 200, "done", true},
		{0.25, fixed, math.MaxUint32/4 + 1, 200, "done", false},
		{1e-300, fixed, 0, 200, "done", true},
		{1e-300, fixed, 1, 200, "done", false},
		{0.25, never, 0, 502, "done", true},
	} {
		drawn = tt.drawn
		l := &Logger{threshold: thresholdOf(tt.sample), rand: tt.rand}
		if got := l.Wants(tt.status, tt.reason); got != tt.want {
			t.Errorf("%+v: %v", tt, got)
		}
	}
	r := rand.New(rand.NewPCG(1, 2))
	l := &Logger{threshold: thresholdOf(0.1), rand: r.Uint32N}
	n := 0
	for range 100_000 {
		if l.Wants(200, "done") {
			n++
		}
	}
	if n < 9600 || n > 10400 { // four standard deviations
		t.Errorf("%d of 100000 are logged, want a tenth", n)
	}
}

// A lone line is written at once; the next ones together after a rest.
func TestBatches(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	synctest.Test(t, func(t *testing.T) {
		l := open(t, fileConfig(path), Options{})
		l.Log(numbered(1))
		synctest.Wait()
		wantTargets(t, path, "/1")
		l.Log(numbered(2))
		l.Log(numbered(3))
		synctest.Wait()
		wantTargets(t, path, "/1")
		time.Sleep(restFor)
		synctest.Wait()
		wantTargets(t, path, "/1 /2 /3")
		for n := range 300 { // more than a chunk wakes the writer
			l.Log(numbered(4 + n))
		}
		synctest.Wait()
		if got := len(targets(t, path)); got < 130 || got > 302 {
			t.Errorf("%d lines, want the full chunk and no more", got)
		}
		l.Log(numbered(9))
		before := time.Now()
		finish(t, l)
		if d := time.Since(before); d != 0 {
			t.Errorf("Close rests for %v", d)
		}
		if got := len(targets(t, path)); got != 304 || l.Written() != 304 || l.Dropped() != 0 || l.Errors() != 0 {
			t.Errorf("%d lines; %d written, %d dropped, %d errors", got, l.Written(), l.Dropped(), l.Errors())
		}
		finish(t, l) // again
		l.Log(numbered(10))
		if l.Dropped() != 1 {
			t.Error("a line after the end is not counted")
		}
	})
	if info, err := os.Stat(path); err != nil || info.Mode().Perm()&^0o640 != 0 {
		t.Error(info.Mode(), err)
	}
}

func TestRotation(t *testing.T) {
	dir := t.TempDir()
	path, old := filepath.Join(dir, "log"), filepath.Join(dir, "old")
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	synctest.Test(t, func(t *testing.T) {
		l := open(t, fileConfig(path), Options{})
		n := 0
		log := func() {
			n++
			l.Log(numbered(n))
			time.Sleep(restFor)
			synctest.Wait()
		}
		log()
		must(os.Rename(path, old))
		log() // within the second it goes to the old file
		wantTargets(t, old, "/1 /2")
		time.Sleep(checkEvery)
		log() // then the new name is made
		wantTargets(t, path, "/3")

		must(os.Remove(path))
		must(os.WriteFile(path, nil, 0o600)) // logrotate's create
		time.Sleep(checkEvery)
		log()
		wantTargets(t, path, "/4")

		must(os.Rename(path, old))
		l.Reopen() // at once, and with nothing to write
		synctest.Wait()
		wantTargets(t, path, "")
		log()
		wantTargets(t, path, "/5")

		must(os.Truncate(path, 0)) // copytruncate
		log()
		wantTargets(t, path, "/6")

		// A name that cannot be opened: the old file is written on until it can.
		must(os.Rename(path, old))
		must(os.Mkdir(path, 0o700))
		time.Sleep(checkEvery)
		log()
		wantTargets(t, old, "/6 /7")
		if l.Errors() != 1 {
			t.Errorf("%d errors, want 1", l.Errors())
		}
		must(os.Remove(path))
		time.Sleep(checkEvery)
		log()
		wantTargets(t, path, "/8")
		finish(t, l)
		if l.Written() != 8 || l.Dropped() != 0 {
			t.Errorf("%d written, %d dropped", l.Written(), l.Dropped())
		}
	})
}

// Many goroutines of two services write whole lines to one file, and none is
// lost while there is room.
func TestStress(t *testing.T) {
	const workers, each = 8, 1000
	path := filepath.Join(t.TempDir(), "log")
	c := fileConfig(path)
	c.Buffer = 16 << 20 // holds all of them
	var loggers [2]*Logger
	for i := range loggers {
		c.Format = Formats()[i]
		loggers[i] = open(t, c, Options{})
	}
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			var r Record
			target, agent := make([]byte, 0, 64), make([]byte, 700)
			for n := range each {
				r.Reset()
				target = fmt.Appendf(target[:0], "/%d/%d", w, n)
				for i := range agent {
					agent[i] = byte(n + i)
				}
				r.Target, r.UserAgent = target, agent[:n%len(agent)]
				loggers[n%2].Log(&r)
				clear(target) // it was copied
				if n%100 == w {
					loggers[n%2].Reopen()
				}
			}
		})
	}
	wg.Wait()
	for _, l := range loggers {
		finish(t, l)
		if l.Written() != workers*each/2 || l.Dropped() != 0 || l.Errors() != 0 {
			t.Errorf("%d written, %d dropped, %d errors", l.Written(), l.Dropped(), l.Errors())
		}
	}
	next := map[string]int{} // by worker and parity, as a Logger keeps an order
	list := targets(t, path)
	for _, target := range list {
		var w, n int
		if _, err := fmt.Sscanf(target, "/%d/%d", &w, &n); err != nil {
			t.Fatalf("%q: %v", target, err)
		}
		id := fmt.Sprint(w, n%2)
		if next[id] != n/2 {
			t.Fatalf("%s came, want the one with %d", target, next[id])
		}
		next[id]++
	}
	if len(list) != workers*each {
		t.Errorf("%d lines, want %d", len(list), workers*each)
	}
}

func TestOpenFails(t *testing.T) {
	dir := t.TempDir()
	for _, path := range []string{dir, filepath.Join(dir, "no", "log")} {
		l, err := New(fileConfig(path), Options{})
		if l != nil || err == nil || !strings.Contains(err.Error(), "access_log path: open "+path) {
			t.Errorf("%s: %v %v", path, l, err)
		}
	}
}

func TestNoAllocations(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	for _, format := range Formats() {
		c := fileConfig(os.DevNull)
		c.Format = format
		l := open(t, c, Options{})
		r := sample()
		r.UserAgent = []byte("Ünïcode \xff \u2028\x00")
		for range 10_000 { // till all chunks there may be are there
			l.Log(r)
		}
		if n := testing.AllocsPerRun(10_000, func() { l.Log(r) }); n != 0 {
			t.Errorf("%s: %v allocations", format, n)
		}
		finish(t, l)
		if l.Written() == 0 || l.Written()+l.Dropped() != 20_001 {
			t.Errorf("%d written, %d dropped", l.Written(), l.Dropped())
		}
	}
}

func BenchmarkLog(b *testing.B) {
	for _, format := range Formats() {
		b.Run(format, func(b *testing.B) {
			c := fileConfig(filepath.Join(b.TempDir(), "log"))
			c.Format = format
			l := open(b, c, Options{})
			r := sample()
			b.ReportAllocs()
			for b.Loop() {
				l.Log(r)
			}
			b.ReportMetric(float64(l.Dropped())/float64(b.N), "dropped/op")
			finish(b, l)
		})
	}
}

func BenchmarkLine(b *testing.B) {
	for _, format := range Formats() {
		b.Run(format, func(b *testing.B) {
			e := newEncoder(Config{Format: format}, "web")
			r := sample()
			buf := make([]byte, 0, maxLine)
			b.ReportAllocs()
			for b.Loop() {
				buf = e.line(buf[:0], r)
			}
			b.SetBytes(int64(len(buf)))
		})
	}
}

func BenchmarkWants(b *testing.B) {
	l := &Logger{threshold: thresholdOf(0.01), rand: rand.Uint32N}
	b.ReportAllocs()
	for b.Loop() {
		l.Wants(200, Done)
	}
}
