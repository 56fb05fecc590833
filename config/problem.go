package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// maxShown bounds how many problems Problems.Error prints.
const maxShown = 500

// Problem is one thing that is wrong with a configuration. None of its texts
// holds a secret, nor a value that env() or file() read.
type Problem struct {
	File         string // "" when the problem is of no single file
	Line, Column int    // from 1; 0 when there is no place in the file
	Message      string
	Hint         string // what is allowed or what to do; may be ""
	// Snippet is the source line and, below it, a line that marks the place.
	// "" when there is no line to show.
	Snippet string

	order int // of the file among those loaded
}

// Place returns FILE:LINE:COLUMN, or as much of it as is known.
func (p Problem) Place() string {
	switch {
	case p.File == "":
		return ""
	case p.Line == 0:
		return p.File
	default:
		return fmt.Sprintf("%s:%d:%d", p.File, p.Line, p.Column)
	}
}

// String returns the place, the message, the marked source line and the hint,
// without a line end.
func (p Problem) String() string {
	var b strings.Builder
	if place := p.Place(); place != "" {
		b.WriteString(place + ": ")
	}
	b.WriteString(p.Message)
	if p.Snippet != "" {
		b.WriteString("\n" + p.Snippet)
	}
	if p.Hint != "" {
		b.WriteString("\n  " + p.Hint)
	}
	return b.String()
}

// Problems is everything that is wrong, in the order of files and lines. It is
// the error of Load and LoadAgent.
type Problems []Problem

// Error returns every problem, each with its source line, over several lines.
func (ps Problems) Error() string {
	var b strings.Builder
	for i, p := range ps {
		if i == maxShown {
			fmt.Fprintf(&b, "\n\nand %d more", len(ps)-maxShown)
			break
		}
		if i > 0 {
			b.WriteString("\n\n")
		}
		b.WriteString(p.String())
	}
	return b.String()
}

// sorted returns the problems in order, each once, as an error.
func (ps Problems) sorted() error {
	if len(ps) == 0 {
		return nil
	}
	slices.SortStableFunc(ps, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.order, b.order), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	return slices.Compact(ps)
}
