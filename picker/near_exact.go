package picker

import "time"

// exact returns p with those of the optional interfaces that its parts have:
// the balancer asks for them by type. Of the combinations, those that policies
// have are spelled out; any other gets them all, with answers that change
// nothing in the place of what its parts lack.
func (p *nearPicker) exact() Picker {
	of := p.parts[0].Picker
	_, vetoes := of.(Vetoer)
	_, ages := of.(Refresher)
	_, learns := of.(Observer)
	_, foretells := of.(Forecaster)
	switch (exactly{vetoes, ages, learns, foretells}) {
	case exactly{}:
		return p
	case exactly{learns: true}:
		return struct {
			*nearPicker
			nearObserver
		}{p, nearObserver{p}}
	case exactly{ages: true, learns: true}:
		return struct {
			*nearPicker
			nearRefresher
			nearObserver
		}{p, nearRefresher{p}, nearObserver{p}}
	}
	return struct {
		*nearPicker
		nearVetoer
		nearRefresher
		nearObserver
		nearForecaster
	}{p, nearVetoer{p}, nearRefresher{p}, nearObserver{p}, nearForecaster{p}}
}

type exactly struct{ vetoes, ages, learns, foretells bool }

type nearVetoer struct{ p *nearPicker }

// Vetoes implements Vetoer.
func (v nearVetoer) Vetoes(e *Endpoint, now time.Duration) bool {
	of, ok := v.p.of(e).(Vetoer)
	return ok && of.Vetoes(e, now)
}

type nearRefresher struct{ p *nearPicker }

// Due implements Refresher.
func (f nearRefresher) Due(now time.Duration) bool {
	for i := range f.p.parts {
		if of, ok := f.p.parts[i].Picker.(Refresher); ok && of.Due(now) {
			return true
		}
	}
	return false
}

// Refresh implements Refresher.
func (f nearRefresher) Refresh(now time.Duration) {
	for i := range f.p.parts {
		if of, ok := f.p.parts[i].Picker.(Refresher); ok {
			of.Refresh(now)
		}
	}
}

type nearObserver struct{ p *nearPicker }

// Sent implements Observer.
func (o nearObserver) Sent(e *Endpoint, now time.Duration) float32 {
	if of, ok := o.p.of(e).(Observer); ok {
		return of.Sent(e, now)
	}
	return 0
}

// Done implements Observer.
func (o nearObserver) Done(e *Endpoint, now time.Duration, sent float32, r Result) {
	if of, ok := o.p.of(e).(Observer); ok {
		of.Done(e, now, sent, r)
	}
}

// Reported implements Observer.
func (o nearObserver) Reported(e *Endpoint, now time.Duration) {
	if of, ok := o.p.of(e).(Observer); ok {
		of.Reported(e, now)
	}
}

type nearForecaster struct{ p *nearPicker }

// Wait implements Forecaster.
func (f nearForecaster) Wait(e *Endpoint, now time.Duration) time.Duration {
	if of, ok := f.p.of(e).(Forecaster); ok {
		return of.Wait(e, now)
	}
	return 0
}
