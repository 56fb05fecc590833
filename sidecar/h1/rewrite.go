package h1

import (
	"bytes"
	"strconv"
)

// via is what this proxy adds to Via (RFC 9110 section 7.6.3).
const viaName = "outrigger"

// appendRequest appends the head to send to the backend. The caller has made
// up its mind about upgrade and expect; clientIP goes to X-Forwarded-For.
func (h *Head) appendRequest(dst []byte, clientIP string, upgrade, expect bool) []byte {
	dst = append(append(dst, h.Method...), ' ')
	dst = append(append(dst, h.Target...), " HTTP/1.1\r\nHost: "...)
	dst = append(append(dst, h.Host...), '\r', '\n')
	dst = h.appendPassed(dst)
	dst = h.appendList(dst, fForwardedFor, "X-Forwarded-For: ", clientIP)
	dst = h.appendVia(dst)
	if expect {
		dst = append(dst, "Expect: 100-continue\r\n"...)
	}
	if upgrade {
		dst = h.appendUpgrade(dst)
	}
	switch {
	case h.Framing == Chunked:
		dst = append(dst, "Transfer-Encoding: chunked\r\n"...)
	case h.Length >= 0:
		dst = appendLength(dst, h.Length)
	}
	return append(dst, '\r', '\n')
}

// appendResponse appends the head to send to the client. framing says how its
// body will end there; connection is "", "close" or "keep-alive".
func (h *Head) appendResponse(dst []byte, framing Framing, connection string, upgrade bool) []byte {
	dst = append(dst, "HTTP/1.1 "...)
	dst = strconv.AppendInt(dst, int64(h.Status), 10)
	dst = append(append(dst, ' '), h.Reason...)
	dst = append(dst, '\r', '\n')
	for i := range h.Headers {
		// What a backend says of its own Host or Expect is just a field to us.
		if f := &h.Headers[i]; !f.drop && (f.id == fHost || f.id == fExpect) {
			dst = appendField(dst, f)
		}
	}
	dst = h.appendPassed(dst)
	if h.Status >= 200 {
		dst = h.appendVia(dst)
	}
	switch {
	case upgrade:
		dst = h.appendUpgrade(dst)
	case framing == Chunked:
		dst = append(dst, "Transfer-Encoding: chunked\r\n"...)
	case h.Length >= 0 && h.Status >= 200 && h.Status != 204 && framing != UntilEOF:
		dst = appendLength(dst, h.Length) // HEAD and 304 may announce one too
	}
	if connection != "" {
		dst = append(append(dst, "Connection: "...), connection...)
		dst = append(dst, '\r', '\n')
	}
	return append(dst, '\r', '\n')
}

// appendPassed appends the fields that go through as they are: all but the
// hop-by-hop ones and those that the engine writes itself.
func (h *Head) appendPassed(dst []byte) []byte {
	for i := range h.Headers {
		f := &h.Headers[i]
		if !f.drop && (f.id == other || f.id == fAccept || f.id == fTrailer) {
			dst = appendField(dst, f)
		}
	}
	return dst
}

func appendField(dst []byte, f *Header) []byte {
	dst = append(append(dst, f.Name...), ':', ' ')
	return append(append(dst, f.Value...), '\r', '\n')
}

// appendList appends a list field: the values that came, then ours.
func (h *Head) appendList(dst []byte, id field, prefix, ours string) []byte {
	dst = append(dst, prefix...)
	for i := range h.Headers {
		if f := &h.Headers[i]; f.id == id && !f.drop && len(f.Value) > 0 {
			dst = append(append(dst, f.Value...), ", "...)
		}
	}
	return append(append(dst, ours...), '\r', '\n')
}

func (h *Head) appendVia(dst []byte) []byte {
	if h.Minor == 0 {
		return h.appendList(dst, fVia, "Via: ", "1.0 "+viaName)
	}
	return h.appendList(dst, fVia, "Via: ", "1.1 "+viaName)
}

func (h *Head) appendUpgrade(dst []byte) []byte {
	dst = append(append(dst, "Connection: Upgrade\r\nUpgrade: "...), h.Upgrade...)
	return append(dst, '\r', '\n')
}

func appendLength(dst []byte, n int64) []byte {
	dst = append(dst, "Content-Length: "...)
	return append(strconv.AppendInt(dst, n, 10), '\r', '\n')
}

// wants reports whether the request's Accept fields name the media type.
func (h *Head) wants(mediaType string) bool {
	for i := range h.Headers {
		if f := &h.Headers[i]; f.id == fAccept && bytes.Contains(f.Value, []byte(mediaType)) {
			return true
		}
	}
	return false
}

// idempotent reports whether the method may be sent twice (RFC 9110 section
// 9.2.2).
func (h *Head) idempotent() bool {
	switch string(h.Method) {
	case "GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE":
		return true
	}
	return false
}

// tunnels reports whether the request asks for an upgrade that we pass on:
// without a body, and not to h2c, which would hide requests from us.
func (h *Head) tunnels() bool {
	return h.Upgrade != nil && h.Framing == NoBody && h.Length <= 0 &&
		!bytes.Contains(bytes.ToLower(h.Upgrade), []byte("h2c"))
}
