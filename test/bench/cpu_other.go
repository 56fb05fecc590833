//go:build !linux

package main

import (
	"errors"
	"time"
)

// The program says that it needs Linux before any of this is called; it is
// here so that the tests of the pure parts run elsewhere.

var errLinux = errors.New("needs Linux")

type memory struct{ rss, pss, peak float64 }

func cpuTime(int) (time.Duration, error)    { return 0, errLinux }
func coreBusy(int) (time.Duration, error)   { return 0, errLinux }
func memoryOf(int) (memory, error)          { return memory{}, errLinux }
func resetPeak(int) error                   { return errLinux }
func onlyChild(int) (int, error)            { return 0, errLinux }
func pin(int, []int) error                  { return errLinux }
func raiseFileLimit(uint64) (uint64, error) { return 0, errLinux }
func kernelRelease() string                 { return "unknown" }
func generate(plan) (outcome, error)        { return outcome{}, errLinux }

type sockets struct {
	clients  []int
	backends int
}

func socketsOf(int, string, []int) (sockets, error) { return sockets{}, errLinux }
