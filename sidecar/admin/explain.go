package admin

import (
	"fmt"
	"math"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"outrigger/picker"
	"outrigger/sidecar/balance"
)

// The types of /v1/explain. What is said of those of /v1/status holds for them.

// ExplainDoc is the answer of /v1/explain?service=NAME: how a pick made now is
// made. Nothing is reserved or counted for it.
type ExplainDoc struct {
	Service  string    `json:"service"`
	Time     time.Time `json:"time"`
	Draining bool      `json:"draining"`
	Panic    bool      `json:"panic"` // every endpoint is ejected, so ejections are ignored

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
	// all others.
	Candidates []CandidateDoc `json:"candidates"`
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
	Panic  bool `json:"panic,omitempty"`  // while ejections were ignored
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

// maxLast is how many decisions a service keeps.
const maxLast = 256

// explain answers /v1/explain.
func (s *Server) explain(w http.ResponseWriter, r *http.Request) {
	q, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		s.json(w, http.StatusBadRequest, ErrorDoc{Error: "the query of the URL cannot be read: " + err.Error()})
		return
	}
	if err := checkExplain(q); err != nil {
		s.json(w, http.StatusBadRequest, ErrorDoc{Error: err.Error(), Known: s.names()})
		return
	}
	sv := s.service(q.Get("service"))
	switch {
	case sv == nil:
		s.json(w, http.StatusNotFound, s.unknown(q.Get("service")))
	case q.Has("last"):
		n, _ := strconv.Atoi(q.Get("last")) // checked
		s.json(w, http.StatusOK, sv.last(n, s.o.Now()))
	case sv.Explain == nil:
		s.json(w, http.StatusNotFound, ErrorDoc{Error: fmt.Sprintf("service %q cannot explain its picks", sv.Name)})
	default:
		x, err := sv.Explain(question(q))
		if err != nil {
			s.json(w, http.StatusBadRequest, ErrorDoc{Error: err.Error() + "; /v1/status lists them"})
			return
		}
		s.json(w, http.StatusOK, describeExplanation(&x, s.o.Now()))
	}
}

// checkExplain says what is wrong with a question and what to do.
func checkExplain(q url.Values) error {
	for name, values := range q {
		switch {
		case !slices.Contains([]string{"service", "key", "tried", "last"}, name):
			return fmt.Errorf("there is no parameter %q; allowed are service, key, tried and last", name)
		case len(values) > 1 && name != "tried":
			return fmt.Errorf("%s is there twice", name)
		}
	}
	if q.Get("service") == "" {
		return fmt.Errorf("service is missing: ask /v1/explain?service=NAME")
	}
	if !q.Has("last") {
		return nil
	}
	if q.Has("key") || q.Has("tried") {
		return fmt.Errorf("last lists what was decided, so key and tried have no meaning beside it; leave them out")
	}
	if n, err := strconv.Atoi(q.Get("last")); err != nil || n < 1 || n > maxLast {
		return fmt.Errorf("last is %q, allowed are 1 to %d", q.Get("last"), maxLast)
	}
	return nil
}

// question reads a checked query. A key is a number, the hash itself, or a text
// that is hashed as the engine hashes what it takes from a request.
func question(q url.Values) balance.Question {
	var out balance.Question
	if key := q.Get("key"); key != "" {
		n, err := strconv.ParseUint(key, 0, 64)
		if err != nil {
			n = picker.Hash(key)
		}
		out.Hash = n
	}
	for _, list := range q["tried"] {
		for id := range strings.SplitSeq(list, ",") {
			if id = strings.TrimSpace(id); id != "" {
				out.Tried = append(out.Tried, id)
			}
		}
	}
	return out
}

func describeExplanation(x *balance.Explanation, now time.Time) *ExplainDoc {
	doc := &ExplainDoc{
		Service: x.Service, Time: now, Draining: x.Draining, Panic: x.Panic,
		Reason: x.Reason, RetryAfterSeconds: x.RetryAfter, WaitsForSlotSeconds: positive(x.Waits),
		Policy: describePolicy(&x.Policy),
	}
	if x.Reason == "" {
		doc.Pick = x.Policy.Pick
	}
	if x.Shadow != nil {
		shadow := describePolicy(x.Shadow)
		doc.Shadow = &shadow
	}
	return doc
}

func describePolicy(p *balance.PolicyExplanation) PolicyDoc {
	doc := PolicyDoc{Name: p.Policy, Rule: p.Rule, Mode: p.Mode, Pick: p.Pick, Candidates: make([]CandidateDoc, 0, len(p.Candidates))}
	for i := range p.Candidates {
		doc.Candidates = append(doc.Candidates, describeCandidate(&p.Candidates[i]))
	}
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
