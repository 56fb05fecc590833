package register

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"outrigger/agentstats/internal/call"
)

// Config says what to register and how to leave.
type Config struct {
	// Service is the service's name in Consul.
	Service string
	// ID of the instance, unique on its Consul agent. "": see InstanceID.
	ID string
	// Address at which the sidecars reach the backend. "": the address that the
	// Consul agent has for its node.
	Address string
	Port    int // of the backend
	Tags    []string
	Meta    map[string]string
	// Weight and WarningWeight are the weights while the checks pass and while
	// one warns, 1 to 65535.
	Weight, WarningWeight int
	// TagOverride lets others change the tags in the catalog
	// (EnableTagOverride); else changed tags are set back.
	TagOverride bool
	// Namespace and Partition are Consul Enterprise's; "": the token's.
	Namespace, Partition string

	Check Check
	Drain Drain
	// Refresh is the longest time between two looks at the registration, 1 s to
	// 10 min. A change of it is noticed at once, a removed check only by this.
	Refresh time.Duration
}

// The kinds of Check.
const (
	CheckTCP  = "tcp"  // a connection is accepted
	CheckHTTP = "http" // a request is answered 2xx (429: warning)
	CheckGRPC = "grpc" // grpc.health.v1 says SERVING
	CheckNone = "none" // no check: in the catalog is healthy
)

// Check is the health check that the Consul agent runs against the backend.
type Check struct {
	Kind string
	// Address is the "HOST:PORT" at which the Consul agent reaches the backend.
	// "": Address and Port of the registration, or 127.0.0.1 where that has no
	// Address.
	Address string

	Path    string              // http: begins with "/"
	Method  string              // http
	Headers map[string][]string // http; they are shown to whoever may read the agent's checks
	Service string              // grpc: the name asked for; "": the server as a whole

	TLS           bool   // speak TLS
	TLSServerName string // expected in the certificate; "": the host checked
	TLSSkipVerify bool   // accept any certificate

	// Interval is the time from the end of one check to the next, 1 s to 1 h. The
	// first comes after a random part of it.
	Interval time.Duration
	Timeout  time.Duration // of one, 10 ms to 5 min
	// Passes and Failures are how many in a row make it passing and critical, 1
	// to 100.
	Passes, Failures int
	// DeregisterAfter is for how long it may be critical before Consul removes the
	// instance, 1 min to 30 days; 0: for ever. An agent that is alive puts it back,
	// so this only cleans up behind agents that were killed.
	DeregisterAfter time.Duration
}

// Drain is how the instance leaves: see Registrar.Shutdown.
type Drain struct {
	// Timeout bounds the whole wait, 0 (none) to 10 min.
	Timeout time.Duration
	// Quiet is for how long the in-flight count must read 0, 0 to 1 min. It has to
	// cover the time in which sidecars hear of the maintenance (outrigger's read
	// Consul at most once a second by default), and HAProxy's agent-inter.
	Quiet time.Duration
	// Blind is the wait where no in-flight count is known, 0 to 10 min; it counts
	// from the last time one was known and not 0.
	Blind time.Duration
}

// DefaultConfig returns the settings of a configuration that names none. Service
// and Port have no default.
func DefaultConfig() Config {
	return Config{
		Weight: 1, WarningWeight: 1, // Consul's own
		Check: Check{
			Kind:     CheckTCP, // works for every backend, and something has to tell when it is gone
			Path:     "/health",
			Method:   "GET",
			Interval: 5 * time.Second, // a new instance gets its first request within 5 s
			Timeout:  2 * time.Second, // slower than that is no health
			Passes:   1,               // no reason to keep what answers waiting
			// One lost check (a pause for garbage collection, a dropped SYN) is no
			// failure; sidecars' breakers are faster than any check anyway.
			Failures:        2,
			DeregisterAfter: time.Hour, // outlasts a long repair, not a forgotten machine
		},
		Drain: Drain{
			Timeout: 25 * time.Second, // Kubernetes kills 30 s after SIGTERM: 5 s to deregister and end
			// Sidecars have read Consul by then (rate_interval 1s), and a HAProxy has asked
			// once more (agent-inter 2s).
			Quiet: 3 * time.Second,
			Blind: 10 * time.Second, // news takes 2 s, and most requests end within the other 8
		},
		// Half a minute without a check that somebody removed does no harm; looking
		// costs the Consul agent two local reads.
		Refresh: 15 * time.Second,
	}
}

// InstanceID returns ID, or where that is empty SERVICE-HOST-PORT, with Address
// for HOST, or where that is empty hostname. It stays the same over restarts and
// differs between hosts.
func (c Config) InstanceID(hostname string) string {
	if c.ID != "" {
		return c.ID
	}
	host := c.Address
	if host == "" {
		host = hostname
	}
	return c.Service + "-" + host + "-" + strconv.Itoa(c.Port)
}

// AgentMeta returns the value of the meta "outrigger_agent" for an agent that
// listens on "HOST:PORT": the port alone where sidecars find it at the instance's
// own address. It returns "" for what is no "HOST:PORT".
func (c Config) AgentMeta(listen string) string {
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		return ""
	}
	ip, err := netip.ParseAddr(host)
	if host == "" || host == c.Address || err == nil && ip.IsUnspecified() {
		return port
	}
	return listen
}

// Consul's own bounds, and where it has none, far above anything real.
const (
	maxName   = 253
	maxTags   = 64
	maxMeta   = 64 // pairs, one less than Consul takes: outrigger_agent is added
	maxKey    = 128
	maxValue  = 512
	maxWeight = 65535
)

// Validate reports everything that is wrong with the configuration.
func (c Config) Validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	switch {
	case c.Service == "":
		bad("service is empty: name the service to register in Consul")
	case !name(c.Service):
		bad("service %.80q: allowed are up to %d printable characters other than / ? # %%", c.Service, maxName)
	}
	if c.ID != "" && !name(c.ID) {
		bad("id %.80q: allowed are up to %d printable characters other than / ? # %%", c.ID, maxName)
	}
	if c.Address != "" && !host(c.Address) {
		bad("address %.80q is neither an IP address that others can reach nor a host name; a port goes into port", c.Address)
	}
	if c.Port < 1 || c.Port > 65535 {
		bad("port is %d, allowed are 1 to 65535: the port on which the backend serves", c.Port)
	}
	if len(c.Tags) > maxTags {
		bad("%d tags, allowed are up to %d", len(c.Tags), maxTags)
	}
	for _, t := range c.Tags {
		if t == "" || !call.Plain(t, maxName) {
			bad("tag %.80q: allowed are 1 to %d printable characters", t, maxName)
		}
	}
	errs = append(errs, checkMeta(c.Meta))
	for n, w := range map[string]int{"weight": c.Weight, "warning_weight": c.WarningWeight} {
		if w < 1 || w > maxWeight {
			bad("%s is %d, allowed are 1 to %d (to take no traffic use maintenance mode)", n, w, maxWeight)
		}
	}
	if !call.Plain(c.Namespace, maxName) || !call.Plain(c.Partition, maxName) {
		bad("namespace %.80q or partition %.80q is not a name", c.Namespace, c.Partition)
	}
	if c.Refresh < time.Second || c.Refresh > 10*time.Minute {
		bad("refresh is %s, allowed are 1s to 10m", c.Refresh)
	}
	errs = append(errs, c.Check.validate(), c.Drain.validate())
	return errors.Join(errs...)
}

func checkMeta(meta map[string]string) error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if len(meta) >= maxMeta {
		bad("meta has %d pairs, allowed are up to %d", len(meta), maxMeta-1)
	}
	for k, v := range meta {
		letters := strings.ContainsFunc(k, func(r rune) bool {
			return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_')
		})
		switch {
		case k == "" || len(k) > maxKey || letters:
			bad("meta key %.80q: Consul allows 1 to %d of A-Z a-z 0-9 - _", k, maxKey)
		case len(v) > maxValue || !call.Plain(v, maxValue):
			bad("meta %s: allowed are up to %d printable characters", k, maxValue)
		}
	}
	return errors.Join(errs...)
}

func (c Check) validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf("check: "+format, args...)) }
	span := func(name string, d, low, high time.Duration) {
		if d < low || d > high {
			bad("%s is %s, allowed are %s to %s", name, d, low, high)
		}
	}
	switch c.Kind {
	case CheckNone:
		return nil
	case CheckTCP, CheckHTTP, CheckGRPC:
	default:
		bad("kind is %.40q, allowed are %q, %q, %q and %q", c.Kind, CheckTCP, CheckHTTP, CheckGRPC, CheckNone)
	}
	if c.Address != "" {
		h, p, err := net.SplitHostPort(c.Address)
		if n, e := strconv.ParseUint(p, 10, 16); err != nil || e != nil || n == 0 || !host(h) && !strings.HasPrefix(h, "127.") && h != "::1" {
			bad("address %.80q is not the HOST:PORT at which the Consul agent reaches the backend", c.Address)
		}
	}
	if c.Kind == CheckHTTP {
		errs = append(errs, c.validateHTTP())
	}
	if c.Kind == CheckGRPC && (!call.Plain(c.Service, maxName) || strings.ContainsAny(c.Service, " ?#")) {
		bad("service %.80q is not the name of a gRPC service", c.Service)
	}
	if !call.Plain(c.TLSServerName, maxName) {
		bad("tls_server_name %.80q is not a host name", c.TLSServerName)
	}
	if !c.TLS && (c.TLSServerName != "" || c.TLSSkipVerify) {
		bad("tls_server_name and tls_skip_verify mean nothing without tls = true")
	}
	span("interval", c.Interval, time.Second, time.Hour)
	span("timeout", c.Timeout, 10*time.Millisecond, 5*time.Minute)
	for n, v := range map[string]int{"passes": c.Passes, "failures": c.Failures} {
		if v < 1 || v > 100 {
			bad("%s is %d, allowed are 1 to 100", n, v)
		}
	}
	if c.DeregisterAfter != 0 {
		span("deregister_after", c.DeregisterAfter, time.Minute, 30*24*time.Hour)
	}
	return errors.Join(errs...)
}

func (c Check) validateHTTP() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf("check: "+format, args...)) }
	token := func(s string) bool {
		return s != "" && len(s) <= maxKey && !strings.ContainsFunc(s, func(r rune) bool {
			return r <= ' ' || r >= 0x7f || strings.ContainsRune(`"(),/:;<=>?@[\]{}`, r)
		})
	}
	if !strings.HasPrefix(c.Path, "/") || !call.Plain(c.Path, 2048) || strings.ContainsAny(c.Path, " #") {
		bad("path %.80q must begin with / and have no blanks and no #", c.Path)
	}
	if !token(c.Method) {
		bad("method %.40q is not a method of HTTP", c.Method)
	}
	if len(c.Headers) > 64 {
		bad("%d headers, allowed are up to 64", len(c.Headers))
	}
	for k, values := range c.Headers {
		if !token(k) {
			bad("header %.40q is not a name", k)
		}
		for _, v := range values {
			if !call.Plain(v, 4096) {
				bad("header %s: a value has unprintable characters or more than 4096 bytes", k)
			}
		}
	}
	return errors.Join(errs...)
}

func (d Drain) validate() error {
	var errs []error
	span := func(name string, v, high time.Duration) {
		if v < 0 || v > high {
			errs = append(errs, fmt.Errorf("drain: %s is %s, allowed are 0s to %s", name, v, high))
		}
	}
	span("timeout", d.Timeout, 10*time.Minute)
	span("quiet", d.Quiet, time.Minute)
	span("blind", d.Blind, 10*time.Minute)
	return errors.Join(errs...)
}

// name reports whether s can stand in the path of Consul's API.
func name(s string) bool {
	return s != "" && s != "." && s != ".." && call.Plain(s, maxName) && !strings.ContainsAny(s, "/?#%")
}

// host reports whether s may be an instance's address.
func host(s string) bool {
	if ip, err := netip.ParseAddr(s); err == nil {
		return !ip.IsUnspecified() && !ip.IsMulticast() && ip.Zone() == ""
	}
	return s != "" && call.Plain(s, maxName) && !strings.ContainsAny(s, " /:?#@[]%\\")
}
