package discovery

import (
	"math"
	"testing"
	"time"
)

func TestPlausible(t *testing.T) {
	cfg := DefaultConfig()
	set := func(ids ...string) []Instance {
		var out []Instance
		for _, id := range ids {
			out = append(out, Instance{ID: id})
		}
		return out
	}
	fresh := circumstances{Seen: true, KnownLeader: true}
	with := func(f func(*circumstances)) circumstances {
		c := fresh
		f(&c)
		return c
	}
	leaderless := with(func(c *circumstances) { c.KnownLeader = false })
	streamed := with(func(c *circumstances) { c.KnownLeader, c.Streaming = false, true })
	streamedBack := with(func(c *circumstances) { c.KnownLeader, c.Streaming, c.Backwards = false, true, true })
	lagging := with(func(c *circumstances) { c.LastContact = 11 * time.Second })
	atLimit := with(func(c *circumstances) { c.LastContact = 10 * time.Second })
	backwards := with(func(c *circumstances) { c.Backwards = true })
	restored := with(func(c *circumstances) { c.Backwards, c.Consistent = true, true })
	filtered := with(func(c *circumstances) { c.Filtered = true })
	always := with(func(c *circumstances) { c.Filtered, c.WasFiltered = true, true })
	cached := with(func(c *circumstances) { c.CacheAge = 11 * time.Second })
	peaked := with(func(c *circumstances) { c.Most = 5 })
	two, one, three, none := set("a", "b"), set("a"), set("a", "b", "c"), set()
	for _, tc := range []struct {
		name     string
		old, new []Instance
		c        circumstances
		want     verdict
	}{
		{"never seen, healthy", nil, two, with(func(c *circumstances) { c.Seen = false }), verdict{}},
		{"never seen, empty", nil, none, with(func(c *circumstances) { c.Seen = false }), verdict{}},
		{"never seen, all suspicious", nil, none, circumstances{Backwards: true, Filtered: true, LastContact: time.Hour}, verdict{}},
		{"unchanged", two, two, leaderless, verdict{}},
		{"unchanged and backwards", two, two, backwards, verdict{}},
		{"empty stays empty", none, none, filtered, verdict{}},
		{"grown", two, three, fresh, verdict{}},
		{"shrunk", two, one, fresh, verdict{}},
		{"replaced", set("a"), set("b"), fresh, verdict{}},
		{"grown from empty", none, two, fresh, verdict{}},

		{"leaderless, grown", two, three, leaderless, verdict{}},
		{"leaderless, shrunk", two, one, leaderless, verdict{hold, doubtNoLeader}},
		{"leaderless, replaced", set("a"), set("b"), leaderless, verdict{hold, doubtNoLeader}},
		{"leaderless, emptied", two, none, leaderless, verdict{hold, doubtNoLeader}},
		{"streamed, shrunk", two, one, streamed, verdict{}},
		{"streamed, emptied", two, none, streamed, verdict{confirm, doubtEmpty}},
		{"stream restarted", two, none, streamedBack, verdict{hold, doubtBackward}},
		{"lagging, grown", two, three, lagging, verdict{}},
		{"lagging, shrunk", two, one, lagging, verdict{hold, doubtLagging}},
		{"lagging by just the limit", two, one, atLimit, verdict{}},
		{"backwards, shrunk", two, one, backwards, verdict{hold, doubtBackward}},
		{"backwards, grown", two, three, backwards, verdict{hold, doubtBackward}},
		{"backwards, but consistent", two, one, restored, verdict{}},
		{"backwards, consistent, emptied", two, none, restored, verdict{confirm, doubtEmpty}},
		{"rights lost", two, none, filtered, verdict{hold, doubtFiltered}},
		{"rights partly lost", two, one, filtered, verdict{hold, doubtFiltered}},
		{"rights partial always, shrunk", two, one, always, verdict{}},
		{"rights partial always, emptied", two, none, always, verdict{hold, doubtFiltered}},
		{"filtered, grown", two, three, filtered, verdict{}},

		{"emptied", two, none, fresh, verdict{confirm, doubtEmpty}},
		{"emptied for sure", two, none, with(func(c *circumstances) { c.Consistent = true }), verdict{confirm, doubtEmpty}},
		{"more than half", three, one, fresh, verdict{confirm, doubtShrunk}},
		{"more than half, consistent", three, one, with(func(c *circumstances) { c.Consistent = true }), verdict{confirm, doubtShrunk}},
		{"more than half, leaderless", three, one, leaderless, verdict{hold, doubtNoLeader}},
		{"step by step", two, one, with(func(c *circumstances) { c.Most = 2 }), verdict{}},
		{"less than half of lately", three, two, peaked, verdict{confirm, doubtShrunk}},
		{"grown, but less than half of lately", one, two, peaked, verdict{}},
		{"replaced by as many", three, set("x", "y", "z"), fresh, verdict{}},
		{"replaced by too few", three, set("x"), fresh, verdict{confirm, doubtShrunk}},
		{"old cache, shrunk", two, one, cached, verdict{hold, doubtLagging}},
		{"old cache, grown", two, three, cached, verdict{}},
	} {
		if tc.c.Most == 0 {
			tc.c.Most = len(tc.old)
		}
		if got := plausible(&cfg, tc.old, tc.new, diff(tc.old, tc.new), tc.c); got != tc.want {
			t.Errorf("%s: got %+v, want %+v", tc.name, got, tc.want)
		}
	}
}

func TestNextIndex(t *testing.T) {
	for _, tc := range []struct{ prev, got, want uint64 }{
		{0, 0, 1}, {0, 1, 1}, {0, 50, 50}, {50, 50, 50}, {50, 51, 51},
		{50, 49, 0}, {50, 0, 0}, {1, 0, 0}, {1, 1, 1}, {50, math.MaxUint64, 0}, {50, maxIndex, 0}, {50, maxIndex - 1, maxIndex - 1}, {math.MaxUint64, 50, 0},
	} {
		if got := nextIndex(tc.prev, tc.got); got != tc.want {
			t.Errorf("blocked on %d, got %d: next %d, want %d", tc.prev, tc.got, got, tc.want)
		}
	}
}
