package e2e

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"outrigger/sidecar/admin"
	"outrigger/test/harness"
)

// Consul dies under load and comes back knowing nothing: traffic goes on from
// the last good set, status says so, and what is registered then is followed.
func TestConsulKilledAndRestartedEmpty(t *testing.T) {
	t.Parallel()
	consul := startConsul(t, harness.Options{})
	cat := catalogOf(t, consul)
	for i := range 200 { // so that its index is above what the new one begins with
		if _, err := cat.client.KV().Put(&api.KVPair{Key: fmt.Sprint("filler/", i)}, nil); err != nil {
			t.Fatal(err)
		}
	}
	all := startBackends(t, "a", "b", "c")
	for _, b := range all {
		cat.register("shop", b)
	}
	s := startSidecar(t, sidecarSpec{
		consul: consul.Addr(), inConsul: "backoff_max = \"1s\"\nempty_confirm = \"1m\"", services: oneService("shop", ""),
	})
	s.awaitReady(3)
	indexBefore := s.web().Discovery.Index
	l := startLoad(t, loadSpec{addr: s.addr(), clients: 6, think: 5 * time.Millisecond})
	l.awaitMore(50)

	consul.Kill()
	var failing float64
	s.awaitService("web", "the outage to show", func(doc admin.ServiceDoc) bool {
		if d := doc.Discovery; !d.Current && d.FailingForSeconds != nil {
			failing = *d.FailingForSeconds
			return true
		}
		return false
	})
	s.awaitService("web", "the outage's age to grow", func(doc admin.ServiceDoc) bool {
		return doc.Discovery.FailingForSeconds != nil && *doc.Discovery.FailingForSeconds > failing+1 &&
			doc.Discovery.LastError != "" && doc.EndpointsReady == 3
	})
	if r := get(t, s.admin, "/readyz"); r.status != 200 {
		t.Errorf("/readyz while Consul is down: %d, want 200", r.status)
	}
	l.awaitMore(50)

	ctx, cancel := context.WithTimeout(t.Context(), slack(time.Minute))
	defer cancel()
	if err := consul.Restart(ctx); err != nil {
		t.Fatal(err)
	}
	s.awaitService("web", "the empty catalog to be doubted", func(doc admin.ServiceDoc) bool {
		return doc.Discovery.Holding != "" && doc.Discovery.FailingForSeconds == nil && doc.EndpointsReady == 3
	})
	l.awaitMore(50)

	fresh := startBackend(t, "d") // comes only after the restart
	for _, b := range append(all, fresh) {
		cat.register("shop", b)
	}
	doc := s.awaitService("web", "the new catalog to be believed", func(doc admin.ServiceDoc) bool {
		return doc.EndpointsReady == 4 && doc.EndpointsTotal == 4 && doc.Discovery.Current
	})
	if doc.Discovery.Index >= indexBefore {
		t.Errorf("the index went from %d to %d: this test is about one that goes backwards", indexBefore, doc.Discovery.Index)
	}
	l.awaitFrom(fresh, 20)

	// The watch blocks again: a change shows without waiting for a time-out.
	cat.deregister("shop-a")
	s.awaitEndpoint("shop-a", "gone", isGone)
	l.awaitMore(50)
	l.stop().clean(t)
}
