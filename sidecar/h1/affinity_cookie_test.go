package h1

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"outrigger/picker"
)

func TestWithoutCookie(t *testing.T) {
	for in, want := range map[string]string{
		"pin=1": "", "pin": "", " pin = 1 ; ": "", "pin=1;pin=2;; ": "", "a=b": "a=b", "a=b; pin=1": "a=b", "pin=1; a=b": "a=b",
		"a=b; pin=1; c=d": "a=b; c=d", "a=b;pin=1;c=d": "a=b;c=d", "pins=1; xpin=2;Pin=3": "pins=1; xpin=2;Pin=3", "": "", ";": ";",
		";0": ";0", ";pin;0": "0", " ;pin;;0": ";;0",
		"a=pin=1; pin=1;a=\"x;pin=3\"": "a=pin=1;a=\"x", "pin=1;   a": "a", "a;pin": "a", " a ; b ": " a ; b ",
	} {
		v := []byte(in + "|tail")
		if got := string(withoutCookie(v[:len(in):len(in)], "pin")); got != want || string(v[len(in):]) != "|tail" {
			t.Errorf("%q becomes %q, want %q; %q", in, got, want, v)
		}
	}
}

func TestAffinityConfig(t *testing.T) {
	if err := DefaultAffinityConfig().Validate(); err != nil {
		t.Error(err)
	}
	for want, set := range map[string]func(*AffinityConfig){
		"cookie":      func(c *AffinityConfig) { c.Cookie = "a b" },
		"cookie is":   func(c *AffinityConfig) { c.Cookie = strings.Repeat("x", 65) },
		"__Host-":     func(c *AffinityConfig) { c.Cookie = "__HOST-a" },
		"secure":      func(c *AffinityConfig) { c.Cookie = "__Secure-a" },
		"secret":      func(c *AffinityConfig) { c.Secret = "short" },
		"but no":      func(c *AffinityConfig) { c.Cookie, c.Secret = "", "a long enough one" },
		"ttl":         func(c *AffinityConfig) { c.TTL = time.Second },
		"9600h":       func(c *AffinityConfig) { c.TTL = maxAffinityTTL + 1 },
		"path":        func(c *AffinityConfig) { c.Path = "a" },
		"path is":     func(c *AffinityConfig) { c.Path = "/;HttpOnly" },
		"no path":     func(c *AffinityConfig) { c.Path = "/a\r\nX: y" },
		"same_site":   func(c *AffinityConfig) { c.SameSite = "" },
		"is \"none\"": func(c *AffinityConfig) { c.SameSite = "none" },
	} {
		c := stickyConfig(0)
		set(&c)
		err := c.Validate()
		if err == nil || !strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), "affinity ") || strings.Contains(err.Error(), "short\"") {
			t.Errorf("%q: %v", want, err)
		}
	}
}

// FuzzAffinity: what is left of the cookies is what net/http reads but for ours,
// and what is forwarded parses again.
func FuzzAffinity(f *testing.F) {
	at := time.Unix(2e9, 0)
	a := sticky(time.Hour, at)
	good := mint(a, "x")
	for _, s := range []string{"pin=" + good, "a=b; pin=" + good + "; c", "pin;;pin=" + good[1:], "\t; pin = " + good} {
		f.Add(s, "a=b; pin")
	}
	f.Fuzz(func(t *testing.T, one, two string) {
		in := get("Cookie: "+one, "X: y", "cookie: "+two)
		m, err := readRequest([]byte(in), DefaultLimits())
		if err != nil || len(m.head.Headers) != 4 {
			return
		}
		kept := func(h http.Header) (list []string) {
			for _, c := range (&http.Request{Header: h}).Cookies() {
				if c.Name != "pin" {
					list = append(list, c.Name+"="+c.Value)
				}
			}
			return list
		}
		want := kept(http.Header{"Cookie": {string(m.head.Headers[1].Value), string(m.head.Headers[3].Value)}})
		if p := a.take(&m.head); p.of != 0 && (p.of != picker.Hash("x") || !strings.Contains(in, good)) {
			t.Fatalf("%q: a cookie for %x", in, p.of)
		}
		out := plain().appendRequest(nil, &m.head, app(), false, false)
		again, err := readRequest(out, Limits{Line: 1 << 20, Head: 1 << 20, Headers: 1 << 20})
		if err != nil {
			t.Fatalf("%q\nforwarded as %q: %v", in, out, err)
		}
		h := http.Header{}
		for _, x := range again.head.Headers {
			h.Add(string(x.Name), string(x.Value))
		}
		if got := kept(h); !slices.Equal(got, want) || len((&http.Request{Header: h}).CookiesNamed("pin")) > 0 {
			t.Fatalf("%q\nforwarded as %q: cookies %q, want %q", in, out, got, want)
		}
	})
}

func TestAffinityDoesNotAllocate(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector empties pools")
	}
	a := sticky(time.Hour, time.Unix(2e9, 0))
	value := []byte(mint(a, "x"))
	head := make([]byte, 0, 1024)
	if n := testing.AllocsPerRun(1000, func() {
		if a.verify(value).of == 0 {
			t.Error("not verified")
		}
		head = a.appendTo(append(head[:0], "\r\n"...), 1)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkAffinity(b *testing.B) {
	a := sticky(time.Hour, time.Unix(2e9, 0))
	value, head := []byte(mint(a, "x")), make([]byte, 0, 1024)
	b.Run("verify", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			a.verify(value)
		}
	})
	// What a client may send to keep us busy, and what most do send.
	for name, cookie := range map[string]string{"many": strings.Repeat("a;", 15000), "few": "a=b; c=d"} {
		raw := []byte(get("Cookie: " + cookie))
		b.Run("take/"+name, func(b *testing.B) {
			var h Head
			if err := h.ParseRequest(raw, Limits{Line: 8192, Head: 1 << 16, Headers: 128}); err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				a.take(&h)
			}
		})
	}
	b.Run("set", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			head = a.appendTo(append(head[:0], "\r\n"...), 1)
		}
	})
}
