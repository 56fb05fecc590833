package agentstats

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"outrigger/agentstats/agentcheck"
	"outrigger/agentstats/register"
)

// TestTakenPortChangesNothing: an agent whose agent_check cannot listen ends before it
// says a word to Consul about a backend that another agent registered.
func TestTakenPortChangesNothing(t *testing.T) {
	asked := make(chan struct{}, 100)
	consul, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer consul.Close()
	go func() {
		for {
			c, err := consul.Accept()
			if err != nil {
				return
			}
			asked <- struct{}{}
			_ = c.Close()
		}
	}()
	client, err := api.NewClient(&api.Config{Address: consul.Addr().String()})
	if err != nil {
		t.Fatal(err)
	}
	a := scriptedAgent(&scripted{}, new(log).logger())
	taken := errors.New("in use")
	a.env.Listen = func(network, addr string) (net.Listener, error) {
		if addr == "127.0.0.1:9913" {
			return nil, taken
		}
		return net.Listen(network, "127.0.0.1:0")
	}
	rc := register.DefaultConfig()
	rc.Service, rc.ID, rc.Port = "web", "web-1", 8080
	if a.parts.registrar, err = register.New(rc, register.Env{Client: client}); err != nil {
		t.Fatal(err)
	}
	cc := agentcheck.DefaultConfig()
	cc.Listen = "127.0.0.1:9913"
	if a.parts.checks, err = agentcheck.New(cc, agentcheck.Env{State: a.checkState, Listen: a.env.Listen}); err != nil {
		t.Fatal(err)
	}
	if err := a.Run(t.Context()); !errors.Is(err, taken) {
		t.Errorf("Run: %v", err)
	}
	if len(asked) > 0 {
		t.Error("Consul was asked")
	}
}

// TestChecksHearOfTheDrain: without a registration too, HAProxy is told before the agent
// ends, and Hurry cuts that short.
func TestChecksHearOfTheDrain(t *testing.T) {
	a := scriptedAgent(&scripted{r: Report{Cores: Some(2.0), Listening: Some(true)}}, new(log).logger())
	a.env.Listen = func(network, _ string) (net.Listener, error) { return net.Listen(network, "127.0.0.1:0") }
	hurry, end := context.WithCancel(t.Context())
	defer end()
	a.env.Hurry = hurry
	a.cfg.AgentCheck.Listen, a.cfg.AgentCheck.Drain = "127.0.0.1:9913", 10*time.Minute
	checks, err := agentcheck.New(a.cfg.AgentCheck, agentcheck.Env{State: a.checkState, Listen: a.env.Listen})
	if err != nil {
		t.Fatal(err)
	}
	if line := checks.Line(); line != "\n" {
		t.Errorf("before the first sample: %q", line)
	}
	a.parts.checks = checks
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	await := func(word string) {
		t.Helper()
		for end := time.Now().Add(patience); !strings.Contains(checks.Line(), word); time.Sleep(ms) {
			if time.Now().After(end) {
				t.Fatalf("never %q: %q", word, checks.Line())
			}
		}
	}
	await("up 100%")
	stop()
	await("up 0%")
	select {
	case err := <-done:
		t.Fatalf("it ended without waiting: %v", err)
	case <-time.After(20 * ms):
	}
	end()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(patience):
		t.Fatal("it does not hurry")
	}
}

func TestGaugesNeedToBeKnown(t *testing.T) {
	for name, x := range map[string]struct {
		change func(*Config)
		taken  bool
	}{
		"open":        {func(*Config) {}, false},
		"everywhere":  {func(c *Config) { c.Listen = "0.0.0.0:7070" }, false},
		"token":       {func(c *Config) { c.Token = "0123456789abcdef" }, true},
		"certificate": {func(c *Config) { c.TLS.ClientCAFile = "ca.pem" }, true},
		"loopback":    {func(c *Config) { c.Listen = "127.0.0.2:7070" }, true},
	} {
		c := DefaultConfig()
		c.Listen = "10.0.0.5:7070"
		x.change(&c)
		if taken := c.gaugesRefused() == ""; taken != x.taken {
			t.Errorf("%s: taken %v", name, taken)
		}
	}
}
