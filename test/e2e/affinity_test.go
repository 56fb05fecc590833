package e2e

import (
	"encoding/base64"
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"outrigger/sidecar/admin"
)

// affinityRig is a sidecar with two services over the same backends, whose
// cookies are signed with a secret and with a key in the state directory. Both go
// round, so that only a cookie holds a client at one backend.
func affinityRig(t *testing.T) (s *sidecar, cat *catalog, ids map[string]string) {
	t.Helper()
	cat, name := sharedCatalog(t), uniqueService(t)
	ids = map[string]string{}
	for _, b := range startBackends(t, "a", "b") {
		ids[b.name] = cat.register(name, b, withTTL)
	}
	body := func(affinity string) string {
		return fmt.Sprintf("discover { service = %q }\npolicy \"round_robin\" {}\nslow_start = \"0s\"\naffinity {\n%s\n}", name, affinity)
	}
	s = startSidecar(t, sidecarSpec{
		stateDir: filepath.Join(t.TempDir(), "state"),
		services: []block{
			{"secret", body("cookie = \"SRV\"\nttl = \"1h\"\nsecret = \"sixteen bytes or more, and no less\"")},
			{"keyed", body(`cookie = "SRV"`)},
		},
	})
	awaitTwo(s)
	return s, cat, ids
}

func awaitTwo(s *sidecar) {
	s.t.Helper()
	for service := range s.addrs {
		s.awaitService(service, "both to be ready", func(doc admin.ServiceDoc) bool { return doc.EndpointsReady == 2 })
	}
}

// jarred asks n times with a cookie jar, by one curl, and counts who answered.
func jarred(t *testing.T, jar, addr string, n int) map[string]int {
	t.Helper()
	by := map[string]int{}
	for l := range strings.Lines(curled(t, "-c", jar, "-b", jar, fmt.Sprintf("http://%s/[1-%d]", addr, n))) {
		by[strings.TrimPrefix(strings.TrimSpace(l), "hello from ")]++
	}
	return by
}

var setCookie = regexp.MustCompile(`(?m)^Set-Cookie: SRV=([A-Za-z0-9_-]*)(.*)\r$`)

// asked sends one request with these cookies and returns who answered and what
// the answer set.
func asked(t *testing.T, addr, cookies string) (by, value, attributes string) {
	t.Helper()
	out := curled(t, "-i", "-H", "Cookie: "+cookies, "http://"+addr+"/")
	_, by, _ = strings.Cut(out, "hello from ")
	if m := setCookie.FindStringSubmatch(out); m != nil {
		value, attributes = m[1], m[2]
	}
	return strings.TrimSpace(by), value, attributes
}

func otherOf(name string) string { return map[string]string{"a": "b", "b": "a"}[name] }

// A client with its cookie stays at its backend, over a restart of the sidecar.
func TestAffinity(t *testing.T) {
	t.Parallel()
	needs(t, "curl")
	s, cat, ids := affinityRig(t)
	dir, homes := t.TempDir(), map[string]string{}
	for service, addr := range s.addrs {
		if by := getMany(t, addr, 10); by["a"] != 5 || by["b"] != 5 {
			t.Errorf("%s: answers without a cookie %v, want five of each", service, by)
		}
		homes[service] = only(t, jarred(t, filepath.Join(dir, service), addr, 25))
	}
	s.restart()
	awaitTwo(s)
	for service, addr := range s.addrs {
		if got := only(t, jarred(t, filepath.Join(dir, service), addr, 25)); got != homes[service] {
			t.Errorf("%s: after a restart %s answers, want %s as before", service, got, homes[service])
		}
		out, _, _ := outrigger(t, "explain", service, "-last", "50", "-addr", s.admin)
		if n := strings.Count(out, "pinned"); n != 25 {
			t.Errorf("%s: %d requests after the restart were pinned, want 25:\n%s", service, n, out)
		}
	}

	// Its backend is out: another answers, with a cookie of its own.
	addr, jar, home := s.addrs["secret"], filepath.Join(dir, "secret"), homes["secret"]
	cat.setTTL(ids[home], "critical")
	s.awaitService("secret", home+" to be critical", func(doc admin.ServiceDoc) bool { return notReady(endpointOf(doc, ids[home])) })
	out := curled(t, "-i", "-c", jar, "-b", jar, "http://"+addr+"/")
	if m := setCookie.FindStringSubmatch(out); m == nil || !strings.HasSuffix(out, "hello from "+otherOf(home)+"\n") ||
		!strings.Contains(m[2], "Max-Age=3600") || !strings.Contains(m[2], "HttpOnly") {
		t.Errorf("with %s critical the answer is\n%s\nwant one from the other, with a cookie for an hour", home, out)
	}
	cat.setTTL(ids[home], "passing")
	awaitTwo(s)
	if by := jarred(t, jar, addr, 20); by[otherOf(home)] != 20 {
		t.Errorf("with %s back: answers %v, want all from the one that the client is bound to now", home, by)
	}
}

func only(t *testing.T, by map[string]int) string {
	t.Helper()
	if len(by) != 1 {
		t.Fatalf("answers %v, want all from one", by)
	}
	for name := range by {
		return name
	}
	return ""
}

// What is not signed by the service is as no cookie, and backends see none.
func TestAffinityForged(t *testing.T) {
	t.Parallel()
	needs(t, "curl")
	s, _, _ := affinityRig(t)
	home, good, _ := asked(t, s.addrs["secret"], "x=1")
	if by, value, _ := asked(t, s.addrs["secret"], "SRV="+good); by != home || value != "" {
		t.Fatalf("with its cookie %q the client was answered by %s and given %q; want %s and none", good, by, value, home)
	}
	_, elsewhere, _ := asked(t, s.addrs["keyed"], "x=1")
	raw, err := base64.RawURLEncoding.DecodeString(good)
	if err != nil {
		t.Fatalf("the cookie is %q: %v", good, err)
	}
	flipped := func(i int) string {
		b := append([]byte(nil), raw...)
		b[i] ^= 1
		return base64.RawURLEncoding.EncodeToString(b)
	}
	for what, value := range map[string]string{
		"another endpoint": flipped(0), "another time": flipped(15), "another signature": flipped(len(raw) - 1),
		"another service's": elsewhere, "no signature": good[:22], "a name": home, "nothing": "",
	} {
		by := map[string]int{}
		for range 4 {
			name, set, _ := asked(t, s.addrs["secret"], "SRV="+value)
			if by[name]++; set == "" {
				t.Errorf("%s: the answer sets no cookie", what)
			}
		}
		if by["a"] != 2 || by["b"] != 2 {
			t.Errorf("%s: four requests with it went to %v, want two to each", what, by)
		}
	}

	for cookies, want := range map[string]string{
		"mine=1; SRV=" + good + "; last=2": `["mine=1; last=2"]`, "SRV=" + good: `[]`, "SRV=forged; mine=1": `["mine=1"]`,
	} {
		if got := curled(t, "-H", "Cookie: "+cookies, "http://"+s.addrs["secret"]+"/cookies"); got != want+"\n" {
			t.Errorf("of the cookies %q the backend sees %s, want %s", cookies, got, want)
		}
	}
}
