package discovery

import (
	"math/rand/v2"
	"slices"
	"strconv"
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

// TestNobodyLivingIsLostToALie plays random lies of the registry that end gradually:
// nothing is listed, or ACLs begin to hide most, or most is lost for less than
// shrink_confirm, over answers that are streamed or not, reads that fail, and one
// instance that comes and goes under a new ID each time. Nobody of before who lives
// may be out of use at any time, who died leaves within a minute, and in the end
// what is used is what is listed. A token that never saw everything obeys at once.
func TestNobodyLivingIsLostToALie(t *testing.T) {
	const empty, hides, loses, honest = 0, 1, 2, 3
	names, states := []string{"a", "b", "c", "d", "e", "f", "g", "h", "i", "j"}, map[State]int{}
	for seed := range uint64(48) {
		r, mode := rand.New(rand.NewPCG(seed, 66)), int(seed%4)
		synctest.Test(t, func(t *testing.T) {
			lie, lasts := time.Minute, time.Minute+time.Duration(r.IntN(1800))*time.Second
			left := 0
			switch mode {
			case hides:
				left = r.IntN(5)
			case loses:
				left, lasts = 1+r.IntN(4), time.Duration(10+r.IntN(40))*time.Second
			case honest:
				left = 1 + r.IntN(9)
			}
			order := slices.Clone(names[:9]) // j dies in the lie, but where that is short
			r.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
			if mode == loses {
				order = append(order, "j")
			}
			death := lie + 10*time.Second
			back, over := map[string]time.Duration{}, lie+lasts // when each is listed again
			for _, id := range order[min(left, len(order)):] {
				over += time.Duration(1+r.IntN(25)) * time.Second
				back[id] = over
			}
			start := time.Now()
			listed := func(at time.Duration) (list []string, hidden bool) {
				for _, id := range names {
					switch since, gone := back[id]; {
					case at < lie, !gone && slices.Contains(order, id), gone && at >= since && mode != honest:
						list = append(list, id)
					default:
						hidden = true
					}
				}
				looping := at < over && (mode != empty || at < lie || at > lie+lasts)
				if n := int(at / (17 * time.Second)); looping && at%(17*time.Second) < 10*time.Second {
					list = append(list, string(rune('k'+n%10))+"x"+strconv.Itoa(n))
				}
				return list, hidden && mode == hides || mode == honest
			}
			lives := func(i Instance) bool {
				id, at := strings.TrimPrefix(i.ID, "n/"), time.Since(start)
				list, _ := listed(at)
				return slices.Contains(list, id) || mode != honest && slices.Contains(order, id) || id == "j" && at < death
			}
			b := watchLiving(t, func(n int, a asked) answer {
				at := a.at.Sub(start)
				list, filtered := listed(at)
				ans := answer{index: 10 + uint64(at/time.Second), body: apart(list...), filtered: filtered}
				if a.blocks() {
					ans.after = time.Duration(200+r.IntN(8000)) * time.Millisecond
				}
				if !a.has("consistent") && n > 0 && r.IntN(2) == 0 {
					ans.streaming, ans.filtered = true, false
				}
				if n > 0 && r.IntN(12) == 0 {
					ans.err = syscall.ECONNRESET
				}
				return ans
			}, lives, func(_ *Query, c *Config) { c.BackoffMax = 5 * time.Second })
			at := time.Duration(0)
			check := func(want bool, id string) {
				if got := slices.Contains(strings.Fields(strings.ReplaceAll(b.last(), "?", "")), id); got != want {
					t.Fatalf("seed %d, at %s: %s in use: %v; used are %q\n%s", seed, at, id, got, b.last(), b.log())
				}
			}
			for b.after(500 * time.Millisecond); at < over+time.Minute; b.after(500 * time.Millisecond) {
				at = time.Since(start)
				states[b.src.Status().State]++
				if mode == honest {
					continue
				}
				for _, id := range order {
					check(true, id)
				}
				if mode != loses && at > death+time.Minute {
					check(false, "j")
				}
			}
			b.after(3 * time.Minute)
			list, _ := listed(time.Since(start))
			if s := b.src.Status(); b.last() != strings.Join(list, " ") || s.State != Current && s.State != Failing {
				t.Fatalf("seed %d: in the end %q is used, listed are %q, state %s\n%s", seed, b.last(), list, s.State, b.log())
			}
			b.stop()
		})
	}
	if states[Kept] < 1000 || states[Current] < 1000 {
		t.Errorf("states %v: the test shows little", states)
	}
}
