//go:build !linux

package h1

import "net"

// watcher does nothing here: without epoll, a client that has gone is noticed
// when the answer is written to it, or by a time-out.
type watcher struct{}

func newWatcher() (*watcher, error) { return &watcher{}, nil }

func (*watcher) add(net.Conn, func()) (remove func()) { return func() {} }
