package discovery

import "time"

// Status is how a source is doing. Ages are as of the call.
type Status struct {
	// State is one word for all below; StateFor is how long it has been so.
	State    State         `json:"state"`
	StateFor time.Duration `json:"state_for"`
	// Source is "consul", "file", "prepared_query" or "static".
	Source string `json:"source"`
	// Seen: a first answer has been applied. Until then the service is
	// unknown, which differs from empty.
	Seen bool `json:"seen"`
	// Current: the last read was answered and its answer believed. A read that
	// now blocks until something changes does not alter that.
	Current   bool   `json:"current"`
	Instances int    `json:"instances"` // in the set that was applied last
	Unlisted  int    `json:"unlisted"`  // those of it that the newest answer does not list
	Unusable  int    `json:"unusable"`  // registrations left out of it: bad address, no port, double ID
	Index     uint64 `json:"index"`     // Consul's index of the last believed answer

	// Age is the time since the last believed answer, changed or not. In a
	// quiet service it grows to Wait + Wait/16 with nothing amiss: Current
	// tells those apart. SinceChange is the time since apply was last called.
	// Both are 0 until Seen.
	Age         time.Duration `json:"age"`
	SinceChange time.Duration `json:"since_change"`
	// LastContact is how far behind its leader the answering server was.
	LastContact time.Duration `json:"last_contact"`

	// LastError is the newest error, with its age, kept after recovery.
	// FailingFor is the time since reads began to fail, 0 when they don't.
	LastError    string        `json:"last_error"`
	LastErrorAge time.Duration `json:"last_error_age"`
	FailingFor   time.Duration `json:"failing_for"`
	// Holding says why an answer is not believed and the last good set kept
	// instead; "" when none is. HoldingFor is for how long.
	Holding    string        `json:"holding"`
	HoldingFor time.Duration `json:"holding_for"`
	// Doubt is Holding as a short code, one of Doubts; "" when there is none.
	Doubt string `json:"doubt"`
	// SnapshotAge is how old what the disk knew is, in the state snapshot, else 0.
	SnapshotAge time.Duration `json:"snapshot_age"`
	// Disk is what is kept of the source on disk.
	Disk DiskStatus `json:"disk"`
	// Datacenter is the one that answered a prepared query.
	Datacenter string `json:"datacenter"`
	// Fallbacks are the sources that stand behind this one, in their order.
	Fallbacks []NamedStatus `json:"fallbacks"`

	AnswersTotal uint64 `json:"answers_total"` // reads that were answered
	ErrorsTotal  uint64 `json:"errors_total"`  // reads that failed
	HeldTotal    uint64 `json:"held_total"`    // answers not believed
	UpdatesTotal uint64 `json:"updates_total"` // calls of apply
	ProbesAlive  uint64 `json:"probes_alive"`  // probes of unlisted instances that were answered
	ProbesDead   uint64 `json:"probes_dead"`   // and those that were not
	// DoubtsTotal counts the spells of doubt by their code.
	DoubtsTotal map[string]uint64 `json:"doubts_total"`
}

// NamedStatus is the status of a fallback.
type NamedStatus struct {
	Name string `json:"name"`
	Status
}

// State says in one word what a source's set is worth.
type State string

const (
	Unknown  State = "unknown"  // never seen: no answer believed, no snapshot
	Snapshot State = "snapshot" // what the disk knew, until the first believed answer
	Current  State = "current"  // the last answer was believed
	Failing  State = "failing"  // reads fail; the set is kept
	Doubted  State = "doubted"  // answers come in suspicious circumstances; the set is kept
	Kept     State = "kept"     // the registry lost instances that still answer; they are kept
	Empty    State = "empty"    // believed: scaled to zero
)

// States lists every State.
func States() []State {
	return []State{Unknown, Snapshot, Current, Failing, Doubted, Kept, Empty}
}

// Codes of Status.Doubt.
const (
	doubtNoLeader    = "no_leader"
	doubtLagging     = "lagging"
	doubtBackward    = "backwards"
	doubtFiltered    = "filtered"
	doubtEmpty       = "empty"        // nothing is listed, and that is not confirmed yet
	doubtAlive       = "empty_alive"  // nothing is listed, but old endpoints answer
	doubtShrunk      = "shrunk"       // too few are listed, and that is not confirmed yet
	doubtShrunkAlive = "shrunk_alive" // too few are listed, and those missing answer
)

// Doubts lists every code of Status.Doubt.
func Doubts() []string {
	return []string{doubtNoLeader, doubtLagging, doubtBackward, doubtFiltered, doubtEmpty, doubtAlive, doubtShrunk, doubtShrunkAlive}
}
