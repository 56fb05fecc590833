// Package healthcheck asks endpoints whether they are well, as this sidecar sees them:
// by HTTP, by a TCP connection or by gRPC's health service.
//
// Unknown is not down. An endpoint that nobody has asked yet is Unknown, and its other
// sources of health decide alone; one success makes it Up, Config.Fall failures in a
// row make it Down, and Config.Rise successes in a row make it Up again. What this
// machine lacks (file descriptors, ports, its own TLS files) says nothing about an
// endpoint and changes no state.
//
// Each check has a connection of its own, so that a backend that no longer accepts is
// found out, and at most 64 of a Checker run at once. Endpoints that let their checks run
// into the timeout share half of these, so that they cannot hold up the checks of others.
package healthcheck
