package sim

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"outrigger/picker"
)

// Validate reports everything that is out of range.
func (c *Config) Validate() error {
	var errs []error
	need := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	need(c.Sidecars >= 1 && c.Sidecars <= 1e5, "sidecars is %d, allowed are 1 to 100000", c.Sidecars)
	need(len(c.Backends) >= 1 && len(c.Backends) <= 1e5, "%d backends, allowed are 1 to 100000", len(c.Backends))
	need(c.Baseline == "" || slices.Contains(Baselines(), c.Baseline), "baseline %q is not one of %v", c.Baseline, Baselines())
	if err := c.Balance.Validate(); err != nil {
		errs = append(errs, err)
	}
	c.Work.check(need)
	need(c.Neighbour.valid(), "neighbour %+v: times must not be negative, shares are 0 <= min <= max < 1", c.Neighbour)
	c.Agents.check(need)
	c.Client.check(need)
	need(c.Network.Delay >= 0 && c.Network.Delay <= time.Minute, "network delay is %v, allowed are 0 to 1m", c.Network.Delay)
	need(c.Warm >= 0 && c.Measured >= 100*time.Millisecond && c.Warm+c.Measured <= 24*time.Hour, "warm %v and measured %v: the measured time is 100ms and up, both together at most 24h", c.Warm, c.Measured)
	for i := range c.Backends {
		if err := c.Backends[i].validate(); err != nil {
			errs = append(errs, fmt.Errorf("backend %d: %w", i, err))
		}
	}
	if len(errs) == 0 {
		need(c.Rate(0) > 0 || c.Load.Level > 0, "the load is %v, allowed is above 0", c.Load.Level)
		need(c.Rate(0) < 1e7, "%.0f requests a second are more than can be simulated", c.Rate(0))
	}
	for _, s := range c.Load.Surges {
		need(s.From >= 0 && s.For > 0 && s.Factor >= 0 && s.Factor <= 1000, "surge %+v: it starts at 0 or later, lasts above 0, its factor is 0 to 1000", s)
	}
	return errors.Join(errs...)
}

// need reports a message unless ok.
type need = func(ok bool, format string, args ...any)

func isShare(v float64) bool { return v >= 0 && v <= 1 }

func (w Work) check(need need) {
	need(w.Mean > 0 && w.Mean <= time.Hour, "mean work is %v, allowed is above 0 to 1h", w.Mean)
	need(int(w.Distribution) < len(distributions), "work distribution %d is unknown", w.Distribution)
	need(w.Distribution != Pareto || w.Shape > 1 && w.Shape < 100, "Pareto work of shape %v, allowed is above 1 (below there is no mean) to 100", w.Shape)
	need(w.Distribution != LogNormal || w.Shape >= 0 && w.Shape <= 5, "log-normal work of sigma %v, allowed are 0 to 5", w.Shape)
}

func (a Agents) check(need need) {
	need(a.Interval >= time.Millisecond && a.Interval <= time.Hour, "poll interval is %v, allowed are 1ms to 1h", a.Interval)
	need(a.Jitter >= 0 && a.Jitter <= 0.5, "poll jitter is %v, allowed are 0 to 0.5", a.Jitter)
	need(a.Grid >= 0 && a.Grid <= time.Second, "poll grid is %v, allowed are 0 to 1s", a.Grid)
	need(a.Span >= time.Millisecond && a.Span <= time.Minute, "agents' span is %v, allowed are 1ms to 1m", a.Span)
	need(a.Stale >= 0 && a.Stale <= time.Minute, "stale is %v, allowed are 0 to 1m", a.Stale)
	need(isShare(a.Silent) && isShare(a.Loss), "silent %v and loss %v are shares, allowed are 0 to 1", a.Silent, a.Loss)
	need(a.Noise >= 0 && a.Noise <= 10, "noise is %v, allowed are 0 to 10", a.Noise)
}

func (x Client) check(need need) {
	need(x.Timeout >= time.Millisecond && x.Timeout <= time.Hour, "client time-out is %v, allowed are 1ms to 1h", x.Timeout)
	need(x.Outcome <= picker.Ignore, "client outcome %d is unknown", x.Outcome)
	need(x.Retries >= 0 && x.Retries <= 5, "retries is %d, allowed are 0 to 5", x.Retries)
	need(x.Returns >= 0 && x.Returns <= 100 && x.ReturnAfter >= 0, "returns %d after %v, allowed are 0 to 100, after 0 and up", x.Returns, x.ReturnAfter)
}

func (n Neighbour) valid() bool {
	return n.On >= 0 && n.Off >= 0 && n.Min >= 0 && n.Min <= n.Max && n.Max < 1
}

func (b *Backend) validate() error {
	switch m := b.Memory; {
	case !(b.Cores > 0 && b.Cores <= 4096):
		return fmt.Errorf("cores is %v, allowed is above 0 to 4096", b.Cores)
	case !(b.Speed > 0 && b.Speed <= 1000):
		return fmt.Errorf("speed is %v, allowed is above 0 to 1000", b.Speed)
	case b.Weight < 0 || b.Weight > 65535:
		return fmt.Errorf("weight is %d, allowed are 1 to 65535, or 0 for 1", b.Weight)
	case b.Limit < 0 || b.Backlog < 0 || b.Backlog > 0 && b.Limit == 0:
		return fmt.Errorf("limit %d with backlog %d: neither is negative, and a backlog needs a limit", b.Limit, b.Backlog)
	case b.Wait < 0 || !(b.IO >= 0 && b.IO < 1):
		return fmt.Errorf("wait %v and io share %v: wait is 0 and up, io is 0 up to 1", b.Wait, b.IO)
	case b.Joins < 0 || b.Leaves < 0 || b.Leaves > 0 && b.Leaves <= b.Joins:
		return fmt.Errorf("it joins at %v and leaves at %v", b.Joins, b.Leaves)
	case b.Cold.Slow != 0 && !(b.Cold.Slow >= 1 && b.Cold.Slow <= 1e4) || b.Cold.Time < 0 || b.Cold.Requests < 0:
		return fmt.Errorf("cold %+v: slow is 1 to 10000, the rest not negative", b.Cold)
	case !(m.Base >= 0 && m.Base < 1) || !(m.PerRequest >= 0) || !(m.Leak >= 0) || !(m.Reclaim >= 0) || m.Restart < 0:
		return fmt.Errorf("memory %+v: base is 0 up to 1, the rest not negative", m)
	case b.Fault.Kind > Shed || !isShare(b.Fault.Share) || b.Fault.From < 0 || b.Fault.Until < 0:
		return fmt.Errorf("fault %+v: the share is 0 to 1, times not negative", b.Fault)
	case b.Neighbour != nil && !b.Neighbour.valid():
		return fmt.Errorf("neighbour %+v: times must not be negative, shares are 0 <= min <= max < 1", *b.Neighbour)
	}
	return nil
}
