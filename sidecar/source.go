package sidecar

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"

	"outrigger/discovery"
)

// SourceConfig says where a service's instances are learnt from.
type SourceConfig struct {
	// Kind is "consul", "file" or "prepared_query".
	Kind string
	// FilePath is of the file, looked at every FilePoll.
	FilePath string
	FilePoll time.Duration
	// QueryName is the prepared query's name or ID, executed every QueryPoll.
	QueryName string
	QueryPoll time.Duration
	// Fallbacks are used in their order, see balance.FailoverConfig. 8 at most.
	Fallbacks []*Fallback
}

// Fallback is a source that stands behind the first. One of Addresses, File and
// PreparedQuery may be given; else it is a service in Consul.
type Fallback struct {
	Name string // of its own in the service; 1 to 64 letters, digits, - and _
	// Query selects instances in Consul; its Service "" is that of the first source.
	// What says how instances are understood is taken from there too.
	Query discovery.Query
	// Addresses are HOST:PORT each, 1000 at most.
	Addresses     []string
	File          string // its path
	PreparedQuery string // its name or ID
}

// SourceKinds lists what SourceConfig.Kind may be.
func SourceKinds() []string { return []string{"consul", "file", "prepared_query"} }

func defaultSource() SourceConfig {
	file, query := discovery.DefaultFileQuery("", ""), discovery.DefaultPreparedQuery("", "")
	return SourceConfig{Kind: "consul", FilePoll: file.Poll, QueryPoll: query.Poll}
}

func (s *ServiceConfig) fileQuery() discovery.FileQuery {
	q := discovery.DefaultFileQuery(s.Discover.Service, s.Source.FilePath)
	q.Poll = s.Source.FilePoll
	return q
}

func (s *ServiceConfig) preparedQuery() discovery.PreparedQuery {
	return discovery.PreparedQuery{Query: s.Discover, Name: s.Source.QueryName, Poll: s.Source.QueryPoll}
}

// fallbackQuery is what f asks of Consul: of the same service unless it names another,
// whose instances mean the same.
func (s *ServiceConfig) fallbackQuery(f *Fallback) discovery.Query {
	q := f.Query
	q.Service = cmp.Or(q.Service, s.Discover.Service)
	q.BackupTag, q.BackupWeight, q.NodeMeta = s.Discover.BackupTag, s.Discover.BackupWeight, s.Discover.NodeMeta
	return q
}

// validateSource reports everything that is wrong with where instances are learnt from.
func (s *ServiceConfig) validateSource() error {
	var errs []error
	switch s.Source.Kind {
	case "consul":
		errs = append(errs, s.Discover.Validate())
	case "file":
		if s.Source.FilePath == "" {
			errs = append(errs, errors.New(`discover "file" needs to know which: give a path`))
			break
		}
		errs = append(errs, s.fileQuery().Validate())
		if q := s.Discover; q.Datacenter != "" || q.Near != "" || q.BackupWeight != 0 {
			errs = append(errs, errors.New("datacenter, near and backup_weight are asked of Consul: a file says zone, weight and backup of each instance"))
		}
	case "prepared_query":
		if s.Source.QueryName == "" {
			errs = append(errs, errors.New(`discover "prepared_query" needs to know which: give its name`))
			break
		}
		errs = append(errs, s.preparedQuery().Validate())
	default:
		return fmt.Errorf("discover %q is not one of %s", s.Source.Kind, strings.Join(SourceKinds(), ", "))
	}
	if len(s.Source.Fallbacks) > 8 {
		errs = append(errs, fmt.Errorf("%d fallbacks, allowed are up to 8", len(s.Source.Fallbacks)))
	}
	seen := map[string]bool{}
	for _, f := range s.Source.Fallbacks {
		if err := s.validateFallback(f); err != nil {
			errs = append(errs, fmt.Errorf("fallback %q: %w", f.Name, err))
		}
		if seen[f.Name] {
			errs = append(errs, fmt.Errorf("fallback %q is there twice", f.Name))
		}
		seen[f.Name] = true
	}
	return errors.Join(errs...)
}

func (s *ServiceConfig) validateFallback(f *Fallback) error {
	notName := func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_')
	}
	if f.Name == "" || len(f.Name) > 64 || strings.ContainsFunc(f.Name, notName) {
		return errors.New("its name may have 1 to 64 letters, digits, - and _")
	}
	given := 0
	for _, yes := range []bool{len(f.Addresses) > 0, f.File != "", f.PreparedQuery != ""} {
		if yes {
			given++
		}
	}
	q := s.fallbackQuery(f)
	switch {
	case given > 1:
		return errors.New("addresses, file and prepared_query exclude each other")
	case given == 1 && !f.plain():
		return errors.New("tags, filter, node_meta and only_passing select in Consul: they do not go with addresses, file or prepared_query")
	case given == 1 && f.PreparedQuery == "" && f.Query.Datacenter != "":
		return errors.New("datacenter does not go with addresses or file")
	case given == 0 && s.Source.Kind == "consul" && sameQuestion(q, s.Discover):
		return errors.New("it asks for what is asked for first: name another datacenter, service or the like")
	case f.File != "" && !filepath.IsAbs(f.File):
		return fmt.Errorf("file %.200q is no absolute path", f.File)
	case len(f.Addresses) > 1000:
		return fmt.Errorf("%d addresses, allowed are up to 1000", len(f.Addresses))
	}
	_, err := f.instances(q.Service)
	return errors.Join(err, q.Validate())
}

// sameQuestion reports whether two queries select the same instances.
func sameQuestion(a, b discovery.Query) bool {
	return a.Service == b.Service && a.Datacenter == b.Datacenter && a.Filter == b.Filter && a.OnlyPassing == b.OnlyPassing &&
		slices.Equal(a.Tags, b.Tags) && maps.Equal(a.NodeMetaIs, b.NodeMetaIs)
}

// plain reports whether nothing is asked for that only Consul can answer.
func (f *Fallback) plain() bool {
	q := f.Query
	return len(q.Tags) == 0 && q.Filter == "" && len(q.NodeMetaIs) == 0 && !q.OnlyPassing
}

// instances are those of Addresses.
func (f *Fallback) instances(service string) ([]discovery.Instance, error) {
	set := make([]discovery.Instance, 0, len(f.Addresses))
	seen := map[string]bool{}
	for _, a := range f.Addresses {
		host, port, ok := cutPort(a)
		if !ok {
			return nil, fmt.Errorf("addresses has %.200q, which is not HOST:PORT", a)
		}
		i := discovery.Instance{ID: "static/" + a, Service: service, Address: host, Port: port, Weight: 1}
		if err := i.Validate(); err != nil {
			return nil, fmt.Errorf("addresses has %.200q: %w", a, err)
		}
		if seen[a] {
			return nil, fmt.Errorf("addresses has %q twice", a)
		}
		seen[a] = true
		set = append(set, i)
	}
	return set, nil
}

// cutPort parts HOST:PORT; an IP address comes in canonical form.
func cutPort(a string) (host string, port int, ok bool) {
	i := strings.LastIndexByte(a, ':')
	if i < 0 {
		return "", 0, false
	}
	n, err := strconv.ParseUint(a[i+1:], 10, 16)
	if err != nil || n == 0 {
		return "", 0, false
	}
	host = strings.TrimSuffix(strings.TrimPrefix(a[:i], "["), "]")
	if ip, err := netip.ParseAddr(host); err == nil {
		host = ip.Unmap().String()
	} else if strings.Contains(host, ":") {
		return "", 0, false
	}
	return host, int(n), true
}

// newSource returns where the service learns its instances from. s has its checks,
// and gets its balancer before the source is watched.
func (sc *Sidecar) newSource(s *service, log hclog.Logger) discovery.Source {
	c := &s.cfg
	var names []string
	for _, f := range c.Source.Fallbacks {
		names = append(names, f.Name)
	}
	env := func(rename func(string) string) discovery.Env {
		return discovery.Env{
			Logger: log, Probe: s.checks.probe, Probes: sc.probes,
			Successes: func(id string) uint64 { return s.balancer.Successes(rename(id)) },
		}
	}
	own := env(func(id string) string { return discovery.InPrimary(id, names) })
	var primary discovery.Source
	switch c.Source.Kind {
	case "file":
		f := discovery.NewFile(c.fileQuery(), sc.cfg.Consul, own)
		f.Persist(sc.store, c.Name)
		primary = f
	case "prepared_query":
		p := discovery.NewPrepared(sc.client, c.preparedQuery(), sc.cfg.Consul, own)
		p.Persist(sc.store, c.Name)
		primary = p
	default:
		p := discovery.NewConsul(sc.client, c.Discover, sc.cfg.Consul, own)
		p.Persist(sc.store, c.Name)
		primary = p
	}
	var behind []discovery.Named
	for _, f := range c.Source.Fallbacks {
		env := env(func(id string) string { return discovery.InFallback(f.Name, id) })
		behind = append(behind, discovery.Named{Name: f.Name, Source: sc.fallback(c, f, env)})
	}
	return discovery.NewFailover(primary, behind)
}

func (sc *Sidecar) fallback(c *ServiceConfig, f *Fallback, env discovery.Env) discovery.Source {
	q, block := c.fallbackQuery(f), c.Name+"@"+f.Name
	switch {
	case len(f.Addresses) > 0:
		set, _ := f.instances(q.Service) // validated
		return discovery.NewStatic(set)
	case f.File != "":
		s := discovery.NewFile(discovery.DefaultFileQuery(q.Service, f.File), sc.cfg.Consul, env)
		s.Persist(sc.store, block)
		return s
	case f.PreparedQuery != "":
		p := discovery.DefaultPreparedQuery(q.Service, f.PreparedQuery)
		p.Query = q
		s := discovery.NewPrepared(sc.client, p, sc.cfg.Consul, env)
		s.Persist(sc.store, block)
		return s
	}
	s := discovery.NewConsul(sc.client, q, sc.cfg.Consul, env)
	s.Persist(sc.store, block)
	return s
}
