package discovery

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestFirstEmptyAnswerIsToldWithAHint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := watch(t, script(answer{index: 10, after: 500 * time.Millisecond}))
		b.after(0)
		b.wantStatus(Unknown, "", 0, 0)
		b.after(time.Second)
		b.wantStatus(Empty, "", 0, 0)
		if b.logged("[WARN]") != 1 || b.logged("token") != 1 {
			t.Errorf("log:\n%s", b.log())
		}
		b.stop()
	})
}

func TestStateBeforeAnythingIsKnown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := watch(t, func(int, asked) answer { return answer{err: errors.New("refused")} })
		b.after(time.Minute)
		b.wantStatus(Unknown, "", 0, 0)
		if s := b.src.Status(); s.Seen || s.StateFor != time.Minute || s.FailingFor != time.Minute || s.Source != "consul" {
			t.Errorf("status %+v", s)
		}
		b.stop()
	})
}

// seeded is a bench whose source was seeded with a and b an hour after they were
// believed, before the first read.
func seeded(t *testing.T, lives func(Instance) bool, reply func(int, asked) answer) *bench {
	b := watchLiving(t, func(n int, a asked) answer {
		if n == 0 {
			return answer{err: errors.New("refused"), after: time.Second}
		}
		return reply(n-1, a)
	}, lives)
	synctest.Wait()
	set := []Instance{{ID: "n/b", Service: "web", Node: "n", Datacenter: "dc1", Address: "10.0.0.1", Port: 8001 + int('b'), Weight: 1, Health: Passing}}
	first := set[0]
	first.ID, first.Port = "n/a", first.Port-1
	if !b.src.keep.seed(append(set, first), time.Now().Add(-time.Hour)) {
		t.Error("the seed was not taken")
	}
	return b
}

func TestSeed(t *testing.T) {
	for name, c := range map[string]struct {
		lives func(Instance) bool
		rest  answer
		state State
		doubt string
		used  []string
	}{
		"the same":         {allLive, answer{index: 5, body: apart("a", "b")}, Current, "", []string{"a b"}},
		"another":          {allLive, answer{index: 5, body: apart("b", "c")}, Current, "", []string{"a b", "b c"}},
		"empty, they live": {allLive, answer{index: 5}, Kept, doubtAlive, []string{"a b", "a? b?"}},
		"empty, they died": {onlyLive(), answer{index: 5}, Empty, "", []string{"a b", ""}},
		"filtered":         {allLive, answer{index: 5, filtered: true}, Kept, doubtFiltered, []string{"a b", "a? b?"}},
		"filtered, dead":   {onlyLive(), answer{index: 5, filtered: true}, Empty, "", []string{"a b", ""}},
		"down":             {allLive, answer{err: errors.New("refused")}, Snapshot, "", []string{"a b"}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := seeded(t, c.lives, func(_ int, a asked) answer {
					if a.blocks() {
						return answer{hang: true}
					}
					return c.rest
				})
				s := b.src.Status()
				if s.State != Snapshot || !s.Seen || s.Current || s.SnapshotAge != time.Hour || s.Age != time.Hour {
					t.Errorf("status %+v", s)
				}
				if set, _, at := b.src.keep.believed(); ids(set) != "a b" || time.Since(at) != time.Hour {
					t.Errorf("believed %q at %s", ids(set), at)
				}
				b.after(40 * time.Second)
				b.wantUsed(c.used...)
				last := b.applied()[len(b.applied())-1]
				b.wantStatus(c.state, c.doubt, len(last), strings.Count(ids(last), "?"))
				if s := b.src.Status(); c.state == Snapshot && s.SnapshotAge != time.Hour+40*time.Second || c.state != Snapshot && s.SnapshotAge != 0 {
					t.Errorf("snapshot age %s", s.SnapshotAge)
				}
				if b.src.keep.seed(nil, time.Now()) {
					t.Error("a second seed was taken")
				}
				b.stop()
			})
		})
	}
}
