package discovery

import (
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// TestNoSetIsEmptiedOverTheLiving plays random histories of Consul and of the
// endpoints' lives. An empty set may be applied only when nothing of the set
// before has answered for empty_confirm; and where all live, no set of the first
// minute may be smaller than half of the first.
func TestNoSetIsEmptiedOverTheLiving(t *testing.T) {
	names := []string{"a", "b", "c", "d", "e", "f", "g", "h", "i", "j"}
	emptied, kept := 0, 0
	for seed := range uint64(60) {
		r := rand.New(rand.NewPCG(seed, 6))
		immortal := seed%2 == 0
		synctest.Test(t, func(t *testing.T) {
			type death struct{ from, until time.Time } // the last one of an ID; until zero: it lasts
			deaths := make(map[string]death)
			var mu sync.Mutex // of deaths
			deadFor := func(id string) time.Duration {
				mu.Lock()
				defer mu.Unlock()
				// Looks are 100 ms apart: one that just came to life again was dead
				// when the set was applied.
				if d, ok := deaths[id]; ok && (d.until.IsZero() || time.Since(d.until) <= 100*time.Millisecond) {
					return time.Since(d.from)
				}
				return 0
			}
			alive := func(id string) bool { d, ok := deaths["n/"+id]; return !ok || !d.until.IsZero() }
			lives := func(i Instance) bool {
				mu.Lock()
				defer mu.Unlock()
				return alive(strings.TrimPrefix(i.ID, "n/"))
			}
			index := uint64(10)
			b := watchLiving(t, func(n int, a asked) answer {
				if n == 0 {
					return answer{index: 10, body: apart(names...)}
				}
				mu.Lock()
				for _, id := range names {
					switch x := r.IntN(12); {
					case immortal:
					case x == 0 && !alive(id) && r.IntN(4) == 0:
						deaths["n/"+id] = death{deaths["n/"+id].from, time.Now()}
					case x > 0 && x < 4 && alive(id):
						deaths["n/"+id] = death{from: time.Now()}
					}
				}
				mu.Unlock()
				index = uint64(int(index) + r.IntN(8) - 2)
				ans := answer{index: index, after: time.Duration(r.IntN(6000)) * time.Millisecond}
				switch r.IntN(12) {
				case 0:
					ans.err = syscall.ECONNRESET
				case 1:
					ans.leaderless = true
				case 2:
					ans.filtered = true
				case 3:
					ans.stale = time.Minute
				case 4:
					ans.streaming = true
				}
				if seed%3 != 0 && r.IntN(3) > 0 {
					return ans // nothing
				}
				some := slices.Clone(names)
				r.Shuffle(len(some), func(i, j int) { some[i], some[j] = some[j], some[i] })
				ans.body = apart(some[:r.IntN(len(some)+1)]...)
				return ans
			}, lives)
			checked := 0
			for b.after(100 * time.Millisecond); time.Since(b.start) < 5*time.Minute; b.after(100 * time.Millisecond) {
				sets := b.applied()
				for ; checked < len(sets); checked++ {
					set := sets[checked]
					if n := strings.Count(ids(set), "?"); n > 0 {
						kept++
					}
					if immortal && time.Since(b.start) < time.Minute && len(set) < len(names)/2 {
						t.Fatalf("seed %d: %q of %d that all live\n%s", seed, ids(set), len(names), b.log())
					}
					if len(set) > 0 || len(sets[checked-1]) == 0 {
						continue
					}
					emptied++
					for _, i := range sets[checked-1] {
						if d := deadFor(i.ID); d < DefaultConfig().EmptyConfirm {
							t.Fatalf("seed %d: emptied although %s has been dead for %s only\n%s", seed, i.ID, d, b.log())
						}
					}
				}
			}
			b.stop()
		})
	}
	t.Logf("%d sets emptied, %d kept", emptied, kept)
	if emptied < 10 || kept < 100 {
		t.Errorf("%d sets emptied and %d kept: the test shows little", emptied, kept)
	}
}
