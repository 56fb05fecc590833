package h1

import (
	"io"
	"sync"
)

// bufSize is the size of every buffer, and so the longest head.
const bufSize = 32 << 10

// buffer is a window [r, w) of bytes read and not yet used.
type buffer struct {
	b    *[bufSize]byte
	r, w int
}

type buffers struct{ pool sync.Pool }

func newBuffers() *buffers {
	return &buffers{sync.Pool{New: func() any { return new([bufSize]byte) }}}
}

func (p *buffers) attach(f *buffer) {
	if f.b == nil {
		*f = buffer{b: p.pool.Get().(*[bufSize]byte)}
	}
}

func (p *buffers) release(f *buffer) {
	if f.b != nil {
		p.pool.Put(f.b)
		*f = buffer{}
	}
}

func (f *buffer) unread() []byte {
	if f.b == nil {
		return nil
	}
	return f.b[f.r:f.w]
}

func (f *buffer) len() int { return f.w - f.r }

func (f *buffer) skip(n int) {
	if f.r += n; f.r == f.w {
		f.r, f.w = 0, 0
	}
}

// room is where the next read goes. What is unread is moved to the front if
// the end is reached, and only then: slices of unread stay valid as long as
// there is room behind them.
func (f *buffer) room() []byte {
	if f.w == bufSize && f.r > 0 {
		f.w = copy(f.b[:], f.b[f.r:f.w])
		f.r = 0
	}
	return f.b[f.w:]
}

// fill reads once.
func (f *buffer) fill(from io.Reader) (int, error) {
	n, err := from.Read(f.room())
	f.w += n
	return n, err
}

// count is how many bytes have come and gone over a socket: got is its
// reader's, put its writer's.
type count struct{ got, put int64 }

// full reports whether fill could read nothing.
func (f *buffer) full() bool { return f.len() == bufSize }
