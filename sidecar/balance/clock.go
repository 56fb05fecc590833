package balance

import (
	"math/rand/v2"
	"time"

	"outrigger/picker"
)

// RealEnv returns the environment of a running sidecar: the machine's
// monotonic clock, counted from now, and the runtime's random numbers (which
// are per thread, so no lock). This file alone may read either.
func RealEnv(newConns func(*picker.Endpoint) Conns) Env {
	start := time.Now()
	return Env{
		// One second in, so that no time stamp of this clock is 0.
		Now:      func() time.Duration { return time.Since(start) + time.Second },
		Rand:     rand.Uint32N,
		NewConns: newConns,
	}
}
