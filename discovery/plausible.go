package discovery

import "time"

// decision is what to do with an answer.
type decision uint8

const (
	accept  decision = iota // it is the truth: apply what changed
	hold                    // its circumstances are suspicious: keep the set, ask the leader
	confirm                 // it may be true: keep the set until it was repeated
)

// verdict is a decision with its reason, "" for accept. Reasons are few and
// constant: they show in status and logs.
type verdict struct {
	decision decision
	reason   string
}

const (
	reasonNoLeader = "the answering server knows no leader"
	reasonStale    = "the answering server is too far behind its leader"
	reasonBackward = "Consul's index went backwards"
	reasonFiltered = "ACLs hide instances: check the token's rights"
	reasonEmpty    = "empty answer unconfirmed"
)

// rules are the bounds of plausible.
type rules struct {
	maxStale     time.Duration
	emptyConfirm time.Duration
}

// minEmptyReads is how many consistent reads must find nothing; minEmptySpacing
// is how far apart they are at least.
const (
	minEmptyReads   = 2
	minEmptySpacing = time.Second
)

// circumstances are all that is known of an answer but its instances.
type circumstances struct {
	Seen        bool // an earlier answer was applied
	Consistent  bool // a quorum vouched for the leader that gave it
	Streaming   bool // from the agent's own copy, which a server keeps up to date
	KnownLeader bool
	LastContact time.Duration
	Backwards   bool // its index is below that of the set being held
	Filtered    bool // ACLs removed something from it
	WasFiltered bool // and from the answer before
	// Consistent, leader-known, unfiltered, empty reads in a row, this one
	// included, and the time from the first to the last.
	EmptyReads int
	EmptySpan  time.Duration
}

// plausible judges an answer: may new replace old, d being their difference?
//
// Before anything was seen everything is accepted: there is nothing to lose.
// Later an answer is doubted when it takes instances away in circumstances where
// Consul is known to answer 200 with too little: without a leader, from a server
// that lags or was restored, with a token that lost its rights; and always when
// it leaves nothing, except after repeated consistent reads. Doubt never adds
// or loses anything, it keeps the old set.
func plausible(r rules, old, new []Instance, d delta, c circumstances) verdict {
	shrinks := d.Removed > 0
	emptied := len(new) == 0 && len(old) > 0
	switch {
	case !c.Seen || d.none():
		return verdict{}
	case shrinks && c.Filtered && (emptied || !c.WasFiltered):
		// A token that never saw everything sees instances leave like others.
		return verdict{hold, reasonFiltered}
	case shrinks && !c.KnownLeader && !c.Streaming:
		// Streamed answers always say "no leader" (consul #9776), as an agent
		// can't know; when its stream restarts the index falls: next case.
		return verdict{hold, reasonNoLeader}
	case c.Backwards && !c.Consistent:
		// Older than what is held, or the servers were restored: even an
		// addition may be of the past. Includes the empty answer with index 1
		// of an agent whose stream is down when the wait ends.
		return verdict{hold, reasonBackward}
	case shrinks && c.LastContact > r.maxStale:
		return verdict{hold, reasonStale}
	case !emptied:
		return verdict{}
	case c.EmptyReads >= minEmptyReads && c.EmptySpan >= r.emptyConfirm:
		return verdict{}
	}
	return verdict{confirm, reasonEmpty}
}

// confirmSpacing is the pause between confirming reads: some within the span,
// for what comes back to be seen soon.
func (r rules) confirmSpacing() time.Duration { return max(minEmptySpacing, r.emptyConfirm/4) }

// nextIndex is the index to block on after an answer with index got to a read
// that blocked on prev (0: did not block). Consul's documentation of blocking
// queries asks for: 0 when it went backwards, and never to block on 0.
func nextIndex(prev, got uint64) uint64 {
	if got < prev {
		return 0
	}
	return max(got, 1)
}
