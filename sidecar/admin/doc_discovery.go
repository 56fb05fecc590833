package admin

// DiscoveryDoc is how Consul (or another source) answers.
type DiscoveryDoc struct {
	// State says in one word what the set is worth: unknown, snapshot, current,
	// failing, doubted, kept or empty; see discovery.State.
	State           string   `json:"state,omitempty"`
	StateForSeconds *float64 `json:"state_for_seconds,omitempty"`
	Source          string   `json:"source,omitempty"`     // consul, file, prepared_query or static
	Datacenter      string   `json:"datacenter,omitempty"` // that answered a prepared query

	Seen      bool   `json:"seen"`      // there was a first answer
	Current   bool   `json:"current"`   // the last read was answered and believed
	Instances int    `json:"instances"` // in the set in use
	Unlisted  int    `json:"unlisted"`  // of these, what the newest answer does not list
	Unusable  int    `json:"unusable"`  // registrations left out of it
	Index     uint64 `json:"index"`     // of the last believed answer

	// Since the last believed answer, and since the set changed; absent until seen.
	AgeSeconds         *float64 `json:"age_seconds,omitempty"`
	SinceChangeSeconds *float64 `json:"since_change_seconds,omitempty"`
	// How far behind its leader the answering server was.
	LastContactSeconds *float64 `json:"last_contact_seconds,omitempty"`

	LastError           string   `json:"last_error,omitempty"` // kept after recovery
	LastErrorAgeSeconds *float64 `json:"last_error_age_seconds,omitempty"`
	FailingForSeconds   *float64 `json:"failing_for_seconds,omitempty"` // absent: not failing
	// Holding says why the newest answer is not believed and the set before it
	// kept; absent: it is believed.
	Holding           string   `json:"holding,omitempty"`
	HoldingForSeconds *float64 `json:"holding_for_seconds,omitempty"`
	// Doubt is Holding as a short code: no_leader, lagging, backwards, filtered,
	// empty, empty_alive or shrunk_alive.
	Doubt string `json:"doubt,omitempty"`
	// SnapshotAgeSeconds is how old what is served is, in the state snapshot.
	SnapshotAgeSeconds *float64 `json:"snapshot_age_seconds,omitempty"`

	AnswersTotal uint64 `json:"answers_total"`
	ErrorsTotal  uint64 `json:"errors_total"`
	HeldTotal    uint64 `json:"held_total"`
	UpdatesTotal uint64 `json:"updates_total"`

	// Instances that the registry dropped were asked whether they are there.
	ProbesAnsweredTotal uint64            `json:"probes_answered_total"`
	ProbesDeadTotal     uint64            `json:"probes_dead_total"`
	DoubtsTotal         map[string]uint64 `json:"doubts_total"` // spells of doubt, by code

	Snapshot  *SnapshotDoc  `json:"snapshot,omitempty"`  // absent: nothing is kept on disk
	Fallbacks []FallbackDoc `json:"fallbacks,omitempty"` // in the order of their use
}

// FallbackDoc is how a fallback source answers.
type FallbackDoc struct {
	Name string `json:"name"`
	DiscoveryDoc
}

// SnapshotDoc is what became of the snapshot on disk.
type SnapshotDoc struct {
	WritesTotal      uint64   `json:"writes_total"`
	ReadErrorsTotal  uint64   `json:"read_errors_total"`
	WriteErrorsTotal uint64   `json:"write_errors_total"`
	Bytes            int64    `json:"bytes"`                 // of the newest; 0: there is none
	AgeSeconds       *float64 `json:"age_seconds,omitempty"` // since what it says was last known to be so
}

// ConsulDoc is how all services share the connections to the Consul agent.
type ConsulDoc struct {
	ReadsLimit   *int `json:"reads_limit,omitempty"` // at once; absent on HTTP/2
	ReadsInUse   int  `json:"reads_in_use"`
	ReadsWaiting int  `json:"reads_waiting"`
	Readers      int  `json:"readers"` // sources that ask again and again
	HTTP2        bool `json:"http2"`
	// LongestWaitSeconds is how long a read may wait for a change, so that all get
	// their turn; absent: as long as is configured.
	LongestWaitSeconds *float64 `json:"longest_wait_seconds,omitempty"`
	// BusyTotal counts refusals: connections (too many) and rate (429 and 503 of
	// Consul's request limits).
	BusyTotal map[string]uint64 `json:"busy_total"`
}
