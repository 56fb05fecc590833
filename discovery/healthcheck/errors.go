package healthcheck

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unicode"
	"unicode/utf8"
)

// ErrNoVerdict is wrapped by errors that say nothing about the endpoint: this machine
// lacks something, or the check was called off.
var ErrNoVerdict = errors.New("not checked")

// connectError is wrapped around errors of a connection that was not made, TLS included.
type connectError struct{ error }

func (e connectError) Unwrap() error { return e.error }

// Unreachable reports whether a check failed because no connection could be made.
func Unreachable(err error) bool {
	var c connectError
	return errors.As(err, &c)
}

// ours reports whether it is this machine that lacks something, or its resolver that
// does not answer: requests may go on over connections that there are.
func ours(err error) bool {
	var dns *net.DNSError
	if errors.As(err, &dns) {
		return !dns.IsNotFound
	}
	for _, e := range []error{syscall.EMFILE, syscall.ENFILE, syscall.EADDRNOTAVAIL, syscall.ENOBUFS, syscall.ENOMEM} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// explain words an error of the network for a reader who knows the address. doing is
// what was being done, limit the time it had.
func explain(doing string, err error, limit time.Duration) error {
	var unknown x509.UnknownAuthorityError
	var name x509.HostnameError
	var plain tls.RecordHeaderError
	var dns *net.DNSError
	switch {
	case errors.As(err, &dns):
		return fmt.Errorf("%s: %w", doing, dns)
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		return timedOut{fmt.Sprintf("%s: no end of it within %s", doing, limit)}
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("%s: refused, nothing listens there: %w", doing, syscall.ECONNREFUSED)
	case errors.As(err, &unknown):
		return fmt.Errorf("%s: %w (set ca_file in the service's tls block to the authority that signed the certificate)", doing, err)
	case errors.As(err, &name):
		return fmt.Errorf("%s: %w (set server_name in the service's tls block to a name that the certificate has)", doing, err)
	case errors.As(err, &plain):
		return fmt.Errorf("%s: what answers does not speak TLS", doing)
	}
	var op *net.OpError
	if errors.As(err, &op) && op.Err != nil && op.Op != "remote error" { // without the addresses, which are known
		err = op.Err
	}
	return fmt.Errorf("%s: %w", doing, err)
}

// timedOut is the error of a check that ran into its timeout.
type timedOut struct{ text string }

func (e timedOut) Error() string        { return e.text }
func (e timedOut) Is(target error) bool { return target == context.DeadlineExceeded }

// maxText bounds what an endpoint can put into logs and status pages, in bytes.
const maxText = 300

// errorText is an error on one printable line.
func errorText(err error) string {
	text := err.Error()
	if len(text) > maxText {
		text = strings.ToValidUTF8(text[:maxText], "") + "..."
	}
	if strings.ContainsFunc(text, func(c rune) bool { return c == utf8.RuneError || !unicode.IsPrint(c) }) {
		return strconv.QuoteToASCII(text)
	}
	return text
}

// isNet reports whether an error is the connection's, and not of what it carried.
func isNet(err error) bool {
	var e net.Error
	return errors.As(err, &e)
}
