package agentstats

import (
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
