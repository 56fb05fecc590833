package access

import (
	"context"
	"fmt"
	"math"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
)

// chunkSize is how much one write brings to a file.
const chunkSize = 64 << 10

// Logger is the access log of one service. All methods may be called from any
// goroutine, and on nil, which logs nothing.
type Logger struct {
	enc       *encoder
	rand      func(uint32) uint32
	threshold uint32    // of MaxUint32 requests without an error so many are logged
	scratch   sync.Pool // of *[maxLine]byte

	// Lines go to cur; full chunks wait in queue for the writer, empty ones in
	// free. The lock is held for a copy of one line, never for I/O.
	mu     sync.Mutex
	cur    []byte
	queue  [][]byte
	free   [][]byte
	made   int // chunks in existence, the one being written included
	most   int
	idle   bool // the writer waits for a line
	closed bool

	wake    chan struct{} // holds one: there is something to do
	writer  *writer
	stopped chan struct{} // closed when the writer has ended
	dropped atomic.Uint64
}

// Options is what a Logger needs besides its settings.
type Options struct {
	Service string
	// Rand returns a uniform number in [0, n). It must be safe for concurrent
	// use. It is not called for a Sample of 0 or 1.
	Rand func(n uint32) uint32
	// Log hears of output that fails; nil: nobody does.
	Log hclog.Logger
	// Stdout and Stderr stand for the paths of these names, nil for the
	// process's own.
	Stdout, Stderr *os.File
}

// New opens the output and starts a writer, which runs until Close. With an
// empty Path it returns nil, a Logger that logs nothing. An error is one of
// Validate, or tells that the file cannot be opened.
func New(c Config, o Options) (*Logger, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	if c.Path == "" {
		return nil, nil
	}
	l := &Logger{
		enc:       newEncoder(c, o.Service),
		rand:      o.Rand,
		threshold: thresholdOf(c.Sample),
		scratch:   sync.Pool{New: func() any { return new([maxLine]byte) }},
		most:      c.Buffer / chunkSize,
		wake:      make(chan struct{}, 1),
		stopped:   make(chan struct{}),
	}
	out, err := openOutput(c.Path, o)
	if err != nil {
		return nil, fmt.Errorf("access_log path: %w", err)
	}
	log := o.Log
	if log == nil {
		log = hclog.NewNullLogger()
	}
	l.writer = &writer{l: l, path: c.Path, log: log.With("path", c.Path), checked: time.Now()}
	l.writer.out.Store(out)
	go l.writer.run()
	return l, nil
}

// thresholdOf keeps a share that is not 0 from becoming it.
func thresholdOf(share float64) uint32 {
	if share <= 0 {
		return 0
	}
	return max(1, uint32(math.Round(share*math.MaxUint32)))
}

// Wants reports whether a request is to be logged, a few nanoseconds' answer
// that lets its owner skip the rest: errors always, others by chance. An error is
// a status of 500 and up, no status, or a reason other than Done. It is asked
// once for a request: each call draws anew.
func (l *Logger) Wants(status int, reason string) bool {
	if l == nil {
		return false
	}
	if status >= 500 || status == 0 || reason != Done {
		return true
	}
	switch l.threshold {
	case 0:
		return false
	case math.MaxUint32:
		return true
	}
	return l.rand(math.MaxUint32) < l.threshold
}

// Log writes r's line, whatever Wants says. It does not wait: a line that finds
// no room is lost and counted. It keeps nothing of r.
func (l *Logger) Log(r *Record) {
	if l == nil {
		return
	}
	s := l.scratch.Get().(*[maxLine]byte)
	l.add(l.enc.line(s[:0], r))
	l.scratch.Put(s)
}

// add copies a line to the current chunk.
func (l *Logger) add(line []byte) {
	l.mu.Lock()
	queued := len(l.queue)
	if l.closed || !l.room(len(line)) {
		l.mu.Unlock()
		l.dropped.Add(1)
		return
	}
	l.cur = append(l.cur, line...)
	// A writer that rests (see writer.run) is woken for a full chunk alone.
	wake := l.idle || queued == 0 && len(l.queue) == 1
	l.idle = false
	l.mu.Unlock()
	if wake {
		l.signal()
	}
}

// room sees to a current chunk with room for n bytes.
func (l *Logger) room(n int) bool {
	if cap(l.cur)-len(l.cur) >= n {
		return true
	}
	last := len(l.free) - 1
	if last < 0 && l.made == l.most {
		return false
	}
	if l.cur != nil {
		l.queue = append(l.queue, l.cur)
	}
	if last >= 0 {
		l.cur, l.free = l.free[last], l.free[:last]
	} else {
		l.cur = make([]byte, 0, chunkSize)
		l.made++
	}
	return true
}

// take gives the writer the oldest chunk and takes back the one before (nil for
// none). It returns nil when there are no lines. more: full chunks wait; over:
// no lines will come.
func (l *Logger) take(used []byte) (chunk []byte, more, over bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if used != nil {
		l.free = append(l.free, used[:0])
	}
	switch {
	case len(l.queue) > 0:
		chunk = l.queue[0]
		n := copy(l.queue, l.queue[1:]) // keeps the array; it is short
		l.queue[n] = nil
		l.queue = l.queue[:n]
	case len(l.cur) > 0:
		chunk, l.cur = l.cur, nil
	default:
		l.idle = true
	}
	return chunk, len(l.queue) > 0, l.closed
}

func (l *Logger) signal() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// Reopen opens the file anew before the next line is written, for logrotate's
// postrotate. A file that was renamed or removed is noticed without it within a
// second. It does not wait.
func (l *Logger) Reopen() {
	if l == nil {
		return
	}
	l.writer.reopen.Store(true)
	l.signal()
}

// Close writes what is waiting and closes the output (not stdout or stderr). No
// line is taken any more. When ctx ends first, the rest is lost and counted, and
// an error tells. Then a write in progress to a pipe that nobody reads may
// linger until the process ends.
func (l *Logger) Close(ctx context.Context) error {
	if l == nil {
		return nil
	}
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	l.signal()
	select {
	case <-l.stopped:
		return nil
	case <-ctx.Done():
	}
	l.writer.abort()
	n := 0
	for {
		chunk, _, _ := l.take(nil)
		if chunk == nil {
			break
		}
		n += lines(chunk)
	}
	l.dropped.Add(uint64(n))
	return fmt.Errorf("closing the access log: %d waiting lines and those being written were lost: %w", n, context.Cause(ctx))
}

// Written counts lines that reached the output.
func (l *Logger) Written() uint64 {
	if l == nil {
		return 0
	}
	return l.writer.written.Load()
}

// Dropped counts lines that were lost: no room, or writing failed.
func (l *Logger) Dropped() uint64 {
	if l == nil {
		return 0
	}
	return l.dropped.Load()
}

// Errors counts failed attempts to write or to open the output.
func (l *Logger) Errors() uint64 {
	if l == nil {
		return 0
	}
	return l.writer.errors.Load()
}
