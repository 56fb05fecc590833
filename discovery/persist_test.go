package discovery

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"outrigger/discovery/statefile"
)

// run is one life of a sidecar whose Consul answers like this, with its snapshots
// in dir.
func run(t *testing.T, dir string, reply func(int, asked) answer, lives func(string) bool) *watched {
	t.Helper()
	w := &watched{}
	w.fake = &fakeConsul{reply: reply}
	env := w.env(lives)
	c := NewConsul(w.fake.client(t), Query{Service: "web"}, DefaultConfig(), env)
	c.Persist(NewStore(dir, env), "web")
	w.watch(t, c)
	return w
}

// lived leaves a snapshot of these behind.
func lived(t *testing.T, ids ...string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	w := run(t, dir, script(answer{index: 10, body: entries(ids...)}), nil)
	w.after(time.Second)
	w.stop()
	if s := w.of.Status(); s.Disk.Writes != 1 || s.Disk.WriteErrors+s.Disk.ReadErrors != 0 {
		t.Fatalf("%+v", s)
	}
	return dir
}

func anyone(string) bool { return true }

func TestStartWithoutConsul(t *testing.T) {
	for what, down := range map[string]answer{
		"refused": {err: errors.New("connection refused")},
		"hangs":   {hang: true},
		"errors":  {code: 500, body: "No cluster leader"},
	} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				dir := lived(t, "a", "b", "c")
				time.Sleep(time.Hour)
				start := time.Now()
				w := run(t, dir, func(_ int, a asked) answer {
					switch {
					case a.at.Sub(start) < 5*time.Minute:
						return down
					case a.blocks():
						return answer{hang: true}
					}
					return answer{index: 3, body: entries("a", "b", "d")} // a new cluster counts anew
				}, anyone)
				if down.hang {
					w.after(990 * time.Millisecond)
					w.wantSets()
				}
				w.after(20 * time.Millisecond)
				w.wantSets("a b c")
				w.after(time.Minute)
				s := w.of.Status()
				if !s.Seen || s.Current || s.State != Snapshot || s.Instances != 3 || s.SnapshotAge < time.Hour || s.SnapshotAge > time.Hour+2*time.Minute {
					t.Errorf("%+v", s)
				}
				w.after(5 * time.Minute)
				if s := w.of.Status(); !s.Current || s.State != Current || s.SnapshotAge != 0 || s.Index != 3 {
					t.Errorf("%+v\n%s", s, w.log())
				}
				w.wantSets("a b c", "a b d")
				w.stop()
				// What was believed is on disk again.
				again := run(t, dir, constantly(down), anyone)
				again.after(2 * time.Second)
				again.wantSets("a b d")
				again.stop()
			})
		})
	}
}

// An ordinary start sends nobody to an address of the past.
func TestOrdinaryStartIgnoresSnapshot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := lived(t, "a", "b", "c")
		w := run(t, dir, script(answer{index: 20, body: entries("b", "c", "d"), after: 900 * time.Millisecond}), anyone)
		w.after(time.Minute)
		w.wantSets("b c d")
		if n := w.logged("[WARN]"); n != 0 {
			t.Errorf("%d warnings:\n%s", n, w.log())
		}
		w.stop()
	})
}

// Who starts while Consul lies does not believe it.
func TestStartWhileConsulLies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := lived(t, "a", "b", "c")
		w := run(t, dir, constantly(answer{index: 20}), anyone)
		w.after(5 * time.Minute)
		s := w.of.Status()
		if s.State != Kept || s.Instances != 3 || s.Unlisted != 3 {
			t.Errorf("%+v", s)
		}
		for _, set := range w.applied() {
			if len(set) != 3 {
				t.Errorf("applied %s", ids(set))
			}
		}
		w.stop()
		// What was kept is not what was believed, and neither is the lie.
		payload, _, err := statefile.Read(filepath.Join(dir, "discovery"), "web.snapshot", maxSnapshot)
		if err != nil || strings.Count(string(payload), `"id"`) != 3 || strings.Contains(strings.ToLower(string(payload)), "unlisted") {
			t.Errorf("%s, %v", payload, err)
		}
	})
	// Where nobody answers it was the truth.
	synctest.Test(t, func(t *testing.T) {
		dir := lived(t, "a", "b", "c")
		w := run(t, dir, func(_ int, a asked) answer {
			if a.blocks() {
				return answer{hang: true}
			}
			return answer{index: 20}
		}, nil)
		w.after(time.Minute)
		if s := w.of.Status(); s.State != Empty || s.Instances != 0 {
			t.Errorf("%+v\n%s", s, w.log())
		}
		w.stop()
	})
}

// An ordinary start after a scale-down sends nobody to the old addresses: what is
// listed is used at once, and of the others those that answer a probe, in the time
// that it takes to ask them.
func TestStartAfterScaleDown(t *testing.T) {
	for what, c := range map[string]struct {
		listed []string
		lives  func(string) bool
		used   []string
		then   State
	}{
		"all gone":         {[]string{"a", "z"}, func(id string) bool { return id == "n/a" || id == "n/z" }, []string{"a z"}, Current},
		"two answer":       {[]string{"a", "z"}, func(id string) bool { return id == "n/b" || id == "n/c" }, []string{"a z", "a b? c? z", "a z"}, Current},
		"to zero":          {nil, nil, []string{""}, Empty},
		"a lie, two of it": {nil, func(id string) bool { return id == "n/b" || id == "n/c" }, []string{"b? c?"}, Kept},
	} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				dir := t.TempDir()
				before := run(t, dir, script(answer{index: 10, body: apart("a", "b", "c", "d", "e", "f")}), nil)
				before.after(time.Second)
				before.stop()
				time.Sleep(60 * time.Hour)
				w := run(t, dir, func(_ int, a asked) answer {
					if a.blocks() {
						return answer{hang: true}
					}
					return answer{index: 100, body: apart(c.listed...)}
				}, func(id string) bool {
					time.Sleep(300 * time.Millisecond)
					return c.lives != nil && c.lives(id)
				})
				w.after(time.Millisecond)
				if len(c.listed) > 0 {
					w.wantUsed(c.used[0])
				} else {
					w.wantUsed()
				}
				w.after(time.Second)
				if len(c.listed) > 0 && len(c.used) > 1 {
					w.wantUsed(c.used[:2]...)
				} else {
					w.wantUsed(c.used[0])
				}
				if s := w.of.Status(); !s.Seen || s.Age != 0 {
					t.Errorf("status %+v", s)
				}
				if w.logged("snapshot of an earlier run") != 0 || w.logged("asking those that are missing") != 1 {
					t.Errorf("log:\n%s", w.log())
				}
				w.after(3 * time.Minute)
				w.wantUsed(c.used...)
				if s := w.of.Status(); s.State != c.then {
					t.Errorf("status %+v\n%s", s, w.log())
				}
				w.stop()
			})
		})
	}
}

// A token that never sees everything is no token that lost its rights.
func TestSnapshotWithFilteredAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := lived(t, "a", "b", "c")
		w := run(t, dir, script(answer{err: errors.New("refused")}, answer{index: 20, body: entries("a", "b"), filtered: true}), anyone)
		w.after(time.Minute)
		w.wantSets("a b c", "a b")
		w.stop()
	})
}

// The set of an earlier Watch is newer than the disk's.
func TestSnapshotAndSecondWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := lived(t, "a")
		w := run(t, dir, script(answer{index: 20, body: entries("b")}, answer{err: errors.New("refused")}, answer{hang: true}), anyone)
		w.after(time.Second)
		w.stop()
		second := &watched{}
		second.watch(t, w.of)
		second.after(10 * time.Second)
		second.wantSets("b")
		if s := w.of.Status(); s.State != Failing && s.State != Current {
			t.Errorf("%+v", s)
		}
		second.stop()
	})
}

// A damaged snapshot leaves the service unknown, and is mended by what is believed.
func TestStartWithBadSnapshot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := lived(t, "a")
		path := filepath.Join(dir, "discovery", "web.snapshot")
		if err := os.Truncate(path, 150); err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		w := run(t, dir, func(_ int, a asked) answer {
			if a.at.Sub(start) < time.Minute {
				return answer{err: errors.New("refused")}
			}
			if a.blocks() {
				return answer{hang: true}
			}
			return answer{index: 20, body: entries("b")}
		}, anyone)
		w.after(30 * time.Second)
		if s := w.of.Status(); s.Seen || s.State != Unknown || s.Disk.ReadErrors != 1 || w.logged("damaged") != 1 {
			t.Errorf("%+v\n%s", s, w.log())
		}
		w.after(time.Minute)
		w.wantSets("b")
		w.stop()
		if s := w.of.Status(); s.Disk.Writes != 1 {
			t.Errorf("%+v", s.Disk)
		}
	})
}

// A prepared query's snapshot is its own.
func TestPreparedStartsFromSnapshot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		prepared := func(reply func(int, asked) answer, name string) *watched {
			w := &watched{}
			w.fake = &fakeConsul{reply: reply}
			p := NewPrepared(w.fake.client(t), DefaultPreparedQuery("web", name), DefaultConfig(), w.env(anyone))
			p.Persist(NewStore(dir, w.env(anyone)), "web")
			w.watch(t, p)
			return w
		}
		w := prepared(constantly(answer{index: 1, body: found("dc1", 0, "a")}), "geo")
		w.after(time.Second)
		w.stop()
		down := constantly(answer{err: errors.New("refused")})
		w = prepared(down, "geo")
		w.after(time.Second)
		w.wantSets("@dc1/n/a")
		w.stop()
		w = prepared(down, "other")
		w.after(time.Second)
		w.wantSets()
		w.stop()
	})
}

func TestNoStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &watched{}
		w.fake = &fakeConsul{reply: script(answer{index: 10, body: entries("a")})}
		c := NewConsul(w.fake.client(t), Query{Service: "web"}, DefaultConfig(), w.env(nil))
		c.Persist(NewStore("", Env{}), "web")
		w.watch(t, c)
		w.after(time.Minute)
		if s := w.of.Status(); s.State != Current || s.Disk != (DiskStatus{}) {
			t.Errorf("%+v", s)
		}
		w.stop()
	})
}

// A file that is missing at the start is a registry that is not there.
func TestFileStartsFromSnapshot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir, path := t.TempDir(), filepath.Join(t.TempDir(), "web.json")
		life := func(path string) *watched {
			w := &watched{}
			f := NewFile(DefaultFileQuery("web", path), DefaultConfig(), w.env(anyone))
			f.Persist(NewStore(dir, w.env(anyone)), "web")
			w.watch(t, f)
			return w
		}
		put(t, path, listing("a", "b"))
		w := life(path)
		w.after(2 * time.Second)
		w.wantSets("a b")
		w.stop()
		if s := w.of.Status(); s.Disk.Writes != 1 {
			t.Errorf("%+v", s.Disk)
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		w = life(path)
		w.after(time.Minute)
		w.wantSets("a b")
		if s := w.of.Status(); s.State != Snapshot || !s.Seen {
			t.Errorf("%+v", s)
		}
		put(t, path, listing("a", "c"))
		w.after(time.Minute)
		w.wantSets("a b", "a c")
		w.stop()
		w = life(path + ".other")
		w.after(time.Minute)
		w.wantSets()
		w.stop()
	})
}

// Who lives is used before a consistent read is answered, which may take long.
func TestStartAsksAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := lived(t, "a", "b", "c")
		w := run(t, dir, func(n int, a asked) answer {
			if n > 0 {
				return answer{hang: true}
			}
			return answer{index: 20}
		}, anyone)
		w.after(500 * time.Millisecond)
		w.wantUsed("a? b? c?")
		w.stop()
	})
}
