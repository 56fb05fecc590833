package discovery

import (
	"math"
	"testing"
	"time"
)

func TestPlausible(t *testing.T) {
	r := rules{maxStale: 10 * time.Second, emptyConfirm: 10 * time.Second}
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
	empties := func(n int, span time.Duration) circumstances {
		return with(func(c *circumstances) { c.Consistent, c.EmptyReads, c.EmptySpan = true, n, span })
	}
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
		{"leaderless, shrunk", two, one, leaderless, verdict{hold, reasonNoLeader}},
		{"leaderless, replaced", set("a"), set("b"), leaderless, verdict{hold, reasonNoLeader}},
		{"leaderless, emptied", two, none, leaderless, verdict{hold, reasonNoLeader}},
		{"streamed, shrunk", two, one, streamed, verdict{}},
		{"streamed, emptied", two, none, streamed, verdict{confirm, reasonEmpty}},
		{"stream restarted", two, none, streamedBack, verdict{hold, reasonBackward}},
		{"lagging, grown", two, three, lagging, verdict{}},
		{"lagging, shrunk", two, one, lagging, verdict{hold, reasonStale}},
		{"lagging by just the limit", two, one, atLimit, verdict{}},
		{"backwards, shrunk", two, one, backwards, verdict{hold, reasonBackward}},
		{"backwards, grown", two, three, backwards, verdict{hold, reasonBackward}},
		{"backwards, but consistent", two, one, restored, verdict{}},
		{"backwards, consistent, emptied", two, none, restored, verdict{confirm, reasonEmpty}},
		{"rights lost", two, none, filtered, verdict{hold, reasonFiltered}},
		{"rights partly lost", two, one, filtered, verdict{hold, reasonFiltered}},
		{"rights partial always, shrunk", two, one, always, verdict{}},
		{"rights partial always, emptied", two, none, always, verdict{hold, reasonFiltered}},
		{"filtered, grown", two, three, filtered, verdict{}},

		{"emptied", two, none, fresh, verdict{confirm, reasonEmpty}},
		{"empty once for long", two, none, empties(1, time.Hour), verdict{confirm, reasonEmpty}},
		{"empty twice, too soon", two, none, empties(2, 9*time.Second), verdict{confirm, reasonEmpty}},
		{"empty often, too soon", two, none, empties(50, 9999*time.Millisecond), verdict{confirm, reasonEmpty}},
		{"empty twice, long enough", two, none, empties(2, 10*time.Second), verdict{}},
	} {
		if got := plausible(r, tc.old, tc.new, diff(tc.old, tc.new), tc.c); got != tc.want {
			t.Errorf("%s: got %+v, want %+v", tc.name, got, tc.want)
		}
	}
}

func TestConfirmSpacing(t *testing.T) {
	for span, want := range map[time.Duration]time.Duration{
		time.Second:      time.Second,
		10 * time.Second: 2500 * time.Millisecond,
		time.Minute:      15 * time.Second,
	} {
		if got := (rules{emptyConfirm: span}).confirmSpacing(); got != want {
			t.Errorf("%s: %s", span, got)
		}
	}
}

func TestNextIndex(t *testing.T) {
	for _, tc := range []struct{ prev, got, want uint64 }{
		{0, 0, 1}, {0, 1, 1}, {0, 50, 50}, {50, 50, 50}, {50, 51, 51},
		{50, 49, 0}, {50, 0, 0}, {1, 0, 0}, {1, 1, 1}, {50, math.MaxUint64, math.MaxUint64}, {math.MaxUint64, 50, 0},
	} {
		if got := nextIndex(tc.prev, tc.got); got != tc.want {
			t.Errorf("blocked on %d, got %d: next %d, want %d", tc.prev, tc.got, got, tc.want)
		}
	}
}
