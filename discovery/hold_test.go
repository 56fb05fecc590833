package discovery

import (
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// then answers the first n reads by the script, and further ones by
// rest.
func then(rest func(n int, a asked) answer, first ...answer) func(int, asked) answer {
	return func(n int, a asked) answer {
		if n < len(first) {
			return first[n]
		}
		return rest(n-len(first), a)
	}
}

func TestEmptyBeforeAnythingIsApplied(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := watch(t, script(
			answer{index: 10},
			answer{index: 11, body: entries("a"), after: time.Minute},
		))
		b.after(time.Second)
		if s := b.src.Status(); !s.Seen || !s.Current || s.Instances != 0 || s.UpdatesTotal != 1 {
			t.Errorf("status %+v", s)
		}
		b.after(2 * time.Minute)
		b.wantSets("", "a")
		b.stop()
	})
}

func TestEmptyIsConfirmed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := watch(t, then(func(_ int, a asked) answer {
			switch {
			case a.query.Get("index") == "10":
				return answer{index: 20}
			case a.blocks():
				return answer{hang: true}
			}
			return answer{index: 20}
		}, answer{index: 10, body: entries("a")}))
		b.after(10*time.Second + 999*time.Millisecond)
		b.wantSets("a")
		s := b.src.Status()
		if s.Holding != reasonEmpty || s.Current || !s.Seen || s.Instances != 1 || s.HoldingFor < 10*time.Second {
			t.Errorf("status %+v", s)
		}
		b.after(2 * time.Second)
		b.wantSets("a", "")
		reads := b.fake.asked()[2 : len(b.fake.asked())-1]
		if len(reads) < 3 {
			t.Errorf("%d confirming reads", len(reads))
		}
		for i, a := range reads {
			if !a.has("consistent") || a.has("stale") || a.blocks() {
				t.Errorf("confirming read %d is %v", i, a.query)
			}
			if i > 0 && a.at.Sub(reads[i-1].at) < minEmptySpacing {
				t.Errorf("confirming reads %s apart", a.at.Sub(reads[i-1].at))
			}
		}
		if span := reads[len(reads)-1].at.Sub(reads[0].at); span < DefaultConfig().EmptyConfirm {
			t.Errorf("confirmed within %s", span)
		}
		if n := b.logged("not believing"); n != 1 {
			t.Errorf("%d lines:\n%s", n, b.log())
		}
		if s := b.src.Status(); s.Holding != "" || s.HoldingFor != 0 || !s.Current || s.Instances != 0 {
			t.Errorf("status %+v", s)
		}
		if last := b.fake.asked()[len(b.fake.asked())-1]; last.query.Get("index") != "20" || !last.has("stale") {
			t.Errorf("after confirming it asks %v", last.query)
		}
		b.stop()
	})
}

func TestEmptyNeedsTwoConsistentReads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := watch(t, then(func(int, asked) answer { return answer{index: 20} }, answer{index: 10, body: entries("a")}),
			func(_ *Query, c *Config) { c.EmptyConfirm = time.Second })
		// Reads: 0 s full, 0 s empty but stale, 1 s and on empty and consistent. That
		// "a" is dead takes two probes, 2 s apart.
		b.after(2900 * time.Millisecond)
		b.wantSets("a")
		b.after(2 * time.Second)
		b.wantSets("a", "")
		b.stop()
	})
}

func TestOlderAnswerAfterErrorIsVerified(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := watch(t, script(
			answer{index: 100, body: entries("a", "b")},
			answer{err: errors.New("EOF")},
			answer{index: 40, body: entries("a")}, // from a server that lags
			answer{index: 100, body: entries("a", "b")},
		))
		b.after(time.Minute)
		b.wantSets("a b")
		b.wantAsked("0s", "100s", "0s", "0c", "100s")
		b.stop()
	})
}

func TestEmptyThatEndsIsForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		// Empty for 8 s, back for one read, empty again: the clock starts anew.
		start := time.Now()
		b := watch(t, then(func(_ int, a asked) answer {
			switch d := a.at.Sub(start); {
			case d < 8*time.Second:
				return answer{index: 20}
			case d < 10*time.Second:
				return answer{index: 21, body: entries("a")}
			}
			return answer{index: 22}
		}, answer{index: 10, body: entries("a")}))
		b.after(17 * time.Second)
		b.wantSets("a")
		b.after(8 * time.Second)
		b.wantSets("a", "")
		b.stop()
	})
}

func TestEmptyInterruptedByErrorStartsAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		b := watch(t, then(func(_ int, a asked) answer {
			if d := a.at.Sub(start); d > 4*time.Second && d < 9*time.Second {
				return answer{code: 500, body: "No cluster leader"}
			}
			return answer{index: 20}
		}, answer{index: 10, body: entries("a")}))
		b.after(18 * time.Second) // the first empty reads were 18 s ago, the unbroken ones less than 10
		b.wantSets("a")
		b.after(10 * time.Second)
		b.wantSets("a", "")
		b.stop()
	})
}

func TestEmptyByInvalidInstancesIsConfirmedToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nothing := `[{"Node":{"Node":"n","Address":"bad address"},"Service":{"ID":"a","Port":1}}]`
		b := watch(t, then(func(int, asked) answer { return answer{index: 20, body: nothing} },
			answer{index: 10, body: entries("a")}))
		b.after(8 * time.Second)
		b.wantSets("a")
		b.after(8 * time.Second)
		b.wantSets("a", "")
		b.stop()
	})
}

// The answer of an agent whose stream from the servers is being rebuilt when the
// wait ends (Consul 1.20 agent/submatview: index 0 becomes 1, the view is empty).
func TestStreamRebuiltIsNotEmpty(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := watch(t, script(
			answer{index: 30, body: entries("a", "b")},
			answer{index: 1, streaming: true, after: 5 * time.Minute},
			answer{index: 30, body: entries("a", "b")},
		))
		b.after(6 * time.Minute)
		b.wantSets("a b")
		b.wantAsked("0s", "30s", "0c", "30s")
		b.stop()
	})
}

func TestStreamedShrinkIsBelieved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := watch(t, script(
			answer{index: 30, body: entries("a", "b")},
			answer{index: 31, body: entries("a"), streaming: true, after: time.Minute},
		))
		b.after(2 * time.Minute)
		b.wantSets("a b", "a")
		b.wantAsked("0s", "30s", "31s")
		b.stop()
	})
}

func TestLeaderlessShrinkIsHeld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var elected atomic.Bool
		b := watch(t, then(func(_ int, a asked) answer {
			switch {
			case !elected.Load() && a.has("consistent"):
				return answer{code: 500, body: "No cluster leader", after: 7 * time.Second}
			case !elected.Load():
				return answer{index: 11, leaderless: true}
			case a.blocks():
				return answer{hang: true}
			}
			return answer{index: 12, body: entries("a", "b", "c")}
		}, answer{index: 10, body: entries("a", "b")}))
		b.after(10 * time.Minute)
		b.wantSets("a b")
		s := b.src.Status()
		if s.Holding != reasonNoLeader || s.FailingFor < 9*time.Minute || s.Instances != 2 {
			t.Errorf("status %+v", s)
		}
		elected.Store(true)
		b.after(30 * time.Second)
		b.wantSets("a b", "a b c")
		if s := b.src.Status(); s.Holding != "" || !s.Current {
			t.Errorf("status %+v", s)
		}
		b.stop()
	})
}

func TestLeaderlessGrowthIsBelieved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := watch(t, script(
			answer{index: 10, body: entries("a")},
			answer{index: 11, body: entries("a:critical", "b"), leaderless: true},
		))
		b.after(time.Minute)
		b.wantSets("a", "a b")
		b.stop()
	})
}

func TestStaleShrinkIsVerified(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := watch(t, script(
			answer{index: 10, body: entries("a", "b")},
			answer{index: 11, body: entries("a"), stale: 11 * time.Second},
			answer{index: 15, body: entries("a", "b", "c")},
			answer{index: 16, body: entries("a", "b"), stale: 9 * time.Second},
		))
		b.after(time.Minute)
		b.wantSets("a b", "a b c", "a b")
		b.wantAsked("0s", "10s", "0c", "15s", "16s")
		b.stop()
	})
}

func TestLostRightsAreHeld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var restored atomic.Bool
		b := watchLiving(t, then(func(_ int, a asked) answer {
			if restored.Load() {
				if a.blocks() {
					return answer{hang: true}
				}
				return answer{index: 30, body: apart("a", "b", "d")}
			}
			return answer{index: 20, filtered: true}
		}, answer{index: 10, body: apart("a", "b", "c")}), onlyLive("a", "b"))
		b.after(time.Hour)
		b.wantUsed("a b c", "a? b? c?", "a? b?")
		if s := b.src.Status(); s.Holding != reasonFiltered || s.State != Kept || s.Current || s.ErrorsTotal != 0 {
			t.Errorf("status %+v", s)
		}
		if n := len(b.fake.asked()); n > 300 {
			t.Errorf("%d reads in an hour of doubt: they should come ever more slowly", n)
		}
		if n := b.logged("ACLs hide instances"); n != 1 {
			t.Errorf("%d lines:\n%s", n, b.log())
		}
		restored.Store(true)
		b.after(20 * time.Second)
		b.wantUsed("a b c", "a? b? c?", "a? b?", "a b d")
		if n := b.logged("believing Consul's answer now"); n != 1 {
			t.Errorf("%d lines:\n%s", n, b.log())
		}
		b.stop()
	})
}

func TestTokenWithPartialRightsFollowsShrinks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := watch(t, script(
			answer{index: 10, body: entries("a", "b"), filtered: true},
			answer{index: 11, body: entries("a"), filtered: true},
		))
		b.after(time.Minute)
		b.wantSets("a b", "a")
		b.stop()
	})
}

func TestAgentRestartWithEmptyCatalog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		// The agent dies, is back after 20 s with nothing and a low index, and
		// its services register again 5 s later.
		start := time.Now()
		b := watch(t, then(func(_ int, a asked) answer {
			switch d := a.at.Sub(start); {
			case d < time.Second:
				return answer{after: 5 * time.Second, err: errors.New("EOF")}
			case d < 20*time.Second:
				return answer{err: errors.New("connection refused")}
			case d < 28*time.Second:
				return answer{index: 12}
			case a.blocks():
				return answer{hang: true}
			}
			return answer{index: 18, body: entries("a", "b")}
		}, answer{index: 90, body: entries("a", "b")}))
		b.after(5 * time.Minute)
		b.wantSets("a b")
		if s := b.src.Status(); !s.Current || s.Index != 18 || s.HeldTotal == 0 {
			t.Errorf("status %+v", s)
		}
		b.stop()
	})
}
