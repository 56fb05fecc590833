package e2e

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"outrigger/sidecar/admin"
	"outrigger/test/harness"
)

// What happens to servers and to the agent, without ACLs, under load of which
// nothing may fail. The order matters in one place: an agent that has just
// started, or whose writes have just failed, takes a minute to leave.
func TestConsulUnderFire(t *testing.T) {
	t.Parallel()
	c := startCluster(t, "127.0.0.11", harness.ClusterOptions{})
	runOn(t, c, []scenario{
		{"CheckStorm", checkStorm},
		{"AgentLeaves", agentLeaves},
		{"LeaderKilled", leaderKilled},
		{"AgentKilled", agentKilled},
		{"AgentReturnsEmpty", agentReturnsEmpty},
	})
}

// The leader is killed: another is elected, and what registers then is found.
func leaderKilled(t *testing.T, c *harness.Cluster) {
	r := newRig(t, c, rigSpec{posts: true})
	old := r.leader()
	old.Kill()
	r.progress()
	if next := r.leader(); next == old {
		t.Errorf("%s leads after its death", old.Name())
	}
	r.progress()
	if d := r.await("the five to be there", func(d admin.ServiceDoc) bool { return d.EndpointsReady == 5 }); d.EndpointsTotal != 5 {
		t.Errorf("%d endpoints after the election", d.EndpointsTotal)
	}
	fresh := startBackend(t, "new")
	r.add(fresh)
	r.load.awaitFrom(fresh, 20)
	r.restart()
	r.finish("", "failing", "doubted")
}

// The agent is ended with SIGTERM: by default it leaves, and its services vanish
// from the catalog until it is back, while all of them run.
//
// Some may vanish from the sidecar too: while the agent leaves it may register its
// services again, one by one, and if its last answer comes halfway through, it is of
// one or two services less, as when these are deregistered.
func agentLeaves(t *testing.T, c *harness.Cluster) {
	r := newRig(t, c, rigSpec{posts: true})
	if err := c.Agent.Stop(); err != nil {
		t.Error(err)
	}
	r.await("at least three endpoints, failing", func(d admin.ServiceDoc) bool {
		return d.Discovery.State == "failing" && d.EndpointsTotal >= 3
	})
	r.progress()
	r.restart()
	r.finish("failing", "kept", "doubted")
}

// The agent is killed. Back, it holds every HTTP check for critical until it has
// run well: all turn critical at once, and are used all the same.
func agentKilled(t *testing.T, c *harness.Cluster) {
	r := newRig(t, c, rigSpec{posts: true})
	c.Agent.Kill()
	r.awaitState("failing", "", 5)
	r.progress()
	for _, b := range r.all { // so that it lasts as long as this test wants
		b.control("/ctl/set?health=500")
	}
	r.restart()
	r.await("panic", func(d admin.ServiceDoc) bool {
		return d.Panic && d.EndpointsTotal == 5 && d.Discovery.State == "current"
	})
	r.progress()
	for _, b := range r.all {
		b.control("/ctl/set?health=200")
	}
	r.await("the end of panic", func(d admin.ServiceDoc) bool { return !d.Panic && d.EndpointsReady == 5 })
	r.finish("failing")
}

// The agent loses what it knew of its services, and so deregisters them: Consul
// is of one mind that there are none, and all of them run.
func agentReturnsEmpty(t *testing.T, c *harness.Cluster) {
	r := newRig(t, c, rigSpec{posts: true})
	c.Agent.Kill()
	r.awaitState("failing", "", 5)
	if err := c.Agent.Wipe("services", "checks"); err != nil {
		t.Fatal(err)
	}
	r.restart()
	// It deregisters one after the other: the first two are half, and may be believed.
	r.await("what is lost to be kept", func(d admin.ServiceDoc) bool {
		return d.Discovery.State == "kept" && d.Discovery.Doubt == "empty_alive" &&
			d.Discovery.Unlisted >= 3 && d.EndpointsReady == d.Discovery.Unlisted
	})
	r.progress()
	r.register()
	r.finish("kept", "failing", "doubted")
}

// The output of a check changes ten times a second, and nothing else: that costs
// a read a second, no change of the set and next to no CPU.
func checkStorm(t *testing.T, c *harness.Cluster) {
	r := newRig(t, c, rigSpec{check: func(*backend) *api.AgentServiceCheck {
		return &api.AgentServiceCheck{TTL: "1h", Status: api.HealthPassing}
	}})
	const spell = 8 * time.Second
	calm := r.spell(spell)

	quit := make(chan struct{})
	var wg sync.WaitGroup
	blown := 0
	wg.Go(func() {
		for tick := time.NewTicker(100 * time.Millisecond); ; {
			select {
			case <-quit:
				return
			case <-tick.C:
			}
			if err := r.cat.client.Agent().UpdateTTL("service:"+r.ids[0], fmt.Sprintf("output %d", blown), "pass"); err != nil {
				t.Error(err)
				return
			}
			blown++
		}
	})
	r.await("the storm to be felt", func(d admin.ServiceDoc) bool { return d.Discovery.AnswersTotal > calm.after.Discovery.AnswersTotal+1 })
	storm := r.spell(spell)
	close(quit)
	wg.Wait()

	reads := storm.after.Discovery.AnswersTotal - storm.before.Discovery.AnswersTotal
	if most := uint64(storm.took.Seconds()) + 2 + 1; reads > most || reads < 2 {
		t.Errorf("%d reads in %v, want 2 at least and %d at most: one a second and a burst of two", reads, storm.took, most)
	}
	if was, is := calm.before.Discovery.UpdatesTotal, storm.after.Discovery.UpdatesTotal; was != is {
		t.Errorf("%d changes of the set, want none", is-was)
	}
	if storm.cpu > 2*calm.cpu {
		t.Errorf("a request costs %v of CPU in the storm and %v without", storm.cpu, calm.cpu)
	}
	t.Logf("%d changes of output, %d reads in %v; CPU per request %v, %v without", blown, reads, storm.took, storm.cpu, calm.cpu)
	r.finish()
}

// spell is what a sidecar did in a length of time.
type spell struct {
	before, after admin.ServiceDoc
	took, cpu     time.Duration // cpu is for each request of the load
}

func (r *rig) spell(length time.Duration) (s spell) {
	r.t.Helper()
	any := func(admin.ServiceDoc) bool { return true }
	start, cpu, sent := time.Now(), r.cpu(), r.load.snapshot().ok
	s.before = r.await("a status", any)
	for time.Since(start) < length {
		r.progress()
	}
	s.after, s.took = r.await("a status", any), time.Since(start)
	s.cpu = (r.cpu() - cpu) / time.Duration(r.load.snapshot().ok-sent)
	return s
}

// cpu is what the sidecar has used.
func (r *rig) cpu() time.Duration {
	r.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", r.s.proc.PID()))
	if err != nil {
		r.t.Fatal(err)
	}
	// After the name in parentheses: state, then ten fields, then user and system
	// time in hundredths of a second (man 5 proc).
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	var sum int64
	for _, f := range fields[11:13] {
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			r.t.Fatal(err)
		}
		sum += n
	}
	return time.Duration(sum) * 10 * time.Millisecond
}
