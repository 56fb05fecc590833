package e2e

import (
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"outrigger/sidecar/admin"
	"outrigger/test/harness"
)

// terminate sends an app SIGTERM, upon which it finishes what it has.
func (b *backend) terminate() {
	b.t.Helper()
	if err := b.proc.Stop(slack(10 * time.Second)); err != nil {
		b.t.Error(err)
	}
}

// Three of five are deregistered and end at the same moment.
func deregistered(t *testing.T, c *harness.Cluster) {
	r := newRig(t, c, rigSpec{})
	for i, id := range r.ids[:3] {
		r.cat.deregister(id)
		r.all[i].proc.signal(t, syscall.SIGTERM)
	}
	r.progress()
	r.awaitState("current", "", 2)
	for _, b := range r.all[:3] {
		if status := b.proc.ended(t, 10*time.Second); status != 0 {
			t.Errorf("backend %s ended with status %d", b.name, status)
		}
	}
	r.finish("", "kept", "doubted")
}

// Three of five are deregistered and run on: they are kept, and in the end Consul
// is obeyed. (That of all of them is not: TestLastInstanceDeregistered.)
func deregisteredAndAlive(t *testing.T, c *harness.Cluster) {
	r := newRig(t, c, rigSpec{inConsul: `shrink_confirm = "4s"`})
	for _, id := range r.ids[:3] {
		r.cat.deregister(id)
	}
	// The first to go may be believed, if it shows before the others.
	r.await("those that are lost to be kept", func(d admin.ServiceDoc) bool {
		return d.Discovery.Doubt == "shrunk_alive" && d.Discovery.Unlisted >= 2 && d.EndpointsTotal == 2+d.Discovery.Unlisted
	})
	r.progress()
	r.awaitState("current", "", 2)
	r.finish("kept", "doubted")
}

// A deploy replaces one instance after the other: the new one first, then the old
// one is deregistered and ends.
func rollingDeploy(t *testing.T, c *harness.Cluster) {
	r := newRig(t, c, rigSpec{backends: 3})
	for i, old := range r.all {
		next := startBackend(t, old.name+"2")
		id := r.add(next)
		r.s.awaitEndpoint(id, "ready", isReady)
		r.cat.deregister(r.ids[i])
		old.terminate()
		r.s.awaitEndpoint(r.ids[i], "gone", isGone)
		r.load.awaitFrom(next, 20)
	}
	r.await("the three new ones", func(d admin.ServiceDoc) bool { return d.EndpointsTotal == 3 && d.EndpointsReady == 3 })
	r.finish("")
}

// A deploy replaces all instances in one transaction, and the old ones end when it
// shows. An answer that takes all away and gives as many is no loss.
func blueGreen(t *testing.T, c *harness.Cluster) {
	r := newRig(t, c, rigSpec{backends: 3, check: func(*backend) *api.AgentServiceCheck { return nil }})
	green := startBackends(t, "x", "y", "z")
	// The agent deregisters what it does not know of its own node, so that both
	// colours are of another: first the blue ones move there.
	const node = "colours"
	if _, err := r.cat.client.Catalog().Register(&api.CatalogRegistration{Node: node, Address: "127.0.0.1"}, nil); err != nil {
		t.Fatal(err)
	}
	r.swap(node, nil, r.all)
	for _, id := range r.ids {
		r.cat.deregister(id)
	}
	r.await("the blue ones on their node", func(d admin.ServiceDoc) bool {
		return d.EndpointsReady == 3 && d.EndpointsTotal == 3 && d.Discovery.State == "current"
	})

	r.swap(node, r.all, green)
	r.await("the green ones", func(d admin.ServiceDoc) bool {
		return d.EndpointsReady == 3 && d.EndpointsTotal == 3 && d.Discovery.State == "current"
	})
	for i, b := range green {
		r.load.awaitFrom(b, 20)
		r.all[i].terminate()
	}
	r.progress()
	r.finish("")
}

// swap takes backends out of a node's services and puts others in, in one
// transaction.
func (r *rig) swap(node string, out, in []*backend) {
	r.t.Helper()
	var ops api.TxnOps
	op := func(verb api.ServiceOp, b *backend) {
		ops = append(ops, &api.TxnOp{Service: &api.ServiceTxnOp{Verb: verb, Node: node,
			Service: api.AgentService{ID: r.name + "-" + b.name, Service: r.name, Address: "127.0.0.1", Port: b.port}}})
	}
	for _, b := range out {
		op(api.ServiceDelete, b)
	}
	for _, b := range in {
		op(api.ServiceSet, b)
	}
	ok, res, _, err := r.cat.client.Txn().Txn(ops, nil)
	if err != nil || !ok {
		r.t.Fatalf("the transaction: %v, %+v", err, res)
	}
}
