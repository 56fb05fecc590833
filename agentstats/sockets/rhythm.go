package sockets

// rhythm learns how many segments a response takes where every request takes one:
// then sent - perResponse*received is one constant while idle, and smaller by
// perResponse while busy. Two clear looks fix the numbers, two more must agree before
// they are believed, and one that does not discards them.
type rhythm struct {
	in, out uint32 // the counters at the first clear look
	busy    bool   // its verdict
	per     uint32 // segments per response, 0 unknown
	agreed  uint8
	held    bool // a first look is held
}

const rhythmBelief = 2

// learn takes a look whose verdict is clear.
func (h *rhythm) learn(r *record, busy bool) {
	in, out := r.dataIn-h.in, r.dataOut-h.out
	if h.held && in == 0 && out == 0 && busy == h.busy {
		return
	}
	if h.per > 0 {
		if v, ok := h.predict(r); ok && (v == isBusy) == busy {
			h.agreed = min(h.agreed+1, rhythmBelief)
			h.set(r, busy)
			return
		}
	}
	per := uint32(0)
	if h.held {
		// Responses between the looks: one per request, but for those under way.
		n := in
		if h.busy {
			n++
		}
		if busy {
			n--
		}
		if n > 0 && n < 1<<31 && out%n == 0 {
			per = out / n
		}
	}
	*h = rhythm{per: per}
	h.set(r, busy)
}

func (h *rhythm) set(r *record, busy bool) {
	h.in, h.out, h.busy, h.held = r.dataIn, r.dataOut, busy, true
}

func (h *rhythm) verdict(r *record) (verdict, bool) {
	if h.agreed < rhythmBelief {
		return verdict{}, false
	}
	return h.predict(r)
}

// since counts the requests since the first clear look, with the one that was under way
// then, and the segments sent. Of a rhythm that has had no look it is all there ever were.
func (h *rhythm) since(r *record) (in, out uint32) {
	in, out = r.dataIn-h.in, r.dataOut-h.out
	if h.busy {
		in++
	}
	return in, out
}

func (h *rhythm) predict(r *record) (verdict, bool) {
	in, out := h.since(r)
	switch out {
	case h.per * in:
		return isIdle, true
	case h.per * (in - 1):
		return isBusy, in > 0
	}
	return verdict{}, false
}
