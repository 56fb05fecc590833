package discovery

// decision is what to do with an answer.
type decision uint8

const (
	accept  decision = iota // it is the truth: apply what changed
	hold                    // its circumstances are suspicious: keep the set, ask the leader
	confirm                 // it takes away implausibly much: see loss
)

// verdict is a decision with its doubt, one of Doubts, "" for accept.
type verdict struct {
	decision decision
	doubt    string
}

// The sentences to the doubts, for status and logs: few and constant.
const (
	reasonNoLeader    = "the answering server knows no leader"
	reasonStale       = "the answering server is too far behind its leader"
	reasonBackward    = "the index went backwards or is absurd"
	reasonFiltered    = "ACLs hide instances: check the token's rights"
	reasonEmpty       = "empty answer unconfirmed"
	reasonAlive       = "nothing is listed, but old endpoints answer"
	reasonShrunk      = "too few are listed, unconfirmed"
	reasonShrunkAlive = "too few are listed, and those missing answer"
)

// reason is the sentence to a doubt.
func reason(doubt string) string {
	switch doubt {
	case doubtNoLeader:
		return reasonNoLeader
	case doubtLagging:
		return reasonStale
	case doubtBackward:
		return reasonBackward
	case doubtFiltered:
		return reasonFiltered
	case doubtEmpty:
		return reasonEmpty
	case doubtAlive:
		return reasonAlive
	case doubtShrunk:
		return reasonShrunk
	case doubtShrunkAlive:
		return reasonShrunkAlive
	}
	return doubt
}

// plausible judges an answer: may new replace old, d being their difference?
//
// Before anything was seen everything is accepted: there is nothing to lose.
// Later an answer is doubted when it takes instances away in circumstances where
// Consul is known to answer 200 with too little: without a leader, from a server
// that lags or was restored, with a token that lost its rights; and always when
// it leaves nothing or implausibly little. Doubt by circumstances never adds or
// loses anything, it keeps the old set; doubt of a consistent answer is a loss's.
func plausible(cfg *Config, old, new []Instance, d delta, c circumstances) verdict {
	shrinks := d.Removed > 0
	emptied := len(new) == 0 && len(old) > 0
	switch {
	case !c.Seen || d.none():
		return verdict{}
	case shrinks && c.Filtered && (emptied || !c.WasFiltered):
		// A token that never saw everything sees instances leave like others. One that
		// lost rights sees no less of what is left: the missing are asked.
		if c.Consistent {
			return verdict{confirm, doubtFiltered}
		}
		return verdict{hold, doubtFiltered}
	case shrinks && !c.KnownLeader && !c.Streaming:
		// Streamed answers always say "no leader" (consul #9776), as an agent
		// can't know; when its stream restarts the index falls: next case.
		return verdict{hold, doubtNoLeader}
	case c.Backwards && !c.Consistent:
		// Older than what is held, or the servers were restored: even an
		// addition may be of the past. Includes the empty answer with index 1
		// of an agent whose stream is down when the wait ends.
		return verdict{hold, doubtBackward}
	case shrinks && max(c.LastContact, c.CacheAge) > cfg.MaxStale:
		return verdict{hold, doubtLagging}
	case emptied:
		return verdict{confirm, doubtEmpty}
	case shrinks && !c.Moved && tooFew(cfg.Shrink, c.Most, len(new)):
		return verdict{confirm, doubtShrunk}
	}
	return verdict{}
}

// tooFew reports whether n instances are implausibly few where there were most.
// Sizes count and not which are missing: a deploy that replaces every instance
// within one answer takes no capacity away.
func tooFew(shrink float64, most, n int) bool {
	const rounding = 1e-9 // 0.7 of 10 is not more than 7
	return n < most && (n == 0 || float64(most-n) > shrink*float64(most)+rounding)
}

// maxIndex is above every index that Raft will ever count to.
const maxIndex = 1 << 62

// nextIndex is the index to block on after an answer with index got to a read
// that blocked on prev (0: did not block). Consul's documentation of blocking
// queries asks for: 0 when it went backwards, and never to block on 0. Nor on an
// absurd one: that would leave us deaf.
func nextIndex(prev, got uint64) uint64 {
	if got < prev || got >= maxIndex {
		return 0
	}
	return max(got, 1)
}
