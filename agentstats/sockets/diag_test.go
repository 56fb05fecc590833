package sockets

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"
)

// socketMessage is an answer of the kernel about one socket.
func socketMessage(kind uint16, seq uint32, attrs ...[]byte) []byte {
	ne := binary.NativeEndian
	b := make([]byte, nlHeader+diagMsg)
	ne.PutUint16(b[4:], kind)
	ne.PutUint32(b[8:], seq)
	m := b[nlHeader:]
	m[0], m[1] = 10, stateEstablished
	binary.BigEndian.PutUint16(m[4:], 8080)
	ne.PutUint64(m[4+40:], 77)
	ne.PutUint32(m[56:], 5)
	ne.PutUint32(m[60:], 6)
	ne.PutUint32(m[68:], 7)
	for _, a := range attrs {
		b = append(b, a...)
	}
	ne.PutUint32(b, uint32(len(b)))
	return b
}

func attribute(kind uint16, body []byte) []byte {
	ne := binary.NativeEndian
	b := ne.AppendUint16(nil, uint16(4+len(body)))
	b = append(ne.AppendUint16(b, kind), body...)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

func infoBody() []byte {
	ne := binary.NativeEndian
	b := make([]byte, 248)
	for at, v := range map[int]uint32{24: 1, 44: 2, 52: 3, 56: 4, 136: 5, 140: 6, 144: 7, 152: 8, 156: 9} {
		ne.PutUint32(b[at:], v)
	}
	for at, v := range map[int]uint64{128: 10, 200: 11, 208: 1} {
		ne.PutUint64(b[at:], v)
	}
	return b
}

func TestParseMessage(t *testing.T) {
	ne := binary.NativeEndian
	mem := make([]byte, 36)
	ne.PutUint32(mem[12:], 20)
	ne.PutUint32(mem[20:], 21)
	one := socketMessage(typeDiag, 3, attribute(99, []byte{1}), attribute(attrInfo, infoBody()), attribute(attrSkMem, mem))
	two := socketMessage(typeCompat, 4)
	done := make([]byte, nlHeader+4)
	ne.PutUint32(done, uint32(len(done)))
	ne.PutUint16(done[4:], typeDone)
	gone := bytes.Clone(done)
	ne.PutUint16(gone[4:], typeError)
	ne.PutUint32(gone[16:], uint32(0xfffffffe)) // -ENOENT

	var m message
	rest, err := parseMessage(append(append(append(append([]byte{}, one...), two...), gone...), done...), &m)
	if err != nil {
		t.Fatal(err)
	}
	want := record{
		id: m.rec.id, family: 10, state: stateEstablished, inode: 7, rqueue: 5, wqueue: 6, hasInfo: true,
		unacked: 1, sentAge: 2, recvAge: 3, ackAge: 4, segsOut: 5, segsIn: 6, notsent: 7, dataIn: 8, dataOut: 9,
		bytesIn: 10, bytesOut: 10, sndbuf: 20, sndbufUsed: 21,
	}
	if m.rec != want || m.seq != 3 || m.rec.id.port() != 8080 || m.rec.id.cookie() != 77 {
		t.Errorf("%+v\nwant %+v", m, want)
	}
	if rest, err = parseMessage(rest, &m); err != nil || m.kind != typeCompat || m.seq != 4 || m.rec.hasInfo {
		t.Errorf("second message: %+v, %v", m, err)
	}
	if rest, err = parseMessage(rest, &m); err != nil || m.kind != typeError || m.errno != 2 {
		t.Errorf("third message: %+v, %v", m, err)
	}
	if rest, err = parseMessage(rest, &m); err != nil || m.kind != typeDone || m.errno != 0 || len(rest) != 0 {
		t.Errorf("fourth message: %+v, %v, %d bytes left", m, err, len(rest))
	}

	for n := range one {
		if _, err := parseMessage(one[:n], &m); err == nil {
			t.Fatalf("the first %d of %d bytes were taken", n, len(one))
		}
	}
	old := socketMessage(typeDiag, 1, attribute(attrInfo, infoBody()[:192]))
	if _, err := parseMessage(old, &m); !errors.Is(err, errOldInfo) {
		t.Errorf("%v of an old kernel's answer", err)
	}
}

func FuzzParseMessage(f *testing.F) {
	f.Add(socketMessage(typeDiag, 3, attribute(attrInfo, infoBody()), attribute(attrSkMem, make([]byte, 36))))
	f.Add(append(socketMessage(typeCompat, 3), socketMessage(typeError, 3)...))
	f.Add([]byte{16, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		e := newEstimator()
		e.beginDump()
		var m message
		for rest := b; len(rest) > 0; {
			next, err := parseMessage(rest, &m)
			if err != nil {
				break
			}
			if len(next) >= len(rest) {
				t.Fatal("no progress")
			}
			rest = next
			// The estimator takes whatever the parser lets through.
			e.see(&m.rec, msec*4)
		}
		e.endDump()
		if s := e.sum(0); !(s.InFlight >= 0 && s.InFlight <= float64(len(b))) {
			t.Fatalf("%+v of %d bytes", s, len(b))
		}
	})
}

func TestParsePassiveOpens(t *testing.T) {
	const text = "Ip: Forwarding\nIp: 1\nTcp: RtoAlgorithm MaxConn ActiveOpens PassiveOpens AttemptFails\nTcp: 1 -1 22 333 4\nUdp: InDatagrams\nUdp: 7\n"
	if n, ok := parsePassiveOpens([]byte(text)); !ok || n != 333 {
		t.Errorf("%d, %v, want 333", n, ok)
	}
	for _, bad := range []string{"", "Tcp:", "Tcp: PassiveOpens\n", "Tcp: PassiveOpens\nTcp:\n", "Tcp: PassiveOpens\nTcp: -1\n",
		"Tcp: PassiveOpens\nTcp: 99999999999999999999999\n", "Tcp: A B\nTcp: 1 2\n"} {
		if n, ok := parsePassiveOpens([]byte(bad)); ok {
			t.Errorf("%q gave %d", bad, n)
		}
	}
	if n := testing.AllocsPerRun(100, func() { parsePassiveOpens([]byte(text)) }); n > 1 { // the conversion's
		t.Errorf("%v allocations", n)
	}
}

func FuzzParsePassiveOpens(f *testing.F) {
	f.Add([]byte("Tcp: A PassiveOpens\nTcp: 1 2\n"))
	f.Fuzz(func(_ *testing.T, b []byte) { parsePassiveOpens(b) })
}
