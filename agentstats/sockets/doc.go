// Package sockets tells how many requests are in a backend from the kernel's view of
// its connections, with no help from the backend, and how long its accept queue is.
//
// # What counts
//
// A request is in the backend from the moment its first bytes arrive at the backend's
// host until the backend has written its response. One that waits in the accept queue
// counts. A connection is worth at most one request.
//
// # The rule
//
// TCP_INFO (Linux's include/uapi/linux/tcp.h, 4.19 or newer) of each connection in
// ESTABLISHED or CLOSE_WAIT (a client that gave up: the backend works on) is judged in
// this order; [Sample] has the sums:
//
//  1. Nothing was received (the FIN left out): idle.
//  2. Something was received and nothing was ever written back: busy.
//  3. Bytes that the backend has not read, since it wrote last: busy.
//  4. The backend waits for room in a full send buffer: busy.
//  5. Data was received later than data was sent: busy. Sent later than received: idle,
//     unless the response goes on growing (a stream) at the pace it had so far.
//  6. Both in one tick of the kernel's clock (4 ms at HZ=250), a tie: the request came
//     first and was answered within the tick, or it follows the last response at once.
//     It is idle when something sent is not acknowledged, or was acknowledged by a bare
//     ACK later on: a client's next request carries the ACK itself. Else the segment
//     counters tell, where this connection's earlier samples showed how many segments
//     one response takes, or that the kernel never had to acknowledge a request by
//     itself. What is left counts as the probability that it is busy, which is learnt
//     from requests whose time is known, from what the counters add up to, and from the
//     bare ACKs (see tieOdds). [Sample] says how much of it is guesswork.
//
// # Where it errs
//
// README has the measured error. The kernel cannot tell
//   - requests multiplexed on one connection (HTTP/2, gRPC): at most 1 per connection,
//     and a control frame (PING, SETTINGS, WINDOW_UPDATE) that comes last makes an idle
//     connection look busy or a busy one idle. Such a backend must declare its in-flight;
//   - pipelined HTTP/1.1 requests: they count as one, and until the first is answered;
//   - tunnels (WebSocket): busy while the client spoke last;
//   - responses that pause for longer than a second (server-sent events): idle meanwhile;
//   - TLS 1.3 servers that send no session tickets: a connection that was opened and not
//     yet used looks busy, since the client's Finished comes last;
//   - services that share a port number in one network namespace on different addresses:
//     they are added up.
package sockets
