package e2e

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"crypto/sha1"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"outrigger/sidecar/admin"
)

// The little of RFC 6455 that an echo takes: whole frames, no extensions.
const (
	opText  = 1
	opBytes = 2
	opClose = 8
)

func acceptKey(key string) string {
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	return base64.StdEncoding.EncodeToString(sum[:])
}

// frame writes one frame; a client's is masked.
func frame(op byte, payload []byte, masked bool) []byte {
	b := []byte{0x80 | op, 0}
	switch n := len(payload); {
	case n < 126:
		b[1] = byte(n)
	case n < 1<<16:
		b[1] = 126
		b = binary.BigEndian.AppendUint16(b, uint16(n))
	default:
		b[1] = 127
		b = binary.BigEndian.AppendUint64(b, uint64(n))
	}
	if !masked {
		return append(b, payload...)
	}
	b[1] |= 0x80
	mask := []byte{7, 1, 5, 3}
	b = append(b, mask...)
	for i, c := range payload {
		b = append(b, c^mask[i%4])
	}
	return b
}

func readFrame(r io.Reader) (op byte, payload []byte, err error) {
	var head [2]byte
	if _, err = io.ReadFull(r, head[:]); err != nil {
		return 0, nil, err
	}
	length := make([]byte, map[byte]int{126: 2, 127: 8}[head[1]&0x7f])
	mask := make([]byte, 4*(head[1]>>7))
	if _, err = io.ReadFull(r, length); err != nil {
		return 0, nil, err
	}
	if _, err = io.ReadFull(r, mask); err != nil {
		return 0, nil, err
	}
	n := uint64(head[1] & 0x7f)
	if len(length) > 0 {
		n = binary.BigEndian.Uint64(append(make([]byte, 8-len(length)), length...))
	}
	if n > 1<<24 {
		return 0, nil, fmt.Errorf("a frame of %d bytes", n)
	}
	payload = make([]byte, n)
	_, err = io.ReadFull(r, payload)
	for i := range payload {
		if len(mask) > 0 {
			payload[i] ^= mask[i%4]
		}
	}
	return head[0] & 0xf, payload, err
}

// webSocket is the app's echo.
func webSocket(w http.ResponseWriter, r *http.Request) {
	key := r.Header.Get("Sec-WebSocket-Key")
	if r.Header.Get("Upgrade") != "websocket" || key == "" {
		http.Error(w, "not a WebSocket handshake", http.StatusBadRequest)
		return
	}
	conn, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer conn.Close()
	fmt.Fprintf(rw, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"+
		"Sec-WebSocket-Accept: %s\r\n\r\n", acceptKey(key))
	for {
		if rw.Flush() != nil {
			return
		}
		op, payload, err := readFrame(rw)
		if err != nil || op == opClose {
			_, _ = conn.Write(frame(opClose, payload, false))
			return
		}
		_, _ = rw.Write(frame(op, payload, false))
	}
}

func TestWebSocket(t *testing.T) {
	t.Parallel()
	cat, name := sharedCatalog(t), uniqueService(t)
	a := startBackend(t, "a")
	id := cat.register(name, a)
	s := startSidecar(t, sidecarSpec{services: oneService(name, `timeouts { idle = "100ms" }`)}) // not for tunnels
	s.awaitReady(1)

	conn, err := net.Dial("tcp", s.addr())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(slack(patience))); err != nil {
		t.Fatal(err)
	}
	const key = "dGhlIHNhbXBsZSBub25jZQ=="
	// The first message comes with the handshake, before the 101.
	fmt.Fprintf(conn, "GET /ws HTTP/1.1\r\nHost: e2e\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %s\r\n\r\n%s", key, frame(opText, []byte("hello"), true))
	in := bufio.NewReader(conn)
	res, err := http.ReadResponse(in, nil)
	if err != nil {
		t.Fatal(err)
	}
	if res.StatusCode != 101 || res.Header.Get("Upgrade") != "websocket" || res.Header.Get("Sec-WebSocket-Accept") != acceptKey(key) {
		t.Fatalf("handshake answered with %s %v", res.Status, res.Header)
	}
	echoes := func(op byte, want []byte) {
		t.Helper()
		gotOp, got, err := readFrame(in)
		if err != nil || gotOp != op || !bytes.Equal(got, want) {
			t.Fatalf("echo: op %d, %d bytes, %v; want op %d, the %d bytes sent", gotOp, len(got), err, op, len(want))
		}
	}
	echoes(opText, []byte("hello"))
	big := make([]byte, 300<<10)
	_, _ = rand.Read(big) // never fails
	for _, message := range [][]byte{[]byte("again"), big, {}} {
		if _, err := conn.Write(frame(opBytes, message, true)); err != nil {
			t.Fatal(err)
		}
		echoes(opBytes, message)
	}
	s.awaitService("web", "an open tunnel", func(doc admin.ServiceDoc) bool {
		return doc.Traffic.TunnelsOpen == 1 && doc.Endpoints[0].InFlight == 1 && doc.Traffic.BackendResponsesTotal["1xx"] == 1
	})

	if _, err := conn.Write(frame(opClose, nil, true)); err != nil {
		t.Fatal(err)
	}
	echoes(opClose, nil)
	if _, err := in.ReadByte(); err != io.EOF {
		t.Errorf("after the close: %v, want the end of the connection", err)
	}
	conn.Close()
	s.awaitEndpoint(id, "free and blamed for nothing", func(e *admin.EndpointDoc) bool {
		return isReady(e) && e.InFlight == 0 && e.SuccessesTotal == 1 && e.FailuresTotal == 0
	})
	if open := s.web().Traffic.TunnelsOpen; open != 0 {
		t.Errorf("%d tunnels are open after the end", open)
	}
}

// A client that drops its WebSocket is felt by the backend.
func TestWebSocketClientGone(t *testing.T) {
	t.Parallel()
	cat, name := sharedCatalog(t), uniqueService(t)
	a := startBackend(t, "a")
	cat.register(name, a)
	s := startSidecar(t, sidecarSpec{services: oneService(name, "")})
	s.awaitReady(1)
	conn, err := net.Dial("tcp", s.addr())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprint(conn, "GET /ws HTTP/1.1\r\nHost: e2e\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n")
	if res, err := http.ReadResponse(bufio.NewReader(conn), nil); err != nil || res.StatusCode != 101 {
		t.Fatalf("handshake: %v, %v", res, err)
	}
	a.awaitHeld(1)
	conn.Close()
	a.awaitHeld(0)
	s.awaitService("web", "the lease to end", func(doc admin.ServiceDoc) bool {
		return doc.Endpoints[0].InFlight == 0 && doc.Traffic.TunnelsOpen == 0 && doc.Endpoints[0].FailuresTotal == 0
	})
}
