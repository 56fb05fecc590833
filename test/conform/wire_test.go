package conform

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
)

// The harness reads messages with a parser of its own, so that neither
// Outrigger's nor net/http's mistakes are shared by what judges them. It takes
// what a lenient recipient would and notes as faults what RFC 9112 forbids a
// sender: what a proxy passes on is held against these.

type field struct{ name, value string } // the name in lower case

// message is one request or answer as it came off the wire.
type message struct {
	start    string // the first line
	fields   []field
	body     string
	trailers []field
	method   string // of a request, or of the one that an answer is to
	status   int    // of an answer
	whole    bool   // it ended as its framing says
	untilEnd bool   // only the end of the connection ends it
	faults   []string
	conn     int // a request's: which connection to the backend, from 1
	first    bool
}

func (m *message) fault(format string, args ...any) {
	m.faults = append(m.faults, fmt.Sprintf(format, args...))
}

// get returns the values of the fields of that name.
func (m *message) get(name string) (values []string) {
	for _, f := range m.fields {
		if f.name == strings.ToLower(name) {
			values = append(values, f.value)
		}
	}
	return values
}

func (m *message) target() string {
	if p := strings.SplitN(m.start, " ", 3); len(p) > 1 {
		return p[1]
	}
	return ""
}

// lists reports whether a field of that name has the element, but for case.
func (m *message) lists(name, element string) bool {
	for _, v := range m.get(name) {
		for _, e := range strings.Split(v, ",") {
			if strings.EqualFold(strings.TrimSpace(e), element) {
				return true
			}
		}
	}
	return false
}

// wire reads messages off a connection and keeps the error that ended it.
type wire struct {
	br  *bufio.Reader
	r   io.Reader
	err error
}

func newWire(r io.Reader) *wire {
	w := &wire{r: r}
	w.br = bufio.NewReaderSize(w, 64<<10)
	return w
}

// Read implements io.Reader for br.
func (w *wire) Read(b []byte) (int, error) {
	if w.err != nil {
		return 0, w.err
	}
	n, err := w.r.Read(b)
	w.err = err
	return n, err
}

// head reads a head. nil and no error: the stream ended before it; the
// message with an error: it was cut within.
func (w *wire) head(request bool) (*message, error) {
	m := &message{}
	for n := 0; ; n++ {
		l, err := w.br.ReadString('\n')
		if err != nil {
			if n == 0 && l == "" {
				return nil, nil
			}
			m.start += l
			return m, fmt.Errorf("cut in its head after %q", m.start)
		}
		l, ok := strings.CutSuffix(l, "\r\n")
		if !ok {
			l = strings.TrimSuffix(l, "\n")
			m.fault("a line ends in a bare LF: %.40q", l)
		}
		switch {
		case n == 0 && l == "" && request:
			m.fault("an empty line before the request line")
			n--
		case n == 0:
			m.start = l
			m.startLine(request)
		case l == "":
			return m, nil
		default:
			m.fields = append(m.fields, m.field(l))
		}
	}
}

// startLine checks the first line and takes method or status out of it.
func (m *message) startLine(request bool) {
	if i := strings.IndexFunc(m.start, func(r rune) bool { return r < 0x20 && r != '\t' || r == 0x7f }); i >= 0 {
		m.fault("a control character in %.60q", m.start)
	}
	p := strings.SplitN(m.start, " ", 3)
	if request {
		if len(p) != 3 || p[2] != "HTTP/1.1" && p[2] != "HTTP/1.0" || p[0] == "" || p[1] == "" || strings.Contains(p[2], " ") {
			m.fault("the request line is %.60q", m.start)
		}
		m.method = p[0]
		return
	}
	if len(p) < 3 || p[0] != "HTTP/1.1" && p[0] != "HTTP/1.0" || len(p[1]) != 3 {
		m.fault("the status line is %.60q", m.start)
	}
	if len(p) > 1 {
		m.status, _ = strconv.Atoi(p[1])
	}
}

const tokenMarks = "!#$%&'*+-.^_`|~"

func isToken(s string) bool {
	for i := range len(s) {
		c := s[i]
		if !(c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || strings.IndexByte(tokenMarks, c) >= 0) {
			return false
		}
	}
	return s != ""
}

func (m *message) field(l string) field {
	name, value, ok := strings.Cut(l, ":")
	if !ok || !isToken(name) {
		m.fault("the field line is %.60q", l)
	}
	for i := range len(value) {
		if c := value[i]; c < 0x20 && c != '\t' || c == 0x7f {
			m.fault("a control character in the field %.60q", l)
			break
		}
	}
	return field{strings.ToLower(strings.TrimSpace(name)), strings.Trim(value, " \t")}
}

// rest reads the body, as the framing of the head has it. request is the method
// that an answer is to, "" for a request. An error of the stream leaves the
// message cut.
func (w *wire) rest(m *message, request string) {
	te, cl := m.get("transfer-encoding"), m.get("content-length")
	if len(te) > 0 && len(cl) > 0 {
		m.fault("Transfer-Encoding %q with Content-Length %q", te, cl)
	}
	if len(cl) > 1 || len(cl) == 1 && !digits(cl[0]) {
		m.fault("Content-Length %q", cl)
	}
	if len(te) > 1 || len(te) == 1 && !strings.EqualFold(te[0], "chunked") {
		m.fault("Transfer-Encoding %q", te)
	}
	if request == "" {
		if n := len(m.get("host")); n != 1 && strings.HasSuffix(m.start, "HTTP/1.1") {
			m.fault("%d Host fields", n)
		}
	} else {
		m.method = request
		if m.status < 200 || m.status == 204 {
			if len(te)+len(cl) > 0 {
				m.fault("a %d with a length", m.status)
			}
			m.whole = true
			return
		}
		if request == "HEAD" || m.status == 304 {
			m.whole = true
			return
		}
	}
	switch {
	case len(te) > 0:
		m.whole = w.chunked(m)
	case len(cl) > 0:
		n, _ := strconv.ParseInt(cl[0], 10, 32)
		b := make([]byte, max(n, 0))
		k, err := io.ReadFull(w.br, b)
		m.body, m.whole = string(b[:k]), err == nil
	case request == "":
		m.whole = true
	default:
		b, err := io.ReadAll(w.br)
		m.body, m.untilEnd, m.whole = string(b), true, err == nil
	}
}

func digits(s string) bool {
	return s != "" && strings.Trim(s, "0123456789") == ""
}

// chunked reads a chunked body and reports whether it came to its end.
func (w *wire) chunked(m *message) bool {
	var body bytes.Buffer
	defer func() { m.body = body.String() }()
	for {
		l, ok := w.line(m)
		if !ok {
			return false
		}
		size, ext, _ := strings.Cut(l, ";")
		if ext != "" || strings.Contains(l, ";") {
			m.fault("a chunk extension passed on: %.40q", l)
		}
		n, err := strconv.ParseUint(size, 16, 31)
		if err != nil {
			m.fault("a chunk of size %.40q", size)
			return false
		}
		if n == 0 {
			break
		}
		if _, err := io.CopyN(&body, w.br, int64(n)); err != nil {
			return false
		}
		if l, ok := w.line(m); !ok {
			return false
		} else if l != "" {
			m.fault("%.20q after the data of a chunk", l)
			return false
		}
	}
	for {
		l, ok := w.line(m)
		if !ok || l == "" {
			return ok
		}
		m.trailers = append(m.trailers, m.field(l))
	}
}

func (w *wire) line(m *message) (string, bool) {
	l, err := w.br.ReadString('\n')
	if err != nil {
		return "", false
	}
	s, ok := strings.CutSuffix(l, "\r\n")
	if !ok {
		m.fault("a line of a chunked body ends in a bare LF")
		s = strings.TrimSuffix(l, "\n")
	}
	return s, true
}

// has reports whether a field line "name: value" is among fs.
func has(fs []field, line string) bool {
	name, value, _ := strings.Cut(line, ":")
	return slices.Contains(fs, field{strings.ToLower(name), strings.TrimSpace(value)})
}
