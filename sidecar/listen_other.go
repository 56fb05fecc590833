//go:build !unix

package sidecar

import (
	"errors"
	"io/fs"
	"net"
)

const maxSocketPath = 107

func listenUnix(string, fs.FileMode) (net.Listener, error) {
	return nil, errors.New("this system has no Unix sockets that can be used")
}
