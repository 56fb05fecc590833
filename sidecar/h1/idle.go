package h1

import (
	"errors"
	"os"
	"time"
)

// parkAfter is how long a connection waits for its next request with a
// goroutine of its own, which costs the least when the request comes soon.
// After that it is parked: most connections of most clients rest most of the
// time, and a stack for each is most of what they cost.
const parkAfter = 500 * time.Millisecond

// tick is called by the reaper.
func (c *conn) tick(now time.Duration) {
	switch at := time.Duration(c.idleAt.Load()); {
	case at == 0:
		c.s.e.watch.hangUp(c)
	case canPark && now-at >= parkAfter && !c.parked.Load():
		c.nudge()
	}
}

// nudge wakes the goroutine if it waits for a request.
func (c *conn) nudge() {
	c.nudged.Store(true)
	_ = c.nc.SetReadDeadline(longAgo)
}

// errNudged is the error of a read that was woken by nudge.
var errNudged = errors.New("woken")

// lifted reports whether the error of a read was nothing but a nudge, and makes
// the connection readable again.
func (c *conn) lifted(err error) bool {
	if !errors.Is(err, os.ErrDeadlineExceeded) || !c.nudged.Swap(false) {
		return false
	}
	if c.nc.SetReadDeadline(time.Time{}) != nil {
		return false
	}
	if c.alarm.struck() || c.work != nil && c.upload.stopping.Load() {
		_ = c.nc.SetReadDeadline(longAgo) // lifting the nudge must not lift theirs
		return false
	}
	return true
}

// fillIn reads from the client.
func (c *conn) fillIn() error {
	for {
		k, err := c.sock.fill(&c.in)
		if k > 0 {
			return nil
		}
		if !c.lifted(err) {
			return err
		}
		if c.idleAt.Load() != 0 {
			return errNudged
		}
	}
}

// rouse decides what a nudged connection does that waits for a request.
func (c *conn) rouse() headState {
	idle := c.s.e.now() - time.Duration(c.idleAt.Load())
	if c.s.draining.Load() {
		if idle >= idleGrace && newPeeker(c.nc).quiet() { // a request that has come is still served
			return headNone
		}
		return headMore
	}
	if idle >= parkAfter && c.s.e.watch.park(c) {
		return headParked
	}
	return headMore
}

// claim makes the caller the owner of a parked connection.
func (c *conn) claim() bool { return c.parked.CompareAndSwap(true, false) }

// wake is called by the watcher when a parked connection can be read.
func (c *conn) wake() {
	if c.claim() {
		c.s.e.crew.run(c)
	}
}

// expireParked ends the connection if it is parked. Called by the reaper, whose
// lock end needs.
func (c *conn) expireParked() bool {
	if !c.claim() {
		return false
	}
	go c.end()
	return true
}

// closeIdle ends a connection that has waited for a request for idleGrace.
func (c *conn) closeIdle(now time.Duration) {
	if at := time.Duration(c.idleAt.Load()); at == 0 || now-at < idleGrace {
		return
	}
	if c.claim() {
		c.s.e.crew.run(c) // which will find out, and not lose a request that has come
		return
	}
	c.nudge()
}

// cut ends the connection at once, tunnels too.
func (c *conn) cut() {
	c.hangUp()
	if !c.expireParked() {
		_ = c.nc.Close()
	}
}
