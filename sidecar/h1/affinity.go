package h1

import (
	"bytes"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"hash"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"outrigger/discovery"
	"outrigger/picker"
)

// AffinityConfig binds a client to the endpoint that served it first, by a
// cookie, whatever the policy. It is for state that a backend keeps and could do
// without: an endpoint that is not ready (ejected, draining, at its limit, left
// out by the policy, tried already) is not waited for. The policy picks another
// then, and the client is bound to that.
//
// The cookie is ours alone: backends never see it, and what they set under its
// name does not pass (HAProxy's "insert indirect"). It is set by answers that
// count as a success of an endpoint other than the cookie's, with "Cache-Control:
// private", for it is nobody else's ("nocache").
type AffinityConfig struct {
	Cookie string // its name; "": no affinity
	// TTL is how long a cookie is good for, 10s to 9600h (400 days, the most that
	// browsers keep one). A client that comes in its second half gets a new one. 0:
	// until the browser is closed, and however old it is.
	TTL time.Duration
	// Secret signs the cookies, with the service's name. Sidecars that have the
	// same take each other's. "": a key in the state directory is used.
	Secret discovery.Secret
	Path   string
	Secure bool // only by HTTPS, which somebody else must speak
	// SameSite is one of SameSites.
	SameSite string
}

// SameSites lists what AffinityConfig.SameSite may be.
func SameSites() []string { return []string{"lax", "strict", "none"} }

// DefaultAffinityConfig returns the settings of a service that says nothing.
func DefaultAffinityConfig() AffinityConfig {
	return AffinityConfig{
		TTL:      0, // as HAProxy's cookie and Envoy's
		Path:     "/",
		SameSite: "lax", // what browsers do anyway
	}
}

const (
	minSecret      = 16
	maxAffinityTTL = 400 * 24 * time.Hour // RFC 6265bis section 5.5
)

// Validate reports the first setting that is out of range.
func (c AffinityConfig) Validate() error {
	if c.Cookie == "" {
		if c != (AffinityConfig{TTL: c.TTL, Path: c.Path, Secure: c.Secure, SameSite: c.SameSite}) {
			return fmt.Errorf("affinity has a secret but no cookie: write cookie = \"NAME\"")
		}
		return c.validateRest()
	}
	host := strings.HasPrefix(strings.ToLower(c.Cookie), "__host-")
	switch {
	case len(c.Cookie) > 64 || !all([]byte(c.Cookie), isToken):
		return fmt.Errorf("affinity cookie is %.80q, which is no name of a cookie of up to 64 characters", c.Cookie)
	case host && (!c.Secure || c.Path != "/"), strings.HasPrefix(strings.ToLower(c.Cookie), "__secure-") && !c.Secure:
		return fmt.Errorf("affinity cookie is %q: browsers take that name only with secure = true, and with path = \"/\" if it begins with __Host-", c.Cookie)
	case c.Secret != "" && len(strings.TrimSpace(string(c.Secret))) < minSecret:
		return fmt.Errorf("affinity secret is shorter than %d bytes: write a random one, of `openssl rand -hex 32` say", minSecret)
	}
	return c.validateRest()
}

func (c AffinityConfig) validateRest() error {
	switch {
	case c.TTL != 0 && (c.TTL < 10*time.Second || c.TTL > maxAffinityTTL):
		return fmt.Errorf("affinity ttl is %v, allowed are 10s to 9600h, or 0s for as long as the browser is open", c.TTL)
	case !strings.HasPrefix(c.Path, "/") || len(c.Path) > 256 || strings.Contains(c.Path, ";") || !all([]byte(c.Path), isTarget):
		return fmt.Errorf("affinity path is %.80q, which is no path like \"/\" or \"/app\"", c.Path)
	case !slices.Contains(SameSites(), c.SameSite):
		return fmt.Errorf("affinity same_site is %q, allowed are %s", c.SameSite, strings.Join(SameSites(), ", "))
	case c.SameSite == "none" && !c.Secure:
		return fmt.Errorf("affinity same_site is \"none\", which browsers take only with secure = true")
	}
	return nil
}

// affinity makes and reads the cookies of a service. Any goroutine may use it.
//
// A value is base64url of 32 bytes: the hash of the instance's ID, when it was
// issued in seconds since 1970, and the first 16 bytes of the HMAC-SHA256 of
// both. The key is the service's alone.
type affinity struct {
	name   string
	search []byte // the name
	ttl    int64  // seconds, 0: none
	open   []byte // the lines of an answer up to the value
	close  []byte // and behind it
	macs   sync.Pool
	now    func() time.Time
}

const (
	rawCookie  = 32
	textCookie = 43 // rawCookie in base64url without padding
	// early is how far ahead the clock may be of who issued a cookie.
	early = 60
	// mostCookies bounds the signatures that one request has checked.
	mostCookies = 4
)

// newAffinity returns nil for a configuration without affinity. Without a key it
// makes one at random: its cookies are good for as long as it lives.
func newAffinity(c AffinityConfig, key []byte, now func() time.Time) *affinity {
	if c.Cookie == "" {
		return nil
	}
	if len(key) == 0 {
		key = make([]byte, sha256.Size)
		_, _ = rand.Read(key) // never fails
	}
	a := &affinity{name: c.Cookie, search: []byte(c.Cookie), ttl: int64(c.TTL / time.Second), now: now}
	a.open = []byte("Cache-Control: private\r\nSet-Cookie: " + c.Cookie + "=")
	b := append([]byte("; Path="), c.Path...)
	if a.ttl > 0 {
		b = strconv.AppendInt(append(b, "; Max-Age="...), a.ttl, 10)
	}
	b = append(b, "; HttpOnly"...)
	if c.Secure {
		b = append(b, "; Secure"...)
	}
	b = append(append(b, "; SameSite="...), strings.ToUpper(c.SameSite[:1])+c.SameSite[1:]...)
	a.close = append(b, "\r\n"...)
	a.macs.New = func() any { return &mac{hash: hmac.New(sha256.New, key)} }
	return a
}

// mac is a signer with room for a cookie, pooled so that none is allocated.
type mac struct {
	hash hash.Hash
	raw  [rawCookie]byte // of the cookie at hand
	sum  [sha256.Size]byte
}

// sign returns the signature of the first half of m.raw.
func (m *mac) sign() []byte {
	m.hash.Reset()
	_, _ = m.hash.Write(m.raw[:rawCookie/2])
	return m.hash.Sum(m.sum[:0])[:rawCookie/2]
}

// pin is what a request's cookie says.
type pin struct {
	of    uint64 // hash of the instance's ID; 0: no valid cookie
	renew bool   // it is about to run out
}

// take reads the cookie, and takes every one of its name out of the head. Of
// several the first that is valid counts.
func (a *affinity) take(h *Head) (p pin) {
	found := 0
	// Most requests are done with after a search at the speed of memory.
	for it := (cookies{h: h, with: a.search}); it.next(); {
		if string(it.name) != a.name {
			continue
		}
		if found++; p.of == 0 && found <= mostCookies {
			p = a.verify(it.value)
		}
	}
	if found > 0 {
		a.cut(h)
	}
	return p
}

func (a *affinity) verify(value []byte) (p pin) {
	if len(value) != textCookie {
		return pin{}
	}
	m := a.macs.Get().(*mac)
	defer a.macs.Put(m)
	n, err := base64.RawURLEncoding.Strict().Decode(m.raw[:], value)
	if err != nil || n != rawCookie || !hmac.Equal(m.sign(), m.raw[rawCookie/2:]) {
		return pin{}
	}
	age := a.now().Unix() - int64(binary.BigEndian.Uint64(m.raw[8:]))
	if age < -early || a.ttl > 0 && age >= a.ttl {
		return pin{}
	}
	return pin{binary.BigEndian.Uint64(m.raw[:]), a.ttl > 0 && age >= a.ttl/2}
}

// appendTo adds the cookie for the instance with the hash to a complete head.
func (a *affinity) appendTo(head []byte, of uint64) []byte {
	m := a.macs.Get().(*mac)
	binary.BigEndian.PutUint64(m.raw[:], of)
	binary.BigEndian.PutUint64(m.raw[8:], uint64(a.now().Unix()))
	copy(m.raw[rawCookie/2:], m.sign())
	head = append(head[:len(head)-len("\r\n")], a.open...)
	head = base64.RawURLEncoding.AppendEncode(head, m.raw[:])
	a.macs.Put(m)
	return append(append(head, a.close...), '\r', '\n')
}

// cut takes the cookies of the name out of a request's head, in place.
func (a *affinity) cut(h *Head) {
	for i := range h.Headers {
		f := &h.Headers[i]
		if !f.isCookie() || !bytes.Contains(f.Value, a.search) {
			continue
		}
		before := len(f.Value)
		if f.Value = withoutCookie(f.Value, a.name); len(f.Value) == 0 {
			f.drop = true
		} else if len(f.Value) < before {
			f.line = 0
		}
	}
}

// withoutCookie returns v without the cookies of that name, in the memory of v.
func withoutCookie(v []byte, name string) []byte {
	n, cut := 0, false // v[:n] stays
	for start := 0; start <= len(v); {
		end := start + bytes.IndexByte(v[start:], ';')
		if end < start {
			end = len(v)
		}
		pair := v[start:end]
		start = end + 1
		if of, _, _ := bytes.Cut(pair, []byte("=")); string(trim(of)) == name {
			cut = true
			continue
		}
		switch {
		case !cut: // nothing to move
			n = end
			continue
		case n > 0:
			v[n] = ';'
			n++
		default:
			pair = trim(pair)
		}
		n += copy(v[n:], pair)
	}
	if !cut {
		return v
	}
	return trim(v[:n])
}

// dropSetCookie marks the cookies of that name that an answer sets.
func (h *Head) dropSetCookie(name string) {
	for i := range h.Headers {
		f := &h.Headers[i]
		if f.id != other || !fold(f.Name, "set-cookie") {
			continue
		}
		pair, _, _ := bytes.Cut(f.Value, []byte(";"))
		if n, _, _ := bytes.Cut(pair, []byte("=")); string(trim(n)) == name {
			f.drop = true
		}
	}
}

// bind takes what the request says of where it belongs out of its head.
func (c *conn) bind() {
	s := c.s
	if s.keys.on != "" {
		c.rq.key = s.keys.of(&c.req, &c.peer, c.nc.RemoteAddr())
	}
	if s.affinity != nil {
		c.rq.pin = s.affinity.take(&c.req)
	}
}

// answerHead appends the head of the answer in c.res, as appendResponse does. It
// binds the client to the endpoint of the lease if that serves it well and is not
// the one that the client is bound to.
func (c *conn) answerHead(dst []byte, to Framing, connection string, upgrade bool) []byte {
	a := c.s.affinity
	if a != nil {
		c.res.dropSetCookie(a.name)
	}
	dst = c.s.forward.appendResponse(dst, &c.res, to, connection, upgrade)
	if a != nil && (c.rq.pin.of != c.lease.Pin() || c.rq.pin.renew) && c.outcome(c.res.Status) == picker.Success {
		dst = a.appendTo(dst, c.lease.Pin())
	}
	return dst
}
