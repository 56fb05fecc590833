package register

import "time"

// idle is the in-flight count below which nothing is. An estimate may have
// fractions.
const idle = 0.5

// drainClock tells when an instance that gets no new requests has finished those
// it has.
type drainClock struct {
	Drain
	busy  time.Time // the last time something was in flight, or the start
	quiet time.Time // since when no reading had anything; zero: the last one had, or none was known
}

// step takes one reading and returns whether the instance is drained, and by what.
// known is false where there is no count, which proves nothing either way: it does
// not begin the quiet time, nor end it.
func (d *drainClock) step(now time.Time, inFlight float64, known bool) (done bool, by string) {
	switch {
	case known && !(inFlight < idle): // also NaN
		d.busy, d.quiet = now, time.Time{}
	case known && d.quiet.IsZero():
		d.quiet = now
	}
	switch {
	case known && !d.quiet.IsZero() && now.Sub(d.quiet) >= d.Quiet:
		return true, "nothing was in flight for " + d.Quiet.String()
	case !known && now.Sub(d.busy) >= d.Blind:
		return true, "what is in flight is not known, waited " + d.Blind.String()
	}
	return false, ""
}
