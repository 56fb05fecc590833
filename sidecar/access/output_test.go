//go:build unix

package access

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
)

// pipe returns a pipe; blocking: writing to it holds a thread, as it does on
// the stdout that most processes get.
func pipe(t testing.TB, blocking bool) (r, w *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close(); w.Close() })
	if blocking {
		raw, err := w.SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		if err := raw.Control(func(fd uintptr) { err = syscall.SetNonblock(int(fd), false) }); err != nil {
			t.Fatal(err)
		}
	}
	return r, w
}

// A pipe that nobody reads costs lines, not time: neither Log nor Close waits.
func TestBlockedPipe(t *testing.T) {
	for _, blocking := range []bool{true, false} {
		r, w := pipe(t, blocking)
		c := fileConfig("stdout")
		c.Buffer = minBuffer
		l := open(t, c, Options{Stdout: w})
		const n = 5000 // 2 MB; pipe and buffer together hold a tenth
		for i := range n {
			l.Log(numbered(i))
		}
		if d := l.Dropped(); d < n/2 {
			t.Errorf("blocking %v: %d of %d lines were dropped", blocking, d, n)
		}
		ctx, cancel := context.WithCancelCause(context.Background())
		enough := errors.New("enough")
		cancel(enough)
		if err := l.Close(ctx); !errors.Is(err, enough) {
			t.Errorf("blocking %v: %v", blocking, err)
		}
		read := make(chan []byte)
		go func() {
			b, _ := io.ReadAll(r)
			read <- b
		}()
		<-l.stopped // now that there is a reader, or at once
		w.Close()
		list := splitLines(<-read)
		for _, line := range list {
			if _, err := parse(line); err != nil {
				t.Errorf("blocking %v: %v: %q", blocking, err, line)
			}
		}
		if l.Written() != uint64(len(list)) || l.Written()+l.Dropped() != n {
			t.Errorf("blocking %v: %d lines came, %d written, %d dropped, %d in all", blocking, len(list), l.Written(), l.Dropped(), n)
		}
	}
}

// What waits is written by Close, when the reader is slow but there.
func TestCloseFlushes(t *testing.T) {
	r, w := pipe(t, true)
	l := open(t, fileConfig("stderr"), Options{Stderr: w})
	const n = 1000
	for i := range n {
		l.Log(numbered(i))
	}
	read := make(chan []byte)
	go func() {
		b, _ := io.ReadAll(r)
		read <- b
	}()
	finish(t, l)
	if _, err := w.WriteString("still open"); err != nil {
		t.Error(err)
	}
	w.Close()
	b, ok := bytes.CutSuffix(<-read, []byte("still open"))
	if list := splitLines(b); !ok || len(list) != n || l.Written() != n {
		t.Errorf("%v: %d lines, %d written, want %d", ok, len(list), l.Written(), n)
	}
}

// Two services share a pipe that is often full: their lines do not mix.
func TestSharedPipe(t *testing.T) {
	for _, blocking := range []bool{true, false} {
		r, w := pipe(t, blocking)
		c := fileConfig("stdout")
		c.Buffer = 16 << 20
		a, b := open(t, c, Options{Stdout: w}), open(t, c, Options{Stdout: w})
		const n = 2000
		go func() {
			for i := range n {
				a.Log(numbered(i))
				b.Log(numbered(i))
			}
			finish(t, a)
			finish(t, b)
			w.Close()
		}()
		all, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		list := splitLines(all)
		for _, line := range list {
			if _, err := parse(line); err != nil {
				t.Fatalf("blocking %v: %v: %q", blocking, err, line)
			}
		}
		if len(list) != 2*n {
			t.Errorf("blocking %v: %d lines, want %d", blocking, len(list), 2*n)
		}
	}
}

// A full disk costs lines and one complaint, not the log.
func TestDiskFull(t *testing.T) {
	if _, err := os.Stat("/dev/full"); err != nil {
		t.Skip("there is no /dev/full")
	}
	synctest.Test(t, func(t *testing.T) {
		var heard bytes.Buffer
		l := open(t, fileConfig("/dev/full"), Options{Log: hclog.New(&hclog.LoggerOptions{Output: &heard})})
		for i := range 20 {
			l.Log(numbered(i))
			time.Sleep(restFor)
			synctest.Wait()
		}
		if l.Written() != 0 || l.Dropped() != 20 || l.Errors() != 20 {
			t.Errorf("%d written, %d dropped, %d errors", l.Written(), l.Dropped(), l.Errors())
		}
		if strings.Count(heard.String(), "\n") != 1 || !strings.Contains(heard.String(), "no space left") {
			t.Errorf("the log says %q", heard.String())
		}
		l.writer.path = filepath.Join(t.TempDir(), "log") // the writer rests meanwhile
		l.Reopen()
		synctest.Wait()
		l.Log(numbered(20))
		finish(t, l)
		if l.Written() != 1 || !strings.Contains(heard.String(), "written again") || !strings.Contains(heard.String(), "lost=20") {
			t.Errorf("%d written; the log says %q", l.Written(), heard.String())
		}
	})
}

// After a line that was cut off, the next begins on a line of its own.
func TestTornLine(t *testing.T) {
	r, w := pipe(t, false)
	l := &Logger{}
	out := &writer{l: l, log: hclog.NewNullLogger()}
	out.out.Store(&output{f: w, regular: true}) // so that a write is larger than the pipe
	const lineLen, n = 1001, 200
	line := strings.Repeat("x", lineLen-1) + "\n"
	done := make(chan struct{})
	go func() {
		out.write([]byte(strings.Repeat(line, n)))
		close(done)
	}()
	first := make([]byte, 1)
	if _, err := io.ReadFull(r, first); err != nil { // it has filled the pipe
		t.Fatal(err)
	}
	if err := w.SetWriteDeadline(time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	<-done
	if err := w.SetWriteDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	if got := out.written.Load() + l.Dropped(); got != n || l.Dropped() == 0 || out.errors.Load() != 1 {
		t.Errorf("%d written, %d dropped, %d errors", out.written.Load(), l.Dropped(), out.errors.Load())
	}
	torn := out.torn
	read := make(chan []byte)
	go func() {
		b, _ := io.ReadAll(r)
		read <- append(first, b...)
	}()
	out.write([]byte("second\nthird\n"))
	w.Close()
	list := splitLines(<-read)
	if len(list) < 3 || list[len(list)-1] != "third\n" || list[len(list)-2] != "second\n" {
		t.Fatalf("%d lines, the last is %.50q", len(list), list[len(list)-1])
	}
	cut := list[len(list)-3]
	if torn != (len(cut) != lineLen) || !torn {
		t.Errorf("torn is %v, a line has %d bytes", torn, len(cut))
	}
}

// A FIFO that nobody reads is an error, not a wait.
func TestFIFO(t *testing.T) {
	path := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	if l, err := New(fileConfig(path), Options{}); l != nil || !errors.Is(err, syscall.ENXIO) {
		t.Errorf("%v %v", l, err)
	}
	r, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	l := open(t, fileConfig(path), Options{})
	l.Log(numbered(1))
	finish(t, l)
	if b, err := io.ReadAll(r); err != nil || len(splitLines(b)) != 1 {
		t.Errorf("%q %v", b, err)
	}
}

// The process outlives the reader of its stdout.
func TestBrokenStdout(t *testing.T) {
	const child = "ACCESS_TEST_BROKEN_STDOUT"
	if os.Getenv(child) != "" {
		l := open(t, fileConfig("stdout"), Options{})
		l.Log(numbered(1))
		finish(t, l)
		if l.Dropped() == 1 && l.Errors() == 1 {
			os.Exit(7)
		}
		os.Exit(8)
	}
	r, w := pipe(t, true)
	r.Close()
	cmd := exec.Command(os.Args[0], "-test.run=^TestBrokenStdout$")
	cmd.Env = append(os.Environ(), child+"=1")
	cmd.Stdout = w
	var exit *exec.ExitError
	if err := cmd.Run(); !errors.As(err, &exit) || exit.ExitCode() != 7 {
		t.Errorf("the process ended with %v, want exit status 7", err)
	}
}
