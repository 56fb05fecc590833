package discovery

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// transport is what all requests to Consul go through, whoever makes them: it
// gives each its turn at the gate and the token of now, bounds the answers and
// cuts tokens out of errors.
type transport struct {
	next   http.RoundTripper
	gate   *Gate
	tokens *tokens
	limit  int64          // bytes of an answer
	rand   func() float64 // uniform in [0, 1)
}

const (
	tokenHeader = "X-Consul-Token"
	indexHeader = "X-Consul-Index"
	// errorLimit is how much of an error's body is read.
	errorLimit = 4 << 10
	// refusals is how often a read is begun again when the agent refuses the
	// connection: the gate gets narrower each time, down to its floor in 6.
	refusals = 8
	// refusedAgain is the mean pause before the first time, and what is added for
	// each further one: 10 s in all.
	refusedAgain = 300 * time.Millisecond
)

// exchange is what a read and the transport tell each other, by the context.
type exchange struct {
	// limit ends the read after timeLimit. It stands still while the read waits
	// for its turn.
	limit     *time.Timer
	timeLimit time.Duration
	// skip: the reader knows what the index stands for, an answer with the same
	// need not be read. unchanged: it was such a one.
	skip, unchanged bool
}

type exchangeKey struct{}

// admitted starts the clock of a read that blocks for up to wait. Consul adds up
// to a sixteenth, to spread those who wait.
func (x *exchange) admitted(wait time.Duration) {
	if x != nil {
		x.timeLimit = readMargin + wait + wait/16
		x.limit.Reset(x.timeLimit)
	}
}

func (x *exchange) queued() {
	if x != nil {
		x.limit.Stop()
	}
}

// RoundTrip implements http.RoundTripper.
func (t *transport) RoundTrip(req *http.Request) (*http.Response, error) {
	for try := 0; ; try++ {
		resp, refused, err := t.once(req)
		if !refused || try == refusals || req.Body != nil && req.Body != http.NoBody {
			return resp, err
		}
		if err == nil {
			_ = resp.Body.Close() // gives the turn back
		}
		if err := sleep(req.Context(), time.Duration((0.5+t.rand())*float64(try+1)*float64(refusedAgain))); err != nil {
			return nil, err
		}
	}
}

// once asks once. refused: the agent did not take the connection.
func (t *transport) once(req *http.Request) (resp *http.Response, refused bool, err error) {
	ask := question(req)
	x, _ := req.Context().Value(exchangeKey{}).(*exchange)
	x.queued()
	turn, err := t.gate.enter(req.Context(), ask.name, ask.wait)
	if err != nil {
		closeBody(req)
		return nil, false, err
	}
	x.admitted(turn.wait)
	var conn fresh
	out := req.Clone(httptrace.WithClientTrace(req.Context(), conn.trace(t.gate.now)))
	if turn.wait < turn.want {
		ask.values.Set("wait", strconv.FormatInt(turn.wait.Milliseconds(), 10)+"ms")
		out.URL.RawQuery = ask.values.Encode()
	}
	if token := t.tokens.get(); token != "" {
		out.Header.Set(tokenHeader, token)
	}
	resp, err = t.next.RoundTrip(out)
	if err != nil {
		if refused = conn.refused(err, t.gate.now()); refused {
			t.gate.refused(turn)
		}
		t.gate.leave(turn)
		return nil, refused, err
	}
	resp.Body = &answerBody{ReadCloser: resp.Body, left: t.limit, limit: t.limit, leave: func() { t.gate.leave(turn) }}
	if resp.StatusCode != http.StatusOK {
		return resp, t.failed(turn, resp), nil
	}
	t.gate.answered(resp.ProtoMajor >= 2)
	if x != nil && x.skip && turn.wait < turn.want && ask.index != "" && resp.Header.Get(indexHeader) == ask.index {
		if err := drain(resp); err != nil {
			return nil, false, err
		}
		x.unchanged = true
	}
	return resp, false, nil
}

// failed looks at an answer that is none. It reports whether the agent refused
// the connection.
func (t *transport) failed(turn *turn, resp *http.Response) bool {
	text, err := io.ReadAll(io.LimitReader(resp.Body, errorLimit))
	rest := resp.Body
	resp.Body = struct {
		io.Reader
		io.Closer
	}{bytes.NewReader(t.tokens.redact(text)), rest}
	if err != nil {
		return false // what came of it says enough
	}
	switch resp.StatusCode {
	case http.StatusForbidden:
		t.tokens.stale()
	case http.StatusTooManyRequests, http.StatusServiceUnavailable:
		// The agent answers so at accept, before it has read anything.
		if resp.Close && bytes.Contains(text, []byte("concurrent connections")) {
			t.gate.refused(turn)
			return true
		}
		t.gate.limited()
	}
	return false
}

// drain reads an answer that nobody wants, so that the connection can be used
// again, and leaves an empty list in its place.
func drain(resp *http.Response) error {
	_, err := io.Copy(io.Discard, resp.Body)
	if cerr := resp.Body.Close(); err == nil {
		err = cerr
	}
	resp.Body = io.NopCloser(strings.NewReader("[]"))
	return err
}

func closeBody(req *http.Request) {
	if req.Body != nil {
		_ = req.Body.Close() // a RoundTripper must; nobody hears of its error
	}
}

// inquiry is what a request asks for.
type inquiry struct {
	values url.Values
	index  string
	wait   time.Duration // how long it blocks; 0: it does not
	name   string        // the same for all reads of one watch; "": it is none
}

// defaultWait is Consul's, for a read that blocks and names none.
const defaultWait = 5 * time.Minute

func question(req *http.Request) inquiry {
	ask := inquiry{values: req.URL.Query()}
	ask.index = ask.values.Get("index")
	if ask.index != "" || ask.values.Get("hash") != "" {
		ask.wait = defaultWait
		if d, err := time.ParseDuration(ask.values.Get("wait")); err == nil && d > 0 {
			ask.wait = d
		}
	}
	path := req.URL.Path
	if req.Method == http.MethodGet && (ask.wait > 0 || strings.Contains(path, "/v1/health/")) {
		names := url.Values{}
		for k, v := range ask.values {
			switch k {
			case "index", "hash", "wait", "stale", "consistent":
			default:
				names[k] = v
			}
		}
		ask.name = path + "?" + names.Encode()
	}
	return ask
}

// fresh finds out whether a connection was made for the request.
type fresh struct {
	mu    sync.Mutex
	made  time.Time // zero: it is an old one
	heard bool
}

func (f *fresh) trace(now func() time.Time) *httptrace.ClientTrace {
	return &httptrace.ClientTrace{
		GotConn: func(i httptrace.GotConnInfo) {
			f.mu.Lock()
			defer f.mu.Unlock()
			if f.made, f.heard = (time.Time{}), false; !i.Reused {
				f.made = now()
			}
		},
		GotFirstResponseByte: func() {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.heard = true
		},
	}
}

// refused reports whether an error is that of a connection which the agent took
// and closed at once, without an answer. Over its limit it does that when its 429
// does not get through: it writes it before it reads, and then resets.
func (f *fresh) refused(err error, now time.Time) bool {
	const soon = time.Second
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.made.IsZero() || f.heard || now.Sub(f.made) > soon {
		return false
	}
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) ||
		strings.Contains(err.Error(), "server closed idle connection") // net/http's EOF before the first byte
}

// answerBody makes reading more than limit bytes of an answer an error, and gives
// the turn back when it is closed, which consul/api does.
type answerBody struct {
	io.ReadCloser
	left, limit int64
	once        sync.Once
	leave       func()
}

func (b *answerBody) Read(p []byte) (int, error) {
	if b.left < 0 {
		return 0, fmt.Errorf("the answer has more than %d bytes (max_answer)", b.limit)
	}
	// One byte more than allowed tells an answer of just the limit from a larger one.
	n, err := b.ReadCloser.Read(p[:min(int64(len(p)), b.left+1)])
	b.left -= int64(n)
	if b.left < 0 {
		return n - 1, fmt.Errorf("the answer has more than %d bytes (max_answer)", b.limit)
	}
	return n, err
}

func (b *answerBody) Close() error {
	err := b.ReadCloser.Close()
	b.once.Do(b.leave)
	return err
}

// withExchange returns a context for one read, with a limit to its time. The
// caller calls end.
func withExchange(ctx context.Context, wait time.Duration, skip bool) (context.Context, *exchange, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	x := &exchange{skip: skip}
	x.limit = time.AfterFunc(time.Hour, func() { cancel(errTooLate) })
	x.admitted(wait) // for a client without a gate
	return context.WithValue(ctx, exchangeKey{}, x), x, func() {
		x.limit.Stop()
		cancel(nil)
	}
}

var errTooLate = errors.New("no answer in time")
