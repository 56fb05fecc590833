package discovery

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
)

// listing is a file of instances at 10.0.0.1 with these IDs.
func listing(ids ...string) string {
	var out []string
	for i, id := range ids {
		out = append(out, fmt.Sprintf(`{"address":"10.0.0.1","port":%d,"id":%q}`, 8000+i, id))
	}
	return `{"instances":[` + strings.Join(out, ",\n") + `]}`
}

// watched is a source that is watched, by what is left of a bench.
type watched struct {
	bench
	of Source
}

func (w *watched) env(lives func(id string) bool) Env {
	return Env{
		Logger: hclog.New(&hclog.LoggerOptions{Output: &w.bench, Level: hclog.Info, DisableTime: true}),
		Rand:   func() float64 { return 0.5 },
		Probe: func(_ context.Context, i Instance) error {
			if lives == nil || !lives(i.ID) {
				return syscall.ECONNREFUSED
			}
			return nil
		},
	}
}

func (w *watched) watch(t *testing.T, of Source) {
	w.t, w.of, w.done, w.start = t, of, make(chan error, 1), time.Now()
	ctx, cancel := context.WithCancel(t.Context())
	w.cancel = cancel
	go func() { w.done <- of.Watch(ctx, w.apply) }()
}

func watchFile(t *testing.T, path string, lives func(id string) bool) *watched {
	w := &watched{}
	w.watch(t, NewFile(DefaultFileQuery("web", path), DefaultConfig(), w.env(lives)))
	return w
}

func put(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// swap replaces a file as careful programs do.
func swap(t *testing.T, path, text string) {
	t.Helper()
	put(t, path+".new", text)
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

func TestFileIsFollowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "web.json")
		w := watchFile(t, path, nil)
		w.after(10 * time.Second)
		if s := w.of.Status(); s.Seen || s.State != Unknown || s.Source != "file" || s.ErrorsTotal < 5 {
			t.Errorf("without a file: %+v", s)
		}
		put(t, path, listing("a", "b"))
		w.after(2 * time.Second)
		put(t, path, listing("a", "c")) // in place, and of the same size
		w.after(2 * time.Second)
		swap(t, path, listing("a", "b", "c"))
		w.after(2 * time.Second)
		w.wantSets("a b", "a c", "a b c")
		s := w.of.Status()
		if !s.Current || s.State != Current || s.Index != 3 || s.Age > time.Second || s.UpdatesTotal != 3 {
			t.Errorf("%+v", s)
		}
		if err := w.stop(); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
}

// Whatever happens to the file, what was known stays.
func TestFileThatIsNone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "web.json")
		whole := listing("a", "b")
		put(t, path, whole)
		w := watchFile(t, path, nil)
		w.after(2 * time.Second)
		for what, spoil := range map[string]func() error{
			"removed":   func() error { return nil },
			"half":      func() error { return os.WriteFile(path, []byte(whole[:len(whole)/2]), 0o600) },
			"empty":     func() error { return os.WriteFile(path, nil, 0o600) },
			"no list":   func() error { return os.WriteFile(path, []byte("{}"), 0o600) },
			"directory": func() error { return os.Mkdir(path, 0o700) },
			"pipe":      func() error { return syscall.Mkfifo(path, 0o600) },
			"loop":      func() error { return os.Symlink(path, path) },
			"device":    func() error { return os.Symlink("/dev/zero", path) },
		} {
			if err := errors.Join(os.RemoveAll(path), spoil()); err != nil {
				t.Fatal(err)
			}
			w.after(time.Minute)
			if s := w.of.Status(); s.State != Failing || s.Instances != 2 || !strings.Contains(s.LastError, path) || s.FailingFor < 50*time.Second {
				t.Errorf("%s: %+v", what, s)
			}
			if err := os.RemoveAll(path); err != nil {
				t.Fatal(err)
			}
			put(t, path, whole)
			w.after(2 * time.Second)
			if s := w.of.Status(); s.State != Current || s.FailingFor != 0 {
				t.Errorf("after %s: %+v", what, s)
			}
		}
		w.wantSets("a b")
		if n := w.logged("keeping the last good set"); n != 8 {
			t.Errorf("%d lines:\n%s", n, w.log())
		}
		w.stop()
	})
}

// Each mistake is told once, with its place.
func TestFileMistakes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "web.json")
		put(t, path, listing("a"))
		w := watchFile(t, path, nil)
		w.after(2 * time.Second)
		for _, text := range []string{"{\n\"instance\":[]}", "{\n\"instances\":[\n{}]}"} {
			swap(t, path, text)
			w.after(time.Minute)
		}
		for _, want := range []string{path + `:2:1: \"instance\" is unknown`, path + ":3:1: the instance has no address"} {
			if n := w.logged(want); n != 1 {
				t.Errorf("%q is there %d times:\n%s", want, n, w.log())
			}
		}
		w.stop()
	})
}

// A ConfigMap in Kubernetes: the file is a link into a folder behind a link that
// is swapped.
func TestFileBehindLinks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		version := func(name string, ids ...string) {
			if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
				t.Fatal(err)
			}
			put(t, filepath.Join(dir, name, "web.json"), listing(ids...))
			tmp := filepath.Join(dir, "..data_tmp")
			if err := errors.Join(os.Symlink(name, tmp), os.Rename(tmp, filepath.Join(dir, "..data"))); err != nil {
				t.Fatal(err)
			}
		}
		version("..1", "a", "b")
		path := filepath.Join(dir, "web.json")
		if err := os.Symlink("..data/web.json", path); err != nil {
			t.Fatal(err)
		}
		w := watchFile(t, path, nil)
		w.after(2 * time.Second)
		version("..2", "a", "c")
		if err := os.RemoveAll(filepath.Join(dir, "..1")); err != nil {
			t.Fatal(err)
		}
		w.after(2 * time.Second)
		w.wantSets("a b", "a c")
		w.stop()
	})
}

// A file that suddenly lists nothing is judged as Consul would be.
func TestFileThatLosesAll(t *testing.T) {
	for _, alive := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "web.json")
			put(t, path, listing("a", "b", "c"))
			w := watchFile(t, path, func(string) bool { return alive })
			w.after(2 * time.Second)
			swap(t, path, listing())
			w.after(5 * time.Minute)
			s := w.of.Status()
			if alive {
				if s.State != Kept || s.Instances != 3 || s.Unlisted != 3 {
					t.Errorf("they live: %+v", s)
				}
				// What is written meanwhile shows soon, however long the doubt lasts.
				swap(t, path, listing("a", "b", "d"))
				w.after(3 * time.Second)
				if sets := w.applied(); idsOf(sets[len(sets)-1]) != "a b d" {
					t.Errorf("then %v", sets)
				}
			} else if s.State != Empty || s.Instances != 0 {
				t.Errorf("they are dead: %+v", s)
			}
			w.stop()
		})
	}
}

func idsOf(set []Instance) string {
	var out []string
	for _, i := range set {
		out = append(out, i.ID)
	}
	return strings.Join(out, " ")
}

// A look costs a stat, but for what changed just now; contents count, not times.
func TestFileIsReadWhenItChanges(t *testing.T) {
	path := filepath.Join(t.TempDir(), "web.json")
	old := time.Now().Add(-time.Hour).Truncate(time.Second)
	write := func(text string, at time.Time) {
		t.Helper()
		put(t, path, text)
		if err := os.Chtimes(path, at, at); err != nil {
			t.Fatal(err)
		}
	}
	r := &fileReader{path: path, service: "web"}
	look := func(wantIDs string, wantChanged bool, wantReads int) {
		t.Helper()
		r.reads = 0
		l := r.look(time.Now())
		if l.err != nil || idsOf(l.set) != wantIDs || l.changed != wantChanged || r.reads != wantReads {
			t.Errorf("%+v after %d reads; want %s, %v after %d", l, r.reads, wantIDs, wantChanged, wantReads)
		}
	}
	write(listing("a"), old)
	look("a", true, 1)
	look("a", false, 0)
	write(listing("b"), old.Add(time.Second))
	look("b", true, 1)
	look("b", false, 0)
	write(listing("b"), old.Add(2*time.Second)) // touched
	look("b", false, 1)
	look("b", false, 0)
	write(listing("c"), time.Now())
	look("c", true, 1)
	look("c", false, 1)             // it may change within the same tick
	write(listing("d"), time.Now()) // and does
	look("d", true, 1)
	// Another file of the same size and time takes its place.
	write(listing("e"), old)
	look("e", true, 1)
	if err := os.Rename(path, path+".old"); err != nil {
		t.Fatal(err)
	}
	if l := r.look(time.Now()); !errors.Is(l.err, os.ErrNotExist) {
		t.Errorf("%+v", l)
	}
	write(strings.Repeat(" ", 20<<20), old)
	for range 3 {
		if l := r.look(time.Now()); l.err == nil || !strings.Contains(l.err.Error(), path+":it has more than 16777216 bytes") {
			t.Errorf("%+v", l)
		}
	}
	write(listing("f"), old)
	look("f", true, 1)
	write(listing("g"), old.Add(time.Minute))
	look("g", true, 1)
}

// Who writes in place while it is read is not taken at half his word.
func TestFileWrittenInPlace(t *testing.T) {
	path := filepath.Join(t.TempDir(), "web.json")
	long, short := listing(strings.Fields(strings.Repeat("a b c d e f g h ", 1)+strings.Repeat("x", 200))...), listing("a")
	put(t, path, long)
	r := &fileReader{path: path, service: "web"}
	var wg sync.WaitGroup
	done := make(chan struct{})
	wg.Go(func() {
		for n := 0; ; n++ {
			select {
			case <-done:
				return
			default:
				_ = os.WriteFile(path, []byte([]string{long, short}[n%2]), 0o600)
			}
		}
	})
	for range 500 {
		l := r.look(time.Now())
		if n := len(l.set); l.err == nil && n != 1 && n != 9 {
			t.Fatalf("%d instances", n)
		}
	}
	close(done)
	wg.Wait()
}

func TestFileQuery(t *testing.T) {
	for want, q := range map[string]FileQuery{
		"no absolute path":  {"web", "web.json", time.Second},
		"path is":           {"web", "/a\x00b", time.Second},
		"1 to 253":          {"", "/a", time.Second},
		"poll is 10ms":      {"web", "/a", 10 * time.Millisecond},
		"allowed are 100ms": {"web", "/a", 0},
	} {
		if err := NewFile(q, DefaultConfig(), Env{}).Watch(t.Context(), nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v", q, err)
		}
	}
	if err := DefaultFileQuery("web", "/a").Validate(); err != nil {
		t.Error(err)
	}
}
