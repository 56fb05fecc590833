package admin

import (
	"encoding/json"
	"testing"

	"outrigger/discovery"
	"outrigger/picker"
	"outrigger/sidecar/balance"
)

// TestStatusNear: where the sidecar is, what is near, and who was bound.
func TestStatusNear(t *testing.T) {
	t.Parallel()
	f := newFleet(t, func(c *balance.Config) { c.Locality.Prefer, c.Pins = []string{"node", "zone"}, true })
	f.Update([]discovery.Instance{instance("n/a", 81), instance("m/b", 82)})
	f.SetSelf(discovery.Self{Node: "n", Datacenter: "dc1"})
	l, err := f.TryAcquire(balance.Key{Pin: picker.Hash("n/a")})
	if err != nil {
		t.Fatal(err)
	}
	l.Done(picker.Result{})
	if l, err = f.TryAcquire(balance.Key{Pin: picker.Hash("n/gone")}); err != nil {
		t.Fatal(err)
	}
	l.Done(picker.Result{})
	_, addr := start(t, Options{Services: []Service{f.explained("web")}})
	_, body := get(t, addr, "/v1/status")
	var doc StatusDoc
	if err := json.Unmarshal([]byte(body), &doc); err != nil {
		t.Fatal(err)
	}
	st := f.Status()
	s := doc.Services[0]
	if s.Here == nil || *s.Here != (HereDoc{Node: "n", Datacenter: "dc1"}) || s.Endpoints[0].Distance != "node" || s.Endpoints[1].Distance != "elsewhere" {
		t.Errorf("%+v in\n%s", s.Here, body)
	}
	if st.Pinned != 1 || s.PinnedTotal != st.Pinned || s.PinMissedTotal != st.PinMissed {
		t.Errorf("%d and %d, want %d and %d", s.PinnedTotal, s.PinMissedTotal, st.Pinned, st.PinMissed)
	}
}
