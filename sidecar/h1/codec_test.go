package h1

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
)

// message is what the codec makes of the first message in a byte slice.
type message struct {
	head     Head
	body     []byte
	trailers []byte
	rest     []byte // what belongs to the next message
	raw      []byte // all that was read
}

// errShort says that the bytes end before the message does.
var errShort = errors.New("the message is incomplete")

func readRequest(in []byte, lim Limits) (*message, error) {
	return readMessage(in, func(h *Head, b []byte) error { return h.ParseRequest(b, lim) })
}

func readResponse(in []byte, head bool) (*message, error) {
	return readMessage(in, func(h *Head, b []byte) error { return h.ParseResponse(b, DefaultLimits(), head) })
}

// readMessage drives the codec as the engine does, without the I/O. in is left
// as it was.
func readMessage(in []byte, parse func(*Head, []byte) error) (*message, error) {
	b := append([]byte(nil), in...)
	n, err := FindHead(b, 0)
	if err != nil {
		return nil, err
	}
	if n == 0 {
		return nil, errShort
	}
	m := &message{raw: in}
	if err := parse(&m.head, b[:n]); err != nil {
		return nil, err
	}
	return m, m.readBody(b[n:])
}

func (m *message) readBody(b []byte) error {
	switch m.head.Framing {
	case NoBody:
		m.rest = b
	case UntilEOF:
		m.body = b
	case Length:
		if int64(len(b)) < m.head.Length {
			return errShort
		}
		m.body, m.rest = b[:m.head.Length], b[m.head.Length:]
	case Chunked:
		var d chunkDecoder
		n, used, err := d.decode(b)
		if err != nil {
			return err
		}
		if !d.done() {
			return errShort
		}
		m.body, m.rest, m.trailers = b[:n], b[used:], d.trailers
	}
	return nil
}

// lines makes a head of lines.
func lines(l ...string) string { return strings.Join(l, "\r\n") + "\r\n\r\n" }

// outcome is what the tables compare: the message in short, or how it was
// refused.
func outcome(m *message, err error, show func(*Head) string) string {
	var pe *ParseError
	switch {
	case errors.As(err, &pe):
		return fmt.Sprint(pe.Status)
	case err != nil:
		return err.Error()
	}
	s := show(&m.head)
	if m.head.Framing != NoBody {
		s += fmt.Sprintf(" %q", m.body)
	}
	if len(m.rest) > 0 {
		s += fmt.Sprintf(" +%d", len(m.rest))
	}
	return s
}

func showRequest(h *Head) string {
	s := fmt.Sprintf("%s %s 1.%d host=%s%s", h.Method, h.Target, h.Minor, h.Host, showFraming(h))
	if h.Expect {
		s += " expect"
	}
	return s
}

func showResponse(h *Head) string {
	return fmt.Sprintf("%d %q 1.%d%s", h.Status, h.Reason, h.Minor, showFraming(h))
}

func showFraming(h *Head) (s string) {
	switch h.Framing {
	case NoBody:
		s = " none"
	case Length:
		s = fmt.Sprintf(" length=%d", h.Length)
	case Chunked:
		s = " chunked"
	case UntilEOF:
		s = " eof"
	}
	if h.KeepAlive {
		s += " keep"
	}
	if h.Upgrade != nil {
		s += fmt.Sprintf(" upgrade=%s", h.Upgrade)
	}
	return s
}

func TestFindHeadInPieces(t *testing.T) {
	for _, in := range []string{
		lines("GET / HTTP/1.1", "Host: a"),
		"\r\n",
		lines("HTTP/1.1 200 OK") + "body\nwith a lone LF",
		"GET / HTTP/1.1\r\nHost: a\n\r\n",
		"\n",
		"GET / HTTP/1.1\n\n",
		"GET / HTTP/1.1\r\nHost: a\r\n\n",
	} {
		n, err := FindHead([]byte(in), 0)
		// As conn.readHead does: each time from two bytes before what was seen.
		seen, pn, perr := 0, 0, error(nil)
		for end := 0; end <= len(in) && pn == 0 && perr == nil; end++ {
			pn, perr = FindHead([]byte(in[:end]), max(0, seen-2))
			seen = end
		}
		if pn != n || (perr == nil) != (err == nil) {
			t.Errorf("%q: %d %v in one piece, %d %v byte by byte", in, n, err, pn, perr)
		}
	}
}

// A head is parsed again and again into the same Head: nothing of the one
// before may be left.
func TestHeadIsReset(t *testing.T) {
	var h Head
	full := lines("POST http://x/y HTTP/1.1", "Host: x", "TE: trailers", "Date: d", "Connection: close, upgrade, x", "Upgrade: u", "X: 1",
		"Content-Length: 3", "Expect: 100-continue")
	if err := h.ParseRequest([]byte(full), DefaultLimits()); err != nil {
		t.Fatal(err)
	}
	if err := h.ParseResponse([]byte(lines("HTTP/1.1 204 No")), DefaultLimits(), false); err != nil {
		t.Fatal(err)
	}
	if got := showResponse(&h); got != `204 "No" 1.1 none keep` || len(h.Headers) != 0 || h.Host != nil || h.Expect || h.Trailers || h.has != 0 || h.MaxForwards != -1 {
		t.Errorf("left over: %s %+v", got, h)
	}
}

func TestParseErrorSays(t *testing.T) {
	_, err := readRequest([]byte(lines("GET / HTTP/1.1")), DefaultLimits())
	if err == nil || err.Error() != "no Host" {
		t.Error(err)
	}
	if errors.Is(err, io.EOF) {
		t.Error("a parse error is not an end of input")
	}
}
