// Package access writes the access log of a service: one line for each request
// that is logged, as JSON or as logfmt.
//
// # The line
//
// A line has these fields in this order, the same names in both formats:
//
//	time           when the request head had come: RFC 3339, UTC, microseconds
//	service        name of the service block
//	client         address of the client, "IP:PORT" or "unix"
//	method         as sent
//	target         as sent, see below
//	host           of the Host field or the target
//	version        protocol of the client, "HTTP/1.1"
//	status         what the client was answered; absent if it left before
//	bytes_in       from the client for this request, head and body as on the wire
//	bytes_out      to the client, head and body as on the wire (HAProxy: bytes_read)
//	read_ms        first byte of the head to its end (HAProxy: TR)
//	queue_ms       waiting for an endpoint, all tries together (Tw)
//	connect_ms     getting a connection, last try; 0.000 for a reused one (Tc)
//	first_byte_ms  from the connection to the head of the answer, last try (Tr)
//	total_ms       first byte of the request head to the last byte of the answer (Ta)
//	endpoint       instance ID in Consul, of the last try
//	address        where that try went, "IP:PORT"
//	tries          how often it was sent or meant to be, 1 without a retry
//	reused         whether the last try went over an idle connection
//	reason         why it ended: "done", or what cut it short
//	user_agent     of the request; the field is left out if there is none
//	request_id     likewise
//	trace_id       likewise
//
// Times are milliseconds with three decimals, cut off, not rounded. What does
// not apply (a phase that was not reached, an endpoint that was not chosen) is
// null in JSON and - in logfmt.
//
// A value that is too long ends in "...", after at most so many bytes as
// written: target 1024, user_agent 512, the others less. A whole line has at
// most 4095 bytes, less than PIPE_BUF, so that lines of several services in one
// pipe never mix. In a file they do not mix because it is opened to append.
//
// The query of a target is written as "?..." unless Config.Query is set; a user
// and password before a host are never written.
//
// # Nothing forged
//
// All values are data of somebody else. In JSON they are strings; in logfmt a
// value that has anything but visible ASCII without =, " and \ is written like a
// JSON string. Control characters, line separators and everything else that is
// not printable come as \n, \" or \uXXXX, bytes that are no UTF-8 as \ufffd. So
// a line is one line on any terminal, and an unquoted - is never a value.
//
// # What is lost, and when
//
// Log never waits for the output. Lines are gathered in a buffer of fixed size,
// and lost (Dropped) when it is full or writing fails. Under load a line is in
// the file after about 50 ms, so a process that is killed loses as much.
package access

import (
	"fmt"
	"path/filepath"
	"strings"
	"time"
	"unicode"
)

// Done is the reason of a request that went as it should. Any other is an error
// and always logged.
const Done = "done"

// NotReached is the duration of a phase that a request did not get to.
const NotReached time.Duration = -1

// Record is one request. Its owner fills it, calls Log and uses it again; the
// Logger keeps nothing of it, so its slices may point into buffers.
// Empty texts are absent in the line, and so are negative durations.
type Record struct {
	Time                 time.Time
	Client               string
	Method, Target, Host []byte
	Version              string
	Status               int // 0: the client left before an answer
	BytesIn, BytesOut    int64

	ReadTime, Queue, Connect, FirstByte, Total time.Duration

	Endpoint, Address string // "": none was chosen
	Tries             int
	Reused            bool
	Reason            string

	UserAgent, RequestID, TraceID []byte
}

// Reset makes r the record of a request of which nothing is known yet.
func (r *Record) Reset() {
	*r = Record{ReadTime: NotReached, Queue: NotReached, Connect: NotReached, FirstByte: NotReached, Total: NotReached}
}

// Config says what of a service is logged and where to.
type Config struct {
	// Path is "stdout", "stderr" or an absolute path. "" is no access log.
	Path string
	// Format is one of Formats.
	Format string
	// Sample is the share of requests without an error that is logged, 0 to 1.
	// Errors are logged always (see Logger.Wants).
	Sample float64
	// Query logs the query of a target too.
	Query bool
	// Buffer is how many bytes of lines may wait to be written, 128 KiB to
	// 256 MiB, in steps of 64 KiB (cut off). Memory is taken when it is needed.
	Buffer int
}

// Bounds of Config.Buffer. A writer needs one chunk to write and one to fill.
const (
	minBuffer = 2 * chunkSize
	maxBuffer = 256 << 20
)

// DefaultConfig returns the settings of a service that says nothing.
func DefaultConfig() Config {
	return Config{
		Path:   "",      // off: it costs a share of the CPU, and only its reader knows where to; HAProxy has none either
		Format: "json",  // what collectors read without a rule of their own
		Sample: 1,       // whoever asks for a log expects all of it
		Query:  false,   // unlike HAProxy: tokens, mail addresses and signatures travel there, and a log is read by many
		Buffer: 1 << 20, // 2,500 lines of 400 bytes: a stall of 0.1 s at 25,000 requests per second
	}
}

// Formats lists what Config.Format allows.
func Formats() []string { return []string{"json", "logfmt"} }

// Validate reports the first setting that is out of range.
func (c Config) Validate() error {
	standard := c.Path == "" || c.Path == "stdout" || c.Path == "stderr"
	switch {
	case !standard && (!filepath.IsAbs(c.Path) || strings.ContainsFunc(c.Path, unicode.IsControl)):
		return fmt.Errorf("access_log path %q is not stdout, stderr or an absolute path", c.Path)
	case c.Format != "json" && c.Format != "logfmt":
		return fmt.Errorf("access_log format %q is not one of %s", c.Format, strings.Join(Formats(), ", "))
	case !(c.Sample >= 0 && c.Sample <= 1): // NaN too
		return fmt.Errorf("access_log sample is %v, allowed are 0 to 1", c.Sample)
	case c.Buffer < minBuffer || c.Buffer > maxBuffer:
		return fmt.Errorf("access_log buffer is %d bytes, allowed are %d to %d", c.Buffer, minBuffer, maxBuffer)
	}
	return nil
}
