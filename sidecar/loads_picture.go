package sidecar

import (
	"outrigger/agentstats"
	"outrigger/picker"
)

// complain logs the first of an endpoint's values of a kind that was not believed.
// The endpoint's mu is held.
func (s *loads) complain(said *bool, id, what string, err error) {
	if *said {
		return
	}
	*said = true
	s.env.Log.Warn(what+"; no more is logged of it", "endpoint", id, "error", agentstats.OneLine(err, maxComplaint))
}

// maxComplaint bounds what an untrusted value puts into the log, in bytes.
const maxComplaint = 300

// unheard is the picture of an endpoint whose agent tells nothing, or nothing any
// more: then what does not change with its load is still true. That it answers
// shows that it listens.
func (e *endpointLoad) unheard(t told) picker.Load {
	l := picker.Load{
		At: t.at, Expires: t.expires, Listening: true,
		InFlight: picker.Absent, Cores: picker.Absent, Avail: picker.Absent, CPU: picker.Absent,
		Mem: picker.Absent, Conc: picker.Absent, Err: picker.Absent,
	}
	for _, old := range []*picker.Load{e.published, e.polled} {
		if old != nil && old.Cores > 0 {
			l.Cores = old.Cores
		}
		if old != nil && old.Conc > 0 {
			l.Conc = old.Conc
		}
	}
	return l
}

// loadFrom turns a report into what policies see of it, but for times and own
// requests. Figures that it does not carry stay absent, but for a backend's port,
// which is taken to listen.
func loadFrom(r *agentstats.Report) *picker.Load {
	return &picker.Load{
		InFlight:  r.InFlight.Or(picker.Absent),
		Cores:     r.Cores.Or(picker.Absent),
		Avail:     r.Avail.Or(picker.Absent),
		CPU:       r.CPU.Or(picker.Absent),
		Mem:       r.Mem.Or(picker.Absent),
		Conc:      r.Conc.Or(picker.Absent),
		Err:       r.Err.Or(picker.Absent),
		Epoch:     r.Epoch,
		Listening: r.Listening.Or(true),
	}
}
