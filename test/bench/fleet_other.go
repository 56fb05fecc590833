//go:build !linux

package main

import (
	"context"
	"io"
)

func runBurner([]string, io.Writer) int                     { return 1 }
func runNeighbour([]string, io.Writer) int                  { return 1 }
func (b *bench) balance(context.Context) ([]*result, error) { return nil, errLinux }
