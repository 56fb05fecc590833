package agentstats

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"outrigger/agentstats/agentcheck"
	"outrigger/agentstats/declared"
	"outrigger/agentstats/gauge"
	"outrigger/agentstats/publish"
	"outrigger/agentstats/register"
)

// Config is what one agent needs to know.
type Config struct {
	// Listen is the "ADDR:PORT" that sidecars poll. It has no default and the address
	// must be written out: the agent has to be reachable from the sidecars' hosts, and
	// only the operator knows which of the host's addresses that should be. Best is the
	// address the backend itself serves on.
	Listen string
	// Instance is the Consul service ID of the backend, sent with each report; optional.
	Instance string
	Backend  Backend
	// Interval is the time between samples.
	Interval time.Duration
	// MaxConns bounds the connections held open, one per polling sidecar and one per
	// gauge; a connection above it is closed at once.
	MaxConns int
	// Token is what sidecars must show to get anything but /healthz, 16 to 256 characters;
	// "": nothing. Without TLS whoever sees the traffic sees it.
	Token string
	// TLS is how the agent speaks TLS; its zero value is plain HTTP.
	TLS ServerTLS
	// InFlight says how the requests in the backend are counted.
	InFlight InFlight
	// AgentCheck answers HAProxy's checks; without its Listen it is off.
	AgentCheck agentcheck.Config
	// Register has the agent register the backend in Consul; without its Service it is
	// off.
	Register register.Config
	// Publish has it put the reports into Consul.
	Publish Publish
	// ProcRoot and CgroupRoot are where the host's /proc and /sys/fs/cgroup are found; a
	// container that watches its host mounts them elsewhere and shares the host's cgroup
	// namespace.
	ProcRoot   string
	CgroupRoot string
}

// Backend says which processes the agent watches. One of the three finds them:
//   - PID: this process and its descendants;
//   - Cgroup: every process below this control group, whose own counters are then used;
//   - Port alone: the processes that hold the TCP socket listening on it, in the
//     agent's own network namespace (use PID or Cgroup across containers). Seeing who
//     holds a socket takes the backend's user or root.
//
// Only with Cgroup does a group's usage count for the backend in any case; else it
// does where the group holds nobody but the backend's processes. Limits count wherever
// they are set, up to the host's.
//
// Port beside PID or Cgroup decides only Report.Listening.
type Backend struct {
	Port   int
	PID    int
	Cgroup string // as /proc/PID/cgroup shows it: "/system.slice/app.service"
}

// InFlight says what may tell how many requests are in the backend. What the backend
// declares goes first, else the larger of the other two counts.
type InFlight struct {
	Declared declared.Config
	// Kernel looks at the TCP connections to Backend.Port; without a port it cannot.
	Kernel bool
	// Gauges takes what sidecars send of their own (agents { gauges } there), in at most
	// MaxGauges streams, but only from those whom the agent knows: see gaugesRefused.
	Gauges    bool
	MaxGauges int
}

// Publish is where reports are put besides being served.
type Publish struct {
	To string // "consul"; "": nowhere
	// Service the backend belongs to; "": Register.Service.
	Service string
	publish.Config
}

// PublishTargets lists what Publish.To may be.
func PublishTargets() []string { return []string{"consul"} }

// DefaultConfig returns the defaults; Listen and Backend have none.
func DefaultConfig() Config {
	return Config{
		// Simulation averaged CPU over 250 ms (PICKING.md): two samples per poll of the
		// default interval, at a few dozen microseconds each.
		Interval: 250 * time.Millisecond,
		// Thousands of sidecars at most, with two connections each where they send gauges.
		MaxConns: 8192,
		InFlight: InFlight{
			Declared: declared.DefaultConfig(),
			Kernel:   true, // the figure that matters most to the picker, for a percent of a core
			// It costs nothing until a sidecar sends some, and MaxConns bounds it too.
			Gauges: true, MaxGauges: gauge.DefaultBoardConfig().MaxStreams,
		},
		AgentCheck: agentcheck.DefaultConfig(),
		Register:   register.DefaultConfig(),
		Publish:    Publish{Config: publish.DefaultConfig()},
		ProcRoot:   "/proc",
		CgroupRoot: "/sys/fs/cgroup",
	}
}

// Validate reports everything that is wrong with the configuration.
func (c Config) Validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	port, err := checkListen(c.Listen)
	if err != nil {
		errs = append(errs, err)
	} else if port == c.Backend.Port {
		bad("listen and backend.port are both %d: the agent would find itself", port)
	}
	if err := checkText(c.Instance); err != nil {
		bad("instance %w", err)
	}
	errs = append(errs, c.Backend.validate())
	if c.Interval < 50*time.Millisecond || c.Interval > 10*time.Second {
		bad("interval %s is outside 50ms to 10s", c.Interval)
	}
	if c.MaxConns < 1 || c.MaxConns > 1<<16 {
		bad("max_conns %d is outside 1 to 65536", c.MaxConns)
	}
	errs = append(errs, checkToken(c.Token), c.TLS.Validate(), c.InFlight.Declared.Validate(), c.AgentCheck.Validate())
	errs = append(errs, gauge.BoardConfig{MaxStreams: c.InFlight.MaxGauges}.Validate())
	if c.AgentCheck.Listen != "" && c.AgentCheck.Listen == c.Listen {
		bad("agent_check listens on %s, as the agent does: HAProxy's checks need a port of their own", c.Listen)
	}
	errs = append(errs, c.validateConsul(), c.validateNames())
	if !path.IsAbs(c.ProcRoot) || !path.IsAbs(c.CgroupRoot) {
		bad("the proc and cgroup roots must be absolute paths, not %q and %q", c.ProcRoot, c.CgroupRoot)
	}
	return errors.Join(errs...)
}

// validateConsul checks what the agent does in Consul.
func (c Config) validateConsul() error {
	var errs []error
	if c.Register.Service != "" {
		errs = append(errs, c.registration().Validate())
	} else if !reflect.DeepEqual(c.Register, register.DefaultConfig()) {
		errs = append(errs, errors.New("register has settings but no service: name the service to register the backend in"))
	}
	if c.Publish.To == "" {
		return errors.Join(errs...)
	}
	if !slices.Contains(PublishTargets(), c.Publish.To) {
		errs = append(errs, fmt.Errorf("publish to %.40q, allowed are %s", c.Publish.To, strings.Join(PublishTargets(), ", ")))
	}
	if c.Register.Service == "" && (c.Publish.Service == "" || c.Instance == "") {
		errs = append(errs, errors.New("publish needs to know the backend: write its service in publish and its service ID as instance, or let the agent register it"))
	}
	return errors.Join(append(errs, c.Publish.Config.Validate())...)
}

// gaugesRefused says why sidecars' gauges are not taken, "" where they are. A gauge moves
// requests, for as long as its stream lives: whoever can send one can keep them from the
// backend. So it takes a token, a certificate, or being on this host.
func (c Config) gaugesRefused() string {
	if !c.InFlight.Gauges || c.Token != "" || c.TLS.ClientCAFile != "" || loopback(c.Listen) {
		return ""
	}
	return "anybody who reaches " + c.Listen + " could send some: set token, tls { client_ca_file } or in_flight { gauges = false }"
}

// loopback reports whether an "ADDR:PORT" can be reached from this host alone.
func loopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	return err == nil && loopbackHost(host)
}

func loopbackHost(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.Unmap().IsLoopback()
}

// validateNames checks that sidecars find this agent by what is registered, and know its
// reports.
func (c Config) validateNames() error {
	r := c.registration()
	if r.Service == "" {
		return nil
	}
	var errs []error
	if r.ID != "" || r.Address != "" { // else the host's name is in it, and newParts sees to it
		errs = append(errs, checkInstance(c.Instance, r.InstanceID("")))
	}
	if r.Address != "" && !loopbackHost(r.Address) && loopback(c.Listen) && c.Publish.To == "" {
		errs = append(errs, fmt.Errorf("listen %s is reached from this host alone, but the backend is registered at %s: sidecars elsewhere could not poll; listen on %s", c.Listen, r.Address, r.Address))
	}
	return errors.Join(errs...)
}

// checkInstance refuses reports about another instance than the registered one, which
// sidecars would drop.
func checkInstance(instance, id string) error {
	if instance == "" || instance == id {
		return nil
	}
	return fmt.Errorf("instance %q is not the ID %q that is registered, so sidecars would drop its reports: leave instance out, or set register's id", instance, id)
}

// registration is Register with the backend's port where it has none.
func (c Config) registration() register.Config {
	r := c.Register
	if r.Port == 0 {
		r.Port = c.Backend.Port
	}
	return r
}

func checkListen(addr string) (int, error) {
	host, text, err := net.SplitHostPort(addr)
	if err != nil || host == "" {
		return 0, fmt.Errorf("listen %q must be \"ADDR:PORT\" with the address written out, one that the sidecars reach (for instance the address the backend serves on; 0.0.0.0 for all)", addr)
	}
	port, ok := parsePort(text)
	if !ok {
		return 0, fmt.Errorf("listen %q: the port must be a number from 1 to 65535", addr)
	}
	return port, nil
}

func (b Backend) validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if b == (Backend{}) {
		bad("backend is empty: name the backend by port, pid or cgroup")
	}
	if b.PID != 0 && b.Cgroup != "" {
		bad("backend has both pid and cgroup: keep one")
	}
	if b.Port < 0 || b.Port > 65535 {
		bad("backend.port %d is outside 1 to 65535", b.Port)
	}
	if b.PID < 0 || b.PID > 1<<22 { // the kernel's PID_MAX_LIMIT
		bad("backend.pid %d is outside 1 to %d", b.PID, 1<<22)
	}
	if b.Cgroup == "" {
		return errors.Join(errs...)
	}
	switch {
	case !path.IsAbs(b.Cgroup) || path.Clean(b.Cgroup) != b.Cgroup:
		bad("backend.cgroup %q must be a clean path from the hierarchy's root, as /proc/PID/cgroup shows it (\"/system.slice/app.service\")", b.Cgroup)
	case b.Cgroup == "/":
		bad("backend.cgroup \"/\" is the whole host: name the backend's own group")
	case strings.HasPrefix(b.Cgroup, "/sys/fs/cgroup"):
		bad("backend.cgroup %q is a path in the file system: give it as /proc/PID/cgroup shows it, without the mount point", b.Cgroup)
	}
	return errors.Join(errs...)
}

// parsePort reads a TCP port, decimal digits only.
func parsePort(text string) (int, bool) {
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil || n == 0 {
		return 0, false
	}
	return int(n), true
}
