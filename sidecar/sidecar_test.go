package sidecar

import (
	"context"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
)

// example is a sidecar whose Consul does not answer.
func example(t *testing.T) *Sidecar {
	t.Helper()
	cfg := DefaultConfig()
	cfg.Consul.Address = "127.0.0.1:1"
	cfg.Admin.Listen = "127.0.0.1:0"
	s := DefaultService("web")
	s.Listen = "127.0.0.1:0"
	cfg.Services = []ServiceConfig{s}
	sc, err := New(cfg, hclog.NewNullLogger(), "test")
	if err != nil {
		t.Fatal(err)
	}
	return sc
}

// A SIGTERM may come before anything has begun to serve.
func TestEndsHoweverEarly(t *testing.T) {
	for _, after := range []time.Duration{0, 0, 0, 0, time.Microsecond, 100 * time.Microsecond, time.Millisecond, 10 * time.Millisecond} {
		sc := example(t)
		ctx, cancel := context.WithTimeout(context.Background(), after)
		done := make(chan error, 1)
		go func() { done <- sc.Run(ctx) }()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("ended after %v: %v", after, err)
			}
		case <-time.After(20 * time.Second):
			t.Fatalf("ended after %v: Run does not return", after)
		}
		cancel()
	}
}

// A port that is taken shows at once, and nothing is left listening.
func TestPortTaken(t *testing.T) {
	sc := example(t)
	cfg := sc.cfg
	cfg.Services = append([]ServiceConfig(nil), cfg.Services...)
	cfg.Services[0].Listen = sc.Addr("web").String()
	if _, err := New(cfg, hclog.NewNullLogger(), "test"); err == nil {
		t.Error("a second sidecar took the same port")
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := sc.Run(ctx); err != nil {
		t.Error(err)
	}
	again, err := New(cfg, hclog.NewNullLogger(), "test")
	if err != nil {
		t.Fatal(err)
	}
	if err := again.Run(ctx); err != nil {
		t.Error(err)
	}
}
