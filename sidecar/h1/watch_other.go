//go:build !linux

package h1

// watcher watches nothing on this system: that a client has hung up is noticed
// when it is written to, and idle connections keep their goroutines.
type watcher struct{}

const canPark = false

type watched struct{}

func newWatcher() (*watcher, error) { return &watcher{}, nil }

func (*watcher) hangUp(*conn)    {}
func (*watcher) park(*conn) bool { return false }
func (*watcher) remove(*conn)    {}
