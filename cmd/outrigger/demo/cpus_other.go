//go:build !linux

package demo

// allowedCPUs is empty: processes cannot be pinned here.
func allowedCPUs() []int { return nil }
