package h1

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
)

// What net/http makes of the same bytes is the oracle of the fuzz targets:
// whatever the codec accepts, net/http must accept and read the same. The
// reverse need not hold; the codec is stricter.

// oracleBuf is the oracle's buffer: a trailer section must fit into it.
const oracleBuf = 64 << 10

// unlikeRequest says what differs between the codec's reading m (err: it came to no
// end) of a request and net/http's, "" for nothing.
func unlikeRequest(in []byte, m *message, err error) string {
	br := bufio.NewReaderSize(bytes.NewReader(in), oracleBuf)
	q, qerr := http.ReadRequest(br)
	if qerr != nil {
		if trailerNamesFraming(m, qerr) {
			return ""
		}
		return fmt.Sprint("net/http refuses the head: ", qerr)
	}
	h := &m.head
	// An absolute target is taken apart by us; net/http keeps it.
	target, host := string(h.Target), q.Host
	if uri := q.RequestURI; uri != target {
		u := *q.URL
		if u.Scheme == "" || u.Host != string(h.Host) {
			return fmt.Sprintf("target %q, not %q", target, uri)
		}
		_, after, _ := strings.Cut(uri, "://")
		after = strings.TrimPrefix(after, string(h.Host))
		switch {
		case after == "" && q.Method == "OPTIONS":
			after = "*"
		case after == "" || after[0] == '?':
			after = "/" + after
		}
		if after != target {
			return fmt.Sprintf("target %q of %q", target, uri)
		}
	}
	if string(h.Method) != q.Method || string(h.Host) != host || h.Minor != min(1, q.ProtoMinor) || q.ProtoMajor != 1 {
		return fmt.Sprintf("%q, not %s %s %d.%d", showRequest(h), q.Method, host, q.ProtoMajor, q.ProtoMinor)
	}
	if h.KeepAlive == q.Close {
		return fmt.Sprint("keep-alive is ", h.KeepAlive)
	}
	if s := unlikeFraming(h, q.ContentLength, q.TransferEncoding, max(0, h.Length)); s != "" {
		return s
	}
	if s := unlikeHeaders(h, q.Header, q.Trailer, false); s != "" {
		return s
	}
	return unlikeBody(m, err, q.Body, br, func() http.Header { return q.Trailer })
}

// unlikeResponse is unlikeRequest for a response.
func unlikeResponse(in []byte, head bool, m *message, err error) string {
	br := bufio.NewReaderSize(bytes.NewReader(in), oracleBuf)
	method := "GET"
	if head {
		method = "HEAD"
	}
	p, perr := http.ReadResponse(br, &http.Request{Method: method})
	if perr != nil {
		if trailerNamesFraming(m, perr) {
			return ""
		}
		return fmt.Sprint("net/http refuses the head: ", perr)
	}
	h := &m.head
	if h.Status != p.StatusCode || h.Minor != min(1, p.ProtoMinor) || p.ProtoMajor != 1 {
		return fmt.Sprintf("%q, not %d %d.%d", showResponse(h), p.StatusCode, p.ProtoMajor, p.ProtoMinor)
	}
	// net/http trims the phrase, as it does every line.
	if got := strings.TrimSpace(fmt.Sprintf("%03d %s", h.Status, h.Reason)); got != strings.TrimSpace(p.Status) {
		return fmt.Sprintf("status %q, not %q", got, p.Status)
	}
	if h.KeepAlive == p.Close {
		return fmt.Sprint("keep-alive is ", h.KeepAlive)
	}
	// Where there can be no body net/http leaves the figure at 0 or what the
	// field says; only a body's own length matters.
	if h.Framing == Length || h.Framing == Chunked || h.Framing == UntilEOF {
		if s := unlikeFraming(h, p.ContentLength, p.TransferEncoding, -1); s != "" {
			return s
		}
	}
	if s := unlikeHeaders(h, p.Header, p.Trailer, true); s != "" {
		return s
	}
	return unlikeBody(m, err, p.Body, br, func() http.Header { return p.Trailer })
}

// trailerNamesFraming is an exception: net/http refuses a chunked message
// whose Trailer field announces Content-Length, Transfer-Encoding or Trailer.
// The field is a mere announcement (RFC 9110 section 6.6.2), it changes nothing
// of how the message is read, and fields of those names are dropped from the
// trailer section itself (see appendTrailers).
func trailerNamesFraming(m *message, err error) bool {
	for i := range m.head.Headers {
		if m.head.Headers[i].id == fTransferEncoding {
			return strings.Contains(err.Error(), "bad trailer key")
		}
	}
	return false
}

// blankBeforeExtension is the other exception: blanks before the ";" of a chunk
// extension, which RFC 9112 section 7.1.1 obliges a recipient to take (BWS) and
// net/http refuses. Extensions are dropped, so nobody behind us sees them.
func blankBeforeExtension(raw []byte, err error) bool {
	return strings.Contains(err.Error(), "invalid byte in chunk length") &&
		(bytes.Contains(raw, []byte(" ;")) || bytes.Contains(raw, []byte("\t;")))
}

func unlikeFraming(h *Head, length int64, te []string, none int64) string {
	want := none
	switch h.Framing {
	case Length:
		want = h.Length
	case Chunked:
		want = -1
	}
	if (h.Framing == Chunked) != slices.Equal(te, []string{"chunked"}) || want != length {
		return fmt.Sprintf("framing %d length %d, not %q %d", h.Framing, h.Length, te, length)
	}
	return ""
}

// unlikeHeaders compares the fields by name, and in order within a name. What
// net/http takes out of the set or puts into it is left out.
func unlikeHeaders(h *Head, theirs, announced http.Header, response bool) string {
	ours := http.Header{}
	for i := range h.Headers {
		ours.Add(string(h.Headers[i].Name), string(h.Headers[i].Value))
	}
	out := []string{"Transfer-Encoding"}
	if !response {
		out = append(out, "Host")
	}
	if h.Framing == Chunked {
		out = append(out, "Trailer")
		// Announced and not yet come: a name without values.
		for k := range announced {
			if announced[k] == nil && !namesTrailer(ours, k) {
				return fmt.Sprint("a trailer that was not announced: ", k)
			}
		}
	}
	if response {
		out = append(out, "Connection") // gone when it says close
		out = append(out, "Trailer")    // of a body that HEAD or 304 leave out
	}
	if p := theirs["Pragma"]; len(p) > 0 && p[0] == "no-cache" && ours["Cache-Control"] == nil {
		out = append(out, "Cache-Control") // invented for HTTP/1.0's sake
	}
	for _, k := range out {
		delete(ours, k)
		delete(theirs, k)
	}
	for k, v := range ours {
		if !slices.Equal(v, theirs[k]) {
			return fmt.Sprintf("%s %q, not %q", k, v, theirs[k])
		}
	}
	for k := range theirs {
		if ours[k] == nil {
			return fmt.Sprint("no ", k)
		}
	}
	return ""
}

func namesTrailer(h http.Header, name string) bool {
	found := false
	for _, v := range h["Trailer"] {
		eachElement([]byte(v), func(e []byte) bool {
			found = found || strings.EqualFold(string(e), name)
			return true
		})
	}
	return found
}

// unlikeBody compares the bodies and where they end.
func unlikeBody(m *message, err error, body io.Reader, br *bufio.Reader, trailer func() http.Header) string {
	theirs, berr := io.ReadAll(body)
	switch {
	case err == errShort && berr == nil:
		return "net/http sees a complete body"
	case err == errShort, err != nil:
		return "" // the codec refuses it, whatever net/http thinks
	case berr != nil && blankBeforeExtension(m.raw, berr):
		return ""
	case berr != nil:
		return fmt.Sprint("net/http refuses the body: ", berr)
	case !bytes.Equal(theirs, m.body):
		return fmt.Sprintf("body %q, not %q", m.body, theirs)
	}
	if rest, _ := io.ReadAll(br); !bytes.Equal(rest, m.rest) {
		return fmt.Sprintf("%q is left, not %q", m.rest, rest)
	}
	ours, n := http.Header{}, 0
	for b := m.trailers; len(b) > 0; n++ {
		l, rest := line(b)
		name, value := splitField(l)
		ours.Add(string(name), string(value))
		b = rest
	}
	for k, v := range trailer() {
		if v != nil && !slices.Equal(v, ours[k]) {
			return fmt.Sprintf("trailer %s %q, not %q", k, ours[k], v)
		}
		delete(ours, k)
	}
	if len(ours) > 0 {
		return fmt.Sprint("trailers that net/http does not see: ", ours)
	}
	return ""
}
