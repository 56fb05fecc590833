package sockets

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Layouts are those of Linux's include/uapi/linux/{netlink,inet_diag,tcp}.h.
const (
	nlHeader    = 16 // struct nlmsghdr
	diagMsg     = 72 // struct inet_diag_msg
	idOffset    = 4  // its struct inet_diag_sockid
	idLen       = 48
	reqV2       = 8 + idLen     // struct inet_diag_req_v2
	reqCompat   = 4 + idLen + 8 // struct inet_diag_req
	tcpInfoMin  = 216           // struct tcp_info up to and with tcpi_bytes_retrans (4.19)
	skMemMin    = 6 * 4         // INET_DIAG_SKMEMINFO up to and with SK_MEMINFO_WMEM_QUEUED
	attrInfo    = 2             // INET_DIAG_INFO
	attrSkMem   = 7             // INET_DIAG_SKMEMINFO
	typeError   = 2             // NLMSG_ERROR
	typeDone    = 3             // NLMSG_DONE
	typeCompat  = 18            // TCPDIAG_GETSOCK
	typeDiag    = 20            // SOCK_DIAG_BY_FAMILY
	flagRequest = 0x1
	flagDump    = 0x300
	protoTCP    = 6
)

// TCP states (include/net/tcp_states.h).
const (
	stateEstablished = 1
	stateCloseWait   = 8
	stateListen      = 10

	openStates   = 1<<stateEstablished | 1<<stateCloseWait
	listenStates = 1 << stateListen
)

// sockID is a socket's struct inet_diag_sockid as the kernel wrote it: ports,
// addresses, interface and cookie.
type sockID [idLen]byte

// cookie is unique among the sockets of a network namespace's life.
func (id *sockID) cookie() uint64 { return binary.NativeEndian.Uint64(id[40:]) }

// port is the local one.
func (id *sockID) port() int { return int(binary.BigEndian.Uint16(id[:])) }

// record is what the kernel says of one socket.
type record struct {
	id            sockID
	family, state uint8
	inode         uint32 // 0 while it waits in the accept queue
	rqueue        uint32 // unread bytes; of a listening socket, the accept queue
	wqueue        uint32 // unacknowledged and unsent bytes; its limit

	hasInfo    bool
	sentAge    uint32 // ms since data was last sent, received, an ACK received;
	recvAge    uint32 // in whole ticks of the kernel's clock
	ackAge     uint32
	unacked    uint32 // segments
	segsIn     uint32 // segments received, bare ACKs among them
	segsOut    uint32 // and sent
	dataIn     uint32 // data segments received
	dataOut    uint32 // and sent
	bytesIn    uint64
	bytesOut   uint64 // without retransmissions
	notsent    uint32
	sndbuf     uint32
	sndbufUsed uint32
}

// message is one netlink message: a socket, an error, or the end of a dump.
type message struct {
	kind  uint16
	seq   uint32
	errno int32 // positive; of typeError and typeDone
	rec   record
}

var (
	errShort   = errors.New("netlink: message is cut off")
	errOldInfo = errors.New("netlink: the kernel's TCP_INFO lacks bytes_sent: Linux 4.19 or newer is needed")
)

// parseMessage reads the first message of b into m and returns what follows it.
func parseMessage(b []byte, m *message) ([]byte, error) {
	ne := binary.NativeEndian
	if len(b) < nlHeader {
		return nil, errShort
	}
	n := ne.Uint32(b)
	if n < nlHeader || uint64(n) > uint64(len(b)) {
		return nil, errShort
	}
	body, rest := b[nlHeader:n], b[min(align4(int(n)), len(b)):]
	*m = message{kind: ne.Uint16(b[4:]), seq: ne.Uint32(b[8:])}
	switch m.kind {
	case typeDone, typeError:
		if len(body) >= 4 {
			m.errno = -int32(ne.Uint32(body))
		} else if m.kind == typeError {
			return nil, errShort
		}
		return rest, nil
	case typeDiag, typeCompat:
		return rest, m.rec.parse(body)
	}
	return rest, nil
}

func (r *record) parse(b []byte) error {
	ne := binary.NativeEndian
	if len(b) < diagMsg {
		return errShort
	}
	r.family, r.state = b[0], b[1]
	copy(r.id[:], b[idOffset:])
	r.rqueue, r.wqueue = ne.Uint32(b[56:]), ne.Uint32(b[60:])
	r.inode = ne.Uint32(b[68:])
	for attrs := b[diagMsg:]; len(attrs) >= 4; {
		n, kind := int(ne.Uint16(attrs)), ne.Uint16(attrs[2:])
		if n < 4 || n > len(attrs) {
			return errShort
		}
		if err := r.attr(kind, attrs[4:n]); err != nil {
			return err
		}
		attrs = attrs[min(align4(n), len(attrs)):]
	}
	return nil
}

func (r *record) attr(kind uint16, b []byte) error {
	ne := binary.NativeEndian
	switch kind {
	case attrInfo:
		if len(b) < tcpInfoMin {
			return fmt.Errorf("%w (it has %d bytes)", errOldInfo, len(b))
		}
		r.hasInfo = true
		r.unacked = ne.Uint32(b[24:])
		r.sentAge, r.recvAge, r.ackAge = ne.Uint32(b[44:]), ne.Uint32(b[52:]), ne.Uint32(b[56:])
		r.bytesIn = ne.Uint64(b[128:])
		r.segsOut, r.segsIn = ne.Uint32(b[136:]), ne.Uint32(b[140:])
		r.notsent = ne.Uint32(b[144:])
		r.dataIn, r.dataOut = ne.Uint32(b[152:]), ne.Uint32(b[156:])
		sent, again := ne.Uint64(b[200:]), ne.Uint64(b[208:])
		r.bytesOut = sent - min(sent, again)
	case attrSkMem:
		if len(b) < skMemMin {
			return errShort
		}
		r.sndbuf, r.sndbufUsed = ne.Uint32(b[12:]), ne.Uint32(b[20:])
	}
	return nil
}

// request is a struct inet_diag_req_v2 or its predecessor, behind a header.
//
// The old form is the one that dumps IPv4 and IPv6 in one walk over the table
// (inet_diag_dump_compat in net/ipv4/inet_diag.c), at little over half the cost of two.

// appendDump appends the request for every socket of a local port in some states.
func appendDump(b []byte, seq uint32, port int, states uint32, info bool) []byte {
	b, p := appendHeader(b, typeCompat, flagRequest|flagDump, seq, reqCompat)
	p[0] = 2 // AF_INET; the kernel ignores it
	if info {
		p[3] = extensions
	}
	binary.BigEndian.PutUint16(p[4:], uint16(port))
	binary.NativeEndian.PutUint32(p[4+idLen:], states)
	return b
}

// appendGet appends the request for one socket. The kernel answers with it, or with
// an error where it is gone.
func appendGet(b []byte, seq uint32, family uint8, id *sockID) []byte {
	b, p := appendHeader(b, typeDiag, flagRequest, seq, reqV2)
	p[0], p[1], p[2] = family, protoTCP, extensions
	binary.NativeEndian.PutUint32(p[4:], ^uint32(0))
	copy(p[8:], id[:])
	return b
}

const extensions = 1<<(attrInfo-1) | 1<<(attrSkMem-1)

func appendHeader(b []byte, kind, flags uint16, seq uint32, body int) (all, payload []byte) {
	ne := binary.NativeEndian
	b = ne.AppendUint32(b, uint32(nlHeader+body))
	b = ne.AppendUint16(b, kind)
	b = ne.AppendUint16(b, flags)
	b = ne.AppendUint32(b, seq)
	b = ne.AppendUint32(b, 0)
	for range body {
		b = append(b, 0)
	}
	return b, b[len(b)-body:]
}

func align4(n int) int { return (n + 3) &^ 3 }
