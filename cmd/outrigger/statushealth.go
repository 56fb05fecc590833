package main

import (
	"cmp"
	"fmt"
	"strings"

	"outrigger/sidecar/admin"
)

// discovery writes what is known of a service's source, and of its fallbacks.
func (p *statusPage) discovery(d *admin.DiscoveryDoc) {
	p.line("  discovery  %s", statusDiscovery(d))
	for i := range d.Fallbacks {
		f := &d.Fallbacks[i]
		p.line("  fallback   %s: %s", f.Name, statusDiscovery(&f.DiscoveryDoc))
	}
}

// statusDiscovery begins with the one word that says what the set is worth.
func statusDiscovery(d *admin.DiscoveryDoc) string {
	text := d.State
	if text != "" && d.StateForSeconds != nil {
		text += " for " + statusAge(*d.StateForSeconds)
	}
	if text != "" {
		text += ": "
	}
	text += statusSet(d)
	if d.Unusable > 0 {
		text += fmt.Sprintf(", %d registrations unusable", d.Unusable)
	}
	if d.Holding != "" && d.HoldingForSeconds != nil {
		text += fmt.Sprintf("; HOLDING the set for %s: %s", statusAge(*d.HoldingForSeconds), d.Holding)
	}
	if d.FailingForSeconds != nil {
		text += fmt.Sprintf("; FAILING for %s: %s", statusAge(*d.FailingForSeconds), d.LastError)
	}
	if s := d.Snapshot; s != nil && s.ReadErrorsTotal+s.WriteErrorsTotal > 0 {
		text += fmt.Sprintf("; snapshots on disk: %d not written, %d of no use", s.WriteErrorsTotal, s.ReadErrorsTotal)
	}
	return text
}

// statusSet says what is in use, where it is from and how old it is.
func statusSet(d *admin.DiscoveryDoc) string {
	if !d.Seen {
		return "no answer yet"
	}
	text := fmt.Sprintf("%d instances", d.Instances)
	if d.Unlisted > 0 {
		text += fmt.Sprintf(", %d of them no longer listed", d.Unlisted)
	}
	switch {
	case d.SnapshotAgeSeconds != nil:
		return text + fmt.Sprintf(", from disk, known %s ago", statusAge(*d.SnapshotAgeSeconds))
	case d.Source == "" || d.Source == "consul":
		text += fmt.Sprintf(", index %d", d.Index)
	default:
		text += ", from " + strings.ReplaceAll(d.Source, "_", " ")
	}
	if d.Datacenter != "" {
		text += " in " + d.Datacenter
	}
	if d.AgeSeconds != nil && d.Source != "static" {
		text += fmt.Sprintf(", answered %s ago", statusAge(*d.AgeSeconds))
	}
	return text
}

// statusTier says which source's endpoints are needed.
func statusTier(s *admin.ServiceDoc) string {
	text := s.Tier
	if s.TierForSeconds != nil {
		text += " for " + statusAge(*s.TierForSeconds)
	}
	return text + fmt.Sprintf(", failovers: %d", s.FailoversTotal)
}

// statusConsul says how the connections to Consul are used.
func statusConsul(c *admin.ConsulDoc) string {
	text := fmt.Sprintf("%d reads open on HTTP/2", c.ReadsInUse)
	if c.ReadsLimit != nil {
		text = fmt.Sprintf("%d of %d connections in use", c.ReadsInUse, *c.ReadsLimit)
	}
	if c.ReadsWaiting > 0 {
		text += fmt.Sprintf(", %d reads wait", c.ReadsWaiting)
	}
	if c.LongestWaitSeconds != nil {
		text += fmt.Sprintf(", each for up to %s", statusAge(*c.LongestWaitSeconds))
	}
	return text + "; turned away: " + statusCounts(c.BusyTotal)
}

// statusHealth is what others say of the endpoint: the registry, active checks, and
// how often it fell, if that makes a difference now.
func statusHealth(e *admin.EndpointDoc) string {
	text := e.Health
	if e.Unlisted {
		text += ", unlisted"
	}
	if c := e.Check; c != nil {
		text += ", check " + c.State
		if c.State == "down" && c.ForSeconds != nil {
			text += " " + statusAge(*c.ForSeconds)
		}
	}
	if e.Flaps != nil && *e.Flaps >= 2 { // below it nothing is made of them
		text += fmt.Sprintf(", fell %dx in all", e.FallsTotal)
	}
	return text
}

// statusState is whether the endpoint may be picked, and why not.
func statusState(e *admin.EndpointDoc) string {
	switch {
	case !e.Ready:
		return cmp.Or(e.Why, "not ready")
	case e.Despite != "":
		return "ready despite: " + e.Despite
	}
	return "ready"
}
