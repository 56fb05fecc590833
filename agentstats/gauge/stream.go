package gauge

import (
	"errors"
	"io"
	"net"
	"time"
)

// stream is one sidecar's gauge. All but conn is under Board.mu.
type stream struct {
	conn   net.Conn
	pulled *pulled // nil: it has a reader, or has neither yet
	value  int64
	at     time.Time // of the last frame
	// The list of the board it is in, nil for none: at 0 a stream is in none.
	in         *list
	prev, next *stream
}

// list is a ring of streams, in the order of their last frames.
type list struct {
	root stream
	n    int
}

func (l *list) init() { l.root.prev, l.root.next = &l.root, &l.root }

func (l *list) first() *stream {
	if l.n == 0 {
		return nil
	}
	return l.root.next
}

// add puts s, which is in no list, at the end.
func (l *list) add(s *stream) {
	s.in, s.prev, s.next = l, l.root.prev, &l.root
	s.prev.next, l.root.prev = s, s
	l.n++
}

// leave takes s out of the list it is in, if any.
func (s *stream) leave() {
	if s.in == nil {
		return
	}
	s.prev.next, s.next.prev = s.next, s.prev
	s.in.n--
	s.in, s.prev, s.next = nil, nil, nil
}

const switching = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: " + Protocol + "\r\n\r\n"

// answer says that the stream is taken.
func answer(conn net.Conn) error {
	_ = conn.SetWriteDeadline(time.Now().Add(handshakeTimeout)) // a dead connection shows in the write
	_, err := io.WriteString(conn, switching)
	_ = conn.SetWriteDeadline(time.Time{})
	return err
}

// enter adds a stream at 0, unless the board is closed or became full meanwhile.
func (b *Board) enter(s *stream) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed || len(b.streams) >= b.cfg.MaxStreams {
		return false
	}
	b.streams[s] = struct{}{}
	b.followers.Add(1)
	return true
}

// adopted reports whether s is read when the sum is asked for; else it needs a reader.
func (b *Board) adopted(s *stream) bool {
	c := b.env.Socket(s.conn)
	b.mu.Lock()
	defer b.mu.Unlock()
	return c != nil && b.puller != nil && !b.closed && b.puller.adopt(s, c)
}

// follow reads a sidecar's gauge until either side ends the stream.
func (b *Board) follow(s *stream) {
	var in frames
	var last time.Time
	for {
		v, err := in.next(s.conn)
		if err != nil {
			b.leave(s, err)
			return
		}
		b.mu.Lock()
		now := b.env.Now() // under the lock: the lists are in its order
		b.put(s, v, now)
		b.mu.Unlock()
		if early := pace - now.Sub(last); early > 0 {
			time.Sleep(min(early, pace))
			now = now.Add(early)
		}
		last = now
	}
}

func (b *Board) leave(s *stream, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.part(s, err)
}

// part ends a stream for good. b.mu is held.
func (b *Board) part(s *stream, err error) {
	b.zero(s)
	delete(b.streams, s)
	if s.pulled != nil {
		b.puller.drop(s)
		_ = s.conn.Close() // the server's account of it; the socket was closed before
	} else {
		go func() { _ = s.conn.Close() }() // TLS may take its time for a farewell
	}
	b.followers.Done()
	var bad frameError
	if errors.As(err, &bad) {
		b.stats.Broken++
		b.env.Logger.Debug("a gauge stream was ended", "peer", s.conn.RemoteAddr(), "error", err)
	}
}

// end has a stream part, at once or when its reader notices. It never blocks. b.mu is
// held.
func (b *Board) end(s *stream) {
	if s.pulled != nil {
		b.part(s, nil)
		return
	}
	_ = s.conn.SetReadDeadline(time.Unix(1, 0))
}

// put takes a gauge. b.mu is held.
func (b *Board) put(s *stream, v int64, now time.Time) {
	b.zero(s)
	s.value, s.at = v, now
	if v > 0 {
		b.total += v
		b.counted.add(s)
	}
	b.newest = now
	b.stats.Frames++
}

// zero takes s out of the sum and of its list. b.mu is held.
func (b *Board) zero(s *stream) {
	if s.in == &b.counted {
		b.total -= s.value
	}
	s.leave()
	s.value = 0
}

// expire leaves out who was silent for too long. Those at 0 owe nothing: when their
// host is gone, TCP's keep-alive tells. b.mu is held.
func (b *Board) expire(now time.Time) {
	for s := b.counted.first(); s != nil && now.Sub(s.at) >= Expiry; s = b.counted.first() {
		b.zero(s)
		b.overdue.add(s)
		b.stats.Expired++
	}
	for s := b.overdue.root.next; s != &b.overdue.root && now.Sub(s.at) >= lost; {
		next := s.next
		b.end(s) // which takes it off the list, now or soon
		s = next
	}
}
