package admin

import "time"

// Consul is how the reads of all services share the connections to the Consul
// agent.
type Consul struct {
	Limit   int // reads at once; does not apply on HTTP/2
	InUse   int // reads that are at the agent
	Waiting int // reads that wait for their turn
	Readers int // sources that ask again and again
	HTTP2   bool
	// LongestWait is how long a read may wait for a change at the agent, so that
	// all get their turn; 0: for as long as is configured.
	LongestWait time.Duration

	BusyConnections uint64 // connections refused for being too many
	BusyRate        uint64 // answers 429 and 503 of Consul's request limits
}

// Snapshots counts what became of a service's snapshot on disk.
type Snapshots struct {
	Writes, ReadErrors, WriteErrors uint64
	Bytes                           int64 // of the newest that was written or read; 0: none was
	// Age is the time since what the file says was last known to be so; 0: there is
	// no file.
	Age time.Duration
}

// Check is what the active checks of one endpoint came to.
type Check struct {
	Checked bool          // false: the endpoint is not checked, and nothing else here counts
	State   string        // "unknown", "up" or "down"
	For     time.Duration // since State began
	Error   string        // why the last check failed; "": it did not
	Took    time.Duration // by the last check; 0: there was none

	Successes, Failures uint64
	Unmade              uint64 // without a verdict: they could not be made for a reason of ours
}

// Check.State, but for the time before a check said anything.
const (
	checkUp   = "up"
	checkDown = "down"
)
