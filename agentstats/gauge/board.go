package gauge

import (
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
)

const (
	// lost is the silence after which a stream that owes heartbeats is closed: it is
	// left out long before, but a short stall must not cost everyone a new connection.
	lost = 10 * Expiry
	// pace is the least time between two reads of one stream: a sidecar sends at most
	// every 5 ms, and one that floods must not take the agent's CPU.
	pace = 2 * time.Millisecond
)

// BoardEnv is what a board gets from its surroundings. Every field may be left out.
type BoardEnv struct {
	// Now is the clock; its times carry a monotonic reading. Default: time.Now.
	Now    func() time.Time
	Logger hclog.Logger // default: none
	// Socket returns the TCP connection whose bytes a connection of the server's passes
	// on unchanged, nil if it does not (TLS). Default: the connection itself if it is one.
	// On Linux these are read when the sum is asked for, which is much cheaper.
	Socket func(net.Conn) *net.TCPConn
}

// Board takes the streams of all sidecars and keeps their sum. It is the http.Handler
// of [Path], on a plain or TLS server of HTTP/1.1; who may ask is for the server in
// front of it to check. All methods are safe for concurrent use.
type Board struct {
	cfg BoardConfig
	env BoardEnv

	mu      sync.Mutex
	closed  bool
	said    time.Time // when it was logged last that streams are turned away
	streams map[*stream]struct{}
	counted list // gauges above 0
	overdue list // those that were silent for longer than Expiry
	total   int64
	newest  time.Time // when the last frame came
	stats   BoardStats
	puller  *puller // nil: every stream has a reader

	followers sync.WaitGroup
}

// BoardStats counts since the board was made, but for Open.
type BoardStats struct {
	Open    int    // streams now
	Frames  uint64 // gauges read; several that came in one read count once
	Expired uint64 // gauges left out for silence
	Refused uint64 // streams refused: too many, or no stream of ours
	Broken  uint64 // streams ended for a frame that is none
}

// NewBoard returns a board without streams. cfg must be valid.
func NewBoard(cfg BoardConfig, env BoardEnv) *Board {
	if env.Now == nil {
		env.Now = time.Now
	}
	if env.Logger == nil {
		env.Logger = hclog.NewNullLogger()
	}
	if env.Socket == nil {
		env.Socket = func(c net.Conn) *net.TCPConn {
			t, _ := c.(*net.TCPConn)
			return t
		}
	}
	b := &Board{cfg: cfg, env: env, streams: map[*stream]struct{}{}, puller: newPuller()}
	b.counted.init()
	b.overdue.init()
	return b
}

// Sum returns what the sidecars have in flight together, at most 1e9; how many
// sidecars that is, those at 0 included; and how long ago the newest frame came, 0 if
// none ever did. With no stream the sum tells nothing. now is on BoardEnv.Now's clock.
//
// Silence is told by frames, and those of TCP connections are looked for when somebody
// asks: ask at least every second. It costs a look and what came or expired since.
func (b *Board) Sum(now time.Time) (total float64, streams int, age time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.pull(now)
	b.expire(now)
	if !b.newest.IsZero() {
		age = max(0, now.Sub(b.newest))
	}
	return float64(min(b.total, maxSum)), len(b.streams) - b.overdue.n, age
}

// Stats returns the counts.
func (b *Board) Stats() BoardStats {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.pull(b.env.Now())
	s := b.stats
	s.Open = len(b.streams)
	return s
}

// Close ends every stream and waits for that; new ones are answered 503. An
// http.Server's Shutdown does not, for it knows hijacked connections no more.
func (b *Board) Close() {
	b.mu.Lock()
	first := !b.closed
	b.closed = true
	for s := range b.streams {
		b.end(s)
	}
	if first && b.puller != nil {
		b.puller.close()
	}
	b.mu.Unlock()
	b.followers.Wait()
}

// ServeHTTP makes a stream of a request, or says why not.
func (b *Board) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if status, why := refusal(r); status != 0 {
		if r.ContentLength != 0 {
			w.Header().Set("Connection", "close") // or the server would wait for the body first
		}
		b.refuse(w, status, why)
		return
	}
	if !b.room(r) {
		w.Header().Set("Retry-After", "10")
		b.refuse(w, http.StatusServiceUnavailable, "no room for another gauge stream")
		return
	}
	conn, rw, err := http.NewResponseController(w).Hijack()
	if err != nil { // HTTP/2, or a server in between that cannot
		b.refuse(w, http.StatusHTTPVersionNotSupported, "gauge streams need HTTP/1.1")
		return
	}
	// The buffers go with the request: what follows is read from the connection itself.
	// A sidecar waits for the 101 before its first frame.
	if rw.Reader.Buffered() > 0 {
		_ = conn.Close()
		b.count(&b.stats.Broken)
		return
	}
	s := &stream{conn: conn}
	if !b.enter(s) {
		_ = conn.Close()
		return
	}
	if err := answer(conn); err != nil {
		b.leave(s, err)
	} else if !b.adopted(s) {
		go b.follow(s) // the handler's goroutine would hold the whole request until it ends
	}
}

// refusal says what is wrong with a request, 0 for nothing. A browser cannot send this
// Upgrade, but whatever carries a mark of one is no sidecar.
func refusal(r *http.Request) (int, string) {
	switch {
	case r.Method != http.MethodGet:
		return http.StatusMethodNotAllowed, "gauge streams are opened with GET"
	case r.Header.Get("Origin") != "" || r.Header.Get("Sec-Fetch-Site") != "":
		return http.StatusForbidden, "gauge streams are not for browsers"
	case r.ProtoMajor != 1 || r.ProtoMinor != 1:
		return http.StatusHTTPVersionNotSupported, "gauge streams need HTTP/1.1"
	case r.ContentLength != 0: // -1 with chunks
		return http.StatusBadRequest, "gauge streams are opened without a body"
	case !token(r.Header["Connection"], "upgrade") || !token(r.Header["Upgrade"], Protocol):
		return http.StatusUpgradeRequired, "gauge streams need Connection: Upgrade and Upgrade: " + Protocol
	}
	return 0, ""
}

// token reports whether a header that is a list holds want.
func token(lines []string, want string) bool {
	for _, line := range lines {
		for t := range strings.SplitSeq(line, ",") {
			if strings.EqualFold(strings.Trim(t, " \t"), want) {
				return true
			}
		}
	}
	return false
}

func (b *Board) refuse(w http.ResponseWriter, status int, why string) {
	b.count(&b.stats.Refused)
	h := w.Header()
	switch status {
	case http.StatusUpgradeRequired:
		h.Set("Connection", "Upgrade")
		h.Set("Upgrade", Protocol)
	case http.StatusMethodNotAllowed:
		h.Set("Allow", http.MethodGet)
	}
	http.Error(w, why, status)
}

func (b *Board) count(c *uint64) {
	b.mu.Lock()
	*c++
	b.mu.Unlock()
}

// complainEvery is how often it is logged that streams are turned away.
const complainEvery = time.Minute

// room reports whether there may be one more stream, and logs that there may not, at
// most once in complainEvery.
func (b *Board) room(r *http.Request) bool {
	b.mu.Lock()
	now := b.env.Now()
	b.pull(now)
	b.expire(now) // lost streams leave soon
	ok := !b.closed && len(b.streams) < b.cfg.MaxStreams
	tell := !ok && !b.closed && (b.said.IsZero() || now.Sub(b.said) >= complainEvery)
	if tell {
		b.said = now
	}
	b.mu.Unlock()
	if tell {
		b.env.Logger.Warn("gauge streams are turned away: all that are allowed are open", "max_gauges", b.cfg.MaxStreams, "peer", r.RemoteAddr)
	}
	return ok
}
