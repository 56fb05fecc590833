package healthcheck

import (
	"errors"
	"fmt"
	"net/textproto"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// Config is how the endpoints of one service are checked.
type Config struct {
	// Kind is "http", "tcp" or "grpc"; "": no checks.
	Kind string
	// Interval is the time between two checks of one endpoint, 100 ms to 1 h.
	Interval time.Duration
	// FastInterval takes its place for an endpoint that is new, or whose last result is
	// not what its state says, 10 ms to Interval; 0: the smaller of Interval and 1 s.
	FastInterval time.Duration
	// Timeout bounds one check, connecting included, 10 ms to Interval; 0: the smaller of
	// Interval and 2 s.
	Timeout time.Duration
	// Rise is how many successes in a row bring an endpoint up that was down, 1 to 100.
	// One that is new is up after the first.
	Rise int
	// Fall is how many failures in a row bring it down, 1 to 100.
	Fall int
	// Spread is the share by which each interval varies, up and down, 0 to 0.5.
	Spread float64
	// Port takes the place of the instance's, 0 to 65535; 0: the instance's own.
	Port int
	HTTP HTTPConfig // for Kind "http"
	GRPC GRPCConfig // for Kind "grpc"
}

// HTTPConfig is the request of a check by HTTP/1.1 and what its answer must be.
type HTTPConfig struct {
	Method string // without a body; "HEAD" has no BodyMatch
	Path   string // with its query, from "/"
	// Host is the Host header; "": the address that is checked.
	Host string
	// Headers are sent besides. Their values may be secrets: they appear in no log, no
	// error and no status. But they are shown to whatever address the catalog has, in
	// clear where the service is without TLS.
	Headers map[string]string
	// Statuses are those of a healthy endpoint, "204" or "200-399", 200 to 599 each.
	Statuses []string
	// HeaderMatch holds, by the name of a header, a regular expression (RE2) that one of
	// its values must match.
	HeaderMatch map[string]string
	// BodyMatch must match the body's first 64 KiB; "": any body will do.
	BodyMatch string
}

// GRPCConfig is the request of a check by grpc.health.v1.
type GRPCConfig struct {
	Service string // whose state is asked for; "": the server's
}

// Kinds lists what Config.Kind may be besides "".
func Kinds() []string { return []string{"http", "tcp", "grpc"} }

// DefaultConfig returns the defaults.
func DefaultConfig() Config {
	return Config{
		// NGINX's. HAProxy's 2 s is for one proxy: here there are as many as there are clients.
		Interval: 5 * time.Second,
		// HAProxy's: one lost packet takes nobody out, one lucky answer brings nobody back.
		Rise: 2,
		Fall: 3,
		// Enough for the sidecars of one backend to drift apart within a minute.
		Spread: 0.1,
		HTTP: HTTPConfig{
			Method:   "GET", // the one method that every server has
			Path:     "/",
			Statuses: []string{"200-399"}, // what browsers take for an answer, as HAProxy does
		},
	}
}

// filled returns the configuration with the values that depend on others.
func (c Config) filled() Config {
	if c.FastInterval == 0 {
		// A dead endpoint is out within three checks of a second each, not of five.
		c.FastInterval = min(c.Interval, time.Second)
	}
	if c.Timeout == 0 {
		// A backend that needs longer for this does not do for requests either.
		c.Timeout = min(c.Interval, 2*time.Second)
	}
	return c
}

// Validate reports everything that is wrong with the configuration. No value of a
// header is in its errors.
func (c Config) Validate() error {
	if c.Kind == "" {
		return nil
	}
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf("health_check "+format, args...)) }
	if !slices.Contains(Kinds(), c.Kind) {
		bad("kind %.80q is unknown, there are %s", c.Kind, strings.Join(Kinds(), ", "))
	}
	if c.Interval < 100*time.Millisecond || c.Interval > time.Hour {
		bad("interval %s is outside 100ms to 1h", c.Interval)
	}
	if c.FastInterval != 0 && c.FastInterval < 10*time.Millisecond || c.FastInterval > c.Interval {
		bad("fast_interval %s is outside 10ms to %s (the interval)", c.FastInterval, c.Interval)
	}
	if c.Timeout != 0 && c.Timeout < 10*time.Millisecond || c.Timeout > c.Interval {
		bad("timeout %s is outside 10ms to %s (the interval): checks of one endpoint must not overlap", c.Timeout, c.Interval)
	}
	if c.Rise < 1 || c.Rise > 100 {
		bad("rise %d is outside 1 to 100", c.Rise)
	}
	if c.Fall < 1 || c.Fall > 100 {
		bad("fall %d is outside 1 to 100", c.Fall)
	}
	if !(c.Spread >= 0 && c.Spread <= 0.5) {
		bad("spread %v is outside 0 to 0.5", c.Spread)
	}
	if c.Port < 0 || c.Port > 65535 {
		bad("port %d is outside 0 to 65535 (0: the instance's)", c.Port)
	}
	switch def := DefaultConfig(); {
	case c.Kind == "http":
		c.HTTP.validate(bad)
	case !reflect.DeepEqual(c.HTTP, def.HTTP):
		bad("%q has settings of an HTTP request, which it does not make", c.Kind)
	}
	switch {
	case c.Kind != "grpc" && c.GRPC != GRPCConfig{}:
		bad("%q has a service, which only %q asks for", c.Kind, "grpc")
	case len(c.GRPC.Service) > 1024 || !utf8.ValidString(c.GRPC.Service):
		bad("service is longer than 1024 bytes or not UTF-8")
	}
	return errors.Join(errs...)
}

// ownHeaders are those that frame the request or have settings of their own.
var ownHeaders = map[string]string{
	"Host":                "set host",
	"Connection":          "each check has its own connection, which is closed after it",
	"Keep-Alive":          "each check has its own connection, which is closed after it",
	"Content-Length":      "a check has no body",
	"Transfer-Encoding":   "a check has no body",
	"Trailer":             "a check has no body",
	"Expect":              "a check has no body",
	"Upgrade":             "a check speaks HTTP/1.1",
	"Te":                  "a check speaks HTTP/1.1",
	"Proxy-Connection":    "there is no proxy",
	"Proxy-Authorization": "there is no proxy",
}

func (c HTTPConfig) validate(bad func(format string, args ...any)) {
	if !isToken(c.Method) || len(c.Method) > 32 || c.Method == "CONNECT" {
		bad("method %.80q is no method that a check can have", c.Method)
	}
	if !strings.HasPrefix(c.Path, "/") || len(c.Path) > 4096 || strings.ContainsFunc(c.Path, func(r rune) bool { return r <= ' ' || r >= 0x7f || r == '#' }) {
		bad("path is not \"/...\" of up to 4096 printable ASCII characters without space and \"#\" (write others as %%XX)")
	}
	if len(c.Host) > 255 || strings.ContainsFunc(c.Host, func(r rune) bool { return r <= ' ' || r >= 0x7f || strings.ContainsRune(`/?#@\`, r) }) {
		bad("host %.80q is no host name with or without a port", c.Host)
	}
	seen := map[string]bool{}
	for name, value := range c.Headers {
		canonical := textproto.CanonicalMIMEHeaderKey(name)
		switch why, own := ownHeaders[canonical]; {
		case !isToken(name) || len(name) > 256:
			bad("headers: %.80q is no name of a header", name)
		case own:
			bad("headers: %s cannot be set: %s", canonical, why)
		case seen[canonical]:
			bad("headers: %s is there twice", canonical)
		case len(value) > 8192 || strings.ContainsFunc(value, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }):
			bad("headers: the value of %s is longer than 8192 bytes or has control characters", canonical)
		}
		seen[canonical] = true
	}
	if len(c.Headers) > 100 {
		bad("headers: there are %d, at most 100 can be sent", len(c.Headers))
	}
	if _, err := parseStatuses(c.Statuses); err != nil {
		bad("%v", err)
	}
	for name, expr := range c.HeaderMatch {
		if !isToken(name) {
			bad("header_match: %.80q is no name of a header", name)
		}
		if _, err := compileMatch(expr); err != nil {
			bad("header_match of %.80s: %v", name, err)
		}
	}
	if _, err := compileMatch(c.BodyMatch); err != nil {
		bad("body_match: %v", err)
	}
	if c.BodyMatch != "" && c.Method == "HEAD" {
		bad("body_match with method HEAD: its answers have no body")
	}
}

// compileMatch compiles an expression, whose time is linear in what it is matched
// against (RE2).
func compileMatch(expr string) (*regexp.Regexp, error) {
	if len(expr) > 4096 {
		return nil, errors.New("the expression is longer than 4096 bytes")
	}
	return regexp.Compile(expr)
}

// isToken reports whether s is a token of RFC 9110 section 5.6.2.
func isToken(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return (r|0x20 < 'a' || r|0x20 > 'z') && (r < '0' || r > '9') && !strings.ContainsRune("!#$%&'*+-.^_`|~", r)
	})
}
