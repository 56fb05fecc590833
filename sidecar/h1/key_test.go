package h1

import (
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"testing"

	"outrigger/picker"
	"outrigger/sidecar/balance"
)

// keyOf is the key of a request that came from the peer at remote.
func keyOf(t testing.TB, f *forwarder, c KeyConfig, in, remote string) uint64 {
	t.Helper()
	if err := c.Validate(); err != nil {
		t.Fatal(err)
	}
	m, err := readRequest([]byte(in), DefaultLimits())
	if err != nil {
		t.Fatalf("%q: %v", in, err)
	}
	k := newKeyer(c, f)
	addr := addrOf(t, remote)
	p := f.peer(addr, addr)
	return k.of(&m.head, &p, addr)
}

// addrOf reads "IP:PORT", or "" for a Unix socket.
func addrOf(t testing.TB, s string) net.Addr {
	if s == "" {
		return &net.UnixAddr{Net: "unix"}
	}
	a, err := net.ResolveTCPAddr("tcp", s)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// text is the key of a text.
func text(s string) uint64 {
	if s == "" {
		return 0
	}
	return picker.Hash(s)
}

func TestKeys(t *testing.T) {
	target := func(s string) string { return lines("GET "+s+" HTTP/1.1", "Host: a") }
	for _, r := range []struct {
		on, name, in, want string
	}{
		{"header", "X-User", get("X-User: ann"), "ann"},
		{"header", "x-USER", get("X-uSeR:  ann "), "ann"},
		{"header", "X-User", get("X-User: ann", "X-Other: b", "x-user: bob"), "ann, bob"},
		{"header", "X-User", get("X-User: ann, bob"), "ann, bob"},
		{"header", "X-User", get("X-User:", "X-User: bob", "X-User: "), "bob"},
		{"header", "X-User", get("X-User: "), ""},
		{"header", "X-User", get("X-Users: ann"), ""},
		{"header", "Host", get(), "a"},
		{"header", "X", get("X: \xff\xfe"), "\xff\xfe"},
		{"cookie", "sid", get("Cookie: sid=abc"), "abc"},
		{"cookie", "sid", get("Cookie: a=b; sid=abc;sid=def"), "abc"},
		{"cookie", "sid", get("Cookie: a=b", "cookie: x; sid=a=b=; y"), "a=b="},
		{"cookie", "sid", get("Cookie: ;; \tsid =\"abc\" ;"), "abc"},
		{"cookie", "sid", get(`Cookie: sid="`), `"`},
		{"cookie", "sid", get(`Cookie: sid=""`), ""},
		{"cookie", "sid", get("Cookie: SID=abc"), ""},
		{"cookie", "sid", get("Cookie: sid"), ""},
		{"cookie", "sid", get("Cookie: sid=", "Cookie: sid=late"), ""},
		{"cookie", "sid", get("Cookie: xsid=abc", "Set-Cookie: sid=abc"), ""},
		{"path", "", target("/a/b?c=d"), "/a/b"},
		{"path", "", target("/%61//../b;x"), "/%61//../b;x"},
		{"path", "", target("/?"), "/"},
		{"path", "", lines("GET http://h:80/a?b=/c HTTP/1.1", "Host: h:80"), "/a"},
		{"path", "", lines("GET http://h?b=/c HTTP/1.1", "Host: h"), "/"},
		{"path", "", target("/a://b/c"), "/a://b/c"},
		{"path", "", lines("OPTIONS * HTTP/1.1", "Host: a"), "*"},
		{"query", "k", target("/?k=v"), "v"},
		{"query", "k", target("/?a=b&k=v&k=w"), "v"},
		{"query", "k", target("/?%6b=a%20b+c%2B%3d"), "a b c+="},
		{"query", "a b", target("/?a+b=1"), "1"},
		{"query", "k", target("/?k=a?b=/c&d"), "a?b=/c"},
		{"query", "k", target("/?k=a;b&k=c"), "c"},
		{"query", "k", target("/?kk=v&K=w&k"), ""},
		{"query", "k", target("/?k=&k=v"), ""},
		{"query", "k", target("/k=v"), ""},
		{"query", "k", lines("GET http://h?k=v HTTP/1.1", "Host: h"), "v"},
		{"", "", get(), ""},
	} {
		if got := keyOf(t, plain(), KeyConfig{r.on, r.name}, r.in, "192.0.2.1:80"); got != text(r.want) {
			t.Errorf("%s %q of %q is not the key of %q", r.on, r.name, r.in, r.want)
		}
		if got, err := (KeyConfig{r.on, r.name}).Hash(r.want); err != nil || got != text(r.want) {
			t.Errorf("%s: the text %q is asked for as %x, %v", r.on, r.want, got, err)
		}
	}
}

func TestSourceKey(t *testing.T) {
	trusting := forwarderOf(func(c *ForwardConfig) { c.Trust = append(c.Trust, "10.0.0.0/8", "2001:db8::/32") })
	for _, r := range []struct {
		f      *forwarder
		remote string
		xff    []string
		want   string
	}{
		{plain(), "192.0.2.1:80", nil, "192.0.2.1"},
		{plain(), "[::ffff:192.0.2.1]:99", nil, "192.0.2.1"},
		{plain(), "[2001:db8::1]:80", nil, "2001:db8::1"},
		{plain(), "[fe80::1%1]:80", nil, "fe80::1"},
		{plain(), "192.0.2.1:80", []string{"1.2.3.4"}, "192.0.2.1"}, // who may say anything
		{plain(), "127.0.0.1:80", nil, "127.0.0.1"},
		{plain(), "127.0.0.1:80", []string{"1.2.3.4"}, "1.2.3.4"},
		{plain(), "127.0.0.1:80", []string{"1.2.3.4, 5.6.7.8"}, "5.6.7.8"},
		{plain(), "127.0.0.1:80", []string{"1.2.3.4", "9.9.9.9 , 127.0.0.9,"}, "9.9.9.9"},
		{plain(), "127.0.0.1:80", []string{"1.2.3.4:5678"}, "1.2.3.4"},
		{plain(), "127.0.0.1:80", []string{"[2001:db8::1]:5678"}, "2001:db8::1"},
		{plain(), "127.0.0.1:80", []string{"[2001:db8::1]"}, "2001:db8::1"},
		{plain(), "127.0.0.1:80", []string{"2001:DB8:0::1%eth0"}, "2001:db8::1"},
		{plain(), "127.0.0.1:80", []string{"::ffff:1.2.3.4"}, "1.2.3.4"},
		{plain(), "127.0.0.1:80", []string{""}, "127.0.0.1"},
		{plain(), "127.0.0.1:80", []string{"1.2.3.4, unknown"}, "127.0.0.1"},
		{plain(), "127.0.0.1:80", []string{"1.2.3.4, [x"}, "127.0.0.1"},
		{plain(), "127.0.0.1:80", []string{"[]", "%", ":", "[1.2.3.4]"}, "1.2.3.4"},
		{plain(), "", nil, ""},
		{plain(), "", []string{"1.2.3.4"}, "1.2.3.4"},
		{plain(), "", []string{"who"}, ""},
		{trusting, "10.1.1.1:1", []string{"1.2.3.4, 10.2.2.2", "10.3.3.3"}, "1.2.3.4"},
		{trusting, "10.1.1.1:1", []string{"spoofed, 1.2.3.4, 10.2.2.2"}, "1.2.3.4"},
		{trusting, "10.1.1.1:1", []string{"10.4.4.4, 10.2.2.2"}, "10.4.4.4"},
		{trusting, "[2001:db8::5]:1", []string{"x, 2001:db8::6"}, "2001:db8::6"},
	} {
		var l []string
		for _, x := range r.xff {
			l = append(l, "X-Forwarded-For: "+x)
		}
		want := uint64(0)
		if r.want != "" {
			want = hashAddr(netip.MustParseAddr(r.want))
		}
		if got := keyOf(t, r.f, KeyConfig{On: "source"}, get(l...), r.remote); got != want {
			t.Errorf("from %q with %q: not the key of %s", r.remote, r.xff, r.want)
		}
		if asked, err := (KeyConfig{On: "source"}).Hash(r.want); asked != want || (err != nil) != (r.want == "") {
			t.Errorf("%s is asked for as %x, %v; want %x", r.want, asked, err, want)
		}
	}
	// As it came: whoever names it in Connection takes it back.
	got := keyOf(t, plain(), KeyConfig{On: "source"}, get("X-Forwarded-For: 1.2.3.4", "Connection: x-forwarded-for"), "127.0.0.1:80")
	if got != hashAddr(netip.MustParseAddr("127.0.0.1")) {
		t.Error("a field of the connection alone was believed")
	}
}

func TestKeyConfig(t *testing.T) {
	for _, c := range []KeyConfig{{"header", ""}, {"header", "a b"}, {"cookie", "a=b"}, {"cookies", "a"}} {
		if c.Validate() == nil {
			t.Errorf("%+v is valid", c)
		}
	}
}

func TestKeyDoesNotAllocate(t *testing.T) {
	m, err := readRequest([]byte(lines("GET /a?b=c%20d&k=%20v HTTP/1.1", "Host: a", "X-User: ann", "X-User: bob",
		"Cookie: a=b; sid=\"c\"", "X-Forwarded-For: 1.2.3.4, [::1]:80, 127.0.0.1")), DefaultLimits())
	if err != nil {
		t.Fatal(err)
	}
	f := plain()
	addr := addrOf(t, "127.0.0.1:80")
	p := f.peer(addr, addr)
	for _, c := range []KeyConfig{{"source", ""}, {"header", "x-user"}, {"cookie", "sid"}, {"path", ""}, {"query", "k"}} {
		k := newKeyer(c, f)
		if n := testing.AllocsPerRun(100, func() {
			if k.of(&m.head, &p, addr) == 0 {
				t.Error("no key")
			}
		}); n != 0 {
			t.Errorf("%s: %v allocations", c.On, n)
		}
	}
}

// FuzzKey: parameters and cookies are those that net/url and net/http read.
func FuzzKey(f *testing.F) {
	f.Add("a=b&k=v%20+", "a=b; k=\"v\"", "k")
	f.Add("%6B=;&k&k=2", "k ;k= x;\tk=y", "k")
	f.Add("=1&=&&a=%3d%3D", "=;a==;;a", "a")
	f.Fuzz(func(t *testing.T, query, cookie, name string) {
		m, err := readRequest([]byte(lines("GET /?"+query+" HTTP/1.1", "Host: a", "Cookie: "+cookie)), DefaultLimits())
		if err != nil {
			return
		}
		h := &m.head
		if _, q := h.path(); string(q) != query {
			return // a line of its own
		}
		values, _ := url.ParseQuery(query)
		k := newKeyer(KeyConfig{"query", name}, plain())
		if got, want := k.of(h, app(), nil), text(values.Get(name)); got != want {
			t.Errorf("parameter %q of %q is not %q", name, query, values.Get(name))
		}
		k = newKeyer(KeyConfig{"cookie", name}, plain())
		if !all([]byte(name), isToken) || name == "" || strings.ContainsAny(cookie, "\"\\") ||
			slices.ContainsFunc([]byte(cookie), func(c byte) bool { return c < 0x20 || c >= 0x7f }) {
			k.of(h, app(), nil)
			return // net/http leaves such values out
		}
		want := ""
		if c, err := (&http.Request{Header: http.Header{"Cookie": {cookie}}}).Cookie(name); err == nil {
			want = c.Value
		}
		if got := k.of(h, app(), nil); got != text(want) {
			t.Errorf("cookie %q of %q is not %q", name, cookie, want)
		}
	})
}

// The whole way: one key, one backend, over connections and retries.
func TestConsistentHashOnTheWire(t *testing.T) {
	t.Parallel()
	a, b, c := named(t, "a"), named(t, "b"), named(t, "c")
	cfg, bcfg := quick(), balance.DefaultConfig()
	bcfg.Picker.Policy = "consistent_hash"
	bcfg.Picker.Hash.On, bcfg.Picker.Hash.Name = "header", "X-User"
	cfg.Hash = KeyConfig{"header", "x-user"}
	r := newRig(t, cfg, bcfg, a.addr, b.addr, c.addr)
	homes := map[string]string{}
	used := map[string]bool{}
	for round := range 3 {
		p := r.dial()
		for _, user := range strings.Fields("ann bob cat dan eve fay gus hal ida jon kim leo") {
			p.send(get("X-User: " + user))
			at := p.answer("GET").body
			if home, ok := homes[user]; ok && home != at {
				t.Errorf("round %d: %s went to %s, before to %s", round, user, at, home)
			}
			homes[user], used[at] = at, true
			r.settled()
		}
	}
	if len(used) != 3 {
		t.Errorf("backends used: %v", used)
	}
	// What goes to one at which nobody listens ends up where it was before.
	r.set(a.addr, b.addr, c.addr, nobody(t))
	p := r.dial()
	for user, home := range homes {
		p.send(get("X-User: " + user))
		if at := p.answer("GET").body; at != home {
			t.Errorf("%s moved from %s to %s for a newcomer that does not answer", user, home, at)
		}
		r.settled()
	}
}

func BenchmarkKey(b *testing.B) {
	m, err := readRequest(benchRequest, DefaultLimits())
	if err != nil {
		b.Fatal(err)
	}
	f, addr := plain(), addrOf(b, "127.0.0.1:80")
	p := f.peer(addr, addr)
	for _, c := range []KeyConfig{{"source", ""}, {"header", "user-agent"}, {"cookie", "theme"}, {"path", ""}, {"query", "page"}} {
		k := newKeyer(c, f)
		b.Run(c.On, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				k.of(&m.head, &p, addr)
			}
		})
	}
}
