package discovery

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

var ten = []string{"a", "b", "c", "d", "e", "f", "g", "h", "i", "j"}

// last is what is in use.
func (b *bench) last() string {
	b.t.Helper()
	sets := b.applied()
	if len(sets) == 0 {
		return "nothing yet"
	}
	return ids(sets[len(sets)-1])
}

// TestFilteredAndStreamed: a token that never saw everything is no token that lost
// rights, though streamed answers, which never say so, come in between.
func TestFilteredAndStreamed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		b := watchLiving(t, func(n int, a asked) answer {
			at := time.Since(start)
			switch {
			case n == 0:
				return answer{index: 10, body: apart("a", "b", "c", "d"), filtered: true}
			case n == 1:
				return answer{index: 11, body: apart("a:warning", "b", "c", "d"), streaming: true, after: time.Second}
			case a.query.Get("index") == "13":
				return answer{hang: true}
			case a.blocks() && at < 3*time.Second:
				return answer{index: 12, body: apart("a:warning"), streaming: true, after: 3 * time.Second}
			case a.blocks():
				return answer{index: 13, body: apart("a:warning", "e"), streaming: true, after: time.Minute}
			}
			return answer{index: 12, body: apart("a:warning"), filtered: true}
		}, onlyLive("a", "e"))
		b.after(20 * time.Second)
		b.wantStatus(Current, "", 1, 0)
		b.after(2 * time.Minute)
		b.wantStatus(Current, "", 2, 0)
		if !b.src.keep.filtered || b.logged("ACLs hide") != 0 {
			t.Errorf("taken for a token that lost rights:\n%s", b.log())
		}
		b.stop()
	})
}

// TestFilteredDeploysGoOn: a token's rights are cut; what is hidden is kept while
// it answers, dies unmourned, and newcomers are used.
func TestFilteredDeploysGoOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		b := watchLiving(t, told(apart("a", "b", "c", "d"), func(d time.Duration) answer {
			if d < time.Hour {
				return answer{index: 20, body: apart("d", "e"), filtered: true}
			}
			return answer{index: 21, body: apart("e", "f", "g"), filtered: true}
		}), func(i Instance) bool {
			return map[string]bool{"n/b": true, "n/c": true}[i.ID] && time.Since(start) < 2*time.Hour
		})
		b.after(30 * time.Minute) // much longer than shrink_confirm: who hides may not be obeyed
		b.wantStatus(Kept, doubtFiltered, 4, 2)
		b.after(time.Hour)
		b.wantStatus(Kept, doubtFiltered, 5, 2)
		if got := b.last(); got != "b? c? e f g" {
			t.Errorf("used are %q", got)
		}
		if n := len(b.fake.asked()); n > 90*60/10 {
			t.Errorf("%d reads in 90 minutes of doubt", n)
		}
		b.after(time.Hour)
		b.wantStatus(Current, "", 3, 0)
		b.wantUsed("a b c d", "a? b? c? d e", "b? c? d e", "b? c? d? e f g", "b? c? e f g", "e f g")
		b.stop()
	})
}

// TestFilteredAndScaledToZero: nobody answers, so that what is hidden does not matter.
func TestFilteredAndScaledToZero(t *testing.T) {
	for _, before := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			first := answer{index: 10, body: apart("a", "b"), filtered: before}
			b := watchLiving(t, func(n int, a asked) answer {
				if n == 0 {
					return first
				}
				if a.query.Get("index") == "20" {
					return answer{hang: true}
				}
				return answer{index: 20, filtered: true}
			}, onlyLive())
			b.after(8 * time.Second)
			b.wantStatus(Doubted, doubtFiltered, 2, 0)
			b.after(10 * time.Second)
			b.wantUsed("a b", "")
			b.wantStatus(Empty, "", 0, 0)
			b.stop()
		})
	}
}

// TestLossIsRepeatedThoughOthersChange: 7 of 10 are deregistered and run on; one of
// those left has a new ID every 30 s. The 7 are obeyed after shrink_confirm.
func TestLossIsRepeatedThoughOthersChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		b := watchLiving(t, func(n int, a asked) answer {
			at := time.Since(start)
			if n == 0 {
				return answer{index: 10, body: apart(ten...)}
			}
			g := int(at / (15 * time.Second)) // it is there for 15 s and away for 15 s
			list := []string{"a", "b"}
			if g%2 == 0 {
				list = append(list, fmt.Sprintf("%cnew", 'A'+g/2%20))
			}
			ans := answer{index: uint64(20 + g), body: apart(list...)}
			if a.query.Get("index") == fmt.Sprint(ans.index) {
				return answer{index: ans.index, body: ans.body, after: time.Duration(g+1)*15*time.Second - at}
			}
			return ans
		}, func(i Instance) bool { return !strings.HasSuffix(i.ID, "new") })
		b.after(55 * time.Second)
		if s := b.src.Status(); s.State != Kept || s.Unlisted < 7 {
			t.Errorf("status %+v", s)
		}
		b.after(20 * time.Second)
		if s := b.src.Status(); s.Unlisted != 0 || s.Instances > 3 {
			t.Errorf("status %+v\n%s", s, b.log())
		}
		b.stop()
	})
}

// TestLossIsRepeatedThoughReadsFail: one read in 20 s fails. What is not read is not
// counted, but what was read is.
func TestLossIsRepeatedThoughReadsFail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start, failed := time.Now(), time.Duration(0)
		b := watchLiving(t, func(n int, a asked) answer {
			at := time.Since(start)
			switch {
			case n == 0:
				return answer{index: 10, body: apart("a", "b", "c", "d", "e")}
			case at-failed > 20*time.Second:
				failed = at
				return answer{err: errors.New("reset")}
			case a.query.Get("index") == "11":
				return answer{hang: true}
			}
			return answer{index: 11, body: apart("a")}
		}, allLive)
		b.after(59 * time.Second)
		b.wantStatus(Kept, doubtShrunkAlive, 5, 4)
		b.after(30 * time.Second)
		b.wantUsed("a b c d e", "a b? c? d? e?", "a")
		b.stop()
	})
}

// TestFurtherLossHasItsOwnTime: who is lost later is not obeyed with those before.
func TestFurtherLossHasItsOwnTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := watchLiving(t, told(apart(ten...), func(d time.Duration) answer {
			if d < 40*time.Second {
				return answer{index: 20, body: apart(ten[:4]...)}
			}
			return answer{index: 21, body: apart(ten[:1]...)}
		}), allLive)
		b.after(50 * time.Second)
		b.wantStatus(Kept, doubtShrunkAlive, 10, 9)
		b.after(20 * time.Second) // 70 s: the 6 are gone for more than a minute, the 3 for 30 s
		b.wantStatus(Kept, doubtShrunkAlive, 4, 3)
		b.after(40 * time.Second)
		b.wantStatus(Current, "", 1, 0)
		if b.logged("(shrink_confirm): dropped") != 6 || b.logged("it was repeated for 1m0s") != 1 {
			t.Errorf("log:\n%s", b.log())
		}
		b.stop()
	})
}

// TestRecoveryIsGradual: nothing was listed for an hour, then one after the other
// registers again, as itself or under a new name at a new address. Nobody who lives
// is dropped on the way.
func TestRecoveryIsGradual(t *testing.T) {
	for _, suffix := range []string{"", "new"} {
		synctest.Test(t, func(t *testing.T) {
			b := watchLiving(t, told(apart(ten...), func(d time.Duration) answer {
				n := 0
				if d > time.Hour {
					n = min(10, 1+int((d-time.Hour)/(20*time.Second)))
				}
				var list []string
				for _, id := range ten[:n] {
					list = append(list, id+suffix)
				}
				body := apart(list...)
				if suffix != "" {
					body = strings.ReplaceAll(body, "10.0.0.1", "10.0.0.2")
				}
				return answer{index: uint64(11 + n), body: body}
			}), allLive)
			b.after(time.Hour)
			b.wantStatus(Kept, doubtAlive, 10, 10)
			for range 20 {
				b.after(10 * time.Second)
				if s := b.src.Status(); s.Instances < 10 {
					t.Fatalf("%d of 10 in use, state %s\n%s", s.Instances, s.State, b.log())
				}
			}
			b.after(2 * time.Minute)
			b.wantStatus(Current, "", 10, 0)
			b.stop()
		})
	}
}

// TestOldCache: what an agent without servers answers from its cache is used and
// counts as what it is, with one line, until it is fresh again.
func TestOldCache(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		const old = 48 * time.Hour
		b := watch(t, func(n int, a asked) answer {
			at := time.Since(start)
			if at < 10*time.Minute {
				ans := answer{index: uint64(10 + n), body: apart("a", "b"), age: old + at}
				if n > 0 {
					ans.after = time.Minute
				}
				return ans
			}
			if a.query.Get("index") == "50" {
				return answer{hang: true}
			}
			return answer{index: 50, body: apart("a", "b")}
		}, func(_ *Query, c *Config) { c.Cached = true })
		b.after(5*time.Minute + time.Second)
		b.wantStatus(Doubted, doubtLagging, 2, 0)
		if s := b.src.Status(); s.Age < old || s.Age > old+6*time.Minute || s.StateFor < 5*time.Minute || s.DoubtsTotal[doubtLagging] != 1 {
			t.Errorf("status %+v", s)
		}
		if _, _, at := b.src.keep.believed(); time.Since(at) < old {
			t.Errorf("believed %s ago", time.Since(at))
		}
		if b.logged("[WARN]") != 1 || b.logged("its answers are old") != 1 {
			t.Errorf("log:\n%s", b.log())
		}
		b.after(6 * time.Minute)
		b.wantStatus(Current, "", 2, 0)
		b.wantUsed("a b")
		if s := b.src.Status(); s.Age > 2*time.Minute || b.logged("[WARN]") != 1 {
			t.Errorf("status %+v\n%s", s, b.log())
		}
		b.stop()
	})
}

// TestCacheDuringAnOutage: an agent without servers fails reads that block and
// answers others from its cache (Consul 1.20): that is one outage and not many.
func TestCacheDuringAnOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		b := watch(t, func(n int, a asked) answer {
			at := time.Since(start)
			gone := at > time.Minute && at < 10*time.Minute
			switch {
			case a.query.Get("index") == "10" && !gone && at < time.Minute:
				return answer{code: 500, body: "No cluster leader", after: time.Minute + time.Second - at}
			case gone && (a.blocks() || !a.has("cached")):
				return answer{code: 500, body: "No cluster leader", after: time.Second}
			case gone:
				return answer{index: 10, body: apart("a", "b"), age: at - time.Minute}
			case a.blocks():
				return answer{hang: true}
			}
			return answer{index: 10, body: apart("a", "b")}
		}, func(_ *Query, c *Config) { c.Cached = true })
		b.after(9 * time.Minute)
		b.wantStatus(Failing, "", 2, 0)
		if s := b.src.Status(); s.FailingFor < 7*time.Minute || s.StateFor < 7*time.Minute || b.logged("[WARN]") != 1 || b.logged("answers again") != 0 {
			t.Errorf("status %+v\n%s", s, b.log())
		}
		b.after(2 * time.Minute)
		b.wantStatus(Current, "", 2, 0)
		if asked := b.fake.asked(); !asked[len(asked)-1].has("cached") || !asked[len(asked)-1].blocks() || b.logged("answers again") != 1 {
			t.Errorf("at last it asks %v\n%s", asked[len(asked)-1].query, b.log())
		}
		b.stop()
	})
}
