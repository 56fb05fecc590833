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
// session is none, but the leader sees it. A write wakes each sidecar that watches
// the service, which then reads all of the service's reports, but no more often
// than once per Pause. So with B backends, S sidecars, reports of R bytes (about
// 400) and one write per backend every W seconds (5 to 30):
//
//	writes per second   B / W
//	reads per second    S x min(1/Pause, B / W), by any server
//	bytes per second    reads x B x (R x 4/3 + 250)
//
// 50 backends and 200 sidecars are, at worst, 10 writes, 200 reads and 8 MB a
// second; idle they are 1.7 writes, 200 reads and 8 MB.
package publish
