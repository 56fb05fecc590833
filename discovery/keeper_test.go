package discovery

import (
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// allLive and onlyLive are who answers probes.
func allLive(Instance) bool { return true }

func onlyLive(ids ...string) func(Instance) bool {
	return func(i Instance) bool { return slices.Contains(ids, strings.TrimPrefix(i.ID, "n/")) }
}

// told answers first and then by what, given the time since then; a blocking read
// hangs where that has the same index.
func told(first string, what func(time.Duration) answer) func(int, asked) answer {
	var start time.Time
	return func(n int, a asked) answer {
		if n == 0 {
			start = a.at
			return answer{index: 10, body: first}
		}
		ans := what(a.at.Sub(start))
		if a.query.Get("index") == fmt.Sprint(ans.index) && ans.index != 0 {
			return answer{hang: true}
		}
		return ans
	}
}

func always(a answer) func(time.Duration) answer { return func(time.Duration) answer { return a } }

// wantStatus checks the words that a status has for what is going on.
func (b *bench) wantStatus(s State, doubt string, instances, unlisted int) {
	b.t.Helper()
	got := b.src.Status()
	if got.State != s || got.Doubt != doubt || got.Instances != instances || got.Unlisted != unlisted ||
		got.Current != (s == Current || s == Empty) || (got.Holding != "") != (doubt != "") {
		b.t.Fatalf("status %+v\nwant %s, doubt %q, %d instances, %d unlisted\nlog:\n%s", got, s, doubt, instances, unlisted, b.log())
	}
}

// apart is entries, but each ID has a port of its own.
func apart(ids ...string) string {
	body := entries(ids...)
	for _, id := range ids {
		body = strings.Replace(body, `"Port":8000,`, fmt.Sprintf(`"Port":%d,`, 8001+int(id[0])), 1)
	}
	return body
}

// ids of a set, those that are not listed with a question mark.
func ids(set []Instance) string {
	var out []string
	for _, i := range set {
		id := strings.TrimPrefix(i.ID, "n/")
		if i.Unlisted {
			id += "?"
		}
		out = append(out, id)
	}
	return strings.Join(out, " ")
}

func (b *bench) wantUsed(want ...string) {
	b.t.Helper()
	var got []string
	for _, set := range b.applied() {
		got = append(got, ids(set))
	}
	if !slices.Equal(got, want) {
		b.t.Fatalf("applied %q, want %q\nlog:\n%s", got, want, b.log())
	}
}

// TestLiars plays each way in which Consul is known to answer 200 with too little
// while everything runs. The numbers are the facts of the plan of issue 6.
func TestLiars(t *testing.T) {
	full := apart("a", "b", "c", "d", "e")
	for name, c := range map[string]struct {
		lie   answer
		state State
		doubt string
		used  []string // after the first
	}{
		// A token that is missing: no flag, a leader, a good index, also when consistent.
		"missing token": {answer{index: 20}, Kept, doubtAlive, []string{"a? b? c? d? e?"}},
		// The same from the agent's stream; the verifying read says it too.
		"missing token, streamed":  {answer{index: 20, streaming: true}, Kept, doubtAlive, []string{"a? b? c? d? e?"}},
		"end of wait and of token": {answer{index: 1}, Kept, doubtAlive, []string{"a? b? c? d? e?"}},
		"deleted token":            {answer{code: 403, body: "ACL not found"}, Failing, "", nil},
		"token without rights":     {answer{index: 20, filtered: true}, Kept, doubtFiltered, []string{"a? b? c? d? e?"}},
		"token of fewer rights":    {answer{index: 20, body: apart("a", "b", "c"), filtered: true}, Kept, doubtFiltered, []string{"a b c d? e?"}},
		"election":                 {answer{index: 20, leaderless: true}, Doubted, doubtNoLeader, nil},
		"lagging server":           {answer{index: 20, stale: time.Minute}, Doubted, doubtLagging, nil},
		"agent that left":          {answer{index: 25}, Kept, doubtAlive, []string{"a? b? c? d? e?"}},
		"wiped agent, others stay": {answer{index: 25, body: apart("d", "e")}, Kept, doubtShrunkAlive, []string{"a? b? c? d e"}},
		"wiped servers":            {answer{index: 3}, Kept, doubtAlive, []string{"a? b? c? d? e?"}},
		"all unusable": {answer{index: 20, body: `[{"Node":{"Node":"n","Address":"x y"},"Service":{"ID":"a","Port":1}}]`},
			Kept, doubtAlive, []string{"a? b? c? d? e?"}},
		"all critical": {answer{index: 20, body: apart("a:critical", "b:critical", "c:critical", "d:critical", "e:critical")},
			Current, "", []string{"a b c d e"}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := watchLiving(t, told(full, func(d time.Duration) answer {
					if d < 50*time.Second {
						return c.lie
					}
					return answer{index: 40, body: full}
				}), allLive, func(_ *Query, c *Config) { c.Wait = 10 * time.Second })
				b.after(40 * time.Second)
				b.wantUsed(append([]string{"a b c d e"}, c.used...)...)
				if c.state == Failing {
					b.wantStatus(Failing, "", 5, 0)
				} else if n := strings.Count(ids(b.applied()[len(b.applied())-1]), "?"); n > 0 {
					b.wantStatus(c.state, c.doubt, 5, n)
					if s := b.src.Status(); s.ProbesAlive < uint64(n) || s.ProbesDead != 0 || s.DoubtsTotal[c.doubt] != 1 {
						t.Errorf("status %+v", s)
					}
					if n := b.logged("keeping"); n != 1 || b.logged("lost its registrations")+b.logged("token's rights") != 1 || b.logged("if_meant") != 1 {
						t.Errorf("%d lines:\n%s", n, b.log())
					}
				} else {
					b.wantStatus(c.state, c.doubt, 5, 0)
				}
				for _, a := range b.fake.asked() {
					if a.has("consistent") && (a.blocks() || a.has("cached") || a.has("stale")) {
						t.Errorf("verifying read %v", a.query)
					}
				}
				b.after(40 * time.Second)
				b.wantStatus(Current, "", 5, 0)
				if got := ids(b.applied()[len(b.applied())-1]); got != "a b c d e" {
					t.Errorf("in the end %q", got)
				}
				b.stop()
			})
		})
	}
}

func TestKeptLeaveOneByOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		// a dies at 20 s, b at 40 s, c at 200 s.
		lives := func(i Instance) bool {
			return time.Since(start) < map[string]time.Duration{"n/a": 20, "n/b": 40, "n/c": 200}[i.ID]*time.Second
		}
		b := watchLiving(t, told(apart("a", "b", "c"), always(answer{index: 20})), lives)
		b.after(35 * time.Second)
		b.wantUsed("a b c", "a? b? c?", "b? c?")
		b.after(30 * time.Second)
		b.wantUsed("a b c", "a? b? c?", "b? c?", "c?")
		b.after(130 * time.Second) // 195 s
		b.wantStatus(Kept, doubtAlive, 1, 1)
		b.after(13 * time.Second) // 208 s: it may be dead, but for less than empty_confirm
		b.wantUsed("a b c", "a? b? c?", "b? c?", "c?")
		b.after(30 * time.Second)
		b.wantUsed("a b c", "a? b? c?", "b? c?", "c?", "")
		b.wantStatus(Empty, "", 0, 0)
		if b.logged("dropped") != 2 || b.logged("none of the missing answers") != 1 {
			t.Errorf("log:\n%s", b.log())
		}
		if n := len(b.fake.asked()); n > 60 {
			t.Errorf("%d reads in 4 minutes of doubt", n)
		}
		b.stop()
	})
}

// TestAgentRestartsWithItsBackends: nothing is listed and nothing answers for 8 s.
func TestAgentRestartsWithItsBackends(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		b := watchLiving(t, told(apart("a", "b"), func(d time.Duration) answer {
			if d < 30*time.Second {
				return answer{index: 20}
			}
			return answer{index: 21, body: apart("a", "b")}
		}), func(Instance) bool { return time.Since(start) > 8*time.Second })
		b.after(5 * time.Second)
		b.wantStatus(Doubted, doubtEmpty, 2, 0)
		b.after(20 * time.Second)
		b.wantStatus(Kept, doubtAlive, 2, 2)
		b.after(time.Minute)
		b.wantUsed("a b", "a? b?", "a b")
		b.stop()
	})
}

func TestLargeLossOfTheDeadIsBelieved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := watchLiving(t, told(apart("a", "b", "c", "d", "e"), always(answer{index: 20, body: apart("d", "e")})), onlyLive("d", "e"))
		b.after(5 * time.Second)
		b.wantStatus(Current, "", 2, 0)
		b.wantUsed("a b c d e", "a? b? c? d e", "d e")
		b.stop()
	})
}

// TestLargeLossIsBelievedInTheEnd: deregistered without stopping, they are obeyed
// after shrink_confirm; what comes meanwhile is used at once.
func TestLargeLossIsBelievedInTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := watchLiving(t, told(apart("a", "b", "c", "d", "e"), func(d time.Duration) answer {
			if d < 30*time.Second {
				return answer{index: 20, body: apart("e")}
			}
			return answer{index: 21, body: apart("e", "f")}
		}), allLive)
		b.after(20 * time.Second)
		b.wantStatus(Kept, doubtShrunkAlive, 5, 4)
		b.after(15 * time.Second)
		b.wantStatus(Kept, doubtShrunkAlive, 6, 4)
		b.after(50 * time.Second) // 85 s: the second list is 55 s old
		b.wantStatus(Kept, doubtShrunkAlive, 6, 4)
		b.after(15 * time.Second)
		b.wantStatus(Current, "", 2, 0)
		b.wantUsed("a b c d e", "a? b? c? d? e", "a? b? c? d? e f", "e f")
		if b.logged("it was repeated for 1m0s") != 1 {
			t.Errorf("log:\n%s", b.log())
		}
		b.stop()
	})
}

func TestEmptyHoldEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var down atomic.Bool
		b := watchLiving(t, told(apart("a", "b"), func(time.Duration) answer {
			if down.Load() {
				return answer{code: 500, body: "No cluster leader"}
			}
			return answer{index: 20}
		}), allLive, func(_ *Query, c *Config) { c.EmptyHold = time.Hour })
		b.after(50 * time.Minute)
		down.Store(true) // an outage in between neither shortens nor ends it
		b.after(15 * time.Minute)
		b.wantStatus(Failing, doubtAlive, 2, 2)
		down.Store(false)
		b.after(time.Minute)
		b.wantUsed("a b", "a? b?", "")
		if b.logged("[ERROR]") != 1 || b.logged("empty_hold") < 1 {
			t.Errorf("log:\n%s", b.log())
		}
		if n := len(b.fake.asked()); n > 400 {
			t.Errorf("%d reads in 66 minutes of doubt", n)
		}
		b.stop()
	})
}

// TestStepByStep: 10, 6, 4, 3 within a minute is no way round the rule.
func TestStepByStep(t *testing.T) {
	ten := []string{"a", "b", "c", "d", "e", "f", "g", "h", "i", "j"}
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		b := watchLiving(t, func(_ int, a asked) answer {
			n := 3
			switch d := time.Since(start); {
			case d == 0:
				n = 10
			case d < 15*time.Second:
				n = 6
			case d < 30*time.Second:
				n = 4
			}
			ans := answer{index: uint64(20 - n), body: apart(ten[:n]...)}
			if a.blocks() {
				ans.after = 5 * time.Second
			}
			return ans
		}, allLive)
		b.after(50 * time.Second)
		b.wantStatus(Kept, doubtShrunkAlive, 6, 3)
		b.after(5 * time.Minute)
		b.wantStatus(Current, "", 3, 0)
		b.stop()
	})
}

func TestUnlistedIsListedAgainElsewhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		moved := strings.Replace(apart("a"), "10.0.0.1", "10.0.0.9", 1)
		b := watchLiving(t, told(apart("a", "b", "c", "d"), func(d time.Duration) answer {
			if d < 20*time.Second {
				return answer{index: 20}
			}
			return answer{index: 21, body: moved}
		}), allLive)
		b.after(40 * time.Second)
		b.wantUsed("a b c d", "a? b? c? d?", "a b? c? d?")
		if got := b.applied()[2][0]; got.Address != "10.0.0.9" {
			t.Errorf("a is at %s", got.Address)
		}
		b.stop()
	})
}

func TestUnlistedKeepsItsHealth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := watchLiving(t, told(apart("a:critical", "b"), always(answer{index: 20})), allLive)
		b.after(10 * time.Second)
		b.wantUsed("a b", "a? b?")
		if set := b.applied()[1]; set[0].Health != Critical || set[1].Health != Passing {
			t.Errorf("got %+v", set)
		}
		b.stop()
	})
}

func TestNearKeepsTheOrderOfTheListed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := watchLiving(t, told(apart("e", "d", "c", "b", "a"), always(answer{index: 20, body: apart("d", "b")})), onlyLive("a", "e"),
			func(q *Query, _ *Config) { q.Near = "_agent" })
		b.after(10 * time.Second)
		b.wantUsed("e d c b a", "d b a? c? e?", "d b a? e?")
		b.stop()
	})
}

// TestAbsurdIndexIsNotBlockedOn: its answer is verified, and the next read polls.
func TestAbsurdIndexIsNotBlockedOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := watch(t, script(
			answer{index: 10, body: apart("a")},
			answer{index: 1 << 63, body: apart("a", "b")},
			answer{index: 12, body: apart("a", "c")},
			answer{index: 1 << 63, body: apart("a", "c")},
			answer{index: 12, body: apart("a", "c")},
		))
		b.after(time.Minute)
		b.wantSets("a", "a c")
		b.wantAsked("0s", "10s", "0c", "12s", "0s", "12s")
		b.stop()
	})
}

func TestSuccessesSpareProbes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var served atomic.Uint64
		b := watchLiving(t, told(apart("a"), always(answer{index: 20})), onlyLive())
		b.stop()
		b.src.keep.env.Successes = func(string) uint64 { return served.Add(1) }
		go func() { b.done <- b.src.Watch(t.Context(), b.apply) }()
		b.after(time.Minute)
		b.wantStatus(Kept, doubtAlive, 1, 1)
		if s := b.src.Status(); s.ProbesAlive+s.ProbesDead != 0 {
			t.Errorf("probed although requests are answered: %+v", s)
		}
	})
}

func TestBelievedIsNeverAUnion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := watchLiving(t, told(apart("a", "b"), always(answer{index: 20})), allLive)
		b.after(20 * time.Second)
		b.wantStatus(Kept, doubtAlive, 2, 2)
		if set, index, at := b.src.keep.believed(); ids(set) != "a b" || index != 10 || !at.Equal(b.start) {
			t.Errorf("believed %q, index %d, at %s", ids(set), index, at)
		}
		b.stop()
	})
}

// TestStopWhileProbing: a Watch ends at once, and what was not settled is not
// applied; the next one goes on from the same set.
func TestStopWhileProbing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := watchLiving(t, told(apart("a", "b"), always(answer{index: 20})), func(Instance) bool {
			time.Sleep(500 * time.Millisecond)
			return false
		})
		b.after(1300 * time.Millisecond)
		b.stop()
		b.wantUsed("a b")
		if s := b.src.Status(); s.ProbesDead != 0 || s.State != Doubted {
			t.Errorf("status %+v", s)
		}
	})
}
