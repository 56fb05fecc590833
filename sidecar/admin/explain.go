package admin

import (
	"math"
	"time"

	"outrigger/sidecar/balance"
)

// The types of /v1/explain. What is said of those of /v1/status holds for them.

// ExplainDoc is the answer of /v1/explain?service=NAME: how a pick made now is
// made. Nothing is reserved or counted for it.
type ExplainDoc struct {
	Service  string    `json:"service"`
	Time     time.Time `json:"time"`
	Draining bool      `json:"draining"`
	Panic    bool      `json:"panic"` // too few endpoints are healthy, so health is ignored

	// Pick is the ID of the endpoint that a pick made now took, absent if it took
	// none. Chance has its part in most policies: the next may take another.
	Pick string `json:"pick,omitempty"`
	// If none: the 503 that a client would get now, and after how long a wait.
	Reason              string   `json:"reason,omitempty"` // an Outrigger-Reason
	RetryAfterSeconds   int      `json:"retry_after_seconds,omitempty"`
	WaitsForSlotSeconds *float64 `json:"waits_for_slot_seconds,omitempty"` // in the queue, before that

	Policy PolicyDoc  `json:"policy"`
	Shadow *PolicyDoc `json:"shadow,omitempty"` // absent: there is none
}

// PolicyDoc is how one policy picks.
type PolicyDoc struct {
	Name string `json:"name"`
	Rule string `json:"rule"` // what it compares
	Mode string `json:"mode"` // how it picks now
	Pick string `json:"pick,omitempty"`
	// Candidates are those that may be picked, what would win first, and then
	// all others: the first top= of them, and the one that was picked.
	Candidates []CandidateDoc `json:"candidates"`
	LeftOut    int            `json:"left_out,omitempty"` // how many more there are
}

// CandidateDoc is one endpoint of a pick.
type CandidateDoc struct {
	ID      string `json:"id"`
	Address string `json:"address"`
	Picked  bool   `json:"picked"`
	Out     string `json:"out,omitempty"` // why it cannot be picked; absent: it can

	// ForetoldWait is how long, in seconds, a request sent there now would
	// wait inside the backend; absent: the policy cannot tell. Admission goes by
	// it, and a pick explained here does not: where it is more than max_wait of
	// what a request's time-out leaves it, that request gets no slot. About 9.2e9
	// is a wait without end: the endpoint is at the limit that was learnt for it.
	ForetoldWait *float64 `json:"foretold_wait_seconds,omitempty"`

	// Of those that the policy was given. Share is the chance to be compared, or
	// picked where nothing is compared; the lowest score wins; terms are what it
	// is made of.
	Share *float64  `json:"share,omitempty"`
	Score *float64  `json:"score,omitempty"` // absent too where Out is not
	Terms []TermDoc `json:"terms,omitempty"`

	Weight   int     `json:"weight"`
	Ramp     float64 `json:"ramp"` // share of the weight in use, below 1 in a slow start
	InFlight int     `json:"in_flight"`
	Limit    *int    `json:"limit,omitempty"` // absent: none

	LatencySeconds    *float64 `json:"latency_ewma_seconds,omitempty"`
	FiguresAgeSeconds *float64 `json:"figures_age_seconds,omitempty"` // absent: no agent's figures came
	FiguresExpired    bool     `json:"figures_expired,omitempty"`
	ReturnsInSeconds  *float64 `json:"returns_in_seconds,omitempty"` // while ejected
	PredictedSeconds  *float64 `json:"predicted_seconds,omitempty"`  // balance.ShadowStatus' yardstick
}

// TermDoc is one figure of a score; its name carries the unit.
type TermDoc struct {
	Name  string   `json:"name"`
	Value *float64 `json:"value"` // null: unknown
}

// LastDoc is the answer of /v1/explain?service=NAME&last=N. The service keeps
// the last 256 of each kind, so 503s do not go under in thousands of picks.
type LastDoc struct {
	Service   string        `json:"service"`
	Time      time.Time     `json:"time"`
	Decisions []DecisionDoc `json:"decisions"` // the newest first
	Refusals  []RefusalDoc  `json:"refusals"`  // the newest first
}

// DecisionDoc is one request sent to an endpoint.
type DecisionDoc struct {
	AgeSeconds float64 `json:"age_seconds"`
	Endpoint   string  `json:"endpoint,omitempty"` // absent: it left long ago
	Address    string  `json:"address,omitempty"`
	Left       bool    `json:"left,omitempty"` // its instance has left since
	InFlight   int     `json:"in_flight"`      // of this sidecar at it, this one among them
	Tries      int     `json:"tries"`          // before this one; 7 and up are 7

	Queued bool `json:"queued,omitempty"` // it had waited for a slot
	Pinned bool `json:"pinned,omitempty"` // by affinity, not by the policy
	Probe  bool `json:"probe,omitempty"`  // to find out whether an ejection is over
	Panic  bool `json:"panic,omitempty"`  // while health was ignored
	Again  bool `json:"again,omitempty"`  // at an endpoint tried before, for want of another
	// ShadowDiffers says that the shadow would have taken another endpoint, or
	// none; absent: there was none to compare with.
	ShadowDiffers *bool `json:"shadow_differs,omitempty"`
}

// RefusalDoc is one 503 of our own.
type RefusalDoc struct {
	AgeSeconds        float64 `json:"age_seconds"`
	Reason            string  `json:"reason"` // the Outrigger-Reason
	RetryAfterSeconds int     `json:"retry_after_seconds"`
	Tries             int     `json:"tries"` // before it; 7 and up are 7, and "unreachable" does not tell
	Queued            bool    `json:"queued,omitempty"`
	Waiting           int     `json:"waiting"`   // in the queue at that time
	Endpoints         int     `json:"endpoints"` // in use at that time
}

// describeExplanation shows up to top candidates of each policy.
func describeExplanation(x *balance.Explanation, top int, now time.Time) *ExplainDoc {
	doc := &ExplainDoc{
		Service: x.Service, Time: now, Draining: x.Draining, Panic: x.Panic,
		Reason: x.Reason, RetryAfterSeconds: x.RetryAfter, WaitsForSlotSeconds: positive(x.Waits),
		Policy: describePolicy(&x.Policy, top),
	}
	if x.Reason == "" {
		doc.Pick = x.Policy.Pick
	}
	if x.Shadow != nil {
		shadow := describePolicy(x.Shadow, top)
		doc.Shadow = &shadow
	}
	return doc
}

func describePolicy(p *balance.PolicyExplanation, top int) PolicyDoc {
	doc := PolicyDoc{Name: p.Policy, Rule: p.Rule, Mode: p.Mode, Pick: p.Pick, Candidates: make([]CandidateDoc, 0, min(top+1, len(p.Candidates)))}
	for i := range p.Candidates {
		if c := &p.Candidates[i]; i < top || c.Picked {
			doc.Candidates = append(doc.Candidates, describeCandidate(c))
		}
	}
	doc.LeftOut = len(p.Candidates) - len(doc.Candidates)
	return doc
}

func describeCandidate(c *balance.Candidate) CandidateDoc {
	doc := CandidateDoc{
		ID: c.ID, Address: c.Addr, Picked: c.Picked, Out: c.Out,
		Weight: c.Weight, Ramp: c.Ramp, InFlight: c.InFlight,
		LatencySeconds: positive(c.Latency), ReturnsInSeconds: positive(c.Returns),
		PredictedSeconds: positive(c.Predicted), FiguresExpired: c.LoadExpired,
	}
	if c.Limit > 0 {
		doc.Limit = &c.Limit
	}
	if c.Foretells {
		doc.ForetoldWait = known(c.Foretold.Seconds())
	}
	if c.HasLoad {
		doc.FiguresAgeSeconds = known(max(0, c.LoadAge.Seconds()))
	}
	if c.Terms != nil {
		doc.Share = known(c.Share)
		if c.Out == "" && !math.IsNaN(c.Score) && !math.IsInf(c.Score, 0) {
			doc.Score = &c.Score
		}
		for _, t := range c.Terms {
			doc.Terms = append(doc.Terms, TermDoc{t.Name, known(t.Value)})
		}
	}
	return doc
}

// last describes the newest decisions and 503s, up to n of each.
func (sv *Service) last(n int, now time.Time) *LastDoc {
	doc := &LastDoc{Service: sv.Name, Time: now, Decisions: []DecisionDoc{}, Refusals: []RefusalDoc{}}
	if sv.Decisions != nil {
		for _, d := range sv.Decisions(n) {
			out := DecisionDoc{
				AgeSeconds: d.Age.Seconds(), Endpoint: d.Endpoint, Address: d.Addr, Left: d.Left,
				InFlight: d.InFlight, Tries: d.Tries,
				Queued: d.Queued, Pinned: d.Pinned, Probe: d.Probe, Panic: d.Panic, Again: d.Again,
			}
			if d.Compared {
				out.ShadowDiffers = &d.Disagreed
			}
			doc.Decisions = append(doc.Decisions, out)
		}
	}
	if sv.Denials != nil {
		for _, d := range sv.Denials(n) {
			doc.Refusals = append(doc.Refusals, RefusalDoc{
				d.Age.Seconds(), d.Reason.String(), d.RetryAfter, d.Tries, d.Queued, d.Waiting, d.Ready,
			})
		}
	}
	return doc
}

func describeShadow(s *balance.ShadowStatus) *ShadowDoc {
	doc := &ShadowDoc{
		Policy: s.Policy, Mode: s.Mode, PicksTotal: s.Picks, DisagreedTotal: s.Disagreed, NoneTotal: s.None,
		PredictedTotal:              s.Predicted,
		PredictedPolicySecondsTotal: s.PolicySeconds, PredictedShadowSecondsTotal: s.ShadowSeconds,
	}
	if seconds, share, ok := s.Gain(); ok {
		doc.GainSeconds, doc.GainShare = &seconds, &share
	}
	return doc
}
