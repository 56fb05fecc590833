//go:build !linux

package h1

import "testing"

// fullBacklog skips: how a full backlog behaves is the kernel's business.
func fullBacklog(t *testing.T) string {
	t.Helper()
	t.Skip("a backlog is filled up on Linux alone")
	return ""
}
