package gauge

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"testing"
	"testing/iotest"
)

func TestFrame(t *testing.T) {
	for _, c := range []struct {
		v    int64
		want string
	}{
		{0, "\x00\x00\x00\x00"},
		{1, "\x00\x00\x00\x01"},
		{66051, "\x00\x01\x02\x03"},
		{MaxValue, "\x00\x01\x86\xa0"},
		{-1, "\x00\x00\x00\x00"},
		{MaxValue + 1, "\x00\x01\x86\xa0"},
		{1 << 40, "\x00\x01\x86\xa0"},
	} {
		if f := frame(c.v); string(f[:]) != c.want {
			t.Errorf("frame(%d) is % x, want % x", c.v, f, c.want)
		}
	}
}

// stutter hands out what it holds in pieces of the sizes given, over and over.
type stutter struct {
	data  []byte
	sizes []byte
	i     int
}

func (s *stutter) Read(p []byte) (int, error) {
	if len(s.data) == 0 {
		return 0, io.EOF
	}
	n := 1
	if len(s.sizes) > 0 {
		n += int(s.sizes[s.i%len(s.sizes)]) % 100
		s.i++
	}
	n = copy(p, s.data[:min(n, len(s.data))])
	s.data = s.data[n:]
	return n, nil
}

// FuzzFrames: however a stream is cut, what is read is a subsequence of its frames that
// ends with the last one, up to the first that is none.
func FuzzFrames(f *testing.F) {
	f.Add([]byte{}, []byte{})
	f.Add([]byte{0, 0, 0, 1, 0, 0, 0, 2}, []byte{3, 0, 2})
	f.Add([]byte{0, 0, 0, 1, 0xff, 0, 0, 2, 0, 0, 0, 3}, []byte{99})
	f.Add([]byte{0x3b, 0x9a, 0xca, 0x00, 0x3b, 0x9a, 0xca, 0x01}, []byte{})
	f.Add(bytes.Repeat([]byte{0, 0, 1, 0, 7}, 40), []byte{63, 64, 65, 0})
	f.Fuzz(func(t *testing.T, data, sizes []byte) {
		var want []int64
		bad := false
		for d := data; len(d) >= frameSize; d = d[frameSize:] {
			v := binary.BigEndian.Uint32(d)
			if bad = v > MaxValue; bad {
				break
			}
			want = append(want, int64(v))
		}
		r := &stutter{data: bytes.Clone(data), sizes: sizes}
		var in frames
		last := int64(-1)
		for at := 0; ; {
			v, err := in.next(r)
			if err != nil {
				var fe frameError
				if errors.As(err, &fe) != bad || !bad && err != io.EOF {
					t.Fatalf("ended with %v, a bad frame: %v", err, bad)
				}
				if !bad && len(want) > 0 && last != want[len(want)-1] {
					t.Fatalf("ended with gauge %d, want %d", last, want[len(want)-1])
				}
				return
			}
			for at < len(want) && want[at] != v {
				at++
			}
			if at == len(want) {
				t.Fatalf("read %d, which does not follow in %v", v, want)
			}
			at++
			last = v
		}
	})
}

func TestFramesFromABrokenReader(t *testing.T) {
	var in frames
	if _, err := in.next(iotest.ErrReader(io.ErrClosedPipe)); err != io.ErrClosedPipe {
		t.Errorf("a reader's error came out as %v", err)
	}
	if _, err := in.next(idle{}); err != io.ErrNoProgress {
		t.Errorf("a reader that brings nothing: %v", err)
	}
}

type idle struct{}

func (idle) Read([]byte) (int, error) { return 0, nil }

func TestConfig(t *testing.T) {
	if err := DefaultConfig().Validate(); err != nil || DefaultConfig().Enabled {
		t.Errorf("the default: %+v, %v", DefaultConfig(), err)
	}
	if err := DefaultBoardConfig().Validate(); err != nil {
		t.Error(err)
	}
	for _, c := range []Config{{}, {Interval: 4999999}, {Interval: 1000000001}, {Interval: -1}} {
		if c.Validate() == nil {
			t.Errorf("%+v is taken", c)
		}
	}
	for _, c := range []BoardConfig{{}, {MaxStreams: -1}, {MaxStreams: 65537}} {
		if c.Validate() == nil {
			t.Errorf("%+v is taken", c)
		}
	}
}
