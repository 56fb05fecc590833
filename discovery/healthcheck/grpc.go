package healthcheck

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"syscall"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
)

// healthMethod is the health service's of
// https://github.com/grpc/grpc/blob/master/doc/health-checking.md.
const healthMethod = "/grpc.health.v1.Health/Check"

const (
	// maxGRPCAnswer bounds an answer: the message has two bytes as a rule.
	maxGRPCAnswer = 4 << 10
	framePrefix   = 5 // compressed or not, and the message's length
)

// States of HealthCheckResponse.ServingStatus.
const (
	servingUnknown    = 0
	serving           = 1
	notServing        = 2
	servingNotService = 3 // only Watch answers so
)

// Codes of grpc-status that have a meaning of their own here.
const (
	codeOK            = 0
	codeNotFound      = 5
	codeUnimplemented = 12
)

// grpcCheck is a check by gRPC's health service over net/http's HTTP/2. Safe for
// concurrent use.
type grpcCheck struct {
	service   string
	frame     []byte
	transport *http.Transport
}

// connKey is the context key of the connection that a request is made over.
type connKey struct{}

func newGRPCCheck(cfg GRPCConfig) *grpcCheck {
	given := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return ctx.Value(connKey{}).(net.Conn), nil
	}
	protocols := new(http.Protocols)
	protocols.SetHTTP2(true)
	protocols.SetUnencryptedHTTP2(true)
	return &grpcCheck{
		service: cfg.Service,
		frame:   encodeRequest(cfg.Service),
		transport: &http.Transport{
			DialContext: given, DialTLSContext: given,
			Protocols:              protocols,
			DisableCompression:     true,
			MaxResponseHeaderBytes: maxHead,
		},
	}
}

// encodeRequest returns the framed HealthCheckRequest{service = 1}.
func encodeRequest(service string) []byte {
	frame := make([]byte, framePrefix)
	if service != "" {
		frame = protowire.AppendTag(frame, 1, protowire.BytesType)
		frame = protowire.AppendString(frame, service)
	}
	binary.BigEndian.PutUint32(frame[1:], uint32(len(frame)-framePrefix))
	return frame
}

// ask makes the call over conn, which stays the caller's to close.
func (g *grpcCheck) ask(ctx context.Context, conn net.Conn, addr string, limit time.Duration) error {
	scheme := "http"
	if secure, ok := conn.(*tls.Conn); ok {
		scheme = "https"
		if secure.ConnectionState().NegotiatedProtocol != "h2" {
			return errors.New("the endpoint does not offer HTTP/2 by TLS (ALPN h2), which gRPC needs")
		}
	}
	cc, err := g.transport.NewClientConn(context.WithValue(ctx, connKey{}, conn), scheme, addr)
	if err != nil {
		return explain("begin HTTP/2", err, limit)
	}
	defer cc.Close()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, scheme+"://"+addr+healthMethod, bytes.NewReader(g.frame))
	if err != nil {
		return fmt.Errorf("the address %.200q makes no request", addr)
	}
	req.Header = http.Header{
		"Content-Type": {"application/grpc"},
		"Te":           {"trailers"},
		"Grpc-Timeout": {strconv.FormatInt(max(1, limit.Milliseconds()), 10) + "m"},
		"User-Agent":   {userAgent},
	}
	resp, err := cc.RoundTrip(req)
	if err != nil {
		return g.broken(err, limit)
	}
	defer resp.Body.Close()
	return g.judge(resp, limit)
}

// broken words the end of a call without an answer.
func (g *grpcCheck) broken(err error, limit time.Duration) error {
	doing := "call the health service"
	// What speaks HTTP/1.1 says so and closes: which of the two shows is chance.
	broke := errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET)
	if broke || !isNet(err) && !errors.Is(err, context.DeadlineExceeded) {
		doing += ": what answers does not speak gRPC (HTTP/2), or broke off"
	}
	return explain(doing, err, limit)
}

// judge reads the answer; nil: SERVING.
func (g *grpcCheck) judge(resp *http.Response, limit time.Duration) error {
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("answered HTTP status %d in the place of gRPC", resp.StatusCode)
	}
	if t := resp.Header.Get("Content-Type"); !isGRPC(t) {
		return errors.New("the answer's Content-Type is not application/grpc")
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxGRPCAnswer+1))
	if err != nil {
		return g.broken(err, limit)
	}
	if len(body) > maxGRPCAnswer {
		return fmt.Errorf("the answer is longer than %d bytes", maxGRPCAnswer)
	}
	// An answer without a message has its status in the head (Trailers-Only).
	end := resp.Trailer
	if len(body) == 0 && end.Get("Grpc-Status") == "" {
		end = resp.Header
	}
	if err := g.status(end.Get("Grpc-Status"), end.Get("Grpc-Message")); err != nil {
		return err
	}
	state, err := parseAnswer(body)
	if err != nil {
		return err
	}
	return servingError(state)
}

func isGRPC(contentType string) bool {
	rest, ok := strings.CutPrefix(strings.ToLower(contentType), "application/grpc")
	return ok && (rest == "" || rest[0] == '+' || rest[0] == ';')
}

// status judges the status of the call itself.
func (g *grpcCheck) status(status, message string) error {
	code, err := strconv.ParseUint(status, 10, 16)
	if err != nil {
		return errors.New("the answer has no valid grpc-status")
	}
	switch code {
	case codeOK:
		return nil
	case codeUnimplemented:
		return errors.New("the server has no service grpc.health.v1.Health: register it there, or check by tcp")
	case codeNotFound:
		return fmt.Errorf("the server's health service does not know the service %.100q", g.service)
	}
	if text, err := url.PathUnescape(message); err == nil {
		message = text // percent-encoded, as gRPC over HTTP/2 has it
	}
	return fmt.Errorf("grpc-status %d: %.200s", code, message)
}

// parseAnswer reads the one framed HealthCheckResponse of an answer and returns its
// status.
func parseAnswer(body []byte) (uint64, error) {
	if len(body) < framePrefix {
		return 0, errors.New("the answer has no message")
	}
	if body[0] != 0 {
		return 0, errors.New("the answer is compressed, which was not asked for")
	}
	message := body[framePrefix:]
	if n := binary.BigEndian.Uint32(body[1:framePrefix]); uint64(n) != uint64(len(message)) {
		return 0, errors.New("the answer is not one whole message")
	}
	state := uint64(servingUnknown)
	for len(message) > 0 {
		number, kind, n := protowire.ConsumeTag(message)
		if n < 0 {
			return 0, errors.New("the answer is not a valid message")
		}
		message = message[n:]
		if number == 1 && kind == protowire.VarintType {
			state, n = protowire.ConsumeVarint(message)
		} else {
			n = protowire.ConsumeFieldValue(number, kind, message)
		}
		if n < 0 {
			return 0, errors.New("the answer is not a valid message")
		}
		message = message[n:]
	}
	return state, nil
}

func servingError(state uint64) error {
	switch state {
	case serving:
		return nil
	case servingUnknown:
		return errors.New("answered UNKNOWN, expected SERVING")
	case notServing:
		return errors.New("answered NOT_SERVING, expected SERVING")
	case servingNotService:
		return errors.New("answered SERVICE_UNKNOWN, expected SERVING")
	}
	return fmt.Errorf("answered the unknown state %d, expected SERVING", state)
}
