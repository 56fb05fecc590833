package h1

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"unsafe"

	"outrigger/picker"
)

// KeyConfig says what of a request is hashed for the policy consistent_hash. A
// request without it, or with an empty one, has no key, and goes anywhere.
//
//   - source: the client's address without its port: the peer's or, if it is one
//     that ForwardConfig.Trust lists, the last address in X-Forwarded-For that is
//     not (the first, if all are). A Unix socket's client has none of its own.
//   - header: the value, lines of the same name joined as RFC 9110 section 5.3
//     says. Host is one of them.
//   - cookie: the value of the first cookie of the name, without quotes around it.
//   - path: as it came, not decoded, without the query.
//   - query: the first value of the parameter, decoded like a form's: + and %20
//     are the same.
type KeyConfig struct {
	On   string // one of picker.HashKeys, "" for no key
	Name string // the header's, cookie's or parameter's
}

// Validate reports a name that nothing can have.
func (c KeyConfig) Validate() error {
	switch {
	case c.On != "" && !slices.Contains(picker.HashKeys(), c.On):
		return fmt.Errorf("hash on is %q, allowed are %s", c.On, strings.Join(picker.HashKeys(), ", "))
	case (c.On == "header" || c.On == "cookie") && (c.Name == "" || !all([]byte(c.Name), isToken)):
		return fmt.Errorf("hash name is %.80q, which is no name of a %s", c.Name, c.On)
	}
	return nil
}

// Hash returns the key of a request in which c finds this text: what Server
// hashes, decoded as KeyConfig says. A text that no request has there is an error.
func (c KeyConfig) Hash(text string) (uint64, error) {
	if c.On != "source" {
		return hashBytes([]byte(text)), nil
	}
	addr, err := netip.ParseAddr(text)
	if err != nil {
		return 0, fmt.Errorf("%.80q is no IP address, and the service hashes its clients'", text)
	}
	return hashAddr(addr.Unmap().WithZone("")), nil
}

// keyer hashes requests. It is read-only.
type keyer struct {
	on, name string // a header's name in lower case
	forward  *forwarder
}

func newKeyer(c KeyConfig, f *forwarder) keyer {
	k := keyer{c.On, c.Name, f}
	if k.on == "header" {
		k.name = strings.ToLower(k.name)
	}
	return k
}

// of returns the key of a request, 0 for none. It must see the head before the
// forwarder has marked what does not pass.
func (k *keyer) of(h *Head, p *peerInfo, remote net.Addr) uint64 {
	switch k.on {
	case "source":
		return hashAddr(k.forward.source(h, p, remote))
	case "header":
		return h.hashField(k.name)
	case "cookie":
		for it := cookiesOf(h); it.next(); {
			if string(it.name) == k.name {
				return hashBytes(unquoted(it.value))
			}
		}
	case "path":
		path, _ := h.path()
		return hashBytes(path)
	case "query":
		_, query := h.path()
		return hashParam(query, k.name)
	}
	return 0
}

func hashBytes(b []byte) uint64 {
	if len(b) == 0 {
		return 0
	}
	return picker.NewDigest().Bytes(b).Sum()
}

// hashAddr hashes IPv4 addresses like those that IPv6 maps to them.
func hashAddr(a netip.Addr) uint64 {
	if !a.IsValid() {
		return 0
	}
	b := a.As16()
	return hashBytes(b[:])
}

// hashField hashes the lines of a field as if they were one.
func (h *Head) hashField(lower string) uint64 {
	d, some := picker.NewDigest(), false
	for i := range h.Headers {
		f := &h.Headers[i]
		if len(f.Value) == 0 || !fold(f.Name, lower) {
			continue
		}
		if some {
			d = d.Byte(',').Byte(' ')
		}
		d, some = d.Bytes(f.Value), true
	}
	if !some {
		return 0
	}
	return d.Sum()
}

// path splits the request's target into path and query.
func (h *Head) path() (path, query []byte) {
	path, query, _ = bytes.Cut(h.Target, []byte("?"))
	if len(path) > 0 && path[0] == '/' {
		return path, query
	}
	if i := bytes.Index(path, []byte("://")); i > 0 { // absolute-form
		if j := bytes.IndexByte(path[i+3:], '/'); j >= 0 {
			return path[i+3+j:], query
		}
		return []byte("/"), query
	}
	return path, query // "*"
}

// hashParam hashes the first value of a parameter of a query. As in net/url, a
// semicolon is no separator and spoils what is between two &.
func hashParam(query []byte, name string) uint64 {
	for len(query) > 0 {
		var pair []byte
		pair, query, _ = bytes.Cut(query, []byte("&"))
		key, value, _ := bytes.Cut(pair, []byte("="))
		if bytes.IndexByte(pair, ';') >= 0 || !decodesTo(key, name) || len(pair) == 0 {
			continue
		}
		if len(value) == 0 {
			return 0
		}
		d := picker.NewDigest()
		for i := 0; i < len(value); {
			var c byte
			c, i = decoded(value, i)
			d = d.Byte(c)
		}
		return d.Sum()
	}
	return 0
}

// decodesTo reports whether b, decoded, is s.
func decodesTo(b []byte, s string) bool {
	i, n := 0, 0
	for ; i < len(b); n++ {
		var c byte
		if c, i = decoded(b, i); n == len(s) || c != s[n] {
			return false
		}
	}
	return n == len(s)
}

// decoded returns the byte that b, of a form, has at i, and where the next one
// is. The parser has checked that hex digits come after each %.
func decoded(b []byte, i int) (c byte, next int) {
	switch {
	case b[i] == '+':
		return ' ', i + 1
	case b[i] == '%' && i+2 < len(b):
		return unhex(b[i+1])<<4 | unhex(b[i+2]), i + 3
	}
	return b[i], i + 1
}

// source returns the address of a request's client, invalid where there is none.
func (f *forwarder) source(h *Head, p *peerInfo, remote net.Addr) netip.Addr {
	var addr netip.Addr
	if a, ok := remote.(*net.TCPAddr); ok {
		addr = a.AddrPort().Addr().Unmap().WithZone("")
	}
	if !p.trusted || h.has&(1<<fForwardedFor) == 0 {
		return addr
	}
	for i := len(h.Headers) - 1; i >= 0; i-- {
		x := &h.Headers[i]
		if x.id != fForwardedFor || x.drop {
			continue
		}
		for list := x.Value; len(list) > 0; {
			j := bytes.LastIndexByte(list, ',')
			e := trim(list[j+1:])
			list = list[:max(0, j)]
			if len(e) == 0 {
				continue
			}
			a, ok := nodeAddr(e)
			if !ok {
				return addr // who is behind it, nobody knows
			}
			if addr = a; !f.trusts(a) {
				return addr
			}
		}
	}
	return addr
}

func (f *forwarder) trusts(a netip.Addr) bool {
	for _, t := range f.prefixes {
		if t.Contains(a) {
			return true
		}
	}
	return false
}

// nodeAddr reads an address in X-Forwarded-For. Some write a port too, and IPv6
// in brackets.
func nodeAddr(e []byte) (netip.Addr, bool) {
	if e[0] == '[' {
		i := bytes.IndexByte(e, ']')
		if i < 0 || !portOK(e[i+1:]) {
			return netip.Addr{}, false
		}
		e = e[1:i]
	} else if i := bytes.IndexByte(e, ':'); i >= 0 && bytes.IndexByte(e, '.') >= 0 && i == bytes.LastIndexByte(e, ':') && portOK(e[i:]) {
		e = e[:i]
	}
	if len(e) == 0 {
		return netip.Addr{}, false
	}
	// Not string(e), which would allocate: only a zone is kept, and is cut off.
	e, _, _ = bytes.Cut(e, []byte("%"))
	a, err := netip.ParseAddr(unsafe.String(unsafe.SliceData(e), len(e)))
	return a.Unmap(), err == nil
}

// cookies goes through the cookies of a request's head.
type cookies struct {
	name, value []byte // quotes and all

	h    *Head
	with []byte // nil, or what a line must hold to be looked at
	i    int    // the header to look at next
	rest []byte // of the one before
}

func cookiesOf(h *Head) cookies { return cookies{h: h} }

// next goes to the next cookie. false: there is none.
func (c *cookies) next() bool {
	for {
		for len(c.rest) > 0 {
			var pair []byte
			pair, c.rest, _ = bytes.Cut(c.rest, []byte(";"))
			if pair = trim(pair); len(pair) > 0 {
				c.name, c.value, _ = bytes.Cut(pair, []byte("="))
				c.name = trim(c.name)
				return true
			}
		}
		if c.i == len(c.h.Headers) {
			return false
		}
		if f := &c.h.Headers[c.i]; f.isCookie() && bytes.Contains(f.Value, c.with) {
			c.rest = f.Value
		}
		c.i++
	}
}

// isCookie reports whether the field holds cookies of a request.
func (f *Header) isCookie() bool { return !f.drop && f.id == other && fold(f.Name, "cookie") }

// unquoted takes the quotes off a cookie's value.
func unquoted(v []byte) []byte {
	if n := len(v); n > 1 && v[0] == '"' && v[n-1] == '"' {
		return v[1 : n-1]
	}
	return v
}
