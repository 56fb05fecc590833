package discovery

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestWatchFollowsChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := watch(t, script(
			answer{index: 10, body: entries("b", "a")},
			answer{index: 12, body: entries("a", "b", "c"), after: time.Minute},
			answer{index: 15, body: entries("a:critical", "b", "c"), after: time.Minute},
		))
		b.after(3 * time.Minute)
		b.wantSets("a b", "a b c", "a b c")
		b.wantAsked("0s", "10s", "12s", "15s")
		if h := b.applied()[2][0].Health; h != Critical {
			t.Errorf("a is %s, want critical: it has to stay in the set", h)
		}
		if w := b.fake.asked()[1].query.Get("wait"); w != "300000ms" {
			t.Errorf("wait is %q", w)
		}
		if p := b.fake.asked()[0].path; p != "/v1/health/service/web" {
			t.Errorf("path is %q", p)
		}
		s := b.src.Status()
		if !s.Seen || !s.Current || s.Index != 15 || s.Instances != 3 || s.UpdatesTotal != 3 || s.AnswersTotal != 3 ||
			s.Age != time.Minute || s.SinceChange != time.Minute || s.Holding != "" || s.LastError != "" {
			t.Errorf("status %+v", s)
		}
		if err := b.stop(); err != context.Canceled {
			t.Errorf("Watch returned %v", err)
		}
	})
}

func TestWatchIndexMovesWithoutChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		// consul #3890: unrelated churn. Order and spelling are no change either.
		same := strings.ReplaceAll(entries("b", "a"), "10.0.0.1", "::ffff:10.0.0.1")
		b := watch(t, script(
			answer{index: 10, body: entries("a", "b")},
			answer{index: 11, body: entries("a", "b"), after: time.Minute},
			answer{index: 12, body: same, after: time.Minute},
		))
		b.after(2*time.Minute + time.Second)
		b.wantSets("a b")
		b.wantAsked("0s", "10s", "11s", "12s")
		if s := b.src.Status(); s.Age != time.Second || s.SinceChange != 2*time.Minute+time.Second || s.Index != 12 {
			t.Errorf("status %+v", s)
		}
		b.stop()
	})
}

func TestWatchNeverBlocksBelowOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := watch(t, script(answer{index: 0, body: entries("a")}))
		b.after(time.Second)
		b.wantSets("a")
		b.wantAsked("0s", "1s")
		b.stop()
	})
}

func TestWatchIndexBackwardsUnchanged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := watch(t, script(
			answer{index: 100, body: entries("a")},
			answer{index: 40, body: entries("a"), after: time.Minute},
			answer{index: 40, body: entries("a")},
		))
		b.after(2 * time.Minute)
		b.wantSets("a")
		b.wantAsked("0s", "100s", "0s", "40s")
		b.stop()
	})
}

func TestWatchIndexBackwardsChangedIsVerified(t *testing.T) {
	for name, truth := range map[string]string{"lagging server": "a b", "restored server": "a"} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := watch(t, script(
					answer{index: 100, body: entries("a", "b")},
					answer{index: 40, body: entries("a"), after: time.Minute},
					answer{index: 41, body: entries(strings.Fields(truth)...)},
				))
				b.after(2 * time.Minute)
				b.wantAsked("0s", "100s", "0c", "41s")
				if truth == "a b" {
					b.wantSets("a b")
				} else {
					b.wantSets("a b", "a")
				}
				if s := b.src.Status(); s.Holding != "" || !s.Current || s.HeldTotal != 1 {
					t.Errorf("status %+v", s)
				}
				if n := b.logged("not believing"); n != 0 {
					t.Errorf("%d lines on what the next read settled", n)
				}
				b.stop()
			})
		})
	}
}

func TestWatchErrorsKeepTheSet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		refused := errors.New("connection refused")
		b := watch(t, func(n int, a asked) answer {
			switch {
			case n == 0:
				return answer{index: 10, body: entries("a")}
			case n <= 12:
				return answer{err: refused}
			case n == 13:
				return answer{index: 3, body: entries("a")} // the agent was restarted
			}
			return answer{hang: true}
		})
		b.after(time.Minute)
		s := b.src.Status()
		if !s.Seen || s.Current || s.Instances != 1 || !strings.Contains(s.LastError, "connection refused") ||
			s.FailingFor != time.Minute || s.Age != time.Minute || s.ErrorsTotal < 5 {
			t.Errorf("status %+v", s)
		}
		b.after(5 * time.Minute)
		b.wantSets("a")
		if n := b.logged("keeping the last good set"); n != 1 {
			t.Errorf("%d lines for one outage:\n%s", n, b.log())
		}
		if n := b.logged("answers again"); n != 1 {
			t.Errorf("%d lines for its end:\n%s", n, b.log())
		}
		if last := b.fake.asked()[len(b.fake.asked())-1]; last.query.Get("index") != "3" {
			t.Errorf("blocks on %q after the restart, want 3", last.query.Get("index"))
		}
		for i, a := range b.fake.asked()[2:14] {
			if a.blocks() {
				t.Errorf("read %d after an error blocks: %v", i, a.query)
			}
		}
		if s := b.src.Status(); !s.Current || s.FailingFor != 0 || s.LastError == "" || s.ErrorsTotal != 12 {
			t.Errorf("status after recovery %+v", s)
		}
		b.stop()
	})
}

func TestWatchTellsEachOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		down := answer{err: errors.New("EOF")}
		b := watch(t, script(
			answer{index: 10, body: entries("a")}, down, down, down, down,
			answer{index: 10, body: entries("a")},
			answer{index: 11, body: entries("a"), after: time.Minute}, down,
			answer{index: 11, body: entries("a")},
		))
		b.after(3 * time.Minute)
		if down, up := b.logged("keeping the last good set"), b.logged("answers again"); down != 2 || up != 2 {
			t.Errorf("%d lines on going, %d on coming:\n%s", down, up, b.log())
		}
		reads := b.fake.asked()
		if gap := reads[8].at.Sub(reads[7].at); gap > time.Minute+2*time.Second {
			t.Errorf("the second outage starts with a pause of %s", gap-time.Minute)
		}
		b.stop()
	})
}

func TestWatchBackoff(t *testing.T) {
	gaps := func(t *testing.T, code int) []time.Duration {
		var out []time.Duration
		synctest.Test(t, func(t *testing.T) {
			b := watch(t, func(int, asked) answer { return answer{code: code, body: "no"} },
				func(_ *Query, c *Config) { c.RateBurst, c.RateInterval = 100, 10*time.Millisecond })
			b.after(10 * time.Minute)
			for i := 1; i < min(9, len(b.fake.asked())); i++ {
				out = append(out, b.fake.asked()[i].at.Sub(b.fake.asked()[i-1].at))
			}
			if s := b.src.Status(); s.Seen || !strings.Contains(s.LastError, fmt.Sprint(code)) {
				t.Errorf("status %+v", s)
			}
			if n := b.logged("still unknown"); n != 1 {
				t.Errorf("%d lines", n)
			}
			b.stop()
		})
		return out
	}
	s := time.Second
	if got, want := gaps(t, 500), []time.Duration{s / 2, s, 2 * s, 4 * s, 8 * s, 15 * s, 15 * s, 15 * s}; !slices.Equal(got, want) {
		t.Errorf("pauses after a 500 %v, want %v", got, want)
	}
	if got, want := gaps(t, 429), []time.Duration{4 * s, 8 * s, 16 * s, 32 * s, 60 * s, 60 * s, 60 * s, 60 * s}; !slices.Equal(got, want) {
		t.Errorf("pauses after a 429 %v, want %v", got, want)
	}
}

func TestWatchUnreadableAnswersAreErrors(t *testing.T) {
	for name, bad := range map[string]answer{
		"cut off":           {index: 11, body: `[{"Node":{`},
		"page of a portal":  {index: 11, body: "<html>log in</html>"},
		"object":            {index: 11, body: `{}`},
		"no Consul headers": {bare: true},
		"refused":           {code: 403, body: "ACL not found"},
		"lost leader":       {code: 500, body: "No cluster leader"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := watch(t, script(answer{index: 10, body: entries("a")}, bad, answer{index: 11, body: entries("a", "b")}))
				b.after(time.Minute)
				b.wantSets("a", "a b")
				b.wantAsked("0s", "10s", "0s", "11s")
				if s := b.src.Status(); s.ErrorsTotal != 1 {
					t.Errorf("status %+v", s)
				}
				b.stop()
			})
		})
	}
}

func TestWatchWaitsLongerThanConsul(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		wait := DefaultConfig().Wait
		b := watch(t, script(
			answer{index: 10, body: entries("a")},
			answer{index: 10, body: entries("a"), after: wait + wait/16 + 7*time.Second}, // the latest that Consul answers
			answer{hang: true}, // and one that never does
			answer{index: 11, body: entries("b")},
		))
		b.after(wait + wait/16 + 8*time.Second)
		b.wantAsked("0s", "10s", "10s")
		if s := b.src.Status(); s.ErrorsTotal != 0 || s.Age != time.Second {
			t.Errorf("status %+v", s)
		}
		b.after(wait + wait/16 + readMargin + time.Second)
		b.wantAsked("0s", "10s", "10s", "0s", "11s")
		b.wantSets("a", "b")
		if s := b.src.Status(); !strings.Contains(s.LastError, "no answer within 5m28.75s") {
			t.Errorf("last error %q", s.LastError)
		}
		b.stop()
	})
}

func TestWatchRateLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		// A server whose index always moves, and one that never blocks.
		for name, reply := range map[string]func(int, asked) answer{
			"moving":  func(n int, _ asked) answer { return answer{index: uint64(n + 2), body: entries("a")} },
			"zero":    func(int, asked) answer { return answer{index: 0, body: entries("a")} },
			"falling": func(n int, _ asked) answer { return answer{index: uint64(1e6 - n), body: entries("a")} },
		} {
			b := watch(t, reply)
			b.after(time.Minute - time.Millisecond)
			if n := len(b.fake.asked()); n > 61 || n < 30 {
				t.Errorf("%s: %d reads in a minute, want at most 61: a burst of 2, then one a second", name, n)
			}
			b.wantSets("a")
			b.stop()
		}
	})
}

func TestWatchBurst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		// A change right after the first answer is seen without delay.
		b := watch(t, script(answer{index: 10, body: entries("a")}, answer{index: 11, body: entries("a", "b")}))
		b.after(0)
		b.wantSets("a", "a b")
		b.stop()
	})
}

func TestWatchCancel(t *testing.T) {
	for name, reply := range map[string]func(int, asked) answer{
		"while blocking":    script(answer{index: 10, body: entries("a")}),
		"while backing off": func(int, asked) answer { return answer{code: 429} },
		"while asking":      script(),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := watch(t, reply)
				b.after(time.Second)
				at := time.Now()
				if err := b.stop(); err != context.Canceled {
					t.Errorf("Watch returned %v", err)
				}
				if d := time.Since(at); d != 0 {
					t.Errorf("Watch ended after %s", d)
				}
			})
		})
	}
}

func TestWatchAgainKeepsTheSet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := watch(t, script(
			answer{index: 10, body: entries("a")},
			answer{hang: true},
			answer{err: errors.New("down")},
		))
		b.after(time.Second)
		if err := b.src.Watch(t.Context(), func([]Instance) { t.Error("applied") }); err == nil || !strings.Contains(err.Error(), "watched already") {
			t.Errorf("second Watch at once returned %v", err)
		}
		b.stop()

		ctx, cancel := context.WithCancel(t.Context())
		var got []string
		done := make(chan error)
		go func() {
			done <- b.src.Watch(ctx, func(set []Instance) { got = append(got, set[0].ID) })
		}()
		b.after(10 * time.Second)
		if !slices.Equal(got, []string{"n/a"}) {
			t.Errorf("applied %q, want the set of before, at once", got)
		}
		cancel()
		<-done
	})
}

func TestWatchQueryParameters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := watch(t, script(answer{index: 10, body: entries("a")}), func(q *Query, c *Config) {
			*q = Query{Service: "a b?", Tags: []string{"v1", "eu"}, Filter: `Service.Meta.x == "y"`, Datacenter: "dc2", OnlyPassing: true, Near: "_agent"}
			c.Stale = false
			c.Datacenter = "dc9"
		})
		b.after(time.Second)
		a := b.fake.asked()[1]
		want := map[string][]string{
			"tag": {"v1", "eu"}, "filter": {`Service.Meta.x == "y"`}, "dc": {"dc2"},
			"passing": {"1"}, "near": {"_agent"}, "index": {"10"}, "wait": {"300000ms"},
		}
		for k, v := range want {
			if !slices.Equal(a.query[k], v) {
				t.Errorf("%s is %q, want %q", k, a.query[k], v)
			}
		}
		if len(a.query) != len(want) {
			t.Errorf("asked with %v", a.query)
		}
		if a.path != "/v1/health/service/a b?" {
			t.Errorf("path %q", a.path)
		}
		b.stop()
	})
}

func TestWatchNear(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := watch(t, script(
			answer{index: 10, body: entries("c", "a", "b")},
			answer{index: 11, body: entries("a", "b", "c")},
			answer{index: 12, body: entries("b", "d", "a", "c")},
		), func(q *Query, _ *Config) { q.Near = "_agent" })
		b.after(time.Minute)
		b.wantSets("c a b", "b d a c")
		b.stop()
	})
}

func TestWatchRefusesWrongConfiguration(t *testing.T) {
	src := NewConsul(nil, Query{Service: "a/b"}, DefaultConfig(), Env{})
	if err := src.Watch(t.Context(), nil); err == nil || !strings.Contains(err.Error(), "other than /") {
		t.Errorf("got %v", err)
	}
	src = NewConsul(nil, Query{Service: "a"}, Config{}, Env{})
	if err := src.Watch(t.Context(), nil); err == nil || !strings.Contains(err.Error(), "empty_confirm is 0s") {
		t.Errorf("got %v", err)
	}
}
