package config

import (
	"bytes"
	"cmp"
	"regexp"
	"slices"
	"strings"

	"github.com/agext/levenshtein"
	"github.com/hashicorp/hcl/v2/hclsyntax"
)

// A masker finds the tokens that spell a secret: what follows a name that is, or
// looks like, that of a secret. It works on tokens because the text may be one
// that does not parse. What remains visible are punctuation and calls of env and
// file with their first argument, which is a name.
type masker struct {
	tokens hclsyntax.Tokens
	active bool
	depth  int  // of the nesting around the name
	loose  bool // the name was quoted, so perhaps no setting's: ends with the line
}

// hides reports whether token i is to be masked; open is the nesting after it.
// It is called for every token in order.
func (m *masker) hides(i int, open nesting) bool {
	t := m.tokens[i]
	if m.active {
		if len(open) < m.depth || endsLine(t) && (len(open) == m.depth || m.loose && open.inBody()) {
			m.active = false
			return t.Type == hclsyntax.TokenComment
		}
		return !m.harmless(i)
	}
	quoted := t.Type == hclsyntax.TokenQuotedLit
	if (quoted || t.Type == hclsyntax.TokenIdent) && soundsSecret(string(t.Bytes)) {
		m.active, m.depth, m.loose = true, len(open), quoted
		if quoted {
			m.depth-- // the quotes close behind it
		}
	}
	return false
}

// harmless reports whether a token behind a secret's name may be shown.
func (m *masker) harmless(i int) bool {
	switch m.tokens[i].Type {
	case hclsyntax.TokenOParen, hclsyntax.TokenCParen, hclsyntax.TokenOQuote, hclsyntax.TokenCQuote,
		hclsyntax.TokenOBrace, hclsyntax.TokenCBrace, hclsyntax.TokenOBrack, hclsyntax.TokenCBrack,
		hclsyntax.TokenEqual, hclsyntax.TokenColon, hclsyntax.TokenComma, hclsyntax.TokenNewline, hclsyntax.TokenEOF:
		return true
	case hclsyntax.TokenIdent:
		return m.isCall(i)
	case hclsyntax.TokenQuotedLit:
		return i > 2 && m.isCall(i-3)
	}
	return false
}

// isCall reports whether env( or file( begins at token i.
func (m *masker) isCall(i int) bool {
	name := string(m.tokens[i].Bytes)
	return m.tokens[i].Type == hclsyntax.TokenIdent && (name == "env" || name == "file") &&
		i+1 < len(m.tokens) && m.tokens[i+1].Type == hclsyntax.TokenOParen
}

// soundsSecret reports whether a setting's name is "token", a misspelling of
// it, or another usual name of a secret.
func soundsSecret(name string) bool {
	name = strings.ToLower(name)
	if name == "token_file" {
		return false // the path of one
	}
	for _, part := range []string{"tok", "secret", "passw", "credential"} {
		if strings.Contains(name, part) {
			return true
		}
	}
	return len(name) <= 10 && levenshtein.Distance(name, "token", nil) <= 2
}

// hasPassword reports whether text looks like a URL with user name and password.
func hasPassword(text string) bool {
	_, rest, ok := strings.Cut(text, "://")
	return ok && strings.Contains(rest, "@")
}

// maskLines adds to the masks of a file whose syntax is wrong: a quote that is
// not closed turns texts and what is between them around. From a name that
// sounds secret on, all is masked up to a line that begins like a setting or a
// block, or ends one.
func (s *source) maskLines() {
	fresh := regexp.MustCompile(`^\s*(\}|[A-Za-z_][A-Za-z0-9_-]*\s*(=|\{|"[^"]*"\s*\{))`)
	words := regexp.MustCompile(`[A-Za-z_][A-Za-z0-9_-]*`)
	active, at := false, 0
	for line := range bytes.Lines(s.bytes) {
		active = active && !fresh.Match(line)
		from := at
		if !active {
			for _, w := range words.FindAllIndex(line, -1) {
				if soundsSecret(string(line[w[0]:w[1]])) {
					active, from = true, at+w[1]
					break
				}
			}
		}
		at += len(line)
		if active {
			s.masks = append(s.masks, span{from, at})
		}
	}
	s.masks = merge(s.masks)
}

// merge sorts spans and joins those that overlap.
func merge(spans []span) []span {
	slices.SortFunc(spans, func(a, b span) int { return cmp.Compare(a.from, b.from) })
	var out []span
	for _, m := range spans {
		if last := len(out) - 1; last >= 0 && m.from <= out[last].to {
			out[last].to = max(out[last].to, m.to)
		} else {
			out = append(out, m)
		}
	}
	return out
}
