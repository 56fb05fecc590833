package h1

import "sync/atomic"

// Stats counts what clients got. Client errors, answers passed through and our
// own refusals are counted apart.
type Stats struct {
	accepted, clientGone, clientErrors atomic.Uint64
	open, tunnels                      atomic.Int64
	passed                             [6]atomic.Uint64 // by class of the backend's status
	own                                [6]atomic.Uint64 // by class of our status
	aborted                            atomic.Uint64    // answers cut short
	retries                            [numCauses]atomic.Uint64
}

// StatsSnapshot is a copy of Stats.
type StatsSnapshot struct {
	Accepted     uint64    // client connections ever
	Open         int64     // client connections now
	Tunnels      int64     // upgraded ones among them
	Passed       [6]uint64 // answers of backends, by status class: Passed[2] are 2xx
	Own          [6]uint64 // answers made here, by status class: 4xx for bad requests, 5xx for the rest
	ClientErrors uint64    // requests refused as invalid, ambiguous or too large
	ClientGone   uint64    // requests whose client left before the end
	Aborted      uint64    // answers cut short because the backend broke off
	// Retries counts tries after a request's first, by what they were due to.
	Retries [numCauses]uint64
}

func (s *Stats) snapshot() StatsSnapshot {
	out := StatsSnapshot{
		Accepted: s.accepted.Load(), Open: s.open.Load(), Tunnels: s.tunnels.Load(),
		ClientErrors: s.clientErrors.Load(), ClientGone: s.clientGone.Load(), Aborted: s.aborted.Load(),
	}
	for i := range s.passed {
		out.Passed[i], out.Own[i] = s.passed[i].Load(), s.own[i].Load()
	}
	for i := range s.retries {
		out.Retries[i] = s.retries[i].Load()
	}
	return out
}
