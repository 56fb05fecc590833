package agentstats

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestPollRefuses(t *testing.T) {
	const head = "HTTP/1.1 200 OK\r\n"
	for name, c := range map[string]struct {
		answer   string
		rejected bool
		want     string
	}{
		"500":                   {"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n", false, "answered 500"},
		"redirect":              {"HTTP/1.1 302 Found\r\nLocation: http://evil/\r\nContent-Length: 0\r\n\r\n", false, "answered 302"},
		"interim":               {"HTTP/1.1 103 Early Hints\r\n\r\n", false, "answered 103"},
		"not HTTP":              {"SSH-2.0-OpenSSH\r\n\r\n", false, "malformed HTTP"},
		"nothing":               {"", false, "EOF"},
		"declared too long":     {head + "Content-Length: 999999999\r\n\r\n", false, "longer than 16384"},
		"chunked too long":      {head + "Transfer-Encoding: chunked\r\n\r\n4001\r\n" + strings.Repeat("x", 0x4001) + "\r\n0\r\n\r\n", false, "longer than 16384"},
		"endless":               {head + "\r\n" + strings.Repeat("x", 1<<16), false, "longer than 16384"},
		"endless head":          {head + "X: " + strings.Repeat("x", 1<<16), false, "EOF"},
		"cut off":               {head + "Content-Length: 50\r\nConnection: close\r\n\r\n{", false, "no answer within 500ms"},
		"garbage":               {ok("hello"), true, "invalid character"},
		"NaN":                   {at(1, `,"cores":NaN`), true, "invalid character"},
		"out of range":          {at(1, `,"cores":-1`), true, "cores is -1"},
		"an answer nobody asks": {at(1, ``) + at(2, ``), false, "nobody asked for"},
	} {
		t.Run(name, func(t *testing.T) {
			polling(t, func(string, int) string { return c.answer }, func(n *network, p *Poller, got *received) {
				p.SetTargets(one())
				settle(1100 * ms)
				st, _ := p.Status("a")
				if !strings.Contains(st.LastError, c.want) || (st.Rejected > 0) != c.rejected || (st.Failures > 0) == c.rejected {
					t.Errorf("status %+v, want %q", st, c.want)
				}
				if c.want != "nobody asked for" && len(got.of("a")) > 0 {
					t.Errorf("a sample: %+v", got.of("a"))
				}
			})
		})
	}
}

func TestPollTimeout(t *testing.T) {
	polling(t, healthy, func(n *network, p *Poller, got *received) {
		n.delay = 501 * ms
		p.SetTargets(one())
		settle(1500 * ms)
		st, _ := p.Status("a")
		if st.Failures == 0 || len(got.of("a")) > 0 || !strings.Contains(st.LastError, "no answer within 500ms") {
			t.Errorf("status %+v", st)
		}
		// An answer that came too late is never read as that of a later poll.
		if n.dialed("a:1") != len(n.requests("a:1")) {
			t.Errorf("%d requests over %d connections", len(n.requests("a:1")), n.dialed("a:1"))
		}
	})
	// The same on a connection that was good before: a timeout is no reason to ask again.
	polling(t, healthy, func(n *network, p *Poller, got *received) {
		p.SetTargets(one())
		settle(2 * time.Second)
		good := len(n.requests("a:1"))
		n.set(func() { n.delay = 501 * ms })
		settle(3 * time.Second)
		if late := len(n.requests("a:1")) - good; late < 2 || n.dialed("a:1") != late {
			t.Errorf("%d late requests, the first on the old of %d connections", late, n.dialed("a:1"))
		}
	})
}

// TestPollReconnects: an agent that closes idle connections costs no poll.
func TestPollReconnects(t *testing.T) {
	closing := func(header string) func(string, int) string {
		return func(_ string, i int) string {
			return strings.Replace(at(i, ""), "\r\n", "\r\n"+header, 1)
		}
	}
	polling(t, closing("Connection: close\r\n"), func(n *network, p *Poller, got *received) {
		p.SetTargets(one())
		settle(10 * time.Second)
		st, _ := p.Status("a")
		if st.Failures != 0 || st.Accepted < 19 || n.dialed("a:1") != int(st.Polls) {
			t.Errorf("announced: %d dials, %+v", n.dialed("a:1"), st)
		}
	})
	// Every third request finds the connection closed.
	polling(t, func(_ string, i int) string {
		if i%3 == 0 {
			return ""
		}
		return at(i, "")
	}, func(n *network, p *Poller, got *received) {
		own := int64(0)
		p.env.InFlight = func(string) int64 { own++; return own }
		p.SetTargets(one())
		settle(10 * time.Second)
		st, _ := p.Status("a")
		if st.Failures != 0 || st.Accepted < 19 || n.dialed("a:1") < 8 {
			t.Errorf("silently: %d dials, %+v", n.dialed("a:1"), st)
		}
		for i, s := range got.of("a") {
			// One more reading for each request that was sent again.
			if s.OwnInFlight != s.Report.At {
				t.Errorf("sample %d: in flight was read at request %d, the answer is to %d", i, s.OwnInFlight, s.Report.At)
			}
		}
	})
}

func TestPollReplays(t *testing.T) {
	// What is sent, and which of it is news.
	script := []struct {
		at   int
		news bool
	}{
		{1000, true}, {1250, true},
		{1250, false},               // the agent has nothing new
		{1000, false}, {900, false}, // replays
		{1500, true},                 // and on
		{9_000_000, true},            // a lie about the future
		{1750, false}, {2000, false}, // the truth is older, at first
		{2250, false}, {2250, false}, {2500, false}, {2750, false}, {3000, false}, {3250, false}, {3500, false},
		{3750, false}, // the repeated 2250 broke the row
		{4000, true}, {4250, true},
	}
	polling(t, func(_ string, n int) string { return at(script[min(n, len(script))-1].at, "") }, func(n *network, p *Poller, got *received) {
		p.SetTargets(one())
		settle(10 * time.Second)
		var want, times []int64
		for _, s := range script {
			if s.news {
				want = append(want, int64(s.at))
			}
		}
		for _, s := range got.of("a") {
			times = append(times, s.Report.At)
		}
		if !slices.Equal(times, want) {
			t.Errorf("accepted %v\nwant     %v", times, want)
		}
		st, _ := p.Status("a")
		if st.Replayed != 12 || st.Repeated < 1 || st.Failures+st.Rejected != 0 || st.Polls != st.Accepted+st.Replayed+st.Repeated {
			t.Errorf("status %+v", st)
		}
		if n.out.count("an agent's clock went back") != 1 {
			t.Error("the reset of the clock must be logged once")
		}
	})
}

// TestPollEcho: the answer must be to this poll, where the agent tells.
func TestPollEcho(t *testing.T) {
	echo := int64(-1)
	polling(t, func(_ string, n int) string {
		if echo < 0 {
			return at(n, "") // an older agent
		}
		return at(n, fmt.Sprintf(`,"own_in_flight":%d`, echo))
	}, func(n *network, p *Poller, got *received) {
		own := int64(5)
		p.env.InFlight = func(string) (v int64) { n.set(func() { v = own }); return v }
		p.SetTargets(one())
		settle(2 * time.Second)
		st, _ := p.Status("a")
		if st.Accepted < 3 || st.Rejected+st.Failures > 0 || n.declared("a:1") != "5" {
			t.Errorf("older: %+v, declared %q", st, n.declared("a:1"))
		}
		n.set(func() { echo = 5 })
		settle(2 * time.Second)
		now, _ := p.Status("a")
		if now.Accepted < st.Accepted+3 || now.Rejected+now.Failures > 0 {
			t.Errorf("right: %+v", now)
		}
		n.set(func() { echo = 4 })
		settle(2 * time.Second)
		wrong, _ := p.Status("a")
		if wrong.Accepted != now.Accepted || wrong.Rejected == 0 || !strings.Contains(wrong.LastError, "declared 4 in flight, not 5") {
			t.Errorf("wrong: %+v", wrong)
		}
		for in, want := range map[int64]string{-3: "0", 2e9: "1000000000"} {
			n.set(func() { own, echo = in, -1 })
			settle(20 * time.Second)
			if d := n.declared("a:1"); d != want {
				t.Errorf("%d in flight was declared as %q", in, d)
			}
		}
	})
}

// TestPollForms: whatever the form of an answer, what it says is taken or the poll
// counts as failed, within its time and in bounded memory.
func TestPollForms(t *testing.T) {
	const report = `{"version":1,"at":1}`
	const head = "HTTP/1.1 200 OK\r\n"
	for name, c := range map[string]struct {
		answer string
		want   string // in LastError; "": accepted
	}{
		"as agents write it": {ok(report), ""},
		"chunked":            {head + "Transfer-Encoding: chunked\r\n\r\n14\r\n" + report + "\r\n0\r\n\r\n", ""},
		"HTTP/1.0":           {"HTTP/1.0 200 OK\r\n\r\n" + report, "no answer within"}, // it ends with the connection, which stays open
		"HTTP/1.0 to length": {"HTTP/1.0 200 OK\r\nContent-Length: 20\r\n\r\n" + report, ""},
		"other headers":      {head + "X-Proxy: a\r\nVia: 1.1 b\r\nContent-Length: 20\r\n\r\n" + report, ""},
		"unknown fields":     {ok(`{"version":1,"at":1,"new":{"a":[1,2,{"b":null}]}}`), ""},
		"spaces":             {ok(" {\n \"version\": 1, \"at\": 1 }\n"), ""},
		"duplicate keys":     {ok(`{"version":1,"at":1,"mem":5,"mem":0.5}`), ""}, // the last counts, as with encoding/json
		"two lengths":        {head + "Content-Length: 20\r\nContent-Length: 21\r\n\r\n" + report, "Content-Length"},
		"a negative length":  {head + "Content-Length: -1\r\n\r\n" + report, "Content-Length"},
		"length and chunks":  {head + "Transfer-Encoding: gzip, chunked\r\nContent-Length: 20\r\n\r\n" + report, "unsupported transfer encoding"},
		"compressed":         {strings.Replace(ok("\x1f\x8b\x08\x00garbage"), "\r\n", "\r\nContent-Encoding: gzip\r\n", 1), "invalid character"},
		"100 Continue":       {"HTTP/1.1 100 Continue\r\n\r\n" + ok(report), "answered 100"},
		"204":                {"HTTP/1.1 204 No Content\r\n\r\n", "answered 204"},
		"204 by its looks":   {"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "unexpected end"},
		"lines without CR":   {strings.ReplaceAll(ok(report), "\r", ""), ""},
		"infinity":           {ok(`{"version":1,"at":1,"in_flight":Infinity}`), "invalid character"},
		"a huge number":      {ok(`{"version":1,"at":1,"in_flight":1e400}`), "out of range"},
		"an absurd number":   {ok(`{"version":1,"at":1,"in_flight":1e10}`), "in_flight is 1e+10"},
		"negative":           {ok(`{"version":1,"at":1,"accept_queue":-1}`), "accept_queue is -1"},
		"deep nesting":       {ok(`{"version":1,"at":1,"x":` + strings.Repeat(`[`, 15000) + strings.Repeat(`]`, 1000) + `}`), "exceeded max depth"},
		"escapes in a text":  {ok(`{"version":1,"at":1,"epoch":"\u001b[31m"}`), "unprintable"},
		"escapes in a head":  {"HTTP/1.1 200 OK\r\n\x1b[31mred: \x00\r\n\r\n", `\x1b`},
		"a long line":        {"HTTP/1.1 " + strings.Repeat("2", 10000) + " OK\r\n\r\n", "malformed"},
	} {
		t.Run(name, func(t *testing.T) {
			polling(t, func(string, int) string { return c.answer }, func(n *network, p *Poller, got *received) {
				p.SetTargets(one())
				settle(1400 * ms)
				st, _ := p.Status("a")
				if c.want == "" && (st.Accepted != 1 || st.Failures+st.Rejected > 0) {
					t.Errorf("status %+v", st)
				}
				if c.want != "" && (st.Accepted > 0 || !strings.Contains(st.LastError, c.want)) {
					t.Errorf("status %+v, want %q", st, c.want)
				}
				if len(st.LastError) > 2*maxText || checkText(strings.TrimRight(st.LastError[:min(len(st.LastError), maxText)], "\\")) != nil {
					t.Errorf("an error of %d bytes: %q", len(st.LastError), st.LastError)
				}
			})
		})
	}
}

// TestPollTrickle: an answer that comes byte by byte is taken when it is done in time,
// and costs its poll when it is not.
func TestPollTrickle(t *testing.T) {
	for gap, accepted := range map[time.Duration]bool{ms: true, 10 * ms: false} {
		polling(t, healthy, func(n *network, p *Poller, got *received) {
			n.gap = gap
			p.SetTargets(one())
			settle(5 * time.Second)
			st, _ := p.Status("a")
			if accepted != (st.Accepted > 5) || accepted == (st.Failures > 0) {
				t.Errorf("a byte every %s: %+v", gap, st)
			}
		})
	}
}

// TestPollFlapping: an agent that fails every other poll is told of once a minute, and
// one that then stays away is told of.
func TestPollFlapping(t *testing.T) {
	polling(t, func(_ string, n int) string {
		if n%2 == 0 {
			return ok("garbage")
		}
		return at(n, "")
	}, func(n *network, p *Poller, got *received) {
		p.SetTargets(one())
		settle(5*time.Minute + 10*time.Second)
		if lines := n.out.count("no figures from an agent"); lines < 5 || lines > 6 {
			t.Errorf("%d lines in five minutes", lines)
		}
		before := n.out.count("no figures from an agent")
		n.set(func() { n.answer = func(string, int) string { return ok("garbage") } })
		settle(5 * time.Minute)
		if lines := n.out.count("no figures from an agent") - before; lines > 1 || n.out.count("answers again") != before+lines-1 {
			t.Errorf("%d more lines, %d of %d recoveries", lines, n.out.count("answers again"), before)
		}
	})
}

// TestPollFutureStamps: stamps of the far future do not buy an agent, or who speaks in
// its name, more than a few seconds of silence.
func TestPollFutureStamps(t *testing.T) {
	polling(t, func(_ string, n int) string {
		if n == 10 {
			return at(1<<53, "")
		}
		return at(n, "")
	}, func(n *network, p *Poller, got *received) {
		p.SetTargets(one())
		settle(30 * time.Second)
		st, _ := p.Status("a")
		if st.Replayed != clockResets-1 || st.Polls-st.Accepted != clockResets-1 || st.Failures+st.Rejected > 0 {
			t.Errorf("status %+v", st)
		}
	})
}

// TestPollStale: an agent that has nothing but old news is complained of like one that
// is away: once, when its last report has expired.
func TestPollStale(t *testing.T) {
	for want, stamp := range map[string]func(n int) int{
		"the agent repeats a report that has expired": func(n int) int { return 1000 },
		"the agent sends reports older than its last": func(n int) int { return 1_000_000 - n },
	} {
		old := true
		polling(t, func(_ string, n int) string {
			if !old {
				return at(1000+n, "")
			}
			return at(stamp(n), "")
		}, func(n *network, p *Poller, got *received) {
			p.SetTargets(one())
			settle(1400 * ms) // the first report still counts
			if lines := n.out.count("no figures from an agent"); lines > 0 {
				t.Errorf("%s: %d lines before it expired", want, lines)
			}
			settle(10 * time.Minute)
			st, _ := p.Status("a")
			if n.out.count("no figures from an agent") != 1 || n.out.count(want) != 1 || st.LastError != want || st.Accepted != 1 {
				t.Errorf("%s: %d lines, status %+v", want, n.out.count(want), st)
			}
			n.set(func() { old = false })
			settle(10 * time.Second)
			if n.out.count("answers again") != 1 {
				t.Errorf("%s: the recovery must be logged once", want)
			}
		})
	}
}
