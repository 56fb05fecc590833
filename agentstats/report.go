package agentstats

import (
	"errors"
	"fmt"
	"unicode"
	"unicode/utf8"
)

// Version is the meaning of the report's fields. Fields are added without a new
// version, since readers skip what they do not know; it changes only when a field
// that exists comes to mean something else, and then readers must refuse it.
const Version = 1

// Bounds of a report's figures, from PICKING.md where it names them; the others are
// far above anything real and only keep nonsense out of the arithmetic.
const (
	maxCores    = 4096
	maxMem      = 2
	maxInFlight = 1e9
	maxInteger  = 1 << 53 // exact in every JSON reader
	maxPollMS   = 3600 * 1000
	maxText     = 256
)

// Report is one immutable sample of a backend, taken by its agent. Unknown figures
// are absent, never 0.
type Report struct {
	Version int `json:"version"`
	// Instance is the Consul service ID the agent was told it serves; "" when not told.
	Instance string `json:"instance,omitempty"`
	// Epoch names one life of the backend: opaque, it changes when the backend's main
	// process is replaced. "" while no backend was found.
	Epoch string `json:"epoch,omitempty"`
	// At is the time of the sample in Unix milliseconds on the agent's clock. It orders
	// the reports of one agent; it says nothing about age, which counts from arrival.
	At int64 `json:"at"`

	// InFlight is the number of requests in the backend when the poll was answered, a few
	// milliseconds old as a rule; a count older than 50 ms is absent.
	InFlight Opt[float64] `json:"in_flight,omitzero"`
	// InFlightSource names where InFlight comes from: one of the Source constants.
	InFlightSource string `json:"in_flight_source,omitempty"`
	// Avail is the cores the backend could use now, in [0, Cores]: min(quota, used by
	// it + idle on the CPUs it may run on), over 250 ms.
	Avail Opt[float64] `json:"avail,omitzero"`
	// Cores is the CPU limit that really applies, in (0, 4096]: the tightest cgroup
	// quota, the CPUs its affinity and cpuset allow, else the host's CPUs.
	Cores Opt[float64] `json:"cores,omitzero"`
	// Used is the cores the backend used, in [0, Cores], over 250 ms.
	Used Opt[float64] `json:"used,omitzero"`
	// CPU is Used as a share of Cores, in [0, 1].
	CPU Opt[float64] `json:"cpu,omitzero"`
	// Mem is memory in use over its limit, in [0, 2], at the limit that is closest to
	// being reached: where the backend shares a limited group, the group's own ratio.
	Mem Opt[float64] `json:"mem,omitzero"`
	// MemBytes is the backend's own working set, MemLimit the tightest limit on it, in bytes.
	MemBytes Opt[int64] `json:"mem_bytes,omitzero"`
	MemLimit Opt[int64] `json:"mem_limit,omitzero"`
	// Conc is the concurrency the backend sustains without slowing.
	Conc Opt[float64] `json:"conc,omitzero"`
	// Listening tells whether the backend accepts connections on its port.
	Listening Opt[bool] `json:"listening,omitzero"`
	// Err is the backend's error share, in [0, 1], where the backend declares it.
	Err Opt[float64] `json:"err,omitzero"`

	// AcceptQueue is the connections that wait for the backend to accept them, when the
	// poll was answered; AcceptLimit is where the kernel refuses more.
	AcceptQueue Opt[int64] `json:"accept_queue,omitzero"`
	AcceptLimit Opt[int64] `json:"accept_limit,omitzero"`
	// Pressure is the kernel's pressure stall information.
	Pressure Pressure `json:"pressure,omitzero"`
	// RxBytes and TxBytes are bytes per second, loopback left out, that the backend's
	// network namespace received and sent: the host's where it shares that.
	RxBytes Opt[float64] `json:"rx_bytes_per_second,omitzero"`
	TxBytes Opt[float64] `json:"tx_bytes_per_second,omitzero"`

	// PollMS is the interval in milliseconds at which the agent asks to be polled.
	PollMS Opt[int64] `json:"poll_ms,omitzero"`
	// OwnInFlight echoes the in-flight that the poll itself declared.
	OwnInFlight  Opt[int64] `json:"own_in_flight,omitzero"`
	AgentVersion string     `json:"agent_version,omitempty"`
}

// Where Report.InFlight comes from.
const (
	SourceDeclared = "declared" // the backend says so itself
	SourceKernel   = "kernel"   // its connections' TCP state
	SourceSidecars = "sidecars" // the sum of what sidecars have there
)

// Pressure is the share of time, in [0, 1] over span, in which tasks waited for a
// resource (Linux's Documentation/accounting/psi.rst).
type Pressure struct {
	// Scope is "group" where the figures are of the backend's own control group, and
	// "host" where they are of the whole machine.
	Scope  string `json:"scope"`
	CPU    Stall  `json:"cpu,omitzero"`
	Memory Stall  `json:"memory,omitzero"`
	IO     Stall  `json:"io,omitzero"`
}

// Stall is the share of time in which some tasks waited, and in which all did.
type Stall struct {
	Some Opt[float64] `json:"some,omitzero"`
	Full Opt[float64] `json:"full,omitzero"`
}

// validate reports every figure that is outside its range, and contradictions.
func (r Report) validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	within := func(name string, o Opt[float64], low, high float64) {
		// The negated form also refuses NaN, which fails every comparison.
		if v, ok := o.Get(); ok && !(v >= low && v <= high) {
			bad("%s is %v, outside [%v, %v]", name, v, low, high)
		}
	}
	integer := func(name string, o Opt[int64], low, high int64) {
		if v, ok := o.Get(); ok && (v < low || v > high) {
			bad("%s is %d, outside [%d, %d]", name, v, low, high)
		}
	}

	if r.Version != Version {
		bad("version is %d, this reader knows %d", r.Version, Version)
	}
	if r.At < 1 || r.At > maxInteger {
		bad("at is %d, not a Unix time in milliseconds", r.At)
	}
	for _, t := range []struct{ name, text string }{
		{"instance", r.Instance}, {"epoch", r.Epoch}, {"agent_version", r.AgentVersion},
		{"in_flight_source", r.InFlightSource}, {"pressure.scope", r.Pressure.Scope},
	} {
		if err := checkText(t.text); err != nil {
			bad("%s %w", t.name, err)
		}
	}

	cores, known := r.Cores.Get()
	if known && !(cores > 0 && cores <= maxCores) {
		bad("cores is %v, outside (0, %d]", cores, maxCores)
	}
	if !known && !(r.Avail.IsZero() && r.Used.IsZero() && r.CPU.IsZero()) {
		bad("avail, used or cpu without cores")
	}
	within("avail", r.Avail, 0, cores)
	within("used", r.Used, 0, cores)
	within("cpu", r.CPU, 0, 1)
	within("mem", r.Mem, 0, maxMem)
	within("err", r.Err, 0, 1)
	within("in_flight", r.InFlight, 0, maxInFlight)
	within("conc", r.Conc, 0, maxInFlight)
	within("rx_bytes_per_second", r.RxBytes, 0, maxInteger)
	within("tx_bytes_per_second", r.TxBytes, 0, maxInteger)
	for _, p := range []struct {
		name  string
		stall Stall
	}{{"cpu", r.Pressure.CPU}, {"memory", r.Pressure.Memory}, {"io", r.Pressure.IO}} {
		within("pressure."+p.name+".some", p.stall.Some, 0, 1)
		within("pressure."+p.name+".full", p.stall.Full, 0, 1)
	}
	integer("mem_bytes", r.MemBytes, 0, maxInteger)
	integer("mem_limit", r.MemLimit, 1, maxInteger)
	integer("accept_queue", r.AcceptQueue, 0, maxInteger)
	integer("accept_limit", r.AcceptLimit, 0, maxInteger)
	integer("poll_ms", r.PollMS, 1, maxPollMS)
	integer("own_in_flight", r.OwnInFlight, 0, maxInFlight)
	return errors.Join(errs...)
}

// checkText bounds what reaches logs, metrics and status pages.
func checkText(s string) error {
	if len(s) > maxText {
		return fmt.Errorf("is longer than %d bytes", maxText)
	}
	if !utf8.ValidString(s) {
		return errors.New("is not UTF-8")
	}
	for _, c := range s {
		if !unicode.IsPrint(c) {
			return fmt.Errorf("holds the unprintable character %U", c)
		}
	}
	return nil
}
