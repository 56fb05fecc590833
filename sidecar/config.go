// Package sidecar assembles the proxy: for each service a source, a balancer,
// a poller of agents and a listener, and around them admin, logs and shutdown.
package sidecar

import (
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"time"
	"unicode"

	"outrigger/agentstats"
	"outrigger/agentstats/gauge"
	"outrigger/agentstats/publish"
	"outrigger/discovery"
	"outrigger/discovery/healthcheck"
	"outrigger/picker"
	"outrigger/sidecar/access"
	"outrigger/sidecar/admin"
	"outrigger/sidecar/balance"
	"outrigger/sidecar/h1"
)

// Config is all that a sidecar needs to know.
type Config struct {
	Consul discovery.Config
	Admin  admin.Config
	Log    LogConfig
	Agents agentstats.PollConfig
	// Gauges tells agents what this sidecar has in flight, between polls.
	Gauges    gauge.Config
	Published Published
	// Grace is how long a shutdown waits for requests in flight, 0 to 1h.
	Grace time.Duration
	// StateDir is where the sidecar keeps what must survive its restart: the key of
	// affinity cookies. An absolute path; "" is nowhere.
	StateDir string
	Services []ServiceConfig
}

// Published says how the reports are read that agents publish in Consul, for
// endpoints whose agents cannot be polled.
type Published struct {
	Enabled bool
	// Expiry is the age from which such a report does not count, 1 s to 1 h: three times
	// the agents' max_interval.
	Expiry time.Duration
	publish.WatchConfig
}

// Validate reports everything that is wrong.
func (p Published) Validate() error {
	err := p.WatchConfig.Validate()
	if p.Expiry < time.Second || p.Expiry > time.Hour {
		err = errors.Join(err, fmt.Errorf("published expiry is %v, allowed are 1s to 1h", p.Expiry))
	}
	return err
}

// LogConfig says what is logged and how.
type LogConfig struct {
	Level  string // trace, debug, info, warn, error
	Format string // text or json
}

// ServiceConfig is one service: a listener and what lies behind it.
type ServiceConfig struct {
	Name   string
	Listen string // "ADDR:PORT"; port 0 takes a free one. Or "unix:/PATH"
	// ListenMode are the permissions of a Unix socket, in octal.
	ListenMode string
	// Discover selects instances in Consul, and says what they are to us.
	Discover discovery.Query
	Source   SourceConfig
	// Check is how endpoints are checked; its Kind is "" where they are not.
	Check   healthcheck.Config
	Balance balance.Config
	HTTP    h1.Config
	Access  access.Config
	// ORCA is the load that backends declare in their answers.
	ORCA ORCAConfig
}

// DefaultConfig returns the settings of an empty base file, without services.
func DefaultConfig() Config {
	return Config{
		Consul: discovery.DefaultConfig(),
		Admin:  admin.DefaultConfig(),
		Log:    LogConfig{Level: "info", Format: "text"}, // as HashiCorp's tools do
		Agents: agentstats.DefaultPollConfig(),
		Gauges: gauge.DefaultConfig(), Published: Published{Expiry: 3 * publish.DefaultConfig().MaxInterval, WatchConfig: publish.DefaultWatchConfig()},
		Grace: 30 * time.Second, // Kubernetes' default grace period; Nomad's kill_timeout is 5 s
	}
}

// DefaultService returns the settings of a service block that has only a
// listen address.
func DefaultService(name string) ServiceConfig {
	s := ServiceConfig{
		Name:       name,
		ListenMode: defaultMode,
		Discover:   discovery.DefaultQuery(name),
		Source:     defaultSource(),
		Check:      healthcheck.DefaultConfig(),
		Balance:    balance.DefaultConfig(),
		HTTP:       h1.DefaultConfig(),
		Access:     access.DefaultConfig(),
		ORCA:       DefaultORCAConfig(),
	}
	s.Balance.Service = name
	return s
}

// LogLevels and LogFormats list what LogConfig allows.
func LogLevels() []string  { return []string{"trace", "debug", "info", "warn", "error"} }
func LogFormats() []string { return []string{"text", "json"} }

// Validate reports everything that is wrong, one error for each part.
func (c Config) Validate() error {
	errs := []error{c.Consul.Validate(), c.Admin.Validate(), c.Log.Validate(), c.Agents.Validate(), c.Gauges.Validate(), c.Published.Validate()}
	if c.Grace < 0 || c.Grace > time.Hour {
		errs = append(errs, fmt.Errorf("grace is %v, allowed are 0s to 1h", c.Grace))
	}
	unprintable := func(r rune) bool { return !unicode.IsPrint(r) }
	if c.StateDir != "" && (!filepath.IsAbs(c.StateDir) || strings.ContainsFunc(c.StateDir, unprintable)) {
		errs = append(errs, fmt.Errorf("state_dir is %q, which is no absolute path of printable characters", c.StateDir))
	}
	if len(c.Services) == 0 {
		errs = append(errs, errors.New("there is no service block: nothing to listen for"))
	}
	names, listens := map[string]bool{}, map[string]string{}
	for _, s := range c.Services {
		if err := s.Validate(); err != nil {
			errs = append(errs, fmt.Errorf("service %q: %w", s.Name, err))
		}
		if err := s.ValidateKey(c.StateDir); err != nil {
			errs = append(errs, fmt.Errorf("service %q: %w", s.Name, err))
		}
		if names[s.Name] {
			errs = append(errs, fmt.Errorf("service %q is there twice", s.Name))
		}
		names[s.Name] = true
		if other := listens[s.Listen]; other != "" && !shared(s.Listen) {
			errs = append(errs, fmt.Errorf("services %q and %q both listen on %s", other, s.Name, s.Listen))
		}
		listens[s.Listen] = s.Name
	}
	return errors.Join(errs...)
}

// Validate reports the first setting that is out of range.
func (l LogConfig) Validate() error {
	if !has(LogLevels(), l.Level) {
		return fmt.Errorf("log level %q is not one of %s", l.Level, strings.Join(LogLevels(), ", "))
	}
	if !has(LogFormats(), l.Format) {
		return fmt.Errorf("log format %q is not one of %s", l.Format, strings.Join(LogFormats(), ", "))
	}
	return nil
}

// Validate reports the first setting that is out of range.
func (s ServiceConfig) Validate() error {
	if s.Name == "" {
		return errors.New("a service has no name")
	}
	if err := validateListen(s.Listen, s.ListenMode); err != nil {
		return err
	}
	if err := s.validateSource(); err != nil {
		return err
	}
	if err := s.Check.Validate(); err != nil {
		return err
	}
	if err := s.Balance.Validate(); err != nil {
		return err
	}
	if err := s.ORCA.Validate(); err != nil {
		return err
	}
	if err := s.engine().Validate(); err != nil {
		return err
	}
	return s.Access.Validate()
}

// engine returns the engine's settings with those that it shares with the
// balancer.
func (s ServiceConfig) engine() h1.Config {
	c := s.HTTP
	c.FailureStatuses = s.Balance.Breaker.FailureStatuses
	for _, p := range []picker.Config{s.Balance.Shadow, s.Balance.Picker} { // never both
		if p.Policy == "consistent_hash" {
			c.Hash = h1.KeyConfig{On: p.Hash.On, Name: p.Hash.Name}
		}
	}
	return c
}

// oneKey reports whether all requests that come in there have the same hash key.
func (s ServiceConfig) oneKey(ln net.Addr) bool {
	if s.engine().Hash.On != "source" || len(s.HTTP.Forward.Trust) > 0 {
		return false
	}
	tcp, ok := ln.(*net.TCPAddr)
	return !ok || tcp.IP.IsLoopback()
}

func has(list []string, s string) bool {
	for _, x := range list {
		if x == s {
			return true
		}
	}
	return false
}
