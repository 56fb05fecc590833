package agentstats

import (
	"context"
	"fmt"
	"net"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

func TestPollSchedule(t *testing.T) {
	polling(t, healthy, func(n *network, p *Poller, got *received) {
		var targets []Target
		for i := range 50 {
			targets = append(targets, Target{ID: fmt.Sprint(i), Addr: fmt.Sprintf("agent-%d:1", i)})
		}
		p.SetTargets(targets)
		begin := n.now()
		settle(time.Minute)
		var phases []time.Duration
		orders := map[string]bool{}
		for _, target := range targets {
			asked := n.requests(target.Addr)
			if len(asked) < 118 || len(asked) > 122 || n.dialed(target.Addr) != 1 {
				t.Fatalf("%d polls over %d connections in a minute", len(asked), n.dialed(target.Addr))
			}
			phases = append(phases, asked[0]-begin)
			for i, at := range asked[1:] {
				if (at-p.offset)%p.grid != 0 || p.grid != 25*ms {
					t.Fatalf("a poll at %s, off the grid of %s at %s", at, p.grid, p.offset)
				}
				if gap := at - asked[i]; gap < 450*ms || gap > 550*ms { // jitter and grid, 25 ms each
					t.Fatalf("a gap of %s", gap)
				}
			}
			if len(got.of(target.ID)) != len(asked) {
				t.Errorf("%d polls, %d samples", len(asked), len(got.of(target.ID)))
			}
		}
		// Phases fill the interval and are not in the order of the targets.
		if slices.Max(phases) > 525*ms || slices.Max(phases) < 450*ms || slices.Min(phases) > 50*ms || slices.IsSorted(phases) {
			t.Errorf("phases %v", phases)
		}
		// The order drifts: over time it is not one fixed order.
		for round := range 100 {
			order := make([]int, 10)
			for i := range order {
				order[i] = i
			}
			slices.SortFunc(order, func(a, b int) int {
				return int(n.requests(targets[a].Addr)[round] - n.requests(targets[b].Addr)[round])
			})
			orders[fmt.Sprint(order)] = true
		}
		if len(orders) < 20 {
			t.Errorf("only %d different orders in 100 rounds", len(orders))
		}
	})
}

func TestPollStamps(t *testing.T) {
	polling(t, func(_ string, n int) string { return at(n, `,"cores":2,"poll_ms":1500`) }, func(n *network, p *Poller, got *received) {
		n.delay = 40 * ms
		own := int64(0)
		p.env.InFlight = func(string) int64 { own++; return own }
		p.SetTargets(one())
		settle(4 * time.Second)
		samples := got.of("a")
		if len(samples) < 2 {
			t.Fatalf("%d samples", len(samples))
		}
		for i, s := range samples {
			if s.RTT != 40*ms || s.At != n.requests("a:1")[i]+20*ms || s.OwnInFlight != int64(i+1) || s.Report.Cores != Some(2.0) {
				t.Errorf("sample %d: %+v, asked at %s", i, s, n.requests("a:1")[i])
			}
			if s.Interval != 1500*ms || s.Expiry != 4500*ms {
				t.Errorf("the agent's wish: interval %s, expiry %s", s.Interval, s.Expiry)
			}
		}
		if gap := n.requests("a:1")[1] - n.requests("a:1")[0]; gap < 1400*ms || gap > 1600*ms {
			t.Errorf("a gap of %s, though the agent asked for 1.5 s", gap)
		}
		st, _ := p.Status("a")
		if st.Accepted != uint64(len(samples)) || st.Interval != 1500*ms || st.LastAt != samples[len(samples)-1].At || st.RTT != 40*ms {
			t.Errorf("status %+v", st)
		}
	})
}

func TestPollBackoff(t *testing.T) {
	polling(t, healthy, func(n *network, p *Poller, got *received) {
		n.refuse = true
		p.SetTargets(one())
		var tries []time.Duration
		for range 3000 { // 5 minutes
			before := n.dialed("a:1")
			settle(100 * ms)
			if n.dialed("a:1") > before {
				tries = append(tries, n.now())
			}
		}
		if len(tries) < 30 || len(tries) > 70 {
			t.Errorf("%d tries in 5 minutes", len(tries))
		}
		early := 0
		for i := 1; i < len(tries); i++ {
			most := min(500*ms<<min(i-1, 10), 10*time.Second)
			if gap := tries[i] - tries[i-1]; gap < most/2-100*ms || gap > most+100*ms {
				t.Errorf("gap %d is %s, want %s to %s", i, gap, most/2, most)
			} else if gap < most*3/4 {
				early++
			}
		}
		if early < len(tries)/4 || early > len(tries)*3/4 {
			t.Errorf("%d of %d pauses are in the lower half of their range", early, len(tries))
		}
		st, _ := p.Status("a")
		if st.Failures != uint64(len(tries)) || st.InARow != len(tries) || st.Backoff < 5*time.Second || st.Backoff > 10*time.Second || st.LastError != "connection refused" {
			t.Errorf("status %+v", st)
		}
		if c := n.out.count("no figures from an agent"); c != 1 {
			t.Errorf("logged %d times", c)
		}

		n.set(func() { n.refuse = false })
		settle(15 * time.Second)
		st, _ = p.Status("a")
		if st.InARow != 0 || st.Backoff != 0 || st.Accepted < 8 || n.out.count("an agent answers again") != 1 {
			t.Errorf("after recovery: %+v", st)
		}
		n.set(func() { n.refuse = true; n.answer = func(string, int) string { return "" } })
		settle(5 * time.Second)
		if c := n.out.count("no figures from an agent"); c != 2 {
			t.Errorf("a second outage: logged %d times", c)
		}
	})
}

func TestSetTargets(t *testing.T) {
	polling(t, healthy, func(n *network, p *Poller, got *received) {
		p.SetTargets([]Target{{ID: "a", Addr: "a:1"}, {ID: "b", Addr: "b:1"}, {ID: "c", Addr: "c:1"}, {ID: "a", Addr: "a:2"}})
		settle(2 * time.Second)
		if n.dialed("a:1") != 0 || n.dialed("a:2") != 1 {
			t.Error("of two targets with one ID the later counts")
		}
		before, _ := p.Status("b")
		// b stays, a moves, c goes, d comes.
		p.SetTargets([]Target{{ID: "b", Addr: "b:1"}, {ID: "a", Addr: "a:3"}, {ID: "d", Addr: "d:1"}})
		synctest.Wait()
		gone := len(got.of("c"))
		if n.opened("c:1") != 0 || n.opened("a:2") != 0 || n.opened("b:1") != 1 {
			t.Error("connections of targets that left, or of one that stays")
		}
		settle(2 * time.Second)
		after, _ := p.Status("b")
		if n.dialed("b:1") != 1 || after.Accepted <= before.Accepted || n.dialed("a:3") != 1 || n.dialed("d:1") != 1 {
			t.Errorf("status %+v", after)
		}
		if len(got.of("c")) != gone {
			t.Error("a target that was left out still reports")
		}
		if _, ok := p.Status("c"); ok {
			t.Error("a target that was left out has a status")
		}
		var ids []string
		for _, st := range p.All() {
			ids = append(ids, st.ID)
		}
		if !slices.Equal(ids, []string{"a", "b", "d"}) {
			t.Errorf("All: %v", ids)
		}
		for i, at := range n.requests("b:1")[1:] {
			if gap := at - n.requests("b:1")[i]; gap > 550*ms {
				t.Errorf("the schedule of a target that stays was disturbed: %s", gap)
			}
		}
		p.SetTargets(nil)
		synctest.Wait()
		if len(p.All()) != 0 || n.opened("b:1")+n.opened("a:3")+n.opened("d:1") != 0 {
			t.Errorf("after an empty set: %v", p.All())
		}
		if err := p.Run(t.Context(), nil); err == nil {
			t.Error("a second Run must be refused")
		}
	})
}

// TestStoppedTarget: an answer that came in while its target was dropped goes nowhere.
func TestStoppedTarget(t *testing.T) {
	p := NewPoller(DefaultPollConfig(), PollEnv{})
	target := newTarget(p, one()[0])
	count := 0
	sink := func(string, Sample) { count++ }
	target.deliver(sink, Sample{Report: Report{Version: Version, At: 1}})
	target.stop()
	target.deliver(sink, Sample{Report: Report{Version: Version, At: 2}})
	if count != 1 {
		t.Errorf("%d samples, want that of the first report", count)
	}
}

// TestSetTargetsWhileSending: targets are dropped at every stage of a poll.
func TestSetTargetsWhileSending(t *testing.T) {
	polling(t, healthy, func(n *network, p *Poller, got *received) {
		n.delay = 3 * ms
		for i := range 2000 {
			p.SetTargets(one())
			settle(time.Duration(i) * 377 * time.Microsecond % (600 * ms))
			p.SetTargets(nil)
			count := len(got.of("a"))
			settle(4 * ms)
			if len(got.of("a")) != count {
				t.Fatal("a sample after SetTargets returned")
			}
		}
		if len(got.of("a")) < 500 {
			t.Errorf("only %d samples", len(got.of("a")))
		}
	})
}

// BenchmarkPoll is the cost of one poll over loopback, both sides included: the
// exchange, the decoding and the agent's serving.
func BenchmarkPoll(b *testing.B) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	a := scriptedAgent(&scripted{r: full()}, newNetwork(nil).out.logger())
	a.take()
	ctx, cancel := context.WithCancel(b.Context())
	done := make(chan error, 1)
	go func() { done <- a.serve(ctx, l) }()
	defer func() {
		cancel()
		<-done
	}()
	p := NewPoller(DefaultPollConfig(), PollEnv{})
	t := newTarget(p, Target{ID: "a", Addr: l.Addr().String()})
	defer t.client.close()
	b.ReportAllocs()
	for b.Loop() {
		t.lastAt = 0
		if _, failed := t.once(b.Context(), func(string, Sample) {}); failed {
			b.Fatal(t.snapshot().LastError)
		}
	}
}
