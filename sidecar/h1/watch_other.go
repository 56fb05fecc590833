//go:build !linux

package h1

import "time"

const canPark = false

// watcher watches nothing on this system: that a client has hung up is noticed
// when it is written to, and idle connections keep their goroutines.
type watcher struct{}

// parked is never made on this system.
type parked struct {
	s      *Server
	idleAt time.Duration
}

func newWatcher() (*watcher, error) { return &watcher{}, nil }

func (*watcher) hangUp(*conn)                   {}
func (*watcher) park(*conn) bool                { return false }
func (*watcher) remove(*conn)                   {}
func (*watcher) closeParked(func(*parked) bool) {}
func (*watcher) sweepParked(time.Duration)      {}
func (*watcher) resting() int                   { return 0 }

func (p *parked) readable() bool { return false }
