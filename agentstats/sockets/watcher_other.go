//go:build !linux

package sockets

import (
	"errors"
	"fmt"
	"runtime"
	"time"
)

// ErrNamespaceGone is never returned here.
var ErrNamespaceGone = errors.New("the backend's network namespace is gone")

// Watcher exists on Linux only.
type Watcher struct{}

// Open fails: the kernel's figures are Linux's sock_diag.
func Open(Config) (*Watcher, error) {
	return nil, fmt.Errorf("sockets: counting requests in flight from the kernel is not supported on %s", runtime.GOOS)
}

// Sample is never called: there is no open watcher.
func (*Watcher) Sample(time.Time) (Sample, error) { return Sample{}, errors.ErrUnsupported }

// Close does nothing.
func (*Watcher) Close() {}
