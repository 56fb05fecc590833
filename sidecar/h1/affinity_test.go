package h1

import (
	"encoding/base64"
	"slices"
	"strings"
	"testing"
	"time"

	"outrigger/picker"
	"outrigger/sidecar/balance"
)

// sticky is an affinity of the rigs' key whose clock stands at the given time.
func sticky(ttl time.Duration, at time.Time) *affinity {
	return newAffinity(stickyConfig(ttl), []byte("of every rig"), func() time.Time { return at })
}

func stickyConfig(ttl time.Duration) AffinityConfig {
	c := DefaultAffinityConfig()
	c.Cookie, c.TTL = "pin", ttl
	return c
}

// mint returns the value of a cookie that a makes for the instance.
func mint(a *affinity, id string) string {
	head := string(a.appendTo([]byte("\r\n"), picker.Hash(id)))
	_, v, _ := strings.Cut(head, "pin=")
	v, _, _ = strings.Cut(v, ";")
	return v
}

// stickyRig serves with affinity before the backends.
func stickyRig(t testing.TB, ttl time.Duration, addrs ...string) *rig {
	cfg, bcfg := quick(), balance.DefaultConfig()
	cfg.Affinity, bcfg.Pins = stickyConfig(ttl), true
	bcfg.Picker.Policy = "round_robin" // never the same twice
	return newRig(t, cfg, bcfg, addrs...)
}

// pinned returns the value of the cookie that an answer sets, "" if it sets none.
func pinned(t testing.TB, a reading) string {
	t.Helper()
	value := ""
	for _, c := range a.Cookies() {
		if c.Name == "pin" {
			if value != "" || c.Value == "" {
				t.Errorf("cookies %q", a.Header["Set-Cookie"])
			}
			value = c.Value
		}
	}
	return value
}

func TestAffinity(t *testing.T) {
	t.Parallel()
	a, b, c := named(t, "a"), named(t, "b"), named(t, "c")
	r := stickyRig(t, time.Hour, a.addr, b.addr, c.addr)
	p := r.dial()
	for range 4 { // four clients
		p.send(get())
		first := p.answer("GET")
		cookie := pinned(t, first)
		want := "pin=" + cookie + "; Path=/; Max-Age=3600; HttpOnly; SameSite=Lax"
		if got := first.Header["Set-Cookie"]; !slices.Equal(got, []string{want}) || first.Header.Get("Cache-Control") != "private" {
			t.Errorf("set %q with %q, want %q", got, first.Header["Cache-Control"], want)
		}
		for range 5 {
			p.send(get("Cookie: x=y; pin=" + cookie + "; z=\"a b\""))
			again := p.want("GET", 200, first.body)
			if len(again.Header["Set-Cookie"]) > 0 || len(again.Header["Cache-Control"]) > 0 {
				t.Errorf("set again: %v", again.Header)
			}
		}
	}
	for _, b := range []*backend{a, b, c} {
		for _, h := range b.got() {
			if v := fieldOf(h, "Cookie"); v != "" && v != `x=y; z="a b"` {
				t.Errorf("a backend got the cookies %q", v)
			}
		}
	}
	if st := r.b.Status(); st.Pinned != 20 || st.PinMissed != 0 {
		t.Errorf("%d pinned, %d missed", st.Pinned, st.PinMissed)
	}
}

// What is no valid cookie of this service binds nobody and gets a new one. The
// value that would be valid goes to the endpoint that it names.
func TestBadAffinityCookies(t *testing.T) {
	t.Parallel()
	a, b := named(t, "a"), named(t, "b")
	r := stickyRig(t, time.Hour, a.addr, b.addr)
	now := time.Now()
	good := mint(sticky(time.Hour, now), "i-"+b.addr)
	flip := func(i int) string {
		raw, _ := base64.RawURLEncoding.DecodeString(good)
		raw[i] ^= 1
		return base64.RawURLEncoding.EncodeToString(raw)
	}
	last := strings.IndexByte("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_", good[42])
	other := newAffinity(stickyConfig(time.Hour), []byte("of another service"), time.Now)
	p := r.dial()
	for name, cookie := range map[string]string{
		"empty": "", "garbage": "garbage", "long": good + "A", "short": good[:42], "padded": good + "=",
		"not base64": "!" + good[1:], "quoted": `"` + good + `"`,
		"not canonical":  good[:42] + string("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"[last^1]),
		"other instance": flip(0), "other time": flip(15), "other signature": flip(31),
		"another service's": mint(other, "i-"+b.addr),
		"old":               mint(sticky(time.Hour, now.Add(-time.Hour-time.Second)), "i-"+b.addr),
		"of the future":     mint(sticky(time.Hour, now.Add(2*time.Minute)), "i-"+b.addr),
		"of nobody":         mint(sticky(time.Hour, now), "i-nobody"),
	} {
		seen := map[string]bool{}
		for range 2 {
			p.send(get("Cookie: pin=" + cookie))
			got := p.answer("GET")
			if seen[got.body] = true; pinned(t, got) == "" {
				t.Errorf("%s: no new cookie", name)
			}
		}
		if len(seen) != 2 {
			t.Errorf("%s: bound to %v", name, seen)
		}
	}
	for name, in := range map[string][]string{
		"good":              {"Cookie: pin=" + good},
		"among others":      {"Cookie: a=b; pin=garbage ;pin=" + good, "Cookie: pin=x"},
		"after four others": {"Cookie: pin=1; pin=2; pin=3; pin=" + good},
		"from before":       {"Cookie: pin=" + mint(sticky(time.Hour, now.Add(-29*time.Minute)), "i-"+b.addr)},
		"a clock ahead":     {"Cookie: pin=" + mint(sticky(time.Hour, now.Add(30*time.Second)), "i-"+b.addr)},
	} {
		for range 2 {
			p.send(get(in...))
			if got := p.want("GET", 200, "b"); pinned(t, got) != "" {
				t.Errorf("%s: set again", name)
			}
		}
	}
	for _, bk := range []*backend{a, b} {
		for _, h := range bk.got() {
			if strings.Contains(h, "pin") {
				t.Fatalf("a backend got %q", h)
			}
		}
	}
}

func TestAffinityIsRenewed(t *testing.T) {
	t.Parallel()
	a, b := named(t, "a"), named(t, "b")
	r := stickyRig(t, time.Hour, a.addr, b.addr)
	p := r.dial()
	old := mint(sticky(time.Hour, time.Now().Add(-31*time.Minute)), "i-"+b.addr)
	for range 2 {
		p.send(get("Cookie: pin=" + old))
		if c := pinned(t, p.want("GET", 200, "b")); c == "" || c == old {
			t.Errorf("set %q in the second half of its time", c)
		}
	}
	// Without a TTL it is good however old it is, and the browser forgets it.
	r = stickyRig(t, 0, a.addr, b.addr)
	p = r.dial()
	old = mint(sticky(0, time.Now().Add(-10*365*24*time.Hour)), "i-"+b.addr)
	for range 2 {
		p.send(get("Cookie: pin=" + old))
		if c := pinned(t, p.want("GET", 200, "b")); c != "" {
			t.Error("set again")
		}
	}
	p.send(get())
	if c := p.answer("GET").Header.Get("Set-Cookie"); c == "" || strings.Contains(c, "Max-Age") {
		t.Errorf("set %q", c)
	}
}

// An endpoint that is not ready is not waited for: another serves, and the client
// is bound to that.
func TestAffinityToOneThatIsNotReady(t *testing.T) {
	t.Parallel()
	a, b := named(t, "a"), named(t, "b")
	gone := nobody(t)
	r := stickyRig(t, time.Hour, a.addr, b.addr, gone)
	p := r.dial()
	cookie := mint(sticky(time.Hour, time.Now()), "i-"+gone)
	next := func(what string) string {
		t.Helper()
		p.send(get("Cookie: pin=" + cookie))
		got := p.answer("GET")
		if got.StatusCode != 200 || pinned(t, got) == "" || pinned(t, got) == cookie {
			t.Errorf("%s: %d, set %q", what, got.StatusCode, got.Header["Set-Cookie"])
		}
		return pinned(t, got)
	}
	next("refuses connections, so it was tried")
	if st := r.b.Status(); st.Pinned != 1 || st.PinMissed != 0 {
		t.Errorf("%d pinned, %d missed", st.Pinned, st.PinMissed)
	}
	r.settled()
	r.eventually("it is ejected", func() bool { return r.b.Status().EjectedEndpoints == 1 })
	next("ejected")
	r.set(a.addr, b.addr)
	cookie = next("has left")
	if st := r.b.Status(); st.Pinned != 1 || st.PinMissed != 2 {
		t.Errorf("%d pinned, %d missed", st.Pinned, st.PinMissed)
	}
	p.send(get("Cookie: pin=" + cookie))
	if got := p.answer("GET"); pinned(t, got) != "" {
		t.Error("the new cookie is not taken")
	}
}

// A kept-alive connection that has died is no reason to leave an endpoint.
func TestAffinityOutlivesAStaleConnection(t *testing.T) {
	t.Parallel()
	once := newBackend(t, func(b *backend, p *peer) {
		if b.head(p); p.n == 1 {
			p.send(ok200("once"))
			b.head(p)
			return // without an answer
		}
		for p.send(ok200("once")); b.head(p) != ""; {
			p.send(ok200("once"))
		}
	})
	other := named(t, "other")
	r := stickyRig(t, time.Hour, once.addr, other.addr)
	p := r.dial()
	cookie := "Cookie: pin=" + mint(sticky(time.Hour, time.Now()), "i-"+once.addr)
	for range 3 {
		p.send(get(cookie))
		if c := pinned(t, p.want("GET", 200, "once")); c != "" {
			t.Error("set again")
		}
		r.settled()
	}
}

// An answer that blames its backend binds nobody to it.
func TestFailuresDoNotBind(t *testing.T) {
	t.Parallel()
	b := newBackend(t, func(b *backend, p *peer) {
		for h := b.head(p); h != ""; h = b.head(p) {
			p.send(lines("HTTP/1.1 "+strings.TrimPrefix(strings.Fields(h)[1], "/")+" X", "Content-Length: 0"))
		}
	})
	r := stickyRig(t, time.Hour, b.addr)
	p := r.dial()
	for status, set := range map[string]bool{"200": true, "404": true, "500": true, "502": false, "503": false, "429": false, "304": true, "204": true} {
		p.send(get1("/" + status))
		if got := p.answer("GET"); (pinned(t, got) != "") != set {
			t.Errorf("%s: set %q", status, got.Header["Set-Cookie"])
		}
	}
}

// What a backend sets under the name does not pass; the rest does, interim
// answers as they are.
func TestAffinityOfAnswers(t *testing.T) {
	t.Parallel()
	b := newBackend(t, func(b *backend, p *peer) {
		for b.head(p) != "" {
			p.send(lines("HTTP/1.1 103 Early Hints", "Link: </a>", "Set-Cookie: pin=103", "Set-Cookie: sid=0"))
			p.send(lines("HTTP/1.1 200 OK", "Set-Cookie: sid=1; Path=/pin=", "SET-COOKIE: pin=theirs", "Set-Cookie: pin", "Set-Cookie: pins=2",
				"Cache-Control: max-age=60", "Transfer-Encoding: chunked") + "2\r\nok\r\n0\r\n\r\n")
		}
	})
	r := stickyRig(t, 0, b.addr)
	p := r.dial()
	p.send(get())
	if h := p.head(); !strings.HasPrefix(h, "HTTP/1.1 103") || strings.Contains(h, "pin") || !strings.Contains(h, "Set-Cookie: sid=0\r\n") {
		t.Errorf("interim answer %q", h)
	}
	got := p.want("GET", 200, "ok")
	cookie := pinned(t, got)
	if c := got.Header["Set-Cookie"]; len(c) != 3 || c[0] != "sid=1; Path=/pin=" || c[1] != "pins=2" || cookie == "" {
		t.Errorf("set %q", c)
	}
	if c := got.Header["Cache-Control"]; !slices.Equal(c, []string{"max-age=60", "private"}) {
		t.Errorf("Cache-Control %q", c)
	}
	p.send(get("Cookie: pin=" + cookie))
	p.head()
	got = p.want("GET", 200, "ok")
	if c := got.Header["Set-Cookie"]; len(c) != 2 || pinned(t, got) != "" {
		t.Errorf("set %q again", c)
	}
}

func TestAffinityOfUpgrades(t *testing.T) {
	t.Parallel()
	up := func(name string) *backend {
		return newBackend(t, func(b *backend, p *peer) {
			if b.head(p) != "" {
				p.send(lines("HTTP/1.1 101 Switching Protocols", "Connection: upgrade", "Upgrade: echo/1") + name)
				p.send(p.read(2))
			}
		})
	}
	a, b := up("a"), up("b")
	r := stickyRig(t, 0, a.addr, b.addr)
	var cookie, at string
	for i := range 4 {
		p := r.dial()
		p.send(get("Connection: upgrade", "Upgrade: echo/1", "Cookie: pin="+cookie) + "hi")
		h := p.head()
		got := p.read(3)
		set := fieldOf(h, "Set-Cookie")
		if !strings.HasPrefix(h, "HTTP/1.1 101") || (i == 0) != (set != "") || i > 0 && got != at || got[1:] != "hi" {
			t.Fatalf("connection %d got %q, %q, want %q", i, h, got, at)
		}
		if i == 0 {
			at = got
			cookie, _, _ = strings.Cut(strings.TrimPrefix(set, "pin="), ";")
		}
	}
}

// Another sidecar with the same key, this one after a restart say, takes the
// cookies; one with another key does not.
func TestAffinityOutlivesARestart(t *testing.T) {
	t.Parallel()
	a, b, c := named(t, "a"), named(t, "b"), named(t, "c")
	p := stickyRig(t, time.Hour, a.addr, b.addr, c.addr).dial()
	p.send(get())
	first := p.answer("GET")
	for range 3 {
		p = stickyRig(t, time.Hour, c.addr, b.addr, a.addr).dial()
		p.send(get("Cookie: pin=" + pinned(t, first)))
		if c := pinned(t, p.want("GET", 200, first.body)); c != "" {
			t.Error("set again")
		}
	}
	random := newAffinity(stickyConfig(0), nil, time.Now)
	if v := random.verify([]byte(pinned(t, first))); v != (pin{}) {
		t.Error("one without a key takes it")
	}
	if v := random.verify([]byte(mint(random, "x"))); v.of != picker.Hash("x") {
		t.Error("one without a key does not take its own")
	}
}
