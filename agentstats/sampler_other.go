//go:build !linux

package agentstats

import (
	"fmt"
	"runtime"
	"time"

	"github.com/hashicorp/go-hclog"
)

// sampler exists on Linux only; the report, its codec and the poller work everywhere.
type sampler struct{}

func newSampler(Config, hclog.Logger) (*sampler, error) {
	return nil, fmt.Errorf("agent: measuring a backend is not supported on %s: it reads Linux's /proc and cgroups; run the agent on the Linux host of the backend", runtime.GOOS)
}

func (*sampler) sample(time.Time) (Report, string) { return Report{}, "" }

func (*sampler) close() {}
