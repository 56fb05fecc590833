package gauge

import (
	"encoding/binary"
	"fmt"
	"io"
)

const frameSize = 4

// frameError is a frame that no sidecar of ours would send.
type frameError uint32

func (e frameError) Error() string {
	return fmt.Sprintf("gauge of %d in flight, more than %d", uint32(e), uint32(MaxValue))
}

func frame(v int64) [frameSize]byte {
	var f [frameSize]byte
	binary.BigEndian.PutUint32(f[:], uint32(max(0, min(v, MaxValue))))
	return f
}

// frames reads a stream of frames. The zero value is at a stream's start.
type frames struct {
	buf  [16 * frameSize]byte
	have int // bytes of buf that begin a frame whose rest has not come
}

// next returns the newest gauge of one read: frames are absolute, so of several that
// came together only the last still matters, though each must be valid. Bytes that come
// along with an error are dropped: the stream has ended.
func (f *frames) next(r io.Reader) (int64, error) {
	for range 100 { // a reader that brings nothing and no error is broken
		n, err := r.Read(f.buf[f.have:])
		if err != nil {
			return 0, err
		}
		f.have += n
		if f.have >= frameSize {
			v, whole, err := newest(f.buf[:f.have])
			f.have = copy(f.buf[:], f.buf[whole:f.have])
			return v, err
		}
	}
	return 0, io.ErrNoProgress
}

// newest returns the last whole frame of b, and how many bytes the whole ones are.
func newest(b []byte) (v int64, whole int, err error) {
	for ; len(b)-whole >= frameSize; whole += frameSize {
		n := binary.BigEndian.Uint32(b[whole:])
		if n > MaxValue {
			return 0, whole, frameError(n)
		}
		v = int64(n)
	}
	return v, whole, nil
}
