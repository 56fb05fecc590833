package discovery

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/consul/api"
)

func checks(states ...string) api.HealthChecks {
	var out api.HealthChecks
	for i, s := range states {
		id := fmt.Sprint("c", i)
		if strings.HasPrefix(s, "_") {
			id, s = s, api.HealthCritical
		}
		out = append(out, &api.HealthCheck{CheckID: id, Status: s})
	}
	return out
}

func TestAggregate(t *testing.T) {
	for _, tc := range []struct {
		checks api.HealthChecks
		want   Health
	}{
		{nil, Passing},
		{api.HealthChecks{nil}, Passing},
		{checks("passing"), Passing},
		{checks("passing", "warning", "passing"), Warning},
		{checks("critical", "warning", "passing"), Critical},
		{checks("warning", "critical"), Critical},
		{checks("passing", ""), Critical},
		{checks("any"), Critical},
		{checks("passing", "_node_maintenance"), Maintenance},
		{checks("critical", "_service_maintenance:web-1"), Maintenance},
		{checks("_service_maintenance:web-1", "critical"), Maintenance},
		{checks("_service_maintenance"), Critical}, // not that ID: a check like any other
	} {
		if got := aggregate(tc.checks); got != tc.want {
			t.Errorf("%v: got %s, want %s", tc.checks, got, tc.want)
		}
	}
}

func TestEffectiveWeight(t *testing.T) {
	for _, tc := range []struct {
		w    api.AgentWeights
		h    Health
		want int
		note bool
	}{
		{api.AgentWeights{}, Passing, 1, false},
		{api.AgentWeights{}, Warning, 1, false},
		{api.AgentWeights{Passing: 5, Warning: 2}, Passing, 5, false},
		{api.AgentWeights{Passing: 5, Warning: 2}, Warning, 2, false},
		{api.AgentWeights{Passing: 5, Warning: 0}, Warning, 0, false},
		{api.AgentWeights{Passing: 0, Warning: 3}, Passing, 0, false},
		{api.AgentWeights{Passing: 5, Warning: 2}, Critical, 5, false},
		{api.AgentWeights{Passing: 5, Warning: 2}, Maintenance, 0, false},
		{api.AgentWeights{Passing: -1}, Passing, 0, true},
		{api.AgentWeights{Passing: 65535}, Passing, 65535, false},
		{api.AgentWeights{Passing: 65536}, Passing, 65535, true},
	} {
		got, note := effectiveWeight(tc.w, tc.h)
		if got != tc.want || (note != "") != tc.note {
			t.Errorf("%+v %s: got %d %q", tc.w, tc.h, got, note)
		}
	}
}

func TestCheckHost(t *testing.T) {
	long := strings.Repeat("a", 63)
	good := []string{
		"10.0.0.1", "127.0.0.1", "169.254.1.1", "::1", "fd00::1", "::ffff:10.0.0.1", "localhost", "a", "web.example",
		"web.example.", "3com.example", "a-b.c-d", "xn--bcher-kva.example", long + ".b", "WEB", "1.2.3.a", "0xg",
	}
	bad := []string{
		"", ".", "..", "a..b", ".a", "-a", "a-", "a.-b", "a_b", "a b", "a/b", "a:80", "[::1]", "http://a", "a\n", "a\x00",
		"bücher.example", long + "a", strings.Repeat("a.", 127) + "a", "999.1.1.1", "1", "1.2.3", "10.0.0.01", "a.1", "0x7f", "a.0x7f000001", "0X1",
		"0.0.0.0", "::", "224.0.0.1", "ff02::1", "255.255.255.255", "fe80::1%eth0", "::ffff:0.0.0.0", "../x", "unix:///x", "a@b", "a%41",
	}
	for _, h := range good {
		if err := checkHost(h); err != nil {
			t.Errorf("%q: %v", h, err)
		}
	}
	for _, h := range bad {
		if err := checkHost(h); err == nil {
			t.Errorf("%q passed", h)
		}
	}
}

func entry(node, id, nodeAddr, addr string, port int) *api.ServiceEntry {
	return &api.ServiceEntry{
		Node:    &api.Node{Node: node, Address: nodeAddr, Datacenter: "dc1"},
		Service: &api.AgentService{ID: id, Service: "web", Address: addr, Port: port, Weights: api.AgentWeights{Passing: 1, Warning: 1}},
	}
}

func TestConvert(t *testing.T) {
	full := entry("n1", "web-1", "10.0.0.1", "10.1.0.1", 80)
	full.Service.Tags = []string{"v2", "eu"}
	full.Service.Meta = map[string]string{"k": "v"}
	full.Service.Weights = api.AgentWeights{Passing: 7, Warning: 3}
	full.Checks = checks("warning")
	set, odd := convert(&Query{Service: "web"}, []*api.ServiceEntry{
		entry("n2", "web-1", "node.example", "", 80), // the same service ID on another node
		full,
		entry("n1/x%", "web-1", "10.0.0.3", "", 80),
		entry("n1", "v6", "10.0.0.3", "FD00:0:0::1", 80),
	})
	want := []Instance{
		{ID: "n1%2Fx%25/web-1", Service: "web", Node: "n1/x%", Datacenter: "dc1", Address: "10.0.0.3", Port: 80, Weight: 1},
		{ID: "n1/v6", Service: "web", Node: "n1", Datacenter: "dc1", Address: "fd00::1", Port: 80, Weight: 1},
		{ID: "n1/web-1", Service: "web", Node: "n1", Datacenter: "dc1", Address: "10.1.0.1", Port: 80, Weight: 3, Health: Warning,
			Tags: []string{"eu", "v2"}, Meta: map[string]string{"k": "v"}},
		{ID: "n2/web-1", Service: "web", Node: "n2", Datacenter: "dc1", Address: "node.example", Port: 80, Weight: 1},
	}
	if !reflect.DeepEqual(set, want) || len(odd) != 0 {
		t.Errorf("got %+v\nodd %+v", set, odd)
	}
	if full.Service.Tags[0] != "v2" {
		t.Error("sorted the caller's tags")
	}
}

func TestConvertLeavesOut(t *testing.T) {
	heavy := entry("n", "heavy", "10.0.0.1", "", 80)
	heavy.Service.Weights.Passing = 1 << 20
	kinds := []struct {
		e    *api.ServiceEntry
		want string
	}{
		{nil, "without node"},
		{&api.ServiceEntry{}, "without node"},
		{&api.ServiceEntry{Node: &api.Node{}}, "without node"},
		{entry("", "a", "10.0.0.1", "", 80), "no node name"},
		{entry("n", "", "10.0.0.1", "", 80), "no service ID"},
		{entry("n", "a\x1b[2J", "10.0.0.1", "", 80), "not printable"},
		{entry("n", strings.Repeat("x", 600), "10.0.0.1", "", 80), "longer"},
		{entry("n", "a", "", "", 80), "address"},
		{entry("n", "a", "10.0.0.1", "nope nope", 80), "address"},
		{entry("n", "a", "10.0.0.1", "", 0), "no port"},
		{entry("n", "a", "10.0.0.1", "", -1), "port -1"},
		{entry("n", "a", "10.0.0.1", "", 65536), "port 65536"},
	}
	var all []*api.ServiceEntry
	for _, k := range kinds {
		all = append(all, k.e)
		set, odd := convert(&Query{Service: "web"}, []*api.ServiceEntry{k.e})
		if len(set) != 0 || len(odd) != 1 || !odd[0].Dropped || !strings.Contains(odd[0].Text, k.want) {
			t.Errorf("%s: set %+v, odd %+v", k.want, set, odd)
		}
	}
	set, odd := convert(&Query{Service: "web"}, append(all, heavy))
	if len(set) != 1 || set[0].Weight != maxWeight || len(odd) != len(kinds)+1 || odd[len(odd)-1].Dropped {
		t.Errorf("set %+v, odd %+v", set, odd)
	}
}

func TestConvertKeepsTheSameOfDoubles(t *testing.T) {
	in := []*api.ServiceEntry{
		entry("n", "a", "10.0.0.2", "", 80), entry("n", "a", "10.0.0.1", "", 81), entry("n", "a", "10.0.0.1", "", 80), entry("n", "b", "10.0.0.1", "", 80),
	}
	for range 20 {
		rand.Shuffle(len(in), func(i, j int) { in[i], in[j] = in[j], in[i] })
		set, odd := convert(&Query{Service: "web"}, in)
		if len(set) != 2 || set[0].HostPort() != "10.0.0.1:80" || len(odd) != 2 {
			t.Fatalf("set %+v, odd %+v", set, odd)
		}
	}
}

func FuzzConvert(f *testing.F) {
	f.Add([]byte(entries("a", "b:critical", "c:warning")))
	f.Add([]byte(`[null,{},{"Node":null},{"Node":{},"Service":{},"Checks":[null]}]`))
	f.Add([]byte(`[{"Node":{"Node":"n/","Address":"0.0.0.0"},"Service":{"ID":"x","Port":1,"Weights":{"Passing":-5}},"Checks":[{"CheckID":"_node_maintenance"}]}]`))
	f.Add([]byte(`[{"Node":{"Node":"n","Address":"::1"},"Service":{"ID":"x","Ports":[{"Port":9,"Default":true}],"Weights":{"Passing":99999}},"Checks":[{"Definition":{"Interval":"x"}}]}]`))
	f.Fuzz(func(t *testing.T, body []byte) {
		var in []*api.ServiceEntry
		if json.Unmarshal(body, &in) != nil {
			return
		}
		set, odd := convert(&Query{Service: "web"}, in)
		dropped := 0
		for _, o := range odd {
			if o.Dropped {
				dropped++
			}
		}
		if len(set)+dropped != len(in) {
			t.Fatalf("%d entries became %d instances and %d left out", len(in), len(set), dropped)
		}
		for i, inst := range set {
			if err := inst.Validate(); err != nil {
				t.Fatalf("%+v: %v", inst, err)
			}
			if i > 0 && set[i-1].ID >= inst.ID {
				t.Fatalf("%q after %q", inst.ID, set[i-1].ID)
			}
			if !slices.IsSorted(inst.Tags) {
				t.Fatalf("tags %q", inst.Tags)
			}
		}
		slices.Reverse(in)
		again, _ := convert(&Query{Service: "web"}, in)
		if d := diff(set, again); d.Added+d.Removed > 0 {
			t.Fatalf("the order of the answer matters: %+v", d)
		}
		if near := byAnswer(set, in); len(near) != len(set) {
			t.Fatalf("%d by distance of %d", len(near), len(set))
		}
	})
}
