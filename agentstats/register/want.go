package register

import (
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"

	"github.com/hashicorp/consul/api"
)

// want returns the registration that c asks for.
func (c Config) want(id string, meta map[string]string) *api.AgentServiceRegistration {
	r := &api.AgentServiceRegistration{
		ID: id, Name: c.Service, Address: c.Address, Port: c.Port,
		Tags: c.Tags, EnableTagOverride: c.TagOverride,
		Meta:      maps.Clone(meta),
		Weights:   &api.AgentWeights{Passing: c.Weight, Warning: c.WarningWeight},
		Namespace: c.Namespace, Partition: c.Partition,
	}
	if r.Meta == nil {
		r.Meta = map[string]string{}
	}
	maps.Copy(r.Meta, c.Meta) // what the operator says wins
	if c.Check.Kind != CheckNone {
		r.Check = c.Check.want(checkID(id), c.checked())
	}
	return r
}

// checkID is the one Consul itself gives a service's only check, so that the
// check of whoever registered the instance before is replaced.
func checkID(id string) string { return "service:" + id }

// checked is the HOST:PORT that the check asks.
func (c Config) checked() string {
	if c.Check.Address != "" {
		return c.Check.Address
	}
	host := c.Address
	if host == "" {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, strconv.Itoa(c.Port))
}

// want returns the check's definition. FailuresBeforeWarning stays at Consul's
// default, that of FailuresBeforeCritical: no state between.
func (c Check) want(id, addr string) *api.AgentServiceCheck {
	r := &api.AgentServiceCheck{
		CheckID: id, Name: "outrigger: " + c.Kind + " " + addr,
		Interval: c.Interval.String(), Timeout: c.Timeout.String(),
		// Not to be trusted before it has answered.
		Status:               api.HealthCritical,
		SuccessBeforePassing: c.Passes, FailuresBeforeCritical: c.Failures,
		TLSServerName: c.TLSServerName, TLSSkipVerify: c.TLSSkipVerify,
	}
	if c.DeregisterAfter > 0 {
		r.DeregisterCriticalServiceAfter = c.DeregisterAfter.String()
	}
	switch c.Kind {
	case CheckTCP:
		r.TCP, r.TCPUseTLS = addr, c.TLS
	case CheckHTTP:
		scheme := "http://"
		if c.TLS {
			scheme = "https://"
		}
		r.HTTP, r.Method, r.Header = scheme+addr+c.Path, c.Method, c.Headers
		r.Name += c.Path
	case CheckGRPC:
		r.GRPC, r.GRPCUseTLS = addr, c.TLS
		if c.Service != "" {
			r.GRPC += "/" + c.Service
		}
	}
	return r
}

// differs names what the Consul agent has otherwise than was registered; "" is
// nothing. It fills in nothing but what is told apart: addresses that Consul adds
// are its own affair.
func differs(want *api.AgentServiceRegistration, have *api.AgentService) string {
	var names []string
	note := func(name string, same bool) {
		if !same {
			names = append(names, name)
		}
	}
	note("service", want.Name == have.Service)
	note("address", want.Address == have.Address)
	note("port", want.Port == have.Port)
	note("tags", want.EnableTagOverride || slices.Equal(want.Tags, have.Tags))
	note("tag override", want.EnableTagOverride == have.EnableTagOverride)
	note("meta", maps.Equal(want.Meta, have.Meta))
	note("weights", *want.Weights == have.Weights)
	return strings.Join(names, ", ")
}
