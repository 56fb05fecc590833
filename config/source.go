package config

import (
	"bytes"
	"fmt"
	"slices"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
)

// Bounds of what is parsed: HCL's parser recurses, so that text made of
// brackets or operators alone could exhaust the stack.
const (
	maxDepth  = 32   // brackets and templates within each other; the deepest setting needs 4
	maxTokens = 4096 // of one line or list
)

// A source is one configuration file.
type source struct {
	name   string
	order  int
	bytes  []byte
	pieces []piece
	cut    int // of the piece at hand
	// broken: the syntax is wrong somewhere, so that what seems to be missing
	// may be there.
	broken bool
	masks  []span // what must not be shown, in order
}

// span is a range of bytes.
type span struct{ from, to int }

// piece is a part of a file that was parsed for itself.
type piece struct {
	body *hclsyntax.Body
	cut  int // byte of the first syntax error: what reaches there is not to be trusted
}

// scan looks at the tokens before the parser does, and finds what must be
// masked. It returns where a file is too deep to parse, nil if it is not.
func (s *source) scan() *hcl.Range {
	tokens, _ := hclsyntax.LexConfig(s.bytes, s.name, hcl.InitialPos) // the parser tells of bad ones
	var open nesting
	inLine := 0
	m := masker{tokens: tokens}
	for i, t := range tokens {
		inLine++
		open.take(t.Type)
		if inLine > maxTokens || len(open) > maxDepth {
			return &t.Range
		}
		if endsLine(t) && open.inBody() {
			inLine = 0
		}
		if m.hides(i, open) || t.Type == hclsyntax.TokenQuotedLit && hasPassword(string(t.Bytes)) {
			s.masks = append(s.masks, span{t.Range.Start.Byte, t.Range.End.Byte})
		}
	}
	return nil
}

// endsLine reports whether a token ends a line; a comment holds its line's end.
func endsLine(t hclsyntax.Token) bool {
	return t.Type == hclsyntax.TokenNewline ||
		t.Type == hclsyntax.TokenComment && len(t.Bytes) > 0 && t.Bytes[len(t.Bytes)-1] == '\n'
}

// nesting is the stack of closing tokens that are awaited. Ones that close
// nothing are passed over: the parser's own depth does not shrink at them.
type nesting []hclsyntax.TokenType

func (n *nesting) take(t hclsyntax.TokenType) {
	switch t {
	case hclsyntax.TokenOBrace:
		*n = append(*n, hclsyntax.TokenCBrace)
	case hclsyntax.TokenOBrack:
		*n = append(*n, hclsyntax.TokenCBrack)
	case hclsyntax.TokenOParen:
		*n = append(*n, hclsyntax.TokenCParen)
	case hclsyntax.TokenOQuote:
		*n = append(*n, hclsyntax.TokenCQuote)
	case hclsyntax.TokenOHeredoc:
		*n = append(*n, hclsyntax.TokenCHeredoc)
	case hclsyntax.TokenTemplateInterp, hclsyntax.TokenTemplateControl:
		*n = append(*n, hclsyntax.TokenTemplateSeqEnd)
	default:
		if last := len(*n) - 1; last >= 0 && (*n)[last] == t {
			*n = (*n)[:last]
		}
	}
}

// inBody reports whether a line end ends an item here.
func (n nesting) inBody() bool {
	return len(n) == 0 || n[len(n)-1] == hclsyntax.TokenCBrace
}

// parse fills pieces. When the syntax is wrong the file is cut before each line
// that begins like a block of the root, and every piece parsed for itself:
// HCL's parser tells of one error only and drops what follows.
func (l *loader) parse(s *source) {
	if fault := s.scan(); fault != nil {
		s.broken = true
		l.report(*fault, "too deep or too long to read",
			fmt.Sprintf("Brackets and templates may be nested %d deep, and a line or list have %d parts. Is one not closed?", maxDepth, maxTokens))
		return
	}
	body, diags := parseBody(s.bytes, s.name, hcl.InitialPos)
	if !diags.HasErrors() {
		s.pieces = []piece{{body, len(s.bytes)}}
		return
	}
	s.broken = true
	from := hcl.InitialPos
	for _, to := range append(s.starts(l.root), hcl.Pos{Byte: len(s.bytes)}) {
		if to.Byte > from.Byte {
			body, diags := parseBody(s.bytes[from.Byte:to.Byte], s.name, from)
			s.pieces = append(s.pieces, piece{body, l.syntax(s, diags, to.Byte)})
			from = to
		}
	}
}

// starts returns where lines begin like blocks of the root: NAME and a brace or
// a quote.
func (s *source) starts(root *block) []hcl.Pos {
	names := root.names()
	for name := range root.foreign {
		names = append(names, name)
	}
	var list []hcl.Pos
	pos := hcl.InitialPos
	for line := range bytes.Lines(s.bytes) {
		word := line[:len(line)-len(bytes.TrimLeft(line, "abcdefghijklmnopqrstuvwxyz_"))]
		rest := bytes.TrimLeft(line[len(word):], " \t")
		if len(rest) > 0 && (rest[0] == '{' || rest[0] == '"') && slices.Contains(names, string(word)) {
			list = append(list, pos)
		}
		pos.Byte += len(line)
		pos.Line++
	}
	return list
}

// parseBody is hclsyntax.ParseConfig, which panics where it finds its own
// state wrong.
func parseBody(b []byte, name string, at hcl.Pos) (body *hclsyntax.Body, diags hcl.Diagnostics) {
	defer func() {
		if p := recover(); p != nil {
			body, diags = nil, hcl.Diagnostics{{
				Severity: hcl.DiagError, Summary: "cannot be parsed", Detail: fmt.Sprint(p),
				Subject: &hcl.Range{Filename: name, Start: at, End: at},
			}}
		}
	}()
	f, diags := hclsyntax.ParseConfig(b, name, at)
	return f.Body.(*hclsyntax.Body), diags
}

// syntax reports the parser's errors in a piece that ends at end, and returns
// where the first is, else end. An error that is repeated (a text that is not
// closed makes one of each line) is reported once. Where text is masked,
// details are left out, as they may quote it.
func (l *loader) syntax(s *source, diags hcl.Diagnostics, end int) (first int) {
	first = end
	seen := map[string]bool{}
	for _, d := range diags {
		if d.Severity != hcl.DiagError || d.Subject == nil {
			continue
		}
		first = min(first, d.Subject.Start.Byte)
		if seen[d.Summary] {
			continue
		}
		seen[d.Summary] = true
		hint := d.Detail
		if s.masked(d.Subject.Start.Byte) {
			hint = ""
		}
		l.report(*d.Subject, lowerFirst(d.Summary), hint)
	}
	return first
}

// masked reports whether the byte at i must not be shown.
func (s *source) masked(i int) bool {
	j, found := slices.BinarySearchFunc(s.masks, i, func(m span, i int) int { return m.from - i })
	return found || j > 0 && i < s.masks[j-1].to
}
