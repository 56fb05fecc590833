// Package declared fetches the figures that an app declares itself, for its agent: how
// many requests are in it now, from a gauge on its Prometheus page, a number in a JSON
// document, or ORCA's response header.
//
// The picker needs the figure of the moment, at most 5 ms old, 20 ms tolerable, and a
// request to the app takes its own time. So it is asked for when the agent is: the poll
// waits for the answer, at most Config.Timeout, and the figure is dated to the middle of
// the exchange. Polls that come meanwhile wait for the same answer, polls up to 5 ms
// later are given it again. An app that fails is asked in the background, with growing
// pauses, until it answers: it holds up one poll, not each.
package declared

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
)

// Absent marks a figure that the app did not tell: unknown is not zero.
const Absent = -1

// Figures are what the app told.
type Figures struct {
	At       time.Time // when they were true, on Env.Now
	InFlight float64   // requests in the app, 0 to 1e9; Absent
	Err      float64   // share of its requests that fail, 0 to 1; Absent, and known of ORCA alone
}

const (
	// fresh is the age up to which a figure is given again without asking (PICKING.md).
	fresh = 5 * time.Millisecond
	// slowest is the longest time between two requests that Config.Interval 0 leads to.
	slowest = 100 * time.Millisecond
	// costShare is the part of the time that may go into requests: 1 of 20.
	costShare = 20
	// An app that fails is asked again after firstPause, doubled up to lastPause.
	firstPause = 100 * time.Millisecond
	lastPause  = 5 * time.Second
	// maxInFlight is above anything real and keeps nonsense out of arithmetic.
	maxInFlight = 1e9
)

// ErrStale says that the newest figure is too old, and that the app must not be asked
// again yet.
var ErrStale = errors.New("the app's newest figure is too old, and it is not time to ask for the next one")

// Env is what a source gets from its surroundings.
type Env struct {
	Logger hclog.Logger     // default: none
	Now    func() time.Time // default: time.Now
	// ORCA reads the header endpoint-load-metrics: requests in flight by the named
	// metric, and the share of errors, either of which may be Absent. It must be given
	// for the format "orca".
	ORCA func(value []byte, named string) (inFlight, errShare float64, err error)
}

// Source asks one app. All methods are safe for concurrent use.
type Source struct {
	cfg    Config
	env    Env
	client *http.Client
	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	reader reader // of the running exchange alone

	mu       sync.Mutex
	last     Figures // of the last exchange that succeeded
	have     bool
	asked    time.Time // when the last exchange began
	cheapest time.Duration
	running  *exchange
	status   Status
	again    time.Time // after failures, from when it may be asked
}

// Status counts what came of asking.
type Status struct {
	Asked, Failed uint64
	InARow        int    // failures since the last success
	LastError     string // of the last failure
}

// exchange is one request and its answer.
type exchange struct {
	done chan struct{}
	err  error // set before done is closed
}

// New returns a source. It does not ask yet.
func New(cfg Config, env Env) (*Source, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if !cfg.On() {
		return nil, errors.New("declared has no url")
	}
	if env.Logger == nil {
		env.Logger = hclog.NewNullLogger()
	}
	if env.Now == nil {
		env.Now = time.Now
	}
	s := &Source{cfg: cfg, env: env, client: newClient()}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	var err error
	if s.reader, err = newReader(cfg, env); err != nil {
		return nil, err
	}
	return s, nil
}

// newClient returns a client with one connection, which it keeps.
func newClient() *http.Client {
	return &http.Client{
		Transport: &http.Transport{ // no Proxy: the environment's is not for a neighbour
			MaxConnsPerHost:        1,
			MaxIdleConnsPerHost:    1,
			IdleConnTimeout:        90 * time.Second,
			DisableCompression:     true, // costs the app more than the bytes
			MaxResponseHeaderBytes: 32 << 10,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// Close gives up what is running and closes the connection.
func (s *Source) Close() {
	s.cancel()
	s.client.CloseIdleConnections()
}

// Status returns the counts so far.
func (s *Source) Status() Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.status
}

// Read returns figures of at most Config.MaxAge, by asking the app if need be. While the
// app fails it returns the error at once, and has it asked in the background. ErrStale
// means that it must not be asked again yet. ctx bounds this caller's wait alone.
func (s *Source) Read(ctx context.Context) (Figures, error) {
	s.mu.Lock()
	now := s.env.Now()
	if s.have && now.Sub(s.last.At) <= fresh {
		defer s.mu.Unlock()
		return s.last, nil
	}
	x := s.running
	if x == nil && s.mayAsk(now) {
		x = s.ask(now)
	}
	if s.status.InARow > 0 {
		defer s.mu.Unlock()
		return s.tolerable(now, errors.New(s.status.LastError))
	}
	if x == nil {
		defer s.mu.Unlock()
		return s.tolerable(now, ErrStale)
	}
	s.mu.Unlock()

	err := ErrStale
	select {
	case <-x.done:
		if x.err != nil {
			err = x.err
		}
	case <-ctx.Done():
		err = ctx.Err()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.tolerable(s.env.Now(), err)
}

// tolerable returns the newest figures, or why there are none. s.mu is held.
func (s *Source) tolerable(now time.Time, err error) (Figures, error) {
	if s.have && now.Sub(s.last.At) <= s.cfg.MaxAge {
		return s.last, nil
	}
	return Figures{InFlight: Absent, Err: Absent}, err
}

// mayAsk reports whether an exchange may begin. s.mu is held.
func (s *Source) mayAsk(now time.Time) bool {
	if s.ctx.Err() != nil {
		return false
	}
	if s.status.InARow > 0 {
		return !now.Before(s.again)
	}
	return s.asked.IsZero() || now.Sub(s.asked) >= s.spacing()
}

// spacing is the least time between the beginnings of two exchanges. s.mu is held.
func (s *Source) spacing() time.Duration {
	if s.cfg.Interval > 0 {
		return s.cfg.Interval
	}
	return min(max(costShare*s.cheapest, fresh), slowest)
}

// ask begins an exchange. s.mu is held, and none is running.
func (s *Source) ask(now time.Time) *exchange {
	x := &exchange{done: make(chan struct{})}
	s.running, s.asked = x, now
	s.status.Asked++
	go func() {
		f, err := s.fetch()
		s.mu.Lock()
		s.ended(now, f, err)
		s.running, x.err = nil, err
		s.mu.Unlock()
		close(x.done)
	}()
	return x
}

// ended takes in what came of the exchange that began at the given time. s.mu is held.
func (s *Source) ended(began time.Time, f Figures, err error) {
	now, st := s.env.Now(), &s.status
	if err != nil {
		st.Failed++
		st.InARow++
		st.LastError = err.Error()
		pause := lastPause
		if st.InARow < 7 {
			pause = min(lastPause, firstPause<<(st.InARow-1))
		}
		s.again = now.Add(pause)
		if st.InARow == 1 && s.ctx.Err() == nil {
			s.env.Logger.Warn("the app does not tell its figures; others are used until it does", "url", s.cfg.told(), "error", err)
		}
		return
	}
	if st.InARow > 0 {
		s.env.Logger.Info("the app tells its figures again", "url", s.cfg.told())
	}
	st.InARow = 0
	took := max(0, now.Sub(began))
	// What it costs is what is left without queues: the quickest, which is forgotten
	// within some dozens of exchanges.
	if s.cheapest == 0 || took < s.cheapest {
		s.cheapest = took
	} else {
		s.cheapest += (took - s.cheapest) / 32
	}
	f.At = began.Add(took / 2)
	s.last, s.have = f, true
}

// fetch makes one exchange. Nobody else does meanwhile.
func (s *Source) fetch() (Figures, error) {
	ctx, cancel := context.WithTimeout(s.ctx, s.cfg.Timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.cfg.URL, nil)
	if err != nil {
		return Figures{}, err
	}
	req.Header.Set("User-Agent", "outrigger-agent")
	req.Header.Set("Accept", s.reader.accept())
	res, err := s.client.Do(req)
	if err != nil {
		return Figures{}, s.explain(err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return Figures{}, fmt.Errorf("the app answered %s", res.Status)
	}
	f, err := s.reader.read(res)
	if err != nil {
		return Figures{}, s.explain(err)
	}
	return f, nil
}

func (s *Source) explain(err error) error {
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("no answer within %v", s.cfg.Timeout)
	}
	if u := (*url.Error)(nil); errors.As(err, &u) {
		return u.Err // without the URL, whose query may be a secret
	}
	return err
}

// told is the URL for logs: a query may be a secret.
func (c Config) told() string {
	if u, query, found := strings.Cut(c.URL, "?"); found && query != "" {
		return u + "?[redacted]"
	}
	return c.URL
}
