package healthcheck

import (
	"bufio"
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"net"
	"net/http"
	"net/textproto"
	"regexp"
	"slices"
	"strings"
	"time"
)

const (
	// maxHead bounds the head of an answer, the informational ones before it included.
	maxHead = 64 << 10
	// maxBody bounds how much of a body is read: a health page is small.
	maxBody = 64 << 10
	// maxInformational bounds how many answers 1xx are skipped.
	maxInformational = 8

	userAgent = "outrigger-check"
)

// plan is a check by HTTP/1.1, made ready. It is written and read by hand: a check
// needs neither net/http's pool nor its two goroutines a connection. Safe for
// concurrent use.
type plan struct {
	request    *http.Request // what ReadResponse has to know of it
	start, end []byte        // the request's head before and behind the default host
	host       string        // "": the address
	statuses   statuses
	expect     string // the statuses, to be read
	headers    []headerMatch
	body       *regexp.Regexp // nil: any
}

type headerMatch struct {
	name string // canonical
	expr *regexp.Regexp
}

func newPlan(cfg HTTPConfig) (*plan, error) {
	p := &plan{
		request: &http.Request{Method: cfg.Method},
		host:    cfg.Host,
		expect:  strings.Join(cfg.Statuses, ", "),
	}
	var err error
	if p.statuses, err = parseStatuses(cfg.Statuses); err != nil {
		return nil, err
	}
	for _, name := range slices.Sorted(maps.Keys(cfg.HeaderMatch)) {
		expr, err := compileMatch(cfg.HeaderMatch[name])
		if err != nil {
			return nil, err
		}
		p.headers = append(p.headers, headerMatch{textproto.CanonicalMIMEHeaderKey(name), expr})
	}
	if cfg.BodyMatch != "" {
		if p.body, err = compileMatch(cfg.BodyMatch); err != nil {
			return nil, err
		}
	}
	p.start = fmt.Appendf(nil, "%s %s HTTP/1.1\r\nHost: ", cfg.Method, cfg.Path)
	end := bytes.NewBufferString("\r\nConnection: close\r\n")
	if hasBody(cfg.Method) {
		end.WriteString("Content-Length: 0\r\n") // RFC 9110 section 8.6
	}
	agent := userAgent
	for _, name := range slices.Sorted(maps.Keys(cfg.Headers)) {
		if strings.EqualFold(name, "User-Agent") {
			agent = cfg.Headers[name]
			continue
		}
		fmt.Fprintf(end, "%s: %s\r\n", name, cfg.Headers[name])
	}
	fmt.Fprintf(end, "User-Agent: %s\r\n\r\n", agent)
	p.end = end.Bytes()
	return p, nil
}

// hasBody reports whether requests of the method are expected to have a body.
func hasBody(method string) bool {
	return method == "POST" || method == "PUT" || method == "PATCH"
}

// ask sends the request and judges the answer.
func (p *plan) ask(conn net.Conn, addr string, limit time.Duration) error {
	request := slices.Concat(p.start, []byte(cmp.Or(p.host, addr)), p.end)
	if _, err := conn.Write(request); err != nil {
		return explain("send the request", err, limit)
	}
	from := &source{conn: conn, left: maxHead}
	resp, err := p.head(bufio.NewReader(from), from, limit)
	if err != nil {
		return err
	}
	// The body is not closed: that would read it to its end. The connection is.
	if err := p.judge(resp); err != nil {
		return err
	}
	from.left = math.MaxInt // the head was read; what follows is bounded by maxBody
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxBody))
	switch {
	case err == nil:
	case from.err == io.EOF:
		return fmt.Errorf("the answer's body broke off after %d bytes", len(body))
	case from.err != nil:
		return explain("read the answer's body", from.err, limit)
	default:
		return errors.New("the answer's body is not valid HTTP/1.1")
	}
	if p.body != nil && !p.body.Match(body) {
		return p.mismatch(resp, len(body))
	}
	return nil
}

// head reads the head of the final answer.
func (p *plan) head(r *bufio.Reader, from *source, limit time.Duration) (*http.Response, error) {
	for range maxInformational + 1 {
		// What an answer that cannot be read says is not quoted: it may be our request,
		// with its secrets.
		if first, err := r.Peek(1); err != nil {
			if errors.Is(err, io.EOF) {
				return nil, errors.New("the connection was closed without an answer")
			}
			return nil, explain("wait for an answer", err, limit)
		} else if first[0] == 0x15 { // a TLS alert record
			return nil, errors.New("the answer is TLS: set enabled = true in the service's tls block")
		}
		resp, err := http.ReadResponse(r, p.request)
		switch {
		case err == nil:
		case from.left <= 0:
			return nil, fmt.Errorf("the answer's head is longer than %d bytes", maxHead)
		case from.err == io.EOF:
			return nil, errors.New("the connection was closed within the head of the answer")
		case from.err != nil:
			return nil, explain("read the answer's head", from.err, limit)
		default:
			return nil, errors.New("the answer is not HTTP/1.1")
		}
		if resp.ProtoMajor != 1 || resp.StatusCode < 100 { // net/http takes any three digits
			return nil, errors.New("the answer is not HTTP/1.1")
		}
		if resp.StatusCode >= 200 || resp.StatusCode == http.StatusSwitchingProtocols {
			return resp, nil
		}
	}
	return nil, fmt.Errorf("more than %d answers 1xx came", maxInformational)
}

// judge looks at the head.
func (p *plan) judge(resp *http.Response) error {
	if !p.statuses.has(resp.StatusCode) {
		return fmt.Errorf("answered %d, expected %s", resp.StatusCode, p.expect)
	}
	for _, h := range p.headers {
		values := resp.Header[h.name]
		if len(values) == 0 {
			return fmt.Errorf("the answer has no header %s, which header_match asks for", h.name)
		}
		if !slices.ContainsFunc(values, h.expr.MatchString) {
			return fmt.Errorf("the answer's header %s does not match header_match", h.name)
		}
	}
	return nil
}

func (p *plan) mismatch(resp *http.Response, n int) error {
	switch enc := resp.Header.Get("Content-Encoding"); {
	case enc != "" && !strings.EqualFold(enc, "identity"):
		return errors.New("the body does not match body_match: it has a Content-Encoding, which was not asked for")
	case n == maxBody:
		return fmt.Errorf("the body's first %d bytes do not match body_match", maxBody)
	}
	return fmt.Errorf("the body, of %d bytes, does not match body_match", n)
}

// source reads at most left bytes of a connection, and keeps the error that ended it:
// net/http takes half a line before one for a malformed line.
type source struct {
	conn net.Conn
	left int
	err  error
}

func (s *source) Read(b []byte) (int, error) {
	if s.left <= 0 {
		return 0, io.EOF
	}
	n, err := s.conn.Read(b[:min(len(b), s.left)])
	s.left -= n
	if err != nil {
		s.err = err
	}
	return n, err
}
