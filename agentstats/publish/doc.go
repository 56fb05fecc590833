// Package publish carries agents' reports through Consul's KV store, for networks
// where sidecars cannot reach agents. Polling is better wherever it is possible:
// its figures are half a second old instead of half a minute, and cost Consul
// nothing.
//
// The [Publisher] of an agent writes its report under PREFIX/SERVICE/NODE/ID, held
// by a session with a TTL and behavior "delete", so that the report of a dead
// agent vanishes. It writes when something changed that is worth it, never more
// than once per MinInterval, and at least once per MaxInterval. The [Watcher] of a
// sidecar follows PREFIX/SERVICE/ by one blocking query.
//
// # What it costs
//
// One write is one Raft entry, which every server writes to its disk; renewing the
// session is none, but the leader hears of it three times per TTL. A write wakes
// each sidecar that watches the service, which then reads all of the service's
// reports, but no more often than once per Pause. With B backends, S sidecars, and
// one write per backend every W seconds (MinInterval to MaxInterval, 5 to 30):
//
//	writes per second   B / W
//	reads per second    S x min(1/Pause, B / W), by any server
//	bytes per second    reads x B x 1 KB
//
// Measured with Consul 1.20 (BenchmarkConsulPerChange): reading 50 reports of 500
// bytes costs a server 1.4 ms of CPU, a write less than 10 ms. 50 backends and 200
// sidecars make, at the defaults, 2 to 10 writes, 200 reads and 10 MB a second:
// about a third of a core, spread over the servers. A longer Pause makes that
// cheaper in proportion; the time between writes hardly does, until B / W is below
// 1 / Pause.
//
// # ACL rules
//
// An agent: session "NODE" { policy = "write" } and
// key_prefix "PREFIX/SERVICE/" { policy = "write" }. A sidecar:
// key_prefix "PREFIX/SERVICE/" { policy = "read" }, or "list" where Consul's
// acl.enable_key_list_policy is on.
package publish
