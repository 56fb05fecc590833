package discovery

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/consul/api"
)

func TestDiffSeesEveryField(t *testing.T) {
	base := Instance{ID: "n/a", Service: "s", Node: "n", Datacenter: "d", Address: "10.0.0.1", Port: 1, Weight: 1,
		Tags: []string{"x"}, Meta: map[string]string{"k": "v"}}
	for name, change := range map[string]func(*Instance){
		"Service":    func(i *Instance) { i.Service = "z" },
		"Node":       func(i *Instance) { i.Node = "z" },
		"Datacenter": func(i *Instance) { i.Datacenter = "z" },
		"Address":    func(i *Instance) { i.Address = "z" },
		"Port":       func(i *Instance) { i.Port = 2 },
		"Weight":     func(i *Instance) { i.Weight = 2 },
		"Health":     func(i *Instance) { i.Health = Critical },
		"Tags":       func(i *Instance) { i.Tags = []string{"y"} },
		"fewer tags": func(i *Instance) { i.Tags = nil },
		"Meta":       func(i *Instance) { i.Meta = map[string]string{"k": "w"} },
		"no Meta":    func(i *Instance) { i.Meta = nil },
	} {
		next := base
		change(&next)
		if d := diff([]Instance{base}, []Instance{next}); d != (delta{Changed: 1}) {
			t.Errorf("%s: %+v", name, d)
		}
	}
	if d := diff([]Instance{base}, []Instance{base}); !d.none() {
		t.Errorf("the same: %+v", d)
	}
	none := base
	none.Tags, none.Meta = nil, nil
	empty := none
	empty.Tags, empty.Meta = []string{}, map[string]string{}
	if d := diff([]Instance{none}, []Instance{empty}); !d.none() {
		t.Errorf("none and empty: %+v", d)
	}
}

// Against the definition, by maps.
func TestDiffAgainstMaps(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	random := func() []Instance {
		var set []Instance
		for i := range 8 {
			if r.IntN(2) == 0 {
				set = append(set, Instance{ID: fmt.Sprint(i), Port: r.IntN(2)})
			}
		}
		return set
	}
	for range 2000 {
		old, new := random(), random()
		var want delta
		ports := map[string]int{}
		for _, i := range old {
			ports[i.ID] = i.Port
		}
		for _, i := range new {
			port, ok := ports[i.ID]
			switch {
			case !ok:
				want.Added++
			case port != i.Port:
				want.Changed++
			}
			delete(ports, i.ID)
		}
		want.Removed = len(ports)
		if got := diff(old, new); got != want {
			t.Fatalf("%v to %v: got %+v, want %+v", old, new, got, want)
		}
	}
}

func TestByAnswer(t *testing.T) {
	in := []*api.ServiceEntry{entry("n", "c", "10.0.0.1", "", 1), nil, entry("n", "a", "10.0.0.1", "", 0), entry("n", "b", "10.0.0.1", "", 1), entry("n", "c", "10.0.0.9", "", 1)}
	set, _ := convert(&Query{Service: "web"}, in)
	before := slices.Clone(set)
	var got []string
	for _, i := range byAnswer(set, in) {
		got = append(got, i.ID)
	}
	if strings.Join(got, " ") != "n/c n/b" {
		t.Errorf("got %v", got)
	}
	if !diff(before, set).none() {
		t.Error("reordered the set it was given")
	}
}

// answerOf is a realistic answer for n instances.
func answerOf(n int) []byte {
	var out []*api.ServiceEntry
	for i := range n {
		e := entry(fmt.Sprintf("node-%04d.dc1.example", i), fmt.Sprintf("web-%04d", i), fmt.Sprintf("10.0.%d.%d", i/250, i%250+1), "", 8080)
		e.Node.Meta = map[string]string{"consul-version": "1.20.1", "zone": "eu-1a"}
		e.Service.Tags = []string{"http", "v1"}
		e.Service.Meta = map[string]string{"outrigger_agent": "9100", "version": "1.2.3"}
		e.Checks = api.HealthChecks{
			{Node: e.Node.Node, CheckID: "serfHealth", Status: "passing", Output: "Agent alive and reachable"},
			{Node: e.Node.Node, CheckID: "service:" + e.Service.ID, Status: "passing", Output: "HTTP GET http://10.0.0.1:8080/health: 200 OK"},
		}
		out = append(out, e)
	}
	body, err := json.Marshal(out)
	if err != nil {
		panic(err)
	}
	return body
}

// What a wake-up of a 1,000-instance service costs: reading the JSON, turning it
// into a set, comparing that.
func BenchmarkAnswer1000(b *testing.B) {
	body := answerOf(1000)
	var in []*api.ServiceEntry
	if err := json.Unmarshal(body, &in); err != nil {
		b.Fatal(err)
	}
	set, _ := convert(&Query{Service: "web"}, in)
	next, _ := convert(&Query{Service: "web"}, in)
	b.Run("decode", func(b *testing.B) {
		b.ReportAllocs()
		b.SetBytes(int64(len(body)))
		for b.Loop() {
			var in []*api.ServiceEntry
			if err := json.Unmarshal(body, &in); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("convert", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if s, _ := convert(&Query{Service: "web"}, in); len(s) != 1000 {
				b.Fatal(len(s))
			}
		}
	})
	b.Run("diff", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if !diff(set, next).none() {
				b.Fatal("differs")
			}
		}
	})
}
