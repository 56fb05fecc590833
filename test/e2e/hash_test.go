package e2e

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"outrigger/sidecar/admin"
)

// hashKeys is how many keys the tests of consistent_hash send.
const hashKeys = 300

// byHeader and byQuery ask for every key once, by one curl over one connection,
// and return which backend each got.
func byHeader(t *testing.T, addr string) map[string]string {
	t.Helper()
	var config strings.Builder
	for i := range hashKeys {
		if i > 0 {
			config.WriteString("next\n")
		}
		fmt.Fprintf(&config, "silent\nnoproxy = \"*\"\nurl = \"http://%s/\"\nheader = \"X-User: user%d\"\n", addr, i)
	}
	file := filepath.Join(t.TempDir(), "curl.conf")
	if err := os.WriteFile(file, []byte(config.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	return greeters(t, curled(t, "--config", file))
}

func byQuery(t *testing.T, addr string) map[string]string {
	t.Helper()
	return greeters(t, curled(t, fmt.Sprintf("http://%s/?page=1&user=user[0-%d]", addr, hashKeys-1)))
}

// greeters reads the greetings that came for the keys in turn.
func greeters(t *testing.T, out string) map[string]string {
	t.Helper()
	lines := strings.Split(strings.TrimSuffix(out, "\n"), "\n")
	if len(lines) != hashKeys {
		t.Fatalf("curl got %d greetings for %d keys:\n%s", len(lines), hashKeys, lastLines(out, 10))
	}
	by := map[string]string{}
	for i, l := range lines {
		name, ok := strings.CutPrefix(l, "hello from ")
		if !ok {
			t.Fatalf("key %d was answered %q", i, l)
		}
		by[fmt.Sprint("user", i)] = name
	}
	return by
}

// Every key has a backend of its own, the same in all sidecars, and a newcomer
// takes its third from the others and moves nothing else.
func TestConsistentHash(t *testing.T) {
	t.Parallel()
	needs(t, "curl")
	cat, name := sharedCatalog(t), uniqueService(t)
	all := startBackends(t, "a", "b", "c")
	cat.register(name, all[0])
	cat.register(name, all[1])
	// So many points make shares even within 3 %.
	policy := func(on, key string) string {
		return fmt.Sprintf("discover { service = %q }\nslow_start = \"0s\"\n"+
			"policy \"consistent_hash\" {\n on = %q\n name = %q\n points = 1000\n}", name, on, key)
	}
	spec := sidecarSpec{services: []block{{"header", policy("header", "X-User")}, {"query", policy("query", "user")}}}
	one, two := startSidecar(t, spec), startSidecar(t, spec)
	var newcomer string
	know := func(n int) {
		t.Helper()
		for _, s := range []*sidecar{one, two} {
			for _, service := range []string{"header", "query"} {
				s.awaitService(service, fmt.Sprintf("%d endpoints to be ready", n), func(doc admin.ServiceDoc) bool { return doc.EndpointsReady == n })
			}
		}
	}
	for i, by := range []struct {
		service string
		ask     func(*testing.T, string) map[string]string
	}{{"header", byHeader}, {"query", byQuery}} {
		if i > 0 {
			cat.deregister(newcomer)
		}
		know(2)
		before := by.ask(t, one.addrs[by.service])
		if again := by.ask(t, one.addrs[by.service]); !maps.Equal(before, again) {
			t.Errorf("%s: asked again, %d keys have another backend", by.service, moved(before, again, ""))
		}
		if other := by.ask(t, two.addrs[by.service]); !maps.Equal(before, other) {
			t.Errorf("%s: through another sidecar %d keys have another backend", by.service, moved(before, other, ""))
		}
		if n := count(before, "a"); n < 100 || n > 200 {
			t.Errorf("%s: a has %d of %d keys, want about half", by.service, n, hashKeys)
		}

		newcomer = cat.register(name, all[2])
		know(3)
		after := by.ask(t, one.addrs[by.service])
		gone, got := moved(before, after, ""), moved(before, after, "c")
		t.Logf("%s: %d of %d keys moved to the newcomer", by.service, got, hashKeys)
		if gone != got || got < 65 || got > 140 {
			t.Errorf("%s: with a third backend %d of %d keys moved, %d of them to it; want about 100, all to it", by.service, gone, hashKeys, got)
		}
	}
	t.Run("Spills", func(t *testing.T) { spills(t, one, all) })
}

// moved counts the keys whose backend is another, or if to is not empty, that.
func moved(before, after map[string]string, to string) (n int) {
	for key, b := range before {
		if after[key] != b && (to == "" || after[key] == to) {
			n++
		}
	}
	return n
}

func count(by map[string]string, name string) (n int) {
	for _, b := range by {
		if b == name {
			n++
		}
	}
	return n
}

// spills has one key asked for more than its backend may take of the load: 1.25
// times the even share with three backends.
func spills(t *testing.T, s *sidecar, all []*backend) {
	const hot, most = "/hold?user=hot", 12
	greet := func() string {
		t.Helper()
		return strings.TrimSpace(curled(t, "http://"+s.addrs["query"]+"/?user=hot"))
	}
	home := greet()
	var owner *backend
	for _, b := range all {
		if home == "hello from "+b.name {
			owner = b
		}
	}
	if owner == nil {
		t.Fatalf("the hot key was answered %q", home)
	}
	held := []*pending{send(s.addrs["query"], hot)}
	owner.awaitHeld(1)
	s.awaitInService("query", 1)
	// One of one in flight is three times the even share.
	out, _, _ := outrigger(t, "explain", "query", "-key", "hot", "-addr", s.admin)
	if want := "at its bound of 1: its keys spill over"; !strings.Contains(out, want) {
		t.Errorf("explain of the hot key does not say %q:\n%s", want, out)
	}
	if got := greet(); got == home {
		t.Errorf("with its backend busy the hot key was answered %q, want one from another", got)
	}
	s.awaitInService("query", 1)
	for i := 2; i <= most; i++ {
		held = append(held, send(s.addrs["query"], hot))
		s.awaitInService("query", i)
	}
	for _, e := range s.service("query").Endpoints {
		if isOwner := e.Address == owner.addr(); e.InFlight > most*5/4/3 || isOwner && e.InFlight < most/3 || e.InFlight == 0 {
			t.Errorf("%s has %d of %d requests of the hot key, want at most 5, some, and of its own backend at least 4", e.ID, e.InFlight, most)
		}
	}
	for _, b := range all {
		eventually(t, promptly, "the requests to arrive", func() error { return arrived(s, b) })
		b.release()
	}
	for _, p := range held {
		p.answer(t)
	}
	s.awaitIdle("query")
	for range 10 {
		if got := greet(); got != home {
			t.Errorf("when all is calm the hot key was answered %q, want %q as before", got, home)
		}
	}
}

// arrived checks that what the sidecar has at b is in b.
func arrived(s *sidecar, b *backend) error {
	for _, e := range s.service("query").Endpoints {
		if got := b.stats().InFlight; e.Address == b.addr() && got != int64(e.InFlight) {
			return fmt.Errorf("%d of %d are in backend %s", got, e.InFlight, b.name)
		}
	}
	return nil
}
