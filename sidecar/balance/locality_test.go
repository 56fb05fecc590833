package balance

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"outrigger/discovery"
	"outrigger/picker"
)

// at makes instance i run there.
func at(i int, node, zone, datacenter string) discovery.Instance {
	inst := instance(i)
	inst.Node, inst.Datacenter, inst.Zone = node, datacenter, zone
	return inst
}

func prefer(names ...string) func(*Config) { return func(c *Config) { c.Locality.Prefer = names } }

func (r *rig) wantDistances(want ...string) {
	r.t.Helper()
	synctest.Wait()
	for i, e := range r.Status().Endpoints {
		if e.Distance != want[i] {
			r.t.Errorf("endpoint %d is called %q, want %q", i, e.Distance, want[i])
		}
	}
}

func world() []discovery.Instance {
	return []discovery.Instance{
		at(0, "n1", "a", "dc1"), at(1, "n2", "a", "dc1"), at(2, "n3", "b", "dc1"), at(3, "n1", "a", "dc2"), at(4, "n4", "", ""),
	}
}

func TestDistances(t *testing.T) {
	self := discovery.Self{Node: "n1", Datacenter: "dc1", Meta: map[string]string{"zone": "a", "rack": "b"}}
	for _, c := range []struct {
		change func(*Config)
		want   string
	}{
		{prefer("node", "zone", "datacenter"), "node zone datacenter elsewhere elsewhere"},
		{prefer("zone"), "zone zone elsewhere elsewhere elsewhere"},
		{prefer("datacenter", "node"), "datacenter datacenter datacenter elsewhere elsewhere"},
		{func(c *Config) { prefer("node", "zone")(c); c.Locality.Node, c.Locality.Zone = "n3", "" }, "zone zone node elsewhere elsewhere"},
		{func(c *Config) { prefer("node", "zone")(c); c.Locality.Zone = "b" }, "node elsewhere zone elsewhere elsewhere"},
		{func(c *Config) { prefer("zone")(c); c.Locality.ZoneMeta = "rack" }, "elsewhere elsewhere zone elsewhere elsewhere"},
		{func(c *Config) { prefer("node", "zone")(c); c.Locality.Datacenter = "dc2" }, "elsewhere elsewhere elsewhere node elsewhere"},
	} {
		bubble(t, func(t *testing.T) {
			r := newRig(t, c.change)
			r.run()
			r.Update(world())
			r.SetSelf(self)
			r.wantDistances(strings.Fields(c.want)...)
			again := world()
			again[1], again[2] = at(1, "n2", "b", "dc1"), at(2, "n3", "a", "dc1") // zones are swapped
			r.Update(again)
			r.Update(world())
			r.wantDistances(strings.Fields(c.want)...)
		})
	}
	bubble(t, func(t *testing.T) {
		r := newRig(t, nil)
		r.Update(world())
		r.SetSelf(self)
		r.wantDistances("", "", "", "", "")
	})
}

func TestNothingIsKnownOfHere(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, prefer("node", "zone"))
		r.run()
		r.Update(world())
		r.wantDistances("elsewhere", "elsewhere", "elsewhere", "elsewhere", "elsewhere")
		for i, part := range r.parts(2000) {
			if part < 0.1 {
				t.Errorf("endpoint %d has %.3f", i, part)
			}
		}
		r.SetSelf(discovery.Self{Node: "n1", Datacenter: "dc1", Meta: map[string]string{"zone": "a"}})
		synctest.Wait()
		if got := r.parts(100); got[0] < 0.999 {
			t.Errorf("once it is known: parts %v", got)
		}
		if m := r.Status().Mode; m != "nearest first: node (1), then zone (1), then elsewhere (3); least in-flight per weight" {
			t.Errorf("mode %q", m)
		}
	})
}

// TestNearThenFar: load spills over, ejection too, and all comes back.
func TestNearThenFar(t *testing.T) {
	for _, name := range picker.Names() {
		bubble(t, func(t *testing.T) {
			r := newRig(t, func(c *Config) {
				prefer("zone")(c)
				c.Picker.Policy, c.Locality.Zone, c.SlowStart = name, "a", 0
				c.PanicThreshold = 0.3 // one of three is enough
			})
			r.run()
			r.Update(world()[:3]) // two in the zone, one elsewhere
			key := uint64(0)
			get := func() Lease {
				key += 0x9e3779b97f4a7c15
				l, err := r.TryAcquire(Key{Hash: key})
				if err != nil {
					t.Fatalf("%s: %v", name, err)
				}
				return l
			}
			for range 100 {
				l := get()
				if l.Endpoint() == r.endpoint(2) {
					t.Errorf("%s: an idle zone spilt over", name)
				}
				l.Done(ok)
			}
			var held []Lease
			for range 100 {
				held = append(held, get())
			}
			// The margin alone would give 44, 44 and 21 or so.
			if n := r.endpoint(2).InFlight(); n < 10 || n > 40 {
				t.Errorf("%s: %d of 100 in flight are elsewhere", name, n)
			}
			for i := range held {
				held[i].Done(ok)
			}
			set := world()[:3]
			set[0].Health, set[1].Health = discovery.Critical, discovery.Critical
			r.Update(set)
			l := get()
			if l.Endpoint() != r.endpoint(2) {
				t.Errorf("%s: leased %s", name, l.Endpoint().ID)
			}
			l.Done(ok)
			r.Update(world()[:3])
			l = get()
			if l.Endpoint() == r.endpoint(2) {
				t.Errorf("%s: did not come back", name)
			}
			l.Done(ok)
			r.quiet()
		})
	}
}

// TestTiersBeforeLocality: a near backup is a backup.
func TestTiersBeforeLocality(t *testing.T) {
	r := newRig(t, func(c *Config) { prefer("node")(c); c.Locality.Node = "n1" })
	set := world()[:3]
	set[0].Backup = true
	r.Update(set)
	for range 50 {
		l := r.get()
		if l.Endpoint() == r.endpoint(0) {
			t.Fatal("a backup was used for its nearness")
		}
		l.Done(ok)
	}
}

func TestLocalityConfig(t *testing.T) {
	for want, change := range map[string]func(*Config){
		`prefer has "rack", allowed are node, zone, datacenter`: func(c *Config) { c.Locality.Prefer = []string{"node", "rack"} },
		`prefer has "zone" twice`:                               func(c *Config) { c.Locality.Prefer = []string{"zone", "zone"} },
		`spill is 0.5, allowed are 1 to 100`:                    func(c *Config) { c.Locality.Spill = 0.5 },
		`node "a\n"`:                                            func(c *Config) { c.Locality.Node = "a\n" },
		`zone "\x00"`:                                           func(c *Config) { c.Locality.Zone = "\x00" },
		`zone_meta is empty`:                                    func(c *Config) { c.Locality.Prefer, c.Locality.ZoneMeta = []string{"zone"}, "" },
		`slow_start is 1ms`:                                     func(c *Config) { c.SlowStart = time.Millisecond },
		`slow_start is -1s`:                                     func(c *Config) { c.SlowStart = -time.Second },
	} {
		cfg := DefaultConfig()
		change(&cfg)
		if err := cfg.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %s", err, want)
		}
	}
	c := DefaultConfig().Locality
	if c.WantsSelf() {
		t.Error("wants to know where it is for nothing")
	}
	c.Prefer = []string{"zone"}
	if !c.WantsSelf() {
		t.Error("does not want to know its zone")
	}
	if c.ZoneMeta = "az"; c.NodeMeta() != "az" {
		t.Errorf("asks for the key %q", c.NodeMeta())
	}
	if c := (LocalityConfig{Prefer: []string{"node"}, ZoneMeta: "az"}); c.NodeMeta() != "" {
		t.Errorf("asks for the key %q without need", c.NodeMeta())
	}
	c.Zone, c.Datacenter = "a", "dc1"
	if c.WantsSelf() {
		t.Error("wants to know what it was told")
	}
}
