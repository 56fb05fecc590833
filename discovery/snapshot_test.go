package discovery

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
)

// full is an instance with something in every field that is of the registry.
func full(id string) Instance {
	return Instance{ID: id, Service: "web", Node: "n", Datacenter: "dc1", Address: "10.0.0.1", Port: 8080, Weight: 7,
		Health: Critical, Tags: []string{"a", "b"}, Meta: map[string]string{"k": "v"}, Zone: "z", Backup: true}
}

func TestSnapshotHoldsAll(t *testing.T) {
	// A field that is added to Instance has to be added to savedInstance, or here
	// to those that are not of the registry.
	v := reflect.ValueOf(full("a"))
	for i := range v.NumField() {
		name := v.Type().Field(i).Name
		if v.Field(i).IsZero() != (name == "Unlisted" || name == "Tier") {
			t.Errorf("full has not what it should in %s", name)
		}
	}
	head := snapshot{Service: "web", Query: "q", Written: time.Unix(5, 0).UTC(), Confirmed: time.Unix(4, 0).UTC(), Index: 9}
	set := []Instance{full("a"), {ID: "b", Address: "h", Port: 1}}
	payload, err := encodeSnapshot(head, set)
	if err != nil {
		t.Fatal(err)
	}
	s, got, err := decodeSnapshot(payload, "q")
	s.Instances = nil
	if err != nil || !reflect.DeepEqual(got, set) || !reflect.DeepEqual(s, head) {
		t.Errorf("%+v\n%+v, %v", s, got, err)
	}
	if _, _, err := decodeSnapshot(payload, "other"); !errors.Is(err, errOtherQuery) {
		t.Errorf("of another query: %v", err)
	}
}

func TestSnapshotContent(t *testing.T) {
	one := func(i string) string { return `{"query":"q","instances":[` + i + `]}` }
	for text, want := range map[string]string{
		"":                    "no snapshot",
		"[]":                  "no snapshot",
		"{} {}":               "something follows",
		`{"query":"q","x":1}`: "unknown field",
		one(`{"id":"a"}`):     "no port",
		one(`{"id":"a","address":"10.0.0.1","port":1,"health":"good"}`):                                                  "not one of",
		one(`{"id":"a","address":"255.255.255.255","port":1,"health":"passing"}`):                                        "not one host's",
		one(`{"id":"a","address":"10.0.0.1","port":70000,"health":"passing"}`):                                           "port 70000",
		one(`{"id":"b","address":"h","port":1,"health":"passing"},{"id":"a","address":"h","port":1,"health":"passing"}`): "not in order",
		one(`{"id":"a","address":"h","port":1,"health":"passing"},{"id":"a","address":"h","port":1,"health":"passing"}`): "not in order",
	} {
		if _, set, err := decodeSnapshot([]byte(text), "q"); err == nil || set != nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, %v; want %q", text, set, err, want)
		}
	}
	big := make([]Instance, 0, 60000)
	for i := range cap(big) {
		x := full(fmt.Sprintf("%06d", i))
		x.Meta = map[string]string{"long": strings.Repeat("x", 300)}
		big = append(big, x)
	}
	if _, err := encodeSnapshot(snapshot{}, big); err == nil || !strings.Contains(err.Error(), "allowed are") {
		t.Errorf("too large: %v", err)
	}
}

// Whatever changes who is in a set, or what is said of it, changes the sum.
func TestFingerprint(t *testing.T) {
	t.Setenv("CONSUL_HTTP_ADDR", "")
	cfg, q := DefaultConfig(), DefaultQuery("web")
	q.Tags = []string{"a", "b"}
	base := q.fingerprint(cfg)
	seen := map[string]string{base: "nothing"}
	differs := func(what string, cfg Config, q Query) {
		t.Helper()
		sum := q.fingerprint(cfg)
		if before, ok := seen[sum]; ok {
			t.Errorf("%s has the sum of %s", what, before)
		}
		seen[sum] = what
	}
	v := reflect.TypeFor[Query]()
	for i := range v.NumField() {
		other := q
		f := reflect.ValueOf(&other).Elem().Field(i)
		switch f.Kind() {
		case reflect.String:
			f.SetString("other")
		case reflect.Int:
			f.SetInt(5)
		case reflect.Bool:
			f.SetBool(true)
		case reflect.Slice:
			f.Set(reflect.ValueOf([]string{"a"}))
		case reflect.Map:
			f.Set(reflect.ValueOf(map[string]string{"a": "b"}))
		default:
			t.Fatalf("%s is of a kind that this test does not know", v.Field(i).Name)
		}
		if v.Field(i).Name == "Near" {
			if other.fingerprint(cfg) != base {
				t.Error("another order is another set")
			}
			continue
		}
		differs(v.Field(i).Name, cfg, other)
	}
	for what, change := range map[string]func(*Config){
		"address":   func(c *Config) { c.Address = "10.0.0.1:8500" },
		"namespace": func(c *Config) { c.Namespace = "x" },
		"partition": func(c *Config) { c.Partition = "x" },
		"default":   func(c *Config) { c.Datacenter = "x" },
	} {
		other := cfg
		change(&other)
		differs(what, other, q)
	}
	t.Setenv("CONSUL_HTTP_ADDR", "10.0.0.2:8500")
	differs("address by the environment", cfg, q)
	t.Setenv("CONSUL_HTTP_ADDR", "")
	q.Tags = []string{"b", "a"}
	if cfg.Token = "secret"; q.fingerprint(cfg) != base {
		t.Error("another order of tags, or a new token, is another query")
	}
}

// FuzzSnapshot: what is taken is valid and comes back the same.
func FuzzSnapshot(f *testing.F) {
	good, err := encodeSnapshot(snapshot{Query: "q"}, []Instance{full("a"), full("b")})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte(`{"query":"q","instances":[{"id":"a","address":"h","port":1,"weight":0,"health":"passing"}]}`))
	f.Add([]byte(`{"query":"q","written":"9999-12-31T23:59:59Z","index":18446744073709551615}`))
	f.Fuzz(func(t *testing.T, payload []byte) {
		s, set, err := decodeSnapshot(payload, "q")
		if err != nil {
			return
		}
		for i := range set {
			if err := set[i].Validate(); err != nil || i > 0 && set[i-1].ID >= set[i].ID || set[i].Unlisted || set[i].Tier != 0 {
				t.Fatalf("%+v: %v", set, err)
			}
		}
		again, err := encodeSnapshot(s, set)
		if err != nil {
			return // a time that cannot be written
		}
		_, set2, err := decodeSnapshot(again, "q")
		if err != nil || !diff(set, set2).none() {
			t.Errorf("%s: %+v\nagain %+v, %v", payload, set, set2, err)
		}
	})
}

// The client asks in these where the configuration names none.
func TestFingerprintKnowsTheEnvironment(t *testing.T) {
	q, cfg := DefaultQuery("web"), DefaultConfig()
	base := q.fingerprint(cfg)
	seen := map[string]bool{base: true}
	for _, name := range []string{api.HTTPNamespaceEnvName, api.HTTPPartitionEnvName} {
		t.Setenv(name, "other")
		if sum := q.fingerprint(cfg); seen[sum] {
			t.Errorf("%s changes nothing", name)
		} else {
			seen[sum] = true
		}
	}
	cfg.Namespace, cfg.Partition = "mine", "too"
	sum := q.fingerprint(cfg)
	t.Setenv(api.HTTPNamespaceEnvName, "another")
	if q.fingerprint(cfg) != sum {
		t.Error("the configuration does not go before the environment")
	}
}
