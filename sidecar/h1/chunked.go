package h1

import "errors"

// chunkState is where in the grammar of RFC 9112 section 7.1 a decoder stands.
type chunkState uint8

const (
	csSize         chunkState = iota // hex digits, none yet
	csSizeMore                       // hex digits
	csBlank                          // white space after it: an extension must follow
	csExtStart                       // after ";": a name must follow
	csExtName                        // within one
	csExtNameBlank                   // white space after it: "=" or another extension must follow
	csExtEq                          // after "=": a value must follow
	csExtToken                       // within one
	csQuoted                         // within a quoted one
	csQuotedPair                     // after a backslash in it
	csQuotedEnd                      // after its closing quote
	csExtBlank                       // white space after a value: another extension must follow
	csSizeLF                         // after the CR of the size line
	csData                           // within chunk data
	csDataCR                         // after it
	csDataLF
	csTrailer   // at the start of a trailer line
	csTrailerIn // within one
	csTrailerLF // after its CR
	csEndLF     // after the CR of the empty line
	csDone
)

const (
	maxChunkLine = 512     // bytes of a size line with its extensions
	maxTrailers  = 8 << 10 // bytes of the trailer section
	maxExtTotal  = 16 << 10
)

// chunkDecoder takes the chunked coding off a body, strictly. It keeps no
// data: the caller's buffer is compacted in place.
type chunkDecoder struct {
	state    chunkState
	left     int64 // bytes of data left in the chunk
	digits   int
	lineLen  int
	overhead int    // bytes of extensions so far
	trailers []byte // raw trailer lines, kept for checking and forwarding
}

func (d *chunkDecoder) reset() { *d = chunkDecoder{trailers: d.trailers[:0]} }

func (d *chunkDecoder) done() bool { return d.state == csDone }

var errChunk = errors.New("the chunked body is malformed")

// decode reads from b. The decoded data is moved to the front of b: n bytes of
// it. used is how much of b was read; it is less than len(b) only once the
// message has ended (done) and the rest belongs to the next one.
func (d *chunkDecoder) decode(b []byte) (n, used int, err error) {
	for used < len(b) && d.state != csDone {
		if d.state == csData {
			k := int(min(d.left, int64(len(b)-used)))
			copy(b[n:], b[used:used+k])
			n, used, d.left = n+k, used+k, d.left-int64(k)
			if d.left == 0 {
				d.state = csDataCR
			}
			continue
		}
		if err := d.step(b[used]); err != nil {
			return n, used, err
		}
		used++
	}
	return n, used, nil
}

// step takes one byte that is not chunk data.
func (d *chunkDecoder) step(c byte) error {
	if d.state < csSizeLF {
		return d.sizeLine(c)
	}
	switch d.state {
	case csSizeLF:
		if c != '\n' {
			return errChunk
		}
		d.state = csData
		if d.left == 0 {
			d.state = csTrailer
		}
	case csDataCR:
		if c != '\r' {
			return errChunk
		}
		d.state = csDataLF
	case csDataLF:
		if c != '\n' {
			return errChunk
		}
		d.state, d.digits, d.lineLen = csSize, 0, 0
	default:
		return d.trailer(c)
	}
	return nil
}

// sizeLine takes a byte of chunk-size and extensions.
func (d *chunkDecoder) sizeLine(c byte) error {
	if d.lineLen++; d.lineLen > maxChunkLine {
		return errChunk
	}
	if d.state > csSizeMore {
		// Extensions are dropped, but an endless supply of them is an attack.
		if d.overhead++; d.overhead > maxExtTotal {
			return errChunk
		}
		return d.extension(c)
	}
	if class[c]&isHex != 0 {
		// 15 digits are 2^60: no overflow, and more zeros serve nobody.
		if d.digits++; d.digits > 15 {
			return errChunk
		}
		d.left, d.state = d.left<<4|int64(unhex(c)), csSizeMore
		return nil
	}
	if d.state == csSize {
		return errChunk // no digits
	}
	return d.between(c, csBlank)
}

// between takes a byte where the size line may end, an extension begin, or
// white space lead to one: then the state is blank.
func (d *chunkDecoder) between(c byte, blank chunkState) error {
	switch c {
	case '\r':
		d.state = csSizeLF
	case ';':
		d.state = csExtStart
	case ' ', '\t':
		d.state = blank
	default:
		return errChunk
	}
	return nil
}

// extension takes a byte of
//
//	chunk-ext = *( BWS ";" BWS name [ BWS "=" BWS ( token / quoted-string ) ] )
//
// (RFC 9112 section 7.1.1). White space is allowed between its parts alone:
// what ends a line with it, some read on and some do not.
func (d *chunkDecoder) extension(c byte) error {
	token, blank := class[c]&isToken != 0, c == ' ' || c == '\t'
	switch d.state {
	case csQuoted, csQuotedPair:
		return d.quoted(c)
	case csExtStart, csExtEq:
		switch {
		case blank:
		case token:
			d.state++ // csExtName, csExtToken
		case c == '"' && d.state == csExtEq:
			d.state = csQuoted
		default:
			return errChunk
		}
		return nil
	case csExtName, csExtToken:
		if token {
			return nil
		}
	}
	switch named := d.state == csExtName || d.state == csExtNameBlank; {
	case c == '=' && named:
		d.state = csExtEq
		return nil
	case c == '\r' && (d.state == csBlank || d.state == csExtNameBlank || d.state == csExtBlank):
		return errChunk // trailing white space
	case named:
		return d.between(c, csExtNameBlank)
	case d.state == csBlank:
		return d.between(c, csBlank)
	default:
		return d.between(c, csExtBlank)
	}
}

func (d *chunkDecoder) quoted(c byte) error {
	switch {
	case class[c]&isValue == 0:
		return errChunk
	case d.state == csQuotedPair:
		d.state = csQuoted
	case c == '\\':
		d.state = csQuotedPair
	case c == '"':
		d.state = csQuotedEnd
	}
	return nil
}

// trailer takes a byte of the trailer section.
func (d *chunkDecoder) trailer(c byte) error {
	switch d.state {
	case csTrailer:
		if c == '\r' {
			d.state = csEndLF
			return nil
		}
		d.state = csTrailerIn
		fallthrough
	case csTrailerIn:
		if c == '\n' || len(d.trailers) >= maxTrailers {
			return errChunk
		}
		d.trailers = append(d.trailers, c)
		if c == '\r' {
			d.state = csTrailerLF
		}
	case csTrailerLF:
		if c != '\n' {
			return errChunk
		}
		d.trailers = append(d.trailers, c)
		d.state = csTrailer
	case csEndLF:
		if c != '\n' || !trailersOK(d.trailers) {
			return errChunk
		}
		d.state = csDone
	}
	return nil
}

// trailersOK reports whether every line is a field.
func trailersOK(b []byte) bool {
	for len(b) > 0 {
		l, rest := line(b)
		b = rest
		if name, value := splitField(l); !all(name, isToken) || len(name) == 0 || !all(value, isValue) {
			return false
		}
	}
	return true
}

func splitField(l []byte) (name, value []byte) {
	for i, c := range l {
		if c == ':' {
			return l[:i], trim(l[i+1:])
		}
	}
	return nil, nil
}

// appendTrailers appends the trailer fields that may pass a proxy: not those
// that frame, route, authenticate or modify the message (RFC 9110 section
// 6.5.1), which somebody behind us might take into the head.
func (d *chunkDecoder) appendTrailers(dst []byte) []byte {
	for b := d.trailers; len(b) > 0; {
		l, rest := line(b)
		b = rest
		if name, _ := splitField(l); identify(name) == other && !headOnly(name) && !claimsOrigin(name) {
			dst = append(append(dst, l...), "\r\n"...)
		}
	}
	return dst
}

// headOnly reports whether a field, not one that the engine knows, has no place
// in a trailer section: the list is that of RFC 7230 section 4.1.2.
func headOnly(name []byte) bool {
	for _, s := range headOnlyNames {
		if fold(name, s) {
			return true
		}
	}
	return false
}

var headOnlyNames = [...]string{ // read-only
	"age", "authorization", "cache-control", "content-encoding", "content-range", "content-type", "cookie", "expires",
	"if-match", "if-modified-since", "if-none-match", "if-range", "if-unmodified-since", "location", "pragma", "range",
	"retry-after", "set-cookie", "vary", "warning", "www-authenticate",
}

func unhex(c byte) byte {
	switch {
	case c <= '9':
		return c - '0'
	case c <= 'F':
		return c - 'A' + 10
	default:
		return c - 'a' + 10
	}
}

// appendHex appends n in hexadecimal.
func appendHex(dst []byte, n int) []byte {
	const digits = "0123456789abcdef"
	shift := 0
	for n>>shift > 15 {
		shift += 4
	}
	for ; shift >= 0; shift -= 4 {
		dst = append(dst, digits[n>>shift&15])
	}
	return dst
}
