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
	"time"

	"github.com/hashicorp/consul/api"
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
	first           *firstRead // nil: nobody wants to know
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
		x.first.queue()
	}
}

// turned tells that the read has its turn.
func (x *exchange) turned() {
	if x != nil {
		x.first.turn()
	}
}

// RoundTrip implements http.RoundTripper.
func (t *transport) RoundTrip(req *http.Request) (*http.Response, error) {
	for try := 0; ; try++ {
		resp, refused, err := t.once(req)
		if !refused || try == refusals || req.Method != http.MethodGet {
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
	x.turned()
	var conn fresh
	out := req.Clone(httptrace.WithClientTrace(req.Context(), conn.trace(t.gate, turn)))
	if turn.wait < turn.want {
		ask.values.Set("wait", strconv.FormatInt(turn.wait.Milliseconds(), 10)+"ms")
		out.URL.RawQuery = ask.values.Encode()
	}
	if token := t.tokens.get(); token != "" {
		out.Header.Set(tokenHeader, token)
	}
	resp, err = t.next.RoundTrip(out)
	if err != nil {
		refused = t.silent(req, turn, &conn, err)
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
	// The agent answers so at accept, before it has read anything.
	if resp.StatusCode == http.StatusTooManyRequests && resp.Close && bytes.Contains(text, []byte("concurrent connections")) {
		t.gate.refused(turn, true)
		return true
	}
	t.gate.spoke()
	switch resp.StatusCode {
	case http.StatusForbidden:
		t.tokens.stale()
	case http.StatusTooManyRequests, http.StatusServiceUnavailable:
		// Agents that have lost their servers answer 503 too.
		if resp.StatusCode == http.StatusTooManyRequests || limitText(string(text)) {
			t.gate.limited()
		}
	}
	return false
}

// limitText reports whether a 503 is one of Consul's request limits: "rate limit
// exceeded for operation that can only be performed by the leader".
func limitText(s string) bool {
	s = strings.ToLower(s)
	return strings.Contains(s, "rate limit") || strings.Contains(s, "resource exhausted") || strings.Contains(s, "resourceexhausted")
}

// busy reports whether an error is an agent or a server that asks for less.
func busy(err error) bool {
	var status api.StatusError
	return errors.As(err, &status) && (status.Code == http.StatusTooManyRequests ||
		status.Code == http.StatusServiceUnavailable && limitText(status.Body))
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
func withExchange(ctx context.Context, wait time.Duration, skip bool, first *firstRead) (context.Context, *exchange, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	x := &exchange{skip: skip, first: first}
	x.limit = time.AfterFunc(time.Hour, func() { cancel(errTooLate) })
	x.admitted(wait) // for a client without a gate
	return context.WithValue(ctx, exchangeKey{}, x), x, func() {
		x.limit.Stop()
		cancel(nil)
	}
}

var errTooLate = errors.New("no answer in time")
