package access

import (
	"unicode"
	"unicode/utf8"
)

const (
	isPlain = 1 << iota // stands for itself in a JSON string
	isBare              // needs no quotes in logfmt
)

var class = makeClasses() // read-only

func makeClasses() (t [256]uint8) {
	for c := ' '; c < 0x7f; c++ {
		if c != '"' && c != '\\' {
			t[c] |= isPlain
			if c != ' ' && c != '=' {
				t[c] |= isBare
			}
		}
	}
	return t
}

// bare reports whether logfmt may write v without quotes. A lone - may not be:
// it stands for what is absent.
func bare[T string | []byte](v T) bool {
	for i := range len(v) {
		if class[v[i]]&isBare == 0 {
			return false
		}
	}
	return len(v) != 1 || v[0] != '-'
}

func plain(c byte) bool { return class[c]&isPlain != 0 }

// appendEscaped writes v as the inside of a JSON string (RFC 8259 section 7),
// at most most bytes of it; "..." is added if that is not all.
func appendEscaped[T string | []byte](b []byte, v T, most int) []byte {
	limit := len(b) + most
	for i := 0; i < len(v); {
		end := min(len(v), i+limit-len(b))
		j := i
		for j < end && plain(v[j]) {
			j++
		}
		b = append(b, v[i:j]...)
		if i = j; i == len(v) {
			break
		}
		n := len(b)
		b, j = appendOne(b, v, i)
		if len(b) > limit { // whole characters only
			return append(b[:n], "..."...)
		}
		i = j
	}
	return b
}

// appendOne writes the character of v at i and returns where the next begins.
func appendOne[T string | []byte](b []byte, v T, i int) ([]byte, int) {
	c := v[i]
	switch {
	case plain(c):
		return append(b, c), i + 1
	case c == '"' || c == '\\':
		return append(b, '\\', c), i + 1
	case c == '\n':
		return append(b, `\n`...), i + 1
	case c == '\r':
		return append(b, `\r`...), i + 1
	case c == '\t':
		return append(b, `\t`...), i + 1
	case c < utf8.RuneSelf:
		return appendUnit(b, rune(c)), i + 1
	}
	r, n := utf8.DecodeRuneInString(string(v[i:min(i+utf8.UTFMax, len(v))]))
	switch {
	case r == utf8.RuneError && n == 1:
		return append(b, `\ufffd`...), i + 1
	case unicode.IsPrint(r):
		return append(b, v[i:i+n]...), i + n
	case r > 0xffff: // a surrogate pair
		r -= 0x10000
		return appendUnit(appendUnit(b, 0xd800+r>>10), 0xdc00+r&0x3ff), i + n
	default:
		return appendUnit(b, r), i + n
	}
}

// appendUnit writes \uXXXX.
func appendUnit(b []byte, u rune) []byte {
	const hex = "0123456789abcdef"
	return append(b, '\\', 'u', hex[u>>12&15], hex[u>>8&15], hex[u>>4&15], hex[u&15])
}
