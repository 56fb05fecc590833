// Package agentstats carries the truth about a backend from its host to the
// sidecars: the [Report] and its codec, the samplers that fill it from /proc and
// cgroups, the [Agent] that serves the newest one, and the [Poller] with which a
// sidecar fetches the reports of its endpoints.
//
// Reports are pulled, every endpoint on its own connection and at its own random
// phase, so that no two sidecars act on the same picture at the same moment; a
// broadcast turned the best picker into a bad one in simulation.
//
// Everything a sidecar receives is untrusted: sizes are bounded, figures are
// range-checked as a whole report, age counts from arrival, and a report never
// overrides a backend's health.
package agentstats
