package h1

import (
	"errors"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// upload streams a request body to the backend from a goroutine of its own, so
// that an answer that comes early is not missed while the backend has stopped
// reading. The connection's goroutine starts it, reads the answer meanwhile and
// joins it before it touches c.in again.
type upload struct {
	c       *conn
	pump    func() // bound once, so that starting it allocates nothing
	done    chan struct{}
	framing Framing
	left    int64
	chunks  chunkDecoder
	running bool
	u       *upstream
	out     buffer
	held    []byte // what to send in the place of the client's bytes
	taken   int64  // decoded bytes so far
	most    int64  // of them, 0: no limit
	credit  credit

	// lastPiece is set before the last write: whoever sees a whole answer then
	// waits for the pump to come back from it.
	lastPiece atomic.Bool
	reading   atomic.Bool // it is the client's turn
	stopping  atomic.Bool // stop has set the deadlines
	endedAt   atomic.Int64

	// Until the answer begins, the alarms of both connections are the pump's:
	// only it knows whose turn it is. From then on they are the relay's.
	mu      sync.Mutex
	waiting bool // for the answer; under mu

	// Results, to be read after stop.
	complete  bool  // the whole body went out
	clientErr error // the client's fault
}

func (p *upload) init() {
	p.done = make(chan struct{}, 1)
	p.pump = p.run
}

func (p *upload) reset(f Framing, length, most int64) {
	p.framing, p.left, p.most = f, length, most
	p.running, p.complete, p.clientErr, p.u, p.taken = false, f == NoBody, nil, nil, 0
	p.chunks.reset()
	p.lastPiece.Store(false)
	p.stopping.Store(false)
}

// start begins the upload. Not twice for a body that is streamed: what has been
// read from the client cannot be read again.
func (p *upload) start(u *upstream) {
	p.u, p.running, p.waiting = u, true, true
	go p.pump()
}

// startHeld begins to send a request that is in memory, head and all. It may be
// started again for another try.
func (p *upload) startHeld(u *upstream, b []byte) {
	p.held, p.complete = b, false
	p.start(u)
}

// answered tells that the answer has begun.
func (p *upload) answered() {
	if p.running {
		p.mu.Lock()
		p.waiting = false
		p.mu.Unlock()
	}
}

// turn arms the alarm of whoever has to move next and turns the other's off: 0
// is off. Once the answer has begun it does nothing.
func (p *upload) turn(client, backend time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.waiting {
		p.c.alarm.set(client)
		p.u.alarm.set(backend)
	}
}

// stop joins the upload, ending it if it is still going. If that streamed, the
// client's connection is of no further use then.
func (p *upload) stop() {
	if !p.running {
		return
	}
	p.running = false
	select {
	case <-p.done:
		return
	default:
	}
	p.stopping.Store(true)
	_ = p.c.nc.SetReadDeadline(longAgo)
	_ = p.u.nc.SetWriteDeadline(longAgo)
	<-p.done
	p.stopping.Store(false)
	if !p.c.alarm.struck() {
		_ = p.c.nc.SetReadDeadline(time.Time{})
		if p.c.alarm.struck() {
			_ = p.c.nc.SetReadDeadline(longAgo)
		}
	}
	if !p.c.alarm.struck() && p.clientErr != nil && os.IsTimeout(p.clientErr) {
		p.clientErr = nil // it was we who ended it
	}
}

// finished reports whether the upload is over, without waiting.
func (p *upload) finished() bool {
	if !p.running {
		return true
	}
	select {
	case <-p.done:
		p.running = false
		return true
	default:
		return false
	}
}

// lastPieceWait bounds the wait for a last write whose answer has come already.
const lastPieceWait = 100 * time.Millisecond

// ended reports whether the upload is over. An answer may overtake the news of
// the write that it answers; so it waits for that, though not for long.
func (p *upload) ended() bool {
	if p.finished() {
		return true
	}
	if !p.lastPiece.Load() {
		return false
	}
	t := time.NewTimer(lastPieceWait)
	defer t.Stop()
	select {
	case <-p.done:
		p.running = false
		return true
	case <-t.C:
		return false
	}
}

// run copies until the body ends. When the client breaks it off, the backend's
// connection is struck: it must not take a cut body for a whole one.
func (p *upload) run() {
	c, bufs, now := p.c, p.c.s.e.bufs, p.c.s.e.now
	idle := c.s.cfg.Timeouts.Idle
	bufs.attach(&p.out)
	defer func() {
		if v := recover(); v != nil {
			c.s.bug(v)
			p.complete = false
			p.fail(errBug)
		}
		bufs.release(&p.out)
		p.done <- struct{}{}
	}()
	for ; len(p.held) > 0; p.held = p.held[min(bufSize, len(p.held)):] {
		p.lastPiece.Store(len(p.held) <= bufSize)
		p.turn(0, c.rq.within(now(), idle))
		if _, err := p.u.sock.Write(p.held[:min(bufSize, len(p.held))]); err != nil {
			p.held = nil
			return // the answer, if any, tells more than this error
		}
		p.complete = len(p.held) <= bufSize
	}
	for !p.complete {
		if c.in.len() == 0 {
			at := now()
			p.turn(c.rq.within(at, p.credit.offer(at)), 0)
			p.reading.Store(true)
			err := c.fillIn()
			p.reading.Store(false)
			p.credit.earn(now(), c.in.len())
			if err != nil {
				p.fail(err)
				break
			}
		}
		if err := p.step(); err != nil {
			p.fail(err)
			break
		}
		if p.out.w == 0 {
			continue
		}
		p.lastPiece.Store(p.complete)
		p.turn(0, c.rq.within(now(), idle))
		if _, err := p.u.sock.Write(p.out.b[:p.out.w]); err != nil {
			p.complete = false // the answer, if any, tells more than this error
			break
		}
	}
	if p.complete {
		at := now()
		p.endedAt.Store(int64(at))
		p.turn(0, c.forHead(at))
	}
}

var errBug = errors.New("a bug in Outrigger")

func (p *upload) fail(err error) {
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	p.clientErr = err
	p.u.alarm.fire()
}

// step moves what is in c.in to p.out in the backend's framing.
func (p *upload) step() error {
	in, out := &p.c.in, &p.out
	out.w = 0
	if p.framing == Length {
		k := int(min(p.left, int64(in.len())))
		out.w = copy(out.b[:], in.unread()[:k])
		in.skip(k)
		p.left -= int64(k)
		p.complete = p.left == 0
		return nil
	}
	// Room for the size line, the CRLF and the last chunk around the data.
	b := in.unread()
	b = b[:min(len(b), bufSize-chunkRoom-maxTrailers)]
	n, used, err := p.chunks.decode(b)
	if err != nil {
		return err
	}
	if p.taken += int64(n); p.most > 0 && p.taken > p.most {
		return tooLarge()
	}
	dst := appendChunk(out.b[:0], b[:n])
	in.skip(used)
	if p.chunks.done() {
		p.complete = true
		dst = p.chunks.appendTrailers(append(dst, "0\r\n"...))
		dst = append(dst, '\r', '\n')
	}
	out.w = len(dst)
	return nil
}

// chunkRoom is what framing one chunk may add: a size line, a CRLF, the last
// chunk and the empty line.
const chunkRoom = 32

// appendChunk appends data as one chunk; nothing for no data, which would end
// the message.
func appendChunk(dst, data []byte) []byte {
	if len(data) == 0 {
		return dst
	}
	dst = append(appendHex(dst, len(data)), '\r', '\n')
	return append(append(dst, data...), '\r', '\n')
}
