package access

import (
	"bytes"
	"strconv"
	"time"
)

// maxLine is the longest line with its newline. The limits below see to it; a
// test holds them to it.
const maxLine = 4095

// The most bytes of a value as written, without quotes and the mark of a cut.
const (
	maxService   = 256 // a name in Consul has at most 253
	maxClient    = 64
	maxMethod    = 32
	maxTarget    = 1024
	maxHost      = 256
	maxVersion   = 16
	maxEndpoint  = 256
	maxAddress   = 128
	maxReason    = 64
	maxUserAgent = 512
	maxID        = 128
)

// key is a field of the line.
type key int

const (
	keyTime key = iota
	keyService
	keyClient
	keyMethod
	keyTarget
	keyHost
	keyVersion
	keyStatus
	keyBytesIn
	keyBytesOut
	keyRead
	keyQueue
	keyConnect
	keyFirstByte
	keyTotal
	keyEndpoint
	keyAddress
	keyTries
	keyReused
	keyReason
	keyUserAgent
	keyRequestID
	keyTraceID
	keys
)

func keyNames() [keys]string {
	return [keys]string{
		"time", "service", "client", "method", "target", "host", "version", "status", "bytes_in", "bytes_out",
		"read_ms", "queue_ms", "connect_ms", "first_byte_ms", "total_ms", "endpoint", "address", "tries", "reused",
		"reason", "user_agent", "request_id", "trace_id",
	}
}

// encoder writes records as lines. It is not changed after it was made, so any
// number of goroutines may use it.
type encoder struct {
	json   bool
	query  bool
	keys   [keys]string // with what stands before and after a name
	absent string
	end    string
	head   []byte // the service's field
}

func newEncoder(c Config, service string) *encoder {
	e := &encoder{json: c.Format == "json", query: c.Query, keys: keyNames(), absent: "-", end: "\n"}
	before, after := " ", "="
	if e.json {
		before, after, e.absent, e.end = `,"`, `":`, "null", "}\n"
	}
	for k := range e.keys {
		e.keys[k] = before + e.keys[k] + after
	}
	e.keys[keyTime] = e.keys[keyTime][1:]
	if e.json {
		e.keys[keyTime] = "{" + e.keys[keyTime]
	}
	e.head = put(e, nil, keyService, service, maxService)
	return e
}

// line appends r's line to b.
func (e *encoder) line(b []byte, r *Record) []byte {
	b = append(b, e.keys[keyTime]...)
	if e.json {
		b = append(appendTime(append(b, '"'), r.Time), '"')
	} else {
		b = appendTime(b, r.Time)
	}
	b = append(b, e.head...)
	b = put(e, b, keyClient, r.Client, maxClient)
	b = put(e, b, keyMethod, r.Method, maxMethod)
	b = e.target(b, r.Target)
	b = put(e, b, keyHost, r.Host, maxHost)
	b = put(e, b, keyVersion, r.Version, maxVersion)
	b = e.integer(b, keyStatus, int64(r.Status), r.Status != 0)
	b = e.integer(b, keyBytesIn, r.BytesIn, true)
	b = e.integer(b, keyBytesOut, r.BytesOut, true)
	b = e.millis(b, keyRead, r.ReadTime)
	b = e.millis(b, keyQueue, r.Queue)
	b = e.millis(b, keyConnect, r.Connect)
	b = e.millis(b, keyFirstByte, r.FirstByte)
	b = e.millis(b, keyTotal, r.Total)
	b = put(e, b, keyEndpoint, r.Endpoint, maxEndpoint)
	b = put(e, b, keyAddress, r.Address, maxAddress)
	b = e.integer(b, keyTries, int64(r.Tries), true)
	if b = append(b, e.keys[keyReused]...); r.Endpoint == "" {
		b = append(b, e.absent...)
	} else {
		b = strconv.AppendBool(b, r.Reused)
	}
	b = put(e, b, keyReason, r.Reason, maxReason)
	b = e.optional(b, keyUserAgent, r.UserAgent, maxUserAgent)
	b = e.optional(b, keyRequestID, r.RequestID, maxID)
	b = e.optional(b, keyTraceID, r.TraceID, maxID)
	return append(b, e.end...)
}

func (e *encoder) integer(b []byte, k key, n int64, there bool) []byte {
	b = append(b, e.keys[k]...)
	if !there {
		return append(b, e.absent...)
	}
	return strconv.AppendInt(b, n, 10)
}

func (e *encoder) millis(b []byte, k key, d time.Duration) []byte {
	b = append(b, e.keys[k]...)
	if d < 0 {
		return append(b, e.absent...)
	}
	us := uint64(d / time.Microsecond)
	return appendDigits(append(strconv.AppendUint(b, us/1000, 10), '.'), us, 3)
}

func (e *encoder) optional(b []byte, k key, v []byte, most int) []byte {
	if len(v) == 0 {
		return b
	}
	return put(e, b, k, v, most)
}

// target writes what may be shown of a request target: no user and password,
// and no query unless it is wanted. A fragment, which no valid target has,
// counts as a query.
func (e *encoder) target(b, t []byte) []byte {
	b = append(b, e.keys[keyTarget]...)
	before, after := "", ""
	query := bytes.IndexByte(t, '?')
	if i := bytes.IndexByte(t, '#'); i >= 0 && (query < 0 || i < query) {
		query = i
	}
	if len(t) > 0 && t[0] != '/' { // absolute or authority form, or nonsense
		if at := userinfo(t); at > 0 {
			before, t, query = "...", t[at:], query-at
		}
	}
	if !e.query && query >= 0 {
		t, after = t[:query], "?..."
	}
	return value(e, b, before, t, after, maxTarget)
}

// userinfo returns where the @ after a user is in a target, -1 if there is none.
func userinfo(t []byte) int {
	from := 0
	if i := bytes.Index(t, []byte("://")); i >= 0 {
		from = i + len("://")
	}
	end := bytes.IndexAny(t[from:], "/?#")
	if end < 0 {
		end = len(t) - from
	}
	at := bytes.LastIndexByte(t[from:from+end], '@')
	if at < 0 {
		return -1
	}
	return from + at
}

func put[T string | []byte](e *encoder, b []byte, k key, v T, most int) []byte {
	return value(e, append(b, e.keys[k]...), "", v, "", most)
}

// value writes v with what stands for its hidden parts; of v at most most bytes
// as written.
func value[T string | []byte](e *encoder, b []byte, before string, v T, after string, most int) []byte {
	if len(v)+len(before)+len(after) == 0 {
		return append(b, e.absent...)
	}
	if !e.json && len(v) <= most && bare(v) {
		return append(append(append(b, before...), v...), after...)
	}
	b = append(append(b, '"'), before...)
	b = appendEscaped(b, v, most)
	return append(append(b, after...), '"')
}

// appendTime writes t as 2026-11-21T12:34:56.789012Z.
func appendTime(b []byte, t time.Time) []byte {
	t = t.UTC()
	year, month, day := t.Date()
	hour, minute, sec := t.Clock()
	b = append(appendDigits(b, uint64(year), 4), '-')
	b = append(appendDigits(b, uint64(month), 2), '-')
	b = append(appendDigits(b, uint64(day), 2), 'T')
	b = append(appendDigits(b, uint64(hour), 2), ':')
	b = append(appendDigits(b, uint64(minute), 2), ':')
	b = append(appendDigits(b, uint64(sec), 2), '.')
	return append(appendDigits(b, uint64(t.Nanosecond()/1000), 6), 'Z')
}

// appendDigits writes the last width digits of n.
func appendDigits(b []byte, n uint64, width int) []byte {
	const zeros = "000000"
	b = append(b, zeros[:width]...)
	for i := len(b) - 1; i >= len(b)-width; i-- {
		b[i] = byte('0' + n%10)
		n /= 10
	}
	return b
}
