//go:build !linux

package agentstats

func netSpace(string, int) string { return "" }
