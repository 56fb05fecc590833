package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"outrigger/sidecar/admin"
)

// instances is a file of instances for `discover "file"`.
func instances(backends ...*backend) string {
	type instance struct {
		ID      string `json:"id"`
		Address string `json:"address"`
		Port    int    `json:"port"`
	}
	list := []instance{}
	for _, b := range backends {
		list = append(list, instance{b.name, "127.0.0.1", b.port})
	}
	text, _ := json.Marshal(map[string]any{"instances": list}) // has no type that cannot be marshalled
	return string(text)
}

// replace puts a file in another's place, as what writes configuration does.
func replace(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

func fileService(path string) []block {
	return []block{{"web", fmt.Sprintf("discover \"file\" { path = %q }\nslow_start = \"0s\"", path)}}
}

// A file of instances is followed, however it is replaced; while it is broken or
// gone, the last good set is used, and so it is when it suddenly lists nothing.
func TestFileSource(t *testing.T) {
	t.Parallel()
	all := startBackends(t, "a", "b", "c")
	a, b, c := all[0], all[1], all[2]
	path := filepath.Join(t.TempDir(), "web.json")
	replace(t, path, instances(a))
	s := startSidecar(t, sidecarSpec{services: fileService(path)})
	s.awaitReady(1)
	l := startLoad(t, loadSpec{addr: s.addr(), clients: 4, think: 5 * time.Millisecond})
	l.awaitFrom(a, 20)

	replace(t, path, instances(a, b))
	l.awaitFrom(b, 20)
	for _, broken := range []string{instances(a, b, c)[:40], `{"instances": [{"adress": "10.0.0.1"}]}`, ""} {
		replace(t, path, broken)
		s.awaitService("web", "the file to be refused", func(d admin.ServiceDoc) bool { return d.Discovery.State == "failing" && d.EndpointsReady == 2 })
		l.awaitMore(20)
		replace(t, path, instances(a, b))
		s.awaitService("web", "the file to be read again", func(d admin.ServiceDoc) bool { return d.Discovery.State == "current" })
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	s.awaitService("web", "the file to be missed", func(d admin.ServiceDoc) bool { return d.Discovery.State == "failing" && d.EndpointsReady == 2 })
	replace(t, path, instances())
	s.awaitService("web", "the empty list to be doubted", func(d admin.ServiceDoc) bool {
		return d.Discovery.State == "kept" && d.Discovery.Unlisted == 2 && d.EndpointsReady == 2
	})
	l.awaitMore(20)
	replace(t, path, instances(a, b, c))
	s.awaitService("web", "three", func(d admin.ServiceDoc) bool {
		return d.Discovery.State == "current" && d.EndpointsReady == 3 && d.Discovery.Unlisted == 0
	})
	l.awaitFrom(c, 20)
	l.stop().clean(t)
}

// A mounted ConfigMap: the file is a link into a folder that is a link, and the
// latter is swapped.
func TestFileSourceOfAConfigMap(t *testing.T) {
	t.Parallel()
	all := startBackends(t, "a", "b")
	mount := t.TempDir()
	version := func(name, text string) {
		t.Helper()
		if err := os.Mkdir(filepath.Join(mount, name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(mount, name, "web.json"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(name, filepath.Join(mount, "..data_tmp")); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(filepath.Join(mount, "..data_tmp"), filepath.Join(mount, "..data")); err != nil {
			t.Fatal(err)
		}
	}
	version("..1", instances(all[0]))
	path := filepath.Join(mount, "web.json")
	if err := os.Symlink("..data/web.json", path); err != nil {
		t.Fatal(err)
	}
	s := startSidecar(t, sidecarSpec{services: fileService(path)})
	s.awaitReady(1)
	l := startLoad(t, loadSpec{addr: s.addr(), clients: 2, think: 5 * time.Millisecond})
	l.awaitFrom(all[0], 20)
	version("..2", instances(all...))
	l.awaitFrom(all[1], 20)
	l.stop().clean(t)
}

// A fallback is used when the primary has nobody left, and left when it has.
func TestFailover(t *testing.T) {
	t.Parallel()
	cat, name := sharedCatalog(t), uniqueService(t)
	all := startBackends(t, "a", "b", "spare", "last")
	idA := cat.register(name, all[0], withTTL)
	idB := cat.register(name, all[1], withTTL)
	spare := cat.register(name+"-old", all[2], withTTL)
	s := startSidecar(t, sidecarSpec{services: []block{{"web", fmt.Sprintf(`
  discover {
    service = %q
    fallback "old" { service = %q }
    fallback "last" { addresses = [%q] }
  }
  failover { return = "1s" }
  slow_start = "500ms"`, name, name+"-old", all[3].addr())}}})
	tier := func(want string) {
		t.Helper()
		s.awaitService("web", "tier "+want, func(doc admin.ServiceDoc) bool { return doc.Tier == want })
	}
	s.awaitReady(2)
	tier("primary")
	l := startLoad(t, loadSpec{addr: s.addr(), clients: 4, think: 2 * time.Millisecond})
	l.awaitFrom(all[0], 20)

	cat.setTTL(idA, "critical")
	l.awaitFrom(all[1], 20)
	cat.setTTL(idB, "critical")
	tier("old")
	l.awaitFrom(all[2], 20)
	cat.setTTL(spare, "critical")
	tier("last")
	l.awaitFrom(all[3], 20)
	if n := l.snapshot().byBackend["last"]; n < 20 {
		t.Errorf("the last resort answered %d", n)
	}

	cat.setTTL(spare, "passing")
	tier("old")
	cat.setTTL(idA, "passing")
	cat.setTTL(idB, "passing")
	tier("primary")
	s.awaitService("web", "the fallback to be left", func(doc admin.ServiceDoc) bool {
		return doc.EndpointsReady == 2 && !strings.Contains(doc.Mode, "panic")
	})
	l.awaitFrom(all[0], 20)
	before := all[2].received()
	l.awaitFrom(all[1], 50)
	if n := all[2].received() - before; n > 4 { // one each that was on its way
		t.Errorf("the fallback received %d requests after the primary had returned", n)
	}
	l.stop().clean(t)
}

// Below half of the endpoints healthy, health is ignored, which shows; a threshold
// of 0 trusts Consul whatever it says.
func TestPanicThreshold(t *testing.T) {
	t.Parallel()
	cat, name := sharedCatalog(t), uniqueService(t)
	var ids []string
	all := startBackends(t, "a", "b", "c", "d")
	for _, b := range all {
		ids = append(ids, cat.register(name, b, withTTL))
	}
	discover := fmt.Sprintf("discover { service = %q }\nslow_start = \"0s\"\n", name)
	s := startSidecar(t, sidecarSpec{services: []block{{"web", discover}, {"trusting", discover + "panic_threshold = 0"}}})
	s.awaitReady(4)
	l := startLoad(t, loadSpec{addr: s.addrs["web"], clients: 4, think: 5 * time.Millisecond})
	l.awaitMore(50)
	for _, id := range ids[:2] {
		cat.setTTL(id, "critical")
	}
	// Half is not below half.
	s.awaitService("web", "two to be out", func(doc admin.ServiceDoc) bool { return doc.EndpointsReady == 2 && !doc.Panic })
	l.awaitMore(50)
	cat.setTTL(ids[2], "critical")
	s.awaitService("web", "panic", func(doc admin.ServiceDoc) bool {
		e := endpointOf(doc, ids[0])
		return doc.Panic && doc.EndpointsReady == 4 && e != nil && e.Ready && e.Despite == "critical"
	})
	for _, b := range all {
		l.awaitFrom(b, 20)
	}
	s.says("panic")
	s.awaitService("trusting", "one ready", func(doc admin.ServiceDoc) bool { return doc.EndpointsReady == 1 && !doc.Panic })
	if by := getMany(t, s.addrs["trusting"], 20); by["d"] != 20 {
		t.Errorf("with a threshold of 0, answers came from %v, want d alone", by)
	}

	// What cannot be connected to stays out, and so does what is in maintenance.
	all[0].kill()
	s.awaitEndpoint(ids[0], "left alone", notReady)
	cat.maintenance(ids[1], true)
	s.awaitEndpoint(ids[1], "in maintenance", notReady)
	l.awaitFrom(all[2], 20)
	all[0].start()
	cat.maintenance(ids[1], false)
	for _, id := range ids[:3] {
		cat.setTTL(id, "passing")
	}
	s.awaitService("web", "the end of panic", func(doc admin.ServiceDoc) bool { return !doc.Panic && doc.EndpointsReady == 4 })
	l.awaitFrom(all[0], 20)
	l.stop().clean(t)
}

// An endpoint that goes and comes is kept out longer each time, and status says so.
func TestFlappingEndpointIsDamped(t *testing.T) {
	t.Parallel()
	cat, name := sharedCatalog(t), uniqueService(t)
	all := startBackends(t, "a", "b", "c")
	id := cat.register(name, all[0], withTTL)
	cat.register(name, all[1])
	cat.register(name, all[2])
	s := startSidecar(t, sidecarSpec{
		inConsul: `rate_interval = "100ms"`,
		services: oneService(name, "flap_damping {\n base = \"1s\"\n max = \"5s\"\n}\nslow_start = \"0s\""),
	})
	s.awaitReady(3)
	l := startLoad(t, loadSpec{addr: s.addr(), clients: 4, think: 5 * time.Millisecond})
	for fall := range 3 {
		cat.setTTL(id, "critical")
		s.awaitEndpoint(id, "critical", func(e *admin.EndpointDoc) bool { return notReady(e) && e.Health == "critical" })
		cat.setTTL(id, "passing")
		if fall == 2 {
			break
		}
		s.awaitEndpoint(id, "ready again", isReady)
	}
	s.awaitEndpoint(id, "damped", func(e *admin.EndpointDoc) bool {
		return notReady(e) && e.Health == "passing" && e.DampedForSeconds != nil && e.Flaps != nil && *e.Flaps > 2 && e.FallsTotal == 3
	})
	before := all[0].received()
	l.awaitMore(100)
	if e := endpointOf(s.web(), id); e.DampedForSeconds != nil && all[0].received() > before+4 { // one each that was on its way
		t.Errorf("it received %d requests while it was damped", all[0].received()-before)
	}
	s.awaitEndpoint(id, "ready after its time", isReady)
	l.awaitFrom(all[0], 20)
	l.stop().clean(t)
}

// An active check takes out what Consul calls passing, and lets it in again.
func TestActiveCheck(t *testing.T) {
	t.Parallel()
	cat, name := sharedCatalog(t), uniqueService(t)
	all := startBackends(t, "a", "b", "c")
	var ids []string
	for _, b := range all {
		ids = append(ids, cat.register(name, b))
	}
	s := startSidecar(t, sidecarSpec{services: oneService(name, `
  health_check "http" {
    path          = "/health"
    interval      = "300ms"
    fast_interval = "100ms"
    timeout       = "250ms"
  }
  slow_start = "0s"`)})
	s.awaitReady(3)
	check := func(state string, ready bool) {
		t.Helper()
		s.awaitEndpoint(ids[0], "checked: "+state, func(e *admin.EndpointDoc) bool {
			return e != nil && e.Check != nil && e.Check.State == state && e.Ready == ready && e.Health == "passing"
		})
	}
	check("up", true)
	l := startLoad(t, loadSpec{addr: s.addr(), clients: 4, think: 5 * time.Millisecond})
	l.awaitFrom(all[0], 20)

	all[0].control("/ctl/set?health=500")
	check("down", false)
	if e := endpointOf(s.web(), ids[0]); !strings.Contains(e.Check.Error, "500") {
		t.Errorf("the check's error is %q, want the status in it", e.Check.Error)
	}
	before := all[0].received()
	l.awaitMore(100)
	if n := all[0].received() - before; n > 4 { // one each that was on its way
		t.Errorf("it received %d requests while its check was down", n)
	}
	all[0].control("/ctl/set?health=200")
	check("up", true)
	l.awaitFrom(all[0], 20)
	l.stop().clean(t)
}

// A deregistered endpoint finishes what it has, even when that is long.
func TestDeregisteredFinishesItsRequest(t *testing.T) {
	t.Parallel()
	cat, name := sharedCatalog(t), uniqueService(t)
	all := startBackends(t, "a", "b", "c")
	id := cat.register(name, all[0])
	s := startSidecar(t, sidecarSpec{services: oneService(name, "")})
	s.awaitReady(1)
	running := send(s.addr(), "/hold")
	all[0].awaitHeld(1)
	cat.register(name, all[1])
	cat.register(name, all[2])
	s.awaitReady(3)

	cat.deregister(id)
	s.awaitEndpoint(id, "gone", isGone)
	if by := getMany(t, s.addr(), 20); by["a"] != 0 {
		t.Errorf("answers after a was deregistered: %v", by)
	}
	running.waiting(t)
	all[0].release()
	if r := running.answer(t); string(r.body) != "held by a\n" {
		t.Errorf("the request that was running ended with %q", r.body)
	}
}
