package access

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"
)

const (
	// pipeBuf is the most that a pipe takes in one piece without mixing it with
	// others' (PIPE_BUF of Linux; POSIX allows as little as 512).
	pipeBuf = 4096
	// restFor is the least time between two writes that are not full.
	restFor = 50 * time.Millisecond
	// checkEvery is the least time between two looks at the file's name.
	checkEvery = time.Second
	// complainEvery is the least time between two complaints in the log.
	complainEvery = time.Minute
)

// writer brings chunks to the output, on a goroutine of its own.
type writer struct {
	l    *Logger
	path string
	log  hclog.Logger

	out     atomic.Pointer[output] // changed by the writer alone
	reopen  atomic.Bool
	aborted atomic.Bool
	written atomic.Uint64
	errors  atomic.Uint64

	checked    time.Time
	complained time.Time
	told       uint64 // lines lost that were complained of
	failing    bool
	torn       bool // the output ends in the midst of a line
}

// output is an open file.
type output struct {
	f        *os.File
	info     fs.FileInfo
	regular  bool
	standard bool // stdout or stderr: it has no name to look at
}

func openOutput(path string, o Options) (*output, error) {
	out := &output{standard: path == "stdout" || path == "stderr"}
	var err error
	if out.standard {
		f := pick(path == "stdout", pick(o.Stdout != nil, o.Stdout, os.Stdout), pick(o.Stderr != nil, o.Stderr, os.Stderr))
		// Of its own, as a write to a broken pipe by os.Stdout ends the process.
		out.f, err = duplicate(f)
	} else {
		// Non-blocking, for a FIFO without a reader; no matter to a file.
		out.f, err = os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE|syscall.O_NONBLOCK, 0o640)
	}
	if err != nil {
		return nil, err
	}
	if out.info, err = out.f.Stat(); err != nil {
		return nil, errors.Join(err, out.f.Close())
	}
	out.regular = out.info.Mode().IsRegular()
	return out, nil
}

func pick[T any](first bool, a, b T) T {
	if first {
		return a
	}
	return b
}

// run writes until the Logger is closed and empty. A first line is written at
// once; then the writer rests, so that under load a write brings many lines.
func (w *writer) run() {
	defer close(w.l.stopped)
	defer func() { _ = w.out.Load().f.Close() }() // what was written is written
	rest := time.NewTimer(restFor)
	var chunk []byte
	for {
		var more, over bool
		chunk, more, over = w.l.take(chunk)
		switch {
		case chunk != nil:
			w.refresh(false)
			w.write(chunk)
			w.complainOfLoss()
			if more || over {
				continue
			}
			rest.Reset(restFor)
			select {
			case <-w.l.wake:
			case <-rest.C:
			}
		case over:
			return
		default:
			w.refresh(true)
			<-w.l.wake
		}
	}
}

// write brings whole lines to the output; what cannot be written is lost.
func (w *writer) write(chunk []byte) {
	out := w.out.Load()
	for b := chunk; len(b) > 0; {
		piece := b
		if !out.regular && len(b) > pipeBuf {
			piece = b[:bytes.LastIndexByte(b[:pipeBuf], '\n')+1]
		}
		n, err := w.bytes(out, piece)
		done := uint64(lines(piece[:n]))
		w.written.Add(done)
		if err != nil {
			w.l.dropped.Add(uint64(lines(b)) - done)
			w.failed(err)
			return
		}
		b = b[len(piece):]
	}
	w.succeeded()
}

// bytes writes one piece, on a new line if the last was cut off.
func (w *writer) bytes(out *output, piece []byte) (int, error) {
	if w.aborted.Load() {
		return 0, os.ErrDeadlineExceeded
	}
	if w.torn {
		if _, err := out.f.Write([]byte("\n")); err != nil {
			return 0, err
		}
		w.torn = false
	}
	n, err := out.f.Write(piece)
	if n > 0 {
		w.torn = piece[n-1] != '\n'
	}
	return n, err
}

// abort ends a write in progress where the system lets it.
func (w *writer) abort() {
	w.aborted.Store(true)
	_ = w.out.Load().f.SetWriteDeadline(time.Unix(1, 0)) // files know no deadline
}

// refresh opens the file anew if that was asked for, or if its name stands for
// another or none. idle: nothing is about to be written, only the asking counts.
func (w *writer) refresh(idle bool) {
	old := w.out.Load()
	asked := w.reopen.Swap(false)
	if old.standard || !asked && (idle || !w.moved(old)) {
		return
	}
	out, err := openOutput(w.path, Options{})
	if err != nil { // the old one is better than none
		w.errors.Add(1)
		if w.mayComplain() {
			w.log.Warn("the access log cannot be opened anew, the old file is written on", "error", err)
		}
		return
	}
	w.out.Store(out)
	w.torn = w.torn && os.SameFile(old.info, out.info)
	_ = old.f.Close() // what was written is written
	w.log.Debug("access log opened anew")
}

// moved looks at the file's name, at most once a second.
func (w *writer) moved(old *output) bool {
	now := time.Now()
	if now.Sub(w.checked) < checkEvery {
		return false
	}
	w.checked = now
	info, err := os.Stat(w.path)
	if err != nil {
		return errors.Is(err, fs.ErrNotExist)
	}
	return !os.SameFile(info, old.info)
}

// failed counts an error of a write. The log hears of it once until writing works again,
// and not more than once a minute.
func (w *writer) failed(err error) {
	w.errors.Add(1)
	if !w.failing && w.mayComplain() {
		w.failing = true
		w.log.Warn("the access log cannot be written, lines are lost until it can", "error", err)
	}
}

func (w *writer) succeeded() {
	if w.failing {
		w.failing = false
		w.told = w.l.dropped.Load()
		w.log.Info("the access log is written again", "lost", w.told)
	}
}

// complainOfLoss tells of lines that found no room, the output being too slow.
func (w *writer) complainOfLoss() {
	if n := w.l.dropped.Load(); n > w.told && !w.failing && w.mayComplain() {
		w.log.Warn("access log lines were lost: the output is too slow or failed", "lost", n-w.told)
		w.told = n
	}
}

func (w *writer) mayComplain() bool {
	now := time.Now()
	if !w.complained.IsZero() && now.Sub(w.complained) < complainEvery {
		return false
	}
	w.complained = now
	return true
}

// lines counts whole lines.
func lines(b []byte) int { return bytes.Count(b, []byte{'\n'}) }
