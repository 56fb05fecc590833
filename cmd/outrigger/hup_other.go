//go:build !unix

package main

import "context"

// onHangUp does nothing: there is no SIGHUP here.
func onHangUp(context.Context, func()) {}
