package sidecar

import (
	"bytes"
	"time"
)

// maxEarly bounds the published reports that are kept of instances which discovery
// has not shown yet, of at most agentstats.MaxReportSize each.
const maxEarly = 1024

// earlyReport is the last that was published of an instance, and when it came.
type earlyReport struct {
	value []byte
	at    time.Duration
}

// keep takes what is published of an instance that is not known yet: its agent says
// it again only when something changes. It returns false if the instance is known.
func (s *loads) keep(id string, value []byte, gone bool, now time.Duration) bool {
	s.mu.RLock()
	_, known := s.byID[id]
	s.mu.RUnlock()
	if known {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, known := s.byID[id]; known { // since then
		return false
	}
	delete(s.early, id)
	if gone {
		return true
	}
	if len(s.early) >= maxEarly {
		s.forgetOldest()
	}
	s.early[id] = earlyReport{bytes.Clone(value), now}
	return true
}

// forgetOldest makes room for a report. s.mu is held.
func (s *loads) forgetOldest() {
	oldest, at := "", time.Duration(0)
	for id, r := range s.early {
		if oldest == "" || r.at < at {
			oldest, at = id, r.at
		}
	}
	delete(s.early, oldest)
}
