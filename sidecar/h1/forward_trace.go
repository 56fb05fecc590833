package h1

// Trace Context, level 1 (https://www.w3.org/TR/trace-context-1/).

// traced reports whether the request carries on a trace: exactly one field
// traceparent, and that valid (sections 3.2 and 4.3).
func (h *Head) traced() bool {
	if h.has&(1<<fTraceparent) == 0 {
		return false
	}
	n, ok := 0, false
	for i := range h.Headers {
		if x := &h.Headers[i]; x.id == fTraceparent && !x.drop {
			n++
			ok = traceparentOK(x.Value)
		}
	}
	return n == 1 && ok
}

// Where the parts of a traceparent are: version "-" trace-id "-" parent-id "-"
// flags, in lower-case hexadecimal.
const (
	traceID   = len("00-")
	parentID  = traceID + 32 + 1
	traceFlag = parentID + 16 + 1
	traceLen  = traceFlag + 2
)

// traceparentOK follows sections 3.2.2 and 4.3: of a version above 00 there may be more,
// behind a dash; 00 has this length, and ff is no version.
func traceparentOK(v []byte) bool {
	if len(v) < traceLen || v[2] != '-' || v[parentID-1] != '-' || v[traceFlag-1] != '-' {
		return false
	}
	version, id, parent, flags := v[:2], v[traceID:parentID-1], v[parentID:traceFlag-1], v[traceFlag:traceLen]
	if !lowerHex(version) || !lowerHex(id) || !lowerHex(parent) || !lowerHex(flags) || zeros(id) || zeros(parent) {
		return false
	}
	switch string(version) {
	case "ff":
		return false
	case "00":
		return len(v) == traceLen
	}
	return len(v) == traceLen || v[traceLen] == '-'
}

func lowerHex(b []byte) bool {
	for _, c := range b {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

func zeros(b []byte) bool {
	for _, c := range b {
		if c != '0' {
			return false
		}
	}
	return true
}

// appendTrace appends the traceparent of a trace that begins here.
func (f *forwarder) appendTrace(dst []byte) []byte {
	dst = f.appendID(append(dst, "traceparent: 00-"...), 16)
	dst = f.appendID(append(dst, '-'), 8)
	if f.rand(1<<16) < f.sampled {
		return append(dst, "-01\r\n"...)
	}
	return append(dst, "-00\r\n"...)
}

// appendID appends n random bytes, n even, in hexadecimal. All zeros are no
// identifier (sections 3.2.2.3 and 3.2.2.4).
func (f *forwarder) appendID(dst []byte, n int) []byte {
	const digits = "0123456789abcdef"
	start := len(dst)
	for range n / 2 {
		r := f.rand(1 << 16)
		dst = append(dst, digits[r>>12&15], digits[r>>8&15], digits[r>>4&15], digits[r&15])
	}
	if zeros(dst[start:]) {
		dst[len(dst)-1] = '1'
	}
	return dst
}
