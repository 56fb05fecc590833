package config

import (
	"bytes"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/hashicorp/hcl/v2"
)

// How much of a long line is shown, in bytes before and after the place.
const (
	shownBefore = 60
	shownAfter  = 80
)

// report adds a problem at a place in a file.
func (l *loader) report(at hcl.Range, message, hint string) {
	p := Problem{File: at.Filename, Line: at.Start.Line, Column: at.Start.Column, Message: message, Hint: hint}
	if s := l.byName[at.Filename]; s != nil {
		p.order = s.order
		p.Snippet = s.snippet(at)
	}
	l.add(p)
}

func (l *loader) add(p Problem) { l.problems = append(l.problems, p) }

// snippet returns the line where a range begins, with line number, and below
// it a line that marks the range.
func (s *source) snippet(at hcl.Range) string {
	start := min(at.Start.Byte, len(s.bytes))
	from, head := max(0, start-shownBefore), "..."
	if n := bytes.LastIndexByte(s.bytes[max(0, from-1):start], '\n'); n >= 0 {
		from, head = max(0, from-1)+n+1, ""
	} else if from == 0 {
		head = ""
	}
	to, tail := min(len(s.bytes), start+shownAfter), "..."
	if n := bytes.IndexByte(s.bytes[start:min(len(s.bytes), to+1)], '\n'); n >= 0 {
		to, tail = start+n, ""
	} else if to == len(s.bytes) {
		tail = ""
	}
	var text, marks strings.Builder
	text.WriteString(head)
	marks.WriteString(strings.Repeat(" ", len(head)))
	s.show(&text, &marks, from, to, span{start, max(at.End.Byte, start+1)})
	text.WriteString(tail)
	if start >= to {
		marks.WriteByte('^')
	}
	number := fmt.Sprintf("%4d", at.Start.Line)
	return strings.TrimRight(number+" | "+text.String(), " \t") + "\n" +
		strings.Repeat(" ", len(number)) + " | " + strings.TrimRight(marks.String(), " \t")
}

// show writes the bytes from..to and the marks that belong under them. Masked
// text becomes *** whatever its length, control characters become U+FFFD.
func (s *source) show(text, marks *strings.Builder, from, to int, marked span) {
	inMask := false
	for i := from; i < to; {
		r, n := utf8.DecodeRune(s.bytes[i:to])
		out, mark := string(r), " "
		if i+n > marked.from && i < marked.to {
			mark = "^"
		}
		switch masked := s.masked(i); {
		case masked && inMask:
			out, mark = "", ""
		case masked:
			inMask = true
			out, mark = "***", strings.Repeat(mark, 3)
		case r == '\r' && i+1 == to:
			out, mark = "", ""
		case r == '\t':
			inMask = false
			if mark == " " {
				mark = "\t"
			}
		case !unicode.IsPrint(r):
			out = string(utf8.RuneError)
			inMask = false
		default:
			inMask = false
		}
		text.WriteString(out)
		marks.WriteString(mark)
		i += n
	}
}

// lowerFirst makes a sentence's beginning fit behind a place.
func lowerFirst(s string) string {
	r, n := utf8.DecodeRuneInString(s)
	return string(unicode.ToLower(r)) + s[n:]
}
