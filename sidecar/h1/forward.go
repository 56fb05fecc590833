package h1

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// ForwardConfig says what the forwarded head tells of the client and of this
// hop, and what else is changed in it.
type ForwardConfig struct {
	// XForwarded is what becomes of X-Forwarded-For, -Proto and -Host, as far as
	// Fields names them: one of ForwardModes.
	XForwarded string
	// Forwarded is the same for the field Forwarded (RFC 7239).
	Forwarded string
	Fields    ForwardFields
	// Trust lists the peers whose X-Forwarded-*, X-Real-IP and Forwarded are
	// believed: prefixes like "10.0.0.0/8", and "unix" for unix sockets. What
	// others send of these fields is dropped, in every mode.
	Trust []string
	// Via adds this hop to Via. RFC 9110 section 7.6.3 obliges a proxy to.
	Via bool
	// Traceparent is "pass" or "create": begin a trace (W3C Trace Context, level
	// 1) when none or an invalid one came.
	Traceparent string
	// Sampled is the share of the traces begun here that have the flag sampled,
	// 0 to 1.
	Sampled float64
	// Host is what backends get as Host; "" keeps the client's.
	Host    string
	Headers HeaderConfig
}

// ForwardFields names what is told of a client.
type ForwardFields struct {
	For   bool // its address
	Proto bool // the scheme that it used
	Host  bool // the host that it asked for
	By    bool // the address that it connected to; in Forwarded alone
}

func (f ForwardFields) any() bool { return f != ForwardFields{} }

// The modes of forwarding fields. Only what trusted peers send is ever kept.
const (
	modeAppend  = "append"  // ours behind what came; -Proto and -Host are kept if they came
	modeReplace = "replace" // ours alone
	modePass    = "pass"    // what came
	modeRemove  = "remove"  // nothing
)

// ForwardModes lists what ForwardConfig's XForwarded and Forwarded may be.
func ForwardModes() []string { return []string{modeAppend, modeReplace, modePass, modeRemove} }

// What ForwardConfig's Traceparent may be.
const (
	tracePass   = "pass"
	traceCreate = "create"
)

// TraceModes lists what ForwardConfig's Traceparent may be.
func TraceModes() []string { return []string{tracePass, traceCreate} }

// trustUnix in Trust stands for peers on unix sockets.
const trustUnix = "unix"

// DefaultForwardConfig returns the settings of a service that says nothing.
func DefaultForwardConfig() ForwardConfig {
	return ForwardConfig{
		XForwarded: modeAppend, // HAProxy's "option forwardfor", NGINX's $proxy_add_x_forwarded_for
		// What every backend framework reads. On loopback the scheme is http and
		// the host goes through, so -Proto and -Host would say nothing new; what
		// the app itself says in them passes.
		Fields:    ForwardFields{For: true},
		Forwarded: modePass, // few read it; with X-Forwarded-For it would say the same twice
		// The sidecar's client is the app beside it, which may speak for its own
		// clients. Nobody else can connect to a loopback address; to a socket only
		// whom its file mode lets.
		Trust:       []string{"127.0.0.0/8", "::1/128", trustUnix},
		Via:         true,      // RFC 9110 section 7.6.3: a proxy must
		Traceparent: tracePass, // we record no spans: a trace begins in the app, if it wants one
		// A backend whose sampler follows the flag records nothing of a trace
		// without it: whoever asks for traces to be begun wants to see them.
		Sampled: 1,
	}
}

// Validate reports the first setting that is out of range.
func (c ForwardConfig) Validate() error {
	for _, m := range []struct{ name, mode string }{{"x_forwarded", c.XForwarded}, {"forwarded", c.Forwarded}} {
		if !slices.Contains(ForwardModes(), m.mode) {
			return fmt.Errorf("forward %s is %q, allowed are %s", m.name, m.mode, strings.Join(ForwardModes(), ", "))
		}
		if (m.mode == modeAppend || m.mode == modeReplace) && !c.Fields.any() {
			return fmt.Errorf("forward fields is empty, so %s = %q has nothing to say; for that write \"pass\" or \"remove\"", m.name, m.mode)
		}
	}
	if !slices.Contains(TraceModes(), c.Traceparent) {
		return fmt.Errorf("forward traceparent is %q, allowed are %s", c.Traceparent, strings.Join(TraceModes(), ", "))
	}
	if !(c.Sampled >= 0 && c.Sampled <= 1) {
		return fmt.Errorf("forward sampled is %v, allowed are 0 to 1", c.Sampled)
	}
	if _, _, err := parseTrust(c.Trust); err != nil {
		return err
	}
	if len(c.Host) > 255+len(":65535") || !hostOK([]byte(c.Host)) {
		return fmt.Errorf("forward host %.300q is not a host with or without a port", c.Host)
	}
	if err := c.Headers.Validate(); err != nil {
		return err
	}
	return c.conflict()
}

// conflict reports a header that both the engine and the headers block write.
func (c ForwardConfig) conflict() error {
	writes := c.XForwarded == modeAppend || c.XForwarded == modeReplace
	for _, w := range []struct {
		on         bool
		name, word string
	}{{writes && c.Fields.Proto, "x-forwarded-proto", "proto"}, {writes && c.Fields.Host, "x-forwarded-host", "host"}} {
		if w.on && c.Headers.Request.names(w.name) {
			return fmt.Errorf("forward fields has %q, so x_forwarded writes the header that headers request names too: leave one out", w.word)
		}
	}
	return nil
}

// maxTrust bounds the prefixes, which are looked at one by one for each
// connection.
const maxTrust = 256

func parseTrust(list []string) (prefixes []netip.Prefix, unix bool, err error) {
	if len(list) > maxTrust {
		return nil, false, fmt.Errorf("forward trust has %d entries, allowed are up to %d", len(list), maxTrust)
	}
	for _, s := range list {
		if s == trustUnix {
			unix = true
			continue
		}
		p, err := netip.ParsePrefix(s)
		if err != nil || p.Addr().Is4In6() {
			return nil, false, fmt.Errorf(`forward trust has %.60q, which is neither a prefix like "10.0.0.0/8" or "::1/128" nor "unix"`, s)
		}
		prefixes = append(prefixes, p.Masked())
	}
	return prefixes, unix, nil
}

// HeaderConfig changes the heads that pass, those of requests on their way to a
// backend and those of final answers and 101 on their way back. What the proxy
// itself answers is not changed.
type HeaderConfig struct{ Request, Response HeaderOps }

// HeaderOps are done in this order.
type HeaderOps struct {
	Remove []string      // dropped
	Set    []HeaderField // takes the place of all with its name
	Add    []HeaderField // comes behind those with its name
}

// HeaderField is a field that is written as it is.
type HeaderField struct{ Name, Value string }

// Bounds of what is added to every head.
const (
	maxOps         = 64
	maxHeaderName  = 128
	maxHeaderValue = 4096
)

// Validate reports the first header that may not be changed or that is not one.
// Values, which may be secrets, are not repeated.
func (c HeaderConfig) Validate() error {
	for _, p := range []struct {
		where    string
		ops      HeaderOps
		response bool
	}{{"request", c.Request, false}, {"response", c.Response, true}} {
		if err := p.ops.validate(p.response); err != nil {
			return fmt.Errorf("forward headers %s %w", p.where, err)
		}
	}
	return nil
}

func (o HeaderOps) validate(response bool) error {
	removed := make([]HeaderField, len(o.Remove))
	for i, name := range o.Remove {
		removed[i].Name = name
	}
	for _, l := range []struct {
		name string
		list []HeaderField
	}{{"remove", removed}, {"set", o.Set}, {"add", o.Add}} {
		if len(l.list) > maxOps {
			return fmt.Errorf("%s has %d headers, allowed are up to %d", l.name, len(l.list), maxOps)
		}
		for i, f := range l.list {
			if err := f.Validate(response); err != nil {
				return fmt.Errorf("%s: %w", l.name, err)
			}
			same := func(g HeaderField) bool { return strings.EqualFold(f.Name, g.Name) }
			if slices.ContainsFunc(l.list[:i], same) {
				return fmt.Errorf("%s has %q twice", l.name, f.Name)
			}
		}
	}
	for _, f := range o.Set {
		if slices.ContainsFunc(o.Remove, func(name string) bool { return strings.EqualFold(f.Name, name) }) {
			return fmt.Errorf("set and remove both name %q: set alone takes what came away", f.Name)
		}
	}
	return nil
}

// names reports whether any of the operations is on that header.
func (o HeaderOps) names(lower string) bool {
	same := func(name string) bool { return strings.EqualFold(name, lower) }
	field := func(f HeaderField) bool { return same(f.Name) }
	return slices.ContainsFunc(o.Remove, same) || slices.ContainsFunc(o.Set, field) || slices.ContainsFunc(o.Add, field)
}

// Validate reports why the field, of a request or a response, may not be written.
// The value, which may be a secret, is not repeated.
func (f HeaderField) Validate(response bool) error {
	if len(f.Name) > maxHeaderName {
		return fmt.Errorf("a header name is %d bytes long, allowed are up to %d", len(f.Name), maxHeaderName)
	}
	if f.Name == "" || !all([]byte(f.Name), isToken) {
		return fmt.Errorf("%q is no header name", f.Name)
	}
	if why := refusedHeader(identify([]byte(f.Name)), response); why != "" {
		return fmt.Errorf("%q %s", f.Name, why)
	}
	switch {
	case len(f.Value) > maxHeaderValue:
		return fmt.Errorf("the value of %q is %d bytes long, allowed are up to %d", f.Name, len(f.Value), maxHeaderValue)
	case !all([]byte(f.Value), isValue):
		return fmt.Errorf("the value of %q has control characters", f.Name)
	case string(trim([]byte(f.Value))) != f.Value:
		return errors.New("the value of \"" + f.Name + "\" has blanks at an end, which are no part of it")
	}
	return nil
}

// refusedHeader says why a header is not for the headers block, "" if it is.
func refusedHeader(id field, response bool) string {
	switch id {
	case fContentLength, fTransferEncoding, fTrailer:
		return "frames the message, which is the engine's to do"
	case fConnection, fUpgrade, fTE, fHop:
		return "is of one connection alone and never passes a proxy"
	case fExpect, fMaxForwards, fDate:
		return "is the engine's to handle"
	case fVia:
		return "is what forward via is for"
	case fHost:
		if response {
			return "is no header of an answer"
		}
		return "is what forward host is for"
	}
	if response {
		return ""
	}
	switch id {
	case fForwardedFor:
		return "is what forward x_forwarded is for"
	case fForwarded:
		return "is what forward forwarded is for"
	case fTraceparent:
		return "is what forward traceparent is for"
	}
	return ""
}
