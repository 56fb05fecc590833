package discovery

import "time"

// reading is one answer of a registry, from whatever source.
type reading struct {
	set   []Instance // valid, ordered by ID, each ID once
	shown []Instance // the same in the order to be applied; nil: set
	odd   []oddity   // what was left out or corrected
	index uint64     // 0 from a registry that counts nothing
	circumstances
}

// circumstances are all that is known of an answer but its instances. A source
// fills in the first part, its keeper the second.
type circumstances struct {
	Consistent  bool // a quorum vouched for the leader that gave it, or there is but one truth
	Streaming   bool // from the agent's own copy, which a server keeps up to date
	KnownLeader bool
	LastContact time.Duration // how far behind its leader the server was
	CacheAge    time.Duration // how long the agent's cache has had no contact
	Filtered    bool          // ACLs removed something from it
	Moved       bool          // it is of another datacenter than the set held: sizes do not compare

	Seen        bool // an earlier answer was applied, or a snapshot
	Backwards   bool // its index is below that of the set being held, or absurd
	WasFiltered bool // ACLs filtered the last believed answer
	Most        int  // the size of the largest set believed of late
}

// pace says how a source goes on.
type pace struct {
	delay time.Duration // before the next read, at least
	// verify: the next read has to be consistent, uncached, and must not block. A
	// source whose reads are all of that kind reads again, changed or not.
	verify bool
}
