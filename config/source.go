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
// masked. It returns where the bytes are too deep to parse, nil if they are not.
func (s *source) scan(b []byte, at hcl.Pos) (fault *hcl.Range) {
	tokens, _ := hclsyntax.LexConfig(b, s.name, at) // the parser tells of bad ones
	var open nesting
	inLine := 0
	m := masker{tokens: tokens}
	for i, t := range tokens {
		inLine++
		open.take(t)
		if fault == nil && (inLine > maxTokens || len(open) > maxDepth) {
			fault = open.suspect(t)
		}
		if endsLine(t) && open.inBody() {
			inLine = 0
		}
		if m.hides(i, open) || t.Type == hclsyntax.TokenQuotedLit && hasPassword(string(t.Bytes)) {
			s.masks = append(s.masks, span{t.Range.Start.Byte, t.Range.End.Byte})
		}
	}
	return fault
}

// endsLine reports whether a token ends a line; a comment holds its line's end.
func endsLine(t hclsyntax.Token) bool {
	return t.Type == hclsyntax.TokenNewline ||
		t.Type == hclsyntax.TokenComment && len(t.Bytes) > 0 && t.Bytes[len(t.Bytes)-1] == '\n'
}

// nesting is the stack of what is open. Tokens that close nothing are passed
// over: the parser's own depth does not shrink at them.
type nesting []opener

type opener struct {
	closer hclsyntax.TokenType
	at     hcl.Range
}

func (n *nesting) take(t hclsyntax.Token) {
	var closer hclsyntax.TokenType
	switch t.Type {
	case hclsyntax.TokenOBrace:
		closer = hclsyntax.TokenCBrace
	case hclsyntax.TokenOBrack:
		closer = hclsyntax.TokenCBrack
	case hclsyntax.TokenOParen:
		closer = hclsyntax.TokenCParen
	case hclsyntax.TokenOQuote:
		closer = hclsyntax.TokenCQuote
	case hclsyntax.TokenOHeredoc:
		closer = hclsyntax.TokenCHeredoc
	case hclsyntax.TokenTemplateInterp, hclsyntax.TokenTemplateControl:
		closer = hclsyntax.TokenTemplateSeqEnd
	default:
		if last := len(*n) - 1; last >= 0 && (*n)[last].closer == t.Type {
			*n = (*n)[:last]
		}
		return
	}
	*n = append(*n, opener{closer, t.Range})
}

// inBody reports whether a line end ends an item here.
func (n nesting) inBody() bool {
	return len(n) == 0 || n[len(n)-1].closer == hclsyntax.TokenCBrace
}

// suspect returns what is likeliest not closed when there is too much at t: the
// outermost that a block is not made of.
func (n nesting) suspect(t hclsyntax.Token) *hcl.Range {
	for _, o := range n {
		if o.closer != hclsyntax.TokenCBrace {
			return &o.at
		}
	}
	return &t.Range
}

// parse fills pieces. When the syntax is wrong the file is cut before each line
// that begins like a block of the root, and every piece parsed for itself:
// HCL's parser tells of one error only and drops what follows.
func (l *loader) parse(s *source) {
	if s.scan(s.bytes, hcl.InitialPos) == nil {
		if body, diags := parseBody(s.bytes, s.name, hcl.InitialPos); !diags.HasErrors() {
			s.pieces = []piece{{body, len(s.bytes)}}
			return
		}
	}
	s.broken = true
	starts := append([]hcl.Pos{hcl.InitialPos}, s.starts(l.root)...)
	faults := make([]*hcl.Range, len(starts))
	part := func(i int) []byte {
		if i+1 < len(starts) {
			return s.bytes[starts[i].Byte:starts[i+1].Byte]
		}
		return s.bytes[starts[i].Byte:]
	}
	for i, at := range starts {
		faults[i] = s.scan(part(i), at)
	}
	s.maskLines()
	for i, at := range starts {
		if faults[i] != nil {
			l.report(*faults[i], "too deep or too long to read",
				fmt.Sprintf("Brackets and templates may be nested %d deep, and a line or list have %d parts. Is one not closed?", maxDepth, maxTokens))
			continue
		}
		body, diags := parseBody(part(i), s.name, at)
		s.pieces = append(s.pieces, piece{body, l.syntax(s, diags, at.Byte+len(part(i)))})
	}
}

// starts returns where lines, but for the first, begin like blocks of the root:
// NAME and a brace or a quote.
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
		if pos.Byte > 0 && len(rest) > 0 && (rest[0] == '{' || rest[0] == '"') && slices.Contains(names, string(word)) {
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
