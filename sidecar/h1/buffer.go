package h1

import (
	"io"
	"sync"
)

const (
	// bufSize is the size of a buffer, and so the longest head.
	bufSize = 32 << 10
	// bigSize is that of a buffer for an answer's body, once it has turned out to
	// be longer: fewer system calls for the same bytes.
	bigSize = 128 << 10
)

// buffer is a window [r, w) of bytes read and not yet used.
type buffer struct {
	b    []byte // nil, bufSize or bigSize
	r, w int
	big  bool // which of them it gets
}

type buffers struct{ small, big sync.Pool }

func newBuffers() *buffers {
	p := &buffers{}
	p.small.New = func() any { return new([bufSize]byte) }
	p.big.New = func() any { return new([bigSize]byte) }
	return p
}

// attach gives the buffer memory, if it has none.
func (p *buffers) attach(f *buffer) {
	if f.b != nil {
		return
	}
	if f.big {
		f.b = p.big.Get().(*[bigSize]byte)[:]
	} else {
		f.b = p.small.Get().(*[bufSize]byte)[:]
	}
}

// release takes its memory back, with whatever is in it.
func (p *buffers) release(f *buffer) {
	switch len(f.b) {
	case bufSize:
		p.small.Put((*[bufSize]byte)(f.b))
	case bigSize:
		p.big.Put((*[bigSize]byte)(f.b))
	}
	*f = buffer{big: f.big}
}

// resize makes an empty buffer a big one, or a small one.
func (p *buffers) resize(f *buffer, big bool) {
	if f.big != big {
		p.release(f)
		f.big = big
	}
}

func (f *buffer) unread() []byte {
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
	if f.w == len(f.b) && f.r > 0 {
		f.w = copy(f.b, f.b[f.r:f.w])
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
func (f *buffer) full() bool { return f.b != nil && f.len() == len(f.b) }
