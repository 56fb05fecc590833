package simulate

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"outrigger/picker"
	"outrigger/sidecar/sim"
)

// notSimulated says why a policy is not.
const notSimulated = "consistent_hash depends on the keys of your requests, which the simulator does not know"

// reference lists the policies that live only in the simulator: what others
// have published, and the oracle that sees every backend as it is now. Those
// whose names are a policy's of ours are left out.
func reference() []string {
	return slices.DeleteFunc(slices.Clone(sim.Baselines()), func(n string) bool { return slices.Contains(picker.Names(), n) })
}

// ours lists the policies that can be configured and simulated.
func ours() []string {
	return slices.DeleteFunc(picker.Names(), func(n string) bool { return n == "consistent_hash" })
}

// ParsePolicies reads names with commas between them, or "all". Nothing asks
// for the configured policy beside the usual ones.
func ParsePolicies(text, configured string) ([]string, error) {
	switch text {
	case "all":
		return append(ours(), reference()...), nil
	case "":
		var list []string
		for _, name := range []string{configured, "resource", "least_conn", "p2c", "round_robin"} {
			if !slices.Contains(list, name) && slices.Contains(ours(), name) {
				list = append(list, name)
			}
		}
		return list, nil
	}
	known := append(ours(), reference()...)
	return parseList(text, func(s string) (string, error) {
		switch {
		case s == "consistent_hash":
			return "", errors.New(notSimulated)
		case !slices.Contains(known, s):
			return "", fmt.Errorf("%q is no policy; write some of %s, or all", s, strings.Join(known, ", "))
		}
		return s, nil
	})
}

// Engine is the Runner that simulates.
func Engine(ctx context.Context, q *Question, c Case, seed uint64) (Outcome, error) {
	type answer struct {
		r   *sim.Result
		err error
	}
	done := make(chan answer, 1)
	go func() {
		r, err := sim.Run(q.config(c, seed))
		done <- answer{r, err}
	}()
	var r *sim.Result
	select {
	case <-ctx.Done(): // the process is about to end, and the run with it
		return Outcome{}, ctx.Err()
	case a := <-done:
		if a.err != nil {
			return Outcome{}, a.err
		}
		r = a.r
	}
	return Outcome{
		P50: r.P50, P99: r.P99, P999: r.P999,
		Goodput: r.Goodput, Failed: r.Errors, Shed: float64(r.Turned) / math.Max(1, float64(r.Requests)),
		Sent: r.Requests,
	}, nil
}

// config is what the simulator runs for a case.
func (q *Question) config(c Case, seed uint64) sim.Config {
	s := sim.Default()
	locality := s.Balance.Locality
	s.Seed, s.Balance, s.Sidecars = seed, q.Balance, q.Sidecars
	// All backends are as near, requests have no cookies, and a shadow has no effect.
	s.Balance.Locality, s.Balance.Pins, s.Balance.Shadow.Policy = locality, false, ""
	s.Balance.MaxInFlight = c.Limit
	if slices.Contains(reference(), c.Policy) {
		s.Baseline = c.Policy
		s.Balance.Picker.Policy = "least_conn" // not used
	} else {
		s.Balance.Picker.Policy = c.Policy
	}
	s.Backends = s.Backends[:0:0]
	for _, g := range q.Backends {
		for range g.Count {
			s.Backends = append(s.Backends, sim.Backend{Cores: g.Cores, Speed: g.Speed})
		}
	}
	if q.ByCores {
		s.Backends = sim.ByCores(s.Backends)
	}
	s.Work.Mean, s.Work.Shape = q.Work.Mean, q.Work.Spread
	s.Work.Distribution, _ = sim.ParseDistribution(q.Work.Kind) // one of workKinds, all of which it knows
	s.Neighbour = sim.Neighbour{On: q.Neighbours.On, Off: q.Neighbours.Off, Min: q.Neighbours.Low, Max: q.Neighbours.High}
	s.Agents.Interval, s.Agents.Jitter, s.Agents.Silent = q.Interval, q.Jitter, q.Silent
	s.Load = sim.Load{Level: c.Load}
	if q.Surge.For > 0 {
		s.Load.Surges = []sim.Surge{{From: q.Warmup + (q.Duration-q.Surge.For)/2, For: q.Surge.For, Factor: q.Surge.Factor}}
	}
	s.Client = sim.Client{Timeout: q.Timeout, Outcome: picker.Ignore, Retries: q.Retry.Attempts}
	if q.Own {
		s.Client.Outcome = picker.Failure
	}
	if !q.Told {
		s.Balance.MaxWait = 0 // the simulator's requests all have a deadline; without one the rule sleeps
	}
	s.Warm, s.Measured = q.Warmup, q.Duration
	return s
}
