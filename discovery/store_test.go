package discovery

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"

	"outrigger/discovery/statefile"
)

// shelf is a Store in a temporary directory that counts what is written.
type shelf struct {
	*Store
	writes atomic.Int64
	fail   atomic.Pointer[error]

	mu   sync.Mutex
	text bytes.Buffer
}

func (s *shelf) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(p)
}

func (s *shelf) logged(text string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Count(s.text.String(), text)
}

func (s *shelf) logger() hclog.Logger {
	return hclog.New(&hclog.LoggerOptions{Output: s, Level: hclog.Info, DisableTime: true})
}

func newShelf(dir string) *shelf {
	s := &shelf{}
	s.Store = NewStore(dir, Env{Logger: s.logger(), Rand: func() float64 { return 0.5 }})
	s.write = func(dir, name string, payload []byte) error {
		if err := s.fail.Load(); err != nil {
			return *err
		}
		s.writes.Add(1)
		return statefile.Write(dir, name, payload)
	}
	return s
}

// writer is a saver of what the test believes.
type writer struct {
	*saver
	mu    sync.Mutex
	set   []Instance
	index uint64
	at    time.Time
}

func (s *shelf) saver(block string) *writer {
	w := &writer{saver: newSaver(s.Store, block, "web", "q", DefaultConfig(), s.logger())}
	w.saver.believed = func() ([]Instance, uint64, time.Time) {
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.set, w.index, w.at
	}
	return w
}

func (w *writer) believe(set []Instance, index uint64, at time.Time) {
	w.mu.Lock()
	w.set, w.index, w.at = set, index, at
	w.mu.Unlock()
	w.poke()
}

func (w *writer) start(ctx context.Context) (stop func()) {
	ran := make(chan struct{})
	go func() {
		defer close(ran)
		w.run(ctx)
	}()
	return func() { w.finish(ran) }
}

func set(ids ...string) (out []Instance) {
	for _, id := range ids {
		out = append(out, Instance{ID: id, Service: "web", Address: "10.0.0.1", Port: 8000, Weight: 1})
	}
	return byID(out)
}

func TestStoreWritesAndLoads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		s := newShelf(dir)
		w := s.saver("web")
		if got, _, ok := w.load(); ok || got != nil {
			t.Errorf("from nothing: %v", got)
		}
		ctx, cancel := context.WithCancel(t.Context())
		stop := w.start(ctx)
		w.believe(set("a", "b"), 7, time.Now())
		synctest.Wait()
		time.Sleep(time.Second)
		if n := s.writes.Load(); n != 1 {
			t.Fatalf("%d writes", n)
		}
		// The same again is no write, and a change waits for the interval.
		w.believe(set("a", "b"), 8, time.Now())
		time.Sleep(10 * time.Second)
		for range 50 {
			w.believe(set("a", "c"), 9, time.Now())
			w.believe(set("a"), 10, time.Now())
			time.Sleep(100 * time.Millisecond)
		}
		if n := s.writes.Load(); n != 1 {
			t.Errorf("%d writes within the interval", n)
		}
		time.Sleep(30 * time.Second)
		if n := s.writes.Load(); n != 2 {
			t.Errorf("%d writes after it", n)
		}
		believed := time.Now()
		w.believe(set("x"), 11, believed)
		cancel()
		stop()
		if n := s.writes.Load(); n != 3 {
			t.Errorf("%d writes, the last at the end", n)
		}
		time.Sleep(time.Hour)
		got, at, ok := newShelf(dir).saver("web").load()
		if !ok || !diff(got, set("x")).none() || at.Sub(believed).Abs() > time.Second {
			t.Errorf("%v of %v, %v; want that of %v", got, at, ok, believed)
		}
		if d := w.disk(time.Now()); d.Writes != 3 || d.WriteErrors+d.ReadErrors != 0 || d.Bytes == 0 || d.Age.Round(time.Minute) != time.Hour {
			t.Errorf("%+v", d)
		}
	})
}

// A quiet service's snapshot does not grow old, and is not written again.
func TestStoreConfirms(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		s := newShelf(dir)
		w := s.saver("web")
		ctx, cancel := context.WithCancel(t.Context())
		stop := w.start(ctx)
		start := time.Now()
		for range 20 {
			w.believe(set("a"), 7, time.Now())
			time.Sleep(5*time.Minute + 18*time.Second)
		}
		_, at, ok := newShelf(dir).saver("web").load()
		if age := time.Since(at); !ok || age > 12*time.Minute || s.writes.Load() != 1 {
			t.Errorf("after %v it is of %v ago, %d writes", time.Since(start), age, s.writes.Load())
		}
		// Somebody removes it: it comes back.
		path := filepath.Join(dir, "discovery", "web.snapshot")
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		w.believe(set("a"), 7, time.Now())
		time.Sleep(11 * time.Minute)
		if _, err := os.Stat(path); err != nil || s.writes.Load() != 2 {
			t.Errorf("%v, %d writes", err, s.writes.Load())
		}
		last := time.Now()
		w.believe(set("a"), 7, last)
		cancel()
		stop()
		if _, at, _ := newShelf(dir).saver("web").load(); at.Sub(last).Abs() > time.Second {
			t.Errorf("at the end it is of %v, not of %v", at, last)
		}
	})
}

// Many services that change at once write one after the other.
func TestStoreSpacing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShelf(t.TempDir())
		var mu sync.Mutex
		var at []time.Time
		s.write = func(string, string, []byte) error {
			mu.Lock()
			defer mu.Unlock()
			at = append(at, time.Now())
			return nil
		}
		ctx, cancel := context.WithCancel(t.Context())
		var stops []func()
		for range 20 {
			w := s.saver("web")
			stops = append(stops, w.start(ctx))
			w.believe(set("a"), 1, time.Now())
		}
		time.Sleep(3 * time.Second)
		cancel()
		for _, stop := range stops {
			stop()
		}
		if len(at) != 20 {
			t.Fatalf("%d writes", len(at))
		}
		for i := 1; i < len(at); i++ {
			if d := at[i].Sub(at[i-1]); d < writeSpacing {
				t.Errorf("write %d comes %v after the one before", i, d)
			}
		}
	})
}

func TestStoreFullDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShelf(t.TempDir())
		full := error(syscall.ENOSPC)
		s.fail.Store(&full)
		ctx, cancel := context.WithCancel(t.Context())
		savers := []*writer{s.saver("a"), s.saver("b"), s.saver("c")}
		var stops []func()
		for _, w := range savers {
			stops = append(stops, w.start(ctx))
			w.believe(set("a"), 1, time.Now())
		}
		time.Sleep(10 * time.Minute)
		if n := s.logged("cannot write"); n != 1 {
			t.Errorf("%d lines about a full disk, want 1:\n%s", n, &s.text)
		}
		if d := savers[0].disk(time.Now()); d.WriteErrors < 10 || d.WriteErrors > 40 || d.Writes != 0 || d.Age != 0 {
			t.Errorf("%+v", d)
		}
		s.fail.Store(nil)
		time.Sleep(time.Minute)
		for _, w := range savers {
			if d := w.disk(time.Now()); d.Writes != 1 {
				t.Errorf("after there was room: %+v", d)
			}
		}
		if n := s.logged("can be written again"); n != 1 {
			t.Errorf("%d lines about its end", n)
		}
		cancel()
		for _, stop := range stops {
			stop()
		}
	})
}

// A disk that hangs holds the end up for a second in all.
func TestStoreHangingDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShelf(t.TempDir())
		free := make(chan struct{})
		s.write = func(string, string, []byte) error { <-free; return nil }
		ctx, cancel := context.WithCancel(t.Context())
		hangs, waits := s.saver("a"), s.saver("b")
		stops := []func(){hangs.start(ctx), waits.start(ctx)}
		hangs.believe(set("a"), 1, time.Now())
		time.Sleep(time.Minute)
		waits.believe(set("a"), 1, time.Now())
		time.Sleep(time.Minute)
		cancel()
		begin := time.Now()
		var wg sync.WaitGroup
		for _, stop := range stops {
			wg.Go(stop)
		}
		wg.Wait()
		if d := time.Since(begin); d > lastWrite+10*time.Millisecond || s.logged("[WARN]") != 1 || s.logged("services=2") != 1 {
			t.Errorf("the end took %v; log:\n%s", d, s.text.String())
		}
		close(free)
	})
}

// What cannot be used is told once, counted, left where it is and replaced by
// what is believed next.
func TestStoreBadFiles(t *testing.T) {
	payload := func(query string, confirmed time.Time, ids ...string) []byte {
		b, err := encodeSnapshot(snapshot{Service: "web", Query: query, Confirmed: confirmed}, set(ids...))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	write := func(b []byte) func(dir, path string) error {
		return func(dir, _ string) error { return statefile.Write(dir, "web.snapshot", b) }
	}
	for what, c := range map[string]struct {
		set    func(dir, path string) error
		want   string
		errors uint64
	}{
		"torn": {func(dir, path string) error {
			return errors.Join(write(payload("q", time.Now(), "a"))(dir, path), os.Truncate(path, 100))
		}, "damaged", 1},
		"empty":       {func(_, path string) error { return os.WriteFile(path, nil, 0o600) }, "damaged", 1},
		"newer":       {func(_, path string) error { return os.WriteFile(path, []byte("outrigger-snapshot 2\n"), 0o600) }, "another version", 1},
		"other query": {write(payload("other", time.Now(), "a")), "another service", 1},
		"no snapshot": {write([]byte("[]")), "no snapshot", 1},
		"link":        {func(_, path string) error { return os.Symlink("/etc/passwd", path) }, "too many levels", 1},
		"directory":   {func(_, path string) error { return os.Mkdir(path, 0o700) }, "no regular file", 1},
		"too old": {func(dir, path string) error {
			old := time.Now().Add(-100 * time.Hour)
			return errors.Join(write(payload("q", old, "a"))(dir, path), os.Chtimes(path, old, old))
		}, "too old", 0},
	} {
		t.Run(what, func(t *testing.T) {
			root := t.TempDir()
			dir := filepath.Join(root, "discovery")
			path := filepath.Join(dir, "web.snapshot")
			if err := errors.Join(os.Mkdir(dir, 0o700), c.set(dir, path)); err != nil {
				t.Fatal(err)
			}
			s := newShelf(root)
			w := s.saver("web")
			for range 3 {
				if got, _, ok := w.load(); ok || got != nil {
					t.Errorf("taken: %v", got)
				}
			}
			if n := s.logged("[WARN]"); n != 1 || s.logged(c.want) != 1 || w.disk(time.Now()).ReadErrors != c.errors {
				t.Errorf("%d warnings, %+v; want one with %q:\n%s", n, w.disk(time.Now()), c.want, &s.text)
			}
			if _, err := os.Lstat(path); err != nil {
				t.Errorf("it is not there any more: %v", err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			stop := w.start(ctx)
			w.believe(set("n"), 1, time.Now())
			cancel()
			stop()
			got, _, ok := newShelf(root).saver("web").load()
			if isDir := what == "directory"; ok == isDir || !isDir && !diff(got, set("n")).none() {
				t.Errorf("then there is %v, %v:\n%s", got, ok, &s.text)
			}
		})
	}
}

func TestStoreTimes(t *testing.T) {
	now := time.Now()
	for what, c := range map[string]struct {
		confirmed, changed, want time.Duration // from now
		warns                    int
	}{
		"as written":         {-time.Hour, -2 * time.Hour, -time.Hour, 0},
		"touched":            {-time.Hour, -time.Minute, -time.Minute, 0},
		"touched in future":  {-time.Hour, time.Hour, -time.Hour, 0},
		"of the future":      {48 * time.Hour, time.Minute, 0, 1},
		"all of the future":  {48 * time.Hour, 49 * time.Hour, 0, 1},
		"at the oldest used": {-71 * time.Hour, -71 * time.Hour, -71 * time.Hour, 0},
	} {
		root := t.TempDir()
		b, err := encodeSnapshot(snapshot{Query: "q", Confirmed: now.Add(c.confirmed)}, set("a"))
		if err != nil {
			t.Fatal(err)
		}
		s := newShelf(root)
		s.env.Now = func() time.Time { return now }
		if err := errors.Join(statefile.Write(s.dir, "web.snapshot", b), statefile.Touch(s.dir, "web.snapshot", now.Add(c.changed))); err != nil {
			t.Fatal(err)
		}
		_, at, ok := s.saver("web").load()
		if !ok || at.Sub(now.Add(c.want)).Abs() > time.Second || s.logged("[WARN]") != c.warns {
			t.Errorf("%s: %v from now, %v; want %v, log:\n%s", what, at.Sub(now), ok, c.want, &s.text)
		}
	}
}

// An empty set is kept, so that an older one does not come back, but there is
// nothing to start with in it.
func TestStoreEmptySet(t *testing.T) {
	dir := t.TempDir()
	w := newShelf(dir).saver("web")
	for _, ids := range [][]string{{"a"}, {}} {
		ctx, cancel := context.WithCancel(t.Context())
		stop := w.start(ctx)
		w.believe(set(ids...), 1, time.Now())
		cancel()
		stop()
	}
	again := newShelf(dir).saver("web")
	if got, _, ok := again.load(); ok || again.disk(time.Now()).Bytes == 0 {
		t.Errorf("%v, %v", got, ok)
	}
}
