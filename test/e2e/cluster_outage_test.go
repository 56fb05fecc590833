package e2e

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"outrigger/sidecar/admin"
	"outrigger/test/harness"
)

// What takes its time: a minute without a quorum, which is a real one, and five
// minutes without Consul, at a tenth unless OUTRIGGER_LONG is set.
//
// Not with the race detector, under which each test of this package runs a second
// time: the sidecar does nothing here that TestConsulUnderFire and
// TestConsulTokensAndDeploys do not have it do, it only does it for longer.
func TestConsulOutages(t *testing.T) {
	t.Parallel()
	if raceEnabled {
		t.Skip("its length is the point, not its code")
	}
	c := startCluster(t, "127.0.0.31", harness.ClusterOptions{})
	runOn(t, c, []scenario{{"QuorumLost", quorumLost}, {"ConsulGone", consulGone}})
}

// passes goes on for a length of time in which the load passes all the while.
func (r *rig) passes(length time.Duration) {
	r.t.Helper()
	for start := time.Now(); time.Since(start) < length; {
		r.progress()
		if d := r.await("all five to be there", func(d admin.ServiceDoc) bool { return d.EndpointsReady == 5 }); d.EndpointsTotal != 5 {
			r.t.Fatalf("there are %d endpoints", d.EndpointsTotal)
		}
	}
}

func quorumLost(t *testing.T, c *harness.Cluster) {
	r := newRig(t, c, rigSpec{posts: true})
	leader := r.leader()
	killed := 1
	leader.Kill()
	for _, n := range c.Servers {
		if n != leader && killed < 2 {
			n.Kill()
			killed++
		}
	}
	r.passes(time.Minute)
	fresh := startBackend(t, "new")
	_, err := r.cat.client.Catalog().Register(&api.CatalogRegistration{Node: "n2", Address: "127.0.0.1",
		Service: &api.AgentService{ID: "x", Service: r.name, Port: fresh.port}}, nil)
	if err == nil {
		t.Error("a registration without a quorum succeeded")
	}
	r.restart()
	r.add(fresh)
	r.load.awaitFrom(fresh, 20)
	r.finish("", "failing", "doubted")
}

// All of Consul dies and comes back knowing nothing, with indexes that begin anew.
func consulGone(t *testing.T, c *harness.Cluster) {
	outage := 30 * time.Second
	spec := rigSpec{posts: true, inConsul: "spread = \"1s\"\nshrink_confirm = \"6s\"\n"}
	if long() {
		outage, spec.inConsul = 5*time.Minute, ""
	}
	spec.ready = func(r *rig) {
		for i := range 200 { // so that its index is above what the new one begins with
			if _, err := r.cat.client.KV().Put(&api.KVPair{Key: fmt.Sprint("filler/", i)}, nil); err != nil {
				t.Fatal(err)
			}
		}
	}
	r := newRig(t, c, spec)
	before := r.await("an index", func(d admin.ServiceDoc) bool { return true })
	for _, n := range c.Nodes() {
		n.Kill()
		if err := n.Wipe(); err != nil {
			t.Fatal(err)
		}
	}
	begun := r.awaitState("failing", "", 5)
	r.passes(outage)
	over := r.awaitState("failing", "", 5)
	if grown := *over.Discovery.AgeSeconds - *begun.Discovery.AgeSeconds; grown < outage.Seconds()-1 {
		t.Errorf("in %v without Consul the set's age grew by %v s", outage, grown)
	}
	r.restart()
	r.await("the empty catalog not to be believed", func(d admin.ServiceDoc) bool {
		return (d.Discovery.State == "kept" || d.Discovery.State == "doubted") && d.EndpointsTotal == 5
	})
	r.progress()
	r.register()
	after := r.awaitState("current", "", 5)
	if after.Discovery.Index >= before.Discovery.Index {
		t.Errorf("the index went from %d to %d: this is about one that goes backwards", before.Discovery.Index, after.Discovery.Index)
	}
	// The watch blocks again: a change shows without waiting for a time-out.
	fresh := startBackend(t, "new")
	r.add(fresh)
	r.load.awaitFrom(fresh, 20)
	r.finish("failing", "kept", "doubted")
}

// A sidecar that is restarted while Consul is down serves what the one before it
// knew, and says so. What it cannot read from the disk it reports and ignores.
func restartWithoutConsul(t *testing.T, c *harness.Cluster) {
	token, _ := newToken(t, c, "restart")
	state := filepath.Join(t.TempDir(), "state")
	r := newRig(t, c, rigSpec{
		stateDir: state, inConsul: fmt.Sprintf("snapshot_interval = \"1s\"\ntoken = %q", token.SecretID),
	})
	snapshots := func() []string {
		found, _ := filepath.Glob(filepath.Join(state, "discovery", "*.snapshot"))
		return found
	}
	eventually(t, 20*time.Second, "a snapshot", func() error {
		if len(snapshots()) == 0 {
			return errNotYet
		}
		return nil
	})
	old := r.load
	old.stop().clean(t)
	last := startLoad(t, loadSpec{addr: r.s.addr(), clients: 6, think: 5 * time.Millisecond, untilRefused: true})
	last.awaitMore(100)
	c.Agent.Kill()
	r.awaitState("failing", "", 5)
	r.watch.stop()
	r.s.endsWell(t)
	last.join().clean(t)

	corrupt := filepath.Join(t.TempDir(), "corrupt")
	copyCorrupted(t, state, corrupt)
	r.s.run()
	d := r.awaitState("snapshot", "", 5)
	if d.Discovery.SnapshotAgeSeconds == nil || d.EndpointsReady != 5 {
		t.Errorf("the status is %+v, want an age of the snapshot and five ready", d)
	}
	if a := get(t, r.s.admin, "/readyz"); a.status != 200 {
		t.Errorf("/readyz with a snapshot: %d", a.status)
	}
	r.watch = watchStatus(r)
	r.startLoad()

	bad := launchSidecar(t, sidecarSpec{consul: c.Agent.Addr(), services: oneService(r.name, ""), stateDir: corrupt,
		inConsul: fmt.Sprintf("backoff_max = \"1s\"\ntoken = %q", token.SecretID)})
	bad.says("snapshot")
	bad.awaitService("web", "not to know the service", func(d admin.ServiceDoc) bool { return d.Discovery.State == "unknown" && d.EndpointsTotal == 0 })
	if a := get(t, bad.admin, "/readyz"); a.status != 503 {
		t.Errorf("/readyz with a corrupt snapshot: %d, want 503", a.status)
	}

	r.restart()
	bad.awaitService("web", "to know the service", func(d admin.ServiceDoc) bool { return d.Discovery.State == "current" && d.EndpointsReady == 5 })
	r.finish("snapshot", "failing", "kept", "doubted")
}

// copyCorrupted copies a state directory, with one byte of each snapshot changed.
func copyCorrupted(t *testing.T, from, to string) {
	t.Helper()
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(to, 0o700); err != nil {
		t.Fatal(err)
	}
	err := filepath.WalkDir(to, func(path string, d os.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, ".snapshot") {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(path, bytes.Replace(text, []byte(`"port":`), []byte(`"porT":`), 1), 0o600)
	})
	if err != nil {
		t.Fatal(err)
	}
}
