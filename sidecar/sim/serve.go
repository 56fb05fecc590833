package sim

import "time"

// retime puts the time at which a backend's next request will be done on the
// heap. To be called after advance whenever something has changed.
func (f *fleet) retime(m *machine) {
	if at, ok := m.next(); ok {
		f.heap.push(event{at: max(at, f.now), kind: evDone, a: m.index, b: m.version})
	}
}

// newJob sends a request to a backend.
func (f *fleet) newJob(r *request, backend int32) {
	var i int32
	if n := len(f.freeJobs); n > 0 {
		i = f.freeJobs[n-1]
		f.freeJobs = f.freeJobs[:n-1]
	} else {
		i = int32(len(f.jobs))
		f.jobs = append(f.jobs, job{})
	}
	f.jobs[i] = job{request: r.index, try: r.try, backend: backend, phase: phaseWire, work: r.work}
	f.machines[backend].coming++
	f.wire.push(event{at: f.now + f.cfg.Network.Delay, kind: evRequest, a: i})
}

// answer ends a job: the answer goes to the sidecar.
func (f *fleet) answer(i int32, how answer) {
	j := &f.jobs[i]
	m := &f.machines[j.backend]
	if how != answerRefused {
		m.agent.count(how)
	}
	f.wire.push(event{f.now + f.cfg.Network.Delay, evReply, j.request, j.try, int32(how)})
	f.drop(i)
}

// answer is how a backend with a fault of this kind ends a request.
func (k FaultKind) answer() answer {
	switch k {
	case Reset:
		return answerReset
	case Status:
		return answerStatus
	case Refuse:
		return answerRefused
	default:
		return answerShed
	}
}

// drop forgets a job without an answer.
func (f *fleet) drop(i int32) {
	f.jobs[i].phase = phaseFree
	f.freeJobs = append(f.freeJobs, i)
}

// reaches takes a request that has come to a backend.
func (f *fleet) reaches(i int32) {
	j := &f.jobs[i]
	m := &f.machines[j.backend]
	m.coming--
	if f.stats.measuring {
		m.requests++
	}
	if m.down {
		f.answer(i, answerRefused)
		return
	}
	if f.faulty(m) && (m.Fault.Share == 1 || f.faults.Float64() < m.Fault.Share) {
		f.answer(i, m.Fault.Kind.answer())
		return
	}
	m.advance(f.now)
	j.epoch, j.came = m.epoch, f.now
	if m.Limit > 0 && len(m.jobs)+m.waits >= m.Limit {
		if m.Backlog > 0 && m.backlog.n >= m.Backlog {
			m.dropped++
			f.drop(i)
			return
		}
		j.phase = phaseBacklog
		m.backlog.push(i)
	} else {
		f.begin(m, i)
	}
	j.met = int32(m.inFlight())
	m.most = max(m.most, m.inFlight())
	f.retime(m)
	f.killIfFull(m)
}

// begin has a worker take a job.
func (f *fleet) begin(m *machine, i int32) {
	j := &f.jobs[i]
	idle := m.Wait + time.Duration(j.work*m.IO*float64(time.Second))
	j.work *= 1 - m.IO
	if idle > 0 {
		j.phase = phaseWaits
		m.waits++
		f.heap.push(event{at: f.now + idle, kind: evComputes, a: i, b: m.epoch})
		return
	}
	j.phase = phaseComputes
	m.compute(i, j.work)
}

// computes takes a job that has waited.
func (f *fleet) computes(i int32) {
	j := &f.jobs[i]
	m := &f.machines[j.backend]
	if j.phase != phaseWaits || j.epoch != m.epoch {
		f.drop(i) // its backend was killed
		return
	}
	m.advance(f.now)
	m.waits--
	j.phase = phaseComputes
	m.compute(i, j.work)
	f.retime(m)
}

// finished takes the first job of a backend to be done, unless something has
// changed since that was foreseen.
func (f *fleet) finished(backend, version int32) {
	m := &f.machines[backend]
	if m.version != version {
		return
	}
	m.advance(f.now)
	i := m.ready()
	j := &f.jobs[i]
	m.served++
	m.leaked += m.Memory.Leak
	if f.prequal {
		m.seen.add(int(j.met), f.now-j.came)
	}
	f.answer(i, answerGood)
	if m.backlog.n > 0 {
		f.begin(m, m.backlog.pop())
	}
	f.retime(m)
	f.killIfFull(m)
}

// killIfFull ends a backend whose memory is at its limit: what it has in flight
// is reset, and for a while nobody listens.
func (f *fleet) killIfFull(m *machine) {
	if m.down || m.memory() < 1 {
		return
	}
	m.kills++
	m.down = true
	for _, x := range m.jobs {
		f.answer(x.job, answerReset)
	}
	for m.backlog.n > 0 {
		f.answer(m.backlog.pop(), answerReset)
	}
	// Those that wait without CPU are on the heap: they are answered now, and
	// their jobs freed when their events come.
	for i := range f.jobs {
		if j := &f.jobs[i]; j.phase == phaseWaits && j.backend == m.index && j.epoch == m.epoch {
			f.wire.push(event{f.now + f.cfg.Network.Delay, evReply, j.request, j.try, int32(answerReset)})
			j.epoch--
		}
	}
	m.jobs, m.waits = m.jobs[:0], 0
	m.epoch++
	m.leaked, m.served = 0, 0
	f.retime(m)
	f.heap.push(event{at: f.now + m.Memory.Restart, kind: evRestart, a: m.index})
}

// restart has a killed backend listen again.
func (f *fleet) restart(m *machine) {
	m.advance(f.now)
	m.down, m.warmFrom = false, f.now
	m.agent.restart(m.epoch)
	f.retime(m)
}
