package agentstats

import (
	"encoding/json"
	"fmt"
)

// MaxReportSize bounds an encoded report in bytes: more than thirty times what the
// fields of today need, so that later ones fit, and small enough to hold per endpoint.
const MaxReportSize = 16 << 10

// Encode writes a report as one JSON object. A report that [Decode] would refuse is
// an error, so an agent never serves one.
func Encode(r Report) ([]byte, error) {
	if err := r.validate(); err != nil {
		return nil, fmt.Errorf("agent report not sent: %w", err)
	}
	b, err := json.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("agent report not sent: %w", err)
	}
	if len(b) > MaxReportSize {
		return nil, fmt.Errorf("agent report not sent: %d bytes, more than %d", len(b), MaxReportSize)
	}
	return b, nil
}

// Decode reads one untrusted report: a JSON object of at most [MaxReportSize] bytes
// with nothing after it. One figure out of range refuses the whole report, since a
// sender that is wrong once cannot be trusted for the rest. Unknown fields are
// skipped, so that newer agents can say more.
func Decode(data []byte) (Report, error) {
	if len(data) > MaxReportSize {
		return Report{}, fmt.Errorf("agent report refused: %d bytes, more than %d", len(data), MaxReportSize)
	}
	r, ok := decodeFast(data)
	if !ok {
		r = Report{}
		if err := json.Unmarshal(data, &r); err != nil {
			return Report{}, fmt.Errorf("agent report refused: %w", err)
		}
	}
	if err := r.validate(); err != nil {
		return Report{}, fmt.Errorf("agent report refused: %w", err)
	}
	return r, nil
}
