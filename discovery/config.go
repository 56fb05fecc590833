package discovery

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"
	"unicode"
)

// Secret is a string that prints as "[redacted]"; string(s) is its value.
type Secret string

const redacted = "[redacted]"

// String hides the value.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return redacted
}

// GoString hides the value from %#v.
func (s Secret) GoString() string { return `"` + s.String() + `"` }

// MarshalText hides the value from JSON.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// TLS is used when the scheme is https. Empty fields: Consul's environment
// variables (CONSUL_CACERT and so on), else the system's.
type TLS struct {
	CAFile             string
	CertFile, KeyFile  string // both or neither
	ServerName         string
	InsecureSkipVerify bool // accept any certificate; for tests only
}

// Config is how to reach Consul and how to watch a service there. Address,
// Scheme, Token and TLS fall back to Consul's environment variables.
type Config struct {
	// Address of the agent: HOST:PORT, http://..., https://... or
	// unix:///PATH. "": CONSUL_HTTP_ADDR, else localhost:8500.
	Address string
	Scheme  string // "http", "https"; "": by Address, CONSUL_HTTP_SSL, else http
	Token   Secret // ACL token; "": CONSUL_HTTP_TOKEN_FILE, CONSUL_HTTP_TOKEN
	// Datacenter for queries that name none; "": the agent's.
	Datacenter string
	TLS        TLS

	// Wait is how long a read blocks when nothing changes, 1 s to 10 min.
	Wait time.Duration
	// Stale lets any server answer, not only the leader.
	Stale bool
	// MaxStale bounds how far behind its leader an answering server may be
	// for a smaller set to be believed, 100 ms to 1 h.
	MaxStale time.Duration

	// RateBurst reads may follow each other at once, then one per
	// RateInterval. 1 to 100; 10 ms to 1 min.
	RateBurst    int
	RateInterval time.Duration
	// BackoffMin doubles with each error in a row to BackoffMax; half of it
	// is chance. 10 ms to 1 min; BackoffMin to 10 min. After a 429 the pauses
	// are longer, see busyFactor.
	BackoffMin, BackoffMax time.Duration

	// EmptyConfirm is how long a service that had instances must stay empty,
	// by consistent reads at least 1 s apart, before that is believed. 1 s to
	// 1 h.
	EmptyConfirm time.Duration
	// Shrink is the share of a service's instances that one answer may take away
	// without being doubted, 0 to 1: 0 doubts every loss, 1 only that of all.
	Shrink float64
	// ShrinkConfirm is for how long answers must leave out an instance before a
	// doubted loss of it is believed although it answers, 1 s to 1 h. Reads that fail
	// do not count; that lost ones return, or more are listed, begins it anew.
	ShrinkConfirm time.Duration
	// EmptyHold is the same for the loss of all, and for what ACLs hide, 1 min to 30
	// days.
	EmptyHold time.Duration
	// ProbeTimeout is how long a lost instance may take to answer a probe, 50 ms
	// to 30 s.
	ProbeTimeout time.Duration
	// MaxAnswer bounds one answer, in bytes, 64 KiB to 1 GiB.
	MaxAnswer int64

	// Cached reads from the agent's own cache (api-docs/features/caching).
	Cached bool
	// MaxConnections is the most reads at once on HTTP/1 connections, 4 to 10000.
	MaxConnections int
	// Spread is how long a round of reads may take when there are more services
	// than connections, 1 s to 5 min.
	Spread time.Duration
	// TokenFile holds the ACL token and is read again when it changes; "": none.
	// It goes before Token.
	TokenFile string
	// Namespace and Partition are Consul Enterprise's, passed through.
	Namespace, Partition string

	// SnapshotInterval is the least time between two writes of one service's set to
	// disk, 1 s to 1 h. SnapshotMaxAge is the age from which such a set is not used,
	// 1 min to 1 year.
	SnapshotInterval, SnapshotMaxAge time.Duration
}

// DefaultConfig returns the settings of a configuration that names none.
func DefaultConfig() Config {
	return Config{
		Wait:     5 * time.Minute,  // Consul's own default: an idle service costs one read per 5 min
		Stale:    true,             // spreads reads over the servers and works without a leader
		MaxStale: 10 * time.Second, // a healthy follower is ms behind; 10 s is beyond an election

		RateBurst:    2,           // a change right after another is seen at once
		RateInterval: time.Second, // a check whose output flaps 10 times a second costs 1 read a second

		BackoffMin: 500 * time.Millisecond, // an agent's restart takes a second or two
		BackoffMax: 15 * time.Second,       // after a long outage all know again within 15 s; a dead local agent costs little

		// Believing a false "empty" costs every request; doubting a true one
		// costs nothing that the breakers do not handle, as nobody listens
		// any more. 10 s outlasts an election and the time in which a
		// restarted agent registers its services again.
		EmptyConfirm: 10 * time.Second,
		// A deploy or a scale-down takes away a few at a time; an agent that lost its
		// data, a token or a partition takes away most at once.
		Shrink: 0.5,
		// Longer than schedulers let a backend drain (Kubernetes: 30 s), so that what
		// is stopped for real has died by then and no doubt is left.
		ShrinkConfirm: time.Minute,
		EmptyHold:     72 * time.Hour, // Consul's own cache fails static for 3 days
		ProbeTimeout:  time.Second,    // as for connecting in a request
		MaxAnswer:     64 << 20,       // 10,000 instances with full check outputs

		MaxConnections: 150,              // of the 200 that an agent takes from one address; others on this host need some
		Spread:         10 * time.Second, // a change shows within that even where connections are short

		SnapshotInterval: 30 * time.Second, // an old set is mended by retries; a disk is worn by writes
		SnapshotMaxAge:   72 * time.Hour,   // addresses are given to others some day
	}
}

// Validate reports every setting that is out of range.
func (c Config) Validate() error {
	errs := []error{checkAddress(c.Address)}
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if c.Scheme != "" && c.Scheme != "http" && c.Scheme != "https" {
		bad(`scheme is %q, allowed are "http" and "https"`, c.Scheme)
	} else if s, _, ok := strings.Cut(c.Address, "://"); ok && c.Scheme != "" && s != c.Scheme {
		bad("address %q contradicts scheme %q: drop one", c.Address, c.Scheme)
	}
	if strings.ContainsFunc(string(c.Token), func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
		bad("token has blanks, line ends or characters that no ACL token has")
	}
	if !plainText(c.Datacenter, 253) {
		bad("datacenter %.40q is not a name", c.Datacenter)
	}
	if (c.TLS.CertFile == "") != (c.TLS.KeyFile == "") {
		bad("tls needs cert_file and key_file together")
	}
	span := func(name string, d, low, high time.Duration) {
		if d < low || d > high {
			bad("%s is %s, allowed are %s to %s", name, d, low, high)
		}
	}
	span("wait", c.Wait, time.Second, 10*time.Minute)
	span("max_stale", c.MaxStale, 100*time.Millisecond, time.Hour)
	span("rate_interval", c.RateInterval, 10*time.Millisecond, time.Minute)
	span("backoff_min", c.BackoffMin, 10*time.Millisecond, time.Minute)
	span("backoff_max", c.BackoffMax, c.BackoffMin, 10*time.Minute)
	span("empty_confirm", c.EmptyConfirm, time.Second, time.Hour)
	span("shrink_confirm", c.ShrinkConfirm, time.Second, time.Hour)
	span("empty_hold", c.EmptyHold, time.Minute, 30*24*time.Hour)
	span("probe_timeout", c.ProbeTimeout, 50*time.Millisecond, 30*time.Second)
	span("spread", c.Spread, time.Second, 5*time.Minute)
	span("snapshot_interval", c.SnapshotInterval, time.Second, time.Hour)
	span("snapshot_max_age", c.SnapshotMaxAge, time.Minute, 366*24*time.Hour)
	if !(c.Shrink >= 0 && c.Shrink <= 1) {
		bad("shrink is %v, allowed are 0 to 1, a share of the instances", c.Shrink)
	}
	if c.MaxConnections < 4 || c.MaxConnections > 10000 {
		bad("max_connections is %d, allowed are 4 to 10000", c.MaxConnections)
	}
	if !plainText(c.Namespace, 253) || !plainText(c.Partition, 253) {
		bad("namespace %.40q or partition %.40q is not a name", c.Namespace, c.Partition)
	}
	if !plainText(c.TokenFile, 4096) {
		bad("token_file %.80q is not a path", c.TokenFile)
	}
	if c.RateBurst < 1 || c.RateBurst > 100 {
		bad("rate_burst is %d, allowed are 1 to 100", c.RateBurst)
	}
	if c.MaxAnswer < 64<<10 || c.MaxAnswer > 1<<30 {
		bad("max_answer is %d bytes, allowed are 64 KiB to 1 GiB", c.MaxAnswer)
	}
	return errors.Join(errs...)
}

// checkAddress accepts what consul/api would read as an agent's address.
func checkAddress(a string) error {
	if a == "" {
		return nil
	}
	if path, ok := strings.CutPrefix(a, "unix://"); ok {
		if !strings.HasPrefix(path, "/") || !plainText(path, 4096) {
			return fmt.Errorf("address %q: after unix:// must come an absolute path", a)
		}
		return nil
	}
	if strings.Contains(a, "@") {
		return errors.New("address holds a user name or password: use the token or CONSUL_HTTP_AUTH instead")
	}
	full := a
	if !strings.Contains(a, "://") {
		full = "http://" + a
	}
	u, err := url.Parse(full)
	switch {
	case err != nil || u.Hostname() == "" || u.RawQuery != "" || u.Fragment != "":
		return fmt.Errorf("address %.80q is not HOST:PORT, http://HOST:PORT, https://HOST:PORT or unix:///PATH", a)
	case u.Scheme != "http" && u.Scheme != "https":
		return fmt.Errorf("address %.80q: scheme %q is not http, https or unix", a, u.Scheme)
	}
	return nil
}

// Query selects instances. All conditions must hold.
type Query struct {
	Service string   // name in Consul
	Tags    []string // an instance must have every one; case does not count
	Filter  string   // Consul filter expression, see its "filtering" page
	// Datacenter to ask; "": Config's.
	Datacenter string
	// NodeMetaIs selects instances by the meta of their nodes: every pair must be
	// there.
	NodeMetaIs map[string]string
	// OnlyPassing leaves out, in Consul, what is not passing. Then status
	// can't say why an instance is out, and its counters are lost with it.
	OnlyPassing bool
	// Near a node, or "_agent" for the agent's: sets come nearest first, by
	// round trip. The order is that of the last change: a move alone is none.
	Near string
	// BackupTag marks an instance as a backup; "": no tag does. Case does not
	// count.
	BackupTag string
	// BackupWeight is the largest weight that marks an instance as a backup, 0
	// (none does) to 65535. The weight is that for its health: with 1 and
	// weights { passing = 10, warning = 1 } an instance is a backup while it is
	// in warning.
	BackupWeight int
	// NodeMeta is the key of the nodes' meta that becomes Instance.Zone; "": none.
	// All else in there is left behind: 10,000 nodes have megabytes of it, and
	// some of it changes with every upgrade of Consul.
	NodeMeta string
}

// DefaultQuery returns the query of a service that names nothing else.
func DefaultQuery(service string) Query {
	return Query{
		Service:   service,
		BackupTag: "backup", // HAProxy's and NGINX's word for it
		// No weight in Consul means "only when nothing else is there", so which
		// does is for the user to say.
		BackupWeight: 0,
	}
}

// Validate reports every part that cannot be asked for.
func (q Query) Validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	switch {
	case q.Service == "" || q.Service == "." || q.Service == "..":
		bad("service %q is not a name", q.Service)
	case !plainText(q.Service, 253) || strings.Contains(q.Service, "/"):
		// consul/api puts it into the path, where a slash has another meaning.
		bad("service %.80q: allowed are up to 253 printable characters other than /", q.Service)
	}
	if len(q.Tags) > 64 {
		bad("%d tags, allowed are up to 64", len(q.Tags))
	}
	for _, t := range q.Tags {
		if t == "" || !plainText(t, 253) {
			bad("tag %.80q: allowed are 1 to 253 printable characters", t)
		}
	}
	if !plainText(q.Datacenter, 253) {
		bad("datacenter %.80q: allowed are up to 253 printable characters", q.Datacenter)
	}
	if !plainText(q.Near, 253) {
		bad("near %.80q: allowed are up to 253 printable characters", q.Near)
	}
	if !plainText(q.BackupTag, 253) {
		bad("backup_tag %.80q: allowed are up to 253 printable characters", q.BackupTag)
	}
	if q.BackupWeight < 0 || q.BackupWeight > maxWeight {
		bad("backup_weight is %d, allowed are 0 (none) to %d", q.BackupWeight, maxWeight)
	}
	if len(q.NodeMetaIs) > 64 {
		bad("%d pairs of node_meta, allowed are up to 64", len(q.NodeMetaIs))
	}
	for k, v := range q.NodeMetaIs {
		if k == "" || !plainText(k, 128) || strings.Contains(k, ":") || !plainText(v, 512) {
			bad("node_meta %.80q = %.80q: keys are 1 to 128 printable characters without a colon, values up to 512", k, v)
		}
	}
	if len(q.Filter) > 4096 {
		bad("filter has %d bytes, allowed are up to 4096", len(q.Filter))
	}
	return errors.Join(errs...)
}

// plainText reports whether s is printable and no longer than limit bytes.
func plainText(s string, limit int) bool {
	return len(s) <= limit && !strings.ContainsFunc(s, func(r rune) bool {
		return !unicode.IsPrint(r) || r == unicode.ReplacementChar
	})
}
