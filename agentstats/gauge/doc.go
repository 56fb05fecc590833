// Package gauge carries what each sidecar has in flight at a backend to the backend's
// agent, on change: the [Sender] in the sidecar, the [Board] in the agent. The sum over
// all sidecars is the backend's in-flight as far as they are its clients, exact and a
// few milliseconds old.
//
// The protocol: a sidecar opens one HTTP/1.1 connection per endpoint, asks for [Path]
// with "Connection: Upgrade" and "Upgrade: outrigger-gauge" (and the Authorization
// header of its polls), and is answered 101. From then on it writes frames: four bytes,
// big-endian, its requests in flight at this backend now, at most [MaxValue]. They are
// absolute, so that one may be left out. The agent writes nothing; any other byte from
// either side ends the stream. A gauge belongs to its connection: it counts as 0 before
// the first frame, and no more once the connection ends or [Expiry] passes without a
// frame. The sidecar repeats a gauge that stands still at least every [Heartbeat], but
// for one at 0, which may stay silent.
package gauge

import "time"

const (
	// Path is where an agent takes streams.
	Path = "/v1/gauge"
	// Protocol is the token in the Upgrade header.
	Protocol = "outrigger-gauge"
	// MaxValue bounds one gauge: far above what one sidecar has at one backend, each on a
	// connection, and no figure to drive all others off for good.
	MaxValue = 1e5
	// maxSum bounds what all have together, as a report's in_flight is bounded.
	maxSum = 1e9
	// Heartbeat and Expiry are PICKING.md's: a lost sidecar counts for 3 s at most, and
	// two heartbeats may be late before one that lives is left out.
	Heartbeat = time.Second
	Expiry    = 3 * time.Second
)

// handshakeTimeout bounds opening a stream: a dial and one small exchange.
const handshakeTimeout = 5 * time.Second
